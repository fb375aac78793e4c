/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of the redis link share: a link on a real loop, commands that keep their answer, and servers.
 * Whatever goes wrong fails the test. Include after cmocka.h.
 */
#ifndef TESTS_REDIS_SITE_H
#define TESTS_REDIS_SITE_H

#include "drivers/redis/link.h"
#include "tests/lib/servers.h"

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

/* The directory of the test, its server and where that listens. */
extern char *dir;
extern uint16_t port;
extern pid_t server;
/* SET KEYS[1] ARGV[1], answered with KEYS[1] and ARGV[2]. */
extern struct redis_script script;

/* Opens a link by a URL. */
void site_open(struct site *, const char *format, ...) __attribute__((format(printf, 2, 3)));
void site_close(struct site *);
/* Runs the loop till the condition holds. Returns whether it did in so many, or in 30,000, ms. */
bool run_for(struct site *, bool (*until)(struct site *), uint64_t ms);
bool run(struct site *, bool (*until)(struct site *));
bool is_up(struct site *);
bool went_down(struct site *);
bool never(struct site *);

/* Prepares a call that is sent by hand. */
void call_init(struct call *, struct site *);
/* Sends words; the answer will be in the call. */
void call_start(struct call *, struct site *, enum redis_lane, int argc, const char *const *argv);
#define START(call, site, lane, ...)                                                               \
	call_start(call, site, lane, sizeof((const char *[]){__VA_ARGS__}) / sizeof(char *),       \
		(const char *[]){__VA_ARGS__})
void run_script(struct call *, struct site *, const char *key, const char *value);
void wait_done(struct call *, struct site *);

/* A redis-server at the port, with more arguments, up to the first NULL. */
pid_t start_server(uint16_t at, const char *a, const char *b, const char *c, const char *d);
/* The server of the test, at a free port, and the teardown that ends it. */
void server_with(const char *a, const char *b, const char *c, const char *d);
int stop_server(void **state);
/* An administrator's command, and its answer. */
redisReply *ask(uint16_t at, const char *format, ...);
#define TELL(...) freeReplyObject(ask(__VA_ARGS__))
/* CLIENT KILL for the connections of that name. */
void kill_client(uint16_t at, const char *name);
/* A number of INFO stats. */
long long info_number(uint16_t at, const char *name);

#endif
