/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of servers: "host:port,[v6]:port,host/chroot", as Python's client reads them. */
#ifndef ZK_HOSTS_H
#define ZK_HOSTS_H

#include "coord/loop.h"

enum { ZK_HOSTS_MAX = 64 };

struct zk_host {
	char *name;
	char port[6];
};

struct zk_hosts {
	struct zk_host *list;
	size_t len;
	char *chroot; /* NULL: none */
};

/* Adds the hosts of a text to the list. Returns 0, -EINVAL or -ENOMEM. */
int zk_hosts_add(struct zk_hosts *, const char *text);
void zk_hosts_done(struct zk_hosts *);
/* For a human; allocated. */
char *zk_hosts_text(const struct zk_hosts *);

/* Resolves all of them, off the loop. fn is called once, with the numeric list that the library wants, or
 * NULL and why; a host that does not resolve is left out while another does. */
struct zk_resolving;
int zk_hosts_resolve(struct coord_loop *, const struct zk_hosts *,
	void (*fn)(void *user, const char *addresses, const char *why), void *user,
	struct zk_resolving **ret);
/* fn will not be called. NULL is allowed. */
void zk_resolving_drop(struct zk_resolving *);

#endif
