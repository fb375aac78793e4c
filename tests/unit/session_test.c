/* SPDX-License-Identifier: Apache-2.0 */
/* The session on a virtual clock: leases, suspended and lost, the claim on a member id. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "tests/unit/session_site.h"

/* grace = min(1 s, ttl/8), margin = max(ttl/6, 1 s + grace), as the holders are told; what is left counts
 * from the sending of the request. */
static void margins(void **state)
{
	(void)state;
	static const uint64_t cases[][3] = {
		{3000, 375, 1375},
		{6000, 750, 1750},
		{8000, 1000, 2000},
		{10000, 1000, 2000},
		{12000, 1000, 2000},
		{30000, 1000, 5000},
		{60000, 1000, 10000},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct fake_options options = site_options();
		options.ttl_ms = cases[i][0];
		site_open(&site, 1, &options, 1);
		struct coord_session_info at = info();
		assert_int_equal(at.ttl_ms, cases[i][0]);
		assert_int_equal(at.grace_ms, cases[i][1]);
		assert_int_equal(at.margin_ms, cases[i][2]);
		assert_int_equal(at.left_ms, cases[i][0] - cases[i][2]);
		sim_run(SIM, 100);
		assert_int_equal(info().left_ms, cases[i][0] - cases[i][2] - 100);
		/* Four renewals in what is left of a TTL. */
		uint64_t before = fake_server_ops(site.server, COORD_CALL_RENEW);
		sim_run(SIM, (cases[i][0] - cases[i][2]) * 10);
		uint64_t renewals = fake_server_ops(site.server, COORD_CALL_RENEW) - before;
		assert_in_range(renewals, 39, 41);
		assert_true(site_close(&site));
	}
}

static int vain(uint64_t limit_ms)
{
	return coord_in_vain(CLIENT->coord, limit_ms);
}

/* One that had its second in vain is enough for those who have no more, until there is an answer. */
static void silent_for_a_second(void **state)
{
	(void)state;
	struct fake_options options = site_options();
	options.lock_loss = options.member_loss = COORD_LOSS_CONNECTION;
	site_open(&site, 1, &options, 1);
	sim_pause(&site.server_host, true);
	assert_int_equal(vain(1000), 0);
	coord_unanswered(CLIENT->coord, 1000);
	assert_int_equal(vain(1000), -ETIMEDOUT);
	assert_int_equal(vain(10000), 0);
	sim_run(SIM, 900);
	assert_int_equal(vain(1000), -ETIMEDOUT);
	/* Nothing is under way that would tell: somebody has to ask. */
	sim_run(SIM, 200);
	assert_int_equal(vain(1000), 0);
	assert_int_equal(client_group_create(CLIENT, "g"), -ETIMEDOUT);
	assert_int_equal(vain(1000), -ETIMEDOUT);
	assert_int_equal(vain(10000), -ETIMEDOUT);
	sim_pause(&site.server_host, false);
	sim_run(SIM, 2000);
	assert_int_equal(vain(10000), 0);
	assert_int_equal(client_group_create(CLIENT, "h"), 0);
	assert_int_equal(vain(1000), 0);
	assert_true(client_close(CLIENT));
	assert_true(site_close(&site));
}

/* What is silent there was one request's own matter. */
static void answers_apart(void **state)
{
	(void)state;
	struct fake_options options = site_options();
	struct taker taker;
	options.lock_loss = options.member_loss = COORD_LOSS_PROCESS;
	site_open(&site, 1, &options, 1);
	coord_unanswered(CLIENT->coord, 10000);
	assert_int_equal(vain(10000), -ETIMEDOUT);
	assert_int_equal(vain(1000), 0);
	hold(CLIENT, LOCK, &taker);
	taker_free(&taker);
	assert_true(client_close(CLIENT));
	assert_true(site_close(&site));
}

/* Where there is no connection, as long as a call may wait for one. */
static void down_for_a_second(void **state)
{
	(void)state;
	struct fake_options options = site_options();
	options.lock_loss = options.member_loss = COORD_LOSS_PROCESS;
	site_open(&site, 1, &options, 1);
	fake_break(site.server, "m0", 20000);
	assert_true(until_state(COORD_SUSPENDED, 1000));
	assert_int_equal(vain(1000), 0);
	sim_run(SIM, 990);
	assert_int_equal(vain(1000), 0);
	sim_run(SIM, 20);
	assert_int_equal(vain(1000), -EHOSTDOWN);
	assert_int_equal(vain(10000), 0);
	sim_run(SIM, 9000);
	assert_int_equal(vain(10000), -EHOSTDOWN);
	uint64_t start = sim_now_ms(SIM);
	assert_int_equal(client_group_create(CLIENT, "g"), -EHOSTDOWN);
	assert_true(sim_now_ms(SIM) - start < 100);
	assert_true(until_state(COORD_CONNECTED, 30000));
	assert_int_equal(vain(1000), 0);
	assert_int_equal(client_group_create(CLIENT, "g"), 0);
	assert_true(client_close(CLIENT));
	assert_true(site_close(&site));
}

static void no_lease_no_renewal(void **state)
{
	(void)state;
	struct fake_options options = site_options();
	options.lock_loss = options.member_loss = COORD_LOSS_PROCESS;
	site_open(&site, 1, &options, 1);
	assert_int_equal(info().ttl_ms, 0);
	assert_int_equal(info().left_ms, 0);
	sim_run(SIM, 100000);
	assert_int_equal(coord_state(CLIENT->coord), COORD_CONNECTED);
	assert_int_equal(CLIENT->readies, 1);
	assert_true(site_close(&site));
}

/* A short break: suspended, then connected again; what is held stays held, on one lease. */
static void suspended(void **state)
{
	(void)state;
	struct taker taker;
	mounts(1);
	hold(CLIENT, LOCK, &taker);
	uint32_t epoch = info().epoch;
	uint64_t token = coord_holding_token(taker.holding);
	fake_break(site.server, "m0", 3000);
	assert_true(until_state(COORD_SUSPENDED, 1000));
	assert_true(taker_holds(&taker, COORD_EXCLUSIVE));
	uint64_t left = info().left_ms;
	sim_run(SIM, 1000);
	assert_int_equal(info().left_ms, left - 1000);
	/* What cannot be known now is said to be unknown. */
	int r = taker_check(&taker);
	assert_true(r == -EHOSTDOWN || r == -ETIMEDOUT || r == 0);
	assert_true(until_state(COORD_CONNECTED, 5000));
	sim_run(SIM, 30000);
	assert_int_equal(coord_state(CLIENT->coord), COORD_CONNECTED);
	assert_int_equal(info().epoch, epoch);
	assert_true(taker_holds(&taker, COORD_EXCLUSIVE));
	assert_int_equal(coord_holding_token(taker.holding), token);
	assert_int_equal(taker_check(&taker), 0);
	assert_int_equal(taker.lost, 0);
	assert_int_equal(taker_unlock(&taker), 0);
	taker_free(&taker);
	assert_true(site_close(&site));
}

/* A long break: lost at the time that the last renewal gave, before the server lets go. */
static void lost(void **state)
{
	(void)state;
	struct taker taker;
	mounts(1);
	hold(CLIENT, LOCK, &taker);
	uint32_t epoch = info().epoch;
	sim_run(SIM, 15000);
	fake_break(site.server, "m0", 60000);
	assert_true(until_state(COORD_SUSPENDED, 1000));
	uint64_t end_ms = sim_now_ms(SIM) + info().left_ms;
	assert_true(until_state(COORD_LOST, 10000));
	assert_int_equal(sim_now_ms(SIM), end_ms);
	sim_settle(SIM);
	assert_int_equal(taker.lost, 1);
	assert_int_equal(coord_holding_state(taker.holding), COORD_HOLDING_LOST);
	/* The margin is still to come on the server. */
	assert_true(fake_holds(site.server, "m0", COORD_LOCK, LOCK, COORD_EXCLUSIVE));
	sim_run(SIM, info().margin_ms / 2);
	assert_true(fake_holds(site.server, "m0", COORD_LOCK, LOCK, COORD_EXCLUSIVE));
	assert_int_equal(taker_check(&taker), -EIO);
	assert_int_equal(taker_lock(&taker, COORD_EXCLUSIVE, COORD_LOCK_WAIT, 1000), -EIO);
	assert_true(until_state(COORD_CONNECTED, 100000));
	assert_true(info().epoch > epoch);
	/* A lost lock stays lost until its holder lets go of it. */
	sim_run(SIM, 20000);
	assert_int_equal(coord_holding_state(taker.holding), COORD_HOLDING_LOST);
	assert_int_equal(taker.lost, 1);
	assert_int_equal(taker_unlock(&taker), 0);
	assert_int_equal(coord_holding_state(taker.holding), COORD_FREE);
	assert_int_equal(taker_lock(&taker, COORD_EXCLUSIVE, COORD_LOCK_WAIT, 20000), 0);
	taker_free(&taker);
	assert_true(site_close(&site));
}

static void check_told(void *user, int status, const struct coord_row *rows, size_t len)
{
	(void)rows;
	(void)len;
	*(int *)user = status;
}

/* The server answers again at the moment of the loss: who was told has his grace before it lets go. Who was asking
 * it whether he holds is told at that moment, too. */
static void grace(void **state)
{
	(void)state;
	struct taker taker;
	mounts(1);
	hold(CLIENT, LOCK, &taker);
	uint32_t epoch = info().epoch;
	uint64_t grace_ms = info().grace_ms;
	sim_run(SIM, 5000);
	sim_pause(&site.server_host, true);
	int asked = 1;
	sim_run(SIM, info().left_ms - 1000);
	assert_int_equal(coord_check(taker.holding, check_told, &asked, NULL), 0);
	assert_true(until_state(COORD_LOST, 20000));
	sim_settle(SIM);
	assert_int_equal(taker.lost, 1);
	assert_int_equal(asked, -EIO);
	sim_pause(&site.server_host, false);
	sim_run(SIM, grace_ms - 50);
	assert_true(fake_holds(site.server, "m0", COORD_LOCK, LOCK, COORD_EXCLUSIVE));
	assert_int_equal(coord_state(CLIENT->coord), COORD_LOST);
	sim_run(SIM, 200);
	assert_false(fake_holds(site.server, "m0", COORD_LOCK, LOCK, COORD_EXCLUSIVE));
	assert_true(until_state(COORD_CONNECTED, 1000));
	assert_true(info().epoch > epoch);
	taker_free(&taker);
	assert_true(site_close(&site));
}

/* Who unmounts in this moment lets him have it, too. */
static void grace_at_umount(void **state)
{
	(void)state;
	struct taker taker;
	mounts(1);
	hold(CLIENT, LOCK, &taker);
	uint64_t grace_ms = info().grace_ms;
	sim_pause(&site.server_host, true);
	assert_true(until_state(COORD_LOST, 20000));
	sim_settle(SIM);
	assert_int_equal(taker.lost, 1);
	sim_pause(&site.server_host, false);
	coord_stop(CLIENT->coord);
	sim_run(SIM, grace_ms - 50);
	assert_true(fake_holds(site.server, "m0", COORD_LOCK, LOCK, COORD_EXCLUSIVE));
	assert_false(CLIENT->stopped);
	sim_run(SIM, 400);
	assert_false(fake_holds(site.server, "m0", COORD_LOCK, LOCK, COORD_EXCLUSIVE));
	assert_true(CLIENT->stopped);
	taker_free(&taker);
	assert_true(site_close(&site));
}

/* The host stood still past its lease: nobody there is told that he holds. */
static void lost_in_sleep(void **state)
{
	(void)state;
	struct taker taker;
	mounts(1);
	hold(CLIENT, LOCK, &taker);
	sim_pause(&site.hosts[0], true);
	sim_run(SIM, 12000);
	sim_pause(&site.hosts[0], false);
	assert_true(sim_step(SIM, UINT64_MAX));
	assert_int_equal(coord_holding_state(taker.holding), COORD_HOLDING_LOST);
	assert_true(until_state(COORD_CONNECTED, 60000));
	taker_free(&taker);
	assert_true(site_close(&site));
}

/* The same, and the holder there asks before any timer has its turn. */
static void lost_in_sleep_and_asked(void **state)
{
	(void)state;
	struct taker taker;
	mounts(1);
	hold(CLIENT, LOCK, &taker);
	assert_false(coord_holding_is_lost(taker.holding));
	sim_pause(&site.hosts[0], true);
	sim_run(SIM, 12000);
	sim_pause(&site.hosts[0], false);
	assert_true(coord_holding_is_lost(taker.holding));
	assert_int_equal(coord_holding_state(taker.holding), COORD_HOLDING_LOST);
	assert_true(until_state(COORD_CONNECTED, 60000));
	taker_free(&taker);
	assert_true(site_close(&site));
}

/* The grant of a lock comes when its lease is over: it is a release. */
static void grant_too_late(void **state)
{
	(void)state;
	struct taker taker;
	mounts(1);
	assert_int_equal(taker_new(CLIENT, COORD_LOCK, LOCK, &taker), 0);
	sim_pause(&site.server_host, true);
	taker_ask(&taker, COORD_EXCLUSIVE, COORD_LOCK_WAIT);
	sim_run(SIM, 9000);
	sim_pause(&site.server_host, false);
	if (taker_answer(&taker, 60000) == 0) {
		assert_true(taker_holds(&taker, COORD_EXCLUSIVE));
		assert_true(fake_holds(site.server, "m0", COORD_LOCK, LOCK, COORD_EXCLUSIVE));
		assert_int_equal(taker_check(&taker), 0);
	}
	taker_free(&taker);
	assert_true(site_close(&site));
}

/* Where the server lets go with the connection, the holder is told when the break is seen. */
static void lost_with_connection(void **state)
{
	(void)state;
	struct fake_options options = site_options();
	options.lock_loss = COORD_LOSS_CONNECTION;
	struct taker taker;
	site_open(&site, 1, &options, 1);
	assert_int_equal(taker_new(CLIENT, COORD_LOCK, LOCK, &taker), 0);
	assert_int_equal(client_group_create(CLIENT, "g"), 0);
	assert_int_equal(client_member_put(CLIENT, "g", "m0", COORD_BYTES("\xc0"), true), 0);
	assert_int_equal(taker_lock(&taker, COORD_EXCLUSIVE, COORD_LOCK_WAIT, 1000), 0);
	fake_break(site.server, "m0", 500);
	assert_true(until_state(COORD_SUSPENDED, 1000));
	sim_settle(SIM);
	assert_int_equal(taker.lost, 1);
	assert_int_equal(coord_holding_state(taker.holding), COORD_HOLDING_LOST);
	assert_true(until_state(COORD_CONNECTED, 5000));
	/* The membership is a lease, and outlives it. */
	assert_true(coord_membership_find(CLIENT->coord, COORD_BYTES("g"), COORD_BYTES("m0"),
		&(struct coord_membership_info){0}));
	assert_int_equal(taker_unlock(&taker), 0);
	assert_int_equal(taker_lock(&taker, COORD_EXCLUSIVE, COORD_LOCK_WAIT, 5000), 0);
	taker_free(&taker);
	assert_int_equal(client_member_leave(CLIENT, "g", "m0"), 0);
	assert_int_equal(client_group_delete(CLIENT, "g"), 0);
	assert_true(site_close(&site));
}

static void unreachable(void **state)
{
	(void)state;
	struct fake_options options = site_options();
	options.faults.lost = 1000;
	site_open(&site, 1, &options, 0);
	site.len = 1;
	strcpy(site.members[0], "m0");
	sim_loop_init(SIM, &site.hosts[0]);
	uint64_t start = sim_now_ms(SIM);
	assert_int_equal(site_client_open(&site, 0), -EHOSTDOWN);
	assert_true(sim_now_ms(SIM) - start <= 11000);
	assert_int_equal(CLIENT->readies, 1);
	assert_true(site_close(&site));
}

/* No answer at all: requests end at their deadline, the next ones at once, until it answers again. */
static void silent(void **state)
{
	(void)state;
	struct fake_options options = site_options();
	options.lock_loss = options.member_loss = COORD_LOSS_PROCESS;
	site_open(&site, 1, &options, 1);
	sim_pause(&site.server_host, true);
	uint64_t start = sim_now_ms(SIM);
	assert_int_equal(client_group_create(CLIENT, "g"), -ETIMEDOUT);
	assert_int_equal(sim_now_ms(SIM) - start, 10000);
	start = sim_now_ms(SIM);
	assert_int_equal(client_group_create(CLIENT, "h"), -ETIMEDOUT);
	assert_true(sim_now_ms(SIM) - start < 1000);
	sim_pause(&site.server_host, false);
	sim_run(SIM, 2000);
	int r = client_group_create(CLIENT, "i");
	if (r == -ETIMEDOUT)
		r = client_group_create(CLIENT, "i");
	assert_int_equal(r, 0);
	assert_true(client_close(CLIENT));
	assert_true(site_close(&site));
}

/* Where locks outlive their session, and the farewell of it does not arrive: what was let go of is released
 * through the next one, before its lease is over. */
static void grant_of_the_session_before(void **state)
{
	(void)state;
	struct fake_options options = site_options();
	struct taker held, next;
	options.claims = options.answers_in_order = true;
	site_open(&site, 1, &options, 2);
	hold(CLIENT, LOCK, &held);
	assert_int_equal(taker_new(&site.clients[1], COORD_LOCK, LOCK, &next), 0);
	taker_ask(&next, COORD_EXCLUSIVE, COORD_LOCK_WAIT);
	sim_run(SIM, 100);
	uint64_t left_ms = info().left_ms;
	uint64_t end_ms = sim_now_ms(SIM) + left_ms + info().margin_ms;
	fake_break(site.server, "m0", left_ms + info().grace_ms + 200);
	assert_true(until_state(COORD_LOST, left_ms));
	coord_unlock(held.holding, NULL, NULL);
	assert_int_equal(taker_answer(&next, 20000), 0);
	assert_true(sim_now_ms(SIM) < end_ms - 200);
	assert_true(until_state(COORD_CONNECTED, 5000));
	taker_free(&held);
	taker_free(&next);
	assert_true(site_close(&site));
}

/* Opens a second mount with the first one's id, as a process whose identity differs as told. */
static int second(void (*differ)(struct coord_identity *))
{
	struct coord_config *config;
	assert_int_equal(fake_server_config(site.server, "m0", &config), 0);
	if (differ)
		differ(&config->identity);
	return client_open(&site.clients[1], &site.world, &site.hosts[1].loop, config);
}

static void on_another_machine(struct coord_identity *identity)
{
	strcpy(identity->machine, "another machine");
	strcpy(identity->host, "elsewhere");
}

static void after_a_boot(struct coord_identity *identity)
{
	strcpy(identity->boot, "another boot");
}

static void claim_open(enum coord_loss loss)
{
	struct fake_options options = site_options();
	options.lock_loss = options.member_loss = loss;
	site_open(&site, 1, &options, 2);
	assert_true(client_close(&site.clients[1]));
}

/* Alive in this process: refused at once, with the way out. */
static void claim_here(void **state)
{
	(void)state;
	for (int loss = COORD_LOSS_LEASE; loss <= COORD_LOSS_PROCESS; loss++) {
		claim_open(loss);
		uint64_t start = sim_now_ms(SIM);
		assert_int_equal(second(NULL), -EEXIST);
		assert_true(sim_now_ms(SIM) - start < 1000);
		assert_non_null(strstr(site.clients[1].text, "member="));
		assert_true(site_close(&site));
	}
}

/* Alive elsewhere: it gets the time in which a dead mount's claim would end, then we refuse. */
static void claim_elsewhere(void **state)
{
	(void)state;
	claim_open(COORD_LOSS_LEASE);
	uint64_t start = sim_now_ms(SIM);
	assert_int_equal(second(on_another_machine), -EEXIST);
	assert_in_range(sim_now_ms(SIM) - start, 19000, 22000);
	/* The text names the host that has it. */
	assert_non_null(
		strstr(site.clients[1].text, coord_config_of(CLIENT->coord)->identity.host));
	assert_true(site_close(&site));
}

static void claim_elsewhere_dies(void **state)
{
	(void)state;
	claim_open(COORD_LOSS_LEASE);
	/* The first host stops for good. */
	sim_pause(&site.hosts[0], true);
	uint64_t start = sim_now_ms(SIM);
	assert_int_equal(second(on_another_machine), 0);
	assert_true(sim_now_ms(SIM) - start <= 11000);
	assert_true(client_close(&site.clients[1]));
	sim_pause(&site.hosts[0], false);
	assert_true(until_state(COORD_CONNECTED, 60000));
	assert_true(site_close(&site));
}

/* Whoever comes back and finds his id taken leaves it to who has it, for as long as that one lives. */
static void claim_taken_over(void **state)
{
	(void)state;
	claim_open(COORD_LOSS_LEASE);
	sim_pause(&site.hosts[0], true);
	assert_int_equal(second(on_another_machine), 0);
	size_t told = site.clients[1].states_len;
	sim_pause(&site.hosts[0], false);
	sim_run(SIM, 120000);
	assert_int_equal(site.clients[1].states_len, told);
	assert_int_equal(coord_state(site.clients[1].coord), COORD_CONNECTED);
	assert_int_equal(coord_state(CLIENT->coord), COORD_LOST);
	assert_true(client_close(&site.clients[1]));
	assert_true(until_state(COORD_CONNECTED, 60000));
	assert_true(site_close(&site));
}

/* A claim that is seen to be alive is left alone, whatever the identity in it looks like. */
static void claim_dead_but_alive(void **state)
{
	(void)state;
	claim_open(COORD_LOSS_PROCESS);
	assert_int_equal(second(after_a_boot), -EEXIST);
	assert_int_equal(coord_state(CLIENT->coord), COORD_CONNECTED);
	assert_true(site_close(&site));
}

/* Left by an earlier boot of this machine: taken over at once. */
static void claim_dead(void **state)
{
	(void)state;
	claim_open(COORD_LOSS_LEASE);
	sim_pause(&site.hosts[0], true);
	uint64_t start = sim_now_ms(SIM);
	assert_int_equal(second(after_a_boot), 0);
	assert_true(sim_now_ms(SIM) - start < 1000);
	assert_true(client_close(&site.clients[1]));
	sim_pause(&site.hosts[0], false);
	assert_true(site_close(&site));
}

static unsigned told, counted;

static void count_lines(int level, const char *text)
{
	(void)level;
	if (!strstr(text, "cannot open the session again"))
		return;
	told++;
	counted += strstr(text, "more attempts)") != NULL;
}

/* A quarter of an hour without the server: a line at its begin, and one after ten minutes. */
static void long_outage(void **state)
{
	(void)state;
	mounts(1);
	told = counted = 0;
	coord_log_to(count_lines);
	fake_break(site.server, "m0", 15 * 60000);
	assert_true(until_state(COORD_LOST, 60000));
	assert_true(until_state(COORD_CONNECTED, 16 * 60000));
	assert_int_equal(counted, 1);
	assert_int_equal(told, 2);
	/* The next outage is another. */
	fake_break(site.server, "m0", 60000);
	assert_true(until_state(COORD_LOST, 60000));
	assert_true(until_state(COORD_CONNECTED, 2 * 60000));
	coord_log_to(NULL);
	assert_int_equal(told, 3);
	assert_true(site_close(&site));
}

enum { MANY = 25 };

static unsigned lines, summaries, untold;

static void count_losses(int level, const char *text)
{
	(void)level;
	static const char why[] = " was lost: its lease was not renewed in time (held by process ";
	if (strstr(text, why)) {
		lines++;
		untold += CLIENT->losses < lines;
	} else if (!strcmp(text, "... and 5 more were lost: its lease was not renewed in time")) {
		summaries++;
		untold += CLIENT->losses < MANY;
	}
}

/* What goes with a session: the holder is told first, then the log, with no more than 20 names. */
static void log_of_losses(void **state)
{
	(void)state;
	struct taker takers[MANY];
	mounts(1);
	for (size_t i = 0; i < MANY; i++) {
		char name[] = {'l', (char)('a' + i), 0};
		assert_int_equal(
			taker_new(CLIENT, COORD_LOCK, coord_bytes_of(name), &takers[i]), 0);
		assert_int_equal(taker_lock(&takers[i], COORD_EXCLUSIVE, COORD_LOCK_WAIT, 1000), 0);
	}
	lines = summaries = untold = 0;
	coord_log_to(count_losses);
	fake_break(site.server, "m0", 60000);
	assert_true(until_state(COORD_LOST, 60000));
	assert_true(until_state(COORD_CONNECTED, 2 * 60000));
	coord_log_to(NULL);
	assert_int_equal(lines, 20);
	assert_int_equal(summaries, 1);
	assert_int_equal(untold, 0);
	for (size_t i = 0; i < MANY; i++)
		taker_free(&takers[i]);
	assert_true(site_close(&site));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(margins),
		cmocka_unit_test(silent_for_a_second),
		cmocka_unit_test(answers_apart),
		cmocka_unit_test(down_for_a_second),
		cmocka_unit_test(no_lease_no_renewal),
		cmocka_unit_test(suspended),
		cmocka_unit_test(lost),
		cmocka_unit_test(grace),
		cmocka_unit_test(grace_at_umount),
		cmocka_unit_test(lost_in_sleep),
		cmocka_unit_test(lost_in_sleep_and_asked),
		cmocka_unit_test(grant_too_late),
		cmocka_unit_test(grant_of_the_session_before),
		cmocka_unit_test(lost_with_connection),
		cmocka_unit_test(unreachable),
		cmocka_unit_test(long_outage),
		cmocka_unit_test(log_of_losses),
		cmocka_unit_test(silent),
		cmocka_unit_test(claim_here),
		cmocka_unit_test(claim_elsewhere),
		cmocka_unit_test(claim_elsewhere_dies),
		cmocka_unit_test(claim_taken_over),
		cmocka_unit_test(claim_dead),
		cmocka_unit_test(claim_dead_but_alive),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
