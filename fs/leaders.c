/* SPDX-License-Identifier: Apache-2.0 */
/*
 * leaders/: one file for each group that has a leader. Campaigning is locking it exclusively; all
 * that is the same for locks is in locks.c.
 */
#include "fs/tree.h"

size_t fs_leader_format(struct fs *fs, const struct coord_lock_info *info, char *ret)
{
	if (!info->held || !info->owner.len || coord_name_encode(info->owner, ret) < 0)
		return 0;
	size_t len = strlen(ret);
	ret[len] = '\n';
	return len + 1;
}

/* Whether there is such a group decides; without an answer, campaigning will say it. */
static void group_seen(void *user, int status, const struct coord_lock_info *unused)
{
	struct fs_call *call = user;
	call->wait = NULL;
	if (status == -ENOENT)
		fs_call_error(call, ENOENT);
	else
		fs_held_created(call);
}

static void leader_create(
	fuse_req_t req, struct fs_inode *dir, const char *file, const struct fuse_file_info *fi)
{
	struct fs_call *call = fs_held_create(req, dir, file, fi);
	if (!call)
		return;
	if (fi->flags & O_EXCL) {
		fs_flock_excl(call);
		return;
	}
	if (coord_in_vain(call->fs->coord, FS_SHORT_MS) < 0) {
		fs_held_created(call);
		return;
	}
	call->late_fn = fs_held_created;
	fs_call_limit(call, FS_SHORT_MS, 0);
	fs_call_started(call, coord_group_look(call->fs->coord, call->inode->name, group_seen, call,
				      &call->wait));
}

/* The id to lead under, as text of a name with or without a newline. */
static int set_leader(
	struct fs *fs, struct fs_handle *handle, uint32_t uid, const char *data, size_t len)
{
	char file[COORD_NAME_MAX + 1], buf[COORD_NAME_MAX + 1];
	struct coord_bytes id;
	struct coord_membership_info info;
	if (len && data[len - 1] == '\n')
		len--;
	if (!len || len > COORD_NAME_MAX || memchr(data, 0, len))
		return EINVAL;
	memcpy(file, data, len);
	file[len] = 0;
	int r = fs_name_decode(file, true, buf, &id);
	if (r < 0)
		return -r;
	if (!coord_membership_find(fs->coord, handle->inode->name, id, &info) || info.uid != uid)
		return EACCES;
	char *copy = malloc(id.len);
	if (!copy)
		return ENOMEM;
	memcpy(copy, id.data, id.len);
	free(handle->leader);
	handle->leader = copy;
	handle->leader_len = id.len;
	return 0;
}

static void leader_write(fuse_req_t req, struct fs_handle *handle, const char *data, size_t len)
{
	const struct fs_holding *holding = fs_handle_holding(handle);
	if (!holding) {
		int code = set_leader(fs_of(req), handle, fuse_req_ctx(req)->uid, data, len);
		if (code)
			fuse_reply_err(req, code);
		else
			fuse_reply_write(req, len);
	} else if (fs_holding_lost(holding)) {
		fuse_reply_err(req, EIO);
	} else {
		fuse_reply_write(req, len);
	}
}

const struct fs_type fs_type_leaders = {
	.is_dir = true,
	.child = FS_LEADER,
	.lookup = fs_held_lookup,
	.create = leader_create,
	.unlink = fs_held_unlink,
	.list = fs_held_list,
	.getattr = fs_reply_plain_attr,
};

const struct fs_type fs_type_leader = {
	.lockable = true,
	.lock_kind = COORD_LEADER,
	.mode = fs_file_mode,
	.getattr = fs_held_getattr,
	.setattr = fs_held_setattr,
	.open = fs_held_open,
	.read = fs_held_read,
	.write = leader_write,
	.flush = fs_held_flush,
	.fsync = fs_held_fsync,
	.getxattr = fs_held_getxattr,
};
