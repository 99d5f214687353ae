/*
 * share: the node's word of what is asked of the budgets that the fleet shares, and the shares that
 * answer it.
 *
 * Shares answer a demand of this very process, and hold so long behind the moment at which it was
 * said, by our own clock: whoever holds them back or sends them again gains nothing. An order below
 * the last one, or an epoch below that of the heads, is of who leads no more.
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

static void count(struct dp_apply *a, const char *outcome)
{
    struct slice label = slice_str(outcome);
    metrics_add(a->config.shard, metrics_series(a->config.metrics, DP_METRIC_SHARES, &label), 1);
}

static bool is_of_now(const struct dp_apply *a, const struct shares *s, uint64_t now_ns)
{
    bool ours = slice_eq(slice_str(s->node), a->config.node) && s->run == a->share.run;
    bool newer = s->epoch > a->share.epoch ||
                 (s->epoch == a->share.epoch && s->sequence > a->share.sequence);
    bool leads = !a->judge.has_order || s->epoch >= a->judge.epoch;
    return ours && newer && leads && now_ns < (s->at_ms + s->valid_ms) * NS_PER_MS;
}

static void take(struct dp_apply *a, struct slice bytes, uint64_t now_ns)
{
    uint8_t environment[ENVIRONMENT_SIZE];
    const struct ring_key *key = NULL;
    struct shares s;
    snap_environment(a->config.environment, environment);
    struct err e = shares_open(bytes, environment, &a->judge.root.ring, &s, &key);
    int64_t tolerance_ms = (int64_t)limits.clock_tolerance_ms;
    bool in_time = err_ok(e) &&
                   (key->not_after_ms == 0 || clock_wall_ms() <= key->not_after_ms + tolerance_ms);
    if (!in_time) {
        count(a, "refused");
        return;
    }
    if (!is_of_now(a, &s, now_ns)) {
        count(a, "late");
        return;
    }
    a->share.epoch = s.epoch;
    a->share.sequence = s.sequence;
    uint64_t until_ns = (s.at_ms + s.valid_ms) * NS_PER_MS;
    if (dp_budget_share(&s, until_ns, now_ns)) { /* who waits for what we gave up has it then. */
        uint64_t soon_ns = a->share.said_ns + DEMAND_REST_MS * NS_PER_MS;
        a->share.due_ns = soon_ns < a->share.due_ns ? soon_ns : a->share.due_ns;
    }
    a->share.until_ns = until_ns;
    count(a, "taken");
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

static void speak(struct dp_apply *a, uint64_t now_ns)
{
    struct demand d = {.run = a->share.run, .at_ms = now_ns / NS_PER_MS};
    if (a->config.key == NULL || !dp_feed_connected(&a->feed) || now_ns < a->share.due_ns) {
        return;
    }
    a->share.said_ns = now_ns;
    a->share.due_ns = now_ns + DEMAND_MS * NS_PER_MS;
    dp_budget_demand(now_ns, &d);
    if (d.count == 0) {
        return;
    }
    if (now_ns < a->share.until_ns) {
        d.epoch = a->share.epoch;
        d.sequence = a->share.sequence;
    }
    memcpy(d.node, a->config.node.ptr, a->config.node.size);
    struct err e = say(a, &d);
    if (!err_ok(e)) {
        LOG(LOG_DEBUG, "apply", "demand-not-sent", LOG_ERR(e));
    }
}

void dp_share_turn(struct dp_apply *a)
{
    struct bus_message *message = dp_feed_shares(&a->feed);
    uint64_t now_ns = clock_mono_ns();
    dp_budget_slept(clock_boot_ns() - now_ns);
    if (message != NULL) {
        take(a, message->payload, now_ns);
        bus_message_free(message);
    }
    speak(a, now_ns);
}
