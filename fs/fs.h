/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tree: FUSE requests on the loop, answered from the coordinator.
 *
 * main.c makes a loop, an fs, a coordinator with fs_notices(), and joins them:
 *
 *   fs_new -> coord_new(loop, config, fs_notices(), fs) -> fs_mount(fs, coord, ...) -> coord_start
 *
 * and waits for both the coordinator's first success and the kernel's INIT (fs_ready) before it tells
 * its parent that the tree answers. At the end: coord_stop, then fs_unmount, then fs_free.
 */
#ifndef FS_FS_H
#define FS_FS_H

#include "coord/coord.h"

struct fs;

struct fs_options {
	uint32_t uid, gid; /* the mount's owner */
	uint32_t umask; /* default 022 */
	bool read_only, allow_other;
	int on_loss; /* a signal, 0: none */
	uint64_t partitions;
	const char *source; /* fsname: the scrubbed URL */
	const char *mountpoint; /* absolute */
	const char *
		fuse_options; /* generic ones for libfuse and mount(8), comma separated; may be NULL */
};

struct fs_events {
	/* Any may be NULL. Called from the loop. */
	void (*coord_ready)(
		void *user, int status, const char *text); /* passed on from the coordinator */
	void (*kernel_ready)(void *user); /* INIT was answered */
	void (*unmounted)(void *user); /* umount(8), abort: the session with the kernel is over */
	void (*coord_stopped)(void *user); /* passed on from the coordinator */
};

/* Copies options. Returns 0 or -errno. */
int fs_new(struct coord_loop *, const struct fs_options *, const struct fs_events *, void *user,
	struct fs **ret);
const struct coord_notices *fs_notices(void); /* their user is the struct fs */
/* Mounts. libfuse and fusermount3 write their own words to standard error. Returns 0 or -errno. */
int fs_mount(struct fs *, struct coord *);
/* Answers every request that still waits, then unmounts. */
void fs_unmount(struct fs *);
/* NULL is allowed. */
void fs_free(struct fs *);

#endif
