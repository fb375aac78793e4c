/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connection strings, split as Python's urllib.parse.urlsplit and parse_qs do, which tooz uses:
 *
 *   scheme://user:password@netloc/path?name=value&name=value#ignored
 *
 * Only query names and values are decoded. Stricter than Python where that lets mistakes pass:
 * control characters, malformed escapes in the query, bad ports. A part that is absent or empty
 * is NULL. Texts of errors never quote the string: a password with a "/" in it may be anywhere.
 */
#include "coord/config.h"

#include <stdio.h>

#define URL_MAX 8192

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_alpha(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_control(char c)
{
	return (unsigned char)c < 0x20 || c == 0x7f;
}

/* Lower-cases up to the byte stop. */
static void lower(char *text, char stop)
{
	for (; *text && *text != stop; text++)
		if (*text >= 'A' && *text <= 'Z')
			*text = (char)(*text - 'A' + 'a');
}

static struct coord_bytes slice(const char *begin, const char *end)
{
	return (struct coord_bytes){begin, (size_t)(end - begin)};
}

/* Copies a part; an empty one stays NULL. */
static int keep(char **ret, struct coord_bytes part)
{
	if (part.len == 0)
		return 0;
	*ret = strndup(part.data, part.len);
	return *ret ? 0 : -ENOMEM;
}

/* The first byte of text that is in set, or the end. */
static const char *find_any(struct coord_bytes text, const char *set)
{
	for (size_t i = 0; i < text.len; i++)
		if (strchr(set, text.data[i]))
			return text.data + i;
	return text.data + text.len;
}

static int parse_port(struct coord_bytes digits, uint16_t *ret)
{
	unsigned port = 0;
	for (size_t i = 0; i < digits.len; i++) {
		if (!is_digit(digits.data[i]))
			return -EINVAL;
		port = port * 10 + (unsigned)(digits.data[i] - '0');
		if (port > UINT16_MAX)
			return -EINVAL;
	}
	*ret = (uint16_t)port;
	return 0;
}

/* Splits "host", "host:port" or "[v6]:port". */
static int split_host(struct coord_bytes item, struct coord_bytes *ret_host, uint16_t *ret_port)
{
	const char *end = item.data + item.len, *colon;
	if (item.len > 0 && item.data[0] == '[') {
		const char *close = find_any(item, "]");
		if (close == end || (close + 1 < end && close[1] != ':'))
			return -EINVAL;
		*ret_host = slice(item.data + 1, close);
		colon = close + 1;
	} else {
		colon = find_any(item, ":");
		*ret_host = slice(item.data, colon);
	}
	if (find_any(*ret_host, "[]") != ret_host->data + ret_host->len)
		return -EINVAL;
	return colon < end ? parse_port(slice(colon + 1, end), ret_port) : 0;
}

/* Host and port are the first of the list; the others are checked, and left to the driver. */
static int parse_hosts(struct coord_url *url, struct coord_bytes netloc)
{
	const char *end = netloc.data + netloc.len, *p = netloc.data;
	for (bool first = true;; first = false) {
		const char *comma = find_any(slice(p, end), ",");
		struct coord_bytes host;
		uint16_t port = 0;
		if (split_host(slice(p, comma), &host, &port) < 0)
			return -EINVAL;
		if (first) {
			int r = keep(&url->host, host);
			if (r < 0)
				return r;
			url->port = port;
		}
		if (comma == end)
			break;
		p = comma + 1;
	}
	if (url->host)
		lower(url->host, '%'); /* the case of a zone ("fe80::1%Eth0") counts */
	return 0;
}

/* "user:password@host:port"; the last @ counts. */
static int parse_authority(struct coord_url *url, struct coord_bytes text)
{
	const char *end = text.data + text.len, *at = memrchr(text.data, '@', text.len);
	int r = 0;
	if (at) {
		const char *colon = find_any(slice(text.data, at), ":");
		r = keep(&url->user, slice(text.data, colon));
		if (r == 0 && colon < at)
			r = keep(&url->password, slice(colon + 1, at));
	}
	struct coord_bytes netloc = slice(at ? at + 1 : text.data, end);
	if (r == 0)
		r = keep(&url->netloc, netloc);
	return r < 0 ? r : parse_hosts(url, netloc);
}

static int hex_value(char c)
{
	if (is_digit(c))
		return c - '0';
	if ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'))
		return (c | 0x20) - 'a' + 10;
	return -1;
}

/* Form-decodes: + is a blank, %XX a byte, but no control character. */
static int form_decode(struct coord_bytes text, char **ret)
{
	_cleanup_free_ char *out = malloc(text.len + 1);
	if (!out)
		return -ENOMEM;
	size_t len = 0;
	for (size_t i = 0; i < text.len; i++) {
		char c = text.data[i];
		if (c == '+')
			c = ' ';
		if (c == '%') {
			int high = i + 2 < text.len ? hex_value(text.data[i + 1]) : -1;
			int low = i + 2 < text.len ? hex_value(text.data[i + 2]) : -1;
			if (high < 0 || low < 0)
				return -EINVAL;
			c = (char)(high << 4 | low);
			i += 2;
		}
		if (is_control(c))
			return -EINVAL;
		out[len++] = c;
	}
	out[len] = '\0';
	*ret = out;
	out = NULL;
	return 0;
}

static int parse_option(struct coord_url *url, struct coord_bytes text)
{
	const char *end = text.data + text.len, *equals = find_any(text, "=");
	if (equals == end || equals + 1 == end)
		return 0; /* blank: dropped */
	struct coord_url_option *option = &url->options[url->options_len];
	int r = form_decode(slice(text.data, equals), &option->name);
	if (r == 0)
		r = form_decode(slice(equals + 1, end), &option->value);
	if (r < 0)
		free(option->name);
	else
		url->options_len++;
	return r;
}

static int parse_query(struct coord_url *url, struct coord_bytes query)
{
	size_t most = 1;
	for (size_t i = 0; i < query.len; i++)
		most += query.data[i] == '&';
	url->options = calloc(most, sizeof(*url->options));
	if (!url->options)
		return -ENOMEM;
	const char *end = query.data + query.len;
	for (const char *p = query.data; p < end;) {
		const char *amp = find_any(slice(p, end), "&");
		int r = parse_option(url, slice(p, amp));
		if (r < 0)
			return r;
		p = amp + 1;
	}
	return 0;
}

/* Fills *url, which the caller cleans up. *ret_why says what is wrong. */
static int parse_parts(const char *text, struct coord_url *url, const char **ret_why)
{
	*ret_why = "too long";
	size_t len = strnlen(text, URL_MAX + 1);
	if (len > URL_MAX)
		return -EINVAL;
	*ret_why = "control character";
	for (size_t i = 0; i < len; i++)
		if (is_control(text[i]))
			return -EINVAL;
	*ret_why = "no scheme, as in file:///var/lib/tooz";
	const char *p = text, *end = text + len;
	while (is_alpha(*p) || (p > text && (is_digit(*p) || (*p && strchr("+-.", *p)))))
		p++;
	if (p == text || *p != ':')
		return -EINVAL;
	int r = keep(&url->scheme, slice(text, p++));
	if (r < 0)
		return r;
	lower(url->scheme, '\0');
	if (p[0] == '/' && p[1] == '/') {
		const char *stop = find_any(slice(p + 2, end), "/?#");
		*ret_why = "malformed host or port (a '/', '?' or '#' in a password ends it: "
			   "use credentials=FILE)";
		r = parse_authority(url, slice(p + 2, stop));
		if (r < 0)
			return r;
		p = stop;
	}
	end = find_any(slice(p, end), "#");
	url->fragment = *end == '#';
	const char *query = find_any(slice(p, end), "?");
	r = keep(&url->path, slice(p, query));
	*ret_why = "malformed escape in an option";
	if (r == 0 && query < end)
		r = parse_query(url, slice(query + 1, end));
	return r;
}

int coord_url_parse(const char *text, struct coord_url *ret, char **ret_error)
{
	struct coord_url url = {0};
	const char *why;
	int r = parse_parts(text, &url, &why);
	if (r == 0) {
		*ret = url;
		return 0;
	}
	coord_url_done(&url);
	if (r == -ENOMEM)
		why = "out of memory";
	if (asprintf(ret_error, "malformed URL: %s", why) < 0)
		*ret_error = NULL;
	return r;
}

/* Frees a text that may be a secret. */
static void wipe(char *text)
{
	if (text)
		explicit_bzero(text, strlen(text));
	free(text);
}

void coord_url_done(struct coord_url *url)
{
	if (!url)
		return;
	free(url->scheme);
	free(url->user);
	wipe(url->password);
	free(url->host);
	free(url->path);
	free(url->netloc);
	for (size_t i = 0; i < url->options_len; i++) {
		free(url->options[i].name);
		wipe(url->options[i].value);
	}
	free(url->options);
	*url = (struct coord_url){0};
}

/* Only what a table knows, and knows to be no secret, is shown. */
static bool showable(const char *name, const struct coord_param *params)
{
	const struct coord_param *tables[] = {params, coord_common_params};
	for (size_t i = 0; i < 2; i++)
		for (const struct coord_param *p = tables[i]; p && p->name; p++)
			if (strcmp(p->name, name) == 0)
				return !(p->flags & COORD_PARAM_SECRET);
	return false;
}

static void put_encoded(FILE *out, const char *text)
{
	for (; *text; text++) {
		bool safe = is_alpha(*text) || is_digit(*text) || strchr("-._~*/:@,[]", *text);
		fprintf(out, safe ? "%c" : "%%%02X", (unsigned char)*text);
	}
}

char *coord_url_scrub(const struct coord_url *url, const struct coord_param *params)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);
	if (!out)
		return NULL;
	bool authority = url->netloc || url->user || !url->path || url->path[0] == '/';
	fprintf(out, "%s:%s%s%s%s%s", url->scheme, authority ? "//" : "",
		url->user ? url->user : "", url->user ? "@" : "", url->netloc ? url->netloc : "",
		url->path ? url->path : "");
	for (size_t i = 0; i < url->options_len; i++) {
		putc(i ? '&' : '?', out);
		put_encoded(out, url->options[i].name);
		putc('=', out);
		put_encoded(out,
			showable(url->options[i].name, params) ? url->options[i].value : "***");
	}
	bool failed = ferror(out);
	if (fclose(out) != 0 || failed) {
		free(text);
		return NULL;
	}
	return text;
}
