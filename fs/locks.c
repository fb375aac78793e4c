/* SPDX-License-Identifier: Apache-2.0 */
/*
 * locks/: one file for each lock that is held. What leaders/ has in common with it is here too, under
 * fs_held_.
 *
 * Opening never acquires. LOOKUP and GETATTR answer from what is known, or after one read of at most a
 * second: the kernel keeps the directory locked meanwhile, and CREATE and FLOCK ask the backend
 * anyway. So no answer there means "no such file", and the file is then created.
 */
#include "fs/tree.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#define DEPTH_MAX 64 /* ancestors to look at */

static enum coord_kind kind_of(enum fs_kind kind)
{
	return kind == FS_LOCK || kind == FS_LOCKS ? COORD_LOCK : COORD_LEADER;
}

static size_t format(
	struct fs *fs, enum coord_kind kind, const struct coord_lock_info *info, char *ret)
{
	return kind == COORD_LOCK ? fs_lock_format(fs, info, ret) : fs_leader_format(fs, info, ret);
}

/* ---- Content ---- */

static size_t add(char *to, size_t len, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static size_t add(char *to, size_t len, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	int n = vsnprintf(to + len, FS_CONTENT_MAX - len, fmt, args);
	va_end(args);
	return n > 0 && len + (size_t)n < FS_CONTENT_MAX ? len + (size_t)n : len;
}

size_t fs_lock_format(struct fs *fs, const struct coord_lock_info *info, char *ret)
{
	char text[COORD_NAME_MAX + 1];
	size_t len = 0;
	if (!info->held)
		return 0;
	if (info->owner.len && coord_name_encode(info->owner, text) == 0)
		len = add(ret, len, "owner=%s\n", text);
	if (info->mode != COORD_NONE)
		len = add(
			ret, len, "mode=%s\n", info->mode == COORD_SHARED ? "shared" : "exclusive");
	if (info->token)
		len = add(ret, len, "token=%" PRIu64 "\n", info->token);
	if (info->since_us) {
		coord_rfc3339(info->since_us, text);
		len = add(ret, len, "since=%s\n", text);
	}
	if (info->pid)
		len = add(ret, len, "pid=%" PRIu32 "\n", info->pid);
	if (info->local)
		len = add(ret, len, "uid=%" PRIu32 "\n", info->uid);
	if (info->mode == COORD_SHARED && info->holders)
		len = add(ret, len, "holders=%" PRIu32 "\n", info->holders);
	return add(ret, len, "waiters=%" PRIu32 "\n", info->waiters);
}

static void info_of_row(struct fs *fs, enum coord_kind kind, const struct coord_row *row,
	struct coord_lock_info *ret)
{
	if (coord_lock_peek(fs->coord, kind, row->name, ret) == 0 && ret->held && ret->local)
		return;
	*ret = (struct coord_lock_info){
		.held = true,
		.mode = row->mode,
		.owner = row->flags & COORD_ROW_NO_ID ? (struct coord_bytes){0} : row->data,
		.token = row->token,
		.since_us = row->created_us,
		.pid = row->pid,
		.holders = row->holders,
	};
}

/* What this very holding has, beside what the lock shows. */
static void info_of_holding(
	struct fs *fs, const struct fs_holding *holding, struct coord_lock_info *ret)
{
	const struct fs_inode *inode = holding->inode;
	enum coord_kind kind = kind_of(inode->kind);
	*ret = (struct coord_lock_info){0};
	if (coord_lock_peek(fs->coord, kind, inode->name, ret) < 0 || !ret->held || !ret->local)
		*ret = (struct coord_lock_info){.held = true, .local = true};
	if (!ret->owner.len)
		ret->owner = coord_bytes_of(coord_config_of(fs->coord)->member);
	ret->mode = coord_holding_mode(holding->held);
	ret->token = coord_holding_token(holding->held);
	ret->since_us = coord_holding_since_us(holding->held);
	ret->pid = holding->taker_pid;
	ret->uid = holding->taker_uid;
}

/* ---- Attributes ---- */

static void info_attr(
	struct fs *fs, struct fs_inode *inode, const struct coord_lock_info *info, struct stat *ret)
{
	char text[FS_CONTENT_MAX];
	fs_attr(fs, inode, ret);
	ret->st_size = (off_t)format(fs, kind_of(inode->kind), info, text);
	if (info->held && info->since_us)
		fs_attr_times(ret, info->since_us, info->since_us);
}

static void held_entry_attr(
	struct fs *fs, struct fs_inode *inode, const struct fs_entry *entry, struct stat *ret)
{
	struct coord_lock_info info;
	info_of_row(fs, kind_of(inode->kind), &entry->row, &info);
	info_attr(fs, inode, &info, ret);
}

static void lookup_end(struct fs_call *call, const struct coord_lock_info *info)
{
	struct stat attr;
	if (!info->held) {
		fs_call_error(call, ENOENT);
		return;
	}
	info_attr(call->fs, call->inode, info, &attr);
	fs_call_entry(call, &attr);
}

/* Only for leaders an error is told: to lock, no answer must not be in the way. */
static void lookup_looked(void *user, int status, const struct coord_lock_info *info)
{
	struct fs_call *call = user;
	call->wait = NULL;
	if (status < 0)
		fs_call_error(call, call->inode->kind == FS_LOCK ? ENOENT : status);
	else
		lookup_end(call, info);
}

/* To have the answer at once that would come when the second is over. */
static bool nobody_answers(const struct fs *fs)
{
	return coord_state(fs->coord) == COORD_SUSPENDED ||
	       coord_in_vain(fs->coord, FS_SHORT_MS) < 0;
}

static void lookup(struct fs_call *call)
{
	enum coord_kind kind = kind_of(call->inode->kind);
	struct coord_lock_info info;
	int r = coord_lock_peek(call->fs->coord, kind, call->inode->name, &info);
	if (r == 0) {
		lookup_end(call, &info);
		return;
	}
	bool lock = kind == COORD_LOCK;
	if (r == -EINVAL || (lock && nobody_answers(call->fs)))
		r = -ENOENT;
	if (lock)
		fs_call_limit(call, FS_SHORT_MS, ENOENT);
	if (r == -EAGAIN)
		r = coord_lock_look(
			call->fs->coord, kind, call->inode->name, lookup_looked, call, &call->wait);
	fs_call_started(call, r);
}

void fs_held_lookup(fuse_req_t req, struct fs_inode *dir, const char *file)
{
	struct fs *fs = fs_of(req);
	char buf[COORD_NAME_MAX + 1];
	struct coord_bytes name;
	int r = fs_name_decode(file, false, buf, &name);
	if (r < 0) {
		fuse_reply_err(req, -r);
		return;
	}
	/* The way of every flock of a free lock: no memory is needed to say no. */
	struct coord_lock_info info;
	const struct fs_entry *entry = fs_dirs_find(req, dir, name);
	r = entry ? -EAGAIN : coord_lock_peek(fs->coord, kind_of(dir->kind), name, &info);
	if (r == 0 && !info.held) {
		fuse_reply_err(req, ENOENT);
		return;
	}
	struct fs_inode *inode = fs_inode_get(fs, dir, dir->type->child, name);
	if (!inode) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	struct stat attr;
	struct fs_call *call;
	if (entry || r == 0) {
		if (entry)
			held_entry_attr(fs, inode, entry, &attr);
		else
			info_attr(fs, inode, &info, &attr);
		fs_reply_entry(req, inode, &attr);
	} else if ((call = fs_call_new(req, inode, NULL))) {
		lookup(call);
	}
	fs_inode_unref(fs, inode);
}

static void getattr_end(struct fs_call *call, const struct coord_lock_info *info)
{
	struct stat attr;
	info_attr(call->fs, call->inode, info, &attr);
	fs_call_attr(call, &attr);
}

static void getattr_late(struct fs_call *call)
{
	const struct coord_lock_info none = {0};
	getattr_end(call, &none);
}

static void getattr_looked(void *user, int status, const struct coord_lock_info *info)
{
	struct fs_call *call = user;
	call->wait = NULL;
	if (status < 0)
		getattr_late(call);
	else
		getattr_end(call, info);
}

/* Never ENOENT: an open of a lock that was freed meanwhile must go on. */
void fs_held_getattr(fuse_req_t req, struct fs_inode *inode)
{
	struct fs *fs = fs_of(req);
	enum coord_kind kind = kind_of(inode->kind);
	struct coord_lock_info info;
	struct stat attr;
	const struct fs_entry *entry = fs_dirs_find(req, inode->parent, inode->name);
	if (entry) {
		held_entry_attr(fs, inode, entry, &attr);
		fs_reply_attr(req, inode, &attr);
		return;
	}
	int r = coord_lock_peek(fs->coord, kind, inode->name, &info);
	if (r < 0)
		info = (struct coord_lock_info){0};
	if (r == 0 || coord_in_vain(fs->coord, FS_SHORT_MS) < 0) {
		info_attr(fs, inode, &info, &attr);
		fs_reply_attr(req, inode, &attr);
		return;
	}
	struct fs_call *call = fs_call_new(req, inode, NULL);
	if (!call)
		return;
	call->late_fn = getattr_late;
	fs_call_limit(call, FS_SHORT_MS, 0);
	r = coord_lock_look(fs->coord, kind, inode->name, getattr_looked, call, &call->wait);
	if (r < 0)
		getattr_late(call);
}

void fs_held_setattr(fuse_req_t req, struct fs_inode *inode, const struct stat *attr, int to_set,
	const struct fuse_file_info *fi)
{
	/* Truncating discards what was discarded already; times are the lock's own. */
	if (!fs_may_write_file(req, false)) {
		fuse_reply_err(req, EACCES);
		return;
	}
	fs_held_getattr(req, inode);
}

/* ---- Listing ---- */

static void listed(void *user, int status, const struct coord_row *rows, size_t rows_len)
{
	struct fs_call *call = user;
	call->wait = NULL;
	if (status < 0)
		fs_call_error(call, status);
	else
		fs_dirs_filled(call, rows, 0);
}

void fs_held_list(struct fs_call *call)
{
	fs_call_started(call, coord_lock_list(call->fs->coord, kind_of(call->inode->kind), listed,
				      call, &call->wait));
}

/* ---- Opening ---- */

void fs_held_open(fuse_req_t req, struct fs_inode *inode, const struct fuse_file_info *fi)
{
	if ((fi->flags & O_ACCMODE) != O_RDONLY && fs_of(req)->options.read_only) {
		fuse_reply_err(req, EROFS);
		return;
	}
	struct fs_call *call = fs_handle_open(req, inode, fi);
	if (call)
		fs_call_opened(call);
}

struct fs_call *fs_held_create(
	fuse_req_t req, struct fs_inode *dir, const char *file, const struct fuse_file_info *fi)
{
	struct fs *fs = fs_of(req);
	char buf[COORD_NAME_MAX + 1];
	struct coord_bytes name;
	struct coord_lock_info info;
	int r = fs->options.read_only ? -EROFS : fs_name_decode(file, true, buf, &name);
	if (r == 0)
		r = coord_lock_peek(fs->coord, kind_of(dir->kind), name, &info);
	if (r < 0 && r != -EAGAIN) {
		fuse_reply_err(req, -r);
		return NULL;
	}
	struct fs_inode *inode = fs_inode_get(fs, dir, dir->type->child, name);
	if (!inode) {
		fuse_reply_err(req, ENOMEM);
		return NULL;
	}
	struct fs_call *call = fs_handle_open(req, inode, fi);
	fs_inode_unref(fs, inode);
	return call;
}

void fs_held_created(struct fs_call *call)
{
	struct coord_lock_info info = {0};
	struct stat attr;
	if (coord_lock_peek(call->fs->coord, kind_of(call->inode->kind), call->inode->name, &info) <
		0)
		info = (struct coord_lock_info){0};
	fs_dirs_forget(call->inode->parent, call->inode->name);
	info_attr(call->fs, call->inode, &info, &attr);
	fs_call_created(call, &attr);
}

static void lock_create(
	fuse_req_t req, struct fs_inode *dir, const char *file, const struct fuse_file_info *fi)
{
	struct fs_call *call = fs_held_create(req, dir, file, fi);
	if (!call)
		return;
	if (fi->flags & O_EXCL)
		fs_flock_excl(call);
	else
		fs_held_created(call);
}

/* ---- Reading ---- */

static void read_end(struct fs_call *call, const struct coord_lock_info *info)
{
	char text[FS_CONTENT_MAX];
	size_t len = format(call->fs, kind_of(call->inode->kind), info, text);
	fs_handle_fill_copy(call, (struct coord_bytes){text, len});
}

static void read_looked(void *user, int status, const struct coord_lock_info *info)
{
	struct fs_call *call = user;
	call->wait = NULL;
	if (status < 0)
		fs_call_error(call, status);
	else
		read_end(call, info);
}

/* What is shared here is shown also while nobody can say who shares it beside. */
static void read_counted(void *user, int status, const struct coord_lock_info *unused)
{
	struct fs_call *call = user;
	call->wait = NULL;
	struct coord_lock_info info;
	const struct fs_holding *holding = fs_handle_holding(call->handle);
	if (holding && fs_holding_lost(holding)) {
		fs_call_error(call, EIO);
		return;
	}
	if (holding)
		info_of_holding(call->fs, holding, &info);
	else if (coord_lock_peek(
			 call->fs->coord, kind_of(call->inode->kind), call->inode->name, &info) < 0)
		info = (struct coord_lock_info){0};
	read_end(call, &info);
}

/* Answers, or first asks who else shares it. */
static void read_whole(struct fs_call *call, const struct coord_lock_info *info)
{
	call->counting = true;
	if (info->partial && coord_lock_look(call->fs->coord, kind_of(call->inode->kind),
				     call->inode->name, read_counted, call, &call->wait) == 0)
		return;
	read_end(call, info);
}

/* The backend may be silent. Not from here, where the coordinator is about to tell others. */
void fs_held_lost(struct fs *fs, const struct fs_holding *holding)
{
	struct fs_call *call;
	coord_list_each (call, &fs->calls, link)
		if (call->counting && fs_handle_holding(call->handle) == holding)
			fs_call_limit(call, 0, EIO);
}

static void read_checked(void *user, int status, const struct coord_row *rows, size_t rows_len)
{
	struct fs_call *call = user;
	call->wait = NULL;
	const struct fs_holding *holding = fs_handle_holding(call->handle);
	struct coord_lock_info info = {0};
	if (holding && fs_holding_lost(holding))
		status = -EIO;
	/* Let go meanwhile by another thread: it holds nothing, and shows nothing. */
	if (status == -EBADF || (status == 0 && !holding)) {
		read_end(call, &info);
		return;
	}
	if (status < 0) {
		fs_call_error(call, status);
		return;
	}
	info_of_holding(call->fs, holding, &info);
	read_whole(call, &info);
}

void fs_held_read(struct fs_call *call)
{
	enum coord_kind kind = kind_of(call->inode->kind);
	const struct fs_holding *holding = fs_handle_holding(call->handle);
	if (holding) {
		int r = fs_holding_lost(holding)
				? -EIO
				: coord_check(holding->held, read_checked, call, &call->wait);
		fs_call_started(call, r);
		return;
	}
	struct coord_lock_info info;
	int r = coord_lock_peek(call->fs->coord, kind, call->inode->name, &info);
	if (r == 0)
		read_whole(call, &info);
	else if (r == -EAGAIN)
		fs_call_started(call, coord_lock_look(call->fs->coord, kind, call->inode->name,
					      read_looked, call, &call->wait));
	else
		fs_call_error(call, r);
}

static void lock_write(fuse_req_t req, struct fs_handle *handle, const char *data, size_t len)
{
	const struct fs_holding *holding = fs_handle_holding(handle);
	if (!holding)
		fuse_reply_err(req, EPERM);
	else if (fs_holding_lost(holding))
		fuse_reply_err(req, EIO);
	else
		fuse_reply_write(req, len);
}

void fs_held_flush(fuse_req_t req, struct fs_handle *handle, uint64_t owner)
{
	fs_flocks_flush(fs_of(req), handle->inode, owner);
	fuse_reply_err(req, 0);
}

static void fsync_checked(void *user, int status, const struct coord_row *rows, size_t rows_len)
{
	struct fs_call *call = user;
	call->wait = NULL;
	const struct fs_holding *holding = fs_handle_holding(call->handle);
	fs_call_error(call, holding && fs_holding_lost(holding) ? -EIO : status);
}

void fs_held_fsync(fuse_req_t req, struct fs_handle *handle)
{
	const struct fs_holding *holding = fs_handle_holding(handle);
	if (holding && fs_holding_lost(holding)) {
		fuse_reply_err(req, EIO);
		return;
	}
	if (!holding && !handle->holding) {
		fuse_reply_err(req, 0);
		return;
	}
	struct fs_call *call = fs_call_new(req, handle->inode, handle);
	if (!call)
		return;
	int r = holding ? coord_check(holding->held, fsync_checked, call, &call->wait)
			: coord_barrier(handle->holding->held, fs_call_reply, call, &call->wait);
	fs_call_started(call, r);
}

/* ---- Extended attributes ---- */

static void reply_token(fuse_req_t req, const struct coord_lock_info *info, size_t size)
{
	char text[24];
	size_t len = (size_t)snprintf(text, sizeof(text), "%" PRIu64, info->token);
	if (!info->held || !info->token)
		fuse_reply_err(req, ENODATA);
	else if (size == 0)
		fuse_reply_xattr(req, len);
	else if (size < len)
		fuse_reply_err(req, ERANGE);
	else
		fuse_reply_buf(req, text, len);
}

static void xattr_looked(void *user, int status, const struct coord_lock_info *info)
{
	struct fs_call *call = user;
	call->wait = NULL;
	if (status < 0) {
		fs_call_error(call, status);
		return;
	}
	reply_token(call->req, info, call->size);
	fs_call_free(call);
}

void fs_held_getxattr(fuse_req_t req, struct fs_inode *inode, const char *name, size_t size)
{
	struct fs *fs = fs_of(req);
	enum coord_kind kind = kind_of(inode->kind);
	struct coord_lock_info info;
	if (strcmp(name, "user.tooz.token") != 0) {
		fuse_reply_err(req, ENODATA);
		return;
	}
	int r = coord_lock_peek(fs->coord, kind, inode->name, &info);
	if (r == 0) {
		reply_token(req, &info, size);
		return;
	}
	struct fs_call *call = fs_call_new(req, inode, NULL);
	if (!call)
		return;
	call->size = size;
	fs_call_started(call,
		coord_lock_look(fs->coord, kind, inode->name, xattr_looked, call, &call->wait));
}

/* ---- rm ---- */

/* Who asks for an rm, and whose the holders here are. */
struct seek {
	uint32_t uid; /* the caller's */
	pid_t sid;
	int32_t lineage[DEPTH_MAX]; /* the caller and its ancestors */
	size_t depth;
	bool own; /* some are of that uid */
	bool shared;
};

static void seek_init(struct seek *seek, const struct fuse_ctx *ctx)
{
	*seek = (struct seek){.uid = ctx->uid, .sid = ctx->pid ? getsid(ctx->pid) : 0};
	for (int32_t pid = ctx->pid; pid > 1 && seek->depth < DEPTH_MAX; pid = fs_parent_of(pid))
		seek->lineage[seek->depth++] = pid;
}

/* Is the caller the taker or opener, its descendant, or in its session? */
static bool same_work(const struct seek *seek, int32_t other)
{
	if (!other || !seek->depth)
		return false;
	for (size_t i = 0; i < seek->depth; i++)
		if (seek->lineage[i] == other)
			return true;
	return seek->sid > 0 && getsid(other) == seek->sid;
}

static bool is_callers(void *user, struct coord_holding *held)
{
	struct seek *seek = user;
	const struct fs_holding *holding = coord_holding_user(held);
	bool own = holding->taker_uid == seek->uid;
	seek->own |= own;
	seek->shared |= coord_holding_mode(held) == COORD_SHARED;
	return own && (same_work(seek, (int32_t)holding->taker_pid) ||
			      same_work(seek, fs_holding_handle(holding)->opener_pid));
}

static bool is_of_caller(void *user, struct coord_holding *held)
{
	const struct fs_holding *holding = coord_holding_user(held);
	return !holding->dropped && holding->taker_uid == ((struct seek *)user)->uid;
}

static void broken(void *user, int status, const struct coord_row *rows, size_t rows_len)
{
	struct fs_call *call = user;
	call->wait = NULL;
	fs_dirs_forget(call->inode->parent, call->inode->name);
	fs_call_error(call, status);
}

static void break_it(fuse_req_t req, struct fs_inode *inode)
{
	struct fs_call *call = fs_call_new(req, inode, NULL);
	if (!call || !fs_call_short(call))
		return;
	fs_call_started(call, coord_lock_break(call->fs->coord, kind_of(inode->kind), inode->name,
				      broken, call, &call->wait));
}

void fs_held_unlink(fuse_req_t req, struct fs_inode *dir, const char *file)
{
	struct fs *fs = fs_of(req);
	char buf[COORD_NAME_MAX + 1];
	struct coord_bytes name;
	int r = fs_name_decode(file, false, buf, &name);
	if (r == 0 && fs->options.read_only)
		r = -EROFS;
	if (r < 0) {
		fuse_reply_err(req, -r);
		return;
	}
	struct seek seek;
	seek_init(&seek, fuse_req_ctx(req));
	struct coord_holding *held =
		coord_lock_holders(fs->coord, kind_of(dir->kind), name, is_callers, &seek);
	if (held) {
		fs_flocks_drop(fs, coord_holding_user(held));
		fuse_reply_err(req, 0);
		return;
	}
	bool any = fs_may_undo(req, UINT32_MAX);
	if (!any && !seek.own) {
		fuse_reply_err(req, EACCES);
		return;
	}
	if (!any && seek.shared) {
		/* The shares of others, here and on other hosts, stay. */
		while ((held = coord_lock_holders(
				fs->coord, kind_of(dir->kind), name, is_of_caller, &seek)))
			fs_flocks_drop(fs, coord_holding_user(held));
		fuse_reply_err(req, 0);
		return;
	}
	struct fs_inode *inode = fs_inode_get(fs, dir, dir->type->child, name);
	if (!inode) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	break_it(req, inode);
	fs_inode_unref(fs, inode);
}

const struct fs_type fs_type_locks = {
	.is_dir = true,
	.child = FS_LOCK,
	.lookup = fs_held_lookup,
	.create = lock_create,
	.unlink = fs_held_unlink,
	.list = fs_held_list,
	.getattr = fs_reply_plain_attr,
};

const struct fs_type fs_type_lock = {
	.lockable = true,
	.lock_kind = COORD_LOCK,
	.mode = fs_file_mode,
	.getattr = fs_held_getattr,
	.setattr = fs_held_setattr,
	.open = fs_held_open,
	.read = fs_held_read,
	.write = lock_write,
	.flush = fs_held_flush,
	.fsync = fs_held_fsync,
	.getxattr = fs_held_getxattr,
};
