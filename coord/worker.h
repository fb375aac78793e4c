/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread with a queue, for client libraries that block. A driver starts as many as it needs when
 * its session opens; nothing long-lived ever waits on a shared pool.
 */
#ifndef COORD_WORKER_H
#define COORD_WORKER_H

#include "coord/loop.h"

/* Embedded in what the job is about; owned by the worker from submit until done. */
struct coord_job {
	void (*work)(struct coord_job *); /* on the worker's thread */
	void (*done)(
		struct coord_job *); /* on the loop afterwards; NULL: the work has told already */
	struct coord_job *next;
	struct coord_task task;
	struct coord_worker *worker;
};

struct coord_worker;
int coord_worker_new(struct coord_loop *, const char *name, struct coord_worker **ret);
void coord_worker_submit(struct coord_worker *, struct coord_job *);
/* Lets the queue run empty, ends and joins the thread. Blocks meanwhile. NULL is allowed. */
void coord_worker_free(struct coord_worker *);

#endif
