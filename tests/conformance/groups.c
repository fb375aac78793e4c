/* SPDX-License-Identifier: Apache-2.0 */
/* Groups and members. See suite.h. */
#include "tests/conformance/suite.h"

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
	CHECK_SOON(shows_member(&t.a, g, "y", &map));
	CHECK_R(client_group_read(&t.a, g, true, &a), 0);
	CHECK(a.len == 2 && answer_find(&a, "x", false) && answer_find(&a, "y", false));
	if (a.len == 2)
		CHECK(coord_bytes_equal(answer_find(&a, "y", false)->data, map));
	answer_done(&a);
	CHECK_R(client_member_put(&t.a, g, "x", map, false), 0);
	CHECK_SOON(shows_member(&t.b, g, "x", &map));
	/* A mount's own id is its own, whoever joined under it. */
	const char *own = coord_config_of(t.a.coord)->member;
	CHECK_R(client_member_put(&t.a, g, own, nil, true), 0);
	CHECK_R(client_member_leave(&t.a, g, own), 0);
	CHECK_R(client_member_leave(&t.a, g, "x"), 0);
	CHECK_SOON(client_member_get(&t.b, g, "x", NULL) == -ENOENT);
	CHECK_R(client_member_leave(&t.b, g, "y"), 0);
	CHECK_R(client_group_delete(&t.a, g), 0);
}

/* Bytes in, the same bytes out. */
static void capabilities(const char *group, struct coord_bytes data)
{
	CHECK_R(client_member_put(&t.a, group, "x", data, false), 0);
	CHECK_SOON(shows_member(&t.b, group, "x", &data));
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

/* More than any page of a listing holds: each once, none forgotten. */
static void each_once(const struct answer *a, const char *stem, size_t count)
{
	size_t found = 0, len = strlen(stem);
	for (size_t i = 0; i < a->len; i++) {
		found += a->rows[i].name.len > len && !memcmp(a->rows[i].name.data, stem, len);
		for (size_t j = 0; j < i; j++)
			CHECK(!coord_bytes_equal(a->rows[i].name, a->rows[j].name));
	}
	if (found != count)
		FAIL("%zu of %zu %s", found, count, stem);
}

static void test_many_groups(void)
{
	enum { MANY = 300 };
	const char *names[MANY];
	struct answer a;
	if (skip_unless(COORD_CAN_GROUPS))
		return;
	for (int i = 0; i < MANY; i++)
		CHECK_R(client_group_create(&t.a, names[i] = fresh("many-groups")), 0);
	CHECK_R(client_group_list(&t.b, &a), 0);
	each_once(&a, "many-groups", MANY);
	answer_done(&a);
	for (int i = 0; i < MANY; i++)
		CHECK_R(client_group_delete(&t.b, names[i]), 0);
}

static void test_many_members(void)
{
	enum { MANY = 300 };
	const char *names[MANY], *g = fresh("g");
	struct answer a;
	if (skip_unless(COORD_CAN_GROUPS))
		return;
	CHECK_R(client_group_create(&t.a, g), 0);
	for (int i = 0; i < MANY; i++) {
		struct client *client = i % 2 ? &t.a : &t.b;
		CHECK_R(client_member_put(client, g, names[i] = fresh("many-members"),
				COORD_BYTES("\xa1x"), true),
			0);
	}
	CHECK_R(client_group_read(&t.b, g, true, &a), 0);
	each_once(&a, "many-members", MANY);
	for (size_t i = 0; i < a.len; i++)
		CHECK(coord_bytes_equal(a.rows[i].data, COORD_BYTES("\xa1x")));
	answer_done(&a);
	CHECK_R(client_group_delete(&t.b, g), -ENOTEMPTY);
	for (int i = 0; i < MANY; i++)
		CHECK_R(client_member_leave(i % 2 ? &t.a : &t.b, g, names[i]), 0);
	CHECK_R(client_group_delete(&t.b, g), 0);
}

/* A member that bears a mount's own id is that mount's, whoever joined it. */
static void test_own_id(void)
{
	const char *g = fresh("g"), *own = coord_config_of(t.b.coord)->member;
	struct coord_bytes map = COORD_BYTES("\x81\xa1w\x02");
	struct answer a;
	if (skip_unless(COORD_CAN_GROUPS))
		return;
	CHECK_R(client_group_create(&t.a, g), 0);
	CHECK_R(client_member_put(&t.a, g, own, COORD_BYTES("\xc0"), true), 0);
	CHECK_R(client_member_put(&t.b, g, own, map, false), 0);
	CHECK_R(client_member_get(&t.a, g, own, &a), 0);
	CHECK(a.len == 1 && coord_bytes_equal(a.rows[0].data, map));
	answer_done(&a);
	CHECK_R(client_member_leave(&t.b, g, own), 0);
	CHECK_R(client_member_get(&t.a, g, own, NULL), -ENOENT);
	CHECK_R(client_member_put(&t.b, g, own, map, true), 0);
	/* Theirs is gone already, or not theirs any more; ours stays. */
	int r = client_member_leave(&t.a, g, own);
	CHECK(r == 0 || r == -EACCES);
	CHECK_R(client_member_leave(&t.b, g, own), 0);
	CHECK_R(client_group_delete(&t.a, g), 0);
}

/* As much as the driver says it takes. */
static void test_value_max(void)
{
	const char *g = fresh("g");
	struct answer a;
	size_t len = t.real->value_max;
	if (!len || !can(COORD_CAN_GROUPS)) {
		t.skipped = true;
		return;
	}
	_cleanup_free_ char *big = calloc(1, len);
	big[0] = (char)0xc6;
	for (int i = 0; i < 4; i++)
		big[1 + i] = (char)((len - 5) >> (24 - 8 * i));
	CHECK_R(client_group_create(&t.a, g), 0);
	struct coord_bytes data = {big, len};
	CHECK_R(client_member_put(&t.a, g, "x", data, true), 0);
	CHECK_SOON(shows_member(&t.b, g, "x", &data));
	CHECK_R(client_group_read(&t.b, g, true, &a), 0);
	CHECK(a.len == 1 && a.rows[0].data.len == len);
	answer_done(&a);
	CHECK_R(client_member_leave(&t.a, g, "x"), 0);
	CHECK_R(client_group_delete(&t.a, g), 0);
}

const struct test tests_groups[] = {
	{"groups", test_groups},
	{"members", test_members},
	{"capabilities", test_capabilities},
	{"many-groups", test_many_groups},
	{"many-members", test_many_members},
	{"own-id", test_own_id},
	{"value-max", test_value_max},
	{0},
};
