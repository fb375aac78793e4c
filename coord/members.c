/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Groups, and the members that this mount joined.
 *
 * A membership is made by the first put or leave that names it and goes when it is neither joined nor
 * wanted. Its requests are carried out one after the other, in order. After a loss every
 * membership is joined again with its capabilities, but one that is being left for good: that request
 * stays until it is done, or until another comes after it.
 */
#include "coord/core.h"
#include "coord/names.h"

#include <stdio.h>
#include <stdio.h>
#include <syslog.h>

enum { LEAVE_PAUSE_MS = 1000 }; /* before a leave that was refused is tried again */

struct membership {
	struct coord_node node; /* key: group, NUL-less pair: 4 bytes length, group, member */
	struct coord *coord;
	struct coord_bytes group, member;
	struct core_grant *grant; /* joined */
	struct core_grant *pending; /* being joined */
	struct coord_op *op;
	uint64_t sent_ms; /* when the join left of which nothing is known */
	struct coord_list queue; /* member_req */
	struct coord_bytes data; /* as joined; owned */
	uint32_t uid;
	uint64_t joined_us, updated_us;
	struct coord_task start; /* answers never come from inside the request */
	struct coord_timer again; /* the first request waits to be tried again */
	bool rejoining;
	char key[];
};

struct member_req {
	struct coord_list link;
	struct coord_req *req; /* NULL: dropped or timed out; the effect goes on */
	bool leave, exclusive, retried;
	bool for_good; /* a leave that no time-out and no refusal ends */
	uint32_t uid;
	struct coord_bytes data; /* owned */
};

static void membership_next(struct membership *membership);

/* ---- groups: plain requests ---- */

static int group_request(struct coord *coord, enum coord_call call, struct coord_bytes group,
	unsigned flags, coord_reply_fn *fn, void *user, struct coord_req **ret_req)
{
	char key[256];
	size_t len;
	int r = core_map_name(coord, COORD_GROUP, group, key, &len);
	if (r < 0)
		return r;
	return core_request(coord, call, (struct coord_key){COORD_GROUP, group}, COORD_BYTES(""),
		flags, fn, user, ret_req);
}

int coord_group_create(struct coord *coord, struct coord_bytes group, coord_reply_fn *fn,
	void *user, struct coord_req **ret_req)
{
	return group_request(coord, COORD_CALL_GROUP_CREATE, group, 0, fn, user, ret_req);
}

int coord_group_delete(struct coord *coord, struct coord_bytes group, coord_reply_fn *fn,
	void *user, struct coord_req **ret_req)
{
	return group_request(coord, COORD_CALL_GROUP_DELETE, group, 0, fn, user, ret_req);
}

int coord_group_list(
	struct coord *coord, coord_reply_fn *fn, void *user, struct coord_req **ret_req)
{
	return core_request(coord, COORD_CALL_GROUP_LIST,
		(struct coord_key){COORD_GROUP, COORD_BYTES("")}, COORD_BYTES(""), 0, fn, user,
		ret_req);
}

int coord_group_read(struct coord *coord, struct coord_bytes group, bool with_data,
	coord_reply_fn *fn, void *user, struct coord_req **ret_req)
{
	return group_request(coord, COORD_CALL_GROUP_READ, group,
		with_data ? COORD_OP_WITH_DATA : 0, fn, user, ret_req);
}

static int member_names(struct coord *coord, struct coord_bytes group, struct coord_bytes member)
{
	char key[256];
	size_t len;
	int r = core_map_name(coord, COORD_GROUP, group, key, &len);
	return r < 0 ? r : core_map_name(coord, COORD_MEMBER, member, key, &len);
}

int coord_member_get(struct coord *coord, struct coord_bytes group, struct coord_bytes member,
	coord_reply_fn *fn, void *user, struct coord_req **ret_req)
{
	int r = member_names(coord, group, member);
	if (r < 0)
		return r;
	return core_request(coord, COORD_CALL_MEMBER_GET, (struct coord_key){COORD_MEMBER, group},
		member, 0, fn, user, ret_req);
}

/* ---- memberships ---- */

static size_t member_key(struct coord_bytes group, struct coord_bytes member, char *ret)
{
	uint32_t len = (uint32_t)group.len;
	memcpy(ret, &len, sizeof(len));
	memcpy(ret + sizeof(len), group.data, group.len);
	memcpy(ret + sizeof(len) + group.len, member.data, member.len);
	return sizeof(len) + group.len + member.len;
}

static struct membership *membership_find(
	struct coord *coord, struct coord_bytes group, struct coord_bytes member)
{
	char key[4 + 2 * 256];
	if (group.len > 256 || member.len > 256)
		return NULL;
	size_t len = member_key(group, member, key);
	return (struct membership *)coord_table_find(
		&coord->members, 0, (struct coord_bytes){key, len});
}

static void membership_start(struct coord_task *task)
{
	membership_next(coord_container(task, struct membership, start));
}

static void membership_again(struct coord_timer *timer)
{
	membership_next(coord_container(timer, struct membership, again));
}

static struct membership *membership_get(
	struct coord *coord, struct coord_bytes group, struct coord_bytes member)
{
	struct membership *membership = membership_find(coord, group, member);
	if (membership)
		return membership;
	membership = calloc(1, sizeof(*membership) + 4 + group.len + member.len);
	if (!membership)
		return NULL;
	size_t len = member_key(group, member, membership->key);
	membership->coord = coord;
	membership->node.key = (struct coord_bytes){membership->key, len};
	membership->group = (struct coord_bytes){membership->key + 4, group.len};
	membership->member = (struct coord_bytes){membership->key + 4 + group.len, member.len};
	coord_list_init(&membership->queue);
	membership->start.fn = membership_start;
	membership->again.fn = membership_again;
	if (coord_table_add(&coord->members, &membership->node) == 0)
		return membership;
	free(membership);
	return NULL;
}

static void membership_free(struct membership *membership)
{
	coord_loop_undefer(membership->coord->loop, &membership->start);
	coord_timer_stop(membership->coord->loop, &membership->again);
	coord_table_remove(&membership->coord->members, &membership->node);
	free((char *)membership->data.data);
	free(membership);
}

static bool is_own_id(struct coord *coord, struct coord_bytes member)
{
	return coord_bytes_equal(member, coord_bytes_of(coord->config->member));
}

static void request_end(struct membership *membership, int status)
{
	struct member_req *mreq = coord_container(membership->queue.next, struct member_req, link);
	struct coord *coord = membership->coord;
	coord_list_remove(&mreq->link);
	coord->members_busy--;
	if (mreq->req) {
		mreq->req->gone = NULL;
		core_req_answer(mreq->req, status, NULL, 0);
	}
	free((char *)mreq->data.data);
	free(mreq);
	membership_next(membership);
	core_stop_check(coord);
}

static void membership_dropped(struct membership *membership)
{
	if (membership->grant) {
		core_grant_free(membership->grant);
		membership->coord->counters.members--;
	}
	membership->grant = NULL;
}

static void membership_joined(struct membership *membership, struct core_grant *grant,
	const struct coord_op *op, struct member_req *mreq)
{
	struct coord *coord = membership->coord;
	int r = core_grant_held(grant, op);
	if (!membership->grant)
		coord->counters.members++;
	membership->grant = grant;
	if (mreq) {
		membership->uid = mreq->uid;
		membership->joined_us = membership->updated_us = coord_utc_us(coord->loop);
		free((char *)membership->data.data);
		membership->data = mreq->data;
		mreq->data = (struct coord_bytes){0};
	}
	if (r < 0)
		core_grant_lost(grant);
}

static struct member_req *first_req(struct membership *membership)
{
	return coord_container(membership->queue.next, struct member_req, link);
}

static bool is_left_for_good(struct membership *membership)
{
	return !coord_list_empty(&membership->queue) && first_req(membership)->for_good;
}

static void settle_done(struct coord_op *op, void *user);
static void rejoin_done(struct coord_op *op, void *user);
static void leave_late(struct coord_op *op, void *user);

static void op_start(struct membership *membership, enum coord_call call, struct core_grant *grant,
	struct coord_bytes data, unsigned flags, void (*fn)(struct coord_op *, void *user))
{
	struct coord *coord = membership->coord;
	struct coord_op *op = core_op_new(coord, call,
		(struct coord_key){COORD_MEMBER, membership->group}, membership->member, data);
	if (!op) {
		if (membership->pending)
			core_grant_free(membership->pending);
		membership->pending = NULL;
		if (fn != rejoin_done)
			request_end(membership, -ENOMEM);
		return;
	}
	op->flags = flags;
	if (grant) {
		op->grant = &grant->grant;
		op->epoch = grant->grant.epoch;
	}
	const struct member_req *mreq = fn == rejoin_done ? NULL : first_req(membership);
	/* What became of a join has to be known however late: else there would be a member that nobody knows of. */
	if (mreq && mreq->req && !mreq->for_good && fn != settle_done)
		op->deadline_ms = mreq->req->deadline.due_ms;
	membership->op = op;
	core_op_start(op, fn, membership);
}

static void join_done(struct coord_op *op, void *user);

static void join_start(struct membership *membership, struct coord_bytes data, unsigned flags)
{
	if (!membership->pending)
		membership->pending = core_grant_new(membership->coord,
			(struct coord_key){COORD_MEMBER, membership->group}, membership->member,
			COORD_EXCLUSIVE, membership);
	if (!membership->pending) {
		if (!coord_list_empty(&membership->queue))
			request_end(membership, -ENOMEM);
		return;
	}
	op_start(membership, COORD_CALL_MEMBER_JOIN, membership->pending, data, flags, join_done);
}

/* Of an attempt with an unknown end: it was ours if the stored owner is. */
static void settle_done(struct coord_op *op, void *user)
{
	struct membership *membership = user;
	struct core_grant *grant = membership->pending;
	membership->op = NULL;
	int status = op->status;
	if (status == 0 && (!op->rows || memcmp(op->rows->owner, grant->grant.owner, 16) != 0))
		status = -EEXIST;
	/* What belongs to a connection may be that of the one before, and end with it: joined by this one. */
	bool of_connection = membership->coord->driver->loss[COORD_MEMBER] == COORD_LOSS_CONNECTION;
	if (status == 0 && of_connection) {
		core_op_free(op);
		join_start(membership, first_req(membership)->data, COORD_OP_REPLACE_STALE);
		return;
	}
	if (status == 0) {
		/* To look at it has not made its lease longer. */
		op->sent_ms = membership->sent_ms;
		struct member_req *mreq = first_req(membership);
		membership->pending = NULL;
		membership_joined(membership, grant, op, mreq);
		membership->rejoining = membership->rejoining && mreq->req;
		core_op_free(op);
		if (mreq->req || !membership->grant)
			request_end(membership, 0);
		else
			op_start(membership, COORD_CALL_MEMBER_LEAVE, grant,
				(struct coord_bytes){0}, 0, leave_late);
		return;
	}
	core_op_free(op);
	/* It had no effect, or not any more: once more, with the same owner, if somebody asks still. */
	if (status == -ENOENT && first_req(membership)->req) {
		grant->gone = false;
		join_start(membership, first_req(membership)->data, 0);
		return;
	}
	if (membership->pending)
		core_grant_free(membership->pending);
	membership->pending = NULL;
	request_end(membership, status);
}

static void leave_late(struct coord_op *op, void *user)
{
	struct membership *membership = user;
	membership->op = NULL;
	core_op_free(op);
	membership_dropped(membership);
	membership->rejoining = false;
	request_end(membership, 0);
}

static void leave_gone(struct coord_op *op, void *user)
{
	struct membership *membership = user;
	membership->op = NULL;
	core_op_free(op);
	core_grant_free(membership->pending);
	membership->pending = NULL;
	request_end(membership, 0);
}

/* A member with our own id that an earlier life of this mount left stays what it is, but for its data. */
static void adopt_done(struct coord_op *op, void *user)
{
	struct membership *membership = user;
	int status = op->status;
	membership->op = NULL;
	core_op_free(op);
	request_end(membership, status);
}

static void join_done(struct coord_op *op, void *user)
{
	struct membership *membership = user;
	struct coord *coord = membership->coord;
	struct member_req *mreq = first_req(membership);
	struct core_grant *grant = membership->pending;
	int status = op->status;
	membership->op = NULL;
	if (status == 0 && grant->gone) {
		/* Somebody removed it at once, or an earlier attempt's of the same owner: not there in any case. */
		core_op_free(op);
		op_start(membership, COORD_CALL_MEMBER_LEAVE, grant, (struct coord_bytes){0}, 0,
			leave_gone);
		return;
	}
	if (status == 0) {
		membership->pending = NULL;
		membership_joined(membership, grant, op, mreq);
		core_op_free(op);
		membership->rejoining = membership->rejoining && mreq->req;
		if (mreq->req || !membership->grant)
			request_end(membership, 0);
		else /* its caller was told that it timed out: undo */
			op_start(membership, COORD_CALL_MEMBER_LEAVE, grant,
				(struct coord_bytes){0}, 0, leave_late);
		return;
	}
	if (core_transient(status) && op->sent != COORD_SENT_ANSWERED &&
		op->epoch == coord->session.epoch) {
		membership->sent_ms = op->sent_ms;
		core_op_free(op);
		op_start(membership, COORD_CALL_MEMBER_GET, NULL, (struct coord_bytes){0}, 0,
			settle_done);
		return;
	}
	bool over = op->epoch != coord->session.epoch;
	core_op_free(op);
	if (status == -ESTALE && over && mreq->req) { /* begun in a session that was lost: anew */
		core_grant_free(grant);
		membership->pending = NULL;
		membership_next(membership);
		return;
	}
	if (status == -EEXIST && !mreq->exclusive && is_own_id(coord, membership->member)) {
		core_grant_free(grant);
		membership->pending = NULL;
		op_start(membership, COORD_CALL_MEMBER_UPDATE, NULL, mreq->data, COORD_OP_ADOPT,
			adopt_done);
		return;
	}
	core_grant_free(grant);
	membership->pending = NULL;
	request_end(membership, status == -EEXIST && !mreq->exclusive ? -EACCES : status);
}

static void update_done(struct coord_op *op, void *user)
{
	struct membership *membership = user;
	struct member_req *mreq = first_req(membership);
	int status = op->status;
	membership->op = NULL;
	core_op_free(op);
	if ((status == -ESTALE || status == -ENOENT || status == -EPERM) && !mreq->retried) {
		/* Somebody removed it, or took its name: the write joins anew. */
		mreq->retried = true;
		membership_dropped(membership);
		membership_next(membership);
		return;
	}
	if (status == 0) {
		membership->updated_us = coord_utc_us(membership->coord->loop);
		free((char *)membership->data.data);
		membership->data = mreq->data;
		mreq->data = (struct coord_bytes){0};
	}
	request_end(membership, status);
}

/* A leave for good failed: its caller is told, and it is tried again, unless something else is wanted by
 * now. What is not known as ours is not insisted on. */
static bool leave_again(struct membership *membership, struct member_req *mreq, int status)
{
	struct coord *coord = membership->coord;
	struct coord_req *req = mreq->req;
	bool last = mreq->link.next == &membership->queue;
	if (!mreq->for_good || !last || coord->stopping)
		return false;
	if (!membership->grant && !core_transient(status))
		return false;
	coord_timer_start(
		coord->loop, &membership->again, coord_now_ms(coord->loop) + LEAVE_PAUSE_MS);
	if (req) {
		req->gone = NULL;
		mreq->req = NULL;
		core_req_answer(req, status, NULL, 0);
	}
	return true;
}

static void leave_done(struct coord_op *op, void *user)
{
	struct membership *membership = user;
	struct member_req *mreq = first_req(membership);
	int status = op->status;
	membership->op = NULL;
	core_op_free(op);
	/* By its grant, -EPERM says that another bears the name now: ours is gone. */
	if (status == -ESTALE || (status == -EPERM && membership->grant))
		status = 0;
	if (status == 0 || status == -ENOENT) {
		membership_dropped(membership);
		/* It may have been lost while this was under way. Who was told that it is left finds it so. */
		if (mreq->req || mreq->for_good)
			membership->rejoining = false;
	} else if (leave_again(membership, mreq, status)) {
		return;
	}
	request_end(membership, status);
}

/* Leaving what this mount did not join: somebody else's, or nobody's. */
static void foreign_done(struct coord_op *op, void *user)
{
	struct membership *membership = user;
	int status = op->status == 0 ? -EACCES : op->status;
	membership->op = NULL;
	core_op_free(op);
	request_end(membership, status);
}

static void request_start(struct membership *membership, struct member_req *mreq)
{
	const struct coord_bytes none = {0};
	bool own = is_own_id(membership->coord, membership->member);
	if (!mreq->leave && membership->grant && mreq->exclusive)
		request_end(membership, -EEXIST);
	else if (!mreq->leave && membership->grant)
		op_start(membership, COORD_CALL_MEMBER_UPDATE, membership->grant, mreq->data, 0,
			update_done);
	else if (!mreq->leave)
		join_start(membership, mreq->data, 0);
	else if (membership->grant)
		op_start(membership, COORD_CALL_MEMBER_LEAVE, membership->grant, none, 0,
			leave_done);
	else if (own)
		op_start(membership, COORD_CALL_MEMBER_LEAVE, NULL, none, COORD_OP_ADOPT,
			leave_done);
	else if (mreq->for_good)
		request_end(membership, 0); /* a loss has done it */
	else
		op_start(membership, COORD_CALL_MEMBER_GET, NULL, none, 0, foreign_done);
}

static void log_member(const struct membership *membership, const char *what)
{
	char group[COORD_NAME_MAX + 1], member[COORD_NAME_MAX + 1];
	if (coord_name_encode(membership->group, group) == 0 &&
		coord_name_encode(membership->member, member) == 0)
		coord_log(LOG_WARNING, "member %s of group %s %s", member, group, what);
}

static void rejoin_done(struct coord_op *op, void *user)
{
	struct membership *membership = user;
	struct coord *coord = membership->coord;
	struct core_grant *grant = membership->pending;
	membership->op = NULL;
	membership->pending = NULL;
	if (op->status == 0) {
		membership->rejoining = false;
		membership_joined(membership, grant, op, NULL);
	} else {
		core_grant_free(grant);
		if (!core_transient(op->status) && op->status != -ESTALE) {
			membership->rejoining = false;
			char what[160];
			snprintf(what, sizeof(what), "could not be joined again: %s",
				op->status == -ENOENT ? "its group is gone"
						      : strerror(-op->status));
			log_member(membership, what);
		} /* else the next epoch tries again */
	}
	core_op_free(op);
	coord->members_busy--;
	membership_next(membership);
	core_stop_check(coord);
}

static void rejoin_start(struct membership *membership)
{
	struct coord *coord = membership->coord;
	membership->pending =
		core_grant_new(coord, (struct coord_key){COORD_MEMBER, membership->group},
			membership->member, COORD_EXCLUSIVE, membership);
	if (!membership->pending)
		return;
	coord->members_busy++;
	op_start(membership, COORD_CALL_MEMBER_JOIN, membership->pending, membership->data,
		COORD_OP_REPLACE_STALE, rejoin_done);
	if (!membership->op)
		coord->members_busy--;
}

static void membership_next(struct membership *membership)
{
	if (membership->op || membership->start.queued || membership->again.active)
		return;
	const struct coord *coord = membership->coord;
	if (is_left_for_good(membership))
		membership->rejoining = false;
	if (membership->rejoining && !coord->stopping) {
		if (coord->session.open && coord->session.connected)
			rejoin_start(membership); /* else the session does when it is back */
		return;
	}
	if (!coord_list_empty(&membership->queue))
		request_start(membership, first_req(membership));
	else if (!membership->grant && !membership->rejoining)
		membership_free(membership);
}

/* ---- requests ---- */

static void request_gone(struct coord_req *req)
{
	((struct member_req *)req->at)->req = NULL;
}

static int member_request(struct coord *coord, struct coord_bytes group, struct coord_bytes member,
	struct member_req template, coord_reply_fn *fn, void *user, struct coord_req **ret_req)
{
	int r = member_names(coord, group, member);
	if (r < 0)
		return r;
	if (coord->stopping)
		return -ESHUTDOWN;
	struct membership *membership = membership_get(coord, group, member);
	struct member_req *mreq = malloc(sizeof(*mreq));
	struct coord_req *req = mreq && membership ? core_req_new(coord, fn, user) : NULL;
	char *copy = req ? malloc(template.data.len + 1) : NULL;
	if (!copy) {
		coord_req_drop(req);
		free(mreq);
		if (membership)
			coord_loop_defer(coord->loop, &membership->start);
		return -ENOMEM;
	}
	*mreq = template;
	mreq->req = req;
	if (template.data.len)
		memcpy(copy, template.data.data, template.data.len);
	mreq->data = (struct coord_bytes){copy, template.data.len};
	req->at = mreq;
	req->gone = request_gone;
	coord_list_add(&membership->queue, &mreq->link);
	coord->members_busy++;
	coord_timer_stop(coord->loop, &membership->again);
	coord_loop_defer(coord->loop, &membership->start);
	if (ret_req)
		*ret_req = req;
	return 0;
}

int coord_member_put(struct coord *coord, struct coord_bytes group, struct coord_bytes member,
	struct coord_bytes data, bool exclusive, uint32_t uid, coord_reply_fn *fn, void *user,
	struct coord_req **ret_req)
{
	if (coord->driver->value_max && data.len > coord->driver->value_max)
		return -EFBIG;
	const struct member_req template = {.exclusive = exclusive, .uid = uid, .data = data};
	return member_request(coord, group, member, template, fn, user, ret_req);
}

int coord_member_leave(struct coord *coord, struct coord_bytes group, struct coord_bytes member,
	coord_reply_fn *fn, void *user, struct coord_req **ret_req)
{
	const struct member_req template = {.leave = true};
	return member_request(coord, group, member, template, fn, user, ret_req);
}

int coord_member_forgo(struct coord *coord, struct coord_bytes group, struct coord_bytes member,
	coord_reply_fn *fn, void *user, struct coord_req **ret_req)
{
	const struct member_req template = {.leave = true, .for_good = true};
	if (!membership_find(coord, group, member) && !is_own_id(coord, member))
		return -ENOENT;
	return member_request(coord, group, member, template, fn, user, ret_req);
}

bool coord_membership_find(struct coord *coord, struct coord_bytes group, struct coord_bytes member,
	struct coord_membership_info *ret)
{
	struct membership *membership = membership_find(coord, group, member);
	if (!membership || !membership->grant)
		return false;
	bool leaving = false;
	const struct member_req *mreq;
	coord_list_each (mreq, &membership->queue, link)
		leaving = leaving || mreq->for_good;
	*ret = (struct coord_membership_info){.uid = membership->uid,
		.leaving = leaving,
		.joined_us = membership->joined_us,
		.updated_us = membership->updated_us,
		.data = membership->data};
	return true;
}

bool coord_member_ours(struct coord *coord, struct coord_bytes group, struct coord_bytes member)
{
	struct membership *membership = membership_find(coord, group, member);
	return (membership && membership->grant) || is_own_id(coord, member);
}

/* ---- what the session tells ---- */

void core_members_grant_lost(struct core_grant *grant)
{
	struct membership *membership = grant->owner;
	if (membership->grant != grant)
		return;
	struct coord *coord = membership->coord;
	bool gone = grant->gone, late = grant->late;
	/* Removed by somebody it stays away; lost in any other way it is joined again. */
	membership->rejoining = !gone && !is_left_for_good(membership) && !coord->stopping;
	membership_dropped(membership); /* and the grant is freed */
	if (gone)
		log_member(membership, "was removed by somebody else");
	else if (late && membership->rejoining)
		log_member(membership,
			"was lost: its lease was not renewed in time; it is joined again when the "
			"backend is back");
	if (!membership->op)
		coord_loop_defer(coord->loop, &membership->start);
}

void core_members_epoch(struct coord *coord)
{
	struct coord_node *node = NULL;
	while ((node = coord_table_next(&coord->members, node))) {
		struct membership *membership = (struct membership *)node;
		if (membership->again.active) {
			coord_timer_stop(coord->loop, &membership->again);
			coord_loop_defer(coord->loop, &membership->start);
		} else if (membership->rejoining) {
			membership_next(membership);
		}
	}
}

void core_members_stop(struct coord *coord)
{
	struct coord_node *node = NULL;
	while ((node = coord_table_next(&coord->members, node))) {
		struct membership *membership = (struct membership *)node;
		struct member_req *mreq = calloc(1, sizeof(*mreq));
		membership->rejoining = false;
		if (membership->again.active) {
			coord_timer_stop(coord->loop, &membership->again);
			coord_loop_defer(coord->loop, &membership->start);
		}
		if (!membership->grant || !mreq) {
			free(mreq); /* close lets go of it */
			continue;
		}
		mreq->leave = true;
		coord_list_add(&membership->queue, &mreq->link);
		coord->members_busy++;
		coord_loop_defer(coord->loop, &membership->start);
	}
}

bool core_members_idle(const struct coord *coord)
{
	return coord->members_busy == 0;
}

void core_members_done(struct coord *coord)
{
	struct coord_node *node;
	while ((node = coord_table_first(&coord->members))) {
		struct membership *membership = (struct membership *)node;
		struct member_req *mreq, *next;
		coord_list_each_safe (mreq, next, &membership->queue, link) {
			if (mreq->req)
				mreq->req->gone = NULL;
			free((char *)mreq->data.data);
			free(mreq);
		}
		membership_free(membership);
	}
	coord_table_done(&coord->members);
}
