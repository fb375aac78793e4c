/* SPDX-License-Identifier: Apache-2.0 */
/*
 * While the command runs: signals, the clock, the keeper's word; and the end.
 *
 * running -> ended      the command and what is left of its group have ended: then all is let go
 *         -> lost -> ended   TERM, after the grace KILL
 *
 * Lost is: the keeper says so; the keeper is dead; or the clock says that the leases cannot be counted on
 * any more, because the daemon has not said anything else since.
 */
#include "mount-helpers/run/run.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	RELEASE_MS = 2000, /* to wait for the keeper's end */
	LEFTOVER_LOOK_MS = 100, /* for processes of the group that are not our children */
};

struct run {
	const struct options *options;
	struct board *board;
	struct terminal terminal;
	pid_t keeper, command;
	pid_t target; /* for kill(2) */
	int to_keeper, signals, timer;
	bool ended, keeper_gone, lost, killed;
	int status; /* of the command, as of waitpid */
	int64_t kill_ms;
};

static void send_signal(const struct run *run, int signum)
{
	/* A command that has ended is not signalled by its pid; its group may have others. */
	if (run->target < 0 || !run->ended)
		kill(run->target, signum);
}

/* ---- Loss ---- */

static void kill_command(struct run *run)
{
	run->killed = true;
	send_signal(run, SIGKILL);
	if (run->options->verbose)
		say("killing the command");
}

/* Nothing is said before it is done: whoever reads it may not be reading. */
static void lose(struct run *run, const char *what, const char *why)
{
	if (run->lost)
		return;
	run->lost = true;
	run->kill_ms = kill_time(run->options, run->board);
	if (run->kill_ms > now_ms() && !run->killed) {
		send_signal(run, SIGTERM);
		send_signal(run, SIGCONT);
	} else if (!run->killed) {
		kill_command(run);
	}
	say("%s: %s: ending the command", what, why);
}

static void lose_claim(struct run *run)
{
	int which = run->board->lost;
	const struct options *options = run->options;
	if (which < 0 || (size_t)which >= options->claims_len)
		lose(run, options->claims[0].path, "its lease was not confirmed in time");
	else
		lose(run, options->claims[which].path, "lost");
}

/* With its keeper everything was let go of. */
static void lose_keeper(struct run *run)
{
	run->keeper_gone = true;
	if (run->lost)
		return;
	kill_command(run);
	lose(run, "the keeper", "has died, so that everything is lost");
}

static void on_word(struct run *run)
{
	char word;
	ssize_t n = recv(run->to_keeper, &word, 1, MSG_DONTWAIT);
	if (n == 1 && word == WORD_LOST)
		lose_claim(run);
	/* Its end is waited for as that of a process. */
	if (n == 0 || (n < 0 && errno == ECONNRESET))
		lose_keeper(run);
}

/* ---- The clock ---- */

static void look_at_clock(struct run *run)
{
	int64_t now = now_ms();
	if (!run->lost && now >= end_time(run->options, run->board)) {
		run->board->lost = -1;
		lose_claim(run);
	}
	if (run->lost && !run->killed && now >= run->kill_ms)
		kill_command(run);
}

/* Absolute, and on BOOTTIME: after a sleep of the host it is due at once. */
static void set_timer(const struct run *run)
{
	int64_t due = end_time(run->options, run->board);
	if (run->lost)
		due = run->killed ? NEVER : run->kill_ms;
	if (run->ended && due > now_ms() + LEFTOVER_LOOK_MS)
		due = now_ms() + LEFTOVER_LOOK_MS;
	struct itimerspec spec = {0};
	if (due != NEVER) {
		due = due > 0 ? due : 1;
		spec.it_value.tv_sec = due / 1000;
		spec.it_value.tv_nsec = due % 1000 * 1000000;
	}
	timerfd_settime(run->timer, TFD_TIMER_ABSTIME, &spec, NULL);
}

static void hear(struct run *run)
{
	if (!run->keeper_gone)
		on_word(run);
	look_at_clock(run);
}

/* ---- Stops ---- */

/* The signal does to us what it does by default; when this returns we have been continued. */
static void stop_by(int signum)
{
	sigset_t set, before;
	sigemptyset(&set);
	sigaddset(&set, signum);
	raise(signum);
	sigprocmask(SIG_UNBLOCK, &set, &before);
	sigprocmask(SIG_SETMASK, &before, NULL);
}

/* Is there a shell that would continue us? */
static bool is_orphaned(void)
{
	pid_t parent = getppid();
	return getsid(parent) != getsid(0) || getpgid(parent) == getpgrp();
}

/* What has happened while we were stopped comes first. */
static void resume(struct run *run)
{
	hear(run);
	if (run->lost)
		return;
	terminal_give(&run->terminal, -run->target);
	send_signal(run, SIGCONT);
}

/* The command was stopped: so is the job that it is to the shell. */
static void command_stopped(struct run *run, int signum)
{
	if (run->lost || !run->terminal.is_job) {
		if (!run->lost && run->terminal.fd >= 0 && run->target < 0 &&
			(signum == SIGTTIN || signum == SIGTTOU))
			say("the command wants to use the terminal, which it can with "
			    "--foreground");
		return;
	}
	/* A shell may give us the terminal after we gave it to the command. */
	bool wants = signum == SIGTTIN || signum == SIGTTOU;
	if (wants && terminal_is_ours(&run->terminal)) {
		resume(run);
		return;
	}
	terminal_take(&run->terminal);
	if (!is_orphaned())
		stop_by(signum);
	else if (signum != SIGSTOP)
		resume(run);
}

/* ---- Signals ---- */

static void reap(struct run *run)
{
	int status;
	pid_t pid;
	while ((pid = waitpid(-1, &status, WNOHANG | WUNTRACED)) > 0) {
		if (pid == run->keeper && !WIFSTOPPED(status)) {
			lose_keeper(run);
		} else if (pid == run->command && WIFSTOPPED(status)) {
			command_stopped(run, WSTOPSIG(status));
		} else if (pid == run->command) {
			run->ended = true;
			run->status = status;
		}
	}
}

static void pass_on(struct run *run, const struct signalfd_siginfo *info)
{
	int signum = (int)info->ssi_signo;
	/* What the terminal sends to its foreground group the command has got itself. */
	if (run->options->foreground && info->ssi_code == SI_KERNEL) {
		if (signum == SIGTSTP && !run->lost)
			stop_by(signum);
		return;
	}
	send_signal(run, signum);
	/* What is stopped would not be ended by it. */
	if (signum == SIGINT || signum == SIGQUIT || signum == SIGTERM || signum == SIGHUP)
		send_signal(run, SIGCONT);
	if (signum == SIGTSTP && run->terminal.fd >= 0 && !run->lost)
		stop_by(signum);
}

static void on_signals(struct run *run)
{
	struct signalfd_siginfo info;
	while (read(run->signals, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGCHLD)
			reap(run);
		else if (info.ssi_signo == SIGCONT)
			resume(run);
		else
			pass_on(run, &info);
	}
}

/* Everything is blocked but what a fault of our own raises; passed on is what was not ignored, and is no
 * business of ours. */
static int signals_open(void)
{
	static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
	static const int ours[] = {SIGPIPE, SIGTTIN, SIGTTOU, SIGKILL, SIGSTOP};
	sigset_t set, passed;
	sigfillset(&set);
	for (size_t i = 0; i < sizeof(faults) / sizeof(*faults); i++)
		sigdelset(&set, faults[i]);
	passed = set;
	for (size_t i = 0; i < sizeof(ours) / sizeof(*ours); i++)
		sigdelset(&passed, ours[i]);
	for (int signum = 1; signum <= SIGRTMAX; signum++)
		if (signum != SIGCHLD && signum != SIGCONT && signal_was_ignored(signum))
			sigdelset(&passed, signum);
	if (sigprocmask(SIG_SETMASK, &set, NULL) < 0)
		return -1;
	return signalfd(-1, &passed, SFD_NONBLOCK | SFD_CLOEXEC);
}

/* ---- Beginning ---- */

static int run_open(struct run *run)
{
	run->signals = signals_open();
	run->timer = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC);
	if (run->signals < 0 || run->timer < 0)
		return -1;
	/* So that we learn of the end of what the command left behind in its group. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	terminal_open(&run->terminal);
	if (run->options->foreground)
		run->terminal.is_job = false;
	return 0;
}

/* The keeper knows what to kill before there is anything that does something. */
static int begin(struct run *run)
{
	int go;
	run->command = command_fork(run->options, run->board, &go);
	if (run->command < 0)
		return -1;
	run->target = run->options->foreground ? run->command : -run->command;
	run->board->target = run->target;
	terminal_give(&run->terminal, run->command);
	ssize_t n = write(go, "", 1);
	close(go);
	return n == 1 ? 0 : -1;
}

/* ---- The end ---- */

static bool is_over(const struct run *run)
{
	return run->ended && (run->target > 0 || !target_alive(run->target));
}

/* The end of the keeper closes the socket; where the daemon stands still it may be long in coming. */
static void let_go(const struct run *run)
{
	char word = WORD_DONE;
	struct pollfd polled = {.fd = run->to_keeper, .events = POLLIN};
	int64_t until = now_ms() + RELEASE_MS;
	if (send(run->to_keeper, &word, 1, MSG_NOSIGNAL) < 0)
		return;
	for (;;) {
		ssize_t n = recv(run->to_keeper, &word, 1, MSG_DONTWAIT);
		int64_t left = until - now_ms();
		if (n == 0 || (n < 0 && errno == ECONNRESET)) {
			waitpid(run->keeper, NULL, 0);
			break;
		}
		if (left <= 0) {
			say("the mount does not answer: what was held is released when it does");
			return;
		}
		poll(&polled, 1, (int)left);
	}
	if (run->options->verbose)
		say("released");
}

static int exit_code(const struct run *run)
{
	if (run->lost)
		return EXIT_LOST;
	return WIFSIGNALED(run->status) ? 128 + WTERMSIG(run->status) : WEXITSTATUS(run->status);
}

/* As the command did. Shells, and their scripts, look for the death by SIGINT to end a loop. */
static void die_of_interrupt(const struct run *run)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	if (run->lost || !WIFSIGNALED(run->status) || WTERMSIG(run->status) != SIGINT ||
		signal_was_ignored(SIGINT))
		return;
	raise(SIGINT);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
}

static void loop(struct run *run)
{
	bool told = false;
	while (!is_over(run)) {
		struct pollfd fds[] = {
			{.fd = run->keeper_gone ? -1 : run->to_keeper, .events = POLLIN},
			{.fd = run->signals, .events = POLLIN},
			{.fd = run->timer, .events = POLLIN},
		};
		if (run->ended && !told && run->options->verbose)
			say("the command has ended; waiting for the rest of its process group");
		told = run->ended;
		set_timer(run);
		poll(fds, 3, -1);
		hear(run);
		on_signals(run);
	}
}

int supervise(const struct options *options, struct board *board, pid_t keeper_pid, int to_keeper)
{
	struct run run = {
		.options = options,
		.board = board,
		.keeper = keeper_pid,
		.to_keeper = to_keeper,
	};
	if (run_open(&run) < 0 || begin(&run) < 0) {
		say("%s", strerror(errno));
		return EXIT_FAILED;
	}
	loop(&run);
	terminal_take(&run.terminal);
	let_go(&run);
	die_of_interrupt(&run);
	return exit_code(&run);
}
