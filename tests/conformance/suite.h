/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of the program conformance share. Each test finds two open coordinators, t.a and t.b, on
 * one backend, and leaves nothing there; the runner in conformance.c closes them.
 */
#ifndef CONFORMANCE_SUITE_H
#define CONFORMANCE_SUITE_H

#include <stdio.h>
#include <sys/types.h>

#include "tests/conformance/target.h"

#define LEN(array) (sizeof(array) / sizeof(*(array)))

enum { HANDOVER_MS = 2000, QUICK_MS = 15000, NAME_LEN = 256, NAMES_MAX = 4096 };

struct suite {
	struct target target;
	const struct coord_driver *real; /* the target's */
	struct coord_driver shim; /* the same, with its lock calls counted */
	unsigned lock_calls;
	struct client a, b;
	unsigned names;
	bool failed, skipped;
	char dead_member[64], dead_lock[64], dead_group[64];
};
extern struct suite t;

#define FAIL(...)                                                                                  \
	do {                                                                                       \
		fprintf(stderr, "  %s:%d: ", __FILE__, __LINE__);                                  \
		fprintf(stderr, __VA_ARGS__);                                                      \
		fputc('\n', stderr);                                                               \
		t.failed = true;                                                                   \
	} while (0)
/* A failed check is told, and the test goes on: it must clean up. */
#define CHECK(condition)                                                                           \
	do {                                                                                       \
		if (!(condition))                                                                  \
			FAIL("%s", #condition);                                                    \
	} while (0)
#define CHECK_R(call, expected)                                                                    \
	do {                                                                                       \
		int r_ = (call), e_ = (expected);                                                  \
		if (r_ != e_)                                                                      \
			FAIL("%s: %d (%s), not %d", #call, r_, strerror(-r_), e_);                 \
	} while (0)

/* In time: what one mount did another may see later, where many servers answer or a notice has to come. */
#define CHECK_SOON(condition)                                                                      \
	do {                                                                                       \
		bool met_ = false;                                                                 \
		for (uint64_t end_ = now() + handover_ms(); !met_ && now() < end_;)                \
			if (!(met_ = (condition)))                                                 \
				world_run(&t.target.world, 10);                                    \
		if (!met_)                                                                         \
			FAIL("%s, after a while", #condition);                                     \
	} while (0)

/* The end of each table has a NULL name. */
struct test {
	const char *name;
	void (*fn)(void);
};
extern const struct test tests_sessions[], tests_leases[], tests_groups[], tests_names[],
	tests_locks[], tests_order[], tests_leaders[];

bool can(unsigned what);
bool skip_unless(unsigned what);
/* A name that nobody used before; valid for the whole run. */
const char *fresh(const char *stem);
uint64_t now(void);
/* How long a waiter may take to see a release. */
uint64_t handover_ms(void);
/* How long a holder may take to see that it was broken. */
uint64_t notice_ms(void);
/* Is a request refused because of its name? */
bool refused(int r);
bool is_lost(void *taker);
/* Looks by way of client. Is the member there, with this data (NULL: any)? Has the group so many members,
 * one of which is that (NULL: any)? Is there a leader of that id? */
bool shows_member(struct client *client, const char *group, const char *member,
	const struct coord_bytes *data);
bool shows_group(struct client *client, const char *group, size_t members, const char *member);
bool shows_leader(struct client *client, const char *group, const char *id);
/* Is it held or not, and if it is and an owner is given, nobody else's? */
bool shows_held(struct client *client, enum coord_kind kind, const char *name, bool held,
	const char *owner);
/* Of what is held, how many names begin so? */
bool lists(struct client *client, enum coord_kind kind, const char *stem, size_t count);

/* What the program does as another process, see leases.c. */
int hold(char *const *words);

bool world_open(void);
/* A configuration of a mount with that member id, with the calls of lock counted. */
struct coord_config *config(const char *member);
int open_as(struct client *, const char *member);
/* The same with one more option. */
int open_with(struct client *, const char *member, const char *name, const char *value);
/* With the shortest lease there may be, where a real driver has any. */
enum { LEASE_MS = 3000 };
#define LEASE_TEXT "3"
bool has_leases(void);
int open_leased(struct client *, const char *member);

struct taker *taker(struct client *, enum coord_kind, const char *name);
void drop(struct taker *);

#endif
