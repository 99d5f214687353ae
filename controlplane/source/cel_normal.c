/*
 * cel_normal: a tree as an "or" of "and"s.
 *
 * Negations move down to the tests. In Kleene's logic of three values, which is that of CEL's
 * && and || with errors, a tree and its normal form have the same value for every request; and as
 * no operator but "or" and "and" is left, a test that is an error can be taken for true or for
 * false, as whoever evaluates needs it.
 */
#include "controlplane/source/cel_impl.h"

struct normalizing {
    struct arena *arena;
    bool fits;
};

static MUST_CHECK struct err normalize(struct normalizing *n, const struct cel_node *node,
                                       bool negated, struct cp_cel *out);

/* Room for so many alternatives. */
static MUST_CHECK struct err any_new(struct normalizing *n, size_t count, struct cp_cel *out)
{
    out->count = 0;
    n->fits = n->fits && count <= CP_CEL_ANY_MAX;
    return arena_calloc(n->arena, n->fits ? count + 1 : 1, sizeof(struct cp_cel_all),
                        (void **)&out->any);
}

static MUST_CHECK struct err make_test(struct normalizing *n, const struct cel_node *node,
                                       bool negated, struct cp_cel *out)
{
    struct cp_cel_test *test = NULL;
    TRY(any_new(n, 1, out));
    TRY(arena_calloc(n->arena, 1, sizeof(*test), (void **)&test));
    *test = node->test;
    test->negate = test->negate != negated;
    struct cp_cel_all *all = &out->any[out->count++];
    TRY(arena_calloc(n->arena, 1, sizeof(*all->tests), (void **)&all->tests));
    all->tests[all->count++] = test;
    return OK;
}

static MUST_CHECK struct err make_or(struct normalizing *n, const struct cp_cel *a,
                                     const struct cp_cel *b, struct cp_cel *out)
{
    TRY(any_new(n, a->count + b->count, out));
    for (size_t i = 0; n->fits && i < a->count + b->count; i++) {
        out->any[out->count++] = i < a->count ? a->any[i] : b->any[i - a->count];
    }
    return OK;
}

static MUST_CHECK struct err join(struct normalizing *n, const struct cp_cel_all *a,
                                  const struct cp_cel_all *b, struct cp_cel_all *out)
{
    size_t count = a->count + b->count;
    n->fits = n->fits && count <= CP_CEL_ALL_MAX;
    if (!n->fits) {
        return OK;
    }
    TRY(arena_calloc(n->arena, count + 1, sizeof(*out->tests), (void **)&out->tests));
    for (size_t i = 0; i < count; i++) {
        out->tests[out->count++] = i < a->count ? a->tests[i] : b->tests[i - a->count];
    }
    return OK;
}

static MUST_CHECK struct err make_and(struct normalizing *n, const struct cp_cel *a,
                                      const struct cp_cel *b, struct cp_cel *out)
{
    TRY(any_new(n, a->count * b->count, out));
    for (size_t i = 0; n->fits && i < a->count; i++) {
        for (size_t k = 0; n->fits && k < b->count; k++) {
            TRY(join(n, &a->any[i], &b->any[k], &out->any[out->count++]));
        }
    }
    return OK;
}

static MUST_CHECK struct err make_pair(struct normalizing *n, const struct cel_node *node,
                                       bool negated, struct cp_cel *out)
{
    struct cp_cel left = {0};
    struct cp_cel right = {0};
    TRY(normalize(n, node->left, negated, &left));
    if (!n->fits) {
        return OK;
    }
    TRY(normalize(n, node->right, negated, &right));
    if (!n->fits) {
        return OK;
    }
    return (node->op == CEL_AND) != negated ? make_and(n, &left, &right, out)
                                            : make_or(n, &left, &right, out);
}

/* Recursion ends: the tree has at most CP_CEL_NODES_MAX nodes. */
static struct err normalize(struct normalizing *n, const struct cel_node *node, bool negated,
                            struct cp_cel *out)
{
    switch (node->op) {
    case CEL_TEST:
        return make_test(n, node, negated, out);
    case CEL_AND:
    case CEL_OR:
        return make_pair(n, node, negated, out);
    case CEL_NOT:
        return normalize(n, node->left, !negated, out);
    case CEL_TRUE:
    case CEL_FALSE:
        TRY(any_new(n, 1, out));
        out->count = (node->op == CEL_TRUE) != negated ? 1 : 0; /* one without a test is true. */
        return OK;
    }
    return OK;
}

struct err cel_normal(const struct cel_node *root, struct arena *arena, struct cp_cel *out,
                      bool *out_fits)
{
    struct normalizing n = {.arena = arena, .fits = true};
    struct cp_cel normal = {0};
    TRY(normalize(&n, root, /* negated= */ false, &normal));
    *out_fits = n.fits;
    if (n.fits) {
        *out = normal;
    }
    return OK;
}
