/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Very many waiters for one lock, from one process: each thread has an open file of its own and
 * a small stack.
 *
 *   waiters PATH COUNT
 *
 * Each waiter waits until the one before it is in its request, so that the order is known. Lines on
 * standard output: "queued" when all wait, and after "go" on standard input (the holder is then
 * expected to let go) "served N out-of-order M". A waiter releases as soon as it was served. Waiter
 * COUNT/2 is interrupted on "kill" with a signal and gives up; then "killed" is printed.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct waiter {
	pthread_t thread;
	unsigned number;
	int fd;
	atomic_int tid;
};

static atomic_uint served, disorder, last_served, gone;

static void *waiter_run(void *user)
{
	struct waiter *w = user;

	atomic_store(&w->tid, (int)syscall(SYS_gettid));
	if (flock(w->fd, LOCK_EX) < 0) {
		if (errno != EINTR)
			fprintf(stderr, "waiters: %u: %s\n", w->number, strerror(errno));
		atomic_fetch_add(&gone, 1);
		close(w->fd);
		return NULL;
	}
	/* Holding: nobody else is here. */
	if (w->number < atomic_load(&last_served))
		atomic_fetch_add(&disorder, 1);
	atomic_store(&last_served, w->number);
	atomic_fetch_add(&served, 1);
	close(w->fd);
	return NULL;
}

/* Does the thread wait for the answer to a request? */
static bool waiter_is_queued(struct waiter *w)
{
	char path[64], text[64] = "";
	int tid = atomic_load(&w->tid);

	if (tid == 0)
		return false;
	snprintf(path, sizeof(path), "/proc/self/task/%d/wchan", tid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	ssize_t n = read(fd, text, sizeof(text) - 1);
	close(fd);
	return n > 0 && strstr(text, "request_wait_answer");
}

static void nap(void)
{
	nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
}

static int waiter_start(struct waiter *w, const char *path, const pthread_attr_t *attr)
{
	w->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
	if (w->fd < 0)
		return -errno;
	int r = pthread_create(&w->thread, attr, waiter_run, w);
	if (r != 0)
		return -r;
	while (!waiter_is_queued(w))
		nap();
	return 0;
}

static void on_signal(int number)
{
}

static void commands(struct waiter *waiters, unsigned count)
{
	char line[32];

	while (fgets(line, sizeof(line), stdin)) {
		if (!strcmp(line, "kill\n")) {
			pthread_kill(waiters[count / 2].thread, SIGUSR1);
			while (atomic_load(&gone) == 0)
				nap();
			puts("killed");
		} else if (!strcmp(line, "go\n")) {
			for (unsigned i = 0; i < count; i++)
				pthread_join(waiters[i].thread, NULL);
			printf("served %u out-of-order %u\n", atomic_load(&served),
				atomic_load(&disorder));
		}
		fflush(stdout);
	}
}

int main(int argc, char **argv)
{
	if (argc < 3)
		return 2;
	unsigned count = (unsigned)strtoul(argv[2], NULL, 10);
	struct waiter *waiters = calloc(count, sizeof(*waiters));
	struct rlimit files = {count + 100, count + 100};
	struct sigaction action = {.sa_handler = on_signal};
	pthread_attr_t attr;

	if (!waiters || setrlimit(RLIMIT_NOFILE, &files) < 0)
		return 1;
	sigaction(SIGUSR1, &action, NULL);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 32768);
	for (unsigned i = 0; i < count; i++) {
		waiters[i].number = i;
		int r = waiter_start(&waiters[i], argv[1], &attr);
		if (r < 0) {
			fprintf(stderr, "waiters: %u: %s\n", i, strerror(-r));
			return 1;
		}
	}
	puts("queued");
	fflush(stdout);
	commands(waiters, count);
	return 0;
}
