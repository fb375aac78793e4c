/* SPDX-License-Identifier: Apache-2.0 */
/* Finding drivers: registered ones, unknown schemes, modules that are not there. */
#include "coord/coord.h"
#include "tests/unit/unit.h"

static const char *const schemes[] = {"test", "test+tls", NULL};
static const struct coord_driver driver = {
	.abi = COORD_DRIVER_ABI, .name = "test", .schemes = schemes};

static void test_find(void **state)
{
	const struct coord_driver *found = NULL;
	char *error;
	assert_int_equal(coord_driver_find("test+tls", &found, &error), 0);
	assert_ptr_equal(found, &driver);
	assert_null(error);
}

static void test_unknown(void **state)
{
	static const char *const unknown[] = {"", "tes", "nosuch", "../redis", "toozfs"};
	for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
		const struct coord_driver *found = NULL;
		char *error;
		assert_int_equal(coord_driver_find(unknown[i], &found, &error), -ENOENT);
		assert_null(found);
		assert_non_null(strstr(error, "there are: test, test+tls"));
		assert_non_null(strstr(error, "etcd3+https"));
		free(error);
	}
}

static void test_missing(void **state)
{
	const struct coord_driver *found = NULL;
	char *error;
	int r = coord_driver_find("consul", &found, &error);
	if (r == 0)
		skip();
	assert_int_equal(r, -ENOENT);
	assert_non_null(strstr(error, "consul.so"));
	assert_non_null(strstr(error, "toozfs-consul"));
	free(error);
}

static void count(void *user, const struct coord_driver *each)
{
	assert_int_equal(each->abi, COORD_DRIVER_ABI);
	*(int *)user += each == &driver;
}

static void test_each(void **state)
{
	int found = 0;
	coord_driver_each(count, &found);
	assert_int_equal(found, 1);
}

static void test_characteristics(void **state)
{
	assert_string_equal(coord_characteristic_name(0), "NON_TIMEOUT_BASED");
	assert_int_equal(COORD_SAME_VIEW_ACROSS_CLIENTS, 1 << 10);
	assert_string_equal(coord_characteristic_name(10), "SAME_VIEW_ACROSS_CLIENTS");
	assert_null(coord_characteristic_name(11));
}

int main(void)
{
	coord_driver_register(&driver);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_find),
		cmocka_unit_test(test_unknown),
		cmocka_unit_test(test_missing),
		cmocka_unit_test(test_each),
		cmocka_unit_test(test_characteristics),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
