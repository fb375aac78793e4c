/* SPDX-License-Identifier: Apache-2.0 */
/* Configurations: options of URL and mount, defaults, refusals, and no secret in any text. */
#include "coord/config.h"
#include "coord/driver.h"
#include "tests/unit/unit.h"

static const struct coord_param params[] = {
	{"size", COORD_PARAM_UINT, "32", "how many", 0, 1, 64},
	{"big", COORD_PARAM_UINT, NULL, "a number", 0, 0, 0},
	{"ssl", COORD_PARAM_BOOL, "false", "use TLS", 0, 0, 0},
	{"pause", COORD_PARAM_SECONDS, "0.25", "a pause", 0, 100, 0},
	{"fallback", COORD_PARAM_STRING, NULL, "more hosts", COORD_PARAM_LIST, 0, 0},
	{"token", COORD_PARAM_STRING, NULL, "a secret", COORD_PARAM_SECRET, 0, 0},
	{"pin", COORD_PARAM_UINT, NULL, "a secret number", COORD_PARAM_SECRET, 0, 0},
	{"executor", COORD_PARAM_BOOL, NULL, "Python's", COORD_PARAM_IGNORED, 0, 0},
	{0},
};
static const struct coord_driver leased = {
	.name = "leased", .params = params, .can = COORD_CAN_ALL};
static const struct coord_driver process = {.name = "process",
	.can = COORD_CAN_ALL,
	.loss = {COORD_LOSS_PROCESS, COORD_LOSS_PROCESS, COORD_LOSS_PROCESS}};
static const struct coord_driver mixed = {.name = "mixed",
	.can = COORD_CAN_GROUPS,
	.loss = {COORD_LOSS_CONNECTION, COORD_LOSS_CONNECTION, COORD_LOSS_LEASE}};

static char *error;

static int make(const struct coord_driver *driver, const char *text,
	const struct coord_option *options, size_t options_len, struct coord_config **ret)
{
	struct coord_url url;
	assert_int_equal(coord_url_parse(text, &url, &error), 0);
	int r = coord_config_new(driver, &url, options, options_len, NULL, NULL, "me", ret, &error);
	if (r < 0)
		coord_url_done(&url);
	else
		assert_null(url.scheme); /* taken over */
	return r;
}

static struct coord_config *must(const struct coord_driver *driver, const char *text)
{
	struct coord_config *config = NULL;
	assert_int_equal(make(driver, text, NULL, 0, &config), 0);
	return config;
}

static void refused(const struct coord_driver *driver, const char *text, const char *words)
{
	struct coord_config *config = NULL;
	assert_int_equal(make(driver, text, NULL, 0, &config), -EINVAL);
	assert_null(config);
	assert_non_null(error);
	if (!strstr(error, words))
		print_error("'%s' lacks '%s'\n", error, words);
	assert_non_null(strstr(error, words));
	assert_null(strstr(error, "sesame"));
	free(error);
	error = NULL;
}

static void test_defaults(void **state)
{
	struct coord_config *config = must(&leased, "leased://h");
	assert_int_equal(config->timeout_ms, 10000);
	assert_int_equal(config->lock_timeout_ms, 10000);
	assert_int_equal(config->membership_timeout_ms, 10000);
	assert_int_equal(coord_config_uint(config, "size"), 32);
	assert_string_equal(coord_config_string(config, "size"), "32");
	assert_int_equal(coord_config_uint(config, "big"), 0);
	assert_null(coord_config_string(config, "big"));
	assert_int_equal(coord_config_uint(config, "pause"), 250);
	assert_false(coord_config_bool(config, "ssl"));
	assert_null(coord_config_list(config, "fallback", 0));
	assert_string_equal(config->member, "me");
	assert_string_equal(config->shown, "leased://h");
	assert_int_equal(config->identity.pid, getpid());
	assert_ptr_equal(config->driver, &leased);
	coord_config_free(config);
	coord_config_free(NULL);
}

static void test_values(void **state)
{
	struct coord_config *config = must(&leased,
		"leased://u:p@h/x?size=64&size=7&ssl=YES&fallback=a:1&fallback=b:2&timeout=20.5&"
		"lock_timeout=3&executor=sync&pause=.1234&token=sesame&big=18446744073709551615");
	assert_int_equal(coord_config_uint(config, "size"), 7); /* the last counts */
	assert_true(coord_config_bool(config, "ssl"));
	assert_string_equal(coord_config_list(config, "fallback", 0), "a:1");
	assert_string_equal(coord_config_list(config, "fallback", 1), "b:2");
	assert_null(coord_config_list(config, "fallback", 2));
	assert_string_equal(coord_config_string(config, "fallback"), "b:2");
	assert_int_equal(config->timeout_ms, 20500);
	assert_int_equal(config->lock_timeout_ms, 3000);
	assert_int_equal(config->membership_timeout_ms, 20500);
	assert_int_equal(coord_config_uint(config, "pause"), 123);
	assert_true(coord_config_uint(config, "big") == UINT64_MAX);
	assert_string_equal(coord_config_string(config, "token"), "sesame");
	assert_null(strstr(config->shown, "sesame"));
	assert_string_equal(config->url.password, "p");
	coord_config_free(config);
}

static void test_outside_wins(void **state)
{
	const struct coord_option options[] = {
		{"fallback", "c"}, {"fallback", "d"}, {"size", "1"}, {"token", ""}};
	struct coord_config *config = NULL;
	assert_int_equal(
		make(&leased, "leased://h?fallback=a&fallback=b&size=2&ssl=1", options, 4, &config),
		0);
	assert_string_equal(coord_config_list(config, "fallback", 0), "c");
	assert_string_equal(coord_config_list(config, "fallback", 1), "d");
	assert_null(coord_config_list(config, "fallback", 2));
	assert_int_equal(coord_config_uint(config, "size"), 1);
	assert_true(coord_config_bool(config, "ssl"));
	assert_string_equal(coord_config_string(config, "token"), "");
	coord_config_free(config);
}

static void test_credentials(void **state)
{
	static const char *const texts[] = {"leased://a:b@h", "leased://h"};
	for (size_t i = 0; i < 2; i++) {
		struct coord_url url;
		struct coord_config *config;
		assert_int_equal(coord_url_parse(texts[i], &url, &error), 0);
		assert_int_equal(coord_config_new(&leased, &url, NULL, 0, "user", "sesame", NULL,
					 &config, &error),
			0);
		assert_string_equal(config->url.user, "user");
		assert_string_equal(config->url.password, "sesame");
		assert_string_equal(config->shown, "leased://user@h");
		char host[256];
		assert_int_equal(gethostname(host, sizeof(host)), 0);
		assert_string_equal(config->member, host);
		coord_config_free(config);
	}
}

static void test_refusals(void **state)
{
	refused(&leased, "leased://h?sise=3", "'sise'");
	refused(&leased, "leased://h?sise=3",
		"size, big, ssl, pause, fallback, token, pin, timeout, lock_timeout, "
		"membership_timeout; accepted without effect: executor");
	refused(&process, "process://h?x=1", "knows: timeout, lock_timeout, membership_timeout");
	refused(&leased, "leased://h?size=0", "'size': '0' is not a whole number from 1 to 64");
	refused(&leased, "leased://h?size=65", "'65'");
	refused(&leased, "leased://h?size=1x", "'1x'");
	refused(&leased, "leased://h?size=-1", "'-1'");
	refused(&leased, "leased://h?size=1.0", "'1.0'");
	refused(&leased, "leased://h?big=18446744073709551616", "whole number");
	refused(&leased, "leased://h?ssl=maybe", "not true or false");
	refused(&leased, "leased://h?pause=0.0999", "from 0.1 on");
	refused(&leased, "leased://h?pause=1.2.3", "seconds");
	refused(&leased, "leased://h?pause=.", "seconds");
	refused(&leased, "leased://h?pause=1e3", "seconds");
	refused(&leased, "leased://h?timeout=0", "from 0.001 to 86400");
	refused(&leased, "leased://h?timeout=99999999999999999999", "timeout");
	refused(&leased, "leased://h?pin=sesame", "'pin': what was given is not a whole number");
	refused(&leased, "leased://x:sesame@h?token=sesame&zz=sesame", "'zz'");
}

static void test_leases(void **state)
{
	refused(&leased, "leased://h?timeout=2", "'timeout'");
	refused(&leased, "leased://h?lock_timeout=2.999", "'lock_timeout'");
	refused(&leased, "leased://h?membership_timeout=1", "'membership_timeout'");
	refused(&mixed, "mixed://h?membership_timeout=1", "'membership_timeout'");
	coord_config_free(
		must(&leased, "leased://h?timeout=1&lock_timeout=3&membership_timeout=3"));
	coord_config_free(must(&process, "process://h?timeout=1"));
	coord_config_free(must(&mixed, "mixed://h?lock_timeout=1"));
}

static void test_members(void **state)
{
	struct coord_url url;
	struct coord_config *config = NULL;
	char longest[257];
	memset(longest, 'm', 256);
	longest[256] = '\0';
	const char *const members[] = {"", longest};
	assert_int_equal(coord_url_parse("process://h", &url, &error), 0);
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(coord_config_new(&process, &url, NULL, 0, NULL, NULL, members[i],
					 &config, &error),
			-EINVAL);
		assert_non_null(strstr(error, "member"));
		free(error);
	}
	coord_url_done(&url);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_outside_wins),
		cmocka_unit_test(test_credentials),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_leases),
		cmocka_unit_test(test_members),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
