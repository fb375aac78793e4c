/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The options of redis:// URLs. See options.h.
 *
 * The names and meanings are those of tooz's driver; where tooz takes a value of one of its libraries as
 * default, ours is chosen so that a dead connection is found while the leases still live.
 */
#include "drivers/redis/options.h"

#include <stdarg.h>
#include <stdio.h>
#include <syslog.h>

#include "coord/driver.h"

enum {
	DAY_MS = 86400000,
	SERVER_PORT = 6379,
	SENTINEL_PORT = 26379,
	NAMESPACE_MAX = 200,
	SENTINELS_MAX = 64,
	SOCKET_TIMEOUT_MIN_MS = 1000, /* of the default */
};

const struct coord_param redis_params[] = {
	{"db", COORD_PARAM_UINT, "0", "number of the database; the path of a URL selects none", 0,
		0, INT32_MAX},
	{"namespace", COORD_PARAM_STRING, "_tooz", "what all keys begin with", 0, 0, 0},
	{"lock_dialect", COORD_PARAM_STRING, "both",
		"lock keys of which tooz: new (9.0 and on), old (up to 8.1), or both", 0, 0, 0},
	{"socket_timeout", COORD_PARAM_SECONDS, NULL,
		"an answer that takes longer breaks the connection, in seconds (default: a "
		"quarter of the shortest lease, at least 1)",
		0, 50, DAY_MS},
	{"socket_connect_timeout", COORD_PARAM_SECONDS, NULL,
		"for connecting, TLS and AUTH together, in seconds (default: socket_timeout)", 0,
		50, DAY_MS},
	{"socket_keepalive", COORD_PARAM_BOOL, "true", "TCP keepalive", 0, 0, 0},
	{"health_check_interval", COORD_PARAM_SECONDS, NULL,
		"an idle connection is asked that often at least, in seconds (default: a quarter "
		"of the shortest lease, which is also the most)",
		0, 0, DAY_MS},
	{"ssl", COORD_PARAM_BOOL, "false", "TLS to the server", 0, 0, 0},
	{"ssl_certfile", COORD_PARAM_STRING, NULL, "our certificate, a PEM file", 0, 0, 0},
	{"ssl_keyfile", COORD_PARAM_STRING, NULL,
		"its private key, a PEM file (default: ssl_certfile)", 0, 0, 0},
	{"ssl_ca_certs", COORD_PARAM_STRING, NULL,
		"certificates to trust, a PEM file (default: the system's)", 0, 0, 0},
	{"sentinel", COORD_PARAM_STRING, NULL,
		"name of the master; the URL's host is then the first sentinel", 0, 0, 0},
	{"sentinel_fallback", COORD_PARAM_STRING, NULL, "another sentinel, host:port",
		COORD_PARAM_LIST, 0, 0},
	{"sentinel_username", COORD_PARAM_STRING, NULL, "user at the sentinels", 0, 0, 0},
	{"sentinel_password", COORD_PARAM_STRING, NULL, "password at the sentinels",
		COORD_PARAM_SECRET, 0, 0},
	{"sentinel_ssl", COORD_PARAM_BOOL, "false", "TLS to the sentinels", 0, 0, 0},
	{"encoding", COORD_PARAM_STRING, NULL, "of text ids in Python; here ids are bytes",
		COORD_PARAM_IGNORED, 0, 0},
	{"retry_on_timeout", COORD_PARAM_BOOL, NULL,
		"of Python's client; here an operation is tried again until its deadline",
		COORD_PARAM_IGNORED, 0, 0},
	{"executor", COORD_PARAM_STRING, NULL, "kind of Python's worker threads",
		COORD_PARAM_IGNORED, 0, 0},
	{0},
};

__attribute__((format(printf, 2, 3))) static int refuse(char **ret_error, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	if (vasprintf(ret_error, format, args) < 0)
		*ret_error = NULL;
	va_end(args);
	return -EINVAL;
}

static void address_done(struct redis_address *address)
{
	free(address->host);
	free(address->path);
	*address = (struct redis_address){0};
}

/* An empty text counts as none: "redis://:password@host" has an empty user. */
static const char *text_or_null(const char *text)
{
	return text && *text ? text : NULL;
}

static int parse_port(const char *text, uint16_t *ret)
{
	unsigned port = 0;
	if (!*text || strlen(text) > 5)
		return -EINVAL;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return -EINVAL;
		port = port * 10 + (unsigned)(*text - '0');
	}
	if (port == 0 || port > UINT16_MAX)
		return -EINVAL;
	*ret = (uint16_t)port;
	return 0;
}

/* "host", "host:port", "[address]" or "[address]:port". */
static int parse_sentinel(const char *text, struct redis_address *ret)
{
	const char *host = text, *end = text + strcspn(text, ":"), *port = end;
	if (*text == '[') {
		host = text + 1;
		end = strchr(host, ']');
		port = end ? end + 1 : NULL;
	}
	if (!end || end == host || (*port && *port != ':') || end - host > 255)
		return -EINVAL;
	ret->port = SENTINEL_PORT;
	if (*port && parse_port(port + 1, &ret->port) < 0)
		return -EINVAL;
	ret->host = strndup(host, (size_t)(end - host));
	return ret->host ? 0 : -ENOMEM;
}

static int read_server(
	const struct coord_config *config, struct redis_options *options, char **ret_error)
{
	const struct coord_url *url = &config->url;
	const char *path = text_or_null(url->path);
	struct redis_address *server = &options->server;
	if (path && strcmp(path, "/") == 0)
		path = NULL;
	if (text_or_null(url->host) || !path) {
		if (path)
			coord_log(LOG_WARNING,
				"redis: the path '%s' of the URL has no effect; db= selects the "
				"database",
				path);
		if (strchr(url->netloc ? url->netloc : "", ','))
			return refuse(ret_error,
				"redis takes one host; more sentinels go into sentinel_fallback=");
		server->host = strdup(text_or_null(url->host) ? url->host : "localhost");
		server->port = url->port           ? url->port
			       : options->sentinel ? SENTINEL_PORT
						   : SERVER_PORT;
		return server->host ? 0 : -ENOMEM;
	}
	if (options->sentinel)
		return refuse(ret_error, "option 'sentinel': the URL must name a sentinel's host");
	if (options->ssl)
		return refuse(ret_error, "option 'ssl': not on a UNIX socket");
	server->path = strdup(path);
	return server->path ? 0 : -ENOMEM;
}

static int read_sentinels(
	const struct coord_config *config, struct redis_options *options, char **ret_error)
{
	size_t n = 0;
	const char *text;
	while (coord_config_list(config, "sentinel_fallback", n))
		n++;
	if (!options->sentinel)
		return n == 0 ? 0
			      : refuse(ret_error,
					"option 'sentinel_fallback': without 'sentinel', the "
					"name of the master");
	if (n >= SENTINELS_MAX)
		return refuse(ret_error, "option 'sentinel_fallback': at most %d sentinels",
			SENTINELS_MAX - 1);
	options->sentinels = calloc(n + 1, sizeof(*options->sentinels));
	if (!options->sentinels)
		return -ENOMEM;
	options->sentinels[0].host = strdup(options->server.host);
	options->sentinels[0].port = options->server.port;
	options->sentinels_len = 1;
	if (!options->sentinels[0].host)
		return -ENOMEM;
	for (size_t i = 0; (text = coord_config_list(config, "sentinel_fallback", i)); i++) {
		int r = parse_sentinel(text, &options->sentinels[options->sentinels_len]);
		if (r == -EINVAL)
			return refuse(ret_error,
				"option 'sentinel_fallback': '%s' is not host:port", text);
		if (r < 0)
			return r;
		options->sentinels_len++;
	}
	return 0;
}

static int read_names(
	const struct coord_config *config, struct redis_options *options, char **ret_error)
{
	static const char *const dialects[] = {[REDIS_DIALECT_BOTH] = "both",
		[REDIS_DIALECT_NEW] = "new",
		[REDIS_DIALECT_OLD] = "old"};
	const char *dialect = coord_config_string(config, "lock_dialect");
	size_t i = 0;
	while (i < 3 && strcmp(dialect, dialects[i]) != 0)
		i++;
	if (i == 3)
		return refuse(
			ret_error, "option 'lock_dialect': '%s' is not both, new or old", dialect);
	options->dialect = (enum redis_dialect)i;
	options->name_space = coord_config_string(config, "namespace");
	size_t len = strlen(options->name_space);
	if (len == 0 || len > NAMESPACE_MAX)
		return refuse(ret_error, "option 'namespace': 1 to %d bytes", (int)NAMESPACE_MAX);
	return 0;
}

static void read_times(const struct coord_config *config, struct redis_options *options)
{
	options->timeout_ms = config->timeout_ms;
	options->lock_timeout_ms = config->lock_timeout_ms;
	options->membership_timeout_ms = config->membership_timeout_ms;
	uint64_t lease = config->lock_timeout_ms < config->membership_timeout_ms
				 ? config->lock_timeout_ms
				 : config->membership_timeout_ms;
	uint64_t quarter = lease / 4;
	options->socket_timeout_ms = coord_config_uint(config, "socket_timeout");
	if (!coord_config_string(config, "socket_timeout"))
		options->socket_timeout_ms =
			quarter < SOCKET_TIMEOUT_MIN_MS ? SOCKET_TIMEOUT_MIN_MS : quarter;
	options->connect_timeout_ms = coord_config_uint(config, "socket_connect_timeout");
	if (!coord_config_string(config, "socket_connect_timeout"))
		options->connect_timeout_ms = options->socket_timeout_ms;
	options->health_ms = coord_config_uint(config, "health_check_interval");
	if (options->health_ms == 0 || options->health_ms > quarter)
		options->health_ms = quarter;
	if (options->health_ms < 100)
		options->health_ms = 100;
}

static int read_security(
	const struct coord_config *config, struct redis_options *options, char **ret_error)
{
	options->user = text_or_null(config->url.user);
	options->password = text_or_null(config->url.password);
	options->ssl = coord_config_bool(config, "ssl");
	options->sentinel_ssl = coord_config_bool(config, "sentinel_ssl");
	options->ssl_certfile = coord_config_string(config, "ssl_certfile");
	options->ssl_keyfile = coord_config_string(config, "ssl_keyfile");
	options->ssl_ca_certs = coord_config_string(config, "ssl_ca_certs");
	options->sentinel_user = coord_config_string(config, "sentinel_username");
	options->sentinel_password = coord_config_string(config, "sentinel_password");
	const char *file = options->ssl_certfile   ? "ssl_certfile"
			   : options->ssl_ca_certs ? "ssl_ca_certs"
						   : NULL;
	if (file && !options->ssl && !(options->sentinel && options->sentinel_ssl))
		return refuse(ret_error,
			"option '%s': without ssl=true (for sentinels: sentinel_ssl=true) the "
			"connection would be in the clear",
			file);
	if (options->ssl_keyfile && !options->ssl_certfile)
		return refuse(ret_error, "option 'ssl_keyfile': without 'ssl_certfile'");
	return 0;
}

int redis_options_read(
	const struct coord_config *config, struct redis_options *ret, char **ret_error)
{
	*ret_error = NULL;
	struct redis_options options = {
		.db = (unsigned)coord_config_uint(config, "db"),
		.keepalive = coord_config_bool(config, "socket_keepalive"),
		.sentinel = coord_config_string(config, "sentinel"),
	};
	read_times(config, &options);
	int r = read_security(config, &options, ret_error);
	if (r == 0)
		r = read_names(config, &options, ret_error);
	if (r == 0)
		r = read_server(config, &options, ret_error);
	if (r == 0)
		r = read_sentinels(config, &options, ret_error);
	if (r < 0) {
		redis_options_done(&options);
		*ret = (struct redis_options){0};
		return r;
	}
	*ret = options;
	return 0;
}

void redis_options_done(struct redis_options *options)
{
	address_done(&options->server);
	for (size_t i = 0; i < options->sentinels_len; i++)
		address_done(&options->sentinels[i]);
	free(options->sentinels);
	*options = (struct redis_options){0};
}
