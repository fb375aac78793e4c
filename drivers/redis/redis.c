/* SPDX-License-Identifier: Apache-2.0 */
/*
 * redis:// -- coordination through one redis server, or a master that sentinels name.
 *
 * A session is a claim on the member id and a key of its own, both with a time to live; everything that is held
 * has one too. Renewing is one pipelined trip of small scripts on the connection that does not track.
 * An epoch begins with a new link and ends with close, which gives up what is left of it.
 */
#include "drivers/redis/conn.h"
#include "drivers/redis/redis.h"

#include <assert.h>
#include <stdio.h>
#include <syslog.h>

enum { TELL_BAD_MS = 1000, TELL_REFUSED_MS = 60000 };

/* ---- Answers ---- */

void redis_arg_number(struct redis_args *args, uint64_t number)
{
	assert(args->numbers_used < 4);
	char *text = args->numbers[args->numbers_used++];
	int len = snprintf(text, sizeof(args->numbers[0]), "%llu", (unsigned long long)number);
	redis_arg(args, (struct coord_bytes){text, (size_t)len});
}

struct coord_bytes redis_bytes(const redisReply *reply, size_t index)
{
	if (index >= reply->elements || reply->element[index]->type != REDIS_REPLY_STRING)
		return (struct coord_bytes){0};
	const redisReply *at = reply->element[index];
	return (struct coord_bytes){at->str, (size_t)at->len};
}

bool redis_decimal(struct coord_bytes text, uint64_t *ret)
{
	uint64_t value = 0;
	if (!text.len || text.len > 18)
		return false;
	for (size_t i = 0; i < text.len; i++) {
		if (text.data[i] < '0' || text.data[i] > '9')
			return false;
		value = value * 10 + (uint64_t)(text.data[i] - '0');
	}
	*ret = value;
	return true;
}

int64_t redis_integer(const redisReply *reply, size_t index)
{
	uint64_t value;
	if (index < reply->elements && reply->element[index]->type == REDIS_REPLY_INTEGER)
		return reply->element[index]->integer < 0 ? -1 : reply->element[index]->integer;
	return redis_decimal(redis_bytes(reply, index), &value) ? (int64_t)value : -1;
}

void redis_owner_format(const uint8_t owner[16], char ret[REDIS_OWNER_LEN + 1])
{
	static const char hex[] = "0123456789abcdef";
	for (int i = 0; i < 16; i++) {
		ret[2 * i] = hex[owner[i] >> 4];
		ret[2 * i + 1] = hex[owner[i] & 15];
	}
	ret[REDIS_OWNER_LEN] = 0;
}

bool redis_owner_parse(struct coord_bytes text, uint8_t ret[16])
{
	uint8_t owner[16] = {0};
	if (text.len != REDIS_OWNER_LEN)
		return false;
	for (size_t i = 0; i < text.len; i++) {
		char c = text.data[i];
		int digit = c >= '0' && c <= '9'   ? c - '0'
			    : c >= 'a' && c <= 'f' ? c - 'a' + 10
						   : -1;
		if (digit < 0)
			return false;
		owner[i / 2] = (uint8_t)(owner[i / 2] << 4 | digit);
	}
	memcpy(ret, owner, 16);
	return true;
}

bool redis_cut(struct coord_bytes *text, char stop, struct coord_bytes *ret)
{
	const char *at = text->len ? memchr(text->data, stop, text->len) : NULL;
	if (!at)
		return false;
	*ret = (struct coord_bytes){text->data, (size_t)(at - text->data)};
	text->len -= ret->len + 1;
	text->data = at + 1;
	return true;
}

int redis_status(int status)
{
	/* Too much waits to be sent: the same as a server that is away. */
	return status == -ENOBUFS ? -EHOSTDOWN : status;
}

/* ---- Calls ---- */

void *redis_piece_new(struct redis_session *rs, size_t size)
{
	struct redis_piece *piece = calloc(1, size);
	if (piece)
		coord_list_add(&rs->batches, &piece->link);
	return piece;
}

void redis_piece_free(void *memory)
{
	struct redis_piece *piece = memory;
	coord_list_remove(&piece->link);
	free(piece);
}

struct redis_call *redis_call_of(struct redis_session *rs, struct coord_op *op,
	int (*answer)(struct redis_call *, const redisReply *, int status))
{
	struct redis_call *call = coord_op_data(op);
	*call = (struct redis_call){.op = op, .rs = rs, .answer = answer};
	return call;
}

struct coord_bytes redis_op_key(
	struct redis_session *rs, struct coord_op *op, enum redis_key kind, struct coord_bytes name)
{
	char key[REDIS_KEY_MAX];
	return coord_op_copy(op, key, redis_key(&rs->keys, kind, name, key));
}

void redis_call_item(struct redis_call *call, struct redis_item *item)
{
	call->item = item;
	redis_item_flies(item);
}

static void call_end(struct redis_call *call, int status, enum redis_landing landing)
{
	struct redis_item *item = call->item, *leader = call->leader;
	coord_op_fail(call->op, status);
	if (item)
		redis_item_landed(item, landing);
	if (leader)
		redis_item_landed(leader, landing);
}

void redis_call_end(struct redis_call *call, int status)
{
	call_end(call, status, REDIS_APART);
}

/* The code of a script's answer; other commands have none. */
static int reply_status(const redisReply *reply)
{
	bool script = reply->type == REDIS_REPLY_ARRAY && reply->elements &&
		      reply->element[0]->type == REDIS_REPLY_INTEGER;
	return script || reply->type == REDIS_REPLY_ERROR ? redis_code_errno(reply) : 0;
}

/* Whoever looks after the server must know where to look. Each moment only one is told. */
static void tell_bad(struct redis_call *call, const redisReply *reply)
{
	static const char *const kinds[COORD_KINDS] = {[COORD_LOCK] = "lock",
		[COORD_LEADER] = "the leadership of group",
		[COORD_MEMBER] = "group",
		[COORD_GROUP] = "group"};
	struct redis_session *rs = call->rs;
	char key[REDIS_KEY_MAX], name[REDIS_KEY_MAX], why[160];
	uint64_t now = coord_now_ms(rs->loop);
	if (now < rs->told_bad_ms + TELL_BAD_MS)
		return;
	rs->told_bad_ms = now;
	if (reply->type == REDIS_REPLY_ERROR) {
		const struct coord_key *of = &call->op->key;
		redis_printable(reply->str, reply->len, why, sizeof(why));
		redis_printable(of->name.data, of->name.len, name, sizeof(name));
		coord_log(LOG_WARNING, "redis: a key of %s '%s' holds something else: %s",
			kinds[of->kind], name, why);
		return;
	}
	size_t len = redis_key(&rs->keys, REDIS_KEY_TOKEN, COORD_BYTES(""), key);
	redis_printable(key, len, name, sizeof(name));
	coord_log(LOG_WARNING, "redis: the key %s holds no token", name);
}

/* Rights that were taken away. The first is told, and again after a time. */
static void tell_refused(struct redis_session *rs, bool renewal, const redisReply *reply)
{
	char why[160];
	uint64_t now = coord_now_ms(rs->loop);
	uint64_t *told = &rs->told_refused_ms[renewal];
	if (*told && now < *told + TELL_REFUSED_MS)
		return;
	*told = now;
	redis_words(reply, why, sizeof(why));
	coord_log(LOG_ERR, "redis: %s: the server refuses %s: %s", redis_link_peer(rs->link),
		renewal ? "to renew what is held" : "a request", why);
}

static void call_reply(
	struct redis_cmd *cmd, int status, enum coord_sent sent, const redisReply *reply)
{
	struct redis_call *call = coord_container(cmd, struct redis_call, cmd);
	call->op->sent = sent;
	if (sent != COORD_SENT_NO)
		call->op->sent_ms = cmd->sent_ms;
	int r = status ? redis_status(status) : reply_status(reply);
	if (r == -EBADMSG)
		tell_bad(call, reply);
	if (r == -EACCES && !call->rs->opening)
		tell_refused(call->rs, false, reply);
	r = call->answer(call, status ? NULL : reply, r);
	if (r != REDIS_MORE)
		call_end(call, r, redis_landing(call->rs, status, reply));
}

void redis_run(struct redis_session *rs, enum redis_lane lane, struct redis_cmd *cmd,
	enum redis_script_id id, const struct redis_args *args)
{
	redis_script(
		rs->link, lane, cmd, &rs->scripts[id], args->keys, args->n, args->v, args->len);
}

void redis_call_run(struct redis_call *call, enum redis_lane lane, enum redis_script_id id,
	const struct redis_args *args)
{
	call->cmd = (struct redis_cmd){.fn = call_reply};
	redis_run(call->rs, lane, &call->cmd, id, args);
}

void redis_call_send(struct redis_call *call, enum redis_lane lane, const struct redis_args *args)
{
	call->cmd = (struct redis_cmd){.fn = call_reply};
	redis_send(call->rs->link, lane, &call->cmd, args->n, args->v, args->len);
}

/* ---- Opening ---- */

static void tell_watch(struct redis_session *rs);

static void open_end(struct redis_session *rs, int status)
{
	struct coord_op *op = rs->opening;
	rs->opening = NULL;
	if (status && status != -EEXIST)
		coord_op_explain(op, "%s", rs->down_text[0] ? rs->down_text : strerror(-status));
	if (status) {
		redis_link_close(rs->link);
	} else {
		coord_session_set_id(rs->session, rs->id);
		op->ttl_ms = rs->ttl_ms;
		if (!redis_link_tracks(rs->link))
			coord_session_narrow(rs->session, COORD_CAN_NOTIFY);
		tell_watch(rs);
		redis_items_stale(rs);
	}
	coord_op_fail(op, status);
}

/* The claim is another's: its identity, and whose it is, so that it can be replaced. */
static int open_refused(struct redis_session *rs, struct coord_op *op, const redisReply *reply)
{
	struct coord_bytes text = redis_bytes(reply, 1), id;
	struct coord_row *row = coord_op_row(op);
	if (!row)
		return -ENOMEM;
	rs->refused[0] = 0;
	if (redis_cut(&text, '\n', &id) && id.len == REDIS_SESSION_LEN) {
		memcpy(rs->refused, id.data, id.len);
		rs->refused[id.len] = 0;
	}
	if (text.len > COORD_IDENTITY_MAX)
		text.len = 0;
	row->name = coord_op_copy(op, rs->config->member, strlen(rs->config->member));
	row->data = coord_op_copy(op, text.data, text.len);
	return row->name.data && row->data.data ? -EEXIST : -ENOMEM;
}

/* The scripts that keep the claim tell when they found something else there. */
static void junk_replaced(const struct redis_session *rs, const redisReply *reply)
{
	char key[REDIS_KEY_MAX], text[REDIS_KEY_MAX];
	if (redis_integer(reply, 1) != 1)
		return;
	size_t len = redis_key(&rs->keys, REDIS_KEY_CLAIM, coord_bytes_of(rs->config->member), key);
	redis_printable(key, len, text, sizeof(text));
	coord_log(
		LOG_WARNING, "redis: the key %s held nothing that a mount writes: replaced", text);
}

/* The server's words about why not. */
static void open_words(struct redis_session *rs, const redisReply *reply)
{
	char words[160];
	if (!reply || reply->type != REDIS_REPLY_ERROR)
		return;
	redis_words(reply, words, sizeof(words));
	snprintf(rs->down_text, sizeof(rs->down_text), "%s: %s", redis_link_peer(rs->link), words);
}

static int open_answer(struct redis_call *call, const redisReply *reply, int r)
{
	struct redis_session *rs = call->rs;
	if (rs->opening != call->op)
		return r;
	if (reply && r == -EEXIST)
		r = open_refused(rs, call->op, reply);
	open_words(rs, reply);
	if (reply && r == 0)
		junk_replaced(rs, reply);
	open_end(rs, r);
	return REDIS_MORE;
}

/* The keys of the claim and of the session. */
static void claim_args(const struct redis_session *rs, struct redis_args *args)
{
	redis_arg(args, rs->claim);
	redis_arg(args, rs->own);
	redis_arg_text(args, rs->id);
}

static void open_claim(struct redis_session *rs)
{
	struct coord_op *op = rs->opening;
	struct redis_args args = {0};
	char identity[COORD_IDENTITY_MAX];
	struct redis_call *call = redis_call_of(rs, op, open_answer);
	size_t len = coord_identity_format(&rs->config->identity, identity);
	claim_args(rs, &args);
	redis_arg(&args, (struct coord_bytes){identity, len});
	redis_arg_number(&args, rs->ttl_ms);
	redis_arg_text(&args, rs->fence);
	redis_arg_text(&args, op->flags & COORD_OP_REPLACE_STALE ? rs->refused : "");
	redis_arg(&args, redis_op_key(rs, op, REDIS_KEY_SESSION, COORD_BYTES("")));
	if (args.bad)
		open_end(rs, -ENOMEM);
	else
		redis_call_run(call, REDIS_TRACKED, REDIS_SCRIPT_OPEN, &args);
}

static int rights_answer(struct redis_call *call, const redisReply *reply, int r)
{
	struct redis_session *rs = call->rs;
	if (rs->opening != call->op)
		return r;
	struct coord_bytes commands = reply ? redis_bytes(reply, 1) : (struct coord_bytes){0};
	struct coord_bytes keys = reply ? redis_bytes(reply, 2) : (struct coord_bytes){0};
	open_words(rs, reply);
	if (r == 0 && commands.len + keys.len) {
		char text[2][160];
		redis_printable(commands.data, commands.len, text[0], sizeof(text[0]));
		redis_printable(keys.data, keys.len, text[1], sizeof(text[1]));
		snprintf(rs->down_text, sizeof(rs->down_text),
			"%s: the user has too few permissions: it may not %s%s%s%s",
			redis_link_peer(rs->link), commands.len ? "run " : "", text[0],
			commands.len && keys.len ? ", nor " : "", keys.len ? "use " : "");
		size_t len = strlen(rs->down_text);
		snprintf(rs->down_text + len, sizeof(rs->down_text) - len, "%s", text[1]);
		r = -EACCES;
	}
	if (r)
		open_end(rs, r);
	else
		open_claim(rs);
	return REDIS_MORE;
}

/* A script that is refused in its middle leaves half of what it does: so we ask first. */
static void open_rights(struct redis_session *rs)
{
	static const char *const more[] = {"SMEMBERS", "SCAN", "EVAL"};
	char commands[REDIS_COMMANDS_MAX][REDIS_COMMAND_LEN];
	struct coord_op *op = rs->opening;
	struct redis_args args = {0};
	struct redis_call *call = redis_call_of(rs, op, rights_answer);
	const struct coord_bytes none = COORD_BYTES("");
	redis_arg_number(&args, 5);
	redis_arg(&args, rs->claim);
	redis_arg(&args, rs->own);
	redis_arg(&args, rs->tell);
	redis_arg(&args, redis_op_key(rs, op, REDIS_KEY_TOKEN, none));
	redis_arg(&args, redis_op_key(rs, op, REDIS_KEY_GROUPS, none));
	size_t n = redis_scripts_commands(commands);
	for (size_t i = 0; i < n; i++)
		redis_arg_text(&args, commands[i]);
	for (size_t i = 0; i < sizeof(more) / sizeof(*more); i++)
		redis_arg_text(&args, more[i]);
	if (args.bad)
		open_end(rs, -ENOMEM);
	else
		redis_call_run(call, REDIS_TRACKED, REDIS_SCRIPT_RIGHTS, &args);
}

static void link_up(void *user)
{
	struct redis_session *rs = user;
	if (rs->closing)
		return;
	/* What was sent through another link before counts no more from the first script on. */
	snprintf(rs->fence, sizeof(rs->fence), "%s\n%llu", rs->config->member,
		(unsigned long long)++rs->links);
	if (rs->opening && !rs->config->read_only) {
		open_rights(rs);
	} else if (rs->opening) {
		rs->opening->sent_ms = coord_now_ms(rs->loop);
		open_end(rs, 0);
	} else {
		redis_fence(rs);
		coord_session_event(rs->session, rs->epoch, COORD_EVENT_CONNECTED);
		tell_watch(rs);
		redis_items_stale(rs);
	}
}

static void link_down(void *user, int status, const char *text)
{
	struct redis_session *rs = user;
	snprintf(rs->down_text, sizeof(rs->down_text), "%s", text);
	if (rs->opening) {
		open_end(rs, status);
		return;
	}
	if (rs->closing)
		return;
	coord_session_event(rs->session, rs->epoch, COORD_EVENT_DISCONNECTED);
	if (status == -EACCES)
		coord_session_event(rs->session, rs->epoch, COORD_EVENT_REFUSED);
}

static void link_invalidated(void *user, struct coord_bytes key)
{
	struct redis_session *rs = user;
	if (!key.data || coord_bytes_equal(key, rs->tell))
		tell_watch(rs);
	redis_invalidated(rs, key);
}

static const struct redis_link_hooks hooks = {
	.up = link_up,
	.down = link_down,
	.invalidated = link_invalidated,
};

static void redis_open(struct coord_session *session, struct coord_op *op)
{
	struct redis_session *rs = coord_session_data(session);
	assert(!rs->opening);
	rs->epoch = op->epoch;
	rs->opening = op;
	rs->down_text[0] = 0;
	redis_link_close(rs->link);
	redis_link_open(rs->link);
}

/* ---- Closing ---- */

static void farewell_reply(
	struct redis_cmd *cmd, int status, enum coord_sent sent, const redisReply *reply)
{
	(void)cmd;
	(void)status;
	(void)sent;
	(void)reply;
}

/* Gives up one hold, without waiting for the answer. */
static void farewell(struct redis_session *rs, struct redis_hold *hold, struct redis_cmd *cmd)
{
	struct redis_args args = {0};
	cmd->fn = farewell_reply;
	if (hold->item) {
		redis_unlock_args(rs, hold->item, hold->owner, &args);
		redis_run(rs, REDIS_TRACKED, cmd, REDIS_SCRIPT_UNLOCK, &args);
	} else if (hold->group && hold->beat) {
		redis_leave_args(rs, hold, true, &args);
		redis_run(rs, REDIS_TRACKED, cmd, REDIS_SCRIPT_LEAVE, &args);
	}
}

static int close_answer(struct redis_call *call, const redisReply *reply, int r)
{
	struct redis_session *rs = call->rs;
	(void)reply;
	rs->closing = NULL;
	redis_link_close(rs->link);
	return r;
}

static size_t holds_len(const struct redis_session *rs)
{
	size_t n = 0;
	for (const struct coord_list *at = rs->holds.next; at != &rs->holds; at = at->next)
		n++;
	return n;
}

static void redis_close(struct coord_session *session, struct coord_op *op)
{
	struct redis_session *rs = coord_session_data(session);
	struct redis_args args = {0};
	struct redis_call *call = redis_call_of(rs, op, close_answer);
	struct redis_cmd *cmds = coord_op_alloc(op, (holds_len(rs) + 1) * sizeof(*cmds));
	struct redis_hold *hold;
	redis_beats_adopted_done(rs);
	claim_args(rs, &args);
	redis_arg_text(&args, rs->fence);
	if (!redis_link_is_up(rs->link) || !cmds || args.bad) {
		redis_link_close(rs->link);
		op->sent = COORD_SENT_NO;
		coord_op_fail(op, -EHOSTDOWN);
		return;
	}
	rs->closing = op;
	coord_list_each (hold, &rs->holds, link)
		farewell(rs, hold, cmds++);
	redis_call_run(call, REDIS_TRACKED, REDIS_SCRIPT_CLOSE, &args);
}

/* ---- Keeping alive ---- */

struct part {
	struct redis_piece piece;
	struct redis_cmd cmd;
	struct renewal *renewal;
	bool decides; /* it keeps the session */
	unsigned len;
	char owners[REDIS_KEYS_A_SCRIPT / 2][REDIS_OWNER_LEN];
};

struct renewal {
	struct redis_piece piece;
	struct coord_op *op; /* NULL: nobody asked */
	struct redis_session *rs;
	uint64_t sent_ms;
	enum coord_sent how;
	size_t sent, answered;
	int status;
	bool complete; /* all were sent */
	uint32_t epoch;
};

static void renewal_end(struct renewal *renewal)
{
	struct coord_op *op = renewal->op;
	struct redis_session *rs = renewal->rs;
	if (!renewal->complete || renewal->answered < renewal->sent)
		return;
	bool expired = renewal->status == -ESTALE && renewal->epoch == rs->epoch;
	if (expired)
		coord_log(LOG_ERR,
			"redis: %s: the claim on the member id is gone: the server was emptied, "
			"another mount took it over, or it expired while this daemon stood still",
			redis_link_peer(rs->link));
	if (op) {
		op->ttl_ms = renewal->rs->ttl_ms;
		op->sent = renewal->how;
		if (renewal->sent_ms != UINT64_MAX)
			op->sent_ms = renewal->sent_ms;
		coord_op_fail(op, renewal->status);
	}
	redis_piece_free(renewal);
	/* Last: it ends all that is the epoch's. */
	if (expired && !op)
		coord_session_event(rs->session, rs->epoch, COORD_EVENT_EXPIRED);
}

/* Each of the part is alive, or gone, or has to be asked about again. Of a session that is gone, of which the
 * first part tells, no single loss is told: with a new session members are joined again. */
static int part_told(struct part *part, const redisReply *reply)
{
	struct redis_session *rs = part->renewal->rs;
	if (part->len && reply->elements != 1 + part->len)
		return -EIO;
	if (!part->len)
		junk_replaced(rs, reply);
	for (unsigned i = 0; i < part->len; i++) {
		struct redis_hold *hold =
			redis_hold_find(rs, (struct coord_bytes){part->owners[i], REDIS_OWNER_LEN});
		if (!hold || hold->leaving)
			continue;
		uint64_t ttl = hold->item ? rs->options.lock_timeout_ms
					  : rs->options.membership_timeout_ms;
		if (redis_integer(reply, 1 + i) == 1)
			coord_grant_renewed(rs->session, hold->grant, part->cmd.sent_ms, ttl);
		else if (redis_integer(reply, 1 + i) == 0 && part->renewal->status != -ESTALE)
			redis_hold_lost(rs, hold);
	}
	return 0;
}

static void part_reply(
	struct redis_cmd *cmd, int status, enum coord_sent sent, const redisReply *reply)
{
	struct part *part = coord_container(cmd, struct part, cmd);
	struct renewal *renewal = part->renewal;
	int r = status ? redis_status(status) : redis_code_errno(reply);
	if (!status && cmd->sent_ms < renewal->sent_ms)
		renewal->sent_ms = cmd->sent_ms;
	if (r == -EACCES)
		tell_refused(renewal->rs, true, reply);
	if (r == 0)
		r = part_told(part, reply);
	if (status && renewal->status == 0)
		renewal->how = sent;
	/* What was refused of the rest ends with its own lease. */
	bool counts = status || part->decides || r == -EHOSTDOWN;
	if (counts && (r == -ESTALE || (r && !renewal->status)))
		renewal->status = r;
	renewal->answered++;
	redis_piece_free(part);
	renewal_end(renewal);
}

static struct part *part_new(struct renewal *renewal)
{
	struct part *part = redis_piece_new(renewal->rs, sizeof(*part));
	if (!part) {
		renewal->status = -ENOMEM;
		return NULL;
	}
	part->renewal = renewal;
	part->cmd.fn = part_reply;
	return part;
}

static void part_run(struct part *part, enum redis_lane lane, enum redis_script_id id,
	const struct redis_args *args)
{
	part->renewal->sent++;
	redis_run(part->renewal->rs, lane, &part->cmd, id, args);
}

static void part_send(struct part *part, enum redis_script_id id, const struct redis_args *args)
{
	part_run(part, REDIS_PLAIN, id, args);
}

static unsigned lock_keys(const struct redis_session *rs)
{
	return rs->keys.dialect == REDIS_DIALECT_BOTH ? 2 : 1;
}

/* The next hold of that sort that the core knows; NULL: no more. */
static struct redis_hold *next_hold(struct redis_session *rs, struct coord_grant **at, bool members)
{
	while ((*at = coord_grants_next(rs->session, *at))) {
		struct redis_hold *hold = coord_grant_data(*at);
		if (hold->grant && !hold->leaving && members == ((*at)->key.kind == COORD_MEMBER))
			return hold;
	}
	return NULL;
}

static void lock_keys_args(const struct redis_item *item, struct redis_args *args)
{
	for (unsigned i = 0; i < item->lock_keys; i++)
		redis_arg_key(args, redis_item_key(item, i));
	redis_arg_key(args, item->record);
	redis_arg_key(args, item->sharers);
}

static void renew_locks(struct renewal *renewal)
{
	struct redis_session *rs = renewal->rs;
	unsigned most = REDIS_KEYS_A_SCRIPT / (lock_keys(rs) + 2);
	struct coord_grant *at = NULL;
	struct redis_hold *hold = next_hold(rs, &at, false);
	while (hold) {
		struct redis_args args = {0};
		struct part *part = part_new(renewal);
		if (!part)
			return;
		for (; hold && part->len < most; hold = next_hold(rs, &at, false)) {
			lock_keys_args(hold->item, &args);
			memcpy(part->owners[part->len++], hold->owner, REDIS_OWNER_LEN);
		}
		redis_arg_number(&args, rs->options.lock_timeout_ms);
		redis_arg_number(&args, lock_keys(rs));
		for (unsigned i = 0; i < part->len; i++)
			redis_arg(&args, (struct coord_bytes){part->owners[i], REDIS_OWNER_LEN});
		part_send(part, REDIS_SCRIPT_RENEW, &args);
	}
}

static void renew_members(struct renewal *renewal)
{
	struct redis_session *rs = renewal->rs;
	struct coord_grant *at = NULL;
	struct redis_hold *hold = next_hold(rs, &at, true);
	while (hold) {
		struct redis_args args = {0};
		struct redis_hold *holds[REDIS_KEYS_A_SCRIPT / 2];
		struct part *part = part_new(renewal);
		if (!part)
			return;
		for (; hold && part->len < REDIS_KEYS_A_SCRIPT / 2;
			hold = next_hold(rs, &at, true)) {
			redis_arg_key(&args, (struct coord_bytes){hold->group, hold->group_len});
			redis_arg_key(&args, (struct coord_bytes){hold->group + hold->group_len,
						     hold->owners_len});
			holds[part->len] = hold;
			memcpy(part->owners[part->len++], hold->owner, REDIS_OWNER_LEN);
		}
		for (unsigned i = 0; i < part->len; i++) {
			redis_arg(&args, holds[i]->grant->member);
			redis_arg(&args, (struct coord_bytes){part->owners[i], REDIS_OWNER_LEN});
		}
		part_send(part, REDIS_SCRIPT_RENEW_MEMBERS, &args);
	}
}

static void renew_beats(struct renewal *renewal)
{
	struct redis_session *rs = renewal->rs;
	struct coord_node *node = coord_table_next(&rs->beats, NULL);
	while (node) {
		struct redis_args args = {0};
		struct part *part = part_new(renewal);
		if (!part)
			return;
		for (; node && args.n < REDIS_KEYS_A_SCRIPT;
			node = coord_table_next(&rs->beats, node)) {
			struct redis_beat *beat = (struct redis_beat *)node;
			redis_arg_key(&args, redis_beat_key(beat, false));
			redis_arg_key(&args, redis_beat_key(beat, true));
		}
		redis_arg_number(&args, rs->options.membership_timeout_ms);
		redis_arg_text(&args, rs->id);
		part_send(part, REDIS_SCRIPT_RENEW_BEATS, &args);
	}
}

static void renew_claim(struct renewal *renewal)
{
	struct redis_session *rs = renewal->rs;
	struct redis_args args = {0};
	char identity[COORD_IDENTITY_MAX];
	struct part *part = part_new(renewal);
	if (!part)
		return;
	part->decides = true;
	claim_args(rs, &args);
	redis_arg_number(&args, rs->ttl_ms);
	redis_arg(&args, (struct coord_bytes){
				 identity, coord_identity_format(&rs->config->identity, identity)});
	if (args.bad) {
		renewal->status = -ENOMEM;
		redis_piece_free(part);
		return;
	}
	/* Who only observes has no claim: that the server answers is enough. */
	part_send(
		part, rs->config->read_only ? REDIS_SCRIPT_RENEW_BEATS : REDIS_SCRIPT_ALIVE, &args);
}

static struct renewal *renewal_new(struct redis_session *rs, struct coord_op *op)
{
	struct renewal *renewal = redis_piece_new(rs, sizeof(*renewal));
	if (!renewal)
		return NULL;
	renewal->rs = rs;
	renewal->epoch = rs->epoch;
	renewal->op = op;
	renewal->sent_ms = UINT64_MAX;
	renewal->how = COORD_SENT_ANSWERED;
	return renewal;
}

void redis_fence(struct redis_session *rs)
{
	struct redis_args args = {0};
	struct renewal *renewal = rs->config->read_only ? NULL : renewal_new(rs, NULL);
	struct part *part = renewal ? part_new(renewal) : NULL;
	if (part) {
		part->decides = true;
		claim_args(rs, &args);
		redis_arg_text(&args, rs->fence);
		redis_arg_number(&args, rs->ttl_ms);
		part_run(part, REDIS_TRACKED, REDIS_SCRIPT_FENCE, &args);
	}
	if (renewal) {
		renewal->complete = true;
		renewal_end(renewal);
	}
}

static void redis_renew(struct coord_session *session, struct coord_op *op)
{
	struct redis_session *rs = coord_session_data(session);
	struct renewal *renewal = renewal_new(rs, op);
	if (!renewal) {
		coord_op_fail(op, -ENOMEM);
		return;
	}
	renew_claim(renewal);
	renew_locks(renewal);
	renew_members(renewal);
	renew_beats(renewal);
	renewal->complete = true;
	renewal_end(renewal);
	/* Where no notices come: is it broken, does somebody wait? */
	if (!redis_link_tracks(rs->link))
		redis_items_stale(rs);
}

/* ---- Members that others removed ---- */

/* What was sent before tells us of what comes after: now look at what came before. */
static void tell_reply(
	struct redis_cmd *cmd, int status, enum coord_sent sent, const redisReply *reply)
{
	(void)sent;
	(void)reply;
	struct redis_session *rs = coord_container(cmd, struct redis_session, tell_cmd);
	rs->tell_flies = false;
	struct renewal *renewal = status || rs->closing ? NULL : renewal_new(rs, NULL);
	if (status)
		return;
	if (renewal) {
		renew_claim(renewal);
		renew_members(renewal);
		renewal->complete = true;
		renewal_end(renewal);
	}
	if (rs->tell_again)
		tell_watch(rs);
}

/* Has the server tell us when somebody writes our key. */
static void tell_watch(struct redis_session *rs)
{
	const char *argv[2] = {"GET", rs->tell.data};
	size_t lens[2] = {3, rs->tell.len};
	if (!redis_link_is_up(rs->link) || !redis_link_tracks(rs->link))
		return;
	rs->tell_again = rs->tell_flies;
	if (rs->tell_flies)
		return;
	rs->tell_flies = true;
	rs->tell_cmd = (struct redis_cmd){.fn = tell_reply};
	redis_send(rs->link, REDIS_TRACKED, &rs->tell_cmd, 2, argv, lens);
}

/* ---- The session ---- */

static int make_key(const struct redis_session *rs, enum redis_key kind, struct coord_bytes name,
	struct coord_bytes *ret)
{
	char key[REDIS_KEY_MAX];
	size_t len = redis_key(&rs->keys, kind, name, key);
	char *copy = malloc(len);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, key, len);
	*ret = (struct coord_bytes){copy, len};
	return 0;
}

static int redis_configure(
	struct coord_session *session, const struct coord_config *config, char **ret_error)
{
	struct redis_session *rs = coord_session_data(session);
	char uuid[REDIS_OWNER_LEN + 1];
	rs->session = session;
	rs->loop = coord_session_loop(session);
	rs->config = config;
	rs->look.fn = redis_watch_look;
	coord_list_init(&rs->stale);
	coord_list_init(&rs->batches);
	coord_list_init(&rs->holds);
	redis_owner_format(coord_session_uuid(session), uuid);
	memcpy(rs->id, uuid, REDIS_SESSION_LEN);
	int r = redis_options_read(config, &rs->options, ret_error);
	if (r)
		return r;
	rs->ttl_ms = rs->options.lock_timeout_ms < rs->options.membership_timeout_ms
			     ? rs->options.lock_timeout_ms
			     : rs->options.membership_timeout_ms;
	r = redis_keys_init(&rs->keys, rs->options.name_space, rs->options.dialect);
	if (r)
		return r;
	struct coord_bytes id = coord_bytes_of(rs->id), member = coord_bytes_of(config->member);
	if (make_key(rs, REDIS_KEY_TELL, id, &rs->tell) ||
		make_key(rs, REDIS_KEY_CLAIM, member, &rs->claim) ||
		make_key(rs, REDIS_KEY_SESSION, id, &rs->own))
		return -ENOMEM;
	redis_scripts_prepare(rs->scripts);
	return redis_link_new(rs->loop, &rs->options, rs->scripts, REDIS_SCRIPTS, &hooks, rs,
		&rs->link, ret_error);
}

static void redis_session_free(struct coord_session *session)
{
	struct redis_session *rs = coord_session_data(session);
	if (!rs->session)
		return;
	redis_link_free(rs->link);
	coord_loop_undefer(rs->loop, &rs->look);
	while (!coord_list_empty(&rs->holds))
		redis_hold_end(rs, coord_container(rs->holds.next, struct redis_hold, link));
	redis_items_done(rs);
	redis_beats_done(rs);
	coord_table_done(&rs->owners);
	redis_keys_done(&rs->keys);
	free((char *)rs->tell.data);
	free((char *)rs->claim.data);
	free((char *)rs->own.data);
	redis_options_done(&rs->options);
	rs->session = NULL;
}

static void redis_grant_done(struct coord_session *session, struct coord_grant *grant)
{
	redis_hold_end(coord_session_data(session), coord_grant_data(grant));
}

static int redis_map_name(struct coord_session *session, enum coord_kind kind,
	struct coord_bytes name, char *ret_key, size_t *ret_len)
{
	(void)session;
	int r = redis_name_check(kind, name);
	if (r)
		return r;
	memcpy(ret_key, name.data, name.len);
	*ret_len = name.len;
	return 0;
}

static const char *const redis_schemes[] = {"redis", NULL};

static uint64_t redis_requests(struct coord_session *session)
{
	const struct redis_session *rs = coord_session_data(session);
	return redis_link_requests(rs->link);
}

const struct coord_driver toozfs_driver __attribute__((visibility("default"))) = {
	.abi = COORD_DRIVER_ABI,
	.name = "redis",
	.help = "a redis server, or a master that sentinels name",
	.schemes = redis_schemes,
	.params = redis_params,
	.characteristics = COORD_DISTRIBUTED_ACROSS_THREADS | COORD_DISTRIBUTED_ACROSS_PROCESSES |
			   COORD_DISTRIBUTED_ACROSS_HOSTS | COORD_CAUSAL,
	.can = COORD_CAN_SHARED | COORD_CAN_CONVERT | COORD_CAN_NOTIFY | COORD_CAN_LIST_ALL |
	       COORD_CAN_BREAK | COORD_CAN_ORDERED | COORD_CAN_GROUPS | COORD_CAN_LEADER_ID,
	.loss = {COORD_LOSS_LEASE, COORD_LOSS_LEASE, COORD_LOSS_LEASE, COORD_LOSS_LEASE},
	.session_size = sizeof(struct redis_session),
	.grant_size = sizeof(struct redis_hold),
	.op_size = sizeof(struct redis_call),
	.value_max = 1u << 20,
	.poll_ms = REDIS_POLL_MS,
	.grants_stay = true,
	.configure = redis_configure,
	.session_free = redis_session_free,
	.grant_done = redis_grant_done,
	.map_name = redis_map_name,
	.open = redis_open,
	.close = redis_close,
	.renew = redis_renew,
	.group_create = redis_group_create,
	.group_delete = redis_group_delete,
	.group_list = redis_group_list,
	.group_read = redis_group_read,
	.member_join = redis_member_join,
	.member_update = redis_member_update,
	.member_leave = redis_member_leave,
	.member_get = redis_member_get,
	.lock = redis_lock,
	.convert = redis_convert,
	.unlock = redis_unlock,
	.lock_check = redis_lock_check,
	.lock_read = redis_lock_read,
	.lock_list = redis_lock_list,
	.lock_break = redis_lock_break,
	.unwatch = redis_unwatch,
	.requests = redis_requests,
};
