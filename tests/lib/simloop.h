/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A simulated world: one virtual clock and one seeded random source for any number of event loops.
 * Each loop is a host; it can be paused, as a stopped process or a suspended machine is. Nothing happens
 * but by sim_step, so a run is a function of its seed.
 */
#ifndef TESTS_SIMLOOP_H
#define TESTS_SIMLOOP_H

#include "coord/loop.h"

struct sim {
	uint64_t seed, state;
	uint64_t now_us, utc_offset_us;
	struct sim_loop *loops;
	struct sim_loop *last; /* the loop that ran in the last step */
	uint64_t steps;
};

struct sim_loop {
	struct coord_loop loop; /* first */
	struct sim *sim;
	struct sim_loop *next;
	uint64_t due_ms;
	bool woken, paused;
	bool stale; /* was paused, and has not run since */
};

void sim_init(struct sim *, uint64_t seed);
void sim_loop_init(struct sim *, struct sim_loop *);
void sim_loop_done(struct sim_loop *);

/* A paused loop does not run; its timers become late. */
void sim_pause(struct sim_loop *, bool paused);

/* Runs the loop with the next thing to do, moving the clock there; among several at one time a random
 * one. Returns false if no loop has anything to do before limit_ms (the clock is then limit_ms). */
bool sim_step(struct sim *, uint64_t limit_ms);
/* Steps until cond holds: true; or for ms: false. cond may be NULL: runs for ms. */
bool sim_run_until(struct sim *, bool (*cond)(void *user), void *user, uint64_t ms);
void sim_run(struct sim *, uint64_t ms);
/* Steps until nothing is to be done at this moment. */
void sim_settle(struct sim *);

uint64_t sim_now_ms(const struct sim *);
uint64_t sim_random(struct sim *);
uint64_t sim_below(struct sim *, uint64_t n); /* 0 ... n - 1; 0 for n 0 */
bool sim_chance(struct sim *, unsigned permille);

#endif
