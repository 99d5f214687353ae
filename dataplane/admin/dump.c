/* dump: see dump.h. */
#include "dataplane/admin/dump.h"

#include "common/base/arena.h"
#include "common/base/check.h"
#include "common/base/ids.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "common/base/text.h"
#include "common/bus/bus.h"
#include "common/telemetry/metrics.h"
#include "dataplane/admin/admin.h"
#include "dataplane/apply/apply.h"
#include "dataplane/join/renewal.h"
#include "dataplane/request/degraded.h"
#include "dataplane/request/metrics.h"

enum { DEGRADED_BLOCK = 4 << 10, DEGRADED_BYTES = DP_DEGRADED_MAX * 512 };

static json_t *text(struct slice s)
{
    return json_stringn((const char *)(s.ptr == NULL ? (const uint8_t *)"" : s.ptr), s.size);
}

static json_t *number(uint64_t value)
{
    return json_integer((json_int_t)value);
}

/* jansson's _new functions take the value, and fail quietly on a NULL one: checked at the end by
 * whoever writes the text. */
static void set(json_t *object, const char *name, json_t *value)
{
    (void)json_object_set_new(object, name, value);
}

/* ---- /ready ---- */

static bool has_tenant(const struct dp_admin_config *c, struct slice tenant)
{
    struct dp_model *model = dp_apply_model(c->apply);
    bool found = model != NULL && dp_model_has_tenant(model, tenant);
    dp_model_unref(model);
    return found;
}

/* ["acme/orders", …]: services that miss their SLA. */
static json_t *degraded(const struct dp_admin_config *c)
{
    const struct slice prefix = SLICE_LIT("service/");
    auto_arena struct arena arena;
    arena_init(&arena, DEGRADED_BLOCK, DEGRADED_BYTES);
    json_t *list = json_array();
    const struct slice *names = NULL;
    size_t count = 0;
    if (c->degraded == NULL || !err_ok(dp_degraded_list(c->degraded, &arena, &names, &count))) {
        return list;
    }
    for (size_t i = 0; i < count; i++) {
        CHECK(slice_starts(names[i], prefix));
        (void)json_array_append_new(list, text(slice_from(names[i], prefix.size)));
    }
    return list;
}

json_t *dp_dump_ready(const struct dp_admin_config *c, const struct slice *tenant, bool *out_ready)
{
    struct dp_apply_status s;
    dp_apply_status(c->apply, &s);
    json_t *reasons = json_array();
    if (s.version == 0) {
        (void)json_array_append_new(reasons, json_string("NOT_READY: no snapshot is served yet"));
    }
    if (s.state == SNAP_DRAINING) {
        (void)json_array_append_new(reasons, json_string("DRAINING: the node is shutting down"));
    }
    if (tenant != NULL && s.version != 0 && !has_tenant(c, *tenant)) {
        (void)json_array_append_new(reasons, json_string("NOT_FOUND: the tenant has no service"));
    }
    *out_ready = json_array_size(reasons) == 0;
    if (s.code != E_OK && s.version == 0) {
        (void)json_array_append_new(reasons, json_sprintf("%s: %s", err_name(s.code), s.object));
    }
    json_t *answer = json_object();
    set(answer, "ready", json_boolean(*out_ready));
    set(answer, "reasons", reasons);
    set(answer, "state", json_string(snap_state_name(s.state)));
    set(answer, "version", number(s.version));
    set(answer, "degraded", degraded(c));
    return answer;
}

/* ---- /dump ---- */

/* Of turns of the workers' loops, in us; by buckets, so at most an eighth too much. */
static json_t *turns(const struct dp_admin_config *c, enum dp_metric metric)
{
    metrics_id id = metrics_plain(c->metrics, metric);
    json_t *o = json_object();
    set(o, "count", json_integer(metrics_value(c->metrics, id)));
    set(o, "median", json_real((double)metrics_percentile(c->metrics, id, 50) / 1000));
    set(o, "p99_9", json_real((double)metrics_percentile(c->metrics, id, 99.9) / 1000));
    set(o, "longest", json_real((double)metrics_percentile(c->metrics, id, 100) / 1000));
    return o;
}

static json_t *snapshot(const struct dp_apply_status *s)
{
    char digest[2 * DIGEST_SIZE + 1];
    text_hex(slice_of(s->content_digest, DIGEST_SIZE), digest);
    json_t *o = json_object();
    set(o, "version", number(s->version));
    set(o, "content_digest", json_string(digest));
    set(o, "epoch", number(s->epoch));
    set(o, "sequence", number(s->sequence));
    set(o, "root_version", number(s->root_version));
    set(o, "contact_age_ms", json_integer(s->contact_age_ms));
    set(o, "content_age_ms", json_integer(s->content_age_ms));
    set(o, "strict", json_boolean(s->strict));
    set(o, "live", number(s->live_snapshots));
    set(o, "applies", number(s->applies));
    set(o, "refusals", number(s->refusals));
    set(o, "last_refusal", json_string(s->last_code == E_OK ? "" : err_name(s->last_code)));
    set(o, "last_refusal_object", json_string(s->last_object));
    set(o, "parts", number(s->parts));
    set(o, "parts_built", number(s->parts_built));
    set(o, "served_since_mono_ns", number(s->served_ns));
    return o;
}

static json_t *workers(const struct dp_admin_config *c)
{
    json_t *list = json_array();
    for (size_t i = 0; i < c->worker_count; i++) {
        json_t *worker = json_object();
        set(worker, "version", number(c->worker_version(c->ctx, i)));
        set(worker, "connections", number(c->worker_connections(c->ctx, i)));
        (void)json_array_append_new(list, worker);
    }
    return list;
}

static json_t *bus(const struct dp_admin_config *c)
{
    json_t *o = json_object();
    char error[BUS_ERROR_TEXT_MAX] = "";
    if (c->bus == NULL) {
        set(o, "state", json_string("none"));
        return o;
    }
    bus_last_error(c->bus, error);
    set(o, "state", json_string(bus_state_name(bus_state(c->bus))));
    set(o, "down_ms", number(bus_down_ms(c->bus)));
    set(o, "last_error", json_string(error));
    return o;
}

static json_t *identity(const struct dp_admin_config *c)
{
    json_t *o = json_object();
    struct dp_renewal_status s;
    set(o, "joined", json_boolean(c->renewal != NULL));
    set(o, "labels", text(c->labels));
    if (c->renewal == NULL) {
        return o;
    }
    dp_renewal_status(c->renewal, &s);
    set(o, "serial", json_string(s.cert.serial));
    set(o, "not_after_ms", json_integer(s.cert.times.ends_s * 1000));
    set(o, "renews_at_ms", json_integer(s.next_s * 1000));
    set(o, "renewals", number(s.renewals));
    set(o, "renewals_failed", number(s.failures));
    set(o, "code", json_string(s.code == E_OK ? "" : err_name(s.code)));
    return o;
}

static json_t *load(const struct dp_admin_config *c)
{
    json_t *o = json_object();
    set(o, "connections",
        json_integer(metrics_value(c->metrics, metrics_plain(c->metrics, DP_METRIC_CONNECTIONS))));
    set(o, "requests",
        json_integer(
            metrics_value(c->metrics, metrics_plain(c->metrics, DP_METRIC_REQUESTS_OPEN))));
    set(o, "log_dropped", number(log_dropped()));
    set(o, "request_turn_us", turns(c, DP_METRIC_REQUEST_TURN));
    set(o, "request_turn_cpu_us", turns(c, DP_METRIC_REQUEST_TURN_CPU));
    return o;
}

json_t *dp_dump_limits(void)
{
    json_t *o = json_object();
#define X(name, dflt, min, max, unit, why) set(o, #name, number(limits.name));
    LIMITS_LIST(X)
#undef X
    return o;
}

json_t *dp_dump_node(const struct dp_admin_config *c)
{
    struct dp_apply_status s;
    dp_apply_status(c->apply, &s);
    json_t *o = json_object();
    set(o, "node", text(c->node));
    set(o, "environment", text(c->environment));
    set(o, "version", number(s.version));
    set(o, "state", json_string(snap_state_name(s.state)));
    set(o, "code", json_string(s.code == E_OK ? "" : err_name(s.code)));
    set(o, "object", json_string(s.object));
    set(o, "degraded", degraded(c));
    set(o, "snapshot", snapshot(&s));
    set(json_object_get(o, "snapshot"), "turn_us", turns(c, DP_METRIC_SNAPSHOT_TURN));
    set(json_object_get(o, "snapshot"), "turn_cpu_us", turns(c, DP_METRIC_SNAPSHOT_TURN_CPU));
    set(o, "workers", workers(c));
    set(o, "identity", identity(c));
    set(o, "bus", bus(c));
    set(o, "load", load(c));
    set(o, "limits", dp_dump_limits());
    return o;
}
