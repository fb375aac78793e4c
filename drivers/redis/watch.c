/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Items: what this session holds and watches, what the server tracks of it, and what a notice means.
 *
 * The server tells once that a key changed, and then tracks it no more until it is read again on the
 * same connection. A notice says nothing about what changed: each renewal by a holder is one. So
 *
 *   notice -> armed no more -> read again -> armed; tell who watches if the state is another
 *
 * and with one short cut: a waiter's next try reads as well, so the core is told at once and tries. If that
 * finds the state as it was (the holder renews), the following notices are looked at first.
 * What is held is read in batches, because renewing all of it makes notices for all of it.
 *
 * A notice can be readable before the answer of the command that armed it: while one flies, a notice
 * counts and is acted on after the answer.
 */
#include "drivers/redis/redis.h"

#include <assert.h>

enum {
	BATCH = REDIS_KEYS_A_SCRIPT / (REDIS_LOCK_KEYS + 1),
	AGAIN_MS = 100, /* a refused read is tried again, with growing pauses */
	AGAIN_SHIFT_MAX = 4,
};

/* ---- Their life ---- */

static void item_text(struct redis_session *rs, unsigned type, struct coord_bytes name,
	struct redis_item *item, char *text)
{
	static const enum redis_key lock_kinds[] = {
		REDIS_KEY_LOCK, REDIS_KEY_LOCK_OLD, REDIS_KEY_MARK};
	char *at = text;
	memcpy(at, name.data, name.len);
	item->node.key = (struct coord_bytes){at, name.len};
	at += name.len;
	for (unsigned i = 0; i < (type == REDIS_ITEM_LOCK ? 3 : 1); i++) {
		enum redis_key kind = type == REDIS_ITEM_LOCK ? lock_kinds[i] : REDIS_KEY_GROUP;
		if ((kind == REDIS_KEY_LOCK && rs->keys.dialect == REDIS_DIALECT_OLD) ||
			(kind == REDIS_KEY_LOCK_OLD && rs->keys.dialect == REDIS_DIALECT_NEW))
			continue;
		size_t len = redis_key(&rs->keys, kind, name, at);
		item->keys[item->keys_len++].node.key = (struct coord_bytes){at, len};
		at += len;
	}
	if (type != REDIS_ITEM_LOCK)
		return;
	item->lock_keys = item->keys_len - 1;
	item->record = (struct coord_bytes){at, redis_key(&rs->keys, REDIS_KEY_RECORD, name, at)};
	at += item->record.len;
	item->sharers = (struct coord_bytes){at, redis_key(&rs->keys, REDIS_KEY_SHARERS, name, at)};
}

static void item_free(struct redis_item *item)
{
	struct redis_session *rs = item->rs;
	coord_list_remove(&item->stale);
	coord_timer_stop(rs->loop, &item->death);
	coord_timer_stop(rs->loop, &item->again);
	redis_forget(&item->cmd);
	for (unsigned i = 0; i < item->keys_len; i++)
		if (item->keys[i].item)
			coord_table_remove(&rs->tracked, &item->keys[i].node);
	coord_table_remove(&rs->items, &item->node);
	free(item);
}

/* How much the texts of one take at most. */
static size_t item_size(struct redis_session *rs, struct coord_bytes name)
{
	return name.len * 9 + rs->keys.ns.len * 8 + rs->keys.repr_len + 256;
}

static void item_again(struct coord_timer *timer);

static struct redis_item *item_new(struct redis_session *rs, unsigned type, struct coord_bytes name)
{
	struct redis_item *item = calloc(1, sizeof(*item) + item_size(rs, name));
	if (!item)
		return NULL;
	item->rs = rs;
	item->node.kind = type;
	coord_list_init(&item->holds);
	coord_list_init(&item->stale);
	item->death.fn = redis_group_death;
	item->again.fn = item_again;
	item_text(rs, type, name, item, item->text);
	if (coord_table_add(&rs->items, &item->node) < 0) {
		free(item);
		return NULL;
	}
	for (unsigned i = 0; i < item->keys_len; i++) {
		if (coord_table_add(&rs->tracked, &item->keys[i].node) < 0) {
			item_free(item);
			return NULL;
		}
		item->keys[i].item = item;
	}
	return item;
}

struct redis_item *redis_item_find(struct redis_session *rs, unsigned type, struct coord_bytes name)
{
	return (struct redis_item *)coord_table_find(&rs->items, type, name);
}

struct redis_item *redis_item_get(struct redis_session *rs, unsigned type, struct coord_bytes name)
{
	struct redis_item *item = redis_item_find(rs, type, name);
	return item ? item : item_new(rs, type, name);
}

struct redis_item *redis_item_of(
	struct redis_session *rs, enum coord_kind kind, struct coord_bytes name, bool make)
{
	char lock[REDIS_NAME_MAX + 16];
	if (name.len > REDIS_NAME_MAX)
		return NULL;
	if (kind != COORD_LOCK)
		name = (struct coord_bytes){lock, redis_leader_lock(name, lock)};
	return make ? redis_item_get(rs, REDIS_ITEM_LOCK, name)
		    : redis_item_find(rs, REDIS_ITEM_LOCK, name);
}

void redis_item_put(struct redis_item *item)
{
	if (item && !item->refs && !item->watched && !item->flying)
		item_free(item);
}

void redis_item_keys(const struct redis_item *item, struct redis_args *args)
{
	for (unsigned i = 0; i < item->keys_len; i++)
		redis_arg_key(args, redis_item_key(item, i));
}

/* ---- Notices ---- */

static bool item_wanted(const struct redis_item *item)
{
	return item->watched || !coord_list_empty(&item->holds);
}

/* Tells the core that what it watches changed. */
static void item_tell(struct redis_item *item)
{
	struct coord_session *session = item->rs->session;
	struct coord_bytes name = item->node.key, group;
	item->waiting = false;
	item->told = true;
	if (item->node.kind == REDIS_ITEM_GROUP) {
		if (item->watched)
			coord_changed(session, (struct coord_key){COORD_GROUP, name}, 0);
		return;
	}
	if (item->watched & 1 << COORD_LOCK)
		coord_changed(session, (struct coord_key){COORD_LOCK, name}, 0);
	if (!redis_leader_group(name, &group))
		return;
	for (int kind = COORD_LEADER; kind < COORD_KINDS; kind++)
		if (item->watched & 1u << kind)
			coord_changed(session, (struct coord_key){(enum coord_kind)kind, group}, 0);
}

/* What is watched is now so. */
void redis_item_seen(struct redis_item *item, uint64_t print)
{
	bool changed = item->print != print;
	item->print = print;
	if (item->watched && (changed || item->force))
		item_tell(item);
	item->force = false;
}

static void item_reread(struct redis_item *item)
{
	if (coord_list_empty(&item->stale))
		coord_list_add(&item->rs->stale, &item->stale);
	coord_loop_defer(item->rs->loop, &item->rs->look);
}

void redis_item_stale(struct redis_item *item, bool force)
{
	item->armed = false;
	item->force = item->force || force;
	if (!item_wanted(item))
		return;
	if (item->waiting && !item->slow && !item->flying) {
		item_tell(item);
		item->fast = true;
	}
	item_reread(item);
}

static void item_notice(struct redis_item *item, bool mark)
{
	/* Who holds is told that somebody waits; who waits knows. */
	if (mark && coord_list_empty(&item->holds))
		return;
	if (item->flying)
		item->dirty = true;
	else if (item->armed)
		redis_item_stale(item, false);
}

void redis_invalidated(struct redis_session *rs, struct coord_bytes key)
{
	if (!key.data) {
		redis_items_stale(rs);
		return;
	}
	struct redis_tracked *tracked =
		(struct redis_tracked *)coord_table_find(&rs->tracked, 0, key);
	if (!tracked)
		return;
	struct redis_item *item = tracked->item;
	item_notice(item, item->lock_keys && tracked == &item->keys[item->lock_keys]);
}

void redis_items_stale(struct redis_session *rs)
{
	for (struct coord_node *node = NULL; (node = coord_table_next(&rs->items, node));) {
		struct redis_item *item = (struct redis_item *)node;
		item->force = true;
		if (item->flying)
			item->dirty = true;
		else
			redis_item_stale(item, true);
	}
}

void redis_item_flies(struct redis_item *item)
{
	item->flying++;
}

enum redis_landing redis_landing(
	const struct redis_session *rs, int status, const redisReply *reply)
{
	if (status)
		return redis_link_is_up(rs->link) ? REDIS_REFUSED : REDIS_GONE;
	return reply->type == REDIS_REPLY_ERROR ? REDIS_REFUSED : REDIS_READ;
}

static void item_again(struct coord_timer *timer)
{
	struct redis_item *item = coord_container(timer, struct redis_item, again);
	if (item_wanted(item))
		item_reread(item);
	else
		redis_item_put(item);
}

/* Whether it changed meanwhile is not known, nor whether it is tracked: it is read again, after a pause. */
static void item_refused(struct redis_item *item)
{
	unsigned shift = item->refused < AGAIN_SHIFT_MAX ? item->refused : AGAIN_SHIFT_MAX;
	uint64_t pause = (uint64_t)AGAIN_MS << shift;
	if (!item_wanted(item) || item->again.active)
		return;
	item->refused++;
	coord_timer_start(item->rs->loop, &item->again, coord_now_ms(item->rs->loop) + pause);
}

void redis_item_landed(struct redis_item *item, enum redis_landing landing)
{
	assert(item->flying > 0);
	item->flying--;
	if (landing == REDIS_READ) {
		item->armed = true;
		item->refused = 0;
	} else if (landing == REDIS_GONE) {
		item->armed = false;
	} else if (landing == REDIS_REFUSED) {
		item_refused(item);
	}
	if (item->dirty && !item->flying) {
		item->dirty = false;
		redis_item_stale(item, false);
	}
	redis_item_put(item);
}

void redis_item_watch(struct redis_item *item, enum coord_kind kind)
{
	item->watched |= 1u << kind;
}

/* ---- Looking ---- */

static void look_reply(
	struct redis_cmd *cmd, int status, enum coord_sent sent, const redisReply *reply)
{
	(void)sent;
	struct redis_item *item = coord_container(cmd, struct redis_item, cmd);
	struct redis_state state;
	enum redis_landing landing = redis_landing(item->rs, status, reply);
	int r = status ? status : redis_code_errno(reply);
	bool ok = r == 0 && redis_state_parse(reply, item->lock_keys, &state) == 0 && state.full;
	if (ok) {
		redis_item_seen(item, redis_state_print(&state));
		redis_holds_check(item, &state);
	} else if (!status && r != -EHOSTDOWN) {
		/* What is there is no lock: whoever asks is told so. */
		item_tell(item);
	}
	/* The script reads the keys before it finds out that one has another type. */
	redis_item_landed(item, r == -EBADMSG ? REDIS_READ : landing);
}

static void item_look(struct redis_item *item)
{
	struct redis_session *rs = item->rs;
	struct redis_args args = {0};
	if (item->node.kind == REDIS_ITEM_GROUP) {
		redis_group_look(item);
		return;
	}
	redis_item_keys(item, &args);
	redis_arg(&args, item->record);
	redis_arg(&args, item->sharers);
	redis_arg_text(&args, item->waits == COORD_NONE        ? ""
			      : item->waits == COORD_EXCLUSIVE ? "x"
							       : "s");
	redis_arg_text(&args, rs->id);
	redis_arg_number(&args, rs->options.lock_timeout_ms);
	item->cmd = (struct redis_cmd){.fn = look_reply};
	redis_item_flies(item);
	redis_run(rs, REDIS_TRACKED, &item->cmd, REDIS_SCRIPT_LOOK, &args);
}

/* Items that are held, read by one MGET. */
struct batch {
	struct redis_piece piece;
	struct redis_session *rs;
	struct redis_cmd cmd;
	unsigned len;
	struct redis_item *items[BATCH];
};

static void batch_item(const redisReply *reply, size_t *at, struct redis_item *item)
{
	struct redis_state state = {0};
	for (unsigned i = 0; i < item->lock_keys; i++)
		state.values[i] = redis_bytes(reply, (*at)++);
	state.mark = redis_bytes(reply, (*at)++);
	redis_item_seen(item, redis_state_print(&state));
	redis_holds_check(item, &state);
}

/* The values of its keys say all there is to know: nobody waits for it here, and nobody shares it. */
static bool batch_fits(const struct redis_item *item)
{
	const struct redis_hold *hold;
	if (item->waits || coord_list_empty(&item->holds))
		return false;
	coord_list_each (hold, &item->holds, in_item)
		if (item->watched && !coord_bytes_equal(coord_bytes_of(hold->value),
					     coord_bytes_of(hold->owner)))
			return false;
	return true;
}

static void batch_reply(
	struct redis_cmd *cmd, int status, enum coord_sent sent, const redisReply *reply)
{
	(void)sent;
	struct batch *batch = coord_container(cmd, struct batch, cmd);
	size_t keys = 0, at = 0;
	for (unsigned i = 0; i < batch->len; i++)
		keys += batch->items[i]->keys_len;
	enum redis_landing landing = redis_landing(batch->rs, status, reply);
	if (landing == REDIS_READ && (reply->type != REDIS_REPLY_ARRAY || reply->elements != keys))
		landing = REDIS_REFUSED;
	for (unsigned i = 0; i < batch->len; i++) {
		if (landing == REDIS_READ)
			batch_item(reply, &at, batch->items[i]);
		redis_item_landed(batch->items[i], landing);
	}
	redis_piece_free(batch);
}

static void batch_send(struct batch *batch)
{
	const char *argv[1 + REDIS_KEYS_A_SCRIPT];
	size_t lens[1 + REDIS_KEYS_A_SCRIPT];
	int argc = 1;
	argv[0] = "MGET";
	lens[0] = 4;
	for (unsigned i = 0; i < batch->len; i++)
		for (unsigned k = 0; k < batch->items[i]->keys_len; k++) {
			struct coord_bytes key = redis_item_key(batch->items[i], k);
			argv[argc] = key.data;
			lens[argc++] = key.len;
		}
	batch->cmd.fn = batch_reply;
	redis_send(batch->rs->link, REDIS_TRACKED, &batch->cmd, argc, argv, lens);
}

/* Puts the item into the batch; a full one is sent. False: no memory. */
static bool batch_add(struct redis_session *rs, struct batch **batch, struct redis_item *item)
{
	if (!*batch) {
		*batch = redis_piece_new(rs, sizeof(**batch));
		if (!*batch)
			return false;
		(*batch)->rs = rs;
	}
	(*batch)->items[(*batch)->len++] = item;
	redis_item_flies(item);
	if ((*batch)->len == BATCH) {
		batch_send(*batch);
		*batch = NULL;
	}
	return true;
}

void redis_watch_look(struct coord_task *task)
{
	struct redis_session *rs = coord_container(task, struct redis_session, look);
	struct redis_item *item, *next;
	struct batch *batch = NULL;
	bool again = false, up = redis_link_is_up(rs->link);
	coord_list_each_safe (item, next, &rs->stale, stale) {
		if (item->fast) {
			item->fast = false;
			again = true;
			continue;
		}
		coord_list_remove(&item->stale);
		if (item->flying)
			item->dirty = item->dirty || !item->armed;
		else if (!item_wanted(item) || !up)
			redis_item_put(item); /* all are stale when the link is up again */
		else if (!batch_fits(item) || !batch_add(rs, &batch, item))
			item_look(item);
	}
	if (batch)
		batch_send(batch);
	if (again)
		coord_loop_defer(rs->loop, &rs->look);
}

/* ---- The end ---- */

struct unmark {
	struct redis_piece piece;
	struct redis_cmd cmd;
};

static void unmark_reply(
	struct redis_cmd *cmd, int status, enum coord_sent sent, const redisReply *reply)
{
	(void)status;
	(void)sent;
	(void)reply;
	struct unmark *unmark = coord_container(cmd, struct unmark, cmd);
	redis_piece_free(unmark);
}

/* Nobody here waits for it any more: the mark would keep others back for a moment. */
static void item_unmark(struct redis_item *item)
{
	struct redis_session *rs = item->rs;
	struct redis_args args = {0};
	item->waits = COORD_NONE;
	item->waiting = false;
	struct unmark *unmark =
		redis_link_is_up(rs->link) ? redis_piece_new(rs, sizeof(*unmark)) : NULL;
	if (!unmark)
		return;
	unmark->cmd.fn = unmark_reply;
	redis_arg_key(&args, redis_item_key(item, item->lock_keys));
	redis_arg_text(&args, rs->id);
	redis_run(rs, REDIS_TRACKED, &unmark->cmd, REDIS_SCRIPT_UNMARK, &args);
}

void redis_unwatch(struct coord_session *session, struct coord_key key)
{
	struct redis_session *rs = coord_session_data(session);
	struct redis_item *item = redis_item_of(rs, key.kind, key.name, false);
	if (item) {
		item->watched &= ~(1u << key.kind);
		if (!(item->watched & (1 << COORD_LOCK | 1 << COORD_LEADER)) && item->waits)
			item_unmark(item);
		redis_item_put(item);
	}
	item = key.kind == COORD_GROUP ? redis_item_find(rs, REDIS_ITEM_GROUP, key.name) : NULL;
	if (item) {
		item->watched = 0;
		coord_timer_stop(rs->loop, &item->death);
		redis_item_put(item);
	}
}

void redis_items_done(struct redis_session *rs)
{
	while (!coord_list_empty(&rs->batches))
		redis_piece_free(coord_container(rs->batches.next, struct redis_piece, link));
	for (struct coord_node *node; (node = coord_table_first(&rs->items));)
		item_free((struct redis_item *)node);
	coord_table_done(&rs->items);
	coord_table_done(&rs->tracked);
}
