/* SPDX-License-Identifier: Apache-2.0 */
/* The capabilities codec: what is complete, what is stored, what is shown. */
#include "coord/caps.h"
#include "tests/unit/unit.h"

#define BYTES COORD_BYTES

/* A copy that ends where the memory ends, so that a sanitizer sees one byte too many. */
static struct coord_bytes exact(struct coord_bytes bytes)
{
	char *copy = malloc(bytes.len);
	assert_true(copy || bytes.len == 0);
	if (bytes.len)
		memcpy(copy, bytes.data, bytes.len);
	return (struct coord_bytes){copy, bytes.len};
}

static void look(struct coord_bytes text, enum coord_caps_text wanted, size_t wanted_end)
{
	struct coord_bytes copy = exact(text);
	size_t end = 99;
	int got = coord_caps_look(copy, &end);
	if (got != (int)wanted)
		print_error("look '%.*s': %d, not %d\n", (int)text.len, text.data, got, wanted);
	assert_int_equal(got, wanted);
	assert_int_equal(end, wanted_end);
	assert_int_equal(coord_caps_look(copy, NULL), wanted);
	free((char *)copy.data);
}

static void test_look(void **state)
{
	look(BYTES(""), COORD_CAPS_EMPTY, 0);
	look((struct coord_bytes){NULL, 0}, COORD_CAPS_EMPTY, 0);
	look(BYTES(" \t\r\n"), COORD_CAPS_EMPTY, 0);
	look(BYTES("{}"), COORD_CAPS_JSON, 2);
	look(BYTES(" [] \n"), COORD_CAPS_JSON, 3);
	look(BYTES("{\"weight\": 2}\n"), COORD_CAPS_JSON, 13);
	look(BYTES("[1,-0,0.5,1e5,-1E-2,true,false,null,\"\",{},[]]"), COORD_CAPS_JSON, 45);
	look(BYTES("{} {}"), COORD_CAPS_OTHER, 2);
	look(BYTES("[]x"), COORD_CAPS_OTHER, 2);
	look(BYTES("hello"), COORD_CAPS_OTHER, 0);
	look(BYTES("\"string\""), COORD_CAPS_OTHER, 0);
	look(BYTES("12"), COORD_CAPS_OTHER, 0);
	look(BYTES("\v{}"), COORD_CAPS_OTHER, 0);
	look(BYTES("\xef\xbb\xbf{}"), COORD_CAPS_OTHER, 0);
}

static void test_look_strict(void **state)
{
	static const char *const texts[] = {"[1,]", "[,1]", "[1 2]", "{,}", "{\"a\"}", "{\"a\":}",
		"{\"a\":1,}", "{a:1}", "{'a':1}", "{1:2}", "['a']", "[NaN]", "[Infinity]",
		"[-Infinity]", "[nul]", "[nulL]", "[True]", "[01]", "[-]", "[-a]", "[+1]", "[.5]",
		"[1.]", "[1.e5]", "[1e]", "[1e+]", "[0x10]", "[1x]", "[\"a\nb\"]", "[\"\x01\"]",
		"[\"\\x\"]", "[\"\\u12g4\"]", "[\"\\ud800\"]", "[\"\\ud800x\"]", "[\"\\ud800\\n\"]",
		"[\"\\udc00\"]", "[\"\\ud800\\ud800\"]", "[\"\xff\"]", "[\"\xc0\x80\"]",
		"[\"\xed\xa0\x80\"]", "[\"\xf4\x90\x80\x80\"]", "[\"\xc3(\"]", "[1]]", "[}", "{]",
		"[//\n1]", "[/**/]", "[18446744073709551616]", "[-9223372036854775809]", "[1e400]",
		"[-1e400]", "[\xc2\xa0]"};
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct coord_bytes text = coord_bytes_of(texts[i]);
		look(text, COORD_CAPS_OTHER, strcmp(texts[i], "[1]]") ? 0 : 3);
	}
	look(BYTES("[\"\\u0000\"]"), COORD_CAPS_JSON, 10);
	look(BYTES("[18446744073709551615,-9223372036854775808]"), COORD_CAPS_JSON, 43);
	look(BYTES("[1.7976931348623157e308,5e-324,1e-400]"), COORD_CAPS_JSON, 38);
	look(BYTES("[\"\\ud83d\\ude00\x7f\"]"), COORD_CAPS_JSON, 17);
	look(BYTES("[\"\0\"]"), COORD_CAPS_OTHER, 0);
	look(BYTES("[\0]"), COORD_CAPS_OTHER, 0);
	look(BYTES("[\"\\\0\"]"), COORD_CAPS_OTHER, 0);
}

/* Every beginning of a finished value is open, whatever it is cut in. */
static void test_look_beginnings(void **state)
{
	static const char text[] =
		" { \"a\\u00e9\\ud83d\\ude00\xc3\xa9\xf0\x9f\x98\x80\\n\" : [ 1 , -2.5e+3, "
		"true,false ,null, \"x\" ,{}, [ ] ] , \"b\":{\"c\":\"\\\\\"} }";
	size_t len = sizeof(text) - 1;
	for (size_t i = 2; i < len; i++)
		look((struct coord_bytes){text, i}, COORD_CAPS_OPEN, 0);
	look((struct coord_bytes){text, len}, COORD_CAPS_JSON, len);
}

static struct coord_bytes nested(int depth, char *ret, char open, char close)
{
	memset(ret, open, (size_t)depth);
	memset(ret + depth, close, (size_t)depth);
	return (struct coord_bytes){ret, 2 * (size_t)depth};
}

static void test_look_depth(void **state)
{
	char text[200];
	look(nested(32, text, '[', ']'), COORD_CAPS_JSON, 64);
	look(nested(33, text, '[', ']'), COORD_CAPS_OTHER, 0);
	memset(text, '[', 200);
	look((struct coord_bytes){text, 32}, COORD_CAPS_OPEN, 0);
	look((struct coord_bytes){text, 33}, COORD_CAPS_OTHER, 0);
	look(BYTES("[[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],[],"
		   "[],"
		   "[],[],[],[],[],[],[],[],[]]"),
		COORD_CAPS_JSON, 109);
}

static void encode(struct coord_bytes text, struct coord_bytes wanted)
{
	struct coord_bytes copy = exact(text);
	char *got = NULL;
	size_t len = 0;
	assert_int_equal(coord_caps_encode(copy, &got, &len), 0);
	if (len != wanted.len || memcmp(got, wanted.data, len) != 0) {
		print_error("encode '%.*s':", (int)text.len, text.data);
		for (size_t i = 0; i < len; i++)
			print_error(" %02x", (unsigned char)got[i]);
		print_error("\n");
	}
	assert_int_equal(len, wanted.len);
	assert_memory_equal(got, wanted.data, len);
	assert_int_equal(coord_msgpack_check((struct coord_bytes){got, len}, NULL), 0);
	free(got);
	free((char *)copy.data);
}

static void test_encode(void **state)
{
	encode(BYTES(""), BYTES("\xc0"));
	encode(BYTES("\n"), BYTES("\xa1\n"));
	encode(BYTES("abc"), BYTES("\xa3"
				   "abc"));
	encode(BYTES("a\0b"), BYTES("\xa3"
				    "a\0b"));
	encode(BYTES("\xff\xfe"), BYTES("\xc4\x02\xff\xfe"));
	encode(BYTES("{\"weight\": 2}\n"), BYTES("\x81\xa6weight\x02"));
	encode(BYTES("{\"a\": [1, 2.5, true]}"), BYTES("\x81\xa1"
						       "a\x93\x01\xcb\x40\x04\0\0\0\0\0\0\xc3"));
	encode(BYTES("{}"), BYTES("\x80"));
	encode(BYTES("[]"), BYTES("\x90"));
	encode(BYTES("{\"n\": -5, \"big\": 70000, \"u\": \"\xc3\xa9\"}"),
		BYTES("\x83\xa1n\xfb\xa3"
		      "big\xce\x00\x01\x11\x70\xa1u\xa2\xc3\xa9"));
	encode(BYTES("[null,false,-0,-0.0]"), BYTES("\x94\xc0\xc2\x00\xcb\x80\0\0\0\0\0\0\0"));
	encode(BYTES("[18446744073709551615,-9223372036854775808]"),
		BYTES("\x92\xcf\xff\xff\xff\xff\xff\xff\xff\xff\xd3\x80\0\0\0\0\0\0\0"));
	encode(BYTES("[\"\\u0000\\/\\\"\\ud83d\\ude00\\u00e9\"]"),
		BYTES("\x91\xa9\0/\"\xf0\x9f\x98\x80\xc3\xa9"));
	encode(BYTES("{\"a\\u0000b\":1,\"a\":2}"), BYTES("\x82\xa3"
							 "a\0b\x01\xa1"
							 "a\x02"));
	encode(BYTES("[1e400]"), BYTES("\xa7[1e400]"));
	encode(BYTES("{\"a\":1"), BYTES("\xa6{\"a\":1"));
	encode(BYTES("{} x"), BYTES("\xa4{} x"));
}

static void test_encode_repeated(void **state)
{
	encode(BYTES("{\"a\":1,\"b\":[2,{\"a\":9}],\"\\u0061\":3}"), BYTES("\x82\xa1"
									   "b\x92\x02\x81\xa1"
									   "a\x09\xa1"
									   "a\x03"));
	encode(BYTES("{\"a\":{\"x\":1,\"x\":2}, \"a\":\"\\\"}\" , \"a\":[],\"ab\":0}"),
		BYTES("\x82\xa1"
		      "a\x90\xa2"
		      "ab\x00"));
}

static void test_encode_limits(void **state)
{
	char *text = malloc(COORD_CAPS_MAX + 1), *got = NULL;
	size_t len = 0;
	assert_non_null(text);
	memset(text, 'x', COORD_CAPS_MAX + 1);
	assert_int_equal(
		coord_caps_encode((struct coord_bytes){text, COORD_CAPS_MAX + 1}, &got, &len),
		-EFBIG);
	assert_null(got);
	assert_int_equal(
		coord_caps_encode((struct coord_bytes){text, COORD_CAPS_MAX}, &got, &len), 0);
	assert_int_equal(len, COORD_CAPS_MAX + 5);
	free(got);
	/* As many small things as fit, at the greatest depth. */
	for (size_t i = 0; i < COORD_CAPS_MAX; i++)
		text[i] = i < 31                     ? '['
			  : i >= COORD_CAPS_MAX - 31 ? ']'
			  : (i - 31) % 3 == 0        ? '{'
			  : (i - 31) % 3 == 1        ? '}'
						     : ',';
	text[COORD_CAPS_MAX - 32] = ' ';
	text[COORD_CAPS_MAX - 33] = ' ';
	text[COORD_CAPS_MAX - 34] = ' ';
	size_t last = COORD_CAPS_MAX - 32;
	while (text[last] != '}')
		text[last--] = ' ';
	assert_int_equal(
		coord_caps_look((struct coord_bytes){text, COORD_CAPS_MAX}, NULL), COORD_CAPS_JSON);
	assert_int_equal(
		coord_caps_encode((struct coord_bytes){text, COORD_CAPS_MAX}, &got, &len), 0);
	assert_true(len > 300000 && len < COORD_CAPS_MAX);
	free(got);
	free(text);
}

static void decode(struct coord_bytes msgpack, struct coord_bytes wanted)
{
	struct coord_bytes copy = exact(msgpack);
	char *got = NULL;
	size_t len = 0;
	assert_int_equal(coord_caps_decode(copy, &got, &len), 0);
	if (len != wanted.len || memcmp(got, wanted.data, len) != 0)
		print_error(
			"got '%.*s', not '%.*s'\n", (int)len, got, (int)wanted.len, wanted.data);
	assert_int_equal(len, wanted.len);
	assert_memory_equal(got, wanted.data, len);
	assert_int_equal(got[len], 0);
	assert_int_equal(coord_msgpack_check(copy, NULL), 0);
	free(got);
	free((char *)copy.data);
}

static void refuse(struct coord_bytes msgpack)
{
	struct coord_bytes copy = exact(msgpack);
	char *got = NULL;
	size_t len = 0;
	assert_int_equal(coord_caps_decode(copy, &got, &len), -EBADMSG);
	assert_null(got);
	assert_int_equal(coord_msgpack_check(copy, NULL), -EBADMSG);
	free((char *)copy.data);
}

static void test_decode(void **state)
{
	decode(BYTES("\xc0"), BYTES(""));
	decode(BYTES("\xc4\x00"), BYTES(""));
	decode(BYTES("\xa0"), BYTES(""));
	decode(BYTES("\xc4\x03"
		     "a\0\xff"),
		BYTES("a\0\xff"));
	decode(BYTES("\xa3"
		     "abc"),
		BYTES("abc"));
	decode(BYTES("\xd9\x03"
		     "a\n\0"),
		BYTES("a\n\0"));
	decode(BYTES("\xda\0\x01x"), BYTES("x"));
	decode(BYTES("\xdb\0\0\0\x01x"), BYTES("x"));
	decode(BYTES("\xc5\0\x01x"), BYTES("x"));
	decode(BYTES("\xc6\0\0\0\x01x"), BYTES("x"));
	decode(BYTES("\x07"), BYTES("7\n"));
	decode(BYTES("\xc3"), BYTES("true\n"));
	decode(BYTES("\x80"), BYTES("{}\n"));
	decode(BYTES("\x83\xa6weight\x02\xc4\x01k\xc0\xa1z\x92\xc2\xff"),
		BYTES("{\"weight\":2,\"k\":null,\"z\":[false,-1]}\n"));
	decode(BYTES("\xdc\0\x01\xdd\0\0\0\x01\xde\0\x01\xa1x\xdf\0\0\0\0"),
		BYTES("[[{\"x\":{}}]]\n"));
}

static void test_decode_strings(void **state)
{
	decode(BYTES("\x92\xa3\"\\/\xa3\n\x01\x7f"), BYTES("[\"\\\"\\\\/\",\"\\n\\u0001\x7f\"]\n"));
	decode(BYTES("\x91\xa3"
		     "a\0b"),
		BYTES("[\"a\\u0000b\"]\n"));
	decode(BYTES("\x94\xc4\x00\xc4\x02\xc3\xa9\xc4\x01\xff\xc4\x03\xff\xff\xff"),
		BYTES("[\"\",\"\xc3\xa9\",\"data:;base64,/w==\",\"data:;base64,////\"]\n"));
	decode(BYTES("\x81\xc4\x02\xff\xfe\x01"), BYTES("{\"data:;base64,//4=\":1}\n"));
}

static void test_decode_numbers(void **state)
{
	decode(BYTES("\x9a\x7f\xe0\xcc\xff\xcd\xff\xff\xce\xff\xff\xff\xff\xcf\xff\xff\xff\xff\xff"
		     "\xff\xff\xff"
		     "\xd0\x80\xd1\x80\x00\xd2\x80\0\0\0\xd3\x80\0\0\0\0\0\0\0"),
		BYTES("[127,-32,255,65535,4294967295,18446744073709551615,-128,-32768,-2147483648,"
		      "-9223372036854775808]\n"));
	decode(BYTES("\x92\xd0\x05\xd3\0\0\0\0\0\0\0\x05"), BYTES("[5,5]\n"));
	decode(BYTES("\x98\xcb\x40\x04\0\0\0\0\0\0\xcb\x40\0\0\0\0\0\0\0\xcb\x3f\xb9\x99\x99\x99"
		     "\x99\x99\x9a"
		     "\xcb\x80\0\0\0\0\0\0\0\xcb\x7e\x37\xe4\x3c\x88\x00\x75\x9c\xcb\x7f\xf8\0\0\0"
		     "\0\0\0"
		     "\xcb\x7f\xf0\0\0\0\0\0\0\xcb\xff\xf0\0\0\0\0\0\0"),
		BYTES("[2.5,2.0,0.1,-0.0,1e+300,\"NaN\",\"Infinity\",\"-Infinity\"]\n"));
	decode(BYTES("\xca\x3f\0\0\0"), BYTES("0.5\n"));
	decode(BYTES("\xcb\0\0\0\0\0\0\0\x01"), BYTES("4.94065645841247e-324\n"));
	decode(BYTES("\xcb\x3f\xd5\x55\x55\x55\x55\x55\x55"), BYTES("0.3333333333333333\n"));
}

#define DATE                                                                                       \
	"\xa3"                                                                                     \
	"day\x02\xa5month\x01\xa4year\xcd\x07\xe8"
#define TIME "\xa4hour\x03\xa6minute\x04\xa6second\x05\xabmicrosecond"

static void test_decode_extensions(void **state)
{
	decode(BYTES("\xc7\x20\x00"
		     "0123456789ABCDEF0123456789abcdef"),
		BYTES("\"01234567-89ab-cdef-0123-456789abcdef\"\n"));
	decode(BYTES("\xc7\x3a\x01\x87" DATE TIME "\xcd\x02\xa6"),
		BYTES("\"2024-01-02T03:04:05.000678\"\n"));
	decode(BYTES("\xc7\x38\x06\x87" DATE TIME "\x00"), BYTES("\"2024-01-02T03:04:05\"\n"));
	decode(BYTES("\xc7\x3f\x01\x88" DATE TIME "\x00\xa2tz\xa3UTC"),
		BYTES("\"2024-01-02T03:04:05Z\"\n"));
	decode(BYTES("\xc7\x3f\x01\x88" DATE TIME "\x00\xc4\x02tz\xa2"
		     "AB"),
		BYTES("\"2024-01-02T03:04:05[AB]\"\n"));
	decode(BYTES("\xc7\x15\x07\x83" DATE), BYTES("\"2024-01-02\"\n"));
	decode(BYTES("\xc7\x03\x02\x92\x05\x02"), BYTES("[5,2]\n"));
	decode(BYTES("\xc7\x05\x03\xce\xc0\x00\x02\x01"), BYTES("\"192.0.2.1\"\n"));
	decode(BYTES("\x91\xc7\x09\x03\xcf\0\0\0\x01\0\0\0\0"), BYTES("[\"::1:0:0\"]\n"));
	decode(BYTES("\xc7\x03\x04\x92\x01\x02"), BYTES("[1,2]\n"));
	decode(BYTES("\xc7\x05\x05\x91\xd5\x04\x91\x01"), BYTES("[[1]]\n"));
	decode(BYTES("\xd6\xff\0\0\0\0"), BYTES("\"1970-01-01T00:00:00Z\"\n"));
	decode(BYTES("\xd7\xff\0\0\0\x04\0\0\0\x01"),
		BYTES("\"1970-01-01T00:00:01.000000001Z\"\n"));
	decode(BYTES("\xc7\x0c\xff\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"),
		BYTES("\"1969-12-31T23:59:59Z\"\n"));
	decode(BYTES("\xc7\x0c\xff\0\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"),
		BYTES("\"data:;base64,AAAAAH//////////\"\n"));
	decode(BYTES("\xd4\x50\xff"), BYTES("\"data:;base64,/w==\"\n"));
	decode(BYTES("\xc7\x00\x50"), BYTES("\"data:;base64,\"\n"));
	decode(BYTES("\xc8\0\x01\x80\xff"), BYTES("\"data:;base64,/w==\"\n"));
	decode(BYTES("\xc9\0\0\0\x01\x08\xff"), BYTES("\"data:;base64,/w==\"\n"));
}

static void test_refuse_extensions(void **state)
{
	refuse(BYTES("\xc7\x20\x00"
		     "0123456789ABCDEF0123456789abcdeg"));
	refuse(BYTES("\xc7\x1f\x00"
		     "0123456789ABCDEF0123456789abcde"));
	refuse(BYTES("\xd4\x01\x80"));
	refuse(BYTES("\xd4\x01\x90"));
	refuse(BYTES("\xc7\x15\x01\x83" DATE)); /* no time */
	refuse(BYTES("\xc7\x16\x07\x83" DATE "\xc0"));
	refuse(BYTES("\xc7\x15\x07\x83\xa3"
		     "day\x1e\xa5month\x02\xa4year\xcd\x07\xe8"));
	refuse(BYTES("\xc7\x15\x07\x83\xa3"
		     "day\x01\xa5month\x0d\xa4year\xcd\x07\xe8"));
	refuse(BYTES("\xc7\x15\x07\x83\xa3"
		     "day\x1d\xa5month\x02\xa4year\xcd\x07\xe7"));
	refuse(BYTES("\xc7\x15\x07\x83\xa3"
		     "day\xff\xa5month\x02\xa4year\xcd\x07\xe8"));
	refuse(BYTES("\xc7\x3f\x01\x88" DATE TIME "\x00\xa2tz\xa3\"BC"));
	refuse(BYTES("\xc7\x02\x02\x91\x05"));
	refuse(BYTES("\xc7\x04\x02\x92\x05\xa1x"));
	refuse(BYTES("\xc7\x04\x02\x92\x05\x01\x01"));
	refuse(BYTES("\xd4\x03\xff"));
	refuse(BYTES("\xd5\x03\x01\x02"));
	refuse(BYTES("\xd4\x04\x80"));
	refuse(BYTES("\xd5\x04\x91\xc1"));
	refuse(BYTES("\xd5\x04\x90\xc0"));
	refuse(BYTES("\xc7\x00\x04"));
	refuse(BYTES("\xd4\xff\x00"));
	refuse(BYTES("\xd7\xff\xff\xff\xff\xff\xff\xff\xff\xff"));
}

static void test_refuse(void **state)
{
	refuse(BYTES(""));
	refuse((struct coord_bytes){NULL, 0});
	refuse(BYTES("\xc1"));
	refuse(BYTES("\xc0\xc0"));
	refuse(BYTES("\xa3"
		     "ab"));
	refuse(BYTES("\xa1\xff"));
	refuse(BYTES("\x91\xa2\xc0\x80"));
	refuse(BYTES("\x81\x01\x02")); /* an int as key */
	refuse(BYTES("\x81\xc0\x02"));
	refuse(BYTES("\x81\xa1\xff\x02"));
	refuse(BYTES("\x81\xa1x"));
	refuse(BYTES("\x92\x01"));
	/* Lengths that are lies. */
	refuse(BYTES("\xdd\x01\0\0\0"));
	refuse(BYTES("\xdd\xff\xff\xff\xff\xdd\xff\xff\xff\xff"));
	refuse(BYTES("\xdf\xff\xff\xff\xff\xa1x"));
	refuse(BYTES("\xdb\xff\xff\xff\xff"));
	refuse(BYTES("\xc6\xff\xff\xff\xff"));
	refuse(BYTES("\xc9\xff\xff\xff\xff\x01"));
	refuse(BYTES("\xd8\x00"));
	static const char cut[] =
		"\xc4\xc5\xc6\xc7\xc8\xc9\xca\xcb\xcc\xcd\xce\xcf\xd0\xd1\xd2\xd3\xd4\xd5"
		"\xd6\xd7\xd8\xd9\xda\xdb\xdc\xdd\xde\xdf\x81\x91\xa1";
	for (size_t i = 0; i < sizeof(cut) - 1; i++)
		refuse((struct coord_bytes){cut + i, 1});
}

static void test_depth(void **state)
{
	char text[200];
	memset(text, 0x91, sizeof(text));
	text[32] = '\xc0';
	char *got = NULL;
	size_t len;
	assert_int_equal(coord_caps_decode((struct coord_bytes){text, 33}, &got, &len), 0);
	assert_int_equal(len, 64 + 4 + 1);
	free(got);
	text[31] = '\x90';
	assert_int_equal(coord_msgpack_check((struct coord_bytes){text, 32}, NULL), 0);
	text[31] = '\x91';
	text[32] = '\x90';
	refuse((struct coord_bytes){text, 33});
	/* Sets in sets count too. */
	struct coord_bytes set = BYTES("\x90");
	for (int depth = 2; depth <= 33; depth++) {
		char *outer = malloc(set.len + 7);
		assert_non_null(outer);
		memcpy(outer, "\x91\xc9\0\0", 4);
		outer[4] = (char)(set.len >> 8);
		outer[5] = (char)set.len;
		outer[6] = 4;
		memcpy(outer + 7, set.data, set.len);
		if (depth > 2)
			free((char *)set.data);
		set = (struct coord_bytes){outer, set.len + 7};
		assert_int_equal(coord_msgpack_check(set, NULL), depth <= 32 ? 0 : -EBADMSG);
	}
	free((char *)set.data);
}

static void test_check_prefix(void **state)
{
	size_t len = 99;
	assert_int_equal(coord_msgpack_check(BYTES("\x92\x01\xa1x\xc1\xc1"), &len), 0);
	assert_int_equal(len, 4);
	assert_int_equal(coord_msgpack_check(BYTES("\x92\x01\xa1x\xc1\xc1"), NULL), -EBADMSG);
	assert_int_equal(coord_msgpack_check(BYTES("\xc1\xc0"), &len), -EBADMSG);
	assert_int_equal(len, 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_look),
		cmocka_unit_test(test_look_strict),
		cmocka_unit_test(test_look_beginnings),
		cmocka_unit_test(test_look_depth),
		cmocka_unit_test(test_encode),
		cmocka_unit_test(test_encode_repeated),
		cmocka_unit_test(test_encode_limits),
		cmocka_unit_test(test_decode),
		cmocka_unit_test(test_decode_strings),
		cmocka_unit_test(test_decode_numbers),
		cmocka_unit_test(test_decode_extensions),
		cmocka_unit_test(test_refuse_extensions),
		cmocka_unit_test(test_refuse),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_check_prefix),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
