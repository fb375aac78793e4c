/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handles: open files. Reading gives each handle a content of its own, taken when it is asked for
 * at offset 0, and at the first READ after an end of file or a write; so `cat <&9` prints the whole
 * content each time, wherever the kernel's offset stands.
 */
#include "fs/tree.h"

#include "fs/waits.h"

int fs_handle_new(fuse_req_t req, struct fs_inode *inode, const struct fuse_file_info *fi,
	struct fs_handle **ret)
{
	struct fs *fs = fs_of(req);
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct fs_uid *uid = fs_uid_get(fs, ctx->uid);
	if (!fs_uid_handle(fs, uid))
		return -ENFILE;
	struct fs_handle *handle = coord_zalloc(sizeof(*handle));
	if (!handle) {
		fs_uid_handle_done(fs, uid);
		return -ENOMEM;
	}
	handle->inode = fs_inode_ref(inode);
	handle->uid = uid;
	handle->opener_uid = ctx->uid;
	handle->opener_pid = ctx->pid;
	handle->writable = (fi->flags & O_ACCMODE) != O_RDONLY;
	coord_list_init(&handle->uses);
	coord_list_add(&inode->opens, &handle->link);
	inode->handles++;
	if (inode->type->lockable)
		handle->opener = fs_trace_new(fs, ctx->pid, ctx->uid);
	*ret = handle;
	return 0;
}

void fs_handle_free(struct fs *fs, struct fs_handle *handle)
{
	if (handle->inode->type->release)
		handle->inode->type->release(fs, handle);
	fs_flocks_release(fs, handle);
	if (handle->poll)
		fuse_pollhandle_destroy(handle->poll);
	fs_charge(handle, handle->bytes, 0);
	coord_list_remove(&handle->link);
	handle->inode->handles--;
	fs_uid_handle_done(fs, handle->uid);
	fs_snapshot_free(fs, handle->snapshot);
	fs_inode_unref(fs, handle->inode);
	if (handle->draft)
		free(handle->draft->text);
	free(handle->draft);
	free(handle->content);
	free(handle->leader);
	free(handle->opener);
	free(handle);
}

struct fs_handle *fs_handle_of(const struct fuse_file_info *fi)
{
	return (struct fs_handle *)(uintptr_t)fi->fh;
}

struct fs_call *fs_handle_open(
	fuse_req_t req, struct fs_inode *inode, const struct fuse_file_info *fi)
{
	struct fs_call *call = fs_call_new(req, inode, NULL);
	if (!call)
		return NULL;
	call->fi = *fi;
	call->fi.direct_io = !inode->type->is_dir;
	int r = fs_handle_new(req, inode, fi, &call->handle);
	if (r < 0) {
		fs_call_error(call, r);
		return NULL;
	}
	call->owns_handle = true;
	call->fi.fh = (uintptr_t)call->handle;
	return call;
}

struct fs_call *fs_handle_open_read_only(
	fuse_req_t req, struct fs_inode *inode, const struct fuse_file_info *fi)
{
	if ((fi->flags & O_ACCMODE) == O_RDONLY)
		return fs_handle_open(req, inode, fi);
	fuse_reply_err(req, EACCES);
	return NULL;
}

/* Takes content, a malloced buffer or NULL. */
static bool set_content(struct fs_handle *handle, char *content, size_t len)
{
	if (!fs_charge(handle, handle->content_len, len)) {
		free(content);
		return false;
	}
	free(handle->content);
	handle->content = content;
	handle->content_len = len;
	return true;
}

static void reply_part(fuse_req_t req, struct fs_handle *handle, size_t size, off_t off)
{
	size_t from = (size_t)(off - handle->base);
	if (from >= handle->content_len) {
		/* The next READ takes new content. */
		handle->ended = true;
		set_content(handle, NULL, 0);
		fuse_reply_buf(req, NULL, 0);
		return;
	}
	size_t left = handle->content_len - from;
	fuse_reply_buf(req, handle->content + from, left < size ? left : size);
}

void fs_handle_read(fuse_req_t req, struct fs_handle *handle, size_t size, off_t off, int flags)
{
	bool again = handle->ended || handle->wrote;
	const struct fs_holding *holding = fs_handle_holding(handle);
	if (holding && fs_holding_lost(holding))
		again = true; /* the type knows what that means */
	if (!handle->inode->type->stream && off > 0 && off >= handle->base && !again &&
		handle->content) {
		reply_part(req, handle, size, off);
		return;
	}
	struct fs_call *call = fs_call_new(req, handle->inode, handle);
	if (!call)
		return;
	call->size = size;
	call->off = off;
	call->flags = flags;
	handle->inode->type->read(call);
}

void fs_handle_fill(struct fs_call *call, char *content, size_t len)
{
	struct fs_handle *handle = call->handle;
	if (!set_content(handle, content, content ? len : 0)) {
		fs_call_error(call, EDQUOT);
		return;
	}
	handle->base = handle->ended || handle->wrote ? call->off : 0;
	handle->ended = handle->wrote = false;
	reply_part(call->req, handle, call->size, call->off);
	fs_call_free(call);
}

void fs_handle_fill_copy(struct fs_call *call, struct coord_bytes bytes)
{
	char *copy = malloc(bytes.len + 1);
	if (!copy) {
		fs_call_error(call, ENOMEM);
		return;
	}
	memcpy(copy, bytes.data, bytes.len);
	fs_handle_fill(call, copy, bytes.len);
}

void fs_handle_notify(struct fs_handle *handle)
{
	if (!handle->poll)
		return;
	fuse_lowlevel_notify_poll(handle->poll);
	fuse_pollhandle_destroy(handle->poll);
	handle->poll = NULL;
}

struct fs_handle *fs_handle_by_pid(struct fs_inode *inode, int32_t pid)
{
	struct fs_handle *handle;
	coord_list_each (handle, &inode->opens, link)
		if (handle->writable && handle->opener_pid == pid)
			return handle;
	return NULL;
}
