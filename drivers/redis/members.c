/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Members: a field of the group's hash with the capabilities, as tooz has it, and the beat of the member id.
 * Beside it, for members that mounts joined, a record in another hash of the group: by its owner value we
 * know ours again, and by the session in it whether it is alive. See scripts.c.
 *
 * A beat belongs to the member id and not to a group, as in tooz. Several sessions may keep one.
 */
#include "drivers/redis/redis.h"

/* ---- Beats ---- */

struct coord_bytes redis_beat_id(const struct redis_beat *beat)
{
	return beat->node.key;
}

struct coord_bytes redis_beat_key(const struct redis_beat *beat, bool beaters)
{
	const char *at = beat->text + beat->node.key.len;
	return beaters ? (struct coord_bytes){at + beat->key_len, beat->beaters_len}
		       : (struct coord_bytes){at, beat->key_len};
}

static struct redis_beat *beat_find(struct redis_session *rs, struct coord_bytes member)
{
	return (struct redis_beat *)coord_table_find(&rs->beats, 0, member);
}

struct redis_beat *redis_beat_get(struct redis_session *rs, struct coord_bytes member)
{
	struct redis_beat *beat = beat_find(rs, member);
	if (!beat) {
		size_t size = 3 * member.len + 2 * rs->keys.ns.len + 64;
		beat = calloc(1, sizeof(*beat) + size);
		if (!beat)
			return NULL;
		char *at = beat->text;
		memcpy(at, member.data, member.len);
		beat->node.key = (struct coord_bytes){at, member.len};
		at += member.len;
		beat->key_len = (uint32_t)redis_key(&rs->keys, REDIS_KEY_BEAT, member, at);
		at += beat->key_len;
		beat->beaters_len = (uint32_t)redis_key(&rs->keys, REDIS_KEY_BEATERS, member, at);
		if (coord_table_add(&rs->beats, &beat->node) < 0) {
			free(beat);
			return NULL;
		}
	}
	beat->uses++;
	return beat;
}

static void beat_free(struct redis_session *rs, struct redis_beat *beat)
{
	coord_table_remove(&rs->beats, &beat->node);
	free(beat);
}

void redis_beat_put(struct redis_session *rs, struct redis_beat *beat)
{
	if (--beat->uses == 0)
		beat_free(rs, beat);
}

void redis_beats_adopted_done(struct redis_session *rs)
{
	struct coord_node *node = coord_table_next(&rs->beats, NULL);
	while (node) {
		struct redis_beat *beat = (struct redis_beat *)node;
		node = coord_table_next(&rs->beats, node);
		if (beat->adopted) {
			beat->adopted = false;
			redis_beat_put(rs, beat);
		}
	}
}

void redis_beats_done(struct redis_session *rs)
{
	for (struct coord_node *node; (node = coord_table_first(&rs->beats));)
		beat_free(rs, (struct redis_beat *)node);
	coord_table_done(&rs->beats);
}

/* ---- Rows ---- */

/* <owner> <born> <version> <joined> <updated> */
static bool record_parse(struct coord_bytes text, struct coord_row *row)
{
	struct coord_bytes word[4];
	for (int i = 0; i < 4; i++)
		if (!redis_cut(&text, ' ', &word[i]))
			return false;
	return redis_owner_parse(word[0], row->owner) && redis_decimal(word[1], &row->born) &&
	       redis_decimal(word[2], &row->version) && redis_decimal(word[3], &row->created_us) &&
	       redis_decimal(text, &row->updated_us);
}

int redis_member_row(struct coord_op *op, struct coord_bytes name, struct coord_bytes data,
	struct coord_bytes record, bool with_data)
{
	if (redis_name_check(COORD_MEMBER, name) < 0)
		return 0; /* no name that can be asked for */
	struct coord_row *row = coord_op_row(op);
	if (!row || !(row->name = coord_op_copy(op, name.data, name.len)).data)
		return -ENOMEM;
	if (with_data && !(row->data = coord_op_copy(op, data.data, data.len)).data)
		return -ENOMEM;
	if (!record_parse(record, row))
		row->flags = COORD_ROW_FOREIGN;
	return 0;
}

/* ---- Calls ---- */

static struct coord_bytes key(struct redis_call *call, enum redis_key kind, struct coord_bytes name)
{
	return redis_op_key(call->rs, call->op, kind, name);
}

/* The member of the op, checked. NULL: the op was answered. */
static struct redis_call *member_call(struct coord_session *session, struct coord_op *op,
	int (*answer)(struct redis_call *, const redisReply *, int status))
{
	int r = redis_name_check(COORD_GROUP, op->key.name);
	if (!r)
		r = redis_name_check(COORD_MEMBER, op->member);
	if (r) {
		op->sent = COORD_SENT_NO;
		coord_op_fail(op, r);
		return NULL;
	}
	return redis_call_of(coord_session_data(session), op, answer);
}

static void refuse(struct redis_call *call, int status)
{
	call->op->sent = COORD_SENT_NO;
	redis_call_end(call, status);
}

/* group | owners, member, data, owner, ttl, beat, beaters, session: what join, update and leave begin with. */
static bool member_args(struct redis_call *call, const char *owner, struct redis_args *args)
{
	struct redis_session *rs = call->rs;
	struct coord_op *op = call->op;
	redis_arg_key(args, key(call, REDIS_KEY_GROUP, op->key.name));
	redis_arg(args, key(call, REDIS_KEY_OWNERS, op->key.name));
	redis_arg(args, op->member);
	redis_arg(args, op->data);
	redis_arg_text(args, owner);
	redis_arg_number(args, rs->options.membership_timeout_ms);
	redis_arg(args, key(call, REDIS_KEY_BEAT, op->member));
	redis_arg(args, key(call, REDIS_KEY_BEATERS, op->member));
	redis_arg_text(args, rs->id);
	return !args->bad;
}

/* The group's and the owners' key, for renewals. */
static int hold_group(struct redis_session *rs, struct redis_hold *hold)
{
	if (hold->group)
		return 0;
	struct coord_bytes name = hold->grant->key.name;
	hold->group = malloc(2 * (rs->keys.ns.len + name.len) + 64);
	if (!hold->group)
		return -ENOMEM;
	hold->group_len = (uint32_t)redis_key(&rs->keys, REDIS_KEY_GROUP, name, hold->group);
	hold->owners_len = (uint32_t)redis_key(
		&rs->keys, REDIS_KEY_OWNERS, name, hold->group + hold->group_len);
	if (!hold->beat)
		hold->beat = redis_beat_get(rs, hold->grant->member);
	return hold->beat ? 0 : -ENOMEM;
}

static int join_answer(struct redis_call *call, const redisReply *reply, int r)
{
	if (r == 0) {
		call->hold->held = true;
		call->op->ttl_ms = call->rs->options.membership_timeout_ms;
	} else if (reply || call->op->sent == COORD_SENT_NO) {
		redis_hold_end(call->rs, call->hold);
	}
	return r;
}

void redis_member_join(struct coord_session *session, struct coord_op *op)
{
	struct redis_args args = {0};
	struct redis_call *call = member_call(session, op, join_answer);
	if (!call)
		return;
	struct redis_session *rs = call->rs;
	struct redis_hold *hold = call->hold = coord_grant_data(op->grant);
	int r = redis_hold_begin(rs, hold, op->grant);
	if (!r)
		r = hold_group(rs, hold);
	if (r || !member_args(call, hold->owner, &args)) {
		redis_hold_end(rs, hold);
		refuse(call, -ENOMEM);
		return;
	}
	redis_arg(&args, key(call, REDIS_KEY_BEAT, COORD_BYTES("")));
	redis_arg(&args, key(call, REDIS_KEY_SESSION, COORD_BYTES("")));
	redis_arg(&args, key(call, REDIS_KEY_CLAIM, coord_bytes_of(rs->config->member)));
	redis_arg_text(&args, op->flags & COORD_OP_REPLACE_STALE ? "r" : "");
	redis_arg_text(&args, rs->fence);
	redis_arg(&args, key(call, REDIS_KEY_BEATERS, COORD_BYTES("")));
	if (args.bad) {
		redis_hold_end(rs, hold);
		refuse(call, -ENOMEM);
		return;
	}
	redis_call_run(call, REDIS_TRACKED, REDIS_SCRIPT_JOIN, &args);
}

static int update_answer(struct redis_call *call, const redisReply *reply, int r)
{
	struct redis_session *rs = call->rs;
	(void)reply;
	if (r || call->op->grant)
		return r;
	/* The mount's own id, in a group that somebody else joined it to: it lives as long as we do. */
	struct redis_beat *beat = redis_beat_get(rs, call->op->member);
	if (beat && beat->adopted)
		redis_beat_put(rs, beat);
	else if (beat)
		beat->adopted = true;
	return 0;
}

/* By the grant's owner value, or anybody's. */
static void owner_of(const struct coord_op *op, char ret[REDIS_OWNER_LEN + 1])
{
	ret[0] = 0;
	if (op->grant)
		redis_owner_format(op->grant->owner, ret);
}

void redis_member_update(struct coord_session *session, struct coord_op *op)
{
	struct redis_args args = {0};
	char owner[REDIS_OWNER_LEN + 1];
	struct redis_call *call = member_call(session, op, update_answer);
	if (!call)
		return;
	owner_of(op, owner);
	if (!op->grant && !(op->flags & COORD_OP_ADOPT))
		refuse(call, -EPERM);
	else if (!member_args(call, owner, &args))
		refuse(call, -ENOMEM);
	else
		redis_call_run(call, REDIS_TRACKED, REDIS_SCRIPT_UPDATE, &args);
}

static int leave_answer(struct redis_call *call, const redisReply *reply, int r)
{
	struct redis_session *rs = call->rs;
	if (!reply || (r && r != -ENOENT && r != -EPERM))
		return r;
	if (call->op->grant) {
		redis_hold_end(rs, coord_grant_data(call->op->grant));
		return r;
	}
	struct redis_beat *beat = beat_find(rs, call->op->member);
	if (beat && beat->adopted) {
		beat->adopted = false;
		redis_beat_put(rs, beat);
	}
	return r;
}

static void hold_leaves(struct redis_hold *hold)
{
	hold->leaving = true;
	if (hold->beat && !hold->beat_ends)
		hold->beat->leaving++;
	hold->beat_ends = hold->beat;
}

void redis_member_leave(struct coord_session *session, struct coord_op *op)
{
	struct redis_args args = {0};
	char owner[REDIS_OWNER_LEN + 1];
	struct redis_call *call = member_call(session, op, leave_answer);
	if (!call)
		return;
	owner_of(op, owner);
	struct redis_hold *hold = op->grant ? coord_grant_data(op->grant) : NULL;
	if (hold && hold->grant)
		hold_leaves(hold);
	const struct redis_beat *beat = beat_find(call->rs, op->member);
	bool last = beat && beat->uses == beat->leaving + (!op->grant && beat->adopted);
	if (!op->grant && !(op->flags & COORD_OP_ADOPT)) {
		refuse(call, -EPERM);
	} else if (!member_args(call, owner, &args)) {
		refuse(call, -ENOMEM);
	} else {
		redis_arg_text(&args, last ? "l" : "");
		redis_arg(&args, key(call, REDIS_KEY_TELL, COORD_BYTES("")));
		redis_call_run(call, REDIS_TRACKED, REDIS_SCRIPT_LEAVE, &args);
	}
}

void redis_leave_args(
	struct redis_session *rs, const struct redis_hold *hold, bool last, struct redis_args *args)
{
	redis_arg_key(args, (struct coord_bytes){hold->group, hold->group_len});
	redis_arg(args, (struct coord_bytes){hold->group + hold->group_len, hold->owners_len});
	redis_arg(args, hold->grant->member);
	redis_arg_text(args, "");
	redis_arg_text(args, hold->owner);
	redis_arg_text(args, "");
	redis_arg(args, redis_beat_key(hold->beat, false));
	redis_arg(args, redis_beat_key(hold->beat, true));
	redis_arg_text(args, rs->id);
	redis_arg_text(args, last ? "l" : "");
}

static int get_answer(struct redis_call *call, const redisReply *reply, int r)
{
	if (!reply || r)
		return r;
	if (reply->elements != 3 || !redis_bytes(reply, 1).data)
		return -EIO;
	return redis_member_row(
		call->op, call->op->member, redis_bytes(reply, 1), redis_bytes(reply, 2), true);
}

void redis_member_get(struct coord_session *session, struct coord_op *op)
{
	struct redis_args args = {0};
	struct redis_call *call = member_call(session, op, get_answer);
	if (!call)
		return;
	redis_arg_key(&args, key(call, REDIS_KEY_GROUP, op->key.name));
	redis_arg(&args, key(call, REDIS_KEY_OWNERS, op->key.name));
	redis_arg(&args, op->member);
	redis_arg(&args, key(call, REDIS_KEY_BEAT, COORD_BYTES("")));
	redis_arg(&args, key(call, REDIS_KEY_SESSION, COORD_BYTES("")));
	redis_arg(&args, key(call, REDIS_KEY_BEATERS, COORD_BYTES("")));
	if (args.bad) {
		refuse(call, -ENOMEM);
		return;
	}
	redis_call_run(call, REDIS_PLAIN, REDIS_SCRIPT_MEMBER_GET, &args);
}
