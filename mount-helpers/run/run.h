/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tooz-run: a command that runs while it holds.
 *
 * Three processes:
 *
 *   tooz-run   what the shell sees. Never touches the tree, so that no daemon that stands still can
 *              stop it: it passes signals on, keeps the clock, ends the command, gives its status back.
 *              (When -w is over, or -n takes long, a child of its own reads .tooz/state, and is left alone if
 *              that takes long, too.)
 *   the keeper its child, in a process group of its own. Takes what is to be held and has the handles;
 *              waits for the loss of one, reads how long the leases last. When tooz-run dies it kills the
 *              command first and lets go after that.
 *   the command, in a process group of its own, and without any of the handles. It gets SIGKILL with the
 *              end of tooz-run, whatever becomes of the keeper.
 *
 * The two speak through a socket of single bytes, enum word, whose end of file is the other's death, and
 * through struct board, which both have mapped.
 *
 * Times are CLOCK_BOOTTIME in milliseconds, as the daemon's leases are.
 */
#ifndef TOOZ_RUN_H
#define TOOZ_RUN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum {
	EXIT_CONFLICT = 1, /* unless -E says otherwise */
	EXIT_LOST = 122,
	EXIT_FAILED = 125,
	EXIT_CANNOT_RUN = 126,
	EXIT_NOT_FOUND = 127,
};

enum {
	CLAIMS_MAX = 64,
	GRACE_MS = 1000, /* where no lease says what is left */
	GRACE_RESERVE_MS = 1000, /* of the margin, which no grace may take */
	KILL_RESERVE_MS = 200, /* before the lease is over here, for the KILL to be done */
	STAND_IN_MS = 100, /* after which the keeper does what tooz-run should have done */
};

#define NEVER INT64_MAX

enum claim_kind { CLAIM_LOCK, CLAIM_LEADER, CLAIM_MEMBER };

struct claim {
	enum claim_kind kind;
	char *path;
	char *caps; /* of a member; NULL: none are given */
	bool shared;
};

struct options {
	struct claim claims[CLAIMS_MAX];
	size_t claims_len;
	bool share_next; /* -s came before any lock */
	bool no_wait, foreground, verbose;
	int64_t wait_ms; /* for all together; -1: for ever */
	int64_t grace_ms; /* -1: what the lease says */
	int conflict_code;
	char **command;
};

/* Mapped by tooz-run and the keeper. Written by the keeper, but for target. */
struct board {
	_Atomic int64_t
		until_ms; /* the leases last as long as this at least; NEVER: there is none */
	_Atomic int64_t margin_ms, grace_ms; /* of the shortest lease; margin 0: there is none */
	_Atomic int exit_code; /* with WORD_REFUSED */
	_Atomic int lost; /* with WORD_LOST: which claim; -1: by the clock */
	_Atomic pid_t
		target; /* the command as kill(2) names it: its group, or itself; 0: not begun */
	uint64_t tokens[CLAIMS_MAX]; /* 0: none; written before WORD_HELD */
};

enum word {
	WORD_HELD = 'H', /* everything is; the command may begin */
	WORD_REFUSED = 'R', /* the keeper has said why, and ends */
	WORD_LOST = 'L',
	WORD_DONE = 'D', /* to the keeper: the command has ended, let go */
};

/* main.c: a line on standard error, with "tooz-run: " before and a newline after it. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
int64_t now_ms(void);
/* How long the command is given between TERM and KILL. */
int64_t grace_allowed(const struct options *, const struct board *);
/* When to begin to end the command if no longer lease is heard of; NEVER: nothing is leased. A mount whose
 * lease is over may let go at once, when it reaches the server again: so all is done before that. */
int64_t end_time(const struct options *, const struct board *);
/* When to kill a command whose lock was found lost now. */
int64_t kill_time(const struct options *, const struct board *);
/* Has this group, or process, as kill(2) names it, a process that is not a zombie? */
bool target_alive(pid_t target);

/* claims.c: takes it. Returns a descriptor, or -1 with the exit code in *ret_code when it has said why
 * (nothing, for a conflict, unless verbose). */
int claim_take(const struct options *, const struct claim *, uint64_t *ret_token, int *ret_code);
/* What .tooz/state of the claim's tree says, without the newline. Returns 0 or -errno. */
int claim_state(const struct claim *, char *ret, size_t size);
/* .tooz/session of the claim's tree; -1: it has said why. */
int claim_session(const struct claim *);

/* keeper.c: does not return. */
void keeper(const struct options *, struct board *, int to_run) __attribute__((noreturn));

/* supervise.c: runs the command and gives the exit code. */
int supervise(const struct options *, struct board *, pid_t keeper_pid, int to_keeper);

/* command.c */
struct terminal {
	int fd; /* of /dev/tty; -1: there is none, or it does not concern us */
	bool is_job; /* we are a job of a shell, alone in it: the command may have the terminal */
	bool given; /* the command has it */
};
void terminal_open(struct terminal *);
bool terminal_is_ours(const struct terminal *);
void terminal_give(struct terminal *, pid_t group);
void terminal_take(struct terminal *);
/* Forks. The child waits in a group of its own until command_begin. Returns its pid or -1. */
pid_t command_fork(const struct options *, const struct board *, int *ret_go);
/* Keeps, restores, asks for what was to be done with signals when we were started. */
void signals_save(void);
void signals_restore(void);
bool signal_was_ignored(int signum);

#endif
