/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Names in the backend <-> file names, and the one way times are written.
 *
 * The mapping is a bijection between all names whose file name fits and the file names that
 * coord_name_decode() accepts: what needs no escape must not have one, and hex is in upper case.
 */
#include "coord/names.h"

#include <stdio.h>
#include <time.h>

static const char hex_digits[] = "0123456789ABCDEF";

/* Has this byte to be escaped, at this place? A leading dot has: it would hide the file, and the names
 * "." and ".." belong to the directory. */
static bool must_escape(unsigned char byte, bool first)
{
	return byte < 0x20 || byte == 0x7f || byte == '/' || byte == '%' || (byte == '.' && first);
}

size_t coord_name_escape(struct coord_bytes name, char *ret)
{
	size_t len = 0;
	for (size_t i = 0; i < name.len; i++) {
		unsigned char byte = (unsigned char)name.data[i];
		if (!must_escape(byte, i == 0)) {
			ret[len++] = (char)byte;
			continue;
		}
		ret[len++] = '%';
		ret[len++] = hex_digits[byte >> 4];
		ret[len++] = hex_digits[byte & 15];
	}
	return len;
}

int coord_name_encode(struct coord_bytes name, char ret[COORD_NAME_MAX + 1])
{
	char file[3 * COORD_NAME_MAX];
	if (name.len == 0)
		return -EINVAL;
	if (name.len > COORD_NAME_MAX)
		return -ENAMETOOLONG;
	size_t len = coord_name_escape(name, file);
	if (len > COORD_NAME_MAX)
		return -ENAMETOOLONG;
	memcpy(ret, file, len);
	ret[len] = '\0';
	return 0;
}

/* The value of an upper-case hex digit, or -1. */
static int hex_value(char digit)
{
	const char *found = digit ? strchr(hex_digits, digit) : NULL;
	return found ? (int)(found - hex_digits) : -1;
}

int coord_name_decode(struct coord_bytes file, char ret[COORD_NAME_MAX + 1], size_t *ret_len)
{
	if (file.len == 0)
		return -EINVAL;
	if (file.len > COORD_NAME_MAX)
		return -ENAMETOOLONG;
	char name[COORD_NAME_MAX];
	size_t len = 0;
	for (size_t i = 0; i < file.len; i++) {
		unsigned char byte = (unsigned char)file.data[i];
		bool escaped = byte == '%';
		if (escaped) {
			int high = i + 2 < file.len ? hex_value(file.data[i + 1]) : -1;
			int low = i + 2 < file.len ? hex_value(file.data[i + 2]) : -1;
			if (high < 0 || low < 0)
				return -EINVAL;
			byte = (unsigned char)(high << 4 | low);
			i += 2;
		}
		if (escaped != must_escape(byte, len == 0))
			return -EINVAL;
		name[len++] = (char)byte;
	}
	memcpy(ret, name, len);
	*ret_len = len;
	return 0;
}

void coord_rfc3339(uint64_t utc_us, char ret[COORD_RFC3339_MAX])
{
	time_t seconds = (time_t)(utc_us / 1000000);
	struct tm tm;
	if (!gmtime_r(&seconds, &tm))
		tm = (struct tm){.tm_mday = 1, .tm_year = 70};
	/* 64 bits of microseconds end in the year 586524, so the masks change nothing. */
	snprintf(ret, COORD_RFC3339_MAX, "%04u-%02u-%02uT%02u:%02u:%02u.%06uZ",
		((unsigned)tm.tm_year + 1900) & 0xfffff, ((unsigned)tm.tm_mon + 1) & 15,
		(unsigned)tm.tm_mday & 31, (unsigned)tm.tm_hour & 31, (unsigned)tm.tm_min & 63,
		(unsigned)tm.tm_sec & 63, (unsigned)(utc_us % 1000000));
}
