/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The session with the kernel: mounting, receiving on the loop, INIT, and the end.
 *
 * One thread reads, in order: that is what makes handle numbers and lock owners safe to go by. After each
 * request the loop's tasks run, so that an answer that needs no backend leaves before the next request
 * is read. When the last request was answered the descriptor is polled for a moment before going to
 * sleep (TOOZFS_BUSY_US, 0: never): a program that locks and unlocks in a loop on another core then
 * costs no wake-up each time, which doubles its rate. A request that went to the backend is not
 * followed by that, because its answer comes through the loop.
 */
#include "fs/tree.h"

#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stdio.h>
#include <sys/uio.h>
#include <syslog.h>

#include "coord/loop_uv.h"
#include "fs/detach.h"
#include "fs/mountinfo.h"

#define BATCH_MAX 64 /* requests a wake */
#define BATCH_US 5000 /* after that the rest waits for sockets and timers */
#define TIMERS_EACH 16 /* requests between two looks at the clock */
#define BUSY_US 20
#define BACKGROUND_MAX 65535

/* ---- INIT ---- */

void fs_session_init(void *user, struct fuse_conn_info *conn)
{
	struct fs *fs = user;
	const unsigned want = FUSE_CAP_FLOCK_LOCKS | FUSE_CAP_POSIX_LOCKS |
			      FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_DONT_MASK;
	conn->want = conn->capable & want;
	conn->max_background = BACKGROUND_MAX;
	conn->congestion_threshold = BACKGROUND_MAX;
	fs->init_seen = true;
}

/* libfuse never passes FUSE_PARALLEL_DIROPS on; without it LOOKUPs in one directory come one by one. */
static void patch_init(struct iovec *iov, int count)
{
	struct fuse_init_out out;
	if (count != 2 || iov[1].iov_len < offsetof(struct fuse_init_out, max_background))
		return;
	size_t len = iov[1].iov_len < sizeof(out) ? iov[1].iov_len : sizeof(out);
	memcpy(&out, iov[1].iov_base, len);
	out.flags |= FUSE_PARALLEL_DIROPS;
	memcpy(iov[1].iov_base, &out, len);
}

/* Without this flag, of which libfuse 3.14 does not know, the kernel lets one read(2) of a handle wait for
 * another, and no signal ends that wait. */
static void patch_open(struct iovec *iov, int count)
{
	struct fuse_open_out out;
	if (count != 2 || iov[1].iov_len != sizeof(out))
		return;
	memcpy(&out, iov[1].iov_base, sizeof(out));
	out.open_flags |= FOPEN_STREAM;
	memcpy(iov[1].iov_base, &out, sizeof(out));
}

static ssize_t device_writev(int fd, struct iovec *iov, int count, void *user)
{
	struct fs *fs = user;
	if (fs->init_seen && !fs->replied) {
		fs->replied = true;
		patch_init(iov, count);
	}
	if (fs->opening_stream) {
		fs->opening_stream = false;
		patch_open(iov, count);
	}
	return writev(fd, iov, count);
}

static ssize_t device_read(int fd, void *buf, size_t len, void *user)
{
	return read(fd, buf, len);
}

static const struct fuse_custom_io device_io = {.writev = device_writev, .read = device_read};

/* ---- Receiving ---- */

static void session_over(struct fs *fs)
{
	if (fs->over)
		return;
	fs->over = true;
	coord_fd_stop(fs->watch);
	fs->watch = NULL;
	if (fs->events.unmounted)
		fs->events.unmounted(fs->user);
}

static void tell_ready(struct fs *fs)
{
	fs->ready = true;
	if (fs->events.kernel_ready)
		fs->events.kernel_ready(fs->user);
}

/* The i-th request of a wake. Returns 1; 0: there is none now; negative: the session is over. */
static int receive(struct fs *fs, unsigned i)
{
	int n = fuse_session_receive_buf(fs->session, &fs->buf);
	if (n == -EAGAIN || n == -EINTR)
		return 0;
	if (n <= 0)
		return -ENODEV;
	fuse_session_process_buf(fs->session, &fs->buf);
	if (fs->init_seen && !fs->ready)
		tell_ready(fs);
	if (i % TIMERS_EACH == TIMERS_EACH - 1)
		coord_loop_run(fs->loop);
	else
		coord_loop_run_tasks(fs->loop);
	return 1;
}

/* Looks again and again for a request, for a while after the last one. */
static int receive_soon(struct fs *fs, unsigned i)
{
	uint64_t until_us = coord_now_us(fs->loop) + fs->busy_us;
	int r;
	do {
		r = receive(fs, i);
	} while (r == 0 && coord_now_us(fs->loop) < until_us);
	return r;
}

static void session_readable(void *user, int status)
{
	struct fs *fs = user;
	uint32_t pending = fs->pending;
	uint64_t end_us = coord_now_us(fs->loop) + BATCH_US;
	int r = status < 0 ? -ENODEV : 1;
	for (unsigned i = 0; r > 0 && i < BATCH_MAX && !fs->over; i++) {
		if (i > 0 && coord_now_us(fs->loop) >= end_us)
			break;
		r = receive(fs, i);
		if (r == 0 && i > 0 && fs->busy_us && fs->pending <= pending)
			r = receive_soon(fs, i);
		pending = fs->pending < pending ? fs->pending : pending;
	}
	if (r < 0)
		session_over(fs);
}

/* ---- Mounting ---- */

static int add_option(struct fuse_args *args, const char *text)
{
	return fuse_opt_add_arg(args, "-o") || fuse_opt_add_arg(args, text) ? -ENOMEM : 0;
}

/* A comma in the source would end the option. */
static char *source_option(const char *source)
{
	char *text = malloc(sizeof("subtype=tooz,fsname=") + 2 * strlen(source));
	if (!text)
		return NULL;
	char *to = stpcpy(text, "subtype=tooz,fsname=");
	for (; *source; source++) {
		if (*source == ',' || *source == '\\')
			*to++ = '\\';
		*to++ = *source;
	}
	*to = 0;
	return text;
}

static int session_new(struct fs *fs)
{
	struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
	_cleanup_free_ char *source = source_option(fs->source);
	int r = source ? 0 : -ENOMEM;
	if (r == 0 && fuse_opt_add_arg(&args, "toozfs"))
		r = -ENOMEM;
	if (r == 0)
		r = add_option(&args, source);
	if (r == 0)
		r = add_option(&args, "default_permissions");
	if (r == 0 && fs->options.allow_other)
		r = add_option(&args, "allow_other");
	if (r == 0 && fs->options.read_only)
		r = add_option(&args, "ro");
	if (r == 0 && fs->fuse_options && *fs->fuse_options)
		r = add_option(&args, fs->fuse_options);
	if (r == 0) {
		fs->session = fuse_session_new(&args, &fs_requests, sizeof(fs_requests), fs);
		r = fs->session ? 0 : -EINVAL;
	}
	fuse_opt_free_args(&args);
	return r;
}

int fs_mount(struct fs *fs, struct coord *coord)
{
	fs->coord = coord;
	fs_limits_init(fs);
	int r = session_new(fs);
	if (r < 0)
		return r;
	errno = 0;
	if (fuse_session_mount(fs->session, fs->mountpoint) != 0)
		return errno ? -errno : -EIO;
	fs->mounted = true;
	struct fs_mountinfo top;
	if (fs_mountinfo_top(fs->mountpoint, &top) == 0)
		snprintf(fs->device, sizeof(fs->device), "%s", top.device);
	int fd = fuse_session_fd(fs->session);
	if (fuse_session_custom_io(fs->session, &device_io, fd) != 0)
		return -ENOMEM;
	int flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	const char *busy = getenv("TOOZFS_BUSY_US");
	fs->busy_us = busy ? strtoull(busy, NULL, 10) : BUSY_US;
	r = fs_onloss_new(fs);
	if (r == 0)
		r = coord_fd_watch(fs->loop, fd, session_readable, fs, &fs->watch);
	return r;
}

/* Something else may be mounted there by now: after umount -l another daemon's tree. */
static bool lies_on_top(const struct fs *fs)
{
	struct fs_mountinfo top;
	int r = fs_mountinfo_top(fs->mountpoint, &top);
	return r == 0 ? !*fs->device || !strcmp(top.device, fs->device) : r != -ENOENT;
}

/* Ends the connection and leaves the mount point alone. libfuse unmounts by path unless the connection is
 * over, as it is on a device that was just opened. */
static void disconnect(struct fs *fs)
{
	_cleanup_close_ int fresh = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (fresh >= 0 && dup3(fresh, fuse_session_fd(fs->session), O_CLOEXEC) >= 0)
		fuse_session_unmount(fs->session);
}

static bool is_cut(const struct fs *fs)
{
	struct pollfd polled = {.fd = fuse_session_fd(fs->session)};
	return poll(&polled, 1, 0) > 0 && (polled.revents & POLLERR);
}

/* libfuse takes a connection that was cut for one that is unmounted; but umount -f of a tree in use leaves it
 * mounted. */
static void unmount(struct fs *fs)
{
	bool cut = is_cut(fs);
	fuse_session_unmount(fs->session);
	if (!cut || !*fs->device || !lies_on_top(fs))
		return;
	int r = fs_detach(fs->mountpoint);
	if (r < 0)
		coord_log(LOG_ERR, "%s: the dead tree there cannot be unmounted: %s",
			fs->mountpoint, strerror(-r));
}

void fs_unmount(struct fs *fs)
{
	if (!fs->session)
		return;
	fs_waits_end(fs, -ESHUTDOWN);
	fs_calls_end(fs, -ESHUTDOWN);
	fs->over = true;
	coord_fd_stop(fs->watch);
	fs->watch = NULL;
	if (fs->mounted && lies_on_top(fs))
		unmount(fs);
	else if (fs->mounted)
		disconnect(fs);
	fs->mounted = false;
	/* Those who were told get their signals however this ends. */
	fs_onloss_free(fs);
}

void fs_session_free(struct fs *fs)
{
	if (!fs->session)
		return;
	/* Its destroy would free what the requests refer to; they were all answered. */
	fuse_session_destroy(fs->session);
	free(fs->buf.mem);
	fs->session = NULL;
}
