/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the redis link share. See redis_site.h. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "coord/loop_uv.h"
#include "tests/unit/redis_site.h"

enum { WAIT_MS = 30000 };

static const struct coord_driver driver = {
	.abi = COORD_DRIVER_ABI, .name = "redis", .params = redis_params, .can = COORD_CAN_GROUPS};

char *dir;
struct redis_script script = {
	.body = "return redis.call('SET', KEYS[1], ARGV[1]) and {KEYS[1], ARGV[2]}"};

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
bool run_for(struct site *site, bool (*until)(struct site *), uint64_t ms)
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

bool run(struct site *site, bool (*until)(struct site *))
{
	bool good = run_for(site, until, WAIT_MS);
	if (!good)
		print_error("up %u, down %u: %s\n", site->ups, site->downs, site->text);
	return good;
}

bool is_up(struct site *site)
{
	return redis_link_is_up(site->link);
}

bool went_down(struct site *site)
{
	return site->downs > 0;
}

bool never(struct site *site)
{
	return false;
}

void site_open(struct site *site, const char *format, ...)
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

void site_close(struct site *site)
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

void call_init(struct call *call, struct site *site)
{
	*call = (struct call){.cmd.fn = on_reply, .site = site};
}

void call_start(struct call *call, struct site *site, enum redis_lane lane, int argc,
	const char *const *argv)
{
	size_t lens[8];
	for (int i = 0; i < argc; i++)
		lens[i] = strlen(argv[i]);
	call_init(call, site);
	redis_send(site->link, lane, &call->cmd, argc, argv, lens);
	assert_int_equal(call->done, 0);
}

void run_script(struct call *call, struct site *site, const char *key, const char *value)
{
	const char *argv[] = {key, value, "end"};
	size_t lens[] = {strlen(key), strlen(value), 3};
	call_init(call, site);
	redis_script(site->link, REDIS_TRACKED, &call->cmd, &script, 1, 3, argv, lens);
}

static struct call *waited;

static bool is_done(struct site *site)
{
	return waited->done > 0;
}

void wait_done(struct call *call, struct site *site)
{
	waited = call;
	assert_true(run(site, is_done));
	assert_int_equal(call->done, 1);
}

/* ---- servers ---- */

pid_t start_server(uint16_t at, const char *a, const char *b, const char *c, const char *d)
{
	char text[8];
	snprintf(text, sizeof(text), "%u", at);
	const char *const argv[] = {"redis-server", "--port", text, "--bind", "127.0.0.1", "--save",
		"", "--appendonly", "no", "--repl-diskless-sync-delay", "0", "--dir", dir, a, b, c,
		d, NULL};
	pid_t pid = program_start(in_dir(dir, "redis.log"), argv);
	assert_true(wait_listening(at));
	return pid;
}

redisReply *ask(uint16_t at, const char *format, ...)
{
	redisContext *context = redisConnect("127.0.0.1", at);
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

/* CLIENT KILL for the connection of that name. */
void kill_client(uint16_t at, const char *name)
{
	redisReply *list = ask(at, "CLIENT LIST");
	bool killed = false;
	char wanted[64];
	snprintf(wanted, sizeof(wanted), " name=%s ", name);
	for (char *line = strtok(list->str, "\n"); line; line = strtok(NULL, "\n")) {
		long long id;
		if (!strstr(line, wanted) || sscanf(line, "id=%lld", &id) != 1)
			continue;
		TELL(at, "CLIENT KILL ID %lld", id);
		killed = true;
	}
	freeReplyObject(list);
	assert_true(killed);
}

long long info_number(uint16_t at, const char *name)
{
	redisReply *info = ask(at, "INFO stats");
	const char *found = strstr(info->str, name);
	assert_non_null(found);
	long long number = atoll(found + strlen(name) + 1);
	freeReplyObject(info);
	return number;
}

uint16_t port;
pid_t server;

/* A server of the test's own, started with these. */
void server_with(const char *a, const char *b, const char *c, const char *d)
{
	port = free_port();
	server = start_server(port, a, b, c, d);
}

int stop_server(void **state)
{
	program_stop(server, SIGKILL);
	server = 0;
	return 0;
}
