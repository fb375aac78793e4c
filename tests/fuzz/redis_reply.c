/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes from a redis server, in pieces, on an open connection where some commands wait. */
#include "drivers/redis/conn_parts.h"
#include "tests/fuzz/fuzz.h"

enum { COMMANDS = 16 };

struct client {
	struct redis_cmd commands[COMMANDS];
	unsigned answered, broken;
};

static struct client client;
static struct coord_loop loop; /* runs nothing */

static void walk(const redisReply *reply)
{
	char text[64];
	if (reply->str) {
		must(strlen(reply->str) <= (size_t)reply->len);
		redis_printable(reply->str, (size_t)reply->len, text, sizeof(text));
		must(strlen(text) < sizeof(text));
	}
	must(redis_errno(reply) <= 0 &&
		(reply->type == REDIS_REPLY_ERROR) == (redis_errno(reply) < 0));
	redis_parse_version(redis_info(reply, "redis_version"));
	for (size_t i = 0; reply->type == REDIS_REPLY_ARRAY && i < reply->elements; i++)
		walk(reply->element[i]);
}

static void on_reply(
	struct redis_cmd *cmd, int status, enum coord_sent sent, const redisReply *reply)
{
	must(cmd == &client.commands[client.answered]);
	client.answered++;
	walk(reply);
}

static void on_broken(void *user, int status, const char *text)
{
	must(client.broken == 0 && status < 0);
	client.broken++;
}

static void on_message(void *user, const redisReply *message)
{
	must(message->elements == 3 && message->element[0]->str && message->element[1]->str);
	walk(message);
}

static void on_doubtful(void *user, int status, const char *text)
{
	must(status < 0);
}

static const struct redis_conn_hooks hooks = {
	.broken = on_broken, .message = on_message, .doubtful = on_doubtful};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (len < 2)
		return 0;
	struct redis_slot slots[COMMANDS] = {0};
	if (!loop.deferred_end)
		coord_loop_init(&loop, NULL);
	struct redis_conn conn = {.loop = &loop,
		.hooks = &hooks,
		.state = CONN_OPEN,
		.label = "fuzz",
		.depth = 1,
		.slots = slots,
		.slots_size = COMMANDS,
		.next = data[0] % (COMMANDS + 1),
		.reader = redisReaderCreate()};
	conn.written = conn.next;
	client = (struct client){0};
	for (size_t i = 0; i < COMMANDS; i++) {
		client.commands[i].fn = on_reply;
		slots[i].cmd = &client.commands[i];
	}
	redis_reader_limit(conn.reader, &conn.limits);
	size_t piece = data[1] ? data[1] : len;
	for (size_t at = 2; at < len; at += piece)
		redis_conn_received(
			&conn, (const char *)data + at, len - at < piece ? len - at : piece);
	redisReaderFree(conn.reader);
	return 0;
}
