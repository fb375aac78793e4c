/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who waits: a mount that waits for a lock marks it by a shared OFD lock on .toozfs/waiters/<lock>, and
 * touches that file. Its byte 0 is locked by who waits to hold exclusively, byte 1 by who waits to share
 * (the first in a mount's queue counts), so that new sharers can let a writer go first. The holder is told,
 * so that it does not take the lock again at once, and looks once more when it lets go. The last one to
 * wait removes the file; who gives up has until its next try would have come.
 */
#include "drivers/file/file.h"

#include <stdio.h>

#define WAITER_NAME 64

static void waiter_name(enum coord_kind kind, const char *hash, char ret[WAITER_NAME])
{
	snprintf(ret, WAITER_NAME, "%s-%s", kind == COORD_LEADER ? "leader" : "lock", hash);
}

static int mark_lock(int fd, short type, enum coord_mode mode)
{
	struct flock lock = {.l_type = type,
		.l_whence = SEEK_SET,
		.l_start = mode == COORD_EXCLUSIVE ? 0 : 1,
		.l_len = 1};
	return fcntl(fd, F_OFD_SETLK, &lock) ? -errno : 0;
}

void file_waiter_mark(struct file_watch *w, enum coord_mode mode)
{
	int dir = w->fs->dirs[FILE_WAITERS];
	w->tried_ms = file_now_ms();
	if (w->waiter >= 0 && w->waits != mode) {
		mark_lock(w->waiter, F_RDLCK, mode);
		mark_lock(w->waiter, F_UNLCK, w->waits);
		w->waits = mode;
	}
	if (w->waiter >= 0 || dir < 0)
		return;
	char name[WAITER_NAME];
	waiter_name(w->kind, w->hash, name);
	for (int tries = 0; tries < 8; tries++) {
		int fd = file_open_at(dir, name, O_RDWR, true, NULL);
		if (fd < 0)
			return;
		/* It may just be removed by the last one before us. */
		if (mark_lock(fd, F_RDLCK, mode) == 0 && file_same_at(dir, name, fd)) {
			w->waiter = fd;
			w->waits = mode;
			futimens(fd, NULL);
			return;
		}
		close(fd);
	}
}

void file_waiter_unmark(struct file_watch *w)
{
	if (w->waiter < 0)
		return;
	char name[WAITER_NAME];
	waiter_name(w->kind, w->hash, name);
	int dir = w->fs->dirs[FILE_WAITERS];
	if (file_ofd(w->waiter, F_WRLCK) == 0 && file_same_at(dir, name, w->waiter))
		unlinkat(dir, name, 0);
	close(w->waiter);
	w->waiter = -1;
}

bool file_waiter_others(struct file_session *fs, enum coord_kind kind, const char *hash)
{
	char name[WAITER_NAME];
	waiter_name(kind, hash, name);
	_cleanup_close_ int fd = fs->dirs[FILE_WAITERS] < 0 ? -1
							    : file_open_at(fs->dirs[FILE_WAITERS],
								      name, O_RDONLY, false, NULL);
	short type;
	pid_t pid;
	return fd >= 0 && file_ofd_look(fd, &type, &pid) == 0 && type != F_UNLCK;
}

bool file_waiter_writers(struct file_watch *w)
{
	char name[WAITER_NAME];
	waiter_name(w->kind, w->hash, name);
	_cleanup_close_ int own = -1;
	int fd = w->waiter; /* on which our own mark does not count */
	if (fd < 0 && w->fs->dirs[FILE_WAITERS] >= 0)
		fd = own = file_open_at(w->fs->dirs[FILE_WAITERS], name, O_RDONLY, false, NULL);
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1};
	return fd >= 0 && fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

/* The next held lock that was asked for and not looked at yet; NULL: none is left. */
static struct file_notice *waiter_next(struct file_session *fs, char ret_hash[FILE_HASH_SIZE])
{
	struct file_notice *notice = NULL;
	pthread_mutex_lock(&fs->lock);
	struct file_held *held;
	coord_list_each (held, &fs->held, link) {
		if (held->noticed || held->fd < 0)
			continue;
		notice = file_notice_new(held->kind, held->name, held->owner, held->epoch);
		memcpy(ret_hash, held->hash, FILE_HASH_SIZE);
		held->noticed = true;
		break;
	}
	pthread_mutex_unlock(&fs->lock);
	return notice;
}

static void wait_work(struct coord_job *job)
{
	struct file_session *fs = coord_container(job, struct file_session, wait_job);
	struct file_notice *notice;
	char hash[FILE_HASH_SIZE];
	while ((notice = waiter_next(fs, hash))) {
		if (!file_waiter_others(fs, notice->kind, hash)) {
			free(notice);
			continue;
		}
		pthread_mutex_lock(&fs->lock);
		coord_list_add(&fs->gone, &notice->link);
		pthread_mutex_unlock(&fs->lock);
	}
}

static void wait_done(struct coord_job *job)
{
	struct file_session *fs = coord_container(job, struct file_session, wait_job);
	file_notices_tell(fs);
	if (fs->wait_again) {
		fs->wait_again = false;
		coord_worker_submit(fs->locks, job);
		return;
	}
	fs->wait_busy = false;
	fs->busy--;
	file_idle(fs);
}

void file_waiter_event(struct file_session *fs, const char *file)
{
	bool ours = false;
	char name[WAITER_NAME];
	pthread_mutex_lock(&fs->lock);
	struct file_held *held;
	coord_list_each (held, &fs->held, link) {
		waiter_name(held->kind, held->hash, name);
		if (strcmp(name, file) == 0) {
			held->noticed = false;
			ours = true;
		}
	}
	pthread_mutex_unlock(&fs->lock);
	if (!ours)
		return;
	fs->wait_again = fs->wait_busy;
	if (fs->wait_busy)
		return;
	fs->wait_busy = true;
	fs->busy++;
	fs->wait_job.work = wait_work;
	fs->wait_job.done = wait_done;
	coord_worker_submit(fs->locks, &fs->wait_job);
}
