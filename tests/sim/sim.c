/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The real core on several hosts with a virtual clock, over one fake server, with a random schedule of
 * what users do and of what goes wrong. What must always hold is checked after every step.
 *
 *   sim [--seed N] [--seeds COUNT | --forever] [--steps COUNT] [--like any|redis|zookeeper] [--verbose]
 *
 * A run is a function of its seed: a failure prints it, and --seed replays it. What goes wrong: messages are late,
 * overtake each other, get lost before or after their effect; connections break; sessions expire; hosts and the server
 * stand still; clocks step, jump, stand still, run slow or fast; requests are cancelled, locks broken, mounts unmounted
 * and killed, and opened again under their member id. Checked:
 * - never two holders of which one is exclusive are told that they hold, as far as the driver's kind
 *   of loss can promise it: a host that stands still is told when it wakes, a connection that
 *   broke when its host sees it, a broken lock by a notice or the next renewal;
 * - at each grant on the server, whoever had the lock before, on a host that runs, was told before;
 * - who is told by his mount's own clock that his lease is over has his grace before the mount lets go;
 * - a grant or a "still mine" is given only while the server has it so;
 * - fencing tokens grow; a lost lock stays lost until it is let go;
 * - each request is answered exactly once, and in its time;
 * - who follows a group knows, by what it is told alone, who is a member;
 * - a mount that ends tells its holders, answers everybody, ends in time, and leaves nothing on the server; at once, or if
 *   something kept it from it, within a time to live; so does one that is killed; the next one gets the member id at
 *   once, and its members are its own;
 * - once all is well again, nobody is forgotten: within two times to live every mount is connected, every membership is
 *   back, and whoever's turn it is has his lock; after the stop nothing is left anywhere.
 */
#include "tests/sim/run.h"

#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

struct run run;
struct totals totals;
bool verbose;
struct sim *const sim = &run.site.sim;

const char *const names[NAMES] = {"l0", "l1", "l2", "g0", "g1"};
const char *const *const group_names = names + LOCKS;

static struct {
	uint64_t seed, seeds, steps;
	enum like like;
	bool forever;
} args = {.seed = 1, .seeds = 1, .steps = 1000};

static volatile sig_atomic_t interrupted;

/* ---- Telling ---- */

void say(const char *format, ...)
{
	va_list list;
	va_start(list, format);
	printf("%9.3f ", (double)sim->now_us / 1e6);
	vprintf(format, list);
	putchar('\n');
	va_end(list);
}

static void seed_tell(int signum)
{
	char text[128];
	int len = snprintf(text, sizeof(text),
		"\nfailed: replay with --seed %llu --steps %llu --like %s\n",
		(unsigned long long)run.seed, (unsigned long long)args.steps,
		like_names[args.like]);
	if (len > 0 && write(STDERR_FILENO, text, (size_t)len) < 0)
		_exit(2);
	signal(signum, SIG_DFL);
	raise(signum);
}

void fail(const char *format, ...)
{
	va_list list;
	fflush(stdout);
	va_start(list, format);
	fprintf(stderr, "seed %llu, %.3f s: ", (unsigned long long)run.seed,
		(double)sim->now_us / 1e6);
	vfprintf(stderr, format, list);
	fputc('\n', stderr);
	va_end(list);
	abort();
}

static void quiet(int level, const char *text)
{
	if (verbose)
		printf("%9.3f   log %d: %s\n", (double)sim->now_us / 1e6, level, text);
}

/* ---- Time ---- */

static void checks(void)
{
	mounts_watch();
	check_step();
	if (run.healed_ms)
		check_recovery();
}

void pass(uint64_t ms)
{
	uint64_t limit = sim_now_ms(sim) + ms;
	while (sim_now_ms(sim) < limit) {
		uint64_t next = next_wake_ms(limit);
		if (next > sim_now_ms(sim))
			sim_step(sim, next);
		wake_up();
		checks();
	}
}

/* A few turns of loops, so that what comes next comes in the middle of something. */
static void pass_turns(uint64_t turns)
{
	while (turns-- > 0) {
		sim_step(sim, next_wake_ms(sim_now_ms(sim) + 20));
		wake_up();
		checks();
	}
}

/* ---- Runs ---- */

static void run_open(uint64_t seed)
{
	memset(&run, 0, sizeof(run));
	run.seed = seed;
	sim_init(sim, seed);
	coord_table_seed(seed | 1);
	draw_options(args.like);
	size_t hosts = 1 + sim_below(sim, 4);
	uint64_t more = sim_random(sim);
	site_open_hosts(&run.site, more, &run.options, hosts);
	SAY("like %s loss %d,%d can %x ttl %llu hosts %zu ops_max %u waits_max %u breaks %d",
		like_names[run.like], run.options.lock_loss, run.options.member_loss,
		run.options.can, (unsigned long long)run.options.ttl_ms, hosts, run.options.ops_max,
		run.options.waits_max, run.breaks);
	size_t locks = 1 + sim_below(sim, LOCKS);
	run.takers_len = 2 + sim_below(sim, TAKERS - 2);
	for (size_t i = 0; i < run.takers_len; i++) {
		run.host_of[i] = i % hosts;
		bool leads = sim_below(sim, 5) == 0;
		run.name_of[i] = leads ? LOCKS + sim_below(sim, GROUPS) : sim_below(sim, locks);
	}
	fake_observe(run.site.server, &check_observer);
	mounts_open();
	draw_clocks();
	fake_server_options(run.site.server)->faults = draw_faults();
}

static void user_act(void)
{
	size_t i = sim_below(sim, run.takers_len);
	/* Who stands still does nothing. */
	if (!run.site.hosts[run.host_of[i]].paused)
		taker_act(i);
}

static void mount_act(void)
{
	size_t h = sim_below(sim, run.site.len);
	enum mount_state mount = run.hosts[h].mount;
	bool may = mount == MOUNT_UP || (mount == MOUNT_STOPPING && sim_below(sim, 2));
	if (run.site.hosts[h].paused || !may)
		return;
	if (sim_below(sim, 10) || mount != MOUNT_UP)
		member_act(h);
	else
		follow_act(h);
}

static void run_wildly(void)
{
	for (uint64_t n = 0; n < args.steps && !interrupted; n++) {
		uint64_t dice = sim_below(sim, 200);
		if (dice < 110)
			user_act();
		else if (dice < 128)
			mount_act();
		else if (dice < 134)
			trouble();
		else if (dice < 150)
			pass_turns(1 + sim_below(sim, 8));
		else if (dice < 180)
			pass(sim_below(sim, 30));
		else if (dice < 198)
			pass(sim_below(sim, 600));
		else
			pass(sim_below(sim, 4000));
		checks();
	}
}

static bool anybody_waits(void)
{
	for (size_t i = 0; i < run.takers_len; i++)
		if (run.takers[i].holding && run.takers[i].waiting)
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

static void holders_unlock(void)
{
	for (size_t i = 0; i < run.takers_len; i++) {
		struct coord_holding *holding = run.takers[i].holding;
		if (!holding || coord_holding_state(holding) == COORD_FREE || run.takers[i].waiting)
			continue;
		SAY("taker %zu: unlock", i);
		coord_unlock(holding, NULL, NULL);
	}
}

static void waiters_tell(void)
{
	for (size_t i = 0; i < run.takers_len; i++)
		if (run.takers[i].holding && run.takers[i].waiting)
			fprintf(stderr, "waiting: taker %zu host %zu %s\n", i, run.host_of[i],
				names[run.name_of[i]]);
}

/* No more faults: whoever waits has his turn, as the others let go. */
static void run_healed(void)
{
	SAY("all is well from now on");
	run.healed_ms = sim_now_ms(sim);
	fake_server_options(run.site.server)->faults = (struct fake_faults){.delay_ms = 2};
	wake_up();
	fake_heal(run.site.server);
	uint64_t end_ms = run.healed_ms + 4 * run.options.ttl_ms +
			  run.takers_len * (1000 + 4 * run.options.poll_ms);
	do {
		pass(50);
		deadlocks_end();
		holders_unlock();
		if (sim_now_ms(sim) > end_ms) {
			waiters_tell();
			FAIL("somebody was forgotten");
		}
	} while (anybody_waits() || !run.recovered);
	pass(DEADLINE_MS);
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
	totals.steps += sim->steps;
	totals.seeds++;
}

static void run_seed(uint64_t seed)
{
	run_open(seed);
	run_wildly();
	run_healed();
	run_close();
}

/* ---- The command ---- */

static void on_interrupt(int signum)
{
	(void)signum;
	interrupted = true;
}

static void sum_up(void)
{
	printf("seeds %llu to %llu: %llu loop turns, %llu grants, %llu losses, %llu requests, "
	       "%llu unmounts, %llu kills, %llu releases after a grace\n",
		(unsigned long long)args.seed, (unsigned long long)(args.seed + totals.seeds - 1),
		(unsigned long long)totals.steps, (unsigned long long)totals.grants,
		(unsigned long long)totals.losses, (unsigned long long)totals.requests,
		(unsigned long long)totals.unmounts, (unsigned long long)totals.kills,
		(unsigned long long)totals.graces);
	fflush(stdout);
}

static enum like like_named(const char *name)
{
	for (int i = 0; i < LIKES; i++)
		if (strcmp(like_names[i], name) == 0)
			return (enum like)i;
	fprintf(stderr, "sim: there is no server like '%s'\n", name);
	exit(2);
}

static void arguments(int argc, char **argv)
{
	static const struct option options[] = {
		{"seed", required_argument, NULL, 's'},
		{"seeds", required_argument, NULL, 'n'},
		{"steps", required_argument, NULL, 't'},
		{"like", required_argument, NULL, 'l'},
		{"forever", no_argument, NULL, 'f'},
		{"verbose", no_argument, NULL, 'v'},
		{NULL, 0, NULL, 0},
	};
	int opt;
	while ((opt = getopt_long(argc, argv, "s:n:t:l:fv", options, NULL)) != -1) {
		if (opt == 's')
			args.seed = strtoull(optarg, NULL, 0);
		else if (opt == 'n')
			args.seeds = strtoull(optarg, NULL, 0);
		else if (opt == 't')
			args.steps = strtoull(optarg, NULL, 0);
		else if (opt == 'l')
			args.like = like_named(optarg);
		else if (opt == 'f')
			args.forever = true;
		else if (opt == 'v')
			verbose = true;
		else
			exit(2);
	}
}

int main(int argc, char **argv)
{
	enum { TELL_S = 10, LONG_FACTOR = 20 };
	arguments(argc, argv);
	/* The long form of the tests. */
	if (getenv("TOOZFS_LONG"))
		args.seeds *= LONG_FACTOR;
	signal(SIGABRT, seed_tell);
	signal(SIGSEGV, seed_tell);
	if (args.forever) {
		signal(SIGINT, on_interrupt);
		signal(SIGTERM, on_interrupt);
	}
	coord_log_to(quiet);
	time_t told = time(NULL);
	for (uint64_t i = 0; (args.forever || i < args.seeds) && !interrupted; i++) {
		run_seed(args.seed + i);
		if (args.forever && time(NULL) >= told + TELL_S) {
			told = time(NULL);
			sum_up();
		}
	}
	sum_up();
	return 0;
}
