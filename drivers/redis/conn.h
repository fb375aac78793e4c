/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection that speaks redis' protocol: resolve, connect, TLS, AUTH; then commands and their answers
 * in order. For the link and the sentinels.
 *
 * A refused AUTH breaks the connection before anything else is sent: what is queued behind it would
 * run as the default user. No callback comes from inside redis_conn_open(), _send() or _close(), and all of
 * these may be called from inside each callback.
 */
#ifndef REDIS_CONN_H
#define REDIS_CONN_H

#include "drivers/common/stream.h"
#include "drivers/redis/link.h"

enum { REDIS_LABEL_MAX = 300, REDIS_TEXT_MAX = 512 };

struct redis_conn_hooks {
	/* Connected and let in. */
	void (*opened)(void *user);
	/* The end, once; see redis_link_hooks.down for status. redis_conn_close() is still to be called,
	 * and hands over the commands in flight. */
	void (*broken)(void *user, int status, const char *text);
	/* A message of a channel: three elements, the first two are strings. NULL: a protocol error. */
	void (*message)(void *user, const redisReply *message);
	/* A command was answered with an error that says the server is no good any more. */
	void (*doubtful)(void *user, int status, const char *text);
	/* The server did not know a script, which was sent again, behind all that was sent meanwhile. */
	void (*forgotten)(void *user);
};

/* Strings and address are copied, but for user and password, which must live as long as the connection. */
struct redis_endpoint {
	const char *host, *path; /* path: of a UNIX socket, and then no host */
	uint16_t port;
	const struct sockaddr *address; /* of host, if it is known already; else NULL */
	socklen_t address_len;
	const char *user, *password; /* may be NULL */
	struct stream_tls *tls; /* may be NULL; must live until it is open */
	uint64_t connect_ms, timeout_ms;
	bool keepalive;
};

/* Returns 0 or -ENOMEM; all else comes by broken. */
int redis_conn_open(struct coord_loop *, const struct redis_endpoint *,
	const struct redis_conn_hooks *, void *user, struct redis_conn **ret);
/* What it is connected to, for texts: host:port, or the path. */
const char *redis_conn_label(const struct redis_conn *);
/* The numeric address, once open. */
const struct sockaddr *redis_conn_address(const struct redis_conn *, socklen_t *ret_len);
/* How many commands wait for their answer. */
size_t redis_conn_waiting(const struct redis_conn *);

/* Sends at the end of this turn of the loop. Returns 0, or -ENOMEM or -ENOBUFS; then fn is not called. */
int redis_conn_send(struct redis_conn *, struct redis_cmd *, int argc, const char *const *argv,
	const size_t *lens);
/* The same for words without NUL; ends with a NULL. */
int redis_conn_words(struct redis_conn *, struct redis_cmd *, ...) __attribute__((sentinel));
/* whole: its body is sent and not its SHA1. */
int redis_conn_script(struct redis_conn *, struct redis_cmd *, const struct redis_script *,
	bool whole, int nkeys, int argc, const char *const *argv, const size_t *lens);
/* Closes and frees. The commands in flight get their status and sent, and are appended to failed. */
void redis_conn_close(struct redis_conn *, int status, struct coord_list *failed);

/* reply.c: does an error reply begin with this word? False for any other reply. */
bool redis_error_is(const redisReply *, const char *word);
/* The same, or did a command in a script fail with such a reply? */
bool redis_error_has(const redisReply *, const char *word);
/* A string without control characters, cut to what fits; for logs and texts. */
void redis_printable(const char *text, size_t len, char *ret, size_t size);
/* An error in its words, for logs and texts, without what servers add about the script that met it. */
void redis_words(const redisReply *, char *ret, size_t size);
/* The value of "name:" in the text of an INFO, up to the end of its line. Empty: there is none. */
struct coord_bytes redis_info(const redisReply *, const char *name);
/* 70015 for "7.0.15"; 0 if it is no version. */
unsigned redis_parse_version(struct coord_bytes text);
/* Makes hiredis' reader refuse arrays of absurd length. limits must live as long as the reader. */
struct redis_reader_limits {
	redisReplyObjectFunctions functions;
	void *(*create_array)(const redisReadTask *, int elements);
};
void redis_reader_limit(redisReader *, struct redis_reader_limits *limits);

#endif
