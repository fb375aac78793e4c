/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command: how it is begun, and what it has of the terminal.
 *
 * It is in a process group of its own, which a terminal lets read and sends Ctrl-C to only if that group is
 * the foreground one. Where tooz-run is a job of a shell and alone in it, the command's group takes its
 * place, as a shell's job would. Elsewhere (a script, a pipeline with `less`) that would take the
 * terminal from the others: then the command stays in the background, what the terminal sends to
 * tooz-run is passed on, and --foreground is for a command that has to read from it.
 */
#include "mount-helpers/run/run.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- Processes, as /proc shows them ---- */

/* A leader that has ended is a zombie while other threads of its process run on. Not by its stat: where a process hangs in
 * execve, as a file of it is closed on a mount that does not answer, whoever reads that hangs too. */
static bool is_alive(pid_t pid)
{
	char path[64], text[4096];
	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	ssize_t n = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[n > 0 ? n : 0] = 0;
	const char *state = strstr(text, "\nState:\t"), *threads = strstr(text, "\nThreads:\t");
	if (!state)
		return false;
	bool ended = state[8] == 'Z' || state[8] == 'X';
	return !ended || (threads && atoi(threads + 10) > 1);
}

/* Is there one that is alive and for which fn returns true? */
static bool processes(bool (*fn)(pid_t pid, pid_t group, pid_t user), pid_t user)
{
	bool found = false;
	const struct dirent *entry;
	DIR *dir = opendir("/proc");
	while (dir && !found && (entry = readdir(dir))) {
		pid_t pid = isdigit((unsigned char)*entry->d_name) ? atoi(entry->d_name) : 0;
		pid_t group = pid ? getpgid(pid) : -1;
		found = group >= 0 && fn(pid, group, user) && is_alive(pid);
	}
	if (dir)
		closedir(dir);
	return found;
}

static bool is_target(pid_t pid, pid_t group, pid_t target)
{
	return target > 0 ? pid == target : group == -target;
}

bool target_alive(pid_t target)
{
	if (kill(target, 0) < 0 && errno == ESRCH)
		return false;
	/* Without /proc a zombie cannot be told from the living; kill(2) knows them all. */
	return access("/proc/self/stat", R_OK) < 0 || processes(is_target, target);
}

static bool is_beside(pid_t pid, pid_t group, pid_t self)
{
	return group == getpgrp() && pid != self;
}

/* ---- Signals ---- */

static sigset_t mask_before, ignored_before;
static struct sigaction chld_before;

void signals_save(void)
{
	sigprocmask(SIG_SETMASK, NULL, &mask_before);
	sigemptyset(&ignored_before);
	for (int signum = 1; signum <= SIGRTMAX; signum++) {
		struct sigaction action;
		if (sigaction(signum, NULL, &action) == 0 && action.sa_handler == SIG_IGN)
			sigaddset(&ignored_before, signum);
	}
	/* Ignored, children would end without a status. */
	sigaction(SIGCHLD, &(struct sigaction){.sa_handler = SIG_DFL}, &chld_before);
}

void signals_restore(void)
{
	sigaction(SIGCHLD, &chld_before, NULL);
	sigprocmask(SIG_SETMASK, &mask_before, NULL);
}

bool signal_was_ignored(int signum)
{
	return sigismember(&ignored_before, signum);
}

/* ---- The terminal ---- */

static bool is_pipe(int fd)
{
	struct stat attr;
	return fstat(fd, &attr) == 0 && (S_ISFIFO(attr.st_mode) || S_ISSOCK(attr.st_mode));
}

void terminal_open(struct terminal *terminal)
{
	*terminal = (struct terminal){.fd = open("/dev/tty", O_RDWR | O_CLOEXEC)};
	/* The rest of a pipeline may not have been begun yet. */
	terminal->is_job = terminal->fd >= 0 && getpgrp() == getpid() && !is_pipe(0) &&
			   !is_pipe(1) && !processes(is_beside, getpid());
}

bool terminal_is_ours(const struct terminal *terminal)
{
	return terminal->fd >= 0 && tcgetpgrp(terminal->fd) == getpgrp();
}

void terminal_give(struct terminal *terminal, pid_t group)
{
	if (terminal->is_job && terminal_is_ours(terminal))
		terminal->given = tcsetpgrp(terminal->fd, group) == 0;
}

void terminal_take(struct terminal *terminal)
{
	if (terminal->given)
		tcsetpgrp(terminal->fd, getpgrp());
	terminal->given = false;
}

/* ---- The command's process ---- */

static void set_numbered(const char *name, size_t number, const char *value)
{
	char key[64];
	if (number > 1)
		snprintf(key, sizeof(key), "%s_%zu", name, number);
	else
		snprintf(key, sizeof(key), "%s", name);
	if (value)
		setenv(key, value, 1);
	else
		unsetenv(key);
}

/* TOOZ_LOCK and TOOZ_TOKEN of the first lock, TOOZ_LOCK_2 of the second ... What is left of another
 * tooz-run above this one, of the same kind, would be wrong. */
static void set_environment(const struct options *options, const struct board *board)
{
	static const char *const names[] = {
		[CLAIM_LOCK] = "TOOZ_LOCK",
		[CLAIM_LEADER] = "TOOZ_LEADER",
		[CLAIM_MEMBER] = "TOOZ_MEMBER",
	};
	size_t counts[3] = {0};
	for (size_t i = 0; i < options->claims_len; i++) {
		char token[24];
		const struct claim *claim = &options->claims[i];
		size_t number = ++counts[claim->kind];
		set_numbered(names[claim->kind], number, claim->path);
		if (claim->kind != CLAIM_LOCK)
			continue;
		snprintf(token, sizeof(token), "%llu", (unsigned long long)board->tokens[i]);
		set_numbered("TOOZ_TOKEN", number, board->tokens[i] ? token : NULL);
	}
	for (int kind = CLAIM_LOCK; kind <= CLAIM_MEMBER; kind++)
		for (size_t i = counts[kind] + 1; counts[kind] && i <= CLAIMS_MAX; i++) {
			set_numbered(names[kind], i, NULL);
			if (kind == CLAIM_LOCK)
				set_numbered("TOOZ_TOKEN", i, NULL);
		}
}

static void command_run(const struct options *options, pid_t parent, int go)
{
	char byte;
	ssize_t n;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(EXIT_FAILED);
	do {
		n = read(go, &byte, 1);
	} while (n < 0 && errno == EINTR);
	if (n != 1)
		_exit(EXIT_FAILED);
	signals_restore();
	execvp(options->command[0], options->command);
	int code = errno;
	say("%s: %s", options->command[0], strerror(code));
	_exit(code == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN);
}

pid_t command_fork(const struct options *options, const struct board *board, int *ret_go)
{
	int ends[2];
	pid_t parent = getpid();
	if (pipe2(ends, O_CLOEXEC) < 0)
		return -1;
	pid_t pid = fork();
	if (pid == 0) {
		close(ends[1]);
		if (!options->foreground)
			setpgid(0, 0);
		set_environment(options, board);
		command_run(options, parent, ends[0]);
	}
	close(ends[0]);
	if (pid < 0) {
		close(ends[1]);
		return -1;
	}
	if (!options->foreground)
		setpgid(pid, pid);
	*ret_go = ends[1];
	return pid;
}
