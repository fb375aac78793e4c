/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names in the backend (any bytes but none) <-> file names (percent-encoded, canonical).
 */
#ifndef COORD_NAMES_H
#define COORD_NAMES_H

#include "coord/base.h"

#define COORD_NAME_MAX 255 /* bytes of a file name */

/* Encodes `/`, `%`, 00-1F, 7F and a leading `.`; writes a NUL-ended file name of at most COORD_NAME_MAX
 * bytes. Returns 0, -EINVAL for an empty name, -ENAMETOOLONG. */
int coord_name_encode(struct coord_bytes name, char ret[COORD_NAME_MAX + 1]);
/* As it is encoded, however long, without a NUL; ret has room for three times its bytes. Returns how many. */
size_t coord_name_escape(struct coord_bytes name, char *ret);
/* Decodes a file name into ret (not NUL-ended). -EINVAL: not the canonical spelling of any name;
 * -ENAMETOOLONG. */
int coord_name_decode(struct coord_bytes file, char ret[COORD_NAME_MAX + 1], size_t *ret_len);

/* RFC 3339 in UTC with microseconds, "2024-01-02T03:04:05.000678Z"; NUL-ended. */
#define COORD_RFC3339_MAX 40
void coord_rfc3339(uint64_t utc_us, char ret[COORD_RFC3339_MAX]);

#endif
