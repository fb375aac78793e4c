/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The names of keys: tooz's own, in both dialects of its lock keys, and ours beside them.
 *
 *   NS_groups                      set of groups                                        tooz
 *   NS_group:G                     hash: member -> capabilities, and __created__        tooz
 *   NS_beats:M                     exists while member M is alive                       tooz
 *   NS_L_lock                      the lock, tooz 9.0 and later                         tooz
 *   b'NS'_b'L'_lock                the lock, tooz up to 8.1: Python's repr of the bytes tooz
 *   NS_leader_of_G_lock ...        leadership: the lock named leader_of_G               tooz
 *   NS:toozfs:<what>:<name>        ours; no key of tooz has a colon after NS
 */
#ifndef REDIS_KEYS_H
#define REDIS_KEYS_H

#include "coord/driver.h"
#include "drivers/redis/options.h"

enum {
	REDIS_NAME_MAX = 256, /* of a group, member or lock */
	REDIS_KEY_MAX = 4096, /* what any key fits into */
	REDIS_LOCK_KEYS = 2, /* at most, of one lock */
};

enum redis_key {
	REDIS_KEY_GROUPS, /* has no name */
	REDIS_KEY_GROUP,
	REDIS_KEY_BEAT, /* of a member id */
	REDIS_KEY_LOCK,
	REDIS_KEY_LOCK_OLD,
	REDIS_KEY_MARK, /* of a lock: who waits for it, or whose turn it is */
	REDIS_KEY_RECORD, /* of a lock: who holds it */
	REDIS_KEY_SHARERS, /* of a lock: sorted set of its sharers */
	REDIS_KEY_TOKEN, /* has no name: the last fencing token */
	REDIS_KEY_OWNERS, /* of a group: hash, member -> its record */
	REDIS_KEY_BEATERS, /* of a member id: hash: who keeps its beat */
	REDIS_KEY_CLAIM, /* of a member id: whose it is */
	REDIS_KEY_SESSION, /* of a session: exists while it lives */
	REDIS_KEY_TELL, /* of a session: written in order to tell it that a member of its was removed */
};

struct redis_keys {
	struct coord_bytes ns;
	char *repr; /* of ns */
	size_t repr_len;
	enum redis_dialect dialect;
};

/* ns is borrowed. Returns 0 or -ENOMEM. */
int redis_keys_init(struct redis_keys *, const char *ns, enum redis_dialect);
void redis_keys_done(struct redis_keys *);

/* Python's repr of a bytes object. Writes at most 4 * len + 3 bytes and returns how many. */
size_t redis_repr(struct coord_bytes, char *ret);
/* Its inverse: -EINVAL for anything that redis_repr does not write. At most text.len bytes. */
int redis_repr_parse(struct coord_bytes text, char *ret, size_t *ret_len);

/* Writes at most REDIS_KEY_MAX bytes for a namespace of the length that options allow and a name of
 * REDIS_NAME_MAX + 16, and returns how many. */
size_t redis_key(const struct redis_keys *, enum redis_key, struct coord_bytes name, char *ret);
/* The lock's name in a lock key of a dialect that is in use; -EINVAL: it is none. ret takes key.len bytes. */
int redis_key_lock_name(
	const struct redis_keys *, struct coord_bytes key, char *ret, size_t *ret_len);
/* A pattern for SCAN that all lock keys match, and other keys may. At most REDIS_KEY_MAX bytes. */
size_t redis_key_lock_pattern(const struct redis_keys *, char *ret);

/* The lock that is the leadership of a group. At most 16 bytes more than the group. */
size_t redis_leader_lock(struct coord_bytes group, char *ret);
/* The group whose leadership the lock is; false: it is another lock. */
bool redis_leader_group(struct coord_bytes lock, struct coord_bytes *ret_group);

/* 0, -EINVAL or -ENAMETOOLONG. Refused beside the empty name: what a lock cannot be called because its key
 * would be that of a group or a beat, and tooz's own field in a group. */
int redis_name_check(enum coord_kind, struct coord_bytes name);

#endif
