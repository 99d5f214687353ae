/* share_order: see share_order.h. */
#include "dataplane/apply/share_order.h"

#include "common/snapshot/format.h"

const char *dp_share_outcome_label(enum dp_share_outcome outcome)
{
    static const char *const labels[] = {
#define X(name, label) label,
        DP_SHARE_OUTCOMES(X)
#undef X
    };
    return labels[outcome];
}

/* What no leader says to this process: of a moment that is yet to come, or of a leader that heads
 * could not go over to. */
static bool is_possible(const struct dp_share_order *order, const struct dp_share_heads *heads,
                        const struct shares *s)
{
    bool jumps =
        heads->found && s->epoch > heads->epoch && s->epoch - heads->epoch > HEAD_EPOCH_JUMP;
    return s->at_ms <= order->said_ms && !jumps;
}

static bool is_newer(const struct dp_share_order *order, const struct dp_share_heads *heads,
                     const struct shares *s, uint64_t now_ms)
{
    bool alone = heads->found && order->epoch > heads->epoch && now_ms >= order->until_ms;
    return alone || s->epoch > order->epoch ||
           (s->epoch == order->epoch && s->sequence > order->sequence);
}

enum dp_share_outcome dp_share_judge(struct dp_share_order *order,
                                     const struct dp_share_heads *heads,
                                     const struct shares *shares, uint64_t now_ms)
{
    const struct shares *s = shares;
    if (!slice_eq(slice_str(s->node), order->node) || s->run != order->run) {
        return DP_SHARE_LATE;
    }
    if (!is_possible(order, heads, s)) {
        return DP_SHARE_REFUSED;
    }
    if (s->epoch == order->epoch && s->sequence == order->sequence) {
        return DP_SHARE_SAME;
    }
    bool leads = !heads->found || s->epoch >= heads->epoch;
    if (!leads || !is_newer(order, heads, s, now_ms) || now_ms >= s->at_ms + s->valid_ms) {
        return DP_SHARE_LATE;
    }
    order->epoch = s->epoch;
    order->sequence = s->sequence;
    order->until_ms = s->at_ms + s->valid_ms;
    return DP_SHARE_TAKEN;
}
