/* fast: see fast.h. */
#include "controlplane/compile/fast.h"

#include "common/base/array.h"
#include "common/base/text.h"

/* Pairs of clauses that are looked at; past it a clause counts as not proved. */
enum { PAIRS_MAX = 4 << 20 };

/* No text fits both, by their fronts. */
static bool globs_apart(struct slice a, struct slice b)
{
    struct slice x = text_glob_front(a);
    struct slice y = text_glob_front(b);
    return !slice_starts(x, y) && !slice_starts(y, x);
}

static bool term_takes(const struct dag_term *term, struct slice value)
{
    bool fits = false;
    for (size_t i = 0; i < term->exact.count && !fits; i++) {
        fits = slice_eq(term->exact.items[i], value);
    }
    for (size_t i = 0; i < term->globs.count && !fits; i++) {
        fits = text_glob(term->globs.items[i], value);
    }
    return fits != term->negate;
}

/* Whether no value that fits 'glob' makes the term hold. */
static bool term_misses_glob(const struct dag_term *term, struct slice glob)
{
    for (size_t i = 0; i < term->exact.count; i++) {
        if (text_glob(glob, term->exact.items[i])) {
            return false;
        }
    }
    for (size_t i = 0; i < term->globs.count; i++) {
        if (!globs_apart(glob, term->globs.items[i])) {
            return false;
        }
    }
    return !term->negate;
}

/* Whether no value of 'term', a positive one, fulfils 'condition'. */
static bool values_apart(const struct dag_term *term, const struct dag_condition *condition)
{
    for (size_t i = 0; i < term->exact.count; i++) {
        bool taken = true;
        for (size_t t = 0; t < condition->term_count && taken; t++) {
            taken = term_takes(&condition->terms[t], term->exact.items[i]);
        }
        if (taken) {
            return false;
        }
    }
    for (size_t i = 0; i < term->globs.count; i++) {
        bool missed = false;
        for (size_t t = 0; t < condition->term_count && !missed; t++) {
            missed = term_misses_glob(&condition->terms[t], term->globs.items[i]);
        }
        if (!missed) {
            return false;
        }
    }
    return true;
}

/* Whether no request fulfils both; conditions are in order of their slots. */
static bool clauses_apart(const struct dag_clause *fast, const struct dag_clause *other)
{
    size_t at = 0;
    for (size_t i = 0; i < fast->condition_count; i++) {
        const struct dag_condition *condition = &fast->conditions[i];
        while (at < other->condition_count && other->conditions[at].slot < condition->slot) {
            at++;
        }
        if (at < other->condition_count && other->conditions[at].slot == condition->slot &&
            values_apart(&condition->terms[0], &other->conditions[at])) {
            return true;
        }
    }
    return false;
}

/* Of a rule that allows, by caller and method alone, with one positive term each. */
static bool is_simple(const struct dag_clause *clause)
{
    if (clause->use != DAG_DECIDES || clause->deny) {
        return false;
    }
    for (size_t i = 0; i < clause->condition_count; i++) {
        const struct dag_condition *condition = &clause->conditions[i];
        if (condition->slot >= SLOT_FIXED || condition->term_count != 1 ||
            condition->terms[0].negate) {
            return false;
        }
    }
    return true;
}

static bool is_proved(const struct targeting *t, size_t index, size_t count, size_t *pairs)
{
    for (size_t i = 0; i < count; i++) {
        const struct dag_clause *other = &t->clauses[i];
        if (other->use != DAG_DECIDES || !other->deny) {
            continue;
        }
        if (++*pairs > PAIRS_MAX || !clauses_apart(&t->clauses[index], other)) {
            return false;
        }
    }
    return true;
}

bool cp_has_guardrails(const struct cp_model *model)
{
    const struct cp_resources *environments = &model->of[CP_KIND_ENVIRONMENT];
    for (size_t i = 0; i < environments->count; i++) {
        const struct cp_environment *e = (const struct cp_environment *)environments->items[i];
        if (e->guard_miss_percent != 0 || e->guard_decision_us != 0) {
            return true;
        }
    }
    return false;
}

struct err cp_add_fast_clauses(struct targeting *t)
{
    size_t count = t->clause_count;
    size_t pairs = 0;
    if (!cp_has_guardrails(t->c->model)) {
        return OK;
    }
    for (size_t i = 0; i < count; i++) {
        if (!is_simple(&t->clauses[i]) || !is_proved(t, i, count, &pairs)) {
            continue;
        }
        TRY(array_room(&t->clauses, t->clause_count, &t->clause_capacity, sizeof(*t->clauses)));
        t->clauses[t->clause_count] = t->clauses[i];
        t->clauses[t->clause_count++].use = DAG_FAST;
    }
    return OK;
}
