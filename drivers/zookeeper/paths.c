/* SPDX-License-Identifier: Apache-2.0 */
/* Names and paths. See paths.h. */
#include "drivers/zookeeper/paths.h"

#include <stdio.h>

static bool is_dots(struct coord_bytes part)
{
	return coord_bytes_equal(part, COORD_BYTES(".")) ||
	       coord_bytes_equal(part, COORD_BYTES(".."));
}

/* Bytes that the server takes in a path, and that Python's driver can read back: it decodes every name
 * that it lists as ASCII, and one that is not would hide all others from it. */
static bool is_plain(struct coord_bytes part)
{
	for (size_t i = 0; i < part.len; i++) {
		unsigned char c = (unsigned char)part.data[i];
		if (c < 0x20 || c >= 0x7f || c == '/')
			return false;
	}
	return part.len > 0 && !is_dots(part);
}

/* The next part of a path with slashes; false at its end. */
static bool next_part(struct coord_bytes *rest, struct coord_bytes *ret)
{
	if (!rest->data)
		return false;
	const char *slash = memchr(rest->data, '/', rest->len);
	*ret = (struct coord_bytes){rest->data, slash ? (size_t)(slash - rest->data) : rest->len};
	if (slash)
		*rest = (struct coord_bytes){slash + 1, rest->len - ret->len - 1};
	else
		*rest = (struct coord_bytes){0};
	return true;
}

static int root_append(char *root, struct coord_bytes path)
{
	struct coord_bytes part;
	size_t len = strlen(root);
	while (next_part(&path, &part)) {
		if (!is_plain(part))
			return -EINVAL;
		if (len + 1 + part.len >= ZK_ROOT_MAX)
			return -ENAMETOOLONG;
		root[len++] = '/';
		memcpy(root + len, part.data, part.len);
		len += part.len;
		root[len] = '\0';
	}
	return 0;
}

int zk_root_make(const char *chroot, const char *namespace, char ret[ZK_ROOT_MAX])
{
	ret[0] = '\0';
	struct coord_bytes below = coord_bytes_of(chroot ? chroot : "");
	if (below.len && below.data[0] == '/')
		below = (struct coord_bytes){below.data + 1, below.len - 1};
	int r = below.len ? root_append(ret, below) : 0;
	struct coord_bytes own = coord_bytes_of(namespace ? namespace : "");
	if (!r && own.len == 0)
		r = -EINVAL;
	return r ? r : root_append(ret, own);
}

/* Parts of a lock's name are directories between contenders of shorter names: none may look like one. */
static int lock_check(struct coord_bytes name)
{
	struct coord_bytes part;
	while (next_part(&name, &part)) {
		char text[ZK_NAME_MAX + 1];
		struct zk_candidate candidate;
		if (!is_plain(part))
			return -EINVAL;
		memcpy(text, part.data, part.len);
		text[part.len] = '\0';
		if (zk_candidate_parse(text, &candidate))
			return -EINVAL;
	}
	return 0;
}

int zk_name_check(enum coord_kind kind, struct coord_bytes name)
{
	if (name.len == 0)
		return -EINVAL;
	if (name.len > ZK_NAME_MAX)
		return -ENAMETOOLONG;
	if (kind == COORD_LOCK)
		return lock_check(name);
	struct coord_bytes taken =
		kind == COORD_MEMBER ? COORD_BYTES("leader") : COORD_BYTES("locks");
	return is_plain(name) && !coord_bytes_equal(name, taken) ? 0 : -EINVAL;
}

void zk_path(const char *root, struct coord_key key, char ret[ZK_PATH_MAX])
{
	snprintf(ret, ZK_PATH_MAX, "%s/%s%.*s%s", root, key.kind == COORD_LOCK ? "locks/" : "",
		(int)key.name.len, key.name.data, key.kind == COORD_LEADER ? "/leader" : "");
}

void zk_path_member(const char *root, struct coord_bytes group, struct coord_bytes member,
	char ret[ZK_PATH_MAX])
{
	snprintf(ret, ZK_PATH_MAX, "%s/%.*s/%.*s", root, (int)group.len, group.data,
		(int)member.len, member.data);
}

void zk_path_claim(const char *root, const char *member, char ret[ZK_PATH_MAX])
{
	size_t len = (size_t)snprintf(ret, ZK_PATH_MAX, "%s.toozfs/members", root);
	if (*member)
		ret[len++] = '/';
	for (const char *p = member; *p && len + 4 < ZK_PATH_MAX; p++) {
		unsigned char c = (unsigned char)*p;
		bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
			     (c >= 'A' && c <= 'Z') || c == '-' || c == '_';
		if (plain)
			ret[len++] = (char)c;
		else
			len += (size_t)sprintf(ret + len, "%%%02x", c);
	}
	ret[len] = '\0';
}

/* ---- Contenders ---- */

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool parse_owner(const char *name, uint8_t ret[16])
{
	for (size_t i = 0; i < 16; i++) {
		int high = hex_digit(name[2 * i]);
		int low = high < 0 ? -1 : hex_digit(name[2 * i + 1]);
		if (low < 0)
			return false;
		ret[i] = (uint8_t)(high << 4 | low);
	}
	return true;
}

/* As Python: "__lock__", "-" or nothing, and ten digits at the end, whatever stands before. */
bool zk_candidate_parse(const char *name, struct zk_candidate *ret)
{
	static const char mark[] = "__lock__";
	size_t len = strlen(name), digits = 10, marked = sizeof(mark) - 1;
	if (len < digits + marked)
		return false;
	const char *seq = name + len - digits;
	if (strspn(seq, "0123456789") != digits)
		return false;
	if (seq[-1] == '-')
		seq--;
	if ((size_t)(seq - name) < marked || memcmp(seq - marked, mark, marked) != 0)
		return false;
	*ret = (struct zk_candidate){.name = name, .seq = seq};
	const char *end = seq - marked;
	ret->shared = end - name == ZK_HEX + 1 && end[-1] == 'r';
	ret->has_owner = (ret->shared || end - name == ZK_HEX) && parse_owner(name, ret->owner);
	ret->shared = ret->shared && ret->has_owner;
	return true;
}

void zk_candidate_prefix(const uint8_t owner[16], bool shared, char ret[ZK_PREFIX_MAX])
{
	for (size_t i = 0; i < 16; i++)
		sprintf(ret + 2 * i, "%02x", owner[i]);
	strcpy(ret + ZK_HEX, shared ? "r__lock__" : "__lock__");
}
