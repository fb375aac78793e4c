/* SPDX-License-Identifier: Apache-2.0 */
/* The coordinator: making, starting, stopping it, and facts about it. See coord.h and core.h. */
#include "coord/core.h"

#include <assert.h>
#include <stdio.h>
#include <syslog.h>

/* Most interruptions are shorter, and who unmounts in one does not want to wait for a long one. */
enum { STOP_AWAY_MS = 2000 };

static void stop_hold_over(struct coord_timer *timer);
static void stop_deadline(struct coord_timer *timer);
static void stop_release(struct coord *coord);
static void stop_finish(struct coord *coord);

const char *coord_state_name(enum coord_state state)
{
	static const char *const names[] = {
		[COORD_STARTING] = "starting",
		[COORD_CONNECTED] = "connected",
		[COORD_SUSPENDED] = "suspended",
		[COORD_LOST] = "lost",
		[COORD_STOPPED] = "stopped",
	};
	return names[state];
}

void core_set_state(struct coord *coord, enum coord_state state)
{
	if (coord->state == state)
		return;
	coord->state = state;
	core_follows_state(coord);
	if (coord->notices.state)
		coord->notices.state(coord->user, state);
}

static void stop_task(struct coord_task *task)
{
	struct coord *coord = coord_container(task, struct coord, stop_task);
	if (coord->holding_back && coord->awaited == 0)
		stop_release(coord);
	else
		core_stop_check(coord);
}

int coord_new(struct coord_loop *loop, struct coord_config *config,
	const struct coord_notices *notices, void *user, struct coord **ret, char **ret_error)
{
	struct coord *coord = calloc(1, sizeof(*coord));
	if (!coord)
		return -ENOMEM;
	coord->loop = loop;
	coord->config = config;
	coord->driver = config->driver;
	coord->notices = *notices;
	coord->user = user;
	coord->session.can = coord->driver->can;
	coord->stop_task.fn = stop_task;
	coord->ops_timer.fn = core_ops_timer;
	for (size_t i = 0; i < CORE_QUEUES; i++)
		coord_list_init(&coord->queued[i]);
	coord_list_init(&coord->running);
	coord_list_init(&coord->delayed);
	coord_list_init(&coord->reqs);
	coord_list_init(&coord->grants);
	coord_list_init(&coord->views_kept);
	coord_list_init(&coord->followed);
	coord_random(loop, coord->session.uuid, sizeof(coord->session.uuid));
	for (size_t i = 0; i < sizeof(coord->session.uuid); i++)
		snprintf(coord->session.id + 2 * i, 3, "%02x", coord->session.uuid[i]);
	coord->session.data = calloc(1, coord->driver->session_size + 1);
	int r = coord->session.data ? 0 : -ENOMEM;
	if (r == 0 && coord->driver->configure)
		r = coord->driver->configure(&coord->session, config, ret_error);
	if (r < 0) {
		free(coord->session.data);
		free(coord);
		return r;
	}
	*ret = coord;
	return 0;
}

void coord_start(struct coord *coord)
{
	coord->thread = pthread_self();
	core_session_open(coord);
}

/*
 * A stop takes two steps. First who holds is told, and what he holds stays his on the backend until he has let
 * go of it, or his grace is over: others must not begin before he has ended. Then everything is released,
 * and the session is closed.
 */
void coord_stop(struct coord *coord)
{
	struct coord_session *session = &coord->session;
	if (coord->stopping)
		return;
	coord->stopping = true;
	coord_timer_stop(coord->loop, &session->open_timer);
	core_locks_stop(coord);
	uint64_t now_ms = coord_now_ms(coord->loop);
	uint64_t until_ms = session->holder_told_ms + core_hold_ms(coord);
	bool waits = coord->awaited > 0 && until_ms > now_ms;
	coord->stop_by_ms = (waits ? until_ms : now_ms) + coord->config->timeout_ms;
	if (!waits) {
		stop_release(coord);
		return;
	}
	coord->holding_back = true;
	session->stop_timer.fn = stop_hold_over;
	coord_timer_start(coord->loop, &session->stop_timer, until_ms);
}

bool coord_stop_hurry(struct coord *coord)
{
	if (!coord->holding_back)
		return false;
	stop_release(coord);
	return true;
}

static void stop_hold_over(struct coord_timer *timer)
{
	stop_release(coord_container(timer, struct coord, session.stop_timer));
}

static void stop_patience(struct coord *coord)
{
	uint64_t by_ms = coord_now_ms(coord->loop) + STOP_AWAY_MS;
	coord->away_by_ms = by_ms < coord->stop_by_ms ? by_ms : coord->stop_by_ms;
}

static void stop_release(struct coord *coord)
{
	coord->holding_back = false;
	stop_patience(coord);
	/* After what the releases defer. */
	coord_loop_undefer(coord->loop, &coord->stop_task);
	coord->session.stop_timer.fn = stop_deadline;
	coord_timer_start(coord->loop, &coord->session.stop_timer, coord->stop_by_ms);
	core_locks_release(coord);
	core_members_stop(coord);
	coord_loop_defer(coord->loop, &coord->stop_task);
}

/* Goes on with the stop: first what is held is released, then the session is closed. */
void core_stop_check(struct coord *coord)
{
	struct coord_session *session = &coord->session;
	if (!coord->stopping || coord->holding_back || coord->stopped || session->session_op)
		return;
	if (session->open && session->connected &&
		!(core_locks_idle(coord) && core_members_idle(coord)))
		return;
	if (core_session_awaits(coord))
		return;
	if (!session->open) {
		stop_finish(coord);
		return;
	}
	if (!session->connected && !session->closing)
		coord->left_behind = core_locks_unreleased(coord);
	core_session_close(coord);
}

void core_stop_away(struct coord *coord)
{
	if (!coord->stopping || coord->holding_back)
		return;
	stop_patience(coord);
	core_stop_check(coord);
}

void core_stop_ended(struct coord *coord)
{
	if (coord->stopped)
		return;
	coord_stop_hurry(coord);
	if (!coord->session.closing)
		core_session_close(coord);
}

/* What nobody could tell the backend ends there by itself, in time. */
static void log_left_behind(const struct coord *coord)
{
	if (!core_leased(coord))
		return;
	if (coord->left_behind)
		coord_log(LOG_WARNING, "the backend is away: %u lock%s there until the lease ends",
			coord->left_behind, coord->left_behind == 1 ? " stays" : "s stay");
	else if (coord->session.there)
		coord_log(LOG_WARNING,
			"the backend is away: the memberships and the member id of this mount stay "
			"there until the lease ends");
}

static void stop_finish(struct coord *coord)
{
	if (coord->stopped)
		return;
	coord_timer_stop(coord->loop, &coord->session.stop_timer);
	log_left_behind(coord);
	coord->stopped = true;
	core_set_state(coord, COORD_STOPPED);
	while (!coord_list_empty(&coord->reqs)) {
		struct coord_req *req = coord_container(coord->reqs.next, struct coord_req, link);
		coord_list_remove(&req->link);
		core_req_answer(req, -ESHUTDOWN, NULL, 0);
	}
	core_ops_flush(coord, -ESHUTDOWN);
	if (coord->notices.stopped)
		coord->notices.stopped(coord->user);
}

static void stop_deadline(struct coord_timer *timer)
{
	struct coord *coord = coord_container(timer, struct coord, session.stop_timer);
	coord_log(LOG_WARNING, "the backend did not answer in time: ending without it");
	if (coord->session.open)
		coord->left_behind = core_locks_unreleased(coord);
	stop_finish(coord);
}

void coord_free(struct coord *coord)
{
	if (!coord)
		return;
	struct coord_session *session = &coord->session;
	struct coord_timer *timers[] = {&session->open_timer, &session->renew_timer,
		&session->until_timer, &session->reopen_timer, &session->stop_timer,
		&session->farewell_timer, &coord->ops_timer};
	for (size_t i = 0; i < sizeof(timers) / sizeof(*timers); i++)
		coord_timer_stop(coord->loop, timers[i]);
	coord_loop_undefer(coord->loop, &coord->stop_task);
	coord->stopped = true;
	core_ops_flush(coord, -ESHUTDOWN);
	core_follows_done(coord);
	core_views_done(coord);
	core_members_done(coord);
	core_locks_done(coord);
	struct core_grant *grant, *next;
	coord_list_each_safe (grant, next, &coord->grants, link)
		core_grant_free(grant);
	if (coord->driver->session_free)
		coord->driver->session_free(session);
	coord->driver_gone = true;
	struct coord_req *req, *after;
	coord_list_each_safe (req, after, &coord->reqs, link)
		core_req_answer(req, -ESHUTDOWN, NULL, 0);
	core_ops_done(coord);
	free(session->data);
	coord_config_free(coord->config);
	free(coord);
}

enum coord_state coord_state(const struct coord *coord)
{
	return coord->state;
}

const struct coord_config *coord_config_of(const struct coord *coord)
{
	return coord->config;
}

struct coord_loop *coord_loop_of(const struct coord *coord)
{
	return coord->loop;
}

void coord_session_info(struct coord *coord, struct coord_session_info *ret)
{
	const struct coord_session *session = &coord->session;
	*ret = (struct coord_session_info){
		.id = session->id, .epoch = session->epoch, .can = session->can};
	if (!core_leased(coord) || session->ttl_ms == 0)
		return;
	ret->ttl_ms = session->ttl_ms;
	ret->margin_ms = core_margin_ms(session->ttl_ms);
	ret->grace_ms = core_grace_ms(session->ttl_ms);
	uint64_t until = session->until_ms, now = coord_now_ms(coord->loop);
	struct core_grant *grant;
	coord_list_each (grant, &coord->grants, link)
		if (grant->held && grant->grant.until_ms < until)
			until = grant->grant.until_ms;
	ret->left_ms = until > now ? until - now : 0;
}

const struct coord_counters *coord_counters(struct coord *coord)
{
	return &coord->counters;
}

const uint64_t coord_latency_bounds_us[COORD_LATENCY_BOUNDS] = {50, 100, 250, 500, 1000, 2500, 5000,
	10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 10000000};

void core_count_latency(struct coord *coord, enum coord_call call, uint64_t us)
{
	struct coord_latency *latency = &coord->counters.latency[call];
	size_t i = 0;
	while (i < COORD_LATENCY_BOUNDS && us > coord_latency_bounds_us[i])
		i++;
	latency->counts[i]++;
	latency->sum_us += us;
}

uint64_t coord_requests(struct coord *coord)
{
	return coord->driver->requests ? coord->driver->requests(&coord->session) : 0;
}

const char *coord_call_name(enum coord_call call)
{
	static const char *const names[COORD_CALLS] = {
		[COORD_CALL_OPEN] = "open",
		[COORD_CALL_CLOSE] = "close",
		[COORD_CALL_RENEW] = "renew",
		[COORD_CALL_GROUP_CREATE] = "group_create",
		[COORD_CALL_GROUP_DELETE] = "group_delete",
		[COORD_CALL_GROUP_LIST] = "group_list",
		[COORD_CALL_GROUP_READ] = "group_read",
		[COORD_CALL_MEMBER_JOIN] = "member_join",
		[COORD_CALL_MEMBER_UPDATE] = "member_update",
		[COORD_CALL_MEMBER_LEAVE] = "member_leave",
		[COORD_CALL_MEMBER_GET] = "member_get",
		[COORD_CALL_LOCK] = "lock",
		[COORD_CALL_CONVERT] = "convert",
		[COORD_CALL_UNLOCK] = "unlock",
		[COORD_CALL_LOCK_CHECK] = "lock_check",
		[COORD_CALL_LOCK_READ] = "lock_read",
		[COORD_CALL_LOCK_LIST] = "lock_list",
		[COORD_CALL_LOCK_BREAK] = "lock_break",
	};
	return names[call];
}

void coord_count_hidden(struct coord *coord, uint64_t names)
{
	coord->counters.hidden_names += names;
}

int core_map_name(struct coord *coord, enum coord_kind kind, struct coord_bytes name, char *ret,
	size_t *ret_len)
{
	if (name.len == 0)
		return -EINVAL;
	if (name.len > 256)
		return -ENAMETOOLONG;
	if (coord->driver->map_name)
		return coord->driver->map_name(&coord->session, kind, name, ret, ret_len);
	memcpy(ret, name.data, name.len);
	*ret_len = name.len;
	return 0;
}
