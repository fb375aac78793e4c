/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Takes a tree out of the mount table whose connection has ended.
 */
#ifndef FS_DETACH_H
#define FS_DETACH_H

/* What is mounted on top at path, whoever uses it, by fusermount3 where we may not. Returns 0 or -errno. */
int fs_detach(const char *path);

#endif
