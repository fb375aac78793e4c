/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tooz's hash ring (tooz.hashring with md5): which members are responsible for an object, and in what
 * order. The same members, weights and partitions give the same answer as in Python, on every host.
 *
 * A ring never changes. After a change of the members a new one is built, and takes over the points of
 * those that did not change.
 */
#ifndef COORD_RING_H
#define COORD_RING_H

#include "coord/base.h"

/* A ring has at most so many points, partitions * weight of each member together, and at most so many bytes
 * of names are hashed for them: a member may claim any weight and name, and the loop stands still meanwhile,
 * some 0.2 us for a point of a short name. */
#define COORD_RING_POINTS_MAX (1u << 20)
#define COORD_RING_HASHED_MAX (128u << 20)

struct coord_ring;

struct coord_ring_member {
	struct coord_bytes name; /* as in the store */
	uint64_t weight; /* 0: it is not on the ring */
};

/* Copies the names, which differ from each other. before (may be NULL): a ring of the same partitions whose points
 * may be taken over. Returns 0, -ENOMEM, or -EFBIG: above a limit. */
int coord_ring_new(const struct coord_ring_member *, size_t len, uint32_t partitions,
	const struct coord_ring *before, struct coord_ring **ret);
void coord_ring_free(struct coord_ring *);

/* Members on the ring; they have numbers from 0 in the order of their names. */
size_t coord_ring_len(const struct coord_ring *);
struct coord_bytes coord_ring_name(const struct coord_ring *, uint32_t member);
size_t coord_ring_points(const struct coord_ring *);

/*
 * The members responsible for an object, in order of preference: the first is the owner, the first n are
 * what get_nodes(object, replicas=n) of Python gives. Writes up to max numbers, all different, and
 * returns how many: max, or all there are. The owner alone is found in O(log points), all of them in
 * O(points).
 */
size_t coord_ring_prefer(struct coord_ring *, struct coord_bytes object, uint32_t *ret, size_t max);

#endif
