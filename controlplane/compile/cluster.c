/* cluster: how calls are spread over a service's endpoints, and how these are judged. What a
 * service does not ask for is left out: then its part is as it was before there was such a thing.
 */
#include "controlplane/compile/compiler.h"

/* UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS: what speaks of a server, not of
 * what it was asked for. */
enum { FAILURE_STATUSES = 1 << 2 | 1 << 4 | 1 << 13 | 1 << 14 | 1 << 15 };

static MUST_CHECK struct err pack_balance(struct cp_compiler *c, const struct cp_balance *from,
                                          Trilane__Parts__V1__Cluster *part)
{
    if (from->at.line == 0) {
        return OK;
    }
    TRY(arena_calloc(c->arena, 1, sizeof(*part->balance), (void **)&part->balance));
    trilane__parts__v1__balance__init(part->balance);
    part->balance->policy = (Trilane__Parts__V1__BalancePolicy)from->policy;
    part->balance->hash_header = cp_str(from->hash_by.header.text);
    part->balance->hash_tenant = from->hash_by.tenant != 0;
    part->balance->slow_start_ms = (uint32_t)from->slow_start_ms;
    part->balance->panic_percent = (uint32_t)from->panic_percent;
    return OK;
}

static MUST_CHECK struct err pack_outlier_detection(struct cp_compiler *c,
                                                    const struct cp_outlier_detection *from,
                                                    Trilane__Parts__V1__Cluster *part)
{
    if (from->at.line == 0) {
        return OK;
    }
    Trilane__Parts__V1__OutlierDetection *m = NULL;
    TRY(arena_calloc(c->arena, 1, sizeof(*m), (void **)&m));
    trilane__parts__v1__outlier_detection__init(m);
    m->consecutive_failures = (uint32_t)from->consecutive_failures;
    m->statuses = from->statuses == 0 ? FAILURE_STATUSES : (uint32_t)(from->statuses << 1);
    m->interval_ms = (uint32_t)from->interval_ms;
    m->base_ejection_ms = (uint32_t)from->base_ejection_ms;
    m->max_ejection_ms = (uint32_t)from->max_ejection_ms;
    m->max_ejection_percent = (uint32_t)from->max_ejection_percent;
    m->success_rate_hosts = (uint32_t)from->success_rate_hosts;
    m->success_rate_requests = (uint32_t)from->success_rate_requests;
    m->success_rate_stdev_milli = (uint32_t)from->success_rate_stdev_milli;
    part->outlier_detection = m;
    return OK;
}

static MUST_CHECK struct err pack_circuit_breakers(struct cp_compiler *c,
                                                   const struct cp_circuit_breakers *from,
                                                   Trilane__Parts__V1__Cluster *part)
{
    if (from->at.line == 0) {
        return OK;
    }
    Trilane__Parts__V1__CircuitBreakers *m = NULL;
    TRY(arena_calloc(c->arena, 1, sizeof(*m), (void **)&m));
    trilane__parts__v1__circuit_breakers__init(m);
    m->requests = (uint32_t)from->requests;
    m->pending = (uint32_t)from->pending;
    m->connections = (uint32_t)from->connections;
    part->circuit_breakers = m;
    return OK;
}

static MUST_CHECK struct err pack_health_check(struct cp_compiler *c,
                                               const struct cp_health_check *from,
                                               Trilane__Parts__V1__Cluster *part)
{
    if (from->at.line == 0) {
        return OK;
    }
    Trilane__Parts__V1__HealthCheck *m = NULL;
    TRY(arena_calloc(c->arena, 1, sizeof(*m), (void **)&m));
    trilane__parts__v1__health_check__init(m);
    bool http = from->http.at.line > 0;
    m->kind = from->grpc.at.line > 0 ? TRILANE__PARTS__V1__HEALTH_KIND__HEALTH_GRPC
              : http                 ? TRILANE__PARTS__V1__HEALTH_KIND__HEALTH_HTTP
                                     : TRILANE__PARTS__V1__HEALTH_KIND__HEALTH_TCP;
    m->service = cp_str(from->grpc.service.text);
    m->path = cp_str(from->http.path.text);
    m->interval_ms = (uint32_t)from->interval_ms;
    m->timeout_ms = (uint32_t)from->timeout_ms;
    m->healthy_threshold = (uint32_t)from->healthy_threshold;
    m->unhealthy_threshold = (uint32_t)from->unhealthy_threshold;
    part->health_check = m;
    return OK;
}

static MUST_CHECK struct err pack_sla(struct cp_compiler *c, const struct cp_sla *from,
                                      Trilane__Parts__V1__Cluster *part)
{
    if (from->at.line == 0) {
        return OK;
    }
    TRY(arena_calloc(c->arena, 1, sizeof(*part->sla), (void **)&part->sla));
    trilane__parts__v1__sla__init(part->sla);
    part->sla->latency_ms = (uint32_t)from->latency_ms;
    part->sla->percentile = (uint32_t)from->percentile;
    part->sla->interval_ms = (uint32_t)from->interval_ms;
    part->sla->requests = (uint32_t)from->requests;
    return OK;
}

struct err cp_pack_balancing(struct cp_compiler *c, const struct cp_service *service,
                             Trilane__Parts__V1__Cluster *part)
{
    TRY(pack_balance(c, &service->balance, part));
    TRY(pack_outlier_detection(c, &service->outlier_detection, part));
    TRY(pack_circuit_breakers(c, &service->circuit_breakers, part));
    TRY(pack_health_check(c, &service->health_check, part));
    TRY(pack_sla(c, &service->sla, part));
    cp_needs(c, CAPABILITY_BALANCING,
             part->balance != NULL || part->outlier_detection != NULL ||
                 part->circuit_breakers != NULL || part->health_check != NULL || part->sla != NULL);
    return OK;
}
