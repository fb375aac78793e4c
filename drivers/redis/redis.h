/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the driver share.
 *
 *   redis.c    the driver: options, open, close, renew
 *   watch.c    items: what is tracked, what a notice means
 *   locks.c    locks and leaderships
 *   lists.c    which locks are held
 *   groups.c   groups
 *   members.c  members and their beats
 *   keys.c     names of keys
 *   scripts.c  what runs in the server, and the formats
 *   link.c     the connections
 *
 * Ownership: a session's link, items, beats and batches are its own. A redis_hold lies in the grant's scratch,
 * from the op that acquires it to the answer that says it is gone, or to the end of the grant. What an op
 * needs lies in its scratch (redis_call) and its arena.
 */
#ifndef REDIS_H
#define REDIS_H

#include "coord/table.h"
#include "drivers/redis/keys.h"
#include "drivers/redis/scripts.h"

enum {
	REDIS_KEYS_A_SCRIPT = 100, /* so that no script blocks the server for long */
	REDIS_ARGS = 256,
	REDIS_SESSION_LEN = 16, /* digits */
	REDIS_OWNER_LEN = 32,
	REDIS_TURN_MS = 50, /* how long a freed lock is kept for who waited */
	REDIS_POLL_MS = 100, /* where no notices come, who waits looks so often */
	REDIS_TURN_POLL_MS = 250, /* and is given so long */
};

struct redis_session {
	struct coord_session *session;
	struct coord_loop *loop;
	const struct coord_config *config;
	struct redis_options options;
	struct redis_keys keys;
	struct redis_script scripts[REDIS_SCRIPTS];
	struct redis_link *link;
	char id[REDIS_SESSION_LEN +
		1]; /* the first half of the daemon's uuid, and of all owner values */
	char refused[REDIS_SESSION_LEN +
		     1]; /* whose claim open told of; that one may be replaced */
	uint32_t epoch;
	uint64_t ttl_ms; /* the shorter of the leases */
	struct coord_op *opening, *closing;
	char down_text[512]; /* why it is not up */
	uint64_t told_refused_ms
		[2]; /* and of a request, or a renewal, that is forbidden; 0: never */
	uint64_t told_bad_ms; /* when the log was told of a key that holds something else */
	struct coord_bytes
		tell; /* the key that others write when they remove a member of ours; owned */
	struct coord_bytes claim, own; /* the keys of the claim and of the session; owned */
	char fence[REDIS_NAME_MAX + 32]; /* what the session's key holds */
	uint64_t links; /* so many were up */
	struct redis_cmd tell_cmd;
	bool tell_flies, tell_again; /* it is being read; a notice came while it was read */
	struct coord_table items, tracked; /* by name; by key of redis */
	struct coord_list stale; /* items to be read again */
	struct coord_task look;
	struct coord_list batches; /* struct redis_piece: what is in flight for nobody's op */
	struct coord_list holds;
	struct coord_table owners; /* the same, by owner value */
	struct coord_table beats;
};

/* ---- Arguments ---- */

/* Keys, then arguments. What is added is borrowed but for numbers. */
struct redis_args {
	const char *v[REDIS_ARGS];
	size_t len[REDIS_ARGS];
	int n, keys;
	bool bad; /* one of them could not be made */
	char numbers[4][24];
	int numbers_used;
};

static inline void redis_arg(struct redis_args *args, struct coord_bytes bytes)
{
	args->bad = args->bad || !bytes.data;
	args->v[args->n] = bytes.data ? bytes.data : "";
	args->len[args->n++] = bytes.len;
}

static inline void redis_arg_key(struct redis_args *args, struct coord_bytes bytes)
{
	redis_arg(args, bytes);
	args->keys = args->n;
}

static inline void redis_arg_text(struct redis_args *args, const char *text)
{
	redis_arg(args, coord_bytes_of(text));
}

void redis_arg_number(struct redis_args *, uint64_t number); /* at most four times */

void redis_run(struct redis_session *, enum redis_lane, struct redis_cmd *, enum redis_script_id,
	const struct redis_args *);

/* Makes this link the one that counts, ahead of all that is sent through it. Where the session is gone the core is
 * told. */
void redis_fence(struct redis_session *);

/* ---- Calls ---- */

/* What begins the memory of commands that belong to no op, for the end of the session. */
struct redis_piece {
	struct coord_list link;
};
/* Zeroed memory that begins with a redis_piece; NULL: none. */
void *redis_piece_new(struct redis_session *, size_t size);
void redis_piece_free(void *piece);

struct redis_item;
struct redis_hold;

/* An op's scratch. */
struct redis_call {
	struct redis_cmd cmd;
	struct coord_op *op;
	struct redis_session *rs;
	struct redis_item *item, *leader; /* which are flying; may be NULL */
	struct redis_hold *hold;
	void *data; /* the call's own, in the arena */
	int (*answer)(struct redis_call *, const redisReply *, int status);
};

/* What an answer function returns when it has sent more for the op. */
enum { REDIS_MORE = 1 };

/* The op's scratch, made ready. answer gets what the server said, and what its code means; reply is NULL
 * where there was no answer, and of type ERROR for an error. It returns the op's status, or REDIS_MORE. */
struct redis_call *redis_call_of(struct redis_session *, struct coord_op *,
	int (*answer)(struct redis_call *, const redisReply *, int status));
/* Runs a script for the op. */
void redis_call_run(
	struct redis_call *, enum redis_lane, enum redis_script_id, const struct redis_args *);
/* Ends the op of a call that sent nothing. */
void redis_call_end(struct redis_call *, int status);
/* Sends any command for the op. */
void redis_call_send(struct redis_call *, enum redis_lane, const struct redis_args *);
/* The call reads the keys of an item that are tracked: it is in flight until the answer. */
void redis_call_item(struct redis_call *, struct redis_item *);
/* A key in the op's arena; empty, with data NULL: no memory. */
struct coord_bytes redis_op_key(
	struct redis_session *, struct coord_op *, enum redis_key, struct coord_bytes name);
/* What a command that was not answered means to the core. */
int redis_status(int status);

/* A bulk string of an answer; data NULL: nil, or no string. */
struct coord_bytes redis_bytes(const redisReply *reply, size_t index);
int64_t redis_integer(const redisReply *reply, size_t index); /* a string of digits too; -1: none */
/* Decimal digits and nothing else. */
bool redis_decimal(struct coord_bytes text, uint64_t *ret);
bool redis_owner_parse(struct coord_bytes text, uint8_t ret[16]);
void redis_owner_format(const uint8_t owner[16], char ret[REDIS_OWNER_LEN + 1]);
/* Cuts the text before the first `stop` off, and the stop too. False: there is none. */
bool redis_cut(struct coord_bytes *text, char stop, struct coord_bytes *ret);

/* ---- Items ---- */

enum { REDIS_ITEM_LOCK, REDIS_ITEM_GROUP };

struct redis_tracked {
	struct coord_node node;
	struct redis_item *item;
};

/*
 * A lock or a group that is held, watched, or being asked for.
 *
 *   armed      the server tracks its keys for us and will tell once
 *   flying     commands that read its keys again are on their way: a notice meanwhile counts
 *   stale      a notice came: it is in the session's list, to be read again
 *
 * A command that the server refuses ends no tracking: the notice of what happens meanwhile comes as ever.
 */
struct redis_item {
	struct coord_node node;
	struct redis_session *rs;
	struct redis_tracked
		keys[REDIS_LOCK_KEYS + 1]; /* lock: its keys and the mark; group: one */
	unsigned keys_len, lock_keys;
	struct coord_bytes record, sharers; /* of a lock */
	struct coord_list holds; /* redis_hold by in_item: those confirmed */
	unsigned refs; /* holds and calls that point here */
	unsigned watched; /* 1 << kind */
	enum coord_mode waits; /* that mode is waited for by somebody here */
	bool waiting; /* the core waits for a notice in order to try again */
	bool slow; /* the last notice was of a renewal: look before the core is told */
	bool fast; /* the core was told, and may ask itself: let it go first */
	bool told; /* who watches was told since the last look */
	bool armed, dirty, force;
	unsigned flying;
	struct coord_list stale;
	struct redis_cmd cmd; /* looking */
	bool looking;
	struct coord_timer death; /* groups: when a member may be dead */
	struct coord_timer again; /* refused: when to read it again */
	unsigned refused; /* so many times since it was last read */
	uint64_t print; /* of the state when it was last looked at */
	char text[]; /* name and keys */
};

/* Finds or makes; NULL: no memory. */
struct redis_item *redis_item_get(struct redis_session *, unsigned type, struct coord_bytes name);
struct redis_item *redis_item_find(struct redis_session *, unsigned type, struct coord_bytes name);
/* The item of a lock or leadership. */
struct redis_item *redis_item_of(
	struct redis_session *, enum coord_kind kind, struct coord_bytes name, bool make);
/* Frees it if nobody needs it. */
void redis_item_put(struct redis_item *);
/* What became of a command that reads the keys of an item. */
enum redis_landing {
	REDIS_READ, /* it has read them: the server tracks them */
	REDIS_REFUSED, /* an error: some may have been read, or written; they are read again soon */
	REDIS_APART, /* it was never sent, or says nothing about tracking */
	REDIS_GONE, /* the connection is gone, and with it what was tracked */
};
void redis_item_flies(struct redis_item *);
void redis_item_landed(struct redis_item *, enum redis_landing);
/* What an answer means for the item, whose link may have gone with it. */
enum redis_landing redis_landing(const struct redis_session *, int status, const redisReply *reply);
void redis_item_watch(struct redis_item *, enum coord_kind);
/* It was read, and is now so: who watches it is told if that is new. */
void redis_item_seen(struct redis_item *, uint64_t print);
/* It is to be read again; force: and who watches it is told in any case. */
void redis_item_stale(struct redis_item *, bool force);
static inline struct coord_bytes redis_item_key(const struct redis_item *item, unsigned i)
{
	return item->keys[i].node.key;
}
/* Adds the keys of a lock and its mark. */
void redis_item_keys(const struct redis_item *, struct redis_args *);

void redis_invalidated(struct redis_session *, struct coord_bytes key);
void redis_watch_look(struct coord_task *);
void redis_items_stale(struct redis_session *); /* all of them: the link is new */
void redis_items_done(struct redis_session *);
void redis_unwatch(struct coord_session *, struct coord_key key);

/* ---- Locks ---- */

/* What the keys of a lock hold, as its scripts answer. data NULL: nothing. */
struct redis_state {
	uint64_t number;
	struct coord_bytes values[REDIS_LOCK_KEYS], mark, record;
	uint64_t count;
	int64_t left_ms; /* -1: no end, -2: it is free */
	bool full; /* record, count and left_ms are there */
};
/* Takes an answer apart; -EIO if it is malformed. */
int redis_state_parse(const redisReply *, unsigned lock_keys, struct redis_state *ret);
uint64_t redis_state_print(const struct redis_state *);
/* The first of the values that is there; data NULL: the lock is free. */
struct coord_bytes redis_state_value(const struct redis_state *, bool *ret_same);
/* Fills in a row about the lock; kind LOCK or LEADER. */
int redis_state_row(struct coord_op *, enum coord_kind kind, struct coord_bytes name,
	const struct redis_state *);

struct redis_record {
	struct coord_bytes value, kind, member;
	uint64_t token, since_us;
};
/* False: it does not speak of what the keys hold, or is none. */
bool redis_record_parse(const struct redis_state *, struct redis_record *ret);

/* What is held, or may be because an acquire was sent. */
struct redis_hold {
	struct coord_node node; /* the session's owners */
	struct coord_list link; /* the session's holds */
	struct coord_list in_item; /* locks: when confirmed */
	struct coord_grant *grant; /* NULL: not in use */
	struct redis_item *item; /* locks */
	char *group; /* members: the group's key, and behind it the owners' key; owned */
	uint32_t group_len, owners_len;
	struct redis_beat *beat; /* members */
	char owner[REDIS_OWNER_LEN + 1];
	char value[REDIS_OWNER_LEN + 3]; /* what the lock's keys hold */
	bool held, leaving; /* confirmed; given up, or the core was told that it is gone */
	bool beat_ends; /* its leave was sent: it is among the beat's leaving */
};

/* 0 or -ENOMEM. */
int redis_hold_begin(struct redis_session *, struct redis_hold *, struct coord_grant *);
/* Nothing is left of it. NULL, and one that is not in use, are allowed. */
void redis_hold_end(struct redis_session *, struct redis_hold *);
struct redis_hold *redis_hold_find(struct redis_session *, struct coord_bytes owner);
/* Tells the core, once. */
void redis_hold_lost(struct redis_session *, struct redis_hold *);
/* Do the keys hold what they should? Tells the core what is lost, and who waits. */
void redis_holds_check(struct redis_item *, const struct redis_state *);

coord_driver_call redis_lock, redis_convert, redis_unlock, redis_lock_check, redis_lock_read,
	redis_lock_break, redis_lock_list;
/* The arguments of giving up what is left of a hold. */
void redis_unlock_args(
	struct redis_session *, const struct redis_item *, const char *owner, struct redis_args *);

/* ---- Groups and members ---- */

coord_driver_call redis_group_create, redis_group_delete, redis_group_list, redis_group_read;
coord_driver_call redis_member_join, redis_member_update, redis_member_leave, redis_member_get;
/* Sends what a watched group needs to be tracked again. */
void redis_group_look(struct redis_item *);
void redis_group_death(struct coord_timer *);

/* Fills in a row about a member; record is empty for one that no mount joined. */
int redis_member_row(struct coord_op *, struct coord_bytes name, struct coord_bytes data,
	struct coord_bytes record, bool with_data);
/* The arguments of leaving; owner "": whoever joined it. */
void redis_leave_args(
	struct redis_session *, const struct redis_hold *, bool last, struct redis_args *);
/* Keeps one more membership's beat. NULL: no memory. */
struct redis_beat *redis_beat_get(struct redis_session *, struct coord_bytes member);
void redis_beat_put(struct redis_session *, struct redis_beat *);
/* A member id for which this session keeps the beat. */
struct redis_beat {
	struct coord_node node;
	unsigned uses; /* memberships */
	unsigned leaving; /* of these; the leave of the last ends the beat, too */
	bool adopted; /* the mount's own id, in a group that it did not join */
	uint32_t key_len, beaters_len;
	char text[]; /* id, beat, beaters */
};
struct coord_bytes redis_beat_id(const struct redis_beat *);
struct coord_bytes redis_beat_key(const struct redis_beat *, bool beaters);
/* What was adopted is no more. */
void redis_beats_adopted_done(struct redis_session *);
void redis_beats_done(struct redis_session *);

#endif
