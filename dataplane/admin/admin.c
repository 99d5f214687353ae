/* admin: see admin.h. */
#include "dataplane/admin/admin.h"

#include <jansson.h>
#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "common/bus/bus.h"
#include "common/net/http1_server.h"
#include "common/net/listener.h"
#include "common/net/loop.h"
#include "common/telemetry/metrics.h"
#include "dataplane/admin/dump.h"
#include "dataplane/admin/trace.h"
#include "dataplane/apply/apply.h"
#include "dataplane/request/metrics.h"

/* Refusals that a list shows. */
enum { TRACES_SHOWN = 100 };

/* An answer, /metrics is the largest; and connections, which are not asked who they are before
 * they have one of the descriptors that callers need. */
enum { ANSWER_MAX = 16 << 20, CONNECTIONS_MAX = 64, IDLE_MS = 30000 };

struct dp_admin {
    struct dp_admin_config config;
    int fd;
    struct net_loop *loop;
    struct net_listener *listener;
    pthread_t thread;
    size_t connection_count;
};

/* ---- answers ---- */

static void respond(struct http1_exchange *x, unsigned status, struct slice type, struct slice body)
{
    const struct http1_field fields[] = {
        {SLICE_LIT("content-type"), type},
        {SLICE_LIT("cache-control"), SLICE_LIT("no-store")},
    };
    if (!err_ok(http1_respond(x, status, fields, 2, body))) {
        http1_exchange_abort(x);
    }
}

static void respond_error(struct http1_exchange *x, struct err why)
{
    if (!err_ok(http1_respond_error(x, why, /* more= */ NULL))) {
        http1_exchange_abort(x);
    }
}

static void respond_json(struct http1_exchange *x, unsigned status, json_t *value)
{
    char *text = value == NULL ? NULL : json_dumps(value, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    if (text == NULL) {
        respond_error(x, FAIL(E_NO_MEMORY));
    } else {
        respond(x, status, SLICE_LIT("application/json"), slice_str(text));
    }
    free(text);
    json_decref(value);
}

/* ---- paths ---- */

static void get_health(struct dp_admin *a, struct http1_exchange *x, struct slice query)
{
    (void)a;
    (void)query;
    respond(x, 200, SLICE_LIT("text/plain"), SLICE_LIT("ok\n"));
}

/* The value of a field of the query; false when it is not there. */
static bool query_field(struct slice query, struct slice name, struct slice *out)
{
    while (query.size > 0) {
        struct slice pair = slice_head(query, slice_find(query, '&'));
        size_t equals = slice_find(pair, '=');
        if (equals < pair.size && slice_eq(slice_head(pair, equals), name)) {
            *out = slice_from(pair, equals + 1);
            return true;
        }
        query = slice_from(query, pair.size + 1);
    }
    return false;
}

static void get_ready(struct dp_admin *a, struct http1_exchange *x, struct slice query)
{
    struct slice tenant = {0};
    bool asked = query_field(query, SLICE_LIT("tenant"), &tenant);
    bool ready = false;
    json_t *answer = dp_dump_ready(&a->config, asked ? &tenant : NULL, &ready);
    respond_json(x, ready ? 200 : 503, answer);
}

/* Takes what stands before 'sep' off the front, without spaces around it. */
static struct slice take_until(struct slice *rest, uint8_t sep)
{
    size_t at = slice_find(*rest, sep);
    struct slice found = slice_head(*rest, at);
    *rest = slice_from(*rest, at + 1);
    while (found.size > 0 && found.ptr[0] <= ' ') {
        found = slice_from(found, 1);
    }
    while (found.size > 0 && found.ptr[found.size - 1] <= ' ') {
        found = slice_head(found, found.size - 1);
    }
    return found;
}

/* "q=0.5" in thousandths (RFC 9110, 12.4.2); what is no weight is the full one. */
static unsigned weight(struct slice parameter)
{
    unsigned value = 0;
    unsigned step = 1000;
    if (!slice_starts(parameter, SLICE_LIT("q="))) {
        return 1000;
    }
    for (size_t i = 2; i < parameter.size && step > 0; i++) {
        uint8_t c = parameter.ptr[i];
        if (c >= '0' && c <= '9') {
            value += (unsigned)(c - '0') * step;
            step /= 10;
        }
    }
    return value;
}

/* How much the client wants a type; 0: not at all. */
static unsigned quality(struct slice accept, struct slice type)
{
    unsigned best = 0;
    while (accept.size > 0) {
        struct slice range = take_until(&accept, ',');
        struct slice name = take_until(&range, ';');
        unsigned wanted = 1000;
        while (range.size > 0) {
            unsigned w = weight(take_until(&range, ';'));
            wanted = w < wanted ? w : wanted;
        }
        if (slice_eq_nocase(name, type) && wanted > best) {
            best = wanted;
        }
    }
    return best;
}

static bool wants_openmetrics(const struct http1_head *head)
{
    const struct http1_field *accept = http1_find(head, SLICE_LIT("accept"));
    struct slice value = accept == NULL ? (struct slice){0} : accept->value;
    unsigned wanted = quality(value, SLICE_LIT("application/openmetrics-text"));
    return wanted > 0 && wanted >= quality(value, SLICE_LIT("text/plain"));
}

static void get_metrics(struct dp_admin *a, struct http1_exchange *x, struct slice query)
{
    (void)query;
    bool openmetrics = wants_openmetrics(http1_exchange_head(x));
    a->config.before_scrape(a->config.ctx);
    dp_metrics_derive(a->config.metrics, a->config.shard);
    auto_buf struct buf body = BUF_MAX(ANSWER_MAX);
    struct err e = metrics_render(a->config.metrics, openmetrics, &body);
    if (!err_ok(e)) {
        respond_error(x, e);
        return;
    }
    respond(x, 200,
            openmetrics ? SLICE_LIT(METRICS_TYPE_OPENMETRICS) : SLICE_LIT(METRICS_TYPE_TEXT),
            buf_slice(&body));
}

static void get_dump(struct dp_admin *a, struct http1_exchange *x, struct slice query)
{
    (void)query;
    respond_json(x, 200, dp_dump_node(&a->config));
}

static void get_traces(struct dp_admin *a, struct http1_exchange *x, struct slice query)
{
    (void)query;
    respond_json(x, 200, dp_trace_latest(&a->config, TRACES_SHOWN));
}

static void get_trace(struct dp_admin *a, struct http1_exchange *x, struct slice id)
{
    bool found = false;
    json_t *answer = dp_trace_one(&a->config, id, &found);
    if (found) {
        respond_json(x, 200, answer);
    } else {
        respond_error(x, FAIL(E_NOT_FOUND));
    }
}

/* A path that ends with '/' stands for all that begin so. */
struct admin_path {
    const char *path;
    /* 'more' is the query or, where the path ends with '/', what stands behind that. */
    void (*get)(struct dp_admin *a, struct http1_exchange *x, struct slice more);
    bool open; /* probes ask without a token. */
};

static const struct admin_path paths[] = {
    {"/health", get_health, true},    {"/healthz", get_health, true}, {"/ready", get_ready, true},
    {"/metrics", get_metrics, false}, {"/dump", get_dump, false},     {"/trace", get_traces, false},
    {"/trace/", get_trace, false},
};

static bool is_of(const struct admin_path *p, struct slice path, struct slice query,
                  struct slice *out_more)
{
    struct slice own = slice_str(p->path);
    bool open_ended = slice_ends(own, SLICE_LIT("/"));
    *out_more = open_ended ? slice_from(path, own.size) : query;
    return open_ended ? slice_starts(path, own) : slice_eq(path, own);
}

static bool is_allowed(const struct dp_admin *a, const struct http1_head *head)
{
    struct slice token = a->config.token;
    struct slice scheme = SLICE_LIT("Bearer ");
    const struct http1_field *field = http1_find(head, SLICE_LIT("authorization"));
    if (token.size == 0) {
        return true;
    }
    return field != NULL && slice_starts(field->value, scheme) &&
           field->value.size == scheme.size + token.size &&
           sodium_memcmp(field->value.ptr + scheme.size, token.ptr, token.size) == 0;
}

/*
 * A page in somebody's browser may have a name of its own point at this machine. It then reads
 * what the name answers, but cannot hide the name: without a token only addresses are taken.
 */
static bool is_rebound(const struct dp_admin *a, const struct http1_head *head)
{
    struct slice host = head->authority;
    struct net_addr addr;
    uint16_t port = 0;
    if (!err_ok(net_host_port(head->authority, &host, &port))) {
        host = head->authority;
    }
    return a->config.token.size == 0 && host.size > 0 &&
           !slice_eq_nocase(host, SLICE_LIT("localhost")) &&
           !err_ok(net_addr_from_ip(host, port, &addr));
}

static void head(struct http1_exchange *x, void *ctx)
{
    struct dp_admin *a = ctx;
    const struct http1_head *h = http1_exchange_head(x);
    struct slice path = slice_head(h->path, slice_find(h->path, '?'));
    struct slice more = {0};
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        if (!is_of(&paths[i], path, slice_from(h->path, path.size + 1), &more)) {
            continue;
        }
        if (!slice_eq(h->method, SLICE_LIT("GET")) && !slice_eq(h->method, SLICE_LIT("HEAD"))) {
            respond_error(x, FAIL(E_METHOD_NOT_ALLOWED));
        } else if (!paths[i].open && is_rebound(a, h)) {
            respond_error(x, FAIL(E_HOST_REFUSED));
        } else if (!paths[i].open && !is_allowed(a, h)) {
            respond_error(x, FAIL(E_UNAUTHENTICATED));
        } else {
            paths[i].get(a, x, more);
        }
        return;
    }
    respond_error(x, FAIL(E_NOT_FOUND));
}

/* ---- the thread ---- */

static const struct http1_server_handler handler = {.head = head};

static void closed(void *ctx)
{
    struct dp_admin *a = ctx;
    CHECK(a->connection_count > 0);
    a->connection_count--;
}

static void accepted(struct net_conn *conn, void *ctx)
{
    struct dp_admin *a = ctx;
    struct http1_server_options options = {
        .handler = &handler, .ctx = a, .idle_ms = IDLE_MS, .closed = closed};
    struct http1_server *server = NULL;
    if (a->connection_count == CONNECTIONS_MAX) {
        net_conn_abort(conn, FAIL(E_OVERLOADED));
        return;
    }
    struct err e = http1_server_start(conn, &options, (struct slice){0}, &server);
    if (!err_ok(e)) {
        net_conn_abort(conn, e);
        return;
    }
    a->connection_count++;
}

static void *thread_main(void *ctx)
{
    struct dp_admin *a = ctx;
    net_loop_run(a->loop);
    return NULL;
}

static void admin_free(struct dp_admin *a, bool keep_handed)
{
    net_listener_free(a->listener);
    net_loop_free(a->loop);
    if (a->fd >= 0 && !(keep_handed && a->fd == a->config.handed_fd)) {
        (void)close(a->fd);
    }
    free(a);
}

/* A socket that was handed over listens already. */
static struct err listen_on(struct dp_admin *a)
{
    struct net_addr bound;
    char shown[NET_ADDR_TEXT_MAX];
    if (a->config.handed_fd > 0) {
        a->fd = a->config.handed_fd;
        return OK;
    }
    TRY(net_listen(slice_str(a->config.address), &a->fd, &bound));
    LOG(LOG_INFO, "admin", "listening", LOG_STR("address", net_addr_text(&bound, shown)));
    return OK;
}

static struct err set_up(struct dp_admin *a)
{
    TRY(net_loop_new(&a->loop));
    TRY(listen_on(a));
    struct net_listener_options options = {.fd = a->fd, .accepted = accepted, .ctx = a};
    TRY(net_listener_new(a->loop, &options, &a->listener));
    return pthread_create(&a->thread, NULL, thread_main, a) == 0 ? OK : FAIL(E_IO);
}

struct err dp_admin_start(const struct dp_admin_config *config, struct dp_admin **out)
{
    struct dp_admin *a = calloc(1, sizeof(*a));
    if (a == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    a->config = *config;
    a->fd = -1;
    struct err e = set_up(a);
    if (!err_ok(e)) {
        admin_free(a, /* keep_handed= */ true);
        return e;
    }
    *out = a;
    return OK;
}

int dp_admin_fd(const struct dp_admin *admin)
{
    return admin == NULL ? -1 : admin->fd;
}

void dp_admin_stop(struct dp_admin *admin)
{
    if (admin == NULL) {
        return;
    }
    net_loop_stop(admin->loop);
    CHECK(pthread_join(admin->thread, NULL) == 0);
    admin_free(admin, /* keep_handed= */ false);
}
