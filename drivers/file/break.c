/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Breaking a lock that another mount holds: a file in .toozfs/break/<its session> asks its daemon,
 * which lets go, tells its holder, and removes the file. The request names whose holding is meant, where that
 * is known, and since when it is held at the latest; when the lock is free it is taken back from all who did
 * not read it. Nobody can take a lock of a Python
 * process, nor of a daemon that does not answer.
 */
#include "drivers/file/file.h"

#include <stdio.h>

#define BREAK_MAX_MS 900 /* before who asked gives up, after a second */
#define BREAK_LOOK_MS 5
#define BREAK_NAME 64

static void break_name(enum coord_kind kind, const char *hash, char ret[BREAK_NAME])
{
	snprintf(ret, BREAK_NAME, "%s-%s", kind == COORD_LEADER ? "leader" : "lock", hash);
}

/* ---- Being asked ---- */

/* Does the request mean this holding? Who took the lock after it was made is spared. */
static bool is_meant(const struct file_held *held, const struct file_request *request)
{
	static const uint8_t anybody[16];
	return held->since_us <= request->before_us &&
	       (memcmp(request->owner, anybody, sizeof(anybody)) == 0 ||
		       memcmp(request->owner, held->owner, sizeof(held->owner)) == 0);
}

/* Lets go of what we hold of that lock; request NULL: whatever it is. Returns how many holdings that were. */
static unsigned break_own(
	struct file_session *fs, const char *name, const struct file_request *request)
{
	unsigned broken = 0;
	char own[BREAK_NAME];
	pthread_mutex_lock(&fs->lock);
	struct file_held *held;
	coord_list_each (held, &fs->held, link) {
		break_name(held->kind, held->hash, own);
		if (held->fd >= 0 && strcmp(own, name) == 0 &&
			(!request || is_meant(held, request)))
			broken += file_held_lose(fs, held, NULL);
	}
	pthread_mutex_unlock(&fs->lock);
	return broken;
}

struct request {
	struct file_session *fs;
	int dir;
};

static int request_entry(void *user, const char *name)
{
	struct request *request = user;
	struct file_request what;
	_cleanup_free_ char *data = NULL;
	size_t len;
	if (file_read_at(request->dir, name, FILE_REQUEST_LEN, &data, &len, NULL) == 0 &&
		file_request_decode((struct coord_bytes){data, len}, &what) == 0)
		break_own(request->fs, name, &what);
	unlinkat(request->dir, name, 0);
	return 0;
}

static void request_work(struct coord_job *job)
{
	struct file_session *fs = coord_container(job, struct file_session, break_job);
	_cleanup_close_ int dir = file_open_dir(fs->dirs[FILE_BREAKS], fs->uuid, false);
	struct request request = {fs, dir};
	if (dir >= 0)
		file_each(dir, &request, request_entry);
}

static void request_done(struct coord_job *job)
{
	struct file_session *fs = coord_container(job, struct file_session, break_job);
	file_notices_tell(fs);
	if (fs->break_again) {
		fs->break_again = false;
		coord_worker_submit(fs->locks, job);
		return;
	}
	fs->break_busy = false;
	fs->busy--;
	file_idle(fs);
}

void file_break_event(struct file_session *fs)
{
	if (fs->read_only || fs->closing)
		return;
	fs->break_again = fs->break_busy;
	if (fs->break_busy)
		return;
	fs->break_busy = true;
	fs->busy++;
	fs->break_job.work = request_work;
	fs->break_job.done = request_done;
	coord_worker_submit(fs->locks, &fs->break_job);
}

/* ---- Asking ---- */

static int break_look(struct file_op *f, struct file_look *look)
{
	_cleanup_close_ int fd =
		file_lock_open(f->fs, f->op->key.kind, f->hash, f->op->key.name, O_RDONLY, false);
	look->mode = COORD_NONE;
	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	return file_look(f->fs, fd, look);
}

/* Puts the request before one daemon, or takes it away. */
static void break_ask(struct file_op *f, const char *uuid, bool ask)
{
	struct file_session *fs = f->fs;
	char name[BREAK_NAME], data[FILE_REQUEST_LEN];
	break_name(f->op->key.kind, f->hash, name);
	_cleanup_close_ int dir = file_open_dir(fs->dirs[FILE_BREAKS], uuid, false);
	if (dir < 0)
		return;
	file_request_encode(&f->request, data);
	if (ask)
		file_replace_at(fs->dirs[FILE_TMP], dir, name, data, sizeof(data), false);
	else
		unlinkat(dir, name, 0);
}

static int ask_entry(void *user, const char *uuid)
{
	struct file_op *f = user;
	if (strcmp(uuid, f->fs->uuid) != 0)
		break_ask(f, uuid, true);
	return 0;
}

static int unask_entry(void *user, const char *uuid)
{
	break_ask(user, uuid, false);
	return 0;
}

/* Asks the holder, or those who share, or everybody where the holder left no name. */
static int ask_holders(struct file_op *f, const struct file_look *look)
{
	struct file_session *fs = f->fs;
	f->request.before_us = file_utc_us();
	if (look->known) {
		char uuid[33];
		memcpy(f->request.owner, look->record.owner, sizeof(f->request.owner));
		file_hex(look->record.session, sizeof(look->record.session), uuid);
		break_ask(f, uuid, true);
		return 0;
	}
	struct file_sharers sharers = {0};
	int r = look->mode == COORD_SHARED ? file_sharers_read(fs, f->hash, &sharers) : 0;
	for (size_t i = 0; !r && i < sharers.len; i++)
		ask_entry(f, sharers.members[sharers.list[i].member].session);
	if (!r && !sharers.len)
		file_each(fs->dirs[FILE_BREAKS], f, ask_entry);
	file_sharers_done(&sharers);
	return r;
}

static int break_first(struct file_op *f)
{
	struct file_session *fs = f->fs;
	if (f->cancelled)
		return -ECANCELED;
	char name[BREAK_NAME];
	break_name(f->op->key.kind, f->hash, name);
	bool own = break_own(fs, name, NULL) > 0;
	struct file_look look;
	int r = break_look(f, &look);
	if (r || look.mode == COORD_NONE)
		return r ? r : own ? 0 : -ENOENT;
	if (look.foreign)
		return -EBUSY;
	r = ask_holders(f, &look);
	return r ? r : -EINPROGRESS;
}

/* Are those who were asked gone? Then the lock is free, or with somebody who took it later. */
static bool is_broken(struct file_op *f, const struct file_look *look)
{
	if (look->mode != COORD_SHARED)
		return look->mode == COORD_NONE ||
		       (look->known && look->record.since_us > f->request.before_us);
	struct file_sharers sharers;
	bool broken = file_sharers_read(f->fs, f->hash, &sharers) == 0 && sharers.len;
	for (size_t i = 0; i < sharers.len; i++)
		broken = broken && sharers.list[i].since_us > f->request.before_us;
	file_sharers_done(&sharers);
	return broken;
}

static int break_again(struct file_op *f)
{
	struct file_look look;
	int r = break_look(f, &look);
	if (!r && !is_broken(f, &look)) {
		if (!f->fs->closing && !f->cancelled && file_now_ms() < f->until_ms)
			return -EINPROGRESS;
		r = -EBUSY;
	}
	/* Whoever has not read it by now must not act on it later. */
	file_each(f->fs->dirs[FILE_BREAKS], f, unask_entry);
	return r;
}

static void break_due(struct coord_timer *timer)
{
	struct file_op *f = coord_container(timer, struct file_op, timer);
	coord_list_remove(&f->link);
	f->work = break_again;
	file_op_submit(f, f->fs->locks);
}

static void break_after(struct file_op *f)
{
	file_notices_tell(f->fs);
	if (f->status != -EINPROGRESS)
		return;
	if (f->fs->closing) {
		break_due(&f->timer);
		return;
	}
	f->timer.fn = break_due;
	coord_list_add(&f->fs->breaks, &f->link);
	coord_timer_start(f->fs->loop, &f->timer, coord_now_ms(f->fs->loop) + BREAK_LOOK_MS);
}

void file_break_cancel(struct file_op *f)
{
	coord_timer_stop(f->fs->loop, &f->timer);
	break_due(&f->timer);
}

void file_lock_break(struct coord_session *session, struct coord_op *op)
{
	struct file_op *f = file_op_prepare(session, op);
	if (!f)
		return;
	coord_list_init(&f->link);
	f->until_ms = file_now_ms() + BREAK_MAX_MS;
	if (op->deadline_ms && op->deadline_ms < f->until_ms)
		f->until_ms = op->deadline_ms;
	f->work = f->fs->read_only ? NULL : break_first;
	f->status = f->fs->read_only ? -EROFS : 0;
	f->after = break_after;
	file_op_submit(f, f->fs->locks);
}
