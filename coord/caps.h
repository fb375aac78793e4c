/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Capabilities: text that users write and read <-> msgpack that tooz stores (oslo.serialization's
 * msgpackutils).
 */
#ifndef COORD_CAPS_H
#define COORD_CAPS_H

#include "coord/base.h"

#define COORD_CAPS_MAX (1u << 20) /* bytes of text */
#define COORD_CAPS_DEPTH 32 /* arrays and maps in each other */

/* How far a text has come, for deciding when a write is complete. */
enum coord_caps_text {
	COORD_CAPS_EMPTY, /* nothing, or only white space */
	COORD_CAPS_OPEN, /* begins a JSON object or array that is not finished */
	COORD_CAPS_JSON, /* one finished JSON object or array, perhaps white space after it */
	COORD_CAPS_OTHER, /* anything else */
};
/* Only strict RFC 8259 JSON counts, and only what msgpack can represent: no integer beyond 64 bits, no
 * real beyond a double, no half of a surrogate pair, no deeper than COORD_CAPS_DEPTH. A text that can
 * not become such JSON any more is OTHER at once. One pass, no memory.
 * *ret_end: for JSON, where the value ends, before trailing white space; for OTHER that begins with a
 * finished value, where that ends; else 0. May be NULL. */
enum coord_caps_text coord_caps_look(struct coord_bytes text, size_t *ret_end);

/* Text to msgpack: a JSON object or array becomes a map or array, other valid UTF-8 a string, the rest
 * binary, nothing nil. Of members of one name the last counts. Returns 0, -EFBIG over
 * COORD_CAPS_MAX, -ENOMEM. *ret is malloced. */
int coord_caps_encode(struct coord_bytes text, char **ret, size_t *ret_len);
/*
 * msgpack to text, as `cat groups/g/m` prints it. -EBADMSG: does not decode (trailing bytes, bad UTF-8
 * in a str, int map keys, nesting over COORD_CAPS_DEPTH, lengths beyond the data ...), -ENOMEM. *ret
 * is malloced, and a NUL follows it.
 *
 * str and bin come back byte for byte, nil is empty, all else is one line of compact JSON:
 *   bin in a map or array, or as a key: a string; where it is not UTF-8, "data:;base64,..."
 *   real: the shortest text that reads back the same; "NaN", "Infinity", "-Infinity" are strings
 *   UUID: "01234567-89ab-..."; set, frozenset: array; itertools.count: [start,step]
 *   datetime, xmlrpc's too: "2024-01-02T03:04:05.000678", with Z for UTC, [Europe/Berlin] for others
 *   date: "2024-01-02"; msgpack's timestamp: as a datetime in UTC, to the nanosecond
 *   netaddr.IPAddress: "192.0.2.1" or "::1:0:0"
 *   any other extension: "data:;base64,..." of its bytes
 * An extension of these whose bytes do not decode is -EBADMSG, as it is in Python.
 */
int coord_caps_decode(struct coord_bytes msgpack, char **ret, size_t *ret_len);
/* Checks one whole msgpack value against the bytes there are, without allocating: 0 or -EBADMSG. With
 * ret_len the value may be followed by other bytes, and its length is written. */
int coord_msgpack_check(struct coord_bytes data, size_t *ret_len);
/* The weight on a hash ring that a member with these capabilities has in tooz: the int at the str key
 * "weight" of a map, and 1 without one. true is 1, as in Python; false, 0 and below are 0: not on the ring. What
 * tooz's Partitioner fails on is 1 too: capabilities that are no map or do not decode, a weight that is
 * no int. */
uint64_t coord_caps_weight(struct coord_bytes msgpack);
bool coord_utf8_valid(struct coord_bytes text);

#endif
