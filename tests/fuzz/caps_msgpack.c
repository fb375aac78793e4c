/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes from a store: refused, or shown as text that means the same when it is written back. */
#include "coord/caps.h"
#include "tests/fuzz/fuzz.h"

#include <msgpack.h>

static uint64_t library_weight(const msgpack_object *caps)
{
	uint64_t weight = 1;
	for (size_t i = 0; caps->type == MSGPACK_OBJECT_MAP && i < caps->via.map.size; i++) {
		const msgpack_object *key = &caps->via.map.ptr[i].key,
				     *val = &caps->via.map.ptr[i].val;
		if (key->type != MSGPACK_OBJECT_STR || key->via.str.size != 6 ||
			memcmp(key->via.str.ptr, "weight", 6) != 0)
			continue;
		weight = val->type == MSGPACK_OBJECT_POSITIVE_INTEGER   ? val->via.u64
			 : val->type == MSGPACK_OBJECT_NEGATIVE_INTEGER ? 0
			 : val->type == MSGPACK_OBJECT_BOOLEAN          ? val->via.boolean
									: 1;
	}
	return weight;
}

/* What our walk passes, the library reads as one value. */
static void check_library(struct coord_bytes stored)
{
	msgpack_unpacked value;
	msgpack_unpacked_init(&value);
	size_t off = 0;
	msgpack_unpack_return r = msgpack_unpack_next(&value, stored.data, stored.len, &off);
	must(r == MSGPACK_UNPACK_SUCCESS && off == stored.len);
	must(coord_caps_weight(stored) == library_weight(&value.data));
	msgpack_unpacked_destroy(&value);
}

/* Text to msgpack and back. */
static struct coord_bytes there_and_back(struct coord_bytes text)
{
	char *stored, *shown;
	size_t stored_len, shown_len;
	must(coord_caps_encode(text, &stored, &stored_len) == 0);
	must(coord_caps_decode((struct coord_bytes){stored, stored_len}, &shown, &shown_len) == 0);
	free(stored);
	return (struct coord_bytes){shown, shown_len};
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct coord_bytes stored = {(const char *)data, len};
	char *text;
	size_t text_len, prefix;
	int r = coord_caps_decode(stored, &text, &text_len);
	must(r == 0 || r == -EBADMSG);
	must(coord_msgpack_check(stored, NULL) == r);
	must(r == 0 || coord_caps_weight(stored) == 1);
	if (coord_msgpack_check(stored, &prefix) == 0) {
		must(prefix > 0 && prefix <= len);
		must(coord_msgpack_check((struct coord_bytes){stored.data, prefix}, NULL) == 0);
	}
	if (r < 0)
		return 0;
	check_library(stored);
	if (text_len <= COORD_CAPS_MAX) {
		/* Of a name that is there twice the last one stays, so look at the second round. */
		struct coord_bytes once = there_and_back((struct coord_bytes){text, text_len});
		struct coord_bytes twice = there_and_back(once);
		must(coord_bytes_equal(once, twice));
		free((char *)once.data);
		free((char *)twice.data);
	}
	free(text);
	return 0;
}
