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
	bool sessions; /* leases belong to sessions, as ZooKeeper's: what is held has none of its own, each renewal
	                * counts from the one before it, and who waits in the queue stays there while the
	                * connection is away */
	bool claims; /* each lock has its own lease, as redis' keys: when a session ends without a farewell, only its
	              * claim and its members go with it */
	bool heirs; /* who takes a claim over replaces the members of the dead, and the rest ends with its lease;
	             * else the whole session ends at once */
	bool answers_in_order,
		notices_in_order; /* notices: with the answers; else they may overtake */
	bool no_cancel;
	struct fake_faults faults;
};

/* Why something that was held ended on the server. */
enum fake_end {
	FAKE_END_RELEASED, /* by an unlock, a leave or a farewell of the mount that had it */
	FAKE_END_EXPIRED, /* its lease, or its session */
	FAKE_END_DROPPED, /* with its connection */
	FAKE_END_BROKEN, /* by somebody else */
	FAKE_END_TAKEN_OVER, /* by the next mount of its member id */
};

/* Told at the moment at which it happens on the server. Of locks and leaderships. */
struct fake_observer {
	void *user;
	/* Granted, or converted: from now on in that mode. */
	void (*granted)(void *user, const char *member, struct coord_key, enum coord_mode);
	void (*ended)(void *user, const char *member, struct coord_key, const uint8_t owner[16],
		enum fake_end);
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
/* The process of the mount is killed: whatever it sent may still arrive, and it hears nothing more. Its coordinator is
 * freed next. */
void fake_kill(struct fake_server *, const char *member);
/* The mount's session ends on the server, before its time; nobody is told. */
void fake_end_session(struct fake_server *, const char *member);
void fake_observe(struct fake_server *, const struct fake_observer *);
/* Is that mount's core being told by the driver right now that something ended? */
bool fake_telling(struct fake_server *, const char *member);
/* The id of that mount's daemon; NULL: there is none. */
const uint8_t *fake_uuid(struct fake_server *, const char *member);
/* All connections that are down come back now. */
void fake_heal(struct fake_server *);
/* How often its connection broke. */
uint64_t fake_breaks(struct fake_server *, const char *member);
/* What lies there of one daemon, by the id of its sessions: as fake_server_traces, and requests on their way. all:
 * of its earlier sessions, too, that it lost and could not close. */
size_t fake_traces_of(struct fake_server *, const uint8_t uuid[16], bool all);
/* The owner value of the mount's hold of a lock or leadership. false: there is none. */
bool fake_owner(struct fake_server *, const char *member, struct coord_key, uint8_t ret_owner[16]);
/* Is the member that of a dead daemon, whose claim the mount `by` has taken over? */
bool fake_stale(
	struct fake_server *, const char *by, struct coord_bytes group, struct coord_bytes member);
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
