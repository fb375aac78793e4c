/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Groups: DIR/groups/<sha1>/, which exist while they hold a .metadata.
 *
 * Members are read under the driver lock, as Python writes their files in place. What dead daemons
 * left is removed by whoever comes across it.
 */
#include "drivers/file/file.h"

#include <stdio.h>
#include <sys/random.h>

#define METADATA ".metadata"

static bool is_hash(const char *name)
{
	return strlen(name) == FILE_HASH_SIZE - 1 &&
	       strspn(name, "0123456789abcdef") == FILE_HASH_SIZE - 1;
}

static bool is_raw(const char *name)
{
	size_t len = strlen(name);
	return len > 4 && strcmp(name + len - 4, ".raw") == 0;
}

static bool has_metadata(int group)
{
	struct stat st;
	return fstatat(group, METADATA, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode);
}

/* Opens a group's directory; -ENOENT unless the group exists. */
static int group_open(struct file_session *fs, const char *hash)
{
	if (fs->dirs[FILE_GROUPS] < 0)
		return -ENOENT;
	int fd = file_open_dir(fs->dirs[FILE_GROUPS], hash, false);
	if (fd >= 0 && !has_metadata(fd)) {
		close(fd);
		return -ENOENT;
	}
	return fd == -ENOTDIR || fd == -ELOOP ? -ENOENT : fd;
}

bool file_group_exists(struct file_session *fs, const char hash[FILE_HASH_SIZE])
{
	_cleanup_close_ int fd = group_open(fs, hash);
	return fd >= 0;
}

/* ---- create and delete ---- */

int file_group_create(struct file_op *f)
{
	struct file_session *fs = f->fs;
	if (fs->read_only)
		return -EROFS;
	_cleanup_free_ char *data = NULL;
	size_t len;
	int r = file_meta_encode(f->op->key.name, &data, &len);
	/* As in Python without the driver lock; a delete under way may take the directory away. */
	for (int tries = 0; !r && tries < 8; tries++) {
		_cleanup_close_ int dir = file_open_dir(fs->dirs[FILE_GROUPS], f->hash, true);
		if (dir < 0)
			return dir;
		r = file_replace_at(fs->dirs[FILE_TMP], dir, METADATA, data, len, true);
		struct stat a, b;
		bool same = fstat(dir, &a) == 0 &&
			    fstatat(fs->dirs[FILE_GROUPS], f->hash, &b, AT_SYMLINK_NOFOLLOW) == 0 &&
			    a.st_ino == b.st_ino;
		if (same || (r && r != -EEXIST && r != -ENOENT))
			return r;
		r = 0;
	}
	return r ? r : -EBUSY;
}

struct group_scan {
	struct file_op *f;
	struct file_session *fs;
	int dir;
	bool members, others;
	bool dead; /* saw files of dead daemons */
	uint64_t wait_ms;
	bool expired;
};

/* Is anything there that keeps a group from being deleted? Removes what does not count. */
static int delete_look(void *user, const char *name)
{
	struct group_scan *scan = user;
	if (strcmp(name, METADATA) == 0)
		return 0;
	if (!is_raw(name)) {
		scan->others = true;
		return 0;
	}
	_cleanup_free_ char *data = NULL;
	struct file_raw raw;
	struct stat st;
	uint64_t wait;
	enum file_life life = FILE_LIVE;
	if (file_member_read(scan->dir, name, &data, &raw, &st) == 0)
		life = file_member_life(scan->fs, &raw, &st, &wait);
	if (life != FILE_DEAD && life != FILE_ABANDONED)
		scan->members = true;
	return 0;
}

/* Moves the directory away first, so that nobody sees it half deleted. */
static int delete_dir(struct file_session *fs, const char *hash)
{
	uint64_t random;
	char name[40];
	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return -EIO;
	snprintf(name, sizeof(name), "%016llxgone", (unsigned long long)random);
	if (renameat(fs->dirs[FILE_GROUPS], hash, fs->dirs[FILE_TMP], name))
		return -errno;
	file_remove_dir(fs->dirs[FILE_TMP], name);
	return 0;
}

int file_group_delete(struct file_op *f)
{
	struct file_session *fs = f->fs;
	if (fs->read_only)
		return -EROFS;
	int r = file_driver_lock(f, true);
	if (r)
		return r;
	_cleanup_close_ int dir = group_open(fs, f->hash);
	struct group_scan scan = {.f = f, .fs = fs, .dir = dir};
	r = dir < 0 ? dir : file_each(dir, &scan, delete_look);
	if (!r)
		r = scan.members || scan.others ? -ENOTEMPTY : delete_dir(fs, f->hash);
	file_driver_unlock(fs);
	return r;
}

/* ---- list ---- */

int file_group_name(struct file_op *f, const char hash[FILE_HASH_SIZE], struct coord_bytes *ret)
{
	_cleanup_close_ int dir = group_open(f->fs, hash);
	_cleanup_free_ char *data = NULL;
	size_t len;
	int r = dir < 0 ? dir : file_read_at(dir, METADATA, FILE_META_MAX, &data, &len, NULL);
	struct coord_bytes name;
	if (!r)
		r = file_meta_decode((struct coord_bytes){data, len}, &name);
	if (r)
		return r;
	/* A name that leads elsewhere could be listed, but not opened. */
	char check[FILE_HASH_SIZE];
	file_hash(name, check);
	if (strcmp(check, hash) != 0)
		return -EBADMSG;
	*ret = coord_op_copy(f->op, name.data, name.len);
	return ret->data ? 0 : -ENOMEM;
}

static int list_entry(void *user, const char *name)
{
	struct file_op *f = user;
	struct coord_bytes group;
	if (f->fs->closing)
		return -ECANCELED;
	int r = is_hash(name) ? file_group_name(f, name, &group) : -ENOENT;
	if (r)
		return r == -ENOMEM ? r : 0;
	struct coord_row *row = coord_op_row(f->op);
	if (!row)
		return -ENOMEM;
	row->name = group;
	return 0;
}

int file_group_list(struct file_op *f)
{
	int dir = f->fs->dirs[FILE_GROUPS];
	return dir < 0 ? 0 : file_each(dir, f, list_entry);
}

/* ---- read ---- */

static int read_entry(void *user, const char *name)
{
	struct group_scan *scan = user;
	_cleanup_free_ char *data = NULL;
	struct file_raw raw;
	struct stat st;
	/* One that does not decode has no name to show; it hides nobody else. */
	if (!is_raw(name) || file_member_read(scan->dir, name, &data, &raw, &st))
		return 0;
	uint64_t wait = 0;
	enum file_life life = file_member_life(scan->fs, &raw, &st, &wait);
	if (wait && (!scan->wait_ms || wait < scan->wait_ms))
		scan->wait_ms = wait;
	if (life == FILE_DEAD)
		scan->dead = true;
	else if (life != FILE_LIVE)
		scan->expired = true;
	if (life != FILE_LIVE)
		return 0;
	return file_member_row(scan->f->op, &raw, &st, scan->f->op->flags & COORD_OP_WITH_DATA);
}

/* Removes what a dead daemon left; the driver lock is held. */
static int reap_entry(void *user, const char *name)
{
	struct group_scan *scan = user;
	_cleanup_free_ char *data = NULL;
	struct file_raw raw;
	struct stat st;
	uint64_t wait;
	if (is_raw(name) && file_member_read(scan->dir, name, &data, &raw, &st) == 0 &&
		file_member_life(scan->fs, &raw, &st, &wait) == FILE_DEAD)
		unlinkat(scan->dir, name, 0);
	return 0;
}

static int read_leader(struct file_op *f)
{
	struct file_session *fs = f->fs;
	_cleanup_close_ int fd =
		fs->dirs[FILE_LEADERS] < 0
			? -1
			: file_open_at(fs->dirs[FILE_LEADERS], f->hash, O_RDONLY, false, NULL);
	struct file_look look;
	if (fd < 0 || file_look(fs, fd, &look) || look.mode == COORD_NONE)
		return 0;
	struct coord_row *row = coord_op_row(f->op);
	if (!row)
		return -ENOMEM;
	row->flags = COORD_ROW_LEADER | (look.known ? 0 : COORD_ROW_NO_ID);
	row->mode = look.mode;
	row->token = look.token;
	if (!look.known)
		return 0;
	row->created_us = look.record.since_us;
	memcpy(row->owner, look.record.owner, sizeof(row->owner));
	row->name = coord_op_copy(f->op, look.record.member.data, look.record.member.len);
	return row->name.data || !look.record.member.len ? 0 : -ENOMEM;
}

int file_group_read(struct file_op *f)
{
	struct file_session *fs = f->fs;
	if (f->watch)
		file_watch_group(f->watch);
	/* A group is there or not without the driver lock, as in Python. */
	if (f->op->flags & COORD_OP_BARE)
		return file_group_exists(fs, f->hash) ? 0 : -ENOENT;
	int r = file_driver_lock(f, false);
	if (r)
		return r;
	_cleanup_close_ int dir = group_open(fs, f->hash);
	struct group_scan scan = {.f = f, .fs = fs, .dir = dir};
	r = dir < 0 ? dir : file_each(dir, &scan, read_entry);
	if (!r)
		r = read_leader(f);
	if (scan.dead && !fs->read_only && file_driver_lock_try(fs))
		file_each(dir, &scan, reap_entry);
	file_driver_unlock(fs);
	f->expiry_ms = scan.wait_ms;
	f->expired = scan.expired;
	return r;
}

/* ---- reap ---- */

static int reap_look(void *user, const char *name)
{
	struct group_scan *scan = user;
	_cleanup_free_ char *data = NULL;
	struct file_raw raw;
	struct stat st;
	uint64_t wait;
	if (is_raw(name) && file_member_read(scan->dir, name, &data, &raw, &st) == 0 &&
		file_member_life(scan->fs, &raw, &st, &wait) == FILE_DEAD)
		scan->dead = true;
	return scan->fs->closing ? -ECANCELED : 0;
}

static int reap_group(void *user, const char *name)
{
	struct file_session *fs = user;
	_cleanup_close_ int dir =
		is_hash(name) ? file_open_dir(fs->dirs[FILE_GROUPS], name, false) : -ENOENT;
	struct group_scan scan = {.fs = fs, .dir = dir};
	if (dir < 0 || file_each(dir, &scan, reap_look) || !scan.dead)
		return fs->closing ? -ECANCELED : 0;
	/* Whoever has the driver lock does not matter much: the dead are hidden already. */
	if (file_driver_lock_try(fs))
		file_each(dir, &scan, reap_entry);
	file_driver_unlock(fs);
	return 0;
}

void file_groups_reap(struct file_session *fs)
{
	if (!fs->read_only)
		file_each(fs->dirs[FILE_GROUPS], fs, reap_group);
}
