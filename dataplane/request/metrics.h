/*
 * metrics: every metric of a node, one row each, and the ones of a request.
 *
 * Shape      DP_METRICS is the table: docs/metrics.md is made from it. struct dp_request_metrics is
 *            a worker's way to its shard, with a memo of the series that its requests use.
 * Units      in the name; latencies are recorded in microseconds and shown in milliseconds.
 * Ownership  dp_request_metrics borrows the set.
 * Threads    the table: any. dp_request_metrics: its worker.
 * Source     NAMES: "Metrics"; Prometheus' naming rules.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/telemetry/metrics.h"
#include "dataplane/request/limit.h"

struct dp_request;
struct dp_request_pool;
struct dp_verdict;

/* id, name, kind, series at most, scale, help, labels (NULL for none) */
#define DP_METRICS(X)                                                                              \
    X(RPC_LATENCY, "gw_rpc_latency_ms", HISTOGRAM, 1024, 0.001,                                    \
      "Calls through the operator lane, from the head to the end of the answer.", "op", "caller",  \
      "target")                                                                                    \
    X(REQUESTS, "trilane_requests_total", COUNTER, 512, 0,                                         \
      "Requests that are over, by lane and code.", "lane", "code", NULL)                           \
    X(REQUESTS_EARLY, "trilane_requests_refused_early_total", COUNTER, 64, 0,                      \
      "Requests refused before they were a lane's: broken, or not for this port.", "protocol",     \
      "code", NULL)                                                                                \
    X(REQUESTS_OPEN, "trilane_requests_open", GAUGE, 0, 0, "Requests in flight.", NULL, NULL,      \
      NULL)                                                                                        \
    X(REQUEST_TURN, "trilane_request_turn_seconds", HISTOGRAM, 0, 0.000000001,                     \
      "What a request takes of a worker's loop from its head until it is handed on; of one in "    \
      "256.",                                                                                      \
      NULL, NULL, NULL)                                                                            \
    X(REQUEST_TURN_CPU, "trilane_request_turn_cpu_seconds", HISTOGRAM, 0, 0.000000001,             \
      "What the worker itself had of a core for these.", NULL, NULL, NULL)                         \
    X(QUEUE_DELAY, "trilane_queue_delay_seconds", HISTOGRAM, 0, 0.000000001,                       \
      "How long requests waited for their turn at a worker, at most.", NULL, NULL, NULL)           \
    X(REQUEST_BYTES, "trilane_request_bytes_total", COUNTER, 8, 0,                                 \
      "Bytes of bodies from callers.", "lane", NULL, NULL)                                         \
    X(RESPONSE_BYTES, "trilane_response_bytes_total", COUNTER, 8, 0,                               \
      "Bytes of bodies to callers.", "lane", NULL, NULL)                                           \
    X(DECISIONS, "trilane_policy_decisions_total", COUNTER, 8, 0,                                  \
      "Policy decisions, by whether the cache had them.", "cached", NULL, NULL)                    \
    X(DECISION_HIT_RATIO, "policy_decision_cache_hit_ratio", GAUGE, 0, 0.000001,                   \
      "Share of policy decisions that the cache had, since start.", NULL, NULL, NULL)              \
    X(TOKEN_CHECKS, "trilane_token_checks_total", COUNTER, 32, 0,                                  \
      "JSON Web Tokens that were not known yet, and those that are good no more, by outcome.",     \
      "outcome", NULL, NULL)                                                                       \
    X(ISSUER_READS, "trilane_issuer_keys_reads_total", COUNTER, 256, 0,                            \
      "Readings of an issuer's keys, by what came of them.", "issuer", "outcome", NULL)            \
    X(ISSUER_AGE, "trilane_issuer_keys_age_seconds", GAUGE, 64, 0.001,                             \
      "Since an issuer's keys were read; -0.001: never.", "issuer", NULL, NULL)                    \
    X(LIMIT_REFUSALS, "trilane_limit_refusals_total", COUNTER, 512, 0,                             \
      "Requests that a limit refused, by what was used up or missing.", "limit", "why", NULL)      \
    X(LIMIT_LEFT, "trilane_limit_left_ratio", GAUGE, 512, 0.001,                                   \
      "Least that was left of a budget of the limit in the last 10 to 20 s; 1: all.", "limit",     \
      NULL, NULL)                                                                                  \
    X(SHARES, "trilane_shares_total", COUNTER, 4, 0,                                               \
      "Shares of the fleet's budgets that came, by what became of them.", "outcome", NULL, NULL)   \
    X(LIMIT_CROWDED, "trilane_limit_crowded_total", COUNTER, 0, 0,                                 \
      "Keys of limits that found no cell of their own and were counted with others: raise "        \
      "rate-cells; or, of the fleet's limits, no share of their own.",                             \
      NULL, NULL, NULL)                                                                            \
    X(DECISION_TIME, "trilane_policy_decision_seconds", HISTOGRAM, 0, 0.000000001,                 \
      "What a policy decision takes, cached or not; of one in 256.", NULL, NULL, NULL)             \
    X(SHADOW, "trilane_policy_shadow_total", COUNTER, 8, 0,                                        \
      "Decisions that shadow rules would have turned, by what they would do.", "would", NULL,      \
      NULL)                                                                                        \
    X(GUARD_OPEN, "trilane_policy_guard_thrown", GAUGE, 0, 0,                                      \
      "Workers whose kill switch is thrown: alert above 0.", NULL, NULL, NULL)                     \
    X(GUARD_TRIPS, "trilane_policy_guard_trips_total", COUNTER, 4, 0,                              \
      "How often the kill switch was thrown, by why.", "why", NULL, NULL)                          \
    X(GUARD_DECISIONS, "trilane_policy_guard_decisions_total", COUNTER, 4, 0,                      \
      "Decisions of the fast path, by verdict.", "allow", NULL, NULL)                              \
    X(REDECIDED, "trilane_requests_redecided_total", COUNTER, 8, 0,                                \
      "Open requests decided anew after a swap, by outcome.", "outcome", NULL, NULL)               \
    X(ATTEMPTS, "trilane_attempts_total", COUNTER, 512, 0,                                         \
      "Attempts of calls beyond the first, by why; hedge-won: those whose answer the caller got.", \
      "target", "kind", NULL)                                                                      \
    X(ATTEMPTS_DENIED, "trilane_attempts_denied_total", COUNTER, 512, 0,                           \
      "Attempts that were not made, by what there was none left of.", "target", "why", NULL)       \
    X(REPLAYS, "trilane_replays_total", COUNTER, 0, 0,                                             \
      "Requests sent again because the upstream did nothing with them.", NULL, NULL, NULL)         \
    X(MIRRORED, "trilane_mirrored_total", COUNTER, 512, 0,                                         \
      "Requests chosen for a shadow, by what came of it.", "target", "outcome", NULL)              \
    X(MIRROR_LATENCY, "trilane_mirror_latency_ms", HISTOGRAM, 64, 0.001,                           \
      "Of mirrored calls that both sides answered, by side.", "target", "side", NULL)              \
    X(BUS_PUBLISH_LATENCY, "bus_publish_latency_ms", HISTOGRAM, 256, 0.001,                        \
      "From a publish request to JetStream's ack.", "topic", NULL, NULL)                           \
    X(BUS_CONSUME_LATENCY, "bus_consume_latency_ms", HISTOGRAM, 256, 0.001,                        \
      "From an event's time to its delivery to the subscriber.", "topic", NULL, NULL)              \
    X(BUS_DELIVERIES, "trilane_bus_deliveries_total", COUNTER, 512, 0,                             \
      "Deliveries to subscribers, by what became of them.", "topic", "outcome", NULL)              \
    X(BUS_SUBSCRIPTIONS, "trilane_bus_subscriptions", GAUGE, 0, 0, "Open subscriptions.", NULL,    \
      NULL, NULL)                                                                                  \
    X(PROXY_LATENCY, "proxy_upstream_latency_ms", HISTOGRAM, 256, 0.001,                           \
      "From the dial to the end of the answer.", "domain", NULL, NULL)                             \
    X(PROXY_TUNNELS, "trilane_proxy_tunnels", GAUGE, 0, 0, "Open CONNECT tunnels.", NULL, NULL,    \
      NULL)                                                                                        \
    X(UPSTREAM_CONNECTIONS, "trilane_upstream_connections", GAUGE, 0, 0,                           \
      "Open connections to the endpoints of services.", NULL, NULL, NULL)                          \
    X(UPSTREAM_EJECTIONS, "trilane_upstream_ejections_total", COUNTER, 512, 0,                     \
      "Endpoints that a worker ejected, by what for.", "cluster", "why", NULL)                     \
    X(UPSTREAM_ENDPOINTS_OUT, "trilane_upstream_endpoints_out", GAUGE, 512, 0,                     \
      "Endpoints that get no calls, or fewer than their share, summed over workers.", "cluster",   \
      "why", NULL)                                                                                 \
    X(SERVICES_DEGRADED, "trilane_services_degraded", GAUGE, 0, 0,                                 \
      "Services of which an endpoint misses its SLA, as some worker finds.", NULL, NULL, NULL)     \
    X(UPSTREAM_PROBES, "trilane_upstream_health_checks_total", COUNTER, 512, 0,                    \
      "Probes of endpoints, by what came of them.", "cluster", "outcome", NULL)                    \
    X(UPSTREAM_PANICS, "trilane_upstream_panic_picks_total", COUNTER, 256, 0,                      \
      "Picks among all endpoints because too few are well.", "cluster", NULL, NULL)                \
    X(UPSTREAM_BROKEN, "trilane_upstream_circuit_breaks_total", COUNTER, 512, 0,                   \
      "Calls that a circuit breaker refused.", "cluster", "breaker", NULL)                         \
    X(CONNECTIONS, "trilane_connections", GAUGE, 0, 0, "Connections of callers.", NULL, NULL,      \
      NULL)                                                                                        \
    X(CONNECTIONS_REFUSED, "trilane_connections_refused_total", COUNTER, 8, 0,                     \
      "Connections reset for want of room, and pauses of accepting, by what the node is out of.",  \
      "why", NULL, NULL)                                                                           \
    X(CONNECTIONS_ENDED, "trilane_connections_ended_total", COUNTER, 8, 0,                         \
      "Callers' connections ended because their peer was revoked or is trusted no more, by code.", \
      "code", NULL, NULL)                                                                          \
    X(FLOODS, "trilane_connections_flooded_total", COUNTER, 16, 0,                                 \
      "Connections closed for a flood, for slowness or for silence, by kind: docs/floods.md.",     \
      "kind", NULL, NULL)                                                                          \
    X(STREAMS_UNREAD, "trilane_streams_unread_total", COUNTER, 0, 0,                               \
      "Streams reset because the rest of a whole answer was not read.", NULL, NULL, NULL)          \
    X(CONNECTIONS_AGED, "trilane_connections_aged_total", COUNTER, 0, 0,                           \
      "Callers' connections told to leave because they reached connection-max-age-ms.", NULL,      \
      NULL, NULL)                                                                                  \
    X(UPSTREAM_AGED, "trilane_upstream_connections_aged_total", COUNTER, 0, 0,                     \
      "Connections to upstreams that take no more requests because they reached their age.", NULL, \
      NULL, NULL)                                                                                  \
    X(HEADERS_TOO_LARGE, "trilane_headers_too_large_total", COUNTER, 0, 0,                         \
      "Requests with too many or too large headers.", NULL, NULL, NULL)                            \
    X(SNAPSHOT_VERSION, "trilane_snapshot_version", GAUGE, 0, 0,                                   \
      "Version of the snapshot that every worker serves; 0: none.", NULL, NULL, NULL)              \
    X(SNAPSHOT_STATE, "trilane_snapshot_state", GAUGE, 16, 0,                                      \
      "1 for the state that the node is in.", "state", NULL, NULL)                                 \
    X(SNAPSHOT_REFUSALS, "trilane_snapshot_refusals_total", COUNTER, 64, 0,                        \
      "Heads and snapshots that were refused, by code.", "code", NULL, NULL)                       \
    X(SNAPSHOT_APPLIES, "trilane_snapshot_applies_total", COUNTER, 0, 0, "Snapshots applied.",     \
      NULL, NULL, NULL)                                                                            \
    X(SNAPSHOT_APPLY, "trilane_snapshot_apply_seconds", HISTOGRAM, 0, 0.000001,                    \
      "From the accepted head to the last worker's swap.", NULL, NULL, NULL)                       \
    X(SNAPSHOT_TURN, "trilane_snapshot_turn_seconds", HISTOGRAM, 0, 0.000000001,                   \
      "Turns of a worker's loop spent on a swap: adopting it, deciding open requests anew.", NULL, \
      NULL, NULL)                                                                                  \
    X(SNAPSHOT_TURN_CPU, "trilane_snapshot_turn_cpu_seconds", HISTOGRAM, 0, 0.000000001,           \
      "What the worker itself had of a core in those turns.", NULL, NULL, NULL)                    \
    X(SNAPSHOT_FETCHED, "trilane_snapshot_fetched_bytes_total", COUNTER, 0, 0,                     \
      "Bytes of manifests and chunks fetched.", NULL, NULL, NULL)                                  \
    X(SNAPSHOT_LIVE, "trilane_snapshots_live", GAUGE, 0, 0, "Snapshots in memory.", NULL, NULL,    \
      NULL)                                                                                        \
    X(HEADS, "trilane_heads_total", COUNTER, 8, 0,                                                 \
      "Heads accepted, by how they came; late: hints that a poll had overtaken, and polls behind " \
      "them.",                                                                                     \
      "way", NULL, NULL)                                                                           \
    X(CONTACT_AGE, "trilane_head_contact_age_seconds", GAUGE, 0, 0.001,                            \
      "Since the last head was accepted; -0.001: never.", NULL, NULL, NULL)                        \
    X(CONTENT_AGE, "trilane_head_content_age_seconds", GAUGE, 0, 0.001,                            \
      "Since a head named the version served; -0.001: never.", NULL, NULL, NULL)                   \
    X(BUS_CONNECTED, "trilane_bus_connected", GAUGE, 0, 0, "1 while connected to NATS.", NULL,     \
      NULL, NULL)                                                                                  \
    X(BUS_RECONNECTS, "trilane_bus_reconnects_total", COUNTER, 0, 0, "Reconnects to NATS.", NULL,  \
      NULL, NULL)                                                                                  \
    X(CERT_EXPIRES, "trilane_certificate_expires_seconds", GAUGE, 2, 0,                            \
      "Until the node's certificate ends; below zero: it has ended.", "certificate", NULL, NULL)   \
    X(CERT_RENEWALS, "trilane_certificate_renewals_total", COUNTER, 32, 0,                         \
      "Renewals of a joined node's certificate, by what came of them.", "outcome", NULL, NULL)     \
    X(LOG_DROPPED, "trilane_log_dropped_total", COUNTER, 4, 0, "Lines of log that were dropped.",  \
      "log", NULL, NULL)                                                                           \
    X(BUILD_INFO, "trilane_build_info", GAUGE, 1, 0, "1, of the program that runs.", "version",    \
      "commit", NULL)                                                                              \
    X(PROCESS_CPU, "process_cpu_seconds_total", COUNTER, 0, 0.000001, "CPU of all threads.", NULL, \
      NULL, NULL)                                                                                  \
    X(PROCESS_RESIDENT, "process_resident_memory_bytes", GAUGE, 0, 0, "Memory that is resident.",  \
      NULL, NULL, NULL)                                                                            \
    X(PROCESS_VIRTUAL, "process_virtual_memory_bytes", GAUGE, 0, 0, "Memory that is mapped.",      \
      NULL, NULL, NULL)                                                                            \
    X(PROCESS_FILES, "process_open_fds", GAUGE, 0, 0, "Open files and sockets.", NULL, NULL, NULL) \
    X(PROCESS_FILES_MAX, "process_max_fds", GAUGE, 0, 0, "How many there may be.", NULL, NULL,     \
      NULL)                                                                                        \
    X(PROCESS_START, "process_start_time_seconds", GAUGE, 0, 0,                                    \
      "When the process began, since the epoch.", NULL, NULL, NULL)

enum dp_metric {
#define X(id, name, kind, series, scale, help, ...) DP_METRIC_##id,
    DP_METRICS(X)
#undef X
        DP_METRIC_COUNT
};

extern const struct metrics_family dp_metric_families[DP_METRIC_COUNT];

struct dp_request_metrics;

/* A worker's view of shard 'shard'. The pool is read for its open requests. E_NO_MEMORY. */
MUST_CHECK struct err dp_request_metrics_new(struct metrics *metrics, struct metrics_shard *shard,
                                             struct dp_request_metrics **out);
void dp_request_metrics_free(struct dp_request_metrics *m);

/* Counts a request that is over. */
void dp_request_metrics_add(struct dp_request_metrics *m, const struct dp_request *rq);

/* Forgets the series of callers and targets: after every swap. */
void dp_request_metrics_clear(struct dp_request_metrics *m);

/* When a turn began: by the clock, and by what the worker had of a core. */
struct dp_metrics_turn {
    uint64_t mono_ns;
    uint64_t thread_ns;
};

/* Around what a turn of the loop spends on a swap; both on the worker's thread. */
struct dp_metrics_turn dp_request_metrics_turn_begin(void);
void dp_request_metrics_turn_end(struct dp_request_metrics *m, const struct dp_metrics_turn *turn);

/* Whether the request that begins now is one of those that are timed; and the end of its turn. */
bool dp_request_metrics_times(struct dp_request_metrics *m);
void dp_request_metrics_took(struct dp_request_metrics *m, const struct dp_metrics_turn *turn);

/* Whether the decision that comes now is one of those that are timed. */
bool dp_request_metrics_times_decision(struct dp_request_metrics *m);

/* Open requests moved by 'by'; a decision was made, in 'took_ns' (0: it was not timed); an open
 * request was decided anew. */
void dp_request_metrics_open(struct dp_request_metrics *m, int by);
void dp_request_metrics_decision(struct dp_request_metrics *m, const struct dp_verdict *verdict,
                                 uint64_t took_ns);
void dp_request_metrics_redecided(struct dp_request_metrics *m, bool goes_on);

/* How long a request waited until its worker looked at it. */
void dp_request_metrics_waited(struct dp_request_metrics *m, uint64_t delay_ns);

/* A limit refused a request. */
void dp_request_metrics_limited(struct dp_request_metrics *m, struct slice limit,
                                enum dp_limit_why why);

/* The set and the shard, for a lane's own metrics. */
struct metrics *dp_request_metrics_set(struct dp_request_metrics *m);
struct metrics_shard *dp_request_metrics_shard(struct dp_request_metrics *m);

/* Before a scrape, on the thread that owns 'shard': what is derived from other metrics. */
void dp_metrics_derive(struct metrics *metrics, struct metrics_shard *shard);
