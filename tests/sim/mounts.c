/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mounts that end, in order or killed, and are opened again with the same member id. See run.h.
 *
 *   down -> opening -> up -> stopping -> down; killed: down at once
 *
 * Whether what begins must end well depends on what happens to the host and to the server meanwhile: see disturb.
 */
#include "tests/sim/run.h"

enum { PROMPT_MS = 1000, SLOW_MS = 40 };

void disturb(size_t host)
{
	for (size_t h = 0; h < run.site.len; h++)
		if (h == host || host == SIZE_MAX)
			run.hosts[h].disturbed = true;
}

static void begin(size_t h, enum mount_state state)
{
	struct host *host = &run.hosts[h];
	host->mount = state;
	host->began_ms = host_now(h);
	host->breaks = fake_breaks(run.site.server, run.site.members[h]);
	host->disturbed = run.site.server_host.paused || run.site.hosts[h].paused ||
			  (run.delay_ms > SLOW_MS && !run.healed_ms);
}

/* ---- Opening ---- */

void mount_start(size_t h)
{
	struct host *host = &run.hosts[h];
	bool apart = !run.healed_ms && run.site.lives >= run.site.len && sim_below(sim, 8) == 0;
	const struct fake_faults *faults = &fake_server_options(run.site.server)->faults;
	SAY("host %zu mounts%s", h, apart ? " from elsewhere" : "");
	begin(h, MOUNT_OPENING);
	host->patient = apart || host->elsewhere;
	host->elsewhere |= apart;
	host->apart = apart;
	host->faulty = faults->lost || faults->unknown;
	if (site_client_start(&run.site, h, apart))
		FAIL("host %zu cannot mount", h);
}

static void opened(size_t h)
{
	struct host *host = &run.hosts[h];
	const struct client *client = &run.site.clients[h];
	SAY("host %zu is mounted: %d %s", h, client->status, client->text);
	if (client->status == 0) {
		host->mount = MOUNT_UP;
		host->elsewhere = host->apart;
		for (size_t i = 0; i < run.takers_len; i++)
			if (run.host_of[i] == h)
				taker_make(i);
		return;
	}
	if (!host->disturbed && !host->faulty)
		FAIL("host %zu could not mount: %s", h, client->text);
	bury(h, false);
	coord_free(coord_at(h));
	run.site.clients[h].coord = NULL;
	host->mount = MOUNT_DOWN;
	host->open_at_ms = sim_now_ms(sim) + sim_below(sim, 1000);
}

/* What a dead process of this machine left is taken over at once; of what another left, the claim has to run
 * out. */
static void check_opening(size_t h)
{
	const struct host *host = &run.hosts[h];
	uint64_t most_ms = PROMPT_MS + (host->patient ? run.options.ttl_ms : 0);
	if (!host->disturbed && host_now(h) > host->began_ms + most_ms)
		FAIL("host %zu does not get its member id back", h);
}

void mounts_open(void)
{
	for (size_t h = 0; h < run.site.len; h++)
		mount_start(h);
	for (size_t h = 0; h < run.site.len; h++) {
		if (!world_flag(&run.site.world, &run.site.clients[h].ready, 1000))
			FAIL("host %zu does not open", h);
		opened(h);
	}
}

/* ---- Unmounting ---- */

static void forget_members(size_t h)
{
	memset(run.joined[h], 0, sizeof(run.joined[h]));
	memset(run.forgone[h], 0, sizeof(run.forgone[h]));
}

/* Whoever holds is told at once, before anything is let go. */
static void stop_told(size_t h, const unsigned *lost_before, const bool *held)
{
	for (size_t i = 0; i < run.takers_len; i++) {
		if (run.host_of[i] != h || !run.takers[i].holding)
			continue;
		if (holds(i, COORD_NONE))
			FAIL("taker %zu holds still, and its mount ends", i);
		if (held[i] && run.takers[i].lost != lost_before[i] + 1)
			FAIL("taker %zu is not told that its mount ends", i);
	}
}

void mount_stop(size_t h)
{
	struct host *host = &run.hosts[h];
	unsigned lost_before[TAKERS];
	bool held[TAKERS];
	SAY("host %zu is unmounted", h);
	bool up = host->mount == MOUNT_UP;
	begin(h, MOUNT_STOPPING);
	if (!up || coord_state(coord_at(h)) != COORD_CONNECTED ||
		!fake_client_up(run.site.server, run.site.members[h]))
		host->disturbed = true;
	forget_members(h);
	for (size_t i = 0; i < run.takers_len; i++) {
		lost_before[i] = run.takers[i].lost;
		held[i] = run.host_of[i] == h && run.takers[i].holding && !run.takers[i].waiting &&
			  holds(i, COORD_NONE);
	}
	coord_stop(coord_at(h));
	stop_told(h, lost_before, held);
	totals.unmounts++;
}

static void mount_end(size_t h)
{
	struct host *host = &run.hosts[h];
	memset(run.graces[h], 0, sizeof(run.graces[h]));
	for (size_t g = 0; g < GROUPS; g++)
		if (sim_below(sim, 2)) /* else the core finds them */
			coord_unfollow(&run.watchers[h][g].follower);
	host->mount = MOUNT_DOWN;
	host->open_at_ms = sim_now_ms(sim);
	if (sim_below(sim, 3) == 0)
		host->open_at_ms += sim_below(sim, 2 * run.options.ttl_ms);
}

static void stopped(size_t h)
{
	const struct host *host = &run.hosts[h];
	bool whole = host->breaks == fake_breaks(run.site.server, run.site.members[h]);
	SAY("host %zu has ended%s", h, host->disturbed || !whole ? ", perhaps not all of it" : "");
	for (size_t i = 0; i < run.takers_len; i++) {
		if (run.host_of[i] != h)
			continue;
		if (run.takers[i].holding && run.takers[i].waiting)
			FAIL("taker %zu waits for a mount that ended", i);
		taker_end(i);
	}
	for (size_t i = 0; i < REQS; i++)
		if (run.asks[i].busy && run.asks[i].host == h)
			FAIL("a request of host %zu is not answered when its mount ends", h);
	bury(h, whole && !host->disturbed);
	mount_end(h);
	coord_free(coord_at(h));
	run.site.clients[h].coord = NULL;
}

static void check_stopping(size_t h)
{
	const struct host *host = &run.hosts[h];
	uint64_t now = host_now(h);
	if (host_aware(h) && now > host->began_ms + DEADLINE_MS + 100 && now > host->ran_ms + 100)
		FAIL("host %zu does not end", h);
}

/* ---- Killing ---- */

void mount_kill(size_t h)
{
	SAY("the mount of host %zu is killed", h);
	bury(h, false);
	fake_kill(run.site.server, run.site.members[h]);
	forget_members(h);
	mount_end(h);
	for (size_t i = 0; i < run.takers_len; i++)
		if (run.host_of[i] == h && run.takers[i].holding) {
			taker_cancel(&run.takers[i], false);
			taker_free(&run.takers[i]);
		}
	site_client_kill(&run.site, h);
	for (size_t i = 0; i < REQS; i++)
		if (run.asks[i].busy && run.asks[i].host == h)
			FAIL("a request outlives its mount");
	totals.kills++;
}

void mounts_watch(void)
{
	for (size_t h = 0; h < run.site.len; h++) {
		const struct host *host = &run.hosts[h];
		const struct client *client = &run.site.clients[h];
		bool due = run.healed_ms || sim_now_ms(sim) >= host->open_at_ms;
		if (host->mount == MOUNT_DOWN && due && !run.site.hosts[h].paused)
			mount_start(h);
		else if (host->mount == MOUNT_OPENING && client->ready)
			opened(h);
		else if (host->mount == MOUNT_OPENING)
			check_opening(h);
		else if (host->mount == MOUNT_STOPPING && client->stopped)
			stopped(h);
		else if (host->mount == MOUNT_STOPPING)
			check_stopping(h);
	}
}
