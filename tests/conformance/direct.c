/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every driver must do, asked of its calls directly: two sessions of the core are used as hosts, and
 * what the driver reports to them (changed, contended, lost) is caught on its way, see the linker's
 * --wrap in meson.build.
 *
 *   direct [-r] [-o NAME=VALUE]... URL [TEST...]
 */
#include <assert.h>
#include <stdio.h>

#include "coord/core.h"
#include "tests/conformance/target.h"

#define LEN(array) (sizeof(array) / sizeof(*(array)))

enum { ANSWER_MS = 15000, NOTICE_MS = 3000 };

void __wrap_coord_changed(struct coord_session *, struct coord_key, uint64_t revision);
void __wrap_coord_grant_lost(
	struct coord_session *, struct coord_key, const uint8_t owner[16], uint32_t epoch);
void __wrap_coord_grant_contended(
	struct coord_session *, struct coord_key, const uint8_t owner[16], uint32_t epoch);

void __real_coord_grant_renewed(
	struct coord_session *, struct coord_grant *, uint64_t sent_ms, uint64_t ttl_ms);
void __wrap_coord_grant_renewed(
	struct coord_session *, struct coord_grant *, uint64_t sent_ms, uint64_t ttl_ms);

/* One session, and what it was told. */
struct side {
	struct client client;
	char member[64];
	bool changed[COORD_KINDS], contended, lost;
	unsigned changes, renewals;
	uint8_t owner[16]; /* of what was lost or contended */
};

static struct {
	struct target target;
	struct side a, b;
	bool failed;
	unsigned names;
} t;

#define CHECK(condition)                                                                           \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "  %s:%d: %s\n", __FILE__, __LINE__, #condition);          \
			t.failed = true;                                                           \
		}                                                                                  \
	} while (0)
#define CHECK_R(call, expected)                                                                    \
	do {                                                                                       \
		int r_ = (call), e_ = (expected);                                                  \
		if (r_ != e_) {                                                                    \
			fprintf(stderr, "  %s:%d: %s: %d (%s), not %d\n", __FILE__, __LINE__,      \
				#call, r_, strerror(-r_), e_);                                     \
			t.failed = true;                                                           \
		}                                                                                  \
	} while (0)

static bool can(unsigned what)
{
	const struct coord *coord = t.a.client.coord;
	return ((coord ? coord->session.can : t.target.driver->can) & what) == what;
}

/* ---- Notices ---- */

static struct side *side_of(struct coord_session *session)
{
	if (t.a.client.coord && session == &t.a.client.coord->session)
		return &t.a;
	return &t.b;
}

void __wrap_coord_changed(struct coord_session *session, struct coord_key key, uint64_t revision)
{
	(void)revision;
	struct side *side = side_of(session);
	side->changed[key.kind] = true;
	side->changes++;
}

void __wrap_coord_grant_lost(struct coord_session *session, struct coord_key key,
	const uint8_t owner[16], uint32_t epoch)
{
	(void)key;
	(void)epoch;
	struct side *side = side_of(session);
	side->lost = true;
	memcpy(side->owner, owner, 16);
}

void __wrap_coord_grant_contended(struct coord_session *session, struct coord_key key,
	const uint8_t owner[16], uint32_t epoch)
{
	(void)key;
	(void)epoch;
	struct side *side = side_of(session);
	side->contended = true;
	memcpy(side->owner, owner, 16);
}

void __wrap_coord_grant_renewed(
	struct coord_session *session, struct coord_grant *grant, uint64_t sent_ms, uint64_t ttl_ms)
{
	CHECK(ttl_ms > 0 && sent_ms <= coord_now_ms(t.target.world.loop));
	side_of(session)->renewals++;
	__real_coord_grant_renewed(session, grant, sent_ms, ttl_ms);
}

static bool told(bool *flag)
{
	bool ret = world_flag(&t.target.world, flag, NOTICE_MS);
	*flag = false;
	return ret;
}

/* Nothing comes for a while. */
static bool silent(bool *flag)
{
	world_run(&t.target.world, 300);
	return !*flag;
}

/* What was said before is heard, and forgotten. */
static void settle(void)
{
	world_run(&t.target.world, 100);
	for (int k = 0; k < COORD_KINDS; k++)
		t.a.changed[k] = t.b.changed[k] = false;
	t.a.contended = t.b.contended = t.a.lost = t.b.lost = false;
}

/* ---- Calls ---- */

/* An op with its answer, kept until the next call of the same side. */
struct call {
	struct coord_op *op;
	bool done;
};

static void call_done(struct coord_op *op, void *user)
{
	struct call *call = user;
	assert(!call->done && call->op == op);
	call->done = true;
}

static struct coord_op *op_new(struct side *side, enum coord_call call, enum coord_kind kind,
	const char *name, const char *member, struct coord_bytes data)
{
	struct coord_key key = {kind, coord_bytes_of(name)};
	struct coord_op *op = core_op_new(
		side->client.coord, call, key, coord_bytes_of(member ? member : ""), data);
	assert(op);
	op->deadline_ms = coord_now_ms(t.target.world.loop) + ANSWER_MS;
	return op;
}

/* Runs the op; the answer stays in it. Free it. */
static int op_run(struct coord_op *op)
{
	struct call call = {.op = op};
	core_op_start(op, call_done, &call);
	if (!world_flag(&t.target.world, &call.done, ANSWER_MS)) {
		fprintf(stderr, "  call %d was not answered\n", op->call);
		exit(1);
	}
	return op->status;
}

static int call_simple(struct side *side, enum coord_call call, enum coord_kind kind,
	const char *name, unsigned flags, size_t *ret_rows)
{
	struct coord_op *op = op_new(side, call, kind, name, NULL, COORD_BYTES(""));
	op->flags = flags;
	int r = op_run(op);
	if (ret_rows)
		*ret_rows = op->rows_len;
	core_op_free(op);
	return r;
}

static int call_grant(
	struct side *side, enum coord_call call, struct core_grant *grant, unsigned flags)
{
	struct coord_op *op = core_op_new(side->client.coord, call, grant->grant.key,
		grant->grant.member, COORD_BYTES("\xc0"));
	assert(op);
	op->deadline_ms = coord_now_ms(t.target.world.loop) + ANSWER_MS;
	op->grant = &grant->grant;
	op->flags = flags;
	int r = op_run(op);
	bool acquires = call == COORD_CALL_LOCK || call == COORD_CALL_MEMBER_JOIN;
	if (acquires && r == 0)
		core_grant_held(grant, op);
	core_op_free(op);
	return r;
}

static int call_convert(struct side *side, struct core_grant *grant, enum coord_mode mode)
{
	struct coord_op *op = core_op_new(side->client.coord, COORD_CALL_CONVERT, grant->grant.key,
		grant->grant.member, COORD_BYTES(""));
	assert(op);
	op->grant = &grant->grant;
	op->mode = mode;
	int r = op_run(op);
	if (r == 0)
		grant->grant.mode = mode;
	core_op_free(op);
	return r;
}

static struct core_grant *grant_new(
	struct side *side, enum coord_kind kind, const char *name, enum coord_mode mode)
{
	struct coord_key key = {kind, coord_bytes_of(name)};
	struct core_grant *grant =
		core_grant_new(side->client.coord, key, coord_bytes_of(side->member), mode, NULL);
	assert(grant);
	return grant;
}

static void grant_free(struct core_grant *grant)
{
	grant->held = false;
	core_grant_free(grant);
}

static void unwatch(struct side *side, enum coord_kind kind, const char *name)
{
	struct coord_key key = {kind, coord_bytes_of(name)};
	if (t.target.driver->unwatch)
		t.target.driver->unwatch(&side->client.coord->session, key);
}

static const char *fresh(void)
{
	static char name[8][48];
	char *ret = name[++t.names % 8];
	snprintf(ret, sizeof(name[0]), "d-%d-%u", (int)getpid(), t.names);
	return ret;
}

/* ---- Tests ---- */

/* A failed try with a watch: told when to look again, and the holder that somebody waits. */
static void test_try_watch(void)
{
	const char *l = fresh();
	struct core_grant *a = grant_new(&t.a, COORD_LOCK, l, COORD_EXCLUSIVE);
	struct core_grant *b = grant_new(&t.b, COORD_LOCK, l, COORD_EXCLUSIVE);
	CHECK_R(call_grant(&t.a, COORD_CALL_LOCK, a, 0), 0);
	CHECK(a->grant.token > 0);
	CHECK_R(call_grant(&t.b, COORD_CALL_LOCK, b, 0), -EBUSY);
	settle();
	CHECK_R(call_grant(&t.b, COORD_CALL_LOCK, b, COORD_OP_WATCH), -EBUSY);
	if (can(COORD_CAN_NOTIFY)) {
		settle();
		CHECK_R(call_grant(&t.a, COORD_CALL_UNLOCK, a, 0), 0);
		CHECK(told(&t.b.changed[COORD_LOCK]));
	} else {
		CHECK_R(call_grant(&t.a, COORD_CALL_UNLOCK, a, 0), 0);
	}
	CHECK_R(call_grant(&t.b, COORD_CALL_LOCK, b, 0), 0);
	CHECK(b->grant.token > a->grant.token);
	CHECK_R(call_grant(&t.a, COORD_CALL_LOCK_CHECK, a, 0), -ESTALE);
	CHECK_R(call_grant(&t.b, COORD_CALL_LOCK_CHECK, b, 0), 0);
	/* Twice is as good as once. */
	CHECK_R(call_grant(&t.b, COORD_CALL_UNLOCK, b, 0), 0);
	CHECK_R(call_grant(&t.b, COORD_CALL_UNLOCK, b, 0), 0);
	unwatch(&t.b, COORD_LOCK, l);
	if (can(COORD_CAN_NOTIFY)) {
		/* No watch, no notice. */
		struct core_grant *c = grant_new(&t.a, COORD_LOCK, l, COORD_EXCLUSIVE);
		settle();
		CHECK_R(call_grant(&t.a, COORD_CALL_LOCK, c, 0), 0);
		CHECK_R(call_grant(&t.a, COORD_CALL_UNLOCK, c, 0), 0);
		CHECK(silent(&t.b.changed[COORD_LOCK]));
		grant_free(c);
	}
	unwatch(&t.b, COORD_LOCK, l); /* of nothing: nothing */
	grant_free(a);
	grant_free(b);
}

static void test_contended(void)
{
	const char *l = fresh();
	struct core_grant *a = grant_new(&t.a, COORD_LOCK, l, COORD_EXCLUSIVE);
	struct core_grant *b = grant_new(&t.b, COORD_LOCK, l, COORD_EXCLUSIVE);
	CHECK_R(call_grant(&t.a, COORD_CALL_LOCK, a, 0), 0);
	settle();
	CHECK_R(call_grant(&t.b, COORD_CALL_LOCK, b, COORD_OP_WATCH), -EBUSY);
	/* A courtesy, which a driver may be unable to pay; but never a false one. */
	if (world_flag(&t.target.world, &t.a.contended, 1000))
		CHECK(memcmp(t.a.owner, a->grant.owner, 16) == 0);
	CHECK(!t.b.contended);
	CHECK_R(call_grant(&t.a, COORD_CALL_UNLOCK, a, 0), 0);
	unwatch(&t.b, COORD_LOCK, l);
	grant_free(a);
	grant_free(b);
}

static void test_read(void)
{
	const char *l = fresh();
	size_t rows = 9;
	struct core_grant *a = grant_new(&t.a, COORD_LOCK, l, COORD_EXCLUSIVE);
	CHECK_R(call_simple(&t.b, COORD_CALL_LOCK_READ, COORD_LOCK, l, COORD_OP_WATCH, &rows), 0);
	CHECK(rows == 0);
	settle();
	CHECK_R(call_grant(&t.a, COORD_CALL_LOCK, a, 0), 0);
	if (can(COORD_CAN_NOTIFY))
		CHECK(told(&t.b.changed[COORD_LOCK]));
	struct coord_op *op =
		op_new(&t.b, COORD_CALL_LOCK_READ, COORD_LOCK, l, NULL, COORD_BYTES(""));
	CHECK_R(op_run(op), 0);
	CHECK(op->rows_len == 1 && op->rows && op->rows->next == NULL);
	if (op->rows) {
		CHECK(op->rows->mode == COORD_EXCLUSIVE);
		CHECK(!op->rows->token || op->rows->token == a->grant.token);
		CHECK(coord_bytes_equal(op->rows->name, coord_bytes_of(l)));
		CHECK(!op->rows->data.len ||
			coord_bytes_equal(op->rows->data, coord_bytes_of(t.a.member)));
		CHECK(!(op->rows->flags & COORD_ROW_FOREIGN));
	}
	core_op_free(op);
	settle();
	CHECK_R(call_grant(&t.a, COORD_CALL_UNLOCK, a, 0), 0);
	if (can(COORD_CAN_NOTIFY))
		CHECK(told(&t.b.changed[COORD_LOCK]));
	CHECK_R(call_simple(&t.b, COORD_CALL_LOCK_READ, COORD_LOCK, l, 0, &rows), 0);
	CHECK(rows == 0);
	unwatch(&t.b, COORD_LOCK, l);
	grant_free(a);
}

static void test_shared(void)
{
	const char *l = fresh();
	if (!can(COORD_CAN_SHARED))
		return;
	struct core_grant *a = grant_new(&t.a, COORD_LOCK, l, COORD_SHARED);
	struct core_grant *b = grant_new(&t.b, COORD_LOCK, l, COORD_SHARED);
	struct core_grant *x = grant_new(&t.b, COORD_LOCK, fresh(), COORD_EXCLUSIVE);
	CHECK_R(call_grant(&t.a, COORD_CALL_LOCK, a, 0), 0);
	CHECK_R(call_grant(&t.b, COORD_CALL_LOCK, b, 0), 0);
	CHECK(a->grant.token > 0 && b->grant.token > 0);
	if (can(COORD_CAN_CONVERT)) {
		CHECK_R(call_convert(&t.a, a, COORD_EXCLUSIVE), -EBUSY);
		CHECK_R(call_grant(&t.a, COORD_CALL_LOCK_CHECK, a, 0), 0);
		CHECK_R(call_grant(&t.b, COORD_CALL_UNLOCK, b, 0), 0);
		uint64_t shared = a->grant.token;
		CHECK_R(call_convert(&t.a, a, COORD_EXCLUSIVE), 0);
		CHECK(a->grant.token > shared);
		struct core_grant *c = grant_new(&t.b, COORD_LOCK, l, COORD_SHARED);
		CHECK_R(call_grant(&t.b, COORD_CALL_LOCK, c, 0), -EBUSY);
		uint64_t exclusive = a->grant.token;
		CHECK_R(call_convert(&t.a, a, COORD_SHARED), 0);
		CHECK_R(call_grant(&t.b, COORD_CALL_LOCK, c, 0), 0);
		CHECK(c->grant.token > exclusive);
		CHECK_R(call_grant(&t.b, COORD_CALL_UNLOCK, c, 0), 0);
		grant_free(c);
	} else {
		CHECK_R(call_grant(&t.b, COORD_CALL_UNLOCK, b, 0), 0);
	}
	CHECK_R(call_grant(&t.a, COORD_CALL_UNLOCK, a, 0), 0);
	CHECK_R(call_grant(&t.b, COORD_CALL_UNLOCK, x, 0), 0); /* was never held */
	grant_free(a);
	grant_free(b);
	grant_free(x);
}

static void test_break(void)
{
	const char *l = fresh();
	struct core_grant *a = grant_new(&t.a, COORD_LOCK, l, COORD_EXCLUSIVE);
	struct core_grant *b = grant_new(&t.b, COORD_LOCK, l, COORD_EXCLUSIVE);
	if (can(COORD_CAN_BREAK)) {
		CHECK_R(call_simple(&t.b, COORD_CALL_LOCK_BREAK, COORD_LOCK, l, 0, NULL), -ENOENT);
		CHECK_R(call_grant(&t.a, COORD_CALL_LOCK, a, 0), 0);
		settle();
		CHECK_R(call_simple(&t.b, COORD_CALL_LOCK_BREAK, COORD_LOCK, l, 0, NULL), 0);
		if (can(COORD_CAN_NOTIFY)) {
			CHECK(told(&t.a.lost));
			CHECK(memcmp(t.a.owner, a->grant.owner, 16) == 0);
		}
		CHECK_R(call_grant(&t.a, COORD_CALL_LOCK_CHECK, a, 0), -ESTALE);
		/* What is left of it goes, and nothing else with it. */
		CHECK_R(call_grant(&t.b, COORD_CALL_LOCK, b, 0), 0);
		CHECK(b->grant.token > a->grant.token);
		CHECK_R(call_grant(&t.a, COORD_CALL_UNLOCK, a, 0), 0);
		CHECK_R(call_grant(&t.b, COORD_CALL_LOCK_CHECK, b, 0), 0);
		CHECK(!t.b.lost);
		CHECK_R(call_grant(&t.b, COORD_CALL_UNLOCK, b, 0), 0);
	}
	grant_free(a);
	grant_free(b);
}

/* Every change of a group reaches who watches it: members, capabilities, leader, its end. */
static void test_group_watch(void)
{
	const char *g = fresh();
	size_t rows = 0;
	if (!can(COORD_CAN_GROUPS))
		return;
	bool *changed = &t.b.changed[COORD_GROUP], notify = can(COORD_CAN_NOTIFY);
	CHECK_R(call_simple(&t.a, COORD_CALL_GROUP_CREATE, COORD_GROUP, g, 0, NULL), 0);
	CHECK_R(call_simple(&t.b, COORD_CALL_GROUP_READ, COORD_GROUP, g, COORD_OP_WATCH, &rows), 0);
	CHECK(rows == 0);
	CHECK_R(call_simple(&t.b, COORD_CALL_GROUP_READ, COORD_GROUP, g, COORD_OP_BARE, NULL), 0);
	struct core_grant *m = grant_new(&t.a, COORD_MEMBER, g, COORD_NONE);
	settle();
	CHECK_R(call_grant(&t.a, COORD_CALL_MEMBER_JOIN, m, 0), 0);
	CHECK(!notify || told(changed));
	settle();
	CHECK_R(call_grant(&t.a, COORD_CALL_MEMBER_UPDATE, m, 0), 0);
	CHECK(!notify || told(changed));
	struct core_grant *leader = grant_new(&t.a, COORD_LEADER, g, COORD_EXCLUSIVE);
	settle();
	CHECK_R(call_grant(&t.a, COORD_CALL_LOCK, leader, 0), 0);
	CHECK(!notify || told(changed));
	struct coord_op *op =
		op_new(&t.b, COORD_CALL_GROUP_READ, COORD_GROUP, g, NULL, COORD_BYTES(""));
	CHECK_R(op_run(op), 0);
	CHECK(op->rows_len == 2);
	for (struct coord_row *row = op->rows; row; row = row->next)
		CHECK((row->flags & COORD_ROW_NO_ID) ||
			coord_bytes_equal(row->name, coord_bytes_of(t.a.member)));
	core_op_free(op);
	settle();
	CHECK_R(call_grant(&t.a, COORD_CALL_UNLOCK, leader, 0), 0);
	CHECK(!notify || told(changed));
	settle();
	CHECK_R(call_grant(&t.a, COORD_CALL_MEMBER_LEAVE, m, 0), 0);
	CHECK(!notify || told(changed));
	CHECK_R(call_grant(&t.a, COORD_CALL_MEMBER_LEAVE, m, 0), -ENOENT);
	settle();
	CHECK_R(call_simple(&t.a, COORD_CALL_GROUP_DELETE, COORD_GROUP, g, 0, NULL), 0);
	CHECK(!notify || told(changed));
	CHECK_R(call_simple(&t.b, COORD_CALL_GROUP_READ, COORD_GROUP, g, 0, NULL), -ENOENT);
	CHECK_R(call_simple(&t.b, COORD_CALL_GROUP_READ, COORD_GROUP, g, COORD_OP_BARE, NULL),
		-ENOENT);
	unwatch(&t.b, COORD_GROUP, g);
	CHECK_R(call_grant(&t.a, COORD_CALL_LOCK, leader, 0), -ENOENT);
	grant_free(m);
	grant_free(leader);
}

static void test_members(void)
{
	const char *g = fresh();
	if (!can(COORD_CAN_GROUPS))
		return;
	struct core_grant *a = grant_new(&t.a, COORD_MEMBER, g, COORD_NONE);
	CHECK_R(call_grant(&t.a, COORD_CALL_MEMBER_JOIN, a, 0), -ENOENT);
	CHECK_R(call_simple(&t.a, COORD_CALL_GROUP_CREATE, COORD_GROUP, g, 0, NULL), 0);
	CHECK_R(call_grant(&t.a, COORD_CALL_MEMBER_JOIN, a, 0), 0);
	/* Another incarnation of the id is not ours to change. */
	struct core_grant *b =
		core_grant_new(t.b.client.coord, a->grant.key, a->grant.member, COORD_NONE, NULL);
	assert(b);
	CHECK_R(call_grant(&t.b, COORD_CALL_MEMBER_JOIN, b, 0), -EEXIST);
	CHECK_R(call_grant(&t.b, COORD_CALL_MEMBER_JOIN, b, COORD_OP_REPLACE_STALE), -EEXIST);
	CHECK_R(call_grant(&t.b, COORD_CALL_MEMBER_UPDATE, b, 0), -EPERM);
	CHECK_R(call_grant(&t.b, COORD_CALL_MEMBER_LEAVE, b, 0), -EPERM);
	/* An own id is left whoever joined it, and who did is told. */
	settle();
	struct coord_op *op =
		op_new(&t.b, COORD_CALL_MEMBER_LEAVE, COORD_MEMBER, g, t.a.member, COORD_BYTES(""));
	op->flags = COORD_OP_ADOPT;
	CHECK_R(op_run(op), 0);
	core_op_free(op);
	CHECK_R(call_grant(&t.a, COORD_CALL_MEMBER_UPDATE, a, 0), -ENOENT);
	CHECK_R(call_simple(&t.a, COORD_CALL_GROUP_DELETE, COORD_GROUP, g, 0, NULL), 0);
	grant_free(a);
	grant_free(b);
}

/* A watch on a lock sees sharers come and go, and one on a leadership what happens to that. */
static void test_watch_kinds(void)
{
	const char *l = fresh(), *g = fresh();
	size_t rows = 0;
	if (!can(COORD_CAN_NOTIFY))
		return;
	if (can(COORD_CAN_SHARED)) {
		struct core_grant *a = grant_new(&t.a, COORD_LOCK, l, COORD_SHARED);
		CHECK_R(call_simple(
				&t.b, COORD_CALL_LOCK_READ, COORD_LOCK, l, COORD_OP_WATCH, &rows),
			0);
		settle();
		CHECK_R(call_grant(&t.a, COORD_CALL_LOCK, a, 0), 0);
		CHECK(told(&t.b.changed[COORD_LOCK]));
		CHECK_R(call_simple(&t.b, COORD_CALL_LOCK_READ, COORD_LOCK, l, 0, &rows), 0);
		CHECK(rows == 1);
		settle();
		CHECK_R(call_grant(&t.a, COORD_CALL_UNLOCK, a, 0), 0);
		CHECK(told(&t.b.changed[COORD_LOCK]));
		unwatch(&t.b, COORD_LOCK, l);
		grant_free(a);
	}
	if (!can(COORD_CAN_GROUPS))
		return;
	struct core_grant *leader = grant_new(&t.a, COORD_LEADER, g, COORD_EXCLUSIVE);
	struct core_grant *next = grant_new(&t.b, COORD_LEADER, g, COORD_EXCLUSIVE);
	CHECK_R(call_simple(&t.a, COORD_CALL_GROUP_CREATE, COORD_GROUP, g, 0, NULL), 0);
	CHECK_R(call_simple(&t.b, COORD_CALL_LOCK_READ, COORD_LEADER, g, COORD_OP_WATCH, &rows), 0);
	CHECK(rows == 0);
	settle();
	CHECK_R(call_grant(&t.a, COORD_CALL_LOCK, leader, 0), 0);
	CHECK(told(&t.b.changed[COORD_LEADER]));
	CHECK_R(call_grant(&t.b, COORD_CALL_LOCK, next, COORD_OP_WATCH), -EBUSY);
	settle();
	CHECK_R(call_grant(&t.a, COORD_CALL_UNLOCK, leader, 0), 0);
	CHECK(told(&t.b.changed[COORD_LEADER]));
	CHECK_R(call_grant(&t.b, COORD_CALL_LOCK, next, 0), 0);
	CHECK(next->grant.token > leader->grant.token);
	CHECK_R(call_grant(&t.b, COORD_CALL_UNLOCK, next, 0), 0);
	unwatch(&t.b, COORD_LEADER, g);
	CHECK_R(call_simple(&t.a, COORD_CALL_GROUP_DELETE, COORD_GROUP, g, 0, NULL), 0);
	grant_free(leader);
	grant_free(next);
}

/* Who is replaced under its name cannot touch who came after, and learns of it. */
static void test_replaced(void)
{
	const char *g = fresh();
	if (!can(COORD_CAN_GROUPS))
		return;
	CHECK_R(call_simple(&t.a, COORD_CALL_GROUP_CREATE, COORD_GROUP, g, 0, NULL), 0);
	struct core_grant *a = grant_new(&t.a, COORD_MEMBER, g, COORD_NONE);
	struct core_grant *b =
		core_grant_new(t.b.client.coord, a->grant.key, a->grant.member, COORD_NONE, NULL);
	CHECK_R(call_grant(&t.a, COORD_CALL_MEMBER_JOIN, a, 0), 0);
	settle();
	struct coord_op *op =
		op_new(&t.b, COORD_CALL_MEMBER_LEAVE, COORD_MEMBER, g, t.a.member, COORD_BYTES(""));
	op->flags = COORD_OP_ADOPT;
	CHECK_R(op_run(op), 0);
	core_op_free(op);
	CHECK_R(call_grant(&t.b, COORD_CALL_MEMBER_JOIN, b, 0), 0);
	CHECK_R(call_grant(&t.a, COORD_CALL_MEMBER_UPDATE, a, 0), -EPERM);
	CHECK_R(call_grant(&t.a, COORD_CALL_MEMBER_LEAVE, a, 0), -EPERM);
	CHECK_R(call_grant(&t.b, COORD_CALL_MEMBER_UPDATE, b, 0), 0);
	CHECK_R(call_grant(&t.b, COORD_CALL_MEMBER_LEAVE, b, 0), 0);
	CHECK_R(call_simple(&t.a, COORD_CALL_GROUP_DELETE, COORD_GROUP, g, 0, NULL), 0);
	grant_free(a);
	grant_free(b);
}

/* So it is where he is replaced at once, before he could hear of it. */
static void test_replaced_at_once(void)
{
	const char *g = fresh();
	if (!can(COORD_CAN_GROUPS))
		return;
	CHECK_R(call_simple(&t.a, COORD_CALL_GROUP_CREATE, COORD_GROUP, g, 0, NULL), 0);
	struct core_grant *a = grant_new(&t.a, COORD_MEMBER, g, COORD_NONE);
	struct core_grant *b =
		core_grant_new(t.b.client.coord, a->grant.key, a->grant.member, COORD_NONE, NULL);
	struct coord_op *op =
		op_new(&t.b, COORD_CALL_MEMBER_LEAVE, COORD_MEMBER, g, t.a.member, COORD_BYTES(""));
	op->flags = COORD_OP_ADOPT;
	CHECK_R(call_grant(&t.a, COORD_CALL_MEMBER_JOIN, a, 0), 0);
	CHECK_R(op_run(op), 0);
	CHECK_R(call_grant(&t.b, COORD_CALL_MEMBER_JOIN, b, 0), 0);
	CHECK_R(call_grant(&t.a, COORD_CALL_MEMBER_LEAVE, a, 0), -EPERM);
	CHECK_R(call_grant(&t.b, COORD_CALL_MEMBER_UPDATE, b, 0), 0);
	CHECK_R(call_grant(&t.b, COORD_CALL_MEMBER_LEAVE, b, 0), 0);
	CHECK_R(call_simple(&t.a, COORD_CALL_GROUP_DELETE, COORD_GROUP, g, 0, NULL), 0);
	core_op_free(op);
	grant_free(a);
	grant_free(b);
}

/* A place in the backend's queue ends with the grant, also if nobody gave it back. */
static void test_forgotten(void)
{
	const char *l = fresh();
	if (strcmp(t.target.driver->name, "zookeeper") != 0)
		return;
	struct core_grant *a = grant_new(&t.a, COORD_LOCK, l, COORD_EXCLUSIVE);
	struct core_grant *b = grant_new(&t.b, COORD_LOCK, l, COORD_EXCLUSIVE);
	CHECK_R(call_grant(&t.a, COORD_CALL_LOCK, a, 0), 0);
	grant_free(a);
	CHECK_R(call_grant(&t.b, COORD_CALL_LOCK, b, COORD_OP_WAIT), 0);
	CHECK_R(call_grant(&t.b, COORD_CALL_UNLOCK, b, 0), 0);
	grant_free(b);
}

/* What is held when a session is closed goes with it, whoever forgot it. */
static void test_close(void)
{
	const char *l = fresh(), *g = fresh();
	struct core_grant *a = grant_new(&t.a, COORD_LOCK, l, COORD_EXCLUSIVE);
	struct core_grant *b = grant_new(&t.b, COORD_LOCK, l, COORD_EXCLUSIVE);
	CHECK_R(call_grant(&t.a, COORD_CALL_LOCK, a, 0), 0);
	a->held = false;
	if (can(COORD_CAN_GROUPS)) {
		struct core_grant *m = grant_new(&t.a, COORD_MEMBER, g, COORD_NONE);
		CHECK_R(call_simple(&t.b, COORD_CALL_GROUP_CREATE, COORD_GROUP, g, 0, NULL), 0);
		CHECK_R(call_grant(&t.a, COORD_CALL_MEMBER_JOIN, m, 0), 0);
		m->held = false;
	}
	bool groups = can(COORD_CAN_GROUPS);
	CHECK(client_close(&t.a.client));
	CHECK_R(call_grant(&t.b, COORD_CALL_LOCK, b, 0), 0);
	CHECK_R(call_grant(&t.b, COORD_CALL_UNLOCK, b, 0), 0);
	if (groups)
		CHECK_R(call_simple(&t.b, COORD_CALL_GROUP_DELETE, COORD_GROUP, g, 0, NULL), 0);
	grant_free(b);
}

/* A wait in the backend's queue that is cancelled leaves no place in it. */
static void test_cancel(void)
{
	const char *l = fresh();
	if (!can(COORD_CAN_QUEUE) || !t.target.driver->cancel)
		return;
	struct core_grant *a = grant_new(&t.a, COORD_LOCK, l, COORD_EXCLUSIVE);
	struct core_grant *b = grant_new(&t.b, COORD_LOCK, l, COORD_EXCLUSIVE);
	struct core_grant *c = grant_new(&t.a, COORD_LOCK, l, COORD_EXCLUSIVE);
	CHECK_R(call_grant(&t.a, COORD_CALL_LOCK, a, 0), 0);
	struct coord_op *op = op_new(&t.b, COORD_CALL_LOCK, COORD_LOCK, l, NULL, COORD_BYTES(""));
	struct call call = {.op = op};
	op->grant = &b->grant;
	op->flags = COORD_OP_WAIT;
	core_op_start(op, call_done, &call);
	CHECK(silent(&call.done));
	t.target.driver->cancel(&t.b.client.coord->session, op);
	CHECK(world_flag(&t.target.world, &call.done, NOTICE_MS));
	CHECK(op->status != 0);
	core_op_free(op);
	CHECK_R(call_grant(&t.a, COORD_CALL_UNLOCK, a, 0), 0);
	CHECK_R(call_grant(&t.a, COORD_CALL_LOCK, c, 0), 0);
	CHECK_R(call_grant(&t.a, COORD_CALL_UNLOCK, c, 0), 0);
	grant_free(a);
	grant_free(b);
	grant_free(c);
}

/* Each grant that is leased is confirmed by one renewal of the epoch, and no other is. */
static void test_renew(void)
{
	const char *l = fresh(), *s = fresh();
	if (!t.target.driver->renew || t.target.driver->loss[COORD_LOCK] != COORD_LOSS_LEASE)
		return;
	struct core_grant *a = grant_new(&t.a, COORD_LOCK, l, COORD_EXCLUSIVE);
	struct core_grant *b = grant_new(
		&t.a, COORD_LOCK, s, can(COORD_CAN_SHARED) ? COORD_SHARED : COORD_EXCLUSIVE);
	CHECK_R(call_grant(&t.a, COORD_CALL_LOCK, a, 0), 0);
	CHECK_R(call_grant(&t.a, COORD_CALL_LOCK, b, 0), 0);
	t.a.renewals = t.b.renewals = 0;
	CHECK_R(call_simple(&t.a, COORD_CALL_RENEW, COORD_LOCK, "", 0, NULL), 0);
	CHECK(t.a.renewals == 2 && t.b.renewals == 0);
	CHECK_R(call_grant(&t.a, COORD_CALL_LOCK_CHECK, a, 0), 0);
	CHECK_R(call_grant(&t.a, COORD_CALL_LOCK_CHECK, b, 0), 0);
	CHECK_R(call_grant(&t.a, COORD_CALL_UNLOCK, a, 0), 0);
	CHECK_R(call_grant(&t.a, COORD_CALL_UNLOCK, b, 0), 0);
	grant_free(a);
	grant_free(b);
}

/* A lock's check fills in the token that an answer that was lost would have given. */
static void test_check_token(void)
{
	const char *l = fresh();
	struct core_grant *a = grant_new(&t.a, COORD_LOCK, l, COORD_EXCLUSIVE);
	CHECK_R(call_grant(&t.a, COORD_CALL_LOCK, a, 0), 0);
	uint64_t token = a->grant.token;
	a->grant.token = 0;
	CHECK_R(call_grant(&t.a, COORD_CALL_LOCK_CHECK, a, 0), 0);
	CHECK(a->grant.token == token);
	CHECK_R(call_grant(&t.a, COORD_CALL_UNLOCK, a, 0), 0);
	grant_free(a);
}

/* Pages of a listing: together each once, and their number is bounded. */
static void test_pages(void)
{
	enum { MANY = 300 };
	static char name[MANY][48];
	static bool seen[MANY];
	if (!can(COORD_CAN_GROUPS))
		return;
	memset(seen, 0, sizeof(seen));
	for (int i = 0; i < MANY; i++) {
		snprintf(name[i], sizeof(name[i]), "page-%d-%d", (int)getpid(), i);
		CHECK_R(call_simple(&t.a, COORD_CALL_GROUP_CREATE, COORD_GROUP, name[i], 0, NULL),
			0);
	}
	char cursor[1024];
	size_t cursor_len = 0, found = 0, pages = 0;
	do {
		struct coord_key key = {COORD_GROUP, COORD_BYTES("")};
		struct coord_op *op = core_op_new(t.b.client.coord, COORD_CALL_GROUP_LIST, key,
			COORD_BYTES(""), COORD_BYTES(""));
		op->cursor = (struct coord_bytes){cursor, cursor_len};
		CHECK_R(op_run(op), 0);
		for (struct coord_row *row = op->rows; row; row = row->next)
			for (int i = 0; i < MANY; i++)
				if (coord_bytes_equal(row->name, coord_bytes_of(name[i]))) {
					CHECK(!seen[i]);
					seen[i] = true;
					found++;
				}
		cursor_len = op->next_cursor.len;
		CHECK(cursor_len <= sizeof(cursor));
		if (cursor_len && cursor_len <= sizeof(cursor))
			memcpy(cursor, op->next_cursor.data, cursor_len);
		core_op_free(op);
	} while (cursor_len && !t.failed && pages++ < MANY);
	CHECK(found == MANY);
	for (int i = 0; i < MANY; i++)
		call_simple(&t.a, COORD_CALL_GROUP_DELETE, COORD_GROUP, name[i], 0, NULL);
}

/* What map_name says of names, the calls agree with. */
static void test_map_name(void)
{
	char key[256], again[256];
	size_t len = 0, again_len = 0;
	struct coord_session *session = &t.a.client.coord->session;
	if (!t.target.driver->map_name)
		return;
	for (int kind = COORD_LOCK; kind < COORD_KINDS; kind++) {
		struct coord_bytes plain = COORD_BYTES("plain"), none = {"", 0};
		CHECK_R(t.target.driver->map_name(session, kind, plain, key, &len), 0);
		CHECK(len > 0 && len <= sizeof(key));
		CHECK_R(t.target.driver->map_name(session, kind, plain, again, &again_len), 0);
		CHECK(len == again_len && memcmp(key, again, len) == 0);
		CHECK_R(t.target.driver->map_name(session, kind, none, key, &len), -EINVAL);
		char big[257];
		memset(big, 'n', sizeof(big));
		int r = t.target.driver->map_name(
			session, kind, (struct coord_bytes){big, sizeof(big)}, key, &len);
		CHECK(r == -ENAMETOOLONG || (r == 0 && len <= sizeof(key)));
	}
}

static const struct test {
	const char *name;
	void (*fn)(void);
} tests[] = {
	{"try-watch", test_try_watch},
	{"contended", test_contended},
	{"read", test_read},
	{"shared", test_shared},
	{"break", test_break},
	{"group-watch", test_group_watch},
	{"members", test_members},
	{"watch-kinds", test_watch_kinds},
	{"replaced", test_replaced},
	{"replaced-at-once", test_replaced_at_once},
	{"forgotten", test_forgotten},
	{"close", test_close},
	{"cancel", test_cancel},
	{"renew", test_renew},
	{"check-token", test_check_token},
	{"pages", test_pages},
	{"map-name", test_map_name},
};

static bool side_open(struct side *side, char letter)
{
	memset(side, 0, sizeof(*side));
	snprintf(side->member, sizeof(side->member), "direct-%c-%d", letter, (int)getpid());
	return client_open(&side->client, &t.target.world, t.target.world.loop,
		       target_config(&t.target, NULL, side->member)) == 0;
}

static bool run(const struct test *test)
{
	t.failed = false;
	CHECK(side_open(&t.a, 'a'));
	CHECK(side_open(&t.b, 'b'));
	if (!t.failed)
		test->fn();
	CHECK(client_close(&t.a.client));
	CHECK(client_close(&t.b.client));
	printf("%-7s %s\n", t.failed ? "FAILED" : "ok", test->name);
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
	if (!target_open(&t.target))
		return 1;
	/* A loaded module calls the core's own functions, not the ones here: it has to be linked. */
	if (!side_open(&t.a, 'a'))
		return t.target.required ? 1 : 77;
	client_close(&t.a.client);
	unsigned failed = 0;
	for (size_t i = 0; i < LEN(tests); i++)
		if (wanted(tests[i].name, names) && !run(&tests[i]))
			failed++;
	target_close(&t.target);
	return failed ? 1 : 0;
}
