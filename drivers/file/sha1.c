/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-1 (FIPS 180-4), which tooz's file names are made with. Not for security. */
#include "drivers/file/format.h"

#include <stdio.h>

static uint32_t rotate(uint32_t x, unsigned n)
{
	return x << n | x >> (32 - n);
}

static uint32_t mix(unsigned i, const uint32_t s[5])
{
	if (i < 20)
		return ((s[1] & s[2]) | (~s[1] & s[3])) + 0x5a827999;
	if (i < 40)
		return (s[1] ^ s[2] ^ s[3]) + 0x6ed9eba1;
	if (i < 60)
		return ((s[1] & s[2]) | (s[1] & s[3]) | (s[2] & s[3])) + 0x8f1bbcdc;
	return (s[1] ^ s[2] ^ s[3]) + 0xca62c1d6;
}

static void block(uint32_t state[5], const uint8_t *data)
{
	uint32_t w[80], s[5];
	for (unsigned i = 0; i < 16; i++)
		w[i] = (uint32_t)data[4 * i] << 24 | (uint32_t)data[4 * i + 1] << 16 |
		       (uint32_t)data[4 * i + 2] << 8 | data[4 * i + 3];
	for (unsigned i = 16; i < 80; i++)
		w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
	memcpy(s, state, sizeof(s));
	for (unsigned i = 0; i < 80; i++) {
		uint32_t next = rotate(s[0], 5) + mix(i, s) + s[4] + w[i];
		s[4] = s[3];
		s[3] = s[2];
		s[2] = rotate(s[1], 30);
		s[1] = s[0];
		s[0] = next;
	}
	for (unsigned i = 0; i < 5; i++)
		state[i] += s[i];
}

void file_hash(struct coord_bytes data, char ret[FILE_HASH_SIZE])
{
	uint32_t state[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
	const uint8_t *bytes = (const uint8_t *)data.data;
	size_t whole = data.len / 64 * 64, rest = data.len - whole;
	for (size_t at = 0; at < whole; at += 64)
		block(state, bytes + at);
	uint8_t last[128] = {0};
	if (rest)
		memcpy(last, bytes + whole, rest);
	last[rest] = 0x80;
	size_t padded = rest < 56 ? 64 : 128;
	for (unsigned i = 0; i < 8; i++)
		last[padded - 1 - i] = (uint8_t)((uint64_t)data.len * 8 >> (8 * i));
	for (size_t at = 0; at < padded; at += 64)
		block(state, last + at);
	for (unsigned i = 0; i < 5; i++)
		sprintf(ret + 8 * i, "%08x", state[i]);
}
