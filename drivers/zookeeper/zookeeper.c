/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zookeeper:// and kazoo:// -- an ensemble of ZooKeeper servers, in the layout of Python tooz's driver.
 *
 * One session is one epoch: everything that is held is an ephemeral node of it. The driver runs on the
 * loop alone, with the client library that has no threads; ending a session alone may block, and has
 * a worker. session.h says which file does what.
 */
#include <stdio.h>
#include <syslog.h>

#include "drivers/zookeeper/session.h"

/* ---- Configuration ---- */

static int refuse(char **ret_error, int status, const char *format, const char *what)
{
	if (asprintf(ret_error, format, what) < 0)
		*ret_error = NULL;
	return status;
}

/* Debian builds the client library without TLS: better no mount than one in the clear. */
static int configure_tls(const struct coord_config *config, char **ret_error)
{
	static const char *const texts[] = {"ca", "certfile", "keyfile", "keyfile_password"};
	const char *found = coord_config_bool(config, "use_ssl") ? "use_ssl" : NULL;
	for (size_t i = 0; !found && i < sizeof(texts) / sizeof(*texts); i++)
		if (coord_config_string(config, texts[i]))
			found = texts[i];
	if (!found)
		return 0;
	return refuse(ret_error, -EINVAL,
		"option '%s': this ZooKeeper client library was built without TLS; connect "
		"through a tunnel (stunnel, ssh, a VPN)",
		found);
}

static int configure_hosts(
	struct zk_session *zs, const struct coord_config *config, char **ret_error)
{
	const char *netloc = config->url.netloc ? config->url.netloc : "", *more;
	int r = zk_hosts_add(&zs->hosts, netloc);
	for (size_t i = 0; !r && (more = coord_config_list(config, "hosts", i)); i++)
		r = zk_hosts_add(&zs->hosts, more);
	if (!r && zs->hosts.len == 0)
		r = zk_hosts_add(&zs->hosts, "localhost:2181");
	if (r == -EINVAL)
		return refuse(ret_error, r,
			"'%s' (with the option 'hosts') is no list of servers: HOST[:PORT],...",
			netloc);
	return r;
}

/* One ACL for every node, as Python's: all rights, for who knows the password or for everybody. */
static int configure_acl(struct zk_session *zs, const struct coord_config *config, char **ret_error)
{
	const char *user = config->url.user, *password = config->url.password;
	zs->acl_entry = (struct ACL){.perms = ZOO_PERM_ALL, .id = {"world", "anyone"}};
	zs->acl = (struct ACL_vector){.count = 1, .data = &zs->acl_entry};
	bool has_user = user && *user, has_password = password && *password;
	if (has_user != has_password)
		return refuse(ret_error, -EINVAL,
			"a %s: with only one of the two every node would be open to everybody",
			has_user ? "user name without a password" : "password without a user name");
	if (!has_user)
		return 0;
	if (asprintf(&zs->auth, "%s:%s", user, password) < 0) {
		zs->auth = NULL;
		return -ENOMEM;
	}
	zs->acl_id = zk_digest_id(user, password);
	zs->acl_entry.id = (struct Id){"digest", zs->acl_id};
	return zs->acl_id ? 0 : -ENOMEM;
}

/* As in Python it means nothing. Other clients take it for a chroot. */
static void warn_of_path(const struct zk_session *zs, const struct coord_config *config)
{
	const char *path = config->url.path;
	if (path && *path && strcmp(path, "/") != 0)
		coord_log(LOG_WARNING,
			"zookeeper: the path '%s' of the URL has no effect; a chroot stands behind "
			"the servers of the option hosts=: hosts=%s%s",
			path, zs->hosts.len ? zs->hosts.list[0].name : "HOST", path);
}

static int zk_configure(
	struct coord_session *session, const struct coord_config *config, char **ret_error)
{
	struct zk_session *zs = zk_of(session);
	const char *namespace = coord_config_string(config, "namespace");
	zs->session = session;
	zs->loop = coord_session_loop(session);
	zk_session_init(zs);
	if (strlen(config->member) > ZK_NAME_MAX)
		return refuse(ret_error, -ENAMETOOLONG, "the member id is too long%s", "");
	int r = configure_tls(config, ret_error);
	if (!r)
		r = configure_hosts(zs, config, ret_error);
	if (!r)
		r = configure_acl(zs, config, ret_error);
	if (r)
		return r;
	warn_of_path(zs, config);
	r = zk_root_make(zs->hosts.chroot, namespace, zs->root);
	if (r)
		return refuse(ret_error, r, "option 'namespace': '%s' is no path of ZooKeeper",
			namespace);
	if (strncmp(zs->root, "/zookeeper", 10) == 0 && (!zs->root[10] || zs->root[10] == '/'))
		return refuse(ret_error, -EINVAL, "option 'namespace': %s is ZooKeeper's own",
			"/zookeeper");
	return 0;
}

/* Every legal name is a node of its own. */
static int zk_map_name(struct coord_session *session, enum coord_kind kind, struct coord_bytes name,
	char *ret_key, size_t *ret_len)
{
	(void)session;
	int r = zk_name_check(kind, name);
	if (r)
		return r;
	memcpy(ret_key, name.data, name.len);
	*ret_len = name.len;
	return 0;
}

static const char *const zk_schemes[] = {"zookeeper", "kazoo", NULL};

static const struct coord_param zk_params[] = {
	{.name = "namespace",
		.type = COORD_PARAM_STRING,
		.def = "tooz",
		.help = "path that everything lies below"},
	{.name = "hosts",
		.type = COORD_PARAM_STRING,
		.help = "more servers, HOST[:PORT],... and perhaps /CHROOT",
		.flags = COORD_PARAM_LIST},
	{.name = "randomize_hosts",
		.type = COORD_PARAM_BOOL,
		.def = "true",
		.help = "try the servers in random order"},
	{.name = "use_ssl",
		.type = COORD_PARAM_BOOL,
		.def = "false",
		.help = "refused: the client library has no TLS"},
	{.name = "ca", .type = COORD_PARAM_STRING, .help = "refused, as use_ssl"},
	{.name = "certfile", .type = COORD_PARAM_STRING, .help = "refused, as use_ssl"},
	{.name = "keyfile", .type = COORD_PARAM_STRING, .help = "refused, as use_ssl"},
	{.name = "keyfile_password",
		.type = COORD_PARAM_STRING,
		.help = "refused, as use_ssl",
		.flags = COORD_PARAM_SECRET},
	{.name = "verify_certs",
		.type = COORD_PARAM_STRING,
		.help = "of Python's TLS",
		.flags = COORD_PARAM_IGNORED},
	{.name = "handler",
		.type = COORD_PARAM_STRING,
		.help = "of Python's client: which kind of threads",
		.flags = COORD_PARAM_IGNORED},
	{.name = "connection_retry",
		.type = COORD_PARAM_STRING,
		.help = "of Python's client: an object of its process",
		.flags = COORD_PARAM_IGNORED},
	{.name = "command_retry",
		.type = COORD_PARAM_STRING,
		.help = "of Python's client: an object of its process",
		.flags = COORD_PARAM_IGNORED},
	{.name = NULL},
};

static uint64_t zk_requests(struct coord_session *session)
{
	const struct zk_session *zs = coord_session_data(session);
	return zs->requests;
}

const struct coord_driver toozfs_driver __attribute__((visibility("default"))) = {
	.abi = COORD_DRIVER_ABI,
	.name = "zookeeper",
	.help = "an ensemble of ZooKeeper servers",
	.schemes = zk_schemes,
	.params = zk_params,
	.characteristics = COORD_NON_TIMEOUT_BASED | COORD_DISTRIBUTED_ACROSS_THREADS |
			   COORD_DISTRIBUTED_ACROSS_PROCESSES | COORD_DISTRIBUTED_ACROSS_HOSTS |
			   COORD_SEQUENTIAL,
	.can = COORD_CAN_QUEUE | COORD_CAN_SHARED | COORD_CAN_NOTIFY | COORD_CAN_LIST_ALL |
	       COORD_CAN_BREAK | COORD_CAN_LEADER_ID | COORD_CAN_ORDERED | COORD_CAN_GROUPS,
	.loss = {COORD_LOSS_LEASE, COORD_LOSS_LEASE, COORD_LOSS_LEASE, COORD_LOSS_LEASE},
	.session_size = sizeof(struct zk_session),
	.grant_size = sizeof(struct zk_grant),
	.op_size = sizeof(struct zk_op),
	.value_max = ZK_VALUE_MAX,
	.ops_max = 1000,
	.configure = zk_configure,
	.session_free = zk_session_free,
	.grant_done = zk_grant_done,
	.map_name = zk_map_name,
	.open = zk_open,
	.close = zk_close,
	.renew = zk_renew,
	.group_create = zk_group_create,
	.group_delete = zk_group_delete,
	.group_list = zk_group_list,
	.group_read = zk_group_read,
	.member_join = zk_member_join,
	.member_update = zk_member_update,
	.member_leave = zk_member_leave,
	.member_get = zk_member_get,
	.lock = zk_lock,
	.unlock = zk_unlock,
	.lock_check = zk_lock_check,
	.lock_read = zk_lock_read,
	.lock_list = zk_lock_list,
	.lock_break = zk_lock_break,
	.unwatch = zk_unwatch,
	.cancel = zk_cancel,
	.requests = zk_requests,
};
