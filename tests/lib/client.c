/* SPDX-License-Identifier: Apache-2.0 */
/* Coordinators as tests use them. See client.h. */
#include "tests/lib/client.h"

#include <assert.h>
#include <stdio.h>

#include "coord/loop_uv.h"

enum { ANSWER_MS = 30000 };

/* ---- Worlds ---- */

/* The real loop runs until its time is over, or is asked after each short while. */
struct turn {
	struct coord_timer timer;
	struct coord_loop *loop;
	bool (*cond)(void *user);
	void *user;
	uint64_t end_ms;
	bool met;
};

static void turn_over(struct coord_timer *timer)
{
	struct turn *turn = coord_container(timer, struct turn, timer);
	uint64_t now = coord_now_ms(turn->loop);
	turn->met = turn->cond && turn->cond(turn->user);
	if (turn->met || now >= turn->end_ms)
		coord_loop_uv_stop(turn->loop);
	else
		coord_timer_start(turn->loop, &turn->timer, now + 1);
}

bool world_until(struct world *world, bool (*cond)(void *user), void *user, uint64_t ms)
{
	if (world->sim)
		return sim_run_until(world->sim, cond, user, ms);
	struct turn turn = {.timer.fn = turn_over,
		.loop = world->loop,
		.cond = cond,
		.user = user,
		.end_ms = coord_now_ms(world->loop) + ms};
	if (cond && cond(user))
		return true;
	coord_timer_start(world->loop, &turn.timer, 0);
	coord_loop_uv_run(world->loop);
	coord_timer_stop(world->loop, &turn.timer);
	return turn.met;
}

void world_run(struct world *world, uint64_t ms)
{
	world_until(world, NULL, NULL, ms);
}

static bool flag_set(void *user)
{
	return *(const bool *)user;
}

bool world_flag(struct world *world, const bool *flag, uint64_t ms)
{
	return world_until(world, flag_set, (void *)(uintptr_t)flag, ms);
}

/* ---- Clients ---- */

static void on_ready(void *user, int status, const char *text)
{
	struct client *client = user;
	client->ready = true;
	client->readies++;
	client->status = status;
	snprintf(client->text, sizeof(client->text), "%s", text ? text : "");
}

static void on_state(void *user, enum coord_state state)
{
	struct client *client = user;
	if (client->states_len < CLIENT_STATES)
		client->states[client->states_len++] = state;
}

static void on_lost(void *user, struct coord_holding *holding)
{
	struct client *client = user;
	struct taker *taker = coord_holding_user(holding);
	client->losses++;
	if (taker)
		taker->lost++;
	if (taker && taker->told_lost)
		taker->told_lost(taker);
}

static void on_stopped(void *user)
{
	struct client *client = user;
	client->stopped = true;
	client->stops++;
}

static const struct coord_notices notices = {
	.ready = on_ready,
	.state = on_state,
	.lost = on_lost,
	.stopped = on_stopped,
};

int client_start(struct client *client, struct world *world, struct coord_loop *loop,
	struct coord_config *config)
{
	_cleanup_free_ char *error = NULL;
	*client = (struct client){.world = world};
	int r = coord_new(loop, config, &notices, client, &client->coord, &error);
	if (r) {
		fprintf(stderr, "coord_new: %s\n", error ? error : strerror(-r));
		coord_config_free(config);
		return r;
	}
	coord_start(client->coord);
	return 0;
}

int client_open(struct client *client, struct world *world, struct coord_loop *loop,
	struct coord_config *config)
{
	int r = client_start(client, world, loop, config);
	if (r)
		return r;
	if (!world_flag(world, &client->ready, 2 * ANSWER_MS))
		client->status = -ETIME;
	if (client->status) {
		coord_free(client->coord);
		client->coord = NULL;
	}
	return client->status;
}

bool client_close(struct client *client)
{
	if (!client->coord)
		return true;
	coord_stop(client->coord);
	bool r = world_flag(client->world, &client->stopped, ANSWER_MS);
	coord_free(client->coord);
	client->coord = NULL;
	return r;
}

int client_config(const char *text, const struct coord_driver *driver, const char *member,
	const struct coord_option *options, struct coord_config **ret)
{
	struct coord_url url;
	_cleanup_free_ char *error = NULL;
	size_t options_len = 0;
	while (options && options[options_len].name)
		options_len++;
	int r = coord_url_parse(text, &url, &error);
	if (!r) {
		if (!driver)
			r = coord_driver_find(url.scheme, &driver, &error);
		if (!r)
			r = coord_config_new(driver, &url, options, options_len, NULL, NULL, member,
				ret, &error);
		if (r)
			coord_url_done(&url);
	}
	if (r)
		fprintf(stderr, "%s: %s\n", text, error ? error : strerror(-r));
	return r;
}

/* ---- Answers ---- */

static struct coord_bytes copy_bytes(struct coord_bytes from)
{
	char *copy = malloc(from.len + 1);
	assert(copy);
	if (from.len)
		memcpy(copy, from.data, from.len);
	copy[from.len] = 0;
	return (struct coord_bytes){copy, from.len};
}

void answer_reply(void *user, int status, const struct coord_row *rows, size_t rows_len)
{
	struct answer *answer = user;
	answer->done = true;
	answer->count++;
	answer->status = status;
	answer->rows = rows_len ? calloc(rows_len, sizeof(*rows)) : NULL;
	for (; rows; rows = rows->next) {
		assert(answer->len < rows_len);
		struct coord_row *row = &answer->rows[answer->len++];
		*row = *rows;
		row->name = copy_bytes(rows->name);
		row->data = copy_bytes(rows->data);
	}
	assert(answer->len == rows_len);
}

void answer_done(struct answer *answer)
{
	for (size_t i = 0; i < answer->len; i++) {
		free((char *)(uintptr_t)answer->rows[i].name.data);
		free((char *)(uintptr_t)answer->rows[i].data.data);
	}
	free(answer->rows);
	*answer = (struct answer){0};
}

const struct coord_row *answer_find(const struct answer *answer, const char *name, bool leader)
{
	for (size_t i = 0; i < answer->len; i++) {
		const struct coord_row *row = &answer->rows[i];
		if (!(row->flags & COORD_ROW_LEADER) == !leader &&
			coord_bytes_equal(row->name, coord_bytes_of(name)))
			return row;
	}
	return NULL;
}

/* Waits for what a request that answered r to its making will say. */
static int answer_wait(struct client *client, int r, struct answer *answer, struct coord_req *req,
	struct answer *ret)
{
	if (!r && !world_flag(client->world, &answer->done, ANSWER_MS)) {
		coord_req_drop(req);
		r = -ETIME;
	}
	if (!r)
		r = answer->status;
	if (ret)
		*ret = *answer;
	else
		answer_done(answer);
	return r;
}

int client_group_create(struct client *client, const char *group)
{
	struct answer a = {0};
	struct coord_req *req = NULL;
	int r = coord_group_create(client->coord, coord_bytes_of(group), answer_reply, &a, &req);
	return answer_wait(client, r, &a, req, NULL);
}

int client_group_delete(struct client *client, const char *group)
{
	struct answer a = {0};
	struct coord_req *req = NULL;
	int r = coord_group_delete(client->coord, coord_bytes_of(group), answer_reply, &a, &req);
	return answer_wait(client, r, &a, req, NULL);
}

int client_group_list(struct client *client, struct answer *ret)
{
	struct answer a = {0};
	struct coord_req *req = NULL;
	int r = coord_group_list(client->coord, answer_reply, &a, &req);
	return answer_wait(client, r, &a, req, ret);
}

int client_group_read(struct client *client, const char *group, bool with_data, struct answer *ret)
{
	struct answer a = {0};
	struct coord_req *req = NULL;
	int r = coord_group_read(
		client->coord, coord_bytes_of(group), with_data, answer_reply, &a, &req);
	return answer_wait(client, r, &a, req, ret);
}

int client_member_get(
	struct client *client, const char *group, const char *member, struct answer *ret)
{
	struct answer a = {0};
	struct coord_req *req = NULL;
	int r = coord_member_get(client->coord, coord_bytes_of(group), coord_bytes_of(member),
		answer_reply, &a, &req);
	return answer_wait(client, r, &a, req, ret);
}

int client_member_put(struct client *client, const char *group, const char *member,
	struct coord_bytes data, bool exclusive)
{
	struct answer a = {0};
	struct coord_req *req = NULL;
	int r = coord_member_put(client->coord, coord_bytes_of(group), coord_bytes_of(member), data,
		exclusive, 1000, answer_reply, &a, &req);
	return answer_wait(client, r, &a, req, NULL);
}

int client_member_leave(struct client *client, const char *group, const char *member)
{
	struct answer a = {0};
	struct coord_req *req = NULL;
	int r = coord_member_leave(client->coord, coord_bytes_of(group), coord_bytes_of(member),
		answer_reply, &a, &req);
	return answer_wait(client, r, &a, req, NULL);
}

int client_lock_list(struct client *client, enum coord_kind kind, struct answer *ret)
{
	struct answer a = {0};
	struct coord_req *req = NULL;
	int r = coord_lock_list(client->coord, kind, answer_reply, &a, &req);
	return answer_wait(client, r, &a, req, ret);
}

int client_lock_break(struct client *client, enum coord_kind kind, const char *name)
{
	struct answer a = {0};
	struct coord_req *req = NULL;
	int r = coord_lock_break(client->coord, kind, coord_bytes_of(name), answer_reply, &a, &req);
	return answer_wait(client, r, &a, req, NULL);
}

struct look {
	struct answer answer;
	struct coord_lock_info info;
	char owner[256];
};

static void look_reply(void *user, int status, const struct coord_lock_info *info)
{
	struct look *look = user;
	look->answer.done = true;
	look->answer.status = status;
	if (!info)
		return;
	look->info = *info;
	assert(info->owner.len < sizeof(look->owner));
	if (info->owner.len)
		memcpy(look->owner, info->owner.data, info->owner.len);
}

int client_lock_look(struct client *client, enum coord_kind kind, const char *name,
	struct coord_lock_info *ret, char ret_owner[256])
{
	struct look look = {0};
	struct coord_req *req = NULL;
	int r = coord_lock_look(client->coord, kind, coord_bytes_of(name), look_reply, &look, &req);
	r = answer_wait(client, r, &look.answer, req, NULL);
	if (!r) {
		look.info.owner = (struct coord_bytes){ret_owner, look.info.owner.len};
		memcpy(ret_owner, look.owner, sizeof(look.owner));
		*ret = look.info;
	}
	return r;
}

int client_group_look(struct client *client, const char *group)
{
	struct look look = {0};
	struct coord_req *req = NULL;
	int r = coord_group_look(client->coord, coord_bytes_of(group), look_reply, &look, &req);
	return answer_wait(client, r, &look.answer, req, NULL);
}

/* ---- Takers ---- */

static void taker_told(struct coord_wait *wait, int status)
{
	struct taker *taker = coord_container(wait, struct taker, wait);
	assert(taker->waiting);
	taker->waiting = false;
	taker->answered = true;
	taker->answers++;
	taker->status = status;
	taker->token = coord_holding_token(taker->holding);
	taker->answered_ms = coord_now_ms(coord_loop_of(taker->client->coord));
	if (taker->told)
		taker->told(taker);
}

int taker_new(
	struct client *client, enum coord_kind kind, struct coord_bytes name, struct taker *ret)
{
	*ret = (struct taker){.client = client, .wait.fn = taker_told};
	return coord_holding_new(client->coord, kind, name, ret, &ret->holding);
}

void taker_ask(struct taker *taker, enum coord_mode mode, unsigned flags)
{
	assert(!taker->waiting);
	taker->wait = (struct coord_wait){.fn = taker_told};
	taker->waiting = true;
	taker->answered = false;
	taker->asked++;
	coord_lock(taker->holding, mode, flags, &taker->wait);
}

int taker_answer(struct taker *taker, uint64_t ms)
{
	return world_flag(taker->client->world, &taker->answered, ms) ? taker->status : -ETIME;
}

int taker_lock(struct taker *taker, enum coord_mode mode, unsigned flags, uint64_t ms)
{
	taker_ask(taker, mode, flags);
	return taker_answer(taker, ms);
}

void taker_cancel(struct taker *taker, bool keep_place)
{
	if (!taker->waiting)
		return;
	coord_wait_cancel(&taker->wait, keep_place);
	taker->waiting = false;
	taker->asked--;
}

static void unlock_told(void *user, int status)
{
	answer_reply(user, status, NULL, 0);
}

int taker_unlock(struct taker *taker)
{
	struct answer a = {0};
	coord_unlock(taker->holding, unlock_told, &a);
	return answer_wait(taker->client, 0, &a, NULL, NULL);
}

int taker_check(struct taker *taker)
{
	struct answer a = {0};
	struct coord_req *req = NULL;
	int r = coord_check(taker->holding, answer_reply, &a, &req);
	return answer_wait(taker->client, r, &a, req, NULL);
}

int taker_barrier(struct taker *taker)
{
	struct answer a = {0};
	struct coord_req *req = NULL;
	int r = coord_barrier(taker->holding, answer_reply, &a, &req);
	return answer_wait(taker->client, r, &a, req, NULL);
}

void taker_free(struct taker *taker)
{
	taker_cancel(taker, false);
	coord_holding_free(taker->holding);
	taker->holding = NULL;
}

bool taker_holds(const struct taker *taker, enum coord_mode mode)
{
	return coord_holding_state(taker->holding) == COORD_HELD &&
	       (mode == COORD_NONE || coord_holding_mode(taker->holding) == mode);
}
