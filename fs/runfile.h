/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file that says "a daemon serves this directory", for mount.tooz --wait.
 *
 * umount(8) returns before the daemon has released its locks and ended. The daemon therefore keeps, from
 * before its mount until it has let go of everything, a small file locked with flock(2): in /run/toozfs
 * for root, else in $XDG_RUNTIME_DIR/toozfs, /run/user/UID/toozfs or /tmp/toozfs-UID, the first that works.
 * Its content is the mount point. Whoever waits takes the lock shared. A daemon that was killed lets
 * the lock go too; the next one removes the file that is left.
 */
#ifndef FS_RUNFILE_H
#define FS_RUNFILE_H

#include "coord/base.h"

struct fs_runfile;

/* Makes and locks the file. Call it in the daemon itself, after fork. Returns 0, or -errno after the reason
 * was logged. */
int fs_runfile_new(const char *mountpoint, struct fs_runfile **ret);
/* Removes it, which ends every wait. NULL is allowed. */
void fs_runfile_free(struct fs_runfile *);

/* Returns when every daemon that served the mount point at the time of the call has ended: 1, 0 where no
 * file tells of one, or -errno. */
int fs_runfile_wait(const char *mountpoint);
/* Does a daemon serve the mount point, or still end? Our own file, once made, counts too. */
bool fs_runfile_is_held(const char *mountpoint);
/* The daemon that serves the mount point, or still ends; 0: there are none or several, or it cannot be said. */
int32_t fs_runfile_daemon(const char *mountpoint);

#endif
