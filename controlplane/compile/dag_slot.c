/*
 * dag_slot: what the values of one slot lead to.
 *
 * First whether there is a value at all, where that matters to a clause; then the exact values that
 * clauses name; then globs, those that are a front and a star together, the others one by one.
 * Where one exact value or one prefix is found, most clauses of a large state are not looked at:
 * those that can hold there by it alone are found by their names.
 */
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/text.h"
#include "controlplane/compile/dag_impl.h"

/* Stages of a slot, for the keys of its states. 0 is the slot itself. */
enum { STAGE_GLOBS = 1 };

const struct dag_condition *dag_condition_at(const struct dag_clause *clause, uint32_t slot)
{
    for (size_t i = 0; i < clause->condition_count; i++) {
        if (clause->conditions[i].slot == slot) {
            return &clause->conditions[i];
        }
    }
    return NULL;
}

static const struct dag_condition *condition_of(const struct dag_making *m, struct dag_mark at,
                                                uint32_t slot)
{
    return dag_condition_at(&m->clauses[at.clause], slot);
}

/* ---- one value ---- */

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

static bool term_holds(const struct dag_term *term, struct slice value)
{
    bool fits = has_value(&term->exact, value);
    for (size_t i = 0; i < term->globs.count && !fits; i++) {
        fits = text_glob(term->globs.items[i], value);
    }
    return fits != term->negate;
}

/* Those of 'marks' that hold for a value, at the slot behind. */
static MUST_CHECK struct err judge_value(struct dag_making *m, uint32_t slot, struct slice value,
                                         struct dag_marks *marks)
{
    size_t count = 0;
    for (size_t i = 0; i < marks->count; i++) {
        const struct dag_condition *at = condition_of(m, marks->items[i], slot);
        bool holds = true;
        for (size_t t = 0; at != NULL && t < at->term_count && holds; t++) {
            TRY(dag_spend(m, at->terms[t].globs.count));
            holds = term_holds(&at->terms[t], value);
        }
        if (holds) {
            marks->items[count++] = (struct dag_mark){.clause = marks->items[i].clause};
        }
    }
    marks->count = count;
    return OK;
}

/* ---- what is known of globs ---- */

static void know(struct dag_making *m, const struct dag_globs *globs, enum dag_known what)
{
    for (size_t i = 0; i < globs->count; i++) {
        m->known[globs->items[i]] = (uint8_t)what;
    }
}

enum judgement { HOLDS, OPEN, FAILS };

static enum judgement judge_term(const struct dag_making *m, const struct dag_term *term)
{
    bool fits = false;
    bool open = false;
    for (size_t i = 0; i < term->globs.count; i++) {
        fits = fits || m->known[term->numbers[i]] == DAG_FITS;
        open = open || m->known[term->numbers[i]] == DAG_UNKNOWN;
    }
    if (fits || !open) {
        return fits != term->negate ? HOLDS : FAILS;
    }
    return OPEN;
}

/* Those that may still hold by what is known, with the terms that do. No exact value fits. */
static MUST_CHECK struct err judge(struct dag_making *m, uint32_t slot, struct dag_marks *marks)
{
    size_t count = 0;
    for (size_t i = 0; i < marks->count; i++) {
        struct dag_mark mark = marks->items[i];
        const struct dag_condition *at = condition_of(m, mark, slot);
        bool lives = true;
        for (size_t t = 0; at != NULL && t < at->term_count && lives; t++) {
            if ((mark.done >> t & 1) != 0) {
                continue;
            }
            TRY(dag_spend(m, at->terms[t].globs.count));
            enum judgement judgement = judge_term(m, &at->terms[t]);
            lives = judgement != FAILS;
            mark.done |= judgement == HOLDS ? 1U << t : 0;
        }
        if (lives) {
            marks->items[count++] = mark;
        }
    }
    marks->count = count;
    return OK;
}

static int number_order(const void *x, const void *y)
{
    uint32_t a = *(const uint32_t *)x;
    uint32_t b = *(const uint32_t *)y;
    return (a > b) - (a < b);
}

/* How many globs the terms name that do not hold yet. */
static size_t count_globs(const struct dag_making *m, uint32_t slot, const struct dag_marks *marks)
{
    size_t count = 0;
    for (size_t i = 0; i < marks->count; i++) {
        const struct dag_condition *at = condition_of(m, marks->items[i], slot);
        for (size_t t = 0; at != NULL && t < at->term_count; t++) {
            count += (marks->items[i].done >> t & 1) == 0 ? at->terms[t].globs.count : 0;
        }
    }
    return count;
}

/* The globs of terms that do not hold yet, each once: of those in 'among', or of all (NULL). */
static MUST_CHECK struct err gather(struct dag_making *m, uint32_t slot,
                                    const struct dag_marks *marks, const struct dag_globs *among,
                                    struct dag_globs *out)
{
    size_t most = count_globs(m, slot, marks);
    uint8_t wanted = among == NULL ? DAG_FITS_NOT : DAG_UNKNOWN;
    uint8_t taken = among == NULL ? DAG_UNKNOWN : DAG_FITS_NOT;
    struct dag_globs found = {0};
    TRY(dag_spend(m, most));
    TRY(arena_alloc(&m->scratch, (most + 1) * sizeof(uint32_t), (void **)&found.items));
    if (among != NULL) {
        know(m, among, DAG_UNKNOWN);
    }
    for (size_t i = 0; i < marks->count; i++) {
        const struct dag_condition *at = condition_of(m, marks->items[i], slot);
        for (size_t t = 0; at != NULL && t < at->term_count; t++) {
            const struct dag_term *term = &at->terms[t];
            for (size_t g = 0; (marks->items[i].done >> t & 1) == 0 && g < term->globs.count; g++) {
                if (m->known[term->numbers[g]] == wanted) {
                    m->known[term->numbers[g]] = taken;
                    found.items[found.count++] = term->numbers[g];
                }
            }
        }
    }
    know(m, among == NULL ? &found : among, DAG_FITS_NOT);
    qsort(found.items, found.count, sizeof(uint32_t), number_order);
    *out = found;
    return OK;
}

/* ---- globs among each other ---- */

/* A front and one star. */
static bool is_prefix(struct slice glob)
{
    return glob.size > 0 && text_glob_front(glob).size + 1 == glob.size &&
           glob.ptr[glob.size - 1] == '*';
}

/* No text fits both, by their fronts alone. */
static bool apart(struct slice a, struct slice b)
{
    struct slice x = text_glob_front(a);
    struct slice y = text_glob_front(b);
    return !slice_starts(x, y) && !slice_starts(y, x);
}

/* Every text that fits 'a' fits 'b': for a 'b' that is a front and one star. */
static bool within(struct slice a, struct slice b)
{
    return slice_eq(a, b) || (is_prefix(b) && slice_starts(text_glob_front(a), text_glob_front(b)));
}

static enum dag_known follows(struct slice glob, bool fits, struct slice other)
{
    if (fits) {
        return within(glob, other) ? DAG_FITS : apart(glob, other) ? DAG_FITS_NOT : DAG_UNKNOWN;
    }
    return within(other, glob) ? DAG_FITS_NOT : DAG_UNKNOWN;
}

static MUST_CHECK struct err make_globs(struct dag_making *m, uint32_t slot, struct dag_marks alive,
                                        const struct dag_globs *left, uint32_t *out);

/* The state behind a glob of 'globs' that fits, or does not. */
static MUST_CHECK struct err make_branch(struct dag_making *m, uint32_t slot,
                                         const struct dag_marks *alive,
                                         const struct dag_globs *globs, bool fits, uint32_t *out)
{
    struct dag_marks next = {0};
    struct dag_globs left = {0};
    TRY(dag_spend(m, globs->count));
    TRY(dag_marks_new(m, alive->count, &next));
    TRY(arena_alloc(&m->scratch, (globs->count + 1) * sizeof(uint32_t), (void **)&left.items));
    for (size_t i = 0; i < alive->count; i++) {
        next.items[next.count++] = alive->items[i];
    }
    for (size_t i = 0; i < globs->count; i++) {
        uint32_t other = globs->items[i];
        enum dag_known known = follows(m->globs[globs->items[0]], fits, m->globs[other]);
        m->known[other] = (uint8_t)known;
        if (known == DAG_UNKNOWN) {
            left.items[left.count++] = other;
        }
    }
    TRY(judge(m, slot, &next));
    know(m, globs, DAG_FITS_NOT);
    return make_globs(m, slot, next, &left, out);
}

/* ---- marks by what they name ---- */

/* Places in a state's marks, ascending. */
struct places {
    uint32_t *items;
    size_t count;
};

static MUST_CHECK struct err places_new(struct dag_making *m, size_t most, struct places *out)
{
    TRY(dag_spend(m, most));
    out->count = 0;
    return arena_alloc(&m->scratch, (most + 1) * sizeof(uint32_t), (void **)&out->items);
}

/* A value that clauses name; 'place' of a mark that can hold there by its name alone. */
struct naming {
    struct slice value;
    uint32_t place; /* NO_PLACE: none, the value has its edge all the same. */
};

#define NO_PLACE UINT32_MAX

static int naming_order(const void *x, const void *y)
{
    const struct naming *a = x;
    const struct naming *b = y;
    int order = slice_cmp(a->value, b->value);
    return order != 0 ? order : (a->place > b->place) - (a->place < b->place);
}

/* The marks at the places of 'open' and of 'named', in their order. */
static MUST_CHECK struct err pick(struct dag_making *m, const struct dag_marks *alive,
                                  const struct places *open, const struct places *named,
                                  struct dag_marks *out)
{
    size_t a = 0;
    size_t b = 0;
    TRY(dag_marks_new(m, open->count + named->count, out));
    while (a < open->count || b < named->count) {
        bool first = b == named->count || (a < open->count && open->items[a] < named->items[b]);
        uint32_t place = first ? open->items[a++] : named->items[b++];
        out->items[out->count++] = alive->items[place];
    }
    return OK;
}

/* ---- prefixes ---- */

struct prefix {
    struct slice front;
    uint32_t number;
    uint32_t parent; /* the longest other one that it begins with; NO_PLACE: none. */
    size_t first;    /* its namings. */
    size_t count;
};

/* The prefixes of a state, its other globs, and its marks by them. */
struct prefixing {
    struct prefix *items; /* by front. */
    size_t count;
    struct dag_globs others;
    struct naming *namings;
    size_t naming_count;
    struct places open; /* marks that may hold without any of the prefixes. */
};

static int prefix_order(const void *x, const void *y)
{
    return slice_cmp(((const struct prefix *)x)->front, ((const struct prefix *)y)->front);
}

static MUST_CHECK struct err sort_prefixes(struct dag_making *m, const struct dag_globs *globs,
                                           struct prefixing *p)
{
    TRY(dag_spend(m, globs->count));
    TRY(arena_alloc(&m->scratch, (globs->count + 1) * sizeof(struct prefix), (void **)&p->items));
    TRY(arena_alloc(&m->scratch, (globs->count + 1) * sizeof(uint32_t), (void **)&p->others.items));
    for (size_t i = 0; i < globs->count; i++) {
        uint32_t number = globs->items[i];
        if (is_prefix(m->globs[number])) {
            p->items[p->count++] =
                (struct prefix){.front = text_glob_front(m->globs[number]), .number = number};
        } else {
            p->others.items[p->others.count++] = number;
        }
    }
    qsort(p->items, p->count, sizeof(struct prefix), prefix_order);
    for (uint32_t i = 0; i < p->count; i++) {
        uint32_t parent = i == 0 ? NO_PLACE : i - 1;
        while (parent != NO_PLACE && !slice_starts(p->items[i].front, p->items[parent].front)) {
            parent = p->items[parent].parent;
        }
        p->items[i].parent = parent;
    }
    return OK;
}

/* A term that only a prefix can make hold; 'known' tells prefixes (DAG_FITS) from others. */
static const struct dag_term *term_by_prefix(const struct dag_making *m, struct dag_mark mark,
                                             const struct dag_condition *at)
{
    for (size_t t = 0; at != NULL && t < at->term_count; t++) {
        const struct dag_term *term = &at->terms[t];
        bool other = false;
        for (size_t g = 0; g < term->globs.count; g++) {
            other = other || m->known[term->numbers[g]] == DAG_UNKNOWN;
        }
        if ((mark.done >> t & 1) == 0 && !term->negate && !other) {
            return term;
        }
    }
    return NULL;
}

static MUST_CHECK struct err name_by_prefix(struct dag_making *m, uint32_t slot,
                                            const struct dag_marks *alive, struct prefixing *p)
{
    size_t most = count_globs(m, slot, alive);
    TRY(dag_spend(m, most));
    TRY(arena_alloc(&m->scratch, (most + 1) * sizeof(struct naming), (void **)&p->namings));
    TRY(places_new(m, alive->count, &p->open));
    know(m, &p->others, DAG_UNKNOWN);
    for (size_t i = 0; i < p->count; i++) {
        m->known[p->items[i].number] = DAG_FITS;
    }
    for (uint32_t i = 0; i < alive->count; i++) {
        const struct dag_term *term =
            term_by_prefix(m, alive->items[i], condition_of(m, alive->items[i], slot));
        if (term == NULL) {
            p->open.items[p->open.count++] = i;
        }
        for (size_t g = 0; term != NULL && g < term->globs.count; g++) {
            if (m->known[term->numbers[g]] == DAG_FITS) {
                p->namings[p->naming_count++] =
                    (struct naming){text_glob_front(m->globs[term->numbers[g]]), i};
            }
        }
    }
    know(m, &p->others, DAG_FITS_NOT);
    for (size_t i = 0; i < p->count; i++) {
        m->known[p->items[i].number] = DAG_FITS_NOT;
    }
    qsort(p->namings, p->naming_count, sizeof(struct naming), naming_order);
    size_t at = 0;
    for (size_t i = 0; i < p->count; i++) {
        p->items[i].first = at;
        while (at < p->naming_count && slice_eq(p->namings[at].value, p->items[i].front)) {
            at++;
        }
        p->items[i].count = at - p->items[i].first;
    }
    return OK;
}

/* The places of those that a prefix or a shorter one names, each once. */
static MUST_CHECK struct err named_by_chain(struct dag_making *m, const struct prefixing *p,
                                            uint32_t prefix, struct places *out)
{
    size_t most = 0;
    for (uint32_t i = prefix; i != NO_PLACE; i = p->items[i].parent) {
        most += p->items[i].count + 1;
    }
    TRY(places_new(m, most, out));
    for (uint32_t i = prefix; i != NO_PLACE; i = p->items[i].parent) {
        for (size_t k = 0; k < p->items[i].count; k++) {
            out->items[out->count++] = p->namings[p->items[i].first + k].place;
        }
    }
    qsort(out->items, out->count, sizeof(uint32_t), number_order);
    size_t count = 0;
    for (size_t i = 0; i < out->count; i++) {
        if (count == 0 || out->items[i] != out->items[count - 1]) {
            out->items[count++] = out->items[i];
        }
    }
    out->count = count;
    return OK;
}

/* The state where the longest prefix is that one (NO_PLACE: none fits). */
static MUST_CHECK struct err make_prefix(struct dag_making *m, uint32_t slot,
                                         const struct dag_marks *alive, const struct prefixing *p,
                                         uint32_t prefix, uint32_t *out)
{
    struct dag_marks next = {0};
    struct places named = {0};
    struct dag_globs left = {0};
    TRY(named_by_chain(m, p, prefix, &named));
    TRY(pick(m, alive, &p->open, &named, &next));
    TRY(dag_spend(m, p->others.count));
    TRY(arena_alloc(&m->scratch, (p->others.count + 1) * sizeof(uint32_t), (void **)&left.items));
    for (size_t i = 0; i < p->others.count; i++) {
        uint32_t other = p->others.items[i];
        if (prefix == NO_PLACE || !apart(m->globs[p->items[prefix].number], m->globs[other])) {
            left.items[left.count++] = other;
        }
    }
    know(m, &left, DAG_UNKNOWN);
    for (uint32_t i = prefix; i != NO_PLACE; i = p->items[i].parent) {
        m->known[p->items[i].number] = DAG_FITS;
    }
    TRY(judge(m, slot, &next));
    know(m, &left, DAG_FITS_NOT);
    for (uint32_t i = prefix; i != NO_PLACE; i = p->items[i].parent) {
        m->known[p->items[i].number] = DAG_FITS_NOT;
    }
    return make_globs(m, slot, next, &left, out);
}

static MUST_CHECK struct err make_prefixes(struct dag_making *m, uint32_t slot,
                                           const struct dag_marks *alive,
                                           const struct dag_globs *globs, uint32_t *out)
{
    struct prefixing p = {0};
    struct dag_node node = {.slot = slot, .prefixes = true};
    TRY(sort_prefixes(m, globs, &p));
    TRY(name_by_prefix(m, slot, alive, &p));
    TRY(dag_spend(m, p.count));
    TRY(arena_calloc(&m->scratch, p.count + 1, sizeof(struct dag_edge), (void **)&node.edges));
    for (uint32_t i = 0; i < p.count; i++) {
        struct dag_edge *edge = &node.edges[node.edge_count++];
        edge->value = p.items[i].front;
        TRY(make_prefix(m, slot, alive, &p, i, &edge->to));
    }
    TRY(make_prefix(m, slot, alive, &p, NO_PLACE, &node.otherwise));
    return dag_cons(m, &node, out);
}

/* ---- globs ---- */

static size_t count_prefixes(const struct dag_making *m, const struct dag_globs *globs)
{
    size_t count = 0;
    for (size_t i = 0; i < globs->count; i++) {
        count += is_prefix(m->globs[globs->items[i]]);
    }
    return count;
}

static MUST_CHECK struct err ask_globs(struct dag_making *m, uint32_t slot,
                                       const struct dag_marks *alive, const struct dag_globs *globs,
                                       uint32_t *out)
{
    if (count_prefixes(m, globs) >= DAG_PREFIXES_LEAST) {
        return make_prefixes(m, slot, alive, globs, out);
    }
    struct dag_node node = {.slot = slot, .glob = m->globs[globs->items[0]]};
    TRY(make_branch(m, slot, alive, globs, /* fits= */ false, &node.otherwise));
    TRY(make_branch(m, slot, alive, globs, /* fits= */ true, &node.matched));
    return dag_cons(m, &node, out);
}

/*
 * The state where no exact value fits and of the globs those in 'left' are not known yet. Recursion
 * ends: each turn knows one glob more; and as dag_make_state() does.
 */
static struct err make_globs(struct dag_making *m, uint32_t slot, struct dag_marks alive,
                             const struct dag_globs *left, uint32_t *out)
{
    struct dag_globs globs = {0};
    struct slice key = {0};
    if (dag_decided(m, &alive, slot, out)) {
        return OK;
    }
    TRY(gather(m, slot, &alive, left, &globs));
    if (globs.count == 0) {
        for (size_t i = 0; i < alive.count; i++) {
            alive.items[i].done = 0;
        }
        return dag_make_state(m, slot + 1, alive, out);
    }
    TRY(dag_state_key(m, slot, STAGE_GLOBS, &alive, &globs, &key));
    const uint32_t *known = map_get(&m->states, key);
    if (known != NULL) {
        *out = *known;
        return OK;
    }
    TRY(dag_descend(m));
    TRY(ask_globs(m, slot, &alive, &globs, out));
    m->depth--;
    return dag_remember(m, &m->states, key, *out);
}

/* ---- exact values ---- */

/* The marks of a state by the exact values that they name. */
struct branching {
    const struct dag_marks *alive;
    struct naming *namings;
    size_t naming_count;
    struct places open; /* marks that may hold for a value that they do not name. */
};

/* A term that only an exact value can make hold. */
static const struct dag_term *term_by_value(const struct dag_condition *at)
{
    for (size_t t = 0; at != NULL && t < at->term_count; t++) {
        if (!at->terms[t].negate && at->terms[t].globs.count == 0) {
            return &at->terms[t];
        }
    }
    return NULL;
}

static void name_values(struct branching *b, const struct dag_term *term, uint32_t place)
{
    for (size_t i = 0; i < term->exact.count; i++) {
        b->namings[b->naming_count++] = (struct naming){term->exact.items[i], place};
    }
}

static MUST_CHECK struct err name_by_value(struct dag_making *m, uint32_t slot,
                                           const struct dag_marks *alive, struct branching *b)
{
    size_t most = 0;
    for (size_t i = 0; i < alive->count; i++) {
        const struct dag_condition *at = condition_of(m, alive->items[i], slot);
        for (size_t t = 0; at != NULL && t < at->term_count; t++) {
            most += at->terms[t].exact.count;
        }
    }
    TRY(dag_spend(m, most));
    TRY(arena_alloc(&m->scratch, (most + 1) * sizeof(struct naming), (void **)&b->namings));
    TRY(places_new(m, alive->count, &b->open));
    for (uint32_t i = 0; i < alive->count; i++) {
        const struct dag_condition *at = condition_of(m, alive->items[i], slot);
        const struct dag_term *by = term_by_value(at);
        if (by == NULL) {
            b->open.items[b->open.count++] = i;
        }
        for (size_t t = 0; at != NULL && t < at->term_count; t++) {
            if (by == NULL || by == &at->terms[t]) {
                name_values(b, &at->terms[t], by == NULL ? NO_PLACE : i);
            }
        }
    }
    qsort(b->namings, b->naming_count, sizeof(struct naming), naming_order);
    return OK;
}

/* Where the value of 'count' equal namings leads. */
static MUST_CHECK struct err make_edge(struct dag_making *m, uint32_t slot,
                                       const struct branching *b, const struct naming *namings,
                                       size_t count, struct dag_edge *out)
{
    struct dag_marks next = {0};
    struct places named = {0};
    TRY(places_new(m, count, &named));
    for (size_t i = 0; i < count; i++) {
        if (namings[i].place != NO_PLACE) {
            named.items[named.count++] = namings[i].place;
        }
    }
    TRY(pick(m, b->alive, &b->open, &named, &next));
    TRY(judge_value(m, slot, namings[0].value, &next));
    out->value = namings[0].value;
    return dag_make_state(m, slot + 1, next, &out->to);
}

/* Where a value leads that no clause names: to what takes anything, and what has globs. */
static MUST_CHECK struct err make_otherwise(struct dag_making *m, uint32_t slot, bool present,
                                            const struct dag_marks *alive,
                                            const struct branching *b, uint32_t *out)
{
    struct dag_marks next = {0};
    struct dag_globs globs = {0};
    static const struct places none = {0};
    TRY(pick(m, alive, &b->open, &none, &next));
    TRY(gather(m, slot, &next, /* among= */ NULL, &globs));
    for (size_t i = 0; i < globs.count; i++) {
        bool any = present && slice_eq(m->globs[globs.items[i]], SLICE_LIT("*"));
        m->known[globs.items[i]] = any ? DAG_FITS : DAG_UNKNOWN;
    }
    TRY(judge(m, slot, &next));
    know(m, &globs, DAG_FITS_NOT);
    return make_globs(m, slot, next, &globs, out);
}

static MUST_CHECK struct err make_switch(struct dag_making *m, uint32_t slot, bool present,
                                         const struct dag_marks *alive, uint32_t *out)
{
    struct branching b = {.alive = alive};
    struct dag_node node = {.slot = slot};
    TRY(name_by_value(m, slot, alive, &b));
    TRY(arena_calloc(&m->scratch, b.naming_count + 1, sizeof(struct dag_edge),
                     (void **)&node.edges));
    for (size_t first = 0, end = 0; first < b.naming_count; first = end) {
        while (end < b.naming_count && slice_eq(b.namings[end].value, b.namings[first].value)) {
            end++;
        }
        TRY(make_edge(m, slot, &b, b.namings + first, end - first, &node.edges[node.edge_count]));
        node.edge_count++;
    }
    TRY(make_otherwise(m, slot, present, alive, &b, &node.otherwise));
    return dag_cons(m, &node, out);
}

/* ---- the slot ---- */

/* Whether a clause takes "no value" for other than a value that it does not name. */
static bool asks_presence(const struct dag_making *m, uint32_t slot, const struct dag_marks *alive)
{
    for (size_t i = 0; i < alive->count; i++) {
        const struct dag_condition *at = condition_of(m, alive->items[i], slot);
        for (size_t t = 0; at != NULL && t < at->term_count; t++) {
            if (at->terms[t].absent != at->terms[t].negate) {
                return true;
            }
        }
    }
    return false;
}

/* Where no value leads. */
static MUST_CHECK struct err make_absent(struct dag_making *m, uint32_t slot,
                                         const struct dag_marks *alive, uint32_t *out)
{
    struct dag_marks next = {0};
    TRY(dag_marks_new(m, alive->count, &next));
    for (size_t i = 0; i < alive->count; i++) {
        const struct dag_condition *at = condition_of(m, alive->items[i], slot);
        bool holds = true;
        for (size_t t = 0; at != NULL && t < at->term_count; t++) {
            holds = holds && at->terms[t].absent;
        }
        if (holds) {
            next.items[next.count++] = alive->items[i];
        }
    }
    return dag_make_state(m, slot + 1, next, out);
}

struct err dag_make_slot(struct dag_making *m, uint32_t slot, const struct dag_marks *alive,
                         uint32_t *out)
{
    if (!asks_presence(m, slot, alive)) {
        return make_switch(m, slot, /* present= */ false, alive, out);
    }
    struct dag_node node = {.slot = slot, .glob = SLICE_LIT("*")};
    TRY(make_absent(m, slot, alive, &node.otherwise));
    TRY(make_switch(m, slot, /* present= */ true, alive, &node.matched));
    return dag_cons(m, &node, out);
}
