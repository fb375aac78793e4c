/* SPDX-License-Identifier: Apache-2.0 */
/* Lists of servers. See hosts.h. */
#include "drivers/zookeeper/hosts.h"

#include <netdb.h>
#include <stdio.h>

#include "coord/loop_uv.h"

#define PORT "2181"

static int port_check(const char *text, size_t len)
{
	unsigned long port = 0;
	if (len == 0 || len > 5)
		return -EINVAL;
	for (size_t i = 0; i < len; i++) {
		if (text[i] < '0' || text[i] > '9')
			return -EINVAL;
		port = port * 10 + (unsigned long)(text[i] - '0');
	}
	return port >= 1 && port <= 65535 ? 0 : -EINVAL;
}

static int host_add(struct zk_hosts *hosts, const char *text, size_t len)
{
	const char *end = text + len, *name = text, *name_end = end, *port = NULL;
	if (len && *text == '[') {
		name = text + 1;
		name_end = memchr(text, ']', len);
		if (!name_end || (name_end + 1 < end && name_end[1] != ':'))
			return -EINVAL;
		if (name_end + 1 < end)
			port = name_end + 2;
	} else {
		const char *colon = memchr(text, ':', len);
		if (colon && memchr(colon + 1, ':', (size_t)(end - colon - 1)))
			colon = NULL; /* a bare IPv6 address */
		if (colon) {
			name_end = colon;
			port = colon + 1;
		}
	}
	if (name == name_end || name_end - name > 255 || hosts->len == ZK_HOSTS_MAX)
		return -EINVAL;
	if (port && port_check(port, (size_t)(end - port)))
		return -EINVAL;
	struct zk_host *list = realloc(hosts->list, (hosts->len + 1) * sizeof(*list));
	if (!list)
		return -ENOMEM;
	hosts->list = list;
	struct zk_host *host = &list[hosts->len];
	host->name = strndup(name, (size_t)(name_end - name));
	if (!host->name)
		return -ENOMEM;
	snprintf(host->port, sizeof(host->port), "%.*s", port ? (int)(end - port) : 4,
		port ? port : PORT);
	hosts->len++;
	return 0;
}

int zk_hosts_add(struct zk_hosts *hosts, const char *text)
{
	const char *slash = strchr(text, '/');
	const char *end = slash ? slash : text + strlen(text);
	if (slash && slash[1]) {
		if (hosts->chroot)
			return -EINVAL;
		hosts->chroot = strdup(slash);
		if (!hosts->chroot)
			return -ENOMEM;
	}
	while (text < end) {
		const char *comma = memchr(text, ',', (size_t)(end - text));
		const char *stop = comma ? comma : end;
		while (text < stop && *text == ' ')
			text++;
		int r = text < stop ? host_add(hosts, text, (size_t)(stop - text)) : 0;
		if (r)
			return r;
		text = comma ? comma + 1 : end;
	}
	return 0;
}

void zk_hosts_done(struct zk_hosts *hosts)
{
	for (size_t i = 0; i < hosts->len; i++)
		free(hosts->list[i].name);
	free(hosts->list);
	free(hosts->chroot);
	*hosts = (struct zk_hosts){0};
}

char *zk_hosts_text(const struct zk_hosts *hosts)
{
	char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);
	if (!out)
		return NULL;
	for (size_t i = 0; i < hosts->len; i++) {
		bool six = strchr(hosts->list[i].name, ':');
		fprintf(out, "%s%s%s%s:%s", i ? "," : "", six ? "[" : "", hosts->list[i].name,
			six ? "]" : "", hosts->list[i].port);
	}
	fclose(out);
	return text;
}

struct zk_resolving {
	void (*fn)(void *user, const char *addresses, const char *why);
	void *user;
	size_t left; /* answers still to come */
	bool dropped;
	char *addresses;
	char why[200];
};

static void resolving_end(struct zk_resolving *resolving)
{
	if (--resolving->left > 0)
		return;
	if (!resolving->dropped)
		resolving->fn(resolving->user, resolving->addresses, resolving->why);
	free(resolving->addresses);
	free(resolving);
}

/* The library cuts the port off behind the last colon and wants no brackets. */
static void address_add(struct zk_resolving *resolving, const struct addrinfo *info)
{
	char host[NI_MAXHOST], port[NI_MAXSERV], *more;
	if (getnameinfo(info->ai_addr, info->ai_addrlen, host, sizeof(host), port, sizeof(port),
		    NI_NUMERICHOST | NI_NUMERICSERV))
		return;
	const char *old = resolving->addresses;
	if (asprintf(&more, "%s%s%s:%s", old ? old : "", old ? "," : "", host, port) < 0)
		return;
	free(resolving->addresses);
	resolving->addresses = more;
}

static void resolved(void *user, int status, const char *text, const struct addrinfo *list)
{
	struct zk_resolving *resolving = user;
	if (status < 0)
		snprintf(resolving->why, sizeof(resolving->why), "%s", text ? text : "no address");
	for (size_t n = 0; list && n < ZK_HOSTS_MAX; list = list->ai_next, n++)
		if (list->ai_family == AF_INET || list->ai_family == AF_INET6)
			address_add(resolving, list);
	resolving_end(resolving);
}

int zk_hosts_resolve(struct coord_loop *loop, const struct zk_hosts *hosts,
	void (*fn)(void *user, const char *addresses, const char *why), void *user,
	struct zk_resolving **ret)
{
	struct zk_resolving *resolving = calloc(1, sizeof(*resolving));
	if (!resolving)
		return -ENOMEM;
	*resolving = (struct zk_resolving){.fn = fn, .user = user};
	for (size_t i = 0; i < hosts->len; i++)
		if (coord_resolve(loop, hosts->list[i].name, hosts->list[i].port, resolved,
			    resolving) == 0)
			resolving->left++;
	if (resolving->left == 0) {
		free(resolving);
		return -EHOSTUNREACH;
	}
	*ret = resolving;
	return 0;
}

void zk_resolving_drop(struct zk_resolving *resolving)
{
	if (resolving)
		resolving->dropped = true;
}
