/* SPDX-License-Identifier: Apache-2.0 */
/* Names, items, watches and notices of memory://. See store.h. */
#include "drivers/memory/store.h"

#include <assert.h>

#define SPARE_MAX 256 /* dropped items kept for reuse */

static struct memory_store *stores; /* one process, one world: the point of this driver */

/* ---- The table ---- */

/* Mixes as wyhash and its kin do: a 64 by 64 multiplication, folded. */
static uint64_t mix(uint64_t a, uint64_t b)
{
	__uint128_t r = (__uint128_t)a * b;
	return (uint64_t)r ^ (uint64_t)(r >> 64);
}

static uint64_t name_hash(const struct memory_store *store, enum coord_kind kind, const void *scope,
	struct coord_bytes name)
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

struct memory_node *memory_find(struct memory_store *store, enum coord_kind kind,
	const struct memory_item *scope, struct coord_bytes name)
{
	uint64_t hash = name_hash(store, kind, scope, name);
	struct memory_node *node = store->buckets[hash & (store->buckets_len - 1)];
	for (; node; node = node->next) {
		if (node->hash == hash && node->kind == kind && node->scope == scope &&
			node->len == name.len && memcmp(node->name, name.data, name.len) == 0)
			return node;
	}
	return NULL;
}

/* Doubles the table. Without memory the chains just grow longer. */
static void table_grow(struct memory_store *store)
{
	size_t len = store->buckets_len * 2;
	struct memory_node **buckets = calloc(len, sizeof(struct memory_node *));
	if (!buckets)
		return;
	for (size_t i = 0; i < store->buckets_len; i++) {
		for (struct memory_node *node = store->buckets[i], *next; node; node = next) {
			next = node->next;
			struct memory_node **at = &buckets[node->hash & (len - 1)];
			node->next = *at;
			*at = node;
		}
	}
	free(store->buckets);
	store->buckets = buckets;
	store->buckets_len = len;
}

void memory_add(struct memory_store *store, struct memory_node *node, enum coord_kind kind,
	const struct memory_item *scope, struct coord_bytes name)
{
	assert(name.len <= MEMORY_NAME_MAX);
	if (store->nodes >= store->buckets_len)
		table_grow(store);
	node->kind = kind;
	node->scope = scope;
	node->len = name.len;
	memcpy(node->name, name.data, name.len);
	node->hash = name_hash(store, kind, scope, name);
	struct memory_node **at = &store->buckets[node->hash & (store->buckets_len - 1)];
	node->next = *at;
	*at = node;
	store->nodes++;
}

void memory_remove(struct memory_store *store, struct memory_node *node)
{
	struct memory_node **at = &store->buckets[node->hash & (store->buckets_len - 1)];
	while (*at != node)
		at = &(*at)->next;
	*at = node->next;
	store->nodes--;
}

struct coord_bytes memory_name(const struct memory_node *node)
{
	return (struct coord_bytes){node->name, node->len};
}

/* ---- Stores ---- */

static int store_new(const char *name, struct memory_store **ret)
{
	struct memory_store *store = calloc(1, sizeof(*store));
	if (!store)
		return -ENOMEM;
	store->buckets_len = 64;
	store->buckets = calloc(store->buckets_len, sizeof(struct memory_node *));
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

static void store_free(struct memory_store *store)
{
	struct memory_store **at = &stores;
	while (*at != store)
		at = &(*at)->next;
	*at = store->next;
	while (store->spare) {
		struct memory_item *item = store->spare;
		store->spare = (struct memory_item *)(void *)item->node.next;
		free(item);
	}
	free(store->buckets);
	free(store->name);
	free(store);
}

int memory_store_get(struct coord_loop *loop, const char *name, struct memory_store **ret)
{
	struct memory_store *store = stores;
	while (store && strcmp(store->name, name) != 0)
		store = store->next;
	if (store && store->refs && store->loop != loop)
		return -EBUSY;
	int r = store ? 0 : store_new(name, &store);
	if (r)
		return r;
	if (!store->notifier) {
		store->notifier = calloc(1, sizeof(struct memory_notifier));
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

void memory_store_put(struct memory_store *store)
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

struct memory_item *memory_item_find(
	struct memory_store *store, enum coord_kind kind, struct coord_bytes name)
{
	return (struct memory_item *)(void *)memory_find(store, kind, NULL, name);
}

struct memory_item *memory_item_get(
	struct memory_store *store, enum coord_kind kind, struct coord_bytes name)
{
	struct memory_item *item = memory_item_find(store, kind, name);
	if (item)
		return item;
	item = store->spare;
	if (item) {
		store->spare = (struct memory_item *)(void *)item->node.next;
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
	item->node.name = item->name;
	memory_add(store, &item->node, kind, NULL, name);
	return item;
}

void memory_item_put(struct memory_store *store, struct memory_item *item)
{
	if (item->exists || item->count || !coord_list_empty(&item->watches))
		return;
	coord_list_remove(&item->link);
	memory_remove(store, &item->node);
	if (store->spare_len >= SPARE_MAX) {
		free(item);
		return;
	}
	item->node.next = (struct memory_node *)store->spare;
	store->spare = item;
	store->spare_len++;
}

void memory_item_list(struct memory_store *store, struct memory_item *item)
{
	item->serial = ++store->serial;
	coord_list_add(&store->listed[item->node.kind], &item->link);
}

static struct coord_key item_key(const struct memory_item *item)
{
	return (struct coord_key){item->node.kind, memory_name(&item->node)};
}

/* ---- Notices ---- */

static void tell_contended(struct memory_hold *hold)
{
	coord_list_remove(&hold->in_contended);
	hold->contended = false;
	coord_grant_contended(
		hold->session->session, hold->grant->key, hold->grant->owner, hold->grant->epoch);
}

static void notifier_run(struct coord_task *task)
{
	struct memory_notifier *notifier = coord_container(task, struct memory_notifier, task);
	struct memory_store *store = notifier->store;
	if (!store) {
		free(notifier);
		return;
	}
	while (!coord_list_empty(&store->contended))
		tell_contended(
			coord_container(store->contended.next, struct memory_hold, in_contended));
	while (!coord_list_empty(&store->dirty)) {
		struct memory_watch *watch =
			coord_container(store->dirty.next, struct memory_watch, in_dirty);
		coord_list_remove(&watch->in_dirty);
		watch->dirty = false;
		coord_changed(watch->session->session, item_key(watch->item), store->revision);
	}
}

static void notifier_wake(struct memory_store *store)
{
	store->notifier->task.fn = notifier_run;
	store->notifier->store = store;
	coord_loop_defer(store->loop, &store->notifier->task);
}

void memory_item_changed(
	struct memory_store *store, struct memory_item *item, struct memory_session *by)
{
	store->revision++;
	if (coord_list_empty(&item->watches))
		return;
	struct memory_watch *watch;
	coord_list_each (watch, &item->watches, in_item) {
		if (watch->dirty || (watch->session == by && item->node.kind != COORD_GROUP))
			continue;
		watch->dirty = true;
		coord_list_add(&store->dirty, &watch->in_dirty);
	}
	if (!coord_list_empty(&store->dirty))
		notifier_wake(store);
}

void memory_lock_changed(
	struct memory_store *store, struct memory_item *item, struct memory_session *by)
{
	memory_item_changed(store, item, by);
	if (item->node.kind != COORD_LEADER)
		return;
	struct memory_item *group = memory_item_find(store, COORD_GROUP, memory_name(&item->node));
	if (group)
		memory_item_changed(store, group, by);
}

void memory_item_contended(
	struct memory_store *store, struct memory_item *item, struct memory_session *by)
{
	struct memory_hold *hold;
	coord_list_each (hold, &item->holders, in_item) {
		if (hold->session == by || hold->contended)
			continue;
		hold->contended = true;
		coord_list_add(&store->contended, &hold->in_contended);
		notifier_wake(store);
	}
}

int memory_watch_arm(struct memory_session *ms, struct memory_item *item)
{
	struct memory_watch *watch;
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

void memory_watch_free(struct memory_watch *watch)
{
	struct memory_store *store = watch->session->store;
	struct memory_item *item = watch->item;
	coord_list_remove(&watch->in_item);
	coord_list_remove(&watch->in_session);
	coord_list_remove(&watch->in_dirty);
	if (item->writer == watch->session->session) {
		/* Sharers may have queued up behind this session. */
		item->writer = NULL;
		memory_item_changed(store, item, watch->session);
	}
	free(watch);
	memory_item_put(store, item);
}
