/*
 * dag: the rules of one target as decision graphs.
 *
 * Shape      A rule is split into clauses: conjunctions of one condition a slot, where a slot is
 *            an attribute of the request, in a fixed order. A state of a graph is the set of
 *            clauses that may still hold. From a state, the exact values that its clauses name
 *            lead by a switch to further states; globs are tried where no exact value fits, and
 *            were already tried at compile time where one does. Many globs that are a front and a
 *            star are one switch by the longest front. Equal states, and equal nodes, exist once.
 *            Deny wins; what no clause allows is denied; of several rules with the winning effect
 *            the one with the smallest id decides. A state that is decided is a verdict.
 * Bounds     One graph of all clauses may be exponential in them. It is made as long as it stays
 *            within a multiple of what the clauses say; else the clauses are parted, those that
 *            ask about the same slots together, and each half has a graph of its own. A graph of
 *            one clause is as large as the clause: so the whole is linear in the rules, whatever
 *            they say, and what a decision costs grows by the number of graphs.
 * Ownership  everything lives in the arena; values and globs are borrowed from the clauses.
 * Threads    one owner at a time.
 * Errors     E_TOO_LARGE past limits.policy_nodes, DAG_SLOTS_MAX or DAG_ROOTS_MAX; E_NO_MEMORY.
 * Source     ordered decision diagrams (Bryant 1986) within a group, tuple space search
 *            (Srinivasan, Suri, Varghese 1999) across groups.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/arena.h"
#include "common/base/err.h"
#include "common/base/slice.h"

enum {
    DAG_SLOTS_MAX = 256,
    DAG_TERMS_MAX = 32, /* of a condition. */
    DAG_ROOTS_MAX = 1024,
    /* From this many globs of that form in a state on, they are one switch. */
    DAG_PREFIXES_LEAST = 8,
};

struct dag_values {
    struct slice *items; /* sorted, nothing twice. */
    size_t count;
};

/* Holds when the value is one of 'exact' or fits one of 'globs'; or, with 'negate', when not. */
struct dag_term {
    struct dag_values exact;
    struct dag_values globs;
    bool negate;
    bool absent;       /* whether it holds where there is no value. */
    uint32_t *numbers; /* of its globs, among all: dag_make() fills it. */
};

struct dag_condition {
    uint32_t slot;
    struct dag_term *terms; /* all of them; at most DAG_TERMS_MAX. */
    size_t term_count;
};

/* What a clause is for: each has graphs of its own. */
enum dag_use { DAG_DECIDES, DAG_SHADOW, DAG_FAST, DAG_USE_COUNT };

struct dag_clause {
    uint32_t rule; /* index of its rule; smaller ids first. */
    enum dag_use use;
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
    bool prefixes; /* the edge of the longest value that the text begins with is taken. */
    uint32_t matched;
    uint32_t otherwise; /* for any other value, and for none. */
};

/* Graphs whose verdicts are judged together: deny wins, then the smallest rule. */
struct dag_roots {
    uint32_t *items;
    size_t count;
};

struct dag {
    struct dag_node *nodes; /* edges lead to lower indexes. */
    size_t count;
    struct dag_roots roots[DAG_USE_COUNT]; /* none: no clause has that use. */
};

/* What a graph is made of. */
struct dag_from {
    const struct dag_clause *clauses; /* in order of their rules. */
    size_t clause_count;
    uint32_t slot_count; /* slots are numbered from 0. */
    bool whole;          /* E_TOO_LARGE in place of more than one graph a use. */
};

MUST_CHECK struct err dag_make(struct arena *arena, const struct dag_from *from, struct dag *out);
