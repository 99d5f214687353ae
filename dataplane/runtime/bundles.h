/*
 * bundles: the CAs that the snapshot brings, as the node presents and asks for certificates.
 *
 * Shape      a set is copied from a model once and never changes; dp_bundles holds the newest.
 * Ownership  sets are counted: whoever takes one drops it.
 * Threads    any thread; the apply thread notes, the main thread takes.
 * Errors     E_NO_MEMORY.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/base/err.h"
#include "common/base/lock.h"

struct dp_environment;
struct net_tls_bundle;

struct dp_bundle_set;

struct dp_bundles {
    struct lock lock;
    struct dp_bundle_set *newest GUARDED; /* a reference; NULL: none. */
};

void dp_bundles_init(struct dp_bundles *b);
void dp_bundles_free(struct dp_bundles *b);

/* Takes over what a model brings. *out_changed: they are others than before. On failure those
 * before stay. */
MUST_CHECK struct err dp_bundles_note(struct dp_bundles *b,
                                      const struct dp_environment *environment, bool *out_changed);

/* The newest, with a reference; NULL: there are none. */
struct dp_bundle_set *dp_bundles_take(struct dp_bundles *b);

/* Borrowed of the set; of NULL there are none. */
const struct net_tls_bundle *dp_bundle_set_at(const struct dp_bundle_set *set, size_t *out_count);

/* Accepts NULL. */
void dp_bundle_set_unref(struct dp_bundle_set *set);
