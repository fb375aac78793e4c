/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The contents of the driver's files: tooz's .metadata and .raw, our lock files and claims. No I/O.
 */
#ifndef DRIVERS_FILE_FORMAT_H
#define DRIVERS_FILE_FORMAT_H

#include "coord/base.h"

#define FILE_HASH_SIZE 41 /* 40 lower-case hex digits and a NUL */
/* "<hash>/<hash>.raw" */
#define FILE_RAW_PATH (FILE_HASH_SIZE + FILE_HASH_SIZE + 4)
#define FILE_RAW_MAX (8u << 20) /* larger files are not read */
#define FILE_META_MAX (64u << 10)

/* sha1 in hex, as tooz names groups and members. */
void file_hash(struct coord_bytes data, char ret[FILE_HASH_SIZE]);
void file_hex(const uint8_t *data, size_t len, char *ret); /* 2 * len + 1 bytes */

/* A member's file. All bytes lie in the file's own. */
struct file_raw {
	struct coord_bytes member, capabilities; /* capabilities: one msgpack value */
	uint64_t joined_us; /* UTC; 0: does not decode */
	/* Ours only: */
	bool ours;
	char session[33];
	uint8_t owner[16];
	uint64_t born, version, updated_us;
};

/* 0 or -EBADMSG: not one msgpack map with a member_id. */
int file_raw_decode(struct coord_bytes data, struct file_raw *ret);
/* *ret is malloced. Written as Python writes it, plus one key where raw->ours. */
int file_raw_encode(const struct file_raw *raw, char **ret, size_t *ret_len);

/* A group's .metadata: its name. *ret lies in data. */
int file_meta_decode(struct coord_bytes data, struct coord_bytes *ret);
int file_meta_encode(struct coord_bytes group, char **ret, size_t *ret_len);

/*
 * A lock file, as far as this program fills it (Python neither reads nor writes any):
 *
 *    0  the counter of grants, 20 digits and a newline
 *   24  a byte that is written to wake who waits
 *   32  the holder's record; valid while its session lives and the file is locked exclusively:
 *       "tzf1", u16 length of the member id, u16 zero, u64 token, u64 since in us, the session's
 *       uuid (16), the grant's owner value (16), the member id. Little endian.
 */
#define FILE_COUNTER_LEN 21
#define FILE_WAKE_AT 24
#define FILE_RECORD_AT 32
#define FILE_RECORD_LEN 56
#define FILE_MEMBER_MAX 1024
#define FILE_LOCK_MAX (FILE_RECORD_AT + FILE_RECORD_LEN + FILE_MEMBER_MAX)

struct file_record {
	struct coord_bytes member;
	uint64_t token, since_us;
	uint8_t session[16], owner[16];
};

/* The counter at the start of a lock file; 0 for a file that is empty, zeroed or cut short. -EBADMSG:
 * the file holds something else, and must not be written. */
int file_counter_decode(struct coord_bytes data, uint64_t *ret);
void file_counter_encode(uint64_t counter, char ret[FILE_COUNTER_LEN]);
/* The whole lock file up to the end of the record; returns the length. A member id that is too long
 * is left out. */
size_t file_record_encode(const struct file_record *, char ret[FILE_LOCK_MAX]);
/* 0 and the record, whose member lies in data; -EBADMSG: none, or not a whole one. */
int file_record_decode(struct coord_bytes data, struct file_record *ret);

/*
 * A session's file: at 0 who the daemon is, as text; at 1024 its member id ("tzs1", u16 length, u16 zero,
 * the id); from 4096 a slot for each lock that it holds shared ("tzh1", u32 zero, sha1 of the lock in hex,
 * u64 since in us, 8 bytes zero), zeroed where it is free. Little endian. All of it is valid while the
 * file is locked.
 */
#define FILE_SHARER_AT 1024
#define FILE_SHARER_HEAD 8
#define FILE_SHARER_LEN (FILE_SHARER_HEAD + FILE_MEMBER_MAX)
#define FILE_SLOTS_AT 4096
#define FILE_SLOT_LEN 64
#define FILE_SLOT_MAGIC 4 /* bytes at the start of a slot that say that it is used */
#define FILE_SLOTS_MAX 65536

/* Returns the length. A member id that is too long is left out. */
size_t file_sharer_encode(struct coord_bytes member, char ret[FILE_SHARER_LEN]);
/* 0 and the member id, which lies in data; -EBADMSG. */
int file_sharer_decode(struct coord_bytes data, struct coord_bytes *ret);
void file_slot_encode(const char hash[FILE_HASH_SIZE], uint64_t since_us, char ret[FILE_SLOT_LEN]);
/* 0, or -EBADMSG: free, or not a whole one. */
int file_slot_decode(
	const char data[FILE_SLOT_LEN], char ret_hash[FILE_HASH_SIZE], uint64_t *ret_since_us);

/* A claim on a member id: the session's uuid and the claimant's identity, a line each. */
#define FILE_CLAIM_MAX 1024
int file_claim_decode(
	struct coord_bytes data, char ret_session[33], struct coord_bytes *ret_identity);

/* A request to let a lock go: the owner value of the holding in hex (zeros: anybody's), a blank, in us of UTC
 * since when it is held at the latest, 20 digits, and a newline. */
#define FILE_REQUEST_LEN 54
struct file_request {
	uint8_t owner[16];
	uint64_t before_us;
};
void file_request_encode(const struct file_request *, char ret[FILE_REQUEST_LEN]);
int file_request_decode(struct coord_bytes data, struct file_request *ret); /* 0 or -EBADMSG */

/* Is this the name of a session: 32 lower-case hex digits? */
bool file_is_uuid(struct coord_bytes text);

/* Lock names become paths below DIR: 0, -EINVAL, -ENAMETOOLONG. */
#define FILE_NAME_MAX 255
int file_lock_name_check(struct coord_bytes name);

#endif
