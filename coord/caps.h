/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Capabilities: text that users write and read <-> msgpack that tooz stores (oslo.serialization's
 * msgpackutils).
 */
#ifndef COORD_CAPS_H
#define COORD_CAPS_H

#include "coord/base.h"

#define COORD_CAPS_MAX (1u << 20) /* bytes of text */

/* How far a text has come, for deciding when a write is complete. */
enum coord_caps_text {
	COORD_CAPS_EMPTY, /* nothing, or only white space */
	COORD_CAPS_OPEN, /* begins a JSON object or array that is not finished */
	COORD_CAPS_JSON, /* one finished JSON object or array, perhaps white space after it */
	COORD_CAPS_OTHER, /* anything else */
};
/* *ret_end: for JSON, where the value ends, before trailing white space. May be NULL. */
enum coord_caps_text coord_caps_look(struct coord_bytes text, size_t *ret_end);

/* Text to msgpack: a JSON object or array becomes a map or array, other valid UTF-8 a string, the rest
 * binary, nothing nil. Returns 0, -EFBIG over COORD_CAPS_MAX, -ENOMEM. *ret is malloced. */
int coord_caps_encode(struct coord_bytes text, char **ret, size_t *ret_len);
/* msgpack to text, as `cat groups/g/m` prints it. -EBADMSG: does not decode (trailing bytes, bad UTF-8
 * in a str, int map keys, nesting over 32, lengths beyond the data ...), -ENOMEM. */
int coord_caps_decode(struct coord_bytes msgpack, char **ret, size_t *ret_len);
/* Checks one whole msgpack value against the bytes there are, without allocating: 0 or -EBADMSG. With
 * ret_len the value may be followed by other bytes, and its length is written. */
int coord_msgpack_check(struct coord_bytes data, size_t *ret_len);

#endif
