/* Proves that a worker tells protocols apart, names lanes by path, refuses in gRPC's own way,
 * answers grpc.health.v1 itself, and drains: over real sockets, with a client of our own. And that
 * nobody is woken for a swap before the worker has written what came with it, and that many
 * connections are let go over many turns. */
#include "dataplane/runtime/worker.h"

#include <sched.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/limits.h"
#include "common/net/grpc.h"
#include "common/net/listener.h"
#include "dataplane/admin/ask.h"
#include "dataplane/apply/build.h"
#include "dataplane/request/limit.h"
#include "dataplane/request/metrics.h"
#include "dataplane/runtime/front_h2.h"
#include "dataplane/runtime/spread.h"

#include "tests/support/cmocka.h"
#include "tests/support/publisher.h"
#include "trilane/parts/v1/parts.pb-c.h"

enum { WAIT_MS = 10000 };

struct world {
    struct publisher publisher;
    struct dp_model_bin *bin;
    struct metrics *metrics;
    struct dp_limit_table *limits;
    struct dp_spread *spread;
    struct dp_worker_config config;
    struct dp_worker worker;
    struct net_addr addr;
    sem_t adopted;
    sem_t held;
    sem_t released;
    struct net_hook write; /* in the turn of a swap. */
    bool written;
    bool told_after_writing;
    int policy; /* of the worker's thread. */
    size_t caller_count;
    sem_t counted;
    struct {
        uint64_t takes_ns; /* to let one go. */
        uint64_t turn;     /* of the last one. */
        size_t in_turn;
        size_t in_turn_max;
        sem_t done;
    } drains;
    sem_t drained;
    /* The client. */
    struct net_loop *loop;
    struct h2_env *env;
    struct h2_conn *conn;
    bool conn_closed;
};

static struct world w;

/* ---- a lane that answers what it was given ---- */

static struct dp_target echo_target;
static struct dp_transport echo_transport = {
    .timeout_ms = 1000, .request_message_bytes = 1000, .response_message_bytes = 1000};

static struct err echo_start(const struct dp_lane_host *host, void **out_state)
{
    (void)host;
    *out_state = NULL;
    return OK;
}

static void echo_stop(void *state)
{
    (void)state;
}

static struct err echo_route(struct dp_request *rq)
{
    const struct dp_cluster *c = dp_model_cluster(rq->model, SLICE_LIT("service/acme/orders"));
    echo_target = c->target;
    rq->target = &echo_target;
    rq->transport = &echo_transport;
    rq->method = rq->in.path;
    rq->verb = DP_VERB_CALL;
    struct slice value = {0};
    if (slice_eq(rq->in.path, SLICE_LIT("/acme.orders/Reads"))) { /* as a match by header would. */
        (void)rq->in.header(rq->in.header_ctx, SLICE_LIT("x-many"), &value);
        (void)rq->in.header(rq->in.header_ctx, SLICE_LIT("cookie"), &value);
    }
    return slice_eq(rq->in.path, SLICE_LIT("/acme.orders/Nowhere")) ? FAIL(E_NO_ROUTE) : OK;
}

static struct err echo_forward(struct dp_request *rq)
{
    struct slice value = {0};
    struct slice cookie = {0};
    bool found = rq->in.header(rq->in.header_ctx, SLICE_LIT("x-many"), &value);
    bool has_cookie = rq->in.header(rq->in.header_ctx, SLICE_LIT("cookie"), &cookie);
    const struct h2_field fields[] = {
        h2_field_static(H2_TOKEN_STATUS, SLICE_LIT("200")),
        h2_field_static(H2_TOKEN_CONTENT_TYPE, SLICE_LIT("application/grpc")),
        h2_field_static(H2_TOKEN_GRPC_STATUS, SLICE_LIT("0")),
        h2_field_named(SLICE_LIT("x-saw-host"), rq->in.host),
        h2_field_named(SLICE_LIT("x-saw-many"), found ? value : SLICE_LIT("none")),
        h2_field_named(SLICE_LIT("x-saw-cookie"), has_cookie ? cookie : SLICE_LIT("none")),
    };
    TRY(h2_stream_respond(rq->stream, fields, 6, /* end= */ true));
    rq->grpc_status = 0;
    dp_request_done(rq, OK);
    return OK;
}

static void echo_abort(struct dp_request *rq, struct err why)
{
    dp_request_fail(rq, why);
}

static const struct dp_lane echo = {.id = DP_LANE_OPERATOR,
                                    .name = "operator",
                                    .start = echo_start,
                                    .stop = echo_stop,
                                    .route = echo_route,
                                    .forward = echo_forward,
                                    .abort = echo_abort};

/* ---- the world ---- */

static void adopted(void *ctx)
{
    (void)ctx;
    w.policy = sched_getscheduler(0);
    w.told_after_writing = w.written;
    (void)sem_post(&w.adopted);
}

static void drained(void *ctx)
{
    (void)ctx;
    (void)sem_post(&w.drained);
}

static void conn_closed(struct h2_conn *c, struct err why)
{
    (void)c;
    (void)why;
    w.conn_closed = true;
}

static const struct h2_conn_events conn_events = {.closed = conn_closed};

static void connect_client(void)
{
    struct net_dial_options options = {.addr = &w.addr};
    struct net_conn *net = NULL;
    assert_true(err_ok(net_loop_new(&w.loop)));
    assert_true(err_ok(h2_env_new(w.loop, &w.env)));
    assert_true(err_ok(net_dial(w.loop, &options, &net)));
    assert_true(err_ok(h2_client_new(w.env, &net, &conn_events, NULL, &w.conn)));
}

static int set_up(void **state)
{
    (void)state;
    memset(&w, 0, sizeof(w));
    publisher_init(&w.publisher);
    assert_true(err_ok(dp_model_bin_new(&w.bin)));
    assert_true(err_ok(metrics_new(dp_metric_families, DP_METRIC_COUNT, 1, &w.metrics)));
    assert_true(err_ok(dp_limit_table_new(64, &w.limits)));
    const struct dp_spread_bounds bounds = {.connections = 16};
    assert_true(err_ok(dp_spread_new(1, &bounds, &w.spread)));
    assert_int_equal(sem_init(&w.adopted, 0, 0), 0);
    assert_int_equal(sem_init(&w.drained, 0, 0), 0);
    assert_int_equal(sem_init(&w.held, 0, 0), 0);
    assert_int_equal(sem_init(&w.released, 0, 0), 0);
    assert_int_equal(sem_init(&w.counted, 0, 0), 0);
    assert_int_equal(sem_init(&w.drains.done, 0, 0), 0);
    w.config = (struct dp_worker_config){
        .lanes = {[DP_LANE_OPERATOR] = &echo},
        .port_fds = {-1, -1, -1, -1},
        .worker_count = 1,
        .limits = w.limits,
        .metrics = w.metrics,
        .spread = w.spread,
        .environment = SLICE_LIT(PUBLISHER_ENVIRONMENT),
        /* Another one than this thread's. */
        .policy = sched_getscheduler(0) == SCHED_BATCH ? SCHED_OTHER : SCHED_BATCH,
        .adopted = adopted,
        .drained = drained,
    };
    assert_true(
        err_ok(net_listen(SLICE_LIT("127.0.0.1:0"), &w.config.port_fds[DP_PORT_CLEAR], &w.addr)));
    struct dp_worker_tls tls = {0};
    assert_true(err_ok(dp_worker_init(&w.worker, &w.config, 0, &tls)));
    assert_true(err_ok(dp_worker_start(&w.worker)));
    connect_client();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    net_loop_free(w.loop);
    h2_env_free(w.env);
    dp_worker_abort(&w.worker);
    dp_worker_join(&w.worker);
    dp_worker_free(&w.worker);
    dp_spread_free(w.spread);
    (void)close(w.config.port_fds[DP_PORT_CLEAR]);
    dp_model_bin_free(w.bin);
    dp_limit_table_free(w.limits);
    metrics_free(w.metrics);
    publisher_free(&w.publisher);
    return 0;
}

static void put_version(uint64_t version, bool strict)
{
    struct content *c = content_sample(1);
    if (strict) {
        Trilane__Parts__V1__EnvironmentPart environment;
        trilane__parts__v1__environment_part__init(&environment);
        environment.name = publisher_text(PUBLISHER_ENVIRONMENT);
        environment.trust_domain = publisher_text("trilane.test");
        environment.partitions = 16;
        environment.security = 1;
        content_put(c, STREAM_TRUST, "environment", &environment.base);
    }
    struct version *v = version_new(&w.publisher, c, version, NULL);
    struct snap_set *set = version_set(&w.publisher, v, NULL);
    struct dp_model *model = NULL;
    struct dp_build_report report;
    assert_true(err_ok(dp_model_build(w.bin, set, NULL, &model, &report)));
    dp_mailbox_put(&w.worker.mailbox, model);
    dp_model_unref(model);
    snap_set_unref(set);
    version_free(v);
    content_free(c);
}

static void wait_for(sem_t *sem)
{
    while (sem_wait(sem) != 0) {
    }
}

static void serve_version(uint64_t version, bool strict)
{
    put_version(version, strict);
    wait_for(&w.adopted);
    assert_int_equal(dp_mailbox_version(&w.worker.mailbox), version);
}

/* ---- calls ---- */

struct call {
    char status[8];
    char grpc_status[8];
    char code[32];
    char rule[64];
    char version[32];
    char saw_host[64];
    char saw_many[64];
    char saw_cookie[64];
    uint8_t body[64];
    size_t body_size;
    bool closed;
    bool has_data;
};

static void copy(char *out, size_t size, struct slice value)
{
    if (value.size > 0) {
        (void)snprintf(out, size, "%.*s", SLICE_ARG(value));
    }
}

static void take_fields(struct call *c, const struct h2_fields *f)
{
    copy(c->status, sizeof(c->status), h2_fields_value(f, H2_TOKEN_STATUS));
    copy(c->grpc_status, sizeof(c->grpc_status), h2_fields_value(f, H2_TOKEN_GRPC_STATUS));
    copy(c->code, sizeof(c->code), h2_fields_value(f, H2_TOKEN_X_TRILANE_CODE));
    copy(c->rule, sizeof(c->rule), h2_fields_value(f, H2_TOKEN_X_TRILANE_RULE));
    copy(c->version, sizeof(c->version), h2_fields_value(f, H2_TOKEN_X_TRILANE_VERSION));
    const struct h2_field *host = h2_fields_find(f, SLICE_LIT("x-saw-host"));
    const struct h2_field *many = h2_fields_find(f, SLICE_LIT("x-saw-many"));
    copy(c->saw_host, sizeof(c->saw_host), host == NULL ? (struct slice){0} : host->value);
    copy(c->saw_many, sizeof(c->saw_many), many == NULL ? (struct slice){0} : many->value);
    const struct h2_field *cookie = h2_fields_find(f, SLICE_LIT("x-saw-cookie"));
    copy(c->saw_cookie, sizeof(c->saw_cookie), cookie == NULL ? (struct slice){0} : cookie->value);
}

static void on_headers(struct h2_stream *s, const struct h2_fields *f, bool end)
{
    (void)end;
    take_fields(h2_stream_user(s), f);
}

static void on_trailers(struct h2_stream *s, const struct h2_fields *f)
{
    take_fields(h2_stream_user(s), f);
}

static void on_data(struct h2_stream *s, struct slice bytes, bool end)
{
    (void)end;
    struct call *c = h2_stream_user(s);
    h2_stream_consume(s, bytes.size);
    assert_true(c->body_size + bytes.size <= sizeof(c->body));
    if (bytes.size > 0) {
        memcpy(c->body + c->body_size, bytes.ptr, bytes.size);
        c->body_size += bytes.size;
        c->has_data = true;
    }
}

static void on_closed(struct h2_stream *s)
{
    ((struct call *)h2_stream_user(s))->closed = true;
}

static const struct h2_stream_events call_events = {
    .headers = on_headers, .data = on_data, .trailers = on_trailers, .closed = on_closed};

struct ask {
    const char *method;       /* NULL: POST. */
    const char *content_type; /* NULL: application/grpc. */
    const char *te;           /* NULL: trailers; "": none. */
    const char *token;        /* NULL: the token of web. */
    const char *tenant;       /* NULL: none; given twice when twice_tenant. */
    bool twice_tenant;
    size_t many;    /* how often x-many is there; */
    size_t cookies; /* and how many pieces of a cookie. */
    struct slice message;
};

static struct h2_stream *start_call(const char *path, const struct ask *ask, struct call *call)
{
    struct h2_field fields[12 + 3 + 100];
    size_t n = 0;
    char bearer[64];
    (void)snprintf(bearer, sizeof(bearer), "Bearer %s",
                   ask->token == NULL ? "token-of-web" : ask->token);
    fields[n++] =
        h2_field_of(H2_TOKEN_METHOD, slice_str(ask->method == NULL ? "POST" : ask->method));
    fields[n++] = h2_field_static(H2_TOKEN_SCHEME, SLICE_LIT("http"));
    fields[n++] = h2_field_of(H2_TOKEN_PATH, slice_str(path));
    fields[n++] = h2_field_static(H2_TOKEN_AUTHORITY, SLICE_LIT("Orders.Example.com:8080"));
    fields[n++] =
        h2_field_of(H2_TOKEN_CONTENT_TYPE,
                    slice_str(ask->content_type == NULL ? "application/grpc" : ask->content_type));
    if (ask->te == NULL) {
        fields[n++] = h2_field_static(H2_TOKEN_TE, SLICE_LIT("trailers"));
    }
    fields[n++] = h2_field_of(H2_TOKEN_AUTHORIZATION, slice_str(bearer));
    for (int i = 0; ask->tenant != NULL && i < (ask->twice_tenant ? 2 : 1); i++) {
        fields[n++] = h2_field_of(H2_TOKEN_X_TENANT_ID, slice_str(ask->tenant));
    }
    for (size_t i = 0; i < ask->many; i++) {
        fields[n++] = h2_field_named(SLICE_LIT("x-many"), SLICE_LIT("a"));
    }
    for (size_t i = 0; i < ask->cookies; i++) {
        static const char *const pieces[] = {"a=1", "b=2", "c=3"};
        fields[n++] = h2_field_of(H2_TOKEN_COOKIE, slice_str(pieces[i]));
    }
    struct h2_stream *s = NULL;
    *call = (struct call){0};
    bool end = ask->message.ptr == NULL;
    assert_true(err_ok(h2_conn_request(w.conn, fields, n, end, &s)));
    h2_stream_attach(s, &call_events, call);
    if (!end) {
        assert_true(err_ok(h2_stream_send(s, ask->message, /* end= */ true)));
    }
    return s;
}

static struct call call_of(const char *path, const struct ask *ask)
{
    struct call call;
    (void)start_call(path, ask, &call);
    assert_true(net_loop_run_until(w.loop, &call.closed, WAIT_MS));
    return call;
}

static void expect_refusal(const char *path, const struct ask *ask, enum err_code code)
{
    struct call call = call_of(path, ask);
    char status[8];
    (void)snprintf(status, sizeof(status), "%d", err_grpc_status(code));
    assert_string_equal(call.code, err_name(code));
    assert_string_equal(call.grpc_status, status);
    assert_string_equal(call.status, "200");
}

/* ---- tests ---- */

static void not_ready_without_a_snapshot(void **state)
{
    (void)state;
    expect_refusal("/acme.orders/Get", &(struct ask){0}, E_NOT_READY);
}

static void a_request_reaches_its_lane(void **state)
{
    (void)state;
    serve_version(7, /* strict= */ false);
    struct call call = call_of("/acme.orders/Get", &(struct ask){.many = 1, .tenant = "acme"});
    assert_string_equal(call.grpc_status, "0");
    assert_string_equal(call.saw_host, "orders.example.com");
    assert_string_equal(call.saw_many, "a");
}

/* What decides has one value, on which all readers agree; what nobody reads is nobody's matter. */
static void a_field_that_is_read_is_there_once(void **state)
{
    (void)state;
    serve_version(7, /* strict= */ false);
    struct call call = call_of("/acme.orders/Reads", &(struct ask){.many = 1});
    assert_string_equal(call.grpc_status, "0");
    expect_refusal("/acme.orders/Reads", &(struct ask){.many = 2}, E_HEADER_REPEATED);
    expect_refusal("/acme.orders/Reads", &(struct ask){.many = 100}, E_HEADER_REPEATED);
    call = call_of("/acme.orders/Get", &(struct ask){.many = 100});
    assert_string_equal(call.grpc_status, "0");
}

/* RFC 9113, 8.2.3: browsers cut them for the sake of HPACK. */
static void pieces_of_a_cookie_are_one(void **state)
{
    (void)state;
    static const char *const wanted[] = {"none", "a=1", "a=1; b=2", "a=1; b=2; c=3"};
    serve_version(7, /* strict= */ false);
    for (size_t i = 0; i < 4; i++) {
        struct call call = call_of("/acme.orders/Reads", &(struct ask){.cookies = i});
        assert_string_equal(call.grpc_status, "0");
        assert_string_equal(call.saw_cookie, wanted[i]);
    }
}

static void refusals_are_grpc(void **state)
{
    (void)state;
    serve_version(7, /* strict= */ false);
    const char *path = "/acme.orders/Get";
    expect_refusal(path, &(struct ask){.token = "wrong"}, E_UNAUTHENTICATED);
    expect_refusal(path, &(struct ask){.tenant = "globex"}, E_TENANT_MISMATCH);
    expect_refusal(path, &(struct ask){.tenant = "acme", .twice_tenant = true}, E_CONTEXT_INVALID);
    expect_refusal(path, &(struct ask){.te = ""}, E_PROTOCOL_ERROR);
    expect_refusal("/acme.orders/Nowhere", &(struct ask){0}, E_NO_ROUTE);
    expect_refusal("/noslash", &(struct ask){0}, E_NO_ROUTE);
    expect_refusal("/a/b/c", &(struct ask){0}, E_NO_ROUTE);
    expect_refusal("//Get", &(struct ask){0}, E_NO_ROUTE);
    expect_refusal("/trilane.bus.v1.Bus/Publish", &(struct ask){0}, E_NO_ROUTE);
    struct call call = call_of("/acme.orders/Nowhere", &(struct ask){0});
    assert_string_equal(call.version, "7");
}

/* Requests that were refused before a lane had them. */
static int64_t refused_early(const char *protocol, enum err_code code)
{
    const struct slice labels[] = {slice_str(protocol), slice_str(err_name(code))};
    return metrics_value(w.metrics, metrics_series(w.metrics, DP_METRIC_REQUESTS_EARLY, labels));
}

static void what_is_no_grpc_gets_a_status(void **state)
{
    (void)state;
    serve_version(7, /* strict= */ false);
    struct call call = call_of("/acme.orders/Get", &(struct ask){.content_type = "text/plain"});
    assert_string_equal(call.status, "415");
    call = call_of("/acme.orders/Get", &(struct ask){.method = "PUT"});
    assert_string_equal(call.status, "405");
    expect_refusal("/noslash", &(struct ask){0}, E_NO_ROUTE);
    assert_int_equal(refused_early("http2", E_CONTENT_TYPE), 1);
    assert_int_equal(refused_early("http2", E_METHOD_NOT_ALLOWED), 1);
    assert_int_equal(refused_early("http2", E_NO_ROUTE), 1);
}

static void http1_is_told_that_it_is_the_wrong_version(void **state)
{
    (void)state;
    char address[NET_ADDR_TEXT_MAX];
    auto_buf struct buf body = BUF_MAX(4096);
    struct err e = dp_ask(slice_str(net_addr_text(&w.addr, address)), SLICE_LIT("/v1/x"),
                          (struct slice){0}, &body);
    assert_int_equal(e.code, E_IO); /* 505. */
    const char *text = NULL;
    assert_true(err_ok(buf_cstr(&body, &text)));
    assert_non_null(strstr(text, "\"HTTP_VERSION\""));
    assert_int_equal(refused_early("http1", E_HTTP_VERSION), 1);
}

/* The preface byte by byte: what it is shows only with the third. */
static void a_preface_in_pieces(void **state)
{
    (void)state;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, &w.addr.sa.any, net_addr_size(&w.addr)), 0);
    const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0";
    for (size_t i = 0; i < sizeof(preface); i++) {
        assert_int_equal(send(fd, preface + i, 1, MSG_NOSIGNAL), 1);
    }
    uint8_t frame[9];
    assert_int_equal(recv(fd, frame, sizeof(frame), MSG_WAITALL), sizeof(frame));
    assert_int_equal(frame[3], 4); /* SETTINGS. */
    (void)close(fd);
}

/* ---- health ---- */

/* One gRPC message: HealthCheckRequest{service}. */
static struct slice health_request(const char *service, uint8_t room[64])
{
    size_t size = strlen(service);
    size_t body = size == 0 ? 0 : size + 2;
    grpc_prefix_write((uint32_t)body, room);
    room[5] = 0x0a;
    room[6] = (uint8_t)size;
    for (size_t i = 0; i < size; i++) {
        room[7 + i] = (uint8_t)service[i];
    }
    return slice_of(room, GRPC_PREFIX_BYTES + body);
}

static int served_status(const struct call *call)
{
    return call->body_size >= 7 ? call->body[call->body_size - 1] : -1;
}

static void health_check(void **state)
{
    (void)state;
    uint8_t room[64];
    const char *path = "/grpc.health.v1.Health/Check";
    struct call call = call_of(path, &(struct ask){.message = health_request("", room)});
    assert_string_equal(call.grpc_status, "0");
    assert_int_equal(served_status(&call), 2); /* NOT_SERVING. */
    serve_version(7, /* strict= */ false);
    call = call_of(path, &(struct ask){.message = health_request("", room)});
    assert_int_equal(served_status(&call), 1);
    call = call_of(path, &(struct ask){.message = health_request("acme.orders", room)});
    assert_int_equal(served_status(&call), 1);
    expect_refusal(path, &(struct ask){.message = health_request("acme.none", room)}, E_NOT_FOUND);
    expect_refusal(path, &(struct ask){.message = SLICE_LIT("\7\0\0\0\0")}, E_MALFORMED);
    expect_refusal(path, &(struct ask){.message = SLICE_LIT("\0\0\0\0")}, E_MALFORMED);
    expect_refusal("/grpc.health.v1.Health/List", &(struct ask){0}, E_NO_ROUTE);
    expect_refusal(path, &(struct ask){0}, E_MALFORMED); /* no body at all. */
}

static void health_watch_tells_changes(void **state)
{
    (void)state;
    uint8_t room[64];
    struct call call;
    struct ask ask = {.message = health_request("acme.orders", room)};
    (void)start_call("/grpc.health.v1.Health/Watch", &ask, &call);
    assert_true(net_loop_run_until(w.loop, &call.has_data, WAIT_MS));
    assert_int_equal(served_status(&call), 2);
    call.has_data = false;
    serve_version(7, /* strict= */ false);
    assert_true(net_loop_run_until(w.loop, &call.has_data, WAIT_MS));
    assert_int_equal(served_status(&call), 1);
    dp_worker_drain(&w.worker);
    assert_true(net_loop_run_until(w.loop, &call.closed, WAIT_MS));
    assert_string_equal(call.code, "DRAINING");
    assert_true(net_loop_run_until(w.loop, &w.conn_closed, WAIT_MS));
    assert_int_equal(sem_wait(&w.drained), 0);
}

/* ---- swaps ---- */

static void hold(struct net_task *task, void *ctx)
{
    (void)task;
    (void)ctx;
    (void)sem_post(&w.held);
    wait_for(&w.released);
}

static void on_write(struct net_hook *hook, void *ctx)
{
    (void)hook;
    (void)ctx;
    w.written = true;
}

static void answer(struct net_task *task, void *ctx)
{
    (void)task;
    (void)ctx;
    net_hook_queue(w.worker.loop, &w.write);
}

/* A model, and behind it what is to be written: both wait for one turn of the loop. */
static void others_are_woken_once_all_is_written(void **state)
{
    (void)state;
    struct net_task first = {.fn = hold};
    struct net_task behind = {.fn = answer};
    net_hook_init(&w.write, NET_HOOK_WRITE, on_write, NULL);
    assert_true(err_ok(net_loop_post(w.worker.loop, &first)));
    wait_for(&w.held); /* what comes now is not of its turn. */
    put_version(7, /* strict= */ false);
    assert_true(err_ok(net_loop_post(w.worker.loop, &behind)));
    assert_int_equal(sem_post(&w.released), 0);
    wait_for(&w.adopted);
    assert_true(w.told_after_writing);
}

static void a_worker_has_its_own_policy(void **state)
{
    (void)state;
    assert_int_not_equal(sched_getscheduler(0), w.config.policy);
    serve_version(7, /* strict= */ false);
    assert_int_equal(w.policy, w.config.policy);
}

/* ---- strict, and the end ---- */

static void strict_closes_cleartext(void **state)
{
    (void)state;
    serve_version(7, /* strict= */ false);
    struct call call = call_of("/acme.orders/Get", &(struct ask){0});
    assert_string_equal(call.grpc_status, "0");
    serve_version(8, /* strict= */ true);
    assert_true(net_loop_run_until(w.loop, &w.conn_closed, WAIT_MS));
}

/* Names that the linker makes of --wrap. */
/* NOLINTBEGIN(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp) */
void __real_dp_caller_conn_drain(struct dp_caller_conn *c);
void __wrap_dp_caller_conn_drain(struct dp_caller_conn *c);

void __wrap_dp_caller_conn_drain(struct dp_caller_conn *c)
{
    uint64_t turn = net_loop_stats(w.worker.loop)->turns;
    uint64_t until_ns = clock_mono_ns() + w.drains.takes_ns;
    w.drains.in_turn = turn == w.drains.turn ? w.drains.in_turn + 1 : 1;
    w.drains.turn = turn;
    if (w.drains.in_turn > w.drains.in_turn_max) {
        w.drains.in_turn_max = w.drains.in_turn;
    }
    while (clock_mono_ns() < until_ns) { /* a core's own time is what is measured. */
    }
    __real_dp_caller_conn_drain(c);
    (void)sem_post(&w.drains.done);
}
/* NOLINTEND(bugprone-reserved-identifier,cert-dcl37-c,cert-dcl51-cpp) */

static void count_callers(struct net_task *task, void *ctx)
{
    (void)task;
    (void)ctx;
    w.caller_count = w.worker.caller_count;
    (void)sem_post(&w.counted);
}

static void wait_for_callers(size_t count)
{
    while (w.caller_count < count) {
        struct net_task task = {.fn = count_callers};
        assert_true(err_ok(net_loop_post(w.worker.loop, &task)));
        wait_for(&w.counted);
    }
}

/* However long one takes, and whatever swaps come meanwhile: no turn is long, and none is left. */
static void many_are_let_go_over_turns(void **state)
{
    (void)state;
    enum { MANY = 8, TAKES_NS = 60000 };
    int fds[MANY];
    serve_version(7, /* strict= */ false);
    for (size_t i = 0; i < MANY; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(connect(fds[i], &w.addr.sa.any, sizeof(w.addr.sa.v4)), 0);
    }
    wait_for_callers(MANY + 1); /* with the client. */
    w.drains.takes_ns = TAKES_NS;
    serve_version(8, /* strict= */ true);
    serve_version(9, /* strict= */ true);
    for (size_t i = 0; i < MANY; i++) {
        uint8_t byte = 0;
        wait_for(&w.drains.done);
        assert_int_equal(read(fds[i], &byte, 1), 0);
        (void)close(fds[i]);
    }
    assert_int_equal(w.drains.in_turn_max, 1);
}

static void drain_lets_go_of_idle_connections(void **state)
{
    (void)state;
    serve_version(7, /* strict= */ false);
    struct call call = call_of("/acme.orders/Get", &(struct ask){0});
    assert_string_equal(call.grpc_status, "0");
    dp_worker_drain(&w.worker);
    assert_true(net_loop_run_until(w.loop, &w.conn_closed, WAIT_MS));
    assert_int_equal(sem_wait(&w.drained), 0);
}

static void grpc_paths(void **state)
{
    (void)state;
    struct slice service = {0};
    assert_true(dp_grpc_path(SLICE_LIT("/a.b.C/D"), &service));
    assert_true(slice_eq(service, SLICE_LIT("a.b.C")));
    static const char *const wrong[] = {"",      "/",     "a/b",    "/a",     "/a/",    "/a/b/",
                                        "/.a/b", "/a./b", "/a/b?c", "/a b/c", "/a/b.c", "//b"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_false(dp_grpc_path(slice_str(wrong[i]), &service));
    }
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    ids_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grpc_paths),        CASE(not_ready_without_a_snapshot),
        CASE(a_request_reaches_its_lane),    CASE(a_field_that_is_read_is_there_once),
        CASE(pieces_of_a_cookie_are_one),    CASE(refusals_are_grpc),
        CASE(what_is_no_grpc_gets_a_status), CASE(http1_is_told_that_it_is_the_wrong_version),
        CASE(a_preface_in_pieces),           CASE(health_check),
        CASE(health_watch_tells_changes),    CASE(others_are_woken_once_all_is_written),
        CASE(a_worker_has_its_own_policy),   CASE(strict_closes_cleartext),
        CASE(many_are_let_go_over_turns),    CASE(drain_lets_go_of_idle_connections),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
