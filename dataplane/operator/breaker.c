/* breaker: see breaker.h. */
#include "dataplane/operator/breaker.h"

#include "dataplane/operator/upstream_impl.h"
#include "dataplane/request/metrics.h"

bool op_breaker_is_open(const struct op_set *set, enum op_breaker which)
{
    bool requests = which == OP_BREAKER_REQUESTS;
    uint64_t max = requests ? set->breakers.requests : set->breakers.pending;
    uint64_t now = set->pending + (requests ? (uint64_t)set->active : 0);
    uint64_t workers = set->ups->host->worker_count == 0 ? 1 : set->ups->host->worker_count;
    return max != 0 && now >= (max + workers - 1) / workers;
}

struct err op_breaker_refuse(struct op_set *set, enum op_breaker which)
{
    metrics_add(dp_request_metrics_shard(set->ups->host->metrics), set->metrics.broken[which], 1);
    return FAIL(E_CIRCUIT_OPEN);
}
