/* SPDX-License-Identifier: Apache-2.0 */
/* What users of the mounts do. See run.h. */
#include "tests/sim/run.h"

static const char *const other_names[NAMES] = {
	"L0", "L1", "L2", "G0", "G1"}; /* the same, where the server folds */

/* ---- Locks ---- */

void taker_make(size_t i)
{
	struct client *client = &run.site.clients[run.host_of[i]];
	struct coord_key key = key_named(run.name_of[i]);
	if (run.options.fold && sim_below(sim, 2))
		key.name = coord_bytes_of(other_names[run.name_of[i]]);
	int r = taker_new(client, key.kind, key.name, &run.takers[i]);
	if (r)
		FAIL("coord_holding_new: %d", r);
	run.takers[i].told = taker_answered;
	run.takers[i].told_lost = taker_lost;
}

void taker_end(size_t i)
{
	struct taker *taker = &run.takers[i];
	if (!taker->holding)
		return;
	taker_cancel(taker, false);
	if (taker->answers != taker->asked)
		FAIL("taker %zu asked %u times and got %u answers", i, taker->asked,
			taker->answers);
	taker_free(taker);
}

static void taker_request(size_t i)
{
	struct taker *taker = &run.takers[i];
	static const unsigned all_flags[] = {COORD_LOCK_WAIT, COORD_LOCK_WAIT, 0, COORD_LOCK_SHORT,
		COORD_LOCK_ATOMIC, COORD_LOCK_ATOMIC | COORD_LOCK_WAIT};
	unsigned flags = all_flags[sim_below(sim, sizeof(all_flags) / sizeof(*all_flags))];
	bool may_share = (run.options.can & COORD_CAN_SHARED) && run.name_of[i] < LOCKS;
	enum coord_mode mode = may_share && sim_below(sim, 3) == 0 ? COORD_SHARED : COORD_EXCLUSIVE;
	/* Asking for what one has gives the token that one has; a downgrade may keep it. */
	run.excused[i] = taker_holds(taker, COORD_NONE);
	run.asked[i] = mode;
	run.waits[i] = flags & COORD_LOCK_WAIT;
	run.asked_ms[i] = host_now(run.host_of[i]);
	SAY("taker %zu host %zu %s: ask %s flags %x (%s)", i, run.host_of[i], names[run.name_of[i]],
		mode == COORD_SHARED ? "shared" : "exclusive", flags,
		taker_holds(taker, COORD_NONE) ? "held" : "free");
	taker_ask(taker, mode, flags);
}

static void taker_unlocks(size_t i)
{
	SAY("taker %zu: unlock", i);
	coord_unlock(run.takers[i].holding, NULL, NULL);
}

void taker_act(size_t i)
{
	struct taker *taker = &run.takers[i];
	if (!taker->holding)
		return;
	enum coord_holding_state state = coord_holding_state(taker->holding);
	uint64_t dice = sim_below(sim, 100);
	if (taker->waiting) {
		if (dice < 20) {
			SAY("taker %zu: cancel", i);
			taker_cancel(taker, sim_below(sim, 2));
		}
	} else if (state == COORD_HOLDING_LOST) {
		totals.losses++;
		SAY("taker %zu: lets go of the lost lock", i);
		coord_unlock(taker->holding, NULL, NULL);
	} else if (state == COORD_HELD && dice < 50) {
		taker_unlocks(i);
	} else if (state == COORD_HELD && dice < 60) {
		coord_check(taker->holding, check_told, (void *)(uintptr_t)i, NULL);
	} else if (state == COORD_HELD && dice < 80) {
		taker_request(i);
	} else if (state == COORD_FREE && dice < 70) {
		taker_request(i);
	} else if (dice >= 97) {
		SAY("taker %zu: close and open", i);
		taker_end(i);
		taker_make(i);
	}
}

/* ---- Groups and members ---- */

static bool leaves(const struct ask *ask)
{
	return ask->kind == ASK_LEAVE || ask->kind == ASK_FORGO;
}

/* Keeps account of which members must be there in the end: what was joined and not left, while no group
 * was deleted (which a loss allows before it is joined again). */
static void note_members(const struct ask *ask, int status)
{
	if (ask->kind < ASK_LEAVE)
		return;
	bool leave = leaves(ask);
	size_t g = ask->group, m = ask->member;
	struct coord_membership_info info;
	bool unknown = status == -ETIMEDOUT || status == -EHOSTDOWN || status == -ECANCELED ||
		       status == -ESHUTDOWN;
	/* A host may remove whoever bears its id; a new member was not there before. */
	bool alone = leave ? ask->host == m : status == 0;
	for (size_t h = 0; h < run.site.len; h++) {
		/* Another that had it may be the first to be back, and then it is his again. */
		if (alone && !leave && h != ask->host && run.joined[h][g][m])
			run.doubtful[g][m] = true;
		if (alone || (leave && h == ask->host))
			run.joined[h][g][m] = 0;
	}
	/* Whose clock stood still is told of what may be over by now. */
	bool misled = host_now(ask->host) < run.hosts[ask->host].excused_ms;
	run.doubtful[g][m] |= unknown || misled;
	/* A member with the host's own id that another joined is only written to. */
	if (leave || status || run.hosts[ask->host].mount != MOUNT_UP)
		return;
	check_put(ask);
	if (coord_membership_find(ask->client->coord, coord_bytes_of(group_names[g]),
		    coord_bytes_of(run.site.members[m]), &info))
		run.joined[ask->host][g][m] = 1 + fake_group_deletes(run.site.server);
}

static void ask_told(void *user, int status, const struct coord_row *rows, size_t rows_len)
{
	(void)rows;
	(void)rows_len;
	struct ask *ask = user;
	if (!ask->busy)
		FAIL("a request was answered twice");
	ask->busy = false;
	note_members(ask, status);
	SAY("request %zu host %zu: %d", (size_t)(ask - run.asks), ask->host, status);
}

static struct ask *ask_new(size_t host)
{
	struct ask *ask = run.asks;
	while (ask < run.asks + REQS && ask->busy)
		ask++;
	if (ask == run.asks + REQS)
		return NULL;
	*ask = (struct ask){.busy = true,
		.client = &run.site.clients[host],
		.host = host,
		.due_ms = host_now(host) + DEADLINE_MS};
	return ask;
}

static int member_ask(struct ask *ask)
{
	struct coord *coord = ask->client->coord;
	struct coord_bytes group = coord_bytes_of(group_names[ask->group]);
	struct coord_bytes member = coord_bytes_of(run.site.members[ask->member]);
	switch (ask->kind) {
	case ASK_CREATE:
		return coord_group_create(coord, group, ask_told, ask, NULL);
	case ASK_DELETE:
		return coord_group_delete(coord, group, ask_told, ask, NULL);
	case ASK_READ:
		return coord_group_read(coord, group, true, ask_told, ask, NULL);
	case ASK_LEAVE:
		return coord_member_leave(coord, group, member, ask_told, ask, NULL);
	case ASK_FORGO:
		return coord_member_forgo(coord, group, member, ask_told, ask, NULL);
	case ASK_LOCKS:
		return coord_lock_list(coord, COORD_LOCK, ask_told, ask, NULL);
	default:
		return coord_member_put(coord, group, member, COORD_BYTES("\xc0"),
			ask->kind == ASK_PUT, 0, ask_told, ask, NULL);
	}
}

void member_act(size_t host)
{
	size_t g = sim_below(sim, GROUPS), m = sim_below(sim, run.site.len);
	struct ask *ask = ask_new(host);
	if (!ask)
		return;
	ask->group = g;
	ask->member = m;
	ask->kind = sim_below(sim, ASK_KINDS);
	SAY("request %zu host %zu %s/%s: kind %llu", (size_t)(ask - run.asks), host, group_names[g],
		run.site.members[m], (unsigned long long)ask->kind);
	int r = member_ask(ask);
	bool refused = (r == -ESHUTDOWN && run.hosts[host].mount == MOUNT_STOPPING) ||
		       (r == -ENOENT && ask->kind == ASK_FORGO);
	if (r && !refused)
		FAIL("a request was refused: %d", r);
	if (r) {
		ask->busy = false;
		return;
	}
	if (ask->kind >= ASK_LEAVE)
		run.forgone[host][g][m] = ask->kind == ASK_FORGO;
	/* Which of two that run at once comes last is not known here. */
	for (const struct ask *other = run.asks; other < run.asks + REQS; other++)
		if (other != ask && other->busy && other->group == g && other->member == m &&
			other->host != host && (leaves(other) || leaves(ask)))
			run.doubtful[g][m] = true;
	totals.requests++;
}

void lock_break_act(size_t host)
{
	struct ask *ask = ask_new(host);
	if (!ask)
		return;
	size_t name = sim_below(sim, LOCKS);
	SAY("host %zu breaks %s", host, names[name]);
	run.breaking = true;
	coord_lock_break(
		coord_at(host), COORD_LOCK, coord_bytes_of(names[name]), ask_told, ask, NULL);
	run.breaking = false;
}

/* ---- Following ---- */

static size_t member_of(struct coord_bytes name)
{
	for (size_t m = 0; m < run.site.len; m++)
		if (coord_bytes_equal(coord_bytes_of(run.site.members[m]), name))
			return m;
	FAIL("a member that nobody joined");
}

static void watcher_settled(struct watcher *watcher)
{
	const struct coord_followed_member *member = NULL;
	bool known[SITE_CLIENTS] = {false};
	while ((member = coord_followed_next(&watcher->follower, member)))
		known[member_of(member->name)] = true;
	if (!watcher->settled)
		memcpy(watcher->known, known, sizeof(known));
	else if (memcmp(watcher->known, known, sizeof(known)) != 0)
		FAIL("a follower was told something else than there is");
	watcher->settled = true;
}

void watcher_told(struct coord_follower *follower, enum coord_change change,
	struct coord_bytes name, int status)
{
	struct watcher *watcher = coord_container(follower, struct watcher, follower);
	SAY("host %zu is told of %s: %d %.*s", watcher->host, group_names[watcher->group],
		(int)change, (int)name.len, name.data ? name.data : "");
	if (change == COORD_CHANGE_SETTLED)
		watcher_settled(watcher);
	else if (!watcher->settled && change != COORD_CHANGE_ENDED)
		FAIL("a change before the state");
	if (change == COORD_CHANGE_SUSPENDED || change == COORD_CHANGE_RESUMED) {
		if (watcher->suspended == (change == COORD_CHANGE_SUSPENDED))
			FAIL("suspended or resumed twice");
		watcher->suspended = change == COORD_CHANGE_SUSPENDED;
	}
	bool stopping = run.hosts[watcher->host].mount != MOUNT_UP;
	if (change == COORD_CHANGE_ENDED && status != -ENOENT && !stopping)
		FAIL("following ended: %d", status);
	if (change > COORD_CHANGE_LEAVE)
		return;
	bool *known = &watcher->known[member_of(name)];
	if (*known == (change == COORD_CHANGE_JOIN))
		FAIL("a member came or went twice");
	*known = change != COORD_CHANGE_LEAVE;
}

void follow_act(size_t host)
{
	size_t g = sim_below(sim, GROUPS);
	struct watcher *watcher = &run.watchers[host][g];
	SAY("host %zu %s %s", host, watcher->follower.followed ? "leaves alone" : "follows",
		group_names[g]);
	if (watcher->follower.followed) {
		coord_unfollow(&watcher->follower);
		return;
	}
	*watcher = (struct watcher){.follower.fn = watcher_told, .host = host, .group = g};
	if (coord_follow(coord_at(host), coord_bytes_of(group_names[g]), &watcher->follower) < 0)
		FAIL("following was refused");
}
