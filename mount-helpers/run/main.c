/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tooz-run: options, and what happens before the command is begun.
 */
#include "mount-helpers/run/run.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SECONDS_MAX = 1000000000, KILLED_WAIT_MS = 1000, STATE_WAIT_MS = 1000, NO_WAIT_MS = 2000 };

static const char usage[] =
	"usage: tooz-run [OPTION]... [--] COMMAND [ARG]...\n"
	"Runs COMMAND while it holds what is named, and ends it in time when that is lost.\n"
	"\n"
	"  -l, --lock FILE            a lock, as /mnt/tooz/locks/nightly\n"
	"  -s, --shared               share that lock\n"
	"  -L, --leader FILE          a leadership, as /mnt/tooz/leaders/web\n"
	"  -m, --member FILE[=CAPS]   a membership, as /mnt/tooz/groups/web/host-1={\"weight\":2}\n"
	"                             (these four may be repeated; taken in the order given)\n"
	"  -n, --nonblock             do not wait\n"
	"  -w, --wait SECONDS         wait so long at most, for all together\n"
	"  -E, --conflict-exit-code CODE  when it was not obtained (1)\n"
	"  -g, --grace SECONDS        between TERM and KILL, as far as the lease allows\n"
	"  -f, --foreground           no process group for the command: it can read from the "
	"terminal,\n"
	"                             and what it started is not ended with it\n"
	"  -v, --verbose              say what happens\n"
	"  -h, --help, -V, --version\n"
	"\n"
	"Exit codes: COMMAND's, 128 + n when signal n ended it; 1 or CODE: not obtained; 122: "
	"lost;\n"
	"125: tooz-run failed; 126: COMMAND cannot be run; 127: there is no COMMAND.\n"
	"The command finds TOOZ_LOCK, TOOZ_TOKEN, TOOZ_LEADER and TOOZ_MEMBER in its "
	"environment.\n";

void say(const char *format, ...)
{
	char line[1024];
	va_list args;
	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	/* In one write, because the keeper and the command write there too. */
	fprintf(stderr, "tooz-run: %s\n", line);
}

int64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_BOOTTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t grace_allowed(const struct options *options, const struct board *board)
{
	int64_t margin = board->margin_ms, grace = margin ? board->grace_ms : GRACE_MS;
	int64_t most = margin - GRACE_RESERVE_MS > grace ? margin - GRACE_RESERVE_MS : grace;
	if (options->grace_ms < 0)
		return grace;
	return margin && options->grace_ms > most ? most : options->grace_ms;
}

int64_t end_time(const struct options *options, const struct board *board)
{
	int64_t until = board->until_ms;
	return until == NEVER ? NEVER : until - KILL_RESERVE_MS - grace_allowed(options, board);
}

int64_t kill_time(const struct options *options, const struct board *board)
{
	int64_t due = now_ms() + grace_allowed(options, board), until = board->until_ms;
	return until != NEVER && until - KILL_RESERVE_MS < due ? until - KILL_RESERVE_MS : due;
}

/* ---- Options ---- */

static int wrong(const char *format, const char *what)
{
	char line[512];
	snprintf(line, sizeof(line), format, what);
	say("%s (see tooz-run --help)", line);
	return EXIT_FAILED;
}

/* Seconds as milliseconds; -1: it is no such number. */
static int64_t parse_seconds(const char *text)
{
	char *end;
	double seconds = strtod(text, &end);
	if (end == text || *end || !isfinite(seconds) || seconds < 0 || seconds > SECONDS_MAX)
		return -1;
	return (int64_t)ceil(seconds * 1000);
}

static int parse_code(const char *text)
{
	char *end;
	long code = strtol(text, &end, 10);
	return end == text || *end || code < 0 || code > 255 ? -1 : (int)code;
}

/* The command may have another working directory. */
static char *absolute(const char *path, size_t len)
{
	char *text, *here = *path == '/' ? NULL : getcwd(NULL, 0);
	if (!here)
		return strndup(path, len);
	int n = asprintf(&text, "%s/%.*s", here, (int)len, path);
	free(here);
	return n < 0 ? NULL : text;
}

/* It would wait for itself. */
static bool is_twice(const struct options *options)
{
	for (size_t i = 0; i < options->claims_len; i++)
		for (size_t j = i + 1; j < options->claims_len; j++)
			if (!strcmp(options->claims[i].path, options->claims[j].path))
				return true;
	return false;
}

static int add_claim(struct options *options, enum claim_kind kind, const char *text)
{
	struct claim *claim = &options->claims[options->claims_len];
	if (options->claims_len == CLAIMS_MAX)
		return wrong("too much to hold, from %s on", text);
	size_t len = kind == CLAIM_MEMBER ? strcspn(text, "=") : strlen(text);
	*claim = (struct claim){.kind = kind, .path = absolute(text, len)};
	/* A copy: the keeper wipes the arguments. */
	claim->caps = text[len] ? strdup(text + len + 1) : NULL;
	if (!claim->path || (text[len] && !claim->caps))
		return wrong("%s: no memory", text);
	options->claims_len++;
	if (kind == CLAIM_LOCK) {
		claim->shared = options->share_next;
		options->share_next = false;
	}
	return 0;
}

/* Of the lock that was named last; before all, of the first. */
static void share(struct options *options)
{
	size_t i = options->claims_len;
	while (i > 0 && options->claims[i - 1].kind != CLAIM_LOCK)
		i--;
	if (i > 0)
		options->claims[i - 1].shared = true;
	else
		options->share_next = true;
}

static int parse_one(struct options *options, int option, const char *text)
{
	switch (option) {
	case 'l':
		return add_claim(options, CLAIM_LOCK, text);
	case 'L':
		return add_claim(options, CLAIM_LEADER, text);
	case 'm':
		return add_claim(options, CLAIM_MEMBER, text);
	case 's':
		share(options);
		return 0;
	case 'n':
		options->no_wait = true;
		return 0;
	case 'w':
		options->wait_ms = parse_seconds(text);
		return options->wait_ms < 0 ? wrong("-w %s: is no number of seconds", text) : 0;
	case 'E':
		options->conflict_code = parse_code(text);
		return options->conflict_code < 0 ? wrong("-E %s: is no exit code", text) : 0;
	case 'g':
		options->grace_ms = parse_seconds(text);
		return options->grace_ms < 0 ? wrong("-g %s: is no number of seconds", text) : 0;
	case 'f':
		options->foreground = true;
		return 0;
	case 'v':
		options->verbose = true;
		return 0;
	case 'h':
		fputs(usage, stdout);
		exit(0);
	case 'V':
		puts("tooz-run " TOOZFS_VERSION);
		exit(0);
	default:
		return EXIT_FAILED;
	}
}

/* What getopt does not take: '?' or ':' of this word. */
static int wrong_option(int result, const char *word)
{
	char name[] = {'-', (char)optopt, 0};
	if (strncmp(word, "--", 2))
		word = name;
	return wrong(result == ':' ? "%s: needs a value" : "%s: is no such option", word);
}

static int parse(struct options *options, int argc, char **argv)
{
	static const struct option longs[] = {
		{"lock", required_argument, NULL, 'l'},
		{"shared", no_argument, NULL, 's'},
		{"leader", required_argument, NULL, 'L'},
		{"member", required_argument, NULL, 'm'},
		{"nonblock", no_argument, NULL, 'n'},
		{"wait", required_argument, NULL, 'w'},
		{"conflict-exit-code", required_argument, NULL, 'E'},
		{"grace", required_argument, NULL, 'g'},
		{"foreground", no_argument, NULL, 'f'},
		{"verbose", no_argument, NULL, 'v'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{0},
	};
	int option, r = 0, word = optind;
	while (r == 0 &&
		(option = getopt_long(argc, argv, "+:l:sL:m:nw:E:g:fvhV", longs, NULL)) >= 0) {
		r = option == '?' || option == ':' ? wrong_option(option, argv[word])
						   : parse_one(options, option, optarg);
		word = optind;
	}
	if (r)
		return r;
	if (!options->claims_len)
		return wrong("%s", "nothing to hold: -l, -L or -m is needed");
	if (options->share_next)
		return wrong("%s", "-s: there is no lock to share: it goes with -l");
	if (is_twice(options))
		return wrong("%s", "the same twice");
	if (optind == argc)
		return wrong("%s", "no command");
	if (options->wait_ms == 0)
		options->no_wait = true;
	options->command = argv + optind;
	return 0;
}

/* ---- The keeper ---- */

/* So that `pkill -9 -f tooz-run` leaves the one who will clean up after it. */
static void hide_arguments(int argc, char **argv)
{
	size_t len = (size_t)(argv[argc - 1] + strlen(argv[argc - 1]) - argv[0]);
	memset(argv[0], 0, len);
	snprintf(argv[0], len + 1, "tooz-keeper");
}

static struct board *board_new(void)
{
	struct board *board = mmap(
		NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (board == MAP_FAILED)
		return NULL;
	board->until_ms = NEVER;
	return board;
}

/* Who waited for it longer than he would, or was told no. Nothing has been begun yet. */
static void end_keeper(pid_t pid, int to_keeper)
{
	struct pollfd polled = {.fd = to_keeper, .events = POLLIN};
	int64_t until = now_ms() + KILLED_WAIT_MS, left;
	char word;
	kill(pid, SIGKILL);
	while ((left = until - now_ms()) > 0 && recv(to_keeper, &word, 1, MSG_DONTWAIT) > 0)
		;
	/* One that a dead daemon holds fast is left to itself. */
	if (left > 0 && poll(&polled, 1, (int)left) > 0)
		waitpid(pid, NULL, 0);
}

/* The first word of the keeper; 0: it has died, or there was none in time. */
static char first_word(const struct options *options, int to_keeper, bool *ret_late)
{
	struct pollfd polled = {.fd = to_keeper, .events = POLLIN};
	int64_t most = options->no_wait ? NO_WAIT_MS : 0;
	if (options->wait_ms > 0)
		most = options->wait_ms;
	int64_t until = most ? now_ms() + most : NEVER;
	char word = 0;
	int n;
	do {
		int64_t left = until == NEVER ? -1 : until - now_ms();
		*ret_late = until != NEVER && left <= 0;
		if (*ret_late)
			return 0;
		n = poll(&polled, 1, left > INT32_MAX ? INT32_MAX : (int)left);
	} while (n <= 0);
	return recv(to_keeper, &word, 1, 0) == 1 ? word : 0;
}

/* While a later one was waited for. */
static void say_lost(const struct options *options, const struct board *board)
{
	int which = board->lost;
	if (which < 0 || (size_t)which >= options->claims_len)
		say("%s: its lease was not confirmed in time: lost before the command began",
			options->claims[0].path);
	else
		say("%s: lost before the command began", options->claims[which].path);
}

/* Says what is wrong with the mount, if it is; gives an exit status. */
static int say_state(const struct claim *claim)
{
	char state[32];
	int r = claim_state(claim, state, sizeof(state));
	if (r == 0 && !strcmp(state, "connected"))
		return 0;
	if (r == 0)
		say("%s: not obtained in time: the backend cannot be asked now, the mount is %s",
			claim->path, state);
	else
		say("%s: not obtained in time: %s", claim->path, strerror(-r));
	return EXIT_FAILED;
}

/* Asked in a child, because the mount may not answer at all. */
static bool is_away(const struct claim *claim)
{
	int ends[2], status = 0;
	pid_t parent = getpid();
	if (pipe2(ends, O_CLOEXEC) < 0)
		return false;
	pid_t pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		_exit(getppid() == parent ? say_state(claim) : EXIT_FAILED);
	}
	close(ends[1]);
	struct pollfd end = {.fd = ends[0]};
	bool silent = pid > 0 && poll(&end, 1, STATE_WAIT_MS) == 0;
	close(ends[0]);
	if (silent) {
		kill(pid, SIGKILL);
		say("%s: not obtained in time: the mount does not answer", claim->path);
		return true;
	}
	return pid > 0 && waitpid(pid, &status, 0) == pid && status != 0;
}

/* Nobody may hold it: then it is no conflict. */
static bool any_away(const struct options *options)
{
	for (size_t i = 0; i < options->claims_len; i++)
		if (is_away(&options->claims[i]))
			return true;
	return false;
}

/* Until everything is held. If it is not, returns false, and the exit code, which may be 0 (-E). */
static bool await_held(
	const struct options *options, const struct board *board, int to_keeper, int *ret_code)
{
	bool late, is_asked = options->no_wait && options->wait_ms <= 0, away;
	char word;
	/* Who does not wait is answered as soon as the backend has answered; but not by a dead daemon. */
	do {
		word = first_word(options, to_keeper, &late);
		away = late && any_away(options);
	} while (late && !away && is_asked);
	if (word == WORD_HELD)
		return true;
	*ret_code = EXIT_FAILED;
	if (word == WORD_REFUSED) {
		*ret_code = board->exit_code;
	} else if (word == WORD_LOST) {
		say_lost(options, board);
		*ret_code = EXIT_LOST;
	} else if (away) {
		*ret_code = EXIT_FAILED;
	} else if (late) {
		if (options->verbose)
			say("not obtained in time");
		*ret_code = options->conflict_code;
	} else {
		say("the keeper has died");
	}
	return false;
}

static void warn_of_grace(const struct options *options, const struct board *board)
{
	int64_t grace = grace_allowed(options, board);
	if (options->grace_ms > grace)
		say("-g: the lease allows %lld.%03lld seconds", (long long)grace / 1000,
			(long long)grace % 1000);
}

static int run(struct options *options, int argc, char **argv)
{
	int ends[2];
	struct board *board = board_new();
	if (!board || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) {
		say("%s", strerror(errno));
		return EXIT_FAILED;
	}
	pid_t pid = fork();
	if (pid == 0) {
		close(ends[0]);
		hide_arguments(argc, argv);
		options->command = NULL;
		keeper(options, board, ends[1]);
	}
	close(ends[1]);
	if (pid < 0) {
		say("%s", strerror(errno));
		return EXIT_FAILED;
	}
	int code;
	if (!await_held(options, board, ends[0], &code)) {
		end_keeper(pid, ends[0]);
		return code;
	}
	warn_of_grace(options, board);
	return supervise(options, board, pid, ends[0]);
}

/* Where somebody closed them, what we open is not taken for one of them. */
static void open_standard(void)
{
	int fd;
	do {
		fd = open("/dev/null", O_RDWR);
	} while (fd >= 0 && fd <= 2);
	if (fd > 2)
		close(fd);
}

int main(int argc, char **argv)
{
	static struct options options = {
		.wait_ms = -1, .grace_ms = -1, .conflict_code = EXIT_CONFLICT};
	open_standard();
	int code = parse(&options, argc, argv);
	signals_save();
	if (code == 0)
		code = run(&options, argc, argv);
	for (size_t i = 0; i < options.claims_len; i++) {
		free(options.claims[i].path);
		free(options.claims[i].caps);
	}
	return code;
}
