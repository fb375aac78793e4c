/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What /proc/self/mountinfo says about a mount point. Asks nothing of what is mounted there, which may be
 * dead, or ourselves.
 */
#ifndef FS_MOUNTINFO_H
#define FS_MOUNTINFO_H

struct fs_mountinfo {
	char device[32]; /* "0:45", which no other file system has as long as that one lives */
	char type[64]; /* "fuse.tooz" */
	unsigned user; /* who mounted it, as FUSE says; 0: root, or not said */
};

/* The mount that lies on top at path, which is absolute and without symbolic links. Returns 0, -ENOENT:
 * nothing is mounted there, or -errno. */
int fs_mountinfo_top(const char *path, struct fs_mountinfo *ret);

#endif
