/*
 * cors: which pages may call through a browser, and what the browser is told.
 *
 * Shape      an Origin is judged by the routes of its host and path, before anybody is asked who
 *            calls: a preflight has no identity. Then the route that the call takes must allow it,
 *            too (dataplane/operator/operator.c). A page of the host itself needs neither. A caller
 *            who is known by a certificate, which a browser shows for any page, needs a route that
 *            allows credentials, both times.
 * Ownership  answers borrow from the model and the request; dp_cors_keep() copies.
 * Threads    the worker's.
 * Errors     ORIGIN_DENIED.
 * Source     Fetch standard, "CORS protocol"; RFC 6454.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/base/arena.h"
#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/net/http1.h"
#include "dataplane/apply/model.h"

/* Fields of an answer to a request from an allowed origin, and to a preflight. */
enum { DP_CORS_FIELDS = 4, DP_PREFLIGHT_FIELDS = 6 };

/* What an answer says to the browser; empty: nothing. */
struct dp_cors_answer {
    bool foreign; /* a page of another origin asks. */
    struct http1_field fields[DP_CORS_FIELDS];
    size_t count;
};

/* What a browser says for an origin that it does not tell (RFC 6454, 6.1), and what stands for one
 * that is said twice: only pages of anybody may call then. */
#define DP_ORIGIN_OPAQUE SLICE_LIT("null")

/* Who asks for what. */
struct dp_cors_ask {
    const struct dp_model *model; /* NULL: there is none yet; nothing is served then. */
    struct slice authority;       /* host, and port if it is not the usual one. */
    struct slice path;
    struct slice origin; /* empty: no browser, or a page that asks its own host. */
    bool tls;            /* the caller came by TLS. */
    bool ambient;        /* its certificate says who calls. Of no meaning for a preflight. */
};

/* Whether some route of host and path lets the page ask, and what its browser is told with the
 * answer; whether it may call is its route's to say. ORIGIN_DENIED. */
MUST_CHECK struct err dp_cors_judge(const struct dp_cors_ask *ask, struct dp_cors_answer *out);

/* Copies what an answer borrows into an arena. E_NO_MEMORY; then the answer is empty. */
MUST_CHECK struct err dp_cors_keep(struct arena *arena, struct dp_cors_answer *answer);

/* The answer to a preflight, with room for the text of a number. ORIGIN_DENIED: no such page may
 * call; NOT_READY: without a model nobody can say. */
struct dp_preflight {
    struct http1_field fields[DP_PREFLIGHT_FIELDS];
    size_t count;
    char max_age[12];
};
MUST_CHECK struct err dp_cors_preflight(const struct dp_cors_ask *ask, struct dp_preflight *out);
