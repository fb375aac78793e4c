/* SPDX-License-Identifier: Apache-2.0 */
/* Any text: it is stored as what it looks like, comes back, and JSON is open until it is finished. */
#include "coord/caps.h"
#include "tests/fuzz/fuzz.h"

static void encode(struct coord_bytes text, struct coord_bytes *ret)
{
	char *data;
	must(coord_caps_encode(text, &data, &ret->len) == 0);
	ret->data = data;
	must(coord_msgpack_check(*ret, NULL) == 0);
}

static void decode(struct coord_bytes msgpack, struct coord_bytes *ret)
{
	char *data;
	must(coord_caps_decode(msgpack, &data, &ret->len) == 0);
	ret->data = data;
}

/* Shown again, the stored value is the same value. */
static void check_json(struct coord_bytes stored, struct coord_bytes shown)
{
	struct coord_bytes again;
	must(coord_caps_look(shown, NULL) == COORD_CAPS_JSON);
	must(shown.data[shown.len - 1] == '\n');
	if (shown.len > COORD_CAPS_MAX)
		return;
	encode(shown, &again);
	must(coord_bytes_equal(stored, again));
	free((char *)again.data);
}

static void check_beginnings(struct coord_bytes text, size_t end)
{
	for (size_t i = 0; i < end && i < 300; i++) {
		struct coord_bytes beginning = {text.data, i};
		enum coord_caps_text kind = coord_caps_look(beginning, NULL);
		must(kind == COORD_CAPS_OPEN || kind == COORD_CAPS_EMPTY);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct coord_bytes text = {(const char *)data, len}, stored, shown;
	size_t end;
	enum coord_caps_text kind = coord_caps_look(text, &end);
	check_beginnings(text, end);
	encode(text, &stored);
	decode(stored, &shown);
	if (kind == COORD_CAPS_JSON)
		check_json(stored, shown);
	else
		must(coord_bytes_equal(text, shown));
	free((char *)stored.data);
	free((char *)shown.data);
	return 0;
}
