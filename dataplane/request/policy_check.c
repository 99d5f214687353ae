/*
 * policy_check: what the walk of a PolicyTarget part need not ask: references lead to higher
 * indexes, edges are in order, what a node reads is declared, so that it is part of the cache's
 * key.
 */
#include <string.h>

#include "common/snapshot/format.h"
#include "dataplane/request/policy_impl.h"

#include "trilane/parts/v1/parts.pb-c.h"

typedef Trilane__Parts__V1__PolicyTarget part_target;
typedef Trilane__Parts__V1__PolicyNode part_node;

enum { WEEK_MINUTES = 7 * 24 * 60 };

static bool attribute_is_known(int attribute)
{
    return attribute > TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_NONE &&
           attribute <= TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_COMPARISON;
}

static bool is_listed(char *const *names, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0) {
            return true;
        }
    }
    return false;
}

/* An attribute that a graph reads but does not declare would be missing from the cache's key. */
static bool is_declared(const part_target *part, const part_node *node)
{
    uint64_t index = 0;
    if ((part->attributes & (1U << (unsigned)node->attribute)) == 0) {
        return false;
    }
    if (node->attribute == TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_TRAIT) {
        return is_listed(part->trait_names, part->n_trait_names, node->name);
    }
    if (node->attribute == TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_HEADER) {
        return is_listed(part->header_names, part->n_header_names, node->name);
    }
    if (node->attribute == TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_SCHEDULE) {
        return slice_to_u64(slice_str(node->name), &index) && index < part->n_schedules;
    }
    if (node->attribute == TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_COMPARISON) {
        return slice_to_u64(slice_str(node->name), &index) && index < part->n_comparisons;
    }
    return true;
}

static MUST_CHECK struct err check_edges(const part_node *node, size_t index, size_t references)
{
    for (size_t i = 0; i < node->n_edges; i++) {
        if (node->edges[i]->to <= index || node->edges[i]->to >= references) {
            return FAIL(E_PART_MALFORMED);
        }
        if (i > 0 && slice_cmp(slice_str(node->edges[i - 1]->value),
                               slice_str(node->edges[i]->value)) >= 0) {
            return FAIL(E_PART_MALFORMED);
        }
    }
    return OK;
}

static MUST_CHECK struct err check_node(const part_target *part, size_t index)
{
    const part_node *node = part->nodes[index];
    size_t references = part->n_nodes + part->n_verdicts;
    if (!attribute_is_known((int)node->attribute) || !is_declared(part, node)) {
        return FAIL(E_PART_MALFORMED);
    }
    bool is_glob = node->glob[0] != '\0';
    if (is_glob != (node->n_edges == 0)) {
        return FAIL(E_PART_MALFORMED);
    }
    if (node->otherwise <= index || node->otherwise >= references) {
        return FAIL(E_PART_MALFORMED);
    }
    if (is_glob && (node->matched <= index || node->matched >= references)) {
        return FAIL(E_PART_MALFORMED);
    }
    return check_edges(node, index, references);
}

static MUST_CHECK struct err check_roots(const part_target *part, const uint32_t *roots,
                                         size_t count)
{
    if (count > DP_POLICY_ROOTS_MAX) {
        return FAIL(E_PART_MALFORMED);
    }
    for (size_t i = 0; i < count; i++) {
        if (roots[i] >= part->n_nodes + part->n_verdicts) {
            return FAIL(E_PART_MALFORMED);
        }
    }
    /* Where verdicts are judged together the first one says that no rule held. */
    return count > 0 && part->verdicts[0]->allow != 0 ? FAIL(E_PART_MALFORMED) : OK;
}

static MUST_CHECK struct err check_schedule(const Trilane__Parts__V1__Schedule *schedule)
{
    if (schedule->n_from != schedule->n_to || schedule->n_from > SCHEDULE_SPANS_MAX) {
        return FAIL(E_PART_MALFORMED);
    }
    for (size_t i = 0; i < schedule->n_from; i++) {
        if (schedule->from[i] >= schedule->to[i] || schedule->to[i] > WEEK_MINUTES ||
            (i > 0 && schedule->from[i] <= schedule->to[i - 1])) {
            return FAIL(E_PART_MALFORMED);
        }
    }
    return OK;
}

/* Of a value of the request, by a measure that is known. */
static MUST_CHECK struct err check_comparison(const Trilane__Parts__V1__Comparison *comparison)
{
    const uint32_t measured = 1U << TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_METHOD |
                              1U << TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_CALLER |
                              1U << TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_CALLER_TENANT |
                              1U << TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_CALLER_TRUST_DOMAIN |
                              1U << TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_TRAIT |
                              1U << TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_HEADER;
    bool known = attribute_is_known((int)comparison->attribute) &&
                 (measured >> (unsigned)comparison->attribute & 1) != 0 &&
                 (comparison->measure == TRILANE__PARTS__V1__MEASURE__MEASURE_SIZE ||
                  comparison->measure == TRILANE__PARTS__V1__MEASURE__MEASURE_INT);
    return known && comparison->least <= comparison->most ? OK : FAIL(E_PART_MALFORMED);
}

struct err policy_check_part(const part_target *part)
{
    if (part->n_verdicts == 0 || part->target[0] == '\0' ||
        part->root >= part->n_nodes + part->n_verdicts || part->n_nodes > UINT32_MAX / 2 ||
        part->n_trait_names > DP_POLICY_NAMES_MAX || part->n_header_names > DP_POLICY_NAMES_MAX ||
        part->n_schedules > DP_POLICY_NAMES_MAX || part->n_comparisons > DP_POLICY_NAMES_MAX) {
        return FAIL(E_PART_MALFORMED);
    }
    TRY(check_roots(part, part->more_roots, part->n_more_roots));
    TRY(check_roots(part, part->shadow_roots, part->n_shadow_roots));
    TRY(check_roots(part, part->fast_roots, part->n_fast_roots));
    for (size_t i = 0; i < part->n_schedules; i++) {
        TRY(check_schedule(part->schedules[i]));
    }
    for (size_t i = 0; i < part->n_comparisons; i++) {
        TRY(check_comparison(part->comparisons[i]));
    }
    for (size_t i = 0; i < part->n_nodes; i++) {
        TRY(check_node(part, i));
    }
    return OK;
}
