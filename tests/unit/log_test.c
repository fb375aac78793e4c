/* SPDX-License-Identifier: Apache-2.0 */
/* The log: levels, and one line a call whatever a server said. */
#include "coord/driver.h"
#include "tests/unit/unit.h"

#include <syslog.h>

static char last[2048];
static int last_level, calls;

static void sink(int level, const char *text)
{
	last_level = level;
	calls++;
	snprintf(last, sizeof(last), "%s", text);
}

static void test_lines(void **state)
{
	coord_log_to(sink);
	errno = ENOENT;
	coord_log(LOG_WARNING, "said %s", "a\nb\x1b[0m\x7f");
	assert_int_equal(errno, ENOENT);
	assert_string_equal(last, "said a b [0m ");
	assert_int_equal(last_level, LOG_WARNING);
	coord_log(LOG_DEBUG, "unseen");
	assert_int_equal(calls, 1);
	char *longer = calloc(1, 5000);
	assert_non_null(longer);
	memset(longer, 'x', 4999);
	coord_log(LOG_ERR, "%s", longer);
	free(longer);
	assert_int_equal(strlen(last), 1023);
	coord_log_to(NULL);
	coord_log(LOG_INFO, "to standard error");
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_lines)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
