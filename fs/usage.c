/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What mount.tooz says about itself: --help, --version, --drivers.
 *
 * --drivers prints the very tables that parse the options, so it cannot be out of date; tests compare
 * it with the pages in docs/drivers/.
 */
#include <stdio.h>

#include "coord/coord.h"
#include "fs/usage.h"

static const char help_text[] =
	"usage: mount.tooz URL DIR [-sfnv] [-N NS] [-o OPTIONS] [-t TYPE.SUBTYPE]\n"
	"       mount.tooz --wait DIR | --drivers | --help | --version\n"
	"\n"
	"Mounts the coordination tree of a backend, so that flock(1), ls(1) and cat(1) work as\n"
	"distributed locks, group membership and leader election.\n"
	"\n"
	"  URL  a tooz connection string, as in file:///var/lib/tooz; none or tooz: the embedded\n"
	"       default, file:///var/lib/tooz (not root: under $XDG_STATE_HOME, ~/.local/state)\n"
	"  -f   fake: check URL and options, mount nothing\n"
	"  -s   skip options of -o that nobody knows, with a warning\n"
	"  -v   say more\n"
	"  -n   accepted (there is no /etc/mtab to write)\n"
	"  -N   mount in this mount namespace: a pid or a path\n"
	"  --wait DIR  after umount: return when every daemon that serves DIR, or served it, has "
	"ended\n"
	"  --drivers   the drivers, their URL options, and what each can do\n"
	"\n"
	"  -o, separated by commas:\n"
	"    member=ID               this mount's member id (the host name); a second mount of "
	"one\n"
	"                            store on one host needs its own\n"
	"    timeout=SECONDS         the deadline of one operation, and the default of the leases "
	"(10)\n"
	"    lock_timeout=SECONDS    the lease of locks (timeout)\n"
	"    membership_timeout=SECONDS  the lease of members (timeout)\n"
	"    namespace=TEXT          for drivers that have it: a prefix for every key\n"
	"    partitions=N            of the hash ring in rings/ (32); the same on all hosts\n"
	"    on_loss=none|term|hup|kill  the signal for who held a lock that was lost (none)\n"
	"    require=NAME[:NAME...]  characteristics that the driver must have, else no mount\n"
	"    credentials=FILE        lines username=, password=; nobody else may read the file\n"
	"    uid=, gid=, umask=      the owner of the tree, and modes (who mounts, 022)\n"
	"    allow_other             other users too, as the modes say\n"
	"    ro                      an observer: joins and locks nothing\n"
	"    foreground              do not go into the background, log to standard error\n"
	"  Options of the driver (see --drivers) and the three time-outs may stand here or in the\n"
	"  URL, as in file:///srv/tooz?timeout=5; -o wins. Those of mount(8) are accepted too.\n";

static int flushed(void)
{
	return fflush(stdout) || ferror(stdout) ? -EIO : 0;
}

int fs_usage_help(void)
{
	fputs(help_text, stdout);
	return flushed();
}

int fs_usage_version(void)
{
	printf("toozfs %s\n", TOOZFS_VERSION);
	return flushed();
}

/* ---- --drivers ---- */

static const char *type_name(enum coord_param_type type)
{
	switch (type) {
	case COORD_PARAM_STRING:
		return "TEXT";
	case COORD_PARAM_BOOL:
		return "BOOL";
	case COORD_PARAM_UINT:
		return "NUMBER";
	case COORD_PARAM_SECONDS:
		return "SECONDS";
	}
	return "?";
}

static const char *loss_text(enum coord_loss loss)
{
	switch (loss) {
	case COORD_LOSS_LEASE:
		return "lost when its lease is not renewed in time";
	case COORD_LOSS_CONNECTION:
		return "lost when the connection drops";
	case COORD_LOSS_PROCESS:
		return "lost only when the daemon dies, or when it is broken";
	}
	return "?";
}

static void print_can(unsigned can)
{
	static const char *const names[] = {"queue", "shared", "convert", "notify", "list-all",
		"break", "leader-id", "ordered", "groups"};
	_Static_assert(
		COORD_CAN_ALL == (1 << sizeof(names) / sizeof(names[0])) - 1, "a name for each");
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (can & 1u << i)
			printf(" %s", names[i]);
}

static void print_params(const struct coord_param *params)
{
	for (; params && params->name; params++) {
		printf("    %s=%s", params->name, type_name(params->type));
		if (params->def && !(params->flags & COORD_PARAM_SECRET))
			printf(" [%s]", params->def);
		printf("  %s%s%s%s\n", params->help ? params->help : "",
			params->flags & COORD_PARAM_LIST ? " (may be repeated)" : "",
			params->flags & COORD_PARAM_SECRET ? " (never shown)" : "",
			params->flags & COORD_PARAM_IGNORED ? " (accepted, has no effect here)"
							    : "");
	}
}

static void print_driver(void *user, const struct coord_driver *driver)
{
	printf("%s: %s\n  schemes:", driver->name, driver->help);
	for (const char *const *scheme = driver->schemes; *scheme; scheme++)
		printf(" %s://", *scheme);
	printf("\n  can:");
	print_can(driver->can);
	printf("\n  a lock is %s\n", loss_text(driver->loss[COORD_LOCK]));
	printf("  a leadership is %s\n", loss_text(driver->loss[COORD_LEADER]));
	printf("  a membership is %s\n", loss_text(driver->loss[COORD_MEMBER]));
	printf("  characteristics:");
	const char *name;
	for (unsigned bit = 0; (name = coord_characteristic_name(bit)); bit++)
		if (driver->characteristics & 1u << bit)
			printf(" %s", name);
	printf("\n  options:\n");
	print_params(driver->params);
	printf("\n");
}

int fs_usage_drivers(void)
{
	coord_driver_each(print_driver, NULL);
	printf("every driver:\n  options:\n");
	print_params(coord_common_params);
	return flushed();
}
