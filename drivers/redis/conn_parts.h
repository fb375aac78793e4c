/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the connection share: conn.c has its life, conn_commands.c what is said on it.
 */
#ifndef REDIS_CONN_PARTS_H
#define REDIS_CONN_PARTS_H

#include "drivers/common/buffer.h"
#include "drivers/redis/conn.h"

enum redis_conn_state {
	CONN_RESOLVING,
	CONN_CONNECTING,
	CONN_LOGIN,
	CONN_OPEN,
	CONN_BROKEN,
	CONN_CLOSED
};

struct redis_slot {
	struct redis_cmd *cmd; /* NULL: forgotten */
	uint64_t start; /* its first byte, counted from the first of the connection */
	uint64_t sent_ms;
};

struct redis_lookup;

struct redis_conn {
	struct coord_loop *loop;
	const struct redis_conn_hooks *hooks;
	void *user;
	enum redis_conn_state state;
	unsigned depth;
	struct stream *stream;
	struct redis_lookup *lookup;
	struct redis_endpoint endpoint; /* host and path are in label; address in name */
	struct sockaddr_storage name;
	char label[REDIS_LABEL_MAX], host[256];
	struct coord_timer timer; /* till it is open; then for answers */
	uint64_t resolve_ms; /* till when the name is to be resolved */
	struct coord_task task; /* writes out */
	struct buffer out;
	uint64_t formatted; /* bytes, all that ever went into out */
	struct redis_slot *slots;
	size_t slots_size; /* a power of two */
	/* Places in the ring: from first on they wait for an answer, from written on for being sent. */
	uint64_t first, written, next;
	redisReader *reader;
	struct redis_reader_limits limits;
	size_t pending; /* bytes read since the last whole reply */
	size_t checked; /* of these, when the clock was last looked at */
	bool spoke; /* one whole reply came */
	bool heard; /* something of a long reply came since the timer was started */
	bool bare; /* AUTH without the user's name is tried */
	struct redis_cmd login;
};

/* conn.c */

/* Around each callback: the connection stays in memory until the last leave. */
void redis_conn_enter(struct redis_conn *);
void redis_conn_leave(struct redis_conn *);
/* The end; the label is put before the text. Nothing happens if it is broken already. */
void redis_conn_break(struct redis_conn *, int status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* conn_commands.c */

/* The task: writes all that is formatted. */
void redis_conn_write(struct coord_task *task);
/* From the stream. */
void redis_conn_received(struct redis_conn *, const char *data, size_t len);
/* When the oldest command that waits was sent; false: none waits. */
bool redis_conn_oldest(struct redis_conn *, uint64_t *ret_sent_ms);
/* Gives the waiting commands their status and sent, and appends them to failed. */
void redis_conn_fail_waiting(struct redis_conn *, int status, struct coord_list *failed);

#endif
