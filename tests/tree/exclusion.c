/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mutual exclusion under random kills.
 *
 *   exclusion PATH1 PATH2 ACQUISITIONS WORKERS SEED
 *
 * The paths are one lock, seen through two mounts. Workers open it by one of them, take it (mostly
 * exclusive, now and then shared), read their fencing token from the handle, note themselves in
 * shared memory, look whether anybody else is noted who may not be there, and let go. The parent
 * kills workers at random with SIGKILL and starts others in their place.
 *
 * A note of a killed holder stays. Its lock is released while the kernel tears the process down, so
 * whoever acquires next must find that process exiting or gone; anything else is a violation.
 * Tokens: an exclusive one is above all others before it, a shared one above all exclusive ones.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WORKERS_MAX 64
#define STUCK_S 30
#define PF_EXITING 0x4

struct slot {
	atomic_int pid; /* of the holder, 0: holds nothing */
	atomic_int mode; /* LOCK_EX, LOCK_SH */
};

struct shared {
	atomic_ulong acquired, shared, tries, violations, errors;
	_Atomic uint64_t last_exclusive, last_shared; /* the highest tokens seen */
	atomic_bool stop;
	struct slot slots[WORKERS_MAX];
};

static struct shared *shared;
static const char *paths[2];
static unsigned workers;

static uint32_t draw(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(*state >> 33);
}

static void nap_us(unsigned us)
{
	nanosleep(&(struct timespec){.tv_nsec = (long)us * 1000}, NULL);
}

static void violation(const char *what, uint64_t a, uint64_t b)
{
	fprintf(stderr, "exclusion: violation: %s (%llu, %llu)\n", what, (unsigned long long)a,
		(unsigned long long)b);
	atomic_fetch_add(&shared->violations, 1);
}

/* Has the process begun to exit? Only then can the kernel have closed its files. */
static bool is_dying(int pid)
{
	char path[32], text[512];
	char state;
	unsigned flags;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return true;
	ssize_t n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return true;
	text[n] = '\0';
	const char *after = strrchr(text, ')');
	if (!after || sscanf(after + 1, " %c %*d %*d %*d %*d %*d %u", &state, &flags) != 2)
		return false;
	return state == 'Z' || state == 'X' || (flags & PF_EXITING);
}

static void check_others(unsigned me, int mode)
{
	for (unsigned i = 0; i < workers; i++) {
		struct slot *slot = &shared->slots[i];
		int pid = atomic_load(&slot->pid);
		if (i == me || pid == 0)
			continue;
		if (mode == LOCK_SH && atomic_load(&slot->mode) == LOCK_SH)
			continue;
		/* It may have let go properly since the load. */
		if (is_dying(pid) || atomic_load(&slot->pid) != pid)
			atomic_compare_exchange_strong(&slot->pid, &pid, 0);
		else
			violation("two hold at once: processes", (uint64_t)getpid(), (uint64_t)pid);
	}
}

static void check_token(uint64_t token, int mode)
{
	uint64_t exclusive = atomic_load(&shared->last_exclusive);

	if (token <= exclusive)
		violation("a token is not above an earlier exclusive one", token, exclusive);
	if (mode == LOCK_EX) {
		uint64_t beside = atomic_load(&shared->last_shared);
		if (token <= beside)
			violation("an exclusive token is not above a shared one", token, beside);
		atomic_store(&shared->last_exclusive, token);
		return;
	}
	uint64_t last = atomic_load(&shared->last_shared);
	while (token > last && !atomic_compare_exchange_weak(&shared->last_shared, &last, token))
		;
}

static uint64_t read_token(int fd)
{
	char text[4096];
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

	if (n < 0) {
		perror("exclusion: read of a holding handle");
		return 0;
	}
	text[n] = '\0';
	const char *line = strstr(text, "token=");
	return line ? strtoull(line + 6, NULL, 10) : 0;
}

/* The lock is ours: look around, stay a little, go. */
static void critical(unsigned me, int fd, int mode, uint64_t *seed)
{
	struct slot *slot = &shared->slots[me];

	atomic_store(&slot->mode, mode);
	atomic_store(&slot->pid, (int)getpid());
	check_others(me, mode);
	uint64_t token = read_token(fd);
	if (token == 0)
		atomic_fetch_add(&shared->errors, 1);
	else
		check_token(token, mode);
	if (draw(seed) % 16 == 0)
		nap_us(draw(seed) % 300);
	check_others(me, mode);
	atomic_fetch_add(&shared->acquired, 1);
	if (mode == LOCK_SH)
		atomic_fetch_add(&shared->shared, 1);
	atomic_store(&slot->pid, 0);
}

static int take(int fd, int mode, bool try)
{
	while (flock(fd, try ? mode | LOCK_NB : mode) < 0) {
		if (errno == EWOULDBLOCK && try)
			return -EAGAIN;
		if (errno == EINTR)
			continue;
		perror("exclusion: flock");
		atomic_fetch_add(&shared->errors, 1);
		return -errno;
	}
	return 0;
}

static void worker(unsigned me, uint64_t seed)
{
	int fd = -1;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (!atomic_load(&shared->stop)) {
		if (fd < 0)
			fd = open(paths[draw(&seed) % 2], O_RDWR | O_CREAT | O_CLOEXEC, 0666);
		if (fd < 0) {
			perror("exclusion: open");
			atomic_fetch_add(&shared->errors, 1);
			_exit(1);
		}
		int mode = draw(&seed) % 10 == 0 ? LOCK_SH : LOCK_EX;
		bool try = draw(&seed) % 8 == 0;
		if (take(fd, mode, try) == 0) {
			critical(me, fd, mode, &seed);
			if (draw(&seed) % 4 != 0 && flock(fd, LOCK_UN) == 0)
				continue;
		} else {
			atomic_fetch_add(&shared->tries, 1);
			nap_us(draw(&seed) % 500);
		}
		close(fd);
		fd = -1;
	}
	_exit(0);
}

static pid_t start(unsigned i, uint64_t *seed)
{
	uint64_t own = (uint64_t)draw(seed) << 32 | draw(seed);

	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0)
		worker(i, own);
	return pid;
}

static time_t now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec;
}

/* Kills until there were enough acquisitions. Returns the number of kills, or -1: nothing moves. */
static long kill_at_random(pid_t *pids, unsigned long target, uint64_t *seed)
{
	long kills = 0;
	unsigned long last = 0;
	time_t moved = now_s();

	for (unsigned long done; (done = atomic_load(&shared->acquired)) < target;) {
		if (done != last) {
			last = done;
			moved = now_s();
		} else if (now_s() - moved > STUCK_S) {
			return -1;
		}
		nap_us(1000 + draw(seed) % 20000);
		unsigned i = draw(seed) % workers;
		kill(pids[i], SIGKILL);
		waitpid(pids[i], NULL, 0);
		pids[i] = start(i, seed);
		kills++;
	}
	return kills;
}

static bool all_end(pid_t *pids)
{
	time_t begin = now_s();

	atomic_store(&shared->stop, true);
	for (unsigned i = 0; i < workers; i++) {
		while (waitpid(pids[i], NULL, WNOHANG) == 0) {
			if (now_s() - begin > STUCK_S)
				return false;
			nap_us(1000);
		}
	}
	return true;
}

int main(int argc, char **argv)
{
	pid_t pids[WORKERS_MAX];

	if (argc < 6)
		return 2;
	paths[0] = argv[1];
	paths[1] = argv[2];
	unsigned long target = strtoul(argv[3], NULL, 10);
	workers = (unsigned)strtoul(argv[4], NULL, 10);
	uint64_t seed = strtoull(argv[5], NULL, 10);
	if (workers == 0 || workers > WORKERS_MAX)
		return 2;
	shared = mmap(
		NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		return 1;
	printf("seed %llu\n", (unsigned long long)seed);
	time_t begin = now_s();
	for (unsigned i = 0; i < workers; i++)
		pids[i] = start(i, &seed);
	long kills = kill_at_random(pids, target, &seed);
	bool ended = kills >= 0 && all_end(pids);
	for (unsigned i = 0; !ended && i < workers; i++)
		kill(pids[i], SIGKILL);
	printf("%s: %lu acquisitions (%lu shared), %lu refused tries, %ld kills, %lu violations, "
	       "%lu errors, %ld s\n",
		ended ? "ended" : "stuck", atomic_load(&shared->acquired),
		atomic_load(&shared->shared), atomic_load(&shared->tries), kills,
		atomic_load(&shared->violations), atomic_load(&shared->errors),
		(long)(now_s() - begin));
	return !ended || atomic_load(&shared->violations) || atomic_load(&shared->errors);
}
