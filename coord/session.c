/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The session with the backend, and the leases of what is held through it.
 *
 *   starting -> connected <-> suspended -> lost -> connected (a new epoch) ... -> stopped
 *
 * suspended: the driver says the connection is down, but what is held may live. lost: by our own clock
 * the lease is over, or the driver says that the backend let go; the old epoch's grants are dead for
 * good, and the session is opened anew until that succeeds.
 *
 * A lease counts from just before the request was sent: until = sent + ttl - margin. The clock is
 * BOOTTIME, read afresh at every decision.
 */
#include "coord/core.h"

#include <assert.h>
#include <stdio.h>
#include <syslog.h>

enum { BACKOFF_MIN_MS = 100, BACKOFF_MAX_MS = 5000, CLAIM_POLL_MS = 200 };
enum { TELL_AGAIN_MS = 600000 };

static void session_open(struct coord *coord, unsigned flags);
static void session_lost(struct coord *coord, const char *why);

uint64_t core_grace_ms(uint64_t ttl_ms)
{
	return ttl_ms / 8 < COORD_GRACE_MAX_MS ? ttl_ms / 8 : COORD_GRACE_MAX_MS;
}

uint64_t core_margin_ms(uint64_t ttl_ms)
{
	uint64_t least = 1000 + core_grace_ms(ttl_ms);
	return ttl_ms / 6 > least ? ttl_ms / 6 : least;
}

uint64_t core_hold_ms(const struct coord *coord)
{
	uint64_t ttl_ms = core_leased(coord) ? coord->session.ttl_ms : 0;
	/* tooz-run's where .tooz/session names none is the longest. */
	return (ttl_ms ? core_grace_ms(ttl_ms) : COORD_GRACE_MAX_MS) + COORD_KILLED_MS;
}

int core_away(const struct coord *coord)
{
	if (coord->session.connected)
		return -ETIMEDOUT;
	return coord->session.refused ? -EACCES : -EHOSTDOWN;
}

bool core_leased(const struct coord *coord)
{
	const enum coord_loss *loss = coord->driver->loss;
	return loss[COORD_LOCK] == COORD_LOSS_LEASE || loss[COORD_LEADER] == COORD_LOSS_LEASE ||
	       loss[COORD_MEMBER] == COORD_LOSS_LEASE;
}

/* ---- grants ---- */

static uint64_t lease_until(uint64_t sent_ms, uint64_t ttl_ms)
{
	uint64_t margin = core_margin_ms(ttl_ms);
	return ttl_ms > margin ? sent_ms + ttl_ms - margin : sent_ms;
}

static void grant_until(struct coord_timer *timer)
{
	struct core_grant *grant = coord_container(timer, struct core_grant, until);
	grant->late = true;
	core_grant_lost(grant);
}

struct core_grant *core_grant_new(struct coord *coord, struct coord_key key,
	struct coord_bytes member, enum coord_mode mode, void *owner)
{
	size_t drv = (coord->driver->grant_size + 7) & ~(size_t)7;
	struct core_grant *grant =
		coord_zalloc(sizeof(*grant) + drv + key.name.len + member.len + 2);
	if (!grant)
		return NULL;
	char *name = grant->data + drv;
	memcpy(name, key.name.data, key.name.len);
	char *id = name + key.name.len + 1;
	memcpy(id, member.data, member.len);
	grant->grant = (struct coord_grant){
		.key = {key.kind, {name, key.name.len}},
		.member = {id, member.len},
		.mode = mode,
		.epoch = coord->session.epoch,
		.until_ms = UINT64_MAX,
	};
	/* Unique: half of the daemon's random id, and a count. */
	memcpy(grant->grant.owner, coord->session.uuid, 8);
	uint64_t count = ++coord->owner_next;
	memcpy(grant->grant.owner + 8, &count, 8);
	grant->coord = coord;
	grant->owner = owner;
	grant->until.fn = grant_until;
	coord_list_add(&coord->grants, &grant->link);
	return grant;
}

void *coord_grant_data(struct coord_grant *grant)
{
	return core_grant_of(grant)->data;
}

static void grant_lease(struct core_grant *grant, uint64_t sent_ms, uint64_t ttl_ms)
{
	struct coord *coord = grant->coord;
	if (coord->driver->loss[grant->grant.key.kind] != COORD_LOSS_LEASE || ttl_ms == 0)
		return;
	uint64_t until = lease_until(sent_ms, ttl_ms);
	grant->grant.until_ms = until;
	coord_timer_start(coord->loop, &grant->until, until);
}

bool core_grant_over(struct core_grant *grant)
{
	const struct coord_session *session = &grant->coord->session;
	uint64_t until = grant->grant.until_ms;
	/* With the session everything of it ends, whatever its kind of loss. */
	if (session->until_ms && session->until_ms < until)
		until = session->until_ms;
	return until != UINT64_MAX && coord_now_ms(grant->coord->loop) >= until;
}

int core_grant_held(struct core_grant *grant, const struct coord_op *op)
{
	struct coord *coord = grant->coord;
	uint64_t ttl = op->ttl_ms ? op->ttl_ms : coord->session.ttl_ms;
	grant->held = true;
	if (!grant->grant.since_us)
		grant->grant.since_us = coord_utc_us(coord->loop);
	grant_lease(grant, op->sent_ms, ttl);
	bool over = grant->gone || grant->grant.epoch != coord->session.epoch;
	return over || core_grant_over(grant) ? -ESTALE : 0;
}

void core_grant_free(struct core_grant *grant)
{
	if (!grant)
		return;
	struct coord *coord = grant->coord;
	coord_timer_stop(coord->loop, &grant->until);
	grant->held = false;
	grant->dead = true;
	if (grant->ops > 0)
		return;
	if (coord->driver->grant_done && !coord->driver_gone)
		coord->driver->grant_done(&coord->session, &grant->grant);
	coord_timer_stop(coord->loop, &grant->until);
	coord_list_remove(&grant->link);
	free(grant);
}

struct coord_grant *coord_grants_next(struct coord_session *session, struct coord_grant *after)
{
	struct coord *coord = (struct coord *)session;
	struct coord_list *at = after ? core_grant_of(after)->link.next : coord->grants.next;
	for (; at != &coord->grants; at = at->next) {
		struct core_grant *grant = coord_container(at, struct core_grant, link);
		if (grant->held && grant->grant.epoch == session->epoch)
			return &grant->grant;
	}
	return NULL;
}

void coord_grant_renewed(
	struct coord_session *session, struct coord_grant *grant, uint64_t sent_ms, uint64_t ttl_ms)
{
	struct core_grant *core = core_grant_of(grant);
	if (core->held && grant->epoch == session->epoch && !core_grant_over(core))
		grant_lease(core, sent_ms, ttl_ms);
}

static struct core_grant *grant_find(
	struct coord *coord, struct coord_key key, const uint8_t owner[16], uint32_t epoch)
{
	struct core_grant *grant;
	coord_list_each (grant, &coord->grants, link)
		if (grant->grant.epoch == epoch && grant->grant.key.kind == key.kind &&
			memcmp(grant->grant.owner, owner, 16) == 0)
			return grant;
	return NULL;
}

void core_grant_lost(struct core_grant *grant)
{
	if (!grant->held)
		return;
	grant->coord->counters.losses++;
	grant->held = false;
	coord_timer_stop(grant->coord->loop, &grant->until);
	if (grant->grant.key.kind == COORD_MEMBER)
		core_members_grant_lost(grant);
	else
		core_locks_grant_lost(grant);
}

void coord_grant_lost(struct coord_session *session, struct coord_key key, const uint8_t owner[16],
	uint32_t epoch)
{
	struct core_grant *grant = grant_find((struct coord *)session, key, owner, epoch);
	if (!grant)
		return;
	grant->gone = true;
	core_grant_lost(grant);
}

void coord_grant_contended(struct coord_session *session, struct coord_key key,
	const uint8_t owner[16], uint32_t epoch)
{
	struct core_grant *grant = grant_find((struct coord *)session, key, owner, epoch);
	if (grant && key.kind != COORD_MEMBER)
		core_locks_contended(grant);
}

/* Ends what this kind of loss takes with it. */
static void grants_lost(struct coord *coord, bool all, enum coord_loss loss, const char *why)
{
	core_losses_begin(coord, LOG_WARNING, why);
	for (;;) {
		struct core_grant *grant, *found = NULL;
		coord_list_each (grant, &coord->grants, link)
			if (grant->held && grant->grant.epoch == coord->session.epoch &&
				(all || coord->driver->loss[grant->grant.key.kind] == loss)) {
				found = grant;
				break;
			}
		if (!found)
			break;
		core_grant_lost(found);
	}
	core_losses_end(coord);
}

/* ---- what drivers ask of the session ---- */

void *coord_session_data(struct coord_session *session)
{
	return session->data;
}

struct coord_loop *coord_session_loop(struct coord_session *session)
{
	return ((struct coord *)session)->loop;
}

const struct coord_config *coord_session_config(struct coord_session *session)
{
	return ((struct coord *)session)->config;
}

const uint8_t *coord_session_uuid(struct coord_session *session)
{
	return session->uuid;
}

void coord_session_narrow(struct coord_session *session, unsigned can)
{
	session->can &= ~can;
}

void coord_session_set_id(struct coord_session *session, const char *id)
{
	snprintf(session->id, sizeof(session->id), "%s", id);
}

/* ---- renewal ---- */

static void session_lease(struct coord *coord, const struct coord_op *op)
{
	struct coord_session *session = &coord->session;
	if (op->ttl_ms)
		session->ttl_ms = op->ttl_ms;
	if (!core_leased(coord) || session->ttl_ms == 0)
		return;
	session->until_ms = lease_until(op->sent_ms, session->ttl_ms);
	coord_timer_start(coord->loop, &session->until_timer, session->until_ms);
	uint64_t period = (session->ttl_ms - core_margin_ms(session->ttl_ms)) / 4;
	if (session->ttl_ms <= core_margin_ms(session->ttl_ms))
		period = 0;
	/* Where a lease counts from a request before this one, the next is not due at once. */
	uint64_t next = op->sent_ms + (period ? period : 1);
	uint64_t least = coord_now_ms(coord->loop) + period / 2;
	coord_timer_start(coord->loop, &session->renew_timer, next > least ? next : least);
}

static void session_down(struct coord *coord)
{
	struct coord_session *session = &coord->session;
	if (session->connected)
		session->down_ms = coord_now_ms(coord->loop);
	session->connected = false;
}

static void session_until(struct coord_timer *timer)
{
	struct coord *coord = coord_container(timer, struct coord, session.until_timer);
	if (coord->stopping)
		return;
	coord_log(LOG_ERR, "the session was not renewed in time: lost");
	session_lost(coord, "its lease was not renewed in time");
}

static void renew_done(struct coord_op *op, void *user)
{
	struct coord *coord = user;
	struct coord_session *session = &coord->session;
	session->renewing = false;
	if (op->epoch == session->epoch && session->open && !session->closing) {
		if (op->status == 0)
			session_lease(coord, op);
		else if (op->status == -ESTALE)
			session_lost(coord, "the session with the backend has ended");
		else
			coord_timer_start(coord->loop, &session->renew_timer,
				coord_now_ms(coord->loop) + BACKOFF_MIN_MS);
	}
	core_op_free(op);
}

static void session_renew(struct coord_timer *timer)
{
	struct coord *coord = coord_container(timer, struct coord, session.renew_timer);
	struct coord_session *session = &coord->session;
	if (session->renewing || !session->open || session->closing || !coord->driver->renew)
		return;
	struct coord_op *op = session->connected ? core_op_new(coord, COORD_CALL_RENEW,
							   (struct coord_key){.kind = COORD_LOCK},
							   COORD_BYTES(""), COORD_BYTES(""))
						 : NULL;
	if (!op) {
		coord_timer_start(coord->loop, &session->renew_timer,
			coord_now_ms(coord->loop) + BACKOFF_MIN_MS);
		return;
	}
	session->renewing = true;
	core_op_start(op, renew_done, coord);
}

/* ---- open, events, lost ---- */

static void session_fail(struct coord *coord, int status, const char *text)
{
	coord_timer_stop(coord->loop, &coord->session.open_timer);
	if (coord->ready || coord->stopped)
		return;
	coord->stopped = true;
	core_set_state(coord, COORD_STOPPED);
	if (coord->notices.ready)
		coord->notices.ready(coord->user, status, text);
}

static void open_deadline(struct coord_timer *timer)
{
	struct coord *coord = coord_container(timer, struct coord, session.open_timer);
	session_fail(coord, -ETIMEDOUT, "the backend did not answer in time");
}

static void session_opened(struct coord *coord, struct coord_op *op)
{
	struct coord_session *session = &coord->session;
	session->open = session->connected = true;
	session->refused = false;
	session->told[0] = '\0';
	session->backoff_ms = 0;
	session->claim_until_ms = 0;
	coord->left_behind = 0;
	coord_timer_stop(coord->loop, &session->open_timer);
	session_lease(coord, op);
	core_answered(coord);
	bool first = !coord->ready;
	coord->ready = true;
	if (!first)
		coord->counters.reconnects++;
	core_set_state(coord, COORD_CONNECTED);
	if (first && coord->notices.ready)
		coord->notices.ready(coord->user, 0, NULL);
	core_views_epoch(coord);
	core_members_epoch(coord);
	core_locks_resume(coord);
	core_ops_run(coord);
}

static void session_reopen_later(struct coord *coord, uint32_t after_ms)
{
	coord_timer_start(
		coord->loop, &coord->session.reopen_timer, coord_now_ms(coord->loop) + after_ms);
}

/* The member id is claimed by somebody else: dead, alive here, or not to be seen from here. Returns
 * true if it will be tried again. */
static bool claim_refused(struct coord *coord, const struct coord_op *op, char *text, size_t len)
{
	struct coord_session *session = &coord->session;
	struct coord_identity other = {0};
	const char *member = coord->config->member;
	if (!op->rows || coord_identity_parse(op->rows->data, &other) < 0) {
		snprintf(text, len,
			"member id '%s' is in use; choose another with -o member=", member);
		return false;
	}
	enum coord_claim claim = coord_identity_compare(&coord->config->identity, &other);
	bool alive = op->rows->flags & COORD_ROW_LIVE;
	if (claim == COORD_CLAIM_DEAD && !alive) {
		session_open(coord, COORD_OP_REPLACE_STALE);
		return true;
	}
	uint64_t now = coord_now_ms(coord->loop);
	if (claim == COORD_CLAIM_ELSEWHERE && !alive && session->claim_until_ms == 0) {
		uint64_t wait =
			coord->config->timeout_ms < 10000 ? coord->config->timeout_ms : 10000;
		session->claim_until_ms = now + wait + coord->config->membership_timeout_ms;
		coord_timer_start(coord->loop, &session->open_timer,
			session->claim_until_ms + coord->config->timeout_ms);
	}
	if (now < session->claim_until_ms) {
		session_reopen_later(coord, CLAIM_POLL_MS);
		return true;
	}
	snprintf(text, len,
		"member id '%s' is in use by a mount on host %s (pid %llu); choose another with "
		"-o member=",
		member, other.host, (unsigned long long)other.pid);
	return false;
}

/* An outage may last for days: the first attempt is told, a new reason, and now and then that it goes on. */
static void tell_reopen(struct coord *coord, const char *text)
{
	struct coord_session *session = &coord->session;
	uint64_t now = coord_now_ms(coord->loop);
	bool same = strncmp(session->told, text, sizeof(session->told) - 1) == 0;
	session->untold++;
	if (same && now < session->told_ms + TELL_AGAIN_MS)
		return;
	char count[48] = "";
	if (same)
		snprintf(count, sizeof(count), " (%u more attempts)", session->untold);
	coord_log(LOG_WARNING, "cannot open the session again: %s%s", text, count);
	snprintf(
		session->told, sizeof(session->told), "%.*s", (int)sizeof(session->told) - 1, text);
	session->told_ms = now;
	session->untold = 0;
}

/* Within two leases everything is to be back, and an attempt takes its time, too. */
static uint32_t backoff_max_ms(const struct coord *coord)
{
	uint64_t third_ms = core_leased(coord) ? coord->session.ttl_ms / 3 : 0;
	return third_ms && third_ms < BACKOFF_MAX_MS ? (uint32_t)third_ms : BACKOFF_MAX_MS;
}

static void open_done(struct coord_op *op, void *user)
{
	struct coord *coord = user;
	struct coord_session *session = &coord->session;
	session->session_op = NULL;
	session->there = op->status == 0 ||
			 (op->sent == COORD_SENT_UNKNOWN && core_transient(op->status)) ||
			 (op->sent == COORD_SENT_NO && session->there);
	if (op->status == 0 && coord->stopping) {
		session->open = session->connected = true;
		core_ops_run(coord);
		core_stop_check(coord);
	} else if (op->status == 0 && !coord->stopped) {
		session_opened(coord, op);
	} else if (!coord->stopped && !coord->stopping) {
		char text[1024];
		snprintf(text, sizeof(text), "%s", op->error ? op->error : strerror(-op->status));
		bool again = op->status == -EEXIST && claim_refused(coord, op, text, sizeof(text));
		session->refused = op->status == -EACCES;
		if (!again && coord->ready) {
			tell_reopen(coord, text);
			session->backoff_ms =
				session->backoff_ms ? session->backoff_ms * 2 : BACKOFF_MIN_MS;
			if (session->backoff_ms > backoff_max_ms(coord))
				session->backoff_ms = backoff_max_ms(coord);
			session_reopen_later(coord, session->backoff_ms);
		} else if (!again) {
			session_fail(coord, op->status, text);
		}
	} else {
		core_stop_check(coord);
	}
	core_op_free(op);
}

static void session_open(struct coord *coord, unsigned flags)
{
	struct coord_session *session = &coord->session;
	assert(!session->session_op);
	session->can = coord->driver->can;
	session->epoch++;
	session->closing = false;
	struct coord_op *op = core_op_new(coord, COORD_CALL_OPEN,
		(struct coord_key){.kind = COORD_LOCK}, COORD_BYTES(""), COORD_BYTES(""));
	if (!op) {
		session_reopen_later(coord, BACKOFF_MIN_MS);
		return;
	}
	op->flags = flags;
	op->deadline_ms = coord_now_ms(coord->loop) + coord->config->timeout_ms;
	if (coord->stopping && coord->away_by_ms < op->deadline_ms)
		op->deadline_ms = coord->away_by_ms;
	session->session_op = op;
	core_op_start(op, open_done, coord);
}

static void session_reopen(struct coord_timer *timer)
{
	struct coord *coord = coord_container(timer, struct coord, session.reopen_timer);
	const struct coord_session *session = &coord->session;
	if (coord->stopped || session->session_op)
		return;
	if (coord->stopping && (session->open || coord_now_ms(coord->loop) >= coord->away_by_ms))
		core_stop_check(coord);
	else
		session_open(coord, 0); /* a claim of our own is accepted in any case */
}

bool core_session_awaits(struct coord *coord)
{
	const struct coord_session *session = &coord->session;
	uint64_t now_ms = coord_now_ms(coord->loop), soon_ms = now_ms + BACKOFF_MIN_MS;
	bool away = session->open ? !session->connected && !session->closing : session->there;
	if (!away || now_ms >= coord->away_by_ms)
		return false;
	/* Where the farewell could not be said a new session is opened, that takes over what the old one had. */
	coord_timer_start(coord->loop, &coord->session.reopen_timer,
		!session->open && soon_ms < coord->away_by_ms ? soon_ms : coord->away_by_ms);
	return true;
}

static void session_farewell(struct coord_timer *timer)
{
	core_session_close(coord_container(timer, struct coord, session.farewell_timer));
}

void core_session_open(struct coord *coord)
{
	struct coord_session *session = &coord->session;
	session->open_timer.fn = open_deadline;
	session->renew_timer.fn = session_renew;
	session->until_timer.fn = session_until;
	session->reopen_timer.fn = session_reopen;
	session->farewell_timer.fn = session_farewell;
	coord_timer_start(coord->loop, &session->open_timer,
		coord_now_ms(coord->loop) + coord->config->timeout_ms);
	session_open(coord, 0);
}

static void close_done(struct coord_op *op, void *user)
{
	struct coord *coord = user;
	coord->session.session_op = NULL;
	if (op->status == 0 || op->status == -ESTALE) {
		coord->session.there = false;
		coord->left_behind = 0;
	}
	core_op_free(op);
	if (coord->stopping)
		core_stop_check(coord);
	else
		session_open(coord, 0);
}

void core_session_close(struct coord *coord)
{
	struct coord_session *session = &coord->session;
	coord_timer_stop(coord->loop, &session->renew_timer);
	coord_timer_stop(coord->loop, &session->until_timer);
	coord_timer_stop(coord->loop, &session->reopen_timer);
	coord_timer_stop(coord->loop, &session->farewell_timer);
	session_down(coord);
	session->open = false;
	session->closing = true;
	struct coord_op *op = core_op_new(coord, COORD_CALL_CLOSE,
		(struct coord_key){.kind = COORD_LOCK}, COORD_BYTES(""), COORD_BYTES(""));
	if (!op) {
		/* Without memory for a farewell the backend finds out by itself. */
		core_stop_check(coord);
		return;
	}
	op->deadline_ms = coord_now_ms(coord->loop) + coord->config->timeout_ms;
	session->session_op = op;
	core_op_start(op, close_done, coord);
}

/* Final for the epoch: everything held is dead, and a new epoch begins. */
static void session_lost(struct coord *coord, const char *why)
{
	struct coord_session *session = &coord->session;
	if (!session->open || session->closing)
		return;
	if (coord->stopping) {
		core_stop_ended(coord);
		return;
	}
	core_set_state(coord, COORD_LOST);
	coord->left_behind = core_locks_unreleased(coord);
	grants_lost(coord, true, COORD_LOSS_LEASE, why);
	uint64_t now_ms = coord_now_ms(coord->loop);
	uint64_t close_ms = session->holder_told_ms + core_grace_ms(session->ttl_ms);
	if (session->holder_told_ms == 0 || now_ms >= close_ms) {
		core_session_close(coord);
		return;
	}
	/* The close would let others in at once, while those who were told just now still stop their work. */
	session->closing = true;
	session_down(coord);
	coord_timer_stop(coord->loop, &session->renew_timer);
	coord_timer_stop(coord->loop, &session->until_timer);
	coord_timer_start(coord->loop, &session->farewell_timer, close_ms);
}

void coord_session_event(struct coord_session *session, uint32_t epoch, enum coord_event event)
{
	struct coord *coord = (struct coord *)session;
	if (epoch != session->epoch || !session->open || session->closing)
		return;
	switch (event) {
	case COORD_EVENT_DISCONNECTED:
		if (!session->connected)
			return;
		coord_log(LOG_WARNING, "the connection to the backend is down");
		session_down(coord);
		core_set_state(coord, COORD_SUSPENDED);
		grants_lost(coord, false, COORD_LOSS_CONNECTION,
			"the connection to the backend is down");
		core_stop_away(coord);
		break;
	case COORD_EVENT_CONNECTED:
		if (session->connected)
			return;
		coord_log(LOG_NOTICE, "the connection to the backend is back");
		session->connected = true;
		session->refused = false;
		core_answered(coord);
		coord->counters.reconnects++;
		core_set_state(coord, COORD_CONNECTED);
		if (core_leased(coord))
			coord_timer_start(
				coord->loop, &session->renew_timer, coord_now_ms(coord->loop));
		core_views_epoch(coord);
		core_members_epoch(coord);
		core_locks_resume(coord);
		core_ops_run(coord);
		core_stop_check(coord);
		break;
	case COORD_EVENT_REFUSED:
		session->refused = true;
		break;
	case COORD_EVENT_EXPIRED:
		coord_log(LOG_ERR, "the session with the backend has ended: lost");
		session_lost(coord, "the session with the backend has ended");
		break;
	}
}

void coord_changed(struct coord_session *session, struct coord_key key, uint64_t revision)
{
	struct coord *coord = (struct coord *)session;
	core_views_changed(coord, key);
	if (key.kind == COORD_LOCK || key.kind == COORD_LEADER)
		core_locks_changed(coord, key);
	if (key.kind == COORD_GROUP || key.kind == COORD_LEADER)
		core_follows_touch(coord, key.name);
}
