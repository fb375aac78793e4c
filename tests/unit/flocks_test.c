/* SPDX-License-Identifier: Apache-2.0 */
/* What flock(2) and fcntl(2) say of a lock that could not be had. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fs/waits.h"

/* Whatever is wrong with the backend is ENOLCK, which callers know; the rest is told as it is. */
static void errnos(void **state)
{
	(void)state;
	static const int cases[][2] = {
		{EHOSTDOWN, ENOLCK},
		{ETIMEDOUT, ENOLCK},
		{EOPNOTSUPP, ENOLCK},
		{ESHUTDOWN, ENOLCK},
		{ECANCELED, ENOLCK},
		{ENOLCK, ENOLCK},
		{EAGAIN, EAGAIN},
		{EDEADLK, EDEADLK},
		{EINTR, EINTR},
		{EIO, EIO},
		{EACCES, EACCES},
		{ENOENT, ENOENT},
		{ENOMEM, ENOMEM},
		{0, 0},
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		assert_int_equal(fs_lock_errno(-cases[i][0]), cases[i][1]);
		assert_int_equal(fs_lock_errno(cases[i][0]), cases[i][1]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(errnos)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
