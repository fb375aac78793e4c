/* SPDX-License-Identifier: Apache-2.0 */
/* The contents of the file driver's files, against what Python writes and against garbage. */
#include "coord/caps.h"
#include "drivers/file/format.h"
#include "tests/unit/unit.h"

/* A copy that ends where the memory ends, so that a sanitizer sees one byte too many. */
static struct coord_bytes exact(const void *data, size_t len)
{
	char *copy = malloc(len ? len : 1);
	assert_non_null(copy);
	if (len)
		memcpy(copy, data, len);
	return (struct coord_bytes){copy, len};
}

static void assert_bytes(struct coord_bytes got, const char *text)
{
	assert_int_equal(got.len, strlen(text));
	assert_memory_equal(got.data, text, got.len);
}

static void test_hash(void **state)
{
	char hash[FILE_HASH_SIZE];
	file_hash(COORD_BYTES(""), hash);
	assert_string_equal(hash, "da39a3ee5e6b4b0d3255bfef95601890afd80709");
	file_hash(COORD_BYTES("g1"), hash);
	assert_string_equal(hash, "a46e558d11cb2400bab09c1ca969e615142ef3d6");
	file_hash(COORD_BYTES("memA"), hash);
	assert_string_equal(hash, "6fff69f869befb6f79682ed24a84f227a0caa285");
	/* Lengths around the block: 55, 56, 63, 64, 119 bytes. */
	static const struct {
		size_t len;
		const char *hash;
	} as[] = {{55, "c1c8bbdc22796e28c0e15163d20899b65621d65a"},
		{56, "c2db330f6083854c99d4b5bfb6e8f29f201be699"},
		{63, "03f09f5b158a7a8cdad920bddc29b81c18a551f5"},
		{64, "0098ba824b5c16427bd7a1122a5a442a25ec644d"},
		{119, "ee971065aaa017e0632a8ca6c77bb3bf8b1dfc56"}};
	char data[128];
	memset(data, 'a', sizeof(data));
	for (size_t i = 0; i < sizeof(as) / sizeof(*as); i++) {
		file_hash((struct coord_bytes){data, as[i].len}, hash);
		assert_string_equal(hash, as[i].hash);
	}
}

static void test_meta(void **state)
{
	static const char wire[] = "\x82\xa8group_id\xc4\x02g1\xa7"
				   "encoded\xc2";
	char *data;
	size_t len;
	assert_int_equal(file_meta_encode(COORD_BYTES("g1"), &data, &len), 0);
	assert_int_equal(len, sizeof(wire) - 1);
	assert_memory_equal(data, wire, len);
	struct coord_bytes name;
	assert_int_equal(file_meta_decode((struct coord_bytes){data, len}, &name), 0);
	assert_bytes(name, "g1");
	for (size_t cut = 0; cut < len; cut++) {
		struct coord_bytes part = exact(data, cut);
		assert_int_equal(file_meta_decode(part, &name), -EBADMSG);
		free((char *)part.data);
	}
	free(data);
	/* Keys and values as Python 2 wrote them, and as a str. */
	assert_int_equal(file_meta_decode(COORD_BYTES("\x81\xc4\x08group_id\xa2g1"), &name), 0);
	assert_bytes(name, "g1");
	assert_int_equal(file_meta_decode(COORD_BYTES("\x81\xa8group_id\x07"), &name), -EBADMSG);
	assert_int_equal(
		file_meta_decode(COORD_BYTES("\x81\xa8group_id\xc4\x00"), &name), -EBADMSG);
	assert_int_equal(file_meta_decode(COORD_BYTES("\x80"), &name), -EBADMSG);
	assert_int_equal(file_meta_decode(COORD_BYTES("\xc0"), &name), -EBADMSG);
}

/* Written by Python: capabilities {"weight": 2}, joined 2024-01-02 03:04:05.000678. */
#define PYTHON_RAW                                                                                 \
	"\x84\xac"                                                                                 \
	"capabilities\x81\xa6weight\x02\xa9joined_on\xc7\x3a\x01\x87\xa3"                          \
	"day\x02\xa5month\x01\xa4year\xcd\x07\xe8\xa4hour\x03\xa6minute\x04\xa6second\x05\xab"     \
	"microsecond\xcd\x02\xa6\xa9member_id\xc4\x04memA\xa7"                                     \
	"encoded\xc2"

static void test_raw_python(void **state)
{
	struct file_raw raw;
	assert_int_equal(file_raw_decode(COORD_BYTES(PYTHON_RAW), &raw), 0);
	assert_bytes(raw.member, "memA");
	assert_bytes(raw.capabilities, "\x81\xa6weight\x02");
	assert_false(raw.ours);
	assert_int_equal(raw.joined_us, 1704164645000678);
	assert_int_equal(raw.born, raw.joined_us);
	assert_int_not_equal(raw.version, 0);
	/* What we write for the same is the same. */
	char *data;
	size_t len;
	assert_int_equal(file_raw_encode(&raw, &data, &len), 0);
	assert_int_equal(len, sizeof(PYTHON_RAW) - 1);
	assert_memory_equal(data, PYTHON_RAW, len);
	free(data);
}

static struct file_raw ours(void)
{
	struct file_raw raw = {.member = COORD_BYTES("host-1"),
		.capabilities = COORD_BYTES("\xa3"
					    "abc"),
		.joined_us = 1704164645000678,
		.ours = true,
		.session = "0123456789abcdef0123456789abcdef",
		.owner = "owner-owner-own",
		.born = 1704164645000678,
		.version = 300,
		.updated_us = 1704164646000000};
	return raw;
}

static void test_raw_ours(void **state)
{
	struct file_raw raw = ours(), got;
	char *data;
	size_t len;
	assert_int_equal(file_raw_encode(&raw, &data, &len), 0);
	assert_int_equal(coord_msgpack_check((struct coord_bytes){data, len}, NULL), 0);
	assert_int_equal(file_raw_decode((struct coord_bytes){data, len}, &got), 0);
	assert_bytes(got.member, "host-1");
	assert_true(got.ours);
	assert_string_equal(got.session, raw.session);
	assert_memory_equal(got.owner, raw.owner, sizeof(raw.owner));
	assert_int_equal(got.born, raw.born);
	assert_int_equal(got.version, 300);
	assert_int_equal(got.updated_us, raw.updated_us);
	assert_int_equal(got.joined_us, raw.joined_us);
	free(data);
}

static void test_raw_bad(void **state)
{
	struct file_raw raw = ours(), got;
	char *data;
	size_t len;
	assert_int_equal(file_raw_encode(&raw, &data, &len), 0);
	for (size_t cut = 0; cut < len; cut++) {
		struct coord_bytes part = exact(data, cut);
		assert_int_equal(file_raw_decode(part, &got), -EBADMSG);
		free((char *)part.data);
	}
	/* One byte wrong, anywhere: any answer will do, but no read outside. */
	for (size_t at = 0; at < len; at++) {
		for (unsigned value = 0; value < 256; value += 5) {
			struct coord_bytes part = exact(data, len);
			((char *)part.data)[at] = (char)value;
			(void)file_raw_decode(part, &got);
			free((char *)part.data);
		}
	}
	free(data);
	static const char huge[] = "\xdf\xff\xff\xff\xff\xdd\xff\xff\xff\xff";
	assert_int_equal(file_raw_decode(COORD_BYTES(huge), &got), -EBADMSG);
	assert_int_equal(file_raw_decode(COORD_BYTES("\x81\xa9member_id\xc4\x00"), &got), -EBADMSG);
	assert_int_equal(file_raw_decode(COORD_BYTES(PYTHON_RAW "x"), &got), -EBADMSG);
	/* An extra key of another kind does not make it ours. */
	assert_int_equal(
		file_raw_decode(COORD_BYTES("\x82\xa9member_id\xc4\x01m\xa6toozfs\x01"), &got), 0);
	assert_false(got.ours);
}

static void counter(const char *text, size_t len, int wanted, uint64_t wanted_value)
{
	uint64_t value = 0;
	struct coord_bytes data = exact(text, len);
	assert_int_equal(file_counter_decode(data, &value), wanted);
	assert_int_equal(value, wanted_value);
	free((char *)data.data);
}

static void test_counter(void **state)
{
	char text[FILE_COUNTER_LEN];
	file_counter_encode(UINT64_MAX, text);
	counter(text, sizeof(text), 0, UINT64_MAX);
	file_counter_encode(42, text);
	assert_memory_equal(text, "00000000000000000042\n", sizeof(text));
	counter(text, sizeof(text), 0, 42);
	counter("", 0, 0, 0);
	counter("0000000", 7, 0, 0);
	counter("\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 23, 0, 0);
	counter("99999999999999999999\n", 21, -EBADMSG, 0);
	counter("00000000000000000042x", 21, -EBADMSG, 0);
	counter("#!/bin/sh\necho hello world\n", 27, -EBADMSG, 0);
	counter("12345 monkeys\n", 14, -EBADMSG, 0);
}

static void test_record(void **state)
{
	struct file_record record = {.member = COORD_BYTES("host-1"),
		.token = 1704164645000678,
		.since_us = 1704164645000679,
		.session = "session-session",
		.owner = "owner-owner-own"};
	struct file_record got;
	char data[FILE_LOCK_MAX];
	size_t len = file_record_encode(&record, data);
	assert_int_equal(file_record_decode((struct coord_bytes){data, len}, &got), 0);
	assert_bytes(got.member, "host-1");
	assert_int_equal(got.token, record.token);
	assert_int_equal(got.since_us, record.since_us);
	assert_memory_equal(got.session, record.session, sizeof(got.session));
	assert_memory_equal(got.owner, record.owner, sizeof(got.owner));
	for (size_t cut = 0; cut < len; cut++) {
		struct coord_bytes part = exact(data, cut);
		assert_int_equal(file_record_decode(part, &got), -EBADMSG);
		free((char *)part.data);
	}
	data[FILE_RECORD_AT + 4] = (char)0xff;
	data[FILE_RECORD_AT + 5] = (char)0xff;
	assert_int_equal(file_record_decode((struct coord_bytes){data, len}, &got), -EBADMSG);
	/* A record of another grant than the counter's. */
	len = file_record_encode(&record, data);
	file_counter_encode(record.token + 2, data);
	assert_int_equal(file_record_decode((struct coord_bytes){data, len}, &got), -EBADMSG);
	/* An id that is too long is left out. */
	static char id[FILE_MEMBER_MAX + 1];
	record.member = (struct coord_bytes){id, sizeof(id)};
	len = file_record_encode(&record, data);
	assert_int_equal(file_record_decode((struct coord_bytes){data, len}, &got), 0);
	assert_int_equal(got.member.len, 0);
}

static void test_sharer(void **state)
{
	char data[FILE_SHARER_LEN];
	struct coord_bytes member;
	size_t len = file_sharer_encode(COORD_BYTES("host-1"), data);
	assert_int_equal(len, FILE_SHARER_HEAD + 6);
	assert_int_equal(file_sharer_decode((struct coord_bytes){data, len}, &member), 0);
	assert_bytes(member, "host-1");
	for (size_t cut = 0; cut < len; cut++) {
		struct coord_bytes part = exact(data, cut);
		assert_int_equal(file_sharer_decode(part, &member), -EBADMSG);
		free((char *)part.data);
	}
	data[0] = 'x';
	assert_int_equal(file_sharer_decode((struct coord_bytes){data, len}, &member), -EBADMSG);
	/* A length that leads out of the file, or over the limit. */
	static char id[FILE_MEMBER_MAX + 1];
	len = file_sharer_encode((struct coord_bytes){id, FILE_MEMBER_MAX}, data);
	assert_int_equal(len, FILE_SHARER_LEN);
	assert_int_equal(file_sharer_decode((struct coord_bytes){data, len}, &member), 0);
	assert_int_equal(member.len, FILE_MEMBER_MAX);
	data[5] = (char)0xff;
	assert_int_equal(file_sharer_decode((struct coord_bytes){data, len}, &member), -EBADMSG);
	/* An id that is too long is left out. */
	len = file_sharer_encode((struct coord_bytes){id, sizeof(id)}, data);
	assert_int_equal(file_sharer_decode((struct coord_bytes){data, len}, &member), 0);
	assert_int_equal(member.len, 0);
}

static void test_slot(void **state)
{
	char hash[FILE_HASH_SIZE], got[FILE_HASH_SIZE], data[FILE_SLOT_LEN];
	uint64_t since_us;
	file_hash(COORD_BYTES("l"), hash);
	file_slot_encode(hash, 1704164645000678, data);
	struct coord_bytes slot = exact(data, sizeof(data));
	assert_int_equal(file_slot_decode(slot.data, got, &since_us), 0);
	assert_string_equal(got, hash);
	assert_int_equal(since_us, 1704164645000678);
	free((char *)slot.data);
	/* Wiped: the magic number is gone. And half a note, or garbage in the hash. */
	memset(data, 0, FILE_SLOT_MAGIC);
	assert_int_equal(file_slot_decode(data, got, &since_us), -EBADMSG);
	static const char bad[] = {'\0', 'g', 'A', '/', (char)0xff};
	for (size_t i = 0; i < sizeof(bad); i++) {
		file_slot_encode(hash, 1, data);
		data[8 + FILE_HASH_SIZE - 2] = bad[i];
		assert_int_equal(file_slot_decode(data, got, &since_us), -EBADMSG);
	}
	memset(data, 0, sizeof(data));
	assert_int_equal(file_slot_decode(data, got, &since_us), -EBADMSG);
}

static void test_request(void **state)
{
	struct file_request request = {.owner = "owner-owner-own", .before_us = 1704164645000678};
	struct file_request got;
	char data[FILE_REQUEST_LEN];
	file_request_encode(&request, data);
	assert_int_equal(file_request_decode((struct coord_bytes){data, sizeof(data)}, &got), 0);
	assert_memory_equal(got.owner, request.owner, sizeof(got.owner));
	assert_int_equal(got.before_us, request.before_us);
	for (size_t cut = 0; cut < sizeof(data); cut++) {
		struct coord_bytes part = exact(data, cut);
		assert_int_equal(file_request_decode(part, &got), -EBADMSG);
		free((char *)part.data);
	}
	for (size_t at = 0; at < sizeof(data); at++) {
		char old = data[at];
		data[at] = 'x';
		assert_int_equal(
			file_request_decode((struct coord_bytes){data, sizeof(data)}, &got),
			-EBADMSG);
		data[at] = old;
	}
	memset(data + 33, 0, sizeof(data) - 33);
	assert_int_equal(
		file_request_decode((struct coord_bytes){data, sizeof(data)}, &got), -EBADMSG);
}

static void test_claim(void **state)
{
	char session[33];
	struct coord_bytes identity;
	assert_int_equal(file_claim_decode(COORD_BYTES("0123456789abcdef0123456789abcdef\nhost=h "
						       "pid=1\n"),
				 session, &identity),
		0);
	assert_string_equal(session, "0123456789abcdef0123456789abcdef");
	assert_bytes(identity, "host=h pid=1");
	static const char *const bad[] = {"", "0123456789abcdef0123456789abcdef",
		"0123456789ABCDEF0123456789abcdef\nx\n", "../../../../../../../../../etc/pas\nx\n"};
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_int_equal(
			file_claim_decode(coord_bytes_of(bad[i]), session, &identity), -EBADMSG);
}

static void test_names(void **state)
{
	static const char *const good[] = {"l", "a/b", "a/b/c", ".hidden", "groupsx", "a/groups",
		"a/tmp", ".driver_locks", "..a", "a b", "%2F", "\xff"};
	static const char *const bad[] = {"", "/", "/a", "a/", "a//b", ".", "..", "a/..", "../a",
		"a/./b", "groups", "groups/x", "tmp", "tmp/x", ".driver_lock", ".driver_lock/x",
		".toozfs", ".toozfs/sessions/x"};
	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++)
		assert_int_equal(file_lock_name_check(coord_bytes_of(good[i])), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_int_equal(file_lock_name_check(coord_bytes_of(bad[i])), -EINVAL);
	assert_int_equal(file_lock_name_check((struct coord_bytes){"a\0b", 3}), -EINVAL);
	char name[FILE_NAME_MAX + 1];
	memset(name, 'n', sizeof(name));
	assert_int_equal(file_lock_name_check((struct coord_bytes){name, FILE_NAME_MAX}), 0);
	assert_int_equal(
		file_lock_name_check((struct coord_bytes){name, sizeof(name)}), -ENAMETOOLONG);
}

int main(void)
{
	/* Dates in the files are in local time. */
	setenv("TZ", "UTC", 1);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hash),
		cmocka_unit_test(test_meta),
		cmocka_unit_test(test_raw_python),
		cmocka_unit_test(test_raw_ours),
		cmocka_unit_test(test_raw_bad),
		cmocka_unit_test(test_counter),
		cmocka_unit_test(test_record),
		cmocka_unit_test(test_sharer),
		cmocka_unit_test(test_slot),
		cmocka_unit_test(test_request),
		cmocka_unit_test(test_claim),
		cmocka_unit_test(test_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
