/* SPDX-License-Identifier: Apache-2.0 */
/* A thread with a queue of jobs. See worker.h. */
#include "coord/worker.h"

#include <signal.h>
#include <stdio.h>

struct coord_worker {
	struct coord_loop *loop;
	pthread_t thread;
	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t more;
	struct coord_job *jobs, **jobs_end;
	bool ending;
};

static void job_done(struct coord_task *task)
{
	struct coord_job *job = coord_container(task, struct coord_job, task);
	job->done(job);
}

static struct coord_job *worker_next(struct coord_worker *worker)
{
	pthread_mutex_lock(&worker->lock);
	while (!worker->jobs && !worker->ending)
		pthread_cond_wait(&worker->more, &worker->lock);
	struct coord_job *job = worker->jobs;
	if (job) {
		worker->jobs = job->next;
		if (!worker->jobs)
			worker->jobs_end = &worker->jobs;
	}
	pthread_mutex_unlock(&worker->lock);
	return job;
}

static void *worker_main(void *data)
{
	struct coord_worker *worker = data;
	for (;;) {
		struct coord_job *job = worker_next(worker);
		if (!job)
			return NULL;
		/* Without done the job may be freed by its own work. */
		bool tell = job->done;
		job->work(job);
		if (tell) {
			job->task = (struct coord_task){.fn = job_done};
			coord_loop_post(worker->loop, &job->task);
		}
	}
}

int coord_worker_new(struct coord_loop *loop, const char *name, struct coord_worker **ret)
{
	struct coord_worker *worker = calloc(1, sizeof(*worker));
	if (!worker)
		return -ENOMEM;
	worker->loop = loop;
	worker->jobs_end = &worker->jobs;
	pthread_mutex_init(&worker->lock, NULL);
	pthread_cond_init(&worker->more, NULL);
	/* Signals are the loop's. */
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int r = pthread_create(&worker->thread, NULL, worker_main, worker);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r) {
		pthread_mutex_destroy(&worker->lock);
		pthread_cond_destroy(&worker->more);
		free(worker);
		return -r;
	}
	char shown[16];
	snprintf(shown, sizeof(shown), "%s", name);
	pthread_setname_np(worker->thread, shown);
	*ret = worker;
	return 0;
}

void coord_worker_submit(struct coord_worker *worker, struct coord_job *job)
{
	job->worker = worker;
	job->next = NULL;
	pthread_mutex_lock(&worker->lock);
	*worker->jobs_end = job;
	worker->jobs_end = &job->next;
	pthread_cond_signal(&worker->more);
	pthread_mutex_unlock(&worker->lock);
}

void coord_worker_free(struct coord_worker *worker)
{
	if (!worker)
		return;
	pthread_mutex_lock(&worker->lock);
	worker->ending = true;
	pthread_cond_signal(&worker->more);
	pthread_mutex_unlock(&worker->lock);
	pthread_join(worker->thread, NULL);
	pthread_mutex_destroy(&worker->lock);
	pthread_cond_destroy(&worker->more);
	free(worker);
}
