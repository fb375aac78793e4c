/* SPDX-License-Identifier: Apache-2.0 */
/* Memberships through the core on a virtual clock. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/lib/site.h"

static struct site site;
#define SIM (&site.sim)
#define M0 (&site.clients[0])
#define M1 (&site.clients[1])

static const struct coord_bytes nil = COORD_BYTES("\xc0"), map = COORD_BYTES("\x80");

static void open_two(void)
{
	struct fake_options options = site_options();
	site_open(&site, 1, &options, 2);
	assert_int_equal(client_group_create(M0, "g"), 0);
}

/* Empties the group and closes. */
static void close_two(void)
{
	client_group_delete(M0, "g");
	assert_true(site_close(&site));
}

static void join_and_leave(void **state)
{
	(void)state;
	struct answer a;
	open_two();
	assert_int_equal(client_member_put(M0, "none", "x", nil, false), -ENOENT);
	assert_int_equal(client_member_get(M0, "g", "x", &a), -ENOENT);
	assert_int_equal(client_member_put(M0, "g", "x", nil, true), 0);
	assert_int_equal(client_member_put(M0, "g", "x", nil, true), -EEXIST);
	assert_int_equal(client_member_put(M1, "g", "x", nil, true), -EEXIST);
	assert_int_equal(client_member_put(M1, "g", "x", nil, false), -EACCES);
	assert_int_equal(client_member_leave(M1, "g", "x"), -EACCES);
	assert_int_equal(client_member_leave(M0, "g", "y"), -ENOENT);
	assert_int_equal(client_group_delete(M0, "g"), -ENOTEMPTY);
	/* An update of ours, seen by the other. */
	assert_int_equal(client_member_put(M0, "g", "x", map, false), 0);
	assert_int_equal(client_member_get(M1, "g", "x", &a), 0);
	assert_int_equal(a.len, 1);
	assert_true(coord_bytes_equal(a.rows[0].data, map));
	answer_done(&a);
	assert_int_equal(client_member_put(M1, "g", "z", nil, false), 0);
	assert_int_equal(client_group_read(M0, "g", true, &a), 0);
	assert_int_equal(a.len, 2);
	assert_non_null(answer_find(&a, "z", false));
	assert_true(coord_bytes_equal(answer_find(&a, "x", false)->data, map));
	answer_done(&a);
	assert_true(coord_member_ours(M0->coord, COORD_BYTES("g"), COORD_BYTES("x")));
	assert_true(coord_member_ours(M0->coord, COORD_BYTES("g"), COORD_BYTES("m0")));
	assert_false(coord_member_ours(M0->coord, COORD_BYTES("g"), COORD_BYTES("z")));
	assert_int_equal(client_member_leave(M0, "g", "x"), 0);
	assert_int_equal(client_member_leave(M0, "g", "x"), -ENOENT);
	assert_int_equal(client_member_leave(M1, "g", "z"), 0);
	assert_int_equal(client_group_delete(M0, "g"), 0);
	assert_int_equal(client_group_delete(M0, "g"), -ENOENT);
	close_two();
}

static void remembered(void **state)
{
	(void)state;
	struct coord_membership_info info;
	struct coord_bytes g = COORD_BYTES("g"), x = COORD_BYTES("x");
	open_two();
	assert_false(coord_membership_find(M0->coord, g, x, &info));
	assert_int_equal(client_member_put(M0, "g", "x", map, true), 0);
	assert_true(coord_membership_find(M0->coord, g, x, &info));
	assert_int_equal(info.uid, 1000);
	assert_true(coord_bytes_equal(info.data, map));
	assert_true(info.joined_us && info.joined_us <= info.updated_us);
	uint64_t joined_us = info.joined_us;
	sim_run(SIM, 1000);
	assert_int_equal(client_member_put(M0, "g", "x", nil, false), 0);
	assert_true(coord_membership_find(M0->coord, g, x, &info));
	assert_true(coord_bytes_equal(info.data, nil));
	assert_int_equal(info.joined_us, joined_us);
	assert_true(info.updated_us >= joined_us + 1000000);
	assert_int_equal(client_member_leave(M0, "g", "x"), 0);
	assert_false(coord_membership_find(M0->coord, g, x, &info));
	close_two();
}

/* Calls for one member are carried out in order, though their requests may overtake each other. */
static void in_order(void **state)
{
	(void)state;
	struct fake_options options = site_options();
	options.can &= ~(unsigned)COORD_CAN_ORDERED;
	for (uint64_t seed = 1; seed <= 30; seed++) {
		struct answer puts[8] = {{0}}, a;
		site_open(&site, seed, &options, 2);
		assert_int_equal(client_group_create(M0, "g"), 0);
		fake_server_options(site.server)->faults.delay_ms = 30;
		for (int i = 0; i < 8; i++) {
			char data = (char)i;
			int r = i == 4 ? coord_member_leave(M0->coord, COORD_BYTES("g"),
						 COORD_BYTES("x"), answer_reply, &puts[i], NULL)
				       : coord_member_put(M0->coord, COORD_BYTES("g"),
						 COORD_BYTES("x"), (struct coord_bytes){&data, 1},
						 false, 1, answer_reply, &puts[i], NULL);
			assert_int_equal(r, 0);
		}
		sim_run(SIM, 2000);
		for (int i = 0; i < 8; i++) {
			assert_int_equal(puts[i].count, 1);
			assert_int_equal(puts[i].status, 0);
			answer_done(&puts[i]);
		}
		assert_int_equal(client_member_get(M1, "g", "x", &a), 0);
		assert_int_equal(a.rows[0].data.len, 1);
		assert_int_equal(a.rows[0].data.data[0], 7);
		answer_done(&a);
		assert_int_equal(client_member_leave(M0, "g", "x"), 0);
		close_two();
	}
}

static bool connected(void *user)
{
	(void)user;
	return coord_state(M0->coord) == COORD_CONNECTED;
}

/* After a loss the members come back with what they could do last. */
static void rejoin(void **state)
{
	(void)state;
	struct answer a;
	open_two();
	assert_int_equal(client_member_put(M0, "g", "x", nil, true), 0);
	assert_int_equal(client_member_put(M0, "g", "y", nil, true), 0);
	assert_int_equal(client_member_put(M0, "g", "x", map, false), 0);
	fake_break(site.server, "m0", 40000);
	sim_run(SIM, 20000);
	assert_int_equal(coord_state(M0->coord), COORD_LOST);
	assert_int_equal(client_group_read(M1, "g", true, &a), 0);
	assert_int_equal(a.len, 0);
	answer_done(&a);
	assert_true(sim_run_until(SIM, connected, NULL, 60000));
	sim_run(SIM, 2000);
	assert_int_equal(client_group_read(M1, "g", true, &a), 0);
	assert_int_equal(a.len, 2);
	assert_true(coord_bytes_equal(answer_find(&a, "x", false)->data, map));
	assert_true(coord_bytes_equal(answer_find(&a, "y", false)->data, nil));
	answer_done(&a);
	/* They are leased, and stay. */
	sim_run(SIM, 60000);
	assert_int_equal(client_group_read(M1, "g", false, &a), 0);
	assert_int_equal(a.len, 2);
	answer_done(&a);
	assert_int_equal(client_member_leave(M0, "g", "x"), 0);
	assert_int_equal(client_member_leave(M0, "g", "y"), 0);
	close_two();
}

/* The host stood still: the old epoch's members may still be there when it comes back. */
static void rejoin_over_the_old(void **state)
{
	(void)state;
	struct answer a;
	open_two();
	assert_int_equal(client_member_put(M0, "g", "x", map, true), 0);
	sim_pause(&site.hosts[0], true);
	sim_run(SIM, 9000); /* past our own limit, before the server's */
	sim_pause(&site.hosts[0], false);
	sim_run(SIM, 30000);
	assert_int_equal(coord_state(M0->coord), COORD_CONNECTED);
	assert_int_equal(client_group_read(M1, "g", true, &a), 0);
	assert_int_equal(a.len, 1);
	assert_true(coord_bytes_equal(a.rows[0].data, map));
	answer_done(&a);
	assert_int_equal(client_member_put(M0, "g", "x", nil, false), 0);
	assert_int_equal(client_member_leave(M0, "g", "x"), 0);
	close_two();
}

/* Somebody else took the name meanwhile: it is his. */
static void rejoin_taken(void **state)
{
	(void)state;
	struct answer a;
	open_two();
	assert_int_equal(client_member_put(M0, "g", "x", nil, true), 0);
	fake_break(site.server, "m0", 40000);
	sim_run(SIM, 20000);
	assert_int_equal(client_member_put(M1, "g", "x", map, true), 0);
	assert_true(sim_run_until(SIM, connected, NULL, 60000));
	sim_run(SIM, 5000);
	assert_int_equal(client_member_get(M0, "g", "x", &a), 0);
	assert_true(coord_bytes_equal(a.rows[0].data, map));
	answer_done(&a);
	assert_false(coord_member_ours(M0->coord, COORD_BYTES("g"), COORD_BYTES("x")));
	assert_int_equal(client_member_put(M0, "g", "x", nil, false), -EACCES);
	assert_int_equal(client_member_leave(M1, "g", "x"), 0);
	close_two();
}

/* A member that was left during the loss does not come back. */
static void left_while_lost(void **state)
{
	(void)state;
	struct answer a;
	open_two();
	assert_int_equal(client_member_put(M0, "g", "x", nil, true), 0);
	fake_break(site.server, "m0", 40000);
	sim_run(SIM, 20000);
	int r = client_member_leave(M0, "g", "x");
	assert_true(sim_run_until(SIM, connected, NULL, 60000));
	sim_run(SIM, 10000);
	assert_int_equal(client_group_read(M1, "g", false, &a), 0);
	/* Either it was done, or it was said that it is not known. */
	if (r == 0)
		assert_int_equal(a.len, 0);
	else
		assert_true(r == -EHOSTDOWN || r == -ETIMEDOUT);
	answer_done(&a);
	client_member_leave(M0, "g", "x");
	close_two();
}

/* Left for good, a member does not come back from an outage, at whichever time of it that was asked;
 * and does if it is joined again after that. */
static void left_for_good(void **state)
{
	(void)state;
	static const struct {
		uint64_t before_ms, down_ms, again_ms; /* again_ms: 0: it is not joined again */
	} cases[] = {{0, 3000, 0}, {0, 40000, 0}, {500, 40000, 0}, {9000, 40000, 0},
		{20000, 40000, 0}, {500, 3000, 500}, {500, 14000, 9500}, {10500, 14000, 500}};
	const struct coord_bytes g = COORD_BYTES("g"), x = COORD_BYTES("x");
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct answer a, left = {0}, joined = {0};
		struct coord_membership_info info;
		open_two();
		assert_int_equal(
			coord_member_forgo(M0->coord, g, x, answer_reply, &left, NULL), -ENOENT);
		assert_int_equal(client_member_put(M0, "g", "x", nil, true), 0);
		fake_break(site.server, "m0", cases[i].down_ms);
		sim_run(SIM, cases[i].before_ms);
		assert_int_equal(coord_member_forgo(M0->coord, g, x, answer_reply, &left, NULL), 0);
		if (coord_membership_find(M0->coord, g, x, &info))
			assert_true(info.leaving);
		sim_run(SIM, cases[i].again_ms);
		if (cases[i].again_ms)
			assert_int_equal(coord_member_put(M0->coord, g, x, map, false, 1,
						 answer_reply, &joined, NULL),
				0);
		sim_run(SIM, cases[i].down_ms - cases[i].before_ms - cases[i].again_ms + 1000);
		assert_true(sim_run_until(SIM, connected, NULL, 60000));
		sim_run(SIM, 10000);
		assert_int_equal(left.count, 1);
		assert_int_equal(client_group_read(M1, "g", true, &a), 0);
		assert_int_equal(a.len, cases[i].again_ms != 0);
		assert_int_equal(coord_membership_find(M0->coord, g, x, &info), a.len);
		if (a.len) {
			assert_true(coord_bytes_equal(a.rows[0].data, map));
			assert_int_equal(client_member_leave(M0, "g", "x"), 0);
		}
		answer_done(&a);
		answer_done(&left);
		answer_done(&joined);
		close_two();
	}
}

/* A leave that was answered as done is done, though the session is lost while it is under way. */
static void left_and_lost(void **state)
{
	(void)state;
	for (uint64_t after_ms = 0; after_ms < 12000; after_ms += 500) {
		struct answer a;
		open_two();
		assert_int_equal(client_member_put(M0, "g", "x", nil, true), 0);
		fake_break(site.server, "m0", 12000);
		sim_run(SIM, after_ms);
		int r = client_member_leave(M0, "g", "x");
		assert_true(sim_run_until(SIM, connected, NULL, 60000));
		sim_run(SIM, 10000);
		assert_int_equal(client_group_read(M1, "g", false, &a), 0);
		if (r == 0)
			assert_int_equal(a.len, 0);
		answer_done(&a);
		client_member_leave(M0, "g", "x");
		close_two();
	}
}

/* A mount may change and remove what bears its own id, though an earlier process of it joined. */
static void own_id(void **state)
{
	(void)state;
	struct answer a;
	open_two();
	assert_int_equal(client_member_put(M1, "g", "m0", nil, true), 0);
	assert_int_equal(client_member_put(M0, "g", "m0", map, true), -EEXIST);
	assert_int_equal(client_member_put(M0, "g", "m0", map, false), 0);
	assert_int_equal(client_member_get(M1, "g", "m0", &a), 0);
	assert_true(coord_bytes_equal(a.rows[0].data, map));
	answer_done(&a);
	assert_int_equal(client_member_leave(M0, "g", "m0"), 0);
	assert_int_equal(client_member_get(M1, "g", "m0", &a), -ENOENT);
	close_two();
}

static void left_at_stop(void **state)
{
	(void)state;
	struct answer a;
	open_two();
	assert_int_equal(client_member_put(M0, "g", "x", nil, true), 0);
	assert_int_equal(client_member_put(M0, "g", "m0", nil, true), 0);
	assert_int_equal(client_member_put(M1, "g", "z", nil, true), 0);
	assert_true(client_close(M0));
	/* Each is left: not every backend forgets them with the session. */
	assert_int_equal(fake_server_ops(site.server, COORD_CALL_MEMBER_LEAVE), 2);
	assert_int_equal(client_group_read(M1, "g", false, &a), 0);
	assert_int_equal(a.len, 1);
	assert_non_null(answer_find(&a, "z", false));
	answer_done(&a);
	assert_int_equal(client_member_leave(M1, "g", "z"), 0);
	assert_int_equal(client_group_delete(M1, "g"), 0);
	assert_true(site_close(&site));
}

/* An answer that is lost does not make a join fail, or be made twice. */
static void unsure(void **state)
{
	(void)state;
	struct fake_options options = site_options();
	for (uint64_t seed = 1; seed <= 200; seed++) {
		struct answer a;
		site_open(&site, seed, &options, 2);
		assert_int_equal(client_group_create(M0, "g"), 0);
		struct fake_faults *faults = &fake_server_options(site.server)->faults;
		*faults = (struct fake_faults){.delay_ms = 10, .unknown = 300, .lost = 100};
		assert_int_equal(client_member_put(M0, "g", "x", nil, true), 0);
		assert_int_equal(client_member_put(M0, "g", "x", map, false), 0);
		assert_int_equal(client_member_put(M0, "g", "y", map, true), 0);
		assert_int_equal(client_member_leave(M0, "g", "y"), 0);
		assert_int_equal(client_group_create(M0, "h"), 0);
		assert_int_equal(client_group_delete(M0, "h"), 0);
		*faults = (struct fake_faults){0};
		assert_int_equal(client_group_read(M1, "g", true, &a), 0);
		assert_int_equal(a.len, 1);
		assert_true(coord_bytes_equal(a.rows[0].data, map));
		answer_done(&a);
		assert_int_equal(client_member_leave(M0, "g", "x"), 0);
		close_two();
	}
}

/* Asks for a membership whose answer is lost, and stops in the moment in which the server has it. false: the request was
 * lost, too. */
static bool join_unanswered(struct answer *ret)
{
	struct fake_faults *faults = &fake_server_options(site.server)->faults;
	faults->unknown = 1000;
	assert_int_equal(coord_member_put(M0->coord, COORD_BYTES("g"), COORD_BYTES("x"), nil, true,
				 1, answer_reply, ret, NULL),
		0);
	for (int i = 0; i < 10; i++) {
		if (fake_joined(site.server, "m0", COORD_BYTES("g"), COORD_BYTES("x")))
			break;
		sim_step(SIM, sim_now_ms(SIM));
	}
	faults->unknown = 0;
	return fake_joined(site.server, "m0", COORD_BYTES("g"), COORD_BYTES("x"));
}

static bool knows_x(void)
{
	struct coord_membership_info info;
	return coord_membership_find(M0->coord, COORD_BYTES("g"), COORD_BYTES("x"), &info);
}

/* What became of a join is known in the end, also when its request had to be answered before. */
static void settled_late(void **state)
{
	(void)state;
	struct fake_options options = site_options();
	options.ttl_ms = 60000;
	unsigned seen = 0;
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct answer a = {0};
		site_open(&site, seed, &options, 2);
		assert_int_equal(client_group_create(M0, "g"), 0);
		if (join_unanswered(&a)) {
			seen++;
			sim_pause(&site.server_host, true);
			sim_run(SIM, 11000);
			assert_int_equal(a.count, 1);
			assert_int_equal(a.status, -ETIMEDOUT);
			fake_break(site.server, "m0", 100);
			sim_run(SIM, 1000);
			sim_pause(&site.server_host, false);
			sim_run(SIM, 5000);
			assert_int_equal(knows_x(),
				fake_joined(site.server, "m0", COORD_BYTES("g"), COORD_BYTES("x")));
			/* And whoever was told that it timed out has not joined. */
			sim_run(SIM, 30000);
			assert_false(knows_x());
			assert_false(
				fake_joined(site.server, "m0", COORD_BYTES("g"), COORD_BYTES("x")));
		}
		sim_run(SIM, 15000);
		client_member_leave(M0, "g", "x");
		close_two();
	}
	assert_true(seen > 0);
}

/* The look that settles a join does not make the lease of the member longer. */
static void look_renews_not(void **state)
{
	(void)state;
	unsigned seen = 0;
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct answer a = {0};
		struct coord_session_info info;
		struct fake_options options = site_options();
		site_open(&site, seed, &options, 2);
		assert_int_equal(client_group_create(M0, "g"), 0);
		if (join_unanswered(&a)) {
			seen++;
			sim_pause(&site.hosts[0], true);
			sim_run(SIM, 5000);
			sim_pause(&site.hosts[0], false);
			sim_run(SIM, 100);
			assert_true(knows_x());
			coord_session_info(M0->coord, &info);
			assert_in_range(info.left_ms, 1, 10000 - info.margin_ms - 5000);
		}
		sim_run(SIM, 15000);
		client_member_leave(M0, "g", "x");
		close_two();
	}
	assert_true(seen > 0);
}

/* Where members belong to connections, one that was joined by the last one ends with it. */
static void of_the_old_connection(void **state)
{
	(void)state;
	struct fake_options options = site_options();
	options.lock_loss = options.member_loss = COORD_LOSS_CONNECTION;
	for (uint64_t seed = 1; seed <= 60; seed++) {
		struct answer a = {0};
		site_open(&site, seed, &options, 2);
		assert_int_equal(client_group_create(M0, "g"), 0);
		join_unanswered(&a);
		fake_server_options(site.server)->faults.notice_ms = 300;
		fake_break(site.server, "m0", 0);
		sim_run(SIM, 5000);
		assert_int_equal(a.count, 1);
		assert_int_equal(a.status, 0);
		assert_true(knows_x());
		assert_true(fake_joined(site.server, "m0", COORD_BYTES("g"), COORD_BYTES("x")));
		fake_server_options(site.server)->faults.notice_ms = 0;
		assert_int_equal(client_member_leave(M0, "g", "x"), 0);
		close_two();
	}
}

/* Lists come in pages, and whole. */
static void pages(void **state)
{
	(void)state;
	struct answer a;
	open_two();
	char name[2] = "a";
	for (name[0] = 'a'; name[0] <= 'f'; name[0]++)
		assert_int_equal(client_group_create(M0, name), name[0] == 'g' ? -EEXIST : 0);
	assert_int_equal(client_group_list(M1, &a), 0);
	assert_int_equal(a.len, 7);
	for (name[0] = 'a'; name[0] <= 'g'; name[0]++)
		assert_non_null(answer_find(&a, name, false));
	answer_done(&a);
	for (name[0] = 'a'; name[0] <= 'f'; name[0]++)
		assert_int_equal(client_group_delete(M1, name), 0);
	close_two();
}

/* A group's existence is known while its watch is silent, and only that: never that there is none. */
static void existence(void **state)
{
	(void)state;
	const struct coord_bytes g = COORD_BYTES("g"), none = COORD_BYTES("none");
	open_two();
	assert_int_equal(coord_group_peek(M1->coord, g), -EAGAIN);
	assert_int_equal(client_group_look(M1, "g"), 0);
	sim_run(SIM, 500);
	assert_int_equal(coord_group_peek(M1->coord, g), 0);
	/* A notice of any change means to look again. */
	assert_int_equal(client_member_put(M0, "g", "x", nil, true), 0);
	sim_run(SIM, 500);
	assert_int_equal(coord_group_peek(M1->coord, g), -EAGAIN);
	assert_int_equal(client_group_look(M1, "g"), 0);
	assert_int_equal(coord_group_peek(M1->coord, g), 0);
	assert_int_equal(client_member_leave(M0, "g", "x"), 0);
	assert_int_equal(client_group_delete(M0, "g"), 0);
	sim_run(SIM, 500);
	assert_int_equal(coord_group_peek(M1->coord, g), -EAGAIN);
	assert_int_equal(client_group_look(M1, "g"), -ENOENT);
	assert_int_equal(coord_group_peek(M1->coord, g), -EAGAIN);
	/* The mount's own changes count at once. */
	assert_int_equal(client_group_create(M1, "g"), 0);
	assert_int_equal(client_group_look(M1, "g"), 0);
	assert_int_equal(client_group_delete(M1, "g"), 0);
	assert_int_equal(coord_group_peek(M1->coord, g), -EAGAIN);
	assert_int_equal(client_group_look(M1, "none"), -ENOENT);
	assert_int_equal(coord_group_peek(M1->coord, none), -EAGAIN);
	assert_int_equal(coord_group_peek(M1->coord, COORD_BYTES("")), -EINVAL);
	close_two();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(join_and_leave),
		cmocka_unit_test(remembered),
		cmocka_unit_test(in_order),
		cmocka_unit_test(rejoin),
		cmocka_unit_test(rejoin_over_the_old),
		cmocka_unit_test(rejoin_taken),
		cmocka_unit_test(left_while_lost),
		cmocka_unit_test(left_for_good),
		cmocka_unit_test(left_and_lost),
		cmocka_unit_test(own_id),
		cmocka_unit_test(left_at_stop),
		cmocka_unit_test(unsure),
		cmocka_unit_test(settled_late),
		cmocka_unit_test(look_renews_not),
		cmocka_unit_test(of_the_old_connection),
		cmocka_unit_test(pages),
		cmocka_unit_test(existence),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
