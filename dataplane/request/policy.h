/*
 * policy: may this caller do this? The decision graphs of a target, walked, and the cache before
 * them.
 *
 * Shape      dp_policy_target is a decoded PolicyTarget, checked once so that walking it cannot
 *            fail. The cache is a fixed table of a worker.
 * Ownership  dp_policy_target belongs to the part it was built from; names in a verdict are
 *            borrowed from it.
 * Threads    targets: any number of readers. A cache: its worker alone.
 * Errors     building: PART_MALFORMED. Deciding never fails: no rule means deny.
 * Source     proto/trilane/parts/v1/parts.proto, PolicyTarget; docs/resources.md for the meaning:
 *            deny wins over allow, no rule is a denial.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"

struct dp_caller;
struct dp_policy_target;

enum dp_verb { DP_VERB_CALL, DP_VERB_PUBLISH, DP_VERB_SUBSCRIBE, DP_VERB_FETCH, DP_VERB_COUNT };

/* "call", "publish", …: as policies write it. */
struct slice dp_verb_name(enum dp_verb verb);

/* The caller's trait of this name; false when it has none. */
bool dp_caller_trait(const struct dp_caller *caller, struct slice name, struct slice *out);

/* What is asked. Everything is borrowed for the call. */
struct dp_policy_query {
    enum dp_verb verb;
    struct slice lane;              /* "operator", "canonical", "proxy". */
    struct slice method;            /* "/package.Service/Method", HTTP method, or canonical type. */
    const struct dp_caller *caller; /* never NULL. */
    /* Finds a request header by its lower-case name; false when it is not there. */
    bool (*header)(const void *ctx, struct slice name, struct slice *out_value);
    const void *ctx;
    int64_t wall_ms; /* the wall clock; read where dp_policy_reads_clock() only. */
    bool fast;       /* the target's fast path decides, where it has one. */
};

struct dp_verdict {
    bool allow;
    bool cached;       /* it came from the cache. */
    bool fast;         /* the fast path said so: the rules may allow it. */
    struct slice rule; /* "acme/orders/web-may-list"; empty: no rule allowed it. */
    /* The shadow rule by which it would be decided otherwise; empty: none. */
    struct slice shadow;
};

/*
 * Builds from the strictly decoded bytes of a PolicyTarget part: references, order of edges and
 * sizes are checked here. The object owns its memory; dp_policy_free() accepts NULL.
 */
MUST_CHECK struct err dp_policy_build(struct slice part, struct dp_policy_target **out);
void dp_policy_free(struct dp_policy_target *target);
struct slice dp_policy_target_id(const struct dp_policy_target *target);

/* Whether some rule holds at some times only. 'target' may be NULL. */
bool dp_policy_reads_clock(const struct dp_policy_target *target);

/* Walks the graphs. 'target' NULL is a denial. */
struct dp_verdict dp_policy_decide(const struct dp_policy_target *target,
                                   const struct dp_policy_query *query);

/* A worker's cache of decisions; keys hold exactly the attributes that the target reads. */
struct dp_policy_cache;

/* 'entries' is rounded up to a power of two. E_NO_MEMORY. */
MUST_CHECK struct err dp_policy_cache_new(size_t entries, uint64_t ttl_ms,
                                          struct dp_policy_cache **out);
void dp_policy_cache_free(struct dp_policy_cache *cache);

/* Forgets everything: after every swap. O(1). */
void dp_policy_cache_clear(struct dp_policy_cache *cache);

/* As dp_policy_decide(), through the cache, which keeps no answer of a fast path. 'now_ns' is the
 * loop's monotonic time. */
struct dp_verdict dp_policy_cache_decide(struct dp_policy_cache *cache,
                                         const struct dp_policy_target *target,
                                         const struct dp_policy_query *query, uint64_t now_ns);

/* How often the cache was asked, and how often it had the answer. */
void dp_policy_cache_counts(const struct dp_policy_cache *cache, uint64_t *out_asked,
                            uint64_t *out_hits);
