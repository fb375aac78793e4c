/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ending a session of which we know that nobody uses it any more: one of a daemon that died on this machine,
 * or one of our own that was lost. With it go its locks and members, which else would stay
 * until it times out. Who has a session's id and password can take it up again, and then close it; the
 * claim on the member id carries the password. (It is no secret: servers make it from the id, which
 * everybody can see.)
 *
 * This is done on a worker, with a handle of its own, within some seconds or not at all. It may have to wait
 * before: with the session its locks are free, and who held them may just now learn that he has to end.
 */
#include <poll.h>
#include <syslog.h>
#include <time.h>

#include "coord/worker.h"
#include "drivers/zookeeper/session.h"

enum { TAKEOVER_MS = 2500, SESSION_MS = 4000 };

struct zk_takeover {
	struct coord_job job;
	struct coord_worker *worker;
	struct coord_timer due;
	struct zk_session *zs;
	void (*fn)(struct zk_session *); /* NULL: nobody waits any more */
	clientid_t id;
	char *addresses;
};

static uint64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void on_event(zhandle_t *zh, int type, int state, const char *path, void *context)
{
	(void)zh;
	(void)type;
	(void)state;
	(void)path;
	(void)context;
}

/* One turn of the library. */
static void turn(zhandle_t *zh, uint64_t most_ms)
{
	int fd = -1, interest = 0;
	struct timeval wait = {0};
	if (zookeeper_interest(zh, &fd, &interest, &wait) != ZOK)
		return;
	uint64_t ms = (uint64_t)wait.tv_sec * 1000 + (uint64_t)wait.tv_usec / 1000 + 1;
	struct pollfd poll_fd = {.fd = fd,
		.events = (short)((interest & ZOOKEEPER_READ ? POLLIN : 0) |
				  (interest & ZOOKEEPER_WRITE ? POLLOUT : 0))};
	poll(&poll_fd, 1, (int)(ms < most_ms ? ms : most_ms));
	int events = (poll_fd.revents & POLLOUT ? ZOOKEEPER_WRITE : 0) |
		     (poll_fd.revents & (POLLIN | POLLHUP | POLLERR) ? ZOOKEEPER_READ : 0);
	if (fd >= 0 && events)
		zookeeper_process(zh, events);
}

static void takeover_work(struct coord_job *job)
{
	struct zk_takeover *takeover = coord_container(job, struct zk_takeover, job);
	uint64_t now, end = now_ms() + TAKEOVER_MS;
	zhandle_t *zh = zookeeper_init2(takeover->addresses, on_event, SESSION_MS, &takeover->id,
		NULL, ZOO_NO_LOG_CLIENTENV, zk_conn_log);
	if (!zh)
		return;
	/* Once it is connected, in whatever way, nothing is read any more: nobody would look at it before the library. */
	while (zoo_state(zh) != ZOO_CONNECTED_STATE && zoo_state(zh) != ZOO_READONLY_STATE &&
		!is_unrecoverable(zh) && (now = now_ms()) < end)
		turn(zh, end - now);
	zookeeper_close(zh);
}

static void takeover_due(struct coord_timer *timer)
{
	struct zk_takeover *takeover = coord_container(timer, struct zk_takeover, due);
	coord_worker_submit(takeover->worker, &takeover->job);
}

static void takeover_free(struct zk_takeover *takeover)
{
	coord_timer_stop(takeover->zs->loop, &takeover->due);
	coord_worker_free(takeover->worker);
	takeover->zs->takeover = NULL;
	free(takeover->addresses);
	free(takeover);
}

static void takeover_done(struct coord_job *job)
{
	struct zk_takeover *takeover = coord_container(job, struct zk_takeover, job);
	struct zk_session *zs = takeover->zs;
	void (*fn)(struct zk_session *) = takeover->fn;
	takeover_free(takeover);
	if (fn)
		fn(zs);
}

int zk_takeover(struct zk_session *zs, int64_t sid, const char password[16], uint64_t after_ms,
	void (*fn)(struct zk_session *))
{
	if (zs->takeover || !zs->addresses)
		return -EBUSY;
	struct zk_takeover *takeover = calloc(1, sizeof(*takeover));
	if (!takeover)
		return -ENOMEM;
	takeover->addresses = strdup(zs->addresses);
	if (!takeover->addresses || coord_worker_new(zs->loop, "zk-takeover", &takeover->worker)) {
		free(takeover->addresses);
		free(takeover);
		return -ENOMEM;
	}
	takeover->job = (struct coord_job){.work = takeover_work, .done = takeover_done};
	takeover->zs = zs;
	takeover->fn = fn;
	takeover->id.client_id = sid;
	memcpy(takeover->id.passwd, password, sizeof(takeover->id.passwd));
	zs->takeover = takeover;
	takeover->due.fn = takeover_due;
	if (after_ms)
		coord_timer_start(zs->loop, &takeover->due, coord_now_ms(zs->loop) + after_ms);
	else
		takeover_due(&takeover->due);
	return 0;
}

void zk_takeover_drop(struct zk_session *zs)
{
	if (zs->takeover)
		zs->takeover->fn = NULL;
}

void zk_takeover_end(struct zk_session *zs)
{
	struct zk_takeover *takeover = zs->takeover;
	if (!takeover)
		return;
	coord_worker_free(takeover->worker);
	takeover->worker = NULL;
	coord_loop_undefer(zs->loop, &takeover->job.task);
	takeover_free(takeover);
}
