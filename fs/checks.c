/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What must be so before a mount is tried; see checks.h.
 */
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <syslog.h>

#include "coord/driver.h"
#include "fs/checks.h"
#include "fs/detach.h"
#include "fs/mountinfo.h"
#include "fs/runfile.h"

#define ANSWER_MS 2000 /* a daemon that lives answers in less */

static char *absolute(const char *dir)
{
	char *text;
	if (*dir == '/')
		return strdup(dir);
	_cleanup_free_ char *cwd = getcwd(NULL, 0);
	if (!cwd || asprintf(&text, "%s/%s", cwd, dir) < 0)
		return NULL;
	return text;
}

/* realpath(3) walks with readlink(2), which a dead or slow tree at the end of the path never hears of; a
 * final slash would ask it. */
char *fs_check_path(const char *dir)
{
	char *path = absolute(dir);
	if (!path)
		return NULL;
	for (size_t len = strlen(path); len > 1 && path[len - 1] == '/'; len--)
		path[len - 1] = '\0';
	char *real = realpath(path, NULL);
	if (!real)
		return path;
	free(path);
	return real;
}

/* ---- The mount point ---- */

bool fs_check_is_tree(const char *path)
{
	struct fs_mountinfo top;
	return fs_mountinfo_top(path, &top) == 0 && !strcmp(top.type, "fuse.tooz");
}

/* Attributes may come from the kernel's cache, so that only statfs(2) shows whether a daemon is there; and
 * it waits for ever for a daemon that is stopped. So a child asks. Returns 0, -ETIMEDOUT or -errno. */
static int ask_daemon(const char *path)
{
	int ends[2], answer = -ETIMEDOUT;
	if (pipe2(ends, O_CLOEXEC))
		return -errno;
	pid_t pid = fork();
	if (pid == 0) {
		struct statfs st;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		answer = statfs(path, &st) ? -errno : 0;
		ssize_t n = write(ends[1], &answer, sizeof(answer));
		while (n != 0) /* until it is killed */
			pause();
	}
	close(ends[1]);
	if (pid > 0) {
		struct pollfd polled = {.fd = ends[0], .events = POLLIN};
		bool answered = poll(&polled, 1, ANSWER_MS) > 0 &&
				read(ends[0], &answer, sizeof(answer)) == sizeof(answer);
		kill(pid, SIGKILL);
		/* One that hangs in the kernel must not hold us too. */
		waitpid(pid, NULL, answered ? 0 : WNOHANG);
	}
	close(ends[0]);
	return pid < 0 ? -EAGAIN : answer;
}

static bool is_dead(int r)
{
	return r == -ENOTCONN || r == -ECONNABORTED;
}

bool fs_check_is_served(const char *path)
{
	return fs_check_is_tree(path) && !is_dead(ask_daemon(path));
}

static int detach_dead(const char *path)
{
	int r = fs_detach(path);
	if (r < 0)
		coord_log(LOG_ERR,
			"%s: the tree there has no daemon any more, and it cannot be unmounted: %s",
			path, strerror(-r));
	else
		coord_log(LOG_WARNING, "%s: detached a tree whose daemon is gone", path);
	return r;
}

/* A daemon that lives is there; r: what it answered. */
static void log_occupied(const char *path, int r)
{
	int32_t pid = r == -ETIMEDOUT ? fs_runfile_daemon(path) : 0;
	if (pid)
		coord_log(LOG_ERR,
			"%s: a tree is mounted there already, and its daemon (pid %d) does not "
			"answer; to end it: kill -9 %d, then mount again",
			path, pid, pid);
	else
		coord_log(LOG_ERR, "%s: a tree is mounted there already%s", path,
			r == -ETIMEDOUT ? ", and its daemon does not answer" : "");
}

int fs_check_mountpoint(const char *path)
{
	for (int i = 0; i < 16 && fs_check_is_tree(path); i++) {
		int r = ask_daemon(path);
		if (!is_dead(r)) {
			log_occupied(path, r);
			return -EBUSY;
		}
		r = detach_dead(path);
		if (r < 0)
			return r;
	}
	struct stat st;
	int r = stat(path, &st) ? -errno : S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
	if (r == -ENOENT)
		coord_log(LOG_ERR, "%s: mount point does not exist", path);
	else if (r < 0)
		coord_log(LOG_ERR, "%s: %s", path, strerror(-r));
	return r;
}

/* ---- The kernel ---- */

static int check_request_timeout(const char *name)
{
	char path[128];
	snprintf(path, sizeof(path), "/proc/sys/fs/fuse/%s", name);
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	char text[32] = "";
	/* Not there: a kernel before 6.15, which has no such limit. */
	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
		return 0;
	unsigned long seconds = strtoul(text, NULL, 10);
	if (seconds == 0)
		return 0;
	coord_log(LOG_ERR,
		"the sysctl fs.fuse.%s is %lu: the kernel would end the whole mount as soon as "
		"somebody waits so many seconds for a lock; set it to 0 "
		"(sysctl fs.fuse.%s=0)",
		name, seconds, name);
	return -EOPNOTSUPP;
}

int fs_check_kernel(void)
{
	int r = check_request_timeout("max_request_timeout");
	return r < 0 ? r : check_request_timeout("default_request_timeout");
}

int fs_check_device(void)
{
	_cleanup_close_ int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (fd >= 0)
		return 0;
	int r = -errno;
	if (r == -EACCES)
		coord_log(LOG_ERR,
			"cannot open /dev/fuse: %s; for users its mode has to be 0666 (root: "
			"chmod 0666 /dev/fuse)",
			strerror(-r));
	else if (r == -EPERM)
		coord_log(LOG_ERR,
			"cannot open /dev/fuse: %s; a container has to be given this device",
			strerror(-r));
	else
		coord_log(LOG_ERR,
			"cannot open /dev/fuse: %s; does this kernel have FUSE (modprobe fuse)?",
			strerror(-r));
	return r;
}

int fs_enter_namespace(const char *name)
{
	char path[PATH_MAX];
	bool pid = *name && !name[strspn(name, "0123456789")];
	snprintf(path, sizeof(path), pid ? "/proc/%s/ns/mnt" : "%s", name);
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 && setns(fd, CLONE_NEWNS) == 0)
		return 0;
	int r = -errno;
	coord_log(LOG_ERR, "mount namespace %s: %s", name, strerror(-r));
	return r;
}

int fs_make_directory(const char *path, unsigned mode)
{
	_cleanup_free_ char *text = strdup(path);
	if (!text)
		return -ENOMEM;
	int r = 0;
	for (char *p = text + 1; r == 0; p++) {
		if (*p && *p != '/')
			continue;
		char kept = *p;
		*p = '\0';
		if (mkdir(text, mode) && errno != EEXIST)
			r = -errno;
		*p = kept;
		if (!kept)
			break;
	}
	if (r < 0)
		coord_log(LOG_ERR, "%s: %s", path, strerror(-r));
	return r;
}
