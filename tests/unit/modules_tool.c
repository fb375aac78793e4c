/* SPDX-License-Identifier: Apache-2.0 */
/* Prints, for each scheme that is an argument, what coord_driver_find() says, and then each driver. */
#include "coord/coord.h"

#include <stdio.h>

static void print(void *user, const struct coord_driver *driver)
{
	printf("each: %s\n", driver->name);
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const struct coord_driver *driver = NULL;
		_cleanup_free_ char *error = NULL;
		int r = coord_driver_find(argv[i], &driver, &error);
		printf("%s: %d %s\n", argv[i], r, r == 0 ? driver->name : error ? error : "");
	}
	coord_driver_each(print, NULL);
	return 0;
}
