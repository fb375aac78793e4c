/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tree asks of processes, by /proc.
 *
 * Some looks at a process that hangs in execve(2), or in a call on another FUSE mount whose daemon does not
 * answer, hang as well. "May hang" below means such a look: never on the loop, unless it is a look at who
 * made the request that is being answered; elsewhere with a time limit (attempt.h).
 */
#ifndef FS_PROCS_H
#define FS_PROCS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What is remembered of a process. */
struct fs_trace {
	int32_t pid, pgrp, sid;
	uint32_t uid;
	uint64_t start;
};

/* All but the uid. May hang. Returns 0 or -errno. */
int fs_trace_read(int32_t pid, struct fs_trace *ret);

/* The process of a thread, or its parent; 0: unknown. */
int32_t fs_process_of(int32_t tid);
int32_t fs_parent_of(int32_t pid);
/* Its real and its effective user. */
bool fs_process_uids(int32_t pid, uint32_t ret_uids[2]);

/* The number of the inode that a descriptor is of, whatever file system it is in; 0: unknown, or none. May hang. */
uint64_t fs_process_fd_ino(int32_t pid, const char *fd);

#endif
