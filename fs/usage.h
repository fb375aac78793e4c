/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What mount.tooz says about itself: --help, --version, --drivers.
 */
#ifndef FS_USAGE_H
#define FS_USAGE_H

/* Each prints on standard output. Returns 0, or -EIO when it could not be written. */
int fs_usage_help(void);
int fs_usage_version(void);
/* Every driver there is: its schemes, what it can do, its options with their defaults. */
int fs_usage_drivers(void);

#endif
