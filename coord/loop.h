/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time and order: the one contract of the core with the event loop.
 *
 * Everything in coord/ runs on one thread, "the loop". A coord_loop has a clock, timers and two
 * queues of tasks; what lies beneath is either libuv (loop_uv.h) or a simulation with a virtual
 * clock. Timers and tasks are embedded in their owner's structure, so that starting, stopping and
 * deferring never allocate and never fail.
 */
#ifndef COORD_LOOP_H
#define COORD_LOOP_H

#include <pthread.h>

#include "coord/base.h"

struct coord_loop;

/* A timer. Zeroed memory with fn set is a stopped timer. */
struct coord_timer {
	void (*fn)(struct coord_timer *);
	uint64_t due_ms, order; /* BOOTTIME; order breaks ties, first started first */
	struct coord_timer *child, *next,
		*prev; /* pairing heap; prev is the parent for a first child */
	bool active;
};

/* Something to run soon on the loop. Zeroed memory with fn set is an idle task. */
struct coord_task {
	void (*fn)(struct coord_task *);
	struct coord_task *next;
	bool queued;
};

struct coord_loop_ops {
	/* CLOCK_BOOTTIME in microseconds, read afresh at each call. */
	uint64_t (*now_us)(struct coord_loop *);
	/* Wall clock, UTC, microseconds since 1970. */
	uint64_t (*utc_us)(struct coord_loop *);
	/* Call coord_loop_run at or after due_ms; UINT64_MAX: no timer runs. */
	void (*arm)(struct coord_loop *, uint64_t due_ms);
	/* From any thread: call coord_loop_run soon. */
	void (*wake)(struct coord_loop *);
	/* Fills with random bytes; unpredictable on the real loop, seeded in simulation. */
	void (*random)(struct coord_loop *, void *data, size_t len);
};

struct coord_loop {
	const struct coord_loop_ops *ops;
	struct coord_timer *timers; /* heap root */
	uint64_t timer_order, armed_ms;
	struct coord_task *deferred, **deferred_end;
	pthread_mutex_t lock; /* guards posted */
	struct coord_task *posted, **posted_end;
	bool running;
	bool in_turn; /* a callback runs after which coord_loop_run is called: no need to wake */
};

/* Prepares the generic part; called by whoever implements ops. */
void coord_loop_init(struct coord_loop *, const struct coord_loop_ops *);
void coord_loop_done(struct coord_loop *);

uint64_t coord_now_ms(struct coord_loop *);
uint64_t coord_now_us(struct coord_loop *);
uint64_t coord_utc_us(struct coord_loop *);
void coord_random(struct coord_loop *, void *data, size_t len);

/* Starts, or starts anew, at an absolute BOOTTIME. fn runs once, at or after due_ms, from the loop. */
void coord_timer_start(struct coord_loop *, struct coord_timer *, uint64_t due_ms);
void coord_timer_stop(struct coord_loop *, struct coord_timer *);

/* Runs task->fn on the loop after the present callback. Loop thread only; a queued task stays
 * where it is. The task must stay valid until it ran. */
void coord_loop_defer(struct coord_loop *, struct coord_task *);
/* Takes back what was deferred, or posted and has not run; nothing if it is in no queue. */
void coord_loop_undefer(struct coord_loop *, struct coord_task *);
/* As defer, from any thread. A task is posted by one thread and not again before it ran. */
void coord_loop_post(struct coord_loop *, struct coord_task *);

/* Runs due timers and queued tasks until none is left, then arms. Not reentrant: a call from
 * inside a task or timer returns at once. */
void coord_loop_run(struct coord_loop *);
/* Runs queued tasks alone and reads no clock; for a callback that serves many, before coord_loop_run is
 * called. A timer that is due waits meanwhile. */
void coord_loop_run_tasks(struct coord_loop *);

#endif
