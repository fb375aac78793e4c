/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Open directories. A directory handle is a snapshot, taken at opendir and at rewinddir, and while it is
 * being read it answers its opener's LOOKUP and GETATTR: `ls -l` of a large directory is one listing and a
 * hash look-up for each entry. It does so for a second after it was taken or last read from, for what
 * other hosts change is not told here; a process may keep a directory open for days.
 *
 * Of the directory handles that one process has, the one read last answers (fs->readers). A name that
 * was changed through this mount since is asked of the backend: the time of the last change is kept by
 * a hash of the name (fs->changed), so that a change costs the same whatever is open. Names that
 * meet there are asked without need, no more.
 */
#include "fs/tree.h"

enum { ANSWERS_MS = 1000 };

/* FNV-1a. */
static uint32_t name_hash(struct coord_bytes name)
{
	uint32_t hash = 0x811c9dc5;
	for (size_t i = 0; i < name.len; i++)
		hash = (hash ^ (unsigned char)name.data[i]) * 0x01000193;
	return hash;
}

/* ---- Who is answered by what ---- */

static void stop_answering(struct fs *fs, struct fs_snapshot *snapshot)
{
	if (!snapshot->answers)
		return;
	coord_table_remove(&fs->readers, &snapshot->node);
	snapshot->answers = false;
}

static struct fs_snapshot *reader_find(struct fs *fs, const struct fs_reader *reader)
{
	struct coord_bytes key = {(const char *)reader, sizeof(*reader)};
	struct coord_node *node = coord_table_find(&fs->readers, 0, key);
	return node ? coord_container(node, struct fs_snapshot, node) : NULL;
}

/* It was taken or read from: from now on it answers its opener, if there is memory to find it by. */
static void start_answering(struct fs *fs, const struct fs_handle *handle)
{
	struct fs_snapshot *snapshot = handle->snapshot;
	snapshot->used_ms = coord_now_ms(fs->loop);
	if (snapshot->answers || snapshot->names_only)
		return;
	snapshot->reader =
		(struct fs_reader){handle->inode, handle->opener_pid, handle->opener_uid};
	struct fs_snapshot *before = reader_find(fs, &snapshot->reader);
	if (before)
		stop_answering(fs, before);
	snapshot->node.key =
		(struct coord_bytes){(const char *)&snapshot->reader, sizeof(snapshot->reader)};
	snapshot->answers = coord_table_add(&fs->readers, &snapshot->node) == 0;
}

/* What answers the caller of req about dir. */
static struct fs_snapshot *answering(fuse_req_t req, const struct fs_inode *dir)
{
	struct fs *fs = dir->fs;
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	const struct fs_reader reader = {dir, ctx->pid, ctx->uid};
	struct fs_snapshot *snapshot = reader_find(fs, &reader);
	if (!snapshot || coord_now_ms(fs->loop) - snapshot->used_ms > ANSWERS_MS)
		return NULL;
	return snapshot;
}

static uint64_t *changed_at(const struct fs_inode *dir, uint32_t hash)
{
	return &dir->fs->changed[(hash ^ dir->ino) % FS_CHANGED];
}

/* ---- Snapshots ---- */

void fs_snapshot_free(struct fs *fs, struct fs_snapshot *snapshot)
{
	if (!snapshot)
		return;
	stop_answering(fs, snapshot);
	free(snapshot->entries);
	free(snapshot->buckets);
	free(snapshot->memory);
	free(snapshot);
}

static bool snapshot_alloc(struct fs_snapshot *snapshot, size_t rows, size_t bytes)
{
	snapshot->buckets_len = 16;
	while (snapshot->buckets_len < rows)
		snapshot->buckets_len *= 2;
	size_t entries = (rows + 1) * sizeof(*snapshot->entries);
	size_t buckets = snapshot->buckets_len * sizeof(*snapshot->buckets);
	snapshot->entries = malloc(entries);
	snapshot->buckets = malloc(buckets);
	snapshot->memory = malloc(bytes + 1);
	snapshot->size = sizeof(*snapshot) + entries + buckets + bytes + 1;
	return snapshot->entries && snapshot->buckets && snapshot->memory;
}

static char *keep(char *at, struct coord_bytes *bytes)
{
	if (bytes->len)
		memcpy(at, bytes->data, bytes->len);
	bytes->data = at;
	return at + bytes->len;
}

/* A name that needs no escape is its own file name, and kept once. */
static char *keep_name(char *at, const char *file, size_t len, struct coord_bytes *name)
{
	if (len != name->len)
		return keep(at, name);
	name->data = file;
	return at;
}

/* The file name of a row of dir; only names from the backend are encoded. */
static int file_name(const struct fs_inode *dir, struct coord_bytes name, char *ret)
{
	if (dir->type->child != FS_GROUPS && dir->type->child != FS_FACT)
		return coord_name_encode(name, ret);
	memcpy(ret, name.data, name.len);
	ret[name.len] = 0;
	return 0;
}

/* Returns how many names cannot be shown. */
static uint64_t snapshot_fill(struct fs_snapshot *snapshot, const struct fs_inode *dir,
	const struct coord_row *rows, unsigned without)
{
	char *at = snapshot->memory;
	uint64_t hidden = 0;
	for (const struct coord_row *row = rows; row; row = row->next) {
		if (row->flags & without)
			continue;
		if (file_name(dir, row->name, at) < 0) {
			hidden++;
			continue;
		}
		struct fs_entry *entry = &snapshot->entries[snapshot->len++];
		entry->row = *row;
		entry->row.next = NULL;
		entry->file = at;
		size_t len = strlen(at);
		at = keep_name(at + len + 1, at, len, &entry->row.name);
		at = keep(at, &entry->row.data);
	}
	return hidden;
}

static struct fs_snapshot *snapshot_new(
	struct fs *fs, const struct fs_inode *dir, const struct coord_row *rows, unsigned without)
{
	size_t len = 0, bytes = 0;
	for (const struct coord_row *row = rows; row; row = row->next) {
		len++;
		bytes += 4 * row->name.len + row->data.len + 1;
	}
	struct fs_snapshot *snapshot = calloc(1, sizeof(*snapshot));
	if (!snapshot || len >= UINT32_MAX || !snapshot_alloc(snapshot, len, bytes)) {
		fs_snapshot_free(fs, snapshot);
		return NULL;
	}
	uint64_t hidden = snapshot_fill(snapshot, dir, rows, without);
	if (hidden && fs->coord)
		coord_count_hidden(fs->coord, hidden);
	return snapshot;
}

/* Only for who asks for a name: a plain listing never does. */
static void snapshot_index(struct fs_snapshot *snapshot)
{
	memset(snapshot->buckets, 0, snapshot->buckets_len * sizeof(*snapshot->buckets));
	for (size_t i = 0; i < snapshot->len; i++) {
		struct fs_entry *entry = &snapshot->entries[i];
		uint32_t *bucket = &snapshot->buckets[name_hash(entry->row.name) &
						      (snapshot->buckets_len - 1)];
		entry->next = *bucket;
		*bucket = (uint32_t)i + 1;
	}
	snapshot->indexed = true;
}

static const struct fs_entry *snapshot_find(
	struct fs_snapshot *snapshot, struct coord_bytes name, uint32_t hash)
{
	if (!snapshot->indexed)
		snapshot_index(snapshot);
	uint32_t i = snapshot->buckets[hash & (snapshot->buckets_len - 1)];
	for (; i; i = snapshot->entries[i - 1].next) {
		const struct fs_entry *entry = &snapshot->entries[i - 1];
		if (coord_bytes_equal(entry->row.name, name))
			return entry;
	}
	return NULL;
}

/* ---- Calls ---- */

static void list(struct fs_call *call)
{
	call->stamp = call->fs->stamp;
	call->inode->type->list(call);
}

void fs_dirs_open(fuse_req_t req, struct fs_inode *dir, const struct fuse_file_info *fi)
{
	struct fs_call *call = fs_handle_open(req, dir, fi);
	if (call)
		list(call);
}

static void reply_entries(fuse_req_t req, struct fs_handle *handle, size_t size, off_t off)
{
	const struct fs_inode *dir = handle->inode;
	const struct fs_snapshot *snapshot = handle->snapshot;
	char *buf = malloc(size);
	if (!buf) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	handle->listed = true;
	start_answering(dir->fs, handle);
	size_t used = 0;
	for (size_t i = (size_t)off; i < snapshot->len + 2; i++) {
		const struct fs_entry *entry = i < 2 ? NULL : &snapshot->entries[i - 2];
		const char *name = i == 0 ? "." : i == 1 ? ".." : entry->file;
		const struct fs_inode *parent = dir->parent ? dir->parent : dir;
		struct stat attr = {
			.st_mode = i < 2 || dir->type->child <= FS_RING ? S_IFDIR : S_IFREG,
			.st_ino = i == 0   ? dir->ino
				  : i == 1 ? parent->ino
					   : fs_inode_hash(dir, dir->type->child, entry->row.name),
		};
		size_t need =
			fuse_add_direntry(req, buf + used, size - used, name, &attr, (off_t)i + 1);
		if (need > size - used)
			break;
		used += need;
	}
	fuse_reply_buf(req, buf, used);
	free(buf);
}

void fs_dirs_read(fuse_req_t req, struct fs_handle *handle, size_t size, off_t off)
{
	if (off || !handle->listed) {
		reply_entries(req, handle, size, off);
		return;
	}
	struct fs_call *call = fs_call_new(req, handle->inode, handle);
	if (!call)
		return;
	call->size = size;
	list(call);
}

void fs_dirs_filled(struct fs_call *call, const struct coord_row *rows, unsigned without)
{
	struct fs *fs = call->fs;
	struct fs_handle *handle = call->handle;
	struct fs_snapshot *snapshot = snapshot_new(fs, call->inode, rows, without);
	if (!snapshot) {
		fs_call_error(call, ENOMEM);
		return;
	}
	if (!fs_charge(handle, handle->snapshot ? handle->snapshot->size : 0, snapshot->size)) {
		fs_snapshot_free(fs, snapshot);
		fs_call_error(call, ENFILE);
		return;
	}
	snapshot->stamp = call->stamp;
	snapshot->names_only = call->names_only;
	fs_snapshot_free(fs, handle->snapshot);
	handle->snapshot = snapshot;
	if (call->owns_handle) {
		start_answering(fs, handle);
		fs_call_opened(call);
		return;
	}
	reply_entries(call->req, handle, call->size, call->off);
	fs_call_free(call);
}

const struct fs_entry *fs_dirs_find(
	fuse_req_t req, const struct fs_inode *dir, struct coord_bytes name)
{
	struct fs_snapshot *snapshot = answering(req, dir);
	if (!snapshot)
		return NULL;
	uint32_t hash = name_hash(name);
	if (*changed_at(dir, hash) > snapshot->stamp)
		return NULL;
	return snapshot_find(snapshot, name, hash);
}

bool fs_dirs_has(fuse_req_t req, const struct fs_inode *dir)
{
	return answering(req, dir);
}

void fs_dirs_forget(struct fs_inode *dir, struct coord_bytes name)
{
	if (!coord_list_empty(&dir->opens))
		*changed_at(dir, name_hash(name)) = ++dir->fs->stamp;
}
