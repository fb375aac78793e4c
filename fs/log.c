/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log of a command, and then of a daemon. See log.h.
 *
 * syslog(3) to a full socket, and a write to a full pipe, wait for as long as nobody reads. A loop that waited there
 * would renew no lease and tell no holder of its loss. So a running daemon only queues its lines, and a thread
 * writes them in their order.
 *
 * The queue is bounded. What finds it full is counted, and the count is told where the lines are missing. After
 * that no line is taken before the queue is half empty, so that a burst leaves one gap and not many.
 */
#define FUSE_USE_VERSION 312

#include "fs/log.h"

#include <assert.h>
#include <fuse_log.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <syslog.h>
#include <time.h>

#include "coord/driver.h"

enum { LINES_MAX = 1024, LINE_MAX_LEN = 1100, FLUSH_MS = 1000 };

struct line {
	int level;
	uint32_t dropped; /* before it */
	char *text; /* NULL: none came after those */
};

static struct {
	pthread_t thread;
	void (*write)(int level, const char *text);
	char *mountpoint;
	bool started;
	pthread_cond_t more, end;
	pthread_mutex_t lock; /* guards what follows */
	struct line lines[LINES_MAX]; /* a ring */
	uint32_t first, len;
	uint32_t dropped; /* since the last line that was taken */
	bool ending, ended;
} queue = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void log_to_stderr(int level, const char *text)
{
	static const char *const prefix[] = {"", "", "", "", "warning: ", "", "", "debug: "};
	char line[LINE_MAX_LEN];
	int len = snprintf(line, sizeof(line) - 1, "mount.tooz: %s%s", prefix[level & 7], text);
	size_t left = (size_t)len < sizeof(line) - 1 ? (size_t)len : sizeof(line) - 2;
	line[left++] = '\n';
	/* No stdio: exit(3) would flush, and wait for, what a thread still writes. */
	for (const char *at = line; left > 0;) {
		ssize_t n = write(STDERR_FILENO, at, left);
		struct pollfd full = {.fd = STDERR_FILENO, .events = POLLOUT};
		if (n < 0 && errno == EAGAIN) {
			poll(&full, 1, -1);
			continue;
		}
		if (n == 0 || (n < 0 && errno != EINTR))
			return;
		at += n > 0 ? n : 0;
		left -= n > 0 ? (size_t)n : 0;
	}
}

/* There may be many daemons: each of its lines begins with the mount point. */
static void log_to_syslog(int level, const char *text)
{
	syslog(level, "%s: %s", queue.mountpoint, text);
}

/* ---- The queue ---- */

static void log_to_queue(int level, const char *text)
{
	char *copy = strdup(text);
	pthread_mutex_lock(&queue.lock);
	if (copy && queue.len < (queue.dropped ? LINES_MAX / 2 : LINES_MAX)) {
		queue.lines[(queue.first + queue.len++) % LINES_MAX] =
			(struct line){.level = level, .dropped = queue.dropped, .text = copy};
		queue.dropped = 0;
		copy = NULL;
	} else {
		queue.dropped++;
	}
	pthread_cond_signal(&queue.more);
	pthread_mutex_unlock(&queue.lock);
	free(copy);
}

/* Returns false at the end, when all is taken. */
static bool queue_take(struct line *ret)
{
	pthread_mutex_lock(&queue.lock);
	while (!queue.len && !queue.dropped && !queue.ending)
		pthread_cond_wait(&queue.more, &queue.lock);
	bool any = queue.len || queue.dropped;
	if (queue.len) {
		*ret = queue.lines[queue.first];
		queue.first = (queue.first + 1) % LINES_MAX;
		queue.len--;
	} else {
		*ret = (struct line){.dropped = queue.dropped};
		queue.dropped = 0;
	}
	if (!any) {
		queue.ended = true;
		pthread_cond_signal(&queue.end);
	}
	pthread_mutex_unlock(&queue.lock);
	return any;
}

static void *write_lines(void *data)
{
	struct line line;
	while (queue_take(&line)) {
		char gap[64];
		snprintf(gap, sizeof(gap), "%" PRIu32 " line%s not logged", line.dropped,
			line.dropped == 1 ? " was" : "s were");
		if (line.dropped)
			queue.write(LOG_WARNING, gap);
		if (line.text)
			queue.write(line.level, line.text);
		free(line.text);
	}
	return NULL;
}

/* ---- Life ---- */

/* libfuse has words of its own, which else it writes to standard error itself, newline and all. */
static void log_of_fuse(enum fuse_log_level level, const char *format, va_list args)
{
	char text[512];
	vsnprintf(text, sizeof(text), format, args);
	size_t len = strlen(text);
	if (len && text[len - 1] == '\n')
		text[len - 1] = '\0';
	coord_log((int)level, "%s", text);
}

void fs_log_init(bool verbose, bool foreground)
{
	coord_log_to(log_to_stderr);
	coord_log_level = verbose ? LOG_DEBUG : foreground ? LOG_INFO : LOG_WARNING;
}

/* Who types the command, or asks for words, is told that there will be none; a script's output stays clean. */
static void tell_without_syslog(void)
{
	if (access(_PATH_LOG, F_OK) && (coord_log_level == LOG_DEBUG || isatty(STDERR_FILENO)))
		coord_log(LOG_WARNING,
			"no syslog here (%s): what the daemon logs is lost; -o foreground writes "
			"it to standard error",
			_PATH_LOG);
}

static int start_thread(void)
{
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old); /* they are the loop's */
	int r = pthread_create(&queue.thread, NULL, write_lines, NULL);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r == 0)
		pthread_setname_np(queue.thread, "log");
	return -r;
}

int fs_log_start(const char *mountpoint, bool foreground)
{
	pthread_condattr_t attr;
	assert(!queue.started);
	queue.mountpoint = strdup(mountpoint);
	if (!queue.mountpoint)
		return -ENOMEM;
	queue.write = foreground ? log_to_stderr : log_to_syslog;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&queue.more, NULL);
	pthread_cond_init(&queue.end, &attr);
	pthread_condattr_destroy(&attr);
	int r = start_thread();
	if (r < 0) {
		free(queue.mountpoint);
		return r;
	}
	queue.started = true;
	if (!foreground) {
		tell_without_syslog();
		openlog("toozfs", LOG_PID, LOG_DAEMON);
		coord_log_level = coord_log_level == LOG_DEBUG ? LOG_DEBUG : LOG_INFO;
	}
	coord_log_to(log_to_queue);
	fuse_set_log_func(log_of_fuse);
	return 0;
}

void fs_log_stop(void)
{
	if (!queue.started)
		return;
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += FLUSH_MS / 1000;
	pthread_mutex_lock(&queue.lock);
	queue.ending = true;
	pthread_cond_signal(&queue.more);
	while (!queue.ended && !pthread_cond_timedwait(&queue.end, &queue.lock, &until))
		;
	bool ended = queue.ended;
	pthread_mutex_unlock(&queue.lock);
	queue.started = false;
	/* One that still waits for a reader ends with the process, and keeps what it uses. */
	if (!ended) {
		pthread_detach(queue.thread);
		return;
	}
	pthread_join(queue.thread, NULL);
	free(queue.mountpoint);
}
