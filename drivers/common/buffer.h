/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes that are appended at the end and taken from the front.
 */
#ifndef DRIVERS_BUFFER_H
#define DRIVERS_BUFFER_H

#include "coord/base.h"

/* Zeroed memory is an empty buffer. What it holds is data + start, len bytes. */
struct buffer {
	char *data;
	size_t start, len, size;
};

static inline const char *buffer_head(const struct buffer *buffer)
{
	return buffer->data + buffer->start;
}

static inline void buffer_done(struct buffer *buffer)
{
	free(buffer->data);
	*buffer = (struct buffer){0};
}

/* Makes room for more bytes at the end. Returns 0 or -ENOMEM. */
static inline int buffer_reserve(struct buffer *buffer, size_t more)
{
	if (more <= buffer->size - buffer->start - buffer->len)
		return 0;
	if (buffer->start) {
		memmove(buffer->data, buffer->data + buffer->start, buffer->len);
		buffer->start = 0;
	}
	if (more <= buffer->size - buffer->len)
		return 0;
	size_t size = buffer->size ? buffer->size : 512;
	while (size - buffer->len < more)
		if (__builtin_mul_overflow(size, 2, &size))
			return -ENOMEM;
	char *data = realloc(buffer->data, size);
	if (!data)
		return -ENOMEM;
	buffer->data = data;
	buffer->size = size;
	return 0;
}

/* Returns 0 or -ENOMEM; then nothing was appended. */
static inline int buffer_add(struct buffer *buffer, const void *data, size_t len)
{
	if (buffer_reserve(buffer, len) < 0)
		return -ENOMEM;
	if (len)
		memcpy(buffer->data + buffer->start + buffer->len, data, len);
	buffer->len += len;
	return 0;
}

/* Takes len bytes, at most what there is, from the front. A large buffer that became empty is freed. */
static inline void buffer_drop(struct buffer *buffer, size_t len)
{
	buffer->start += len;
	buffer->len -= len;
	if (buffer->len)
		return;
	buffer->start = 0;
	if (buffer->size > 256 * 1024)
		buffer_done(buffer);
}

#endif
