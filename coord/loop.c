/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The generic half of the loop: a pairing heap of timers and the two queues of tasks. See loop.h.
 *
 * The system's timer is armed lazily: stopping a timer leaves it armed, and the early call of
 * coord_loop_run then finds nothing due and arms anew. Starting and stopping a deadline for each
 * request thus costs no system call.
 */
#include "coord/loop.h"

#include <assert.h>

void coord_loop_init(struct coord_loop *loop, const struct coord_loop_ops *ops)
{
	*loop = (struct coord_loop){.ops = ops, .armed_ms = UINT64_MAX};
	loop->deferred_end = &loop->deferred;
	loop->posted_end = &loop->posted;
	pthread_mutex_init(&loop->lock, NULL);
}

void coord_loop_done(struct coord_loop *loop)
{
	pthread_mutex_destroy(&loop->lock);
}

uint64_t coord_now_us(struct coord_loop *loop)
{
	return loop->ops->now_us(loop);
}

uint64_t coord_now_ms(struct coord_loop *loop)
{
	return loop->ops->now_us(loop) / 1000;
}

uint64_t coord_utc_us(struct coord_loop *loop)
{
	return loop->ops->utc_us(loop);
}

void coord_random(struct coord_loop *loop, void *data, size_t len)
{
	loop->ops->random(loop, data, len);
}

static bool timer_before(const struct coord_timer *a, const struct coord_timer *b)
{
	return a->due_ms != b->due_ms ? a->due_ms < b->due_ms : a->order < b->order;
}

static struct coord_timer *heap_meld(struct coord_timer *a, struct coord_timer *b)
{
	if (!a || !b)
		return a ? a : b;
	if (timer_before(b, a)) {
		struct coord_timer *swap = a;
		a = b;
		b = swap;
	}
	b->prev = a;
	b->next = a->child;
	if (a->child)
		a->child->prev = b;
	a->child = b;
	return a;
}

/* Melds the children of a removed timer, in pairs from the left, then from the right (Fredman et al.,
 * "The pairing heap", 1986). */
static struct coord_timer *heap_meld_children(struct coord_timer *first)
{
	struct coord_timer *pairs = NULL;
	while (first) {
		struct coord_timer *a = first, *b = a->next;
		first = b ? b->next : NULL;
		a->next = a->prev = NULL;
		if (b)
			b->next = b->prev = NULL;
		a = heap_meld(a, b);
		a->next = pairs;
		pairs = a;
	}
	struct coord_timer *root = NULL;
	while (pairs) {
		struct coord_timer *next = pairs->next;
		pairs->next = NULL;
		root = heap_meld(root, pairs);
		pairs = next;
	}
	return root;
}

static void heap_remove(struct coord_loop *loop, struct coord_timer *timer)
{
	struct coord_timer *below = heap_meld_children(timer->child);
	if (timer == loop->timers) {
		loop->timers = below;
	} else {
		if (timer->prev->child == timer)
			timer->prev->child = timer->next;
		else
			timer->prev->next = timer->next;
		if (timer->next)
			timer->next->prev = timer->prev;
		loop->timers = heap_meld(loop->timers, below);
	}
	timer->child = timer->next = timer->prev = NULL;
}

static void loop_arm(struct coord_loop *loop)
{
	uint64_t due = loop->timers ? loop->timers->due_ms : UINT64_MAX;
	if (due < loop->armed_ms) {
		loop->armed_ms = due;
		loop->ops->arm(loop, due);
	}
}

void coord_timer_start(struct coord_loop *loop, struct coord_timer *timer, uint64_t due_ms)
{
	assert(timer->fn);
	coord_timer_stop(loop, timer);
	timer->due_ms = due_ms;
	timer->order = loop->timer_order++;
	timer->active = true;
	loop->timers = heap_meld(loop->timers, timer);
	if (!loop->running)
		loop_arm(loop);
}

void coord_timer_stop(struct coord_loop *loop, struct coord_timer *timer)
{
	if (!timer->active)
		return;
	heap_remove(loop, timer);
	timer->active = false;
}

void coord_loop_defer(struct coord_loop *loop, struct coord_task *task)
{
	assert(task->fn);
	if (task->queued)
		return;
	task->queued = true;
	task->next = NULL;
	bool first = !loop->deferred;
	*loop->deferred_end = task;
	loop->deferred_end = &task->next;
	if (first && !loop->running && !loop->in_turn)
		loop->ops->wake(loop);
}

void coord_loop_post(struct coord_loop *loop, struct coord_task *task)
{
	assert(task->fn);
	pthread_mutex_lock(&loop->lock);
	bool first = !loop->posted;
	task->next = NULL;
	if (first)
		__atomic_store_n(&loop->posted, task, __ATOMIC_RELAXED);
	else
		*loop->posted_end = task;
	loop->posted_end = &task->next;
	pthread_mutex_unlock(&loop->lock);
	if (first)
		loop->ops->wake(loop);
}

/* Moves what was posted behind what was deferred. A stale NULL is harmless: whoever posts wakes the
 * loop afterwards. */
static void take_posted(struct coord_loop *loop)
{
	if (!__atomic_load_n(&loop->posted, __ATOMIC_RELAXED))
		return;
	pthread_mutex_lock(&loop->lock);
	for (struct coord_task *task = loop->posted; task; task = task->next)
		task->queued = true;
	*loop->deferred_end = loop->posted;
	loop->deferred_end = loop->posted_end;
	__atomic_store_n(&loop->posted, NULL, __ATOMIC_RELAXED);
	loop->posted_end = &loop->posted;
	pthread_mutex_unlock(&loop->lock);
}

/* One at a time, so that a task can take back those behind it. */
static void run_tasks(struct coord_loop *loop)
{
	while (loop->deferred) {
		struct coord_task *task = loop->deferred;
		loop->deferred = task->next;
		if (!loop->deferred)
			loop->deferred_end = &loop->deferred;
		task->next = NULL;
		task->queued = false;
		task->fn(task);
	}
}

void coord_loop_undefer(struct coord_loop *loop, struct coord_task *task)
{
	take_posted(loop);
	if (!task->queued)
		return;
	for (struct coord_task **at = &loop->deferred; *at; at = &(*at)->next)
		if (*at == task) {
			*at = task->next;
			if (!*at)
				loop->deferred_end = at;
			break;
		}
	task->next = NULL;
	task->queued = false;
}

/* Runs what is due now, not what these timers start anew. */
static void run_timers(struct coord_loop *loop)
{
	if (!loop->timers)
		return;
	uint64_t now = coord_now_ms(loop), last = loop->timer_order;
	while (loop->timers && loop->timers->due_ms <= now && loop->timers->order < last) {
		struct coord_timer *timer = loop->timers;
		coord_timer_stop(loop, timer);
		timer->fn(timer);
		run_tasks(loop);
	}
}

static void run_all_tasks(struct coord_loop *loop)
{
	take_posted(loop);
	while (loop->deferred) {
		run_tasks(loop);
		take_posted(loop);
	}
}

void coord_loop_run_tasks(struct coord_loop *loop)
{
	if (loop->running)
		return;
	loop->running = true;
	run_all_tasks(loop);
	loop->running = false;
	loop_arm(loop);
}

void coord_loop_run(struct coord_loop *loop)
{
	if (loop->running)
		return;
	loop->running = true;
	if (loop->armed_ms != UINT64_MAX && coord_now_ms(loop) >= loop->armed_ms)
		loop->armed_ms = UINT64_MAX;
	run_all_tasks(loop);
	if (loop->armed_ms == UINT64_MAX)
		run_timers(loop);
	loop->running = false;
	loop_arm(loop);
	/* A timer may have deferred something for which nobody was woken. */
	if (loop->deferred)
		loop->ops->wake(loop);
}
