/* SPDX-License-Identifier: Apache-2.0 */
/* Opening files in a shared directory. See path.h. */
#include "drivers/file/path.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/random.h>

int file_open_dir(int dir, const char *name, bool make)
{
	for (int tries = 0;; tries++) {
		int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (fd >= 0)
			return fd;
		if (errno != ENOENT || !make || tries == 3)
			return -errno;
		if (mkdirat(dir, name, 0777) && errno != EEXIST)
			return -errno;
	}
}

static int open_plain(int dir, const char *name, int flags)
{
	/* O_NONBLOCK: a FIFO must not hang us; it is refused below. */
	int fd = openat(dir, name, flags | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0666);
	if (fd < 0)
		return -errno;
	struct stat st;
	int r = fstat(fd, &st) ? -errno : S_ISREG(st.st_mode) ? 0 : -EINVAL;
	if (r) {
		close(fd);
		return r;
	}
	return fd;
}

int file_open_at(int dir, const char *name, int flags, bool create, bool *ret_made)
{
	/* O_CREAT on a file that exists fails where fs.protected_regular says so, so it comes second. */
	for (int tries = 0;; tries++) {
		int fd = open_plain(dir, name, flags);
		if (fd != -ENOENT || !create || tries == 8) {
			if (ret_made)
				*ret_made = false;
			return fd;
		}
		fd = open_plain(dir, name, flags | O_CREAT | O_EXCL);
		if (fd != -EEXIST) {
			if (ret_made)
				*ret_made = fd >= 0;
			return fd;
		}
	}
}

int file_read_fd(int fd, size_t max, char **ret, size_t *ret_len, struct stat *ret_stat)
{
	struct stat st;
	if (fstat(fd, &st))
		return -errno;
	if (st.st_size < 0 || (uint64_t)st.st_size > max)
		return -EFBIG;
	size_t size = (size_t)st.st_size, len = 0;
	char *data = malloc(size + 1);
	if (!data)
		return -ENOMEM;
	while (len < size) {
		ssize_t n = pread(fd, data + len, size - len, (off_t)len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			int r = -errno;
			free(data);
			return r;
		}
		if (n == 0)
			break;
		len += (size_t)n;
	}
	data[len] = '\0';
	*ret = data;
	*ret_len = len;
	if (ret_stat)
		*ret_stat = st;
	return 0;
}

int file_read_at(
	int dir, const char *name, size_t max, char **ret, size_t *ret_len, struct stat *ret_stat)
{
	_cleanup_close_ int fd = file_open_at(dir, name, O_RDONLY, false, NULL);
	return fd < 0 ? fd : file_read_fd(fd, max, ret, ret_len, ret_stat);
}

int file_write_all(int fd, const void *data, size_t len, off_t at)
{
	const char *bytes = data;
	while (len) {
		ssize_t n = pwrite(fd, bytes, len, at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		bytes += n;
		at += n;
		len -= (size_t)n;
	}
	return 0;
}

static int rename_into(int tmp, const char *from, int dir, const char *to, bool noreplace)
{
	if (!noreplace)
		return renameat(tmp, from, dir, to) ? -errno : 0;
	/* A link refuses to replace, on every file system that has links. */
	if (linkat(tmp, from, dir, to, 0) == 0)
		return unlinkat(tmp, from, 0) ? -errno : 0;
	if (errno != EPERM && errno != EOPNOTSUPP && errno != EMLINK)
		return -errno;
	return renameat2(tmp, from, dir, to, RENAME_NOREPLACE) ? -errno : 0;
}

int file_replace_at(
	int tmp, int dir, const char *name, const void *data, size_t len, bool noreplace)
{
	uint64_t random;
	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return -EIO;
	char from[40];
	snprintf(from, sizeof(from), "%016llxtooz", (unsigned long long)random);
	_cleanup_close_ int fd =
		openat(tmp, from, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
	if (fd < 0)
		return -errno;
	int r = file_write_all(fd, data, len, 0);
	if (!r)
		r = rename_into(tmp, from, dir, name, noreplace);
	if (r)
		unlinkat(tmp, from, 0);
	return r;
}

bool file_same_at(int dir, const char *name, int fd)
{
	struct stat a, b;
	return fstat(fd, &a) == 0 && fstatat(dir, name, &b, AT_SYMLINK_NOFOLLOW) == 0 &&
	       a.st_ino == b.st_ino && a.st_dev == b.st_dev;
}

int file_each(int dir, void *user, int (*fn)(void *user, const char *name))
{
	/* A description of its own: a duplicate would share the position. */
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	DIR *stream = fdopendir(fd);
	if (!stream) {
		close(fd);
		return -ENOMEM;
	}
	int r = 0;
	struct dirent *entry;
	while (!r && (entry = readdir(stream))) {
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			r = fn(user, entry->d_name);
	}
	closedir(stream);
	return r;
}

static int remove_entry(void *user, const char *name)
{
	unlinkat(*(int *)user, name, 0);
	return 0;
}

int file_remove_dir(int dir, const char *name)
{
	_cleanup_close_ int fd = file_open_dir(dir, name, false);
	if (fd < 0)
		return fd;
	file_each(fd, &fd, remove_entry);
	return unlinkat(dir, name, AT_REMOVEDIR) ? -errno : 0;
}
