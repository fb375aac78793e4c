/* SPDX-License-Identifier: Apache-2.0 */
/* Opening the link: who is let in, what is refused and why, things that are no redis, TLS and sentinels. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>

#include <cmocka.h>

#include "tests/unit/redis_site.h"

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
			"3.2 is needed"},
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
		cmocka_unit_test_teardown(credentials, stop_server),
		cmocka_unit_test_teardown(permissions, stop_server),
		cmocka_unit_test_teardown(databases, stop_server),
		cmocka_unit_test_teardown(replica, stop_server),
		cmocka_unit_test_teardown(strangers, stop_server),
		cmocka_unit_test_teardown(old_server, stop_server),
		cmocka_unit_test_teardown(random_answers, stop_server),
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
