/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locks and leaderships: the recipe of Python's client (kazoo), which all clients of a name must follow.
 *
 * Who wants it makes an ephemeral, sequential node in the name's directory. The one with the lowest
 * sequence holds it; everybody else watches the one before him, so that a release wakes one. Nodes of
 * sharers have a name that Python's clients wait behind; a sharer holds if no exclusive one is before him.
 *
 *   enter: create and list, in one trip -> held
 *                                       -> blocked: watch the one before -> told: sync and list -> ...
 *   a try looks first and enters only what is free, because its node would make another's try fail.
 *
 * A create whose answer was lost is found again by the owner value in its name. A list counts as proof
 * behind our own create, which all servers agreed upon, or behind a sync; see session.c.
 *
 * Who waits keeps his place over connections that break, at any step: he is parked then, and looks again when
 * there is another.
 */
#include "drivers/zookeeper/session.h"

static void enter(struct coord_op *op);
static void withdraw(struct coord_op *op, int status);

/* ---- The queue ---- */

static struct coord_bytes own_prefix(const struct coord_grant *grant, char ret[ZK_PREFIX_MAX])
{
	zk_candidate_prefix(grant->owner, grant->mode == COORD_SHARED, ret);
	return coord_bytes_of(ret);
}

static bool is_live_owner(struct zk_session *zs, const uint8_t owner[16])
{
	struct zk_grant *zg;
	coord_list_each (zg, &zs->grants, link)
		if (zg->state != ZK_NODE_NONE && memcmp(zg->grant->owner, owner, 16) == 0)
			return true;
	return false;
}

/* A contender that this daemon made and knows nothing of: a create whose connection broke, carried out late,
 * or left by a session of ours that ended. Nobody would ever release it. */
static void remove_stray(
	struct zk_session *zs, const char *dir, const struct zk_candidate *candidate)
{
	char path[ZK_PATH_MAX];
	if (!candidate->has_owner ||
		memcmp(candidate->owner, coord_session_uuid(zs->session), 8) != 0 ||
		is_live_owner(zs, candidate->owner))
		return;
	if (strlen(dir) + strlen(candidate->name) + 2 > sizeof(path))
		return;
	strcpy(path, dir);
	strcat(path, "/");
	strcat(path, candidate->name);
	zk_delete(zs, NULL, path, -1, zk_ignore, NULL);
}

struct queue {
	bool found; /* our node */
	struct zk_candidate own, before; /* before: whom we wait for */
	bool blocked;
	bool busy; /* for somebody who would come now */
	bool writer_behind; /* an exclusive one, after ours */
};

/* Where a grant stands among the children of its directory. */
static void queue_read(struct zk_session *zs, const struct coord_grant *grant, const char *dir,
	const struct String_vector *children, struct queue *ret)
{
	char text[ZK_PREFIX_MAX];
	struct coord_bytes prefix = own_prefix(grant, text);
	bool shared = grant->mode == COORD_SHARED;
	*ret = (struct queue){0};
	struct zk_candidate candidate;
	for (int32_t i = 0; i < children->count && !ret->found; i++)
		if (zk_candidate_parse(children->data[i], &candidate) &&
			strncmp(candidate.name, prefix.data, prefix.len) == 0) {
			ret->found = true;
			ret->own = candidate;
		}
	for (int32_t i = 0; i < children->count; i++) {
		if (!zk_candidate_parse(children->data[i], &candidate))
			continue;
		remove_stray(zs, dir, &candidate);
		bool hinders = !(shared && candidate.shared);
		ret->busy = ret->busy || hinders;
		if (!ret->found || candidate.name == ret->own.name)
			continue;
		bool ahead = strcmp(candidate.seq, ret->own.seq) < 0;
		if (!ahead && !candidate.shared)
			ret->writer_behind = true;
		if (ahead && hinders &&
			(!ret->blocked || strcmp(candidate.seq, ret->before.seq) > 0)) {
			ret->blocked = true;
			ret->before = candidate;
		}
	}
}

/* ---- Acquiring ---- */

static void granted(struct coord_op *op)
{
	struct coord_grant *grant = op->grant;
	struct zk_grant *zg = zk_grant_of(grant);
	struct zk_session *zs = zg->zs;
	zk_grant_held(zg, zg->czxid);
	if (zg->czxid > grant->token)
		grant->token = zg->czxid;
	op->sent_ms = zs->confirmed_ms;
	op->ttl_ms = zs->ttl_ms;
	zk_answer(op, 0, COORD_SENT_ANSWERED);
}

static void queue_listed(struct zk_req *req);
static void sought(struct zk_req *req);

/* A request could not be made (0: it could), and there may be a node that nobody must forget. */
static bool step_failed(struct coord_op *op, int r)
{
	if (r)
		zk_answer(op, r, COORD_SENT_UNKNOWN);
	return r;
}

/* A step went wrong, and there may be a node. Without a connection there will be another, or an end of the
 * session. */
static void step_broke(struct coord_op *op, int rc)
{
	struct zk_op *zo = zk_op_of(op);
	enum coord_sent sent;
	int status = zk_error(rc, &sent);
	zk_op_forget(op);
	if (rc == ZCONNECTIONLOSS && (op->flags & COORD_OP_WAIT) && !zo->cancelled)
		zo->parked = true;
	else
		zk_answer(op, status, COORD_SENT_UNKNOWN);
}

static void synced(struct zk_req *req)
{
	if (req->rc != ZOK)
		step_broke(req->op, req->rc);
}

/* Behind a sync, the list is what the leader knows. */
static void recheck(struct coord_op *op)
{
	struct zk_op *zo = zk_op_of(op);
	struct zk_session *zs = zo->zs;
	bool known = zk_grant_of(op->grant)->state == ZK_NODE_THERE;
	zo->parked = false;
	if (!step_failed(op, zk_sync(zs, op, zo->path, synced, NULL)))
		step_failed(op,
			zk_children(zs, op, zo->path, false, known ? queue_listed : sought, NULL));
}

static void before_fired(struct zk_interest *interest)
{
	struct zk_op *zo = coord_container(interest, struct zk_op, interest);
	if (zo->parked)
		recheck(zo->op);
	else
		zo->waited = false; /* the answer that parks it is on its way */
}

/* The watch on the one before is set, or it is gone. */
static void before_seen(struct zk_req *req)
{
	struct coord_op *op = req->op;
	struct zk_op *zo = zk_op_of(op);
	if (req->rc != ZOK && req->rc != ZNONODE) {
		step_broke(op, req->rc);
		return;
	}
	if (zo->cancelled) {
		withdraw(op, -ECANCELED);
		return;
	}
	bool told = !zo->waited;
	zo->waited = true;
	if (req->rc == ZNONODE || told)
		recheck(op);
	else
		zo->parked = true;
}

static void wait_for(struct coord_op *op, const struct zk_candidate *before)
{
	struct zk_op *zo = zk_op_of(op);
	char path[ZK_PATH_MAX];
	if (strlen(zo->path) + strlen(before->name) + 2 > sizeof(path)) {
		withdraw(op, -EIO);
		return;
	}
	strcpy(path, zo->path);
	strcat(path, "/");
	strcat(path, before->name);
	zo->interest.fn = before_fired;
	zo->waited = true;
	if (!step_failed(op, zk_interest_add(zo->zs, &zo->interest, path, true)))
		step_failed(op, zk_get(zo->zs, op, path, true, before_seen, NULL));
}

static void queue_listed(struct zk_req *req)
{
	struct coord_op *op = req->op;
	struct zk_op *zo = zk_op_of(op);
	struct zk_grant *zg = zk_grant_of(op->grant);
	if (zg->state != ZK_NODE_THERE)
		return; /* the create failed, and its answer is what counts */
	if (req->rc != ZOK && req->rc != ZNONODE) {
		step_broke(op, req->rc);
		return;
	}
	struct queue queue = {0};
	if (req->rc == ZOK)
		queue_read(zo->zs, op->grant, zo->path, req->children, &queue);
	if (!queue.found) {
		zk_grant_end(zg); /* broken while it waited */
		zk_answer(op, -ESTALE, COORD_SENT_ANSWERED);
	} else if (!queue.blocked) {
		granted(op);
	} else if (zo->cancelled) {
		withdraw(op, -ECANCELED);
	} else if (!(op->flags & COORD_OP_WAIT)) {
		withdraw(op, -EBUSY);
	} else {
		wait_for(op, &queue.before);
	}
}

/* Of a create with an unknown end: is it among the children? */
static bool find_name(struct zk_req *req, struct zk_grant *zg, struct queue *ret)
{
	*ret = (struct queue){0};
	if (req->rc == ZOK)
		queue_read(req->zs, zg->grant, req->path, req->children, ret);
	if (!ret->found || strlen(ret->own.seq) >= sizeof(zg->seq))
		return false;
	strcpy(zg->seq, ret->own.seq);
	zg->state = ZK_NODE_THERE;
	return true;
}

/* What the lost answer would have told. */
static void found_seen(struct zk_req *req)
{
	struct coord_op *op = req->op;
	struct zk_grant *zg = zk_grant_of(op->grant);
	if (req->rc == ZNONODE) {
		zk_grant_end(zg);
		zk_answer(op, -ESTALE, COORD_SENT_ANSWERED);
	} else if (req->rc != ZOK || req->stat->ephemeralOwner != req->zs->sid) {
		step_broke(op, req->rc == ZOK ? ZDATAINCONSISTENCY : req->rc);
	} else {
		zg->czxid = (uint64_t)req->stat->czxid;
		zg->state = ZK_NODE_THERE;
		recheck(op);
	}
}

/* Of a create whose answer was lost: is its node there? If not, another is made, under another owner value,
 * because this one may still come to be. */
static void sought(struct zk_req *req)
{
	struct coord_op *op = req->op;
	struct zk_grant *zg = zk_grant_of(op->grant);
	struct queue queue;
	char path[ZK_PATH_MAX];
	if (req->rc != ZOK && req->rc != ZNONODE) {
		step_broke(op, req->rc);
	} else if (!find_name(req, zg, &queue)) {
		zk_grant_end(zg);
		zk_answer(op, -ESTALE, COORD_SENT_ANSWERED);
	} else {
		zg->state = ZK_NODE_MAYBE; /* until its czxid is known */
		zk_grant_path(zg, path);
		step_failed(op, zk_exists(req->zs, op, path, false, found_seen, NULL));
	}
}

static void dir_made(struct zk_req *req)
{
	struct coord_op *op = req->op;
	if (req->rc == ZOK || req->rc == ZNODEEXISTS)
		enter(op);
	else
		zk_answer_rc(op, req->rc); /* a leader of no group: -ENOENT */
}

/* There is no directory. A leader's is made in a group that exists only. */
static void make_dir(struct coord_op *op)
{
	struct zk_op *zo = zk_op_of(op);
	struct zk_session *zs = zo->zs;
	zk_op_forget(op); /* the list that followed the create */
	if (zo->tries++ > 4)
		zk_answer(op, -EIO, COORD_SENT_ANSWERED);
	else if (op->grant->key.kind == COORD_LEADER)
		zk_failed(op, zk_create(zs, op, zo->path, (struct coord_bytes){0}, ZOO_PERSISTENT,
				      dir_made, NULL));
	else
		zk_failed(op, zk_ensure(zs, op, zo->path, zo->tries > 1 ? 0 : strlen(zs->root),
				      dir_made, NULL));
}

/* The name that the server gave: ours, a mark, and a sequence. */
static bool take_name(struct zk_req *req, struct zk_grant *zg)
{
	struct zk_candidate candidate;
	const char *name = req->created ? strrchr(req->created, '/') : NULL;
	char text[ZK_PREFIX_MAX];
	struct coord_bytes prefix = own_prefix(zg->grant, text);
	if (!name || !zk_candidate_parse(name + 1, &candidate) ||
		strncmp(name + 1, prefix.data, prefix.len) != 0 ||
		strlen(candidate.seq) >= sizeof(zg->seq))
		return false;
	strcpy(zg->seq, candidate.seq);
	zg->czxid = (uint64_t)req->stat->czxid;
	zg->state = ZK_NODE_THERE;
	return true;
}

static void created(struct zk_req *req)
{
	struct coord_op *op = req->op;
	struct zk_grant *zg = zk_grant_of(op->grant);
	enum coord_sent sent;
	if (req->rc == ZOK && req->stat && take_name(req, zg))
		return; /* the list follows */
	if (req->rc == ZOK) {
		zk_answer(op, -EIO, COORD_SENT_UNKNOWN);
		return;
	}
	zk_error(req->rc, &sent);
	if (sent != COORD_SENT_UNKNOWN)
		zg->state = ZK_NODE_NONE;
	if (req->rc == ZNONODE)
		make_dir(op);
	else if (sent == COORD_SENT_UNKNOWN)
		step_broke(op, req->rc);
	else
		zk_answer_rc(op, req->rc);
}

static void enter(struct coord_op *op)
{
	struct zk_op *zo = zk_op_of(op);
	struct zk_session *zs = zo->zs;
	struct coord_grant *grant = op->grant;
	char path[ZK_PATH_MAX + ZK_PREFIX_MAX + 1];
	size_t len = strlen(zo->path);
	memcpy(path, zo->path, len);
	path[len] = '/';
	zk_candidate_prefix(grant->owner, grant->mode == COORD_SHARED, path + len + 1);
	zk_grant_of(grant)->state = ZK_NODE_MAYBE;
	if (!zk_failed(op, zk_create(zs, op, path, grant->member, ZOO_EPHEMERAL_SEQUENTIAL, created,
				   NULL)))
		zk_failed(op, zk_children(zs, op, zo->path, false, queue_listed, NULL));
	else
		zk_grant_of(grant)->state = ZK_NODE_NONE;
}

static void look_failed(struct coord_op *op, int rc)
{
	enum coord_sent sent;
	zk_answer(op, zk_error(rc, &sent), COORD_SENT_NO); /* it was a read */
}

static void look_synced(struct zk_req *req)
{
	if (req->rc != ZOK)
		look_failed(req->op, req->rc);
}

static void looked(struct zk_req *req)
{
	struct coord_op *op = req->op;
	struct zk_op *zo = zk_op_of(op);
	struct queue queue = {0};
	if (req->rc != ZOK && req->rc != ZNONODE) {
		look_failed(op, req->rc);
		return;
	}
	if (req->rc == ZOK)
		queue_read(zo->zs, op->grant, zo->path, req->children, &queue);
	if (queue.busy)
		zk_answer(op, -EBUSY, COORD_SENT_ANSWERED);
	else
		enter(op);
}

void zk_lock(struct coord_session *session, struct coord_op *op)
{
	struct zk_session *zs = zk_of(session);
	struct coord_grant *grant = op->grant;
	if (!zk_op_begin(session, op))
		return;
	struct zk_op *zo = zk_op_of(op);
	if (grant->key.kind == COORD_LEADER && grant->mode != COORD_EXCLUSIVE) {
		zk_answer(op, -EINVAL, COORD_SENT_ANSWERED);
		return;
	}
	zk_grant_begin(zs, grant);
	zk_path(zs->root, grant->key, zo->path);
	if (op->flags & COORD_OP_WAIT) {
		enter(op);
		return;
	}
	bool watch = op->flags & COORD_OP_WATCH;
	struct zk_watch *armed = watch ? zk_watch_get(zs, grant->key, false) : NULL;
	if (watch && zk_failed(op, armed ? zk_watch_node(armed, zo->path) : -ENOMEM))
		return;
	/* Behind a sync: that it is taken must not be news of yesterday. */
	if (!zk_failed(op, zk_sync(zs, op, zo->path, look_synced, NULL)))
		zk_failed(op, zk_children(zs, op, zo->path, watch, looked, NULL));
}

/* ---- Giving up ---- */

static void withdrawn(struct zk_req *req)
{
	struct coord_op *op = req->op;
	int status = (int)(intptr_t)req->user;
	enum coord_sent sent;
	if (req->rc == ZOK || req->rc == ZNONODE) {
		zk_grant_end(zk_grant_of(op->grant));
		zk_answer(op, status, COORD_SENT_ANSWERED);
		return;
	}
	/* It may be there: whoever asked has to look for it, or to release it. */
	zk_error(req->rc, &sent);
	zk_answer(op, status == -ESTALE ? -EHOSTDOWN : status, COORD_SENT_UNKNOWN);
}

/* Deletes our contender, then answers. */
static void withdraw(struct coord_op *op, int status)
{
	struct zk_grant *zg = zk_grant_of(op->grant);
	char path[ZK_PATH_MAX];
	zk_grant_path(zg, path);
	zk_op_of(op)->parked = false;
	if (zk_delete(zg->zs, op, path, -1, withdrawn, (void *)(intptr_t)status))
		zk_answer(op, status, COORD_SENT_UNKNOWN);
}

void zk_cancel(struct coord_session *session, struct coord_op *op)
{
	struct zk_op *zo = zk_op_of(op);
	(void)session;
	if (op->call != COORD_CALL_LOCK || !zo->zs || zo->cancelled)
		return;
	zo->cancelled = true;
	if (zo->parked && zk_grant_of(op->grant)->state == ZK_NODE_THERE)
		withdraw(op, -ECANCELED);
	else if (zo->parked)
		zk_answer(op, -ECANCELED, COORD_SENT_UNKNOWN);
}

void zk_locks_resume(struct zk_session *zs)
{
	struct coord_op *op, *next;
	coord_list_each_safe (op, next, &zs->ops, link)
		if (op->call == COORD_CALL_LOCK && zk_op_of(op)->parked)
			recheck(op);
}

/* ---- Releasing and asking ---- */

static void unlocked(struct zk_req *req)
{
	struct coord_op *op = req->op;
	if (req->rc == ZOK || req->rc == ZNONODE) {
		zk_grant_end(zk_grant_of(op->grant));
		zk_answer(op, 0, COORD_SENT_ANSWERED);
		return;
	}
	zk_answer_rc(op, req->rc);
}

static void unlock_send(struct coord_op *op)
{
	struct zk_grant *zg = zk_grant_of(op->grant);
	char path[ZK_PATH_MAX];
	zk_grant_path(zg, path);
	/* What happens to it from now on is our doing. */
	zk_interest_drop(zg->zs, &zg->self);
	zk_interest_drop(zg->zs, &zg->queue);
	coord_list_remove(&zg->guard_link);
	zg->held = false;
	zk_failed(op, zk_delete(zg->zs, op, path, -1, unlocked, NULL));
}

static void unlock_found(struct zk_req *req)
{
	struct coord_op *op = req->op;
	struct zk_grant *zg = zk_grant_of(op->grant);
	struct queue queue;
	if (req->rc != ZOK && req->rc != ZNONODE)
		zk_answer_rc(op, req->rc);
	else if (find_name(req, zg, &queue))
		unlock_send(op);
	else
		unlocked(req);
}

void zk_unlock(struct coord_session *session, struct coord_op *op)
{
	struct zk_session *zs = zk_of(session);
	struct zk_grant *zg = zk_grant_of(op->grant);
	if (!zk_op_begin(session, op))
		return;
	struct zk_op *zo = zk_op_of(op);
	if (!zg->zs || zg->state == ZK_NODE_NONE) {
		zk_answer(op, 0, COORD_SENT_ANSWERED);
	} else if (zg->state == ZK_NODE_THERE) {
		unlock_send(op);
	} else {
		zk_path(zs->root, op->grant->key, zo->path);
		if (!zk_failed(op, zk_sync(zs, op, zo->path, zk_ignore, NULL)))
			zk_failed(op, zk_children(zs, op, zo->path, false, unlock_found, NULL));
	}
}

/* Whatever went wrong, it does not say that the lock is lost. */
static void check_failed(struct coord_op *op, int rc)
{
	enum coord_sent sent;
	int status = zk_error(rc, &sent);
	zk_answer(op, status == -ETIMEDOUT ? status : -EHOSTDOWN, COORD_SENT_UNKNOWN);
}

static void check_exists(struct zk_req *req)
{
	struct coord_op *op = req->op;
	struct zk_grant *zg = zk_grant_of(op->grant);
	struct zk_session *zs = req->zs;
	if (req->rc == ZOK && req->stat->ephemeralOwner == zs->sid) {
		zg->czxid = (uint64_t)req->stat->czxid;
		granted(op);
	} else if (req->rc == ZOK && zk_op_of(op)->tries++ == 0) {
		/* It has one owner for ever: an answer that says otherwise was not decoded. */
		zk_failed(op, zk_exists(zs, op, req->path, false, check_exists, NULL));
	} else if (req->rc == ZOK || req->rc == ZNONODE) {
		zk_grant_end(zg);
		zk_answer(op, -ESTALE, COORD_SENT_ANSWERED);
	} else {
		check_failed(op, req->rc);
	}
}

/* The node of a holder is his for as long as it is there. */
static void check_confirmed(struct zk_req *req)
{
	struct zk_grant *zg = zk_grant_of(req->op->grant);
	if (req->rc == ZOK) {
		granted(req->op);
	} else if (req->rc == ZNONODE) {
		zk_grant_end(zg);
		zk_answer(req->op, -ESTALE, COORD_SENT_ANSWERED);
	} else {
		check_failed(req->op, req->rc);
	}
}

static void check_found(struct zk_req *req)
{
	struct coord_op *op = req->op;
	struct zk_grant *zg = zk_grant_of(op->grant);
	struct queue queue;
	char path[ZK_PATH_MAX];
	if (req->rc != ZOK && req->rc != ZNONODE) {
		check_failed(op, req->rc);
	} else if (!find_name(req, zg, &queue)) {
		zk_grant_end(zg);
		zk_answer(op, -ESTALE, COORD_SENT_ANSWERED);
	} else if (queue.blocked) {
		withdraw(op, -ESTALE);
	} else {
		zk_grant_path(zg, path);
		zk_failed(op, zk_exists(req->zs, op, path, false, check_exists, NULL));
	}
}

void zk_lock_check(struct coord_session *session, struct coord_op *op)
{
	struct zk_session *zs = zk_of(session);
	struct zk_grant *zg = zk_grant_of(op->grant);
	if (!zk_op_begin(session, op))
		return;
	struct zk_op *zo = zk_op_of(op);
	if (!zg->zs || zg->state == ZK_NODE_NONE) {
		zk_answer(op, -ESTALE, COORD_SENT_ANSWERED);
		return;
	}
	if (zg->held && zg->state == ZK_NODE_THERE) {
		zk_grant_path(zg, zo->path);
		zk_failed(op, zk_confirm(zs, op, zo->path, check_confirmed, NULL));
		return;
	}
	zk_path(zs->root, op->grant->key, zo->path);
	if (!zk_failed(op, zk_sync(zs, op, zo->path, zk_ignore, NULL)))
		zk_failed(op, zk_children(zs, op, zo->path, false, check_found, NULL));
}

/* ---- Sharers make way ---- */

static void queue_seen(struct zk_req *req)
{
	struct zk_session *zs = req->zs;
	struct zk_grant *zg;
	struct queue queue = {0};
	coord_list_each (zg, &zs->grants, link) {
		char dir[ZK_PATH_MAX];
		if (zg != req->user || !zg->held || zg->contended)
			continue;
		const struct coord_grant *grant = zg->grant;
		zk_path(zs->root, grant->key, dir);
		if (strcmp(dir, req->path) != 0)
			return;
		if (req->rc == ZOK)
			queue_read(zs, grant, dir, req->children, &queue);
		/* Where the answer was lost, or there are too many watches, it is to be asked again. */
		zg->contended = queue.writer_behind || req->rc != ZOK || !zg->queue.point;
		if (zg->contended)
			zk_retell_later(zs);
		if (!queue.writer_behind)
			return;
		coord_grant_contended(zs->session, grant->key, grant->owner, grant->epoch);
		return;
	}
}

void zk_queue_look(struct zk_grant *zg)
{
	char dir[ZK_PATH_MAX];
	zk_path(zg->zs->root, zg->grant->key, dir);
	if (zk_interest_add(zg->zs, &zg->queue, dir, false) != -ENOMEM &&
		zk_children(zg->zs, NULL, dir, true, queue_seen, zg) == 0)
		return;
	zg->contended = true;
	zk_retell_later(zg->zs);
}
