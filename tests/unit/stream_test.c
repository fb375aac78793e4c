/* SPDX-License-Identifier: Apache-2.0 */
/* The stream against real listeners: little servers in child processes, and openssl s_server. */
#include <arpa/inet.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/wait.h>
#include <sys/un.h>
#include <time.h>

#include <cmocka.h>

#include "coord/loop_uv.h"
#include "drivers/common/stream.h"
#include "tests/lib/servers.h"

enum { LONG = 8 * 1024 * 1024, WAIT_MS = 20000 };

/* When the client closes. */
enum close_when { LATER, AT_OPENED, AT_RECEIVED, AT_BROKEN };

struct client {
	struct coord_loop *loop;
	struct stream *stream;
	enum close_when when;
	bool opened, broken, stop_at_open;
	int status;
	char text[512];
	size_t received, wanted; /* stops when so many came */
	char first[256];
	struct coord_timer timer;
};

static char *dir;

/* ---- servers ---- */

static void serve_echo(int listener)
{
	for (;;) {
		int fd = accept(listener, NULL, NULL);
		char data[65536];
		ssize_t n;
		while ((n = read(fd, data, sizeof(data))) > 0)
			for (ssize_t done = 0, m; done < n; done += m)
				if ((m = write(fd, data + done, (size_t)(n - done))) <= 0)
					break;
		close(fd);
	}
}

static void serve_nothing(int listener)
{
	for (;;)
		accept(listener, NULL, NULL);
}

static void serve_end(int listener)
{
	for (;;)
		close(accept(listener, NULL, NULL));
}

/* Says why, and hangs up without reading. */
static void serve_words(int listener)
{
	for (;;) {
		int fd = accept(listener, NULL, NULL);
		if (write(fd, "go away", 7) != 7)
			return;
		nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
		close(fd);
	}
}

static void serve_garbage(int listener)
{
	for (;;) {
		int fd = accept(listener, NULL, NULL);
		if (write(fd, "HTTP/1.1 400 Bad Request\r\n\r\n", 28) != 28)
			return;
	}
}

/* ---- the client ---- */

static void on_opened(void *user)
{
	struct client *client = user;
	client->opened = true;
	if (client->when == AT_OPENED) {
		stream_close(client->stream);
		client->stream = NULL;
	}
	if (client->when == AT_OPENED || client->stop_at_open)
		coord_loop_uv_stop(client->loop);
}

static void on_received(void *user, const char *data, size_t len)
{
	struct client *client = user;
	for (size_t i = 0; i < len && client->received + i < sizeof(client->first) - 1; i++)
		client->first[client->received + i] = data[i];
	client->received += len;
	if (client->when == AT_RECEIVED) {
		stream_close(client->stream);
		client->stream = NULL;
	}
	if (client->when == AT_RECEIVED || (client->wanted && client->received >= client->wanted))
		coord_loop_uv_stop(client->loop);
}

static void on_broken(void *user, int status, const char *text)
{
	struct client *client = user;
	assert_false(client->broken);
	client->broken = true;
	client->status = status;
	snprintf(client->text, sizeof(client->text), "%s", text);
	if (client->when == AT_BROKEN) {
		stream_close(client->stream);
		client->stream = NULL;
	}
	coord_loop_uv_stop(client->loop);
}

static const struct stream_hooks hooks = {
	.opened = on_opened, .received = on_received, .broken = on_broken};

static void on_time(struct coord_timer *timer)
{
	coord_loop_uv_stop(coord_container(timer, struct client, timer)->loop);
}

static void run_for(struct client *client, uint64_t ms)
{
	coord_timer_start(client->loop, &client->timer, coord_now_ms(client->loop) + ms);
	coord_loop_uv_run(client->loop);
	coord_timer_stop(client->loop, &client->timer);
}

static void run(struct client *client)
{
	run_for(client, WAIT_MS);
}

static void client_init(struct client *client)
{
	*client = (struct client){.timer.fn = on_time};
	assert_int_equal(coord_loop_uv_new(&client->loop), 0);
}

static void client_done(struct client *client)
{
	stream_close(client->stream);
	coord_loop_uv_free(client->loop);
}

static struct sockaddr_in address_of(uint16_t port)
{
	return (struct sockaddr_in){.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static void open_tcp(struct client *client, uint16_t port, struct stream_tls *tls, const char *name)
{
	struct sockaddr_in address = address_of(port);
	struct addrinfo list = {
		.ai_addr = (struct sockaddr *)&address, .ai_addrlen = sizeof(address)};
	struct stream_target target = {.label = "here",
		.addresses = &list,
		.tls = tls,
		.server_name = name,
		.connect_ms = 5000,
		.timeout_ms = 5000,
		.keepalive = true};
	assert_int_equal(stream_open(client->loop, &target, &hooks, client, &client->stream), 0);
	assert_false(client->opened || client->broken);
}

static void open_path(struct client *client, const char *path)
{
	struct stream_target target = {.label = path, .path = path, .connect_ms = 5000};
	assert_int_equal(stream_open(client->loop, &target, &hooks, client, &client->stream), 0);
}

static void write_long(struct client *client)
{
	char *data = malloc(LONG);
	memset(data, 'x', LONG);
	assert_int_equal(stream_write(client->stream, data, LONG), 0);
	free(data);
}

/* ---- tests ---- */

/* A server in a process of its own. */
struct peer {
	uint16_t port;
	int listener;
	pid_t pid;
};

static struct peer peer_start(void (*serve)(int listener))
{
	struct peer peer;
	peer.listener = listen_tcp(&peer.port);
	peer.pid = child_start(serve, peer.listener);
	return peer;
}

static void peer_stop(const struct peer *peer)
{
	program_stop(peer->pid, SIGKILL);
	close(peer->listener);
}

/* A client that has just been connected to it. */
static void open_only(struct client *client, const struct peer *peer)
{
	client_init(client);
	client->stop_at_open = true;
	open_tcp(client, peer->port, NULL, NULL);
	run(client);
	assert_true(client->opened);
}

static void echoes(void **state)
{
	struct client client;
	struct peer peer = peer_start(serve_echo);
	client_init(&client);
	open_tcp(&client, peer.port, NULL, NULL);
	assert_int_equal(stream_write(client.stream, "early", 5), 0);
	assert_int_equal(stream_handed(client.stream), 0);
	client.wanted = 5;
	run(&client);
	assert_true(client.opened);
	assert_string_equal(client.first, "early");
	assert_int_equal(stream_handed(client.stream), 5);
	socklen_t len;
	assert_int_equal(stream_address(client.stream, &len)->sa_family, AF_INET);

	write_long(&client);
	client.wanted = 5 + LONG;
	run(&client);
	assert_int_equal(client.received, 5 + LONG);
	assert_int_equal(stream_handed(client.stream), 5 + LONG);
	assert_false(client.broken);
	client_done(&client);
	peer_stop(&peer);
}

static void unix_echoes(void **state)
{
	struct client client;
	const char *path = in_dir(dir, "echo.sock");
	int listener = listen_unix(path);
	pid_t pid = child_start(serve_echo, listener);
	client_init(&client);
	open_path(&client, path);
	write_long(&client);
	client.wanted = LONG;
	run(&client);
	assert_int_equal(client.received, LONG);
	client_done(&client);
	program_stop(pid, SIGKILL);
	close(listener);
}

static void refused(void **state)
{
	struct client client;
	char path[200];
	client_init(&client);
	open_tcp(&client, free_port(), NULL, NULL);
	assert_int_equal(stream_write(client.stream, "x", 1), 0);
	run(&client);
	assert_int_equal(client.status, -EHOSTDOWN);
	assert_string_equal(client.text, "here: Connection refused");
	assert_int_equal(stream_handed(client.stream), 0);
	assert_int_equal(stream_write(client.stream, "x", 1), 0); /* vanishes */
	client_done(&client);

	client_init(&client);
	open_path(&client, in_dir(dir, "nothing"));
	run(&client);
	assert_int_equal(client.status, -EHOSTDOWN);
	assert_non_null(strstr(client.text, "No such file"));
	client_done(&client);

	client_init(&client);
	memset(path, 'p', sizeof(path) - 1);
	path[0] = '/';
	path[sizeof(path) - 1] = '\0';
	open_path(&client, path);
	run(&client);
	assert_true(client.broken);
	assert_non_null(strstr(client.text, "too long"));
	client_done(&client);
}

/* The first address refuses, the second does not answer, the third is good. */
static void addresses_in_turn(void **state)
{
	struct client client;
	uint16_t dead, port;
	int full = listen_tcp(&dead), listener = listen_tcp(&port), fds[8];
	assert_int_equal(listen(full, 0), 0);
	struct sockaddr_in names[3] = {address_of(free_port()), address_of(dead), address_of(port)};
	/* Its queue is full; what comes now is dropped. */
	for (size_t i = 0; i < 8; i++) {
		fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
		(void)connect(fds[i], (struct sockaddr *)&names[1], sizeof(names[1]));
	}
	pid_t pid = child_start(serve_echo, listener);
	struct addrinfo list[3];
	for (size_t i = 0; i < 3; i++)
		list[i] = (struct addrinfo){.ai_addr = (struct sockaddr *)&names[i],
			.ai_addrlen = sizeof(names[i]),
			.ai_next = i < 2 ? &list[i + 1] : NULL};
	struct stream_target target = {.label = "many", .addresses = list, .connect_ms = 1000};
	client_init(&client);
	assert_int_equal(stream_open(client.loop, &target, &hooks, &client, &client.stream), 0);
	assert_int_equal(stream_write(client.stream, "kept", 4), 0);
	client.wanted = 4;
	run(&client);
	assert_string_equal(client.first, "kept");
	client_done(&client);

	list[1].ai_next = NULL;
	client_init(&client);
	assert_int_equal(stream_open(client.loop, &target, &hooks, &client, &client.stream), 0);
	uint64_t begin = coord_now_ms(client.loop);
	run(&client);
	assert_int_equal(client.status, -ETIMEDOUT);
	assert_in_range(coord_now_ms(client.loop) - begin, 900, 3000);
	client_done(&client);
	for (size_t i = 0; i < 8; i++)
		close(fds[i]);
	program_stop(pid, SIGKILL);
	close(listener);
	close(full);
}

static void closing_anywhere(void **state)
{
	struct client client;
	struct peer echo = peer_start(serve_echo), end = peer_start(serve_end);
	for (int when = AT_OPENED; when <= AT_BROKEN; when++) {
		client_init(&client);
		client.when = (enum close_when)when;
		open_tcp(&client, when == AT_BROKEN ? end.port : echo.port, NULL, NULL);
		stream_write(client.stream, "x", 1);
		run(&client);
		assert_null(client.stream);
		client_done(&client);
	}
	client_init(&client); /* before anything happened */
	open_tcp(&client, echo.port, NULL, NULL);
	client_done(&client);
	peer_stop(&echo);
	peer_stop(&end);
}

static void what_left_is_known(void **state)
{
	struct client client;
	struct peer peer = peer_start(serve_nothing);
	open_only(&client, &peer);
	/* Nobody reads: the rest is kept, up to a limit. */
	for (int i = 0; i < 4; i++)
		write_long(&client);
	uint64_t handed = stream_handed(client.stream);
	assert_true(handed > 0 && handed < 4 * (uint64_t)LONG);
	char *data = calloc(1, LONG);
	int r = 0;
	for (int i = 0; i < 4 && r == 0; i++)
		r = stream_write(client.stream, data, LONG);
	assert_int_equal(r, -ENOBUFS);
	free(data);
	program_stop(peer.pid, SIGKILL);
	run(&client);
	assert_int_equal(client.status, -EHOSTDOWN);
	assert_true(stream_handed(client.stream) < 4 * (uint64_t)LONG);
	client_done(&client);
	close(peer.listener);
}

/* A write that fails is told later, after what the server had to say. */
static void last_words(void **state)
{
	struct client client;
	struct peer peer = peer_start(serve_words);
	open_only(&client, &peer);
	nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
	assert_int_equal(stream_write(client.stream, "x", 1), 0);
	nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
	assert_int_equal(stream_write(client.stream, "x", 1), 0);
	assert_false(client.broken);
	run(&client);
	assert_true(client.broken);
	assert_string_equal(client.first, "go away");
	client_done(&client);
	peer_stop(&peer);
}

/* ---- TLS ---- */

static struct stream_tls *trust(const char *ca, const char *cert)
{
	struct stream_tls *tls;
	char *error, key[64];
	char ca_path[300], cert_path[300] = "", key_path[300] = "";
	snprintf(ca_path, sizeof(ca_path), "%s/%s", dir, ca);
	if (cert) {
		snprintf(cert_path, sizeof(cert_path), "%s/%s.pem", dir, cert);
		snprintf(key, sizeof(key), "%s.key", cert);
		snprintf(key_path, sizeof(key_path), "%s/%s", dir, key);
	}
	assert_int_equal(stream_tls_new(ca_path, cert ? cert_path : NULL, cert ? key_path : NULL,
				 &tls, &error),
		0);
	return tls;
}

static pid_t start_tls(uint16_t port, const char *name, bool want_client)
{
	char accept[16], cert[300], key[300], ca[300];
	snprintf(accept, sizeof(accept), "%u", port);
	snprintf(cert, sizeof(cert), "%s/%s.pem", dir, name);
	snprintf(key, sizeof(key), "%s/%s.key", dir, name);
	snprintf(ca, sizeof(ca), "%s/%s-ca.pem", dir, name);
	const char *const argv[] = {"openssl", "s_server", "-accept", accept, "-cert", cert, "-key",
		key, "-rev", "-quiet", want_client ? "-Verify" : NULL, "1", "-CAfile", ca,
		"-verify_return_error", NULL};
	pid_t pid = program_start(in_dir(dir, "s_server.log"), argv);
	assert_true(wait_listening(port));
	return pid;
}

/* Connects once; true if a line comes back reversed. */
static bool speaks_tls(
	struct client *client, uint16_t port, struct stream_tls *tls, const char *name)
{
	client_init(client);
	open_tcp(client, port, tls, name);
	assert_int_equal(stream_write(client->stream, "abc\n", 4), 0);
	client->wanted = 4;
	run(client);
	bool good = client->received == 4 && strcmp(client->first, "cba\n") == 0;
	if (good)
		assert_int_equal(stream_handed(client->stream), 4);
	client_done(client);
	return good;
}

static void tls_names(void **state)
{
	struct client client;
	uint16_t port = free_port();
	pid_t pid = start_tls(port, "good", false);
	struct stream_tls *tls = trust("good-ca.pem", NULL), *other = trust("other-ca.pem", NULL);
	assert_true(speaks_tls(&client, port, tls, "localhost"));
	assert_true(speaks_tls(&client, port, tls, "127.0.0.1"));

	assert_false(speaks_tls(&client, port, other, "localhost"));
	assert_false(client.opened);
	assert_int_equal(client.status, -EACCES);
	assert_non_null(strstr(client.text, "certificate was refused"));
	assert_false(speaks_tls(&client, port, tls, "example.org"));
	assert_int_equal(client.status, -EACCES);
	assert_non_null(strstr(client.text, "hostname mismatch"));
	assert_false(speaks_tls(&client, port, tls, "127.0.0.2"));
	assert_int_equal(client.status, -EACCES);
	assert_non_null(strstr(client.text, "IP address mismatch"));

	for (int when = AT_OPENED; when <= AT_RECEIVED; when++) {
		client_init(&client);
		client.when = (enum close_when)when;
		open_tcp(&client, port, tls, "localhost");
		stream_write(client.stream, "abc\n", 4);
		run(&client);
		assert_null(client.stream);
		client_done(&client);
	}
	stream_tls_free(tls);
	stream_tls_free(other);
	program_stop(pid, SIGKILL);
}

static void tls_long(void **state)
{
	struct client client;
	uint16_t port = free_port();
	pid_t pid = start_tls(port, "good", false);
	struct stream_tls *tls = trust("good-ca.pem", NULL);
	client_init(&client);
	open_tcp(&client, port, tls, "localhost");
	/* Lines, as s_server turns them one by one. */
	enum { LINES = 20000 };
	char line[65];
	memset(line, 'y', 64);
	line[63] = '\n';
	for (int i = 0; i < LINES; i++)
		assert_int_equal(stream_write(client.stream, line, 64), 0);
	client.wanted = (size_t)LINES * 64;
	run(&client);
	assert_int_equal(client.received, (size_t)LINES * 64);
	assert_int_equal(stream_handed(client.stream), (size_t)LINES * 64);
	client_done(&client);
	stream_tls_free(tls);
	program_stop(pid, SIGKILL);
}

static void tls_client_certificate(void **state)
{
	struct client client;
	uint16_t port = free_port();
	pid_t pid = start_tls(port, "good", true);
	struct stream_tls *tls = trust("good-ca.pem", "good"), *bare = trust("good-ca.pem", NULL);
	assert_true(speaks_tls(&client, port, tls, "localhost"));
	assert_false(speaks_tls(&client, port, bare, "localhost"));
	assert_int_equal(client.status, -EPROTO);
	assert_non_null(strstr(client.text, "certificate required"));
	stream_tls_free(tls);
	stream_tls_free(bare);
	program_stop(pid, SIGKILL);
}

static void tls_with_strangers(void **state)
{
	static const struct {
		void (*serve)(int);
		int status;
		const char *text;
	} cases[] = {
		{serve_garbage, -EPROTO, "wrong version number"},
		{serve_end, 0, "here: "},
		{serve_nothing, -ETIMEDOUT, "no answer in the TLS handshake"},
		{serve_echo, -EPROTO, "TLS failed"},
	};
	struct stream_tls *tls = trust("good-ca.pem", NULL);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct client client;
		struct peer peer = peer_start(cases[i].serve);
		assert_false(speaks_tls(&client, peer.port, tls, "localhost"));
		assert_false(client.opened);
		if (cases[i].status)
			assert_int_equal(client.status, cases[i].status);
		assert_non_null(strstr(client.text, cases[i].text));
		peer_stop(&peer);
	}
	stream_tls_free(tls);
}

/* Names in the directory; NULL: not given. */
static void check_files(
	const char *ca, const char *cert, const char *key, const char *file, const char *why)
{
	const char *names[] = {ca, cert, key};
	char paths[3][300];
	struct stream_tls *tls;
	char *error;
	for (int i = 0; i < 3; i++)
		snprintf(paths[i], sizeof(paths[i]), "%s/%s", dir, names[i] ? names[i] : "");
	assert_int_equal(stream_tls_new(ca ? paths[0] : NULL, cert ? paths[1] : NULL,
				 key ? paths[2] : NULL, &tls, &error),
		-EINVAL);
	if (!strstr(error, file) || !strstr(error, why))
		fail_msg("'%s' does not say '%s' of '%s'", error, why, file);
	free(error);
}

/* The key of good, with a passphrase. */
static void lock_key(void)
{
	char from[300], to[300];
	snprintf(from, sizeof(from), "%s/good.key", dir);
	snprintf(to, sizeof(to), "%s/locked.key", dir);
	const char *const argv[] = {"openssl", "pkey", "-in", from, "-aes256", "-passout",
		"pass:secret", "-out", to, NULL};
	pid_t pid = program_start(in_dir(dir, "pkey.log"), argv);
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void tls_files(void **state)
{
	struct stream_tls *tls;
	char *error;
	lock_key();
	assert_int_equal(stream_tls_new("/nonexistent", NULL, NULL, &tls, &error), -EINVAL);
	assert_non_null(strstr(error, "trusted certificates '/nonexistent'"));
	free(error);
	assert_int_equal(stream_tls_new(NULL, in_dir(dir, "good.pem"), in_dir(dir, "other.key"),
				 &tls, &error),
		-EINVAL);
	assert_non_null(strstr(error, "private key"));
	free(error);
	check_files(NULL, "nonexistent", NULL, "certificate '", "No such file");
	check_files("nonexistent", NULL, NULL, "trusted certificates '", "No such file");
	check_files(NULL, "good.pem", NULL, "good.pem", "has no private key");
	check_files(NULL, "good.key", "good.key", "good.key", "has no certificate");
	check_files(NULL, "good.pem", "locked.key", "locked.key", "passphrase");
	assert_int_equal(stream_tls_new(NULL, NULL, NULL, &tls, &error), 0);
	stream_tls_free(tls);
	stream_tls_free(NULL);
}

int main(void)
{
	if (!have_program("openssl"))
		return 77;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(echoes),
		cmocka_unit_test(unix_echoes),
		cmocka_unit_test(refused),
		cmocka_unit_test(addresses_in_turn),
		cmocka_unit_test(closing_anywhere),
		cmocka_unit_test(what_left_is_known),
		cmocka_unit_test(last_words),
		cmocka_unit_test(tls_names),
		cmocka_unit_test(tls_long),
		cmocka_unit_test(tls_client_certificate),
		cmocka_unit_test(tls_with_strangers),
		cmocka_unit_test(tls_files),
	};
	dir = scratch_new();
	make_certificate(dir, "good", "DNS:localhost,IP:127.0.0.1");
	make_certificate(dir, "other", "DNS:localhost,IP:127.0.0.1");
	int r = cmocka_run_group_tests(tests, NULL, NULL);
	scratch_free(dir);
	return r;
}
