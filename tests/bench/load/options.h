/*
 * options: the generator's command line, and the request that follows from it.
 *
 * Units      milliseconds, bytes, requests a second.
 * Ownership  text points into argv.
 * Errors     a wrong line ends the program with exit 2.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/bench/load/session.h"

enum { CONNECTIONS_MAX = 16384, OPTION_HEADERS_MAX = 16 };

struct options {
    const char *host;
    const char *port;
    uint64_t rate;
    uint64_t connections;
    uint64_t streams; /* at most so many requests wait for their answers on a connection. */
    uint64_t warmup_ms;
    uint64_t duration_ms;
    uint64_t await_ms; /* after the measured time answers are awaited so long. */
    uint64_t body_bytes;
    bool punctual; /* wakes for each request that is due, and not for those of a while. */
    const char *headers[2 * OPTION_HEADERS_MAX + 1]; /* name, value, …, NULL. */
    size_t header_count;
    const char *body_file; /* what is sent as it is, gRPC's prefixes with it; NULL: made. */
    struct wire_files tls; /* without a CA: in clear. */
    bool hold;             /* when all is told, connections stay until SIGTERM. */
    char authority[300];
    struct load_work work; /* points into this struct: it stays where it is. */
};

void options_read(int argc, char **argv, struct options *out);
