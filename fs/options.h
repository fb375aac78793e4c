/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line of mount.tooz, and what stands behind -o.
 */
#ifndef FS_OPTIONS_H
#define FS_OPTIONS_H

#include "coord/config.h"
#include "fs/fs.h"

/* Exit codes, mount(8)'s. */
enum fs_exit {
	FS_EXIT_OK = 0,
	FS_EXIT_USAGE = 1, /* incorrect invocation, or not allowed */
	FS_EXIT_SYSTEM = 2, /* out of memory, cannot fork ... */
	FS_EXIT_USER = 8, /* interrupted */
	FS_EXIT_MOUNT = 32, /* the mount failed */
};

enum fs_action { FS_MOUNT, FS_HELP, FS_VERSION, FS_DRIVERS, FS_WAIT };

/* What was asked for. Every string is owned. */
struct fs_command {
	enum fs_action action;
	bool fake; /* -f: everything but the mount itself */
	bool sloppy; /* -s: unknown options are skipped */
	bool verbose; /* -v */
	bool foreground; /* -o foreground */
	bool remount; /* -o remount, which is refused */
	char *url, *dir; /* as given */
	char *mnt_ns; /* -N: a pid, or the path of a mount namespace; NULL: ours */
	char *member; /* NULL: the host name */
	char *user, *password; /* from credentials=FILE */
	unsigned require; /* characteristics that the driver must have */
	struct fs_options tree; /* source and mountpoint are left to main */
	char *fuse_options; /* what tree.fuse_options points to */
	struct coord_option *driver_options; /* whatever is not ours */
	size_t driver_options_len;
};

/* Parses the command line. Returns 0, -EINVAL (the user's mistake) or -ENOMEM; the reason was logged.
 * The structure may be passed to fs_command_done in any case. */
int fs_command_parse(int argc, char **argv, struct fs_command *);
void fs_command_done(struct fs_command *);

/* Overwrites in argv, as ps(1) shows it, what may be secret: the URL becomes shown, values of driver
 * options become x. Call it after fs_command_parse. shown NULL: the whole URL becomes x. */
void fs_command_hide(int argc, char **argv, const char *url, const char *shown);

/* Compares the driver options with the driver's table: an option given without a value must be a BOOL and
 * becomes "1"; with -s unknown ones are taken away, else they stay for coord_config_new to refuse.
 * Returns 0, or -EINVAL or -ENOMEM and the reason was logged. */
int fs_command_match(struct fs_command *, const struct coord_param *params);
/* After coord_config_new refused an option: if the driver does not know one, says which are mount.tooz's own. */
void fs_command_log_known(const struct fs_command *, const struct coord_param *params);

#endif
