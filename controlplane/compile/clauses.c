/*
 * clauses: rules as conjunctions of conditions, one for each of a rule's callers and each
 * alternative of its condition.
 *
 * A test of a header or trait that is not there is an error in a condition: it is taken for false
 * in a rule that allows and for true in one that denies. What the fields of a rule say of absent
 * values is no error: they do not fit.
 */
#include <stdlib.h>
#include <string.h>

#include "common/base/array.h"
#include "common/base/check.h"
#include "common/base/map.h"
#include "common/base/text.h"
#include "controlplane/compile/authorisation_impl.h"

static const char *const verb_names[CP_VERB_COUNT] = {"call", "publish", "subscribe", "fetch"};
static const char *const lane_names[CP_LANE_COUNT] = {"operator", "canonical", "proxy"};

/* ---- names ---- */

static int slice_order(const void *x, const void *y)
{
    return slice_cmp(*(const struct slice *)x, *(const struct slice *)y);
}

static void sort_names(struct dag_values *names)
{
    if (names->count > 1) {
        qsort(names->items, names->count, sizeof(struct slice), slice_order);
    }
    size_t count = 0;
    for (size_t i = 0; i < names->count; i++) {
        if (count == 0 || !slice_eq(names->items[i], names->items[count - 1])) {
            names->items[count++] = names->items[i];
        }
    }
    names->count = count;
}

/* Calls 'add' with each test of a ruling's condition. */
#define EACH_TEST(ruling, test)                                                                    \
    for (size_t any_ = 0; any_ < (ruling)->cel.count; any_++)                                      \
        for (size_t all_ = 0; all_ < (ruling)->cel.any[any_].count; all_++)                        \
            for (const struct cp_cel_test *test = (ruling)->cel.any[any_].tests[all_];             \
                 test != NULL; test = NULL)

static void count_names(const struct targeting *t, size_t *out_traits, size_t *out_headers)
{
    for (size_t i = 0; i < t->count; i++) {
        const struct cp_rule *rule = t->rulings[i].rule;
        *out_headers += rule->headers.count;
        for (size_t k = 0; k < rule->callers.count; k++) {
            *out_traits += rule->callers.items[k].traits.count;
        }
        EACH_TEST(&t->rulings[i], test)
        {
            bool itself = test->measure == CP_CEL_ITSELF;
            *out_traits += itself && test->attribute == CP_CEL_TRAIT;
            *out_headers += itself && test->attribute == CP_CEL_HEADER;
        }
    }
}

static void add_names(struct targeting *t, const struct ruling *ruling)
{
    const struct cp_rule *rule = ruling->rule;
    for (size_t k = 0; k < rule->headers.count; k++) {
        t->headers.items[t->headers.count++] = rule->headers.items[k].name.text;
    }
    for (size_t k = 0; k < rule->callers.count; k++) {
        const struct cp_pairs *pairs = &rule->callers.items[k].traits;
        for (size_t p = 0; p < pairs->count; p++) {
            t->traits.items[t->traits.count++] = pairs->items[p].name.text;
        }
    }
    EACH_TEST(ruling, test)
    {
        if (test->measure != CP_CEL_ITSELF) {
            continue; /* a comparison is a slot of its own. */
        }
        if (test->attribute == CP_CEL_TRAIT) {
            t->traits.items[t->traits.count++] = test->name;
        } else if (test->attribute == CP_CEL_HEADER) {
            t->headers.items[t->headers.count++] = test->name;
        }
    }
}

static MUST_CHECK struct err collect_names(struct targeting *t)
{
    size_t traits = 0;
    size_t headers = 0;
    count_names(t, &traits, &headers);
    TRY(arena_calloc(t->work, traits + 1, sizeof(struct slice), (void **)&t->traits.items));
    TRY(arena_calloc(t->work, headers + 1, sizeof(struct slice), (void **)&t->headers.items));
    for (size_t i = 0; i < t->count; i++) {
        add_names(t, &t->rulings[i]);
    }
    sort_names(&t->traits);
    sort_names(&t->headers);
    return OK;
}

static uint32_t name_index(const struct dag_values *names, struct slice name)
{
    const struct slice *at =
        bsearch(&name, names->items, names->count, sizeof(struct slice), slice_order);
    CHECK(at != NULL); /* collect_names() has seen them all */
    return (uint32_t)(at - names->items);
}

/* ---- conditions and schedules of rules ---- */

/* Drops the rulings whose condition is faulty: that was said when it was checked. */
static MUST_CHECK struct err parse_conditions(struct targeting *t)
{
    static struct cp_cel_all always;
    size_t count = 0;
    for (size_t i = 0; i < t->count; i++) {
        struct ruling *ruling = &t->rulings[i];
        struct cp_cel_fault fault = {0};
        ruling->cel = (struct cp_cel){.any = &always, .count = 1};
        if (ruling->rule->condition.text.size > 0) {
            TRY(cp_cel_parse(ruling->rule->condition.text, t->work, &ruling->cel, &fault));
        }
        if (fault.message == NULL) {
            t->rulings[count++] = *ruling;
        }
    }
    t->count = count;
    return OK;
}

static bool same_schedule(const struct cp_schedule *a, const struct cp_schedule *b)
{
    return a->count == b->count && a->not_before_ms == b->not_before_ms &&
           a->not_after_ms == b->not_after_ms &&
           memcmp(a->spans, b->spans, a->count * sizeof(a->spans[0])) == 0;
}

/* The index of a schedule among those of the target; their count: it is not there. */
static uint32_t schedule_index(const struct targeting *t, const struct cp_schedule *schedule)
{
    uint32_t at = 0;
    while (at < t->schedule_count && !same_schedule(&t->schedules[at], schedule)) {
        at++;
    }
    return at;
}

static MUST_CHECK struct err add_schedule(struct targeting *t, const struct cp_schedule *schedule)
{
    if (schedule_index(t, schedule) < t->schedule_count) {
        return OK;
    }
    if (t->schedule_count == DAG_SLOTS_MAX) {
        return FAIL(E_TOO_LARGE);
    }
    t->schedules[t->schedule_count++] = *schedule;
    return OK;
}

static bool same_comparison(const struct cp_cel_test *a, const struct cp_cel_test *b)
{
    return a->attribute == b->attribute && a->measure == b->measure && a->least == b->least &&
           a->most == b->most && slice_eq(a->name, b->name);
}

/* As schedule_index(). */
static uint32_t comparison_index(const struct targeting *t, const struct cp_cel_test *test)
{
    uint32_t at = 0;
    while (at < t->comparison_count && !same_comparison(t->comparisons[at], test)) {
        at++;
    }
    return at;
}

static MUST_CHECK struct err collect_test(struct targeting *t, const struct cp_cel_test *test)
{
    if (test->attribute == CP_CEL_TIME) {
        return add_schedule(t, test->schedule);
    }
    if (test->measure == CP_CEL_ITSELF || comparison_index(t, test) < t->comparison_count) {
        return OK;
    }
    if (t->comparison_count == DAG_SLOTS_MAX) {
        return FAIL(E_TOO_LARGE);
    }
    t->comparisons[t->comparison_count++] = test;
    return OK;
}

/* Each once; more than there are slots is too much, whatever else is asked. */
static MUST_CHECK struct err collect_schedules(struct targeting *t)
{
    struct cp_schedule schedule;
    TRY(arena_calloc(t->work, DAG_SLOTS_MAX, sizeof(schedule), (void **)&t->schedules));
    TRY(arena_calloc(t->work, DAG_SLOTS_MAX, sizeof(*t->comparisons), (void **)&t->comparisons));
    for (size_t i = 0; i < t->count; i++) {
        struct ruling *ruling = &t->rulings[i];
        if (cp_rule_has_schedule(ruling->rule)) {
            cp_rule_schedule(ruling->rule, &schedule);
            TRY(add_schedule(t, &schedule));
            ruling->schedule = schedule_index(t, &schedule);
        }
        EACH_TEST(ruling, test)
        {
            TRY(collect_test(t, test));
        }
    }
    return OK;
}

/* ---- terms ---- */

/* One term of a clause, and where it belongs. */
struct atom {
    uint32_t slot;
    struct dag_term term;
};

/* A clause in the making: its terms in any order. */
struct building {
    struct targeting *t;
    struct atom *atoms;
    size_t count;
};

/* A term with room for so many values and globs. */
static MUST_CHECK struct err add_term(struct building *b, uint32_t slot, size_t exact, size_t globs,
                                      struct dag_term **out)
{
    struct atom *atom = &b->atoms[b->count++];
    *atom = (struct atom){.slot = slot};
    TRY(arena_calloc(b->t->work, exact + 1, sizeof(struct slice),
                     (void **)&atom->term.exact.items));
    TRY(arena_calloc(b->t->work, globs + 1, sizeof(struct slice),
                     (void **)&atom->term.globs.items));
    *out = &atom->term;
    return OK;
}

static MUST_CHECK struct err add_value(struct building *b, uint32_t slot, struct slice value)
{
    struct dag_term *term = NULL;
    if (value.size == 0) {
        return OK;
    }
    TRY(add_term(b, slot, 1, 0, &term));
    term->exact.items[term->exact.count++] = value;
    return OK;
}

static MUST_CHECK struct err add_bits(struct building *b, uint32_t slot, uint64_t bits,
                                      const char *const *names, size_t name_count)
{
    struct dag_term *term = NULL;
    if (bits == 0) {
        return OK;
    }
    TRY(add_term(b, slot, name_count, 0, &term));
    for (size_t i = 0; i < name_count; i++) {
        if ((bits >> i & 1) != 0) {
            term->exact.items[term->exact.count++] = slice_str(names[i]);
        }
    }
    sort_names(&term->exact);
    return OK;
}

/* Texts of which some are globs; sorted by the loader. */
static MUST_CHECK struct err add_texts(struct building *b, uint32_t slot,
                                       const struct cp_text *texts, size_t count)
{
    struct dag_term *term = NULL;
    if (count == 0 || texts[0].text.size == 0) {
        return OK;
    }
    TRY(add_term(b, slot, count, count, &term));
    for (size_t i = 0; i < count; i++) {
        struct dag_values *to = text_is_glob(texts[i].text) ? &term->globs : &term->exact;
        to->items[to->count++] = texts[i].text;
    }
    return OK;
}

/* Whether the header stands before 'index', too: that was refused, and adds no term. */
static bool is_double(const struct cp_header_matches *headers, size_t index)
{
    for (size_t i = 0; i < index; i++) { /* at most 16 */
        if (slice_eq(headers->items[i].name.text, headers->items[index].name.text)) {
            return true;
        }
    }
    return false;
}

static MUST_CHECK struct err add_headers(struct building *b,
                                         const struct cp_header_matches *headers)
{
    const struct targeting *t = b->t;
    for (size_t i = 0; i < headers->count; i++) {
        const struct cp_header_match *header = &headers->items[i];
        struct dag_term *term = NULL;
        if (is_double(headers, i)) {
            continue;
        }
        uint32_t slot =
            (uint32_t)(SLOT_FIXED + t->traits.count) + name_index(&t->headers, header->name.text);
        TRY(add_term(b, slot, 1, 1, &term));
        /* "*" fits any value that is there; a glob never fits what is not. */
        if (header->present != 0) {
            term->globs.items[term->globs.count++] = SLICE_LIT("*");
        } else {
            term->exact.items[term->exact.count++] = header->value.text;
        }
    }
    return OK;
}

static MUST_CHECK struct err add_caller(struct building *b, const struct cp_caller *caller)
{
    const struct targeting *t = b->t;
    TRY(add_value(b, targeting_slot(t, SLOT_CALLER),
                  caller->service.to == NULL ? (struct slice){0} : caller->service.to->id));
    TRY(add_texts(b, targeting_slot(t, SLOT_CALLER), &caller->id, 1));
    TRY(add_value(b, targeting_slot(t, SLOT_DOMAIN), caller->trust_domain.text));
    for (size_t i = 0; i < caller->traits.count; i++) {
        const struct cp_pair *trait = &caller->traits.items[i];
        struct dag_term *term = NULL;
        TRY(add_term(b, SLOT_FIXED + name_index(&t->traits, trait->name.text), 1, 0, &term));
        term->exact.items[term->exact.count++] = trait->value.text;
    }
    return OK;
}

/* The slot of a schedule. */
static uint32_t schedule_slot(const struct targeting *t, uint32_t schedule)
{
    return targeting_slots(t) - (uint32_t)t->schedule_count + schedule;
}

static uint32_t test_slot(const struct targeting *t, const struct cp_cel_test *test)
{
    if (test->measure != CP_CEL_ITSELF) {
        return schedule_slot(t, 0) - (uint32_t)t->comparison_count + comparison_index(t, test);
    }
    switch (test->attribute) {
    case CP_CEL_CALLER:
        return targeting_slot(t, SLOT_CALLER);
    case CP_CEL_TENANT:
        return targeting_slot(t, SLOT_TENANT);
    case CP_CEL_DOMAIN:
        return targeting_slot(t, SLOT_DOMAIN);
    case CP_CEL_METHOD:
        return targeting_slot(t, SLOT_METHOD);
    case CP_CEL_LANE:
        return targeting_slot(t, SLOT_LANE);
    case CP_CEL_VERB:
        return targeting_slot(t, SLOT_VERB);
    case CP_CEL_TRAIT:
        return SLOT_FIXED + name_index(&t->traits, test->name);
    case CP_CEL_HEADER:
        return (uint32_t)(SLOT_FIXED + t->traits.count) + name_index(&t->headers, test->name);
    case CP_CEL_TIME:
        return schedule_slot(t, schedule_index(t, test->schedule));
    }
    return SLOT_FIXED;
}

static MUST_CHECK struct err add_test(struct building *b, const struct cp_cel_test *test, bool deny)
{
    struct dag_term *term = NULL;
    bool may_lack = test->attribute == CP_CEL_TRAIT || test->attribute == CP_CEL_HEADER ||
                    test->measure == CP_CEL_INT;
    TRY(add_term(b, test_slot(b->t, test), test->exact_count + 1, test->glob_count, &term));
    if (test->measure != CP_CEL_ITSELF || test->attribute == CP_CEL_TIME) {
        term->exact.items[term->exact.count++] = SLOT_IN;
    }
    for (size_t i = 0; i < test->exact_count; i++) {
        term->exact.items[term->exact.count++] = test->exact[i];
    }
    for (size_t i = 0; i < test->glob_count; i++) {
        term->globs.items[term->globs.count++] = test->globs[i];
    }
    sort_names(&term->exact);
    sort_names(&term->globs);
    term->negate = test->negate;
    term->absent = may_lack && !test->presence ? deny : test->negate;
    return OK;
}

/* ---- clauses ---- */

/* The terms by their slots, each slot's as one condition. */
static MUST_CHECK struct err finish_clause(struct building *b, struct dag_clause *clause)
{
    struct dag_term *terms = NULL;
    TRY(arena_calloc(b->t->work, b->count + 1, sizeof(struct dag_term), (void **)&terms));
    TRY(arena_calloc(b->t->work, b->count + 1, sizeof(struct dag_condition),
                     (void **)&clause->conditions));
    for (size_t i = 1; i < b->count; i++) { /* few, and nearly sorted */
        for (size_t k = i; k > 0 && b->atoms[k - 1].slot > b->atoms[k].slot; k--) {
            struct atom swap = b->atoms[k];
            b->atoms[k] = b->atoms[k - 1];
            b->atoms[k - 1] = swap;
        }
    }
    struct dag_condition *last = NULL;
    for (size_t i = 0; i < b->count; i++) {
        if (last == NULL || last->slot != b->atoms[i].slot) {
            last = &clause->conditions[clause->condition_count++];
            *last = (struct dag_condition){.slot = b->atoms[i].slot, .terms = terms + i};
        }
        terms[i] = b->atoms[i].term;
        last->term_count++;
        CHECK(last->term_count <= DAG_TERMS_MAX);
    }
    return OK;
}

/* Beside a condition's tests, a caller's slot has its service and its glob. */
_Static_assert(CP_CEL_ALL_MAX + 2 <= DAG_TERMS_MAX, "all terms of a clause fit into one condition");

/* The clause of one rule for one of its callers (NULL: any) and one alternative of its condition.
 */
static MUST_CHECK struct err make_clause(struct targeting *t, uint32_t index,
                                         const struct cp_caller *caller,
                                         const struct cp_cel_all *condition)
{
    const struct ruling *ruling = &t->rulings[index];
    const struct cp_rule *rule = ruling->rule;
    struct building b = {.t = t};
    struct slice tenant = caller == NULL ? (struct slice){0} : caller->tenant.text;
    if (ruling->own_tenant && tenant.size > 0 &&
        !slice_eq(tenant, ruling->policy->meta.tenant.text)) {
        return OK; /* it speaks of callers of whom it may not speak: never true */
    }
    size_t most = SLOT_FIXED + 2 + rule->headers.count + condition->count +
                  (caller == NULL ? 0 : caller->traits.count);
    TRY(arena_calloc(t->work, most, sizeof(struct atom), (void **)&b.atoms));
    TRY(add_bits(&b, targeting_slot(t, SLOT_VERB), rule->verbs, verb_names, CP_VERB_COUNT));
    TRY(add_bits(&b, targeting_slot(t, SLOT_LANE), rule->lanes, lane_names, CP_LANE_COUNT));
    TRY(add_value(&b, targeting_slot(t, SLOT_TENANT),
                  ruling->own_tenant ? ruling->policy->meta.tenant.text : tenant));
    if (caller != NULL) {
        TRY(add_caller(&b, caller));
    }
    TRY(add_texts(&b, targeting_slot(t, SLOT_METHOD), rule->methods.items, rule->methods.count));
    TRY(add_headers(&b, &rule->headers));
    if (cp_rule_has_schedule(rule)) {
        TRY(add_value(&b, schedule_slot(t, ruling->schedule), SLOT_IN));
    }
    for (size_t i = 0; i < condition->count; i++) {
        TRY(add_test(&b, condition->tests[i], rule->effect == 1));
    }
    CHECK(b.count <= most);
    TRY(array_room(&t->clauses, t->clause_count, &t->clause_capacity, sizeof(*t->clauses)));
    struct dag_clause *clause = &t->clauses[t->clause_count++];
    *clause = (struct dag_clause){.rule = index,
                                  .use = rule->shadow != 0 ? DAG_SHADOW : DAG_DECIDES,
                                  .deny = rule->effect == 1};
    return finish_clause(&b, clause);
}

/* The clauses of one alternative of a rule's condition: one for each of its callers. */
static MUST_CHECK struct err make_caller_clauses(struct targeting *t, uint32_t index,
                                                 const struct cp_cel_all *condition)
{
    const struct cp_callers *callers = &t->rulings[index].rule->callers;
    if (callers->count == 0) {
        return make_clause(t, index, /* caller= */ NULL, condition);
    }
    for (size_t i = 0; i < callers->count; i++) {
        const struct cp_ref *service = &callers->items[i].service;
        if (service->text.size == 0 || service->to != NULL) { /* else it was refused */
            TRY(make_clause(t, index, &callers->items[i], condition));
        }
    }
    return OK;
}

struct err cp_read_rulings(struct targeting *t)
{
    TRY(parse_conditions(t));
    TRY(collect_names(t));
    return collect_schedules(t);
}

struct err cp_make_clauses(struct targeting *t)
{
    t->clause_count = 0;
    for (size_t i = 0; i < t->count; i++) {
        const struct cp_cel *cel = &t->rulings[i].cel;
        for (size_t k = 0; k < cel->count; k++) {
            TRY(make_caller_clauses(t, (uint32_t)i, &cel->any[k]));
        }
    }
    return OK;
}
