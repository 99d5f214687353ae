/* scrape: see scrape.h. */
#include "dataplane/runtime/scrape.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/version.h"
#include "common/bus/bus.h"
#include "common/telemetry/process.h"
#include "dataplane/request/access.h"
#include "dataplane/request/limit.h"
#include "dataplane/request/metrics.h"

void dp_scrape_init(struct dp_scrape *s)
{
    *s = (struct dp_scrape){0};
    lock_init(&s->shared.lock);
}

void dp_scrape_free(struct dp_scrape *s)
{
    lock_free(&s->shared.lock);
}

void dp_scrape_certificate(struct dp_scrape *s, bool has, int64_t ends_s)
{
    lock_take(&s->shared.lock);
    s->shared.has_cert = has;
    s->shared.cert_ends_s = ends_s;
    lock_drop(&s->shared.lock);
}

/* Counts what a source says it has counted since the last time. */
static void catch_up(struct dp_scrape *s, metrics_id id, uint64_t *seen, uint64_t now)
{
    metrics_add(s->parts.shard, id, (int64_t)(now - *seen));
    *seen = now;
}

static void show_certificate(struct dp_scrape *s)
{
    struct slice label = SLICE_LIT("tls-cert");
    lock_take(&s->shared.lock);
    bool has = s->shared.has_cert;
    int64_t left_s = s->shared.cert_ends_s - clock_wall_ms() / 1000;
    lock_drop(&s->shared.lock);
    if (has) {
        metrics_set(s->parts.shard,
                    metrics_series(s->parts.metrics, DP_METRIC_CERT_EXPIRES, &label), left_s);
    }
}

static void show_left(void *ctx, struct slice limit, uint32_t left_permille)
{
    struct dp_scrape *s = ctx;
    metrics_set(s->parts.shard, metrics_series(s->parts.metrics, DP_METRIC_LIMIT_LEFT, &limit),
                left_permille);
}

static void show(struct dp_scrape *s, enum dp_metric id, uint64_t value)
{
    metrics_set(s->parts.shard, metrics_plain(s->parts.metrics, id), (int64_t)value);
}

static void show_process(struct dp_scrape *s)
{
    const struct slice build[] = {SLICE_LIT(TRILANE_VERSION), SLICE_LIT(TRILANE_COMMIT)};
    struct process_usage usage;
    process_usage(&usage);
    metrics_set(s->parts.shard, metrics_series(s->parts.metrics, DP_METRIC_BUILD_INFO, build), 1);
    catch_up(s, metrics_plain(s->parts.metrics, DP_METRIC_PROCESS_CPU), &s->seen.cpu_us,
             usage.cpu_us);
    show(s, DP_METRIC_PROCESS_RESIDENT, usage.resident_bytes);
    show(s, DP_METRIC_PROCESS_VIRTUAL, usage.virtual_bytes);
    show(s, DP_METRIC_PROCESS_FILES, usage.open_files);
    show(s, DP_METRIC_PROCESS_FILES_MAX, usage.open_files_max);
    show(s, DP_METRIC_PROCESS_START, usage.start_s);
}

void dp_scrape_run(struct dp_scrape *s)
{
    show_process(s);
    show_certificate(s);
    struct slice log = SLICE_LIT("log");
    struct slice access = SLICE_LIT("access");
    catch_up(s, metrics_series(s->parts.metrics, DP_METRIC_LOG_DROPPED, &log), &s->seen.log_dropped,
             log_dropped());
    catch_up(s, metrics_plain(s->parts.metrics, DP_METRIC_LIMIT_CROWDED), &s->seen.crowded,
             dp_limit_table_crowded(s->parts.limits));
    dp_limit_left(s->parts.limits, clock_mono_ns(), show_left, s);
    if (s->parts.access != NULL) {
        catch_up(s, metrics_series(s->parts.metrics, DP_METRIC_LOG_DROPPED, &access),
                 &s->seen.access_dropped, dp_access_dropped(s->parts.access));
    }
    if (s->parts.bus != NULL) {
        struct bus_stats stats;
        bus_stats(s->parts.bus, &stats);
        catch_up(s, metrics_plain(s->parts.metrics, DP_METRIC_BUS_RECONNECTS), &s->seen.reconnects,
                 stats.connects == 0 ? 0 : stats.connects - 1);
    }
}
