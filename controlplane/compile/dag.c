/* dag: see dag.h. What the values of one slot lead to is in dag_slot.c. */
#include "controlplane/compile/dag.h"

#include <stdlib.h>

#include "common/base/array.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "controlplane/compile/dag_impl.h"

/*
 * What an attempt at one graph may take: a base, so that few rules are one graph whatever they say,
 * and a multiple of what its clauses say, so that many are not exponential.
 */
enum {
    ROOM_BASE = 1024,
    ROOM_FACTOR = 4,
    WORK_BASE = 1 << 17,
    WORK_FACTOR = 64,
    WORK_BYTES = 64,  /* of scratch memory for one unit of work, at most. */
    DEPTH_MAX = 2048, /* of recursion. */
};

/* ---- what is spent ---- */

struct err dag_spend(struct dag_making *m, size_t count)
{
    if (m->work < count) {
        return FAIL(E_TOO_LARGE);
    }
    m->work -= count;
    return OK;
}

struct err dag_descend(struct dag_making *m)
{
    if (m->depth >= DEPTH_MAX) {
        return FAIL(E_TOO_LARGE);
    }
    m->depth++;
    return OK;
}

struct err dag_marks_new(struct dag_making *m, size_t count, struct dag_marks *out)
{
    TRY(dag_spend(m, count + 1));
    out->count = 0;
    return arena_alloc(&m->scratch, (count + 1) * sizeof(struct dag_mark), (void **)&out->items);
}

/* ---- what is decided ---- */

/* Whether no condition is left from 'slot' on; that of the slot itself may hold already. */
static bool holds(const struct dag_making *m, struct dag_mark at, uint32_t slot)
{
    const struct dag_clause *clause = &m->clauses[at.clause];
    if (clause->condition_count == 0) {
        return true;
    }
    const struct dag_condition *last = &clause->conditions[clause->condition_count - 1];
    uint32_t all = (uint32_t)((UINT64_C(1) << last->term_count) - 1);
    return last->slot < slot || (last->slot == slot && at.done == all);
}

/*
 * Drops what can no longer decide: behind the first clause that holds and denies, all others;
 * behind the first that holds and allows, all that allow. A later clause of the same rule says
 * the same, and an earlier one that does not hold yet could only say the same: it goes as well.
 */
static void prune(const struct dag_making *m, struct dag_marks *alive, uint32_t slot)
{
    uint32_t deny = UINT32_MAX; /* smallest rule that holds, by effect. */
    uint32_t allow = UINT32_MAX;
    for (size_t i = 0; i < alive->count; i++) {
        const struct dag_clause *clause = &m->clauses[alive->items[i].clause];
        uint32_t *least = clause->deny ? &deny : &allow;
        if (clause->rule < *least && holds(m, alive->items[i], slot)) {
            *least = clause->rule;
        }
    }
    uint32_t kept = UINT32_MAX; /* rule whose holding clause stays. */
    size_t count = 0;
    for (size_t i = 0; i < alive->count; i++) {
        const struct dag_clause *clause = &m->clauses[alive->items[i].clause];
        uint32_t least = clause->deny ? deny : allow;
        bool beaten = clause->rule > least || (!clause->deny && deny != UINT32_MAX);
        bool twin =
            clause->rule == least && (clause->rule == kept || !holds(m, alive->items[i], slot));
        if (!beaten && !twin) {
            kept = clause->rule == least ? clause->rule : kept;
            alive->items[count++] = alive->items[i];
        }
    }
    alive->count = count;
}

bool dag_decided(const struct dag_making *m, struct dag_marks *alive, uint32_t slot, uint32_t *out)
{
    prune(m, alive, slot);
    if (alive->count == 0) {
        *out = DAG_VERDICT;
        return true;
    }
    if (alive->count == 1 && holds(m, alive->items[0], slot)) {
        *out = DAG_VERDICT + 1 + m->clauses[alive->items[0].clause].rule;
        return true;
    }
    return false;
}

/* ---- states and nodes exist once ---- */

struct err dag_remember(struct dag_making *m, struct map *map, struct slice key, uint32_t value)
{
    uint32_t *kept = NULL;
    TRY(arena_alloc(&m->scratch, sizeof(uint32_t), (void **)&kept));
    *kept = value;
    return map_put(map, key, kept, /* out_old= */ NULL);
}

struct err dag_state_key(struct dag_making *m, uint32_t slot, uint32_t stage,
                         const struct dag_marks *alive, const struct dag_globs *left,
                         struct slice *out)
{
    size_t left_count = left == NULL ? 0 : left->count;
    size_t count = 3 + left_count + 2 * alive->count;
    uint32_t *words = NULL;
    TRY(dag_spend(m, count));
    TRY(arena_alloc(&m->scratch, count * sizeof(uint32_t), (void **)&words));
    words[0] = slot;
    words[1] = stage;
    words[2] = (uint32_t)left_count;
    size_t at = 3;
    for (size_t i = 0; i < left_count; i++) {
        words[at++] = left->items[i];
    }
    for (size_t i = 0; i < alive->count; i++) {
        words[at++] = alive->items[i].clause;
        words[at++] = alive->items[i].done;
    }
    *out = slice_of(words, count * sizeof(uint32_t));
    return OK;
}

static bool same_edges(const struct dag_node *a, const struct dag_node *b)
{
    for (size_t i = 0; i < a->edge_count; i++) {
        if (a->edges[i].to != b->edges[i].to || !slice_eq(a->edges[i].value, b->edges[i].value)) {
            return false;
        }
    }
    return true;
}

static bool same_node(const struct dag_node *a, const struct dag_node *b)
{
    return a->slot == b->slot && a->matched == b->matched && a->otherwise == b->otherwise &&
           a->prefixes == b->prefixes && a->edge_count == b->edge_count &&
           slice_eq(a->glob, b->glob) && same_edges(a, b);
}

/* A digest of a node's references: a short key; equality is judged on the nodes. */
static MUST_CHECK struct err node_key(struct dag_making *m, const struct dag_node *node,
                                      struct slice *out)
{
    size_t count = 5 + 2 * node->edge_count;
    uint64_t *words = NULL;
    TRY(arena_alloc(&m->scratch, count * sizeof(uint64_t), (void **)&words));
    words[0] = node->slot | (node->prefixes ? UINT64_C(1) << 32 : 0);
    words[1] = node->matched;
    words[2] = node->otherwise;
    words[3] = node->edge_count;
    words[4] = map_hash(node->glob);
    for (size_t i = 0; i < node->edge_count; i++) {
        words[5 + 2 * i] = node->edges[i].to;
        words[6 + 2 * i] = map_hash(node->edges[i].value);
    }
    *out = slice_of(words, count * sizeof(uint64_t));
    return OK;
}

static MUST_CHECK struct err keep_node(struct dag_making *m, const struct dag_node *node,
                                       uint32_t *out)
{
    if (m->dag.count >= limits.policy_nodes || m->room < 1 + node->edge_count) {
        return FAIL(E_TOO_LARGE);
    }
    m->room -= 1 + node->edge_count;
    TRY(array_room(&m->dag.nodes, m->dag.count, &m->capacity, sizeof(*m->dag.nodes)));
    *out = (uint32_t)m->dag.count;
    m->dag.nodes[m->dag.count++] = *node;
    return OK;
}

struct err dag_cons(struct dag_making *m, struct dag_node *node, uint32_t *out)
{
    size_t count = 0;
    bool says = false;
    for (size_t i = 0; i < node->edge_count; i++) {
        bool differs = node->edges[i].to != node->otherwise;
        says = says || differs;
        /* Of prefixes, one that leads where none leads still hides a shorter one. */
        if (node->prefixes || differs) {
            node->edges[count++] = node->edges[i];
        }
    }
    node->edge_count = says ? count : 0;
    bool glob = node->glob.size > 0;
    if (glob ? node->matched == node->otherwise : !says) {
        *out = node->otherwise;
        return OK;
    }
    struct slice key = {0};
    TRY(node_key(m, node, &key));
    const uint32_t *known = map_get(&m->nodes, key);
    if (known != NULL && same_node(&m->dag.nodes[*known], node)) {
        *out = *known;
        return OK;
    }
    TRY(keep_node(m, node, out));
    return known != NULL ? OK : dag_remember(m, &m->nodes, key, *out);
}

/* ---- states ---- */

/* The first slot from 'slot' on that some clause asks about. */
static uint32_t next_slot(const struct dag_making *m, uint32_t slot, const struct dag_marks *alive)
{
    uint32_t least = m->slot_count;
    for (size_t i = 0; i < alive->count; i++) {
        const struct dag_clause *clause = &m->clauses[alive->items[i].clause];
        for (size_t k = 0; k < clause->condition_count; k++) {
            uint32_t at = clause->conditions[k].slot;
            if (at >= slot) {
                least = at < least ? at : least;
                break;
            }
        }
    }
    return least;
}

struct err dag_make_state(struct dag_making *m, uint32_t slot, struct dag_marks alive,
                          uint32_t *out)
{
    if (dag_decided(m, &alive, slot, out)) {
        return OK;
    }
    slot = next_slot(m, slot, &alive);
    CHECK(slot < m->slot_count); /* a state that is not decided has a clause with a condition */
    struct slice key = {0};
    TRY(dag_state_key(m, slot, /* stage= */ 0, &alive, /* left= */ NULL, &key));
    const uint32_t *known = map_get(&m->states, key);
    if (known != NULL) {
        *out = *known;
        return OK;
    }
    TRY(dag_descend(m));
    TRY(dag_make_slot(m, slot, &alive, out));
    m->depth--;
    return dag_remember(m, &m->states, key, *out);
}

/* ---- one graph ---- */

/* What a clause says: its values and globs, and one for each condition. */
static size_t said_by(const struct dag_clause *clause)
{
    size_t said = 1;
    for (size_t i = 0; i < clause->condition_count; i++) {
        const struct dag_condition *condition = &clause->conditions[i];
        said++;
        for (size_t t = 0; t < condition->term_count; t++) {
            said += condition->terms[t].exact.count + condition->terms[t].globs.count;
        }
    }
    return said;
}

static int number_order(const void *x, const void *y)
{
    uint32_t a = *(const uint32_t *)x;
    uint32_t b = *(const uint32_t *)y;
    return (a > b) - (a < b);
}

static MUST_CHECK struct err make_root(struct dag_making *m, const uint32_t *clauses, size_t count,
                                       uint32_t *out)
{
    struct dag_marks all = {0};
    uint32_t *sorted = NULL;
    TRY(dag_marks_new(m, count, &all));
    TRY(arena_alloc(&m->scratch, (count + 1) * sizeof(uint32_t), (void **)&sorted));
    for (size_t i = 0; i < count; i++) {
        sorted[i] = clauses[i];
    }
    qsort(sorted, count, sizeof(uint32_t), number_order);
    for (size_t i = 0; i < count; i++) {
        all.items[all.count++] = (struct dag_mark){.clause = sorted[i]};
    }
    return dag_make_state(m, /* slot= */ 0, all, out);
}

/* The edges of the nodes from 'from' on move from the scratch arena to the one that stays. */
static MUST_CHECK struct err keep_edges(struct dag_making *m, size_t from)
{
    for (size_t i = from; i < m->dag.count; i++) {
        struct dag_node *node = &m->dag.nodes[i];
        struct dag_edge *edges = NULL;
        TRY(arena_calloc(m->arena, node->edge_count + 1, sizeof(struct dag_edge), (void **)&edges));
        for (size_t k = 0; k < node->edge_count; k++) {
            edges[k] = node->edges[k];
        }
        node->edges = edges;
    }
    return OK;
}

/* One graph of these clauses; E_TOO_LARGE when it is no multiple of what they say. */
static MUST_CHECK struct err attempt(struct dag_making *m, const uint32_t *clauses, size_t count,
                                     uint32_t *out)
{
    size_t said = 0;
    for (size_t i = 0; i < count; i++) {
        said += said_by(&m->clauses[clauses[i]]);
    }
    size_t before = m->dag.count;
    m->room = ROOM_BASE + ROOM_FACTOR * said;
    m->work = WORK_BASE + WORK_FACTOR * said;
    m->depth = 0;
    arena_init(&m->scratch, 64 << 10, WORK_BYTES * m->work);
    struct err e = make_root(m, clauses, count, out);
    if (err_ok(e)) {
        e = keep_edges(m, before);
    }
    if (e.code == E_NO_MEMORY && m->scratch.full) {
        e = FAIL(E_TOO_LARGE); /* more than an attempt may take, of a heap that has it. */
    }
    if (!err_ok(e)) {
        m->dag.count = before;
        for (size_t i = 0; i < m->glob_count; i++) {
            m->known[i] = DAG_FITS_NOT; /* it may have ended amid a judgement. */
        }
    }
    map_free(&m->states);
    map_free(&m->nodes);
    m->states = (struct map){0};
    m->nodes = (struct map){0};
    arena_free(&m->scratch);
    return e;
}

/* ---- several graphs ---- */

/* A clause and the slots that it asks about: bit (1 << slot), the earlier the more it weighs. */
struct sorted {
    uint64_t slots;
    uint32_t clause;
};

static int sorted_order(const void *x, const void *y)
{
    const struct sorted *a = x;
    const struct sorted *b = y;
    if (a->slots != b->slots) {
        return a->slots < b->slots ? -1 : 1;
    }
    return (a->clause > b->clause) - (a->clause < b->clause);
}

static uint64_t slots_of(const struct dag_clause *clause)
{
    uint64_t slots = 0;
    for (size_t i = 0; i < clause->condition_count; i++) {
        slots |= UINT64_C(1) << (63 - clause->conditions[i].slot % 64);
    }
    return slots;
}

/* Where to part: between clauses that ask about other slots, as near to the middle as can be. */
static size_t parting(const struct sorted *clauses, size_t count)
{
    for (size_t by = 0; by < count / 2; by++) {
        size_t low = count / 2 - by;
        size_t high = count / 2 + by;
        if (clauses[low].slots != clauses[low - 1].slots) {
            return low;
        }
        if (clauses[high].slots != clauses[high - 1].slots) {
            return high;
        }
    }
    return count / 2;
}

static MUST_CHECK struct err add_root(struct dag_making *m, enum dag_use use, uint32_t root)
{
    struct dag_roots *roots = &m->dag.roots[use];
    if (roots->count >= DAG_ROOTS_MAX) {
        return FAIL(E_TOO_LARGE);
    }
    TRY(array_room(&roots->items, roots->count, &m->root_capacity[use], sizeof(uint32_t)));
    roots->items[roots->count++] = root;
    return OK;
}

/*
 * The graphs of these clauses: one, or those of either part of them. Recursion ends: a part has a
 * clause less at least, and half of them once all ask about the same slots.
 */
static struct err make_roots(struct dag_making *m, enum dag_use use, const struct sorted *clauses,
                             size_t count)
{
    uint32_t root = 0;
    uint32_t *numbers = malloc((count + 1) * sizeof(uint32_t));
    if (numbers == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    for (size_t i = 0; i < count; i++) {
        numbers[i] = clauses[i].clause;
    }
    struct err e = attempt(m, numbers, count, &root);
    free(numbers);
    if (err_ok(e)) {
        return add_root(m, use, root);
    }
    if (m->whole || count < 2 || e.code != E_TOO_LARGE) {
        return e; /* without memory: other graphs than a replica has that did have it. */
    }
    size_t at = parting(clauses, count);
    TRY(make_roots(m, use, clauses, at));
    return make_roots(m, use, clauses + at, count - at);
}

static MUST_CHECK struct err make_use(struct dag_making *m, enum dag_use use, size_t clause_count)
{
    size_t count = 0;
    struct sorted *sorted = NULL;
    TRY(arena_calloc(m->arena, clause_count + 1, sizeof(struct sorted), (void **)&sorted));
    for (size_t i = 0; i < clause_count; i++) {
        if (m->clauses[i].use == use) {
            sorted[count++] = (struct sorted){slots_of(&m->clauses[i]), (uint32_t)i};
        }
    }
    qsort(sorted, count, sizeof(struct sorted), sorted_order);
    return count == 0 ? OK : make_roots(m, use, sorted, count);
}

/* ---- globs ---- */

static MUST_CHECK struct err number_term(struct dag_making *m, struct map *numbers, uint32_t slot,
                                         struct dag_term *term)
{
    if (term->globs.count == 0) {
        return OK;
    }
    TRY(arena_calloc(m->arena, term->globs.count + 1, sizeof(uint32_t), (void **)&term->numbers));
    for (size_t g = 0; g < term->globs.count; g++) {
        const struct slice pieces[] = {slice_of(&slot, sizeof(slot)), term->globs.items[g]};
        struct slice key = {0};
        TRY(arena_join(m->arena, pieces, 2, &key));
        const uint32_t *known = map_get(numbers, key);
        if (known == NULL) {
            uint32_t *number = NULL;
            TRY(arena_alloc(m->arena, sizeof(uint32_t), (void **)&number));
            *number = (uint32_t)m->glob_count;
            TRY(map_put(numbers, key, number, /* out_old= */ NULL));
            m->globs[m->glob_count++] = term->globs.items[g];
            known = number;
        }
        term->numbers[g] = *known;
    }
    qsort(term->numbers, term->globs.count, sizeof(uint32_t), number_order);
    return OK;
}

static MUST_CHECK struct err number_clause(struct dag_making *m, struct map *numbers,
                                           const struct dag_clause *clause)
{
    for (size_t k = 0; k < clause->condition_count; k++) {
        struct dag_condition *condition = &clause->conditions[k];
        for (size_t t = 0; t < condition->term_count; t++) {
            TRY(number_term(m, numbers, condition->slot, &condition->terms[t]));
        }
    }
    return OK;
}

static MUST_CHECK struct err number_globs(struct dag_making *m, struct map *numbers,
                                          size_t clause_count, bool deny)
{
    for (size_t i = 0; i < clause_count; i++) {
        if (m->clauses[i].deny == deny) {
            TRY(number_clause(m, numbers, &m->clauses[i]));
        }
    }
    return OK;
}

static MUST_CHECK struct err prepare(struct dag_making *m, size_t clause_count)
{
    size_t said = 0;
    for (size_t i = 0; i < clause_count; i++) {
        said += said_by(&m->clauses[i]);
    }
    struct map numbers = {0};
    TRY(arena_calloc(m->arena, said + 1, sizeof(struct slice), (void **)&m->globs));
    struct err e = number_globs(m, &numbers, clause_count, /* deny= */ true);
    if (err_ok(e)) {
        e = number_globs(m, &numbers, clause_count, /* deny= */ false);
    }
    map_free(&numbers);
    TRY(e);
    return arena_calloc(m->arena, m->glob_count + 1, 1, (void **)&m->known);
}

/* ---- all of it ---- */

/* Hands nodes and roots over to the arena. */
static MUST_CHECK struct err finish(struct dag_making *m, struct dag *out)
{
    struct dag dag = {.count = m->dag.count};
    TRY(arena_calloc(m->arena, dag.count + 1, sizeof(struct dag_node), (void **)&dag.nodes));
    for (size_t i = 0; i < dag.count; i++) {
        dag.nodes[i] = m->dag.nodes[i];
    }
    for (enum dag_use use = 0; use < DAG_USE_COUNT; use++) {
        struct dag_roots *roots = &dag.roots[use];
        roots->count = m->dag.roots[use].count;
        TRY(arena_calloc(m->arena, roots->count + 1, sizeof(uint32_t), (void **)&roots->items));
        for (size_t i = 0; i < roots->count; i++) {
            roots->items[i] = m->dag.roots[use].items[i];
        }
    }
    *out = dag;
    return OK;
}

static MUST_CHECK struct err make_all(struct dag_making *m, size_t clause_count, struct dag *out)
{
    TRY(prepare(m, clause_count));
    for (enum dag_use use = 0; use < DAG_USE_COUNT; use++) {
        TRY(make_use(m, use, clause_count));
    }
    return finish(m, out);
}

struct err dag_make(struct arena *arena, const struct dag_from *from, struct dag *out)
{
    if (from->slot_count > DAG_SLOTS_MAX || from->clause_count >= DAG_VERDICT / 2) {
        return FAIL(E_TOO_LARGE);
    }
    struct dag_making m = {.arena = arena,
                           .clauses = from->clauses,
                           .slot_count = from->slot_count,
                           .whole = from->whole};
    struct err e = make_all(&m, from->clause_count, out);
    free(m.dag.nodes);
    for (enum dag_use use = 0; use < DAG_USE_COUNT; use++) {
        free(m.dag.roots[use].items);
    }
    return e;
}
