/* SPDX-License-Identifier: Apache-2.0 */
/* Timers and tasks, on the simulated loop and, where threads or system calls matter, on the real one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "coord/loop_uv.h"
#include "tests/lib/simloop.h"

enum { MANY = 500 };

struct record {
	struct coord_timer timer;
	struct coord_task task;
	struct coord_loop *loop;
	unsigned *next; /* the order in which it ran */
	unsigned ran_at, runs;
	uint64_t again_ms; /* starts anew so many ms later */
	struct record *then; /* stopped or deferred when it runs */
	uint64_t saw_ms;
};

static void record_timer(struct coord_timer *timer)
{
	struct record *record = coord_container(timer, struct record, timer);
	record->ran_at = (*record->next)++;
	record->runs++;
	record->saw_ms = coord_now_ms(record->loop);
	if (record->again_ms)
		coord_timer_start(record->loop, timer, record->saw_ms + record->again_ms);
	if (record->then && record->then->timer.active)
		coord_timer_stop(record->loop, &record->then->timer);
}

static void record_task(struct coord_task *task)
{
	struct record *record = coord_container(task, struct record, task);
	record->ran_at = (*record->next)++;
	record->runs++;
	if (record->then)
		coord_loop_defer(record->loop, &record->then->task);
}

static void record_init(struct record *record, struct coord_loop *loop, unsigned *next)
{
	*record = (struct record){
		.timer.fn = record_timer, .task.fn = record_task, .loop = loop, .next = next};
}

static void timers_in_order(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 50; seed++) {
		struct sim sim;
		struct sim_loop host;
		static struct record records[MANY];
		unsigned next = 0;
		sim_init(&sim, seed);
		sim_loop_init(&sim, &host);
		uint64_t start = sim_now_ms(&sim);
		for (int i = 0; i < MANY; i++) {
			record_init(&records[i], &host.loop, &next);
			coord_timer_start(
				&host.loop, &records[i].timer, start + sim_below(&sim, 50));
		}
		/* Some stop, some start again at another time. */
		for (int i = 0; i < MANY; i += 3)
			coord_timer_stop(&host.loop, &records[i].timer);
		for (int i = 0; i < MANY; i += 5)
			coord_timer_start(
				&host.loop, &records[i].timer, start + sim_below(&sim, 50));
		sim_run(&sim, 100);
		for (int i = 0; i < MANY; i++) {
			struct record *a = &records[i];
			assert_int_equal(a->runs, i % 3 == 0 && i % 5 != 0 ? 0 : 1);
			assert_false(a->timer.active);
			for (int j = 0; a->runs && j < i; j++) {
				struct record *b = &records[j];
				if (!b->runs)
					continue;
				bool before = b->timer.due_ms != a->timer.due_ms
						      ? b->timer.due_ms < a->timer.due_ms
						      : b->timer.order < a->timer.order;
				assert_int_equal(before, b->ran_at < a->ran_at);
			}
			if (a->runs)
				assert_int_equal(a->saw_ms, a->timer.due_ms);
		}
		assert_null(host.loop.timers);
		sim_loop_done(&host);
	}
}

static void timer_stops_another(void **state)
{
	(void)state;
	struct sim sim;
	struct sim_loop host;
	struct record a, b;
	unsigned next = 0;
	sim_init(&sim, 1);
	sim_loop_init(&sim, &host);
	record_init(&a, &host.loop, &next);
	record_init(&b, &host.loop, &next);
	a.then = &b;
	uint64_t due = sim_now_ms(&sim) + 5;
	coord_timer_start(&host.loop, &a.timer, due);
	coord_timer_start(&host.loop, &b.timer, due);
	sim_run(&sim, 10);
	assert_int_equal(a.runs, 1);
	assert_int_equal(b.runs, 0);
	sim_loop_done(&host);
}

static void timer_again(void **state)
{
	(void)state;
	struct sim sim;
	struct sim_loop host;
	struct record a;
	unsigned next = 0;
	sim_init(&sim, 1);
	sim_loop_init(&sim, &host);
	record_init(&a, &host.loop, &next);
	a.again_ms = 10;
	coord_timer_start(&host.loop, &a.timer, sim_now_ms(&sim));
	sim_run(&sim, 95);
	assert_int_equal(a.runs, 10);
	coord_timer_stop(&host.loop, &a.timer);
	sim_run(&sim, 95);
	assert_int_equal(a.runs, 10);
	sim_loop_done(&host);
}

/* A paused host runs nothing; afterwards what is late runs at once, in order. */
static void timers_late(void **state)
{
	(void)state;
	struct sim sim;
	struct sim_loop host;
	struct record a, b;
	unsigned next = 0;
	sim_init(&sim, 1);
	sim_loop_init(&sim, &host);
	record_init(&a, &host.loop, &next);
	record_init(&b, &host.loop, &next);
	uint64_t start = sim_now_ms(&sim);
	coord_timer_start(&host.loop, &a.timer, start + 20);
	coord_timer_start(&host.loop, &b.timer, start + 10);
	sim_pause(&host, true);
	sim_run(&sim, 100);
	assert_int_equal(a.runs + b.runs, 0);
	sim_pause(&host, false);
	sim_settle(&sim);
	assert_int_equal(sim_now_ms(&sim), start + 100);
	assert_int_equal(b.ran_at, 0);
	assert_int_equal(a.ran_at, 1);
	assert_int_equal(a.saw_ms, start + 100);
	sim_loop_done(&host);
}

/* Deferred tasks run in order, also those that tasks defer, and one that is queued stays in its place. */
static void tasks_in_order(void **state)
{
	(void)state;
	struct sim sim;
	struct sim_loop host;
	struct record a, b, c;
	unsigned next = 0;
	sim_init(&sim, 1);
	sim_loop_init(&sim, &host);
	record_init(&a, &host.loop, &next);
	record_init(&b, &host.loop, &next);
	record_init(&c, &host.loop, &next);
	a.then = &c;
	coord_loop_defer(&host.loop, &a.task);
	coord_loop_defer(&host.loop, &b.task);
	coord_loop_defer(&host.loop, &a.task);
	sim_settle(&sim);
	assert_int_equal(a.ran_at, 0);
	assert_int_equal(b.ran_at, 1);
	assert_int_equal(c.ran_at, 2);
	assert_int_equal(a.runs + b.runs + c.runs, 3);
	/* A timer's deferred task runs without another wake. */
	a.then = NULL;
	coord_loop_post(&host.loop, &b.task);
	coord_loop_defer(&host.loop, &a.task);
	sim_settle(&sim);
	assert_int_equal(a.runs, 2);
	assert_int_equal(b.runs, 2);
	sim_loop_done(&host);
}

/* ---- The real loop ---- */

struct poster {
	pthread_t thread;
	struct coord_loop *loop;
	struct coord_task tasks[MANY];
	unsigned *left;
	unsigned ran; /* on the loop: in the order of posting */
};

static struct poster posters[4];

static void posted_run(struct coord_task *task)
{
	/* The task's place in its poster says which it is: they ran in order, and each once. */
	struct poster *poster = posters;
	while (task < poster->tasks || task >= poster->tasks + MANY)
		poster++;
	assert_true(poster < posters + 4);
	assert_ptr_equal(task, &poster->tasks[poster->ran]);
	poster->ran++;
	if (--*poster->left == 0)
		coord_loop_uv_stop(poster->loop);
}

static void *poster_main(void *data)
{
	struct poster *poster = data;
	for (int i = 0; i < MANY; i++) {
		poster->tasks[i].fn = posted_run;
		coord_loop_post(poster->loop, &poster->tasks[i]);
		if (i % 100 == 0)
			nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	}
	return NULL;
}

static void post_from_threads(void **state)
{
	(void)state;
	struct coord_loop *loop;
	unsigned left = 4 * MANY;
	assert_int_equal(coord_loop_uv_new(&loop), 0);
	for (int i = 0; i < 4; i++) {
		posters[i].loop = loop;
		posters[i].left = &left;
		pthread_create(&posters[i].thread, NULL, poster_main, &posters[i]);
	}
	coord_loop_uv_run(loop);
	for (int i = 0; i < 4; i++) {
		pthread_join(posters[i].thread, NULL);
		assert_int_equal(posters[i].ran, MANY);
	}
	assert_int_equal(left, 0);
	coord_loop_uv_free(loop);
}

static void stop_loop(struct coord_timer *timer)
{
	struct record *record = coord_container(timer, struct record, timer);
	record_timer(timer);
	coord_loop_uv_stop(record->loop);
}

static void real_timers(void **state)
{
	(void)state;
	struct coord_loop *loop;
	assert_int_equal(coord_loop_uv_new(&loop), 0);
	struct record a, b, c, end;
	unsigned next = 0;
	record_init(&a, loop, &next);
	record_init(&b, loop, &next);
	record_init(&c, loop, &next);
	record_init(&end, loop, &next);
	end.timer.fn = stop_loop;
	uint64_t now = coord_now_ms(loop);
	coord_timer_start(loop, &a.timer, now + 30);
	coord_timer_start(loop, &b.timer, now + 10);
	coord_timer_start(loop, &c.timer, now); /* due already */
	coord_timer_start(loop, &end.timer, now + 60);
	coord_loop_uv_run(loop);
	assert_int_equal(c.ran_at, 0);
	assert_int_equal(b.ran_at, 1);
	assert_int_equal(a.ran_at, 2);
	assert_true(b.saw_ms >= now + 10 && a.saw_ms >= now + 30 && end.saw_ms >= now + 60);
	/* Stopping the earliest leaves the later one working. */
	now = coord_now_ms(loop);
	coord_timer_start(loop, &a.timer, now + 5);
	coord_timer_start(loop, &end.timer, now + 20);
	coord_timer_stop(loop, &a.timer);
	coord_loop_uv_run(loop);
	assert_int_equal(a.runs, 1);
	assert_int_equal(end.runs, 2);
	assert_true(end.saw_ms >= now + 20);
	coord_loop_uv_free(loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(timers_in_order),
		cmocka_unit_test(timer_stops_another),
		cmocka_unit_test(timer_again),
		cmocka_unit_test(timers_late),
		cmocka_unit_test(tasks_in_order),
		cmocka_unit_test(post_from_threads),
		cmocka_unit_test(real_timers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
