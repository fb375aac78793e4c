/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a mount, on a virtual clock: who holds is told and has his grace, and nothing is left on the server. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "tests/unit/session_site.h"

enum { GRACE_MS = 1000, HOLD_MS = GRACE_MS + 250 };

static char said[2000]; /* in the log */

static void say(int level, const char *text)
{
	size_t len = strlen(said);
	(void)level;
	snprintf(said + len, sizeof(said) - len, "%s\n", text);
}

static void stop_while_down(void **state)
{
	(void)state;
	struct taker held, waiting;
	mounts(1);
	hold(CLIENT, LOCK, &held);
	assert_int_equal(taker_new(CLIENT, COORD_LOCK, LOCK, &waiting), 0);
	taker_ask(&waiting, COORD_EXCLUSIVE, COORD_LOCK_WAIT);
	sim_run(SIM, 10);
	fake_break(site.server, "m0", 100000);
	sim_run(SIM, 10);
	uint64_t start = sim_now_ms(SIM);
	said[0] = '\0';
	coord_log_to(say);
	coord_stop(CLIENT->coord);
	assert_true(world_flag(&site.world, &CLIENT->stopped, 30000));
	coord_log_to(NULL);
	assert_true(sim_now_ms(SIM) - start <= HOLD_MS + 10000);
	assert_non_null(strstr(said, "1 lock stays there until the lease ends\n"));
	assert_int_equal(CLIENT->stops, 1);
	assert_int_equal(held.lost, 1);
	assert_int_equal(waiting.answers, 1);
	assert_int_equal(waiting.status, -ESHUTDOWN);
	taker_free(&held);
	taker_free(&waiting);
	leave();
}

/* "l" is held by the first of two mounts and waited for by the second; the first stops. */
static void stop_open(struct taker *held, struct taker *next)
{
	mounts(2);
	hold(CLIENT, LOCK, held);
	assert_int_equal(taker_new(&site.clients[1], COORD_LOCK, LOCK, next), 0);
	taker_ask(next, COORD_EXCLUSIVE, COORD_LOCK_WAIT);
	sim_run(SIM, 100);
	said[0] = '\0';
	coord_log_to(say);
	coord_stop(CLIENT->coord);
}

static void stop_ends(struct taker *held, struct taker *next)
{
	coord_log_to(NULL);
	assert_int_equal(CLIENT->stops, 1);
	assert_int_equal(taker_answer(next, 2000), 0);
	taker_free(next);
	taker_free(held);
	leave();
}

/* Who holds is told, and has his grace before another is granted it. */
static void stop_gives_a_grace(void **state)
{
	(void)state;
	struct taker held, next, late;
	stop_open(&held, &next);
	assert_int_equal(held.lost, 1);
	assert_int_equal(taker_check(&held), -EIO);
	assert_non_null(strstr(said, "lock l was lost: the mount is ending (held by process "));
	/* Meanwhile requests get what they get at any stop, and another one changes nothing. */
	assert_int_equal(taker_new(CLIENT, COORD_LOCK, COORD_BYTES("k"), &late), 0);
	assert_int_equal(taker_lock(&late, COORD_EXCLUSIVE, COORD_LOCK_WAIT, 100), -ESHUTDOWN);
	taker_free(&late);
	uint64_t start = sim_now_ms(SIM);
	sim_run(SIM, HOLD_MS - 100);
	coord_stop(CLIENT->coord);
	assert_false(next.answered);
	assert_false(CLIENT->stopped);
	assert_true(fake_holds(site.server, "m0", COORD_LOCK, LOCK, COORD_EXCLUSIVE));
	assert_true(world_flag(&site.world, &CLIENT->stopped, 1000));
	assert_in_range(sim_now_ms(SIM) - start, HOLD_MS - 100, HOLD_MS + 500);
	assert_null(strstr(said, "away"));
	stop_ends(&held, &next);
}

/* The lease is not so far from its end that it would be over before the grace. */
static void stop_of_a_lease_that_ends(void **state)
{
	(void)state;
	struct taker held, next;
	mounts(2);
	hold(CLIENT, LOCK, &held);
	assert_int_equal(taker_new(&site.clients[1], COORD_LOCK, LOCK, &next), 0);
	taker_ask(&next, COORD_EXCLUSIVE, COORD_LOCK_WAIT);
	sim_run(SIM, 100);
	fake_break(site.server, "m0", 100000);
	sim_run(SIM, info().left_ms - 1);
	assert_int_equal(held.lost, 0);
	coord_stop(CLIENT->coord);
	assert_int_equal(held.lost, 1);
	sim_run(SIM, HOLD_MS - 1);
	assert_false(next.answered);
	assert_false(CLIENT->stopped);
	assert_true(world_flag(&site.world, &CLIENT->stopped, 11000));
	assert_int_equal(taker_answer(&next, 20000), 0);
	taker_free(&next);
	taker_free(&held);
	leave();
}

/* Just after a loss by the clock, whose holders were told then. */
static void stop_after_a_loss(void **state)
{
	(void)state;
	struct taker held;
	mounts(1);
	hold(CLIENT, LOCK, &held);
	fake_break(site.server, "m0", 100000);
	assert_true(until_state(COORD_LOST, 10000));
	assert_int_equal(held.lost, 1);
	uint64_t told = sim_now_ms(SIM);
	sim_run(SIM, GRACE_MS / 2);
	uint64_t closes = fake_server_ops(site.server, COORD_CALL_CLOSE);
	coord_stop(CLIENT->coord);
	sim_run(SIM, GRACE_MS / 2 - 10);
	assert_int_equal(fake_server_ops(site.server, COORD_CALL_CLOSE), closes);
	assert_true(world_flag(&site.world, &CLIENT->stopped, 12000));
	assert_true(sim_now_ms(SIM) - told >= HOLD_MS);
	taker_free(&held);
	leave();
}

/* Once it is let go of there is nothing to wait for: with unlock, and with the end of its handle. */
static void stop_when_it_is_let_go_of(void **state)
{
	(void)state;
	for (int how = 0; how < 2; how++) {
		struct taker held, next;
		stop_open(&held, &next);
		sim_run(SIM, 300);
		assert_true(fake_holds(site.server, "m0", COORD_LOCK, LOCK, COORD_EXCLUSIVE));
		uint64_t start = sim_now_ms(SIM);
		if (how == 0)
			coord_unlock(held.holding, NULL, NULL);
		else
			taker_free(&held);
		assert_int_equal(taker_answer(&next, 200), 0);
		assert_true(world_flag(&site.world, &CLIENT->stopped, 200));
		assert_true(sim_now_ms(SIM) - start < 200);
		stop_ends(&held, &next);
	}
}

/* Two of a mount share a lock, and each has another one: each lock is waited for until nobody needs it. */
static void stop_of_several(void **state)
{
	(void)state;
	struct taker sharers[2], own[4];
	mounts(1);
	said[0] = '\0';
	for (size_t i = 0; i < 4; i++) {
		const char *name = (const char *[]){"a", "b", "c", "d"}[i];
		assert_int_equal(taker_new(CLIENT, COORD_LOCK, coord_bytes_of(name), &own[i]), 0);
		assert_int_equal(taker_lock(&own[i], COORD_EXCLUSIVE, 0, 1000), 0);
	}
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(taker_new(CLIENT, COORD_LOCK, LOCK, &sharers[i]), 0);
		assert_int_equal(taker_lock(&sharers[i], COORD_SHARED, 0, 1000), 0);
	}
	coord_log_to(say);
	coord_stop(CLIENT->coord);
	for (const char *name = "abcdl"; *name; name++) {
		char line[] = "lock ? was lost: the mount is ending";
		line[5] = *name;
		assert_non_null(strstr(said, line));
	}
	for (size_t i = 0; i < 4; i++)
		taker_free(&own[i]);
	taker_free(&sharers[0]);
	sim_run(SIM, 200);
	assert_false(fake_holds(site.server, "m0", COORD_LOCK, COORD_BYTES("a"), COORD_NONE));
	assert_true(fake_holds(site.server, "m0", COORD_LOCK, LOCK, COORD_SHARED));
	assert_false(CLIENT->stopped);
	taker_free(&sharers[1]);
	assert_true(world_flag(&site.world, &CLIENT->stopped, 200));
	coord_log_to(NULL);
	leave();
}

static void stop_in_a_hurry(void **state)
{
	(void)state;
	struct taker held, next;
	stop_open(&held, &next);
	sim_run(SIM, 300);
	assert_true(coord_stop_hurry(CLIENT->coord));
	assert_false(coord_stop_hurry(CLIENT->coord));
	assert_true(world_flag(&site.world, &CLIENT->stopped, 200));
	assert_false(coord_stop_hurry(CLIENT->coord));
	stop_ends(&held, &next);
}

/* Of a session that has ended there is nothing to release: heard with the release, and before it. */
static void stop_of_a_session_that_ended(void **state)
{
	(void)state;
	for (int early = 0; early < 2; early++) {
		struct taker held, next;
		stop_open(&held, &next);
		if (early)
			fake_break(site.server, "m0", 50);
		fake_end_session(site.server, "m0");
		if (!early)
			sim_run(SIM, HOLD_MS - 10);
		assert_false(CLIENT->stopped);
		assert_true(world_flag(&site.world, &CLIENT->stopped, 500));
		char *first = strstr(said, "the session with the backend has ended");
		assert_non_null(first);
		assert_null(strstr(first + 1, "the session with the backend has ended"));
		stop_ends(&held, &next);
	}
}

/* What is left on the server of the first mount's daemon. */
static size_t left(const uint8_t uuid[16])
{
	return fake_traces_of(site.server, uuid, true);
}

/* Whether it is only suspended, or what it had is lost: nothing is left on a server that is back soon. */
static void stop_in_an_interruption(void **state)
{
	(void)state;
	for (int lost = 0; lost < 2; lost++) {
		struct taker held, next;
		uint8_t uuid[16];
		mounts(2);
		memcpy(uuid, fake_uuid(site.server, "m0"), sizeof(uuid));
		hold(CLIENT, LOCK, &held);
		assert_int_equal(taker_new(&site.clients[1], COORD_LOCK, LOCK, &next), 0);
		taker_ask(&next, COORD_EXCLUSIVE, COORD_LOCK_WAIT);
		if (!lost)
			taker_free(&held);
		sim_run(SIM, 100);
		uint64_t left_ms = lost ? info().left_ms : 100;
		fake_break(site.server, "m0", left_ms + (lost ? HOLD_MS : 0) + 800);
		assert_true(until_state(lost ? COORD_LOST : COORD_SUSPENDED, left_ms + 1));
		sim_run(SIM, 99);
		said[0] = '\0';
		coord_log_to(say);
		coord_stop(CLIENT->coord);
		assert_true(world_flag(&site.world, &CLIENT->stopped, 5000));
		assert_int_equal(left(uuid), 0);
		assert_int_equal(taker_answer(&next, 100), 0);
		assert_null(strstr(said, "away"));
		if (!lost)
			assert_int_equal(taker_new(CLIENT, COORD_LOCK, LOCK, &held), 0);
		stop_ends(&held, &next);
	}
}

/* A server that is away for longer is not waited for, and the log says what stays there. */
static void stop_in_an_outage(void **state)
{
	(void)state;
	mounts(1);
	fake_break(site.server, "m0", 100000);
	assert_true(until_state(COORD_SUSPENDED, 1000));
	said[0] = '\0';
	coord_log_to(say);
	coord_stop(CLIENT->coord);
	assert_false(world_flag(&site.world, &CLIENT->stopped, 1900));
	assert_true(world_flag(&site.world, &CLIENT->stopped, 300));
	coord_log_to(NULL);
	assert_non_null(
		strstr(said, "the member id of this mount stay there until the lease ends\n"));
	leave();
}

/* With what is to be released under way. */
static void stop_whose_connection_drops(void **state)
{
	(void)state;
	struct taker held, next;
	stop_open(&held, &next);
	sim_pause(&site.server_host, true);
	sim_run(SIM, HOLD_MS + 500);
	fake_break(site.server, "m0", 100000);
	assert_true(world_flag(&site.world, &CLIENT->stopped, 2500));
	assert_non_null(strstr(said, "1 lock stays there until the lease ends\n"));
	sim_pause(&site.server_host, false);
	sim_run(SIM, 10000);
	stop_ends(&held, &next);
}

/* When it is over nothing begins any more, whatever is heard then. */
static void stop_without_answers(void **state)
{
	(void)state;
	struct taker held, next;
	stop_open(&held, &next);
	sim_pause(&site.server_host, true);
	assert_true(world_flag(&site.world, &CLIENT->stopped, 30000));
	uint64_t closes = fake_server_ops(site.server, COORD_CALL_CLOSE);
	sim_pause(&site.server_host, false);
	fake_end_session(site.server, "m0");
	fake_break(site.server, "m0", 50);
	sim_run(SIM, 1000);
	assert_non_null(strstr(said, "the session with the backend has ended"));
	assert_int_equal(fake_server_ops(site.server, COORD_CALL_CLOSE), closes);
	stop_ends(&held, &next);
}

/* Nobody holds: neither a waiter nor a lost handle that is old is waited for. */
static void stop_without_holders(void **state)
{
	(void)state;
	struct taker lost, other, waiter;
	mounts(2);
	hold(CLIENT, COORD_BYTES("k"), &lost);
	fake_break(site.server, "m0", 12000);
	assert_true(until_state(COORD_LOST, 12000));
	assert_true(until_state(COORD_CONNECTED, 30000));
	sim_run(SIM, 2 * HOLD_MS);
	hold(&site.clients[1], LOCK, &other);
	assert_int_equal(taker_new(CLIENT, COORD_LOCK, LOCK, &waiter), 0);
	taker_ask(&waiter, COORD_EXCLUSIVE, COORD_LOCK_WAIT);
	sim_run(SIM, 100);
	uint64_t start = sim_now_ms(SIM);
	coord_stop(CLIENT->coord);
	assert_false(coord_stop_hurry(CLIENT->coord));
	assert_true(world_flag(&site.world, &CLIENT->stopped, 1000));
	assert_true(sim_now_ms(SIM) - start < 200);
	assert_int_equal(waiter.status, -ESHUTDOWN);
	taker_free(&lost);
	taker_free(&waiter);
	taker_free(&other);
	leave();
}

/* With the server's answer to come, and without any. */
static void stop_while_opening(void **state)
{
	(void)state;
	for (int silent = 0; silent < 2; silent++) {
		struct client *second = &site.clients[1];
		struct coord_config *config;
		mounts(2);
		assert_true(client_close(second));
		sim_pause(&site.server_host, silent);
		assert_int_equal(fake_server_config(site.server, "m1", &config), 0);
		assert_int_equal(client_start(second, &site.world, &site.hosts[1].loop, config), 0);
		coord_stop(second->coord);
		assert_true(world_flag(&site.world, &second->stopped, 11000));
		assert_int_equal(second->stops, 1);
		assert_int_equal(second->readies, 0);
		coord_free(second->coord);
		second->coord = NULL;
		sim_pause(&site.server_host, false);
		sim_run(SIM, 20000);
		assert_true(site_close(&site));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stop_while_down),
		cmocka_unit_test(stop_gives_a_grace),
		cmocka_unit_test(stop_of_a_lease_that_ends),
		cmocka_unit_test(stop_after_a_loss),
		cmocka_unit_test(stop_when_it_is_let_go_of),
		cmocka_unit_test(stop_of_several),
		cmocka_unit_test(stop_in_a_hurry),
		cmocka_unit_test(stop_of_a_session_that_ended),
		cmocka_unit_test(stop_in_an_interruption),
		cmocka_unit_test(stop_in_an_outage),
		cmocka_unit_test(stop_whose_connection_drops),
		cmocka_unit_test(stop_without_answers),
		cmocka_unit_test(stop_without_holders),
		cmocka_unit_test(stop_while_opening),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
