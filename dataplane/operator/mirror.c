/*
 * mirror: see mirror.h.
 *
 *     start -> wait for a connection -> request -> answer -> over --\
 *     the call: bytes, the answer's bytes ------------> detached ----> compared, counted, freed
 */
#include "dataplane/operator/mirror.h"

#include <stdlib.h>

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/map.h"
#include "common/net/grpc.h"
#include "common/net/h2.h"
#include "common/net/loop.h"
#include "common/net/timer.h"
#include "dataplane/operator/fields.h"
#include "dataplane/operator/upstream.h"
#include "dataplane/request/metrics.h"
#include "dataplane/request/request.h"

enum { ARENA_BLOCK = 2048, DRAW_SHIFT = 32, SHADOWS_MAX = 256 };

#define DIGEST_FIRST UINT64_C(0xcbf29ce484222325) /* FNV-1a. */

/* outcome, its label. */
#define OUTCOMES(X)                                                                                \
    X(SAME, "same")                                                                                \
    X(STATUS, "status")         /* the two answers have another grpc-status, */                    \
    X(BODY, "body")             /* or other messages. */                                           \
    X(FAILED, "failed")         /* the shadow did not answer. */                                   \
    X(UNANSWERED, "unanswered") /* the upstream of the caller did not. */                          \
    X(DROPPED, "dropped")       /* too many are under way, or the shadow took it too slowly. */    \
    X(DENIED, "denied")         /* the shadow's policy does not let the caller in. */

enum outcome {
#define X(name, label) OUTCOME_##name,
    OUTCOMES(X)
#undef X
        OUTCOME_COUNT
};

static const char *const outcome_labels[OUTCOME_COUNT] = {
#define X(name, label) label,
    OUTCOMES(X)
#undef X
};

/* The series of a shadow; kept for as long as the worker runs, since there are few. */
struct shadow {
    struct slice id; /* owned; of its cluster. */
    metrics_id outcomes[OUTCOME_COUNT];
    metrics_id caller_latency;
    metrics_id shadow_latency;
};

/* What one of the two answered. */
struct side {
    uint64_t digest; /* of all bytes of messages. */
    uint64_t took_ns;
    int status; /* -1: there is no answer. */
    bool over;
};

struct op_mirror {
    struct op_mirrors *all;
    struct op_mirror *next;
    struct op_mirror *prev;
    struct shadow *shadow;
    struct op_endpoint *endpoint;
    struct h2_stream *upstream; /* NULL until the request is sent, and when it is over. */
    struct op_wait wait;
    struct net_timer timer;
    struct arena arena;
    struct h2_field *head;
    size_t head_count;
    struct buf body; /* what came before there was a connection. */
    uint64_t began_ns;
    uint64_t asked_ns; /* or, until the shadow answers, when more of the request came. */
    uint64_t first_ns; /* from then to the head of the shadow's answer; zero: there is none yet. */
    uint64_t until_ns; /* the call's deadline. */
    struct side caller;
    struct side copy;
    bool asked; /* op_attempt_begin() was called. */
    bool ended; /* the request is whole. */
    bool dropped;
    bool hurried; /* by the call's caller. */
};

struct op_mirrors {
    const struct dp_lane_host *host;
    struct op_upstreams *upstreams;
    struct op_mirror *open;
    size_t open_count;
    struct map shadows;   /* by cluster. */
    struct shadow *other; /* all that came when there were SHADOWS_MAX; NULL: none did. */
};

static const struct h2_stream_events shadow_events;

/* ---- counting ---- */

static metrics_id series_of(const struct op_mirrors *all, enum dp_metric metric, struct slice id,
                            const char *label)
{
    const struct slice values[] = {id, slice_str(label)};
    return metrics_series(dp_request_metrics_set(all->host->metrics), metric, values);
}

static struct shadow *shadow_new(const struct op_mirrors *all, struct slice id)
{
    struct shadow *shadow = calloc(1, sizeof(*shadow));
    if (shadow == NULL) {
        return NULL;
    }
    shadow->id = slice_of(slice_dup(id), id.size);
    for (size_t i = 0; i < OUTCOME_COUNT; i++) {
        shadow->outcomes[i] = series_of(all, DP_METRIC_MIRRORED, id, outcome_labels[i]);
    }
    shadow->caller_latency = series_of(all, DP_METRIC_MIRROR_LATENCY, id, "caller");
    shadow->shadow_latency = series_of(all, DP_METRIC_MIRROR_LATENCY, id, "shadow");
    return shadow;
}

static void shadow_free(struct shadow *shadow)
{
    if (shadow != NULL) {
        slice_free(shadow->id);
        free(shadow);
    }
}

/* Found or made; NULL: there is no memory. */
static struct shadow *shadow_of(struct op_mirrors *all, struct slice id)
{
    struct shadow *shadow = map_get(&all->shadows, id);
    if (shadow == NULL && all->shadows.count >= SHADOWS_MAX) {
        all->other = all->other == NULL ? shadow_new(all, SLICE_LIT("other")) : all->other;
        return all->other;
    }
    if (shadow != NULL || (shadow = shadow_new(all, id)) == NULL) {
        return shadow;
    }
    if (!err_ok(map_put(&all->shadows, shadow->id, shadow, /* out_old= */ NULL))) {
        shadow_free(shadow);
        return NULL;
    }
    return shadow;
}

static void count(const struct op_mirrors *all, const struct shadow *shadow, enum outcome outcome)
{
    metrics_add(dp_request_metrics_shard(all->host->metrics), shadow->outcomes[outcome], 1);
}

static enum outcome compare(const struct op_mirror *m)
{
    if (m->dropped) {
        return OUTCOME_DROPPED;
    }
    if (m->caller.status < 0) {
        return OUTCOME_UNANSWERED;
    }
    if (m->copy.status < 0) {
        return OUTCOME_FAILED;
    }
    if (m->caller.status != m->copy.status) {
        return OUTCOME_STATUS;
    }
    return m->caller.digest == m->copy.digest ? OUTCOME_SAME : OUTCOME_BODY;
}

static void record(const struct op_mirror *m)
{
    struct metrics_shard *shard = dp_request_metrics_shard(m->all->host->metrics);
    metrics_record(shard, m->shadow->caller_latency, m->caller.took_ns / 1000);
    metrics_record(shard, m->shadow->shadow_latency, m->copy.took_ns / 1000);
}

/* ---- its end ---- */

static void mirror_free(struct op_mirror *m)
{
    struct op_mirrors *all = m->all;
    if (m->prev != NULL) {
        m->prev->next = m->next;
    } else {
        all->open = m->next;
    }
    if (m->next != NULL) {
        m->next->prev = m->prev;
    }
    all->open_count--;
    buf_free(&m->body);
    arena_free(&m->arena);
    free(m);
}

/* Gives up the exchange. */
static void let_go(struct op_mirror *m)
{
    net_timer_cancel(m->all->host->loop, &m->timer);
    op_wait_cancel(&m->wait);
    buf_free(&m->body);
    struct h2_stream *upstream = m->upstream;
    m->upstream = NULL;
    if (upstream != NULL) {
        h2_stream_attach(upstream, /* events: */ NULL, /* user: */ NULL);
        if (!h2_stream_received_end(upstream) || !h2_stream_sent_end(upstream)) {
            h2_stream_reset(upstream, H2_CANCEL);
        }
    }
}

static void release(struct op_mirror *m, enum op_end end)
{
    if (m->asked) {
        const struct op_outcome how = {.end = end,
                                       .grpc_status = m->copy.status,
                                       .took_ns = net_loop_now_ns(m->all->host->loop) - m->asked_ns,
                                       .first_ns = m->first_ns,
                                       .hurried = m->hurried};
        m->asked = false;
        op_attempt_end(m->endpoint, &how);
    }
}

static uint64_t since(const struct op_mirror *m)
{
    return net_loop_now_ns(m->all->host->loop) - m->began_ns;
}

static void settle(struct op_mirror *m)
{
    if (!m->caller.over || !m->copy.over) {
        return;
    }
    enum outcome outcome = compare(m);
    count(m->all, m->shadow, outcome);
    if (outcome == OUTCOME_SAME || outcome == OUTCOME_STATUS || outcome == OUTCOME_BODY) {
        record(m);
    }
    mirror_free(m);
}

/* The shadow's side is over; the copy may be gone when this returns. */
static void copy_over(struct op_mirror *m, enum op_end end)
{
    CHECK(!m->copy.over);
    m->copy.over = true;
    m->copy.took_ns = since(m);
    let_go(m);
    release(m, end);
    settle(m);
}

static void drop(struct op_mirror *m)
{
    m->dropped = true;
    copy_over(m, OP_END_GIVEN_UP);
}

/* An endpoint has failed when nothing came by the deadline, and not when what comes behind the call
 * is cut off. */
static void timed_out(struct net_timer *timer, void *ctx)
{
    (void)timer;
    struct op_mirror *m = ctx;
    bool late = m->ended && m->first_ns == 0 && net_loop_now_ns(m->all->host->loop) >= m->until_ns;
    copy_over(m, late ? OP_END_TIMEOUT : OP_END_GIVEN_UP);
}

/* The call's deadline may be far, and nobody waits any more. */
static void bound_rest(struct op_mirror *m)
{
    uint64_t now_ns = net_loop_now_ns(m->all->host->loop);
    uint64_t left_ms = m->until_ns > now_ns ? (m->until_ns - now_ns) / 1000000 + 1 : 1;
    net_timer_arm(m->all->host->loop, &m->timer,
                  left_ms < limits.mirror_after_ms ? left_ms : limits.mirror_after_ms);
}

/* ---- start ---- */

static bool drawn(const struct dp_request *rq)
{
    return (rq->draw >> DRAW_SHIFT) % 1000 < rq->route->mirror_per_mille;
}

/* "orders.example.com-shadow:8080". */
static MUST_CHECK struct err name_shadow(struct arena *arena, struct h2_field *authority)
{
    struct slice name = authority->value;
    size_t port = name.size;
    for (size_t i = name.size; i > 0 && name.ptr[i - 1] != ']'; i--) {
        port = name.ptr[i - 1] == ':' ? i - 1 : port;
    }
    const struct slice pieces[] = {slice_head(name, port), SLICE_LIT("-shadow"),
                                   slice_from(name, port)};
    struct slice shadow = {0};
    TRY(arena_join(arena, pieces, 3, &shadow));
    *authority = h2_field_of(H2_TOKEN_AUTHORITY, shadow);
    return OK;
}

/* The caller's connection may go before the copy does. */
static MUST_CHECK struct err own_field(struct arena *arena, struct h2_field *field)
{
    if ((field->flags & H2_FIELD_NAME_STATIC) == 0) {
        TRY(arena_dup(arena, field->name, &field->name));
    }
    if ((field->flags & H2_FIELD_VALUE_STATIC) == 0) {
        TRY(arena_dup(arena, field->value, &field->value));
    }
    return OK;
}

static MUST_CHECK struct err make_head(struct op_mirror *m, const struct dp_request *rq)
{
    const struct h2_fields *received = rq->caller_stream.fields;
    size_t room_count = received->count + (size_t)OP_FIELDS_OURS + 1;
    struct op_fields_room room;
    const struct op_fields_try how = {.until_ns = rq->deadline_ns};
    TRY(arena_alloc(&m->arena, room_count * sizeof(*m->head), (void **)&m->head));
    m->head_count = op_request_fields(rq, received, &how, &room, m->head);
    for (size_t i = 0; i < m->head_count; i++) {
        struct h2_field *field = &m->head[i];
        TRY(field->token == H2_TOKEN_AUTHORITY ? name_shadow(&m->arena, field)
                                               : own_field(&m->arena, field));
    }
    m->head[m->head_count++] = h2_field_named(SLICE_LIT("x-trilane-mirror"), SLICE_LIT("1"));
    return OK;
}

/* With this the shadow has all that came so far. */
static MUST_CHECK struct err send_request(struct op_mirror *m, struct h2_conn *conn)
{
    bool end = m->ended && m->body.size == 0;
    TRY(h2_conn_request(conn, m->head, m->head_count, end, &m->upstream));
    h2_stream_attach(m->upstream, &shadow_events, m);
    op_attempt_begin(m->endpoint);
    m->asked = true;
    m->asked_ns = net_loop_now_ns(m->all->host->loop);
    if (m->body.size > 0) {
        TRY(h2_stream_send(m->upstream, buf_slice(&m->body), m->ended));
    }
    buf_free(&m->body);
    return OK;
}

/* Who cannot be reached is left alone for a while, by copies as by calls. */
static void report(const struct op_mirror *m, struct err why)
{
    if (err_ok(why) || why.code == E_UPSTREAM_CONNECT) {
        op_endpoint_report(m->endpoint, err_ok(why));
    }
}

static void connected(struct op_wait *wait, struct h2_conn *conn, struct err why)
{
    struct op_mirror *m = wait->ctx;
    report(m, why);
    if (!err_ok(why) || !err_ok(send_request(m, conn))) {
        copy_over(m, OP_END_GIVEN_UP);
    }
}

/* One endpoint is tried: a copy is not worth more. */
static MUST_CHECK struct err find_connection(struct op_mirror *m, const struct dp_request *rq)
{
    struct op_tries tries = {0};
    struct h2_conn *conn = NULL;
    TRY(op_upstreams_pick(m->all->upstreams, rq, &tries, &m->endpoint));
    struct err err = op_wait_start(&m->wait, m->endpoint, dp_request_left_ms(rq), &conn);
    if (!err_ok(err) || conn != NULL) {
        report(m, err);
    }
    TRY(err);
    return conn == NULL ? OK : send_request(m, conn);
}

static struct op_mirror *open_one(struct op_mirrors *all, struct shadow *shadow)
{
    struct op_mirror *m = calloc(1, sizeof(*m));
    if (m == NULL) {
        return NULL;
    }
    *m = (struct op_mirror){.all = all,
                            .next = all->open,
                            .shadow = shadow,
                            .body = BUF_MAX(limits.replay_bytes),
                            .began_ns = net_loop_now_ns(all->host->loop),
                            .caller = {.digest = DIGEST_FIRST, .status = -1},
                            .copy = {.digest = DIGEST_FIRST, .status = -1}};
    m->wait.ready = connected;
    m->wait.ctx = m;
    net_timer_init(&m->timer, timed_out, m);
    arena_init(&m->arena, ARENA_BLOCK, limits.request_arena_bytes);
    if (all->open != NULL) {
        all->open->prev = m;
    }
    all->open = m;
    all->open_count++;
    return m;
}

/* As if the shadow had been asked for. */
static MUST_CHECK struct err begin(struct op_mirror *m, const struct dp_request *rq,
                                   const struct dp_cluster *cluster)
{
    struct dp_request asked = *rq;
    asked.cluster = cluster;
    asked.target = &cluster->target;
    asked.transport = dp_model_transport(rq->model, cluster->transport);
    m->ended = dp_caller_received_end(&rq->caller_stream);
    m->until_ns = rq->deadline_ns;
    m->hurried = rq->hurried;
    net_timer_arm(m->all->host->loop, &m->timer, dp_request_left_ms(rq));
    TRY(make_head(m, &asked));
    return find_connection(m, &asked);
}

struct op_mirror *op_mirror_start(struct op_mirrors *all, struct dp_request *rq)
{
    if (!drawn(rq)) {
        return NULL;
    }
    const struct dp_cluster *cluster = dp_model_cluster(rq->model, rq->route->mirror);
    CHECK(cluster != NULL); /* the model was judged by it. */
    struct shadow *shadow = shadow_of(all, cluster->target.id);
    if (shadow == NULL) {
        return NULL;
    }
    /* A shadow is a target like any other: what no rule allows is denied. */
    if (!dp_request_may(rq, &cluster->target, rq->verb, rq->method, /* cached: */ true)) {
        count(all, shadow, OUTCOME_DENIED);
        return NULL;
    }
    struct op_mirror *m = all->open_count < limits.mirrored_calls ? open_one(all, shadow) : NULL;
    if (m == NULL) {
        count(all, shadow, OUTCOME_DROPPED);
        return NULL;
    }
    if (!err_ok(begin(m, rq, cluster))) {
        count(all, shadow, OUTCOME_FAILED);
        let_go(m);
        release(m, OP_END_GIVEN_UP);
        mirror_free(m);
        return NULL;
    }
    return m;
}

/* ---- the request goes on, if the shadow takes it ---- */

static bool takes(const struct op_mirror *m, size_t size)
{
    return m->upstream == NULL || h2_stream_queued(m->upstream) + size <= limits.replay_bytes;
}

void op_mirror_send(struct op_mirror *m, struct slice bytes, bool end)
{
    if (m->copy.over) {
        return;
    }
    m->ended = m->ended || end;
    m->asked_ns = m->first_ns == 0 ? net_loop_now_ns(m->all->host->loop) : m->asked_ns;
    struct err err = FAIL(E_QUEUE_FULL);
    if (takes(m, bytes.size)) {
        err = m->upstream == NULL ? buf_add(&m->body, bytes)
                                  : h2_stream_send(m->upstream, bytes, end);
    }
    if (!err_ok(err)) {
        drop(m);
    }
}

/* ---- both answers ---- */

/* FNV-1a: tells answers apart that differ by accident, wherever they were cut. */
static uint64_t digest_add(uint64_t digest, struct slice bytes)
{
    for (size_t i = 0; i < bytes.size; i++) {
        digest = (digest ^ bytes.ptr[i]) * UINT64_C(0x100000001b3);
    }
    return digest;
}

void op_mirror_answer(struct op_mirror *m, struct slice bytes)
{
    m->caller.digest = digest_add(m->caller.digest, bytes);
}

void op_mirror_detach(struct op_mirror *m, int grpc_status)
{
    CHECK(!m->caller.over);
    m->caller.over = true;
    m->caller.status = grpc_status;
    m->caller.took_ns = since(m);
    if (m->copy.over) {
        settle(m);
    } else if (!m->ended || grpc_status < 0) {
        m->caller.status = -1; /* there is nothing to compare with. */
        copy_over(m, OP_END_GIVEN_UP);
    } else {
        bound_rest(m);
    }
}

static void shadow_answered(struct op_mirror *m, const struct h2_fields *fields)
{
    const struct h2_field *status = h2_fields_get(fields, H2_TOKEN_GRPC_STATUS);
    if (status != NULL) {
        m->copy.status = (int)grpc_status_parse(status->value);
    }
    copy_over(m, status != NULL ? OP_END_ANSWERED : OP_END_FAILED);
}

static void shadow_headers(struct h2_stream *s, const struct h2_fields *fields, bool end)
{
    struct op_mirror *m = h2_stream_user(s);
    m->first_ns = net_loop_now_ns(m->all->host->loop) - m->asked_ns;
    m->first_ns += m->first_ns == 0;
    if (end) {
        shadow_answered(m, fields);
    }
}

static void shadow_data(struct h2_stream *s, struct slice bytes, bool end)
{
    struct op_mirror *m = h2_stream_user(s);
    m->copy.digest = digest_add(m->copy.digest, bytes);
    h2_stream_consume(s, bytes.size);
    if (end) {
        copy_over(m, OP_END_FAILED); /* without a status. */
    }
}

static void shadow_trailers(struct h2_stream *s, const struct h2_fields *fields)
{
    shadow_answered(h2_stream_user(s), fields);
}

static void shadow_reset(struct h2_stream *s, struct h2_reset why)
{
    struct op_mirror *m = h2_stream_user(s);
    m->upstream = NULL;
    copy_over(m, why.unprocessed ? OP_END_GIVEN_UP : OP_END_FAILED);
}

static const struct h2_stream_events shadow_events = {.headers = shadow_headers,
                                                      .data = shadow_data,
                                                      .trailers = shadow_trailers,
                                                      .reset = shadow_reset};

/* ---- all of a worker ---- */

struct err op_mirrors_new(const struct dp_lane_host *host, struct op_upstreams *upstreams,
                          struct op_mirrors **out)
{
    struct op_mirrors *all = calloc(1, sizeof(*all));
    if (all == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    all->host = host;
    all->upstreams = upstreams;
    *out = all;
    return OK;
}

void op_mirrors_free(struct op_mirrors *all)
{
    if (all == NULL) {
        return;
    }
    while (all->open != NULL) { /* ends: each turn frees one. */
        struct op_mirror *m = all->open;
        let_go(m);
        release(m, OP_END_GIVEN_UP);
        mirror_free(m);
    }
    size_t at = 0;
    for (const struct map_entry *e = map_next(&all->shadows, &at); e != NULL;
         e = map_next(&all->shadows, &at)) {
        shadow_free(e->value);
    }
    shadow_free(all->other);
    map_free(&all->shadows);
    free(all);
}
