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
#include "coord/locks.h"

#include <assert.h>
#include <stdio.h>
#include <syslog.h>

enum {
	YIELD_MS = 2, /* the pause after a release for which another host waits */
	PAUSE_MS = 100, /* after an error that may pass */
	QUEUED_US = 200000, /* an acquire that takes so long waits behind others */
	POLL_MS = 100, /* where the driver names no period */
};

void core_lock_later(struct core_lock *lock)
{
	coord_loop_defer(lock->coord->loop, &lock->pump);
}

/* ---- answers ---- */

/* The answer reaches who asked, if it is still true: the grant may have been lost, or its lease may
 * have ended, since the pump made it. Who was not told that it holds has lost nothing, and waits on. */
static void wait_task(struct coord_task *task)
{
	struct coord_wait *wait = coord_container(task, struct coord_wait, task);
	struct coord_holding *holding = wait->holding;
	struct core_grant *grant = holding->lock->grant;
	coord_list_remove(&wait->link);
	wait->holding = NULL;
	if (wait->status == 0 && holding->state == COORD_HELD && grant && core_grant_over(grant))
		core_grant_lost(grant);
	if (wait->status == 0 && holding->state != COORD_HELD) {
		bool lost = holding->told && holding->state == COORD_HOLDING_LOST;
		wait->status = lost ? -EIO : -ETIMEDOUT;
		if (!lost)
			coord_unlock(holding, NULL, NULL);
		if (!lost && (wait->flags & COORD_LOCK_WAIT)) {
			coord_lock(holding, wait->mode, wait->flags, wait);
			return;
		}
	}
	if (wait->status == 0)
		holding->told = true;
	wait->fn(wait, wait->status);
}

void core_wait_answer(struct coord_wait *wait, int status)
{
	coord_list_remove(&wait->link);
	if (wait->ticket)
		wait->holding->lock->coord->counters.waiters--;
	wait->ticket = NULL;
	wait->status = status;
	wait->task.fn = wait_task;
	coord_list_add(&wait->holding->answers, &wait->link);
	coord_loop_defer(wait->holding->lock->coord->loop, &wait->task);
}

void core_wait_forget(struct coord_wait *wait)
{
	coord_list_remove(&wait->link);
	if (wait->ticket)
		wait->holding->lock->coord->counters.waiters--;
	else
		coord_loop_undefer(wait->holding->lock->coord->loop, &wait->task);
	wait->ticket = NULL;
	wait->holding = NULL;
}

static void ticket_unlink(struct coord_ticket *ticket)
{
	struct core_lock *lock = ticket->holding->lock;
	if (!ticket->wait && ticket->live)
		lock->tries--;
	ticket->live = false;
	coord_list_remove(&ticket->link);
}

void core_ticket_live(struct coord_ticket *ticket)
{
	struct core_lock *lock = ticket->holding->lock;
	ticket_unlink(ticket);
	ticket->live = true;
	if (!ticket->wait)
		lock->tries++;
	struct coord_list *after = lock->tickets.prev;
	while (after != &lock->tickets &&
		coord_container(after, struct coord_ticket, link)->place > ticket->place)
		after = after->prev;
	coord_list_add(after->next, &ticket->link);
}

void core_ticket_idle(struct coord_ticket *ticket)
{
	ticket_unlink(ticket);
	coord_list_add(&ticket->holding->lock->places, &ticket->link);
}

void core_ticket_free(struct coord_ticket *ticket)
{
	if (ticket->holding->lock->upgrader == ticket)
		ticket->holding->lock->upgrader = NULL;
	coord_timer_stop(ticket->holding->lock->coord->loop, &ticket->timer);
	ticket_unlink(ticket);
	coord_list_remove(&ticket->hlink);
	free(ticket);
}

/* Answers every request of the ticket and ends it. */
void core_ticket_answer(struct coord_ticket *ticket, int status)
{
	while (!coord_list_empty(&ticket->waits))
		core_wait_answer(
			coord_container(ticket->waits.next, struct coord_wait, link), status);
	core_ticket_free(ticket);
}

/* One of this mount waits in the backend's queue. That it is granted nothing is no silence. */
static bool is_queued(const struct core_lock *lock)
{
	return lock->acquiring && (lock->acquiring->flags & COORD_OP_WAIT) &&
	       lock->coord->session.connected;
}

void core_ticket_timer(struct coord_timer *timer)
{
	struct coord_ticket *ticket = coord_container(timer, struct coord_ticket, timer);
	struct core_lock *lock = ticket->holding->lock;
	bool queued = is_queued(lock);
	if (!ticket->wait && !lock->local && !queued)
		coord_unanswered(lock->coord, core_try_limit(lock->coord, ticket->brief));
	core_ticket_answer(ticket, queued ? -EAGAIN : core_away(lock->coord));
	core_lock_later(lock);
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
	else
		core_holding_tidy(holding);
	fn(user, 0);
}

void core_holding_tidy(struct coord_holding *holding)
{
	if (holding->zombie && !holding->unlock.used && !holding->checks)
		free(holding);
}

void core_unlock_task(struct coord_task *task)
{
	unlock_answer(coord_container(task, struct unlock_wait, task));
}

/* ---- what is held ---- */

enum coord_mode core_lock_mode(const struct core_lock *lock)
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

/* Its holder has let go of it. */
static void await_end(struct coord_holding *holding)
{
	struct core_lock *lock = holding->lock;
	struct coord *coord = lock->coord;
	if (!holding->awaited)
		return;
	holding->awaited = false;
	lock->awaited--;
	coord->awaited--;
	if (coord->holding_back && coord->awaited == 0)
		coord_loop_defer(coord->loop, &coord->stop_task);
}

void core_holding_drop(struct coord_holding *holding, enum coord_holding_state state)
{
	if (holding->state == COORD_HELD) {
		coord_list_remove(&holding->hlink);
		if (!holding->lock->local)
			holding->lock->coord->counters.locks_held--;
	}
	await_end(holding);
	holding->state = state;
	holding->told = holding->told && state != COORD_FREE;
	holding->mode = COORD_NONE;
	holding->token = holding->since_us = 0;
}

/* ---- releases ---- */

static struct core_grant *grant_of(struct core_release *release)
{
	return coord_container(release, struct core_grant, release);
}

void core_release_answer(struct core_release *release)
{
	while (!coord_list_empty(&release->waits))
		unlock_answer(coord_container(release->waits.next, struct unlock_wait, link));
}

static void release_done(struct coord_op *op, void *user)
{
	struct core_release *release = user;
	struct core_grant *grant = grant_of(release);
	struct core_lock *lock = grant->owner;
	struct coord *coord = lock->coord;
	int status = op->status;
	core_op_free(op);
	if (status < 0 && status != -ESTALE && status != -ENOENT && !coord->stopped &&
		grant->grant.epoch == coord->session.epoch)
		coord_log(LOG_ERR, "a release failed: %s", strerror(-status));
	coord_list_remove(&release->link);
	if (status == 0 && release->was_held && grant->grant.mode == COORD_EXCLUSIVE)
		core_views_freed(coord, lock->key.kind, lock->key.name, release->stamp);
	else /* others may share it still, or hold what was lost */
		core_views_touch(coord, lock->key.kind, lock->key.name);
	core_release_answer(release);
	core_grant_free(grant);
	coord->locks_busy--;
	core_lock_later(lock);
	core_stop_check(coord);
}

static void release_send(struct core_lock *lock, struct core_release *release)
{
	struct coord_grant *grant = &grant_of(release)->grant;
	struct coord_op *op = core_op_new(
		lock->coord, COORD_CALL_UNLOCK, grant->key, grant->member, (struct coord_bytes){0});
	release->sent = op;
	if (!op) {
		coord_timer_start(lock->coord->loop, &lock->again,
			coord_now_ms(lock->coord->loop) + PAUSE_MS);
		return;
	}
	op->grant = grant;
	op->epoch = grant->epoch;
	core_op_start(op, release_done, release);
}

static void release_begin(struct core_lock *lock, struct core_grant *grant)
{
	struct coord *coord = lock->coord;
	struct core_release *release = &grant->release;
	bool was_held = grant->held;
	grant->held = false;
	coord_timer_stop(coord->loop, &grant->until);
	*release = (struct core_release){.was_held = was_held,
		.stamp = core_views_stamp(coord, lock->key.kind, lock->key.name)};
	coord_list_init(&release->waits);
	coord_list_add(&lock->releases, &release->link);
	coord->locks_busy++;
}

void core_grant_release(struct core_lock *lock, struct core_grant *grant)
{
	release_begin(lock, grant);
	release_send(lock, &grant->release);
}

static void release_due(struct coord_timer *timer)
{
	struct core_grant *grant = coord_container(timer, struct core_grant, until);
	release_send(grant->owner, &grant->release);
}

void core_grant_release_lost(struct core_lock *lock, struct core_grant *grant)
{
	struct coord *coord = lock->coord;
	release_begin(lock, grant);
	grant->release.sent = true;
	grant->until.fn = release_due;
	coord_timer_start(coord->loop, &grant->until,
		coord_now_ms(coord->loop) + core_grace_ms(coord->session.ttl_ms));
}

/* Nobody here holds it any more: back to the backend. At a stop those that were told come first. */
void core_lock_release_grant(struct core_lock *lock)
{
	struct core_grant *grant = lock->grant;
	if (!grant || !coord_list_empty(&lock->holders))
		return;
	if (lock->coord->holding_back && lock->awaited > 0)
		return;
	lock->grant = NULL;
	core_grant_release(lock, grant);
}

/* ---- acquiring ---- */

static struct coord_ticket *first_live(struct core_lock *lock)
{
	return coord_list_empty(&lock->tickets)
		       ? NULL
		       : coord_container(lock->tickets.next, struct coord_ticket, link);
}

void core_lock_unwatch(struct core_lock *lock)
{
	if (lock->watched) {
		lock->watched = false;
		core_watch_unref(lock->coord, lock->key);
	}
}

void core_lock_block(struct core_lock *lock, uint64_t ms)
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
	if (!lock->tries)
		return;
	coord_list_each_safe (ticket, next, &lock->tickets, link)
		if (!ticket->wait)
			core_ticket_answer(ticket, status);
}

/* Until the notice that the op armed, or for a period, whatever comes first. */
static void busy_wait(struct core_lock *lock, struct coord_op *op)
{
	if ((op->flags & COORD_OP_WATCH) && !lock->watched)
		lock->watched = core_watch_ref(lock->coord, lock->key) == 0;
	bool again = lock->changed && lock->watched;
	lock->changed = false;
	if (!again)
		core_lock_block(lock, lock_period(lock, op));
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
	core_lock_unwatch(lock);
	lock->contended_ms = 0;
	core_views_touch(lock->coord, lock->key.kind, lock->key.name);
	struct coord_ticket *ticket = first_live(lock);
	bool wanted = ticket &&
		      (ticket->mode == grant->grant.mode || grant->grant.mode == COORD_EXCLUSIVE);
	if (core_grant_held(grant, op) < 0 || !wanted || lock->coord->stopping) {
		core_grant_release(lock, grant);
		return;
	}
	lock->grant = grant;
}

static void acquire_failed(struct core_lock *lock, struct coord_op *op)
{
	bool check = op->call == COORD_CALL_LOCK_CHECK;
	if ((check && op->status != -ESTALE) || (!check && op->sent == COORD_SENT_UNKNOWN)) {
		/* It may be ours: ask by the owner value, or let go of what may be there. */
		if (!check && first_live(lock) && acquire_op(lock, COORD_CALL_LOCK_CHECK, 0))
			return;
		core_grant_release(lock, lock->pending);
		lock->pending = NULL;
		return;
	}
	core_grant_free(lock->pending);
	lock->pending = NULL;
	if (check || op->status == -ECANCELED || op->status == -ESTALE)
		return;
	if (op->status == -EBUSY) {
		fail_tries(lock, -EAGAIN);
		busy_wait(lock, op);
		return;
	}
	if (core_transient(op->status)) {
		fail_tries(lock, op->status);
		core_lock_block(lock, PAUSE_MS);
		return;
	}
	struct coord_ticket *ticket = first_live(lock);
	if (ticket)
		core_ticket_answer(ticket, op->status);
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
	core_lock_pump(lock);
	core_stop_check(coord);
}

static void acquire_start(struct core_lock *lock, struct coord_ticket *ticket)
{
	struct coord *coord = lock->coord;
	struct coord_holding *holding = ticket->holding;
	struct coord_bytes member = coord_bytes_of(coord->config->member);
	if (holding->leader)
		member = *holding->leader;
	lock->pending = core_grant_new(coord, lock->key, member, ticket->mode, lock);
	unsigned flags = 0;
	if (ticket->wait && (coord->session.can & COORD_CAN_QUEUE) &&
		(coord->driver->waits_max == 0 || coord->waits_len < coord->driver->waits_max))
		flags = COORD_OP_WAIT;
	else if (ticket->wait && (coord->session.can & COORD_CAN_NOTIFY))
		flags = COORD_OP_WATCH;
	if (ticket->wait)
		flags |= COORD_OP_PATIENT;
	lock->changed = false;
	if (!lock->pending || !acquire_op(lock, COORD_CALL_LOCK, flags)) {
		core_grant_free(lock->pending);
		lock->pending = NULL;
		core_ticket_answer(ticket, -ENOMEM);
		core_lock_later(lock);
	}
}

/* ---- atomic upgrades ---- */

/* After a downgrade the sharers have one token, above that of the exclusive time before. */
static void holders_token(struct core_lock *lock)
{
	struct coord_holding *holding;
	coord_list_each (holding, &lock->holders, hlink)
		holding->token = lock->grant->grant.token;
}

static void convert_done(struct coord_op *op, void *user)
{
	struct core_lock *lock = user;
	int status = op->status;
	lock->converting = NULL;
	lock->coord->locks_busy--;
	/* The grant may be gone, and another in its place; then nobody waits for this. */
	bool ours = lock->grant && &lock->grant->grant == op->grant;
	struct coord_ticket *ticket = op->mode == COORD_EXCLUSIVE && ours ? lock->upgrader : NULL;
	/* If a downgrade failed, the grant stays exclusive and serves the sharers here. */
	if (ours && status == 0) {
		lock->grant->grant.mode = op->mode;
		holders_token(lock);
	} else if (ours && op->mode == COORD_SHARED) {
		lock->grant->exclusive_for_good = true;
	}
	if (ticket && status == 0) {
		holding_grant(ticket->holding, COORD_EXCLUSIVE);
		core_ticket_answer(ticket, 0);
	} else if (ticket && status == -EBUSY && ticket->wait) {
		busy_wait(lock, op);
	} else if (ticket && status != -ESTALE) {
		core_ticket_answer(ticket, status == -EBUSY ? -EAGAIN : status);
	}
	if (ours && status == -ESTALE)
		core_grant_lost(lock->grant); /* its holders, the upgrader among them, are told */
	core_op_free(op);
	core_lock_release_grant(lock); /* its last holder may have gone meanwhile */
	core_lock_pump(lock);
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
	if (mode == COORD_EXCLUSIVE && lock->upgrader->wait &&
		(lock->coord->session.can & COORD_CAN_NOTIFY))
		op->flags = COORD_OP_WATCH;
	lock->changed = false;
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
		core_ticket_answer(ticket, -EIO);
		return;
	}
	if (lock->holders.next != &holding->hlink || lock->holders.prev != &holding->hlink) {
		if (!ticket->wait)
			core_ticket_answer(ticket, -EAGAIN);
		return;
	}
	/* Where the grant stayed exclusive over a downgrade, the backend is asked for a new token only. */
	if (lock->local || (lock->grant->grant.mode == COORD_EXCLUSIVE &&
				   !(lock->coord->session.can & COORD_CAN_CONVERT))) {
		holding_grant(holding, COORD_EXCLUSIVE);
		core_ticket_answer(ticket, 0);
		return;
	}
	int r = convert_start(lock, COORD_EXCLUSIVE);
	if (r < 0)
		core_ticket_answer(ticket, r);
}

/* ---- the pump ---- */

/* Serves tickets from what is held here. Returns false when there is nothing more to serve. */
static bool serve_one(struct core_lock *lock)
{
	struct coord_ticket *ticket = first_live(lock);
	if (!ticket || lock->converting || !(lock->grant || lock->local))
		return false;
	enum coord_mode mode = core_lock_mode(lock);
	bool first = mode == COORD_NONE;
	bool share = mode == COORD_SHARED && ticket->mode == COORD_SHARED &&
		     !core_lock_contended(lock) && !lock->upgrader && !lock->converting;
	bool fits = lock->local || ticket->mode == COORD_SHARED ||
		    lock->grant->grant.mode == COORD_EXCLUSIVE;
	if (!(first || share) || !fits)
		return false;
	if (lock->grant && core_grant_over(lock->grant))
		return false;
	/* After a downgrade that the backend does not know the grant is exclusive: there is no token for
	 * others to share. */
	if (share && lock->grant && lock->grant->grant.mode == COORD_EXCLUSIVE)
		return false;
	holding_grant(ticket->holding, ticket->mode);
	core_ticket_answer(ticket, 0);
	return true;
}

/* Tries behind a holder or an earlier waiter of this mount will not be served. */
static void refuse_tries(struct core_lock *lock)
{
	bool ahead = false, exclusive = false;
	struct coord_ticket *ticket, *next;
	if (!lock->tries)
		return;
	bool queued = is_queued(lock) && coord_now_us(lock->coord->loop) >=
						 lock->acquiring->core->started_us + QUEUED_US;
	coord_list_each_safe (ticket, next, &lock->tickets, link) {
		bool held = core_lock_mode(lock) == COORD_EXCLUSIVE ||
			    (!coord_list_empty(&lock->holders) &&
				    (ticket->mode == COORD_EXCLUSIVE || !lock->converting));
		bool behind = ahead && (exclusive || queued || ticket->mode == COORD_EXCLUSIVE);
		if (!ticket->wait && (held || behind)) {
			core_ticket_answer(ticket, -EAGAIN);
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

/* The last exclusive holder became a sharer: hosts elsewhere may share now. */
static void downgrade(struct core_lock *lock)
{
	struct core_grant *grant = lock->grant;
	if (grant && grant->grant.mode == COORD_EXCLUSIVE && !grant->exclusive_for_good &&
		core_lock_mode(lock) == COORD_SHARED && !lock->converting && !lock->upgrader &&
		(lock->coord->session.can & COORD_CAN_CONVERT))
		convert_start(lock, COORD_SHARED);
}

static void releases_send(struct core_lock *lock)
{
	struct coord_list *at = lock->releases.next;
	for (; at != &lock->releases && !lock->again.active; at = at->next) {
		struct core_release *release = coord_container(at, struct core_release, link);
		if (!release->sent)
			release_send(lock, release);
	}
}

void core_lock_pump(struct core_lock *lock)
{
	downgrade(lock);
	while (serve_one(lock))
		;
	refuse_tries(lock);
	if (lock->upgrader)
		upgrade_run(lock);
	struct coord_ticket *ticket = first_live(lock);
	if (lock->grant && coord_list_empty(&lock->holders) && !lock->converting)
		core_lock_release_grant(lock);
	if (!ticket) {
		if (lock->acquiring)
			core_op_cancel(lock->acquiring);
		if (!lock->upgrader) {
			coord_timer_stop(lock->coord->loop, &lock->timer);
			lock->blocked = false;
			core_lock_unwatch(lock);
		}
		core_lock_free_if_idle(lock);
		return;
	}
	if (lock->acquiring && lock->pending->grant.mode != ticket->mode &&
		(lock->acquiring->flags & COORD_OP_WAIT))
		core_op_cancel(lock->acquiring);
	/* A try does not wait for the end of a pause that a waiter is in. */
	if (may_acquire(lock) && (!lock->blocked || !ticket->wait))
		acquire_start(lock, ticket);
}

void core_pump_task(struct coord_task *task)
{
	core_lock_pump(coord_container(task, struct core_lock, pump));
}

bool core_lock_contended(const struct core_lock *lock)
{
	return lock->contended_ms && coord_now_ms(lock->coord->loop) < lock->contended_ms;
}

void core_lock_again(struct coord_timer *timer)
{
	struct core_lock *lock = coord_container(timer, struct core_lock, again);
	releases_send(lock);
	core_lock_pump(lock);
}

void core_lock_timer(struct coord_timer *timer)
{
	struct core_lock *lock = coord_container(timer, struct core_lock, timer);
	lock->blocked = false;
	core_lock_pump(lock);
}
