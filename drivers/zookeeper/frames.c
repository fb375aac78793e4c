/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a server may say. See frames.h. The format is jute's: numbers in network order, strings and lists behind
 * their length. Bytes behind what is known are left to later versions of it, as all clients do.
 */
#include "drivers/zookeeper/frames.h"

enum { LENGTH = 4, HEADER = 16, STAT = 68, STRING_MIN = 4 };
enum { XID_NOTICE = -1, XID_PING = -2, XID_AUTH = -4, XID_WATCHES = -8 };
enum { OP_CREATE = 1, OP_DELETE = 2, OP_CHECK = 13, OP_ERROR = -1 };
enum { WELCOME_OLD = 36, WELCOME = 37, PASSWORD = 16, TIMEOUT_MAX_MS = 1 << 29 };

/* What is left of a frame, of which only the first here bytes are at hand where it is a long one. */
struct rest {
	const unsigned char *at;
	size_t here, left;
};

static bool skip(struct rest *rest, size_t len)
{
	if (len > rest->left)
		return false;
	size_t here = len < rest->here ? len : rest->here;
	rest->at += here;
	rest->here -= here;
	rest->left -= len;
	return true;
}

static uint32_t word(const unsigned char *at)
{
	return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static bool number(struct rest *rest, int32_t *ret)
{
	if (rest->here < sizeof(*ret))
		return false;
	*ret = (int32_t)word(rest->at);
	return skip(rest, sizeof(*ret));
}

static bool string(struct rest *rest)
{
	int32_t len;
	return number(rest, &len) && len >= 0 && skip(rest, (size_t)len);
}

static bool path(struct rest *rest)
{
	int32_t len;
	return number(rest, &len) && len > 0 && (size_t)len <= rest->here && rest->at[0] == '/' &&
	       !memchr(rest->at, '\0', (size_t)len) && skip(rest, (size_t)len);
}

static const char *data_wrong(struct rest *rest)
{
	int32_t len;
	if (!number(rest, &len) || len < -1 || (len > 0 && !skip(rest, (size_t)len)))
		return "data longer than the answer";
	return skip(rest, STAT) ? NULL : "an answer that is too short";
}

/* Of a long list, what is at hand. The library stops at the first string that is none. */
static const char *children_wrong(struct rest *rest)
{
	int32_t count;
	if (!number(rest, &count) || count < 0 || (size_t)count > rest->left / STRING_MIN)
		return "a list longer than the answer";
	while (count-- > 0 && (rest->here == rest->left || rest->here >= STRING_MIN))
		if (!string(rest))
			return "a list with a name that is none";
	return NULL;
}

/* The results of a transaction in order, and the header of none behind them. */
static const char *multi_wrong(struct rest *rest, const int *ops, size_t count)
{
	static const char wrong[] = "an answer to a transaction that is none";
	int32_t type, err;
	for (size_t i = 0; i <= count; i++) {
		if (!number(rest, &type) || rest->here < 1)
			return wrong;
		bool is_end = *rest->at != 0;
		if (is_end != (i == count) || !skip(rest, 1) || !number(rest, &err))
			return wrong;
		if (is_end)
			return NULL;
		bool good = type == OP_ERROR ? number(rest, &err)
					     : type == ops[i] && err == 0 &&
						       (type != OP_CREATE || path(rest));
		if (!good)
			return wrong;
	}
	return wrong;
}

static const char *reply_wrong(struct rest *rest, enum zk_reply reply)
{
	static const char wrong[] = "an answer to something else";
	static const int check[] = {OP_CHECK}, replace[] = {OP_DELETE, OP_CREATE},
			 both[] = {OP_DELETE, OP_DELETE};
	switch (reply) {
	case ZK_REPLY_NOTHING:
		return NULL;
	case ZK_REPLY_STAT:
		return skip(rest, STAT) ? NULL : wrong;
	case ZK_REPLY_DATA:
		return data_wrong(rest);
	case ZK_REPLY_CHILDREN:
		return children_wrong(rest);
	case ZK_REPLY_PATH:
		return path(rest) ? NULL : wrong;
	case ZK_REPLY_CREATED:
		return path(rest) && skip(rest, STAT) ? NULL : wrong;
	case ZK_REPLY_CHECK:
		return multi_wrong(rest, check, 1);
	case ZK_REPLY_REPLACE:
		return multi_wrong(rest, replace, 2);
	case ZK_REPLY_DELETE_BOTH:
		return multi_wrong(rest, both, 2);
	}
	return wrong;
}

/* The library hands one of type 0 or less to whoever listens to the session. */
static const char *notice_wrong(struct rest *rest)
{
	int32_t type, state;
	return number(rest, &type) && type > 0 && number(rest, &state) && path(rest)
		       ? NULL
		       : "a notice of nothing";
}

/* Xids of requests begin with the time, and may well have become negative. */
static const char *body_wrong(struct rest *rest, const struct zk_asked *asked)
{
	int32_t xid, err;
	bool is_long = rest->here < rest->left;
	number(rest, &xid);
	skip(rest, sizeof(int64_t));
	number(rest, &err);
	if (xid == XID_AUTH && !asked->auth)
		return "an answer to a password that it was not given";
	bool is_reply =
		xid != XID_NOTICE && xid != XID_PING && xid != XID_AUTH && xid != XID_WATCHES;
	if (is_reply && !asked->any)
		return "an answer to nothing";
	bool may_be_long = is_reply && err == 0 &&
			   (asked->reply == ZK_REPLY_DATA || asked->reply == ZK_REPLY_CHILDREN);
	if (is_long && !may_be_long)
		return "more than there is to say";
	if (xid == XID_NOTICE)
		return notice_wrong(rest);
	return is_reply && err == 0 ? reply_wrong(rest, asked->reply) : NULL;
}

const char *zk_frame_wrong(struct coord_bytes bytes, const struct zk_asked *asked, size_t *ret_need)
{
	struct rest rest = {(const unsigned char *)bytes.data, bytes.len, bytes.len};
	int32_t len;
	*ret_need = LENGTH;
	if (!number(&rest, &len))
		return NULL;
	*ret_need = 0;
	if (len < HEADER)
		return "a length that is too short";
	if (len > ZK_FRAME_MAX)
		return "a length that is too long";
	size_t need = LENGTH + (size_t)len < ZK_FRAME_WHOLE ? LENGTH + (size_t)len : ZK_FRAME_WHOLE;
	if (bytes.len < need) {
		*ret_need = need;
		return NULL;
	}
	rest.left = (size_t)len;
	rest.here = need - LENGTH;
	return body_wrong(&rest, asked);
}

bool zk_is_welcome(struct coord_bytes bytes)
{
	uint32_t len = bytes.len < LENGTH ? 0 : word((const unsigned char *)bytes.data);
	return len == WELCOME_OLD || len == WELCOME;
}

/* A session that is over has neither an id nor time. Another one is never given to who names his own. */
const char *zk_welcome_wrong(
	struct coord_bytes bytes, const struct zk_asked *asked, size_t *ret_need)
{
	struct rest rest = {(const unsigned char *)bytes.data, bytes.len, bytes.len};
	int32_t len, version, timeout_ms, high, low, password;
	*ret_need = LENGTH;
	if (!number(&rest, &len))
		return NULL;
	*ret_need = 0;
	if (!zk_is_welcome(bytes))
		return "a welcome of another length";
	if (rest.here < (size_t)len) {
		*ret_need = LENGTH + (size_t)len;
		return NULL;
	}
	number(&rest, &version);
	number(&rest, &timeout_ms);
	number(&rest, &high);
	number(&rest, &low);
	number(&rest, &password);
	int64_t session = (int64_t)((uint64_t)(uint32_t)high << 32 | (uint32_t)low);
	if (timeout_ms < 0 || timeout_ms > TIMEOUT_MAX_MS || (timeout_ms == 0) != (session == 0) ||
		(!session && !asked->session))
		return "a session without time";
	if (password != PASSWORD)
		return "a password of another length";
	if (session && asked->session && session != asked->session)
		return "another one's session";
	skip(&rest, PASSWORD);
	return len == WELCOME && *rest.at != 0 ? "that it only reads" : NULL;
}
