/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rings/: who is responsible for an object. A directory for each group, and in it a file for every name
 * there is, which lists nothing and holds the members in order of preference.
 *
 * A group whose ring was asked for is followed for a while, so that a look-up is answered from memory.
 * When the group changes the core reads it again; the new ring is made from the last one by the next
 * look-up, so once for all that changed between two. A request that comes while the core has still to
 * read what changed waits for that, no longer than the coordinator's timeout.
 *
 * Idle rings give way, the one used longest ago first, when there are too many of them or they take too
 * much memory. One that somebody waits for stays.
 */
#include "fs/tree.h"

#include <syslog.h>

#include "coord/follow.h"
#include "coord/ring.h"

enum { KEEP_MS = 60000, KEEP_MAX = 256 };
/* Points that all rings together have, besides the one that was used last: 24 bytes each. */
#define KEEP_POINTS (4u << 20)

struct ring {
	struct coord_node node; /* fs->rings; the key is name */
	struct fs *fs;
	struct coord_list used; /* fs->rings_used, the one used last at the end */
	struct coord_follower follower;
	struct coord_list calls; /* that wait until the follower is current, by call->blocked */
	struct coord_timer keep, late;
	bool stale; /* the members are not those of the ring */
	int status; /* of the last build */
	struct coord_ring *ring; /* NULL: none yet, or it could not be built */
	char *lines; /* of all members, in the ring's order */
	size_t *ends; /* where the line of each ends */
	char name[];
};

static void ring_free(struct ring *ring)
{
	struct fs *fs = ring->fs;
	coord_unfollow(&ring->follower);
	coord_timer_stop(fs->loop, &ring->keep);
	coord_timer_stop(fs->loop, &ring->late);
	coord_list_remove(&ring->used);
	coord_table_remove(&fs->rings, &ring->node);
	if (ring->ring)
		fs->rings_points -= coord_ring_points(ring->ring);
	coord_ring_free(ring->ring);
	free(ring->lines);
	free(ring->ends);
	free(ring);
}

void fs_rings_done(struct fs *fs)
{
	while (!coord_list_empty(&fs->rings_used))
		ring_free(coord_container(fs->rings_used.next, struct ring, used));
	coord_table_done(&fs->rings);
}

/* ---- Building ---- */

/* How long the lines of all are. */
static size_t lines_len(const struct ring *ring)
{
	size_t len = coord_ring_len(ring->ring);
	return len ? ring->ends[len - 1] : 0;
}

static struct coord_bytes line_of(const struct ring *ring, uint32_t member)
{
	size_t from = member ? ring->ends[member - 1] : 0;
	return (struct coord_bytes){ring->lines + from, ring->ends[member] - from};
}

/* A name that is too long for a file is here in full: whose the object is must not be left out. */
static int make_lines(const struct coord_ring *ring, char **ret_lines, size_t **ret_ends)
{
	uint32_t members = (uint32_t)coord_ring_len(ring);
	size_t size = 1, len = 0;
	for (uint32_t i = 0; i < members; i++)
		size += 3 * coord_ring_name(ring, i).len + 1;
	char *lines = malloc(size);
	size_t *ends = malloc((members + 1) * sizeof(*ends));
	if (!lines || !ends) {
		free(lines);
		free(ends);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < members; i++) {
		len += coord_name_escape(coord_ring_name(ring, i), lines + len);
		lines[len++] = '\n';
		ends[i] = len;
	}
	char *fitting = realloc(lines, len + 1);
	*ret_lines = fitting ? fitting : lines;
	*ret_ends = ends;
	return 0;
}

static int make_ring(const struct ring *ring, struct coord_ring **ret)
{
	size_t len = 0, all = coord_followed_len(&ring->follower);
	if (!coord_followed_has_data(&ring->follower))
		return -EFBIG;
	_cleanup_free_ struct coord_ring_member *members = malloc((all + 1) * sizeof(*members));
	if (!members)
		return -ENOMEM;
	const struct coord_followed_member *member = NULL;
	while (len < all && (member = coord_followed_next(&ring->follower, member)))
		members[len++] =
			(struct coord_ring_member){member->name, coord_caps_weight(member->data)};
	return coord_ring_new(
		members, len, (uint32_t)ring->fs->options.partitions, ring->ring, ret);
}

/* Takes these over; NULL: there is none. */
static void set_ring(struct ring *ring, struct coord_ring *made, char *lines, size_t *ends)
{
	struct fs *fs = ring->fs;
	if (ring->ring)
		fs->rings_points -= coord_ring_points(ring->ring);
	if (made)
		fs->rings_points += coord_ring_points(made);
	coord_ring_free(ring->ring);
	free(ring->lines);
	free(ring->ends);
	ring->ring = made;
	ring->lines = lines;
	ring->ends = ends;
}

static int build(struct ring *ring)
{
	struct coord_ring *made = NULL;
	char *lines = NULL;
	size_t *ends = NULL;
	int r = make_ring(ring, &made);
	if (r == 0)
		r = make_lines(made, &lines, &ends);
	if (r < 0) {
		coord_ring_free(made);
		made = NULL;
	}
	if (r != -ENOMEM)
		ring->stale = false;
	ring->status = r;
	ring->fs->rings_built++;
	set_ring(ring, made, lines, ends);
	if (r == -EFBIG) {
		char file[COORD_NAME_MAX + 1] = "";
		coord_name_encode(ring->node.key, file);
		coord_log(LOG_WARNING,
			"rings/%s: the weights of its members are too large, or there are too many "
			"of them: no ring is made",
			file);
	}
	return r;
}

/* ---- Answers ---- */

static void object_attr(const struct ring *ring, struct fs_inode *inode, struct stat *ret)
{
	fs_attr(ring->fs, inode, ret);
	ret->st_size = (off_t)lines_len(ring);
}

static void fill(struct fs_call *call, const struct ring *ring)
{
	size_t len = 0, members = coord_ring_len(ring->ring);
	char *content = malloc(lines_len(ring) + 1);
	_cleanup_free_ uint32_t *order = malloc((members + 1) * sizeof(*order));
	if (!content || !order) {
		free(content);
		fs_call_error(call, ENOMEM);
		return;
	}
	members = coord_ring_prefer(ring->ring, call->inode->name, order, members);
	for (size_t i = 0; i < members; i++) {
		struct coord_bytes line = line_of(ring, order[i]);
		memcpy(content + len, line.data, line.len);
		len += line.len;
	}
	fs_handle_fill(call, content, len);
}

/* What a call without a handle is about. */
enum { WANTS_ENTRY, WANTS_ATTR };

static void answer(struct fs_call *call, const struct ring *ring)
{
	struct stat attr;
	if (call->handle) {
		fill(call, ring);
		return;
	}
	object_attr(ring, call->inode, &attr);
	if (call->flags == WANTS_ENTRY)
		fs_call_entry(call, &attr);
	else
		fs_call_attr(call, &attr);
}

/* From a state that is current. */
static void serve(struct fs_call *call, struct ring *ring)
{
	int r = ring->stale ? build(ring) : ring->status;
	if (r < 0)
		fs_call_error(call, r);
	else
		answer(call, ring);
}

/* ---- Following ---- */

static struct fs_call *first_call(const struct ring *ring)
{
	if (coord_list_empty(&ring->calls))
		return NULL;
	return coord_container(ring->calls.next, struct fs_call, blocked);
}

static void serve_all(struct ring *ring)
{
	struct fs_call *call;
	while ((call = first_call(ring))) {
		coord_list_remove(&call->blocked);
		serve(call, ring);
	}
	coord_timer_stop(ring->fs->loop, &ring->late);
}

static void ask(struct fs_call *);

/* Nothing is followed any more: a group of that name that comes later is another, and may have come while
 * this one's end was read. So "no such group" is told after a read that began later than the request. */
static void end(struct ring *ring, int status)
{
	struct coord_list calls = COORD_LIST_INIT(calls);
	struct fs_call *call;
	while ((call = first_call(ring))) {
		coord_list_remove(&call->blocked);
		coord_list_add(&calls, &call->blocked);
	}
	ring_free(ring);
	while (!coord_list_empty(&calls)) {
		call = coord_container(calls.next, struct fs_call, blocked);
		coord_list_remove(&call->blocked);
		if (status != -ENOENT || call->again) {
			fs_call_error(call, status);
			continue;
		}
		call->again = true;
		ask(call);
	}
}

static void on_change(struct coord_follower *follower, enum coord_change change,
	struct coord_bytes name, int status)
{
	struct ring *ring = coord_container(follower, struct ring, follower);
	switch (change) {
	case COORD_CHANGE_JOIN:
	case COORD_CHANGE_UPDATE:
	case COORD_CHANGE_LEAVE:
		ring->stale = true;
		return;
	case COORD_CHANGE_RESUMED:
	case COORD_CHANGE_SETTLED:
		if (coord_followed_current(follower))
			serve_all(ring);
		return;
	case COORD_CHANGE_ENDED:
		end(ring, status);
		return;
	case COORD_CHANGE_LEADER:
	case COORD_CHANGE_NO_LEADER:
	case COORD_CHANGE_SUSPENDED:
		return;
	}
}

/* The oldest have waited for as long as anything may. */
static void on_late(struct coord_timer *timer)
{
	struct ring *ring = coord_container(timer, struct ring, late);
	struct fs *fs = ring->fs;
	enum coord_state state = coord_state(fs->coord);
	int code = state == COORD_CONNECTED ? ETIMEDOUT : EHOSTDOWN;
	struct fs_call *call;
	uint64_t now = coord_now_ms(fs->loop);
	while ((call = first_call(ring)) && call->due_ms <= now)
		fs_call_error(call, code);
	if (call)
		coord_timer_start(fs->loop, &ring->late, call->due_ms);
}

static void wait_for(struct fs_call *call, struct ring *ring)
{
	struct fs *fs = call->fs;
	if (!call->again)
		call->due_ms = coord_now_ms(fs->loop) + coord_config_of(fs->coord)->timeout_ms;
	coord_list_add(&ring->calls, &call->blocked);
	if (!ring->late.active)
		coord_timer_start(fs->loop, &ring->late, call->due_ms);
}

/* ---- Keeping ---- */

static void use(struct ring *ring)
{
	struct fs *fs = ring->fs;
	coord_list_remove(&ring->used);
	coord_list_add(&fs->rings_used, &ring->used);
	coord_timer_start(fs->loop, &ring->keep, coord_now_ms(fs->loop) + KEEP_MS);
}

static void on_keep(struct coord_timer *timer)
{
	struct ring *ring = coord_container(timer, struct ring, keep);
	if (coord_list_empty(&ring->calls))
		ring_free(ring);
	else
		use(ring);
}

/* Lets idle ones go until the rest is within the limits; never the one used last. */
static void limit(struct fs *fs)
{
	struct ring *ring, *after;
	coord_list_each_safe (ring, after, &fs->rings_used, used) {
		bool last = ring->used.next == &fs->rings_used;
		if (last || (fs->rings.len <= KEEP_MAX && fs->rings_points <= KEEP_POINTS))
			return;
		if (coord_list_empty(&ring->calls))
			ring_free(ring);
	}
}

static int ring_new(struct fs *fs, struct coord_bytes name, struct ring **ret)
{
	struct ring *ring = calloc(1, sizeof(*ring) + name.len);
	if (!ring)
		return -ENOMEM;
	memcpy(ring->name, name.data, name.len);
	ring->fs = fs;
	ring->node.key = (struct coord_bytes){ring->name, name.len};
	ring->follower.fn = on_change;
	ring->keep.fn = on_keep;
	ring->late.fn = on_late;
	ring->stale = true;
	coord_list_init(&ring->calls);
	coord_list_init(&ring->used);
	int r = coord_table_add(&fs->rings, &ring->node);
	if (r < 0) {
		free(ring);
		return r;
	}
	r = coord_follow(fs->coord, name, &ring->follower);
	if (r < 0) {
		ring_free(ring);
		return r;
	}
	*ret = ring;
	return 0;
}

/* ---- Calls ---- */

static struct coord_bytes group_of(const struct fs_call *call)
{
	return call->inode->parent->name;
}

static void ask(struct fs_call *call)
{
	struct fs *fs = call->fs;
	struct coord_node *node = coord_table_find(&fs->rings, 0, group_of(call));
	struct ring *ring = node ? coord_container(node, struct ring, node) : NULL;
	int r = ring ? 0 : ring_new(fs, group_of(call), &ring);
	if (r < 0) {
		fs_call_error(call, r == -EINVAL ? -ENOENT : r);
		return;
	}
	use(ring);
	r = coord_in_vain(fs->coord, coord_config_of(fs->coord)->timeout_ms);
	if (coord_followed_current(&ring->follower))
		serve(call, ring);
	else if (r < 0)
		fs_call_error(call, r);
	else
		wait_for(call, ring);
	limit(fs);
}

/* A process sees what its own close has changed in the group. */
static void begin(struct fs_call *call)
{
	struct fs *fs = call->fs;
	struct fs_inode *group = fs_inode_find(fs, fs->fixed[FS_GROUPS], FS_GROUP, group_of(call));
	if (group)
		fs_call_after_changes(call, group, ask);
	else
		ask(call);
}

static void begin_plain(fuse_req_t req, struct fs_inode *inode, int wants)
{
	struct fs_call *call = fs_call_new(req, inode, NULL);
	if (!call)
		return;
	call->flags = wants;
	/* The kernel holds the directory while it looks up. */
	if (wants == WANTS_ENTRY && coord_state(call->fs->coord) == COORD_SUSPENDED)
		fs_call_error(call, EHOSTDOWN);
	else
		begin(call);
}

static void object_lookup(fuse_req_t req, struct fs_inode *dir, const char *file)
{
	struct fs *fs = fs_of(req);
	char buf[COORD_NAME_MAX + 1];
	struct coord_bytes name;
	int r = fs_name_decode(file, false, buf, &name);
	struct fs_inode *inode = r < 0 ? NULL : fs_inode_get(fs, dir, FS_OBJECT, name);
	if (!inode) {
		fuse_reply_err(req, r < 0 ? -r : ENOMEM);
		return;
	}
	begin_plain(req, inode, WANTS_ENTRY);
	fs_inode_unref(fs, inode);
}

static void object_getattr(fuse_req_t req, struct fs_inode *inode)
{
	begin_plain(req, inode, WANTS_ATTR);
}

static void object_open(fuse_req_t req, struct fs_inode *inode, const struct fuse_file_info *fi)
{
	struct fs_call *call = fs_handle_open_read_only(req, inode, fi);
	if (call)
		fs_call_opened(call);
}

static void looked(void *user, int status, const struct coord_lock_info *unused)
{
	struct fs_call *call = user;
	call->wait = NULL;
	if (status < 0)
		fs_call_error(call, status);
	else
		fs_dirs_filled(call, NULL, 0);
}

/* Nothing is listed, for any name is there; but the group has to be. */
static void ring_list(struct fs_call *call)
{
	struct coord *coord = call->fs->coord;
	if (coord_group_peek(coord, call->inode->name) == 0)
		fs_dirs_filled(call, NULL, 0);
	else
		fs_call_started(call,
			coord_group_look(coord, call->inode->name, looked, call, &call->wait));
}

const struct fs_type fs_type_rings = {
	.is_dir = true,
	.child = FS_RING,
	.lookup = fs_groups_lookup,
	.list = fs_groups_list,
	.mode = fs_fixed_mode,
	.getattr = fs_reply_plain_attr,
};

const struct fs_type fs_type_ring = {
	.is_dir = true,
	.child = FS_OBJECT,
	.lookup = object_lookup,
	.list = ring_list,
	.mode = fs_fixed_mode,
	.getattr = fs_reply_plain_attr,
};

const struct fs_type fs_type_object = {
	.mode = fs_read_only_mode,
	.getattr = object_getattr,
	.open = object_open,
	.read = begin,
};
