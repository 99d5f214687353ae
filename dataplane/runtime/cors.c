/* cors: see cors.h. */
#include "dataplane/runtime/cors.h"

#include <inttypes.h>
#include <stdio.h>

#include "common/base/check.h"
#include "common/net/addr.h"

enum { HOST_MAX = 255 };

/* As the call is routed: in lower case, without a port and the root's dot; empty when it is too
 * long to be one. */
static struct slice host_of(struct slice authority, char room[HOST_MAX])
{
    struct slice host = authority;
    uint16_t port = 0;
    if (!err_ok(net_host_port(authority, &host, &port))) {
        host = authority;
    }
    if (host.size > 1 && host.ptr[host.size - 1] == '.') {
        host = slice_head(host, host.size - 1);
    }
    if (host.size > HOST_MAX) {
        return (struct slice){0};
    }
    for (size_t i = 0; i < host.size; i++) {
        bool capital = host.ptr[i] >= 'A' && host.ptr[i] <= 'Z';
        room[i] = (char)(capital ? host.ptr[i] + ('a' - 'A') : host.ptr[i]);
    }
    return slice_of(room, host.size);
}

/*
 * "https://app.example.com" of a request to app.example.com: its own page, which needs nobody's
 * leave. In clear either scheme may be the caller's: what ends TLS before the node says nothing of
 * it.
 */
static bool is_same(const struct dp_cors_ask *ask)
{
    struct slice secure = SLICE_LIT("https://");
    struct slice clear = SLICE_LIT("http://");
    struct slice scheme = slice_starts(ask->origin, secure)               ? secure
                          : !ask->tls && slice_starts(ask->origin, clear) ? clear
                                                                          : (struct slice){0};
    return scheme.size > 0 && ask->authority.size > 0 &&
           slice_eq_nocase(slice_from(ask->origin, scheme.size), ask->authority);
}

static const struct dp_cors *find(const struct dp_cors_ask *ask)
{
    char room[HOST_MAX];
    struct slice host = host_of(ask->authority, room);
    struct slice path = slice_head(ask->path, slice_find(ask->path, '?'));
    return dp_model_cors(ask->model, host, path, ask->origin, ask->ambient);
}

static void say(struct http1_field *fields, size_t *count, const char *name, struct slice value)
{
    fields[(*count)++] = (struct http1_field){slice_str(name), value};
}

/* "*" stands for pages of anybody, and needs no care of caches. */
static void say_origin(const struct dp_cors *cors, struct slice origin, struct http1_field *fields,
                       size_t *count)
{
    say(fields, count, "access-control-allow-origin", cors->any ? SLICE_LIT("*") : origin);
    if (cors->credentials) {
        say(fields, count, "access-control-allow-credentials", SLICE_LIT("true"));
    }
}

struct err dp_cors_judge(const struct dp_cors_ask *ask, struct dp_cors_answer *out)
{
    *out = (struct dp_cors_answer){0};
    if (ask->origin.size == 0 || is_same(ask) || ask->model == NULL) {
        return OK;
    }
    const struct dp_cors *cors = find(ask);
    if (cors == NULL) {
        return FAIL(E_ORIGIN_DENIED);
    }
    out->foreign = true;
    say_origin(cors, ask->origin, out->fields, &out->count);
    say(out->fields, &out->count, "access-control-expose-headers", cors->expose_headers);
    if (!cors->any) {
        say(out->fields, &out->count, "vary", SLICE_LIT("origin"));
    }
    CHECK(out->count <= DP_CORS_FIELDS);
    return OK;
}

struct err dp_cors_keep(struct arena *arena, struct dp_cors_answer *answer)
{
    for (size_t i = 0; i < answer->count; i++) {
        struct err e = arena_dup(arena, answer->fields[i].value, &answer->fields[i].value);
        if (!err_ok(e)) {
            answer->count = 0;
            return e;
        }
    }
    return OK;
}

struct err dp_cors_preflight(const struct dp_cors_ask *ask, struct dp_preflight *out)
{
    if (ask->model == NULL) {
        return FAIL(E_NOT_READY);
    }
    const struct dp_cors *cors = find(ask);
    if (cors == NULL) {
        return FAIL(E_ORIGIN_DENIED);
    }
    out->count = 0;
    say_origin(cors, ask->origin, out->fields, &out->count);
    say(out->fields, &out->count, "access-control-allow-methods", SLICE_LIT("POST"));
    say(out->fields, &out->count, "access-control-allow-headers", cors->allow_headers);
    if (cors->max_age_s > 0) {
        (void)snprintf(out->max_age, sizeof(out->max_age), "%" PRIu32, cors->max_age_s);
        say(out->fields, &out->count, "access-control-max-age", slice_str(out->max_age));
    }
    if (!cors->any) {
        say(out->fields, &out->count, "vary", SLICE_LIT("origin"));
    }
    CHECK(out->count <= DP_PREFLIGHT_FIELDS);
    return OK;
}
