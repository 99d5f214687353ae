/*
 * dag_impl: what the making of a graph shares between states (dag.c) and slots (dag_slot.c).
 *
 * Ownership  'scratch' holds all that only one attempt at a graph needs, and is reset after it.
 * Errors     E_TOO_LARGE as soon as an attempt has used up its 'room' or 'work'.
 */
#pragma once

#include "common/base/map.h"
#include "controlplane/compile/dag.h"

/* A clause in a state, and which terms of its condition at the slot at hand hold already. */
struct dag_mark {
    uint32_t clause;
    uint32_t done; /* bit (1 << term). */
};

struct dag_marks {
    struct dag_mark *items; /* clauses ascending. */
    size_t count;
};

/* Numbers of globs, ascending. */
struct dag_globs {
    uint32_t *items;
    size_t count;
};

/* What is known of a glob while marks are judged. */
enum dag_known { DAG_FITS_NOT, DAG_FITS, DAG_UNKNOWN };

struct dag_making {
    struct arena *arena;
    struct arena scratch;
    const struct dag_clause *clauses;
    uint32_t slot_count;
    bool whole;
    /* Each glob of each slot once; those of denying clauses first, then by clauses: tried in that
     * order, the first that fits decides as early as it can. */
    struct slice *globs;
    size_t glob_count;
    uint8_t *known;    /* enum dag_known of each glob; all DAG_FITS_NOT between judgements. */
    struct map states; /* key of a state to its reference. */
    struct map nodes;  /* content of a node to its reference. */
    struct dag dag;
    size_t capacity;
    size_t root_capacity[DAG_USE_COUNT];
    size_t room;  /* nodes and edges that the attempt may still make. */
    size_t work;  /* marks and globs that it may still look at. */
    size_t depth; /* of recursion. */
};

/* ---- dag.c ---- */

/* Spends 'count' of the attempt's work. */
MUST_CHECK struct err dag_spend(struct dag_making *m, size_t count);

/* One level deeper; who comes back up takes it off again. An attempt that fails starts anew. */
MUST_CHECK struct err dag_descend(struct dag_making *m);

/* Room for so many marks and one more; spends as much. */
MUST_CHECK struct err dag_marks_new(struct dag_making *m, size_t count, struct dag_marks *out);

/* The reference of a node: an equal one that exists, what all of it leads to, or a new one. */
MUST_CHECK struct err dag_cons(struct dag_making *m, struct dag_node *node, uint32_t *out);

/* Drops what can no longer decide, and says whether what is left is a verdict. */
bool dag_decided(const struct dag_making *m, struct dag_marks *alive, uint32_t slot, uint32_t *out);

/* The key of a state; 'stage' tells its states of one slot apart. */
MUST_CHECK struct err dag_state_key(struct dag_making *m, uint32_t slot, uint32_t stage,
                                    const struct dag_marks *alive, const struct dag_globs *left,
                                    struct slice *out);
MUST_CHECK struct err dag_remember(struct dag_making *m, struct map *map, struct slice key,
                                   uint32_t value);

/* The state from 'slot' on; 'alive' may be changed. */
MUST_CHECK struct err dag_make_state(struct dag_making *m, uint32_t slot, struct dag_marks alive,
                                     uint32_t *out);

/* ---- dag_slot.c ---- */

/* The condition of a clause at a slot, or NULL. */
const struct dag_condition *dag_condition_at(const struct dag_clause *clause, uint32_t slot);

/* What the values of one slot lead to: of a state that asks about it. */
MUST_CHECK struct err dag_make_slot(struct dag_making *m, uint32_t slot,
                                    const struct dag_marks *alive, uint32_t *out);
