/* SPDX-License-Identifier: Apache-2.0 */
/* The order of holders: tokens, fairness, many waiters, cancels. See suite.h. */
#include "tests/conformance/suite.h"

#include <stdlib.h>

/* What a lock's history demands of its next token. */
struct history {
	uint64_t exclusive, any; /* the largest so far */
};

static void history_add(struct history *h, enum coord_mode mode, uint64_t token)
{
	CHECK(token > (mode == COORD_EXCLUSIVE ? h->any : h->exclusive));
	if (mode == COORD_EXCLUSIVE && token > h->exclusive)
		h->exclusive = token;
	if (token > h->any)
		h->any = token;
}

/* Four takers of two mounts in any mix of modes: granted by the rule of readers and writers, tokens in
 * order. */
static void test_mixes(void)
{
	const char *l = fresh("l");
	struct taker *takers[4];
	struct history history = {0};
	unsigned seed = (unsigned)getpid();
	for (size_t i = 0; i < LEN(takers); i++)
		takers[i] = taker(i % 2 ? &t.a : &t.b, COORD_LOCK, l);
	for (int step = 0; step < 120 && !t.failed; step++) {
		struct taker *one = takers[rand_r(&seed) % LEN(takers)];
		if (taker_holds(one, COORD_NONE)) {
			CHECK_R(taker_unlock(one), 0);
			continue;
		}
		bool shared = can(COORD_CAN_SHARED) && rand_r(&seed) % 2, free = true;
		for (size_t i = 0; i < LEN(takers); i++)
			free &= !taker_holds(takers[i], shared ? COORD_EXCLUSIVE : COORD_NONE);
		enum coord_mode mode = shared ? COORD_SHARED : COORD_EXCLUSIVE;
		CHECK_R(taker_lock(one, mode, 0, QUICK_MS), free ? 0 : -EAGAIN);
		if (taker_holds(one, COORD_NONE))
			history_add(&history, mode, coord_holding_token(one->holding));
		if (t.failed)
			FAIL("so it went in step %d, seed %d", step, (int)getpid());
	}
	for (size_t i = 0; i < LEN(takers); i++)
		drop(takers[i]);
}

/* Handing over within one mount does not keep the other out for ever. */
static void test_greedy(void)
{
	const char *l = fresh("l");
	struct taker *here[2] = {taker(&t.a, COORD_LOCK, l), taker(&t.a, COORD_LOCK, l)};
	struct taker *there = taker(&t.b, COORD_LOCK, l);
	if (can(COORD_CAN_NOTIFY) || can(COORD_CAN_QUEUE)) {
		CHECK_R(taker_lock(here[0], COORD_EXCLUSIVE, 0, QUICK_MS), 0);
		taker_ask(here[1], COORD_EXCLUSIVE, COORD_LOCK_WAIT);
		taker_ask(there, COORD_EXCLUSIVE, COORD_LOCK_WAIT);
		uint64_t start = now();
		unsigned turns = 0;
		while (!there->answered && now() - start < QUICK_MS) {
			for (int i = 0; i < 2; i++) {
				if (!taker_holds(here[i], COORD_NONE))
					continue;
				coord_unlock(here[i]->holding, NULL, NULL);
				taker_ask(here[i], COORD_EXCLUSIVE, COORD_LOCK_WAIT);
				turns++;
			}
			world_run(&t.target.world, 1);
		}
		if (!there->answered)
			FAIL("the other mount starved for %u turns", turns);
		else
			CHECK_R(there->status, 0);
	} else {
		t.skipped = true;
	}
	drop(there);
	drop(here[0]);
	drop(here[1]);
}

/* Sharers that overlap without end do not keep a writer of the other mount out. */
static void test_writer(void)
{
	const char *l = fresh("l");
	/* Who holds must be told that somebody waits. */
	if (skip_unless(COORD_CAN_SHARED | COORD_CAN_NOTIFY))
		return;
	struct taker *here[2] = {taker(&t.a, COORD_LOCK, l), taker(&t.a, COORD_LOCK, l)};
	struct taker *writer = taker(&t.b, COORD_LOCK, l);
	for (int i = 0; i < 2; i++)
		CHECK_R(taker_lock(here[i], COORD_SHARED, 0, QUICK_MS), 0);
	taker_ask(writer, COORD_EXCLUSIVE, COORD_LOCK_WAIT);
	uint64_t start = now();
	for (unsigned i = 0; !writer->answered && now() - start < QUICK_MS; i++) {
		if (taker_holds(here[i % 2], COORD_NONE)) {
			coord_unlock(here[i % 2]->holding, NULL, NULL);
			taker_ask(here[i % 2], COORD_SHARED, COORD_LOCK_WAIT);
		}
		world_run(&t.target.world, 5);
	}
	CHECK(writer->answered && writer->status == 0);
	CHECK(!taker_holds(here[0], COORD_NONE) && !taker_holds(here[1], COORD_NONE));
	drop(writer);
	drop(here[0]);
	drop(here[1]);
}

/* However many wait here for one name, the backend is asked for one. */
static void test_crowd(void)
{
	enum { CROWD = 100 };
	const char *l = fresh("l");
	struct taker *holder = taker(&t.a, COORD_LOCK, l), *crowd[CROWD];
	CHECK_R(taker_lock(holder, COORD_EXCLUSIVE, 0, QUICK_MS), 0);
	unsigned calls = t.lock_calls;
	for (int i = 0; i < CROWD; i++) {
		crowd[i] = taker(&t.b, COORD_LOCK, l);
		taker_ask(crowd[i], COORD_EXCLUSIVE, COORD_LOCK_WAIT);
	}
	world_run(&t.target.world, 1000);
	if (can(COORD_CAN_NOTIFY) || can(COORD_CAN_QUEUE))
		CHECK(t.lock_calls - calls <= 6);
	uint64_t start = now(), token = 0;
	CHECK_R(taker_unlock(holder), 0);
	for (int i = 0; i < CROWD; i++) {
		CHECK_R(taker_answer(crowd[i], QUICK_MS), 0);
		CHECK(crowd[i]->token > token);
		token = crowd[i]->token;
		drop(crowd[i]);
	}
	CHECK(now() - start < QUICK_MS);
	drop(holder);
}

/* Waits that end at any moment, just when the lock is granted too, hold nothing and leave nothing. */
static void test_cancels(void)
{
	const char *l = fresh("l");
	struct taker *a = taker(&t.a, COORD_LOCK, l), *b = taker(&t.b, COORD_LOCK, l);
	unsigned seed = (unsigned)getpid();
	for (int i = 0; i < 40 && !t.failed; i++) {
		CHECK_R(taker_lock(a, COORD_EXCLUSIVE, COORD_LOCK_WAIT, QUICK_MS), 0);
		taker_ask(b, COORD_EXCLUSIVE, COORD_LOCK_WAIT);
		world_run(&t.target.world, rand_r(&seed) % 6);
		coord_unlock(a->holding, NULL, NULL);
		world_run(&t.target.world, rand_r(&seed) % 4);
		taker_cancel(b, false);
		if (taker_holds(b, COORD_NONE))
			CHECK_R(taker_unlock(b), 0);
	}
	uint64_t start = now();
	CHECK_R(taker_lock(b, COORD_EXCLUSIVE, COORD_LOCK_WAIT, QUICK_MS), 0);
	CHECK_R(taker_unlock(b), 0);
	CHECK_R(taker_lock(a, COORD_EXCLUSIVE, COORD_LOCK_WAIT, QUICK_MS), 0);
	CHECK(now() - start < 2 * handover_ms());
	drop(a);
	drop(b);
}

/* Broken under sharers and before waiters: who held loses, who waits gets it. */
static void test_break_crowd(void)
{
	const char *l = fresh("l"), *s = fresh("s");
	uint64_t patience_ms = notice_ms();
	if (skip_unless(COORD_CAN_BREAK))
		return;
	struct taker *a = taker(&t.a, COORD_LOCK, l), *b = taker(&t.b, COORD_LOCK, l);
	CHECK_R(taker_lock(a, COORD_EXCLUSIVE, 0, QUICK_MS), 0);
	taker_ask(b, COORD_EXCLUSIVE, COORD_LOCK_WAIT);
	world_run(&t.target.world, 200);
	uint64_t token = coord_holding_token(a->holding);
	CHECK_R(client_lock_break(&t.b, COORD_LOCK, l), 0);
	CHECK(world_until(&t.target.world, is_lost, a, patience_ms));
	CHECK_R(taker_answer(b, QUICK_MS), 0);
	CHECK(coord_holding_token(b->holding) > token);
	drop(a);
	drop(b);
	if (!can(COORD_CAN_SHARED))
		return;
	a = taker(&t.a, COORD_LOCK, s);
	b = taker(&t.b, COORD_LOCK, s);
	CHECK_R(taker_lock(a, COORD_SHARED, 0, QUICK_MS), 0);
	CHECK_R(taker_lock(b, COORD_SHARED, 0, QUICK_MS), 0);
	CHECK_R(client_lock_break(&t.a, COORD_LOCK, s), 0);
	CHECK(world_until(&t.target.world, is_lost, a, patience_ms));
	CHECK(world_until(&t.target.world, is_lost, b, patience_ms));
	struct taker *next = taker(&t.b, COORD_LOCK, s);
	CHECK_R(taker_lock(next, COORD_EXCLUSIVE, COORD_LOCK_WAIT, QUICK_MS), 0);
	drop(next);
	drop(a);
	drop(b);
}

const struct test tests_order[] = {
	{"mixes", test_mixes},
	{"greedy", test_greedy},
	{"writer", test_writer},
	{"crowd", test_crowd},
	{"cancels", test_cancels},
	{"break-crowd", test_break_crowd},
	{0},
};
