/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of the link, and its commands. See link.h.
 *
 * Whatever goes wrong ends in redis_link_break(), which closes all at once and leaves the rest to a task, so
 * that nobody is called from inside his own call: first the commands in flight are answered, then `down` is
 * told, then the pause before the next attempt begins.
 */
#include "drivers/redis/link.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <syslog.h>

#include "drivers/redis/link_parts.h"

enum {
	PAUSE_MIN_MS = 20,
	PAUSE_MAX_MS = 1000,
	PAUSES_A_LEASE = 16,
	STABLE_MS = 5000, /* up for so long: the next attempts start with short pauses */
};

static void close_lanes(struct redis_link *self, int status)
{
	for (size_t i = 0; i < LANES; i++) {
		struct redis_lane_state *lane = &self->lanes[i];
		redis_conn_close(lane->conn, status, &self->failed);
		lane->conn = NULL;
		/* What the link itself asked needs no answer. */
		for (size_t j = 0; j < lane->steps_len; j++)
			redis_forget(&lane->steps[j]);
		redis_forget(&lane->ping);
		lane->steps_len = lane->steps_left = 0;
	}
	for (size_t i = 0; i < self->scripts_len; i++)
		redis_forget(&self->loads[i]);
}

void redis_link_break(struct redis_link *self, int status, const char *text)
{
	if (self->state != LINK_OPENING && self->state != LINK_UP)
		return;
	bool was_up = self->state == LINK_UP;
	if (was_up && coord_now_ms(self->loop) - self->up_ms >= STABLE_MS)
		self->attempts = 0;
	self->sentinel_stale = !was_up;
	self->state = LINK_DOWN;
	self->status = status;
	self->report = true;
	snprintf(self->text, sizeof(self->text), "%s", text);
	close_lanes(self, status == -ETIMEDOUT ? -ETIMEDOUT : -EHOSTDOWN);
	coord_timer_stop(self->loop, &self->timer);
	coord_loop_defer(self->loop, &self->task);
	/* An attempt that fails as the last one did is not told again; of one to open, who opens tells. */
	if (was_up || (self->settled && strcmp(self->logged, self->text) != 0))
		coord_log(LOG_WARNING, "redis: %s", self->text);
	snprintf(self->logged, sizeof(self->logged), "%s", self->text);
}

void redis_link_refuse(struct redis_link *self, int status, const char *format, ...)
{
	char why[REDIS_TEXT_MAX - REDIS_LABEL_MAX - 2], text[REDIS_TEXT_MAX];
	va_list args;
	va_start(args, format);
	vsnprintf(why, sizeof(why), format, args);
	va_end(args);
	snprintf(text, sizeof(text), "%s: %s", self->peer, why);
	redis_link_break(self, status, text);
}

/* ---- up ---- */

static void ping_reply(
	struct redis_cmd *cmd, int status, enum coord_sent sent, const redisReply *reply)
{
	/* That there was an answer is enough; without one the connection breaks by itself. */
}

/* A connection on which nothing is under way is asked something. B is subscribed and knows few commands:
 * another SUBSCRIBE to its channel is one. */
static void ping_lane(struct redis_lane_state *lane)
{
	if (!lane->conn || redis_conn_waiting(lane->conn) > 0)
		return;
	lane->ping = (struct redis_cmd){.fn = ping_reply};
	int r = lane->id == LANE_NOTICES ? redis_conn_words(lane->conn, &lane->ping, "SUBSCRIBE",
						   "__redis__:invalidate", NULL)
					 : redis_conn_words(lane->conn, &lane->ping, "PING", NULL);
	if (r < 0)
		redis_link_refuse(lane->link, -EHOSTDOWN, "%s", strerror(-r));
}

static void start_health_timer(struct redis_link *self)
{
	coord_timer_start(
		self->loop, &self->timer, coord_now_ms(self->loop) + self->options->health_ms);
}

void redis_link_opened(struct redis_link *self)
{
	assert(self->state == LINK_OPENING);
	self->state = LINK_UP;
	self->settled = true;
	self->up_ms = coord_now_ms(self->loop);
	self->attempts++; /* until it proves stable */
	self->sentinel_stale = false;
	start_health_timer(self);
	coord_log(*self->logged ? LOG_NOTICE : LOG_INFO, "redis: %s: connected", self->peer);
	self->logged[0] = '\0';
	self->hooks->up(self->user);
}

/* ---- attempts ---- */

static void attempt(struct redis_link *self)
{
	self->state = LINK_OPENING;
	if (self->sentinel) {
		redis_sentinel_ask(self->sentinel, self->sentinel_stale);
		return;
	}
	if (!self->options->server.path) {
		snprintf(self->host, sizeof(self->host), "%s", self->options->server.host);
		self->port = self->options->server.port;
	}
	redis_link_connect(self);
}

static void on_time(struct coord_timer *timer)
{
	struct redis_link *self = coord_container(timer, struct redis_link, timer);
	if (self->state == LINK_DOWN) {
		attempt(self);
		return;
	}
	assert(self->state == LINK_UP);
	start_health_timer(self);
	for (size_t i = 0; i < LANES && self->state == LINK_UP; i++)
		ping_lane(&self->lanes[i]);
}

/* So short that a lease outlives several. */
static uint64_t pause_max(const struct redis_options *options)
{
	uint64_t locks = options->lock_timeout_ms, members = options->membership_timeout_ms;
	uint64_t most = (locks < members ? locks : members) / PAUSES_A_LEASE;
	return most > PAUSE_MAX_MS ? PAUSE_MAX_MS : most < PAUSE_MIN_MS ? PAUSE_MIN_MS : most;
}

/* Half of the pause is chance, so that many mounts do not come back at once. */
static void start_pause(struct redis_link *self)
{
	unsigned shift = self->attempts < 8 ? self->attempts : 8;
	uint64_t pause = (uint64_t)PAUSE_MIN_MS << shift, most = pause_max(self->options);
	uint32_t chance;
	if (pause > most)
		pause = most;
	coord_random(self->loop, &chance, sizeof(chance));
	pause = pause / 2 + chance % (pause / 2 + 1);
	self->attempts++;
	coord_timer_start(self->loop, &self->timer, coord_now_ms(self->loop) + pause);
}

static void on_found(void *user, const char *host, uint16_t port)
{
	struct redis_link *self = user;
	if (self->state != LINK_OPENING)
		return;
	snprintf(self->host, sizeof(self->host), "%s", host);
	self->port = port;
	redis_link_connect(self);
}

static void on_failed(void *user, int status, const char *text)
{
	redis_link_break(user, status, text);
}

static void on_switched(void *user)
{
	struct redis_link *self = user;
	self->attempts = 0;
	if (self->state == LINK_DOWN && self->timer.active) {
		coord_timer_start(self->loop, &self->timer, coord_now_ms(self->loop));
		return;
	}
	redis_link_break(self, -EHOSTDOWN, "the sentinel says that the master is another now");
	self->sentinel_stale = false;
}

static const struct redis_sentinel_hooks sentinel_hooks = {
	.found = on_found, .failed = on_failed, .switched = on_switched};

/* ---- the task ---- */

static void answer_failed(struct redis_link *self)
{
	/* Those that are sent and fail meanwhile have their turn in the next run. */
	struct coord_list now = COORD_LIST_INIT(now);
	while (!coord_list_empty(&self->failed)) {
		struct coord_list *node = self->failed.next;
		coord_list_remove(node);
		coord_list_add(&now, node);
	}
	while (!coord_list_empty(&now)) {
		struct redis_cmd *cmd = coord_container(now.next, struct redis_cmd, node);
		coord_list_remove(&cmd->node);
		cmd->fn(cmd, cmd->status, cmd->sent, NULL);
	}
}

static void on_task(struct coord_task *task)
{
	struct redis_link *self = coord_container(task, struct redis_link, task);
	answer_failed(self);
	if (!self->report || self->state != LINK_DOWN)
		return;
	self->report = false;
	self->hooks->down(self->user, self->status, self->text);
	if (self->state == LINK_DOWN)
		start_pause(self);
}

/* ---- commands ---- */

static void fail_later(struct redis_link *self, struct redis_cmd *cmd, int status)
{
	cmd->conn = NULL;
	cmd->status = status;
	cmd->sent = COORD_SENT_NO;
	coord_list_add(&self->failed, &cmd->node);
	coord_loop_defer(self->loop, &self->task);
}

void redis_send(struct redis_link *self, enum redis_lane lane, struct redis_cmd *cmd, int argc,
	const char *const *argv, const size_t *lens)
{
	struct redis_conn *conn = self->lanes[lane].conn;
	cmd->link = self;
	int r = -EHOSTDOWN;
	if (self->state == LINK_UP)
		r = redis_conn_send(conn, cmd, argc, argv, lens);
	if (r < 0)
		fail_later(self, cmd, r);
	else
		self->requests++;
}

void redis_script(struct redis_link *self, enum redis_lane lane, struct redis_cmd *cmd,
	const struct redis_script *script, int nkeys, int argc, const char *const *argv,
	const size_t *lens)
{
	struct redis_conn *conn = self->lanes[lane].conn;
	cmd->link = self;
	int r = -EHOSTDOWN;
	if (self->state == LINK_UP)
		r = redis_conn_script(conn, cmd, script, self->loads_left > 0 || self->unloaded,
			nkeys, argc, argv, lens);
	if (r < 0)
		fail_later(self, cmd, r);
	else
		self->requests++;
}

/* ---- life ---- */

static int make_tls(struct redis_link *self, char **ret_error)
{
	const struct redis_options *options = self->options;
	if (!options->ssl && !options->sentinel_ssl)
		return 0;
	int r = stream_tls_new(options->ssl_ca_certs, options->ssl_certfile, options->ssl_keyfile,
		&self->tls, ret_error);
	if (r == 0 && options->sentinel_ssl && options->sentinel)
		self->sentinel_tls = self->tls;
	return r;
}

int redis_link_new(struct coord_loop *loop, const struct redis_options *options,
	const struct redis_script *scripts, size_t scripts_len,
	const struct redis_link_hooks *hooks, void *user, struct redis_link **ret, char **ret_error)
{
	*ret_error = NULL;
	struct redis_link *self = calloc(1, sizeof(*self));
	if (!self)
		return -ENOMEM;
	*self = (struct redis_link){
		.loop = loop,
		.options = options,
		.hooks = hooks,
		.user = user,
		.scripts = scripts,
		.scripts_len = scripts_len,
		.loads = calloc(scripts_len + 1, sizeof(*self->loads)),
		.task.fn = on_task,
		.timer.fn = on_time,
	};
	coord_list_init(&self->failed);
	for (size_t i = 0; i < LANES; i++) {
		self->lanes[i].link = self;
		self->lanes[i].id = (enum redis_lane_id)i;
	}
	int r = self->loads ? make_tls(self, ret_error) : -ENOMEM;
	if (r == 0 && options->sentinel)
		r = redis_sentinel_new(
			loop, options, self->sentinel_tls, &sentinel_hooks, self, &self->sentinel);
	if (r < 0) {
		redis_link_free(self);
		return r;
	}
	*ret = self;
	return 0;
}

void redis_link_open(struct redis_link *self)
{
	assert(self->state == LINK_CLOSED);
	self->attempts = 0;
	self->sentinel_stale = self->settled = false;
	self->state = LINK_DOWN;
	coord_timer_start(self->loop, &self->timer, coord_now_ms(self->loop));
}

void redis_link_close(struct redis_link *self)
{
	if (self->state == LINK_CLOSED)
		return;
	self->state = LINK_CLOSED;
	self->report = false;
	coord_timer_stop(self->loop, &self->timer);
	if (self->sentinel)
		redis_sentinel_stop(self->sentinel);
	close_lanes(self, -ECANCELED);
	if (!coord_list_empty(&self->failed))
		coord_loop_defer(self->loop, &self->task);
}

void redis_link_free(struct redis_link *self)
{
	if (!self)
		return;
	redis_link_close(self);
	coord_loop_undefer(self->loop, &self->task);
	while (!coord_list_empty(&self->failed))
		coord_list_remove(self->failed.next);
	redis_sentinel_free(self->sentinel);
	stream_tls_free(self->tls);
	free(self->loads);
	free(self);
}

bool redis_link_is_up(const struct redis_link *self)
{
	return self->state == LINK_UP;
}

bool redis_link_tracks(const struct redis_link *self)
{
	return self->tracks;
}

unsigned redis_link_version(const struct redis_link *self)
{
	return self->version;
}

const char *redis_link_run_id(const struct redis_link *self)
{
	return self->run_id;
}

const char *redis_link_peer(const struct redis_link *self)
{
	return self->peer;
}

uint64_t redis_link_requests(const struct redis_link *self)
{
	return self->requests;
}
