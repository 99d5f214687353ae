/* standing: what the node says of itself: to people (log, /dump), to machines (metrics), and to
 * the control plane (the signed status). */
#include <stdio.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "dataplane/apply/apply_impl.h"
#include "dataplane/request/degraded.h"
#include "dataplane/request/metrics.h"

#define NS_PER_MS UINT64_C(1000000)

uint64_t dp_jitter_ns(uint64_t ms)
{
    uint32_t random = 0;
    ids_quick(&random, sizeof(random));
    return ms * (800 + random % 401) * (NS_PER_MS / 1000);
}

/* ---- state ---- */

static bool is_older(uint64_t since_ns, uint64_t boot_ns, uint64_t bound_ms)
{
    return since_ns == 0 || boot_ns - since_ns > bound_ms * NS_PER_MS;
}

static bool is_stale(const struct dp_apply_standing *s, uint64_t boot_ns)
{
    return is_older(s->contact_ns, boot_ns, limits.stale_after_ms) ||
           (s->freshness_max_ms != 0 && is_older(s->content_ns, boot_ns, s->freshness_max_ms));
}

enum snap_state dp_standing_state(const struct dp_apply_standing *s, uint64_t boot_ns)
{
    if (s->draining) {
        return SNAP_DRAINING;
    }
    if (s->starting || (s->has_model && !s->adopted && s->applies <= 1)) {
        return SNAP_STARTING;
    }
    if (!s->has_model) {
        return s->code == E_OK ? SNAP_NONE : SNAP_REFUSED;
    }
    if (is_stale(s, boot_ns)) {
        return SNAP_STALE;
    }
    if (s->code != E_OK) {
        return SNAP_REFUSED;
    }
    return s->good ? SNAP_GOOD : SNAP_APPLIED;
}

void dp_standing_refuse(struct dp_apply *a, struct err why, const char *object)
{
    CHECK(!err_ok(why));
    struct dp_apply_standing *s = &a->standing;
    enum err_code code = why.code == E_NO_MEMORY ? E_OUT_OF_MEMORY : why.code;
    bool changed = s->code != code || strcmp(s->object, object) != 0;
    s->code = code;
    s->last_code = code;
    (void)snprintf(s->object, sizeof(s->object), "%s", object);
    (void)snprintf(s->last_object, sizeof(s->last_object), "%s", object);
    s->refusals++;
    struct slice label = slice_str(err_name(code));
    metrics_add(a->config.shard,
                metrics_series(a->config.metrics, DP_METRIC_SNAPSHOT_REFUSALS, &label), 1);
    if (changed) {
        LOG(LOG_WARN, "apply", "refused", LOG_STR("code", err_name(code)),
            LOG_STR("object", s->object), LOG_STR("where", why.where),
            LOG_U64("epoch", a->judge.epoch), LOG_U64("sequence", a->judge.sequence),
            LOG_STR("text", err_text(code)), LOG_STR("fix", err_fix(code)));
        a->report_due = true;
    }
}

void dp_standing_settle(struct dp_apply *a)
{
    a->standing.code = E_OK;
    a->standing.object[0] = '\0';
}

/* ---- what changed ---- */

/* Every worker has the model: the version is the node's from now on. */
static void look_at_workers(struct dp_apply *a)
{
    struct dp_apply_standing *s = &a->standing;
    uint64_t served = a->config.workers.served(a->config.workers.ctx);
    if (a->model == NULL || s->adopted || served != dp_model_version(a->model)) {
        return;
    }
    s->adopted = true;
    uint64_t now_ns = clock_mono_ns();
    s->adopted_version = served;
    s->adopted_ns = now_ns;
    a->good_ns = now_ns + limits.good_after_ms * NS_PER_MS;
    if (a->accepted_ns != 0) {
        metrics_record(a->config.shard, metrics_plain(a->config.metrics, DP_METRIC_SNAPSHOT_APPLY),
                       (now_ns - a->accepted_ns) / 1000);
    }
}

static int64_t age_ms(uint64_t since_ns, uint64_t boot_ns)
{
    return since_ns == 0 ? -1 : (int64_t)((boot_ns - since_ns) / NS_PER_MS);
}

static void set_metrics(struct dp_apply *a, enum snap_state state, uint64_t boot_ns)
{
    struct metrics *m = a->config.metrics;
    struct metrics_shard *shard = a->config.shard;
    metrics_set(shard, metrics_plain(m, DP_METRIC_SNAPSHOT_VERSION),
                (int64_t)a->config.workers.served(a->config.workers.ctx));
    metrics_set(shard, metrics_plain(m, DP_METRIC_SNAPSHOT_LIVE),
                (int64_t)dp_model_bin_live(a->bin));
    metrics_set(shard, metrics_plain(m, DP_METRIC_CONTACT_AGE),
                age_ms(a->standing.contact_ns, boot_ns));
    metrics_set(shard, metrics_plain(m, DP_METRIC_CONTENT_AGE),
                age_ms(a->standing.content_ns, boot_ns));
    metrics_set(shard, metrics_plain(m, DP_METRIC_BUS_CONNECTED), dp_feed_connected(&a->feed));
    for (uint32_t i = 0; i < SNAP_STATE_COUNT; i++) {
        struct slice label = slice_str(snap_state_name(i));
        metrics_set(shard, metrics_series(m, DP_METRIC_SNAPSHOT_STATE, &label), i == state);
    }
}

static void log_change(struct dp_apply *a, enum snap_state state, uint64_t version)
{
    LOG(state == SNAP_STALE || state == SNAP_REFUSED ? LOG_WARN : LOG_INFO, "apply", "state",
        LOG_STR("state", snap_state_name(state)), LOG_U64("version", version),
        LOG_STR("code", err_name(a->standing.code)), LOG_STR("object", a->standing.object),
        LOG_U64("epoch", a->judge.epoch), LOG_U64("sequence", a->judge.sequence),
        LOG_U64("parts", a->standing.parts), LOG_U64("built", a->standing.parts_built));
}

/* Services that came to miss their SLA, or hold it again, are news. */
static void look_at_degraded(struct dp_apply *a)
{
    uint32_t now = a->config.degraded == NULL ? 0 : dp_degraded_count(a->config.degraded);
    if (now == a->degraded) {
        return;
    }
    LOG(now > a->degraded ? LOG_WARN : LOG_INFO, "apply", "health",
        LOG_STR("health", now == 0 ? "well" : "degraded"), LOG_U64("services", now));
    metrics_set(a->config.shard, metrics_plain(a->config.metrics, DP_METRIC_SERVICES_DEGRADED),
                (int64_t)now);
    a->degraded = now;
    a->report_due = true;
}

void dp_standing_update(struct dp_apply *a)
{
    look_at_workers(a);
    look_at_degraded(a);
    a->standing.root_version = a->judge.root.version;
    a->standing.epoch = a->judge.epoch;
    a->standing.sequence = a->judge.sequence;
    uint64_t boot_ns = clock_boot_ns();
    enum snap_state state = dp_standing_state(&a->standing, boot_ns);
    uint64_t version = a->config.workers.served(a->config.workers.ctx);
    set_metrics(a, state, boot_ns);
    if (state != a->logged_state || version != a->logged_version ||
        a->standing.code != a->logged_code) {
        log_change(a, state, version);
        a->logged_state = state;
        a->logged_version = version;
        a->logged_code = a->standing.code;
        a->report_due = true;
    }
    lock_take(&a->shared.lock);
    a->shared.standing = a->standing;
    lock_drop(&a->shared.lock);
}

void dp_apply_status(struct dp_apply *apply, struct dp_apply_status *out)
{
    lock_take(&apply->shared.lock);
    struct dp_apply_standing s = apply->shared.standing;
    lock_drop(&apply->shared.lock);
    uint64_t boot_ns = clock_boot_ns();
    *out = (struct dp_apply_status){
        .state = dp_standing_state(&s, boot_ns),
        .code = s.code,
        .version = apply->config.workers.served(apply->config.workers.ctx),
        .root_version = s.root_version,
        .epoch = s.epoch,
        .sequence = s.sequence,
        .contact_age_ms = age_ms(s.contact_ns, boot_ns),
        .content_age_ms = age_ms(s.content_ns, boot_ns),
        .strict = s.strict,
        .live_snapshots = dp_model_bin_live(apply->bin),
        .applies = s.applies,
        .refusals = s.refusals,
        .last_code = s.last_code,
        .parts = s.parts,
        .parts_built = s.parts_built,
    };
    out->served_ns = out->version == s.adopted_version ? s.adopted_ns : 0;
    memcpy(out->object, s.object, sizeof(out->object));
    memcpy(out->last_object, s.last_object, sizeof(out->last_object));
    memcpy(out->content_digest, s.content_digest, sizeof(out->content_digest));
}

/* ---- the report ---- */

static void fill_status(struct dp_apply *a, struct status *out)
{
    const struct dp_apply_standing *s = &a->standing;
    int64_t now_ms = clock_wall_ms();
    /* A restart goes on from the clock, so that the count of a node grows over its lives. */
    uint64_t floor = now_ms < 0 ? 0 : (uint64_t)now_ms;
    a->report_count = a->report_count + 1 > floor ? a->report_count + 1 : floor;
    *out = (struct status){
        .epoch = s->epoch,
        .sequence = s->sequence,
        .version = a->config.workers.served(a->config.workers.ctx),
        .state = dp_standing_state(s, clock_boot_ns()),
        .code = s->code,
        .at_ms = now_ms,
        .format = SNAPSHOT_FORMAT,
        .health_count = STATUS_HEALTH_COUNT,
        .health = {[STATUS_HEALTH_DEGRADED] = a->degraded},
        .count = a->report_count,
        .capabilities = CAPABILITIES_HERE,
    };
    (void)snprintf(out->node, sizeof(out->node), "%.*s", SLICE_ARG(a->config.node));
    if (out->version != 0) {
        memcpy(out->content_prefix, s->content_digest, STATUS_PREFIX_SIZE);
    }
    if (s->code != E_OK) {
        memcpy(out->object, s->object, sizeof(out->object));
    }
}

static struct err send_status(struct dp_apply *a)
{
    struct status status;
    fill_status(a, &status);
    uint8_t environment[ENVIRONMENT_SIZE];
    snap_environment(a->config.environment, environment);
    auto_buf struct buf sealed =
        BUF_MAX(CONTAINER_HEADER_SIZE + CONTAINER_SIGNATURE_SIZE + STATUS_BODY_MAX);
    TRY(status_seal(&status, environment, a->config.key, &sealed));
    return dp_feed_put_status(&a->feed, a->config.node, buf_slice(&sealed));
}

/*
 * A publication reaches all nodes at once. Their swaps come before their words of it, which come
 * one after the other, rather than all into the moment in which the hint is still under way.
 */
void dp_standing_spread(struct dp_apply *a)
{
    uint64_t spread_ns = limits.status_rest_ms * NS_PER_MS / 5;
    uint32_t random = 0;
    ids_quick(&random, sizeof(random));
    uint64_t at_ns = clock_mono_ns() + spread_ns / 2 + random % (spread_ns + 1);
    if (!a->report_due && at_ns > a->report_rest_ns) {
        a->report_rest_ns = at_ns;
    }
}

/* Not while workers are between two models, nor without NATS. */
static bool may_report(const struct dp_apply *a)
{
    bool between = a->model != NULL && !a->standing.adopted;
    return a->config.key != NULL && dp_feed_connected(&a->feed) && !between && !a->handed;
}

uint64_t dp_standing_due_ns(const struct dp_apply *a)
{
    return a->report_due && may_report(a) ? a->report_rest_ns : 0;
}

void dp_standing_report(struct dp_apply *a, uint64_t now_ns)
{
    if (!may_report(a) || now_ns < a->report_rest_ns || (!a->report_due && now_ns < a->report_ns)) {
        return;
    }
    struct err e = send_status(a);
    a->report_due = false;
    a->report_rest_ns = now_ns + limits.status_rest_ms * NS_PER_MS;
    a->report_ns = now_ns + dp_jitter_ns(limits.status_interval_ms);
    if (!err_ok(e)) {
        LOG(LOG_WARN, "apply", "status-not-sent", LOG_ERR(e));
    }
    if (!err_ok(e) && e.code != E_RESULT_UNKNOWN) {
        /* Not at once again: the bus may be in trouble. What has no answer was sent, and a server
         * that is slow is not asked more often for it. */
        a->report_ns = now_ns + dp_jitter_ns(limits.status_interval_ms / 10 + 1);
    }
}
