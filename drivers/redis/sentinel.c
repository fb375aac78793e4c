/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sentinels. See sentinel.h.
 *
 * What a sentinel says is a hint: it may be cut off, or late. Who uses it verifies that the server is a
 * master, and asks another one if not.
 */
#include "drivers/redis/sentinel.h"

#include <assert.h>
#include <stdio.h>

#define SWITCH_CHANNEL "+switch-master"

enum { AGAIN_MS = 1000 };

struct redis_sentinel {
	struct coord_loop *loop;
	const struct redis_options *options;
	struct stream_tls *tls;
	const struct redis_sentinel_hooks *hooks;
	void *user;
	struct redis_conn *conn; /* NULL: idle, or a pause */
	size_t at, asked; /* the one in use; how many did not know */
	bool wanted; /* an answer is owed to redis_sentinel_ask() */
	bool watching; /* the one in use answered */
	char host[256]; /* the master, "" unknown */
	uint16_t port;
	struct redis_cmd ask, subscribe;
	struct coord_timer timer; /* watching: the next sign of life; else when to go on */
	int status;
	char text[REDIS_TEXT_MAX]; /* why those that were asked do not know */
};

static void sentinel_next(struct redis_sentinel *self);

static void close_conn(struct redis_sentinel *self)
{
	struct coord_list failed = COORD_LIST_INIT(failed);
	redis_conn_close(self->conn, -ECANCELED, &failed);
	self->conn = NULL;
	self->watching = false;
	coord_timer_stop(self->loop, &self->timer);
	/* Ours alone: their functions need not know. */
	redis_forget(&self->ask);
	redis_forget(&self->subscribe);
}

/* The present one is of no use: on to the next, or when all were asked, a pause or an answer. */
static void sentinel_useless(struct redis_sentinel *self, int status, const char *text)
{
	close_conn(self);
	self->status = status;
	size_t len = self->asked ? strlen(self->text) : 0;
	snprintf(
		self->text + len, sizeof(self->text) - len, "%ssentinel %s", len ? "; " : "", text);
	self->at = (self->at + 1) % self->options->sentinels_len;
	self->asked++;
	/* The timer, so that nothing is called from inside anything. */
	bool all = self->asked >= self->options->sentinels_len;
	uint64_t pause = all && !self->wanted ? AGAIN_MS : 0;
	coord_timer_start(self->loop, &self->timer, coord_now_ms(self->loop) + pause);
}

static void useless_because(struct redis_sentinel *self, int status, const char *why)
{
	char text[REDIS_TEXT_MAX];
	snprintf(text, sizeof(text), "%s: %s", redis_conn_label(self->conn), why);
	sentinel_useless(self, status, text);
}

static void unexpected(struct redis_sentinel *self, const redisReply *reply)
{
	char what[160] = "not a sentinel";
	if (reply->type == REDIS_REPLY_ERROR) {
		redis_printable(reply->str, reply->len, what, sizeof(what));
		if (strstr(what, "unknown command"))
			snprintf(what, sizeof(what), "not a sentinel");
	}
	int status = redis_errno(reply);
	useless_because(self, status == -EACCES ? -EACCES : -EPROTO, what);
}

static bool parse_master(const redisReply *reply, char host[256], uint16_t *ret_port)
{
	if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2)
		return false;
	const redisReply *name = reply->element[0], *port = reply->element[1];
	if (name->type != REDIS_REPLY_STRING || port->type != REDIS_REPLY_STRING)
		return false;
	if (name->len == 0 || name->len > 255 || strlen(name->str) != name->len)
		return false;
	char *end;
	long number = strtol(port->str, &end, 10);
	if (*end || number < 1 || number > UINT16_MAX)
		return false;
	memcpy(host, name->str, name->len + 1);
	*ret_port = (uint16_t)number;
	return true;
}

static void asked_reply(
	struct redis_cmd *cmd, int status, enum coord_sent sent, const redisReply *reply)
{
	struct redis_sentinel *self = coord_container(cmd, struct redis_sentinel, ask);
	char host[256];
	uint16_t port;
	if (status < 0)
		return; /* the connection says more */
	if (reply->type == REDIS_REPLY_NIL) {
		char why[160];
		snprintf(why, sizeof(why), "knows no master '%.100s'", self->options->sentinel);
		useless_because(self, -EHOSTDOWN, why);
		return;
	}
	if (!parse_master(reply, host, &port)) {
		unexpected(self, reply);
		return;
	}
	bool same = port == self->port && strcmp(host, self->host) == 0;
	snprintf(self->host, sizeof(self->host), "%s", host);
	self->port = port;
	self->asked = 0;
	self->watching = true;
	coord_timer_start(
		self->loop, &self->timer, coord_now_ms(self->loop) + self->options->health_ms);
	if (self->wanted) {
		self->wanted = false;
		self->hooks->found(self->user, host, port);
	} else if (!same) {
		self->hooks->switched(self->user);
	}
}

static void subscribed(
	struct redis_cmd *cmd, int status, enum coord_sent sent, const redisReply *reply)
{
	/* Without permission to subscribe the fail-over is found when the old master goes away. */
}

static void send_subscribe(struct redis_sentinel *self)
{
	self->subscribe = (struct redis_cmd){.fn = subscribed};
	if (redis_conn_words(self->conn, &self->subscribe, "SUBSCRIBE", SWITCH_CHANNEL, NULL) < 0)
		useless_because(self, -EHOSTDOWN, strerror(ENOMEM));
}

static void on_opened(void *user)
{
	struct redis_sentinel *self = user;
	self->ask = (struct redis_cmd){.fn = asked_reply};
	if (redis_conn_words(self->conn, &self->ask, "SENTINEL", "get-master-addr-by-name",
		    self->options->sentinel, NULL) < 0)
		useless_because(self, -EHOSTDOWN, strerror(ENOMEM));
	else
		send_subscribe(self);
}

static void on_broken(void *user, int status, const char *text)
{
	sentinel_useless(user, status, text);
}

/* "name old-host old-port new-host new-port" */
static void on_message(void *user, const redisReply *message)
{
	struct redis_sentinel *self = user;
	const redisReply *what = message->element[2];
	size_t len = strlen(self->options->sentinel);
	if (!self->watching || strcmp(message->element[1]->str, SWITCH_CHANNEL) != 0 ||
		what->type != REDIS_REPLY_STRING || what->len <= len ||
		memcmp(what->str, self->options->sentinel, len) != 0 || what->str[len] != ' ')
		return;
	self->hooks->switched(self->user);
}

static const struct redis_conn_hooks conn_hooks = {
	.opened = on_opened, .broken = on_broken, .message = on_message};

static void sentinel_next(struct redis_sentinel *self)
{
	const struct redis_address *address = &self->options->sentinels[self->at];
	const struct redis_endpoint to = {
		.host = address->host,
		.port = address->port,
		.user = self->options->sentinel_user,
		.password = self->options->sentinel_password,
		.tls = self->tls,
		.connect_ms = self->options->connect_timeout_ms,
		.timeout_ms = self->options->socket_timeout_ms,
		.keepalive = self->options->keepalive,
	};
	if (redis_conn_open(self->loop, &to, &conn_hooks, self, &self->conn) < 0)
		sentinel_useless(self, -EHOSTDOWN, strerror(ENOMEM));
}

static void on_time(struct coord_timer *timer)
{
	struct redis_sentinel *self = coord_container(timer, struct redis_sentinel, timer);
	if (self->watching) {
		/* Still there? A subscription to the same channel is answered. */
		if (redis_conn_waiting(self->conn) == 0)
			send_subscribe(self);
		if (self->watching)
			coord_timer_start(self->loop, &self->timer,
				coord_now_ms(self->loop) + self->options->health_ms);
		return;
	}
	if (self->asked < self->options->sentinels_len || !self->wanted) {
		if (self->asked >= self->options->sentinels_len)
			self->asked = 0;
		sentinel_next(self);
		return;
	}
	self->wanted = false;
	self->hooks->failed(self->user, self->status, self->text);
}

int redis_sentinel_new(struct coord_loop *loop, const struct redis_options *options,
	struct stream_tls *tls, const struct redis_sentinel_hooks *hooks, void *user,
	struct redis_sentinel **ret)
{
	struct redis_sentinel *self = calloc(1, sizeof(*self));
	if (!self)
		return -ENOMEM;
	assert(options->sentinels_len > 0);
	*self = (struct redis_sentinel){.loop = loop,
		.options = options,
		.tls = tls,
		.hooks = hooks,
		.user = user,
		.timer.fn = on_time};
	*ret = self;
	return 0;
}

void redis_sentinel_ask(struct redis_sentinel *self, bool another)
{
	close_conn(self);
	if (another)
		self->at = (self->at + 1) % self->options->sentinels_len;
	self->asked = 0;
	self->wanted = true;
	coord_timer_start(self->loop, &self->timer, coord_now_ms(self->loop));
}

void redis_sentinel_stop(struct redis_sentinel *self)
{
	close_conn(self);
	self->wanted = false;
}

void redis_sentinel_free(struct redis_sentinel *self)
{
	if (!self)
		return;
	redis_sentinel_stop(self);
	free(self);
}
