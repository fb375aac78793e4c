/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Capabilities, first half: is a text complete, and text to msgpack.
 *
 * Neither library sees anything from outside that was not walked before. msgpack-c allocates what
 * a length claims, json-c takes NaN, single quotes and lone surrogates and clamps big integers, and
 * both build trees many times the size of their input. So the walks here and in caps_decode.c go
 * over the bytes themselves, need no memory but the result, and recurse COORD_CAPS_DEPTH deep at
 * most; msgpack-c packs, json-c escapes and unescapes strings, one at a time.
 */
#include "coord/caps.h"

#include <assert.h>
#include <json-c/json.h>
#include <math.h>
#include <msgpack.h>

/* Length of the character at p; 0: the text ends inside it; -1: none. As Unicode wants it: no
 * surrogates, no overlong forms. */
static int utf8_char(const char *text, const char *end)
{
	const unsigned char *p = (const unsigned char *)text;
	if (p[0] < 0x80)
		return 1;
	if (p[0] < 0xc2 || p[0] > 0xf4)
		return -1;
	int len = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
	/* The second byte is what tells overlong, surrogate and too large. */
	unsigned char low = 0x80, high = 0xbf;
	if (p[0] == 0xe0)
		low = 0xa0;
	if (p[0] == 0xed)
		high = 0x9f;
	if (p[0] == 0xf0)
		low = 0x90;
	if (p[0] == 0xf4)
		high = 0x8f;
	for (int i = 1; i < len; i++) {
		if (text + i == end)
			return 0;
		if (p[i] < low || p[i] > high)
			return -1;
		low = 0x80;
		high = 0xbf;
	}
	return len;
}

bool coord_utf8_valid(struct coord_bytes text)
{
	for (size_t i = 0; i < text.len;) {
		int len = utf8_char(text.data + i, text.data + text.len);
		if (len <= 0)
			return false;
		i += (size_t)len;
	}
	return true;
}

/* ---- Walking JSON text: RFC 8259, and only what msgpack can represent ---- */

struct scan {
	const char *p, *end;
	int depth;
};

enum scanned { SCAN_DONE, SCAN_MORE, SCAN_BAD };

static bool is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Skips white space; false: nothing is left. */
static bool skip_space(struct scan *s)
{
	while (s->p < s->end && is_space(*s->p))
		s->p++;
	return s->p < s->end;
}

static enum scanned scan_word(struct scan *s, const char *word)
{
	for (; *word; word++, s->p++) {
		if (s->p == s->end)
			return SCAN_MORE;
		if (*s->p != *word)
			return SCAN_BAD;
	}
	return SCAN_DONE;
}

/* The four hex digits behind \u. */
static enum scanned scan_hex(struct scan *s, unsigned *ret)
{
	unsigned value = 0;
	for (int i = 0; i < 4; i++, s->p++) {
		if (s->p == s->end)
			return SCAN_MORE;
		char c = *s->p;
		bool letter = (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
		if (!letter && !is_digit(c))
			return SCAN_BAD;
		value = value << 4 | (unsigned)(letter ? (c | 0x20) - 'a' + 10 : c - '0');
	}
	*ret = value;
	return SCAN_DONE;
}

/* Behind the backslash. A surrogate must be one of a pair, or there is no character. */
static enum scanned scan_escape(struct scan *s)
{
	if (s->p == s->end)
		return SCAN_MORE;
	char c = *s->p++;
	if (c != 'u')
		return c && strchr("\"\\/bfnrt", c) ? SCAN_DONE : SCAN_BAD;
	unsigned unit;
	enum scanned r = scan_hex(s, &unit);
	if (r != SCAN_DONE || unit < 0xd800 || unit > 0xdfff)
		return r;
	if (unit > 0xdbff)
		return SCAN_BAD;
	r = scan_word(s, "\\u");
	if (r == SCAN_DONE)
		r = scan_hex(s, &unit);
	if (r == SCAN_DONE && (unit < 0xdc00 || unit > 0xdfff))
		return SCAN_BAD;
	return r;
}

static enum scanned scan_string(struct scan *s)
{
	s->p++;
	while (s->p < s->end) {
		char c = *s->p;
		if (c == '"') {
			s->p++;
			return SCAN_DONE;
		}
		if (c == '\\') {
			s->p++;
			enum scanned r = scan_escape(s);
			if (r != SCAN_DONE)
				return r;
			continue;
		}
		int len = (unsigned char)c < 0x20 ? -1 : utf8_char(s->p, s->end);
		if (len < 0)
			return SCAN_BAD;
		if (len == 0)
			return SCAN_MORE;
		s->p += len;
	}
	return SCAN_MORE;
}

static void skip_digits(struct scan *s)
{
	while (s->p < s->end && is_digit(*s->p))
		s->p++;
}

/* One digit at least. */
static enum scanned scan_digits(struct scan *s)
{
	if (s->p == s->end)
		return SCAN_MORE;
	if (!is_digit(*s->p))
		return SCAN_BAD;
	skip_digits(s);
	return SCAN_DONE;
}

/* The value of an integer's digits; false: over 64 bits. */
static bool integer_value(const char *digits, const char *end, uint64_t *ret)
{
	uint64_t value = 0;
	for (; digits < end; digits++)
		if (__builtin_mul_overflow(value, 10, &value) ||
			__builtin_add_overflow(value, (uint64_t)(*digits - '0'), &value))
			return false;
	*ret = value;
	return true;
}

/* Whether msgpack has the number: 64 bits, of which one is the sign if there is one, or a finite
 * double. */
static bool number_fits(const char *number, const char *end, bool real)
{
	uint64_t value;
	if (real)
		return isfinite(strtod(number, NULL)); /* a delimiter follows, it ends there */
	bool negative = *number == '-';
	if (!integer_value(number + negative, end, &value))
		return false;
	return !negative || value <= (uint64_t)INT64_MAX + 1;
}

static enum scanned scan_number(struct scan *s)
{
	const char *begin = s->p;
	bool real = false;
	enum scanned r = SCAN_DONE;
	if (*s->p == '-')
		s->p++;
	if (s->p < s->end && *s->p == '0')
		s->p++;
	else
		r = scan_digits(s);
	if (r == SCAN_DONE && s->p < s->end && *s->p == '.') {
		real = true;
		s->p++;
		r = scan_digits(s);
	}
	if (r == SCAN_DONE && s->p < s->end && (*s->p | 0x20) == 'e') {
		real = true;
		s->p++;
		if (s->p < s->end && (*s->p == '+' || *s->p == '-'))
			s->p++;
		r = scan_digits(s);
	}
	if (r != SCAN_DONE)
		return r;
	if (s->p == s->end)
		return SCAN_MORE;
	/* Checked here, so that strtod() never reads past the number or the text. */
	if (!is_space(*s->p) && *s->p != ',' && *s->p != ']' && *s->p != '}')
		return SCAN_BAD;
	return number_fits(begin, s->p, real) ? SCAN_DONE : SCAN_BAD;
}

static enum scanned scan_value(struct scan *s);

/* The name of a member and the colon. */
static enum scanned scan_name(struct scan *s)
{
	if (!skip_space(s))
		return SCAN_MORE;
	if (*s->p != '"')
		return SCAN_BAD;
	enum scanned r = scan_string(s);
	if (r != SCAN_DONE)
		return r;
	if (!skip_space(s))
		return SCAN_MORE;
	return *s->p++ == ':' ? SCAN_DONE : SCAN_BAD;
}

static enum scanned scan_container(struct scan *s)
{
	if (++s->depth > COORD_CAPS_DEPTH)
		return SCAN_BAD;
	bool object = *s->p++ == '{';
	char close = object ? '}' : ']';
	if (!skip_space(s))
		return SCAN_MORE;
	bool more = *s->p != close;
	if (!more)
		s->p++;
	while (more) {
		enum scanned r = object ? scan_name(s) : SCAN_DONE;
		if (r == SCAN_DONE)
			r = scan_value(s);
		if (r != SCAN_DONE)
			return r;
		if (!skip_space(s))
			return SCAN_MORE;
		char c = *s->p++;
		if (c != close && c != ',')
			return SCAN_BAD;
		more = c == ',';
	}
	s->depth--;
	return SCAN_DONE;
}

static enum scanned scan_value(struct scan *s)
{
	if (!skip_space(s))
		return SCAN_MORE;
	switch (*s->p) {
	case '{':
	case '[':
		return scan_container(s);
	case '"':
		return scan_string(s);
	case 't':
		return scan_word(s, "true");
	case 'f':
		return scan_word(s, "false");
	case 'n':
		return scan_word(s, "null");
	default:
		return *s->p == '-' || is_digit(*s->p) ? scan_number(s) : SCAN_BAD;
	}
}

enum coord_caps_text coord_caps_look(struct coord_bytes text, size_t *ret_end)
{
	size_t ignored;
	if (!ret_end)
		ret_end = &ignored;
	*ret_end = 0;
	if (text.len == 0)
		return COORD_CAPS_EMPTY;
	struct scan s = {.p = text.data, .end = text.data + text.len};
	if (!skip_space(&s))
		return COORD_CAPS_EMPTY;
	if (*s.p != '{' && *s.p != '[')
		return COORD_CAPS_OTHER;
	switch (scan_container(&s)) {
	case SCAN_MORE:
		return COORD_CAPS_OPEN;
	case SCAN_BAD:
		return COORD_CAPS_OTHER;
	case SCAN_DONE:
		break;
	}
	*ret_end = (size_t)(s.p - text.data);
	return skip_space(&s) ? COORD_CAPS_OTHER : COORD_CAPS_JSON;
}

/* ---- JSON text to msgpack; the text was scanned and is one value ---- */

struct packing {
	msgpack_packer packer;
	struct json_tokener *tokener; /* made when the first escape is met */
	const char *p, *end;
};

/* A string without its escapes. */
struct piece {
	const char *data;
	size_t len;
	size_t order; /* among the names of its object */
	struct json_object *owner; /* of data, if there were escapes */
};

static void piece_done(struct piece *piece)
{
	json_object_put(piece->owner);
	piece->owner = NULL;
}

static void expect(struct packing *s, char c)
{
	assert(s->p < s->end && *s->p == c);
	s->p++;
}

static char next_char(struct packing *s)
{
	while (s->p < s->end && is_space(*s->p))
		s->p++;
	assert(s->p < s->end);
	return *s->p;
}

/* Moves past a string; true if it has escapes. */
static bool skip_string(struct packing *s)
{
	bool escapes = false;
	for (s->p++; *s->p != '"'; s->p++) {
		assert(s->p < s->end);
		if (*s->p == '\\') {
			escapes = true;
			s->p++;
		}
	}
	s->p++;
	return escapes;
}

static int unescape(struct packing *s, const char *quoted, size_t len, struct piece *ret)
{
	if (!s->tokener)
		s->tokener = json_tokener_new();
	if (!s->tokener)
		return -ENOMEM;
	json_tokener_reset(s->tokener);
	ret->owner = json_tokener_parse_ex(s->tokener, quoted, (int)len);
	if (!ret->owner)
		return -ENOMEM;
	ret->data = json_object_get_string(ret->owner);
	ret->len = (size_t)json_object_get_string_len(ret->owner);
	return 0;
}

static int take_string(struct packing *s, struct piece *ret)
{
	const char *begin = s->p;
	bool escapes = skip_string(s);
	size_t len = (size_t)(s->p - begin);
	*ret = (struct piece){.data = begin + 1, .len = len - 2};
	return escapes ? unescape(s, begin, len, ret) : 0;
}

static int pack_piece(struct packing *s, const struct piece *piece)
{
	return msgpack_pack_str_with_body(&s->packer, piece->data, piece->len) < 0 ? -ENOMEM : 0;
}

static int pack_string(struct packing *s)
{
	struct piece piece;
	int r = take_string(s, &piece);
	if (r == 0)
		r = pack_piece(s, &piece);
	piece_done(&piece);
	return r;
}

static void skip_scalar(struct packing *s)
{
	while (!is_space(*s->p) && *s->p != ',' && *s->p != ']' && *s->p != '}')
		s->p++;
}

/* Moves past a value. */
static void skip_value(struct packing *s)
{
	size_t depth = 0;
	do {
		char c = next_char(s);
		if (c == '"') {
			skip_string(s);
		} else if (c == '{' || c == '[') {
			depth++;
			s->p++;
		} else if (c == '}' || c == ']') {
			depth--;
			s->p++;
		} else if (c == ',' || c == ':') {
			s->p++;
		} else {
			skip_scalar(s);
		}
	} while (depth > 0);
}

/* Behind an item of a container: true if another follows. */
static bool take_comma(struct packing *s)
{
	bool more = next_char(s) == ',';
	s->p++;
	return more;
}

/* How many items a container has; s stands behind its opening bracket, and stays there. */
static size_t count_items(struct packing *s)
{
	const char *begin = s->p;
	size_t n = 0;
	bool more = next_char(s) != ']' && *s->p != '}';
	bool object = begin[-1] == '{';
	for (; more; more = take_comma(s)) {
		if (object) {
			next_char(s);
			skip_string(s);
			next_char(s);
			expect(s, ':');
		}
		skip_value(s);
		n++;
	}
	s->p = begin;
	return n;
}

static int compare_names(const void *a, const void *b)
{
	const struct piece *x = a, *y = b;
	int r = memcmp(x->data, y->data, x->len < y->len ? x->len : y->len);
	if (r == 0)
		r = (x->len > y->len) - (x->len < y->len);
	return r ? r : (x->order > y->order) - (x->order < y->order);
}

/* Collects the names of an object's members; s stands behind its bracket, and stays there. */
static int take_names(struct packing *s, struct piece *names, size_t len)
{
	const char *begin = s->p;
	int r = 0;
	for (size_t i = 0; i < len && r == 0; i++) {
		next_char(s);
		r = take_string(s, &names[i]);
		names[i].order = i;
		next_char(s);
		expect(s, ':');
		skip_value(s);
		take_comma(s);
	}
	s->p = begin;
	return r;
}

/* Of members with one name the last counts, as in Python and json-c. Sets ret_skip for the others,
 * and returns how many stay, or -ENOMEM. */
static ssize_t find_repeated(struct packing *s, size_t len, bool *ret_skip)
{
	struct piece *names = calloc(len, sizeof(*names));
	if (!names)
		return -ENOMEM;
	ssize_t stay = take_names(s, names, len);
	if (stay == 0) {
		qsort(names, len, sizeof(*names), compare_names);
		stay = (ssize_t)len;
		for (size_t i = 0; i + 1 < len; i++) {
			struct piece *a = &names[i], *b = &names[i + 1];
			if (a->len == b->len && memcmp(a->data, b->data, a->len) == 0) {
				ret_skip[a->order] = true;
				stay--;
			}
		}
	}
	for (size_t i = 0; i < len; i++)
		piece_done(&names[i]);
	free(names);
	return stay;
}

static int pack_value(struct packing *s);

static int pack_member(struct packing *s, bool skip)
{
	int r = 0;
	next_char(s);
	if (skip)
		skip_string(s);
	else
		r = pack_string(s);
	next_char(s);
	expect(s, ':');
	if (skip)
		skip_value(s);
	else if (r == 0)
		r = pack_value(s);
	return r;
}

static int pack_object(struct packing *s)
{
	s->p++;
	size_t len = count_items(s);
	ssize_t stay = (ssize_t)len;
	_cleanup_free_ bool *skip = NULL;
	if (len > 1) {
		skip = calloc(len, sizeof(*skip));
		stay = skip ? find_repeated(s, len, skip) : -ENOMEM;
	}
	if (stay < 0 || msgpack_pack_map(&s->packer, (size_t)stay) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < len; i++) {
		int r = pack_member(s, skip && skip[i]);
		if (r < 0)
			return r;
		if (i + 1 < len)
			take_comma(s);
	}
	next_char(s);
	expect(s, '}');
	return 0;
}

static int pack_array(struct packing *s)
{
	s->p++;
	size_t len = count_items(s);
	if (msgpack_pack_array(&s->packer, len) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < len; i++) {
		int r = pack_value(s);
		if (r < 0)
			return r;
		if (i + 1 < len)
			take_comma(s);
	}
	next_char(s);
	expect(s, ']');
	return 0;
}

static int pack_number(struct packing *s)
{
	const char *begin = s->p;
	skip_scalar(s);
	bool negative = *begin == '-', real = false;
	for (const char *p = begin; p < s->p; p++)
		real = real || *p == '.' || (*p | 0x20) == 'e';
	int r;
	uint64_t value = 0;
	if (real)
		r = msgpack_pack_double(&s->packer, strtod(begin, NULL));
	else if (!integer_value(begin + negative, s->p, &value))
		r = -1; /* the scan refuses these */
	else if (negative)
		r = msgpack_pack_int64(&s->packer, (int64_t)(0 - value));
	else
		r = msgpack_pack_uint64(&s->packer, value);
	return r < 0 ? -ENOMEM : 0;
}

static int pack_value(struct packing *s)
{
	int r;
	switch (next_char(s)) {
	case '{':
		return pack_object(s);
	case '[':
		return pack_array(s);
	case '"':
		return pack_string(s);
	case 't':
		r = msgpack_pack_true(&s->packer);
		break;
	case 'f':
		r = msgpack_pack_false(&s->packer);
		break;
	case 'n':
		r = msgpack_pack_nil(&s->packer);
		break;
	default:
		return pack_number(s);
	}
	skip_scalar(s);
	return r < 0 ? -ENOMEM : 0;
}

static int pack_text(msgpack_sbuffer *out, struct coord_bytes text)
{
	struct packing s = {.p = text.data, .end = text.len ? text.data + text.len : text.data};
	msgpack_packer_init(&s.packer, out, msgpack_sbuffer_write);
	int r;
	if (text.len == 0)
		r = msgpack_pack_nil(&s.packer);
	else if (coord_caps_look(text, NULL) == COORD_CAPS_JSON)
		r = pack_value(&s);
	else if (coord_utf8_valid(text))
		r = msgpack_pack_str_with_body(&s.packer, text.data, text.len);
	else
		r = msgpack_pack_bin_with_body(&s.packer, text.data, text.len);
	if (s.tokener)
		json_tokener_free(s.tokener);
	return r < 0 ? -ENOMEM : 0;
}

int coord_caps_encode(struct coord_bytes text, char **ret, size_t *ret_len)
{
	if (text.len > COORD_CAPS_MAX)
		return -EFBIG;
	msgpack_sbuffer out;
	msgpack_sbuffer_init(&out);
	int r = pack_text(&out, text);
	if (r < 0) {
		msgpack_sbuffer_destroy(&out);
		return r;
	}
	*ret_len = out.size;
	*ret = msgpack_sbuffer_release(&out);
	return 0;
}
