/* set: a cluster's endpoints by one transport; see upstream_impl.h. */
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/hash.h"
#include "common/net/loop.h"
#include "dataplane/operator/upstream_impl.h"
#include "dataplane/request/metrics.h"
#include "dataplane/request/request.h"

enum {
    ID_MAX = 1024,
    SWEEP_BATCH = 256 /* endpoints that a turn of the sweep looks at. */
};

/* ---- making ---- */

/* A cluster has one set for each transport that routes to it ask for. */
static MUST_CHECK struct err id_of(const struct op_question *q, uint8_t room[ID_MAX],
                                   struct slice *out)
{
    struct slice id = q->cluster->target.id;
    struct slice transport = q->transport->id;
    if (slice_eq(transport, q->cluster->transport)) {
        *out = id;
        return OK;
    }
    if (id.size + 1 + transport.size > ID_MAX) {
        return FAIL(E_TOO_LARGE);
    }
    (void)memcpy(room, id.ptr, id.size);
    room[id.size] = ' ';
    if (transport.size > 0) {
        (void)memcpy(room + id.size + 1, transport.ptr, transport.size);
    }
    *out = slice_of(room, id.size + 1 + transport.size);
    return OK;
}

static metrics_id series(const struct op_set *set, enum dp_metric metric, const char *label)
{
    const struct slice values[] = {set->cluster, slice_str(label)};
    return metrics_series(dp_request_metrics_set(set->ups->host->metrics), metric, values);
}

static void make_series(struct op_set *set)
{
    set->metrics.ejections[OP_EJECTED_IN_A_ROW] =
        series(set, DP_METRIC_UPSTREAM_EJECTIONS, "consecutive_failures");
    set->metrics.ejections[OP_EJECTED_BY_RATE] =
        series(set, DP_METRIC_UPSTREAM_EJECTIONS, "success_rate");
    set->metrics.ejected_now = series(set, DP_METRIC_UPSTREAM_ENDPOINTS_OUT, "ejected");
    set->metrics.degraded_now = series(set, DP_METRIC_UPSTREAM_ENDPOINTS_OUT, "degraded");
    set->metrics.unwell_now = series(set, DP_METRIC_UPSTREAM_ENDPOINTS_OUT, "unhealthy");
    set->metrics.probes[false] = series(set, DP_METRIC_UPSTREAM_PROBES, "unhealthy");
    set->metrics.probes[true] = series(set, DP_METRIC_UPSTREAM_PROBES, "healthy");
    set->metrics.panics = series(set, DP_METRIC_UPSTREAM_PANICS, "");
    set->metrics.broken[OP_BREAKER_REQUESTS] = series(set, DP_METRIC_UPSTREAM_BROKEN, "requests");
    set->metrics.broken[OP_BREAKER_PENDING] = series(set, DP_METRIC_UPSTREAM_BROKEN, "pending");
}

static struct slice own(struct slice s)
{
    return slice_of(slice_dup(s), s.size);
}

static void fill_on(struct net_timer *timer, void *ctx);

static MUST_CHECK struct err set_new(struct op_upstreams *ups, struct slice id,
                                     const struct op_question *q, struct op_set **out)
{
    struct op_set *set = calloc(1, sizeof(*set));
    if (set == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    set->ups = ups;
    set->id = own(id);
    set->cluster = own(q->cluster->target.id);
    set->transport = own(q->transport->id);
    net_timer_init(&set->fill_timer, fill_on, set);
    net_timer_init(&set->judge_timer, op_outlier_judge, set);
    net_timer_init(&set->health_timer, op_health_walk, set);
    net_timer_init(&set->pace_timer, op_sla_judge, set);
    struct err err = map_put(&ups->sets, set->id, set, /* out_old: */ NULL);
    if (!err_ok(err)) {
        op_set_free(set);
        return err;
    }
    make_series(set);
    set->next = ups->all;
    ups->all = set;
    *out = set;
    return OK;
}

static void security_free(struct op_security *security)
{
    slice_free(security->sni);
    slice_free(security->spiffe);
    *security = (struct op_security){0};
}

static void health_free(struct op_health *health)
{
    slice_free(health->service);
    slice_free(health->path);
    *health = (struct op_health){0};
}

static void stop_timers(struct op_set *set)
{
    struct net_loop *loop = set->ups->host->loop;
    net_timer_cancel(loop, &set->fill_timer);
    net_timer_cancel(loop, &set->judge_timer);
    net_timer_cancel(loop, &set->health_timer);
    net_timer_cancel(loop, &set->pace_timer);
}

void op_set_free(struct op_set *set)
{
    stop_timers(set);
    op_sla_end(set);
    while (set->all != NULL) {
        struct op_endpoint *e = set->all;
        set->all = e->next;
        op_endpoint_free(e);
    }
    map_free(&set->by_key);
    free(set->slots);
    security_free(&set->security);
    health_free(&set->health);
    slice_free(set->id);
    slice_free(set->cluster);
    slice_free(set->transport);
    free(set);
}

/* ---- slots ---- */

static uint32_t level_of(const struct dp_balance *b, size_t index)
{
    uint32_t level = 0;
    while (index >= b->levels[level].first + b->levels[level].count) {
        level++;
    }
    CHECK(level < b->level_count);
    return level;
}

struct err op_set_at(struct op_set *set, const struct dp_cluster *cluster, size_t index,
                     struct op_endpoint **out)
{
    CHECK(index < set->count);
    CHECK(cluster->endpoint_count == set->count);
    struct op_endpoint *e = set->slots[index];
    if (e == NULL) {
        const struct dp_endpoint *from = &cluster->endpoints[index];
        TRY(op_endpoint_get(set, from, &e));
        set->slots[index] = e;
        e->weight = from->weight;
        if (e->edition == 0 && set->edition > 1) {
            e->joined_ns = net_loop_now_ns(set->ups->host->loop); /* the others were there. */
        }
        if (!op_set_has(set, e)) {
            e->edition = set->edition;
            e->level = level_of(&cluster->balance, index);
            set->present++;
            e->counted = false;
            op_outlier_joined(e);
            op_health_joined(e);
            op_sla_joined(e);
        }
    }
    *out = e;
    return OK;
}

void op_set_count_out(struct op_endpoint *e)
{
    struct op_set *set = e->set;
    bool out = op_set_has(set, e) && (e->record.ejected || e->unwell);
    if (out != e->counted) {
        CHECK(out || set->out > 0);
        set->out = out ? set->out + 1 : set->out - 1;
        set->out_of[e->level] = out ? set->out_of[e->level] + 1 : set->out_of[e->level] - 1;
        e->counted = out;
    }
}

/* A batch of slots, and the next one a millisecond later. */
static MUST_CHECK struct err fill(struct op_set *set, const struct dp_cluster *cluster)
{
    for (size_t i = 0; i < OP_SET_BATCH && set->filled < set->count; i++) {
        struct op_endpoint *e = NULL;
        TRY(op_set_at(set, cluster, set->filled, &e));
        set->filled++;
    }
    if (set->filled < set->count) {
        net_timer_arm(set->ups->host->loop, &set->fill_timer, 1);
    } else {
        op_sla_filled(set);
    }
    return OK;
}

static bool is_of(const struct op_set *set, const struct op_question *q)
{
    const struct op_security *security = &set->security;
    return set->edition != 0 && !set->emptied &&
           memcmp(set->print, q->cluster->print, sizeof(set->print)) == 0 &&
           slice_eq(set->transport, q->transport->id) &&
           security->tls == q->transport->upstream_tls &&
           security->connect_timeout_ms == q->transport->connect_timeout_ms &&
           security->max_age_ms == q->transport->upstream_max_age_ms &&
           security->terms.version_min == q->transport->upstream_terms.version_min &&
           security->terms.version_max == q->transport->upstream_terms.version_max &&
           slice_eq(security->sni, q->transport->upstream_sni) &&
           slice_eq(security->spiffe, q->transport->upstream_spiffe);
}

/* What the model in force says of the set; false: there is no such thing any more. */
static bool ask_of(const struct op_set *set, struct op_question *out)
{
    const struct dp_model *model = dp_request_pool_model(set->ups->host->requests);
    out->cluster = model == NULL ? NULL : dp_model_cluster(model, set->cluster);
    if (out->cluster == NULL) {
        return false;
    }
    bool usual = slice_eq(set->id, set->cluster);
    out->transport = dp_model_transport(model, usual ? out->cluster->transport : set->transport);
    return out->transport != NULL;
}

/* Goes on with what the model in force says; when it says something else by now, the next pick
 * begins anew, or op_set_follow() does. */
static void fill_on(struct net_timer *timer, void *ctx)
{
    struct op_set *set = ctx;
    struct op_question q;
    if (ask_of(set, &q) && is_of(set, &q) && !err_ok(fill(set, q.cluster))) {
        net_timer_arm(set->ups->host->loop, timer, 1000); /* without memory; later, maybe. */
    }
}

static void begin_edition(struct op_set *set, struct op_endpoint **slots, size_t count)
{
    free(set->slots);
    set->slots = slots;
    set->count = count;
    set->filled = 0;
    set->present = 0;
    set->edition++;
    set->edition += set->edition == 0; /* an endpoint that is new has none. */
    set->sweep_at = NULL;
    net_timer_cancel(set->ups->host->loop, &set->fill_timer);
    set->out = 0;
    (void)memset(set->out_of, 0, sizeof(set->out_of));
    set->unwell = 0;
    op_outlier_begin(set);
    op_health_begin(set);
    op_sla_begin(set);
}

static void take_health(struct op_set *set, const struct dp_health_check *from)
{
    health_free(&set->health);
    set->health = (struct op_health){.kind = from->kind,
                                     .service = own(from->service),
                                     .path = own(from->path),
                                     .interval_ms = from->interval_ms,
                                     .timeout_ms = from->timeout_ms,
                                     .healthy = from->healthy,
                                     .unhealthy = from->unhealthy};
    set->health.print = hash_bytes(from->service, hash_bytes(from->path, (uint64_t)from->kind));
}

/* Empty slots for what the model in force says. Who was in the old ones is found again by name. */
static MUST_CHECK struct err renew(struct op_set *set, const struct op_question *q)
{
    struct op_endpoint **slots = calloc(q->cluster->endpoint_count + 1, sizeof(*slots));
    if (slots == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    const struct dp_transport *transport = q->transport;
    security_free(&set->security);
    set->security = (struct op_security){.tls = transport->upstream_tls,
                                         .connect_timeout_ms = transport->connect_timeout_ms,
                                         .max_age_ms = transport->upstream_max_age_ms,
                                         .terms = transport->upstream_terms,
                                         .sni = own(transport->upstream_sni),
                                         .spiffe = own(transport->upstream_spiffe)};
    (void)memcpy(set->print, q->cluster->print, sizeof(set->print));
    slice_free(set->transport);
    set->transport = own(transport->id);
    set->outliers = q->cluster->outliers;
    set->breakers = q->cluster->breakers;
    set->sla = q->cluster->sla;
    set->measures = q->cluster->balance.policy == DP_BALANCE_PEAK_EWMA;
    take_health(set, &q->cluster->health);
    set->emptied = false;
    begin_edition(set, slots, q->cluster->endpoint_count);
    return fill(set, q->cluster);
}

/* A request of an older model is given what is in force: the slots are of that alone. */
static void ask_model(const struct op_upstreams *ups, const struct dp_request *rq,
                      struct op_question *out)
{
    const struct dp_model *model = dp_request_pool_model(ups->host->requests);
    *out = (struct op_question){.cluster = rq->cluster, .transport = rq->transport};
    if (model != NULL && model != rq->model) {
        out->cluster = dp_model_cluster(model, rq->cluster->target.id);
        out->transport = dp_model_transport(model, rq->transport->id);
    }
}

struct err op_set_get(struct op_upstreams *ups, const struct dp_request *rq,
                      struct op_question *out_question, struct op_set **out)
{
    uint8_t room[ID_MAX];
    struct slice id = {0};
    struct op_question q;
    ask_model(ups, rq, &q);
    if (q.cluster == NULL || q.transport == NULL) {
        return FAIL(E_NO_HEALTHY_ENDPOINT);
    }
    TRY(id_of(&q, room, &id));
    struct op_set *set = map_get(&ups->sets, id);
    if (set == NULL) {
        TRY(set_new(ups, id, &q, &set));
    }
    set->used_ns = net_loop_now_ns(ups->host->loop);
    if (!is_of(set, &q)) {
        TRY(renew(set, &q));
    }
    *out_question = q;
    *out = set;
    return OK;
}

/* ---- what nobody uses any more ---- */

void op_set_empty(struct op_set *set)
{
    if (!set->emptied) {
        set->emptied = true;
        begin_edition(set, /* slots: */ NULL, 0);
        stop_timers(set);
        op_sla_end(set);
    }
}

bool op_set_follow(struct op_set *set)
{
    struct op_question q;
    if (set->emptied) {
        return false;
    }
    if (!ask_of(set, &q)) {
        op_set_empty(set);
        return true;
    }
    if (is_of(set, &q)) {
        return false;
    }
    if (!err_ok(renew(set, &q))) {
        op_set_empty(set); /* without memory: the next pick says so. */
    }
    return true;
}

bool op_set_sweep(struct op_set *set)
{
    if (set->sweep_at == NULL) {
        if (set->filled < set->count || set->by_key.count == set->present) {
            return true; /* who is in no slot yet may come to be in one. */
        }
        set->sweep_at = &set->all;
    }
    for (size_t i = 0; i < SWEEP_BATCH && *set->sweep_at != NULL; i++) {
        struct op_endpoint *e = *set->sweep_at;
        if (op_set_has(set, e) || e->refs > 0) {
            set->sweep_at = &e->next;
            continue;
        }
        *set->sweep_at = e->next;
        (void)map_remove(&set->by_key, e->key);
        op_endpoint_free(e);
    }
    bool done = *set->sweep_at == NULL;
    if (done) {
        set->sweep_at = NULL;
    }
    return done;
}
