/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One kind of load on a mounted tree, for a given time. Prints how many a second.
 *
 *   load DIR lock|stat|read|readdir SECONDS [LOCK]
 *
 * LOCK is the lock's name, l if there is none. lock is one pair of flock LOCK_EX and LOCK_UN on an open handle; read is open, read to the end
 * and close; readdir lists groups/g, whole. DIR needs groups/g with the members m0 and m1.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int load_lock(int fd, unsigned i)
{
	return flock(fd, LOCK_EX) < 0 || flock(fd, LOCK_UN) < 0 ? -errno : 0;
}

static int load_stat(int fd, unsigned i)
{
	struct stat st;

	return stat(i % 2 ? "groups/g/m1" : "groups/g/m0", &st) < 0 ? -errno : 0;
}

static int load_read(int fd, unsigned i)
{
	char buf[4096];
	ssize_t n;
	int file = open(i % 2 ? "groups/g/m1" : "groups/g/m0", O_RDONLY | O_CLOEXEC);

	if (file < 0)
		return -errno;
	do {
		n = read(file, buf, sizeof(buf));
	} while (n > 0);
	int r = n < 0 ? -errno : 0;
	close(file);
	return r;
}

static unsigned entries; /* seen by the last listing */

static int load_readdir(int fd, unsigned i)
{
	DIR *dir = opendir("groups/g");

	if (!dir)
		return -errno;
	entries = 0;
	errno = 0;
	while (readdir(dir))
		entries++;
	int r = -errno;
	closedir(dir);
	return r;
}

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static const struct {
	const char *name;
	int (*once)(int fd, unsigned i);
	unsigned batch; /* between two looks at the clock */
} loads[] = {
	{"lock", load_lock, 64},
	{"stat", load_stat, 64},
	{"read", load_read, 32},
	{"readdir", load_readdir, 1},
};

static int run(size_t which, int fd, double seconds)
{
	unsigned i = 0;
	double start = now_s(), end;

	do {
		for (unsigned n = 0; n < loads[which].batch; n++) {
			int r = loads[which].once(fd, i++);
			if (r < 0) {
				fprintf(stderr, "load: %s: %s\n", loads[which].name, strerror(-r));
				return 1;
			}
		}
		end = now_s();
	} while (end - start < seconds);
	printf("%.1f %u %u\n", (double)i / (end - start), i, entries);
	return 0;
}

int main(int argc, char **argv)
{
	int fd = -1;

	if (argc < 4 || chdir(argv[1]) < 0)
		return 2;
	if (!strcmp(argv[2], "lock")) {
		char path[300];
		snprintf(path, sizeof(path), "locks/%s", argc > 4 ? argv[4] : "l");
		fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
		if (fd < 0) {
			perror("load: lock");
			return 1;
		}
	}
	for (size_t i = 0; i < sizeof(loads) / sizeof(*loads); i++)
		if (!strcmp(argv[2], loads[i].name))
			return run(i, fd, strtod(argv[3], NULL));
	return 2;
}
