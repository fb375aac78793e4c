/* SPDX-License-Identifier: Apache-2.0 */
/* What is read of processes, and calls with a time limit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fs/attempt.h"
#include "fs/procs.h"

/* The n-th field of /proc/self/stat as proc(5) counts them, from the third on. */
static uint64_t field(int n)
{
	char text[1024];
	FILE *in = fopen("/proc/self/stat", "re");
	assert_non_null(in);
	size_t len = fread(text, 1, sizeof(text) - 1, in);
	fclose(in);
	text[len] = '\0';
	char *save, *word = strtok_r(strrchr(text, ')') + 1, " ", &save);
	for (int i = 3; i < n; i++)
		word = strtok_r(NULL, " ", &save);
	return strtoull(word, NULL, 10);
}

static void traces(void **state)
{
	(void)state;
	struct fs_trace trace, again;
	assert_int_equal(fs_trace_read(getpid(), &trace), 0);
	assert_int_equal(trace.pid, getpid());
	assert_int_equal(trace.pgrp, getpgrp());
	assert_int_equal(trace.sid, getsid(0));
	assert_int_equal(trace.start, field(22));
	/* Whatever becomes of the process. */
	void *more = mmap(NULL, 1 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(more != MAP_FAILED);
	assert_int_equal(fs_trace_read(getpid(), &again), 0);
	assert_memory_equal(&trace, &again, sizeof(trace));
	munmap(more, 1 << 20);
	assert_int_equal(fs_trace_read(INT32_MAX, &trace), -ENOENT);
}

static void *of_thread(void *data)
{
	*(int32_t *)data = fs_process_of(gettid());
	return NULL;
}

static void relations(void **state)
{
	(void)state;
	pthread_t thread;
	int32_t pid = 0;
	uint32_t uids[2];
	assert_int_equal(pthread_create(&thread, NULL, of_thread, &pid), 0);
	pthread_join(thread, NULL);
	assert_int_equal(pid, getpid());
	assert_int_equal(fs_parent_of(getpid()), getppid());
	assert_true(fs_process_uids(getpid(), uids));
	assert_int_equal(uids[0], getuid());
	assert_int_equal(uids[1], geteuid());
	assert_int_equal(fs_process_of(0), 0);
	assert_int_equal(fs_parent_of(INT32_MAX), 0);
	assert_false(fs_process_uids(INT32_MAX, uids));
}

static void inodes(void **state)
{
	(void)state;
	char name[16];
	struct stat st;
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), epoll = epoll_create1(EPOLL_CLOEXEC);
	assert_true(fd >= 0 && epoll >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	snprintf(name, sizeof(name), "%d", fd);
	assert_int_equal(fs_process_fd_ino(getpid(), name), st.st_ino);
	/* It has one, and to ask for it may hang. */
	snprintf(name, sizeof(name), "%d", epoll);
	assert_int_equal(fs_process_fd_ino(getpid(), name), 0);
	close(epoll);
	close(fd);
	assert_int_equal(fs_process_fd_ino(getpid(), name), 0);
}

/* A call that reads as many bytes as it is to. */
struct reading {
	struct fs_attempt attempt;
	int fds[2];
	int count, freed; /* freed: where to tell it */
};

static void reading_fn(struct fs_attempt *attempt)
{
	struct reading *reading = (struct reading *)attempt;
	char byte;
	for (int i = 0; i < reading->count && read(reading->fds[0], &byte, 1) == 1; i++)
		fs_attempt_progress(attempt);
}

static void reading_done(struct fs_attempt *attempt)
{
	struct reading *reading = (struct reading *)attempt;
	assert_int_equal(write(reading->freed, "x", 1), 1);
	close(reading->freed);
	free(reading);
}

static struct reading *reading_new(int count, int *ret_in, int *ret_freed)
{
	struct reading *reading = calloc(1, sizeof(*reading));
	int freed[2];
	assert_non_null(reading);
	assert_int_equal(pipe2(reading->fds, O_CLOEXEC), 0);
	assert_int_equal(pipe2(freed, O_CLOEXEC), 0);
	reading->attempt.fn = reading_fn;
	reading->attempt.done = reading_done;
	reading->count = count;
	reading->freed = freed[1];
	*ret_in = reading->fds[1];
	*ret_freed = freed[0];
	return reading;
}

static void attempt_that_returns(void **state)
{
	(void)state;
	int in, freed;
	char byte;
	struct reading *reading = reading_new(1, &in, &freed);
	assert_int_equal(write(in, "x", 1), 1);
	assert_int_equal(fs_attempt(&reading->attempt, 10000), 0);
	assert_int_equal(fcntl(freed, F_SETFL, O_NONBLOCK), 0);
	assert_int_equal(read(freed, &byte, 1), -1); /* the caller's still */
	int out = reading->fds[0];
	fs_attempt_free(&reading->attempt);
	assert_int_equal(read(freed, &byte, 1), 1);
	close(in);
	close(out);
	close(freed);
}

static void attempt_that_hangs(void **state)
{
	(void)state;
	int in, freed;
	char byte;
	struct reading *reading = reading_new(1, &in, &freed);
	int out = reading->fds[0];
	assert_int_equal(fs_attempt(&reading->attempt, 20), -ETIMEDOUT);
	assert_int_equal(write(in, "x", 1), 1);
	assert_int_equal(read(freed, &byte, 1), 1); /* it is freed by itself */
	close(in);
	close(out);
	close(freed);
}

static void *feed(void *data)
{
	for (int i = 0; i < 12; i++) {
		usleep(50000);
		assert_int_equal(write(*(int *)data, "x", 1), 1);
	}
	return NULL;
}

/* Each byte comes in time, all of them do not. */
static void attempt_that_goes_on(void **state)
{
	(void)state;
	int in, freed;
	pthread_t thread;
	struct reading *reading = reading_new(12, &in, &freed);
	int out = reading->fds[0];
	assert_int_equal(pthread_create(&thread, NULL, feed, &in), 0);
	assert_int_equal(fs_attempt(&reading->attempt, 400), 0);
	pthread_join(thread, NULL);
	fs_attempt_free(&reading->attempt);
	close(in);
	close(out);
	close(freed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(traces),
		cmocka_unit_test(relations),
		cmocka_unit_test(inodes),
		cmocka_unit_test(attempt_that_returns),
		cmocka_unit_test(attempt_that_hangs),
		cmocka_unit_test(attempt_that_goes_on),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
