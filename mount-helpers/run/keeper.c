/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper: has the handles, and is the only one who touches the tree.
 *
 * States: taking -> holding -> (lost) -> the end. Its end lets go of everything. It comes
 *
 *   while taking   with the end of tooz-run, by PR_SET_PDEATHSIG: the kernel takes the request back
 *   holding, lost  when tooz-run says that the command has ended; or when tooz-run has died, after the
 *                  keeper has killed the command and seen it gone
 *
 * A lost lock is an event of poll(2). What is no event is a daemon that stands still: so `left=` of
 * .tooz/session is read when a quarter of what it said before has passed, and tooz-run counts on no more
 * than that. poll and read hang with such a daemon; only the keeper hangs with them.
 */
#include "mount-helpers/run/run.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LOOKS = 4, READ_AGAIN_MS = 10, KILLED_LOOK_MS = 10 };

struct held {
	int fd;
	int session; /* .tooz/session of its tree */
	bool leased; /* lost with its lease, and not joined again as a member is */
	int64_t until_ms, left_ms; /* as it said last */
	int64_t look_ms; /* when to read again; NEVER: nothing is leased */
};

struct keeper {
	const struct options *options;
	struct board *board;
	int to_run;
	struct held held[CLAIMS_MAX];
	size_t held_len;
	bool lost;
	int64_t kill_ms; /* once lost */
};

/* ---- Leases ---- */

/* A number of seconds with three digits behind the point; -1: it is not there. */
static int64_t field_ms(const char *text, const char *key)
{
	const char *at = strstr(text, key);
	unsigned long long s;
	unsigned ms;
	if (!at || sscanf(at + strlen(key), "%llu.%3u", &s, &ms) != 2 || s > INT32_MAX)
		return -1;
	return (int64_t)(s * 1000 + ms);
}

/* The shortest margin is what there is room for. */
static void note_margin(struct board *board, const char *text)
{
	int64_t margin = field_ms(text, "\nmargin="), grace = field_ms(text, "\ngrace=");
	if (margin <= 0 || grace < 0)
		return;
	if (!board->margin_ms || margin < board->margin_ms) {
		board->grace_ms = grace;
		board->margin_ms = margin;
	}
}

/* Returns false if the daemon is gone. Counted from before the question. */
static bool look(struct keeper *keeper, struct held *held)
{
	char text[1024] = "\n";
	int64_t asked = now_ms();
	ssize_t n = pread(held->session, text + 1, sizeof(text) - 2, 0);
	if (n < 0)
		return false;
	text[n + 1] = 0;
	held->look_ms = NEVER;
	if (field_ms(text, "\nttl=") <= 0)
		return true;
	note_margin(keeper->board, text);
	int64_t left = field_ms(text, "\nleft=");
	if (left > 0)
		held->until_ms = asked + left;
	int64_t wait = (held->until_ms - asked) / LOOKS;
	held->look_ms = now_ms() + (left > 0 && wait > READ_AGAIN_MS ? wait : READ_AGAIN_MS);
	return true;
}

static void post_until(struct keeper *keeper)
{
	int64_t until = NEVER;
	for (size_t i = 0; i < keeper->held_len; i++)
		if (keeper->held[i].leased && keeper->held[i].until_ms < until)
			until = keeper->held[i].until_ms;
	keeper->board->until_ms = until;
}

/* ---- Losing ---- */

static void tell(struct keeper *keeper, char word)
{
	/* It can fail with the death of tooz-run only, which poll tells. */
	if (send(keeper->to_run, &word, 1, MSG_NOSIGNAL) < 0)
		return;
}

static void lose(struct keeper *keeper, int which)
{
	if (keeper->lost)
		return;
	keeper->lost = true;
	keeper->kill_ms = kill_time(keeper->options, keeper->board) + STAND_IN_MS;
	keeper->board->lost = which;
	tell(keeper, WORD_LOST);
}

static void look_at_leases(struct keeper *keeper)
{
	for (size_t i = 0; i < keeper->held_len && !keeper->lost; i++)
		if (keeper->held[i].leased && keeper->held[i].look_ms <= now_ms() &&
			!look(keeper, &keeper->held[i]))
			lose(keeper, (int)i);
	post_until(keeper);
	if (now_ms() >= end_time(keeper->options, keeper->board))
		lose(keeper, -1);
}

/* ---- Ending ---- */

static void kill_command(const struct keeper *keeper)
{
	pid_t target = keeper->board->target;
	if (target)
		kill(target, SIGKILL);
}

/* tooz-run is dead. What it ran must be gone before anything is let go of; no event tells. */
static void end_orphaned(const struct keeper *keeper)
{
	pid_t target = keeper->board->target;
	while (target && target_alive(target)) {
		kill(target, SIGKILL);
		poll(NULL, 0, KILLED_LOOK_MS);
	}
}

/* In order of their taking, the last first. */
static void let_go(const struct keeper *keeper)
{
	for (size_t i = keeper->held_len; i-- > 0;) {
		flock(keeper->held[i].fd, LOCK_UN);
		close(keeper->held[i].fd);
		close(keeper->held[i].session);
	}
	/* The socket is the last to be closed: its end says that all is released. */
	_exit(0);
}

/* A word from tooz-run, or its death. */
static void hear(const struct keeper *keeper)
{
	char word;
	ssize_t n;
	do {
		n = recv(keeper->to_run, &word, 1, 0);
	} while (n < 0 && errno == EINTR);
	if (n <= 0)
		end_orphaned(keeper);
	let_go(keeper);
}

/* ---- Holding ---- */

static int wait_ms(const struct keeper *keeper)
{
	int64_t due = keeper->lost ? keeper->kill_ms : NEVER, now = now_ms();
	for (size_t i = 0; i < keeper->held_len && !keeper->lost; i++)
		if (keeper->held[i].leased && keeper->held[i].look_ms < due)
			due = keeper->held[i].look_ms;
	if (due == NEVER)
		return -1;
	return due <= now ? 0 : due - now > INT32_MAX ? INT32_MAX : (int)(due - now);
}

/* A holding handle polls as nothing. A lost one as an error; one that was unlocked by `rm` as readable, and
 * that of a dead daemon as an error, too. A member is always ready, so only errors are asked for. */
static nfds_t watched(const struct keeper *keeper, struct pollfd *fds)
{
	fds[0] = (struct pollfd){.fd = keeper->to_run, .events = POLLIN};
	for (size_t i = 0; i < keeper->held_len; i++)
		fds[i + 1] = (struct pollfd){
			.fd = keeper->held[i].fd, .events = keeper->held[i].leased ? POLLIN : 0};
	return keeper->lost ? 1 : 1 + keeper->held_len;
}

/* Looks once, after waiting for so long. */
static void watch(struct keeper *keeper, int timeout)
{
	struct pollfd fds[CLAIMS_MAX + 1];
	nfds_t len = watched(keeper, fds);
	int n = poll(fds, len, timeout);
	for (size_t i = 1; n > 0 && i < len; i++)
		if (fds[i].revents)
			lose(keeper, (int)i - 1);
	if (n > 0 && fds[0].revents)
		hear(keeper);
	if (!keeper->lost)
		look_at_leases(keeper);
	else if (keeper->kill_ms <= now_ms()) {
		kill_command(keeper);
		keeper->kill_ms = NEVER;
	}
}

/* ---- Taking ---- */

static void refuse(struct keeper *keeper, int code)
{
	keeper->board->exit_code = code;
	tell(keeper, WORD_REFUSED);
	let_go(keeper);
}

static void take_all(struct keeper *keeper)
{
	const struct options *options = keeper->options;
	for (size_t i = 0; i < options->claims_len; i++) {
		int code;
		const struct claim *claim = &options->claims[i];
		struct held *held = &keeper->held[i];
		uint64_t *token = &keeper->board->tokens[i];
		*held = (struct held){.leased = claim->kind != CLAIM_MEMBER, .until_ms = NEVER};
		held->session = claim_session(claim);
		if (held->session < 0)
			refuse(keeper, EXIT_FAILED);
		held->fd = claim_take(options, claim, token, &code);
		if (held->fd < 0)
			refuse(keeper, code);
		keeper->held_len++;
		if (options->verbose && *token)
			say("%s: held, token %llu", claim->path, (unsigned long long)*token);
		else if (options->verbose)
			say("%s: held", claim->path);
	}
}

/* Nothing that a terminal or a shell does to a job is meant for the keeper. */
static void stand_aside(int to_run)
{
	sigset_t all;
	char word;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	setpgid(0, 0);
	prctl(PR_SET_NAME, "tooz-keeper");
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* It may have died before that. */
	if (recv(to_run, &word, 1, MSG_PEEK | MSG_DONTWAIT) == 0)
		_exit(0);
}

/* Whoever waits for the end of our output does not wait for the keeper. */
static void be_silent(void)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int fd = 0; fd < 3 && null >= 0; fd++)
		dup2(null, fd);
}

/* What the caller has open is none of the keeper's: somebody may wait for its end, or a lock be held by it.
 * Returns to_run under its new number. */
static int close_the_callers(int to_run)
{
	int fd = STDERR_FILENO + 1;
	if (to_run != fd && dup3(to_run, fd, O_CLOEXEC) < 0)
		return to_run;
	close_range((unsigned)fd + 1, ~0u, 0);
	return fd;
}

void keeper(const struct options *options, struct board *board, int to_run)
{
	static struct keeper self;
	self = (struct keeper){
		.options = options, .board = board, .to_run = close_the_callers(to_run)};
	stand_aside(self.to_run);
	take_all(&self);
	for (size_t i = 0; i < self.held_len; i++)
		self.held[i].look_ms = 0;
	watch(&self, 0);
	be_silent();
	/* From here on the death of tooz-run needs more than ours. */
	prctl(PR_SET_PDEATHSIG, 0);
	if (!self.lost)
		tell(&self, WORD_HELD);
	for (;;)
		watch(&self, wait_ms(&self));
}
