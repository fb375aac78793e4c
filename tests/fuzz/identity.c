/* SPDX-License-Identifier: Apache-2.0 */
/* Any text as an identity, as it may stand in a store: refused, or the one spelling of what it says. */
#include "coord/config.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static struct coord_identity self;
	if (!self.pid)
		must(coord_identity_self(&self) == 0);
	struct coord_bytes input = {(const char *)data, len};
	struct coord_identity id;
	if (coord_identity_parse(input, &id) < 0)
		return 0;
	char text[COORD_IDENTITY_MAX];
	size_t text_len = coord_identity_format(&id, text);
	must(coord_bytes_equal(input, (struct coord_bytes){text, text_len}));
	must(coord_identity_compare(&self, &id) != COORD_CLAIM_OURS);
	/* As if it came from this machine, so that its pid is looked at. */
	memcpy(id.machine, self.machine, sizeof(id.machine));
	memcpy(id.boot, self.boot, sizeof(id.boot));
	id.pidns = self.pidns;
	coord_identity_compare(&self, &id);
	return 0;
}
