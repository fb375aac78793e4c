/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Following groups: see follow.h for what followers are told.
 *
 * One `followed` for each group that somebody follows: what the last read found, and a read that runs whenever
 * a notice, a change of our own, or, where nothing notifies, a timer says that there may be more. A read
 * that finds a difference replaces the state first and tells it then. Notices that come while a read
 * runs lead to one more, so a storm costs as many reads as can run after each other.
 *
 * Its memory goes in a task of its own, never while followers are told.
 */
#include "coord/follow.h"

#include "coord/core.h"

/* After a read that failed for a reason that may pass. */
enum { RETRY_MS = 500 };

struct member {
	struct coord_followed_member shown; /* first */
	size_t index;
	uint64_t born;
	uint8_t owner[16];
	char bytes[]; /* name, then data */
};

struct coord_followed {
	struct coord_node node; /* in coord->follows, by canonical key, until it has ended */
	struct coord_list link; /* in coord->followed */
	struct coord *coord;
	struct coord_list followers;
	struct member **members; /* sorted by name */
	size_t len;
	bool known; /* read at least once */
	bool leads; /* there is a leader */
	bool dirty; /* must be read */
	bool suspended, watched, ended;
	bool news; /* read since the last SETTLED */
	bool bare; /* too large to be read with the data */
	char *leader; /* NULL: out of memory, or its id is empty */
	size_t leader_len;
	struct coord_op *op;
	struct coord_task task;
	struct coord_timer timer;
	struct coord_bytes name;
	char bytes[]; /* the name as first given, then the canonical key */
};

static struct coord_key key_of(const struct coord_followed *group)
{
	return (struct coord_key){COORD_GROUP, group->name};
}

/* ---- telling ---- */

static void tell(
	struct coord_followed *group, enum coord_change change, struct coord_bytes name, int status)
{
	struct coord_list all;
	coord_list_init(&all);
	while (!coord_list_empty(&group->followers)) {
		struct coord_list *first = group->followers.next;
		coord_list_remove(first);
		coord_list_add(&all, first);
	}
	while (!coord_list_empty(&all)) {
		struct coord_follower *follower =
			coord_container(all.next, struct coord_follower, link);
		coord_list_remove(&follower->link);
		if (change == COORD_CHANGE_ENDED)
			follower->followed = NULL;
		else
			coord_list_add(&group->followers, &follower->link);
		bool first = change == COORD_CHANGE_SETTLED && !follower->settled;
		if (change == COORD_CHANGE_SETTLED
				? first || group->news
				: follower->settled || change == COORD_CHANGE_ENDED) {
			follower->settled = true;
			follower->fn(follower, change, name, status);
		}
	}
}

static void tell_name(
	struct coord_followed *group, enum coord_change change, const struct member *member)
{
	tell(group, change, member->shown.name, 0);
}

/* ---- what a read found ---- */

static int compare_names(struct coord_bytes a, struct coord_bytes b)
{
	int r = memcmp(a.data, b.data, a.len < b.len ? a.len : b.len);
	return r ? r : a.len < b.len ? -1 : a.len > b.len;
}

static int compare_rows(const void *a, const void *b)
{
	const struct coord_row *const *x = a, *const *y = b;
	return compare_names((*x)->name, (*y)->name);
}

static struct member *member_new(const struct coord_row *row)
{
	struct member *member = malloc(sizeof(*member) + row->name.len + row->data.len);
	if (!member)
		return NULL;
	*member = (struct member){.born = row->born};
	memcpy(member->owner, row->owner, sizeof(member->owner));
	if (row->name.len)
		memcpy(member->bytes, row->name.data, row->name.len);
	if (row->data.len)
		memcpy(member->bytes + row->name.len, row->data.data, row->data.len);
	member->shown.name = (struct coord_bytes){member->bytes, row->name.len};
	member->shown.data = (struct coord_bytes){member->bytes + row->name.len, row->data.len};
	return member;
}

/* Another life of the same name. What either side does not know is not compared. */
static bool reborn(const struct member *member, const struct coord_row *row)
{
	static const uint8_t unknown[16];
	if (member->born && row->born && member->born != row->born)
		return true;
	return memcmp(member->owner, unknown, 16) != 0 && memcmp(row->owner, unknown, 16) != 0 &&
	       memcmp(member->owner, row->owner, 16) != 0;
}

struct change {
	enum coord_change kind;
	struct member *member;
	bool dead; /* the member goes after it was told */
};

/* The difference of two states, sorted: those who left first. */
struct difference {
	struct member **members;
	struct change *left, *came; /* came: joins and updates */
	bool bare; /* data are not compared */
	size_t len, left_len, came_len;
};

static void difference_done(struct difference *difference)
{
	for (size_t i = 0; i < difference->left_len; i++)
		if (difference->left[i].dead)
			free(difference->left[i].member);
	free(difference->members);
	free(difference->left);
	free(difference->came);
}

static void leaves(struct difference *ret, struct member *member, bool told)
{
	ret->left[ret->left_len++] =
		(struct change){told ? COORD_CHANGE_LEAVE : COORD_CHANGE_SETTLED, member, true};
}

/* Fills in what becomes of one member or of none (old is NULL), as row or none (NULL) says. */
static int compare_one(struct difference *ret, struct member *old, const struct coord_row *row)
{
	if (!row) {
		leaves(ret, old, true);
		return 0;
	}
	struct member *now = old;
	bool again = old && reborn(old, row);
	bool same = ret->bare || (old && coord_bytes_equal(old->shown.data, row->data));
	if (!old || again || !same) {
		now = member_new(row);
		if (!now)
			return -ENOMEM;
		ret->came[ret->came_len++] = (struct change){
			old && !again ? COORD_CHANGE_UPDATE : COORD_CHANGE_JOIN, now, false};
		if (old)
			leaves(ret, old, again);
	} else if (row->born) {
		old->born = row->born;
	}
	ret->members[ret->len++] = now;
	return 0;
}

static int compare(
	struct coord_followed *group, struct coord_row **rows, size_t len, struct difference *ret)
{
	size_t all = group->len + len + 1, i = 0, j = 0;
	ret->members = malloc((len + 1) * sizeof(*ret->members));
	ret->left = malloc(all * sizeof(*ret->left));
	ret->came = malloc(all * sizeof(*ret->came));
	if (!ret->members || !ret->left || !ret->came)
		return -ENOMEM;
	while (i < group->len || j < len) {
		int order = i == group->len ? 1
			    : j == len
				    ? -1
				    : compare_names(group->members[i]->shown.name, rows[j]->name);
		struct member *old = order <= 0 ? group->members[i++] : NULL;
		struct coord_row *row = order >= 0 ? rows[j++] : NULL;
		if (row && j < len && coord_bytes_equal(row->name, rows[j]->name))
			j++; /* a store that names one twice */
		int r = compare_one(ret, old, row);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Undoes what compare made, so that the state stays as it was. */
static void difference_undo(struct difference *difference)
{
	for (size_t i = 0; i < difference->came_len; i++)
		free(difference->came[i].member);
	difference->left_len = 0;
	difference_done(difference);
}

static void tell_difference(struct coord_followed *group, const struct difference *difference)
{
	for (size_t i = 0; i < difference->left_len; i++)
		if (difference->left[i].kind == COORD_CHANGE_LEAVE)
			tell_name(group, COORD_CHANGE_LEAVE, difference->left[i].member);
	for (size_t i = 0; i < difference->came_len; i++)
		tell_name(group, difference->came[i].kind, difference->came[i].member);
}

static int take_members(struct coord_followed *group, struct coord_row **rows, size_t len)
{
	struct difference difference = {.bare = group->bare};
	qsort(rows, len, sizeof(*rows), compare_rows);
	int r = compare(group, rows, len, &difference);
	if (r < 0) {
		difference_undo(&difference);
		return r;
	}
	free(group->members);
	group->members = difference.members;
	group->len = difference.len;
	difference.members = NULL;
	for (size_t i = 0; i < group->len; i++)
		group->members[i]->index = i;
	if (group->known)
		tell_difference(group, &difference);
	difference_done(&difference);
	return 0;
}

static int take_leader(struct coord_followed *group, const struct coord_row *row)
{
	struct coord_bytes before = {group->leader, group->leader_len};
	bool same = group->leads == (row != NULL) && (!row || coord_bytes_equal(before, row->name));
	if (same)
		return 0;
	char *id = NULL;
	if (row && row->name.len) {
		id = malloc(row->name.len);
		if (!id)
			return -ENOMEM;
		memcpy(id, row->name.data, row->name.len);
	}
	free(group->leader);
	group->leader = id;
	group->leader_len = id ? row->name.len : 0;
	group->leads = row != NULL;
	/* Whoever reads leaders/ after this must not see an older one. */
	core_views_touch(group->coord, COORD_LEADER, group->name);
	if (!group->known)
		return 0;
	tell(group, row ? COORD_CHANGE_LEADER : COORD_CHANGE_NO_LEADER,
		(struct coord_bytes){group->leader, group->leader_len}, 0);
	return 0;
}

static int take(struct coord_followed *group, struct coord_op *op)
{
	struct coord_row **rows = malloc((op->rows_len + 1) * sizeof(*rows)), *leader = NULL;
	size_t len = 0;
	if (!rows)
		return -ENOMEM;
	for (struct coord_row *row = op->rows; row; row = row->next) {
		if (row->flags & COORD_ROW_LEADER)
			leader = row;
		else
			rows[len++] = row;
	}
	int r = take_members(group, rows, len);
	if (r == 0)
		r = take_leader(group, leader);
	if (r == 0)
		group->known = group->news = true;
	free(rows);
	return r;
}

/* ---- life ---- */

static void followed_free(struct coord_followed *group)
{
	struct coord *coord = group->coord;
	coord_timer_stop(coord->loop, &group->timer);
	coord_loop_undefer(coord->loop, &group->task);
	if (group->op)
		core_op_abandon(group->op);
	if (group->watched)
		core_watch_unref(coord, key_of(group));
	if (!group->ended)
		coord_table_remove(&coord->follows, &group->node);
	coord_list_remove(&group->link);
	for (size_t i = 0; i < group->len; i++)
		free(group->members[i]);
	free(group->members);
	free(group->leader);
	free(group);
}

/* It is not found any more; the task frees it. */
static void end(struct coord_followed *group, int status)
{
	struct coord *coord = group->coord;
	coord_table_remove(&coord->follows, &group->node);
	group->ended = true;
	coord_timer_stop(coord->loop, &group->timer);
	core_views_touch(coord, COORD_GROUP, group->name);
	tell(group, COORD_CHANGE_ENDED, (struct coord_bytes){0}, status);
	coord_loop_defer(coord->loop, &group->task);
}

static void advance(struct coord_followed *group);

static void retry_later(struct coord_followed *group, uint64_t ms)
{
	struct coord_loop *loop = group->coord->loop;
	coord_timer_start(loop, &group->timer, coord_now_ms(loop) + ms);
}

static void read_done(struct coord_op *op, void *user)
{
	struct coord_followed *group = user;
	struct coord *coord = group->coord;
	group->op = NULL;
	int r = op->status;
	if (r == 0 && (op->flags & COORD_OP_WATCH) && !group->watched)
		group->watched = core_watch_ref(coord, key_of(group)) == 0;
	if (r == 0)
		r = take(group, op);
	/* A login that was good is refused for a while only, it is to be hoped. */
	bool again = r == -ENOMEM || r == -ECANCELED || core_transient(r) ||
		     (r == -EACCES && group->known);
	core_op_free(op);
	if (r == -EFBIG && !group->bare) {
		group->bare = group->dirty = true;
		advance(group);
		return;
	}
	if (r < 0 && !again) {
		end(group, r);
		return;
	}
	if (r < 0) {
		group->dirty = true;
		retry_later(group, RETRY_MS);
		return;
	}
	if (!(coord->session.can & COORD_CAN_NOTIFY))
		retry_later(group, coord->driver->poll_ms);
	advance(group);
}

static void read_again(struct coord_followed *group)
{
	struct coord *coord = group->coord;
	struct coord_op *op = core_op_new(coord, COORD_CALL_GROUP_READ, key_of(group),
		(struct coord_bytes){0}, (struct coord_bytes){0});
	if (!op) {
		retry_later(group, RETRY_MS);
		return;
	}
	op->flags = group->bare ? 0 : COORD_OP_WITH_DATA;
	if (coord->session.can & COORD_CAN_NOTIFY)
		op->flags |= COORD_OP_WATCH;
	op->deadline_ms = coord_now_ms(coord->loop) + coord->config->timeout_ms;
	group->dirty = false;
	group->op = op;
	coord_timer_stop(coord->loop, &group->timer);
	core_op_start(op, read_done, group);
}

/* Reads if there may be more to know; else all who follow know it all. */
static void advance(struct coord_followed *group)
{
	if (group->op || group->coord->state != COORD_CONNECTED)
		return;
	if (group->dirty) {
		read_again(group);
		return;
	}
	if (group->suspended) {
		group->suspended = false;
		tell(group, COORD_CHANGE_RESUMED, (struct coord_bytes){0}, 0);
	}
	tell(group, COORD_CHANGE_SETTLED, (struct coord_bytes){0}, 0);
	group->news = false;
}

static void on_task(struct coord_task *task)
{
	struct coord_followed *group = coord_container(task, struct coord_followed, task);
	if (coord_list_empty(&group->followers)) {
		followed_free(group);
		return;
	}
	/* A mount that stops has something else to tell: its end. */
	bool away = group->coord->state != COORD_CONNECTED && !group->coord->stopping;
	if (away && group->known && !group->suspended) {
		group->suspended = true;
		tell(group, COORD_CHANGE_SUSPENDED, (struct coord_bytes){0}, 0);
	}
	advance(group);
}

static void on_timer(struct coord_timer *timer)
{
	struct coord_followed *group = coord_container(timer, struct coord_followed, timer);
	group->dirty = true;
	advance(group);
}

static struct coord_followed *followed_find(
	struct coord *coord, struct coord_bytes name, char *ret_key, size_t *ret_len, int *ret)
{
	*ret = core_map_name(coord, COORD_GROUP, name, ret_key, ret_len);
	if (*ret < 0)
		return NULL;
	return (struct coord_followed *)coord_table_find(
		&coord->follows, COORD_GROUP, (struct coord_bytes){ret_key, *ret_len});
}

static struct coord_followed *followed_new(
	struct coord *coord, struct coord_bytes name, struct coord_bytes key)
{
	struct coord_followed *group = malloc(sizeof(*group) + name.len + key.len + 1);
	if (!group)
		return NULL;
	*group = (struct coord_followed){
		.coord = coord, .dirty = true, .task.fn = on_task, .timer.fn = on_timer};
	memcpy(group->bytes, name.data, name.len);
	memcpy(group->bytes + name.len, key.data, key.len);
	group->name = (struct coord_bytes){group->bytes, name.len};
	group->node.kind = COORD_GROUP;
	group->node.key = (struct coord_bytes){group->bytes + name.len, key.len};
	coord_list_init(&group->followers);
	if (coord_table_add(&coord->follows, &group->node) < 0) {
		free(group);
		return NULL;
	}
	coord_list_add(&coord->followed, &group->link);
	return group;
}

int coord_follow(struct coord *coord, struct coord_bytes name, struct coord_follower *follower)
{
	char key[256];
	size_t len;
	int r;
	struct coord_followed *group = followed_find(coord, name, key, &len, &r);
	if (r < 0)
		return r;
	if (!group)
		group = followed_new(coord, name, (struct coord_bytes){key, len});
	if (!group)
		return -ENOMEM;
	follower->followed = group;
	follower->settled = false;
	coord_list_add(&group->followers, &follower->link);
	coord_loop_defer(coord->loop, &group->task);
	return 0;
}

void coord_unfollow(struct coord_follower *follower)
{
	struct coord_followed *group = follower->followed;
	if (!group)
		return;
	follower->followed = NULL;
	coord_list_remove(&follower->link);
	coord_loop_defer(group->coord->loop, &group->task);
}

/* ---- the state ---- */

bool coord_followed_current(const struct coord_follower *follower)
{
	const struct coord_followed *group = follower->followed;
	return group && group->known && !group->dirty && !group->op && !group->suspended;
}

const struct coord_followed_member *coord_followed_next(
	const struct coord_follower *follower, const struct coord_followed_member *after)
{
	const struct coord_followed *group = follower->followed;
	size_t i = after ? ((const struct member *)after)->index + 1 : 0;
	return group && i < group->len ? &group->members[i]->shown : NULL;
}

bool coord_followed_has_data(const struct coord_follower *follower)
{
	return follower->followed && !follower->followed->bare;
}

size_t coord_followed_len(const struct coord_follower *follower)
{
	return follower->followed ? follower->followed->len : 0;
}

bool coord_followed_leader(const struct coord_follower *follower, struct coord_bytes *ret)
{
	const struct coord_followed *group = follower->followed;
	*ret = (struct coord_bytes){0};
	if (!group || !group->leads)
		return false;
	*ret = (struct coord_bytes){group->leader, group->leader_len};
	return true;
}

/* ---- what the core tells ---- */

void core_follows_touch(struct coord *coord, struct coord_bytes name)
{
	char key[256];
	size_t len;
	int r;
	if (!coord->follows.len)
		return;
	struct coord_followed *group = followed_find(coord, name, key, &len, &r);
	if (!group)
		return;
	group->dirty = true;
	coord_loop_defer(coord->loop, &group->task);
}

void core_follows_state(struct coord *coord)
{
	struct coord_followed *group;
	coord_list_each (group, &coord->followed, link) {
		group->dirty = true;
		coord_loop_defer(coord->loop, &group->task);
	}
}

void core_follows_done(struct coord *coord)
{
	while (!coord_list_empty(&coord->followed)) {
		struct coord_followed *group =
			coord_container(coord->followed.next, struct coord_followed, link);
		while (!coord_list_empty(&group->followers))
			coord_unfollow(coord_container(
				group->followers.next, struct coord_follower, link));
		followed_free(group);
	}
	coord_table_done(&coord->follows);
}
