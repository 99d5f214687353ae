/*
 * destination: where a request of the proxy lane wants to go: the one parser of it.
 *
 * Shape      a URL (absolute form, and /v1/fetch?url=) or an authority (CONNECT) becomes a host, a
 *            port and a target that have one reading only: what is judged is what is sent.
 * Ownership  slices lie in the arena that was given, or borrow from the input where they are the
 *            same.
 * Threads    pure functions; any thread.
 * Errors     E_EGRESS_DESTINATION: not of the form, or with two readings. E_NO_MEMORY.
 * Source     RFC 3986; RFC 9110, 4.2; RFC 9112, 3.2. Narrower: http and https; no user, no
 *            fragment; hosts in ASCII (IDNA as punycode); IPv4 as four decimal parts; in paths no
 *            encoded '/', '\', '.' segment or control byte, no empty segment, no ";" behind dots.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/base/arena.h"
#include "common/base/err.h"
#include "common/base/slice.h"

enum { PX_URL_MAX = 16384, PX_HOST_MAX = 253 };

struct px_destination {
    bool tunnel;            /* CONNECT: there is no more than host and port. */
    bool tls;               /* https. */
    struct slice host;      /* lower case; no brackets, no dot at the end. */
    uint16_t port;          /* never zero. */
    struct slice authority; /* what Host says: brackets; a port unless it is the scheme's. */
    struct slice target;    /* path and query, for the request line. */
    struct slice path;      /* of 'target': begins with '/', normal. */
};

/* Reads "http://host[:port][/path][?query]". */
MUST_CHECK struct err px_destination_url(struct slice url, struct arena *arena,
                                         struct px_destination *out);

/* Reads "host:port". */
MUST_CHECK struct err px_destination_authority(struct slice authority, struct arena *arena,
                                               struct px_destination *out);

/* Reads the query of /v1/fetch: exactly one "url", percent-decoded once ('+' stays a plus);
 * nothing else. */
MUST_CHECK struct err px_destination_fetch(struct slice query, struct arena *arena,
                                           struct px_destination *out);

/* Whether 'path' is 'prefix' or lies below it, by whole segments. */
bool px_path_below(struct slice path, struct slice prefix);
