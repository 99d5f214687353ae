/*
 * nats_server: a real nats-server with JetStream, for a test.
 *
 * Shape      a process on a free port of the loopback, with its configuration and store in a
 *            directory of its own below TMPDIR.
 * Ownership  nats_server_init() is undone by nats_server_free(), which ends the process and removes
 *            the directory. The process ends with the test, whatever becomes of that.
 * Threads    one owner.
 * Errors     none: what does not work aborts the test with a line that says so.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

enum { NATS_SERVER_TEXT_MAX = 256 };

struct nats_server {
    pid_t pid; /* 0: not running. */
    uint16_t port;
    char directory[NATS_SERVER_TEXT_MAX];
    char url[NATS_SERVER_TEXT_MAX]; /* "nats://127.0.0.1:<port>" */
};

/*
 * Takes a free port and writes the configuration: ours, and 'extra' (may be NULL) behind it, for
 * example "authorization { users = [ … ] }". Starts nothing.
 */
void nats_server_init(struct nats_server *s, const char *extra);
void nats_server_free(struct nats_server *s);

/* Writes the configuration anew, for the next start. */
void nats_server_configure(const struct nats_server *s, const char *extra);

/* Starts it and waits until it answers; on the same port and store as before. */
void nats_server_start(struct nats_server *s);

/* Ends it at once, by SIGKILL, and waits; port and store stay. */
void nats_server_kill(struct nats_server *s);

/* Holds it up without ending it, and lets it go on. */
void nats_server_pause(struct nats_server *s);
void nats_server_resume(struct nats_server *s);
