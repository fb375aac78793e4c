/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The object that is the tree, and what the coordinator tells it.
 */
#include "fs/tree.h"

#include <syslog.h>

static void notice_ready(void *user, int status, const char *text)
{
	struct fs *fs = user;
	if (fs->events.coord_ready)
		fs->events.coord_ready(fs->user, status, text);
}

static void notice_state(void *user, enum coord_state state)
{
	coord_log(state == COORD_LOST || state == COORD_SUSPENDED ? LOG_WARNING : LOG_INFO,
		"the session is %s", coord_state_name(state));
	fs_about_changed(user);
}

/* Its handles answer EIO from now on, whoever polls is woken, and who asked for it is signalled. */
static void notice_lost(void *user, struct coord_holding *held)
{
	struct fs *fs = user;
	struct fs_holding *holding = coord_holding_user(held);
	fs_dirs_forget(holding->inode->parent, holding->inode->name);
	fs_holding_notify(holding);
	fs_held_lost(fs, holding);
	fs_onloss_signal(fs, holding);
}

static void notice_stopped(void *user)
{
	struct fs *fs = user;
	if (fs->events.coord_stopped)
		fs->events.coord_stopped(fs->user);
}

const struct coord_notices *fs_notices(void)
{
	static const struct coord_notices notices = {
		.ready = notice_ready,
		.state = notice_state,
		.lost = notice_lost,
		.stopped = notice_stopped,
	};
	return &notices;
}

static char *copy(const char *text)
{
	return strdup(text ? text : "");
}

int fs_new(struct coord_loop *loop, const struct fs_options *options,
	const struct fs_events *events, void *user, struct fs **ret)
{
	struct fs *fs = calloc(1, sizeof(*fs));
	if (!fs)
		return -ENOMEM;
	fs->loop = loop;
	fs->options = *options;
	fs->source = copy(options->source);
	fs->mountpoint = copy(options->mountpoint);
	fs->fuse_options = copy(options->fuse_options);
	fs->events = *events;
	fs->user = user;
	fs->started_us = coord_utc_us(loop);
	fs->changes = 1;
	coord_list_init(&fs->unhashed);
	coord_list_init(&fs->calls);
	coord_list_init(&fs->waits);
	coord_list_init(&fs->uids);
	coord_list_init(&fs->rings_used);
	if (!fs->source || !fs->mountpoint || !fs->fuse_options || fs_inodes_init(fs) < 0) {
		fs_free(fs);
		return -ENOMEM;
	}
	*ret = fs;
	return 0;
}

/* The inode outlives its handles here: the last one may free it. */
static void sweep_inode(struct fs *fs, struct fs_inode *inode)
{
	for (bool last = false; !last;) {
		last = inode->opens.next->next == &inode->opens;
		fs_handle_free(fs, coord_container(inode->opens.next, struct fs_handle, link));
	}
}

static struct fs_inode *find_open(struct fs *fs)
{
	struct fs_inode *inode;
	for (struct coord_node *node = NULL; (node = coord_table_next(&fs->inodes, node));) {
		inode = coord_container(node, struct fs_inode, node);
		if (!coord_list_empty(&inode->opens))
			return inode;
	}
	coord_list_each (inode, &fs->unhashed, link)
		if (!coord_list_empty(&inode->opens))
			return inode;
	return NULL;
}

/* Handles whose RELEASE never came: an umount drops those that were queued. */
static void sweep_handles(struct fs *fs)
{
	struct fs_inode *inode;
	while ((inode = find_open(fs)))
		sweep_inode(fs, inode);
}

void fs_free(struct fs *fs)
{
	if (!fs)
		return;
	fs->over = true;
	fs_waits_end(fs, -ESHUTDOWN);
	fs_calls_end(fs, -ESHUTDOWN);
	sweep_handles(fs);
	fs_onloss_free(fs);
	fs_session_free(fs);
	fs_groups_done(fs);
	fs_rings_done(fs);
	fs_uids_done(fs);
	coord_table_done(&fs->owners);
	coord_table_done(&fs->readers);
	fs_inodes_done(fs);
	free(fs->source);
	free(fs->mountpoint);
	free(fs->fuse_options);
	free(fs);
}
