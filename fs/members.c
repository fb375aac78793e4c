/* SPDX-License-Identifier: Apache-2.0 */
/*
 * groups/g/: one file for each member; its content is the member's capabilities.
 *
 * Opening joins nothing: the first complete write does, with what it wrote. What a handle wrote is its
 * draft (struct fs_draft):
 *
 *   an unfinished JSON value    pending, until it is finished, or FLUSH, fsync, or the last close
 *   a finished one              published; white space after it is ignored, anything else begins anew,
 *                               in the same write too: of several the last one counts
 *   other text                  published at each write, and grows
 *   nothing, ever               the last close joins with nothing, if the handle was opened for writing
 *                               and nothing was tried
 *
 * flock binds the membership to the handle: the first holder joins, the last that lets go leaves. What a
 * handle had not published by the time that it let go, its close does not publish either.
 * What a close does to the group is counted there (fs_change_begin), and later calls wait for it.
 */
#include "fs/tree.h"

#include <assert.h>
#include <ctype.h>

#include "coord/caps.h"
#include "fs/waits.h"

static const struct coord_bytes nothing = {"", 0};

static struct coord_bytes group_of(const struct fs_inode *member)
{
	return member->parent->name;
}

static bool is_ours(struct fs *fs, const struct fs_inode *member)
{
	return coord_member_ours(fs->coord, group_of(member), member->name);
}

static bool is_joined(struct fs *fs, const struct fs_inode *member)
{
	struct coord_membership_info info;
	return coord_membership_find(fs->coord, group_of(member), member->name, &info);
}

static unsigned member_mode(struct fs *fs, struct fs_inode *member)
{
	return is_ours(fs, member) || member->handles ? fs_file_mode(fs, member) : 0444;
}

/* Joins or updates with a text. */
static int put(struct fs *fs, struct fs_inode *member, struct coord_bytes text, bool exclusive,
	uint32_t uid, coord_reply_fn *fn, void *user, struct coord_req **ret)
{
	_cleanup_free_ char *data = NULL;
	size_t len;
	int r = coord_caps_encode(text, &data, &len);
	if (r < 0)
		return r;
	return coord_member_put(fs->coord, group_of(member), member->name,
		(struct coord_bytes){data, len}, exclusive, uid, fn, user, ret);
}

/* ---- Attributes ---- */

static off_t text_size(struct coord_bytes data)
{
	_cleanup_free_ char *text = NULL;
	size_t len;
	return coord_caps_decode(data, &text, &len) == 0 ? (off_t)len : 0;
}

static void data_attr(struct fs *fs, struct fs_inode *member, struct coord_bytes data,
	uint64_t joined_us, uint64_t updated_us, struct stat *ret)
{
	fs_attr(fs, member, ret);
	ret->st_size = text_size(data);
	fs_attr_times(ret, joined_us ? joined_us : member->seen_us,
		updated_us  ? updated_us
		: joined_us ? joined_us
			    : member->seen_us);
}

static void row_attr(
	struct fs *fs, struct fs_inode *member, const struct coord_row *row, struct stat *ret)
{
	struct coord_bytes data = row->flags & COORD_ROW_BAD_DATA ? nothing : row->data;
	data_attr(fs, member, data, row->created_us, row->updated_us, ret);
	/* The mode of a member that others joined must not depend on who has it open here. */
	if (!is_ours(fs, member))
		ret->st_mode = S_IFREG | 0444;
}

/* What needs no round trip: a snapshot of the caller's, or our own record. */
static bool known_attr(fuse_req_t req, struct fs_inode *member, struct stat *ret)
{
	struct fs *fs = fs_of(req);
	struct coord_membership_info info;
	const struct fs_entry *entry = fs_dirs_find(req, member->parent, member->name);
	if (entry) {
		row_attr(fs, member, &entry->row, ret);
		return true;
	}
	if (!coord_membership_find(fs->coord, group_of(member), member->name, &info))
		return false;
	data_attr(fs, member, info.data, info.joined_us, info.updated_us, ret);
	return true;
}

static int get(struct fs_call *call, coord_reply_fn *fn)
{
	return coord_member_get(
		call->fs->coord, group_of(call->inode), call->inode->name, fn, call, &call->wait);
}

/* Attributes from a look; -EBADMSG is a member that is there. */
static int looked_attr(
	struct fs_call *call, int status, const struct coord_row *rows, struct stat *ret)
{
	if (status < 0 && status != -EBADMSG)
		return status;
	if (rows && status == 0)
		row_attr(call->fs, call->inode, rows, ret);
	else
		fs_attr(call->fs, call->inode, ret);
	return 0;
}

static void lookup_looked(void *user, int status, const struct coord_row *rows, size_t rows_len)
{
	struct fs_call *call = user;
	struct stat attr;
	call->wait = NULL;
	int r = looked_attr(call, status, rows, &attr);
	if (r < 0)
		fs_call_error(call, r);
	else
		fs_call_entry(call, &attr);
}

static void lookup(struct fs_call *call)
{
	struct stat attr;
	if (known_attr(call->req, call->inode, &attr)) {
		fs_call_entry(call, &attr);
		return;
	}
	int r = get(call, lookup_looked);
	fs_call_started(call, r == -EINVAL ? -ENOENT : r);
}

/* The inode of a name below a group; NULL: answered. */
static struct fs_inode *begin(fuse_req_t req, struct fs_inode *dir, const char *file, bool create)
{
	char buf[COORD_NAME_MAX + 1];
	struct coord_bytes name;
	int r = fs_name_decode(file, create, buf, &name);
	if (r < 0) {
		fuse_reply_err(req, -r);
		return NULL;
	}
	struct fs_inode *inode = fs_inode_get(fs_of(req), dir, FS_MEMBER, name);
	if (!inode)
		fuse_reply_err(req, ENOMEM);
	return inode;
}

static void member_lookup(fuse_req_t req, struct fs_inode *dir, const char *file)
{
	struct fs_inode *member = begin(req, dir, file, false);
	if (!member)
		return;
	struct fs_call *call = fs_call_new(req, member, NULL);
	fs_inode_unref(fs_of(req), member);
	if (call)
		fs_call_after_changes(call, dir, lookup);
}

/* Opened to be joined, or gone between the LOOKUP and the OPEN that checks its mode: as with locks, that
 * does not fail for it. It is a file, and empty, and may be joined. */
static void unjoined_attr(struct fs *fs, struct fs_inode *member, struct stat *ret)
{
	fs_attr(fs, member, ret);
	ret->st_mode = S_IFREG | fs_file_mode(fs, member);
}

static void getattr_looked(void *user, int status, const struct coord_row *rows, size_t rows_len)
{
	struct fs_call *call = user;
	struct stat attr;
	call->wait = NULL;
	int r = looked_attr(call, status, rows, &attr);
	if (r == -ENOENT) {
		unjoined_attr(call->fs, call->inode, &attr);
		r = 0;
	}
	if (r < 0)
		fs_call_error(call, r);
	else
		fs_call_attr(call, &attr);
}

/* A handle that may join was opened when there was no such member of others. Each path is looked up, so
 * this is fstat on such a handle, as shells do before they write. */
static bool is_drafted(const struct fs_inode *member)
{
	const struct fs_handle *handle;
	coord_list_each (handle, &member->opens, link)
		if (handle->draft && !handle->draft->refused)
			return true;
	return false;
}

static void getattr(struct fs_call *call)
{
	struct stat attr;
	if (known_attr(call->req, call->inode, &attr)) {
		fs_call_attr(call, &attr);
	} else if (is_drafted(call->inode)) {
		unjoined_attr(call->fs, call->inode, &attr);
		fs_call_attr(call, &attr);
	} else {
		fs_call_started(call, get(call, getattr_looked));
	}
}

static void member_getattr(fuse_req_t req, struct fs_inode *member)
{
	struct fs_call *call = fs_call_new(req, member, NULL);
	if (call)
		fs_call_after_changes(call, member->parent, getattr);
}

/* ---- Listing ---- */

static void list(struct fs_call *call);

static void listed(void *user, int status, const struct coord_row *rows, size_t rows_len)
{
	struct fs_call *call = user;
	call->wait = NULL;
	if (status == -EFBIG && !call->names_only) {
		/* The names alone may fit: who wants to know more of a member then asks for it. */
		call->names_only = true;
		list(call);
	} else if (status < 0) {
		fs_call_error(call, status);
	} else {
		fs_dirs_filled(call, rows, COORD_ROW_LEADER);
	}
}

static void list(struct fs_call *call)
{
	fs_call_started(call, coord_group_read(call->fs->coord, call->inode->name,
				      !call->names_only, listed, call, &call->wait));
}

static void group_list(struct fs_call *call)
{
	fs_call_after_changes(call, call->inode, list);
}

/* ---- Opening ---- */

static bool wants_to_write(const struct fuse_file_info *fi)
{
	return (fi->flags & O_ACCMODE) != O_RDONLY;
}

static bool make_draft(struct fs_call *call, bool created)
{
	struct fs_handle *handle = call->handle;
	if (!handle->writable)
		return true;
	handle->draft = calloc(1, sizeof(*handle->draft));
	if (!handle->draft) {
		fs_call_error(call, ENOMEM);
		return false;
	}
	handle->draft->exclusive = call->fi.flags & O_EXCL;
	handle->draft->truncated = !created && call->fi.flags & O_TRUNC;
	return true;
}

static void opened(struct fs_call *call)
{
	if (make_draft(call, false))
		fs_call_opened(call);
}

/* It is not known as ours: whoever joined it, it is not to be written. */
static void open_looked(void *user, int status, const struct coord_row *rows, size_t rows_len)
{
	struct fs_call *call = user;
	call->wait = NULL;
	if (status == -ENOENT)
		opened(call);
	else
		fs_call_error(call, status == 0 || status == -EBADMSG ? -EACCES : status);
}

static void open_member(struct fs_call *call)
{
	if (!wants_to_write(&call->fi) || is_ours(call->fs, call->inode))
		opened(call);
	else
		fs_call_started(call, get(call, open_looked));
}

static void member_open(fuse_req_t req, struct fs_inode *member, const struct fuse_file_info *fi)
{
	if (wants_to_write(fi) && fs_of(req)->options.read_only) {
		fuse_reply_err(req, EROFS);
		return;
	}
	struct fs_call *call = fs_handle_open(req, member, fi);
	if (call)
		fs_call_after_changes(call, member->parent, open_member);
}

static void created(struct fs_call *call)
{
	struct stat attr;
	fs_attr(call->fs, call->inode, &attr);
	if (make_draft(call, true))
		fs_call_created(call, &attr);
}

static void create_looked(void *user, int status, const struct coord_row *rows, size_t rows_len)
{
	struct fs_call *call = user;
	call->wait = NULL;
	if (status == -ENOENT)
		created(call);
	else
		fs_call_error(call, status == 0 || status == -EBADMSG ? -EEXIST : status);
}

static void create_excl(struct fs_call *call)
{
	if (is_joined(call->fs, call->inode))
		fs_call_error(call, EEXIST);
	else
		fs_call_started(call, get(call, create_looked));
}

/* The LOOKUPs just before have said that there is a group and no such member; joining will say it again. */
static void member_create(
	fuse_req_t req, struct fs_inode *dir, const char *file, const struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	if (fs->options.read_only) {
		fuse_reply_err(req, EROFS);
		return;
	}
	struct fs_inode *member = begin(req, dir, file, true);
	if (!member)
		return;
	struct fs_call *call = fs_handle_open(req, member, fi);
	fs_inode_unref(fs, member);
	if (!call)
		return;
	struct coord_lock_info unused;
	int r = coord_lock_peek(fs->coord, COORD_MEMBER, call->inode->name, &unused);
	if (r == -EINVAL || r == -ENAMETOOLONG)
		fs_call_error(call, r);
	else if (!(fi->flags & O_EXCL))
		created(call);
	else if (fs_call_short(call))
		fs_call_after_changes(call, dir, create_excl);
}

/* ---- Reading ---- */

static void read_row(struct fs_call *call, const struct coord_row *row)
{
	char *text;
	size_t len;
	int r = row->flags & COORD_ROW_BAD_DATA ? -EBADMSG
						: coord_caps_decode(row->data, &text, &len);
	if (r < 0)
		fs_call_error(call, r);
	else
		fs_handle_fill(call, text, len);
}

static void read_looked(void *user, int status, const struct coord_row *rows, size_t rows_len)
{
	struct fs_call *call = user;
	call->wait = NULL;
	if (status == 0 && rows)
		read_row(call, rows);
	else if (status == -ENOENT && call->handle->draft)
		fs_handle_fill(call, NULL, 0);
	else
		fs_call_error(call, status ? status : -EIO);
}

static void read_member(struct fs_call *call)
{
	fs_call_started(call, get(call, read_looked));
}

static void member_read(struct fs_call *call)
{
	fs_call_after_changes(call, call->inode->parent, read_member);
}

/* ---- Writing ---- */

/* A write was published: of what was written the last value stays. */
static void draft_keep(struct fs_draft *draft)
{
	memmove(draft->text, draft->last.data, draft->last.len);
	draft->len = draft->last.len;
	draft->finished = draft->last_look == COORD_CAPS_JSON;
	draft->pending = draft->last_look == COORD_CAPS_OPEN;
}

/* It was not: it is not there for whoever writes it again. */
static void draft_restore(struct fs_draft *draft)
{
	draft->len = draft->len_before;
	draft->finished = draft->finished_before;
}

static void published(void *user, int status, const struct coord_row *rows, size_t rows_len)
{
	struct fs_call *call = user;
	struct fs_draft *draft = call->handle->draft;
	call->wait = NULL;
	fs_dirs_forget(call->inode->parent, call->inode->name);
	if (status < 0) {
		draft->refused = true;
		if (call->size)
			draft_restore(draft);
		fs_call_error(call, status);
		return;
	}
	draft->exclusive = false;
	if (call->size) {
		draft_keep(draft);
		fuse_reply_write(call->req, call->size);
		fs_call_free(call);
	} else {
		fs_call_error(call, 0);
	}
}

/* It was bound, and has let go: its close is no reason to join again. */
static bool is_released(const struct fs_handle *handle)
{
	return handle->draft->bound && !fs_handle_holding(handle);
}

/* Joins or updates on behalf of a call on a handle. */
static void publish(struct fs_call *call, struct coord_bytes text)
{
	struct fs_draft *draft = call->handle->draft;
	draft->tried = true;
	draft->pending = false;
	draft->bound = draft->bound && !is_released(call->handle);
	fs_call_changing(call);
	int r = put(call->fs, call->inode, text, draft->exclusive, call->uid, published, call,
		&call->wait);
	if (r < 0) {
		draft->refused = true;
		if (call->size)
			draft_restore(draft);
	}
	fs_call_started(call, r);
}

static bool is_blank(const char *data, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (!memchr(" \t\r\n", data[i], 4))
			return false;
	return true;
}

static int draft_add(struct fs_handle *handle, const char *data, size_t len)
{
	struct fs_draft *draft = handle->draft;
	if (draft->finished)
		draft->len = 0;
	draft->finished = false;
	if (draft->overflown || draft->len + len > COORD_CAPS_MAX)
		return -EFBIG;
	if (draft->len + len > draft->size) {
		size_t size = draft->size ? draft->size : 256;
		while (size < draft->len + len)
			size *= 2;
		if (!fs_charge(handle, draft->size, size))
			return -EDQUOT;
		char *text = realloc(draft->text, size);
		if (!text) {
			fs_charge(handle, size, draft->size);
			return -ENOMEM;
		}
		draft->text = text;
		draft->size = size;
	}
	memcpy(draft->text + draft->len, data, len);
	draft->len += len;
	return 0;
}

/* The value that a draft ends with, and the finished one before it, if any. */
static enum coord_caps_text draft_look(
	const struct fs_draft *draft, struct coord_bytes *ret_before, struct coord_bytes *ret_last)
{
	struct coord_bytes last = {draft->text, draft->len}, before = {0};
	size_t end;
	enum coord_caps_text look = coord_caps_look(last, &end);
	while (look == COORD_CAPS_OTHER && end) {
		before = (struct coord_bytes){last.data, end};
		while (end < last.len && is_blank(last.data + end, 1))
			end++;
		last = (struct coord_bytes){last.data + end, last.len - end};
		look = coord_caps_look(last, &end);
	}
	if (look == COORD_CAPS_JSON)
		last.len = end;
	*ret_before = before;
	*ret_last = last;
	return look;
}

static void member_write(fuse_req_t req, struct fs_handle *handle, const char *data, size_t len)
{
	struct fs_draft *draft = handle->draft;
	struct coord_bytes before;
	if (!draft) {
		fuse_reply_err(req, EBADF);
		return;
	}
	draft->truncated = false;
	if (draft->finished && is_blank(data, len)) {
		fuse_reply_write(req, len);
		return;
	}
	draft->finished_before = draft->finished;
	draft->len_before = draft->finished ? 0 : draft->len;
	int r = draft_add(handle, data, len);
	if (r < 0) {
		/* Half of a content is not published either, now or with what may follow. */
		draft->refused = draft->overflown = true;
		draft->pending = false;
		fuse_reply_err(req, -r);
		return;
	}
	draft->last_look = draft_look(draft, &before, &draft->last);
	bool open = draft->last_look == COORD_CAPS_OPEN;
	if (open && !before.len) {
		draft->pending = true;
		fuse_reply_write(req, len);
		return;
	}
	struct fs_call *call = fs_call_new(req, handle->inode, handle);
	if (!call) {
		draft_restore(draft);
		return;
	}
	call->size = len;
	publish(call, open ? before : draft->last);
}

static void publish_draft(fuse_req_t req, struct fs_handle *handle, struct coord_bytes text)
{
	struct fs_call *call = fs_call_new(req, handle->inode, handle);
	if (call)
		publish(call, text);
}

static void member_flush(fuse_req_t req, struct fs_handle *handle, uint64_t owner)
{
	const struct fs_draft *draft = handle->draft;
	fs_flocks_flush(fs_of(req), handle->inode, owner);
	if (draft && draft->pending && !is_released(handle))
		publish_draft(req, handle, (struct coord_bytes){draft->text, draft->len});
	else
		fuse_reply_err(req, 0);
}

static bool joins_at_end(struct fs *fs, const struct fs_handle *handle)
{
	const struct fs_draft *draft = handle->draft;
	if (!draft || draft->refused || is_released(handle))
		return false;
	return draft->truncated || (!draft->tried && !is_joined(fs, handle->inode));
}

static void member_fsync(fuse_req_t req, struct fs_handle *handle)
{
	struct fs_draft *draft = handle->draft;
	if (draft && draft->pending) {
		publish_draft(req, handle, (struct coord_bytes){draft->text, draft->len});
	} else if (joins_at_end(fs_of(req), handle)) {
		draft->exclusive = draft->exclusive || !draft->truncated;
		draft->truncated = false;
		publish_draft(req, handle, nothing);
	} else {
		fuse_reply_err(req, 0);
	}
}

/* ---- Changes that nobody waits for ---- */

struct change {
	struct fs *fs;
	struct fs_inode *member; /* referenced */
};

static void change_done(void *user, int status, const struct coord_row *rows, size_t rows_len)
{
	struct change *change = user;
	struct fs *fs = change->fs;
	fs_dirs_forget(change->member->parent, change->member->name);
	fs_change_end(fs, change->member->parent);
	fs_inode_unref(fs, change->member);
	free(change);
}

static struct change *change_begin(struct fs *fs, struct fs_inode *member)
{
	struct change *change = malloc(sizeof(*change));
	if (!change)
		return NULL;
	*change = (struct change){fs, fs_inode_ref(member)};
	fs_change_begin(member->parent);
	return change;
}

static void member_release(struct fs *fs, struct fs_handle *handle)
{
	const struct fs_draft *draft = handle->draft;
	if (!fs->coord || fs->over || !joins_at_end(fs, handle))
		return;
	struct change *change = change_begin(fs, handle->inode);
	if (!change)
		return;
	/* Joining must not wipe out what a member that we do not know of has. */
	int r = put(fs, handle->inode, nothing, !draft->truncated, handle->opener_uid, change_done,
		change, NULL);
	if (r < 0)
		change_done(change, r, NULL, 0);
}

/* ---- flock ---- */

int fs_member_bind(struct fs_wait *wait, coord_reply_fn *fn)
{
	struct fs_inode *member = wait->holding->inode;
	struct fs_draft *draft = wait->handle->draft;
	if (draft)
		draft->tried = draft->bound = true;
	struct coord_membership_info info;
	if (coord_membership_find(wait->fs->coord, group_of(member), member->name, &info) &&
		!info.leaving)
		/* It would leave with the handle. */
		return fs_may_undo(wait->req, info.uid) ? 0 : -EACCES;
	int r = put(
		wait->fs, member, nothing, false, wait->holding->taker_uid, fn, wait, &wait->join);
	return r < 0 ? r : 1;
}

static bool any(void *user, struct coord_holding *held)
{
	return true;
}

static struct coord_bytes holdings_name(
	const struct fs_inode *member, char buf[2 * COORD_NAME_MAX + 2])
{
	struct coord_bytes group = group_of(member);
	memcpy(buf, group.data, group.len);
	buf[group.len] = 0;
	memcpy(buf + group.len + 1, member->name.data, member->name.len);
	return (struct coord_bytes){buf, group.len + 1 + member->name.len};
}

void fs_member_unbind(struct fs *fs, struct fs_inode *member)
{
	char buf[2 * COORD_NAME_MAX + 2];
	if (coord_lock_holders(fs->coord, COORD_MEMBER, holdings_name(member, buf), any, NULL))
		return;
	if (fs->over)
		return;
	struct change *change = change_begin(fs, member);
	if (!change)
		return;
	/* Nobody is there to hear that the backend is away: it must happen whenever that is back. */
	int r = coord_member_forgo(
		fs->coord, group_of(member), member->name, change_done, change, NULL);
	if (r < 0)
		change_done(change, r, NULL, 0);
}

static bool note_holder(void *user, struct coord_holding *held)
{
	struct coord_lock_info *info = user;
	const struct fs_holding *holding = coord_holding_user(held);
	info->held = info->local = true;
	info->mode = coord_holding_mode(held);
	info->pid = holding->taker_pid;
	info->uid = holding->taker_uid;
	info->holders++;
	return false;
}

void fs_member_lock_info(struct fs *fs, struct coord_bytes name, struct coord_lock_info *ret)
{
	*ret = (struct coord_lock_info){0};
	coord_lock_holders(fs->coord, COORD_MEMBER, name, note_holder, ret);
}

/* ---- touch, truncate, rm ---- */

static void touched(void *user, int status, const struct coord_row *rows, size_t rows_len)
{
	struct fs_call *call = user;
	struct stat attr;
	call->wait = NULL;
	fs_dirs_forget(call->inode->parent, call->inode->name);
	if (status == -EEXIST)
		status = is_ours(call->fs, call->inode) ? 0 : -EACCES;
	if (status < 0) {
		fs_call_error(call, status);
	} else if (known_attr(call->req, call->inode, &attr)) {
		fs_call_attr(call, &attr);
	} else {
		fs_attr(call->fs, call->inode, &attr);
		fs_call_attr(call, &attr);
	}
}

static void touch(struct fs_call *call)
{
	struct stat attr;
	struct fs_inode *member = call->inode;
	const struct fuse_ctx *ctx = fuse_req_ctx(call->req);
	struct fs_handle *handle = fs_handle_by_pid(member, ctx->pid);
	bool joined = is_joined(call->fs, member), truncate = call->flags & FUSE_SET_ATTR_SIZE;
	if (handle && handle->draft && !joined)
		handle->draft->tried = true;
	if (joined && !truncate) {
		known_attr(call->req, member, &attr);
		fs_call_attr(call, &attr);
		return;
	}
	fs_call_changing(call);
	fs_call_started(call,
		put(call->fs, member, nothing, !truncate, ctx->uid, touched, call, &call->wait));
}

/* ftruncate: the handle's business until it is closed. */
static bool truncate_draft(fuse_req_t req, struct fs_inode *member, const struct fuse_file_info *fi)
{
	const struct fs_handle *handle = fi ? fs_handle_of(fi) : NULL;
	struct fs_draft *draft = handle ? handle->draft : NULL;
	if (!draft)
		return false;
	draft->len = 0;
	draft->truncated = true;
	draft->pending = draft->finished = draft->overflown = false;
	struct stat attr;
	fs_attr(fs_of(req), member, &attr);
	fs_reply_attr(req, member, &attr);
	return true;
}

static void member_setattr(fuse_req_t req, struct fs_inode *member, const struct stat *attr,
	int to_set, const struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	bool truncate = to_set & FUSE_SET_ATTR_SIZE;
	if (truncate && attr->st_size) {
		fuse_reply_err(req, EINVAL);
		return;
	}
	if (truncate && truncate_draft(req, member, fi))
		return;
	if (!fs_may_write_file(req, false)) {
		fuse_reply_err(req, EACCES);
		return;
	}
	struct fs_call *call = fs_call_new(req, member, NULL);
	if (!call)
		return;
	call->flags = to_set;
	if (fs->options.read_only)
		fs_call_error(call, EROFS);
	else
		fs_call_after_changes(call, member->parent, touch);
}

static void left(void *user, int status, const struct coord_row *rows, size_t rows_len)
{
	struct fs_call *call = user;
	call->wait = NULL;
	fs_dirs_forget(call->inode->parent, call->inode->name);
	fs_call_error(call, status);
}

static void leave(struct fs_call *call)
{
	struct fs *fs = call->fs;
	struct coord_membership_info info = {.uid = UINT32_MAX};
	struct fs_inode *member = call->inode;
	coord_membership_find(fs->coord, group_of(member), member->name, &info);
	if (!is_ours(fs, member) || !fs_may_undo(call->req, info.uid))
		fs_call_error(call, EACCES);
	else
		fs_call_started(call, coord_member_leave(fs->coord, group_of(member), member->name,
					      left, call, &call->wait));
}

static void member_unlink(fuse_req_t req, struct fs_inode *dir, const char *file)
{
	struct fs *fs = fs_of(req);
	if (fs->options.read_only) {
		fuse_reply_err(req, EROFS);
		return;
	}
	struct fs_inode *member = begin(req, dir, file, false);
	if (!member)
		return;
	struct fs_call *call = fs_call_new(req, member, NULL);
	fs_inode_unref(fs, member);
	if (call && fs_call_short(call))
		fs_call_after_changes(call, dir, leave);
}

const struct fs_type fs_type_group = {
	.is_dir = true,
	.child = FS_MEMBER,
	.lookup = member_lookup,
	.create = member_create,
	.unlink = member_unlink,
	.list = group_list,
	.getattr = fs_reply_plain_attr,
};

const struct fs_type fs_type_member = {
	.lockable = true,
	.lock_kind = COORD_MEMBER,
	.mode = member_mode,
	.getattr = member_getattr,
	.setattr = member_setattr,
	.open = member_open,
	.read = member_read,
	.write = member_write,
	.flush = member_flush,
	.fsync = member_fsync,
	.release = member_release,
};
