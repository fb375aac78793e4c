/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory:// and zake:// -- a store inside the daemon, for tests, for trying out, and for coordinating
 * the processes of one host through one mount.
 *
 * A store is found by the URL's host and path; sessions of one process with the same URL see each
 * other. They must run on one loop, which is also why nothing here is locked. Each store has one hash
 * table for all that has a name: locks, leaderships and groups are items, members are found in the
 * scope of their group's item. An item exists while it is held, watched or, for a group, created.
 *
 * Ownership: what a session holds lies in the scratch of the core's grants, linked into its item and
 * into its session, so that acquiring and releasing allocate nothing once an item was made: dropped
 * items wait in a short free list. Members own their data.
 *
 * Every call is answered at once. Notices leave from a task of their own: the core may call back into
 * the driver from a notice, and then finds no list half walked.
 */
#include "coord/driver.h"

#include <assert.h>
#include <stdio.h>
#include <syslog.h>

#define NAME_MAX_BYTES 255
#define SPARE_MAX 256 /* dropped items kept for reuse */
#define PAGE_ROWS 1000
#define WRITER_FIRST_MS 1000 /* how long a failed exclusive try keeps new sharers waiting */

/* What the hash table holds, first in items and members. */
struct node {
	struct node *next;
	const struct item *scope; /* of a member: its group */
	uint64_t hash;
	enum coord_kind kind;
	size_t len;
	char name[NAME_MAX_BYTES];
};

/* A lock, a leadership or a group. */
struct item {
	struct node node;
	struct coord_list holders; /* held: struct hold; group: struct member */
	struct coord_list watches;
	struct coord_list link; /* in store->listed[kind] while held or created */
	uint64_t serial; /* place in that list, grows */
	size_t count; /* of holders or members */
	bool exists; /* a group that was created */
	uint64_t writer_until_ms; /* a session waits for exclusive use: sharers queue up */
	struct coord_session *writer;
};

struct member {
	struct node node;
	struct coord_list link; /* in the group's holders */
	struct hold *hold;
	char *data;
	size_t data_len;
	uint8_t owner[16];
	uint64_t born, version, joined_us, updated_us;
};

/* The driver's scratch of a grant. Zeroed: holds nothing. */
struct hold {
	struct coord_list in_item, in_session, in_contended;
	struct memory_session *session; /* NULL: holds nothing */
	struct coord_grant *grant;
	struct item *item;
	struct member *member; /* MEMBER only */
	enum coord_mode mode;
	uint64_t token, since_us;
	bool contended;
};

struct watch {
	struct coord_list in_item, in_session, in_dirty;
	struct memory_session *session;
	struct item *item;
	bool dirty;
};

/* Runs the notices. Outlives its store if it is queued when the store goes. */
struct notifier {
	struct coord_task task;
	struct store *store;
};

struct store {
	struct store *next;
	char *name;
	struct coord_loop *loop; /* while it has sessions */
	size_t refs; /* sessions, open or not */
	struct coord_list sessions; /* open ones */
	struct node **buckets;
	size_t buckets_len, nodes; /* buckets_len is a power of two */
	uint64_t seed;
	struct coord_list listed[COORD_KINDS];
	struct item *spare;
	size_t spare_len;
	uint64_t last_token, serial, revision;
	struct coord_list dirty, contended;
	struct notifier *notifier;
};

struct memory_session {
	struct coord_session *session;
	struct store *store;
	struct coord_list link, holds, watches;
	bool claims;
};

static struct store *stores; /* one process, one world: the point of this driver */

/* ---- The table ---- */

/* Mixes as wyhash and its kin do: a 64 by 64 multiplication, folded. */
static uint64_t mix(uint64_t a, uint64_t b)
{
	__uint128_t r = (__uint128_t)a * b;
	return (uint64_t)r ^ (uint64_t)(r >> 64);
}

static uint64_t name_hash(
	const struct store *store, enum coord_kind kind, const void *scope, struct coord_bytes name)
{
	uint64_t h = store->seed ^ mix((uintptr_t)scope + kind, 0x9e3779b97f4a7c15);
	const char *at = name.data;
	for (size_t left = name.len; left;) {
		uint64_t word = 0;
		size_t part = left < 8 ? left : 8;
		memcpy(&word, at, part);
		h = mix(h ^ word, 0xd6e8feb86659fd93);
		at += part;
		left -= part;
	}
	return mix(h ^ name.len, 0xa0761d6478bd642f);
}

static struct node *table_find(struct store *store, enum coord_kind kind, const struct item *scope,
	struct coord_bytes name)
{
	uint64_t hash = name_hash(store, kind, scope, name);
	struct node *node = store->buckets[hash & (store->buckets_len - 1)];
	for (; node; node = node->next) {
		if (node->hash == hash && node->kind == kind && node->scope == scope &&
			node->len == name.len && memcmp(node->name, name.data, name.len) == 0)
			return node;
	}
	return NULL;
}

/* Doubles the table. Without memory the chains just grow longer. */
static void table_grow(struct store *store)
{
	size_t len = store->buckets_len * 2;
	struct node **buckets = calloc(len, sizeof(struct node *));
	if (!buckets)
		return;
	for (size_t i = 0; i < store->buckets_len; i++) {
		for (struct node *node = store->buckets[i], *next; node; node = next) {
			next = node->next;
			struct node **at = &buckets[node->hash & (len - 1)];
			node->next = *at;
			*at = node;
		}
	}
	free(store->buckets);
	store->buckets = buckets;
	store->buckets_len = len;
}

static void table_add(struct store *store, struct node *node, enum coord_kind kind,
	const struct item *scope, struct coord_bytes name)
{
	assert(name.len <= NAME_MAX_BYTES);
	if (store->nodes >= store->buckets_len)
		table_grow(store);
	node->kind = kind;
	node->scope = scope;
	node->len = name.len;
	memcpy(node->name, name.data, name.len);
	node->hash = name_hash(store, kind, scope, name);
	struct node **at = &store->buckets[node->hash & (store->buckets_len - 1)];
	node->next = *at;
	*at = node;
	store->nodes++;
}

static void table_remove(struct store *store, struct node *node)
{
	struct node **at = &store->buckets[node->hash & (store->buckets_len - 1)];
	while (*at != node)
		at = &(*at)->next;
	*at = node->next;
	store->nodes--;
}

static struct coord_bytes node_name(const struct node *node)
{
	return (struct coord_bytes){node->name, node->len};
}

/* ---- Stores ---- */

static int store_new(const char *name, struct store **ret)
{
	struct store *store = calloc(1, sizeof(*store));
	if (!store)
		return -ENOMEM;
	store->buckets_len = 64;
	store->buckets = calloc(store->buckets_len, sizeof(struct node *));
	store->name = strdup(name);
	if (!store->buckets || !store->name) {
		free(store->buckets);
		free(store->name);
		free(store);
		return -ENOMEM;
	}
	coord_list_init(&store->sessions);
	coord_list_init(&store->dirty);
	coord_list_init(&store->contended);
	for (int kind = 0; kind < COORD_KINDS; kind++)
		coord_list_init(&store->listed[kind]);
	store->next = stores;
	stores = store;
	*ret = store;
	return 0;
}

static void store_free(struct store *store)
{
	struct store **at = &stores;
	while (*at != store)
		at = &(*at)->next;
	*at = store->next;
	while (store->spare) {
		struct item *item = store->spare;
		store->spare = (struct item *)(void *)item->node.next;
		free(item);
	}
	free(store->buckets);
	free(store->name);
	free(store);
}

/* Joins a store, which is made if need be. Its sessions share a loop, as they call each other. */
static int store_get(struct coord_loop *loop, const char *name, struct store **ret)
{
	struct store *store = stores;
	while (store && strcmp(store->name, name) != 0)
		store = store->next;
	if (store && store->refs && store->loop != loop)
		return -EBUSY;
	int r = store ? 0 : store_new(name, &store);
	if (r)
		return r;
	if (!store->notifier) {
		store->notifier = calloc(1, sizeof(struct notifier));
		if (!store->notifier) {
			if (!store->refs && !store->nodes)
				store_free(store);
			return -ENOMEM;
		}
	}
	if (!store->nodes)
		coord_random(loop, &store->seed, sizeof(store->seed));
	store->loop = loop;
	store->refs++;
	*ret = store;
	return 0;
}

/* Leaves a store. What was created in it stays for the process' next session. */
static void store_put(struct store *store)
{
	if (--store->refs)
		return;
	if (store->notifier->task.queued)
		store->notifier->store = NULL;
	else
		free(store->notifier);
	store->notifier = NULL;
	store->loop = NULL;
	if (!store->nodes)
		store_free(store);
}

/* ---- Items ---- */

static struct item *item_find(struct store *store, enum coord_kind kind, struct coord_bytes name)
{
	return (struct item *)(void *)table_find(store, kind, NULL, name);
}

static struct item *item_get(struct store *store, enum coord_kind kind, struct coord_bytes name)
{
	struct item *item = item_find(store, kind, name);
	if (item)
		return item;
	item = store->spare;
	if (item) {
		store->spare = (struct item *)(void *)item->node.next;
		store->spare_len--;
	} else {
		item = malloc(sizeof(*item));
		if (!item)
			return NULL;
	}
	coord_list_init(&item->holders);
	coord_list_init(&item->watches);
	coord_list_init(&item->link);
	item->serial = 0;
	item->count = 0;
	item->exists = false;
	item->writer_until_ms = 0;
	item->writer = NULL;
	table_add(store, &item->node, kind, NULL, name);
	return item;
}

/* Lets go of an item that nobody needs any more. */
static void item_put(struct store *store, struct item *item)
{
	if (item->exists || item->count || !coord_list_empty(&item->watches))
		return;
	coord_list_remove(&item->link);
	table_remove(store, &item->node);
	if (store->spare_len >= SPARE_MAX) {
		free(item);
		return;
	}
	item->node.next = (struct node *)store->spare;
	store->spare = item;
	store->spare_len++;
}

static void item_list(struct store *store, struct item *item)
{
	item->serial = ++store->serial;
	coord_list_add(&store->listed[item->node.kind], &item->link);
}

static struct coord_key item_key(const struct item *item)
{
	return (struct coord_key){item->node.kind, node_name(&item->node)};
}

/* ---- Notices ---- */

static void tell_contended(struct hold *hold)
{
	coord_list_remove(&hold->in_contended);
	hold->contended = false;
	coord_grant_contended(
		hold->session->session, hold->grant->key, hold->grant->owner, hold->grant->epoch);
}

static void notifier_run(struct coord_task *task)
{
	struct notifier *notifier = coord_container(task, struct notifier, task);
	struct store *store = notifier->store;
	if (!store) {
		free(notifier);
		return;
	}
	while (!coord_list_empty(&store->contended))
		tell_contended(coord_container(store->contended.next, struct hold, in_contended));
	while (!coord_list_empty(&store->dirty)) {
		struct watch *watch = coord_container(store->dirty.next, struct watch, in_dirty);
		coord_list_remove(&watch->in_dirty);
		watch->dirty = false;
		coord_changed(watch->session->session, item_key(watch->item), store->revision);
	}
}

static void notifier_wake(struct store *store)
{
	store->notifier->task.fn = notifier_run;
	store->notifier->store = store;
	coord_loop_defer(store->loop, &store->notifier->task);
}

/* Tells those who watch, but for the session whose own lock it is: that one knows. */
static void item_changed(struct store *store, struct item *item, struct memory_session *by)
{
	store->revision++;
	if (coord_list_empty(&item->watches))
		return;
	struct watch *watch;
	coord_list_each (watch, &item->watches, in_item) {
		if (watch->dirty || (watch->session == by && item->node.kind != COORD_GROUP))
			continue;
		watch->dirty = true;
		coord_list_add(&store->dirty, &watch->in_dirty);
	}
	if (!coord_list_empty(&store->dirty))
		notifier_wake(store);
}

/* A leadership is part of what readers of the group see. */
static void lock_changed(struct store *store, struct item *item, struct memory_session *by)
{
	item_changed(store, item, by);
	if (item->node.kind != COORD_LEADER)
		return;
	struct item *group = item_find(store, COORD_GROUP, node_name(&item->node));
	if (group)
		item_changed(store, group, by);
}

static void item_contended(struct store *store, struct item *item, struct memory_session *by)
{
	struct hold *hold;
	coord_list_each (hold, &item->holders, in_item) {
		if (hold->session == by || hold->contended)
			continue;
		hold->contended = true;
		coord_list_add(&store->contended, &hold->in_contended);
		notifier_wake(store);
	}
}

/* Arms the session's watch on an item: 0 or -ENOMEM. */
static int watch_arm(struct memory_session *ms, struct item *item)
{
	struct watch *watch;
	coord_list_each (watch, &item->watches, in_item) {
		if (watch->session == ms)
			return 0;
	}
	watch = malloc(sizeof(*watch));
	if (!watch)
		return -ENOMEM;
	watch->session = ms;
	watch->item = item;
	watch->dirty = false;
	coord_list_init(&watch->in_dirty);
	coord_list_add(&item->watches, &watch->in_item);
	coord_list_add(&ms->watches, &watch->in_session);
	return 0;
}

static void watch_free(struct watch *watch)
{
	struct store *store = watch->session->store;
	struct item *item = watch->item;
	coord_list_remove(&watch->in_item);
	coord_list_remove(&watch->in_session);
	coord_list_remove(&watch->in_dirty);
	if (item->writer == watch->session->session) {
		/* Sharers may have queued up behind this session. */
		item->writer = NULL;
		item_changed(store, item, watch->session);
	}
	free(watch);
	item_put(store, item);
}

/* The item that op is about, watched if the op says so. NULL: there is none, or no memory (*ret_r). */
static struct item *op_item(
	struct memory_session *ms, struct coord_op *op, enum coord_kind kind, int *ret_r)
{
	*ret_r = 0;
	if (!(op->flags & COORD_OP_WATCH))
		return item_find(ms->store, kind, op->key.name);
	struct item *item = item_get(ms->store, kind, op->key.name);
	*ret_r = item ? watch_arm(ms, item) : -ENOMEM;
	if (item && *ret_r)
		item_put(ms->store, item);
	return *ret_r ? NULL : item;
}

/* ---- Holds ---- */

static void hold_link(
	struct hold *hold, struct memory_session *ms, struct item *item, struct coord_grant *grant)
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

static void hold_unlink(struct hold *hold)
{
	coord_list_remove(&hold->in_contended);
	coord_list_remove(&hold->in_item);
	coord_list_remove(&hold->in_session);
	hold->session = NULL;
}

/* Takes a holder off its lock and wakes who waits for it. */
static void lock_release(struct hold *hold, struct memory_session *by)
{
	struct store *store = hold->session->store;
	struct item *item = hold->item;
	hold_unlink(hold);
	if (--item->count == 0)
		coord_list_remove(&item->link);
	lock_changed(store, item, by);
	item_put(store, item);
}

static void member_remove(struct member *member, struct memory_session *by)
{
	struct hold *hold = member->hold;
	struct store *store = hold->session->store;
	struct item *group = hold->item;
	hold->member = NULL;
	hold_unlink(hold);
	coord_list_remove(&member->link);
	group->count--;
	table_remove(store, &member->node);
	free(member->data);
	free(member);
	item_changed(store, group, by);
}

static void hold_release(struct hold *hold, struct memory_session *by)
{
	if (hold->member)
		member_remove(hold->member, by);
	else
		lock_release(hold, by);
}

/* Takes what is held away from its holder, and says so. */
static void hold_lose(struct hold *hold, struct memory_session *by)
{
	struct coord_session *session = hold->session->session;
	struct coord_grant *grant = hold->grant;
	hold_release(hold, by);
	coord_grant_lost(session, grant->key, grant->owner, grant->epoch);
}

static void memory_grant_done(struct coord_session *session, struct coord_grant *grant)
{
	(void)session;
	struct hold *hold = coord_grant_data(grant);
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
		r = store_get(coord_session_loop(session), name, &ms->store);
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
		hold_release(coord_container(ms->holds.next, struct hold, in_session), ms);
	while (!coord_list_empty(&ms->watches))
		watch_free(coord_container(ms->watches.next, struct watch, in_session));
	coord_list_remove(&ms->link);
	ms->claims = false;
}

static void memory_session_free(struct coord_session *session)
{
	struct memory_session *ms = coord_session_data(session);
	if (!ms->store)
		return;
	session_release(ms);
	store_put(ms->store);
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
	if (name.len > NAME_MAX_BYTES)
		return -ENAMETOOLONG;
	memcpy(ret_key, name.data, name.len);
	*ret_len = name.len;
	return 0;
}

/* ---- Lists ---- */

/* The item after the one that the cursor names. Serials grow along the list. */
static struct item *page_start(struct store *store, enum coord_kind kind, struct coord_op *op)
{
	uint64_t last = 0;
	if (op->cursor.len == sizeof(last))
		memcpy(&last, op->cursor.data, sizeof(last));
	struct item *item;
	coord_list_each (item, &store->listed[kind], link) {
		if (item->serial > last)
			break;
	}
	return item;
}

/* Lists a page of items, each by its fill function. */
static void list_page(struct store *store, enum coord_kind kind, struct coord_op *op,
	int (*fill)(struct coord_op *, struct item *))
{
	struct item *item = page_start(store, kind, op);
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
		item = coord_container(item->link.next, struct item, link);
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

static struct item *group_find(struct store *store, struct coord_bytes name)
{
	struct item *group = item_find(store, COORD_GROUP, name);
	return group && group->exists ? group : NULL;
}

static void memory_group_create(struct coord_session *session, struct coord_op *op)
{
	struct memory_session *ms = coord_session_data(session);
	struct item *group = item_get(ms->store, COORD_GROUP, op->key.name);
	if (!group)
		return coord_op_fail(op, -ENOMEM);
	if (group->exists)
		return coord_op_fail(op, -EEXIST);
	group->exists = true;
	item_list(ms->store, group);
	item_changed(ms->store, group, ms);
	coord_op_done(op);
}

static void memory_group_delete(struct coord_session *session, struct coord_op *op)
{
	struct memory_session *ms = coord_session_data(session);
	struct item *group = group_find(ms->store, op->key.name);
	if (!group)
		return coord_op_fail(op, -ENOENT);
	if (group->count)
		return coord_op_fail(op, -ENOTEMPTY);
	group->exists = false;
	coord_list_remove(&group->link);
	item_changed(ms->store, group, ms);
	item_put(ms->store, group);
	coord_op_done(op);
}

static int group_row(struct coord_op *op, struct item *group)
{
	struct coord_row *row = coord_op_row(op);
	return row && copy_to(op, node_name(&group->node), &row->name) ? 0 : -ENOMEM;
}

static void memory_group_list(struct coord_session *session, struct coord_op *op)
{
	struct memory_session *ms = coord_session_data(session);
	list_page(ms->store, COORD_GROUP, op, group_row);
}

static int member_row(struct coord_op *op, const struct member *member, bool with_data)
{
	struct coord_row *row = coord_op_row(op);
	if (!row || !copy_to(op, node_name(&member->node), &row->name))
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

static int lock_row(struct coord_op *op, struct item *item)
{
	struct hold *hold = coord_container(item->holders.next, struct hold, in_item);
	struct coord_row *row = coord_op_row(op);
	if (!row || !copy_to(op, node_name(&item->node), &row->name) ||
		!copy_to(op, hold->grant->member, &row->data))
		return -ENOMEM;
	memcpy(row->owner, hold->grant->owner, sizeof(row->owner));
	row->mode = hold->mode;
	row->token = hold->token;
	row->created_us = hold->since_us;
	row->holders = item->count;
	return 0;
}

static int leader_row(struct coord_op *op, struct item *leader)
{
	struct hold *hold = coord_container(leader->holders.next, struct hold, in_item);
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
	struct item *group = op_item(ms, op, COORD_GROUP, &r);
	if (!group || !group->exists)
		return coord_op_fail(op, r ? r : -ENOENT);
	struct member *member;
	coord_list_each (member, &group->holders, link) {
		r = member_row(op, member, op->flags & COORD_OP_WITH_DATA);
		if (r)
			return coord_op_fail(op, r);
	}
	struct item *leader = item_find(ms->store, COORD_LEADER, op->key.name);
	if (leader && leader->count)
		r = leader_row(op, leader);
	op->revision = ms->store->revision;
	coord_op_fail(op, r);
}

/* ---- Members ---- */

static struct member *member_find(struct store *store, struct item *group, struct coord_bytes name)
{
	return (struct member *)(void *)table_find(store, COORD_MEMBER, group, name);
}

static int member_set_data(struct store *store, struct member *member, struct coord_bytes data)
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

static int member_new(struct memory_session *ms, struct item *group, struct coord_op *op)
{
	struct member *member = calloc(1, sizeof(*member));
	int r = member ? member_set_data(ms->store, member, op->data) : -ENOMEM;
	if (r) {
		free(member);
		return r;
	}
	struct hold *hold = coord_grant_data(op->grant);
	hold_link(hold, ms, group, op->grant);
	hold->member = member;
	member->hold = hold;
	member->born = ++ms->store->serial;
	member->joined_us = member->updated_us;
	memcpy(member->owner, op->grant->owner, sizeof(member->owner));
	table_add(ms->store, &member->node, COORD_MEMBER, group, op->member);
	coord_list_add(&group->holders, &member->link);
	group->count++;
	item_changed(ms->store, group, ms);
	return 0;
}

static void memory_member_join(struct coord_session *session, struct coord_op *op)
{
	struct memory_session *ms = coord_session_data(session);
	struct item *group = group_find(ms->store, op->key.name);
	if (!group)
		return coord_op_fail(op, -ENOENT);
	struct member *member = member_find(ms->store, group, op->member);
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
static int member_ours(struct memory_session *ms, struct coord_op *op, struct member **ret)
{
	struct item *group = group_find(ms->store, op->key.name);
	struct member *member = group ? member_find(ms->store, group, op->member) : NULL;
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
	struct member *member;
	int r = member_ours(ms, op, &member);
	if (!r)
		r = member_set_data(ms->store, member, op->data);
	if (!r)
		item_changed(ms->store, member->hold->item, ms);
	coord_op_fail(op, r);
}

static void memory_member_leave(struct coord_session *session, struct coord_op *op)
{
	struct memory_session *ms = coord_session_data(session);
	struct member *member;
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
	struct item *group = group_find(ms->store, op->key.name);
	struct member *member = group ? member_find(ms->store, group, op->member) : NULL;
	coord_op_fail(op, member ? member_row(op, member, true) : -ENOENT);
}

/* ---- Locks and leaderships ---- */

/* A token for one more holder: even and growing for exclusive ones, and one for all the sharers above
 * the last of those. By the clock, so that it also grows from one process to the next. */
static uint64_t next_token(struct store *store, const struct item *item, enum coord_mode mode)
{
	if (mode == COORD_SHARED) {
		struct hold *first = coord_container(item->holders.next, struct hold, in_item);
		return item->count && first->mode == COORD_SHARED ? first->token
								  : store->last_token + 1;
	}
	uint64_t now = coord_utc_us(store->loop) & ~(uint64_t)1;
	store->last_token = now > store->last_token + 2 ? now : store->last_token + 2;
	return store->last_token;
}

/* Must it wait? A new sharer that can wait queues up behind a session that waits to write. */
static bool lock_busy(struct memory_session *ms, struct item *item, struct coord_op *op)
{
	if (!item->count)
		return false;
	struct hold *first = coord_container(item->holders.next, struct hold, in_item);
	if (op->grant->mode != COORD_SHARED || first->mode != COORD_SHARED)
		return true;
	return (op->flags & COORD_OP_WATCH) && item->writer && item->writer != ms->session &&
	       coord_now_ms(ms->store->loop) < item->writer_until_ms;
}

static void lock_refuse(struct memory_session *ms, struct item *item, struct coord_op *op)
{
	if (op->flags & COORD_OP_WATCH) {
		if (op->grant->mode == COORD_EXCLUSIVE) {
			item->writer = ms->session;
			item->writer_until_ms = coord_now_ms(ms->store->loop) + WRITER_FIRST_MS;
		}
		item_contended(ms->store, item, ms);
		op->retry_ms = WRITER_FIRST_MS;
	}
	coord_op_fail(op, -EBUSY);
}

static void memory_lock(struct coord_session *session, struct coord_op *op)
{
	struct memory_session *ms = coord_session_data(session);
	struct store *store = ms->store;
	struct coord_grant *grant = op->grant;
	enum coord_kind kind = grant->key.kind;
	if (kind == COORD_LEADER && grant->mode != COORD_EXCLUSIVE)
		return coord_op_fail(op, -EINVAL);
	if (kind == COORD_LEADER && !group_find(store, grant->key.name))
		return coord_op_fail(op, -ENOENT);
	struct item *item = item_get(store, kind, grant->key.name);
	if (!item)
		return coord_op_fail(op, -ENOMEM);
	if ((op->flags & COORD_OP_WATCH) && watch_arm(ms, item)) {
		item_put(store, item);
		return coord_op_fail(op, -ENOMEM);
	}
	if (lock_busy(ms, item, op))
		return lock_refuse(ms, item, op);
	struct hold *hold = coord_grant_data(grant);
	hold_link(hold, ms, item, grant);
	hold->token = grant->token = next_token(store, item, grant->mode);
	if (item->count++ == 0)
		item_list(store, item);
	coord_list_add(&item->holders, &hold->in_item);
	if (item->writer == session)
		item->writer = NULL;
	lock_changed(store, item, ms);
	coord_op_done(op);
}

static void memory_convert(struct coord_session *session, struct coord_op *op)
{
	struct memory_session *ms = coord_session_data(session);
	struct hold *hold = coord_grant_data(op->grant);
	if (!hold->session)
		return coord_op_fail(op, -ESTALE);
	struct item *item = hold->item;
	if (op->mode == hold->mode)
		return coord_op_done(op);
	if (op->mode == COORD_EXCLUSIVE && item->count > 1) {
		if ((op->flags & COORD_OP_WATCH) && watch_arm(ms, item))
			return coord_op_fail(op, -ENOMEM);
		item_contended(ms->store, item, ms);
		return coord_op_fail(op, -EBUSY);
	}
	hold->token = op->grant->token = next_token(ms->store, item, op->mode);
	hold->mode = op->mode;
	lock_changed(ms->store, item, ms);
	coord_op_done(op);
}

static void memory_unlock(struct coord_session *session, struct coord_op *op)
{
	struct hold *hold = coord_grant_data(op->grant);
	if (hold->session)
		lock_release(hold, coord_session_data(session));
	coord_op_done(op);
}

static void memory_lock_check(struct coord_session *session, struct coord_op *op)
{
	(void)session;
	struct hold *hold = coord_grant_data(op->grant);
	if (!hold->session)
		return coord_op_fail(op, -ESTALE);
	op->grant->token = hold->token;
	coord_op_done(op);
}

static void memory_lock_read(struct coord_session *session, struct coord_op *op)
{
	struct memory_session *ms = coord_session_data(session);
	int r;
	struct item *item = op_item(ms, op, op->key.kind, &r);
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
	struct item *item = item_find(ms->store, op->key.kind, op->key.name);
	if (!item || !item->count)
		return coord_op_fail(op, -ENOENT);
	/* Those who hold now. Each loss may change the table: look again for the next. */
	for (size_t left = item->count; left && item && item->count; left--) {
		hold_lose(coord_container(item->holders.next, struct hold, in_item), ms);
		item = item_find(ms->store, op->key.kind, op->key.name);
	}
	coord_op_done(op);
}

static void memory_unwatch(struct coord_session *session, struct coord_key key)
{
	struct memory_session *ms = coord_session_data(session);
	struct item *item = item_find(ms->store, key.kind, key.name);
	if (!item)
		return;
	struct watch *watch;
	coord_list_each (watch, &item->watches, in_item) {
		if (watch->session == ms) {
			watch_free(watch);
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
	.grant_size = sizeof(struct hold),
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
