/* SPDX-License-Identifier: Apache-2.0 */
/*
 * .tooz/metrics: the mount's counters in Prometheus' text format, version 0.0.4
 * (https://prometheus.io/docs/instrumenting/exposition_formats/).
 */
#include "fs/tree.h"

#include <inttypes.h>

static void head(FILE *out, const char *name, const char *type, const char *help)
{
	fprintf(out, "# HELP toozfs_%s %s\n# TYPE toozfs_%s %s\n", name, help, name, type);
}

static void number(FILE *out, const char *name, const char *type, const char *help, uint64_t value)
{
	head(out, name, type, help);
	fprintf(out, "toozfs_%s %" PRIu64 "\n", name, value);
}

/* A label's value: text must be UTF-8, what is none is written as names escape bytes. */
static void label(FILE *out, const char *name, const char *value)
{
	bool text = coord_utf8_valid(coord_bytes_of(value));
	fprintf(out, "%s=\"", name);
	for (; *value; value++) {
		if (*value == '"' || *value == '\\')
			fputc('\\', out);
		if (text || (unsigned char)*value < 0x80)
			fputc(*value, out);
		else
			fprintf(out, "%%%02X", (unsigned char)*value);
	}
	fputc('"', out);
}

static void info(FILE *out, struct fs *fs)
{
	const struct coord_config *config = coord_config_of(fs->coord);
	char member[COORD_NAME_MAX + 1];
	if (coord_name_encode(coord_bytes_of(config->member), member) < 0)
		*member = 0;
	head(out, "info", "gauge", "What this mount is; always 1.");
	fputs("toozfs_info{", out);
	label(out, "version", TOOZFS_VERSION);
	fputc(',', out);
	label(out, "driver", config->driver->name);
	fputc(',', out);
	label(out, "member", member);
	fputs("} 1\n", out);
	head(out, "state", "gauge", "1 for the state of the session, 0 for the others.");
	static const enum coord_state states[] = {COORD_CONNECTED, COORD_SUSPENDED, COORD_LOST};
	for (size_t i = 0; i < sizeof(states) / sizeof(*states); i++)
		fprintf(out, "toozfs_state{state=\"%s\"} %d\n", coord_state_name(states[i]),
			coord_state(fs->coord) == states[i]);
}

static void by_call(FILE *out, const char *name, const char *help, const uint64_t *values)
{
	head(out, name, "counter", help);
	for (int call = 0; call < COORD_CALLS; call++)
		fprintf(out, "toozfs_%s{call=\"%s\"} %" PRIu64 "\n", name,
			coord_call_name((enum coord_call)call), values[call]);
}

static void latency(FILE *out, const char *call, const struct coord_latency *latency)
{
	uint64_t count = 0;
	for (int i = 0; i <= COORD_LATENCY_BOUNDS; i++) {
		char bound[24] = "+Inf";
		count += latency->counts[i];
		if (i < COORD_LATENCY_BOUNDS)
			snprintf(bound, sizeof(bound), "%g",
				(double)coord_latency_bounds_us[i] / 1e6);
		fprintf(out, "toozfs_operation_seconds_bucket{call=\"%s\",le=\"%s\"} %" PRIu64 "\n",
			call, bound, count);
	}
	fprintf(out, "toozfs_operation_seconds_sum{call=\"%s\"} %" PRIu64 ".%06" PRIu64 "\n", call,
		latency->sum_us / 1000000, latency->sum_us % 1000000);
	fprintf(out, "toozfs_operation_seconds_count{call=\"%s\"} %" PRIu64 "\n", call, count);
}

char *fs_metrics_text(struct fs *fs)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);
	if (!out)
		return NULL;
	const struct coord_counters *c = coord_counters(fs->coord);
	info(out, fs);
	by_call(out, "operations_total", "Calls handed to the driver.", c->ops);
	by_call(out, "operation_errors_total",
		"Calls that the driver answered with an error; a busy lock is one.", c->errors);
	head(out, "operation_seconds", "histogram",
		"From handing a call to the driver to its answer; waiting in a queue of the "
		"backend "
		"is left out.");
	for (int call = 0; call < COORD_CALLS; call++)
		latency(out, coord_call_name((enum coord_call)call), &c->latency[call]);
	number(out, "requests_total", "counter",
		"Requests sent to the backend's servers; those that are sent together share a "
		"round trip.",
		coord_requests(fs->coord));
	number(out, "timeouts_total", "counter", "Requests that had no answer in time.",
		c->timeouts);
	number(out, "reconnects_total", "counter", "Connections and sessions begun again.",
		c->reconnects);
	number(out, "losses_total", "counter", "Locks, leaderships and memberships that were lost.",
		c->losses);
	number(out, "locks_held", "gauge", "Holders of locks and leaderships on this mount.",
		c->locks_held);
	number(out, "lock_waiters", "gauge", "Who waits for one on this mount.", c->waiters);
	number(out, "members", "gauge", "Members that this mount joined.", c->members);
	number(out, "hidden_names_total", "counter",
		"Names of the store that were left out of listings.", c->hidden_names);
	number(out, "rings", "gauge", "Groups whose ring was asked for a moment ago.",
		fs->rings.len);
	number(out, "rings_built_total", "counter",
		"Rings that were made: one for all look-ups between two changes of a group.",
		fs->rings_built);
	number(out, "start_time_seconds", "gauge", "When the mount was made, seconds since 1970.",
		fs->started_us / 1000000);
	return fclose(out) == 0 ? text : NULL;
}
