/*
 * postgres_server: a real PostgreSQL, for a test.
 *
 * Shape      processes on a free port of the loopback, with their data in a directory of their own
 *            below TMPDIR; it asks for a password, which the URL carries. Nothing is synced to
 *            disk: these tests kill processes, not machines. As root it runs as postgres or nobody.
 * Ownership  postgres_server_init() is undone by postgres_server_free(), which ends the processes
 *            and removes the directory. A process beside the test does the same when the test ends
 *            in any other way.
 * Threads    one owner.
 * Errors     none: what does not work aborts the test with a line that says so.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

enum { POSTGRES_SERVER_TEXT_MAX = 256 };

struct postgres_server {
    pid_t pid; /* of the first process; 0: not running. */
    pid_t keeper;
    int keeper_fd; /* its end is the keeper's sign. */
    uint16_t port;
    char directory[POSTGRES_SERVER_TEXT_MAX];
    char password[40];
    char url[POSTGRES_SERVER_TEXT_MAX]; /* "postgresql://trilane:…@127.0.0.1:<port>/postgres" */
};

/* Takes a free port and makes the data directory. Starts nothing. */
void postgres_server_init(struct postgres_server *s);
void postgres_server_free(struct postgres_server *s);

/* Starts it and waits until it answers; on the same port and data as before. */
void postgres_server_start(struct postgres_server *s);
/* Ends all its processes at once, by SIGKILL, and waits; port and data stay. */
void postgres_server_kill(struct postgres_server *s);
/* Holds all its processes up without ending them, and lets them go on. */
void postgres_server_pause(struct postgres_server *s);
void postgres_server_resume(struct postgres_server *s);

/* Runs SQL on any server. */
void postgres_server_sql(const char *url, const char *text);
