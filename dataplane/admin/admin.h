/*
 * admin: what people, probes and Prometheus ask a node.
 *
 *     GET /health, /healthz   200: the process runs.
 *     GET /ready[?tenant=T]   200: it serves; 503 with reasons when not.
 *     GET /metrics            Prometheus text, or OpenMetrics where it is accepted.
 *     GET /dump               what the node does now, as JSON.
 *     GET /trace              the latest refusals; /trace/ID: one, and what decided it.
 *
 * Shape      a thread and a loop of its own: nothing here waits for a worker, or makes one wait.
 * Ownership  the configuration is borrowed until dp_admin_stop().
 * Threads    _start() and _stop(): the node's.
 * Errors     E_IO when the address cannot be had; UNAUTHENTICATED for /metrics, /dump and /trace
 *            without the token, where one is set.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"

struct bus;
struct dp_admin;
struct dp_apply;
struct dp_degraded;
struct dp_refusals;
struct dp_renewal;
struct metrics;
struct metrics_shard;

struct dp_admin_config {
    const char *address;
    int handed_fd;      /* listening there, taken with success; 0: it is to be listened on. */
    struct slice token; /* empty: none is asked for. */
    struct slice environment;
    struct slice node;
    struct slice labels; /* "name=value,…". */
    struct dp_apply *apply;
    struct dp_renewal *renewal;   /* NULL: the node did not join. */
    struct dp_degraded *degraded; /* services that miss their SLA; NULL: nobody knows. */
    struct bus *bus;              /* NULL: none. */
    struct metrics *metrics;
    struct metrics_shard *shard; /* the admin thread's own. */
    size_t worker_count;
    uint64_t (*worker_version)(void *ctx, size_t index);
    size_t (*worker_connections)(void *ctx, size_t index);
    const struct dp_refusals *(*worker_refusals)(void *ctx, size_t index);
    /* Before a scrape: brings what nobody counts on the way up to date, in the admin's shard. */
    void (*before_scrape)(void *ctx);
    void *ctx;
};

/* Listens and starts the thread. */
MUST_CHECK struct err dp_admin_start(const struct dp_admin_config *config, struct dp_admin **out);

/* The socket that it listens on, borrowed; -1 for NULL. */
int dp_admin_fd(const struct dp_admin *admin);

/* Ends the thread and frees. Accepts NULL. */
void dp_admin_stop(struct dp_admin *admin);
