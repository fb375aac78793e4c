/* SPDX-License-Identifier: Apache-2.0 */
/* The hash table of table.h: chained, doubled when full. Names come from local users and a trusted
 * backend; the seed is per process so that nobody can prepare collisions. */
#include "coord/table.h"

#include <sys/random.h>

static uint64_t seed;

void coord_table_seed(uint64_t value)
{
	seed = value;
}

static uint32_t table_hash(uint32_t kind, struct coord_bytes key)
{
	while (seed == 0)
		if (getrandom(&seed, sizeof(seed), 0) < 0)
			seed = 0;
	/* FNV-1a over 64 bits, seeded, folded. */
	uint64_t hash = 14695981039346656037u ^ seed ^ kind;
	for (size_t i = 0; i < key.len; i++)
		hash = (hash ^ (uint8_t)key.data[i]) * 1099511628211u;
	hash ^= hash >> 32;
	return (uint32_t)hash;
}

void coord_table_done(struct coord_table *table)
{
	free(table->buckets);
	*table = (struct coord_table){0};
}

struct coord_node *coord_table_find(
	const struct coord_table *table, uint32_t kind, struct coord_bytes key)
{
	if (table->len == 0)
		return NULL;
	uint32_t hash = table_hash(kind, key);
	struct coord_node *node = table->buckets[hash & (table->size - 1)];
	while (node &&
		(node->hash != hash || node->kind != kind || !coord_bytes_equal(node->key, key)))
		node = node->next;
	return node;
}

static int table_grow(struct coord_table *table)
{
	size_t size = table->size ? table->size * 2 : 64;
	struct coord_node **buckets = calloc(size, sizeof(*buckets));
	if (!buckets)
		return -ENOMEM;
	for (size_t i = 0; i < table->size; i++)
		for (struct coord_node *node = table->buckets[i], *next; node; node = next) {
			next = node->next;
			node->next = buckets[node->hash & (size - 1)];
			buckets[node->hash & (size - 1)] = node;
		}
	free(table->buckets);
	table->buckets = buckets;
	table->size = size;
	table->front = 0;
	return 0;
}

int coord_table_add(struct coord_table *table, struct coord_node *node)
{
	if (table->len >= table->size && table_grow(table) < 0 && table->size == 0)
		return -ENOMEM;
	node->hash = table_hash(node->kind, node->key);
	size_t i = node->hash & (table->size - 1);
	struct coord_node **bucket = &table->buckets[i];
	if (i < table->front)
		table->front = i;
	node->next = *bucket;
	*bucket = node;
	table->len++;
	return 0;
}

void coord_table_remove(struct coord_table *table, struct coord_node *node)
{
	struct coord_node **at = &table->buckets[node->hash & (table->size - 1)];
	while (*at != node)
		at = &(*at)->next;
	*at = node->next;
	table->len--;
}

struct coord_node *coord_table_first(struct coord_table *table)
{
	while (table->front < table->size && !table->buckets[table->front])
		table->front++;
	return table->front < table->size ? table->buckets[table->front] : NULL;
}

struct coord_node *coord_table_next(const struct coord_table *table, const struct coord_node *after)
{
	if (after && after->next)
		return after->next;
	size_t i = after ? (after->hash & (table->size - 1)) + 1 : 0;
	for (; i < table->size; i++)
		if (table->buckets[i])
			return table->buckets[i];
	return NULL;
}
