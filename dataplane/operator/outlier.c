/* outlier: see outlier.h. */
#include "dataplane/operator/outlier.h"

#include <math.h>

#include "common/base/check.h"
#include "common/base/ids.h"
#include "common/base/log.h"
#include "common/net/loop.h"
#include "dataplane/operator/upstream_impl.h"
#include "dataplane/request/metrics.h"

/* Slots that one turn of the judgement looks at. */
enum { JUDGE_BATCH = 512 };

static uint64_t now_of(const struct op_set *set)
{
    return net_loop_now_ns(set->ups->host->loop);
}

static struct metrics_shard *shard_of(const struct op_set *set)
{
    return dp_request_metrics_shard(set->ups->host->metrics);
}

static void ejected_moved(struct op_endpoint *e, int by)
{
    struct op_set *set = e->set;
    CHECK(by > 0 || set->ejected > 0);
    set->ejected = by > 0 ? set->ejected + 1 : set->ejected - 1;
    metrics_set(shard_of(set), set->metrics.ejected_now, (int64_t)set->ejected);
    op_set_count_out(e);
}

/* ---- out ---- */

/* One of several may always go, or the percentage would spare both of two. */
static bool may_go(const struct op_set *set)
{
    size_t max = set->count * set->outliers.max_ejection_percent / 100;
    return set->count > 1 && set->ejected < (max == 0 ? 1 : max);
}

/* So long for each time, and up to a tenth more, so that not all come back at once. */
static uint64_t ejection_ms(const struct op_endpoint *e)
{
    const struct dp_outlier_detection *rules = &e->set->outliers;
    uint64_t ms = (uint64_t)rules->base_ejection_ms * e->record.times;
    ms = ms > rules->max_ejection_ms ? rules->max_ejection_ms : ms;
    uint64_t draw = 0;
    ids_quick(&draw, sizeof(draw));
    return ms + draw % (ms / 10 + 1);
}

static void eject(struct op_endpoint *e, enum op_ejection why)
{
    struct op_set *set = e->set;
    if (e->record.ejected || !op_set_has(set, e) || !may_go(set)) {
        return;
    }
    e->record.times++;
    uint64_t ms = ejection_ms(e);
    e->record.ejected = true;
    e->record.ejected_until_ns = now_of(set) + ms * 1000000;
    e->record.failures_in_a_row = 0;
    ejected_moved(e, 1);
    metrics_add(shard_of(set), set->metrics.ejections[why], 1);
    LOG(LOG_WARN, "operator", "endpoint-ejected", LOG_STR("endpoint", e->text),
        LOG_SLICE("cluster", set->cluster),
        LOG_STR("why", why == OP_EJECTED_IN_A_ROW ? "failures in a row" : "success rate"),
        LOG_U64("ms", ms));
}

bool op_outlier_is_out(struct op_endpoint *e, uint64_t now_ns)
{
    if (!e->record.ejected || now_ns < e->record.ejected_until_ns) {
        return e->record.ejected;
    }
    struct op_set *set = e->set;
    e->record.ejected = false;
    e->record.failures_in_a_row = 0; /* of calls that were under way when it went. */
    e->joined_ns = now_ns;           /* it comes back slowly, where anybody does. */
    if (op_set_has(set, e)) {
        ejected_moved(e, -1);
    }
    LOG(LOG_INFO, "operator", "endpoint-back", LOG_STR("endpoint", e->text),
        LOG_SLICE("cluster", set->cluster));
    return false;
}

/* ---- how it did ---- */

void op_outlier_note(struct op_endpoint *e, bool failed)
{
    const struct dp_outlier_detection *rules = &e->set->outliers;
    struct op_record *record = &e->record;
    record->answers++;
    if (!failed) {
        record->failures_in_a_row = 0;
        return;
    }
    record->failures++;
    record->failures_in_a_row++;
    if (rules->consecutive_failures != 0 &&
        record->failures_in_a_row >= rules->consecutive_failures) {
        eject(e, OP_EJECTED_IN_A_ROW);
    }
}

/* ---- success rates ---- */

static bool has_enough(const struct op_set *set, const struct op_endpoint *e)
{
    return e->record.answers >= set->outliers.success_rate_requests;
}

static double rate_of(const struct op_endpoint *e)
{
    return 1.0 - (double)e->record.failures / (double)e->record.answers;
}

/* First of two walks: the sums. Whoever was good for an interval has one ejection less to its
 * name. */
static void gather(struct op_set *set, struct op_endpoint *e, uint64_t now_ns)
{
    struct op_judging *j = &set->judging;
    bool was_out = e->record.ejected;
    bool is_out = op_outlier_is_out(e, now_ns);
    if (!was_out && !is_out && e->record.times > 0 && e->record.failures == 0) {
        e->record.times--;
    }
    if (has_enough(set, e)) {
        double rate = rate_of(e);
        j->hosts++;
        j->sum += rate;
        j->squares += rate * rate;
    }
}

/* Between the walks: the rate that is too low. */
static double least_rate(const struct op_set *set)
{
    const struct op_judging *j = &set->judging;
    if (set->outliers.success_rate_hosts == 0 || j->hosts < set->outliers.success_rate_hosts) {
        return -1;
    }
    double mean = j->sum / (double)j->hosts;
    double variance = j->squares / (double)j->hosts - mean * mean;
    double stdev = variance > 0 ? sqrt(variance) : 0;
    return mean - stdev * set->outliers.success_rate_stdev_milli / 1000.0;
}

/* The second: ejects, and begins to count anew. */
static void judge(struct op_set *set, struct op_endpoint *e)
{
    if (has_enough(set, e) && rate_of(e) < set->judging.least) {
        eject(e, OP_EJECTED_BY_RATE);
    }
    e->record.answers = 0;
    e->record.failures = 0;
}

/* True: the walk is over. */
static bool walk_on(struct op_set *set)
{
    struct op_judging *j = &set->judging;
    uint64_t now_ns = now_of(set);
    for (size_t i = 0; i < JUDGE_BATCH && j->at < set->count; i++) {
        struct op_endpoint *e = set->slots[j->at++];
        if (e != NULL && j->second) {
            judge(set, e);
        } else if (e != NULL) {
            gather(set, e, now_ns);
        }
    }
    return j->at >= set->count;
}

void op_outlier_judge(struct net_timer *timer, void *ctx)
{
    struct op_set *set = ctx;
    struct op_judging *j = &set->judging;
    uint64_t next_ms = 1;
    if (walk_on(set)) {
        if (j->second) {
            *j = (struct op_judging){0};
            next_ms = set->outliers.interval_ms;
        } else {
            j->least = least_rate(set);
            j->second = true;
            j->at = 0;
        }
    }
    net_timer_arm(set->ups->host->loop, timer, next_ms);
}

/* ---- slots ---- */

void op_outlier_begin(struct op_set *set)
{
    set->ejected = 0;
    set->judging = (struct op_judging){0};
    metrics_set(shard_of(set), set->metrics.ejected_now, 0);
    if (set->outliers.consecutive_failures == 0) {
        net_timer_cancel(set->ups->host->loop, &set->judge_timer);
    } else {
        net_timer_arm(set->ups->host->loop, &set->judge_timer, set->outliers.interval_ms);
    }
}

void op_outlier_joined(struct op_endpoint *e)
{
    if (e->record.ejected && e->set->outliers.consecutive_failures == 0) {
        e->record = (struct op_record){0}; /* nobody is ejected any more. */
    }
    if (e->record.ejected) {
        ejected_moved(e, 1);
    }
}
