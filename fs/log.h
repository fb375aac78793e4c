/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the lines of coord_log() go: first to standard error, as a command's words, and at once; those of a
 * running daemon by a thread of its own, so that nobody who does not read them holds up the loop.
 */
#ifndef FS_LOG_H
#define FS_LOG_H

#include "coord/base.h"

/* To standard error, written when it is said. */
void fs_log_init(bool verbose, bool foreground);

/* From here on the thread writes: to standard error in the foreground, else to syslog with mountpoint (copied)
 * before each line. After the last fork, and once. Returns -ENOMEM or -EAGAIN, and then nothing has changed. */
int fs_log_start(const char *mountpoint, bool foreground);

/* Writes what is left, for a second at most, and ends the thread if it was started. What is logged after that
 * is lost. */
void fs_log_stop(void);

#endif
