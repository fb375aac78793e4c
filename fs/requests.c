/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libfuse's callbacks. Each finds the inode, and hands the request to the inode's kind (struct fs_type),
 * or answers with what is the same everywhere.
 */
#include "fs/tree.h"

#include <sys/statvfs.h>

static void req_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fs_inode *dir = fs_inode_at(fs_of(req), parent);
	if (dir->type->lookup)
		dir->type->lookup(req, dir, name);
	else
		fuse_reply_err(req, ENOTDIR);
}

static void req_forget(fuse_req_t req, fuse_ino_t ino, uint64_t lookups)
{
	struct fs *fs = fs_of(req);
	if (ino != FUSE_ROOT_ID)
		fs_inode_forget(fs, fs_inode_at(fs, ino), lookups);
	fuse_reply_none(req);
}

static void req_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *all)
{
	struct fs *fs = fs_of(req);
	for (size_t i = 0; i < count; i++)
		if (all[i].ino != FUSE_ROOT_ID)
			fs_inode_forget(fs, fs_inode_at(fs, all[i].ino), all[i].nlookup);
	fuse_reply_none(req);
}

static void req_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs_inode *inode = fs_inode_at(fs_of(req), ino);
	inode->type->getattr(req, inode);
}

/* Would it change mode or owner? */
static bool changes(struct fs *fs, struct fs_inode *inode, const struct stat *attr, int to_set)
{
	struct stat now;
	fs_attr(fs, inode, &now);
	return (to_set & FUSE_SET_ATTR_MODE && (attr->st_mode & 07777) != (now.st_mode & 07777)) ||
	       (to_set & FUSE_SET_ATTR_UID && attr->st_uid != now.st_uid) ||
	       (to_set & FUSE_SET_ATTR_GID && attr->st_gid != now.st_gid);
}

static void req_setattr(
	fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
	const int touch = FUSE_SET_ATTR_SIZE | FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME |
			  FUSE_SET_ATTR_ATIME_NOW | FUSE_SET_ATTR_MTIME_NOW;
	struct fs *fs = fs_of(req);
	struct fs_inode *inode = fs_inode_at(fs, ino);
	if (changes(fs, inode, attr, to_set))
		fuse_reply_err(req, EPERM);
	else if (!(to_set & touch))
		inode->type->getattr(req, inode);
	else if (inode->type->setattr)
		inode->type->setattr(req, inode, attr, to_set, fi);
	else if (inode->type->is_dir && !inode->type->mode && fs_may_write_file(req, false))
		inode->type->getattr(req, inode);
	else
		fuse_reply_err(req, EACCES);
}

static void req_mknod(
	fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t device)
{
	fuse_reply_err(req, EPERM);
}

static void req_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct fs_inode *dir = fs_inode_at(fs_of(req), parent);
	if (dir->type->mkdir)
		dir->type->mkdir(req, dir, name);
	else
		fuse_reply_err(req, EPERM);
}

static void req_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fs_inode *dir = fs_inode_at(fs_of(req), parent);
	if (dir->type->unlink)
		dir->type->unlink(req, dir, name);
	else
		fuse_reply_err(req, EPERM);
}

static void req_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fs_inode *dir = fs_inode_at(fs_of(req), parent);
	if (dir->type->rmdir)
		dir->type->rmdir(req, dir, name);
	else
		fuse_reply_err(req, EPERM);
}

static void req_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name)
{
	fuse_reply_err(req, EPERM);
}

static void req_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
	const char *newname, unsigned flags)
{
	fuse_reply_err(req, EPERM);
}

static void req_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname)
{
	fuse_reply_err(req, EPERM);
}

static void req_create(
	fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct fs_inode *dir = fs_inode_at(fs_of(req), parent);
	if (dir->type->create)
		dir->type->create(req, dir, name, fi);
	else
		fuse_reply_err(req, EPERM);
}

static void req_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs_inode *inode = fs_inode_at(fs_of(req), ino);
	if (inode->type->open)
		inode->type->open(req, inode, fi);
	else
		fuse_reply_err(req, EISDIR);
}

static void req_read(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	fs_handle_read(req, fs_handle_of(fi), size, off, fi->flags);
}

static void req_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t size, off_t off,
	struct fuse_file_info *fi)
{
	struct fs_handle *handle = fs_handle_of(fi);
	handle->wrote = true;
	if (handle->inode->type->write)
		handle->inode->type->write(req, handle, data, size);
	else
		fuse_reply_err(req, EPERM);
}

static void req_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fs_handle *handle = fs_handle_of(fi);
	if (handle->inode->type->flush)
		handle->inode->type->flush(req, handle, fi->lock_owner);
	else
		fuse_reply_err(req, 0);
}

/* Answered at once: whatever letting go takes, close does not wait for it. */
static void req_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	fs_handle_free(fs_of(req), fs_handle_of(fi));
	fuse_reply_err(req, 0);
}

static void req_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	struct fs_handle *handle = fs_handle_of(fi);
	if (handle->inode->type->fsync)
		handle->inode->type->fsync(req, handle);
	else
		fuse_reply_err(req, 0);
}

static void req_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	fs_dirs_open(req, fs_inode_at(fs_of(req), ino), fi);
}

static void req_readdir(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	fs_dirs_read(req, fs_handle_of(fi), size, off);
}

static void req_fsyncdir(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	fuse_reply_err(req, 0);
}

static void req_statfs(fuse_req_t req, fuse_ino_t ino)
{
	const struct statvfs zeros = {
		.f_bsize = 4096, .f_frsize = 4096, .f_namemax = COORD_NAME_MAX};
	fuse_reply_statfs(req, &zeros);
}

static void req_setxattr(
	fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
	fuse_reply_err(req, EOPNOTSUPP);
}

static void req_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
	fuse_reply_err(req, EOPNOTSUPP);
}

static void req_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
	struct fs_inode *inode = fs_inode_at(fs_of(req), ino);
	if (inode->type->getxattr)
		inode->type->getxattr(req, inode, name, size);
	else
		fuse_reply_err(req, ENODATA);
}

static void req_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
	static const char name[] = "user.tooz.token";
	const struct fs_inode *inode = fs_inode_at(fs_of(req), ino);
	size_t len = inode->type->getxattr ? sizeof(name) : 0;
	if (size == 0)
		fuse_reply_xattr(req, len);
	else if (size < len)
		fuse_reply_err(req, ERANGE);
	else
		fuse_reply_buf(req, name, len);
}

static void req_getlk(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock)
{
	fs_getlk(req, fs_handle_of(fi), fi->lock_owner, lock);
}

static void req_setlk(
	fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct flock *lock, int sleep)
{
	fs_setlk(req, fs_handle_of(fi), fi->lock_owner, lock, sleep);
}

static void req_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op)
{
	fs_flock(req, fs_handle_of(fi), op);
}

static void req_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
	struct fuse_file_info *fi)
{
	fuse_reply_err(req, EOPNOTSUPP);
}

/* A healthy holding polls as nothing, a lost one as an error, any other file as ready. When the daemon goes on after a
 * stop, this may be read before the timer of a lease has its turn. */
static void req_poll(
	fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, struct fuse_pollhandle *ph)
{
	struct fs_handle *handle = fs_handle_of(fi);
	const struct fs_holding *holding = fs_handle_holding(handle);
	unsigned events = POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM;
	if (holding && handle->inode->kind != FS_MEMBER)
		events = coord_holding_is_lost(holding->held) || fs_holding_lost(holding)
				 ? POLLIN | POLLERR | POLLHUP
				 : 0;
	if (handle->inode->type->poll)
		events = handle->inode->type->poll(handle);
	if (ph) {
		if (handle->poll)
			fuse_pollhandle_destroy(handle->poll);
		handle->poll = ph;
	}
	fuse_reply_poll(req, events);
}

const struct fuse_lowlevel_ops fs_requests = {
	.init = fs_session_init,
	.lookup = req_lookup,
	.forget = req_forget,
	.forget_multi = req_forget_multi,
	.getattr = req_getattr,
	.setattr = req_setattr,
	.mknod = req_mknod,
	.mkdir = req_mkdir,
	.unlink = req_unlink,
	.rmdir = req_rmdir,
	.symlink = req_symlink,
	.rename = req_rename,
	.link = req_link,
	.create = req_create,
	.open = req_open,
	.read = req_read,
	.write = req_write,
	.flush = req_flush,
	.release = req_release,
	.fsync = req_fsync,
	.opendir = req_opendir,
	.readdir = req_readdir,
	.releasedir = req_release,
	.fsyncdir = req_fsyncdir,
	.statfs = req_statfs,
	.setxattr = req_setxattr,
	.getxattr = req_getxattr,
	.listxattr = req_listxattr,
	.removexattr = req_removexattr,
	.getlk = req_getlk,
	.setlk = req_setlk,
	.flock = req_flock,
	.fallocate = req_fallocate,
	.poll = req_poll,
};
