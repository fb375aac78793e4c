/* SPDX-License-Identifier: Apache-2.0 */
#include "coord/driver.h"

static const char *const schemes[] = {"zookeeper", NULL};

const struct coord_driver toozfs_driver __attribute__((visibility("default"))) = {
	.abi = COORD_DRIVER_ABI,
	.name = "zookeeper",
	.schemes = schemes,
};
