/* SPDX-License-Identifier: Apache-2.0 */
/* Which bytes of a ZooKeeper server the client library may read, and of which more have to come first. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "drivers/zookeeper/frames.h"

enum { STAT = 68, SESSION = 7, LONG = 1 << 20 };

/* A frame that is put together; the length is written by the end of it. */
struct frame {
	char data[LONG + 4096];
	size_t len;
};

static struct frame frame;

static void put32(int32_t value)
{
	for (int i = 3; i >= 0; i--)
		frame.data[frame.len++] = (char)((uint32_t)value >> 8 * i);
}

static void put_string(const char *text)
{
	put32((int32_t)strlen(text));
	memcpy(frame.data + frame.len, text, strlen(text));
	frame.len += strlen(text);
}

static void put_zeros(size_t len)
{
	memset(frame.data + frame.len, 0, len);
	frame.len += len;
}

static void set_length(size_t len)
{
	size_t end = frame.len;
	frame.len = 0;
	put32((int32_t)len);
	frame.len = end;
}

static void begin(int32_t xid, int32_t err)
{
	frame.len = 4;
	put32(xid);
	put_zeros(8);
	put32(err);
}

/* Of a transaction: the header of a result, and of the end. */
static void put_result(int32_t type, bool end, int32_t err)
{
	put32(type);
	frame.data[frame.len++] = end;
	put32(err);
}

static const struct zk_asked nothing;

/* In memory of just its size. */
static const char *wrong_of(size_t len, const struct zk_asked *asked, size_t *ret_need)
{
	char *copy = malloc(len ? len : 1);
	assert_non_null(copy);
	memcpy(copy, frame.data, len);
	const char *ret = zk_frame_wrong((struct coord_bytes){copy, len}, asked, ret_need);
	free(copy);
	return ret;
}

/* As it is: judged when all of it is there, and not before; and what comes behind it does not matter. */
static const char *wrong(const struct zk_asked *asked)
{
	size_t need = 1, all = frame.len < ZK_FRAME_WHOLE ? frame.len : ZK_FRAME_WHOLE;
	set_length(frame.len - 4);
	for (size_t len = 0; len < all; len += len < 100 ? 1 : 997) {
		assert_null(wrong_of(len, asked, &need));
		assert_int_equal(need, len < 4 ? 4 : all);
	}
	const char *ret = wrong_of(all, asked, &need), *more;
	assert_int_equal(need, 0);
	more = wrong_of(frame.len + 9, asked, &need);
	assert_ptr_equal(ret, more);
	return ret;
}

static const char *wrong_reply(enum zk_reply reply)
{
	struct zk_asked asked = {.any = true, .reply = reply};
	return wrong(&asked);
}

static void assert_says(const char *said, const char *words)
{
	assert_non_null(said);
	if (!strstr(said, words))
		fail_msg("'%s' instead of '%s'", said, words);
}

static void test_lengths(void **state)
{
	(void)state;
	size_t need;
	static const int32_t bad[] = {0, 1, 15, -1, INT32_MIN, ZK_FRAME_MAX + 1, INT32_MAX};
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		frame.len = 4;
		set_length((size_t)bad[i]);
		assert_says(wrong_of(4, &nothing, &need), "length");
		assert_int_equal(need, 0);
	}
	set_length(ZK_FRAME_MAX);
	assert_null(wrong_of(4, &nothing, &need));
	assert_int_equal(need, ZK_FRAME_WHOLE);
}

static void test_xids(void **state)
{
	(void)state;
	struct zk_asked auth = {.auth = true};
	static const int32_t errors[] = {0, -4, 7, -101};
	for (size_t i = 0; i < 4; i++) {
		begin(-2, errors[i]);
		assert_null(wrong(&nothing));
		begin(-8, errors[i]);
		assert_null(wrong(&nothing));
		begin(-4, errors[i]);
		assert_says(wrong(&nothing), "password");
		assert_null(wrong(&auth));
		static const int32_t xids[] = {1, 0, -3, -9, INT32_MAX, INT32_MIN};
		for (size_t k = 0; k < 6; k++) {
			begin(xids[k], errors[i]);
			assert_says(wrong(&auth), "nothing");
			assert_null(wrong_reply(ZK_REPLY_NOTHING));
		}
	}
	/* A failure has no body, whatever was asked. */
	for (int reply = ZK_REPLY_NOTHING; reply <= ZK_REPLY_DELETE_BOTH; reply++) {
		begin(1, -101);
		assert_null(wrong_reply((enum zk_reply)reply));
		begin(1, 0);
		assert_true(!wrong_reply((enum zk_reply)reply) == (reply == ZK_REPLY_NOTHING));
	}
}

static void test_notices(void **state)
{
	(void)state;
	static const struct {
		int32_t type;
		const char *path;
		bool good;
	} all[] = {{1, "/a", true}, {4, "/", true}, {-1, "/a", false}, {0, "/a", false},
		{1, "", false}, {1, "a", false}};
	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
		begin(-1, 0);
		put32(all[i].type);
		put32(3);
		put_string(all[i].path);
		assert_true(!wrong(&nothing) == all[i].good);
	}
	begin(-1, 0);
	assert_says(wrong(&nothing), "notice");
	put32(1);
	assert_says(wrong(&nothing), "notice");
	put32(3);
	assert_says(wrong(&nothing), "notice");
	static const int32_t lengths[] = {-1, 0, 4, 1 << 30, INT32_MIN};
	for (size_t i = 0; i < 5; i++) {
		begin(-1, 0);
		put32(1);
		put32(3);
		put32(lengths[i]);
		frame.len += (size_t)sprintf(frame.data + frame.len, "/ab");
		assert_says(wrong(&nothing), "notice");
	}
	begin(-1, 0);
	put32(1);
	put32(3);
	put_string("/abc");
	frame.data[frame.len - 2] = '\0';
	assert_says(wrong(&nothing), "notice");
}

static void test_stat(void **state)
{
	(void)state;
	begin(1, 0);
	put_zeros(STAT - 1);
	assert_says(wrong_reply(ZK_REPLY_STAT), "something else");
	put_zeros(1);
	assert_null(wrong_reply(ZK_REPLY_STAT));
	put_zeros(1);
	assert_null(wrong_reply(ZK_REPLY_STAT));
}

static const char *wrong_data(int32_t claim, size_t len)
{
	begin(1, 0);
	put32(claim);
	put_zeros(len);
	return wrong_reply(ZK_REPLY_DATA);
}

static void test_data(void **state)
{
	(void)state;
	assert_null(wrong_data(-1, STAT));
	assert_null(wrong_data(0, STAT));
	assert_null(wrong_data(100, 100 + STAT));
	assert_null(wrong_data(LONG, LONG + STAT));
	assert_non_null(wrong_data(-2, STAT));
	assert_non_null(wrong_data(INT32_MIN, STAT));
	assert_non_null(wrong_data(INT32_MAX, STAT));
	assert_non_null(wrong_data(100, 99 + STAT));
	assert_non_null(wrong_data(-1, STAT - 1));
	assert_non_null(wrong_data(LONG, LONG + STAT - 1));
}

static void put_names(int32_t claim, int32_t count, const char *name)
{
	begin(1, 0);
	put32(claim);
	while (count-- > 0)
		put_string(name);
}

static const char *wrong_names(int32_t claim, int32_t count, const char *name)
{
	put_names(claim, count, name);
	return wrong_reply(ZK_REPLY_CHILDREN);
}

static void test_children(void **state)
{
	(void)state;
	assert_null(wrong_names(0, 0, ""));
	assert_null(wrong_names(3, 3, "abc"));
	assert_null(wrong_names(3, 3, ""));
	assert_null(wrong_names(20000, 20000, "of a group"));
	static const int32_t claims[] = {-1, INT32_MIN, INT32_MAX, 3 << 24};
	for (size_t i = 0; i < 4; i++) {
		assert_says(wrong_names(claims[i], 3, "abc"), "list");
		assert_says(wrong_names(claims[i], 20000, "abc"), "list");
	}
	assert_says(wrong_names(4, 3, "abcd"), "name");
	assert_says(wrong_names(4, 3, ""), "list");
	/* A name longer than the rest, at hand and not. */
	put_names(20000, 20000, "abcd");
	frame.data[24] = 1;
	assert_says(wrong_reply(ZK_REPLY_CHILDREN), "name");
	put_names(20000, 20000, "abcd");
	frame.data[24 + 8 * 19999] = 1;
	assert_null(wrong_reply(ZK_REPLY_CHILDREN));
}

static void test_paths(void **state)
{
	(void)state;
	begin(1, 0);
	put_string("/a/b");
	assert_null(wrong_reply(ZK_REPLY_PATH));
	assert_non_null(wrong_reply(ZK_REPLY_CREATED));
	put_zeros(STAT);
	assert_null(wrong_reply(ZK_REPLY_CREATED));
	begin(1, 0);
	put_string("a/b");
	put_zeros(STAT);
	assert_non_null(wrong_reply(ZK_REPLY_PATH));
	assert_non_null(wrong_reply(ZK_REPLY_CREATED));
	begin(1, 0);
	put32(-1);
	put_zeros(STAT);
	assert_non_null(wrong_reply(ZK_REPLY_PATH));
	assert_non_null(wrong_reply(ZK_REPLY_CREATED));
}

static void test_transactions(void **state)
{
	(void)state;
	begin(1, 0);
	put_result(13, false, 0);
	assert_non_null(wrong_reply(ZK_REPLY_CHECK)); /* no end */
	put_result(-1, true, -1);
	assert_null(wrong_reply(ZK_REPLY_CHECK));
	assert_non_null(wrong_reply(ZK_REPLY_DELETE_BOTH));
	begin(1, 0);
	put_result(-1, true, -1);
	assert_non_null(wrong_reply(ZK_REPLY_CHECK)); /* nothing in it */
	begin(1, 0);
	put_result(2, false, 0);
	put_result(1, false, 0);
	put_string("/a");
	put_result(-1, true, -1);
	assert_null(wrong_reply(ZK_REPLY_REPLACE));
	assert_non_null(wrong_reply(ZK_REPLY_DELETE_BOTH));
	begin(1, 0);
	for (int i = 0; i < 2; i++) {
		put_result(-1, false, i ? -2 : -101);
		put32(i ? -2 : -101);
	}
	assert_non_null(wrong_reply(ZK_REPLY_REPLACE));
	put_result(-1, true, -1);
	assert_null(wrong_reply(ZK_REPLY_REPLACE));
	assert_null(wrong_reply(ZK_REPLY_DELETE_BOTH));
	begin(1, 0);
	for (int i = 0; i < 1000; i++)
		put_result(2, false, 0);
	assert_non_null(wrong_reply(ZK_REPLY_DELETE_BOTH));
}

/* Longer than anything there is to say. */
static void test_long(void **state)
{
	(void)state;
	struct zk_asked asked = {.any = true, .auth = true};
	static const int32_t xids[] = {-1, -2, -4, -8, 1};
	for (size_t i = 0; i < 5; i++)
		for (int reply = ZK_REPLY_NOTHING; reply <= ZK_REPLY_DELETE_BOTH; reply++) {
			asked.reply = (enum zk_reply)reply;
			bool may = xids[i] == 1 &&
				   (reply == ZK_REPLY_DATA || reply == ZK_REPLY_CHILDREN);
			begin(xids[i], 0);
			put_zeros(ZK_FRAME_WHOLE);
			assert_true(!wrong(&asked) == may);
			begin(xids[i], -4);
			put_zeros(ZK_FRAME_WHOLE);
			assert_says(wrong(&asked), "more");
		}
}

static void welcome(int32_t len, int32_t timeout_ms, int32_t session, int32_t password)
{
	frame.len = 0;
	put32(len);
	put32(0);
	put32(timeout_ms);
	put32(0);
	put32(session);
	put32(password);
	put_zeros(17);
}

static const char *welcome_wrong(int64_t session)
{
	struct zk_asked asked = {.session = session};
	size_t need = 1;
	const char *ret = NULL;
	for (size_t len = 0; len <= 41 && need; len++) {
		char *copy = malloc(len ? len : 1);
		assert_non_null(copy);
		memcpy(copy, frame.data, len);
		assert_null(ret);
		ret = zk_welcome_wrong((struct coord_bytes){copy, len}, &asked, &need);
		assert_true(need == 0 || need > len);
		free(copy);
	}
	assert_int_equal(need, 0);
	return ret;
}

static void test_welcome(void **state)
{
	(void)state;
	for (int32_t len = 36; len <= 37; len++) {
		welcome(len, 4000, SESSION, 16);
		assert_null(welcome_wrong(0));
		assert_null(welcome_wrong(SESSION));
		assert_says(welcome_wrong(SESSION + 1), "another");
		welcome(len, 0, 0, 16); /* the session is over */
		assert_null(welcome_wrong(SESSION));
		assert_says(welcome_wrong(0), "without time");
		welcome(len, 0, SESSION, 16);
		assert_says(welcome_wrong(0), "without time");
		welcome(len, 4000, 0, 16);
		assert_says(welcome_wrong(SESSION), "without time");
		welcome(len, -1, SESSION, 16);
		assert_says(welcome_wrong(0), "without time");
		welcome(len, 1 << 30, SESSION, 16);
		assert_says(welcome_wrong(0), "without time");
		static const int32_t passwords[] = {0, 15, 17, -1, 1 << 30};
		for (size_t i = 0; i < 5; i++) {
			welcome(len, 4000, SESSION, passwords[i]);
			assert_says(welcome_wrong(0), "password");
		}
		welcome(len, 4000, SESSION, 16);
		frame.data[40] = 1;
		assert_true(!welcome_wrong(0) == (len == 36));
	}
	static const int32_t lengths[] = {0, 35, 38, -1, INT32_MIN, INT32_MAX};
	for (size_t i = 0; i < 6; i++) {
		welcome(lengths[i], 4000, SESSION, 16);
		assert_says(welcome_wrong(0), "length");
		assert_false(zk_is_welcome((struct coord_bytes){frame.data, 4}));
	}
	assert_false(zk_is_welcome((struct coord_bytes){frame.data, 3}));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_xids),
		cmocka_unit_test(test_notices),
		cmocka_unit_test(test_stat),
		cmocka_unit_test(test_data),
		cmocka_unit_test(test_children),
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_transactions),
		cmocka_unit_test(test_long),
		cmocka_unit_test(test_welcome),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
