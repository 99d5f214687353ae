/* health: see health.h. */
#include "dataplane/runtime/health.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/net/grpc.h"
#include "common/proto/strict.h"
#include "dataplane/request/request.h"
#include "dataplane/runtime/early.h"
#include "dataplane/runtime/worker.h"

#include "grpc/health/v1/health.pb-c.h"

typedef Grpc__Health__V1__HealthCheckResponse__ServingStatus serving;

#define SERVING GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
#define NOT_SERVING GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING
#define UNKNOWN_SERVICE GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN

/* A request is a service's name; and Watch calls that one worker holds: all of them are looked at
 * with each change. */
enum { REQUEST_MAX = 1024, MEMORY_MAX = 16 << 10, WATCHES_MAX = 4096 };

struct answer {
    serving status;
    bool degraded; /* it serves, and misses its SLA. */
};

struct dp_health_watch {
    struct dp_worker *worker;
    struct h2_stream *stream;
    struct grpc_reader reader;
    bool watch;                   /* Watch, not Check. */
    bool asked;                   /* the request came; 'service' holds what it asks for. */
    char *service;                /* owned. */
    serving said;                 /* what Watch answered last, */
    bool said_degraded;           /* and this. */
    struct dp_health_watch *next; /* Watch: in the worker's list. */
    struct dp_health_watch *prev;
};

/* ---- what is served ---- */

static serving status_of(const struct dp_worker *w, struct slice service)
{
    const struct dp_model *model = dp_request_pool_model(&w->pool);
    if (model == NULL || w->draining) {
        return NOT_SERVING;
    }
    bool known = service.size == 0 || slice_eq(service, SLICE_LIT("trilane.bus.v1.Bus")) ||
                 dp_model_has_grpc_service(model, service);
    return known ? SERVING : UNKNOWN_SERVICE;
}

/* Whether an endpoint of a service misses its SLA; of the node's own name: of any. */
static bool is_degraded(const struct dp_worker *w, struct slice service)
{
    const struct dp_model *model = dp_request_pool_model(&w->pool);
    for (size_t i = 0; model != NULL && i < w->degraded.count; i++) {
        const struct dp_cluster *cluster = dp_model_cluster(model, w->degraded.at[i]);
        if (cluster != NULL && (service.size == 0 || dp_cluster_serves(cluster, service))) {
            return true;
        }
    }
    return false;
}

static struct answer state_of(const struct dp_health_watch *h)
{
    struct slice service = slice_str(h->service);
    struct answer a = {.status = status_of(h->worker, service)};
    a.degraded = a.status == SERVING && is_degraded(h->worker, service);
    return a;
}

/* ---- answers ---- */

/* An answer of the service's own. */
static void answer_status(struct dp_health_watch *h, enum err_code code)
{
    const struct grpc_refusal refusal = {.code = code};
    grpc_refuse(h->stream, &refusal);
}

/* What is no call of it. */
static void refuse(struct h2_stream *s, struct err why)
{
    const struct dp_early early = {
        .conn = h2_conn_user(h2_stream_conn(s)),
        .protocol = "http2",
        .why = why,
        .path = h2_fields_value(h2_stream_fields(s), H2_TOKEN_PATH),
    };
    const struct grpc_refusal refusal = dp_early_grpc(&early);
    grpc_refuse(s, &refusal);
}

/* The field of the message is for programs, the header for who looks at a call. */
static struct err respond(struct dp_health_watch *h, struct answer state)
{
    const struct h2_field fields[] = {
        h2_field_static(H2_TOKEN_STATUS, SLICE_LIT("200")),
        h2_field_static(H2_TOKEN_CONTENT_TYPE, SLICE_LIT("application/grpc")),
        h2_field_named(SLICE_LIT("x-trilane-health"), SLICE_LIT("degraded")),
    };
    return h2_stream_respond(h->stream, fields, state.degraded ? 3 : 2, /* end= */ false);
}

static struct err send_status(struct dp_health_watch *h, struct answer state)
{
    Grpc__Health__V1__HealthCheckResponse answer = GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__INIT;
    answer.status = state.status;
    answer.degraded = state.degraded;
    auto_buf struct buf body = BUF_MAX(REQUEST_MAX);
    TRY(proto_encode(&answer.base, &body));
    uint8_t prefix[GRPC_PREFIX_BYTES];
    grpc_prefix_write((uint32_t)body.size, prefix);
    auto_buf struct buf message = BUF_MAX(REQUEST_MAX + GRPC_PREFIX_BYTES);
    TRY(buf_add(&message, slice_of(prefix, sizeof(prefix))));
    TRY(buf_add(&message, buf_slice(&body)));
    return h2_stream_send(h->stream, buf_slice(&message), /* end= */ false);
}

static struct err answer_check(struct dp_health_watch *h, struct answer state)
{
    TRY(respond(h, state));
    TRY(send_status(h, state));
    const struct h2_field trailer = h2_field_static(H2_TOKEN_GRPC_STATUS, SLICE_LIT("0"));
    return h2_stream_trailers(h->stream, &trailer, 1);
}

static struct err answer_watch(struct dp_health_watch *h, struct answer state)
{
    TRY(respond(h, state));
    h->said = state.status;
    h->said_degraded = state.degraded;
    return send_status(h, state);
}

static void answer(struct dp_health_watch *h)
{
    struct answer state = state_of(h);
    if (!h->watch && state.status == UNKNOWN_SERVICE) {
        answer_status(h, E_NOT_FOUND);
        return;
    }
    struct err e = h->watch ? answer_watch(h, state) : answer_check(h, state);
    if (!err_ok(e)) {
        h2_stream_reset(h->stream, H2_INTERNAL_ERROR);
    }
}

/* ---- the request ---- */

static struct err read_service(struct dp_health_watch *h, struct slice message)
{
    static const struct proto_rules rules = {
        .memory_max = MEMORY_MAX, .malformed = E_MALFORMED, .unknown = E_MALFORMED};
    auto_proto ProtobufCMessage *decoded = NULL;
    TRY(proto_decode(&grpc__health__v1__health_check_request__descriptor, message, &rules,
                     &decoded));
    const Grpc__Health__V1__HealthCheckRequest *request = (const void *)decoded;
    h->service = strdup(request->service);
    return h->service == NULL ? FAIL(E_NO_MEMORY) : OK;
}

static void data(struct h2_stream *s, struct slice bytes, bool end)
{
    struct dp_health_watch *h = h2_stream_user(s);
    h2_stream_consume(s, bytes.size);
    bool found = true;
    while (found && !h->asked) {
        struct slice message = {0};
        struct err e = grpc_reader_next(&h->reader, &bytes, &message, &found);
        if (err_ok(e) && found) {
            e = read_service(h, message);
            h->asked = err_ok(e);
        }
        if (!err_ok(e)) {
            refuse(h->stream, e);
            return;
        }
    }
    if (h->asked && !h2_stream_sent_end(s) && h->said == 0) {
        answer(h);
    } else if (end && !h->asked) {
        refuse(h->stream, FAIL(E_MALFORMED));
    }
}

static void trailers(struct h2_stream *s, const struct h2_fields *fields)
{
    (void)fields;
    data(s, (struct slice){0}, /* end= */ true);
}

static void list_add(struct dp_health_watch *h)
{
    struct dp_worker *w = h->worker;
    h->next = w->watches;
    if (h->next != NULL) {
        h->next->prev = h;
    }
    w->watches = h;
    w->watch_count++;
}

static void list_remove(struct dp_health_watch *h)
{
    if (h->prev != NULL) {
        h->prev->next = h->next;
    } else {
        h->worker->watches = h->next;
    }
    if (h->next != NULL) {
        h->next->prev = h->prev;
    }
    h->worker->watch_count--;
}

static void closed(struct h2_stream *s)
{
    struct dp_health_watch *h = h2_stream_user(s);
    if (h->watch) {
        list_remove(h);
    }
    grpc_reader_free(&h->reader);
    free(h->service);
    free(h);
}

static const struct h2_stream_events events = {
    .data = data, .trailers = trailers, .closed = closed};

void dp_health_request(struct dp_worker *w, struct h2_stream *s, const struct h2_fields *fields,
                       bool end)
{
    struct slice path = h2_fields_value(fields, H2_TOKEN_PATH);
    bool watch = slice_ends(path, SLICE_LIT("/Watch"));
    bool known = watch || slice_ends(path, SLICE_LIT("/Check"));
    bool takes = known && !end && (!watch || w->watch_count < WATCHES_MAX);
    struct dp_health_watch *h = takes ? calloc(1, sizeof(*h)) : NULL;
    if (h == NULL) {
        refuse(s, !known ? FAIL(E_NO_ROUTE) : end ? FAIL(E_MALFORMED) : FAIL(E_OVERLOADED));
        return;
    }
    *h = (struct dp_health_watch){.worker = w, .stream = s, .watch = watch};
    if (watch) {
        list_add(h);
    }
    grpc_reader_init(&h->reader, REQUEST_MAX);
    h2_stream_attach(s, &events, h);
}

/* ---- changes ---- */

static void tell(struct dp_health_watch *h)
{
    struct answer state = state_of(h);
    if (state.status != h->said || state.degraded != h->said_degraded) {
        h->said = state.status;
        h->said_degraded = state.degraded;
        if (!err_ok(send_status(h, state))) {
            h2_stream_reset(h->stream, H2_INTERNAL_ERROR);
        }
    }
}

static void end_watch(struct dp_health_watch *h)
{
    /* gRPC clients take UNAVAILABLE as: connect again, elsewhere. */
    answer_status(h, E_DRAINING);
}

void dp_health_changed(struct dp_worker *w)
{
    for (struct dp_health_watch *h = w->watches; h != NULL;) {
        struct dp_health_watch *next = h->next;
        if (h->asked && !h2_stream_sent_end(h->stream)) {
            tell(h);
        }
        if (w->draining && !h2_stream_sent_end(h->stream)) {
            end_watch(h);
        }
        h = next;
    }
}
