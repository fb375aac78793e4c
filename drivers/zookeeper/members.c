/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Members: an ephemeral node in the group's, its data the capabilities, as Python's driver makes it. Ours
 * are told apart by the zxid that created them, and by the session that owns them.
 */
#include "drivers/zookeeper/session.h"

enum { TRIES_MAX = 8 };

/* ---- Joining ---- */

static void join_send(struct coord_op *op);

static void join_end(struct coord_op *op, const struct Stat *stat)
{
	struct zk_op *zo = zk_op_of(op);
	zk_grant_held(zk_grant_of(op->grant), (uint64_t)stat->czxid);
	op->sent_ms = zo->zs->confirmed_ms;
	op->ttl_ms = zo->zs->ttl_ms;
	zk_answer(op, 0, COORD_SENT_ANSWERED);
}

static void join_replaced(struct zk_req *req);

/* The name is taken. By a session of ours that ended, or one whose claim we took over, or by this one in an
 * attempt whose answer was lost: replaced. */
static void join_taken(struct zk_req *req)
{
	struct coord_op *op = req->op;
	struct zk_op *zo = zk_op_of(op);
	struct zk_session *zs = zo->zs;
	if (req->rc == ZNONODE && zo->tries++ < TRIES_MAX) {
		join_send(op);
		return;
	}
	if (req->rc != ZOK) {
		zk_answer_rc(op, req->rc);
		return;
	}
	int64_t sid = req->stat->ephemeralOwner;
	bool own = sid == zs->sid && (op->flags & COORD_OP_REPLACE_STALE);
	if (!own && !zk_is_stale(zs, sid)) {
		zk_grant_of(op->grant)->state = ZK_NODE_NONE;
		struct coord_row *row = coord_op_row(op);
		if (row)
			zk_row_stat(zs, row, req->path, req->stat);
		if (row)
			row->name = coord_op_copy(op, op->member.data, op->member.len);
		zk_answer(op, -EEXIST, COORD_SENT_ANSWERED);
		return;
	}
	int version = req->stat->version;
	if (!zk_failed(op, zk_replace(zs, op, zo->path, version, op->data, join_replaced, NULL)))
		zk_failed(op, zk_exists(zs, op, zo->path, false, join_replaced, op));
}

/* Two answers: of the replacement, and of the look at what it made. */
static void join_replaced(struct zk_req *req)
{
	struct coord_op *op = req->op;
	struct zk_op *zo = zk_op_of(op);
	bool changed = req->rc == ZNONODE || req->rc == ZBADVERSION || req->rc == ZNODEEXISTS;
	if (changed && zo->tries++ < TRIES_MAX) {
		zk_op_forget(op);
		join_send(op);
	} else if (req->rc != ZOK) {
		zk_answer_rc(op, req->rc);
	} else if (req->user && req->stat->ephemeralOwner == zo->zs->sid) {
		join_end(op, req->stat);
	} else if (req->user) {
		zk_answer(op, -EEXIST, COORD_SENT_ANSWERED);
	}
}

static void joined(struct zk_req *req)
{
	struct coord_op *op = req->op;
	struct zk_op *zo = zk_op_of(op);
	struct zk_grant *zg = zk_grant_of(op->grant);
	enum coord_sent sent;
	if (req->rc == ZOK && req->stat) {
		join_end(op, req->stat);
	} else if (req->rc == ZNODEEXISTS) {
		zk_failed(op, zk_exists(zo->zs, op, zo->path, false, join_taken, NULL));
	} else {
		zk_error(req->rc, &sent);
		if (sent != COORD_SENT_UNKNOWN)
			zg->state = ZK_NODE_NONE;
		zk_answer_rc(op, req->rc);
	}
}

static void join_send(struct coord_op *op)
{
	struct zk_op *zo = zk_op_of(op);
	zk_grant_of(op->grant)->state = ZK_NODE_MAYBE;
	zk_failed(op, zk_create(zo->zs, op, zo->path, op->data, ZOO_EPHEMERAL, joined, NULL));
}

void zk_member_join(struct coord_session *session, struct coord_op *op)
{
	struct zk_session *zs = zk_of(session);
	if (!zk_op_begin(session, op))
		return;
	zk_grant_begin(zs, op->grant);
	zk_path_member(zs->root, op->key.name, op->member, zk_op_of(op)->path);
	join_send(op);
}

/* ---- Changing ---- */

/* Is the node the one that the op is about? */
static bool is_meant(const struct coord_op *op, const struct Stat *stat)
{
	const struct zk_op *zo = zk_op_of((struct coord_op *)op);
	if (!op->grant)
		return op->flags & COORD_OP_ADOPT;
	const struct zk_grant *zg = zk_grant_of(op->grant);
	return zg->zs && zg->state != ZK_NODE_NONE && stat->ephemeralOwner == zo->zs->sid &&
	       (zg->czxid == 0 || zg->czxid == (uint64_t)stat->czxid);
}

static void change_seen(struct zk_req *req);

static void change_again(struct coord_op *op)
{
	struct zk_op *zo = zk_op_of(op);
	zk_failed(op, zk_exists(zo->zs, op, zo->path, false, change_seen, NULL));
}

static void changed(struct zk_req *req)
{
	struct coord_op *op = req->op;
	struct zk_op *zo = zk_op_of(op);
	if (req->rc == ZBADVERSION && zo->tries++ < TRIES_MAX) {
		change_again(op); /* written by another in between */
		return;
	}
	if (req->rc == ZOK && op->call == COORD_CALL_MEMBER_LEAVE && op->grant)
		zk_grant_end(zk_grant_of(op->grant));
	zk_answer_rc(op, req->rc);
}

static void change_seen(struct zk_req *req)
{
	struct coord_op *op = req->op;
	struct zk_op *zo = zk_op_of(op);
	if (req->rc != ZOK) {
		enum coord_sent sent;
		int status = zk_error(req->rc, &sent);
		bool read = sent == COORD_SENT_UNKNOWN;
		zk_answer(op, status, read && zo->tries == 0 ? COORD_SENT_NO : sent);
		return;
	}
	if (!is_meant(op, req->stat)) {
		zk_answer(op, -EPERM, COORD_SENT_ANSWERED);
		return;
	}
	int version = req->stat->version;
	if (op->call == COORD_CALL_MEMBER_UPDATE) {
		zk_failed(op, zk_set(zo->zs, op, zo->path, op->data, version, changed, NULL));
		return;
	}
	if (op->grant) {
		/* Its end is our doing. */
		struct zk_grant *zg = zk_grant_of(op->grant);
		zk_interest_drop(zo->zs, &zg->self);
	}
	zk_failed(op, zk_delete(zo->zs, op, zo->path, version, changed, NULL));
}

static void member_change(struct coord_session *session, struct coord_op *op)
{
	struct zk_session *zs = zk_of(session);
	if (!zk_op_begin(session, op))
		return;
	zk_path_member(zs->root, op->key.name, op->member, zk_op_of(op)->path);
	change_again(op);
}

void zk_member_update(struct coord_session *session, struct coord_op *op)
{
	member_change(session, op);
}

void zk_member_leave(struct coord_session *session, struct coord_op *op)
{
	member_change(session, op);
}

/* ---- Reading ---- */

static void member_got(struct zk_req *req)
{
	struct coord_op *op = req->op;
	if (req->rc != ZOK) {
		zk_answer_rc(op, req->rc);
		return;
	}
	struct coord_row *row = coord_op_row(op);
	if (row) {
		zk_row_stat(req->zs, row, req->path, req->stat);
		row->name = coord_op_copy(op, op->member.data, op->member.len);
		if (req->data.len > ZK_VALUE_MAX)
			row->flags |= COORD_ROW_BAD_DATA;
		else
			row->data = coord_op_copy(op, req->data.data, req->data.len);
	}
	zk_answer(op, row && row->name.data ? 0 : -ENOMEM, COORD_SENT_ANSWERED);
}

void zk_member_get(struct coord_session *session, struct coord_op *op)
{
	struct zk_session *zs = zk_of(session);
	if (!zk_op_begin(session, op))
		return;
	struct zk_op *zo = zk_op_of(op);
	zk_path_member(zs->root, op->key.name, op->member, zo->path);
	zk_failed(op, zk_get(zs, op, zo->path, false, member_got, NULL));
}
