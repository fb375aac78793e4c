/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store behind memory://: a hash table of all that has a name, who watches it, and the notices.
 *
 * Locks, leaderships and groups are items; members are found in the scope of their group's item. An
 * item exists while it is held, watched or, for a group, created; dropped items wait in a short free
 * list, so that acquiring and releasing a lock allocate nothing.
 *
 * Notices leave from a task of their own: the core may call back into the driver from one, and then
 * finds no list half walked.
 */
#ifndef MEMORY_STORE_H
#define MEMORY_STORE_H

#include "coord/driver.h"

#define MEMORY_NAME_MAX 255

/* What the hash table holds, first in items and members. */
struct memory_node {
	struct memory_node *next;
	const struct memory_item *scope; /* of a member: its group */
	uint64_t hash;
	enum coord_kind kind;
	size_t len;
	char *name; /* lies with its owner */
};

/* A lock, a leadership or a group. */
struct memory_item {
	struct memory_node node;
	struct coord_list holders; /* held: struct memory_hold; group: struct memory_member */
	struct coord_list watches;
	struct coord_list link; /* in store->listed[kind] while held or created */
	uint64_t serial; /* place in that list, grows */
	size_t count; /* of holders or members */
	bool exists; /* a group that was created */
	uint64_t writer_until_ms; /* a session waits for exclusive use: sharers queue up */
	struct coord_session *writer;
	char name[MEMORY_NAME_MAX]; /* room for any, as dropped items are used again */
};

struct memory_member {
	struct memory_node node;
	struct coord_list link; /* in the group's holders */
	struct memory_hold *hold;
	char *data;
	size_t data_len;
	uint8_t owner[16];
	uint64_t born, version, joined_us, updated_us;
	char name[]; /* a listing of many walks over all of this: no longer than need be */
};

/* The driver's scratch of a grant. Zeroed: holds nothing. */
struct memory_hold {
	struct coord_list in_item, in_session, in_contended;
	struct memory_session *session; /* NULL: holds nothing */
	struct coord_grant *grant;
	struct memory_item *item;
	struct memory_member *member; /* MEMBER only */
	enum coord_mode mode;
	uint64_t token, since_us;
	bool contended;
};

struct memory_watch {
	struct coord_list in_item, in_session, in_dirty;
	struct memory_session *session;
	struct memory_item *item;
	bool dirty;
};

/* Runs the notices. Outlives its store if it is queued when the store goes. */
struct memory_notifier {
	struct coord_task task;
	struct memory_store *store;
};

/* All sessions of a store are on one loop, which is why nothing here is locked. */
struct memory_store {
	struct memory_store *next;
	char *name;
	struct coord_loop *loop; /* while it has sessions */
	size_t refs; /* sessions, open or not */
	struct coord_list sessions; /* open ones */
	struct memory_node **buckets;
	size_t buckets_len, nodes; /* buckets_len is a power of two */
	uint64_t seed;
	struct coord_list listed[COORD_KINDS];
	struct memory_item *spare;
	size_t spare_len;
	uint64_t last_token, serial, revision;
	struct coord_list dirty, contended;
	struct memory_notifier *notifier;
};

/* The driver's scratch of a session. */
struct memory_session {
	struct coord_session *session;
	struct memory_store *store;
	struct coord_list link, holds, watches;
	bool claims;
};

/* The table. Names are at most MEMORY_NAME_MAX bytes, and copied to node->name, which is set. */
struct memory_node *memory_find(struct memory_store *, enum coord_kind,
	const struct memory_item *scope, struct coord_bytes name);
void memory_add(struct memory_store *, struct memory_node *, enum coord_kind,
	const struct memory_item *scope, struct coord_bytes name);
void memory_remove(struct memory_store *, struct memory_node *);
struct coord_bytes memory_name(const struct memory_node *);

/* Joins the store of that name, which is made if need be; a store is used from one loop. Returns 0,
 * -EBUSY (another loop has it) or -ENOMEM. */
int memory_store_get(struct coord_loop *, const char *name, struct memory_store **ret);
/* Leaves it. What was created in it stays for the process' next session. */
void memory_store_put(struct memory_store *);

struct memory_item *memory_item_find(
	struct memory_store *, enum coord_kind, struct coord_bytes name);
/* Finds or makes. NULL: no memory. Whoever makes nothing of it calls memory_item_put. */
struct memory_item *memory_item_get(
	struct memory_store *, enum coord_kind, struct coord_bytes name);
/* Lets go of an item that nobody needs any more; does nothing to others. */
void memory_item_put(struct memory_store *, struct memory_item *);
/* It is now held, or created: appears in lists. */
void memory_item_list(struct memory_store *, struct memory_item *);

/* Tells those who watch. The session whose own lock it is knows, and is not told. */
void memory_item_changed(struct memory_store *, struct memory_item *, struct memory_session *by);
/* The same for a lock or leadership; the latter is part of what readers of the group see. */
void memory_lock_changed(struct memory_store *, struct memory_item *, struct memory_session *by);
/* Tells the holders of other sessions that somebody waits. */
void memory_item_contended(struct memory_store *, struct memory_item *, struct memory_session *by);

/* Arms the session's watch on an item: 0 or -ENOMEM. */
int memory_watch_arm(struct memory_session *, struct memory_item *);
void memory_watch_free(struct memory_watch *);

#endif
