/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a conformance program is pointed at: a driver, by a URL. file://TMP is a new directory, removed in
 * the end; fake://VARIANT a backend inside the program, see target.c, where time is simulated, too.
 */
#ifndef CONFORMANCE_TARGET_H
#define CONFORMANCE_TARGET_H

#include "tests/lib/client.h"
#include "tests/lib/fake.h"

enum { TARGET_OPTIONS = 16 };

struct target {
	const char *url;
	char *dir; /* to be removed */
	struct coord_option options[TARGET_OPTIONS + 1];
	size_t options_len;
	bool required; /* that it is not there is a failure, not a reason to skip */
	struct world world; /* the real loop, or of the fake: */
	struct sim sim;
	struct sim_loop sim_loop;
	struct fake_server *fake; /* NULL: a real driver */
	const struct coord_driver *driver;
};

/* Parses [-r] [-o NAME=VALUE]... URL [TEST...]. Returns 0, or the exit status for a wrong use. */
int target_parse(struct target *, int argc, char **argv, char *const **ret_tests);
/* Makes the loop and finds the driver; false after telling why not. */
bool target_open(struct target *);
void target_close(struct target *);
/* A configuration; driver NULL: the target's own. Ends the program if the URL does not fit. */
struct coord_config *target_config(
	struct target *, const struct coord_driver *driver, const char *member);

#endif
