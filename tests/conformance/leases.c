/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leases: kept while the daemon runs, lost when it stands still. A daemon that can be stopped is another
 * process: this program with the word :hold behind the URL, see hold.
 */
#include "tests/conformance/suite.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

static bool leased(void)
{
	bool r = has_leases();
	t.skipped = t.skipped || !r;
	return r;
}

/* What is held is still held after more than two leases, and nobody was told otherwise. */
static void test_renewed(void)
{
	struct client c;
	struct answer list;
	const char *g = fresh("g"), *l = fresh("l"), *s = fresh("s");
	char member[64];
	if (!leased())
		return;
	snprintf(member, sizeof(member), "renewed-%d", (int)getpid());
	CHECK_R(open_leased(&c, member), 0);
	if (!c.coord)
		return;
	struct taker *lock = taker(&c, COORD_LOCK, l), *shared = NULL, *leader = NULL;
	CHECK_R(taker_lock(lock, COORD_EXCLUSIVE, 0, QUICK_MS), 0);
	if (can(COORD_CAN_SHARED)) {
		shared = taker(&c, COORD_LOCK, s);
		CHECK_R(taker_lock(shared, COORD_SHARED, 0, QUICK_MS), 0);
	}
	if (can(COORD_CAN_GROUPS)) {
		CHECK_R(client_group_create(&c, g), 0);
		CHECK_R(client_member_put(&c, g, "x", COORD_BYTES("\xc0"), true), 0);
		leader = taker(&c, COORD_LEADER, g);
		CHECK_R(taker_lock(leader, COORD_EXCLUSIVE, 0, QUICK_MS), 0);
	}
	struct taker *other = taker(&t.b, COORD_LOCK, l), *writer = taker(&t.b, COORD_LOCK, s);
	for (int i = 0; i < 7 && !t.failed; i++) {
		world_run(&t.target.world, LEASE_MS / 3);
		CHECK(coord_state(c.coord) == COORD_CONNECTED && c.losses == 0);
		CHECK_R(taker_lock(other, COORD_EXCLUSIVE, 0, QUICK_MS), -EAGAIN);
		if (shared)
			CHECK_R(taker_lock(writer, COORD_EXCLUSIVE, 0, QUICK_MS), -EAGAIN);
		if (!can(COORD_CAN_GROUPS))
			continue;
		CHECK_R(client_group_read(&t.b, g, false, &list), 0);
		CHECK(answer_find(&list, "x", false));
		answer_done(&list);
	}
	CHECK_R(taker_check(lock), 0);
	if (shared) {
		CHECK_R(taker_check(shared), 0);
		drop(shared);
	}
	if (leader) {
		CHECK_R(taker_check(leader), 0);
		drop(leader);
	}
	drop(lock);
	drop(other);
	drop(writer);
	CHECK(client_close(&c));
	if (can(COORD_CAN_GROUPS))
		CHECK_R(client_group_delete(&t.b, g), 0);
}

/* ---- A process that holds ---- */

struct holder {
	pid_t pid;
	int to, from;
};

static bool holder_says(struct holder *holder, char *ret, int ms)
{
	/* The loop goes on meanwhile: it keeps our own leases. */
	for (; ms > 0; ms -= 10) {
		struct pollfd fd = {.fd = holder->from, .events = POLLIN};
		if (poll(&fd, 1, 0) == 1)
			return read(holder->from, ret, 1) == 1;
		world_run(&t.target.world, 10);
	}
	return false;
}

/* False: it does not hold. holder_end is due in any case. */
static bool holder_start(struct holder *holder, const char *lock, const char *group)
{
	*holder = (struct holder){.pid = -1, .to = -1, .from = -1};
	int to[2] = {-1, -1}, from[2] = {-1, -1};
	char self[64], said = 0;
	char option[TARGET_OPTIONS][600], *argv[2 * TARGET_OPTIONS + 8], **arg = argv;
	snprintf(self, sizeof(self), "/proc/%d/exe", (int)getpid());
	*arg++ = self;
	for (size_t i = 0; i < t.target.options_len; i++) {
		snprintf(option[i], sizeof(option[i]), "%s=%s", t.target.options[i].name,
			t.target.options[i].value);
		*arg++ = (char *)"-o";
		*arg++ = option[i];
	}
	char *const rest[] = {(char *)"-o", (char *)"timeout=" LEASE_TEXT, (char *)t.target.url,
		(char *)":hold", (char *)lock, (char *)group, NULL};
	memcpy(arg, rest, sizeof(rest));
	if (pipe2(to, O_CLOEXEC) < 0 || pipe2(from, O_CLOEXEC) < 0)
		return false;
	fflush(stdout);
	holder->pid = fork();
	if (holder->pid == 0) {
		dup2(to[0], STDIN_FILENO);
		dup2(from[1], STDOUT_FILENO);
		execv(self, argv);
		_exit(1);
	}
	close(to[0]);
	close(from[1]);
	holder->to = to[1];
	holder->from = from[0];
	return holder_says(holder, &said, QUICK_MS) && said == 'h';
}

static void holder_end(struct holder *holder)
{
	close(holder->to);
	close(holder->from);
	/* Without a process the number means all that there are. */
	if (holder->pid <= 0)
		return;
	kill(holder->pid, SIGKILL);
	waitpid(holder->pid, NULL, 0);
}

/* Takes the lock and joins, says h; asked, says k (kept) or l (lost) for what the check gives then, and L if
 * the loss had been told before. */
int hold(char *const *words)
{
	char member[64], byte;
	struct client c;
	if (!words[0] || !words[1] || !world_open())
		return 2;
	snprintf(member, sizeof(member), "held-%d", (int)getpid());
	if (open_as(&c, member))
		return 1;
	struct taker *lock = taker(&c, COORD_LOCK, words[0]);
	if (taker_lock(lock, COORD_EXCLUSIVE, 0, QUICK_MS))
		return 1;
	if (words[1][0] && client_member_put(&c, words[1], member, COORD_BYTES("\xc0"), true))
		return 1;
	if (write(STDOUT_FILENO, "h", 1) != 1)
		return 1;
	for (;;) {
		struct pollfd fd = {.fd = STDIN_FILENO, .events = POLLIN};
		world_run(&t.target.world, 10);
		if (poll(&fd, 1, 0) != 1)
			continue;
		if (read(STDIN_FILENO, &byte, 1) != 1)
			return 0;
		bool told = is_lost(lock);
		byte = taker_check(lock) == 0 ? 'k' : told ? 'L' : 'l';
		if (write(STDOUT_FILENO, &byte, 1) != 1)
			return 1;
	}
}

static bool group_empties(const char *group)
{
	struct answer list;
	for (int i = 0; i < 60; i++) {
		CHECK_R(client_group_read(&t.b, group, false, &list), 0);
		size_t len = list.len;
		answer_done(&list);
		if (len == 0)
			return true;
		world_run(&t.target.world, 100);
	}
	return false;
}

/* The group is removed as soon as who died is dead there too. What it sent with its last breath may come late: what
 * was seen empty may have a member again. */
static int group_remove(const char *group)
{
	int r = client_group_delete(&t.b, group);
	for (uint64_t end = now() + QUICK_MS; r == -ENOTEMPTY && now() < end;) {
		world_run(&t.target.world, 100);
		r = client_group_delete(&t.b, group);
	}
	return r;
}

/* Renewals that do not come: the lock goes to the next after the lease, the member goes, and who held is
 * told as soon as it runs again. */
static void test_stopped(void)
{
	struct holder holder;
	const char *l = fresh("l"), *g = fresh("g");
	char said = 0;
	if (!leased() || t.real->loss[COORD_LOCK] != COORD_LOSS_LEASE) {
		t.skipped = true;
		return;
	}
	bool groups = can(COORD_CAN_GROUPS);
	if (groups)
		CHECK_R(client_group_create(&t.a, g), 0);
	struct taker *next = taker(&t.b, COORD_LOCK, l);
	bool holds = holder_start(&holder, l, groups ? g : "");
	CHECK(holds);
	if (holds) {
		CHECK_R(taker_lock(next, COORD_EXCLUSIVE, 0, QUICK_MS), -EAGAIN);
		uint64_t start = now();
		kill(holder.pid, SIGSTOP);
		CHECK_R(taker_lock(next, COORD_EXCLUSIVE, COORD_LOCK_WAIT, QUICK_MS), 0);
		/* Renewed a quarter of a lease ago at the most, and seen soon. */
		CHECK(now() - start > LEASE_MS / 4 && now() - start < 2 * LEASE_MS + 2000);
		CHECK(!groups || group_empties(g));
		kill(holder.pid, SIGCONT);
		CHECK(write(holder.to, "?", 1) == 1 && holder_says(&holder, &said, QUICK_MS));
		if (said != 'L' && said != 'l')
			FAIL("a holder that stood still said '%c'", said);
		CHECK_R(taker_check(next), 0);
	}
	holder_end(&holder);
	drop(next);
	if (groups)
		CHECK_R(group_remove(g), 0);
}

const struct test tests_leases[] = {
	{"renewed", test_renewed},
	{"stopped", test_stopped},
	{0},
};
