/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the fake share: fake.c, the driver and the network; fake_server.c and fake_reads.c; fake_ask.c. */
#ifndef TESTS_FAKE_SERVER_H
#define TESTS_FAKE_SERVER_H

#include "tests/lib/fake.h"

#define FAKE_NAME_MAX 256

struct fake_name {
	size_t len;
	char data[FAKE_NAME_MAX];
};

/* A session on the server's side. */
struct fake_peer {
	struct coord_list link;
	uint64_t id;
	struct fake_client *client; /* for notices; NULL: it has gone */
	uint8_t uuid[16];
	char member[FAKE_NAME_MAX];
	char identity[COORD_IDENTITY_MAX];
	size_t identity_len;
	bool claims;
	bool ended; /* with its claim and members; locks with leases of their own are left */
	uint8_t heir[16]; /* the daemon that took the claim over; zero: none */
	uint64_t expires_ms; /* UINT64_MAX: not leased */
	uint64_t
		touched_ms; /* with option sessions: the last renewal, which counts from the next on */
	uint64_t conn; /* the connection that was last seen */
	uint64_t dropped; /* connections up to this are seen to be gone */
};

/* A lock, leadership or group. */
struct fake_entry {
	struct coord_list link;
	enum coord_kind kind;
	struct fake_name name;
	uint64_t serial;
	bool exists; /* group */
	struct coord_list holds, queue, watches, members;
};

struct fake_hold {
	struct coord_list link;
	struct fake_entry *entry;
	struct fake_peer *peer;
	uint8_t owner[16];
	struct fake_name member; /* who, or the member itself */
	enum coord_kind kind;
	enum coord_mode mode;
	uint32_t epoch;
	uint64_t token, since_us, updated_us, expires_ms, conn, born, version;
	char *data;
	size_t data_len;
};

struct fake_watch {
	struct coord_list link;
	struct fake_entry *entry;
	struct fake_peer *peer;
};

enum fake_fate { FAKE_WELL, FAKE_LOST, FAKE_VANISHED, FAKE_UNANSWERED };

/* Who opens; his coordinator may be gone when it arrives. */
struct fake_hello {
	uint8_t uuid[16];
	char member[FAKE_NAME_MAX];
	char identity[COORD_IDENTITY_MAX];
	size_t identity_len;
	bool read_only;
};

/* A request on its way: to the server, in its queue, or back. */
struct fake_req {
	struct coord_list
		link; /* in client->reqs while the op waits for it, else on server->loose */
	struct coord_list queue_link; /* in entry->queue */
	struct fake_server *server;
	struct fake_client *client;
	struct coord_op *op; /* NULL: answered already */
	struct coord_timer arrive, reply;
	enum fake_fate fate;
	/* Copies: the op may be gone when the request arrives. */
	enum coord_call call;
	enum coord_kind kind;
	struct fake_name name, member;
	uint8_t owner[16];
	enum coord_mode mode;
	unsigned flags;
	uint32_t epoch;
	uint64_t peer_id, conn, sent_ms;
	char *data;
	size_t data_len;
	uint8_t (*owners)[16]; /* RENEW */
	bool *found;
	size_t owners_len;
	struct fake_hello *hello; /* OPEN */
	/* Answer. */
	int status;
	uint64_t token, ttl_ms;
	bool queued, confirm, cancelled, expired;
	bool parked; /* with option sessions: the connection went while it waited */
	bool forsaken; /* queued, and its sender is told that nothing is known of it */
};

enum fake_note_what { FAKE_CHANGED, FAKE_CONTENDED, FAKE_GONE };

struct fake_server {
	struct coord_loop *loop;
	struct fake_options options;
	struct coord_driver driver;
	struct coord_list peers, entries, clients, loose, drops;
	struct coord_timer expire;
	uint64_t next_id, next_serial, last_token, next_born;
	uint64_t ops[COORD_CALLS], group_deletes;
	size_t running;
	const struct fake_observer *observer;
};

/* The driver's scratch of a session. */
struct fake_client {
	struct coord_list link; /* server->clients */
	struct fake_server *server;
	struct coord_session *session;
	struct coord_list reqs, notes;
	uint64_t peer_id, conn, broken; /* connections up to broken are cut */
	uint32_t epoch;
	bool open, up; /* up: as far as the driver knows */
	bool killed, telling;
	uint64_t last_arrive_ms, last_answer_ms,
		down_until_ms; /* on the clocks of server, host, server */
	uint64_t confirmed_ms; /* with option sessions: the last renewal that was answered */
	uint64_t breaks;
	struct coord_timer notice, connect;
};

/* Carries a request out. Returns true if there is an answer now, false if it waits in a queue. */
bool fake_execute(struct fake_server *, struct fake_req *);
/* The server sees that connections up to conn are gone. */
void fake_peer_dropped(struct fake_server *, uint64_t peer_id, uint64_t conn);
void fake_peer_requeue(struct fake_server *, struct fake_peer *, uint64_t conn);
void fake_queue_leave(struct fake_server *, struct fake_req *);
struct fake_peer *fake_peer_find(struct fake_server *, uint64_t id);
void fake_unwatch(
	struct fake_server *, uint64_t peer_id, enum coord_kind, const struct fake_name *);
void fake_expire(struct coord_timer *);
void fake_changed_all(struct fake_server *, struct fake_peer *);
void fake_server_clear(struct fake_server *);

/* What the halves of the server share: fake_server.c changes, fake_reads.c reads. */
struct fake_entry *fake_entry_find(struct fake_server *, enum coord_kind, const struct fake_name *);
struct fake_entry *fake_entry_get(struct fake_server *, enum coord_kind, const struct fake_name *);
void fake_entry_watch(struct fake_entry *, struct fake_peer *);
struct fake_entry *fake_group_find(struct fake_server *, const struct fake_name *);
void fake_row_member(struct fake_req *, const struct fake_hold *, bool with_data);
void fake_group_read(struct fake_server *, struct fake_req *, struct fake_peer *);
void fake_lock_read(struct fake_server *, struct fake_req *, struct fake_peer *);
void fake_list(struct fake_server *, struct fake_req *, enum coord_kind);

/* Calls from the server to the network. */
void fake_note(struct fake_server *, struct fake_peer *, enum fake_note_what, enum coord_kind,
	const struct fake_name *, const uint8_t *owner, uint32_t epoch);
void fake_reply(struct fake_req *);
uint64_t fake_below(struct fake_server *, uint64_t n);

/* The client of the mount with that member id, NULL: none. */
struct fake_client *fake_client_find(struct fake_server *, const char *member);

struct coord_bytes fake_bytes(const struct fake_name *);
void fake_name_set(struct fake_name *, struct coord_bytes);

#endif
