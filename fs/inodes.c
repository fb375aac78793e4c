/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inodes: a kind, a parent and a name. What they show is asked of the coordinator each time; an inode
 * only keeps its identity, so that every incarnation of a lock has one number, and handles find each
 * other.
 *
 * A node id is the inode's address: the kernel forgets it before it is freed. st_ino is a hash of
 * the path and the same on every mount; /proc/PID/fdinfo shows it.
 */
#include "fs/tree.h"

#include <assert.h>

/* Attributes of directories never change; names of fixed ones neither. */
#define FOREVER_S 86400.0
/* The attributes that a member's LOOKUP found serve the system call that asked: the kernel rounds this
 * up to a tick, and else sends a GETATTR behind each LOOKUP, a second round trip for the same row.
 * What is written here ends it, and each path is looked up again. A lock has none, as flock on it
 * changes what fstat shows. */
#define LOOKED_S 0.001

/* FNV-1a (Fowler, Noll, Vo), 64 bits. */
static uint64_t hash_bytes(uint64_t hash, const void *data, size_t len)
{
	const unsigned char *at = data;
	for (size_t i = 0; i < len; i++)
		hash = (hash ^ at[i]) * 0x100000001b3;
	return hash;
}

uint64_t fs_inode_hash(const struct fs_inode *parent, enum fs_kind kind, struct coord_bytes name)
{
	unsigned char what = (unsigned char)kind;
	uint64_t hash = parent ? parent->ino : 0xcbf29ce484222325;
	hash = hash_bytes(hash, &what, 1);
	hash = hash_bytes(hash, name.data, name.len);
	/* Final mixing, and never a number that means something (0, the root's 1). */
	hash ^= hash >> 32;
	return hash > FUSE_ROOT_ID ? hash : hash + 2;
}

static const struct fs_type *const types[FS_KINDS] = {
	[FS_ROOT] = &fs_type_root,
	[FS_GROUPS] = &fs_type_groups,
	[FS_LEADERS] = &fs_type_leaders,
	[FS_LOCKS] = &fs_type_locks,
	[FS_EVENTS] = &fs_type_events,
	[FS_RINGS] = &fs_type_rings,
	[FS_ABOUT] = &fs_type_about,
	[FS_GROUP] = &fs_type_group,
	[FS_RING] = &fs_type_ring,
	[FS_MEMBER] = &fs_type_member,
	[FS_LEADER] = &fs_type_leader,
	[FS_LOCK] = &fs_type_lock,
	[FS_EVENT] = &fs_type_event,
	[FS_OBJECT] = &fs_type_object,
	[FS_FACT] = &fs_type_fact,
};

struct key {
	struct fs_inode *parent;
	char name[COORD_NAME_MAX + 1];
};

static struct coord_bytes make_key(
	struct key *key, struct fs_inode *parent, struct coord_bytes name)
{
	assert(name.len <= sizeof(key->name));
	key->parent = parent;
	memcpy(key->name, name.data, name.len);
	return (struct coord_bytes){(const char *)key, offsetof(struct key, name) + name.len};
}

struct fs_inode *fs_inode_find(
	struct fs *fs, struct fs_inode *parent, enum fs_kind kind, struct coord_bytes name)
{
	struct key key;
	struct coord_node *node = coord_table_find(&fs->inodes, kind, make_key(&key, parent, name));
	return node ? coord_container(node, struct fs_inode, node) : NULL;
}

struct fs_inode *fs_inode_get(
	struct fs *fs, struct fs_inode *parent, enum fs_kind kind, struct coord_bytes name)
{
	struct fs_inode *inode = fs_inode_find(fs, parent, kind, name);
	if (inode)
		return fs_inode_ref(inode);
	size_t key_len = sizeof(parent) + name.len;
	inode = calloc(1, sizeof(*inode) + key_len);
	if (!inode)
		return NULL;
	memcpy(inode->key, &parent, sizeof(parent));
	memcpy(inode->key + sizeof(parent), name.data, name.len);
	inode->node.key = (struct coord_bytes){inode->key, key_len};
	inode->node.kind = kind;
	if (coord_table_add(&fs->inodes, &inode->node) < 0) {
		free(inode);
		return NULL;
	}
	inode->hashed = true;
	inode->fs = fs;
	inode->name = (struct coord_bytes){inode->key + sizeof(parent), name.len};
	inode->type = types[kind];
	inode->kind = kind;
	inode->parent = parent ? fs_inode_ref(parent) : NULL;
	inode->ino = parent ? fs_inode_hash(parent, kind, name) : FUSE_ROOT_ID;
	inode->seen_us = coord_utc_us(fs->loop);
	inode->refs = 1;
	coord_list_init(&inode->link);
	coord_list_init(&inode->opens);
	coord_list_init(&inode->blocked);
	return inode;
}

struct fs_inode *fs_inode_ref(struct fs_inode *inode)
{
	inode->refs++;
	return inode;
}

void fs_inode_unhash(struct fs *fs, struct fs_inode *inode)
{
	if (!inode->hashed)
		return;
	coord_table_remove(&fs->inodes, &inode->node);
	inode->hashed = false;
	coord_list_add(&fs->unhashed, &inode->link);
}

static void inode_check(struct fs *fs, struct fs_inode *inode)
{
	while (inode && !inode->refs && !inode->lookups) {
		struct fs_inode *parent = inode->parent;
		assert(coord_list_empty(&inode->opens) && coord_list_empty(&inode->blocked));
		fs_inode_unhash(fs, inode);
		coord_list_remove(&inode->link);
		free(inode);
		if (parent)
			parent->refs--;
		inode = parent;
	}
}

void fs_inode_unref(struct fs *fs, struct fs_inode *inode)
{
	if (!inode)
		return;
	assert(inode->refs);
	inode->refs--;
	inode_check(fs, inode);
}

void fs_inode_forget(struct fs *fs, struct fs_inode *inode, uint64_t lookups)
{
	assert(inode->lookups >= lookups);
	inode->lookups -= lookups;
	inode_check(fs, inode);
}

struct fs_inode *fs_inode_at(struct fs *fs, fuse_ino_t ino)
{
	return ino == FUSE_ROOT_ID ? fs->fixed[FS_ROOT] : (struct fs_inode *)(uintptr_t)ino;
}

static fuse_ino_t node_id(const struct fs_inode *inode)
{
	return inode->kind == FS_ROOT ? FUSE_ROOT_ID : (fuse_ino_t)(uintptr_t)inode;
}

int fs_inodes_init(struct fs *fs)
{
	static const char *const names[FS_GROUP] = {
		"", "groups", "leaders", "locks", "events", "rings", ".tooz"};
	for (int kind = FS_ROOT; kind < FS_GROUP; kind++) {
		fs->fixed[kind] = fs_inode_get(fs, kind == FS_ROOT ? NULL : fs->fixed[FS_ROOT],
			(enum fs_kind)kind, coord_bytes_of(names[kind]));
		if (!fs->fixed[kind])
			return -ENOMEM;
	}
	return 0;
}

void fs_inodes_done(struct fs *fs)
{
	/* After an umount the kernel does not say what it forgets. */
	struct coord_node *node;
	while ((node = coord_table_first(&fs->inodes)))
		fs_inode_unhash(fs, coord_container(node, struct fs_inode, node));
	while (!coord_list_empty(&fs->unhashed)) {
		struct fs_inode *inode = coord_container(fs->unhashed.next, struct fs_inode, link);
		coord_list_remove(&inode->link);
		free(inode);
	}
	coord_table_done(&fs->inodes);
}

int fs_name_decode(
	const char *file, bool create, char buf[COORD_NAME_MAX + 1], struct coord_bytes *ret)
{
	size_t len;
	int r = coord_name_decode(coord_bytes_of(file), buf, &len);
	if (r == -EINVAL && !create)
		return -ENOENT;
	if (r < 0)
		return r;
	*ret = (struct coord_bytes){buf, len};
	return 0;
}

unsigned fs_fixed_mode(struct fs *fs, struct fs_inode *inode)
{
	return 0555;
}

unsigned fs_read_only_mode(struct fs *fs, struct fs_inode *inode)
{
	return 0444;
}

unsigned fs_file_mode(struct fs *fs, struct fs_inode *inode)
{
	return 0666 & ~fs->options.umask;
}

void fs_attr(struct fs *fs, struct fs_inode *inode, struct stat *ret)
{
	*ret = (struct stat){
		.st_ino = inode->ino,
		.st_nlink = 1,
		.st_uid = fs->options.uid,
		.st_gid = fs->options.gid,
		.st_blksize = 4096,
	};
	if (inode->type->is_dir)
		ret->st_mode = S_IFDIR | (inode->type->mode ? inode->type->mode(fs, inode)
							    : 0777 & ~fs->options.umask);
	else
		ret->st_mode = S_IFREG | inode->type->mode(fs, inode);
	uint64_t us =
		inode->type->is_dir && inode->kind != FS_GROUP ? fs->started_us : inode->seen_us;
	fs_attr_times(ret, us, us);
}

void fs_attr_times(struct stat *attr, uint64_t changed_us, uint64_t modified_us)
{
	attr->st_ctim.tv_sec = (time_t)(changed_us / 1000000);
	attr->st_ctim.tv_nsec = (long)(changed_us % 1000000) * 1000;
	attr->st_mtim.tv_sec = (time_t)(modified_us / 1000000);
	attr->st_mtim.tv_nsec = (long)(modified_us % 1000000) * 1000;
	attr->st_atim = attr->st_mtim;
}

double fs_attr_timeout(const struct fs_inode *inode)
{
	return inode->type->is_dir ? FOREVER_S : 0;
}

static void entry_param(
	struct fs_inode *inode, const struct stat *attr, struct fuse_entry_param *ret)
{
	*ret = (struct fuse_entry_param){
		.ino = node_id(inode),
		.attr = *attr,
		.attr_timeout = fs_attr_timeout(inode),
		.entry_timeout = inode->kind < FS_GROUP ? FOREVER_S : 0,
	};
}

void fs_reply_entry(fuse_req_t req, struct fs_inode *inode, const struct stat *attr)
{
	struct fuse_entry_param entry;
	entry_param(inode, attr, &entry);
	if (inode->kind == FS_MEMBER)
		entry.attr_timeout = LOOKED_S;
	struct fs *fs = fs_of(req);
	inode->lookups++;
	if (fuse_reply_entry(req, &entry) < 0)
		fs_inode_forget(fs, inode, 1);
}

void fs_call_created(struct fs_call *call, const struct stat *attr)
{
	struct fuse_entry_param entry;
	entry_param(call->inode, attr, &entry);
	call->inode->lookups++;
	if (fuse_reply_create(call->req, &entry, &call->fi) < 0)
		fs_inode_forget(call->fs, call->inode, 1);
	else
		call->owns_handle = false;
	fs_call_free(call);
}

void fs_reply_attr(fuse_req_t req, struct fs_inode *inode, const struct stat *attr)
{
	fuse_reply_attr(req, attr, fs_attr_timeout(inode));
}

void fs_reply_plain_attr(fuse_req_t req, struct fs_inode *inode)
{
	struct stat attr;
	fs_attr(fs_of(req), inode, &attr);
	fs_reply_attr(req, inode, &attr);
}
