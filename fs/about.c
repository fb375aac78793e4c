/* SPDX-License-Identifier: Apache-2.0 */
/*
 * .tooz/: what this mount is, one fact a file; and the root, which has no calls of its own.
 */
#include "fs/tree.h"

#include <inttypes.h>
#include <stdio.h>

static char *text_driver(struct fs *fs)
{
	char *text;
	const struct coord_config *config = coord_config_of(fs->coord);
	return asprintf(&text, "%s\n", config->driver->name) < 0 ? NULL : text;
}

static char *text_url(struct fs *fs)
{
	char *text;
	return asprintf(&text, "%s\n", coord_config_of(fs->coord)->shown) < 0 ? NULL : text;
}

static char *text_member(struct fs *fs)
{
	char *text, file[COORD_NAME_MAX + 1];
	const char *member = coord_config_of(fs->coord)->member;
	if (coord_name_encode(coord_bytes_of(member), file) < 0)
		return strdup("");
	return asprintf(&text, "%s\n", file) < 0 ? NULL : text;
}

static char *text_state(struct fs *fs)
{
	char *text;
	const char *state = coord_state_name(coord_state(fs->coord));
	return asprintf(&text, "%s\n", state) < 0 ? NULL : text;
}

static char *text_characteristics(struct fs *fs)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);
	if (!out)
		return NULL;
	unsigned has = coord_config_of(fs->coord)->driver->characteristics;
	for (unsigned bit = 0; coord_characteristic_name(bit); bit++)
		if (has & 1u << bit)
			fprintf(out, "%s\n", coord_characteristic_name(bit));
	fclose(out);
	return text;
}

static char *text_session(struct fs *fs)
{
	char *text = NULL;
	size_t len;
	struct coord_session_info info;
	FILE *out = open_memstream(&text, &len);
	if (!out)
		return NULL;
	coord_session_info(fs->coord, &info);
	fprintf(out, "id=%s\nepoch=%" PRIu32 "\n", info.id ? info.id : "", info.epoch);
	if (info.ttl_ms)
		fprintf(out,
			"ttl=%" PRIu64 ".%03" PRIu64 "\nmargin=%" PRIu64 ".%03" PRIu64
			"\ngrace=%" PRIu64 ".%03" PRIu64 "\n",
			info.ttl_ms / 1000, info.ttl_ms % 1000, info.margin_ms / 1000,
			info.margin_ms % 1000, info.grace_ms / 1000, info.grace_ms % 1000);
	if (info.left_ms)
		fprintf(out, "left=%" PRIu64 ".%03" PRIu64 "\n", info.left_ms / 1000,
			info.left_ms % 1000);
	fclose(out);
	return text;
}

static char *text_version(struct fs *fs)
{
	return strdup(TOOZFS_VERSION "\n");
}

static const struct fact {
	const char *name;
	char *(*text)(struct fs *); /* malloced; NULL: out of memory */
} facts[] = {
	{"driver", text_driver},
	{"url", text_url},
	{"member", text_member},
	{"state", text_state},
	{"characteristics", text_characteristics},
	{"session", text_session},
	{"version", text_version},
	{"metrics", fs_metrics_text},
};

enum { FACTS = sizeof(facts) / sizeof(*facts) };

static const struct fact *fact_find(struct coord_bytes name)
{
	for (size_t i = 0; i < FACTS; i++)
		if (coord_bytes_equal(coord_bytes_of(facts[i].name), name))
			return &facts[i];
	return NULL;
}

static char *fact_text(struct fs *fs, const struct fs_inode *inode)
{
	return fact_find(inode->name)->text(fs);
}

static void fact_attr(struct fs *fs, struct fs_inode *inode, struct stat *ret)
{
	_cleanup_free_ char *text = fact_text(fs, inode);
	fs_attr(fs, inode, ret);
	ret->st_size = text ? (off_t)strlen(text) : 0;
	fs_attr_times(ret, fs->started_us, fs->started_us);
}

static void about_lookup(fuse_req_t req, struct fs_inode *dir, const char *file)
{
	struct fs *fs = fs_of(req);
	struct coord_bytes name = coord_bytes_of(file);
	if (!fact_find(name)) {
		fuse_reply_err(req, ENOENT);
		return;
	}
	struct fs_inode *inode = fs_inode_get(fs, dir, FS_FACT, name);
	if (!inode) {
		fuse_reply_err(req, ENOMEM);
		return;
	}
	struct stat attr;
	fact_attr(fs, inode, &attr);
	fs_reply_entry(req, inode, &attr);
	fs_inode_unref(fs, inode);
}

/* Chains rows with these names and fills the snapshot. */
static void list_names(struct fs_call *call, const char *const *names, size_t len)
{
	struct coord_row rows[FACTS] = {0};
	for (size_t i = 0; i < len; i++) {
		rows[i].name = coord_bytes_of(names[i]);
		rows[i].next = i + 1 < len ? &rows[i + 1] : NULL;
	}
	fs_dirs_filled(call, rows, 0);
}

static void about_list(struct fs_call *call)
{
	const char *names[FACTS];
	for (size_t i = 0; i < FACTS; i++)
		names[i] = facts[i].name;
	list_names(call, names, FACTS);
}

static void fact_getattr(fuse_req_t req, struct fs_inode *inode)
{
	struct stat attr;
	fact_attr(fs_of(req), inode, &attr);
	fs_reply_attr(req, inode, &attr);
}

static void fact_open(fuse_req_t req, struct fs_inode *inode, const struct fuse_file_info *fi)
{
	struct fs_call *call = fs_handle_open_read_only(req, inode, fi);
	if (call)
		fs_call_opened(call);
}

/* state and session: ready until what they say now was read. Other facts are always ready. */
static bool fact_changes(const struct fs_inode *inode)
{
	return coord_bytes_equal(inode->name, COORD_BYTES("state")) ||
	       coord_bytes_equal(inode->name, COORD_BYTES("session"));
}

static unsigned fact_poll(struct fs_handle *handle)
{
	struct fs_inode *inode = handle->inode;
	if (!fact_changes(inode) || !handle->seen)
		return POLLIN | POLLRDNORM;
	return handle->seen == inode->fs->changes ? 0 : POLLIN | POLLRDNORM | POLLPRI;
}

void fs_about_changed(struct fs *fs)
{
	struct fs_handle *handle;
	struct coord_node *node = NULL;
	fs->changes++;
	while ((node = coord_table_next(&fs->inodes, node))) {
		struct fs_inode *inode = coord_container(node, struct fs_inode, node);
		if (inode->kind == FS_FACT && fact_changes(inode))
			coord_list_each (handle, &inode->opens, link)
				fs_handle_notify(handle);
	}
}

static void fact_read(struct fs_call *call)
{
	call->handle->seen = call->fs->changes;
	char *text = fact_text(call->fs, call->inode);
	if (text)
		fs_handle_fill(call, text, strlen(text));
	else
		fs_call_error(call, ENOMEM);
}

/* ---- The root ---- */

static void root_lookup(fuse_req_t req, struct fs_inode *dir, const char *file)
{
	struct fs *fs = fs_of(req);
	struct coord_bytes name = coord_bytes_of(file);
	for (int kind = FS_GROUPS; kind < FS_GROUP; kind++) {
		struct stat attr;
		struct fs_inode *inode = fs->fixed[kind];
		if (!coord_bytes_equal(inode->name, name))
			continue;
		fs_attr(fs, inode, &attr);
		fs_reply_entry(req, inode, &attr);
		return;
	}
	fuse_reply_err(req, ENOENT);
}

/* .tooz/ is found by those who know of it, and listed by `ls -a`. */
static void root_list(struct fs_call *call)
{
	struct coord_row rows[FS_GROUP] = {0};
	for (int kind = FS_GROUPS; kind < FS_GROUP; kind++) {
		rows[kind].name = call->fs->fixed[kind]->name;
		rows[kind].next = kind + 1 < FS_GROUP ? &rows[kind + 1] : NULL;
	}
	fs_dirs_filled(call, &rows[FS_GROUPS], 0);
}

const struct fs_type fs_type_root = {
	.is_dir = true,
	.child = FS_GROUPS,
	.lookup = root_lookup,
	.list = root_list,
	.mode = NULL,
	.getattr = fs_reply_plain_attr,
};

const struct fs_type fs_type_about = {
	.is_dir = true,
	.child = FS_FACT,
	.lookup = about_lookup,
	.list = about_list,
	.mode = fs_fixed_mode,
	.getattr = fs_reply_plain_attr,
};

const struct fs_type fs_type_fact = {
	.mode = fs_read_only_mode,
	.getattr = fact_getattr,
	.open = fact_open,
	.read = fact_read,
	.poll = fact_poll,
};
