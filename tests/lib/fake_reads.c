/* SPDX-License-Identifier: Apache-2.0 */
/* The fake's server: what reads answer. See fake.h. */
#include "tests/lib/fake_server.h"

static struct coord_row *row_add(struct fake_req *req, const struct fake_hold *hold)
{
	struct coord_row *row = req->op ? coord_op_row(req->op) : NULL;
	if (!row)
		return NULL;
	memcpy(row->owner, hold->owner, 16);
	row->mode = hold->mode;
	row->token = hold->token;
	row->created_us = hold->since_us;
	row->updated_us = hold->updated_us;
	row->born = hold->born;
	row->version = hold->version;
	return row;
}

void fake_row_member(struct fake_req *req, const struct fake_hold *hold, bool with_data)
{
	struct coord_row *row = row_add(req, hold);
	if (!row)
		return;
	row->name = coord_op_copy(req->op, hold->member.data, hold->member.len);
	if (with_data)
		row->data = coord_op_copy(req->op, hold->data, hold->data_len);
}

static void row_lock(struct fake_server *server, struct fake_req *req, struct fake_entry *entry)
{
	struct fake_hold *hold = coord_container(entry->holds.next, struct fake_hold, link);
	struct coord_row *row = row_add(req, hold);
	if (!row)
		return;
	row->name = coord_op_copy(req->op, entry->name.data, entry->name.len);
	if (entry->kind == COORD_LOCK || (server->options.can & COORD_CAN_LEADER_ID))
		row->data = coord_op_copy(req->op, hold->member.data, hold->member.len);
	else
		row->flags |= COORD_ROW_NO_ID;
	for (struct coord_list *at = entry->holds.next; at != &entry->holds; at = at->next)
		row->holders++;
}

void fake_group_read(struct fake_server *server, struct fake_req *req, struct fake_peer *peer)
{
	if (req->flags & COORD_OP_WATCH)
		fake_entry_watch(fake_entry_get(server, COORD_GROUP, &req->name), peer);
	struct fake_entry *group = fake_group_find(server, &req->name);
	struct fake_hold *hold;
	if (!group) {
		req->status = -ENOENT;
		return;
	}
	coord_list_each (hold, &group->members, link)
		fake_row_member(req, hold, req->flags & COORD_OP_WITH_DATA);
	struct fake_entry *leader = fake_entry_find(server, COORD_LEADER, &req->name);
	if (!leader || coord_list_empty(&leader->holds))
		return;
	hold = coord_container(leader->holds.next, struct fake_hold, link);
	struct coord_row *row = row_add(req, hold);
	if (!row)
		return;
	row->flags = COORD_ROW_LEADER;
	if (server->options.can & COORD_CAN_LEADER_ID)
		row->name = coord_op_copy(req->op, hold->member.data, hold->member.len);
	else
		row->flags |= COORD_ROW_NO_ID;
}

void fake_lock_read(struct fake_server *server, struct fake_req *req, struct fake_peer *peer)
{
	if (req->flags & COORD_OP_WATCH)
		fake_entry_watch(fake_entry_get(server, req->kind, &req->name), peer);
	struct fake_entry *entry = fake_entry_find(server, req->kind, &req->name);
	if (entry && !coord_list_empty(&entry->holds))
		row_lock(server, req, entry);
}

/* Pages of three, so that pages are seen to work. */
void fake_list(struct fake_server *server, struct fake_req *req, enum coord_kind kind)
{
	uint64_t after = 0, rows = 0;
	if (!req->op)
		return;
	if (req->op->cursor.len == sizeof(after))
		memcpy(&after, req->op->cursor.data, sizeof(after));
	struct fake_entry *entry;
	coord_list_each (entry, &server->entries, link) {
		bool shown = kind == COORD_GROUP ? entry->exists : !coord_list_empty(&entry->holds);
		if (entry->kind != kind || !shown || entry->serial <= after)
			continue;
		if (rows++ == 3) {
			req->op->next_cursor = coord_op_copy(req->op, &after, sizeof(after));
			return;
		}
		after = entry->serial;
		if (kind != COORD_GROUP) {
			row_lock(server, req, entry);
			continue;
		}
		struct coord_row *row = coord_op_row(req->op);
		if (row)
			row->name = coord_op_copy(req->op, entry->name.data, entry->name.len);
	}
}
