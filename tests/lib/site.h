/* SPDX-License-Identifier: Apache-2.0 */
/* A simulated site: a fake server on a host of its own, and some mounts, each on one of theirs. */
#ifndef TESTS_SITE_H
#define TESTS_SITE_H

#include "tests/lib/client.h"
#include "tests/lib/fake.h"

enum { SITE_CLIENTS = 6 };

struct site {
	struct sim sim;
	struct world world;
	struct sim_loop server_host, hosts[SITE_CLIENTS];
	struct fake_server *server;
	struct client clients[SITE_CLIENTS];
	char members[SITE_CLIENTS][24]; /* "m0" ... */
	uint64_t lives; /* daemons that were started by site_client_start */
	size_t len;
};

/* What most drivers can. */
#define SITE_CAN                                                                                   \
	(COORD_CAN_SHARED | COORD_CAN_CONVERT | COORD_CAN_NOTIFY | COORD_CAN_LIST_ALL |            \
		COORD_CAN_BREAK | COORD_CAN_LEADER_ID | COORD_CAN_ORDERED | COORD_CAN_GROUPS)

/* Leases of 10 s, everything that does not queue, no faults. */
struct fake_options site_options(void);
/* Starts the server and len hosts, without mounts. */
void site_open_hosts(struct site *, uint64_t seed, const struct fake_options *, size_t len);
/* Starts the server and opens len mounts; asserts that all is well. */
void site_open(struct site *, uint64_t seed, const struct fake_options *, size_t len);
/* Opens the i-th mount. */
int site_client_open(struct site *, size_t i);
/* Begins to open it as a new process, which knows all earlier ones of its member id for dead; or, elsewhere, one on
 * another machine, which cannot tell. client.ready says when it is open. */
int site_client_start(struct site *, size_t i, bool elsewhere);
/* Its process is killed: nobody is told, nothing is said to the server. Holdings must have been freed. */
void site_client_kill(struct site *, size_t i);
/* Closes what is open, checks that nothing is left on the server, frees. Returns false if a stop did not
 * come, or something was left. */
bool site_close(struct site *);

#endif
