/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands and answers of a connection. See conn.h.
 *
 * Commands are formatted into `out` and leave together at the end of the turn. The ring has one slot for each
 * command whose answer is to come; a slot whose command was forgotten stays, empty.
 */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

#include "drivers/redis/conn_parts.h"

enum {
	REPLY_MAX = 64 * 1024 * 1024,
	WAITING_MAX = 1 << 20,
	WORDS_MAX = 8,
};

static struct redis_slot *slot_of(struct redis_conn *self, uint64_t place)
{
	return &self->slots[place & (self->slots_size - 1)];
}

static int grow_slots(struct redis_conn *self)
{
	size_t size = self->slots_size ? 2 * self->slots_size : 16;
	if (size > WAITING_MAX)
		return -ENOBUFS;
	struct redis_slot *slots = malloc(size * sizeof(*slots));
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
	*slot_of(self, self->next) = (struct redis_slot){.cmd = cmd, .start = start};
	cmd->conn = self;
	cmd->place = self->next++;
	coord_list_init(&cmd->node);
	/* Before it is open only the login itself is written; the rest follows. */
	if (self->state == CONN_OPEN || (self->state == CONN_LOGIN && cmd == &self->login))
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
	const struct redis_script *script, bool whole, int nkeys, int argc, const char *const *argv,
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
		r = send_script(self, cmd, whole);
	if (r < 0 || whole)
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
void redis_conn_write(struct coord_task *task)
{
	struct redis_conn *self = coord_container(task, struct redis_conn, task);
	uint64_t now = coord_now_ms(self->loop);
	for (; self->written < self->next; self->written++) {
		struct redis_slot *slot = slot_of(self, self->written);
		slot->sent_ms = now;
		if (slot->cmd)
			slot->cmd->sent_ms = now;
	}
	redis_conn_enter(self);
	int r = stream_write(self->stream, buffer_head(&self->out), self->out.len);
	buffer_drop(&self->out, self->out.len);
	if (r < 0)
		redis_conn_break(self, -EHOSTDOWN, "%s", strerror(-r));
	else if (self->state == CONN_OPEN && !self->timer.active)
		coord_timer_start(self->loop, &self->timer, now + self->endpoint.timeout_ms);
	redis_conn_leave(self);
}

/* ---- answers ---- */

/* The place of the oldest command is taken. Returns whether the answer is for its function. */
static bool finish_script(struct redis_conn *self, struct redis_cmd *cmd, const redisReply *reply)
{
	if (!cmd->script)
		return true;
	if (redis_error_is(reply, "NOSCRIPT") && self->state == CONN_OPEN) {
		int r = send_script(self, cmd, true);
		cmd_drop_script(cmd);
		if (self->hooks->forgotten)
			self->hooks->forgotten(self->user);
		return r < 0;
	}
	cmd_drop_script(cmd);
	return true;
}

/* Errors after which the rest of the link is no good either. */
static bool is_doubtful(const redisReply *reply)
{
	return redis_error_has(reply, "READONLY") || redis_error_has(reply, "NOAUTH") ||
	       redis_error_has(reply, "MASTERDOWN");
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
	if (self->state != CONN_OPEN || !self->hooks->doubtful || !is_doubtful(reply))
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

/* Said to whoever connects, and so before the answer to anything. */
static bool is_full(const struct redis_conn *self, const redisReply *reply)
{
	return !self->spoke && reply->type == REDIS_REPLY_ERROR &&
	       strcmp(reply->str, "ERR max number of clients reached") == 0;
}

static void conn_reply(struct redis_conn *self, const redisReply *reply)
{
	self->pending = self->checked = 0;
	if (self->hooks->message && is_message(reply)) {
		self->hooks->message(self->user, reply);
	} else if (is_full(self, reply)) {
		redis_conn_break(
			self, -EHOSTDOWN, "%s (a mount needs up to three connections)", reply->str);
	} else if (self->first < self->written) {
		answer(self, reply);
	} else if (reply->type == REDIS_REPLY_ERROR) {
		/* "-DENIED ... protected mode", "-ERR max number of clients reached" */
		char what[160];
		redis_printable(reply->str, reply->len, what, sizeof(what));
		redis_conn_break(self, redis_errno(reply), "%s", what);
	} else {
		redis_conn_break(self, -EPROTO, "an answer that nobody asked for");
	}
	self->spoke = true;
}

static bool conn_alive(const struct redis_conn *self)
{
	return self->state == CONN_LOGIN || self->state == CONN_OPEN;
}

static void break_garbage(struct redis_conn *self)
{
	char what[96];
	redis_printable(self->reader->errstr, strlen(self->reader->errstr), what, sizeof(what));
	if (self->reader->err == REDIS_ERR_OOM)
		redis_conn_break(self, -EPROTO, "an answer is too large");
	else if (self->spoke)
		redis_conn_break(self, -EPROTO, "garbage in an answer (%s)", what);
	else /* An alert of TLS begins so. */
		redis_conn_break(self, -EPROTO, "not a redis server (%s)%s", what,
			strstr(what, "\"\\x15\"") ? ": is it one with TLS (ssl=true)?" : "");
}

void redis_conn_received(struct redis_conn *self, const char *data, size_t len)
{
	if (!conn_alive(self))
		return;
	self->pending += len;
	if (self->pending > REPLY_MAX) {
		redis_conn_break(self, -EPROTO, "an answer is larger than %d MiB",
			REPLY_MAX / (1024 * 1024));
		return;
	}
	redis_conn_enter(self);
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
	redis_conn_leave(self);
}

/* ---- the end ---- */

bool redis_conn_oldest(struct redis_conn *self, uint64_t *ret_sent_ms)
{
	if (self->first == self->written)
		return false;
	*ret_sent_ms = slot_of(self, self->first)->sent_ms;
	return true;
}

void redis_conn_fail_waiting(struct redis_conn *self, int status, struct coord_list *failed)
{
	uint64_t handed = self->stream ? stream_handed(self->stream) : 0;
	for (; self->first < self->next; self->first++) {
		struct redis_slot *slot = slot_of(self, self->first);
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
