/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The link to the redis master: connections that live and die together.
 *
 *   A  commands; on servers from 6 on it has CLIENT TRACKING, with its notices sent to B
 *   B  receives the notices (RESP2, so that any hiredis reads it)
 *   C  commands that must not track: keep-alive and lists
 *
 * One of them dies, or does not answer in time: all are closed, and opened anew, with a growing pause,
 * until redis_link_close. A lost notice cannot be seen otherwise, so nothing is kept over a reconnect:
 * after each `up` the driver reads what it watches again.
 *
 * States: closed -> opening -> up -> down (pause) -> opening ... -> closed. Each attempt that fails and
 * each loss ends with one `down`; an attempt that succeeds with one `up`.
 *
 * All callbacks come on the loop, and none from inside redis_send(), redis_script(), redis_link_open() or
 * redis_link_close(). From inside each of them every function here may be called but
 * redis_link_free().
 */
#ifndef REDIS_LINK_H
#define REDIS_LINK_H

#include <hiredis/hiredis.h>

#include "coord/driver.h"
#include "drivers/redis/options.h"

struct redis_link;
struct redis_conn;

enum redis_lane { REDIS_TRACKED, REDIS_PLAIN };

/* A script, and the SHA1 of its body. The body lives as long as the link. */
struct redis_script {
	const char *body;
	char sha[41];
};
/* Fills in sha. Call at configure; doing it twice does no harm. */
void redis_script_prepare(struct redis_script *);

/* A command in flight, embedded in what belongs to its caller (an op's data). Zero it and set fn. It
 * must stay where it is until fn was called or redis_forget() was. */
struct redis_cmd {
	/* Called once. status 0: reply is there, valid during the call; it may be of type
	 * REDIS_REPLY_ERROR (see redis_errno), and sent is COORD_SENT_ANSWERED. Else reply is NULL and
	 * status is -EHOSTDOWN (no link, or it broke), -ETIMEDOUT (no answer in time),
	 * -ECANCELED (redis_link_close), -ENOMEM or -ENOBUFS (too much waits to be sent); sent is
	 * COORD_SENT_NO if no byte of the command was given to the socket. */
	void (*fn)(struct redis_cmd *, int status, enum coord_sent sent, const redisReply *reply);
	/* BOOTTIME just before the bytes were handed to the socket; of the EVAL where a script had to be
	 * sent again. Valid in fn with sent other than COORD_SENT_NO. */
	uint64_t sent_ms;
	/* The link's. */
	struct redis_link *link;
	struct redis_conn *conn; /* where its answer will come; NULL: nowhere */
	uint64_t place; /* among the commands of conn */
	struct coord_list node; /* in the list of the failed */
	const struct redis_script *script; /* to be sent as EVAL on NOSCRIPT */
	char *tail; /* its formatted arguments */
	size_t tail_len;
	int tail_args;
	int status;
	enum coord_sent sent;
};

struct redis_link_hooks {
	/* The link works: redis_send() may be called from here on. */
	void (*up)(void *user);
	/* It does not, or an attempt to open it failed; text says why, for a human, without
	 * secrets. status: -EHOSTDOWN, -ETIMEDOUT, -EACCES (user or password refused),
	 * -EROFS (not a master), -EPROTO (no redis server there), -EOPNOTSUPP (too old, or a
	 * cluster), -EINVAL (no such database, a certificate that is no good). The functions of all
	 * commands in flight have been called before. The link tries again by itself. */
	void (*down)(void *user, int status, const char *text);
	/* A tracked key changed, or with data NULL: any may have. */
	void (*invalidated)(void *user, struct coord_bytes key);
};

/* Prepares; no I/O but reading certificates. options, hooks, scripts stay the caller's and must live
 * as long as the link. The scripts are loaded into the server at each opening, so that EVALSHA finds
 * them. Returns 0, -ENOMEM, or -EINVAL with *ret_error a text owned by the caller. */
int redis_link_new(struct coord_loop *, const struct redis_options *options,
	const struct redis_script *scripts, size_t scripts_len, const struct redis_link_hooks *,
	void *user, struct redis_link **ret, char **ret_error);
/* Begins to open. The link must be closed: new, or after redis_link_close(). */
void redis_link_open(struct redis_link *);
/* Closes at once; no `up`, `down` or `invalidated` comes any more. Commands in flight are answered with
 * -ECANCELED soon after. Nothing happens if it is closed. */
void redis_link_close(struct redis_link *);
/* Closes and frees; no function of a command is called any more. NULL is allowed. */
void redis_link_free(struct redis_link *);

bool redis_link_is_up(const struct redis_link *);
/* The rest is known while it is up. */
/* Notices come; else (a server before 6, or one that forbids it) the driver must poll. */
bool redis_link_tracks(const struct redis_link *);
/* 70015 for 7.0.15. */
unsigned redis_link_version(const struct redis_link *);
/* The server's run id, for .tooz/session; "" if it does not tell. */
const char *redis_link_run_id(const struct redis_link *);
/* host:port or the path of the server in use. */
const char *redis_link_peer(const struct redis_link *);
/* Commands sent through it, since it was made. */
uint64_t redis_link_requests(const struct redis_link *);

/* Sends a command; argv is copied. All that is sent in one turn of the loop leaves in one write for
 * each lane, in order. Without a link cmd->fn gets -EHOSTDOWN with COORD_SENT_NO, later. */
void redis_send(struct redis_link *, enum redis_lane, struct redis_cmd *, int argc,
	const char *const *argv, const size_t *lens);
/* Runs a script by its SHA1; where the server does not know it, again with its body. argv holds the keys,
 * then the arguments; argc counts both. */
void redis_script(struct redis_link *, enum redis_lane, struct redis_cmd *,
	const struct redis_script *, int nkeys, int argc, const char *const *argv,
	const size_t *lens);
/* The answer does not matter any more: fn is not called, and cmd may be freed. What was sent stands.
 * Nothing happens if cmd is not in flight. */
void redis_forget(struct redis_cmd *);

/* The errno for an error reply; 0 for any other. -EACCES, -EHOSTDOWN (cannot serve now: loading, a busy
 * script, no longer the master), -ENOSPC, -EBADMSG (a key of another type), -EOPNOTSUPP, -EIO. The
 * command had no effect, but for a script that failed in its middle (-EIO, -EBADMSG). */
int redis_errno(const redisReply *);

#endif
