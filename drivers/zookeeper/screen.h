/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looks at each frame of a server while it is still in the socket, and lets the client library read it only if
 * it makes sense (frames.h): the library reads one frame at a call.
 */
#ifndef ZK_SCREEN_H
#define ZK_SCREEN_H

#include "drivers/zookeeper/conn.h"

/* Before the library is told that it can read. False: not yet. Where what is there makes no sense the connection
 * is ended, and the library may read that. */
bool zk_screen(struct zk_conn *);
/* The socket counts as readable when it has so many bytes. */
void zk_screen_wake(struct zk_conn *, int bytes);

#endif
