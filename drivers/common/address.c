/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses and descriptors of streams. See address.h. */
#include "drivers/common/address.h"

#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/un.h>

enum { ADDRESSES_MAX = 16 };

static int copy_path(const char *path, struct stream_address *ret)
{
	struct sockaddr_un *name = (struct sockaddr_un *)&ret->name;
	if (strlen(path) >= sizeof(name->sun_path))
		return -ENAMETOOLONG;
	name->sun_family = AF_UNIX;
	memcpy(name->sun_path, path, strlen(path) + 1);
	ret->len = sizeof(*name);
	return 0;
}

static size_t copy_list(const struct addrinfo *list, struct stream_address *ret)
{
	size_t n = 0;
	for (; list && n < ADDRESSES_MAX; list = list->ai_next) {
		if (list->ai_addrlen > sizeof(ret[n].name))
			continue;
		memcpy(&ret[n].name, list->ai_addr, list->ai_addrlen);
		ret[n++].len = list->ai_addrlen;
	}
	return n;
}

int stream_copy_addresses(
	const struct stream_target *target, struct stream_address **ret, size_t *ret_len)
{
	struct stream_address *addresses = calloc(ADDRESSES_MAX, sizeof(*addresses));
	if (!addresses)
		return -ENOMEM;
	*ret = addresses;
	*ret_len = 0;
	if (!target->path) {
		*ret_len = copy_list(target->addresses, addresses);
		return *ret_len ? 0 : -EADDRNOTAVAIL;
	}
	int r = copy_path(target->path, addresses);
	*ret_len = r == 0;
	return r;
}

/* Without a listener, a connection to a local port may meet itself. */
static bool met_itself(int fd)
{
	struct sockaddr_storage here = {0}, there = {0};
	socklen_t here_len = sizeof(here), there_len = sizeof(there);
	if (getsockname(fd, (struct sockaddr *)&here, &here_len) < 0 ||
		getpeername(fd, (struct sockaddr *)&there, &there_len) < 0)
		return false;
	return here.ss_family != AF_UNIX && here_len == there_len &&
	       memcmp(&here, &there, here_len) == 0;
}

int stream_connect_result(int fd)
{
	int error = 0;
	socklen_t len = sizeof(error);
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		return -errno;
	if (error)
		return -error;
	return met_itself(fd) ? -ECONNREFUSED : 0;
}

/* Best effort: without these a dead peer is found by the owner's time limits alone. */
void stream_set_options(int fd, uint64_t timeout_ms, bool keepalive)
{
	int yes = 1;
	unsigned timeout = timeout_ms < INT_MAX ? (unsigned)timeout_ms : 0;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
	if (timeout)
		setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof(timeout));
	if (!keepalive)
		return;
	int seconds = timeout >= 2000 ? (int)(timeout / 2000) : 1;
	if (!timeout || seconds > 60)
		seconds = 60;
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof(yes));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &seconds, sizeof(seconds));
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &seconds, sizeof(seconds));
}
