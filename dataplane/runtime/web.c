/* web: see web.h. */
#include "dataplane/runtime/web.h"

#include <inttypes.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/net/grpc.h"
#include "common/net/http1.h"
#include "dataplane/runtime/early.h"
#include "dataplane/runtime/front_h2.h"
#include "dataplane/runtime/input.h"
#include "dataplane/runtime/port.h"
#include "dataplane/runtime/reflection.h"
#include "dataplane/runtime/worker.h"

/* Decoded, and encoded, at a time. */
enum { DECODED_MAX = 6144, ENCODED_MAX = 8192 };
_Static_assert(DECODED_MAX / 3 * 4 == ENCODED_MAX, "one is the other in base64");

/* What a head has beside the fields that it is made from: status, type, and those of CORS. */
enum { OWN_FIELDS = 2 + DP_CORS_FIELDS };

/* What a connection keeps of the memory for waiting bytes while it is asked for nothing. */
enum { KEPT_MAX = 4096 };

/* Pseudo fields and the content type of a request. */
enum { REQUEST_FIELDS = 5 };

static const struct dp_front front;
static const struct dp_caller_way way;

void dp_web_init(struct dp_web *w, const struct dp_web_sink *sink, void *impl)
{
    struct buf waiting = w->waiting;
    buf_clear(&waiting);
    waiting.max = SIZE_MAX; /* send() bounds it; a section of fields is bounded by itself. */
    *w = (struct dp_web){
        .sink = sink, .impl = impl, .waiting = waiting, .scan = {.message_max = UINT32_MAX}};
}

void dp_web_rest(struct dp_web *w)
{
    CHECK(w->rq == NULL);
    if (w->waiting.capacity > KEPT_MAX) {
        buf_free(&w->waiting);
        w->waiting_at = 0;
        w->own = 0;
    }
}

void dp_web_free(struct dp_web *w)
{
    buf_free(&w->waiting);
}

/* ---- the request ---- */

#define BIT(token) (UINT64_C(1) << (H2_TOKEN_##token))

/* Fields that are said anew, or are about one hop's messages. */
static const uint64_t left_out = BIT(AUTHORITY) | BIT(METHOD) | BIT(PATH) | BIT(SCHEME) |
                                 BIT(STATUS) | BIT(PROTOCOL) | BIT(TE) | BIT(HOST) | BIT(EXPECT) |
                                 BIT(ACCEPT) | BIT(CONTENT_TYPE) | BIT(CONTENT_LENGTH);

static bool is_left_out(const struct h2_field *field)
{
    if (field->token != H2_TOKEN_OTHER) {
        return (left_out >> field->token & 1) != 0;
    }
    return http1_is_hop_by_hop(field->name) ||
           slice_starts(field->name, SLICE_LIT("sec-websocket-"));
}

void dp_web_add_field(struct h2_fields *to, const struct h2_field *field)
{
    if (!is_left_out(field)) {
        h2_fields_append(to, field);
    }
}

/* Flags promise that the name outlives the caller's connection: it has to be the token's own. */
void dp_web_add_text(struct h2_fields *to, struct slice name, struct slice value)
{
    enum h2_token token = h2_token_find(name);
    const struct h2_field field = {.name = token == H2_TOKEN_OTHER ? name : h2_token_name(token),
                                   .value = value,
                                   .token = (uint8_t)token,
                                   .flags = h2_token_flags(token)};
    dp_web_add_field(to, &field);
}

static MUST_CHECK struct err make_type(struct arena *arena, const char *type, struct slice suffix,
                                       struct slice *out)
{
    return arena_printf(arena, out, "%s%.*s", type, SLICE_ARG(suffix));
}

/* The fields that gRPC over HTTP/2 would have brought. */
static MUST_CHECK struct err make_fields(struct dp_web *w, const struct dp_web_ask *ask,
                                         struct h2_fields **out)
{
    struct arena *arena = &w->rq->arena;
    struct h2_fields *f = NULL;
    struct slice type = {0};
    bool tls = net_conn_is_tls(dp_caller_conn_net(ask->conn));
    size_t capacity = ask->field_max + REQUEST_FIELDS;
    CHECK(capacity <= UINT16_MAX);
    TRY(make_type(arena, "application/grpc", w->suffix, &type));
    TRY(arena_calloc(arena, 1, sizeof(*f), (void **)&f));
    TRY(arena_calloc(arena, capacity, sizeof(*f->at), (void **)&f->at));
    f->capacity = (uint16_t)capacity;
    const struct h2_field pseudo[] = {
        h2_field_static(H2_TOKEN_METHOD, SLICE_LIT("POST")),
        h2_field_static(H2_TOKEN_SCHEME, tls ? SLICE_LIT("https") : SLICE_LIT("http")),
        h2_field_of(H2_TOKEN_PATH, ask->path),
        h2_field_of(H2_TOKEN_AUTHORITY, ask->authority),
        h2_field_of(H2_TOKEN_CONTENT_TYPE, type),
    };
    for (size_t i = 0; i < REQUEST_FIELDS; i++) {
        h2_fields_append(f, &pseudo[i]);
    }
    TRY(ask->add(w, f));
    *out = f;
    return OK;
}

/* What the answer says beside its own fields is kept until then. */
static MUST_CHECK struct err fill(struct dp_web *w, const struct dp_web_ask *ask)
{
    struct dp_request *rq = w->rq;
    struct h2_fields *fields = NULL;
    TRY(arena_dup(&rq->arena, w->suffix, &w->suffix));
    TRY(dp_cors_keep(&rq->arena, &w->cors));
    TRY(make_fields(w, ask, &fields));
    rq->caller_stream.fields = fields;
    rq->in.origin = w->cors.foreign ? ask->origin : (struct slice){0};
    return dp_input_h2(rq, fields, ask->conn);
}

/* A list of its own for a refusal that finds no fields. */
static const struct h2_fields no_fields = {0};

static void refuse_early(struct dp_web *w, const struct dp_web_ask *ask, struct err why)
{
    struct dp_early early = {
        .conn = ask->conn, .protocol = ask->protocol, .why = why, .path = ask->path};
    if (why.code == E_UNSUPPORTED) {
        early.sentence = SLICE_LIT("this service is gRPC over HTTP/2 alone, not gRPC-Web");
    }
    const struct grpc_refusal refusal = dp_early_grpc(&early);
    struct dp_caller_stream stream = {.way = &way, .impl = w, .fields = &no_fields};
    dp_caller_refuse(&stream, &refusal);
}

struct err dp_web_judge_path(struct slice path)
{
    struct slice service = {0};
    if (!dp_grpc_path(path, &service)) {
        return FAIL(E_NO_ROUTE);
    }
    bool is_ours = dp_reflection_serves(service) ||
                   slice_eq(service, SLICE_LIT("trilane.bus.v1.Bus")) ||
                   slice_eq(service, SLICE_LIT("grpc.health.v1.Health"));
    return is_ours ? FAIL(E_UNSUPPORTED) : OK;
}

/* Whose page it is comes first: one that may not call learns nothing else. */
static MUST_CHECK struct err judge(struct dp_web *w, const struct dp_web_ask *ask)
{
    w->in = grpc_web_content_type(ask->content_type, &w->suffix);
    enum grpc_web_kind wanted = grpc_web_accepted(ask->accept);
    w->out = wanted != GRPC_WEB_NONE ? wanted : w->in;
    const struct dp_cors_ask cors = {
        .model = dp_request_pool_model(&ask->conn->port->worker->pool),
        .authority = ask->authority,
        .path = ask->path,
        .origin = ask->origin,
        .tls = net_conn_is_tls(dp_caller_conn_net(ask->conn)),
        .ambient = dp_caller_conn_is_proven(ask->conn),
    };
    TRY(dp_cors_judge(&cors, &w->cors));
    w->cors.count = ask->has_browser ? w->cors.count : 0;
    return dp_web_judge_path(ask->path);
}

void dp_web_start(struct dp_web *w, const struct dp_web_ask *ask)
{
    struct dp_worker *worker = ask->conn->port->worker;
    const struct dp_lane *lane = worker->config->lanes[DP_LANE_OPERATOR];
    struct err e = judge(w, ask);
    if (err_ok(e) && lane == NULL) {
        e = FAIL(E_NO_ROUTE);
    }
    if (err_ok(e)) {
        e = dp_request_start(&worker->pool, &front, ask->conn, lane, &w->rq);
    }
    if (!err_ok(e)) {
        refuse_early(w, ask, e);
        return;
    }
    w->rq->caller_stream = (struct dp_caller_stream){.way = &way, .impl = w, .fields = &no_fields};
    e = fill(w, ask);
    if (!err_ok(e)) {
        dp_request_refuse(w->rq, e);
        return;
    }
    (void)dp_request_run(w->rq);
}

/* ---- bytes from the caller ---- */

static void show(struct dp_web *w, struct slice bytes, bool end)
{
    struct dp_caller_stream *s = &w->rq->caller_stream;
    w->held += bytes.size;
    if (bytes.size > 0 || end) {
        s->events->data(s, bytes, end);
    }
}

static void refuse_body(struct dp_web *w)
{
    struct dp_request *rq = w->rq;
    rq->lane->abort(rq, FAIL(E_PROTOCOL_ERROR));
}

/* The request may end with each piece. */
static void decode(struct dp_web *w, struct slice wire, bool end)
{
    uint8_t bytes[DECODED_MAX];
    do {
        size_t size = 0;
        struct err e = grpc_web_decode(&w->decoder, &wire, bytes, sizeof(bytes), &size);
        bool last = end && wire.size == 0;
        if (err_ok(e) && last) {
            e = grpc_web_decode_end(&w->decoder);
        }
        if (!err_ok(e)) {
            refuse_body(w);
            return;
        }
        show(w, slice_of(bytes, size), last);
    } while (wire.size > 0 && w->rq != NULL);
}

void dp_web_data(struct dp_web *w, struct slice wire, bool end)
{
    if (w->rq == NULL || w->rq->caller_stream.events == NULL) {
        return; /* it is over: what still comes is dropped. */
    }
    if (w->in == GRPC_WEB_TEXT) {
        decode(w, wire, end);
    } else {
        show(w, wire, end);
    }
}

static bool has_left(struct err why)
{
    return err_ok(why) || why.code == E_CLOSED || why.code == E_IO || why.code == E_CANCELLED;
}

void dp_web_gone(struct dp_web *w, struct err why)
{
    w->ended = true; /* nothing can be sent any more. */
    if (w->rq == NULL) {
        return;
    }
    if (has_left(why)) {
        dp_request_cancel(w->rq);
        return;
    }
    if (!w->rq->answered) {
        w->rq->http_status = err_http_status(why.code);
    }
    dp_request_break(w->rq, why);
}

/* ---- bytes to the caller ---- */

static size_t room_of(struct dp_web *w)
{
    size_t room = w->sink->room(w);
    return w->out == GRPC_WEB_TEXT ? room / 4 * 3 : room;
}

static MUST_CHECK struct err write_piece(struct dp_web *w, struct slice piece)
{
    char encoded[ENCODED_MAX];
    if (w->out == GRPC_WEB_BINARY) {
        return w->sink->write(w, piece);
    }
    grpc_web_encode(piece, encoded);
    return w->sink->write(w, slice_of(encoded, grpc_web_encoded_size(piece.size)));
}

/* As many of the bytes as there is room for; *out is how many that were. The sink is asked until it
 * has no more: so it knows that it has to call back. */
static MUST_CHECK struct err write_some(struct dp_web *w, struct slice bytes, size_t *out)
{
    *out = 0;
    while (*out < bytes.size) {
        struct slice piece = slice_head(slice_from(bytes, *out), room_of(w));
        if (w->out == GRPC_WEB_TEXT) {
            piece = slice_head(piece, DECODED_MAX);
        }
        if (piece.size == 0) {
            return OK;
        }
        TRY(write_piece(w, piece));
        *out += piece.size;
    }
    return OK;
}

/* Those of trailers are nobody's to give back. */
static void tell_sent(struct dp_web *w, size_t bytes)
{
    if (bytes > 0 && w->rq != NULL && !w->ending && w->rq->caller_stream.events != NULL) {
        w->rq->caller_stream.events->sent(&w->rq->caller_stream, bytes);
    }
}

static MUST_CHECK struct err pump(struct dp_web *w)
{
    size_t left = w->waiting.size - w->waiting_at;
    if (left > 0) {
        size_t sent = 0;
        TRY(write_some(w, slice_from(buf_slice(&w->waiting), w->waiting_at), &sent));
        w->waiting_at += sent;
        size_t ours = sent < w->own ? sent : w->own;
        w->own -= ours;
        tell_sent(w, sent - ours);
    }
    if (w->waiting_at < w->waiting.size) {
        return OK;
    }
    buf_clear(&w->waiting);
    w->waiting_at = 0;
    if (w->ending && !w->ended) {
        w->ended = true;
        return w->sink->end(w);
    }
    return OK;
}

static void break_off(struct dp_web *w)
{
    w->ending = true;
    if (!w->ended) {
        w->ended = true;
        w->sink->abort(w);
    }
}

/* What cannot leave whole must not look whole. */
static MUST_CHECK struct err pump_or_break(struct dp_web *w)
{
    struct err e = pump(w);
    if (!err_ok(e)) {
        break_off(w);
    }
    return e;
}

void dp_web_pump(struct dp_web *w)
{
    if (w->responded && !w->ended) {
        struct err e = pump_or_break(w);
        (void)e; /* the sink was told. */
    }
}

/* ---- the way ---- */

static struct dp_web *web_of(const struct dp_caller_stream *s)
{
    return s->impl;
}

static void attach(struct dp_caller_stream *s)
{
    (void)s; /* events go by the stream's table. */
}

static bool received_end(const struct dp_caller_stream *s)
{
    return web_of(s)->whole_before;
}

/* What an upstream says of CORS is not its to say: the node's policy is. */
static bool answer_goes_on(const struct h2_field *field)
{
    return field->name.ptr[0] != ':' && field->token != H2_TOKEN_CONTENT_TYPE &&
           !slice_starts(field->name, SLICE_LIT("access-control-"));
}

/* 'out' has room for OWN_FIELDS more than come in. */
static size_t head_fields(const struct dp_web *w, const struct h2_field *fields, size_t count,
                          struct slice type, struct h2_field *out)
{
    size_t n = 0;
    out[n++] = h2_field_static(H2_TOKEN_STATUS, SLICE_LIT("200"));
    out[n++] = h2_field_of(H2_TOKEN_CONTENT_TYPE, type);
    for (size_t i = 0; i < w->cors.count; i++) {
        out[n++] = h2_field_named(w->cors.fields[i].name, w->cors.fields[i].value);
    }
    for (size_t i = 0; i < count; i++) {
        if (answer_goes_on(&fields[i])) {
            out[n++] = fields[i];
        }
    }
    return n;
}

static MUST_CHECK struct err say_head(struct dp_web *w, struct arena *arena,
                                      const struct h2_field *fields, size_t count, bool end)
{
    struct h2_field *all = NULL;
    struct slice type = {0};
    TRY(make_type(arena,
                  w->out == GRPC_WEB_TEXT ? "application/grpc-web-text" : "application/grpc-web",
                  w->suffix, &type));
    TRY(arena_calloc(arena, count + OWN_FIELDS, sizeof(*all), (void **)&all));
    count = head_fields(w, fields, count, type, all);
    TRY(w->sink->head(w, all, count, end));
    w->own = w->waiting.size;
    w->responded = true;
    return OK;
}

static struct err respond(struct dp_caller_stream *s, const struct h2_field *fields, size_t count,
                          bool end)
{
    struct dp_web *w = web_of(s);
    enum { EARLY_BLOCK = 1024, EARLY_MAX = 16 << 10 };
    CHECK(!w->responded);
    if (w->rq != NULL) {
        TRY(say_head(w, &w->rq->arena, fields, count, end));
    } else { /* it was refused before it had one. */
        auto_arena struct arena arena = {0};
        arena_init(&arena, EARLY_BLOCK, EARLY_MAX);
        TRY(say_head(w, &arena, fields, count, end));
    }
    w->ending = end;
    return pump_or_break(w);
}

static struct err send_bytes(struct dp_caller_stream *s, struct slice bytes)
{
    struct dp_web *w = web_of(s);
    size_t waits = w->waiting.size - w->waiting_at;
    if (w->ending || w->ended) {
        return FAIL(E_CLOSED);
    }
    if (waits + bytes.size > limits.stream_buffer_bytes) {
        return FAIL(E_QUEUE_FULL);
    }
    size_t sent = 0;
    TRY(grpc_scan(&w->scan, bytes));
    struct err e = waits == 0 ? write_some(w, bytes, &sent) : OK;
    if (err_ok(e)) {
        buf_drop(&w->waiting, w->waiting_at);
        w->waiting_at = 0;
        e = buf_add(&w->waiting, slice_from(bytes, sent));
    }
    if (!err_ok(e)) {
        break_off(w);
        return e;
    }
    tell_sent(w, sent);
    return OK;
}

static struct err trailers(struct dp_caller_stream *s, const struct h2_field *fields, size_t count)
{
    struct dp_web *w = web_of(s);
    if (w->ending || w->ended) {
        return FAIL(E_CLOSED);
    }
    struct err e = grpc_scan_end(&w->scan); /* inside of a message they would be taken for it. */
    if (err_ok(e)) {
        e = grpc_web_write_fields(&w->waiting, fields, count);
    }
    if (!err_ok(e)) {
        break_off(w);
        return e;
    }
    w->ending = true;
    return pump_or_break(w);
}

static void refuse(struct dp_caller_stream *s, const struct grpc_refusal *refusal)
{
    struct dp_web *w = web_of(s);
    struct grpc_refusal_room room;
    struct h2_field fields[GRPC_REFUSAL_FIELDS];
    if (w->ending || w->ended) {
        return;
    }
    size_t count = grpc_refusal_fields(refusal, &room, fields);
    struct err e = w->responded ? trailers(s, fields + 2, count - 2)
                                : respond(s, fields, count, /* end= */ true);
    if (!err_ok(e)) {
        break_off(w);
    }
}

static void consume(struct dp_caller_stream *s, size_t bytes)
{
    struct dp_web *w = web_of(s);
    CHECK(bytes <= w->held);
    w->held -= bytes;
    w->sink->consume(w, bytes);
}

static const struct dp_caller_way way = {.attach = attach,
                                         .received_end = received_end,
                                         .respond = respond,
                                         .send = send_bytes,
                                         .trailers = trailers,
                                         .refuse = refuse,
                                         .consume = consume};

/* ---- the front's table ---- */

static void front_refuse(struct dp_request *rq)
{
    const struct grpc_refusal refusal = dp_front_refusal(rq);
    dp_caller_refuse(&rq->caller_stream, &refusal);
    rq->grpc_status = err_grpc_status(rq->err.code);
    rq->http_status = 200;
}

/* A request that ended without an answer leaves nothing that its caller could take for one. */
static void front_ended(struct dp_request *rq)
{
    struct dp_web *w = web_of(&rq->caller_stream);
    w->rq = NULL;
    if (!w->ending) {
        break_off(w);
    }
}

static const struct dp_front front = {
    .name = "grpc-web", .refuse = front_refuse, .ended = front_ended};
