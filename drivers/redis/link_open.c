/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is said to a server before it is used.
 *
 *   A: who are you? (INFO, HELLO), SELECT        -> is it a redis, new enough, the master, at work?
 *   C: SELECT, INFO                              -> is it the same server?
 *   B: CLIENT ID, INFO, SUBSCRIBE                -> the same, and where notices shall go
 *   A: CLIENT TRACKING ON REDIRECT to B, SCRIPT LOAD ...
 *
 * Each line is one trip; C and B go together, to the address that A got, because a name may mean several
 * servers. Users may be forbidden most of these commands: only what is known counts against a server.
 */
#include <limits.h>
#include <stdio.h>
#include <syslog.h>

#include "drivers/redis/link_parts.h"

#define INVALIDATE "__redis__:invalidate"

enum { VERSION_MIN = 30200, VERSION_TRACKING = 60000 };

/* ---- steps ---- */

typedef void step_reply(struct redis_lane_state *, const redisReply *);

static struct redis_lane_state *lane_of(struct redis_cmd *cmd)
{
	/* link holds the lanes, and the lane's number is kept in the command's status meanwhile. */
	return &cmd->link->lanes[cmd->status];
}

static void finish_step(struct redis_lane_state *lane)
{
	if (lane->link->state == LINK_OPENING && --lane->steps_left == 0)
		lane->ready(lane->link);
}

static struct redis_cmd *new_step(struct redis_lane_state *lane,
	void (*fn)(struct redis_cmd *, int, enum coord_sent, const redisReply *))
{
	struct redis_cmd *step = &lane->steps[lane->steps_len++];
	*step = (struct redis_cmd){.fn = fn, .link = lane->link, .status = (int)lane->id};
	lane->steps_left++;
	return step;
}

static void begin_steps(struct redis_lane_state *lane, void (*ready)(struct redis_link *))
{
	lane->steps_len = lane->steps_left = 0;
	lane->ready = ready;
}

/* r is what sending the steps gave. */
static void check_sent(struct redis_link *link, int r)
{
	if (r < 0)
		redis_link_refuse(link, -EHOSTDOWN, "%s", strerror(-r));
}

static void ignore_reply(
	struct redis_cmd *cmd, int status, enum coord_sent sent, const redisReply *reply)
{
	finish_step(lane_of(cmd));
}

static void select_reply(
	struct redis_cmd *cmd, int status, enum coord_sent sent, const redisReply *reply)
{
	struct redis_link *link = cmd->link;
	char what[160];
	if (reply->type != REDIS_REPLY_ERROR) {
		finish_step(lane_of(cmd));
		return;
	}
	redis_printable(reply->str, reply->len, what, sizeof(what));
	status = redis_error_is(reply, "ERR") ? -EINVAL : redis_errno(reply);
	redis_link_refuse(link, status, "database %u: %s", link->options->db, what);
}

static int send_select(struct redis_lane_state *lane)
{
	char db[12];
	if (lane->link->options->db == 0)
		return 0;
	snprintf(db, sizeof(db), "%u", lane->link->options->db);
	return redis_conn_words(lane->conn, new_step(lane, select_reply), "SELECT", db, NULL);
}

/* So that an administrator sees in CLIENT LIST what is what. */
static int send_name(struct redis_lane_state *lane)
{
	static const char *const names[LANES] = {[LANE_TRACKED] = "toozfs-commands",
		[LANE_PLAIN] = "toozfs-plain",
		[LANE_NOTICES] = "toozfs-notices"};
	return redis_conn_words(lane->conn, new_step(lane, ignore_reply), "CLIENT", "SETNAME",
		names[lane->id], NULL);
}

/* ---- A: who is there ---- */

static bool info_is(const redisReply *info, const char *name, const char *value)
{
	return coord_bytes_equal(redis_info(info, name), coord_bytes_of(value));
}

static void keep_run_id(const redisReply *info, char ret[RUN_ID_MAX])
{
	struct coord_bytes id = redis_info(info, "run_id");
	redis_printable(id.data, id.len, ret, RUN_ID_MAX);
}

/* Evicting a lock's key gives the lock away. */
static void warn_of_eviction(struct redis_link *link, const redisReply *info)
{
	struct coord_bytes max = redis_info(info, "maxmemory");
	struct coord_bytes policy = redis_info(info, "maxmemory_policy");
	if (link->warned_eviction || max.len == 0 || max.data[0] == '0' || policy.len == 0 ||
		coord_bytes_equal(policy, COORD_BYTES("noeviction")))
		return;
	link->warned_eviction = true;
	char text[32];
	redis_printable(policy.data, policy.len, text, sizeof(text));
	coord_log(LOG_WARNING,
		"redis: %s: maxmemory-policy is %s: a server short of memory would drop locks",
		link->peer, text);
}

/* Returns whether the server will do, as far as INFO tells. */
static bool check_info(struct redis_link *link, const redisReply *info)
{
	struct coord_bytes version = redis_info(info, "redis_version");
	if (version.len == 0) {
		redis_link_refuse(link, -EPROTO, "not a redis server (INFO shows no version)");
		return false;
	}
	link->version = redis_parse_version(version);
	keep_run_id(info, link->run_id);
	if (info_is(info, "redis_mode", "sentinel")) {
		redis_link_refuse(link, -EPROTO,
			"is a sentinel: the URL needs sentinel=, the name of the master");
	} else if (info_is(info, "cluster_enabled", "1")) {
		redis_link_refuse(link, -EOPNOTSUPP, "is part of a cluster, which cannot be used");
	} else if (!info_is(info, "role", "master")) {
		struct coord_bytes host = redis_info(info, "master_host");
		struct coord_bytes port = redis_info(info, "master_port");
		char host_text[128], port_text[8];
		redis_printable(host.data, host.len, host_text, sizeof(host_text));
		redis_printable(port.data, port.len, port_text, sizeof(port_text));
		redis_link_refuse(link, -EROFS, "is a replica (of %s:%s), not the master",
			host_text, port_text);
	} else if (info_is(info, "loading", "1")) {
		redis_link_refuse(link, -EHOSTDOWN, "is still loading its data");
	} else {
		warn_of_eviction(link, info);
		return true;
	}
	return false;
}

static void info_reply(
	struct redis_cmd *cmd, int status, enum coord_sent sent, const redisReply *reply)
{
	struct redis_link *link = cmd->link;
	if (reply->type == REDIS_REPLY_STRING) {
		if (check_info(link, reply))
			finish_step(lane_of(cmd));
		return;
	}
	/* Forbidden: HELLO may tell. Anything else says what is the matter. */
	if (redis_error_is(reply, "NOPERM")) {
		finish_step(lane_of(cmd));
		return;
	}
	char what[160] = "a strange answer to INFO";
	if (reply->type == REDIS_REPLY_ERROR)
		redis_printable(reply->str, reply->len, what, sizeof(what));
	if (redis_error_is(reply, "NOAUTH"))
		redis_link_refuse(link, -EACCES, "a password is needed (%s)", what);
	else if (redis_errno(reply) == -EIO || redis_errno(reply) == -EOPNOTSUPP ||
		 reply->type != REDIS_REPLY_ERROR)
		redis_link_refuse(link, -EPROTO, "not a redis server (%s)", what);
	else
		redis_link_refuse(link, redis_errno(reply), "%s", what);
}

/* A flat list of names and values in RESP2. */
static const redisReply *hello_field(const redisReply *reply, const char *name)
{
	if (reply->type != REDIS_REPLY_ARRAY)
		return NULL;
	for (size_t i = 0; i + 1 < reply->elements; i += 2) {
		const redisReply *key = reply->element[i], *value = reply->element[i + 1];
		if (key->type == REDIS_REPLY_STRING && strcmp(key->str, name) == 0)
			return value->type == REDIS_REPLY_STRING ? value : NULL;
	}
	return NULL;
}

static void hello_reply(
	struct redis_cmd *cmd, int status, enum coord_sent sent, const redisReply *reply)
{
	struct redis_link *link = cmd->link;
	const redisReply *version = hello_field(reply, "version");
	const redisReply *role = hello_field(reply, "role");
	if (version && link->version == 0)
		link->version =
			redis_parse_version((struct coord_bytes){version->str, version->len});
	if (role && strcmp(role->str, "replica") == 0)
		redis_link_refuse(link, -EROFS, "is a replica, not the master");
	else
		finish_step(lane_of(cmd));
}

static void open_others(struct redis_link *link);

static void server_known(struct redis_link *link)
{
	if (link->version == 0)
		redis_link_refuse(link, -EACCES,
			"the user may neither INFO nor HELLO: it cannot be seen what server this "
			"is");
	else if (link->version < VERSION_MIN)
		redis_link_refuse(link, -EOPNOTSUPP, "is redis %u.%u, but 3.2 is needed",
			link->version / 10000, link->version / 100 % 100);
	else
		open_others(link);
}

static void ask_server(struct redis_link *link)
{
	struct redis_lane_state *lane = &link->lanes[LANE_TRACKED];
	begin_steps(lane, server_known);
	int r = redis_conn_words(lane->conn, new_step(lane, info_reply), "INFO", NULL);
	if (r == 0)
		r = redis_conn_words(lane->conn, new_step(lane, hello_reply), "HELLO", "2", NULL);
	if (r == 0)
		r = send_name(lane);
	if (r == 0)
		r = send_select(lane);
	check_sent(link, r);
}

/* ---- A: tracking and scripts ---- */

static void all_done(struct redis_link *link)
{
	if (link->lanes[LANE_TRACKED].steps_left == 0 && link->loads_left == 0 &&
		link->state == LINK_OPENING)
		redis_link_opened(link);
}

static void drop_notices(struct redis_link *link, const redisReply *reply)
{
	struct coord_list failed = COORD_LIST_INIT(failed);
	struct redis_lane_state *lane = &link->lanes[LANE_NOTICES];
	char what[160];
	redis_printable(
		reply->str ? reply->str : "", reply->str ? reply->len : 0, what, sizeof(what));
	redis_conn_close(lane->conn, -ECANCELED, &failed);
	lane->conn = NULL;
	for (size_t i = 0; i < lane->steps_len; i++)
		redis_forget(&lane->steps[i]);
	link->notices_id = 0;
	if (!link->warned_tracking)
		coord_log(LOG_WARNING,
			"redis: %s: no notices of changes (%s): waiting means polling", link->peer,
			what);
	link->warned_tracking = true;
}

static void tracking_reply(
	struct redis_cmd *cmd, int status, enum coord_sent sent, const redisReply *reply)
{
	struct redis_link *link = cmd->link;
	link->tracks = reply->type == REDIS_REPLY_STATUS;
	if (!link->tracks)
		drop_notices(link, reply);
	finish_step(lane_of(cmd));
}

static void load_reply(
	struct redis_cmd *cmd, int status, enum coord_sent sent, const redisReply *reply)
{
	/* If it may not be loaded, EVAL may still be allowed. */
	cmd->link->unloaded = cmd->link->unloaded || reply->type != REDIS_REPLY_STRING;
	cmd->link->loads_left--;
	all_done(cmd->link);
}

static int send_tracking(struct redis_link *link)
{
	struct redis_lane_state *lane = &link->lanes[LANE_TRACKED];
	char id[24];
	if (link->notices_id == 0)
		return 0;
	snprintf(id, sizeof(id), "%lld", link->notices_id);
	return redis_conn_words(lane->conn, new_step(lane, tracking_reply), "CLIENT", "TRACKING",
		"ON", "REDIRECT", id, "NOLOOP", NULL);
}

static int send_loads(struct redis_lane_state *lane)
{
	struct redis_link *link = lane->link;
	int r = 0;
	link->loads_left = 0;
	link->unloaded = false;
	for (size_t i = 0; r == 0 && i < link->scripts_len; i++) {
		link->loads[i] = (struct redis_cmd){.fn = load_reply, .link = link};
		r = redis_conn_words(
			lane->conn, &link->loads[i], "SCRIPT", "LOAD", link->scripts[i].body, NULL);
		link->loads_left++;
	}
	return r;
}

static void set_up_commands(struct redis_link *link)
{
	struct redis_lane_state *lane = &link->lanes[LANE_TRACKED];
	begin_steps(lane, all_done);
	int r = send_tracking(link);
	if (r == 0)
		r = send_loads(lane);
	check_sent(link, r);
	if (lane->steps_left == 0 && link->loads_left == 0)
		all_done(link);
}

/* ---- B and C ---- */

static void other_ready(struct redis_link *link)
{
	if (--link->lanes_left == 0)
		set_up_commands(link);
}

static void same_server_reply(
	struct redis_cmd *cmd, int status, enum coord_sent sent, const redisReply *reply)
{
	struct redis_link *link = cmd->link;
	char run_id[RUN_ID_MAX];
	keep_run_id(reply, run_id);
	if (*run_id && *link->run_id && strcmp(run_id, link->run_id) != 0)
		redis_link_refuse(link, -EHOSTDOWN,
			"several servers answer there, or it started again just now");
	else
		finish_step(lane_of(cmd));
}

static int send_same_server(struct redis_lane_state *lane)
{
	return redis_conn_words(
		lane->conn, new_step(lane, same_server_reply), "INFO", "server", NULL);
}

static void id_reply(
	struct redis_cmd *cmd, int status, enum coord_sent sent, const redisReply *reply)
{
	if (reply->type == REDIS_REPLY_INTEGER && reply->integer > 0)
		cmd->link->notices_id = reply->integer;
	finish_step(lane_of(cmd));
}

static void subscribe_reply(
	struct redis_cmd *cmd, int status, enum coord_sent sent, const redisReply *reply)
{
	struct redis_link *link = cmd->link;
	if (reply->type == REDIS_REPLY_ARRAY && link->notices_id) {
		finish_step(lane_of(cmd));
		return;
	}
	drop_notices(link, reply);
	other_ready(link);
}

static void set_up_notices(struct redis_lane_state *lane)
{
	begin_steps(lane, other_ready);
	int r = send_name(lane);
	if (r == 0)
		r = redis_conn_words(lane->conn, new_step(lane, id_reply), "CLIENT", "ID", NULL);
	if (r == 0)
		r = send_same_server(lane);
	if (r == 0)
		r = redis_conn_words(
			lane->conn, new_step(lane, subscribe_reply), "SUBSCRIBE", INVALIDATE, NULL);
	check_sent(lane->link, r);
}

static void set_up_plain(struct redis_lane_state *lane)
{
	begin_steps(lane, other_ready);
	int r = send_name(lane);
	if (r == 0)
		r = send_select(lane);
	if (r == 0)
		r = send_same_server(lane);
	check_sent(lane->link, r);
}

/* ---- connections ---- */

static void on_opened(void *user)
{
	struct redis_lane_state *lane = user;
	switch (lane->id) {
	case LANE_TRACKED:
		ask_server(lane->link);
		break;
	case LANE_PLAIN:
		set_up_plain(lane);
		break;
	case LANE_NOTICES:
		set_up_notices(lane);
		break;
	case LANES:
		break;
	}
}

static void on_broken(void *user, int status, const char *text)
{
	struct redis_lane_state *lane = user;
	redis_link_break(lane->link, status, text);
}

/* A list of keys, or nil for all of them. */
static void on_message(void *user, const redisReply *message)
{
	struct redis_lane_state *lane = user;
	struct redis_link *link = lane->link;
	const redisReply *keys = message->element[2];
	if (link->state != LINK_UP || strcmp(message->element[1]->str, INVALIDATE) != 0)
		return;
	if (keys->type != REDIS_REPLY_ARRAY) {
		link->hooks->invalidated(link->user, (struct coord_bytes){NULL, 0});
		return;
	}
	for (size_t i = 0; i < keys->elements && link->state == LINK_UP; i++) {
		const redisReply *key = keys->element[i];
		if (key->type == REDIS_REPLY_STRING)
			link->hooks->invalidated(
				link->user, (struct coord_bytes){key->str, key->len});
	}
}

static void on_doubtful(void *user, int status, const char *text)
{
	struct redis_lane_state *lane = user;
	redis_link_break(lane->link, status, text);
}

/* Where a script is sent again, those behind it overtake it. Until all are known again they go with their
 * bodies, so that it ends with what is on its way now. */
static void on_forgotten(void *user)
{
	struct redis_lane_state *lane = user;
	if (lane->link->state == LINK_UP && lane->link->loads_left == 0 && !lane->link->unloaded)
		check_sent(lane->link, send_loads(lane));
}

static const struct redis_conn_hooks command_hooks = {.opened = on_opened,
	.broken = on_broken,
	.doubtful = on_doubtful,
	.forgotten = on_forgotten};
static const struct redis_conn_hooks notice_hooks = {
	.opened = on_opened, .broken = on_broken, .message = on_message};

static void open_lane(struct redis_link *link, enum redis_lane_id id,
	const struct sockaddr *address, socklen_t len)
{
	const struct redis_options *options = link->options;
	struct redis_lane_state *lane = &link->lanes[id];
	const struct redis_endpoint to = {
		.host = link->host,
		.port = link->port,
		.path = options->server.path,
		.address = address,
		.address_len = len,
		.user = options->user,
		.password = options->password,
		.tls = options->ssl ? link->tls : NULL,
		.connect_ms = options->connect_timeout_ms,
		.timeout_ms = options->socket_timeout_ms,
		.keepalive = options->keepalive,
	};
	int r = redis_conn_open(link->loop, &to,
		id == LANE_NOTICES ? &notice_hooks : &command_hooks, lane, &lane->conn);
	check_sent(link, r);
}

static void open_others(struct redis_link *link)
{
	socklen_t len;
	const struct sockaddr *address = redis_conn_address(link->lanes[LANE_TRACKED].conn, &len);
	if (link->options->server.path)
		address = NULL;
	link->lanes_left = 1;
	open_lane(link, LANE_PLAIN, address, len);
	if (link->version < VERSION_TRACKING || link->state != LINK_OPENING)
		return;
	link->lanes_left = 2;
	open_lane(link, LANE_NOTICES, address, len);
}

void redis_link_connect(struct redis_link *link)
{
	link->version = 0;
	link->notices_id = 0;
	link->tracks = false;
	link->run_id[0] = '\0';
	open_lane(link, LANE_TRACKED, NULL, 0);
	if (link->lanes[LANE_TRACKED].conn)
		snprintf(link->peer, sizeof(link->peer), "%s",
			redis_conn_label(link->lanes[LANE_TRACKED].conn));
}
