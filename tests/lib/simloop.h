/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A simulated world: one virtual clock and one seeded random source for any number of event loops.
 * Each loop is a host with clocks of its own, which may step, stand still, or run slow or fast; it can be paused, as a
 * stopped process or a suspended machine is. Nothing happens but by sim_step, so a run is a function of its seed.
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
	uint64_t due_ms; /* on its own clock */
	int64_t ahead_us, utc_step_us; /* of its BOOTTIME and of its wall clock */
	int32_t ppm; /* how much too fast its BOOTTIME runs, since_us */
	uint64_t ppm_since_us;
	uint64_t held_us; /* it stands still since; 0: it goes */
	bool woken, paused;
	bool stale; /* was paused, and has not run since */
};

void sim_init(struct sim *, uint64_t seed);
void sim_loop_init(struct sim *, struct sim_loop *);
void sim_loop_done(struct sim_loop *);

/* A paused loop does not run; its timers become late. */
void sim_pause(struct sim_loop *, bool paused);

/* BOOTTIME jumps forward. */
void sim_jump(struct sim_loop *, uint64_t us);
/* BOOTTIME stands still, as that of a virtual machine that is not run. Paused loops only. */
void sim_hold_clock(struct sim_loop *, bool hold);
/* From now on BOOTTIME runs fast (or slow: less than 0) by so many millionths. */
void sim_drift(struct sim_loop *, int32_t ppm);
/* The wall clock steps. */
void sim_utc_step(struct sim_loop *, int64_t us);

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
