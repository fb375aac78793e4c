/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A test's use of coordinators: worlds (the real loop or a simulation) in which one waits for
 * something, clients (a coordinator with its notices counted), answers of requests, takers of locks.
 */
#ifndef TESTS_CLIENT_H
#define TESTS_CLIENT_H

#include "coord/coord.h"
#include "tests/lib/simloop.h"

/* Where time passes. sim NULL: the real loop. */
struct world {
	struct sim *sim;
	struct coord_loop *loop; /* real; in simulation each client has its own */
};

/* Lets time pass until cond holds, for ms at most. Returns cond's last word. */
bool world_until(struct world *, bool (*cond)(void *user), void *user, uint64_t ms);
void world_run(struct world *, uint64_t ms);
/* As world_until, until *flag is true. */
bool world_flag(struct world *, const bool *flag, uint64_t ms);

enum { CLIENT_STATES = 32 };

struct client {
	struct world *world;
	struct coord *coord;
	bool ready, stopped; /* what was told */
	int status; /* of ready */
	char text[400];
	unsigned readies, stops, losses;
	enum coord_state states[CLIENT_STATES]; /* in order, as far as there is room */
	size_t states_len;
};

/* Makes and starts; takes config over in any case. Returns coord_new's answer. */
int client_start(struct client *, struct world *, struct coord_loop *, struct coord_config *config);
/* Makes, starts, and waits until it is open: 0, or why not (the client is then closed). */
int client_open(struct client *, struct world *, struct coord_loop *, struct coord_config *config);
/* Stops, waits for that (true: it came in time), frees. */
bool client_close(struct client *);
/* Builds a configuration from a URL by a driver found by its scheme. options may be NULL, ends with a
 * NULL name. Returns 0 or -errno, after saying why on standard error. */
int client_config(const char *url, const struct coord_driver *driver, const char *member,
	const struct coord_option *options, struct coord_config **ret);

/* The answer of one request; rows are copies. Zeroed: none yet. */
struct answer {
	bool done;
	unsigned count; /* how often it was answered */
	int status;
	struct coord_row *rows; /* names and data are copies too */
	size_t len;
};
void answer_reply(void *user, int status, const struct coord_row *rows, size_t rows_len);
void answer_done(struct answer *);
/* The row of that name, or NULL. Names of leaders do not count unless leader. */
const struct coord_row *answer_find(const struct answer *, const char *name, bool leader);

/* Each makes a request and waits for its answer: its status, or -ETIME if none came within 30 s. ret may
 * be NULL. */
int client_group_create(struct client *, const char *group);
int client_group_delete(struct client *, const char *group);
int client_group_list(struct client *, struct answer *ret);
int client_group_read(struct client *, const char *group, bool with_data, struct answer *ret);
int client_member_get(struct client *, const char *group, const char *member, struct answer *ret);
int client_member_put(struct client *, const char *group, const char *member,
	struct coord_bytes data, bool exclusive);
int client_member_leave(struct client *, const char *group, const char *member);
int client_lock_list(struct client *, enum coord_kind, struct answer *ret);
int client_lock_break(struct client *, enum coord_kind, const char *name);
/* Who holds it; *ret_owner gets at most 255 bytes and a NUL. */
int client_group_look(struct client *, const char *group);
int client_lock_look(struct client *, enum coord_kind, const char *name,
	struct coord_lock_info *ret, char ret_owner[256]);

/* A holding and its one request. */
struct taker {
	struct client *client;
	struct coord_holding *holding;
	struct coord_wait wait;
	void (*told)(struct taker *); /* called at each answer, if set */
	void (*told_lost)(struct taker *); /* and at each loss */
	bool waiting, answered;
	int status;
	unsigned asked, answers, lost;
	uint64_t answered_ms, token;
};
int taker_new(struct client *, enum coord_kind, struct coord_bytes name, struct taker *ret);
/* Asks; the answer comes later. */
void taker_ask(struct taker *, enum coord_mode, unsigned flags);
/* Asks, and waits for the answer: its status, or -ETIME if none came within ms. */
int taker_lock(struct taker *, enum coord_mode, unsigned flags, uint64_t ms);
/* Waits for the answer of taker_ask. */
int taker_answer(struct taker *, uint64_t ms);
void taker_cancel(struct taker *, bool keep_place);
/* Releases, and waits for the confirmation. */
int taker_unlock(struct taker *);
int taker_check(struct taker *);
int taker_barrier(struct taker *);
void taker_free(struct taker *);
bool taker_holds(const struct taker *, enum coord_mode);

#endif
