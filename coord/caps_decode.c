/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Capabilities, second half: checks msgpack, and shows it as text. See caps.c for why no library
 * unpacks it. Python's reader is the measure of what decodes: oslo.serialization's msgpackutils
 * with its extension types.
 */
#include "coord/caps.h"

#include <arpa/inet.h>
#include <json-c/json.h>
#include <math.h>
#include <msgpack.h>
#include <stdio.h>
#include <time.h>

#define BASE64_PREFIX "data:;base64,"

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* ---- Walking msgpack ---- */

enum type { NIL, BOOL, UINT, INT, REAL, STR, BIN, ARRAY, MAP, EXT };

struct item {
	enum type type;
	uint64_t uint; /* BOOL, UINT; ARRAY, MAP: how many */
	int64_t sint; /* INT: below zero */
	double real;
	struct coord_bytes body; /* STR, BIN, EXT */
	int8_t ext;
};

struct unpacking {
	const char *p, *end;
	msgpack_sbuffer *out; /* NULL: only check */
};

static struct unpacking unpack(struct coord_bytes data, msgpack_sbuffer *out)
{
	/* No data may be NULL, to which nothing must be added. */
	return (struct unpacking){data.data, data.len ? data.data + data.len : data.data, out};
}

/* Takes a big-endian number of 1, 2, 4 or 8 bytes. */
static int take_uint(struct unpacking *s, size_t size, uint64_t *ret)
{
	if ((size_t)(s->end - s->p) < size)
		return -EBADMSG;
	uint64_t value = 0;
	for (size_t i = 0; i < size; i++)
		value = value << 8 | (unsigned char)*s->p++;
	*ret = value;
	return 0;
}

static int take_body(struct unpacking *s, enum type type, uint64_t len, struct item *ret)
{
	ret->type = type;
	if (type == EXT) {
		if (s->p == s->end)
			return -EBADMSG;
		ret->ext = (int8_t)*s->p++;
	}
	if (len > (uint64_t)(s->end - s->p))
		return -EBADMSG;
	ret->body = (struct coord_bytes){s->p, (size_t)len};
	s->p += len;
	return type == STR && !coord_utf8_valid(ret->body) ? -EBADMSG : 0;
}

/* A count is believed only as far as there are bytes: each item takes one at least. */
static int take_count(struct unpacking *s, enum type type, uint64_t count, struct item *ret)
{
	ret->type = type;
	ret->uint = count;
	return count > (uint64_t)(s->end - s->p) / (type == MAP ? 2 : 1) ? -EBADMSG : 0;
}

static int take_int(struct unpacking *s, size_t size, struct item *ret)
{
	uint64_t value;
	int r = take_uint(s, size, &value);
	if (r < 0)
		return r;
	unsigned shift = 64 - 8 * (unsigned)size;
	int64_t sint = (int64_t)(value << shift) >> shift;
	ret->type = sint < 0 ? INT : UINT;
	ret->sint = sint;
	ret->uint = (uint64_t)sint;
	return 0;
}

static int take_real(struct unpacking *s, size_t size, struct item *ret)
{
	uint64_t bits;
	int r = take_uint(s, size, &bits);
	if (r < 0)
		return r;
	ret->type = REAL;
	if (size == 4) {
		uint32_t bits32 = (uint32_t)bits;
		float real;
		memcpy(&real, &bits32, sizeof(real));
		ret->real = (double)real;
	} else {
		memcpy(&ret->real, &bits, sizeof(bits));
	}
	return 0;
}

/* The formats whose first byte is followed by a length of 1, 2 or 4 bytes. */
static int take_long(struct unpacking *s, enum type type, size_t size, struct item *ret)
{
	uint64_t len;
	int r = take_uint(s, size, &len);
	if (r < 0)
		return r;
	return type == ARRAY || type == MAP ? take_count(s, type, len, ret)
					    : take_body(s, type, len, ret);
}

/* The formats from C0 to DF, by their first byte. */
static int take_marked(struct unpacking *s, unsigned char mark, struct item *ret)
{
	switch (mark) {
	case 0xc0:
		ret->type = NIL;
		return 0;
	case 0xc2:
	case 0xc3:
		ret->type = BOOL;
		ret->uint = mark & 1;
		return 0;
	case 0xc4 ... 0xc6:
		return take_long(s, BIN, 1u << (mark - 0xc4), ret);
	case 0xc7 ... 0xc9:
		return take_long(s, EXT, 1u << (mark - 0xc7), ret);
	case 0xca:
	case 0xcb:
		return take_real(s, mark == 0xca ? 4 : 8, ret);
	case 0xcc ... 0xcf:
		ret->type = UINT;
		return take_uint(s, 1u << (mark - 0xcc), &ret->uint);
	case 0xd0 ... 0xd3:
		return take_int(s, 1u << (mark - 0xd0), ret);
	case 0xd4 ... 0xd8:
		return take_body(s, EXT, 1u << (mark - 0xd4), ret);
	case 0xd9 ... 0xdb:
		return take_long(s, STR, 1u << (mark - 0xd9), ret);
	case 0xdc:
	case 0xdd:
		return take_long(s, ARRAY, mark == 0xdc ? 2 : 4, ret);
	case 0xde:
	case 0xdf:
		return take_long(s, MAP, mark == 0xde ? 2 : 4, ret);
	default: /* C1, which stands for nothing */
		return -EBADMSG;
	}
}

/* Takes one item: a whole scalar, or the head of an array or map. */
static int take_item(struct unpacking *s, struct item *ret)
{
	*ret = (struct item){0};
	if (s->p == s->end)
		return -EBADMSG;
	unsigned char mark = (unsigned char)*s->p++;
	if (mark < 0x80 || mark >= 0xe0) {
		ret->sint = (int8_t)mark;
		ret->uint = mark;
		ret->type = mark < 0x80 ? UINT : INT;
		return 0;
	}
	if (mark < 0x90)
		return take_count(s, MAP, mark & 15, ret);
	if (mark < 0xa0)
		return take_count(s, ARRAY, mark & 15, ret);
	if (mark < 0xc0)
		return take_body(s, STR, mark & 31, ret);
	return take_marked(s, mark, ret);
}

/* ---- msgpack to JSON text ---- */

static int put(struct unpacking *s, const char *data, size_t len)
{
	return s->out && len > 0 && msgpack_sbuffer_write(s->out, data, len) < 0 ? -ENOMEM : 0;
}

static int put_text(struct unpacking *s, const char *text)
{
	return put(s, text, strlen(text));
}

static int put_string(struct unpacking *s, struct coord_bytes text)
{
	if (!s->out)
		return 0;
	bool escape = false;
	for (size_t i = 0; i < text.len; i++) {
		unsigned char c = (unsigned char)text.data[i];
		escape = escape || c < 0x20 || c == '"' || c == '\\';
	}
	if (!escape) {
		int r = put(s, "\"", 1);
		if (r == 0)
			r = put(s, text.data, text.len);
		return r < 0 ? r : put(s, "\"", 1);
	}
	if (text.len > INT32_MAX)
		return -ENOMEM;
	struct json_object *string = json_object_new_string_len(text.data, (int)text.len);
	if (!string)
		return -ENOMEM;
	size_t len;
	const char *quoted =
		json_object_to_json_string_length(string, JSON_C_TO_STRING_NOSLASHESCAPE, &len);
	int r = quoted ? put(s, quoted, len) : -ENOMEM;
	json_object_put(string);
	return r;
}

/* Bytes that are no text, as a string. */
static int put_base64(struct unpacking *s, struct coord_bytes body)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	int r = put_text(s, "\"" BASE64_PREFIX);
	for (size_t i = 0; i < body.len && r == 0; i += 3) {
		size_t n = body.len - i < 3 ? body.len - i : 3;
		unsigned bits = 0;
		for (size_t j = 0; j < 3; j++)
			bits = bits << 8 | (j < n ? (unsigned char)body.data[i + j] : 0);
		char quad[4] = {digits[bits >> 18], digits[bits >> 12 & 63],
			n > 1 ? digits[bits >> 6 & 63] : '=', n > 2 ? digits[bits & 63] : '='};
		r = put(s, quad, sizeof(quad));
	}
	return r < 0 ? r : put_text(s, "\"");
}

static int put_binary(struct unpacking *s, struct coord_bytes body)
{
	return coord_utf8_valid(body) ? put_string(s, body) : put_base64(s, body);
}

/* The shortest text that reads back as the same double, and as a double. */
static int put_real(struct unpacking *s, double real)
{
	char text[40];
	if (!isfinite(real))
		return put_text(s, isnan(real) ? "\"NaN\""
				   : real > 0  ? "\"Infinity\""
					       : "\"-Infinity\"");
	for (int digits = 15; digits <= 17; digits++) {
		snprintf(text, sizeof(text), "%.*g", digits, real);
		if (strtod(text, NULL) == real)
			break;
	}
	int r = put_text(s, text);
	return r < 0 || strpbrk(text, ".e") ? r : put_text(s, ".0");
}

static int put_value(struct unpacking *s, int depth);

/* A name in a map: a string, or bytes as Python 2 wrote them. */
static int put_name(struct unpacking *s)
{
	struct item name;
	int r = take_item(s, &name);
	if (r < 0)
		return r;
	if (name.type != STR && name.type != BIN)
		return -EBADMSG;
	r = name.type == STR ? put_string(s, name.body) : put_binary(s, name.body);
	return r < 0 ? r : put_text(s, ":");
}

static int put_container(struct unpacking *s, const struct item *item, int depth)
{
	if (depth > COORD_CAPS_DEPTH)
		return -EBADMSG;
	bool map = item->type == MAP;
	int r = put_text(s, map ? "{" : "[");
	for (uint64_t i = 0; i < item->uint && r == 0; i++) {
		if (i > 0)
			r = put_text(s, ",");
		if (r == 0 && map)
			r = put_name(s);
		if (r == 0)
			r = put_value(s, depth);
	}
	return r < 0 ? r : put_text(s, map ? "}" : "]");
}

/* ---- oslo.serialization's extension types ---- */

static int put_uuid(struct unpacking *s, struct coord_bytes body)
{
	char text[40];
	size_t len = 0;
	if (body.len != 32)
		return -EBADMSG;
	text[len++] = '"';
	for (size_t i = 0; i < 32; i++) {
		char c = body.data[i];
		if (c >= 'A' && c <= 'F')
			c = (char)(c | 0x20);
		if (!is_digit(c) && (c < 'a' || c > 'f'))
			return -EBADMSG;
		if (i == 8 || i == 12 || i == 16 || i == 20)
			text[len++] = '-';
		text[len++] = c;
	}
	text[len++] = '"';
	return put(s, text, len);
}

enum field { YEAR, MONTH, DAY, HOUR, MINUTE, SECOND, MICROSECOND, FIELDS };

static const struct {
	const char *name;
	uint64_t min, max;
} fields[FIELDS] = {
	[YEAR] = {"year", 1, 9999},
	[MONTH] = {"month", 1, 12},
	[DAY] = {"day", 1, 31},
	[HOUR] = {"hour", 0, 23},
	[MINUTE] = {"minute", 0, 59},
	[SECOND] = {"second", 0, 59},
	[MICROSECOND] = {"microsecond", 0, 999999},
};

struct date {
	unsigned field[FIELDS];
	struct coord_bytes zone;
};

/* One "name: value" of a date; a name that is not known is skipped. */
static int take_field(struct unpacking *s, struct date *date, unsigned *seen)
{
	struct item name, value;
	int r = take_item(s, &name);
	if (r == 0)
		r = take_item(s, &value);
	if (r < 0)
		return r;
	if (name.type != STR && name.type != BIN)
		return -EBADMSG;
	if (coord_bytes_equal(name.body, COORD_BYTES("tz"))) {
		if (value.type != STR && value.type != BIN && value.type != NIL)
			return -EBADMSG;
		date->zone = value.body;
		return 0;
	}
	for (unsigned i = 0; i < FIELDS; i++) {
		if (!coord_bytes_equal(name.body, coord_bytes_of(fields[i].name)))
			continue;
		if (value.type != UINT || value.uint < fields[i].min || value.uint > fields[i].max)
			return -EBADMSG;
		date->field[i] = (unsigned)value.uint;
		*seen |= 1u << i;
		return 0;
	}
	return value.type == ARRAY || value.type == MAP ? -EBADMSG : 0;
}

static int check_date(const struct date *date)
{
	static const unsigned char days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	unsigned year = date->field[YEAR], day = date->field[DAY];
	bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
	if (day > days[date->field[MONTH] - 1] || (date->field[MONTH] == 2 && day == 29 && !leap))
		return -EBADMSG;
	if (date->zone.len > 64)
		return -EBADMSG;
	for (size_t i = 0; i < date->zone.len; i++) {
		char c = date->zone.data[i];
		if (c <= ' ' || c > '~' || strchr("\"\\[]", c))
			return -EBADMSG;
	}
	return 0;
}

/* "2024-01-02", or "2024-01-02T03:04:05.000678" with Z or [zone] where a zone is known. */
static int put_date(struct unpacking *s, struct coord_bytes body, bool with_time)
{
	struct unpacking inner = unpack(body, NULL);
	struct date date = {0};
	struct item head;
	unsigned seen = 0, wanted = (1u << (with_time ? FIELDS : HOUR)) - 1;
	int r = take_item(&inner, &head);
	if (r == 0 && head.type != MAP)
		r = -EBADMSG;
	for (uint64_t i = 0; r == 0 && i < head.uint; i++)
		r = take_field(&inner, &date, &seen);
	if (r < 0)
		return r;
	if (inner.p != inner.end || (seen & wanted) != wanted || check_date(&date) < 0)
		return -EBADMSG;
	char text[160];
	const unsigned *f = date.field;
	int len = snprintf(text, sizeof(text), "\"%04u-%02u-%02u", f[YEAR], f[MONTH], f[DAY]);
	if (with_time)
		len += snprintf(text + len, sizeof(text) - (size_t)len, "T%02u:%02u:%02u", f[HOUR],
			f[MINUTE], f[SECOND]);
	if (with_time && f[MICROSECOND])
		len += snprintf(text + len, sizeof(text) - (size_t)len, ".%06u", f[MICROSECOND]);
	if (with_time && coord_bytes_equal(date.zone, COORD_BYTES("UTC")))
		len += snprintf(text + len, sizeof(text) - (size_t)len, "Z");
	else if (with_time && date.zone.len > 0)
		len += snprintf(text + len, sizeof(text) - (size_t)len, "[%.*s]",
			(int)date.zone.len, date.zone.data);
	r = put(s, text, (size_t)len);
	return r < 0 ? r : put_text(s, "\"");
}

/* msgpack's own timestamp: seconds in 4 bytes, with nanoseconds in 8, or in 12. */
static int put_timestamp(struct unpacking *s, struct coord_bytes body)
{
	struct unpacking inner = unpack(body, NULL);
	uint64_t nanos = 0, seconds = 0;
	int r = -EBADMSG;
	if (body.len == 4 || body.len == 8)
		r = take_uint(&inner, body.len, &seconds);
	if (body.len == 8) {
		nanos = seconds >> 34;
		seconds &= ((uint64_t)1 << 34) - 1;
	}
	if (body.len == 12 && take_uint(&inner, 4, &nanos) == 0)
		r = take_uint(&inner, 8, &seconds);
	if (r < 0 || nanos > 999999999)
		return -EBADMSG;
	time_t when = (time_t)seconds;
	struct tm tm;
	if (!gmtime_r(&when, &tm) || tm.tm_year < -1899 || tm.tm_year > 9999 - 1900)
		return put_base64(s, body);
	char text[80];
	size_t len = strftime(text, sizeof(text), "T%H:%M:%S", &tm);
	if (nanos)
		snprintf(text + len, sizeof(text) - len, ".%09uZ\"", (unsigned)nanos);
	else
		snprintf(text + len, sizeof(text) - len, "Z\"");
	char day[40];
	snprintf(
		day, sizeof(day), "\"%04d-%02d-%02d", tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday);
	r = put_text(s, day);
	return r < 0 ? r : put_text(s, text);
}

/* netaddr's IPAddress is a number; what fits into 32 bits is an IPv4 address, as netaddr has it. */
static int put_address(struct unpacking *s, struct coord_bytes body)
{
	struct unpacking inner = unpack(body, NULL);
	struct item item;
	int r = take_item(&inner, &item);
	if (r < 0 || item.type != UINT || inner.p != inner.end)
		return -EBADMSG;
	unsigned char bytes[16] = {0};
	for (size_t i = 0; i < 8; i++)
		bytes[15 - i] = (unsigned char)(item.uint >> 8 * i);
	bool four = item.uint <= UINT32_MAX;
	char text[INET6_ADDRSTRLEN];
	inet_ntop(four ? AF_INET : AF_INET6, four ? bytes + 12 : bytes, text, sizeof(text));
	return put_string(s, coord_bytes_of(text));
}

/* A set, or [start, step]. */
static int put_list(struct unpacking *s, struct coord_bytes body, int depth, bool count)
{
	struct unpacking inner = unpack(body, s->out);
	struct unpacking ahead = inner;
	struct item item;
	int r = take_item(&ahead, &item);
	if (r < 0 || item.type != ARRAY || (count && item.uint != 2))
		return -EBADMSG;
	for (int i = 0; count && i < 2; i++) {
		r = take_item(&ahead, &item);
		if (r < 0 || (item.type != UINT && item.type != INT))
			return -EBADMSG;
	}
	r = put_value(&inner, depth);
	return r == 0 && inner.p != inner.end ? -EBADMSG : r;
}

static int put_ext(struct unpacking *s, const struct item *item, int depth)
{
	switch (item->ext) {
	case -1:
		return put_timestamp(s, item->body);
	case 0:
		return put_uuid(s, item->body);
	case 1:
	case 6: /* xmlrpc's DateTime */
		return put_date(s, item->body, true);
	case 2:
		return put_list(s, item->body, depth, true);
	case 3:
		return put_address(s, item->body);
	case 4:
	case 5: /* frozenset */
		return put_list(s, item->body, depth, false);
	case 7:
		return put_date(s, item->body, false);
	default:
		return put_base64(s, item->body);
	}
}

static int put_item(struct unpacking *s, const struct item *item, int depth)
{
	char text[24];
	if (!s->out && item->type < ARRAY)
		return 0; /* the head was all there was to check */
	switch (item->type) {
	case NIL:
		return put_text(s, "null");
	case BOOL:
		return put_text(s, item->uint ? "true" : "false");
	case UINT:
		snprintf(text, sizeof(text), "%llu", (unsigned long long)item->uint);
		return put_text(s, text);
	case INT:
		snprintf(text, sizeof(text), "%lld", (long long)item->sint);
		return put_text(s, text);
	case REAL:
		return put_real(s, item->real);
	case STR:
		return put_string(s, item->body);
	case BIN:
		return put_binary(s, item->body);
	case ARRAY:
	case MAP:
		return put_container(s, item, depth + 1);
	case EXT:
		return put_ext(s, item, depth);
	}
	return -EBADMSG;
}

static int put_value(struct unpacking *s, int depth)
{
	struct item item;
	int r = take_item(s, &item);
	return r < 0 ? r : put_item(s, &item, depth);
}

int coord_msgpack_check(struct coord_bytes data, size_t *ret_len)
{
	struct unpacking s = unpack(data, NULL);
	int r = put_value(&s, 0);
	if (r < 0)
		return r;
	if (ret_len)
		*ret_len = (size_t)(s.p - data.data);
	else if (s.p != s.end)
		return -EBADMSG;
	return 0;
}

static uint64_t weight_of(const struct item *value)
{
	switch (value->type) {
	case BOOL:
	case UINT:
		return value->uint;
	case INT:
		return 0;
	case NIL:
	case REAL:
	case STR:
	case BIN:
	case ARRAY:
	case MAP:
	case EXT:
		return 1;
	}
	return 1;
}

uint64_t coord_caps_weight(struct coord_bytes msgpack)
{
	struct unpacking s = unpack(msgpack, NULL);
	struct item head, name, value;
	uint64_t weight = 1;
	if (coord_msgpack_check(msgpack, NULL) < 0 || take_item(&s, &head) < 0 || head.type != MAP)
		return 1;
	for (uint64_t i = 0; i < head.uint; i++) {
		struct unpacking ahead;
		if (take_item(&s, &name) < 0)
			return 1;
		ahead = s;
		if (take_item(&ahead, &value) < 0 || put_value(&s, 1) < 0)
			return 1;
		if (name.type == STR && coord_bytes_equal(name.body, COORD_BYTES("weight")))
			weight = weight_of(&value); /* of several the last, as in Python */
	}
	return weight;
}

static int unpack_text(struct unpacking *s)
{
	struct item item;
	int r = take_item(s, &item);
	if (r < 0)
		return r;
	if (item.type == STR || item.type == BIN)
		r = put(s, item.body.data, item.body.len);
	else if (item.type != NIL)
		r = put_item(s, &item, 0);
	if (r == 0 && s->p != s->end)
		r = -EBADMSG;
	if (r == 0 && item.type != STR && item.type != BIN && item.type != NIL)
		r = put_text(s, "\n");
	return r < 0 ? r : put(s, "", 1);
}

int coord_caps_decode(struct coord_bytes msgpack, char **ret, size_t *ret_len)
{
	msgpack_sbuffer out;
	msgpack_sbuffer_init(&out);
	struct unpacking s = unpack(msgpack, &out);
	int r = unpack_text(&s);
	if (r < 0) {
		msgpack_sbuffer_destroy(&out);
		return r;
	}
	*ret_len = out.size - 1;
	*ret = msgpack_sbuffer_release(&out);
	return 0;
}
