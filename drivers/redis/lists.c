/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which locks are held, by anybody: the keys of the database are walked with SCAN, which blocks nobody, and
 * what the names that were found stand for is then read in one pipelined trip. SCAN may tell a key
 * twice, and both dialects name one lock: each name is kept once.
 */
#include "drivers/redis/redis.h"

enum {
	SCAN_COUNT = 1000,
	NAMES_MAX = 1 << 20,
	ROWS = REDIS_KEYS_A_SCRIPT / (REDIS_LOCK_KEYS + 2), /* a script */
};

struct name {
	struct coord_node node;
	struct name *next;
	char text[];
};

struct part {
	struct redis_cmd cmd;
	struct list *list;
	size_t len;
	struct coord_bytes names[ROWS];
};

struct list {
	struct redis_call *call;
	struct coord_table table;
	struct name *first, **end;
	size_t len, parts, answered;
	int status;
	char cursor[24];
};

static void list_done(struct redis_call *call, int status)
{
	struct list *list = call->data;
	coord_table_done(&list->table);
	redis_call_end(call, status);
}

/* ---- The rows ---- */

/* A leadership is the lock leader_of_G, unless the record says that it was taken as a lock. */
static bool part_kind(
	const struct redis_state *state, enum coord_kind kind, struct coord_bytes *name)
{
	struct redis_record record;
	struct coord_bytes group;
	bool leader = redis_leader_group(*name, &group);
	if (leader && redis_record_parse(state, &record))
		leader = coord_bytes_equal(record.kind, COORD_BYTES("leader"));
	if (leader)
		*name = group;
	return leader == (kind == COORD_LEADER);
}

static int part_rows(struct part *part, const redisReply *reply)
{
	struct redis_call *call = part->list->call;
	unsigned keys = call->rs->keys.dialect == REDIS_DIALECT_BOTH ? 2 : 1;
	if (reply->elements != 1 + part->len * (keys + 2))
		return -EIO;
	size_t at = 1;
	for (size_t i = 0; i < part->len; i++) {
		struct redis_state state = {0};
		struct coord_bytes name = part->names[i];
		bool same;
		for (unsigned k = 0; k < keys; k++)
			state.values[k] = redis_bytes(reply, at++);
		state.record = redis_bytes(reply, at++);
		int64_t count = redis_integer(reply, at++);
		state.count = count > 0 ? (uint64_t)count : 0;
		enum coord_kind kind = call->op->key.kind;
		if (!redis_state_value(&state, &same).data || !part_kind(&state, kind, &name))
			continue;
		int r = redis_state_row(call->op, kind, name, &state);
		if (r)
			return r;
	}
	return 0;
}

static void part_reply(
	struct redis_cmd *cmd, int status, enum coord_sent sent, const redisReply *reply)
{
	struct part *part = coord_container(cmd, struct part, cmd);
	struct list *list = part->list;
	int r = status ? redis_status(status) : redis_code_errno(reply);
	if (status)
		list->call->op->sent = sent;
	if (!r)
		r = part_rows(part, reply);
	if (r && !list->status)
		list->status = r;
	if (++list->answered == list->parts)
		list_done(list->call, list->status);
}

static bool part_add(struct part *part, struct coord_bytes name, struct redis_args *args)
{
	struct redis_call *call = part->list->call;
	struct redis_session *rs = call->rs;
	static const enum redis_key kinds[] = {
		REDIS_KEY_LOCK, REDIS_KEY_LOCK_OLD, REDIS_KEY_RECORD, REDIS_KEY_SHARERS};
	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		if ((kinds[i] == REDIS_KEY_LOCK && rs->keys.dialect == REDIS_DIALECT_OLD) ||
			(kinds[i] == REDIS_KEY_LOCK_OLD && rs->keys.dialect == REDIS_DIALECT_NEW))
			continue;
		struct coord_bytes key = redis_op_key(rs, call->op, kinds[i], name);
		if (!key.data)
			return false;
		redis_arg(args, key);
	}
	part->names[part->len++] = name;
	return true;
}

/* Sends one part; it is sent in any case, so that its answer is counted. */
static void part_send(struct part *part, struct name **name)
{
	struct list *list = part->list;
	struct redis_session *rs = list->call->rs;
	struct redis_args args = {0};
	redis_arg_number(&args, rs->keys.dialect == REDIS_DIALECT_BOTH ? 2 : 1);
	for (; *name && part->len < ROWS; *name = (*name)->next)
		if (!part_add(part, (*name)->node.key, &args)) {
			list->status = -ENOMEM;
			break;
		}
	part->cmd.fn = part_reply;
	redis_run(rs, REDIS_PLAIN, &part->cmd, REDIS_SCRIPT_ROWS, &args);
}

static void list_rows(struct redis_call *call)
{
	struct list *list = call->data;
	size_t n = (list->len + ROWS - 1) / ROWS;
	struct part *parts = n ? coord_op_alloc(call->op, n * sizeof(*parts)) : NULL;
	if (!parts) {
		list_done(call, n ? -ENOMEM : 0);
		return;
	}
	struct name *name = list->first;
	list->parts = n;
	for (size_t i = 0; i < n; i++) {
		parts[i].list = list;
		part_send(&parts[i], &name);
	}
}

/* ---- The names ---- */

static int list_name(struct redis_call *call, const redisReply *key)
{
	struct list *list = call->data;
	char text[REDIS_KEY_MAX];
	struct coord_bytes name = {text, 0}, group;
	if (key->type != REDIS_REPLY_STRING || key->len > sizeof(text) ||
		redis_key_lock_name(&call->rs->keys,
			(struct coord_bytes){key->str, (size_t)key->len}, text, &name.len) < 0)
		return 0;
	if (call->op->key.kind == COORD_LEADER && !redis_leader_group(name, &group))
		return 0;
	if (coord_table_find(&list->table, 0, name))
		return 0;
	struct name *entry = coord_op_alloc(call->op, sizeof(*entry) + name.len);
	if (!entry || list->len == NAMES_MAX)
		return -ENOMEM;
	memcpy(entry->text, name.data, name.len);
	entry->node.key = (struct coord_bytes){entry->text, name.len};
	*list->end = entry;
	list->end = &entry->next;
	list->len++;
	return coord_table_add(&list->table, &entry->node);
}

static void list_scan(struct redis_call *call);

static int scan_answer(struct redis_call *call, const redisReply *reply, int r)
{
	struct list *list = call->data;
	if (reply && reply->type == REDIS_REPLY_ERROR)
		r = redis_errno(reply);
	else if (reply)
		r = reply->type == REDIS_REPLY_ARRAY && reply->elements == 2 &&
				    reply->element[1]->type == REDIS_REPLY_ARRAY
			    ? 0
			    : -EIO;
	struct coord_bytes cursor = r ? COORD_BYTES("") : redis_bytes(reply, 0);
	if (!r && (!cursor.len || cursor.len >= sizeof(list->cursor)))
		r = -EIO;
	for (size_t i = 0; !r && i < reply->element[1]->elements; i++)
		r = list_name(call, reply->element[1]->element[i]);
	if (r) {
		coord_table_done(&list->table);
		return r;
	}
	/* Nobody waits any more, and a server that lies has no last cursor. */
	const struct coord_op *op = call->op;
	if (op->deadline_ms && coord_now_ms(call->rs->loop) >= op->deadline_ms) {
		coord_table_done(&list->table);
		return -ETIMEDOUT;
	}
	memcpy(list->cursor, cursor.data, cursor.len);
	list->cursor[cursor.len] = 0;
	if (strcmp(list->cursor, "0") == 0)
		list_rows(call);
	else
		list_scan(call);
	return REDIS_MORE;
}

static void list_scan(struct redis_call *call)
{
	struct list *list = call->data;
	struct redis_args args = {0};
	char pattern[REDIS_KEY_MAX];
	redis_arg_text(&args, "SCAN");
	redis_arg_text(&args, list->cursor);
	redis_arg_text(&args, "MATCH");
	redis_arg(&args,
		(struct coord_bytes){pattern, redis_key_lock_pattern(&call->rs->keys, pattern)});
	redis_arg_text(&args, "COUNT");
	redis_arg_number(&args, SCAN_COUNT);
	redis_call_send(call, REDIS_PLAIN, &args);
}

void redis_lock_list(struct coord_session *session, struct coord_op *op)
{
	struct redis_session *rs = coord_session_data(session);
	struct redis_call *call = redis_call_of(rs, op, scan_answer);
	struct list *list = call->data = coord_op_alloc(op, sizeof(*list));
	if (!list) {
		redis_call_end(call, -ENOMEM);
		return;
	}
	list->call = call;
	list->end = &list->first;
	strcpy(list->cursor, "0");
	list_scan(call);
}
