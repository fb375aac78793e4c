/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who shares: a mount that holds a lock shared notes that in its own session file, which lives and dies
 * with its daemon. To share costs one small write more, and a dead daemon's notes count for nothing.
 *
 * Notes are made after the lock was taken, and wiped before it is let go; the byte that wakes who looks
 * is written after either. Who reads in between counts one less, until that byte.
 */
#include "drivers/file/file.h"

/* ---- Our own notes ---- */

static off_t slot_at(unsigned slot)
{
	return FILE_SLOTS_AT + (off_t)slot * FILE_SLOT_LEN;
}

int file_sharers_open(struct file_session *fs)
{
	char data[FILE_SHARER_LEN];
	memset(fs->slots, 0, sizeof(fs->slots));
	size_t len =
		file_sharer_encode(coord_bytes_of(coord_session_config(fs->session)->member), data);
	return file_write_all(fs->own, data, len, FILE_SHARER_AT);
}

/* Takes a free slot: its number, or -1. */
static int slot_take(struct file_session *fs)
{
	int slot = -1;
	pthread_mutex_lock(&fs->slots_lock);
	for (unsigned word = 0; slot < 0 && word < FILE_SLOTS_MAX / 64; word++) {
		if (fs->slots[word] == UINT64_MAX)
			continue;
		int bit = __builtin_ctzll(~fs->slots[word]);
		fs->slots[word] |= UINT64_C(1) << bit;
		slot = (int)(word * 64) + bit;
	}
	pthread_mutex_unlock(&fs->slots_lock);
	return slot;
}

static void slot_give(struct file_session *fs, int slot)
{
	pthread_mutex_lock(&fs->slots_lock);
	fs->slots[slot / 64] &= ~(UINT64_C(1) << (slot % 64));
	pthread_mutex_unlock(&fs->slots_lock);
}

void file_sharer_note(struct file_session *fs, struct file_held *held)
{
	if (held->kind != COORD_LOCK || held->slot >= 0 || fs->own < 0)
		return;
	int slot = slot_take(fs);
	if (slot < 0)
		return;
	char data[FILE_SLOT_LEN];
	file_slot_encode(held->hash, held->since_us, data);
	/* The magic number comes last, so that nobody takes half a note for a whole one. Without room
	 * for it we are not counted, and share all the same. */
	if (file_write_all(fs->own, data + FILE_SLOT_MAGIC, FILE_SLOT_LEN - FILE_SLOT_MAGIC,
		    slot_at((unsigned)slot) + FILE_SLOT_MAGIC) ||
		file_write_all(fs->own, data, FILE_SLOT_MAGIC, slot_at((unsigned)slot))) {
		slot_give(fs, slot);
		return;
	}
	held->slot = slot;
}

void file_sharer_forget(struct file_session *fs, struct file_held *held)
{
	if (held->slot < 0)
		return;
	if (fs->own >= 0)
		file_write_all(fs->own, "\0\0\0\0", FILE_SLOT_MAGIC, slot_at((unsigned)held->slot));
	slot_give(fs, held->slot);
	held->slot = -1;
}

/* ---- Everybody's ---- */

struct reader {
	struct file_session *fs;
	struct file_sharers *sharers;
	const char *hash; /* NULL: all */
};

static int sharer_add(struct reader *reader, const char *hash, uint64_t since_us, size_t member)
{
	struct file_sharers *sharers = reader->sharers;
	if (sharers->len == sharers->max) {
		size_t max = sharers->max ? sharers->max * 2 : 16;
		void *more = realloc(sharers->list, max * sizeof(*sharers->list));
		if (!more)
			return -ENOMEM;
		sharers->list = more;
		sharers->max = max;
	}
	struct file_sharer *sharer = &sharers->list[sharers->len++];
	*sharer = (struct file_sharer){.since_us = since_us, .member = member};
	memcpy(sharer->hash, hash, FILE_HASH_SIZE);
	return 0;
}

/* Keeps a member id for those who refer to it by its number. */
static int member_add(
	struct file_sharers *sharers, const char session[33], struct coord_bytes member)
{
	struct file_sharer_member *more =
		realloc(sharers->members, (sharers->members_len + 1) * sizeof(*sharers->members));
	if (!more)
		return -ENOMEM;
	sharers->members = more;
	struct file_sharer_member *last = &more[sharers->members_len++];
	memcpy(last->session, session, sizeof(last->session));
	last->len = (uint16_t)member.len;
	memcpy(last->text, member.data, member.len);
	return 0;
}

static int slots_read(struct reader *reader, int fd, size_t member)
{
	char data[256 * FILE_SLOT_LEN];
	for (unsigned slot = 0; slot < FILE_SLOTS_MAX; slot += 256) {
		ssize_t n = pread(fd, data, sizeof(data), slot_at(slot));
		for (ssize_t at = 0; at + FILE_SLOT_LEN <= n; at += FILE_SLOT_LEN) {
			char hash[FILE_HASH_SIZE];
			uint64_t since_us;
			if (file_slot_decode(data + at, hash, &since_us) ||
				(reader->hash && strcmp(reader->hash, hash) != 0))
				continue;
			int r = sharer_add(reader, hash, since_us, member);
			if (r || reader->hash)
				return r; /* a mount counts once */
		}
		if (n < (ssize_t)sizeof(data))
			break;
	}
	return 0;
}

static int session_read(void *user, const char *name)
{
	struct reader *reader = user;
	struct file_session *fs = reader->fs;
	if (!file_is_uuid(coord_bytes_of(name)) || !file_session_alive(fs, name))
		return 0;
	_cleanup_close_ int fd = file_open_at(fs->dirs[FILE_SESSIONS], name, O_RDONLY, false, NULL);
	char data[FILE_SHARER_LEN];
	ssize_t n = fd < 0 ? -1 : pread(fd, data, sizeof(data), FILE_SHARER_AT);
	struct coord_bytes member;
	if (n < 0 || file_sharer_decode((struct coord_bytes){data, (size_t)n}, &member))
		return 0;
	int r = member_add(reader->sharers, name, member);
	return r ? r : slots_read(reader, fd, reader->sharers->members_len - 1);
}

static int sharer_order(const void *a, const void *b)
{
	const struct file_sharer *one = a, *two = b;
	int r = strcmp(one->hash, two->hash);
	if (r)
		return r;
	if (one->since_us != two->since_us)
		return one->since_us < two->since_us ? -1 : 1;
	return one->member < two->member ? -1 : one->member > two->member;
}

int file_sharers_read(struct file_session *fs, const char *hash, struct file_sharers *ret)
{
	*ret = (struct file_sharers){.loaded = true};
	struct reader reader = {fs, ret, hash};
	if (fs->dirs[FILE_SESSIONS] < 0)
		return 0;
	int r = file_each(fs->dirs[FILE_SESSIONS], &reader, session_read);
	if (ret->len)
		qsort(ret->list, ret->len, sizeof(*ret->list), sharer_order);
	return r;
}

void file_sharers_done(struct file_sharers *sharers)
{
	free(sharers->list);
	free(sharers->members);
	*sharers = (struct file_sharers){0};
}

uint32_t file_sharers_find(const struct file_sharers *sharers, const char *hash,
	uint64_t *ret_since_us, struct coord_bytes *ret_member)
{
	size_t low = 0, high = sharers->len;
	while (low < high) {
		size_t mid = low + (high - low) / 2;
		if (strcmp(sharers->list[mid].hash, hash) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	uint32_t count = 0;
	for (size_t i = low; i < sharers->len && strcmp(sharers->list[i].hash, hash) == 0; i++)
		count++;
	if (count) {
		const struct file_sharer *first = &sharers->list[low];
		const struct file_sharer_member *member = &sharers->members[first->member];
		*ret_since_us = first->since_us;
		*ret_member = (struct coord_bytes){member->text, member->len};
	}
	return count;
}
