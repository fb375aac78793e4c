/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection that speaks redis' protocol. See conn.h.
 *
 * States: resolving -> connecting (the stream's) -> AUTH -> open -> broken; redis_conn_close() ends it in any of
 * them. Commands are formatted into `out` and leave together at the end of the turn. The ring has
 * one slot for each command whose answer is to come; a slot whose command was forgotten stays, empty.
 *
 * A closed connection stays in memory while a callback of it runs, as in the stream.
 */
#include "drivers/redis/conn.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

#include "coord/loop_uv.h"
#include "drivers/common/buffer.h"

enum {
	REPLY_MAX = 64 * 1024 * 1024,
	WAITING_MAX = 1 << 20,
	WORDS_MAX = 8,
};

enum conn_state { RESOLVING, CONNECTING, LOGIN, OPEN, BROKEN, CLOSED };

struct slot {
	struct redis_cmd *cmd; /* NULL: forgotten */
	uint64_t start; /* its first byte, counted from the first of the connection */
	uint64_t sent_ms;
};

/* A look-up cannot be taken back; it only loses its connection. */
struct lookup {
	struct redis_conn *conn;
};

struct redis_conn {
	struct coord_loop *loop;
	const struct redis_conn_hooks *hooks;
	void *user;
	enum conn_state state;
	unsigned depth;
	struct stream *stream;
	struct lookup *lookup;
	struct redis_endpoint endpoint; /* host and path are in label; address in name */
	struct sockaddr_storage name;
	char label[REDIS_LABEL_MAX], host[256];
	struct coord_timer timer; /* till it is open; then for answers */
	struct coord_task task; /* writes out */
	struct buffer out;
	uint64_t formatted; /* bytes, all that ever went into out */
	struct slot *slots;
	size_t slots_size; /* a power of two */
	uint64_t first, written,
		next; /* places: waiting is first..next, written ones are below written */
	redisReader *reader;
	struct redis_reader_limits limits;
	size_t pending; /* bytes read since the last whole reply */
	bool spoke; /* one whole reply came */
	bool heard; /* something of a long reply came since the timer was started */
	bool bare; /* AUTH without the user's name is tried */
	struct redis_cmd login;
};

static void conn_enter(struct redis_conn *self)
{
	self->depth++;
}

static void conn_leave(struct redis_conn *self)
{
	assert(self->depth > 0);
	if (--self->depth > 0 || self->state != CLOSED)
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
	if (self->state == BROKEN || self->state == CLOSED)
		return;
	self->state = BROKEN;
	coord_timer_stop(self->loop, &self->timer);
	coord_loop_undefer(self->loop, &self->task);
	conn_enter(self);
	self->hooks->broken(self->user, status, text);
	conn_leave(self);
}

__attribute__((format(printf, 3, 4))) static void conn_break(
	struct redis_conn *self, int status, const char *format, ...)
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

/* ---- sending ---- */

static struct slot *slot_of(struct redis_conn *self, uint64_t place)
{
	return &self->slots[place & (self->slots_size - 1)];
}

static int grow_slots(struct redis_conn *self)
{
	size_t size = self->slots_size ? 2 * self->slots_size : 16;
	if (size > WAITING_MAX)
		return -ENOBUFS;
	struct slot *slots = malloc(size * sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	for (uint64_t i = self->first; i < self->next; i++)
		slots[i & (size - 1)] = *slot_of(self, i);
	free(self->slots);
	self->slots = slots;
	self->slots_size = size;
	return 0;
}

/* "$LEN\r\nDATA\r\n" */
static int add_bulk(struct buffer *out, const char *data, size_t len)
{
	char head[24];
	int n = snprintf(head, sizeof(head), "$%zu\r\n", len);
	int r = buffer_reserve(out, (size_t)n + len + 2);
	if (r < 0)
		return r;
	(void)buffer_add(out, head, (size_t)n);
	(void)buffer_add(out, data, len);
	return buffer_add(out, "\r\n", 2);
}

static int add_count(struct buffer *out, int count)
{
	char head[16];
	int n = snprintf(head, sizeof(head), "*%d\r\n", count);
	return buffer_add(out, head, (size_t)n);
}

static int add_args(struct buffer *out, int argc, const char *const *argv, const size_t *lens)
{
	int r = 0;
	for (int i = 0; r == 0 && i < argc; i++)
		r = add_bulk(out, argv[i], lens ? lens[i] : strlen(argv[i]));
	return r;
}

/* Ends a command whose bytes were appended to out from `before` bytes on; on an error they are taken back. */
static int conn_commit(struct redis_conn *self, struct redis_cmd *cmd, size_t before, int r)
{
	if (r == 0 && self->next - self->first == self->slots_size)
		r = grow_slots(self);
	if (r < 0) {
		self->out.len = before;
		return r;
	}
	uint64_t start = self->formatted;
	self->formatted += self->out.len - before;
	*slot_of(self, self->next) = (struct slot){.cmd = cmd, .start = start};
	cmd->conn = self;
	cmd->place = self->next++;
	coord_list_init(&cmd->node);
	/* Before it is open only the login itself is written; the rest follows. */
	if (self->state == OPEN || (self->state == LOGIN && cmd == &self->login))
		coord_loop_defer(self->loop, &self->task);
	return 0;
}

int redis_conn_send(struct redis_conn *self, struct redis_cmd *cmd, int argc,
	const char *const *argv, const size_t *lens)
{
	size_t before = self->out.len;
	int r = add_count(&self->out, argc);
	if (r == 0)
		r = add_args(&self->out, argc, argv, lens);
	return conn_commit(self, cmd, before, r);
}

int redis_conn_words(struct redis_conn *self, struct redis_cmd *cmd, ...)
{
	const char *argv[WORDS_MAX];
	int argc = 0;
	va_list args;
	va_start(args, cmd);
	for (const char *word; (word = va_arg(args, const char *));) {
		assert(argc < WORDS_MAX);
		argv[argc++] = word;
	}
	va_end(args);
	return redis_conn_send(self, cmd, argc, argv, NULL);
}

static void cmd_drop_script(struct redis_cmd *cmd)
{
	cmd->script = NULL;
	free(cmd->tail);
	cmd->tail = NULL;
}

/* Sends EVALSHA, or EVAL, with the tail of cmd. */
static int send_script(struct redis_conn *self, struct redis_cmd *cmd, bool whole)
{
	const struct redis_script *script = cmd->script;
	const char *body = whole ? script->body : script->sha;
	size_t before = self->out.len;
	int r = add_count(&self->out, cmd->tail_args + 2);
	if (r == 0)
		r = add_bulk(&self->out, whole ? "EVAL" : "EVALSHA", whole ? 4 : 7);
	if (r == 0)
		r = add_bulk(&self->out, body, strlen(body));
	if (r == 0)
		r = buffer_add(&self->out, cmd->tail, cmd->tail_len);
	return conn_commit(self, cmd, before, r);
}

int redis_conn_script(struct redis_conn *self, struct redis_cmd *cmd,
	const struct redis_script *script, int nkeys, int argc, const char *const *argv,
	const size_t *lens)
{
	char count[12];
	struct buffer tail = {0};
	int n = snprintf(count, sizeof(count), "%d", nkeys);
	int r = add_bulk(&tail, count, (size_t)n);
	if (r == 0)
		r = add_args(&tail, argc, argv, lens);
	cmd->script = script;
	cmd->tail = tail.data;
	cmd->tail_len = tail.len;
	cmd->tail_args = argc + 1;
	if (r == 0)
		r = send_script(self, cmd, false);
	if (r < 0)
		cmd_drop_script(cmd);
	return r;
}

void redis_forget(struct redis_cmd *cmd)
{
	if (cmd->conn)
		slot_of(cmd->conn, cmd->place)->cmd = NULL;
	else if (cmd->node.next)
		coord_list_remove(&cmd->node);
	cmd->conn = NULL;
	cmd_drop_script(cmd);
}

/* Runs at the end of the turn. */
static void conn_write(struct coord_task *task)
{
	struct redis_conn *self = coord_container(task, struct redis_conn, task);
	uint64_t now = coord_now_ms(self->loop);
	for (; self->written < self->next; self->written++) {
		struct slot *slot = slot_of(self, self->written);
		slot->sent_ms = now;
		if (slot->cmd)
			slot->cmd->sent_ms = now;
	}
	conn_enter(self);
	int r = stream_write(self->stream, buffer_head(&self->out), self->out.len);
	buffer_drop(&self->out, self->out.len);
	if (r < 0)
		conn_break(self, -EHOSTDOWN, "%s", strerror(-r));
	else if (self->state == OPEN && !self->timer.active)
		coord_timer_start(self->loop, &self->timer, now + self->endpoint.timeout_ms);
	conn_leave(self);
}

/* ---- answers ---- */

/* The place of the oldest command is taken. Returns whether the answer is for its function. */
static bool finish_script(struct redis_conn *self, struct redis_cmd *cmd, const redisReply *reply)
{
	if (!cmd->script)
		return true;
	if (redis_error_is(reply, "NOSCRIPT") && self->state == OPEN) {
		int r = send_script(self, cmd, true);
		cmd_drop_script(cmd);
		return r < 0;
	}
	cmd_drop_script(cmd);
	return true;
}

/* Errors after which the rest of the link is no good either. */
static bool is_doubtful(const redisReply *reply)
{
	return redis_error_is(reply, "READONLY") || redis_error_is(reply, "NOAUTH") ||
	       redis_error_is(reply, "MASTERDOWN");
}

static void answer(struct redis_conn *self, const redisReply *reply)
{
	struct redis_cmd *cmd = slot_of(self, self->first)->cmd;
	self->first++;
	if (cmd) {
		cmd->conn = NULL;
		if (finish_script(self, cmd, reply))
			cmd->fn(cmd, 0, COORD_SENT_ANSWERED, reply);
	}
	if (self->state != OPEN || !self->hooks->doubtful || !is_doubtful(reply))
		return;
	char what[160], text[REDIS_TEXT_MAX];
	redis_printable(reply->str, reply->len, what, sizeof(what));
	snprintf(text, sizeof(text), "%s: %s", self->label, what);
	self->hooks->doubtful(self->user, redis_errno(reply), text);
}

/* What a subscribed connection gets without having asked. */
static bool is_message(const redisReply *reply)
{
	return reply->type == REDIS_REPLY_ARRAY && reply->elements == 3 &&
	       reply->element[0]->type == REDIS_REPLY_STRING &&
	       reply->element[1]->type == REDIS_REPLY_STRING &&
	       strcmp(reply->element[0]->str, "message") == 0;
}

static void conn_reply(struct redis_conn *self, const redisReply *reply)
{
	self->spoke = true;
	self->pending = 0;
	if (self->hooks->message && is_message(reply)) {
		self->hooks->message(self->user, reply);
	} else if (self->first < self->written) {
		answer(self, reply);
	} else if (reply->type == REDIS_REPLY_ERROR) {
		/* "-DENIED ... protected mode", "-ERR max number of clients reached" */
		char what[160];
		redis_printable(reply->str, reply->len, what, sizeof(what));
		conn_break(self, redis_errno(reply), "%s", what);
	} else {
		conn_break(self, -EPROTO, "an answer that nobody asked for");
	}
}

static bool conn_alive(const struct redis_conn *self)
{
	return self->state == LOGIN || self->state == OPEN;
}

static void break_garbage(struct redis_conn *self)
{
	char what[96];
	redis_printable(self->reader->errstr, strlen(self->reader->errstr), what, sizeof(what));
	if (self->reader->err == REDIS_ERR_OOM)
		conn_break(self, -EPROTO, "an answer is too large");
	else if (self->spoke)
		conn_break(self, -EPROTO, "garbage in an answer (%s)", what);
	else
		conn_break(self, -EPROTO, "not a redis server (%s)", what);
}

static void on_received(void *user, const char *data, size_t len)
{
	struct redis_conn *self = user;
	if (!conn_alive(self))
		return;
	self->pending += len;
	if (self->pending > REPLY_MAX) {
		conn_break(self, -EPROTO, "an answer is larger than %d MiB",
			REPLY_MAX / (1024 * 1024));
		return;
	}
	conn_enter(self);
	redisReaderFeed(self->reader, data, len);
	void *reply = NULL;
	while (conn_alive(self)) {
		if (redisReaderGetReply(self->reader, &reply) != REDIS_OK) {
			break_garbage(self);
			break;
		}
		if (!reply)
			break;
		conn_reply(self, reply);
		freeReplyObject(reply);
	}
	self->heard = self->pending > 0;
	conn_leave(self);
}

/* ---- opening ---- */

static void login_done(struct redis_conn *self)
{
	self->state = OPEN;
	coord_timer_stop(self->loop, &self->timer);
	self->hooks->opened(self->user);
	if (self->state == OPEN && self->out.len)
		coord_loop_defer(self->loop, &self->task);
}

static void login_send(struct redis_conn *self);

static void login_reply(
	struct redis_cmd *cmd, int status, enum coord_sent sent, const redisReply *reply)
{
	struct redis_conn *self = coord_container(cmd, struct redis_conn, login);
	if (reply->type == REDIS_REPLY_STATUS) {
		login_done(self);
		return;
	}
	if (reply->type != REDIS_REPLY_ERROR) {
		conn_break(self, -EPROTO, "not a redis server (a strange answer to AUTH)");
		return;
	}
	/* Before redis 6 there are no users; tooz then took the password alone. */
	if (self->endpoint.user && self->endpoint.password && !self->bare &&
		strstr(reply->str, "wrong number of arguments")) {
		self->bare = true;
		login_send(self);
		return;
	}
	char what[160];
	redis_printable(reply->str, reply->len, what, sizeof(what));
	int r = redis_errno(reply);
	if (redis_error_is(reply, "WRONGPASS") || strstr(reply->str, "invalid password"))
		conn_break(self, -EACCES, "wrong user or password");
	else if (redis_error_is(reply, "ERR"))
		conn_break(self, -EACCES, "AUTH refused: %s", what);
	else
		conn_break(self, r, "%s", what);
}

static void login_send(struct redis_conn *self)
{
	const char *user = self->bare ? NULL : self->endpoint.user;
	const char *password = self->endpoint.password ? self->endpoint.password : "";
	self->login = (struct redis_cmd){.fn = login_reply};
	int r = user ? redis_conn_words(self, &self->login, "AUTH", user, password, NULL)
		     : redis_conn_words(self, &self->login, "AUTH", password, NULL);
	if (r < 0)
		conn_break(self, -EHOSTDOWN, "%s", strerror(-r));
}

static void on_opened(void *user)
{
	struct redis_conn *self = user;
	conn_enter(self);
	self->state = LOGIN;
	if (self->endpoint.user || self->endpoint.password)
		login_send(self);
	else
		login_done(self);
	conn_leave(self);
}

static void on_broken(void *user, int status, const char *text)
{
	conn_break_text(user, status, text);
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
		.connect_ms = self->endpoint.connect_ms,
		.timeout_ms = self->endpoint.timeout_ms,
		.keepalive = self->endpoint.keepalive,
	};
	self->state = CONNECTING;
	int r = stream_open(self->loop, &target, &stream_hooks, self, &self->stream);
	if (r < 0)
		conn_break(self, -EHOSTDOWN, "%s", strerror(-r));
}

static void on_resolved(void *user, int status, const char *text, const struct addrinfo *list)
{
	struct lookup *lookup = user;
	struct redis_conn *self = lookup->conn;
	free(lookup);
	if (!self)
		return;
	self->lookup = NULL;
	if (self->state != RESOLVING)
		return;
	conn_enter(self);
	if (status < 0)
		conn_break(self, -EHOSTDOWN, "cannot resolve the name: %s", text);
	else
		conn_connect(self, list);
	conn_leave(self);
}

static void resolve(struct redis_conn *self)
{
	char port[8];
	snprintf(port, sizeof(port), "%u", self->endpoint.port);
	struct lookup *lookup = malloc(sizeof(*lookup));
	int r = -ENOMEM;
	if (lookup) {
		lookup->conn = self;
		r = coord_resolve(self->loop, self->host, port, on_resolved, lookup);
	}
	if (r < 0) {
		free(lookup);
		conn_break(self, -EHOSTDOWN, "cannot resolve the name: %s", strerror(-r));
		return;
	}
	self->lookup = lookup;
}

/* The first step, out of redis_conn_open(). From then on the task writes. */
static void conn_begin(struct coord_task *task)
{
	struct redis_conn *self = coord_container(task, struct redis_conn, task);
	self->task.fn = conn_write;
	conn_enter(self);
	if (self->endpoint.path) {
		conn_connect(self, NULL);
	} else if (self->endpoint.address) {
		const struct addrinfo known = {.ai_addr = (struct sockaddr *)&self->name,
			.ai_addrlen = self->endpoint.address_len};
		conn_connect(self, &known);
	} else {
		resolve(self);
	}
	conn_leave(self);
}

/* ---- time ---- */

/* The oldest command has waited long enough, unless its answer is just coming in. */
static void check_answers(struct redis_conn *self)
{
	if (self->state != OPEN || self->first == self->written)
		return;
	uint64_t now = coord_now_ms(self->loop);
	uint64_t begin = self->heard ? now : slot_of(self, self->first)->sent_ms;
	self->heard = false;
	if (begin + self->endpoint.timeout_ms > now)
		coord_timer_start(self->loop, &self->timer, begin + self->endpoint.timeout_ms);
	else
		conn_break(self, -ETIMEDOUT, "no answer for %.3g s",
			(double)self->endpoint.timeout_ms / 1000);
}

static void conn_time(struct coord_timer *timer)
{
	struct redis_conn *self = coord_container(timer, struct redis_conn, timer);
	conn_enter(self);
	if (self->state == OPEN) {
		/* After a pause of this process the answer may lie in the socket. */
		if (self->first < self->written)
			stream_read_now(self->stream);
		check_answers(self);
	} else if (self->state == RESOLVING) {
		conn_break(self, -ETIMEDOUT, "the name server does not answer");
	} else {
		conn_break(self, -ETIMEDOUT, "no answer for %.3g s",
			(double)self->endpoint.connect_ms / 1000);
	}
	conn_leave(self);
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
	coord_timer_start(loop, &self->timer, coord_now_ms(loop) + to->connect_ms);
	coord_loop_defer(loop, &self->task);
	*ret = self;
	return 0;
}

static void fail_waiting(struct redis_conn *self, int status, struct coord_list *failed)
{
	uint64_t handed = self->stream ? stream_handed(self->stream) : 0;
	for (; self->first < self->next; self->first++) {
		struct slot *slot = slot_of(self, self->first);
		struct redis_cmd *cmd = slot->cmd;
		if (!cmd || cmd == &self->login)
			continue;
		bool left = self->first < self->written && slot->start < handed;
		cmd->conn = NULL;
		cmd_drop_script(cmd);
		cmd->status = status;
		cmd->sent = left ? COORD_SENT_UNKNOWN : COORD_SENT_NO;
		coord_list_add(failed, &cmd->node);
	}
}

void redis_conn_close(struct redis_conn *self, int status, struct coord_list *failed)
{
	if (!self)
		return;
	assert(self->state != CLOSED);
	conn_enter(self);
	self->state = CLOSED;
	coord_timer_stop(self->loop, &self->timer);
	coord_loop_undefer(self->loop, &self->task);
	fail_waiting(self, status, failed);
	if (self->lookup)
		self->lookup->conn = NULL;
	stream_close(self->stream);
	self->stream = NULL;
	conn_leave(self);
}
