/* SPDX-License-Identifier: Apache-2.0 */
/* What tests ask of the fake. See fake.h. */
#include "tests/lib/fake_server.h"

static bool is_of(const struct fake_peer *peer, const uint8_t uuid[16])
{
	return peer && memcmp(peer->uuid, uuid, 16) == 0;
}

/* A hold of the daemon that is that mount now; NULL: none. */
static struct fake_hold *mount_hold(struct fake_server *server, const char *member,
	enum coord_kind kind, struct coord_bytes name, enum coord_mode mode)
{
	const struct fake_client *client = fake_client_find(server, member);
	struct fake_entry *entry;
	struct fake_hold *hold;
	if (!client)
		return NULL;
	coord_list_each (entry, &server->entries, link)
		coord_list_each (hold, &entry->holds, link)
			if (entry->kind == kind &&
				coord_bytes_equal(fake_bytes(&entry->name), name) &&
				is_of(hold->peer, coord_session_uuid(client->session)) &&
				(mode == COORD_NONE || hold->mode == mode))
				return hold;
	return NULL;
}

bool fake_holds(struct fake_server *server, const char *member, enum coord_kind kind,
	struct coord_bytes name, enum coord_mode mode)
{
	return mount_hold(server, member, kind, name, mode);
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
	const struct fake_client *client = fake_client_find(server, member);
	return client && client->up && client->open && client->broken < client->conn;
}

bool fake_telling(struct fake_server *server, const char *member)
{
	const struct fake_client *client = fake_client_find(server, member);
	return client && client->telling;
}

const uint8_t *fake_uuid(struct fake_server *server, const char *member)
{
	const struct fake_client *client = fake_client_find(server, member);
	return client ? coord_session_uuid(client->session) : NULL;
}

uint64_t fake_breaks(struct fake_server *server, const char *member)
{
	const struct fake_client *client = fake_client_find(server, member);
	return client ? client->breaks : 0;
}

void fake_observe(struct fake_server *server, const struct fake_observer *observer)
{
	server->observer = observer;
}

bool fake_owner(
	struct fake_server *server, const char *member, struct coord_key key, uint8_t ret_owner[16])
{
	const struct fake_hold *hold = mount_hold(server, member, key.kind, key.name, COORD_NONE);
	if (hold)
		memcpy(ret_owner, hold->owner, 16);
	return hold;
}

bool fake_stale(struct fake_server *server, const char *by, struct coord_bytes group,
	struct coord_bytes member)
{
	const uint8_t *uuid = fake_uuid(server, by);
	struct fake_entry *entry;
	struct fake_hold *hold;
	coord_list_each (entry, &server->entries, link)
		coord_list_each (hold, &entry->members, link)
			if (coord_bytes_equal(fake_bytes(&entry->name), group) &&
				coord_bytes_equal(fake_bytes(&hold->member), member))
				return !is_of(hold->peer, uuid) &&
				       memcmp(hold->peer->heir, uuid, 16) == 0;
	return false;
}

static bool counts(const struct fake_peer *peer, const uint8_t uuid[16], bool all)
{
	static const uint8_t nobody[16];
	bool lost = peer && (peer->ended || memcmp(peer->heir, nobody, 16) != 0);
	return peer && is_of(peer, uuid) && (all || !lost);
}

static size_t entry_traces(struct fake_server *server, const struct fake_entry *entry,
	const uint8_t uuid[16], bool all)
{
	size_t n = 0;
	const struct fake_hold *hold;
	const struct fake_req *req;
	const struct fake_watch *watch;
	coord_list_each (hold, &entry->holds, link)
		n += counts(hold->peer, uuid, all);
	coord_list_each (hold, &entry->members, link)
		n += counts(hold->peer, uuid, all);
	coord_list_each (watch, &entry->watches, link)
		n += counts(watch->peer, uuid, all);
	coord_list_each (req, &entry->queue, queue_link)
		n += counts(fake_peer_find(server, req->peer_id), uuid, all);
	return n;
}

size_t fake_traces_of(struct fake_server *server, const uint8_t uuid[16], bool all)
{
	size_t n = 0;
	const struct fake_peer *peer;
	const struct fake_entry *entry;
	const struct fake_req *req;
	coord_list_each (peer, &server->peers, link)
		n += counts(peer, uuid, all);
	coord_list_each (entry, &server->entries, link)
		n += entry_traces(server, entry, uuid, all);
	coord_list_each (req, &server->loose, link)
		n += all && req->hello && memcmp(req->hello->uuid, uuid, 16) == 0;
	return n;
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
