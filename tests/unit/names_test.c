/* SPDX-License-Identifier: Apache-2.0 */
/* File names: the mapping is a bijection, and only canonical spellings exist. */
#include "coord/names.h"
#include "tests/unit/unit.h"

static void check_pair(struct coord_bytes name, const char *file)
{
	char encoded[COORD_NAME_MAX + 1], decoded[COORD_NAME_MAX + 1];
	size_t len = 0;
	assert_int_equal(coord_name_encode(name, encoded), 0);
	assert_string_equal(encoded, file);
	assert_int_equal(coord_name_decode(coord_bytes_of(file), decoded, &len), 0);
	assert_int_equal(len, name.len);
	assert_memory_equal(decoded, name.data, len);
}

static void test_pairs(void **state)
{
	check_pair(COORD_BYTES("web"), "web");
	check_pair(COORD_BYTES("a/b"), "a%2Fb");
	check_pair(COORD_BYTES("100%"), "100%25");
	check_pair(COORD_BYTES("."), "%2E");
	check_pair(COORD_BYTES(".."), "%2E.");
	check_pair(COORD_BYTES(".hidden"), "%2Ehidden");
	check_pair(COORD_BYTES("a.b."), "a.b.");
	check_pair(COORD_BYTES("a\nb\tc\x7f"), "a%0Ab%09c%7F");
	check_pair(COORD_BYTES("a\0b"), "a%00b");
	check_pair(COORD_BYTES("\0"), "%00");
	check_pair(COORD_BYTES("gr\xc3\xbc\xc3\x9f"), "gr\xc3\xbc\xc3\x9f");
	check_pair(COORD_BYTES("\xff\x80"), "\xff\x80");
	check_pair(COORD_BYTES(" a b "), " a b ");
}

static void test_every_byte(void **state)
{
	for (int i = 0; i < 256; i++) {
		char name[2] = {(char)i, 'x'}, file[COORD_NAME_MAX + 1], back[COORD_NAME_MAX + 1];
		size_t len;
		assert_int_equal(coord_name_encode((struct coord_bytes){name, 2}, file), 0);
		assert_true(file[0] != '.' && !strchr(file, '/'));
		assert_int_equal(coord_name_decode(coord_bytes_of(file), back, &len), 0);
		assert_int_equal(len, 2);
		assert_memory_equal(back, name, 2);
	}
}

static void test_not_canonical(void **state)
{
	static const char *const files[] = {"", "%2f", "%41", ".swp", ".", "..", "%", "a%", "a%2",
		"a%2g", "a%2E", "a/b", "a\nb", "a\x7f", "%2 F", "%%25", "x%c3"};
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		char name[COORD_NAME_MAX + 1];
		size_t len = 77;
		assert_int_equal(coord_name_decode(coord_bytes_of(files[i]), name, &len), -EINVAL);
		assert_int_equal(len, 77);
	}
	char name[COORD_NAME_MAX + 1];
	size_t len;
	assert_int_equal(coord_name_decode(COORD_BYTES("a\0b"), name, &len), -EINVAL);
}

static void test_lengths(void **state)
{
	char name[300], file[COORD_NAME_MAX + 1] = "kept";
	size_t len;
	memset(name, 'x', sizeof(name));
	assert_int_equal(coord_name_encode((struct coord_bytes){name, 256}, file), -ENAMETOOLONG);
	assert_string_equal(file, "kept");
	assert_int_equal(coord_name_encode((struct coord_bytes){name, 255}, file), 0);
	assert_int_equal(strlen(file), 255);
	assert_int_equal(coord_name_decode((struct coord_bytes){name, 255}, file, &len), 0);
	assert_int_equal(len, 255);
	assert_int_equal(
		coord_name_decode((struct coord_bytes){name, 256}, file, &len), -ENAMETOOLONG);
	/* Escapes count three: 85 slashes fit, and not one more byte. */
	memset(name, '/', sizeof(name));
	assert_int_equal(coord_name_encode((struct coord_bytes){name, 85}, file), 0);
	assert_int_equal(coord_name_encode((struct coord_bytes){name, 86}, file), -ENAMETOOLONG);
	assert_int_equal(coord_name_encode((struct coord_bytes){NULL, 0}, file), -EINVAL);
}

static void test_rfc3339(void **state)
{
	char text[COORD_RFC3339_MAX];
	coord_rfc3339(0, text);
	assert_string_equal(text, "1970-01-01T00:00:00.000000Z");
	coord_rfc3339(1704164645000678, text);
	assert_string_equal(text, "2024-01-02T03:04:05.000678Z");
	coord_rfc3339(UINT64_MAX, text);
	assert_string_equal(text, "586524-01-19T08:01:49.551615Z");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pairs),
		cmocka_unit_test(test_every_byte),
		cmocka_unit_test(test_not_canonical),
		cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_rfc3339),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
