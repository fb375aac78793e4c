/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locks through the core on a virtual clock, for drivers that queue, that notify and that must be
 * polled; and all interleavings of three takers of one lock.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "tests/lib/site.h"

#define LOCK COORD_BYTES("l")
#define LEN(array) (sizeof(array) / sizeof(*(array)))

static struct site site;
#define SIM (&site.sim)

enum { QUICK_MS = 3000 };

/* The kinds of driver that the rules must hold for. */
static const struct variant {
	const char *name;
	enum coord_loss loss;
	unsigned add, drop;
} variants[] = {
	{"lease, notices", COORD_LOSS_LEASE, 0, 0},
	{"lease, queue", COORD_LOSS_LEASE, COORD_CAN_QUEUE, 0},
	{"connection, queue, no notices", COORD_LOSS_CONNECTION, COORD_CAN_QUEUE, COORD_CAN_NOTIFY},
	{"process, polled, unordered", COORD_LOSS_PROCESS, 0, COORD_CAN_NOTIFY | COORD_CAN_ORDERED},
	{"process, notices", COORD_LOSS_PROCESS, 0, 0},
};

static struct fake_options variant_options(const struct variant *variant)
{
	struct fake_options options = site_options();
	options.lock_loss = options.member_loss = variant->loss;
	options.can = (options.can | variant->add) & ~variant->drop;
	return options;
}

static void each_variant(size_t clients, void (*test)(void))
{
	for (size_t i = 0; i < LEN(variants); i++) {
		struct fake_options options = variant_options(&variants[i]);
		site_open(&site, 1, &options, clients);
		options.faults.delay_ms = 5;
		*fake_server_options(site.server) = options;
		test();
		if (!site_close(&site))
			fail_msg("%s: not clean", variants[i].name);
	}
}

static struct taker takers[12];

/* Takers of one lock; with one client all are of the same mount, else they go round. */
static void make(size_t len)
{
	for (size_t i = 0; i < len; i++)
		assert_int_equal(
			taker_new(&site.clients[i % site.len], COORD_LOCK, LOCK, &takers[i]), 0);
}

static void unmake(size_t len)
{
	for (size_t i = 0; i < len; i++)
		taker_free(&takers[i]);
}

static void test_first_come(void)
{
	make(6);
	for (size_t i = 0; i < 6; i++) {
		taker_ask(&takers[i], COORD_EXCLUSIVE, COORD_LOCK_WAIT);
		sim_run(SIM, 20);
	}
	uint64_t token = 0;
	for (size_t i = 0; i < 6; i++) {
		assert_int_equal(taker_answer(&takers[i], QUICK_MS), 0);
		for (size_t j = i + 1; j < 6; j++)
			assert_false(takers[j].answered);
		assert_true(takers[i].token > token);
		token = takers[i].token;
		assert_int_equal(taker_unlock(&takers[i]), 0);
	}
	unmake(6);
}

/* On one mount the order is that of asking; sharers go together, but not past a writer who waits. */
static void test_sharers(void)
{
	static const enum coord_mode modes[] = {COORD_SHARED, COORD_SHARED, COORD_EXCLUSIVE,
		COORD_SHARED, COORD_SHARED, COORD_EXCLUSIVE};
	make(6);
	for (size_t i = 0; i < 6; i++)
		taker_ask(&takers[i], modes[i], COORD_LOCK_WAIT);
	assert_int_equal(taker_answer(&takers[0], QUICK_MS), 0);
	assert_int_equal(taker_answer(&takers[1], QUICK_MS), 0);
	sim_run(SIM, 500);
	assert_false(takers[2].answered || takers[3].answered);
	taker_unlock(&takers[0]);
	sim_run(SIM, 500);
	assert_false(takers[2].answered);
	taker_unlock(&takers[1]);
	assert_int_equal(taker_answer(&takers[2], QUICK_MS), 0);
	assert_true(takers[2].token > takers[0].token);
	sim_run(SIM, 500);
	assert_false(takers[3].answered);
	taker_unlock(&takers[2]);
	assert_int_equal(taker_answer(&takers[3], QUICK_MS), 0);
	assert_int_equal(taker_answer(&takers[4], QUICK_MS), 0);
	assert_true(takers[3].token > takers[2].token);
	assert_int_equal(takers[3].token, takers[4].token);
	taker_unlock(&takers[3]);
	taker_unlock(&takers[4]);
	assert_int_equal(taker_answer(&takers[5], QUICK_MS), 0);
	assert_true(takers[5].token > takers[4].token);
	taker_unlock(&takers[5]);
	unmake(6);
}

static void test_try(void)
{
	make(4);
	assert_int_equal(taker_lock(&takers[0], COORD_EXCLUSIVE, 0, QUICK_MS), 0);
	for (size_t i = 1; i < 4; i++) {
		assert_int_equal(taker_lock(&takers[i], COORD_EXCLUSIVE, 0, QUICK_MS), -EAGAIN);
		assert_int_equal(
			taker_lock(&takers[i], COORD_SHARED, COORD_LOCK_SHORT, 1001), -EAGAIN);
	}
	/* The mode one has: at once. */
	assert_int_equal(taker_lock(&takers[0], COORD_EXCLUSIVE, 0, QUICK_MS), 0);
	assert_int_equal(taker_unlock(&takers[0]), 0);
	assert_int_equal(taker_lock(&takers[1], COORD_SHARED, 0, QUICK_MS), 0);
	assert_int_equal(taker_lock(&takers[2], COORD_SHARED, 0, QUICK_MS), 0);
	assert_int_equal(taker_lock(&takers[3], COORD_EXCLUSIVE, 0, QUICK_MS), -EAGAIN);
	assert_int_equal(taker_unlock(&takers[1]), 0);
	assert_int_equal(taker_unlock(&takers[2]), 0);
	/* A try right behind a release of the same mount succeeds. */
	assert_int_equal(taker_lock(&takers[0], COORD_EXCLUSIVE, 0, QUICK_MS), 0);
	coord_unlock(takers[0].holding, NULL, NULL);
	assert_int_equal(coord_holding_state(takers[0].holding), COORD_FREE);
	assert_int_equal(taker_lock(&takers[0], COORD_EXCLUSIVE, 0, QUICK_MS), 0);
	unmake(4);
}

static void test_convert_atomic(void)
{
	make(4);
	struct taker *a = &takers[0], *b = &takers[1];
	unsigned flags = COORD_LOCK_ATOMIC;
	assert_int_equal(taker_lock(a, COORD_SHARED, flags, QUICK_MS), 0);
	uint64_t shared = coord_holding_token(a->holding);
	assert_int_equal(taker_lock(a, COORD_EXCLUSIVE, flags, QUICK_MS), 0);
	assert_true(taker_holds(a, COORD_EXCLUSIVE));
	assert_true(coord_holding_token(a->holding) > shared);
	assert_int_equal(taker_lock(b, COORD_SHARED, flags, QUICK_MS), -EAGAIN);
	assert_int_equal(taker_lock(a, COORD_SHARED, flags, QUICK_MS), 0);
	assert_true(taker_holds(a, COORD_SHARED));
	taker_unlock(a);
	/* With another reader an upgrade fails, and the read lock is kept. */
	assert_int_equal(taker_lock(a, COORD_SHARED, flags, QUICK_MS), 0);
	assert_int_equal(taker_lock(b, COORD_SHARED, flags, QUICK_MS), 0);
	assert_int_equal(taker_lock(a, COORD_EXCLUSIVE, flags, QUICK_MS), -EAGAIN);
	assert_true(taker_holds(a, COORD_SHARED));
	/* It waits for the reader, and then has it. */
	taker_ask(a, COORD_EXCLUSIVE, flags | COORD_LOCK_WAIT);
	sim_run(SIM, 200);
	assert_false(a->answered);
	taker_unlock(b);
	assert_int_equal(taker_answer(a, QUICK_MS), 0);
	assert_true(taker_holds(a, COORD_EXCLUSIVE));
	taker_unlock(a);
	unmake(4);
}

static void test_deadlock(void)
{
	make(2);
	struct taker *a = &takers[0], *b = &takers[1];
	unsigned flags = COORD_LOCK_ATOMIC | COORD_LOCK_WAIT;
	assert_int_equal(taker_lock(a, COORD_SHARED, flags, QUICK_MS), 0);
	assert_int_equal(taker_lock(b, COORD_SHARED, flags, QUICK_MS), 0);
	taker_ask(a, COORD_EXCLUSIVE, flags);
	sim_run(SIM, 100);
	assert_int_equal(taker_lock(b, COORD_EXCLUSIVE, COORD_LOCK_ATOMIC, QUICK_MS), -EAGAIN);
	assert_int_equal(taker_lock(b, COORD_EXCLUSIVE, flags, QUICK_MS), -EDEADLK);
	assert_true(taker_holds(b, COORD_SHARED));
	taker_unlock(b);
	assert_int_equal(taker_answer(a, QUICK_MS), 0);
	unmake(2);
}

/* A downgrade reaches the other hosts, and each exclusive time has a token of its own. */
static void test_downgrade(void)
{
	make(4);
	struct taker *a = &takers[0], *b = &takers[1];
	unsigned atomic = COORD_LOCK_ATOMIC;
	uint64_t token = 0;
	for (int round = 0; round < 3; round++) {
		assert_int_equal(taker_lock(a, COORD_EXCLUSIVE, atomic | COORD_LOCK_WAIT, 2000), 0);
		assert_true(coord_holding_token(a->holding) > token);
		token = coord_holding_token(a->holding);
		assert_int_equal(taker_lock(a, COORD_SHARED, atomic, QUICK_MS), 0);
		assert_int_equal(taker_lock(b, COORD_SHARED, COORD_LOCK_WAIT, 2000), 0);
		sim_run(SIM, 50);
		assert_true(taker_holds(a, COORD_SHARED));
		assert_true(coord_holding_token(b->holding) > token);
		assert_int_equal(coord_holding_token(a->holding), coord_holding_token(b->holding));
		token = coord_holding_token(b->holding);
		taker_unlock(b);
	}
	unmake(4);
}

/* Sharers stand back for a writer elsewhere, and go on when it has given up. */
static void test_gives_up(void)
{
	make(4);
	struct taker *a = &takers[0], *writer = &takers[1], *more = &takers[2];
	assert_int_equal(taker_lock(a, COORD_SHARED, 0, QUICK_MS), 0);
	taker_ask(writer, COORD_EXCLUSIVE, COORD_LOCK_WAIT);
	sim_run(SIM, 200);
	taker_ask(more, COORD_SHARED, COORD_LOCK_WAIT);
	sim_run(SIM, 200);
	/* Where nothing is told, nobody stands back. */
	if (fake_server_options(site.server)->can & COORD_CAN_NOTIFY)
		assert_false(more->answered);
	taker_cancel(writer, false);
	assert_int_equal(taker_answer(more, 3000), 0);
	assert_true(taker_holds(a, COORD_SHARED));
	unmake(4);
}

/* flock(2): it lets go first, and a failed conversion leaves nothing held. */
static void test_convert_flock(void)
{
	make(4);
	struct taker *a = &takers[0], *b = &takers[1];
	assert_int_equal(taker_lock(a, COORD_SHARED, COORD_LOCK_WAIT, QUICK_MS), 0);
	assert_int_equal(taker_lock(a, COORD_EXCLUSIVE, COORD_LOCK_WAIT, QUICK_MS), 0);
	assert_true(taker_holds(a, COORD_EXCLUSIVE));
	assert_int_equal(taker_lock(a, COORD_SHARED, COORD_LOCK_WAIT, QUICK_MS), 0);
	assert_true(taker_holds(a, COORD_SHARED));
	assert_int_equal(taker_lock(b, COORD_SHARED, COORD_LOCK_WAIT, QUICK_MS), 0);
	assert_int_equal(taker_lock(a, COORD_EXCLUSIVE, 0, QUICK_MS), -EAGAIN);
	assert_int_equal(coord_holding_state(a->holding), COORD_FREE);
	taker_unlock(b);
	sim_run(SIM, 200);
	assert_int_equal(taker_lock(b, COORD_EXCLUSIVE, 0, QUICK_MS), 0);
	unmake(4);
}

static void test_cancel(void)
{
	make(4);
	assert_int_equal(taker_lock(&takers[0], COORD_EXCLUSIVE, COORD_LOCK_WAIT, QUICK_MS), 0);
	for (size_t i = 1; i < 4; i++)
		taker_ask(&takers[i], COORD_EXCLUSIVE, COORD_LOCK_WAIT);
	sim_run(SIM, 50);
	taker_cancel(&takers[1], false);
	taker_cancel(&takers[3], false);
	taker_unlock(&takers[0]);
	assert_int_equal(taker_answer(&takers[2], QUICK_MS), 0);
	sim_run(SIM, 20000);
	assert_int_equal(takers[1].answers + takers[3].answers, 0);
	taker_unlock(&takers[2]);
	/* Nobody is left: the lock is free on the server. */
	sim_run(SIM, 1000);
	for (size_t i = 0; i < site.len; i++)
		assert_false(
			fake_holds(site.server, site.members[i], COORD_LOCK, LOCK, COORD_NONE));
	unmake(4);
}

/* Stopped and continued: the place is kept for some seconds, and then is not in the way. */
static void test_keep_place(void)
{
	make(3);
	assert_int_equal(taker_lock(&takers[0], COORD_EXCLUSIVE, COORD_LOCK_WAIT, QUICK_MS), 0);
	taker_ask(&takers[1], COORD_EXCLUSIVE, COORD_LOCK_WAIT);
	sim_run(SIM, 50);
	taker_ask(&takers[2], COORD_EXCLUSIVE, COORD_LOCK_WAIT);
	sim_run(SIM, 50);
	taker_cancel(&takers[1], true);
	sim_run(SIM, 500);
	taker_ask(&takers[1], COORD_EXCLUSIVE, COORD_LOCK_WAIT);
	sim_run(SIM, 50);
	taker_unlock(&takers[0]);
	assert_int_equal(taker_answer(&takers[1], QUICK_MS), 0);
	assert_false(takers[2].answered);
	/* It keeps a place, never a lock: whoever waits behind is served meanwhile. */
	taker_ask(&takers[0], COORD_EXCLUSIVE, COORD_LOCK_WAIT);
	sim_run(SIM, 50);
	taker_cancel(&takers[2], true);
	taker_unlock(&takers[1]);
	assert_int_equal(taker_answer(&takers[0], 30000), 0);
	unmake(3);
}

static void test_barrier(void)
{
	make(2);
	struct fake_options *options = fake_server_options(site.server);
	uint32_t delay = options->faults.delay_ms;
	options->faults.delay_ms = 200;
	assert_int_equal(taker_lock(&takers[0], COORD_EXCLUSIVE, 0, QUICK_MS), 0);
	coord_unlock(takers[0].holding, NULL, NULL);
	assert_int_equal(taker_barrier(&takers[1]), 0);
	assert_false(fake_holds(site.server, "m0", COORD_LOCK, LOCK, COORD_NONE));
	assert_int_equal(taker_barrier(&takers[1]), 0);
	options->faults.delay_ms = delay;
	unmake(2);
}

static void test_break(void)
{
	make(4);
	assert_int_equal(taker_lock(&takers[0], COORD_EXCLUSIVE, 0, QUICK_MS), 0);
	taker_ask(&takers[1], COORD_EXCLUSIVE, COORD_LOCK_WAIT);
	sim_run(SIM, 50);
	size_t other = site.len > 1 ? 1 : 0;
	assert_int_equal(client_lock_break(&site.clients[other], COORD_LOCK, "l"), 0);
	assert_int_equal(taker_answer(&takers[1], QUICK_MS), 0);
	sim_run(SIM, 3000);
	assert_int_equal(takers[0].lost, 1);
	assert_int_equal(takers[1].lost, 0);
	assert_int_equal(coord_holding_state(takers[0].holding), COORD_HOLDING_LOST);
	assert_int_equal(taker_check(&takers[0]), -EIO);
	assert_int_equal(taker_check(&takers[1]), 0);
	assert_true(takers[1].token > takers[0].token);
	assert_int_equal(taker_lock(&takers[0], COORD_EXCLUSIVE, 0, QUICK_MS), -EIO);
	assert_int_equal(taker_unlock(&takers[0]), 0);
	assert_int_equal(taker_lock(&takers[0], COORD_EXCLUSIVE, 0, QUICK_MS), -EAGAIN);
	assert_int_equal(taker_unlock(&takers[1]), 0);
	sim_run(SIM, 200);
	assert_int_equal(client_lock_break(&site.clients[0], COORD_LOCK, "l"), -ENOENT);
	unmake(4);
}

static void test_look(void)
{
	struct coord_lock_info info;
	struct client *last = &site.clients[site.len - 1];
	char owner[256];
	make(2);
	assert_int_equal(client_lock_look(last, COORD_LOCK, "l", &info, owner), 0);
	assert_false(info.held);
	assert_int_equal(taker_lock(&takers[0], COORD_EXCLUSIVE, 0, QUICK_MS), 0);
	sim_run(SIM, 200);
	assert_int_equal(client_lock_look(last, COORD_LOCK, "l", &info, owner), 0);
	assert_true(info.held);
	assert_int_equal(info.mode, COORD_EXCLUSIVE);
	assert_int_equal(info.token, takers[0].token);
	assert_int_equal(info.local, site.len == 1);
	assert_true(coord_bytes_equal(info.owner, COORD_BYTES("m0")));
	taker_unlock(&takers[0]);
	sim_run(SIM, 2000);
	assert_int_equal(client_lock_look(last, COORD_LOCK, "l", &info, owner), 0);
	assert_false(info.held);
	struct answer list;
	assert_int_equal(client_lock_list(last, COORD_LOCK, &list), 0);
	assert_int_equal(list.len, 0);
	answer_done(&list);
	unmake(2);
}

/* Every waiter is served, on however many mounts, and tokens grow in the order of holding. */
static void test_everyone(void)
{
	uint64_t token = 0;
	make(12);
	for (size_t i = 0; i < 12; i++)
		taker_ask(&takers[i], COORD_EXCLUSIVE, COORD_LOCK_WAIT);
	for (size_t served = 0; served < 12; served++) {
		struct taker *holder = NULL;
		for (int ms = 0; ms < 20000 && !holder; ms += 10) {
			for (size_t i = 0; i < 12; i++)
				if (taker_holds(&takers[i], COORD_NONE))
					holder = &takers[i];
			if (!holder)
				sim_run(SIM, 10);
		}
		assert_non_null(holder);
		assert_true(holder->token > token);
		token = holder->token;
		coord_unlock(holder->holding, NULL, NULL);
	}
	for (size_t i = 0; i < 12; i++)
		assert_int_equal(takers[i].answers, 1);
	unmake(12);
}

/* Who lets go and asks again at once does not keep another mount out. */
static void test_fair(void)
{
	make(2);
	assert_int_equal(taker_lock(&takers[0], COORD_EXCLUSIVE, 0, QUICK_MS), 0);
	taker_ask(&takers[1], COORD_EXCLUSIVE, COORD_LOCK_WAIT);
	sim_run(SIM, 300);
	for (int turn = 0; turn < 100 && !takers[1].answered; turn++) {
		coord_unlock(takers[0].holding, NULL, NULL);
		taker_ask(&takers[0], COORD_EXCLUSIVE, COORD_LOCK_WAIT);
		world_run(&site.world, 100);
		if (takers[0].waiting && !takers[1].answered)
			taker_answer(&takers[0], 10000);
	}
	assert_true(takers[1].answered);
	unmake(2);
}

static void test_local(void)
{
	struct taker a, b;
	assert_int_equal(taker_new(&site.clients[0], COORD_MEMBER, COORD_BYTES("g/m"), &a), 0);
	assert_int_equal(taker_new(&site.clients[0], COORD_MEMBER, COORD_BYTES("g/m"), &b), 0);
	uint64_t ops = fake_server_ops(site.server, COORD_CALL_LOCK);
	assert_int_equal(taker_lock(&a, COORD_EXCLUSIVE, 0, 0), 0);
	assert_int_equal(taker_lock(&b, COORD_SHARED, 0, 0), -EAGAIN);
	taker_ask(&b, COORD_SHARED, COORD_LOCK_WAIT);
	sim_run(SIM, 100);
	assert_false(b.answered);
	coord_unlock(a.holding, NULL, NULL);
	assert_int_equal(taker_answer(&b, 0), 0);
	assert_int_equal(taker_lock(&a, COORD_SHARED, 0, 0), 0);
	assert_int_equal(fake_server_ops(site.server, COORD_CALL_LOCK), ops);
	taker_free(&a);
	taker_free(&b);
}

static void test_leader(void)
{
	struct client *m0 = &site.clients[0], *m1 = &site.clients[1];
	struct coord_lock_info info;
	struct taker a, b;
	char owner[256];
	assert_int_equal(taker_new(m0, COORD_LEADER, COORD_BYTES("g"), &a), 0);
	assert_int_equal(taker_new(m1, COORD_LEADER, COORD_BYTES("g"), &b), 0);
	assert_int_equal(taker_lock(&a, COORD_EXCLUSIVE, COORD_LOCK_WAIT, QUICK_MS), -ENOENT);
	assert_int_equal(client_group_create(m0, "g"), 0);
	assert_int_equal(taker_lock(&a, COORD_EXCLUSIVE, COORD_LOCK_WAIT, QUICK_MS), 0);
	assert_int_equal(client_lock_look(m1, COORD_LEADER, "g", &info, owner), 0);
	assert_true(info.held && coord_bytes_equal(info.owner, COORD_BYTES("m0")));
	assert_int_equal(coord_holding_set_leader(b.holding, COORD_BYTES("worker")), 0);
	taker_ask(&b, COORD_EXCLUSIVE, COORD_LOCK_WAIT);
	sim_run(SIM, 300);
	assert_false(b.answered);
	struct answer group;
	assert_int_equal(client_group_read(m1, "g", false, &group), 0);
	assert_non_null(answer_find(&group, "m0", true));
	answer_done(&group);
	taker_unlock(&a);
	assert_int_equal(taker_answer(&b, QUICK_MS), 0);
	sim_run(SIM, 300);
	assert_int_equal(client_lock_look(m0, COORD_LEADER, "g", &info, owner), 0);
	assert_true(info.held && coord_bytes_equal(info.owner, COORD_BYTES("worker")));
	struct answer list;
	assert_int_equal(client_lock_list(m0, COORD_LEADER, &list), 0);
	assert_int_equal(list.len, 1);
	assert_true(coord_bytes_equal(list.rows[0].name, COORD_BYTES("g")));
	assert_true(coord_bytes_equal(list.rows[0].data, COORD_BYTES("worker")));
	answer_done(&list);
	taker_unlock(&b);
	taker_free(&a);
	taker_free(&b);
	assert_int_equal(client_group_delete(m0, "g"), 0);
}

/* Names that are only looked at are kept in memory and watched, but not without end. */
static void many_looks(void **state)
{
	(void)state;
	struct fake_options options = site_options();
	site_open(&site, 1, &options, 1);
	struct coord_lock_info info;
	char name[32], owner[256];
	struct client *client = &site.clients[0];
	for (int i = 0; i < 11000; i++) {
		snprintf(name, sizeof(name), "none-%d", i);
		assert_int_equal(client_lock_look(client, COORD_LOCK, name, &info, owner), 0);
		assert_false(info.held);
	}
	assert_true(fake_server_traces(site.server) < 10300);
	assert_int_equal(
		coord_lock_peek(client->coord, COORD_LOCK, coord_bytes_of(name), &info), 0);
	assert_int_equal(
		coord_lock_peek(client->coord, COORD_LOCK, COORD_BYTES("none-0"), &info), -EAGAIN);
	assert_true(site_close(&site));
}

#define ALL(name, clients)                                                                         \
	static void name##_##clients(void **state)                                                 \
	{                                                                                          \
		(void)state;                                                                       \
		each_variant(clients, test_##name);                                                \
	}

ALL(first_come, 1)
ALL(sharers, 1)
ALL(keep_place, 1)
ALL(barrier, 1)
ALL(deadlock, 1)
ALL(local, 1)
ALL(try, 1)
ALL(try, 2)
ALL(convert_atomic, 1)
ALL(convert_atomic, 2)
ALL(downgrade, 1)
ALL(downgrade, 2)
ALL(gives_up, 2)
ALL(convert_flock, 1)
ALL(convert_flock, 2)
ALL(cancel, 1)
ALL(cancel, 2)
ALL(break, 1)
ALL(break, 2)
ALL(look, 1)
ALL(look, 2)
ALL(everyone, 1)
ALL(everyone, 3)
ALL(fair, 2)
ALL(leader, 2)

/* Without CONVERT an atomic upgrade is refused and the read lock stays; without SHARED sharing is. */
static void no_convert(void **state)
{
	(void)state;
	struct fake_options options = site_options();
	options.can &= ~(unsigned)COORD_CAN_CONVERT;
	site_open(&site, 1, &options, 1);
	make(1);
	assert_int_equal(taker_lock(&takers[0], COORD_SHARED, COORD_LOCK_ATOMIC, QUICK_MS), 0);
	assert_int_equal(
		taker_lock(&takers[0], COORD_EXCLUSIVE, COORD_LOCK_ATOMIC, QUICK_MS), -ENOLCK);
	assert_true(taker_holds(&takers[0], COORD_SHARED));
	taker_unlock(&takers[0]);
	/* A downgrade keeps the backend's exclusive grant, and shares it here. */
	assert_int_equal(taker_lock(&takers[0], COORD_EXCLUSIVE, COORD_LOCK_ATOMIC, QUICK_MS), 0);
	assert_int_equal(taker_lock(&takers[0], COORD_SHARED, COORD_LOCK_ATOMIC, QUICK_MS), 0);
	assert_true(taker_holds(&takers[0], COORD_SHARED));
	unmake(1);
	assert_true(site_close(&site));
	options = site_options();
	options.can &= ~(unsigned)(COORD_CAN_SHARED | COORD_CAN_CONVERT);
	site_open(&site, 1, &options, 1);
	make(1);
	assert_int_equal(taker_lock(&takers[0], COORD_SHARED, 0, QUICK_MS), -EOPNOTSUPP);
	assert_int_equal(taker_lock(&takers[0], COORD_EXCLUSIVE, 0, QUICK_MS), 0);
	unmake(1);
	assert_true(site_close(&site));
}

/* Two names that the backend takes for one are one lock. */
static void one_key(void **state)
{
	(void)state;
	struct fake_options options = site_options();
	struct taker upper;
	options.fold = true;
	site_open(&site, 1, &options, 2);
	make(2);
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(
			taker_new(&site.clients[i], COORD_LOCK, COORD_BYTES("L"), &upper), 0);
		assert_int_equal(taker_lock(&takers[0], COORD_EXCLUSIVE, 0, QUICK_MS), 0);
		assert_int_equal(taker_lock(&upper, COORD_EXCLUSIVE, 0, QUICK_MS), -EAGAIN);
		taker_ask(&upper, COORD_EXCLUSIVE, COORD_LOCK_WAIT);
		sim_run(SIM, 200);
		assert_false(upper.answered);
		taker_unlock(&takers[0]);
		assert_int_equal(taker_answer(&upper, QUICK_MS), 0);
		taker_free(&upper);
	}
	assert_int_equal(
		taker_new(&site.clients[0], COORD_LOCK, (struct coord_bytes){"", 0}, &upper),
		-EINVAL);
	unmake(2);
	assert_true(site_close(&site));
}

/* While the connection is down: a try is refused, a wait waits on and is served afterwards. */
static void while_suspended(void **state)
{
	(void)state;
	for (size_t v = 0; v < LEN(variants); v++) {
		if (variants[v].loss == COORD_LOSS_PROCESS)
			continue;
		struct fake_options options = variant_options(&variants[v]);
		site_open(&site, 1, &options, 2);
		make(6);
		/* takers 1, 3, 5 are of the other mount. */
		assert_int_equal(taker_lock(&takers[1], COORD_EXCLUSIVE, 0, QUICK_MS), 0);
		taker_ask(&takers[0], COORD_EXCLUSIVE, COORD_LOCK_WAIT);
		sim_run(SIM, 200);
		fake_break(site.server, "m0", 3000);
		sim_run(SIM, 200);
		assert_int_equal(coord_state(site.clients[0].coord), COORD_SUSPENDED);
		assert_int_equal(taker_lock(&takers[2], COORD_EXCLUSIVE, 0, QUICK_MS), -ENOLCK);
		taker_ask(&takers[4], COORD_EXCLUSIVE, COORD_LOCK_WAIT);
		sim_run(SIM, 200);
		assert_false(takers[0].answered || takers[4].answered);
		sim_run(SIM, 4000);
		assert_false(takers[0].answered || takers[4].answered);
		taker_unlock(&takers[1]);
		assert_int_equal(taker_answer(&takers[0], QUICK_MS), 0);
		taker_unlock(&takers[0]);
		assert_int_equal(taker_answer(&takers[4], QUICK_MS), 0);
		unmake(6);
		assert_true(site_close(&site));
	}
}

/* More names waited for, and more ops, than the driver takes at once. */
static void limits(void **state)
{
	(void)state;
	struct fake_options options = site_options();
	struct taker holders[10], waiters[10];
	char names[10][8];
	options.can |= COORD_CAN_QUEUE;
	options.ops_max = 3;
	options.waits_max = 2;
	site_open(&site, 1, &options, 2);
	fake_server_options(site.server)->faults.delay_ms = 3;
	for (int i = 0; i < 10; i++) {
		snprintf(names[i], sizeof(names[i]), "n%d", i);
		struct coord_bytes name = coord_bytes_of(names[i]);
		assert_int_equal(taker_new(&site.clients[0], COORD_LOCK, name, &holders[i]), 0);
		assert_int_equal(taker_new(&site.clients[1], COORD_LOCK, name, &waiters[i]), 0);
		taker_ask(&holders[i], COORD_EXCLUSIVE, 0);
	}
	for (int i = 0; i < 10; i++)
		assert_int_equal(taker_answer(&holders[i], QUICK_MS), 0);
	for (int i = 0; i < 10; i++)
		taker_ask(&waiters[i], COORD_EXCLUSIVE, COORD_LOCK_WAIT);
	sim_run(SIM, 1000);
	/* The waits do not keep renewals and releases from their turn. */
	sim_run(SIM, 30000);
	for (int i = 9; i >= 0; i--) {
		assert_true(taker_holds(&holders[i], COORD_EXCLUSIVE));
		taker_unlock(&holders[i]);
		assert_int_equal(taker_answer(&waiters[i], 10000), 0);
	}
	for (int i = 0; i < 10; i++) {
		taker_free(&holders[i]);
		taker_free(&waiters[i]);
	}
	assert_true(site_close(&site));
}

/* ---- All interleavings ---- */

enum step { ASK_X, ASK_S, TRY_X, GO, LEAVE, LEAVE_PLACE, END };
/* What one taker does, in order. GO: unlocks if it holds, cancels if it waits. LEAVE: cancels if it waits,
 * and keeps what it has. */
static const enum step scripts[][4] = {
	{ASK_X, GO, END},
	{ASK_S, GO, END},
	{ASK_X, LEAVE, GO, END},
	{ASK_X, LEAVE_PLACE, ASK_X, END},
	{TRY_X, ASK_S, END},
};

static void do_step(struct taker *taker, enum step step)
{
	bool holds = coord_holding_state(taker->holding) == COORD_HELD;
	bool asks = step == ASK_X || step == ASK_S || step == TRY_X;
	if (asks && !taker->waiting && !holds)
		taker_ask(taker, step == ASK_S ? COORD_SHARED : COORD_EXCLUSIVE,
			step == TRY_X ? 0 : COORD_LOCK_WAIT);
	else if (step == GO && holds)
		coord_unlock(taker->holding, NULL, NULL);
	else if (step == GO || step == LEAVE || step == LEAVE_PLACE)
		taker_cancel(taker, step == LEAVE_PLACE);
}

static void check_exclusion(void)
{
	int exclusive = 0, shared = 0;
	for (int i = 0; i < 3; i++) {
		exclusive += taker_holds(&takers[i], COORD_EXCLUSIVE);
		shared += taker_holds(&takers[i], COORD_SHARED);
		assert_true(takers[i].answers <= takers[i].asked);
	}
	assert_true(exclusive <= 1 && !(exclusive && shared));
}

/* Lets whoever waits have his turn. */
static void finish(const char *what)
{
	for (int turn = 0; turn < 20; turn++) {
		sim_run(SIM, 300);
		check_exclusion();
		for (int i = 0; i < 3; i++)
			if (coord_holding_state(takers[i].holding) == COORD_HELD)
				coord_unlock(takers[i].holding, NULL, NULL);
	}
	for (int i = 0; i < 3; i++)
		if (takers[i].waiting || takers[i].answers != takers[i].asked)
			fail_msg("forgotten: %s", what);
}

/* One schedule: order says whose step is next, pauses after which steps time passes. */
static void run_schedule(const int *order, size_t len, unsigned pauses, const int *script)
{
	size_t at[3] = {0};
	char what[80];
	snprintf(what, sizeof(what), "scripts %d %d %d, pauses %x, mounts %zu", script[0],
		script[1], script[2], pauses, site.len);
	make(3);
	for (size_t i = 0; i < len; i++) {
		int who = order[i];
		do_step(&takers[who], scripts[script[who]][at[who]++]);
		check_exclusion();
		if (pauses & (1u << i))
			sim_run(SIM, 8);
		else if (i % 3 == 0)
			sim_step(SIM, sim_now_ms(SIM) + 1);
		check_exclusion();
	}
	finish(what);
	unmake(3);
}

static size_t script_len(int script)
{
	size_t len = 0;
	while (scripts[script][len] != END)
		len++;
	return len;
}

static uint64_t schedules;

/* Builds every order of the takers' remaining steps. */
static void interleave(int *order, size_t len, const size_t *left, const int *script)
{
	if (!left[0] && !left[1] && !left[2]) {
		/* Time passes nowhere, everywhere, and at every other step. */
		static const unsigned pauses[] = {0, 0x3ff, 0x155, 0x2aa};
		for (size_t i = 0; i < LEN(pauses); i++) {
			run_schedule(order, len, pauses[i], script);
			schedules++;
		}
		return;
	}
	for (int who = 0; who < 3; who++) {
		if (!left[who])
			continue;
		size_t then[3] = {left[0], left[1], left[2]};
		then[who]--;
		order[len] = who;
		interleave(order, len + 1, then, script);
	}
}

static void all_schedules(size_t variant, size_t clients)
{
	struct fake_options options = variant_options(&variants[variant]);
	site_open(&site, 1, &options, clients);
	fake_server_options(site.server)->faults.delay_ms = 3;
	int script[3];
	int n = LEN(scripts);
	for (script[0] = 0; script[0] < n; script[0]++)
		for (script[1] = script[0]; script[1] < n; script[1]++)
			for (script[2] = script[1]; script[2] < n; script[2]++) {
				size_t left[3];
				int order[16];
				for (int i = 0; i < 3; i++)
					left[i] = script_len(script[i]);
				interleave(order, 0, left, script);
			}
	assert_true(site_close(&site));
}

static void interleavings(void **state)
{
	(void)state;
	for (size_t v = 0; v < LEN(variants); v++) {
		/* On one mount with one kind of driver, and across mounts with each. */
		if (v == 0)
			all_schedules(v, 1);
		all_schedules(v, 3);
	}
	print_message("%llu schedules\n", (unsigned long long)schedules);
}

/* A try to share behind one of its mount who waits to share in the backend's queue: it is not granted, which is no
 * silence of the backend. */
static void try_behind_the_queue(void **state)
{
	(void)state;
	struct fake_options options = site_options();
	options.can |= COORD_CAN_QUEUE;
	for (int early = 0; early < 2; early++) {
		struct taker held, waits, tries;
		site_open(&site, 1, &options, 2);
		struct client *client = &site.clients[1];
		assert_int_equal(taker_new(&site.clients[0], COORD_LOCK, LOCK, &held), 0);
		assert_int_equal(taker_new(client, COORD_LOCK, LOCK, &waits), 0);
		assert_int_equal(taker_new(client, COORD_LOCK, LOCK, &tries), 0);
		assert_int_equal(taker_lock(&held, COORD_EXCLUSIVE, 0, 1000), 0);
		taker_ask(&waits, COORD_SHARED, COORD_LOCK_WAIT);
		if (!early)
			sim_run(SIM, 1000);
		assert_int_equal(taker_lock(&tries, COORD_SHARED, 0, early ? 11000 : 50), -EAGAIN);
		assert_int_equal(coord_in_vain(client->coord, 1000), 0);
		coord_unlock(held.holding, NULL, NULL);
		sim_run(SIM, 100);
		assert_true(taker_holds(&waits, COORD_SHARED));
		taker_free(&held);
		taker_free(&waits);
		taker_free(&tries);
		assert_true(site_close(&site));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(first_come_1),
		cmocka_unit_test(sharers_1),
		cmocka_unit_test(keep_place_1),
		cmocka_unit_test(barrier_1),
		cmocka_unit_test(deadlock_1),
		cmocka_unit_test(local_1),
		cmocka_unit_test(try_1),
		cmocka_unit_test(try_2),
		cmocka_unit_test(convert_atomic_1),
		cmocka_unit_test(convert_atomic_2),
		cmocka_unit_test(downgrade_1),
		cmocka_unit_test(downgrade_2),
		cmocka_unit_test(gives_up_2),
		cmocka_unit_test(convert_flock_1),
		cmocka_unit_test(convert_flock_2),
		cmocka_unit_test(cancel_1),
		cmocka_unit_test(cancel_2),
		cmocka_unit_test(break_1),
		cmocka_unit_test(break_2),
		cmocka_unit_test(look_1),
		cmocka_unit_test(many_looks),
		cmocka_unit_test(look_2),
		cmocka_unit_test(everyone_1),
		cmocka_unit_test(everyone_3),
		cmocka_unit_test(fair_2),
		cmocka_unit_test(leader_2),
		cmocka_unit_test(no_convert),
		cmocka_unit_test(one_key),
		cmocka_unit_test(while_suspended),
		cmocka_unit_test(limits),
		cmocka_unit_test(try_behind_the_queue),
		cmocka_unit_test(interleavings),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
