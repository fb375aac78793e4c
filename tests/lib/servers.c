/* SPDX-License-Identifier: Apache-2.0 */
/* Programs and little servers for tests. See servers.h. Whatever cannot be done ends the test. */
#include "tests/lib/servers.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void must(bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	abort();
}

char *scratch_new(void)
{
	char *dir = strdup("/tmp/toozfs-test-XXXXXX");
	must(dir && mkdtemp(dir), "mkdtemp");
	return dir;
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *ftw)
{
	return remove(path);
}

void scratch_free(char *dir)
{
	if (dir)
		nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(dir);
}

const char *in_dir(const char *dir, const char *name)
{
	static char paths[8][300];
	static unsigned turn;
	char *path = paths[turn++ % 8];
	snprintf(path, sizeof(paths[0]), "%s/%s", dir, name);
	return path;
}

void write_text(const char *path, const char *text)
{
	FILE *out = fopen(path, "w");
	must(out && fputs(text, out) >= 0 && fclose(out) == 0, path);
}

bool have_program(const char *name)
{
	const char *path = getenv("PATH");
	char file[512];
	while (path && *path) {
		size_t len = strcspn(path, ":");
		snprintf(file, sizeof(file), "%.*s/%s", (int)len, path, name);
		if (access(file, X_OK) == 0)
			return true;
		path += len + (path[len] == ':');
	}
	return false;
}

static pid_t fork_tied(void)
{
	pid_t parent = getpid(), pid = fork();
	must(pid >= 0, "fork");
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
	}
	return pid;
}

pid_t program_start(const char *log, const char *const *argv)
{
	pid_t pid = fork_tied();
	if (pid > 0)
		return pid;
	int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600), in = open("/dev/null", O_RDONLY);
	if (fd < 0 || in < 0)
		_exit(127);
	dup2(in, 0);
	dup2(fd, 1);
	dup2(fd, 2);
	execvp(argv[0], (char *const *)argv);
	_exit(127);
}

bool program_run(const char *log, const char *const *argv)
{
	int status = 0;
	pid_t pid = program_start(log, argv);
	must(waitpid(pid, &status, 0) == pid, "waitpid");
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

pid_t child_start(void (*fn)(int listener), int listener)
{
	pid_t pid = fork_tied();
	if (pid > 0)
		return pid;
	signal(SIGPIPE, SIG_IGN);
	fn(listener);
	_exit(0);
}

void program_stop(pid_t pid, int signum)
{
	if (pid <= 0)
		return;
	kill(pid, signum);
	kill(pid, SIGCONT);
	waitpid(pid, NULL, 0);
}

int listen_tcp(uint16_t *ret_port)
{
	struct sockaddr_in name = {
		.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(name);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(fd >= 0 && bind(fd, (struct sockaddr *)&name, len) == 0 && listen(fd, 16) == 0 &&
			getsockname(fd, (struct sockaddr *)&name, &len) == 0,
		"listen");
	*ret_port = ntohs(name.sin_port);
	return fd;
}

int listen_unix(const char *path)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	snprintf(name.sun_path, sizeof(name.sun_path), "%s", path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(fd >= 0 && bind(fd, (struct sockaddr *)&name, sizeof(name)) == 0 &&
			listen(fd, 16) == 0,
		path);
	return fd;
}

uint16_t free_port(void)
{
	uint16_t port;
	close(listen_tcp(&port));
	return port;
}

bool wait_listening(uint16_t port)
{
	struct sockaddr_in name = {.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	for (int i = 0; i < 1000; i++) {
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		bool there = connect(fd, (struct sockaddr *)&name, sizeof(name)) == 0;
		close(fd);
		if (there)
			return true;
		nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
	}
	return false;
}

void make_certificate(const char *dir, const char *name, const char *alternative)
{
	char script[2048];
	snprintf(script, sizeof(script),
		"set -e; cd '%s'; n='%s'\n"
		"key='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'\n"
		"openssl req -x509 $key -keyout $n-ca.key -out $n-ca.pem -days 2 -subj /CN=$n-ca\n"
		"openssl req $key -keyout $n.key -out $n.csr -subj /CN=$n\n"
		"printf 'subjectAltName=%s\\n' >$n.ext\n"
		"openssl x509 -req -in $n.csr -CA $n-ca.pem -CAkey $n-ca.key -CAcreateserial "
		"-days 2 -extfile $n.ext -out $n.pem\n",
		dir, name, alternative);
	const char *const argv[] = {"sh", "-c", script, NULL};
	must(program_run(in_dir(dir, "openssl.log"), argv), "openssl");
}
