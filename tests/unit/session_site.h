/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the session and of its end share: a site, of whose mounts the first is looked at. */
#ifndef UNIT_SESSION_SITE_H
#define UNIT_SESSION_SITE_H

#include "tests/lib/site.h"

extern struct site site;
#define SIM (&site.sim)
#define CLIENT (&site.clients[0])
#define LOCK COORD_BYTES("l")

bool until_state(enum coord_state, uint64_t ms);
struct coord_session_info info(void);
/* Opens some mounts on a server that keeps to its leases and has no faults. */
void mounts(size_t len);
void hold(struct client *, struct coord_bytes name, struct taker *);
/* The mount has stopped: nothing of it may be left. */
void leave(void);

#endif
