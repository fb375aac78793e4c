/* SPDX-License-Identifier: Apache-2.0 */
/* Locks. See suite.h. */
#include "tests/conformance/suite.h"

static void test_exclusive(void)
{
	const char *l = fresh("l");
	struct taker *a = taker(&t.a, COORD_LOCK, l), *b = taker(&t.b, COORD_LOCK, l);
	CHECK_R(taker_lock(a, COORD_EXCLUSIVE, 0, QUICK_MS), 0);
	CHECK_R(taker_check(a), 0);
	CHECK_R(taker_lock(b, COORD_EXCLUSIVE, 0, QUICK_MS), -EAGAIN);
	CHECK_R(taker_lock(b, COORD_EXCLUSIVE, COORD_LOCK_SHORT, QUICK_MS), -EAGAIN);
	CHECK(coord_holding_state(b->holding) == COORD_FREE);
	uint64_t token = coord_holding_token(a->holding);
	CHECK_R(taker_unlock(a), 0);
	CHECK_R(taker_check(a), -EBADF);
	CHECK_R(taker_lock(b, COORD_EXCLUSIVE, 0, QUICK_MS), 0);
	CHECK(coord_holding_token(b->holding) > token);
	token = coord_holding_token(b->holding);
	CHECK_R(taker_unlock(b), 0);
	CHECK_R(taker_lock(b, COORD_EXCLUSIVE, 0, QUICK_MS), 0);
	CHECK(coord_holding_token(b->holding) > token);
	CHECK_R(taker_unlock(b), 0);
	CHECK_R(taker_barrier(b), 0);
	drop(a);
	drop(b);
}

static void test_wait(void)
{
	const char *l = fresh("l");
	struct taker *a = taker(&t.a, COORD_LOCK, l), *b = taker(&t.b, COORD_LOCK, l);
	CHECK_R(taker_lock(a, COORD_EXCLUSIVE, COORD_LOCK_WAIT, QUICK_MS), 0);
	taker_ask(b, COORD_EXCLUSIVE, COORD_LOCK_WAIT);
	world_run(&t.target.world, 300);
	CHECK(!b->answered);
	/* Waiting is no polling, where a notice or the backend's queue can end it. */
	unsigned calls = t.lock_calls;
	world_run(&t.target.world, 2500);
	CHECK(!b->answered);
	if (can(COORD_CAN_QUEUE) || can(COORD_CAN_NOTIFY))
		CHECK(t.lock_calls - calls <= 5);
	uint64_t start = now();
	coord_unlock(a->holding, NULL, NULL);
	CHECK_R(taker_answer(b, QUICK_MS), 0);
	if (b->answered && b->answered_ms - start > handover_ms())
		FAIL("a release was seen after %llu ms",
			(unsigned long long)(b->answered_ms - start));
	/* Back and forth. */
	start = now();
	for (int i = 0; i < 40 && !t.failed; i++) {
		struct taker *has = i % 2 ? a : b, *gets = i % 2 ? b : a;
		taker_ask(gets, COORD_EXCLUSIVE, COORD_LOCK_WAIT);
		uint64_t token = coord_holding_token(has->holding);
		CHECK_R(taker_unlock(has), 0);
		CHECK_R(taker_answer(gets, QUICK_MS), 0);
		CHECK(coord_holding_token(gets->holding) > token);
	}
	CHECK(now() - start < 40 * handover_ms() / 2);
	/* A waiter that goes away gets nothing, and leaves nothing in the way. */
	struct taker *has = taker_holds(a, COORD_NONE) ? a : b, *other = has == a ? b : a;
	taker_ask(other, COORD_EXCLUSIVE, COORD_LOCK_WAIT);
	world_run(&t.target.world, 200);
	taker_cancel(other, false);
	world_run(&t.target.world, 200);
	CHECK_R(taker_unlock(has), 0);
	world_run(&t.target.world, 500);
	CHECK(!taker_holds(other, COORD_NONE));
	CHECK_R(taker_lock(has, COORD_EXCLUSIVE, 0, QUICK_MS), 0);
	drop(a);
	drop(b);
}

static void test_shared(void)
{
	const char *l = fresh("l");
	struct taker *a = taker(&t.a, COORD_LOCK, l), *b = taker(&t.b, COORD_LOCK, l);
	struct taker *w = taker(&t.b, COORD_LOCK, l);
	if (!can(COORD_CAN_SHARED)) {
		CHECK_R(taker_lock(a, COORD_SHARED, 0, QUICK_MS), -EOPNOTSUPP);
		t.skipped = true;
	} else {
		CHECK_R(taker_lock(w, COORD_EXCLUSIVE, 0, QUICK_MS), 0);
		uint64_t before = coord_holding_token(w->holding);
		CHECK_R(taker_lock(a, COORD_SHARED, 0, QUICK_MS), -EAGAIN);
		CHECK_R(taker_unlock(w), 0);
		CHECK_R(taker_lock(a, COORD_SHARED, COORD_LOCK_WAIT, QUICK_MS), 0);
		CHECK_R(taker_lock(b, COORD_SHARED, COORD_LOCK_WAIT, QUICK_MS), 0);
		uint64_t shared = coord_holding_token(a->holding);
		CHECK(shared > before && coord_holding_token(b->holding) > before);
		if (coord_holding_token(b->holding) > shared)
			shared = coord_holding_token(b->holding);
		CHECK_R(taker_lock(w, COORD_EXCLUSIVE, 0, QUICK_MS), -EAGAIN);
		CHECK_R(taker_check(a), 0);
		CHECK_R(taker_check(b), 0);
		taker_ask(w, COORD_EXCLUSIVE, COORD_LOCK_WAIT);
		CHECK_R(taker_unlock(b), 0);
		world_run(&t.target.world, 300);
		CHECK(!w->answered);
		uint64_t start = now();
		CHECK_R(taker_unlock(a), 0);
		CHECK_R(taker_answer(w, QUICK_MS), 0);
		CHECK(now() - start <= handover_ms());
		CHECK(coord_holding_token(w->holding) > shared);
		/* Readers that wait go together when the writer lets go. */
		taker_ask(a, COORD_SHARED, COORD_LOCK_WAIT);
		taker_ask(b, COORD_SHARED, COORD_LOCK_WAIT);
		world_run(&t.target.world, 200);
		CHECK_R(taker_unlock(w), 0);
		CHECK_R(taker_answer(a, QUICK_MS), 0);
		CHECK_R(taker_answer(b, QUICK_MS), 0);
	}
	drop(a);
	drop(b);
	drop(w);
}

static void test_convert(void)
{
	const char *l = fresh("l");
	struct taker *a = taker(&t.a, COORD_LOCK, l), *b = taker(&t.b, COORD_LOCK, l);
	unsigned flags = COORD_LOCK_ATOMIC;
	if (!skip_unless(COORD_CAN_SHARED)) {
		CHECK_R(taker_lock(a, COORD_SHARED, flags, QUICK_MS), 0);
		if (!can(COORD_CAN_CONVERT)) {
			CHECK_R(taker_lock(a, COORD_EXCLUSIVE, flags, QUICK_MS), -ENOLCK);
			CHECK(taker_holds(a, COORD_SHARED));
			t.skipped = true;
		}
	}
	if (can(COORD_CAN_SHARED | COORD_CAN_CONVERT)) {
		uint64_t token = coord_holding_token(a->holding);
		CHECK_R(taker_lock(a, COORD_EXCLUSIVE, flags, QUICK_MS), 0);
		CHECK(taker_holds(a, COORD_EXCLUSIVE) && coord_holding_token(a->holding) > token);
		CHECK_R(taker_lock(b, COORD_SHARED, flags, QUICK_MS), -EAGAIN);
		CHECK_R(taker_lock(a, COORD_SHARED, flags, QUICK_MS), 0);
		CHECK(taker_holds(a, COORD_SHARED));
		CHECK_R(taker_lock(a, COORD_EXCLUSIVE, flags, QUICK_MS), 0);
		CHECK_R(taker_unlock(a), 0);
		CHECK_R(taker_lock(a, COORD_SHARED, flags, QUICK_MS), 0);
		CHECK_R(taker_lock(b, COORD_SHARED, flags, QUICK_MS), 0);
		CHECK_R(taker_lock(a, COORD_EXCLUSIVE, flags, QUICK_MS), -EAGAIN);
		CHECK(taker_holds(a, COORD_SHARED));
		CHECK_R(taker_check(a), 0);
		taker_ask(a, COORD_EXCLUSIVE, flags | COORD_LOCK_WAIT);
		world_run(&t.target.world, 300);
		CHECK(!a->answered);
		CHECK_R(taker_unlock(b), 0);
		CHECK_R(taker_answer(a, QUICK_MS), 0);
		CHECK(taker_holds(a, COORD_EXCLUSIVE));
	}
	drop(a);
	drop(b);
	/* flock(2) lets go first. */
	a = taker(&t.a, COORD_LOCK, l);
	b = taker(&t.b, COORD_LOCK, l);
	if (can(COORD_CAN_SHARED)) {
		CHECK_R(taker_lock(a, COORD_SHARED, COORD_LOCK_WAIT, QUICK_MS), 0);
		CHECK_R(taker_lock(a, COORD_EXCLUSIVE, COORD_LOCK_WAIT, QUICK_MS), 0);
		CHECK_R(taker_lock(b, COORD_SHARED, 0, QUICK_MS), -EAGAIN);
		CHECK_R(taker_lock(a, COORD_SHARED, COORD_LOCK_WAIT, QUICK_MS), 0);
		CHECK_R(taker_lock(b, COORD_SHARED, COORD_LOCK_WAIT, QUICK_MS), 0);
		CHECK_R(taker_lock(a, COORD_EXCLUSIVE, 0, QUICK_MS), -EAGAIN);
		CHECK(coord_holding_state(a->holding) == COORD_FREE);
	}
	drop(a);
	drop(b);
}

static void test_break(void)
{
	const char *l = fresh("l");
	struct taker *a = taker(&t.a, COORD_LOCK, l), *b = taker(&t.b, COORD_LOCK, l);
	CHECK_R(taker_lock(a, COORD_EXCLUSIVE, 0, QUICK_MS), 0);
	int r = client_lock_break(&t.b, COORD_LOCK, l);
	if (!can(COORD_CAN_BREAK)) {
		CHECK(r == -EOPNOTSUPP || r == -EBUSY);
		t.skipped = true;
	} else {
		CHECK_R(r, 0);
		/* Told by a notice, or found out by the next renewal. */
		CHECK(world_until(&t.target.world, is_lost, a, notice_ms()));
		CHECK(a->lost == 1);
		CHECK_R(taker_check(a), -EIO);
		CHECK_R(taker_lock(b, COORD_EXCLUSIVE, COORD_LOCK_WAIT, QUICK_MS), 0);
		CHECK_R(taker_lock(a, COORD_EXCLUSIVE, 0, QUICK_MS), -EIO);
		CHECK_R(taker_unlock(a), 0);
		CHECK_R(taker_check(b), 0);
		CHECK_R(taker_lock(a, COORD_EXCLUSIVE, 0, QUICK_MS), -EAGAIN);
		CHECK_R(client_lock_break(&t.a, COORD_LOCK, fresh("none")), -ENOENT);
		/* One's own, too. */
		CHECK_R(client_lock_break(&t.b, COORD_LOCK, l), 0);
		CHECK(world_until(&t.target.world, is_lost, b, notice_ms()));
	}
	drop(a);
	drop(b);
}

static void test_look(void)
{
	const char *l = fresh("l");
	struct coord_lock_info info = {0};
	char owner[256] = "";
	struct taker *a = taker(&t.a, COORD_LOCK, l);
	CHECK_R(client_lock_look(&t.b, COORD_LOCK, l, &info, owner), 0);
	CHECK(!info.held);
	CHECK_R(taker_lock(a, COORD_EXCLUSIVE, 0, QUICK_MS), 0);
	CHECK_R(client_lock_look(&t.a, COORD_LOCK, l, &info, owner), 0);
	CHECK(info.held && info.local && info.mode == COORD_EXCLUSIVE);
	CHECK(info.token == coord_holding_token(a->holding));
	CHECK_SOON(shows_held(&t.b, COORD_LOCK, l, true, NULL));
	CHECK_R(client_lock_look(&t.b, COORD_LOCK, l, &info, owner), 0);
	CHECK(info.held && !info.local && info.mode == COORD_EXCLUSIVE);
	CHECK(!info.token || info.token == coord_holding_token(a->holding));
	CHECK(!info.owner.len ||
		coord_bytes_equal(info.owner, coord_bytes_of(coord_config_of(t.a.coord)->member)));
	drop(a);
}

/* What is shown without asking is not older than the notice about it. */
struct peek {
	const char *name;
	bool held;
};

static bool peek_is(void *user)
{
	struct peek *peek = user;
	struct coord_lock_info info;
	int r = coord_lock_peek(t.b.coord, COORD_LOCK, coord_bytes_of(peek->name), &info);
	return r == -EAGAIN || (r == 0 && info.held == peek->held);
}

static void test_watch(void)
{
	struct peek peek = {fresh("l"), false};
	struct coord_lock_info info;
	char owner[256];
	struct taker *a = taker(&t.a, COORD_LOCK, peek.name);
	if (!skip_unless(COORD_CAN_NOTIFY)) {
		for (int i = 0; i < 6 && !t.failed; i++) {
			CHECK_R(client_lock_look(&t.b, COORD_LOCK, peek.name, &info, owner), 0);
			CHECK(info.held == (i % 2 == 1));
			peek.held = !info.held;
			if (info.held)
				CHECK_R(taker_unlock(a), 0);
			else
				CHECK_R(taker_lock(a, COORD_EXCLUSIVE, 0, QUICK_MS), 0);
			CHECK(world_until(&t.target.world, peek_is, &peek, notice_ms()));
		}
	}
	drop(a);
}

static void test_list(void)
{
	enum { MANY = 300 }; /* more than any page */
	struct taker *takers[MANY];
	struct answer a;
	struct client *reader = can(COORD_CAN_LIST_ALL) ? &t.b : &t.a;
	for (size_t i = 0; i < MANY; i++) {
		takers[i] = taker(&t.a, COORD_LOCK, fresh("many"));
		taker_ask(takers[i], COORD_EXCLUSIVE, 0);
	}
	for (size_t i = 0; i < MANY; i++)
		CHECK_R(taker_answer(takers[i], QUICK_MS), 0);
	CHECK_SOON(lists(reader, COORD_LOCK, "many-", MANY));
	CHECK_R(client_lock_list(reader, COORD_LOCK, &a), 0);
	CHECK(a.len >= MANY);
	for (size_t i = 0; i < a.len; i++)
		for (size_t j = 0; j < i; j++)
			CHECK(!coord_bytes_equal(a.rows[i].name, a.rows[j].name));
	answer_done(&a);
	for (size_t i = 0; i < MANY; i++)
		CHECK_R(taker_unlock(takers[i]), 0);
	CHECK_SOON(lists(reader, COORD_LOCK, "many-", 0));
	for (size_t i = 0; i < MANY; i++)
		drop(takers[i]);
}

/* Many on both sides: one at a time, each once, tokens in the order of holding. */
static void test_many(void)
{
	enum { EACH = 12 };
	const char *l = fresh("l");
	struct taker *takers[2 * EACH];
	uint64_t token = 0, start = now();
	for (size_t i = 0; i < LEN(takers); i++) {
		takers[i] = taker(i % 2 ? &t.a : &t.b, COORD_LOCK, l);
		taker_ask(takers[i], COORD_EXCLUSIVE, COORD_LOCK_WAIT);
	}
	for (size_t served = 0; served < LEN(takers) && now() - start < 60000;) {
		struct taker *holder = NULL;
		size_t holders = 0;
		for (size_t i = 0; i < LEN(takers); i++) {
			if (!taker_holds(takers[i], COORD_NONE))
				continue;
			holder = takers[i];
			holders++;
		}
		CHECK(holders <= 1);
		if (!holder) {
			world_run(&t.target.world, 1);
			continue;
		}
		CHECK(holder->token > token);
		token = holder->token;
		coord_unlock(holder->holding, NULL, NULL);
		served++;
	}
	for (size_t i = 0; i < LEN(takers); i++) {
		CHECK(takers[i]->answers == 1 && takers[i]->status == 0);
		drop(takers[i]);
	}
}

const struct test tests_locks[] = {
	{"exclusive", test_exclusive},
	{"wait", test_wait},
	{"shared", test_shared},
	{"convert", test_convert},
	{"break", test_break},
	{"look", test_look},
	{"watch", test_watch},
	{"list", test_list},
	{"many", test_many},
	{0},
};
