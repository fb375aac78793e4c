/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The real loop, on libuv. Lease timers are a timerfd on CLOCK_BOOTTIME, which goes on in suspend.
 */
#ifndef COORD_LOOP_UV_H
#define COORD_LOOP_UV_H

#include "coord/loop.h"

struct uv_loop_s;
struct addrinfo;

/* Returns 0 or -errno. Call after fork and before threads. */
int coord_loop_uv_new(struct coord_loop **ret);
/* Closes every handle of ours, runs the loop until it is empty, frees. NULL is allowed. */
void coord_loop_uv_free(struct coord_loop *);
/* For drivers whose client library wants libuv handles. */
struct uv_loop_s *coord_loop_uv_get(struct coord_loop *);
/* Runs until coord_loop_uv_stop. */
void coord_loop_uv_run(struct coord_loop *);
void coord_loop_uv_stop(struct coord_loop *);

/* A file descriptor watched for reading. fn gets 0 when readable, -errno when the descriptor
 * broke (the watch has then stopped). The descriptor stays the caller's; stop before closing it. */
struct coord_fd;
int coord_fd_watch(struct coord_loop *, int fd, void (*fn)(void *user, int status), void *user,
	struct coord_fd **ret);
void coord_fd_stop(struct coord_fd *); /* NULL is allowed; frees */

/* Calls fn on the loop when the signal arrives. */
struct coord_signal;
int coord_signal_watch(struct coord_loop *, int signum, void (*fn)(void *user, int signum),
	void *user, struct coord_signal **ret);
void coord_signal_stop(struct coord_signal *);

/* Name resolution off the loop (getaddrinfo on libuv's pool). fn is called once, with 0 and a list
 * that is freed after it returns, or with -EHOSTUNREACH and the resolver's text. */
int coord_resolve(struct coord_loop *, const char *host, const char *port,
	void (*fn)(void *user, int status, const char *text, const struct addrinfo *list),
	void *user);

#endif
