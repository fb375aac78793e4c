/* SPDX-License-Identifier: Apache-2.0 */
/*
 * coord_loop on libuv. See loop_uv.h.
 *
 * coord_loop_run is called after every turn in which something happened: from the timerfd, from the
 * async handle that wake() triggers, and after each fd and signal callback.
 */
#include "coord/loop_uv.h"

#include <assert.h>
#include <netdb.h>
#include <sys/random.h>
#include <sys/timerfd.h>
#include <time.h>
#include <uv.h>

struct loop_uv {
	struct coord_loop loop;
	uv_loop_t uv;
	uv_async_t async;
	uv_poll_t timer_poll;
	int timer_fd;
};

static struct loop_uv *loop_uv_of(struct coord_loop *loop)
{
	return coord_container(loop, struct loop_uv, loop);
}

static uint64_t clock_us(clockid_t clock)
{
	struct timespec now;
	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static uint64_t loop_uv_now_us(struct coord_loop *loop)
{
	return clock_us(CLOCK_BOOTTIME);
}

static uint64_t loop_uv_utc_us(struct coord_loop *loop)
{
	return clock_us(CLOCK_REALTIME);
}

static void loop_uv_arm(struct coord_loop *loop, uint64_t due_ms)
{
	struct itimerspec when = {0};
	if (due_ms != UINT64_MAX) {
		when.it_value.tv_sec = (time_t)(due_ms / 1000);
		/* Never the zero that would disarm. */
		when.it_value.tv_nsec = (long)(due_ms % 1000) * 1000000 + 1;
	}
	timerfd_settime(loop_uv_of(loop)->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}

static void loop_uv_wake(struct coord_loop *loop)
{
	uv_async_send(&loop_uv_of(loop)->async);
}

static void loop_uv_random(struct coord_loop *loop, void *data, size_t len)
{
	assert(len <= 256); /* up to there getrandom gives all or fails */
	if (getrandom(data, len, 0) != (ssize_t)len)
		abort();
}

static const struct coord_loop_ops loop_uv_ops = {
	.now_us = loop_uv_now_us,
	.utc_us = loop_uv_utc_us,
	.arm = loop_uv_arm,
	.wake = loop_uv_wake,
	.random = loop_uv_random,
};

static void on_async(uv_async_t *async)
{
	coord_loop_run(&coord_container(async, struct loop_uv, async)->loop);
}

static void on_timer(uv_poll_t *poll, int status, int events)
{
	struct loop_uv *self = coord_container(poll, struct loop_uv, timer_poll);
	uint64_t count;
	if (read(self->timer_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		abort();
	coord_loop_run(&self->loop);
}

/* uv_loop_init aborts the process where it cannot have its descriptors: an epoll and a pipe. */
static int check_descriptors(void)
{
	int fds[3], n = 0, r = 0;
	while (n < 3 && r == 0) {
		fds[n] = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC);
		if (fds[n] < 0)
			r = -errno;
		else
			n++;
	}
	while (n > 0)
		close(fds[--n]);
	return r;
}

int coord_loop_uv_new(struct coord_loop **ret)
{
	struct loop_uv *self = calloc(1, sizeof(*self));
	if (!self)
		return -ENOMEM;
	self->timer_fd = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC);
	int r = self->timer_fd < 0 ? -errno : check_descriptors();
	if (r == 0)
		r = uv_loop_init(&self->uv);
	if (r < 0) {
		if (self->timer_fd >= 0)
			close(self->timer_fd);
		free(self);
		return r;
	}
	coord_loop_init(&self->loop, &loop_uv_ops);
	/* These two cannot fail on a fresh loop but for lack of descriptors. */
	r = uv_async_init(&self->uv, &self->async, on_async);
	if (r == 0)
		r = uv_poll_init(&self->uv, &self->timer_poll, self->timer_fd);
	if (r == 0)
		r = uv_poll_start(&self->timer_poll, UV_READABLE, on_timer);
	if (r < 0) {
		uv_loop_close(&self->uv);
		close(self->timer_fd);
		free(self);
		return r;
	}
	*ret = &self->loop;
	return 0;
}

void coord_loop_uv_free(struct coord_loop *loop)
{
	if (!loop)
		return;
	struct loop_uv *self = loop_uv_of(loop);
	uv_close((uv_handle_t *)&self->async, NULL);
	uv_close((uv_handle_t *)&self->timer_poll, NULL);
	uv_run(&self->uv, UV_RUN_DEFAULT);
	int r = uv_loop_close(&self->uv);
	assert(r == 0);
	close(self->timer_fd);
	coord_loop_done(loop);
	free(self);
}

struct uv_loop_s *coord_loop_uv_get(struct coord_loop *loop)
{
	return &loop_uv_of(loop)->uv;
}

void coord_loop_uv_run(struct coord_loop *loop)
{
	coord_loop_run(loop);
	uv_run(&loop_uv_of(loop)->uv, UV_RUN_DEFAULT);
}

void coord_loop_uv_stop(struct coord_loop *loop)
{
	uv_stop(&loop_uv_of(loop)->uv);
}

/* Handles of ours are freed when libuv has let go of them. */
static void free_closed(uv_handle_t *handle)
{
	free(handle->data);
}

struct coord_fd {
	uv_poll_t poll;
	struct coord_loop *loop;
	void (*fn)(void *user, int status);
	void *user;
	bool stopped;
};

static void on_fd(uv_poll_t *poll, int status, int events)
{
	struct coord_fd *fd = coord_container(poll, struct coord_fd, poll);
	struct coord_loop *loop = fd->loop;
	loop->in_turn = true;
	fd->fn(fd->user, status < 0 ? status : 0);
	loop->in_turn = false;
	coord_loop_run(loop);
}

int coord_fd_watch(struct coord_loop *loop, int fd, void (*fn)(void *user, int status), void *user,
	struct coord_fd **ret)
{
	struct coord_fd *self = calloc(1, sizeof(*self));
	if (!self)
		return -ENOMEM;
	*self = (struct coord_fd){.loop = loop, .fn = fn, .user = user};
	int r = uv_poll_init(&loop_uv_of(loop)->uv, &self->poll, fd);
	if (r < 0) {
		free(self);
		return r;
	}
	self->poll.data = self;
	r = uv_poll_start(&self->poll, UV_READABLE, on_fd);
	if (r < 0) {
		coord_fd_stop(self);
		return r;
	}
	*ret = self;
	return 0;
}

void coord_fd_stop(struct coord_fd *fd)
{
	if (!fd || fd->stopped)
		return;
	fd->stopped = true;
	uv_close((uv_handle_t *)&fd->poll, free_closed);
}

struct coord_signal {
	uv_signal_t signal;
	struct coord_loop *loop;
	void (*fn)(void *user, int signum);
	void *user;
};

static void on_signal(uv_signal_t *handle, int signum)
{
	struct coord_signal *self = coord_container(handle, struct coord_signal, signal);
	struct coord_loop *loop = self->loop;
	self->fn(self->user, signum);
	coord_loop_run(loop);
}

int coord_signal_watch(struct coord_loop *loop, int signum, void (*fn)(void *user, int signum),
	void *user, struct coord_signal **ret)
{
	struct coord_signal *self = calloc(1, sizeof(*self));
	if (!self)
		return -ENOMEM;
	*self = (struct coord_signal){.loop = loop, .fn = fn, .user = user};
	int r = uv_signal_init(&loop_uv_of(loop)->uv, &self->signal);
	if (r < 0) {
		free(self);
		return r;
	}
	self->signal.data = self;
	r = uv_signal_start(&self->signal, on_signal, signum);
	if (r < 0) {
		coord_signal_stop(self);
		return r;
	}
	*ret = self;
	return 0;
}

void coord_signal_stop(struct coord_signal *self)
{
	if (self)
		uv_close((uv_handle_t *)&self->signal, free_closed);
}

struct resolve {
	uv_getaddrinfo_t req;
	struct coord_loop *loop;
	void (*fn)(void *user, int status, const char *text, const struct addrinfo *list);
	void *user;
};

static void on_resolved(uv_getaddrinfo_t *req, int status, struct addrinfo *list)
{
	struct resolve *self = coord_container(req, struct resolve, req);
	struct coord_loop *loop = self->loop;
	if (status < 0)
		self->fn(self->user, -EHOSTUNREACH, uv_strerror(status), NULL);
	else
		self->fn(self->user, 0, NULL, list);
	uv_freeaddrinfo(list);
	free(self);
	coord_loop_run(loop);
}

int coord_resolve(struct coord_loop *loop, const char *host, const char *port,
	void (*fn)(void *user, int status, const char *text, const struct addrinfo *list),
	void *user)
{
	struct resolve *self = calloc(1, sizeof(*self));
	if (!self)
		return -ENOMEM;
	*self = (struct resolve){.loop = loop, .fn = fn, .user = user};
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
	int r = uv_getaddrinfo(&loop_uv_of(loop)->uv, &self->req, on_resolved, host, port, &hints);
	if (r < 0)
		free(self);
	return r;
}
