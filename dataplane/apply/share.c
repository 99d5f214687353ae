/*
 * share: the node's word of what is asked of the budgets that the fleet shares, and the shares that
 * answer it.
 *
 * Shares answer a demand of this very process, and hold so long behind the moment at which it was
 * said, by our own clock: whoever holds them back or sends them again gains nothing. See
 * share_order.h for which of them are taken.
 */
#include <string.h>

#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "common/base/scope.h"
#include "dataplane/apply/apply_impl.h"
#include "dataplane/request/budget.h"
#include "dataplane/request/metrics.h"

#define NS_PER_MS UINT64_C(1000000)

enum { DEMAND_MS = 1000, DEMAND_REST_MS = 250 };

static void count(struct dp_apply *a, enum dp_share_outcome outcome)
{
    struct slice label = slice_str(dp_share_outcome_label(outcome));
    if (label.size > 0) {
        metrics_add(a->config.shard, metrics_series(a->config.metrics, DP_METRIC_SHARES, &label),
                    1);
    }
}

/* Opens what a head key signed that is in time, and judges its order. */
static enum dp_share_outcome judge(struct dp_apply *a, struct slice bytes, uint64_t now_ns,
                                   struct shares *out)
{
    uint8_t environment[ENVIRONMENT_SIZE];
    const struct ring_key *key = NULL;
    const struct dp_share_heads heads = {.found = a->judge.has_order, .epoch = a->judge.epoch};
    int64_t tolerance_ms = (int64_t)limits.clock_tolerance_ms;
    snap_environment(a->config.environment, environment);
    struct err e = shares_open(bytes, environment, &a->judge.root.ring, out, &key);
    if (!err_ok(e) ||
        (key->not_after_ms != 0 && clock_wall_ms() > key->not_after_ms + tolerance_ms)) {
        return DP_SHARE_REFUSED;
    }
    return dp_share_judge(&a->share.order, &heads, out, now_ns / NS_PER_MS);
}

/* The next demand comes soon. */
static void hurry(struct dp_apply *a)
{
    uint64_t soon_ns = a->share.said_ns + DEMAND_REST_MS * NS_PER_MS;
    a->share.due_ns = soon_ns < a->share.due_ns ? soon_ns : a->share.due_ns;
}

static void take(struct dp_apply *a, struct slice bytes, uint64_t now_ns)
{
    struct shares s;
    enum dp_share_outcome outcome = judge(a, bytes, now_ns, &s);
    count(a, outcome);
    if (outcome != DP_SHARE_TAKEN) {
        return;
    }
    if (dp_budget_share(&s, a->share.order.until_ms * NS_PER_MS, now_ns)) {
        hurry(a); /* who waits for what we gave up has it then. */
    }
}

static struct err say(struct dp_apply *a, const struct demand *d)
{
    uint8_t environment[ENVIRONMENT_SIZE];
    snap_environment(a->config.environment, environment);
    auto_buf struct buf sealed =
        BUF_MAX(CONTAINER_HEADER_SIZE + CONTAINER_SIGNATURE_SIZE + DEMAND_BODY_MAX);
    TRY(demand_seal(d, environment, a->config.key, &sealed));
    return dp_feed_send_demand(&a->feed, buf_slice(&sealed));
}

static void send(struct dp_apply *a, struct demand *d)
{
    memcpy(d->node, a->config.node.ptr, a->config.node.size);
    a->share.order.said_ms = d->at_ms;
    struct err e = say(a, d);
    if (!err_ok(e)) {
        LOG(LOG_DEBUG, "apply", "demand-not-sent", LOG_ERR(e));
    }
}

void dp_share_give_up(struct dp_apply *a)
{
    uint64_t now_ns = clock_mono_ns();
    struct demand d = {.run = a->share.order.run, .at_ms = now_ns / NS_PER_MS};
    if (a->share.given_up) {
        return;
    }
    a->share.given_up = true;
    dp_budget_give_up(now_ns);
    if (a->share.order.said_ms != 0 && dp_feed_connected(&a->feed)) { /* else nobody knows. */
        d.at_ms += d.at_ms == a->share.order.said_ms;                 /* behind the last word. */
        send(a, &d);
    }
}

static void speak(struct dp_apply *a, uint64_t now_ns)
{
    struct demand d = {.run = a->share.order.run, .at_ms = now_ns / NS_PER_MS};
    if (dp_budget_is_news()) {
        hurry(a);
    }
    if (a->config.key == NULL || !dp_feed_connected(&a->feed) || now_ns < a->share.due_ns) {
        return;
    }
    a->share.said_ns = now_ns;
    a->share.due_ns = now_ns + DEMAND_MS * NS_PER_MS;
    dp_budget_demand(now_ns, &d);
    if (d.count == 0) {
        return;
    }
    if (now_ns / NS_PER_MS < a->share.order.until_ms) {
        d.epoch = a->share.order.epoch;
        d.sequence = a->share.order.sequence;
    }
    send(a, &d);
}

void dp_share_turn(struct dp_apply *a)
{
    uint64_t now_ns = clock_mono_ns();
    dp_budget_slept(clock_boot_ns() - now_ns, now_ns);
    if (a->handed && a->standing.draining) {
        dp_share_give_up(a); /* another process serves, and asks for itself. */
    }
    if (a->share.given_up) {
        return;
    }
    for (size_t i = 0; i < DP_FEED_SHARES_MAX; i++) { /* none stands in the way of another one. */
        struct bus_message *message = dp_feed_shares(&a->feed);
        if (message == NULL) {
            break;
        }
        take(a, message->payload, now_ns);
        bus_message_free(message);
    }
    speak(a, now_ns);
}
