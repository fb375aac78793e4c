/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who a mount is, so that its claim on a member id can be told from one that a dead process left.
 *
 * A process is known by (boot id, pid namespace, pid, start time): the boot id names one running
 * kernel, and a pid that is used again has another start time. Containers share boot and often
 * machine id, so without the same pid namespace nothing is said about life or death.
 */
#include "coord/config.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>

static bool plain(unsigned char byte)
{
	return byte > 0x20 && byte < 0x7f;
}

/* Copies a word, with anything unusual replaced, so that it is one word of the text form. */
static void copy_word(char *ret, size_t size, const char *text)
{
	size_t len = 0;
	for (; text[len] && len + 1 < size; len++)
		ret[len] = plain((unsigned char)text[len]) ? text[len] : '_';
	ret[len] = '\0';
}

/* Reads a small file whole, NUL-ended. Returns its length or -errno. */
static ssize_t read_small(const char *path, char *ret, size_t size)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ssize_t len = read(fd, ret, size - 1);
	if (len < 0)
		return -errno;
	ret[len] = '\0';
	return len;
}

/* The first line of a file as a word; empty if there is none. */
static void read_word(const char *path, char *ret, size_t size)
{
	char line[256] = "";
	if (read_small(path, line, sizeof(line)) < 0)
		line[0] = '\0';
	line[strcspn(line, "\n")] = '\0';
	copy_word(ret, size, line);
}

/* State, number of threads and start time (fields 3, 20 and 22) of a process. The command, field 2,
 * may contain anything, so fields are counted from its closing parenthesis. */
static int read_stat(uint64_t pid, char *ret_state, uint64_t *ret_threads, uint64_t *ret_start)
{
	char path[64], text[1024];
	snprintf(path, sizeof(path), "/proc/%" PRIu64 "/stat", pid);
	ssize_t len = read_small(path, text, sizeof(text));
	if (len < 0)
		return (int)len;
	char *field = strrchr(text, ')');
	if (!field || sscanf(field, ") %c", ret_state) != 1)
		return -EIO;
	for (int i = 3; i <= 22; i++) {
		field = strchr(field + 1, ' ');
		if (!field)
			return -EIO;
		if (i == 20)
			*ret_threads = strtoull(field, NULL, 10);
	}
	*ret_start = strtoull(field, NULL, 10);
	return 0;
}

int coord_identity_self(struct coord_identity *ret)
{
	struct coord_identity id = {.pid = (uint64_t)getpid()};
	char host[sizeof(id.host)] = "";
	if (gethostname(host, sizeof(host) - 1) < 0)
		return -errno;
	copy_word(id.host, sizeof(id.host), host);
	read_word("/etc/machine-id", id.machine, sizeof(id.machine));
	read_word("/proc/sys/kernel/random/boot_id", id.boot, sizeof(id.boot));
	struct stat st;
	if (stat("/proc/self/ns/pid", &st) < 0)
		return -errno;
	id.pidns = st.st_ino;
	char state;
	uint64_t threads;
	int r = read_stat(id.pid, &state, &threads, &id.start);
	if (r < 0)
		return r;
	if (!id.boot[0])
		return -EIO;
	*ret = id;
	return 0;
}

size_t coord_identity_format(const struct coord_identity *id, char *ret_text)
{
	struct coord_identity safe;
	copy_word(safe.host, sizeof(safe.host), id->host);
	copy_word(safe.machine, sizeof(safe.machine), id->machine);
	copy_word(safe.boot, sizeof(safe.boot), id->boot);
	int len = snprintf(ret_text, COORD_IDENTITY_MAX,
		"host=%s machine=%s boot=%s pidns=%" PRIu64 " pid=%" PRIu64 " start=%" PRIu64,
		safe.host, safe.machine, safe.boot, id->pidns, id->pid, id->start);
	return (size_t)len;
}

/* Takes "key=word" and the blank behind it off the front of *text. */
static int take_word(struct coord_bytes *text, const char *key, char *ret, size_t size)
{
	size_t key_len = strlen(key);
	if (text->len < key_len || memcmp(text->data, key, key_len) != 0)
		return -EINVAL;
	const char *word = text->data + key_len;
	size_t rest = text->len - key_len, len = 0;
	while (len < rest && plain((unsigned char)word[len]))
		len++;
	if (len >= size || (len < rest && word[len] != ' '))
		return -EINVAL;
	memcpy(ret, word, len);
	ret[len] = '\0';
	size_t used = len < rest ? len + 1 : len;
	*text = (struct coord_bytes){word + used, rest - used};
	return 0;
}

/* As take_word, for a number in the only spelling that format writes. */
static int take_number(struct coord_bytes *text, const char *key, uint64_t *ret)
{
	char word[24], again[24];
	int r = take_word(text, key, word, sizeof(word));
	if (r < 0)
		return r;
	uint64_t value = strtoull(word, NULL, 10);
	snprintf(again, sizeof(again), "%" PRIu64, value);
	if (strcmp(word, again) != 0)
		return -EINVAL;
	*ret = value;
	return 0;
}

int coord_identity_parse(struct coord_bytes text, struct coord_identity *ret)
{
	struct coord_identity id = {0};
	if (text.len == 0 || text.len >= COORD_IDENTITY_MAX || text.data[text.len - 1] == ' ')
		return -EINVAL;
	if (take_word(&text, "host=", id.host, sizeof(id.host)) < 0 ||
		take_word(&text, "machine=", id.machine, sizeof(id.machine)) < 0 ||
		take_word(&text, "boot=", id.boot, sizeof(id.boot)) < 0 ||
		take_number(&text, "pidns=", &id.pidns) < 0 ||
		take_number(&text, "pid=", &id.pid) < 0 ||
		take_number(&text, "start=", &id.start) < 0 || text.len > 0)
		return -EINVAL;
	*ret = id;
	return 0;
}

/* Whether the process still runs. What cannot be seen counts as running: /proc may be mounted with
 * hidepid, and then only kill(2) tells that there is such a process. */
static bool process_lives(uint64_t pid, uint64_t start)
{
	if (pid == 0 || pid > INT32_MAX)
		return false;
	char state;
	uint64_t threads, now_start;
	if (read_stat(pid, &state, &threads, &now_start) < 0)
		return kill((pid_t)pid, 0) == 0 || errno != ESRCH;
	if (now_start != start)
		return false;
	/* A zombie has let go of everything, unless it is the leader of threads that still run. */
	return (state != 'Z' && state != 'X') || threads > 1;
}

enum coord_claim coord_identity_compare(
	const struct coord_identity *self, const struct coord_identity *other)
{
	bool same_machine = strcmp(self->machine, other->machine) == 0;
	if (strcmp(self->boot, other->boot) != 0) {
		/* An earlier boot of this machine. Images are cloned with their machine id, so the
		 * host name must agree too. */
		bool known = same_machine && self->machine[0] && other->boot[0] &&
			     strcmp(self->host, other->host) == 0;
		return known ? COORD_CLAIM_DEAD : COORD_CLAIM_ELSEWHERE;
	}
	if (!same_machine || self->pidns != other->pidns)
		return COORD_CLAIM_ELSEWHERE;
	if (self->pid == other->pid && self->start == other->start)
		return COORD_CLAIM_OURS;
	return process_lives(other->pid, other->start) ? COORD_CLAIM_HERE : COORD_CLAIM_DEAD;
}
