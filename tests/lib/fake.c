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

static uint64_t after(struct fake_server *server, uint64_t max_ms)
{
	return coord_now_ms(server->loop) + (max_ms ? fake_below(server, max_ms + 1) : 0);
}

static struct coord_loop *client_loop(struct fake_client *client)
{
	return coord_session_loop(client->session);
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
			coord_grant_lost(session, grant->key, grant->owner, grant->epoch);
	}
}

static void req_send(struct fake_req *req);

/* A lock that was granted out of the queue: its lease counts from a request that is sent now. */
static void req_confirm(struct fake_req *req)
{
	req->confirm = false;
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
		req_free(req);
		return;
	}
	if (req->fate == FAKE_LOST) {
		req_answer(req, -EHOSTDOWN, COORD_SENT_NO);
	} else if (req->fate != FAKE_WELL) {
		req_answer(req, -ETIMEDOUT, COORD_SENT_UNKNOWN);
	} else if (req->conn <= client->broken) {
		return; /* lost on the way; answered when the driver sees the break */
	} else if (req->expired && req->call != COORD_CALL_CLOSE) {
		uint32_t epoch = client->epoch;
		req_answer(req, -EHOSTDOWN, COORD_SENT_NO);
		coord_session_event(client->session, epoch, COORD_EVENT_EXPIRED);
	} else if (req->confirm) {
		req_confirm(req);
		return;
	} else {
		if (req->call == COORD_CALL_RENEW && req->status == 0)
			renew_report(req);
		if (req->call == COORD_CALL_OPEN && req->status == 0)
			client->open = true;
		req_answer(req, req->status, COORD_SENT_ANSWERED);
	}
	req_free(req);
}

void fake_reply(struct fake_req *req)
{
	struct fake_server *server = req->server;
	if (!req->op) {
		req_free(req);
		return;
	}
	coord_timer_start(client_loop(req->client), &req->reply,
		after(server, server->options.faults.delay_ms));
}

static void req_arrived(struct coord_timer *timer)
{
	struct fake_req *req = coord_container(timer, struct fake_req, arrive);
	struct fake_server *server = req->server;
	bool cut = !req->client || req->conn <= req->client->broken;
	if (cut || req->fate == FAKE_VANISHED) {
		/* Nobody hears of it; its sender learns of the break, or gives up. */
		if (!req->op)
			req_free(req);
		else if (req->fate == FAKE_VANISHED)
			fake_reply(req);
		return;
	}
	if (fake_execute(server, req))
		fake_reply(req);
}

static void req_send(struct fake_req *req)
{
	struct fake_server *server = req->server;
	struct fake_client *client = req->client;
	const struct fake_faults *faults = &server->options.faults;
	uint64_t at = after(server, faults->delay_ms);
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
	if (chance(server, faults->unknown))
		return fake_below(server, 2) || (req->flags & COORD_OP_WAIT) ? FAKE_VANISHED
									     : FAKE_UNANSWERED;
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
		client_break(client,
			after(server, server->options.faults.down_ms) - coord_now_ms(server->loop));
}

static void fake_cancel(struct coord_session *session, struct coord_op *op)
{
	(void)session;
	struct fake_req *req = op->drv[0];
	if (!req || req->op != op)
		return;
	/* It travels as fast as the next request; here it simply arrives. A grant may be on its way. */
	req->cancelled = true;
	if (req->queued) {
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

static void server_drop(struct fake_client *client)
{
	struct fake_server *server = client->server;
	struct fake_drop *drop = calloc(1, sizeof(*drop));
	assert(drop);
	*drop = (struct fake_drop){.server = server,
		.timer.fn = drop_noticed,
		.peer_id = client->peer_id,
		.conn = client->conn};
	coord_list_add(&server->drops, &drop->link);
	coord_timer_start(
		server->loop, &drop->timer, after(server, server->options.faults.notice_ms));
}

static void client_break(struct fake_client *client, uint64_t down_ms)
{
	struct fake_server *server = client->server;
	if (client->broken >= client->conn || !client->open)
		return;
	client->broken = client->conn;
	client->down_until_ms = coord_now_ms(server->loop) + down_ms;
	server_drop(client);
	coord_timer_start(client_loop(client), &client->notice,
		after(server, server->options.faults.notice_ms));
}

/* Answers what runs. What has not arrived never will; what waits in a queue leaves it with the
 * connection. */
static void client_fail(struct fake_client *client, int status, enum coord_sent sent)
{
	struct coord_list *reqs = &client->reqs;
	for (struct coord_list *at = reqs->next, *next; at != reqs; at = next) {
		next = at->next;
		struct fake_req *req = coord_container(at, struct fake_req, link);
		if (req->call == COORD_CALL_OPEN || req->call == COORD_CALL_CLOSE)
			continue;
		req_answer(req, status, sent);
		if (!req->queued && !req->arrive.active && !req->reply.active)
			req_free(req);
	}
}

/* The driver sees that the connection broke. */
static void client_noticed(struct coord_timer *timer)
{
	struct fake_client *client = coord_container(timer, struct fake_client, notice);
	uint64_t now = coord_now_ms(client_loop(client));
	client->up = false;
	client_fail(client, -EHOSTDOWN, COORD_SENT_UNKNOWN);
	uint64_t at = client->down_until_ms > now ? client->down_until_ms : now;
	coord_timer_start(client_loop(client), &client->connect, at);
	coord_session_event(client->session, client->epoch, COORD_EVENT_DISCONNECTED);
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
		coord_session_event(client->session, client->epoch, COORD_EVENT_EXPIRED);
		return;
	}
	peer->conn = client->conn;
	fake_peer_requeue(server, peer, old);
	coord_session_event(client->session, client->epoch, COORD_EVENT_CONNECTED);
	fake_changed_all(server, peer);
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
		coord_grant_lost(session, key, note->owner, note->epoch);
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
	coord_timer_start(
		client_loop(client), &note->timer, after(server, server->options.faults.delay_ms));
}

static void fake_unwatch_call(struct coord_session *session, struct coord_key key)
{
	struct fake_client *client = coord_session_data(session);
	struct fake_name name;
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
	client->last_arrive_ms = 0;
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
	bool down = client->down_until_ms > coord_now_ms(client_loop(client));
	if (client->peer_id)
		server_drop(client);
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
		server_drop(client);
	client_detach(client);
	if (cut) {
		coord_op_fail(op, -EHOSTDOWN);
		return;
	}
	server->running++;
	struct fake_req *req = req_new(client, op);
	req_send(req);
}

/* Requests that still travel when their client goes. */
static void reqs_orphan(struct fake_client *client)
{
	struct coord_list *loose = &client->server->loose;
	for (struct coord_list *at = loose->next, *next; at != loose; at = next) {
		next = at->next;
		struct fake_req *req = coord_container(at, struct fake_req, link);
		if (req->client != client)
			continue;
		fake_queue_leave(client->server, req);
		req_free(req);
	}
}

static void fake_session_free(struct coord_session *session)
{
	struct fake_client *client = coord_session_data(session);
	/* The core may have given up on a close that did not come back. */
	while (!coord_list_empty(&client->reqs)) {
		struct fake_req *req = coord_container(client->reqs.next, struct fake_req, link);
		fake_queue_leave(client->server, req);
		req->op = NULL;
		client->server->running--;
		req_free(req);
	}
	if (client->peer_id)
		server_drop(client);
	client_detach(client);
	reqs_orphan(client);
	coord_list_remove(&client->link);
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
	driver.cancel = fake_cancel;
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

/* ---- What tests ask ---- */

bool fake_holds(struct fake_server *server, const char *member, enum coord_kind kind,
	struct coord_bytes name, enum coord_mode mode)
{
	struct fake_entry *entry;
	struct fake_hold *hold;
	coord_list_each (entry, &server->entries, link)
		coord_list_each (hold, &entry->holds, link)
			if (entry->kind == kind &&
				coord_bytes_equal(fake_bytes(&entry->name), name) &&
				strcmp(hold->peer->member, member) == 0 &&
				(mode == COORD_NONE || hold->mode == mode))
				return true;
	return false;
}

bool fake_joined(struct fake_server *server, const char *by, struct coord_bytes group,
	struct coord_bytes member)
{
	struct fake_entry *entry;
	struct fake_hold *hold;
	coord_list_each (entry, &server->entries, link)
		coord_list_each (hold, &entry->members, link)
			if (coord_bytes_equal(fake_bytes(&entry->name), group) &&
				coord_bytes_equal(fake_bytes(&hold->member), member) &&
				strcmp(hold->peer->member, by) == 0)
				return true;
	return false;
}

bool fake_client_up(struct fake_server *server, const char *member)
{
	struct fake_client *client;
	coord_list_each (client, &server->clients, link)
		if (strcmp(coord_session_config(client->session)->member, member) == 0)
			return client->up && client->open && client->broken < client->conn;
	return false;
}

static size_t list_len(const struct coord_list *head)
{
	size_t n = 0;
	for (const struct coord_list *at = head->next; at != head; at = at->next)
		n++;
	return n;
}

size_t fake_server_traces(struct fake_server *server)
{
	size_t n = list_len(&server->peers);
	struct fake_entry *entry;
	coord_list_each (entry, &server->entries, link)
		n += list_len(&entry->holds) + list_len(&entry->queue) + list_len(&entry->watches) +
		     list_len(&entry->members);
	return n;
}

uint64_t fake_server_ops(struct fake_server *server, enum coord_call call)
{
	return server->ops[call];
}

size_t fake_server_running(struct fake_server *server)
{
	return server->running;
}

uint64_t fake_group_deletes(struct fake_server *server)
{
	return server->group_deletes;
}

uint64_t fake_last_token(struct fake_server *server)
{
	return server->last_token;
}
