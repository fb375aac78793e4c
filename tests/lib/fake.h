/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A driver over a backend that lives in the test: a server with a loop (a host) of its own, sessions
 * whose requests, answers and notices take time, get lost or cut off. What it can do and how it loses
 * is chosen for each server. All chance comes from the server's loop, so from the seed in simulation.
 *
 * A request has its effect before its sender is told that nothing is known of it, or never. A
 * connection breaks on three occasions: for the network at once, for each side some time later.
 */
#ifndef TESTS_FAKE_H
#define TESTS_FAKE_H

#include "coord/coord.h"

/* Chances are per mille and for each request; times are drawn evenly from 0 to the maximum. */
struct fake_faults {
	uint32_t delay_ms; /* of a message */
	unsigned lost; /* the request is not sent, and the driver knows: SENT_NO */
	unsigned unknown; /* answer lost, or request lost without a trace: SENT_UNKNOWN */
	unsigned disconnect;
	uint32_t notice_ms; /* until a side sees that the connection broke */
	uint32_t down_ms; /* until the next connection after that */
};

struct fake_options {
	enum coord_loss lock_loss, member_loss; /* lock_loss: of leaderships too */
	unsigned can;
	uint64_t ttl_ms; /* of what is leased */
	uint32_t ops_max, waits_max, poll_ms;
	bool fold; /* names differ by case only: one backend name */
	struct fake_faults faults;
};

struct fake_server;

int fake_server_new(struct coord_loop *, const struct fake_options *, struct fake_server **ret);
/* All coordinators must have been freed. NULL is allowed. */
void fake_server_free(struct fake_server *);
struct fake_options *fake_server_options(struct fake_server *); /* faults may be changed */
/* The driver of this server; its coordinators are made from configurations with it. */
const struct coord_driver *fake_server_driver(struct fake_server *);
/* A configuration of a mount on this server. */
int fake_server_config(struct fake_server *, const char *member, struct coord_config **ret);

/* The connection of the mount with that member id breaks, and stays so for down_ms. */
void fake_break(struct fake_server *, const char *member, uint64_t down_ms);
/* Does that mount's session hold this on the server, now? By mode; COORD_NONE: any. */
bool fake_holds(struct fake_server *, const char *member, enum coord_kind, struct coord_bytes name,
	enum coord_mode mode);
/* Is the member joined by the client with the member id `by`? */
bool fake_joined(
	struct fake_server *, const char *by, struct coord_bytes group, struct coord_bytes member);
/* Is the mount's client told, and the server, that they have a connection? */
bool fake_client_up(struct fake_server *, const char *member);
/* What lies on the server: holdings, queued requests, members, watches, sessions. */
size_t fake_server_traces(struct fake_server *);
/* Ops that were given to the driver, by call, and those it has not answered. */
uint64_t fake_server_ops(struct fake_server *, enum coord_call);
size_t fake_server_running(struct fake_server *);
/* Groups that were deleted so far. */
uint64_t fake_group_deletes(struct fake_server *);
uint64_t fake_last_token(struct fake_server *);

#endif
