/* SPDX-License-Identifier: Apache-2.0 */
/* The driver that is to conform. See target.h. */
#include "tests/conformance/target.h"

#include <ftw.h>
#include <stdio.h>

#include "coord/loop_uv.h"

#define FAKE_CAN                                                                                   \
	(COORD_CAN_SHARED | COORD_CAN_CONVERT | COORD_CAN_NOTIFY | COORD_CAN_LIST_ALL |            \
		COORD_CAN_BREAK | COORD_CAN_LEADER_ID | COORD_CAN_ORDERED | COORD_CAN_GROUPS)

static const struct fake_kind {
	const char *name;
	enum coord_loss loss;
	unsigned can;
} fakes[] = {
	{"lease", COORD_LOSS_LEASE, FAKE_CAN},
	{"lease-queue", COORD_LOSS_LEASE, FAKE_CAN | COORD_CAN_QUEUE},
	{"connection", COORD_LOSS_CONNECTION, FAKE_CAN},
	{"connection-queue", COORD_LOSS_CONNECTION,
		(FAKE_CAN | COORD_CAN_QUEUE) & ~(unsigned)COORD_CAN_NOTIFY},
	{"process", COORD_LOSS_PROCESS, FAKE_CAN},
	{"process-queue", COORD_LOSS_PROCESS, FAKE_CAN | COORD_CAN_QUEUE},
	{"least", COORD_LOSS_LEASE, 0},
};

/* Of a module that is linked in. */
extern const struct coord_driver toozfs_driver __attribute__((weak));

static bool fake_open(struct target *target, const char *name)
{
	sim_init(&target->sim, 1);
	sim_loop_init(&target->sim, &target->sim_loop);
	target->world = (struct world){.sim = &target->sim, .loop = &target->sim_loop.loop};
	for (size_t i = 0; i < sizeof(fakes) / sizeof(*fakes); i++) {
		if (strcmp(fakes[i].name, name) != 0)
			continue;
		struct fake_options options = {.lock_loss = fakes[i].loss,
			.member_loss = fakes[i].loss,
			.can = fakes[i].can,
			.ttl_ms = 10000,
			.poll_ms = 50,
			.faults.delay_ms = 2};
		if (fake_server_new(target->world.loop, &options, &target->fake))
			return false;
		target->driver = fake_server_driver(target->fake);
		return true;
	}
	fprintf(stderr, "no such fake: %s\n", name);
	return false;
}

bool target_open(struct target *target)
{
	_cleanup_free_ char *error = NULL;
	struct coord_url url;
	if (strncmp(target->url, "fake://", 7) == 0)
		return fake_open(target, target->url + 7);
	if (coord_loop_uv_new(&target->world.loop))
		return false;
	if (coord_url_parse(target->url, &url, &error) == 0) {
		if (coord_driver_find(url.scheme, &target->driver, &error))
			target->driver = NULL;
		coord_url_done(&url);
	}
	if (error)
		fprintf(stderr, "%s\n", error);
	return target->driver;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

void target_close(struct target *target)
{
	fake_server_free(target->fake);
	if (target->world.sim)
		sim_loop_done(&target->sim_loop);
	else
		coord_loop_uv_free(target->world.loop);
	if (target->dir)
		nftw(target->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

struct coord_config *target_config(
	struct target *target, const struct coord_driver *driver, const char *member)
{
	struct coord_config *ret;
	if (client_config(target->fake ? "fake://" : target->url, driver ? driver : target->driver,
		    member, target->options, &ret))
		exit(1);
	return ret;
}

static bool add_option(struct target *target, char *text)
{
	char *value = strchr(text, '=');
	if (!value || target->options_len == TARGET_OPTIONS)
		return false;
	*value = 0;
	target->options[target->options_len++] = (struct coord_option){text, value + 1};
	return true;
}

int target_parse(struct target *target, int argc, char **argv, char *const **ret_tests)
{
	static char dir[] = "/tmp/conformance-XXXXXX", url[64];
	bool well = true;
	int opt;
	if (&toozfs_driver)
		coord_driver_register(&toozfs_driver);
	while ((opt = getopt(argc, argv, "ro:")) != -1) {
		if (opt == 'r')
			target->required = true;
		else
			well = well && opt == 'o' && add_option(target, optarg);
	}
	if (!well || optind >= argc) {
		fprintf(stderr, "usage: %s [-r] [-o NAME=VALUE]... URL [TEST...]\n", argv[0]);
		return 2;
	}
	target->url = argv[optind];
	if (strcmp(target->url, "file://TMP") == 0 && mkdtemp(dir)) {
		snprintf(url, sizeof(url), "file://%s", dir);
		target->url = url;
		target->dir = dir;
	}
	*ret_tests = argv + optind + 1;
	return 0;
}
