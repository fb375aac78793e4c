/* SPDX-License-Identifier: Apache-2.0 */
/* Which backend is simulated, and what goes wrong. See run.h. */
#include "tests/sim/run.h"

const char *const like_names[LIKES] = {[LIKE_DRAWN] = "drawn",
	[LIKE_ANY] = "any",
	[LIKE_REDIS] = "redis",
	[LIKE_ZOOKEEPER] = "zookeeper"};

/* ---- Backends ---- */

/* What the driver of redis declares: no queue, polls only where no notices come, a lease for each lock; requests and
 * answers in order on one connection, notices on another. */
static void like_redis(struct fake_options *o)
{
	o->can = COORD_CAN_SHARED | COORD_CAN_CONVERT | COORD_CAN_LIST_ALL | COORD_CAN_BREAK |
		 COORD_CAN_ORDERED | COORD_CAN_GROUPS | COORD_CAN_LEADER_ID;
	if (sim_below(sim, 4))
		o->can |= COORD_CAN_NOTIFY;
	o->claims = o->answers_in_order = o->no_cancel = true;
	o->poll_ms = 100;
}

/* That of ZooKeeper: a queue that outlives connections, no conversions, leases of the session that count from the last keep-alive
 * but one; everything in order on one connection. A dead session is ended by who takes over, if it can be. */
static void like_zookeeper(struct fake_options *o)
{
	o->can = COORD_CAN_QUEUE | COORD_CAN_SHARED | COORD_CAN_NOTIFY | COORD_CAN_LIST_ALL |
		 COORD_CAN_BREAK | COORD_CAN_LEADER_ID | COORD_CAN_ORDERED | COORD_CAN_GROUPS;
	o->sessions = o->answers_in_order = o->notices_in_order = true;
	o->heirs = sim_below(sim, 3) == 0;
	o->ops_max = 1000;
	o->poll_ms = 0;
}

static void like_any_leases(struct fake_options *o)
{
	uint64_t dice = sim_below(sim, 4);
	if (o->lock_loss == COORD_LOSS_LEASE && o->member_loss == COORD_LOSS_LEASE) {
		o->sessions = dice == 0;
		o->claims = dice == 1;
	}
	o->heirs = sim_below(sim, 3) == 0;
	o->answers_in_order = sim_below(sim, 3) == 0;
	o->notices_in_order = o->answers_in_order && sim_below(sim, 2);
	o->no_cancel = !(o->can & COORD_CAN_QUEUE) && sim_below(sim, 3) == 0;
}

static void like_any(struct fake_options *o)
{
	o->lock_loss = (enum coord_loss)sim_below(sim, 3);
	o->member_loss = o->lock_loss == COORD_LOSS_CONNECTION && sim_below(sim, 2)
				 ? COORD_LOSS_LEASE
				 : o->lock_loss;
	static const unsigned options_can[] = {
		COORD_CAN_NOTIFY, COORD_CAN_CONVERT, COORD_CAN_ORDERED, COORD_CAN_SHARED};
	for (size_t i = 0; i < sizeof(options_can) / sizeof(*options_can); i++)
		if (sim_below(sim, 4) == 0)
			o->can &= ~options_can[i];
	if (!(o->can & COORD_CAN_SHARED))
		o->can &= ~(unsigned)COORD_CAN_CONVERT;
	if (sim_below(sim, 2))
		o->can |= COORD_CAN_QUEUE;
	if (sim_below(sim, 3) == 0)
		o->ops_max = 1 + (uint32_t)sim_below(sim, 6);
	/* One op at a time would be the wait that sits there. */
	if (o->ops_max && (o->can & COORD_CAN_QUEUE))
		o->waits_max = o->ops_max > 1 ? o->ops_max - 1 : 0;
	if (o->ops_max == 1)
		o->can &= ~(unsigned)COORD_CAN_QUEUE;
	o->fold = sim_below(sim, 4) == 0;
	o->poll_ms = 50 + (uint32_t)sim_below(sim, 500);
	like_any_leases(o);
}

void draw_options(enum like like)
{
	static const enum like drawn[] = {LIKE_ANY, LIKE_ANY, LIKE_REDIS, LIKE_ZOOKEEPER};
	uint64_t dice = sim_below(sim, sizeof(drawn) / sizeof(*drawn));
	run.like = like == LIKE_DRAWN ? drawn[dice] : like;
	run.options = site_options();
	if (run.like == LIKE_REDIS)
		like_redis(&run.options);
	else if (run.like == LIKE_ZOOKEEPER)
		like_zookeeper(&run.options);
	else
		like_any(&run.options);
	run.options.ttl_ms = 6000 + sim_below(sim, 10000);
	run.breaks = sim_below(sim, 4) == 0;
}

struct fake_faults draw_faults(void)
{
	struct fake_faults f = {.delay_ms = (uint32_t)sim_below(sim, 40)};
	if (sim_below(sim, 4) == 0)
		return f;
	if (sim_below(sim, 8) == 0)
		f.delay_ms = (uint32_t)sim_below(sim, 1500);
	run.delay_ms = f.delay_ms;
	f.lost = (unsigned)sim_below(sim, 60);
	if (run.options.lock_loss == COORD_LOSS_PROCESS)
		return f;
	f.unknown = (unsigned)sim_below(sim, 60);
	f.disconnect = (unsigned)sim_below(sim, 10);
	f.notice_ms = (uint32_t)sim_below(sim, 300);
	f.down_ms = (uint32_t)sim_below(sim, 4000);
	return f;
}

/* Clocks that run slow or fast: the margin of a lease has room for more than one in a hundred. */
void draw_clocks(void)
{
	if (sim_below(sim, 3))
		return;
	for (size_t h = 0; h < run.site.len; h++)
		sim_drift(&run.site.hosts[h], (int32_t)sim_below(sim, 20001) - 10000);
}

/* ---- Pauses ---- */

static void host_wake(size_t h)
{
	struct host *host = &run.hosts[h];
	struct sim_loop *loop = &run.site.hosts[h];
	SAY("host %zu goes on", h);
	host->pause_until_ms = 0;
	if (loop->held_us) {
		/* For as long as a lease can last that it takes for valid. */
		sim_hold_clock(loop, false);
		host->excused_ms = host_now(h) + run.options.ttl_ms;
	}
	host->ran_ms = host_now(h);
	sim_pause(loop, false);
}

void wake_up(void)
{
	uint64_t now = sim_now_ms(sim);
	for (size_t h = 0; h < run.site.len; h++)
		if (run.hosts[h].pause_until_ms &&
			(now >= run.hosts[h].pause_until_ms || run.healed_ms))
			host_wake(h);
	if (run.server_until_ms && (now >= run.server_until_ms || run.healed_ms)) {
		SAY("the server goes on");
		run.server_until_ms = 0;
		sim_pause(&run.site.server_host, false);
		graves_wait();
	}
}

uint64_t next_wake_ms(uint64_t limit_ms)
{
	uint64_t next = limit_ms;
	for (size_t h = 0; h < run.site.len; h++) {
		const struct host *host = &run.hosts[h];
		if (host->pause_until_ms && host->pause_until_ms < next)
			next = host->pause_until_ms;
		bool down = host->mount == MOUNT_DOWN && !run.site.hosts[h].paused;
		if (down && host->open_at_ms < next)
			next = host->open_at_ms;
	}
	if (run.server_until_ms && run.server_until_ms < next)
		next = run.server_until_ms;
	return next;
}

static void host_pause(size_t h, bool clock_too)
{
	struct host *host = &run.hosts[h];
	uint64_t ms = 1 + sim_below(sim, sim_below(sim, 3) ? 2000 : 20000);
	SAY("host %zu stands still for %llu ms%s", h, (unsigned long long)ms,
		clock_too ? ", and its clock with it" : "");
	host->pause_until_ms = sim_now_ms(sim) + ms;
	sim_pause(&run.site.hosts[h], true);
	if (clock_too)
		sim_hold_clock(&run.site.hosts[h], true);
	disturb(h);
}

/* ---- What goes wrong ---- */

static void clock_trouble(size_t h)
{
	uint64_t dice = sim_below(sim, 3), ms = 1 + sim_below(sim, 20000);
	if (dice == 0) {
		SAY("the clock of host %zu jumps by %llu ms", h, (unsigned long long)ms);
		sim_jump(&run.site.hosts[h], ms * 1000);
		run.hosts[h].ran_ms = host_now(h);
		disturb(h);
	} else if (dice == 1) {
		SAY("the wall clock of host %zu steps", h);
		sim_utc_step(&run.site.hosts[h],
			(int64_t)sim_below(sim, 1000000) * 7200 - (int64_t)3600000000);
	} else {
		host_pause(h, true);
	}
}

static void mount_trouble(size_t h, bool kill)
{
	enum mount_state state = run.hosts[h].mount;
	if (kill && state != MOUNT_DOWN)
		mount_kill(h);
	else if (!kill && (state == MOUNT_UP || state == MOUNT_OPENING))
		mount_stop(h);
}

static void connection_trouble(size_t h)
{
	uint64_t ms = sim_below(sim, sim_below(sim, 3) ? 3000 : 25000);
	SAY("the connection of host %zu breaks for %llu ms", h, (unsigned long long)ms);
	fake_break(run.site.server, run.site.members[h], ms);
	disturb(h);
}

static void break_trouble(size_t h)
{
	if (run.options.lock_loss != COORD_LOSS_LEASE || sim_below(sim, 2)) {
		lock_break_act(h);
		return;
	}
	SAY("the session of host %zu ends on the server", h);
	fake_end_session(run.site.server, run.site.members[h]);
	disturb(h);
}

static void server_trouble(void)
{
	if (run.server_until_ms)
		return;
	run.server_until_ms = sim_now_ms(sim) + 1 + sim_below(sim, 15000);
	SAY("the server stands still until %.3f", (double)run.server_until_ms / 1e3);
	sim_pause(&run.site.server_host, true);
	disturb(SIZE_MAX);
}

void trouble(void)
{
	size_t h = sim_below(sim, run.site.len);
	uint64_t dice = sim_below(sim, 12);
	bool paused = run.site.hosts[h].paused;
	bool up = run.hosts[h].mount == MOUNT_UP;
	if (dice < 4 && run.options.lock_loss != COORD_LOSS_PROCESS)
		connection_trouble(h);
	else if (dice == 7)
		server_trouble();
	else if (dice == 11)
		mount_trouble(h, true); /* stopped processes, too */
	else if (paused)
		return;
	else if (dice < 7)
		host_pause(h, false);
	else if (dice == 8 && run.breaks && up)
		break_trouble(h);
	else if (dice == 9)
		clock_trouble(h);
	else if (dice == 10)
		mount_trouble(h, false);
}
