/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Notices: one inotify instance a session, read on the loop.
 *
 * A few directories are listened to for as long as the session is open (sessions, leaders, waiters, the
 * breaks that are asked of us, groups, DIR itself); the files of locks and the directories of groups
 * while there is a watch on them. A lock whose file does not exist yet is waited for in the deepest
 * directory that exists.
 *
 * An OFD lock is dropped a little after the event of the close that drops it. So an event is told at once
 * and four times more within 64 ms, and whoever waits looks every second in any case.
 */
#include "drivers/file/file.h"

#include <stdio.h>
#include <sys/inotify.h>
#include <sys/vfs.h>

#include "coord/loop_uv.h"

#define REAP_MS 100
#define REMOVAL_MS 500 /* what is being removed is not made again in between */

static const uint8_t again_ms[] = {1, 4, 16, 64};

/* An entry of a directory is gone, or another in its place. */
#define GONE_DIR_MASK (IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO)

static const uint32_t dir_masks[FILE_DIRS] = {
	[FILE_ROOT] = IN_CREATE | GONE_DIR_MASK | IN_DELETE_SELF | IN_MOVE_SELF,
	[FILE_OURS] = GONE_DIR_MASK,
	[FILE_GROUPS] = IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE,
	[FILE_SESSIONS] = IN_CLOSE_WRITE | IN_DELETE,
	[FILE_LEADERS] = IN_CLOSE_WRITE | IN_MODIFY | IN_CREATE | GONE_DIR_MASK,
	[FILE_WAITERS] = IN_ATTRIB,
};

#define LOCK_MASK (IN_OPEN | IN_CLOSE_WRITE | IN_MODIFY | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF)
#define GROUP_MASK                                                                                 \
	(IN_CREATE | IN_DELETE | IN_MOVED_TO | IN_MOVED_FROM | IN_ATTRIB | IN_CLOSE_WRITE |        \
		IN_DELETE_SELF | IN_MOVE_SELF)
#define GONE_MASK (IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED)

static struct coord_list *key_bucket(struct file_session *fs, const char *hash)
{
	char digits[3] = {hash[0], hash[1], '\0'};
	return &fs->watches[strtoul(digits, NULL, 16) % FILE_BUCKETS];
}

static struct coord_list *wd_bucket(struct file_session *fs, int wd)
{
	return &fs->by_wd[(unsigned)wd % FILE_BUCKETS];
}

/* ---- The life of a watch ---- */

struct file_watch *file_watch_find(struct file_session *fs, enum coord_kind kind, const char *hash)
{
	struct file_watch *w;
	coord_list_each (w, key_bucket(fs, hash), by_key) {
		if (w->kind == kind && strcmp(w->hash, hash) == 0)
			return w;
	}
	return NULL;
}

static void watch_again(struct coord_timer *timer);
static void watch_expired(struct coord_timer *timer);
static void watch_given_up(struct coord_timer *timer);

struct file_watch *file_watch_get(struct file_session *fs, enum coord_kind kind,
	struct coord_bytes name, const char *hash, bool make)
{
	struct file_watch *w = file_watch_find(fs, kind, hash);
	if (w || !make) {
		if (w)
			w->refs++;
		return w;
	}
	w = calloc(1, sizeof(*w) + name.len + 1);
	if (!w)
		return NULL;
	w->fs = fs;
	w->kind = kind;
	w->refs = 1;
	w->wd = w->fd = w->waiter = -1;
	w->again.fn = watch_again;
	w->expiry.fn = watch_expired;
	w->given_up.fn = watch_given_up;
	memcpy(w->hash, hash, FILE_HASH_SIZE);
	memcpy(w->text, name.data, name.len);
	w->name = (struct coord_bytes){w->text, name.len};
	coord_list_init(&w->by_wd);
	coord_list_init(&w->fired);
	coord_list_add(key_bucket(fs, hash), &w->by_key);
	return w;
}

static bool wd_permanent(struct file_session *fs, int wd)
{
	for (int dir = 0; dir < FILE_DIRS; dir++) {
		if (fs->wds[dir] == wd)
			return true;
	}
	return fs->wd_break == wd;
}

void file_notify_release(struct file_session *fs, int wd)
{
	if (wd < 0 || fs->notify < 0 || wd_permanent(fs, wd))
		return;
	struct file_watch *w;
	coord_list_each (w, wd_bucket(fs, wd), by_wd) {
		if (w->wd == wd)
			return;
	}
	struct file_joined *joined;
	coord_list_each (joined, &fs->joined, link) {
		if (joined->wd == wd)
			return;
	}
	for (struct coord_list *at = fs->held.next; fs->held_wds && at != &fs->held;
		at = at->next) {
		if (coord_container(at, struct file_held, link)->wd == wd)
			return;
	}
	inotify_rm_watch(fs->notify, wd);
}

/* Stops listening; the caller has fs->lock. */
static void watch_deafen(struct file_watch *w)
{
	int wd = w->wd;
	w->wd = -1;
	coord_list_remove(&w->by_wd);
	file_notify_release(w->fs, wd);
}

/* Takes it out of all tables: nothing finds it any more. */
static void watch_detach(struct file_watch *w)
{
	coord_timer_stop(w->fs->loop, &w->again);
	coord_timer_stop(w->fs->loop, &w->expiry);
	coord_timer_stop(w->fs->loop, &w->given_up);
	coord_list_remove(&w->by_key);
	coord_list_remove(&w->fired);
	pthread_mutex_lock(&w->fs->lock);
	w->dead = true;
	watch_deafen(w);
	pthread_mutex_unlock(&w->fs->lock);
}

static void watch_close(struct coord_job *job)
{
	struct file_watch *w = coord_container(job, struct file_watch, job);
	file_waiter_unmark(w);
	if (w->fd >= 0)
		close(w->fd);
}

static void watch_closed(struct coord_job *job)
{
	struct file_watch *w = coord_container(job, struct file_watch, job);
	struct file_session *fs = w->fs;
	free(w);
	fs->busy--;
	file_idle(fs);
}

void file_watch_put(struct file_watch *w)
{
	if (--w->refs)
		return;
	watch_detach(w);
	w->fs->busy++;
	w->job.work = watch_close;
	w->job.done = watch_closed;
	coord_worker_submit(w->fs->locks, &w->job);
}

void file_watch_pin(struct file_watch *w)
{
	if (w->armed || w->dead)
		return;
	w->armed = true;
	w->refs++;
}

void file_watch_unpin(struct file_watch *w)
{
	w->refs++;
	watch_detach(w);
	if (w->armed) {
		w->armed = false;
		w->refs--;
	}
	file_watch_put(w);
}

void file_unwatch(struct coord_session *session, struct coord_key key)
{
	struct file_session *fs = coord_session_data(session);
	char hash[FILE_HASH_SIZE];
	file_hash(key.name, hash);
	struct file_watch *w = file_watch_find(fs, key.kind, hash);
	if (w)
		file_watch_unpin(w);
}

/* ---- Telling ---- */

static void watch_tell(struct file_watch *w)
{
	coord_changed(w->fs->session, (struct coord_key){w->kind, w->name}, 0);
}

static void watch_again(struct coord_timer *timer)
{
	struct file_watch *w = coord_container(timer, struct file_watch, again);
	if (++w->step < sizeof(again_ms))
		coord_timer_start(
			w->fs->loop, timer, coord_now_ms(w->fs->loop) + again_ms[w->step]);
	watch_tell(w);
}

static void watch_expired(struct coord_timer *timer)
{
	watch_tell(coord_container(timer, struct file_watch, expiry));
}

/* A view keeps the watch when nobody waits any more, and nobody says so: who waits tries again. */
void file_watch_waits(struct file_watch *w)
{
	coord_timer_start(w->fs->loop, &w->given_up, coord_now_ms(w->fs->loop) + FILE_GIVEN_UP_MS);
}

static void unmark_work(struct coord_job *job)
{
	struct file_watch *w = coord_container(job, struct file_watch, unmark_job);
	if (file_now_ms() >= w->tried_ms + FILE_GIVEN_UP_MS)
		file_waiter_unmark(w);
}

static void unmark_done(struct coord_job *job)
{
	struct file_watch *w = coord_container(job, struct file_watch, unmark_job);
	struct file_session *fs = w->fs;
	w->unmarking = false;
	file_watch_put(w);
	fs->busy--;
	file_idle(fs);
}

static void watch_given_up(struct coord_timer *timer)
{
	struct file_watch *w = coord_container(timer, struct file_watch, given_up);
	if (w->unmarking)
		return;
	w->unmarking = true;
	w->refs++;
	w->fs->busy++;
	w->unmark_job.work = unmark_work;
	w->unmark_job.done = unmark_done;
	coord_worker_submit(w->fs->locks, &w->unmark_job);
}

/* Somebody opened the file of a lock. A Python client takes the lock just after that. */
static void watch_opened(struct file_watch *w)
{
	if (w->again.active)
		return;
	w->step = 1;
	coord_timer_start(w->fs->loop, &w->again, coord_now_ms(w->fs->loop) + again_ms[1]);
}

/* Tells that something changed, and again soon if a lock may be dropped only now. */
static void watch_kick(struct file_watch *w, bool again)
{
	if (again) {
		w->step = 0;
		coord_timer_start(w->fs->loop, &w->again, coord_now_ms(w->fs->loop) + again_ms[0]);
	}
	watch_tell(w);
}

static void watch_rearm(struct coord_job *job)
{
	struct file_watch *w = coord_container(job, struct file_watch, rearm_job);
	if (w->kind == COORD_GROUP)
		file_watch_group(w);
	else
		file_watch_lock(w);
}

static void watch_rearmed(struct coord_job *job)
{
	struct file_watch *w = coord_container(job, struct file_watch, rearm_job);
	struct file_session *fs = w->fs;
	bool again = w->rearm_again && !w->dead;
	w->rearming = w->rearm_again = false;
	if (again) {
		w->rearming = true;
		coord_worker_submit(fs->locks, &w->rearm_job);
		return;
	}
	if (!w->dead)
		watch_kick(w, false);
	file_watch_put(w);
	fs->busy--;
	file_idle(fs);
}

/* The object came, went, or was replaced: listens to what is there now, then tells. */
static void watch_renew(struct file_watch *w)
{
	if (w->rearming) {
		w->rearm_again = true;
		return;
	}
	w->rearming = true;
	w->refs++;
	w->fs->busy++;
	w->rearm_job.work = watch_rearm;
	w->rearm_job.done = watch_rearmed;
	coord_worker_submit(w->fs->locks, &w->rearm_job);
}

/* ---- Listening ---- */

int file_watch_listen(struct file_watch *w, int fd, const char *entry)
{
	struct file_session *fs = w->fs;
	char path[40];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	uint32_t mask = entry                    ? IN_CREATE | IN_MOVED_TO
			: w->kind == COORD_GROUP ? GROUP_MASK
						 : LOCK_MASK;
	pthread_mutex_lock(&fs->lock);
	int r = fs->notify < 0 || w->dead ? -ECANCELED : 0;
	if (!r) {
		int wd = inotify_add_watch(fs->notify, path, mask | IN_MASK_ADD);
		r = wd < 0 ? -errno : 0;
		if (wd != w->wd)
			watch_deafen(w);
		if (wd >= 0 && wd != w->wd) {
			w->wd = wd;
			coord_list_add(wd_bucket(fs, wd), &w->by_wd);
		}
		snprintf(w->entry, sizeof(w->entry), "%s", entry ? entry : "");
	}
	pthread_mutex_unlock(&fs->lock);
	return r;
}

void file_watch_group(struct file_watch *w)
{
	_cleanup_close_ int dir = file_open_dir(w->fs->dirs[FILE_GROUPS], w->hash, false);
	if (dir >= 0)
		file_watch_listen(w, dir, NULL);
}

/* ---- Events, on the loop ---- */

static void kick_hash(struct file_session *fs, enum coord_kind kind, const char *hash, bool renew)
{
	struct file_watch *w = file_watch_find(fs, kind, hash);
	if (w && renew)
		watch_renew(w);
	else if (w)
		watch_kick(w, kind == COORD_LEADER);
}

/* Kicks all watches, or those of one kind. */
static void kick_all(struct file_session *fs, bool groups_only)
{
	struct coord_list fired = COORD_LIST_INIT(fired);
	for (size_t i = 0; i < FILE_BUCKETS; i++) {
		struct file_watch *w;
		coord_list_each (w, &fs->watches[i], by_key) {
			if (w->kind == COORD_GROUP || !groups_only) {
				coord_list_remove(&w->fired);
				coord_list_add(&fired, &w->fired);
			}
		}
	}
	while (!coord_list_empty(&fired)) {
		struct file_watch *w = coord_container(fired.next, struct file_watch, fired);
		coord_list_remove(&w->fired);
		watch_kick(w, true);
	}
}

static void reap_work(struct coord_job *job)
{
	file_groups_reap(coord_container(job, struct file_session, reap_job));
}

static void reap_done(struct coord_job *job)
{
	struct file_session *fs = coord_container(job, struct file_session, reap_job);
	fs->reap_busy = false;
	if (fs->reap_again && !fs->closing)
		fs->reap.fn(&fs->reap);
	fs->busy--;
	file_idle(fs);
}

static void reap_due(struct coord_timer *timer)
{
	struct file_session *fs = coord_container(timer, struct file_session, reap);
	fs->reap_again = fs->reap_busy;
	if (fs->reap_busy)
		return;
	fs->reap_busy = true;
	fs->busy++;
	fs->reap_job.work = reap_work;
	fs->reap_job.done = reap_done;
	coord_worker_submit(fs->groups, &fs->reap_job);
}

/* A daemon ended, perhaps without tidying up. */
static void session_event(struct file_session *fs)
{
	kick_all(fs, true);
	if (!fs->read_only)
		coord_timer_start(fs->loop, &fs->reap, coord_now_ms(fs->loop) + REAP_MS);
}

/* What an event on an object means for a watch: 0 nothing, 1 changed, 2 look what is there now. */
static int event_weight(const struct file_watch *w, const struct inotify_event *event)
{
	if (w->entry[0])
		return event->len && strcmp(event->name, w->entry) == 0 ? 2 : 0;
	if (w->kind == COORD_GROUP) {
		if (event->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED))
			return 2;
		/* Heartbeats matter if somebody was hidden for lack of them. */
		return event->mask != IN_ATTRIB || w->expired;
	}
	return event->mask & GONE_MASK ? 2 : 1;
}

static void object_event(struct file_session *fs, const struct inotify_event *event)
{
	if (event->mask & (IN_DELETE | IN_MOVED_FROM))
		file_members_event(fs, event->wd, event->name);
	else if (event->mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED))
		file_members_event(fs, event->wd, NULL);
	struct coord_list fired[3] = {{0}, COORD_LIST_INIT(fired[1]), COORD_LIST_INIT(fired[2])};
	struct file_watch *w, *after;
	pthread_mutex_lock(&fs->lock);
	coord_list_each_safe (w, after, wd_bucket(fs, event->wd), by_wd) {
		int weight = w->wd == event->wd ? event_weight(w, event) : 0;
		if (!weight)
			continue;
		coord_list_remove(&w->fired);
		coord_list_add(&fired[weight], &w->fired);
		if (event->mask & IN_IGNORED) {
			w->wd = -1;
			coord_list_remove(&w->by_wd);
		}
	}
	pthread_mutex_unlock(&fs->lock);
	for (int weight = 1; weight <= 2; weight++) {
		while (!coord_list_empty(&fired[weight])) {
			w = coord_container(fired[weight].next, struct file_watch, fired);
			coord_list_remove(&w->fired);
			if (weight == 2)
				watch_renew(w);
			else if (event->mask == IN_OPEN)
				watch_opened(w);
			else
				watch_kick(w, w->kind != COORD_GROUP);
		}
	}
}

/* May what we hold, or all of DIR, be gone? */
static void gone_event(struct file_session *fs, const struct inotify_event *event)
{
	bool root = event->wd == fs->wds[FILE_ROOT], ours = event->wd == fs->wds[FILE_OURS];
	if (root || event->wd == fs->wds[FILE_LEADERS]) {
		if (event->mask & GONE_DIR_MASK)
			file_held_event(fs);
	} else if (!event->len && event->mask & (IN_ATTRIB | IN_MOVE_SELF)) {
		file_held_event(fs);
	}
	bool own = event->wd == fs->wds[FILE_SESSIONS] && event->len &&
		   strcmp(event->name, fs->uuid) == 0;
	if (root && event->mask & (IN_DELETE_SELF | IN_MOVE_SELF))
		file_touch_soon(fs, 0);
	else if (own || ((root || ours) && event->mask & IN_ISDIR && event->mask & GONE_DIR_MASK))
		file_touch_soon(fs, REMOVAL_MS);
}

static void event_dispatch(struct file_session *fs, const struct inotify_event *event)
{
	if (event->mask & ~(uint32_t)(IN_OPEN | IN_MODIFY | IN_CLOSE_WRITE))
		gone_event(fs, event);
	if (event->mask & IN_Q_OVERFLOW) {
		kick_all(fs, false);
		file_break_event(fs);
		file_members_event(fs, -1, NULL);
		file_held_event(fs);
	} else if (event->wd == fs->wd_break) {
		file_break_event(fs);
	} else if (event->wd == fs->wds[FILE_SESSIONS]) {
		session_event(fs);
	} else if (event->wd == fs->wds[FILE_LEADERS] && event->len) {
		kick_hash(fs, COORD_LEADER, event->name, false);
		kick_hash(fs, COORD_GROUP, event->name, false);
	} else if (event->wd == fs->wds[FILE_WAITERS] && event->len) {
		file_waiter_event(fs, event->name);
	} else if (event->wd == fs->wds[FILE_GROUPS] && event->len) {
		kick_hash(fs, COORD_GROUP, event->name, true);
	} else {
		object_event(fs, event);
	}
}

static void notify_readable(void *user, int status)
{
	struct file_session *fs = user;
	if (status) {
		/* It has stopped; what waits goes on by its safety poll. */
		coord_log(4, "file: inotify failed (%s), polling", strerror(-status));
		coord_fd_stop(fs->notify_watch);
		fs->notify_watch = NULL;
		fs->notify_works = false;
		return;
	}
	char buffer[16384] __attribute__((aligned(__alignof__(struct inotify_event))));
	ssize_t len = read(fs->notify, buffer, sizeof(buffer));
	for (char *at = buffer; len > 0 && at < buffer + len;) {
		struct inotify_event *event = (struct inotify_event *)(void *)at;
		event_dispatch(fs, event);
		at += sizeof(*event) + event->len;
	}
}

/* ---- Opening and closing ---- */

/* File systems that other hosts change without our kernel knowing. */
static bool is_remote(int dir)
{
	static const uint32_t types[] = {0x6969 /* NFS */, 0xff534d42 /* CIFS */,
		0xfe534d42 /* SMB2 */, 0x517b /* SMB */, 0x01021997 /* 9P */, 0x00c36400 /* Ceph */,
		0x65735546 /* FUSE */, 0x01161970 /* GFS2 */, 0x7461636f /* OCFS2 */,
		0x0bd00bd0 /* Lustre */, 0x5346414f /* AFS */, 0x47504653 /* GPFS */};
	struct statfs st;
	if (fstatfs(dir, &st))
		return false;
	for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
		if ((uint32_t)st.f_type == types[i])
			return true;
	}
	return false;
}

static int listen_dir(struct file_session *fs, int fd, uint32_t mask)
{
	char path[40];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return fd < 0 || fs->notify < 0 ? -1
					: inotify_add_watch(fs->notify, path, mask | IN_MASK_ADD);
}

int file_notify_listen(struct file_session *fs, int dir)
{
	return listen_dir(fs, dir, IN_DELETE | IN_MOVED_FROM | IN_DELETE_SELF | IN_MOVE_SELF);
}

int file_notify_held(struct file_session *fs, int fd)
{
	int wd = listen_dir(fs, fd, IN_ATTRIB | IN_MOVE_SELF);
	fs->held_wds += wd >= 0;
	return wd;
}

int file_notify_open(struct file_session *fs)
{
	for (int dir = 0; dir < FILE_DIRS; dir++)
		fs->wds[dir] = -1;
	fs->wd_break = fs->notify = -1;
	if (is_remote(fs->dirs[FILE_ROOT]))
		return -EOPNOTSUPP;
	int notify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (notify < 0)
		return -errno;
	pthread_mutex_lock(&fs->lock);
	fs->notify = notify;
	for (int dir = 0; dir < FILE_DIRS; dir++) {
		if (dir_masks[dir])
			fs->wds[dir] = listen_dir(fs, fs->dirs[dir], dir_masks[dir]);
	}
	pthread_mutex_unlock(&fs->lock);
	_cleanup_close_ int own =
		fs->read_only ? -1 : file_open_dir(fs->dirs[FILE_BREAKS], fs->uuid, false);
	fs->wd_break = listen_dir(fs, own, IN_MOVED_TO | IN_CREATE);
	return fs->wds[FILE_ROOT] < 0 ? -ENOSPC : 0;
}

int file_notify_start(struct file_session *fs)
{
	fs->reap.fn = reap_due;
	fs->notify_works = false;
	if (fs->notify < 0)
		return -EOPNOTSUPP;
	int r = coord_fd_watch(fs->loop, fs->notify, notify_readable, fs, &fs->notify_watch);
	fs->notify_works = r == 0;
	return r;
}

void file_notify_close(struct file_session *fs)
{
	pthread_mutex_lock(&fs->lock);
	if (fs->notify >= 0)
		close(fs->notify);
	fs->notify = -1;
	struct file_joined *joined;
	coord_list_each (joined, &fs->joined, link)
		joined->wd = -1;
	struct file_held *held;
	coord_list_each (held, &fs->held, link)
		held->wd = -1;
	fs->held_wds = 0;
	pthread_mutex_unlock(&fs->lock);
}
