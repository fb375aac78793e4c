/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Locks and leaderships: OFD locks on files, which exclude fcntl's record locks (Python's) too.
 *
 * To try again and again must wake nobody: closing a file that is open for writing raises an event for
 * everyone who waits for it. So a waiting name keeps one descriptor in its watch, on which it tries, and
 * which becomes the grant's; and a single try looks first, by a descriptor that only reads.
 *
 * All of it runs on the locks worker.
 */
#include "drivers/file/file.h"

#include <stdio.h>

#define TRIES 8 /* against files that are replaced under our hands */

/* ---- OFD locks ---- */

int file_ofd(int fd, short type)
{
	struct flock lock = {.l_type = type, .l_whence = SEEK_SET};
	if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
		return 0;
	return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
}

int file_ofd_look(int fd, short *ret_type, pid_t *ret_pid)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	if (fcntl(fd, F_OFD_GETLK, &lock))
		return -errno;
	*ret_type = lock.l_type;
	*ret_pid = lock.l_pid;
	return 0;
}

/* ---- The files of locks ---- */

/* Opens the directory that a lock's file is in; *ret_leaf is the rest of text, which is written to. */
static int open_parent(struct file_session *fs, char *text, bool create, const char **ret_leaf)
{
	int dir = fcntl(fs->dirs[FILE_ROOT], F_DUPFD_CLOEXEC, 3);
	if (dir < 0)
		return -errno;
	char *slash;
	while ((slash = strchr(text, '/'))) {
		*slash = '\0';
		int next = file_open_dir(dir, text, create);
		if (next < 0 && !create && next == -ENOENT) {
			*ret_leaf = text;
			return dir; /* the caller finds that text is missing in dir */
		}
		close(dir);
		if (next < 0)
			return next;
		dir = next;
		text = slash + 1;
	}
	*ret_leaf = text;
	return dir;
}

/* The directory and entry of a lock's file. Returns a descriptor to close. */
static int lock_place(struct file_session *fs, enum coord_kind kind, const char *hash,
	struct coord_bytes name, bool create, char buffer[FILE_NAME_MAX + 1], const char **ret_leaf)
{
	if (kind == COORD_LEADER) {
		*ret_leaf = hash;
		int fd = fcntl(fs->dirs[FILE_LEADERS], F_DUPFD_CLOEXEC, 3);
		return fd < 0 ? -ENOENT : fd;
	}
	if (file_lock_name_check(name))
		return -EINVAL;
	memcpy(buffer, name.data, name.len);
	buffer[name.len] = '\0';
	return open_parent(fs, buffer, create, ret_leaf);
}

int file_lock_open(struct file_session *fs, enum coord_kind kind, const char *hash,
	struct coord_bytes name, int flags, bool create)
{
	char buffer[FILE_NAME_MAX + 1];
	const char *leaf;
	_cleanup_close_ int dir = lock_place(fs, kind, hash, name, create, buffer, &leaf);
	int fd = dir < 0 ? dir : file_open_at(dir, leaf, flags, create, NULL);
	/* A directory, a symbolic link or a device in the way: not a name that can be used. */
	if (fd == -EISDIR || fd == -ENOTDIR || fd == -ELOOP || fd == -ENXIO)
		return -EINVAL;
	return fd;
}

bool file_lock_same(struct file_session *fs, enum coord_kind kind, const char *hash,
	struct coord_bytes name, int fd)
{
	char buffer[FILE_NAME_MAX + 1];
	const char *leaf;
	_cleanup_close_ int dir = lock_place(fs, kind, hash, name, false, buffer, &leaf);
	return dir >= 0 && file_same_at(dir, leaf, fd);
}

/* Is the file that we have locked still the one of that name? 0, -ESTALE, or -EHOSTDOWN: that cannot be
 * seen now, for lack of descriptors for instance. */
static int held_look(struct file_session *fs, const struct file_held *held)
{
	char buffer[FILE_NAME_MAX + 1];
	const char *leaf;
	_cleanup_close_ int dir =
		lock_place(fs, held->kind, held->hash, held->name, false, buffer, &leaf);
	struct stat a, b;
	int r = dir < 0 ? dir : fstatat(dir, leaf, &a, AT_SYMLINK_NOFOLLOW) ? -errno : 0;
	if (r == -ENOENT || r == -ENOTDIR || r == -ELOOP)
		return -ESTALE;
	if (r || fstat(held->fd, &b))
		return -EHOSTDOWN;
	return a.st_ino == b.st_ino && a.st_dev == b.st_dev ? 0 : -ESTALE;
}

int file_watch_lock(struct file_watch *w)
{
	struct file_session *fs = w->fs;
	if (w->fd >= 0 && file_lock_same(fs, w->kind, w->hash, w->name, w->fd))
		return w->fd;
	if (w->fd >= 0)
		close(w->fd);
	w->fd = -1;
	/* The second look is for what came between the first one and listening. */
	for (int looks = 0; looks < 2; looks++) {
		w->writable = false;
		w->fd = file_lock_open(fs, w->kind, w->hash, w->name, O_RDONLY, false);
		if (w->fd >= 0 && w->kind == COORD_LOCK)
			file_watch_listen(w, w->fd, NULL);
		if (w->fd != -ENOENT || w->kind != COORD_LOCK)
			break;
		char buffer[FILE_NAME_MAX + 1];
		const char *leaf;
		_cleanup_close_ int dir =
			lock_place(fs, w->kind, w->hash, w->name, false, buffer, &leaf);
		if (dir >= 0)
			file_watch_listen(w, dir, leaf);
	}
	return w->fd;
}

/* ---- What is written into them ---- */

uint64_t file_shared_token(int fd, uint64_t counter)
{
	/* In a new file nothing was counted yet. There may have been another one before it, and all who share
	 * must come to the same number without writing any: the time when it was made. */
	struct statx st;
	if (!counter && statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &st) == 0 &&
		st.stx_mask & STATX_BTIME && st.stx_btime.tv_sec > 0)
		counter = (uint64_t)st.stx_btime.tv_sec * 1000000 + st.stx_btime.tv_nsec / 1000;
	return (counter & ~(uint64_t)1) + 1;
}

/* Writes the next token and the holder's record; for sharers reads only. held->plain: the file holds
 * something that is not ours and is left alone; then the token is the clock's. A conversion keeps the
 * time since when it is held. */
static int lock_stamp(struct file_session *fs, struct file_held *held)
{
	char data[FILE_LOCK_MAX];
	ssize_t n = pread(held->fd, data, FILE_COUNTER_LEN, 0);
	if (n < 0)
		return -errno;
	uint64_t last;
	uint64_t utc_us = file_utc_us(), now = utc_us & ~(uint64_t)1;
	if (!held->since_us)
		held->since_us = utc_us;
	held->plain = file_counter_decode((struct coord_bytes){data, (size_t)n}, &last) != 0;
	if (held->plain) {
		held->token = now + (held->mode == COORD_SHARED);
		if (held->mode == COORD_SHARED)
			file_sharer_note(fs, held);
		return 0;
	}
	if (held->mode == COORD_SHARED) {
		held->token = file_shared_token(held->fd, last);
		file_sharer_note(fs, held);
		return file_write_all(held->fd, "s", 1, FILE_WAKE_AT);
	}
	held->token = (last & ~(uint64_t)1) + 2 > now ? (last & ~(uint64_t)1) + 2 : now;
	struct file_record record = {
		.member = held->member, .token = held->token, .since_us = held->since_us};
	memcpy(record.session, coord_session_uuid(fs->session), sizeof(record.session));
	memcpy(record.owner, held->owner, sizeof(record.owner));
	size_t len = file_record_encode(&record, data);
	return file_write_all(held->fd, data, len, 0);
}

static void lock_unstamp(const struct file_held *held)
{
	if (held->mode == COORD_EXCLUSIVE && !held->plain)
		file_write_all(held->fd, "\0\0\0\0", 4, FILE_RECORD_AT);
}

/* Raises an event after the lock was let go, or made weaker. */
static void lock_wake(const struct file_held *held)
{
	if (!held->plain)
		file_write_all(held->fd, "u", 1, FILE_WAKE_AT);
}

void file_held_unlist(struct file_session *fs, struct file_held *held)
{
	int wd = held->wd;
	held->wd = -1;
	coord_list_remove(&held->link);
	if (wd < 0)
		return;
	fs->held_wds--;
	file_notify_release(fs, wd);
}

void file_held_release(struct file_session *fs, struct file_held *held)
{
	if (held->fd < 0)
		return;
	lock_unstamp(held);
	file_sharer_forget(fs, held);
	file_ofd(held->fd, F_UNLCK);
	lock_wake(held);
	close(held->fd);
	held->fd = -1;
}

bool file_held_lose(struct file_session *fs, struct file_held *held, const char *why)
{
	struct file_notice *notice =
		file_notice_new(held->kind, held->name, held->owner, held->epoch);
	if (!notice)
		return false;
	notice->lost = true;
	notice->why = why;
	coord_list_add(&fs->gone, &notice->link);
	file_held_release(fs, held);
	return true;
}

/* Does it lie deeper than the directories that are listened to in any case? */
static bool is_nested(const struct file_held *held)
{
	return held->kind == COORD_LOCK && memchr(held->name.data, '/', held->name.len);
}

/* ---- Holding a file that is not there any more ---- */

static const char removed[] = "its file was removed";

/* A removed file can still be locked, and another mount locks the one that was made in its place: what
 * is held then is worth nothing. */
void file_held_look(struct file_session *fs, bool nested)
{
	pthread_mutex_lock(&fs->lock);
	struct file_held *held;
	coord_list_each (held, &fs->held, link) {
		if (held->fd >= 0 && (!nested || is_nested(held)) && held_look(fs, held) == -ESTALE)
			file_held_lose(fs, held, removed);
	}
	pthread_mutex_unlock(&fs->lock);
}

static void missing_work(struct coord_job *job)
{
	file_held_look(coord_container(job, struct file_session, missing_job), false);
}

static void missing_done(struct coord_job *job)
{
	struct file_session *fs = coord_container(job, struct file_session, missing_job);
	file_notices_tell(fs);
	if (fs->missing_again) {
		fs->missing_again = false;
		coord_worker_submit(fs->locks, job);
		return;
	}
	fs->missing_busy = false;
	fs->busy--;
	file_idle(fs);
}

void file_held_event(struct file_session *fs)
{
	if (fs->closing)
		return;
	fs->missing_again = fs->missing_busy;
	if (fs->missing_busy)
		return;
	fs->missing_busy = true;
	fs->busy++;
	fs->missing_job.work = missing_work;
	fs->missing_job.done = missing_done;
	coord_worker_submit(fs->locks, &fs->missing_job);
}

/* ---- lock ---- */

/* A look that nobody notices: is it held? */
static int lock_peek(struct file_op *f)
{
	struct file_held *held = f->held;
	_cleanup_close_ int fd =
		file_lock_open(f->fs, held->kind, held->hash, held->name, O_RDONLY, false);
	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	/* Sharers can only be found out by trying. */
	short type;
	pid_t pid;
	int r = file_ofd_look(fd, &type, &pid);
	if (!r && (type == F_WRLCK || (type == F_RDLCK && held->mode == COORD_EXCLUSIVE)))
		r = -EBUSY;
	return r;
}

/* The descriptor to try on: the watch's, or a new one. */
static int lock_descriptor(struct file_op *f)
{
	struct file_held *held = f->held;
	struct file_watch *w = f->op->flags & COORD_OP_WATCH ? f->watch : NULL;
	if (w && w->fd >= 0 && w->writable &&
		file_lock_same(f->fs, held->kind, held->hash, held->name, w->fd)) {
		int fd = w->fd;
		w->fd = -1;
		return fd;
	}
	int fd = file_lock_open(f->fs, held->kind, held->hash, held->name, O_RDWR, true);
	if (w && fd >= 0) {
		if (w->fd >= 0)
			close(w->fd);
		w->fd = -1;
		if (w->kind == COORD_LOCK)
			file_watch_listen(w, fd, NULL);
	}
	return fd;
}

/* Keeps a descriptor on which trying failed for the next time. */
static void lock_keep(struct file_op *f, int fd)
{
	struct file_watch *w = f->op->flags & COORD_OP_WATCH ? f->watch : NULL;
	if (!w) {
		close(fd);
		return;
	}
	w->fd = fd;
	w->writable = true;
	file_waiter_mark(w, f->held->mode);
}

/* Readers who take turns would keep a writer out for ever: a sharer that can wait lets one that waits on
 * another mount go first, but not for longer than it would take to look again. */
static bool lock_defer(struct file_op *f)
{
	struct file_watch *w = f->op->flags & COORD_OP_WATCH ? f->watch : NULL;
	if (!w || f->held->mode != COORD_SHARED)
		return false;
	uint64_t now = file_now_ms();
	if (!file_waiter_writers(w)) {
		w->defer_ms = 0;
		return false;
	}
	if (!w->defer_ms)
		w->defer_ms = now + FILE_SAFETY_MS;
	return now < w->defer_ms;
}

static int lock_try(struct file_op *f)
{
	struct file_held *held = f->held;
	int fd = lock_descriptor(f);
	if (fd < 0)
		return fd;
	int r = lock_defer(f) ? -EBUSY
			      : file_ofd(fd, held->mode == COORD_EXCLUSIVE ? F_WRLCK : F_RDLCK);
	if (r == -EBUSY) {
		lock_keep(f, fd);
		return r;
	}
	if (!r && !file_lock_same(f->fs, held->kind, held->hash, held->name, fd))
		r = -EAGAIN; /* replaced meanwhile */
	held->fd = fd;
	if (!r)
		r = lock_stamp(f->fs, held);
	if (r) {
		file_sharer_forget(f->fs, held);
		file_ofd(fd, F_UNLCK);
		close(fd);
		held->fd = -1;
	}
	return r;
}

static void lock_granted(struct file_op *f)
{
	struct file_session *fs = f->fs;
	struct file_held *held = f->held;
	held->noticed = true;
	f->token = held->token;
	if (f->watch) {
		file_waiter_unmark(f->watch);
		f->watch->defer_ms = 0;
	}
	/* Who shares may go on for long without a release at which others are looked for. */
	f->contended = held->mode == COORD_SHARED && file_waiter_others(fs, held->kind, held->hash);
	pthread_mutex_lock(&fs->lock);
	coord_list_add(&fs->held, &held->link);
	/* The fixed directories are listened to in any case; below others it takes a watch of its own. */
	if (is_nested(held))
		held->wd = file_notify_held(fs, held->fd);
	pthread_mutex_unlock(&fs->lock);
}

static uint64_t retry_ms(struct file_op *f)
{
	return f->fs->notify_works && f->watch &&
			       (f->watch->kind != COORD_LOCK || f->watch->wd >= 0)
		       ? FILE_SAFETY_MS
		       : FILE_POLL_MS;
}

int file_lock_work(struct file_op *f)
{
	struct coord_op *op = f->op;
	if (f->held->kind == COORD_LEADER && !file_group_exists(f->fs, f->held->hash))
		return -ENOENT;
	int r = op->flags & COORD_OP_WATCH ? 0 : lock_peek(f);
	for (int tries = 0; !r && tries < TRIES; tries++) {
		r = lock_try(f);
		if (r != -EAGAIN)
			break;
		r = tries == TRIES - 1 ? -EBUSY : 0;
	}
	if (f->held->fd >= 0)
		lock_granted(f);
	else if (r == -EBUSY)
		op->retry_ms = retry_ms(f);
	return r;
}

/* Memory for what is going to be held. */
static struct file_held *held_new(const struct coord_grant *grant, const char *hash)
{
	size_t name = grant->key.name.len, member = grant->member.len;
	struct file_held *held = calloc(1, sizeof(*held) + name + member + 1);
	if (!held)
		return NULL;
	coord_list_init(&held->link);
	held->kind = grant->key.kind;
	memcpy(held->hash, hash, FILE_HASH_SIZE);
	held->mode = grant->mode;
	held->fd = held->slot = held->wd = -1;
	memcpy(held->owner, grant->owner, sizeof(held->owner));
	held->epoch = grant->epoch;
	memcpy(held->text, grant->key.name.data, name);
	if (member)
		memcpy(held->text + name, grant->member.data, member);
	held->name = (struct coord_bytes){held->text, name};
	held->member = (struct coord_bytes){held->text + name, member};
	return held;
}

void file_lock_after(struct file_op *f)
{
	struct coord_grant *grant = f->op->grant;
	if (f->status)
		return;
	if (f->held) {
		grant->since_us = f->held->since_us; /* as other mounts read it */
		f->grant->held = f->held;
		f->held = NULL;
	}
	if (f->token)
		grant->token = f->token;
	if (f->contended)
		coord_grant_contended(f->fs->session, grant->key, grant->owner, grant->epoch);
}

void file_lock(struct coord_session *session, struct coord_op *op)
{
	struct file_op *f = file_op_prepare(session, op);
	if (!f)
		return;
	struct coord_grant *grant = op->grant;
	int r = 0;
	if (f->fs->read_only)
		r = -EROFS;
	else if (grant->key.kind == COORD_LEADER && grant->mode != COORD_EXCLUSIVE)
		r = -EINVAL;
	else if (!(f->held = held_new(grant, f->hash)))
		r = -ENOMEM;
	f->work = r ? NULL : file_lock_work;
	f->after = file_lock_after;
	f->status = r;
	file_op_submit(f, f->fs->locks);
}

/* ---- convert, unlock, check ---- */

/* The file was removed: to convert the lock on it would exclude nobody. */
static int convert_gone(struct file_op *f, struct file_held *held)
{
	int r = held_look(f->fs, held);
	if (r != -ESTALE)
		return 0;
	pthread_mutex_lock(&f->fs->lock);
	file_held_lose(f->fs, held, removed);
	pthread_mutex_unlock(&f->fs->lock);
	return r;
}

static int convert_down(struct file_op *f, struct file_held *held)
{
	lock_unstamp(held);
	file_sharer_note(f->fs, held);
	int r = file_ofd(held->fd, F_RDLCK);
	if (r) {
		file_sharer_forget(f->fs, held);
		return r;
	}
	held->mode = COORD_SHARED;
	held->token++;
	lock_wake(held);
	return 0;
}

static int convert_up(struct file_op *f, struct file_held *held)
{
	struct file_watch *w = f->op->flags & COORD_OP_WATCH ? f->watch : NULL;
	if (w && w->wd < 0 && w->kind == COORD_LOCK)
		file_watch_listen(w, held->fd, NULL);
	int r = file_ofd(held->fd, F_WRLCK);
	if (r == -EBUSY) {
		if (w)
			file_waiter_mark(w, COORD_EXCLUSIVE);
		f->op->retry_ms = retry_ms(f);
	}
	if (r)
		return r;
	if (w)
		file_waiter_unmark(w);
	r = convert_gone(f, held);
	if (r)
		return r;
	uint64_t token = held->token;
	held->mode = COORD_EXCLUSIVE;
	r = lock_stamp(f->fs, held);
	if (r) {
		file_ofd(held->fd, F_RDLCK);
		held->mode = COORD_SHARED;
		held->token = token;
		return r;
	}
	file_sharer_forget(f->fs, held);
	return 0;
}

int file_convert(struct file_op *f)
{
	struct file_held *held = f->grant->held;
	if (!held || held->fd < 0)
		return -ESTALE;
	enum coord_mode mode = f->op->mode;
	int r = convert_gone(f, held);
	if (!r && mode != held->mode)
		r = mode == COORD_SHARED ? convert_down(f, held) : convert_up(f, held);
	else if (!r && mode == COORD_EXCLUSIVE)
		r = lock_stamp(f->fs, held); /* after a downgrade that stayed with the core */
	if (!r)
		f->token = held->token;
	return r;
}

void file_convert_after(struct file_op *f)
{
	file_notices_tell(f->fs);
	file_lock_after(f);
}

int file_unlock(struct file_op *f)
{
	struct file_session *fs = f->fs;
	struct file_held *held = f->grant->held;
	if (!held)
		return 0;
	if (held->fd >= 0)
		f->contended = file_waiter_others(fs, held->kind, held->hash);
	pthread_mutex_lock(&fs->lock);
	file_held_unlist(fs, held);
	pthread_mutex_unlock(&fs->lock);
	file_held_release(fs, held);
	return 0;
}

void file_unlock_after(struct file_op *f)
{
	struct coord_grant *grant = f->op->grant;
	free(f->grant->held);
	f->grant->held = NULL;
	if (f->contended)
		coord_grant_contended(f->fs->session, grant->key, grant->owner, grant->epoch);
}

int file_lock_check(struct file_op *f)
{
	struct file_held *held = f->grant->held;
	int r = !held || held->fd < 0 ? -ESTALE : held_look(f->fs, held);
	if (!r)
		f->token = held->token;
	return r;
}
