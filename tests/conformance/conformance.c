/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every driver must do, tried through the core with two coordinators on one loop.
 *
 *   conformance [-r] [-o NAME=VALUE]... URL [TEST...]
 *
 * For URL see target.h. Tests are skipped by what driver and session declare, never by a name. Exit status:
 * 0 all passed, 1 some failed, 77 the backend is not there (1 with -r).
 *
 * Names carry the process id and a count, so that a shared server may be used, and used again.
 */
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

#include "tests/conformance/suite.h"

struct suite t;

/* The driver, with this server, once a session is open. */
bool can(unsigned what)
{
	struct coord_session_info info = {.can = t.real->can};
	if (t.a.coord)
		coord_session_info(t.a.coord, &info);
	return (info.can & what) == what;
}

bool skip_unless(unsigned what)
{
	if (!can(what))
		t.skipped = true;
	return !can(what);
}

/* A name that nobody used before; valid for the whole run. */
const char *fresh(const char *stem)
{
	static char names[NAMES_MAX][NAME_LEN];
	if (t.names == NAMES_MAX)
		abort();
	char *name = names[t.names++];
	snprintf(name, NAME_LEN, "%s-%d-%u", stem, (int)getpid(), t.names);
	return name;
}

/* ---- Opening ---- */

static void shim_lock(struct coord_session *session, struct coord_op *op)
{
	t.lock_calls++;
	t.real->lock(session, op);
}

struct coord_config *config(const char *member)
{
	/* The fake knows its servers by their drivers: no shim there. */
	return target_config(&t.target, t.target.fake ? NULL : &t.shim, member);
}

bool world_open(void)
{
	if (!target_open(&t.target))
		return false;
	t.real = t.target.driver;
	t.shim = *t.real;
	t.shim.lock = shim_lock;
	return true;
}

int open_as(struct client *client, const char *member)
{
	return client_open(client, &t.target.world, t.target.world.loop, config(member));
}

int open_with(struct client *client, const char *member, const char *name, const char *value)
{
	if (t.target.options_len == TARGET_OPTIONS)
		return -ENOSPC;
	t.target.options[t.target.options_len++] = (struct coord_option){name, value};
	struct coord_config *c = config(member);
	t.target.options[--t.target.options_len] = (struct coord_option){NULL, NULL};
	return client_open(client, &t.target.world, t.target.world.loop, c);
}

bool has_leases(void)
{
	return !t.target.fake && (t.real->loss[COORD_LOCK] == COORD_LOSS_LEASE ||
					 t.real->loss[COORD_MEMBER] == COORD_LOSS_LEASE);
}

int open_leased(struct client *client, const char *member)
{
	return has_leases() ? open_with(client, member, "timeout", LEASE_TEXT)
			    : open_as(client, member);
}

struct taker *taker(struct client *client, enum coord_kind kind, const char *name)
{
	struct taker *ret = malloc(sizeof(*ret));
	if (!ret || taker_new(client, kind, coord_bytes_of(name), ret))
		abort();
	return ret;
}

void drop(struct taker *taker)
{
	taker_free(taker);
	free(taker);
}

uint64_t now(void)
{
	return coord_now_ms(t.target.world.loop);
}

bool refused(int r)
{
	return r == -EINVAL || r == -ENAMETOOLONG;
}

/* Where a sanitizer makes everything slower. */
static uint64_t slow(uint64_t ms)
{
	const char *factor = getenv("TOOZFS_SLOW");
	return factor ? (uint64_t)((double)ms * atof(factor)) : ms;
}

uint64_t handover_ms(void)
{
	if (can(COORD_CAN_QUEUE) || can(COORD_CAN_NOTIFY))
		return slow(HANDOVER_MS);
	return slow(HANDOVER_MS) + 3 * (uint64_t)t.real->poll_ms;
}

uint64_t notice_ms(void)
{
	return can(COORD_CAN_NOTIFY) ? slow(HANDOVER_MS) : 10000;
}

bool is_lost(void *user)
{
	return coord_holding_state(((struct taker *)user)->holding) == COORD_HOLDING_LOST;
}

/* ---- Running ---- */

static const struct test *const tables[] = {tests_sessions, tests_leases, tests_groups, tests_names,
	tests_locks, tests_order, tests_leaders};

/* In a process of its own: takes a lock, joins, and dies of it. Tells through the pipe that it holds. */
static void die_holding(int fd)
{
	struct client client;
	if (!world_open() || open_leased(&client, t.dead_member))
		_exit(1);
	struct taker *l = taker(&client, COORD_LOCK, t.dead_lock);
	if (taker_lock(l, COORD_EXCLUSIVE, 0, QUICK_MS))
		_exit(1);
	if (can(COORD_CAN_GROUPS) && (client_group_create(&client, t.dead_group) ||
					     client_member_put(&client, t.dead_group, t.dead_member,
						     COORD_BYTES("\xc0"), true)))
		_exit(1);
	if (write(fd, "h", 1) != 1)
		_exit(1);
	raise(SIGKILL);
}

static bool fork_dead(void)
{
	int fds[2], status;
	char told = 0;
	snprintf(t.dead_member, sizeof(t.dead_member), "dead-%d", (int)getpid());
	snprintf(t.dead_lock, sizeof(t.dead_lock), "dead-lock-%d", (int)getpid());
	snprintf(t.dead_group, sizeof(t.dead_group), "dead-group-%d", (int)getpid());
	if (pipe2(fds, 0) < 0)
		return false;
	pid_t pid = fork();
	if (pid == 0) {
		close(fds[0]);
		die_holding(fds[1]);
		_exit(1);
	}
	close(fds[1]);
	bool well = read(fds[0], &told, 1) == 1;
	close(fds[0]);
	return waitpid(pid, &status, 0) == pid && well;
}

static bool run(const struct test *test)
{
	char member[2][64];
	t.failed = t.skipped = false;
	for (int i = 0; i < 2; i++)
		snprintf(member[i], sizeof(member[i]), "conf-%c-%d", 'a' + i, (int)getpid());
	uint64_t start = now();
	CHECK_R(open_as(&t.a, member[0]), 0);
	CHECK_R(open_as(&t.b, member[1]), 0);
	if (!t.failed)
		test->fn();
	CHECK(client_close(&t.a));
	CHECK(client_close(&t.b));
	printf("%-7s %s (%llu ms)\n",
		t.failed    ? "FAILED"
		: t.skipped ? "partly"
			    : "ok",
		test->name, (unsigned long long)(now() - start));
	fflush(stdout);
	return !t.failed;
}

static bool wanted(const char *name, char *const *names)
{
	if (!*names)
		return true;
	for (; *names; names++)
		if (strcmp(*names, name) == 0)
			return true;
	return false;
}

int main(int argc, char **argv)
{
	char *const *names;
	int r = target_parse(&t.target, argc, argv, &names);
	if (r)
		return r;
	if (*names && strcmp(*names, ":hold") == 0)
		return hold(names + 1);
	if (!fork_dead()) {
		fprintf(stderr, "%s: no such backend here\n", t.target.url);
		return t.target.required ? 1 : 77;
	}
	if (!world_open())
		return 1;
	unsigned failed = 0;
	for (size_t i = 0; i < LEN(tables); i++)
		for (const struct test *test = tables[i]; test->name; test++)
			if (wanted(test->name, names) && !run(test))
				failed++;
	target_close(&t.target);
	if (failed)
		printf("%u failed\n", failed);
	return failed ? 1 : 0;
}
