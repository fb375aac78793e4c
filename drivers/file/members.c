/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Members: DIR/groups/<sha1>/<sha1>.raw.
 *
 * A member of ours names its daemon's session in an extra key, which Python allows. It lives for as long
 * as that session is locked. One without the key is Python's, and lives by its mtime. Ours have their
 * mtime touched too, so that Python sees them.
 *
 * All but touching runs on the groups worker, under the driver lock.
 */
#include "drivers/file/file.h"

#include <stdio.h>

#define ABANDONED_AGES 6 /* so many time-outs old, a file is nobody's any more */
#define TOUCH_MAX_MS 5000 /* Python's time-out is 10 s unless its URL says otherwise */
#define BREAK_POLL_MS 250 /* looking for requests where nothing notifies */

int file_member_read(
	int group, const char *file, char **ret_data, struct file_raw *ret, struct stat *ret_stat)
{
	size_t len;
	int r = file_read_at(group, file, FILE_RAW_MAX, ret_data, &len, ret_stat);
	if (!r)
		r = file_raw_decode((struct coord_bytes){*ret_data, len}, ret);
	if (r == -EFBIG || r == -EINVAL || r == -ELOOP || r == -EISDIR)
		r = -EBADMSG;
	return r;
}

enum file_life file_member_life(struct file_session *fs, const struct file_raw *raw,
	const struct stat *st, uint64_t *ret_wait_ms)
{
	*ret_wait_ms = 0;
	if (raw->ours)
		return file_session_alive(fs, raw->session) ? FILE_LIVE : FILE_DEAD;
	int64_t then = st->st_mtim.tv_sec * 1000 + st->st_mtim.tv_nsec / 1000000;
	int64_t age = (int64_t)(file_utc_us() / 1000) - then, max = (int64_t)fs->age_ms;
	if (age < 0)
		*ret_wait_ms = (uint64_t)-age;
	else if (age <= max)
		*ret_wait_ms = (uint64_t)(max - age) + 1;
	if (age >= 0 && age <= max)
		return FILE_LIVE;
	return age > max * ABANDONED_AGES ? FILE_ABANDONED : FILE_HIDDEN;
}

int file_member_row(
	struct coord_op *op, const struct file_raw *raw, const struct stat *st, bool with_data)
{
	struct coord_row *row = coord_op_row(op);
	if (!row)
		return -ENOMEM;
	row->name = coord_op_copy(op, raw->member.data, raw->member.len);
	if (!row->name.data)
		return -ENOMEM;
	row->created_us = raw->joined_us;
	row->updated_us = raw->ours ? raw->updated_us : raw->joined_us;
	row->born = raw->born;
	row->version = raw->version;
	memcpy(row->owner, raw->owner, sizeof(row->owner));
	if (!raw->ours)
		row->flags |= COORD_ROW_FOREIGN;
	(void)st;
	if (!with_data)
		return 0;
	row->data = coord_op_copy(op, raw->capabilities.data, raw->capabilities.len);
	return row->data.data ? 0 : -ENOMEM;
}

/* ---- The file that an op is about ---- */

struct place {
	int group;
	char file[FILE_HASH_SIZE + 4];
	char *data; /* owns raw's bytes */
	struct file_raw raw;
	struct stat st;
	enum file_life life;
};

static void place_done(struct place *place)
{
	free(place->data);
	if (place->group >= 0)
		close(place->group);
}

/* Finds the group and what there is of the member: *ret_r is 0, -ENOENT or -EBADMSG. Returns -ENOENT if
 * there is no such group. */
static int place_find(struct file_op *f, struct place *place, int *ret_r)
{
	struct file_session *fs = f->fs;
	if (!file_group_exists(fs, f->hash))
		return -ENOENT;
	place->group = file_open_dir(fs->dirs[FILE_GROUPS], f->hash, false);
	if (place->group < 0)
		return place->group;
	char hash[FILE_HASH_SIZE];
	file_hash(f->op->member, hash);
	snprintf(place->file, sizeof(place->file), "%s.raw", hash);
	uint64_t wait;
	*ret_r = file_member_read(place->group, place->file, &place->data, &place->raw, &place->st);
	if (!*ret_r && !coord_bytes_equal(place->raw.member, f->op->member))
		*ret_r = -EBADMSG;
	if (!*ret_r)
		place->life = file_member_life(fs, &place->raw, &place->st, &wait);
	return 0;
}

static int place_write(struct file_op *f, struct place *place, const struct file_raw *raw)
{
	_cleanup_free_ char *data = NULL;
	size_t len;
	int r = file_raw_encode(raw, &data, &len);
	if (!r)
		r = file_replace_at(
			f->fs->dirs[FILE_TMP], place->group, place->file, data, len, false);
	return r;
}

/* ---- join ---- */

/* Is there somebody whom a join must not replace? */
static int join_refused(struct file_op *f, const struct place *place, int found)
{
	if (found == -ENOENT)
		return 0;
	if (found)
		return found;
	/* An expired file of Python's blocks nobody here: its owner counts as gone everywhere. */
	int64_t age = (int64_t)(file_utc_us() / 1000) - place->st.st_mtim.tv_sec * 1000;
	if (place->life == FILE_DEAD || place->life == FILE_ABANDONED ||
		(place->life == FILE_HIDDEN && age > 0))
		return 0;
	if ((f->op->flags & COORD_OP_REPLACE_STALE) && place->raw.ours &&
		strcmp(place->raw.session, f->fs->uuid) == 0)
		return 0;
	return file_member_row(f->op, &place->raw, &place->st, false) ? -ENOMEM : -EEXIST;
}

/* By the first two digits of the hash. */
static struct coord_list *file_bucket(struct file_session *fs, const char *file)
{
	char digits[3] = {file[0], file[0] ? file[1] : '\0', '\0'};
	return &fs->by_file[strtoul(digits, NULL, 16) % FILE_BUCKETS];
}

void file_joined_remove(struct file_session *fs, struct file_joined *joined)
{
	int wd = joined->wd;
	joined->wd = -1;
	coord_list_remove(&joined->by_file);
	coord_list_remove(&joined->link);
	file_notify_release(fs, wd);
}

static int join_locked(struct file_op *f, struct place *place)
{
	struct file_session *fs = f->fs;
	int found, r = place_find(f, place, &found);
	if (!r)
		r = join_refused(f, place, found);
	if (r)
		return r;
	uint64_t now = file_utc_us();
	struct file_raw raw = {.member = f->op->member,
		.capabilities = f->op->data.len ? f->op->data : COORD_BYTES("\xc0"),
		.joined_us = now,
		.ours = true,
		.born = now,
		.version = 1,
		.updated_us = now};
	memcpy(raw.session, fs->uuid, sizeof(raw.session));
	memcpy(raw.owner, f->op->grant->owner, sizeof(raw.owner));
	r = place_write(f, place, &raw);
	if (r)
		return r;
	struct file_joined *joined = f->joined;
	f->grant->joined = joined;
	f->joined = NULL;
	pthread_mutex_lock(&fs->lock);
	snprintf(joined->path, sizeof(joined->path), "%s/%s", f->hash, place->file);
	coord_list_add(&fs->joined, &joined->link);
	coord_list_add(file_bucket(fs, place->file), &joined->by_file);
	joined->wd = file_notify_listen(fs, place->group);
	pthread_mutex_unlock(&fs->lock);
	return 0;
}

static struct file_joined *joined_new(const struct coord_op *op)
{
	struct file_joined *joined = calloc(1, sizeof(*joined) + op->key.name.len + 1);
	if (!joined)
		return NULL;
	coord_list_init(&joined->link);
	coord_list_init(&joined->by_file);
	joined->wd = -1;
	memcpy(joined->owner, op->grant->owner, sizeof(joined->owner));
	joined->epoch = op->grant->epoch;
	memcpy(joined->text, op->key.name.data, op->key.name.len);
	joined->name = (struct coord_bytes){joined->text, op->key.name.len};
	return joined;
}

int file_member_join(struct file_op *f)
{
	if (f->fs->read_only)
		return -EROFS;
	f->joined = joined_new(f->op);
	int r = f->joined ? file_driver_lock(f, true) : -ENOMEM;
	if (r)
		return r;
	struct place place = {.group = -1};
	r = join_locked(f, &place);
	place_done(&place);
	file_driver_unlock(f->fs);
	return r;
}

/* ---- update, leave ---- */

/* May the op change what is there? */
static int change_refused(struct file_op *f, const struct place *place, int found)
{
	const struct coord_op *op = f->op;
	if (found)
		return found;
	if (place->life == FILE_DEAD)
		return -ENOENT;
	if (op->grant)
		return place->raw.ours && strcmp(place->raw.session, f->fs->uuid) == 0 &&
				       memcmp(place->raw.owner, op->grant->owner,
					       sizeof(place->raw.owner)) == 0
			       ? 0
			       : -EPERM;
	return op->flags & COORD_OP_ADOPT ? 0 : -EPERM;
}

/* Forgets the membership of a grant. */
static void joined_drop(struct file_op *f)
{
	struct file_session *fs = f->fs;
	pthread_mutex_lock(&fs->lock);
	struct file_joined *joined = f->grant ? f->grant->joined : NULL;
	if (joined)
		file_joined_remove(fs, joined);
	if (f->grant)
		f->grant->joined = NULL;
	pthread_mutex_unlock(&fs->lock);
	free(joined);
}

/* While a member leaves, its missing file is no loss. */
static void joined_expect(struct file_op *f, bool gone)
{
	pthread_mutex_lock(&f->fs->lock);
	if (f->grant && f->grant->joined)
		f->grant->joined->lost = gone;
	pthread_mutex_unlock(&f->fs->lock);
}

static int change_write(struct file_op *f, struct place *place)
{
	place->raw.capabilities = f->op->data.len ? f->op->data : COORD_BYTES("\xc0");
	place->raw.version++;
	place->raw.updated_us = file_utc_us();
	if (!place->raw.joined_us)
		place->raw.joined_us = place->raw.updated_us;
	return place_write(f, place, &place->raw);
}

static int leave_remove(struct file_op *f, struct place *place)
{
	joined_expect(f, true);
	int r = unlinkat(place->group, place->file, 0) ? -errno : 0;
	if (r)
		joined_expect(f, false);
	return r;
}

static int change(struct file_op *f, bool leave)
{
	if (f->fs->read_only)
		return -EROFS;
	int r = file_driver_lock(f, true);
	if (r)
		return r;
	struct place place = {.group = -1};
	int found;
	r = place_find(f, &place, &found);
	/* A file of ours that was spoilt can still be left. */
	if (!r && !(leave && f->grant && f->grant->joined && found == -EBADMSG))
		r = change_refused(f, &place, found);
	if (!r)
		r = leave ? leave_remove(f, &place) : change_write(f, &place);
	if (leave && (!r || r == -ENOENT || r == -EPERM))
		joined_drop(f);
	place_done(&place);
	file_driver_unlock(f->fs);
	return r;
}

int file_member_update(struct file_op *f)
{
	return change(f, false);
}

int file_member_leave(struct file_op *f)
{
	return change(f, true);
}

int file_member_get(struct file_op *f)
{
	int r = file_driver_lock(f, false);
	if (r)
		return r;
	struct place place = {.group = -1};
	int found;
	r = place_find(f, &place, &found);
	if (!r)
		r = found;
	if (!r)
		r = place.life != FILE_LIVE ? -ENOENT
					    : file_member_row(f->op, &place.raw, &place.st, true);
	place_done(&place);
	file_driver_unlock(f->fs);
	return r;
}

void file_members_leave(struct file_session *fs)
{
	pthread_mutex_lock(&fs->lock);
	struct file_joined *joined;
	coord_list_each (joined, &fs->joined, link) {
		if (!joined->lost)
			unlinkat(fs->dirs[FILE_GROUPS], joined->path, 0);
		joined->lost = true;
	}
	pthread_mutex_unlock(&fs->lock);
}

/* ---- Losing ---- */

struct mine {
	char path[FILE_RAW_PATH];
	uint8_t owner[16];
};

/* Copies what we joined, so that no lock is held over I/O: all, or what is in doubt. */
static struct mine *mine_list(struct file_session *fs, bool doubtful, size_t *ret_len)
{
	pthread_mutex_lock(&fs->lock);
	size_t len = 0, max = 0;
	struct file_joined *joined;
	coord_list_each (joined, &fs->joined, link)
		max += !joined->lost && (joined->doubt || !doubtful);
	struct mine *list = calloc(max + 1, sizeof(*list));
	coord_list_each (joined, &fs->joined, link) {
		if (!list || joined->lost || (doubtful && !joined->doubt))
			continue;
		memcpy(list[len].path, joined->path, sizeof(joined->path));
		memcpy(list[len++].owner, joined->owner, sizeof(joined->owner));
		joined->doubt = joined->doubt && !doubtful;
	}
	pthread_mutex_unlock(&fs->lock);
	*ret_len = len;
	return list;
}

/* The file of a member is gone: Python, or an administrator, made it leave. */
static void member_lost(struct file_session *fs, const struct mine *mine)
{
	pthread_mutex_lock(&fs->lock);
	struct file_joined *joined;
	coord_list_each (joined, file_bucket(fs, mine->path + FILE_HASH_SIZE), by_file) {
		struct file_notice *notice;
		if (joined->lost || strcmp(joined->path, mine->path) != 0 ||
			memcmp(joined->owner, mine->owner, sizeof(joined->owner)) != 0)
			continue;
		notice = file_notice_new(COORD_MEMBER, joined->name, joined->owner, joined->epoch);
		if (!notice)
			continue;
		joined->lost = notice->lost = true;
		coord_list_add(&fs->gone, &notice->link);
	}
	pthread_mutex_unlock(&fs->lock);
}

/* Is the file still there, and ours? Where that cannot be seen it is. */
static bool mine_there(struct file_session *fs, const struct mine *mine)
{
	_cleanup_free_ char *data = NULL;
	struct file_raw raw;
	struct stat st;
	int r = file_member_read(fs->dirs[FILE_GROUPS], mine->path, &data, &raw, &st);
	if (r)
		return r != -ENOENT && r != -ENOTDIR && r != -EBADMSG;
	return raw.ours && memcmp(raw.owner, mine->owner, sizeof(raw.owner)) == 0;
}

static void doubt_work(struct coord_job *job)
{
	struct file_session *fs = coord_container(job, struct file_session, doubt_job);
	size_t len;
	_cleanup_free_ struct mine *list = mine_list(fs, true, &len);
	for (size_t i = 0; i < len; i++) {
		if (!mine_there(fs, &list[i]))
			member_lost(fs, &list[i]);
	}
}

static void doubt_done(struct coord_job *job)
{
	struct file_session *fs = coord_container(job, struct file_session, doubt_job);
	file_notices_tell(fs);
	if (fs->doubt_again) {
		fs->doubt_again = false;
		coord_worker_submit(fs->locks, job);
		return;
	}
	fs->doubt_busy = false;
	fs->busy--;
	file_idle(fs);
}

/* Marks what may be lost. Returns whether that is anything. */
static bool doubt_mark(struct file_session *fs, int wd, const char *file)
{
	bool any = false;
	struct file_joined *joined;
	pthread_mutex_lock(&fs->lock);
	if (file) {
		coord_list_each (joined, file_bucket(fs, file), by_file) {
			if (joined->lost || joined->wd != wd ||
				strcmp(joined->path + FILE_HASH_SIZE, file) != 0)
				continue;
			any = joined->doubt = true;
		}
	} else {
		coord_list_each (joined, &fs->joined, link) {
			if (!joined->lost && (wd < 0 || joined->wd == wd))
				any = joined->doubt = true;
		}
	}
	pthread_mutex_unlock(&fs->lock);
	return any;
}

void file_members_event(struct file_session *fs, int wd, const char *file)
{
	if (!doubt_mark(fs, wd, file) || fs->closing)
		return;
	fs->doubt_again = fs->doubt_busy;
	if (fs->doubt_busy)
		return;
	fs->doubt_busy = true;
	fs->busy++;
	fs->doubt_job.work = doubt_work;
	fs->doubt_job.done = doubt_done;
	coord_worker_submit(fs->locks, &fs->doubt_job);
}

/* ---- Touching ---- */

static void touch_work(struct coord_job *job)
{
	struct file_session *fs = coord_container(job, struct file_session, touch_job);
	fs->store_gone = file_store_gone(fs);
	file_held_look(fs, fs->notify_works);
	size_t len;
	_cleanup_free_ struct mine *list = mine_list(fs, false, &len);
	for (size_t i = 0; i < len; i++) {
		/* Without notices this is where a foreign file in its place is noticed. */
		if (!fs->notify_works && !mine_there(fs, &list[i]))
			member_lost(fs, &list[i]);
		else if (utimensat(
				 fs->dirs[FILE_GROUPS], list[i].path, NULL, AT_SYMLINK_NOFOLLOW) &&
			 errno == ENOENT)
			member_lost(fs, &list[i]);
	}
}

static void touch_done(struct coord_job *job)
{
	struct file_session *fs = coord_container(job, struct file_session, touch_job);
	fs->touch_busy = false;
	file_notices_tell(fs);
	fs->busy--;
	file_idle(fs);
	if (!fs->store_gone || fs->closing)
		return;
	/* Who opens DIR now finds nothing of what we hold. */
	coord_log(3, "file: %s, or a directory in it, was moved, removed, replaced or covered",
		fs->dir);
	coord_session_event(fs->session, fs->epoch, COORD_EVENT_EXPIRED);
}

static void touch_due(struct coord_timer *timer)
{
	struct file_session *fs = coord_container(timer, struct file_session, touch);
	uint64_t now = coord_now_ms(fs->loop);
	uint64_t period = fs->age_ms / 2 < TOUCH_MAX_MS ? fs->age_ms / 2 : TOUCH_MAX_MS;
	uint64_t look = !fs->notify_works && period > BREAK_POLL_MS ? BREAK_POLL_MS : period;
	coord_timer_start(fs->loop, timer, now + look);
	if (!fs->notify_works)
		file_break_event(fs);
	if (fs->touch_busy || now < fs->touch_ms)
		return;
	fs->touch_ms = now + period;
	fs->touch_busy = true;
	fs->busy++;
	fs->touch_job.work = touch_work;
	fs->touch_job.done = touch_done;
	coord_worker_submit(fs->locks, &fs->touch_job);
}

void file_touch_start(struct file_session *fs)
{
	fs->touch.fn = touch_due;
	fs->touch_ms = 0;
	touch_due(&fs->touch);
}

void file_touch_soon(struct file_session *fs, uint64_t ms)
{
	if (fs->closing || !fs->opened)
		return;
	fs->touch_ms = 0;
	coord_timer_start(fs->loop, &fs->touch, coord_now_ms(fs->loop) + ms);
}
