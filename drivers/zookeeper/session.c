/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The session: ops and grants in it, what the connection tells, keep-alive, close. open.c opens it.
 *
 * What a keep-alive shows: a server that is cut off from its leader answers reads and pings, so each is a
 * sync, which only the leader answers, and a read behind it. The leader answers while it has the session,
 * but need not have heard of this touch yet; so the lease counts from the touch before, which it
 * has. (Servers tell the leader who is alive twice a tick; the margin of the core covers more than that.)
 */
#include "drivers/zookeeper/session.h"

#include <assert.h>
#include <syslog.h>

#include "coord/worker.h"

/* ---- Ops ---- */

bool zk_op_begin(struct coord_session *session, struct coord_op *op)
{
	struct zk_session *zs = zk_of(session);
	struct zk_op *zo = zk_op_of(op);
	*zo = (struct zk_op){.zs = zs, .op = op};
	coord_list_init(&zo->reqs);
	coord_list_init(&zo->interest.link);
	coord_list_add(&zs->ops, &op->link);
	if (zs->conn && !zs->closing)
		return true;
	zk_answer(op, -EHOSTDOWN, COORD_SENT_NO);
	return false;
}

void zk_op_forget(struct coord_op *op)
{
	struct zk_op *zo = zk_op_of(op);
	while (!coord_list_empty(&zo->reqs)) {
		struct zk_req *req = coord_container(zo->reqs.next, struct zk_req, op_link);
		coord_list_remove(&req->op_link);
		req->orphan = true;
	}
}

void zk_answer(struct coord_op *op, int status, enum coord_sent sent)
{
	struct zk_op *zo = zk_op_of(op);
	zk_op_forget(op);
	zk_interest_drop(zo->zs, &zo->interest);
	coord_list_remove(&op->link);
	op->status = status;
	op->sent = sent;
	coord_op_done(op);
}

void zk_answer_rc(struct coord_op *op, int rc)
{
	enum coord_sent sent;
	int status = zk_error(rc, &sent);
	zk_answer(op, status, sent);
}

bool zk_failed(struct coord_op *op, int r)
{
	if (r == 0)
		return false;
	/* Of a step that sends several, an earlier one may be on its way. */
	bool none = coord_list_empty(&zk_op_of(op)->reqs);
	zk_answer(op, r, none ? COORD_SENT_NO : COORD_SENT_UNKNOWN);
	return true;
}

/* ---- Grants ---- */

static void self_fired(struct zk_interest *interest);
static void queue_fired(struct zk_interest *interest);

void zk_grant_begin(struct zk_session *zs, struct coord_grant *grant)
{
	struct zk_grant *zg = zk_grant_of(grant);
	if (zg->zs)
		return;
	*zg = (struct zk_grant){
		.zs = zs, .grant = grant, .self.fn = self_fired, .queue.fn = queue_fired};
	coord_list_add(&zs->grants, &zg->link);
	coord_list_init(&zg->guard_link);
	coord_list_init(&zg->self.link);
	coord_list_init(&zg->queue.link);
}

void zk_grant_held(struct zk_grant *zg, uint64_t czxid)
{
	struct zk_session *zs = zg->zs;
	zg->state = ZK_NODE_THERE;
	zg->held = true;
	zg->czxid = czxid;
	if (zg->guarded)
		return;
	coord_list_remove(&zg->guard_link);
	coord_list_add(&zs->unguarded, &zg->guard_link);
	if (!zs->guard.active)
		coord_timer_start(zs->loop, &zs->guard, coord_now_ms(zs->loop) + ZK_GUARD_MS);
}

void zk_grant_end(struct zk_grant *zg)
{
	if (!zg->zs)
		return;
	zk_interest_drop(zg->zs, &zg->self);
	zk_interest_drop(zg->zs, &zg->queue);
	coord_list_remove(&zg->guard_link);
	zg->state = ZK_NODE_NONE;
	zg->held = zg->guarded = zg->contended = false;
}

void zk_grant_path(const struct zk_grant *zg, char ret[ZK_PATH_MAX])
{
	const struct coord_grant *grant = zg->grant;
	if (grant->key.kind == COORD_MEMBER) {
		zk_path_member(zg->zs->root, grant->key.name, grant->member, ret);
		return;
	}
	char prefix[ZK_PREFIX_MAX];
	zk_path(zg->zs->root, grant->key, ret);
	zk_candidate_prefix(grant->owner, grant->mode == COORD_SHARED, prefix);
	size_t len = strlen(ret);
	ret[len] = '/';
	strcpy(ret + len + 1, prefix);
	strcat(ret, zg->seq);
}

void zk_grant_gone(struct zk_grant *zg)
{
	struct zk_session *zs = zg->zs;
	const struct coord_grant *grant = zg->grant;
	bool held = zg->held;
	zk_grant_end(zg);
	if (held)
		coord_grant_lost(zs->session, grant->key, grant->owner, grant->epoch);
}

void zk_grant_done(struct coord_session *session, struct coord_grant *grant)
{
	struct zk_grant *zg = zk_grant_of(grant);
	struct zk_session *zs = zg->zs;
	(void)session;
	if (!zs)
		return;
	/* What nobody released must not stay as a contender that nobody waits for. */
	if (zg->state == ZK_NODE_THERE && zs->conn && !zs->closing && grant->epoch == zs->epoch &&
		grant->key.kind != COORD_MEMBER) {
		char path[ZK_PATH_MAX];
		zk_grant_path(zg, path);
		zk_delete(zs, NULL, path, -1, zk_ignore, NULL);
	}
	zk_grant_end(zg);
	coord_list_remove(&zg->link);
	zg->zs = NULL;
}

bool zk_is_stale(const struct zk_session *zs, int64_t sid)
{
	for (unsigned i = 0; i < ZK_STALE_MAX; i++)
		if (sid != 0 && zs->stale[i] == sid)
			return true;
	return false;
}

/* ---- Our own nodes are watched ---- */

/* The grant whose node a request was about, if it still is; the request may outlive it. */
static struct zk_grant *req_grant(struct zk_req *req)
{
	struct zk_grant *zg;
	coord_list_each (zg, &req->zs->grants, link) {
		char path[ZK_PATH_MAX];
		if (zg != req->user || zg->state != ZK_NODE_THERE)
			continue;
		zk_grant_path(zg, path);
		return strcmp(path, req->path) == 0 ? zg : NULL;
	}
	return NULL;
}

/* Sees whether the node is the one that was made. */
static void guard_check(struct zk_req *req)
{
	struct zk_grant *zg = req_grant(req);
	if (!zg || !zg->held)
		return;
	bool ours = req->rc == ZOK && req->stat && req->stat->ephemeralOwner == req->zs->sid &&
		    (uint64_t)req->stat->czxid == zg->czxid;
	/* The library takes an answer that does not decode for one with anything in it; the next request
	 * shows then that the connection is spoilt. */
	bool doubt = req->rc == ZOK && !ours && !zg->doubted;
	if (ours) {
		zg->guarded = zg->self.point != NULL;
		zg->confirmed = true;
	}
	if (!ours && !doubt && (req->rc == ZOK || req->rc == ZNONODE)) {
		zk_grant_gone(zg); /* and freed, perhaps */
		return;
	}
	if (req->rc == ZOK)
		zg->doubted = doubt;
	/* Where there are too many to watch all, each keep-alive asks. */
	if (zg->held && !ours)
		zk_grant_held(zg, zg->czxid); /* once more */
}

static int guard_send(struct zk_grant *zg, struct coord_op *op, zk_done *done)
{
	char path[ZK_PATH_MAX];
	zk_grant_path(zg, path);
	int r = zk_interest_add(zg->zs, &zg->self, path, false);
	return r == -ENOMEM ? r : zk_exists(zg->zs, op, path, true, done, zg);
}

static void guard_run(struct coord_timer *timer)
{
	struct zk_session *zs = coord_container(timer, struct zk_session, guard);
	struct coord_list all = COORD_LIST_INIT(all);
	while (zs->conn && zs->conn->connected && !coord_list_empty(&zs->unguarded)) {
		struct zk_grant *zg =
			coord_container(zs->unguarded.next, struct zk_grant, guard_link);
		coord_list_remove(&zg->guard_link);
		if (guard_send(zg, NULL, guard_check))
			coord_list_add(&all, &zg->guard_link);
		else if (zg->grant->mode == COORD_SHARED && zg->grant->key.kind == COORD_LOCK)
			zk_queue_look(zg);
	}
	while (!coord_list_empty(&all)) {
		struct coord_list *first = all.next;
		coord_list_remove(first);
		coord_list_add(&zs->unguarded, first);
	}
	if (!coord_list_empty(&zs->unguarded))
		coord_timer_start(zs->loop, &zs->guard, coord_now_ms(zs->loop) + 1000);
}

static void self_fired(struct zk_interest *interest)
{
	struct zk_grant *zg = coord_container(interest, struct zk_grant, self);
	zg->guarded = false;
	if (!zg->held)
		return;
	/* Gone, or changed by somebody: see. */
	if (guard_send(zg, NULL, guard_check))
		zk_grant_held(zg, zg->czxid);
}

static void queue_fired(struct zk_interest *interest)
{
	struct zk_grant *zg = coord_container(interest, struct zk_grant, queue);
	if (zg->held && !zg->contended)
		zk_queue_look(zg);
}

/* The core forgets soon that somebody waits elsewhere, and would let more sharers in. */
static void retell_run(struct coord_timer *timer)
{
	struct zk_session *zs = coord_container(timer, struct zk_session, retell);
	struct zk_grant *zg;
	coord_list_each (zg, &zs->grants, link) {
		if (!zg->held || !zg->contended)
			continue;
		zg->contended = false;
		zk_queue_look(zg);
	}
}

void zk_retell_later(struct zk_session *zs)
{
	if (!zs->retell.active)
		coord_timer_start(zs->loop, &zs->retell, coord_now_ms(zs->loop) + ZK_RETELL_MS);
}

/* ---- Keep-alive ---- */

static void renew_end(struct coord_op *op)
{
	struct zk_op *zo = zk_op_of(op);
	struct zk_session *zs = zo->zs;
	if (zo->status) {
		zk_answer(op, zo->status, zo->sent);
		return;
	}
	zk_conn_calm(zs->conn);
	op->sent_ms = zs->confirmed_ms;
	op->ttl_ms = zs->ttl_ms;
	zs->confirmed_ms = zo->sent_ms;
	/* Telling one may end others. */
	for (struct coord_grant *grant = NULL; (grant = coord_grants_next(zs->session, grant));) {
		struct zk_grant *zg = zk_grant_of(grant);
		if (zg->zs && zg->held && (zg->guarded || zg->confirmed))
			coord_grant_renewed(zs->session, grant, op->sent_ms, zs->ttl_ms);
	}
	zk_answer(op, 0, COORD_SENT_ANSWERED);
}

static void renew_step(struct zk_req *req, int rc)
{
	struct coord_op *op = req->op;
	struct zk_op *zo = zk_op_of(op);
	if (rc != ZOK && zo->status == 0)
		zo->status = zk_error(rc, &zo->sent);
	if (--zo->left == 0)
		renew_end(op);
}

static void renew_synced(struct zk_req *req)
{
	renew_step(req, req->rc);
}

/* The claim, or without one the root: a read behind the sync. */
static void renew_read(struct zk_req *req)
{
	struct zk_session *zs = req->zs;
	struct zk_op *zo = zk_op_of(req->op);
	bool ours = req->rc != ZOK || !zs->claimed || req->stat->ephemeralOwner == zs->sid;
	if (!ours && !zs->doubted) {
		zs->doubted = true;
		renew_step(req, ZDATAINCONSISTENCY);
		return;
	}
	zs->doubted = false;
	if ((req->rc == ZNONODE && zs->claimed) || !ours) {
		coord_log(LOG_ERR, "the claim on the member id was taken away");
		zo->status = -ESTALE;
		zo->sent = COORD_SENT_ANSWERED;
	}
	renew_step(req, req->rc == ZNONODE ? ZOK : req->rc);
}

static void renew_guard(struct zk_req *req)
{
	guard_check(req);
	renew_step(req, req->rc == ZNONODE ? ZOK : req->rc);
}

/* Whatever happened to a node that is watched, its notice comes before the answer to the read: those need
 * no request of their own. */
void zk_renew(struct coord_session *session, struct coord_op *op)
{
	struct zk_session *zs = zk_of(session);
	char path[ZK_PATH_MAX];
	if (!zk_op_begin(session, op))
		return;
	struct zk_op *zo = zk_op_of(op);
	zo->sent_ms = coord_now_ms(zs->loop);
	if (zs->claimed)
		zk_path_claim(zs->root, coord_session_config(session)->member, path);
	zo->left = 2;
	if (zk_failed(op, zk_sync(zs, op, zs->root, renew_synced, NULL)) ||
		zk_failed(op,
			zk_exists(zs, op, zs->claimed ? path : zs->root, false, renew_read, NULL)))
		return;
	struct coord_grant *grant = NULL;
	while ((grant = coord_grants_next(session, grant))) {
		struct zk_grant *zg = zk_grant_of(grant);
		zg->confirmed = false;
		if (!zg->zs || !zg->held || zg->guarded)
			continue;
		zo->left++;
		if (zk_failed(op, guard_send(zg, op, renew_guard)))
			return;
		coord_list_remove(&zg->guard_link);
	}
	zk_conn_expect(zs->conn);
}

/* ---- What the connection tells, once it is open ---- */

void zk_session_connected(struct zk_session *zs)
{
	/* The leader itself took the session up again. */
	zs->confirmed_ms = zs->conn->handshake_ms;
	coord_session_event(zs->session, zs->epoch, COORD_EVENT_CONNECTED);
	zk_watches_changed(zs);
	zk_locks_resume(zs);
	if (!coord_list_empty(&zs->unguarded))
		coord_timer_start(zs->loop, &zs->guard, coord_now_ms(zs->loop));
}

/* ---- Closing ---- */

struct zk_closing {
	struct coord_job job;
	struct coord_task start;
	struct zk_session *zs;
	struct zk_conn *conn;
	struct coord_worker *worker;
	struct coord_op *op; /* answered when it is done */
	int status;
};

static void closing_work(struct coord_job *job)
{
	struct zk_closing *closing = coord_container(job, struct zk_closing, job);
	zk_conn_free(closing->conn);
	closing->conn = NULL;
}

static void closing_done(struct coord_job *job)
{
	struct zk_closing *closing = coord_container(job, struct zk_closing, job);
	struct zk_session *zs = closing->zs;
	coord_worker_free(closing->worker);
	zs->closing = NULL;
	coord_op_fail(closing->op, closing->status);
	free(closing);
}

/* The library waits for the server's word, for seconds if need be. Not from inside one of its callbacks. */
static void closing_start(struct coord_task *task)
{
	struct zk_closing *closing = coord_container(task, struct zk_closing, start);
	struct zk_session *zs = closing->zs;
	if (coord_worker_new(zs->loop, "zk-close", &closing->worker) < 0) {
		closing_work(&closing->job);
		closing_done(&closing->job);
		return;
	}
	coord_worker_submit(closing->worker, &closing->job);
}

/* Everything of the epoch ends here; on the server it does with the session. */
static void session_end(struct zk_session *zs)
{
	zs->open = zs->claimed = zs->doubted = false;
	coord_timer_stop(zs->loop, &zs->guard);
	coord_timer_stop(zs->loop, &zs->retell);
	coord_timer_stop(zs->loop, &zs->open_timer);
	zk_resolving_drop(zs->resolving);
	zs->resolving = NULL;
	zk_takeover_drop(zs);
	if (zs->conn)
		zk_conn_stop(zs->conn);
	if (zs->sid) {
		zs->stale[zs->stale_next++ % ZK_STALE_MAX] = zs->sid;
		zs->sid = 0;
	}
	while (!coord_list_empty(&zs->ops)) {
		struct coord_op *op = coord_container(zs->ops.next, struct coord_op, link);
		/* Who asks whether he still holds need not wait for the next session to hear it. */
		if (op->call == COORD_CALL_LOCK_CHECK)
			zk_answer(op, -ESTALE, COORD_SENT_ANSWERED);
		else
			zk_answer(op, -ECANCELED, COORD_SENT_UNKNOWN);
	}
	struct zk_grant *zg;
	coord_list_each (zg, &zs->grants, link)
		zk_grant_end(zg);
	zk_watches_done(zs);
}

void zk_session_close(struct zk_session *zs, struct coord_op *op, int status)
{
	assert(!zs->closing);
	session_end(zs);
	struct zk_conn *conn = zs->conn;
	zs->conn = NULL;
	struct zk_closing *closing = conn ? calloc(1, sizeof(*closing)) : NULL;
	if (!closing) {
		/* Without memory the server finds out by itself. */
		coord_op_fail(op, status);
		return;
	}
	*closing = (struct zk_closing){.job = {.work = closing_work, .done = closing_done},
		.start.fn = closing_start,
		.zs = zs,
		.conn = conn,
		.op = op,
		.status = status};
	zs->closing = closing;
	coord_loop_defer(zs->loop, &closing->start);
}

void zk_close(struct coord_session *session, struct coord_op *op)
{
	struct zk_session *zs = zk_of(session);
	/* Without a connection the library says nothing. */
	zk_session_close(zs, op, zs->conn && zs->conn->connected ? 0 : -EHOSTDOWN);
}

void zk_session_free(struct coord_session *session)
{
	struct zk_session *zs = zk_of(session);
	if (!zs->session)
		return;
	zs->open_op = NULL;
	session_end(zs);
	zk_conn_free(zs->conn);
	struct zk_closing *closing = zs->closing;
	if (closing) {
		coord_loop_undefer(zs->loop, &closing->start);
		coord_worker_free(closing->worker);
		coord_loop_undefer(zs->loop, &closing->job.task);
		zk_conn_free(closing->conn);
		free(closing);
	}
	struct zk_grant *zg, *next;
	coord_list_each_safe (zg, next, &zs->grants, link) {
		coord_list_remove(&zg->link);
		zg->zs = NULL;
	}
	zk_takeover_end(zs);
	free(zs->addresses);
	zk_hosts_done(&zs->hosts);
	if (zs->auth)
		explicit_bzero(zs->auth, strlen(zs->auth));
	free(zs->auth);
	free(zs->acl_id);
	zs->session = NULL;
}

void zk_session_init(struct zk_session *zs)
{
	coord_list_init(&zs->ops);
	coord_list_init(&zs->grants);
	coord_list_init(&zs->unguarded);
	coord_list_init(&zs->all_watches);
	zs->guard.fn = guard_run;
	zs->retell.fn = retell_run;
}
