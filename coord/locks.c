/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lock table: which holdings of this mount hold or want which name.
 *
 * For each name there is one core_lock with
 *   - at most one backend grant (exclusive, or shared by all local sharers),
 *   - at most one acquiring op, on behalf of the first live ticket,
 *   - the holders, and the tickets in the order of arrival,
 *   - releases that the backend has not confirmed yet.
 * Everything that happens ends in lock_pump(), the one loop that decides what is next. A ticket keeps
 * a place, never a lock: it is skipped while no request is live, and a backend grant that finds no live
 * ticket is released at once.
 *
 * For drivers without a queue of their own the pump tries, and when the answer is "busy" waits for a
 * notice, or for retry_ms, and tries again.
 */
#include "coord/core.h"

#include <assert.h>
#include <stdio.h>
#include <syslog.h>

enum {
	PLACE_MS = 5000, /* how long a ticket outlives its interrupted request */
	SHORT_MS = 1000, /* a try with COORD_LOCK_SHORT */
	YIELD_MS = 2, /* the pause after a release for which another host waits */
	PAUSE_MS = 100, /* after an error that may pass */
	POLL_MS = 100, /* where the driver names no period */
};

struct core_lock {
	struct coord_node node; /* in coord->locks, by canonical key */
	struct coord *coord;
	struct coord_key key; /* as first named */
	struct coord_list holdings; /* all, for the lifetime */
	struct coord_list holders; /* those that hold */
	struct coord_list tickets;
	struct coord_list releases; /* core_release */
	struct core_grant *grant; /* held; NULL for free and for local locks */
	struct coord_op *acquiring; /* LOCK, or LOCK_CHECK that settles one */
	struct core_grant *pending; /* its grant */
	struct coord_op *converting;
	struct coord_ticket *upgrader; /* an atomic upgrade that waits, not in tickets */
	struct coord_timer timer; /* when to try again */
	struct coord_task pump;
	bool local; /* excludes on this mount only */
	bool watched, changed, contended,
		blocked; /* blocked: do not try before the timer or a notice */
	char name[];
};

struct coord_ticket {
	struct coord_list link; /* in the lock's tickets */
	struct coord_list hlink; /* in the holding's tickets */
	struct coord_holding *holding;
	enum coord_mode mode;
	bool wait, atomic;
	struct coord_list waits; /* live requests; empty: only the place is kept */
	struct coord_timer timer; /* the deadline of a try, or the end of a kept place */
};

/* Somebody who wants to know when a release is confirmed. */
struct unlock_wait {
	struct coord_list link;
	struct coord_holding *holding;
	void (*fn)(void *user, int status);
	struct coord_req *req; /* a barrier instead of fn */
	void *user;
	struct coord_task task;
	bool used;
};

struct core_release {
	struct coord_list link;
	struct core_grant *grant;
	struct coord_list waits;
	uint64_t stamp;
};

struct coord_holding {
	struct coord *coord;
	struct core_lock *lock;
	struct coord_list link; /* in lock->holdings */
	struct coord_list hlink; /* in lock->holders while held */
	struct coord_list tickets;
	void *user;
	enum coord_holding_state state;
	enum coord_mode mode;
	uint64_t token, since_us;
	uint32_t pid, uid;
	char *leader; /* LEADER: the id to lead under, if not our own */
	size_t leader_len;
	struct unlock_wait unlock; /* the usual one; more are allocated */
	bool zombie; /* freed by its owner while unlock is still to be answered */
};

static void lock_pump(struct core_lock *lock);
static void lock_free_if_idle(struct core_lock *lock);

static void lock_later(struct core_lock *lock)
{
	coord_loop_defer(lock->coord->loop, &lock->pump);
}

/* ---- answers ---- */

static void wait_task(struct coord_task *task)
{
	struct coord_wait *wait = coord_container(task, struct coord_wait, task);
	wait->fn(wait, wait->status);
}

static void wait_answer(struct coord *coord, struct coord_wait *wait, int status)
{
	coord_list_remove(&wait->link);
	if (wait->ticket)
		coord->counters.waiters--;
	wait->ticket = NULL;
	wait->status = status;
	wait->loop = coord->loop;
	wait->task.fn = wait_task;
	coord_loop_defer(coord->loop, &wait->task);
}

static void wait_forget(struct coord_wait *wait)
{
	coord_list_remove(&wait->link);
	wait->ticket->holding->coord->counters.waiters--;
	wait->ticket = NULL;
}

static void ticket_free(struct coord_ticket *ticket)
{
	if (ticket->holding->lock->upgrader == ticket)
		ticket->holding->lock->upgrader = NULL;
	coord_timer_stop(ticket->holding->coord->loop, &ticket->timer);
	coord_list_remove(&ticket->link);
	coord_list_remove(&ticket->hlink);
	free(ticket);
}

/* Answers every request of the ticket and ends it. */
static void ticket_answer(struct coord_ticket *ticket, int status)
{
	struct coord *coord = ticket->holding->coord;
	while (!coord_list_empty(&ticket->waits))
		wait_answer(coord, coord_container(ticket->waits.next, struct coord_wait, link),
			status);
	ticket_free(ticket);
}

static void ticket_timer(struct coord_timer *timer)
{
	struct coord_ticket *ticket = coord_container(timer, struct coord_ticket, timer);
	struct core_lock *lock = ticket->holding->lock;
	ticket_answer(ticket, lock->coord->session.connected ? -ETIMEDOUT : -EHOSTDOWN);
	lock_later(lock);
}

static void unlock_answer(struct unlock_wait *wait)
{
	struct coord_holding *holding = wait->holding;
	coord_list_remove(&wait->link);
	wait->used = false;
	if (wait->req) {
		core_req_answer(wait->req, 0, NULL, 0);
		free(wait);
		return;
	}
	void (*fn)(void *user, int status) = wait->fn;
	void *user = wait->user;
	if (wait != &holding->unlock)
		free(wait);
	else if (holding->zombie)
		free(holding);
	fn(user, 0);
}

static void unlock_task(struct coord_task *task)
{
	unlock_answer(coord_container(task, struct unlock_wait, task));
}

/* ---- what is held ---- */

static enum coord_mode lock_mode(const struct core_lock *lock)
{
	if (coord_list_empty(&lock->holders))
		return COORD_NONE;
	return coord_container(lock->holders.next, struct coord_holding, hlink)->mode;
}

static void holding_grant(struct coord_holding *holding, enum coord_mode mode)
{
	struct core_lock *lock = holding->lock;
	struct core_grant *grant = lock->grant;
	if (holding->state != COORD_HELD) {
		coord_list_add(&lock->holders, &holding->hlink);
		if (!lock->local)
			lock->coord->counters.locks_held++;
	}
	holding->state = COORD_HELD;
	holding->mode = mode;
	holding->token = grant ? grant->grant.token : 0;
	holding->since_us = grant ? grant->grant.since_us : coord_utc_us(lock->coord->loop);
}

static void holding_drop(struct coord_holding *holding, enum coord_holding_state state)
{
	if (holding->state == COORD_HELD) {
		coord_list_remove(&holding->hlink);
		if (!holding->lock->local)
			holding->coord->counters.locks_held--;
	}
	holding->state = state;
	holding->mode = COORD_NONE;
	holding->token = holding->since_us = 0;
}

/* ---- releases ---- */

static void release_start(struct core_release *release);

static void release_end(struct core_release *release, bool confirmed)
{
	struct core_grant *grant = release->grant;
	struct core_lock *lock = grant->owner;
	struct coord *coord = lock->coord;
	coord_list_remove(&release->link);
	if (confirmed)
		core_views_freed(coord, lock->key.kind, lock->key.name, release->stamp);
	while (!coord_list_empty(&release->waits))
		unlock_answer(coord_container(release->waits.next, struct unlock_wait, link));
	core_grant_free(grant);
	free(release);
	coord->locks_busy--;
	lock_later(lock);
	core_stop_check(coord);
}

static void release_done(struct coord_op *op, void *user)
{
	struct core_release *release = user;
	struct coord *coord = release->grant->coord;
	int status = op->status;
	core_op_free(op);
	if (status < 0 && status != -ESTALE && status != -ENOENT && !coord->stopped &&
		release->grant->grant.epoch == coord->session.epoch) {
		coord_log(LOG_ERR, "a release failed: %s", strerror(-status));
	}
	release_end(release, status == 0);
}

static void release_start(struct core_release *release)
{
	struct coord_grant *grant = &release->grant->grant;
	struct coord_op *op = core_op_new(release->grant->coord, COORD_CALL_UNLOCK, grant->key,
		grant->member, (struct coord_bytes){0});
	if (!op) {
		release_end(release, false);
		return;
	}
	op->grant = grant;
	op->epoch = grant->epoch;
	core_op_start(op, release_done, release);
}

/* Gives a grant back; nobody waits for it but who joins release->waits. NULL: no memory, and the
 * backend keeps it until the session ends. */
static struct core_release *grant_release(struct core_lock *lock, struct core_grant *grant)
{
	struct coord *coord = lock->coord;
	struct core_release *release = calloc(1, sizeof(*release));
	grant->held = false;
	coord_timer_stop(coord->loop, &grant->until);
	if (!release)
		return NULL;
	release->grant = grant;
	coord_list_init(&release->waits);
	coord_list_add(&lock->releases, &release->link);
	release->stamp = core_views_stamp(coord, lock->key.kind, lock->key.name);
	coord->locks_busy++;
	release_start(release);
	return release;
}

/* Nobody here holds it any more: back to the backend. */
static void lock_release_grant(struct core_lock *lock)
{
	struct core_grant *grant = lock->grant;
	if (!grant || !coord_list_empty(&lock->holders))
		return;
	lock->grant = NULL;
	grant_release(lock, grant);
}

/* ---- acquiring ---- */

static struct coord_ticket *first_live(struct core_lock *lock)
{
	struct coord_ticket *ticket;
	coord_list_each (ticket, &lock->tickets, link)
		if (!coord_list_empty(&ticket->waits))
			return ticket;
	return NULL;
}

static void lock_unwatch(struct core_lock *lock)
{
	if (lock->watched) {
		lock->watched = false;
		core_watch_unref(lock->coord, lock->key);
	}
}

static void lock_block(struct core_lock *lock, uint64_t ms)
{
	struct coord *coord = lock->coord;
	lock->blocked = true;
	coord_timer_start(coord->loop, &lock->timer, coord_now_ms(coord->loop) + ms);
}

/* A poll's period, jittered by half where no notice comes. */
static uint64_t lock_period(struct core_lock *lock, const struct coord_op *op)
{
	struct coord *coord = lock->coord;
	uint64_t period = op->retry_ms ? op->retry_ms : coord->driver->poll_ms;
	if (period == 0)
		period = POLL_MS;
	if (coord->session.can & COORD_CAN_NOTIFY)
		return op->retry_ms ? op->retry_ms : 1000;
	uint16_t random;
	coord_random(coord->loop, &random, sizeof(random));
	return period / 2 + random % (period / 2 + 1);
}

/* The tries that cannot be served now are told so. */
static void fail_tries(struct core_lock *lock, int status)
{
	struct coord_ticket *ticket, *next;
	coord_list_each_safe (ticket, next, &lock->tickets, link)
		if (!ticket->wait)
			ticket_answer(ticket, status);
}

static void acquire_busy(struct core_lock *lock, struct coord_op *op)
{
	struct coord *coord = lock->coord;
	if ((op->flags & COORD_OP_WATCH) && !lock->watched)
		lock->watched = core_watch_ref(coord, lock->key) == 0;
	fail_tries(lock, -EAGAIN);
	bool again = lock->changed && lock->watched;
	lock->changed = false;
	if (!again)
		lock_block(lock, lock_period(lock, op));
}

static void acquire_done(struct coord_op *op, void *user);

static struct coord_op *acquire_op(struct core_lock *lock, enum coord_call call, unsigned flags)
{
	struct coord_grant *grant = &lock->pending->grant;
	struct coord_op *op =
		core_op_new(lock->coord, call, grant->key, grant->member, (struct coord_bytes){0});
	if (!op)
		return NULL;
	op->grant = grant;
	op->epoch = grant->epoch;
	op->flags = flags;
	op->mode = grant->mode;
	lock->acquiring = op;
	lock->coord->locks_busy++;
	core_op_start(op, acquire_done, lock);
	return op;
}

/* The backend granted it. */
static void acquire_won(struct core_lock *lock, struct coord_op *op)
{
	struct core_grant *grant = lock->pending;
	lock->pending = NULL;
	lock_unwatch(lock);
	lock->contended = false;
	core_views_touch(lock->coord, lock->key.kind, lock->key.name);
	struct coord_ticket *ticket = first_live(lock);
	bool wanted = ticket &&
		      (ticket->mode == grant->grant.mode || grant->grant.mode == COORD_EXCLUSIVE);
	if (core_grant_held(grant, op) < 0 || grant->grant.epoch != lock->coord->session.epoch ||
		!wanted || lock->coord->stopping) {
		grant_release(lock, grant);
		return;
	}
	lock->grant = grant;
}

static void acquire_failed(struct core_lock *lock, struct coord_op *op)
{
	struct coord *coord = lock->coord;
	if (op->call == COORD_CALL_LOCK && op->sent == COORD_SENT_UNKNOWN && !coord->stopped &&
		op->epoch == coord->session.epoch) {
		/* It may be ours: ask by the owner value. */
		if (acquire_op(lock, COORD_CALL_LOCK_CHECK, 0))
			return;
	}
	core_grant_free(lock->pending);
	lock->pending = NULL;
	if (op->call == COORD_CALL_LOCK_CHECK || op->status == -ECANCELED || op->status == -ESTALE)
		return;
	if (op->status == -EBUSY) {
		acquire_busy(lock, op);
		return;
	}
	if (core_transient(op->status)) {
		fail_tries(lock, op->status);
		lock_block(lock, PAUSE_MS);
		return;
	}
	struct coord_ticket *ticket = first_live(lock);
	if (ticket)
		ticket_answer(ticket, op->status);
}

static void acquire_done(struct coord_op *op, void *user)
{
	struct core_lock *lock = user;
	struct coord *coord = lock->coord;
	lock->acquiring = NULL;
	coord->locks_busy--;
	if (op->status == 0)
		acquire_won(lock, op);
	else
		acquire_failed(lock, op);
	core_op_free(op);
	lock_pump(lock);
	core_stop_check(coord);
}

static void acquire_start(struct core_lock *lock, struct coord_ticket *ticket)
{
	struct coord *coord = lock->coord;
	struct coord_holding *holding = ticket->holding;
	struct coord_bytes member = coord_bytes_of(coord->config->member);
	if (holding->leader)
		member = (struct coord_bytes){holding->leader, holding->leader_len};
	lock->pending = core_grant_new(coord, lock->key, member, ticket->mode, lock);
	unsigned flags = 0;
	if (ticket->wait && (coord->session.can & COORD_CAN_QUEUE) &&
		(coord->driver->waits_max == 0 || coord->waits_len < coord->driver->waits_max))
		flags = COORD_OP_WAIT;
	else if (ticket->wait && (coord->session.can & COORD_CAN_NOTIFY))
		flags = COORD_OP_WATCH;
	lock->changed = false;
	if (!lock->pending || !acquire_op(lock, COORD_CALL_LOCK, flags)) {
		core_grant_free(lock->pending);
		lock->pending = NULL;
		ticket_answer(ticket, -ENOMEM);
		lock_later(lock);
	}
}

/* ---- atomic upgrades ---- */

static int convert_start(struct core_lock *lock, enum coord_mode mode);

static void convert_done(struct coord_op *op, void *user)
{
	struct core_lock *lock = user;
	int status = op->status;
	lock->converting = NULL;
	lock->coord->locks_busy--;
	struct coord_ticket *ticket = lock->upgrader;
	if (op->mode == COORD_SHARED) {
		/* A downgrade: if it failed, the grant stays exclusive and serves the sharers here. */
		if (lock->grant && status == 0)
			lock->grant->grant.mode = COORD_SHARED;
	} else if (lock->grant && status == 0) {
		lock->grant->grant.mode = COORD_EXCLUSIVE;
		if (ticket) {
			holding_grant(ticket->holding, COORD_EXCLUSIVE);
			ticket_answer(ticket, 0);
		}
	} else if (ticket && status == -EBUSY && ticket->wait) {
		lock_block(lock, 20);
	} else if (ticket) {
		ticket_answer(ticket, status == -EBUSY ? -EAGAIN : status);
	}
	core_op_free(op);
	lock_pump(lock);
	core_stop_check(lock->coord);
}

static int convert_start(struct core_lock *lock, enum coord_mode mode)
{
	struct coord_grant *grant = &lock->grant->grant;
	struct coord_op *op = core_op_new(lock->coord, COORD_CALL_CONVERT, grant->key,
		grant->member, (struct coord_bytes){0});
	if (!op)
		return -ENOMEM;
	op->grant = grant;
	op->epoch = grant->epoch;
	op->mode = mode;
	lock->converting = op;
	lock->coord->locks_busy++;
	core_op_start(op, convert_done, lock);
	return 0;
}

static void upgrade_run(struct core_lock *lock)
{
	struct coord_ticket *ticket = lock->upgrader;
	struct coord_holding *holding = ticket->holding;
	if (lock->converting || (lock->blocked && lock->timer.active))
		return;
	if (holding->state != COORD_HELD) {
		ticket_answer(ticket, -EIO);
		return;
	}
	if (lock->holders.next != &holding->hlink || lock->holders.prev != &holding->hlink) {
		if (!ticket->wait)
			ticket_answer(ticket, -EAGAIN);
		return;
	}
	/* Where the grant stayed exclusive over a downgrade, the backend is asked for a new token only. */
	if (lock->local || (lock->grant->grant.mode == COORD_EXCLUSIVE &&
				   !(lock->coord->session.can & COORD_CAN_CONVERT))) {
		holding_grant(holding, COORD_EXCLUSIVE);
		ticket_answer(ticket, 0);
		return;
	}
	int r = convert_start(lock, COORD_EXCLUSIVE);
	if (r < 0)
		ticket_answer(ticket, r);
}

/* ---- the pump ---- */

/* Serves tickets from what is held here. Returns false when there is nothing more to serve. */
static bool serve_one(struct core_lock *lock)
{
	struct coord_ticket *ticket = first_live(lock);
	if (!ticket || !(lock->grant || lock->local))
		return false;
	enum coord_mode mode = lock_mode(lock);
	bool first = mode == COORD_NONE;
	bool share = mode == COORD_SHARED && ticket->mode == COORD_SHARED && !lock->contended &&
		     !lock->upgrader && !lock->converting;
	bool fits = lock->local || ticket->mode == COORD_SHARED ||
		    lock->grant->grant.mode == COORD_EXCLUSIVE;
	if (!(first || share) || !fits)
		return false;
	if (lock->grant && core_grant_over(lock->grant))
		return false;
	/* After a downgrade the grant is still exclusive. Others share it under a token of their own. */
	if (share && lock->grant && lock->grant->grant.mode == COORD_EXCLUSIVE &&
		(lock->coord->session.can & COORD_CAN_CONVERT) &&
		convert_start(lock, COORD_SHARED) == 0)
		return false;
	holding_grant(ticket->holding, ticket->mode);
	ticket_answer(ticket, 0);
	return true;
}

/* Tries behind a holder or an earlier waiter of this mount will not be served. */
static void refuse_tries(struct core_lock *lock)
{
	bool ahead = false, exclusive = false;
	struct coord_ticket *ticket, *next;
	coord_list_each_safe (ticket, next, &lock->tickets, link) {
		if (coord_list_empty(&ticket->waits))
			continue;
		bool held = lock_mode(lock) == COORD_EXCLUSIVE ||
			    (!coord_list_empty(&lock->holders) &&
				    (ticket->mode == COORD_EXCLUSIVE || !lock->converting));
		bool behind = ahead && (exclusive || ticket->mode == COORD_EXCLUSIVE);
		if (!ticket->wait && (held || behind)) {
			ticket_answer(ticket, -EAGAIN);
			continue;
		}
		ahead = true;
		exclusive = exclusive || ticket->mode == COORD_EXCLUSIVE;
	}
}

static bool may_acquire(struct core_lock *lock)
{
	struct coord *coord = lock->coord;
	if (!coord_list_empty(&lock->releases) && !(coord->session.can & COORD_CAN_ORDERED))
		return false;
	return coord->session.open && !coord->stopping && !lock->acquiring && !lock->grant &&
	       !lock->local;
}

static void lock_pump(struct core_lock *lock)
{
	while (serve_one(lock))
		;
	refuse_tries(lock);
	if (lock->upgrader)
		upgrade_run(lock);
	struct coord_ticket *ticket = first_live(lock);
	if (lock->grant && coord_list_empty(&lock->holders) && !lock->converting)
		lock_release_grant(lock);
	if (!ticket) {
		if (lock->acquiring)
			core_op_cancel(lock->acquiring);
		if (!lock->upgrader) {
			coord_timer_stop(lock->coord->loop, &lock->timer);
			lock->blocked = false;
		}
		lock_unwatch(lock);
		lock_free_if_idle(lock);
		return;
	}
	if (lock->acquiring && lock->pending->grant.mode != ticket->mode &&
		(lock->acquiring->flags & COORD_OP_WAIT))
		core_op_cancel(lock->acquiring);
	/* A try does not wait for the end of a pause that a waiter is in. */
	if (may_acquire(lock) && (!lock->blocked || !ticket->wait))
		acquire_start(lock, ticket);
}

static void pump_task(struct coord_task *task)
{
	lock_pump(coord_container(task, struct core_lock, pump));
}

static void lock_timer(struct coord_timer *timer)
{
	struct core_lock *lock = coord_container(timer, struct core_lock, timer);
	lock->blocked = false;
	lock_pump(lock);
}

/* ---- the table ---- */

static void lock_free_if_idle(struct core_lock *lock)
{
	if (!coord_list_empty(&lock->holdings) || lock->grant || lock->acquiring ||
		lock->converting || !coord_list_empty(&lock->releases) || lock->pump.queued)
		return;
	assert(coord_list_empty(&lock->tickets));
	lock_unwatch(lock);
	coord_timer_stop(lock->coord->loop, &lock->timer);
	coord_table_remove(&lock->coord->locks, &lock->node);
	free(lock);
}

static struct core_lock *lock_find(
	struct coord *coord, enum coord_kind kind, struct coord_bytes name)
{
	char key[256];
	size_t len;
	if (kind == COORD_MEMBER)
		return (struct core_lock *)coord_table_find(&coord->locks, kind, name);
	if (core_map_name(coord, kind, name, key, &len) < 0)
		return NULL;
	return (struct core_lock *)coord_table_find(
		&coord->locks, kind, (struct coord_bytes){key, len});
}

static int lock_get(
	struct coord *coord, enum coord_kind kind, struct coord_bytes name, struct core_lock **ret)
{
	char key[256];
	size_t len = 0;
	int r = kind == COORD_MEMBER ? 0 : core_map_name(coord, kind, name, key, &len);
	if (r < 0)
		return r;
	struct core_lock *lock = lock_find(coord, kind, name);
	if (!lock) {
		lock = calloc(1, sizeof(*lock) + name.len + len + 2);
		if (!lock)
			return -ENOMEM;
		memcpy(lock->name, name.data, name.len);
		memcpy(lock->name + name.len + 1, key, len);
		lock->coord = coord;
		lock->local = kind == COORD_MEMBER;
		lock->key = (struct coord_key){kind, {lock->name, name.len}};
		lock->node.kind = kind;
		lock->node.key = lock->local ? lock->key.name
					     : (struct coord_bytes){lock->name + name.len + 1, len};
		coord_list_init(&lock->holdings);
		coord_list_init(&lock->holders);
		coord_list_init(&lock->tickets);
		coord_list_init(&lock->releases);
		lock->timer.fn = lock_timer;
		lock->pump.fn = pump_task;
		if (coord_table_add(&coord->locks, &lock->node) < 0) {
			free(lock);
			return -ENOMEM;
		}
	}
	*ret = lock;
	return 0;
}

int coord_holding_new(struct coord *coord, enum coord_kind kind, struct coord_bytes name,
	void *user, struct coord_holding **ret)
{
	struct core_lock *lock;
	int r = lock_get(coord, kind, name, &lock);
	if (r < 0)
		return r;
	struct coord_holding *holding = calloc(1, sizeof(*holding));
	if (!holding) {
		lock_later(lock);
		return -ENOMEM;
	}
	holding->coord = coord;
	holding->lock = lock;
	holding->user = user;
	coord_list_init(&holding->tickets);
	coord_list_init(&holding->hlink);
	coord_list_add(&lock->holdings, &holding->link);
	*ret = holding;
	return 0;
}

void coord_holding_free(struct coord_holding *holding)
{
	if (!holding)
		return;
	struct core_lock *lock = holding->lock;
	struct coord_ticket *ticket, *next;
	coord_list_each_safe (ticket, next, &holding->tickets, hlink) {
		while (!coord_list_empty(&ticket->waits))
			wait_forget(coord_container(ticket->waits.next, struct coord_wait, link));
		ticket_free(ticket);
	}
	if (holding->state != COORD_FREE)
		coord_unlock(holding, NULL, NULL);
	coord_list_remove(&holding->link);
	free(holding->leader);
	if (holding->unlock.used)
		holding->zombie = true;
	else
		free(holding);
	lock_later(lock);
}

void *coord_holding_user(const struct coord_holding *holding)
{
	return holding->user;
}

void coord_holding_set_taker(struct coord_holding *holding, uint32_t pid, uint32_t uid)
{
	holding->pid = pid;
	holding->uid = uid;
}

int coord_holding_set_leader(struct coord_holding *holding, struct coord_bytes member)
{
	char *copy = malloc(member.len + 1);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, member.data, member.len);
	free(holding->leader);
	holding->leader = copy;
	holding->leader_len = member.len;
	return 0;
}

enum coord_holding_state coord_holding_state(const struct coord_holding *holding)
{
	return holding->state;
}

enum coord_mode coord_holding_mode(const struct coord_holding *holding)
{
	return holding->mode;
}

uint64_t coord_holding_token(const struct coord_holding *holding)
{
	return holding->token;
}

uint64_t coord_holding_since_us(const struct coord_holding *holding)
{
	return holding->since_us;
}

/* ---- requests for a lock ---- */

static struct coord_ticket *ticket_find(struct coord_holding *holding, enum coord_mode mode)
{
	struct coord_ticket *ticket;
	coord_list_each (ticket, &holding->tickets, hlink)
		if (ticket->mode == mode)
			return ticket;
	return NULL;
}

static struct coord_ticket *ticket_new(struct coord_holding *holding, enum coord_mode mode)
{
	struct coord_ticket *ticket = calloc(1, sizeof(*ticket));
	if (!ticket)
		return NULL;
	ticket->holding = holding;
	ticket->mode = mode;
	ticket->timer.fn = ticket_timer;
	coord_list_init(&ticket->link);
	coord_list_init(&ticket->waits);
	coord_list_add(&holding->tickets, &ticket->hlink);
	return ticket;
}

/* What can be said at once: 1 means the request has to queue. */
static int lock_at_once(struct coord_holding *holding, enum coord_mode mode, unsigned flags)
{
	struct coord *coord = holding->coord;
	struct core_lock *lock = holding->lock;
	bool held = holding->state == COORD_HELD;
	if (coord->stopping || coord->stopped)
		return -ESHUTDOWN;
	if (holding->state == COORD_HOLDING_LOST)
		return -EIO;
	if (held && holding->mode == mode)
		return 0;
	if (!lock->local && mode == COORD_SHARED &&
		(lock->key.kind == COORD_LEADER || !(coord->session.can & COORD_CAN_SHARED)))
		return lock->key.kind == COORD_LEADER ? -EINVAL : -EOPNOTSUPP;
	if (!lock->local && !(flags & COORD_LOCK_WAIT) && !coord->session.connected)
		return -ENOLCK;
	if (!held || !(flags & COORD_LOCK_ATOMIC))
		return 1;
	if (mode == COORD_SHARED) {
		holding->mode = COORD_SHARED;
		lock_later(lock);
		return 0;
	}
	if (lock->upgrader && lock->upgrader->holding != holding)
		return -EDEADLK;
	bool can = lock->local || lock->grant->grant.mode == COORD_EXCLUSIVE ||
		   (coord->session.can & COORD_CAN_CONVERT);
	return can ? 1 : -ENOLCK;
}

static void ticket_deadline(struct coord_ticket *ticket, unsigned flags)
{
	struct coord *coord = ticket->holding->coord;
	coord_timer_stop(coord->loop, &ticket->timer);
	if (ticket->wait)
		return;
	uint64_t limit = coord->config->timeout_ms;
	if ((flags & COORD_LOCK_SHORT) && limit > SHORT_MS)
		limit = SHORT_MS;
	coord_timer_start(coord->loop, &ticket->timer, coord_now_ms(coord->loop) + limit);
}

void coord_lock(struct coord_holding *holding, enum coord_mode mode, unsigned flags,
	struct coord_wait *wait)
{
	struct coord *coord = holding->coord;
	struct core_lock *lock = holding->lock;
	coord_list_init(&wait->link);
	wait->ticket = NULL;
	int r = lock_at_once(holding, mode, flags);
	if (r <= 0) {
		wait_answer(coord, wait, r);
		return;
	}
	bool upgrade = holding->state == COORD_HELD && (flags & COORD_LOCK_ATOMIC);
	if (holding->state == COORD_HELD && !upgrade)
		coord_unlock(holding, NULL, NULL); /* flock(2): another may come in between */
	struct coord_ticket *ticket = ticket_find(holding, mode);
	if (!ticket) {
		ticket = ticket_new(holding, mode);
		if (!ticket) {
			wait_answer(coord, wait, -ENOMEM);
			return;
		}
		if (upgrade)
			lock->upgrader = ticket;
		else
			coord_list_add(&lock->tickets, &ticket->link);
	}
	ticket->wait = flags & COORD_LOCK_WAIT;
	ticket_deadline(ticket, flags);
	wait->ticket = ticket;
	coord_list_add(&ticket->waits, &wait->link);
	coord->counters.waiters++;
	/* A waiter behind another changes nothing: the pump need not look. */
	if (!ticket->wait || upgrade || lock->tickets.next == &ticket->link || !lock->acquiring)
		lock_later(lock);
}

void coord_wait_cancel(struct coord_wait *wait, bool keep_place)
{
	struct coord_ticket *ticket = wait->ticket;
	if (!ticket) {
		coord_loop_undefer(wait->loop, &wait->task); /* about to be told */
		return;
	}
	struct core_lock *lock = ticket->holding->lock;
	struct coord *coord = lock->coord;
	wait_forget(wait);
	if (!coord_list_empty(&ticket->waits))
		return;
	if (keep_place && ticket->wait && lock->upgrader != ticket)
		coord_timer_start(
			coord->loop, &ticket->timer, coord_now_ms(coord->loop) + PLACE_MS);
	else
		ticket_free(ticket);
	lock_later(lock);
}

/* ---- unlock, check, barrier ---- */

static struct unlock_wait *unlock_wait_new(struct coord_holding *holding)
{
	struct unlock_wait *wait = holding->unlock.used ? NULL : &holding->unlock;
	if (!wait)
		wait = calloc(1, sizeof(*wait));
	if (!wait)
		return NULL;
	*wait = (struct unlock_wait){.holding = holding, .used = true};
	coord_list_init(&wait->link);
	wait->task.fn = unlock_task;
	return wait;
}

void coord_unlock(struct coord_holding *holding, void (*fn)(void *user, int status), void *user)
{
	struct core_lock *lock = holding->lock;
	struct coord *coord = holding->coord;
	if (lock->upgrader && lock->upgrader->holding == holding)
		ticket_answer(lock->upgrader, -EIO);
	bool held = holding->state == COORD_HELD;
	holding_drop(holding, COORD_FREE);
	struct core_release *release = NULL;
	if (held && lock->grant && coord_list_empty(&lock->holders) && !lock->converting) {
		struct core_grant *grant = lock->grant;
		lock->grant = NULL;
		release = grant_release(lock, grant);
		if (lock->contended && !(coord->session.can & COORD_CAN_QUEUE))
			lock_block(lock, YIELD_MS);
	}
	lock_later(lock);
	if (!fn)
		return;
	struct unlock_wait *wait = unlock_wait_new(holding);
	if (!wait) {
		fn(user, 0); /* no memory: it is on its way all the same */
		return;
	}
	wait->fn = fn;
	wait->user = user;
	if (release && coord->session.connected)
		coord_list_add(&release->waits, &wait->link);
	else
		coord_loop_defer(coord->loop, &wait->task);
}

struct check {
	struct coord *coord;
	coord_reply_fn *fn;
	void *user;
	struct coord_holding *holding;
};

/* Asks the authority; the request owns the op, the grant is looked up again by the answer. */
static void check_done(void *user, int status, const struct coord_row *rows, size_t len)
{
	struct check *check = user;
	struct coord_holding *holding = check->holding;
	if (status == -ESTALE && holding->state == COORD_HELD && holding->lock->grant) {
		struct coord_grant *grant = &holding->lock->grant->grant;
		coord_grant_lost(&check->coord->session, grant->key, grant->owner, grant->epoch);
	}
	if (status == 0 && holding->state == COORD_HELD && holding->lock->grant &&
		core_grant_over(holding->lock->grant))
		status = -EIO;
	if (status == -ESTALE || holding->state == COORD_HOLDING_LOST)
		status = -EIO;
	check->fn(check->user, status, NULL, 0);
	free(check);
}

int coord_check(
	struct coord_holding *holding, coord_reply_fn *fn, void *user, struct coord_req **ret_req)
{
	struct coord *coord = holding->coord;
	struct core_lock *lock = holding->lock;
	if (holding->state != COORD_HELD || lock->local || !lock->grant) {
		struct coord_req *req = core_req_new(coord, fn, user);
		if (!req)
			return -ENOMEM;
		int status = holding->state == COORD_HOLDING_LOST ? -EIO : -EBADF;
		core_req_answer_later(
			req, lock->local && holding->state == COORD_HELD ? 0 : status);
		if (ret_req)
			*ret_req = req;
		return 0;
	}
	struct check *check = malloc(sizeof(*check));
	struct coord_req *req = check ? core_req_new(coord, check_done, check) : NULL;
	struct coord_grant *grant = &lock->grant->grant;
	struct coord_op *op = req ? core_op_new(coord, COORD_CALL_LOCK_CHECK, grant->key,
					    grant->member, (struct coord_bytes){0})
				  : NULL;
	if (!op) {
		if (req)
			coord_req_drop(req);
		free(check);
		return -ENOMEM;
	}
	*check = (struct check){coord, fn, user, holding};
	op->grant = grant;
	op->epoch = grant->epoch;
	op->mode = grant->mode;
	core_req_start(req, op);
	if (ret_req)
		*ret_req = req;
	return 0;
}

static void barrier_gone(struct coord_req *req)
{
	struct unlock_wait *wait = req->at;
	if (!coord_list_empty(&wait->link)) {
		coord_list_remove(&wait->link);
		free(wait);
	}
}

int coord_barrier(
	struct coord_holding *holding, coord_reply_fn *fn, void *user, struct coord_req **ret_req)
{
	struct core_lock *lock = holding->lock;
	struct coord_req *req = core_req_new(holding->coord, fn, user);
	if (!req)
		return -ENOMEM;
	struct unlock_wait *wait =
		coord_list_empty(&lock->releases) ? NULL : calloc(1, sizeof(*wait));
	if (wait) {
		*wait = (struct unlock_wait){.holding = holding, .req = req};
		struct core_release *last =
			coord_container(lock->releases.prev, struct core_release, link);
		coord_list_add(&last->waits, &wait->link);
		req->at = wait;
		req->gone = barrier_gone;
	} else {
		core_req_answer_later(req, 0);
	}
	if (ret_req)
		*ret_req = req;
	return 0;
}

/* ---- who holds a name ---- */

static uint32_t list_len(const struct coord_list *list)
{
	uint32_t len = 0;
	for (const struct coord_list *at = list->next; at != list; at = at->next)
		len++;
	return len;
}

static uint32_t lock_waiters(struct core_lock *lock)
{
	uint32_t len = 0;
	struct coord_ticket *ticket;
	coord_list_each (ticket, &lock->tickets, link)
		len += !coord_list_empty(&ticket->waits);
	return len;
}

bool core_locks_info(struct coord *coord, enum coord_kind kind, struct coord_bytes name,
	struct coord_lock_info *ret)
{
	struct core_lock *lock = lock_find(coord, kind, name);
	if (!lock || !lock->grant || coord_list_empty(&lock->holders))
		return false;
	struct coord_holding *holding =
		coord_container(lock->holders.next, struct coord_holding, hlink);
	*ret = (struct coord_lock_info){
		.held = true,
		.local = true,
		.mode = holding->mode,
		.owner = lock->grant->grant.member,
		.token = holding->token,
		.since_us = holding->since_us,
		.pid = holding->pid,
		.uid = holding->uid,
		.holders = list_len(&lock->holders),
		.waiters = lock_waiters(lock),
	};
	return true;
}

uint32_t core_locks_waiters(struct coord *coord, enum coord_kind kind, struct coord_bytes name)
{
	struct core_lock *lock = lock_find(coord, kind, name);
	return lock ? lock_waiters(lock) : 0;
}

struct coord_holding *coord_lock_holders(struct coord *coord, enum coord_kind kind,
	struct coord_bytes name, bool (*fn)(void *user, struct coord_holding *), void *user)
{
	struct core_lock *lock = lock_find(coord, kind, name);
	struct coord_holding *holding;
	if (lock)
		coord_list_each (holding, &lock->holders, hlink)
			if (fn(user, holding))
				return holding;
	return NULL;
}

int coord_lock_list(struct coord *coord, enum coord_kind kind, coord_reply_fn *fn, void *user,
	struct coord_req **ret_req)
{
	return core_request(coord, COORD_CALL_LOCK_LIST, (struct coord_key){kind, COORD_BYTES("")},
		COORD_BYTES(""), 0, fn, user, ret_req);
}

/* Every local holder of the grant is told that it lost. */
static void holders_lost(struct core_lock *lock)
{
	struct coord *coord = lock->coord;
	while (!coord_list_empty(&lock->holders)) {
		struct coord_holding *holding =
			coord_container(lock->holders.next, struct coord_holding, hlink);
		if (lock->upgrader && lock->upgrader->holding == holding)
			ticket_answer(lock->upgrader, -EIO);
		holding_drop(holding, COORD_HOLDING_LOST);
		if (coord->notices.lost)
			coord->notices.lost(coord->user, holding);
	}
}

int coord_lock_break(struct coord *coord, enum coord_kind kind, struct coord_bytes name,
	coord_reply_fn *fn, void *user, struct coord_req **ret_req)
{
	struct core_lock *lock = lock_find(coord, kind, name);
	if (lock && lock->grant && lock->grant->grant.mode == COORD_EXCLUSIVE) {
		/* Ours, so nobody else's. */
		struct coord_req *req = core_req_new(coord, fn, user);
		if (!req)
			return -ENOMEM;
		coord->counters.losses++;
		holders_lost(lock);
		core_views_touch(coord, kind, name);
		lock_release_grant(lock);
		lock_later(lock);
		core_req_answer_later(req, 0);
		if (ret_req)
			*ret_req = req;
		return 0;
	}
	core_views_touch(coord, kind, name);
	return core_request(coord, COORD_CALL_LOCK_BREAK, (struct coord_key){kind, name},
		COORD_BYTES(""), 0, fn, user, ret_req);
}

/* ---- what the session tells ---- */

void core_locks_grant_lost(struct core_grant *grant)
{
	struct core_lock *lock = grant->owner;
	if (lock->grant != grant)
		return;
	lock->grant = NULL;
	core_views_touch(lock->coord, lock->key.kind, lock->key.name);
	holders_lost(lock);
	/* What is left of it in the backend goes too; after the end of a session there is nothing. */
	grant_release(lock, grant);
	lock_later(lock);
}

void core_locks_changed(struct coord *coord, struct coord_key key)
{
	struct core_lock *lock = lock_find(coord, key.kind, key.name);
	if (!lock)
		return;
	lock->changed = true;
	if (lock->blocked && lock->watched) {
		coord_timer_stop(coord->loop, &lock->timer);
		lock->blocked = false;
		lock_later(lock);
	}
}

void core_locks_contended(struct core_grant *grant)
{
	struct core_lock *lock = grant->owner;
	lock->contended = true;
	if (lock->grant != grant && !(lock->coord->session.can & COORD_CAN_QUEUE) &&
		!lock->acquiring)
		lock_block(lock, YIELD_MS);
}

void core_locks_resume(struct coord *coord)
{
	for (struct coord_node *node = NULL; (node = coord_table_next(&coord->locks, node));) {
		struct core_lock *lock = (struct core_lock *)node;
		coord_timer_stop(coord->loop, &lock->timer);
		lock->blocked = false;
		lock_later(lock);
	}
}

void core_locks_stop(struct coord *coord)
{
	for (struct coord_node *node = NULL; (node = coord_table_next(&coord->locks, node));) {
		struct core_lock *lock = (struct core_lock *)node;
		struct coord_ticket *ticket, *next;
		coord_list_each_safe (ticket, next, &lock->tickets, link)
			ticket_answer(ticket, -ESHUTDOWN);
		if (!lock->local)
			holders_lost(lock);
		lock_later(lock);
	}
}

bool core_locks_idle(const struct coord *coord)
{
	return coord->locks_busy == 0;
}

void core_locks_done(struct coord *coord)
{
	struct coord_node *node;
	while ((node = coord_table_next(&coord->locks, NULL))) {
		struct core_lock *lock = (struct core_lock *)node;
		struct core_release *release, *next;
		coord_list_each_safe (release, next, &lock->releases, link)
			free(release);
		coord_timer_stop(coord->loop, &lock->timer);
		coord_loop_undefer(coord->loop, &lock->pump);
		coord_table_remove(&coord->locks, node);
		free(lock);
	}
	coord_table_done(&coord->locks);
}
