/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Groups. A group is a node below the root, its members are its children, except "leader", the directory
 * of those who contend for the leadership.
 *
 * Reading is at most two trips: the names of the members and of the contenders together, then all
 * that is wanted of each of them.
 */
#include <stdio.h>

#include "drivers/zookeeper/session.h"

static bool copy_to(struct coord_op *op, struct coord_bytes from, struct coord_bytes *ret)
{
	*ret = coord_op_copy(op, from.data, from.len);
	return ret->data;
}

/* ---- Create, delete, list ---- */

static void group_made(struct zk_req *req);

static void root_made(struct zk_req *req)
{
	struct coord_op *op = req->op;
	struct zk_op *zo = zk_op_of(op);
	if (req->rc != ZOK && req->rc != ZNODEEXISTS)
		zk_answer_rc(op, req->rc);
	else
		zk_failed(op, zk_create(zo->zs, op, zo->path, (struct coord_bytes){0},
				      ZOO_PERSISTENT, group_made, NULL));
}

static void group_made(struct zk_req *req)
{
	struct coord_op *op = req->op;
	struct zk_op *zo = zk_op_of(op);
	if (req->rc == ZNONODE && zo->tries++ == 0)
		zk_failed(op, zk_ensure(zo->zs, op, zo->zs->root, 0, root_made, NULL));
	else
		zk_answer_rc(op, req->rc);
}

void zk_group_create(struct coord_session *session, struct coord_op *op)
{
	struct zk_session *zs = zk_of(session);
	if (!zk_op_begin(session, op))
		return;
	struct zk_op *zo = zk_op_of(op);
	zk_path(zs->root, op->key, zo->path);
	zk_failed(op, zk_create(zs, op, zo->path, (struct coord_bytes){0}, ZOO_PERSISTENT,
			      group_made, NULL));
}

static void deleted(struct zk_req *req);

/* What is in it? The directory of an election that nobody takes part in is no member. */
static void delete_listed(struct zk_req *req)
{
	struct coord_op *op = req->op;
	struct zk_op *zo = zk_op_of(op);
	if (req->rc != ZOK) {
		zk_answer_rc(op, req->rc);
		return;
	}
	for (int32_t i = 0; i < req->children->count; i++)
		if (strcmp(req->children->data[i], "leader") != 0) {
			zk_answer(op, -ENOTEMPTY, COORD_SENT_ANSWERED);
			return;
		}
	char path[ZK_PATH_MAX];
	zk_path(zo->zs->root, (struct coord_key){COORD_LEADER, op->key.name}, path);
	/* Both or neither: somebody may come in between, to lead or to join. */
	zk_failed(op, zk_delete_both(zo->zs, op, path, zo->path, deleted, NULL));
}

static void deleted(struct zk_req *req)
{
	struct coord_op *op = req->op;
	struct zk_op *zo = zk_op_of(op);
	if (req->rc == ZNOTEMPTY && zo->tries++ == 0)
		zk_failed(op, zk_children(zo->zs, op, zo->path, false, delete_listed, NULL));
	else
		zk_answer_rc(op, req->rc);
}

void zk_group_delete(struct coord_session *session, struct coord_op *op)
{
	struct zk_session *zs = zk_of(session);
	if (!zk_op_begin(session, op))
		return;
	struct zk_op *zo = zk_op_of(op);
	zk_path(zs->root, op->key, zo->path);
	zk_failed(op, zk_delete(zs, op, zo->path, -1, deleted, NULL));
}

static void groups_listed(struct zk_req *req)
{
	struct coord_op *op = req->op;
	if (req->rc != ZOK && req->rc != ZNONODE) {
		zk_answer_rc(op, req->rc);
		return;
	}
	for (int32_t i = 0; req->rc == ZOK && i < req->children->count; i++) {
		struct coord_bytes name = coord_bytes_of(req->children->data[i]);
		if (zk_name_check(COORD_GROUP, name))
			continue;
		struct coord_row *row = coord_op_row(op);
		if (!row || !copy_to(op, name, &row->name)) {
			zk_answer(op, -ENOMEM, COORD_SENT_ANSWERED);
			return;
		}
	}
	zk_answer(op, 0, COORD_SENT_ANSWERED);
}

void zk_group_list(struct coord_session *session, struct coord_op *op)
{
	struct zk_session *zs = zk_of(session);
	if (zk_op_begin(session, op))
		zk_failed(op, zk_children(zs, op, zs->root, false, groups_listed, NULL));
}

/* ---- Read ---- */

static void read_step(struct coord_op *op, int status, enum coord_sent sent)
{
	struct zk_op *zo = zk_op_of(op);
	if (status && zo->status == 0) {
		zo->status = status;
		zo->sent = sent;
	}
	if (--zo->left > 0)
		return;
	/* Members that left in between have no row: theirs was made before, and has no name. */
	struct coord_row **at = &op->rows;
	while (*at) {
		if ((*at)->name.len == 0 && !((*at)->flags & COORD_ROW_NO_ID)) {
			*at = (*at)->next;
			op->rows_len--;
		} else {
			at = &(*at)->next;
		}
	}
	op->rows_end = at;
	zk_answer(op, zo->status, zo->status ? zo->sent : COORD_SENT_ANSWERED);
}

static void read_failed(struct coord_op *op, int rc)
{
	enum coord_sent sent;
	int status = zk_error(rc, &sent);
	read_step(op, status, COORD_SENT_NO);
}

void zk_row_stat(
	struct zk_session *zs, struct coord_row *row, const char *path, const struct Stat *stat)
{
	row->born = (uint64_t)stat->czxid;
	row->version = (uint64_t)(uint32_t)stat->version + 1;
	row->created_us = stat->ctime > 0 ? (uint64_t)stat->ctime * 1000 : 0;
	row->updated_us = stat->mtime > 0 ? (uint64_t)stat->mtime * 1000 : 0;
	if (stat->ephemeralOwner != zs->sid)
		return;
	/* Ours: the grant's owner value stands for it. */
	struct coord_bytes member = coord_bytes_of(strrchr(path, '/') + 1);
	struct zk_grant *zg;
	coord_list_each (zg, &zs->grants, link) {
		char own[ZK_PATH_MAX];
		if (zg->grant->key.kind != COORD_MEMBER || zg->state == ZK_NODE_NONE ||
			!coord_bytes_equal(zg->grant->member, member))
			continue;
		zk_grant_path(zg, own);
		if (strcmp(own, path) != 0)
			continue;
		memcpy(row->owner, zg->grant->owner, sizeof(row->owner));
		if (zg->state == ZK_NODE_MAYBE) /* a join whose answer was lost */
			zk_grant_held(zg, (uint64_t)stat->czxid);
		return;
	}
}

static void member_read(struct zk_req *req)
{
	struct coord_op *op = req->op;
	struct coord_row *row = req->user;
	int r = 0;
	if (req->rc == ZNONODE) {
		row->name.len = 0;
	} else if (req->rc != ZOK) {
		read_failed(op, req->rc);
		return;
	} else {
		zk_row_stat(req->zs, row, req->path, req->stat);
		if (req->data.len > ZK_VALUE_MAX)
			row->flags |= COORD_ROW_BAD_DATA;
		else if ((op->flags & COORD_OP_WITH_DATA) && !copy_to(op, req->data, &row->data))
			r = -ENOMEM;
	}
	read_step(op, r, COORD_SENT_ANSWERED);
}

static void member_seen(struct zk_req *req)
{
	struct coord_op *op = req->op;
	struct coord_row *row = req->user;
	if (req->rc == ZNONODE) {
		row->name.len = 0;
	} else if (req->rc != ZOK) {
		read_failed(op, req->rc);
		return;
	} else {
		zk_row_stat(req->zs, row, req->path, req->stat);
	}
	read_step(op, 0, COORD_SENT_ANSWERED);
}

/* One member: with data by a get, else, to arm its watch, by an exists; or nothing more at all. */
static int member_ask(struct coord_op *op, struct coord_row *row)
{
	struct zk_op *zo = zk_op_of(op);
	struct zk_session *zs = zo->zs;
	bool watch = op->flags & COORD_OP_WATCH, data = op->flags & COORD_OP_WITH_DATA;
	char path[ZK_PATH_MAX];
	if (!watch && !data)
		return 0;
	zk_path_member(zs->root, op->key.name, row->name, path);
	if (watch) {
		struct zk_watch *armed = zk_watch_find(zs, op->key);
		int r = armed ? zk_watch_node(armed, path) : 0;
		if (r)
			return r;
	}
	int r = data ? zk_get(zs, op, path, watch, member_read, row)
		     : zk_exists(zs, op, path, watch, member_seen, row);
	zo->left += r == 0;
	return r;
}

static void members_listed(struct zk_req *req)
{
	struct coord_op *op = req->op;
	int r = 0;
	if (req->rc != ZOK) {
		read_failed(op, req->rc);
		return;
	}
	for (int32_t i = 0; !r && i < req->children->count; i++) {
		struct coord_bytes name = coord_bytes_of(req->children->data[i]);
		if (zk_name_check(COORD_MEMBER, name))
			continue;
		struct coord_row *row = coord_op_row(op);
		r = row && copy_to(op, name, &row->name) ? member_ask(op, row) : -ENOMEM;
	}
	read_step(op, r, COORD_SENT_ANSWERED);
}

static void leader_listed(struct zk_req *req);

static void leader_read(struct zk_req *req)
{
	struct coord_op *op = req->op;
	struct zk_op *zo = zk_op_of(op);
	struct zk_candidate candidate;
	if (req->rc == ZNONODE && zo->tries++ < 16) {
		/* It stood down: who is next? */
		char dir[ZK_PATH_MAX];
		strcpy(dir, req->path);
		*strrchr(dir, '/') = '\0';
		int r = zk_children(
			req->zs, op, dir, op->flags & COORD_OP_WATCH, leader_listed, NULL);
		if (r)
			read_step(op, r, COORD_SENT_NO);
		return;
	}
	if (req->rc != ZOK) {
		read_failed(op, req->rc == ZNONODE ? ZOK : req->rc);
		return;
	}
	struct coord_row *row = coord_op_row(op);
	struct coord_bytes id = req->data.len <= ZK_NAME_MAX ? req->data : COORD_BYTES("");
	if (!row || !copy_to(op, id, &row->name)) {
		read_step(op, -ENOMEM, COORD_SENT_ANSWERED);
		return;
	}
	row->flags = COORD_ROW_LEADER | (id.len ? 0 : COORD_ROW_NO_ID);
	row->mode = COORD_EXCLUSIVE;
	row->token = (uint64_t)req->stat->czxid;
	row->created_us = req->stat->ctime > 0 ? (uint64_t)req->stat->ctime * 1000 : 0;
	if (zk_candidate_parse(strrchr(req->path, '/') + 1, &candidate))
		memcpy(row->owner, candidate.owner, sizeof(row->owner));
	read_step(op, 0, COORD_SENT_ANSWERED);
}

static void leader_listed(struct zk_req *req)
{
	struct coord_op *op = req->op;
	_cleanup_free_ struct zk_candidate *list = NULL;
	size_t holders = 0, all;
	char path[2 * ZK_PATH_MAX];
	int r = 0;
	if (req->rc != ZOK && req->rc != ZNONODE) {
		read_failed(op, req->rc);
		return;
	}
	if (req->rc == ZOK)
		r = zk_candidates(req->children, &list, &holders, &all);
	if (!r && holders) {
		snprintf(path, sizeof(path), "%s/%s", req->path, list[0].name);
		r = strlen(path) < ZK_PATH_MAX ? zk_get(req->zs, op, path, false, leader_read, NULL)
					       : -EIO;
		if (!r)
			return; /* its answer is this step's */
	}
	read_step(op, r, COORD_SENT_NO);
}

static void group_seen(struct zk_req *req)
{
	zk_answer_rc(req->op, req->rc);
}

void zk_group_read(struct coord_session *session, struct coord_op *op)
{
	struct zk_session *zs = zk_of(session);
	if (!zk_op_begin(session, op))
		return;
	struct zk_op *zo = zk_op_of(op);
	bool watch = op->flags & COORD_OP_WATCH, bare = op->flags & COORD_OP_BARE;
	char leader[ZK_PATH_MAX];
	zk_path(zs->root, op->key, zo->path);
	zk_path(zs->root, (struct coord_key){COORD_LEADER, op->key.name}, leader);
	if (watch) {
		struct zk_watch *armed = zk_watch_get(zs, op->key, bare);
		int r = armed ? zk_watch_node(armed, zo->path) : -ENOMEM;
		if (!r && !bare)
			r = zk_watch_node(armed, leader);
		if (zk_failed(op, r))
			return;
	}
	if (bare) {
		/* Not exists: that would leave a watch for each name that is not there. */
		zk_failed(op, zk_get(zs, op, zo->path, watch, group_seen, NULL));
		return;
	}
	zo->left = 2;
	if (!zk_failed(op, zk_children(zs, op, zo->path, watch, members_listed, NULL)))
		zk_failed(op, zk_children(zs, op, leader, watch, leader_listed, NULL));
}
