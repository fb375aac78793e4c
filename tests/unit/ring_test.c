/* SPDX-License-Identifier: Apache-2.0 */
/* The hash ring: points and owners that tooz's own ring has, limits, and rings made from others. */
#include "coord/caps.h"
#include "coord/ring.h"
#include "tests/unit/unit.h"

#include <stdio.h>

enum { MANY = 64 };

/* "name" or "name:weight", separated by blanks; of an owner only the text. */
static size_t parse(char *text, struct coord_ring_member *ret)
{
	size_t len = 0;
	for (char *word; (word = strsep(&text, " "));) {
		char *colon = strchr(word, ':');
		if (colon)
			*colon = '\0';
		ret[len++] = (struct coord_ring_member){
			coord_bytes_of(word), colon ? strtoull(colon + 1, NULL, 10) : 1};
	}
	return len;
}

static struct coord_ring *make(
	const char *members, uint32_t partitions, const struct coord_ring *before)
{
	char text[1024];
	struct coord_ring_member list[MANY];
	struct coord_ring *ring = NULL;
	snprintf(text, sizeof(text), "%s", members);
	size_t len = *members ? parse(text, list) : 0;
	assert_int_equal(coord_ring_new(list, len, partitions, before, &ring), 0);
	return ring;
}

/* The first max in order of preference, separated by blanks. */
static void prefer(struct coord_ring *ring, struct coord_bytes object, size_t max, char ret[1024])
{
	uint32_t found[MANY];
	size_t len = coord_ring_prefer(ring, object, found, max), used = 0;
	ret[0] = '\0';
	for (size_t i = 0; i < len; i++) {
		struct coord_bytes name = coord_ring_name(ring, found[i]);
		used += (size_t)snprintf(
			ret + used, 1024 - used, "%s%.*s", i ? " " : "", (int)name.len, name.data);
	}
}

/* From tooz 8.1: members, partitions, object, and how the answer begins. */
static void test_tooz(void **state)
{
	static const struct {
		const char *members;
		uint32_t partitions;
		struct coord_bytes object;
		const char *owners;
		size_t points;
	} known[] = {
		{"memA memB", 32, {"hello", 5}, "memA", 64},
		{"memA memB memC", 32, {"object-1", 8}, "memB", 96},
		{"memA memB memC", 32, {"object-2", 8}, "memC memA", 96},
		{"memA memB:2 memC:3", 32, {"object-3", 8}, "memB", 192},
		{"node-1 node-2", 32, {"\0\xff", 2}, "node-1", 64},
		{"memA memB memC", 8, {"object-1", 8}, "memA", 24},
		{"memA memB memC", 32, {"42", 2}, "memB", 96},
		{"a:5 b", 32, {"42", 2}, "b", 192},
		{"memA memB memC", 32, {"wrap-56", 7}, "memC", 96},
	};
	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++) {
		char owners[1024];
		struct coord_ring *ring = make(known[i].members, known[i].partitions, NULL);
		size_t replicas = strchr(known[i].owners, ' ') ? 2 : 1;
		prefer(ring, known[i].object, replicas, owners);
		assert_string_equal(owners, known[i].owners);
		assert_int_equal(coord_ring_points(ring), known[i].points);
		coord_ring_free(ring);
	}
}

static void test_every_member_once(void **state)
{
	uint32_t found[MANY];
	struct coord_ring *ring = make("a b:3 c d:2 e f g", 4, NULL);
	assert_int_equal(coord_ring_len(ring), 7);
	for (int i = 0; i < 500; i++) {
		char object[20];
		unsigned seen = 0;
		snprintf(object, sizeof(object), "object-%d", i);
		assert_int_equal(coord_ring_prefer(ring, coord_bytes_of(object), found, MANY), 7);
		for (int j = 0; j < 7; j++)
			seen |= 1u << found[j];
		assert_int_equal(seen, 127);
		uint32_t owner;
		assert_int_equal(coord_ring_prefer(ring, coord_bytes_of(object), &owner, 1), 1);
		assert_int_equal(owner, found[0]);
	}
	coord_ring_free(ring);
}

static void test_nobody(void **state)
{
	uint32_t found;
	struct coord_ring *ring = make("", 32, NULL);
	assert_int_equal(coord_ring_prefer(ring, COORD_BYTES("x"), &found, 1), 0);
	coord_ring_free(ring);
	ring = make("a:0 b:0", 32, NULL);
	assert_int_equal(coord_ring_prefer(ring, COORD_BYTES("x"), &found, 1), 0);
	coord_ring_free(ring);
}

static void test_weight_zero_is_not_on_it(void **state)
{
	char owners[1024];
	struct coord_ring *ring = make("a b:0 c", 32, NULL);
	for (int i = 0; i < 100; i++) {
		char object[20];
		snprintf(object, sizeof(object), "%d", i);
		prefer(ring, coord_bytes_of(object), MANY, owners);
		assert_true(!strcmp(owners, "a c") || !strcmp(owners, "c a"));
	}
	coord_ring_free(ring);
}

/* A ring made from another answers as one that was made from nothing. */
static void test_from_another(void **state)
{
	static const char *const steps[] = {"", "m", "a m z", "a m:2 z", "m:2 z", "b c d e", "",
		"b c", "b:0 c", "b c", "aa b bb c cc", "z"};
	struct coord_ring *last = NULL;
	for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
		struct coord_ring *fresh = make(steps[i], 32, NULL);
		struct coord_ring *next = make(steps[i], 32, last);
		assert_int_equal(coord_ring_points(fresh), coord_ring_points(next));
		for (int j = 0; j < 200; j++) {
			char object[20], one[1024], two[1024];
			snprintf(object, sizeof(object), "%d", j);
			prefer(fresh, coord_bytes_of(object), MANY, one);
			prefer(next, coord_bytes_of(object), MANY, two);
			assert_string_equal(one, two);
		}
		coord_ring_free(fresh);
		coord_ring_free(last);
		last = next;
	}
	coord_ring_free(last);
}

static int try_one(struct coord_bytes name, uint64_t weight, uint32_t partitions)
{
	struct coord_ring *ring = NULL;
	const struct coord_ring_member members[] = {{name, weight}, {COORD_BYTES("other"), 1}};
	int r = coord_ring_new(members, 2, partitions, NULL, &ring);
	assert_true((r == 0) == (ring != NULL));
	coord_ring_free(ring);
	return r;
}

static void test_limits(void **state)
{
	const uint64_t most = COORD_RING_POINTS_MAX / 32 - 1;
	assert_int_equal(try_one(COORD_BYTES("m"), most, 32), 0);
	assert_int_equal(try_one(COORD_BYTES("m"), most + 1, 32), -EFBIG);
	assert_int_equal(try_one(COORD_BYTES("m"), UINT64_MAX, 1), -EFBIG);
	assert_int_equal(try_one(COORD_BYTES("m"), UINT64_MAX / 32 + 2, 32), -EFBIG);
	assert_int_equal(try_one(COORD_BYTES("m"), 1, COORD_RING_POINTS_MAX), -EFBIG);
	size_t len = COORD_RING_HASHED_MAX / 33 - 1000;
	char *name = calloc(1, 2 * len);
	assert_non_null(name);
	assert_int_equal(try_one((struct coord_bytes){name, len}, 1, 32), 0);
	assert_int_equal(try_one((struct coord_bytes){name, 2 * len}, 1, 32), -EFBIG);
	assert_int_equal(try_one((struct coord_bytes){name, 2 * len}, 0, 32), 0);
	free(name);
	assert_int_equal(try_one(COORD_BYTES(""), 1, 32), 0);
}

static void test_weights(void **state)
{
	static const struct {
		struct coord_bytes data;
		uint64_t weight;
	} known[] = {
		{COORD_BYTES("\x81\xa6weight\x02"), 2},
		{COORD_BYTES("\x81\xa6weight\xce\x00\x01\x00\x00"), 65536},
		{COORD_BYTES("\x81\xa6weight\xcf\xff\xff\xff\xff\xff\xff\xff\xff"), UINT64_MAX},
		{COORD_BYTES("\x81\xa6weight\xd3\x00\x00\x00\x00\x00\x00\x00\x07"), 7},
		{COORD_BYTES("\x81\xd9\x06weight\x02"), 2},
		{COORD_BYTES("\x81\xa6weight\x00"), 0},
		{COORD_BYTES("\x81\xa6weight\xff"), 0},
		{COORD_BYTES("\x81\xa6weight\xd3\x80\x00\x00\x00\x00\x00\x00\x00"), 0},
		{COORD_BYTES("\x81\xa6weight\xc2"), 0},
		{COORD_BYTES("\x81\xa6weight\xc3"), 1},
		{COORD_BYTES("\x81\xa6weight\xc0"), 1},
		{COORD_BYTES("\x81\xa6weight\xa1"
			     "5"),
			1},
		{COORD_BYTES("\x81\xa6weight\xcb\x40\x14\x00\x00\x00\x00\x00\x00"), 1},
		{COORD_BYTES("\x81\xa6weight\x91\x05"), 1},
		{COORD_BYTES("\x81\xc4\x06weight\x05"), 1}, /* bytes are another key than text */
		{COORD_BYTES("\x81\xa6Weight\x05"), 1},
		{COORD_BYTES("\x82\xa6weight\x05\xa6weight\x06"), 6},
		{COORD_BYTES("\x82\xa6weight\x05\xa6weight\xc0"), 1},
		{COORD_BYTES("\x82\xa1"
			     "a\x81\xa6weight\x09\xa6weight\x03"),
			3}, /* the one inside is not ours */
		{COORD_BYTES("\x81\xa1"
			     "a\x81\xa6weight\x09"),
			1},
		{COORD_BYTES("\x80"), 1},
		{COORD_BYTES("\xc0"), 1},
		{COORD_BYTES("\xa6weight"), 1},
		{COORD_BYTES("\x92\xa6weight\x05"), 1},
		{COORD_BYTES("\xc4\x00"), 1},
		{COORD_BYTES(""), 1},
		{COORD_BYTES("\x81\xa6weight\x05\x00"), 1}, /* bytes after its end */
		{COORD_BYTES("\x82\xa6weight\x05"), 1}, /* cut off */
		{COORD_BYTES("\x81\xa6weigh"), 1},
		{COORD_BYTES("\xdf\xff\xff\xff\xff"), 1},
	};
	for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
		assert_int_equal(coord_caps_weight(known[i].data), known[i].weight);
	assert_int_equal(coord_caps_weight((struct coord_bytes){NULL, 0}), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tooz),
		cmocka_unit_test(test_every_member_once),
		cmocka_unit_test(test_nobody),
		cmocka_unit_test(test_weight_zero_is_not_on_it),
		cmocka_unit_test(test_from_another),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_weights),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
