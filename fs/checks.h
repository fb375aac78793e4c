/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What must be so before a mount is tried, each with words that say what to do about it.
 */
#ifndef FS_CHECKS_H
#define FS_CHECKS_H

#include "coord/base.h"

/* Each returns 0, or -errno after the reason was logged. */

/* Absolute, without symbolic links and final slashes; owned by the caller. Asks nothing of what is mounted
 * there. A path that is not there is made absolute as it is. NULL, with errno: cannot be made so. */
char *fs_check_path(const char *dir);
/* Is a tree mounted there, dead or alive? Asks nothing of it. */
bool fs_check_is_tree(const char *path);
/* Is a tree mounted there that has a daemon? One that does not answer in 2 s counts. */
bool fs_check_is_served(const char *path);
/* A directory; a dead tree that is still mounted there is detached, a live one refused. */
int fs_check_mountpoint(const char *path);
/* The kernel lets requests wait for as long as they like. */
int fs_check_kernel(void);
/* /dev/fuse can be opened. */
int fs_check_device(void);
/* Enters a mount namespace, named by a pid or a path. */
int fs_enter_namespace(const char *name);
/* Makes a directory and its parents. */
int fs_make_directory(const char *path, unsigned mode);

#endif
