/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file:///DIR -- a directory that the processes of one host share, as Python tooz's file driver does.
 *
 * This file: the driver's table, and the way of an op through a worker. Where what lies is told in
 * docs/drivers/file.md.
 */
#include "drivers/file/file.h"

#include <stdio.h>
#include <time.h>

uint64_t file_now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

uint64_t file_utc_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* ---- Notices about grants ---- */

struct file_notice *file_notice_new(
	enum coord_kind kind, struct coord_bytes name, const uint8_t owner[16], uint32_t epoch)
{
	struct file_notice *notice = calloc(1, sizeof(*notice) + name.len + 1);
	if (!notice)
		return NULL;
	coord_list_init(&notice->link);
	notice->kind = kind;
	notice->epoch = epoch;
	memcpy(notice->owner, owner, sizeof(notice->owner));
	memcpy(notice->text, name.data, name.len);
	notice->name = (struct coord_bytes){notice->text, name.len};
	return notice;
}

static struct file_notice *notice_pop(struct file_session *fs)
{
	struct file_notice *notice = NULL;
	pthread_mutex_lock(&fs->lock);
	if (!coord_list_empty(&fs->gone)) {
		notice = coord_container(fs->gone.next, struct file_notice, link);
		coord_list_remove(&notice->link);
	}
	pthread_mutex_unlock(&fs->lock);
	return notice;
}

void file_notices_tell(struct file_session *fs)
{
	struct file_notice *notice;
	while ((notice = notice_pop(fs))) {
		struct coord_key key = {notice->kind, notice->name};
		if (notice->why)
			coord_log(3, "file: a lock is lost, %s: %.*s", notice->why,
				(int)notice->name.len, notice->name.data);
		if (notice->lost)
			coord_grant_lost(fs->session, key, notice->owner, notice->epoch);
		else
			coord_grant_contended(fs->session, key, notice->owner, notice->epoch);
		free(notice);
	}
}

/* ---- Ops ---- */

/* What was read is true for so long; 0: until the next event. */
static void watch_expire(struct file_op *f, uint64_t ms)
{
	struct coord_loop *loop = f->fs->loop;
	coord_timer_stop(loop, &f->watch->expiry);
	if (ms && f->watch->armed)
		coord_timer_start(loop, &f->watch->expiry, coord_now_ms(loop) + ms);
}

/* What the op leaves of a watch: reads keep it whatever they found, locks while they wait. */
static void op_watch_done(struct file_op *f)
{
	struct file_watch *w = f->watch;
	enum coord_call call = f->op->call;
	if (!w)
		return;
	bool reads = call == COORD_CALL_GROUP_READ || call == COORD_CALL_LOCK_READ;
	if ((f->op->flags & COORD_OP_WATCH) && (reads || f->status == -EBUSY))
		file_watch_pin(w);
	if ((f->op->flags & COORD_OP_WATCH) && !reads && f->status == -EBUSY && !w->dead)
		file_watch_waits(w);
	if (call == COORD_CALL_GROUP_READ && !(f->op->flags & COORD_OP_BARE) && !w->dead) {
		w->expired = f->expired;
		watch_expire(f, f->expiry_ms);
	}
	/* A Python client that opened the file before takes a free lock without any event. */
	if (w->kind == COORD_LOCK && !f->status && !w->dead &&
		(call == COORD_CALL_LOCK_READ || call == COORD_CALL_UNLOCK))
		watch_expire(f, f->op->rows ? 0 : FILE_POLL_MS);
	file_watch_put(w);
}

static void op_done(struct file_op *f)
{
	/* after() goes on with one in progress, perhaps on a worker at once. */
	bool more = f->status == -EINPROGRESS;
	if (f->after)
		f->after(f);
	if (more)
		return;
	op_watch_done(f);
	free(f->held);
	free(f->joined);
	f->op->status = f->status;
	coord_op_done(f->op);
}

static void job_work(struct coord_job *job)
{
	struct file_op *f = coord_container(job, struct file_op, job);
	/* A break has requests to take back. */
	bool skip = f->cancelled && f->op->call != COORD_CALL_LOCK_BREAK;
	f->status = skip ? -ECANCELED : f->work(f);
}

static void job_done(struct coord_job *job)
{
	op_done(coord_container(job, struct file_op, job));
}

struct file_op *file_op_prepare(struct coord_session *session, struct coord_op *op)
{
	struct file_op *f = coord_op_data(op);
	f->op = op;
	f->fs = coord_session_data(session);
	if (op->grant)
		f->grant = coord_grant_data(op->grant);
	if (!op->key.name.len)
		return f;
	file_hash(op->key.name, f->hash);
	enum coord_kind kind = op->key.kind;
	bool watch = op->flags & COORD_OP_WATCH;
	if (kind != COORD_MEMBER) {
		f->watch = file_watch_get(f->fs, kind, op->key.name, f->hash, watch);
		if (watch && !f->watch) {
			coord_op_fail(op, -ENOMEM);
			return NULL;
		}
	}
	return f;
}

void file_op_submit(struct file_op *f, struct coord_worker *worker)
{
	if (!f->work) {
		op_done(f);
		return;
	}
	f->job.work = job_work;
	f->job.done = job_done;
	coord_worker_submit(worker, &f->job);
}

void file_op_start(struct coord_session *session, struct coord_op *op, struct coord_worker *worker,
	int (*work)(struct file_op *), void (*after)(struct file_op *))
{
	struct file_op *f = file_op_prepare(session, op);
	if (!f)
		return;
	f->work = work;
	f->after = after;
	file_op_submit(f, worker);
}

static void file_cancel(struct coord_session *session, struct coord_op *op)
{
	(void)session;
	/* A release and a close are carried out whatever happens. */
	if (op->call != COORD_CALL_UNLOCK && op->call != COORD_CALL_CLOSE &&
		op->call != COORD_CALL_OPEN)
		((struct file_op *)coord_op_data(op))->cancelled = true;
}

/* Defines a call that runs one function on one worker. */
#define CALL(name, worker, after)                                                                  \
	static void call_##name(struct coord_session *session, struct coord_op *op)                \
	{                                                                                          \
		struct file_session *fs = coord_session_data(session);                             \
		file_op_start(session, op, fs->worker, file_##name, after);                        \
	}

CALL(group_create, locks, NULL)
CALL(group_delete, groups, NULL)
CALL(group_list, scans, NULL)
CALL(member_join, groups, NULL)
CALL(member_update, groups, NULL)
CALL(member_leave, groups, NULL)
CALL(member_get, groups, NULL)
CALL(convert, locks, file_convert_after)
CALL(unlock, locks, file_unlock_after)
CALL(lock_check, locks, file_lock_after)
CALL(lock_read, locks, NULL)
CALL(lock_list, scans, NULL)

/* Whether a group exists can be seen without the driver lock, behind a Python client that hangs. */
static void call_group_read(struct coord_session *session, struct coord_op *op)
{
	struct file_session *fs = coord_session_data(session);
	file_op_start(session, op, op->flags & COORD_OP_BARE ? fs->locks : fs->groups,
		file_group_read, NULL);
}

/* ---- Configuration ---- */

static int refuse(char **ret_error, const char *text)
{
	*ret_error = strdup(text);
	return -EINVAL;
}

static int file_configure(
	struct coord_session *session, const struct coord_config *config, char **ret_error)
{
	struct file_session *fs = coord_session_data(session);
	const struct coord_url *url = &config->url;
	if (url->netloc && *url->netloc && strcmp(url->netloc, "localhost") != 0)
		return refuse(ret_error, "a file URL has three slashes: file:///DIRECTORY");
	if (!url->path || url->path[0] != '/')
		return refuse(ret_error, "a file URL needs an absolute path: file:///DIRECTORY");
	/* Two directories whose names differ behind it only would be one. */
	if (url->fragment)
		return refuse(ret_error, "a '#' ends a URL: name a directory without one");
	if (strspn(url->path, "/.") == strlen(url->path))
		return refuse(ret_error, "a file URL needs a directory below the root directory");
	fs->session = session;
	fs->loop = coord_session_loop(session);
	fs->dir = url->path;
	fs->read_only = config->read_only;
	fs->age_ms = config->membership_timeout_ms;
	file_hex(coord_session_uuid(session), 16, fs->uuid);
	fs->own = fs->driver = fs->notify = fs->wd_break = -1;
	for (int dir = 0; dir < FILE_DIRS; dir++)
		fs->dirs[dir] = fs->wds[dir] = -1;
	for (size_t i = 0; i < FILE_BUCKETS; i++) {
		coord_list_init(&fs->watches[i]);
		coord_list_init(&fs->by_wd[i]);
		coord_list_init(&fs->by_file[i]);
	}
	coord_list_init(&fs->breaks);
	coord_list_init(&fs->held);
	coord_list_init(&fs->joined);
	coord_list_init(&fs->gone);
	pthread_mutex_init(&fs->lock, NULL);
	pthread_mutex_init(&fs->slots_lock, NULL);
	return 0;
}

static void file_session_free(struct coord_session *session)
{
	struct file_session *fs = coord_session_data(session);
	if (!fs->session)
		return;
	coord_worker_free(fs->locks);
	coord_worker_free(fs->groups);
	coord_worker_free(fs->scans);
	struct file_notice *notice;
	while ((notice = notice_pop(fs)))
		free(notice);
	pthread_mutex_destroy(&fs->lock);
	pthread_mutex_destroy(&fs->slots_lock);
	fs->session = NULL;
}

static void file_grant_done(struct coord_session *session, struct coord_grant *grant)
{
	struct file_session *fs = coord_session_data(session);
	struct file_grant *own = coord_grant_data(grant);
	pthread_mutex_lock(&fs->lock);
	if (own->held) {
		file_held_unlist(fs, own->held);
		file_held_release(fs, own->held);
	}
	if (own->joined)
		file_joined_remove(fs, own->joined);
	pthread_mutex_unlock(&fs->lock);
	free(own->held);
	free(own->joined);
	own->held = NULL;
	own->joined = NULL;
}

static int file_map_name(struct coord_session *session, enum coord_kind kind,
	struct coord_bytes name, char *ret_key, size_t *ret_len)
{
	(void)session;
	int r = kind == COORD_LOCK ? file_lock_name_check(name) : 0;
	if (r)
		return r;
	if (!name.len)
		return -EINVAL;
	if (name.len > 256)
		return -ENAMETOOLONG;
	memcpy(ret_key, name.data, name.len);
	*ret_len = name.len;
	return 0;
}

static const char *const file_schemes[] = {"file", NULL};

static const struct coord_param file_params[] = {
	{.name = "executor",
		.type = COORD_PARAM_STRING,
		.help = "of Python's driver: which kind of thread does its work",
		.flags = COORD_PARAM_IGNORED},
	{.name = NULL},
};

const struct coord_driver coord_driver_file = {
	.abi = COORD_DRIVER_ABI,
	.name = "file",
	.help = "a directory shared by the processes of one host",
	.schemes = file_schemes,
	.params = file_params,
	.characteristics = COORD_NON_TIMEOUT_BASED | COORD_DISTRIBUTED_ACROSS_THREADS |
			   COORD_DISTRIBUTED_ACROSS_PROCESSES,
	.can = COORD_CAN_SHARED | COORD_CAN_CONVERT | COORD_CAN_NOTIFY | COORD_CAN_LIST_ALL |
	       COORD_CAN_BREAK | COORD_CAN_LEADER_ID | COORD_CAN_GROUPS,
	.loss = {COORD_LOSS_PROCESS, COORD_LOSS_PROCESS, COORD_LOSS_PROCESS, COORD_LOSS_PROCESS},
	.session_size = sizeof(struct file_session),
	.grant_size = sizeof(struct file_grant),
	.grant_fds = 2, /* on which it is locked, and one that watches it */
	.op_size = sizeof(struct file_op),
	.value_max = (1u << 20) + 16, /* 1 MiB of text, and the head of a msgpack value */
	.poll_ms = FILE_POLL_MS,
	.configure = file_configure,
	.session_free = file_session_free,
	.grant_done = file_grant_done,
	.map_name = file_map_name,
	.open = file_open,
	.close = file_close,
	.group_create = call_group_create,
	.group_delete = call_group_delete,
	.group_list = call_group_list,
	.group_read = call_group_read,
	.member_join = call_member_join,
	.member_update = call_member_update,
	.member_leave = call_member_leave,
	.member_get = call_member_get,
	.lock = file_lock,
	.convert = call_convert,
	.unlock = call_unlock,
	.lock_check = call_lock_check,
	.lock_read = call_lock_read,
	.lock_list = call_lock_list,
	.lock_break = file_lock_break,
	.unwatch = file_unwatch,
	.cancel = file_cancel,
};
