/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls: requests of the kernel that wait for an answer of the coordinator.
 *
 * A call is answered exactly once: by its answer, by its limit, or at the end of the tree; whichever
 * comes first frees it and drops the request that it waits for.
 *
 * On other file systems no signal ends these calls (flock and F_SETLKW are in flocks.c), and programs do
 * not expect it. So an interrupt only sets a limit, after which the answer is EINTR, so that a killed
 * process is soon gone. Nor does it end a change that was sent: whoever is told EINTR does it again.
 *
 * Closing a handle may join or leave a group, and close(2) does not wait for it. Such a change is counted
 * at the group, and calls about the group wait until none is under way, so that a process sees
 * the effect of its own close.
 */
#include "fs/tree.h"

#include <assert.h>

#include "fs/waits.h"

/* libfuse calls this under the request's own lock, and perhaps from inside fuse_req_interrupt_func: it
 * must not answer. */
static void call_interrupt(fuse_req_t req, void *user)
{
	struct fs_call *call = user;
	if (call->limited || call->changing)
		return;
	call->interrupted = true;
	fs_call_limit(call, call->eager ? 0 : FS_SHORT_MS, EINTR);
}

static void call_limit(struct coord_timer *timer)
{
	struct fs_call *call = coord_container(timer, struct fs_call, limit);
	if (call->counts && !call->interrupted)
		coord_unanswered(call->fs->coord, FS_SHORT_MS);
	if (call->late_fn)
		call->late_fn(call);
	else
		fs_call_error(call, call->late);
}

struct fs_call *fs_call_new(fuse_req_t req, struct fs_inode *inode, struct fs_handle *handle)
{
	struct fs *fs = fs_of(req);
	struct fs_call *call = coord_zalloc(sizeof(*call));
	if (!call) {
		fuse_reply_err(req, ENOMEM);
		return NULL;
	}
	call->fs = fs;
	call->req = req;
	call->inode = inode ? fs_inode_ref(inode) : NULL;
	call->handle = handle;
	call->limit.fn = call_limit;
	call->uid = fuse_req_ctx(req)->uid;
	coord_list_add(&fs->calls, &call->link);
	fs->pending++;
	coord_list_init(&call->blocked);
	fuse_req_interrupt_func(req, call_interrupt, call);
	return call;
}

void fs_call_free(struct fs_call *call)
{
	struct fs *fs = call->fs;
	coord_timer_stop(fs->loop, &call->limit);
	coord_list_remove(&call->link);
	fs->pending--;
	coord_list_remove(&call->blocked);
	if (call->wait)
		coord_req_drop(call->wait);
	fs_wait_drop(call->lock);
	if (call->owns_handle)
		fs_handle_free(fs, call->handle);
	fs_inode_unref(fs, call->inode);
	free(call);
}

void fs_call_error(struct fs_call *call, int code)
{
	fuse_reply_err(call->req, code < 0 ? -code : code);
	fs_call_free(call);
}

void fs_call_entry(struct fs_call *call, const struct stat *attr)
{
	fs_reply_entry(call->req, call->inode, attr);
	fs_call_free(call);
}

void fs_call_attr(struct fs_call *call, const struct stat *attr)
{
	fs_reply_attr(call->req, call->inode, attr);
	fs_call_free(call);
}

void fs_call_opened(struct fs_call *call)
{
	if (fuse_reply_open(call->req, &call->fi) == 0)
		call->owns_handle = false;
	fs_call_free(call);
}

void fs_call_limit(struct fs_call *call, uint64_t ms, int late)
{
	call->counts = ms > 0;
	call->late = late;
	call->limited = true;
	call->interrupted = call->interrupted && late == EINTR;
	coord_timer_start(call->fs->loop, &call->limit, coord_now_ms(call->fs->loop) + ms);
}

void fs_call_changing(struct fs_call *call)
{
	call->changing = true;
	if (call->interrupted)
		coord_timer_stop(call->fs->loop, &call->limit);
}

bool fs_call_short(struct fs_call *call)
{
	int r = coord_state(call->fs->coord) == COORD_SUSPENDED
			? -EHOSTDOWN
			: coord_in_vain(call->fs->coord, FS_SHORT_MS);
	if (r < 0) {
		fs_call_error(call, r);
		return false;
	}
	fs_call_limit(call, FS_SHORT_MS, ETIMEDOUT);
	return true;
}

void fs_call_after_changes(
	struct fs_call *call, struct fs_inode *group, void (*then)(struct fs_call *))
{
	call->then = then;
	if (group->changes)
		coord_list_add(&group->blocked, &call->blocked);
	else
		then(call);
}

void fs_change_begin(struct fs_inode *group)
{
	fs_inode_ref(group)->changes++;
}

void fs_change_end(struct fs *fs, struct fs_inode *group)
{
	assert(group->changes);
	if (--group->changes == 0) {
		/* Calls that come meanwhile run at once, or wait for a new change: behind the mark. */
		struct coord_list mark;
		coord_list_add(&group->blocked, &mark);
		while (group->blocked.next != &mark && !group->changes) {
			struct fs_call *call =
				coord_container(group->blocked.next, struct fs_call, blocked);
			coord_list_remove(&call->blocked);
			call->then(call);
		}
		coord_list_remove(&mark);
	}
	fs_inode_unref(fs, group);
}

void fs_calls_end(struct fs *fs, int code)
{
	while (!coord_list_empty(&fs->calls))
		fs_call_error(coord_container(fs->calls.next, struct fs_call, link), code);
}

void fs_call_reply(void *user, int status, const struct coord_row *rows, size_t rows_len)
{
	struct fs_call *call = user;
	call->wait = NULL;
	fs_call_error(call, status);
}

void fs_call_started(struct fs_call *call, int r)
{
	if (r < 0)
		fs_call_error(call, r);
}
