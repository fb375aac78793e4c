/* SPDX-License-Identifier: Apache-2.0 */
/* When tooz-run begins to end its command, and when it kills it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

int tooz_run_main(int argc, char **argv);
#define main tooz_run_main
#include "mount-helpers/run/main.c"
#undef main

enum { LATE_MS = 2000 }; /* for how long this test may be kept from a core */

/* Leases as a daemon says them, what was asked for with -g, and what of it there is room for. */
static const struct {
	int64_t margin_ms, grace_ms, asked_ms, allowed_ms;
} cases[] = {
	{1375, 375, -1, 375},
	{1375, 375, 0, 0},
	{1375, 375, 200, 200},
	{1375, 375, 60000, 375},
	{2000, 1000, -1, 1000},
	{2000, 1000, 1500, 1000},
	{5000, 1000, -1, 1000},
	{5000, 1000, 3000, 3000},
	{5000, 1000, 60000, 4000},
	/* No lease. */
	{0, 0, -1, 1000},
	{0, 0, 60000, 60000},
};

/* The command has its grace, and KILL is sent a moment before the lease is over. */
static void begins_in_time(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		const struct options options = {.grace_ms = cases[i].asked_ms};
		struct board board = {.until_ms = 1000000,
			.margin_ms = cases[i].margin_ms,
			.grace_ms = cases[i].grace_ms};
		assert_int_equal(grace_allowed(&options, &board), cases[i].allowed_ms);
		assert_int_equal(end_time(&options, &board),
			1000000 - KILL_RESERVE_MS - cases[i].allowed_ms);
		board.until_ms = NEVER;
		assert_true(end_time(&options, &board) == NEVER);
	}
	assert_true(KILL_RESERVE_MS >= 100);
}

/* However late it is heard that something is lost: the command does not outlive the lease. */
static void kills_in_time(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		const struct options options = {.grace_ms = cases[i].asked_ms};
		struct board board = {
			.margin_ms = cases[i].margin_ms, .grace_ms = cases[i].grace_ms};
		int64_t now = now_ms();
		/* Much is left, or it is not leased: the grace is all that counts. */
		for (int leased = 0; leased < 2; leased++) {
			board.until_ms = leased ? now + 1000000 : NEVER;
			assert_in_range(kill_time(&options, &board), now + cases[i].allowed_ms,
				now + cases[i].allowed_ms + LATE_MS);
		}
		/* Less is left than the grace, or nothing. */
		for (int64_t left = -1000; left <= KILL_RESERVE_MS + cases[i].allowed_ms;
			left += 50) {
			board.until_ms = now + left;
			assert_true(kill_time(&options, &board) == now + left - KILL_RESERVE_MS);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(begins_in_time),
		cmocka_unit_test(kills_in_time),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
