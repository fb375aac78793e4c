/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS for the stream: an OpenSSL connection between two memory BIOs. For drivers/common/ alone.
 */
#ifndef DRIVERS_TLS_H
#define DRIVERS_TLS_H

#include <openssl/ssl.h>

#include "drivers/common/stream.h"

enum { TLS_TEXT_MAX = 192 };

/* One side of a connection. Ciphertext from the socket goes into `in`, and what `out` holds belongs into the
 * socket. Both BIOs are the SSL's. */
struct tls {
	SSL *ssl;
	BIO *in, *out;
};

/* Makes a client that will accept only a server of this name or numeric address. 0 or -ENOMEM. */
int tls_init(struct tls *, struct stream_tls *, const char *server_name);
void tls_done(struct tls *);
/* 1: done, 0: more must be exchanged, else -EACCES or -EPROTO with a text. */
int tls_handshake(struct tls *, char ret_text[TLS_TEXT_MAX]);
/* Plaintext. Both return a length above 0; 0: not now; -EPIPE: the other side said goodbye; -EPROTO and
 * -EACCES with a text. */
int tls_read(struct tls *, void *data, int len, char ret_text[TLS_TEXT_MAX]);
int tls_write(struct tls *, const void *data, int len, char ret_text[TLS_TEXT_MAX]);

#endif
