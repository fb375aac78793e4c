/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looks at frames in the socket. See screen.h.
 *
 * A frame is admitted when all of it is there and makes sense, or the beginning of one that is too long for that;
 * then the library reads it, in one go or in several, and the next bytes are the beginning of the next frame. Until as
 * much is there the socket does not count as readable, but an end of the stream wakes us whatever it lacks.
 */
#include "drivers/zookeeper/screen.h"

#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>

#include "drivers/zookeeper/request.h"

enum { SHORT = 1024 }; /* most frames are */

void zk_screen_wake(struct zk_conn *conn, int bytes)
{
	if (conn->low_water == bytes)
		return;
	conn->low_water = bytes;
	(void)setsockopt(conn->fd, SOL_SOCKET, SO_RCVLOWAT, &bytes, sizeof(bytes));
}

/* Nothing more will come. */
static bool has_ended(const struct zk_conn *conn)
{
	struct pollfd fd = {.fd = conn->fd, .events = POLLRDHUP};
	return poll(&fd, 1, 0) > 0;
}

/* The library answers in order, so the oldest request is the one that it thinks of. */
static struct zk_asked what_was_asked(const struct zk_conn *conn)
{
	struct zk_asked asked = {.auth = conn->auth, .session = zoo_client_id(conn->zh)->client_id};
	if (!coord_list_empty(&conn->reqs)) {
		const struct zk_req *oldest = coord_container(conn->reqs.next, struct zk_req, link);
		asked.any = true;
		asked.reply = oldest->reply;
	}
	return asked;
}

static void refuse(struct zk_conn *conn, const char *what)
{
	char text[128];
	snprintf(text, sizeof(text), "says what makes no sense (%s)", what);
	zk_conn_refuse(conn, text);
}

/* Something else than a ZooKeeper server is shown with its first words. */
static void refuse_stranger(struct zk_conn *conn, struct coord_bytes bytes)
{
	char text[96], said[33];
	size_t len = bytes.len < sizeof(said) - 1 ? bytes.len : sizeof(said) - 1;
	for (size_t i = 0; i < len; i++)
		said[i] = bytes.data[i] >= 0x20 && bytes.data[i] < 0x7f ? bytes.data[i] : '.';
	said[len] = '\0';
	snprintf(text, sizeof(text), "not a ZooKeeper server (it says '%s')", said);
	zk_conn_refuse(conn, text);
}

/* What makes no sense ends the connection. False: more bytes are needed, *ret_need in all. */
static bool judge(struct zk_conn *conn, struct coord_bytes bytes, size_t *ret_need)
{
	struct zk_asked asked = what_was_asked(conn);
	bool is_first = zoo_state(conn->zh) == ZOO_ASSOCIATING_STATE;
	const char *wrong = is_first ? zk_welcome_wrong(bytes, &asked, ret_need)
				     : zk_frame_wrong(bytes, &asked, ret_need);
	if (wrong && is_first && !zk_is_welcome(bytes))
		refuse_stranger(conn, bytes);
	else if (wrong)
		refuse(conn, wrong);
	else
		conn->admitted = *ret_need == 0;
	return *ret_need == 0;
}

bool zk_screen(struct zk_conn *conn)
{
	char buffer[ZK_FRAME_WHOLE];
	size_t most = SHORT, need = 0;
	int state = zoo_state(conn->zh);
	/* It reads nothing while it connects, and without a socket says so. */
	if (state != ZOO_ASSOCIATING_STATE && state != ZOO_CONNECTED_STATE)
		return state != ZOO_CONNECTING_STATE;
	if (state == ZOO_CONNECTED_STATE && conn->admitted)
		return true;
	for (bool ended = false;;) {
		ssize_t n = recv(conn->fd, buffer, most, MSG_PEEK | MSG_DONTWAIT);
		if (n <= 0)
			return n == 0 || errno != EAGAIN;
		if (judge(conn, (struct coord_bytes){buffer, (size_t)n}, &need))
			break;
		if (need > most) {
			most = sizeof(buffer);
		} else if (ended) {
			zk_conn_refuse(conn, "ends in the middle of an answer");
			break;
		} else if (!(ended = has_ended(conn))) {
			zk_screen_wake(conn, (int)need);
			return false;
		}
	}
	zk_screen_wake(conn, 1);
	return true;
}
