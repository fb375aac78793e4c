/* SPDX-License-Identifier: Apache-2.0 */
/*
 * groups/: one directory for each group. What lies in a group is in members.c.
 */
#include "fs/tree.h"

/* ---- Who made a group ---- */

/* How many records there are before it is asked first which of their groups are left. */
enum { MADE_MAX = 1024 };

/* A group that was made here: its maker may remove it. Another mount may remove it too, and nobody tells. */
struct made {
	struct coord_node node; /* fs->made; the key is name */
	uint32_t uid;
	bool there; /* made or listed since the sweep began */
	char name[];
};

static struct made *made_find(struct fs *fs, struct coord_bytes name)
{
	struct coord_node *node = coord_table_find(&fs->made, 0, name);
	return node ? coord_container(node, struct made, node) : NULL;
}

static void made_free(struct fs *fs, struct made *made)
{
	if (!made)
		return;
	coord_table_remove(&fs->made, &made->node);
	free(made);
}

static void made_forget(struct fs *fs, struct coord_bytes name)
{
	made_free(fs, made_find(fs, name));
}

static void made_swept(void *user, int status, const struct coord_row *rows, size_t rows_len)
{
	struct fs *fs = user;
	fs->made_sweep = NULL;
	for (const struct coord_row *row = rows; row; row = row->next) {
		struct made *made = made_find(fs, row->name);
		if (made)
			made->there = true;
	}
	struct coord_node *after, *node = coord_table_next(&fs->made, NULL);
	for (; node && status == 0; node = after) {
		struct made *made = coord_container(node, struct made, node);
		after = coord_table_next(&fs->made, node);
		if (!made->there)
			made_free(fs, made);
	}
	fs->made_max = 2 * fs->made.len < MADE_MAX ? MADE_MAX : 2 * fs->made.len;
}

/* Forgets groups that are gone. One listing when their number has doubled since the last. */
static void made_sweep(struct fs *fs)
{
	if (fs->made_sweep || fs->made.len < (fs->made_max ? fs->made_max : MADE_MAX))
		return;
	struct coord_node *node = NULL;
	while ((node = coord_table_next(&fs->made, node)))
		coord_container(node, struct made, node)->there = false;
	coord_group_list(fs->coord, made_swept, fs, &fs->made_sweep);
}

/* Root and the owner need no record. Without memory for it only they may remove the group. */
static void made_add(struct fs *fs, struct coord_bytes name, uint32_t uid)
{
	made_forget(fs, name);
	if (uid == 0 || uid == fs->options.uid)
		return;
	made_sweep(fs);
	struct made *made = malloc(sizeof(*made) + name.len);
	if (!made)
		return;
	*made = (struct made){
		.node = {.key = {made->name, name.len}},
		.uid = uid,
		.there = true,
	};
	memcpy(made->name, name.data, name.len);
	if (coord_table_add(&fs->made, &made->node) < 0)
		free(made);
}

void fs_groups_done(struct fs *fs)
{
	struct coord_node *node;
	coord_req_drop(fs->made_sweep);
	while ((node = coord_table_first(&fs->made)))
		made_free(fs, coord_container(node, struct made, node));
	coord_table_done(&fs->made);
}

/* ---- Calls ---- */

static void reply_group(struct fs_call *call)
{
	struct stat attr;
	fs_attr(call->fs, call->inode, &attr);
	fs_call_entry(call, &attr);
}

/* Decodes a name and begins a call about that group. NULL: answered. */
static struct fs_call *begin(fuse_req_t req, struct fs_inode *dir, const char *file, bool create)
{
	char buf[COORD_NAME_MAX + 1];
	struct coord_bytes name;
	int r = fs_name_decode(file, create, buf, &name);
	if (r < 0) {
		fuse_reply_err(req, -r);
		return NULL;
	}
	struct fs_inode *inode = fs_inode_get(fs_of(req), dir, dir->type->child, name);
	if (!inode) {
		fuse_reply_err(req, ENOMEM);
		return NULL;
	}
	struct fs_call *call = fs_call_new(req, inode, NULL);
	fs_inode_unref(fs_of(req), inode);
	return call;
}

static void looked(void *user, int status, const struct coord_lock_info *unused)
{
	struct fs_call *call = user;
	call->wait = NULL;
	if (status == -ENOENT)
		made_forget(call->fs, call->inode->name);
	if (status < 0)
		fs_call_error(call, status);
	else
		reply_group(call);
}

/* On the way to each member: existence only, never the members, and from a live watch if there is one. */
void fs_groups_lookup(fuse_req_t req, struct fs_inode *dir, const char *file)
{
	struct fs_call *call = begin(req, dir, file, false);
	if (!call)
		return;
	if (fs_dirs_has(req, call->inode) || fs_dirs_find(req, dir, call->inode->name) ||
		coord_group_peek(call->fs->coord, call->inode->name) == 0) {
		reply_group(call);
		return;
	}
	int r = coord_group_look(call->fs->coord, call->inode->name, looked, call, &call->wait);
	fs_call_started(call, r == -EINVAL ? -ENOENT : r);
}

/* In each directory that has an entry for each group. */
static void forget_entries(struct fs *fs, struct coord_bytes name)
{
	fs_dirs_forget(fs->fixed[FS_GROUPS], name);
	fs_dirs_forget(fs->fixed[FS_EVENTS], name);
	fs_dirs_forget(fs->fixed[FS_RINGS], name);
}

static void made_group(void *user, int status, const struct coord_row *rows, size_t rows_len)
{
	struct fs_call *call = user;
	call->wait = NULL;
	forget_entries(call->fs, call->inode->name);
	if (status < 0) {
		fs_call_error(call, status);
		return;
	}
	made_add(call->fs, call->inode->name, call->uid);
	reply_group(call);
}

static void groups_mkdir(fuse_req_t req, struct fs_inode *dir, const char *file)
{
	if (fs_of(req)->options.read_only) {
		fuse_reply_err(req, EROFS);
		return;
	}
	struct fs_call *call = begin(req, dir, file, true);
	if (!call || !fs_call_short(call))
		return;
	fs_call_started(call, coord_group_create(call->fs->coord, call->inode->name, made_group,
				      call, &call->wait));
}

static void removed_group(void *user, int status, const struct coord_row *rows, size_t rows_len)
{
	struct fs_call *call = user;
	call->wait = NULL;
	forget_entries(call->fs, call->inode->name);
	if (status == 0) {
		made_forget(call->fs, call->inode->name);
		/* The kernel marks the inode of a removed directory dead; a new group is another. */
		fs_inode_unhash(call->fs, call->inode);
	}
	fs_call_error(call, status);
}

static void remove_group(struct fs_call *call)
{
	fs_call_changing(call);
	fs_call_started(call, coord_group_delete(call->fs->coord, call->inode->name, removed_group,
				      call, &call->wait));
}

static void groups_rmdir(fuse_req_t req, struct fs_inode *dir, const char *file)
{
	if (fs_of(req)->options.read_only) {
		fuse_reply_err(req, EROFS);
		return;
	}
	struct fs_call *call = begin(req, dir, file, false);
	if (!call)
		return;
	const struct made *made = made_find(call->fs, call->inode->name);
	if (!fs_may_undo(req, made ? made->uid : UINT32_MAX)) {
		fs_call_error(call, EACCES);
		return;
	}
	fs_call_after_changes(call, call->inode, remove_group);
}

static void listed(void *user, int status, const struct coord_row *rows, size_t rows_len)
{
	struct fs_call *call = user;
	call->wait = NULL;
	if (status < 0)
		fs_call_error(call, status);
	else
		fs_dirs_filled(call, rows, 0);
}

void fs_groups_list(struct fs_call *call)
{
	fs_call_started(call, coord_group_list(call->fs->coord, listed, call, &call->wait));
}

/* rm of a directory is rmdir's business; there are no files here. */
static void groups_unlink(fuse_req_t req, struct fs_inode *dir, const char *file)
{
	fuse_reply_err(req, EISDIR);
}

const struct fs_type fs_type_groups = {
	.is_dir = true,
	.child = FS_GROUP,
	.lookup = fs_groups_lookup,
	.mkdir = groups_mkdir,
	.rmdir = groups_rmdir,
	.unlink = groups_unlink,
	.list = fs_groups_list,
	.getattr = fs_reply_plain_attr,
};
