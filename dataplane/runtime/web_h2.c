/* web_h2: see web_h2.h. */
#include "dataplane/runtime/web_h2.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/base/check.h"
#include "common/net/h2.h"
#include "dataplane/runtime/early.h"
#include "dataplane/runtime/input.h"
#include "dataplane/runtime/port.h"
#include "dataplane/runtime/web.h"
#include "dataplane/runtime/worker.h"

/* Wire bytes that wait in the stream's own queue: the window of the source is given back with them,
 * so the rest waits where it is counted. */
enum { QUEUE_MAX = 64 << 10 };

struct web_h2 {
    struct dp_web web;
    struct h2_stream *stream;
    const struct h2_fields *fields; /* of the request. */
    size_t wire_held;               /* wire bytes that came, and were not given back. */
};

static struct web_h2 *h2_of(struct dp_web *w)
{
    return w->impl;
}

/* ---- the sink ---- */

static struct err head(struct dp_web *w, const struct h2_field *fields, size_t count, bool end)
{
    return h2_stream_respond(h2_of(w)->stream, fields, count, end);
}

static size_t room(struct dp_web *w)
{
    size_t queued = h2_stream_queued(h2_of(w)->stream);
    return queued < QUEUE_MAX ? QUEUE_MAX - queued : 0;
}

static struct err write_wire(struct dp_web *w, struct slice wire)
{
    return h2_stream_send(h2_of(w)->stream, wire, /* end= */ false);
}

static struct err end_body(struct dp_web *w)
{
    struct h2_stream *s = h2_of(w)->stream;
    return h2_stream_sent_end(s) ? OK : h2_stream_send(s, (struct slice){0}, /* end= */ true);
}

/* Four characters are three bytes, and what is left of a group goes with the last of them. */
static void consume(struct dp_web *w, size_t bytes)
{
    struct web_h2 *h = h2_of(w);
    size_t wire = w->in == GRPC_WEB_TEXT ? bytes / 3 * 4 : bytes;
    wire = w->held == 0 || wire > h->wire_held ? h->wire_held : wire;
    h->wire_held -= wire;
    h2_stream_consume(h->stream, wire);
}

static void abort_stream(struct dp_web *w)
{
    h2_stream_reset(h2_of(w)->stream, H2_INTERNAL_ERROR);
}

static const struct dp_web_sink sink = {.head = head,
                                        .room = room,
                                        .write = write_wire,
                                        .end = end_body,
                                        .consume = consume,
                                        .abort = abort_stream};

/* ---- what the stream says ---- */

static void data(struct h2_stream *s, struct slice bytes, bool end)
{
    struct web_h2 *h = h2_stream_user(s);
    if (h->web.rq == NULL) {
        h2_stream_consume(s, bytes.size);
        return;
    }
    h->wire_held += bytes.size;
    dp_web_data(&h->web, bytes, end);
}

static void trailers(struct h2_stream *s, const struct h2_fields *fields)
{
    (void)fields;
    data(s, (struct slice){0}, /* end= */ true);
}

static void sent(struct h2_stream *s, size_t bytes)
{
    (void)bytes;
    struct web_h2 *h = h2_stream_user(s);
    dp_web_pump(&h->web);
}

static void reset(struct h2_stream *s, struct h2_reset why)
{
    (void)why;
    struct web_h2 *h = h2_stream_user(s);
    dp_web_gone(&h->web, FAIL(E_CLOSED));
}

static void closed(struct h2_stream *s)
{
    struct web_h2 *h = h2_stream_user(s);
    dp_web_gone(&h->web, FAIL(E_CLOSED));
    dp_web_free(&h->web);
    free(h);
}

static const struct h2_stream_events events = {
    .data = data, .trailers = trailers, .sent = sent, .reset = reset, .closed = closed};

/* ---- a request ---- */

static struct err add_fields(struct dp_web *w, struct h2_fields *to)
{
    const struct h2_fields *from = h2_of(w)->fields;
    struct slice authority = {0};
    TRY(dp_input_authority(from, &authority)); /* the host goes no further. */
    for (size_t i = 0; i < from->count; i++) {
        dp_web_add_field(to, &from->at[i]);
    }
    return OK;
}

static struct slice authority_of(const struct h2_fields *fields)
{
    struct slice authority = h2_fields_value(fields, H2_TOKEN_AUTHORITY);
    return authority.size > 0 ? authority : h2_fields_value(fields, H2_TOKEN_HOST);
}

static struct slice origin_of(const struct h2_fields *fields)
{
    return h2_fields_repeated(fields, H2_TOKEN_ORIGIN) ? DP_ORIGIN_OPAQUE
                                                       : h2_fields_value(fields, H2_TOKEN_ORIGIN);
}

struct err dp_web_h2_request(struct dp_caller_conn *c, struct h2_stream *s,
                             const struct h2_fields *fields, bool end)
{
    struct web_h2 *h = calloc(1, sizeof(*h));
    if (h == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    dp_web_init(&h->web, &sink, h);
    h->stream = s;
    h->fields = fields;
    h->web.whole_before = end;
    h2_stream_attach(s, &events, h);
    const struct dp_web_ask ask = {
        .conn = c,
        .authority = authority_of(fields),
        .path = h2_fields_value(fields, H2_TOKEN_PATH),
        .content_type = h2_fields_value(fields, H2_TOKEN_CONTENT_TYPE),
        .accept = h2_fields_value(fields, H2_TOKEN_ACCEPT),
        .origin = origin_of(fields),
        .has_browser = true,
        .field_max = fields->count,
        .add = add_fields,
        .protocol = "http2",
    };
    dp_web_start(&h->web, &ask);
    return OK;
}

/* ---- preflights ---- */

bool dp_web_h2_is_preflight(const struct h2_fields *fields)
{
    return slice_eq(h2_fields_value(fields, H2_TOKEN_METHOD), SLICE_LIT("OPTIONS")) &&
           h2_fields_get(fields, H2_TOKEN_ORIGIN) != NULL &&
           h2_fields_find(fields, SLICE_LIT("access-control-request-method")) != NULL;
}

static struct err refuse_preflight(const struct dp_caller_conn *c, struct h2_stream *s,
                                   struct err why)
{
    enum { FIELDS = 3 };
    const struct dp_early early = {
        .conn = c,
        .protocol = "http2",
        .why = why,
        .http_status = err_http_status(why.code),
        .path = h2_fields_value(h2_stream_fields(s), H2_TOKEN_PATH),
    };
    struct http1_refusal told = dp_early_note(&early);
    char status[12];
    (void)snprintf(status, sizeof(status), "%d", early.http_status);
    const struct h2_field fields[FIELDS] = {
        h2_field_of(H2_TOKEN_STATUS, slice_str(status)),
        h2_field_static(H2_TOKEN_X_TRILANE_CODE, slice_str(err_name(why.code))),
        h2_field_of(H2_TOKEN_X_TRILANE_EXPLAIN, told.explain),
    };
    return h2_stream_respond(s, fields, told.explain.size > 0 ? FIELDS : FIELDS - 1,
                             /* end= */ true);
}

static struct err answer_preflight(struct h2_stream *s, const struct dp_preflight *answer)
{
    struct h2_field fields[1 + DP_PREFLIGHT_FIELDS];
    size_t count = 0;
    fields[count++] = h2_field_static(H2_TOKEN_STATUS, SLICE_LIT("204"));
    for (size_t i = 0; i < answer->count; i++) {
        fields[count++] = h2_field_named(answer->fields[i].name, answer->fields[i].value);
    }
    return h2_stream_respond(s, fields, count, /* end= */ true);
}

void dp_web_h2_preflight(struct dp_caller_conn *c, struct h2_stream *s,
                         const struct h2_fields *fields)
{
    const struct dp_cors_ask ask = {
        .model = dp_request_pool_model(&c->port->worker->pool),
        .authority = authority_of(fields),
        .path = h2_fields_value(fields, H2_TOKEN_PATH),
        .origin = origin_of(fields),
        .tls = net_conn_is_tls(dp_caller_conn_net(c)),
    };
    struct dp_preflight answer;
    struct err e = dp_cors_preflight(&ask, &answer);
    if (err_ok(e)) {
        e = answer_preflight(s, &answer);
    } else {
        e = refuse_preflight(c, s, e);
    }
    if (!err_ok(e)) {
        h2_stream_reset(s, H2_INTERNAL_ERROR);
    }
}
