/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What replies mean: error words to errno, INFO, limits on what a server may make us allocate.
 */
#include <ctype.h>
#include <openssl/sha.h>
#include <stdio.h>

#include "drivers/redis/conn.h"

enum { ELEMENTS_MAX = 1 << 20 };

/* The first word of an error. A word that is not here, such as ERR, is -EIO. */
static const struct {
	const char *word;
	int status;
} words[] = {
	{"NOAUTH", -EACCES},
	{"WRONGPASS", -EACCES},
	{"NOPERM", -EACCES},
	{"DENIED", -EACCES}, /* protected mode */
	{"READONLY", -EHOSTDOWN}, /* a replica, since a fail-over */
	{"LOADING", -EHOSTDOWN},
	{"MASTERDOWN", -EHOSTDOWN},
	{"CLUSTERDOWN", -EHOSTDOWN},
	{"NOREPLICAS", -EHOSTDOWN},
	{"NOGOODSLAVE", -EHOSTDOWN},
	{"BUSY", -EHOSTDOWN}, /* somebody's script does not end */
	{"UNKILLABLE", -EHOSTDOWN},
	{"TRYAGAIN", -EHOSTDOWN},
	{"OOM", -ENOSPC},
	{"MISCONF", -ENOSPC}, /* cannot save, so does not write */
	{"WRONGTYPE", -EBADMSG},
	{"NOSCRIPT", -EIO},
	{"EXECABORT", -EIO},
	{"NOPROTO", -EOPNOTSUPP},
	{"MOVED", -EOPNOTSUPP}, /* a cluster's */
	{"ASK", -EOPNOTSUPP},
	{"CROSSSLOT", -EOPNOTSUPP},
};

static bool begins_with(const char *text, const char *word)
{
	size_t len = strlen(word);
	return strncmp(text, word, len) == 0 && (text[len] == ' ' || text[len] == '\0');
}

static int word_status(const char *text)
{
	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
		if (begins_with(text, words[i].word))
			return words[i].status;
	return 0;
}

/* Servers before 7 wrap what a command in a script said: "ERR Error running script (...): @user_script:1:
 * -READONLY You can't write ...". */
static const char *next_wrapped(const char *at)
{
	at = strchr(at, ' ');
	return at ? at + strspn(at, " -") : NULL;
}

static int wrapped_status(const char *text)
{
	const char *at = strstr(text, "@user_script:");
	while (at && (at = next_wrapped(at))) {
		int status = word_status(at);
		if (status)
			return status;
	}
	return 0;
}

bool redis_error_is(const redisReply *reply, const char *word)
{
	return reply->type == REDIS_REPLY_ERROR && begins_with(reply->str, word);
}

bool redis_error_has(const redisReply *reply, const char *word)
{
	if (redis_error_is(reply, word))
		return true;
	if (reply->type != REDIS_REPLY_ERROR || strncmp(reply->str, "ERR Error running script", 24))
		return false;
	const char *at = strstr(reply->str, "@user_script:");
	while (at && (at = next_wrapped(at)))
		if (begins_with(at, word))
			return true;
	return false;
}

int redis_errno(const redisReply *reply)
{
	if (reply->type != REDIS_REPLY_ERROR)
		return 0;
	int status = word_status(reply->str);
	if (!status && begins_with(reply->str, "ERR")) {
		/* Of a command in a script; NOPERM since 7.2. */
		if (strstr(reply->str, "The user executing the script can't "))
			return -EACCES;
		if (strncmp(reply->str, "ERR unknown command", 19) == 0)
			return -EOPNOTSUPP;
		if (strncmp(reply->str, "ERR max number of clients", 25) == 0)
			return -EHOSTDOWN;
		if (strncmp(reply->str, "ERR Error running script", 24) == 0)
			status = wrapped_status(reply->str);
	}
	return status ? status : -EIO;
}

void redis_printable(const char *text, size_t len, char *ret, size_t size)
{
	size_t n = 0;
	for (; n < len && n + 1 < size && text[n]; n++)
		ret[n] = isprint((unsigned char)text[n]) ? text[n] : '?';
	ret[n] = '\0';
}

void redis_words(const redisReply *reply, char *ret, size_t size)
{
	const char *end = strstr(reply->str, " script: ");
	size_t len = end ? (size_t)(end - reply->str) : (size_t)reply->len;
	while (len && (reply->str[len - 1] == ',' || reply->str[len - 1] == '.'))
		len--;
	redis_printable(reply->str, len, ret, size);
}

struct coord_bytes redis_info(const redisReply *reply, const char *name)
{
	size_t name_len = strlen(name);
	if (reply->type != REDIS_REPLY_STRING)
		return (struct coord_bytes){"", 0};
	const char *line = reply->str, *end = reply->str + reply->len;
	while (line < end) {
		const char *stop = memchr(line, '\n', (size_t)(end - line));
		if (!stop)
			stop = end;
		size_t len = (size_t)(stop - line);
		if (len && line[len - 1] == '\r')
			len--;
		if (len > name_len && memcmp(line, name, name_len) == 0 && line[name_len] == ':')
			return (struct coord_bytes){line + name_len + 1, len - name_len - 1};
		line = stop + 1;
	}
	return (struct coord_bytes){"", 0};
}

unsigned redis_parse_version(struct coord_bytes text)
{
	unsigned parts[3] = {0}, n = 0;
	for (size_t i = 0; i < text.len && n < 3; i++) {
		char c = text.data[i];
		if (c == '.')
			n++;
		else if (c < '0' || c > '9')
			break;
		else if ((parts[n] = parts[n] * 10 + (unsigned)(c - '0')) > 9999)
			return 0;
	}
	for (n = 1; n < 3; n++)
		if (parts[n] > 99)
			parts[n] = 99;
	return parts[0] * 10000 + parts[1] * 100 + parts[2];
}

void redis_script_prepare(struct redis_script *script)
{
	unsigned char digest[SHA_DIGEST_LENGTH];
	SHA1((const unsigned char *)script->body, strlen(script->body), digest);
	for (size_t i = 0; i < sizeof(digest); i++)
		snprintf(script->sha + 2 * i, 3, "%02x", digest[i]);
}

/* ---- hiredis' reader ---- */

/* hiredis allocates for the count that a server announces, before one element came. */
static void *create_array(const redisReadTask *task, int elements)
{
	const struct redis_reader_limits *limits = task->privdata;
	return elements > ELEMENTS_MAX ? NULL : limits->create_array(task, elements);
}

void redis_reader_limit(redisReader *reader, struct redis_reader_limits *limits)
{
	limits->functions = *reader->fn;
	limits->create_array = reader->fn->createArray;
	limits->functions.createArray = create_array;
	reader->fn = &limits->functions;
	reader->privdata = limits;
}
