/* dag: see dag.h. */
#include "controlplane/compile/dag.h"

#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/map.h"
#include "common/base/scope.h"
#include "common/base/text.h"

/* A clause in a state: its index, and whether the condition of the slot at hand holds already. */
typedef uint32_t mark;

static uint32_t clause_of(mark m)
{
    return m >> 1;
}

static bool is_matched(mark m)
{
    return (m & 1) != 0;
}

struct marks {
    mark *items; /* ascending. */
    size_t count;
};

struct making {
    struct arena *arena;
    const struct dag_clause *clauses;
    uint32_t slot_count;
    struct map states; /* key of a state to its reference. */
    struct map nodes;  /* content of a node to its reference. */
    struct dag dag;
    size_t capacity;
};

static MUST_CHECK struct err make_state(struct making *m, uint32_t slot, struct marks alive,
                                        uint32_t *out);

/* ---- what is decided ---- */

static const struct dag_condition *condition_at(const struct dag_clause *clause, uint32_t slot)
{
    for (size_t i = 0; i < clause->condition_count; i++) {
        if (clause->conditions[i].slot == slot) {
            return &clause->conditions[i];
        }
    }
    return NULL;
}

/* Whether no condition is left from 'slot' on; that of the slot itself may be matched already. */
static bool holds(const struct making *m, mark at, uint32_t slot)
{
    const struct dag_clause *clause = &m->clauses[clause_of(at)];
    if (clause->condition_count == 0) {
        return true;
    }
    uint32_t last = clause->conditions[clause->condition_count - 1].slot;
    return last < slot || (last == slot && is_matched(at));
}

/*
 * Drops what can no longer decide: behind the first clause that holds and denies, all others;
 * behind the first that holds and allows, all that allow. A later clause of the same rule says
 * the same, and an earlier one that does not hold yet could only say the same: it goes as well.
 */
static void prune(const struct making *m, struct marks *alive, uint32_t slot)
{
    uint32_t deny = UINT32_MAX; /* smallest rule that holds, by effect. */
    uint32_t allow = UINT32_MAX;
    for (size_t i = 0; i < alive->count; i++) {
        const struct dag_clause *clause = &m->clauses[clause_of(alive->items[i])];
        uint32_t *least = clause->deny ? &deny : &allow;
        if (clause->rule < *least && holds(m, alive->items[i], slot)) {
            *least = clause->rule;
        }
    }
    uint32_t kept = UINT32_MAX; /* rule whose holding clause stays. */
    size_t count = 0;
    for (size_t i = 0; i < alive->count; i++) {
        const struct dag_clause *clause = &m->clauses[clause_of(alive->items[i])];
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

/* A state that needs no further question; after prune(). */
static bool decided(const struct making *m, const struct marks *alive, uint32_t slot, uint32_t *out)
{
    if (alive->count == 0) {
        *out = DAG_VERDICT;
        return true;
    }
    if (alive->count == 1 && holds(m, alive->items[0], slot)) {
        *out = DAG_VERDICT + 1 + m->clauses[clause_of(alive->items[0])].rule;
        return true;
    }
    return false;
}

/* ---- states and nodes exist once ---- */

static MUST_CHECK struct err remember(struct making *m, struct map *map, struct slice key,
                                      uint32_t value)
{
    if (map->count >= 4 * limits.policy_nodes) {
        return FAIL(E_TOO_LARGE);
    }
    uint32_t *kept = NULL;
    TRY(arena_alloc(m->arena, sizeof(uint32_t), (void **)&kept));
    *kept = value;
    return map_put(map, key, kept, /* out_old= */ NULL);
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
           a->edge_count == b->edge_count && slice_eq(a->glob, b->glob) && same_edges(a, b);
}

/* A digest of a node's references: a short key; equality is judged on the nodes. */
static MUST_CHECK struct err node_key(struct making *m, const struct dag_node *node,
                                      struct slice *out)
{
    size_t count = 5 + 2 * node->edge_count;
    uint64_t *words = NULL;
    TRY(arena_alloc(m->arena, count * sizeof(uint64_t), (void **)&words));
    words[0] = node->slot;
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

static MUST_CHECK struct err keep_node(struct making *m, const struct dag_node *node, uint32_t *out)
{
    if (m->dag.count >= limits.policy_nodes) {
        return FAIL(E_TOO_LARGE);
    }
    if (m->dag.count == m->capacity) {
        size_t capacity = m->capacity == 0 ? 64 : 2 * m->capacity;
        void *nodes = realloc(m->dag.nodes, capacity * sizeof(struct dag_node));
        if (nodes == NULL) {
            return FAIL(E_NO_MEMORY);
        }
        m->dag.nodes = nodes;
        m->capacity = capacity;
    }
    *out = (uint32_t)m->dag.count;
    m->dag.nodes[m->dag.count++] = *node;
    return OK;
}

/* The reference of a node: an equal one that exists, or what all of it leads to, or a new one. */
static MUST_CHECK struct err cons(struct making *m, struct dag_node *node, uint32_t *out)
{
    size_t count = 0;
    for (size_t i = 0; i < node->edge_count; i++) {
        if (node->edges[i].to != node->otherwise) {
            node->edges[count++] = node->edges[i];
        }
    }
    node->edge_count = count;
    bool glob = node->glob.size > 0;
    if (glob ? node->matched == node->otherwise : count == 0) {
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
    return known != NULL ? OK : remember(m, &m->nodes, key, *out);
}

/* ---- globs ---- */

/* The literal front of a glob. */
static struct slice front_of(struct slice glob)
{
    size_t end = 0;
    while (end < glob.size && glob.ptr[end] != '*' && glob.ptr[end] != '?') {
        end++;
    }
    return slice_head(glob, end);
}

/* No text fits both, by their fronts alone. */
static bool apart(struct slice a, struct slice b)
{
    struct slice x = front_of(a);
    struct slice y = front_of(b);
    return !slice_starts(x, y) && !slice_starts(y, x);
}

/* Every text that fits 'a' fits 'b': for a 'b' that is a front and one star. */
static bool within(struct slice a, struct slice b)
{
    struct slice front = front_of(b);
    return slice_eq(a, b) || (front.size + 1 == b.size && b.ptr[front.size] == '*' &&
                              slice_starts(front_of(a), front));
}

static bool has_value(const struct dag_values *values, struct slice value)
{
    size_t low = 0;
    size_t high = values->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = slice_cmp(values->items[middle], value);
        if (order == 0) {
            return true;
        }
        low = order < 0 ? middle + 1 : low;
        high = order < 0 ? high : middle;
    }
    return false;
}

static bool globs_fit(const struct dag_values *globs, struct slice value)
{
    for (size_t i = 0; i < globs->count; i++) {
        if (text_glob(globs->items[i], value)) {
            return true;
        }
    }
    return false;
}

/* ---- one slot ---- */

static int slice_order(const void *x, const void *y)
{
    return slice_cmp(*(const struct slice *)x, *(const struct slice *)y);
}

static void sort_unique(struct dag_values *values)
{
    if (values->count > 1) {
        qsort(values->items, values->count, sizeof(struct slice), slice_order);
    }
    size_t count = 0;
    for (size_t i = 0; i < values->count; i++) {
        if (count == 0 || !slice_eq(values->items[i], values->items[count - 1])) {
            values->items[count++] = values->items[i];
        }
    }
    values->count = count;
}

static MUST_CHECK struct err new_marks(struct making *m, size_t count, struct marks *out)
{
    out->count = 0;
    return arena_alloc(m->arena, (count + 1) * sizeof(mark), (void **)&out->items);
}

/* All globs of a state's clauses at one slot. */
static MUST_CHECK struct err collect_globs(struct making *m, uint32_t slot,
                                           const struct marks *alive, struct dag_values *out)
{
    size_t total = 0;
    for (size_t i = 0; i < alive->count; i++) {
        const struct dag_condition *at =
            condition_at(&m->clauses[clause_of(alive->items[i])], slot);
        total += at == NULL ? 0 : at->globs.count;
    }
    TRY(arena_calloc(m->arena, total + 1, sizeof(struct slice), (void **)&out->items));
    for (size_t i = 0; i < alive->count; i++) {
        const struct dag_condition *at =
            condition_at(&m->clauses[clause_of(alive->items[i])], slot);
        for (size_t k = 0; at != NULL && k < at->globs.count; k++) {
            out->items[out->count++] = at->globs.items[k];
        }
    }
    sort_unique(out);
    return OK;
}

/* An exact value that a clause names at the slot. */
struct named {
    struct slice value;
    uint32_t clause;
};

/* The exact values of a state's clauses at one slot, and the clauses that may take others. */
struct branching {
    struct named *named; /* by value, then clause. */
    size_t named_count;
    struct marks open; /* without a condition there, or with globs. */
};

static int named_cmp(const void *x, const void *y)
{
    const struct named *a = x;
    const struct named *b = y;
    int order = slice_cmp(a->value, b->value);
    return order != 0 ? order : (a->clause > b->clause) - (a->clause < b->clause);
}

static MUST_CHECK struct err branch(struct making *m, uint32_t slot, const struct marks *alive,
                                    struct branching *out)
{
    size_t total = 0;
    for (size_t i = 0; i < alive->count; i++) {
        const struct dag_condition *at =
            condition_at(&m->clauses[clause_of(alive->items[i])], slot);
        total += at == NULL ? 0 : at->exact.count;
    }
    TRY(new_marks(m, alive->count, &out->open));
    TRY(arena_calloc(m->arena, total + 1, sizeof(struct named), (void **)&out->named));
    for (size_t i = 0; i < alive->count; i++) {
        uint32_t clause = clause_of(alive->items[i]);
        const struct dag_condition *at = condition_at(&m->clauses[clause], slot);
        for (size_t k = 0; at != NULL && k < at->exact.count; k++) {
            out->named[out->named_count++] = (struct named){at->exact.items[k], clause};
        }
        if (at == NULL || at->globs.count > 0) {
            out->open.items[out->open.count++] = alive->items[i];
        }
    }
    qsort(out->named, out->named_count, sizeof(struct named), named_cmp);
    return OK;
}

/*
 * Where one exact value leads: the clauses that name it ('count' of them), and of the open ones
 * those that take it; globs are tried on it here and now.
 */
static MUST_CHECK struct err make_edge(struct making *m, uint32_t slot, const struct named *named,
                                       size_t count, const struct marks *open, struct dag_edge *out)
{
    struct marks next = {0};
    TRY(new_marks(m, count + open->count, &next));
    size_t k = 0;
    for (size_t i = 0; i < open->count; i++) {
        uint32_t clause = clause_of(open->items[i]);
        for (; k < count && named[k].clause < clause; k++) {
            next.items[next.count++] = named[k].clause << 1;
        }
        if (k < count && named[k].clause == clause) {
            continue; /* it is named as well, and added with those */
        }
        const struct dag_condition *at = condition_at(&m->clauses[clause], slot);
        if (at == NULL || globs_fit(&at->globs, named[0].value)) {
            next.items[next.count++] = clause << 1;
        }
    }
    for (; k < count; k++) {
        next.items[next.count++] = named[k].clause << 1;
    }
    out->value = named[0].value;
    return make_state(m, slot + 1, next, &out->to);
}

static bool wants(const struct making *m, mark at, uint32_t slot, struct slice glob)
{
    const struct dag_condition *condition = condition_at(&m->clauses[clause_of(at)], slot);
    return condition != NULL && !is_matched(at) && has_value(&condition->globs, glob);
}

static bool wants_any(const struct making *m, mark at, uint32_t slot,
                      const struct dag_values *globs)
{
    for (size_t i = 0; i < globs->count; i++) {
        if (wants(m, at, slot, globs->items[i])) {
            return true;
        }
    }
    return false;
}

/* What was found of one glob of a slot; 'globs' are those that were open, itself among them. */
struct finding {
    uint32_t slot;
    struct slice glob;
    bool fits;
    const struct dag_values *globs;
};

/* Whether a clause waits for a glob that fits wherever the found one does. */
static bool is_met(const struct making *m, mark at, const struct finding *found)
{
    const struct dag_values *globs = found->globs;
    for (size_t i = 0; i < globs->count; i++) {
        if (within(found->glob, globs->items[i]) && wants(m, at, found->slot, globs->items[i])) {
            return true;
        }
    }
    return false;
}

/* The globs that still say something. */
static MUST_CHECK struct err globs_left(struct making *m, const struct finding *found,
                                        struct dag_values *out)
{
    const struct dag_values *globs = found->globs;
    TRY(arena_calloc(m->arena, globs->count + 1, sizeof(struct slice), (void **)&out->items));
    for (size_t i = 0; i < globs->count; i++) {
        struct slice other = globs->items[i];
        bool known = found->fits ? within(found->glob, other) || apart(found->glob, other)
                                 : within(other, found->glob);
        if (!known) {
            out->items[out->count++] = other;
        }
    }
    return OK;
}

/*
 * The state behind a glob that fits (or not): 'left' are the globs that still say something.
 * A clause that waits for none of them can no longer hold, and goes.
 */
static MUST_CHECK struct err after_glob(struct making *m, const struct marks *before,
                                        const struct finding *found, struct marks *out_marks,
                                        struct dag_values *out_left)
{
    TRY(new_marks(m, before->count, out_marks));
    TRY(globs_left(m, found, out_left));
    for (size_t i = 0; i < before->count; i++) {
        mark at = before->items[i];
        bool matched = is_matched(at) || (found->fits && is_met(m, at, found));
        if (matched || wants_any(m, at, found->slot, out_left)) {
            out_marks->items[out_marks->count++] = matched ? at | 1 : at;
        }
    }
    return OK;
}

/* Globs that no clause of the state waits for say nothing. */
static void drop_idle(const struct making *m, uint32_t slot, const struct marks *alive,
                      struct dag_values *globs)
{
    size_t count = 0;
    for (size_t g = 0; g < globs->count; g++) {
        bool idle = true;
        for (size_t i = 0; idle && i < alive->count; i++) {
            idle = !wants(m, alive->items[i], slot, globs->items[g]);
        }
        if (!idle) {
            globs->items[count++] = globs->items[g];
        }
    }
    globs->count = count;
}

/* No glob is left to try: on to the next slot with what holds. */
static MUST_CHECK struct err leave_slot(struct making *m, uint32_t slot, const struct marks *alive,
                                        uint32_t *out)
{
    struct marks next = {0};
    TRY(new_marks(m, alive->count, &next));
    for (size_t i = 0; i < alive->count; i++) {
        next.items[next.count++] = alive->items[i] & ~1U;
    }
    return make_state(m, slot + 1, next, out);
}

/* Key of a state: slot, what is asked there (globs), marks. */
static MUST_CHECK struct err state_key(struct making *m, uint32_t slot, const struct marks *alive,
                                       const struct dag_values *globs, struct slice *out)
{
    size_t glob_count = globs == NULL ? 0 : globs->count;
    size_t count = 2 + 2 * glob_count + alive->count;
    uint32_t *words = NULL;
    TRY(arena_alloc(m->arena, count * sizeof(uint32_t), (void **)&words));
    words[0] = slot;
    words[1] = globs == NULL ? UINT32_MAX : (uint32_t)glob_count;
    for (size_t i = 0; i < glob_count; i++) {
        /* Globs are borrowed from clauses, but equal ones from different places: by hash. */
        uint64_t hash = map_hash(globs->items[i]);
        words[2 + 2 * i] = (uint32_t)hash;
        words[3 + 2 * i] = (uint32_t)(hash >> 32);
    }
    for (size_t i = 0; i < alive->count; i++) {
        words[2 + 2 * glob_count + i] = alive->items[i];
    }
    *out = slice_of(words, count * sizeof(uint32_t));
    return OK;
}

/*
 * The state where no exact value fits and 'globs' are still to be tried. 'alive' may be changed.
 * Recursion ends: each turn has at least one glob less, of at most DAG_GLOBS_MAX.
 */
static MUST_CHECK struct err make_globs(struct making *m, uint32_t slot, struct marks alive,
                                        struct dag_values globs, uint32_t *out)
{
    prune(m, &alive, slot);
    if (decided(m, &alive, slot, out)) {
        return OK;
    }
    drop_idle(m, slot, &alive, &globs);
    if (globs.count == 0) {
        return leave_slot(m, slot, &alive, out);
    }
    struct slice key = {0};
    TRY(state_key(m, slot, &alive, &globs, &key));
    const uint32_t *known = map_get(&m->states, key);
    if (known != NULL) {
        *out = *known;
        return OK;
    }
    struct dag_node node = {.slot = slot, .glob = globs.items[0]};
    for (int fits = 0; fits < 2; fits++) {
        struct marks next = {0};
        struct dag_values left = {0};
        struct finding found = {
            .slot = slot, .glob = node.glob, .fits = fits == 1, .globs = &globs};
        TRY(after_glob(m, &alive, &found, &next, &left));
        TRY(make_globs(m, slot, next, left, fits == 1 ? &node.matched : &node.otherwise));
    }
    TRY(cons(m, &node, out));
    return remember(m, &m->states, key, *out);
}

/* Where a value leads that no clause names: what takes anything, and what has globs. */
static MUST_CHECK struct err make_otherwise(struct making *m, uint32_t slot,
                                            const struct marks *open, uint32_t *out)
{
    struct marks next = {0};
    struct dag_values globs = {0};
    TRY(new_marks(m, open->count, &next));
    for (size_t i = 0; i < open->count; i++) {
        uint32_t clause = clause_of(open->items[i]);
        bool any = condition_at(&m->clauses[clause], slot) == NULL;
        next.items[next.count++] = clause << 1 | (any ? 1 : 0);
    }
    TRY(collect_globs(m, slot, &next, &globs));
    if (globs.count > DAG_GLOBS_MAX) {
        return FAIL(E_TOO_LARGE);
    }
    return make_globs(m, slot, next, globs, out);
}

/* The first slot from 'slot' on that some clause asks about. */
static uint32_t next_slot(const struct making *m, uint32_t slot, const struct marks *alive)
{
    uint32_t least = m->slot_count;
    for (size_t i = 0; i < alive->count; i++) {
        const struct dag_clause *clause = &m->clauses[clause_of(alive->items[i])];
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

static MUST_CHECK struct err make_switch(struct making *m, uint32_t slot, const struct marks *alive,
                                         uint32_t *out)
{
    struct branching all = {0};
    struct dag_node node = {.slot = slot};
    TRY(branch(m, slot, alive, &all));
    TRY(arena_calloc(m->arena, all.named_count + 1, sizeof(struct dag_edge), (void **)&node.edges));
    for (size_t first = 0, end = 0; first < all.named_count; first = end) {
        while (end < all.named_count && slice_eq(all.named[end].value, all.named[first].value)) {
            end++;
        }
        TRY(make_edge(m, slot, all.named + first, end - first, &all.open,
                      &node.edges[node.edge_count]));
        node.edge_count++;
    }
    TRY(make_otherwise(m, slot, &all.open, &node.otherwise));
    return cons(m, &node, out);
}

/*
 * The state at a slot; 'alive' may be changed. Recursion ends: each turn is one slot further, of
 * at most DAG_SLOTS_MAX.
 */
static struct err make_state(struct making *m, uint32_t slot, struct marks alive, uint32_t *out)
{
    prune(m, &alive, slot);
    if (decided(m, &alive, slot, out)) {
        return OK;
    }
    slot = next_slot(m, slot, &alive);
    CHECK(slot < m->slot_count); /* a state that is not decided has a clause with a condition */
    struct slice key = {0};
    TRY(state_key(m, slot, &alive, /* globs= */ NULL, &key));
    const uint32_t *known = map_get(&m->states, key);
    if (known != NULL) {
        *out = *known;
        return OK;
    }
    TRY(make_switch(m, slot, &alive, out));
    return remember(m, &m->states, key, *out);
}

static MUST_CHECK struct err make_root(struct making *m, size_t clause_count)
{
    struct marks all = {0};
    TRY(new_marks(m, clause_count, &all));
    for (size_t i = 0; i < clause_count; i++) {
        all.items[all.count++] = (mark)i << 1;
    }
    return make_state(m, /* slot= */ 0, all, &m->dag.root);
}

/* Hands the nodes over to the arena. */
static MUST_CHECK struct err finish(struct making *m, struct dag *out)
{
    struct dag_node *nodes = NULL;
    TRY(arena_calloc(m->arena, m->dag.count + 1, sizeof(struct dag_node), (void **)&nodes));
    for (size_t i = 0; i < m->dag.count; i++) {
        nodes[i] = m->dag.nodes[i];
    }
    *out = (struct dag){nodes, m->dag.count, m->dag.root};
    return OK;
}

struct err dag_make(struct arena *arena, const struct dag_clause *clauses, size_t clause_count,
                    uint32_t slot_count, struct dag *out)
{
    if (slot_count > DAG_SLOTS_MAX || clause_count >= DAG_VERDICT / 2) {
        return FAIL(E_TOO_LARGE);
    }
    struct making m = {.arena = arena, .clauses = clauses, .slot_count = slot_count};
    struct err e = make_root(&m, clause_count);
    if (err_ok(e)) {
        e = finish(&m, out);
    }
    free(m.dag.nodes);
    map_free(&m.states);
    map_free(&m.nodes);
    return e;
}
