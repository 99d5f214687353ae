/* guard: see guard.h. */
#include "dataplane/request/guard.h"

enum { SECOND_NS = 1000000000 };

void dp_guard_set(struct dp_guard *guard, const struct dp_guardrails *rails)
{
    bool same = guard->rails.miss_percent == rails->miss_percent &&
                guard->rails.decision_us == rails->decision_us &&
                guard->rails.hold_ms == rails->hold_ms;
    if (same) { /* only the cache is empty: in this second, and in the next one. */
        guard->cold_seconds = guard->since_ns == 0 ? 1 : 2;
        return;
    }
    *guard =
        (struct dp_guard){.rails = *rails,
                          .cold_seconds = 1,
                          .trips = {guard->trips[DP_GUARD_MISSES], guard->trips[DP_GUARD_TIME]}};
}

bool dp_guard_is_fast(const struct dp_guard *guard, uint64_t now_ns)
{
    return now_ns < guard->until_ns;
}

static void trip(struct dp_guard *guard, enum dp_guard_why why, uint64_t now_ns)
{
    guard->trips[why]++;
    guard->until_ns = now_ns + guard->rails.hold_ms * 1000000;
}

static void judge(struct dp_guard *guard, uint64_t now_ns)
{
    const struct dp_guardrails *rails = &guard->rails;
    if (guard->asked < DP_GUARD_DECISIONS_LEAST) {
        return;
    }
    if (rails->miss_percent != 0 && guard->cold_seconds == 0 &&
        guard->missed * 100 > guard->asked * rails->miss_percent) {
        trip(guard, DP_GUARD_MISSES, now_ns);
    } else if (rails->decision_us != 0 && guard->timed >= DP_GUARD_TIMED_LEAST &&
               guard->took_ns > guard->timed * rails->decision_us * 1000) {
        trip(guard, DP_GUARD_TIME, now_ns);
    }
}

void dp_guard_note(struct dp_guard *guard, uint64_t now_ns, bool cached, uint64_t took_ns)
{
    if (guard->rails.miss_percent == 0 && guard->rails.decision_us == 0) {
        return;
    }
    if (guard->since_ns == 0 || now_ns - guard->since_ns >= SECOND_NS) {
        judge(guard, now_ns);
        guard->cold_seconds -= guard->since_ns != 0 && guard->cold_seconds > 0;
        guard->since_ns = now_ns;
        guard->asked = guard->missed = guard->timed = guard->took_ns = 0;
    }
    guard->asked++;
    guard->missed += !cached;
    guard->timed += took_ns > 0;
    guard->took_ns += took_ns;
}
