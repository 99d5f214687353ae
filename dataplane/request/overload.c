/* overload: see overload.h. */
#include "dataplane/request/overload.h"

#define NS_PER_MS UINT64_C(1000000)

enum {
    INTERVAL_MS = 100,
    GROWS_LEAST = 50, /* thousandths an interval, times how long the queue is in targets. */
    GROWS_MOST = 250,
    SHED_MOST = 900, /* some pass always: by them it is seen that the queue is gone. */
    WHOLE = 1000,
    RETRY_LEAST_MS = 500,
    RETRY_SPREAD_MS = 1000,
};

static uint32_t shed_after(const struct dp_overload *o)
{
    if (o->least_ns <= o->target_ns) {
        uint32_t falls = o->shed_permille / 8 + 10;
        return o->shed_permille > falls ? o->shed_permille - falls : 0;
    }
    uint64_t grows = GROWS_LEAST * (o->least_ns / o->target_ns);
    uint64_t shed = o->shed_permille + (grows < GROWS_MOST ? grows : GROWS_MOST);
    return shed < SHED_MOST ? (uint32_t)shed : SHED_MOST;
}

bool dp_overload_sheds(struct dp_overload *o, uint64_t now_ns, uint64_t delay_ns, uint64_t draw,
                       uint64_t *out_retry_ns)
{
    if (o->target_ns == 0) {
        return false;
    }
    if (now_ns >= o->until_ns) {
        bool silent = now_ns - o->until_ns >= INTERVAL_MS * NS_PER_MS; /* or the first one. */
        o->shed_permille = silent ? 0 : shed_after(o);
        o->until_ns = now_ns + INTERVAL_MS * NS_PER_MS;
        o->least_ns = UINT64_MAX;
    }
    o->least_ns = delay_ns < o->least_ns ? delay_ns : o->least_ns;
    if (draw % WHOLE >= o->shed_permille) {
        return false;
    }
    *out_retry_ns = (RETRY_LEAST_MS + draw / WHOLE % RETRY_SPREAD_MS) * NS_PER_MS;
    return true;
}
