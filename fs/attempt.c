/* SPDX-License-Identifier: Apache-2.0 */
/* See attempt.h. */
#include "fs/attempt.h"

#include <errno.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

void fs_attempt_free(struct fs_attempt *attempt)
{
	pthread_cond_destroy(&attempt->answered);
	pthread_mutex_destroy(&attempt->lock);
	attempt->done(attempt);
}

static void *attempt_main(void *data)
{
	struct fs_attempt *attempt = data;
	/* Linux 5.9; before it they stay shared, which matters only for a thread that is left. */
	syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_UNSHARE);
	attempt->fn(attempt);
	pthread_mutex_lock(&attempt->lock);
	attempt->over = true;
	bool left = attempt->left;
	pthread_cond_signal(&attempt->answered);
	pthread_mutex_unlock(&attempt->lock);
	if (left)
		fs_attempt_free(attempt);
	return NULL;
}

static int attempt_init(struct fs_attempt *attempt)
{
	pthread_condattr_t attr;
	attempt->over = attempt->left = false;
	pthread_mutex_init(&attempt->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	int r = pthread_cond_init(&attempt->answered, &attr);
	pthread_condattr_destroy(&attr);
	return r;
}

static bool attempt_wait(struct fs_attempt *attempt, unsigned limit_ms)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += limit_ms / 1000;
	until.tv_nsec += (limit_ms % 1000) * 1000000L;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&attempt->lock);
	while (!attempt->over &&
		!pthread_cond_timedwait(&attempt->answered, &attempt->lock, &until))
		;
	bool over = attempt->over;
	attempt->left = !over;
	pthread_mutex_unlock(&attempt->lock);
	return over;
}

int fs_attempt(struct fs_attempt *attempt, unsigned limit_ms)
{
	sigset_t all, old;
	pthread_t thread;
	int r = attempt_init(attempt);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old); /* they are the loop's */
	if (!r)
		r = pthread_create(&thread, NULL, attempt_main, attempt);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r) {
		fs_attempt_free(attempt);
		return -r;
	}
	if (attempt_wait(attempt, limit_ms)) {
		pthread_join(thread, NULL);
		return 0;
	}
	pthread_detach(thread); /* a signal that kills ends it, so it ends with this process */
	return -ETIMEDOUT;
}
