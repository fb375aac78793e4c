/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One run of the simulator, as its files share it.
 *
 *   sim.c     the command line; a run from its seed to its end
 *   model.c   which backend is simulated, and what goes wrong on the way to it
 *   users.c   what users do: locks, members, followers
 *   mounts.c  mounts that are unmounted, killed, and opened again
 *   check.c   what must hold at every step
 */
#ifndef TESTS_SIM_RUN_H
#define TESTS_SIM_RUN_H

#include "coord/follow.h"
#include "coord/table.h"
#include "tests/lib/site.h"

enum {
	LOCKS = 3,
	GROUPS = 2,
	NAMES = LOCKS + GROUPS,
	TAKERS = 24,
	REQS = 32,
	GRAVES = 64,
	DEADLINE_MS = 10000
};

enum {
	ASK_CREATE,
	ASK_DELETE,
	ASK_READ,
	ASK_LOCKS,
	ASK_LEAVE,
	ASK_FORGO,
	ASK_PUT,
	ASK_REPLACE,
	ASK_KINDS
};

/* A request about a member, that must be answered by its deadline. */
struct ask {
	bool busy;
	struct client *client;
	size_t host, group, member;
	uint64_t kind; /* see member_act */
	uint64_t due_ms; /* on the host's clock */
};

/* Who follows a group on a host. */
struct watcher {
	struct coord_follower follower;
	size_t host, group;
	bool settled, suspended;
	bool known[SITE_CLIENTS]; /* members, by number */
};

enum mount_state { MOUNT_DOWN, MOUNT_OPENING, MOUNT_UP, MOUNT_STOPPING };

/* A host and its mount. Times are the host's own, but for those that say when something is to be done. */
struct host {
	enum mount_state mount;
	uint64_t open_at_ms; /* DOWN */
	bool apart; /* this life of the mount cannot tell whether an earlier one is dead, nor the next of this one */
	bool elsewhere; /* the claim may be that of such a life */
	bool disturbed; /* something forbids that what began (OPENING, STOPPING) ends well */
	bool faulty; /* a request may fail, because faults are on */
	bool patient; /* whose claim it takes over cannot be known to be dead */
	uint64_t began_ms, breaks;
	uint64_t pause_until_ms, ran_ms; /* ran: when it went on, or its clock jumped */
	uint64_t excused_ms; /* till then its clock has misled it */
};

/* The lease of a lock was over by the mount's own clock, and its holder was told at that moment. */
struct grace {
	bool runs;
	uint8_t owner[16];
	uint64_t until_ms; /* on the host's clock */
};

/* A daemon that ended; what it left must go in time. */
struct grave {
	bool used;
	size_t host;
	uint8_t uuid[16];
	uint64_t due_ms;
};

enum like { LIKE_DRAWN, LIKE_ANY, LIKE_REDIS, LIKE_ZOOKEEPER, LIKES };

struct run {
	struct site site;
	struct fake_options options;
	struct fake_observer observer;
	enum like like;
	uint64_t seed;
	uint64_t delay_ms; /* the most that a message takes */
	bool breaks; /* locks are broken by rm */
	bool breaking; /* right now, by a mount that has it */
	struct host hosts[SITE_CLIENTS];
	struct taker takers[TAKERS];
	size_t takers_len, host_of[TAKERS], name_of[TAKERS];
	enum coord_mode asked[TAKERS];
	bool waits[TAKERS], excused[TAKERS];
	uint64_t asked_ms[TAKERS]; /* on the host's clock */
	uint64_t exclusive_token[NAMES], any_token[NAMES];
	uint64_t orphan_ms[TAKERS]; /* holds though the server does not know it, since */
	struct grace graces[SITE_CLIENTS][NAMES];
	struct grave graves[GRAVES];
	struct ask asks[REQS];
	uint64_t joined[SITE_CLIENTS][GROUPS]
		       [SITE_CLIENTS]; /* 1 + deleted groups, see note_members */
	bool forgone[SITE_CLIENTS][GROUPS][SITE_CLIENTS]; /* left for good */
	bool doubtful[GROUPS][SITE_CLIENTS]; /* a change may come yet of which nothing is known */
	uint64_t server_until_ms;
	struct watcher watchers[SITE_CLIENTS][GROUPS];
	uint64_t healed_ms; /* no more faults since; 0: not yet */
	uint64_t
		turn_ms[NAMES]; /* healed: it is free for somebody who waits, since; 0: it is not */
	bool recovered; /* healed: seen that all are connected, and the members back */
};

extern struct run run;
extern struct sim *const sim;
extern bool verbose;
extern const char *const names[NAMES]; /* of locks, then of groups, whose leadership is taken */
extern const char *const *const group_names;
extern const char *const like_names[LIKES];

struct totals {
	uint64_t grants, losses, requests, steps, seeds, unmounts, kills, graces;
};
extern struct totals totals;

void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
#define SAY(...) (verbose ? say(__VA_ARGS__) : (void)0)
#define FAIL(...) fail(__VA_ARGS__)

static inline struct coord_key key_named(size_t name)
{
	enum coord_kind kind = name < LOCKS ? COORD_LOCK : COORD_LEADER;
	return (struct coord_key){kind, coord_bytes_of(names[name])};
}

/* What the host's own clock shows. */
static inline uint64_t host_now(size_t host)
{
	return coord_now_ms(&run.site.hosts[host].loop);
}

static inline struct coord *coord_at(size_t host)
{
	return run.site.clients[host].coord;
}

/* ---- sim.c ---- */
/* Lets some time pass, step by step. */
void pass(uint64_t ms);

/* ---- model.c ---- */
void draw_options(enum like);
struct fake_faults draw_faults(void);
void draw_clocks(void);
void trouble(void);
/* Ends the pauses that are over, or all, when all is well. */
void wake_up(void);
uint64_t next_wake_ms(uint64_t limit_ms);

/* ---- users.c ---- */
void taker_make(size_t i);
void taker_end(size_t i);
void taker_act(size_t i);
void member_act(size_t host);
void follow_act(size_t host);
void lock_break_act(size_t host);
void watcher_told(struct coord_follower *, enum coord_change, struct coord_bytes name, int status);

/* ---- mounts.c ---- */
void mounts_open(void); /* all, at the beginning */
void mount_start(size_t host);
void mount_stop(size_t host);
void mount_kill(size_t host);
/* What has become of those that are opening, stopping or down. */
void mounts_watch(void);
/* Something was done to the host, or to the server (SIZE_MAX), that may keep a mount from its work. */
void disturb(size_t host);

/* ---- check.c ---- */
bool holds(size_t taker, enum coord_mode);
bool host_aware(size_t host);
void check_step(void);
void check_recovery(void);
void check_members(void);
void check_watchers(void);
void taker_answered(struct taker *);
void taker_lost(struct taker *);
void check_told(void *user, int status, const struct coord_row *rows, size_t rows_len);
/* A put was answered: whose is the member now? */
void check_put(const struct ask *);
void bury(size_t host, bool clean);
/* The server stood still, and goes on now. */
void graves_wait(void);
extern const struct fake_observer check_observer;

#endif
