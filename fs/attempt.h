/* SPDX-License-Identifier: Apache-2.0 */
/* A call with a time limit: on a thread of its own, which is left behind if it does not return. */
#ifndef FS_ATTEMPT_H
#define FS_ATTEMPT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

/* The head of what the call works on. Nothing else may be written by the thread, and what it reads must
 * live as long. */
struct fs_attempt {
	void (*fn)(struct fs_attempt *);
	void (*done)(struct fs_attempt *); /* frees it, on whatever thread */
	atomic_uint progress;
	pthread_mutex_t lock; /* guards over and left */
	pthread_cond_t answered;
	bool over, left;
};

/* Calls fn. 0: it has returned, and the caller frees the attempt with fs_attempt_free. -ETIMEDOUT: for so long it has
 * neither returned nor gone on; then it is freed when it returns. Else -errno, and it is freed. */
int fs_attempt(struct fs_attempt *, unsigned limit_ms);
void fs_attempt_free(struct fs_attempt *);
/* By fn: it goes on, so its time begins anew. */
void fs_attempt_progress(struct fs_attempt *);

#endif
