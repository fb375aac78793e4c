/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One handle of the ZooKeeper client library (the one without threads) on the loop, from its first
 * connection attempt to the end of its session. The library reconnects by itself within the session.
 */
#ifndef ZK_CONN_H
#define ZK_CONN_H

#include <zookeeper/zookeeper.h>

#include "coord/loop.h"

/* What a connection tells, on the loop. All but ended come from inside the library, where a connection may
 * be stopped but not freed. None comes after zk_conn_stop. */
struct zk_conn_events {
	void (*connected)(void *user);
	void (*disconnected)(void *user);
	void (*ended)(void *user, bool auth_failed); /* expired or refused: the handle is dead */
	void (*node)(void *user, const char *path); /* a watch fired */
};

struct zk_conn {
	zhandle_t *zh;
	struct coord_loop *loop;
	struct uv_poll_s *poll;
	int fd, polled; /* polled: the events asked for, 0: none */
	int state; /* the library's, when it was last asked */
	struct coord_timer timer, stall;
	uint64_t patience_ms, patience_least_ms;
	struct coord_task kick, verdict;
	const struct zk_conn_events *events;
	void *user;
	bool connected, dead, failed;
	bool was_reset; /* the present connection ends by our doing */
	bool auth; /* the library tells servers a user and a password */
	bool admitted; /* the library may read on, up to the end of a frame */
	int low_water; /* of the socket: bytes that wake us */
	unsigned hasty; /* how many attempts in a row were soon followed by the next */
	uint64_t tried_ms, try_ms; /* the last one; none before that */
	uint64_t handshake_ms; /* just before the connection request that succeeded left */
	struct coord_list reqs; /* struct zk_req, outstanding */
};

/* addresses: numeric, "ip:port,ip:port". Returns 0 or -errno. */
int zk_conn_new(struct coord_loop *, const char *addresses, int timeout_ms, bool in_order,
	const struct zk_conn_events *, void *user, struct zk_conn **ret);
/* After the library was given something to send. */
void zk_conn_kick(struct zk_conn *);
/* An answer is due: if it does not come in time, another server is tried. Calm: it came. While there is no
 * connection the same holds for each attempt. */
void zk_conn_expect(struct zk_conn *);
void zk_conn_calm(struct zk_conn *);
/* Goes to the next server, in the same session. */
void zk_conn_reset(struct zk_conn *);
/* The same at once, because of what this one says. Nothing of it is read any more. */
void zk_conn_refuse(struct zk_conn *, const char *what);
/* For the library's node watches; the context is the connection. */
void zk_conn_watch(zhandle_t *, int type, int state, const char *path, void *context);
/* Why there is no connection, or not the last one: address and reason, for a human; "": not known. On the loop. */
const char *zk_conn_words(void);
/* The library's log. Any thread. */
void zk_conn_log(const char *message);
/* Stops everything that runs on the loop. What is outstanding is answered by the free alone. */
void zk_conn_stop(struct zk_conn *);
/* Ends the session, which may block for seconds while connected, and frees. On any thread, after stop. */
void zk_conn_free(struct zk_conn *);

#endif
