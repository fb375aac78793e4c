/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated world. See simloop.h. */
#include "tests/lib/simloop.h"

#include <assert.h>

static struct sim_loop *sim_of(struct coord_loop *loop)
{
	return coord_container(loop, struct sim_loop, loop);
}

/* What its BOOTTIME shows at a time of the world. */
static uint64_t clock_us(const struct sim_loop *loop, uint64_t at_us)
{
	int64_t drift_us = 0;
	if (loop->held_us && at_us > loop->held_us)
		at_us = loop->held_us;
	if (loop->ppm)
		drift_us = (int64_t)(at_us - loop->ppm_since_us) * loop->ppm / 1000000;
	return at_us + (uint64_t)(loop->ahead_us + drift_us);
}

static uint64_t loop_now_us(struct coord_loop *loop)
{
	return clock_us(sim_of(loop), sim_of(loop)->sim->now_us);
}

static uint64_t loop_utc_us(struct coord_loop *loop)
{
	const struct sim_loop *self = sim_of(loop);
	return self->sim->now_us + self->sim->utc_offset_us + (uint64_t)self->utc_step_us;
}

static void loop_arm(struct coord_loop *loop, uint64_t due_ms)
{
	sim_of(loop)->due_ms = due_ms;
}

static void loop_wake(struct coord_loop *loop)
{
	sim_of(loop)->woken = true;
}

static void loop_random(struct coord_loop *loop, void *data, size_t len)
{
	unsigned char *at = data;
	for (size_t i = 0; i < len; i++)
		at[i] = sim_random(sim_of(loop)->sim) >> 24;
}

static const struct coord_loop_ops sim_ops = {
	.now_us = loop_now_us,
	.utc_us = loop_utc_us,
	.arm = loop_arm,
	.wake = loop_wake,
	.random = loop_random,
};

void sim_init(struct sim *sim, uint64_t seed)
{
	/* The clocks start anywhere but at 0, which means "none" in places. */
	*sim = (struct sim){.seed = seed,
		.state = seed,
		.now_us = 1000000000,
		.utc_offset_us = 1700000000000000};
}

void sim_loop_init(struct sim *sim, struct sim_loop *loop)
{
	*loop = (struct sim_loop){.sim = sim, .due_ms = UINT64_MAX, .next = sim->loops};
	coord_loop_init(&loop->loop, &sim_ops);
	sim->loops = loop;
}

void sim_loop_done(struct sim_loop *loop)
{
	struct sim_loop **at = &loop->sim->loops;
	while (*at != loop)
		at = &(*at)->next;
	*at = loop->next;
	coord_loop_done(&loop->loop);
}

void sim_pause(struct sim_loop *loop, bool paused)
{
	loop->paused = paused;
	loop->stale = true;
}

void sim_jump(struct sim_loop *loop, uint64_t us)
{
	loop->ahead_us += (int64_t)us;
	loop->stale = true;
}

void sim_hold_clock(struct sim_loop *loop, bool hold)
{
	uint64_t now_us = loop->sim->now_us;
	assert(loop->paused && !loop->held_us == hold);
	if (!hold) {
		loop->ahead_us = (int64_t)(clock_us(loop, now_us) - now_us);
		loop->ppm_since_us = now_us;
	}
	loop->held_us = hold ? now_us : 0;
}

void sim_drift(struct sim_loop *loop, int32_t ppm)
{
	uint64_t now_us = loop->sim->now_us;
	loop->ahead_us = (int64_t)(clock_us(loop, now_us) - now_us);
	loop->ppm = ppm;
	loop->ppm_since_us = now_us;
}

void sim_utc_step(struct sim_loop *loop, int64_t us)
{
	loop->utc_step_us += us;
}

/* splitmix64, Steele and others, "Fast splittable pseudorandom number generators", 2014. */
uint64_t sim_random(struct sim *sim)
{
	uint64_t z = sim->state += 0x9e3779b97f4a7c15;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

uint64_t sim_below(struct sim *sim, uint64_t n)
{
	return n ? sim_random(sim) % n : 0;
}

bool sim_chance(struct sim *sim, unsigned permille)
{
	return permille && sim_below(sim, 1000) < permille;
}

uint64_t sim_now_ms(const struct sim *sim)
{
	return sim->now_us / 1000;
}

static uint64_t loop_due_us(const struct sim_loop *loop)
{
	if (loop->paused)
		return UINT64_MAX;
	if (loop->woken)
		return loop->sim->now_us;
	if (loop->due_ms == UINT64_MAX)
		return UINT64_MAX;
	uint64_t now_us = loop->sim->now_us, due_us = loop->due_ms * 1000;
	uint64_t clock = clock_us(loop, now_us);
	if (due_us <= clock)
		return now_us;
	uint64_t left_us = due_us - clock;
	if (!loop->ppm)
		return now_us + left_us;
	/* The first microsecond of the world at which its clock is there. */
	uint64_t at_us = now_us + (uint64_t)((int64_t)left_us * 1000000 / (1000000 + loop->ppm));
	while (clock_us(loop, at_us) >= due_us)
		at_us--;
	while (clock_us(loop, at_us) < due_us)
		at_us++;
	return at_us;
}

/* The loop to run next, NULL: none has anything to do. Ties are drawn. */
static struct sim_loop *next_loop(struct sim *sim, uint64_t *ret_due_us)
{
	struct sim_loop *found = NULL;
	uint64_t due_us = UINT64_MAX, ties = 0;
	for (struct sim_loop *loop = sim->loops; loop; loop = loop->next) {
		uint64_t at_us = loop_due_us(loop);
		if (at_us == UINT64_MAX || at_us > due_us)
			continue;
		ties = at_us < due_us ? 1 : ties + 1;
		due_us = at_us;
		if (ties == 1 || sim_below(sim, ties) == 0)
			found = loop;
	}
	*ret_due_us = due_us;
	return found;
}

bool sim_step(struct sim *sim, uint64_t limit_ms)
{
	uint64_t due_us;
	struct sim_loop *loop = next_loop(sim, &due_us);
	if (!loop || due_us > limit_ms * 1000) {
		if (limit_ms != UINT64_MAX && limit_ms * 1000 > sim->now_us)
			sim->now_us = limit_ms * 1000;
		return false;
	}
	sim->now_us = due_us;
	loop->woken = false;
	/* One-shot, as a timerfd. */
	if (loop->due_ms <= coord_now_ms(&loop->loop))
		loop->due_ms = UINT64_MAX;
	sim->last = loop;
	sim->steps++;
	coord_loop_run(&loop->loop);
	/* A timer that started another for a time that is past leaves the rest to the next turn. */
	const struct coord_timer *first = loop->loop.timers;
	if (!first || first->due_ms > coord_now_ms(&loop->loop))
		loop->stale = false;
	return true;
}

bool sim_run_until(struct sim *sim, bool (*cond)(void *user), void *user, uint64_t ms)
{
	uint64_t limit_ms = sim_now_ms(sim) + ms;
	while (!cond || !cond(user)) {
		if (!sim_step(sim, limit_ms))
			return cond && cond(user);
	}
	return true;
}

void sim_run(struct sim *sim, uint64_t ms)
{
	sim_run_until(sim, NULL, NULL, ms);
}

void sim_settle(struct sim *sim)
{
	while (sim_step(sim, sim_now_ms(sim)))
		;
}
