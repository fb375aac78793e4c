/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a name, and as a file name: the mapping is a bijection. */
#include "coord/names.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct coord_bytes input = {(const char *)data, len};
	char file[COORD_NAME_MAX + 1], name[COORD_NAME_MAX + 1];
	size_t name_len;
	if (coord_name_encode(input, file) == 0) {
		must(strlen(file) <= COORD_NAME_MAX && file[0] != '.' && !strchr(file, '/'));
		must(coord_name_decode(coord_bytes_of(file), name, &name_len) == 0);
		must(coord_bytes_equal(input, (struct coord_bytes){name, name_len}));
	}
	if (coord_name_decode(input, name, &name_len) == 0) {
		must(coord_name_encode((struct coord_bytes){name, name_len}, file) == 0);
		must(coord_bytes_equal(input, coord_bytes_of(file)));
	}
	return 0;
}
