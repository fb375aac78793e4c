/* SPDX-License-Identifier: Apache-2.0 */
/*
 * on_loss=: signals to the processes whose lock was lost.
 *
 * What is remembered of a process is a trace: pid and start time, process group, session, uid; of whoever
 * opened the handle, and of whoever locked it last. At a loss a worker walks /proc for processes that have
 * the inode open, in whatever mount namespace, and that match a trace: of its uid, and the process itself,
 * its descendant, or of its group or session. Never a process that is blocked in a lock request here.
 *
 * fdinfo does not show which handle a descriptor is, so this is an approximation, and those who opened a
 * handle of the same inode that lost nothing (the next in a queue, in the same script) are told from those
 * who lost one by descent: of a process and its ancestors the nearest decides that opened or took either.
 * Only where nobody did do group and session count.
 *
 * Whether a descriptor is of this mount is asked of statx(2) with AT_STATX_DONT_SYNC, which FUSE answers
 * from what the kernel knows (fuse_update_get_attr in its fs/fuse/dir.c): anything else would ask this
 * daemon, which waits for the walk when it ends.
 *
 * That spares this daemon, not others: execve(2) holds a lock of its process while it closes descriptors,
 * for as long as the daemon of another FUSE mount takes to answer, and who looks at the process then waits.
 * So looks at processes are attempts with a time limit, and one that does not let itself be looked at is passed
 * over, as long as that lasts. Only processes of users who lost something are looked at, and each user has some
 * such looks and no more, so that none can keep another's processes from being signalled.
 *
 * Losses of one turn of the loop are one walk.
 */
#include "fs/tree.h"

#include <assert.h>
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kcmp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <syslog.h>

#include "coord/worker.h"
#include "fs/attempt.h"

#define DEPTH_MAX 64 /* ancestors to look at */
#define FDS_MAX 32 /* descriptors of one inode in one process to compare */
#define LOOK_MS 500 /* a look that does not go on for so long hangs */
#define HASTY_MS 100 /* the same, if some of that user's have hung in this walk */
#define HASTY_FROM 2
#define HUNG_MAX 256 /* looks that hang */
#define HUNG_USER_MAX 16 /* the same, at processes of one user */
#define VICTIMS_MAX 256 /* descriptors of processes, until they are signalled */

struct target {
	uint64_t ino;
	struct fs_inode *inode; /* referenced; until the walk is submitted */
	char path[COORD_NAME_MAX + 16]; /* below the mount point, for the log */
	struct fs_trace traces[2]; /* pid 0: none */
	bool found; /* somebody was signalled for it */
};

/* Who opened a handle that lost nothing, of an inode of which another did. */
struct bystander {
	uint64_t ino;
	int32_t pid;
	uint64_t start;
};

/* Who is to be signalled. */
struct victim {
	int32_t pid;
	int pidfd; /* that process, whoever has its number later */
	uint32_t uid; /* that matched */
	const struct target *target;
};

/* Of whom something was lost. */
struct user {
	uint32_t uid;
	unsigned hung; /* looks at his processes, in this walk */
	bool told; /* that others are passed over */
};

/* The looks that are under way or hang: of all walks, and beyond their end. */
struct looks {
	atomic_uint refs;
	atomic_int pids[HUNG_MAX]; /* 0: free */
	uint32_t uids[HUNG_MAX]; /* by the walk only */
};

struct walk {
	struct coord_job job;
	atomic_uint refs; /* the walk's own, and those of looks */
	unsigned major, minor; /* of the mount */
	int signum;
	struct looks *looks; /* the mount's */
	struct target *targets; /* by ino */
	size_t targets_len, targets_size;
	struct bystander *bystanders; /* by ino, then pid */
	size_t bystanders_len;
	struct user *users;
	size_t users_len;
	struct victim victims[VICTIMS_MAX];
	size_t victims_len;
	int32_t *waiting; /* threads in lock requests, ascending */
	size_t waiting_len;
	bool over; /* the kernel has closed the files: that nobody has them is no news */
	bool full; /* something was left undone for lack of memory or threads */
};

/* A look at a process. Of the walk it reads what does not change any more. */
struct look {
	struct fs_attempt attempt;
	struct walk *walk; /* referenced */
	struct looks *looks; /* referenced */
	size_t slot;
	int32_t pid;
	uint32_t uids[2];
	struct fs_trace last; /* that was read */
	/* What is found: that the process is to be signalled for these. */
	struct target **hits;
	size_t hits_len, hits_size;
	uint32_t uid; /* that matched, for the first of them */
	bool full;
};

struct fs_onloss {
	struct fs *fs;
	int signum;
	unsigned major, minor; /* of the mount */
	struct coord_worker *worker;
	struct coord_task task;
	struct looks *looks;
	struct walk *next; /* gathers until the end of the turn */
};

struct fs_trace *fs_trace_new(struct fs *fs, int32_t tid, uint32_t uid)
{
	struct fs_trace trace;
	int32_t pid = fs->onloss ? fs_process_of(tid) : 0;
	if (!pid || fs_trace_read(pid, &trace) < 0)
		return NULL;
	struct fs_trace *copy = malloc(sizeof(*copy));
	if (!copy)
		return NULL;
	trace.uid = uid;
	*copy = trace;
	return copy;
}

static void looks_unref(struct looks *looks)
{
	if (looks && atomic_fetch_sub(&looks->refs, 1) == 1)
		free(looks);
}

static void walk_unref(struct walk *walk)
{
	if (!walk || atomic_fetch_sub(&walk->refs, 1) > 1)
		return;
	free(walk->targets);
	free(walk->bystanders);
	free(walk->users);
	free(walk->waiting);
	free(walk);
}

/* ---- Descriptors ---- */

/* The first target of that inode, or NULL. */
static struct target *target_find(const struct walk *walk, uint64_t ino)
{
	size_t low = 0, high = walk->targets_len;
	while (low < high) {
		size_t middle = (low + high) / 2;
		if (walk->targets[middle].ino < ino)
			low = middle + 1;
		else
			high = middle;
	}
	return low < walk->targets_len && walk->targets[low].ino == ino ? &walk->targets[low]
									: NULL;
}

/* The mount need not be in that process' mount namespace, nor mounted any more. */
static bool fd_is_ours(const struct walk *walk, int32_t pid, const char *fd, uint64_t ino)
{
	char path[64];
	struct statx stx;
	snprintf(path, sizeof(path), "/proc/%" PRId32 "/fd/%.16s", pid, fd);
	return statx(AT_FDCWD, path, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_INO, &stx) == 0 &&
	       stx.stx_dev_major == walk->major && stx.stx_dev_minor == walk->minor &&
	       stx.stx_ino == ino;
}

static bool is_same_file(int32_t pid, int a, int b)
{
	return syscall(SYS_kcmp, pid, pid, KCMP_FILE, a, b) == 0;
}

/* How many handles of the inode a process has open. */
static size_t count_handles(struct look *look, int32_t pid, uint64_t ino)
{
	char path[64];
	const struct dirent *entry;
	int fds[FDS_MAX];
	size_t len = 0;
	snprintf(path, sizeof(path), "/proc/%" PRId32 "/fdinfo", pid);
	DIR *dir = opendir(path);
	while (dir && len < FDS_MAX && (entry = readdir(dir))) {
		fs_attempt_progress(&look->attempt);
		if (!isdigit((unsigned char)*entry->d_name) ||
			fs_process_fd_ino(pid, entry->d_name) != ino ||
			!fd_is_ours(look->walk, pid, entry->d_name, ino))
			continue;
		size_t i = 0;
		fds[len] = atoi(entry->d_name);
		while (i < len && !is_same_file(pid, fds[i], fds[len]))
			i++;
		if (i == len)
			len++;
	}
	if (dir)
		closedir(dir);
	return len;
}

/* ---- Processes ---- */

static bool uid_is_of(const uint32_t uids[2], uint32_t uid)
{
	return uids[0] == uid || uids[1] == uid;
}

static int compare_bystanders(const void *a, const void *b)
{
	const struct bystander *x = a, *y = b;
	if (x->ino != y->ino)
		return x->ino > y->ino ? 1 : -1;
	return (x->pid > y->pid) - (x->pid < y->pid);
}

/* Did the process with that number start then? It is asked only of those with the right number: that may hang. */
static bool started(struct look *look, int32_t pid, uint64_t start)
{
	if (look->last.pid != pid && fs_trace_read(pid, &look->last) < 0)
		look->last = (struct fs_trace){0};
	return look->last.pid == pid && look->last.start == start;
}

/* How many handles of the inode, of those that lost nothing, the process opened. */
static size_t count_bystanding(struct look *look, int32_t pid, uint64_t ino)
{
	const struct walk *walk = look->walk;
	const struct bystander key = {.ino = ino, .pid = pid}, *found, *end;
	size_t count = 0;
	if (!walk->bystanders_len)
		return 0;
	end = walk->bystanders + walk->bystanders_len;
	found = bsearch(
		&key, walk->bystanders, walk->bystanders_len, sizeof(key), compare_bystanders);
	while (found && found > walk->bystanders && !compare_bystanders(found - 1, &key))
		found--;
	for (; found && found < end && !compare_bystanders(found, &key); found++)
		count += started(look, pid, found->start);
	return count;
}

/* The trace for which the process is to be signalled, or NULL. Of itself and its ancestors the nearest that opened or took
 * a handle decides. One that opened others may have, beside these, inherited the one that was lost: then
 * those above it decide. */
static const struct fs_trace *matches(struct look *look, const struct target *target)
{
	static const struct fs_trace none;
	const struct fs_trace *traces[2];
	int32_t pid = look->pid;
	for (int i = 0; i < 2; i++)
		traces[i] =
			uid_is_of(look->uids, target->traces[i].uid) ? &target->traces[i] : &none;
	if (!traces[0]->pid && !traces[1]->pid)
		return NULL;
	for (int depth = 0; pid > 1 && depth < DEPTH_MAX; depth++) {
		for (int i = 0; i < 2; i++)
			if (traces[i]->pid == pid && started(look, pid, traces[i]->start))
				return traces[i];
		size_t others = count_bystanding(look, pid, target->ino);
		if (others && count_handles(look, pid, target->ino) <= others)
			return NULL;
		pid = fs_parent_of(pid);
	}
	for (int i = 0; i < 2; i++)
		if (traces[i]->pid && (getpgid(look->pid) == traces[i]->pgrp ||
					      getsid(look->pid) == traces[i]->sid))
			return traces[i];
	return NULL;
}

static int compare_pids(const void *a, const void *b)
{
	int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
	return (x > y) - (x < y);
}

static bool is_waiting(const struct walk *walk, int32_t pid)
{
	char path[64];
	bool found = false;
	const struct dirent *entry;
	if (!walk->waiting_len)
		return false;
	snprintf(path, sizeof(path), "/proc/%" PRId32 "/task", pid);
	DIR *dir = opendir(path);
	while (dir && !found && (entry = readdir(dir))) {
		int32_t tid = atoi(entry->d_name);
		found = tid &&
			bsearch(&tid, walk->waiting, walk->waiting_len, sizeof(tid), compare_pids);
	}
	if (dir)
		closedir(dir);
	return found;
}

/* ---- Looks ---- */

static void look_done(struct fs_attempt *attempt)
{
	struct look *look = coord_container(attempt, struct look, attempt);
	atomic_store(&look->looks->pids[look->slot], 0);
	looks_unref(look->looks);
	walk_unref(look->walk);
	free(look->hits);
	free(look);
}

static void add_hit(struct look *look, struct target *target, uint32_t uid)
{
	if (look->hits_len == look->hits_size) {
		size_t size = look->hits_size ? 2 * look->hits_size : 4;
		struct target **hits = realloc(look->hits, size * sizeof(struct target *));
		look->full = !hits;
		if (!hits)
			return;
		look->hits = hits;
		look->hits_size = size;
	}
	if (look->hits_len == 0)
		look->uid = uid;
	look->hits[look->hits_len++] = target;
}

/* Which of the losses a process is to be signalled for. */
static void look_through(struct fs_attempt *attempt)
{
	struct look *look = coord_container(attempt, struct look, attempt);
	const struct walk *walk = look->walk;
	const struct target *end = walk->targets + walk->targets_len;
	char path[64];
	const struct dirent *entry;
	snprintf(path, sizeof(path), "/proc/%" PRId32 "/fdinfo", look->pid);
	DIR *dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		fs_attempt_progress(attempt);
		bool is_fd = isdigit((unsigned char)*entry->d_name);
		uint64_t ino = is_fd ? fs_process_fd_ino(look->pid, entry->d_name) : 0;
		struct target *target = ino ? target_find(walk, ino) : NULL;
		if (!target || !fd_is_ours(walk, look->pid, entry->d_name, ino))
			continue;
		for (; target < end && target->ino == ino; target++) {
			const struct fs_trace *trace = matches(look, target);
			if (trace)
				add_hit(look, target, trace->uid);
		}
	}
	if (dir)
		closedir(dir);
	if (look->hits_len && is_waiting(walk, look->pid))
		look->hits_len = 0;
}

/* A place for a look at that process: -EBUSY: one hangs already; -EAGAIN: too many of that user's do. */
static int looks_take(struct looks *looks, int32_t pid, uint32_t uid, size_t *ret_slot)
{
	size_t of_user = 0, free_slot = HUNG_MAX;
	for (size_t i = 0; i < HUNG_MAX; i++) {
		int other = atomic_load(&looks->pids[i]);
		if (other == pid)
			return -EBUSY;
		of_user += other && looks->uids[i] == uid;
		if (!other)
			free_slot = i;
	}
	if (free_slot == HUNG_MAX || of_user == HUNG_USER_MAX)
		return -EAGAIN;
	looks->uids[free_slot] = uid;
	atomic_store(&looks->pids[free_slot], pid);
	*ret_slot = free_slot;
	return 0;
}

static void tell_passed(struct user *user, int32_t pid, bool others)
{
	if (!others || !user->told)
		coord_log(LOG_WARNING,
			"on_loss: process %" PRId32 " cannot be looked at%s: passed over%s", pid,
			others ? "" : ", maybe it hangs in execve",
			others ? ", as are others of its user" : "");
	user->told |= others;
}

/* Looks at a process, which counts for that user. NULL: it was passed over. */
static struct look *look_at(
	struct walk *walk, int32_t pid, const uint32_t uids[2], struct user *user)
{
	size_t slot;
	int r = looks_take(walk->looks, pid, user->uid, &slot);
	if (r == -EAGAIN)
		tell_passed(user, pid, true);
	if (r)
		return NULL;
	struct look *look = calloc(1, sizeof(*look));
	if (!look) {
		atomic_store(&walk->looks->pids[slot], 0);
		walk->full = true;
		return NULL;
	}
	look->attempt.fn = look_through;
	look->attempt.done = look_done;
	look->walk = walk;
	look->looks = walk->looks;
	look->slot = slot;
	look->pid = pid;
	memcpy(look->uids, uids, sizeof(look->uids));
	atomic_fetch_add(&walk->refs, 1);
	atomic_fetch_add(&walk->looks->refs, 1);
	r = fs_attempt(&look->attempt, user->hung < HASTY_FROM ? LOOK_MS : HASTY_MS);
	if (r == 0)
		return look;
	user->hung += r == -ETIMEDOUT;
	if (r == -ETIMEDOUT)
		tell_passed(user, pid, false);
	else
		walk->full = true;
	return NULL;
}

/* ---- Signalling ---- */

/* Only when all are known: a descendant is none any more when its parent has ended. By then it may be
 * another user's (su, sudo). */
static void signal_victims(struct walk *walk)
{
	uint32_t uids[2];
	for (size_t i = 0; i < walk->victims_len; i++) {
		const struct victim *victim = &walk->victims[i];
		_cleanup_close_ int pidfd = victim->pidfd;
		if (!fs_process_uids(victim->pid, uids) || !uid_is_of(uids, victim->uid))
			continue;
		if (syscall(SYS_pidfd_send_signal, pidfd, walk->signum, NULL, 0) == 0)
			coord_log(LOG_NOTICE, "%s was lost: signal %d to process %" PRId32,
				victim->target->path, walk->signum, victim->pid);
		else if (errno != ESRCH)
			coord_log(LOG_WARNING, "%s was lost, but process %" PRId32 ": %s",
				victim->target->path, victim->pid, strerror(errno));
	}
	walk->victims_len = 0;
}

static struct user *user_find(struct walk *walk, uint32_t uid)
{
	for (size_t i = 0; i < walk->users_len; i++)
		if (walk->users[i].uid == uid)
			return &walk->users[i];
	return NULL;
}

/* It may have lost several, and is signalled once. */
static void visit_process(struct walk *walk, int32_t pid)
{
	uint32_t uids[2];
	if (!fs_process_uids(pid, uids))
		return;
	struct user *user = user_find(walk, uids[0]);
	if (!user)
		user = user_find(walk, uids[1]);
	int pidfd = user ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
	struct look *look = pidfd < 0 ? NULL : look_at(walk, pid, uids, user);
	for (size_t i = 0; look && i < look->hits_len; i++)
		look->hits[i]->found = true;
	if (look && look->hits_len) {
		if (walk->victims_len == VICTIMS_MAX)
			signal_victims(walk);
		walk->victims[walk->victims_len++] = (struct victim){
			.pid = pid, .pidfd = pidfd, .uid = look->uid, .target = look->hits[0]};
		pidfd = -1;
	}
	if (look) {
		walk->full |= look->full;
		fs_attempt_free(&look->attempt);
	}
	if (pidfd >= 0)
		close(pidfd);
}

/* ---- The walk ---- */

static int compare_targets(const void *a, const void *b)
{
	const struct target *x = a, *y = b;
	if (x->ino != y->ino)
		return x->ino > y->ino ? 1 : -1;
	return (x->inode > y->inode) - (x->inode < y->inode);
}

static void find_users(struct walk *walk)
{
	walk->users = calloc(2 * walk->targets_len + 1, sizeof(*walk->users));
	walk->full = !walk->users;
	for (size_t i = 0; walk->users && i < 2 * walk->targets_len; i++) {
		const struct fs_trace *trace = &walk->targets[i / 2].traces[i % 2];
		if (trace->pid && !user_find(walk, trace->uid))
			walk->users[walk->users_len++].uid = trace->uid;
	}
}

static void tell_unfound(const struct walk *walk)
{
	const struct target *first = NULL;
	size_t others = 0;
	for (size_t i = 0; i < walk->targets_len; i++) {
		const struct target *target = &walk->targets[i];
		if (target->found)
			continue;
		others += first != NULL;
		first = first ? first : target;
	}
	if (first && others)
		coord_log(LOG_WARNING,
			"%s and %zu others were lost: on_loss found no process to signal",
			first->path, others);
	else if (first)
		coord_log(LOG_WARNING, "%s was lost: on_loss found no process to signal",
			first->path);
}

static void walk_work(struct coord_job *job)
{
	struct walk *walk = coord_container(job, struct walk, job);
	const struct dirent *entry;
	find_users(walk);
	qsort(walk->bystanders, walk->bystanders_len, sizeof(*walk->bystanders),
		compare_bystanders);
	qsort(walk->waiting, walk->waiting_len, sizeof(*walk->waiting), compare_pids);
	DIR *dir = opendir("/proc");
	if (!dir) {
		coord_log(LOG_ERR, "on_loss: /proc: %s", strerror(errno));
		return;
	}
	while ((entry = readdir(dir))) {
		int32_t pid = atoi(entry->d_name);
		if (pid > 1 && pid != getpid())
			visit_process(walk, pid);
	}
	closedir(dir);
	signal_victims(walk);
	if (walk->full)
		coord_log(LOG_ERR, "on_loss: out of memory or threads: processes were passed over");
	if (!walk->over)
		tell_unfound(walk);
}

static void walk_done(struct coord_job *job)
{
	walk_unref(coord_container(job, struct walk, job));
}

/* Does that handle, by what is known at the end of the turn, have nothing that was lost? */
static bool is_bystander(const struct fs_handle *handle)
{
	const struct fs_holding *holding = fs_handle_holding(handle);
	return handle->opener && !(holding && fs_holding_lost(holding));
}

static void note_bystanders(struct walk *walk, const struct fs_inode *inode)
{
	const struct fs_handle *handle;
	coord_list_each (handle, &inode->opens, link)
		if (is_bystander(handle))
			walk->bystanders[walk->bystanders_len++] =
				(struct bystander){.ino = inode->ino,
					.pid = handle->opener->pid,
					.start = handle->opener->start};
}

/* Without memory for them nobody is spared for being one. */
static void find_bystanders(struct walk *walk)
{
	size_t count = 0;
	const struct fs_inode *last = NULL;
	for (size_t i = 0; i < walk->targets_len; i++) {
		const struct fs_inode *inode = walk->targets[i].inode;
		count += inode != last ? inode->handles : 0;
		last = inode;
	}
	walk->bystanders = calloc(count + 1, sizeof(*walk->bystanders));
	last = NULL;
	for (size_t i = 0; walk->bystanders && i < walk->targets_len; i++) {
		const struct fs_inode *inode = walk->targets[i].inode;
		if (inode != last)
			note_bystanders(walk, inode);
		last = inode;
	}
}

static void walk_submit(struct coord_task *task)
{
	struct fs_onloss *onloss = coord_container(task, struct fs_onloss, task);
	struct walk *walk = onloss->next;
	if (!walk)
		return;
	onloss->next = NULL;
	qsort(walk->targets, walk->targets_len, sizeof(*walk->targets), compare_targets);
	find_bystanders(walk);
	for (size_t i = 0; i < walk->targets_len; i++) {
		fs_inode_unref(onloss->fs, walk->targets[i].inode);
		walk->targets[i].inode = NULL;
	}
	coord_worker_submit(onloss->worker, &walk->job);
}

/* Who waits is noted at the first loss: the next holder may be granted the lock in this very turn. */
static struct walk *walk_new(struct fs_onloss *onloss)
{
	size_t len = fs_waiting_pids(onloss->fs, NULL, 0);
	struct walk *walk = calloc(1, sizeof(*walk));
	if (!walk)
		return NULL;
	atomic_init(&walk->refs, 1);
	walk->waiting = calloc(len + 1, sizeof(*walk->waiting));
	if (!walk->waiting) {
		walk_unref(walk);
		return NULL;
	}
	walk->waiting_len = fs_waiting_pids(onloss->fs, walk->waiting, len);
	walk->major = onloss->major;
	walk->minor = onloss->minor;
	walk->signum = onloss->signum;
	walk->looks = onloss->looks;
	walk->over = onloss->fs->over;
	walk->job.work = walk_work;
	walk->job.done = walk_done;
	return walk;
}

static struct target *add_target(struct fs_onloss *onloss)
{
	if (!onloss->next)
		onloss->next = walk_new(onloss);
	struct walk *walk = onloss->next;
	if (!walk)
		return NULL;
	if (walk->targets_len == walk->targets_size) {
		size_t size = walk->targets_size ? 2 * walk->targets_size : 8;
		struct target *targets = realloc(walk->targets, size * sizeof(*targets));
		if (!targets)
			return NULL;
		walk->targets = targets;
		walk->targets_size = size;
	}
	struct target *target = &walk->targets[walk->targets_len++];
	*target = (struct target){0};
	return target;
}

static void set_path(struct target *target, const struct fs_inode *inode)
{
	char file[COORD_NAME_MAX + 1];
	if (coord_name_encode(inode->name, file) < 0)
		strcpy(file, "?");
	snprintf(target->path, sizeof(target->path), "%s/%s",
		inode->kind == FS_LEADER ? "leaders" : "locks", file);
}

void fs_onloss_signal(struct fs *fs, struct fs_holding *holding)
{
	struct fs_onloss *onloss = fs->onloss;
	if (!onloss || holding->inode->kind == FS_MEMBER)
		return;
	struct target *target = add_target(onloss);
	if (!target) {
		coord_log(LOG_ERR, "on_loss: out of memory");
		return;
	}
	target->ino = holding->inode->ino;
	target->inode = fs_inode_ref(holding->inode);
	const struct fs_handle *handle = fs_holding_handle(holding);
	set_path(target, holding->inode);
	if (handle->opener)
		target->traces[0] = *handle->opener;
	if (holding->taker)
		target->traces[1] = *holding->taker;
	coord_loop_defer(fs->loop, &onloss->task);
}

/* ---- Start and end ---- */

int fs_onloss_new(struct fs *fs)
{
	if (!fs->options.on_loss)
		return 0;
	struct fs_onloss *onloss = calloc(1, sizeof(*onloss));
	struct looks *looks = onloss ? calloc(1, sizeof(*looks)) : NULL;
	if (!looks) {
		free(onloss);
		return -ENOMEM;
	}
	atomic_init(&looks->refs, 1);
	onloss->looks = looks;
	onloss->fs = fs;
	onloss->signum = fs->options.on_loss;
	onloss->task.fn = walk_submit;
	int r = sscanf(fs->device, "%u:%u", &onloss->major, &onloss->minor) == 2 ? 0 : -ENOENT;
	if (r == 0)
		r = coord_worker_new(fs->loop, "on_loss", &onloss->worker);
	if (r < 0) {
		looks_unref(looks);
		free(onloss);
		return r;
	}
	fs->onloss = onloss;
	return 0;
}

void fs_onloss_free(struct fs *fs)
{
	struct fs_onloss *onloss = fs->onloss;
	if (!onloss)
		return;
	fs->onloss = NULL;
	walk_submit(&onloss->task);
	coord_worker_free(onloss->worker);
	/* The answers of the last walks are still in the loop. */
	coord_loop_run(fs->loop);
	looks_unref(onloss->looks);
	free(onloss);
}
