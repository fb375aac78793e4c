/* SPDX-License-Identifier: Apache-2.0 */
/*
 * on_loss=: signals to the processes whose lock was lost.
 *
 * What is remembered of a process is a trace: pid and start time, process group, session, uid; of whoever
 * opened the handle, and of whoever locked it last. At a loss a worker walks /proc for processes that have
 * the inode open (fdinfo: ino, and a mnt_id that their own mountinfo says is this mount) and that
 * match a trace: of its uid, and the process itself, of its group or session, or its descendant. Never a
 * process that is blocked in a lock request here. Nothing is asked of the mount itself, which would
 * deadlock. fdinfo does not show which handle it is, so this is an approximation.
 *
 * Losses of one turn of the loop are one walk.
 */
#include "fs/tree.h"

#include <assert.h>
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <syslog.h>

#include "coord/worker.h"

struct target {
	uint64_t ino;
	char path[COORD_NAME_MAX + 16]; /* below the mount point, for the log */
	struct fs_trace traces[2]; /* pid 0: none */
};

struct walk {
	struct coord_job job;
	struct fs_onloss *onloss;
	struct target *targets; /* by ino */
	size_t targets_len, targets_size;
	int32_t *waiting; /* threads in lock requests, ascending */
	size_t waiting_len;
};

struct fs_onloss {
	struct fs *fs;
	int signum;
	char device[32]; /* of the mount, "0:45" */
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

/* Is that mount, in that process' view, ours? */
static bool is_our_mount(const struct fs_onloss *onloss, int32_t pid, unsigned mnt_id)
{
	char path[64];
	char *line = NULL;
	size_t size = 0;
	bool ours = false;
	snprintf(path, sizeof(path), "/proc/%" PRId32 "/mountinfo", pid);
	FILE *in = fopen(path, "re");
	if (!in)
		return false;
	while (!ours && getline(&line, &size, in) > 0) {
		unsigned id;
		char device[32];
		ours = sscanf(line, "%u %*u %31s", &id, device) == 2 && id == mnt_id &&
		       !strcmp(device, onloss->device);
	}
	free(line);
	fclose(in);
	return ours;
}

static const struct target *target_find(const struct walk *walk, uint64_t ino)
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

/* What one descriptor refers to; NULL: nothing that was lost. */
static const struct target *fd_target(const struct walk *walk, int32_t pid, const char *fd)
{
	char path[96], text[512];
	unsigned mnt_id = 0;
	uint64_t ino = 0;
	snprintf(path, sizeof(path), "/proc/%" PRId32 "/fdinfo/%.16s", pid, fd);
	if (read_file(path, text, sizeof(text)) < 0)
		return NULL;
	const char *at = strstr(text, "mnt_id:");
	if (at)
		mnt_id = (unsigned)strtoul(at + 7, NULL, 10);
	at = strstr(text, "\nino:");
	if (at)
		ino = strtoull(at + 5, NULL, 10);
	const struct target *target = at ? target_find(walk, ino) : NULL;
	return target && is_our_mount(walk->onloss, pid, mnt_id) ? target : NULL;
}

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

static bool descends_from(int32_t parent, const struct fs_trace *trace)
{
	struct fs_trace now;
	for (int depth = 0; parent > 1 && depth < 64; depth++) {
		if (parent == trace->pid)
			return true;
		if (fs_trace_read(parent, &now, &parent) < 0)
			return false;
	}
	return false;
}

static bool matches(const struct fs_trace *now, int32_t parent, const struct fs_trace *trace)
{
	if (!trace->pid || !uid_is(now->pid, trace->uid))
		return false;
	if (now->pid == trace->pid)
		return now->start == trace->start;
	return now->pgrp == trace->pgrp || now->sid == trace->sid || descends_from(parent, trace);
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

/* The pidfd was opened before anything was read about the process, so that it is the same one. */
static void signal_if(const struct walk *walk, int pidfd, int32_t pid, const struct target *target)
{
	struct fs_trace now;
	int32_t parent;
	if (fs_trace_read(pid, &now, &parent) < 0 || is_waiting(walk, pid))
		return;
	if (!matches(&now, parent, &target->traces[0]) &&
		!matches(&now, parent, &target->traces[1]))
		return;
	if (syscall(SYS_pidfd_send_signal, pidfd, walk->onloss->signum, NULL, 0) == 0)
		coord_log(LOG_NOTICE, "%s was lost: signal %d to process %" PRId32, target->path,
			walk->onloss->signum, pid);
	else if (errno != ESRCH)
		coord_log(LOG_WARNING, "%s was lost, but process %" PRId32 ": %s", target->path,
			pid, strerror(errno));
}

static void visit(const struct walk *walk, int32_t pid)
{
	char path[64];
	const struct dirent *entry;
	const struct target *target = NULL;
	snprintf(path, sizeof(path), "/proc/%" PRId32 "/fdinfo", pid);
	_cleanup_close_ int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	DIR *dir = pidfd < 0 ? NULL : opendir(path);
	while (dir && !target && (entry = readdir(dir)))
		if (isdigit((unsigned char)*entry->d_name))
			target = fd_target(walk, pid, entry->d_name);
	if (dir)
		closedir(dir);
	if (target)
		signal_if(walk, pidfd, pid, target);
}

/* ---- The walk ---- */

static int compare_targets(const void *a, const void *b)
{
	const struct target *x = a, *y = b;
	return (x->ino > y->ino) - (x->ino < y->ino);
}

static void walk_work(struct coord_job *job)
{
	struct walk *walk = coord_container(job, struct walk, job);
	const struct dirent *entry;
	qsort(walk->targets, walk->targets_len, sizeof(*walk->targets), compare_targets);
	qsort(walk->waiting, walk->waiting_len, sizeof(*walk->waiting), compare_pids);
	DIR *dir = opendir("/proc");
	if (!dir) {
		coord_log(LOG_ERR, "on_loss: /proc: %s", strerror(errno));
		return;
	}
	while ((entry = readdir(dir))) {
		int32_t pid = atoi(entry->d_name);
		if (pid > 1 && pid != getpid())
			visit(walk, pid);
	}
	closedir(dir);
}

static void walk_free(struct walk *walk)
{
	if (!walk)
		return;
	free(walk->targets);
	free(walk->waiting);
	free(walk);
}

static void walk_done(struct coord_job *job)
{
	walk_free(coord_container(job, struct walk, job));
}

static void walk_submit(struct coord_task *task)
{
	struct fs_onloss *onloss = coord_container(task, struct fs_onloss, task);
	struct walk *walk = onloss->next;
	if (!walk)
		return;
	onloss->next = NULL;
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
	strcpy(onloss->device, fs->device);
	int r = *fs->device ? 0 : -ENOENT;
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
