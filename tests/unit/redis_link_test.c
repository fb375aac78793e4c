/* SPDX-License-Identifier: Apache-2.0 */
/* The link against real servers that the test starts, and against things that are no redis. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>

#include <cmocka.h>

#include "coord/loop_uv.h"
#include "drivers/redis/link.h"
#include "tests/lib/servers.h"

enum { WAIT_MS = 30000 };

static const struct coord_driver driver = {
	.abi = COORD_DRIVER_ABI, .name = "redis", .params = redis_params, .can = COORD_CAN_GROUPS};

static char *dir;
static struct redis_script script = {
	.body = "return redis.call('SET', KEYS[1], ARGV[1]) and {KEYS[1], ARGV[2]}"};

/* A link, and what it told. */
struct site {
	struct coord_loop *loop;
	struct coord_config *config;
	struct redis_options options;
	struct redis_link *link;
	struct coord_timer tick, limit;
	bool (*until)(struct site *);
	bool late;
	unsigned ups, downs, notices;
	int status;
	char text[512], key[64];
	bool everything, close_at_down;
};

/* A command, and its answer. */
struct call {
	struct redis_cmd cmd;
	struct site *site;
	unsigned done;
	int status, type;
	enum coord_sent sent;
	long long integer;
	char text[128];
};

/* ---- the site ---- */

static void on_up(void *user)
{
	struct site *site = user;
	site->ups++;
}

static void on_down(void *user, int status, const char *text)
{
	struct site *site = user;
	site->downs++;
	site->status = status;
	snprintf(site->text, sizeof(site->text), "%s", text);
	if (site->close_at_down)
		redis_link_close(site->link);
}

static void on_invalidated(void *user, struct coord_bytes key)
{
	struct site *site = user;
	site->notices++;
	if (!key.data)
		site->everything = true;
	else
		snprintf(site->key, sizeof(site->key), "%.*s", (int)key.len, key.data);
}

static const struct redis_link_hooks hooks = {
	.up = on_up, .down = on_down, .invalidated = on_invalidated};

static void on_tick(struct coord_timer *timer)
{
	struct site *site = coord_container(timer, struct site, tick);
	if (site->until(site))
		coord_loop_uv_stop(site->loop);
	else
		coord_timer_start(site->loop, timer, coord_now_ms(site->loop) + 2);
}

static void on_limit(struct coord_timer *timer)
{
	struct site *site = coord_container(timer, struct site, limit);
	site->late = true;
	coord_loop_uv_stop(site->loop);
}

/* Returns whether the condition came true in time. */
static bool run_for(struct site *site, bool (*until)(struct site *), uint64_t ms)
{
	uint64_t now = coord_now_ms(site->loop);
	site->until = until;
	site->late = false;
	coord_timer_start(site->loop, &site->tick, now);
	coord_timer_start(site->loop, &site->limit, now + ms);
	coord_loop_uv_run(site->loop);
	coord_timer_stop(site->loop, &site->tick);
	coord_timer_stop(site->loop, &site->limit);
	return !site->late;
}

static bool run(struct site *site, bool (*until)(struct site *))
{
	bool good = run_for(site, until, WAIT_MS);
	if (!good)
		print_error("up %u, down %u: %s\n", site->ups, site->downs, site->text);
	return good;
}

static bool is_up(struct site *site)
{
	return redis_link_is_up(site->link);
}

static bool went_down(struct site *site)
{
	return site->downs > 0;
}

static bool never(struct site *site)
{
	return false;
}

__attribute__((format(printf, 2, 3))) static void site_open(
	struct site *site, const char *format, ...)
{
	char text[1024], *error = NULL;
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	*site = (struct site){.tick.fn = on_tick, .limit.fn = on_limit};
	assert_int_equal(coord_loop_uv_new(&site->loop), 0);
	struct coord_url url;
	assert_int_equal(coord_url_parse(text, &url, &error), 0);
	assert_int_equal(
		coord_config_new(&driver, &url, NULL, 0, NULL, NULL, "me", &site->config, &error),
		0);
	assert_int_equal(redis_options_read(site->config, &site->options, &error), 0);
	assert_int_equal(redis_link_new(site->loop, &site->options, &script, 1, &hooks, site,
				 &site->link, &error),
		0);
	redis_link_open(site->link);
	assert_int_equal(site->ups + site->downs, 0);
}

static void site_close(struct site *site)
{
	redis_link_free(site->link);
	coord_loop_uv_free(site->loop);
	redis_options_done(&site->options);
	coord_config_free(site->config);
}

/* ---- commands ---- */

static void on_reply(
	struct redis_cmd *cmd, int status, enum coord_sent sent, const redisReply *reply)
{
	struct call *call = coord_container(cmd, struct call, cmd);
	call->done++;
	call->status = status;
	call->sent = sent;
	assert_true((status == 0) == (reply != NULL));
	if (!reply)
		return;
	call->type = reply->type;
	call->integer = reply->integer;
	const redisReply *text = reply;
	if (reply->type == REDIS_REPLY_ARRAY && reply->elements)
		text = reply->element[reply->elements - 1];
	if (text->str)
		snprintf(call->text, sizeof(call->text), "%s", text->str);
}

static void call_start(struct call *call, struct site *site, enum redis_lane lane, int argc,
	const char *const *argv)
{
	size_t lens[8];
	for (int i = 0; i < argc; i++)
		lens[i] = strlen(argv[i]);
	*call = (struct call){.cmd.fn = on_reply, .site = site};
	redis_send(site->link, lane, &call->cmd, argc, argv, lens);
	assert_int_equal(call->done, 0);
}

#define START(call, site, lane, ...)                                                               \
	call_start(call, site, lane, sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *),       \
		(const char *[]){__VA_ARGS__})

static void run_script(struct call *call, struct site *site, const char *key, const char *value)
{
	const char *argv[] = {key, value, "end"};
	size_t lens[] = {strlen(key), strlen(value), 3};
	*call = (struct call){.cmd.fn = on_reply, .site = site};
	redis_script(site->link, REDIS_TRACKED, &call->cmd, &script, 1, 3, argv, lens);
}

static struct call *waited;

static bool is_done(struct site *site)
{
	return waited->done > 0;
}

static void wait_done(struct call *call, struct site *site)
{
	waited = call;
	assert_true(run(site, is_done));
	assert_int_equal(call->done, 1);
}

/* ---- servers ---- */

static pid_t start_server(uint16_t port, const char *a, const char *b, const char *c, const char *d)
{
	char text[8];
	snprintf(text, sizeof(text), "%u", port);
	const char *const argv[] = {"redis-server", "--port", text, "--bind", "127.0.0.1", "--save",
		"", "--appendonly", "no", "--repl-diskless-sync-delay", "0", "--dir", dir, a, b, c,
		d, NULL};
	pid_t pid = program_start(in_dir(dir, "redis.log"), argv);
	assert_true(wait_listening(port));
	return pid;
}

static redisReply *ask(uint16_t port, const char *format, ...)
{
	redisContext *context = redisConnect("127.0.0.1", port);
	assert_non_null(context);
	assert_int_equal(context->err, 0);
	va_list args;
	va_start(args, format);
	redisReply *reply = redisvCommand(context, format, args);
	va_end(args);
	redisFree(context);
	assert_non_null(reply);
	return reply;
}

#define TELL(...) freeReplyObject(ask(__VA_ARGS__))

/* CLIENT KILL for the connection of that name. */
static void kill_client(uint16_t port, const char *name)
{
	redisReply *list = ask(port, "CLIENT LIST");
	bool killed = false;
	char wanted[64];
	snprintf(wanted, sizeof(wanted), " name=%s ", name);
	for (char *line = strtok(list->str, "\n"); line; line = strtok(NULL, "\n")) {
		long long id;
		if (!strstr(line, wanted) || sscanf(line, "id=%lld", &id) != 1)
			continue;
		TELL(port, "CLIENT KILL ID %lld", id);
		killed = true;
	}
	freeReplyObject(list);
	assert_true(killed);
}

static long long info_number(uint16_t port, const char *name)
{
	redisReply *info = ask(port, "INFO stats");
	const char *at = strstr(info->str, name);
	assert_non_null(at);
	long long number = atoll(at + strlen(name) + 1);
	freeReplyObject(info);
	return number;
}

static uint16_t port;
static pid_t server;

/* A server of the test's own, started with these. */
static void server_with(const char *a, const char *b, const char *c, const char *d)
{
	port = free_port();
	server = start_server(port, a, b, c, d);
}

static int stop_server(void **state)
{
	program_stop(server, SIGKILL);
	server = 0;
	return 0;
}

/* ---- tests ---- */

static void commands(void **state)
{
	struct site site;
	struct call set, get, wrong;
	server_with(NULL, NULL, NULL, NULL);
	site_open(&site, "redis://127.0.0.1:%u", port);
	START(&set, &site, REDIS_TRACKED, "PING"); /* too early */
	wait_done(&set, &site);
	assert_int_equal(set.status, -EHOSTDOWN);
	assert_int_equal(set.sent, COORD_SENT_NO);
	assert_true(run(&site, is_up));
	assert_int_equal(site.ups, 1);
	assert_int_equal(site.downs, 0);
	assert_true(redis_link_tracks(site.link));
	assert_true(redis_link_version(site.link) >= 60000);
	assert_int_equal(strlen(redis_link_run_id(site.link)), 40);
	assert_non_null(strstr(redis_link_peer(site.link), "127.0.0.1:"));

	uint64_t before = coord_now_ms(site.loop);
	START(&set, &site, REDIS_TRACKED, "SET", "k", "v");
	START(&get, &site, REDIS_PLAIN, "GET", "nothing");
	START(&wrong, &site, REDIS_PLAIN, "LPUSH", "k", "v");
	wait_done(&set, &site);
	wait_done(&get, &site);
	wait_done(&wrong, &site);
	assert_int_equal(set.type, REDIS_REPLY_STATUS);
	assert_int_equal(set.sent, COORD_SENT_ANSWERED);
	assert_in_range(set.cmd.sent_ms, before, coord_now_ms(site.loop));
	assert_int_equal(get.type, REDIS_REPLY_NIL);
	assert_true(wrong.type == REDIS_REPLY_ERROR || wrong.type == REDIS_REPLY_INTEGER);
	START(&wrong, &site, REDIS_TRACKED, "LPUSH", "k", "v");
	wait_done(&wrong, &site);
	assert_int_equal(wrong.type, REDIS_REPLY_ERROR);
	assert_string_equal(strtok(wrong.text, " "), "WRONGTYPE");
	assert_int_equal(site.downs, 0);
	site_close(&site);
}

static void scripts(void **state)
{
	struct site site;
	struct call call, next;
	server_with(NULL, NULL, NULL, NULL);
	site_open(&site, "redis://127.0.0.1:%u", port);
	assert_true(run(&site, is_up));
	run_script(&call, &site, "k", "1");
	wait_done(&call, &site);
	assert_int_equal(call.type, REDIS_REPLY_ARRAY);
	assert_string_equal(call.text, "end");
	/* The server forgets: two in one trip both run all the same. */
	TELL(port, "SCRIPT FLUSH");
	run_script(&call, &site, "k", "2");
	run_script(&next, &site, "k", "3");
	wait_done(&call, &site);
	wait_done(&next, &site);
	assert_int_equal(call.type, REDIS_REPLY_ARRAY);
	assert_int_equal(next.type, REDIS_REPLY_ARRAY);
	redisReply *value = ask(port, "GET k");
	assert_string_equal(value->str, "3");
	freeReplyObject(value);
	/* Forgotten while it is sent again. */
	TELL(port, "SCRIPT FLUSH");
	run_script(&call, &site, "k", "4");
	run_script(&next, &site, "k", "5");
	redis_forget(&call.cmd);
	wait_done(&next, &site);
	assert_int_equal(call.done, 0);
	site_close(&site);
}

static bool noticed(struct site *site)
{
	return site->notices > 0;
}

static void notices(void **state)
{
	struct site site;
	struct call call;
	server_with(NULL, NULL, NULL, NULL);
	site_open(&site, "redis://127.0.0.1:%u?db=1", port);
	assert_true(run(&site, is_up));
	START(&call, &site, REDIS_TRACKED, "GET", "watched");
	wait_done(&call, &site);
	TELL(port, "EVAL %s 0", "redis.call('SELECT', 1) redis.call('SET', 'watched', 1)");
	assert_true(run(&site, noticed));
	assert_string_equal(site.key, "watched");
	/* Not by our own writes, nor by what the other lane read. */
	site.notices = 0;
	START(&call, &site, REDIS_TRACKED, "GET", "watched");
	wait_done(&call, &site);
	START(&call, &site, REDIS_TRACKED, "SET", "watched", "2");
	wait_done(&call, &site);
	START(&call, &site, REDIS_PLAIN, "GET", "other");
	wait_done(&call, &site);
	TELL(port, "EVAL %s 0", "redis.call('SELECT', 1) redis.call('SET', 'other', 1)");
	assert_false(run_for(&site, noticed, 200));
	START(&call, &site, REDIS_TRACKED, "GET", "watched");
	wait_done(&call, &site);
	TELL(port, "FLUSHALL");
	assert_true(run(&site, noticed));
	assert_true(site.everything);
	site_close(&site);
}

/* All commands of a turn are read by the server at once. */
static void one_write_a_turn(void **state)
{
	enum { MANY = 100 };
	static struct call calls[MANY];
	struct site site;
	server_with(NULL, NULL, NULL, NULL);
	site_open(&site, "redis://127.0.0.1:%u?health_check_interval=60&timeout=600", port);
	assert_true(run(&site, is_up));
	long long before = info_number(port, "total_reads_processed");
	for (int i = 0; i < MANY; i++)
		START(&calls[i], &site, REDIS_TRACKED, "INCR", "n");
	wait_done(&calls[MANY - 1], &site);
	for (int i = 0; i < MANY; i++)
		assert_int_equal(calls[i].integer, i + 1);
	assert_true(info_number(port, "total_reads_processed") - before < 10);
	site_close(&site);
}

static void forgotten(void **state)
{
	struct site site;
	struct call first, second, third;
	server_with(NULL, NULL, NULL, NULL);
	site_open(&site, "redis://127.0.0.1:%u", port);
	START(&first, &site, REDIS_TRACKED, "PING"); /* would fail */
	redis_forget(&first.cmd);
	assert_true(run(&site, is_up));
	START(&first, &site, REDIS_TRACKED, "INCR", "n");
	START(&second, &site, REDIS_TRACKED, "INCR", "n");
	START(&third, &site, REDIS_TRACKED, "INCR", "n");
	redis_forget(&second.cmd);
	redis_forget(&second.cmd);
	memset(&second, 0xee, sizeof(second)); /* is not looked at any more */
	wait_done(&third, &site);
	assert_int_equal(first.integer, 1);
	assert_int_equal(third.integer, 3);
	site_close(&site);
}

static void large(void **state)
{
	enum { LEN = 4 * 1024 * 1024 };
	struct site site;
	struct call call;
	char *value = malloc(LEN);
	memset(value, 'v', LEN);
	server_with(NULL, NULL, NULL, NULL);
	site_open(&site, "redis://127.0.0.1:%u?socket_timeout=25", port);
	assert_true(run(&site, is_up));
	const char *argv[] = {"SET", "large", value};
	size_t lens[] = {3, 5, LEN};
	call = (struct call){.cmd.fn = on_reply};
	redis_send(site.link, REDIS_TRACKED, &call.cmd, 3, argv, lens);
	wait_done(&call, &site);
	START(&call, &site, REDIS_PLAIN, "STRLEN", "large");
	wait_done(&call, &site);
	assert_int_equal(call.integer, LEN);
	/* Over the limit of a reply: the link does not take it, and comes back. */
	START(&call, &site, REDIS_PLAIN, "EVAL", "return string.rep('x', 70 * 1024 * 1024)", "0");
	wait_done(&call, &site);
	assert_int_equal(call.status, -EHOSTDOWN);
	assert_int_equal(call.sent, COORD_SENT_UNKNOWN);
	assert_true(run(&site, is_up));
	assert_non_null(strstr(site.text, "larger than"));
	free(value);
	site_close(&site);
}

static void closing(void **state)
{
	struct site site;
	struct call call, late;
	server_with(NULL, NULL, NULL, NULL);
	site_open(&site, "redis://127.0.0.1:%u", port);
	redis_link_close(site.link);
	assert_false(run_for(&site, went_down, 50));
	redis_link_open(site.link);
	assert_true(run(&site, is_up));
	START(&call, &site, REDIS_TRACKED, "PING");
	redis_link_close(site.link);
	START(&late, &site, REDIS_TRACKED, "PING");
	wait_done(&call, &site);
	wait_done(&late, &site);
	assert_int_equal(call.status, -ECANCELED);
	assert_int_equal(call.sent, COORD_SENT_NO);
	assert_int_equal(late.status, -EHOSTDOWN);
	assert_int_equal(site.downs, 0);
	/* In the middle of opening, at several moments. */
	for (uint64_t ms = 0; ms < 8; ms++) {
		redis_link_open(site.link);
		run_for(&site, never, ms);
		redis_link_close(site.link);
	}
	redis_link_open(site.link);
	assert_true(run(&site, is_up));
	assert_int_equal(site.downs, 0);
	START(&call, &site, REDIS_TRACKED, "PING"); /* in flight when all is freed */
	site_close(&site);
	assert_int_equal(call.done, 0);
}

static void check_down(const char *url, int status, const char *text)
{
	struct site site;
	site_open(&site, url, port);
	site.close_at_down = true;
	assert_true(run(&site, went_down));
	if (site.status != status || !strstr(site.text, text))
		fail_msg("%s: %d %s", url, site.status, site.text);
	assert_int_equal(site.ups, 0);
	assert_false(run_for(&site, is_up, 30));
	assert_int_equal(site.downs, 1);
	site_close(&site);
}

static void check_up(const char *url)
{
	struct site site;
	site_open(&site, url, port);
	assert_true(run(&site, is_up));
	assert_int_equal(site.downs, 0);
	site_close(&site);
}

static void credentials(void **state)
{
	server_with("--requirepass", "secret", NULL, NULL);
	check_up("redis://:secret@127.0.0.1:%u");
	check_up("redis://default:secret@127.0.0.1:%u");
	check_down("redis://:wrong@127.0.0.1:%u", -EACCES, "wrong user or password");
	check_down("redis://nobody:secret@127.0.0.1:%u", -EACCES, "wrong user or password");
	check_down("redis://127.0.0.1:%u", -EACCES, "a password is needed");
}

static void permissions(void **state)
{
	server_with("--aclfile", "", NULL, NULL);
	TELL(port, "ACL SETUSER few on >pw ~* +@all -info");
	TELL(port, "ACL SETUSER quiet on >pw ~* resetchannels +@all");
	check_up("redis://few:pw@127.0.0.1:%u");
	struct site site;
	site_open(&site, "redis://quiet:pw@127.0.0.1:%u", port);
	assert_true(run(&site, is_up));
	assert_false(redis_link_tracks(site.link));
	site_close(&site);
	/* A password of our own where none is needed is somebody else's server. */
	check_down("redis://:pw@127.0.0.1:%u", -EACCES, "AUTH refused");
	/* Taken away while in use. */
	site_open(&site, "redis://few:pw@127.0.0.1:%u", port);
	assert_true(run(&site, is_up));
	TELL(port, "ACL SETUSER few off");
	kill_client(port, "toozfs-plain");
	site.close_at_down = false;
	assert_true(run(&site, went_down));
	run_for(&site, never, 500);
	assert_int_equal(site.status, -EACCES);
	TELL(port, "ACL SETUSER few on");
	assert_true(run(&site, is_up));
	site_close(&site);
}

static void databases(void **state)
{
	server_with("--databases", "4", NULL, NULL);
	check_up("redis://127.0.0.1:%u?db=3");
	check_down("redis://127.0.0.1:%u?db=4", -EINVAL, "database 4");
}

static void replica(void **state)
{
	uint16_t master_port = free_port();
	char text[8];
	snprintf(text, sizeof(text), "%u", master_port);
	pid_t master = start_server(master_port, NULL, NULL, NULL, NULL);
	server_with("--replicaof", "127.0.0.1", text, NULL);
	check_down("redis://127.0.0.1:%u", -EROFS, "is a replica (of 127.0.0.1:");
	/* A master that becomes a replica while in use. */
	struct site site;
	struct call call;
	site_open(&site, "redis://127.0.0.1:%u", master_port);
	assert_true(run(&site, is_up));
	TELL(master_port, "REPLICAOF 127.0.0.1 %u", port);
	START(&call, &site, REDIS_TRACKED, "SET", "k", "v");
	wait_done(&call, &site);
	assert_int_equal(call.type, REDIS_REPLY_ERROR);
	assert_true(run(&site, went_down));
	TELL(master_port, "REPLICAOF NO ONE");
	assert_true(run(&site, is_up));
	site_close(&site);
	program_stop(master, SIGKILL);
}

static const char *words_to_say;

static void serve_words(int listener)
{
	for (;;) {
		int fd = accept(listener, NULL, NULL);
		char data[4096];
		if (read(fd, data, sizeof(data)) <= 0 ||
			write(fd, words_to_say, strlen(words_to_say)) < 0)
			close(fd);
	}
}

static void strangers(void **state)
{
	static const struct {
		const char *words;
		int status;
		const char *text;
	} cases[] = {
		{"HTTP/1.1 400 Bad Request\r\n\r\n", -EPROTO, "not a redis server"},
		{"SSH-2.0-OpenSSH_9.2\r\n", -EPROTO, "not a redis server"},
		{"-ERR unknown command\r\n-ERR\r\n-ERR\r\n", -EPROTO, "not a redis server"},
		{"-DENIED Redis is running in protected mode\r\n", -EACCES, "protected mode"},
		{"-LOADING\r\n", -EHOSTDOWN, "LOADING"},
		{"*2147483647\r\n", -EPROTO, "too large"},
		{"$-1\r\n", -EPROTO, "not a redis server"},
		{"$30\r\nredis_version:2.4.1\r\nrole:mast\r\n", -EROFS, "replica"},
		{"$33\r\nredis_version:2.4.18\r\nrole:master\r\n$-1\r\n+OK\r\n", -EOPNOTSUPP,
			"2.6 is needed"},
		{"+OK\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n", -EPROTO, "not a redis server"},
		{"", -ETIMEDOUT, "no answer"},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		int listener = listen_tcp(&port);
		words_to_say = cases[i].words;
		pid_t pid = child_start(serve_words, listener);
		check_down(
			"redis://127.0.0.1:%u?socket_timeout=0.5", cases[i].status, cases[i].text);
		program_stop(pid, SIGKILL);
		close(listener);
	}
	port = free_port();
	check_down("redis://127.0.0.1:%u", -EHOSTDOWN, "Connection refused");
	check_down("redis://name.invalid:%u?timeout=60", -EHOSTDOWN, "cannot resolve");
}

/* Replies that fit the protocol, one random one after the other. */
static void serve_random(int listener)
{
	static const char *const pieces[] = {"+OK\r\n", "-ERR x\r\n", ":7\r\n", "$-1\r\n",
		"*-1\r\n", "*0\r\n", "*1\r\n:1\r\n",
		"*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n*-1\r\n",
		"*3\r\n$9\r\nsubscribe\r\n$20\r\n__redis__:invalidate\r\n:1\r\n",
		"$35\r\nredis_version:7.0.15\r\nrole:master\r\n\r\n", "$0\r\n\r\n",
		"*2\r\n$7\r\nversion\r\n$1\r\n7\r\n", "*1\r\n*1\r\n*1\r\n:1\r\n", "\x80\r\n",
		"-READONLY\r\n", "-NOSCRIPT\r\n", "+\r\n",
		"*3\r\n$7\r\nmessage\r\n$1\r\nx\r\n:1\r\n"};
	enum { PIECES = sizeof(pieces) / sizeof(*pieces) };
	unsigned seed = 1;
	for (;;) {
		int fd = accept(listener, NULL, NULL);
		char data[4096];
		int left = rand_r(&seed) % 24;
		if (read(fd, data, sizeof(data)) <= 0)
			left = 0;
		while (left-- > 0) {
			/* Mostly what gets further. */
			const char *piece = rand_r(&seed) % 4
						    ? pieces[9 - 9 * (rand_r(&seed) % 3 > 0)]
						    : pieces[(unsigned)rand_r(&seed) % PIECES];
			if (send(fd, piece, strlen(piece), MSG_NOSIGNAL) < 0)
				break;
		}
		close(fd);
	}
}

static bool often_down(struct site *site)
{
	return site->downs >= 40;
}

/* A server of before redis 6: no users, no HELLO, no tracking. */
static const char *old_answer(char *const *words, int n)
{
	static const char info[] = "$33\r\nredis_version:5.0.14\r\nrole:master\r\n";
	if (strcmp(words[0], "AUTH") == 0 && n == 3)
		return "-ERR wrong number of arguments for 'auth' command\r\n";
	if (strcmp(words[0], "AUTH") == 0 && strcmp(words[1], "sesame") == 0)
		return "-ERR unknown command `AUTH`, with args beginning with: `sesame`\r\n";
	if (strcmp(words[0], "AUTH") == 0)
		return strcmp(words[1], "pw") == 0 ? "+OK\r\n" : "-ERR invalid password\r\n";
	if (strcmp(words[0], "INFO") == 0)
		return info;
	if (strcmp(words[0], "SCRIPT") == 0)
		return "$3\r\nsha\r\n";
	if (strcmp(words[0], "EVALSHA") == 0)
		return "-NOSCRIPT No matching script.\r\n";
	if (strcmp(words[0], "EVAL") == 0 || strcmp(words[0], "PING") == 0)
		return "+OK\r\n";
	if (strcmp(words[0], "CLIENT") == 0 && strcmp(words[1], "SETNAME") == 0)
		return "+OK\r\n";
	return "-ERR unknown command\r\n";
}

static void serve_old_client(int fd)
{
	FILE *in = fdopen(fd, "r");
	int n;
	while (fscanf(in, "*%d\r\n", &n) == 1 && n > 0 && n < 8) {
		char texts[8][512], *words[8];
		for (int i = 0; i < n; i++) {
			size_t len;
			words[i] = texts[i];
			if (fscanf(in, "$%zu\r\n", &len) != 1 || len > 500 ||
				fread(texts[i], 1, len + 2, in) != len + 2)
				_exit(1);
			texts[i][len] = '\0';
		}
		const char *text = old_answer(words, n);
		if (send(fd, text, strlen(text), MSG_NOSIGNAL) < 0)
			break;
	}
	_exit(0);
}

static void serve_old(int listener)
{
	signal(SIGCHLD, SIG_IGN);
	for (;;) {
		int fd = accept(listener, NULL, NULL);
		if (fork() == 0)
			serve_old_client(fd);
		close(fd);
	}
}

static void old_server(void **state)
{
	struct site site;
	struct call call;
	int listener = listen_tcp(&port);
	pid_t pid = child_start(serve_old, listener);
	site_open(&site, "redis://user:pw@127.0.0.1:%u?timeout=3", port);
	assert_true(run(&site, is_up));
	assert_false(redis_link_tracks(site.link));
	assert_int_equal(redis_link_version(site.link), 50014);
	assert_string_equal(redis_link_run_id(site.link), "");
	run_script(&call, &site, "k", "v");
	wait_done(&call, &site);
	assert_int_equal(call.type, REDIS_REPLY_STATUS);
	run_for(&site, never, 2000); /* it answers the health checks */
	assert_int_equal(site.downs, 0);
	site_close(&site);
	check_down("redis://user:wrong@127.0.0.1:%u", -EACCES, "wrong user or password");
	check_down("redis://:sesame@127.0.0.1:%u", -EACCES, "words are not repeated");
	program_stop(pid, SIGKILL);
	close(listener);
}

static void random_answers(void **state)
{
	struct site site;
	int listener = listen_tcp(&port);
	pid_t pid = child_start(serve_random, listener);
	for (int i = 0; i < 4; i++) {
		site_open(&site, "redis://127.0.0.1:%u?socket_timeout=0.1&timeout=3", port);
		run_for(&site, often_down, 1500);
		assert_true(site.downs > 0);
		site_close(&site);
	}
	program_stop(pid, SIGKILL);
	close(listener);
}

static void killed(void **state)
{
	struct site site;
	struct call call;
	server_with(NULL, NULL, NULL, NULL);
	site_open(&site, "redis://127.0.0.1:%u", port);
	assert_true(run(&site, is_up));
	program_stop(server, SIGKILL);
	assert_true(run(&site, went_down));
	assert_int_equal(site.status, -EHOSTDOWN);
	START(&call, &site, REDIS_TRACKED, "PING");
	wait_done(&call, &site);
	assert_int_equal(call.status, -EHOSTDOWN);
	assert_int_equal(call.sent, COORD_SENT_NO);
	run_for(&site, never, 300);
	assert_true(site.downs > 1); /* each attempt is told */
	server = start_server(port, NULL, NULL, NULL, NULL);
	assert_true(run(&site, is_up));
	assert_int_equal(site.ups, 2);
	START(&call, &site, REDIS_TRACKED, "PING");
	wait_done(&call, &site);
	assert_int_equal(call.status, 0);
	/* In flight when the server dies: nobody knows. */
	kill(server, SIGSTOP);
	START(&call, &site, REDIS_TRACKED, "INCR", "n");
	run_for(&site, never, 50);
	program_stop(server, SIGKILL);
	wait_done(&call, &site);
	assert_int_equal(call.status, -EHOSTDOWN);
	assert_int_equal(call.sent, COORD_SENT_UNKNOWN);
	server = 0;
	site_close(&site);
}

static void hung(void **state)
{
	struct site site;
	struct call call;
	server_with(NULL, NULL, NULL, NULL);
	site_open(&site, "redis://127.0.0.1:%u?timeout=3&socket_timeout=0.4", port);
	assert_true(run(&site, is_up));
	kill(server, SIGSTOP);
	START(&call, &site, REDIS_TRACKED, "INCR", "n");
	wait_done(&call, &site);
	assert_int_equal(call.status, -ETIMEDOUT);
	assert_int_equal(call.sent, COORD_SENT_UNKNOWN);
	kill(server, SIGCONT);
	assert_true(run(&site, is_up));
	/* With nothing to do the health check finds it. */
	site.downs = 0;
	kill(server, SIGSTOP);
	assert_true(run(&site, went_down));
	assert_int_equal(site.status, -ETIMEDOUT);
	kill(server, SIGCONT);
	assert_true(run(&site, is_up));
	site_close(&site);
}

static void one_of_them_dies(void **state)
{
	static const char *const names[] = {"toozfs-commands", "toozfs-notices", "toozfs-plain"};
	struct site site;
	struct call call;
	server_with(NULL, NULL, NULL, NULL);
	site_open(&site, "redis://127.0.0.1:%u", port);
	assert_true(run(&site, is_up));
	for (size_t i = 0; i < 3; i++) {
		site.downs = 0;
		kill_client(port, names[i]);
		assert_true(run(&site, went_down));
		assert_true(run(&site, is_up));
		assert_int_equal(site.ups, i + 2);
		/* Notices come as before. */
		START(&call, &site, REDIS_TRACKED, "GET", "watched");
		wait_done(&call, &site);
		site.notices = 0;
		TELL(port, "SET watched 1");
		assert_true(run(&site, noticed));
		/* No connection is left over. */
		redisReply *list = ask(port, "CLIENT LIST");
		unsigned lines = 0;
		for (const char *p = list->str; (p = strstr(p, "name=toozfs-")); p++)
			lines++;
		assert_int_equal(lines, 3);
		freeReplyObject(list);
	}
	site_close(&site);
}

static void unix_socket(void **state)
{
	char path[300];
	snprintf(path, sizeof(path), "%s/redis.sock", dir);
	server_with("--unixsocket", path, NULL, NULL);
	struct site site;
	site_open(&site, "redis://%s", path);
	assert_true(run(&site, is_up));
	assert_string_equal(redis_link_peer(site.link), path);
	assert_true(redis_link_tracks(site.link));
	site_close(&site);
	port = 1; /* not used */
	check_down("redis:///nonexistent/sock?db=0", -EHOSTDOWN, "No such file");
}

/* ---- TLS ---- */

/* A sentinel with TLS for the server with TLS at the port. */
static void check_tls_sentinel(uint16_t master_port)
{
	struct site site;
	char text[2048], files[1024];
	uint16_t at = free_port();
	snprintf(text, sizeof(text),
		"port 0\ntls-port %u\nbind 127.0.0.1\ndir %s\ntls-replication yes\n"
		"tls-cert-file %s/good.pem\ntls-key-file %s/good.key\n"
		"tls-ca-cert-file %s/good-ca.pem\nsentinel monitor main 127.0.0.1 %u 1\n",
		at, dir, dir, dir, dir, master_port);
	write_text(in_dir(dir, "tls-sentinel.conf"), text);
	const char *const argv[] = {
		"redis-server", in_dir(dir, "tls-sentinel.conf"), "--sentinel", NULL};
	pid_t pid = program_start(in_dir(dir, "sentinel.log"), argv);
	assert_true(wait_listening(at));
	snprintf(files, sizeof(files),
		"ssl_ca_certs=%s/good-ca.pem&ssl_certfile=%s/good.pem&ssl_keyfile=%s/good.key", dir,
		dir, dir);
	site_open(&site, "redis://127.0.0.1:%u?sentinel=main&ssl=1&sentinel_ssl=1&%s", at, files);
	assert_true(run(&site, is_up));
	assert_int_equal(site.downs, 0);
	site_close(&site);
	site_open(&site, "redis://127.0.0.1:%u?sentinel=main&ssl=1&%s", at, files);
	assert_true(run(&site, went_down)); /* the sentinel wants TLS */
	assert_non_null(strstr(site.text, "sentinel 127.0.0.1"));
	site_close(&site);
	program_stop(pid, SIGKILL);
}

static void with_tls(void **state)
{
	char url[512], tls_port[8];
	if (!have_program("openssl"))
		skip();
	make_certificate(dir, "good", "DNS:localhost,IP:127.0.0.1");
	make_certificate(dir, "other", "DNS:localhost,IP:127.0.0.1");
	port = free_port();
	snprintf(tls_port, sizeof(tls_port), "%u", port);
	const char *const argv[] = {"redis-server", "--port", "0", "--tls-port", tls_port, "--bind",
		"127.0.0.1", "--save", "", "--dir", dir, "--tls-cert-file", in_dir(dir, "good.pem"),
		"--tls-key-file", in_dir(dir, "good.key"), "--tls-ca-cert-file",
		in_dir(dir, "good-ca.pem"), NULL};
	server = program_start(in_dir(dir, "redis.log"), argv);
	if (!wait_listening(port))
		skip(); /* built without TLS */
	snprintf(url, sizeof(url),
		"redis://127.0.0.1:%%u?ssl=1&ssl_ca_certs=%s/good-ca.pem&ssl_certfile=%s/good.pem"
		"&ssl_keyfile=%s/good.key",
		dir, dir, dir);
	check_up(url);
	check_tls_sentinel(port);
	snprintf(url, sizeof(url), "redis://127.0.0.1:%%u?ssl=1&ssl_ca_certs=%s/other-ca.pem", dir);
	check_down(url, -EACCES, "certificate was refused");
	snprintf(url, sizeof(url), "redis://127.0.0.1:%%u?ssl=1&ssl_ca_certs=%s/good-ca.pem", dir);
	check_down(url, -EPROTO, "certificate required");
	check_down("redis://127.0.0.1:%u", -EHOSTDOWN, "");
}

/* ---- sentinels ---- */

static pid_t start_sentinel(uint16_t sentinel_port, uint16_t master_port, const char *name)
{
	char text[512];
	snprintf(text, sizeof(text),
		"port %u\nbind 127.0.0.1\ndir %s\nsentinel monitor main 127.0.0.1 %u 1\n"
		"sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 3000\n"
		"requirepass sentry\nsentinel sentinel-pass sentry\n",
		sentinel_port, dir, master_port);
	char file[300];
	snprintf(file, sizeof(file), "%s/%s", dir, name);
	write_text(file, text);
	const char *const argv[] = {"redis-server", file, "--sentinel", NULL};
	pid_t pid = program_start(in_dir(dir, "sentinel.log"), argv);
	assert_true(wait_listening(sentinel_port));
	return pid;
}

static bool has_replica(uint16_t sentinel_port)
{
	redisContext *context = redisConnect("127.0.0.1", sentinel_port);
	freeReplyObject(redisCommand(context, "AUTH sentry"));
	redisReply *reply = redisCommand(context, "SENTINEL replicas main");
	bool has = reply && reply->type == REDIS_REPLY_ARRAY && reply->elements > 0;
	freeReplyObject(reply);
	redisFree(context);
	return has;
}

static void fail_over(void **state)
{
	struct site site;
	char text[8];
	uint16_t old = free_port();
	pid_t master = start_server(old, NULL, NULL, NULL, NULL);
	snprintf(text, sizeof(text), "%u", old);
	server_with("--replicaof", "127.0.0.1", text, NULL);
	uint16_t first = free_port(), second = free_port(), none = free_port();
	pid_t sentinels[2] = {
		start_sentinel(first, old, "s1.conf"), start_sentinel(second, old, "s2.conf")};
	for (int i = 0; i < 300 && !(has_replica(first) && has_replica(second)); i++)
		nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);

	/* The first one named is not there, and the second is no sentinel. */
	site_open(&site,
		"redis://127.0.0.1:%u?sentinel=main&sentinel_fallback=127.0.0.1:%u"
		"&sentinel_fallback=127.0.0.1:%u&sentinel_fallback=127.0.0.1:%u"
		"&sentinel_password=sentry",
		none, old, first, second);
	assert_true(run(&site, is_up));
	snprintf(text, sizeof(text), "%u", old);
	assert_non_null(strstr(redis_link_peer(site.link), text));
	program_stop(master, SIGKILL);
	assert_true(run(&site, went_down));
	assert_true(run(&site, is_up));
	snprintf(text, sizeof(text), "%u", port);
	assert_non_null(strstr(redis_link_peer(site.link), text));
	/* Without the sentinels it stays up; then one of them is back. */
	site.downs = 0;
	program_stop(sentinels[0], SIGKILL);
	program_stop(sentinels[1], SIGKILL);
	run_for(&site, never, 1500);
	assert_true(is_up(&site));
	assert_int_equal(site.downs, 0);
	site_close(&site);
}

static void sentinel_refusals(void **state)
{
	char url[256];
	server_with(NULL, NULL, NULL, NULL);
	uint16_t at = free_port();
	pid_t pid = start_sentinel(at, port, "s.conf");
	uint16_t redis_port = port;
	port = at;
	check_up("redis://127.0.0.1:%u?sentinel=main&sentinel_password=sentry");
	check_down("redis://127.0.0.1:%u?sentinel=unknown&sentinel_password=sentry", -EHOSTDOWN,
		"knows no master 'unknown'");
	check_down("redis://127.0.0.1:%u?sentinel=main&sentinel_password=wrong", -EACCES,
		"wrong user or password");
	check_down("redis://127.0.0.1:%u?sentinel=main", -EACCES, "NOAUTH");
	check_down("redis://:sentry@127.0.0.1:%u", -EPROTO, "is a sentinel");
	port = redis_port;
	check_down("redis://127.0.0.1:%u?sentinel=main", -EPROTO, "not a sentinel");
	port = free_port();
	snprintf(url, sizeof(url), "redis://127.0.0.1:%%u?sentinel=main");
	check_down(url, -EHOSTDOWN, "Connection refused");
	program_stop(pid, SIGKILL);
}

int main(void)
{
	if (!have_program("redis-server"))
		return 77;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(commands, stop_server),
		cmocka_unit_test_teardown(scripts, stop_server),
		cmocka_unit_test_teardown(notices, stop_server),
		cmocka_unit_test_teardown(one_write_a_turn, stop_server),
		cmocka_unit_test_teardown(forgotten, stop_server),
		cmocka_unit_test_teardown(large, stop_server),
		cmocka_unit_test_teardown(closing, stop_server),
		cmocka_unit_test_teardown(credentials, stop_server),
		cmocka_unit_test_teardown(permissions, stop_server),
		cmocka_unit_test_teardown(databases, stop_server),
		cmocka_unit_test_teardown(replica, stop_server),
		cmocka_unit_test_teardown(strangers, stop_server),
		cmocka_unit_test_teardown(old_server, stop_server),
		cmocka_unit_test_teardown(random_answers, stop_server),
		cmocka_unit_test_teardown(killed, stop_server),
		cmocka_unit_test_teardown(hung, stop_server),
		cmocka_unit_test_teardown(one_of_them_dies, stop_server),
		cmocka_unit_test_teardown(unix_socket, stop_server),
		cmocka_unit_test_teardown(with_tls, stop_server),
		cmocka_unit_test_teardown(fail_over, stop_server),
		cmocka_unit_test_teardown(sentinel_refusals, stop_server),
	};
	redis_script_prepare(&script);
	dir = scratch_new();
	int r = cmocka_run_group_tests(tests, NULL, NULL);
	scratch_free(dir);
	return r;
}
