/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who holds a lock, by name, and whether there is a group: one read for all who ask, kept while a watch
 * guards it. And the watches themselves, counted, because a waiter and a view may use the same one.
 *
 * A view is fresh from the answer of a read that armed the watch until the next notice. Who asks while
 * a read runs waits for the one after it, which begins later than the question.
 *
 * The view of a group is its existence alone: each path walk below a group asks for that, and must cost
 * neither a listing nor, while nothing changes, a round trip. That there is none is never
 * answered from a view.
 *
 * Views and watches go by the backend's canonical key: two names with one key are one.
 */
#include "coord/core.h"

/* A view is kept for a while after its last read. Names can be made up without end: there are so many at most
 * that nobody asks, and the oldest gives way. */
enum { KEEP_MS = 60000, KEEP_MAX = 10240 };

struct watch {
	struct coord_node node;
	uint32_t refs;
	char canon[];
};

struct view {
	struct coord_node node;
	struct coord *coord;
	struct coord_key key;
	struct coord_op *op;
	struct coord_list asking, next; /* coord_req by view_link */
	struct coord_timer keep;
	struct coord_list kept; /* coord->views_kept, in order of reading, unless a read runs */
	bool watched, fresh, dirty; /* dirty: a notice came while the read ran */
	uint64_t notices;
	struct coord_row row; /* held: row.mode is not NONE */
	char owner[256];
	char name[]; /* as first named, and behind it the canonical key */
};

int core_watch_ref(struct coord *coord, struct coord_key key)
{
	char canon[256];
	size_t len;
	int r = core_map_name(coord, key.kind, key.name, canon, &len);
	if (r < 0)
		return r;
	struct watch *watch = (struct watch *)coord_table_find(
		&coord->watches, key.kind, (struct coord_bytes){canon, len});
	if (!watch) {
		watch = calloc(1, sizeof(*watch) + len + 1);
		if (!watch)
			return -ENOMEM;
		memcpy(watch->canon, canon, len);
		watch->node.kind = key.kind;
		watch->node.key = (struct coord_bytes){watch->canon, len};
		if (coord_table_add(&coord->watches, &watch->node) < 0) {
			free(watch);
			return -ENOMEM;
		}
	}
	watch->refs++;
	return 0;
}

static struct coord_node *find(struct coord *coord, const struct coord_table *table,
	enum coord_kind kind, struct coord_bytes name)
{
	char canon[256];
	size_t len;
	if (core_map_name(coord, kind, name, canon, &len) < 0)
		return NULL;
	return coord_table_find(table, kind, (struct coord_bytes){canon, len});
}

void core_watch_unref(struct coord *coord, struct coord_key key)
{
	struct watch *watch = (struct watch *)find(coord, &coord->watches, key.kind, key.name);
	if (!watch || --watch->refs > 0)
		return;
	if (coord->driver->unwatch && coord->session.open)
		coord->driver->unwatch(&coord->session, key);
	coord_table_remove(&coord->watches, &watch->node);
	free(watch);
}

static struct view *view_find(struct coord *coord, enum coord_kind kind, struct coord_bytes name)
{
	return (struct view *)find(coord, &coord->views, kind, name);
}

static void view_unkeep(struct view *view)
{
	struct coord *coord = view->coord;
	coord_timer_stop(coord->loop, &view->keep);
	if (!coord_list_empty(&view->kept))
		coord->views_kept_len--;
	coord_list_remove(&view->kept);
}

static void view_free(struct view *view)
{
	struct coord *coord = view->coord;
	view_unkeep(view);
	if (view->op)
		core_op_abandon(view->op);
	if (view->watched)
		core_watch_unref(coord, view->key);
	coord_table_remove(&coord->views, &view->node);
	free(view);
}

static void view_over(struct coord_timer *timer)
{
	view_free(coord_container(timer, struct view, keep));
}

/* Nobody asks for it now. */
static void view_keep(struct view *view)
{
	struct coord *coord = view->coord;
	view_unkeep(view);
	coord_timer_start(coord->loop, &view->keep, coord_now_ms(coord->loop) + KEEP_MS);
	if (coord->views_kept_len >= KEEP_MAX)
		view_free(coord_container(coord->views_kept.next, struct view, kept));
	coord_list_add(&coord->views_kept, &view->kept);
	coord->views_kept_len++;
}

static struct view *view_get(struct coord *coord, enum coord_kind kind, struct coord_bytes name)
{
	char canon[256];
	size_t len;
	if (core_map_name(coord, kind, name, canon, &len) < 0)
		return NULL;
	struct view *view = (struct view *)coord_table_find(
		&coord->views, kind, (struct coord_bytes){canon, len});
	if (view)
		return view;
	view = calloc(1, sizeof(*view) + name.len + len + 2);
	if (!view)
		return NULL;
	memcpy(view->name, name.data, name.len);
	memcpy(view->name + name.len + 1, canon, len);
	view->coord = coord;
	view->key = (struct coord_key){kind, {view->name, name.len}};
	view->node.kind = kind;
	view->node.key = (struct coord_bytes){view->name + name.len + 1, len};
	view->keep.fn = view_over;
	coord_list_init(&view->kept);
	coord_list_init(&view->asking);
	coord_list_init(&view->next);
	if (coord_table_add(&coord->views, &view->node) == 0)
		return view;
	free(view);
	return NULL;
}

/* Where this mount shares the lock the backend knows who does so beside: one for each other mount. */
static void add_others(const struct view *view, struct coord_lock_info *ret)
{
	if (view->row.mode == COORD_SHARED && view->row.holders > 1)
		ret->holders += view->row.holders - 1;
}

static void view_info(struct view *view, struct coord_lock_info *ret)
{
	if (core_locks_info(view->coord, view->key.kind, view->key.name, ret)) {
		if (ret->mode == COORD_SHARED)
			add_others(view, ret);
		return;
	}
	*ret = (struct coord_lock_info){
		.held = view->row.mode != COORD_NONE,
		.mode = view->row.mode,
		.owner = view->row.data,
		.token = view->row.token,
		.since_us = view->row.created_us,
		.pid = view->row.pid,
		.holders = view->row.holders,
		.waiters = core_locks_waiters(view->coord, view->key.kind, view->key.name),
	};
}

static void view_take(struct view *view, const struct coord_op *op)
{
	view->row = (struct coord_row){0};
	if (!op->rows || view->key.kind == COORD_GROUP)
		return;
	view->row = *op->rows;
	view->row.next = NULL;
	if (view->row.mode == COORD_NONE)
		view->row.mode = COORD_EXCLUSIVE;
	if (view->row.data.len > sizeof(view->owner))
		view->row.data.len = 0;
	memcpy(view->owner, view->row.data.data ? view->row.data.data : "", view->row.data.len);
	view->row.data.data = view->owner;
}

static void view_read(struct view *view);

static void view_answer(struct view *view, int status)
{
	struct coord_lock_info info = {0};
	view_info(view, &info);
	while (!coord_list_empty(&view->asking)) {
		struct coord_req *req =
			coord_container(view->asking.next, struct coord_req, view_link);
		coord_list_remove(&req->view_link);
		if (status == 0 && req->look_fn) {
			coord_look_fn *fn = req->look_fn;
			req->look_fn = NULL;
			fn(req->user, 0, &info);
		}
		core_req_answer(req, status, NULL, 0);
	}
}

static void view_done(struct coord_op *op, void *user)
{
	struct view *view = user;
	struct coord *coord = view->coord;
	view->op = NULL;
	bool missing = view->key.kind == COORD_GROUP && op->status == -ENOENT;
	if (op->status == 0 || missing) {
		view_take(view, op);
		if ((op->flags & COORD_OP_WATCH) && !view->watched)
			view->watched = core_watch_ref(coord, view->key) == 0;
		view->fresh = !missing && view->watched && !view->dirty &&
			      op->epoch == coord->session.epoch;
	}
	view_answer(view, op->status);
	core_op_free(op);
	if (view->op)
		return;
	if (!coord_list_empty(&view->next))
		view_read(view);
	else if (missing)
		view_free(view);
	else
		view_keep(view);
}

static void view_read(struct view *view)
{
	struct coord *coord = view->coord;
	bool group = view->key.kind == COORD_GROUP;
	struct coord_op *op =
		core_op_new(coord, group ? COORD_CALL_GROUP_READ : COORD_CALL_LOCK_READ, view->key,
			(struct coord_bytes){0}, (struct coord_bytes){0});
	while (!coord_list_empty(&view->next)) {
		struct coord_list *first = view->next.next;
		coord_list_remove(first);
		coord_list_add(&view->asking, first);
	}
	if (!op) {
		view_answer(view, -ENOMEM);
		if (!view->op)
			view_keep(view);
		return;
	}
	op->flags = group ? COORD_OP_BARE : 0;
	if (coord->session.can & COORD_CAN_NOTIFY)
		op->flags |= COORD_OP_WATCH;
	op->deadline_ms = coord_now_ms(coord->loop) + coord->config->timeout_ms;
	view->dirty = view->fresh = false;
	view_unkeep(view);
	view->op = op;
	core_op_start(op, view_done, view);
}

int coord_lock_peek(struct coord *coord, enum coord_kind kind, struct coord_bytes name,
	struct coord_lock_info *ret)
{
	char key[256];
	size_t len;
	int r = core_map_name(coord, kind, name, key, &len);
	if (r < 0)
		return r;
	struct view *view = view_find(coord, kind, name);
	if (core_locks_info(coord, kind, name, ret)) {
		ret->partial = ret->mode == COORD_SHARED && !(view && view->fresh);
		if (ret->mode == COORD_SHARED && view)
			add_others(view, ret);
		return 0;
	}
	if (!view || !view->fresh || !coord->session.connected)
		return -EAGAIN;
	view_info(view, ret);
	return 0;
}

int coord_group_peek(struct coord *coord, struct coord_bytes group)
{
	const struct view *view = view_find(coord, COORD_GROUP, group);
	if (view && view->fresh && coord->session.connected)
		return 0;
	char key[256];
	size_t len;
	int r = core_map_name(coord, COORD_GROUP, group, key, &len);
	return r < 0 ? r : -EAGAIN;
}

static void look_gone(struct coord_req *req)
{
	coord_list_remove(&req->view_link);
}

static int look(struct coord *coord, enum coord_kind kind, struct coord_bytes name,
	coord_look_fn *fn, void *user, struct coord_req **ret_req)
{
	struct coord_req *req = core_req_new(coord, NULL, user);
	if (!req)
		return -ENOMEM;
	req->look_fn = fn;
	if (ret_req)
		*ret_req = req;
	if (core_req_refused(req))
		return 0;
	struct view *view = view_get(coord, kind, name);
	if (!view) {
		core_req_answer_later(req, -ENOMEM);
		return 0;
	}
	req->gone = look_gone;
	coord_list_add(&view->next, &req->view_link);
	if (!view->op)
		view_read(view);
	return 0;
}

int coord_lock_look(struct coord *coord, enum coord_kind kind, struct coord_bytes name,
	coord_look_fn *fn, void *user, struct coord_req **ret_req)
{
	char key[256];
	size_t len;
	int r = core_map_name(coord, kind, name, key, &len);
	if (r < 0)
		return r;
	return look(coord, kind, name, fn, user, ret_req);
}

int coord_group_look(struct coord *coord, struct coord_bytes group, coord_look_fn *fn, void *user,
	struct coord_req **ret_req)
{
	int r = coord_group_peek(coord, group);
	if (r < 0 && r != -EAGAIN)
		return r;
	return look(coord, COORD_GROUP, group, fn, user, ret_req);
}

void core_views_touch(struct coord *coord, enum coord_kind kind, struct coord_bytes name)
{
	struct view *view = view_find(coord, kind, name);
	if (!view)
		return;
	view->fresh = false;
	view->dirty = true;
	view->notices++;
}

void core_views_changed(struct coord *coord, struct coord_key key)
{
	core_views_touch(coord, key.kind, key.name);
}

uint64_t core_views_stamp(struct coord *coord, enum coord_kind kind, struct coord_bytes name)
{
	struct view *view = view_find(coord, kind, name);
	return view ? view->notices : 0;
}

void core_views_freed(
	struct coord *coord, enum coord_kind kind, struct coord_bytes name, uint64_t stamp)
{
	struct view *view = view_find(coord, kind, name);
	if (!view || !view->watched || view->op || view->notices != stamp)
		return;
	view->row = (struct coord_row){0};
	view->fresh = true;
}

void core_views_epoch(struct coord *coord)
{
	for (struct coord_node *node = NULL; (node = coord_table_next(&coord->views, node));) {
		struct view *view = (struct view *)node;
		view->fresh = false;
		view->dirty = true;
		view->notices++;
	}
}

void core_views_done(struct coord *coord)
{
	struct coord_node *node;
	while ((node = coord_table_first(&coord->views)))
		view_free((struct view *)node);
	coord_table_done(&coord->views);
	while ((node = coord_table_first(&coord->watches))) {
		coord_table_remove(&coord->watches, node);
		free(node);
	}
	coord_table_done(&coord->watches);
}
