/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the core's files share. Nobody outside coord/ includes this.
 *
 *   coord.c    the coordinator: start, stop, facts, counters
 *   session.c  open, renew, suspended, lost, open again; grants and their leases
 *   ops.c      ops: memory, order, backpressure, retry; requests with deadlines
 *   locks.c    the lock table: holdings, tickets, the pump
 *   members.c  what this mount joined
 *   views.c    who holds a lock, by name; whether there is a group; watches
 *   follow.c   groups as they are and as they change, for who follows them
 */
#ifndef COORD_CORE_H
#define COORD_CORE_H

#include "coord/coord.h"
#include "coord/table.h"

/* ---- ops ---- */

struct coord_chunk;

enum core_op_state { CORE_OP_NEW, CORE_OP_QUEUED, CORE_OP_RUNNING, CORE_OP_DONE };

struct coord_op_core {
	struct coord_op op;
	struct coord *coord;
	struct coord_list link; /* in coord->queued or ->running */
	struct coord_task task; /* delivers done */
	void (*fn)(struct coord_op *, void *user); /* once, on the loop; frees the op in the end */
	void *user;
	enum core_op_state state;
	uint64_t started_us; /* BOOTTIME when the driver got it */
	bool unknown; /* an earlier attempt may have had its effect */
	bool cancelled, counted;
	bool unasked; /* nobody but the core has answered it */
	bool full; /* the arena would have grown over its limit */
	struct coord_chunk *chunks; /* arena beyond the inline part */
	size_t inline_used, arena_used;
	_Alignas(8) char inline_arena[256];
	_Alignas(8) char data[]; /* the driver's op_size bytes */
};

/* A new op with copies of key, member and data. NULL: out of memory. */
struct coord_op *core_op_new(struct coord *, enum coord_call, struct coord_key,
	struct coord_bytes member, struct coord_bytes data);
/* Hands the op to the driver, now or when there is room and a connection. fn gets the answer and must
 * call core_op_free or core_op_start again. */
void core_op_start(struct coord_op *, void (*fn)(struct coord_op *, void *user), void *user);
/* Nobody wants the answer any more: it is freed when it comes. Asks the driver to hurry. */
void core_op_abandon(struct coord_op *);
/* Asks the driver to end it early; the answer still comes. */
void core_op_cancel(struct coord_op *);
void core_op_free(struct coord_op *);
/* Starts queued ops if there is a connection and room. */
void core_ops_run(struct coord *);
/* Answers all ops that are queued, with status. */
void core_ops_flush(struct coord *, int status);
/* True for an answer that says nothing about the request itself: try again later. */
bool core_transient(int status);
/* No server is behind it that is silent for all or for none: of one request's silence the next locks and look-ups need
 * not suffer. */
bool core_answers_apart(const struct coord *);
void core_ops_timer(struct coord_timer *);

/* ---- requests ---- */

struct coord_req {
	struct coord *coord;
	struct coord_list link; /* coord->reqs */
	coord_reply_fn *fn;
	coord_look_fn *look_fn; /* views: instead of fn */
	void *user;
	struct coord_timer deadline;
	struct coord_op *op; /* the op that serves it, if it has one */
	struct coord_list member_link, view_link;
	void (*gone)(struct coord_req *); /* detaches it from whoever else points to it */
	void *at; /* what gone needs */
	struct coord_row *pages, **pages_end; /* lists: earlier pages live in their ops */
	size_t pages_len;
	struct coord_list page_ops;
	struct coord_task task; /* answers without an op */
	int status;
};

struct coord_req *core_req_new(struct coord *, coord_reply_fn *fn, void *user);
/* Answers and frees. */
void core_req_answer(struct coord_req *, int status, const struct coord_row *rows, size_t len);
/* Answers later from the loop. */
void core_req_answer_later(struct coord_req *, int status);
/* Lets an op serve the request: its answer is the request's. */
void core_req_start(struct coord_req *, struct coord_op *);

/* Nobody answers, and has not for as long as the request may wait: it is answered later from the loop with
 * that, and true is returned. */
bool core_req_refused(struct coord_req *);
void core_answered(struct coord *);
/* A request that one call of the driver serves. */
int core_request(struct coord *, enum coord_call, struct coord_key, struct coord_bytes member,
	unsigned flags, coord_reply_fn *fn, void *user, struct coord_req **ret_req);
void core_ops_done(struct coord *);

/* ---- grants and session ---- */

/* Giving a grant back, until the backend has confirmed it. Part of the grant: it must not lack memory. */
struct core_release {
	struct coord_list link; /* in the lock's releases */
	struct coord_list waits; /* who wants to know */
	uint64_t stamp; /* core_views_stamp */
	bool was_held; /* until now, as far as we know: else the lock may well be another's */
	bool sent; /* or it will be, see core_grant_release_lost; false: there was no memory for the op */
};

struct core_grant {
	struct coord_grant grant;
	struct coord *coord;
	struct coord_list link; /* coord->grants, in order of making */
	struct coord_timer until;
	uint32_t ops; /* that name it; it is freed after the last */
	bool dead;
	bool held; /* the backend granted it; renewals and losses concern it */
	bool exclusive_for_good; /* a downgrade failed: it serves the sharers here only */
	struct core_release release;
	bool late; /* its lease was over before it was renewed */
	bool gone; /* the driver said that it is, perhaps before the answer that granted it */
	void *owner; /* the core_lock or the membership */
	_Alignas(8) char data[];
};

struct core_grant *core_grant_new(
	struct coord *, struct coord_key, struct coord_bytes member, enum coord_mode, void *owner);
static inline struct core_grant *core_grant_of(struct coord_grant *grant)
{
	return coord_container(grant, struct core_grant, grant);
}
/* The op that acquired it succeeded: counts its lease from op->sent_ms. -ESTALE: it is gone already, with
 * its lease, its epoch, or by a notice that came before the answer. */
int core_grant_held(struct core_grant *, const struct coord_op *);
/* It was held, and is so no longer: tells its owner. */
void core_grant_lost(struct core_grant *);
/* Is it past its time, by the clock read afresh? */
bool core_grant_over(struct core_grant *);
/* Frees it, after the last op that names it. */
void core_grant_free(struct core_grant *);

void core_session_open(struct coord *);
void core_session_close(struct coord *);
/* During a stop: is there time yet to wait for a backend that is away, and something of ours on it? Then
 * core_stop_check is called again. */
bool core_session_awaits(struct coord *);

/* ---- locks ---- */
void core_locks_done(struct coord *);
void core_locks_grant_lost(struct core_grant *);
void core_locks_changed(struct coord *, struct coord_key);
void core_locks_contended(struct core_grant *);
/* The session is back (a new epoch or a connection): go on. */
void core_locks_resume(struct coord *);
/* What is lost between these two is lost for one reason; the log names no more than some of it. */
void core_losses_begin(struct coord *, int level, const char *why);
void core_losses_end(struct coord *);
/* Stop: everybody loses, and is told; those who are waited for are counted in coord->awaited. */
void core_locks_stop(struct coord *);
/* Stop: everything is released. */
void core_locks_release(struct coord *);
/* Grants that the backend has not been told the end of. */
uint32_t core_locks_unreleased(struct coord *);
bool core_locks_idle(const struct coord *); /* no release and no acquire is under way */
/* Our own holding of a name, if any: for views. */
bool core_locks_info(
	struct coord *, enum coord_kind, struct coord_bytes name, struct coord_lock_info *ret);
/* Waiters of a name that is held elsewhere. */
uint32_t core_locks_waiters(struct coord *, enum coord_kind, struct coord_bytes name);
/* The backend's canonical key; ret of 256 bytes. Returns 0 or -errno. */
int core_map_name(
	struct coord *, enum coord_kind, struct coord_bytes name, char *ret, size_t *ret_len);

/* ---- members ---- */
void core_members_grant_lost(struct core_grant *);
void core_members_epoch(struct coord *); /* join again */
void core_members_stop(struct coord *);
bool core_members_idle(const struct coord *);
void core_members_done(struct coord *);

/* ---- watches and views ---- */
/* Counts users of a watch; the op that arms it is the caller's. */
int core_watch_ref(struct coord *, struct coord_key);
void core_watch_unref(struct coord *, struct coord_key);
void core_views_changed(struct coord *, struct coord_key);
/* We are about to change it, or have: what is shown must be read again. */
void core_views_touch(struct coord *, enum coord_kind, struct coord_bytes name);
/* A release of ours begins (returns a stamp) and is confirmed: where a watch is live and silent since,
 * the name is known to be free without a read. */
uint64_t core_views_stamp(struct coord *, enum coord_kind, struct coord_bytes name);
void core_views_freed(struct coord *, enum coord_kind, struct coord_bytes name, uint64_t stamp);
void core_views_epoch(struct coord *);
void core_views_done(struct coord *);

/* ---- followed groups ---- */
/* Something of the group, or of its leader, may have changed. */
void core_follows_touch(struct coord *, struct coord_bytes group);
/* The coordinator's state is another. */
void core_follows_state(struct coord *);
void core_follows_done(struct coord *);

/* ---- the coordinator; also the drivers' struct coord_session ---- */

enum { CORE_QUEUES = 4 }; /* renew and close, unlock, lock, reads and the rest */

struct coord_session {
	void *data;
	uint8_t uuid[16];
	char id[128];
	unsigned can;
	uint32_t epoch;
	bool open; /* the driver's open succeeded and no close was begun */
	bool connected; /* as the driver says */
	bool there; /* the backend may have something of it, or of one before it */
	uint64_t down_ms; /* since when it is not */
	char told
		[256]; /* why it could not be opened again, as the log was told last; "": it was not */
	uint64_t told_ms;
	unsigned untold; /* attempts since then */
	bool refused; /* not connected because we are not let in any more */
	bool closing;
	uint64_t ttl_ms, until_ms; /* of the session where anything is leased; 0: no lease */
	struct coord_op *session_op; /* open, close or renew that runs */
	bool renewing;
	struct coord_timer open_timer, renew_timer, until_timer, reopen_timer, stop_timer;
	struct coord_timer farewell_timer;
	uint64_t holder_told_ms; /* when a holder was last told that his lease is over */
	uint64_t claim_until_ms;
	uint32_t backoff_ms;
};

/* While much is lost at once: why, and how many locks so far. */
struct core_losses {
	const char *why; /* NULL: not so */
	int level; /* for the log */
	uint32_t len;
};

struct coord {
	struct coord_session session; /* first: the drivers' pointer is ours */
	struct coord_loop *loop;
	struct coord_config *config;
	const struct coord_driver *driver;
	struct coord_notices notices;
	void *user;
	enum coord_state state;
	bool ready, stopping, stopped;
	bool driver_gone; /* session_free was called */
	/* Nothing was answered since a request had its whole time, or a short one its second. */
	bool stalled, slow;
	uint64_t probe_ms; /* when one more may ask */
	pthread_t thread; /* the loop's */
	/* ops */
	struct coord_list delayed; /* to be tried again after a pause */
	struct coord_list queued[CORE_QUEUES], running;
	uint32_t running_len, waits_len;
	struct coord_op_core *spare; /* freed ops for reuse, linked by user */
	uint32_t spare_len;
	struct coord_timer ops_timer;
	struct coord_list reqs;
	struct core_losses losses;
	/* grants, locks, members, views */
	struct coord_list grants;
	uint64_t owner_next;
	struct coord_table locks, members, watches, views, follows;
	struct coord_list followed; /* all there are, also those that have ended */
	struct coord_list views_kept;
	uint32_t views_kept_len;
	uint32_t locks_busy, members_busy, members_len;
	uint32_t awaited; /* holdings whose holders were told, and may need their grace */
	uint32_t left_behind; /* by the stop: grants that stay on the backend */
	bool holding_back; /* the stop waits for them */
	uint64_t stop_by_ms; /* a stop ends then, whatever the backend does */
	uint64_t away_by_ms; /* so long it waits for one that is away */
	struct coord_task stop_task, fail_task;
	int fail_status;
	char fail_text[200];
	struct coord_counters counters;
};

void core_set_state(struct coord *, enum coord_state);
void core_count_latency(struct coord *, enum coord_call, uint64_t us);
/* Something that a stop waits for may have ended. */
void core_stop_check(struct coord *);
/* The connection is down: during a stop, it is waited for from now on. */
void core_stop_away(struct coord *);
/* During a stop: the backend has let go of everything. */
void core_stop_ended(struct coord *);
int core_away(const struct coord *); /* what calls end with that nobody answered */
bool core_leased(const struct coord *); /* any kind is a lease */
uint64_t core_margin_ms(uint64_t ttl_ms);
uint64_t core_grace_ms(uint64_t ttl_ms);
/* For how long a stop waits for those that it told. */
uint64_t core_hold_ms(const struct coord *);

#endif
