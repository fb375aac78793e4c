/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory:// and zake:// -- a store inside the daemon, for tests, for trying out, and for coordinating
 * the processes of one host through one mount.
 *
 * A store is found by the URL's host and path; sessions of one process with the same URL see each
 * other. Every call is answered at once.
 *
 * Ownership: what a session holds lies in the scratch of the core's grants (memory_hold), linked into
 * its item and into its session, so that acquiring and releasing allocate nothing. Members own their
 * data.
 */
#include "drivers/memory/store.h"

#include <assert.h>
#include <stdio.h>

#define PAGE_ROWS 1000
#define WRITER_FIRST_MS 1000 /* how long a failed exclusive try keeps new sharers waiting */

/* The item that op is about, watched if the op says so. NULL: there is none, or no memory (*ret_r). */
static struct memory_item *op_item(
	struct memory_session *ms, struct coord_op *op, enum coord_kind kind, int *ret_r)
{
	*ret_r = 0;
	if (!(op->flags & COORD_OP_WATCH))
		return memory_item_find(ms->store, kind, op->key.name);
	struct memory_item *item = memory_item_get(ms->store, kind, op->key.name);
	*ret_r = item ? memory_watch_arm(ms, item) : -ENOMEM;
	if (item && *ret_r)
		memory_item_put(ms->store, item);
	return *ret_r ? NULL : item;
}

/* ---- Holds ---- */

static void hold_link(struct memory_hold *hold, struct memory_session *ms, struct memory_item *item,
	struct coord_grant *grant)
{
	assert(!hold->session);
	hold->session = ms;
	hold->grant = grant;
	hold->item = item;
	hold->mode = grant->mode;
	hold->contended = false;
	hold->since_us = coord_utc_us(ms->store->loop);
	coord_list_init(&hold->in_contended);
	coord_list_init(&hold->in_item);
	coord_list_add(&ms->holds, &hold->in_session);
}

static void hold_unlink(struct memory_hold *hold)
{
	coord_list_remove(&hold->in_contended);
	coord_list_remove(&hold->in_item);
	coord_list_remove(&hold->in_session);
	hold->session = NULL;
}

/* Takes a holder off its lock and wakes who waits for it. */
static void lock_release(struct memory_hold *hold, struct memory_session *by)
{
	struct memory_store *store = hold->session->store;
	struct memory_item *item = hold->item;
	hold_unlink(hold);
	if (--item->count == 0)
		coord_list_remove(&item->link);
	memory_lock_changed(store, item, by);
	memory_item_put(store, item);
}

static void member_remove(struct memory_member *member, struct memory_session *by)
{
	struct memory_hold *hold = member->hold;
	struct memory_store *store = hold->session->store;
	struct memory_item *group = hold->item;
	hold->member = NULL;
	hold_unlink(hold);
	coord_list_remove(&member->link);
	group->count--;
	memory_remove(store, &member->node);
	free(member->data);
	free(member);
	memory_item_changed(store, group, by);
}

static void hold_release(struct memory_hold *hold, struct memory_session *by)
{
	if (hold->member)
		member_remove(hold->member, by);
	else
		lock_release(hold, by);
}

/* Takes what is held away from its holder, and says so. */
static void hold_lose(struct memory_hold *hold, struct memory_session *by)
{
	struct coord_session *session = hold->session->session;
	struct coord_grant *grant = hold->grant;
	hold_release(hold, by);
	coord_grant_lost(session, grant->key, grant->owner, grant->epoch);
}

static void memory_grant_done(struct coord_session *session, struct coord_grant *grant)
{
	(void)session;
	struct memory_hold *hold = coord_grant_data(grant);
	if (hold->session)
		hold_release(hold, hold->session);
}

/* ---- Sessions ---- */

/* The store's name: host and path. Python's zake ignores both. */
static int store_name(const struct coord_url *url, char **ret)
{
	if (url->scheme && strcmp(url->scheme, "zake") == 0)
		return asprintf(ret, "%s", "") < 0 ? -ENOMEM : 0;
	const char *path = url->path && strcmp(url->path, "/") != 0 ? url->path : "";
	return asprintf(ret, "%s%s", url->netloc ? url->netloc : "", path) < 0 ? -ENOMEM : 0;
}

static int memory_configure(
	struct coord_session *session, const struct coord_config *config, char **ret_error)
{
	struct memory_session *ms = coord_session_data(session);
	_cleanup_free_ char *name = NULL;
	int r = store_name(&config->url, &name);
	if (!r)
		r = memory_store_get(coord_session_loop(session), name, &ms->store);
	if (r) {
		*ret_error = strdup(r == -EBUSY ? "this store is in use on another event loop"
						: "out of memory");
		return r;
	}
	ms->session = session;
	coord_list_init(&ms->link);
	coord_list_init(&ms->holds);
	coord_list_init(&ms->watches);
	return 0;
}

static void session_release(struct memory_session *ms)
{
	while (!coord_list_empty(&ms->holds))
		hold_release(coord_container(ms->holds.next, struct memory_hold, in_session), ms);
	while (!coord_list_empty(&ms->watches))
		memory_watch_free(
			coord_container(ms->watches.next, struct memory_watch, in_session));
	coord_list_remove(&ms->link);
	ms->claims = false;
}

static void memory_session_free(struct coord_session *session)
{
	struct memory_session *ms = coord_session_data(session);
	if (!ms->store)
		return;
	session_release(ms);
	memory_store_put(ms->store);
	ms->store = NULL;
}

static struct memory_session *claimant(struct memory_session *ms, const char *member)
{
	struct memory_session *other;
	coord_list_each (other, &ms->store->sessions, link) {
		if (other != ms && other->claims &&
			strcmp(coord_session_config(other->session)->member, member) == 0)
			return other;
	}
	return NULL;
}

/* Answers with who has the member id. It is open in this very process, so it is surely alive. */
static int claim_refuse(struct coord_op *op, struct memory_session *other)
{
	const struct coord_config *config = coord_session_config(other->session);
	char text[COORD_IDENTITY_MAX];
	size_t len = coord_identity_format(&config->identity, text);
	struct coord_row *row = coord_op_row(op);
	if (!row)
		return -ENOMEM;
	row->name = coord_op_copy(op, config->member, strlen(config->member));
	row->data = coord_op_copy(op, text, len);
	row->flags = COORD_ROW_LIVE;
	return -EEXIST;
}

static void memory_open(struct coord_session *session, struct coord_op *op)
{
	struct memory_session *ms = coord_session_data(session);
	const struct coord_config *config = coord_session_config(session);
	session_release(ms);
	if (!config->read_only) {
		struct memory_session *other = claimant(ms, config->member);
		if (other)
			return coord_op_fail(op, claim_refuse(op, other));
		ms->claims = true;
	}
	coord_list_add(&ms->store->sessions, &ms->link);
	const uint8_t *uuid = coord_session_uuid(session);
	char id[33];
	for (int i = 0; i < 16; i++)
		sprintf(id + 2 * i, "%02x", uuid[i]);
	coord_session_set_id(session, id);
	coord_op_done(op);
}

static void memory_close(struct coord_session *session, struct coord_op *op)
{
	session_release(coord_session_data(session));
	coord_op_done(op);
}

static int memory_map_name(struct coord_session *session, enum coord_kind kind,
	struct coord_bytes name, char *ret_key, size_t *ret_len)
{
	(void)session;
	(void)kind;
	if (!name.len)
		return -EINVAL;
	if (name.len > MEMORY_NAME_MAX)
		return -ENAMETOOLONG;
	memcpy(ret_key, name.data, name.len);
	*ret_len = name.len;
	return 0;
}

/* ---- Lists ---- */

/* The item after the one that the cursor names. Serials grow along the list. */
static struct memory_item *page_start(
	struct memory_store *store, enum coord_kind kind, struct coord_op *op)
{
	uint64_t last = 0;
	if (op->cursor.len == sizeof(last))
		memcpy(&last, op->cursor.data, sizeof(last));
	struct memory_item *item;
	coord_list_each (item, &store->listed[kind], link) {
		if (item->serial > last)
			break;
	}
	return item;
}

/* Lists a page of items, each by its fill function. */
static void list_page(struct memory_store *store, enum coord_kind kind, struct coord_op *op,
	int (*fill)(struct coord_op *, struct memory_item *))
{
	struct memory_item *item = page_start(store, kind, op);
	uint64_t last = 0;
	for (size_t rows = 0; &item->link != &store->listed[kind]; rows++) {
		if (rows == PAGE_ROWS) {
			op->next_cursor = coord_op_copy(op, &last, sizeof(last));
			if (!op->next_cursor.data)
				return coord_op_fail(op, -ENOMEM);
			break;
		}
		int r = fill(op, item);
		if (r)
			return coord_op_fail(op, r);
		last = item->serial;
		item = coord_container(item->link.next, struct memory_item, link);
	}
	op->revision = store->revision;
	coord_op_done(op);
}

static bool copy_to(struct coord_op *op, struct coord_bytes from, struct coord_bytes *ret)
{
	*ret = coord_op_copy(op, from.data, from.len);
	return ret->data || !from.len;
}

/* ---- Groups ---- */

static struct memory_item *group_find(struct memory_store *store, struct coord_bytes name)
{
	struct memory_item *group = memory_item_find(store, COORD_GROUP, name);
	return group && group->exists ? group : NULL;
}

static void memory_group_create(struct coord_session *session, struct coord_op *op)
{
	struct memory_session *ms = coord_session_data(session);
	struct memory_item *group = memory_item_get(ms->store, COORD_GROUP, op->key.name);
	if (!group)
		return coord_op_fail(op, -ENOMEM);
	if (group->exists)
		return coord_op_fail(op, -EEXIST);
	group->exists = true;
	memory_item_list(ms->store, group);
	memory_item_changed(ms->store, group, ms);
	coord_op_done(op);
}

static void memory_group_delete(struct coord_session *session, struct coord_op *op)
{
	struct memory_session *ms = coord_session_data(session);
	struct memory_item *group = group_find(ms->store, op->key.name);
	if (!group)
		return coord_op_fail(op, -ENOENT);
	if (group->count)
		return coord_op_fail(op, -ENOTEMPTY);
	group->exists = false;
	coord_list_remove(&group->link);
	memory_item_changed(ms->store, group, ms);
	memory_item_put(ms->store, group);
	coord_op_done(op);
}

static int group_row(struct coord_op *op, struct memory_item *group)
{
	struct coord_row *row = coord_op_row(op);
	return row && copy_to(op, memory_name(&group->node), &row->name) ? 0 : -ENOMEM;
}

static void memory_group_list(struct coord_session *session, struct coord_op *op)
{
	struct memory_session *ms = coord_session_data(session);
	list_page(ms->store, COORD_GROUP, op, group_row);
}

static int member_row(struct coord_op *op, const struct memory_member *member, bool with_data)
{
	struct coord_row *row = coord_op_row(op);
	if (!row || !copy_to(op, memory_name(&member->node), &row->name))
		return -ENOMEM;
	struct coord_bytes data = {member->data, member->data_len};
	if (with_data && !copy_to(op, data, &row->data))
		return -ENOMEM;
	memcpy(row->owner, member->owner, sizeof(row->owner));
	row->born = member->born;
	row->version = member->version;
	row->created_us = member->joined_us;
	row->updated_us = member->updated_us;
	return 0;
}

static int lock_row(struct coord_op *op, struct memory_item *item)
{
	struct memory_hold *hold = coord_container(item->holders.next, struct memory_hold, in_item);
	struct coord_row *row = coord_op_row(op);
	if (!row || !copy_to(op, memory_name(&item->node), &row->name) ||
		!copy_to(op, hold->grant->member, &row->data))
		return -ENOMEM;
	memcpy(row->owner, hold->grant->owner, sizeof(row->owner));
	row->mode = hold->mode;
	row->token = hold->token;
	row->created_us = hold->since_us;
	row->holders = item->count;
	return 0;
}

static int leader_row(struct coord_op *op, struct memory_item *leader)
{
	struct memory_hold *hold =
		coord_container(leader->holders.next, struct memory_hold, in_item);
	struct coord_row *row = coord_op_row(op);
	if (!row || !copy_to(op, hold->grant->member, &row->name))
		return -ENOMEM;
	memcpy(row->owner, hold->grant->owner, sizeof(row->owner));
	row->flags = COORD_ROW_LEADER;
	row->mode = hold->mode;
	row->token = hold->token;
	row->created_us = hold->since_us;
	return 0;
}

static void memory_group_read(struct coord_session *session, struct coord_op *op)
{
	struct memory_session *ms = coord_session_data(session);
	int r;
	struct memory_item *group = op_item(ms, op, COORD_GROUP, &r);
	if (!group || !group->exists)
		return coord_op_fail(op, r ? r : -ENOENT);
	op->revision = ms->store->revision;
	if (op->flags & COORD_OP_BARE)
		return coord_op_done(op);
	struct memory_member *member;
	coord_list_each (member, &group->holders, link) {
		r = member_row(op, member, op->flags & COORD_OP_WITH_DATA);
		if (r)
			return coord_op_fail(op, r);
	}
	struct memory_item *leader = memory_item_find(ms->store, COORD_LEADER, op->key.name);
	if (leader && leader->count)
		r = leader_row(op, leader);
	coord_op_fail(op, r);
}

/* ---- Members ---- */

static struct memory_member *member_find(
	struct memory_store *store, struct memory_item *group, struct coord_bytes name)
{
	return (struct memory_member *)(void *)memory_find(store, COORD_MEMBER, group, name);
}

static int member_set_data(
	struct memory_store *store, struct memory_member *member, struct coord_bytes data)
{
	char *copy = malloc(data.len ? data.len : 1);
	if (!copy)
		return -ENOMEM;
	if (data.len)
		memcpy(copy, data.data, data.len);
	free(member->data);
	member->data = copy;
	member->data_len = data.len;
	member->version++;
	member->updated_us = coord_utc_us(store->loop);
	return 0;
}

static int member_new(struct memory_session *ms, struct memory_item *group, struct coord_op *op)
{
	struct memory_member *member = calloc(1, sizeof(*member) + op->member.len);
	int r = member ? member_set_data(ms->store, member, op->data) : -ENOMEM;
	if (r) {
		free(member);
		return r;
	}
	struct memory_hold *hold = coord_grant_data(op->grant);
	hold_link(hold, ms, group, op->grant);
	hold->member = member;
	member->hold = hold;
	member->born = ++ms->store->serial;
	member->joined_us = member->updated_us;
	memcpy(member->owner, op->grant->owner, sizeof(member->owner));
	member->node.name = member->name;
	memory_add(ms->store, &member->node, COORD_MEMBER, group, op->member);
	coord_list_add(&group->holders, &member->link);
	group->count++;
	memory_item_changed(ms->store, group, ms);
	return 0;
}

static void memory_member_join(struct coord_session *session, struct coord_op *op)
{
	struct memory_session *ms = coord_session_data(session);
	struct memory_item *group = group_find(ms->store, op->key.name);
	if (!group)
		return coord_op_fail(op, -ENOENT);
	struct memory_member *member = member_find(ms->store, group, op->member);
	if (member) {
		if (!(op->flags & COORD_OP_REPLACE_STALE) || member->hold->session != ms) {
			if (member_row(op, member, false))
				return coord_op_fail(op, -ENOMEM);
			return coord_op_fail(op, -EEXIST);
		}
		member_remove(member, ms);
	}
	coord_op_fail(op, member_new(ms, group, op));
}

/* The member that an update or a leave is about: 0, or why not. */
static int member_ours(struct memory_session *ms, struct coord_op *op, struct memory_member **ret)
{
	struct memory_item *group = group_find(ms->store, op->key.name);
	struct memory_member *member = group ? member_find(ms->store, group, op->member) : NULL;
	if (!member)
		return -ENOENT;
	bool ours = op->grant ? member->hold->grant == op->grant : op->flags & COORD_OP_ADOPT;
	if (!ours)
		return -EPERM;
	*ret = member;
	return 0;
}

static void memory_member_update(struct coord_session *session, struct coord_op *op)
{
	struct memory_session *ms = coord_session_data(session);
	struct memory_member *member;
	int r = member_ours(ms, op, &member);
	if (!r)
		r = member_set_data(ms->store, member, op->data);
	if (!r)
		memory_item_changed(ms->store, member->hold->item, ms);
	coord_op_fail(op, r);
}

static void memory_member_leave(struct coord_session *session, struct coord_op *op)
{
	struct memory_session *ms = coord_session_data(session);
	struct memory_member *member;
	int r = member_ours(ms, op, &member);
	if (!r && op->grant)
		member_remove(member, ms);
	else if (!r)
		hold_lose(member->hold, ms);
	coord_op_fail(op, r);
}

static void memory_member_get(struct coord_session *session, struct coord_op *op)
{
	struct memory_session *ms = coord_session_data(session);
	struct memory_item *group = group_find(ms->store, op->key.name);
	struct memory_member *member = group ? member_find(ms->store, group, op->member) : NULL;
	coord_op_fail(op, member ? member_row(op, member, true) : -ENOENT);
}

/* ---- Locks and leaderships ---- */

/* A token for one more holder: even and growing for exclusive ones, and one for all the sharers above
 * the last of those. By the clock, so that it also grows from one process to the next. */
static uint64_t next_token(struct memory_store *store, const struct memory_item *item,
	enum coord_mode mode, uint64_t now_us)
{
	if (mode == COORD_SHARED) {
		struct memory_hold *first =
			coord_container(item->holders.next, struct memory_hold, in_item);
		return item->count && first->mode == COORD_SHARED ? first->token
								  : store->last_token + 1;
	}
	uint64_t even = now_us & ~(uint64_t)1;
	store->last_token = even > store->last_token + 2 ? even : store->last_token + 2;
	return store->last_token;
}

/* Must it wait? A new sharer that can wait queues up behind a session that waits to write. */
static bool lock_busy(struct memory_session *ms, struct memory_item *item, struct coord_op *op)
{
	if (!item->count)
		return false;
	struct memory_hold *first =
		coord_container(item->holders.next, struct memory_hold, in_item);
	if (op->grant->mode != COORD_SHARED || first->mode != COORD_SHARED)
		return true;
	return (op->flags & COORD_OP_WATCH) && item->writer && item->writer != ms->session &&
	       coord_now_ms(ms->store->loop) < item->writer_until_ms;
}

static void lock_refuse(struct memory_session *ms, struct memory_item *item, struct coord_op *op)
{
	if (op->flags & COORD_OP_WATCH) {
		if (memory_watch_arm(ms, item))
			return coord_op_fail(op, -ENOMEM);
		if (op->grant->mode == COORD_EXCLUSIVE) {
			item->writer = ms->session;
			item->writer_until_ms = coord_now_ms(ms->store->loop) + WRITER_FIRST_MS;
		}
		memory_item_contended(ms->store, item, ms);
		op->retry_ms = WRITER_FIRST_MS;
	}
	coord_op_fail(op, -EBUSY);
}

static void memory_lock(struct coord_session *session, struct coord_op *op)
{
	struct memory_session *ms = coord_session_data(session);
	struct memory_store *store = ms->store;
	struct coord_grant *grant = op->grant;
	enum coord_kind kind = grant->key.kind;
	if (kind == COORD_LEADER && grant->mode != COORD_EXCLUSIVE)
		return coord_op_fail(op, -EINVAL);
	if (kind == COORD_LEADER && !group_find(store, grant->key.name))
		return coord_op_fail(op, -ENOENT);
	struct memory_item *item = memory_item_get(store, kind, grant->key.name);
	if (!item)
		return coord_op_fail(op, -ENOMEM);
	if (lock_busy(ms, item, op))
		return lock_refuse(ms, item, op);
	struct memory_hold *hold = coord_grant_data(grant);
	hold_link(hold, ms, item, grant);
	hold->token = grant->token = next_token(store, item, grant->mode, hold->since_us);
	if (item->count++ == 0)
		memory_item_list(store, item);
	coord_list_add(&item->holders, &hold->in_item);
	if (item->writer == session)
		item->writer = NULL;
	memory_lock_changed(store, item, ms);
	coord_op_done(op);
}

static void memory_convert(struct coord_session *session, struct coord_op *op)
{
	struct memory_session *ms = coord_session_data(session);
	struct memory_hold *hold = coord_grant_data(op->grant);
	if (!hold->session)
		return coord_op_fail(op, -ESTALE);
	struct memory_item *item = hold->item;
	if (op->mode == hold->mode)
		return coord_op_done(op);
	if (op->mode == COORD_EXCLUSIVE && item->count > 1) {
		if ((op->flags & COORD_OP_WATCH) && memory_watch_arm(ms, item))
			return coord_op_fail(op, -ENOMEM);
		memory_item_contended(ms->store, item, ms);
		return coord_op_fail(op, -EBUSY);
	}
	hold->token = op->grant->token =
		next_token(ms->store, item, op->mode, coord_utc_us(ms->store->loop));
	hold->mode = op->mode;
	memory_lock_changed(ms->store, item, ms);
	coord_op_done(op);
}

static void memory_unlock(struct coord_session *session, struct coord_op *op)
{
	struct memory_hold *hold = coord_grant_data(op->grant);
	if (hold->session)
		lock_release(hold, coord_session_data(session));
	coord_op_done(op);
}

static void memory_lock_check(struct coord_session *session, struct coord_op *op)
{
	(void)session;
	struct memory_hold *hold = coord_grant_data(op->grant);
	if (!hold->session)
		return coord_op_fail(op, -ESTALE);
	op->grant->token = hold->token;
	coord_op_done(op);
}

static void memory_lock_read(struct coord_session *session, struct coord_op *op)
{
	struct memory_session *ms = coord_session_data(session);
	int r;
	struct memory_item *item = op_item(ms, op, op->key.kind, &r);
	if (item && item->count)
		r = lock_row(op, item);
	op->revision = ms->store->revision;
	coord_op_fail(op, r);
}

static void memory_lock_list(struct coord_session *session, struct coord_op *op)
{
	struct memory_session *ms = coord_session_data(session);
	list_page(ms->store, op->key.kind, op, lock_row);
}

static void memory_lock_break(struct coord_session *session, struct coord_op *op)
{
	struct memory_session *ms = coord_session_data(session);
	struct memory_item *item = memory_item_find(ms->store, op->key.kind, op->key.name);
	if (!item || !item->count)
		return coord_op_fail(op, -ENOENT);
	/* Those who hold now. Each loss may change the table: look again for the next. */
	for (size_t left = item->count; left && item && item->count; left--) {
		hold_lose(coord_container(item->holders.next, struct memory_hold, in_item), ms);
		item = memory_item_find(ms->store, op->key.kind, op->key.name);
	}
	coord_op_done(op);
}

static void memory_unwatch(struct coord_session *session, struct coord_key key)
{
	struct memory_session *ms = coord_session_data(session);
	struct memory_item *item = memory_item_find(ms->store, key.kind, key.name);
	if (!item)
		return;
	struct memory_watch *watch;
	coord_list_each (watch, &item->watches, in_item) {
		if (watch->session == ms) {
			memory_watch_free(watch);
			return;
		}
	}
}

static const char *const memory_schemes[] = {"memory", "zake", NULL};

static const struct coord_param memory_params[] = {
	{.name = "namespace",
		.type = COORD_PARAM_STRING,
		.help = "of Python's zake; the host and path name a store here",
		.flags = COORD_PARAM_IGNORED},
	{.name = "storage",
		.type = COORD_PARAM_STRING,
		.help = "of Python's zake: an object of its process",
		.flags = COORD_PARAM_IGNORED},
	{.name = NULL},
};

const struct coord_driver coord_driver_memory = {
	.abi = COORD_DRIVER_ABI,
	.name = "memory",
	.help = "a store inside the daemon, gone with it",
	.schemes = memory_schemes,
	.params = memory_params,
	.characteristics = COORD_NON_TIMEOUT_BASED | COORD_DISTRIBUTED_ACROSS_THREADS |
			   COORD_DISTRIBUTED_ACROSS_PROCESSES | COORD_LINEARIZABLE |
			   COORD_SEQUENTIAL | COORD_CAUSAL | COORD_SERIALIZABLE |
			   COORD_SAME_VIEW_UNDER_PARTITIONS | COORD_SAME_VIEW_ACROSS_CLIENTS,
	.can = COORD_CAN_SHARED | COORD_CAN_CONVERT | COORD_CAN_NOTIFY | COORD_CAN_LIST_ALL |
	       COORD_CAN_BREAK | COORD_CAN_LEADER_ID | COORD_CAN_ORDERED | COORD_CAN_GROUPS,
	.loss = {COORD_LOSS_PROCESS, COORD_LOSS_PROCESS, COORD_LOSS_PROCESS, COORD_LOSS_PROCESS},
	.session_size = sizeof(struct memory_session),
	.grant_size = sizeof(struct memory_hold),
	.value_max = 1u << 20,
	.configure = memory_configure,
	.session_free = memory_session_free,
	.grant_done = memory_grant_done,
	.map_name = memory_map_name,
	.open = memory_open,
	.close = memory_close,
	.group_create = memory_group_create,
	.group_delete = memory_group_delete,
	.group_list = memory_group_list,
	.group_read = memory_group_read,
	.member_join = memory_member_join,
	.member_update = memory_member_update,
	.member_leave = memory_member_leave,
	.member_get = memory_member_get,
	.lock = memory_lock,
	.convert = memory_convert,
	.unlock = memory_unlock,
	.lock_check = memory_lock_check,
	.lock_read = memory_lock_read,
	.lock_list = memory_lock_list,
	.lock_break = memory_lock_break,
	.unwatch = memory_unwatch,
};
