/*
 * guard: the kill switch of a worker's policy decisions.
 *
 * Shape      decisions are counted by the second. When too many of them missed the cache, or took
 *            too long, the worker decides what the cache does not have by the targets' fast path
 *            for 'hold' (it allows nothing that the rules do not), and then returns by itself.
 * Units      nanoseconds of the loop.
 * Threads    its worker.
 * Source     Environment.spec.guardrails.policy; docs/policy.md.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct dp_guardrails {
    uint32_t miss_percent; /* of a second's decisions; 0: they are not looked at. */
    uint32_t decision_us;  /* mean of the timed ones; 0: it is not looked at. */
    uint64_t hold_ms;
};

/* Bounds of what a part may say. */
enum { DP_GUARD_US_MAX = 1000000, DP_GUARD_HOLD_MAX_MS = 3600000 };

enum dp_guard_why { DP_GUARD_MISSES, DP_GUARD_TIME, DP_GUARD_WHY_COUNT };

enum {
    DP_GUARD_DECISIONS_LEAST = 1000, /* of a second; with fewer nothing is judged. */
    DP_GUARD_TIMED_LEAST = 3,
};

struct dp_guard {
    struct dp_guardrails rails;
    uint64_t since_ns;     /* of the second at hand; 0: none yet. */
    uint32_t cold_seconds; /* in so many, this one included, misses say nothing. */
    uint64_t asked;
    uint64_t missed;
    uint64_t timed;
    uint64_t took_ns;  /* all the timed ones. */
    uint64_t until_ns; /* the fast path decides until then. */
    uint64_t trips[DP_GUARD_WHY_COUNT];
};

/* Takes over what the environment of a snapshot says, with which the cache begins anew; other
 * thresholds begin anew, too. */
void dp_guard_set(struct dp_guard *guard, const struct dp_guardrails *rails);

/* Whether the fast path decides now. */
bool dp_guard_is_fast(const struct dp_guard *guard, uint64_t now_ns);

/* Notes a decision of the rules; 'took_ns' 0: it was not timed. */
void dp_guard_note(struct dp_guard *guard, uint64_t now_ns, bool cached, uint64_t took_ns);
