/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hash ring, as tooz.hashring makes it with md5.
 *
 * Point j (from 1) of a member is md5 of its name repeated j + 1 times, read as one big-endian number.
 * An object belongs to the member of the first point above md5 of the object's name, past the last one
 * to that of the first point. The next in preference is the next other member clockwise.
 *
 * In Python the later of two members with one equal point has it; here both keep theirs, and the
 * one whose name is less comes first. Names that are one another repeated have such
 * points ("1" and "11"), because a point is the hash of the name repeated; which wins in Python depends on the
 * order in which it added them.
 */
#include "coord/ring.h"

#include <assert.h>
#include <endian.h>
#include <md5.h>

struct point {
	uint64_t high, low;
	uint32_t member;
};

struct member {
	struct coord_bytes name;
	uint32_t points;
	uint32_t seen; /* the number of the last look-up that came by */
};

struct coord_ring {
	struct point *points; /* in order */
	struct member *members; /* in order of their names */
	size_t points_len, members_len;
	uint32_t partitions, lookups;
	char *names;
};

/* ---- Points ---- */

static int compare_points(const void *one, const void *two)
{
	const struct point *a = one, *b = two;
	if (a->high != b->high)
		return a->high < b->high ? -1 : 1;
	if (a->low != b->low)
		return a->low < b->low ? -1 : 1;
	return (a->member > b->member) - (a->member < b->member);
}

static struct point finish(MD5_CTX context, uint32_t member)
{
	uint64_t digest[2];
	MD5Final((unsigned char *)digest, &context);
	return (struct point){be64toh(digest[0]), be64toh(digest[1]), member};
}

static struct point *hash_member(struct point *at, const struct member *member, uint32_t number)
{
	MD5_CTX context;
	MD5Init(&context);
	MD5Update(&context, (const unsigned char *)member->name.data, member->name.len);
	for (uint32_t i = 0; i < member->points; i++) {
		MD5Update(&context, (const unsigned char *)member->name.data, member->name.len);
		*at++ = finish(context, number);
	}
	return at;
}

/* ---- Members ---- */

static int compare_names(const void *one, const void *two)
{
	const struct member *a = one, *b = two;
	size_t shorter = a->name.len < b->name.len ? a->name.len : b->name.len;
	int order = shorter ? memcmp(a->name.data, b->name.data, shorter) : 0;
	return order ? order : (a->name.len > b->name.len) - (a->name.len < b->name.len);
}

/* What the ring will need; members that are not on it do not count. */
struct needs {
	size_t members, points, names;
};

static int count(
	const struct coord_ring_member *members, size_t len, uint32_t partitions, struct needs *ret)
{
	uint64_t hashed = 0;
	*ret = (struct needs){0};
	for (size_t i = 0; i < len; i++) {
		uint64_t weight = members[i].weight;
		if (weight == 0)
			continue;
		size_t left = COORD_RING_POINTS_MAX - ret->points;
		if (weight > left / partitions || members[i].name.len > COORD_RING_HASHED_MAX)
			return -EFBIG;
		ret->members++;
		ret->points += weight * partitions;
		ret->names += members[i].name.len;
		hashed += (weight * partitions + 1) * members[i].name.len;
		if (hashed > COORD_RING_HASHED_MAX)
			return -EFBIG;
	}
	return 0;
}

static void add_members(
	struct coord_ring *ring, const struct coord_ring_member *members, size_t len)
{
	char *name = ring->names;
	for (size_t i = 0; i < len; i++) {
		if (members[i].weight == 0)
			continue;
		struct coord_bytes from = members[i].name;
		if (from.len)
			memcpy(name, from.data, from.len);
		ring->members[ring->members_len++] = (struct member){
			.name = {name, from.len},
			.points = (uint32_t)members[i].weight * ring->partitions,
		};
		name += from.len;
	}
	if (ring->members_len)
		qsort(ring->members, ring->members_len, sizeof(*ring->members), compare_names);
}

/* ---- Taking over from the ring before ---- */

#define NOBODY UINT32_MAX

/* Which number the members of before have now, or NOBODY; marks those that need not be hashed again. */
static void match(const struct coord_ring *ring, const struct coord_ring *before, uint32_t *ret_now,
	bool *ret_known)
{
	size_t now = 0;
	for (size_t i = 0; i < before->members_len; i++) {
		const struct member *old = &before->members[i];
		int order = -1;
		while (now < ring->members_len &&
			(order = compare_names(&ring->members[now], old)) < 0)
			now++;
		bool same = now < ring->members_len && order == 0 &&
			    ring->members[now].points == old->points;
		ret_now[i] = same ? (uint32_t)now : NOBODY;
		if (same)
			ret_known[now] = true;
	}
}

/* Merges the points of before that are taken over with fresh ones, both in order, into the ring. */
static void merge(struct coord_ring *ring, const struct coord_ring *before, const uint32_t *now,
	const struct point *fresh, size_t fresh_len)
{
	struct point *at = ring->points;
	const struct point *end = fresh + fresh_len;
	for (size_t i = 0; i < before->points_len; i++) {
		struct point old = before->points[i];
		old.member = now[old.member];
		if (old.member == NOBODY)
			continue;
		while (fresh < end && compare_points(fresh, &old) < 0)
			*at++ = *fresh++;
		*at++ = old;
	}
	while (fresh < end)
		*at++ = *fresh++;
	assert((size_t)(at - ring->points) == ring->points_len);
}

static int fill_from(struct coord_ring *ring, const struct coord_ring *before)
{
	_cleanup_free_ uint32_t *now = calloc(before->members_len + 1, sizeof(*now));
	_cleanup_free_ bool *known = calloc(ring->members_len + 1, sizeof(*known));
	if (!now || !known)
		return -ENOMEM;
	match(ring, before, now, known);
	size_t len = 0;
	for (size_t i = 0; i < ring->members_len; i++)
		len += known[i] ? 0 : ring->members[i].points;
	_cleanup_free_ struct point *fresh = calloc(len + 1, sizeof(*fresh));
	if (!fresh)
		return -ENOMEM;
	struct point *at = fresh;
	for (size_t i = 0; i < ring->members_len; i++)
		if (!known[i])
			at = hash_member(at, &ring->members[i], (uint32_t)i);
	qsort(fresh, len, sizeof(*fresh), compare_points);
	merge(ring, before, now, fresh, len);
	return 0;
}

int coord_ring_new(const struct coord_ring_member *members, size_t len, uint32_t partitions,
	const struct coord_ring *before, struct coord_ring **ret)
{
	static const struct coord_ring empty = {0};
	struct needs needs;
	assert(partitions > 0);
	int r = count(members, len, partitions, &needs);
	if (r < 0)
		return r;
	struct coord_ring *ring = calloc(1, sizeof(*ring));
	if (!ring)
		return -ENOMEM;
	ring->partitions = partitions;
	ring->points_len = needs.points;
	ring->points = malloc((needs.points + 1) * sizeof(*ring->points));
	ring->members = malloc((needs.members + 1) * sizeof(*ring->members));
	ring->names = malloc(needs.names + 1);
	r = -ENOMEM;
	if (ring->points && ring->members && ring->names) {
		add_members(ring, members, len);
		assert(!before || before->partitions == partitions);
		r = fill_from(ring, before ? before : &empty);
	}
	if (r < 0)
		coord_ring_free(ring);
	else
		*ret = ring;
	return r;
}

void coord_ring_free(struct coord_ring *ring)
{
	if (!ring)
		return;
	free(ring->points);
	free(ring->members);
	free(ring->names);
	free(ring);
}

size_t coord_ring_len(const struct coord_ring *ring)
{
	return ring->members_len;
}

struct coord_bytes coord_ring_name(const struct coord_ring *ring, uint32_t member)
{
	assert(member < ring->members_len);
	return ring->members[member].name;
}

size_t coord_ring_points(const struct coord_ring *ring)
{
	return ring->points_len;
}

/* ---- Looking up ---- */

/* The first point above that of the object; past the last one: how many there are. */
static size_t find(const struct coord_ring *ring, struct coord_bytes object)
{
	MD5_CTX context;
	MD5Init(&context);
	MD5Update(&context, (const unsigned char *)object.data, object.len);
	/* Behind every point that is equal. */
	const struct point wanted = finish(context, UINT32_MAX);
	size_t low = 0, high = ring->points_len;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (compare_points(&ring->points[middle], &wanted) <= 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* A number that no member has seen. */
static uint32_t next_lookup(struct coord_ring *ring)
{
	if (++ring->lookups == 0) {
		for (size_t i = 0; i < ring->members_len; i++)
			ring->members[i].seen = 0;
		ring->lookups = 1;
	}
	return ring->lookups;
}

size_t coord_ring_prefer(
	struct coord_ring *ring, struct coord_bytes object, uint32_t *ret, size_t max)
{
	size_t found = 0, most = max < ring->members_len ? max : ring->members_len;
	size_t at = most ? find(ring, object) : 0;
	uint32_t lookup = next_lookup(ring);
	for (; found < most; at++) {
		if (at >= ring->points_len)
			at = 0;
		uint32_t member = ring->points[at].member;
		if (ring->members[member].seen == lookup)
			continue;
		ring->members[member].seen = lookup;
		ret[found++] = member;
	}
	return found;
}
