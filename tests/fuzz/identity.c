/* SPDX-License-Identifier: Apache-2.0 */
/* Any text as an identity, as it may stand in a store: refused, or the one spelling of what it says. */
#include "coord/config.h"
#include "tests/fuzz/fuzz.h"

/* Nobody in particular, so that the corpus does not depend on where it was made. */
static const struct coord_identity self = {
	.host = "h", .machine = "m", .boot = "b", .pidns = 1, .pid = 2, .start = 3};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct coord_bytes input = {(const char *)data, len};
	struct coord_identity id;
	if (coord_identity_parse(input, &id) < 0)
		return 0;
	char text[COORD_IDENTITY_MAX];
	size_t text_len = coord_identity_format(&id, text);
	must(coord_bytes_equal(input, (struct coord_bytes){text, text_len}));
	if (coord_identity_compare(&self, &id) == COORD_CLAIM_OURS)
		must(id.pid == self.pid && id.start == self.start);
	/* As if it came from this boot, so that its pid is looked at. */
	memcpy(id.machine, self.machine, sizeof(id.machine));
	memcpy(id.boot, self.boot, sizeof(id.boot));
	id.pidns = self.pidns;
	coord_identity_compare(&self, &id);
	return 0;
}
