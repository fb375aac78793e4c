/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A mount's configuration: what the URL and the mount options say, checked against the tables of
 * params. Options outside the URL win over the URL's of the same name. Every text of an error names
 * the option, and never the value of one that is secret.
 */
#include "coord/config.h"
#include "coord/driver.h"
#include "coord/names.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <strings.h>

#define LEASE_MIN_MS 3000
#define TIMEOUT_MAX_MS 86400000 /* a day */

const struct coord_param coord_common_params[] = {
	{"timeout", COORD_PARAM_SECONDS, "10",
		"deadline of one operation, and default of the leases, in seconds", 0, 1,
		TIMEOUT_MAX_MS},
	{"lock_timeout", COORD_PARAM_SECONDS, NULL,
		"lease of locks and leaderships, in seconds (default: timeout)", 0, 1,
		TIMEOUT_MAX_MS},
	{"membership_timeout", COORD_PARAM_SECONDS, NULL,
		"lease of memberships, in seconds (default: timeout)", 0, 1, TIMEOUT_MAX_MS},
	{0},
};

/* One param with what was given for it. The array ends with a NULL param. */
struct coord_config_value {
	const struct coord_param *param;
	char **texts; /* more than one for LIST only */
	size_t texts_len;
	bool outside; /* the texts come from outside the URL */
	uint64_t number; /* BOOL, UINT, SECONDS */
};

__attribute__((format(printf, 2, 3))) static int refuse(char **ret_error, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	if (vasprintf(ret_error, format, args) < 0)
		*ret_error = NULL;
	va_end(args);
	return -EINVAL;
}

static struct coord_config_value *find_value(const struct coord_config *config, const char *name)
{
	for (struct coord_config_value *value = config->values; value->param; value++)
		if (strcmp(value->param->name, name) == 0)
			return value;
	return NULL;
}

static void clear_value(struct coord_config_value *value)
{
	for (size_t i = 0; i < value->texts_len; i++) {
		if (value->param->flags & COORD_PARAM_SECRET)
			explicit_bzero(value->texts[i], strlen(value->texts[i]));
		free(value->texts[i]);
	}
	free(value->texts);
	value->texts = NULL;
	value->texts_len = 0;
}

static int append_text(struct coord_config_value *value, const char *text)
{
	if (!(value->param->flags & COORD_PARAM_LIST))
		clear_value(value);
	char **texts = realloc(value->texts, (value->texts_len + 1) * sizeof(*texts));
	if (!texts)
		return -ENOMEM;
	value->texts = texts;
	texts[value->texts_len] = strdup(text);
	if (!texts[value->texts_len])
		return -ENOMEM;
	value->texts_len++;
	return 0;
}

static size_t count_params(const struct coord_param *params)
{
	size_t n = 0;
	while (params && params[n].name)
		n++;
	return n;
}

/* One value for each param; a driver's own table hides a common param of the same name. */
static int make_values(struct coord_config *config)
{
	const struct coord_param *own = config->driver->params;
	size_t most = count_params(own) + count_params(coord_common_params) + 1, n = 0;
	config->values = calloc(most, sizeof(*config->values));
	if (!config->values)
		return -ENOMEM;
	for (const struct coord_param *p = own; p && p->name; p++)
		config->values[n++].param = p;
	for (const struct coord_param *p = coord_common_params; p->name; p++)
		if (!find_value(config, p->name))
			config->values[n++].param = p;
	return 0;
}

static int refuse_unknown(const struct coord_config *config, const char *name, char **ret_error)
{
	_cleanup_free_ char *known = NULL;
	size_t len;
	FILE *out = open_memstream(&known, &len);
	if (!out)
		return -ENOMEM;
	for (unsigned wanted = 0; wanted <= COORD_PARAM_IGNORED; wanted += COORD_PARAM_IGNORED) {
		const char *before = wanted ? "; accepted without effect: " : "";
		for (const struct coord_config_value *v = config->values; v->param; v++) {
			if ((v->param->flags & COORD_PARAM_IGNORED) != wanted)
				continue;
			fprintf(out, "%s%s", before, v->param->name);
			before = ", ";
		}
	}
	if (fclose(out) != 0)
		return -ENOMEM;
	return refuse(ret_error, "unknown option '%s'; the %s driver knows: %s", name,
		config->driver->name, known);
}

static int set_option(struct coord_config *config, const char *name, const char *text, bool outside,
	char **ret_error)
{
	struct coord_config_value *value = find_value(config, name);
	if (!value)
		return refuse_unknown(config, name, ret_error);
	if (outside && !value->outside) {
		clear_value(value);
		value->outside = true;
	}
	return append_text(value, text);
}

/* oslo's bool_from_string, but strict. */
static int parse_bool(const char *text, uint64_t *ret)
{
	static const char *const words[2][6] = {
		{"0", "f", "false", "off", "n", "no"}, {"1", "t", "true", "on", "y", "yes"}};
	for (size_t truth = 0; truth < 2; truth++)
		for (size_t i = 0; i < 6; i++)
			if (strcasecmp(text, words[truth][i]) == 0) {
				*ret = truth;
				return 0;
			}
	return -EINVAL;
}

/* Decimal digits, and with a scale of 1000 a fraction, whose fourth digit and on are dropped. */
static int parse_number(const char *text, uint64_t scale, uint64_t *ret)
{
	uint64_t number = 0;
	bool digits = false, fraction = false;
	for (; *text; text++) {
		if (*text == '.' && scale > 1 && !fraction) {
			fraction = true;
			continue;
		}
		if (*text < '0' || *text > '9')
			return -EINVAL;
		digits = true;
		if (fraction && scale == 1)
			continue;
		if (__builtin_mul_overflow(number, 10, &number) ||
			__builtin_add_overflow(number, (uint64_t)(*text - '0'), &number))
			return -EINVAL;
		if (fraction)
			scale /= 10;
	}
	if (!digits || __builtin_mul_overflow(number, scale, &number))
		return -EINVAL;
	*ret = number;
	return 0;
}

static int parse_value(struct coord_config_value *value, const char *text)
{
	const struct coord_param *param = value->param;
	int r = 0;
	switch (param->type) {
	case COORD_PARAM_STRING:
		return 0;
	case COORD_PARAM_BOOL:
		return parse_bool(text, &value->number);
	case COORD_PARAM_UINT:
		r = parse_number(text, 1, &value->number);
		break;
	case COORD_PARAM_SECONDS:
		r = parse_number(text, 1000, &value->number);
		break;
	}
	if (r == 0 && (value->number < param->min || (param->max && value->number > param->max)))
		r = -ERANGE;
	return r;
}

static int refuse_value(const struct coord_param *param, const char *text, char **ret_error)
{
	const char *wanted = "";
	switch (param->type) {
	case COORD_PARAM_STRING:
		break;
	case COORD_PARAM_BOOL:
		wanted = "true or false";
		break;
	case COORD_PARAM_UINT:
		wanted = "a whole number";
		break;
	case COORD_PARAM_SECONDS:
		wanted = "a number of seconds";
		break;
	}
	bool secret = param->flags & COORD_PARAM_SECRET,
	     seconds = param->type == COORD_PARAM_SECONDS;
	double scale = seconds ? 1000 : 1;
	char range[96] = "";
	if (param->max)
		snprintf(range, sizeof(range), " from %.15g to %.15g", (double)param->min / scale,
			(double)param->max / scale);
	else if (param->min)
		snprintf(range, sizeof(range), " from %.15g on", (double)param->min / scale);
	return refuse(ret_error, "option '%s': %s%s%s is not %s%s", param->name,
		secret ? "what was given" : "'", secret ? "" : text, secret ? "" : "'", wanted,
		range);
}

/* Defaults where nothing was given, and numbers from texts. */
static int finish_values(struct coord_config *config, char **ret_error)
{
	for (struct coord_config_value *value = config->values; value->param; value++) {
		const struct coord_param *param = value->param;
		if (value->texts_len == 0 && param->def) {
			int r = append_text(value, param->def);
			if (r < 0)
				return r;
		}
		if (param->flags & COORD_PARAM_IGNORED)
			continue;
		for (size_t i = 0; i < value->texts_len; i++)
			if (parse_value(value, value->texts[i]) < 0)
				return refuse_value(param, value->texts[i], ret_error);
	}
	return 0;
}

static int check_lease(
	const char *name, const struct coord_config_value *value, uint64_t ms, char **ret_error)
{
	if (ms >= LEASE_MIN_MS)
		return 0;
	return refuse(ret_error,
		"option '%s': a lease of %.15g s is too short, 3 s is the least (%s)",
		value->texts_len ? name : "timeout", (double)ms / 1000, name);
}

static int set_timeouts(struct coord_config *config, char **ret_error)
{
	const struct coord_config_value *lock = find_value(config, "lock_timeout");
	const struct coord_config_value *member = find_value(config, "membership_timeout");
	config->timeout_ms = coord_config_uint(config, "timeout");
	config->lock_timeout_ms = lock->texts_len ? lock->number : config->timeout_ms;
	config->membership_timeout_ms = member->texts_len ? member->number : config->timeout_ms;

	const enum coord_loss *loss = config->driver->loss;
	bool groups = config->driver->can & COORD_CAN_GROUPS;
	int r = 0;
	if (loss[COORD_LOCK] == COORD_LOSS_LEASE ||
		(groups && loss[COORD_LEADER] == COORD_LOSS_LEASE))
		r = check_lease("lock_timeout", lock, config->lock_timeout_ms, ret_error);
	if (r == 0 && groups && loss[COORD_MEMBER] == COORD_LOSS_LEASE)
		r = check_lease(
			"membership_timeout", member, config->membership_timeout_ms, ret_error);
	return r;
}

static int set_member(struct coord_config *config, const char *member, char **ret_error)
{
	char host[256] = "", file[COORD_NAME_MAX + 1];
	int r = coord_identity_self(&config->identity);
	if (r < 0) {
		refuse(ret_error, "cannot tell who this process is: %s", strerror(-r));
		return r;
	}
	if (!member && gethostname(host, sizeof(host) - 1) < 0)
		return -errno;
	config->member = strdup(member ? member : host);
	if (!config->member)
		return -ENOMEM;
	if (coord_name_encode(coord_bytes_of(config->member), file) < 0)
		return refuse(
			ret_error, "option 'member': an id has 1 to %d bytes", COORD_NAME_MAX);
	return 0;
}

/* The last step: moves the URL, with the credentials from outside. */
static int take_url(
	struct coord_config *config, struct coord_url *url, const char *user, const char *password)
{
	struct coord_url merged = *url;
	if (user && !(merged.user = strdup(user)))
		return -ENOMEM;
	config->shown = coord_url_scrub(&merged, config->driver->params);
	if (config->shown && password)
		merged.password = strdup(password);
	if (!config->shown || (password && !merged.password)) {
		if (user)
			free(merged.user);
		return -ENOMEM;
	}
	if (user)
		free(url->user);
	if (password && url->password) {
		explicit_bzero(url->password, strlen(url->password));
		free(url->password);
	}
	config->url = merged;
	*url = (struct coord_url){0};
	return 0;
}

static int fill(struct coord_config *config, const struct coord_url *url,
	const struct coord_option *options, size_t options_len, const char *member,
	char **ret_error)
{
	int r = make_values(config);
	for (size_t i = 0; r == 0 && i < url->options_len; i++)
		r = set_option(
			config, url->options[i].name, url->options[i].value, false, ret_error);
	for (size_t i = 0; r == 0 && i < options_len; i++)
		r = set_option(config, options[i].name, options[i].value, true, ret_error);
	if (r == 0)
		r = finish_values(config, ret_error);
	if (r == 0)
		r = set_timeouts(config, ret_error);
	if (r == 0)
		r = set_member(config, member, ret_error);
	return r;
}

int coord_config_new(const struct coord_driver *driver, struct coord_url *url,
	const struct coord_option *options, size_t options_len, const char *user,
	const char *password, const char *member, struct coord_config **ret, char **ret_error)
{
	*ret_error = NULL;
	struct coord_config *config = calloc(1, sizeof(*config));
	if (!config)
		return -ENOMEM;
	config->driver = driver;
	int r = fill(config, url, options, options_len, member, ret_error);
	if (r == 0)
		r = take_url(config, url, user, password);
	if (r < 0) {
		coord_config_free(config);
		if (!*ret_error && asprintf(ret_error, "%s", strerror(-r)) < 0)
			*ret_error = NULL;
		return r;
	}
	*ret = config;
	return 0;
}

void coord_config_free(struct coord_config *config)
{
	if (!config)
		return;
	for (struct coord_config_value *v = config->values; v && v->param; v++)
		clear_value(v);
	free(config->values);
	coord_url_done(&config->url);
	free(config->shown);
	free(config->member);
	free(config);
}

static const struct coord_config_value *must_find(
	const struct coord_config *config, const char *name)
{
	const struct coord_config_value *value = find_value(config, name);
	assert(value);
	return value;
}

const char *coord_config_string(const struct coord_config *config, const char *name)
{
	const struct coord_config_value *value = must_find(config, name);
	return value->texts_len ? value->texts[value->texts_len - 1] : NULL;
}

bool coord_config_bool(const struct coord_config *config, const char *name)
{
	return must_find(config, name)->number != 0;
}

uint64_t coord_config_uint(const struct coord_config *config, const char *name)
{
	return must_find(config, name)->number;
}

const char *coord_config_list(const struct coord_config *config, const char *name, size_t i)
{
	const struct coord_config_value *value = must_find(config, name);
	return i < value->texts_len ? value->texts[i] : NULL;
}
