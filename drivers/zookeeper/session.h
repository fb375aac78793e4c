/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the driver's files share: the session, ops, grants.
 *
 *   zookeeper.c  the vtable, options
 *   hosts.c      host lists, resolved off the loop
 *   conn.c       the client library on the loop
 *   screen.c     looks at what a server says before the library does
 *   request.c    its requests and error codes
 *   open.c       from the host names to the claim on the member id
 *   takeover.c   ends sessions that a dead process left
 *   session.c    ops, grants, renew, close
 *   locks.c      contenders: acquire, release, check
 *   looks.c      who holds what; breaking
 *   groups.c, members.c
 *   watch.c      watches
 *   paths.c, digest.c, frames.c  pure functions
 */
#ifndef ZK_SESSION_H
#define ZK_SESSION_H

#include "coord/table.h"
#include "drivers/zookeeper/conn.h"
#include "drivers/zookeeper/hosts.h"
#include "drivers/zookeeper/paths.h"
#include "drivers/zookeeper/request.h"
#include "drivers/zookeeper/watch.h"

enum {
	ZK_VALUE_MAX =
		1045000, /* the whole request may have 1 MiB less one, two paths and an ACL in it */
	ZK_STALE_MAX = 32,
	ZK_GUARD_MS =
		20, /* a new node of ours is watched after so long: most locks are gone by then */
	ZK_RETELL_MS = 1000,
};

struct zk_session {
	struct coord_session *session;
	struct coord_loop *loop;
	uint64_t requests; /* sent */
	char root[ZK_ROOT_MAX];
	struct zk_hosts hosts;
	char *auth; /* "user:password", NULL: none */
	char *acl_id;
	struct ACL acl_entry;
	struct ACL_vector acl;
	/* Of the epoch. */
	struct zk_conn *conn;
	uint32_t epoch;
	bool open, claimed;
	bool warned_ttl; /* of sessions that are shorter than was asked for */
	bool doubted; /* the claim looked like another's once */
	int64_t sid;
	uint64_t ttl_ms;
	uint64_t
		confirmed_ms; /* when the last request left that showed the session alive at the leader */
	int64_t stale
		[ZK_STALE_MAX]; /* sessions that ended: our older ones, and those we took over from */
	unsigned stale_next;
	struct coord_list ops; /* running, by op->link */
	struct coord_list grants; /* struct zk_grant that may have a node */
	struct coord_list unguarded; /* those whose node is not watched yet */
	struct coord_timer guard;
	struct coord_table points, watches; /* watch.c */
	struct coord_list all_watches;
	size_t paths_len; /* bytes of all paths that are watched */
	struct coord_timer retell; /* who shares what others wait for is told so each second */
	/* While it opens. */
	struct coord_op *open_op;
	struct coord_timer open_timer;
	struct zk_resolving *resolving;
	struct zk_takeover *takeover;
	char *addresses; /* numeric, of the last resolution */
	/* While it closes. */
	struct zk_closing *closing;
};

static inline struct zk_session *zk_of(struct coord_session *session)
{
	return coord_session_data(session);
}

/* The scratch of an op. */
struct zk_op {
	struct zk_session *zs;
	struct coord_op *op;
	struct coord_list reqs; /* outstanding */
	unsigned left; /* answers of a step that are still to come */
	unsigned tries;
	int status; /* the first that went wrong */
	enum coord_sent sent;
	uint64_t sent_ms;
	bool cancelled, parked, waited; /* locks.c */
	bool no_root, no_claims, took_over; /* open.c */
	struct zk_interest interest;
	struct coord_row *leader; /* groups.c */
	char path[ZK_PATH_MAX];
};

static inline struct zk_op *zk_op_of(struct coord_op *op)
{
	return coord_op_data(op);
}

/* Every call but open and close begins with it. False: the op is answered, there is no session. */
bool zk_op_begin(struct coord_session *, struct coord_op *);
/* Answers; what is outstanding for it is nobody's any more. */
void zk_answer(struct coord_op *, int status, enum coord_sent);
/* By the library's code. */
void zk_answer_rc(struct coord_op *, int rc);
/* A request could not be made (0: it could). Returns true if the op is answered thereby. */
bool zk_failed(struct coord_op *, int r);
/* Requests under way for the op are orphaned. */
void zk_op_forget(struct coord_op *);

/* The scratch of a grant: a contender or a member, whose node is ours while it exists. */
enum zk_node_state { ZK_NODE_NONE, ZK_NODE_MAYBE, ZK_NODE_THERE };
struct zk_grant {
	struct zk_session *zs;
	struct coord_grant *grant;
	struct coord_list link; /* zs->grants */
	struct coord_list guard_link; /* zs->unguarded */
	enum zk_node_state state;
	bool held; /* granted, or joined */
	bool guarded; /* a watch is on the node, and was not told anything */
	bool contended; /* told so, and to be told again */
	bool confirmed; /* by the keep-alive that is under way */
	bool doubted; /* its node looked like another's once */
	uint64_t czxid;
	struct zk_interest self, queue; /* the node; the directory, while it is shared */
	char seq[12]; /* of a contender */
};

static inline struct zk_grant *zk_grant_of(struct coord_grant *grant)
{
	return coord_grant_data(grant);
}

/* Links the grant before its node may come to be. */
void zk_grant_begin(struct zk_session *, struct coord_grant *);
/* It is ours now: remembers it, and watches it soon. */
void zk_grant_held(struct zk_grant *, uint64_t czxid);
/* There is no node of it any more. */
void zk_grant_end(struct zk_grant *);
/* Where its node is. */
void zk_grant_path(const struct zk_grant *, char ret[ZK_PATH_MAX]);
/* Its node is gone, and not by us. */
void zk_grant_gone(struct zk_grant *);
void zk_grant_done(struct coord_session *, struct coord_grant *);

/* Ends a session that nobody uses any more, given its password, after so long; then calls fn. -errno: it does
 * not. */
int zk_takeover(struct zk_session *, int64_t sid, const char password[16], uint64_t after_ms,
	void (*fn)(struct zk_session *));
/* fn will not be called. */
void zk_takeover_drop(struct zk_session *);
/* Waits for its end. */
void zk_takeover_end(struct zk_session *);

/* Did the session that owns an ephemeral node end, as we know? */
bool zk_is_stale(const struct zk_session *, int64_t sid);

coord_driver_call zk_open, zk_close, zk_renew;
void zk_session_init(struct zk_session *);
/* The connection is back, in an open session. */
void zk_session_connected(struct zk_session *);
/* Ends everything of the epoch, and its session on the server; then the op is answered. */
void zk_session_close(struct zk_session *, struct coord_op *, int status);
/* Creates the nodes of a path that are not there, from the one after skip bytes on, in one trip. last gets the
 * answer for the last one. */
int zk_ensure(struct zk_session *, struct coord_op *, const char *path, size_t skip, zk_done *last,
	void *user);
void zk_session_free(struct coord_session *);

coord_driver_call zk_lock, zk_unlock, zk_lock_check;
void zk_cancel(struct coord_session *, struct coord_op *);
/* The connection is back: whoever waits looks again. */
void zk_locks_resume(struct zk_session *);
/* Is somebody waiting behind a shared grant of ours? */
void zk_queue_look(struct zk_grant *);
/* Looks again at those that are contended. */
void zk_retell_later(struct zk_session *);

coord_driver_call zk_lock_read, zk_lock_list, zk_lock_break;
/* Those who hold, from the names of all children: the first *ret_len of the sorted array; freed by the
 * caller. *ret_all: how many contend. -ENOMEM. */
int zk_candidates(const struct String_vector *, struct zk_candidate **ret, size_t *ret_holders,
	size_t *ret_all);

coord_driver_call zk_group_create, zk_group_delete, zk_group_list, zk_group_read;
coord_driver_call zk_member_join, zk_member_update, zk_member_leave, zk_member_get;
/* A row for a member or a leader from its node. */
void zk_row_stat(struct zk_session *, struct coord_row *, const char *path, const struct Stat *);

#endif
