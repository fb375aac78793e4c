/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The contents of the driver's files.
 *
 * msgpack is walked by coord_msgpack_check(), which allocates nothing: what is read from a shared
 * directory may be garbage, or worse.
 */
#include "drivers/file/format.h"

#include <stdio.h>
#include <time.h>

#include "coord/caps.h"

void file_hex(const uint8_t *data, size_t len, char *ret)
{
	ret[0] = '\0';
	for (size_t i = 0; i < len; i++)
		sprintf(ret + 2 * i, "%02x", data[i]);
}

bool file_is_uuid(struct coord_bytes text)
{
	if (text.len != 32)
		return false;
	for (size_t i = 0; i < 32; i++) {
		if (!strchr("0123456789abcdef", text.data[i]) || !text.data[i])
			return false;
	}
	return true;
}

/* ---- Reading msgpack ---- */

static uint64_t big_endian(const char *data, size_t len)
{
	uint64_t value = 0;
	for (size_t i = 0; i < len; i++)
		value = value << 8 | (uint8_t)data[i];
	return value;
}

/* Cuts n bytes off the front. The callers have checked that they are there; this checks again. */
static struct coord_bytes cut(struct coord_bytes *in, size_t n)
{
	if (n > in->len)
		n = in->len;
	struct coord_bytes out = {in->data, n};
	in->data += n;
	in->len -= n;
	return out;
}

/* Cuts one whole value. */
static int cut_value(struct coord_bytes *in, struct coord_bytes *ret)
{
	size_t len;
	if (coord_msgpack_check(*in, &len) || !len || len > in->len)
		return -EBADMSG;
	*ret = cut(in, len);
	return 0;
}

/* Reads the head of a map; *ret_pairs. */
static int cut_map(struct coord_bytes *in, size_t *ret_pairs)
{
	if (!in->len)
		return -EBADMSG;
	uint8_t head = (uint8_t)cut(in, 1).data[0];
	if ((head & 0xf0) == 0x80) {
		*ret_pairs = head & 0x0f;
		return 0;
	}
	size_t width = head == 0xde ? 2 : head == 0xdf ? 4 : 0;
	if (!width || in->len < width)
		return -EBADMSG;
	*ret_pairs = big_endian(cut(in, width).data, width);
	return 0;
}

/* The length field of the value at the start: its width, 0 if the type is none of base..base+2. */
static size_t wide(uint8_t head, uint8_t base)
{
	return head >= base && head <= base + 2 ? (size_t)1 << (head - base) : 0;
}

/* The content of a str or bin value. */
static int text_of(struct coord_bytes value, struct coord_bytes *ret)
{
	if (!value.len)
		return -EBADMSG;
	uint8_t head = (uint8_t)cut(&value, 1).data[0];
	size_t width = wide(head, 0xd9) ? wide(head, 0xd9) : wide(head, 0xc4);
	size_t len;
	if ((head & 0xe0) == 0xa0)
		len = head & 0x1f;
	else if (width && width <= value.len)
		len = big_endian(cut(&value, width).data, width);
	else
		return -EBADMSG;
	if (len != value.len)
		return -EBADMSG;
	*ret = value;
	return 0;
}

/* The content of an ext value. */
static int ext_of(struct coord_bytes value, int *ret_type, struct coord_bytes *ret)
{
	if (!value.len)
		return -EBADMSG;
	uint8_t head = (uint8_t)cut(&value, 1).data[0];
	size_t len, width = wide(head, 0xc7);
	if (head >= 0xd4 && head <= 0xd8)
		len = (size_t)1 << (head - 0xd4);
	else if (width && width <= value.len)
		len = big_endian(cut(&value, width).data, width);
	else
		return -EBADMSG;
	if (value.len != len + 1)
		return -EBADMSG;
	*ret_type = (int8_t)cut(&value, 1).data[0];
	*ret = value;
	return 0;
}

static int uint_of(struct coord_bytes value, uint64_t *ret)
{
	if (!value.len)
		return -EBADMSG;
	uint8_t head = (uint8_t)cut(&value, 1).data[0];
	if (head < 0x80) {
		*ret = head;
		return 0;
	}
	if (head < 0xcc || head > 0xcf || value.len != (size_t)1 << (head - 0xcc))
		return -EBADMSG;
	*ret = big_endian(value.data, value.len);
	return 0;
}

static bool is(struct coord_bytes key, const char *name)
{
	return coord_bytes_equal(key, coord_bytes_of(name));
}

/* Walks the pairs of a map whose keys are str or bin. */
static int map_each(struct coord_bytes map, void *user,
	int (*fn)(void *user, struct coord_bytes key, struct coord_bytes value))
{
	size_t pairs;
	int r = cut_map(&map, &pairs);
	for (size_t i = 0; !r && i < pairs; i++) {
		struct coord_bytes raw, key, value;
		r = cut_value(&map, &raw);
		if (!r)
			r = text_of(raw, &key);
		if (!r)
			r = cut_value(&map, &value);
		if (!r)
			r = fn(user, key, value);
	}
	return r;
}

/* ---- Dates: oslo.serialization's ext 1, a map of numbers in local time ---- */

static int date_field(void *user, struct coord_bytes key, struct coord_bytes value)
{
	static const char *const names[] = {
		"year", "month", "day", "hour", "minute", "second", "microsecond"};
	uint64_t *fields = user, number;
	for (size_t i = 0; i < 7; i++) {
		if (!is(key, names[i]))
			continue;
		if (uint_of(value, &number) || number > 999999)
			return -EBADMSG;
		fields[i] = number;
	}
	return 0;
}

static uint64_t date_decode(struct coord_bytes value)
{
	int type;
	struct coord_bytes map;
	uint64_t f[7] = {0};
	if (ext_of(value, &type, &map) || type != 1 || map_each(map, f, date_field) ||
		f[0] < 1970 || f[0] > 9999)
		return 0;
	struct tm tm = {.tm_year = (int)f[0] - 1900,
		.tm_mon = (int)f[1] - 1,
		.tm_mday = (int)f[2],
		.tm_hour = (int)f[3],
		.tm_min = (int)f[4],
		.tm_sec = (int)f[5],
		.tm_isdst = -1};
	time_t seconds = mktime(&tm);
	return seconds < 0 ? 0 : (uint64_t)seconds * 1000000 + f[6];
}

/* ---- Writing msgpack ---- */

struct out {
	char *data;
	size_t len, size;
};

static void put(struct out *out, const void *data, size_t len)
{
	if (len && len <= out->size - out->len)
		memcpy(out->data + out->len, data, len);
	out->len += len;
}

static void put_byte(struct out *out, unsigned byte)
{
	char c = (char)byte;
	put(out, &c, 1);
}

static void put_big_endian(struct out *out, uint64_t value, size_t width)
{
	for (size_t i = width; i-- > 0;)
		put_byte(out, value >> (8 * i) & 0xff);
}

static void put_uint(struct out *out, uint64_t value)
{
	if (value < 0x80)
		return put_byte(out, (unsigned)value);
	unsigned log = value > UINT32_MAX ? 3 : value > UINT16_MAX ? 2 : value > UINT8_MAX ? 1 : 0;
	put_byte(out, 0xcc + log);
	put_big_endian(out, value, (size_t)1 << log);
}

/* The head of a value with a length: base is the code of its 8-bit form. */
static void put_head(struct out *out, unsigned base, size_t len)
{
	unsigned log = len > UINT16_MAX ? 2 : len > UINT8_MAX ? 1 : 0;
	put_byte(out, base + log);
	put_big_endian(out, len, (size_t)1 << log);
}

static void put_key(struct out *out, const char *key)
{
	put_byte(out, 0xa0 | (unsigned)strlen(key));
	put(out, key, strlen(key));
}

static void put_str(struct out *out, struct coord_bytes text)
{
	put_head(out, 0xd9, text.len);
	put(out, text.data, text.len);
}

static void put_bin(struct out *out, struct coord_bytes data)
{
	put_head(out, 0xc4, data.len);
	put(out, data.data, data.len);
}

static void put_pair(struct out *out, const char *key, uint64_t value)
{
	put_key(out, key);
	put_uint(out, value);
}

static void put_date(struct out *out, uint64_t utc_us)
{
	time_t seconds = (time_t)(utc_us / 1000000);
	struct tm tm = {0};
	localtime_r(&seconds, &tm);
	char buffer[128];
	struct out map = {buffer, 0, sizeof(buffer)};
	put_byte(&map, 0x87);
	put_pair(&map, "day", (uint64_t)tm.tm_mday);
	put_pair(&map, "month", (uint64_t)tm.tm_mon + 1);
	put_pair(&map, "year", (uint64_t)tm.tm_year + 1900);
	put_pair(&map, "hour", (uint64_t)tm.tm_hour);
	put_pair(&map, "minute", (uint64_t)tm.tm_min);
	put_pair(&map, "second", (uint64_t)(tm.tm_sec > 59 ? 59 : tm.tm_sec));
	put_pair(&map, "microsecond", utc_us % 1000000);
	put_head(out, 0xc7, map.len);
	put_byte(out, 1);
	put(out, map.data, map.len);
}

static int out_new(struct out *out, size_t size)
{
	*out = (struct out){malloc(size), 0, size};
	return out->data ? 0 : -ENOMEM;
}

/* Hands the bytes over, if they all had room. */
static int out_take(struct out *out, char **ret, size_t *ret_len)
{
	if (out->len > out->size) {
		free(out->data);
		return -EFBIG;
	}
	*ret = out->data;
	*ret_len = out->len;
	return 0;
}

/* ---- Members ---- */

static int ours_field(void *user, struct coord_bytes key, struct coord_bytes value)
{
	struct file_raw *raw = user;
	struct coord_bytes text;
	if (is(key, "born"))
		return uint_of(value, &raw->born);
	if (is(key, "version"))
		return uint_of(value, &raw->version);
	if (is(key, "updated"))
		return uint_of(value, &raw->updated_us);
	if (is(key, "session")) {
		if (text_of(value, &text) || !file_is_uuid(text))
			return -EBADMSG;
		memcpy(raw->session, text.data, 32);
		raw->session[32] = '\0';
	} else if (is(key, "owner")) {
		if (text_of(value, &text) || text.len != sizeof(raw->owner))
			return -EBADMSG;
		memcpy(raw->owner, text.data, sizeof(raw->owner));
	}
	return 0;
}

static int raw_field(void *user, struct coord_bytes key, struct coord_bytes value)
{
	struct file_raw *raw = user;
	if (is(key, "member_id"))
		return text_of(value, &raw->member);
	if (is(key, "capabilities"))
		raw->capabilities = value;
	else if (is(key, "joined_on"))
		raw->joined_us = date_decode(value);
	else if (is(key, "toozfs"))
		raw->ours = map_each(value, raw, ours_field) == 0 && raw->session[0];
	return 0;
}

/* A number that changes when the data does, for writers that keep no version. */
static uint64_t digest(struct coord_bytes data)
{
	uint64_t hash = 0xcbf29ce484222325;
	for (size_t i = 0; i < data.len; i++)
		hash = (hash ^ (uint8_t)data.data[i]) * 0x100000001b3;
	return hash | 1;
}

int file_raw_decode(struct coord_bytes data, struct file_raw *ret)
{
	struct file_raw raw = {.capabilities = COORD_BYTES("\xc0")};
	if (coord_msgpack_check(data, NULL) || map_each(data, &raw, raw_field) || !raw.member.len)
		return -EBADMSG;
	if (!raw.ours) {
		raw.born = raw.joined_us;
		raw.version = digest(raw.capabilities);
	}
	*ret = raw;
	return 0;
}

int file_raw_encode(const struct file_raw *raw, char **ret, size_t *ret_len)
{
	struct out out;
	if (out_new(&out, raw->capabilities.len + raw->member.len + 512))
		return -ENOMEM;
	put_byte(&out, raw->ours ? 0x85 : 0x84);
	put_key(&out, "capabilities");
	put(&out, raw->capabilities.data, raw->capabilities.len);
	put_key(&out, "joined_on");
	put_date(&out, raw->joined_us);
	put_key(&out, "member_id");
	put_bin(&out, raw->member);
	put_key(&out, "encoded");
	put_byte(&out, 0xc2);
	if (raw->ours) {
		put_key(&out, "toozfs");
		put_byte(&out, 0x85);
		put_key(&out, "session");
		put_str(&out, (struct coord_bytes){raw->session, 32});
		put_key(&out, "owner");
		put_bin(&out, (struct coord_bytes){(const char *)raw->owner, sizeof(raw->owner)});
		put_pair(&out, "born", raw->born);
		put_pair(&out, "version", raw->version);
		put_pair(&out, "updated", raw->updated_us);
	}
	return out_take(&out, ret, ret_len);
}

/* ---- Groups ---- */

static int meta_field(void *user, struct coord_bytes key, struct coord_bytes value)
{
	return is(key, "group_id") ? text_of(value, user) : 0;
}

int file_meta_decode(struct coord_bytes data, struct coord_bytes *ret)
{
	struct coord_bytes name = {NULL, 0};
	if (coord_msgpack_check(data, NULL) || map_each(data, &name, meta_field) || !name.len)
		return -EBADMSG;
	*ret = name;
	return 0;
}

int file_meta_encode(struct coord_bytes group, char **ret, size_t *ret_len)
{
	struct out out;
	if (out_new(&out, group.len + 64))
		return -ENOMEM;
	put_byte(&out, 0x82);
	put_key(&out, "group_id");
	put_bin(&out, group);
	put_key(&out, "encoded");
	put_byte(&out, 0xc2);
	return out_take(&out, ret, ret_len);
}

/* ---- Lock files ---- */

int file_counter_decode(struct coord_bytes data, uint64_t *ret)
{
	size_t len = data.len < FILE_COUNTER_LEN ? data.len : FILE_COUNTER_LEN, digits = 0,
	       zeros = 0;
	uint64_t value = 0;
	while (digits < len && digits < 20 && data.data[digits] >= '0' &&
		data.data[digits] <= '9') {
		unsigned digit = (unsigned)(data.data[digits++] - '0');
		if (value > (UINT64_MAX - digit) / 10)
			return -EBADMSG;
		value = value * 10 + digit;
	}
	while (zeros < len && !data.data[zeros])
		zeros++;
	if (digits == 20 && len == FILE_COUNTER_LEN && data.data[20] == '\n')
		*ret = value;
	else if (zeros == len || digits == len)
		*ret = 0; /* nothing was written yet, or the host went down meanwhile */
	else
		return -EBADMSG;
	return 0;
}

void file_counter_encode(uint64_t counter, char ret[FILE_COUNTER_LEN])
{
	char text[FILE_COUNTER_LEN + 1];
	snprintf(text, sizeof(text), "%020llu\n", (unsigned long long)counter);
	memcpy(ret, text, FILE_COUNTER_LEN);
}

static void little_put(char *at, uint64_t value, size_t width)
{
	for (size_t i = 0; i < width; i++)
		at[i] = (char)(value >> (8 * i));
}

static uint64_t little_get(const char *at, size_t width)
{
	uint64_t value = 0;
	for (size_t i = width; i-- > 0;)
		value = value << 8 | (uint8_t)at[i];
	return value;
}

size_t file_record_encode(const struct file_record *record, char ret[FILE_LOCK_MAX])
{
	size_t len = record->member.len <= FILE_MEMBER_MAX ? record->member.len : 0;
	memset(ret, 0, FILE_RECORD_AT + FILE_RECORD_LEN);
	file_counter_encode(record->token, ret);
	ret[FILE_WAKE_AT] = 'w';
	char *at = ret + FILE_RECORD_AT;
	memcpy(at, "tzf1", 4);
	little_put(at + 4, len, 2);
	little_put(at + 8, record->token, 8);
	little_put(at + 16, record->since_us, 8);
	memcpy(at + 24, record->session, 16);
	memcpy(at + 40, record->owner, 16);
	if (len)
		memcpy(at + FILE_RECORD_LEN, record->member.data, len);
	return FILE_RECORD_AT + FILE_RECORD_LEN + len;
}

int file_record_decode(struct coord_bytes data, struct file_record *ret)
{
	uint64_t counter;
	if (file_counter_decode(data, &counter) || data.len < FILE_RECORD_AT + FILE_RECORD_LEN)
		return -EBADMSG;
	const char *at = data.data + FILE_RECORD_AT;
	size_t len = little_get(at + 4, 2);
	struct file_record record = {.token = little_get(at + 8, 8),
		.since_us = little_get(at + 16, 8),
		.member = {at + FILE_RECORD_LEN, len}};
	if (memcmp(at, "tzf1", 4) != 0 || record.token != counter || len > FILE_MEMBER_MAX ||
		len > data.len - FILE_RECORD_AT - FILE_RECORD_LEN)
		return -EBADMSG;
	memcpy(record.session, at + 24, 16);
	memcpy(record.owner, at + 40, 16);
	*ret = record;
	return 0;
}

/* ---- Sessions ---- */

size_t file_sharer_encode(struct coord_bytes member, char ret[FILE_SHARER_LEN])
{
	size_t len = member.len <= FILE_MEMBER_MAX ? member.len : 0;
	memset(ret, 0, FILE_SHARER_HEAD);
	memcpy(ret, "tzs1", 4);
	little_put(ret + 4, len, 2);
	if (len)
		memcpy(ret + FILE_SHARER_HEAD, member.data, len);
	return FILE_SHARER_HEAD + len;
}

int file_sharer_decode(struct coord_bytes data, struct coord_bytes *ret)
{
	if (data.len < FILE_SHARER_HEAD || memcmp(data.data, "tzs1", 4) != 0)
		return -EBADMSG;
	size_t len = little_get(data.data + 4, 2);
	if (len > FILE_MEMBER_MAX || len > data.len - FILE_SHARER_HEAD)
		return -EBADMSG;
	*ret = (struct coord_bytes){data.data + FILE_SHARER_HEAD, len};
	return 0;
}

void file_slot_encode(const char hash[FILE_HASH_SIZE], uint64_t since_us, char ret[FILE_SLOT_LEN])
{
	memset(ret, 0, FILE_SLOT_LEN);
	memcpy(ret, "tzh1", FILE_SLOT_MAGIC);
	memcpy(ret + 8, hash, FILE_HASH_SIZE - 1);
	little_put(ret + 48, since_us, 8);
}

int file_slot_decode(
	const char data[FILE_SLOT_LEN], char ret_hash[FILE_HASH_SIZE], uint64_t *ret_since_us)
{
	if (memcmp(data, "tzh1", FILE_SLOT_MAGIC) != 0)
		return -EBADMSG;
	for (size_t i = 0; i < FILE_HASH_SIZE - 1; i++) {
		char c = data[8 + i];
		if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
			return -EBADMSG;
	}
	memcpy(ret_hash, data + 8, FILE_HASH_SIZE - 1);
	ret_hash[FILE_HASH_SIZE - 1] = '\0';
	*ret_since_us = little_get(data + 48, 8);
	return 0;
}

/* ---- Claims ---- */

int file_claim_decode(
	struct coord_bytes data, char ret_session[33], struct coord_bytes *ret_identity)
{
	if (data.len < 33 || data.data[32] != '\n' ||
		!file_is_uuid((struct coord_bytes){data.data, 32}))
		return -EBADMSG;
	memcpy(ret_session, data.data, 32);
	ret_session[32] = '\0';
	struct coord_bytes identity = {data.data + 33, data.len - 33};
	if (identity.len && identity.data[identity.len - 1] == '\n')
		identity.len--;
	*ret_identity = identity;
	return 0;
}

/* ---- Requests to let go ---- */

void file_request_encode(const struct file_request *request, char ret[FILE_REQUEST_LEN])
{
	char text[33];
	file_hex(request->owner, sizeof(request->owner), text);
	memcpy(ret, text, 32);
	ret[32] = ' ';
	file_counter_encode(request->before_us, ret + 33);
}

int file_request_decode(struct coord_bytes data, struct file_request *ret)
{
	struct file_request request;
	if (data.len != FILE_REQUEST_LEN || !file_is_uuid((struct coord_bytes){data.data, 32}) ||
		data.data[32] != ' ' || data.data[33] < '0' ||
		file_counter_decode(
			(struct coord_bytes){data.data + 33, data.len - 33}, &request.before_us))
		return -EBADMSG;
	for (size_t i = 0; i < sizeof(request.owner); i++) {
		char digits[3] = {data.data[2 * i], data.data[2 * i + 1], '\0'};
		request.owner[i] = (uint8_t)strtoul(digits, NULL, 16);
	}
	*ret = request;
	return 0;
}

/* ---- Names of locks ---- */

int file_lock_name_check(struct coord_bytes name)
{
	static const char *const reserved[] = {"groups", "tmp", ".driver_lock", ".toozfs"};
	if (!name.len || memchr(name.data, '\0', name.len))
		return -EINVAL;
	if (name.len > FILE_NAME_MAX)
		return -ENAMETOOLONG;
	for (size_t at = 0; at <= name.len;) {
		const char *start = name.data + at;
		const char *slash = memchr(start, '/', name.len - at);
		struct coord_bytes part = {start, slash ? (size_t)(slash - start) : name.len - at};
		if (!part.len || is(part, ".") || is(part, ".."))
			return -EINVAL;
		for (size_t i = 0; at == 0 && i < sizeof(reserved) / sizeof(*reserved); i++) {
			if (is(part, reserved[i]))
				return -EINVAL;
		}
		at += part.len + 1;
	}
	return 0;
}
