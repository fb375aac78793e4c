/* SPDX-License-Identifier: Apache-2.0 */
/* Leaderships. See suite.h. */
#include "tests/conformance/suite.h"

static void test_leaders(void)
{
	const char *g = fresh("g");
	if (skip_unless(COORD_CAN_GROUPS))
		return;
	struct client *reader = can(COORD_CAN_LIST_ALL) ? &t.b : &t.a;
	const char *id = can(COORD_CAN_LEADER_ID) ? coord_config_of(t.a.coord)->member : NULL;
	const char *next = id ? "worker" : NULL;
	struct taker *a = taker(&t.a, COORD_LEADER, g), *b = taker(&t.b, COORD_LEADER, g);
	CHECK_R(taker_lock(a, COORD_EXCLUSIVE, 0, QUICK_MS), -ENOENT);
	CHECK_R(client_group_create(&t.a, g), 0);
	CHECK_SOON(shows_held(&t.b, COORD_LEADER, g, false, NULL));
	CHECK_R(taker_lock(a, COORD_EXCLUSIVE, COORD_LOCK_WAIT, QUICK_MS), 0);
	CHECK_R(taker_lock(b, COORD_EXCLUSIVE, 0, QUICK_MS), -EAGAIN);
	CHECK_R(taker_check(a), 0);
	CHECK_SOON(shows_held(&t.b, COORD_LEADER, g, true, id));
	CHECK_SOON(!id || shows_leader(&t.b, g, id));
	CHECK_SOON(lists(reader, COORD_LEADER, g, 1));
	/* The next one leads under another id. */
	CHECK_R(client_member_put(&t.b, g, "worker", COORD_BYTES("\xc0"), true), 0);
	CHECK_R(coord_holding_set_leader(b->holding, COORD_BYTES("worker")), 0);
	taker_ask(b, COORD_EXCLUSIVE, COORD_LOCK_WAIT);
	world_run(&t.target.world, 300);
	CHECK(!b->answered);
	uint64_t start = now();
	CHECK_R(taker_unlock(a), 0);
	CHECK_R(taker_answer(b, QUICK_MS), 0);
	CHECK(now() - start <= handover_ms());
	CHECK_SOON(shows_held(&t.a, COORD_LEADER, g, true, next));
	CHECK_R(taker_unlock(b), 0);
	drop(a);
	drop(b);
	CHECK_R(client_member_leave(&t.b, g, "worker"), 0);
	CHECK_R(client_group_delete(&t.a, g), 0);
}

/* Whoever led, and whether it left in order or not: the group can be removed and made again, and has no
 * leader then. */
static void test_group_goes(void)
{
	const char *g = fresh("g");
	if (skip_unless(COORD_CAN_GROUPS))
		return;
	CHECK_R(client_group_create(&t.a, g), 0);
	struct taker *a = taker(&t.a, COORD_LEADER, g), *b = taker(&t.b, COORD_LEADER, g);
	CHECK_R(taker_lock(a, COORD_EXCLUSIVE, 0, QUICK_MS), 0);
	taker_ask(b, COORD_EXCLUSIVE, COORD_LOCK_WAIT);
	world_run(&t.target.world, 200);
	CHECK_R(taker_unlock(a), 0);
	CHECK_R(taker_answer(b, QUICK_MS), 0);
	CHECK_R(taker_unlock(b), 0);
	CHECK_R(client_group_delete(&t.a, g), 0);
	CHECK_R(client_group_create(&t.b, g), 0);
	CHECK_SOON(shows_held(&t.a, COORD_LEADER, g, false, NULL));
	/* Removed under a leader, or refused because of it. */
	CHECK_R(taker_lock(a, COORD_EXCLUSIVE, 0, QUICK_MS), 0);
	int r = client_group_delete(&t.b, g);
	CHECK(r == 0 || r == -ENOTEMPTY || r == -EBUSY);
	CHECK_R(taker_unlock(a), 0);
	if (r)
		CHECK_R(client_group_delete(&t.b, g), 0);
	CHECK_R(client_group_read(&t.a, g, false, NULL), -ENOENT);
	CHECK_R(client_group_create(&t.a, g), 0);
	CHECK_R(taker_lock(b, COORD_EXCLUSIVE, COORD_LOCK_WAIT, QUICK_MS), 0);
	CHECK_R(taker_unlock(b), 0);
	drop(a);
	drop(b);
	CHECK_R(client_group_delete(&t.a, g), 0);
}

/* A leader that was broken is told, and the next leads. */
static void test_leader_break(void)
{
	const char *g = fresh("g");
	if (skip_unless(COORD_CAN_GROUPS | COORD_CAN_BREAK))
		return;
	CHECK_R(client_group_create(&t.a, g), 0);
	struct taker *a = taker(&t.a, COORD_LEADER, g), *b = taker(&t.b, COORD_LEADER, g);
	CHECK_R(taker_lock(a, COORD_EXCLUSIVE, 0, QUICK_MS), 0);
	uint64_t token = coord_holding_token(a->holding);
	CHECK_R(client_lock_break(&t.b, COORD_LEADER, g), 0);
	CHECK(world_until(&t.target.world, is_lost, a, notice_ms()));
	CHECK_R(taker_lock(b, COORD_EXCLUSIVE, COORD_LOCK_WAIT, QUICK_MS), 0);
	CHECK(coord_holding_token(b->holding) > token);
	drop(a);
	drop(b);
	CHECK_R(client_group_delete(&t.a, g), 0);
}

const struct test tests_leaders[] = {
	{"leaders", test_leaders},
	{"group-goes", test_group_goes},
	{"leader-break", test_leader_break},
	{0},
};
