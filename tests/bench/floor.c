/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The floor of the benchmarks: a file system with the shape of the tree and nothing behind it.
 *
 * It has locks/l and groups/g/m0 ... m<members-1>, grants every flock at once, and runs libfuse's own
 * single-threaded loop. The kernel may keep its directories, and nothing else. Whatever the tree costs
 * above this is ours; so is that the tree is asked about groups/g on each path, because a group may be
 * gone, and the floor is not.
 *
 *   floor DIR [MEMBERS]      serves DIR in the foreground until it is unmounted or gets SIGTERM
 */
#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

/* Inodes: the fixed ones, then one a member. */
enum { INO_ROOT = FUSE_ROOT_ID, INO_LOCKS, INO_GROUPS, INO_GROUP, INO_LOCK, INO_MEMBER };

#define DIR_TIMEOUT_S 86400.0

static unsigned members = 10000;
static char *listing; /* of INO_GROUP, in the kernel's format; the snapshot of every opendir */
static size_t listing_len;

static bool is_dir(fuse_ino_t ino)
{
	return ino < INO_LOCK;
}

static double timeout_of(fuse_ino_t ino)
{
	return is_dir(ino) ? DIR_TIMEOUT_S : 0.0;
}

static bool attributes(fuse_ino_t ino, struct stat *ret)
{
	if (ino >= (fuse_ino_t)INO_MEMBER + members)
		return false;
	*ret = (struct stat){.st_ino = ino, .st_nlink = 1};
	ret->st_mode = is_dir(ino) ? S_IFDIR | 0755 : S_IFREG | 0644;
	ret->st_size = is_dir(ino) ? 0 : 5;
	return true;
}

static fuse_ino_t child_of(fuse_ino_t parent, const char *name)
{
	if (parent == INO_ROOT && !strcmp(name, "locks"))
		return INO_LOCKS;
	if (parent == INO_ROOT && !strcmp(name, "groups"))
		return INO_GROUPS;
	if (parent == INO_GROUPS && !strcmp(name, "g"))
		return INO_GROUP;
	if (parent == INO_LOCKS && !strcmp(name, "l"))
		return INO_LOCK;
	if (parent != INO_GROUP || name[0] != 'm')
		return 0;
	unsigned long i = strtoul(name + 1, NULL, 10);
	return i < members ? INO_MEMBER + i : 0;
}

static int find(fuse_ino_t parent, const char *name, struct fuse_entry_param *ret)
{
	*ret = (struct fuse_entry_param){.ino = child_of(parent, name)};
	if (ret->ino == 0)
		return -ENOENT;
	attributes(ret->ino, &ret->attr);
	ret->attr_timeout = ret->entry_timeout = timeout_of(ret->ino);
	return 0;
}

static void floor_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_entry_param entry;
	int r = find(parent, name, &entry);

	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_entry(req, &entry);
}

static void floor_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;

	if (!attributes(ino, &st))
		fuse_reply_err(req, ENOENT);
	else
		fuse_reply_attr(req, &st, timeout_of(ino));
}

static void floor_setattr(
	fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
	floor_getattr(req, ino, fi);
}

static void floor_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	fi->direct_io = 1;
	fuse_reply_open(req, fi);
}

static void floor_create(
	fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
	struct fuse_entry_param entry;
	int r = find(parent, name, &entry);

	fi->direct_io = 1;
	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_create(req, &entry, fi);
}

static void floor_read(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	static const char content[] = "floor";

	fuse_reply_buf(req, off == 0 ? content : NULL, off == 0 && size >= 5 ? 5 : 0);
}

static void floor_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
	struct fuse_file_info *fi)
{
	fuse_reply_write(req, size);
}

static void floor_done(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	fuse_reply_err(req, 0);
}

static void floor_flock(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, int op)
{
	fuse_reply_err(req, 0);
}

static void floor_readdir(
	fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
	size_t from = (size_t)off, to = from;

	if (ino != INO_GROUP || from >= listing_len) {
		fuse_reply_buf(req, NULL, 0);
		return;
	}
	/* Whole entries only: each begins with its inode, offset and name length. */
	while (to < listing_len) {
		uint32_t name_len;
		memcpy(&name_len, listing + to + 16, sizeof(name_len));
		size_t len = (24 + (size_t)name_len + 7) & ~(size_t)7;
		if (to + len - from > size)
			break;
		to += len;
	}
	fuse_reply_buf(req, listing + from, to - from);
}

static void floor_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	fuse_reply_err(req, EEXIST);
}

/* One listing for everybody, as an empty file system has nothing to take a snapshot of. */
static int listing_make(void)
{
	size_t room = (size_t)members * 48;

	listing = malloc(room);
	if (!listing)
		return -ENOMEM;
	for (unsigned i = 0; i < members; i++) {
		char name[16];
		struct stat st = {.st_ino = INO_MEMBER + i, .st_mode = S_IFREG};
		snprintf(name, sizeof(name), "m%u", i);
		size_t len = fuse_add_direntry(NULL, NULL, 0, name, NULL, 0);
		fuse_add_direntry(NULL, listing + listing_len, room - listing_len, name, &st,
			(off_t)(listing_len + len));
		listing_len += len;
	}
	return 0;
}

static const struct fuse_lowlevel_ops floor_ops = {
	.lookup = floor_lookup,
	.getattr = floor_getattr,
	.setattr = floor_setattr,
	.open = floor_open,
	.create = floor_create,
	.read = floor_read,
	.write = floor_write,
	.flush = floor_done,
	.release = floor_done,
	.flock = floor_flock,
	.opendir = floor_open,
	.readdir = floor_readdir,
	.releasedir = floor_done,
	.mkdir = floor_mkdir,
};

int main(int argc, char **argv)
{
	char *fuse_argv[] = {argv[0], "-o", "fsname=floor,subtype=floor"};
	struct fuse_args args = FUSE_ARGS_INIT(3, fuse_argv);

	if (argc > 2)
		members = (unsigned)strtoul(argv[2], NULL, 10);
	if (argc < 2 || listing_make() < 0)
		return 2;
	struct fuse_session *se = fuse_session_new(&args, &floor_ops, sizeof(floor_ops), NULL);
	if (!se || fuse_set_signal_handlers(se) < 0)
		return 1;
	if (fuse_session_mount(se, argv[1]) < 0)
		return 1;
	int r = fuse_session_loop(se);
	fuse_session_unmount(se);
	fuse_remove_signal_handlers(se);
	fuse_session_destroy(se);
	free(listing);
	return r < 0;
}
