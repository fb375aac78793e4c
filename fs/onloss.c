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
 * Such looks are therefore made by threads of their own, with a time limit (ask): a process that does not
 * let itself be looked at in time is passed over.
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
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <syslog.h>

#include "coord/worker.h"

#define DEPTH_MAX 64 /* ancestors to look at */
#define FDS_MAX 32 /* descriptors of one inode in one process to compare */
#define ASK_MS 500 /* for a look at a process */
#define STUCK_MAX 4 /* processes that did not let themselves be looked at, in one walk */

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
	uint64_t start;
	uint32_t uid; /* that matched */
	const struct target *target;
};

struct walk {
	struct coord_job job;
	struct fs_onloss *onloss;
	struct target *targets; /* by ino */
	size_t targets_len, targets_size;
	struct bystander *bystanders; /* by ino, then pid */
	size_t bystanders_len;
	struct victim *victims;
	size_t victims_len, victims_size;
	int32_t *waiting; /* threads in lock requests, ascending */
	size_t waiting_len;
	int32_t stuck[STUCK_MAX]; /* are not asked again */
	size_t stuck_len;
	bool over; /* the kernel has closed the files: that nobody has them is no news */
};

struct fs_onloss {
	struct fs *fs;
	int signum;
	unsigned major, minor; /* of the mount */
	struct coord_worker *worker;
	struct coord_task task;
	struct walk *next; /* gathers until the end of the turn */
};

/* ---- Reading /proc ---- */

/* Reads a file of /proc whole, at most size - 1 bytes. Returns its length or -errno. */
static ssize_t read_file(const char *path, char *buf, size_t size)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	size_t len = 0;
	while (len < size - 1) {
		ssize_t n = read(fd, buf + len, size - 1 - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		len += (size_t)n;
	}
	buf[len] = 0;
	return (ssize_t)len;
}

int fs_trace_read(int32_t pid, struct fs_trace *ret, int32_t *ret_parent)
{
	char path[64], text[1024];
	snprintf(path, sizeof(path), "/proc/%" PRId32 "/stat", pid);
	ssize_t n = read_file(path, text, sizeof(text));
	if (n < 0)
		return (int)n;
	/* The name in parentheses may hold anything. */
	const char *at = strrchr(text, ')');
	int32_t parent;
	struct fs_trace trace = {.pid = pid};
	if (!at || sscanf(at + 1,
			   " %*c %" SCNd32 " %" SCNd32 " %" SCNd32
			   " %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %" SCNu64,
			   &parent, &trace.pgrp, &trace.sid, &trace.start) != 4)
		return -EBADMSG;
	*ret = trace;
	if (ret_parent)
		*ret_parent = parent;
	return 0;
}

struct fs_trace *fs_trace_new(struct fs *fs, int32_t pid, uint32_t uid)
{
	struct fs_trace trace;
	if (!fs->onloss || pid <= 0 || fs_trace_read(pid, &trace, NULL) < 0)
		return NULL;
	struct fs_trace *copy = malloc(sizeof(*copy));
	if (!copy)
		return NULL;
	trace.uid = uid;
	*copy = trace;
	return copy;
}

/* A thread opened or locked: the process is what descriptors and children belong to. */
static void trace_to_process(struct fs_trace *trace)
{
	char path[64], text[4096];
	struct fs_trace now;
	int32_t tgid;
	snprintf(path, sizeof(path), "/proc/%" PRId32 "/status", trace->pid);
	if (!trace->pid || read_file(path, text, sizeof(text)) < 0)
		return;
	const char *at = strstr(text, "\nTgid:");
	if (!at || sscanf(at + 6, "%" SCNd32, &tgid) != 1 || tgid == trace->pid)
		return;
	if (fs_trace_read(trace->pid, &now, NULL) < 0 || now.start != trace->start ||
		fs_trace_read(tgid, &now, NULL) < 0)
		return;
	trace->pid = tgid;
	trace->start = now.start;
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

/* The inode's number, whatever file system it is of; 0: unknown. */
static uint64_t fd_ino(int32_t pid, const char *fd)
{
	char path[96], text[512];
	snprintf(path, sizeof(path), "/proc/%" PRId32 "/fdinfo/%.16s", pid, fd);
	if (read_file(path, text, sizeof(text)) < 0)
		return 0;
	const char *at = strstr(text, "\nino:");
	return at ? strtoull(at + 5, NULL, 10) : 0;
}

/* A look at a process that may wait for it. Freed by its thread if nobody waits for the answer any more. */
struct look {
	pthread_mutex_t lock; /* guards done and left */
	pthread_cond_t answered;
	bool done, left;
	int32_t pid;
	int fds[2]; /* to compare; the second is -1: statx of the first */
	int result;
	struct statx stx;
};

static void look_free(struct look *look)
{
	pthread_cond_destroy(&look->answered);
	pthread_mutex_destroy(&look->lock);
	free(look);
}

static void *look_main(void *data)
{
	struct look *look = data;
	char path[64];
	snprintf(path, sizeof(path), "/proc/%" PRId32 "/fd/%d", look->pid, look->fds[0]);
	if (look->fds[1] >= 0)
		look->result = (int)syscall(
			SYS_kcmp, look->pid, look->pid, KCMP_FILE, look->fds[0], look->fds[1]);
	else
		look->result = statx(AT_FDCWD, path, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT,
			STATX_INO, &look->stx);
	pthread_mutex_lock(&look->lock);
	look->done = true;
	bool left = look->left;
	pthread_cond_signal(&look->answered);
	pthread_mutex_unlock(&look->lock);
	if (left)
		look_free(look);
	return NULL;
}

static struct look *look_new(int32_t pid, int a, int b)
{
	pthread_condattr_t attr;
	struct look *look = calloc(1, sizeof(*look));
	if (!look)
		return NULL;
	pthread_mutex_init(&look->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&look->answered, &attr);
	pthread_condattr_destroy(&attr);
	look->pid = pid;
	look->fds[0] = a;
	look->fds[1] = b;
	return look;
}

/* Has it answered in time? If not, the look is its thread's. */
static bool look_wait(struct look *look, pthread_t thread)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += ASK_MS * 1000000L;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&look->lock);
	while (!look->done && !pthread_cond_timedwait(&look->answered, &look->lock, &until))
		;
	bool done = look->done;
	look->left = !done;
	pthread_mutex_unlock(&look->lock);
	if (done)
		pthread_join(thread, NULL);
	else
		pthread_detach(
			thread); /* a signal that kills ends it, so it ends with this process */
	return done;
}

static bool is_stuck(const struct walk *walk, int32_t pid)
{
	for (size_t i = 0; i < walk->stuck_len; i++)
		if (walk->stuck[i] == pid)
			return true;
	return walk->stuck_len == STUCK_MAX;
}

/* Compares two descriptors of a process, or with b = -1 asks what a is. NULL: it is not known. */
static struct look *ask(struct walk *walk, int32_t pid, int a, int b)
{
	sigset_t all, old;
	pthread_t thread;
	struct look *look = is_stuck(walk, pid) ? NULL : look_new(pid, a, b);
	if (!look)
		return NULL;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old); /* they are the loop's */
	int r = pthread_create(&thread, NULL, look_main, look);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r) {
		coord_log(LOG_ERR, "on_loss: a thread: %s", strerror(r));
		look_free(look);
		return NULL;
	}
	if (look_wait(look, thread))
		return look;
	walk->stuck[walk->stuck_len++] = pid;
	coord_log(LOG_WARNING, "on_loss: process %" PRId32 " hangs in execve: passed over%s", pid,
		walk->stuck_len == STUCK_MAX ? ", as is who comes after it" : "");
	return NULL;
}

/* The mount need not be in that process' mount namespace, nor mounted any more. */
static bool fd_is_ours(struct walk *walk, int32_t pid, int fd, uint64_t ino)
{
	struct look *look = ask(walk, pid, fd, -1);
	if (!look)
		return false;
	const struct statx *stx = &look->stx;
	bool ours = look->result == 0 && stx->stx_dev_major == walk->onloss->major &&
		    stx->stx_dev_minor == walk->onloss->minor && stx->stx_ino == ino;
	look_free(look);
	return ours;
}

static bool is_same_file(struct walk *walk, int32_t pid, int a, int b)
{
	struct look *look = ask(walk, pid, a, b);
	bool same = look && look->result == 0;
	if (look)
		look_free(look);
	return same;
}

/* How many handles of the inode a process has open. */
static size_t count_handles(struct walk *walk, int32_t pid, uint64_t ino)
{
	char path[64];
	const struct dirent *entry;
	int fds[FDS_MAX];
	size_t len = 0;
	snprintf(path, sizeof(path), "/proc/%" PRId32 "/fdinfo", pid);
	DIR *dir = opendir(path);
	while (dir && len < FDS_MAX && (entry = readdir(dir))) {
		if (!isdigit((unsigned char)*entry->d_name) || fd_ino(pid, entry->d_name) != ino ||
			!fd_is_ours(walk, pid, atoi(entry->d_name), ino))
			continue;
		size_t i = 0;
		fds[len] = atoi(entry->d_name);
		while (i < len && !is_same_file(walk, pid, fds[i], fds[len]))
			i++;
		if (i == len)
			len++;
	}
	if (dir)
		closedir(dir);
	return len;
}

/* ---- Processes ---- */

static bool uid_is(int32_t pid, uint32_t uid)
{
	char path[64], text[4096];
	snprintf(path, sizeof(path), "/proc/%" PRId32 "/status", pid);
	if (read_file(path, text, sizeof(text)) < 0)
		return false;
	const char *at = strstr(text, "\nUid:");
	unsigned real, effective;
	return at && sscanf(at + 5, "%u %u", &real, &effective) == 2 &&
	       (real == uid || effective == uid);
}

static int compare_bystanders(const void *a, const void *b)
{
	const struct bystander *x = a, *y = b;
	if (x->ino != y->ino)
		return x->ino > y->ino ? 1 : -1;
	return (x->pid > y->pid) - (x->pid < y->pid);
}

/* How many handles of the inode, of those that lost nothing, the process opened. */
static size_t count_bystanding(const struct walk *walk, const struct fs_trace *now, uint64_t ino)
{
	const struct bystander key = {.ino = ino, .pid = now->pid}, *found, *end;
	size_t count = 0;
	if (!walk->bystanders_len)
		return 0;
	end = walk->bystanders + walk->bystanders_len;
	found = bsearch(
		&key, walk->bystanders, walk->bystanders_len, sizeof(key), compare_bystanders);
	while (found && found > walk->bystanders && !compare_bystanders(found - 1, &key))
		found--;
	for (; found && found < end && !compare_bystanders(found, &key); found++)
		count += found->start == now->start;
	return count;
}

static bool is_process(const struct fs_trace *now, const struct fs_trace *trace)
{
	return trace->pid && now->pid == trace->pid && now->start == trace->start;
}

/* The trace for which the process is to be signalled, or NULL. Of itself and its ancestors the nearest that opened or took
 * a handle decides. One that opened others may have, beside these, inherited the one that was lost: then
 * those above it decide. */
static const struct fs_trace *matches(struct walk *walk, const struct fs_trace *process,
	int32_t parent, const struct target *target)
{
	static const struct fs_trace none;
	struct fs_trace now = *process;
	const struct fs_trace *traces[2];
	for (int i = 0; i < 2; i++)
		traces[i] = target->traces[i].pid && uid_is(now.pid, target->traces[i].uid)
				    ? &target->traces[i]
				    : &none;
	if (!traces[0]->pid && !traces[1]->pid)
		return NULL;
	for (int depth = 0; depth < DEPTH_MAX; depth++) {
		for (int i = 0; i < 2; i++)
			if (is_process(&now, traces[i]))
				return traces[i];
		size_t others = count_bystanding(walk, &now, target->ino);
		if (others && count_handles(walk, now.pid, target->ino) <= others)
			return NULL;
		if (parent <= 1 || fs_trace_read(parent, &now, &parent) < 0)
			break;
	}
	for (int i = 0; i < 2; i++)
		if (traces[i]->pid &&
			(process->pgrp == traces[i]->pgrp || process->sid == traces[i]->sid))
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

/* ---- Signalling ---- */

static bool add_victim(
	struct walk *walk, const struct fs_trace *now, uint32_t uid, const struct target *target)
{
	if (walk->victims_len == walk->victims_size) {
		size_t size = walk->victims_size ? 2 * walk->victims_size : 8;
		struct victim *victims = realloc(walk->victims, size * sizeof(*victims));
		if (!victims) {
			coord_log(LOG_ERR, "on_loss: out of memory");
			return false;
		}
		walk->victims = victims;
		walk->victims_size = size;
	}
	walk->victims[walk->victims_len++] =
		(struct victim){.pid = now->pid, .start = now->start, .uid = uid, .target = target};
	return true;
}

/* It may have lost several, and is signalled once. */
static void visit_targets(
	struct walk *walk, const struct fs_trace *now, int32_t parent, uint64_t ino, bool *added)
{
	const struct target *end = walk->targets + walk->targets_len;
	for (struct target *target = target_find(walk, ino);
		target && target < end && target->ino == ino; target++) {
		const struct fs_trace *trace = matches(walk, now, parent, target);
		if (!trace)
			continue;
		target->found = true;
		*added = *added || add_victim(walk, now, trace->uid, target);
	}
}

/* Before a look that may take long: a user cannot use these up for another. */
static bool may_match(const struct walk *walk, int32_t pid, uint64_t ino)
{
	const struct target *target = target_find(walk, ino);
	const struct target *end = walk->targets + walk->targets_len;
	for (; target && target < end && target->ino == ino; target++)
		for (int i = 0; i < 2; i++)
			if (target->traces[i].pid && uid_is(pid, target->traces[i].uid))
				return true;
	return false;
}

static void visit_process(struct walk *walk, int32_t pid)
{
	char path[64];
	const struct dirent *entry;
	struct fs_trace now;
	int32_t parent;
	bool known = false, added = false;
	snprintf(path, sizeof(path), "/proc/%" PRId32 "/fdinfo", pid);
	DIR *dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		bool is_fd = isdigit((unsigned char)*entry->d_name);
		uint64_t ino = is_fd ? fd_ino(pid, entry->d_name) : 0;
		if (!ino || !may_match(walk, pid, ino) ||
			!fd_is_ours(walk, pid, atoi(entry->d_name), ino))
			continue;
		if (!known && (fs_trace_read(pid, &now, &parent) < 0 || is_waiting(walk, pid)))
			break;
		known = true;
		visit_targets(walk, &now, parent, ino, &added);
	}
	if (dir)
		closedir(dir);
}

/* Only when all are known: a descendant is none any more when its parent has ended. By then it may be
 * another user's (su, sudo). */
static void signal_victim(const struct walk *walk, const struct victim *victim)
{
	struct fs_trace now;
	int signum = walk->onloss->signum;
	_cleanup_close_ int pidfd = (int)syscall(SYS_pidfd_open, victim->pid, 0);
	if (pidfd < 0 || fs_trace_read(victim->pid, &now, NULL) < 0 || now.start != victim->start ||
		!uid_is(victim->pid, victim->uid))
		return;
	if (syscall(SYS_pidfd_send_signal, pidfd, signum, NULL, 0) == 0)
		coord_log(LOG_NOTICE, "%s was lost: signal %d to process %" PRId32,
			victim->target->path, signum, victim->pid);
	else if (errno != ESRCH)
		coord_log(LOG_WARNING, "%s was lost, but process %" PRId32 ": %s",
			victim->target->path, victim->pid, strerror(errno));
}

/* ---- The walk ---- */

static int compare_targets(const void *a, const void *b)
{
	const struct target *x = a, *y = b;
	if (x->ino != y->ino)
		return x->ino > y->ino ? 1 : -1;
	return (x->inode > y->inode) - (x->inode < y->inode);
}

static void find_processes(struct walk *walk)
{
	for (size_t i = 0; i < walk->targets_len; i++)
		for (int k = 0; k < 2; k++)
			trace_to_process(&walk->targets[i].traces[k]);
	for (size_t i = 0; i < walk->bystanders_len; i++) {
		struct bystander *other = &walk->bystanders[i];
		struct fs_trace trace = {.pid = other->pid, .start = other->start};
		trace_to_process(&trace);
		other->pid = trace.pid;
		other->start = trace.start;
	}
	qsort(walk->bystanders, walk->bystanders_len, sizeof(*walk->bystanders),
		compare_bystanders);
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
	find_processes(walk);
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
	for (size_t i = 0; i < walk->victims_len; i++)
		signal_victim(walk, &walk->victims[i]);
	if (!walk->over)
		tell_unfound(walk);
}

static void walk_free(struct walk *walk)
{
	if (!walk)
		return;
	free(walk->targets);
	free(walk->bystanders);
	free(walk->victims);
	free(walk->waiting);
	free(walk);
}

static void walk_done(struct coord_job *job)
{
	walk_free(coord_container(job, struct walk, job));
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
	if (walk)
		walk->waiting = calloc(len + 1, sizeof(*walk->waiting));
	if (!walk || !walk->waiting) {
		walk_free(walk);
		return NULL;
	}
	walk->waiting_len = fs_waiting_pids(onloss->fs, walk->waiting, len);
	walk->onloss = onloss;
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
	if (!onloss)
		return -ENOMEM;
	onloss->fs = fs;
	onloss->signum = fs->options.on_loss;
	onloss->task.fn = walk_submit;
	int r = sscanf(fs->device, "%u:%u", &onloss->major, &onloss->minor) == 2 ? 0 : -ENOENT;
	if (r == 0)
		r = coord_worker_new(fs->loop, "on_loss", &onloss->worker);
	if (r < 0) {
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
	free(onloss);
}
