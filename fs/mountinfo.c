/* SPDX-License-Identifier: Apache-2.0 */
/* What /proc/self/mountinfo says about a mount point; see mountinfo.h. */
#include "fs/mountinfo.h"

#include <ctype.h>
#include <stdio.h>

#include "coord/base.h"

/* Blanks and backslashes are written as \ooo. */
static void unescape(char *text)
{
	char *to = text;
	for (const char *at = text; *at; at++) {
		if (*at == '\\' && isdigit((unsigned char)at[1]) && isdigit((unsigned char)at[2]) &&
			isdigit((unsigned char)at[3])) {
			*to++ = (char)((at[1] - '0') * 64 + (at[2] - '0') * 8 + at[3] - '0');
			at += 3;
		} else {
			*to++ = *at;
		}
	}
	*to = 0;
}

/* Fields of a line: id, parent, device, root, mount point, options, any others, a dash, type, source,
 * options of the file system. */
static bool parse_line(char *line, const char *path, struct fs_mountinfo *ret)
{
	_cleanup_free_ char *point = NULL;
	const char *rest = strstr(line, " - ");
	struct fs_mountinfo found = {0};
	if (!rest || sscanf(line, "%*u %*u %31s %*s %ms", found.device, &point) != 2)
		return false;
	unescape(point);
	if (strcmp(point, path) || sscanf(rest + 3, "%63s", found.type) != 1)
		return false;
	const char *user = strstr(rest, "user_id=");
	if (user)
		found.user = (unsigned)strtoul(user + 8, NULL, 10);
	*ret = found;
	return true;
}

int fs_mountinfo_top(const char *path, struct fs_mountinfo *ret)
{
	FILE *in = fopen("/proc/self/mountinfo", "re");
	if (!in)
		return -errno;
	int r = -ENOENT;
	char *line = NULL;
	size_t size = 0;
	/* The last one lies on top. */
	while (getline(&line, &size, in) > 0)
		if (parse_line(line, path, ret))
			r = 0;
	free(line);
	fclose(in);
	return r;
}
