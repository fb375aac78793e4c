/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connection strings and options: what tooz calls the backend URL, parsed and checked against the
 * driver's own table of parameters. The same tables print `mount.tooz --drivers`.
 */
#ifndef COORD_CONFIG_H
#define COORD_CONFIG_H

#include "coord/base.h"

enum coord_param_type {
	COORD_PARAM_STRING,
	COORD_PARAM_BOOL, /* oslo's: 1 t true on y yes, any case; 0 f false off n no; else an error */
	COORD_PARAM_UINT, /* decimal, within min and max */
	COORD_PARAM_SECONDS, /* decimal, may have a fraction; kept in milliseconds; min, max in ms */
};

enum coord_param_flags {
	COORD_PARAM_SECRET = 1, /* never shown */
	COORD_PARAM_LIST = 2, /* may be repeated; all values are kept */
	COORD_PARAM_IGNORED = 4, /* means something to Python's driver only; accepted, listed so */
};

/* One option of a driver. A table ends with a NULL name. */
struct coord_param {
	const char *name;
	enum coord_param_type type;
	const char *def; /* text of the default, NULL: none */
	const char *help; /* one line */
	unsigned flags;
	uint64_t min, max; /* UINT, SECONDS; max 0: no limit */
};

/* Options that every driver takes: timeout, lock_timeout, membership_timeout. */
extern const struct coord_param coord_common_params[];

/* A tooz connection string, split as Python's urlsplit does: user, password and path are not
 * percent-decoded, query values are form-decoded, the host is lower-cased and without brackets. All
 * strings are owned by the structure; absent ones are NULL, an absent port 0. */
struct coord_url {
	char *scheme, *user, *password, *host, *path;
	/* The part between "//" and the path without the user, as written: host lists. */
	char *netloc;
	uint16_t port;
	struct coord_url_option {
		char *name, *value;
	} * options; /* in order, blank values dropped */
	size_t options_len;
	bool fragment; /* there was a '#', and perhaps more, which is ignored */
};

/* Parses. Returns 0, or -EINVAL with *ret_error a text for a human (owned by the caller). A URL with
 * control characters, longer than 8 KiB, or with a bad port or percent escape in the query is
 * refused. Never puts the password into a text. */
int coord_url_parse(const char *text, struct coord_url *ret, char **ret_error);
void coord_url_done(struct coord_url *);
/* The URL without password and without values of secret params (driver params, may be NULL).
 * Owned by the caller; NULL: out of memory. */
char *coord_url_scrub(const struct coord_url *, const struct coord_param *params);

struct coord_driver;

/* Who this mount is, for the claim on its member id. The text form is "key=value" words. */
struct coord_identity {
	char host[256], machine[64], boot[64];
	uint64_t pidns, pid, start; /* start: field 22 of /proc/PID/stat */
};

struct coord_config_value;

/* A mount's configuration: URL, checked options, own identity. */
struct coord_config {
	const struct coord_driver *driver;
	struct coord_url url;
	char *shown; /* the scrubbed URL */
	char *member;
	bool read_only; /* an observer: claims nothing */
	struct coord_config_value *values; /* by param; opaque */
	uint64_t timeout_ms, lock_timeout_ms, membership_timeout_ms;
	struct coord_identity identity;
};

/* An option given outside the URL, which wins over the URL's. */
struct coord_option {
	const char *name, *value;
};

/* Builds a configuration. member NULL: the host name. user and password, if not NULL, win over the
 * URL's. Takes over *url on success. Returns 0, -EINVAL or -ENOMEM; *ret_error names the option that is
 * unknown or malformed, and lists the known ones. A lease under 3 s is refused where the driver
 * has leases. */
int coord_config_new(const struct coord_driver *driver, struct coord_url *url,
	const struct coord_option *options, size_t options_len, const char *user,
	const char *password, const char *member, struct coord_config **ret, char **ret_error);
void coord_config_free(struct coord_config *);

/* The value of a driver's param: the one given, or its default. The name must be in the driver's or
 * the common table. NULL: not given and no default. Strings stay the configuration's. */
const char *coord_config_string(const struct coord_config *, const char *name);
bool coord_config_bool(const struct coord_config *, const char *name);
uint64_t coord_config_uint(const struct coord_config *, const char *name); /* SECONDS: ms */
/* The i-th value of a LIST param, NULL past the end. */
const char *coord_config_list(const struct coord_config *, const char *name, size_t i);

/* Fills in this process' identity. Returns 0 or -errno. */
int coord_identity_self(struct coord_identity *ret);
/* Text form into a buffer of COORD_IDENTITY_MAX; returns its length. */
#define COORD_IDENTITY_MAX 768
size_t coord_identity_format(const struct coord_identity *, char *ret_text);
/* Parses the text form; -EINVAL for anything else. */
int coord_identity_parse(struct coord_bytes text, struct coord_identity *ret);

enum coord_claim {
	COORD_CLAIM_OURS, /* this very process */
	COORD_CLAIM_DEAD, /* an ended process of this machine, or an earlier boot of it */
	COORD_CLAIM_HERE, /* a live process of this machine and pid namespace */
	COORD_CLAIM_ELSEWHERE, /* another machine or pid namespace: its life cannot be seen */
};
/* What is known of the process behind other, seen from self. Reads /proc. */
enum coord_claim coord_identity_compare(
	const struct coord_identity *self, const struct coord_identity *other);

#endif
