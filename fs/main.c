/* SPDX-License-Identifier: Apache-2.0 */
/*
 * toozfs, which is also mount.tooz and mount.fuse.tooz: from the command line to a running tree and back.
 *
 * A mount takes these steps; the first that fails ends it with a line on standard error and one of
 * mount(8)'s exit codes:
 *
 *   the parent   parses the command line, finds the driver, hides secrets in argv, forks, and waits on a
 *                socket
 *   the daemon   checks the options; waits for an earlier daemon of this mount point to end; checks the mount
 *                point and the kernel, starts the coordinator; when that has a session, mounts; when the
 *                kernel has been answered too, turns to the background and tells its parent, which exits
 *                with 0
 *
 * Forking comes first because neither the loop nor client libraries survive it. The daemon becomes a session
 * leader only when it is ready, so that Ctrl-C at a slow start reaches it. A signal for the parent alone ends
 * its side of the socket, which the daemon takes as one; the exit code is the daemon's in any case.
 *
 * The end: umount(8) or a signal -> coord_stop -> stopped -> fs_unmount. A second signal skips waiting for
 * holders that were told; one that finds no such wait skips waiting for the backend.
 */
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <syslog.h>

#include "coord/coord.h"
#include "coord/loop_uv.h"
#include "fs/checks.h"
#include "fs/fs.h"
#include "fs/log.h"
#include "fs/options.h"
#include "fs/runfile.h"
#include "fs/usage.h"

#define LOOK_MS 20 /* between two looks at an earlier daemon that ends */
#define PATIENCE_MS 1000 /* until it is said that it is waited for */
#define FILES_MIN 1024

enum { SIGNALS = 3 };
static const int numbers[SIGNALS] = {SIGTERM, SIGINT, SIGHUP};

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
	struct coord_timer start_timer;
	uint64_t asked_ms; /* BOOTTIME when the start was asked for */
	int pidfd; /* of the daemon before, while its end is awaited; else -1 */
	struct coord_fd *pidfd_watch;
	bool has_predecessor, is_said; /* it did not end in time; that it is waited for */
	int parent; /* socket to the parent, -1: foreground, or told */
	struct coord_fd *parent_watch;
	int exit_code; /* so far */
	bool has_started, is_ready, is_stopping, has_stopped;
	bool is_deserted; /* by the parent, perhaps for a signal that we get too */
};

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
	if (limit.rlim_max < FILES_MIN)
		coord_log(LOG_WARNING,
			"only %llu open files are allowed (ulimit -Hn); a lock may take two each",
			(unsigned long long)limit.rlim_max);
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
	coord_fd_stop(d->parent_watch);
	d->parent_watch = NULL;
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
	coord_timer_stop(d->loop, &d->start_timer);
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
	if (d->is_deserted) {
		d->is_deserted = false;
		return;
	}
	if (!d->is_ready && d->exit_code == FS_EXIT_OK)
		d->exit_code = FS_EXIT_USER;
	if (d->is_stopping && coord_stop_hurry(d->coord)) {
		coord_log(LOG_WARNING, "%s again: releasing without waiting for those who held",
			strsignal(signum));
		return;
	}
	if (d->is_stopping) {
		coord_log(LOG_WARNING, "%s again: ending without waiting for the backend",
			strsignal(signum));
		end(d);
		return;
	}
	if (d->is_ready)
		coord_log(LOG_INFO, "%s: releasing everything", strsignal(signum));
	else
		coord_log(LOG_ERR, "%s: interrupted by a signal (%s), nothing is mounted",
			d->mountpoint, strsignal(signum));
	begin_stop(d);
}

/* The parent was interrupted, or killed. */
static void on_parent(void *user, int status)
{
	struct daemon *d = user;
	coord_fd_stop(d->parent_watch);
	d->parent_watch = NULL;
	if (d->is_stopping)
		return;
	coord_log(LOG_ERR, "%s: interrupted, nothing is mounted", d->mountpoint);
	d->is_deserted = true;
	fail(d, FS_EXIT_USER);
}

static void on_unmounted(void *user)
{
	struct daemon *d = user;
	coord_log(LOG_INFO, "unmounted");
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
	int r = fs_log_start(d->mountpoint, d->command->foreground);
	if (r < 0) {
		coord_log(LOG_ERR, "%s: cannot start the log: %s", d->mountpoint, strerror(-r));
		fail(d, FS_EXIT_SYSTEM);
		return;
	}
	if (!d->command->foreground && !go_to_background(d)) {
		fail(d, FS_EXIT_USER);
		return;
	}
	d->is_ready = true;
	coord_log(LOG_INFO, "toozfs %s: %s on %s, member %s", TOOZFS_VERSION, d->config->shown,
		d->mountpoint, d->config->member);
}

/* What this process may not have is a matter of the system, whoever met it. */
static int exit_code_of(int r)
{
	switch (r) {
	case -EINVAL:
		return FS_EXIT_USAGE;
	case -ENOMEM:
	case -EAGAIN:
	case -EMFILE:
	case -ENFILE:
		return FS_EXIT_SYSTEM;
	default:
		return FS_EXIT_MOUNT;
	}
}

static void log_failure(const struct daemon *d, int status, const char *text)
{
	coord_log(LOG_ERR, "%s: %s", d->config->shown, text && *text ? text : strerror(-status));
	if (status == -EAGAIN || status == -ENOMEM)
		coord_log(LOG_ERR,
			"no memory or no thread to be had; limits of this process (ulimit "
			"-v, -u) or of its group (TasksMax=, MemoryMax=) may be too low");
	if (d->has_predecessor)
		coord_log(LOG_ERR,
			"an earlier daemon of %s has not ended yet; mount.tooz --wait %s waits for "
			"it",
			d->mountpoint, d->mountpoint);
}

/* Mounting comes after the session, so that no tree is ever seen that could not answer. */
static void on_coord_ready(void *user, int status, const char *text)
{
	struct daemon *d = user;
	if (status < 0) {
		log_failure(d, status, text);
		if (d->exit_code == FS_EXIT_OK)
			d->exit_code = status == -EINVAL ? FS_EXIT_MOUNT : exit_code_of(status);
		d->is_stopping = d->has_stopped = true;
		end(d);
		return;
	}
	if (d->is_stopping)
		return;
	int r = fs_mount(d->fs, d->coord);
	if (r == 0)
		return;
	coord_log(LOG_ERR, "%s: cannot mount: %s", d->mountpoint, strerror(-r));
	fail(d, FS_EXIT_MOUNT);
}

/* ---- Setting up ---- */

static int check(struct daemon *d)
{
	if (fs_check_mountpoint(d->mountpoint) < 0 || fs_check_kernel() < 0 ||
		fs_check_device() < 0)
		return FS_EXIT_MOUNT;
	/* Whoever can read a file of it can keep others from locking that. */
	if (d->make && fs_make_directory(d->make, 0700) < 0)
		return FS_EXIT_MOUNT;
	if (chdir("/"))
		return FS_EXIT_SYSTEM;
	/* It is no reason not to mount. */
	fs_runfile_new(d->mountpoint, &d->runfile);
	return FS_EXIT_OK;
}

static void forget_predecessor(struct daemon *d)
{
	coord_fd_stop(d->pidfd_watch);
	d->pidfd_watch = NULL;
	if (d->pidfd >= 0)
		close(d->pidfd);
	d->pidfd = -1;
}

static void on_predecessor_end(void *user, int status)
{
	struct daemon *d = user;
	forget_predecessor(d);
	if (!d->is_stopping)
		coord_timer_start(d->loop, &d->start_timer, coord_now_ms(d->loop));
}

/* One that is killed lets go of its files one by one, and of all of them only when it has ended. Its pid is
 * still its own if it still has its file after the pidfd was opened. */
static void watch_predecessor(struct daemon *d)
{
	int32_t pid = d->pidfd < 0 ? fs_runfile_daemon(d->mountpoint) : 0;
	if (!pid)
		return;
	d->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (d->pidfd < 0)
		return;
	if (fs_runfile_daemon(d->mountpoint) != pid ||
		coord_fd_watch(d->loop, d->pidfd, on_predecessor_end, d, &d->pidfd_watch) < 0)
		forget_predecessor(d);
}

/* Looks again and again, for what is waited for may mount a tree, too. */
static void wait_on(struct daemon *d, uint64_t now)
{
	if (!d->is_said && now >= d->asked_ms + PATIENCE_MS) {
		coord_log(LOG_WARNING, "%s: waiting for the daemon that served it before to end",
			d->mountpoint);
		d->is_said = true;
	}
	coord_timer_start(d->loop, &d->start_timer, now + LOOK_MS);
}

/* umount(8) returns before the daemon has let go of its member id, and so does kill(1), so that this one waits
 * for that one, for as long as no living tree is mounted there and the time-out lasts. */
static void start(struct coord_timer *timer)
{
	struct daemon *d = coord_container(timer, struct daemon, start_timer);
	uint64_t until = d->asked_ms + d->config->timeout_ms;
	watch_predecessor(d);
	if (fs_check_is_tree(d->mountpoint) && fs_check_mountpoint(d->mountpoint) < 0) {
		d->exit_code = FS_EXIT_MOUNT;
		end(d);
		return;
	}
	d->has_predecessor = fs_runfile_is_held(d->mountpoint);
	uint64_t now = coord_now_ms(d->loop);
	if ((d->has_predecessor || d->pidfd >= 0) && now < until) {
		wait_on(d, now);
		return;
	}
	forget_predecessor(d);
	d->exit_code = check(d);
	if (d->exit_code == FS_EXIT_OK) {
		d->has_started = true;
		coord_start(d->coord);
	} else {
		end(d);
	}
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
		if (r == -EINVAL)
			fs_command_log_known(command, d->driver->params);
		return r == -EINVAL ? FS_EXIT_USAGE : FS_EXIT_SYSTEM;
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
		return exit_code_of(r);
	}
	return FS_EXIT_OK;
}

static bool is_ignored(int signum)
{
	struct sigaction action;
	return sigaction(signum, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
}

static int make_loop(struct daemon *d)
{
	sigset_t none;
	int r = coord_loop_uv_new(&d->loop);
	for (int i = 0; r == 0 && i < SIGNALS; i++)
		if (numbers[i] != SIGHUP || !is_ignored(SIGHUP))
			r = coord_signal_watch(d->loop, numbers[i], on_signal, d, &d->signals[i]);
	if (r == 0 && d->parent >= 0)
		r = coord_fd_watch(d->loop, d->parent, on_parent, d, &d->parent_watch);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (r == 0)
		return FS_EXIT_OK;
	coord_log(LOG_ERR, "cannot make the loop: %s", strerror(-r));
	return FS_EXIT_SYSTEM;
}

/* One that comes from now on must not cut short the end that it asks for. */
static void stop_signals(struct daemon *d)
{
	sigset_t set;
	sigemptyset(&set);
	for (int i = 0; i < SIGNALS; i++)
		sigaddset(&set, numbers[i]);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	for (int i = 0; i < SIGNALS; i++) {
		if (d->signals[i])
			coord_signal_stop(d->signals[i]);
		signal(numbers[i], SIG_IGN);
	}
}

/* What a coordinator that has not stopped uses cannot be freed. The process ends anyway. */
static void take_down(struct daemon *d)
{
	bool all = !d->coord || !d->has_started || d->has_stopped;
	if (d->fs)
		fs_unmount(d->fs);
	if (d->loop)
		coord_timer_stop(d->loop, &d->start_timer);
	coord_fd_stop(d->parent_watch);
	d->parent_watch = NULL;
	forget_predecessor(d);
	if (all) {
		fs_free(d->fs);
		if (d->coord)
			coord_free(d->coord);
		else
			coord_config_free(d->config);
		stop_signals(d);
		coord_loop_uv_free(d->loop);
	}
	fs_runfile_free(d->runfile);
	coord_url_done(&d->url);
}

/* All that can be made, and refused, without touching anything outside this process. */
static int make(struct daemon *d)
{
	d->mountpoint = fs_check_path(d->command->dir);
	if (!d->mountpoint) {
		coord_log(LOG_ERR, "%s: %s", d->command->dir, strerror(errno));
		return FS_EXIT_SYSTEM;
	}
	int code = make_loop(d);
	if (code == FS_EXIT_OK)
		code = make_config(d);
	return code == FS_EXIT_OK ? make_tree(d) : code;
}

/* The daemon: returns its exit code. */
static int serve(struct daemon *d)
{
	signal(SIGPIPE, SIG_IGN);
	raise_file_limit();
	d->exit_code = make(d);
	if (d->exit_code == FS_EXIT_OK) {
		d->start_timer.fn = start;
		d->asked_ms = coord_now_ms(d->loop);
		coord_timer_start(d->loop, &d->start_timer, d->asked_ms);
		coord_loop_uv_run(d->loop);
	}
	int code = d->exit_code;
	take_down(d);
	fs_log_stop();
	tell_parent(d, code);
	free(d->mountpoint);
	return code;
}

/* ---- The parent ---- */

/* The signals that are to interrupt the start, but for those that the caller ignores, as nohup(1) does. */
static void block_signals(sigset_t *ret)
{
	sigemptyset(ret);
	for (int i = 0; i < SIGNALS; i++)
		if (!is_ignored(numbers[i]))
			sigaddset(ret, numbers[i]);
	sigprocmask(SIG_BLOCK, ret, NULL);
}

/* Reads the daemon's byte. At a signal the daemon is told, which then ends, or is ready just now. */
static ssize_t read_code(int fd, const sigset_t *signals, unsigned char *ret)
{
	_cleanup_close_ int interrupts = signalfd(-1, signals, SFD_CLOEXEC);
	struct pollfd polled[] = {
		{.fd = fd, .events = POLLIN}, {.fd = interrupts, .events = POLLIN}};
	while (poll(polled, 2, -1) < 0 && errno == EINTR)
		;
	if (!polled[0].revents)
		shutdown(fd, SHUT_WR);
	ssize_t n;
	while ((n = read(fd, ret, 1)) < 0 && errno == EINTR)
		;
	return n;
}

static int await_daemon(int fd, const sigset_t *signals, pid_t pid)
{
	unsigned char code;
	ssize_t n = read_code(fd, signals, &code);
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

/* Closes what was inherited, but for 0-2 and fd (-1: none), which may get another number: a daemon must not
 * keep a caller's locked file or pipe open. */
static int keep_only(int fd)
{
	if (fd > STDERR_FILENO + 1)
		fd = dup3(fd, STDERR_FILENO + 1, O_CLOEXEC);
	close_range(STDERR_FILENO + (fd < 0 ? 1 : 2), ~0u, 0);
	return fd;
}

static int run(struct daemon *d)
{
	if (d->command->foreground) {
		keep_only(-1);
		return serve(d);
	}
	int ends[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends)) {
		coord_log(LOG_ERR, "cannot make a socket: %s", strerror(errno));
		return FS_EXIT_SYSTEM;
	}
	sigset_t signals;
	block_signals(&signals);
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
	return await_daemon(ends[0], &signals, pid);
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
		coord_log(LOG_ERR, "%s: the current directory: %s", command->dir, strerror(errno));
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

/* -f: all but the mount, with the driver's own look at its options. */
static int check_only(struct daemon *d)
{
	int code = make(d);
	take_down(d);
	free(d->mountpoint);
	return code;
}

static int mount_tree(struct fs_command *command, int argc, char **argv)
{
	if (command->remount) {
		coord_log(LOG_ERR, "a tree cannot be remounted: unmount it, and mount it again");
		return FS_EXIT_MOUNT;
	}
	_cleanup_free_ char *make = NULL;
	struct daemon d = {.command = command, .parent = -1, .pidfd = -1};
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
	int r = path ? fs_runfile_wait(path) : -errno;
	if (r < 0) {
		coord_log(LOG_ERR, "%s: %s", command->dir, strerror(-r));
		return FS_EXIT_SYSTEM;
	}
	if (r > 0 || !fs_check_is_served(path))
		return FS_EXIT_OK;
	coord_log(LOG_ERR,
		"%s: a tree is mounted there, but this user cannot see which daemon serves it; ask "
		"as "
		"the user who mounted it",
		path);
	return FS_EXIT_MOUNT;
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

/* What a caller left in a strange state: a descriptor of ours must not become standard error, and a daemon
 * must hear of SIGTERM and of the end of its children. */
static void set_standards(void)
{
	int fd;
	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGCHLD, SIG_DFL);
}

int main(int argc, char **argv)
{
	set_standards();
	keep_secrets();
	keep_memory();
	fs_log_init(false, false);
	struct fs_command command;
	int code = FS_EXIT_USAGE;
	int r = fs_command_parse(argc, argv, &command);
	fs_log_init(command.verbose, command.foreground);
	if (r == 0)
		code = act(&command, argc, argv);
	else if (r == -ENOMEM)
		code = FS_EXIT_SYSTEM;
	fs_command_done(&command);
	return code;
}
