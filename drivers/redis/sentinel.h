/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sentinels: who is the master, and when that changes.
 *
 * States: idle -> asking (the sentinels in turn) -> watching (subscribed at the one that answered) -> asking
 * again, by itself, when that one goes away. No callback comes from inside the functions here.
 */
#ifndef REDIS_SENTINEL_H
#define REDIS_SENTINEL_H

#include "drivers/redis/conn.h"

struct redis_sentinel;

struct redis_sentinel_hooks {
	/* The answer to redis_sentinel_ask(). host is valid during the call. */
	void (*found)(void *user, const char *host, uint16_t port);
	/* None of them knows; text is about the last one. */
	void (*failed)(void *user, int status, const char *text);
	/* While watching: the master is another now. Ask. */
	void (*switched)(void *user);
};

/* options and tls (may be NULL) must live as long. Returns 0 or -ENOMEM. */
int redis_sentinel_new(struct coord_loop *, const struct redis_options *options,
	struct stream_tls *tls, const struct redis_sentinel_hooks *, void *user,
	struct redis_sentinel **ret);
/* Asks anew; another: not the one that answered last, for its answer was no good. */
void redis_sentinel_ask(struct redis_sentinel *, bool another);
/* Back to idle. */
void redis_sentinel_stop(struct redis_sentinel *);
/* NULL is allowed. */
void redis_sentinel_free(struct redis_sentinel *);

#endif
