/* SPDX-License-Identifier: Apache-2.0 */
/* The names of keys in redis. What Python wrote is taken from Python 3.11 and tooz 3.1.0. */
#include "tests/unit/unit.h"

#include "drivers/redis/keys.h"

static void check_repr(struct coord_bytes bytes, const char *expected)
{
	char text[2048], back[2048];
	size_t back_len, len = redis_repr(bytes, text);
	assert_int_equal(len, strlen(expected));
	assert_memory_equal(text, expected, len);
	assert_true(len <= 4 * bytes.len + 3);
	assert_int_equal(redis_repr_parse((struct coord_bytes){text, len}, back, &back_len), 0);
	assert_int_equal(back_len, bytes.len);
	assert_memory_equal(back, bytes.data, bytes.len);
}

static void test_repr(void **state)
{
	(void)state;
	check_repr(COORD_BYTES(""), "b''");
	check_repr(COORD_BYTES("lk"), "b'lk'");
	check_repr(COORD_BYTES("with blank"), "b'with blank'");
	check_repr(COORD_BYTES("a'b"), "b\"a'b\"");
	check_repr(COORD_BYTES("a\"b"), "b'a\"b'");
	check_repr(COORD_BYTES("a'b\"c"), "b'a\\'b\"c'");
	check_repr(COORD_BYTES("\\"), "b'\\\\'");
	check_repr(COORD_BYTES("\\'"), "b\"\\\\'\"");
	check_repr(COORD_BYTES("\t\n\r"), "b'\\t\\n\\r'");
	check_repr(COORD_BYTES("\0\x01\x1f\x20\x7e\x7f"), "b'\\x00\\x01\\x1f ~\\x7f'");
	check_repr(COORD_BYTES("\xc3\xa9\xff\x80"), "b'\\xc3\\xa9\\xff\\x80'");
	check_repr(COORD_BYTES("\a\b\f\v"), "b'\\x07\\x08\\x0c\\x0b'");
	check_repr(COORD_BYTES("b'x'"), "b\"b'x'\"");
}

static void test_repr_all(void **state)
{
	(void)state;
	for (int a = 0; a < 256; a++)
		for (int b = 0; b < 256; b++) {
			char pair[2] = {(char)a, (char)b}, text[16], back[16];
			size_t n, len = redis_repr((struct coord_bytes){pair, 2}, text);
			struct coord_bytes spelt = {text, len};
			assert_true(len <= 11);
			assert_int_equal(redis_repr_parse(spelt, back, &n), 0);
			assert_int_equal(n, 2);
			assert_memory_equal(back, pair, 2);
		}
}

/* Spellings that Python reads but does not write. */
static void test_repr_refused(void **state)
{
	(void)state;
	static const char *const bad[] = {"", "b", "b'", "'x'", "x", "b'x", "b'x\"", "b\"x\"",
		"b'\\x41'", "b'\\x4'", "b'\\xGG'", "b'\\xC3'", "b'\\q'", "b'\\'", "b'a\\'b'",
		"b'\t'", "b'a'b'", "b'\\\"'", "b'\\n\\'"};
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		char ret[64];
		size_t len;
		assert_int_equal(redis_repr_parse(coord_bytes_of(bad[i]), ret, &len), -EINVAL);
	}
}

static void check_key(
	const struct redis_keys *keys, enum redis_key kind, const char *name, const char *expected)
{
	char key[REDIS_KEY_MAX];
	size_t len = redis_key(keys, kind, coord_bytes_of(name), key);
	assert_int_equal(len, strlen(expected));
	assert_memory_equal(key, expected, len);
}

static void test_keys(void **state)
{
	(void)state;
	struct redis_keys keys;
	assert_int_equal(redis_keys_init(&keys, "_tooz", REDIS_DIALECT_BOTH), 0);
	check_key(&keys, REDIS_KEY_GROUPS, "", "_tooz_groups");
	check_key(&keys, REDIS_KEY_GROUP, "g", "_tooz_group:g");
	check_key(&keys, REDIS_KEY_BEAT, "m", "_tooz_beats:m");
	check_key(&keys, REDIS_KEY_LOCK, "lk", "_tooz_lk_lock");
	check_key(&keys, REDIS_KEY_LOCK_OLD, "lk", "b'_tooz'_b'lk'_lock");
	check_key(&keys, REDIS_KEY_LOCK_OLD, "it's", "b'_tooz'_b\"it's\"_lock");
	check_key(&keys, REDIS_KEY_LOCK, "leader_of_g", "_tooz_leader_of_g_lock");
	check_key(&keys, REDIS_KEY_LOCK_OLD, "leader_of_g", "b'_tooz'_b'leader_of_g'_lock");
	check_key(&keys, REDIS_KEY_RECORD, "lk", "_tooz:toozfs:lock:lk");
	redis_keys_done(&keys);
	assert_int_equal(redis_keys_init(&keys, "it's", REDIS_DIALECT_BOTH), 0);
	check_key(&keys, REDIS_KEY_LOCK_OLD, "lk", "b\"it's\"_b'lk'_lock");
	redis_keys_done(&keys);
}

/* The longest names of the worst bytes fit. */
static void test_longest(void **state)
{
	(void)state;
	struct redis_keys keys;
	char ns[201], name[REDIS_NAME_MAX + 16], key[REDIS_KEY_MAX], back[REDIS_KEY_MAX];
	memset(ns, 1, 200);
	ns[200] = 0;
	memset(name, 0xff, sizeof(name));
	assert_int_equal(redis_keys_init(&keys, ns, REDIS_DIALECT_BOTH), 0);
	for (int kind = REDIS_KEY_GROUPS; kind <= REDIS_KEY_TELL; kind++) {
		size_t len = redis_key(
			&keys, (enum redis_key)kind, (struct coord_bytes){name, sizeof(name)}, key);
		assert_true(len <= sizeof(key));
	}
	size_t back_len, len = redis_key(&keys, REDIS_KEY_LOCK_OLD,
				 (struct coord_bytes){name, REDIS_NAME_MAX}, key);
	assert_int_equal(
		redis_key_lock_name(&keys, (struct coord_bytes){key, len}, back, &back_len), 0);
	assert_int_equal(back_len, REDIS_NAME_MAX);
	assert_memory_equal(back, name, back_len);
	assert_true(redis_key_lock_pattern(&keys, key) <= sizeof(key));
	redis_keys_done(&keys);
}

static int lock_name(enum redis_dialect dialect, const char *key, char *ret)
{
	struct redis_keys keys;
	size_t len = 0;
	assert_int_equal(redis_keys_init(&keys, "_tooz", dialect), 0);
	int r = redis_key_lock_name(&keys, coord_bytes_of(key), ret, &len);
	ret[len] = 0;
	redis_keys_done(&keys);
	return r;
}

static void test_lock_name(void **state)
{
	(void)state;
	char name[256];
	assert_int_equal(lock_name(REDIS_DIALECT_BOTH, "_tooz_lk_lock", name), 0);
	assert_string_equal(name, "lk");
	assert_int_equal(lock_name(REDIS_DIALECT_BOTH, "b'_tooz'_b'l\\x01k'_lock", name), 0);
	assert_string_equal(name, "l\001k");
	assert_int_equal(lock_name(REDIS_DIALECT_OLD, "_tooz_lk_lock", name), -EINVAL);
	assert_int_equal(lock_name(REDIS_DIALECT_NEW, "b'_tooz'_b'lk'_lock", name), -EINVAL);
	/* A str id of Python's old clients is another lock, which no name of bytes has. */
	assert_int_equal(lock_name(REDIS_DIALECT_BOTH, "b'_tooz'_lk_lock", name), -EINVAL);
	static const char *const others[] = {"", "_lock", "_tooz_lock", "_tooz__lock",
		"_tooz_groups", "_tooz_group:g_lock", "_tooz_beats:m_lock",
		"_tooz:toozfs:lock:x_lock", "other_lk_lock", "b'_tooz'_b''_lock",
		"b'_tooz'_b'\\x41'_lock"};
	for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++)
		assert_true(lock_name(REDIS_DIALECT_BOTH, others[i], name) < 0);
}

static void test_pattern(void **state)
{
	(void)state;
	static const struct {
		const char *ns, *pattern;
	} cases[] = {{"_tooz", "*_tooz*_lock"}, {"a*?[b]", "*a\\*\\?\\[b\\]*_lock"}, {"", "*_lock"},
		{"it's", "*_lock"}, {"a\tb", "*_lock"}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct redis_keys keys;
		char pattern[REDIS_KEY_MAX];
		assert_int_equal(redis_keys_init(&keys, cases[i].ns, REDIS_DIALECT_BOTH), 0);
		size_t len = redis_key_lock_pattern(&keys, pattern);
		assert_int_equal(len, strlen(cases[i].pattern));
		assert_memory_equal(pattern, cases[i].pattern, len);
		redis_keys_done(&keys);
	}
}

static void test_names(void **state)
{
	(void)state;
	char big[REDIS_NAME_MAX + 1] = {0};
	struct coord_bytes group;
	for (int kind = 0; kind < COORD_KINDS; kind++) {
		enum coord_kind k = (enum coord_kind)kind;
		assert_int_equal(redis_name_check(k, COORD_BYTES("plain")), 0);
		assert_int_equal(redis_name_check(k, COORD_BYTES("")), -EINVAL);
		assert_int_equal(
			redis_name_check(k, (struct coord_bytes){big, sizeof(big)}), -ENAMETOOLONG);
		assert_int_equal(redis_name_check(k, (struct coord_bytes){big, REDIS_NAME_MAX}), 0);
	}
	assert_int_equal(redis_name_check(COORD_MEMBER, COORD_BYTES("__created__")), -EINVAL);
	assert_int_equal(redis_name_check(COORD_LOCK, COORD_BYTES("group:x")), -EINVAL);
	assert_int_equal(redis_name_check(COORD_LOCK, COORD_BYTES("beats:x")), -EINVAL);
	assert_true(redis_leader_group(COORD_BYTES("leader_of_g"), &group));
	assert_true(coord_bytes_equal(group, COORD_BYTES("g")));
	assert_false(redis_leader_group(COORD_BYTES("leader_of_"), &group));
	assert_false(redis_leader_group(COORD_BYTES("leader"), &group));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_repr),
		cmocka_unit_test(test_repr_all),
		cmocka_unit_test(test_repr_refused),
		cmocka_unit_test(test_keys),
		cmocka_unit_test(test_longest),
		cmocka_unit_test(test_lock_name),
		cmocka_unit_test(test_pattern),
		cmocka_unit_test(test_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
