/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scripts that run inside the server: each changes, or reads, all that belongs together in one step.
 *
 * On a connection with tracking every read of a script tracks all KEYS of it. So KEYS are those to be
 * tracked and no others, and keys of ours beside them come as arguments; a script whose keys are
 * to stay tracked reads them again at its end, because a write ends the tracking.
 */
#ifndef REDIS_SCRIPTS_H
#define REDIS_SCRIPTS_H

#include "drivers/redis/link.h"

enum redis_script_id {
	REDIS_SCRIPT_LOCK,
	REDIS_SCRIPT_CONVERT,
	REDIS_SCRIPT_UNLOCK,
	REDIS_SCRIPT_CHECK,
	REDIS_SCRIPT_LOOK,
	REDIS_SCRIPT_UNMARK,
	REDIS_SCRIPT_BREAK,
	REDIS_SCRIPT_ROWS,
	REDIS_SCRIPT_RENEW,
	REDIS_SCRIPT_RIGHTS,
	REDIS_SCRIPT_OPEN,
	REDIS_SCRIPT_CLOSE,
	REDIS_SCRIPT_ALIVE,
	REDIS_SCRIPT_FENCE,
	REDIS_SCRIPT_RENEW_MEMBERS,
	REDIS_SCRIPT_RENEW_BEATS,
	REDIS_SCRIPT_GROUP_CREATE,
	REDIS_SCRIPT_GROUP_DELETE,
	REDIS_SCRIPT_GROUP_LIST,
	REDIS_SCRIPT_GROUP_READ,
	REDIS_SCRIPT_GROUP_LOOK,
	REDIS_SCRIPT_JOIN,
	REDIS_SCRIPT_UPDATE,
	REDIS_SCRIPT_LEAVE,
	REDIS_SCRIPT_MEMBER_GET,
	REDIS_SCRIPTS,
};

/* What scripts answer first. */
enum redis_code {
	REDIS_CODE_OK,
	REDIS_CODE_BUSY,
	REDIS_CODE_STALE,
	REDIS_CODE_NOENT,
	REDIS_CODE_EXIST,
	REDIS_CODE_PERM,
	REDIS_CODE_NOTEMPTY,
	REDIS_CODE_BAD, /* our own keys hold what is not ours */
	REDIS_CODE_BIG, /* the answer would be too long for the link */
	REDIS_CODES,
};

/* Fills in an array of REDIS_SCRIPTS. */
void redis_scripts_prepare(struct redis_script *ret);
/* The commands that the scripts cannot do without, each once. Returns how many. */
enum { REDIS_COMMANDS_MAX = 64, REDIS_COMMAND_LEN = 24 };
size_t redis_scripts_commands(char ret[REDIS_COMMANDS_MAX][REDIS_COMMAND_LEN]);
/* 0 or -errno for the first word of an answer; -EIO for anything else. */
int redis_code_errno(const redisReply *);

#endif
