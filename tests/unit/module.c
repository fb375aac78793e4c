/* SPDX-License-Identifier: Apache-2.0 */
/* A driver module that does nothing, to be found, or refused. Built with NAME and ABI. */
#include "coord/driver.h"

static const char *const schemes[] = {NAME, NULL};

extern const struct coord_driver toozfs_driver;
__attribute__((visibility("default"))) const struct coord_driver toozfs_driver = {
	.abi = ABI, .name = NAME, .help = "for a test", .schemes = schemes};
