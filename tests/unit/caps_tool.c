/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The codec on standard input, for tests in other languages. Each line is a letter, a blank and bytes
 * in hex; each answer is a number and bytes in hex: "e" encodes text, "d" decodes msgpack (0 or
 * -errno), "l" looks (the kind of text; no bytes).
 */
#include "coord/caps.h"

#include <stdio.h>

static int nibble(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static size_t from_hex(const char *text, char *ret)
{
	size_t len = 0;
	for (; nibble(text[0]) >= 0 && nibble(text[1]) >= 0; text += 2)
		ret[len++] = (char)(nibble(text[0]) << 4 | nibble(text[1]));
	return len;
}

static void answer(int status, const char *data, size_t len)
{
	printf("%d ", status);
	for (size_t i = 0; i < len; i++)
		printf("%02x", (unsigned char)data[i]);
	printf("\n");
}

int main(void)
{
	_cleanup_free_ char *line = NULL;
	size_t size = 0;
	ssize_t line_len;
	while ((line_len = getline(&line, &size, stdin)) > 2) {
		_cleanup_free_ char *data = malloc((size_t)line_len), *out = NULL;
		if (!data)
			return 1;
		struct coord_bytes bytes = {data, from_hex(line + 2, data)};
		size_t len = 0;
		int status;
		if (line[0] == 'e')
			status = coord_caps_encode(bytes, &out, &len);
		else if (line[0] == 'd')
			status = coord_caps_decode(bytes, &out, &len);
		else
			status = (int)coord_caps_look(bytes, NULL);
		answer(status, out, status < 0 ? 0 : len);
	}
	return 0;
}
