/* bundles: see bundles.h. */
#include "dataplane/runtime/bundles.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/arena.h"
#include "common/base/refs.h"
#include "common/base/scope.h"
#include "common/net/tls.h"
#include "dataplane/apply/model.h"

enum { BUNDLES_BLOCK = 4096, BUNDLES_MAX = 4 << 20 };

struct dp_bundle_set {
    struct refs refs;
    struct arena arena;
    struct net_tls_bundle *at; /* in the arena, with their text. */
    size_t count;
    uint8_t digest[DIGEST_SIZE]; /* as struct dp_environment has it. */
};

void dp_bundles_init(struct dp_bundles *b)
{
    *b = (struct dp_bundles){0};
    lock_init(&b->lock);
}

void dp_bundles_free(struct dp_bundles *b)
{
    lock_take(&b->lock);
    struct dp_bundle_set *last = TAKE_PTR(b->newest);
    lock_drop(&b->lock);
    dp_bundle_set_unref(last);
    lock_free(&b->lock);
}

/* ---- a set ---- */

static struct err fill(struct dp_bundle_set *set, const struct dp_environment *from)
{
    TRY(arena_calloc(&set->arena, from->bundle_count, sizeof(*set->at), (void **)&set->at));
    for (size_t i = 0; i < from->bundle_count; i++) {
        struct net_tls_bundle *to = &set->at[i];
        TRY(arena_dup(&set->arena, from->bundles[i].trust_domain, &to->trust_domain));
        TRY(arena_dup(&set->arena, from->bundles[i].ca, &to->ca));
    }
    set->count = from->bundle_count;
    memcpy(set->digest, from->bundles_digest, DIGEST_SIZE);
    return OK;
}

static struct err set_new(const struct dp_environment *from, struct dp_bundle_set **out)
{
    struct dp_bundle_set *set = calloc(1, sizeof(*set));
    if (set == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    refs_init(&set->refs);
    arena_init(&set->arena, BUNDLES_BLOCK, BUNDLES_MAX);
    struct err e = fill(set, from);
    if (!err_ok(e)) {
        dp_bundle_set_unref(set);
        return e;
    }
    *out = set;
    return OK;
}

const struct net_tls_bundle *dp_bundle_set_at(const struct dp_bundle_set *set, size_t *out_count)
{
    *out_count = set == NULL ? 0 : set->count;
    return set == NULL ? NULL : set->at;
}

void dp_bundle_set_unref(struct dp_bundle_set *set)
{
    if (set != NULL && refs_drop(&set->refs)) {
        arena_free(&set->arena);
        free(set);
    }
}

/* ---- the newest ---- */

struct dp_bundle_set *dp_bundles_take(struct dp_bundles *b)
{
    lock_take(&b->lock);
    struct dp_bundle_set *set = b->newest;
    if (set != NULL) {
        refs_take(&set->refs);
    }
    lock_drop(&b->lock);
    return set;
}

static bool are_same(const struct dp_bundle_set *set, const struct dp_environment *environment)
{
    return set == NULL ? environment->bundle_count == 0
                       : memcmp(set->digest, environment->bundles_digest, DIGEST_SIZE) == 0;
}

struct err dp_bundles_note(struct dp_bundles *b, const struct dp_environment *environment,
                           bool *out_changed)
{
    struct dp_bundle_set *before = dp_bundles_take(b);
    struct dp_bundle_set *now = NULL;
    bool same = are_same(before, environment);
    dp_bundle_set_unref(before);
    *out_changed = false;
    if (same) {
        return OK;
    }
    TRY(set_new(environment, &now));
    lock_take(&b->lock);
    before = b->newest;
    b->newest = now;
    lock_drop(&b->lock);
    dp_bundle_set_unref(before);
    *out_changed = true;
    return OK;
}
