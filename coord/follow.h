/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Following a group: its members and its leader as they are, and each change of them. One watch and one
 * state for each group, however many follow it; none when nobody does.
 *
 * The order of what a follower is told: the first SETTLED says that the state is known, and nothing comes before it but
 * ENDED. Then each change is told after the state has it. SETTLED comes again whenever all that the core
 * was told of has been read. SUSPENDED: the connection is away, and not because the coordinator stops;
 * changes are not seen. RESUMED: it is back, and what changed meanwhile was told between the two. ENDED is
 * the last: the group is deleted (-ENOENT), or following it fails for good (-errno).
 *
 * A member that left and came back between two looks is told as LEAVE and JOIN, if the backend tells two
 * lives of a member apart. What came and went between two looks is not told.
 */
#ifndef COORD_FOLLOW_H
#define COORD_FOLLOW_H

#include "coord/coord.h"

enum coord_change {
	COORD_CHANGE_JOIN,
	COORD_CHANGE_UPDATE, /* other capabilities */
	COORD_CHANGE_LEAVE,
	COORD_CHANGE_LEADER, /* name: its id, empty where the backend does not tell */
	COORD_CHANGE_NO_LEADER,
	COORD_CHANGE_SUSPENDED,
	COORD_CHANGE_RESUMED,
	COORD_CHANGE_SETTLED,
	COORD_CHANGE_ENDED,
};

struct coord_followed;

/* Embedded in the caller's memory, which stays until coord_unfollow. Set fn. */
struct coord_follower {
	struct coord_list link;
	/* name is valid during the call. From the loop, never from inside coord_follow. It may unfollow
	 * any follower, itself too. */
	void (*fn)(struct coord_follower *, enum coord_change, struct coord_bytes name, int status);
	struct coord_followed *followed; /* NULL: does not follow, or was told ENDED */
	bool settled; /* it was told so at least once */
};

/* Begins. Returns 0, -ENOMEM, or what is wrong with the name (-EINVAL, -ENAMETOOLONG). */
int coord_follow(struct coord *, struct coord_bytes group, struct coord_follower *);
/* fn is not called any more. Nothing happens if it does not follow. */
void coord_unfollow(struct coord_follower *);

/* Does the state hold all that the core was told of? False while suspended, or while a read runs:
 * SETTLED, RESUMED or ENDED will come. */
bool coord_followed_current(const struct coord_follower *);
struct coord_followed_member {
	struct coord_bytes name, data; /* data: capabilities, msgpack */
};
/* The member after `after` (NULL: the first), in no order, or NULL. Valid until the next turn of the loop; nothing may be
 * added to or removed from the followers meanwhile. */
const struct coord_followed_member *coord_followed_next(
	const struct coord_follower *, const struct coord_followed_member *after);
/* Are the data known? Not of a group that is too large to be read with all of them: then all are empty, and
 * no UPDATE is told. */
bool coord_followed_has_data(const struct coord_follower *);
size_t coord_followed_len(const struct coord_follower *);
/* Is there a leader? Its id may be empty, if the backend does not tell. */
bool coord_followed_leader(const struct coord_follower *, struct coord_bytes *ret);

#endif
