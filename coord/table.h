/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An intrusive hash table by (kind, bytes). Nodes are embedded in their owner and own their key.
 */
#ifndef COORD_TABLE_H
#define COORD_TABLE_H

#include "coord/base.h"

struct coord_node {
	struct coord_node *next;
	struct coord_bytes key; /* the owner's memory */
	uint32_t hash, kind;
};

struct coord_table {
	struct coord_node **buckets;
	size_t size, len; /* size: a power of two, or 0 */
	size_t front; /* no bucket before it has a node */
};

/* Instead of a random one; before any table is used. For a simulation that can be replayed: the order of
 * coord_table_next comes of it. Not 0. */
void coord_table_seed(uint64_t seed);
void coord_table_done(struct coord_table *);
struct coord_node *coord_table_find(
	const struct coord_table *, uint32_t kind, struct coord_bytes key);
/* kind and key of the node are set, and not in the table. Returns 0 or -ENOMEM (only when empty). */
int coord_table_add(struct coord_table *, struct coord_node *);
void coord_table_remove(struct coord_table *, struct coord_node *);
/* Any node, or NULL: for emptying a table one by one, which takes linear time in all. */
struct coord_node *coord_table_first(struct coord_table *);
/* The first node (after NULL), or the one after node; NULL at the end. The order is that of nobody. */
struct coord_node *coord_table_next(const struct coord_table *, const struct coord_node *after);

#endif
