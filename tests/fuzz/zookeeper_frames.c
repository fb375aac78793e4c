/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes from a ZooKeeper server. What is said to be good is read again as the client library reads it, which
 * checks each length against what is left and nothing else, and has to find all that it looks for.
 */
#include "drivers/zookeeper/frames.h"
#include "tests/fuzz/fuzz.h"

enum { STAT = 68 };

struct reader {
	const uint8_t *at;
	size_t left;
	bool all; /* or only the beginning of the frame */
};

static int64_t read_number(struct reader *reader, size_t bytes)
{
	int64_t value = 0;
	must(reader->left >= bytes);
	reader->left -= bytes;
	while (bytes-- > 0)
		value = (int64_t)((uint64_t)value << 8 | *reader->at++);
	return value;
}

static int32_t read_int(struct reader *reader)
{
	return (int32_t)read_number(reader, 4);
}

static void read_bytes(struct reader *reader, int32_t len)
{
	must(len >= 0 && (size_t)len <= reader->left);
	reader->at += len;
	reader->left -= (size_t)len;
}

static void read_path(struct reader *reader)
{
	int32_t len = read_int(reader);
	must(len > 0 && (size_t)len <= reader->left && *reader->at == '/');
	read_bytes(reader, len);
}

/* Two answers at the most are asked for. */
static void read_multi(struct reader *reader, enum zk_reply reply)
{
	for (int count = reply == ZK_REPLY_CHECK ? 1 : 2;; count--) {
		int32_t type = read_int(reader);
		bool end = read_number(reader, 1) != 0;
		read_int(reader);
		must(end == (count == 0));
		if (end)
			return;
		if (type == -1)
			read_int(reader);
		else if (reply == ZK_REPLY_REPLACE && count == 1)
			read_path(reader);
	}
}

static void read_children(struct reader *reader, size_t frame_len)
{
	int32_t count = read_int(reader);
	must(count >= 0 && (size_t)count <= frame_len / 4);
	while (reader->all && count-- > 0)
		read_bytes(reader, read_int(reader));
}

static void read_data(struct reader *reader, size_t frame_len)
{
	int32_t len = read_int(reader);
	must(len >= -1 && (size_t)(len + STAT) <= frame_len);
	if (!reader->all)
		return;
	read_bytes(reader, len < 0 ? 0 : len);
	read_bytes(reader, STAT);
}

static void read_reply(struct reader *reader, enum zk_reply reply, size_t frame_len)
{
	if (reply == ZK_REPLY_STAT)
		read_bytes(reader, STAT);
	else if (reply == ZK_REPLY_DATA)
		read_data(reader, frame_len);
	else if (reply == ZK_REPLY_CHILDREN)
		read_children(reader, frame_len);
	else if (reply == ZK_REPLY_PATH || reply == ZK_REPLY_CREATED)
		read_path(reader);
	if (reply == ZK_REPLY_CREATED)
		read_bytes(reader, STAT);
	if (reply >= ZK_REPLY_CHECK)
		read_multi(reader, reply);
}

static void read_frame(struct reader *reader, const struct zk_asked *asked, size_t frame_len)
{
	int32_t xid = read_int(reader);
	read_number(reader, 8);
	int32_t err = read_int(reader);
	if (xid == -1) {
		must(read_int(reader) > 0);
		read_int(reader);
		read_path(reader);
	} else if (xid == -4) {
		must(asked->auth);
	} else if (xid != -2 && xid != -8) {
		must(asked->any);
		if (err == 0)
			read_reply(reader, asked->reply, frame_len);
	}
}

static void welcome(struct coord_bytes bytes, const struct zk_asked *asked)
{
	size_t need;
	if (zk_welcome_wrong(bytes, asked, &need))
		must(need == 0);
	else if (need)
		must(need > bytes.len && need <= 41);
	else
		must(bytes.len >= 40 && zk_is_welcome(bytes));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (len < 2)
		return 0;
	struct zk_asked asked = {.any = data[0] & 1,
		.auth = data[0] & 2,
		.reply = (enum zk_reply)(data[1] % (ZK_REPLY_DELETE_BOTH + 1)),
		.session = data[0] & 4};
	struct coord_bytes bytes = {(const char *)data + 2, len - 2};
	size_t need;
	welcome(bytes, &asked);
	if (zk_frame_wrong(bytes, &asked, &need)) {
		must(need == 0);
		return 0;
	}
	if (need) {
		must(need > bytes.len && need <= ZK_FRAME_WHOLE);
		return 0;
	}
	struct reader reader = {data + 2, len - 2, true};
	int32_t frame_len = read_int(&reader);
	must(frame_len >= 16 && frame_len <= ZK_FRAME_MAX);
	reader.all = (size_t)frame_len <= ZK_FRAME_WHOLE - sizeof(frame_len);
	must(!reader.all || (size_t)frame_len <= reader.left);
	if (reader.all)
		reader.left = (size_t)frame_len;
	read_frame(&reader, &asked, (size_t)frame_len);
	return 0;
}
