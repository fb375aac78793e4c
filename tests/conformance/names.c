/* SPDX-License-Identifier: Apache-2.0 */
/* Odd names: each is refused, or is itself everywhere. See suite.h. */
#include "tests/conformance/suite.h"

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

/* Names that one backend or the other uses itself. */
static const char *const taken[] = {"groups", "leader", "locks", "tmp", ".", "..", ".driver_lock",
	".metadata", ".toozfs", "__created__", "_groups", "_toozfs", "events", "leaders",
	"leader_of_g", "a/b", "/a", "a/", "//", "a\nb", "\r\n", "'", "\"", "'\"", "\\", "{x}", "*",
	"[a-z]", "\xff", "\xff\xfe\xfd", "\x7f", "\x01", "\xed\xa0\x80", "$(x)", "%", "%2F", " ",
	"r__lock__0000000000", "__lock__", "0__lock__0000000001", "zookeeper", "quota", "lock",
	"lock:fence", "lock_lock", "lock_leader_id", "lock\tx", "group:a", "a_lock", "beats:m",
	"m_lock", "groups_lock", "token", "S:1", "NULL"};

static bool made[LEN(taken)];

/* All at once: no name meets another's, nor anything that the driver keeps. */
static void test_taken_locks(void)
{
	struct taker one[LEN(taken)];
	for (size_t i = 0; i < LEN(taken); i++) {
		int r = taker_new(&t.a, COORD_LOCK, coord_bytes_of(taken[i]), &one[i]);
		made[i] = r == 0;
		CHECK(r == 0 || refused(r));
		if (made[i] && taker_lock(&one[i], COORD_EXCLUSIVE, 0, QUICK_MS))
			FAIL("lock '%s' is not free: %d", taken[i], one[i].status);
	}
	for (size_t i = 0; i < LEN(taken); i++) {
		struct taker two;
		if (!made[i] || taker_new(&t.b, COORD_LOCK, coord_bytes_of(taken[i]), &two))
			continue;
		if (taker_lock(&two, COORD_EXCLUSIVE, 0, QUICK_MS) != -EAGAIN)
			FAIL("lock '%s' is not held: %d", taken[i], two.status);
		taker_free(&two);
		CHECK_R(taker_check(&one[i]), 0);
	}
	struct answer a;
	if (can(COORD_CAN_LIST_ALL)) {
		CHECK_R(client_lock_list(&t.b, COORD_LOCK, &a), 0);
		for (size_t i = 0; i < LEN(taken); i++)
			if (made[i] && !answer_find(&a, taken[i], false))
				FAIL("lock '%s' is not listed", taken[i]);
		answer_done(&a);
	}
	for (size_t i = 0; i < LEN(taken); i++)
		if (made[i]) {
			CHECK_R(taker_unlock(&one[i]), 0);
			taker_free(&one[i]);
		}
}

static void group_with_all(const char *group)
{
	struct answer a;
	struct taker leader;
	static bool joined[LEN(taken)];
	for (size_t i = 0; i < LEN(taken); i++) {
		int r = client_member_put(&t.a, group, taken[i], COORD_BYTES("\xa1x"), true);
		joined[i] = r == 0;
		if (r && !refused(r))
			FAIL("member '%s' of '%s': %d", taken[i], group, r);
	}
	CHECK_R(taker_new(&t.a, COORD_LEADER, coord_bytes_of(group), &leader), 0);
	CHECK_R(taker_lock(&leader, COORD_EXCLUSIVE, 0, QUICK_MS), 0);
	CHECK_R(client_group_read(&t.b, group, true, &a), 0);
	for (size_t i = 0; i < LEN(taken); i++)
		if (joined[i] != !!answer_find(&a, taken[i], false))
			FAIL("member '%s' of '%s': joined %d", taken[i], group, joined[i]);
	answer_done(&a);
	CHECK_R(taker_unlock(&leader), 0);
	taker_free(&leader);
	for (size_t i = 0; i < LEN(taken); i++)
		if (joined[i])
			CHECK_R(client_member_leave(&t.a, group, taken[i]), 0);
}

static void test_taken_groups(void)
{
	struct answer a;
	const char *g = fresh("g");
	if (skip_unless(COORD_CAN_GROUPS))
		return;
	CHECK_R(client_group_create(&t.a, g), 0);
	group_with_all(g);
	CHECK_R(client_group_delete(&t.b, g), 0);
	for (size_t i = 0; i < LEN(taken); i++) {
		int r = client_group_create(&t.a, taken[i]);
		made[i] = r == 0;
		if (r && !refused(r))
			FAIL("group '%s': %d", taken[i], r);
	}
	CHECK_R(client_group_list(&t.b, &a), 0);
	for (size_t i = 0; i < LEN(taken); i++)
		if (made[i] && !answer_find(&a, taken[i], false))
			FAIL("group '%s' is not listed", taken[i]);
	answer_done(&a);
	for (size_t i = 0; i < LEN(taken); i++) {
		if (!made[i])
			continue;
		if (i % 8 == 0)
			group_with_all(taken[i]);
		CHECK_R(client_group_delete(&t.b, taken[i]), 0);
		CHECK_R(client_group_read(&t.a, taken[i], false, NULL), -ENOENT);
	}
}

const struct test tests_names[] = {
	{"names", test_names},
	{"taken-locks", test_taken_locks},
	{"taken-groups", test_taken_groups},
	{0},
};
