/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lock table: which holdings of this mount hold or want which name.
 *
 * For each name there is one core_lock with
 *   - at most one backend grant (exclusive, or shared by all local sharers),
 *   - at most one acquiring op, on behalf of the first live ticket,
 *   - the holders, and the tickets in the order of arrival,
 *   - releases that the backend has not confirmed yet.
 * Everything that happens ends in lock_pump(), the one loop that decides what is next. A ticket keeps
 * a place, never a lock: it is skipped while no request is live, and a backend grant that finds no live
 * ticket is released at once.
 *
 * For drivers without a queue of their own the pump tries, and when the answer is "busy" waits for a
 * notice, or for retry_ms, and tries again.
 */
#include "coord/core.h"

#include <assert.h>
#include <stdio.h>
#include <syslog.h>

enum {
	PLACE_MS = 5000,  /* how long a ticket outlives its interrupted request */
	SHORT_MS = 1000,  /* a try with COORD_LOCK_SHORT */
	YIELD_MS = 2,     /* the pause after a release for which another host waits */
	PAUSE_MS = 100,   /* after an error that may pass */
	POLL_MS = 100,    /* where the driver names no period */
};

struct core_lock {
	struct coord_node node; /* in coord->locks, by canonical key */
	struct coord *coord;
	struct coord_key key; /* as first named */
	struct coord_list holdings; /* all, for the lifetime */
	struct coord_list holders;  /* those that hold */
	struct coord_list tickets;
	struct coord_list releases; /* core_release */
	struct core_grant *grant;   /* held; NULL for free and for local locks */
	struct coord_op *acquiring; /* LOCK, or LOCK_CHECK that settles one */
	struct core_grant *pending; /* its grant */
	struct coord_op *converting;
	struct coord_ticket *upgrader; /* an atomic upgrade that waits, not in tickets */
	struct coord_timer timer;   /* when to try again */
	struct coord_task pump;
	bool local;     /* excludes on this mount only */
	bool watched, changed, contended, blocked; /* blocked: do not try before the timer or a notice */
	char name[];
};

struct coord_ticket {
	struct coord_list link;  /* in the lock's tickets */
	struct coord_list hlink; /* in the holding's tickets */
	struct coord_holding *holding;
	enum coord_mode mode;
	bool wait, atomic;
	struct coord_list waits; /* live requests; empty: only the place is kept */
	struct coord_timer timer; /* the deadline of a try, or the end of a kept place */
};

/* Somebody who wants to know when a release is confirmed. */
struct unlock_wait {
	struct coord_list link;
	struct coord_holding *holding;
	void (*fn)(void *user, int status);
	struct coord_req *req; /* a barrier instead of fn */
	void *user;
	struct coord_task task;
	bool used;
};

struct core_release {
	struct coord_list link;
	struct core_grant *grant;
	struct coord_list waits;
	uint64_t stamp;
};

struct coord_holding {
	struct coord *coord;
	struct core_lock *lock;
	struct coord_list link;  /* in lock->holdings */
	struct coord_list hlink; /* in lock->holders while held */
	struct coord_list tickets;
	void *user;
	enum coord_holding_state state;
	enum coord_mode mode;
	uint64_t token, since_us;
	uint32_t pid, uid;
	char *leader; /* LEADER: the id to lead under, if not our own */
	size_t leader_len;
	struct unlock_wait unlock; /* the usual one; more are allocated */
	bool zombie; /* freed by its owner while unlock is still to be answered */
};

static void lock_pump(struct core_lock *lock);
static void lock_free_if_idle(struct core_lock *lock);

static void lock_later(struct core_lock *lock)
{
	coord_loop_defer(lock->coord->loop, &lock->pump);
}

/* ---- answers ---- */

static void wait_task(struct coord_task *task)
{
	struct coord_wait *wait = coord_container(task, struct coord_wait, task);
	coord_list_remove(&wait->link);
	wait->fn(wait, wait->status);
}

static void wait_answer(struct coord_wait *wait, int status)
{
	coord_list_remove(&wait->link);
	wait->ticket = NULL;
	wait->status = status;
	wait->task.fn = wait_task;
	coord_loop_defer(wait->link.next ? ((struct coord_loop *)wait->task.next) : NULL, &wait->task);
}
