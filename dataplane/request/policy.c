/*
 * policy: the walk of decision graphs.
 *
 * The compiler (controlplane/compile/authorisation.c) did the work: rules that can no longer
 * apply are gone, tests are shared, every path ends in a verdict. What is left is to follow
 * references. They lead to higher indexes only, which dp_policy_build() checks, so a walk ends
 * after at most node_count steps. Most targets have one graph; of several the verdicts are judged
 * as the rules are: deny wins, then the smallest rule. A value is looked up when the first node
 * asks for it, and is a number for all nodes of all graphs of the decision.
 */
#include "dataplane/request/policy.h"

#include "common/base/check.h"
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

/* ---- values ---- */

/* The value of a column; false when there is none, which matches no edge and no glob. */
static bool column_value(const struct dp_policy_target *t, const struct policy_column *column,
                         const struct dp_policy_query *query, struct slice *out)
{
    if (column->attribute == TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_SCHEDULE) {
        *out = SLICE_LIT("in");
        return policy_schedule_holds(&t->schedules[column->index], query->wall_ms);
    }
    if (column->attribute == TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_COMPARISON) {
        enum policy_compared compared = policy_compare(&t->comparisons[column->index], query);
        *out = compared == POLICY_IN ? SLICE_LIT("in") : SLICE_LIT("out");
        return compared != POLICY_NO_NUMBER;
    }
    return policy_value(query, column->attribute, column->name, out);
}

/* What is known of a column's value. */
struct answer {
    struct slice text;
    uint32_t record; /* of the text among the column's values; 0: none. */
    uint32_t front;  /* number of the longest that it begins with. */
    bool there;
    bool has_record; /* it was looked up. */
    bool has_front;
};

/* A decision on its way. */
struct asking {
    const struct dp_policy_target *target;
    const struct dp_policy_query *query;
    uint32_t known; /* bit (1 << column) of each whose answer is kept. */
    struct answer kept[DP_POLICY_KEPT];
    struct answer other; /* of the column that was asked last, of those that are not kept. */
};

/* Answers are not cleared: none is read before it is known. */
static void begin(struct asking *asking, const struct dp_policy_target *target,
                  const struct dp_policy_query *query)
{
    asking->target = target;
    asking->query = query;
    asking->known = 0;
}

static struct answer *find_answer(struct asking *asking, uint32_t column)
{
    const struct dp_policy_target *t = asking->target;
    bool keeps = column < DP_POLICY_KEPT;
    struct answer *answer = keeps ? &asking->kept[column] : &asking->other;
    if (keeps && (asking->known >> column & 1) != 0) {
        return answer;
    }
    answer->has_record = false;
    answer->has_front = false;
    answer->there = column_value(t, &t->columns[column], asking->query, &answer->text);
    asking->known |= keeps ? 1U << column : 0;
    return answer;
}

static void look_up(const struct dp_policy_target *t, uint32_t column, struct answer *answer,
                    uint64_t hash)
{
    answer->record = policy_find_text(t, t->columns[column].values, answer->text, hash);
    answer->has_record = true;
}

/*
 * Looks up who calls what, before several graphs ask for it: the tables of many rules lie outside
 * of a core's nearest cache, and so are waited for at once.
 */
static void look_up_early(struct asking *asking)
{
    const struct dp_policy_target *t = asking->target;
    const uint32_t columns[] = {POLICY_COLUMN_CALLER, POLICY_COLUMN_METHOD};
    struct answer *answers[2];
    uint64_t hashes[2];
    for (size_t i = 0; i < 2; i++) {
        struct policy_table table = t->columns[columns[i]].values;
        answers[i] = find_answer(asking, columns[i]);
        hashes[i] = policy_hash(answers[i]->text);
        __builtin_prefetch(&t->places[table.first + (hashes[i] & table.mask)]);
    }
    for (size_t i = 0; i < 2; i++) {
        look_up(t, columns[i], answers[i], hashes[i]);
    }
}

/* ---- graphs ---- */

/* Where a number leads, by the places of its hash; 0: no edge has it. */
static uint32_t find_place(const struct dp_policy_target *t, const struct policy_node *node,
                           uint32_t number)
{
    const struct policy_edge *edges = &t->edges[node->first];
    uint32_t mask = UINT32_MAX >> node->second;
    for (uint32_t at = policy_edge_place(node, number);; at++) { /* ends: half are free. */
        const struct policy_edge *edge = &edges[at & mask];
        if (edge->number == number || edge->number == 0) {
            return edge->to; /* 0, when it is free. */
        }
    }
}

/* Where a number leads; 0, which no edge leads to: none has it. */
static uint32_t find_edge(const struct dp_policy_target *t, const struct policy_node *node,
                          uint32_t number)
{
    if (node->kind == POLICY_DENSE) {
        uint32_t at = number - t->dense[node->first]; /* a lesser one wraps around. */
        return at < node->second ? t->dense[node->first + 1 + at] : 0;
    }
    if (node->kind == POLICY_MANY) {
        return find_place(t, node, number);
    }
    const struct policy_edge *edges = &t->edges[node->first];
    for (uint32_t i = 0; i < node->second; i++) {
        if (edges[i].number == number) {
            return edges[i].to;
        }
    }
    return 0;
}

/* By the longest front that the node names. */
static uint32_t follow_front(const struct dp_policy_target *t, const struct policy_node *node,
                             struct answer *answer)
{
    const struct policy_column *column = &t->columns[node->column];
    if (!answer->has_front) {
        bool known = answer->has_record && answer->record != 0;
        answer->front = known ? t->texts[answer->record + POLICY_RECORD_FRONT]
                              : policy_find_front(t, column, answer->text);
        answer->has_front = true;
    }
    uint32_t front = answer->front;
    while (front != 0) { /* ends: a front's parent has a lower number. */
        uint32_t to = find_edge(t, node, front);
        if (to != 0) {
            return to;
        }
        front = t->parents[column->first_front + front - 1];
    }
    return node->otherwise;
}

/* By the value of the node's column. Where one node asks for one value, comparing them is less than
 * looking the value up. */
static uint32_t follow_value(const struct dp_policy_target *t, const struct policy_node *node,
                             struct answer *answer)
{
    if (!answer->has_record) {
        if (node->kind == POLICY_ONE && !t->several) {
            return slice_eq(policy_record_text(t->texts + node->first), answer->text)
                       ? node->second
                       : node->otherwise;
        }
        look_up(t, node->column, answer, policy_hash(answer->text));
    }
    if (answer->record == 0) {
        return node->otherwise;
    }
    if (node->kind == POLICY_ONE) {
        return node->first == answer->record ? node->second : node->otherwise;
    }
    uint32_t to = find_edge(t, node, t->texts[answer->record + POLICY_RECORD_NUMBER]);
    return to != 0 ? to : node->otherwise;
}

static uint32_t follow(struct asking *asking, const struct policy_node *node)
{
    const struct dp_policy_target *t = asking->target;
    struct answer *answer = find_answer(asking, node->column);
    bool fits = false;
    if (!answer->there) {
        return node->otherwise;
    }
    switch ((enum policy_kind)node->kind) {
    case POLICY_ONE:
        return follow_value(t, node, answer);
    case POLICY_FEW:
    case POLICY_MANY:
    case POLICY_DENSE:
        return node->fronts ? follow_front(t, node, answer) : follow_value(t, node, answer);
    case POLICY_ANY:
        fits = true;
        break;
    case POLICY_FRONT:
        fits = slice_starts(answer->text, policy_record_text(t->texts + node->first));
        break;
    case POLICY_GLOB:
        fits = text_glob(policy_record_text(t->texts + node->first), answer->text);
        break;
    }
    return fits ? node->second : node->otherwise;
}

/* The verdict of one graph. */
static uint32_t walk(struct asking *asking, uint32_t root)
{
    const struct dp_policy_target *target = asking->target;
    uint32_t at = root;
    while (at < target->node_count) {
        uint32_t next = follow(asking, &target->nodes[at]);
        CHECK(next > at);
        at = next;
    }
    return at - target->node_count;
}

/* The verdict that wins: 'best' or that of one of the graphs. 0: no rule held. */
static uint32_t judge(struct asking *asking, const struct policy_roots *roots, uint32_t best)
{
    const uint8_t *allows = asking->target->allows;
    for (size_t i = 0; i < roots->count; i++) {
        uint32_t found = walk(asking, roots->items[i]);
        if (found == 0 || best == 0) {
            best = found == 0 ? best : found;
            continue;
        }
        bool wins = allows[found] == allows[best] ? found < best : allows[found] == 0;
        best = wins ? found : best;
    }
    return best;
}

static struct slice rule_of(const struct dp_policy_target *target, uint32_t verdict)
{
    uint32_t from = target->rules[verdict];
    return slice_of(target->text + from, target->rules[verdict + 1] - from);
}

struct dp_verdict dp_policy_decide(const struct dp_policy_target *target,
                                   const struct dp_policy_query *query)
{
    CHECK(query->caller != NULL);
    if (target == NULL) {
        return (struct dp_verdict){.allow = false};
    }
    struct asking asking;
    begin(&asking, target, query);
    if (target->several) {
        look_up_early(&asking);
    }
    bool fast = query->fast && target->fast.count > 0;
    uint32_t best = judge(&asking, fast ? &target->fast : &target->decides, 0);
    struct slice shadow = {0};
    if (target->shadow.count > 0 && !fast) {
        uint32_t other = judge(&asking, &target->shadow, best);
        if (target->allows[other] != target->allows[best]) {
            shadow = rule_of(target, other);
        }
    }
    return (struct dp_verdict){.allow = target->allows[best] != 0,
                               .fast = fast,
                               .rule = rule_of(target, best),
                               .shadow = shadow};
}
