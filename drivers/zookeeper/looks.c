/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who holds what, and breaking it. The names of the contenders say who holds, the first one's node says
 * under which member id and since when.
 */
#include <stdio.h>

#include "drivers/zookeeper/session.h"

enum { LOOKS_MAX = 100, DIRS_MAX = 200 * 1000 };

/* ---- Contenders ---- */

static int by_seq(const void *a, const void *b)
{
	const struct zk_candidate *one = a, *two = b;
	return strcmp(one->seq, two->seq);
}

int zk_candidates(const struct String_vector *children, struct zk_candidate **ret,
	size_t *ret_holders, size_t *ret_all)
{
	size_t count = children->count > 0 ? (size_t)children->count : 0, len = 0, holders = 0;
	struct zk_candidate *list = calloc(count + 1, sizeof(*list));
	if (!list)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++)
		if (zk_candidate_parse(children->data[i], &list[len]))
			len++;
	qsort(list, len, sizeof(*list), by_seq);
	if (len && !list[0].shared)
		holders = 1;
	else
		while (holders < len && list[holders].shared)
			holders++;
	*ret = list;
	*ret_holders = holders;
	*ret_all = len;
	return 0;
}

static int child_path(char ret[ZK_PATH_MAX], const char *dir, const char *name)
{
	int len = snprintf(ret, ZK_PATH_MAX, "%s/%s", dir, name);
	return len < ZK_PATH_MAX ? 0 : -ENAMETOOLONG;
}

/* The row of a lock from its first holder's node; name is what the caller shows it under. */
static int lock_row(struct zk_req *req, struct coord_bytes name, bool leader)
{
	struct coord_op *op = req->op;
	struct zk_candidate candidate;
	const char *node = strrchr(req->path, '/') + 1;
	if (!zk_candidate_parse(node, &candidate))
		return 0;
	struct coord_row *row = coord_op_row(op);
	struct coord_bytes id = req->data.len <= ZK_NAME_MAX ? req->data : COORD_BYTES("");
	if (!row)
		return -ENOMEM;
	if (leader && id.len == 0)
		row->flags |= COORD_ROW_NO_ID;
	row->name = coord_op_copy(op, name.data, name.len);
	row->data = coord_op_copy(op, id.data, id.len);
	row->mode = candidate.shared ? COORD_SHARED : COORD_EXCLUSIVE;
	memcpy(row->owner, candidate.owner, sizeof(row->owner));
	row->token = (uint64_t)req->stat->czxid;
	row->created_us = req->stat->ctime > 0 ? (uint64_t)req->stat->ctime * 1000 : 0;
	row->holders = req->user ? (uint32_t)(uintptr_t)req->user : 1;
	return row->name.data && row->data.data ? 0 : -ENOMEM;
}

/* ---- One lock ---- */

static void read_listed(struct zk_req *req);

static void read_again(struct coord_op *op)
{
	struct zk_op *zo = zk_op_of(op);
	bool watch = op->flags & COORD_OP_WATCH;
	if (zo->tries++ >= LOOKS_MAX)
		zk_answer(op, -ETIMEDOUT, COORD_SENT_NO);
	else
		zk_failed(op, zk_children(zo->zs, op, zo->path, watch, read_listed, NULL));
}

static void read_holder(struct zk_req *req)
{
	struct coord_op *op = req->op;
	if (req->rc == ZNONODE)
		read_again(op); /* it let go in between */
	else if (req->rc != ZOK)
		zk_answer_rc(op, req->rc);
	else
		zk_answer(op, lock_row(req, op->key.name, op->key.kind == COORD_LEADER),
			COORD_SENT_ANSWERED);
}

static void read_missing(struct zk_req *req)
{
	struct coord_op *op = req->op;
	if (req->rc == ZOK)
		read_again(op);
	else if (req->rc == ZNONODE)
		zk_answer(op, 0, COORD_SENT_ANSWERED);
	else
		zk_answer_rc(op, req->rc);
}

static void read_listed(struct zk_req *req)
{
	struct coord_op *op = req->op;
	struct zk_session *zs = req->zs;
	_cleanup_free_ struct zk_candidate *list = NULL;
	size_t holders, all;
	char path[ZK_PATH_MAX];
	if (req->rc == ZNONODE && (op->flags & COORD_OP_WATCH)) {
		zk_failed(op, zk_exists(zs, op, req->path, true, read_missing, NULL));
		return;
	}
	if (req->rc != ZOK) {
		if (req->rc == ZNONODE)
			zk_answer(op, 0, COORD_SENT_ANSWERED);
		else
			zk_answer_rc(op, req->rc);
		return;
	}
	int r = zk_candidates(req->children, &list, &holders, &all);
	if (!r && holders)
		r = child_path(path, req->path, list[0].name);
	if (!r && holders)
		r = zk_get(zs, op, path, false, read_holder, (void *)(uintptr_t)holders);
	if (!zk_failed(op, r) && !holders)
		zk_answer(op, 0, COORD_SENT_ANSWERED);
}

void zk_lock_read(struct coord_session *session, struct coord_op *op)
{
	struct zk_session *zs = zk_of(session);
	if (!zk_op_begin(session, op))
		return;
	struct zk_op *zo = zk_op_of(op);
	zk_path(zs->root, op->key, zo->path);
	if (op->flags & COORD_OP_WATCH) {
		struct zk_watch *watch = zk_watch_get(zs, op->key, false);
		if (zk_failed(op, watch ? zk_watch_node(watch, zo->path) : -ENOMEM))
			return;
	}
	read_again(op);
}

/* ---- All locks ---- */

/* left counts requests under way; the last one's answer ends the op. */
static void list_step(struct coord_op *op, int r)
{
	struct zk_op *zo = zk_op_of(op);
	if (r && zo->status == 0) {
		zo->status = r;
		zo->sent = COORD_SENT_NO;
	}
	if (--zo->left == 0)
		zk_answer(op, zo->status, zo->status ? zo->sent : COORD_SENT_ANSWERED);
}

static int list_rc(int rc)
{
	enum coord_sent sent;
	return rc == ZNONODE ? 0 : zk_error(rc, &sent);
}

/* The name that a lock's directory stands for; empty: none. */
static struct coord_bytes list_name(struct zk_session *zs, enum coord_kind kind, const char *dir)
{
	struct coord_bytes name = coord_bytes_of(dir + strlen(zs->root) + 1);
	size_t skip = kind == COORD_LOCK ? strlen("locks/") : 0;
	size_t tail = kind == COORD_LEADER ? strlen("/leader") : 0;
	if (name.len < skip + tail)
		return (struct coord_bytes){0};
	return (struct coord_bytes){name.data + skip, name.len - skip - tail};
}

static void list_holder(struct zk_req *req)
{
	struct coord_op *op = req->op;
	struct zk_session *zs = req->zs;
	int r = list_rc(req->rc);
	if (req->rc == ZOK) {
		char dir[ZK_PATH_MAX];
		strcpy(dir, req->path);
		*strrchr(dir, '/') = '\0';
		r = lock_row(req, list_name(zs, op->key.kind, dir), op->key.kind == COORD_LEADER);
	}
	list_step(op, r);
}

static void list_dir(struct zk_req *req);

/* Directories below a lock's are those of names with slashes. */
static int list_below(struct zk_req *req)
{
	struct coord_op *op = req->op;
	struct zk_op *zo = zk_op_of(op);
	struct zk_candidate candidate;
	char path[ZK_PATH_MAX];
	for (int32_t i = 0; i < req->children->count; i++) {
		if (zk_candidate_parse(req->children->data[i], &candidate) ||
			child_path(path, req->path, req->children->data[i]))
			continue;
		if (zk_name_check(COORD_LOCK, list_name(req->zs, COORD_LOCK, path)))
			continue;
		if (zo->tries++ >= DIRS_MAX)
			return -EFBIG;
		int r = zk_children(req->zs, op, path, false, list_dir, NULL);
		if (r)
			return r;
		zo->left++;
	}
	return 0;
}

static void list_dir(struct zk_req *req)
{
	struct coord_op *op = req->op;
	struct zk_op *zo = zk_op_of(op);
	_cleanup_free_ struct zk_candidate *list = NULL;
	size_t holders = 0, all;
	char path[ZK_PATH_MAX];
	int r = list_rc(req->rc);
	if (req->rc == ZOK)
		r = zk_candidates(req->children, &list, &holders, &all);
	if (!r && holders && child_path(path, req->path, list[0].name) == 0) {
		r = zk_get(req->zs, op, path, false, list_holder, (void *)(uintptr_t)holders);
		zo->left += r == 0;
	}
	if (!r && req->rc == ZOK && op->key.kind == COORD_LOCK)
		r = list_below(req);
	list_step(op, r);
}

static void list_groups(struct zk_req *req)
{
	struct coord_op *op = req->op;
	struct zk_op *zo = zk_op_of(op);
	char path[ZK_PATH_MAX];
	int r = list_rc(req->rc);
	for (int32_t i = 0; !r && req->rc == ZOK && i < req->children->count; i++) {
		struct coord_key key = {COORD_LEADER, coord_bytes_of(req->children->data[i])};
		if (zk_name_check(COORD_LEADER, key.name))
			continue;
		zk_path(req->zs->root, key, path);
		r = zk_children(req->zs, op, path, false, list_dir, NULL);
		zo->left += r == 0;
	}
	list_step(op, r);
}

void zk_lock_list(struct coord_session *session, struct coord_op *op)
{
	struct zk_session *zs = zk_of(session);
	if (!zk_op_begin(session, op))
		return;
	struct zk_op *zo = zk_op_of(op);
	bool leaders = op->key.kind == COORD_LEADER;
	zo->left = 1;
	snprintf(zo->path, sizeof(zo->path), "%s%s", zs->root, leaders ? "" : "/locks");
	zk_failed(op, zk_children(zs, op, zo->path, false, leaders ? list_groups : list_dir, NULL));
}

/* ---- Breaking ---- */

static void broken(struct zk_req *req)
{
	struct coord_op *op = req->op;
	struct zk_op *zo = zk_op_of(op);
	if (req->rc != ZOK && req->rc != ZNONODE && zo->status == 0)
		zo->status = zk_error(req->rc, &zo->sent);
	if (--zo->left == 0)
		zk_answer(op, zo->status, zo->status ? zo->sent : COORD_SENT_ANSWERED);
}

static void break_listed(struct zk_req *req)
{
	struct coord_op *op = req->op;
	struct zk_op *zo = zk_op_of(op);
	_cleanup_free_ struct zk_candidate *list = NULL;
	size_t holders = 0, all;
	char path[ZK_PATH_MAX];
	int r = 0;
	if (req->rc == ZOK)
		r = zk_candidates(req->children, &list, &holders, &all);
	if (req->rc != ZOK && req->rc != ZNONODE) {
		zk_answer_rc(op, req->rc);
		return;
	}
	if (!r && holders == 0) {
		zk_answer(op, -ENOENT, COORD_SENT_ANSWERED);
		return;
	}
	zo->left = (unsigned)holders;
	for (size_t i = 0; !r && i < holders; i++) {
		r = child_path(path, req->path, list[i].name);
		if (!r)
			r = zk_delete(req->zs, op, path, -1, broken, NULL);
	}
	zk_failed(op, r);
}

void zk_lock_break(struct coord_session *session, struct coord_op *op)
{
	struct zk_session *zs = zk_of(session);
	if (!zk_op_begin(session, op))
		return;
	struct zk_op *zo = zk_op_of(op);
	zk_path(zs->root, op->key, zo->path);
	if (!zk_failed(op, zk_sync(zs, op, zo->path, zk_ignore, NULL)))
		zk_failed(op, zk_children(zs, op, zo->path, false, break_listed, NULL));
}
