/*
 * server: the control plane's API, as a node asks it to let it in and to renew its certificate.
 *
 * Shape      one POST at a time; of several servers the next is asked when one cannot
 *            be reached. Under TLS the server is trusted by what we have of it: the pin of a
 *            certificate in its chain, or CAs; its name is asked in any case. Clear text goes to
 *            loopback alone.
 * Units      milliseconds.
 * Ownership  everything in struct dp_server is borrowed for the call; the answer is the caller's.
 * Threads    any that may wait; net_ask_init() before them.
 * Errors     E_UNAVAILABLE, E_TIMEOUT: nobody was reached; E_UNAUTHENTICATED for a server whose
 *            certificate is not trusted; E_MALFORMED for an answer that is none; else the code that
 *            the server gave. 'message' gets one sentence.
 * Source     docs/control-plane.md, "Joining".
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"

struct dp_server {
    const char *urls;   /* "https://…,https://…". */
    const uint8_t *pin; /* JOIN_PIN_SIZE bytes; NULL: none. */
    struct slice ca;    /* PEM; empty: none. */
    struct slice more_ca;
    bool (*gives_up)(void *ctx); /* asked once a second; NULL: never. */
    void *ctx;
};

/* E_USAGE unless each URL is https, or http on loopback. */
MUST_CHECK struct err dp_server_check_urls(const char *urls, struct buf *message);

/* Sends 'body' to 'path' of the first server that can be reached. */
MUST_CHECK struct err dp_server_post(const struct dp_server *server, const char *path,
                                     const json_t *body, json_t **out, struct buf *message);
