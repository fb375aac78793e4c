/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the parts of the file driver share.
 *
 * Threads: the loop makes the calls; three workers do the I/O. `locks` serves everything that is short
 * and waits for nobody; `groups` what needs tooz's driver lock, behind which a stopped Python client
 * may keep us until the deadline; `scans` walks directories. An op is touched by one of them
 * at a time.
 *
 * What is shared is guarded by file_session.lock: the lists of what is held and joined, and inotify's
 * numbers; slots_lock guards which slots of our session file are in use. Watches live and die on the
 * loop; their descriptors are used on `locks` only.
 */
#ifndef DRIVERS_FILE_FILE_H
#define DRIVERS_FILE_FILE_H

#include <stdatomic.h>
#include <sys/stat.h>

#include "coord/driver.h"
#include "coord/worker.h"
#include "drivers/file/format.h"
#include "drivers/file/path.h"

#define FILE_BUCKETS 256
#define FILE_SAFETY_MS 1000 /* a waiter looks again so often, whatever was notified */
#define FILE_POLL_MS 100 /* the same where inotify does not work */
#define FILE_GIVEN_UP_MS (2 * FILE_SAFETY_MS) /* who has not looked for so long waits no more */

/* The directories in DIR that are kept open; -1: there is none (read-only mounts). */
enum file_dir {
	FILE_ROOT,
	FILE_GROUPS,
	FILE_TMP,
	FILE_OURS, /* .toozfs, parent of the rest */
	FILE_SESSIONS,
	FILE_MEMBERS,
	FILE_LEADERS,
	FILE_WAITERS,
	FILE_BREAKS,
	FILE_DIRS,
};

struct file_session {
	struct coord_session *session;
	struct coord_loop *loop;
	const char *dir;
	char uuid[33];
	bool read_only, opened;
	bool was_open; /* ever: then the directory is not made again */
	uint32_t epoch;
	bool store_gone; /* what touch_job found; loop when it does not run */
	uint64_t age_ms; /* of a Python member's file until it is hidden */
	struct coord_worker *locks, *groups, *scans;
	int dirs[FILE_DIRS];
	int own; /* our session file, held by an OFD lock */
	int driver; /* .driver_lock; groups worker */
	bool driver_shared; /* it could be opened for reading only */
	bool claimed;
	atomic_bool closing;
	unsigned busy; /* loop: jobs under way that belong to no op */
	struct coord_op *closer;
	struct coord_list watches[FILE_BUCKETS]; /* loop: file_watch.by_key */
	struct coord_list breaks; /* loop: breaks that wait for an answer */
	struct coord_timer touch;
	uint64_t touch_ms; /* when members are touched next */
	struct coord_job touch_job, doubt_job, missing_job, break_job, wait_job, reap_job;
	bool touch_busy, doubt_busy, doubt_again, missing_busy, missing_again, break_busy,
		break_again, wait_busy, wait_again, reap_busy, reap_again;
	struct coord_timer reap;
	struct coord_fd *notify_watch;
	atomic_bool notify_works;

	pthread_mutex_t slots_lock;
	uint64_t slots[FILE_SLOTS_MAX / 64]; /* slots_lock: bits of those in use */

	pthread_mutex_t lock; /* guards what follows */
	struct coord_list held, joined, by_wd[FILE_BUCKETS];
	struct coord_list by_file[FILE_BUCKETS]; /* file_joined by the name of their file */
	unsigned held_wds; /* how many of held have a wd */
	int notify; /* inotify, -1: none */
	int wds[FILE_DIRS], wd_break;
	struct coord_list gone; /* file_notice: what the loop has to be told */
};

/* A lock that we hold. In file_session.held until it is unlocked or its grant ends. */
struct file_held {
	struct coord_list link;
	enum coord_kind kind;
	char hash[FILE_HASH_SIZE];
	enum coord_mode mode;
	int fd; /* -1: broken, or let go by close */
	int slot; /* where it is noted that we share, or -1 */
	int wd; /* of the file, where its directory is not listened to; else -1 */
	bool plain, noticed;
	uint8_t owner[16];
	uint32_t epoch;
	uint64_t token, since_us;
	struct coord_bytes name, member; /* both in text */
	char text[];
};

/* A member that we joined. */
struct file_joined {
	struct coord_list link, by_file;
	char path[FILE_RAW_PATH]; /* below groups */
	uint8_t owner[16];
	uint32_t epoch;
	bool lost; /* the file was removed by another */
	bool doubt; /* the same, perhaps: to be looked at */
	int wd; /* of the group's directory, or -1 */
	struct coord_bytes name; /* of the group, in text */
	char text[];
};

struct file_grant {
	struct file_held *held;
	struct file_joined *joined;
};

/* Something about a grant that the loop has to be told. */
struct file_notice {
	struct coord_list link;
	bool lost; /* else contended */
	const char *why; /* for the log, or NULL */
	enum coord_kind kind;
	uint8_t owner[16];
	uint32_t epoch;
	struct coord_bytes name;
	char text[];
};

/*
 * Interest in a key: a name in the backend that somebody waits for or looks at.
 *
 * refs counts the ops and jobs that use it, and one while it is armed, that is, until unwatch.
 */
struct file_watch {
	struct coord_list by_key, by_wd, fired;
	struct file_session *fs;
	enum coord_kind kind;
	char hash[FILE_HASH_SIZE];
	unsigned refs;
	bool armed, rearming, rearm_again;
	/* fs->lock */
	bool dead;
	int wd;
	char entry[256]; /* not empty: wd is a directory, and this entry of it is missed */
	/* locks worker */
	int fd; /* kept open, so that looking raises no event */
	bool writable; /* fd can take exclusive locks */
	int waiter; /* holds the mark that this mount waits, or -1 */
	enum coord_mode waits; /* what the mark says */
	uint64_t tried_ms; /* BOOTTIME when it was last made, or would have been */
	uint64_t
		defer_ms; /* BOOTTIME until which new sharers let a writer go first; 0: no writer */
	/* loop */
	struct coord_timer again, expiry, given_up;
	bool unmarking;
	unsigned step;
	bool expired; /* the last look hid a member by its age: a new mtime matters */
	struct coord_job job, rearm_job, unmark_job;
	struct coord_bytes name;
	char text[];
};

/* An op on its way through a worker: the scratch of a coord_op. */
struct file_op {
	struct coord_job job;
	struct coord_op *op;
	struct file_session *fs;
	struct coord_worker *worker;
	int (*work)(struct file_op *); /* on the worker: the op's status */
	void (*after)(struct file_op *); /* on the loop, before the answer; may be NULL */
	int status;
	struct file_grant *grant;
	struct file_held *held; /* LOCK: made beforehand, so that a grant cannot fail on memory */
	struct file_joined *joined; /* JOIN: the same */
	struct file_watch *watch;
	atomic_bool cancelled;
	bool contended, last; /* last: of a close, the final step is under way */
	uint64_t token, expiry_ms; /* what after() needs; expiry_ms: from now, 0: none */
	bool expired;
	struct coord_timer timer; /* LOCK_BREAK */
	struct coord_list link;
	uint64_t until_ms;
	struct file_request request; /* LOCK_BREAK */
	char hash[FILE_HASH_SIZE];
};

/* ---- file.c ---- */

/* Runs work on the worker, then after on the loop, then answers the op. */
void file_op_start(struct coord_session *, struct coord_op *, struct coord_worker *,
	int (*work)(struct file_op *), void (*after)(struct file_op *));
struct file_op *file_op_prepare(struct coord_session *, struct coord_op *);
void file_op_submit(struct file_op *, struct coord_worker *);
/* BOOTTIME in ms and UTC in us, for the workers. */
uint64_t file_now_ms(void);
uint64_t file_utc_us(void);

/* ---- session.c ---- */

void file_open(struct coord_session *, struct coord_op *);
void file_close(struct coord_session *, struct coord_op *);
/* Is DIR, or one below it, another directory than the one that was opened, or our session file gone? */
bool file_store_gone(struct file_session *);
/* Is the daemon of this session alive? In doubt it is. */
bool file_session_alive(struct file_session *, const char uuid[33]);
/* After a job of our own: goes on with a close that waits for the last. */
void file_idle(struct file_session *);

/* ---- driver_lock.c ---- */

/* On a worker only, between tries of a lock of another process: F_OFD_SETLKW can be ended neither by a deadline
 * nor by a cancel, and an unlock of an open file raises no event. Less than a second. */
void file_pause_us(unsigned us);
/* Takes tooz's driver lock, until the op's deadline: 0, -ETIMEDOUT, -ECANCELED ... Groups worker. */
int file_driver_lock(struct file_op *, bool exclusive);
/* Makes a shared one exclusive if that takes no waiting. */
bool file_driver_lock_try(struct file_session *);
void file_driver_unlock(struct file_session *);

/* ---- groups.c ---- */

int file_group_create(struct file_op *);
int file_group_delete(struct file_op *);
int file_group_list(struct file_op *);
int file_group_read(struct file_op *);
bool file_group_exists(struct file_session *, const char hash[FILE_HASH_SIZE]);
/* The name of a group, copied into the op's arena. */
int file_group_name(struct file_op *, const char hash[FILE_HASH_SIZE], struct coord_bytes *ret);
/* Removes the members that dead daemons left, in every group. */
void file_groups_reap(struct file_session *);

/* ---- members.c ---- */

enum file_life {
	FILE_LIVE,
	FILE_HIDDEN, /* Python's: its mtime is too old, or in the future */
	FILE_ABANDONED, /* the same, and for so long that it is nobody's any more */
	FILE_DEAD, /* its daemon has ended */
};
enum file_life file_member_life(
	struct file_session *, const struct file_raw *, const struct stat *, uint64_t *ret_wait_ms);
/* Reads and decodes <hash>.raw; *ret_data owns the bytes. */
int file_member_read(
	int group, const char *file, char **ret_data, struct file_raw *ret, struct stat *ret_stat);
int file_member_row(
	struct coord_op *, const struct file_raw *, const struct stat *, bool with_data);
int file_member_join(struct file_op *);
int file_member_update(struct file_op *);
int file_member_leave(struct file_op *);
int file_member_get(struct file_op *);
/* Takes it out of the tables; the caller has fs->lock. */
void file_joined_remove(struct file_session *, struct file_joined *);
/* On the loop: this entry of a group's directory is gone, or all of it (NULL), or who knows (wd -1). */
void file_members_event(struct file_session *, int wd, const char *file);
void file_touch_start(struct file_session *);
void file_touch_soon(struct file_session *, uint64_t ms); /* loop */
void file_members_leave(struct file_session *); /* close: all of ours */

/* ---- locks.c ---- */

void file_lock(struct coord_session *, struct coord_op *);
int file_lock_work(struct file_op *);
int file_convert(struct file_op *);
void file_convert_after(struct file_op *);
int file_unlock(struct file_op *);
int file_lock_check(struct file_op *);
void file_lock_after(struct file_op *);
void file_unlock_after(struct file_op *);
/* Takes it off the list; the caller has fs->lock. */
void file_held_unlist(struct file_session *, struct file_held *);
/* Lets go of a held lock; the caller has fs->lock, or nobody else sees it. */
void file_held_release(struct file_session *, struct file_held *);
/* The same, with a notice that it is lost, and in the log why, if not NULL; without memory for that it is
 * kept: false. The caller has fs->lock. */
bool file_held_lose(struct file_session *, struct file_held *, const char *why);
/* On the loop: the files of what we hold may have been removed. */
void file_held_event(struct file_session *);
/* The same, on the locks worker; nested: only of those whose directory nobody listens to. */
void file_held_look(struct file_session *, bool nested);
/* Opens the file of a lock. create: makes it, and the directories above. */
int file_lock_open(struct file_session *, enum coord_kind, const char *hash,
	struct coord_bytes name, int flags, bool create);
/* Is fd still the file of that name? */
bool file_lock_same(
	struct file_session *, enum coord_kind, const char *hash, struct coord_bytes name, int fd);
int file_ofd(int fd, short type);
/* The token of those who share a file whose counter is that. */
uint64_t file_shared_token(int fd, uint64_t counter);
/* What keeps us from an exclusive lock: F_UNLCK nothing; *ret_pid -1 for OFD locks. */
int file_ofd_look(int fd, short *ret_type, pid_t *ret_pid);

/* ---- waiters.c ---- */

/* Marks that this mount waits for that, and for nothing else: one op at a time does. */
void file_waiter_mark(struct file_watch *, enum coord_mode);
/* Ends the mark. */
void file_waiter_unmark(struct file_watch *);
/* Does another mount wait to hold it exclusively? */
bool file_waiter_writers(struct file_watch *);
bool file_waiter_others(struct file_session *, enum coord_kind, const char *hash);
/* On the loop: a file in the waiters' directory was touched. */
void file_waiter_event(struct file_session *, const char *file);

/* ---- sharers.c ---- */

/* At open: the session file is ours, and empty but for its text. */
int file_sharers_open(struct file_session *);
/* Notes that we hold a lock shared, and wipes the note; idempotent. */
void file_sharer_note(struct file_session *, struct file_held *);
void file_sharer_forget(struct file_session *, struct file_held *);

struct file_sharer {
	char hash[FILE_HASH_SIZE];
	uint64_t since_us;
	size_t member; /* whose: index into members */
};
struct file_sharer_member {
	char session[33];
	uint16_t len;
	char text[FILE_MEMBER_MAX];
};
/* What was read of all mounts' notes, by hash and time. */
struct file_sharers {
	struct file_sharer *list;
	struct file_sharer_member *members;
	size_t len, max, members_len;
	bool loaded;
};
/* Reads the notes about one lock, or about all (NULL); to be freed with file_sharers_done() whatever it
 * returns. */
int file_sharers_read(struct file_session *, const char *hash, struct file_sharers *ret);
void file_sharers_done(struct file_sharers *);
/* How many mounts share the lock, and of the first of them since when and which; 0: unknown. */
uint32_t file_sharers_find(const struct file_sharers *, const char *hash, uint64_t *ret_since_us,
	struct coord_bytes *ret_member);

/* ---- look.c ---- */

struct file_look {
	enum coord_mode mode; /* COORD_NONE: free */
	bool foreign;
	uint32_t pid;
	uint64_t token;
	bool known; /* record is valid */
	struct file_record record;
	char buffer[FILE_LOCK_MAX];
};
int file_look(struct file_session *, int fd, struct file_look *ret);
int file_lock_read(struct file_op *);
int file_lock_list(struct file_op *);

/* ---- break.c ---- */

void file_lock_break(struct coord_session *, struct coord_op *);
void file_break_cancel(struct file_op *);
/* On the loop: a request may lie in our directory. */
void file_break_event(struct file_session *);

/* ---- notices ---- */

/* Prepares a notice about a held lock or a member; NULL: no memory. */
struct file_notice *file_notice_new(
	enum coord_kind, struct coord_bytes name, const uint8_t owner[16], uint32_t epoch);
void file_notices_tell(struct file_session *); /* loop */

/* ---- watch.c ---- */

int file_notify_open(struct file_session *); /* worker, at open */
int file_notify_start(struct file_session *); /* loop */
void file_notify_close(struct file_session *);
/* Listens for what leaves a directory: a watch descriptor, or -1. And ends that, unless others listen too.
 * The caller has fs->lock. */
int file_notify_listen(struct file_session *, int dir);
int file_notify_held(struct file_session *, int fd); /* the same for the file of a held lock */
void file_notify_release(struct file_session *, int wd);
struct file_watch *file_watch_find(struct file_session *, enum coord_kind, const char *hash);
/* The watch of the op's key, made if make; one more reference. */
struct file_watch *file_watch_get(struct file_session *, enum coord_kind, struct coord_bytes name,
	const char *hash, bool make);
void file_watch_put(struct file_watch *);
void file_watch_pin(struct file_watch *); /* until unwatch */
void file_watch_unpin(struct file_watch *);
void file_unwatch(struct coord_session *, struct coord_key);
/* An op found that it has to wait: the mark stays until that was not so for a while. */
void file_watch_waits(struct file_watch *);
/* On a worker: listens to the object fd (entry NULL), or for an entry of the directory fd. */
int file_watch_listen(struct file_watch *, int fd, const char *entry);
/* On the locks worker: opens what a LOCK or LEADER watch is about, or listens for its coming. Returns
 * the descriptor, which stays the watch's, or -errno. */
int file_watch_lock(struct file_watch *);
void file_watch_group(struct file_watch *);

#endif
