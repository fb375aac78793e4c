/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the tree share. Nobody outside fs/ includes this.
 *
 *   fs.c        the object itself, and the coordinator's notices
 *   session.c   the session with the kernel: mount, receive, INIT, umount
 *   requests.c  libfuse's callbacks: to the kind of the inode that they are about
 *   calls.c     requests that wait: interrupts, limits, order behind changes
 *   inodes.c    inodes, attributes, names
 *   handles.c   open files: cursor and content
 *   dirs.c      open directories: snapshots
 *   perms.c     who may do what, and the limits for each uid
 *   groups.c members.c locks.c leaders.c events.c rings.c about.c metrics.c  what the calls mean in
 *               each subtree
 *   flocks.c    flock and fcntl onto holdings
 *   onloss.c    signals to those whose lock was lost
 *   procs.c     what /proc tells of a process; attempt.c  with a time limit
 *
 * Ownership: an inode lives while the kernel knows it (lookups) or something here refers to it (refs). A handle
 * lives from its OPEN to its RELEASE. A call lives from its request to its reply, and a reply frees it.
 */
#ifndef FS_TREE_H
#define FS_TREE_H

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>
#include <poll.h>
#include <stdio.h>

#include "coord/caps.h"
#include "coord/coord.h"
#include "coord/names.h"
#include "coord/table.h"
#include "fs/fs.h"
#include "fs/procs.h"

/* Limits for each uid but root. A waiter costs the daemon less than 1 KiB. */
#define FS_WAITERS_MAX 65536 /* blocked flock and fcntl requests: ENOLCK */
#define FS_HANDLES_MAX 65536 /* open files and directories: ENFILE; see fs->handles_max */
#define FS_FILES_SHARE 4 /* of the daemon's open files one uid may use that part for locks */
/* What its handles keep: listings (ENFILE), contents that were read or written (EDQUOT). Nothing is added
 * to that much, so there may be one piece more. */
#define FS_BYTES_MAX (64 << 20)
/* When names were changed here, by hash. A power of two. */
#define FS_CHANGED 4096
/* How long a request may take during which the kernel keeps a directory locked. */
#define FS_SHORT_MS 1000

enum fs_kind {
	FS_ROOT,
	FS_GROUPS, /* groups/ */
	FS_LEADERS,
	FS_LOCKS,
	FS_EVENTS,
	FS_RINGS,
	FS_ABOUT, /* .tooz/ */
	FS_GROUP, /* groups/g/ */
	FS_RING, /* rings/g/; up to here kinds are directories */
	FS_MEMBER, /* groups/g/m */
	FS_LEADER,
	FS_LOCK,
	FS_EVENT, /* events/g */
	FS_OBJECT, /* rings/g/object */
	FS_FACT, /* .tooz/state ... */
	FS_KINDS
};

struct fs_call;
struct fs_cursor;
struct fs_handle;
struct fs_holding;
struct fs_onloss;
struct fs_type;
struct fs_uid;
struct fs_wait;
struct fs_stream;

struct fs_inode {
	struct coord_node node; /* in fs->inodes; the key is parent and name */
	struct fs *fs;
	const struct fs_type *type;
	enum fs_kind kind;
	bool hashed;
	struct coord_list link; /* in fs->unhashed, if not hashed */
	struct fs_inode *parent; /* referenced; NULL: the root */
	struct coord_bytes name; /* decoded */
	uint64_t ino; /* st_ino, a hash of the path */
	uint64_t lookups; /* of the kernel */
	uint32_t refs, handles; /* handles: open ones */
	uint64_t seen_us; /* UTC when this inode came to be */
	struct coord_list opens; /* handles of it */
	uint32_t changes; /* GROUP: joins and leaves that nobody waits for */
	struct coord_list blocked; /* GROUP: calls that wait for these */
	struct fs_stream *stream; /* EVENT: the one that its readers share */
	char key[]; /* parent's address, then the name */
};

/* One entry of a snapshot. */
struct fs_entry {
	struct coord_row row; /* its bytes lie in the snapshot's memory */
	const char *file; /* encoded name */
	uint32_t next; /* of the same bucket, index + 1 */
};

/* Who opened a directory. Without holes: its bytes are a key. */
struct fs_reader {
	const struct fs_inode *dir;
	int32_t pid;
	uint32_t uid;
};

struct fs_snapshot {
	struct coord_node node; /* in fs->readers, if it answers */
	struct fs_reader reader;
	bool answers; /* of what its opener has open there, this was read last */
	bool names_only; /* it answers nothing else */
	uint64_t stamp; /* of fs, when the listing began */
	uint64_t used_ms; /* when it was taken or read from */
	size_t size; /* all its memory */
	struct fs_entry *entries;
	size_t len;
	uint32_t *buckets; /* index + 1 */
	size_t buckets_len; /* a power of two */
	bool indexed; /* buckets are filled, at the first look-up */
	char *memory;
};

/* What was written through a handle to a member, and how far it was published. */
struct fs_draft {
	char *text;
	size_t len, size;
	bool exclusive; /* O_EXCL */
	bool truncated; /* and nothing was written since */
	bool tried; /* something was published */
	bool refused; /* and not taken */
	bool overflown; /* too large, until it is truncated */
	bool pending; /* text that is not published */
	bool bound; /* by flock; nothing was published since it let go, if it did */
	bool finished; /* text was a whole JSON value: the next one begins anew */
	/* Of the write that is being published: how it was before, and the value that it ends with. */
	size_t len_before;
	bool finished_before;
	struct coord_bytes last; /* in text */
	enum coord_caps_text last_look;
};

struct fs_handle {
	struct coord_list link; /* inode->opens */
	struct fs_inode *inode; /* referenced */
	struct fs_uid *uid; /* who is charged for it; NULL: nobody */
	size_t bytes; /* charged for what is kept below */
	uint32_t opener_uid;
	int32_t opener_pid;
	bool writable;
	/* Reading. */
	bool ended, wrote; /* an end of file was read, or something written: take new content */
	bool listed; /* a directory was read from */
	char *content;
	size_t content_len;
	off_t base; /* where content begins, in the kernel's offsets */
	/* By kind. */
	struct fs_holding *holding; /* what flock through this handle holds */
	struct coord_list uses; /* holdings that were taken or waited for through it */
	struct fs_draft *draft; /* members opened for writing */
	struct fs_snapshot *snapshot; /* directories */
	char *leader; /* LEADER: the id written before campaigning */
	size_t leader_len;
	struct fs_cursor *cursor; /* EVENT */
	uint64_t seen; /* FACT: fs->changes when it was read last; 0: never */
	struct fuse_pollhandle *poll;
	struct fs_trace *opener; /* with on_loss */
};

struct fs_call {
	struct coord_list link; /* fs->calls */
	struct coord_list blocked; /* inode->blocked */
	struct fs *fs;
	fuse_req_t req;
	struct fs_inode *inode; /* what it is about; referenced; may be NULL */
	struct fs_handle *handle; /* may be NULL */
	bool owns_handle; /* an OPEN or CREATE that was not answered yet */
	bool limited; /* limit was set */
	bool interrupted; /* and that by an interrupt */
	bool counts; /* an end at this limit shows that the backend is silent */
	bool changing; /* a change was sent: no interrupt ends it */
	bool eager; /* an interrupt ends it at once */
	bool counting; /* READ: is held, and asks who else shares it */
	struct coord_req *wait;
	struct fs_wait *lock; /* O_EXCL: owned */
	struct coord_timer limit;
	int late; /* the errno when the limit passes */
	void (*then)(struct fs_call *); /* after changes */
	void (*late_fn)(struct fs_call *); /* instead of late */
	size_t size; /* READ, READDIR, WRITE ... */
	off_t off;
	uint64_t stamp; /* OPENDIR, READDIR: fs->stamp when it came */
	bool names_only; /* OPENDIR, READDIR: with their data it is too much */
	int flags;
	uint64_t owner; /* GETLK */
	uint64_t due_ms; /* OBJECT: until when it waits for the ring */
	bool again; /* OBJECT: there was no group, in a read that may have begun before */
	uint32_t uid;
	struct fuse_file_info fi; /* OPEN, CREATE */
};

/* What calls mean for one kind of inode. NULL: the default that requests.c names. Each answers its
 * request, now or later. */
struct fs_type {
	bool is_dir;
	bool stream; /* reads as a pipe does: no content is kept, offsets mean nothing */
	/* On directories; name is a file name as the kernel gave it. */
	void (*lookup)(fuse_req_t, struct fs_inode *dir, const char *name);
	void (*create)(
		fuse_req_t, struct fs_inode *dir, const char *name, const struct fuse_file_info *);
	void (*mkdir)(fuse_req_t, struct fs_inode *dir, const char *name);
	void (*rmdir)(fuse_req_t, struct fs_inode *dir, const char *name);
	void (*unlink)(fuse_req_t, struct fs_inode *dir, const char *name);
	/* Fills the handle's snapshot and calls fs_dirs_filled or fs_call_error. */
	void (*list)(struct fs_call *);
	enum fs_kind child;
	/* On anything. */
	void (*getattr)(fuse_req_t, struct fs_inode *);
	/* touch, truncate: to_set without mode and owner. */
	void (*setattr)(fuse_req_t, struct fs_inode *, const struct stat *, int to_set,
		const struct fuse_file_info *);
	unsigned (*mode)(struct fs *, struct fs_inode *);
	/* On files. */
	void (*open)(fuse_req_t, struct fs_inode *, const struct fuse_file_info *);
	/* Gives the handle new content: fs_handle_fill, or fs_call_error. */
	void (*read)(struct fs_call *);
	void (*write)(fuse_req_t, struct fs_handle *, const char *data, size_t len);
	void (*flush)(fuse_req_t, struct fs_handle *, uint64_t owner);
	void (*fsync)(fuse_req_t, struct fs_handle *);
	void (*release)(struct fs *, struct fs_handle *); /* before it is freed */
	unsigned (*poll)(
		struct fs_handle *); /* what is ready; fs_handle_notify when that changes */
	void (*getxattr)(fuse_req_t, struct fs_inode *, const char *name, size_t size);
	/* Kind and name of the holding that flock means; kind LOCK, LEADER or MEMBER. */
	bool lockable;
	enum coord_kind lock_kind;
};

struct fs {
	struct coord_loop *loop;
	struct coord *coord;
	struct fs_options options;
	char *source, *mountpoint, *fuse_options;
	struct fs_events events;
	void *user;
	/* session.c */
	struct fuse_session *session;
	struct fuse_buf buf;
	struct coord_fd *watch;
	uint64_t busy_us;
	bool mounted, init_seen, ready, replied, over;
	bool opening_stream; /* the next reply is of an OPEN that is one */
	char device[32]; /* of our mount, "0:45"; empty: unknown */
	/* the tree */
	struct fs_inode *fixed[FS_GROUP]; /* root and the fixed directories */
	struct coord_table inodes, owners; /* owners: fs_holding by inode and lock owner */
	struct coord_list unhashed; /* removed, but known to the kernel or open */
	struct coord_list calls, waits;
	uint32_t pending; /* how many are in these */
	uint32_t handles_max; /* for each uid */
	struct coord_list uids;
	struct coord_table made; /* groups.c: who made a group here */
	struct coord_req *made_sweep;
	size_t made_max; /* when to look which are left */
	struct coord_table rings; /* rings.c: by the group's name */
	struct coord_list rings_used;
	size_t rings_points;
	uint64_t rings_built;
	struct coord_table readers; /* dirs.c: the snapshots that answer, by who opened them */
	uint64_t stamp, changed[FS_CHANGED]; /* counts changes of names; each one's last, by hash */
	uint64_t started_us;
	uint64_t changes; /* of what .tooz/state and session say, from 1 on */
	struct fs_onloss *onloss; /* NULL: nobody is signalled */
};

extern const struct fs_type fs_type_root, fs_type_groups, fs_type_group, fs_type_member,
	fs_type_leaders, fs_type_leader, fs_type_locks, fs_type_lock, fs_type_events, fs_type_event,
	fs_type_rings, fs_type_ring, fs_type_object, fs_type_about, fs_type_fact;
extern const struct fuse_lowlevel_ops fs_requests;

static inline struct fs *fs_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* ---- inodes ---- */
int fs_inodes_init(struct fs *);
void fs_inodes_done(struct fs *);
struct fs_inode *fs_inode_at(struct fs *, fuse_ino_t);
/* The inode of that name, with a reference for the caller. NULL: out of memory. */
struct fs_inode *fs_inode_get(
	struct fs *, struct fs_inode *parent, enum fs_kind, struct coord_bytes name);
/* As get, without making one; no reference. NULL: there is none. */
struct fs_inode *fs_inode_find(
	struct fs *, struct fs_inode *parent, enum fs_kind, struct coord_bytes name);
struct fs_inode *fs_inode_ref(struct fs_inode *);
void fs_inode_unref(struct fs *, struct fs_inode *);
void fs_inode_forget(struct fs *, struct fs_inode *, uint64_t lookups);
/* A removed directory is never found again: the kernel marks its inode dead. */
void fs_inode_unhash(struct fs *, struct fs_inode *);
uint64_t fs_inode_hash(const struct fs_inode *parent, enum fs_kind, struct coord_bytes name);
/* Decodes a file name below dir into buf. create: what is no name is -EINVAL, else -ENOENT. */
int fs_name_decode(
	const char *file, bool create, char buf[COORD_NAME_MAX + 1], struct coord_bytes *ret);
/* Mode, owner and numbers of an inode, without size and times. */
void fs_attr(struct fs *, struct fs_inode *, struct stat *ret);
void fs_attr_times(struct stat *, uint64_t changed_us, uint64_t modified_us);
double fs_attr_timeout(const struct fs_inode *);
void fs_reply_entry(fuse_req_t, struct fs_inode *, const struct stat *);
void fs_reply_attr(fuse_req_t, struct fs_inode *, const struct stat *);
/* Size 0, and the times of the inode. */
void fs_reply_plain_attr(fuse_req_t, struct fs_inode *);

/* ---- calls ---- */
/* Begins a call about an inode and perhaps a handle, and listens for its interrupt. NULL: it was answered
 * (ENOMEM). Call it first thing. */
struct fs_call *fs_call_new(fuse_req_t, struct fs_inode *, struct fs_handle *);
/* Each answers and frees the call. code is an errno or its negative; 0: success. */
void fs_call_error(struct fs_call *, int code);
void fs_call_entry(struct fs_call *, const struct stat *);
void fs_call_attr(struct fs_call *, const struct stat *);
/* The answer of an OPEN or CREATE whose handle is call->handle. */
void fs_call_opened(struct fs_call *);
void fs_call_created(struct fs_call *, const struct stat *);
/* It was answered by other means. */
void fs_call_free(struct fs_call *);
/* Answers with late when ms have passed. */
void fs_call_limit(struct fs_call *, uint64_t ms, int late);
/* A change is being sent that has no limit but the coordinator's: it is waited for. */
void fs_call_changing(struct fs_call *);
/* For calls during which a directory is locked: a limit, and -EHOSTDOWN at once while suspended.
 * Returns false if the call was answered. */
bool fs_call_short(struct fs_call *);
/* Runs then as soon as no change of ours is under way in the group: perhaps now. */
void fs_call_after_changes(
	struct fs_call *, struct fs_inode *group, void (*then)(struct fs_call *));
/* A change begins and ends that nobody waits for. */
void fs_change_begin(struct fs_inode *group);
void fs_change_end(struct fs *, struct fs_inode *group);
/* Ends every call, with code. */
void fs_calls_end(struct fs *, int code);
/* For a coord_reply_fn whose call only wants the status. */
void fs_call_reply(void *call, int status, const struct coord_row *, size_t);
/* -errno from starting a request of the coordinator: answers if it failed. */
void fs_call_started(struct fs_call *, int r);

/* ---- handles ---- */
/* Opens a handle of inode for the caller of req. Returns 0, -ENOMEM, -ENFILE. */
int fs_handle_new(
	fuse_req_t, struct fs_inode *, const struct fuse_file_info *, struct fs_handle **ret);
void fs_handle_free(struct fs *, struct fs_handle *);
struct fs_handle *fs_handle_of(const struct fuse_file_info *);
/* A call that opens: begins it and makes the handle. NULL: answered. */
struct fs_call *fs_handle_open(fuse_req_t, struct fs_inode *, const struct fuse_file_info *);
/* The same for what only can be read: EACCES otherwise. */
struct fs_call *fs_handle_open_read_only(
	fuse_req_t, struct fs_inode *, const struct fuse_file_info *);
/* READ of whatever kind. */
void fs_handle_read(fuse_req_t, struct fs_handle *, size_t size, off_t off, int flags);
/* Sets the content and answers the READ; takes content, a malloced buffer or NULL. */
void fs_handle_fill(struct fs_call *, char *content, size_t len);
/* As fill, copying. */
void fs_handle_fill_copy(struct fs_call *, struct coord_bytes);
/* Wakes whoever polls it. */
void fs_handle_notify(struct fs_handle *);
/* The handle of that inode that this pid opened for writing, or NULL. */
struct fs_handle *fs_handle_by_pid(struct fs_inode *, int32_t pid);

/* ---- dirs ---- */
void fs_dirs_open(fuse_req_t, struct fs_inode *, const struct fuse_file_info *);
void fs_dirs_read(fuse_req_t, struct fs_handle *, size_t size, off_t off);
/* From type->list: these rows (NULL-ended list), of which those with the flag `without` are left out. */
void fs_dirs_filled(struct fs_call *, const struct coord_row *, unsigned without);
void fs_snapshot_free(struct fs *, struct fs_snapshot *);
/* The entry of that name in what the caller of req is reading of dir; NULL: none. */
const struct fs_entry *fs_dirs_find(
	fuse_req_t, const struct fs_inode *dir, struct coord_bytes name);
/* Is the caller reading this directory? */
bool fs_dirs_has(fuse_req_t, const struct fs_inode *dir);
/* Something changed here: no snapshot that there is answers for that name any more. */
void fs_dirs_forget(struct fs_inode *dir, struct coord_bytes name);

/* ---- perms ---- */
/* May the caller write to a file of ours with that handle open? Asks for groups only if they matter. */
bool fs_may_write(fuse_req_t, const struct fs_handle *);
/* As above by path: a file of mode 0666 less umask. */
bool fs_may_write_file(fuse_req_t, bool default_answer);
/* Is the caller that uid (UINT32_MAX: nobody's), the mount's owner or root? */
bool fs_may_undo(fuse_req_t, uint32_t uid);
struct fs_uid *fs_uid_get(struct fs *, uint32_t uid); /* NULL: not limited, or no memory */
void fs_limits_init(struct fs *); /* with fs->coord */
bool fs_uid_handle(struct fs *, struct fs_uid *); /* false: at the limit */
void fs_uid_handle_done(struct fs *, struct fs_uid *);
/* A handle keeps so many bytes instead of others. false: its uid is at the limit, nothing is charged. */
bool fs_charge(struct fs_handle *, size_t before, size_t after);
bool fs_uid_wait(struct fs_uid *);
void fs_uid_wait_done(struct fs *, struct fs_uid *);
void fs_uids_done(struct fs *);

/* ---- flocks ---- */
struct fs_holding {
	struct coord_node node; /* in fs->owners while it has an owner */
	struct coord_list uses; /* handles through which it was taken or waited for; never none */
	struct coord_list waits; /* requests that wait for it */
	/* There may be ten thousand of them, so this one is packed. */
	struct fs_inode *inode; /* the handles'; with owner the key in fs->owners */
	uint64_t owner;
	struct fs_handle *handle; /* for whose flock it is; NULL: fcntl only */
	struct coord_holding *held;
	uint8_t flock, posix; /* enum coord_mode: what each of the two asked for and has */
	bool owned; /* owner is set: fcntl uses it */
	bool dropped; /* rm took it: as if lost, but it may be locked again */
	bool bound; /* a membership, which ends with it */
	uint32_t taker_pid, taker_uid;
	struct fs_trace *taker; /* with on_loss */
};

/* One of the pairs of a holding and a handle. */
struct fs_use {
	struct coord_list of_handle, of_holding;
	struct fs_handle *handle;
	struct fs_holding *holding;
};

void fs_flock(fuse_req_t, struct fs_handle *, int op);
void fs_setlk(fuse_req_t, struct fs_handle *, uint64_t owner, const struct flock *, bool wait);
void fs_getlk(fuse_req_t, struct fs_handle *, uint64_t owner, const struct flock *);
/* The owner closed a descriptor of the inode. */
void fs_flocks_flush(struct fs *, struct fs_inode *, uint64_t owner);
/* Ends what was taken through the handle. */
void fs_flocks_release(struct fs *, struct fs_handle *);
void fs_flocks_release_flock(struct fs *, struct fs_handle *);
/* Lets go of a holding on behalf of rm: for its handles it is lost, until they unlock, lock or close. */
void fs_flocks_drop(struct fs *, struct fs_holding *);
/* O_EXCL: an exclusive try on the handle of a CREATE. Answers the call. */
void fs_flock_excl(struct fs_call *);
/* The holding through which the handle holds or lost something, or NULL. */
struct fs_holding *fs_handle_holding(const struct fs_handle *);
bool fs_holding_lost(const struct fs_holding *);
/* The handle through which it was taken, of several the first. */
struct fs_handle *fs_holding_handle(const struct fs_holding *);
/* It was lost: wakes those who poll its handles. */
void fs_holding_notify(struct fs_holding *);
/* Is this thread blocked in a lock request? For onloss. */
size_t fs_waiting_pids(struct fs *, int32_t *ret, size_t max);
void fs_waits_end(struct fs *, int code);
int fs_lock_errno(int code);

/* ---- groups and members ---- */
void fs_groups_done(struct fs *);
/* Of directories that have one entry for each group, of dir->type->child. */
void fs_groups_lookup(fuse_req_t, struct fs_inode *dir, const char *name);
void fs_groups_list(struct fs_call *);
void fs_rings_done(struct fs *);
/* A holding of the member was let go: the member leaves if that was the last. */
void fs_member_unbind(struct fs *, struct fs_inode *member);
/* Who holds the member, by the name of its holdings. */
void fs_member_lock_info(struct fs *, struct coord_bytes name, struct coord_lock_info *ret);

/* ---- locks ---- */
/* Content of a lock or leader; writes at most FS_CONTENT_MAX bytes. */
#define FS_CONTENT_MAX 2048
size_t fs_lock_format(struct fs *, const struct coord_lock_info *, char *ret);
size_t fs_leader_format(struct fs *, const struct coord_lock_info *, char *ret);
/* Shared by locks/ and leaders/. */
void fs_held_lookup(fuse_req_t, struct fs_inode *dir, const char *name);
void fs_held_list(struct fs_call *);
void fs_held_unlink(fuse_req_t, struct fs_inode *dir, const char *name);
void fs_held_getattr(fuse_req_t, struct fs_inode *);
void fs_held_open(fuse_req_t, struct fs_inode *, const struct fuse_file_info *);
void fs_held_read(struct fs_call *);
/* It was lost: who reads it meanwhile is told, and waits for nobody. */
void fs_held_lost(struct fs *, const struct fs_holding *);
void fs_held_flush(fuse_req_t, struct fs_handle *, uint64_t owner);
void fs_held_fsync(fuse_req_t, struct fs_handle *);
void fs_held_getxattr(fuse_req_t, struct fs_inode *, const char *name, size_t size);
void fs_held_setattr(fuse_req_t, struct fs_inode *, const struct stat *, int to_set,
	const struct fuse_file_info *);
/* The CREATE call of a file in locks/ or leaders/: decodes, begins. NULL: answered. */
struct fs_call *fs_held_create(
	fuse_req_t, struct fs_inode *dir, const char *name, const struct fuse_file_info *);
/* Answers a CREATE with what is known now. */
void fs_held_created(struct fs_call *);
unsigned fs_file_mode(struct fs *, struct fs_inode *);
unsigned fs_fixed_mode(struct fs *, struct fs_inode *); /* 0555 */
unsigned fs_read_only_mode(struct fs *, struct fs_inode *); /* 0444 */

/* ---- about ---- */
char *fs_metrics_text(struct fs *); /* malloced; NULL: out of memory */
/* The coordinator's state is another: wakes who polls. */
void fs_about_changed(struct fs *);

/* ---- onloss ---- */
int fs_onloss_new(struct fs *); /* after mounting; nothing without on_loss */
void fs_onloss_free(struct fs *);
/* Remembers the process of the thread that made the request at hand; NULL without on_loss, or if it cannot be read. */
struct fs_trace *fs_trace_new(struct fs *, int32_t tid, uint32_t uid);
void fs_onloss_signal(struct fs *, struct fs_holding *);

/* ---- session ---- */
/* The tree's own part of the end; calls what main.c waits for. */
void fs_session_free(struct fs *);
void fs_session_init(void *user, struct fuse_conn_info *);

#endif
