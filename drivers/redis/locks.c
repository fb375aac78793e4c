/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locks and leaderships, which are locks of another name: each call is one script, so one round trip.
 *
 * All lock keys of the dialects in use hold the same value, or the lock is nobody's of ours. Who finds
 * one missing, or with a value of somebody else, has lost it at once, and what is left of it goes.
 *
 * A hold begins with the sending of the acquire and ends with the answer that nothing is left of it; in between
 * the lock may be ours without our knowing, and close gives it up. See scripts.c for what the keys hold.
 */
#include "drivers/redis/redis.h"

/* ---- States ---- */

int redis_state_parse(const redisReply *reply, unsigned lock_keys, struct redis_state *ret)
{
	*ret = (struct redis_state){0};
	if (reply->type != REDIS_REPLY_ARRAY)
		return -EIO;
	if (reply->elements < 3 + lock_keys)
		return reply->elements == 2 ? 0 : -EIO;
	int64_t number = redis_integer(reply, 1);
	if (number < 0)
		return -EIO;
	ret->number = (uint64_t)number;
	for (unsigned i = 0; i < lock_keys; i++)
		ret->values[i] = redis_bytes(reply, 2 + i);
	ret->mark = redis_bytes(reply, 2 + lock_keys);
	if (reply->elements < 6 + lock_keys)
		return 0;
	ret->full = true;
	ret->record = redis_bytes(reply, 3 + lock_keys);
	int64_t count = redis_integer(reply, 4 + lock_keys);
	ret->count = count > 0 ? (uint64_t)count : 0;
	const redisReply *left = reply->element[5 + lock_keys];
	if (left->type != REDIS_REPLY_INTEGER)
		return -EIO;
	ret->left_ms = left->integer;
	return 0;
}

static uint64_t print_bytes(uint64_t hash, struct coord_bytes bytes)
{
	for (size_t i = 0; i < bytes.len; i++)
		hash = (hash ^ (uint8_t)bytes.data[i]) * 1099511628211u;
	return (hash ^ (bytes.data ? 0x100 : 0x101)) * 1099511628211u;
}

uint64_t redis_state_print(const struct redis_state *state)
{
	uint64_t hash = 14695981039346656037u;
	for (int i = 0; i < REDIS_LOCK_KEYS; i++)
		hash = print_bytes(hash, state->values[i]);
	return (hash ^ state->count) * 1099511628211u;
}

struct coord_bytes redis_state_value(const struct redis_state *state, bool *ret_same)
{
	struct coord_bytes value = state->values[0].data ? state->values[0] : state->values[1];
	*ret_same = value.data;
	for (int i = 0; i < REDIS_LOCK_KEYS; i++)
		if (state->values[i].data && !coord_bytes_equal(state->values[i], value))
			*ret_same = false;
	return value;
}

bool redis_record_parse(const struct redis_state *state, struct redis_record *ret)
{
	bool same;
	struct coord_bytes value = redis_state_value(state, &same), rest = state->record, text;
	return same && redis_cut(&rest, '\n', &ret->value) &&
	       coord_bytes_equal(ret->value, value) && redis_cut(&rest, '\n', &text) &&
	       redis_decimal(text, &ret->token) && redis_cut(&rest, '\n', &text) &&
	       redis_decimal(text, &ret->since_us) && redis_cut(&rest, '\n', &ret->kind) &&
	       rest.len <= REDIS_NAME_MAX && (ret->member = rest, true);
}

static bool is_shared(struct coord_bytes value)
{
	return value.len > 2 && memcmp(value.data, "S:", 2) == 0;
}

int redis_state_row(struct coord_op *op, enum coord_kind kind, struct coord_bytes name,
	const struct redis_state *state)
{
	struct redis_record record;
	struct coord_row *row = coord_op_row(op);
	if (!row)
		return -ENOMEM;
	row->name = coord_op_copy(op, name.data, name.len);
	row->mode = COORD_EXCLUSIVE;
	if (!redis_record_parse(state, &record)) {
		row->flags = COORD_ROW_FOREIGN | (kind == COORD_LEADER ? COORD_ROW_NO_ID : 0);
		return row->name.data ? 0 : -ENOMEM;
	}
	row->data = coord_op_copy(op, record.member.data, record.member.len);
	row->token = record.token;
	row->created_us = record.since_us;
	row->holders = 1;
	if (is_shared(record.value)) {
		row->mode = COORD_SHARED;
		row->holders = state->count > UINT32_MAX ? UINT32_MAX : (uint32_t)state->count;
		record.value.data += 2;
		record.value.len -= 2;
	}
	redis_owner_parse(record.value, row->owner);
	return row->name.data && row->data.data ? 0 : -ENOMEM;
}

/* ---- Holds ---- */

int redis_hold_begin(struct redis_session *rs, struct redis_hold *hold, struct coord_grant *grant)
{
	if (hold->grant)
		return 0;
	struct redis_item *item = NULL;
	if (grant->key.kind != COORD_MEMBER) {
		item = redis_item_of(rs, grant->key.kind, grant->key.name, true);
		if (!item)
			return -ENOMEM;
	}
	*hold = (struct redis_hold){.grant = grant, .item = item};
	redis_owner_format(grant->owner, hold->owner);
	coord_list_init(&hold->in_item);
	coord_list_init(&hold->link);
	hold->node.key = (struct coord_bytes){hold->owner, REDIS_OWNER_LEN};
	if (coord_table_add(&rs->owners, &hold->node) < 0) {
		hold->grant = NULL;
		redis_item_put(item);
		return -ENOMEM;
	}
	if (item)
		item->refs++;
	coord_list_add(&rs->holds, &hold->link);
	return 0;
}

void redis_hold_end(struct redis_session *rs, struct redis_hold *hold)
{
	if (!hold || !hold->grant)
		return;
	struct redis_item *item = hold->item;
	struct redis_beat *beat = hold->beat;
	if (beat && hold->beat_ends)
		beat->leaving--;
	coord_list_remove(&hold->link);
	coord_list_remove(&hold->in_item);
	coord_table_remove(&rs->owners, &hold->node);
	free(hold->group);
	*hold = (struct redis_hold){0};
	if (beat)
		redis_beat_put(rs, beat);
	if (item) {
		item->refs--;
		redis_item_put(item);
	}
}

struct redis_hold *redis_hold_find(struct redis_session *rs, struct coord_bytes owner)
{
	return (struct redis_hold *)coord_table_find(&rs->owners, 0, owner);
}

void redis_hold_lost(struct redis_session *rs, struct redis_hold *hold)
{
	if (hold->leaving)
		return;
	struct coord_grant *grant = hold->grant;
	hold->leaving = true;
	hold->held = false;
	coord_list_remove(&hold->in_item);
	coord_grant_lost(rs->session, grant->key, grant->owner, grant->epoch);
}

/* The acquire, or a check, said that it is ours. value: what the keys hold, if that is known. */
static void hold_held(struct redis_hold *hold, const struct redis_state *state)
{
	bool same;
	struct coord_bytes value = redis_state_value(state, &same);
	hold->held = true;
	hold->item->print = redis_state_print(state);
	hold->value[0] = 0;
	if (same && value.len && value.len < sizeof(hold->value)) {
		memcpy(hold->value, value.data, value.len);
		hold->value[value.len] = 0;
	}
	if (coord_list_empty(&hold->in_item))
		coord_list_add(&hold->item->holds, &hold->in_item);
	uint64_t token = state->number;
	if (token > hold->grant->token)
		hold->grant->token = token;
}

/* Does the key hold what it should? While a conversion's answer is unknown either value will do. */
static bool hold_fits(const struct redis_hold *hold, struct coord_bytes value)
{
	if (!value.data)
		return false;
	if (hold->value[0])
		return coord_bytes_equal(value, coord_bytes_of(hold->value));
	return is_shared(value) || coord_bytes_equal(value, coord_bytes_of(hold->owner));
}

static struct redis_hold *find_lost(struct redis_item *item, const struct redis_state *state)
{
	struct redis_hold *hold;
	coord_list_each (hold, &item->holds, in_item)
		for (unsigned i = 0; i < item->lock_keys; i++)
			if (!hold_fits(hold, state->values[i]))
				return hold;
	return NULL;
}

void redis_holds_check(struct redis_item *item, const struct redis_state *state)
{
	struct redis_session *rs = item->rs;
	struct redis_hold *hold;
	/* Telling may release it, which changes the list. */
	while ((hold = find_lost(item, state)))
		redis_hold_lost(rs, hold);
	struct coord_bytes mark = state->mark;
	if (mark.len != 2 + REDIS_SESSION_LEN || mark.data[0] != '?' ||
		memcmp(mark.data + 2, rs->id, REDIS_SESSION_LEN) == 0)
		return;
	coord_list_each (hold, &item->holds, in_item)
		coord_grant_contended(
			rs->session, hold->grant->key, hold->grant->owner, hold->grant->epoch);
}

/* ---- Acquiring ---- */

/* Somebody else holds it: what the core needs in order to wait. */
static void busy(struct redis_call *call, const struct redis_state *state, enum coord_mode mode)
{
	struct redis_session *rs = call->rs;
	struct redis_item *item = call->item;
	struct coord_op *op = call->op;
	if (!redis_link_tracks(rs->link))
		return;
	uint64_t left = state->left_ms >= 0    ? (uint64_t)state->left_ms + 1
			: state->left_ms == -1 ? rs->options.lock_timeout_ms
					       : 1;
	op->retry_ms =
		left < rs->options.lock_timeout_ms * 4 ? left : rs->options.lock_timeout_ms * 4;
	if (!(op->flags & COORD_OP_WATCH))
		return;
	uint64_t print = redis_state_print(state);
	bool known = item->watched, changed = item->print != print;
	/* Told for nothing: the holder renews. */
	item->slow = !changed && (item->slow || item->told);
	if (known && changed && !item->told)
		redis_item_seen(item, print);
	item->print = print;
	item->told = false;
	item->waits = mode;
	item->waiting = true;
	redis_item_watch(item, op->grant->key.kind);
}

/* Who waited has it now. */
static void waited(struct redis_item *item)
{
	item->waits = COORD_NONE;
	item->waiting = item->slow = false;
}

/* owner ... tail, as LOCK and CONVERT want them. -ENOMEM. */
static int take_args(struct redis_call *call, enum coord_mode mode, struct redis_args *args)
{
	struct redis_session *rs = call->rs;
	struct coord_op *op = call->op;
	struct coord_grant *grant = op->grant;
	bool leader = grant->key.kind == COORD_LEADER;
	struct coord_bytes kind = leader ? COORD_BYTES("leader\n") : COORD_BYTES("lock\n");
	struct coord_bytes counter = redis_op_key(rs, op, REDIS_KEY_TOKEN, COORD_BYTES(""));
	struct coord_bytes group = COORD_BYTES("");
	char *tail = coord_op_alloc(op, kind.len + grant->member.len);
	if (leader)
		group = redis_op_key(rs, op, REDIS_KEY_GROUP, grant->key.name);
	if (!tail || !counter.data || !group.data)
		return -ENOMEM;
	memcpy(tail, kind.data, kind.len);
	memcpy(tail + kind.len, grant->member.data, grant->member.len);
	redis_item_keys(call->item, args);
	redis_arg(args, (struct coord_bytes){call->hold->owner, REDIS_OWNER_LEN});
	redis_arg_number(args, rs->options.lock_timeout_ms);
	redis_arg_text(args, mode == COORD_SHARED ? "s" : "x");
	redis_arg_text(args, op->flags & (COORD_OP_WATCH | COORD_OP_PATIENT) ? "w" : "");
	redis_arg_text(args, rs->id);
	redis_arg(args, counter);
	redis_arg(args, call->item->record);
	redis_arg(args, call->item->sharers);
	redis_arg(args, group);
	redis_arg(args, (struct coord_bytes){tail, kind.len + grant->member.len});
	return 0;
}

static int lock_answer(struct redis_call *call, const redisReply *reply, int r)
{
	struct redis_session *rs = call->rs;
	struct coord_op *op = call->op;
	struct redis_state state;
	if (!reply) {
		if (op->sent == COORD_SENT_NO)
			redis_hold_end(rs, call->hold);
		return r;
	}
	if ((r == 0 || r == -EBUSY) &&
		redis_state_parse(reply, call->item->lock_keys, &state) < 0) {
		op->sent = COORD_SENT_UNKNOWN;
		return -EIO;
	}
	if (r == 0) {
		hold_held(call->hold, &state);
		waited(call->item);
		op->ttl_ms = rs->options.lock_timeout_ms;
		return 0;
	}
	redis_hold_end(rs, call->hold);
	if (r == -EBUSY)
		busy(call, &state, op->grant->mode);
	if (r != -ESTALE)
		return r;
	/* The session's key is not what we made it: is the session gone? */
	redis_fence(rs);
	return -EHOSTDOWN;
}

/* The call of an op on a grant, with its hold and its item. NULL: it was answered. */
static struct redis_call *grant_call(struct coord_session *session, struct coord_op *op,
	int (*answer)(struct redis_call *, const redisReply *, int status))
{
	struct redis_session *rs = coord_session_data(session);
	struct coord_grant *grant = op->grant;
	struct redis_hold *hold = coord_grant_data(grant);
	int r = redis_name_check(grant->key.kind, grant->key.name);
	if (!r)
		r = redis_hold_begin(rs, hold, grant);
	if (r) {
		op->sent = COORD_SENT_NO;
		coord_op_fail(op, r);
		return NULL;
	}
	struct redis_call *call = redis_call_of(rs, op, answer);
	call->hold = hold;
	redis_call_item(call, hold->item);
	return call;
}

void redis_lock(struct coord_session *session, struct coord_op *op)
{
	struct redis_args args = {0};
	if (op->grant->key.kind == COORD_LEADER && op->grant->mode != COORD_EXCLUSIVE) {
		coord_op_fail(op, -EINVAL);
		return;
	}
	struct redis_call *call = grant_call(session, op, lock_answer);
	if (!call)
		return;
	if (take_args(call, op->grant->mode, &args) < 0) {
		op->sent = COORD_SENT_NO;
		redis_hold_end(call->rs, call->hold);
		redis_call_end(call, -ENOMEM);
		return;
	}
	redis_arg(&args, call->rs->own);
	redis_arg_text(&args, call->rs->fence);
	redis_call_run(call, REDIS_TRACKED, REDIS_SCRIPT_LOCK, &args);
}

static int convert_answer(struct redis_call *call, const redisReply *reply, int r)
{
	struct redis_state state;
	struct redis_hold *hold = call->hold;
	if (!reply) {
		if (call->op->sent == COORD_SENT_UNKNOWN)
			hold->value[0] = 0;
		return r;
	}
	if ((r == 0 || r == -EBUSY) && redis_state_parse(reply, call->item->lock_keys, &state) < 0)
		return -EIO;
	if (r == 0) {
		hold_held(hold, &state);
		waited(call->item);
	} else if (r == -EBUSY) {
		busy(call, &state, COORD_EXCLUSIVE);
	} else if (r == -ESTALE) {
		redis_hold_lost(call->rs, hold);
	}
	return r;
}

void redis_convert(struct coord_session *session, struct coord_op *op)
{
	struct redis_args args = {0};
	struct redis_call *call = grant_call(session, op, convert_answer);
	if (!call)
		return;
	if (take_args(call, op->mode, &args) < 0) {
		op->sent = COORD_SENT_NO;
		redis_call_end(call, -ENOMEM);
		return;
	}
	redis_call_run(call, REDIS_TRACKED, REDIS_SCRIPT_CONVERT, &args);
}

/* ---- Giving up, and asking ---- */

void redis_unlock_args(struct redis_session *rs, const struct redis_item *item, const char *owner,
	struct redis_args *args)
{
	redis_item_keys(item, args);
	redis_arg(args, (struct coord_bytes){owner, REDIS_OWNER_LEN});
	redis_arg(args, item->record);
	redis_arg(args, item->sharers);
	redis_arg_text(args, rs->id);
	redis_arg_number(args, redis_link_tracks(rs->link) ? REDIS_TURN_MS : REDIS_TURN_POLL_MS);
	redis_arg_text(args, item->watched || !coord_list_empty(&item->holds) ? "w" : "");
}

static int unlock_answer(struct redis_call *call, const redisReply *reply, int r)
{
	struct redis_item *item = call->item;
	if (!reply || r)
		return r;
	redis_hold_end(call->rs, call->hold);
	/* The server does not tell us of our own doing. */
	if (item->waiting)
		item->dirty = true;
	return 0;
}

void redis_unlock(struct coord_session *session, struct coord_op *op)
{
	struct redis_args args = {0};
	struct redis_call *call = grant_call(session, op, unlock_answer);
	if (!call)
		return;
	call->hold->leaving = true;
	call->hold->held = false;
	coord_list_remove(&call->hold->in_item);
	redis_unlock_args(call->rs, call->item, call->hold->owner, &args);
	redis_call_run(call, REDIS_TRACKED, REDIS_SCRIPT_UNLOCK, &args);
}

static int check_answer(struct redis_call *call, const redisReply *reply, int r)
{
	struct redis_state state;
	if (!reply)
		return r;
	if (r == -ESTALE) {
		redis_hold_end(call->rs, call->hold);
	} else if (r == 0) {
		if (redis_state_parse(reply, call->item->lock_keys, &state) < 0)
			return -EIO;
		if (!call->hold->leaving)
			hold_held(call->hold, &state);
		call->op->ttl_ms = call->rs->options.lock_timeout_ms;
	}
	return r;
}

void redis_lock_check(struct coord_session *session, struct coord_op *op)
{
	struct redis_args args = {0};
	struct redis_call *call = grant_call(session, op, check_answer);
	if (!call)
		return;
	redis_item_keys(call->item, &args);
	redis_arg(&args, (struct coord_bytes){call->hold->owner, REDIS_OWNER_LEN});
	redis_arg_number(&args, call->rs->options.lock_timeout_ms);
	redis_arg(&args, call->item->record);
	redis_arg(&args, call->item->sharers);
	redis_call_run(call, REDIS_TRACKED, REDIS_SCRIPT_CHECK, &args);
}

/* ---- By name ---- */

static struct redis_call *name_call(struct coord_session *session, struct coord_op *op,
	int (*answer)(struct redis_call *, const redisReply *, int status))
{
	struct redis_session *rs = coord_session_data(session);
	int r = redis_name_check(op->key.kind, op->key.name);
	struct redis_item *item = r ? NULL : redis_item_of(rs, op->key.kind, op->key.name, true);
	if (!item) {
		op->sent = COORD_SENT_NO;
		coord_op_fail(op, r ? r : -ENOMEM);
		return NULL;
	}
	struct redis_call *call = redis_call_of(rs, op, answer);
	redis_call_item(call, item);
	return call;
}

static int read_answer(struct redis_call *call, const redisReply *reply, int r)
{
	struct coord_op *op = call->op;
	struct redis_state state;
	bool same;
	if (!reply || r)
		return r;
	if (redis_state_parse(reply, call->item->lock_keys, &state) < 0 || !state.full)
		return -EIO;
	if ((op->flags & COORD_OP_WATCH) && redis_link_tracks(call->rs->link)) {
		redis_item_seen(call->item, redis_state_print(&state));
		redis_item_watch(call->item, op->key.kind);
	}
	if (!redis_state_value(&state, &same).data)
		return 0;
	return redis_state_row(op, op->key.kind, op->key.name, &state);
}

void redis_lock_read(struct coord_session *session, struct coord_op *op)
{
	struct redis_args args = {0};
	struct redis_call *call = name_call(session, op, read_answer);
	if (!call)
		return;
	redis_item_keys(call->item, &args);
	redis_arg(&args, call->item->record);
	redis_arg(&args, call->item->sharers);
	for (int i = 0; i < 3; i++)
		redis_arg_text(&args, "");
	redis_call_run(call, REDIS_TRACKED, REDIS_SCRIPT_LOOK, &args);
}

static int break_answer(struct redis_call *call, const redisReply *reply, int r)
{
	/* The server does not tell us of our own doing: whoever holds it here has lost it. */
	if (reply && r == 0) {
		call->item->dirty = true;
		call->item->force = true;
	}
	return r;
}

void redis_lock_break(struct coord_session *session, struct coord_op *op)
{
	struct redis_args args = {0};
	struct redis_call *call = name_call(session, op, break_answer);
	if (!call)
		return;
	redis_item_keys(call->item, &args);
	redis_arg(&args, call->item->record);
	redis_arg(&args, call->item->sharers);
	redis_call_run(call, REDIS_TRACKED, REDIS_SCRIPT_BREAK, &args);
}
