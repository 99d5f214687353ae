/* canonical: the lane's table, and which of the three methods a call is. */
#include "dataplane/canonical/canonical.h"

#include "common/base/check.h"
#include "dataplane/canonical/publish.h"
#include "dataplane/canonical/state.h"
#include "dataplane/canonical/subscribe.h"
#include "dataplane/request/request.h"

static struct err start(const struct dp_lane_host *host, void **out_state)
{
    struct canon *lane = NULL;
    TRY(canon_new(host, &lane));
    *out_state = lane;
    return OK;
}

static void stop(void *state)
{
    canon_free(state);
}

/* ---- the three methods ---- */

static struct err start_publish(struct dp_request *rq)
{
    return canon_publish_start(rq, /* one= */ false);
}

static struct err start_publish_one(struct dp_request *rq)
{
    return canon_publish_start(rq, /* one= */ true);
}

/* What goes on behind a Publish is nothing: its next envelope is decided by itself. */
static struct err redecide_publish(struct dp_request *rq)
{
    (void)rq;
    return OK;
}

struct method {
    const char *path;
    enum dp_verb verb;
    bool unbounded;
    struct err (*start)(struct dp_request *rq);
    void (*abort)(struct dp_request *rq, struct err why);
    struct err (*redecide)(struct dp_request *rq);
};

static const struct method methods[] = {
    {"/trilane.bus.v1.Bus/Publish", DP_VERB_PUBLISH, true, start_publish, canon_publish_abort,
     redecide_publish},
    {"/trilane.bus.v1.Bus/PublishOne", DP_VERB_PUBLISH, false, start_publish_one,
     canon_publish_abort, redecide_publish},
    {"/trilane.bus.v1.Bus/Subscribe", DP_VERB_SUBSCRIBE, true, canon_subscribe_start,
     canon_subscribe_abort, canon_subscribe_redecide},
};

/* NULL: none of them. */
static const struct method *find_method(const struct dp_request *rq)
{
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        if (slice_eq(rq->in.path, slice_str(methods[i].path))) {
            return &methods[i];
        }
    }
    return NULL;
}

/* ---- the lane ---- */

/* Types stand in the messages, so each envelope and each opening is decided by itself. */
static struct err route(struct dp_request *rq)
{
    const struct method *method = find_method(rq);
    if (method == NULL || rq->stream == NULL) {
        return FAIL(E_NO_ROUTE);
    }
    rq->deferred = true;
    rq->unbounded = method->unbounded;
    rq->verb = method->verb;
    rq->method = slice_str(method->path);
    return OK;
}

static struct err forward(struct dp_request *rq)
{
    const struct canon *lane = rq->pool->lanes[DP_LANE_CANONICAL];
    const struct method *method = find_method(rq);
    CHECK(method != NULL);
    return lane->host.bus == NULL ? FAIL(E_BUS_UNAVAILABLE) : method->start(rq);
}

static void abort_call(struct dp_request *rq, struct err why)
{
    const struct method *method = find_method(rq);
    CHECK(method != NULL);
    method->abort(rq, why);
}

static struct err redecide(struct dp_request *rq)
{
    const struct method *method = find_method(rq);
    CHECK(method != NULL);
    return method->redecide(rq);
}

static void drain(void *state)
{
    struct canon *lane = state;
    lane->draining = true;
    canon_subscriptions_drain(lane);
    canon_publishes_drain(lane);
}

const struct dp_lane dp_canonical_lane = {.id = DP_LANE_CANONICAL,
                                          .name = "canonical",
                                          .start = start,
                                          .stop = stop,
                                          .route = route,
                                          .forward = forward,
                                          .abort = abort_call,
                                          .redecide = redecide,
                                          .drain = drain};
