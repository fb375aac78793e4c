/* SPDX-License-Identifier: Apache-2.0 */
/* See attempt.h. */
#include "fs/attempt.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <time.h>

void fs_attempt_free(struct fs_attempt *attempt)
{
	pthread_cond_destroy(&attempt->answered);
	pthread_mutex_destroy(&attempt->lock);
	attempt->done(attempt);
}

static void *attempt_main(void *data)
{
	struct fs_attempt *attempt = data;
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
	atomic_init(&attempt->progress, 0);
	pthread_mutex_init(&attempt->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	int r = pthread_cond_init(&attempt->answered, &attr);
	pthread_condattr_destroy(&attr);
	return r;
}

void fs_attempt_progress(struct fs_attempt *attempt)
{
	atomic_fetch_add_explicit(&attempt->progress, 1, memory_order_relaxed);
}

static struct timespec from_now(unsigned ms)
{
	struct timespec ret;
	clock_gettime(CLOCK_MONOTONIC, &ret);
	ret.tv_sec += ms / 1000;
	ret.tv_nsec += (ms % 1000) * 1000000L;
	ret.tv_sec += ret.tv_nsec / 1000000000;
	ret.tv_nsec %= 1000000000;
	return ret;
}

static bool attempt_wait(struct fs_attempt *attempt, unsigned limit_ms)
{
	struct timespec until = from_now(limit_ms);
	unsigned seen = 0;
	pthread_mutex_lock(&attempt->lock);
	while (!attempt->over) {
		if (!pthread_cond_timedwait(&attempt->answered, &attempt->lock, &until))
			continue;
		unsigned now = atomic_load_explicit(&attempt->progress, memory_order_relaxed);
		if (attempt->over || now == seen)
			break;
		seen = now;
		until = from_now(limit_ms);
	}
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
