/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a lock costs at the least on a ZooKeeper server: a program that waits in poll(2) for the
 * single-threaded client, with nothing around it.
 *
 *   floor_zookeeper PORT DIR SECONDS      prints pairs of acquire and release a second, and how many
 *
 * The requests are those of the driver: create (with the node's data) and getChildren pipelined, then delete. But
 * this waits for the answer to each, while on a mount an unlock is answered when it is on its way.
 */
#include <zookeeper/zookeeper.h>

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int waiting, failed;
static char created[512];

static double now_s(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

static void answered(int rc, const void *may)
{
	waiting--;
	if (rc != ZOK && !(may && rc == ZNODEEXISTS)) {
		fprintf(stderr, "floor_zookeeper: %s\n", zerror(rc));
		failed = 1;
	}
}

static void on_created(int rc, const char *value, const struct Stat *stat, const void *may)
{
	if (rc == ZOK)
		snprintf(created, sizeof(created), "%s", value);
	answered(rc, may);
}

static void on_children(int rc, const struct String_vector *strings, const void *data)
{
	if (rc == ZOK && strings->count != 1)
		rc = ZBADARGUMENTS;
	answered(rc, NULL);
}

static void on_deleted(int rc, const void *data)
{
	answered(rc, NULL);
}

static void on_event(zhandle_t *zh, int type, int state, const char *path, void *context)
{
}

static void turn(zhandle_t *zh)
{
	struct timeval tv;
	int fd, interest;
	if (zookeeper_interest(zh, &fd, &interest, &tv) != ZOK || fd < 0) {
		poll(NULL, 0, 1);
		zookeeper_process(zh, 0);
		return;
	}
	struct pollfd p = {.fd = fd,
		.events = (short)((interest & ZOOKEEPER_READ ? POLLIN : 0) |
				  (interest & ZOOKEEPER_WRITE ? POLLOUT : 0))};
	poll(&p, 1, (int)(tv.tv_sec * 1000 + tv.tv_usec / 1000));
	int events = (p.revents & POLLIN ? ZOOKEEPER_READ : 0) |
		     (p.revents & (POLLOUT | POLLERR | POLLHUP) ? ZOOKEEPER_WRITE : 0);
	if (events)
		zookeeper_process(zh, events);
}

static void wait_all(zhandle_t *zh)
{
	double end = now_s() + 10;
	while (waiting && !failed && now_s() < end)
		turn(zh);
	if (waiting || failed)
		exit(1);
}

static void make(zhandle_t *zh, const char *path)
{
	waiting++;
	zoo_acreate2(zh, path, "", 0, &ZOO_OPEN_ACL_UNSAFE, 0, on_created, "may be there");
	wait_all(zh);
}

static void pair(zhandle_t *zh, const char *dir)
{
	char path[512];
	snprintf(path, sizeof(path), "%s/0123456789abcdef0123456789abcdef__lock__", dir);
	waiting += 2;
	zoo_acreate2(zh, path, "floor", 5, &ZOO_OPEN_ACL_UNSAFE, ZOO_EPHEMERAL | ZOO_SEQUENCE,
		on_created, NULL);
	zoo_aget_children(zh, dir, 0, on_children, NULL);
	wait_all(zh);
	waiting++;
	zoo_adelete(zh, created, -1, on_deleted, NULL);
	wait_all(zh);
}

int main(int argc, char **argv)
{
	char host[64], parent[256];
	unsigned count = 0;
	if (argc != 4 || strlen(argv[2]) >= sizeof(parent))
		return 2;
	snprintf(host, sizeof(host), "127.0.0.1:%s", argv[1]);
	zoo_set_debug_level(ZOO_LOG_LEVEL_ERROR);
	zhandle_t *zh = zookeeper_init(host, on_event, 10000, NULL, NULL, 0);
	if (!zh)
		return 1;
	double limit = now_s() + 10;
	while (zoo_state(zh) != ZOO_CONNECTED_STATE && now_s() < limit)
		turn(zh);
	for (char *slash = strchr(argv[2] + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		snprintf(parent, sizeof(parent), "%.*s", (int)(slash - argv[2]), argv[2]);
		make(zh, parent);
	}
	make(zh, argv[2]);
	double start = now_s(), end = start + strtod(argv[3], NULL), now;
	do {
		pair(zh, argv[2]);
		count++;
		now = now_s();
	} while (now < end);
	printf("%.1f %u\n", count / (now - start), count);
	zookeeper_close(zh);
	return 0;
}
