/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The coordinator of one mount, as fs/ sees it: a session with a backend, the locks and leaderships
 * that handles hold through it, the members it joined.
 *
 * All calls are made on the loop. Every callback comes later, from the loop, never from inside the
 * call that asked for it, and exactly once, unless the request was dropped before. All of this is
 * asynchronous, answered by the deadline (the configuration's timeout) whatever the backend does.
 */
#ifndef COORD_COORD_H
#define COORD_COORD_H

#include "coord/driver.h"

struct coord;
struct coord_holding;

enum coord_state { COORD_STARTING, COORD_CONNECTED, COORD_SUSPENDED, COORD_LOST, COORD_STOPPED };

/* How the core tells its owner. Any may be NULL. */
struct coord_notices {
	/* Once: 0, the session is open; or -errno and a text, and the coordinator has stopped. */
	void (*ready)(void *user, int status, const char *text);
	void (*state)(void *user, enum coord_state);
	/* The holding is dead: whoever used it must be told. It stays dead until unlocked or freed. */
	void (*lost)(void *user, struct coord_holding *);
	/* After coord_stop: everything is released and the session is closed, or the deadline passed. */
	void (*stopped)(void *user);
};

/* Takes config over on success. Returns 0, -ENOMEM, or the driver's refusal with a text owned by the
 * caller in *ret_error. */
int coord_new(struct coord_loop *, struct coord_config *, const struct coord_notices *, void *user,
	struct coord **ret, char **ret_error);
void coord_start(struct coord *);
/* Loses (tells) every holding and ends every wait with -ESHUTDOWN; gives those who were told the time to unlock or
 * free their holdings, a grace at most; then releases everything, leaves every group, closes, for which it waits
 * two seconds for a backend that is away. Then stopped(). */
void coord_stop(struct coord *);
/* The holders of a stop that waits for them get no more time. false: it does not, or not any more. */
bool coord_stop_hurry(struct coord *);
/* Only when it was never started, never became ready, or has stopped. NULL is allowed. */
void coord_free(struct coord *);

enum coord_state coord_state(const struct coord *);
/* Would a call that may wait for limit_ms wait in vain? So it is when the connection is down for that long, or
 * an earlier call had as much time and nothing was answered since. 0: no, ask; -errno: what it would end
 * with. Now and then, where nothing else would find out that this has changed, a call is told 0; so is one that may not
 * wait for the whole time-out where there is no server that is silent to all (file). */
int coord_in_vain(const struct coord *, uint64_t limit_ms);
/* Such a call had an end of its own: it has waited for limit_ms, and there was no answer. */
void coord_unanswered(struct coord *, uint64_t limit_ms);
const char *coord_state_name(enum coord_state);
const struct coord_config *coord_config_of(const struct coord *);
struct coord_loop *coord_loop_of(const struct coord *);

/* Facts for .tooz/session. Times in ms; 0: none, as for drivers without leases. */
struct coord_session_info {
	const char *id; /* valid until the next loop turn */
	uint32_t epoch;
	unsigned can; /* enum coord_can: the driver's, but for what this server lacks */
	uint64_t ttl_ms, margin_ms, grace_ms,
		left_ms; /* left: until the earliest lease must be lost */
};
void coord_session_info(struct coord *, struct coord_session_info *ret);

/* How long something took: counts[i] are those up to coord_latency_bounds_us[i] and above the one before,
 * the last are those above all. */
#define COORD_LATENCY_BOUNDS 16
extern const uint64_t coord_latency_bounds_us[COORD_LATENCY_BOUNDS];
struct coord_latency {
	uint64_t counts[COORD_LATENCY_BOUNDS + 1], sum_us;
};

/* Counts since the start. */
struct coord_counters {
	uint64_t ops[COORD_CALLS], errors[COORD_CALLS], timeouts, reconnects, losses;
	struct coord_latency latency[COORD_CALLS]; /* in the driver */
	uint64_t locks_held, waiters, members, hidden_names;
};
const struct coord_counters *coord_counters(struct coord *);
/* Requests that the driver sent to servers; 0 where there are none. */
uint64_t coord_requests(struct coord *);
/* "open", "lock_read" ... */
const char *coord_call_name(enum coord_call);
void coord_count_hidden(struct coord *, uint64_t names); /* names left out of a listing */

/* ---- Requests: reads and changes of groups and members ---- */

/* A running request. */
struct coord_req;

/* status 0 and rows (valid during the call), or -errno. Rows are in no order; NULL: none. */
typedef void coord_reply_fn(void *user, int status, const struct coord_row *rows, size_t rows_len);

/* Each starts a request and returns 0, or -errno and fn is not called (names that the driver cannot
 * take: -EINVAL, -ENAMETOOLONG; -ENOMEM). *ret_req may be NULL if nobody will drop it. */
int coord_group_create(struct coord *, struct coord_bytes group, coord_reply_fn *fn, void *user,
	struct coord_req **ret_req);
int coord_group_delete(struct coord *, struct coord_bytes group, coord_reply_fn *fn, void *user,
	struct coord_req **ret_req);
int coord_group_list(struct coord *, coord_reply_fn *fn, void *user, struct coord_req **ret_req);
/* Members, and the leader as a row with COORD_ROW_LEADER. with_data: their capabilities too. */
int coord_group_read(struct coord *, struct coord_bytes group, bool with_data, coord_reply_fn *fn,
	void *user, struct coord_req **ret_req);
/* Is there such a group? What a live watch says without a round trip: 0; else -EAGAIN, and it takes
 * coord_group_look to know, or what is wrong with the name. */
int coord_group_peek(struct coord *, struct coord_bytes group);
/* One row with data, or -ENOENT. */
int coord_member_get(struct coord *, struct coord_bytes group, struct coord_bytes member,
	coord_reply_fn *fn, void *user, struct coord_req **ret_req);
/* Joins with these capabilities (msgpack), or updates a member of ours. exclusive: -EEXIST if it is
 * joined already, by anyone. Joined by another mount: -EACCES. uid: who asked, kept for
 * coord_membership_find. Calls for one member are carried out in order. */
int coord_member_put(struct coord *, struct coord_bytes group, struct coord_bytes member,
	struct coord_bytes data, bool exclusive, uint32_t uid, coord_reply_fn *fn, void *user,
	struct coord_req **ret_req);
/* Leaves; -ENOENT if not joined, -EACCES if not ours. */
int coord_member_leave(struct coord *, struct coord_bytes group, struct coord_bytes member,
	coord_reply_fn *fn, void *user, struct coord_req **ret_req);
/* The same of what this mount joined, or is about to join again, and for good: when it could not be done
 * in time, which fn is told as ever, it is done as soon as the backend is back, and no loss brings the
 * member back. A put after it is carried out after it. */
int coord_member_forgo(struct coord *, struct coord_bytes group, struct coord_bytes member,
	coord_reply_fn *fn, void *user, struct coord_req **ret_req);
/* Forgets the request: fn is not called any more. The effect may still happen. */
void coord_req_drop(struct coord_req *);

/* What this mount knows of a member that it joined, without asking the backend. */
struct coord_membership_info {
	uint32_t uid;
	uint64_t joined_us, updated_us; /* UTC */
	struct coord_bytes data; /* capabilities; valid until the next call */
	bool leaving; /* a coord_member_forgo is not done yet */
};
bool coord_membership_find(struct coord *, struct coord_bytes group, struct coord_bytes member,
	struct coord_membership_info *ret);
/* Joined by this mount, or bears the mount's own member id. */
bool coord_member_ours(struct coord *, struct coord_bytes group, struct coord_bytes member);

/* ---- Locks and leaderships ---- */

/*
 * A holding is a place that can hold one lock: an open handle, or the owner of an fcntl lock. Key kind
 * LOCK or LEADER goes to the backend. Kind MEMBER (name: anything unique) excludes among the
 * holdings of this mount only, at once and without the backend; it serves memberships bound to
 * handles.
 *
 * States: free -> (waiting) -> held -> free; held -> lost, which stays until coord_unlock.
 */
enum coord_holding_state { COORD_FREE, COORD_HELD, COORD_HOLDING_LOST };

/* Returns 0, -ENOMEM, or what the driver says of the name. user is for coord_holding_user. pid and uid
 * are shown to readers of the lock; set them again with coord_holding_set_taker. */
int coord_holding_new(struct coord *, enum coord_kind kind, struct coord_bytes name, void *user,
	struct coord_holding **ret);
/* Ends its waits without an answer, releases what it holds, frees. NULL is allowed. */
void coord_holding_free(struct coord_holding *);
void *coord_holding_user(const struct coord_holding *);
void coord_holding_set_taker(struct coord_holding *, uint32_t pid, uint32_t uid);
/* LEADER: the id to lead under; default: the mount's member id. Not while held. Returns 0/-ENOMEM. */
int coord_holding_set_leader(struct coord_holding *, struct coord_bytes member);
enum coord_holding_state coord_holding_state(const struct coord_holding *);
/* Asked at this moment, by a holder who takes "no" for "still held": a lease that is over is lost now, also where its
 * timer had no turn yet, as after a stop of the process. May call the notice. */
bool coord_holding_is_lost(struct coord_holding *);
enum coord_mode coord_holding_mode(const struct coord_holding *); /* COORD_NONE unless held */
uint64_t coord_holding_token(const struct coord_holding *); /* 0 unless held, or none */
uint64_t coord_holding_since_us(const struct coord_holding *);

/* A request for a lock, embedded in the caller's memory, which must stay until fn was called or
 * coord_wait_cancel returned. Set fn. */
struct coord_wait {
	struct coord_list link;
	void (*fn)(struct coord_wait *, int status);
	struct coord_holding *holding; /* NULL: not asked, or answered */
	struct coord_ticket *ticket; /* NULL: the answer is on its way */
	struct coord_task task;
	int status;
	uint8_t mode, flags;
};

enum coord_lock_flags {
	COORD_LOCK_WAIT = 1, /* wait for as long as it takes; else try, bounded by the timeout */
	COORD_LOCK_ATOMIC = 2, /* fcntl: a conversion keeps the old lock if it fails */
	COORD_LOCK_SHORT = 4, /* a try that is answered within a second */
};

/*
 * Acquires, or converts what the holding holds; asking for the mode it has succeeds at once. Without
 * ATOMIC a conversion releases first, and a failed one leaves nothing held (flock(2)).
 * Answers: 0; -EAGAIN (held by another, and no WAIT); -EDEADLK (second atomic upgrade);
 * -ENOLCK (ATOMIC upgrade that the driver cannot do; or suspended and no WAIT; or a limit); -EIO (the holding is
 * lost, unlock it first); -ESHUTDOWN, -EHOSTDOWN, -ETIMEDOUT, -EOPNOTSUPP (mode), -ENOENT (LEADER: no
 * such group) ...
 * Waiters of one mount are served first come first served.
 */
void coord_lock(struct coord_holding *, enum coord_mode, unsigned flags, struct coord_wait *);
/* Forgets the request; fn is not called any more. keep_place: its ticket stays in the queue for some
 * seconds, and the next coord_lock of this holding in the same mode takes it up. */
void coord_wait_cancel(struct coord_wait *, bool keep_place);
/* Releases (a lost one becomes free). The holding is free on return. fn (may be NULL) is called when
 * the backend has confirmed, or the release is safe in the core's hands while it is away. */
void coord_unlock(struct coord_holding *, void (*fn)(void *user, int status), void *user);
/* tooz's is_still_owner, asked of the backend: 0; -EIO lost; -EHOSTDOWN or -ETIMEDOUT unknown;
 * -EBADF holds nothing. */
int coord_check(struct coord_holding *, coord_reply_fn *fn, void *user, struct coord_req **ret_req);
/* Calls fn when every release of this holding's name that was begun before is confirmed. */
int coord_barrier(
	struct coord_holding *, coord_reply_fn *fn, void *user, struct coord_req **ret_req);

/* Who holds a lock or leadership, by name. */
struct coord_lock_info {
	bool held;
	bool local; /* held through this mount */
	bool partial; /* shared here, and how many mounts share it beside is not known for sure: look */
	enum coord_mode mode;
	struct coord_bytes
		owner; /* LOCK: member id of the holder's mount; LEADER: the leader's id; empty:
	                           * unknown. Valid during the call that gave it */
	uint64_t token, since_us;
	uint32_t pid, uid; /* uid is known of local holders only: see local */
	uint32_t holders, waiters; /* waiters: on this mount */
};
/* What is known without a round trip: our own holding, or a row under a live watch. Returns 0, or
 * -EAGAIN if it takes coord_lock_look to know, -EINVAL or -ENAMETOOLONG for the name. */
int coord_lock_peek(
	struct coord *, enum coord_kind, struct coord_bytes name, struct coord_lock_info *ret);
typedef void coord_look_fn(void *user, int status, const struct coord_lock_info *);
/* Asks the backend once for all who ask, and arms a watch that is kept for a minute, where there are
 * notices. */
int coord_lock_look(struct coord *, enum coord_kind, struct coord_bytes name, coord_look_fn *fn,
	void *user, struct coord_req **ret_req);
/* Is there such a group? The same for its existence: 0 or -ENOENT, and info says nothing. */
int coord_group_look(struct coord *, struct coord_bytes group, coord_look_fn *fn, void *user,
	struct coord_req **ret_req);
/* Rows of what is held, by us and by others. */
int coord_lock_list(struct coord *, enum coord_kind, coord_reply_fn *fn, void *user,
	struct coord_req **ret_req);
/* Ends every holding of the name, here (they are lost) and elsewhere. -ENOENT, -EBUSY. */
int coord_lock_break(struct coord *, enum coord_kind, struct coord_bytes name, coord_reply_fn *fn,
	void *user, struct coord_req **ret_req);
/* The holdings of this mount that hold the name: calls fn for each until it returns true; returns the
 * holding for which it did, else NULL. fn must not change the table. */
struct coord_holding *coord_lock_holders(struct coord *, enum coord_kind, struct coord_bytes name,
	bool (*fn)(void *user, struct coord_holding *), void *user);

/* ---- Drivers ---- */

/* Finds the driver of a scheme, loading its module if it is not built in. Returns 0, -ENOENT or
 * -ENOEXEC, with a text owned by the caller that lists the schemes there are. */
int coord_driver_find(const char *scheme, const struct coord_driver **ret, char **ret_error);
/* Calls fn for each driver there is, built in or installed. */
void coord_driver_each(void (*fn)(void *user, const struct coord_driver *), void *user);
/* Adds a driver for the life of the program, found before all others. For tests; a few fit. */
void coord_driver_register(const struct coord_driver *);
/* Names of characteristic bits, tooz's; NULL past the last. */
const char *coord_characteristic_name(unsigned bit_index);

#endif
