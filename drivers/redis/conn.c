/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection that speaks redis' protocol. See conn.h.
 *
 * States: resolving -> connecting (the stream's) -> AUTH -> open -> broken; redis_conn_close() ends it in any of
 * them.
 *
 * A closed connection stays in memory while a callback of it runs, as in the stream.
 */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

#include "coord/loop_uv.h"
#include "drivers/redis/conn_parts.h"

enum {
	BYTES_A_MS = 16, /* that an answer has to come in with, at least */
	PAUSE_MS = 50 /* a timer that is so late was kept by a pause of this process */
};

/* A look-up cannot be taken back; it only loses its connection. */
struct redis_lookup {
	struct redis_conn *conn;
};

void redis_conn_enter(struct redis_conn *self)
{
	self->depth++;
}

void redis_conn_leave(struct redis_conn *self)
{
	assert(self->depth > 0);
	if (--self->depth > 0 || self->state != CONN_CLOSED)
		return;
	buffer_done(&self->out);
	free(self->slots);
	if (self->reader)
		redisReaderFree(self->reader);
	free(self);
}

/* text has the label already. */
static void conn_break_text(struct redis_conn *self, int status, const char *text)
{
	if (self->state == CONN_BROKEN || self->state == CONN_CLOSED)
		return;
	self->state = CONN_BROKEN;
	coord_timer_stop(self->loop, &self->timer);
	coord_loop_undefer(self->loop, &self->task);
	redis_conn_enter(self);
	self->hooks->broken(self->user, status, text);
	redis_conn_leave(self);
}

void redis_conn_break(struct redis_conn *self, int status, const char *format, ...)
{
	char why[REDIS_TEXT_MAX - REDIS_LABEL_MAX - 2], text[REDIS_TEXT_MAX];
	va_list args;
	va_start(args, format);
	vsnprintf(why, sizeof(why), format, args);
	va_end(args);
	snprintf(text, sizeof(text), "%s: %s", self->label, why);
	conn_break_text(self, status, text);
}

const char *redis_conn_label(const struct redis_conn *self)
{
	return self->label;
}

const struct sockaddr *redis_conn_address(const struct redis_conn *self, socklen_t *ret_len)
{
	return stream_address(self->stream, ret_len);
}

size_t redis_conn_waiting(const struct redis_conn *self)
{
	return (size_t)(self->next - self->first);
}

static void on_received(void *user, const char *data, size_t len)
{
	redis_conn_received(user, data, len);
}

/* ---- opening ---- */

static void login_done(struct redis_conn *self)
{
	self->state = CONN_OPEN;
	coord_timer_stop(self->loop, &self->timer);
	self->hooks->opened(self->user);
	if (self->state == CONN_OPEN && self->out.len)
		coord_loop_defer(self->loop, &self->task);
}

static void login_send(struct redis_conn *self);

/* Some errors repeat the arguments, or the first of their bytes. */
static bool tells_password(const redisReply *reply, const char *password)
{
	char beginning[16];
	if (!password)
		return false;
	snprintf(beginning, sizeof(beginning), "%s", password);
	return strstr(reply->str, beginning);
}

static void login_refused(struct redis_conn *self, const redisReply *reply)
{
	char what[160] = "the server's words are not repeated, for they have the password";
	if (!tells_password(reply, self->endpoint.password))
		redis_printable(reply->str, reply->len, what, sizeof(what));
	if (redis_error_is(reply, "WRONGPASS") || strstr(reply->str, "invalid password"))
		redis_conn_break(self, -EACCES, "wrong user or password (%s)", what);
	else if (redis_error_is(reply, "ERR"))
		redis_conn_break(self, -EACCES, "AUTH refused: %s", what);
	else
		redis_conn_break(self, redis_errno(reply), "%s", what);
}

static void login_reply(
	struct redis_cmd *cmd, int status, enum coord_sent sent, const redisReply *reply)
{
	struct redis_conn *self = coord_container(cmd, struct redis_conn, login);
	if (reply->type == REDIS_REPLY_STATUS) {
		login_done(self);
		return;
	}
	if (reply->type != REDIS_REPLY_ERROR) {
		redis_conn_break(self, -EPROTO, "not a redis server (a strange answer to AUTH)");
		return;
	}
	/* Before redis 6 there are no users; tooz then took the password alone. */
	if (self->endpoint.user && self->endpoint.password && !self->bare &&
		strstr(reply->str, "wrong number of arguments")) {
		self->bare = true;
		login_send(self);
		return;
	}
	login_refused(self, reply);
}

static void login_send(struct redis_conn *self)
{
	const char *user = self->bare ? NULL : self->endpoint.user;
	const char *password = self->endpoint.password ? self->endpoint.password : "";
	self->login = (struct redis_cmd){.fn = login_reply};
	int r = user ? redis_conn_words(self, &self->login, "AUTH", user, password, NULL)
		     : redis_conn_words(self, &self->login, "AUTH", password, NULL);
	if (r < 0)
		redis_conn_break(self, -EHOSTDOWN, "%s", strerror(-r));
}

static void on_opened(void *user)
{
	struct redis_conn *self = user;
	redis_conn_enter(self);
	self->state = CONN_LOGIN;
	if (self->endpoint.user || self->endpoint.password)
		login_send(self);
	else
		login_done(self);
	redis_conn_leave(self);
}

/* It was asked, and has never said anything; with TLS it has said something at least. */
static bool is_mute(const struct redis_conn *self)
{
	bool asked = self->state == CONN_LOGIN || self->state == CONN_OPEN;
	return asked && !self->spoke && !self->endpoint.tls;
}

static void on_broken(void *user, int status, const char *text)
{
	struct redis_conn *self = user;
	char all[REDIS_TEXT_MAX];
	const char *hint = is_mute(self) ? " before it answered: is it a redis server? With TLS "
					   "(ssl=true)?"
					 : "";
	snprintf(all, sizeof(all), "%s%s", text, hint);
	conn_break_text(self, status, all);
}

static const struct stream_hooks stream_hooks = {
	.opened = on_opened, .received = on_received, .broken = on_broken};

static void conn_connect(struct redis_conn *self, const struct addrinfo *list)
{
	const struct stream_target target = {
		.label = self->label,
		.path = self->endpoint.path,
		.addresses = list,
		.tls = self->endpoint.tls,
		.server_name = self->host,
		/* With TLS the stream ends first, because it knows what it waits for. */
		.connect_ms = self->endpoint.connect_ms -
			      (self->endpoint.tls ? self->endpoint.connect_ms / 16 : 0),
		.timeout_ms = self->endpoint.timeout_ms,
		.keepalive = self->endpoint.keepalive,
	};
	self->state = CONN_CONNECTING;
	int r = stream_open(self->loop, &target, &stream_hooks, self, &self->stream);
	if (r < 0)
		redis_conn_break(self, -EHOSTDOWN, "%s", strerror(-r));
}

static void on_resolved(void *user, int status, const char *text, const struct addrinfo *list)
{
	struct redis_lookup *lookup = user;
	struct redis_conn *self = lookup->conn;
	free(lookup);
	if (!self)
		return;
	self->lookup = NULL;
	if (self->state != CONN_RESOLVING)
		return;
	redis_conn_enter(self);
	if (status < 0)
		redis_conn_break(self, -EHOSTDOWN, "cannot resolve the name: %s", text);
	else
		conn_connect(self, list);
	redis_conn_leave(self);
}

static void resolve(struct redis_conn *self)
{
	char port[8];
	snprintf(port, sizeof(port), "%u", self->endpoint.port);
	struct redis_lookup *lookup = malloc(sizeof(*lookup));
	int r = -ENOMEM;
	if (lookup) {
		lookup->conn = self;
		r = coord_resolve(self->loop, self->host, port, on_resolved, lookup);
	}
	if (r < 0) {
		free(lookup);
		redis_conn_break(self, -EHOSTDOWN, "cannot resolve the name: %s", strerror(-r));
		return;
	}
	self->lookup = lookup;
}

/* The first step, out of redis_conn_open(). From then on the task writes. */
static void conn_begin(struct coord_task *task)
{
	struct redis_conn *self = coord_container(task, struct redis_conn, task);
	self->task.fn = redis_conn_write;
	redis_conn_enter(self);
	if (self->endpoint.path) {
		conn_connect(self, NULL);
	} else if (self->endpoint.address) {
		const struct addrinfo known = {.ai_addr = (struct sockaddr *)&self->name,
			.ai_addrlen = self->endpoint.address_len};
		conn_connect(self, &known);
	} else {
		resolve(self);
	}
	redis_conn_leave(self);
}

/* ---- time ---- */

/* A long answer is just coming in, and not by drops. Where messages come, none is long. */
static bool is_hearing(struct redis_conn *self)
{
	size_t least = self->checked ? self->checked + BYTES_A_MS * self->endpoint.timeout_ms : 1;
	bool r = self->heard && !self->hooks->message && self->pending >= least;
	self->checked = self->pending;
	return r;
}

/* The oldest command has waited long enough. */
static void check_answers(struct redis_conn *self)
{
	uint64_t begin;
	if (self->state != CONN_OPEN || !redis_conn_oldest(self, &begin))
		return;
	uint64_t now = coord_now_ms(self->loop);
	if (is_hearing(self))
		begin = now;
	self->heard = false;
	if (begin + self->endpoint.timeout_ms > now)
		coord_timer_start(self->loop, &self->timer, begin + self->endpoint.timeout_ms);
	else
		redis_conn_break(self, -ETIMEDOUT, "no answer %sfor %.3g s",
			is_mute(self) ? "at all " : "", (double)self->endpoint.timeout_ms / 1000);
}

/* After a pause of this process the name may be known, and the loop has only not come to it yet, or the resolver's
 * thread needs a moment more. */
static bool is_resolving_anew(struct redis_conn *self)
{
	uint64_t now = coord_now_ms(self->loop);
	if (self->state != CONN_RESOLVING || now < self->resolve_ms + PAUSE_MS)
		return false;
	self->resolve_ms = now + self->endpoint.connect_ms / 4 + 1;
	coord_timer_start(self->loop, &self->timer, self->resolve_ms);
	return true;
}

static void conn_time(struct coord_timer *timer)
{
	struct redis_conn *self = coord_container(timer, struct redis_conn, timer);
	if (is_resolving_anew(self))
		return;
	redis_conn_enter(self);
	if (self->state == CONN_OPEN) {
		/* After a pause of this process the answer may lie in the socket. */
		if (self->first < self->written)
			stream_read_now(self->stream);
		check_answers(self);
	} else if (self->state == CONN_RESOLVING) {
		redis_conn_break(self, -ETIMEDOUT, "the name server does not answer");
	} else {
		redis_conn_break(self, -ETIMEDOUT, "no answer for %.3g s",
			(double)self->endpoint.connect_ms / 1000);
	}
	redis_conn_leave(self);
}

/* ---- life ---- */

static void make_label(struct redis_conn *self)
{
	const struct redis_endpoint *to = &self->endpoint;
	if (to->path)
		snprintf(self->label, sizeof(self->label), "%s", to->path);
	else if (strchr(self->host, ':'))
		snprintf(self->label, sizeof(self->label), "[%s]:%u", self->host, to->port);
	else
		snprintf(self->label, sizeof(self->label), "%s:%u", self->host, to->port);
	/* The stream wants a path that stays; a longer one than the label is longer than any socket's. */
	if (to->path)
		self->endpoint.path = self->label;
}

int redis_conn_open(struct coord_loop *loop, const struct redis_endpoint *to,
	const struct redis_conn_hooks *hooks, void *user, struct redis_conn **ret)
{
	struct redis_conn *self = calloc(1, sizeof(*self));
	if (!self)
		return -ENOMEM;
	*self = (struct redis_conn){
		.loop = loop,
		.hooks = hooks,
		.user = user,
		.endpoint = *to,
		.timer.fn = conn_time,
		.task.fn = conn_begin,
		.reader = redisReaderCreate(),
	};
	if (!self->reader) {
		free(self);
		return -ENOMEM;
	}
	redis_reader_limit(self->reader, &self->limits);
	if (to->host)
		snprintf(self->host, sizeof(self->host), "%s", to->host);
	assert(to->address_len <= sizeof(self->name));
	if (to->address)
		memcpy(&self->name, to->address, to->address_len);
	make_label(self);
	self->resolve_ms = coord_now_ms(loop) + to->connect_ms;
	coord_timer_start(loop, &self->timer, self->resolve_ms);
	coord_loop_defer(loop, &self->task);
	*ret = self;
	return 0;
}

void redis_conn_close(struct redis_conn *self, int status, struct coord_list *failed)
{
	if (!self)
		return;
	assert(self->state != CONN_CLOSED);
	redis_conn_enter(self);
	self->state = CONN_CLOSED;
	coord_timer_stop(self->loop, &self->timer);
	coord_loop_undefer(self->loop, &self->task);
	redis_conn_fail_waiting(self, status, failed);
	if (self->lookup)
		self->lookup->conn = NULL;
	stream_close(self->stream);
	self->stream = NULL;
	redis_conn_leave(self);
}
