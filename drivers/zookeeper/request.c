/* SPDX-License-Identifier: Apache-2.0 */
/* Requests of the library, and its error codes. See request.h. */
#include "drivers/zookeeper/request.h"

#include "drivers/zookeeper/session.h"

/* ---- Errors ---- */

static const struct {
	int rc, status;
	enum coord_sent sent;
} errors[] = {
	{ZOK, 0, COORD_SENT_ANSWERED},
	{ZNONODE, -ENOENT, COORD_SENT_ANSWERED},
	{ZNODEEXISTS, -EEXIST, COORD_SENT_ANSWERED},
	{ZNOTEMPTY, -ENOTEMPTY, COORD_SENT_ANSWERED},
	{ZNOAUTH, -EACCES, COORD_SENT_ANSWERED},
	{ZINVALIDACL, -EACCES, COORD_SENT_ANSWERED},
	{ZBADVERSION, -EPERM, COORD_SENT_ANSWERED},
	{ZBADARGUMENTS, -EINVAL, COORD_SENT_ANSWERED},
	{ZNOCHILDRENFOREPHEMERALS, -EINVAL, COORD_SENT_ANSWERED},
	{ZNOTREADONLY, -EROFS, COORD_SENT_ANSWERED},
	{ZEPHEMERALONLOCALSESSION, -EOPNOTSUPP, COORD_SENT_ANSWERED},
	{ZUNIMPLEMENTED, -EOPNOTSUPP, COORD_SENT_ANSWERED},
	{ZDATAINCONSISTENCY, -EBADMSG, COORD_SENT_ANSWERED},
	{ZNOWATCHER, -ENOENT, COORD_SENT_ANSWERED},
	{-125, -ENOSPC, COORD_SENT_ANSWERED}, /* QUOTAEXCEEDED, of newer servers */
	/* Of these it is known that nothing was done. */
	{ZSESSIONMOVED, -EHOSTDOWN, COORD_SENT_NO},
	{ZTHROTTLEDOP, -EHOSTDOWN, COORD_SENT_NO},
	{ZINVALIDSTATE, -EHOSTDOWN, COORD_SENT_NO},
	{ZAUTHFAILED, -EACCES, COORD_SENT_UNKNOWN},
	/* Of these, nothing is known. */
	{ZCONNECTIONLOSS, -EHOSTDOWN, COORD_SENT_UNKNOWN},
	{ZOPERATIONTIMEOUT, -ETIMEDOUT, COORD_SENT_UNKNOWN},
	{ZSESSIONEXPIRED, -EHOSTDOWN, COORD_SENT_UNKNOWN},
	{ZCLOSING, -ECANCELED, COORD_SENT_UNKNOWN},
};

int zk_error(int rc, enum coord_sent *ret_sent)
{
	for (size_t i = 0; i < sizeof(errors) / sizeof(*errors); i++) {
		if (errors[i].rc != rc)
			continue;
		*ret_sent = errors[i].sent;
		return errors[i].status;
	}
	*ret_sent = COORD_SENT_UNKNOWN;
	return -EIO;
}

/* ---- Requests ---- */

static struct zk_req *req_new(struct zk_session *zs, struct coord_op *op, enum zk_reply reply,
	const char *path, zk_done *done, void *user)
{
	size_t len = strlen(path) + 1;
	struct zk_req *req = malloc(sizeof(*req) + len);
	if (!req)
		return NULL;
	*req = (struct zk_req){
		.conn = zs->conn, .zs = zs, .op = op, .done = done, .user = user, .reply = reply};
	memcpy(req->path, path, len);
	coord_list_init(&req->op_link);
	coord_list_add(&zs->conn->reqs, &req->link);
	if (op)
		coord_list_add(&zk_op_of(op)->reqs, &req->op_link);
	req->sent_ms = coord_now_ms(zs->loop);
	return req;
}

static void req_free(struct zk_req *req)
{
	coord_list_remove(&req->op_link);
	coord_list_remove(&req->link);
	free(req->value);
	free(req);
}

/* The library took it, or not. */
static int req_sent(struct zk_req *req, int rc)
{
	enum coord_sent sent;
	if (rc == ZOK) {
		req->zs->requests++;
		zk_conn_kick(req->conn);
		return 0;
	}
	req_free(req);
	return rc == ZBADARGUMENTS ? -EINVAL : zk_error(rc, &sent);
}

/* The answer, on the loop; or, while a session ends, on its worker, and then nobody hears of it. */
static void req_answer(struct zk_req *req, int rc)
{
	enum coord_sent sent;
	req->rc = rc;
	/* A code that no server gives: what comes over this connection cannot be relied upon. */
	if (!req->conn->dead && zk_error(rc, &sent) == -EIO) {
		zk_conn_refuse(req->conn, "answers with an error that no server has");
		req->rc = ZCONNECTIONLOSS;
	}
	if (!req->conn->dead && !req->orphan)
		req->done(req);
	req_free(req);
}

void zk_ignore(struct zk_req *req)
{
	(void)req;
}

void zk_reqs_free(struct zk_conn *conn)
{
	while (!coord_list_empty(&conn->reqs))
		req_free(coord_container(conn->reqs.next, struct zk_req, link));
}

static void on_void(int rc, const void *data)
{
	req_answer((struct zk_req *)data, rc);
}

static void on_stat(int rc, const struct Stat *stat, const void *data)
{
	struct zk_req *req = (struct zk_req *)data;
	req->stat = rc == ZOK ? stat : NULL;
	req_answer(req, rc);
}

static void on_data(int rc, const char *value, int len, const struct Stat *stat, const void *data)
{
	struct zk_req *req = (struct zk_req *)data;
	if (rc == ZOK) {
		req->stat = stat;
		req->data = (struct coord_bytes){value ? value : "", len > 0 ? (size_t)len : 0};
	}
	req_answer(req, rc);
}

static void on_children(int rc, const struct String_vector *strings, const void *data)
{
	struct zk_req *req = (struct zk_req *)data;
	/* Of a long list only the beginning was looked at, and the library hands out what it could not decode. */
	bool whole = rc == ZOK && strings->count >= 0 && (strings->count == 0 || strings->data);
	for (int32_t i = 0; whole && i < strings->count; i++)
		whole = strings->data[i] != NULL;
	req->children = whole ? strings : NULL;
	if (rc == ZOK && !whole) {
		if (!req->conn->dead)
			zk_conn_refuse(
				req->conn, "says what makes no sense (a list that ends early)");
		rc = ZCONNECTIONLOSS;
	}
	req_answer(req, rc);
}

static void on_created(int rc, const char *value, const struct Stat *stat, const void *data)
{
	struct zk_req *req = (struct zk_req *)data;
	req->created = rc == ZOK ? value : NULL;
	req->stat = rc == ZOK ? stat : NULL;
	req_answer(req, rc);
}

static void on_sync(int rc, const char *value, const void *data)
{
	(void)value;
	req_answer((struct zk_req *)data, rc);
}

static void on_multi(int rc, const void *data)
{
	struct zk_req *req = (struct zk_req *)data;
	/* All fail together: the cause is the first that has one of its own. */
	for (size_t i = 0; rc != ZOK && i < 2; i++)
		if (req->results[i].err != ZOK && req->results[i].err != ZRUNTIMEINCONSISTENCY) {
			rc = req->results[i].err;
			break;
		}
	req_answer(req, rc);
}

int zk_create(struct zk_session *zs, struct coord_op *op, const char *path, struct coord_bytes data,
	int mode, zk_done *done, void *user)
{
	struct zk_req *req = req_new(zs, op, ZK_REPLY_CREATED, path, done, user);
	if (!req)
		return -ENOMEM;
	return req_sent(req, zoo_acreate2(zs->conn->zh, req->path, data.len ? data.data : "",
				     (int)data.len, &zs->acl, mode, on_created, req));
}

int zk_delete(struct zk_session *zs, struct coord_op *op, const char *path, int version,
	zk_done *done, void *user)
{
	struct zk_req *req = req_new(zs, op, ZK_REPLY_NOTHING, path, done, user);
	if (!req)
		return -ENOMEM;
	return req_sent(req, zoo_adelete(zs->conn->zh, req->path, version, on_void, req));
}

/* Where no interest fitted in none is armed. */
static watcher_fn watcher(struct zk_req *req, bool watch)
{
	return watch && zk_is_interest(req->zs, req->path) ? zk_conn_watch : NULL;
}

int zk_get(struct zk_session *zs, struct coord_op *op, const char *path, bool watch, zk_done *done,
	void *user)
{
	struct zk_req *req = req_new(zs, op, ZK_REPLY_DATA, path, done, user);
	if (!req)
		return -ENOMEM;
	return req_sent(req,
		zoo_awget(zs->conn->zh, req->path, watcher(req, watch), zs->conn, on_data, req));
}

int zk_exists(struct zk_session *zs, struct coord_op *op, const char *path, bool watch,
	zk_done *done, void *user)
{
	struct zk_req *req = req_new(zs, op, ZK_REPLY_STAT, path, done, user);
	if (!req)
		return -ENOMEM;
	return req_sent(req,
		zoo_awexists(zs->conn->zh, req->path, watcher(req, watch), zs->conn, on_stat, req));
}

int zk_children(struct zk_session *zs, struct coord_op *op, const char *path, bool watch,
	zk_done *done, void *user)
{
	struct zk_req *req = req_new(zs, op, ZK_REPLY_CHILDREN, path, done, user);
	if (!req)
		return -ENOMEM;
	return req_sent(req, zoo_awget_children(zs->conn->zh, req->path, watcher(req, watch),
				     zs->conn, on_children, req));
}

int zk_set(struct zk_session *zs, struct coord_op *op, const char *path, struct coord_bytes data,
	int version, zk_done *done, void *user)
{
	struct zk_req *req = req_new(zs, op, ZK_REPLY_STAT, path, done, user);
	if (!req)
		return -ENOMEM;
	return req_sent(req, zoo_aset(zs->conn->zh, req->path, data.len ? data.data : "",
				     (int)data.len, version, on_stat, req));
}

void zk_watch_remove(struct zk_session *zs, const char *path)
{
	struct zk_req *req = req_new(zs, NULL, ZK_REPLY_NOTHING, path, zk_ignore, NULL);
	if (!req)
		return;
	/* Its sister for one watcher leaves the server's watch alone. And the header says a pointer to the
	 * function pointer, but the library calls what it gets. */
	void_completion_t *done = (void_completion_t *)(void *)on_void;
	req_sent(req,
		zoo_aremove_all_watches(zs->conn->zh, req->path, ZWATCHTYPE_ANY, 0, done, req));
}

int zk_sync(struct zk_session *zs, struct coord_op *op, const char *path, zk_done *done, void *user)
{
	struct zk_req *req = req_new(zs, op, ZK_REPLY_PATH, path, done, user);
	if (!req)
		return -ENOMEM;
	return req_sent(req, zoo_async(zs->conn->zh, req->path, on_sync, req));
}

int zk_confirm(
	struct zk_session *zs, struct coord_op *op, const char *path, zk_done *done, void *user)
{
	struct zk_req *req = req_new(zs, op, ZK_REPLY_CHECK, path, done, user);
	if (!req)
		return -ENOMEM;
	zoo_check_op_init(&req->ops[0], req->path, -1);
	return req_sent(req, zoo_amulti(zs->conn->zh, 1, req->ops, req->results, on_multi, req));
}

int zk_replace(struct zk_session *zs, struct coord_op *op, const char *path, int version,
	struct coord_bytes data, zk_done *done, void *user)
{
	struct zk_req *req = req_new(zs, op, ZK_REPLY_REPLACE, path, done, user);
	if (!req)
		return -ENOMEM;
	req->value = malloc(data.len + 1);
	if (!req->value) {
		req_free(req);
		return -ENOMEM;
	}
	if (data.len)
		memcpy(req->value, data.data, data.len);
	zoo_delete_op_init(&req->ops[0], req->path, version);
	zoo_create_op_init(&req->ops[1], req->path, req->value, (int)data.len, &zs->acl,
		ZOO_EPHEMERAL, req->buffer, sizeof(req->buffer));
	return req_sent(req, zoo_amulti(zs->conn->zh, 2, req->ops, req->results, on_multi, req));
}

int zk_delete_both(struct zk_session *zs, struct coord_op *op, const char *path, const char *parent,
	zk_done *done, void *user)
{
	struct zk_req *req = req_new(zs, op, ZK_REPLY_DELETE_BOTH, path, done, user);
	if (!req)
		return -ENOMEM;
	req->value = strdup(parent);
	if (!req->value) {
		req_free(req);
		return -ENOMEM;
	}
	zoo_delete_op_init(&req->ops[0], req->path, -1);
	zoo_delete_op_init(&req->ops[1], req->value, -1);
	return req_sent(req, zoo_amulti(zs->conn->zh, 2, req->ops, req->results, on_multi, req));
}
