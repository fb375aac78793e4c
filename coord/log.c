/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log: one line a call, to whoever main chose. Any thread may log; a line is written whole.
 */
#include "coord/driver.h"

#include <stdarg.h>
#include <stdio.h>
#include <syslog.h>

_Atomic int coord_log_level = LOG_INFO;
static void (*_Atomic log_sink)(int level, const char *text);

static void log_stderr(int level, const char *text)
{
	static const char *const names[] = {
		"emergency", "alert", "critical", "error", "warning", "notice", "info", "debug"};
	dprintf(STDERR_FILENO, "toozfs: %s: %s\n", names[level & 7], text);
}

void coord_log_to(void (*sink)(int level, const char *text))
{
	log_sink = sink;
}

void coord_log(int level, const char *format, ...)
{
	if (level > coord_log_level)
		return;
	int saved_errno = errno;
	char text[1024];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	/* A server's words must not make up lines or drive a terminal. */
	for (char *p = text; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = ' ';
	void (*sink)(int, const char *) = log_sink;
	(sink ? sink : log_stderr)(level, text);
	errno = saved_errno;
}
