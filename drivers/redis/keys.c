/* SPDX-License-Identifier: Apache-2.0 */
/* The names of keys. See keys.h. */
#include "drivers/redis/keys.h"

#define LEADER_OF "leader_of_"

static const struct format {
	const char *between, *after; /* NS between name after */
} formats[] = {
	[REDIS_KEY_GROUPS] = {"_groups", ""},
	[REDIS_KEY_GROUP] = {"_group:", ""},
	[REDIS_KEY_BEAT] = {"_beats:", ""},
	[REDIS_KEY_LOCK] = {"_", "_lock"},
	[REDIS_KEY_LOCK_OLD] = {"_", "_lock"},
	[REDIS_KEY_MARK] = {":toozfs:mark:", ""},
	[REDIS_KEY_RECORD] = {":toozfs:lock:", ""},
	[REDIS_KEY_SHARERS] = {":toozfs:sharers:", ""},
	[REDIS_KEY_TOKEN] = {":toozfs:token", ""},
	[REDIS_KEY_OWNERS] = {":toozfs:group:", ""},
	[REDIS_KEY_BEATERS] = {":toozfs:beats:", ""},
	[REDIS_KEY_CLAIM] = {":toozfs:member:", ""},
	[REDIS_KEY_SESSION] = {":toozfs:session:", ""},
	[REDIS_KEY_TELL] = {":toozfs:tell:", ""},
};

int redis_keys_init(struct redis_keys *keys, const char *ns, enum redis_dialect dialect)
{
	keys->ns = coord_bytes_of(ns);
	keys->dialect = dialect;
	keys->repr = malloc(4 * keys->ns.len + 3);
	if (!keys->repr)
		return -ENOMEM;
	keys->repr_len = redis_repr(keys->ns, keys->repr);
	return 0;
}

void redis_keys_done(struct redis_keys *keys)
{
	free(keys->repr);
	*keys = (struct redis_keys){0};
}

/* ---- Python's repr ---- */

/* Apostrophes around it, unless it holds some and no quotation mark. */
static char repr_quote(struct coord_bytes bytes)
{
	bool single = bytes.len && memchr(bytes.data, '\'', bytes.len);
	return single && !memchr(bytes.data, '"', bytes.len) ? '"' : '\'';
}

static size_t repr_byte(uint8_t byte, char quote, char *ret)
{
	static const char hex[] = "0123456789abcdef";
	const char *short_one = byte == '\t' ? "\\t" : byte == '\n' ? "\\n" : "\\r";
	if (byte == '\\' || byte == (uint8_t)quote) {
		ret[0] = '\\';
		ret[1] = (char)byte;
		return 2;
	}
	if (byte >= 0x20 && byte < 0x7f) {
		ret[0] = (char)byte;
		return 1;
	}
	if (byte == '\t' || byte == '\n' || byte == '\r') {
		memcpy(ret, short_one, 2);
		return 2;
	}
	ret[0] = '\\';
	ret[1] = 'x';
	ret[2] = hex[byte >> 4];
	ret[3] = hex[byte & 15];
	return 4;
}

size_t redis_repr(struct coord_bytes bytes, char *ret)
{
	char quote = repr_quote(bytes), *at = ret;
	*at++ = 'b';
	*at++ = quote;
	for (size_t i = 0; i < bytes.len; i++)
		at += repr_byte((uint8_t)bytes.data[i], quote, at);
	*at++ = quote;
	return (size_t)(at - ret);
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* One escaped byte after the backslash; *at is moved behind it. -1: none. */
static int unescape(struct coord_bytes text, size_t *at)
{
	char c = *at < text.len ? text.data[(*at)++] : 0;
	if (c == 't')
		return '\t';
	if (c == 'n')
		return '\n';
	if (c == 'r')
		return '\r';
	if (c == '\\' || c == '\'')
		return (uint8_t)c;
	if (c != 'x' || text.len - *at < 2)
		return -1;
	int high = hex_digit(text.data[*at]), low = hex_digit(text.data[*at + 1]);
	*at += 2;
	return high < 0 || low < 0 ? -1 : high << 4 | low;
}

int redis_repr_parse(struct coord_bytes text, char *ret, size_t *ret_len)
{
	size_t len = 0, at = 2;
	if (text.len < 3 || text.data[0] != 'b')
		return -EINVAL;
	struct coord_bytes inner = {text.data, text.len - 1};
	while (at < inner.len) {
		int byte = (uint8_t)inner.data[at++];
		if (byte == '\\')
			byte = unescape(inner, &at);
		if (byte < 0)
			return -EINVAL;
		ret[len++] = (char)byte;
	}
	/* Only what Python would write is a name: each name has one spelling. */
	_cleanup_free_ char *again = malloc(4 * len + 3);
	if (!again)
		return -ENOMEM;
	size_t again_len = redis_repr((struct coord_bytes){ret, len}, again);
	if (!coord_bytes_equal((struct coord_bytes){again, again_len}, text))
		return -EINVAL;
	*ret_len = len;
	return 0;
}

/* ---- Keys ---- */

static char *append(char *at, const void *data, size_t len)
{
	if (len)
		memcpy(at, data, len);
	return at + len;
}

size_t redis_key(
	const struct redis_keys *keys, enum redis_key kind, struct coord_bytes name, char *ret)
{
	const struct format *format = &formats[kind];
	bool old = kind == REDIS_KEY_LOCK_OLD;
	char *at = old ? append(ret, keys->repr, keys->repr_len)
		       : append(ret, keys->ns.data, keys->ns.len);
	at = append(at, format->between, strlen(format->between));
	if (old)
		at += redis_repr(name, at);
	else
		at = append(at, name.data, name.len);
	at = append(at, format->after, strlen(format->after));
	return (size_t)(at - ret);
}

static bool cut_prefix(struct coord_bytes *text, const void *prefix, size_t len)
{
	if (text->len < len || (len && memcmp(text->data, prefix, len) != 0))
		return false;
	text->data += len;
	text->len -= len;
	return true;
}

static bool cut_suffix(struct coord_bytes *text, const char *suffix)
{
	size_t len = strlen(suffix);
	if (text->len < len || memcmp(text->data + text->len - len, suffix, len) != 0)
		return false;
	text->len -= len;
	return true;
}

int redis_key_lock_name(
	const struct redis_keys *keys, struct coord_bytes key, char *ret, size_t *ret_len)
{
	struct coord_bytes rest = key;
	if (!cut_suffix(&rest, "_lock"))
		return -EINVAL;
	struct coord_bytes old = rest;
	int r = -EINVAL;
	*ret_len = 0;
	if (keys->dialect != REDIS_DIALECT_NEW && cut_prefix(&old, keys->repr, keys->repr_len) &&
		cut_prefix(&old, "_", 1))
		r = redis_repr_parse(old, ret, ret_len);
	if (r && keys->dialect != REDIS_DIALECT_OLD &&
		cut_prefix(&rest, keys->ns.data, keys->ns.len) && cut_prefix(&rest, "_", 1)) {
		append(ret, rest.data, rest.len);
		*ret_len = rest.len;
		r = 0;
	}
	struct coord_bytes name = {ret, *ret_len}, group;
	if (r)
		return r;
	return redis_leader_group(name, &group) ? redis_name_check(COORD_GROUP, group)
						: redis_name_check(COORD_LOCK, name);
}

size_t redis_key_lock_pattern(const struct redis_keys *keys, char *ret)
{
	/* A namespace that Python spells differently stands in both dialects in two ways. */
	bool plain =
		keys->repr_len == keys->ns.len + 3 && !memchr(keys->ns.data, '\'', keys->ns.len);
	char *at = ret;
	*at++ = '*';
	for (size_t i = 0; plain && i < keys->ns.len; i++) {
		if (strchr("*?[]^-\\", keys->ns.data[i]))
			*at++ = '\\';
		*at++ = keys->ns.data[i];
	}
	at = append(at, "*_lock", plain && keys->ns.len ? 6 : 0);
	if (!plain || !keys->ns.len)
		at = append(at, "_lock", 5);
	return (size_t)(at - ret);
}

size_t redis_leader_lock(struct coord_bytes group, char *ret)
{
	char *at = append(ret, LEADER_OF, sizeof(LEADER_OF) - 1);
	return (size_t)(append(at, group.data, group.len) - ret);
}

bool redis_leader_group(struct coord_bytes lock, struct coord_bytes *ret_group)
{
	struct coord_bytes group = lock;
	if (!cut_prefix(&group, LEADER_OF, sizeof(LEADER_OF) - 1) || !group.len)
		return false;
	*ret_group = group;
	return true;
}

int redis_name_check(enum coord_kind kind, struct coord_bytes name)
{
	struct coord_bytes rest = name;
	if (name.len == 0)
		return -EINVAL;
	if (name.len > REDIS_NAME_MAX)
		return -ENAMETOOLONG;
	if (kind == COORD_LOCK &&
		(cut_prefix(&rest, "group:", 6) || cut_prefix(&rest, "beats:", 6)))
		return -EINVAL;
	if (kind == COORD_MEMBER && coord_bytes_equal(name, COORD_BYTES("__created__")))
		return -EINVAL;
	return 0;
}
