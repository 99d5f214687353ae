/* input: see input.h. */
#include "dataplane/runtime/input.h"

#include <string.h>

#include "common/base/check.h"
#include "common/context/context.h"
#include "common/net/addr.h"
#include "common/net/conn.h"
#include "common/net/http1_server.h"
#include "dataplane/request/request.h"
#include "dataplane/runtime/port.h"

enum { PORT_DIGITS = 5 };

/* What stands in most names of hosts. Filled before main() runs, so that look-ups need no check. */
static bool plain_bytes[256];

__attribute__((constructor)) static void fill_plain_bytes(void)
{
    static const char all[] = "abcdefghijklmnopqrstuvwxyz0123456789-.";
    for (size_t i = 0; i + 1 < sizeof(all); i++) {
        plain_bytes[(uint8_t)all[i]] = true;
    }
}

/* ---- what both protocols share ---- */

/* What a look-up of a header stands on: it may have to say something of the request. */
struct header_ctx {
    struct dp_request *rq;
    struct slice cookie; /* what HTTP/2 brought in pieces; NULL: it was whole, or there is none. */
};

/* Field number 'i' of the request; false past the last. */
typedef bool field_fn(const struct dp_request *rq, size_t i, struct slice *name,
                      struct slice *value);

static struct err set_header(struct dp_request *rq,
                             bool (*header)(const void *, struct slice, struct slice *),
                             struct slice cookie)
{
    struct header_ctx *ctx = NULL;
    TRY(arena_calloc(&rq->arena, 1, sizeof(*ctx), (void **)&ctx));
    *ctx = (struct header_ctx){.rq = rq, .cookie = cookie};
    rq->in.header = header;
    rq->in.header_ctx = ctx;
    return OK;
}

/* "Bearer" is compared by any case (RFC 9110, 11.1); one space or more before the token. */
static struct slice bearer(struct slice authorization)
{
    struct slice scheme = SLICE_LIT("bearer");
    if (!slice_eq_nocase(slice_head(authorization, scheme.size), scheme)) {
        return (struct slice){0};
    }
    struct slice rest = slice_from(authorization, scheme.size);
    size_t at = 0;
    while (at < rest.size && rest.ptr[at] == ' ') {
        at++;
    }
    return at == 0 ? (struct slice){0} : slice_from(rest, at);
}

/* Whether it is a name in lower case, perhaps with a port, as nearly every one is; the others take
 * the long way, by http1_is_authority() and find_host(), with the same outcome. */
static bool is_plain_authority(struct slice authority, struct slice *out_host)
{
    size_t size = 0;
    while (size < authority.size && plain_bytes[authority.ptr[size]]) {
        size++;
    }
    *out_host = slice_head(authority, size);
    if (size == 0 || authority.ptr[size - 1] == '.') {
        return false;
    }
    uint64_t port = 0;
    return size == authority.size ||
           (authority.ptr[size] == ':' && authority.size - size - 1 <= PORT_DIGITS &&
            slice_to_u64(slice_from(authority, size + 1), &port) && port <= UINT16_MAX);
}

/* Without the port and the root's dot, in lower case; names rarely have capitals, so most are not
 * copied. */
static struct err find_host(struct dp_request *rq, struct slice authority)
{
    struct slice host = authority;
    uint16_t port = 0;
    if (!err_ok(net_host_port(authority, &host, &port))) {
        host = authority;
    }
    if (host.size > 1 && host.ptr[host.size - 1] == '.') {
        host = slice_head(host, host.size - 1);
    }
    bool capitals = false;
    for (size_t i = 0; i < host.size; i++) {
        capitals |= host.ptr[i] >= 'A' && host.ptr[i] <= 'Z';
    }
    rq->in.host = host;
    if (!capitals) {
        return OK;
    }
    uint8_t *lower = NULL;
    TRY(arena_alloc(&rq->arena, host.size, (void **)&lower));
    for (size_t i = 0; i < host.size; i++) {
        bool capital = host.ptr[i] >= 'A' && host.ptr[i] <= 'Z';
        lower[i] = (uint8_t)(capital ? host.ptr[i] + ('a' - 'A') : host.ptr[i]);
    }
    rq->in.host = slice_of(lower, host.size);
    return OK;
}

static void split_path(struct dp_request *rq, struct slice path)
{
    size_t at = slice_find(path, '?');
    rq->in.path = slice_head(path, at);
    rq->in.query = at == path.size ? (struct slice){0} : slice_from(path, at + 1);
}

static void fill_conn(struct dp_request *rq, const struct dp_caller_conn *c,
                      const struct net_conn *conn)
{
    const struct net_identity *identity = net_conn_identity(conn);
    rq->in.scheme = net_conn_is_tls(conn) ? SLICE_LIT("https") : SLICE_LIT("http");
    rq->in.peer = slice_str(c->peer);
    rq->in.spiffe = identity == NULL ? (struct slice){0} : identity->spiffe_id;
    rq->in.serial = identity == NULL ? (struct slice){0} : identity->serial;
}

/*
 * The value of a field by its name. One that is there several times has none on which all readers
 * agree: it is a list to one, the first or the last to others. Whatever is decided by it does not
 * hold, and the request says so.
 */
static bool find_field(const struct header_ctx *ctx, struct slice name, field_fn *field,
                       struct slice *out)
{
    bool is_there = false;
    struct slice found = {0};
    struct slice value = {0};
    for (size_t i = 0; field(ctx->rq, i, &found, &value); i++) {
        if (slice_eq(found, name)) {
            ctx->rq->in.header_repeated |= is_there;
            is_there = true;
            *out = value;
        }
    }
    return is_there;
}

/* ---- HTTP/2, and what is translated to it ---- */

static bool field_h2(const struct dp_request *rq, size_t i, struct slice *name, struct slice *value)
{
    const struct h2_fields *fields = rq->caller_stream.fields;
    if (i >= fields->count) {
        return false;
    }
    *name = fields->at[i].name;
    *value = fields->at[i].value;
    return true;
}

static bool header_h2(const void *ctx, struct slice name, struct slice *out)
{
    const struct dp_request *rq = ((const struct header_ctx *)ctx)->rq;
    const struct h2_fields *fields = rq->caller_stream.fields;
    if (context_judge_client(name) == CONTEXT_STRIP) {
        return false;
    }
    enum h2_token token = h2_token_find(name);
    if (token == H2_TOKEN_COOKIE && h2_fields_repeated(fields, token)) {
        *out = ((const struct header_ctx *)ctx)->cookie;
        return true;
    }
    if (token != H2_TOKEN_OTHER && !h2_fields_repeated(fields, token)) {
        const struct h2_field *field = h2_fields_get(fields, token);
        *out = field == NULL ? (struct slice){0} : field->value;
        return field != NULL;
    }
    return find_field(ctx, name, field_h2, out);
}

/* A browser may cut its cookies into several fields, which are one all the same (RFC 9113, 8.2.3).
 */
static struct err join_cookies(struct dp_request *rq, const struct h2_fields *f, struct slice *out)
{
    struct slice *pieces = NULL;
    size_t count = 0;
    if (!h2_fields_repeated(f, H2_TOKEN_COOKIE)) {
        return OK;
    }
    TRY(arena_calloc(&rq->arena, (size_t)2 * f->count, sizeof(*pieces), (void **)&pieces));
    for (size_t i = 0; i < f->count; i++) {
        if (f->at[i].token == H2_TOKEN_COOKIE) {
            pieces[count++] = SLICE_LIT("; ");
            pieces[count++] = f->at[i].value;
        }
    }
    return arena_join(&rq->arena, pieces + 1, count - 1, out);
}

/* Fields that decide something and may not be there twice: two readers could take two. */
static bool is_ambiguous(const struct h2_fields *f)
{
    return h2_fields_repeated(f, H2_TOKEN_AUTHORIZATION) ||
           h2_fields_repeated(f, H2_TOKEN_X_TENANT_ID) ||
           h2_fields_repeated(f, H2_TOKEN_GRPC_TIMEOUT) ||
           h2_fields_repeated(f, H2_TOKEN_X_REQUEST_TIMEOUT_MS) ||
           h2_fields_repeated(f, H2_TOKEN_HOST);
}

struct err dp_input_h2(struct dp_request *rq, const struct h2_fields *f,
                       const struct dp_caller_conn *c)
{
    CHECK(rq->caller_stream.fields == f);
    fill_conn(rq, c, dp_caller_conn_net(c));
    rq->in.http_method = h2_fields_value(f, H2_TOKEN_METHOD);
    rq->in.token = bearer(h2_fields_value(f, H2_TOKEN_AUTHORIZATION));
    rq->in.tenant = h2_fields_value(f, H2_TOKEN_X_TENANT_ID);
    rq->in.correlation = h2_fields_value(f, H2_TOKEN_X_CORRELATION_ID);
    rq->in.request_id = h2_fields_value(f, H2_TOKEN_X_REQUEST_ID);
    rq->in.tracestate = h2_fields_value(f, H2_TOKEN_TRACESTATE);
    rq->in.timeout = h2_fields_value(f, H2_TOKEN_GRPC_TIMEOUT);
    rq->in.timeout_ms = h2_fields_value(f, H2_TOKEN_X_REQUEST_TIMEOUT_MS);
    struct slice cookie = {0};
    TRY(join_cookies(rq, f, &cookie));
    TRY(set_header(rq, header_h2, cookie));
    if (!h2_fields_repeated(f, H2_TOKEN_TRACEPARENT)) {
        /* W3C: more than one is none. */
        rq->in.traceparent = h2_fields_value(f, H2_TOKEN_TRACEPARENT);
    }
    split_path(rq, h2_fields_value(f, H2_TOKEN_PATH));
    if (is_ambiguous(f)) {
        return FAIL(E_CONTEXT_INVALID);
    }
    struct slice host = {0};
    struct slice authority = h2_fields_value(f, H2_TOKEN_AUTHORITY);
    if (h2_fields_get(f, H2_TOKEN_HOST) == NULL && is_plain_authority(authority, &host)) {
        rq->in.host = host;
        return OK;
    }
    TRY(dp_input_authority(f, &authority));
    return find_host(rq, authority);
}

struct err dp_input_authority(const struct h2_fields *f, struct slice *out)
{
    struct slice authority = h2_fields_value(f, H2_TOKEN_AUTHORITY);
    struct slice host = h2_fields_value(f, H2_TOKEN_HOST);
    if (authority.size > 0 && host.size > 0 && !slice_eq_nocase(authority, host)) {
        return FAIL(E_PROTOCOL_ERROR);
    }
    *out = authority.size > 0 ? authority : host;
    return http1_is_authority(*out) ? OK : FAIL(E_PROTOCOL_ERROR);
}

/* ---- HTTP/1 ---- */

static bool field_http1(const struct dp_request *rq, size_t i, struct slice *name,
                        struct slice *value)
{
    const struct http1_head *head = http1_exchange_head(rq->exchange);
    if (i >= head->field_count) {
        return false;
    }
    *name = head->fields[i].name;
    *value = head->fields[i].value;
    return true;
}

static bool header_http1(const void *ctx, struct slice name, struct slice *out)
{
    return context_judge_client(name) != CONTEXT_STRIP && find_field(ctx, name, field_http1, out);
}

/* The value of a field that may be there once; *out_twice is set when it is not. */
static struct slice once(const struct http1_head *head, struct slice name, bool *out_twice)
{
    struct slice value = {0};
    bool found = false;
    for (size_t i = 0; i < head->field_count; i++) {
        if (slice_eq(head->fields[i].name, name)) {
            *out_twice |= found;
            found = true;
            value = head->fields[i].value;
        }
    }
    return value;
}

struct err dp_input_http1(struct dp_request *rq, const struct http1_head *head,
                          const struct dp_caller_conn *c)
{
    CHECK(rq->exchange != NULL);
    fill_conn(rq, c, http1_exchange_conn(rq->exchange));
    bool twice = false;
    bool two_parents = false;
    rq->in.http_method = head->method;
    /* A proxy's own credentials come before those that are meant for the origin (RFC 9110, 11.7).
     */
    struct slice proxy = once(head, SLICE_LIT("proxy-authorization"), &twice);
    rq->in.token = bearer(proxy.size > 0 ? proxy : once(head, SLICE_LIT("authorization"), &twice));
    rq->in.tenant = once(head, context_http(CONTEXT_TENANT), &twice);
    rq->in.timeout_ms = once(head, context_http(CONTEXT_REQUEST_TIMEOUT), &twice);
    rq->in.correlation = once(head, context_http(CONTEXT_CORRELATION), &twice);
    rq->in.request_id = once(head, context_http(CONTEXT_REQUEST), &twice);
    rq->in.tracestate = once(head, context_http(CONTEXT_TRACESTATE), &two_parents);
    rq->in.traceparent = once(head, context_http(CONTEXT_TRACEPARENT), &two_parents);
    if (two_parents) {
        rq->in.traceparent = (struct slice){0};
    }
    TRY(set_header(rq, header_http1, /* cookie= */ (struct slice){0}));
    split_path(rq, head->form == HTTP1_AUTHORITY ? SLICE_LIT("/") : head->path);
    return twice ? FAIL(E_CONTEXT_INVALID) : find_host(rq, head->authority);
}

/* ---- a request that outlives its exchange ---- */

struct kept_field {
    struct slice name;
    struct slice value;
    bool repeated;
};

struct kept_fields {
    struct dp_request *rq;
    struct kept_field *at;
    size_t count;
};

static struct kept_field *kept_find(const struct kept_fields *kept, struct slice name)
{
    for (size_t i = 0; i < kept->count; i++) {
        if (slice_eq(kept->at[i].name, name)) {
            return &kept->at[i];
        }
    }
    return NULL;
}

static bool header_kept(const void *ctx, struct slice name, struct slice *out)
{
    const struct kept_fields *kept = ctx;
    const struct kept_field *field =
        context_judge_client(name) == CONTEXT_STRIP ? NULL : kept_find(kept, name);
    if (field == NULL) {
        return false;
    }
    kept->rq->in.header_repeated |= field->repeated;
    *out = field->value;
    return true;
}

/* Each name once. */
static struct err keep_fields(struct dp_request *rq, const struct http1_head *head,
                              struct kept_fields **out)
{
    struct kept_fields *kept = NULL;
    TRY(arena_calloc(&rq->arena, 1, sizeof(*kept), (void **)&kept));
    TRY(arena_calloc(&rq->arena, head->field_count + 1, sizeof(*kept->at), (void **)&kept->at));
    kept->rq = rq;
    for (size_t i = 0; i < head->field_count; i++) {
        struct kept_field *seen = kept_find(kept, head->fields[i].name);
        if (seen != NULL) {
            seen->repeated = true;
            continue;
        }
        struct kept_field *field = &kept->at[kept->count];
        TRY(arena_dup(&rq->arena, head->fields[i].name, &field->name));
        TRY(arena_dup(&rq->arena, head->fields[i].value, &field->value));
        kept->count++;
    }
    *out = kept;
    return OK;
}

struct err dp_input_copy(struct dp_request *rq, struct dp_input_copy *out)
{
    CHECK(rq->exchange != NULL);
    struct kept_fields *kept = NULL;
    struct dp_input_copy copy = {rq->in, rq->correlation, rq->request_id};
    struct slice *const slices[] = {
        &copy.in.scheme,      &copy.in.http_method, &copy.in.host,        &copy.in.path,
        &copy.in.query,       &copy.in.peer,        &copy.in.spiffe,      &copy.in.serial,
        &copy.in.token,       &copy.in.tenant,      &copy.in.correlation, &copy.in.request_id,
        &copy.in.traceparent, &copy.in.tracestate,  &copy.in.timeout,     &copy.in.timeout_ms,
        &copy.correlation,    &copy.request_id,
    };
    for (size_t i = 0; i < sizeof(slices) / sizeof(slices[0]); i++) {
        TRY(arena_dup(&rq->arena, *slices[i], slices[i]));
    }
    TRY(keep_fields(rq, http1_exchange_head(rq->exchange), &kept));
    copy.in.header = header_kept;
    copy.in.header_ctx = kept;
    *out = copy;
    return OK;
}
