/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libzookeeper_st on libuv. See conn.h.
 *
 * The library owns its socket and closes it whenever it likes, inside any of its calls. So after each of
 * them it is asked again what it wants to wait for, and the poll handle is made anew when the descriptor
 * changed or the call failed: the number may be the same and the socket another.
 *
 * The library has more patience with a silent server than a lease has time: two thirds of the session
 * time-out for each attempt to connect, and without end for one that answers pings and nothing else, as a
 * server does that is cut off from its leader. So we shut the socket down earlier, and it goes to the
 * next. The patience doubles each time, or a slow ensemble would never be given the time that it needs.
 *
 * And it has none at all where a server takes us and then says something that ends the connection: it makes the
 * next at once, a thousand a second. So after some hasty attempts it has to wait for the next.
 */
#include "drivers/zookeeper/conn.h"

#include <stdio.h>
#include <sys/socket.h>
#include <syslog.h>
#include <uv.h>

#include "coord/driver.h"
#include "coord/loop_uv.h"
#include "drivers/zookeeper/request.h"
#include "drivers/zookeeper/screen.h"

enum { PATIENCE_MIN_MS = 400 };
enum { REPLIES_MAX = 64 }; /* read at once, before others have their turn */
enum { HASTE_MS = 500, HASTE_MAX = 4, PAUSE_MIN_MS = 10, PAUSE_MAX_MS = 160 };

/* Why the last connection, or the last attempt, ended. The library tells its log alone, on the thread that calls
 * it. */
static _Thread_local char words[240];
static _Thread_local bool words_stay; /* the library's are not the reason */

const char *zk_conn_words(void)
{
	return words;
}

/* The library's lines begin with a date and an address, and speak of every attempt. */
void zk_conn_log(const char *message)
{
	const char *text = strstr(message, ":ZOO_"), *socket = strstr(message, "Socket ");
	char address[64], error[64], what[96];
	if (socket && !words_stay &&
		sscanf(socket, "Socket %63s zk retcode=%*d, errno=%*d(%63[^)]): %95[^\n]", address,
			error, what) == 3)
		snprintf(words, sizeof(words), "%s: %s (%s)", address, what, error);
	coord_log(LOG_DEBUG, "zookeeper: %s", text ? text + 1 : message);
}

static void poll_closed(uv_handle_t *handle)
{
	free(handle);
}

static void poll_drop(struct zk_conn *conn)
{
	if (conn->poll)
		uv_close((uv_handle_t *)conn->poll, poll_closed);
	conn->poll = NULL;
	conn->fd = -1;
	conn->polled = 0;
}

static void conn_update(struct zk_conn *conn, bool fresh);

/* Before each call that may send a connection request. */
static void handshake_stamp(struct zk_conn *conn)
{
	int state = zoo_state(conn->zh);
	if (state != ZOO_CONNECTED_STATE && state != ZOO_ASSOCIATING_STATE)
		conn->handshake_ms = coord_now_ms(conn->loop);
}

static bool is_without_socket(struct zk_conn *conn)
{
	int state = zoo_state(conn->zh);
	return state == 0 || state == ZOO_NOTCONNECTED_STATE;
}

/* The library sees the end of the stream when it reads next. */
void zk_conn_reset(struct zk_conn *conn)
{
	conn->was_reset = true;
	if (conn->fd >= 0 && !is_without_socket(conn))
		shutdown(conn->fd, SHUT_RDWR);
}

void zk_conn_refuse(struct zk_conn *conn, const char *what)
{
	snprintf(words, sizeof(words), "%s: %s", zoo_get_current_server(conn->zh), what);
	zk_conn_reset(conn);
	/* What has arrived could still be read, and what will. */
	struct sockaddr nobody = {.sa_family = AF_UNSPEC};
	if (conn->fd >= 0 && !is_without_socket(conn))
		(void)connect(conn->fd, &nobody, sizeof(nobody));
}

/* Lets the library read or write; what it says of an end that was our doing is not the reason. */
static int conn_step(struct zk_conn *conn, int events)
{
	char server[64];
	if ((events & ZOOKEEPER_READ) && !zk_screen(conn))
		events &= ~ZOOKEEPER_READ;
	if (!events)
		return ZNOTHING;
	bool asked = zoo_state(conn->zh) == ZOO_ASSOCIATING_STATE, ours = conn->was_reset;
	if (asked)
		snprintf(server, sizeof(server), "%s", zoo_get_current_server(conn->zh));
	handshake_stamp(conn);
	words_stay = ours;
	int rc = zookeeper_process(conn->zh, events);
	words_stay = false;
	if ((events & ZOOKEEPER_READ) && rc != ZNOTHING)
		conn->admitted = false;
	if (conn->dead || rc == ZOK || rc == ZNOTHING)
		return rc;
	if (asked && !ours)
		snprintf(words, sizeof(words),
			"%s: closes the connection: no ZooKeeper server, or one without a majority",
			server);
	conn->was_reset = false;
	return rc;
}

/* Gives the library what happened, until it has read everything. */
static void conn_process(struct zk_conn *conn, int events)
{
	int rc = ZOK;
	for (unsigned i = 0; i < REPLIES_MAX && rc == ZOK && !conn->dead; i++) {
		rc = conn_step(conn, events);
		events = ZOOKEEPER_READ;
	}
	if (!conn->dead)
		conn_update(conn, rc != ZOK && rc != ZNOTHING);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
	struct zk_conn *conn = poll->data;
	struct coord_loop *loop = conn->loop;
	int what = 0;
	if (status < 0 || (events & UV_READABLE))
		what |= ZOOKEEPER_READ;
	if (status < 0 || (events & UV_WRITABLE))
		what |= ZOOKEEPER_WRITE;
	loop->in_turn = true;
	if (status < 0) { /* it has stopped, and what came before that is still there */
		int fd = conn->fd;
		poll_drop(conn);
		conn->fd = fd;
	}
	conn_process(conn, what);
	loop->in_turn = false;
	coord_loop_run(loop);
}

static int poll_start(struct zk_conn *conn, int fd, int events)
{
	if (!conn->poll || conn->fd != fd) {
		poll_drop(conn);
		uv_poll_t *poll = calloc(1, sizeof(*poll));
		if (!poll)
			return -ENOMEM;
		int r = uv_poll_init(coord_loop_uv_get(conn->loop), poll, fd);
		if (r < 0) {
			free(poll);
			return r;
		}
		poll->data = conn;
		conn->poll = poll;
		conn->fd = fd;
		zk_screen_wake(conn, 1);
	}
	if (conn->polled == events)
		return 0;
	conn->polled = events;
	return uv_poll_start(conn->poll, events, on_poll);
}

/* The library has tried to connect: when may it do so again? */
static void conn_tried(struct zk_conn *conn)
{
	uint64_t now = coord_now_ms(conn->loop), pause = PAUSE_MIN_MS;
	conn->hasty = now - conn->tried_ms < HASTE_MS ? conn->hasty + 1 : 0;
	for (unsigned i = HASTE_MAX; i < conn->hasty && pause < PAUSE_MAX_MS; i++)
		pause *= 2;
	conn->tried_ms = now;
	conn->try_ms = now + (conn->hasty < HASTE_MAX ? 0 : pause);
}

/* Asks the library what it waits for. fresh: its socket may be another one of the same number. */
static void conn_update(struct zk_conn *conn, bool fresh)
{
	int fd = -1, interest = 0;
	struct timeval wait = {0};
	bool alone = is_without_socket(conn);
	if (alone && coord_now_ms(conn->loop) < conn->try_ms) {
		poll_drop(conn);
		coord_timer_start(conn->loop, &conn->timer, conn->try_ms);
		return;
	}
	handshake_stamp(conn);
	int rc = zookeeper_interest(conn->zh, &fd, &interest, &wait);
	if (conn->dead)
		return;
	if (alone && (rc != ZOK || fd >= 0))
		conn_tried(conn);
	int state = zoo_state(conn->zh);
	if (fresh || rc != ZOK || state != conn->state)
		poll_drop(conn);
	conn->state = state;
	if (is_unrecoverable(conn->zh)) {
		coord_timer_stop(conn->loop, &conn->timer);
		return;
	}
	int events = (interest & ZOOKEEPER_READ ? UV_READABLE : 0) |
		     (interest & ZOOKEEPER_WRITE ? UV_WRITABLE : 0);
	if (rc != ZOK || fd < 0 || !events)
		poll_drop(conn);
	else if (poll_start(conn, fd, events) < 0)
		poll_drop(conn);
	uint64_t ms = (uint64_t)wait.tv_sec * 1000 + (uint64_t)wait.tv_usec / 1000 + 1;
	coord_timer_start(conn->loop, &conn->timer, coord_now_ms(conn->loop) + ms);
}

static void on_timer(struct coord_timer *timer)
{
	struct zk_conn *conn = coord_container(timer, struct zk_conn, timer);
	/* The library looks at its own clocks in here, sends pings and gives up on silent servers. */
	conn_update(conn, false);
}

static void on_kick(struct coord_task *task)
{
	struct zk_conn *conn = coord_container(task, struct zk_conn, kick);
	conn_update(conn, false);
}

void zk_conn_kick(struct zk_conn *conn)
{
	if (!conn->dead)
		coord_loop_defer(conn->loop, &conn->kick);
}

void zk_conn_expect(struct zk_conn *conn)
{
	if (!conn->dead && !conn->stall.active)
		coord_timer_start(
			conn->loop, &conn->stall, coord_now_ms(conn->loop) + conn->patience_ms);
}

void zk_conn_calm(struct zk_conn *conn)
{
	conn->patience_ms = conn->patience_least_ms;
	if (conn->connected)
		coord_timer_stop(conn->loop, &conn->stall);
}

static void on_stall(struct coord_timer *timer)
{
	struct zk_conn *conn = coord_container(timer, struct zk_conn, stall);
	if (conn->connected)
		coord_log(LOG_NOTICE, "zookeeper: %s does not answer: trying the next",
			zoo_get_current_server(conn->zh));
	if (conn->connected || zoo_state(conn->zh) == ZOO_ASSOCIATING_STATE)
		snprintf(words, sizeof(words), "%s: %s", zoo_get_current_server(conn->zh),
			conn->connected ? "does not answer any more"
					: "accepts the connection and says nothing: is it a "
					  "ZooKeeper server?");
	zk_conn_reset(conn);
	if (conn->patience_ms < 16 * conn->patience_least_ms)
		conn->patience_ms *= 2;
	zk_conn_expect(conn);
}

/* Not from inside the library: whoever hears it may close the connection. */
static void on_verdict(struct coord_task *task)
{
	struct zk_conn *conn = coord_container(task, struct zk_conn, verdict);
	conn->events->ended(conn->user, zoo_state(conn->zh) == ZOO_AUTH_FAILED_STATE);
}

static void on_session(zhandle_t *zh, int type, int state, const char *path, void *context)
{
	struct zk_conn *conn = context;
	(void)zh;
	(void)path;
	if (conn->dead || conn->failed || type != ZOO_SESSION_EVENT)
		return;
	if (state == ZOO_CONNECTED_STATE) {
		/* A socket that broke while sending is closed without a word. */
		if (conn->connected)
			conn->events->disconnected(conn->user);
		conn->connected = true;
		conn->was_reset = false;
		coord_timer_stop(conn->loop, &conn->stall);
		conn->events->connected(conn->user);
	} else if (state == ZOO_EXPIRED_SESSION_STATE || state == ZOO_AUTH_FAILED_STATE) {
		conn->connected = false;
		conn->failed = true;
		coord_loop_defer(conn->loop, &conn->verdict);
	} else if (conn->connected) {
		conn->connected = false;
		coord_timer_stop(conn->loop, &conn->stall);
		zk_conn_expect(conn);
		conn->events->disconnected(conn->user);
	}
}

void zk_conn_watch(zhandle_t *zh, int type, int state, const char *path, void *context)
{
	struct zk_conn *conn = context;
	(void)zh;
	(void)state;
	if (!conn->dead && type != ZOO_SESSION_EVENT && path)
		conn->events->node(conn->user, path);
}

int zk_conn_new(struct coord_loop *loop, const char *addresses, int timeout_ms, bool in_order,
	const struct zk_conn_events *events, void *user, struct zk_conn **ret)
{
	struct zk_conn *conn = calloc(1, sizeof(*conn));
	if (!conn)
		return -ENOMEM;
	*conn = (struct zk_conn){.loop = loop,
		.fd = -1,
		.low_water = 1,
		.timer.fn = on_timer,
		.stall.fn = on_stall,
		.kick.fn = on_kick,
		.verdict.fn = on_verdict,
		.events = events,
		.user = user};
	coord_list_init(&conn->reqs);
	conn->patience_least_ms = (uint64_t)timeout_ms / 5;
	if (conn->patience_least_ms < PATIENCE_MIN_MS)
		conn->patience_least_ms = PATIENCE_MIN_MS;
	conn->patience_ms = conn->patience_least_ms;
	zoo_set_debug_level(ZOO_LOG_LEVEL_WARN);
	zoo_deterministic_conn_order(in_order);
	conn->zh = zookeeper_init2(
		addresses, on_session, timeout_ms, NULL, conn, ZOO_NO_LOG_CLIENTENV, zk_conn_log);
	if (!conn->zh) {
		int r = errno ? -errno : -EIO;
		free(conn);
		return r;
	}
	zk_conn_kick(conn);
	zk_conn_expect(conn);
	*ret = conn;
	return 0;
}

void zk_conn_stop(struct zk_conn *conn)
{
	conn->dead = true;
	coord_timer_stop(conn->loop, &conn->timer);
	coord_timer_stop(conn->loop, &conn->stall);
	coord_loop_undefer(conn->loop, &conn->kick);
	coord_loop_undefer(conn->loop, &conn->verdict);
	poll_drop(conn);
}

void zk_conn_free(struct zk_conn *conn)
{
	if (!conn)
		return;
	zookeeper_close(conn->zh);
	zk_reqs_free(conn);
	free(conn);
}
