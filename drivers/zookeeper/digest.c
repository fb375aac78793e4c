/* SPDX-License-Identifier: Apache-2.0 */
/* The identity in ZooKeeper's digest ACLs: SHA-1 (FIPS 180-4) in base64. The scheme demands it. */
#include "drivers/zookeeper/paths.h"

#include <stdio.h>

struct sha1 {
	uint32_t h[5];
};

static uint32_t left(uint32_t value, unsigned by)
{
	return value << by | value >> (32 - by);
}

static void sha1_chunk(struct sha1 *sha, const uint8_t chunk[64])
{
	uint32_t w[16];
	for (unsigned i = 0; i < 16; i++)
		w[i] = (uint32_t)chunk[4 * i] << 24 | (uint32_t)chunk[4 * i + 1] << 16 |
		       (uint32_t)chunk[4 * i + 2] << 8 | chunk[4 * i + 3];
	uint32_t a = sha->h[0], b = sha->h[1], c = sha->h[2], d = sha->h[3], e = sha->h[4];
	for (unsigned t = 0; t < 80; t++) {
		uint32_t *word = &w[t % 16];
		if (t >= 16)
			*word = left(
				w[(t + 13) % 16] ^ w[(t + 8) % 16] ^ w[(t + 2) % 16] ^ *word, 1);
		uint32_t f = t < 20   ? (d ^ (b & (c ^ d))) + 0x5a827999
			     : t < 40 ? (b ^ c ^ d) + 0x6ed9eba1
			     : t < 60 ? ((b & c) | (d & (b | c))) + 0x8f1bbcdc
				      : (b ^ c ^ d) + 0xca62c1d6;
		uint32_t sum = left(a, 5) + f + e + *word;
		e = d;
		d = c;
		c = left(b, 30);
		b = a;
		a = sum;
	}
	const uint32_t add[5] = {a, b, c, d, e};
	for (unsigned i = 0; i < 5; i++)
		sha->h[i] += add[i];
}

static void sha1(struct coord_bytes text, uint8_t ret[20])
{
	struct sha1 sha = {{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0}};
	const uint8_t *data = (const uint8_t *)text.data;
	size_t at = 0;
	for (; text.len - at >= 64; at += 64)
		sha1_chunk(&sha, data + at);
	uint8_t tail[128] = {0};
	size_t rest = text.len - at, len = rest < 56 ? 64 : 128;
	if (rest)
		memcpy(tail, data + at, rest);
	tail[rest] = 0x80;
	for (unsigned i = 0; i < 8; i++)
		tail[len - 8 + i] = (uint8_t)((uint64_t)text.len << 3 >> (56 - 8 * i));
	for (at = 0; at < len; at += 64)
		sha1_chunk(&sha, tail + at);
	for (unsigned i = 0; i < 20; i++)
		ret[i] = (uint8_t)(sha.h[i / 4] >> (24 - 8 * (i % 4)));
}

void zk_digest(struct coord_bytes text, char ret[ZK_DIGEST_MAX])
{
	static const char letters[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	uint8_t hash[21] = {0};
	sha1(text, hash);
	for (unsigned i = 0; i < 7; i++) {
		uint32_t three = (uint32_t)hash[3 * i] << 16 | (uint32_t)hash[3 * i + 1] << 8 |
				 hash[3 * i + 2];
		for (unsigned k = 0; k < 4; k++)
			ret[4 * i + k] = letters[three >> (18 - 6 * k) & 63];
	}
	/* 20 bytes are 27 letters. */
	ret[27] = '=';
	ret[28] = '\0';
}

char *zk_digest_id(const char *user, const char *password)
{
	char digest[ZK_DIGEST_MAX], *ret;
	_cleanup_free_ char *both = NULL;
	if (asprintf(&both, "%s:%s", user, password) < 0)
		return NULL;
	zk_digest(coord_bytes_of(both), digest);
	size_t len = strlen(both);
	int r = asprintf(&ret, "%s:%s", user, digest);
	explicit_bzero(both, len);
	return r < 0 ? NULL : ret;
}
