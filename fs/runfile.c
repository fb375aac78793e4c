/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file that says "a daemon serves this directory"; see runfile.h.
 *
 * Made, then locked, then filled: whoever cleans up may remove it between the first two steps, so that
 * the link count is looked at after the lock is taken. Whoever waits sees only files that are filled.
 */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <syslog.h>

#include "coord/driver.h"
#include "fs/runfile.h"

#define PLACES 4 /* directories to look at */
#define TRIES 100 /* names for one pid: other pid namespaces may share the directory */

struct fs_runfile {
	int fd;
	char path[PATH_MAX];
};

/* The i-th place; false: not for this user. */
static bool place(unsigned i, char ret[PATH_MAX])
{
	uid_t uid = geteuid();
	const char *xdg = getenv("XDG_RUNTIME_DIR");
	int len = -1;
	if (i == 0)
		len = snprintf(ret, PATH_MAX, "/run/toozfs");
	else if (uid == 0)
		return false;
	else if (i == 1 && xdg && *xdg == '/')
		len = snprintf(ret, PATH_MAX, "%s/toozfs", xdg);
	else if (i == 2)
		len = snprintf(ret, PATH_MAX, "/run/user/%u/toozfs", uid);
	else if (i == 3)
		len = snprintf(ret, PATH_MAX, "/tmp/toozfs-%u", uid);
	return len >= 0 && len < PATH_MAX - NAME_MAX - 1;
}

/* Opens it as a directory that only this user can write to; ours: make it if it is not there. */
static int place_open(const char *path, bool ours)
{
	uid_t uid = geteuid();
	if (ours)
		mkdir(path, uid ? 0700 : 0755);
	_cleanup_close_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;
	if (fd < 0 || fstat(fd, &st))
		return -errno;
	if ((st.st_uid != uid && st.st_uid != 0) || (st.st_mode & 022))
		return -EPERM;
	if (ours && st.st_uid != uid)
		return -EPERM;
	int taken = fd;
	fd = -1;
	return taken;
}

/* Removes what killed daemons left. */
static void place_clean(int dir_fd)
{
	int copy = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	if (!dir)
		return;
	for (const struct dirent *entry; (entry = readdir(dir));) {
		if (entry->d_name[0] == '.')
			continue;
		_cleanup_close_ int fd = openat(
			dir_fd, entry->d_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
		if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
			unlinkat(dir_fd, entry->d_name, 0);
	}
	closedir(dir);
}

/* Returns a locked file of that name, or -errno; -EAGAIN: it was removed meanwhile. */
static int file_make(int dir_fd, const char *name, const char *mountpoint)
{
	_cleanup_close_ int fd =
		openat(dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB))
		return errno == EWOULDBLOCK ? -EAGAIN : -errno;
	struct stat st;
	if (fstat(fd, &st))
		return -errno;
	if (st.st_nlink == 0)
		return -EAGAIN;
	size_t len = strlen(mountpoint);
	if (write(fd, mountpoint, len) != (ssize_t)len) {
		unlinkat(dir_fd, name, 0);
		return -EIO;
	}
	int taken = fd;
	fd = -1;
	return taken;
}

static int make_in(const char *path, const char *mountpoint, struct fs_runfile *ret)
{
	_cleanup_close_ int dir_fd = place_open(path, true);
	if (dir_fd < 0)
		return dir_fd;
	place_clean(dir_fd);
	int fd = -EEXIST;
	for (unsigned i = 0; i < TRIES && (fd == -EEXIST || fd == -EAGAIN); i++) {
		char name[64];
		snprintf(name, sizeof(name), "%d.%u", getpid(), i);
		if (snprintf(ret->path, sizeof(ret->path), "%s/%s", path, name) >=
			(int)sizeof(ret->path))
			return -ENAMETOOLONG;
		fd = file_make(dir_fd, name, mountpoint);
	}
	ret->fd = fd;
	return fd < 0 ? fd : 0;
}

static void log_no_file(const char *mountpoint, const char *place, int r)
{
	coord_log(LOG_WARNING,
		"%s: no file about this mount in %s: %s%s; so mount.tooz --wait, and the next "
		"mount there, will not wait for the end of this daemon",
		mountpoint, place, strerror(-r),
		r == -EPERM ? " (it has to be our own, and nobody else may write to it)" : "");
}

int fs_runfile_new(const char *mountpoint, struct fs_runfile **ret)
{
	_cleanup_free_ struct fs_runfile *file = calloc(1, sizeof(*file));
	if (!file)
		return -ENOMEM;
	int r = -ENOENT;
	char path[PATH_MAX] = "/run/toozfs";
	/* Root has the first place alone; others begin after it, for they could not write there. */
	for (unsigned i = geteuid() ? 1 : 0; i < PLACES && r < 0; i++)
		if (place(i, path))
			r = make_in(path, mountpoint, file);
	if (r < 0) {
		log_no_file(mountpoint, path, r);
		return r;
	}
	*ret = file;
	file = NULL;
	return 0;
}

void fs_runfile_free(struct fs_runfile *file)
{
	if (!file)
		return;
	unlink(file->path);
	close(file->fd);
	free(file);
}

/* ---- --wait ---- */

static bool is_about(int fd, const char *mountpoint)
{
	char content[PATH_MAX];
	ssize_t len = pread(fd, content, sizeof(content), 0);
	return len >= 0 && (size_t)len == strlen(mountpoint) &&
	       !memcmp(content, mountpoint, (size_t)len);
}

/* Returns 1; wait false: only if it is held. 0: it was not, or -errno. */
static int wait_for(int fd, bool wait)
{
	while (flock(fd, LOCK_SH | (wait ? 0 : LOCK_NB))) {
		if (errno == EWOULDBLOCK)
			return 1;
		if (errno != EINTR)
			return -errno;
	}
	return wait;
}

struct look {
	const char *mountpoint;
	bool wait;
	unsigned found; /* files; wait false: that are held */
	char name[NAME_MAX + 1]; /* of the last one */
};

/* Returns 0 or -errno. */
static int look_in(const char *path, struct look *look)
{
	_cleanup_close_ int dir_fd = place_open(path, false);
	int copy = dir_fd < 0 ? -1 : openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	if (!dir)
		return 0;
	int r = 0;
	for (const struct dirent *entry; r >= 0 && (entry = readdir(dir));) {
		if (entry->d_name[0] == '.')
			continue;
		_cleanup_close_ int fd = openat(
			dir_fd, entry->d_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
		r = fd >= 0 && is_about(fd, look->mountpoint) ? wait_for(fd, look->wait) : 0;
		if (r <= 0)
			continue;
		look->found++;
		snprintf(look->name, sizeof(look->name), "%s", entry->d_name);
	}
	closedir(dir);
	return r < 0 ? r : 0;
}

static int look_everywhere(struct look *look)
{
	int r = 0;
	for (unsigned i = 0; i < PLACES && r >= 0; i++) {
		char path[PATH_MAX];
		if (place(i, path))
			r = look_in(path, look);
	}
	return r;
}

int fs_runfile_wait(const char *mountpoint)
{
	struct look look = {.mountpoint = mountpoint, .wait = true};
	int r = look_everywhere(&look);
	return r < 0 ? r : look.found > 0;
}

bool fs_runfile_is_held(const char *mountpoint)
{
	struct look look = {.mountpoint = mountpoint};
	return look_everywhere(&look) == 0 && look.found > 0;
}

/* Where the directory is shared with other pid namespaces the number may be another process' here. */
static bool is_daemon(int32_t pid)
{
	char path[64], text[64] = "";
	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd >= 0 && read(fd, text, sizeof(text) - 1) > 0 && strstr(text, "tooz");
}

int32_t fs_runfile_daemon(const char *mountpoint)
{
	struct look look = {.mountpoint = mountpoint};
	if (look_everywhere(&look) < 0 || look.found != 1)
		return 0;
	int32_t pid = atoi(look.name);
	return pid > 1 && pid != getpid() && is_daemon(pid) ? pid : 0;
}
