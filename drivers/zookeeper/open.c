/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening: host names, a connection, our directories, the claim on the member id.
 *
 *   resolving -> connecting -> looking -> making -> claiming -> open
 *
 * If the connection drops on the way the library makes another, and the steps begin anew; the op's
 * deadline ends it.
 */
#include <stdio.h>
#include <syslog.h>

#include "drivers/zookeeper/session.h"

enum { LEASE_MIN_MS = 3000, ANSWER_MS = 100 };

enum { HOLDERS_MS = COORD_GRACE_MAX_MS + COORD_KILLED_MS };

static void open_fail(struct zk_session *zs, int status)
{
	struct coord_op *op = zs->open_op;
	zs->open_op = NULL;
	zk_op_forget(op);
	op->sent = COORD_SENT_ANSWERED;
	zk_session_close(zs, op, status);
}

static void claim_read(struct zk_req *req);

/* Nodes show neither who made them nor what is asked for. A node that cannot be made is its parent's matter. */
static void explain_access(const struct zk_session *zs, const char *path, bool parent)
{
	size_t len = strlen(path);
	while (parent && len > 1 && path[--len] != '/')
		;
	coord_op_explain(zs->open_op, "%.*s: made by another user, or with another password",
		(int)(len ? len : 1), path);
}

/* A step went wrong for good? A connection that was lost comes back by itself. */
static bool open_failed(struct zk_session *zs, const struct zk_req *req, const char *what)
{
	enum coord_sent sent;
	int rc = req->rc;
	if (rc == ZOK || rc == ZNODEEXISTS)
		return false;
	int status = zk_error(rc, &sent);
	if (status == -EHOSTDOWN || status == -ETIMEDOUT)
		return true;
	if (rc == ZNOAUTH)
		explain_access(zs, req->path, req->done != claim_read);
	else
		coord_op_explain(zs->open_op, "%s: %s", what, zerror(rc));
	open_fail(zs, status);
	return true;
}

static bool open_unsent(struct zk_session *zs, int r)
{
	if (r)
		open_fail(zs, r);
	return r;
}

/* ---- The claim ---- */

static void open_end(struct zk_session *zs)
{
	struct coord_op *op = zs->open_op;
	char id[32];
	zs->open_op = NULL;
	zs->open = true;
	coord_timer_stop(zs->loop, &zs->open_timer);
	snprintf(id, sizeof(id), "0x%llx", (unsigned long long)zs->sid);
	coord_session_set_id(zs->session, id);
	zs->confirmed_ms = zs->conn->handshake_ms;
	op->sent_ms = zs->confirmed_ms;
	op->ttl_ms = zs->ttl_ms;
	zk_answer(op, 0, COORD_SENT_ANSWERED);
}

static void claim_send(struct zk_session *zs);

enum { PASSWORD = 16, CLAIM_MAX = COORD_IDENTITY_MAX + 2 * PASSWORD + 2 };

/* Who we are, and on a second line the password of the session. */
static size_t claim_text(struct zk_session *zs, char ret[CLAIM_MAX])
{
	const clientid_t *id = zoo_client_id(zs->conn->zh);
	size_t len = coord_identity_format(&coord_session_config(zs->session)->identity, ret);
	ret[len++] = '\n';
	for (size_t i = 0; i < PASSWORD; i++)
		len += (size_t)sprintf(ret + len, "%02x", (unsigned char)id->passwd[i]);
	return len;
}

/* Splits it; false without a password. */
static bool claim_parse(struct coord_bytes *text, char ret_password[PASSWORD])
{
	const char *end = text->len ? memchr(text->data, '\n', text->len) : NULL;
	if (!end)
		return false;
	size_t rest = text->len - (size_t)(end + 1 - text->data);
	text->len = (size_t)(end - text->data);
	if (rest != 2 * PASSWORD)
		return false;
	for (size_t i = 0; i < PASSWORD; i++) {
		char two[3] = {end[1 + 2 * i], end[2 + 2 * i]}, *stop;
		ret_password[i] = (char)strtoul(two, &stop, 16);
		if (*stop || two[0] == '-' || two[0] == '+' || two[0] == ' ')
			return false;
	}
	return true;
}

static void claimed(struct zk_req *req)
{
	struct zk_session *zs = req->zs;
	if (req->rc == ZNONODE || req->rc == ZBADVERSION || req->rc == ZNODEEXISTS) {
		/* It changed under our eyes. */
		if (zk_op_of(zs->open_op)->tries++ < 8)
			claim_send(zs);
		else
			open_fail(zs, -EAGAIN);
		return;
	}
	if (open_failed(zs, req, "the member id cannot be claimed"))
		return;
	zs->claimed = true;
	open_end(zs);
}

/* Answers with who has the id. */
static int claim_refuse(struct zk_session *zs, struct coord_bytes text, bool live)
{
	struct coord_op *op = zs->open_op;
	const char *member = coord_session_config(zs->session)->member;
	struct coord_row *row = coord_op_row(op);
	if (!row)
		return -ENOMEM;
	if (text.len > COORD_IDENTITY_MAX)
		text.len = 0;
	row->name = coord_op_copy(op, member, strlen(member));
	row->data = coord_op_copy(op, text.data, text.len);
	row->flags = live ? COORD_ROW_LIVE : 0;
	return -EEXIST;
}

/* For how long a dead daemon's session has to stay. Its holders learned of the death when their handles died with
 * it, perhaps just now; an earlier boot's are dead. The op's deadline comes first. */
static uint64_t holders_need_ms(struct zk_session *zs, const struct coord_identity *other)
{
	const struct coord_op *op = zs->open_op;
	uint64_t now = coord_now_ms(zs->loop);
	if (strcmp(other->boot, coord_session_config(zs->session)->identity.boot) != 0)
		return 0;
	if (op->deadline_ms && op->deadline_ms < now + 2 * HOLDERS_MS)
		return op->deadline_ms > now ? (op->deadline_ms - now) / 2 : 0;
	return HOLDERS_MS;
}

/* The session that had the claim is closed. After a new connection meanwhile the opening may have ended without that. */
static void taken_over(struct zk_session *zs)
{
	if (zs->open_op)
		claim_send(zs);
}

/* The claim is another session's: one of ours that ended, or one of a dead process, is replaced. */
static void claim_read(struct zk_req *req)
{
	struct zk_session *zs = req->zs;
	const struct coord_config *config = coord_session_config(zs->session);
	struct coord_identity other = {0};
	if (req->rc == ZNONODE) {
		if (zk_op_of(zs->open_op)->tries++ < 8)
			claim_send(zs);
		else
			open_fail(zs, -EAGAIN);
		return;
	}
	if (open_failed(zs, req, "the claim on the member id cannot be read"))
		return;
	struct coord_bytes text = req->data;
	char password[PASSWORD] = {0};
	bool has_password = claim_parse(&text, password);
	int64_t sid = req->stat->ephemeralOwner;
	if (sid == zs->sid) {
		zs->claimed = true;
		open_end(zs);
		return;
	}
	bool known = coord_identity_parse(text, &other) == 0;
	enum coord_claim claim =
		known ? coord_identity_compare(&config->identity, &other) : COORD_CLAIM_ELSEWHERE;
	bool replace = zk_is_stale(zs, sid) ||
		       ((zs->open_op->flags & COORD_OP_REPLACE_STALE) && claim == COORD_CLAIM_DEAD);
	if (!replace) {
		open_fail(zs, claim_refuse(zs, text, claim == COORD_CLAIM_OURS));
		return;
	}
	/* Of a session of ours that was lost, the core has waited for the holders. */
	uint64_t after_ms = zk_is_stale(zs, sid) ? 0 : holders_need_ms(zs, &other);
	if (!zk_is_stale(zs, sid) && sid)
		zs->stale[zs->stale_next++ % ZK_STALE_MAX] = sid;
	/* The whole session, if we can; else its claim alone, and the rest times out. */
	struct zk_op *zo = zk_op_of(zs->open_op);
	if (has_password && sid && !zo->took_over &&
		zk_takeover(zs, sid, password, after_ms, taken_over) == 0) {
		zo->took_over = true;
		return;
	}
	char own[CLAIM_MAX];
	size_t len = claim_text(zs, own);
	open_unsent(zs, zk_replace(zs, zs->open_op, req->path, req->stat->version,
				(struct coord_bytes){own, len}, claimed, NULL));
}

static void claim_made(struct zk_req *req)
{
	struct zk_session *zs = req->zs;
	if (req->rc == ZNODEEXISTS) {
		open_unsent(zs, zk_get(zs, zs->open_op, req->path, false, claim_read, NULL));
		return;
	}
	if (open_failed(zs, req, "the member id cannot be claimed"))
		return;
	zs->claimed = true;
	open_end(zs);
}

static void claim_send(struct zk_session *zs)
{
	const struct coord_config *config = coord_session_config(zs->session);
	char path[ZK_PATH_MAX], text[CLAIM_MAX];
	if (!zs->conn->connected)
		return; /* begins anew when it is */
	size_t len = claim_text(zs, text);
	zk_path_claim(zs->root, config->member, path);
	open_unsent(zs, zk_create(zs, zs->open_op, path, (struct coord_bytes){text, len},
				ZOO_EPHEMERAL, claim_made, NULL));
}

/* ---- Directories ---- */

int zk_ensure(struct zk_session *zs, struct coord_op *op, const char *path, size_t skip,
	zk_done *last, void *user)
{
	char part[ZK_PATH_MAX];
	strcpy(part, path);
	for (char *slash = strchr(part + skip + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		int r = zk_create(
			zs, op, part, (struct coord_bytes){0}, ZOO_PERSISTENT, zk_ignore, NULL);
		if (r)
			return r;
		*slash = '/';
	}
	return zk_create(zs, op, path, (struct coord_bytes){0}, ZOO_PERSISTENT, last, user);
}

static void made(struct zk_req *req)
{
	struct zk_session *zs = req->zs;
	struct zk_op *zo = zk_op_of(zs->open_op);
	char what[ZK_PATH_MAX + 32];
	snprintf(what, sizeof(what), "%s cannot be made", req->path);
	if (open_failed(zs, req, what) || --zo->left > 0)
		return;
	claim_send(zs);
}

static void looked(struct zk_req *req)
{
	struct zk_session *zs = req->zs;
	struct zk_op *zo = zk_op_of(zs->open_op);
	bool *missing = req->user;
	*missing = req->rc == ZNONODE;
	if (req->rc != ZNONODE && open_failed(zs, req, "the server does not answer"))
		return;
	if (--zo->left > 0)
		return;
	if (coord_session_config(zs->session)->read_only) {
		open_end(zs);
		return;
	}
	zo->left = (unsigned)zo->no_root + (unsigned)zo->no_claims;
	char claims[ZK_PATH_MAX];
	zk_path_claim(zs->root, "", claims);
	if (zo->left == 0)
		claim_send(zs);
	else if (!zo->no_root ||
		 !open_unsent(zs, zk_ensure(zs, zs->open_op, zs->root, 0, made, NULL)))
		if (zo->no_claims)
			open_unsent(zs, zk_ensure(zs, zs->open_op, claims, 0, made, NULL));
}

static void open_look(struct zk_session *zs)
{
	struct coord_op *op = zs->open_op;
	struct zk_op *zo = zk_op_of(op);
	char claims[ZK_PATH_MAX];
	zk_path_claim(zs->root, "", claims);
	zk_op_forget(op);
	zo->left = 2;
	if (!open_unsent(zs, zk_exists(zs, op, zs->root, false, looked, &zo->no_root)))
		open_unsent(zs, zk_exists(zs, op, claims, false, looked, &zo->no_claims));
}

/* ---- The connection ---- */

/* The lease is shorter than who mounted it expects. */
static void warn_of_ttl(struct zk_session *zs)
{
	uint64_t asked = coord_session_config(zs->session)->membership_timeout_ms;
	if (zs->ttl_ms >= asked || zs->ttl_ms < LEASE_MIN_MS || zs->warned_ttl)
		return;
	zs->warned_ttl = true;
	coord_log(LOG_WARNING,
		"zookeeper: %s: gives sessions of %.15g s where %.15g s were asked for "
		"(maxSessionTimeout)",
		zoo_get_current_server(zs->conn->zh), (double)zs->ttl_ms / 1000,
		(double)asked / 1000);
}

static void on_connected(void *user)
{
	struct zk_session *zs = user;
	zs->sid = zoo_client_id(zs->conn->zh)->client_id;
	zs->ttl_ms = (uint64_t)zoo_recv_timeout(zs->conn->zh);
	coord_log(zs->open_op ? LOG_INFO : LOG_NOTICE, "zookeeper: %s: connected",
		zoo_get_current_server(zs->conn->zh));
	if (!zs->open_op) {
		zk_session_connected(zs);
		return;
	}
	warn_of_ttl(zs);
	if (zs->ttl_ms < LEASE_MIN_MS) {
		coord_op_explain(zs->open_op,
			"the server gives sessions of %llu ms, %d is the least (maxSessionTimeout)",
			(unsigned long long)zs->ttl_ms, LEASE_MIN_MS);
		open_fail(zs, -EINVAL);
		return;
	}
	open_look(zs);
}

static void on_disconnected(void *user)
{
	struct zk_session *zs = user;
	if (!zs->open)
		return;
	coord_log(
		LOG_WARNING, "zookeeper: %s", *zk_conn_words() ? zk_conn_words() : "disconnected");
	coord_session_event(zs->session, zs->epoch, COORD_EVENT_DISCONNECTED);
}

static void on_ended(void *user, bool auth_failed)
{
	struct zk_session *zs = user;
	if (auth_failed)
		coord_log(LOG_ERR, "zookeeper: the server refused the user name and password");
	if (!zs->open_op) {
		coord_session_event(zs->session, zs->epoch, COORD_EVENT_EXPIRED);
		return;
	}
	coord_op_explain(zs->open_op, "%s",
		auth_failed ? "the server refused the user name and password"
			    : "the session expired");
	open_fail(zs, auth_failed ? -EACCES : -EHOSTDOWN);
}

static void on_node(void *user, const char *path)
{
	zk_interests_fire(user, path);
}

static const struct zk_conn_events events = {on_connected, on_disconnected, on_ended, on_node};

static void resolved(void *user, const char *addresses, const char *why)
{
	struct zk_session *zs = user;
	const struct coord_config *config = coord_session_config(zs->session);
	struct coord_op *op = zs->open_op;
	zs->resolving = NULL;
	if (!addresses) {
		_cleanup_free_ char *hosts = zk_hosts_text(&zs->hosts);
		coord_op_explain(op, "%s: %s", hosts ? hosts : "", why);
		open_fail(zs, -EHOSTUNREACH);
		return;
	}
	free(zs->addresses);
	zs->addresses = strdup(addresses);
	int r = zk_conn_new(zs->loop, addresses, (int)config->membership_timeout_ms,
		!coord_config_bool(config, "randomize_hosts"), &events, zs, &zs->conn);
	if (!r && zs->auth) {
		zs->conn->auth = true;
		r = zoo_add_auth(zs->conn->zh, "digest", zs->auth, (int)strlen(zs->auth), NULL,
			    NULL) == ZOK
			    ? 0
			    : -ENOMEM;
	}
	if (r)
		open_fail(zs, r);
}

static void open_deadline(struct coord_timer *timer)
{
	struct zk_session *zs = coord_container(timer, struct zk_session, open_timer);
	_cleanup_free_ char *hosts = zk_hosts_text(&zs->hosts);
	const char *why = zk_conn_words();
	if (zs->conn && zs->conn->connected)
		coord_op_explain(zs->open_op, "%s: the server does not answer", hosts ? hosts : "");
	else
		coord_op_explain(zs->open_op, "%s: no server answers there%s%s%s",
			hosts ? hosts : "", *why ? " (" : "", why, *why ? ")" : "");
	open_fail(zs, -EHOSTDOWN);
}

void zk_open(struct coord_session *session, struct coord_op *op)
{
	struct zk_session *zs = zk_of(session);
	struct zk_op *zo = zk_op_of(op);
	*zo = (struct zk_op){.zs = zs, .op = op};
	coord_list_init(&zo->reqs);
	coord_list_init(&zo->interest.link);
	coord_list_init(&op->link);
	zs->epoch = op->epoch;
	zs->open_op = op;
	zs->open_timer.fn = open_deadline;
	uint64_t deadline = op->deadline_ms > ANSWER_MS ? op->deadline_ms - ANSWER_MS : 0;
	if (deadline)
		coord_timer_start(zs->loop, &zs->open_timer, deadline);
	int r = zk_hosts_resolve(zs->loop, &zs->hosts, resolved, zs, &zs->resolving);
	if (r)
		open_fail(zs, r);
}
