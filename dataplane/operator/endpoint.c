/* endpoint: one address of a cluster: its name, its pool of connections, and who waits for either.
 * See upstream.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/buf.h"
#include "common/base/check.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/net/dns.h"
#include "common/net/grpc.h"
#include "common/net/loop.h"
#include "common/net/tls.h"
#include "dataplane/operator/outlier.h"
#include "dataplane/operator/upstream_impl.h"

enum {
    KEY_MAX = NET_SPIFFE_MAX + 1024, /* two host names and some numbers besides. */
    TTL_LEAST_S = 1,                 /* names are asked for no oftener, */
    TTL_MOST_S = 300,                /* and no more seldom. */
    TTL_UNSAID_S = 30,
    FAILED_FIRST_MS = 1000,
    FAILED_MAX_MS = 30000,
};

static struct net_loop *loop_of(const struct op_endpoint *e)
{
    return e->ups->host->loop;
}

/* ---- making ---- */

static MUST_CHECK struct err key_of(const struct op_set *set, const struct dp_endpoint *from,
                                    struct buf *out)
{
    const struct op_security *security = &set->security;
    TRY(buf_addf(out, "%u|%u|%u|%u|%u|%u|%u|", security->tls, (unsigned)security->terms.version_min,
                 (unsigned)security->terms.version_max, security->connect_timeout_ms,
                 security->max_age_ms, set->breakers.connections, from->port));
    TRY(buf_add(out, from->address));
    TRY(buf_add_str(out, "|"));
    TRY(buf_add(out, security->sni));
    TRY(buf_add_str(out, "|"));
    return buf_add(out, security->spiffe);
}

/* What a node may open to one endpoint, a worker's part of it. */
static uint32_t connections_max(const struct op_set *set)
{
    uint32_t workers = (uint32_t)set->ups->host->worker_count;
    uint32_t max = set->breakers.connections;
    return workers == 0 ? max : (max + workers - 1) / workers;
}

static struct op_endpoint *endpoint_new(struct op_set *set, const struct dp_endpoint *from,
                                        struct slice key)
{
    struct op_endpoint *e = calloc(1, sizeof(*e));
    if (e == NULL) {
        return NULL;
    }
    const struct op_security *security = &set->security;
    struct slice name = security->sni.size > 0 ? security->sni : from->address;
    e->ups = set->ups;
    e->set = set;
    e->id = ++set->ups->endpoint_id;
    e->key = slice_of(slice_dup(key), key.size);
    e->hash = hash_bytes(key, /* seed= */ 0);
    e->host = slice_dup(from->address);
    e->port = from->port;
    e->security = security->tls;
    e->connect_timeout_ms = security->connect_timeout_ms;
    e->max_age_ms = security->max_age_ms;
    e->terms = security->terms;
    e->connections_max = connections_max(set);
    e->server_name = slice_dup(name);
    e->spiffe_id = slice_dup(security->spiffe);
    (void)snprintf(e->text, sizeof(e->text), "%.60s:%u", e->host, e->port);
    return e;
}

struct err op_endpoint_get(struct op_set *set, const struct dp_endpoint *from,
                           struct op_endpoint **out)
{
    auto_buf struct buf key = BUF_MAX(KEY_MAX);
    TRY(key_of(set, from, &key));
    struct op_endpoint *e = map_get(&set->by_key, buf_slice(&key));
    if (e == NULL) {
        e = endpoint_new(set, from, buf_slice(&key));
        if (e == NULL) {
            return FAIL(E_NO_MEMORY);
        }
        struct err err = map_put(&set->by_key, e->key, e, /* out_old: */ NULL);
        if (!err_ok(err)) {
            op_endpoint_free(e);
            return err;
        }
        e->next = set->all;
        set->all = e;
    }
    *out = e;
    return OK;
}

void op_endpoint_free(struct op_endpoint *e)
{
    CHECK(e->line == NULL);
    CHECK(e->refs == 0);
    if (e->query != NULL) {
        net_dns_cancel(e->query);
    }
    op_addresses_free(&e->addresses);
    free(e->host);
    free(e->server_name);
    free(e->spiffe_id);
    slice_free(e->key);
    free(e);
}

struct slice op_endpoint_text(const struct op_endpoint *endpoint)
{
    return slice_str(endpoint->text);
}

/* ---- its connections ---- */

struct net_tls *op_endpoint_tls(const struct op_endpoint *e)
{
    const struct dp_lane_host *host = e->ups->host;
    return e->security == 0 ? NULL : e->security == 1 ? host->tls : host->mtls;
}

/* What the log calls it: by the address of the connection. */
static void name_by(struct op_endpoint *e, const struct h2_pool *pool)
{
    const struct op_address *a = op_addresses_of(e, pool);
    if (a != NULL) {
        memcpy(e->text, a->text, sizeof(e->text));
    }
}

/*
 * Asks an address for a connection, and another one when that says at once that there is none.
 * *out NULL: the wait is in an address' line.
 */
static MUST_CHECK struct err ask(struct op_endpoint *e, struct op_wait *wait, struct h2_conn **out)
{
    uint64_t now_ns = net_loop_now_ns(loop_of(e));
    struct err err = FAIL(E_UPSTREAM_CONNECT);
    uint64_t left_ms = wait->until_ns <= now_ns ? 0 : (wait->until_ns - now_ns + 999999) / 1000000;
    while (err.code == E_UPSTREAM_CONNECT && wait->asked_count < e->addresses.count) {
        struct op_address *a = op_addresses_next(e);
        wait->asked = a->pool;
        wait->asked_count++;
        err = h2_pool_acquire(a->pool, &wait->pool_wait, left_ms, out);
        if (err_ok(err) && *out != NULL) {
            op_address_report(a, /* reached: */ true, now_ns);
            name_by(e, a->pool);
        } else if (err.code == E_UPSTREAM_CONNECT) {
            e->unreached = h2_pool_why(a->pool);
            op_address_report(a, /* reached: */ false, now_ns);
        }
    }
    return err;
}

/* ---- the line of those who wait for its address ---- */

static void line_remove(struct op_wait *wait)
{
    *wait->at = wait->next;
    if (wait->next != NULL) {
        wait->next->at = wait->at;
    }
    wait->at = NULL;
    wait->next = NULL;
}

static void line_add(struct op_endpoint *e, struct op_wait *wait)
{
    wait->next = e->line;
    wait->at = &e->line;
    if (e->line != NULL) {
        e->line->at = &wait->next;
    }
    e->line = wait;
}

static void wait_begin(struct op_wait *wait, struct op_endpoint *e)
{
    wait->endpoint = e;
    e->refs++;
    e->set->pending += wait->apart ? 0 : 1;
}

/* The endpoint is held until wait_let_go(). */
static struct op_endpoint *wait_end(struct op_wait *wait)
{
    struct op_endpoint *e = wait->endpoint;
    CHECK(e != NULL);
    CHECK(wait->apart || e->set->pending > 0);
    wait->endpoint = NULL;
    e->set->pending -= wait->apart ? 0 : 1;
    return e;
}

static void wait_let_go(struct op_endpoint *e)
{
    CHECK(e->refs > 0);
    e->refs--;
}

/* From the line into the pool's, or out of it with what came of the look-up. */
static void serve_wait(struct op_endpoint *e, struct op_wait *wait, struct err why)
{
    struct h2_conn *conn = NULL;
    struct err err = why;
    if (err_ok(err) && wait->until_ns <= net_loop_now_ns(loop_of(e))) {
        err = FAIL(E_DEADLINE_EXCEEDED);
    }
    err = err_ok(err) ? ask(e, wait, &conn) : err;
    if (!err_ok(err) || conn != NULL) {
        wait_let_go(wait_end(wait));
        wait->ready(wait, conn, err);
    }
}

/* Ends the look-up for everybody who waits for it now; whoever waits anew waits for the next. */
static void serve_line(struct op_endpoint *e, struct err why)
{
    struct op_wait *line = e->line;
    e->line = NULL;
    if (line != NULL) {
        line->at = &line;
    }
    e->refs++;             /* a 'ready' may let go of the last other reference. */
    while (line != NULL) { /* each turn takes one off; a 'ready' may take off others. */
        struct op_wait *wait = line;
        line_remove(wait);
        serve_wait(e, wait, why);
    }
    e->refs--;
}

/* ---- its address ---- */

/* When an answer is asked for again: as it says, within bounds. */
static uint64_t answer_ends_ns(const struct op_endpoint *e)
{
    int64_t ttl_s = net_dns_ttl_s(e->ups->host->dns);
    ttl_s = ttl_s == NET_DNS_TTL_UNSAID ? TTL_UNSAID_S
            : ttl_s < TTL_LEAST_S       ? TTL_LEAST_S
            : ttl_s > TTL_MOST_S        ? TTL_MOST_S
                                        : ttl_s;
    return net_loop_now_ns(loop_of(e)) + (uint64_t)ttl_s * UINT64_C(1000000000);
}

static void resolved(void *ctx, struct err how, const struct net_addr *addrs, size_t count)
{
    struct op_endpoint *e = ctx;
    e->query = NULL;
    e->resolve_ns = net_loop_now_ns(loop_of(e)) + TTL_LEAST_S * UINT64_C(1000000000);
    if (err_ok(how) && count > 0) {
        e->resolve_ns = answer_ends_ns(e);
        how = op_addresses_set(e, addrs, count);
    }
    if (!err_ok(how)) {
        e->unreached = FAIL(E_NOT_FOUND);
        LOG(LOG_WARN, "operator", "endpoint-not-resolved", LOG_STR("endpoint", e->host),
            LOG_ERR(how));
    }
    /* Addresses that were good before are better than none. */
    serve_line(e, e->addresses.count > 0 ? OK : FAIL(E_UPSTREAM_CONNECT));
}

/* Starts a look-up when the addresses are not known, or were for as long as they hold; renews the
 * pools when the node has new certificates. */
static MUST_CHECK struct err refresh(struct op_endpoint *e)
{
    if (e->addresses.count > 0 &&
        h2_pool_target(e->addresses.at[0].pool)->tls != op_endpoint_tls(e)) {
        TRY(op_addresses_renew(e));
    }
    bool due = e->addresses.count == 0 || net_loop_now_ns(loop_of(e)) >= e->resolve_ns;
    if (e->query != NULL || !due) {
        return OK;
    }
    struct net_addr addr;
    if (err_ok(net_addr_from_ip(slice_str(e->host), e->port, &addr))) {
        TRY(op_addresses_set(e, &addr, 1));
        e->resolve_ns = UINT64_MAX;
        return OK;
    }
    struct err err =
        net_dns_resolve(e->ups->host->dns, slice_str(e->host), e->port, resolved, e, &e->query);
    return e->addresses.count > 0 ? OK : err; /* those that are known serve on. */
}

/* ---- waits ---- */

/* An address that has no connection leaves the wait to the next one. */
static bool goes_on(struct op_endpoint *e, struct op_wait *wait, struct h2_conn **conn,
                    struct err *why)
{
    struct op_address *a = op_addresses_of(e, wait->asked);
    if (a != NULL && why->code == E_UPSTREAM_CONNECT) {
        e->unreached = h2_pool_why(a->pool);
    }
    if (a != NULL && (err_ok(*why) || why->code == E_UPSTREAM_CONNECT)) {
        op_address_report(a, err_ok(*why), net_loop_now_ns(loop_of(e)));
    }
    if (why->code != E_UPSTREAM_CONNECT) {
        return false;
    }
    struct err err = ask(e, wait, conn);
    *why = err_ok(err) ? OK : *why;
    return err_ok(err) && *conn == NULL;
}

static void pool_ready(struct h2_pool_wait *pool_wait, struct h2_conn *conn, struct err why)
{
    struct op_wait *wait = pool_wait->ctx;
    struct op_endpoint *e = wait->endpoint;
    CHECK(e != NULL);
    if (goes_on(e, wait, &conn, &why)) {
        return;
    }
    CHECK(wait_end(wait) == e);
    name_by(e, wait->asked);
    wait->ready(wait, conn, why);
    wait_let_go(e);
}

struct err op_wait_start(struct op_wait *wait, struct op_endpoint *endpoint, uint64_t timeout_ms,
                         struct h2_conn **out)
{
    CHECK(wait->endpoint == NULL);
    *out = NULL;
    wait->pool_wait = (struct h2_pool_wait){.ready = pool_ready, .ctx = wait};
    wait->until_ns = net_loop_now_ns(loop_of(endpoint)) + timeout_ms * 1000000;
    wait->asked = NULL;
    wait->asked_count = 0;
    struct err err = refresh(endpoint);
    if (!err_ok(err)) {
        endpoint->unreached = err;
        return err;
    }
    bool full = !wait->apart && op_breaker_is_open(endpoint->set, OP_BREAKER_PENDING);
    if (endpoint->addresses.count > 0) {
        TRY(ask(endpoint, wait, out));
        if (*out != NULL) {
            return OK;
        }
        if (full) {
            h2_pool_cancel(&wait->pool_wait);
        }
    }
    if (full) {
        return op_breaker_refuse(endpoint->set, OP_BREAKER_PENDING);
    }
    if (endpoint->addresses.count == 0) {
        line_add(endpoint, wait);
    }
    wait_begin(wait, endpoint);
    return OK;
}

void op_wait_cancel(struct op_wait *wait)
{
    if (wait->endpoint == NULL) {
        return;
    }
    if (wait->pool_wait.pool != NULL) {
        h2_pool_cancel(&wait->pool_wait);
    } else if (wait->at != NULL) {
        line_remove(wait);
    }
    wait_let_go(wait_end(wait));
}

/* ---- how it does ---- */

struct slice op_endpoint_why(const struct op_endpoint *endpoint)
{
    switch ((int)endpoint->unreached.code) {
    case E_UNAVAILABLE:
    case E_IO:
        return SLICE_LIT("the endpoint refuses connections");
    case E_TIMEOUT:
        return SLICE_LIT("the endpoint takes no connection in time");
    case E_UNAUTHENTICATED:
        return SLICE_LIT(
            "a certificate is not taken: the endpoint's, or the node's by the endpoint");
    case E_CRYPTO:
    case E_MALFORMED:
        return SLICE_LIT("the endpoint speaks no TLS, or not as the profile asks");
    case E_UNSUPPORTED:
        return SLICE_LIT("the endpoint does not agree on HTTP/2");
    case E_NOT_FOUND:
        return SLICE_LIT("the endpoint's name has no address");
    case E_UPSTREAM_CONNECT:
        return SLICE_LIT("the node has no certificate to call the endpoint with");
    case E_CLOSED:
        return SLICE_LIT("the endpoint ends connections at once");
    default: /* whatever else a connection may end with. */
        return SLICE_LIT("the endpoint takes no connection");
    }
}

static void reached_again(struct op_endpoint *endpoint)
{
    if (endpoint->failed_ms > 0) {
        LOG(LOG_INFO, "operator", "endpoint-reached", LOG_STR("endpoint", endpoint->text),
            LOG_SLICE("cluster", endpoint->set->cluster));
    }
    endpoint->failed_ms = 0;
    endpoint->failed_until_ns = 0;
}

void op_endpoint_report(struct op_endpoint *endpoint, bool reached)
{
    if (reached) {
        reached_again(endpoint);
        return;
    }
    uint64_t now_ns = net_loop_now_ns(loop_of(endpoint));
    if (endpoint->failed_until_ns > now_ns) {
        return; /* one failure, however many waited for the connection. */
    }
    if (endpoint->failed_ms == 0) {
        LOG(LOG_WARN, "operator", "endpoint-unreached", LOG_STR("endpoint", endpoint->text),
            LOG_SLICE("cluster", endpoint->set->cluster), LOG_ERR(endpoint->unreached),
            LOG_SLICE("why", op_endpoint_why(endpoint)));
    }
    uint32_t ms = endpoint->failed_ms == 0 ? FAILED_FIRST_MS : endpoint->failed_ms * 2;
    endpoint->failed_ms = ms > FAILED_MAX_MS ? FAILED_MAX_MS : ms;
    endpoint->failed_until_ns = now_ns + endpoint->failed_ms * 1000000ULL;
}

void op_attempt_begin(struct op_endpoint *endpoint)
{
    endpoint->refs++;
    endpoint->active++;
    endpoint->set->active++;
}

/* A caller could have any endpoint ejected by giving it no time. */
static bool is_callers_doing(const struct op_outcome *how)
{
    bool late = how->end == OP_END_TIMEOUT || how->grpc_status == GRPC_DEADLINE_EXCEEDED;
    return how->hurried && how->end != OP_END_FAILED && late;
}

static bool has_failed(const struct op_endpoint *e, const struct op_outcome *how)
{
    uint32_t statuses = e->set->outliers.statuses;
    uint32_t status = how->end == OP_END_TIMEOUT ? (uint32_t)GRPC_DEADLINE_EXCEEDED
                                                 : (uint32_t)how->grpc_status & 31;
    return how->end == OP_END_FAILED || (statuses >> status & 1) != 0;
}

/* What a failure took is no latency to choose an endpoint for. */
static void note_latency(struct op_endpoint *e, const struct op_outcome *how, bool failed)
{
    uint64_t now_ns = net_loop_now_ns(loop_of(e));
    double took = (double)(how->first_ns != 0 ? how->first_ns : how->took_ns);
    double mean = op_mean_now(&e->latency, now_ns);
    op_mean_add(&e->latency, now_ns, failed && took < mean ? mean : took);
}

void op_attempt_end(struct op_endpoint *endpoint, const struct op_outcome *how)
{
    struct op_set *set = endpoint->set;
    CHECK(endpoint->active > 0);
    CHECK(set->active > 0);
    endpoint->active--;
    set->active--;
    if (how->end == OP_END_ANSWERED) {
        op_endpoint_report(endpoint, /* reached: */ true);
    }
    if (how->end != OP_END_GIVEN_UP) {
        bool failed = has_failed(endpoint, how);
        if (set->measures) {
            note_latency(endpoint, how, failed);
        }
        if (!is_callers_doing(how)) {
            op_outlier_note(endpoint, failed);
        }
        op_sla_note(endpoint, how);
    }
    endpoint->refs--;
}
