/* SPDX-License-Identifier: Apache-2.0 */
/* What must hold at every step. See run.h, and sim.c for what it is. */
#include "tests/sim/run.h"

/* ---- Who may believe what ---- */

bool host_aware(size_t host)
{
	return !run.site.hosts[host].paused && !run.site.hosts[host].stale;
}

static bool server_has(size_t i, enum coord_mode mode)
{
	struct coord_key key = key_named(run.name_of[i]);
	return fake_holds(
		run.site.server, run.site.members[run.host_of[i]], key.kind, key.name, mode);
}

/* It stood still, or its clock did, and it has had no time yet to find out. */
static bool host_misled(size_t host)
{
	return !host_aware(host) || host_now(host) < run.hosts[host].excused_ms;
}

/* May the holder believe what is no longer so? Only as long as its kind of loss allows. */
static bool may_err(size_t i)
{
	size_t host = run.host_of[i];
	if (host_misled(host))
		return true;
	if (run.options.lock_loss == COORD_LOSS_CONNECTION &&
		!fake_client_up(run.site.server, run.site.members[host]))
		return true;
	return run.breaks && !server_has(i, COORD_NONE);
}

bool holds(size_t i, enum coord_mode mode)
{
	return run.takers[i].holding && taker_holds(&run.takers[i], mode);
}

/* ---- At every step ---- */

static void check_exclusion(void)
{
	for (size_t i = 0; i < run.takers_len; i++) {
		if (!holds(i, COORD_EXCLUSIVE) || may_err(i))
			continue;
		for (size_t j = 0; j < run.takers_len; j++)
			if (j != i && run.name_of[i] == run.name_of[j] && holds(j, COORD_NONE) &&
				!may_err(j))
				FAIL("takers %zu (host %zu) and %zu (host %zu) hold %s", i,
					run.host_of[i], j, run.host_of[j], names[run.name_of[i]]);
	}
}

/* A broken lock is found out in bounded time. */
static void check_orphans(void)
{
	uint64_t now = sim_now_ms(sim);
	for (size_t i = 0; i < run.takers_len; i++) {
		bool orphan = holds(i, COORD_NONE) && host_aware(run.host_of[i]) &&
			      !server_has(i, COORD_NONE);
		if (!orphan)
			run.orphan_ms[i] = 0;
		else if (!run.orphan_ms[i])
			run.orphan_ms[i] = now;
		else if (now - run.orphan_ms[i] > run.options.ttl_ms + 2000 + 2 * run.delay_ms)
			FAIL("taker %zu still holds what the server lost %llu ms ago", i,
				(unsigned long long)(now - run.orphan_ms[i]));
	}
}

/* Is it past a time at which the host, if it runs, has done what it had to? */
static bool overdue(size_t host, uint64_t due_ms)
{
	uint64_t now = host_now(host);
	return host_aware(host) && now > due_ms + 100 && now > run.hosts[host].ran_ms + 100;
}

/* Tries and requests end by their deadline, counted while their host runs. */
static void check_deadlines(void)
{
	for (size_t i = 0; i < run.takers_len; i++)
		if (run.takers[i].holding && run.takers[i].waiting && !run.waits[i] &&
			overdue(run.host_of[i], run.asked_ms[i] + DEADLINE_MS))
			FAIL("taker %zu: a try is not answered", i);
	for (size_t i = 0; i < REQS; i++)
		if (run.asks[i].busy && overdue(run.asks[i].host, run.asks[i].due_ms))
			FAIL("a request of host %zu is not answered", run.asks[i].host);
}

/* ---- What daemons leave ---- */

static bool leased(void)
{
	return run.options.lock_loss == COORD_LOSS_LEASE ||
	       run.options.member_loss == COORD_LOSS_LEASE;
}

/* Until then the server may have something of a daemon that ends now. */
static uint64_t grave_due_ms(void)
{
	enum { ON_THE_WAY_MS = 600 };
	return sim_now_ms(sim) + (leased() ? run.options.ttl_ms : 0) + ON_THE_WAY_MS +
	       3 * run.delay_ms;
}

void bury(size_t host, bool clean)
{
	const uint8_t *uuid = fake_uuid(run.site.server, run.site.members[host]);
	size_t left = clean ? fake_traces_of(run.site.server, uuid, false) : 0;
	if (left)
		FAIL("host %zu: its mount has ended and left %zu traces", host, left);
	struct grave *grave = run.graves;
	for (size_t i = 0; i < GRAVES && grave->used; i++)
		if (!run.graves[i].used || run.graves[i].due_ms < grave->due_ms)
			grave = &run.graves[i];
	*grave = (struct grave){.used = true, .host = host, .due_ms = grave_due_ms()};
	memcpy(grave->uuid, uuid, sizeof(grave->uuid));
}

void graves_wait(void)
{
	for (size_t i = 0; i < GRAVES; i++)
		run.graves[i].due_ms = grave_due_ms();
}

static void check_graves(void)
{
	for (struct grave *grave = run.graves; grave < run.graves + GRAVES; grave++) {
		if (!grave->used)
			continue;
		if (run.site.server_host.paused || sim_now_ms(sim) <= grave->due_ms)
			continue;
		size_t traces = fake_traces_of(run.site.server, grave->uuid, true);
		if (traces)
			FAIL("%zu traces are left of an earlier mount of host %zu", traces,
				grave->host);
		grave->used = false;
	}
}

void check_step(void)
{
	check_exclusion();
	check_orphans();
	check_deadlines();
	check_graves();
}

void check_put(const struct ask *ask)
{
	if (fake_stale(run.site.server, run.site.members[ask->host],
		    coord_bytes_of(group_names[ask->group]),
		    coord_bytes_of(run.site.members[ask->member])))
		FAIL("host %zu joined, and what is there is of its dead mount", ask->host);
}

/* ---- On the server ---- */

static size_t host_named(const char *member)
{
	size_t h = 0;
	while (h < run.site.len && strcmp(run.site.members[h], member) != 0)
		h++;
	return h;
}

static size_t name_of(struct coord_key key)
{
	size_t n = key.kind == COORD_LEADER ? LOCKS : 0;
	while (n < NAMES && !coord_bytes_equal(coord_bytes_of(names[n]), key.name))
		n++;
	return n;
}

/* At each grant: whoever had it before and runs was told that he has it no longer. */
static void on_granted(void *user, const char *member, struct coord_key key, enum coord_mode mode)
{
	(void)user;
	size_t to = host_named(member), n = name_of(key);
	if (run.options.lock_loss == COORD_LOSS_CONNECTION || run.breaks)
		return;
	for (size_t i = 0; i < run.takers_len; i++) {
		if (run.name_of[i] != n || run.host_of[i] == to || host_misled(run.host_of[i]))
			continue;
		if (holds(i, mode == COORD_EXCLUSIVE ? COORD_NONE : COORD_EXCLUSIVE))
			FAIL("%s is granted to host %zu, and taker %zu (host %zu) was not told",
				names[n], to, i, run.host_of[i]);
	}
}

/* What a mount lets go of, none of its users takes for his any more. (Sharers may have got it a second time.) */
static void check_released(size_t h, size_t n, const uint8_t owner[16])
{
	uint8_t now[16];
	bool ours = fake_owner(run.site.server, run.site.members[h], key_named(n), now) &&
		    memcmp(now, owner, sizeof(now)) == 0;
	if (!ours || host_misled(h))
		return;
	for (size_t i = 0; i < run.takers_len; i++)
		if (run.host_of[i] == h && run.name_of[i] == n && holds(i, COORD_EXCLUSIVE))
			FAIL("host %zu lets go of %s, and taker %zu was not told", h, names[n], i);
}

static void on_ended(void *user, const char *member, struct coord_key key, const uint8_t owner[16],
	enum fake_end end)
{
	(void)user;
	size_t h = host_named(member), n = name_of(key);
	struct grace *grace = &run.graces[h][n];
	if (end == FAKE_END_RELEASED)
		check_released(h, n, owner);
	if (!grace->runs || memcmp(grace->owner, owner, 16) != 0)
		return;
	grace->runs = false;
	if (end != FAKE_END_RELEASED)
		return;
	totals.graces++;
	if (host_now(h) < grace->until_ms)
		FAIL("host %zu lets go of %s %llu ms before the end of its holder's grace", h,
			names[n], (unsigned long long)(grace->until_ms - host_now(h)));
}

const struct fake_observer check_observer = {.granted = on_granted, .ended = on_ended};

/* ---- At the moment of an answer ---- */

static void check_token(size_t i, enum coord_mode mode)
{
	const struct taker *taker = &run.takers[i];
	size_t name = run.name_of[i];
	/* Sharers may have taken the one token of their mount before. */
	if (taker->token <= run.exclusive_token[name] && !run.excused[i])
		FAIL("taker %zu: token %llu is not above %llu", i, (unsigned long long)taker->token,
			(unsigned long long)run.exclusive_token[name]);
	if (mode == COORD_EXCLUSIVE && taker->token <= run.any_token[name] && !run.excused[i])
		FAIL("taker %zu: token %llu is not above all others", i,
			(unsigned long long)taker->token);
	if (mode == COORD_EXCLUSIVE && taker->token > run.exclusive_token[name])
		run.exclusive_token[name] = taker->token;
	if (taker->token > run.any_token[name])
		run.any_token[name] = taker->token;
}

void taker_answered(struct taker *taker)
{
	size_t i = (size_t)(taker - run.takers), name = run.name_of[i], host = run.host_of[i];
	SAY("taker %zu host %zu %s: answer %d, token %llu", i, host, names[name], taker->status,
		(unsigned long long)taker->token);
	if (taker->status)
		return;
	if (run.hosts[host].mount != MOUNT_UP)
		FAIL("taker %zu is granted a lock by a mount that ends", i);
	totals.grants++;
	enum coord_mode mode = coord_holding_mode(taker->holding);
	if (mode != run.asked[i])
		FAIL("taker %zu was granted mode %d, not %d", i, mode, run.asked[i]);
	bool cut = run.options.lock_loss == COORD_LOSS_CONNECTION &&
		   !fake_client_up(run.site.server, run.site.members[host]);
	bool misled = host_now(host) < run.hosts[host].excused_ms;
	if (!run.breaks && !cut && !misled && !server_has(i, COORD_NONE))
		FAIL("taker %zu is told that it holds, and the server does not know", i);
	/* Broken while the answer was under way: the notice comes after it. */
	if (!cut && !may_err(i))
		check_token(i, mode);
}

/* If the mount's own clock says so, the lock is let go only when its holder has had time to stop his work. */
void taker_lost(struct taker *taker)
{
	size_t i = (size_t)(taker - run.takers), host = run.host_of[i], name = run.name_of[i];
	const char *member = run.site.members[host];
	struct grace *grace = &run.graces[host][name];
	uint64_t grace_ms = run.options.ttl_ms / 8 < 1000 ? run.options.ttl_ms / 8 : 1000;
	SAY("taker %zu host %zu %s: lost", i, host, names[name]);
	bool told = run.options.lock_loss != COORD_LOSS_LEASE || run.breaking ||
		    run.hosts[host].mount != MOUNT_UP || fake_telling(run.site.server, member);
	if (told || !fake_owner(run.site.server, member, key_named(name), grace->owner))
		return;
	grace->runs = true;
	grace->until_ms = host_now(host) + grace_ms;
}

void check_told(void *user, int status, const struct coord_row *rows, size_t rows_len)
{
	(void)rows;
	(void)rows_len;
	size_t i = (size_t)(uintptr_t)user, host = run.host_of[i];
	SAY("taker %zu: check %d", i, status);
	bool cut = run.options.lock_loss == COORD_LOSS_CONNECTION ||
		   host_now(host) < run.hosts[host].excused_ms;
	if (status == 0 && holds(i, COORD_NONE) && !run.breaks && !cut &&
		!server_has(i, COORD_NONE))
		FAIL("taker %zu: still mine, and the server does not know", i);
}

/* ---- Once all is well ---- */

static bool member_there(size_t g, size_t m)
{
	bool any = false;
	for (size_t by = 0; by < run.site.len; by++)
		any |= fake_joined(run.site.server, run.site.members[by],
			coord_bytes_of(group_names[g]), coord_bytes_of(run.site.members[m]));
	return any;
}

static void check_back(void)
{
	for (size_t h = 0; h < run.site.len; h++)
		for (size_t g = 0; g < GROUPS; g++)
			for (size_t m = 0; m < run.site.len; m++)
				if (run.joined[h][g][m] ==
						1 + fake_group_deletes(run.site.server) &&
					!run.doubtful[g][m] && !member_there(g, m))
					FAIL("host %zu, member %s/%s is not back", h,
						group_names[g], run.site.members[m]);
}

/* Is the lock there to be had by somebody who waits? Those who hold it are at most those who wait to convert it. */
static bool turn_of_somebody(size_t name)
{
	bool waits = false;
	size_t holder = SIZE_MAX;
	for (size_t i = 0; i < run.takers_len; i++) {
		if (run.name_of[i] != name || !run.takers[i].holding)
			continue;
		waits |= run.takers[i].waiting && run.waits[i];
		if (!holds(i, COORD_NONE))
			continue;
		bool apart = holder != SIZE_MAX && holder != run.host_of[i];
		if (!run.takers[i].waiting || apart)
			return false;
		holder = run.host_of[i];
	}
	return waits;
}

/* Within two times to live of the heal, or of the release: the first is that of a holder who is dead. */
void check_recovery(void)
{
	uint64_t now = sim_now_ms(sim), bound_ms = 2 * run.options.ttl_ms;
	for (size_t n = 0; n < NAMES; n++) {
		if (!turn_of_somebody(n))
			run.turn_ms[n] = 0;
		else if (!run.turn_ms[n])
			run.turn_ms[n] = now;
		else if (now > run.turn_ms[n] + bound_ms)
			FAIL("%s is free, and nobody of those who wait gets it", names[n]);
	}
	if (run.recovered || now < run.healed_ms + bound_ms)
		return;
	run.recovered = true;
	for (size_t h = 0; h < run.site.len; h++)
		if (run.hosts[h].mount != MOUNT_UP || coord_state(coord_at(h)) != COORD_CONNECTED)
			FAIL("host %zu does not come back", h);
	check_back();
}

/* What a host believes to have joined is there, and what is there it knows. */
void check_members(void)
{
	struct coord_membership_info info;
	check_back();
	for (size_t h = 0; h < run.site.len; h++)
		for (size_t g = 0; g < GROUPS; g++)
			for (size_t m = 0; m < run.site.len; m++) {
				struct coord_bytes group = coord_bytes_of(group_names[g]);
				struct coord_bytes member = coord_bytes_of(run.site.members[m]);
				bool known =
					coord_membership_find(coord_at(h), group, member, &info);
				bool there = fake_joined(
					run.site.server, run.site.members[h], group, member);
				if (known && run.forgone[h][g][m])
					FAIL("host %zu, member %s/%s was left for good", h,
						group_names[g], run.site.members[m]);
				if (known != there)
					FAIL("host %zu, member %s/%s: %s", h, group_names[g],
						run.site.members[m],
						known ? "it is not joined" : "nobody knows of it");
			}
}

static void check_watcher(const struct watcher *watcher, size_t h, size_t g)
{
	/* Where nothing notifies it is just reading now and then. */
	for (int i = 0; i < 100 && !coord_followed_current(&watcher->follower); i++)
		pass(7);
	if (!coord_followed_current(&watcher->follower) || watcher->suspended)
		FAIL("host %zu does not know what became of %s", h, group_names[g]);
	for (size_t m = 0; m < run.site.len; m++)
		if (watcher->known[m] != member_there(g, m))
			FAIL("host %zu follows %s: %s is %s", h, group_names[g],
				run.site.members[m], member_there(g, m) ? "not seen" : "gone");
}

void check_watchers(void)
{
	for (size_t h = 0; h < run.site.len; h++)
		for (size_t g = 0; g < GROUPS; g++)
			if (run.watchers[h][g].follower.followed)
				check_watcher(&run.watchers[h][g], h, g);
}
