/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening and closing: the directories, our session file, the claim on the member id.
 *
 * A session is alive while an OFD lock is on .toozfs/sessions/<uuid>. The kernel drops it with the
 * process, so that everybody sees at once what a dead daemon left: members, claims, records of holders.
 */
#include "drivers/file/file.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "coord/loop_uv.h"

#define TRIES 100
#define PAUSE_MS 10
#define CLAIM_MS 1000

static int refuse(struct file_op *f, int r, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Says why opening failed, once. */
static int refuse(struct file_op *f, int r, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	char text[160];
	vsnprintf(text, sizeof(text), format, args);
	coord_op_explain(f->op, "%s", text);
	va_end(args);
	return r;
}

/* DIR as far as an error has room for it: the end tells more than the start. */
struct shown {
	char text[80];
};

static struct shown shown(const struct file_session *fs)
{
	struct shown ret;
	size_t len = strlen(fs->dir), room = sizeof(ret.text) - 4;
	snprintf(ret.text, sizeof(ret.text), "%s%s", len > room ? "..." : "",
		len > room ? fs->dir + len - room : fs->dir);
	return ret;
}

/* ---- Is a session alive? ---- */

bool file_session_alive(struct file_session *fs, const char uuid[33])
{
	if (strcmp(uuid, fs->uuid) == 0)
		return fs->own >= 0;
	if (fs->dirs[FILE_SESSIONS] < 0)
		return false;
	_cleanup_close_ int fd = file_open_at(fs->dirs[FILE_SESSIONS], uuid, O_RDONLY, false, NULL);
	short type;
	pid_t pid;
	if (fd < 0)
		return fd != -ENOENT;
	return file_ofd_look(fd, &type, &pid) != 0 || type != F_UNLCK;
}

/* ---- Directories ---- */

/* What is made below DIR. */
static const struct {
	enum file_dir parent, dir;
	const char *name;
} below[] = {{FILE_ROOT, FILE_GROUPS, "groups"}, {FILE_ROOT, FILE_TMP, "tmp"},
	{FILE_ROOT, FILE_OURS, ".toozfs"}, {FILE_OURS, FILE_SESSIONS, "sessions"},
	{FILE_OURS, FILE_MEMBERS, "members"}, {FILE_OURS, FILE_LEADERS, "leaders"},
	{FILE_OURS, FILE_WAITERS, "waiters"}, {FILE_OURS, FILE_BREAKS, "break"}};
#define BELOW (sizeof(below) / sizeof(*below))

/* Is what bears the name now surely not what we have open? */
static bool is_other(int dir, const char *name, int flags, int fd)
{
	struct stat a, b;
	if (fstatat(dir, name, &a, flags))
		return errno == ENOENT || errno == ENOTDIR || errno == ELOOP;
	return fstat(fd, &b) == 0 && (a.st_ino != b.st_ino || a.st_dev != b.st_dev);
}

bool file_store_gone(struct file_session *fs)
{
	bool gone = is_other(AT_FDCWD, fs->dir, 0, fs->dirs[FILE_ROOT]);
	for (size_t i = 0; i < BELOW && !gone; i++)
		gone = fs->dirs[below[i].dir] >= 0 &&
		       is_other(fs->dirs[below[i].parent], below[i].name, AT_SYMLINK_NOFOLLOW,
			       fs->dirs[below[i].dir]);
	/* Without our session file we are dead to the others. */
	return gone || (fs->own >= 0 && is_other(fs->dirs[FILE_SESSIONS], fs->uuid,
						AT_SYMLINK_NOFOLLOW, fs->own));
}

static int open_root(struct file_op *f)
{
	struct file_session *fs = f->fs;
	int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
	int fd = open(fs->dir, flags);
	/* Once it was there it is not ours to make: it may be on its way to another place. */
	if (fd < 0 && errno == ENOENT && !fs->read_only && !fs->was_open) {
		if (mkdir(fs->dir, 0777) && errno != EEXIST)
			return refuse(f, -errno, "%s does not exist and cannot be made: %s",
				shown(fs).text,
				errno == ENOENT ? "no parent directory" : strerror(errno));
		fd = open(fs->dir, flags);
	}
	if (fd < 0)
		return refuse(f, -errno, "cannot open %s: %s", shown(fs).text, strerror(errno));
	fs->dirs[FILE_ROOT] = fd;
	return 0;
}

static int open_below(struct file_op *f, enum file_dir parent, enum file_dir dir, const char *name)
{
	struct file_session *fs = f->fs;
	int up = fs->dirs[parent];
	int fd = up < 0 ? -ENOENT : file_open_dir(up, name, !fs->read_only);
	if (fd == -ENOENT && fs->read_only)
		return 0;
	if (fd < 0)
		return refuse(f, fd, "cannot use %s/%s: %s", shown(fs).text, name, strerror(-fd));
	fs->dirs[dir] = fd;
	return 0;
}

static int open_dirs(struct file_op *f)
{
	int r = open_root(f);
	for (size_t i = 0; !r && i < BELOW; i++)
		r = open_below(f, below[i].parent, below[i].dir, below[i].name);
	if (!r && !f->fs->read_only && faccessat(f->fs->dirs[FILE_ROOT], ".", W_OK, AT_EACCESS))
		r = refuse(f, -errno, "%s is not writable: %s (-o ro observes it)",
			shown(f->fs).text, strerror(errno));
	return r;
}

static void close_dirs(struct file_session *fs)
{
	for (int dir = 0; dir < FILE_DIRS; dir++) {
		if (fs->dirs[dir] >= 0)
			close(fs->dirs[dir]);
		fs->dirs[dir] = -1;
	}
	if (fs->driver >= 0)
		close(fs->driver);
	fs->driver = -1;
}

/* ---- The session file ---- */

static int session_lock(struct file_op *f)
{
	struct file_session *fs = f->fs;
	int dir = fs->dirs[FILE_SESSIONS], r = 0;
	for (int tries = 0; tries < TRIES; tries++) {
		int fd = file_open_at(dir, fs->uuid, O_RDWR, true, NULL);
		if (fd < 0)
			return refuse(
				f, fd, "cannot write in %s: %s", shown(fs).text, strerror(-fd));
		r = file_ofd(fd, F_WRLCK);
		/* Somebody who sweeps may have taken it for a dead one, and removed it. */
		if (!r && file_same_at(dir, fs->uuid, fd)) {
			char text[COORD_IDENTITY_MAX];
			size_t len = coord_identity_format(
				&coord_session_config(fs->session)->identity, text);
			fs->own = fd;
			r = ftruncate(fd, 0) ? -errno : file_write_all(fd, text, len, 0);
			if (!r)
				r = file_sharers_open(fs);
			return r ? refuse(f, r, "cannot write in %s: %s", shown(fs).text,
					   strerror(-r))
				 : 0;
		}
		close(fd);
		if (r && r != -EBUSY)
			return refuse(
				f, r, "cannot lock files in %s: %s", shown(fs).text, strerror(-r));
		file_pause_us(1000 * PAUSE_MS);
	}
	return refuse(f, -EBUSY, "cannot lock our session file in %s", shown(fs).text);
}

static void session_unlock(struct file_session *fs)
{
	if (fs->own < 0)
		return;
	file_remove_dir(fs->dirs[FILE_BREAKS], fs->uuid);
	unlinkat(fs->dirs[FILE_SESSIONS], fs->uuid, 0);
	file_ofd(fs->own, F_UNLCK);
	close(fs->own);
	fs->own = -1;
}

static int sweep_session(void *user, const char *name)
{
	struct file_session *fs = user;
	int dir = fs->dirs[FILE_SESSIONS];
	if (!file_is_uuid(coord_bytes_of(name)) || file_session_alive(fs, name))
		return 0;
	_cleanup_close_ int fd = file_open_at(dir, name, O_RDWR, false, NULL);
	if (fd < 0 || file_ofd(fd, F_WRLCK) || !file_same_at(dir, name, fd))
		return 0;
	file_remove_dir(fs->dirs[FILE_BREAKS], name);
	unlinkat(dir, name, 0);
	return 0;
}

/* ---- Claims on member ids ---- */

/* Opens a claim and locks it against others who look at it; who has that lock for longer is no mount. */
static int claim_open(struct file_session *fs, const char *hash, bool create, uint64_t until_ms)
{
	int dir = fs->dirs[FILE_MEMBERS];
	do {
		int fd = file_open_at(dir, hash, O_RDWR, create, NULL);
		if (fd < 0)
			return fd;
		int r = file_ofd(fd, F_WRLCK);
		if (!r && file_same_at(dir, hash, fd))
			return fd;
		close(fd);
		if (r && r != -EBUSY)
			return r;
		file_pause_us(1000 * PAUSE_MS);
	} while (file_now_ms() < until_ms);
	return -ETIMEDOUT;
}

/* Whose claim is it? -ENOENT: nobody's, or that of a dead session. */
static int claim_look(
	struct file_session *fs, int fd, char **ret_data, struct coord_bytes *ret_text)
{
	size_t len;
	char session[33];
	int r = file_read_fd(fd, FILE_CLAIM_MAX, ret_data, &len, NULL);
	if (!r)
		r = file_claim_decode((struct coord_bytes){*ret_data, len}, session, ret_text);
	if (r || strcmp(session, fs->uuid) == 0 || !file_session_alive(fs, session))
		return -ENOENT;
	return 0;
}

static int claim_write(struct file_op *f, int fd)
{
	struct file_session *fs = f->fs;
	char identity[COORD_IDENTITY_MAX], text[FILE_CLAIM_MAX];
	size_t len = coord_identity_format(&coord_session_config(fs->session)->identity, identity);
	int n = snprintf(text, sizeof(text), "%s\n%.*s\n", fs->uuid, (int)len, identity);
	int r = ftruncate(fd, 0) ? -errno : file_write_all(fd, text, (size_t)n, 0);
	if (r)
		return refuse(f, r, "cannot write in %s: %s", shown(fs).text, strerror(-r));
	fs->claimed = true;
	return 0;
}

static int claim_take(struct file_op *f)
{
	struct file_session *fs = f->fs;
	struct coord_bytes member = coord_bytes_of(coord_session_config(fs->session)->member);
	char hash[FILE_HASH_SIZE];
	file_hash(member, hash);
	/* Earlier than the core, which would say only that there was no answer. */
	uint64_t now = file_now_ms(), until = f->op->deadline_ms;
	until = until > now ? now + (until - now) / 4 * 3 : now + CLAIM_MS;
	_cleanup_close_ int fd = claim_open(fs, hash, true, until);
	if (fd == -ETIMEDOUT)
		return refuse(
			f, fd, "somebody keeps %s/.toozfs/members/%s locked", shown(fs).text, hash);
	if (fd < 0)
		return refuse(f, fd, "cannot claim the member id in %s: %s", shown(fs).text,
			strerror(-fd));
	_cleanup_free_ char *data = NULL;
	struct coord_bytes identity;
	if (claim_look(fs, fd, &data, &identity))
		return claim_write(f, fd);
	struct coord_row *row = coord_op_row(f->op);
	if (!row)
		return -ENOMEM;
	row->name = coord_op_copy(f->op, member.data, member.len);
	row->data = coord_op_copy(f->op, identity.data, identity.len);
	row->flags = COORD_ROW_LIVE;
	return refuse(f, -EEXIST, "the member id is in use in %s", shown(fs).text);
}

static void claim_drop(struct file_session *fs)
{
	char hash[FILE_HASH_SIZE];
	file_hash(coord_bytes_of(coord_session_config(fs->session)->member), hash);
	if (!fs->claimed)
		return;
	fs->claimed = false;
	_cleanup_close_ int fd = claim_open(fs, hash, false, file_now_ms() + CLAIM_MS);
	char buffer[33];
	if (fd >= 0 && pread(fd, buffer, 32, 0) == 32 && memcmp(buffer, fs->uuid, 32) == 0)
		unlinkat(fs->dirs[FILE_MEMBERS], hash, 0);
}

static int sweep_claim(void *user, const char *name)
{
	struct file_session *fs = user;
	int dir = fs->dirs[FILE_MEMBERS];
	_cleanup_close_ int fd = file_open_at(dir, name, O_RDWR, false, NULL);
	_cleanup_free_ char *data = NULL;
	struct coord_bytes identity;
	if (fd >= 0 && file_ofd(fd, F_WRLCK) == 0 && file_same_at(dir, name, fd) &&
		claim_look(fs, fd, &data, &identity))
		unlinkat(dir, name, 0);
	return 0;
}

/* ---- open ---- */

static void open_undo(struct file_session *fs)
{
	file_notify_close(fs);
	claim_drop(fs);
	session_unlock(fs);
	close_dirs(fs);
}

/* First the session: without it, what is made for it would look left over. */
static int open_session(struct file_op *f)
{
	struct file_session *fs = f->fs;
	int r = session_lock(f);
	if (r)
		return r;
	_cleanup_close_ int own = file_open_dir(fs->dirs[FILE_BREAKS], fs->uuid, true);
	if (own < 0)
		return refuse(f, own, "cannot write in %s: %s", shown(fs).text, strerror(-own));
	file_each(fs->dirs[FILE_SESSIONS], fs, sweep_session);
	file_each(fs->dirs[FILE_MEMBERS], fs, sweep_claim);
	return claim_take(f);
}

static int open_work(struct file_op *f)
{
	struct file_session *fs = f->fs;
	int r = open_dirs(f);
	if (!r && !fs->read_only)
		r = open_session(f);
	if (r) {
		open_undo(fs);
		return r;
	}
	file_notify_open(fs); /* without it we poll */
	file_groups_reap(fs);
	return 0;
}

static void open_after(struct file_op *f)
{
	struct file_session *fs = f->fs;
	if (f->status)
		return;
	fs->opened = fs->was_open = true;
	fs->epoch = f->op->epoch;
	if (file_notify_start(fs)) {
		coord_log(5, "file: no inotify on %s, looking every %d ms", fs->dir, FILE_POLL_MS);
		coord_session_narrow(fs->session, COORD_CAN_NOTIFY);
	}
	coord_session_set_id(fs->session, fs->uuid);
	file_touch_start(fs);
}

static int workers_start(struct file_session *fs)
{
	int r = 0;
	if (!fs->locks)
		r = coord_worker_new(fs->loop, "file-locks", &fs->locks);
	if (!r && !fs->groups)
		r = coord_worker_new(fs->loop, "file-groups", &fs->groups);
	if (!r && !fs->scans)
		r = coord_worker_new(fs->loop, "file-scans", &fs->scans);
	return r;
}

void file_open(struct coord_session *session, struct coord_op *op)
{
	struct file_session *fs = coord_session_data(session);
	fs->closing = false;
	int r = workers_start(fs);
	if (r)
		return coord_op_fail(op, r);
	file_op_start(session, op, fs->groups, open_work, open_after);
}

/* ---- close: through the queues of all workers, then the rest when nothing runs any more ---- */

static int close_locks(struct file_op *f)
{
	struct file_session *fs = f->fs;
	pthread_mutex_lock(&fs->lock);
	struct file_held *held;
	coord_list_each (held, &fs->held, link)
		file_held_release(fs, held);
	pthread_mutex_unlock(&fs->lock);
	return -EINPROGRESS;
}

static int close_scans(struct file_op *f)
{
	(void)f;
	return -EINPROGRESS;
}

static int close_groups(struct file_op *f)
{
	struct file_session *fs = f->fs;
	/* Removing a file needs the driver lock for Python's peace of mind only. */
	bool locked = coord_list_empty(&fs->joined);
	for (int tries = 0; !locked && tries < TRIES; tries++) {
		locked = file_driver_lock_try(fs);
		if (!locked)
			file_pause_us(1000 * PAUSE_MS);
	}
	file_members_leave(fs);
	file_driver_unlock(fs);
	return -EINPROGRESS;
}

static int close_rest(struct file_op *f)
{
	open_undo(f->fs);
	return 0;
}

static void close_step(struct file_op *f)
{
	struct file_session *fs = f->fs;
	if (f->status != -EINPROGRESS) {
		fs->opened = false;
		fs->closer = NULL;
		return;
	}
	if (f->work == close_locks) {
		f->work = close_scans;
		file_op_submit(f, fs->scans);
	} else if (f->work == close_scans) {
		f->work = close_groups;
		file_op_submit(f, fs->groups);
	} else {
		f->work = close_rest;
		file_idle(fs);
	}
}

void file_idle(struct file_session *fs)
{
	struct file_op *f = fs->closer ? coord_op_data(fs->closer) : NULL;
	if (!f || fs->busy || f->work != close_rest || f->last)
		return;
	f->last = true;
	file_op_submit(f, fs->groups);
}

static void close_watches(struct file_session *fs)
{
	for (size_t i = 0; i < FILE_BUCKETS; i++) {
		while (!coord_list_empty(&fs->watches[i]))
			file_watch_unpin(
				coord_container(fs->watches[i].next, struct file_watch, by_key));
	}
}

void file_close(struct coord_session *session, struct coord_op *op)
{
	struct file_session *fs = coord_session_data(session);
	if (!fs->opened)
		return coord_op_done(op);
	fs->closing = true;
	fs->closer = op;
	coord_timer_stop(fs->loop, &fs->touch);
	coord_timer_stop(fs->loop, &fs->reap);
	coord_fd_stop(fs->notify_watch);
	fs->notify_watch = NULL;
	while (!coord_list_empty(&fs->breaks))
		file_break_cancel(coord_container(fs->breaks.next, struct file_op, link));
	close_watches(fs);
	file_op_start(session, op, fs->locks, close_locks, close_step);
}
