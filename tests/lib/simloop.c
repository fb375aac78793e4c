/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated world. See simloop.h. */
#include "tests/lib/simloop.h"

#include <assert.h>

static struct sim_loop *sim_of(struct coord_loop *loop)
{
	return coord_container(loop, struct sim_loop, loop);
}

static uint64_t loop_now_us(struct coord_loop *loop)
{
	return sim_of(loop)->sim->now_us;
}

static uint64_t loop_utc_us(struct coord_loop *loop)
{
	return sim_of(loop)->sim->now_us + sim_of(loop)->sim->utc_offset_us;
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
	uint64_t due_us = loop->due_ms * 1000;
	return due_us > loop->sim->now_us ? due_us : loop->sim->now_us;
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
	if (loop->due_ms <= sim_now_ms(sim))
		loop->due_ms = UINT64_MAX;
	sim->last = loop;
	sim->steps++;
	coord_loop_run(&loop->loop);
	/* A timer that started another for a time that is past leaves the rest to the next turn. */
	const struct coord_timer *first = loop->loop.timers;
	if (!first || first->due_ms > sim_now_ms(sim))
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
