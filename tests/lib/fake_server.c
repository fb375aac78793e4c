/* SPDX-License-Identifier: Apache-2.0 */
/* The fake's server: what requests do. See fake.h. */
#include "tests/lib/fake_server.h"

#include <assert.h>

struct coord_bytes fake_bytes(const struct fake_name *name)
{
	return (struct coord_bytes){name->data, name->len};
}

void fake_name_set(struct fake_name *name, struct coord_bytes from)
{
	assert(from.len <= sizeof(name->data));
	name->len = from.len;
	if (from.len)
		memcpy(name->data, from.data, from.len);
}

static bool name_equal(const struct fake_name *a, const struct fake_name *b)
{
	return coord_bytes_equal(fake_bytes(a), fake_bytes(b));
}

static enum coord_loss loss_of(const struct fake_server *server, enum coord_kind kind)
{
	return server->driver.loss[kind];
}

/* ---- Entries, watches, notices ---- */

struct fake_entry *fake_entry_find(
	struct fake_server *server, enum coord_kind kind, const struct fake_name *name)
{
	struct fake_entry *entry;
	coord_list_each (entry, &server->entries, link)
		if (entry->kind == kind && name_equal(&entry->name, name))
			return entry;
	return NULL;
}

struct fake_entry *fake_entry_get(
	struct fake_server *server, enum coord_kind kind, const struct fake_name *name)
{
	struct fake_entry *entry = fake_entry_find(server, kind, name);
	if (entry)
		return entry;
	entry = calloc(1, sizeof(*entry));
	assert(entry);
	entry->kind = kind;
	entry->name = *name;
	entry->serial = ++server->next_serial;
	coord_list_init(&entry->holds);
	coord_list_init(&entry->queue);
	coord_list_init(&entry->watches);
	coord_list_init(&entry->members);
	coord_list_add(&server->entries, &entry->link);
	return entry;
}

static void entry_put(struct fake_entry *entry)
{
	if (entry->exists || !coord_list_empty(&entry->holds) || !coord_list_empty(&entry->queue) ||
		!coord_list_empty(&entry->watches) || !coord_list_empty(&entry->members))
		return;
	coord_list_remove(&entry->link);
	free(entry);
}

static void entry_changed(struct fake_server *server, struct fake_entry *entry)
{
	struct fake_watch *watch;
	coord_list_each (watch, &entry->watches, link)
		fake_note(server, watch->peer, FAKE_CHANGED, entry->kind, &entry->name, NULL, 0);
	if (entry->kind != COORD_LEADER)
		return;
	struct fake_entry *group = fake_entry_find(server, COORD_GROUP, &entry->name);
	if (group)
		entry_changed(server, group);
}

static void entry_contended(
	struct fake_server *server, struct fake_entry *entry, const struct fake_peer *by)
{
	struct fake_hold *hold;
	coord_list_each (hold, &entry->holds, link)
		if (hold->peer != by)
			fake_note(server, hold->peer, FAKE_CONTENDED, entry->kind, &entry->name,
				hold->owner, hold->epoch);
}

void fake_entry_watch(struct fake_entry *entry, struct fake_peer *peer)
{
	struct fake_watch *watch;
	coord_list_each (watch, &entry->watches, link)
		if (watch->peer == peer)
			return;
	watch = calloc(1, sizeof(*watch));
	assert(watch);
	watch->entry = entry;
	watch->peer = peer;
	coord_list_add(&entry->watches, &watch->link);
}

void fake_changed_all(struct fake_server *server, struct fake_peer *peer)
{
	struct fake_entry *entry;
	struct fake_watch *watch;
	coord_list_each (entry, &server->entries, link)
		coord_list_each (watch, &entry->watches, link)
			if (watch->peer == peer)
				fake_note(server, peer, FAKE_CHANGED, entry->kind, &entry->name,
					NULL, 0);
}

/* ---- Holds and the queue ---- */

static uint64_t lease_end(struct fake_server *server, enum coord_kind kind)
{
	if (loss_of(server, kind) != COORD_LOSS_LEASE || server->options.sessions)
		return UINT64_MAX;
	return coord_now_ms(server->loop) + server->options.ttl_ms;
}

/* Starts the timer for whatever ends first. */
static void expire_arm(struct fake_server *server)
{
	uint64_t first = UINT64_MAX;
	struct fake_peer *peer;
	struct fake_entry *entry;
	struct fake_hold *hold;
	coord_list_each (peer, &server->peers, link)
		if (peer->expires_ms < first)
			first = peer->expires_ms;
	coord_list_each (entry, &server->entries, link) {
		coord_list_each (hold, &entry->holds, link)
			if (hold->expires_ms < first)
				first = hold->expires_ms;
		coord_list_each (hold, &entry->members, link)
			if (hold->expires_ms < first)
				first = hold->expires_ms;
	}
	coord_timer_stop(server->loop, &server->expire);
	if (first != UINT64_MAX)
		coord_timer_start(server->loop, &server->expire, first);
}

static struct fake_hold *hold_find(struct fake_entry *entry, const uint8_t *owner)
{
	struct fake_hold *hold;
	if (!entry)
		return NULL;
	coord_list_each (hold, &entry->holds, link)
		if (memcmp(hold->owner, owner, 16) == 0)
			return hold;
	return NULL;
}

/* Where the connection is what holds, another connection holds nothing of it. */
static bool hold_of(
	const struct fake_server *server, const struct fake_hold *hold, const struct fake_req *req)
{
	return loss_of(server, req->kind) != COORD_LOSS_CONNECTION || hold->conn == req->conn;
}

static bool hold_fits(const struct fake_entry *entry, enum coord_mode mode)
{
	const struct fake_hold *hold;
	coord_list_each (hold, &entry->holds, link)
		if (mode == COORD_EXCLUSIVE || hold->mode == COORD_EXCLUSIVE)
			return false;
	return true;
}

static uint64_t next_token(struct fake_server *server, enum coord_mode mode)
{
	if (mode == COORD_SHARED)
		return server->last_token + 1;
	return server->last_token += 2;
}

static struct fake_hold *peer_hold(
	struct fake_server *server, const struct fake_peer *peer, bool all, uint64_t conn);

static void peer_free(struct fake_peer *peer)
{
	coord_list_remove(&peer->link);
	free(peer);
}

static void hold_free(struct fake_server *server, struct fake_hold *hold)
{
	struct fake_peer *peer = hold->peer;
	coord_list_remove(&hold->link);
	free(hold->data);
	free(hold);
	if (peer->ended && !peer_hold(server, peer, true, UINT64_MAX))
		peer_free(peer);
}

static struct coord_key hold_key(const struct fake_hold *hold)
{
	return (struct coord_key){hold->kind, fake_bytes(&hold->entry->name)};
}

static void tell_granted(struct fake_server *server, const struct fake_hold *hold)
{
	const struct fake_observer *to = server->observer;
	if (to && hold->kind != COORD_MEMBER)
		to->granted(to->user, hold->peer->member, hold_key(hold), hold->mode);
}

static void tell_ended(struct fake_server *server, const struct fake_hold *hold, enum fake_end end)
{
	const struct fake_observer *to = server->observer;
	if (to && hold->kind != COORD_MEMBER)
		to->ended(to->user, hold->peer->member, hold_key(hold), hold->owner, end);
}

/* The lease of what is answered now; 0: none. */
static uint64_t lease_ms(struct fake_server *server, enum coord_kind kind)
{
	return loss_of(server, kind) == COORD_LOSS_LEASE ? server->options.ttl_ms : 0;
}

static struct fake_hold *hold_new(
	struct fake_server *server, struct fake_entry *entry, struct fake_req *req)
{
	struct fake_hold *hold = calloc(1, sizeof(*hold));
	assert(hold);
	hold->entry = entry;
	hold->peer = fake_peer_find(server, req->peer_id);
	assert(hold->peer);
	memcpy(hold->owner, req->owner, 16);
	hold->member = req->member;
	hold->kind = req->kind;
	hold->mode = req->mode;
	hold->epoch = req->epoch;
	hold->since_us = hold->updated_us = coord_utc_us(server->loop);
	hold->conn = req->conn;
	hold->expires_ms = lease_end(server, req->kind);
	hold->born = ++server->next_born;
	return hold;
}

static void grant(struct fake_server *server, struct fake_entry *entry, struct fake_req *req)
{
	struct fake_hold *hold = hold_new(server, entry, req);
	hold->token = next_token(server, req->mode);
	coord_list_add(&entry->holds, &hold->link);
	req->status = 0;
	req->token = hold->token;
	req->ttl_ms = lease_ms(server, req->kind);
	tell_granted(server, hold);
	expire_arm(server);
	entry_changed(server, entry);
}

/* Serves the queue from its head. */
static void queue_serve(struct fake_server *server, struct fake_entry *entry)
{
	while (!coord_list_empty(&entry->queue)) {
		struct fake_req *req =
			coord_container(entry->queue.next, struct fake_req, queue_link);
		if (!hold_fits(entry, req->mode))
			return;
		coord_list_remove(&req->queue_link);
		req->queued = false;
		/* The wait was long: a lease counts from a request that is sent now. */
		req->confirm =
			loss_of(server, req->kind) == COORD_LOSS_LEASE && !server->options.sessions;
		grant(server, entry, req);
		fake_reply(req);
	}
}

static void hold_release(struct fake_server *server, struct fake_hold *hold, enum fake_end end)
{
	struct fake_entry *entry = hold->entry;
	tell_ended(server, hold, end);
	hold_free(server, hold);
	entry_changed(server, entry);
	if (entry->kind != COORD_GROUP)
		queue_serve(server, entry);
	entry_put(entry);
}

static void hold_lose(struct fake_server *server, struct fake_hold *hold)
{
	fake_note(server, hold->peer, FAKE_GONE, hold->kind, &hold->entry->name, hold->owner,
		hold->epoch);
	hold_release(server, hold, FAKE_END_BROKEN);
}

void fake_queue_leave(struct fake_server *server, struct fake_req *req)
{
	if (!req->queued)
		return;
	struct fake_entry *entry = fake_entry_find(server, req->kind, &req->name);
	coord_list_remove(&req->queue_link);
	req->queued = false;
	queue_serve(server, entry);
	entry_put(entry);
}

/* ---- Sessions ---- */

struct fake_peer *fake_peer_find(struct fake_server *server, uint64_t id)
{
	struct fake_peer *peer;
	coord_list_each (peer, &server->peers, link)
		if (peer->id == id && !peer->ended)
			return peer;
	return NULL;
}

/* The first hold or member that matches; NULL: none is left. kinds as for loss, or all. */
static struct fake_hold *peer_hold(
	struct fake_server *server, const struct fake_peer *peer, bool all, uint64_t conn)
{
	struct fake_entry *entry;
	struct fake_hold *hold;
	coord_list_each (entry, &server->entries, link) {
		struct coord_list *lists[] = {&entry->holds, &entry->members};
		for (int i = 0; i < 2; i++)
			coord_list_each (hold, lists[i], link)
				if (hold->peer == peer &&
					(all || (loss_of(server, hold->kind) ==
								COORD_LOSS_CONNECTION &&
							hold->conn <= conn)))
					return hold;
	}
	return NULL;
}

static struct fake_req *peer_queued(
	struct fake_server *server, const struct fake_peer *peer, uint64_t conn)
{
	struct fake_entry *entry;
	struct fake_req *req;
	coord_list_each (entry, &server->entries, link)
		coord_list_each (req, &entry->queue, queue_link)
			if (req->peer_id == peer->id && req->conn <= conn)
				return req;
	return NULL;
}

void fake_peer_requeue(struct fake_server *server, struct fake_peer *peer, uint64_t conn)
{
	struct fake_req *req;
	while ((req = peer_queued(server, peer, conn))) {
		fake_queue_leave(server, req);
		req->status = -ECANCELED;
		fake_reply(req);
	}
}

static void peer_unwatch(struct fake_server *server, const struct fake_peer *peer)
{
	struct fake_entry *entry, *next;
	coord_list_each_safe (entry, next, &server->entries, link) {
		struct fake_watch *watch, *after;
		coord_list_each_safe (watch, after, &entry->watches, link)
			if (watch->peer == peer) {
				coord_list_remove(&watch->link);
				free(watch);
			}
		entry_put(entry);
	}
}

/* Everything of the session goes. */
static void peer_end(struct fake_server *server, struct fake_peer *peer, enum fake_end end)
{
	struct fake_hold *hold;
	peer->ended = false;
	fake_peer_requeue(server, peer, UINT64_MAX);
	while ((hold = peer_hold(server, peer, true, UINT64_MAX)))
		hold_release(server, hold, end);
	peer_unwatch(server, peer);
	peer_free(peer);
}

static struct fake_hold *peer_member(struct fake_server *server, const struct fake_peer *peer)
{
	struct fake_entry *entry;
	struct fake_hold *hold;
	coord_list_each (entry, &server->entries, link)
		coord_list_each (hold, &entry->members, link)
			if (hold->peer == peer)
				return hold;
	return NULL;
}

/* Where each lock has a lease of its own: the claim goes, and the members, and the locks stay for theirs. */
static void peer_expire(struct fake_server *server, struct fake_peer *peer, enum fake_end end)
{
	struct fake_hold *hold;
	if (!server->options.claims) {
		peer_end(server, peer, end);
		return;
	}
	fake_peer_requeue(server, peer, UINT64_MAX);
	while ((hold = peer_member(server, peer)))
		hold_release(server, hold, end);
	peer_unwatch(server, peer);
	peer->claims = false;
	peer->client = NULL;
	peer->expires_ms = UINT64_MAX;
	peer->ended = true;
	if (!peer_hold(server, peer, true, UINT64_MAX))
		peer_free(peer);
}

void fake_peer_dropped(struct fake_server *server, uint64_t peer_id, uint64_t conn)
{
	struct fake_peer *peer = fake_peer_find(server, peer_id);
	if (!peer)
		return;
	if (conn > peer->dropped)
		peer->dropped = conn;
	if (!server->options.sessions)
		fake_peer_requeue(server, peer, conn);
	struct fake_hold *hold;
	while ((hold = peer_hold(server, peer, false, conn)))
		hold_release(server, hold, FAKE_END_DROPPED);
	/* Nothing is leased: nothing but this connection kept the session. */
	if (!peer->client && peer->expires_ms == UINT64_MAX)
		peer_end(server, peer, FAKE_END_DROPPED);
}

void fake_end_session(struct fake_server *server, const char *member)
{
	struct fake_peer *peer = NULL;
	coord_list_each (peer, &server->peers, link)
		if (strcmp(peer->member, member) == 0 && peer->client) {
			peer_expire(server, peer, FAKE_END_BROKEN);
			return;
		}
}

static bool expire_one(struct fake_server *server, uint64_t now)
{
	struct fake_peer *peer;
	struct fake_entry *entry;
	struct fake_hold *hold;
	coord_list_each (entry, &server->entries, link) {
		struct coord_list *lists[] = {&entry->holds, &entry->members};
		for (int i = 0; i < 2; i++)
			coord_list_each (hold, lists[i], link)
				if (hold->expires_ms <= now) {
					hold_release(server, hold, FAKE_END_EXPIRED);
					return true;
				}
	}
	coord_list_each (peer, &server->peers, link)
		if (peer->expires_ms <= now) {
			peer_expire(server, peer, FAKE_END_EXPIRED);
			return true;
		}
	return false;
}

void fake_expire(struct coord_timer *timer)
{
	struct fake_server *server = coord_container(timer, struct fake_server, expire);
	while (expire_one(server, coord_now_ms(server->loop)))
		;
	expire_arm(server);
}

static bool any_leased(const struct fake_server *server)
{
	return loss_of(server, COORD_LOCK) == COORD_LOSS_LEASE ||
	       loss_of(server, COORD_MEMBER) == COORD_LOSS_LEASE;
}

/* The claim goes over to a daemon that knows its holder for dead, or to a new session of its holder. */
static void claim_taken(
	struct fake_server *server, struct fake_peer *peer, const struct fake_hello *hello)
{
	bool own = memcmp(peer->uuid, hello->uuid, 16) == 0;
	peer->claims = false;
	memcpy(peer->heir, hello->uuid, 16);
	if (!own && (server->options.claims || !server->options.heirs))
		peer_expire(server, peer, FAKE_END_TAKEN_OVER);
}

static struct fake_peer *claimant(struct fake_server *server, const char *member)
{
	struct fake_peer *peer;
	coord_list_each (peer, &server->peers, link)
		if (peer->claims && strcmp(peer->member, member) == 0)
			return peer;
	return NULL;
}

static void claim_refused(
	struct fake_server *server, struct fake_req *req, const struct fake_peer *peer)
{
	struct coord_row *row = req->op ? coord_op_row(req->op) : NULL;
	if (row) {
		row->data = coord_op_copy(req->op, peer->identity, peer->identity_len);
		if (loss_of(server, COORD_LOCK) == COORD_LOSS_PROCESS && peer->client)
			row->flags = COORD_ROW_LIVE;
	}
	req->status = -EEXIST;
}

static void execute_open(struct fake_server *server, struct fake_req *req)
{
	const struct fake_hello *hello = req->hello;
	uint64_t now = coord_now_ms(server->loop);
	struct fake_peer *peer;
	while (!hello->read_only && (peer = claimant(server, hello->member))) {
		bool own = memcmp(peer->uuid, hello->uuid, 16) == 0;
		if (!own && !(req->flags & COORD_OP_REPLACE_STALE)) {
			claim_refused(server, req, peer);
			return;
		}
		claim_taken(server, peer, hello);
	}
	peer = calloc(1, sizeof(*peer));
	assert(peer);
	peer->id = req->peer_id;
	peer->client = req->client;
	memcpy(peer->uuid, hello->uuid, 16);
	strcpy(peer->member, hello->member);
	peer->identity_len = hello->identity_len;
	memcpy(peer->identity, hello->identity, hello->identity_len);
	peer->claims = !hello->read_only;
	peer->expires_ms = any_leased(server) ? now + server->options.ttl_ms : UINT64_MAX;
	peer->touched_ms = now;
	peer->conn = req->conn;
	coord_list_add(&server->peers, &peer->link);
	req->ttl_ms = any_leased(server) ? server->options.ttl_ms : 0;
	expire_arm(server);
}

static bool renew_one(struct fake_server *server, struct fake_req *req, size_t i)
{
	struct fake_entry *entry;
	struct fake_hold *hold;
	coord_list_each (entry, &server->entries, link) {
		struct coord_list *lists[] = {&entry->holds, &entry->members};
		for (int l = 0; l < 2; l++)
			coord_list_each (hold, lists[l], link)
				if (memcmp(hold->owner, req->owners[i], 16) == 0) {
					hold->expires_ms = lease_end(server, hold->kind);
					return true;
				}
	}
	return false;
}

static void execute_renew(struct fake_server *server, struct fake_req *req, struct fake_peer *peer)
{
	uint64_t now = coord_now_ms(server->loop);
	/* An ensemble's leader need not have heard of this one when it is answered. */
	if (peer->expires_ms != UINT64_MAX)
		peer->expires_ms = (server->options.sessions ? peer->touched_ms : now) +
				   server->options.ttl_ms;
	peer->touched_ms = now;
	for (size_t i = 0; i < req->owners_len; i++)
		req->found[i] = renew_one(server, req, i);
	req->ttl_ms = server->options.ttl_ms;
	expire_arm(server);
}

/* ---- Groups and members ---- */

struct fake_entry *fake_group_find(struct fake_server *server, const struct fake_name *name)
{
	struct fake_entry *group = fake_entry_find(server, COORD_GROUP, name);
	return group && group->exists ? group : NULL;
}

static struct fake_hold *member_find(struct fake_entry *group, const struct fake_name *name)
{
	struct fake_hold *hold;
	if (!group)
		return NULL;
	coord_list_each (hold, &group->members, link)
		if (name_equal(&hold->member, name))
			return hold;
	return NULL;
}

static int member_data(struct fake_hold *hold, struct fake_req *req, uint64_t now_us)
{
	free(hold->data);
	hold->data = malloc(req->data_len + 1);
	assert(hold->data);
	memcpy(hold->data, req->data, req->data_len);
	hold->data_len = req->data_len;
	hold->version++;
	hold->updated_us = now_us;
	return 0;
}

static void execute_join(struct fake_server *server, struct fake_req *req, struct fake_peer *peer)
{
	struct fake_entry *group = fake_group_find(server, &req->name);
	if (!group) {
		req->status = -ENOENT;
		return;
	}
	struct fake_hold *hold = member_find(group, &req->member);
	bool same = hold && memcmp(hold->owner, req->owner, 16) == 0;
	bool stale = hold && (memcmp(hold->peer->heir, peer->uuid, 16) == 0 ||
				     ((req->flags & COORD_OP_REPLACE_STALE) &&
					     memcmp(hold->peer->uuid, peer->uuid, 16) == 0));
	if (hold && !same && !stale) {
		fake_row_member(req, hold, false);
		req->status = -EEXIST;
		return;
	}
	if (stale && !same) {
		hold_free(server, hold);
		hold = NULL;
	}
	if (!hold) {
		hold = hold_new(server, group, req);
		coord_list_add(&group->members, &hold->link);
	}
	hold->conn = req->conn;
	member_data(hold, req, coord_utc_us(server->loop));
	req->ttl_ms = lease_ms(server, COORD_MEMBER);
	hold->expires_ms = lease_end(server, COORD_MEMBER);
	expire_arm(server);
	entry_changed(server, group);
}

static void execute_member(struct fake_server *server, struct fake_req *req, struct fake_peer *peer)
{
	struct fake_entry *group = fake_group_find(server, &req->name);
	struct fake_hold *hold = member_find(group, &req->member);
	if (!hold) {
		req->status = -ENOENT;
		return;
	}
	if (req->call == COORD_CALL_MEMBER_GET) {
		fake_row_member(req, hold, true);
		return;
	}
	if (memcmp(hold->owner, req->owner, 16) != 0 && !(req->flags & COORD_OP_ADOPT)) {
		req->status = -EPERM;
		return;
	}
	if (req->call == COORD_CALL_MEMBER_UPDATE) {
		req->status = member_data(hold, req, coord_utc_us(server->loop));
		entry_changed(server, group);
	} else if (hold->peer == peer) {
		hold_release(server, hold, FAKE_END_RELEASED);
	} else {
		hold_lose(server, hold);
	}
}

static void execute_group(struct fake_server *server, struct fake_req *req)
{
	struct fake_entry *group = fake_group_find(server, &req->name);
	if (req->call == COORD_CALL_GROUP_CREATE) {
		req->status = group ? -EEXIST : 0;
		if (group)
			return;
		group = fake_entry_get(server, COORD_GROUP, &req->name);
		group->exists = true;
	} else {
		req->status = !group                               ? -ENOENT
			      : !coord_list_empty(&group->members) ? -ENOTEMPTY
								   : 0;
		if (req->status)
			return;
		group->exists = false;
		server->group_deletes++;
	}
	entry_changed(server, group);
	entry_put(group);
}

/* ---- Locks ---- */

static bool execute_lock(struct fake_server *server, struct fake_req *req, struct fake_peer *peer)
{
	if (req->kind == COORD_LEADER && !fake_group_find(server, &req->name)) {
		req->status = -ENOENT;
		return true;
	}
	struct fake_entry *entry = fake_entry_get(server, req->kind, &req->name);
	struct fake_hold *hold = hold_find(entry, req->owner);
	if (hold && hold_of(server, hold, req)) {
		hold->expires_ms = lease_end(server, req->kind);
		req->token = hold->token;
		req->ttl_ms = lease_ms(server, req->kind);
		return true;
	}
	if (coord_list_empty(&entry->queue) && hold_fits(entry, req->mode)) {
		grant(server, entry, req);
		return true;
	}
	bool can_queue = server->options.can & COORD_CAN_QUEUE;
	if ((req->flags & COORD_OP_WAIT) && can_queue && !req->cancelled) {
		assert(req->fate == FAKE_WELL || req->fate == FAKE_UNANSWERED);
		coord_list_add(&entry->queue, &req->queue_link);
		req->queued = true;
		entry_contended(server, entry, peer);
		return false;
	}
	req->status = req->cancelled ? -ECANCELED : -EBUSY;
	if (req->flags & COORD_OP_WATCH) {
		fake_entry_watch(entry, peer);
		entry_contended(server, entry, peer);
	}
	entry_put(entry);
	return true;
}

static void execute_convert(
	struct fake_server *server, struct fake_req *req, struct fake_peer *peer)
{
	struct fake_entry *entry = fake_entry_find(server, req->kind, &req->name);
	struct fake_hold *hold = hold_find(entry, req->owner);
	if (!hold || !hold_of(server, hold, req)) {
		req->status = -ESTALE;
		return;
	}
	req->token = hold->token;
	if (hold->mode == req->mode)
		return;
	if (req->mode == COORD_EXCLUSIVE && entry->holds.next->next != &entry->holds) {
		req->status = -EBUSY;
		if (req->flags & COORD_OP_WATCH)
			fake_entry_watch(entry, peer);
		entry_contended(server, entry, peer);
		return;
	}
	hold->mode = req->mode;
	tell_granted(server, hold);
	req->token = hold->token = next_token(server, req->mode);
	entry_changed(server, entry);
	queue_serve(server, entry);
}

/* Whoever waits in the queue under that owner value leaves it. */
static void withdraw(struct fake_server *server, struct fake_entry *entry, const uint8_t *owner)
{
	struct fake_req *waiting;
	coord_list_each (waiting, &entry->queue, queue_link)
		if (memcmp(waiting->owner, owner, 16) == 0) {
			fake_queue_leave(server, waiting);
			waiting->status = -ECANCELED;
			fake_reply(waiting);
			return;
		}
}

static void execute_unlock(struct fake_server *server, struct fake_req *req)
{
	struct fake_entry *entry = fake_entry_find(server, req->kind, &req->name);
	struct fake_hold *hold = hold_find(entry, req->owner);
	if (hold)
		hold_release(server, hold, FAKE_END_RELEASED);
	else if (entry)
		withdraw(server, entry, req->owner);
}

static void execute_check(struct fake_server *server, struct fake_req *req)
{
	struct fake_entry *entry = fake_entry_find(server, req->kind, &req->name);
	struct fake_hold *hold = hold_find(entry, req->owner);
	if (!hold || !hold_of(server, hold, req)) {
		req->status = -ESTALE;
		if (entry && server->options.sessions)
			withdraw(server, entry, req->owner);
		return;
	}
	hold->expires_ms = lease_end(server, req->kind);
	req->ttl_ms = lease_ms(server, req->kind);
	req->token = hold->token;
	expire_arm(server);
}

static void execute_break(struct fake_server *server, struct fake_req *req)
{
	struct fake_entry *entry = fake_entry_find(server, req->kind, &req->name);
	if (!entry || coord_list_empty(&entry->holds)) {
		req->status = -ENOENT;
		return;
	}
	/* Only those who hold now; the queue moves up behind them. */
	size_t count = 0;
	struct fake_hold *hold;
	coord_list_each (hold, &entry->holds, link)
		count++;
	while (count--) {
		entry = fake_entry_find(server, req->kind, &req->name);
		hold_lose(server, coord_container(entry->holds.next, struct fake_hold, link));
	}
}

void fake_unwatch(struct fake_server *server, uint64_t peer_id, enum coord_kind kind,
	const struct fake_name *name)
{
	struct fake_entry *entry = fake_entry_find(server, kind, name);
	struct fake_watch *watch;
	if (!entry)
		return;
	coord_list_each (watch, &entry->watches, link)
		if (watch->peer->id == peer_id) {
			coord_list_remove(&watch->link);
			free(watch);
			entry_put(entry);
			return;
		}
}

/* Of a session that is over: what has a lease of its own can still be asked for and given back. */
static void execute_late(struct fake_server *server, struct fake_req *req)
{
	struct fake_peer *peer;
	req->expired = true;
	if (!server->options.claims)
		return;
	if (req->call == COORD_CALL_UNLOCK || req->call == COORD_CALL_LOCK_CHECK) {
		req->expired = false;
		if (req->call == COORD_CALL_UNLOCK)
			execute_unlock(server, req);
		else
			execute_check(server, req);
	} else if (req->call == COORD_CALL_CLOSE) {
		coord_list_each (peer, &server->peers, link)
			if (peer->id == req->peer_id) {
				peer_end(server, peer, FAKE_END_RELEASED);
				return;
			}
	}
}

bool fake_execute(struct fake_server *server, struct fake_req *req)
{
	if (req->call == COORD_CALL_OPEN) {
		execute_open(server, req);
		return true;
	}
	struct fake_peer *peer = fake_peer_find(server, req->peer_id);
	if (!peer) {
		execute_late(server, req);
		return true;
	}
	switch (req->call) {
	case COORD_CALL_CLOSE:
		peer_end(server, peer, FAKE_END_RELEASED);
		return true;
	case COORD_CALL_RENEW:
		execute_renew(server, req, peer);
		return true;
	case COORD_CALL_GROUP_CREATE:
	case COORD_CALL_GROUP_DELETE:
		execute_group(server, req);
		return true;
	case COORD_CALL_GROUP_LIST:
		fake_list(server, req, COORD_GROUP);
		return true;
	case COORD_CALL_GROUP_READ:
		fake_group_read(server, req, peer);
		return true;
	case COORD_CALL_MEMBER_JOIN:
		execute_join(server, req, peer);
		return true;
	case COORD_CALL_MEMBER_UPDATE:
	case COORD_CALL_MEMBER_LEAVE:
	case COORD_CALL_MEMBER_GET:
		execute_member(server, req, peer);
		return true;
	case COORD_CALL_LOCK:
		return execute_lock(server, req, peer);
	case COORD_CALL_CONVERT:
		execute_convert(server, req, peer);
		return true;
	case COORD_CALL_UNLOCK:
		execute_unlock(server, req);
		return true;
	case COORD_CALL_LOCK_CHECK:
		execute_check(server, req);
		return true;
	case COORD_CALL_LOCK_READ:
		fake_lock_read(server, req, peer);
		return true;
	case COORD_CALL_LOCK_LIST:
		fake_list(server, req, req->kind);
		return true;
	case COORD_CALL_LOCK_BREAK:
		execute_break(server, req);
		return true;
	case COORD_CALL_OPEN:
	case COORD_CALLS:
		break;
	}
	assert(false);
	return true;
}

void fake_server_clear(struct fake_server *server)
{
	while (!coord_list_empty(&server->peers))
		peer_end(server, coord_container(server->peers.next, struct fake_peer, link),
			FAKE_END_EXPIRED);
	struct fake_entry *entry, *next;
	coord_list_each_safe (entry, next, &server->entries, link) {
		entry->exists = false;
		entry_put(entry);
	}
	coord_timer_stop(server->loop, &server->expire);
}
