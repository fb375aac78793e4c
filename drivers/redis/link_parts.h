/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the link share: link.c has its life and its commands, link_open.c what is said to a
 * server before it is used.
 */
#ifndef REDIS_LINK_PARTS_H
#define REDIS_LINK_PARTS_H

#include "drivers/redis/conn.h"
#include "drivers/redis/sentinel.h"

/* The connections A, C and B. The first two are numbered as the public lanes. */
enum redis_lane_id { LANE_TRACKED = REDIS_TRACKED, LANE_PLAIN = REDIS_PLAIN, LANE_NOTICES, LANES };

enum redis_link_state { LINK_CLOSED, LINK_OPENING, LINK_UP, LINK_DOWN };

enum { LANE_STEPS_MAX = 4, RUN_ID_MAX = 64 };

/* One connection, and what is asked on it while it is being opened. */
struct redis_lane_state {
	struct redis_link *link;
	enum redis_lane_id id;
	struct redis_conn *conn;
	struct redis_cmd steps[LANE_STEPS_MAX];
	size_t steps_len, steps_left; /* sent, and not answered yet */
	void (*ready)(struct redis_link *); /* when all are answered */
	struct redis_cmd ping;
};

struct redis_link {
	struct coord_loop *loop;
	const struct redis_options *options;
	const struct redis_link_hooks *hooks;
	void *user;
	uint64_t requests;
	enum redis_link_state state;
	struct stream_tls *tls, *sentinel_tls;
	struct redis_sentinel *sentinel; /* NULL: none are used */
	bool sentinel_stale; /* what the last one said was no good */
	char host[256]; /* of the server of this attempt */
	uint16_t port;
	struct redis_lane_state lanes[LANES];
	unsigned lanes_left; /* B and C, while they are opened */
	const struct redis_script *scripts;
	size_t scripts_len;
	struct redis_cmd *loads; /* one for each script */
	size_t loads_left;
	bool unloaded; /* the server did not take one of them */
	struct coord_list failed; /* commands to be answered by the task */
	struct coord_task task;
	struct coord_timer timer; /* down: try again; up: signs of life */
	unsigned attempts; /* failed ones in a row */
	uint64_t up_ms; /* since when */
	bool settled; /* it was up since it was opened */
	bool report; /* a `down` is owed */
	int status;
	char text[REDIS_TEXT_MAX];
	char logged[REDIS_TEXT_MAX]; /* the last text in the log */
	/* What the server said. */
	unsigned version;
	long long notices_id; /* B's, 0: no tracking */
	bool tracks, warned_tracking, warned_eviction;
	char run_id[RUN_ID_MAX], peer[REDIS_LABEL_MAX];
};

/* link.c */

/* The link is no good: closes everything, and later answers, reports, and tries again. text is for a human. */
void redis_link_break(struct redis_link *, int status, const char *text);
/* The same with a text of one's own behind the lane's server. */
void redis_link_refuse(struct redis_link *, int status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* link_open.c says that all is well. */
void redis_link_opened(struct redis_link *);

/* link_open.c */

/* Opens the connections to host and port, or to the path of the options, and asks who is there. Ends with
 * redis_link_opened() or redis_link_break(). */
void redis_link_connect(struct redis_link *);

#endif
