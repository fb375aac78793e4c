/* SPDX-License-Identifier: Apache-2.0 */
/* The lock table's outside: holdings, requests, releases, who holds what. See locks.c. */
#include "coord/locks.h"
#include "coord/names.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <syslog.h>

enum {
	BRIEF_MS = 1000, /* for a try with COORD_LOCK_SHORT */
	PLACE_MS = 5000, /* how long a ticket outlives its interrupted request */
	YIELD_MS = 2, /* the pause after a release for which another host waits */
	CONTENDED_MS = 1500, /* how long one notice of that counts */
};

/* ---- the table ---- */

void core_lock_free_if_idle(struct core_lock *lock)
{
	if (!coord_list_empty(&lock->holdings) || lock->grant || lock->acquiring ||
		lock->converting || !coord_list_empty(&lock->releases) || lock->pump.queued)
		return;
	assert(coord_list_empty(&lock->tickets));
	core_lock_unwatch(lock);
	coord_timer_stop(lock->coord->loop, &lock->timer);
	coord_timer_stop(lock->coord->loop, &lock->again);
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
		coord_list_init(&lock->places);
		coord_list_init(&lock->releases);
		lock->timer.fn = core_lock_timer;
		lock->again.fn = core_lock_again;
		lock->pump.fn = core_pump_task;
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
		core_lock_later(lock);
		return -ENOMEM;
	}
	holding->lock = lock;
	holding->user = user;
	coord_list_init(&holding->tickets);
	coord_list_init(&holding->answers);
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
			core_wait_forget(
				coord_container(ticket->waits.next, struct coord_wait, link));
		core_ticket_free(ticket);
	}
	while (!coord_list_empty(&holding->answers))
		core_wait_forget(coord_container(holding->answers.next, struct coord_wait, link));
	if (holding->state != COORD_FREE)
		coord_unlock(holding, NULL, NULL);
	coord_list_remove(&holding->link);
	free(holding->leader);
	holding->zombie = true;
	core_holding_tidy(holding);
	core_lock_later(lock);
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
	struct coord_bytes *copy = malloc(sizeof(*copy) + member.len);
	if (!copy)
		return -ENOMEM;
	*copy = (struct coord_bytes){memcpy(copy + 1, member.data, member.len), member.len};
	free(holding->leader);
	holding->leader = copy;
	return 0;
}

enum coord_holding_state coord_holding_state(const struct coord_holding *holding)
{
	return holding->state;
}

bool coord_holding_is_lost(struct coord_holding *holding)
{
	struct core_grant *grant = holding->lock->grant;
	if (holding->state == COORD_HELD && grant && core_grant_over(grant))
		core_grant_lost(grant);
	return holding->state == COORD_HOLDING_LOST;
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

static struct coord_ticket *ticket_find(
	struct coord_holding *holding, enum coord_mode mode, bool wait)
{
	struct coord_ticket *ticket;
	coord_list_each (ticket, &holding->tickets, hlink)
		if (ticket->mode == mode && ticket->wait == wait)
			return ticket;
	return NULL;
}

static struct coord_ticket *ticket_new(
	struct coord_holding *holding, enum coord_mode mode, bool wait)
{
	struct coord_ticket *ticket = coord_zalloc(sizeof(*ticket));
	if (!ticket)
		return NULL;
	ticket->holding = holding;
	ticket->mode = mode;
	ticket->wait = wait;
	ticket->place = ++holding->lock->tickets_ever;
	ticket->timer.fn = core_ticket_timer;
	coord_list_init(&ticket->link);
	coord_list_init(&ticket->waits);
	coord_list_add(&holding->tickets, &ticket->hlink);
	return ticket;
}

uint64_t core_try_limit(const struct coord *coord, bool brief)
{
	uint64_t timeout = coord->config->timeout_ms;
	return brief && timeout > BRIEF_MS ? BRIEF_MS : timeout;
}

/* A try that nobody would answer; 0: it may be made. */
static int try_in_vain(const struct coord *coord, unsigned flags)
{
	if (flags & COORD_LOCK_WAIT)
		return 0;
	if (!coord->session.connected)
		return -ENOLCK;
	if (core_answers_apart(coord))
		return 0;
	return coord_in_vain(coord, core_try_limit(coord, flags & COORD_LOCK_SHORT));
}

/* What can be said at once: 1 means the request has to queue. */
static int lock_at_once(struct coord_holding *holding, enum coord_mode mode, unsigned flags)
{
	struct coord *coord = holding->lock->coord;
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
	int r = lock->local ? 0 : try_in_vain(coord, flags);
	if (r < 0)
		return r;
	if (!held || !(flags & COORD_LOCK_ATOMIC))
		return 1;
	if (mode == COORD_SHARED) {
		holding->mode = COORD_SHARED;
		core_lock_later(lock);
		return 0;
	}
	if (lock->upgrader && lock->upgrader->holding != holding)
		return flags & COORD_LOCK_WAIT ? -EDEADLK : -EAGAIN;
	/* Through the same holding another already waits for it: others hold it, too. */
	if (lock->upgrader && lock->upgrader->wait && !(flags & COORD_LOCK_WAIT))
		return -EAGAIN;
	bool can = lock->local || lock->grant->grant.mode == COORD_EXCLUSIVE ||
		   (coord->session.can & COORD_CAN_CONVERT);
	return can ? 1 : -ENOLCK;
}

static void ticket_deadline(struct coord_ticket *ticket, unsigned flags)
{
	struct coord *coord = ticket->holding->lock->coord;
	coord_timer_stop(coord->loop, &ticket->timer);
	if (ticket->wait)
		return;
	ticket->brief = flags & COORD_LOCK_SHORT;
	coord_timer_start(coord->loop, &ticket->timer,
		coord_now_ms(coord->loop) + core_try_limit(coord, ticket->brief));
}

void coord_lock(struct coord_holding *holding, enum coord_mode mode, unsigned flags,
	struct coord_wait *wait)
{
	struct coord *coord = holding->lock->coord;
	struct core_lock *lock = holding->lock;
	coord_list_init(&wait->link);
	wait->ticket = NULL;
	wait->holding = holding;
	wait->mode = (uint8_t)mode;
	wait->flags = (uint8_t)flags;
	int r = lock_at_once(holding, mode, flags);
	if (r <= 0) {
		core_wait_answer(wait, r);
		return;
	}
	bool upgrade = holding->state == COORD_HELD && (flags & COORD_LOCK_ATOMIC);
	if (holding->state == COORD_HELD && !upgrade)
		coord_unlock(holding, NULL, NULL); /* flock(2): another may come in between */
	struct coord_ticket *ticket =
		upgrade ? lock->upgrader : ticket_find(holding, mode, flags & COORD_LOCK_WAIT);
	if (!ticket)
		ticket = ticket_new(holding, mode, flags & COORD_LOCK_WAIT);
	if (!ticket) {
		core_wait_answer(wait, -ENOMEM);
		return;
	}
	if (upgrade && !ticket->wait && (flags & COORD_LOCK_WAIT)) {
		/* One thread tried, another waits: the try has failed. */
		while (!coord_list_empty(&ticket->waits))
			core_wait_answer(
				coord_container(ticket->waits.next, struct coord_wait, link),
				-EAGAIN);
		ticket->wait = true;
	}
	if (upgrade)
		lock->upgrader = ticket;
	else if (!ticket->live)
		core_ticket_live(ticket);
	ticket_deadline(ticket, flags);
	wait->ticket = ticket;
	coord_list_add(&ticket->waits, &wait->link);
	coord->counters.waiters++;
	/* A waiter behind another changes nothing: the pump need not look. */
	if (!ticket->wait || upgrade || lock->tickets.next == &ticket->link || !lock->acquiring)
		core_lock_later(lock);
}

void coord_wait_cancel(struct coord_wait *wait, bool keep_place)
{
	struct coord_ticket *ticket = wait->ticket;
	if (wait->holding)
		core_wait_forget(wait);
	if (!ticket || !coord_list_empty(&ticket->waits))
		return;
	struct core_lock *lock = ticket->holding->lock;
	struct coord *coord = lock->coord;
	/* Behind another, nothing depends on it. */
	bool first = lock->tickets.next == &ticket->link || lock->upgrader == ticket;
	if (keep_place && ticket->wait && lock->upgrader != ticket) {
		core_ticket_idle(ticket);
		coord_timer_start(
			coord->loop, &ticket->timer, coord_now_ms(coord->loop) + PLACE_MS);
	} else {
		core_ticket_free(ticket);
	}
	if (first)
		core_lock_later(lock);
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
	wait->task.fn = core_unlock_task;
	return wait;
}

void coord_unlock(struct coord_holding *holding, void (*fn)(void *user, int status), void *user)
{
	struct core_lock *lock = holding->lock;
	struct coord *coord = holding->lock->coord;
	if (lock->upgrader && lock->upgrader->holding == holding) {
		/* Nothing is left to upgrade: it waits on as any other. */
		core_ticket_live(lock->upgrader);
		lock->upgrader = NULL;
	}
	bool held = holding->state == COORD_HELD;
	core_holding_drop(holding, COORD_FREE);
	struct core_release *release = NULL;
	if (held && lock->grant && coord_list_empty(&lock->holders) && !lock->converting) {
		struct core_grant *grant = lock->grant;
		lock->grant = NULL;
		core_grant_release(lock, grant);
		release = &grant->release;
		if (core_lock_contended(lock) && !(coord->session.can & COORD_CAN_QUEUE))
			core_lock_block(lock, YIELD_MS);
	}
	core_lock_later(lock);
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
	uint8_t owner[16]; /* of the grant that is asked for */
	uint32_t epoch;
};

/* Asks the authority. By the answer the grant may be gone, and another in its place. */
static void check_done(void *user, int status, const struct coord_row *rows, size_t len)
{
	struct check *check = user;
	struct coord_holding *holding = check->holding;
	if (holding->zombie) {
		check->fn(check->user, -EBADF, NULL, 0);
		return;
	}
	struct core_lock *lock = holding->lock;
	if (status == -ESTALE)
		coord_grant_lost(&check->coord->session, lock->key, check->owner, check->epoch);
	if (status == 0 && lock->grant && core_grant_over(lock->grant))
		core_grant_lost(lock->grant);
	if (status == -ESTALE || holding->state == COORD_HOLDING_LOST)
		status = -EIO;
	check->fn(check->user, status, NULL, 0);
}

static void check_gone(struct coord_req *req)
{
	struct check *check = req->at;
	check->holding->checks--;
	core_holding_tidy(check->holding);
	free(check);
}

int coord_check(
	struct coord_holding *holding, coord_reply_fn *fn, void *user, struct coord_req **ret_req)
{
	struct coord *coord = holding->lock->coord;
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
	*check = (struct check){coord, fn, user, holding, .epoch = grant->epoch};
	memcpy(check->owner, grant->owner, sizeof(check->owner));
	holding->checks++;
	req->at = check;
	req->gone = check_gone;
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
	struct coord_req *req = core_req_new(holding->lock->coord, fn, user);
	if (!req)
		return -ENOMEM;
	bool pending = !coord_list_empty(&lock->releases);
	struct unlock_wait *wait = pending ? calloc(1, sizeof(*wait)) : NULL;
	if (pending && !wait) {
		core_req_answer_later(req, -ENOMEM);
	} else if (wait) {
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
	return list_len(&lock->tickets);
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

/* Who asks at this moment whether it is still held need not wait for the backend, which may be silent. */
static void checks_lost(struct coord_holding *holding)
{
	struct coord *coord = holding->lock->coord;
	struct coord_req *req;
	coord_list_each (req, &coord->reqs, link) {
		if (req->gone != check_gone)
			continue;
		const struct check *check = req->at;
		if (check->holding == holding)
			core_req_answer_later(req, -EIO);
	}
}

enum { LOSS_LINES = 20 }; /* of what is lost at once */

void core_losses_begin(struct coord *coord, int level, const char *why)
{
	coord->losses = (struct core_losses){.level = level, .why = why};
}

void core_losses_end(struct coord *coord)
{
	const struct core_losses *losses = &coord->losses;
	if (losses->len > LOSS_LINES)
		coord_log(losses->level, "... and %" PRIu32 " more were lost: %s",
			losses->len - LOSS_LINES, losses->why);
	coord->losses = (struct core_losses){0};
}

/* pid held it, and others beside it. */
static void log_loss(const struct core_lock *lock, const char *why, uint32_t pid, uint32_t others)
{
	struct core_losses *losses = &lock->coord->losses;
	char name[COORD_NAME_MAX + 1], more[32] = "";
	if (losses->why && ++losses->len > LOSS_LINES)
		return;
	if (coord_name_encode(lock->key.name, name) < 0)
		return;
	if (others)
		snprintf(more, sizeof(more), " and %" PRIu32 " more", others);
	coord_log(losses->why ? losses->level : LOG_WARNING,
		"%s %s was lost: %s (held by process %" PRIu32 "%s)",
		lock->key.kind == COORD_LEADER ? "the leadership of group" : "lock", name, why, pid,
		more);
}

static void await(struct coord_holding *holding)
{
	holding->awaited = true;
	holding->lock->awaited++;
	holding->lock->coord->awaited++;
}

/* Every local holder of the grant is told that it lost, and then the log. has_grace: what it held should stay its own
 * until it has let go. */
static void holders_lost(struct core_lock *lock, const char *why, bool has_grace)
{
	struct coord *coord = lock->coord;
	uint32_t pid = 0, told = 0;
	while (!coord_list_empty(&lock->holders)) {
		struct coord_holding *holding =
			coord_container(lock->holders.next, struct coord_holding, hlink);
		if (lock->upgrader && lock->upgrader->holding == holding)
			core_ticket_answer(lock->upgrader, -EIO);
		pid = told++ ? pid : holding->pid;
		core_holding_drop(holding, COORD_HOLDING_LOST);
		if (has_grace && holding->told)
			await(holding);
		if (holding->checks > 0)
			checks_lost(holding);
		if (holding->told && coord->notices.lost)
			coord->notices.lost(coord->user, holding);
	}
	if (told)
		log_loss(lock, why, pid, told - 1);
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
		holders_lost(lock, "it was broken", false);
		core_views_touch(coord, kind, name);
		core_lock_release_grant(lock);
		core_lock_later(lock);
		core_req_answer_later(req, 0);
		if (ret_req)
			*ret_req = req;
		return 0;
	}
	if (!(coord->session.can & COORD_CAN_BREAK))
		return -EOPNOTSUPP;
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
	bool over = !coord_list_empty(&lock->holders) && !grant->gone && core_grant_over(grant);
	lock->grant = NULL;
	core_views_touch(lock->coord, lock->key.kind, lock->key.name);
	bool late = grant->late || (!grant->gone && core_grant_over(grant));
	const char *why = lock->coord->losses.why;
	if (!why)
		why = late ? "its lease was not renewed in time"
			   : "it was broken, or the server forgot it";
	holders_lost(lock, why, over);
	/* What is left of it in the backend goes too; after the end of a session there is nothing. */
	if (over) {
		lock->coord->session.holder_told_ms = coord_now_ms(lock->coord->loop);
		core_grant_release_lost(lock, grant);
	} else {
		core_grant_release(lock, grant);
	}
	core_lock_later(lock);
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
		core_lock_later(lock);
	}
}

void core_locks_contended(struct core_grant *grant)
{
	struct core_lock *lock = grant->owner;
	struct coord *coord = lock->coord;
	lock->contended_ms = coord_now_ms(coord->loop) + CONTENDED_MS;
	/* Sharers here that stood back for it go on then. */
	coord_timer_start(coord->loop, &lock->again, lock->contended_ms);
	if (lock->grant != grant && !(lock->coord->session.can & COORD_CAN_QUEUE) &&
		!lock->acquiring)
		core_lock_block(lock, YIELD_MS);
}

void core_locks_resume(struct coord *coord)
{
	for (struct coord_node *node = NULL; (node = coord_table_next(&coord->locks, node));) {
		struct core_lock *lock = (struct core_lock *)node;
		coord_timer_stop(coord->loop, &lock->timer);
		lock->blocked = false;
		core_lock_later(lock);
	}
}

static void lock_stop(struct core_lock *lock)
{
	struct coord_ticket *ticket, *next;
	coord_list_each_safe (ticket, next, &lock->tickets, link)
		core_ticket_answer(ticket, -ESHUTDOWN);
	core_lock_later(lock);
	if (lock->local)
		return;
	uint32_t before = lock->awaited;
	holders_lost(lock, lock->coord->losses.why, true);
	if (!lock->grant || lock->awaited == before)
		return;
	/* It is not renewed any more: the margin of its lease is longer than what is waited. */
	lock->grant->held = false;
	coord_timer_stop(lock->coord->loop, &lock->grant->until);
	lock->coord->session.holder_told_ms = coord_now_ms(lock->coord->loop);
}

void core_locks_stop(struct coord *coord)
{
	core_losses_begin(coord, LOG_WARNING, "the mount is ending");
	for (struct coord_node *node = NULL; (node = coord_table_next(&coord->locks, node));)
		lock_stop((struct core_lock *)node);
	core_losses_end(coord);
}

void core_locks_release(struct coord *coord)
{
	for (struct coord_node *node = NULL; (node = coord_table_next(&coord->locks, node));)
		core_lock_later((struct core_lock *)node);
}

uint32_t core_locks_unreleased(struct coord *coord)
{
	uint32_t count = 0;
	for (struct coord_node *node = NULL; (node = coord_table_next(&coord->locks, node));) {
		const struct core_lock *lock = (struct core_lock *)node;
		count += list_len(&lock->releases) + (lock->grant ? 1 : 0);
	}
	return count;
}

bool core_locks_idle(const struct coord *coord)
{
	return coord->locks_busy == 0;
}

void core_locks_done(struct coord *coord)
{
	struct coord_node *node;
	while ((node = coord_table_first(&coord->locks))) {
		struct core_lock *lock = (struct core_lock *)node;
		struct core_release *release;
		coord_list_each (release, &lock->releases, link)
			core_release_answer(release);
		coord_timer_stop(coord->loop, &lock->timer);
		coord_timer_stop(coord->loop, &lock->again);
		coord_loop_undefer(coord->loop, &lock->pump);
		coord_table_remove(&coord->locks, node);
		free(lock);
	}
	coord_table_done(&coord->locks);
}
