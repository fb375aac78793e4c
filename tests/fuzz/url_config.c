/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any text as a URL: refused with a text, or split; what is shown of it can be read again and says the
 * same without the secrets.
 */
#include "coord/driver.h"
#include "tests/fuzz/fuzz.h"

static const struct coord_param params[] = {
	{"n", COORD_PARAM_UINT, "32", "a number", 0, 1, 64},
	{"b", COORD_PARAM_BOOL, "false", "a truth", 0, 0, 0},
	{"s", COORD_PARAM_SECONDS, "0.25", "a time", 0, 100, 0},
	{"l", COORD_PARAM_STRING, NULL, "a list", COORD_PARAM_LIST, 0, 0},
	{"t", COORD_PARAM_STRING, NULL, "a text", 0, 0, 0},
	{"token", COORD_PARAM_UINT, NULL, "a secret", COORD_PARAM_SECRET, 0, 0},
	{"i", COORD_PARAM_UINT, NULL, "ignored", COORD_PARAM_IGNORED, 0, 0},
	{0},
};
static const struct coord_driver driver = {
	.abi = COORD_DRIVER_ABI, .name = "fuzz", .params = params, .can = COORD_CAN_ALL};

static bool same(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

static void check_shown(const struct coord_url *url)
{
	struct coord_url again;
	char *error, *shown = coord_url_scrub(url, params);
	must(shown);
	if (strlen(shown) <= 8192) {
		must(coord_url_parse(shown, &again, &error) == 0);
		must(same(url->scheme, again.scheme) && same(url->user, again.user));
		must(same(url->netloc, again.netloc) && same(url->path, again.path));
		must(same(url->host, again.host) && url->port == again.port);
		must(url->options_len == again.options_len && !again.password);
		for (size_t i = 0; i < url->options_len; i++)
			must(same(url->options[i].name, again.options[i].name));
		coord_url_done(&again);
	}
	free(shown);
}

static void check_config(struct coord_url *url)
{
	static const struct coord_option outside[] = {{"l", "x"}, {"t", "y"}};
	struct coord_config *config;
	char *error = NULL;
	int r = coord_config_new(&driver, url, outside, 2, NULL, NULL, "me", &config, &error);
	if (r < 0) {
		must(r == -EINVAL && error && strlen(error) > 10);
		free(error);
		coord_url_done(url);
		return;
	}
	must(config->lock_timeout_ms >= 3000 && config->membership_timeout_ms >= 3000);
	must(coord_config_uint(config, "n") >= 1 && coord_config_uint(config, "n") <= 64);
	must(same(coord_config_list(config, "l", 0), "x") && !coord_config_list(config, "l", 1));
	must(same(coord_config_string(config, "t"), "y"));
	coord_config_free(config);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct coord_url url;
	char *error = NULL;
	_cleanup_free_ char *text = malloc(len + 1);
	must(text);
	if (len)
		memcpy(text, data, len);
	text[len] = '\0';
	if (coord_url_parse(text, &url, &error) < 0) {
		must(error);
		free(error);
		return 0;
	}
	check_shown(&url);
	check_config(&url);
	return 0;
}
