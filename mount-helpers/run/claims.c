/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Taking one thing: a lock, a leadership, a membership.
 *
 * Everything is a handle that holds until it is closed (docs/tree.md). Before that it is made sure that the
 * file is where a handle means what it should: where no tree is mounted, flock(2) would lock this host
 * alone, and nobody would be told.
 */
#include "mount-helpers/run/run.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

static const struct place {
	const char *root, *folder, *name;
} places[] = {
	[CLAIM_LOCK] = {"..", "locks", "a lock"},
	[CLAIM_LEADER] = {"..", "leaders", "a leadership"},
	[CLAIM_MEMBER] = {"../..", "groups", "a member of a group"},
};

/* ---- Where it is ---- */

static int open_folder(const char *path)
{
	char *copy = strdup(path);
	if (!copy)
		return -1;
	int fd = open(dirname(copy), O_PATH | O_DIRECTORY | O_CLOEXEC);
	int code = errno;
	free(copy);
	errno = code;
	return fd;
}

static void say_misplaced(const struct claim *claim)
{
	const struct place *place = &places[claim->kind];
	say("%s: is not %s: not below %s/ of a mounted tree", claim->path, place->name,
		place->folder);
}

/* The folder is not there. Where the path names one that every tree has, that tells more. */
static void say_missing(const struct claim *claim)
{
	char *copy = strdup(claim->path), *folder = copy ? dirname(copy) : NULL;
	if (folder && claim->kind == CLAIM_MEMBER)
		folder = dirname(folder);
	bool missing = folder && access(folder, F_OK) < 0 && errno == ENOENT;
	if (!folder || strcmp(basename(folder), places[claim->kind].folder) != 0)
		say_misplaced(claim);
	else if (!missing && claim->kind == CLAIM_MEMBER)
		say("%s: there is no such group", claim->path);
	else
		say("%s: no tree is mounted there", claim->path);
	free(copy);
}

static bool is_same(int fd, const char *a, const char *b)
{
	struct stat x, y;
	return fstatat(fd, a, &x, 0) == 0 && fstatat(fd, b, &y, 0) == 0 && x.st_dev == y.st_dev &&
	       x.st_ino == y.st_ino;
}

/* Is the folder of this kind, of a tree of ours? */
static bool is_in_place(int folder, const struct place *place)
{
	char path[64];
	struct statfs fs;
	snprintf(path, sizeof(path), "%s/%s", place->root, place->folder);
	return fstatfs(folder, &fs) == 0 && fs.f_type == FUSE_SUPER_MAGIC &&
	       is_same(folder, place->root[2] ? ".." : ".", path);
}

int claim_session(const struct claim *claim)
{
	char path[64];
	const struct place *place = &places[claim->kind];
	int folder = open_folder(claim->path);
	if (folder < 0) {
		if (errno == ENOENT)
			say_missing(claim);
		else
			say("%s: %s", claim->path, strerror(errno));
		return -1;
	}
	snprintf(path, sizeof(path), "%s/.tooz/session", place->root);
	bool in_place = is_in_place(folder, place);
	int fd = in_place ? openat(folder, path, O_RDONLY | O_CLOEXEC) : -1;
	int code = in_place ? errno : ENOENT;
	close(folder);
	if (fd < 0 && code == ENOENT)
		say_misplaced(claim);
	else if (fd < 0)
		say("%s: %s", claim->path, strerror(code));
	return fd;
}

int claim_state(const struct claim *claim, char *ret, size_t size)
{
	char path[64];
	int folder = open_folder(claim->path);
	if (folder < 0)
		return -errno;
	snprintf(path, sizeof(path), "%s/.tooz/state", places[claim->kind].root);
	int fd = openat(folder, path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, ret, size - 1);
	int code = errno;
	if (fd >= 0)
		close(fd);
	close(folder);
	if (n < 0)
		return -code;
	ret[n] = 0;
	ret[strcspn(ret, "\n")] = 0;
	return 0;
}

/* ---- Taking it ---- */

/* What was opened so far, in whatever spelling. */
static struct {
	dev_t device;
	ino_t inode;
} opened[CLAIMS_MAX];
static size_t opened_len;

/* It would wait for itself. */
static int refuse_twice(const struct claim *claim, int fd, int *ret_code)
{
	struct stat attr;
	*ret_code = EXIT_FAILED;
	if (fstat(fd, &attr) < 0 || opened_len == CLAIMS_MAX) {
		say("%s: %s", claim->path, strerror(errno));
		return -1;
	}
	for (size_t i = 0; i < opened_len; i++)
		if (opened[i].device == attr.st_dev && opened[i].inode == attr.st_ino) {
			say("%s: the same twice", claim->path);
			return -1;
		}
	opened[opened_len].device = attr.st_dev;
	opened[opened_len++].inode = attr.st_ino;
	return 0;
}

static int failed(const struct claim *claim, const char *what, int *ret_code)
{
	const char *why = strerror(errno);
	if (errno == ENOLCK)
		why = "the backend cannot be asked now, or too many wait";
	if (errno == ENOENT && claim->kind != CLAIM_LOCK)
		why = "there is no such group";
	if (errno == EACCES && claim->kind == CLAIM_MEMBER)
		why = "no permission, or joined by another mount";
	say("%s: %s: %s", claim->path, what, why);
	*ret_code = EXIT_FAILED;
	return -1;
}

static int take_flock(
	const struct options *options, const struct claim *claim, int fd, int *ret_code)
{
	int operation = claim->shared ? LOCK_SH : LOCK_EX;
	if (options->verbose && !options->no_wait)
		say("%s: asking for it", claim->path);
	if (flock(fd, options->no_wait ? operation | LOCK_NB : operation) == 0)
		return 0;
	if (errno != EWOULDBLOCK)
		return failed(claim, "not obtained", ret_code);
	if (options->verbose)
		say("%s: held by another", claim->path);
	*ret_code = options->conflict_code;
	return -1;
}

static int give_caps(const struct claim *claim, int fd, int *ret_code)
{
	size_t len = claim->caps ? strlen(claim->caps) : 0;
	/* What looks like the beginning of a JSON value is not published before fsync. */
	if (!len || (write(fd, claim->caps, len) == (ssize_t)len && fsync(fd) == 0))
		return 0;
	return failed(claim, "not joined", ret_code);
}

/* A member that is not there joins with its capabilities, in one step. One that is there may be held by
 * another process of this host: its turn is waited for before they are changed. */
static int take_member(const struct options *options, const struct claim *claim, int *ret_code)
{
	int fd = open(claim->path, O_RDWR | O_CLOEXEC);
	bool is_new = fd < 0 && errno == ENOENT;
	if (is_new)
		fd = open(claim->path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
	if (fd < 0)
		return failed(claim, "not joined", ret_code);
	int r = refuse_twice(claim, fd, ret_code);
	if (r == 0 && is_new)
		r = give_caps(claim, fd, ret_code);
	if (r == 0)
		r = take_flock(options, claim, fd, ret_code);
	if (r == 0 && !is_new)
		r = give_caps(claim, fd, ret_code);
	if (r < 0)
		close(fd);
	return r < 0 ? -1 : fd;
}

/* What the held handle says, after the backend has confirmed it. */
static int read_token(const struct claim *claim, int fd, uint64_t *ret_token, int *ret_code)
{
	char text[8192] = "\n";
	ssize_t n = pread(fd, text + 1, sizeof(text) - 2, 0);
	if (n < 0)
		return failed(claim, "not obtained", ret_code);
	text[n + 1] = 0;
	const char *at = strstr(text, "\ntoken=");
	*ret_token = at ? strtoull(at + strlen("\ntoken="), NULL, 10) : 0;
	return 0;
}

int claim_take(const struct options *options, const struct claim *claim, uint64_t *ret_token,
	int *ret_code)
{
	*ret_token = 0;
	if (claim->kind == CLAIM_MEMBER)
		return take_member(options, claim, ret_code);
	int fd = open(claim->path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
	if (fd < 0)
		return failed(claim, "not obtained", ret_code);
	int r = refuse_twice(claim, fd, ret_code);
	if (r == 0)
		r = take_flock(options, claim, fd, ret_code);
	if (r == 0 && claim->kind == CLAIM_LOCK)
		r = read_token(claim, fd, ret_token, ret_code);
	if (r < 0)
		close(fd);
	return r < 0 ? -1 : fd;
}
