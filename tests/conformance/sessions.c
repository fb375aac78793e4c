/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions: opening, member ids, the end. See suite.h. */
#include "tests/conformance/suite.h"

static void test_session(void)
{
	struct coord_session_info info;
	coord_session_info(t.a.coord, &info);
	CHECK(coord_state(t.a.coord) == COORD_CONNECTED);
	CHECK(info.id && info.id[0]);
	CHECK(info.epoch > 0);
	bool leased = t.real->loss[COORD_LOCK] == COORD_LOSS_LEASE ||
		      t.real->loss[COORD_MEMBER] == COORD_LOSS_LEASE;
	CHECK((info.ttl_ms > 0) == leased);
	CHECK(!leased || (info.left_ms > 0 && info.left_ms < info.ttl_ms));
	CHECK(coord_characteristic_name(0));
}

static void test_claim(void)
{
	struct client other;
	const char *member = coord_config_of(t.a.coord)->member;
	CHECK_R(open_as(&other, member), -EEXIST);
	CHECK(strstr(other.text, "member="));
	/* The first one is not disturbed. */
	world_run(&t.target.world, 200);
	CHECK(coord_state(t.a.coord) == COORD_CONNECTED);
	/* An observer claims nothing. */
	struct coord_config *observer = config(member);
	observer->read_only = true;
	CHECK_R(client_open(&other, &t.target.world, t.target.world.loop, observer), 0);
	client_close(&other);
	/* It is free at once when its owner has stopped. */
	_cleanup_free_ char *copy = strdup(member);
	CHECK(client_close(&t.a));
	CHECK_R(open_as(&other, copy), 0);
	CHECK(client_close(&other));
}

/* A process that held everything was killed: its id is taken over at once, the rest is free by the rule of
 * its kind of loss. */
static void test_killed(void)
{
	struct client other;
	struct answer a;
	uint64_t start = now();
	CHECK_R(open_as(&other, t.dead_member), 0);
	if (other.status)
		return;
	CHECK(now() - start < 5000);
	struct taker *l = taker(&other, COORD_LOCK, t.dead_lock);
	CHECK_R(taker_lock(l, COORD_EXCLUSIVE, COORD_LOCK_WAIT, 40000), 0);
	drop(l);
	if (can(COORD_CAN_GROUPS)) {
		/* A stale membership of our own id may be replaced. */
		int r = client_group_create(&other, t.dead_group);
		CHECK(r == 0 || r == -EEXIST);
		CHECK_R(client_member_put(
				&other, t.dead_group, t.dead_member, COORD_BYTES("\xc0"), false),
			0);
		CHECK_R(client_group_read(&other, t.dead_group, true, &a), 0);
		CHECK(a.len == 1 && answer_find(&a, t.dead_member, false));
		answer_done(&a);
		CHECK_R(client_member_leave(&other, t.dead_group, t.dead_member), 0);
		CHECK_R(client_group_delete(&other, t.dead_group), 0);
	}
	CHECK(client_close(&other));
}

static void test_stop(void)
{
	const char *l = fresh("l"), *s = fresh("s"), *g = fresh("g");
	struct taker *held = taker(&t.a, COORD_LOCK, l), *shared = NULL, *leader = NULL;
	struct taker *waiting = taker(&t.a, COORD_LOCK, l);
	CHECK_R(taker_lock(held, COORD_EXCLUSIVE, 0, QUICK_MS), 0);
	taker_ask(waiting, COORD_EXCLUSIVE, COORD_LOCK_WAIT);
	if (can(COORD_CAN_SHARED)) {
		shared = taker(&t.a, COORD_LOCK, s);
		CHECK_R(taker_lock(shared, COORD_SHARED, 0, QUICK_MS), 0);
	}
	if (can(COORD_CAN_GROUPS)) {
		CHECK_R(client_group_create(&t.a, g), 0);
		CHECK_R(client_member_put(&t.a, g, "x", COORD_BYTES("\xc0"), true), 0);
		leader = taker(&t.a, COORD_LEADER, g);
		CHECK_R(taker_lock(leader, COORD_EXCLUSIVE, 0, QUICK_MS), 0);
	}
	coord_stop(t.a.coord);
	CHECK(world_flag(&t.target.world, &t.a.stopped, QUICK_MS));
	CHECK(held->lost == 1 && coord_holding_state(held->holding) == COORD_HOLDING_LOST);
	CHECK(waiting->answers == 1 && waiting->status == -ESHUTDOWN);
	drop(held);
	drop(waiting);
	if (shared)
		drop(shared);
	if (leader)
		drop(leader);
	coord_free(t.a.coord);
	t.a.coord = NULL;
	/* All is free now, and not a TTL later. */
	struct taker *next = taker(&t.b, COORD_LOCK, l);
	CHECK_R(taker_lock(next, COORD_EXCLUSIVE, 0, QUICK_MS), 0);
	drop(next);
	next = taker(&t.b, COORD_LOCK, s);
	CHECK_R(taker_lock(next, COORD_EXCLUSIVE, 0, QUICK_MS), 0);
	drop(next);
	if (!can(COORD_CAN_GROUPS))
		return;
	CHECK_SOON(shows_group(&t.b, g, 0, NULL));
	CHECK_R(client_group_delete(&t.b, g), 0);
}

const struct test tests_sessions[] = {
	{"session", test_session},
	{"claim", test_claim},
	{"killed", test_killed},
	{"stop", test_stop},
	{0},
};
