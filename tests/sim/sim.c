/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The real core on several hosts with a virtual clock, over one fake server, with a random schedule of
 * what users do and of what goes wrong. What must always hold is checked after every step.
 *
 *   sim [--seed N] [--seeds COUNT] [--steps COUNT] [--verbose]
 *
 * A run is a function of its seed: a failure prints it, and --seed replays it. Checked:
 * - never two holders of which one is exclusive are told that they hold, as far as the driver's kind
 *   of loss can promise it: a host that stands still is told when it wakes, a connection that
 *   broke when its host sees it, a broken lock by a notice or the next renewal;
 * - a grant or a "still mine" is given only while the server has it so;
 * - fencing tokens grow; a lost lock stays lost until it is let go;
 * - each request is answered exactly once, and in its time;
 * - who follows a group knows, by what it is told alone, who is a member;
 * - once all is well again, nobody is forgotten; after the stop nothing is left anywhere.
 */
#include <assert.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>

#include "coord/follow.h"
#include "coord/table.h"
#include "tests/lib/site.h"

enum { NAMES = 3, TAKERS = 24, GROUPS = 2, REQS = 32, DEADLINE_MS = 10000 };

enum { ASK_CREATE, ASK_DELETE, ASK_READ, ASK_LEAVE, ASK_LOCKS, ASK_PUT, ASK_REPLACE, ASK_KINDS };

/* A request about a member, that must be answered by its deadline. */
struct ask {
	bool busy;
	struct client *client;
	size_t host, group, member;
	uint64_t kind; /* see member_act */
	uint64_t due_ms;
};

/* Who follows a group on a host. */
struct watcher {
	struct coord_follower follower;
	size_t host, group;
	bool settled, suspended;
	bool known[SITE_CLIENTS]; /* members, by number */
};

static struct run {
	struct site site;
	struct fake_options options;
	uint64_t seed;
	bool breaks; /* locks are broken by rm */
	struct taker takers[TAKERS];
	size_t takers_len, host_of[TAKERS], name_of[TAKERS];
	enum coord_mode asked[TAKERS];
	bool waits[TAKERS], excused[TAKERS];
	uint64_t asked_ms[TAKERS], paused_ms[SITE_CLIENTS];
	uint64_t exclusive_token[NAMES], any_token[NAMES];
	uint64_t orphan_ms[TAKERS]; /* holds though the server does not know it, since */
	struct ask asks[REQS];
	uint64_t joined[SITE_CLIENTS][GROUPS]
		       [SITE_CLIENTS]; /* 1 + deleted groups, see note_members */
	bool doubtful[GROUPS][SITE_CLIENTS]; /* a change may come yet of which nothing is known */
	uint64_t pause_until_ms[SITE_CLIENTS], server_until_ms;
	struct watcher watchers[SITE_CLIENTS][GROUPS];
	bool healed;
	uint64_t grants, losses, requests;
} run;

static bool verbose;
static struct sim *const sim = &run.site.sim;
static uint64_t total_grants, total_losses, total_requests, total_steps;

static const char *const lock_names[NAMES] = {"l0", "l1", "l2"};
static const char *const other_names[NAMES] = {
	"L0", "L1", "L2"}; /* of the same locks, where the server folds */
static const char *const group_names[GROUPS] = {"g0", "g1"};

#define SAY(...)                                                                                   \
	do {                                                                                       \
		if (verbose) {                                                                     \
			printf("%9.3f ", (double)sim->now_us / 1e6);                               \
			printf(__VA_ARGS__);                                                       \
			putchar('\n');                                                             \
		}                                                                                  \
	} while (0)

static void seed_tell(int signum)
{
	char text[96];
	int len = snprintf(text, sizeof(text), "\nfailed: replay with --seed %llu\n",
		(unsigned long long)run.seed);
	if (len > 0 && write(STDERR_FILENO, text, (size_t)len) < 0)
		_exit(2);
	signal(signum, SIG_DFL);
	raise(signum);
}

#define FAIL(...)                                                                                  \
	do {                                                                                       \
		fflush(stdout);                                                                    \
		fprintf(stderr, "seed %llu, %.3f s: ", (unsigned long long)run.seed,               \
			(double)sim->now_us / 1e6);                                                \
		fprintf(stderr, __VA_ARGS__);                                                      \
		fputc('\n', stderr);                                                               \
		abort();                                                                           \
	} while (0)

static void quiet(int level, const char *text)
{
	if (verbose)
		printf("%9.3f   log %d: %s\n", (double)sim->now_us / 1e6, level, text);
}

/* ---- What must hold ---- */

static bool host_aware(size_t host)
{
	return !run.site.hosts[host].paused && !run.site.hosts[host].stale;
}

static bool server_has(size_t i, enum coord_mode mode)
{
	return fake_holds(run.site.server, run.site.members[run.host_of[i]], COORD_LOCK,
		coord_bytes_of(lock_names[run.name_of[i]]), mode);
}

/* May the holder believe what is no longer so? Only as long as its kind of loss allows. */
static bool may_err(size_t i)
{
	size_t host = run.host_of[i];
	if (!host_aware(host))
		return true;
	if (run.options.lock_loss == COORD_LOSS_CONNECTION &&
		!fake_client_up(run.site.server, run.site.members[host]))
		return true;
	return run.breaks && !server_has(i, COORD_NONE);
}

static bool holds(size_t i, enum coord_mode mode)
{
	return run.takers[i].holding && taker_holds(&run.takers[i], mode);
}

static void check_exclusion(void)
{
	for (size_t i = 0; i < run.takers_len; i++) {
		if (!holds(i, COORD_EXCLUSIVE) || may_err(i))
			continue;
		for (size_t j = 0; j < run.takers_len; j++)
			if (j != i && run.name_of[i] == run.name_of[j] && holds(j, COORD_NONE) &&
				!may_err(j))
				FAIL("takers %zu (host %zu) and %zu (host %zu) hold %s", i,
					run.host_of[i], j, run.host_of[j],
					lock_names[run.name_of[i]]);
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
		else if (now - run.orphan_ms[i] > run.options.ttl_ms + 2000)
			FAIL("taker %zu still holds what the server lost %llu ms ago", i,
				(unsigned long long)(now - run.orphan_ms[i]));
	}
}

/* Tries and requests end by their deadline, counted while their host runs. */
static void check_deadlines(void)
{
	uint64_t now = sim_now_ms(sim);
	for (size_t i = 0; i < run.takers_len; i++)
		if (run.takers[i].waiting && !run.waits[i] && host_aware(run.host_of[i]) &&
			now > run.asked_ms[i] + DEADLINE_MS + 100 &&
			now > run.paused_ms[run.host_of[i]] + 100)
			FAIL("taker %zu: a try is not answered", i);
	for (size_t i = 0; i < REQS; i++)
		if (run.asks[i].busy && host_aware(run.asks[i].host) &&
			now > run.asks[i].due_ms + 100 &&
			now > run.paused_ms[run.asks[i].host] + 100)
			FAIL("a request of host %zu is not answered", run.asks[i].host);
}

/* At the moment of an answer. */
static void taker_answered(struct taker *taker)
{
	size_t i = (size_t)(taker - run.takers), name = run.name_of[i];
	SAY("taker %zu host %zu %s: answer %d, token %llu", i, run.host_of[i], lock_names[name],
		taker->status, (unsigned long long)taker->token);
	if (taker->status)
		return;
	run.grants++;
	enum coord_mode mode = coord_holding_mode(taker->holding);
	if (mode != run.asked[i])
		FAIL("taker %zu was granted mode %d, not %d", i, mode, run.asked[i]);
	bool cut = run.options.lock_loss == COORD_LOSS_CONNECTION &&
		   !fake_client_up(run.site.server, run.site.members[run.host_of[i]]);
	if (!run.breaks && !cut && !server_has(i, COORD_NONE))
		FAIL("taker %zu is told that it holds, and the server does not know", i);
	/* Broken while the answer was under way: the notice comes after it. */
	if (cut || may_err(i))
		return;
	/* Sharers may have taken the one token of their mount before. */
	if (taker->token <= run.exclusive_token[name] && run.excused[i] == false)
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

static void step(uint64_t limit_ms)
{
	if (!sim_step(sim, limit_ms))
		return;
	check_exclusion();
}

static void wake_up(void)
{
	uint64_t now = sim_now_ms(sim);
	for (size_t h = 0; h < run.site.len; h++)
		if (run.pause_until_ms[h] && (now >= run.pause_until_ms[h] || run.healed)) {
			SAY("host %zu goes on", h);
			run.pause_until_ms[h] = 0;
			run.paused_ms[h] = now;
			sim_pause(&run.site.hosts[h], false);
		}
	if (run.server_until_ms && (now >= run.server_until_ms || run.healed)) {
		SAY("the server goes on");
		run.server_until_ms = 0;
		sim_pause(&run.site.server_host, false);
	}
}

/* Lets some time pass, step by step. */
static void pass(uint64_t ms)
{
	uint64_t limit = sim_now_ms(sim) + ms;
	while (sim_now_ms(sim) < limit) {
		uint64_t next = limit;
		for (size_t h = 0; h < run.site.len; h++)
			if (run.pause_until_ms[h] && run.pause_until_ms[h] < next)
				next = run.pause_until_ms[h];
		if (run.server_until_ms && run.server_until_ms < next)
			next = run.server_until_ms;
		if (next > sim_now_ms(sim))
			step(next);
		wake_up();
		check_exclusion();
		check_orphans();
		check_deadlines();
	}
}

/* ---- What users do ---- */

static void taker_make(size_t i)
{
	struct client *client = &run.site.clients[run.host_of[i]];
	const char *const *names = run.options.fold && sim_below(sim, 2) ? other_names : lock_names;
	int r = taker_new(
		client, COORD_LOCK, coord_bytes_of(names[run.name_of[i]]), &run.takers[i]);
	if (r)
		FAIL("coord_holding_new: %d", r);
	run.takers[i].told = taker_answered;
}

static void taker_end(size_t i)
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
	enum coord_mode mode = (run.options.can & COORD_CAN_SHARED) && sim_below(sim, 3) == 0
				       ? COORD_SHARED
				       : COORD_EXCLUSIVE;
	/* Asking for what one has gives the token that one has; a downgrade may keep it. */
	run.excused[i] = taker_holds(taker, COORD_NONE);
	run.asked[i] = mode;
	run.waits[i] = flags & COORD_LOCK_WAIT;
	run.asked_ms[i] = sim_now_ms(sim);
	SAY("taker %zu host %zu %s: ask %s flags %x (%s)", i, run.host_of[i],
		lock_names[run.name_of[i]], mode == COORD_SHARED ? "shared" : "exclusive", flags,
		taker_holds(taker, COORD_NONE) ? "held" : "free");
	taker_ask(taker, mode, flags);
}

static void check_told(void *user, int status, const struct coord_row *rows, size_t rows_len)
{
	(void)rows;
	(void)rows_len;
	size_t i = (size_t)(uintptr_t)user;
	SAY("taker %zu: check %d", i, status);
	bool cut = run.options.lock_loss == COORD_LOSS_CONNECTION;
	if (status == 0 && holds(i, COORD_NONE) && !run.breaks && !cut &&
		!server_has(i, COORD_NONE))
		FAIL("taker %zu: still mine, and the server does not know", i);
}

static void taker_act(size_t i)
{
	struct taker *taker = &run.takers[i];
	enum coord_holding_state state = coord_holding_state(taker->holding);
	uint64_t dice = sim_below(sim, 100);
	if (taker->waiting) {
		if (dice < 20) {
			SAY("taker %zu: cancel", i);
			taker_cancel(taker, sim_below(sim, 2));
		}
	} else if (state == COORD_HOLDING_LOST) {
		run.losses++;
		SAY("taker %zu: lets go of the lost lock", i);
		coord_unlock(taker->holding, NULL, NULL);
	} else if (state == COORD_HELD && dice < 50) {
		SAY("taker %zu: unlock", i);
		coord_unlock(taker->holding, NULL, NULL);
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

/* Keeps account of which members must be there in the end: what was joined and not left, while no group
 * was deleted (which a loss allows before it is joined again). */
static void note_members(const struct ask *ask, int status)
{
	if (ask->kind < ASK_LEAVE || ask->kind == ASK_LOCKS)
		return;
	size_t g = ask->group, m = ask->member;
	struct coord_membership_info info;
	bool unknown = status == -ETIMEDOUT || status == -EHOSTDOWN || status == -ECANCELED;
	/* A host may remove whoever bears its id; a new member was not there before. */
	bool alone = ask->kind == ASK_LEAVE ? ask->host == m : status == 0;
	for (size_t h = 0; h < run.site.len; h++)
		if (alone || (ask->kind == ASK_LEAVE && h == ask->host))
			run.joined[h][g][m] = 0;
	run.doubtful[g][m] |= unknown;
	/* A member with the host's own id that another joined is only written to. */
	if (ask->kind >= ASK_PUT && status == 0 &&
		coord_membership_find(ask->client->coord, coord_bytes_of(group_names[g]),
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

static void member_act(size_t host)
{
	struct coord *coord = run.site.clients[host].coord;
	size_t g = sim_below(sim, GROUPS), m = sim_below(sim, run.site.len);
	struct coord_bytes group = coord_bytes_of(group_names[g]);
	struct coord_bytes member = coord_bytes_of(run.site.members[m]);
	struct ask *ask = run.asks;
	while (ask < run.asks + REQS && ask->busy)
		ask++;
	if (ask == run.asks + REQS || !coord)
		return;
	*ask = (struct ask){.busy = true,
		.client = &run.site.clients[host],
		.host = host,
		.group = g,
		.member = m,
		.kind = sim_below(sim, ASK_KINDS),
		.due_ms = sim_now_ms(sim) + DEADLINE_MS};
	uint64_t dice = ask->kind;
	SAY("request %zu host %zu %s/%s: kind %llu", (size_t)(ask - run.asks), host, group_names[g],
		run.site.members[m], (unsigned long long)dice);
	int r;
	if (dice == ASK_CREATE)
		r = coord_group_create(coord, group, ask_told, ask, NULL);
	else if (dice == ASK_DELETE)
		r = coord_group_delete(coord, group, ask_told, ask, NULL);
	else if (dice == ASK_READ)
		r = coord_group_read(coord, group, true, ask_told, ask, NULL);
	else if (dice == ASK_LEAVE)
		r = coord_member_leave(coord, group, member, ask_told, ask, NULL);
	else if (dice == ASK_LOCKS)
		r = coord_lock_list(coord, COORD_LOCK, ask_told, ask, NULL);
	else
		r = coord_member_put(coord, group, member, COORD_BYTES("\xc0"), dice == ASK_PUT, 0,
			ask_told, ask, NULL);
	if (r)
		FAIL("a request was refused: %d", r);
	/* Which of two that run at once comes last is not known here. */
	for (const struct ask *other = run.asks; other < run.asks + REQS; other++)
		if (other != ask && other->busy && other->group == g && other->member == m &&
			other->host != host && (other->kind == ASK_LEAVE || dice == ASK_LEAVE))
			run.doubtful[g][m] = true;
	run.requests++;
}

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

static void watcher_told(struct coord_follower *follower, enum coord_change change,
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
	if (change == COORD_CHANGE_ENDED && status != -ENOENT)
		FAIL("following ended: %d", status);
	if (change > COORD_CHANGE_LEAVE)
		return;
	bool *known = &watcher->known[member_of(name)];
	if (*known == (change == COORD_CHANGE_JOIN))
		FAIL("a member came or went twice");
	*known = change != COORD_CHANGE_LEAVE;
}

static void follow_act(size_t host)
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
	if (coord_follow(run.site.clients[host].coord, coord_bytes_of(group_names[g]),
		    &watcher->follower) < 0)
		FAIL("following was refused");
}

static void check_watchers(void)
{
	for (size_t h = 0; h < run.site.len; h++)
		for (size_t g = 0; g < GROUPS; g++) {
			const struct watcher *watcher = &run.watchers[h][g];
			if (!watcher->follower.followed)
				continue;
			/* Where nothing notifies it is just reading now and then. */
			for (int i = 0; i < 100 && !coord_followed_current(&watcher->follower); i++)
				pass(7);
			if (!coord_followed_current(&watcher->follower) || watcher->suspended)
				FAIL("host %zu does not know what became of %s", h, group_names[g]);
			for (size_t m = 0; m < run.site.len; m++) {
				bool any = false;
				for (size_t by = 0; by < run.site.len; by++)
					any |= fake_joined(run.site.server, run.site.members[by],
						coord_bytes_of(group_names[g]),
						coord_bytes_of(run.site.members[m]));
				if (watcher->known[m] != any)
					FAIL("host %zu follows %s: %s is %s", h, group_names[g],
						run.site.members[m], any ? "not seen" : "gone");
			}
		}
}

static void lock_break_act(size_t host)
{
	struct coord *coord = run.site.clients[host].coord;
	struct ask *ask = run.asks;
	while (ask < run.asks + REQS && ask->busy)
		ask++;
	if (ask == run.asks + REQS || !coord)
		return;
	*ask = (struct ask){.busy = true,
		.client = &run.site.clients[host],
		.host = host,
		.due_ms = sim_now_ms(sim) + DEADLINE_MS};
	size_t name = sim_below(sim, NAMES);
	SAY("host %zu breaks %s", host, lock_names[name]);
	coord_lock_break(coord, COORD_LOCK, coord_bytes_of(lock_names[name]), ask_told, ask, NULL);
}

/* ---- What goes wrong ---- */

static void trouble(void)
{
	size_t host = sim_below(sim, run.site.len);
	uint64_t dice = sim_below(sim, 10), now = sim_now_ms(sim);
	bool net = run.options.lock_loss != COORD_LOSS_PROCESS;
	if (dice < 4 && net) {
		uint64_t ms = sim_below(sim, sim_below(sim, 3) ? 3000 : 25000);
		SAY("the connection of host %zu breaks for %llu ms", host, (unsigned long long)ms);
		fake_break(run.site.server, run.site.members[host], ms);
	} else if (dice < 7 && !run.pause_until_ms[host]) {
		run.pause_until_ms[host] =
			now + 1 + sim_below(sim, sim_below(sim, 3) ? 2000 : 20000);
		SAY("host %zu stands still until %.3f", host,
			(double)run.pause_until_ms[host] / 1e3);
		sim_pause(&run.site.hosts[host], true);
	} else if (dice < 8 && !run.server_until_ms) {
		run.server_until_ms = now + 1 + sim_below(sim, 15000);
		SAY("the server stands still until %.3f", (double)run.server_until_ms / 1e3);
		sim_pause(&run.site.server_host, true);
	} else if (dice < 9 && run.breaks) {
		lock_break_act(host);
	}
}

/* ---- Runs ---- */

static void draw_options(void)
{
	struct fake_options *o = &run.options;
	*o = site_options();
	o->lock_loss = (enum coord_loss)sim_below(sim, 3);
	o->member_loss = o->lock_loss == COORD_LOSS_CONNECTION && sim_below(sim, 2)
				 ? COORD_LOSS_LEASE
				 : o->lock_loss;
	static const unsigned options_can[] = {
		COORD_CAN_NOTIFY, COORD_CAN_CONVERT, COORD_CAN_ORDERED, COORD_CAN_SHARED};
	for (size_t i = 0; i < sizeof(options_can) / sizeof(*options_can); i++)
		if (sim_below(sim, 4) == 0)
			o->can &= ~options_can[i];
	if (!(o->can & COORD_CAN_SHARED))
		o->can &= ~(unsigned)COORD_CAN_CONVERT;
	if (sim_below(sim, 2))
		o->can |= COORD_CAN_QUEUE;
	if (sim_below(sim, 3) == 0)
		o->ops_max = 1 + (uint32_t)sim_below(sim, 6);
	/* One op at a time would be the wait that sits there. */
	if (o->ops_max && (o->can & COORD_CAN_QUEUE))
		o->waits_max = o->ops_max > 1 ? o->ops_max - 1 : 0;
	if (o->ops_max == 1)
		o->can &= ~(unsigned)COORD_CAN_QUEUE;
	o->fold = sim_below(sim, 4) == 0;
	o->poll_ms = 50 + (uint32_t)sim_below(sim, 500);
	o->ttl_ms = 6000 + sim_below(sim, 10000);
	run.breaks = sim_below(sim, 4) == 0;
}

static struct fake_faults draw_faults(void)
{
	struct fake_faults f = {.delay_ms = (uint32_t)sim_below(sim, 40)};
	if (sim_below(sim, 4) == 0)
		return f;
	f.lost = (unsigned)sim_below(sim, 60);
	if (run.options.lock_loss == COORD_LOSS_PROCESS)
		return f;
	f.unknown = (unsigned)sim_below(sim, 60);
	f.disconnect = (unsigned)sim_below(sim, 10);
	f.notice_ms = (uint32_t)sim_below(sim, 300);
	f.down_ms = (uint32_t)sim_below(sim, 4000);
	return f;
}

static void run_open(uint64_t seed)
{
	memset(&run, 0, sizeof(run));
	run.seed = seed;
	sim_init(sim, seed);
	coord_table_seed(seed | 1);
	draw_options();
	size_t hosts = 1 + sim_below(sim, 4);
	uint64_t more = sim_random(sim);
	site_open(&run.site, more, &run.options, hosts);
	SAY("loss %d,%d can %x ttl %llu hosts %zu ops_max %u waits_max %u breaks %d",
		run.options.lock_loss, run.options.member_loss, run.options.can,
		(unsigned long long)run.options.ttl_ms, hosts, run.options.ops_max,
		run.options.waits_max, run.breaks);
	size_t names = 1 + sim_below(sim, NAMES);
	run.takers_len = 2 + sim_below(sim, TAKERS - 2);
	for (size_t i = 0; i < run.takers_len; i++) {
		run.host_of[i] = i % hosts;
		run.name_of[i] = sim_below(sim, names);
		taker_make(i);
	}
	fake_server_options(run.site.server)->faults = draw_faults();
}

static void run_wildly(uint64_t steps)
{
	for (uint64_t n = 0; n < steps; n++) {
		uint64_t dice = sim_below(sim, 100);
		if (dice < 60) {
			size_t i = sim_below(sim, run.takers_len);
			/* Who stands still does nothing. */
			if (!run.site.hosts[run.host_of[i]].paused)
				taker_act(i);
		} else if (dice < 69) {
			size_t host = sim_below(sim, run.site.len);
			if (!run.site.hosts[host].paused && dice < 68)
				member_act(host);
			else if (!run.site.hosts[host].paused)
				follow_act(host);
		} else if (dice < 70) {
			trouble();
		} else if (dice < 90) {
			pass(sim_below(sim, 30));
		} else {
			pass(sim_below(sim, 600));
		}
		check_exclusion();
	}
}

static bool anybody_waits(void)
{
	for (size_t i = 0; i < run.takers_len; i++)
		if (run.takers[i].waiting)
			return true;
	return false;
}

/* Two hosts that share a lock and both wait to have it alone wait for ever; so would two users. One of
 * each such pair gives way. */
static void deadlocks_end(void)
{
	for (size_t i = 0; i < run.takers_len; i++)
		for (size_t j = 0; j < i; j++)
			if (run.name_of[i] == run.name_of[j] && run.host_of[i] != run.host_of[j] &&
				run.takers[i].waiting && holds(i, COORD_SHARED) &&
				run.takers[j].waiting && holds(j, COORD_SHARED)) {
				SAY("taker %zu: gives way", i);
				taker_cancel(&run.takers[i], false);
			}
}

/* What a host believes to have joined is there, and what is there it knows. */
static void check_members(void)
{
	struct coord_membership_info info;
	for (size_t h = 0; h < run.site.len; h++)
		for (size_t g = 0; g < GROUPS; g++)
			for (size_t m = 0; m < run.site.len; m++) {
				struct coord_bytes group = coord_bytes_of(group_names[g]);
				struct coord_bytes member = coord_bytes_of(run.site.members[m]);
				bool known = coord_membership_find(
					run.site.clients[h].coord, group, member, &info);
				bool there = fake_joined(
					run.site.server, run.site.members[h], group, member);
				bool any = false; /* another may have been faster */
				for (size_t by = 0; by < run.site.len; by++)
					any |= fake_joined(run.site.server, run.site.members[by],
						group, member);
				if (run.joined[h][g][m] ==
						1 + fake_group_deletes(run.site.server) &&
					!run.doubtful[g][m] && !any)
					FAIL("host %zu, member %s/%s is not back", h,
						group_names[g], run.site.members[m]);
				if (known != there)
					FAIL("host %zu, member %s/%s: %s", h, group_names[g],
						run.site.members[m],
						known ? "it is not joined" : "nobody knows of it");
			}
}

/* No more faults: whoever waits has his turn, as the others let go. */
static void run_healed(void)
{
	SAY("all is well from now on");
	run.healed = true;
	fake_server_options(run.site.server)->faults = (struct fake_faults){.delay_ms = 2};
	wake_up();
	uint64_t end_ms = sim_now_ms(sim) + 30000 + 4 * run.options.ttl_ms +
			  run.takers_len * (1000 + 4 * run.options.poll_ms);
	do {
		pass(50);
		deadlocks_end();
		for (size_t i = 0; i < run.takers_len; i++)
			if (coord_holding_state(run.takers[i].holding) != COORD_FREE &&
				!run.takers[i].waiting) {
				SAY("taker %zu: unlock", i);
				coord_unlock(run.takers[i].holding, NULL, NULL);
			}
		if (sim_now_ms(sim) > end_ms) {
			for (size_t i = 0; i < run.takers_len; i++)
				if (run.takers[i].waiting)
					fprintf(stderr, "waiting: taker %zu host %zu %s\n", i,
						run.host_of[i], lock_names[run.name_of[i]]);
			FAIL("somebody was forgotten");
		}
	} while (anybody_waits());
	for (size_t h = 0; h < run.site.len; h++)
		if (coord_state(run.site.clients[h].coord) != COORD_CONNECTED) {
			pass(30000);
			if (coord_state(run.site.clients[h].coord) != COORD_CONNECTED)
				FAIL("host %zu does not come back", h);
		}
	pass(DEADLINE_MS + 2 * run.options.ttl_ms);
	check_members();
	check_watchers();
}

static void run_close(void)
{
	for (size_t h = 0; h < run.site.len; h++)
		for (size_t g = 0; g < GROUPS; g++)
			coord_unfollow(&run.watchers[h][g].follower);
	for (size_t i = 0; i < run.takers_len; i++)
		taker_end(i);
	pass(DEADLINE_MS + 100);
	for (size_t i = 0; i < REQS; i++)
		if (run.asks[i].busy)
			FAIL("a request was not answered");
	if (!site_close(&run.site))
		FAIL("something was left");
	total_grants += run.grants;
	total_losses += run.losses;
	total_requests += run.requests;
	total_steps += sim->steps;
}

static void run_seed(uint64_t seed, uint64_t steps)
{
	run_open(seed);
	run_wildly(steps);
	run_healed();
	run_close();
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"seed", required_argument, NULL, 's'},
		{"seeds", required_argument, NULL, 'n'},
		{"steps", required_argument, NULL, 't'},
		{"verbose", no_argument, NULL, 'v'},
		{NULL, 0, NULL, 0},
	};
	uint64_t seed = 1, seeds = 1, steps = 1000;
	int opt;
	while ((opt = getopt_long(argc, argv, "s:n:t:v", options, NULL)) != -1) {
		if (opt == 's')
			seed = strtoull(optarg, NULL, 0);
		else if (opt == 'n')
			seeds = strtoull(optarg, NULL, 0);
		else if (opt == 't')
			steps = strtoull(optarg, NULL, 0);
		else if (opt == 'v')
			verbose = true;
		else
			return 2;
	}
	signal(SIGABRT, seed_tell);
	signal(SIGSEGV, seed_tell);
	coord_log_to(quiet);
	for (uint64_t i = 0; i < seeds; i++)
		run_seed(seed + i, steps);
	printf("seeds %llu to %llu: %llu loop turns, %llu grants, %llu losses, %llu requests\n",
		(unsigned long long)seed, (unsigned long long)(seed + seeds - 1),
		(unsigned long long)total_steps, (unsigned long long)total_grants,
		(unsigned long long)total_losses, (unsigned long long)total_requests);
	return 0;
}
