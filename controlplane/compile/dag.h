/*
 * dag: the rules of one target as one decision graph.
 *
 * Shape      A rule is split into clauses: conjunctions of one condition a slot, where a slot is
 *            an attribute of the request, in a fixed order. A state of the graph is the set of
 *            clauses that may still hold. From a state, the exact values that its clauses name
 *            lead by a switch to further states; globs are tried where no exact value fits, and
 *            were already tried at compile time where one does. Equal states, and equal nodes,
 *            exist once.
 *            Deny wins; what no clause allows is denied; of several rules with the winning effect
 *            the one with the smallest id decides. A state that is decided is a verdict.
 * Ownership  everything lives in the arena; values and globs are borrowed from the clauses.
 * Threads    one owner at a time.
 * Errors     E_TOO_LARGE past limits.policy_nodes, DAG_SLOTS_MAX or DAG_GLOBS_MAX; E_NO_MEMORY.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/arena.h"
#include "common/base/err.h"
#include "common/base/slice.h"

/* Both bound the depth of the graph, and so of the recursion that makes it. */
enum { DAG_SLOTS_MAX = 256, DAG_GLOBS_MAX = 1024 };

struct dag_values {
    struct slice *items; /* sorted, nothing twice. */
    size_t count;
};

struct dag_condition {
    uint32_t slot;
    struct dag_values exact; /* one of these, */
    struct dag_values globs; /* or one that fits one of these. */
};

struct dag_clause {
    uint32_t rule;                    /* index of its rule; smaller ids first. */
    bool deny;                        /* the rule's effect. */
    struct dag_condition *conditions; /* slots ascending; a slot without one takes anything. */
    size_t condition_count;
};

/* References: a node's index, or DAG_VERDICT plus 0 for the default deny, plus 1 + rule. */
#define DAG_VERDICT 0x80000000U

struct dag_edge {
    struct slice value;
    uint32_t to;
};

struct dag_node {
    uint32_t slot;
    struct slice glob; /* not empty: 'matched' is taken when it fits, and there are no edges. */
    struct dag_edge *edges; /* values ascending. */
    size_t edge_count;
    uint32_t matched;
    uint32_t otherwise; /* for any other value, and for none. */
};

struct dag {
    struct dag_node *nodes; /* edges lead to lower indexes. */
    size_t count;
    uint32_t root;
};

/* 'clauses' are in order of their rules. 'slot_count' slots are numbered from 0. */
MUST_CHECK struct err dag_make(struct arena *arena, const struct dag_clause *clauses,
                               size_t clause_count, uint32_t slot_count, struct dag *out);
