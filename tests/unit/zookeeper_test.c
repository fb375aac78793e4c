/* SPDX-License-Identifier: Apache-2.0 */
/* The ZooKeeper driver's pure functions: names and paths, contenders, digests, host lists, error codes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "drivers/zookeeper/hosts.h"
#include "drivers/zookeeper/paths.h"
#include "drivers/zookeeper/request.h"

#define LEN(array) (sizeof(array) / sizeof(*(array)))

static void test_root(void **state)
{
	(void)state;
	char root[ZK_ROOT_MAX];
	assert_int_equal(zk_root_make(NULL, "tooz", root), 0);
	assert_string_equal(root, "/tooz");
	assert_int_equal(zk_root_make("/a/b", "c/d", root), 0);
	assert_string_equal(root, "/a/b/c/d");
	static const char *const bad[] = {
		"", "/", "/x", "x/", "a//b", ".", "a/..", "\xc3\xa9", "\n"};
	for (size_t i = 0; i < LEN(bad); i++)
		assert_int_equal(zk_root_make(NULL, bad[i], root), -EINVAL);
	assert_int_equal(zk_root_make("/a/../b", "tooz", root), -EINVAL);
	char big[ZK_ROOT_MAX + 1];
	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	assert_int_equal(zk_root_make(NULL, big, root), -ENAMETOOLONG);
}

static int check(enum coord_kind kind, const char *name)
{
	return zk_name_check(kind, coord_bytes_of(name));
}

static void test_names(void **state)
{
	(void)state;
	for (int kind = COORD_LOCK; kind < COORD_KINDS; kind++) {
		static const char *const good[] = {"x", "with blank", "%41", "..x", "a.b", "~"};
		static const char *const bad[] = {"", ".", "..", "/x", "x/", "a//b", "a/../b",
			"a/.", "\xff", "\xc3\xa9", "\x7f", "a\nb"};
		for (size_t i = 0; i < LEN(good); i++)
			assert_int_equal(check(kind, good[i]), 0);
		for (size_t i = 0; i < LEN(bad); i++)
			assert_int_equal(check(kind, bad[i]), -EINVAL);
		assert_int_equal(check(kind, "a/b"), kind == COORD_LOCK ? 0 : -EINVAL);
		assert_int_equal(zk_name_check(kind, COORD_BYTES("a\0b")), -EINVAL);
	}
	assert_int_equal(check(COORD_GROUP, "locks"), -EINVAL);
	assert_int_equal(check(COORD_LEADER, "locks"), -EINVAL);
	assert_int_equal(check(COORD_MEMBER, "leader"), -EINVAL);
	assert_int_equal(check(COORD_GROUP, "leader"), 0);
	assert_int_equal(check(COORD_LOCK, "locks"), 0);
	/* A directory must not look like a contender of the lock above it. */
	assert_int_equal(check(COORD_LOCK, "a/x__lock__0000000001"), -EINVAL);
	char big[ZK_NAME_MAX + 1];
	memset(big, 'x', sizeof(big));
	struct coord_bytes longest = {big, ZK_NAME_MAX}, longer = {big, ZK_NAME_MAX + 1};
	assert_int_equal(zk_name_check(COORD_MEMBER, longest), 0);
	assert_int_equal(zk_name_check(COORD_MEMBER, longer), -ENAMETOOLONG);
}

static void test_paths(void **state)
{
	(void)state;
	char path[ZK_PATH_MAX];
	zk_path("/tooz", (struct coord_key){COORD_LOCK, COORD_BYTES("a/b")}, path);
	assert_string_equal(path, "/tooz/locks/a/b");
	zk_path("/tooz", (struct coord_key){COORD_GROUP, COORD_BYTES("g")}, path);
	assert_string_equal(path, "/tooz/g");
	zk_path("/tooz", (struct coord_key){COORD_LEADER, COORD_BYTES("g")}, path);
	assert_string_equal(path, "/tooz/g/leader");
	zk_path_member("/tooz", COORD_BYTES("g"), COORD_BYTES("m"), path);
	assert_string_equal(path, "/tooz/g/m");
	zk_path_claim("/tooz", "", path);
	assert_string_equal(path, "/tooz.toozfs/members");
	zk_path_claim("/tooz", "a/../\xff.b-1", path);
	assert_string_equal(path, "/tooz.toozfs/members/a%2f%2e%2e%2f%ff%2eb-1");
	char root[ZK_ROOT_MAX], id[ZK_NAME_MAX + 1];
	memset(root, 'r', sizeof(root) - 1);
	memset(id, '/', sizeof(id) - 1);
	root[sizeof(root) - 1] = id[sizeof(id) - 1] = '\0';
	zk_path_claim(root, id, path);
	assert_int_equal(strlen(path), strlen(root) + strlen(".toozfs/members/") + 3 * ZK_NAME_MAX);
}

static void test_candidates(void **state)
{
	(void)state;
	struct zk_candidate c;
	const char *name = "000102030405060708090a0b0c0d0eff__lock__0000000007";
	assert_true(zk_candidate_parse(name, &c));
	assert_true(c.has_owner && !c.shared && c.owner[15] == 0xff && c.owner[1] == 1);
	assert_string_equal(c.seq, "0000000007");
	name = "000102030405060708090a0b0c0d0effr__lock__-000000007";
	assert_false(zk_candidate_parse(name, &c));
	name = "000102030405060708090a0b0c0d0effr__lock__-0000000007";
	assert_true(zk_candidate_parse(name, &c));
	assert_true(c.has_owner && c.shared);
	assert_string_equal(c.seq, "-0000000007");
	/* What Python's client waits behind, we do, whatever it is. */
	assert_true(zk_candidate_parse("x__lock__0000000001", &c));
	assert_true(!c.has_owner && !c.shared);
	assert_true(zk_candidate_parse("__lock__0000000001", &c));
	name = "000102030405060708090A0B0C0D0EFFr__lock__0000000007";
	assert_true(zk_candidate_parse(name, &c));
	assert_true(!c.has_owner && !c.shared);
	static const char *const others[] = {"", "0000000001", "__lock__", "__lock__000000001",
		"x__rlock__0000000001", "__lock__00000000010", "__lock__--000000001",
		"x__lock__0000000001y", "_lock__0000000001"};
	for (size_t i = 0; i < LEN(others); i++)
		assert_false(zk_candidate_parse(others[i], &c));
	char prefix[ZK_PREFIX_MAX];
	const uint8_t owner[16] = {1, [15] = 0xab};
	zk_candidate_prefix(owner, false, prefix);
	assert_string_equal(prefix, "010000000000000000000000000000ab__lock__");
	zk_candidate_prefix(owner, true, prefix);
	assert_string_equal(prefix, "010000000000000000000000000000abr__lock__");
}

/* Against sha1sum and base64, over the lengths around a block. */
static void test_digest(void **state)
{
	(void)state;
	static const struct {
		size_t len;
		const char *digest;
	} vectors[] = {
		{0, "2jmj7l5rSw0yVb/vlWAYkK/YBwk="},
		{1, "hvfkN/qlp/zhXR3cuerq6jd2Z7g="},
		{55, "wci73CJ5bijA4VFj0giZtlYh1lo="},
		{56, "wtszD2CDhUyZ1LW/tujynyAb5pk="},
		{57, "8I8kkI1oJVURG+f/bwBOeCg9mJo="},
		{63, "A/CfWxWKeoza2SC93Cm4HBilUfU="},
		{64, "AJi6gktcFkJ716ESKlpEKiXsZE0="},
		{65, "EWVTJscI1wMZviYQ6KV9mluVnTs="},
		{119, "7pcQZaqgF+BjKoymx3uzv4sd/FY="},
		{120, "80wUiDhTRqVXCboFbd0IKA3UxtY="},
		{128, "rVs/28tSZ3jCg50vFR6nU5leJqA="},
		{200, "5hz//g2RlaUl/GzwbKLXcRnCSkA="},
	};
	char text[200], digest[ZK_DIGEST_MAX];
	memset(text, 'a', sizeof(text));
	for (size_t i = 0; i < LEN(vectors); i++) {
		zk_digest((struct coord_bytes){text, vectors[i].len}, digest);
		assert_string_equal(digest, vectors[i].digest);
	}
	char *id = zk_digest_id("super", "test");
	assert_string_equal(id, "super:D/InIHSb7yEEbrWz8b9l71RjZJU=");
	free(id);
}

static void test_hosts(void **state)
{
	(void)state;
	struct zk_hosts hosts = {0};
	assert_int_equal(zk_hosts_add(&hosts, "a,b:1, [::1]:3,[fe80::1],::2/x/y"), 0);
	char *text = zk_hosts_text(&hosts);
	assert_string_equal(text, "a:2181,b:1,[::1]:3,[fe80::1]:2181,[::2]:2181");
	assert_string_equal(hosts.chroot, "/x/y");
	free(text);
	zk_hosts_done(&hosts);
	static const char *const bad[] = {
		"a:", "a:0", "a:65536", "a:x", ":1", "[::1", "[::1]x", "[]:1", "a:123456", "a:-1"};
	for (size_t i = 0; i < LEN(bad); i++) {
		assert_int_equal(zk_hosts_add(&hosts, bad[i]), -EINVAL);
		zk_hosts_done(&hosts);
	}
	assert_int_equal(zk_hosts_add(&hosts, "a/x"), 0);
	assert_int_equal(zk_hosts_add(&hosts, "b/y"), -EINVAL);
	zk_hosts_done(&hosts);
	for (int i = 0; i < ZK_HOSTS_MAX; i++)
		assert_int_equal(zk_hosts_add(&hosts, "a"), 0);
	assert_int_equal(zk_hosts_add(&hosts, "a"), -EINVAL);
	zk_hosts_done(&hosts);
}

static void test_errors(void **state)
{
	(void)state;
	static const struct {
		int rc, status;
		enum coord_sent sent;
	} known[] = {
		{ZOK, 0, COORD_SENT_ANSWERED},
		{ZNONODE, -ENOENT, COORD_SENT_ANSWERED},
		{ZNODEEXISTS, -EEXIST, COORD_SENT_ANSWERED},
		{ZNOTEMPTY, -ENOTEMPTY, COORD_SENT_ANSWERED},
		{ZNOAUTH, -EACCES, COORD_SENT_ANSWERED},
		{ZAUTHFAILED, -EACCES, COORD_SENT_UNKNOWN},
		{ZNOTREADONLY, -EROFS, COORD_SENT_ANSWERED},
		{ZCONNECTIONLOSS, -EHOSTDOWN, COORD_SENT_UNKNOWN},
		{ZOPERATIONTIMEOUT, -ETIMEDOUT, COORD_SENT_UNKNOWN},
		{ZSESSIONEXPIRED, -EHOSTDOWN, COORD_SENT_UNKNOWN},
		{ZSESSIONMOVED, -EHOSTDOWN, COORD_SENT_NO},
		{ZINVALIDSTATE, -EHOSTDOWN, COORD_SENT_NO},
		{ZCLOSING, -ECANCELED, COORD_SENT_UNKNOWN},
		{ZMARSHALLINGERROR, -EIO, COORD_SENT_UNKNOWN},
		{ZSYSTEMERROR, -EIO, COORD_SENT_UNKNOWN},
		{-9999, -EIO, COORD_SENT_UNKNOWN},
		{7, -EIO, COORD_SENT_UNKNOWN},
	};
	for (size_t i = 0; i < LEN(known); i++) {
		enum coord_sent sent;
		assert_int_equal(zk_error(known[i].rc, &sent), known[i].status);
		assert_int_equal(sent, known[i].sent);
	}
	/* No code is taken for success but one. */
	for (int rc = -300; rc < 300; rc++) {
		enum coord_sent sent;
		assert_true(rc == ZOK || zk_error(rc, &sent) < 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_root),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_candidates),
		cmocka_unit_test(test_digest),
		cmocka_unit_test(test_hosts),
		cmocka_unit_test(test_errors),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
