/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a redis:// URL and the mount options say, taken apart once when the mount is configured.
 */
#ifndef REDIS_OPTIONS_H
#define REDIS_OPTIONS_H

#include "coord/config.h"

/* Which of tooz's lock keys are taken: `NS_L_lock` (tooz 9 and on), the older `b'NS'_b'L'_lock`, or,
 * so as to exclude both populations, one after the other. */
enum redis_dialect { REDIS_DIALECT_BOTH, REDIS_DIALECT_NEW, REDIS_DIALECT_OLD };

/* A server to connect to. Either a UNIX socket (path) or a host and a port. */
struct redis_address {
	char *host; /* a name or a numeric address, without brackets */
	uint16_t port;
	char *path;
};

/* The strings are owned by the structure but for those marked, which are the configuration's and live
 * as long as it does. Times are in milliseconds. */
struct redis_options {
	struct redis_address server; /* of the URL; with a sentinel: not used */
	const char *user, *password; /* the configuration's; NULL: none */
	unsigned db;
	const char *name_space; /* the configuration's */
	enum redis_dialect dialect;
	uint64_t timeout_ms, lock_timeout_ms, membership_timeout_ms;
	uint64_t socket_timeout_ms; /* a reply that takes longer means that the link is down */
	uint64_t connect_timeout_ms;
	uint64_t health_ms; /* an idle connection is asked that often */
	bool keepalive;
	bool ssl, sentinel_ssl;
	const char *ssl_certfile, *ssl_keyfile,
		*ssl_ca_certs; /* the configuration's; may be NULL */
	const char *sentinel; /* the master's name, the configuration's; NULL: no sentinels */
	const char *sentinel_user, *sentinel_password; /* the configuration's; may be NULL */
	struct redis_address *sentinels; /* the URL's host first, then the fallbacks */
	size_t sentinels_len;
};

/* The table for struct coord_driver. */
extern const struct coord_param redis_params[];

/* Fills in what the configuration says. No I/O. Returns 0, -ENOMEM, or -EINVAL with *ret_error a text
 * for a human, owned by the caller. On an error *ret is left empty. */
int redis_options_read(
	const struct coord_config *config, struct redis_options *ret, char **ret_error);
/* Frees the content. A zeroed structure is allowed. */
void redis_options_done(struct redis_options *);

#endif
