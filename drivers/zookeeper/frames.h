/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a server may say: pure functions that look at its bytes before the client library does. The library
 * believes lengths and counts, asserts that something was asked, and hands out what it could not decode.
 */
#ifndef ZK_FRAMES_H
#define ZK_FRAMES_H

#include "coord/base.h"

enum {
	ZK_FRAME_WHOLE = 16384, /* up to here, with its length, all of a frame is looked at */
	ZK_FRAME_MAX =
		64
		<< 20, /* the longest list of children, and the library has memory for all of it */
};

/* What a request is answered with if it succeeds. */
enum zk_reply {
	ZK_REPLY_NOTHING,
	ZK_REPLY_STAT,
	ZK_REPLY_DATA,
	ZK_REPLY_CHILDREN,
	ZK_REPLY_PATH,
	ZK_REPLY_CREATED,
	/* Of transactions. */
	ZK_REPLY_CHECK,
	ZK_REPLY_REPLACE,
	ZK_REPLY_DELETE_BOTH,
};

/* What was said to the server. */
struct zk_asked {
	bool any; /* is a request outstanding? */
	enum zk_reply reply; /* of the oldest */
	bool auth; /* a user and a password */
	int64_t session; /* the one to go on with, 0: none */
};

/* The bytes from the beginning of a frame on, its length first. Returns NULL if the library may read it, else why
 * not, for a human. If more bytes are needed to tell, *ret_need is how many in all, and else 0. */
const char *zk_frame_wrong(struct coord_bytes, const struct zk_asked *, size_t *ret_need);
/* The same for the first one of a connection, the answer to the connection request. */
const char *zk_welcome_wrong(struct coord_bytes, const struct zk_asked *, size_t *ret_need);
/* Is it one at all, by its length? Needs four bytes. */
bool zk_is_welcome(struct coord_bytes);

#endif
