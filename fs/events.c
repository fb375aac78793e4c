/* SPDX-License-Identifier: Apache-2.0 */
/*
 * events/: a stream for each group. Its readers share one log of lines, each with a position of its own, and
 * one follower of the group, which ends with the last of them.
 *
 * A reader is first given the state as it stands when it reads, then what was logged since. The log keeps
 * LOG_MAX bytes: who falls further behind is told so, and given the state again. What a READ does not take of the
 * lines that were cut for it is kept with its handle and comes first the next time, so nobody ever sees half a
 * line followed by another.
 */
#include "fs/tree.h"

#include "coord/follow.h"

enum {
	LOG_MIN = 4096,
	FULL_MIN = 64 << 10,
	LOG_MAX = 256 << 10,
	LINE_MAX_LEN = COORD_NAME_MAX + 32, /* an encoded name is no longer than a file name */
};

struct fs_stream {
	struct coord_follower follower;
	struct fs *fs;
	struct fs_inode *inode; /* its readers keep it */
	uint32_t readers;
	char *log;
	size_t len, size;
	uint64_t start; /* the position of log[0], which begins a line */
	bool suspended, ended;
	int status; /* why it ended, if not by deletion */
	struct coord_list waiting; /* calls, by blocked */
	struct coord_task wake;
};

struct fs_cursor {
	struct fs_stream *stream;
	uint64_t at;
	bool begun; /* was given the state */
	char *text; /* cut for it and not taken yet, from `from` on */
	size_t len, from;
};

/* ---- lines ---- */

/* A name that cannot be shown has no lines; listings leave it out too. Returns the length, or 0. */
static size_t format_line(char line[LINE_MAX_LEN], const char *word, struct coord_bytes name)
{
	char file[COORD_NAME_MAX + 1] = "";
	if (name.len && coord_name_encode(name, file) < 0)
		return 0;
	return (size_t)snprintf(line, LINE_MAX_LEN, "%s%s%s\n", word, *file ? " " : "", file);
}

/* Lets the oldest lines go, a quarter of the log at least. */
static void log_trim(struct fs_stream *stream)
{
	size_t drop = stream->size / 4;
	const char *end = memchr(stream->log + drop, '\n', stream->len - drop);
	drop = (size_t)(end - stream->log) + 1;
	memmove(stream->log, stream->log + drop, stream->len - drop);
	stream->len -= drop;
	stream->start += drop;
}

/* Without memory for it, whoever has not read all has fallen behind. */
static void log_lose(struct fs_stream *stream)
{
	stream->start += stream->len + 1;
	stream->len = 0;
}

static bool log_room(struct fs_stream *stream, size_t len)
{
	if (stream->len + len <= stream->size)
		return true;
	if (stream->size == LOG_MAX) {
		log_trim(stream);
		return true;
	}
	size_t size = stream->size ? 2 * stream->size : LOG_MIN;
	char *log = realloc(stream->log, size);
	if (!log)
		return false;
	stream->log = log;
	stream->size = size;
	return true;
}

static void log_line(struct fs_stream *stream, const char *word, struct coord_bytes name)
{
	char line[LINE_MAX_LEN];
	size_t len = format_line(line, word, name);
	if (!len)
		return;
	if (!log_room(stream, len)) {
		log_lose(stream);
		return;
	}
	memcpy(stream->log + stream->len, line, len);
	stream->len += len;
}

static uint64_t log_end(const struct fs_stream *stream)
{
	return stream->start + stream->len;
}

/* ---- what a reader is given ---- */

static bool cursor_text(struct fs_handle *handle, char *text, size_t len)
{
	struct fs_cursor *cursor = handle->cursor;
	if (!fs_charge(handle, cursor->len, len))
		return false;
	free(cursor->text);
	cursor->text = text;
	cursor->len = len;
	cursor->from = 0;
	return true;
}

static void print(FILE *out, const char *word, struct coord_bytes name)
{
	char line[LINE_MAX_LEN];
	fwrite(line, 1, format_line(line, word, name), out);
}

/* The state as lines, malloced; NULL: out of memory. */
static char *state_text(const struct fs_stream *stream, bool overflow, size_t *ret_len)
{
	char *text = NULL;
	struct coord_bytes leader, none = {0};
	FILE *out = open_memstream(&text, ret_len);
	if (!out)
		return NULL;
	if (overflow)
		print(out, "overflow", none);
	const struct coord_followed_member *member = NULL;
	while ((member = coord_followed_next(&stream->follower, member)))
		print(out, "member", member->name);
	if (coord_followed_leader(&stream->follower, &leader))
		print(out, "leader", leader);
	print(out, "ready", none);
	if (stream->suspended)
		print(out, "suspended", none);
	bool failed = ferror(out);
	if (fclose(out) == 0 && !failed)
		return text;
	free(text);
	return NULL;
}

/* As many whole lines as fit, but one at least. */
static char *log_text(const struct fs_stream *stream, uint64_t at, size_t size, size_t *ret_len)
{
	const char *from = stream->log + (at - stream->start);
	size_t left = (size_t)(log_end(stream) - at), len = left;
	if (len > size) {
		const char *last = memrchr(from, '\n', size);
		if (!last)
			last = memchr(from, '\n', left);
		len = (size_t)(last - from) + 1;
	}
	char *text = malloc(len);
	if (text)
		memcpy(text, from, len);
	*ret_len = len;
	return text;
}

/* Cuts what comes next for the handle. 0: there is text; -EAGAIN: nothing yet; -ENODATA: the end. */
static int cut(struct fs_handle *handle, size_t size)
{
	struct fs_cursor *cursor = handle->cursor;
	struct fs_stream *stream = cursor->stream;
	bool behind = cursor->at < stream->start;
	size_t len;
	char *text;
	if (cursor->begun && !behind) {
		if (cursor->at == log_end(stream))
			return !stream->ended   ? -EAGAIN
			       : stream->status ? stream->status
						: -ENODATA;
		text = log_text(stream, cursor->at, size, &len);
	} else if (stream->ended) {
		/* There is no state any more. */
		if (stream->status)
			return stream->status;
		text = strdup("deleted\n");
		len = text ? strlen(text) : 0;
	} else {
		if (!stream->follower.settled)
			return -EAGAIN;
		text = state_text(stream, cursor->begun, &len);
	}
	if (!text)
		return -ENOMEM;
	bool logged = cursor->begun && !behind;
	if (!cursor_text(handle, text, len)) {
		free(text);
		return -EDQUOT;
	}
	cursor->begun = true;
	cursor->at = logged ? cursor->at + len : log_end(stream);
	return 0;
}

/* Answers the call if there is something to say. */
static bool serve(struct fs_call *call)
{
	struct fs_handle *handle = call->handle;
	struct fs_cursor *cursor = handle->cursor;
	int r = cursor->from < cursor->len ? 0 : cut(handle, call->size);
	if (r == -EAGAIN && !(call->flags & O_NONBLOCK))
		return false;
	if (r < 0 && r != -ENODATA) {
		fs_call_error(call, r);
		return true;
	}
	size_t left = r ? 0 : cursor->len - cursor->from,
	       len = left < call->size ? left : call->size;
	/* A request that is filled may be one of several of the same read(2): it would wait for more. */
	if (len == left && len == call->size && len >= FULL_MIN)
		len--;
	fuse_reply_buf(call->req, cursor->text ? cursor->text + cursor->from : NULL, len);
	cursor->from += len;
	if (cursor->from == cursor->len)
		cursor_text(handle, NULL, 0);
	fs_call_free(call);
	return true;
}

/* ---- the follower ---- */

static bool readable(const struct fs_cursor *cursor)
{
	const struct fs_stream *stream = cursor->stream;
	return cursor->from < cursor->len || stream->ended ||
	       (stream->follower.settled && (!cursor->begun || cursor->at != log_end(stream)));
}

static void on_wake(struct coord_task *task)
{
	struct fs_stream *stream = coord_container(task, struct fs_stream, wake);
	struct coord_list now = COORD_LIST_INIT(now);
	while (!coord_list_empty(&stream->waiting)) {
		struct coord_list *first = stream->waiting.next;
		coord_list_remove(first);
		coord_list_add(&now, first);
	}
	while (!coord_list_empty(&now)) {
		struct fs_call *call = coord_container(now.next, struct fs_call, blocked);
		coord_list_remove(&call->blocked);
		if (!serve(call))
			coord_list_add(&stream->waiting, &call->blocked);
	}
	struct fs_handle *handle;
	coord_list_each (handle, &stream->inode->opens, link)
		if (handle->poll && handle->cursor->stream == stream && readable(handle->cursor))
			fs_handle_notify(handle);
}

/* The stream is over; whoever opens the file from now on has a new one. */
static void stream_end(struct fs_stream *stream, int status)
{
	stream->ended = true;
	if (status == -ENOENT)
		log_line(stream, "deleted", (struct coord_bytes){0});
	else
		stream->status = status;
	if (stream->inode->stream == stream)
		stream->inode->stream = NULL;
}

static void on_change(struct coord_follower *follower, enum coord_change change,
	struct coord_bytes name, int status)
{
	static const char *const words[] = {
		[COORD_CHANGE_JOIN] = "join",
		[COORD_CHANGE_UPDATE] = "update",
		[COORD_CHANGE_LEAVE] = "leave",
		[COORD_CHANGE_LEADER] = "leader",
		[COORD_CHANGE_NO_LEADER] = "no-leader",
		[COORD_CHANGE_SUSPENDED] = "suspended",
		[COORD_CHANGE_RESUMED] = "resumed",
	};
	struct fs_stream *stream = coord_container(follower, struct fs_stream, follower);
	if (change == COORD_CHANGE_ENDED)
		stream_end(stream, status);
	else if (change != COORD_CHANGE_SETTLED)
		log_line(stream, words[change], name);
	if (change == COORD_CHANGE_SUSPENDED || change == COORD_CHANGE_RESUMED)
		stream->suspended = change == COORD_CHANGE_SUSPENDED;
	coord_loop_defer(stream->fs->loop, &stream->wake);
}

static int stream_get(struct fs *fs, struct fs_inode *inode, struct fs_stream **ret)
{
	struct fs_stream *stream = inode->stream;
	if (!stream) {
		stream = calloc(1, sizeof(*stream));
		if (!stream)
			return -ENOMEM;
		stream->fs = fs;
		stream->inode = inode;
		stream->follower.fn = on_change;
		stream->wake.fn = on_wake;
		coord_list_init(&stream->waiting);
		int r = coord_follow(fs->coord, inode->name, &stream->follower);
		if (r < 0) {
			free(stream);
			return r;
		}
		inode->stream = stream;
	}
	stream->readers++;
	*ret = stream;
	return 0;
}

static void stream_put(struct fs_stream *stream)
{
	if (--stream->readers > 0)
		return;
	coord_unfollow(&stream->follower);
	coord_loop_undefer(stream->fs->loop, &stream->wake);
	if (stream->inode->stream == stream)
		stream->inode->stream = NULL;
	free(stream->log);
	free(stream);
}

/* ---- calls ---- */

static void event_open(fuse_req_t req, struct fs_inode *inode, const struct fuse_file_info *fi)
{
	struct fs_call *call = fs_handle_open_read_only(req, inode, fi);
	if (!call)
		return;
	struct fs_cursor *cursor = calloc(1, sizeof(*cursor));
	int r = cursor ? stream_get(call->fs, inode, &cursor->stream) : -ENOMEM;
	if (r < 0) {
		free(cursor);
		fs_call_error(call, r);
		return;
	}
	call->handle->cursor = cursor;
	call->fi.nonseekable = 1;
	call->fs->opening_stream = true;
	fs_call_opened(call);
}

static void event_read(struct fs_call *call)
{
	call->eager = true;
	if (!serve(call))
		coord_list_add(&call->handle->cursor->stream->waiting, &call->blocked);
}

static unsigned event_poll(struct fs_handle *handle)
{
	return readable(handle->cursor) ? POLLIN | POLLRDNORM : 0;
}

static void event_release(struct fs *fs, struct fs_handle *handle)
{
	struct fs_cursor *cursor = handle->cursor;
	if (!cursor)
		return;
	cursor_text(handle, NULL, 0);
	stream_put(cursor->stream);
	free(cursor);
}

const struct fs_type fs_type_events = {
	.is_dir = true,
	.child = FS_EVENT,
	.lookup = fs_groups_lookup,
	.list = fs_groups_list,
	.mode = fs_fixed_mode,
	.getattr = fs_reply_plain_attr,
};

const struct fs_type fs_type_event = {
	.stream = true,
	.mode = fs_read_only_mode,
	.getattr = fs_reply_plain_attr,
	.open = event_open,
	.read = event_read,
	.poll = event_poll,
	.release = event_release,
};
