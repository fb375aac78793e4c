/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tooz's driver lock: DIR/.driver_lock, which Python's driver locks around almost every operation on
 * groups. Those who only read share it. Groups worker only; a Python client that is stopped while it
 * has the lock keeps this worker until the deadline, and nothing else.
 */
#include "drivers/file/file.h"

#include <time.h>

#define FILE_DRIVER_LOCK ".driver_lock"
#define PAUSE_MAX_US 10000
#define DEADLINE_MS 10000 /* for ops that have none */

static int driver_open(struct file_session *fs)
{
	int root = fs->dirs[FILE_ROOT];
	if (fs->driver >= 0 && file_same_at(root, FILE_DRIVER_LOCK, fs->driver))
		return 0;
	if (fs->driver >= 0)
		close(fs->driver);
	fs->driver_shared = false;
	fs->driver =
		fs->read_only ? -EROFS : file_open_at(root, FILE_DRIVER_LOCK, O_RDWR, true, NULL);
	if (fs->driver == -EROFS || fs->driver == -EACCES) {
		fs->driver_shared = true;
		fs->driver = file_open_at(root, FILE_DRIVER_LOCK, O_RDONLY, false, NULL);
	}
	int r = fs->driver < 0 ? fs->driver : 0;
	if (r)
		fs->driver = -1;
	return r;
}

void file_pause_us(unsigned us)
{
	struct timespec pause = {.tv_nsec = us * 1000L};
	nanosleep(&pause, NULL);
}

int file_driver_lock(struct file_op *f, bool exclusive)
{
	struct file_session *fs = f->fs;
	uint64_t until = f->op->deadline_ms ? f->op->deadline_ms : file_now_ms() + DEADLINE_MS;
	int r = driver_open(fs);
	if (r == -ENOENT && !exclusive)
		return 0; /* an observer of a directory that Python never used: nobody to wait for */
	if (!r && exclusive && fs->driver_shared)
		r = -EACCES;
	/* Who gave up was told that it failed, so it must not succeed now: looked at before each try. */
	for (unsigned us = 100; !r; us = us * 2 < PAUSE_MAX_US ? us * 2 : PAUSE_MAX_US) {
		if (fs->closing || f->cancelled)
			r = -ECANCELED;
		else if (file_now_ms() >= until)
			r = -ETIMEDOUT;
		if (r)
			break;
		r = file_ofd(fs->driver, exclusive ? F_WRLCK : F_RDLCK);
		if (r != -EBUSY)
			break;
		r = 0;
		file_pause_us(us);
	}
	f->op->sent = r == -ETIMEDOUT ? COORD_SENT_NO : COORD_SENT_ANSWERED;
	return r;
}

bool file_driver_lock_try(struct file_session *fs)
{
	return driver_open(fs) == 0 && !fs->driver_shared && file_ofd(fs->driver, F_WRLCK) == 0;
}

void file_driver_unlock(struct file_session *fs)
{
	if (fs->driver >= 0)
		file_ofd(fs->driver, F_UNLCK);
}
