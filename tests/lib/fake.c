/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fake's driver and the network between it and the server. See fake.h.
 *
 * A request is a structure that travels: driver -> (delay) -> server, where it may wait in a queue, ->
 * (delay) -> driver, which answers the op. If its op was answered before, because the connection broke
 * or the session ended, it travels on without one.
 */
#include "tests/lib/fake_server.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>

/* ---- Chance and time ---- */

uint64_t fake_below(struct fake_server *server, uint64_t n)
{
	uint64_t value;
	if (n == 0)
		return 0;
	coord_random(server->loop, &value, sizeof(value));
	return value % n;
}

static bool chance(struct fake_server *server, unsigned permille)
{
	return permille && fake_below(server, 1000) < permille;
}

static struct coord_loop *client_loop(struct fake_client *client)
{
	return coord_session_loop(client->session);
}

/* A moment on the clock of that loop: hosts do not agree on what time it is. */
static uint64_t after(struct fake_server *server, struct coord_loop *loop, uint64_t max_ms)
{
	return coord_now_ms(loop) + (max_ms ? fake_below(server, max_ms + 1) : 0);
}

/* When what the server sends now arrives. */
static uint64_t back_ms(struct fake_client *client, bool in_order)
{
	struct fake_server *server = client->server;
	uint64_t at = after(server, client_loop(client), server->options.faults.delay_ms);
	if (!in_order)
		return at;
	if (at < client->last_answer_ms)
		at = client->last_answer_ms;
	return client->last_answer_ms = at;
}

/* The name as the server has it. */
static void server_name(
	struct fake_server *server, struct coord_bytes from, struct fake_name *ret_name)
{
	fake_name_set(ret_name, from);
	for (size_t i = 0; server->options.fold && i < ret_name->len; i++)
		ret_name->data[i] = tolower((unsigned char)ret_name->data[i]);
}

/* ---- Requests ---- */

static void req_free(struct fake_req *req)
{
	struct fake_server *server = req->server;
	assert(!req->queued && !req->op);
	coord_timer_stop(server->loop, &req->arrive);
	coord_timer_stop(req->client ? client_loop(req->client) : server->loop, &req->reply);
	coord_list_remove(&req->link);
	free(req->data);
	free(req->owners);
	free(req->found);
	free(req->hello);
	free(req);
}

/* Answers the op. The request may still be on its way. */
static void req_answer(struct fake_req *req, int status, enum coord_sent sent)
{
	struct coord_op *op = req->op;
	if (!op)
		return;
	req->op = NULL;
	req->server->running--;
	coord_list_remove(&req->link);
	coord_list_add(&req->server->loose, &req->link);
	op->status = status;
	op->sent = sent;
	op->sent_ms = req->sent_ms;
	op->ttl_ms = req->ttl_ms;
	if (sent != COORD_SENT_ANSWERED) {
		op->rows = NULL;
		op->rows_end = &op->rows;
		op->rows_len = 0;
		op->next_cursor = (struct coord_bytes){0};
	} else if (status == 0 && op->grant && req->token > op->grant->token) {
		op->grant->token = req->token;
	}
	coord_op_done(op);
}

/* Who waits in the queue under its name may still do so. */
static void req_done(struct fake_req *req)
{
	if (!req->queued)
		req_free(req);
}

/* With leases of sessions, what counts is the last request before this one that showed the session alive. */
static void req_confirmed(struct fake_req *req)
{
	struct fake_client *client = req->client;
	uint64_t sent_ms = req->sent_ms;
	if (req->call == COORD_CALL_OPEN) {
		client->confirmed_ms = sent_ms;
		return;
	}
	req->sent_ms = client->confirmed_ms;
	if (req->call == COORD_CALL_RENEW)
		client->confirmed_ms = sent_ms;
}

static void tell_lost(
	struct fake_client *client, struct coord_key key, const uint8_t *owner, uint32_t epoch)
{
	client->telling = true;
	coord_grant_lost(client->session, key, owner, epoch);
	client->telling = false;
}

static void tell_event(struct fake_client *client, enum coord_event event)
{
	client->telling = true;
	coord_session_event(client->session, client->epoch, event);
	client->telling = false;
}

static void renew_report(struct fake_req *req)
{
	struct coord_session *session = req->client->session;
	for (size_t i = 0; i < req->owners_len; i++) {
		struct coord_grant *grant = NULL;
		while ((grant = coord_grants_next(session, grant)))
			if (memcmp(grant->owner, req->owners[i], 16) == 0)
				break;
		if (!grant)
			continue;
		if (req->found[i])
			coord_grant_renewed(session, grant, req->sent_ms, req->ttl_ms);
		else
			tell_lost(req->client, grant->key, grant->owner, grant->epoch);
	}
}

static void req_send(struct fake_req *req);

/* A lock that was granted out of the queue: its lease counts from a request that is sent now. */
static void req_confirm(struct fake_req *req)
{
	req->confirm = false;
	req->status = 0;
	req->call = COORD_CALL_LOCK_CHECK;
	req->sent_ms = coord_now_ms(client_loop(req->client));
	req_send(req);
}

/* The answer has come back, on the client's loop. */
static void req_replied(struct coord_timer *timer)
{
	struct fake_req *req = coord_container(timer, struct fake_req, reply);
	struct fake_client *client = req->client;
	if (!req->op) {
		req_done(req);
		return;
	}
	if (req->fate == FAKE_LOST) {
		req_answer(req, -EHOSTDOWN, COORD_SENT_NO);
	} else if (req->fate != FAKE_WELL) {
		req_answer(req, -ETIMEDOUT, COORD_SENT_UNKNOWN);
	} else if (req->conn <= client->broken) {
		return; /* lost on the way; answered when the driver sees the break */
	} else if (req->expired && req->call != COORD_CALL_CLOSE) {
		req_answer(req, -EHOSTDOWN, COORD_SENT_NO);
		tell_event(client, COORD_EVENT_EXPIRED);
	} else if (req->confirm) {
		req_confirm(req);
		return;
	} else {
		if (client->server->options.sessions && req->status == 0)
			req_confirmed(req);
		if (req->call == COORD_CALL_RENEW && req->status == 0)
			renew_report(req);
		if (req->call == COORD_CALL_OPEN && req->status == 0)
			client->open = true;
		req_answer(req, req->status, COORD_SENT_ANSWERED);
	}
	req_done(req);
}

void fake_reply(struct fake_req *req)
{
	struct fake_server *server = req->server;
	if (!req->op) {
		req_free(req);
		return;
	}
	coord_timer_start(client_loop(req->client), &req->reply,
		back_ms(req->client, server->options.answers_in_order));
}

static void server_drop(struct fake_server *, uint64_t peer_id, uint64_t conn);

/* What was sent before its client died arrives, unless its connection is known to be gone. */
static bool req_cut(const struct fake_req *req)
{
	if (req->client)
		return req->conn <= req->client->broken;
	const struct fake_peer *peer = fake_peer_find(req->server, req->peer_id);
	return peer && req->conn <= peer->dropped;
}

static void req_arrived(struct coord_timer *timer)
{
	struct fake_req *req = coord_container(timer, struct fake_req, arrive);
	struct fake_server *server = req->server;
	if (req_cut(req) || req->fate == FAKE_VANISHED) {
		/* Nobody hears of it; its sender learns of the break, or gives up. */
		if (!req->op)
			req_free(req);
		else if (req->fate == FAKE_VANISHED)
			fake_reply(req);
		return;
	}
	bool orphan = !req->client && req->call == COORD_CALL_OPEN;
	if (orphan)
		server_drop(server, req->peer_id, req->conn);
	if (fake_execute(server, req)) {
		fake_reply(req);
	} else if (req->fate == FAKE_UNANSWERED && req->op) {
		/* It waits in the queue, and its sender does not know. */
		req->forsaken = true;
		fake_reply(req);
	}
}

static void req_send(struct fake_req *req)
{
	struct fake_server *server = req->server;
	struct fake_client *client = req->client;
	const struct fake_faults *faults = &server->options.faults;
	uint64_t at = after(server, server->loop, faults->delay_ms);
	if (server->options.can & COORD_CAN_ORDERED) {
		if (at < client->last_arrive_ms)
			at = client->last_arrive_ms;
		client->last_arrive_ms = at;
	}
	req->ttl_ms = 0;
	coord_timer_start(server->loop, &req->arrive, at);
}

static enum fake_fate req_fate(struct fake_server *server, const struct fake_req *req)
{
	const struct fake_faults *faults = &server->options.faults;
	if (req->call == COORD_CALL_CLOSE)
		return FAKE_WELL;
	if (chance(server, faults->lost))
		return FAKE_LOST;
	bool waits = (req->flags & COORD_OP_WAIT) && !server->options.sessions;
	if (chance(server, faults->unknown))
		return fake_below(server, 2) || waits ? FAKE_VANISHED : FAKE_UNANSWERED;
	return FAKE_WELL;
}

static void req_owners(struct fake_req *req)
{
	struct coord_session *session = req->client->session;
	struct coord_grant *grant = NULL;
	size_t n = 0;
	while ((grant = coord_grants_next(session, grant)))
		n++;
	req->owners = calloc(n + 1, 16);
	req->found = calloc(n + 1, sizeof(bool));
	assert(req->owners && req->found);
	while ((grant = coord_grants_next(session, grant)))
		memcpy(req->owners[req->owners_len++], grant->owner, 16);
}

static struct fake_hello *hello_new(struct fake_client *client)
{
	const struct coord_config *config = coord_session_config(client->session);
	struct fake_hello *hello = calloc(1, sizeof(*hello));
	assert(hello);
	memcpy(hello->uuid, coord_session_uuid(client->session), 16);
	strncpy(hello->member, config->member, sizeof(hello->member) - 1);
	hello->identity_len = coord_identity_format(&config->identity, hello->identity);
	hello->read_only = config->read_only;
	return hello;
}

static struct fake_req *req_new(struct fake_client *client, struct coord_op *op)
{
	struct fake_req *req = calloc(1, sizeof(*req));
	assert(req);
	req->server = client->server;
	req->client = client;
	req->op = op;
	req->arrive.fn = req_arrived;
	req->reply.fn = req_replied;
	req->call = op->call;
	req->kind = op->grant ? op->grant->key.kind : op->key.kind;
	server_name(client->server, op->grant ? op->grant->key.name : op->key.name, &req->name);
	fake_name_set(&req->member, op->member.len ? op->member
				    : op->grant    ? op->grant->member
						   : op->member);
	if (op->grant) {
		memcpy(req->owner, op->grant->owner, 16);
		req->mode = op->call == COORD_CALL_CONVERT ? op->mode : op->grant->mode;
	}
	req->flags = op->flags;
	req->epoch = op->epoch;
	req->peer_id = client->peer_id;
	req->conn = client->conn;
	req->sent_ms = coord_now_ms(client_loop(client));
	req->data = malloc(op->data.len + 1);
	assert(req->data);
	if (op->data.len)
		memcpy(req->data, op->data.data, op->data.len);
	req->data_len = op->data.len;
	if (op->call == COORD_CALL_RENEW)
		req_owners(req);
	if (op->call == COORD_CALL_OPEN)
		req->hello = hello_new(client);
	coord_list_init(&req->queue_link);
	coord_list_add(&client->reqs, &req->link);
	op->drv[0] = req;
	return req;
}

static void client_break(struct fake_client *client, uint64_t down_ms);

/* Every call of the driver but open and close. */
static void fake_call(struct coord_session *session, struct coord_op *op)
{
	struct fake_client *client = coord_session_data(session);
	struct fake_server *server = client->server;
	server->ops[op->call]++;
	if (!client->up || !client->open) {
		op->sent = COORD_SENT_NO;
		coord_op_fail(op, -EHOSTDOWN);
		return;
	}
	server->running++;
	struct fake_req *req = req_new(client, op);
	req->fate = req_fate(server, req);
	if (req->fate == FAKE_LOST)
		fake_reply(req);
	else
		req_send(req);
	if (chance(server, server->options.faults.disconnect))
		client_break(client, fake_below(server, server->options.faults.down_ms + 1));
}

static void fake_cancel(struct coord_session *session, struct coord_op *op)
{
	const struct fake_client *client = coord_session_data(session);
	struct fake_req *req = client->killed ? NULL : op->drv[0];
	if (!req || req->op != op)
		return;
	/* It travels as fast as the next request; here it simply arrives. A grant may be on its way. */
	req->cancelled = true;
	bool away = !client->up || client->broken >= client->conn;
	if (req->queued && away && client->server->options.sessions) {
		/* It cannot be said now that nobody waits any more. */
		req_answer(req, -ECANCELED, COORD_SENT_UNKNOWN);
	} else if (req->queued) {
		fake_queue_leave(req->server, req);
		req->status = -ECANCELED;
		fake_reply(req);
	}
}

/* ---- Connections ---- */

/* The server's view of a connection that broke. */
struct fake_drop {
	struct coord_list link;
	struct coord_timer timer;
	struct fake_server *server;
	uint64_t peer_id, conn;
};

static void drop_free(struct fake_drop *drop)
{
	coord_timer_stop(drop->server->loop, &drop->timer);
	coord_list_remove(&drop->link);
	free(drop);
}

static void drop_noticed(struct coord_timer *timer)
{
	struct fake_drop *drop = coord_container(timer, struct fake_drop, timer);
	fake_peer_dropped(drop->server, drop->peer_id, drop->conn);
	drop_free(drop);
}

static void server_drop(struct fake_server *server, uint64_t peer_id, uint64_t conn)
{
	struct fake_drop *drop = calloc(1, sizeof(*drop));
	assert(drop);
	*drop = (struct fake_drop){
		.server = server, .timer.fn = drop_noticed, .peer_id = peer_id, .conn = conn};
	coord_list_add(&server->drops, &drop->link);
	coord_timer_start(server->loop, &drop->timer,
		after(server, server->loop, server->options.faults.notice_ms));
}

static void client_drop(const struct fake_client *client)
{
	server_drop(client->server, client->peer_id, client->conn);
}

static void client_break(struct fake_client *client, uint64_t down_ms)
{
	struct fake_server *server = client->server;
	if (client->broken >= client->conn || !client->open)
		return;
	client->broken = client->conn;
	client->breaks++;
	client->down_until_ms = coord_now_ms(server->loop) + down_ms;
	client_drop(client);
	coord_timer_start(client_loop(client), &client->notice,
		after(server, client_loop(client), server->options.faults.notice_ms));
}

/* Its place in the queue is the session's, and will be looked for when there is a connection. */
static bool req_parks(const struct fake_req *req)
{
	return req->server->options.sessions && req->client->open && req->call == COORD_CALL_LOCK &&
	       (req->flags & COORD_OP_WAIT) && !req->cancelled && req->fate == FAKE_WELL &&
	       !req->arrive.active && (req->queued || !req->status);
}

/* Answers what runs. What has not arrived never will; what waits in a queue leaves it with the
 * connection, or stays in the queue of its session. */
static void client_fail(struct fake_client *client, int status, enum coord_sent sent)
{
	struct coord_list *reqs = &client->reqs;
	for (struct coord_list *at = reqs->next, *next; at != reqs; at = next) {
		next = at->next;
		struct fake_req *req = coord_container(at, struct fake_req, link);
		if (req->call == COORD_CALL_OPEN || req->call == COORD_CALL_CLOSE)
			continue;
		if (status == -EHOSTDOWN && req_parks(req)) {
			coord_timer_stop(client_loop(client), &req->reply);
			req->parked = true;
			continue;
		}
		req_answer(req, status, sent);
		if (!req->queued && !req->arrive.active && !req->reply.active)
			req_free(req);
	}
}

static uint64_t client_down_ms(const struct fake_client *client)
{
	uint64_t now = coord_now_ms(client->server->loop);
	return client->down_until_ms > now ? client->down_until_ms - now : 0;
}

/* The driver sees that the connection broke. */
static void client_noticed(struct coord_timer *timer)
{
	struct fake_client *client = coord_container(timer, struct fake_client, notice);
	client->up = false;
	client_fail(client, -EHOSTDOWN, COORD_SENT_UNKNOWN);
	coord_timer_start(client_loop(client), &client->connect,
		coord_now_ms(client_loop(client)) + client_down_ms(client));
	tell_event(client, COORD_EVENT_DISCONNECTED);
}

/* Those who wait look for their place in the queue; who is not in it may have got the lock. */
static void client_unpark(struct fake_client *client)
{
	struct fake_req *req, *next;
	coord_list_each_safe (req, next, &client->reqs, link) {
		if (!req->parked)
			continue;
		req->parked = false;
		req->conn = client->conn;
		if (!req->queued)
			req_confirm(req);
	}
}

static void client_connect(struct coord_timer *timer)
{
	struct fake_client *client = coord_container(timer, struct fake_client, connect);
	struct fake_server *server = client->server;
	struct fake_peer *peer = fake_peer_find(server, client->peer_id);
	uint64_t old = client->conn;
	client->up = true;
	client->conn++;
	if (!peer) {
		tell_event(client, COORD_EVENT_EXPIRED);
		return;
	}
	peer->conn = client->conn;
	if (server->options.sessions) {
		/* The leader itself takes the session up again. */
		peer->touched_ms = coord_now_ms(server->loop);
		peer->expires_ms = peer->touched_ms + server->options.ttl_ms;
		client->confirmed_ms = coord_now_ms(client_loop(client));
		client_unpark(client);
	} else {
		fake_peer_requeue(server, peer, old);
	}
	tell_event(client, COORD_EVENT_CONNECTED);
	fake_changed_all(server, peer);
}

void fake_heal(struct fake_server *server)
{
	struct fake_client *client;
	coord_list_each (client, &server->clients, link) {
		client->down_until_ms = 0;
		if (client->connect.active)
			coord_timer_start(client_loop(client), &client->connect,
				coord_now_ms(client_loop(client)));
	}
}

void fake_break(struct fake_server *server, const char *member, uint64_t down_ms)
{
	struct fake_client *client;
	coord_list_each (client, &server->clients, link)
		if (strcmp(coord_session_config(client->session)->member, member) == 0)
			client_break(client, down_ms);
}

/* ---- Notices ---- */

struct fake_note {
	struct coord_list link;
	struct coord_timer timer;
	struct fake_client *client;
	enum fake_note_what what;
	enum coord_kind kind;
	struct fake_name name;
	uint8_t owner[16];
	uint32_t epoch;
	uint64_t conn;
};

static void note_free(struct fake_note *note)
{
	coord_timer_stop(client_loop(note->client), &note->timer);
	coord_list_remove(&note->link);
	free(note);
}

static void note_arrived(struct coord_timer *timer)
{
	_cleanup_free_ struct fake_note *note = coord_container(timer, struct fake_note, timer);
	struct coord_session *session = note->client->session;
	struct coord_key key = {note->kind, fake_bytes(&note->name)};
	coord_list_remove(&note->link);
	if (note->conn <= note->client->broken || !note->client->open)
		return;
	if (note->what == FAKE_CHANGED)
		coord_changed(session, key, 0);
	else if (note->what == FAKE_CONTENDED)
		coord_grant_contended(session, key, note->owner, note->epoch);
	else
		tell_lost(note->client, key, note->owner, note->epoch);
}

void fake_note(struct fake_server *server, struct fake_peer *peer, enum fake_note_what what,
	enum coord_kind kind, const struct fake_name *name, const uint8_t *owner, uint32_t epoch)
{
	struct fake_client *client = peer->client;
	if (!client || (what != FAKE_GONE && !(server->options.can & COORD_CAN_NOTIFY)))
		return;
	struct fake_note *note = calloc(1, sizeof(*note));
	assert(note);
	*note = (struct fake_note){.client = client,
		.timer.fn = note_arrived,
		.what = what,
		.kind = kind,
		.name = *name,
		.epoch = epoch,
		.conn = client->conn};
	if (owner)
		memcpy(note->owner, owner, 16);
	coord_list_add(&client->notes, &note->link);
	coord_timer_start(client_loop(client), &note->timer,
		back_ms(client, server->options.notices_in_order));
}

static void fake_unwatch_call(struct coord_session *session, struct coord_key key)
{
	struct fake_client *client = coord_session_data(session);
	struct fake_name name;
	if (client->killed)
		return;
	server_name(client->server, key.name, &name);
	fake_unwatch(client->server, client->peer_id, key.kind, &name);
}

/* ---- Sessions ---- */

/* The server whose driver is configured next by URL; one test has few. */
static struct fake_server *servers[16];

static struct fake_server *server_of(const struct coord_driver *driver)
{
	for (size_t i = 0; i < sizeof(servers) / sizeof(*servers); i++)
		if (servers[i] && &servers[i]->driver == driver)
			return servers[i];
	return NULL;
}

static int fake_configure(
	struct coord_session *session, const struct coord_config *config, char **ret_error)
{
	(void)ret_error;
	struct fake_client *client = coord_session_data(session);
	*client = (struct fake_client){.server = server_of(config->driver), .session = session};
	assert(client->server);
	client->notice.fn = client_noticed;
	client->connect.fn = client_connect;
	coord_list_init(&client->reqs);
	coord_list_init(&client->notes);
	coord_list_add(&client->server->clients, &client->link);
	return 0;
}

/* The driver's side of the old session ends: nothing of it is answered or noticed any more. */
static void client_detach(struct fake_client *client)
{
	struct fake_peer *peer = fake_peer_find(client->server, client->peer_id);
	if (peer)
		peer->client = NULL;
	client->open = false;
	client->last_arrive_ms = client->last_answer_ms = 0;
	coord_timer_stop(client_loop(client), &client->notice);
	coord_timer_stop(client_loop(client), &client->connect);
	while (!coord_list_empty(&client->notes))
		note_free(coord_container(client->notes.next, struct fake_note, link));
}

static void fake_open(struct coord_session *session, struct coord_op *op)
{
	struct fake_client *client = coord_session_data(session);
	struct fake_server *server = client->server;
	server->ops[op->call]++;
	server->running++;
	bool down = client_down_ms(client) > 0;
	if (client->peer_id)
		client_drop(client);
	client_detach(client);
	client->peer_id = ++server->next_id;
	client->conn++;
	client->up = true;
	client->epoch = op->epoch;
	struct fake_req *req = req_new(client, op);
	req->fate = down ? FAKE_LOST : req_fate(server, req);
	if (req->fate == FAKE_LOST)
		fake_reply(req);
	else
		req_send(req);
}

static void fake_close(struct coord_session *session, struct coord_op *op)
{
	struct fake_client *client = coord_session_data(session);
	struct fake_server *server = client->server;
	bool cut = !client->up || client->broken >= client->conn;
	server->ops[op->call]++;
	client_fail(client, -ECANCELED, COORD_SENT_UNKNOWN);
	if (cut)
		client_drop(client);
	client_detach(client);
	if (cut) {
		coord_op_fail(op, -EHOSTDOWN);
		return;
	}
	server->running++;
	struct fake_req *req = req_new(client, op);
	req_send(req);
}

/* The client goes, and hears nothing more. What it sent still travels, or stays in a queue. */
static void reqs_orphan(struct fake_client *client)
{
	struct fake_server *server = client->server;
	struct fake_req *req, *next;
	coord_list_each_safe (req, next, &client->reqs, link) {
		coord_list_remove(&req->link);
		coord_list_add(&server->loose, &req->link);
		req->op = NULL;
		server->running--;
	}
	coord_list_each_safe (req, next, &server->loose, link) {
		if (req->client != client)
			continue;
		coord_timer_stop(client_loop(client), &req->reply);
		if (!req->queued && (!req->arrive.active || req->conn <= client->broken))
			req_free(req);
		else
			req->client = NULL;
	}
}

static void client_gone(struct fake_client *client)
{
	if (client->killed)
		return;
	client->killed = true;
	if (client->peer_id)
		client_drop(client);
	client_detach(client);
	reqs_orphan(client);
	client->up = false;
}

static void fake_session_free(struct coord_session *session)
{
	struct fake_client *client = coord_session_data(session);
	/* The core may have given up on a close that did not come back. */
	client_gone(client);
	coord_list_remove(&client->link);
}

struct fake_client *fake_client_find(struct fake_server *server, const char *member)
{
	struct fake_client *client;
	coord_list_each (client, &server->clients, link)
		if (strcmp(coord_session_config(client->session)->member, member) == 0)
			return client;
	return NULL;
}

void fake_kill(struct fake_server *server, const char *member)
{
	struct fake_client *client = fake_client_find(server, member);
	if (client)
		client_gone(client);
}

static int fake_map_name(struct coord_session *session, enum coord_kind kind,
	struct coord_bytes name, char *ret_key, size_t *ret_len)
{
	struct fake_client *client = coord_session_data(session);
	struct fake_name mapped;
	(void)kind;
	if (name.len == 0)
		return -EINVAL;
	if (name.len > 200)
		return -ENAMETOOLONG;
	server_name(client->server, name, &mapped);
	memcpy(ret_key, mapped.data, mapped.len);
	*ret_len = mapped.len;
	return 0;
}

/* ---- Servers ---- */

static const char *const fake_schemes[] = {"fake", NULL};
static const struct coord_param fake_params[] = {{.name = NULL}};

static struct coord_driver fake_driver(const struct fake_options *options)
{
	struct coord_driver driver = {
		.abi = COORD_DRIVER_ABI,
		.name = "fake",
		.help = "a backend inside the test",
		.schemes = fake_schemes,
		.params = fake_params,
		.can = options->can,
		.loss = {[COORD_LOCK] = options->lock_loss,
			[COORD_LEADER] = options->lock_loss,
			[COORD_MEMBER] = options->member_loss,
			[COORD_GROUP] = COORD_LOSS_PROCESS},
		.session_size = sizeof(struct fake_client),
		.value_max = 1u << 20,
		.ops_max = options->ops_max,
		.waits_max = options->waits_max,
		.poll_ms = options->poll_ms,
		.grants_stay = options->claims,
		.configure = fake_configure,
		.session_free = fake_session_free,
		.map_name = fake_map_name,
		.open = fake_open,
		.close = fake_close,
	};
	driver.group_create = driver.group_delete = driver.group_list = driver.group_read =
		fake_call;
	driver.member_join = driver.member_update = driver.member_leave = driver.member_get =
		fake_call;
	driver.lock = driver.convert = driver.unlock = driver.lock_check = fake_call;
	driver.lock_read = driver.lock_list = driver.lock_break = fake_call;
	driver.unwatch = fake_unwatch_call;
	driver.cancel = options->no_cancel ? NULL : fake_cancel;
	if (options->lock_loss == COORD_LOSS_LEASE || options->member_loss == COORD_LOSS_LEASE)
		driver.renew = fake_call;
	return driver;
}

int fake_server_new(
	struct coord_loop *loop, const struct fake_options *options, struct fake_server **ret)
{
	size_t at = 0;
	while (at < sizeof(servers) / sizeof(*servers) && servers[at])
		at++;
	struct fake_server *server = calloc(1, sizeof(*server));
	if (!server || at == sizeof(servers) / sizeof(*servers)) {
		free(server);
		return -ENOMEM;
	}
	server->loop = loop;
	server->options = *options;
	if (!server->options.ttl_ms)
		server->options.ttl_ms = 10000;
	server->driver = fake_driver(options);
	server->expire.fn = fake_expire;
	server->last_token = coord_utc_us(loop) & ~(uint64_t)1;
	coord_list_init(&server->peers);
	coord_list_init(&server->entries);
	coord_list_init(&server->clients);
	coord_list_init(&server->loose);
	coord_list_init(&server->drops);
	servers[at] = server;
	*ret = server;
	return 0;
}

void fake_server_free(struct fake_server *server)
{
	if (!server)
		return;
	assert(coord_list_empty(&server->clients));
	server->observer = NULL;
	while (!coord_list_empty(&server->drops))
		drop_free(coord_container(server->drops.next, struct fake_drop, link));
	fake_server_clear(server);
	while (!coord_list_empty(&server->loose))
		req_free(coord_container(server->loose.next, struct fake_req, link));
	for (size_t i = 0; i < sizeof(servers) / sizeof(*servers); i++)
		if (servers[i] == server)
			servers[i] = NULL;
	free(server);
}

struct fake_options *fake_server_options(struct fake_server *server)
{
	return &server->options;
}

const struct coord_driver *fake_server_driver(struct fake_server *server)
{
	return &server->driver;
}

int fake_server_config(struct fake_server *server, const char *member, struct coord_config **ret)
{
	struct coord_url url;
	_cleanup_free_ char *error = NULL;
	int r = coord_url_parse("fake://", &url, &error);
	if (r)
		return r;
	struct coord_option options[] = {{"timeout", "10"}};
	r = coord_config_new(&server->driver, &url, options, 1, NULL, NULL, member, ret, &error);
	if (r)
		coord_url_done(&url);
	return r;
}
