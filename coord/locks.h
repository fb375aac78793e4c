/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lock table's structures, shared by its two halves: locks.c decides what is next for each name,
 * holdings.c is what the outside asks and what the session tells.
 */
#ifndef COORD_LOCKS_H
#define COORD_LOCKS_H

#include "coord/core.h"

struct core_lock {
	struct coord_node node; /* in coord->locks, by canonical key */
	struct coord *coord;
	struct coord_key key; /* as first named */
	struct coord_list holdings; /* all, for the lifetime */
	struct coord_list holders; /* those that hold */
	struct coord_list tickets; /* with a live request, in the order of arrival */
	struct coord_list places; /* tickets without one */
	uint64_t tickets_ever;
	uint32_t tries; /* live tickets that do not wait */
	struct coord_list releases; /* core_release */
	struct core_grant *grant; /* held; NULL for free and for local locks */
	struct coord_op *acquiring; /* LOCK, or LOCK_CHECK that settles one */
	struct core_grant *pending; /* its grant */
	struct coord_op *converting;
	struct coord_ticket *upgrader; /* an atomic upgrade that waits, not in tickets */
	struct coord_timer timer; /* when to try again */
	struct coord_task pump;
	bool local; /* excludes on this mount only */
	struct coord_timer again; /* the end of contention, or a release that lacked memory */
	uint64_t contended_ms; /* until then somebody elsewhere is thought to wait */
	bool watched, changed, blocked; /* blocked: do not try before the timer or a notice */
	char name[];
};

struct coord_ticket {
	struct coord_list link; /* in the lock's tickets or places; the upgrader in neither */
	struct coord_list hlink; /* in the holding's tickets */
	struct coord_holding *holding;
	uint64_t place : 48; /* in the order of arrival */
	uint64_t mode : 8; /* enum coord_mode */
	bool wait : 1, live : 1;
	bool brief : 1; /* a try that has a second at most */
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

struct coord_holding {
	struct core_lock *lock;
	struct coord_list link; /* in lock->holdings */
	struct coord_list hlink; /* in lock->holders while held */
	struct coord_list tickets;
	struct coord_list answers; /* requests whose answer is on its way */
	void *user;
	uint8_t state; /* enum coord_holding_state */
	uint8_t mode; /* enum coord_mode */
	bool told; /* somebody was told that it holds */
	bool zombie; /* freed by its owner while an unlock or a check is still to be answered */
	uint32_t checks; /* that run */
	uint64_t token, since_us;
	uint32_t pid, uid;
	struct coord_bytes
		*leader; /* LEADER: the id to lead under, if not our own; text behind it */
	struct unlock_wait unlock; /* the usual one; more are allocated */
};

void core_lock_pump(struct core_lock *lock);
void core_lock_later(struct core_lock *lock);
void core_lock_free_if_idle(struct core_lock *lock);
void core_ticket_answer(struct coord_ticket *ticket, int status);
void core_ticket_free(struct coord_ticket *ticket);
/* It has its first request: in its place among the live. */
void core_ticket_live(struct coord_ticket *ticket);
/* It has no request any more, and keeps its place. */
void core_ticket_idle(struct coord_ticket *ticket);
void core_wait_answer(struct coord_wait *wait, int status);
void core_wait_forget(struct coord_wait *wait);
/* Frees a zombie for which nothing is to be answered any more. */
void core_holding_tidy(struct coord_holding *holding);
void core_holding_drop(struct coord_holding *holding, enum coord_holding_state state);
/* Gives a grant back; nobody waits for it but who joins release.waits. */
void core_grant_release(struct core_lock *lock, struct core_grant *grant);
/* Whose lease ran out, and whose holders were told just now: after their grace, which a release would cut short, because
 * the next one is granted at once. */
void core_grant_release_lost(struct core_lock *lock, struct core_grant *grant);
bool core_lock_contended(const struct core_lock *lock);
/* Answers all who wait for a release. */
void core_release_answer(struct core_release *release);
void core_lock_release_grant(struct core_lock *lock);
void core_lock_block(struct core_lock *lock, uint64_t ms);
void core_lock_unwatch(struct core_lock *lock);
void core_unlock_task(struct coord_task *task);
void core_lock_timer(struct coord_timer *timer);
void core_lock_again(struct coord_timer *timer);
void core_pump_task(struct coord_task *task);
enum coord_mode core_lock_mode(const struct core_lock *lock);

/* How long a try may take. */
uint64_t core_try_limit(const struct coord *, bool brief);
void core_ticket_timer(struct coord_timer *timer);

#endif
