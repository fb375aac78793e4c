/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Watches. The library gets one function and one context for all of them, so that arming the same node
 * twice is one watch and nothing of ours is held by it; who is interested in a node is kept here, by
 * path. A watch of ZooKeeper fires once: an interest ends when it is told.
 *
 * On a new connection the library names all that it watches in one request, which the server refuses, with
 * the connection, if it is longer than a mebibyte: so the paths together are kept below that.
 */
#ifndef ZK_WATCH_H
#define ZK_WATCH_H

#include "coord/driver.h"

struct zk_session;

struct zk_interest {
	struct coord_list link;
	struct zk_point *point; /* NULL: none */
	void (*fn)(struct zk_interest *);
};

/* Registers it, before the request that arms the watch is made; again on the same path: nothing. Returns 0,
 * -ENOMEM, or, unless it must be, -ENOSPC: there are too many. */
int zk_interest_add(struct zk_session *, struct zk_interest *, const char *path, bool must);
bool zk_is_interest(struct zk_session *, const char *path);
void zk_interest_drop(struct zk_session *, struct zk_interest *);
/* The library says that the node changed. */
void zk_interests_fire(struct zk_session *, const char *path);

/* What the core watches: a lock, a leader or a group. It is armed by who reads, again some time
 * after it fired, and until unwatch. */
struct zk_watch;
/* The watch of the op's key, about to be armed. A bare one concerns the existence of a group. NULL: no
 * memory. */
struct zk_watch *zk_watch_get(struct zk_session *, struct coord_key, bool bare);
/* The one that is armed already, or NULL. */
struct zk_watch *zk_watch_find(struct zk_session *, struct coord_key);
/* Adds the node to what the watch looks at. Where there are too many, the core is told again and again that
 * it may have changed. */
int zk_watch_node(struct zk_watch *, const char *path);
void zk_unwatch(struct coord_session *, struct coord_key);
/* All may have changed. */
void zk_watches_changed(struct zk_session *);
/* The session ended. */
void zk_watches_done(struct zk_session *);

#endif
