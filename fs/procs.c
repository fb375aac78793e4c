/* SPDX-License-Identifier: Apache-2.0 */
/* See procs.h. The formats are those of proc(5). */
#include "fs/procs.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "coord/base.h"

/* Reads a file of /proc whole, at most size - 1 bytes. Returns its length or -errno. */
static ssize_t read_file(const char *path, char *buf, size_t size)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	size_t len = 0;
	while (len < size - 1) {
		ssize_t n = read(fd, buf + len, size - 1 - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		len += (size_t)n;
	}
	buf[len] = 0;
	return (ssize_t)len;
}

int fs_trace_read(int32_t pid, struct fs_trace *ret)
{
	char path[64], text[1024];
	snprintf(path, sizeof(path), "/proc/%" PRId32 "/stat", pid);
	ssize_t n = read_file(path, text, sizeof(text));
	if (n < 0)
		return (int)n;
	/* The name in parentheses may hold anything. */
	const char *at = strrchr(text, ')');
	struct fs_trace trace = {.pid = pid};
	if (!at || sscanf(at + 1,
			   " %*c %*d %" SCNd32 " %" SCNd32
			   " %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %" SCNu64,
			   &trace.pgrp, &trace.sid, &trace.start) != 3)
		return -EBADMSG;
	*ret = trace;
	return 0;
}

/* The values of a line of /proc/PID/status, which is read into text; NULL: unknown. The line with the name
 * comes first, and its newlines are escaped. */
static const char *status_line(int32_t pid, const char *key, char *text, size_t size)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/%" PRId32 "/status", pid);
	if (pid <= 0 || read_file(path, text, size) < 0)
		return NULL;
	const char *at = strstr(text, key);
	return at ? at + strlen(key) : NULL;
}

static int32_t status_pid(int32_t pid, const char *key)
{
	char text[4096];
	int32_t ret = 0;
	const char *at = status_line(pid, key, text, sizeof(text));
	return at && sscanf(at, "%" SCNd32, &ret) == 1 ? ret : 0;
}

int32_t fs_process_of(int32_t tid)
{
	return status_pid(tid, "\nTgid:");
}

int32_t fs_parent_of(int32_t pid)
{
	return status_pid(pid, "\nPPid:");
}

bool fs_process_uids(int32_t pid, uint32_t ret_uids[2])
{
	char text[4096];
	const char *at = status_line(pid, "\nUid:", text, sizeof(text));
	return at && sscanf(at, "%" SCNu32 " %" SCNu32, &ret_uids[0], &ret_uids[1]) == 2;
}

uint64_t fs_process_fd_ino(int32_t pid, const char *fd)
{
	static const char anonymous[] = "anon_inode:";
	char path[96], text[512];
	snprintf(path, sizeof(path), "/proc/%" PRId32 "/fd/%.16s", pid, fd);
	ssize_t n = readlink(path, text, sizeof(text));
	/* Of an epoll descriptor fdinfo waits for whoever polls its files. */
	if (n < 0 || ((size_t)n >= sizeof(anonymous) - 1 &&
			     memcmp(text, anonymous, sizeof(anonymous) - 1) == 0))
		return 0;
	snprintf(path, sizeof(path), "/proc/%" PRId32 "/fdinfo/%.16s", pid, fd);
	if (read_file(path, text, sizeof(text)) < 0)
		return 0;
	const char *at = strstr(text, "\nino:");
	return at ? strtoull(at + 5, NULL, 10) : 0;
}
