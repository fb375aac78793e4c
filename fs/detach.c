/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Takes a tree out of the mount table; see detach.h.
 */
#include "fs/detach.h"

#include <spawn.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "coord/base.h"

extern char **environ;

static int fusermount_detach(const char *path)
{
	char *const argv[] = {"fusermount3", "-u", "-z", "-q", (char *)path, NULL};
	pid_t pid;
	int status, r = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);
	if (r)
		return -r;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EPERM;
}

int fs_detach(const char *path)
{
	int r = umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW) ? -errno : 0;
	return r == -EPERM ? fusermount_detach(path) : r;
}
