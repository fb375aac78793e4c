/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection to a server, by TCP or a UNIX socket, with TLS if asked, on the loop.
 *
 * States: connecting (the addresses in turn) -> handshake (TLS) -> open -> broken; stream_close() ends it in any
 * of them. `opened` comes once, `broken` at most once and as the last; neither comes from inside
 * stream_open() or stream_write(). From inside each callback the stream may be closed.
 */
#ifndef DRIVERS_STREAM_H
#define DRIVERS_STREAM_H

#include <netdb.h>
#include <sys/socket.h>

#include "coord/loop.h"

struct stream;
/* What connections with TLS share: whom to trust, and who we are. */
struct stream_tls;

/* Reads the files; each may be NULL. ca_file: trust these and not the system's certificates. Returns 0, -ENOMEM,
 * or -EINVAL with *ret_error a text owned by the caller. */
int stream_tls_new(const char *ca_file, const char *cert_file, const char *key_file,
	struct stream_tls **ret, char **ret_error);
/* Streams that use it keep what they need. NULL is allowed. */
void stream_tls_free(struct stream_tls *);

struct stream_hooks {
	/* Connected, and with TLS the server is who it should be. */
	void (*opened)(void *user);
	/* At most 64 KiB at once. data is valid during the call. */
	void (*received)(void *user, const char *data, size_t len);
	/* The end: -EHOSTDOWN, -ETIMEDOUT, -EACCES (a certificate was refused), -EPROTO (no TLS
	 * spoken there), -EINVAL (no such thing as this UNIX socket). text is for a human, begins
	 * with the label, and is valid during the call. stream_close() is still to be called. */
	void (*broken)(void *user, int status, const char *text);
};

/* Where to, and how. Everything is copied. */
struct stream_target {
	const char *label; /* what the texts call it */
	const char *path; /* of a UNIX socket; NULL: the addresses */
	const struct addrinfo *addresses; /* numeric, tried in turn */
	struct stream_tls *tls; /* NULL: no TLS */
	const char *server_name; /* with TLS: the name or numeric address in the certificate */
	uint64_t connect_ms; /* time for connecting and the handshake together */
	uint64_t timeout_ms; /* unacknowledged data breaks it after so long; 0: the system's time */
	bool keepalive;
};

/* Begins. Returns 0 or -ENOMEM; all else is reported by `broken`. */
int stream_open(struct coord_loop *, const struct stream_target *, const struct stream_hooks *,
	void *user, struct stream **ret);
/* Sends, or keeps what cannot be sent now, also before it is open. Returns 0, -ENOMEM or -ENOBUFS (over
 * 32 MiB wait already); then nothing was taken. On a broken stream the bytes vanish. */
int stream_write(struct stream *, const void *data, size_t len);
/* How many of all bytes ever given to stream_write may have left: the later ones certainly have not. */
uint64_t stream_handed(const struct stream *);
/* Reads now what has come, as if the loop had said so. */
void stream_read_now(struct stream *);
/* The address that it is connected to, once open. AF_UNIX for a path. */
const struct sockaddr *stream_address(const struct stream *, socklen_t *ret_len);
/* No callback comes any more. What was not sent is dropped. NULL is allowed. */
void stream_close(struct stream *);

#endif
