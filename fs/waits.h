/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A flock or fcntl request that waits for the coordinator. There may be ten thousand of them.
 */
#ifndef FS_WAITS_H
#define FS_WAITS_H

#include "fs/tree.h"

struct fs_wait {
	struct coord_list link; /* fs->waits */
	struct coord_list of_holding; /* holding->waits */
	struct coord_wait wait;
	struct fs *fs;
	fuse_req_t req;
	struct fs_handle *handle; /* that it came through */
	struct fs_holding *holding;
	struct fs_call *call; /* O_EXCL: the CREATE that it is for; it owns the wait */
	struct fs_uid *uid; /* who is charged for it */
	struct fs_trace *taker; /* with on_loss */
	struct coord_req *join; /* a member that is flocked is being joined */
	uint8_t mode; /* enum coord_mode */
	bool posix, blocking, running, registered, interrupted;
};

/* Ends a wait without an answer. NULL is allowed. */
void fs_wait_drop(struct fs_wait *);

/* flock on a member that is held now: joins it if it is not joined. 0: it is; 1: fn will be called with
 * the wait; -errno. (members.c) */
int fs_member_bind(struct fs_wait *, coord_reply_fn *fn);

#endif
