/* SPDX-License-Identifier: Apache-2.0 */
/* See session_site.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/session_site.h"

struct site site;

static bool state_is(void *user)
{
	return coord_state(CLIENT->coord) == *(enum coord_state *)user;
}

bool until_state(enum coord_state state, uint64_t ms)
{
	return sim_run_until(SIM, state_is, &state, ms);
}

struct coord_session_info info(void)
{
	struct coord_session_info ret;
	coord_session_info(CLIENT->coord, &ret);
	return ret;
}

void mounts(size_t len)
{
	struct fake_options options = site_options();
	site_open(&site, 1, &options, len);
}

void hold(struct client *client, struct coord_bytes name, struct taker *taker)
{
	assert_int_equal(taker_new(client, COORD_LOCK, name, taker), 0);
	assert_int_equal(taker_lock(taker, COORD_EXCLUSIVE, 0, 1000), 0);
}

void leave(void)
{
	coord_free(CLIENT->coord);
	CLIENT->coord = NULL;
	assert_true(site_close(&site));
}
