/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ops: their memory, their order on the way to the driver, and what happens when they fail there; and
 * requests, which are what the outside asks for and which are answered by their deadline whatever
 * becomes of the op that serves them.
 *
 *   new -> queued -> running -> done -> (freed, or queued again)
 *
 * An op is held back while there is no connection, or while the driver has as many as it takes. An
 * answer that says "not sent", or one of which nothing is known, to a call that may be repeated
 * sends the op round again; locks.c and members.c settle those that may not.
 */
#include "coord/core.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

enum {
	ARENA_MAX = 64 << 20, /* bytes of one reply */
	CHUNK_MIN = 4096,
	SPARE_MAX = 64,
	PAUSE_MS = 50, /* before trying again while connected */
	PROBE_MS = 1000, /* until one more request is let through to a backend that timed out */
};

struct coord_chunk {
	struct coord_chunk *next;
	size_t used, size;
	_Alignas(8) char data[];
};

static struct coord_op_core *core_of(struct coord_op *op)
{
	return op->core;
}

/* ---- the arena ---- */

void *coord_op_alloc(struct coord_op *op, size_t len)
{
	struct coord_op_core *core = core_of(op);
	if (len > ARENA_MAX || core->arena_used + len > ARENA_MAX) {
		core->full = true;
		return NULL;
	}
	len = (len + 7) & ~(size_t)7;
	core->arena_used += len;
	if (core->inline_used + len <= sizeof(core->inline_arena)) {
		void *ret = core->inline_arena + core->inline_used;
		core->inline_used += len;
		return memset(ret, 0, len);
	}
	struct coord_chunk *chunk = core->chunks;
	if (!chunk || chunk->used + len > chunk->size) {
		/* Chunks double, so that a reply of n bytes costs O(log n) allocations. */
		size_t size = chunk ? chunk->size * 2 : CHUNK_MIN;
		if (size > 1 << 20)
			size = 1 << 20;
		if (size < len)
			size = len;
		chunk = malloc(sizeof(*chunk) + size);
		if (!chunk)
			return NULL;
		*chunk = (struct coord_chunk){.next = core->chunks, .size = size};
		core->chunks = chunk;
	}
	void *ret = chunk->data + chunk->used;
	chunk->used += len;
	return memset(ret, 0, len);
}

struct coord_bytes coord_op_copy(struct coord_op *op, const void *data, size_t len)
{
	char *copy = coord_op_alloc(op, len + 1);
	if (!copy)
		return (struct coord_bytes){0};
	if (len)
		memcpy(copy, data, len);
	return (struct coord_bytes){copy, len};
}

void coord_op_explain(struct coord_op *op, const char *format, ...)
{
	_cleanup_free_ char *text = NULL;
	va_list args;
	va_start(args, format);
	int len = vasprintf(&text, format, args);
	va_end(args);
	if (len < 0) {
		text = NULL;
		return;
	}
	op->error = coord_op_copy(op, text, (size_t)len).data;
}

struct coord_row *coord_op_row(struct coord_op *op)
{
	struct coord_row *row = coord_op_alloc(op, sizeof(*row));
	if (!row)
		return NULL;
	*op->rows_end = row;
	op->rows_end = &row->next;
	op->rows_len++;
	return row;
}

void *coord_op_data(struct coord_op *op)
{
	return core_of(op)->data;
}

static void arena_done(struct coord_op_core *core)
{
	while (core->chunks) {
		struct coord_chunk *next = core->chunks->next;
		free(core->chunks);
		core->chunks = next;
	}
}

/* ---- ops ---- */

static void op_deliver(struct coord_task *task);

static struct coord_op_core *op_alloc(struct coord *coord)
{
	struct coord_op_core *core = coord->spare;
	if (!core)
		return malloc(sizeof(*core) + coord->driver->op_size);
	coord->spare = core->user;
	coord->spare_len--;
	return core;
}

struct coord_op *core_op_new(struct coord *coord, enum coord_call call, struct coord_key key,
	struct coord_bytes member, struct coord_bytes data)
{
	struct coord_op_core *core = op_alloc(coord);
	if (!core)
		return NULL;
	memset(core, 0, offsetof(struct coord_op_core, inline_arena));
	memset(core->data, 0, coord->driver->op_size);
	core->coord = coord;
	core->task.fn = op_deliver;
	coord_list_init(&core->link);
	struct coord_op *op = &core->op;
	op->core = core;
	op->call = call;
	op->epoch = coord->session.epoch;
	op->rows_end = &op->rows;
	coord_list_init(&op->link);
	op->key.kind = key.kind;
	op->key.name = coord_op_copy(op, key.name.data, key.name.len);
	op->member = coord_op_copy(op, member.data, member.len);
	op->data = coord_op_copy(op, data.data, data.len);
	if (op->key.name.data && op->member.data && op->data.data)
		return op;
	core_op_free(op);
	return NULL;
}

void core_op_free(struct coord_op *op)
{
	if (!op)
		return;
	struct coord_op_core *core = core_of(op);
	struct coord *coord = core->coord;
	assert(core->state != CORE_OP_RUNNING);
	coord_list_remove(&core->link);
	if (core->counted && --core_grant_of(op->grant)->ops == 0 && core_grant_of(op->grant)->dead)
		core_grant_free(core_grant_of(op->grant));
	arena_done(core);
	if (coord->spare_len < SPARE_MAX) {
		core->user = coord->spare;
		coord->spare = core;
		coord->spare_len++;
	} else {
		free(core);
	}
}

bool core_transient(int status)
{
	return status == -EHOSTDOWN || status == -ETIMEDOUT || status == -ECANCELED ||
	       status == -EHOSTUNREACH;
}

static coord_driver_call *op_call(const struct coord_driver *driver, enum coord_call call)
{
	coord_driver_call *const calls[COORD_CALLS] = {
		[COORD_CALL_OPEN] = driver->open,
		[COORD_CALL_CLOSE] = driver->close,
		[COORD_CALL_RENEW] = driver->renew,
		[COORD_CALL_GROUP_CREATE] = driver->group_create,
		[COORD_CALL_GROUP_DELETE] = driver->group_delete,
		[COORD_CALL_GROUP_LIST] = driver->group_list,
		[COORD_CALL_GROUP_READ] = driver->group_read,
		[COORD_CALL_MEMBER_JOIN] = driver->member_join,
		[COORD_CALL_MEMBER_UPDATE] = driver->member_update,
		[COORD_CALL_MEMBER_LEAVE] = driver->member_leave,
		[COORD_CALL_MEMBER_GET] = driver->member_get,
		[COORD_CALL_LOCK] = driver->lock,
		[COORD_CALL_CONVERT] = driver->convert,
		[COORD_CALL_UNLOCK] = driver->unlock,
		[COORD_CALL_LOCK_CHECK] = driver->lock_check,
		[COORD_CALL_LOCK_READ] = driver->lock_read,
		[COORD_CALL_LOCK_LIST] = driver->lock_list,
		[COORD_CALL_LOCK_BREAK] = driver->lock_break,
	};
	return calls[call];
}

static bool op_of_session(const struct coord_op *op)
{
	return op->call == COORD_CALL_OPEN || op->call == COORD_CALL_CLOSE ||
	       op->call == COORD_CALL_RENEW;
}

/* Its session is gone, and the grant with it. */
static bool op_of_past(const struct coord_op_core *core)
{
	const struct coord_op *op = &core->op;
	bool stays = core->coord->driver->grants_stay && op->call == COORD_CALL_UNLOCK;
	return op->grant && op->epoch != core->coord->session.epoch && !stays;
}

static void op_run(struct coord_op_core *core)
{
	struct coord *coord = core->coord;
	struct coord_op *op = &core->op;
	core->state = CORE_OP_RUNNING;
	coord_list_remove(&core->link);
	coord_list_add(&coord->running, &core->link);
	if (op->flags & COORD_OP_WAIT)
		coord->waits_len++;
	else
		coord->running_len++;
	if (!op->grant)
		op->epoch = coord->session.epoch;
	op->status = 0;
	op->sent = COORD_SENT_ANSWERED;
	core->started_us = coord_now_us(coord->loop);
	op->sent_ms = core->started_us / 1000;
	op->ttl_ms = op->retry_ms = 0;
	op->rows = NULL;
	op->rows_end = &op->rows;
	op->rows_len = 0;
	op->next_cursor = (struct coord_bytes){0};
	coord->counters.ops[op->call]++;
	coord_driver_call *call = op_call(coord->driver, op->call);
	core->unasked = op_of_past(core) || !call;
	if (core->unasked)
		coord_op_fail(op, call ? -ESTALE : -EOPNOTSUPP);
	else
		call(&coord->session, op);
}

static bool ops_room(const struct coord *coord)
{
	return coord->session.open && coord->session.connected &&
	       (coord->driver->ops_max == 0 || coord->running_len < coord->driver->ops_max);
}

static size_t op_queue(const struct coord_op *op)
{
	if (op->call == COORD_CALL_UNLOCK)
		return 1;
	if (op->call == COORD_CALL_LOCK || op->call == COORD_CALL_CONVERT)
		return 2;
	return op_of_session(op) ? 0 : 3;
}

void core_ops_run(struct coord *coord)
{
	for (size_t i = 0; i < CORE_QUEUES; i++)
		while (!coord_list_empty(&coord->queued[i]) && ops_room(coord))
			op_run(coord_container(coord->queued[i].next, struct coord_op_core, link));
}

void core_op_start(struct coord_op *op, void (*fn)(struct coord_op *, void *user), void *user)
{
	struct coord_op_core *core = core_of(op);
	struct coord *coord = core->coord;
	assert(core->state != CORE_OP_RUNNING && core->state != CORE_OP_QUEUED);
	core->fn = fn;
	core->user = user;
	if (op->grant && !core->counted) {
		core->counted = true;
		core_grant_of(op->grant)->ops++;
	}
	if (op_of_session(op)) {
		op_run(core);
		return;
	}
	core->state = CORE_OP_QUEUED;
	coord_list_add(&coord->queued[op_queue(op)], &core->link);
	core_ops_run(coord);
}

void core_op_cancel(struct coord_op *op)
{
	struct coord_op_core *core = core_of(op);
	struct coord *coord = core->coord;
	if (core->cancelled)
		return;
	core->cancelled = true;
	if (core->state == CORE_OP_RUNNING) {
		if (coord->driver->cancel && !core->task.queued)
			coord->driver->cancel(&coord->session, op);
	} else if (core->state == CORE_OP_QUEUED) {
		/* Never sent: answer from the loop as if the driver had. */
		coord_list_remove(&core->link);
		coord_list_add(&coord->running, &core->link);
		if (op->flags & COORD_OP_WAIT)
			coord->waits_len++;
		else
			coord->running_len++;
		core->state = CORE_OP_RUNNING;
		op->sent = COORD_SENT_NO;
		coord_op_fail(op, -ECANCELED);
	}
}

void core_op_abandon(struct coord_op *op)
{
	struct coord_op_core *core = core_of(op);
	core->fn = NULL;
	if (core->state == CORE_OP_RUNNING)
		core_op_cancel(op);
	else
		core_op_free(op);
}

void coord_op_done(struct coord_op *op)
{
	struct coord_op_core *core = core_of(op);
	struct coord *coord = core->coord;
	if (pthread_equal(pthread_self(), coord->thread))
		coord_loop_defer(coord->loop, &core->task);
	else
		coord_loop_post(coord->loop, &core->task);
}

/* Joining again what a loss took: it replaces what an earlier attempt left. */
static bool op_rejoins(const struct coord_op *op)
{
	return op->call == COORD_CALL_MEMBER_JOIN && (op->flags & COORD_OP_REPLACE_STALE);
}

/* May the call be made again although it may have had its effect? */
static bool op_repeatable(const struct coord_op *op)
{
	if (op->call == COORD_CALL_MEMBER_JOIN)
		return op->sent == COORD_SENT_NO || op_rejoins(op);
	return !op_of_session(op) && op->call != COORD_CALL_LOCK;
}

static bool op_again(struct coord_op_core *core)
{
	struct coord_op *op = &core->op;
	if (!core->fn || core->cancelled || !core_transient(op->status) || !op_repeatable(op))
		return false;
	if (op_of_past(core))
		return false;
	if (op->deadline_ms && coord_now_ms(core->coord->loop) >= op->deadline_ms)
		return false;
	return op->sent != COORD_SENT_ANSWERED || op->call == COORD_CALL_UNLOCK || op_rejoins(op) ||
	       op->status == -ECANCELED;
}

/* After an attempt of which nothing is known, the wished state is as good as having made it. */
static void op_forgive(struct coord_op_core *core)
{
	struct coord_op *op = &core->op;
	if (!core->unknown)
		return;
	if (op->call == COORD_CALL_GROUP_CREATE && op->status == -EEXIST)
		op->status = 0;
	if ((op->call == COORD_CALL_GROUP_DELETE || op->call == COORD_CALL_MEMBER_LEAVE ||
		    op->call == COORD_CALL_LOCK_BREAK) &&
		op->status == -ENOENT)
		op->status = 0;
}

/* Backends need not tell a client of its own doing. */
static bool changes_group(const struct coord_op *op)
{
	switch ((int)op->call) {
	case COORD_CALL_GROUP_CREATE:
	case COORD_CALL_GROUP_DELETE:
	case COORD_CALL_MEMBER_JOIN:
	case COORD_CALL_MEMBER_UPDATE:
	case COORD_CALL_MEMBER_LEAVE:
		return true;
	case COORD_CALL_LOCK:
	case COORD_CALL_UNLOCK:
	case COORD_CALL_LOCK_BREAK:
		return op->key.kind == COORD_LEADER;
	default:
		return false;
	}
}

static void op_deliver(struct coord_task *task)
{
	struct coord_op_core *core = coord_container(task, struct coord_op_core, task);
	struct coord *coord = core->coord;
	struct coord_op *op = &core->op;
	assert(core->state == CORE_OP_RUNNING);
	coord_list_remove(&core->link);
	if (op->flags & COORD_OP_WAIT)
		coord->waits_len--;
	else
		coord->running_len--;
	core->state = CORE_OP_DONE;
	if (op->status == -ENOMEM && core->full)
		op->status = -EFBIG;
	if (op->status < 0)
		coord->counters.errors[op->call]++;
	if (core->started_us && !(op->flags & COORD_OP_WAIT))
		core_count_latency(coord, op->call, coord_now_us(coord->loop) - core->started_us);
	core->started_us = 0;
	/* What is heard from a session that is being given up is no answer: the next one is asked. */
	if (coord->session.closing && op->status == -EIO && !op_of_session(op)) {
		op->status = -ECANCELED;
		op->sent = COORD_SENT_UNKNOWN;
	}
	if (!core_transient(op->status) && !core->unasked)
		core_answered(coord);
	if (op->sent == COORD_SENT_UNKNOWN)
		core->unknown = true;
	if (op->call == COORD_CALL_GROUP_CREATE || op->call == COORD_CALL_GROUP_DELETE)
		core_views_touch(coord, COORD_GROUP, op->key.name);
	if (changes_group(op))
		core_follows_touch(coord, op->key.name);
	if (op_again(core)) {
		core->state = CORE_OP_QUEUED;
		coord_list_add(&coord->delayed, &core->link);
		if (!coord->ops_timer.active)
			coord_timer_start(coord->loop, &coord->ops_timer,
				coord_now_ms(coord->loop) + PAUSE_MS);
	} else if (core->fn) {
		op_forgive(core);
		core->fn(op, core->user);
	} else {
		core_op_free(op);
	}
	core_ops_run(coord);
}

/* ops_timer: the pause is over. */
static void ops_resume(struct coord *coord)
{
	while (!coord_list_empty(&coord->delayed)) {
		struct coord_op_core *core =
			coord_container(coord->delayed.next, struct coord_op_core, link);
		coord_list_remove(&core->link);
		coord_list_add(&coord->queued[op_queue(&core->op)], &core->link);
	}
	core_ops_run(coord);
}

void core_ops_timer(struct coord_timer *timer)
{
	ops_resume(coord_container(timer, struct coord, ops_timer));
}

static struct coord_op_core *first_queued(struct coord *coord)
{
	for (size_t i = 0; i < CORE_QUEUES; i++)
		if (!coord_list_empty(&coord->queued[i]))
			return coord_container(coord->queued[i].next, struct coord_op_core, link);
	return NULL;
}

void core_ops_flush(struct coord *coord, int status)
{
	struct coord_op_core *core;
	ops_resume(coord);
	/* What one is answered may lead to another: a lock of which nothing is known to a release. */
	while ((core = first_queued(coord))) {
		coord_list_remove(&core->link);
		core->state = CORE_OP_DONE;
		core->op.status = status;
		core->op.sent = COORD_SENT_NO;
		if (core->fn)
			core->fn(&core->op, core->user);
		else
			core_op_free(&core->op);
	}
}

/* ---- requests ---- */

static void req_free(struct coord_req *req)
{
	struct coord *coord = req->coord;
	if (req->task.queued)
		coord_loop_undefer(coord->loop, &req->task);
	coord_timer_stop(coord->loop, &req->deadline);
	coord_list_remove(&req->link);
	if (req->gone)
		req->gone(req);
	if (req->op)
		core_op_abandon(req->op);
	struct coord_op_core *page, *next;
	coord_list_each_safe (page, next, &req->page_ops, link)
		core_op_free(&page->op);
	free(req);
}

void core_req_answer(struct coord_req *req, int status, const struct coord_row *rows, size_t len)
{
	coord_timer_stop(req->coord->loop, &req->deadline);
	if (req->fn)
		req->fn(req->user, status, rows, len);
	else if (req->look_fn && status < 0)
		req->look_fn(req->user, status, NULL);
	req_free(req);
}

static void req_task(struct coord_task *task)
{
	struct coord_req *req = coord_container(task, struct coord_req, task);
	core_req_answer(req, req->status, NULL, 0);
}

void core_req_answer_later(struct coord_req *req, int status)
{
	req->status = status;
	req->task.fn = req_task;
	coord_loop_defer(req->coord->loop, &req->task);
}

void core_answered(struct coord *coord)
{
	coord->stalled = coord->slow = false;
}

void coord_unanswered(struct coord *coord, uint64_t limit_ms)
{
	coord->slow = true;
	coord->stalled = coord->stalled || limit_ms >= coord->config->timeout_ms;
	coord->probe_ms = coord_now_ms(coord->loop) + PROBE_MS;
}

static void req_deadline(struct coord_timer *timer)
{
	struct coord_req *req = coord_container(timer, struct coord_req, deadline);
	struct coord *coord = req->coord;
	if (req->fn || req->look_fn) {
		coord->counters.timeouts++;
		coord_unanswered(coord, coord->config->timeout_ms);
	}
	core_req_answer(req, core_away(coord), NULL, 0);
}

struct coord_req *core_req_new(struct coord *coord, coord_reply_fn *fn, void *user)
{
	struct coord_req *req = malloc(sizeof(*req));
	if (!req)
		return NULL;
	*req = (struct coord_req){.coord = coord, .fn = fn, .user = user};
	req->pages_end = &req->pages;
	coord_list_init(&req->page_ops);
	coord_list_init(&req->member_link);
	coord_list_init(&req->view_link);
	coord_list_add(&coord->reqs, &req->link);
	req->deadline.fn = req_deadline;
	coord_timer_start(
		coord->loop, &req->deadline, coord_now_ms(coord->loop) + coord->config->timeout_ms);
	return req;
}

/* One more page of a list. */
static void req_page(struct coord_req *req, struct coord_op *op)
{
	struct coord *coord = req->coord;
	struct coord_op *more = core_op_new(coord, op->call, op->key, op->member, op->data);
	if (more)
		more->cursor = coord_op_copy(more, op->next_cursor.data, op->next_cursor.len);
	*req->pages_end = op->rows;
	if (op->rows)
		req->pages_end = op->rows_end;
	req->pages_len += op->rows_len;
	coord_list_add(&req->page_ops, &core_of(op)->link);
	if (!more || !more->cursor.data) {
		core_op_free(more);
		core_req_answer(req, -ENOMEM, NULL, 0);
		return;
	}
	more->flags = op->flags;
	core_req_start(req, more);
}

static void req_op_done(struct coord_op *op, void *user)
{
	struct coord_req *req = user;
	req->op = NULL;
	if (op->status == 0 && op->next_cursor.len > 0) {
		req_page(req, op);
		return;
	}
	coord_list_add(&req->page_ops, &core_of(op)->link);
	*req->pages_end = op->rows;
	req->pages_len += op->rows_len;
	core_req_answer(req, op->status, op->status < 0 ? NULL : req->pages, req->pages_len);
}

/* Nobody has answered; does one more have to ask? Not while there is no connection: who makes a new one will
 * tell. Nor while an answer is still to come, which will tell as well, unless it takes too long. */
static bool probe_due(const struct coord *coord, uint64_t now)
{
	uint64_t due = coord->probe_ms + (coord->running_len ? coord->config->timeout_ms : 0);
	return coord->session.connected && now >= due;
}

bool core_answers_apart(const struct coord *coord)
{
	return coord->driver->loss[COORD_LOCK] == COORD_LOSS_PROCESS;
}

int coord_in_vain(const struct coord *coord, uint64_t limit_ms)
{
	const struct coord_session *session = &coord->session;
	uint64_t now = coord_now_ms(coord->loop);
	bool all = limit_ms >= coord->config->timeout_ms;
	bool down = !session->connected && now >= session->down_ms + limit_ms;
	if (!coord->ready || coord->stopped)
		return 0;
	if (!all && !down && core_answers_apart(coord))
		return 0;
	if (!down && !coord->stalled && (all || !coord->slow))
		return 0;
	return probe_due(coord, now) ? 0 : core_away(coord);
}

bool core_req_refused(struct coord_req *req)
{
	struct coord *coord = req->coord;
	int r = coord->stopped ? -ESHUTDOWN : coord_in_vain(coord, coord->config->timeout_ms);
	if (r < 0)
		core_req_answer_later(req, r);
	return r < 0;
}

void core_req_start(struct coord_req *req, struct coord_op *op)
{
	req->op = op;
	op->deadline_ms = req->deadline.due_ms;
	if (!core_req_refused(req))
		core_op_start(op, req_op_done, req);
}

void coord_req_drop(struct coord_req *req)
{
	if (!req)
		return;
	req->fn = NULL;
	req->look_fn = NULL;
	/* A request that changes something goes on; its answer is nobody's. */
	if (req->gone)
		return;
	req_free(req);
}

int core_request(struct coord *coord, enum coord_call call, struct coord_key key,
	struct coord_bytes member, unsigned flags, coord_reply_fn *fn, void *user,
	struct coord_req **ret_req)
{
	struct coord_req *req = core_req_new(coord, fn, user);
	struct coord_op *op = req ? core_op_new(coord, call, key, member, COORD_BYTES("")) : NULL;
	if (!op) {
		coord_req_drop(req);
		return -ENOMEM;
	}
	op->flags = flags;
	core_req_start(req, op);
	if (ret_req)
		*ret_req = req;
	return 0;
}

void core_ops_done(struct coord *coord)
{
	/* The driver's session is gone: nothing answers any more. */
	while (!coord_list_empty(&coord->running)) {
		struct coord_op_core *core =
			coord_container(coord->running.next, struct coord_op_core, link);
		coord_loop_undefer(coord->loop, &core->task);
		core->state = CORE_OP_DONE;
		core_op_free(&core->op);
	}
	while (coord->spare) {
		struct coord_op_core *next = coord->spare->user;
		free(coord->spare);
		coord->spare = next;
	}
}
