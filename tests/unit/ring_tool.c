/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hash ring on standard input, for tests in other languages; all bytes are in hex. "r PARTITIONS" begins
 * a ring, "m NAME CAPABILITIES" adds a member to the next one ("m" and two blanks: an empty name), and "o
 * OBJECT" answers with the members in order of preference, separated by blanks.
 * From the second on a ring of the same partitions is made from the one before.
 */
#include "coord/caps.h"
#include "coord/ring.h"

#include <stdio.h>

enum { MEMBERS_MAX = 256 };

static struct state {
	struct coord_ring_member members[MEMBERS_MAX];
	size_t len;
	uint32_t partitions, before_partitions;
	bool stale;
	struct coord_ring *ring;
} state;

static int nibble(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A malloced piece; *text is left behind it. */
static struct coord_bytes from_hex(const char **text)
{
	char *data = malloc(strlen(*text) / 2 + 1);
	size_t len = 0;
	if (!data)
		abort();
	for (; nibble((*text)[0]) >= 0 && nibble((*text)[1]) >= 0; *text += 2)
		data[len++] = (char)(nibble((*text)[0]) << 4 | nibble((*text)[1]));
	return (struct coord_bytes){data, len};
}

static void begin(const char *text)
{
	for (size_t i = 0; i < state.len; i++)
		free((char *)state.members[i].name.data);
	state.len = 0;
	state.partitions = (uint32_t)strtoul(text, NULL, 10);
	state.stale = true;
}

static void add(const char *text)
{
	if (state.len == MEMBERS_MAX)
		abort();
	struct coord_ring_member *member = &state.members[state.len++];
	member->name = from_hex(&text);
	text++;
	struct coord_bytes caps = from_hex(&text);
	member->weight = coord_caps_weight(caps);
	free((char *)caps.data);
}

static void build(void)
{
	struct coord_ring *ring;
	bool same = state.partitions == state.before_partitions;
	if (coord_ring_new(state.members, state.len, state.partitions, same ? state.ring : NULL,
		    &ring) < 0)
		abort();
	coord_ring_free(state.ring);
	state.ring = ring;
	state.before_partitions = state.partitions;
	state.stale = false;
}

static void look_up(const char *text)
{
	uint32_t found[MEMBERS_MAX];
	struct coord_bytes object = from_hex(&text);
	if (state.stale)
		build();
	size_t len = coord_ring_prefer(state.ring, object, found, MEMBERS_MAX);
	for (size_t i = 0; i < len; i++) {
		struct coord_bytes name = coord_ring_name(state.ring, found[i]);
		for (size_t j = 0; j < name.len; j++)
			printf("%02x", (unsigned char)name.data[j]);
		putchar(i + 1 < len ? ' ' : '\n');
	}
	if (len == 0)
		putchar('\n');
	free((char *)object.data);
}

int main(void)
{
	_cleanup_free_ char *line = NULL;
	size_t size = 0;
	while (getline(&line, &size, stdin) > 2) {
		if (line[0] == 'r')
			begin(line + 2);
		else if (line[0] == 'm')
			add(line + 2);
		else
			look_up(line + 2);
	}
	begin("1");
	coord_ring_free(state.ring);
	return 0;
}
