/* SPDX-License-Identifier: Apache-2.0 */
/* A simulated site. See site.h. */
#include "tests/lib/site.h"

#include <assert.h>
#include <stdio.h>

struct fake_options site_options(void)
{
	return (struct fake_options){
		.lock_loss = COORD_LOSS_LEASE,
		.member_loss = COORD_LOSS_LEASE,
		.can = SITE_CAN,
		.ttl_ms = 10000,
		.poll_ms = 100,
	};
}

void site_open_hosts(
	struct site *site, uint64_t seed, const struct fake_options *options, size_t len)
{
	memset(site, 0, sizeof(*site));
	sim_init(&site->sim, seed);
	site->world = (struct world){.sim = &site->sim};
	sim_loop_init(&site->sim, &site->server_host);
	int r = fake_server_new(&site->server_host.loop, options, &site->server);
	assert(r == 0);
	site->len = len;
	for (size_t i = 0; i < len; i++) {
		snprintf(site->members[i], sizeof(site->members[i]), "m%zu", i);
		sim_loop_init(&site->sim, &site->hosts[i]);
	}
}

void site_open(struct site *site, uint64_t seed, const struct fake_options *options, size_t len)
{
	site_open_hosts(site, seed, options, len);
	for (size_t i = 0; i < len; i++) {
		int r = site_client_open(site, i);
		assert(r == 0);
	}
}

int site_client_start(struct site *site, size_t i, bool elsewhere)
{
	/* No process has such a number. */
	enum { PID_NEVER = INT32_MAX };
	struct coord_config *config;
	int r = fake_server_config(site->server, site->members[i], &config);
	if (r)
		return r;
	config->identity.pid = PID_NEVER + ++site->lives;
	if (elsewhere)
		config->identity.pidns += site->lives;
	return client_start(&site->clients[i], &site->world, &site->hosts[i].loop, config);
}

void site_client_kill(struct site *site, size_t i)
{
	fake_kill(site->server, site->members[i]);
	coord_free(site->clients[i].coord);
	site->clients[i].coord = NULL;
}

int site_client_open(struct site *site, size_t i)
{
	struct coord_config *config;
	int r = fake_server_config(site->server, site->members[i], &config);
	if (r)
		return r;
	return client_open(&site->clients[i], &site->world, &site->hosts[i].loop, config);
}

static bool clean(void *user)
{
	struct site *site = user;
	return fake_server_traces(site->server) == 0 && fake_server_running(site->server) == 0;
}

bool site_close(struct site *site)
{
	bool well = true;
	for (size_t i = 0; i < site->len; i++)
		well &= client_close(&site->clients[i]);
	/* What a mount could not take back ends with its lease. */
	uint64_t ttl_ms = fake_server_options(site->server)->ttl_ms;
	well &= sim_run_until(&site->sim, clean, site, 2 * ttl_ms);
	if (!well)
		fprintf(stderr, "site: %zu traces, %zu ops left\n",
			fake_server_traces(site->server), fake_server_running(site->server));
	fake_server_free(site->server);
	for (size_t i = 0; i < site->len; i++)
		sim_loop_done(&site->hosts[i]);
	sim_loop_done(&site->server_host);
	return well;
}
