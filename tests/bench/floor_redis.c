/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a lock costs at the least on a redis server: a program that blocks in hiredis, with nothing around it.
 *
 *   floor_redis PORT PREFIX SECONDS      prints pairs of acquire and release a second, and how many
 *
 * The commands are those of the driver: both keys of the lock set if neither is there, a counter advanced,
 * in one script; both removed if they are ours, in another.
 */
#include <hiredis/hiredis.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char acquire_script[] =
	"if redis.call('EXISTS', KEYS[1], KEYS[2]) > 0 then return 0 end "
	"local t = redis.call('TIME') "
	"local n = t[1] * 1000000 + t[2] "
	"local last = tonumber(redis.call('GET', KEYS[3]) or '0') "
	"if n <= last then n = last + 1 end "
	"redis.call('SET', KEYS[3], string.format('%.0f', n)) "
	"redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) "
	"redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2]) "
	"return string.format('%.0f', n)";
static const char release_script[] = "local n = 0 "
				     "for i = 1, 2 do if redis.call('GET', KEYS[i]) == ARGV[1] "
				     "then n = n + redis.call('DEL', KEYS[i]) "
				     "end end return n";

static char keys[3][256];
static const char owner[] = "floor00000000000000000000000floor";

static double now_s(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static redisReply *checked(redisContext *c, redisReply *reply)
{
	if (!reply || reply->type == REDIS_REPLY_ERROR) {
		fprintf(stderr, "floor_redis: %s\n", reply ? reply->str : c->errstr);
		exit(1);
	}
	return reply;
}

static void load_script(redisContext *c, const char *script, char ret_sha[41])
{
	redisReply *reply = checked(c, redisCommand(c, "SCRIPT LOAD %s", script));
	snprintf(ret_sha, 41, "%s", reply->str);
	freeReplyObject(reply);
}

static void pair(redisContext *c, const char *acquire, const char *release)
{
	redisReply *reply = checked(c, redisCommand(c, "EVALSHA %s 3 %s %s %s %s 10000", acquire,
					       keys[0], keys[1], keys[2], owner));
	if (reply->type != REDIS_REPLY_STRING) {
		fprintf(stderr, "floor_redis: the lock is held\n");
		exit(1);
	}
	freeReplyObject(reply);
	freeReplyObject(checked(
		c, redisCommand(c, "EVALSHA %s 2 %s %s %s", release, keys[0], keys[1], owner)));
}

int main(int argc, char **argv)
{
	char acquire[41], release[41];
	unsigned count = 0;
	if (argc != 4)
		return 2;
	redisContext *c = redisConnect("127.0.0.1", atoi(argv[1]));
	if (!c || c->err) {
		fprintf(stderr, "floor_redis: no connection\n");
		return 1;
	}
	snprintf(keys[0], sizeof(keys[0]), "%s_lock", argv[2]);
	snprintf(keys[1], sizeof(keys[1]), "b'%s'_lock", argv[2]);
	snprintf(keys[2], sizeof(keys[2]), "%s_counter", argv[2]);
	load_script(c, acquire_script, acquire);
	load_script(c, release_script, release);
	double start = now_s(), end = start + strtod(argv[3], NULL), now;
	do {
		pair(c, acquire, release);
		count++;
		now = now_s();
	} while (now < end);
	printf("%.1f %u\n", count / (now - start), count);
	redisFree(c);
	return 0;
}
