/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening files in a directory that others write too: no symbolic link is followed, nothing but
 * regular files and directories is opened, nothing is read without a limit. 0 or -errno.
 */
#ifndef DRIVERS_FILE_PATH_H
#define DRIVERS_FILE_PATH_H

#include <fcntl.h>
#include <sys/stat.h>

#include "coord/base.h"

/* Opens a directory below dir; make: makes it if there is none. Returns a descriptor. */
int file_open_dir(int dir, const char *name, bool make);
/* Opens a regular file. With create it is made if there is none (and *ret_made, if not NULL). */
int file_open_at(int dir, const char *name, int flags, bool create, bool *ret_made);
/* Reads a whole file of at most max bytes. -EFBIG: it is larger. */
int file_read_at(
	int dir, const char *name, size_t max, char **ret, size_t *ret_len, struct stat *ret_stat);
int file_read_fd(int fd, size_t max, char **ret, size_t *ret_len, struct stat *ret_stat);
int file_write_all(int fd, const void *data, size_t len, off_t at);
/* Writes a file in the directory tmp and renames it to dir/name. noreplace: -EEXIST if there is one. */
int file_replace_at(
	int tmp, int dir, const char *name, const void *data, size_t len, bool noreplace);
/* Is fd the regular file dir/name? */
bool file_same_at(int dir, const char *name, int fd);
/* Removes what lies in a directory (no deeper) and then the directory. */
int file_remove_dir(int dir, const char *name);
/* Calls fn for each entry but . and .. until it returns other than 0, which is passed on. */
int file_each(int dir, void *user, int (*fn)(void *user, const char *name));

#endif
