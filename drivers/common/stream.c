/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A connection on the loop. See stream.h.
 *
 * The descriptor is ours, and libuv only watches it: its handle lives in a piece of memory of its own,
 * which is freed when libuv has let go of it, so that a stream can be closed and freed at any moment. While
 * a callback runs (`depth`) a closed stream stays in memory, and whoever called the callback frees it.
 *
 * What has left: without TLS the bytes that send() took; with TLS the plaintext that was encrypted, which
 * happens only when all earlier ciphertext is out.
 */
#include "drivers/common/stream.h"

#include <assert.h>
#include <stdio.h>
#include <uv.h>

#include "coord/loop_uv.h"
#include "drivers/common/address.h"
#include "drivers/common/buffer.h"
#include "drivers/common/tls.h"

enum {
	READ_MAX = 64 * 1024,
	QUEUE_MAX = 32 * 1024 * 1024,
	RECORD_MAX = 16 * 1024, /* of TLS */
};

enum stream_state { CONNECTING, HANDSHAKE, OPEN, BROKEN, CLOSED };

/* A descriptor with libuv's watch on it. */
struct watched {
	uv_poll_t poll;
	struct stream *stream; /* NULL: let go of */
	int fd;
	int events; /* watched at present */
};

struct stream {
	struct coord_loop *loop;
	const struct stream_hooks *hooks;
	void *user;
	enum stream_state state;
	unsigned depth; /* callbacks on the stack */
	struct watched *socket;
	struct stream_address *addresses;
	size_t addresses_len, at; /* at: the one in use */
	struct coord_timer timer; /* of the present address, then of the handshake */
	uint64_t deadline_ms; /* for being open */
	struct coord_task task; /* begins; later reports what stream_write found */
	struct buffer out; /* plaintext that could not leave yet */
	uint64_t handed;
	struct tls tls; /* ssl NULL: none */
	uint64_t timeout_ms;
	bool keepalive;
	char *label;
	int failure; /* why the last address failed, or a write; 0 or -errno */
	bool hung_up; /* a write failed; to be reported by the task */
};

static void stream_enter(struct stream *self)
{
	self->depth++;
}

static void stream_leave(struct stream *self)
{
	assert(self->depth > 0);
	if (--self->depth > 0 || self->state != CLOSED)
		return;
	tls_done(&self->tls);
	buffer_done(&self->out);
	free(self->addresses);
	free(self->label);
	free(self);
}

static void watched_closed(uv_handle_t *handle)
{
	free(coord_container(handle, struct watched, poll));
}

static void socket_close(struct stream *self)
{
	struct watched *socket = self->socket;
	if (!socket)
		return;
	self->socket = NULL;
	socket->stream = NULL;
	uv_close((uv_handle_t *)&socket->poll, watched_closed);
	/* uv_close has taken the descriptor out of epoll. */
	close(socket->fd);
}

/* The end, but for stream_close. */
static void stream_break(struct stream *self, int status, const char *why)
{
	if (self->state == BROKEN || self->state == CLOSED)
		return;
	self->state = BROKEN;
	coord_timer_stop(self->loop, &self->timer);
	coord_loop_undefer(self->loop, &self->task);
	socket_close(self);
	char text[TLS_TEXT_MAX + 320];
	snprintf(text, sizeof(text), "%s: %s", self->label, why);
	stream_enter(self);
	self->hooks->broken(self->user, status, text);
	stream_leave(self);
}

static void stream_break_errno(struct stream *self, int error)
{
	int status = error == ETIMEDOUT ? -ETIMEDOUT : -EHOSTDOWN;
	stream_break(self, status, strerror(error));
}

static void on_ready(uv_poll_t *poll, int status, int events);

/* Watches for reading, and for writing while something waits. */
static void stream_watch(struct stream *self)
{
	struct watched *socket = self->socket;
	if (!socket)
		return;
	bool waits = self->state == CONNECTING || (self->state == OPEN && self->out.len) ||
		     (self->tls.ssl && BIO_ctrl_pending(self->tls.out));
	int events = waits ? UV_WRITABLE : 0;
	if (self->state != CONNECTING)
		events |= UV_READABLE;
	if (events == socket->events)
		return;
	int r = uv_poll_start(&socket->poll, events, on_ready);
	assert(r == 0);
	socket->events = events;
}

/* ---- sending ---- */

/* Returns how much the socket took, 0: nothing now, or -errno. */
static ssize_t socket_send(struct stream *self, const void *data, size_t len)
{
	if (!self->socket)
		return -EPIPE;
	for (;;) {
		ssize_t n = send(self->socket->fd, data, len, MSG_NOSIGNAL);
		if (n >= 0)
			return n;
		if (errno == EAGAIN || errno == EWOULDBLOCK)
			return 0;
		if (errno != EINTR)
			return -errno;
	}
}

/* Sends ciphertext. Returns 0 with nothing left, 1 with something left, or -errno. */
static int send_ciphertext(struct stream *self)
{
	char *data;
	long len = BIO_get_mem_data(self->tls.out, &data);
	if (len <= 0)
		return 0;
	ssize_t n = socket_send(self, data, (size_t)len);
	if (n < 0)
		return (int)n;
	if (n == len) {
		(void)BIO_reset(self->tls.out);
		return 0;
	}
	char dropped[4096];
	while (n > 0) {
		int part = n < (ssize_t)sizeof(dropped) ? (int)n : (int)sizeof(dropped);
		int got = BIO_read(self->tls.out, dropped, part);
		assert(got == part);
		n -= part;
	}
	return 1;
}

static int send_encrypted(struct stream *self)
{
	char text[TLS_TEXT_MAX];
	int r;
	while ((r = send_ciphertext(self)) == 0 && self->out.len && self->state == OPEN) {
		int len = self->out.len < RECORD_MAX ? (int)self->out.len : RECORD_MAX;
		int n = tls_write(&self->tls, buffer_head(&self->out), len, text);
		if (n <= 0)
			return n;
		self->handed += (uint64_t)n;
		buffer_drop(&self->out, (size_t)n);
	}
	return r < 0 ? r : 0;
}

/* Sends what waits, as far as it goes. Returns 0 or -errno. */
static int stream_flush(struct stream *self)
{
	if (self->tls.ssl)
		return send_encrypted(self);
	while (self->state == OPEN && self->out.len) {
		ssize_t n = socket_send(self, buffer_head(&self->out), self->out.len);
		if (n <= 0)
			return (int)n;
		self->handed += (uint64_t)n;
		buffer_drop(&self->out, (size_t)n);
	}
	return 0;
}

int stream_write(struct stream *self, const void *data, size_t len)
{
	if (self->state == BROKEN || self->state == CLOSED || self->hung_up)
		return 0;
	if (len > QUEUE_MAX || self->out.len > QUEUE_MAX - len)
		return -ENOBUFS;
	int r = buffer_reserve(&self->out, len);
	if (r < 0)
		return r;
	if (self->state == OPEN && !self->tls.ssl && self->out.len == 0) {
		ssize_t n = socket_send(self, data, len);
		if (n > 0) {
			self->handed += (uint64_t)n;
			data = (const char *)data + n;
			len -= (size_t)n;
		}
		r = n < 0 ? (int)n : 0;
	}
	(void)buffer_add(&self->out, data, len); /* there is room */
	if (r == 0 && self->state == OPEN && self->tls.ssl)
		r = stream_flush(self);
	if (r < 0) {
		/* Told later, and after reading: the server may have said why it hung up. */
		self->failure = r;
		self->hung_up = true;
		coord_loop_defer(self->loop, &self->task);
		return 0;
	}
	stream_watch(self);
	return 0;
}

uint64_t stream_handed(const struct stream *self)
{
	return self->handed;
}

/* ---- receiving ---- */

static void deliver(struct stream *self, const char *data, size_t len)
{
	self->hooks->received(self->user, data, len);
}

static void stream_opened(struct stream *self)
{
	self->state = OPEN;
	coord_timer_stop(self->loop, &self->timer);
	self->hooks->opened(self->user);
	if (self->state != OPEN)
		return;
	int r = stream_flush(self);
	if (r < 0)
		stream_break_errno(self, -r);
	else
		stream_watch(self);
}

/* Goes on with the handshake. Returns whether it is done. */
static bool stream_shake(struct stream *self)
{
	char text[TLS_TEXT_MAX];
	int r = tls_handshake(&self->tls, text);
	int sent = send_ciphertext(self); /* an alert, too */
	if (r < 0) {
		stream_break(self, r, text);
		return false;
	}
	if (sent < 0) {
		stream_break_errno(self, -sent);
		return false;
	}
	if (r == 1)
		stream_opened(self);
	else
		stream_watch(self);
	return r == 1 && self->state == OPEN;
}

static void receive_encrypted(struct stream *self, const char *data, size_t len)
{
	if (BIO_write(self->tls.in, data, (int)len) != (int)len) {
		stream_break_errno(self, ENOMEM);
		return;
	}
	if (self->state == HANDSHAKE && !stream_shake(self))
		return;
	char plain[RECORD_MAX], text[TLS_TEXT_MAX];
	int n = 0;
	while (self->state == OPEN && (n = tls_read(&self->tls, plain, sizeof(plain), text)) > 0)
		deliver(self, plain, (size_t)n);
	if (self->state != OPEN)
		return;
	if (n == -EPIPE)
		stream_break(self, -EHOSTDOWN, "closed by the server");
	else if (n < 0)
		stream_break(self, n, text);
	else if ((n = stream_flush(self)) < 0) /* reading may have made something to send */
		stream_break_errno(self, -n);
}

/* Reads once. Returns whether there may be more. */
static bool stream_receive(struct stream *self)
{
	char data[READ_MAX];
	ssize_t n;
	do
		n = recv(self->socket->fd, data, sizeof(data), 0);
	while (n < 0 && errno == EINTR);
	if (n > 0 && self->tls.ssl) {
		receive_encrypted(self, data, (size_t)n);
	} else if (n > 0) {
		deliver(self, data, (size_t)n);
	} else if (n == 0) {
		stream_break(self, self->state == HANDSHAKE ? -EPROTO : -EHOSTDOWN,
			self->state == HANDSHAKE
				? "closed during the TLS handshake: is that a port "
				  "for TLS?"
				: "closed by the server");
	} else if (errno == EAGAIN || errno == EWOULDBLOCK) {
		return false;
	} else {
		stream_break_errno(self, errno);
	}
	return self->state == OPEN || self->state == HANDSHAKE;
}

void stream_read_now(struct stream *self)
{
	if (self->state != OPEN && self->state != HANDSHAKE)
		return;
	stream_enter(self);
	stream_receive(self);
	stream_leave(self);
}

/* ---- connecting ---- */

static void try_next(struct stream *self);

static int watch_socket(struct stream *self, int fd)
{
	struct watched *socket = calloc(1, sizeof(*socket));
	if (!socket)
		return -ENOMEM;
	socket->stream = self;
	socket->fd = fd;
	int r = uv_poll_init(coord_loop_uv_get(self->loop), &socket->poll, fd);
	if (r < 0) {
		free(socket);
		return r;
	}
	self->socket = socket;
	stream_watch(self);
	return 0;
}

static int connect_address(struct stream *self, const struct stream_address *address)
{
	int fd = socket(address->name.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	int r = connect(fd, (const struct sockaddr *)&address->name, address->len) < 0 ? -errno : 0;
	if (r == -EINPROGRESS || r == -EINTR)
		r = 0;
	if (r == 0)
		r = watch_socket(self, fd);
	if (r < 0)
		close(fd);
	return r;
}

static void on_connected(struct stream *self)
{
	int r = stream_connect_result(self->socket->fd);
	if (r < 0) {
		socket_close(self);
		self->failure = r;
		self->at++;
		try_next(self);
		return;
	}
	self->failure = 0;
	if (self->addresses[self->at].name.ss_family != AF_UNIX)
		stream_set_options(self->socket->fd, self->timeout_ms, self->keepalive);
	if (self->tls.ssl) {
		self->state = HANDSHAKE;
		coord_timer_start(self->loop, &self->timer, self->deadline_ms);
		stream_shake(self);
	} else {
		stream_opened(self);
	}
}

/* The time that is left is shared among the addresses that are left, so that one that does not
 * answer does not use it up. */
static void try_next(struct stream *self)
{
	uint64_t now = coord_now_ms(self->loop);
	for (; self->at < self->addresses_len && now < self->deadline_ms; self->at++) {
		size_t left = self->addresses_len - self->at;
		coord_timer_start(self->loop, &self->timer, now + (self->deadline_ms - now) / left);
		int r = connect_address(self, &self->addresses[self->at]);
		if (r == 0)
			return;
		self->failure = r;
	}
	stream_break_errno(self, self->failure ? -self->failure : ETIMEDOUT);
}

static void on_time(struct coord_timer *timer)
{
	struct stream *self = coord_container(timer, struct stream, timer);
	stream_enter(self);
	if (self->state == CONNECTING) {
		socket_close(self);
		self->failure = -ETIMEDOUT;
		self->at++;
		try_next(self);
	} else {
		stream_break(self, -ETIMEDOUT,
			"no answer in the TLS handshake: is that a port for TLS?");
	}
	stream_leave(self);
}

static void on_task(struct coord_task *task)
{
	struct stream *self = coord_container(task, struct stream, task);
	int failure = -self->failure;
	stream_enter(self);
	if (self->state == CONNECTING) {
		try_next(self);
	} else {
		while (stream_receive(self))
			;
		stream_break_errno(self, failure);
	}
	stream_leave(self);
}

/* libuv stops a watch by itself when the socket has an error. Then all is read that there is. */
static void on_trouble(struct stream *self)
{
	self->socket->events = 0;
	while (stream_receive(self))
		;
	if (self->state != OPEN && self->state != HANDSHAKE)
		return;
	int r = stream_connect_result(self->socket->fd);
	stream_break_errno(self, r < 0 ? -r : EPIPE);
}

static void on_event(struct stream *self, int status, int events)
{
	if (self->state == CONNECTING) {
		if (status < 0)
			self->socket->events = 0; /* stopped by libuv */
		on_connected(self);
		return;
	}
	if (status < 0) {
		on_trouble(self);
		return;
	}
	if (events & UV_WRITABLE) {
		int r = self->state == HANDSHAKE ? send_ciphertext(self) : stream_flush(self);
		if (r < 0) {
			stream_break_errno(self, -r);
			return;
		}
	}
	if (!(events & UV_READABLE) || stream_receive(self))
		stream_watch(self);
}

static void on_ready(uv_poll_t *poll, int status, int events)
{
	struct watched *socket = coord_container(poll, struct watched, poll);
	struct stream *self = socket->stream;
	assert(self); /* a closed handle is silent */
	struct coord_loop *loop = self->loop;
	loop->in_turn = true;
	stream_enter(self);
	on_event(self, status, events);
	stream_leave(self);
	loop->in_turn = false;
	coord_loop_run(loop);
}

/* ---- life ---- */

int stream_open(struct coord_loop *loop, const struct stream_target *target,
	const struct stream_hooks *hooks, void *user, struct stream **ret)
{
	struct stream *self = calloc(1, sizeof(*self));
	if (!self)
		return -ENOMEM;
	*self = (struct stream){
		.loop = loop,
		.hooks = hooks,
		.user = user,
		.timer.fn = on_time,
		.task.fn = on_task,
		.deadline_ms = coord_now_ms(loop) + target->connect_ms,
		.timeout_ms = target->timeout_ms,
		.keepalive = target->keepalive,
		.label = strdup(target->label),
	};
	int r = self->label ? 0 : -ENOMEM;
	if (r == 0)
		r = stream_copy_addresses(target, &self->addresses, &self->addresses_len);
	/* What cannot be an address is told as the failure of the first attempt. */
	if (r == -ENAMETOOLONG || r == -EADDRNOTAVAIL) {
		self->failure = r;
		r = 0;
	}
	if (r == 0 && target->tls)
		r = tls_init(&self->tls, target->tls, target->server_name);
	if (r < 0) {
		stream_close(self);
		return r;
	}
	coord_loop_defer(loop, &self->task);
	*ret = self;
	return 0;
}

const struct sockaddr *stream_address(const struct stream *self, socklen_t *ret_len)
{
	assert(self->at < self->addresses_len);
	*ret_len = self->addresses[self->at].len;
	return (const struct sockaddr *)&self->addresses[self->at].name;
}

void stream_close(struct stream *self)
{
	if (!self)
		return;
	assert(self->state != CLOSED);
	stream_enter(self);
	coord_timer_stop(self->loop, &self->timer);
	coord_loop_undefer(self->loop, &self->task);
	socket_close(self);
	self->state = CLOSED;
	stream_leave(self);
}
