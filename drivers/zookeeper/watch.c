/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Watches. See watch.h.
 *
 * A watch of the core has an interest in each node that it is about: the directory of a lock's
 * contenders; a group, its leader's directory and its members. When one is told, the core is told, and
 * some milliseconds later what is not armed any more is armed again, by a read whose answer counts as one
 * more notice: what happened in between would be missed. A reader who comes first arms it himself.
 */
#include "drivers/zookeeper/session.h"

#include <assert.h>

enum {
	REARM_MS = 20,
	POLL_MS = 1000,
	PATHS_MAX = 450 * 1000, /* bytes; each may be watched in two ways */
};

/* ---- Interests, by path ---- */

struct zk_point {
	struct coord_node node;
	struct coord_list interests;
	char path[];
};

static struct zk_point *point_find(struct zk_session *zs, const char *path)
{
	return (struct zk_point *)(void *)coord_table_find(&zs->points, 0, coord_bytes_of(path));
}

static size_t point_cost(const struct zk_point *point)
{
	return point->node.key.len + sizeof(int32_t);
}

static void point_free(struct zk_session *zs, struct zk_point *point)
{
	zs->paths_len -= point_cost(point);
	coord_table_remove(&zs->points, &point->node);
	free(point);
}

static struct zk_point *point_get(struct zk_session *zs, const char *path)
{
	struct zk_point *point = point_find(zs, path);
	if (point)
		return point;
	size_t len = strlen(path) + 1;
	point = calloc(1, sizeof(*point) + len);
	if (!point)
		return NULL;
	memcpy(point->path, path, len);
	point->node.key = coord_bytes_of(point->path);
	coord_list_init(&point->interests);
	if (coord_table_add(&zs->points, &point->node) == 0) {
		zs->paths_len += point_cost(point);
		return point;
	}
	free(point);
	return NULL;
}

bool zk_is_interest(struct zk_session *zs, const char *path)
{
	return point_find(zs, path);
}

int zk_interest_add(
	struct zk_session *zs, struct zk_interest *interest, const char *path, bool must)
{
	if (interest->point && strcmp(interest->point->path, path) == 0)
		return 0;
	zk_interest_drop(zs, interest);
	if (!must && zs->paths_len + strlen(path) > PATHS_MAX && !point_find(zs, path))
		return -ENOSPC;
	struct zk_point *point = point_get(zs, path);
	if (!point)
		return -ENOMEM;
	interest->point = point;
	coord_list_add(&point->interests, &interest->link);
	return 0;
}

void zk_interest_drop(struct zk_session *zs, struct zk_interest *interest)
{
	struct zk_point *point = interest->point;
	if (interest->link.next)
		coord_list_remove(&interest->link);
	interest->point = NULL;
	if (point && coord_list_empty(&point->interests))
		point_free(zs, point);
}

void zk_interests_fire(struct zk_session *zs, const char *path)
{
	struct zk_point *point = point_find(zs, path);
	if (!point)
		return;
	/* Off the point first: whoever is told may arm it again, or drop another. */
	struct coord_list told = COORD_LIST_INIT(told);
	while (!coord_list_empty(&point->interests)) {
		struct zk_interest *interest =
			coord_container(point->interests.next, struct zk_interest, link);
		coord_list_remove(&interest->link);
		coord_list_add(&told, &interest->link);
		interest->point = NULL;
	}
	point_free(zs, point);
	while (!coord_list_empty(&told)) {
		struct zk_interest *interest = coord_container(told.next, struct zk_interest, link);
		coord_list_remove(&interest->link);
		interest->fn(interest);
	}
}

/* ---- What the core watches ---- */

struct watch_node {
	struct zk_interest interest;
	struct coord_list link;
	struct zk_watch *watch;
};

struct zk_watch {
	struct coord_node node; /* by kind and name */
	struct coord_list link; /* zs->all_watches, also the dropped ones */
	struct zk_session *zs;
	struct coord_list nodes; /* struct watch_node, armed */
	struct coord_timer rearm;
	bool bare;
	bool polled; /* something in it is not armed: there are too many */
	unsigned running; /* reads that arm it */
	bool dropped; /* unwatched while they run */
	struct coord_bytes name;
	char text[];
};

struct zk_watch *zk_watch_find(struct zk_session *zs, struct coord_key key)
{
	return (struct zk_watch *)(void *)coord_table_find(&zs->watches, key.kind, key.name);
}

static struct coord_key watch_key(const struct zk_watch *watch)
{
	return (struct coord_key){watch->node.kind, watch->name};
}

static void node_free(struct watch_node *node)
{
	zk_interest_drop(node->watch->zs, &node->interest);
	coord_list_remove(&node->link);
	free(node);
}

static void watch_changed(struct zk_watch *watch)
{
	coord_changed(watch->zs->session, watch_key(watch), 0);
}

static void node_fired(struct zk_interest *interest)
{
	struct watch_node *node = coord_container(interest, struct watch_node, interest);
	struct zk_watch *watch = node->watch;
	struct zk_session *zs = watch->zs;
	node_free(node);
	if (!watch->rearm.active)
		coord_timer_start(zs->loop, &watch->rearm, coord_now_ms(zs->loop) + REARM_MS);
	watch_changed(watch);
}

static void rearm_later(struct zk_watch *watch)
{
	struct zk_session *zs = watch->zs;
	coord_timer_start(zs->loop, &watch->rearm, coord_now_ms(zs->loop) + POLL_MS);
}

static bool is_armed(struct zk_watch *watch, const char *path)
{
	struct zk_point *point = point_find(watch->zs, path);
	struct zk_interest *interest;
	if (!point)
		return false;
	coord_list_each (interest, &point->interests, link)
		if (interest->fn == node_fired &&
			coord_container(interest, struct watch_node, interest)->watch == watch)
			return true;
	return false;
}

int zk_watch_node(struct zk_watch *watch, const char *path)
{
	if (is_armed(watch, path))
		return 0;
	struct watch_node *node = calloc(1, sizeof(*node));
	if (!node)
		return -ENOMEM;
	node->interest.fn = node_fired;
	node->watch = watch;
	coord_list_add(&watch->nodes, &node->link);
	int r = zk_interest_add(watch->zs, &node->interest, path, false);
	if (r)
		node_free(node);
	if (r != -ENOSPC)
		return r;
	watch->polled = true;
	rearm_later(watch);
	return 0;
}

/* What nobody is interested in any more and may never fire, such as a name that was never there, would stay
 * in the library and at the server for good. */
static void nodes_drop(struct zk_watch *watch)
{
	struct zk_session *zs = watch->zs;
	while (!coord_list_empty(&watch->nodes)) {
		struct watch_node *node =
			coord_container(watch->nodes.next, struct watch_node, link);
		char path[ZK_PATH_MAX];
		strcpy(path, node->interest.point->path);
		node_free(node);
		if (zs->conn && !zs->conn->dead && !zk_is_interest(zs, path))
			zk_watch_remove(zs, path);
	}
}

static void watch_free(struct zk_watch *watch)
{
	nodes_drop(watch);
	coord_timer_stop(watch->zs->loop, &watch->rearm);
	if (!watch->dropped)
		coord_table_remove(&watch->zs->watches, &watch->node);
	coord_list_remove(&watch->link);
	free(watch);
}

static void read_end(struct zk_watch *watch)
{
	watch->running--;
	if (watch->dropped && !watch->running)
		watch_free(watch);
}

/* ---- Arming again ---- */

static void armed(struct zk_req *req)
{
	struct zk_watch *watch = req->user;
	if (req->rc != ZOK && req->rc != ZNONODE && !watch->dropped)
		rearm_later(watch);
	else if (!watch->dropped)
		watch_changed(watch);
	read_end(watch);
}

static void arm_exists(struct zk_watch *watch, const char *path)
{
	watch->running++;
	if (zk_watch_node(watch, path) == 0 &&
		zk_exists(watch->zs, NULL, path, true, armed, watch) == 0)
		return;
	watch->running--;
	rearm_later(watch);
}

static void arm_children(struct zk_watch *watch, const char *path);

/* A directory's children: each member of a group has a watch of its own. */
static void listed(struct zk_req *req)
{
	struct zk_watch *watch = req->user;
	struct zk_session *zs = watch->zs;
	char path[ZK_PATH_MAX];
	zk_path(zs->root, watch_key(watch), path);
	bool members = watch->node.kind == COORD_GROUP && strcmp(req->path, path) == 0;
	for (int32_t i = 0; members && req->rc == ZOK && i < req->children->count; i++) {
		struct coord_bytes member = coord_bytes_of(req->children->data[i]);
		if (zk_name_check(COORD_MEMBER, member) && strcmp(member.data, "leader") != 0)
			continue;
		zk_path_member(zs->root, watch->name, member, path);
		if (strcmp(member.data, "leader") == 0)
			arm_children(watch, path);
		else if (!is_armed(watch, path))
			arm_exists(watch, path);
	}
	if (req->rc == ZNONODE && !watch->dropped)
		arm_exists(watch, req->path);
	armed(req);
}

static void arm_children(struct zk_watch *watch, const char *path)
{
	watch->running++;
	if (zk_watch_node(watch, path) == 0 &&
		zk_children(watch->zs, NULL, path, true, listed, watch) == 0)
		return;
	watch->running--;
	rearm_later(watch);
}

static void watch_rearm(struct coord_timer *timer)
{
	struct zk_watch *watch = coord_container(timer, struct zk_watch, rearm);
	struct zk_session *zs = watch->zs;
	char path[ZK_PATH_MAX];
	if (!zs->open || !zs->conn || !zs->conn->connected)
		return; /* all is armed again when it is back */
	zk_path(zs->root, watch_key(watch), path);
	if (watch->polled) {
		rearm_later(watch);
		watch_changed(watch);
	} else if (watch->bare) {
		arm_exists(watch, path);
	} else {
		arm_children(watch, path);
	}
}

struct zk_watch *zk_watch_get(struct zk_session *zs, struct coord_key key, bool bare)
{
	struct zk_watch *watch = zk_watch_find(zs, key);
	if (watch) {
		watch->bare = watch->bare && bare;
		watch->polled = false;
		return watch;
	}
	watch = calloc(1, sizeof(*watch) + key.name.len + 1);
	if (!watch)
		return NULL;
	memcpy(watch->text, key.name.data, key.name.len);
	watch->name = (struct coord_bytes){watch->text, key.name.len};
	watch->zs = zs;
	watch->bare = bare;
	watch->rearm.fn = watch_rearm;
	watch->node.kind = key.kind;
	watch->node.key = watch->name;
	coord_list_init(&watch->nodes);
	if (coord_table_add(&zs->watches, &watch->node) == 0) {
		coord_list_add(&zs->all_watches, &watch->link);
		return watch;
	}
	free(watch);
	return NULL;
}

void zk_unwatch(struct coord_session *session, struct coord_key key)
{
	struct zk_session *zs = zk_of(session);
	struct zk_watch *watch = zk_watch_find(zs, key);
	if (!watch)
		return;
	if (!watch->running) {
		watch_free(watch);
		return;
	}
	coord_table_remove(&zs->watches, &watch->node);
	watch->dropped = true;
	coord_timer_stop(zs->loop, &watch->rearm);
	nodes_drop(watch);
}

void zk_watches_changed(struct zk_session *zs)
{
	uint64_t now = coord_now_ms(zs->loop);
	struct coord_list told = COORD_LIST_INIT(told);
	/* Whoever is told may end any of them. */
	while (!coord_list_empty(&zs->all_watches)) {
		struct coord_list *first = zs->all_watches.next;
		coord_list_remove(first);
		coord_list_add(&told, first);
	}
	while (!coord_list_empty(&told)) {
		struct zk_watch *watch = coord_container(told.next, struct zk_watch, link);
		coord_list_remove(&watch->link);
		coord_list_add(&zs->all_watches, &watch->link);
		if (watch->dropped)
			continue;
		/* The library has armed those that it knows; some were told, or never came to be. */
		coord_timer_start(zs->loop, &watch->rearm, now);
		watch_changed(watch);
	}
}

void zk_watches_done(struct zk_session *zs)
{
	struct coord_node *node;
	while (!coord_list_empty(&zs->all_watches))
		watch_free(coord_container(zs->all_watches.next, struct zk_watch, link));
	coord_table_done(&zs->watches);
	while ((node = coord_table_first(&zs->points))) {
		struct zk_point *point = (struct zk_point *)(void *)node;
		struct zk_interest *interest, *next;
		coord_list_each_safe (interest, next, &point->interests, link) {
			coord_list_remove(&interest->link);
			interest->point = NULL;
		}
		point_free(zs, point);
	}
	coord_table_done(&zs->points);
}
