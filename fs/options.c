/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line of mount.tooz, and what stands behind -o.
 *
 * An option of -o is looked up in three places: the tree's own, the generic ones of mount(8) and FUSE, and
 * whatever is left is the driver's, whose table decides later whether it is known. So a driver's
 * option never needs to be declared here, and one name means one thing.
 *
 * mount(8) hands options on as it found them: commas inside double quotes or after a backslash are
 * part of a value.
 */
#include <ctype.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <strings.h>
#include <sys/stat.h>
#include <syslog.h>

#include "coord/driver.h"
#include "fs/options.h"

#define OPTIONS_MAX 256 /* driver options on one command line */
#define CREDENTIALS_MAX (64 << 10) /* bytes */
#define PARTITIONS_MAX 65536

static int bad(const char *name, const char *value, const char *wanted)
{
	coord_log(LOG_ERR, "option %s: \"%s\" is not %s", name, value, wanted);
	return -EINVAL;
}

static int set_text(char **text, const char *value)
{
	free(*text);
	*text = strdup(value);
	return *text ? 0 : -ENOMEM;
}

/* A number in the given base that fits below limit, and nothing else. */
static bool parse_number(const char *text, int base, uint64_t limit, uint64_t *ret)
{
	if (!isxdigit((unsigned char)text[0]))
		return false;
	char *end;
	errno = 0;
	uint64_t number = strtoull(text, &end, base);
	if (errno || *end || number > limit)
		return false;
	*ret = number;
	return true;
}

/* ---- Options of our own ---- */

static int set_member(struct fs_command *command, const char *value)
{
	return set_text(&command->member, value);
}

static int set_uid(struct fs_command *command, const char *value)
{
	uint64_t number;
	const struct passwd *entry;
	if (parse_number(value, 10, UINT32_MAX - 1, &number))
		command->tree.uid = (uint32_t)number;
	else if ((entry = getpwnam(value)))
		command->tree.uid = entry->pw_uid;
	else
		return bad("uid", value, "a user");
	return 0;
}

static int set_gid(struct fs_command *command, const char *value)
{
	uint64_t number;
	const struct group *entry;
	if (parse_number(value, 10, UINT32_MAX - 1, &number))
		command->tree.gid = (uint32_t)number;
	else if ((entry = getgrnam(value)))
		command->tree.gid = entry->gr_gid;
	else
		return bad("gid", value, "a group");
	return 0;
}

static int set_umask(struct fs_command *command, const char *value)
{
	uint64_t number;
	if (!parse_number(value, 8, 0777, &number))
		return bad("umask", value, "an octal number of at most 777");
	command->tree.umask = (uint32_t)number;
	return 0;
}

static int set_partitions(struct fs_command *command, const char *value)
{
	uint64_t number;
	if (!parse_number(value, 10, PARTITIONS_MAX, &number) || number == 0)
		return bad("partitions", value, "a number from 1 to 65536");
	command->tree.partitions = number;
	return 0;
}

static int set_on_loss(struct fs_command *command, const char *value)
{
	static const struct {
		const char *name;
		int signum;
	} known[] = {{"none", 0}, {"term", SIGTERM}, {"hup", SIGHUP}, {"kill", SIGKILL}};
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		if (strcasecmp(value, known[i].name))
			continue;
		command->tree.on_loss = known[i].signum;
		return 0;
	}
	return bad("on_loss", value, "one of none, term, hup, kill");
}

/* One characteristic: any case, with - for _. */
static bool same_characteristic(const char *name, const char *text, size_t len)
{
	if (strlen(name) != len)
		return false;
	for (size_t i = 0; i < len; i++) {
		char c = text[i] == '-' ? '_' : (char)toupper((unsigned char)text[i]);
		if (c != name[i])
			return false;
	}
	return true;
}

static void log_characteristics(void)
{
	char list[1024] = "";
	const char *name;
	for (unsigned bit = 0; (name = coord_characteristic_name(bit)); bit++) {
		size_t len = strlen(list);
		snprintf(list + len, sizeof(list) - len, "%s%s", bit ? ", " : "", name);
	}
	coord_log(LOG_ERR, "known characteristics: %s", list);
}

/* Names separated by colons, since a comma ends an option. */
static int set_require(struct fs_command *command, const char *value)
{
	for (const char *p = value; *p;) {
		size_t len = strcspn(p, ":");
		const char *name;
		unsigned bit = 0;
		while ((name = coord_characteristic_name(bit)) &&
			!same_characteristic(name, p, len))
			bit++;
		if (!name) {
			char text[64];
			snprintf(text, sizeof(text), "%.*s", (int)len, p);
			bad("require", text, "a characteristic");
			log_characteristics();
			return -EINVAL;
		}
		command->require |= 1u << bit;
		p += len + (p[len] == ':');
	}
	return 0;
}

static int set_allow_other(struct fs_command *command, const char *value)
{
	command->tree.allow_other = true;
	return 0;
}

static int set_ro(struct fs_command *command, const char *value)
{
	command->tree.read_only = true;
	return 0;
}

static int set_rw(struct fs_command *command, const char *value)
{
	command->tree.read_only = false;
	return 0;
}

static int set_foreground(struct fs_command *command, const char *value)
{
	command->foreground = true;
	return 0;
}

static int set_remount(struct fs_command *command, const char *value)
{
	command->remount = true;
	return 0;
}

static int set_allow_root(struct fs_command *command, const char *value)
{
	coord_log(LOG_ERR,
		"option allow_root is not supported: use allow_other, and uid=, gid= and "
		"umask= to say who may do what");
	return -EINVAL;
}

static int add_driver_option(struct fs_command *command, const char *name, const char *value)
{
	if (command->driver_options_len == OPTIONS_MAX) {
		coord_log(LOG_ERR, "more than %d options", OPTIONS_MAX);
		return -EINVAL;
	}
	struct coord_option *grown = realloc(
		command->driver_options, (command->driver_options_len + 1) * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	command->driver_options = grown;
	struct coord_option *option = &grown[command->driver_options_len];
	option->name = strdup(name);
	option->value = strdup(value);
	command->driver_options_len++;
	return option->name && option->value ? 0 : -ENOMEM;
}

/* ---- credentials=FILE ---- */

/* Opens a file that nobody else can read, or says why not. */
static int credentials_open(const char *path, char *ret_text, size_t size)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;
	if (fd < 0 || fstat(fd, &st)) {
		coord_log(LOG_ERR, "credentials %s: %s", path, strerror(errno));
		return -EINVAL;
	}
	if (!S_ISREG(st.st_mode)) {
		coord_log(LOG_ERR, "credentials %s: not a file", path);
		return -EINVAL;
	}
	if (st.st_mode & 077) {
		coord_log(LOG_ERR,
			"credentials %s: its mode is %04o, so others than its owner may use it; "
			"chmod 600 it",
			path, st.st_mode & 07777);
		return -EINVAL;
	}
	if (st.st_uid != geteuid() && st.st_uid != 0) {
		coord_log(LOG_ERR, "credentials %s: belongs to another user", path);
		return -EINVAL;
	}
	size_t len = 0;
	ssize_t n;
	while (len < size && (n = read(fd, ret_text + len, size - len)) > 0)
		len += (size_t)n;
	if (len == size) {
		coord_log(LOG_ERR, "credentials %s: too long", path);
		return -EINVAL;
	}
	ret_text[len] = '\0';
	return 0;
}

/* Options of drivers that are secret, or go with one. */
static int credentials_option(struct fs_command *command, const char *line)
{
	static const char *const names[] = {"sentinel_username", "sentinel_password"};
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		size_t len = strlen(names[i]);
		if (!strncmp(line, names[i], len) && line[len] == '=')
			return add_driver_option(command, names[i], line + len + 1);
	}
	return -ENOENT;
}

/* A line is never quoted in a message: it may be a password with a slip of the pen before it. */
static int credentials_line(
	struct fs_command *command, const char *path, unsigned number, char *line)
{
	line[strcspn(line, "\r")] = '\0';
	while (*line == ' ' || *line == '\t')
		line++;
	if (!*line || *line == '#')
		return 0;
	if (!strncmp(line, "username=", 9))
		return set_text(&command->user, line + 9);
	if (!strncmp(line, "password=", 9))
		return set_text(&command->password, line + 9);
	int r = credentials_option(command, line);
	if (r != -ENOENT)
		return r;
	coord_log(
		LOG_ERR, "credentials %s, line %u: neither username= nor password=", path, number);
	return -EINVAL;
}

static int set_credentials(struct fs_command *command, const char *path)
{
	char text[CREDENTIALS_MAX + 1];
	int r = credentials_open(path, text, CREDENTIALS_MAX);
	if (r < 0)
		return r;
	unsigned number = 0;
	char *next = text;
	for (char *line; r == 0 && (line = strsep(&next, "\n"));)
		r = credentials_line(command, path, ++number, line);
	explicit_bzero(text, sizeof(text));
	if (r == 0 && !command->user && !command->password) {
		coord_log(LOG_ERR, "credentials %s: has neither username= nor password=", path);
		r = -EINVAL;
	}
	return r;
}

/* ---- The tables ---- */

enum takes { TAKES_NOTHING, TAKES_VALUE };

static const struct own_option {
	const char *name;
	enum takes takes;
	int (*set)(struct fs_command *, const char *value);
} own_options[] = {
	{"member", TAKES_VALUE, set_member},
	{"uid", TAKES_VALUE, set_uid},
	{"gid", TAKES_VALUE, set_gid},
	{"umask", TAKES_VALUE, set_umask},
	{"partitions", TAKES_VALUE, set_partitions},
	{"on_loss", TAKES_VALUE, set_on_loss},
	{"require", TAKES_VALUE, set_require},
	{"credentials", TAKES_VALUE, set_credentials},
	{"allow_other", TAKES_NOTHING, set_allow_other},
	{"allow_root", TAKES_NOTHING, set_allow_root},
	{"ro", TAKES_NOTHING, set_ro},
	{"rw", TAKES_NOTHING, set_rw},
	{"foreground", TAKES_NOTHING, set_foreground},
	{"remount", TAKES_NOTHING, set_remount},
};

/* Handed on to libfuse and the kernel. A final = takes a value. */
static const char *const passed_options[] = {"suid", "nosuid", "dev", "nodev", "exec", "noexec",
	"noatime", "max_read=", "context=", "fscontext=", "defcontext=", "rootcontext=", NULL};

/* For mount(8), systemd or nobody: they have done their work before we are called, or mean nothing for a tree
 * without blocks, access times and symbolic links. default_permissions comes with allow_other. Source and type are
 * always ours, so fsname= and subtype= are not heard. A final * stands for anything. */
static const char *const ignored_options[] = {"defaults", "auto", "noauto", "nofail", "_netdev",
	"user", "user=*", "nouser", "users", "nousers", "owner", "noowner", "group", "nogroup",
	"comment=*", "x-*", "X-*", "helper=*", "uhelper=*", "_rnetdev", "async", "sync", "dirsync",
	"atime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime", "nostrictatime",
	"lazytime", "nolazytime", "mand", "nomand", "silent", "loud", "iversion", "noiversion",
	"symfollow", "nosymfollow", "default_permissions", "auto_unmount", "fsname=*", "subtype=*",
	NULL};

static bool is_listed(const char *const *list, const char *option)
{
	for (; *list; list++) {
		size_t len = strlen(*list);
		char last = (*list)[len - 1];
		if (last == '*'       ? !strncmp(*list, option, len - 1)
			: last == '=' ? !strncmp(*list, option, len)
				      : !strcmp(*list, option))
			return true;
	}
	return false;
}

/* ---- Parsing ---- */

/* Takes the next option off *text, as libmount does; NULL at the end, or with errno set. */
static char *next_option(const char **text)
{
	const char *p = *text;
	if (!*p)
		return NULL;
	char *option = malloc(strlen(p) + 1), *out = option;
	if (!option)
		return NULL;
	bool quoted = false, value = false;
	for (; *p && (quoted || *p != ','); p++) {
		if (*p == '"' && (quoted || (value && out[-1] == '=')))
			quoted = !quoted;
		else if (*p == '\\' && (p[1] == ',' || p[1] == '\\'))
			*out++ = *++p;
		else
			*out++ = *p;
		value = value || *p == '=';
	}
	*out = '\0';
	*text = p + (*p == ',');
	return option;
}

static int add_fuse_option(struct fs_command *command, const char *option)
{
	/* In the list for libfuse a comma has to be escaped again. */
	size_t len = command->fuse_options ? strlen(command->fuse_options) : 0;
	char *grown = realloc(command->fuse_options, len + 2 * strlen(option) + 2);
	if (!grown)
		return -ENOMEM;
	command->fuse_options = grown;
	char *out = grown + len;
	if (len)
		*out++ = ',';
	for (; *option; option++) {
		if (*option == ',' || *option == '\\')
			*out++ = '\\';
		*out++ = *option;
	}
	*out = '\0';
	return 0;
}

static int own_option(struct fs_command *command, const struct own_option *own, const char *value)
{
	if (own->takes == TAKES_VALUE && (!value || !*value)) {
		coord_log(LOG_ERR, "option %s needs a value: %s=...", own->name, own->name);
		return -EINVAL;
	}
	if (own->takes == TAKES_NOTHING && value) {
		coord_log(LOG_ERR, "option %s takes no value", own->name);
		return -EINVAL;
	}
	return own->set(command, value);
}

static int add_option(struct fs_command *command, char *option)
{
	if (!*option)
		return 0;
	if (is_listed(ignored_options, option))
		return 0;
	if (is_listed(passed_options, option))
		return add_fuse_option(command, option);
	char *value = strchr(option, '=');
	if (value)
		*value++ = '\0';
	for (size_t i = 0; i < sizeof(own_options) / sizeof(own_options[0]); i++)
		if (!strcmp(option, own_options[i].name))
			return own_option(command, &own_options[i], value);
	if (value && !*value) {
		coord_log(LOG_ERR, "option %s needs a value: %s=...", option, option);
		return -EINVAL;
	}
	/* Without a value: settled by fs_command_match, once the driver is known. */
	return add_driver_option(command, option, value ? value : "");
}

static int add_options(struct fs_command *command, const char *text)
{
	int r = 0;
	for (char *option; r == 0 && *text;) {
		option = next_option(&text);
		if (!option)
			return -ENOMEM;
		r = add_option(command, option);
		explicit_bzero(option, strlen(option));
		free(option);
	}
	return r;
}

/* URL and DIR, and nothing else. */
static int take_operands(struct fs_command *command, char **operands, int len)
{
	if (command->action == FS_WAIT) {
		if (len == 1)
			return set_text(&command->dir, operands[0]);
		coord_log(LOG_ERR, "--wait needs one directory");
		return -EINVAL;
	}
	if (len != 2) {
		coord_log(LOG_ERR, "%s; usage: mount.tooz URL DIR [-sfnv] [-N NS] [-o OPTIONS]",
			len < 2 ? "URL and DIR are needed" : "too many arguments");
		return -EINVAL;
	}
	if (!*operands[0] || !*operands[1]) {
		coord_log(LOG_ERR, "%s is empty", *operands[0] ? "DIR" : "URL");
		return -EINVAL;
	}
	int r = set_text(&command->url, operands[0]);
	return r < 0 ? r : set_text(&command->dir, operands[1]);
}

enum { LONG_HELP = 256, LONG_VERSION, LONG_DRIVERS, LONG_WAIT };

static const struct option long_options[] = {
	{"help", no_argument, NULL, LONG_HELP},
	{"version", no_argument, NULL, LONG_VERSION},
	{"drivers", no_argument, NULL, LONG_DRIVERS},
	{"wait", no_argument, NULL, LONG_WAIT},
	{"verbose", no_argument, NULL, 'v'},
	{"fake", no_argument, NULL, 'f'},
	{"no-mtab", no_argument, NULL, 'n'},
	{"options", required_argument, NULL, 'o'},
	{"types", required_argument, NULL, 't'},
	{"namespace", required_argument, NULL, 'N'},
	{0},
};

static int add_flag(struct fs_command *command, int flag, const char *value)
{
	switch (flag) {
	case 's':
		command->sloppy = true;
		return 0;
	case 'f':
		command->fake = true;
		return 0;
	case 'v':
		command->verbose = true;
		return 0;
	case 'n': /* there is no /etc/mtab to write */
	case 't': /* we are of one type only */
		return 0;
	case 'r':
		return set_ro(command, NULL);
	case 'w':
		return set_rw(command, NULL);
	case 'N':
		return set_text(&command->mnt_ns, value);
	case 'o':
		return add_options(command, value);
	case LONG_HELP:
	case 'h':
		command->action = FS_HELP;
		return 0;
	case LONG_VERSION:
	case 'V':
		command->action = FS_VERSION;
		return 0;
	case LONG_DRIVERS:
		command->action = FS_DRIVERS;
		return 0;
	case LONG_WAIT:
		command->action = FS_WAIT;
		return 0;
	default:
		coord_log(LOG_ERR, "see mount.tooz --help");
		return -EINVAL;
	}
}

int fs_command_parse(int argc, char **argv, struct fs_command *command)
{
	*command = (struct fs_command){
		.tree = {.uid = geteuid(), .gid = getegid(), .umask = 022, .partitions = 32},
	};
	int flag, r = 0;
	while (r == 0 &&
		(flag = getopt_long(argc, argv, "sfnvrwhVN:o:t:", long_options, NULL)) != -1)
		r = add_flag(command, flag, optarg);
	if (r == 0 && (command->action == FS_MOUNT || command->action == FS_WAIT))
		r = take_operands(command, argv + optind, argc - optind);
	command->tree.fuse_options = command->fuse_options;
	if (r == -ENOMEM)
		coord_log(LOG_ERR, "out of memory");
	return r;
}

void fs_command_done(struct fs_command *command)
{
	if (command->password)
		explicit_bzero(command->password, strlen(command->password));
	for (size_t i = 0; i < command->driver_options_len; i++) {
		free((char *)command->driver_options[i].name);
		free((char *)command->driver_options[i].value);
	}
	free(command->driver_options);
	free(command->fuse_options);
	free(command->url);
	free(command->dir);
	free(command->mnt_ns);
	free(command->member);
	free(command->user);
	free(command->password);
	*command = (struct fs_command){0};
}

/* ---- What ps(1) shows ---- */

static bool is_public(const char *option)
{
	if (is_listed(ignored_options, option) || is_listed(passed_options, option))
		return true;
	size_t len = strcspn(option, "=");
	for (size_t i = 0; i < sizeof(own_options) / sizeof(own_options[0]); i++)
		if (strlen(own_options[i].name) == len &&
			!strncmp(option, own_options[i].name, len))
			return true;
	return false;
}

/* Every character of the values of driver options becomes x; which of them are secret only the driver
 * would know. Quotes and backslashes are taken as next_option takes them. */
static void hide_values(char *text)
{
	const char *p = text;
	while (*p) {
		char *start = text + (p - text);
		char *option = next_option(&p);
		bool public = option && is_public(option);
		free(option);
		char *value = strchr(start, '=');
		const char *end = p > start && p[-1] == ',' ? p - 1 : p;
		if (!public && value && value < end)
			memset(value + 1, 'x', (size_t)(end - value - 1));
	}
}

/* Where the text of -o begins: in this argument, in the next one (*ret_next), or NULL: no -o here. */
static char *find_options(char *arg, bool *ret_next)
{
	*ret_next = false;
	if (!strncmp(arg, "--options", 9) && (!arg[9] || arg[9] == '=')) {
		*ret_next = !arg[9];
		return arg[9] ? arg + 10 : NULL;
	}
	if (arg[0] != '-' || arg[1] == '-')
		return NULL;
	/* Flags in one word, up to one that takes a value. */
	arg += strcspn(arg, "oNt");
	if (*arg != 'o')
		return NULL;
	*ret_next = !arg[1];
	return arg[1] ? arg + 1 : NULL;
}

static void hide_url(char *arg, const char *shown)
{
	size_t len = strlen(arg);
	bool fits = shown && strlen(shown) <= len;
	memset(arg, fits ? 0 : 'x', len);
	if (fits)
		memcpy(arg, shown, strlen(shown));
}

void fs_command_hide(int argc, char **argv, const char *url, const char *shown)
{
	for (int i = 1; i < argc; i++) {
		bool next;
		char *options = find_options(argv[i], &next);
		if (options)
			hide_values(options);
		else if (next && i + 1 < argc)
			hide_values(argv[++i]);
		else if (url && !strcmp(argv[i], url))
			hide_url(argv[i], shown);
	}
}

/* ---- The driver's table ---- */

static const struct coord_param *find_param(const struct coord_param *params, const char *name)
{
	for (; params && params->name; params++)
		if (!strcmp(params->name, name))
			return params;
	return NULL;
}

/* Returns 1 to keep the option, 0 to drop it. */
static int match_option(
	struct fs_command *command, const struct coord_param *param, struct coord_option *option)
{
	if (!param && command->sloppy) {
		coord_log(LOG_WARNING, "option %s is unknown and skipped", option->name);
		return 0;
	}
	if (*option->value || !param)
		return 1;
	if (param->type != COORD_PARAM_BOOL) {
		coord_log(LOG_ERR, "option %s needs a value: %s=...", option->name, option->name);
		return -EINVAL;
	}
	return set_text((char **)&option->value, "1") < 0 ? -ENOMEM : 1;
}

int fs_command_match(struct fs_command *command, const struct coord_param *params)
{
	size_t kept = 0;
	for (size_t i = 0; i < command->driver_options_len; i++) {
		struct coord_option *option = &command->driver_options[i];
		const struct coord_param *param = find_param(params, option->name);
		int r = match_option(command,
			param ? param : find_param(coord_common_params, option->name), option);
		if (r < 0)
			return r;
		if (r == 0) {
			free((char *)option->name);
			free((char *)option->value);
			*option = (struct coord_option){0};
			continue;
		}
		struct coord_option moved = *option;
		*option = (struct coord_option){0};
		command->driver_options[kept++] = moved;
	}
	command->driver_options_len = kept;
	return 0;
}

void fs_command_log_known(const struct fs_command *command, const struct coord_param *params)
{
	char list[512] = "";
	size_t i = 0;
	while (i < command->driver_options_len &&
		(find_param(params, command->driver_options[i].name) ||
			find_param(coord_common_params, command->driver_options[i].name)))
		i++;
	if (i == command->driver_options_len)
		return;
	for (i = 0; i < sizeof(own_options) / sizeof(own_options[0]); i++)
		if (own_options[i].set != set_allow_root && own_options[i].set != set_remount)
			snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s",
				*list ? ", " : "", own_options[i].name);
	coord_log(LOG_ERR, "with -o mount.tooz itself knows: %s, and those of mount(8)", list);
}
