/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every driver must do, tried through the core with two coordinators on the real loop.
 *
 *   conformance [-o NAME=VALUE]... URL [TEST...]
 *
 * For URL see target.h. Tests are skipped by what the driver declares, never by its name. Exit status:
 * 0 all passed, 1 some failed, 77 the backend is not there.
 *
 * Names carry the process id and a count, so that a shared server may be used, and used again.
 */
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

#include "tests/conformance/target.h"

#define LEN(array) (sizeof(array) / sizeof(*(array)))

enum { HANDOVER_MS = 2000, QUICK_MS = 15000, NAME_LEN = 256, NAMES_MAX = 1024 };

static struct {
	struct target target;
	const struct coord_driver *real; /* the target's */
	struct coord_driver shim; /* the same, with its lock calls counted */
	unsigned lock_calls;
	struct client a, b;
	unsigned names;
	bool failed, skipped;
	char dead_member[64], dead_lock[64], dead_group[64];
} t;

#define FAIL(...)                                                                                  \
	do {                                                                                       \
		fprintf(stderr, "  %s:%d: ", __FILE__, __LINE__);                                  \
		fprintf(stderr, __VA_ARGS__);                                                      \
		fputc('\n', stderr);                                                               \
		t.failed = true;                                                                   \
	} while (0)
/* A failed check is told, and the test goes on: it must clean up. */
#define CHECK(condition)                                                                           \
	do {                                                                                       \
		if (!(condition))                                                                  \
			FAIL("%s", #condition);                                                    \
	} while (0)
#define CHECK_R(call, expected)                                                                    \
	do {                                                                                       \
		int r_ = (call), e_ = (expected);                                                  \
		if (r_ != e_)                                                                      \
			FAIL("%s: %d (%s), not %d", #call, r_, strerror(-r_), e_);                 \
	} while (0)

static bool can(unsigned what)
{
	return (t.real->can & what) == what;
}

static bool skip_unless(unsigned what)
{
	if (!can(what))
		t.skipped = true;
	return !can(what);
}

/* A name that nobody used before; valid for the whole run. */
static const char *fresh(const char *stem)
{
	static char names[NAMES_MAX][NAME_LEN];
	if (t.names == NAMES_MAX)
		abort();
	char *name = names[t.names++];
	snprintf(name, NAME_LEN, "%s-%d-%u", stem, (int)getpid(), t.names);
	return name;
}

/* ---- Opening ---- */

static void shim_lock(struct coord_session *session, struct coord_op *op)
{
	t.lock_calls++;
	t.real->lock(session, op);
}

static struct coord_config *config(const char *member)
{
	/* The fake knows its servers by their drivers: no shim there. */
	return target_config(&t.target, t.target.fake ? NULL : &t.shim, member);
}

static bool world_open(void)
{
	if (!target_open(&t.target))
		return false;
	t.real = t.target.driver;
	t.shim = *t.real;
	t.shim.lock = shim_lock;
	return true;
}

static int open_as(struct client *client, const char *member)
{
	return client_open(client, &t.target.world, t.target.world.loop, config(member));
}

static struct taker *taker(struct client *client, enum coord_kind kind, const char *name)
{
	struct taker *ret = malloc(sizeof(*ret));
	if (!ret || taker_new(client, kind, coord_bytes_of(name), ret))
		abort();
	return ret;
}

static void drop(struct taker *taker)
{
	taker_free(taker);
	free(taker);
}

static uint64_t now(void)
{
	return coord_now_ms(t.target.world.loop);
}

/* ---- Sessions ---- */

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
	struct answer a;
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
	CHECK_R(client_group_read(&t.b, g, false, &a), 0);
	CHECK(a.len == 0);
	answer_done(&a);
	CHECK_R(client_group_delete(&t.b, g), 0);
}

/* ---- Groups and members ---- */

static void test_groups(void)
{
	const char *g = fresh("g"), *none = fresh("none");
	struct answer a;
	if (skip_unless(COORD_CAN_GROUPS))
		return;
	CHECK_R(client_group_read(&t.a, none, false, NULL), -ENOENT);
	CHECK_R(client_group_delete(&t.a, none), -ENOENT);
	CHECK_R(client_group_create(&t.a, g), 0);
	CHECK_R(client_group_create(&t.a, g), -EEXIST);
	CHECK_R(client_group_create(&t.b, g), -EEXIST);
	CHECK_R(client_group_list(&t.b, &a), 0);
	CHECK(answer_find(&a, g, false) && !answer_find(&a, none, false));
	answer_done(&a);
	CHECK_R(client_group_read(&t.b, g, true, &a), 0);
	CHECK(a.len == 0);
	answer_done(&a);
	CHECK_R(client_member_put(&t.a, g, "x", COORD_BYTES("\xc0"), true), 0);
	CHECK_R(client_group_delete(&t.a, g), -ENOTEMPTY);
	CHECK_R(client_group_delete(&t.b, g), -ENOTEMPTY);
	CHECK_R(client_member_leave(&t.a, g, "x"), 0);
	CHECK_R(client_group_delete(&t.b, g), 0);
	CHECK_R(client_group_read(&t.a, g, false, NULL), -ENOENT);
	CHECK_R(client_group_list(&t.a, &a), 0);
	CHECK(!answer_find(&a, g, false));
	answer_done(&a);
}

static void test_members(void)
{
	const char *g = fresh("g");
	struct coord_bytes nil = COORD_BYTES("\xc0"), map = COORD_BYTES("\x81\xa1w\x02");
	struct answer a;
	if (skip_unless(COORD_CAN_GROUPS))
		return;
	CHECK_R(client_member_put(&t.a, g, "x", nil, true), -ENOENT);
	CHECK_R(client_group_create(&t.a, g), 0);
	CHECK_R(client_member_get(&t.a, g, "x", NULL), -ENOENT);
	CHECK_R(client_member_leave(&t.a, g, "x"), -ENOENT);
	CHECK_R(client_member_put(&t.a, g, "x", nil, true), 0);
	CHECK_R(client_member_put(&t.a, g, "x", nil, true), -EEXIST);
	CHECK_R(client_member_put(&t.b, g, "x", nil, true), -EEXIST);
	CHECK_R(client_member_put(&t.b, g, "x", nil, false), -EACCES);
	CHECK_R(client_member_leave(&t.b, g, "x"), -EACCES);
	CHECK_R(client_member_put(&t.b, g, "y", map, false), 0);
	CHECK_R(client_group_read(&t.a, g, true, &a), 0);
	CHECK(a.len == 2 && answer_find(&a, "x", false) && answer_find(&a, "y", false));
	if (a.len == 2)
		CHECK(coord_bytes_equal(answer_find(&a, "y", false)->data, map));
	answer_done(&a);
	CHECK_R(client_member_put(&t.a, g, "x", map, false), 0);
	CHECK_R(client_member_get(&t.b, g, "x", &a), 0);
	CHECK(a.len == 1 && coord_bytes_equal(a.rows[0].data, map));
	answer_done(&a);
	/* A mount's own id is its own, whoever joined under it. */
	const char *own = coord_config_of(t.a.coord)->member;
	CHECK_R(client_member_put(&t.a, g, own, nil, true), 0);
	CHECK_R(client_member_leave(&t.a, g, own), 0);
	CHECK_R(client_member_leave(&t.a, g, "x"), 0);
	CHECK_R(client_member_get(&t.b, g, "x", NULL), -ENOENT);
	CHECK_R(client_member_leave(&t.b, g, "y"), 0);
	CHECK_R(client_group_delete(&t.a, g), 0);
}

/* Bytes in, the same bytes out. */
static void capabilities(const char *group, struct coord_bytes data)
{
	struct answer a;
	CHECK_R(client_member_put(&t.a, group, "x", data, false), 0);
	CHECK_R(client_member_get(&t.b, group, "x", &a), 0);
	CHECK(a.len == 1 && coord_bytes_equal(a.rows[0].data, data));
	CHECK(a.len == 1 && !(a.rows[0].flags & COORD_ROW_BAD_DATA));
	answer_done(&a);
}

static void test_capabilities(void)
{
	const char *g = fresh("g");
	if (skip_unless(COORD_CAN_GROUPS))
		return;
	CHECK_R(client_group_create(&t.a, g), 0);
	static char bytes[5 + 100000];
	/* bin 8 of all bytes, then bin 32 of many. */
	bytes[0] = (char)0xc4;
	bytes[1] = (char)0xff;
	for (int i = 0; i < 255; i++)
		bytes[2 + i] = (char)i;
	capabilities(g, (struct coord_bytes){bytes, 257});
	memcpy(bytes, "\xc6\x00\x01\x86\xa0", 5);
	for (size_t i = 5; i < sizeof(bytes); i++)
		bytes[i] = (char)(i * 7);
	if (!t.real->value_max || t.real->value_max >= sizeof(bytes))
		capabilities(g, (struct coord_bytes){bytes, sizeof(bytes)});
	capabilities(g, COORD_BYTES("\xc0"));
	capabilities(g, COORD_BYTES("\xc4\x00"));
	capabilities(g, COORD_BYTES("\x81\xa6weight\x02"));
	if (t.real->value_max) {
		size_t len = (size_t)t.real->value_max + 1;
		_cleanup_free_ char *big = calloc(1, len);
		CHECK_R(client_member_put(&t.a, g, "x", (struct coord_bytes){big, len}, false),
			-EFBIG);
	}
	CHECK_R(client_member_leave(&t.a, g, "x"), 0);
	CHECK_R(client_group_delete(&t.a, g), 0);
}

/* ---- Names ---- */

static bool refused(int r)
{
	return r == -EINVAL || r == -ENAMETOOLONG;
}

static void name_of_lock(const char *name)
{
	struct taker one, two;
	struct coord_bytes bytes = coord_bytes_of(name);
	int r = taker_new(&t.a, COORD_LOCK, bytes, &one);
	if (refused(r))
		return;
	CHECK_R(r, 0);
	CHECK_R(taker_new(&t.b, COORD_LOCK, bytes, &two), 0);
	CHECK_R(taker_lock(&one, COORD_EXCLUSIVE, 0, QUICK_MS), 0);
	CHECK_R(taker_lock(&two, COORD_EXCLUSIVE, 0, QUICK_MS), -EAGAIN);
	if (can(COORD_CAN_LIST_ALL)) {
		struct answer a;
		CHECK_R(client_lock_list(&t.b, COORD_LOCK, &a), 0);
		CHECK(answer_find(&a, name, false));
		answer_done(&a);
	}
	taker_free(&one);
	taker_free(&two);
}

static void name_of_group(const char *name)
{
	struct answer a;
	int r = client_group_create(&t.a, name);
	if (refused(r))
		return;
	CHECK_R(r, 0);
	CHECK_R(client_group_list(&t.b, &a), 0);
	CHECK(answer_find(&a, name, false));
	answer_done(&a);
	CHECK_R(client_group_delete(&t.b, name), 0);
}

static void name_of_member(const char *group, const char *name)
{
	struct answer a;
	int r = client_member_put(&t.a, group, name, COORD_BYTES("\xc0"), true);
	if (refused(r))
		return;
	CHECK_R(r, 0);
	CHECK_R(client_group_read(&t.b, group, false, &a), 0);
	CHECK(a.len == 1 && answer_find(&a, name, false));
	answer_done(&a);
	CHECK_R(client_member_get(&t.b, group, name, NULL), 0);
	CHECK_R(client_member_leave(&t.a, group, name), 0);
}

/* Each is either refused, as a name, or is itself everywhere. */
static void test_names(void)
{
	static const char *const odd[] = {"%s", "with blank %s", "UPPER-%s", ".%s", "%%%s",
		"a/b-%s", "\xc3\xa9-%s", "\xff\xfe-%s", "\x01\x7f-%s", "'\"\\-%s", "%s\n", "*?[%s",
		"%s..", "__lock__%s", "-%s"};
	const char *g = fresh("g");
	char name[600], filled[600];
	if (can(COORD_CAN_GROUPS))
		CHECK_R(client_group_create(&t.a, g), 0);
	for (size_t i = 0; i < LEN(odd); i++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		snprintf(name, sizeof(name), odd[i], fresh("n"));
#pragma GCC diagnostic pop
		bool before = t.failed;
		name_of_lock(name);
		if (can(COORD_CAN_GROUPS)) {
			name_of_group(name);
			name_of_member(g, name);
		}
		if (t.failed && !before)
			FAIL("so it went with the name '%s'", name);
	}
	/* Up to the longest that any file name can be, and beyond. */
	for (size_t len = 60; len <= 520; len += len < 200 || len > 260 ? 70 : 5) {
		memset(filled, 'x', len);
		filled[len] = 0;
		memcpy(filled, fresh("n"), strlen(fresh("n")));
		name_of_lock(filled);
		if (can(COORD_CAN_GROUPS)) {
			name_of_group(filled);
			name_of_member(g, filled);
		}
	}
	struct taker none;
	CHECK_R(taker_new(&t.a, COORD_LOCK, (struct coord_bytes){"", 0}, &none), -EINVAL);
	CHECK_R(client_group_create(&t.a, ""), -EINVAL);
	if (can(COORD_CAN_GROUPS))
		CHECK_R(client_group_delete(&t.a, g), 0);
}

/* ---- Locks ---- */

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

/* How long a waiter may take to see a release. */
static uint64_t handover_ms(void)
{
	if (can(COORD_CAN_QUEUE) || can(COORD_CAN_NOTIFY))
		return HANDOVER_MS;
	return HANDOVER_MS + 3 * (uint64_t)t.real->poll_ms;
}

static void test_wait(void)
{
	const char *l = fresh("l");
	struct taker *a = taker(&t.a, COORD_LOCK, l), *b = taker(&t.b, COORD_LOCK, l);
	CHECK_R(taker_lock(a, COORD_EXCLUSIVE, COORD_LOCK_WAIT, QUICK_MS), 0);
	taker_ask(b, COORD_EXCLUSIVE, COORD_LOCK_WAIT);
	world_run(&t.target.world, 500);
	CHECK(!b->answered);
	/* Waiting is no polling, where a notice or the backend's queue can end it. */
	unsigned calls = t.lock_calls;
	world_run(&t.target.world, 4000);
	CHECK(!b->answered);
	if (can(COORD_CAN_QUEUE) || can(COORD_CAN_NOTIFY))
		CHECK(t.lock_calls - calls <= 8);
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

static bool is_lost(void *user)
{
	return coord_holding_state(((struct taker *)user)->holding) == COORD_HOLDING_LOST;
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
		CHECK(world_until(
			&t.target.world, is_lost, a, can(COORD_CAN_NOTIFY) ? HANDOVER_MS : 10000));
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
		CHECK(world_until(&t.target.world, is_lost, b, HANDOVER_MS));
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
	world_run(&t.target.world, 300);
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
			CHECK(world_until(&t.target.world, peek_is, &peek, HANDOVER_MS));
		}
	}
	drop(a);
}

static void test_list(void)
{
	enum { MANY = 60 };
	struct taker *takers[MANY];
	struct answer a;
	struct client *reader = can(COORD_CAN_LIST_ALL) ? &t.b : &t.a;
	for (size_t i = 0; i < MANY; i++) {
		takers[i] = taker(&t.a, COORD_LOCK, fresh("many"));
		taker_ask(takers[i], COORD_EXCLUSIVE, 0);
	}
	for (size_t i = 0; i < MANY; i++)
		CHECK_R(taker_answer(takers[i], QUICK_MS), 0);
	CHECK_R(client_lock_list(reader, COORD_LOCK, &a), 0);
	CHECK(a.len >= MANY);
	for (size_t i = 0; i < a.len; i++)
		for (size_t j = 0; j < i; j++)
			CHECK(!coord_bytes_equal(a.rows[i].name, a.rows[j].name));
	size_t found = 0;
	for (size_t i = 0; i < a.len; i++)
		found += a.rows[i].name.len > 5 && memcmp(a.rows[i].name.data, "many-", 5) == 0;
	CHECK(found == MANY);
	answer_done(&a);
	for (size_t i = 0; i < MANY; i++)
		CHECK_R(taker_unlock(takers[i]), 0);
	CHECK_R(client_lock_list(reader, COORD_LOCK, &a), 0);
	for (size_t i = 0; i < a.len; i++)
		CHECK(a.rows[i].name.len <= 5 || memcmp(a.rows[i].name.data, "many-", 5) != 0);
	answer_done(&a);
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

/* ---- Leaders ---- */

static void test_leaders(void)
{
	const char *g = fresh("g");
	struct coord_lock_info info = {0};
	char owner[256] = "";
	struct answer list;
	if (skip_unless(COORD_CAN_GROUPS))
		return;
	struct taker *a = taker(&t.a, COORD_LEADER, g), *b = taker(&t.b, COORD_LEADER, g);
	CHECK_R(taker_lock(a, COORD_EXCLUSIVE, 0, QUICK_MS), -ENOENT);
	CHECK_R(client_group_create(&t.a, g), 0);
	CHECK_R(client_lock_look(&t.b, COORD_LEADER, g, &info, owner), 0);
	CHECK(!info.held);
	CHECK_R(taker_lock(a, COORD_EXCLUSIVE, COORD_LOCK_WAIT, QUICK_MS), 0);
	CHECK_R(taker_lock(b, COORD_EXCLUSIVE, 0, QUICK_MS), -EAGAIN);
	CHECK_R(taker_check(a), 0);
	world_run(&t.target.world, 300);
	CHECK_R(client_lock_look(&t.b, COORD_LEADER, g, &info, owner), 0);
	CHECK(info.held);
	if (can(COORD_CAN_LEADER_ID)) {
		const char *id = coord_config_of(t.a.coord)->member;
		CHECK(coord_bytes_equal(info.owner, coord_bytes_of(id)));
		CHECK_R(client_group_read(&t.b, g, false, &list), 0);
		CHECK(answer_find(&list, id, true));
		answer_done(&list);
	}
	CHECK_R(client_lock_list(can(COORD_CAN_LIST_ALL) ? &t.b : &t.a, COORD_LEADER, &list), 0);
	CHECK(answer_find(&list, g, false));
	answer_done(&list);
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
	world_run(&t.target.world, 300);
	CHECK_R(client_lock_look(&t.a, COORD_LEADER, g, &info, owner), 0);
	CHECK(info.held);
	if (can(COORD_CAN_LEADER_ID))
		CHECK(coord_bytes_equal(info.owner, COORD_BYTES("worker")));
	CHECK_R(taker_unlock(b), 0);
	drop(a);
	drop(b);
	CHECK_R(client_member_leave(&t.b, g, "worker"), 0);
	CHECK_R(client_group_delete(&t.a, g), 0);
}

/* ---- Running ---- */

static const struct test {
	const char *name;
	void (*fn)(void);
} tests[] = {
	{"session", test_session},
	{"claim", test_claim},
	{"killed", test_killed},
	{"stop", test_stop},
	{"groups", test_groups},
	{"members", test_members},
	{"capabilities", test_capabilities},
	{"names", test_names},
	{"exclusive", test_exclusive},
	{"wait", test_wait},
	{"shared", test_shared},
	{"convert", test_convert},
	{"break", test_break},
	{"look", test_look},
	{"watch", test_watch},
	{"list", test_list},
	{"many", test_many},
	{"leaders", test_leaders},
};

/* In a process of its own: takes a lock, joins, and dies of it. Tells through the pipe that it holds. */
static void die_holding(int fd)
{
	struct client client;
	if (!world_open() || open_as(&client, t.dead_member))
		_exit(1);
	struct taker *l = taker(&client, COORD_LOCK, t.dead_lock);
	if (taker_lock(l, COORD_EXCLUSIVE, 0, QUICK_MS))
		_exit(1);
	if (can(COORD_CAN_GROUPS) && (client_group_create(&client, t.dead_group) ||
					     client_member_put(&client, t.dead_group, t.dead_member,
						     COORD_BYTES("\xc0"), true)))
		_exit(1);
	if (write(fd, "h", 1) != 1)
		_exit(1);
	raise(SIGKILL);
}

static bool fork_dead(void)
{
	int fds[2], status;
	char told = 0;
	snprintf(t.dead_member, sizeof(t.dead_member), "dead-%d", (int)getpid());
	snprintf(t.dead_lock, sizeof(t.dead_lock), "dead-lock-%d", (int)getpid());
	snprintf(t.dead_group, sizeof(t.dead_group), "dead-group-%d", (int)getpid());
	if (pipe2(fds, 0) < 0)
		return false;
	pid_t pid = fork();
	if (pid == 0) {
		close(fds[0]);
		die_holding(fds[1]);
		_exit(1);
	}
	close(fds[1]);
	bool well = read(fds[0], &told, 1) == 1;
	close(fds[0]);
	return waitpid(pid, &status, 0) == pid && well;
}

static bool run(const struct test *test)
{
	char member[2][64];
	t.failed = t.skipped = false;
	for (int i = 0; i < 2; i++)
		snprintf(member[i], sizeof(member[i]), "conf-%c-%d", 'a' + i, (int)getpid());
	uint64_t start = now();
	CHECK_R(open_as(&t.a, member[0]), 0);
	CHECK_R(open_as(&t.b, member[1]), 0);
	if (!t.failed)
		test->fn();
	CHECK(client_close(&t.a));
	CHECK(client_close(&t.b));
	printf("%-7s %s (%llu ms)\n",
		t.failed    ? "FAILED"
		: t.skipped ? "partly"
			    : "ok",
		test->name, (unsigned long long)(now() - start));
	fflush(stdout);
	return !t.failed;
}

static bool wanted(const char *name, char *const *names)
{
	if (!*names)
		return true;
	for (; *names; names++)
		if (strcmp(*names, name) == 0)
			return true;
	return false;
}

int main(int argc, char **argv)
{
	char *const *names;
	int r = target_parse(&t.target, argc, argv, &names);
	if (r)
		return r;
	if (!fork_dead()) {
		fprintf(stderr, "%s: no such backend here\n", t.target.url);
		return 77;
	}
	if (!world_open())
		return 1;
	unsigned failed = 0;
	for (size_t i = 0; i < LEN(tests); i++)
		if (wanted(tests[i].name, names) && !run(&tests[i]))
			failed++;
	target_close(&t.target);
	if (failed)
		printf("%u failed\n", failed);
	return failed ? 1 : 0;
}
