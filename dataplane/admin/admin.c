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
#include "dataplane/apply/apply.h"
#include "dataplane/request/metrics.h"

/* An answer; /metrics is the largest. */
enum { ANSWER_MAX = 16 << 20 };

struct dp_admin {
    struct dp_admin_config config;
    int fd;
    struct net_loop *loop;
    struct net_listener *listener;
    pthread_t thread;
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
    if (!err_ok(http1_respond_error(x, why))) {
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

static void get_ready(struct dp_admin *a, struct http1_exchange *x, struct slice query)
{
    struct slice tenant = {0};
    if (slice_starts(query, SLICE_LIT("tenant="))) {
        tenant = slice_from(query, sizeof("tenant=") - 1);
        tenant = slice_head(tenant, slice_find(tenant, '&'));
    }
    bool ready = false;
    json_t *answer = dp_dump_ready(&a->config, tenant, &ready);
    respond_json(x, ready ? 200 : 503, answer);
}

static bool has_text(struct slice s, struct slice wanted)
{
    return memmem(s.ptr, s.size, wanted.ptr, wanted.size) != NULL;
}

static void get_metrics(struct dp_admin *a, struct http1_exchange *x, struct slice query)
{
    (void)query;
    const struct http1_field *accept = http1_find(http1_exchange_head(x), SLICE_LIT("accept"));
    bool openmetrics =
        accept != NULL && has_text(accept->value, SLICE_LIT("application/openmetrics-text"));
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

struct admin_path {
    const char *path;
    void (*get)(struct dp_admin *a, struct http1_exchange *x, struct slice query);
    bool open; /* probes ask without a token. */
};

static const struct admin_path paths[] = {
    {"/health", get_health, true},    {"/healthz", get_health, true}, {"/ready", get_ready, true},
    {"/metrics", get_metrics, false}, {"/dump", get_dump, false},
};

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

static void head(struct http1_exchange *x, void *ctx)
{
    struct dp_admin *a = ctx;
    const struct http1_head *h = http1_exchange_head(x);
    struct slice path = slice_head(h->path, slice_find(h->path, '?'));
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        if (!slice_eq(path, slice_str(paths[i].path))) {
            continue;
        }
        if (!slice_eq(h->method, SLICE_LIT("GET")) && !slice_eq(h->method, SLICE_LIT("HEAD"))) {
            respond_error(x, FAIL(E_METHOD_NOT_ALLOWED));
        } else if (!paths[i].open && !is_allowed(a, h)) {
            respond_error(x, FAIL(E_UNAUTHENTICATED));
        } else {
            paths[i].get(a, x, slice_from(h->path, path.size + 1));
        }
        return;
    }
    respond_error(x, FAIL(E_NOT_FOUND));
}

/* ---- the thread ---- */

static const struct http1_server_handler handler = {.head = head};

static void accepted(struct net_conn *conn, void *ctx)
{
    struct http1_server_options options = {.handler = &handler, .ctx = ctx};
    struct http1_server *server = NULL;
    struct err e = http1_server_start(conn, &options, (struct slice){0}, &server);
    if (!err_ok(e)) {
        net_conn_abort(conn, e);
    }
}

static void *thread_main(void *ctx)
{
    struct dp_admin *a = ctx;
    net_loop_run(a->loop);
    return NULL;
}

static void admin_free(struct dp_admin *a)
{
    net_listener_free(a->listener);
    net_loop_free(a->loop);
    if (a->fd >= 0) {
        (void)close(a->fd);
    }
    free(a);
}

static struct err set_up(struct dp_admin *a)
{
    struct net_addr bound;
    char shown[NET_ADDR_TEXT_MAX];
    TRY(net_listen(slice_str(a->config.address), &a->fd, &bound));
    TRY(net_loop_new(&a->loop));
    struct net_listener_options options = {.fd = a->fd, .accepted = accepted, .ctx = a};
    TRY(net_listener_new(a->loop, &options, &a->listener));
    LOG(LOG_INFO, "admin", "listening", LOG_STR("address", net_addr_text(&bound, shown)));
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
        admin_free(a);
        return e;
    }
    *out = a;
    return OK;
}

void dp_admin_stop(struct dp_admin *admin)
{
    if (admin == NULL) {
        return;
    }
    net_loop_stop(admin->loop);
    CHECK(pthread_join(admin->thread, NULL) == 0);
    admin_free(admin);
}
