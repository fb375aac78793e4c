/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names and paths: where Python's driver puts groups, members, locks and leaders, and where we put what
 * it does not know. Pure functions.
 */
#ifndef ZK_PATHS_H
#define ZK_PATHS_H

#include "coord/driver.h"

enum {
	ZK_NAME_MAX = 255,
	ZK_ROOT_MAX = 512, /* chroot and namespace */
	ZK_PATH_MAX = ZK_ROOT_MAX + 800,
	ZK_HEX = 32, /* an owner value */
};

/* "/chroot/namespace" from both, each may have several parts; chroot may be NULL or empty. -EINVAL, or
 * -ENAMETOOLONG. */
int zk_root_make(const char *chroot, const char *namespace, char ret[ZK_ROOT_MAX]);

/* 0, -EINVAL or -ENAMETOOLONG. Every name that passes is one node below its place, or, for a lock, some
 * nodes below "locks", and no other name is the same. */
int zk_name_check(enum coord_kind, struct coord_bytes name);

/* Paths of checked names. LOCK and LEADER: the directory of the contenders. GROUP: its node. */
void zk_path(const char *root, struct coord_key, char ret[ZK_PATH_MAX]);
void zk_path_member(const char *root, struct coord_bytes group, struct coord_bytes member,
	char ret[ZK_PATH_MAX]);
/* The claim on a member id. "" for member: the directory of claims. */
void zk_path_claim(const char *root, const char *member, char ret[ZK_PATH_MAX]);

/* A contender for a lock, parsed from its node's name. */
struct zk_candidate {
	const char *name;
	const char *seq; /* "-" and ten digits, or ten digits: ordered as text, as Python does */
	bool shared;
	bool has_owner; /* the name begins with an owner value, ours or a UUID of Python's */
	uint8_t owner[16];
};

/* Is it one? */
bool zk_candidate_parse(const char *name, struct zk_candidate *ret);
/* "<owner>__lock__" or "<owner>r__lock__". */
#define ZK_PREFIX_MAX (ZK_HEX + 10)
void zk_candidate_prefix(const uint8_t owner[16], bool shared, char ret[ZK_PREFIX_MAX]);

/* base64(sha1(text)) with its NUL. */
#define ZK_DIGEST_MAX 29
void zk_digest(struct coord_bytes text, char ret[ZK_DIGEST_MAX]);
/* "USER:base64(sha1("USER:PASSWORD"))", what ZooKeeper's digest ACLs name; allocated. */
char *zk_digest_id(const char *user, const char *password);

#endif
