/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Groups: tooz's hash of members and its set of groups, and beside them who of ours joined.
 *
 * A member whose beat is gone is dead, and so is one of ours whose session is gone: it is shown no more,
 * and removed by whoever reads the group, as tooz does. That a beat ends is no change of any key that is
 * watched, so a watched group has a timer for the first that can die.
 */
#include "drivers/redis/redis.h"

enum { DEATH_MIN_MS = 1000 };

/* The list of groups, and what beats, or sessions, begin with. */
static struct coord_bytes prefix(struct redis_call *call, enum redis_key kind)
{
	return redis_op_key(call->rs, call->op, kind, COORD_BYTES(""));
}

static struct coord_bytes key(struct redis_call *call, enum redis_key kind)
{
	return redis_op_key(call->rs, call->op, kind, call->op->key.name);
}

static int group_answer(struct redis_call *call, const redisReply *reply, int r)
{
	(void)call;
	(void)reply;
	return r;
}

static struct redis_call *group_call(struct coord_session *session, struct coord_op *op,
	int (*answer)(struct redis_call *, const redisReply *, int status))
{
	int r = redis_name_check(COORD_GROUP, op->key.name);
	if (r) {
		op->sent = COORD_SENT_NO;
		coord_op_fail(op, r);
		return NULL;
	}
	return redis_call_of(coord_session_data(session), op, answer);
}

static void group_run(struct redis_call *call, enum redis_lane lane, enum redis_script_id id,
	const struct redis_args *args)
{
	if (!args->bad) {
		redis_call_run(call, lane, id, args);
		return;
	}
	call->op->sent = COORD_SENT_NO;
	redis_call_end(call, -ENOMEM);
}

void redis_group_create(struct coord_session *session, struct coord_op *op)
{
	struct redis_args args = {0};
	struct redis_call *call = group_call(session, op, group_answer);
	if (!call)
		return;
	redis_arg_key(&args, key(call, REDIS_KEY_GROUP));
	redis_arg(&args, prefix(call, REDIS_KEY_GROUPS));
	redis_arg(&args, key(call, REDIS_KEY_OWNERS));
	redis_arg(&args, op->key.name);
	group_run(call, REDIS_TRACKED, REDIS_SCRIPT_GROUP_CREATE, &args);
}

void redis_group_delete(struct coord_session *session, struct coord_op *op)
{
	struct redis_args args = {0};
	struct redis_call *call = group_call(session, op, group_answer);
	if (!call)
		return;
	redis_arg_key(&args, key(call, REDIS_KEY_GROUP));
	redis_arg(&args, prefix(call, REDIS_KEY_GROUPS));
	redis_arg(&args, key(call, REDIS_KEY_OWNERS));
	redis_arg(&args, op->key.name);
	redis_arg(&args, prefix(call, REDIS_KEY_BEAT));
	redis_arg(&args, prefix(call, REDIS_KEY_SESSION));
	redis_arg(&args, prefix(call, REDIS_KEY_BEATERS));
	group_run(call, REDIS_TRACKED, REDIS_SCRIPT_GROUP_DELETE, &args);
}

static int list_answer(struct redis_call *call, const redisReply *reply, int r)
{
	struct coord_op *op = call->op;
	if (!reply || r)
		return r;
	const redisReply *names = reply->elements == 2 ? reply->element[1] : NULL;
	if (!names || names->type != REDIS_REPLY_ARRAY)
		return -EIO;
	for (size_t i = 0; i < names->elements; i++) {
		struct coord_bytes name = redis_bytes(names, i);
		if (redis_name_check(COORD_GROUP, name) < 0)
			continue;
		struct coord_row *row = coord_op_row(op);
		if (!row || !(row->name = coord_op_copy(op, name.data, name.len)).data)
			return -ENOMEM;
	}
	return 0;
}

void redis_group_list(struct coord_session *session, struct coord_op *op)
{
	struct redis_args args = {0};
	struct redis_call *call = redis_call_of(coord_session_data(session), op, list_answer);
	redis_arg_key(&args, prefix(call, REDIS_KEY_GROUPS));
	group_run(call, REDIS_PLAIN, REDIS_SCRIPT_GROUP_LIST, &args);
}

/* ---- Reading one ---- */

static int leader_row(struct coord_op *op, const struct redis_state *state)
{
	struct redis_record record = {0};
	bool same, known = redis_record_parse(state, &record);
	struct coord_bytes value = redis_state_value(state, &same);
	if (!value.data)
		return 0;
	struct coord_row *row = coord_op_row(op);
	if (!row)
		return -ENOMEM;
	row->flags = COORD_ROW_LEADER | (known ? 0 : COORD_ROW_NO_ID | COORD_ROW_FOREIGN);
	row->mode = COORD_EXCLUSIVE;
	row->name =
		known ? coord_op_copy(op, record.member.data, record.member.len) : COORD_BYTES("");
	if (known) {
		row->token = record.token;
		row->created_us = record.since_us;
		redis_owner_parse(value, row->owner);
	}
	return row->name.data ? 0 : -ENOMEM;
}

static void watch_group(struct redis_call *call)
{
	struct redis_session *rs = call->rs;
	if (!(call->op->flags & COORD_OP_WATCH) || !redis_link_tracks(rs->link))
		return;
	redis_item_watch(call->item, COORD_GROUP);
	if (call->op->flags & COORD_OP_BARE)
		return;
	redis_item_watch(call->leader, COORD_GROUP);
	if (!call->item->death.active)
		coord_timer_start(rs->loop, &call->item->death,
			coord_now_ms(rs->loop) + rs->options.membership_timeout_ms / 2);
}

static int read_rows(struct redis_call *call, const redisReply *reply)
{
	struct coord_op *op = call->op;
	struct redis_state state = {0};
	unsigned lock_keys = call->leader->lock_keys;
	size_t at = 1;
	if (reply->elements < 2 + lock_keys || (reply->elements - 2 - lock_keys) % 3)
		return -EIO;
	for (unsigned i = 0; i < lock_keys; i++)
		state.values[i] = redis_bytes(reply, at++);
	state.record = redis_bytes(reply, at++);
	redis_item_seen(call->leader, redis_state_print(&state));
	for (; at < reply->elements; at += 3) {
		int r = redis_member_row(op, redis_bytes(reply, at), redis_bytes(reply, at + 1),
			redis_bytes(reply, at + 2), op->flags & COORD_OP_WITH_DATA);
		if (r)
			return r;
	}
	return leader_row(op, &state);
}

static int read_answer(struct redis_call *call, const redisReply *reply, int r)
{
	if (!reply)
		return r;
	bool missing = r == -ENOENT;
	if (r == 0)
		r = read_rows(call, reply);
	if (r == 0 || missing)
		watch_group(call);
	return r;
}

static int bare_answer(struct redis_call *call, const redisReply *reply, int r)
{
	if (!reply)
		return r;
	if (reply->type == REDIS_REPLY_ERROR)
		return redis_errno(reply);
	if (reply->type != REDIS_REPLY_INTEGER)
		return -EIO;
	watch_group(call);
	return reply->integer > 0 ? 0 : -ENOENT;
}

/* Only whether there is such a group. */
static void read_bare(struct redis_call *call)
{
	struct redis_args args = {0};
	redis_arg_text(&args, "EXISTS");
	redis_arg(&args, redis_item_key(call->item, 0));
	call->answer = bare_answer;
	redis_call_send(call, REDIS_TRACKED, &args);
}

void redis_group_read(struct coord_session *session, struct coord_op *op)
{
	struct redis_args args = {0};
	struct redis_call *call = group_call(session, op, read_answer);
	if (!call)
		return;
	struct redis_session *rs = call->rs;
	struct redis_item *item = redis_item_get(rs, REDIS_ITEM_GROUP, op->key.name);
	struct redis_item *leader =
		item ? redis_item_of(rs, COORD_LEADER, op->key.name, true) : NULL;
	if (!leader) {
		redis_item_put(item);
		op->sent = COORD_SENT_NO;
		redis_call_end(call, -ENOMEM);
		return;
	}
	redis_call_item(call, item);
	if (op->flags & COORD_OP_BARE) {
		redis_item_put(leader);
		read_bare(call);
		return;
	}
	call->leader = leader;
	redis_item_flies(leader);
	redis_arg_key(&args, redis_item_key(item, 0));
	for (unsigned i = 0; i < leader->lock_keys; i++)
		redis_arg_key(&args, redis_item_key(leader, i));
	redis_arg(&args, key(call, REDIS_KEY_OWNERS));
	redis_arg(&args, leader->record);
	redis_arg(&args, prefix(call, REDIS_KEY_BEAT));
	redis_arg(&args, prefix(call, REDIS_KEY_SESSION));
	redis_arg(&args, prefix(call, REDIS_KEY_BEATERS));
	redis_arg_text(&args, op->flags & COORD_OP_WITH_DATA ? "d" : "");
	redis_arg_text(&args, rs->config->read_only ? "" : "w");
	group_run(call, REDIS_TRACKED, REDIS_SCRIPT_GROUP_READ, &args);
}

/* ---- Watching one ---- */

static void look_reply(
	struct redis_cmd *cmd, int status, enum coord_sent sent, const redisReply *reply)
{
	(void)sent;
	struct redis_item *item = coord_container(cmd, struct redis_item, cmd);
	enum redis_landing landing = redis_landing(item->rs, status, reply);
	if (landing == REDIS_READ || (!status && redis_errno(reply) != -EHOSTDOWN))
		redis_item_seen(item, item->print + 1);
	redis_item_landed(item, landing);
}

void redis_group_look(struct redis_item *item)
{
	struct redis_args args = {0};
	redis_arg_text(&args, "EXISTS");
	redis_arg(&args, redis_item_key(item, 0));
	item->cmd = (struct redis_cmd){.fn = look_reply};
	redis_item_flies(item);
	redis_send(item->rs->link, REDIS_TRACKED, &item->cmd, args.n, args.v, args.len);
}

static void death_reply(
	struct redis_cmd *cmd, int status, enum coord_sent sent, const redisReply *reply)
{
	(void)sent;
	struct redis_item *item = coord_container(cmd, struct redis_item, cmd);
	struct redis_session *rs = item->rs;
	uint64_t next = rs->options.membership_timeout_ms / 2;
	int64_t left = -1;
	if (!status && redis_code_errno(reply) == 0 && reply->elements == 3) {
		if (redis_integer(reply, 1) > 0)
			redis_item_seen(item, item->print + 1);
		left = redis_integer(reply, 2);
	}
	if (left >= 0 && (uint64_t)left < next)
		next = left > DEATH_MIN_MS ? (uint64_t)left + 1 : DEATH_MIN_MS;
	if (item->watched)
		coord_timer_start(rs->loop, &item->death, coord_now_ms(rs->loop) + next);
	redis_item_landed(item, REDIS_APART);
}

void redis_group_death(struct coord_timer *timer)
{
	struct redis_item *item = coord_container(timer, struct redis_item, death);
	struct redis_session *rs = item->rs;
	struct redis_args args = {0};
	char owners[REDIS_KEY_MAX], beats[REDIS_KEY_MAX], sessions[REDIS_KEY_MAX];
	char beaters[REDIS_KEY_MAX];
	const struct coord_bytes none = {"", 0};
	/* What flies uses the item's command. */
	if (item->flying || !redis_link_is_up(rs->link)) {
		coord_timer_start(rs->loop, timer, coord_now_ms(rs->loop) + DEATH_MIN_MS);
		return;
	}
	redis_arg_key(&args, redis_item_key(item, 0));
	redis_arg(&args, (struct coord_bytes){owners,
				 redis_key(&rs->keys, REDIS_KEY_OWNERS, item->node.key, owners)});
	redis_arg(&args,
		(struct coord_bytes){beats, redis_key(&rs->keys, REDIS_KEY_BEAT, none, beats)});
	redis_arg(&args, (struct coord_bytes){sessions,
				 redis_key(&rs->keys, REDIS_KEY_SESSION, none, sessions)});
	redis_arg(&args, (struct coord_bytes){
				 beaters, redis_key(&rs->keys, REDIS_KEY_BEATERS, none, beaters)});
	item->cmd = (struct redis_cmd){.fn = death_reply};
	redis_item_flies(item);
	redis_run(rs, REDIS_PLAIN, &item->cmd, REDIS_SCRIPT_GROUP_LOOK, &args);
}
