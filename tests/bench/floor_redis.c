/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a lock costs at the least on a redis server: a program that blocks in hiredis, with nothing around it.
 *
 *   floor_redis PORT PREFIX SECONDS      prints pairs of acquire and release a second, and how many
 *
 * The commands are the driver's: its scripts, on keys like its own, on a connection with tracking.
 */
#include <hiredis/hiredis.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "drivers/redis/scripts.h"

enum { WORDS_MAX = 20, KEYS = 7 };

struct command {
	const char *words[WORDS_MAX];
	int len;
};

static const char owner[] = "f100000000000000000000000000000f", session[] = "f100000000000000";

static double now_s(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static void die(const char *text)
{
	fprintf(stderr, "floor_redis: %s\n", text);
	exit(1);
}

static redisReply *checked(redisContext *c, redisReply *reply)
{
	if (!reply || reply->type == REDIS_REPLY_ERROR)
		die(reply ? reply->str : c->errstr);
	return reply;
}

static redisContext *connected(const char *port)
{
	redisContext *c = redisConnect("127.0.0.1", atoi(port));
	if (!c || c->err)
		die("no connection");
	return c;
}

static void track(redisContext *c, redisContext *notices)
{
	redisReply *id = checked(notices, redisCommand(notices, "CLIENT ID"));
	freeReplyObject(checked(notices, redisCommand(notices, "SUBSCRIBE __redis__:invalidate")));
	freeReplyObject(checked(
		c, redisCommand(c, "CLIENT TRACKING ON REDIRECT %lld NOLOOP", id->integer)));
	freeReplyObject(id);
}

static void run(redisContext *c, struct command *command)
{
	redisReply *reply =
		checked(c, redisCommandArgv(c, command->len, (const char **)command->words, NULL));
	if (reply->type != REDIS_REPLY_ARRAY || reply->elements < 2 ||
		reply->element[0]->integer != REDIS_CODE_OK)
		die("refused");
	freeReplyObject(reply);
}

static void load(redisContext *c, struct redis_script *script)
{
	redis_script_prepare(script);
	freeReplyObject(checked(c, redisCommand(c, "SCRIPT LOAD %s", script->body)));
}

int main(int argc, char **argv)
{
	static struct redis_script scripts[REDIS_SCRIPTS];
	char keys[KEYS][256];
	unsigned count = 0;
	if (argc != 4)
		return 2;
	static const char *const forms[KEYS] = {"%s_lock", "b'%s'_b'l'_lock", "%s:toozfs:mark:l",
		"%s:toozfs:token", "%s:toozfs:record:l", "%s:toozfs:sharers:l",
		"%s:toozfs:session:f100000000000000"};
	for (int i = 0; i < KEYS; i++)
		snprintf(keys[i], sizeof(keys[i]), forms[i], argv[2]);
	redisContext *c = connected(argv[1]), *notices = connected(argv[1]);
	redis_scripts_prepare(scripts);
	load(c, &scripts[REDIS_SCRIPT_LOCK]);
	load(c, &scripts[REDIS_SCRIPT_UNLOCK]);
	track(c, notices);
	freeReplyObject(checked(c, redisCommand(c, "SET %s %s PX 60000", keys[6], "floor\n1")));
	struct command lock = {.words = {"EVALSHA", scripts[REDIS_SCRIPT_LOCK].sha, "3", keys[0],
				       keys[1], keys[2], owner, "30000", "x", "w", session, keys[3],
				       keys[4], keys[5], "", "lock\nfloor", keys[6], "floor\n1"},
		.len = 18};
	struct command unlock = {
		.words = {"EVALSHA", scripts[REDIS_SCRIPT_UNLOCK].sha, "3", keys[0], keys[1],
			keys[2], owner, keys[4], keys[5], session, "100", "w"},
		.len = 12};
	double start = now_s(), end = start + strtod(argv[3], NULL), now;
	do {
		run(c, &lock);
		run(c, &unlock);
		count++;
		now = now_s();
	} while (now < end);
	printf("%.1f %u\n", count / (now - start), count);
	redisFree(c);
	redisFree(notices);
	return 0;
}
