/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs and little servers that a test starts, and a directory to start them in. They die with the test.
 */
#ifndef TESTS_SERVERS_H
#define TESTS_SERVERS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* A new directory, to be ended with scratch_free, which removes it with all in it. */
char *scratch_new(void);
void scratch_free(char *dir);
/* DIR/NAME; in one of a few buffers that are used in turn. */
const char *in_dir(const char *dir, const char *name);
/* Writes a file. */
void write_text(const char *path, const char *text);

/* Is the program in the PATH? */
bool have_program(const char *name);
/* Starts a program with its output in the file log. argv ends with NULL. */
pid_t program_start(const char *log, const char *const *argv);
/* Runs one and waits; true if it exits with 0. */
bool program_run(const char *log, const char *const *argv);
/* Runs fn in a child process, which ends with it. */
pid_t child_start(void (*fn)(int listener), int listener);
/* Sends the signal, continues it, and waits for its end. */
void program_stop(pid_t pid, int signum);

/* A port of the loopback interface that was free a moment ago. */
uint16_t free_port(void);
/* A listening socket there, or at a path. */
int listen_tcp(uint16_t *ret_port);
int listen_unix(const char *path);
/* Waits until somebody listens at the port; false after ten seconds. */
bool wait_listening(uint16_t port);

/* A certificate authority NAME-ca.pem, and a certificate NAME.pem with its key NAME.key for a subject
 * alternative name such as "DNS:localhost,IP:127.0.0.1". */
void make_certificate(const char *dir, const char *name, const char *alternative);

#endif
