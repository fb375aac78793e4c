/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests: one call of the library each, on behalf of an op or of the driver itself. The answer calls
 * done once, on the loop, and the request is freed after it; requests of an op that was answered
 * meanwhile, or of a session that ended, are freed without.
 */
#ifndef ZK_REQUEST_H
#define ZK_REQUEST_H

#include <zookeeper/zookeeper.h>

#include "coord/driver.h"
#include "drivers/zookeeper/frames.h"

struct zk_session;
struct zk_conn;

struct zk_req {
	struct coord_list link; /* the connection's */
	struct coord_list op_link; /* the op's */
	struct zk_conn *conn;
	struct zk_session *zs;
	struct coord_op *op; /* NULL: the driver's own */
	bool orphan; /* nobody waits for it any more */
	void (*done)(struct zk_req *);
	void *user;
	enum zk_reply reply; /* what kind of answer is due */
	uint64_t sent_ms;
	/* The answer; everything is the library's, for the time of done. */
	int rc;
	const struct Stat *stat;
	const struct String_vector *children;
	const char *created; /* the path of a node that was created */
	struct coord_bytes data;
	/* A multi: the library wants these until it answers. */
	zoo_op_t ops[2];
	zoo_op_result_t results[2];
	char buffer[8];
	char *value; /* a copy of what a multi creates, or of its second path */
	char path[];
};

typedef void zk_done(struct zk_req *);

/* Each returns 0, or -errno if nothing was sent and done will not be called. op may be NULL. */
int zk_create(struct zk_session *, struct coord_op *, const char *path, struct coord_bytes data,
	int mode, zk_done *, void *user);
int zk_delete(struct zk_session *, struct coord_op *, const char *path, int version, zk_done *,
	void *user);
/* watch: the session's watch on the node, if there is an interest in it; see watch.h. */
int zk_get(struct zk_session *, struct coord_op *, const char *path, bool watch, zk_done *,
	void *user);
int zk_exists(struct zk_session *, struct coord_op *, const char *path, bool watch, zk_done *,
	void *user);
int zk_children(struct zk_session *, struct coord_op *, const char *path, bool watch, zk_done *,
	void *user);
int zk_set(struct zk_session *, struct coord_op *, const char *path, struct coord_bytes data,
	int version, zk_done *, void *user);
int zk_sync(struct zk_session *, struct coord_op *, const char *path, zk_done *, void *user);
/* Is the node there? Asked of a majority: a transaction that changes nothing, which a leader that was deposed
 * cannot carry out. ZNONODE. */
int zk_confirm(struct zk_session *, struct coord_op *, const char *path, zk_done *, void *user);
/* At once, or not at all: deletes that version of an ephemeral node and creates it as ours. */
int zk_replace(struct zk_session *, struct coord_op *, const char *path, int version,
	struct coord_bytes data, zk_done *, void *user);

/* At once, or not at all: deletes a node and the one that it lies in. */
int zk_delete_both(struct zk_session *, struct coord_op *, const char *path, const char *parent,
	zk_done *, void *user);

/* The watches on a node that nobody is interested in any more, which may never fire, end. */
void zk_watch_remove(struct zk_session *, const char *path);

/* done for requests whose answer does not matter. */
void zk_ignore(struct zk_req *);

/* A code of the library: -errno, and what it says about whether the request was carried out. */
int zk_error(int rc, enum coord_sent *ret_sent);

/* Frees those that the library has forgotten. */
void zk_reqs_free(struct zk_conn *);

#endif
