/* SPDX-License-Identifier: Apache-2.0 */
/* The link against real servers that the test starts: commands, notices, and what happens when they end. */
#include <dlfcn.h>
#include <netdb.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include <cmocka.h>

#include "tests/unit/redis_site.h"

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

/* It is no master any more; before redis 7 a script said so in more words. */
static void demoted(void **state)
{
	static const char *const words[] = {"READONLY You can't write",
		"ERR Error running script (call to f_1): "
		"@user_script:1: -READONLY You can't write"};
	struct site site;
	struct call call;
	server_with(NULL, NULL, NULL, NULL);
	for (size_t i = 0; i < 2; i++) {
		site_open(&site, "redis://127.0.0.1:%u", port);
		assert_true(run(&site, is_up));
		START(&call, &site, REDIS_TRACKED, "EVAL", "return redis.error_reply(ARGV[1])", "0",
			words[i]);
		assert_true(run(&site, went_down));
		site_close(&site);
	}
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
	call_init(&call, &site);
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

static bool went_down_often(struct site *site)
{
	return site->downs >= 12;
}

/* However many attempts failed, the next one is not far away, measured by the lease. */
static void pauses(void **state)
{
	struct site site;
	server_with(NULL, NULL, NULL, NULL);
	program_stop(server, SIGKILL);
	server = 0;
	site_open(&site, "redis://127.0.0.1:%u?timeout=3", port);
	assert_true(run(&site, went_down_often));
	for (int i = 0; i < 3; i++) {
		site.downs = 0;
		uint64_t start = coord_now_ms(site.loop);
		assert_true(run(&site, went_down));
		/* A pause is 3 s / 16 at the most; up to a second it could be, and half of that at least. */
		assert_true(coord_now_ms(site.loop) - start < 400);
	}
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

/* libuv's, which waits for as long as the test wants. */
static sem_t resolved;
static _Atomic bool is_resolver_slow, is_resolver_asked;

int getaddrinfo(const char *restrict host, const char *restrict service,
	const struct addrinfo *restrict like, struct addrinfo **restrict ret)
{
	int (*next)(const char *, const char *, const struct addrinfo *, struct addrinfo **) =
		dlsym(RTLD_NEXT, "getaddrinfo");
	is_resolver_asked = true;
	while (is_resolver_slow && sem_wait(&resolved) && errno == EINTR)
		;
	return next(host, service, like, ret);
}

struct pause {
	struct site site;
	struct coord_timer timer;
};

static void resolver_goes_on(struct coord_timer *timer)
{
	sem_post(&resolved);
}

static void stand_still(struct coord_timer *timer)
{
	struct pause *pause = coord_container(timer, struct pause, timer);
	const struct timespec duration = {.tv_sec = 1, .tv_nsec = 200000000};
	if (is_resolver_asked) {
		nanosleep(&duration, NULL);
		timer->fn = resolver_goes_on;
	}
	coord_timer_start(pause->site.loop, timer, coord_now_ms(pause->site.loop) + 10);
}

/* The process stands still for longer than the time to connect, with its resolver, when it has just asked. */
static void pause_while_resolving(void **state)
{
	struct pause pause = {.timer.fn = stand_still};
	assert_int_equal(sem_init(&resolved, 0, 0), 0);
	server_with(NULL, NULL, NULL, NULL);
	is_resolver_slow = true;
	is_resolver_asked = false;
	site_open(&pause.site, "redis://127.0.0.1:%u?socket_connect_timeout=1", port);
	coord_timer_start(pause.site.loop, &pause.timer, coord_now_ms(pause.site.loop));
	assert_true(run(&pause.site, is_up));
	is_resolver_slow = false;
	assert_int_equal(pause.site.downs, 0);
	site_close(&pause.site);
	sem_destroy(&resolved);
}

int main(void)
{
	if (!have_program("redis-server"))
		return 77;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(commands, stop_server),
		cmocka_unit_test_teardown(scripts, stop_server),
		cmocka_unit_test_teardown(demoted, stop_server),
		cmocka_unit_test_teardown(notices, stop_server),
		cmocka_unit_test_teardown(one_write_a_turn, stop_server),
		cmocka_unit_test_teardown(forgotten, stop_server),
		cmocka_unit_test_teardown(large, stop_server),
		cmocka_unit_test_teardown(closing, stop_server),
		cmocka_unit_test_teardown(killed, stop_server),
		cmocka_unit_test_teardown(pauses, stop_server),
		cmocka_unit_test_teardown(pause_while_resolving, stop_server),
		cmocka_unit_test_teardown(hung, stop_server),
		cmocka_unit_test_teardown(one_of_them_dies, stop_server),
	};
	redis_script_prepare(&script);
	dir = scratch_new();
	int r = cmocka_run_group_tests(tests, NULL, NULL);
	scratch_free(dir);
	return r;
}
