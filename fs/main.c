/* SPDX-License-Identifier: Apache-2.0 */
/*
 * toozfs, which is also mount.tooz and mount.fuse.tooz: from the command line to a running tree and back.
 *
 * A mount takes these steps; the first that fails ends it with a line on standard error and one of
 * mount(8)'s exit codes:
 *
 *   the parent   parses the command line, finds the driver, hides secrets in argv, forks, and waits on a pipe
 *   the daemon   checks the mount point and the kernel, starts the coordinator; when that has a
 *                session, mounts; when the kernel has been answered too, turns to the background and
 *                tells its parent, which exits with 0
 *
 * Forking comes first because neither the loop nor client libraries survive it. The daemon becomes a session
 * leader only when it is ready, so that Ctrl-C at a slow start reaches it.
 *
 * The end: umount(8) or a signal -> coord_stop -> stopped -> fs_unmount. A second signal skips waiting for
 * the backend.
 */
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <syslog.h>

#include "coord/coord.h"
#include "coord/loop_uv.h"
#include "fs/checks.h"
#include "fs/fs.h"
#include "fs/options.h"
#include "fs/runfile.h"
#include "fs/usage.h"

enum { SIGNALS = 3 };

struct daemon {
	struct fs_command *command;
	char *mountpoint;
	const char *make; /* the embedded default's directory, to be made; NULL: none */
	struct coord_url url;
	const struct coord_driver *driver;
	struct coord_config *config;
	struct coord_loop *loop;
	struct coord *coord;
	struct fs *fs;
	struct fs_runfile *runfile;
	struct coord_signal *signals[SIGNALS];
	int parent; /* pipe to the parent, -1: foreground, or told */
	int exit_code; /* so far */
	bool has_session, is_mounted, is_ready, is_stopping, has_stopped;
};

/* ---- Logging ---- */

static void log_to_stderr(int level, const char *text)
{
	static const char *const prefix[] = {"", "", "", "", "warning: ", "", "", "debug: "};
	dprintf(STDERR_FILENO, "mount.tooz: %s%s\n", prefix[level & 7], text);
}

static void log_to_syslog(int level, const char *text)
{
	syslog(level, "%s", text);
}

/* ---- Secrets ---- */

/* No password in a core file, nor to be read from /proc/PID/mem by others of this user. */
static void keep_secrets(void)
{
	const struct rlimit none = {0, 0};
	setrlimit(RLIMIT_CORE, &none);
#ifndef __SANITIZE_ADDRESS__ /* whose leak check is a ptrace(2) of itself */
	prctl(PR_SET_DUMPABLE, 0);
#endif
}

/* Locks of some drivers are a descriptor each. */
static void raise_file_limit(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit))
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

/* ---- Towards the parent ---- */

/* Returns false when the parent is gone: it was killed, so nobody wants this mount any more. */
static bool tell_parent(struct daemon *d, int code)
{
	if (d->parent < 0)
		return true;
	unsigned char byte = (unsigned char)code;
	bool told = write(d->parent, &byte, 1) == 1;
	close(d->parent);
	d->parent = -1;
	return told;
}

static void point_to_null(void)
{
	int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int i = 0; fd >= 0 && i <= STDERR_FILENO; i++)
		dup2(fd, i);
	if (fd > STDERR_FILENO)
		close(fd);
}

/* Returns false when the parent is gone. */
static bool go_to_background(struct daemon *d)
{
	openlog("toozfs", LOG_PID, LOG_DAEMON);
	coord_log_to(log_to_syslog);
	coord_log_level = d->command->verbose ? LOG_DEBUG : LOG_INFO;
	setsid();
	/* Before telling: whoever reads our output through a pipe waits for its end. */
	point_to_null();
	return tell_parent(d, FS_EXIT_OK);
}

/* ---- The daemon's life ---- */

static void end(struct daemon *d)
{
	coord_loop_uv_stop(d->loop);
}

static void begin_stop(struct daemon *d)
{
	if (d->is_stopping)
		return;
	d->is_stopping = true;
	coord_stop(d->coord);
}

static void fail(struct daemon *d, int code)
{
	if (d->exit_code == FS_EXIT_OK)
		d->exit_code = code;
	begin_stop(d);
}

static void on_signal(void *user, int signum)
{
	struct daemon *d = user;
	if (signum == SIGHUP && d->is_ready && !d->command->foreground)
		return;
	if (!d->is_ready && d->exit_code == FS_EXIT_OK)
		d->exit_code = FS_EXIT_USER;
	if (d->is_stopping) {
		coord_log(LOG_WARNING, "%s again: ending without waiting for the backend",
			strsignal(signum));
		end(d);
		return;
	}
	coord_log(LOG_INFO, "%s: releasing everything", strsignal(signum));
	begin_stop(d);
}

static void on_unmounted(void *user)
{
	struct daemon *d = user;
	coord_log(LOG_INFO, "%s: unmounted", d->mountpoint);
	begin_stop(d);
}

static void on_stopped(void *user)
{
	struct daemon *d = user;
	d->has_stopped = true;
	end(d);
}

static void on_kernel_ready(void *user)
{
	struct daemon *d = user;
	if (d->is_stopping)
		return;
	if (!d->command->foreground && !go_to_background(d)) {
		fail(d, FS_EXIT_USER);
		return;
	}
	d->is_ready = true;
	coord_log(LOG_INFO, "toozfs %s: %s on %s, member %s", TOOZFS_VERSION, d->config->shown,
		d->mountpoint, d->config->member);
}

/* Mounting comes after the session, so that no tree is ever seen that could not answer. */
static void on_coord_ready(void *user, int status, const char *text)
{
	struct daemon *d = user;
	if (status < 0) {
		coord_log(LOG_ERR, "%s: %s", d->config->shown,
			text && *text ? text : strerror(-status));
		if (d->exit_code == FS_EXIT_OK)
			d->exit_code = FS_EXIT_MOUNT;
		d->is_stopping = d->has_stopped = true;
		end(d);
		return;
	}
	d->has_session = true;
	if (d->is_stopping)
		return;
	if (fs_mount(d->fs, d->coord) < 0) {
		coord_log(LOG_ERR, "%s: cannot mount", d->mountpoint);
		fail(d, FS_EXIT_MOUNT);
		return;
	}
	d->is_mounted = true;
}

/* ---- Setting up ---- */

static int check(struct daemon *d)
{
	const struct fs_command *command = d->command;
	d->mountpoint = fs_check_path(command->dir);
	if (!d->mountpoint)
		return FS_EXIT_SYSTEM;
	if (fs_check_mountpoint(d->mountpoint) < 0 || fs_check_kernel() < 0 ||
		fs_check_device() < 0)
		return FS_EXIT_MOUNT;
	if (d->make && fs_make_directory(d->make, geteuid() ? 0700 : 0755) < 0)
		return FS_EXIT_MOUNT;
	if (chdir("/"))
		return FS_EXIT_SYSTEM;
	int r = fs_runfile_new(d->mountpoint, &d->runfile);
	if (r < 0)
		coord_log(LOG_WARNING, "no file for mount.tooz --wait: %s", strerror(-r));
	return FS_EXIT_OK;
}

/* Checks the options, which takes over url. */
static int make_config(struct daemon *d)
{
	_cleanup_free_ char *error = NULL;
	const struct fs_command *command = d->command;
	int r = coord_config_new(d->driver, &d->url, command->driver_options,
		command->driver_options_len, command->user, command->password, command->member,
		&d->config, &error);
	if (r < 0) {
		coord_log(LOG_ERR, "%s", error ? error : strerror(-r));
		return r == -ENOMEM ? FS_EXIT_SYSTEM : FS_EXIT_USAGE;
	}
	d->config->read_only = command->tree.read_only;
	return FS_EXIT_OK;
}

static int make_tree(struct daemon *d)
{
	static const struct fs_events events = {.coord_ready = on_coord_ready,
		.kernel_ready = on_kernel_ready,
		.unmounted = on_unmounted,
		.coord_stopped = on_stopped};
	_cleanup_free_ char *error = NULL;
	struct fs_options tree = d->command->tree;
	tree.source = d->config->shown;
	tree.mountpoint = d->mountpoint;
	int r = fs_new(d->loop, &tree, &events, d, &d->fs);
	if (r < 0) {
		coord_log(LOG_ERR, "cannot start: %s", strerror(-r));
		return FS_EXIT_SYSTEM;
	}
	r = coord_new(d->loop, d->config, fs_notices(), d->fs, &d->coord, &error);
	if (r < 0) {
		coord_log(LOG_ERR, "%s: %s", d->config->shown, error ? error : strerror(-r));
		return r == -ENOMEM ? FS_EXIT_SYSTEM : r == -EINVAL ? FS_EXIT_USAGE : FS_EXIT_MOUNT;
	}
	return FS_EXIT_OK;
}

static int make_loop(struct daemon *d)
{
	static const int numbers[SIGNALS] = {SIGTERM, SIGINT, SIGHUP};
	int r = coord_loop_uv_new(&d->loop);
	for (int i = 0; r == 0 && i < SIGNALS; i++)
		r = coord_signal_watch(d->loop, numbers[i], on_signal, d, &d->signals[i]);
	if (r == 0)
		return FS_EXIT_OK;
	coord_log(LOG_ERR, "cannot make the loop: %s", strerror(-r));
	return FS_EXIT_SYSTEM;
}

/* What a coordinator that has not stopped uses cannot be freed. The process ends anyway. */
static void take_down(struct daemon *d)
{
	bool all = !d->coord || d->has_stopped;
	if (d->fs)
		fs_unmount(d->fs);
	if (all) {
		fs_free(d->fs);
		if (d->coord)
			coord_free(d->coord);
		else
			coord_config_free(d->config);
		for (int i = 0; i < SIGNALS; i++)
			if (d->signals[i])
				coord_signal_stop(d->signals[i]);
		coord_loop_uv_free(d->loop);
	}
	fs_runfile_free(d->runfile);
	free(d->mountpoint);
	coord_url_done(&d->url);
}

/* The daemon: returns its exit code. */
static int serve(struct daemon *d)
{
	signal(SIGPIPE, SIG_IGN);
	raise_file_limit();
	d->exit_code = check(d);
	if (d->exit_code == FS_EXIT_OK)
		d->exit_code = make_loop(d);
	if (d->exit_code == FS_EXIT_OK)
		d->exit_code = make_config(d);
	if (d->exit_code == FS_EXIT_OK)
		d->exit_code = make_tree(d);
	if (d->exit_code == FS_EXIT_OK) {
		coord_start(d->coord);
		coord_loop_uv_run(d->loop);
	}
	int code = d->exit_code;
	take_down(d);
	tell_parent(d, code);
	return code;
}

/* ---- The parent ---- */

static int await_daemon(int fd, pid_t pid)
{
	unsigned char code;
	ssize_t n;
	while ((n = read(fd, &code, 1)) < 0 && errno == EINTR)
		;
	if (n == 1 && code == FS_EXIT_OK)
		return FS_EXIT_OK;
	int status = 0;
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (n == 1)
		return code;
	if (WIFSIGNALED(status))
		coord_log(LOG_ERR, "the daemon was ended by a signal: %s",
			strsignal(WTERMSIG(status)));
	else
		coord_log(LOG_ERR, "the daemon ended without a word, with %d", WEXITSTATUS(status));
	return FS_EXIT_MOUNT;
}

/* Closes what was inherited, but for 0-2 and fd, which may get another number: a daemon must not keep a
 * caller's locked file or pipe open. */
static int keep_only(int fd)
{
	if (fd > STDERR_FILENO + 1)
		fd = dup3(fd, STDERR_FILENO + 1, O_CLOEXEC);
	close_range(STDERR_FILENO + 2, ~0u, 0);
	return fd;
}

static int run(struct daemon *d)
{
	if (d->command->foreground)
		return serve(d);
	int ends[2];
	if (pipe2(ends, O_CLOEXEC)) {
		coord_log(LOG_ERR, "cannot make a pipe: %s", strerror(errno));
		return FS_EXIT_SYSTEM;
	}
	pid_t pid = fork();
	if (pid < 0) {
		coord_log(LOG_ERR, "cannot fork: %s", strerror(errno));
		return FS_EXIT_SYSTEM;
	}
	if (pid == 0) {
		d->parent = keep_only(ends[1]);
		return serve(d);
	}
	close(ends[1]);
	coord_url_done(&d->url);
	return await_daemon(ends[0], pid);
}

/* ---- URL and driver ---- */

/* The directory of the embedded default; owned by the caller, NULL after the reason was logged. */
static char *embedded_path(void)
{
	char *path = NULL;
	const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
	int n;
	if (geteuid() == 0)
		n = asprintf(&path, "/var/lib/tooz");
	else if (state && *state == '/')
		n = asprintf(&path, "%s/tooz", state);
	else if (home && *home == '/')
		n = asprintf(&path, "%s/.local/state/tooz", home);
	else {
		coord_log(LOG_ERR,
			"neither XDG_STATE_HOME nor HOME says where the embedded default may be");
		return NULL;
	}
	if (n < 0) {
		coord_log(LOG_ERR, "out of memory");
		return NULL;
	}
	if (!path[strcspn(path, "?#;")])
		return path;
	coord_log(LOG_ERR, "%s cannot be written as a URL; give a file:// URL", path);
	free(path);
	return NULL;
}

static int parse_url(struct daemon *d, char **ret_make)
{
	_cleanup_free_ char *text = NULL, *error = NULL;
	const char *given = d->command->url;
	bool embedded = !strcmp(given, "none") || !strcmp(given, "tooz");
	if (embedded) {
		*ret_make = embedded_path();
		if (!*ret_make || asprintf(&text, "file://%s", *ret_make) < 0)
			return FS_EXIT_USAGE;
		d->make = *ret_make;
	}
	int r = coord_url_parse(embedded ? text : given, &d->url, &error);
	if (r == 0)
		r = coord_driver_find(d->url.scheme, &d->driver, &error);
	if (r == 0)
		return FS_EXIT_OK;
	coord_log(LOG_ERR, "%s", error ? error : strerror(-r));
	return r == -ENOMEM ? FS_EXIT_SYSTEM : FS_EXIT_USAGE;
}

static void hide_secrets(struct daemon *d, int argc, char **argv)
{
	const char *url = d->command->url;
	if (!strcmp(url, "none") || !strcmp(url, "tooz"))
		url = NULL;
	_cleanup_free_ char *shown = d->driver ? coord_url_scrub(&d->url, d->driver->params) : NULL;
	fs_command_hide(argc, argv, url, shown);
}

static int check_required(const struct daemon *d)
{
	unsigned missing = d->command->require & ~d->driver->characteristics;
	const char *name;
	for (unsigned bit = 0; (name = coord_characteristic_name(bit)); bit++)
		if (missing & 1u << bit)
			coord_log(LOG_ERR, "require=%s: the driver %s does not have it", name,
				d->driver->name);
	return missing ? FS_EXIT_MOUNT : FS_EXIT_OK;
}

/* DIR is made absolute here, before anybody changes directory or namespace. */
static int prepare(struct daemon *d)
{
	struct fs_command *command = d->command;
	int code = check_required(d);
	if (code != FS_EXIT_OK)
		return code;
	if (fs_command_match(command, d->driver->params) < 0)
		return FS_EXIT_USAGE;
	char *cwd = *command->dir == '/' ? NULL : getcwd(NULL, 0), *dir = NULL;
	if (*command->dir != '/' && (!cwd || asprintf(&dir, "%s/%s", cwd, command->dir) < 0)) {
		coord_log(LOG_ERR, "%s: %s", command->dir, strerror(errno));
		code = FS_EXIT_SYSTEM;
	} else if (dir) {
		free(command->dir);
		command->dir = dir;
	}
	free(cwd);
	if (code == FS_EXIT_OK && command->mnt_ns && fs_enter_namespace(command->mnt_ns) < 0)
		code = FS_EXIT_MOUNT;
	return code;
}

static int check_only(struct daemon *d)
{
	int code = make_config(d);
	coord_config_free(d->config);
	coord_url_done(&d->url);
	return code;
}

static int mount_tree(struct fs_command *command, int argc, char **argv)
{
	if (command->remount) {
		coord_log(LOG_ERR, "a tree cannot be remounted: unmount it, and mount it again");
		return FS_EXIT_MOUNT;
	}
	_cleanup_free_ char *make = NULL;
	struct daemon d = {.command = command, .parent = -1};
	int code = parse_url(&d, &make);
	hide_secrets(&d, argc, argv);
	if (code == FS_EXIT_OK)
		code = prepare(&d);
	if (code != FS_EXIT_OK)
		coord_url_done(&d.url);
	else
		code = command->fake ? check_only(&d) : run(&d);
	return code;
}

static int wait_for_end(const struct fs_command *command)
{
	_cleanup_free_ char *path = fs_check_path(command->dir);
	int r = path ? fs_runfile_wait(path) : -ENOMEM;
	if (r == 0)
		return FS_EXIT_OK;
	coord_log(LOG_ERR, "%s: %s", command->dir, strerror(-r));
	return FS_EXIT_SYSTEM;
}

static int act(struct fs_command *command, int argc, char **argv)
{
	switch (command->action) {
	case FS_HELP:
		return fs_usage_help() < 0 ? FS_EXIT_SYSTEM : FS_EXIT_OK;
	case FS_VERSION:
		return fs_usage_version() < 0 ? FS_EXIT_SYSTEM : FS_EXIT_OK;
	case FS_DRIVERS:
		return fs_usage_drivers() < 0 ? FS_EXIT_SYSTEM : FS_EXIT_OK;
	case FS_WAIT:
		return wait_for_end(command);
	case FS_MOUNT:
		return mount_tree(command, argc, argv);
	}
	return FS_EXIT_USAGE;
}

/* A large listing is some MiB in pieces that live as long as its answer. By default they would be given
 * back to the kernel each time, and clearing the same pages anew costs more than the listing. */
static void keep_memory(void)
{
	mallopt(M_MMAP_THRESHOLD, 8 << 20);
	mallopt(M_TRIM_THRESHOLD, 16 << 20);
}

int main(int argc, char **argv)
{
	keep_secrets();
	keep_memory();
	coord_log_to(log_to_stderr);
	coord_log_level = LOG_WARNING;
	struct fs_command command;
	int code = FS_EXIT_USAGE;
	int r = fs_command_parse(argc, argv, &command);
	if (command.verbose || command.foreground)
		coord_log_level = command.verbose ? LOG_DEBUG : LOG_INFO;
	if (r == 0)
		code = act(&command, argc, argv);
	else if (r == -ENOMEM)
		code = FS_EXIT_SYSTEM;
	fs_command_done(&command);
	return code;
}
