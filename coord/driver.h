/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The contract between the core and a driver.
 *
 * A driver turns the calls below into what its backend understands, and reports facts. It knows no
 * queue of waiters, no lease arithmetic, no retry: those are the core's. Every call gets an op, which
 * the core owns, and answers it exactly once with coord_op_done(); the answer is delivered later,
 * on the loop, never inside the driver's call. All calls are made on the loop.
 *
 * Life of a session: configure (no I/O), open, any calls, close, session_free. After a loss the core
 * calls close and open again for the same session: each open is a new epoch. While an open or a
 * close runs no other call is made; ops of the old epoch may still be running then, and are
 * answered (-ECANCELED will do) before close is.
 *
 * What an op may tell about a request that failed is as important as its errno: `sent` says whether
 * the backend can have seen it. The core repeats COORD_SENT_NO until the deadline, and reads again
 * before it repeats COORD_SENT_UNKNOWN.
 *
 * Errors a driver uses: -ENOENT (no such group or member, lock not held), -EEXIST, -ENOTEMPTY, -EBUSY
 * (lock: held by another), -EPERM (member: not ours), -EBADMSG (stored data does not decode), -EINVAL
 * (name), -ENAMETOOLONG, -EFBIG, -ENOSPC, -EROFS, -EACCES, -EHOSTDOWN (unreachable), -ETIMEDOUT,
 * -EOPNOTSUPP, -ESTALE (the grant is gone, or not ours any more), -ECANCELED, -EIO.
 */
#ifndef COORD_DRIVER_H
#define COORD_DRIVER_H

#include "coord/config.h"
#include "coord/loop.h"

#define COORD_DRIVER_ABI 1

enum coord_kind { COORD_LOCK, COORD_LEADER, COORD_MEMBER, COORD_GROUP, COORD_KINDS };
enum coord_mode { COORD_NONE, COORD_SHARED, COORD_EXCLUSIVE };

/* How a holder can lose what it was granted. */
enum coord_loss {
	COORD_LOSS_LEASE, /* when it is not renewed in time */
	COORD_LOSS_CONNECTION, /* when the connection drops */
	COORD_LOSS_PROCESS, /* only when the daemon dies, or somebody breaks it */
};

/* Who lost is given that long at most to end what he does, and a process that is killed then, to have ended. */
enum { COORD_GRACE_MAX_MS = 1000, COORD_KILLED_MS = 250 };

enum coord_sent { COORD_SENT_ANSWERED, COORD_SENT_NO, COORD_SENT_UNKNOWN };

enum coord_can {
	COORD_CAN_QUEUE = 1 << 0, /* lock with COORD_OP_WAIT waits in the backend's queue */
	COORD_CAN_SHARED = 1 << 1,
	COORD_CAN_CONVERT = 1 << 2, /* shared to exclusive and back without letting go */
	COORD_CAN_NOTIFY = 1 << 3, /* COORD_OP_WATCH arms; else the core polls every poll_ms */
	COORD_CAN_LIST_ALL = 1 << 4, /* lock_list shows other clients' locks too */
	COORD_CAN_BREAK = 1 << 5,
	COORD_CAN_LEADER_ID = 1 << 6, /* leaders of other clients carry their id */
	COORD_CAN_ORDERED = 1 << 7, /* an acquire sent after a release cannot overtake it */
	COORD_CAN_GROUPS = 1 << 8,
	COORD_CAN_ALL = (1 << 9) - 1,
};

/* tooz's Characteristics, for .tooz/characteristics and -o require=. */
enum coord_characteristic {
	COORD_NON_TIMEOUT_BASED = 1 << 0,
	COORD_TIMEOUT_BASED = 1 << 1,
	COORD_DISTRIBUTED_ACROSS_THREADS = 1 << 2,
	COORD_DISTRIBUTED_ACROSS_PROCESSES = 1 << 3,
	COORD_DISTRIBUTED_ACROSS_HOSTS = 1 << 4,
	COORD_LINEARIZABLE = 1 << 5,
	COORD_SEQUENTIAL = 1 << 6,
	COORD_CAUSAL = 1 << 7,
	COORD_SERIALIZABLE = 1 << 8,
	COORD_SAME_VIEW_UNDER_PARTITIONS = 1 << 9,
	COORD_SAME_VIEW_ACROSS_CLIENTS = 1 << 10,
};

struct coord_key {
	enum coord_kind kind;
	struct coord_bytes name; /* of the lock, or of the group (LEADER, MEMBER, GROUP) */
};

/* Something held: a lock, a leadership or a membership. Made by the core before the op that acquires
 * it, and kept until the driver answered its last op. Immutable for the driver, but for the fields
 * marked out, which the acquiring or converting op sets, and its scratch (coord_grant_data). */
struct coord_grant {
	struct coord_key key;
	struct coord_bytes
		member; /* MEMBER: which; LEADER: the id to lead under; LOCK: our member id */
	enum coord_mode
		mode; /* what was asked for; a successful convert changes it (the core does) */
	uint8_t owner[16]; /* unique for each acquisition */
	uint32_t epoch; /* of the session when it was acquired */
	uint64_t token; /* out: the fencing token, 0: none */
	uint64_t since_us; /* out: UTC when it was granted; 0: the core sets it */
	uint64_t until_ms; /* BOOTTIME when it must count as lost; UINT64_MAX: never; the core's */
};

enum coord_row_flags {
	COORD_ROW_FOREIGN = 1 << 0, /* written by another program than this one */
	COORD_ROW_LEADER = 1 << 1, /* group_read: this row is the leader, not a member */
	COORD_ROW_NO_ID = 1 << 2, /* LEADER: there is one, its id is not on the wire */
	COORD_ROW_BAD_DATA = 1 << 3, /* stored data does not decode; data is empty */
	COORD_ROW_LIVE = 1 << 4, /* open's claim: the backend is certain the claimant lives */
};

/* One answer of a read. Everything lies in the op's arena. */
struct coord_row {
	struct coord_bytes name; /* group, member, lock; or the leader's id */
	struct coord_bytes
		data; /* members: capabilities, msgpack. lock: the holder's member id, if known.
	                          * open's claim: the other's identity text */
	enum coord_mode mode;
	unsigned flags;
	uint8_t owner[16]; /* zero: unknown */
	uint64_t born, version; /* incarnation of a member, version of its data; 0: unknown */
	uint64_t token, created_us, updated_us; /* UTC; 0: unknown */
	uint32_t pid; /* of a holder on this host, 0: unknown */
	uint32_t holders; /* lock: how many, as far as known; 0: unknown */
	struct coord_row *next;
};

enum coord_call {
	COORD_CALL_OPEN,
	COORD_CALL_CLOSE,
	COORD_CALL_RENEW,
	COORD_CALL_GROUP_CREATE,
	COORD_CALL_GROUP_DELETE,
	COORD_CALL_GROUP_LIST,
	COORD_CALL_GROUP_READ,
	COORD_CALL_MEMBER_JOIN,
	COORD_CALL_MEMBER_UPDATE,
	COORD_CALL_MEMBER_LEAVE,
	COORD_CALL_MEMBER_GET,
	COORD_CALL_LOCK,
	COORD_CALL_CONVERT,
	COORD_CALL_UNLOCK,
	COORD_CALL_LOCK_CHECK,
	COORD_CALL_LOCK_READ,
	COORD_CALL_LOCK_LIST,
	COORD_CALL_LOCK_BREAK,
	COORD_CALLS,
};

enum coord_op_flags {
	COORD_OP_WAIT = 1 << 0, /* LOCK, with CAN_QUEUE: wait in the backend's queue */
	COORD_OP_WATCH = 1 << 1, /* arm a watch on key from before the answer on, until unwatch */
	COORD_OP_WITH_DATA = 1 << 2, /* GROUP_READ: capabilities too */
	COORD_OP_REPLACE_STALE =
		1 << 3, /* OPEN: take the claim over. JOIN: replace our old epoch's */
	COORD_OP_ADOPT =
		1 << 4, /* MEMBER_UPDATE, _LEAVE: a member with our id that we did not join */
	COORD_OP_BARE =
		1 << 5, /* GROUP_READ: only whether there is such a group; rows are ignored */
	COORD_OP_PATIENT =
		1 << 6, /* LOCK: for somebody who waits: it is tried again if it is busy */
};

struct coord_session;

struct coord_op {
	/* In: copies in the arena, valid until done. */
	enum coord_call call;
	struct coord_key key;
	struct coord_bytes member; /* MEMBER_*: which member */
	struct coord_bytes data; /* JOIN, UPDATE: capabilities, msgpack */
	struct coord_bytes cursor; /* lists: where the last page ended; empty: from the start */
	struct coord_grant *
		grant; /* JOIN, UPDATE, LEAVE, LOCK, CONVERT, UNLOCK, LOCK_CHECK; NULL with ADOPT */
	enum coord_mode mode; /* CONVERT: to which */
	unsigned flags;
	uint32_t epoch; /* of the session that the op runs in */
	uint64_t
		deadline_ms; /* BOOTTIME; 0: none. The core answers its caller by then in any case */
	/* Out. */
	int status;
	enum coord_sent sent;
	uint64_t
		sent_ms; /* BOOTTIME just before the request left; 0: the core takes when it called */
	uint64_t ttl_ms; /* OPEN, RENEW, LOCK, JOIN: the lease that was agreed; 0: unchanged */
	uint64_t
		retry_ms; /* LOCK with -EBUSY: look again after so long at the latest; 0: unknown */
	uint64_t revision;
	struct coord_row *rows, **rows_end;
	size_t rows_len;
	struct coord_bytes next_cursor; /* lists: not empty: there is more */
	const char *error; /* OPEN: why, for a human; never a secret: coord_op_explain */
	/* The driver's while it runs. */
	struct coord_list link;
	void *drv[4];
	struct coord_job *job; /* for drivers with workers: see coord_op_job */
	struct coord_op_core *core; /* the core's */
};

typedef void coord_driver_call(struct coord_session *, struct coord_op *);

struct coord_driver {
	uint32_t abi; /* COORD_DRIVER_ABI */
	const char *name, *help;
	const char *const *schemes; /* ends with NULL */
	const struct coord_param *params;
	unsigned characteristics;
	unsigned can; /* open may narrow it: coord_session_narrow */
	enum coord_loss loss[COORD_KINDS]; /* of LOCK, LEADER, MEMBER */
	size_t session_size, grant_size, op_size; /* zeroed scratch: coord_session_data ... */
	uint32_t value_max; /* bytes of capabilities */
	uint32_t
		ops_max; /* ops the driver takes at once, 0: any number; the core queues above it */
	uint32_t
		waits_max; /* backend waits at once (QUEUE), 0: any number; above it the core polls */
	uint32_t grant_fds; /* open files of this process that a held lock takes */
	uint32_t poll_ms; /* period of looking again where nothing notifies */
	/* Locks may outlive the session that took them: unlock is also called for a grant of an older epoch, until
	 * it was answered. Else they go with the session. */
	bool grants_stay;

	/* Checks the configuration and fills the session's scratch. No I/O. Returns 0 or -errno with
	 * *ret_error a text owned by the caller. May be NULL. */
	int (*configure)(struct coord_session *, const struct coord_config *, char **ret_error);
	/* Frees what the scratch refers to. After close, after configure alone, or when a close did not
	 * end in time; no op is answered after it returned. May be NULL. */
	void (*session_free)(struct coord_session *);
	/* Frees what a grant's scratch refers to. No op on the grant runs. May be NULL. */
	void (*grant_done)(struct coord_session *, struct coord_grant *);

	/* Is the name legal here (0, -EINVAL, -ENAMETOOLONG), and which canonical key does it have in
	 * the backend? Two names with one key are one lock. Writes at most 256 bytes to ret_key; the
	 * length goes to *ret_len. NULL: every name is legal, and its own key. */
	int (*map_name)(struct coord_session *, enum coord_kind, struct coord_bytes name,
		char *ret_key, size_t *ret_len);

	/* OPEN claims the member id (coord_session_config()->member) unless read_only. Claimed by
	 * another: -EEXIST and one row with its identity in data. close lets go of everything of the
	 * epoch, leaves the server without a trace of it, and ends the claim. */
	coord_driver_call *open, *close;
	/* Keeps everything of the epoch alive: walks coord_grants_next() in chunks of its own choice and
	 * reports each with coord_grant_renewed(). NULL where nothing is leased. */
	coord_driver_call *renew;
	/* group_read: members, and the leader as a row with COORD_ROW_LEADER, one snapshot. With
	 * COORD_OP_BARE the answer is the status alone, in constant time: each path below a group asks. */
	coord_driver_call *group_create, *group_delete, *group_list, *group_read;
	/* member_get gives one row, with data. */
	/* member_join with COORD_OP_REPLACE_STALE is repeated until it is answered: a member that an earlier
	 * attempt or an older epoch of this daemon left is replaced. member_leave and member_update: by the
	 * grant's owner value; -EPERM if another bears the name now. */
	coord_driver_call *member_join, *member_update, *member_leave, *member_get;
	/* On grants of kind LOCK or LEADER. lock without COORD_OP_WAIT tries once: -EBUSY if held; with
	 * COORD_OP_WATCH a -EBUSY leaves a watch armed from before the look that found it held (any
	 * other answer arms nothing). unlock of what is gone succeeds; it is also called for a grant
	 * that was lost, to remove what is left of it. convert to the mode that it has succeeds; -EBUSY while
	 * others share it, and with COORD_OP_WATCH a watch is armed as by lock. lock_check asks the authority,
	 * not a cache: 0, or -ESTALE, also where the connection holds and the asking one is another; it settles
	 * a lock whose answer was lost, and then fills token. On leases it extends the lease: the core counts
	 * the time to live from the sending of the check. A token is never replaced by a smaller one. */
	coord_driver_call *lock, *convert, *unlock, *lock_check;
	/* By name; kind LOCK or LEADER. lock_read: one row if held, none if free. lock_list: rows of what
	 * is held (LEADER: of the groups that have a leader; name is the group, data the id). lock_break
	 * ends every holding, whoever's: -ENOENT, -EBUSY if it cannot. */
	coord_driver_call *lock_read, *lock_list, *lock_break;
	/* Ends a watch on a LOCK, LEADER or GROUP. May be NULL without CAN_NOTIFY. */
	void (*unwatch)(struct coord_session *, struct coord_key);
	/* Asks a running op to end early; it may still succeed. It is answered in any case. May be NULL. */
	void (*cancel)(struct coord_session *, struct coord_op *);
	/* How many requests were sent to servers since configure. NULL where there are no servers. */
	uint64_t (*requests)(struct coord_session *);
};

/* What a driver may call. On the loop, but for coord_op_done and the coord_op_* arena calls, which any
 * one thread at a time may make for its op. */

void *coord_session_data(struct coord_session *); /* session_size bytes */
struct coord_loop *coord_session_loop(struct coord_session *);
const struct coord_config *coord_session_config(struct coord_session *);
/* A random id of this daemon, 16 bytes, the same for all epochs. */
const uint8_t *coord_session_uuid(struct coord_session *);
/* During open: takes abilities away that this server lacks. */
void coord_session_narrow(struct coord_session *, unsigned can);
/* A text for .tooz/session; copied. */
void coord_session_set_id(struct coord_session *, const char *id);

void *coord_grant_data(struct coord_grant *); /* grant_size bytes */
void *coord_op_data(struct coord_op *); /* op_size bytes */
/* Memory of the op, aligned, zeroed, freed with it. NULL: none, or over the reply limit. */
void *coord_op_alloc(struct coord_op *, size_t len);
/* A copy in the arena; data NULL if there is no memory. */
struct coord_bytes coord_op_copy(struct coord_op *, const void *data, size_t len);
/* Sets op->error, in the arena. */
void coord_op_explain(struct coord_op *, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* A new zeroed row at the end of op->rows. NULL: no memory, or over the limit. */
struct coord_row *coord_op_row(struct coord_op *);

/* Answers the op; status, sent ... are set. Exactly once. Afterwards the op belongs to the core. */
void coord_op_done(struct coord_op *);
static inline void coord_op_fail(struct coord_op *op, int status)
{
	op->status = status;
	coord_op_done(op);
}

/* Facts about the session of that epoch; an older epoch's are ignored. REFUSED, while it is disconnected: the
 * backend answers, and does not let us in any more; calls end with -EACCES until it is connected. */
enum coord_event {
	COORD_EVENT_DISCONNECTED,
	COORD_EVENT_CONNECTED,
	COORD_EVENT_REFUSED,
	COORD_EVENT_EXPIRED
};
void coord_session_event(struct coord_session *, uint32_t epoch, enum coord_event);

/* The grant is gone from the backend: broken, overwritten, or its lease is over. Named by its parts,
 * because it may have been freed while a notice was on its way. */
void coord_grant_lost(
	struct coord_session *, struct coord_key, const uint8_t owner[16], uint32_t epoch);
/* Somebody elsewhere waits for what this grant holds; said again each second while it is so. */
void coord_grant_contended(
	struct coord_session *, struct coord_key, const uint8_t owner[16], uint32_t epoch);
/* The next grant of the epoch after `after` (NULL: the first), or NULL. */
struct coord_grant *coord_grants_next(struct coord_session *, struct coord_grant *after);
/* The grant was confirmed by a request sent at sent_ms for ttl_ms. */
void coord_grant_renewed(
	struct coord_session *, struct coord_grant *, uint64_t sent_ms, uint64_t ttl_ms);
/* Something about key changed: look again. Level, not edge: many may become one. A watch is armed. The
 * name is any that has the canonical key (see map_name), such as the one that armed it. When a connection comes back in
 * the same epoch, the driver arms all its watches again and says of each that it changed. */
void coord_changed(struct coord_session *, struct coord_key, uint64_t revision);

/* Log, for a human: once, where the cause is known. Never a secret. level as in syslog(3). */
void coord_log(int level, const char *format, ...) __attribute__((format(printf, 2, 3)));
extern _Atomic int coord_log_level;
/* Where log lines go; NULL: standard error. Called on any thread, the loop's among them: it must not wait. For main
 * and tests. */
void coord_log_to(void (*sink)(int level, const char *text));

#endif
