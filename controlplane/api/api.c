/* api: listeners, guard, routes. See api.h. */
#include "controlplane/api/api.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "common/base/scope.h"
#include "common/net/http1_server.h"
#include "common/net/listener.h"
#include "controlplane/api/call.h"
#include "controlplane/api/enrol.h"
#include "controlplane/api/gate.h"
#include "controlplane/api/guard.h"
#include "controlplane/api/json.h"
#include "controlplane/api/metrics.h"

enum {
    ANSWER_MAX = 16 << 20,
    LISTENERS = 2,
    IDLE_MS = 30000, /* connections are few, and anyone may open them. */
};

struct connection {
    struct cp_api *api;
    struct http1_server *server;
    struct connection *next;
    struct connection *prev;
};

struct cp_api {
    struct cp_api_options options;
    struct cp_guard guard;
    struct cp_gate gate;
    int fds[LISTENERS];
    struct net_listener *listeners[LISTENERS]; /* clear, TLS. */
    struct connection connections;             /* of a ring; this one is its anchor. */
    size_t connection_count;
    size_t calls; /* that workers have not answered. */
    bool draining;
};

/* ---- answers ---- */

static void respond(struct http1_exchange *x, unsigned status, const char *type, struct slice body)
{
    const struct http1_field fields[] = {
        {SLICE_LIT("content-type"), slice_str(type)},
        {SLICE_LIT("cache-control"), SLICE_LIT("no-store")},
        {SLICE_LIT("x-content-type-options"), SLICE_LIT("nosniff")},
    };
    struct err e = http1_respond(x, status, fields, sizeof(fields) / sizeof(fields[0]), body);
    if (!err_ok(e) && e.code != E_CLOSED) {
        http1_exchange_abort(x);
    }
}

static void respond_json(struct http1_exchange *x, unsigned status, json_t *value)
{
    auto_buf struct buf text = BUF_MAX(ANSWER_MAX);
    struct err e = cp_json_write(value, &text);
    respond(x, err_ok(e) ? status : 503, "application/json", buf_slice(&text));
}

static void refuse(struct http1_exchange *x, struct err e)
{
    respond_json(x, (unsigned)err_http_status(e.code), cp_json_error(e, /* work= */ NULL));
}

/* ---- what the loop answers itself ---- */

typedef void answer_fn(struct cp_api *api, struct http1_exchange *x);

static void answer_health(struct cp_api *api, struct http1_exchange *x)
{
    (void)api;
    respond(x, 200, "text/plain", SLICE_LIT("ok\n"));
}

/* Ready: this replica leads, and its heads reach KV; or another one leads. */
static void answer_ready(struct cp_api *api, struct http1_exchange *x)
{
    struct cp_leader_status status;
    cp_leader_status(api->options.leader, &status);
    enum err_code code = api->draining ? E_DRAINING : status.code;
    bool follows = code == E_NOT_LEADER && status.holder[0] != '\0';
    bool ready = code == E_OK || follows;
    json_t *reasons = json_array();
    if (!ready) {
        (void)json_array_append_new(reasons, cp_json_error(FAIL(code), /* work= */ NULL));
    }
    respond_json(x, ready ? 200 : 503, json_pack("{s:b, s:o}", "ready", ready, "reasons", reasons));
}

static void answer_metrics(struct cp_api *api, struct http1_exchange *x)
{
    auto_buf struct buf text = BUF_MAX(ANSWER_MAX);
    struct err e = cp_metrics_render(&api->options, api->gate.refused, &text);
    if (!err_ok(e)) {
        refuse(x, e);
        return;
    }
    respond(x, 200, "text/plain; version=0.0.4; charset=utf-8", buf_slice(&text));
}

static void answer_status(struct cp_api *api, struct http1_exchange *x)
{
    struct cp_leader_status status;
    cp_leader_status(api->options.leader, &status);
    enum err_code bucket = cp_worker_restore_code(api->options.publisher);
    char bus_error[BUS_ERROR_TEXT_MAX];
    bus_last_error(api->options.bus, bus_error);
    json_t *bus =
        json_pack("{s:s, s:I, s:s}", "state", bus_state_name(bus_state(api->options.bus)),
                  "down_ms", (json_int_t)bus_down_ms(api->options.bus), "last_error", bus_error);
    struct cp_collector_status collector;
    cp_collector_status(api->options.collector, &collector);
    respond_json(x, 200,
                 json_pack("{s:s, s:o, s:o, s:o, s:s, s:b}", "environment",
                           api->options.environment, "leader", cp_json_leader(&status), "bus", bus,
                           "bucket", cp_json_bucket(&collector), "bucket_code",
                           bucket == E_OK ? "" : err_name(bucket), "draining", api->draining));
}

static void answer_nodes(struct cp_api *api, struct http1_exchange *x)
{
    struct cp_fleet_node *nodes = NULL;
    size_t count = 0;
    struct err e = cp_fleet_list(api->options.fleet, &nodes, &count);
    if (!err_ok(e)) {
        refuse(x, e);
        return;
    }
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        (void)json_array_append_new(list, cp_json_node(&nodes[i]));
    }
    free(nodes);
    struct cp_leader_status leader;
    cp_leader_status(api->options.leader, &leader);
    respond_json(x, 200,
                 json_pack("{s:o, s:I}", "nodes", list, "newest_version",
                           (json_int_t)leader.newest_version));
}

/* ---- what workers answer ---- */

static void answered(struct cp_call *call, void *ctx)
{
    struct cp_api *api = ctx;
    api->calls--;
    if (call->exchange != NULL) {
        http1_exchange_set_user(call->exchange, NULL);
        respond(call->exchange, call->status, "application/json", buf_slice(&call->answer));
    }
}

/* Who does it. */
static struct cp_worker *worker_of(const struct cp_api *api, enum cp_call_kind kind)
{
    switch ((int)kind) {
    case CP_CALL_PUBLISH:
    case CP_CALL_ROLLBACK:
    case CP_CALL_RECOVER:
        return api->options.publisher;
    case CP_CALL_TOKEN:
    case CP_CALL_JOIN:
    case CP_CALL_RENEW:
    case CP_CALL_REMOVE:
        return api->options.doorman;
    default:
        return api->options.reader;
    }
}

/* Another replica takes us for the leader. It hears at once that we are not, and asks again each
 * few milliseconds: a worker may be busy, and the log and the audit tell of the caller's one
 * request. */
static bool is_mistaken(const struct cp_api *api, const struct cp_call *call)
{
    struct cp_fence fence;
    return call->forwarded && cp_call_writes(call->kind) &&
           !err_ok(cp_leader_fence(api->options.leader, &fence));
}

static void hand_over(struct cp_api *api, struct http1_exchange *x, enum cp_call_kind kind,
                      const uint64_t numbers[2])
{
    struct cp_call *call = NULL;
    struct err e = api->draining ? FAIL(E_DRAINING) : cp_call_new(kind, x, &call);
    if (!err_ok(e)) {
        refuse(x, e);
        return;
    }
    if (is_mistaken(api, call)) {
        cp_call_free(call);
        refuse(x, FAIL(E_NOT_LEADER));
        return;
    }
    call->answered = answered;
    call->ctx = api;
    call->forward = &api->options.forward;
    call->registrar = api->options.registrar;
    call->publisher = api->options.publisher;
    call->first = numbers[0];
    call->second = numbers[1];
    e = cp_worker_push(worker_of(api, kind), &call->task);
    if (!err_ok(e)) {
        cp_call_free(call);
        refuse(x, e);
        return;
    }
    api->calls++;
    http1_exchange_set_user(x, call);
}

/* ---- routes ---- */

enum route_kind { ROUTE_ANSWER, ROUTE_CALL };

struct route {
    const char *method;
    const char *path; /* one that ends in '/' takes a number behind it. */
    enum route_kind kind;
    answer_fn *answer;
    enum cp_call_kind call;
    const char *names[2]; /* of the numbers in the query. */
};

static const struct route routes[] = {
    {"GET", "/health", ROUTE_ANSWER, answer_health, 0, {0}},
    {"GET", "/healthz", ROUTE_ANSWER, answer_health, 0, {0}},
    {"GET", "/ready", ROUTE_ANSWER, answer_ready, 0, {0}},
    {"GET", "/metrics", ROUTE_ANSWER, answer_metrics, 0, {0}},
    {"GET", "/api/v1/status", ROUTE_ANSWER, answer_status, 0, {0}},
    {"GET", "/api/v1/nodes", ROUTE_ANSWER, answer_nodes, 0, {0}},
    {"GET", "/api/v1/history", ROUTE_CALL, NULL, CP_CALL_HISTORY, {"before", "max"}},
    {"GET", "/api/v1/audit", ROUTE_CALL, NULL, CP_CALL_AUDIT, {0}},
    {"GET", "/api/v1/versions/", ROUTE_CALL, NULL, CP_CALL_VERSION, {0}},
    {"GET", "/api/v1/diff", ROUTE_CALL, NULL, CP_CALL_DIFF, {"from", "to"}},
    {"GET", "/api/v1/proposal", ROUTE_CALL, NULL, CP_CALL_PROPOSAL, {0}},
    {"POST", "/api/v1/proposal/sign", ROUTE_CALL, NULL, CP_CALL_SIGN, {0}},
    {"GET", "/api/v1/roots", ROUTE_CALL, NULL, CP_CALL_ROOTS, {0}},
    {"POST", "/api/v1/roots", ROUTE_CALL, NULL, CP_CALL_ROOT_PUBLISH, {0}},
    {"GET", "/api/v1/identities", ROUTE_CALL, NULL, CP_CALL_NODES, {0}},
    {"POST", "/api/v1/validate", ROUTE_CALL, NULL, CP_CALL_VALIDATE, {0}},
    {"POST", "/api/v1/plan", ROUTE_CALL, NULL, CP_CALL_PLAN, {0}},
    {"POST", "/api/v1/publish", ROUTE_CALL, NULL, CP_CALL_PUBLISH, {0}},
    {"POST", "/api/v1/rollback", ROUTE_CALL, NULL, CP_CALL_ROLLBACK, {0}},
    {"POST", "/api/v1/recover", ROUTE_CALL, NULL, CP_CALL_RECOVER, {0}},
    {"POST", "/api/v1/tokens", ROUTE_CALL, NULL, CP_CALL_TOKEN, {0}},
    {"POST", "/api/v1/identities/remove", ROUTE_CALL, NULL, CP_CALL_REMOVE, {0}},
    {"POST", "/api/v1/join", ROUTE_CALL, NULL, CP_CALL_JOIN, {0}},
    {"POST", "/api/v1/renew", ROUTE_CALL, NULL, CP_CALL_RENEW, {0}},
};
enum { ROUTE_COUNT = sizeof(routes) / sizeof(routes[0]) };

static struct slice path_of(const struct http1_head *head)
{
    return slice_head(head->path, slice_find(head->path, '?'));
}

/* Versions and counts: whole numbers that the store can hold. */
static bool to_number(struct slice text, uint64_t *out)
{
    uint64_t number = 0;
    if (!slice_to_u64(text, &number) || number > INT64_MAX) {
        return false;
    }
    *out = number;
    return true;
}

static bool path_matches(const struct route *route, struct slice path, uint64_t *out_number)
{
    struct slice pattern = slice_str(route->path);
    if (!slice_ends(pattern, SLICE_LIT("/"))) {
        return slice_eq(path, pattern);
    }
    return slice_starts(path, pattern) && to_number(slice_from(path, pattern.size), out_number);
}

/* E_NO_ROUTE is for lanes; here it is E_NOT_FOUND and E_METHOD_NOT_ALLOWED. */
static struct err find_route(const struct http1_head *head, const struct route **out,
                             uint64_t *out_number)
{
    bool path_known = false;
    for (size_t i = 0; i < ROUTE_COUNT; i++) {
        if (!path_matches(&routes[i], path_of(head), out_number)) {
            continue;
        }
        if (slice_eq(head->method, slice_str(routes[i].method))) {
            *out = &routes[i];
            return OK;
        }
        path_known = true;
    }
    return FAIL(path_known ? E_METHOD_NOT_ALLOWED : E_NOT_FOUND);
}

/* The number "name=N" of a query; absent: untouched. E_USAGE when it is none. */
static struct err query_number(struct slice path, const char *name, uint64_t *out)
{
    struct slice query = slice_from(path, slice_find(path, '?') + 1);
    struct slice wanted = slice_str(name);
    while (query.size > 0) {
        struct slice pair = slice_head(query, slice_find(query, '&'));
        if (slice_starts(pair, wanted) && pair.size > wanted.size && pair.ptr[wanted.size] == '=') {
            return to_number(slice_from(pair, wanted.size + 1), out) ? OK : FAIL(E_USAGE);
        }
        query = slice_from(query, pair.size + 1);
    }
    return OK;
}

static void take(struct cp_api *api, struct http1_exchange *x, const struct route *route,
                 uint64_t number)
{
    uint64_t numbers[2] = {number, 0};
    for (size_t i = 0; i < 2 && route->names[i] != NULL; i++) {
        struct err e = query_number(http1_exchange_head(x)->path, route->names[i], &numbers[i]);
        if (!err_ok(e)) {
            refuse(x, e);
            return;
        }
    }
    if (route->kind == ROUTE_ANSWER) {
        route->answer(api, x);
    } else {
        hand_over(api, x, route->call, numbers);
    }
}

/* ---- HTTP ---- */

/* Who may ask: anyone; who bears the API's token; anyone, but so many a second, since what proves
 * the right stands in the body. */
enum door { DOOR_OPEN, DOOR_TOKEN, DOOR_GATE };

static enum door door_of(const struct route *route)
{
    if (strcmp(route->method, "POST") != 0) {
        return DOOR_OPEN;
    }
    bool gate = route->call == CP_CALL_JOIN || route->call == CP_CALL_RENEW;
    return gate ? DOOR_GATE : DOOR_TOKEN;
}

static struct err judge(struct cp_api *api, struct http1_exchange *x, const struct route **out)
{
    const struct http1_head *head = http1_exchange_head(x);
    uint64_t number = 0;
    TRY(cp_guard_site(&api->guard, head));
    TRY(find_route(head, out, &number));
    switch (door_of(*out)) {
    case DOOR_OPEN:
        break;
    case DOOR_TOKEN:
        return cp_guard_write(&api->guard, head);
    case DOOR_GATE:
        TRY(cp_guard_json(head));
        return cp_gate_pass(&api->gate, net_conn_peer(http1_exchange_conn(x)), clock_mono_ns());
    }
    return OK;
}

static size_t body_max(const struct route *route)
{
    switch (door_of(route)) {
    case DOOR_TOKEN:
        return limits.api_body_bytes;
    case DOOR_GATE:
        return CP_ENROL_BODY_MAX;
    case DOOR_OPEN:
        break;
    }
    return 0;
}

static void on_head(struct http1_exchange *x, void *ctx)
{
    struct connection *c = ctx;
    const struct http1_head *head = http1_exchange_head(x);
    const struct route *route = NULL;
    struct err e = judge(c->api, x, &route);
    if (!err_ok(e)) {
        LOG(LOG_INFO, "api", "refused", LOG_ERR(e), LOG_SLICE("method", head->method),
            LOG_SLICE("path", head->path));
        refuse(x, e);
        return;
    }
    http1_exchange_hold(x, body_max(route));
}

static void on_end(struct http1_exchange *x, void *ctx)
{
    struct connection *c = ctx;
    const struct route *route = NULL;
    uint64_t number = 0;
    if (http1_exchange_answered(x)) {
        return;
    }
    struct err e = find_route(http1_exchange_head(x), &route, &number);
    CHECK(err_ok(e)); /* on_head() found it. */
    take(c->api, x, route, number);
}

static void on_gone(struct http1_exchange *x, void *ctx, struct err why)
{
    (void)ctx;
    (void)why;
    struct cp_call *call = http1_exchange_user(x);
    if (call != NULL) {
        call->exchange = NULL;                /* a publication goes on without its caller, */
        atomic_store(&call->abandoned, true); /* but does not wait for a leader. */
    }
}

static const struct http1_server_handler handler = {
    .head = on_head,
    .end = on_end,
    .gone = on_gone,
};

static void on_closed(void *ctx)
{
    struct connection *c = ctx;
    c->prev->next = c->next;
    c->next->prev = c->prev;
    c->api->connection_count--;
    free(c);
}

static struct err serve(struct cp_api *api, struct net_conn *conn)
{
    if (api->connection_count >= limits.api_connections) {
        return FAIL(E_OVERLOADED);
    }
    struct connection *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    c->api = api;
    struct http1_server_options options = {
        .handler = &handler, .ctx = c, .closed = on_closed, .idle_ms = IDLE_MS};
    struct err e = http1_server_start(conn, &options, (struct slice){0}, &c->server);
    if (!err_ok(e)) {
        free(c);
        return e;
    }
    c->next = api->connections.next;
    c->prev = &api->connections;
    c->next->prev = c;
    api->connections.next = c;
    api->connection_count++;
    return OK;
}

static void on_accepted(struct net_conn *conn, void *ctx)
{
    struct err e = serve(ctx, conn);
    if (!err_ok(e)) {
        net_conn_abort(conn, e);
    }
}

/* ---- beginning and end ---- */

static bool is_loopback(const struct net_addr *a)
{
    if (a->sa.any.sa_family == AF_INET) {
        return (ntohl(a->sa.v4.sin_addr.s_addr) >> 24) == 127;
    }
    return a->sa.any.sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&a->sa.v6.sin6_addr);
}

static struct err listen_on(struct cp_api *api, size_t index, const char *address,
                            struct net_tls *tls, struct buf *message)
{
    struct net_addr bound;
    struct err e = net_listen(slice_str(address), &api->fds[index], &bound);
    if (!err_ok(e)) {
        TRY(buf_addf(message, "%s: cannot listen on %s; %s", tls == NULL ? "listen" : "listen-tls",
                     address, e.code == E_IO ? "is the port taken?" : "expected ADDRESS:PORT"));
        return e;
    }
    if (tls == NULL && !is_loopback(&bound)) {
        TRY(buf_addf(message,
                     "listen: %s is not a loopback address; clear text is for loopback alone, "
                     "use listen-tls",
                     address));
        return FAIL(E_USAGE);
    }
    char text[NET_ADDR_TEXT_MAX];
    LOG(LOG_INFO, "api", "listens", LOG_STR("address", net_addr_text(&bound, text)),
        LOG_STR("tls", tls == NULL ? "no" : "yes"));
    struct net_listener_options options = {
        .fd = api->fds[index], .tls = tls, .accepted = on_accepted, .ctx = api};
    return net_listener_new(api->options.loop, &options, &api->listeners[index]);
}

static struct err start(struct cp_api *api, struct buf *message)
{
    const struct cp_api_options *o = &api->options;
    if (o->listen != NULL) {
        TRY(listen_on(api, 0, o->listen, /* tls= */ NULL, message));
    }
    if (o->listen_tls != NULL) {
        TRY(listen_on(api, 1, o->listen_tls, o->tls, message));
    }
    return OK;
}

struct err cp_api_new(const struct cp_api_options *options, struct cp_api **out,
                      struct buf *message)
{
    struct cp_api *api = calloc(1, sizeof(*api));
    if (api == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    api->options = *options;
    api->guard.server_names = slice_str(options->server_names);
    api->guard.address = slice_str(options->forward.address);
    api->guard.token = slice_str(options->token);
    api->fds[0] = -1;
    api->fds[1] = -1;
    api->connections.next = &api->connections;
    api->connections.prev = &api->connections;
    struct err e = start(api, message);
    if (!err_ok(e)) {
        cp_api_free(api);
        return e;
    }
    *out = api;
    return OK;
}

void cp_api_drain(struct cp_api *api)
{
    api->draining = true;
    for (size_t i = 0; i < LISTENERS; i++) {
        if (api->listeners[i] != NULL) {
            net_listener_stop(api->listeners[i]);
            net_listen_pause(api->fds[i]); /* refused at once, not left in the kernel's queue. */
        }
    }
    for (struct connection *c = api->connections.next; c != &api->connections; c = c->next) {
        http1_server_drain(c->server);
    }
}

bool cp_api_idle(const struct cp_api *api)
{
    return api->calls == 0 && api->connection_count == 0;
}

void cp_api_set_tls(struct cp_api *api, struct net_tls *tls)
{
    if (api->listeners[1] != NULL) {
        net_listener_set_tls(api->listeners[1], tls);
    }
}

void cp_api_close(struct cp_api *api)
{
    for (size_t i = 0; api != NULL && i < LISTENERS; i++) {
        net_listener_free(api->listeners[i]);
        api->listeners[i] = NULL;
        scope_close(&api->fds[i]);
    }
}

void cp_api_free(struct cp_api *api)
{
    if (api == NULL) {
        return;
    }
    cp_api_close(api);
    free(api);
}
