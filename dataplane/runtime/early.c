/* early: see early.h. */
#include "dataplane/runtime/early.h"

#include "common/base/clock.h"
#include "dataplane/request/metrics.h"
#include "dataplane/request/refusals.h"
#include "dataplane/runtime/port.h"
#include "dataplane/runtime/worker.h"

static void count(struct dp_worker *w, const struct dp_early *early)
{
    const struct slice labels[] = {slice_str(early->protocol),
                                   slice_str(err_name(early->why.code))};
    metrics_add(w->shard, metrics_series(w->config->metrics, DP_METRIC_REQUESTS_EARLY, labels), 1);
}

static void keep(const struct dp_worker *w, const struct dp_early *early, uint64_t id,
                 uint64_t version)
{
    enum err_code code = early->why.code;
    struct dp_refusal entry = {
        .id = id,
        .time_ms = clock_wall_ms(),
        .boot_ms = clock_boot_ns() / 1000000,
        .version = version,
        .code = (int32_t)code,
        .grpc_status = (int16_t)(early->is_grpc ? err_grpc_status(code) : -1),
        .http_status = (int16_t)early->http_status,
    };
    struct slice path = slice_head(early->path, slice_find(early->path, '?'));
    dp_refusal_set(&entry, DP_REFUSAL_METHOD, path);
    dp_refusal_set(&entry, DP_REFUSAL_PEER, slice_str(early->conn->peer));
    dp_refusal_set(&entry, DP_REFUSAL_SENTENCE, early->sentence);
    dp_refusal_set(&entry, DP_REFUSAL_WHERE, slice_str(early->why.where));
    dp_refusals_add(w->refusals, &entry);
}

struct http1_refusal dp_early_note(const struct dp_early *early)
{
    struct dp_worker *w = early->conn->port->worker;
    const struct dp_model *model = dp_request_pool_model(&w->pool);
    uint64_t id = dp_refusals_id(w->refusals);
    struct http1_refusal told = {.version = model == NULL ? 0 : dp_model_version(model)};
    count(w, early);
    if (id != 0) {
        keep(w, early, id, told.version);
        dp_refusal_id_format(id, w->early_id);
        told.explain = slice_of(w->early_id, DP_REFUSAL_ID_SIZE);
    }
    return told;
}

struct grpc_refusal dp_early_grpc(const struct dp_early *early)
{
    struct dp_early in_grpc = *early;
    in_grpc.is_grpc = true;
    in_grpc.http_status = 200;
    struct http1_refusal told = dp_early_note(&in_grpc);
    return (struct grpc_refusal){.code = early->why.code,
                                 .sentence = early->sentence,
                                 .explain = told.explain,
                                 .version = told.version};
}

void dp_early_answer(const struct dp_early *early, struct http1_exchange *x)
{
    struct dp_early in_http = *early;
    in_http.http_status = err_http_status(early->why.code);
    struct http1_refusal told = dp_early_note(&in_http);
    if (early->why.code == E_METHOD_NOT_ALLOWED) {
        told.allow = DP_EARLY_METHODS;
    }
    if (!err_ok(http1_respond_error(x, early->why, &told))) {
        http1_exchange_abort(x);
    }
}

struct http1_refusal dp_early_refused(const struct dp_caller_conn *c, struct dp_request *rq,
                                      unsigned status, struct err why)
{
    if (rq != NULL) {
        return (struct http1_refusal){.explain = dp_request_explain(rq),
                                      .version =
                                          rq->model == NULL ? 0 : dp_model_version(rq->model)};
    }
    const struct dp_early early = {
        .conn = c, .protocol = "http1", .why = why, .http_status = (int)status};
    return dp_early_note(&early);
}
