/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers at awkward moments, on a virtual clock: late, refused, lost, or given to a host that slept meanwhile.
 * The test stands between the core and the fake driver, and decides for one kind of call what is answered.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "coord/core.h"
#include "tests/lib/site.h"

static struct site site;
#define SIM (&site.sim)
#define CLIENT (&site.clients[0])
#define HOST (&site.hosts[0])
#define LOCK COORD_BYTES("l")
#define GROUP COORD_BYTES("g")
#define MEMBER COORD_BYTES("x")

enum { LEASE_MS = 8000 }; /* what the margin leaves of the fake's 10 s */

/* ---- Between the core and the driver ---- */

/* What becomes of one kind of call. */
static struct {
	coord_driver_call *driver; /* the fake's own */
	/* Before the driver: true if it was answered here. */
	bool (*before)(struct coord_session *, struct coord_op *);
	/* The driver's answer, on its way to the core; it may be changed. */
	void (*answer)(struct coord_op *);
	void (*deliver)(struct coord_task *);
	unsigned calls;
} between;

static void between_deliver(struct coord_task *task)
{
	struct coord_op_core *core = coord_container(task, struct coord_op_core, task);
	task->fn = between.deliver;
	between.answer(&core->op);
	task->fn(task);
}

static void between_call(struct coord_session *session, struct coord_op *op)
{
	between.calls++;
	if (between.before && between.before(session, op))
		return;
	if (between.answer) {
		struct coord_op_core *core = op->core;
		between.deliver = core->task.fn;
		core->task.fn = between_deliver;
	}
	between.driver(session, op);
}

/* Puts the test between the core and one call of the driver. */
static void stand_between(coord_driver_call **call,
	bool (*before)(struct coord_session *, struct coord_op *),
	void (*answer)(struct coord_op *))
{
	between.driver = *call;
	between.before = before;
	between.answer = answer;
	between.calls = 0;
	*call = between_call;
}

static struct coord_driver *driver(void)
{
	return (struct coord_driver *)fake_server_driver(site.server);
}

static void fail_once(struct coord_op *op, int status, enum coord_sent sent)
{
	op->sent = sent;
	coord_op_fail(op, status);
}

/* ---- What the tests ask ---- */

static void open_site(enum coord_loss lock_loss, enum coord_loss member_loss, size_t clients)
{
	struct fake_options options = site_options();
	options.lock_loss = lock_loss;
	options.member_loss = member_loss;
	site_open(&site, 1, &options, clients);
}

static void hold(struct taker *taker)
{
	assert_int_equal(taker_new(CLIENT, COORD_LOCK, LOCK, taker), 0);
	assert_int_equal(taker_lock(taker, COORD_EXCLUSIVE, COORD_LOCK_WAIT, 1000), 0);
}

static bool on_server(void)
{
	return fake_holds(site.server, "m0", COORD_LOCK, LOCK, COORD_NONE);
}

static uint64_t left_ms(void)
{
	struct coord_session_info info;
	coord_session_info(CLIENT->coord, &info);
	return info.left_ms;
}

static bool is_joined(void)
{
	return coord_membership_find(
		CLIENT->coord, GROUP, MEMBER, &(struct coord_membership_info){0});
}

/* The host sleeps for so long. What was answered meanwhile is the first thing that it deals with. */
static void sleep_ms(uint64_t ms)
{
	sim_pause(HOST, true);
	sim_run(SIM, ms);
	sim_pause(HOST, false);
}

static bool lost(void *user)
{
	return ((struct taker *)user)->lost > 0;
}

static bool called_twice(void *user)
{
	(void)user;
	return between.calls >= 2;
}

/* ---- Who is away ---- */

/* Nobody answers, or there is no connection: each has its errno, and what is held is not lost by that. */
static void away(void **state)
{
	(void)state;
	for (int cut = 0; cut < 2; cut++) {
		const int status = cut ? -EHOSTDOWN : -ETIMEDOUT;
		struct taker taker, other;
		open_site(COORD_LOSS_PROCESS, COORD_LOSS_PROCESS, 1);
		hold(&taker);
		assert_int_equal(taker_new(CLIENT, COORD_LOCK, COORD_BYTES("o"), &other), 0);
		if (cut) {
			fake_break(site.server, "m0", 60000);
			sim_run(SIM, 100);
			assert_int_equal(coord_state(CLIENT->coord), COORD_SUSPENDED);
		} else {
			sim_pause(&site.server_host, true);
		}
		assert_int_equal(taker_check(&taker), status);
		assert_int_equal(client_group_create(CLIENT, "g"), status);
		assert_true(taker_holds(&taker, COORD_EXCLUSIVE));
		if (!cut)
			assert_int_equal(taker_lock(&other, COORD_EXCLUSIVE, 0, 20000), status);
		sim_pause(&site.server_host, false);
		sim_run(SIM, 60000);
		assert_int_equal(taker_check(&taker), 0);
		assert_int_equal(taker.lost, 0);
		assert_int_equal(taker_unlock(&taker), 0);
		taker_free(&other);
		taker_free(&taker);
		assert_true(site_close(&site));
	}
}

/* A stop waits for nobody who cannot be told. */
static void stop_while_suspended(void **state)
{
	(void)state;
	struct taker taker;
	open_site(COORD_LOSS_LEASE, COORD_LOSS_LEASE, 1);
	hold(&taker);
	fake_break(site.server, "m0", 100000);
	sim_run(SIM, 10);
	assert_int_equal(coord_state(CLIENT->coord), COORD_SUSPENDED);
	taker_free(&taker);
	coord_stop(CLIENT->coord);
	assert_true(world_flag(&site.world, &CLIENT->stopped, 3000));
	assert_true(client_close(CLIENT));
	assert_true(site_close(&site));
}

/* ---- Leases ---- */

static bool refuse_first(struct coord_session *session, struct coord_op *op)
{
	(void)session;
	if (between.calls == 1)
		fail_once(op, -EIO, COORD_SENT_ANSWERED);
	return between.calls == 1;
}

/* One renewal that the server could not make is not the last. */
static void renewal_fails_once(void **state)
{
	(void)state;
	struct taker taker;
	open_site(COORD_LOSS_LEASE, COORD_LOSS_LEASE, 1);
	hold(&taker);
	stand_between(&driver()->renew, refuse_first, NULL);
	assert_true(sim_run_until(SIM, called_twice, NULL, LEASE_MS / 2));
	sim_run(SIM, 30000);
	assert_int_equal(taker.lost, 0);
	assert_int_equal(coord_state(CLIENT->coord), COORD_CONNECTED);
	assert_int_equal(taker_check(&taker), 0);
	taker_free(&taker);
	assert_true(site_close(&site));
}

static uint64_t renewed_ms;

static void note_renewal(struct coord_op *op)
{
	if (op->status == 0)
		renewed_ms = sim_now_ms(SIM);
}

static bool renewed(void *user)
{
	return renewed_ms > *(uint64_t *)user;
}

/* The session's lease counts from when a renewal was sent, however long its answer takes. */
static void renewal_answered_late(void **state)
{
	(void)state;
	open_site(COORD_LOSS_LEASE, COORD_LOSS_LEASE, 1);
	stand_between(&driver()->renew, NULL, note_renewal);
	uint64_t start = sim_now_ms(SIM);
	assert_true(sim_run_until(SIM, renewed, &start, LEASE_MS));
	sim_run(SIM, 100);
	unsigned before = between.calls;
	sim_pause(&site.server_host, true);
	while (between.calls == before)
		assert_true(sim_step(SIM, start + 2 * LEASE_MS));
	start = sim_now_ms(SIM);
	sim_run(SIM, 1500);
	sim_pause(&site.server_host, false);
	assert_true(sim_run_until(SIM, renewed, &start, 10));
	assert_int_equal(renewed_ms - start, 1500);
	assert_int_equal(left_ms(), LEASE_MS - 1500);
	assert_true(site_close(&site));
}

static unsigned renewals_of_all;

/* Renewals: the first ones of the session with all that it holds, the others of the session alone. */
static bool renew_session_only(struct coord_session *session, struct coord_op *op)
{
	(void)session;
	if (between.calls <= renewals_of_all)
		return false;
	op->ttl_ms = 10000;
	coord_op_done(op);
	return true;
}

/* A lock that is not renewed although the session is has its own lease, from when it was asked for. */
static void own_lease(void **state)
{
	(void)state;
	struct taker taker;
	open_site(COORD_LOSS_LEASE, COORD_LOSS_LEASE, 1);
	renewals_of_all = 0;
	stand_between(&driver()->renew, renew_session_only, NULL);
	assert_int_equal(taker_new(CLIENT, COORD_LOCK, LOCK, &taker), 0);
	uint64_t sent_ms = sim_now_ms(SIM);
	sim_pause(&site.server_host, true);
	taker_ask(&taker, COORD_EXCLUSIVE, COORD_LOCK_WAIT);
	sim_run(SIM, 1500);
	sim_pause(&site.server_host, false);
	assert_int_equal(taker_answer(&taker, 100), 0);
	assert_true(sim_run_until(SIM, lost, &taker, 2 * LEASE_MS));
	assert_int_equal(sim_now_ms(SIM) - sent_ms, LEASE_MS);
	assert_int_equal(coord_state(CLIENT->coord), COORD_CONNECTED);
	taker_free(&taker);
	assert_true(site_close(&site));
}

/* The same from when it was renewed last. */
static void own_lease_renewed(void **state)
{
	(void)state;
	struct taker taker;
	open_site(COORD_LOSS_LEASE, COORD_LOSS_LEASE, 1);
	hold(&taker);
	renewals_of_all = 1;
	stand_between(&driver()->renew, renew_session_only, NULL);
	while (between.calls == 0)
		assert_true(sim_step(SIM, sim_now_ms(SIM) + LEASE_MS));
	uint64_t sent_ms = sim_now_ms(SIM);
	sim_pause(&site.server_host, true);
	sim_run(SIM, 1500);
	sim_pause(&site.server_host, false);
	assert_true(sim_run_until(SIM, lost, &taker, 2 * LEASE_MS));
	assert_int_equal(sim_now_ms(SIM) - sent_ms, LEASE_MS);
	assert_int_equal(coord_state(CLIENT->coord), COORD_CONNECTED);
	taker_free(&taker);
	assert_true(site_close(&site));
}

/* ---- Answers to a host that slept ---- */

static void check_told(void *user, int status, const struct coord_row *rows, size_t len)
{
	(void)rows;
	(void)len;
	*(int *)user = status;
}

/* "Still held" says the server, and it was so when it said it. Also where the lock has no lease of its own, and ends
 * with the session's. */
static void check_answered_late(void **state)
{
	(void)state;
	for (int own = 0; own < 2; own++) {
		struct taker taker;
		int status = 1;
		open_site(own ? COORD_LOSS_LEASE : COORD_LOSS_CONNECTION, COORD_LOSS_LEASE, 1);
		hold(&taker);
		assert_int_equal(coord_check(taker.holding, check_told, &status, NULL), 0);
		sleep_ms(LEASE_MS + 500);
		assert_true(on_server());
		while (status > 0)
			assert_true(sim_step(SIM, sim_now_ms(SIM)));
		assert_int_equal(status, -EIO);
		assert_int_equal(taker.lost, 1);
		taker_free(&taker);
		assert_true(site_close(&site));
	}
}

static struct coord_task long_turn;

/* Something that keeps the loop from everything else. */
static void take_long(struct coord_task *task)
{
	(void)task;
	SIM->now_us += (LEASE_MS + 500) * 1000;
}

static void grant_before_long_turn(struct coord_op *op)
{
	if (between.calls > 1)
		return;
	assert_int_equal(op->status, 0);
	long_turn = (struct coord_task){.fn = take_long};
	coord_loop_defer(&HOST->loop, &long_turn);
}

static uint64_t left_when_told;

static void note_left(struct taker *taker)
{
	(void)taker;
	left_when_told = left_ms();
}

/* A grant whose lease ends before who asked is told: he is not told that he holds, nor that he lost it. Who waits
 * gets the next. */
static void granted_before_long_turn(void **state)
{
	(void)state;
	for (int wait = 0; wait < 2; wait++) {
		struct taker taker;
		open_site(COORD_LOSS_LEASE, COORD_LOSS_LEASE, 1);
		assert_int_equal(taker_new(CLIENT, COORD_LOCK, LOCK, &taker), 0);
		stand_between(&driver()->lock, NULL, grant_before_long_turn);
		taker.told = note_left;
		taker_ask(&taker, COORD_EXCLUSIVE, wait ? COORD_LOCK_WAIT : 0);
		assert_int_equal(taker_answer(&taker, 60000), wait ? 0 : -ETIMEDOUT);
		assert_int_equal(taker.answers, 1);
		assert_int_equal(taker.lost, 0);
		if (wait) {
			assert_true(left_when_told > 0);
			assert_true(between.calls > 1);
			assert_int_equal(taker_check(&taker), 0);
		}
		taker_free(&taker);
		assert_true(site_close(&site));
	}
}

static struct {
	int status;
	bool joined;
} join;

static void join_told(void *user, int status, const struct coord_row *rows, size_t len)
{
	(void)user;
	(void)rows;
	(void)len;
	join.status = status;
	join.joined = is_joined();
}

static void put(void)
{
	join.status = 1;
	assert_int_equal(coord_member_put(CLIENT->coord, GROUP, MEMBER, COORD_BYTES("\xc0"), true,
				 1, join_told, NULL, NULL),
		0);
}

/* A join that is answered when its lease is over is made once more. */
static void joined_late(void **state)
{
	(void)state;
	open_site(COORD_LOSS_LEASE, COORD_LOSS_LEASE, 1);
	assert_int_equal(client_group_create(CLIENT, "g"), 0);
	stand_between(&driver()->member_join, NULL, NULL);
	put();
	while (between.calls == 0)
		assert_true(sim_step(SIM, sim_now_ms(SIM)));
	sleep_ms(LEASE_MS + 500);
	while (join.status > 0)
		assert_true(sim_step(SIM, sim_now_ms(SIM)));
	assert_int_equal(join.status, 0);
	assert_false(join.joined);
	sim_run(SIM, 5000);
	assert_true(is_joined());
	assert_true(fake_joined(site.server, "m0", GROUP, MEMBER));
	assert_int_equal(client_member_leave(CLIENT, "g", "x"), 0);
	assert_int_equal(client_group_delete(CLIENT, "g"), 0);
	assert_true(site_close(&site));
}

/* ---- Answers that are lost, or come for nobody ---- */

static void lose_answer(struct coord_op *op)
{
	if (between.calls > 1)
		return;
	assert_int_equal(op->status, 0);
	op->status = -ETIMEDOUT;
	op->sent = COORD_SENT_UNKNOWN;
}

/* Nothing is known of the attempt, and who asked has gone: nothing stays held. */
static void granted_to_nobody(void **state)
{
	(void)state;
	struct taker taker;
	open_site(COORD_LOSS_PROCESS, COORD_LOSS_PROCESS, 1);
	assert_int_equal(taker_new(CLIENT, COORD_LOCK, LOCK, &taker), 0);
	stand_between(&driver()->lock, NULL, lose_answer);
	sim_pause(HOST, true);
	taker_ask(&taker, COORD_EXCLUSIVE, COORD_LOCK_WAIT);
	sim_pause(HOST, false);
	while (between.calls == 0)
		assert_true(sim_step(SIM, sim_now_ms(SIM)));
	/* The server grants it; then he goes. */
	sim_pause(HOST, true);
	sim_run(SIM, 10);
	assert_true(on_server());
	taker_cancel(&taker, false);
	sim_pause(HOST, false);
	sim_run(SIM, 1000);
	assert_false(on_server());
	assert_int_equal(taker.answers, 0);
	taker_free(&taker);
	assert_true(site_close(&site));
}

static bool refuse_unlock(struct coord_session *session, struct coord_op *op)
{
	(void)session;
	if (between.calls == 1)
		fail_once(op, -EHOSTDOWN, COORD_SENT_ANSWERED);
	return between.calls == 1;
}

/* A server that says that it cannot, now, is asked again: the lock is free in the end. */
static void unlock_refused(void **state)
{
	(void)state;
	struct taker taker;
	open_site(COORD_LOSS_PROCESS, COORD_LOSS_PROCESS, 1);
	hold(&taker);
	stand_between(&driver()->unlock, refuse_unlock, NULL);
	assert_int_equal(taker_unlock(&taker), 0);
	assert_int_equal(between.calls, 2);
	assert_false(on_server());
	taker_free(&taker);
	assert_true(site_close(&site));
}

static void gone_at_once(struct coord_op *op)
{
	struct coord_op_core *core = op->core;
	assert_int_equal(op->status, 0);
	coord_grant_lost(&core->coord->session, op->grant->key, op->grant->owner, op->epoch);
}

/* Word that the member is gone comes before the answer to its join: it stays gone, on the server, too. */
static void removed_before_joined(void **state)
{
	(void)state;
	open_site(COORD_LOSS_LEASE, COORD_LOSS_LEASE, 1);
	assert_int_equal(client_group_create(CLIENT, "g"), 0);
	stand_between(&driver()->member_join, NULL, gone_at_once);
	put();
	sim_run(SIM, 1000);
	assert_int_equal(join.status, 0);
	assert_false(is_joined());
	assert_false(fake_joined(site.server, "m0", GROUP, MEMBER));
	sim_run(SIM, 5000);
	assert_int_equal(between.calls, 1);
	assert_int_equal(client_group_delete(CLIENT, "g"), 0);
	assert_true(site_close(&site));
}

/* Who was told that his join timed out does not find himself joined. */
static void joined_after_timeout(void **state)
{
	(void)state;
	open_site(COORD_LOSS_PROCESS, COORD_LOSS_PROCESS, 1);
	assert_int_equal(client_group_create(CLIENT, "g"), 0);
	stand_between(&driver()->member_join, NULL, NULL);
	sim_pause(&site.server_host, true);
	put();
	sim_run(SIM, 15000);
	assert_int_equal(join.status, -ETIMEDOUT);
	sim_pause(&site.server_host, false);
	sim_run(SIM, 1000);
	assert_int_equal(between.calls, 1);
	assert_false(is_joined());
	assert_false(fake_joined(site.server, "m0", GROUP, MEMBER));
	assert_int_equal(client_group_delete(CLIENT, "g"), 0);
	assert_true(site_close(&site));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(away),
		cmocka_unit_test(stop_while_suspended),
		cmocka_unit_test(renewal_fails_once),
		cmocka_unit_test(renewal_answered_late),
		cmocka_unit_test(own_lease),
		cmocka_unit_test(own_lease_renewed),
		cmocka_unit_test(check_answered_late),
		cmocka_unit_test(granted_before_long_turn),
		cmocka_unit_test(joined_late),
		cmocka_unit_test(granted_to_nobody),
		cmocka_unit_test(unlock_refused),
		cmocka_unit_test(removed_before_joined),
		cmocka_unit_test(joined_after_timeout),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
