/*
 * worker: one thread, its loop, and all that callers reach through it.
 *
 * Shape      a loop; a pool of requests; the state of each lane; a listener a port; the mailbox
 *            that models come by. It shares nothing that it writes, but for rate cells.
 * Ownership  the node owns its workers; a worker owns everything in it. The configuration is
 *            borrowed, and the same for all workers.
 * Threads    dp_worker_init() and _free(): the node's, while the thread does not run. The calls
 *            that say so: any thread. All else is the worker's own.
 * Errors     E_NO_MEMORY, E_IO, and what a lane's start() says.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/lock.h"
#include "common/net/addr.h"
#include "common/net/flood.h"
#include "common/net/h2.h"
#include "common/net/loop.h"
#include "common/net/timer.h"
#include "common/telemetry/metrics.h"
#include "dataplane/request/issuer_keys.h"
#include "dataplane/request/lane.h"
#include "dataplane/request/request.h"
#include "dataplane/runtime/mailbox.h"
#include "dataplane/runtime/peers.h"
#include "dataplane/runtime/port.h"

struct board;
struct dp_degraded;
struct bus;
struct dp_access_writer;
struct dp_health_watch;
struct dp_spread;

/* TLS contexts of one worker; NULL: not configured. */
struct dp_worker_tls {
    struct net_tls *server;
    struct net_tls *proxy;       /* of the proxy port: HTTP/1.1 alone. */
    struct net_tls *client;      /* towards upstreams, without a certificate of ours. */
    struct net_tls *client_cert; /* with the node's certificate. */
};

void dp_worker_tls_unref(struct dp_worker_tls *tls);

/* What all workers stand on. Borrowed; unchanged while a worker lives, but for what is atomic. */
struct dp_worker_config {
    const struct dp_lane *lanes[DP_LANE_COUNT]; /* NULL: this node has no such lane. */
    int port_fds[DP_PORT_COUNT];                /* listening; -1: not open. */
    size_t worker_count;
    struct dp_limit_table *limits;
    struct dp_access_writer *access;
    struct metrics *metrics;
    struct dp_spread *spread;     /* of as many workers. */
    struct board *board;          /* of the health of endpoints; NULL: each worker has its own. */
    struct dp_degraded *degraded; /* services that miss their SLA; NULL: nobody asks. */
    uint32_t bus_replicas;
    struct bus *bus; /* NULL: none. */
    struct slice environment;
    const char *dns_servers;                    /* NULL: the system's. */
    struct net_addr listens[DP_PORT_COUNT + 1]; /* of the ports and the admin. */
    size_t listen_count;
    bool pin;        /* worker i stays on the i-th core that this process may use. */
    int policy;      /* the scheduling policy of the workers' threads. */
    bool ports_wait; /* nobody is accepted before there is a model: another process serves. */
    _Atomic bool sockets_go_on; /* a drain leaves the sockets to another process. */
    /* A model was adopted: the apply thread wants to know. On the worker's thread, at the end of
     * its turn. */
    void (*adopted)(void *ctx);
    /* Nobody is connected any more, after dp_worker_drain(). On the worker's thread. */
    void (*drained)(void *ctx);
    void *ctx;
};

struct dp_worker {
    const struct dp_worker_config *config;
    size_t index;
    pthread_t thread;
    struct net_loop *loop;
    struct h2_env *h2;
    struct net_dns *dns;
    struct dp_worker_tls tls;
    struct metrics_shard *shard;
    struct dp_request_metrics *metrics;
    struct dp_access_log *access;
    struct dp_refusals *refusals;          /* read by the admin's thread, too. */
    char early_id[DP_REFUSAL_ID_SIZE + 1]; /* of the latest one of early.c. */
    struct dp_request_pool pool;
    struct dp_lane_host host;
    struct dp_mailbox mailbox;
    struct dp_keys_mail keys_mail; /* issuers' keys that wait for the next tick. */
    struct dp_port ports[DP_PORT_COUNT];
    struct dp_caller_conn *callers;
    size_t caller_count;
    struct dp_peers peers;
    struct {
        struct arena arena;
        const struct slice *at; /* "service/<tenant>/<name>", in the arena. */
        size_t count;
        uint32_t edition;            /* of the node's, that this was copied from. */
    } degraded;                      /* services that miss their SLA, as of the last tick. */
    struct dp_health_watch *watches; /* open calls of grpc.health.v1's Watch. */
    size_t watch_count;
    struct net_hook tell;                       /* queued by an adopted model: config->adopted(). */
    struct h2_counters counted;                 /* what was added to the metrics so far. */
    uint64_t rests_counted;                     /* of all listeners, likewise. */
    uint64_t floods_counted[NET_FLOOD_COUNT];   /* of the loop, likewise. */
    uint64_t trips_counted[DP_GUARD_WHY_COUNT]; /* of the policy's kill switch, likewise. */
    bool guard_thrown;                          /* when it was looked at last. */
    struct net_timer tick;                      /* hands over access-log lines, sets gauges. */
    struct net_task drain_task;
    struct net_task abort_task;
    struct net_task close_task; /* posted by the abort. */
    struct {
        struct lock lock;
        struct dp_worker_tls tls GUARDED; /* waits to be taken into use. */
        bool tls_waits GUARDED;
    } reload;
    struct net_task reload_task;
    bool lane_started[DP_LANE_COUNT];
    bool running;       /* the thread was started. */
    bool pool_ready;    /* 'pool' is to be freed. */
    bool mailbox_ready; /* 'mailbox' is to be freed. */
    bool tls_only;      /* the model in force takes no cleartext. */
    bool draining;
    bool drained_told; /* config->drained() was called. */
};

/* Makes the loop and all that stands on it; takes *tls. dp_worker_free() also after a failure. */
MUST_CHECK struct err dp_worker_init(struct dp_worker *w, const struct dp_worker_config *config,
                                     size_t index, struct dp_worker_tls *tls);

/* The thread has ended. Safe on a zeroed one. */
void dp_worker_free(struct dp_worker *w);

/* Starts the thread, and listens. */
MUST_CHECK struct err dp_worker_start(struct dp_worker *w);

/* Ends the loop and joins the thread. */
void dp_worker_join(struct dp_worker *w);

/* ---- any thread ---- */

/* Accepts no more, lets every connection end in good order; config->drained() is called then. With
 * config->sockets_go_on those that were accepted but have said nothing yet are served first. */
void dp_worker_drain(struct dp_worker *w);

/* Ends every request and connection that is left. */
void dp_worker_abort(struct dp_worker *w);

/* New connections use these from now on; takes *tls. */
void dp_worker_reload(struct dp_worker *w, struct dp_worker_tls *tls);

/* ---- for the worker's own rooms ---- */

/* A connection has ended: the drain may be over. */
void dp_worker_caller_gone(struct dp_worker *w);

/* Counts connections that were not taken; 'why' is what the node is out of. */
void dp_worker_count_refused(struct dp_worker *w, const char *why, uint64_t count);
