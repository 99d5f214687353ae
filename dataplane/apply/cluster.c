/* cluster: see cluster.h. */
#include "dataplane/apply/cluster.h"

/* What holds where a service says nothing: Envoy's panic threshold. */
enum { PANIC_PERCENT_USUAL = 50 };

/* Statuses are 0 to 16, of which OK is no failure. */
enum { STATUS_BITS = 0x1fffe };

static bool hashes(enum dp_balance_policy policy)
{
    return policy == DP_BALANCE_RING_HASH || policy == DP_BALANCE_RENDEZVOUS;
}

static MUST_CHECK struct err decode_balance(const Trilane__Parts__V1__Balance *m,
                                            struct dp_cluster *cluster)
{
    struct dp_balance *b = &cluster->balance;
    if (m == NULL) {
        b->panic_percent = PANIC_PERCENT_USUAL;
        return OK;
    }
    if (m->policy > TRILANE__PARTS__V1__BALANCE_POLICY__BALANCE_PEAK_EWMA ||
        m->panic_percent > 100) {
        return FAIL(E_PART_MALFORMED);
    }
    *b = (struct dp_balance){.policy = (enum dp_balance_policy)m->policy,
                             .hash_header = slice_str(m->hash_header),
                             .slow_start_ms = m->slow_start_ms,
                             .panic_percent = m->panic_percent};
    bool by_header = b->hash_header.size > 0;
    bool fits =
        hashes(b->policy) ? by_header != (m->hash_tenant != 0) : !by_header && m->hash_tenant == 0;
    bool few = b->policy != DP_BALANCE_RENDEZVOUS ||
               cluster->endpoint_count <= DP_RENDEZVOUS_ENDPOINTS_MAX;
    return fits && few ? OK : FAIL(E_PART_MALFORMED);
}

static MUST_CHECK struct err decode_outliers(const Trilane__Parts__V1__OutlierDetection *m,
                                             struct dp_outlier_detection *out)
{
    if (m == NULL) {
        return OK;
    }
    bool holds = m->consecutive_failures > 0 && m->statuses != 0 &&
                 (m->statuses & ~(uint32_t)STATUS_BITS) == 0 && m->interval_ms > 0 &&
                 m->base_ejection_ms > 0 && m->max_ejection_ms >= m->base_ejection_ms &&
                 m->max_ejection_percent > 0 && m->max_ejection_percent <= 100;
    if (!holds) {
        return FAIL(E_PART_MALFORMED);
    }
    *out = (struct dp_outlier_detection){
        .consecutive_failures = m->consecutive_failures,
        .statuses = m->statuses,
        .interval_ms = m->interval_ms,
        .base_ejection_ms = m->base_ejection_ms,
        .max_ejection_ms = m->max_ejection_ms,
        .max_ejection_percent = m->max_ejection_percent,
        .success_rate_hosts = m->success_rate_hosts,
        .success_rate_requests = m->success_rate_requests,
        .success_rate_stdev_milli = m->success_rate_stdev_milli,
    };
    return OK;
}

/* A board of health counts no further. */
enum { THRESHOLD_MAX = 60 };

static MUST_CHECK struct err decode_health(const Trilane__Parts__V1__HealthCheck *m,
                                           struct dp_health_check *out)
{
    if (m == NULL) {
        return OK;
    }
    bool http = m->kind == TRILANE__PARTS__V1__HEALTH_KIND__HEALTH_HTTP;
    bool grpc = m->kind == TRILANE__PARTS__V1__HEALTH_KIND__HEALTH_GRPC;
    bool holds = m->kind != TRILANE__PARTS__V1__HEALTH_KIND__HEALTH_NONE &&
                 m->kind <= TRILANE__PARTS__V1__HEALTH_KIND__HEALTH_TCP &&
                 (grpc || m->service[0] == '\0') && http == (m->path[0] == '/') &&
                 (http || m->path[0] == '\0') && m->interval_ms > 0 && m->timeout_ms > 0 &&
                 m->healthy_threshold > 0 && m->healthy_threshold <= THRESHOLD_MAX &&
                 m->unhealthy_threshold > 0 && m->unhealthy_threshold <= THRESHOLD_MAX;
    if (!holds) {
        return FAIL(E_PART_MALFORMED);
    }
    *out = (struct dp_health_check){.kind = (enum dp_health_kind)m->kind,
                                    .service = slice_str(m->service),
                                    .path = slice_str(m->path),
                                    .interval_ms = m->interval_ms,
                                    .timeout_ms = m->timeout_ms,
                                    .healthy = m->healthy_threshold,
                                    .unhealthy = m->unhealthy_threshold};
    return OK;
}

static MUST_CHECK struct err decode_sla(const Trilane__Parts__V1__Sla *m, struct dp_sla *out)
{
    if (m == NULL) {
        return OK;
    }
    if (m->latency_ms == 0 || m->percentile == 0 || m->percentile > 99 || m->interval_ms == 0 ||
        m->requests == 0) {
        return FAIL(E_PART_MALFORMED);
    }
    *out = (struct dp_sla){.latency_ms = m->latency_ms,
                           .percentile = m->percentile,
                           .interval_ms = m->interval_ms,
                           .requests = m->requests};
    return OK;
}

struct err dp_decode_balancing(const Trilane__Parts__V1__Cluster *m, struct arena *arena,
                               const struct dp_locality *here, struct dp_cluster *cluster)
{
    TRY(decode_balance(m->balance, cluster));
    TRY(decode_outliers(m->outlier_detection, &cluster->outliers));
    TRY(decode_health(m->health_check, &cluster->health));
    TRY(decode_sla(m->sla, &cluster->sla));
    if (m->circuit_breakers != NULL) {
        cluster->breakers =
            (struct dp_circuit_breakers){.requests = m->circuit_breakers->requests,
                                         .pending = m->circuit_breakers->pending,
                                         .connections = m->circuit_breakers->connections};
    }
    return dp_balance_build(arena, here, cluster);
}
