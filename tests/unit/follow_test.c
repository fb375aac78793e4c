/* SPDX-License-Identifier: Apache-2.0 */
/* Following groups through the core on a virtual clock: what is told, when, in which order. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "coord/follow.h"
#include "tests/lib/site.h"

static struct site site;
#define SIM (&site.sim)
#define M0 (&site.clients[0])
#define M1 (&site.clients[1])

static const struct coord_bytes nil = COORD_BYTES("\xc0"), map = COORD_BYTES("\x80");

/* A follower that keeps what it is told, and what it knows by that alone. */
struct watcher {
	struct coord_follower follower;
	char text[8192]; /* a letter for each kind, and the name: "+x ", "~x ", "-x " ... */
	char known[64][16]; /* members */
	size_t known_len;
	char leader[16]; /* empty: none */
	unsigned settled, ended;
	int status;
	bool suspended;
	struct watcher *stops; /* which to unfollow at the next change; NULL: none */
};

static char *find_known(struct watcher *w, const char *name)
{
	for (size_t i = 0; i < w->known_len; i++)
		if (strcmp(w->known[i], name) == 0)
			return w->known[i];
	return NULL;
}

static void add_known(struct watcher *w, const char *name)
{
	assert_null(find_known(w, name));
	assert_true(w->known_len < 64);
	snprintf(w->known[w->known_len++], sizeof(w->known[0]), "%s", name);
}

static void take_all(struct watcher *w)
{
	const struct coord_followed_member *member = NULL;
	char name[16];
	while ((member = coord_followed_next(&w->follower, member))) {
		snprintf(name, sizeof(name), "%.*s", (int)member->name.len, member->name.data);
		add_known(w, name);
	}
	assert_int_equal(w->known_len, coord_followed_len(&w->follower));
	struct coord_bytes leader;
	if (coord_followed_leader(&w->follower, &leader))
		snprintf(w->leader, sizeof(w->leader), "%.*s", (int)leader.len, leader.data);
}

static void told(struct coord_follower *follower, enum coord_change change,
	struct coord_bytes bytes, int status)
{
	static const char letters[] = "+~-*.<>=#";
	struct watcher *w = coord_container(follower, struct watcher, follower);
	char name[16];
	size_t len = strlen(w->text);
	snprintf(name, sizeof(name), "%.*s", (int)bytes.len, bytes.data ? bytes.data : "");
	snprintf(w->text + len, sizeof(w->text) - len, "%c%s ", letters[change], name);
	assert_int_equal(w->ended, 0);
	if (change == COORD_CHANGE_SETTLED && w->settled++ == 0)
		take_all(w);
	else
		assert_true(w->settled || change == COORD_CHANGE_ENDED);
	char *known = find_known(w, name);
	if (change == COORD_CHANGE_JOIN)
		add_known(w, name);
	else if (change == COORD_CHANGE_LEAVE || change == COORD_CHANGE_UPDATE)
		assert_non_null(known);
	if (change == COORD_CHANGE_LEAVE)
		memmove(known, w->known[--w->known_len], sizeof(w->known[0]));
	else if (change == COORD_CHANGE_LEADER)
		snprintf(w->leader, sizeof(w->leader), "%s", name);
	else if (change == COORD_CHANGE_NO_LEADER)
		w->leader[0] = 0;
	else if (change == COORD_CHANGE_SUSPENDED || change == COORD_CHANGE_RESUMED) {
		assert_int_equal(w->suspended, change == COORD_CHANGE_RESUMED);
		w->suspended = change == COORD_CHANGE_SUSPENDED;
	} else if (change == COORD_CHANGE_ENDED) {
		w->ended++;
		w->status = status;
	}
	if (w->stops)
		coord_unfollow(&w->stops->follower);
	w->stops = NULL;
}

static void follow(struct client *client, struct watcher *w)
{
	*w = (struct watcher){.follower.fn = told};
	assert_int_equal(coord_follow(client->coord, COORD_BYTES("g"), &w->follower), 0);
	assert_int_equal(w->settled, 0);
}

/* Lets it happen, and gives what was told since the last time. */
static const char *said(struct watcher *w)
{
	static char text[sizeof(w->text)];
	sim_run(SIM, 1000);
	memcpy(text, w->text, sizeof(text));
	w->text[0] = 0;
	return text;
}

static void open_two(const struct fake_options *options, uint64_t seed)
{
	site_open(&site, seed, options, 2);
	assert_int_equal(client_group_create(M0, "g"), 0);
}

static void each_change(void **state)
{
	(void)state;
	struct fake_options options = site_options();
	struct watcher one, two;
	struct taker taker;
	open_two(&options, 1);
	assert_int_equal(client_member_put(M0, "g", "a", nil, true), 0);
	follow(M0, &one);
	follow(M1, &two);
	assert_string_equal(said(&one), "= ");
	assert_string_equal(said(&two), "= ");
	assert_string_equal(one.known[0], "a");
	assert_int_equal(client_member_put(M1, "g", "b", nil, true), 0);
	assert_string_equal(said(&one), "+b = ");
	assert_string_equal(said(&two), "+b = ");
	assert_int_equal(client_member_put(M1, "g", "b", map, false), 0);
	assert_string_equal(said(&one), "~b = ");
	assert_int_equal(client_member_put(M1, "g", "b", map, false), 0);
	assert_null(strpbrk(said(&one), "+~-"));
	assert_int_equal(taker_new(M1, COORD_LEADER, COORD_BYTES("g"), &taker), 0);
	assert_int_equal(taker_lock(&taker, COORD_EXCLUSIVE, 0, 1000), 0);
	assert_non_null(strstr(said(&one), "*m1 "));
	assert_int_equal(taker_unlock(&taker), 0);
	assert_non_null(strstr(said(&one), ". "));
	taker_free(&taker);
	assert_int_equal(client_member_leave(M0, "g", "a"), 0);
	assert_int_equal(client_member_leave(M1, "g", "b"), 0);
	assert_non_null(strstr(said(&one), "-a "));
	assert_int_equal(one.known_len, 0);
	assert_int_equal(client_group_delete(M1, "g"), 0);
	assert_non_null(strstr(said(&one), "# "));
	assert_int_equal(one.status, -ENOENT);
	assert_int_equal(two.status, -ENOENT);
	assert_true(site_close(&site));
}

static void no_group(void **state)
{
	(void)state;
	struct fake_options options = site_options();
	struct watcher w;
	open_two(&options, 1);
	assert_int_equal(client_group_delete(M0, "g"), 0);
	follow(M1, &w);
	assert_string_equal(said(&w), "# ");
	assert_int_equal(w.status, -ENOENT);
	assert_false(coord_followed_current(&w.follower));
	assert_true(site_close(&site));
}

/* One reads for all, and nobody when nobody follows. */
static void one_watch(void **state)
{
	(void)state;
	struct fake_options options = site_options();
	struct watcher all[50];
	open_two(&options, 1);
	uint64_t before = fake_server_ops(site.server, COORD_CALL_GROUP_READ);
	for (size_t i = 0; i < 50; i++)
		follow(M0, &all[i]);
	said(&all[0]);
	assert_int_equal(fake_server_ops(site.server, COORD_CALL_GROUP_READ), before + 1);
	size_t traces = fake_server_traces(site.server);
	for (size_t i = 0; i < 50; i++)
		coord_unfollow(&all[i].follower);
	sim_run(SIM, 1000);
	assert_true(fake_server_traces(site.server) < traces);
	before = fake_server_ops(site.server, COORD_CALL_GROUP_READ);
	assert_int_equal(client_member_put(M1, "g", "b", nil, true), 0);
	sim_run(SIM, 1000);
	assert_int_equal(fake_server_ops(site.server, COORD_CALL_GROUP_READ), before);
	assert_int_equal(client_member_leave(M1, "g", "b"), 0);
	assert_int_equal(client_group_delete(M0, "g"), 0);
	assert_true(site_close(&site));
}

/* Whoever is told may end any, himself too. */
static void unfollow_when_told(void **state)
{
	(void)state;
	struct fake_options options = site_options();
	struct watcher one, two, three;
	open_two(&options, 1);
	follow(M0, &one);
	follow(M0, &two);
	follow(M0, &three);
	said(&one);
	one.stops = &two;
	three.stops = &three;
	said(&two);
	assert_int_equal(client_member_put(M1, "g", "b", nil, true), 0);
	assert_string_equal(said(&two), "");
	assert_string_equal(said(&three), "= +b ");
	assert_non_null(strstr(said(&one), "+b = "));
	assert_int_equal(client_member_leave(M1, "g", "b"), 0);
	one.stops = &one;
	sim_run(SIM, 1000);
	assert_int_equal(client_group_delete(M0, "g"), 0);
	assert_true(site_close(&site));
}

static void away(void **state)
{
	(void)state;
	struct fake_options options = site_options();
	struct watcher w;
	open_two(&options, 1);
	assert_int_equal(client_member_put(M1, "g", "goes", nil, true), 0);
	follow(M0, &w);
	said(&w);
	fake_break(site.server, "m0", 2000);
	assert_string_equal(said(&w), "< ");
	assert_int_equal(client_member_leave(M1, "g", "goes"), 0);
	assert_int_equal(client_member_put(M1, "g", "comes", nil, true), 0);
	sim_run(SIM, 5000);
	assert_string_equal(said(&w), "-goes +comes > = ");
	coord_unfollow(&w.follower);
	assert_int_equal(client_member_leave(M1, "g", "comes"), 0);
	assert_int_equal(client_group_delete(M1, "g"), 0);
	assert_true(site_close(&site));
}

/* Who follows is not told of an outage when the mount stops, for there is no end of it. */
static void stop(void **state)
{
	(void)state;
	struct fake_options options = site_options();
	struct watcher w;
	open_two(&options, 1);
	follow(M0, &w);
	assert_string_equal(said(&w), "= ");
	coord_stop(M0->coord);
	assert_string_equal(said(&w), "");
	assert_true(M0->stopped);
	coord_unfollow(&w.follower);
	assert_int_equal(client_group_delete(M1, "g"), 0);
	assert_true(site_close(&site));
}

static uint32_t chance(struct coord_loop *loop, uint32_t below)
{
	uint32_t x;
	coord_random(loop, &x, sizeof(x));
	return x % below;
}

static void check_same(struct watcher *w)
{
	struct answer a;
	assert_int_equal(client_group_read(M1, "g", false, &a), 0);
	size_t members = 0;
	for (size_t i = 0; i < a.len; i++) {
		char name[16];
		if (a.rows[i].flags & COORD_ROW_LEADER)
			continue;
		snprintf(name, sizeof(name), "%.*s", (int)a.rows[i].name.len, a.rows[i].name.data);
		assert_non_null(find_known(w, name));
		members++;
	}
	assert_int_equal(members, w->known_len);
	answer_done(&a);
}

/* Whatever happens on the way, who follows ends with what there is, by what it was told alone. */
static void storms(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 60; seed++) {
		struct fake_options options = site_options();
		struct watcher early, late;
		if (seed % 3 == 0)
			options.can &= ~(unsigned)COORD_CAN_NOTIFY;
		open_two(&options, seed);
		follow(M0, &early);
		struct fake_faults *faults = &fake_server_options(site.server)->faults;
		*faults = (struct fake_faults){.delay_ms = 20,
			.unknown = 20,
			.lost = 20,
			.disconnect = 5,
			.notice_ms = 20,
			.down_ms = 500};
		for (int i = 0; i < 100; i++) {
			struct client *client = &site.clients[chance(coord_loop_of(M0->coord), 2)];
			char name[2] = {(char)('a' + chance(coord_loop_of(client->coord), 6)), 0};
			if (chance(coord_loop_of(client->coord), 3))
				client_member_put(client, "g", name, i % 2 ? nil : map, false);
			else
				client_member_leave(client, "g", name);
			if (i == 50)
				follow(M0, &late);
		}
		*faults = (struct fake_faults){0};
		sim_run(SIM, 60000);
		check_same(&early);
		check_same(&late);
		assert_true(coord_followed_current(&early.follower));
		assert_false(early.suspended || late.suspended);
		coord_unfollow(&early.follower);
		coord_unfollow(&late.follower);
		assert_true(site_close(&site));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_change),
		cmocka_unit_test(no_group),
		cmocka_unit_test(one_watch),
		cmocka_unit_test(unfollow_when_told),
		cmocka_unit_test(away),
		cmocka_unit_test(stop),
		cmocka_unit_test(storms),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
