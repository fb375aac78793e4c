/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which drivers there are, and how to get one.
 *
 * Built-in drivers are named weakly: a program that links them has them, and one that does not, as a
 * unit test, still links. Every other driver is a module, NAME.so, with one exported symbol. NAME
 * comes from the table below and never from a URL. A module stays loaded to the end: callbacks and
 * destructors of its libraries may point into it.
 */
#include "coord/coord.h"

#include <assert.h>
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <syslog.h>

extern const struct coord_driver coord_driver_file __attribute__((weak));
extern const struct coord_driver coord_driver_memory __attribute__((weak));

/* The modules there can be. A package is named toozfs-NAME. */
static const struct module {
	const char *name;
	const char *schemes[4];
} modules[] = {
	{"redis", {"redis"}},
	{"zookeeper", {"zookeeper", "kazoo"}},
	{"etcd3", {"etcd3", "etcd3+http", "etcd3+https"}},
	{"etcd", {"etcd"}},
	{"consul", {"consul"}},
	{"memcached", {"memcached"}},
	{"postgresql", {"postgresql"}},
	{"mysql", {"mysql"}},
	{"ipc", {"ipc"}},
	{"kubernetes", {"kubernetes"}},
};
#define MODULES (sizeof(modules) / sizeof(modules[0]))

/* Those that a test brought along. */
#define REGISTERED_MAX 8
static const struct coord_driver *registered[REGISTERED_MAX];
static size_t registered_len;

void coord_driver_register(const struct coord_driver *driver)
{
	assert(driver->abi == COORD_DRIVER_ABI && registered_len < REGISTERED_MAX);
	registered[registered_len++] = driver;
}

/* The i-th driver of this program itself, the newest registered first; NULL past the last. */
static const struct coord_driver *built_in(size_t i)
{
	if (i < registered_len)
		return registered[registered_len - 1 - i];
	i -= registered_len;
	const struct coord_driver *linked[2];
	size_t n = 0;
	if (&coord_driver_file)
		linked[n++] = &coord_driver_file;
	if (&coord_driver_memory)
		linked[n++] = &coord_driver_memory;
	return i < n ? linked[i] : NULL;
}

static bool has_scheme(const char *const *schemes, const char *scheme)
{
	for (; *schemes; schemes++)
		if (strcmp(*schemes, scheme) == 0)
			return true;
	return false;
}

/* Cuts the last part off a path; false at the root. */
static bool cut_last(char *path)
{
	char *slash = strrchr(path, '/');
	if (!slash || slash == path)
		return false;
	*slash = '\0';
	return true;
}

/* The meson build tree that this program lies in, for trying it before it is installed. */
static bool find_build_tree(char *ret, size_t size)
{
	ssize_t len = readlink("/proc/self/exe", ret, size - 1);
	if (len < 0)
		return false;
	ret[len] = '\0';
	while (cut_last(ret)) {
		char mark[PATH_MAX + 32];
		snprintf(mark, sizeof(mark), "%s/meson-private/coredata.dat", ret);
		if (access(mark, F_OK) == 0)
			return true;
	}
	return false;
}

/* Where the module has to be. NULL: out of memory. */
static char *module_path(const struct module *module)
{
	char tree[PATH_MAX], *path;
	int len = find_build_tree(tree, sizeof(tree))
			  ? asprintf(&path, "%s/drivers/%s/%s.so", tree, module->name, module->name)
			  : asprintf(&path, "%s/%s.so", TOOZFS_MODULE_DIR, module->name);
	return len < 0 ? NULL : path;
}

/* Returns 0, -ENOENT, -ENOEXEC or -ENOMEM, with a text. */
static int load(const struct module *module, const struct coord_driver **ret, char **ret_error)
{
	_cleanup_free_ char *path = module_path(module);
	if (!path)
		return -ENOMEM;
	if (access(path, F_OK) < 0) {
		if (asprintf(ret_error, "the %s driver is not installed: no %s (package toozfs-%s)",
			    module->name, path, module->name) < 0)
			*ret_error = NULL;
		return -ENOENT;
	}
	void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	const struct coord_driver *driver = handle ? dlsym(handle, "toozfs_driver") : NULL;
	const char *why = NULL;
	if (!driver)
		why = dlerror();
	else if (driver->abi != COORD_DRIVER_ABI)
		why = "built for another version of toozfs";
	else if (strcmp(driver->name, module->name) != 0)
		why = "holds another driver than its name says";
	if (!driver || why) {
		if (asprintf(ret_error, "cannot load the %s driver: %s%s%s", module->name,
			    driver ? path : "", driver ? ": " : "", why) < 0)
			*ret_error = NULL;
		return -ENOEXEC;
	}
	*ret = driver;
	return 0;
}

static void list_schemes(FILE *out, const char *const *schemes, const char **before)
{
	for (; *schemes; schemes++) {
		fprintf(out, "%s%s", *before, *schemes);
		*before = ", ";
	}
}

/* "no driver for 'x://'; there are: file, memory; not installed: redis, ..." */
static void describe(const char *scheme, char **ret_error)
{
	size_t len;
	*ret_error = NULL;
	FILE *out = open_memstream(ret_error, &len);
	if (!out)
		return;
	fprintf(out, "no driver for '%s'", scheme);
	const char *before = "; there are: ";
	const struct coord_driver *driver;
	for (size_t i = 0; (driver = built_in(i)); i++)
		list_schemes(out, driver->schemes, &before);
	for (int missing = 0; missing < 2; missing++) {
		if (missing)
			before = "; not installed: ";
		for (size_t i = 0; i < MODULES; i++) {
			_cleanup_free_ char *path = module_path(&modules[i]);
			if (path && (access(path, F_OK) < 0) == missing)
				list_schemes(out, modules[i].schemes, &before);
		}
	}
	fclose(out);
}

int coord_driver_find(const char *scheme, const struct coord_driver **ret, char **ret_error)
{
	*ret_error = NULL;
	const struct coord_driver *driver;
	for (size_t i = 0; (driver = built_in(i)); i++)
		if (has_scheme(driver->schemes, scheme)) {
			*ret = driver;
			return 0;
		}
	for (size_t i = 0; i < MODULES; i++)
		if (has_scheme(modules[i].schemes, scheme))
			return load(&modules[i], ret, ret_error);
	describe(scheme, ret_error);
	return -ENOENT;
}

void coord_driver_each(void (*fn)(void *user, const struct coord_driver *), void *user)
{
	const struct coord_driver *driver;
	for (size_t i = 0; (driver = built_in(i)); i++)
		fn(user, driver);
	for (size_t i = 0; i < MODULES; i++) {
		_cleanup_free_ char *error = NULL;
		int r = load(&modules[i], &driver, &error);
		if (r == 0)
			fn(user, driver);
		else if (r != -ENOENT)
			coord_log(LOG_WARNING, "%s", error ? error : "out of memory");
	}
}

const char *coord_characteristic_name(unsigned bit_index)
{
	static const char *const names[] = {
		"NON_TIMEOUT_BASED",
		"TIMEOUT_BASED",
		"DISTRIBUTED_ACROSS_THREADS",
		"DISTRIBUTED_ACROSS_PROCESSES",
		"DISTRIBUTED_ACROSS_HOSTS",
		"LINEARIZABLE",
		"SEQUENTIAL",
		"CAUSAL",
		"SERIALIZABLE",
		"SAME_VIEW_UNDER_PARTITIONS",
		"SAME_VIEW_ACROSS_CLIENTS",
	};
	return bit_index < sizeof(names) / sizeof(names[0]) ? names[bit_index] : NULL;
}
