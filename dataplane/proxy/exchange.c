/*
 * One request through the proxy lane, top to bottom:
 *
 *     start -> resolve -> judge -> dial -> head -> body both ways -> close
 *                           next _^   \-> CONNECT: tunnel.c         any failure -> fail
 *
 * A name is resolved once; each address is judged, and what is dialled is the judged address
 * itself. A connection carries one request: nothing of a caller, or of its credentials, is left on
 * it for the next. Reading stops on one side while the other has no room.
 */
#include "dataplane/proxy/exchange.h"

#include "common/base/buf.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/map.h"
#include "common/net/dns.h"
#include "common/net/http1_server.h"
#include "common/net/tls.h"
#include "dataplane/proxy/address.h"
#include "dataplane/proxy/fields.h"
#include "dataplane/proxy/tunnel.h"
#include "dataplane/request/metrics.h"
#include "dataplane/request/request.h"

enum { INTERIM_MAX = 16 };

static const struct dp_exchange_events caller_events;
static const struct net_conn_handler upstream_events;

size_t px_output_max(void)
{
    size_t most = PX_PIECE_MAX;
    most = limits.proxy_buffer_bytes > most ? limits.proxy_buffer_bytes : most;
    most = 2 * limits.proxy_head_bytes > most ? 2 * limits.proxy_head_bytes : most;
    return 2 * most;
}

/* ---- start ---- */

static void resolved(void *ctx, struct err how, const struct net_addr *addrs, size_t count);

static struct err prepare(struct px_exchange *x)
{
    struct arena *arena = &x->rq->arena;
    struct http1_store store = {.size = limits.proxy_head_bytes,
                                .field_max = limits.request_header_fields};
    TRY(arena_calloc(arena, limits.dns_addresses, sizeof(*x->addrs), (void **)&x->addrs));
    if (x->to.tunnel) {
        return x->worker->tunnel_count < limits.proxy_tunnels ? OK : FAIL(E_OVERLOADED);
    }
    if (px_via_has_us(http1_exchange_head(x->rq->exchange))) {
        return FAIL(E_EGRESS_LOOP);
    }
    TRY(arena_alloc(arena, store.size, (void **)&store.bytes));
    TRY(arena_calloc(arena, store.field_max, sizeof(*store.fields), (void **)&store.fields));
    http1_parser_init(&x->parser, HTTP1_RESPONSE, &store);
    http1_expect_response(&x->parser, http1_exchange_head(x->rq->exchange)->method);
    return OK;
}

struct err px_exchange_start(struct dp_request *rq)
{
    CHECK(rq->exchange != NULL);
    struct px_exchange *x = rq->lane_state;
    TRY(prepare(x));
    TRY(net_dns_resolve(x->worker->host->dns, x->to.host, x->to.port, resolved, x, &x->query));
    const struct http1_head *head = http1_exchange_head(rq->exchange);
    x->chunked = head->framing == HTTP1_CHUNKED;
    rq->exchange_events = &caller_events;
    if (x->to.tunnel) {
        px_tunnel_count(x);
    } else if (head->framing != HTTP1_NO_BODY) {
        http1_exchange_pause(rq->exchange); /* until there is somebody to send it to. */
    }
    struct net_conn *down = http1_exchange_conn(rq->exchange);
    net_conn_set_output_max(down, px_output_max() + net_conn_output(down)); /* pipelining. */
    return OK;
}

/* ---- judge ---- */

struct err px_exchange_judge(const struct px_exchange *x, const struct net_addr *addr)
{
    const struct dp_lane_host *host = x->worker->host;
    if (px_address_is_own(addr, host->listens, host->listen_count)) {
        return FAIL(E_EGRESS_LOOP);
    }
    return px_address_allowed(addr, x->egress->address_ranges, x->egress->address_range_count)
               ? OK
               : FAIL(E_EGRESS_ADDRESS);
}

/* A stranger's serial number may be like one of ours. */
struct err px_exchange_judge_peer(const struct px_exchange *x)
{
    bool ours = x->to.tls && !x->to.tunnel && x->rq->transport->upstream_tls != 0;
    return ours && x->up != NULL && x->up_open &&
                   dp_model_peer_revoked(x->rq->model, net_conn_identity(x->up))
               ? FAIL(E_EGRESS_UNTRUSTED)
               : OK;
}

static void dial_next(struct px_exchange *x);

static void resolved(void *ctx, struct err how, const struct net_addr *addrs, size_t count)
{
    struct px_exchange *x = ctx;
    struct err refused = FAIL(E_EGRESS_UNRESOLVED);
    x->query = NULL;
    for (size_t i = 0; err_ok(how) && i < count && x->addr_count < limits.dns_addresses; i++) {
        struct net_addr addr = px_address_normal(&addrs[i]);
        struct err judged = px_exchange_judge(x, &addr);
        if (err_ok(judged)) {
            x->addrs[x->addr_count++] = addr;
        } else {
            refused = judged;
        }
    }
    if (x->addr_count == 0) {
        px_exchange_fail(x, refused);
        return;
    }
    dial_next(x);
}

/* ---- dial ---- */

/* The CAs were read when the model came; NULL when they could not be. */
static struct net_tls *outside(struct px_worker *w)
{
    if (w->outside == NULL) {
        const struct net_tls_options options = {.http1_only = true};
        struct err ignored = net_tls_client_new(&options, &w->outside);
        (void)ignored; /* the dial is refused, and the next one tries again. */
    }
    return w->outside;
}

static struct net_tls *tls_of(const struct px_exchange *x)
{
    const struct dp_lane_host *host = x->worker->host;
    switch (x->rq->transport->upstream_tls) {
    case 1:
        return host->tls;
    case 2:
        return host->mtls;
    default:
        return outside(x->worker);
    }
}

static struct err dial(struct px_exchange *x, const struct net_addr *addr)
{
    const struct dp_transport *transport = x->rq->transport;
    struct net_dial_options options = {
        .addr = addr,
        .timeout_ms = transport->connect_timeout_ms,
        .http1_only = true,
        .handler = &upstream_events,
        .ctx = x,
    };
    char text[NET_ADDR_TEXT_MAX];
    TRY(arena_dup(&x->rq->arena, slice_str(net_addr_text(addr, text)), &x->rq->upstream));
    if (x->to.tls) {
        bool ours = transport->upstream_tls != 0;
        options.tls = tls_of(x);
        options.server_name =
            ours && transport->upstream_sni.size > 0 ? transport->upstream_sni : x->to.host;
        options.spiffe_id = ours ? transport->upstream_spiffe : (struct slice){0};
        options.terms = transport->upstream_terms;
        if (options.tls == NULL) {
            return FAIL(E_EGRESS_UNTRUSTED);
        }
    }
    return net_dial(x->worker->host->loop, &options, &x->up);
}

static void dial_next(struct px_exchange *x)
{
    struct err err = FAIL(E_UPSTREAM_CONNECT);
    if (x->addr_next < x->addr_count) {
        x->dialled_ns = net_loop_now_ns(x->worker->host->loop);
        err = dial(x, &x->addrs[x->addr_next++]);
    }
    if (!err_ok(err)) {
        px_exchange_fail(x, err);
    }
}

/* ---- head: the request goes out ---- */

static struct err send_head(struct px_exchange *x)
{
    auto_buf struct buf head = BUF_MAX(2 * limits.proxy_head_bytes);
    TRY(px_fields_write_request(x, &head));
    return net_conn_write(x->up, buf_slice(&head));
}

/* CAs may have gone since it was dialled: it is judged by those of now. */
static bool is_vouched_for(const struct px_exchange *x)
{
    const struct net_tls *now = x->to.tls ? tls_of(x) : NULL;
    return !x->to.tls || net_conn_tls(x->up) == now ||
           (now != NULL && net_conn_peer_trusted(x->up, now));
}

static void upstream_opened(struct net_conn *conn, void *ctx)
{
    struct px_exchange *x = ctx;
    x->up_open = true;
    net_conn_set_output_max(conn, px_output_max());
    struct err err = is_vouched_for(x) ? px_exchange_judge_peer(x) : FAIL(E_EGRESS_UNTRUSTED);
    if (err_ok(err)) {
        err = x->to.tunnel ? px_tunnel_begin(x) : send_head(x);
    }
    if (!err_ok(err)) {
        px_exchange_fail(x, err);
    } else if (!x->to.tunnel) {
        http1_exchange_resume(x->rq->exchange);
    }
}

/* ---- body: from the caller to the upstream ---- */

static struct err write_chunk(struct net_conn *conn, struct slice bytes)
{
    char head[HTTP1_CHUNK_HEAD_MAX + 1];
    TRY(net_conn_write(conn, slice_of(head, http1_chunk_head(bytes.size, head))));
    TRY(net_conn_write(conn, bytes));
    return net_conn_write(conn, SLICE_LIT("\r\n"));
}

static struct err write_last_chunk(struct px_exchange *x)
{
    size_t count = 0;
    const struct http1_field *fields = http1_exchange_trailers(x->rq->exchange, &count);
    struct http1_field *picked = NULL;
    auto_buf struct buf out = BUF_MAX(2 * limits.proxy_head_bytes);
    TRY(arena_calloc(&x->rq->arena, count + 1, sizeof(*picked), (void **)&picked));
    count = px_fields_trailers(fields, count, picked);
    TRY(buf_add_str(&out, "0\r\n"));
    for (size_t i = 0; i < count; i++) {
        TRY(http1_write_field(&out, picked[i].name, picked[i].value));
    }
    TRY(http1_write_head_end(&out));
    return net_conn_write(x->up, buf_slice(&out));
}

static void caller_body(struct dp_request *rq, struct slice bytes)
{
    struct px_exchange *x = rq->lane_state;
    CHECK(x->up_open); /* it was paused until then. */
    rq->request_bytes += bytes.size;
    struct err err = x->chunked ? write_chunk(x->up, bytes) : net_conn_write(x->up, bytes);
    if (!err_ok(err) && !net_conn_closing(x->up)) {
        px_exchange_fail(x, err);
        return;
    }
    if (net_conn_room(x->up) < PX_PIECE_MAX) {
        http1_exchange_pause(rq->exchange);
        net_conn_want_drained(x->up);
    }
}

static void upstream_drained(struct net_conn *conn, void *ctx)
{
    (void)conn;
    struct px_exchange *x = ctx;
    http1_exchange_resume(x->rq->exchange);
}

static void caller_end(struct dp_request *rq)
{
    struct px_exchange *x = rq->lane_state;
    if (!x->chunked || x->up == NULL) {
        return;
    }
    struct err err = write_last_chunk(x);
    if (!err_ok(err) && !net_conn_closing(x->up)) {
        px_exchange_fail(x, err);
    }
}

/* ---- the answer's head ---- */

/* What the caller is told of the body's size. */
static uint64_t answer_length(const struct http1_head *head)
{
    switch (head->framing) {
    case HTTP1_LENGTH:
        return head->length;
    case HTTP1_NO_BODY:
        break;
    case HTTP1_CHUNKED:
    case HTTP1_UNTIL_CLOSE:
        return HTTP1_LENGTH_UNKNOWN;
    }
    bool says = http1_find(head, SLICE_LIT("content-length")) != NULL;
    return says && head->status != 204 && head->status != 304 ? head->length : 0;
}

static uint64_t response_max(const struct px_exchange *x)
{
    return x->egress->response_bytes == 0 ? UINT64_MAX : x->egress->response_bytes;
}

static struct err interim_head(struct px_exchange *x, const struct http1_field *fields,
                               size_t count)
{
    unsigned status = x->parser.head.status;
    if (status == 101 || ++x->interim_count > INTERIM_MAX) {
        return FAIL(E_UPSTREAM_MALFORMED); /* no upgrade was asked for. */
    }
    return status == 100 ? OK : http1_respond_interim(x->rq->exchange, status, fields, count);
}

static struct err answer_head(struct px_exchange *x)
{
    struct dp_request *rq = x->rq;
    const struct http1_head *head = &x->parser.head;
    struct http1_field *fields = NULL;
    TRY(arena_calloc(&rq->arena, head->field_count + 1, sizeof(*fields), (void **)&fields));
    size_t count = px_fields_answer(head, fields);
    if (head->status < 200) {
        return interim_head(x, fields, count);
    }
    if (head->framing == HTTP1_LENGTH && head->length > response_max(x)) {
        return FAIL(E_EGRESS_TOO_LARGE);
    }
    TRY(http1_respond_head(rq->exchange, head->status, fields, count, answer_length(head)));
    rq->answered = true;
    rq->http_status = (int)head->status;
    return OK;
}

/* ---- body: from the upstream to the caller ---- */

static struct err answer_body(struct px_exchange *x)
{
    struct dp_request *rq = x->rq;
    rq->response_bytes += x->parser.body.size;
    if (rq->response_bytes > response_max(x)) {
        return FAIL(E_EGRESS_TOO_LARGE);
    }
    return http1_respond_body(rq->exchange, x->parser.body);
}

static struct err answer_end(struct px_exchange *x)
{
    struct http1_field *fields = NULL;
    TRY(arena_calloc(&x->rq->arena, x->parser.trailer_count + 1, sizeof(*fields),
                     (void **)&fields));
    size_t count = px_fields_trailers(x->parser.trailers, x->parser.trailer_count, fields);
    return http1_respond_end(x->rq->exchange, fields, count);
}

/* One event of the answer; *out_over: there is no more to come. */
static struct err answer_step(struct px_exchange *x, enum http1_event event, bool *out_over)
{
    switch (event) {
    case HTTP1_MORE:
        return OK;
    case HTTP1_HEAD:
        return answer_head(x);
    case HTTP1_BODY:
        return answer_body(x);
    case HTTP1_END:
        if (x->parser.head.status >= 200) {
            *out_over = true;
            return answer_end(x);
        }
        http1_next(&x->parser);
        return OK;
    case HTTP1_UPGRADED:
        break;
    }
    return FAIL(E_UPSTREAM_MALFORMED);
}

/* What an error of reading the answer is called; the caller's own leaving comes by itself. */
static struct err answer_failure(struct err err)
{
    switch ((int)err.code) {
    case E_EGRESS_TOO_LARGE:
    case E_NO_MEMORY:
        return err;
    case E_CLOSED:
        return FAIL(E_CANCELLED);
    default:
        return FAIL(E_UPSTREAM_MALFORMED);
    }
}

static void finish(struct px_exchange *x);

static void upstream_readable(struct net_conn *conn, void *ctx, struct slice bytes)
{
    struct px_exchange *x = ctx;
    enum http1_event event = HTTP1_HEAD;
    bool over = false;
    struct err err = OK;
    while (err_ok(err) && !over && event != HTTP1_MORE) {
        err = http1_parse(&x->parser, &bytes, &event);
        if (err_ok(err)) {
            err = answer_step(x, event, &over);
        }
    }
    if (!err_ok(err)) {
        px_exchange_fail(x, answer_failure(err));
    } else if (over) {
        finish(x);
    } else if (http1_respond_room(x->rq->exchange) < PX_PIECE_MAX) {
        net_conn_pause(conn);
        http1_exchange_want_drained(x->rq->exchange);
    }
}

static void caller_drained(struct dp_request *rq)
{
    struct px_exchange *x = rq->lane_state;
    if (x->up != NULL) {
        net_conn_resume(x->up);
    }
}

/* ---- close ---- */

/* The end of a body that has no other end; else the answer is cut off. */
static void upstream_eof(struct net_conn *conn, void *ctx)
{
    (void)conn;
    struct px_exchange *x = ctx;
    enum http1_event event = HTTP1_MORE;
    struct err err = http1_parse_eof(&x->parser, &event);
    if (err_ok(err) && event == HTTP1_END) {
        err = answer_end(x);
        if (err_ok(err)) {
            finish(x);
            return;
        }
    }
    px_exchange_fail(x, FAIL(E_UPSTREAM_RESET));
}

static void upstream_closed(struct net_conn *conn, void *ctx, struct err why)
{
    (void)conn;
    struct px_exchange *x = ctx;
    x->up = NULL;
    if (x->up_open) {
        px_exchange_fail(x, FAIL(E_UPSTREAM_RESET));
    } else if (why.code == E_UNAUTHENTICATED || why.code == E_CRYPTO) {
        px_exchange_fail(x, FAIL(E_EGRESS_UNTRUSTED));
    } else {
        dial_next(x);
    }
}

static void record_latency(struct px_exchange *x)
{
    struct px_worker *w = x->worker;
    struct dp_request_metrics *metrics = w->host->metrics;
    uint64_t hash = map_hash(x->to.host) | 1;
    struct px_domain *domain = &w->domains[hash / 2 % PX_DOMAINS];
    if (domain->hash != hash) {
        domain->latency = metrics_series(dp_request_metrics_set(metrics), DP_METRIC_PROXY_LATENCY,
                                         (const struct slice[]){x->to.host});
        domain->hash = hash;
    }
    uint64_t ns = net_loop_now_ns(w->host->loop) - x->dialled_ns;
    metrics_record(dp_request_metrics_shard(metrics), domain->latency, ns / 1000);
}

static void let_go(struct px_exchange *x, bool whole)
{
    struct net_conn *up = x->up;
    x->up = NULL;
    if (x->query != NULL) {
        net_dns_cancel(x->query);
        x->query = NULL;
    }
    if (up != NULL) {
        net_conn_set_handler(up, /* handler= */ NULL, /* ctx= */ NULL);
        if (whole) {
            net_conn_close(up);
        } else {
            net_conn_abort(up, FAIL(E_CANCELLED));
        }
    }
    px_tunnel_uncount(x);
}

/* The caller has the whole answer. */
static void finish(struct px_exchange *x)
{
    record_latency(x);
    let_go(x, /* whole= */ true);
    x->rq->lane_state = NULL;
    dp_request_done(x->rq, OK);
}

void px_exchange_fail(struct px_exchange *x, struct err why)
{
    struct dp_request *rq = x->rq;
    let_go(x, /* whole= */ false);
    rq->lane_state = NULL;
    if (!rq->answered) {
        dp_request_fail(rq, why);
        return;
    }
    if (!rq->caller_gone) {
        http1_exchange_abort(rq->exchange); /* half an answer must not pass for a whole one. */
    }
    dp_request_done(rq, why);
}

void px_exchange_abort(struct dp_request *rq, struct err why)
{
    struct px_exchange *x = rq->lane_state;
    CHECK(x != NULL);
    if (x->down != NULL) {
        px_tunnel_end(x, why);
    } else {
        px_exchange_fail(x, why);
    }
}

static const struct dp_exchange_events caller_events = {
    .body = caller_body, .end = caller_end, .drained = caller_drained};

static const struct net_conn_handler upstream_events = {.opened = upstream_opened,
                                                        .readable = upstream_readable,
                                                        .eof = upstream_eof,
                                                        .drained = upstream_drained,
                                                        .closed = upstream_closed};
