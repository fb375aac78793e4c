/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scripts. See scripts.h.
 *
 * Formats that are tooz's: a lock key holds a token of its holder (a string that nobody else has) with a
 * time to live; a group is a hash of members' capabilities with a field __created__ = 1, named in the set
 * of groups; a member lives while its beat key exists, whose value is "Not dead!" (tooz 3.1 and 9,
 * drivers/redis.py: RedisLock, RedisDriver).
 *
 * Ours, beside them:
 *   lock key     <owner> (32 hex digits) held exclusively, S:<generation> shared; a generation is the owner
 *                value of whoever began to share. All keys of the dialects in use hold the same.
 *   sharers      sorted set: <generation>:<owner>, score: when it expires, milliseconds of server time
 *   record       <value of the lock> LF <token> LF <since, us> LF <kind> LF <member id>; it counts only
 *                while its first line is what the lock holds
 *   mark         ?<x|s><session>: that session waits; !<x|s><session>: it was freed for that session
 *   token        decimal: the last fencing token of the namespace
 *   owners       hash of a group: member -> <owner> <born> <version> <joined, us> <updated, us>; it counts
 *                only while the group has that field, and the session of the owner lives
 *   session      <member id> LF <number of the link>; its name is the first 16 digits of every owner value of that
 *                session. What was sent through an earlier link, and comes late, takes and joins nothing.
 *   claim        <session> LF <identity of the process>
 *   beaters      hash: a field for each session that keeps a beat; due: when it ends by their doing, ms; foreign: a
 *                Python client keeps it too
 */
#include "drivers/redis/scripts.h"

#include <assert.h>
#include <stdio.h>

#include "coord/driver.h"

/* Scripts that read the clock and write are replicated by their effects; before redis 5 one has to ask. */
#define CLOCK                                                                                      \
	"if redis.replicate_commands then redis.replicate_commands() end\n"                        \
	"local clock\n"                                                                            \
	"local function us()\n"                                                                    \
	"  if not clock then\n"                                                                    \
	"    local t = redis.call('TIME')\n"                                                       \
	"    clock = t[1] * 1000000 + t[2]\n"                                                      \
	"  end\n"                                                                                  \
	"  return clock\n"                                                                         \
	"end\n"                                                                                    \
	"local function ms() return math.floor(us() / 1000) end\n"                                 \
	"local function text(number) return string.format('%.0f', number) end\n"

/* Of the keys of one lock: what they hold, how it is ours, and giving it up. A full server
 * lets a script finish what it began: in verify a write that needs no memory comes first, always. */
#define HELD                                                                                       \
	"local function values(keys)\n"                                                            \
	"  local v, same, free = {}, true, true\n"                                                 \
	"  for i = 1, #keys do\n"                                                                  \
	"    v[i] = redis.call('GET', keys[i])\n"                                                  \
	"    same = same and v[i] == v[1]\n"                                                       \
	"    free = free and not v[i]\n"                                                           \
	"  end\n"                                                                                  \
	"  return v, same, free\n"                                                                 \
	"end\n"                                                                                    \
	"local function generation(value)\n"                                                       \
	"  if value and string.sub(value, 1, 2) == 'S:' then return string.sub(value, 3) end\n"    \
	"end\n"                                                                                    \
	"local function how(v, same, sharers, owner)\n"                                            \
	"  if not same then return end\n"                                                          \
	"  if v[1] == owner then return 'x' end\n"                                                 \
	"  local gen = generation(v[1])\n"                                                         \
	"  local score = gen and redis.call('ZSCORE', sharers, gen .. ':' .. owner)\n"             \
	"  if score and tonumber(score) > ms() then return 's' end\n"                              \
	"end\n"                                                                                    \
	"local function starts(value, line)\n"                                                     \
	"  return value and line and string.sub(value, 1, #line + 1) == line .. '\\n'\n"           \
	"end\n"                                                                                    \
	"local function extend(key, ttl)\n"                                                        \
	"  local left = redis.call('PTTL', key)\n"                                                 \
	"  if left >= 0 and left < ttl then redis.call('PEXPIRE', key, ttl) end\n"                 \
	"end\n"                                                                                    \
	"local function release(keys, record, sharers, owner)\n"                                   \
	"  local v, same = values(keys)\n"                                                         \
	"  local gen, gone\n"                                                                      \
	"  for i = 1, #keys do\n"                                                                  \
	"    local g = generation(v[i])\n"                                                         \
	"    if v[i] == owner then\n"                                                              \
	"      redis.call('DEL', keys[i])\n"                                                       \
	"      gone = owner\n"                                                                     \
	"    elseif g and (redis.call('ZREM', sharers, g .. ':' .. owner) == 1 or "                \
	"redis.call('EXISTS', sharers) == 0) then gen = v[i] end\n"                                \
	"  end\n"                                                                                  \
	"  if gen then\n"                                                                          \
	"    local top = redis.call('ZREVRANGE', sharers, 0, 0, 'WITHSCORES')\n"                   \
	"    if same and top[1] and tonumber(top[2]) > ms() and tonumber(top[2]) < 9e15 then\n"    \
	"      for i = 1, #keys do redis.call('PEXPIREAT', keys[i], text(tonumber(top[2]))) end\n" \
	"    else\n"                                                                               \
	"      for i = 1, #keys do if v[i] == gen then redis.call('DEL', keys[i]) end end\n"       \
	"      redis.call('DEL', sharers)\n"                                                       \
	"      gone = gen\n"                                                                       \
	"    end\n"                                                                                \
	"  end\n"                                                                                  \
	"  if gone and starts(redis.call('GET', record), gone) then redis.call('DEL', record) "    \
	"end\n"                                                                                    \
	"end\n"                                                                                    \
	"local function verify(keys, record, sharers, owner, ttl)\n"                               \
	"  local v, same = values(keys)\n"                                                         \
	"  local mode = how(v, same, sharers, owner)\n"                                            \
	"  if not mode then release(keys, record, sharers, owner) return end\n"                    \
	"  local longer = mode == 's' and extend or function(key, t) redis.call('PEXPIRE', key, "  \
	"t) end\n"                                                                                 \
	"  if mode == 's' then redis.call('ZREMRANGEBYSCORE', sharers, '-inf', text(ms())) end\n"  \
	"  for i = 1, #keys do longer(keys[i], ttl) end\n"                                         \
	"  longer(record, ttl)\n"                                                                  \
	"  if mode == 's' then\n"                                                                  \
	"    redis.call('ZADD', sharers, text(ms() + ttl), generation(v[1]) .. ':' .. owner)\n"    \
	"    extend(sharers, ttl)\n"                                                               \
	"  end\n"                                                                                  \
	"  return mode, v[1]\n"                                                                    \
	"end\n"

/* The record names who began to share. When that one has left, or is dead, it is not known who holds the lock. */
#define KNOWN                                                                                      \
	"local function known(rec, sharers)\n"                                                     \
	"  local gen = rec and string.match(rec, '^S:([^\\n]*)\\n')\n"                             \
	"  local till = gen and redis.pcall('ZSCORE', sharers, gen .. ':' .. gen)\n"               \
	"  if not gen or (tonumber(till or '0') or 0) > ms() then return rec end\n"                \
	"  return (string.gsub(rec, '^([^\\n]*\\n%d+\\n)%d+(\\n[^\\n]*\\n).*$', '%10%2'))\n"       \
	"end\n"

/* Who writes a key is not told of that, and yet it is the end of the tracking of the key: it is read again. */
#define TRACK "redis.call('EXISTS', unpack(KEYS))\n"

/* KEYS: the keys of the lock, and last its mark. The answer: code, number, the values of all KEYS, and if full
 * the record, the number of sharers and the time to live. These reads also track. */
#define ONE_LOCK                                                                                   \
	KNOWN                                                                                      \
	"local keys, mark = {}, KEYS[#KEYS]\n"                                                     \
	"for i = 1, #KEYS - 1 do keys[i] = KEYS[i] end\n"                                          \
	"local function answer(code, number, record, sharers)\n"                                   \
	"  local r = {code, number}\n"                                                             \
	"  local left = -2\n"                                                                      \
	"  for i = 1, #KEYS do r[i + 2] = redis.call('GET', KEYS[i]) end\n"                        \
	"  if not record then return r end\n"                                                      \
	"  for i = 1, #keys do\n"                                                                  \
	"    local t = redis.call('PTTL', keys[i])\n"                                              \
	"    if t == -1 then left = -1 break end\n"                                                \
	"    if t > left then left = t end\n"                                                      \
	"  end\n"                                                                                  \
	"  if left == -2 then left = redis.call('PTTL', mark) end\n"                               \
	"  r[#KEYS + 3] = known(redis.call('GET', record), sharers)\n"                             \
	"  r[#KEYS + 4] = redis.call('ZCOUNT', sharers, '(' .. text(ms()), '+inf')\n"              \
	"  r[#KEYS + 5] = left\n"                                                                  \
	"  return r\n"                                                                             \
	"end\n"

/* Taking a lock whose keys are free or ours. ARGV: owner, ttl, mode, waits, session, token, record, sharers,
 * group, tail of the record; LOCK: session's key, what it holds. */
#define TAKE                                                                                       \
	"local owner, ttl, mode, waits, session = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4] "   \
	"~= '', ARGV[5]\n"                                                                         \
	"local counter, record, sharers = ARGV[6], ARGV[7], ARGV[8]\n"                             \
	"local value = mode == 'x' and owner or 'S:' .. owner\n"                                   \
	"local function token()\n"                                                                 \
	"  local last = tonumber(redis.call('GET', counter) or '0')\n"                             \
	"  if not last or not (last < 9e15) then return end\n"                                     \
	"  local t = text(math.max(last + 1, us()))\n"                                             \
	"  redis.call('SET', counter, t)\n"                                                        \
	"  return t\n"                                                                             \
	"end\n"                                                                                    \
	"local function take(clear)\n"                                                             \
	"  local t = token()\n"                                                                    \
	"  if not t then return end\n"                                                             \
	"  for i = 1, #KEYS - 1 do redis.call('SET', KEYS[i], value, 'PX', ttl) end\n"             \
	"  if not clear then redis.call('DEL', sharers) end\n"                                     \
	"  if mode == 's' then\n"                                                                  \
	"    redis.call('ZADD', sharers, text(ms() + ttl), owner .. ':' .. owner)\n"               \
	"    redis.call('PEXPIRE', sharers, ttl)\n"                                                \
	"  end\n"                                                                                  \
	"  redis.call('SET', record, value .. '\\n' .. t .. '\\n' .. text(us()) .. '\\n' .. "      \
	"ARGV[10], 'PX', ttl)\n"                                                                   \
	"  return t\n"                                                                             \
	"end\n"

/* What else those who take want to know. */
#define TAKING                                                                                     \
	"local function told(value)\n"                                                             \
	"  local r = redis.call('GET', record)\n"                                                  \
	"  return starts(r, value) and string.match(r, '^[^\\n]*\\n(%d+)\\n') or '0'\n"            \
	"end\n"                                                                                    \
	"local m = redis.call('GET', mark)\n"                                                      \
	"local theirs = m and string.sub(m, 3) ~= session\n"                                       \
	"local function note()\n"                                                                  \
	"  if waits and not theirs then redis.pcall('SET', mark, '?' .. mode .. session, 'PX', "   \
	"ttl) end\n"                                                                               \
	"end\n"                                                                                    \
	"local function unnote() if m and not theirs then redis.call('DEL', mark) end end\n"

/* A lock that is nobody's, and that nobody waits for, goes a short way, with half of the calls; so does
 * its release. EXISTS of all KEYS goes on tracking them. */
static const char lock_body[] = CLOCK TAKE
	"if redis.pcall('GET', ARGV[11]) ~= ARGV[12] then return {2, 0} end\n"
	"if ARGV[9] ~= '' and redis.call('EXISTS', ARGV[9]) == 0 then return {3, 0} end\n"
	"if redis.call('EXISTS', sharers, unpack(KEYS)) == 0 then\n"
	"  local t = take(true)\n"
	"  if not t then return {7, 0} end\n"
	"  redis.call('EXISTS', unpack(KEYS))\n"
	"  local r = {0, t}\n"
	"  for i = 1, #KEYS - 1 do r[i + 2] = value end\n"
	"  r[#KEYS + 2] = false\n"
	"  return r\n"
	"end\n" HELD ONE_LOCK TAKING "local v, same, free = values(keys)\n"
	"if free and not (theirs and waits and string.sub(m, 1, 1) == '!') then\n"
	"  local t = take()\n"
	"  if not t then return {7, 0} end\n"
	"  unnote()\n"
	"  return answer(0, t)\n"
	"end\n"
	"local gen = same and mode == 's' and generation(v[1])\n"
	/* A new sharer that can wait goes behind a session that waits to write. */
	"if gen and not (theirs and waits and string.sub(m, 2, 2) == 'x') then\n"
	"  local t = told(v[1])\n"
	"  if t == '0' then t = token() end\n"
	"  if not t then return {7, 0} end\n"
	"  redis.call('ZADD', sharers, text(ms() + ttl), gen .. ':' .. owner)\n"
	"  extend(sharers, ttl)\n"
	"  for i = 1, #keys do extend(keys[i], ttl) end\n"
	"  extend(record, ttl)\n"
	"  unnote()\n"
	"  return answer(0, t)\n"
	"end\n"
	"note()\n"
	"return answer(1, 0, record, sharers)\n";

static const char convert_body[] = CLOCK TAKE HELD ONE_LOCK TAKING
	"local v, same = values(keys)\n"
	"local now = how(v, same, sharers, owner)\n"
	"if not now then\n"
	"  release(keys, record, sharers, owner)\n"
	"  return answer(2, 0)\n"
	"end\n"
	"if now == 's' then\n"
	"  if mode == 's' then return answer(0, told(v[1])) end\n"
	"  redis.call('ZREMRANGEBYSCORE', sharers, '-inf', text(ms()))\n"
	"  if redis.call('ZCARD', sharers) > 1 then\n"
	"    note()\n"
	"    return answer(1, 0, record, sharers)\n"
	"  end\n"
	"end\n"
	"local t = take()\n"
	"if not t then return {7, 0} end\n"
	"unnote()\n"
	"return answer(0, t)\n";

/* ARGV: owner, record, sharers, session, how long to keep it for who waits, whether to go on tracking. */
static const char unlock_body[] =
	"local owner, last = ARGV[1], #KEYS - 1\n"
	"local v = redis.call('MGET', ARGV[2], unpack(KEYS))\n"
	"local m, mine = v[last + 2], true\n"
	"for i = 1, last do mine = mine and v[i + 1] == owner end\n"
	"local free = mine\n"
	"if mine then\n"
	"  local told = v[1] and string.sub(v[1], 1, #owner + 1) == owner .. '\\n'\n"
	"  redis.call('DEL', told and ARGV[2] or KEYS[1], unpack(KEYS, 1, last))\n"
	"else\n" CLOCK HELD "  local keys = {unpack(KEYS, 1, last)}\n"
	"  release(keys, ARGV[2], ARGV[3], owner)\n"
	"  local same\n"
	"  v, same, free = values(keys)\n"
	"  m = redis.call('GET', KEYS[#KEYS])\n"
	"end\n"
	"if free and m and string.sub(m, 1, 1) == '?' and string.sub(m, 3) ~= ARGV[4] then\n"
	"  redis.pcall('SET', KEYS[#KEYS], '!' .. string.sub(m, 2), 'PX', ARGV[5])\n"
	"end\n"
	"if ARGV[6] ~= '' then redis.call('EXISTS', unpack(KEYS)) end\n"
	"return {0, 0}\n";

/* ARGV: owner, ttl, record, sharers. */
static const char check_body[] = CLOCK HELD ONE_LOCK
	"local mode, value = verify(keys, ARGV[3], ARGV[4], ARGV[1], tonumber(ARGV[2]))\n"
	"if not mode then return answer(2, 0) end\n"
	"local r = redis.call('GET', ARGV[3])\n"
	"return answer(0, starts(r, value) and string.match(r, '^[^\\n]*\\n(%d+)\\n') or '0')\n";

/* Reads only, but for the mark of who waits. ARGV: record, sharers, mode of who waits or nothing, session,
 * ttl of the mark. */
static const char look_body[] = CLOCK HELD ONE_LOCK
	"if ARGV[3] ~= '' then\n"
	"  local m = redis.call('GET', mark)\n"
	"  local v, same, free = values(keys)\n"
	"  if not free and (not m or string.sub(m, 3) == ARGV[4]) then\n"
	"    redis.pcall('SET', mark, '?' .. ARGV[3] .. ARGV[4], 'PX', ARGV[5])\n"
	"  end\n"
	"end\n"
	"return answer(0, 0, ARGV[1], ARGV[2])\n";

/* Who waited does so no more. KEYS: mark. ARGV: session. */
static const char unmark_body[] =
	"local m = redis.call('GET', KEYS[1])\n"
	"if m and string.sub(m, 3) == ARGV[1] then redis.call('DEL', KEYS[1]) end\n" TRACK
	"return {0}\n";

/* ARGV: record, sharers. */
static const char break_body[] =
	CLOCK HELD ONE_LOCK "local v, same, free = values(keys)\n"
			    "if free then return answer(3, 0) end\n"
			    "redis.call('DEL', ARGV[1], ARGV[2], unpack(keys))\n"
			    "return answer(0, 0)\n";

/* ARGV: how many keys a lock has, then for each lock these, its record and its sharers. The answer: code, then
 * for each its values, the record and the number of sharers. */
static const char rows_body[] = CLOCK KNOWN
	"local n = tonumber(ARGV[1])\n"
	"local r = {0}\n"
	"for at = 2, #ARGV, n + 2 do\n"
	"  for i = 0, n do\n"
	/* The list was made by names alone: a key may be of any type. */
	"    local v = redis.pcall('GET', ARGV[at + i])\n"
	"    if type(v) == 'table' then v = false end\n"
	"    if i == n then v = known(v, ARGV[at + n + 1]) end\n"
	"    r[#r + 1] = v\n"
	"  end\n"
	"  local count = redis.pcall('ZCOUNT', ARGV[at + n + 1], '(' .. text(ms()), '+inf')\n"
	"  r[#r + 1] = type(count) == 'table' and 0 or count\n"
	"end\n"
	"return r\n";

/* One of many: what is the matter with it is no matter of the others. 1 for true, 0 for false and for a key of a
 * type that is none of ours, 2 where an error cannot tell, as that of a full server. */
#define APART                                                                                      \
	"local function apart(fn, ...)\n"                                                          \
	"  local good, what = pcall(fn, ...)\n"                                                    \
	"  if good then return what and 1 or 0 end\n"                                              \
	"  local why = type(what) == 'table' and what.err or tostring(what)\n"                     \
	"  return string.find(why, 'WRONGTYPE', 1, true) and 0 or 2\n"                             \
	"end\n"

/* ARGV: ttl, how many keys a lock has, then for each lock its owner. KEYS: for each these, its record and its
 * sharers. The answer: code, then for each what apart gives. */
static const char renew_body[] = CLOCK HELD APART
	"local ttl, n = tonumber(ARGV[1]), tonumber(ARGV[2])\n"
	"local r = {0}\n"
	"for i = 3, #ARGV do\n"
	"  local at, keys = (i - 3) * (n + 2), {}\n"
	"  for k = 1, n do keys[k] = KEYS[at + k] end\n"
	"  r[#r + 1] = apart(verify, keys, KEYS[at + n + 1], KEYS[at + n + 2], ARGV[i], ttl)\n"
	"end\n"
	"return r\n";

/* ---- Sessions ---- */

/* Whose a claim is: nil if there is none, '' if it is nothing that a mount wrote; and its text. */
#define CLAIM                                                                                      \
	"local function claim(key)\n"                                                              \
	"  local c = redis.pcall('GET', key)\n"                                                    \
	"  if not c then return end\n"                                                             \
	"  if type(c) ~= 'string' then return '' end\n"                                            \
	"  return string.match(c, '^(' .. string.rep('%x', 16) .. ')\\n') or '', c\n"              \
	"end\n"

/* Is what the session's key holds of a later link than this? */
#define LATER                                                                                      \
	"local function later(key, value)\n"                                                       \
	"  local function number(v)\n"                                                             \
	"    return type(v) == 'string' and tonumber(string.match(v, '\\n(%d+)$')) or 0\n"         \
	"  end\n"                                                                                  \
	"  return number(redis.pcall('GET', key)) > number(value)\n"                               \
	"end\n"

/* ARGV: claim, session's key, session, identity, ttl, what the session's key holds, a session that may be replaced, what
 * the keys of sessions begin with. What is no claim, and that of a session that is no more, keeps nobody out. The
 * answer: code, and the other's claim, or whether junk was replaced. */
static const char open_body[] = CLAIM LATER
	"local s, c = claim(ARGV[1])\n"
	"local known = s and s ~= ''\n"
	"if known and s ~= ARGV[3] and s ~= ARGV[7] and redis.call('EXISTS', ARGV[8] .. s) == 1 "
	"then\n"
	"  return {4, c}\n"
	"end\n"
	"if later(ARGV[2], ARGV[6]) then return {2} end\n"
	"redis.call('SET', ARGV[1], ARGV[3] .. '\\n' .. ARGV[4], 'PX', ARGV[5])\n"
	"redis.call('SET', ARGV[2], ARGV[6], 'PX', ARGV[5])\n"
	/* The members of the one that was replaced are dead from now on. */
	"if known and s ~= ARGV[3] then redis.call('DEL', ARGV[8] .. s) end\n"
	"return {0, s == '' and 1 or 0}\n";

/* May this user do what the others do? Nothing is written. ARGV: how many keys, these, commands. The answer: code,
 * the commands, and the keys that are refused. Servers before 7 cannot be asked: there each command is tried
 * with arguments that it refuses after it looked at the rights (xs: how many behind the key; there are none for
 * SADD, which is not tried). */
static const char rights_body[] =
	"local n = tonumber(ARGV[1])\n"
	"local xs = {HDEL = 1, HEXISTS = 1, HGET = 1, SISMEMBER = 1, SREM = 1, ZREM = 1, ZSCORE = "
	"1, "
	"PEXPIRE = 1, PEXPIREAT = 1, ZADD = 2, ZCOUNT = 2, ZREMRANGEBYSCORE = 2, ZREVRANGE = 2, "
	"PSETEX = 2, SET = 3, HSET = 3}\n"
	"local function tried(what, name, key)\n"
	"  local x = {'x', 'x', 'x'}\n"
	"  local r = name == 'TIME' and redis.pcall(name) or redis.pcall(name, key, unpack(x, 1, "
	"xs[name] or 0))\n"
	"  return type(r) == 'table' and string.find(r.err or '', what, 1, true)\n"
	"end\n"
	/* Never without arguments: that crashes redis 7.0. */
	"local function may(what, name, key)\n"
	"  if not redis.acl_check_cmd then return not tried(what, name, key) end\n"
	"  local known, allowed = pcall(redis.acl_check_cmd, name, key, key, key)\n"
	"  return allowed or not known\n"
	"end\n"
	"local commands, keys, keyless, able = {}, {}, {TIME = 1, SCAN = 1, EVAL = 1}, false\n"
	"for i = n + 2, #ARGV do\n"
	"  if not may(\"can't run\", ARGV[i], ARGV[2]) then commands[#commands + 1] = ARGV[i]\n"
	"  elseif not keyless[ARGV[i]] then able = true end\n"
	"end\n"
	/* No command at all: that is the key. */
	"if not able then commands, keys = {}, {ARGV[2]} end\n"
	"for i = 2, able and n + 1 or 1 do\n"
	"  for _, name in ipairs({'GET', 'SET'}) do\n"
	"    if may(\"can't run\", name, ARGV[2]) and not may(\"can't access\", name, ARGV[i]) "
	"then\n"
	"      keys[#keys + 1] = ARGV[i]\n"
	"      break\n"
	"    end\n"
	"  end\n"
	"end\n"
	"return {0, table.concat(commands, ' '), table.concat(keys, ' ')}\n";

/* ARGV: claim, session's key, session, what the session's key holds. */
static const char close_body[] =
	CLAIM LATER "if later(ARGV[2], ARGV[4]) then return {2} end\n"
		    "if claim(ARGV[1]) == ARGV[3] then redis.call('DEL', ARGV[1]) end\n"
		    "redis.call('DEL', ARGV[2])\n"
		    "return {0}\n";

/* ARGV: claim, session's key, session, ttl, identity. The answer: code, and whether junk was replaced. */
static const char alive_body[] =
	CLAIM "local s = claim(ARGV[1])\n"
	      "if s ~= ARGV[3] and s ~= '' then return {2} end\n"
	      "if redis.call('PEXPIRE', ARGV[2], ARGV[4]) == 0 then return {2} end\n"
	      "redis.call('PEXPIRE', ARGV[1], ARGV[4])\n"
	      "if s ~= '' then return {0, 0} end\n"
	      "local r = redis.pcall('SET', ARGV[1], ARGV[3] .. '\\n' .. ARGV[5], 'PX', ARGV[4])\n"
	      "return {0, r.ok and 1 or 0}\n";

/* The first of a new link. ARGV: claim, session's key, session, what the session's key holds, ttl. */
static const char fence_body[] = CLAIM LATER
	"local s = claim(ARGV[1])\n"
	"if s and s ~= '' and s ~= ARGV[3] or later(ARGV[2], ARGV[4]) then return {2} end\n"
	"if redis.call('EXISTS', ARGV[2]) == 0 then return {2} end\n"
	"redis.call('SET', ARGV[2], ARGV[4], 'PX', ARGV[5])\n"
	"return {0, 0}\n";

/* KEYS: for each membership the group and its owners. ARGV: for each the member and the owner. The answer: code,
 * then for each what apart gives. */
static const char renew_members_body[] =
	APART "local function ours(group, owners, member, owner)\n"
	      "  local there = redis.call('HEXISTS', group, member) == 1\n"
	      "  local rec = redis.call('HGET', owners, member)\n"
	      "  local mine = rec and string.sub(rec, 1, 32) == owner\n"
	      "  if mine and not there then redis.call('HDEL', owners, member) end\n"
	      "  return there and mine\n"
	      "end\n"
	      "local r = {0}\n"
	      "for i = 1, #KEYS, 2 do r[#r + 1] = apart(ours, KEYS[i], KEYS[i + 1], ARGV[i], "
	      "ARGV[i + 1]) "
	      "end\n"
	      "return r\n";

/* A beat is never shortened: a Python client of the same id may have a longer one. One that ends when we said (due)
 * is ours, and another was set by such a client, and is left to it in the end. Ours ends one millisecond early,
 * so that a client with the same time to live, who comes later, does not hit it by chance. Servers before 7 do not
 * say when a key ends, but how long it has. */
#define FOREIGN                                                                                    \
	"local function ends(key)\n"                                                               \
	"  local at = redis.pcall('PEXPIRETIME', key)\n"                                           \
	"  if type(at) == 'number' then return at, 0 end\n"                                        \
	"  local left, t = redis.call('PTTL', key), redis.call('TIME')\n"                          \
	"  if left < 0 then return left, 0 end\n"                                                  \
	"  return left + math.floor(t[1] * 1000 + t[2] / 1000), 2\n"                               \
	"end\n"                                                                                    \
	"local function foreign(key, beaters)\n"                                                   \
	"  local at, slack = ends(key)\n"                                                          \
	"  if at == -2 then return false, at end\n"                                                \
	"  local due = tonumber(redis.pcall('HGET', beaters, 'due') or '0') or 0\n"                \
	"  return not (math.abs(at - due) <= slack), at\n"                                         \
	"end\n"

#define BEAT                                                                                       \
	FOREIGN                                                                                    \
	"local function clean(beaters)\n"                                                          \
	"  local kind = redis.call('TYPE', beaters).ok\n"                                          \
	"  if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', beaters) end\n"             \
	"end\n"                                                                                    \
	"local function beat(key, beaters, ttl, session)\n"                                        \
	"  clean(beaters)\n"                                                                       \
	"  local other, at = foreign(key, beaters)\n"                                              \
	"  local due = ms() + ttl - 1\n"                                                           \
	"  if at == -2 then redis.call('PSETEX', key, ttl, 'Not dead!') end\n"                     \
	"  if at ~= -1 and at < due then redis.call('PEXPIREAT', key, text(due)) end\n"            \
	"  if other then redis.pcall('HSET', beaters, 'foreign', text(at)) end\n"                  \
	"  redis.pcall('HSET', beaters, 'due', text(math.max(at, due)))\n"                         \
	"  redis.pcall('HSET', beaters, session, '1')\n"                                           \
	"  if redis.call('PTTL', beaters) < ttl then redis.call('PEXPIRE', beaters, ttl) end\n"    \
	"end\n"                                                                                    \
	"local function unbeat(key, beaters, session)\n"                                           \
	"  clean(beaters)\n"                                                                       \
	"  redis.call('HDEL', beaters, session)\n"                                                 \
	"  local due, other = redis.call('HEXISTS', beaters, 'due'), redis.call('HEXISTS', "       \
	"beaters, 'foreign')\n"                                                                    \
	"  if redis.call('HLEN', beaters) > due + other then return end\n"                         \
	"  if other == 0 and not foreign(key, beaters) then redis.call('DEL', key) end\n"          \
	"  redis.call('DEL', beaters)\n"                                                           \
	"end\n"

/* KEYS: for each member id its beat and its beaters. ARGV: ttl, session. */
static const char renew_beats_body[] = CLOCK APART BEAT
	"for i = 1, #KEYS, 2 do apart(beat, KEYS[i], KEYS[i + 1], tonumber(ARGV[1]), ARGV[2]) end\n"
	"return {0}\n";

/* ---- Groups and members ---- */

/* KEYS: list. The answer: code, and an array of names; there is an end to what an answer can hold. */
static const char group_list_body[] =
	"local n = redis.pcall('SCARD', KEYS[1])\n"
	"if type(n) == 'number' and n > 1000000 then return {8} end\n"
	"local names, size = redis.call('SMEMBERS', KEYS[1]), 0\n"
	"for _, name in ipairs(names) do size = size + #name end\n"
	"if size > 40 * 1024 * 1024 or #names > 1000000 then return {8} end\n"
	"return {0, names}\n";

/* KEYS: group. ARGV: list, owners, name. */
static const char group_create_body[] =
	"if redis.call('EXISTS', KEYS[1]) == 1 then return {4} end\n"
	"redis.call('SADD', ARGV[1], ARGV[3])\n"
	"redis.call('HSET', KEYS[1], '__created__', '1')\n"
	"redis.call('DEL', ARGV[2])\n" TRACK "return {0}\n";

/* Is the member, known to be a field of the group, alive? Memberships of ours live with their session too; but a
 * record whose session is dead may be a leftover, and the field that of a Python client that joined later: where
 * such a client keeps the heartbeat, the record counts no more. The answer: whether, and the record. */
#define THEIRS                                                                                     \
	"local function theirs(key, beaters)\n"                                                    \
	"  if foreign(key, beaters) then return true end\n"                                        \
	"  local t, till = redis.call('TIME'), redis.pcall('HGET', beaters, 'foreign')\n"          \
	"  return (tonumber(till or '0') or 0) > t[1] * 1000\n"                                    \
	"end\n"
#define ALIVE                                                                                      \
	"local function alive(beats, sessions, beaters, member, rec)\n"                            \
	"  if redis.call('EXISTS', beats .. member) == 0 then return false end\n"                  \
	"  if not rec or redis.call('EXISTS', sessions .. string.sub(rec, 1, 16)) == 1 then\n"     \
	"    return true, rec\n"                                                                   \
	"  end\n"                                                                                  \
	"  return theirs(beats .. member, beaters .. member)\n"                                    \
	"end\n"

/* KEYS: group. ARGV: list, owners, name, what beats, sessions and beaters begin with. */
static const char group_delete_body[] = FOREIGN THEIRS ALIVE
	"if redis.call('EXISTS', KEYS[1]) == 0 then return {3} end\n"
	"if redis.call('SISMEMBER', ARGV[1], ARGV[3]) == 0 then return {3} end\n"
	"for _, m in ipairs(redis.call('HKEYS', KEYS[1])) do\n"
	"  if m ~= '__created__' and alive(ARGV[4], ARGV[5], ARGV[6], m, "
	"redis.call('HGET', ARGV[2], m)) then\n"
	"    return {6}\n"
	"  end\n"
	"end\n"
	"redis.call('SREM', ARGV[1], ARGV[3])\n"
	"redis.call('DEL', KEYS[1], ARGV[2])\n" TRACK "return {0}\n";

/* All members, with their data or without, their beats asked for by the thousand. fn(member, data, record, alive).
 * The answer: of whom there is a record that counts no more. */
#define MEMBERS                                                                                    \
	"local function fields(group, with)\n"                                                     \
	"  if with then return redis.call('HGETALL', group) end\n"                                 \
	"  local all = {}\n"                                                                       \
	"  for i, m in ipairs(redis.call('HKEYS', group)) do all[2 * i - 1], all[2 * i] = m, '' "  \
	"end\n"                                                                                    \
	"  return all\n"                                                                           \
	"end\n"                                                                                    \
	"local function members(group, with, owners, beats, sessions, beaters, fn)\n"              \
	"  local all, recs, lives, old = fields(group, with), {}, {}, {}\n"                        \
	"  local o = redis.call('HGETALL', owners)\n"                                              \
	"  for i = 1, #o, 2 do recs[o[i]] = o[i + 1] end\n"                                        \
	"  for at = 1, #all, 2000 do\n"                                                            \
	"    local names = {}\n"                                                                   \
	"    for i = at, math.min(at + 1998, #all - 1), 2 do names[#names + 1] = beats .. all[i] " \
	"end\n"                                                                                    \
	"    local there = redis.call('MGET', unpack(names))\n"                                    \
	"    for k = 1, #names do\n"                                                               \
	"      local m, data = all[at + 2 * k - 2], all[at + 2 * k - 1]\n"                         \
	"      local rec = recs[m]\n"                                                              \
	"      local s = rec and string.sub(rec, 1, 16)\n"                                         \
	"      if s and lives[s] == nil then lives[s] = redis.call('EXISTS', sessions .. s) == 1 " \
	"end\n"                                                                                    \
	"      local life = there[k] and (not s or lives[s])\n"                                    \
	"      if there[k] and not life and theirs(names[k], beaters .. m) then\n"                 \
	"        life, rec, old[#old + 1] = true, nil, m\n"                                        \
	"      end\n"                                                                              \
	"      recs[m] = nil\n"                                                                    \
	"      if m ~= '__created__' then fn(m, data, rec, life) end\n"                            \
	"    end\n"                                                                                \
	"  end\n"                                                                                  \
	"  for m in pairs(recs) do old[#old + 1] = m end\n"                                        \
	"  return old\n"                                                                           \
	"end\n"

/* KEYS: group, the keys of its leader's lock. ARGV: owners, record of the lock, what beats, sessions and beaters
 * begin with, with data, may write. The answer: code, value of each lock key, record, then for each member its
 * name, data, record. */
static const char group_read_body[] = FOREIGN THEIRS MEMBERS
	"if redis.call('EXISTS', KEYS[1]) == 0 then return {3} end\n"
	"local r, dead = {0}, {}\n"
	"for i = 2, #KEYS do r[i] = redis.call('GET', KEYS[i]) end\n"
	"r[#KEYS + 1] = redis.call('GET', ARGV[2])\n"
	"local n, size = #KEYS + 1, #(r[#KEYS + 1] or '')\n"
	"for i = 2, #KEYS do size = size + #(r[i] or '') end\n"
	"local old = members(KEYS[1], ARGV[6] ~= '', ARGV[1], ARGV[3], ARGV[4], ARGV[5],\n"
	"function(m, data, rec, alive)\n"
	"  if not alive then dead[#dead + 1] = m return end\n"
	"  size = size + #m + (rec and #rec or 0) + #data\n"
	"  if size > 48 * 1024 * 1024 then return end\n"
	"  r[n + 1], r[n + 2], r[n + 3] = m, data, rec or ''\n"
	"  n = n + 3\n"
	"end)\n"
	/* As tooz does: who reads a group removes those who died. */
	"if ARGV[7] ~= '' and #dead > 0 then\n"
	"  for _, m in ipairs(dead) do\n"
	"    redis.call('HDEL', KEYS[1], m)\n"
	"    redis.call('HDEL', ARGV[1], m)\n"
	"  end\n"
	"  redis.call('EXISTS', unpack(KEYS))\n"
	"end\n"
	"if ARGV[7] ~= '' then for _, m in ipairs(old) do redis.call('HDEL', ARGV[1], m) end end\n"
	"if size > 48 * 1024 * 1024 or n > 1000000 then return {8} end\n"
	"return r\n";

/* For a watch: tracks, and says whether one has died and when the next can. KEYS: group. ARGV: owners,
 * what beats, sessions and beaters begin with. The answer: code, dead, milliseconds or -1. */
static const char group_look_body[] = FOREIGN THEIRS
	"if redis.call('EXISTS', KEYS[1]) == 0 then return {3, 0, -1} end\n"
	"local dead, next = 0, -1\n"
	"for _, m in ipairs(redis.call('HKEYS', KEYS[1])) do\n"
	"  if m ~= '__created__' then\n"
	"    local left = redis.call('PTTL', ARGV[2] .. m)\n"
	"    local rec = left ~= -2 and redis.call('HGET', ARGV[1], m)\n"
	"    local life = rec and redis.call('PTTL', ARGV[3] .. string.sub(rec, 1, 16)) or left\n"
	"    if life == -2 and left ~= -2 and theirs(ARGV[2] .. m, ARGV[4] .. m) then life = left "
	"end\n"
	"    if life == -2 then dead = dead + 1 end\n"
	"    left = math.min(left, life)\n"
	"    if left >= 0 and (next < 0 or left < next) then next = left end\n"
	"  end\n"
	"end\n"
	"return {0, dead, next}\n";

/* KEYS: group. ARGV: owners, member, data, owner, ttl, beat, beaters, session, what beats and what sessions begin
 * with, the claim on the mount's id, replace, what the session's key holds, what beaters begin with. Without its session, as on a
 * server that was emptied, the member would count as dead: it is there again, until the mount finds out what else
 * is missing. */
static const char join_body[] = CLOCK BEAT THEIRS ALIVE CLAIM
	"if redis.call('EXISTS', KEYS[1]) == 0 then return {3} end\n"
	/* First: whose id another has got by now joins nothing, and is told so, not that a member is there. */
	"local session = ARGV[10] .. ARGV[8]\n"
	"local open = redis.pcall('GET', session)\n"
	"if type(open) == 'string' and open ~= ARGV[13] then return {2} end\n"
	"local s = not open and claim(ARGV[11])\n"
	"if s and s ~= '' and s ~= ARGV[8] then return {2} end\n"
	"if redis.call('HEXISTS', KEYS[1], ARGV[2]) == 1 then\n"
	"  local rec = redis.call('HGET', ARGV[1], ARGV[2])\n"
	"  local mine = rec and string.sub(rec, 1, 16) == ARGV[8]\n"
	"  if alive(ARGV[9], ARGV[10], ARGV[14], ARGV[2], rec) and not (mine and ARGV[12] "
	"~= '') then return {4} end\n"
	"end\n"
	"if not open then redis.call('SET', session, ARGV[13], 'PX', ARGV[5]) end\n"
	"local born = text(us())\n"
	"redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])\n"
	"redis.call('HSET', ARGV[1], ARGV[2], ARGV[4] .. ' ' .. born .. ' 1 ' .. "
	"born .. ' ' .. born)\n"
	"beat(ARGV[6], ARGV[7], tonumber(ARGV[5]), ARGV[8])\n" TRACK "return {0}\n";

/* Whose the member is: ARGV 1 owners, 2 member, 4 owner or nothing for anybody's. */
#define OURS                                                                                       \
	"if redis.call('HEXISTS', KEYS[1], ARGV[2]) == 0 then return {3} end\n"                    \
	"local rec = redis.call('HGET', ARGV[1], ARGV[2])\n"                                       \
	"if ARGV[4] ~= '' and (not rec or string.sub(rec, 1, 32) ~= ARGV[4]) then return {5} "     \
	"end\n"

/* KEYS: group. ARGV: owners, member, data, owner or nothing, ttl, beat, beaters, session. */
static const char update_body[] = CLOCK BEAT OURS
	"redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])\n"
	"local a, v, j = string.match(rec or '', '^(%x+ %d+) (%d+) (%d+) ')\n"
	"if a then\n"
	"  redis.call('HSET', ARGV[1], ARGV[2], a .. ' ' .. text(v + 1) .. ' ' .. j .. ' ' .. "
	"text(us()))\n"
	"end\n"
	"if ARGV[4] == '' then beat(ARGV[6], ARGV[7], tonumber(ARGV[5]), ARGV[8]) end\n" TRACK
	"return {0}\n";

/* KEYS: group. ARGV: owners, member, nothing, owner or nothing, nothing, beat, beaters, session, last, what the
 * keys begin with that tell a session that a member of its was removed. */
static const char leave_body[] =
	CLOCK BEAT OURS "redis.call('HDEL', KEYS[1], ARGV[2])\n"
			"if rec and ARGV[4] == '' and string.sub(rec, 1, 16) ~= ARGV[8] then\n"
			"  local tell = ARGV[10] .. string.sub(rec, 1, 16)\n"
			"  redis.pcall('SET', tell, '1', 'PX', '1000')\n"
			"  redis.call('DEL', tell)\n"
			"end\n"
			"redis.call('HDEL', ARGV[1], ARGV[2])\n"
			"if ARGV[9] ~= '' then\n"
			"  unbeat(ARGV[6], ARGV[7], ARGV[8])\n"
			"end\n" TRACK "return {0}\n";

/* KEYS: group. ARGV: owners, member, what beats, sessions and beaters begin with. The answer: code, data, record. */
static const char member_get_body[] =
	FOREIGN THEIRS ALIVE "local data = redis.call('HGET', KEYS[1], ARGV[2])\n"
			     "local rec = redis.call('HGET', ARGV[1], ARGV[2])\n"
			     "if not data then return {3} end\n"
			     "local lives, rec = alive(ARGV[3], ARGV[4], ARGV[5], ARGV[2], rec)\n"
			     "if not lives then return {3} end\n"
			     "if #data > 48 * 1024 * 1024 then return {8} end\n"
			     "return {0, data, rec or ''}\n";

static const char *const bodies[REDIS_SCRIPTS] = {
	[REDIS_SCRIPT_LOCK] = lock_body,
	[REDIS_SCRIPT_CONVERT] = convert_body,
	[REDIS_SCRIPT_UNLOCK] = unlock_body,
	[REDIS_SCRIPT_CHECK] = check_body,
	[REDIS_SCRIPT_LOOK] = look_body,
	[REDIS_SCRIPT_UNMARK] = unmark_body,
	[REDIS_SCRIPT_BREAK] = break_body,
	[REDIS_SCRIPT_ROWS] = rows_body,
	[REDIS_SCRIPT_RENEW] = renew_body,
	[REDIS_SCRIPT_RIGHTS] = rights_body,
	[REDIS_SCRIPT_OPEN] = open_body,
	[REDIS_SCRIPT_CLOSE] = close_body,
	[REDIS_SCRIPT_ALIVE] = alive_body,
	[REDIS_SCRIPT_FENCE] = fence_body,
	[REDIS_SCRIPT_RENEW_MEMBERS] = renew_members_body,
	[REDIS_SCRIPT_RENEW_BEATS] = renew_beats_body,
	[REDIS_SCRIPT_GROUP_CREATE] = group_create_body,
	[REDIS_SCRIPT_GROUP_DELETE] = group_delete_body,
	[REDIS_SCRIPT_GROUP_LIST] = group_list_body,
	[REDIS_SCRIPT_GROUP_READ] = group_read_body,
	[REDIS_SCRIPT_GROUP_LOOK] = group_look_body,
	[REDIS_SCRIPT_JOIN] = join_body,
	[REDIS_SCRIPT_UPDATE] = update_body,
	[REDIS_SCRIPT_LEAVE] = leave_body,
	[REDIS_SCRIPT_MEMBER_GET] = member_get_body,
};

void redis_scripts_prepare(struct redis_script *ret)
{
	for (int i = 0; i < REDIS_SCRIPTS; i++) {
		ret[i].body = bodies[i];
		redis_script_prepare(&ret[i]);
	}
}

static bool has_word(char (*words)[REDIS_COMMAND_LEN], size_t n, const char *word)
{
	while (n > 0)
		if (strcmp(words[--n], word) == 0)
			return true;
	return false;
}

size_t redis_scripts_commands(char ret[REDIS_COMMANDS_MAX][REDIS_COMMAND_LEN])
{
	static const char call[] = "redis.call('";
	size_t n = 0;
	for (int i = 0; i < REDIS_SCRIPTS; i++)
		for (const char *at = bodies[i]; (at = strstr(at, call));) {
			char word[REDIS_COMMAND_LEN];
			at += sizeof(call) - 1;
			snprintf(word, sizeof(word), "%.*s", (int)strcspn(at, "'"), at);
			if (has_word(ret, n, word))
				continue;
			assert(n < REDIS_COMMANDS_MAX);
			strcpy(ret[n++], word);
		}
	return n;
}

int redis_code_errno(const redisReply *reply)
{
	static const int codes[REDIS_CODES] = {
		[REDIS_CODE_BUSY] = -EBUSY,
		[REDIS_CODE_STALE] = -ESTALE,
		[REDIS_CODE_NOENT] = -ENOENT,
		[REDIS_CODE_EXIST] = -EEXIST,
		[REDIS_CODE_PERM] = -EPERM,
		[REDIS_CODE_NOTEMPTY] = -ENOTEMPTY,
		[REDIS_CODE_BAD] = -EBADMSG,
		[REDIS_CODE_BIG] = -EFBIG,
	};
	if (reply->type == REDIS_REPLY_ERROR)
		return redis_errno(reply);
	if (reply->type != REDIS_REPLY_ARRAY || reply->elements == 0)
		return -EIO;
	const redisReply *code = reply->element[0];
	if (code->type != REDIS_REPLY_INTEGER || code->integer < 0 || code->integer >= REDIS_CODES)
		return -EIO;
	return codes[code->integer];
}
