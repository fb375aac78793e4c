/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who holds a lock, seen from outside: by F_OFD_GETLK, which takes nothing, on descriptors that only
 * read, whose closing wakes nobody.
 */
#include "drivers/file/file.h"

#define DEPTH_MAX 32
/* Whoever took a lock writes his record a moment later. */
enum { RECORD_TRIES = 10, RECORD_PAUSE_US = 500 };

static int look_once(struct file_session *fs, int fd, struct file_look *ret)
{
	short type;
	pid_t pid;
	*ret = (struct file_look){.mode = COORD_NONE};
	int r = file_ofd_look(fd, &type, &pid);
	if (r || type == F_UNLCK)
		return r;
	ret->mode = type == F_WRLCK ? COORD_EXCLUSIVE : COORD_SHARED;
	if (pid >= 0) {
		ret->foreign = true;
		ret->pid = (uint32_t)pid;
		return 0;
	}
	ssize_t n = pread(fd, ret->buffer, sizeof(ret->buffer), 0);
	struct coord_bytes data = {ret->buffer, n < 0 ? 0 : (size_t)n};
	uint64_t counter;
	if (!data.len || file_counter_decode(data, &counter))
		return 0;
	if (type == F_RDLCK) {
		ret->token = file_shared_token(fd, counter);
		return 0;
	}
	char session[33];
	ret->known = file_record_decode(data, &ret->record) == 0;
	if (ret->known)
		file_hex(ret->record.session, sizeof(ret->record.session), session);
	ret->known = ret->known && file_session_alive(fs, session);
	ret->token = ret->known ? ret->record.token : 0;
	return 0;
}

int file_look(struct file_session *fs, int fd, struct file_look *ret)
{
	for (int i = 0;; i++) {
		int r = look_once(fs, fd, ret);
		bool waits = r == 0 && ret->mode == COORD_EXCLUSIVE && !ret->foreign && !ret->known;
		if (!waits || i == RECORD_TRIES)
			return r;
		file_pause_us(RECORD_PAUSE_US);
	}
}

static bool row_text(struct coord_op *op, struct coord_bytes from, struct coord_bytes *ret)
{
	*ret = coord_op_copy(op, from.data, from.len);
	return ret->data || !from.len;
}

static bool is_shared(enum coord_kind kind, const struct file_look *look)
{
	return kind == COORD_LOCK && look->mode == COORD_SHARED;
}

/* Counts the mounts that share a lock; the first of them is shown. */
static int row_sharers(
	struct coord_op *op, struct coord_row *row, const struct file_sharers *sharers)
{
	char hash[FILE_HASH_SIZE];
	struct coord_bytes member;
	file_hash(row->name, hash);
	row->holders = file_sharers_find(sharers, hash, &row->created_us, &member);
	return !row->holders || row_text(op, member, &row->data) ? 0 : -ENOMEM;
}

/* sharers: for shared locks, else NULL. */
static int look_row(struct coord_op *op, enum coord_kind kind, struct coord_bytes name,
	const struct file_look *look, const struct file_sharers *sharers)
{
	struct coord_row *row = coord_op_row(op);
	if (!row || !row_text(op, name, &row->name))
		return -ENOMEM;
	row->mode = look->mode;
	row->pid = look->pid;
	row->token = look->token;
	row->holders = look->mode == COORD_EXCLUSIVE;
	if (look->foreign)
		row->flags |= COORD_ROW_FOREIGN;
	if (look->known) {
		row->created_us = look->record.since_us;
		memcpy(row->owner, look->record.owner, sizeof(row->owner));
		if (!row_text(op, look->record.member, &row->data))
			return -ENOMEM;
	}
	if (kind == COORD_LEADER && !row->data.len)
		row->flags |= COORD_ROW_NO_ID;
	return sharers && is_shared(kind, look) ? row_sharers(op, row, sharers) : 0;
}

int file_lock_read(struct file_op *f)
{
	struct coord_op *op = f->op;
	struct file_session *fs = f->fs;
	enum coord_kind kind = op->key.kind;
	_cleanup_close_ int own = -1;
	int fd;
	if (f->watch)
		fd = file_watch_lock(f->watch);
	else
		fd = own = file_lock_open(fs, kind, f->hash, op->key.name, O_RDONLY, false);
	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	struct file_look look;
	int r = file_look(fs, fd, &look);
	if (r || look.mode == COORD_NONE ||
		(kind == COORD_LEADER && !file_group_exists(fs, f->hash)))
		return r;
	struct file_sharers sharers = {0};
	r = is_shared(kind, &look) ? file_sharers_read(fs, f->hash, &sharers) : 0;
	if (!r)
		r = look_row(op, kind, op->key.name, &look, &sharers);
	file_sharers_done(&sharers);
	return r;
}

/* ---- Listing ---- */

/* A walk through DIR. Python's locks lie anywhere in it. */
struct walk {
	struct file_op *f;
	int dir;
	char path[FILE_NAME_MAX + 1];
	size_t len;
	unsigned depth;
	struct file_sharers sharers; /* read when the first shared lock was found */
};

static int walk_dir(struct walk *walk, int dir);

static int walk_file(struct walk *walk, const char *name)
{
	_cleanup_close_ int fd = file_open_at(walk->dir, name, O_RDONLY, false, NULL);
	struct file_look look;
	if (fd < 0 || file_look(walk->f->fs, fd, &look) || look.mode == COORD_NONE)
		return 0;
	int r = 0;
	if (is_shared(COORD_LOCK, &look) && !walk->sharers.loaded)
		r = file_sharers_read(walk->f->fs, NULL, &walk->sharers);
	return r ? r
		 : look_row(walk->f->op, COORD_LOCK, (struct coord_bytes){walk->path, walk->len},
			   &look, &walk->sharers);
}

static int walk_entry(void *user, const char *name)
{
	struct walk *walk = user;
	size_t len = walk->len, more = strlen(name);
	/* Names that are too long for us are Python's alone. */
	if (len + (len > 0) + more > FILE_NAME_MAX)
		return 0;
	if (len)
		walk->path[walk->len++] = '/';
	memcpy(walk->path + walk->len, name, more);
	walk->len += more;
	struct stat st;
	int r = 0;
	if (!file_lock_name_check((struct coord_bytes){walk->path, walk->len}) &&
		fstatat(walk->dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
		if (S_ISREG(st.st_mode)) {
			r = walk_file(walk, name);
		} else if (S_ISDIR(st.st_mode) && walk->depth < DEPTH_MAX) {
			int dir = file_open_dir(walk->dir, name, false);
			r = dir < 0 ? 0 : walk_dir(walk, dir);
		}
	}
	walk->len = len;
	return walk->f->fs->closing ? -ECANCELED : r;
}

/* Takes dir over. */
static int walk_dir(struct walk *walk, int dir)
{
	int above = walk->dir;
	walk->dir = dir;
	walk->depth++;
	int r = file_each(dir, walk, walk_entry);
	walk->depth--;
	walk->dir = above;
	close(dir);
	return r == -ENOENT ? 0 : r;
}

static int leader_entry(void *user, const char *name)
{
	struct file_op *f = user;
	struct file_session *fs = f->fs;
	_cleanup_close_ int fd = file_open_at(fs->dirs[FILE_LEADERS], name, O_RDONLY, false, NULL);
	struct file_look look;
	struct coord_bytes group;
	if (fd < 0 || strlen(name) != FILE_HASH_SIZE - 1 || file_look(fs, fd, &look) ||
		look.mode == COORD_NONE || file_group_name(f, name, &group))
		return 0;
	return look_row(f->op, COORD_LEADER, group, &look, NULL);
}

int file_lock_list(struct file_op *f)
{
	struct file_session *fs = f->fs;
	if (f->op->key.kind == COORD_LEADER)
		return fs->dirs[FILE_LEADERS] < 0
			       ? 0
			       : file_each(fs->dirs[FILE_LEADERS], f, leader_entry);
	struct walk walk = {.f = f, .dir = -1};
	int dir = openat(fs->dirs[FILE_ROOT], ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = dir < 0 ? -errno : walk_dir(&walk, dir);
	file_sharers_done(&walk.sharers);
	return r;
}
