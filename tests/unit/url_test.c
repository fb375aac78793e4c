/* SPDX-License-Identifier: Apache-2.0 */
/* Connection strings: split as tooz does, and never shown with their secrets. */
#include "coord/config.h"
#include "tests/unit/unit.h"

static struct coord_url parse(const char *text)
{
	struct coord_url url = {0};
	char *error = NULL;
	int r = coord_url_parse(text, &url, &error);
	if (r < 0)
		print_error("%s: %s\n", text, error);
	assert_int_equal(r, 0);
	return url;
}

static void check_text(const char *got, const char *wanted)
{
	if (wanted) {
		assert_non_null(got);
		assert_string_equal(got, wanted);
	} else {
		assert_null(got);
	}
}

static void test_parts(void **state)
{
	static const struct {
		const char *text, *scheme, *user, *password, *host, *netloc, *path;
		unsigned port;
	} cases[] = {
		{"file:///var/lib/tooz", "file", NULL, NULL, NULL, NULL, "/var/lib/tooz", 0},
		{"file:/var/lib", "file", NULL, NULL, NULL, NULL, "/var/lib", 0},
		{"memory://", "memory", NULL, NULL, NULL, NULL, NULL, 0},
		{"REDIS://Host.Example:6379", "redis", NULL, NULL, "host.example",
			"Host.Example:6379", NULL, 6379},
		{"redis://:p%40ss@h", "redis", NULL, "p%40ss", "h", "h", NULL, 0},
		{"redis://u:a:b@c@h:1/2", "redis", "u", "a:b@c", "h", "h:1", "/2", 1},
		{"redis://u@[2001:DB8::1]:99", "redis", "u", NULL, "2001:db8::1",
			"[2001:DB8::1]:99", NULL, 99},
		{"redis://[fe80::A%25Eth0]", "redis", NULL, NULL, "fe80::a%25Eth0",
			"[fe80::A%25Eth0]", NULL, 0},
		{"zookeeper://h1:2181,h2:2182,[::1]:3/chroot", "zookeeper", NULL, NULL, "h1",
			"h1:2181,h2:2182,[::1]:3", "/chroot", 2181},
		{"kazoo://u:p@h1,h2", "kazoo", "u", "p", "h1", "h1,h2", NULL, 0},
		{"etcd3+http://h:2379", "etcd3+http", NULL, NULL, "h", "h:2379", NULL, 2379},
		{"mysql://u:p@h/db%20x#frag", "mysql", "u", "p", "h", "h", "/db%20x", 0},
		{"postgresql://h?a=b", "postgresql", NULL, NULL, "h", "h", NULL, 0},
		{"redis://h:", "redis", NULL, NULL, "h", "h:", NULL, 0},
		{"redis://@h", "redis", NULL, NULL, "h", "h", NULL, 0},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct coord_url url = parse(cases[i].text);
		check_text(url.scheme, cases[i].scheme);
		check_text(url.user, cases[i].user);
		check_text(url.password, cases[i].password);
		check_text(url.host, cases[i].host);
		check_text(url.netloc, cases[i].netloc);
		check_text(url.path, cases[i].path);
		assert_int_equal(url.port, cases[i].port);
		coord_url_done(&url);
	}
}

static void test_options(void **state)
{
	struct coord_url url =
		parse("redis://h/0?a=1&b=x+y%2B%26&blank=&none&a=2&%63=%C3%BC&=v&&a=%3D=#f?g=h");
	static const char *const wanted[][2] = {
		{"a", "1"}, {"b", "x y+&"}, {"a", "2"}, {"c", "\xc3\xbc"}, {"", "v"}, {"a", "=="}};
	assert_int_equal(url.options_len, 6);
	for (size_t i = 0; i < 6; i++) {
		assert_string_equal(url.options[i].name, wanted[i][0]);
		assert_string_equal(url.options[i].value, wanted[i][1]);
	}
	coord_url_done(&url);
	coord_url_done(&url); /* again does nothing */
	coord_url_done(NULL);
}

static void test_refused(void **state)
{
	static const char *const texts[] = {"", "redis", "://h", "1redis://h", "re_dis://h",
		"/var/lib", "redis://h:port", "redis://h:65536", "redis://h:-1", "redis://h:1:2",
		"redis://::1", "redis://[::1", "redis://::1]", "redis://[::1]x", "redis://a[b]",
		"redis://h\n", "redis://h?a=%", "redis://h?a=%4", "redis://h?a=%zz",
		"redis://h?a=%00", "redis://h?a=%0A", "redis://h?%7f=a", "redis://h1,h2:x",
		"redis://\x7f"};
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct coord_url url = {.port = 7};
		char *error = NULL;
		assert_int_equal(coord_url_parse(texts[i], &url, &error), -EINVAL);
		assert_non_null(error);
		assert_int_equal(url.port, 7);
		free(error);
	}
	char *longer = calloc(1, 9000), *error = NULL;
	struct coord_url url;
	assert_non_null(longer);
	memset(longer, 'x', 8999);
	memcpy(longer, "file:///", 8);
	assert_int_equal(coord_url_parse(longer, &url, &error), -EINVAL);
	free(error);
	longer[8192] = '\0';
	url = parse(longer);
	coord_url_done(&url);
	free(longer);
}

/* Wherever a password with special characters ends up, no text of ours shows it. */
static void test_no_password_in_errors(void **state)
{
	static const char *const texts[] = {"redis://:sesame/x@h:1", "redis://u:sesame#x@h",
		"redis://u:sesame?x=%zz@h", "redis://u:ses\name@h", "redis://u:sesame@h:99999"};
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct coord_url url;
		char *error = NULL;
		assert_int_equal(coord_url_parse(texts[i], &url, &error), -EINVAL);
		assert_null(strstr(error, "ses"));
		free(error);
	}
}

static void check_scrubbed(const char *text, const struct coord_param *params, const char *wanted)
{
	struct coord_url url = parse(text);
	char *shown = coord_url_scrub(&url, params);
	assert_non_null(shown);
	assert_string_equal(shown, wanted);
	free(shown);
	coord_url_done(&url);
}

static void test_scrub(void **state)
{
	static const struct coord_param params[] = {
		{.name = "sentinel"}, {.name = "key", .flags = COORD_PARAM_SECRET}, {0}};
	check_scrubbed("redis://u:p@H:1/2?sentinel=my%20master&key=abc&odd=x&timeout=5", params,
		"redis://u@H:1/2?sentinel=my%20master&key=***&odd=***&timeout=5");
	check_scrubbed("redis://:p@h", NULL, "redis://h");
	check_scrubbed("redis://h?sentinel=m", NULL, "redis://h?sentinel=***");
	check_scrubbed("file:/var/lib", NULL, "file:///var/lib");
	check_scrubbed("file:////var", NULL, "file:////var");
	check_scrubbed("memory://", NULL, "memory://");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parts),
		cmocka_unit_test(test_options),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_no_password_in_errors),
		cmocka_unit_test(test_scrub),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
