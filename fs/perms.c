/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may do what. The kernel checks modes (default_permissions) where paths are walked and files
 * opened; here is what it cannot check: who may acquire through a handle that somebody else opened, who
 * may break, leave and remove, and the limits for each uid.
 */
#include "fs/tree.h"

#include <assert.h>
#include <sys/resource.h>

/* One of the caller's supplementary groups? 1, 0, or -errno where they cannot be read. */
static int in_group(fuse_req_t req, uint32_t gid)
{
	gid_t few[64], *groups = few;
	int len = fuse_req_getgroups(req, 64, few);
	gid_t *many = NULL;
	if (len > 64) {
		many = malloc((size_t)len * sizeof(*many));
		if (!many)
			return -ENOMEM;
		int again = fuse_req_getgroups(req, len, many);
		len = again < len ? again : len;
		groups = many;
	}
	int found = len < 0 ? len : 0;
	for (int i = 0; i < len; i++)
		found |= groups[i] == gid;
	free(many);
	return found;
}

/* As the kernel does it for a file of that mode: one class counts, the first that fits. */
static bool may_write(fuse_req_t req, bool unknown)
{
	const struct fs *fs = fs_of(req);
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	unsigned mode = 0666 & ~fs->options.umask;
	if (ctx->uid == 0)
		return true;
	if (ctx->uid == fs->options.uid)
		return mode & 0200;
	bool group = mode & 0020, others = mode & 0002;
	if (ctx->gid == fs->options.gid || group == others)
		return group;
	int member = ctx->pid ? in_group(req, fs->options.gid) : -ESRCH;
	if (member < 0)
		return unknown;
	return member ? group : others;
}

bool fs_may_write(fuse_req_t req, const struct fs_handle *handle)
{
	return may_write(req, handle->writable);
}

bool fs_may_write_file(fuse_req_t req, bool default_answer)
{
	return may_write(req, default_answer);
}

bool fs_may_undo(fuse_req_t req, uint32_t uid)
{
	const struct fs *fs = fs_of(req);
	uint32_t caller = fuse_req_ctx(req)->uid;
	return caller == 0 || caller == fs->options.uid || (uid != UINT32_MAX && caller == uid);
}

/* ---- Limits ---- */

struct fs_uid {
	struct coord_list link; /* fs->uids; the one used last comes first */
	uint32_t uid;
	uint32_t handles, waiters;
	size_t bytes;
};

struct fs_uid *fs_uid_get(struct fs *fs, uint32_t id)
{
	if (id == 0)
		return NULL;
	struct fs_uid *uid;
	coord_list_each (uid, &fs->uids, link) {
		if (uid->uid != id)
			continue;
		coord_list_remove(&uid->link);
		coord_list_add(fs->uids.next, &uid->link);
		return uid;
	}
	uid = calloc(1, sizeof(*uid));
	if (!uid)
		return NULL;
	uid->uid = id;
	coord_list_add(fs->uids.next, &uid->link);
	return uid;
}

static void uid_check(struct fs_uid *uid)
{
	if (uid->handles || uid->waiters)
		return;
	coord_list_remove(&uid->link);
	free(uid);
}

void fs_limits_init(struct fs *fs)
{
	struct rlimit files;
	uint32_t each = coord_config_of(fs->coord)->driver->grant_fds;
	fs->handles_max = FS_HANDLES_MAX;
	if (!each || getrlimit(RLIMIT_NOFILE, &files))
		return;
	/* A lock takes a handle at least. */
	uint64_t share = files.rlim_cur / FS_FILES_SHARE / each;
	if (share < fs->handles_max)
		fs->handles_max = (uint32_t)share;
}

bool fs_uid_handle(struct fs *fs, struct fs_uid *uid)
{
	if (uid && uid->handles >= fs->handles_max)
		return false;
	if (uid)
		uid->handles++;
	return true;
}

bool fs_charge(struct fs_handle *handle, size_t before, size_t after)
{
	struct fs_uid *uid = handle->uid;
	if (!uid)
		return true;
	assert(before <= handle->bytes && handle->bytes <= uid->bytes);
	if (after > before && uid->bytes - before >= FS_BYTES_MAX)
		return false;
	handle->bytes += after - before;
	uid->bytes += after - before;
	return true;
}

void fs_uid_handle_done(struct fs *fs, struct fs_uid *uid)
{
	if (!uid)
		return;
	assert(uid->handles);
	uid->handles--;
	uid_check(uid);
}

bool fs_uid_wait(struct fs_uid *uid)
{
	if (uid && uid->waiters >= FS_WAITERS_MAX)
		return false;
	if (uid)
		uid->waiters++;
	return true;
}

void fs_uid_wait_done(struct fs *fs, struct fs_uid *uid)
{
	if (!uid)
		return;
	assert(uid->waiters);
	uid->waiters--;
	uid_check(uid);
}

void fs_uids_done(struct fs *fs)
{
	struct fs_uid *uid, *after;
	coord_list_each_safe (uid, after, &fs->uids, link)
		free(uid);
	coord_list_init(&fs->uids);
}
