/* health: see health.h. The boards first; then a probe, from its start to its verdict. */
#include "dataplane/operator/health.h"

#include <stdlib.h>

#include "common/base/board.h"
#include "common/base/buf.h"
#include "common/base/check.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/context/trace.h"
#include "common/net/grpc.h"
#include "common/net/h2.h"
#include "common/net/h2_pool.h"
#include "common/net/loop.h"
#include "common/proto/strict.h"
#include "dataplane/operator/upstream_impl.h"
#include "dataplane/request/metrics.h"

#include "grpc/health/v1/health.pb-c.h"

enum {
    WALK_BATCH = 256, /* slots that a turn looks at. */
    WALKS = 10,       /* in an interval, */
    WALK_LEAST_MS = 10,
    WALK_MOST_MS = 1000,
    MESSAGE_MAX = 1024,
    MEMORY_MAX = 16 << 10,
};

enum { STATE_UNKNOWN, STATE_WELL, STATE_UNWELL };

struct op_probe {
    struct op_endpoint *endpoint;
    uint64_t key;          /* of what is asked: a snapshot may bring another question. */
    struct op_probe *next; /* of the worker's. */
    struct op_probe *prev;
    struct op_wait wait;
    struct h2_stream *stream; /* NULL: not sent, or over. */
    struct net_timer timer;   /* when it has taken too long. */
    struct grpc_reader reader;
    bool answered; /* HTTP: the head said that all is well. */
    bool serving;  /* gRPC: the message did. */
};

static struct net_loop *loop_of(const struct op_set *set)
{
    return set->ups->host->loop;
}

static uint64_t now_ms(const struct op_set *set)
{
    return net_loop_now_ns(loop_of(set)) / 1000000;
}

static struct metrics_shard *shard_of(const struct op_set *set)
{
    return dp_request_metrics_shard(set->ups->host->metrics);
}

/* ---- what the board says ---- */

/* The same on every worker, and another one when the service asks otherwise. */
static uint64_t key_of(const struct op_endpoint *e)
{
    uint64_t key = map_hash(e->key) ^ hash_mix(map_hash(e->set->id) ^ e->set->health.print);
    return key == 0 ? 1 : key;
}

static struct board_cell *cell_of(struct op_endpoint *e, struct board_entry *out)
{
    *out = (struct board_entry){0};
    if (e->health_cell != NULL && board_read(e->health_cell, e->health_key, out)) {
        return e->health_cell;
    }
    e->health_key = key_of(e);
    e->health_cell = board_find(e->ups->board, e->health_key, now_ms(e->set));
    if (e->health_cell != NULL) {
        (void)board_read(e->health_cell, e->health_key, out);
    }
    return e->health_cell;
}

static void unwell_moved(struct op_endpoint *e, int by)
{
    struct op_set *set = e->set;
    if (op_set_has(set, e)) {
        CHECK(by > 0 || set->unwell > 0);
        set->unwell = by > 0 ? set->unwell + 1 : set->unwell - 1;
        metrics_set(shard_of(set), set->metrics.unwell_now, (int64_t)set->unwell);
        op_set_count_out(e);
    }
}

static void take_over(struct op_endpoint *e, uint32_t state)
{
    struct op_set *set = e->set;
    bool unwell = state == STATE_UNWELL;
    if (unwell == e->unwell) {
        return;
    }
    e->unwell = unwell;
    unwell_moved(e, unwell ? 1 : -1);
    e->joined_ns = unwell ? e->joined_ns : net_loop_now_ns(loop_of(set)); /* it comes back. */
    LOG(unwell ? LOG_WARN : LOG_INFO, "operator", unwell ? "endpoint-unwell" : "endpoint-well",
        LOG_STR("endpoint", e->text), LOG_SLICE("cluster", set->cluster));
}

/* What is on the board after one more result: a change takes so many in a row, but for a first one
 * that is good, which is believed at once. */
static struct board_entry after_result(const struct op_set *set, const struct board_entry *before,
                                       bool well)
{
    struct board_entry after = *before;
    uint32_t state = well ? STATE_WELL : STATE_UNWELL;
    uint32_t wanted = well ? set->health.healthy : set->health.unhealthy;
    bool first = before->state == STATE_UNKNOWN && well;
    bool changes = before->state != state && (first || before->streak + 1 >= wanted);
    after.state = changes ? state : before->state;
    after.streak = changes || before->state == state ? 0 : before->streak + 1;
    return after;
}

static void write_result(struct op_endpoint *e, bool well)
{
    struct board_entry before;
    struct board_cell *cell = cell_of(e, &before);
    struct board_entry after = after_result(e->set, &before, well);
    metrics_add(shard_of(e->set), e->set->metrics.probes[well], 1);
    if (cell != NULL && board_exchange(cell, e->health_key, &before, &after)) {
        take_over(e, after.state);
    }
}

/* An interval, a tenth more or less, so that probes of endpoints that came together part. */
static bool is_due(const struct op_endpoint *e, const struct board_entry *entry)
{
    uint64_t interval_ms = e->set->health.interval_ms;
    uint64_t jitter_ms = hash_mix(e->health_key ^ entry->at_ms) % (interval_ms / 5 + 1);
    return entry->at_ms == 0 ||
           now_ms(e->set) >= entry->at_ms + interval_ms - interval_ms / 10 + jitter_ms;
}

static void probe_start(struct op_endpoint *e);

/* Takes over what is known; probes, when it is time and nobody else has taken that up. */
static void look_at(struct op_endpoint *e)
{
    struct board_entry entry;
    struct board_cell *cell = cell_of(e, &entry);
    if (cell == NULL) {
        take_over(e, STATE_WELL); /* the board is full, and nobody can say otherwise. */
        return;
    }
    take_over(e, entry.state);
    if (e->probing || !is_due(e, &entry) || e->ups->probe_count >= HEALTH_PROBES_MAX) {
        return;
    }
    struct board_entry mine = entry;
    mine.at_ms = now_ms(e->set);
    if (board_exchange(cell, e->health_key, &entry, &mine)) {
        probe_start(e);
    }
}

void op_health_walk(struct net_timer *timer, void *ctx)
{
    struct op_set *set = ctx;
    uint64_t rest_ms = set->health.interval_ms / WALKS;
    rest_ms = rest_ms < WALK_LEAST_MS ? WALK_LEAST_MS : rest_ms;
    rest_ms = rest_ms > WALK_MOST_MS ? WALK_MOST_MS : rest_ms;
    for (size_t i = 0; i < WALK_BATCH && set->health_at < set->count; i++) {
        struct op_endpoint *e = set->slots[set->health_at++];
        if (e != NULL) {
            look_at(e);
        }
    }
    bool done = set->health_at >= set->count;
    set->health_at = done ? 0 : set->health_at;
    net_timer_arm(loop_of(set), timer, done ? rest_ms : 1);
}

/* ---- a probe: its end ---- */

static void probe_free(struct op_probe *probe)
{
    struct op_endpoint *e = probe->endpoint;
    struct op_upstreams *ups = e->ups;
    op_wait_cancel(&probe->wait);
    net_timer_cancel(ups->host->loop, &probe->timer);
    if (probe->stream != NULL) {
        struct h2_stream *stream = probe->stream;
        probe->stream = NULL;
        h2_stream_attach(stream, /* events= */ NULL, /* user= */ NULL);
        if (!h2_stream_received_end(stream) || !h2_stream_sent_end(stream)) {
            h2_stream_reset(stream, H2_CANCEL);
        }
    }
    *(probe->prev == NULL ? &ups->probes : &probe->prev->next) = probe->next;
    if (probe->next != NULL) {
        probe->next->prev = probe->prev;
    }
    ups->probe_count--;
    grpc_reader_free(&probe->reader);
    e->probing = false;
    e->refs--;
    free(probe);
}

static bool is_still_asked(const struct op_probe *probe)
{
    return key_of(probe->endpoint) == probe->key;
}

/* What was asked before says nothing of what is asked now, which may be nothing. */
static void verdict(struct op_probe *probe, bool well)
{
    struct op_endpoint *e = probe->endpoint;
    bool counts = is_still_asked(probe);
    probe_free(probe);
    if (counts) {
        write_result(e, well);
    }
}

/* The probe waits for room on a connection that others have all of: as far as is known its peer is
 * as well as it was. */
static bool finds_it_full(const struct op_probe *probe)
{
    return probe->stream == NULL && probe->wait.asked != NULL &&
           h2_pool_connected(probe->wait.asked);
}

/* A connection is all that TCP asks for. */
static void pass_over(struct op_probe *probe)
{
    if (probe->endpoint->set->health.kind == DP_HEALTH_TCP) {
        verdict(probe, /* well= */ true);
    } else {
        probe_free(probe);
    }
}

static void too_long(struct net_timer *timer, void *ctx)
{
    (void)timer;
    struct op_probe *probe = ctx;
    if (finds_it_full(probe)) {
        pass_over(probe);
    } else {
        verdict(probe, /* well= */ false);
    }
}

void op_health_stop(struct op_upstreams *ups)
{
    while (ups->probes != NULL) {
        probe_free(ups->probes);
    }
}

/* ---- a probe: the answer ---- */

static void answer_headers(struct h2_stream *s, const struct h2_fields *fields, bool end)
{
    struct op_probe *probe = h2_stream_user(s);
    struct slice status = h2_fields_value(fields, H2_TOKEN_STATUS);
    bool grpc = probe->endpoint->set->health.kind == DP_HEALTH_GRPC;
    probe->answered = status.size == 3 && status.ptr[0] == '2';
    if (!probe->answered || end) {
        verdict(probe, probe->answered && !grpc);
    }
}

static bool says_serving(struct slice message)
{
    static const struct proto_rules rules = {
        .memory_max = MEMORY_MAX, .malformed = E_MALFORMED, .unknown = E_MALFORMED};
    auto_proto ProtobufCMessage *decoded = NULL;
    if (!err_ok(proto_decode(&grpc__health__v1__health_check_response__descriptor, message, &rules,
                             &decoded))) {
        return false;
    }
    const Grpc__Health__V1__HealthCheckResponse *answer = (const void *)decoded;
    return answer->status == GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING;
}

static void answer_data(struct h2_stream *s, struct slice bytes, bool end)
{
    struct op_probe *probe = h2_stream_user(s);
    bool grpc = probe->endpoint->set->health.kind == DP_HEALTH_GRPC;
    struct slice message = {0};
    bool found = grpc;
    h2_stream_consume(s, bytes.size);
    while (found) {
        if (!err_ok(grpc_reader_next(&probe->reader, &bytes, &message, &found))) {
            verdict(probe, /* well= */ false);
            return;
        }
        probe->serving = found ? says_serving(message) : probe->serving;
    }
    if (end) {
        verdict(probe, probe->answered && !grpc);
    }
}

static void answer_trailers(struct h2_stream *s, const struct h2_fields *fields)
{
    struct op_probe *probe = h2_stream_user(s);
    bool grpc = probe->endpoint->set->health.kind == DP_HEALTH_GRPC;
    bool ok = grpc_status_parse(h2_fields_value(fields, H2_TOKEN_GRPC_STATUS)) == GRPC_OK;
    verdict(probe, grpc ? ok && probe->serving : probe->answered);
}

/* What the peer did not look at, since its connection ends, says nothing. */
static void answer_reset(struct h2_stream *s, struct h2_reset why)
{
    struct op_probe *probe = h2_stream_user(s);
    probe->stream = NULL;
    if (why.unprocessed) {
        probe_free(probe);
    } else {
        verdict(probe, /* well= */ false);
    }
}

static const struct h2_stream_events answer_events = {.headers = answer_headers,
                                                      .data = answer_data,
                                                      .trailers = answer_trailers,
                                                      .reset = answer_reset};

/* ---- a probe: the request ---- */

enum { FIELDS_MAX = 8 };

/* The server's name; of an address of IPv6 the form with brackets. */
static struct slice authority_of(const struct op_endpoint *e)
{
    struct slice name = slice_str(e->server_name);
    return slice_find(name, ':') < name.size ? slice_str(e->text) : name;
}

static MUST_CHECK struct err send_head(struct op_probe *probe, struct h2_conn *conn)
{
    const struct op_endpoint *e = probe->endpoint;
    const struct op_health *health = &e->set->health;
    bool grpc = health->kind == DP_HEALTH_GRPC;
    char traceparent[TRACE_PARENT_SIZE + 1];
    struct trace trace = trace_new(/* sampled= */ false);
    trace_format(&trace, traceparent);
    struct h2_field fields[FIELDS_MAX];
    size_t count = 0;
    fields[count++] = h2_field_static(H2_TOKEN_METHOD, grpc ? SLICE_LIT("POST") : SLICE_LIT("GET"));
    fields[count++] =
        h2_field_static(H2_TOKEN_SCHEME, e->security == 0 ? SLICE_LIT("http") : SLICE_LIT("https"));
    fields[count++] =
        h2_field_of(H2_TOKEN_PATH, grpc ? SLICE_LIT("/grpc.health.v1.Health/Check") : health->path);
    fields[count++] = h2_field_of(H2_TOKEN_AUTHORITY, authority_of(e));
    fields[count++] = h2_field_of(H2_TOKEN_TRACEPARENT, slice_of(traceparent, TRACE_PARENT_SIZE));
    fields[count++] = h2_field_static(H2_TOKEN_USER_AGENT, SLICE_LIT("trilane-dp"));
    if (grpc) {
        fields[count++] = h2_field_static(H2_TOKEN_TE, SLICE_LIT("trailers"));
        fields[count++] = h2_field_static(H2_TOKEN_CONTENT_TYPE, SLICE_LIT("application/grpc"));
    }
    TRY(h2_conn_request(conn, fields, count, /* end= */ !grpc, &probe->stream));
    h2_stream_attach(probe->stream, &answer_events, probe);
    return OK;
}

static MUST_CHECK struct err send_question(struct op_probe *probe)
{
    struct slice service = probe->endpoint->set->health.service; /* a NUL is behind it. */
    Grpc__Health__V1__HealthCheckRequest question;
    grpc__health__v1__health_check_request__init(&question);
    question.service = proto_text((const char *)service.ptr);
    auto_buf struct buf body = BUF_MAX(MESSAGE_MAX);
    auto_buf struct buf message = BUF_MAX(MESSAGE_MAX + GRPC_PREFIX_BYTES);
    uint8_t prefix[GRPC_PREFIX_BYTES];
    TRY(proto_encode(&question.base, &body));
    grpc_prefix_write((uint32_t)body.size, prefix);
    TRY(buf_add(&message, slice_of(prefix, sizeof(prefix))));
    TRY(buf_add(&message, buf_slice(&body)));
    return h2_stream_send(probe->stream, buf_slice(&message), /* end= */ true);
}

static void ask(struct op_probe *probe, struct h2_conn *conn)
{
    enum dp_health_kind kind = probe->endpoint->set->health.kind;
    if (kind == DP_HEALTH_TCP) {
        verdict(probe, /* well= */ true); /* there is a connection. */
        return;
    }
    struct err err = send_head(probe, conn);
    if (err_ok(err) && kind == DP_HEALTH_GRPC) {
        err = send_question(probe);
    }
    if (!err_ok(err)) {
        probe_free(probe); /* for want of memory, or of room: that is ours. */
    }
}

/* No connection is a verdict; that the line in front of us is full, or waits for room, is none. */
static void refused(struct op_probe *probe, struct err why)
{
    bool theirs = why.code == E_UPSTREAM_CONNECT || why.code == E_DEADLINE_EXCEEDED;
    if (why.code == E_DEADLINE_EXCEEDED && finds_it_full(probe)) {
        pass_over(probe);
    } else if (theirs) {
        op_endpoint_report(probe->endpoint, /* reached= */ false);
        verdict(probe, /* well= */ false);
    } else {
        probe_free(probe);
    }
}

static void connected(struct op_wait *wait, struct h2_conn *conn, struct err why)
{
    struct op_probe *probe = wait->ctx;
    if (err_ok(why) && !is_still_asked(probe)) {
        probe_free(probe);
    } else if (err_ok(why)) {
        ask(probe, conn);
    } else {
        refused(probe, why);
    }
}

static void probe_start(struct op_endpoint *e)
{
    struct op_upstreams *ups = e->ups;
    struct op_probe *probe = calloc(1, sizeof(*probe));
    if (probe == NULL) {
        return; /* another time. */
    }
    probe->endpoint = e;
    probe->key = key_of(e);
    probe->wait = (struct op_wait){.ready = connected, .ctx = probe, .apart = true};
    probe->next = ups->probes;
    if (probe->next != NULL) {
        probe->next->prev = probe;
    }
    ups->probes = probe;
    ups->probe_count++;
    e->probing = true;
    e->refs++;
    grpc_reader_init(&probe->reader, MESSAGE_MAX);
    net_timer_init(&probe->timer, too_long, probe);
    net_timer_arm(ups->host->loop, &probe->timer, e->set->health.timeout_ms);
    struct h2_conn *conn = NULL;
    struct err err = op_wait_start(&probe->wait, e, e->set->health.timeout_ms, &conn);
    if (!err_ok(err)) {
        refused(probe, err);
    } else if (conn != NULL) {
        ask(probe, conn);
    }
}

/* ---- slots ---- */

void op_health_begin(struct op_set *set)
{
    set->health_at = 0;
    metrics_set(shard_of(set), set->metrics.unwell_now, 0);
    if (set->health.kind == DP_HEALTH_NONE) {
        net_timer_cancel(loop_of(set), &set->health_timer);
    } else {
        net_timer_arm(loop_of(set), &set->health_timer, 1);
    }
}

void op_health_joined(struct op_endpoint *e)
{
    e->health_cell = NULL; /* another question has another one. */
    if (e->set->health.kind == DP_HEALTH_NONE) {
        e->unwell = false;
    }
    if (e->unwell) {
        unwell_moved(e, 1);
    }
}
