/*
 * limits: every bound of the two programs, one row each.
 *
 * Shape      one uint64_t a row, read-only after boot.
 * Units      in the row; the name ends in it where it is not a count.
 * Threads    written once by settings_load(), before any thread starts; read from anywhere.
 * Errors     none here; whoever meets a bound returns E_TOO_LARGE or its own code.
 * Source     docs/limits.md is made from LIMITS_LIST. Each row is a setting, too: flag
 *            --request-body-bytes, TRILANE_REQUEST_BODY_BYTES, a line of --config FILE.
 */
#pragma once

#include <stdint.h>

/* name, default, min, max, unit, why */
#define LIMITS_LIST(X)                                                                             \
    /* base */                                                                                     \
    X(log_lines_per_second, 1000, 1, 1000000, "lines", "a module's lines of log; errors are free") \
    /* sources */                                                                                  \
    X(source_file_bytes, 16 << 20, 1 << 10, 256 << 20, "bytes", "one YAML file")                   \
    X(source_total_bytes, 64 << 20, 1 << 10, 512 << 20, "bytes", "all sources of one publish")     \
    X(source_depth, 32, 4, 128, "levels", "nesting of a YAML document")                            \
    X(source_nodes, 4000000, 100, 100000000, "nodes",                                              \
      "YAML nodes of one load, aliases counted anew")                                              \
    X(source_cache_bytes, 256 << 20, 0, 16ULL << 30, "bytes",                                      \
      "decoded files that a thread of the control plane keeps; what is made of them apart")        \
    X(source_diagnostics, 200, 1, 10000, "diagnostics", "errors shown of one load")                \
    X(policy_nodes, 200000, 16, 4000000, "nodes", "decision graphs of one target, together")       \
    /* snapshot: the format's own bounds are in common/snapshot/format.h */                        \
    X(head_interval_ms, 2000, 50, 20000, "ms", "how often the leader signs the head anew")         \
    X(head_validity_ms, 15000, 200, 60000, "ms", "how long a head may move a node")                \
    X(poll_interval_ms, 10000, 50, 60000, "ms", "how often a node reads the head from KV, +-20 %") \
    X(hints_per_second, 10, 1, 1000, "heads", "hints that a node verifies")                        \
    X(clock_tolerance_ms, 30000, 0, 600000, "ms", "wall clocks may differ by this")                \
    X(stale_after_ms, 30000, 500, 86400000, "ms", "without a fresh head a node says STALE")        \
    X(good_after_ms, 10000, 10, 600000, "ms",                                                      \
      "an applied snapshot is GOOD when it lived this long")                                       \
    X(fetch_timeout_ms, 5000, 50, 60000, "ms", "one read of manifest, chunk or root")              \
    X(content_push_bytes, 256 << 10, 0, 8 << 20, "bytes",                                          \
      "what a version adds is sent beside the hint up to this; 0: never")                          \
    X(status_interval_ms, 10000, 50, 60000, "ms", "a node's status heartbeat, +-20 %")             \
    X(status_rest_ms, 250, 0, 60000, "ms",                                                         \
      "least time between two statuses of a node, however often it changes")                       \
    X(live_snapshots, 8, 2, 64, "snapshots", "snapshots in memory at once, pinned ones counted")   \
    /* node */                                                                                     \
    X(workers, 0, 0, 256, "threads", "workers of a node; 0 is one a core")                         \
    X(turn_pause_us, 0, 0, 2000, "us",                                                             \
      "least time between two turns of a worker with work: CPU saved for latency; 0: none")        \
    X(busy_pause_us, 200, 0, 2000, "us",                                                           \
      "what a worker that is busy for three fifths of its time leaves between two turns at most")  \
    X(connections, 20000, 16, 1000000, "connections", "callers' connections of a node")            \
    X(connections_per_address, 0, 0, 1000000, "connections",                                       \
      "callers' connections from one address, or /64 of IPv6; 0: any number; NAT is one address")  \
    X(streams_per_connection, 256, 1, 10000, "streams",                                            \
      "concurrent HTTP/2 streams of a caller's connection")                                        \
    X(requests, 20000, 16, 1000000, "requests", "requests in flight on a worker")                  \
    X(request_arena_bytes, 256 << 10, 16 << 10, 16 << 20, "bytes",                                 \
      "memory of one request, bodies apart")                                                       \
    X(request_header_bytes, 32 << 10, 1 << 10, 1 << 20, "bytes",                                   \
      "header bytes of a request, 32 a field added")                                               \
    X(request_header_fields, 128, 16, 1024, "fields",                                              \
      "header fields of a request, cookie crumbs counted")                                         \
    X(request_body_bytes, 4 << 20, 1 << 10, 1 << 30, "bytes",                                      \
      "one gRPC message, or one HTTP body that is held")                                           \
    X(stream_window_bytes, 256 << 10, 65535, 16 << 20, "bytes", "HTTP/2 window of a new stream")   \
    X(stream_window_max_bytes, 1 << 20, 65535, 16 << 20, "bytes",                                  \
      "what it grows to with use; never above stream-buffer-bytes")                                \
    X(connection_window_bytes, 1 << 20, 65535, 64 << 20, "bytes",                                  \
      "HTTP/2 window of a new connection")                                                         \
    X(connection_window_max_bytes, 8 << 20, 65535, 64 << 20, "bytes", "what it grows to with use") \
    X(stream_buffer_bytes, 1 << 20, 64 << 10, 16 << 20, "bytes",                                   \
      "bytes that wait for a slow reader of a stream")                                             \
    X(connection_held_bytes, 16 << 20, 64 << 10, 1 << 30, "bytes",                                 \
      "received bytes of a connection's streams that wait for the other side")                     \
    X(output_buffer_bytes, 1 << 20, 64 << 10, 64 << 20, "bytes",                                   \
      "bytes that wait for a slow peer of a connection")                                           \
    X(control_frames_per_second, 1000, 10, 1000000, "frames",                                      \
      "PING, SETTINGS, RST, PRIORITY, WINDOW_UPDATE and empty DATA of a connection")               \
    X(resets_per_second, 200, 10, 1000000, "streams",                                              \
      "streams that a connection resets, or makes us reset")                                       \
    X(handshake_timeout_ms, 15000, 100, 60000, "ms",                                               \
      "TLS handshake and first bytes; gRPC's core may let 5 s pass between its polls")             \
    X(header_timeout_ms, 10000, 100, 120000, "ms",                                                 \
      "from the first to the last byte of a head, or of a frame that is no body")                  \
    X(idle_timeout_ms, 300000, 1000, 86400000, "ms", "a connection without a request")             \
    X(write_timeout_ms, 60000, 100, 86400000, "ms",                                                \
      "output of which its reader takes nothing: a connection's, or the rest of an answer")        \
    X(connection_max_age_ms, 0, 0, 604800000, "ms",                                                \
      "a caller's connection that is so old, +-10 %, is told to leave; 0: never")                  \
    X(connection_grace_ms, 0, 0, 604800000, "ms",                                                  \
      "how long its open requests may go on then; 0: as long as they last")                        \
    X(deadline_default_ms, 15000, 1, 3600000, "ms",                                                \
      "a call without a deadline, when no profile says")                                           \
    X(connect_timeout_ms, 2000, 10, 60000, "ms", "a new connection to an upstream")                \
    X(upstream_connections, 64, 1, 4096, "connections", "connections of a worker to one endpoint") \
    X(upstream_streams, 100, 1, 10000, "streams", "streams on one upstream connection")            \
    X(upstream_pending, 1024, 1, 100000, "requests",                                               \
      "requests that wait for an upstream connection")                                             \
    X(upstream_probe_after_ms, 10000, 10, 3600000, "ms",                                           \
      "an upstream connection that was silent so long is asked before reuse")                      \
    X(upstream_probe_ms, 1000, 10, 60000, "ms", "how long it may take to answer")                  \
    X(replay_bytes, 64 << 10, 0, 1 << 20, "bytes",                                                 \
      "a request that is kept until its answer begins, to be sent again when nobody saw it")       \
    X(mirrored_calls, 128, 0, 100000, "calls",                                                     \
      "copies of calls under way to shadows, on a worker")                                         \
    X(mirror_after_ms, 10000, 1, 3600000, "ms",                                                    \
      "a copy of a call to a shadow, from the end of the call")                                    \
    X(upstream_idle_ms, 60000, 100, 3600000, "ms", "an upstream connection without a request")     \
    X(upstream_max_age_ms, 0, 0, 604800000, "ms",                                                  \
      "an upstream connection that is so old, +-10 %, takes no more requests; 0: never")           \
    X(decision_cache_entries, 8192, 16, 1 << 22, "decisions", "decision cache of a worker")        \
    X(decision_ttl_ms, 60000, 0, 3600000, "ms", "how long a decision is reused")                   \
    X(token_entries, 4096, 16, 1 << 20, "tokens",                                                  \
      "JSON Web Tokens of a worker that were verified and are remembered")                         \
    X(token_check_percent, 25, 1, 100, "%",                                                        \
      "of a worker's time for tokens that are not known yet")                                      \
    X(token_failures_per_second, 10, 1, 1000000, "tokens",                                         \
      "wrong tokens of a connection that are looked at")                                           \
    X(token_address_failures_per_second, 50, 1, 1000000, "tokens",                                 \
      "wrong tokens of an address (IPv6: of its /64) that a worker looks at")                      \
    X(issuer_rest_ms, 10000, 10, 3600000, "ms",                                                    \
      "an issuer's keys are not read anew within this for a key that is missed")                   \
    X(issuer_timeout_ms, 5000, 50, 60000, "ms", "one reading of an issuer's keys")                 \
    X(rate_cells, 65536, 64, 1 << 24, "cells", "rate-limit cells of a node")                       \
    X(health_cells, 65536, 64, 1 << 24, "cells",                                                   \
      "endpoints whose health the workers of a node share")                                        \
    X(explain_entries, 4096, 0, 1 << 20, "refusals",                                               \
      "refusals of the last hour that a worker keeps, 1 KiB each, to explain them; 0: none")       \
    X(quota_cells, 16384, 64, 1 << 20, "cells",                                                    \
      "keys of quotas that a node counts; each stays until its hour, day or month is over")        \
    X(graceful_timeout_ms, 30000, 0, 600000, "ms", "drain: how long open requests may go on")      \
    X(shutdown_timeout_ms, 35000, 100, 900000, "ms",                                               \
      "drain: after this the process ends, exit code 6")                                           \
    X(handover_timeout_ms, 30000, 100, 600000, "ms",                                               \
      "SIGUSR2: how long the new process may take until it serves; then the old one goes on")      \
    X(loop_tasks, 65536, 64, 1 << 24, "tasks", "what other threads have posted to one loop")       \
    /* canonical lane */                                                                           \
    X(envelope_bytes, 900 << 10, 1 << 10, 7 << 20, "bytes",                                        \
      "one envelope; NATS' max_payload is 1 MiB")                                                  \
    X(envelope_headers, 64, 1, 1024, "entries", "entries of an envelope's map")                    \
    X(publish_inflight, 4096, 1, 1 << 20, "messages", "publishes without JetStream's ack")         \
    X(publish_window, 512, 1, 65536, "envelopes", "envelopes of one Publish without an answer")    \
    X(publish_timeout_ms, 5000, 50, 60000, "ms", "from a publish to JetStream's ack")              \
    X(ack_wait_ms, 30000, 100, 3600000, "ms", "a delivery without an ack comes again")             \
    X(max_deliver, 10, 1, 10000, "deliveries", "deliveries of one message")                        \
    X(subscription_credit, 1024, 1, 100000, "messages", "unacked messages of one subscription")    \
    X(bus_queue, 8192, 16, 1 << 20, "messages", "queue between a bus thread and a worker")         \
    X(bus_inbox_bytes, 64 << 20, 1 << 20, 1 << 30, "bytes",                                        \
      "messages that wait in the bus client")                                                      \
    X(stream_max_bytes, 1 << 30, 1 << 20, 1ULL << 44, "bytes",                                     \
      "size of TRILANE_EVENTS when we make it")                                                    \
    /* proxy lane */                                                                               \
    X(proxy_head_bytes, 32 << 10, 1 << 10, 1 << 20, "bytes", "head of an HTTP/1 message")          \
    X(proxy_tunnels, 4096, 1, 100000, "tunnels", "CONNECT tunnels of a worker")                    \
    X(proxy_buffer_bytes, 64 << 10, 4 << 10, 4 << 20, "bytes", "bytes in flight of one direction") \
    X(dns_timeout_ms, 3000, 50, 60000, "ms", "resolving a destination")                            \
    X(dns_addresses, 16, 1, 64, "addresses", "addresses of one name that are looked at")           \
    X(dns_queries, 1024, 1, 65536, "queries", "names that one worker resolves at once")            \
    /* control plane */                                                                            \
    X(api_body_bytes, 80 << 20, 1 << 10, 600 << 20, "bytes", "body of one API request")            \
    X(api_connections, 512, 4, 10000, "connections", "connections of the API")                     \
    X(lease_ms, 2000, 200, 60000, "ms", "the leader's row runs out after this")                    \
    X(cosign_wait_ms, 10000, 50, 3600000, "ms",                                                    \
      "how long a publication waits for other replicas' signatures")                               \
    X(bucket_wait_ms, 30000, 0, 600000, "ms",                                                      \
      "how long a publication waits for a bucket that answers nobody")                             \
    X(forward_wait_ms, 10000, 50, 600000, "ms", "how long a write waits for a leader")             \
    X(store_timeout_ms, 2000, 100, 60000, "ms",                                                    \
      "a connection to PostgreSQL, and each answer of it")                                         \
    X(key_warn_ms, 151200000, 0, 3650ULL * 86400000, "ms",                                         \
      "a head key with less time left is warned of: a quarter of seven days")                      \
    X(root_warn_ms, 30ULL * 86400000, 0, 3650ULL * 86400000, "ms",                                 \
      "a root in force with less time left is warned of")                                          \
    X(nodes, 10000, 1, 1000000, "nodes", "nodes whose status is kept")                             \
    X(history_versions, 1000, 2, 100000, "versions", "versions that the store keeps")              \
    X(node_cert_ttl_ms, 86400000, 10000, 7776000000, "ms",                                         \
      "life of a node's certificate; it is renewed at two thirds")                                 \
    X(removal_retry_ms, 10000, 100, 3600000, "ms",                                                 \
      "a removal that stands unpublished for this long is published by the leader itself")         \
    X(joins_per_second, 200, 1, 100000, "requests",                                                \
      "joins and renewals that a replica looks at; one address has an eighth of it")               \
    X(bucket_bytes, 2ULL << 30, 16 << 20, 1ULL << 40, "bytes", "size of the snapshot bucket")      \
    X(collect_interval_ms, 300000, 100, 86400000, "ms",                                            \
      "how often the leader looks for what may be collected from the bucket")                      \
    X(collect_age_ms, 3600000, 500, 2592000000, "ms", "what was put within this is not collected") \
    X(chunk_fresh_ms, 1800000, 0, 1296000000, "ms",                                                \
      "a chunk that was put within this is not put again; at most half of collect-age-ms")         \
    X(collect_versions, 16, 1, 100000, "versions", "newest versions whose content stays")          \
    X(collect_reported_ms, 86400000, 100, 2592000000, "ms",                                        \
      "the version of a node that was heard of within this stays")

struct limits {
#define X(name, dflt, min, max, unit, why) uint64_t name;
    LIMITS_LIST(X)
#undef X
};

#define X(name, dflt, min, max, unit, why)                                                         \
    _Static_assert((min) <= (dflt) && (dflt) <= (max), #name ": default out of range");
LIMITS_LIST(X)
#undef X

extern struct limits limits;
