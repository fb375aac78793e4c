/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The small things every module uses: byte strings, the intrusive list, cleanup attributes.
 */
#ifndef COORD_BASE_H
#define COORD_BASE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Bytes that somebody else owns. Not ended by a NUL unless a comment says so. */
struct coord_bytes {
	const char *data;
	size_t len;
};

#define COORD_BYTES(literal) ((struct coord_bytes){(literal), sizeof(literal) - 1})

static inline struct coord_bytes coord_bytes_of(const char *text)
{
	return (struct coord_bytes){text, text ? strlen(text) : 0};
}

static inline bool coord_bytes_equal(struct coord_bytes a, struct coord_bytes b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

/* An intrusive, circular, doubly linked list; a head is a node of its own. */
struct coord_list {
	struct coord_list *prev, *next;
};

#define COORD_LIST_INIT(head) ((struct coord_list){&(head), &(head)})
#define coord_container(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))
#define coord_list_each(item, head, member)                                                        \
	for (item = coord_container((head)->next, __typeof__(*item), member);                      \
		&item->member != (head);                                                           \
		item = coord_container(item->member.next, __typeof__(*item), member))
/* As coord_list_each, and the item may be removed and freed in the body. */
#define coord_list_each_safe(item, after, head, member)                                            \
	for (item = coord_container((head)->next, __typeof__(*item), member),                      \
	    after = coord_container(item->member.next, __typeof__(*item), member);                 \
		&item->member != (head); item = after,                                             \
	    after = coord_container(item->member.next, __typeof__(*item), member))

static inline void coord_list_init(struct coord_list *head)
{
	head->prev = head->next = head;
}

static inline bool coord_list_empty(const struct coord_list *head)
{
	return head->next == head;
}

/* Appends at the end. The node must not be in a list. */
static inline void coord_list_add(struct coord_list *head, struct coord_list *node)
{
	node->prev = head->prev;
	node->next = head;
	head->prev->next = node;
	head->prev = node;
}

/* Removes; the node is left as a list of its own, so removing it again does nothing. */
static inline void coord_list_remove(struct coord_list *node)
{
	node->prev->next = node->next;
	node->next->prev = node->prev;
	coord_list_init(node);
}

#define _cleanup_(fn) __attribute__((cleanup(fn)))

/* Small zeroed memory. glibc's calloc passes by the thread's cache of free pieces, which costs each request
 * more than the clearing; the barrier keeps the compiler from making a calloc of it. */
static inline void *coord_zalloc(size_t len)
{
	void *piece = malloc(len);
	if (!piece)
		return NULL;
	__asm__("" : "+r"(piece));
	return memset(piece, 0, len);
}

static inline void coord_freep(void *p)
{
	free(*(void **)p);
}

static inline void coord_closep(const int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

#define _cleanup_free_ _cleanup_(coord_freep)
#define _cleanup_close_ _cleanup_(coord_closep)

#endif
