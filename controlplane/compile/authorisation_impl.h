/*
 * authorisation_impl: one target on its way from rules to clauses (clauses.c), to graphs (dag.c),
 * to a part (policy_part.c). authorisation.c leads it.
 *
 * Ownership  'work' owns all of it and is given back when the target is done.
 */
#pragma once

#include "controlplane/compile/compiler.h"
#include "controlplane/compile/dag.h"
#include "controlplane/source/cel.h"
#include "controlplane/source/schedule.h"

#include "trilane/parts/v1/parts.pb-c.h"

/* Slots of a graph: the fixed ones, then traits, then headers, each by name, then comparisons, then
 * schedules. */
enum slot {
    SLOT_VERB,
    SLOT_LANE,
    SLOT_TENANT,
    SLOT_CALLER,
    SLOT_DOMAIN,
    SLOT_METHOD,
    SLOT_FIXED,
};

/*
 * What a schedule's slot has for a value while it holds, and a comparison's while the number is in
 * its range. Else a schedule has none, and a comparison another one, or none where there is no
 * number.
 */
#define SLOT_IN SLICE_LIT("in")

/* One rule of the target, with whose it is. */
struct ruling {
    struct slice id; /* "<tenant>/<policy>/<rule>" */
    const struct cp_policy *policy;
    const struct cp_rule *rule;
    bool own_tenant;   /* it speaks of callers of the policy's tenant alone. */
    struct cp_cel cel; /* its condition; of none: one alternative without a test. */
    uint32_t schedule; /* index, when the rule has one. */
};

struct targeting {
    struct cp_compiler *c;
    struct arena *work;
    struct ruling *rulings; /* in order of their ids. */
    size_t count;
    struct dag_values traits; /* names that the rules ask for. */
    struct dag_values headers;
    const struct cp_cel_test **comparisons; /* tests of a measure; of equal ones one. */
    size_t comparison_count;
    struct cp_schedule *schedules; /* each once. */
    size_t schedule_count;
    struct dag_clause *clauses;
    size_t clause_count;
    size_t clause_capacity;
    bool caller_first; /* the order of the fixed slots: see targeting_slot(). */
};

/*
 * Where a fixed slot stands in the order of a graph. Verb and lane come first: they part the rules
 * of most targets into few states. Where rules with and without them are many, that has each of the
 * others once for each verb and lane; then who calls what comes first, which leaves few rules.
 */
static inline uint32_t targeting_slot(const struct targeting *t, enum slot slot)
{
    static const uint8_t order[SLOT_FIXED] = {
        [SLOT_TENANT] = 0, [SLOT_CALLER] = 1, [SLOT_DOMAIN] = 2,
        [SLOT_METHOD] = 3, [SLOT_VERB] = 4,   [SLOT_LANE] = 5};
    return t->caller_first ? order[slot] : (uint32_t)slot;
}

static inline uint32_t targeting_slots(const struct targeting *t)
{
    return (uint32_t)(SLOT_FIXED + t->traits.count + t->headers.count + t->comparison_count +
                      t->schedule_count);
}

/* Parses conditions, and collects names and schedules: before all else. */
MUST_CHECK struct err cp_read_rulings(struct targeting *t);

/* Makes the clauses of all rulings, in the order of slots at hand; those before are gone. */
MUST_CHECK struct err cp_make_clauses(struct targeting *t);

/* The graphs as a part, its arrays in 'work'; and what a node needs to be able to do for them. */
MUST_CHECK struct err cp_policy_part(struct targeting *t, const struct dag *dag,
                                     Trilane__Parts__V1__PolicyTarget *part);
