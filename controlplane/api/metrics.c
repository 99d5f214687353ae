/* metrics: see metrics.h. */
#include "controlplane/api/metrics.h"

#include <inttypes.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "common/base/version.h"
#include "common/telemetry/process.h"
#include "controlplane/publish/shares.h"

enum { US_PER_S = 1000000 };

static struct err gauge(struct buf *out, const char *name, const char *help, uint64_t value)
{
    return buf_addf(out, "# HELP %s %s\n# TYPE %s gauge\n%s %" PRIu64 "\n", name, help, name, name,
                    value);
}

static struct err counter(struct buf *out, const char *name, const char *help, uint64_t value)
{
    return buf_addf(out, "# HELP %s %s\n# TYPE %s counter\n%s %" PRIu64 "\n", name, help, name,
                    name, value);
}

static struct err leader_metrics(const struct cp_api_options *o, struct buf *out)
{
    struct cp_leader_status status;
    cp_leader_status(o->leader, &status);
    TRY(gauge(out, "trilane_leader", "whether this replica leads", status.leads));
    TRY(gauge(out, "trilane_epoch", "epoch of the leader's row", status.epoch));
    TRY(gauge(out, "trilane_head_version", "version that the head in KV points at",
              status.head_version));
    TRY(gauge(out, "trilane_store_behind", "whether the bucket knows a version that we do not",
              status.code == E_STORE_BEHIND));
    int64_t age_ms = status.head_at_ms == 0 ? 0 : clock_wall_ms() - status.head_at_ms;
    TRY(gauge(out, "trilane_head_age_seconds", "since KV took a head of ours",
              age_ms < 0 ? 0 : (uint64_t)age_ms / 1000));
    TRY(buf_add_str(out, "# HELP trilane_heads_total heads, and what was found in their place\n"
                         "# TYPE trilane_heads_total counter\n"));
#define X(name, text)                                                                              \
    TRY(buf_addf(out, "trilane_heads_total{event=\"%s\"} %" PRIu64 "\n", #name,                    \
                 status.counters.head_##name));
    CP_HEAD_COUNTERS(X)
#undef X
    return OK;
}

static struct err key_line(const struct ring_key *key, int64_t now_ms, struct buf *out)
{
    char id[2 * KEY_ID_SIZE + 1];
    text_hex(slice_of(key->id, sizeof(key->id)), id);
    return buf_addf(out,
                    "trilane_key_expires_seconds{role=\"%s\",key=\"%s\",name=\"%s\"} %" PRId64 "\n",
                    key_role_name(key->role), id, key->name, (key->not_after_ms - now_ms) / 1000);
}

/* Below zero: it is over. */
static struct err trust_metrics(const struct cp_api_options *o, struct buf *out)
{
    struct root root;
    struct cp_leader_status status;
    int64_t now_ms = clock_wall_ms();
    cp_roots_now(o->roots, &root);
    cp_leader_status(o->leader, &status);
    TRY(gauge(out, "trilane_root_version", "the root in force", root.version));
    TRY(buf_addf(out,
                 "# HELP trilane_root_expires_seconds until the root in force ends\n"
                 "# TYPE trilane_root_expires_seconds gauge\n"
                 "trilane_root_expires_seconds %" PRId64 "\n",
                 (root.not_after_ms - now_ms) / 1000));
    TRY(gauge(out, "trilane_head_key_usable", "whether nodes take heads of this replica's key",
              status.keys.head_code == E_OK));
    TRY(gauge(out, "trilane_manifest_key_known",
              "whether this replica's manifest key is in the root", status.keys.manifest_known));
    TRY(buf_add_str(out,
                    "# HELP trilane_key_expires_seconds until a key of the root in force ends\n"
                    "# TYPE trilane_key_expires_seconds gauge\n"));
    for (uint32_t i = 0; i < root.ring.count; i++) {
        if (root.ring.keys[i].not_after_ms != 0) {
            TRY(key_line(&root.ring.keys[i], now_ms, out));
        }
    }
    return OK;
}

static struct err fleet_metrics(const struct cp_api_options *o, struct buf *out)
{
    struct cp_fleet_tally tally;
    cp_fleet_tally(o->fleet, &tally);
    TRY(gauge(out, "trilane_nodes", "nodes that were heard of", tally.heard));
    TRY(gauge(out, "trilane_nodes_live", "verified nodes that were heard of lately", tally.live));
    TRY(gauge(out, "trilane_nodes_refusing", "live nodes that refuse what the head names",
              tally.refusing));
    TRY(gauge(out, "trilane_nodes_degraded", "live nodes with services that miss their SLA",
              tally.degraded));
    return OK;
}

static struct err bucket_metrics(const struct cp_api_options *o, struct buf *out)
{
    struct cp_collector_status status;
    cp_collector_status(o->collector, &status);
    const struct stream_info *bucket = &status.bucket;
    if (status.looked) {
        TRY(gauge(out, "trilane_bucket_objects", "keys in the snapshot bucket", bucket->messages));
        TRY(gauge(out, "trilane_bucket_bytes", "bytes in the snapshot bucket", bucket->bytes));
        TRY(gauge(out, "trilane_bucket_max_bytes", "that it may hold", bucket->max_bytes));
        TRY(gauge(out, "trilane_bucket_replicas", "servers that keep the snapshot bucket",
                  bucket->replicas));
        TRY(gauge(out, "trilane_bucket_replicas_current", "of these, that are up to date",
                  bucket->replicas_current));
        TRY(gauge(out, "trilane_bucket_replicas_wanted", "that should keep it", status.replicas));
    }
    TRY(counter(out, "trilane_collected_objects_total", "keys removed from the snapshot bucket",
                status.objects));
    TRY(counter(out, "trilane_collected_bytes_total", "bytes that the snapshot bucket lost by it",
                status.bytes));
    return counter(out, "trilane_collect_spared_total",
                   "keys that were put anew, or gone, when they were to be removed", status.spared);
}

static struct err status_metrics(const struct cp_api_options *o, struct buf *out)
{
    struct cp_status_counters counters;
    cp_fleet_counters(o->fleet, &counters);
    TRY(counter(out, "trilane_statuses_unverified_total", "statuses that no enrolled key signed",
                counters.unverified));
    TRY(buf_add_str(out, "# HELP trilane_statuses_total statuses of nodes, by what became of them\n"
                         "# TYPE trilane_statuses_total counter\n"));
#define X(name, text)                                                                              \
    TRY(buf_addf(out, "trilane_statuses_total{event=\"%s\"} %" PRIu64 "\n", #name, counters.name));
    CP_STATUS_COUNTERS(X)
#undef X
    return OK;
}

static struct err join_metrics(const struct cp_api_options *o, uint64_t limited, struct buf *out)
{
    struct cp_registrar_counters counters;
    cp_registrar_counters(o->registrar, &counters);
    TRY(buf_add_str(out, "# HELP trilane_joins_total tokens, joins, renewals and removals\n"
                         "# TYPE trilane_joins_total counter\n"));
#define X(name, text)                                                                              \
    TRY(buf_addf(out, "trilane_joins_total{event=\"%s\"} %" PRIu64 "\n", #name, counters.name));
    CP_REGISTRAR_COUNTERS(X)
#undef X
    return buf_addf(out, "trilane_joins_total{event=\"limited\"} %" PRIu64 "\n", limited);
}

static struct err share_metrics(const struct cp_api_options *o, struct buf *out)
{
    struct cp_shares_counters counters;
    cp_shares_counters(o->shares, &counters);
    TRY(buf_add_str(out, "# HELP trilane_shares_total demands of nodes, and shares of budgets\n"
                         "# TYPE trilane_shares_total counter\n"));
#define X(name, text)                                                                              \
    TRY(buf_addf(out, "trilane_shares_total{event=\"%s\"} %" PRIu64 "\n", #name, counters.name));
    CP_SHARES_COUNTERS(X)
#undef X
    return OK;
}

static struct err process_metrics(struct buf *out)
{
    struct process_usage usage;
    process_usage(&usage);
    TRY(buf_add_str(out, "# HELP trilane_build_info 1, of the program that runs\n"
                         "# TYPE trilane_build_info gauge\n"
                         "trilane_build_info{version=\"" TRILANE_VERSION
                         "\",commit=\"" TRILANE_COMMIT "\"} 1\n"));
    TRY(buf_addf(out,
                 "# HELP process_cpu_seconds_total CPU of all threads\n"
                 "# TYPE process_cpu_seconds_total counter\n"
                 "process_cpu_seconds_total %" PRIu64 ".%06" PRIu64 "\n",
                 usage.cpu_us / US_PER_S, usage.cpu_us % US_PER_S));
    TRY(gauge(out, "process_resident_memory_bytes", "memory that is resident",
              usage.resident_bytes));
    TRY(gauge(out, "process_virtual_memory_bytes", "memory that is mapped", usage.virtual_bytes));
    TRY(gauge(out, "process_open_fds", "open files and sockets", usage.open_files));
    TRY(gauge(out, "process_max_fds", "how many there may be", usage.open_files_max));
    return gauge(out, "process_start_time_seconds", "when the process began, since the epoch",
                 usage.start_s);
}

struct err cp_metrics_render(const struct cp_api_options *o, uint64_t limited, struct buf *out)
{
    TRY(process_metrics(out));
    TRY(leader_metrics(o, out));
    TRY(trust_metrics(o, out));
    TRY(fleet_metrics(o, out));
    TRY(bucket_metrics(o, out));
    TRY(status_metrics(o, out));
    TRY(join_metrics(o, limited, out));
    TRY(share_metrics(o, out));
    TRY(gauge(out, "trilane_bus_connected", "whether NATS can be reached",
              bus_state(o->bus) == BUS_CONNECTED));
    TRY(counter(out, "trilane_restores_total", "times that the bucket was filled from the journal",
                cp_worker_restores(o->publisher)));
    return counter(out, "trilane_log_dropped_total", "lines of log that were dropped",
                   log_dropped());
}
