/*
 * policy: the walk of decision graphs.
 *
 * The compiler (controlplane/compile/authorisation.c) did the work: rules that can no longer
 * apply are gone, tests are shared, every path ends in a verdict. What is left is to follow
 * references. They lead to higher indexes only, which dp_policy_build() checks, so a walk ends
 * after at most node_count steps. Most targets have one graph; of several the verdicts are judged
 * as the rules are: deny wins, then the smallest rule.
 */
#include "dataplane/request/policy.h"

#include "common/base/check.h"
#include "common/base/map.h"
#include "common/base/text.h"
#include "dataplane/apply/model.h"
#include "dataplane/request/policy_impl.h"

#include "trilane/parts/v1/parts.pb-c.h"

static const char *const verb_names[] = {[DP_VERB_CALL] = "call",
                                         [DP_VERB_PUBLISH] = "publish",
                                         [DP_VERB_SUBSCRIBE] = "subscribe",
                                         [DP_VERB_FETCH] = "fetch"};
_Static_assert(sizeof(verb_names) / sizeof(verb_names[0]) == DP_VERB_COUNT, "one a verb");

struct slice dp_verb_name(enum dp_verb verb)
{
    CHECK(verb < DP_VERB_COUNT);
    return slice_str(verb_names[verb]);
}

struct slice dp_policy_target_id(const struct dp_policy_target *target)
{
    return target->id;
}

bool dp_caller_trait(const struct dp_caller *caller, struct slice name, struct slice *out)
{
    for (size_t i = 0; i < caller->trait_count; i++) {
        if (slice_eq(caller->traits[i].name, name)) {
            *out = caller->traits[i].value;
            return true;
        }
    }
    return false;
}

bool dp_policy_reads_clock(const struct dp_policy_target *target)
{
    return target != NULL && target->schedule_count > 0;
}

bool policy_schedule_holds(const struct policy_schedule *schedule, int64_t wall_ms)
{
    enum { MINUTE_MS = 60000, WEEK_MINUTES = 7 * 24 * 60, THURSDAY_MINUTES = 3 * 24 * 60 };
    if (wall_ms < 0 || (uint64_t)wall_ms < schedule->not_before_ms ||
        (schedule->not_after_ms != 0 && (uint64_t)wall_ms >= schedule->not_after_ms)) {
        return false;
    }
    if (schedule->span_count == 0) {
        return true;
    }
    /* The wall clock's first minute was one of a Thursday. */
    uint32_t minute = (uint32_t)((wall_ms / MINUTE_MS + THURSDAY_MINUTES) % WEEK_MINUTES);
    for (size_t i = 0; i < schedule->span_count && schedule->spans[i].from <= minute; i++) {
        if (minute < schedule->spans[i].to) {
            return true;
        }
    }
    return false;
}

/* The value of an attribute; false when there is none, which matches no edge and no glob. */
static bool attribute_value(const struct dp_policy_target *t, const struct policy_node *node,
                            const struct dp_policy_query *query, struct slice *out)
{
    const struct dp_caller *caller = query->caller;
    switch (node->attribute) {
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_VERB:
        *out = dp_verb_name(query->verb);
        return true;
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_METHOD:
        *out = query->method;
        return true;
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_CALLER:
        *out = caller->id;
        return true;
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_CALLER_TENANT:
        *out = caller->tenant;
        return true;
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_CALLER_TRUST_DOMAIN:
        *out = caller->domain;
        return true;
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_TRAIT:
        return dp_caller_trait(caller, node->name, out);
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_HEADER:
        return query->header != NULL && query->header(query->ctx, node->name, out);
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_LANE:
        *out = query->lane;
        return true;
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_SCHEDULE:
        *out = SLICE_LIT("in");
        return policy_schedule_holds(&t->schedules[node->schedule], query->wall_ms);
    default:
        CHECK(false); /* dp_policy_build() let no other in. */
        return false;
    }
}

static uint32_t find_edge(const struct dp_policy_target *t, const struct policy_node *node,
                          struct slice value)
{
    const struct policy_edge *edges = &t->edges[node->first_edge];
    uint64_t hash = map_hash(value);
    for (uint64_t at = hash;; at++) { /* ends: half of the places are free. */
        uint64_t place = t->places[node->first_place + (at & node->place_mask)];
        if (place == 0) {
            return node->otherwise;
        }
        const struct policy_edge *edge = &edges[(uint32_t)place - 1];
        if (place >> 32 == hash >> 32 && slice_eq(edge->value, value)) {
            return edge->to;
        }
    }
}

/* How many edges have a value that is not greater. */
static uint32_t count_up_to(const struct policy_edge *edges, uint32_t count, struct slice value)
{
    uint32_t low = 0;
    uint32_t high = count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (slice_cmp(edges[middle].value, value) <= 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static uint32_t follow_edge(const struct dp_policy_target *t, const struct policy_node *node,
                            struct slice value)
{
    const struct policy_edge *edges = &t->edges[node->first_edge];
    if (node->place_mask != 0) {
        return find_edge(t, node, value);
    }
    uint32_t edge = count_up_to(edges, node->edge_count, value);
    if (!node->prefixes) {
        bool found = edge > 0 && slice_eq(edges[edge - 1].value, value);
        return found ? edges[edge - 1].to : node->otherwise;
    }
    /* All prefixes of the value are among those that the greatest one up to it begins with. */
    while (edge > 0 && !slice_starts(value, edges[edge - 1].value)) {
        edge = edges[edge - 1].parent;
    }
    return edge > 0 ? edges[edge - 1].to : node->otherwise;
}

/* The verdict of one graph. */
static uint32_t walk(const struct dp_policy_target *target, uint32_t root,
                     const struct dp_policy_query *query)
{
    uint32_t at = root;
    while (at < target->node_count) {
        const struct policy_node *node = &target->nodes[at];
        struct slice value = {0};
        uint32_t next = node->otherwise;
        if (attribute_value(target, node, query, &value)) {
            next = node->edge_count > 0           ? follow_edge(target, node, value)
                   : text_glob(node->glob, value) ? node->matched
                                                  : node->otherwise;
        }
        CHECK(next > at);
        at = next;
    }
    return at - target->node_count;
}

/* The verdict that wins: 'best' or that of one of the graphs. 0: no rule held. */
static uint32_t judge(const struct dp_policy_target *target, const struct policy_roots *roots,
                      const struct dp_policy_query *query, uint32_t best)
{
    for (size_t i = 0; i < roots->count; i++) {
        uint32_t found = walk(target, roots->items[i], query);
        if (found == 0 || best == 0) {
            best = found == 0 ? best : found;
            continue;
        }
        bool wins = target->verdicts[found].allow == target->verdicts[best].allow
                        ? found < best
                        : !target->verdicts[found].allow;
        best = wins ? found : best;
    }
    return best;
}

struct dp_verdict dp_policy_decide(const struct dp_policy_target *target,
                                   const struct dp_policy_query *query)
{
    CHECK(query->caller != NULL);
    if (target == NULL) {
        return (struct dp_verdict){.allow = false};
    }
    if (query->fast && target->fast.count > 0) {
        struct dp_verdict fast = target->verdicts[judge(target, &target->fast, query, 0)];
        fast.fast = true;
        return fast;
    }
    uint32_t best = judge(target, &target->decides, query, 0);
    struct dp_verdict verdict = target->verdicts[best];
    if (target->shadow.count > 0) {
        uint32_t other = judge(target, &target->shadow, query, best);
        if (target->verdicts[other].allow != verdict.allow) {
            verdict.shadow = target->verdicts[other].rule;
        }
    }
    return verdict;
}
