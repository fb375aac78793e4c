/* SPDX-License-Identifier: Apache-2.0 */
/* The options of redis:// URLs, and what replies mean. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "coord/driver.h"
#include "drivers/redis/conn.h"
#include "drivers/redis/options.h"

static const struct coord_driver driver = {
	.abi = COORD_DRIVER_ABI, .name = "redis", .params = redis_params, .can = COORD_CAN_GROUPS};

/* Reads a URL; *ret_config must outlive *ret. Returns what the first step that failed did. */
static int read_url(const char *text, struct coord_config **ret_config, struct redis_options *ret,
	char **ret_error)
{
	struct coord_url url;
	*ret_config = NULL;
	*ret = (struct redis_options){0};
	int r = coord_url_parse(text, &url, ret_error);
	if (r < 0)
		return r;
	r = coord_config_new(&driver, &url, NULL, 0, NULL, NULL, "me", ret_config, ret_error);
	if (r < 0) {
		coord_url_done(&url);
		return r;
	}
	return redis_options_read(*ret_config, ret, ret_error);
}

static void check_refused(const char *text, const char *why)
{
	struct coord_config *config;
	struct redis_options options;
	char *error = NULL;
	assert_int_equal(read_url(text, &config, &options, &error), -EINVAL);
	assert_non_null(error);
	if (!strstr(error, why))
		fail_msg("%s: '%s' does not say '%s'", text, error, why);
	free(error);
	coord_config_free(config);
}

static void read_good(const char *text, struct coord_config **ret_config, struct redis_options *ret)
{
	char *error = NULL;
	if (read_url(text, ret_config, ret, &error))
		fail_msg("%s: %s", text, error ? error : "refused without a word");
}

static void done(struct coord_config *config, struct redis_options *options)
{
	redis_options_done(options);
	coord_config_free(config);
}

static void defaults(void **state)
{
	struct coord_config *config;
	struct redis_options options;
	read_good("redis://Server", &config, &options);
	assert_string_equal(options.server.host, "server");
	assert_int_equal(options.server.port, 6379);
	assert_null(options.server.path);
	assert_null(options.user);
	assert_null(options.password);
	assert_int_equal(options.db, 0);
	assert_string_equal(options.name_space, "_tooz");
	assert_int_equal(options.dialect, REDIS_DIALECT_BOTH);
	assert_int_equal(options.lock_timeout_ms, 10000);
	assert_int_equal(options.membership_timeout_ms, 10000);
	assert_int_equal(options.socket_timeout_ms, 2500);
	assert_int_equal(options.connect_timeout_ms, 2500);
	assert_int_equal(options.health_ms, 2500);
	assert_true(options.keepalive);
	assert_false(options.ssl);
	assert_null(options.sentinel);
	assert_int_equal(options.sentinels_len, 0);
	done(config, &options);

	read_good("redis://", &config, &options);
	assert_string_equal(options.server.host, "localhost");
	redis_options_done(&options);
	done(config, &options);
}

static void all_given(void **state)
{
	struct coord_config *config;
	struct redis_options options;
	read_good("redis://u:p%40ss@[::1]:7000?db=3&namespace=ns&lock_dialect=old&timeout=30"
		  "&lock_timeout=4&membership_timeout=60&socket_timeout=0.5&"
		  "socket_connect_timeout=7&socket_keepalive=no&health_check_interval=0.25"
		  "&ssl=1&ssl_certfile=/c&ssl_keyfile=/k&ssl_ca_certs=/a&encoding=x"
		  "&retry_on_timeout=maybe",
		&config, &options);
	assert_string_equal(options.server.host, "::1");
	assert_int_equal(options.server.port, 7000);
	assert_string_equal(options.user, "u");
	assert_string_equal(options.password, "p%40ss");
	assert_int_equal(options.db, 3);
	assert_string_equal(options.name_space, "ns");
	assert_int_equal(options.dialect, REDIS_DIALECT_OLD);
	assert_int_equal(options.timeout_ms, 30000);
	assert_int_equal(options.lock_timeout_ms, 4000);
	assert_int_equal(options.membership_timeout_ms, 60000);
	assert_int_equal(options.socket_timeout_ms, 500);
	assert_int_equal(options.connect_timeout_ms, 7000);
	assert_int_equal(options.health_ms, 250);
	assert_false(options.keepalive);
	assert_true(options.ssl);
	assert_string_equal(options.ssl_certfile, "/c");
	assert_string_equal(options.ssl_keyfile, "/k");
	assert_string_equal(options.ssl_ca_certs, "/a");
	done(config, &options);
}

static void sockets_and_sentinels(void **state)
{
	struct coord_config *config;
	struct redis_options options;
	read_good("redis://:pw@/run/redis.sock", &config, &options);
	assert_string_equal(options.server.path, "/run/redis.sock");
	assert_null(options.server.host);
	assert_null(options.user);
	assert_string_equal(options.password, "pw");
	done(config, &options);

	read_good("redis://s1?sentinel=m&sentinel_fallback=s2:1&sentinel_fallback=[::2]"
		  "&sentinel_fallback=[::3]:3&sentinel_username=a&sentinel_password=b"
		  "&sentinel_ssl=true",
		&config, &options);
	assert_string_equal(options.sentinel, "m");
	assert_string_equal(options.sentinel_user, "a");
	assert_string_equal(options.sentinel_password, "b");
	assert_true(options.sentinel_ssl);
	assert_int_equal(options.sentinels_len, 4);
	static const struct redis_address expected[] = {{.host = (char *)"s1", .port = 26379},
		{.host = (char *)"s2", .port = 1}, {.host = (char *)"::2", .port = 26379},
		{.host = (char *)"::3", .port = 3}};
	for (size_t i = 0; i < 4; i++) {
		assert_string_equal(options.sentinels[i].host, expected[i].host);
		assert_int_equal(options.sentinels[i].port, expected[i].port);
	}
	assert_null(strstr(config->shown, "sentinel_password=b"));
	done(config, &options);
}

static void refusals(void **state)
{
	check_refused("redis://h?lock_timeout=0", "lock_timeout");
	check_refused("redis://h?lock_timeout=2", "3 s is the least");
	check_refused("redis://h?timeout=1", "3 s is the least");
	check_refused("redis://h?db=-1", "db");
	check_refused("redis://h?db=x", "db");
	check_refused("redis://h?nonsense=1", "unknown option 'nonsense'");
	check_refused("redis://h?lock_dialect=other", "not both, new or old");
	check_refused("redis://h?ssl=maybe", "true or false");
	check_refused("redis:///sock?ssl=1", "UNIX socket");
	check_refused("redis:///sock?sentinel=m", "must name a sentinel");
	check_refused("redis://h?sentinel_fallback=h:1", "without 'sentinel'");
	check_refused("redis://h?sentinel=m&sentinel_fallback=h:0", "not host:port");
	check_refused("redis://h?sentinel=m&sentinel_fallback=h:99999", "not host:port");
	check_refused("redis://h?sentinel=m&sentinel_fallback=::1", "not host:port");
	check_refused("redis://h?sentinel=m&sentinel_fallback=[::1", "not host:port");
	check_refused("redis://h?sentinel=m&sentinel_fallback=[::1]x", "not host:port");
	check_refused("redis://h1,h2", "one host");
	check_refused("redis://h?ssl_keyfile=/k", "without 'ssl_certfile'");
	check_refused("redis://h?ssl_certfile=/c", "in the clear");
	check_refused("redis://h?ssl_ca_certs=/c&ssl=false", "'ssl_ca_certs'");
	check_refused("redis://h?ssl_ca_certs=/c&sentinel_ssl=true", "in the clear");
	check_refused("redis://h?ssl_ca_certs=/c&sentinel=m", "in the clear");
	char url[600] = "redis://h?namespace=";
	memset(url + strlen(url), 'n', 201);
	check_refused(url, "namespace");
}

static int errno_of(const char *text)
{
	const redisReply reply = {
		.type = REDIS_REPLY_ERROR, .str = (char *)text, .len = (int)strlen(text)};
	return redis_errno(&reply);
}

static void errors(void **state)
{
	static const struct {
		const char *text;
		int status;
	} cases[] = {
		{"NOAUTH Authentication required.", -EACCES},
		{"WRONGPASS invalid username-password pair or user is disabled.", -EACCES},
		{"NOPERM this user has no permissions to run the 'get' command", -EACCES},
		{"DENIED Redis is running in protected mode", -EACCES},
		{"ERR The user executing the script can't run this command or subcommand script: "
		 "f_1, on @user_script:1.",
			-EACCES},
		{"ERR Error running script (call to f_1): @user_script:1: The user executing the "
		 "script can't access at least one of the keys",
			-EACCES},
		{"READONLY You can't write against a read only replica.", -EHOSTDOWN},
		{"LOADING Redis is loading the dataset in memory", -EHOSTDOWN},
		{"MASTERDOWN Link with MASTER is down", -EHOSTDOWN},
		{"CLUSTERDOWN Hash slot not served", -EHOSTDOWN},
		{"NOREPLICAS Not enough good replicas to write.", -EHOSTDOWN},
		{"BUSY Redis is busy running a script.", -EHOSTDOWN},
		{"OOM command not allowed when used memory > 'maxmemory'.", -ENOSPC},
		{"MISCONF Redis is configured to save RDB snapshots", -ENOSPC},
		{"WRONGTYPE Operation against a key", -EBADMSG},
		{"WRONGTYPE Operation against a key script: 1, on @user_script:1.", -EBADMSG},
		{"NOSCRIPT No matching script. Please use EVAL.", -EIO},
		{"MOVED 3999 127.0.0.1:6381", -EOPNOTSUPP},
		{"CROSSSLOT Keys in request don't hash to the same slot", -EOPNOTSUPP},
		{"ERR unknown command 'X'", -EOPNOTSUPP},
		{"ERR max number of clients reached", -EHOSTDOWN},
		{"ERR syntax error", -EIO},
		{"ERR Error running script (call to f_1): @user_script:1: -READONLY You can't",
			-EHOSTDOWN},
		{"ERR Error running script (call to f_1): @user_script:1: @user_script: 1: "
		 "-OOM command",
			-ENOSPC},
		{"ERR Error running script (call to f_1): @user_script:1: WRONGTYPE Operation",
			-EBADMSG},
		{"ERR Error running script (call to f_1): @user_script:1: what", -EIO},
		{"ERR Error running script", -EIO},
		{"OOMPH", -EIO},
		{"OOM", -ENOSPC},
		{"", -EIO},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		if (errno_of(cases[i].text) != cases[i].status)
			fail_msg("'%s': %d", cases[i].text, errno_of(cases[i].text));
	const redisReply nil = {.type = REDIS_REPLY_NIL};
	assert_int_equal(redis_errno(&nil), 0);
	assert_false(redis_error_is(&nil, "OOM"));
	assert_false(redis_error_has(&nil, "OOM"));
	char text[] = "ERR Error running script (call to f_1): @user_script:1: @user_script: 1: "
		      "-READONLY You can't write";
	const redisReply wrapped = {
		.type = REDIS_REPLY_ERROR, .str = text, .len = sizeof(text) - 1};
	assert_true(redis_error_has(&wrapped, "READONLY"));
	assert_true(redis_error_has(&wrapped, "ERR"));
	assert_false(redis_error_has(&wrapped, "READ"));
	assert_false(redis_error_is(&wrapped, "READONLY"));
}

static void infos(void **state)
{
	char text[] = "# Server\r\nredis_version:7.0.15\r\nrole:master\r\nempty:\r\n\r\nlast:x";
	const redisReply info = {.type = REDIS_REPLY_STRING, .str = text, .len = sizeof(text) - 1};
	static const char *const cases[][2] = {{"redis_version", "7.0.15"}, {"role", "master"},
		{"empty", ""}, {"last", "x"}, {"version", ""}, {"rol", ""}};
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		assert_true(coord_bytes_equal(
			redis_info(&info, cases[i][0]), coord_bytes_of(cases[i][1])));
	const redisReply nil = {.type = REDIS_REPLY_NIL};
	assert_int_equal(redis_info(&nil, "role").len, 0);
	static const struct {
		const char *text;
		unsigned number;
	} versions[] = {{"7.0.15", 70015}, {"2.6.0", 20600}, {"6", 60000}, {"255.255.255", 2559999},
		{"7.2-rc1", 70200}, {"", 0}, {"x", 0}, {"99999999999.1", 0}, {"1.2.3.4", 10203}};
	for (size_t i = 0; i < sizeof(versions) / sizeof(*versions); i++)
		assert_int_equal(
			redis_parse_version(coord_bytes_of(versions[i].text)), versions[i].number);
	char out[8];
	redis_printable("a\nb\x1b"
			"cdefghi",
		11, out, sizeof(out));
	assert_string_equal(out, "a?b?cde");
	struct redis_script script = {.body = "return 1"};
	redis_script_prepare(&script);
	assert_string_equal(script.sha, "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
}

/* Feeds bytes to hiredis' reader with our limits. Returns whether it took them. */
static bool reads(const char *text)
{
	redisReader *reader = redisReaderCreate();
	struct redis_reader_limits limits;
	void *reply = NULL;
	redis_reader_limit(reader, &limits);
	redisReaderFeed(reader, text, strlen(text));
	bool good = redisReaderGetReply(reader, &reply) == REDIS_OK;
	if (reply)
		freeReplyObject(reply);
	redisReaderFree(reader);
	return good;
}

static void reader_limits(void **state)
{
	assert_true(reads("*2\r\n:1\r\n*1\r\n$-1\r\n"));
	assert_true(reads("*1000000\r\n"));
	assert_false(reads("*2000000\r\n"));
	assert_false(reads("*2147483647\r\n"));
	assert_false(reads("*1\r\n*2147483647\r\n"));
	assert_false(reads("*99999999999999\r\n"));
	assert_false(reads("*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n"));
	assert_false(reads("HTTP/1.1 200 OK\r\n"));
	assert_false(reads(">1\r\n"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(defaults),
		cmocka_unit_test(all_given),
		cmocka_unit_test(sockets_and_sentinels),
		cmocka_unit_test(refusals),
		cmocka_unit_test(errors),
		cmocka_unit_test(infos),
		cmocka_unit_test(reader_limits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
