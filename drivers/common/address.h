/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses and descriptors of streams. For drivers/common/ alone.
 */
#ifndef DRIVERS_ADDRESS_H
#define DRIVERS_ADDRESS_H

#include "drivers/common/stream.h"

struct stream_address {
	struct sockaddr_storage name;
	socklen_t len;
};

/* Copies the target's path or addresses, at most 16. Returns 0, -ENOMEM, -ENAMETOOLONG (of a path) or
 * -EADDRNOTAVAIL (none). *ret, also on the last two, is the caller's to free. */
int stream_copy_addresses(
	const struct stream_target *, struct stream_address **ret, size_t *ret_len);
/* What became of a connect: 0 or -errno. Takes a pending error from the descriptor. */
int stream_connect_result(int fd);
/* For TCP: no delay, and how a dead peer is noticed. */
void stream_set_options(int fd, uint64_t timeout_ms, bool keepalive);

#endif
