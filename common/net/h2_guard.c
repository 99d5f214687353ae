/* The bucket behind the flood guards. */
#include "common/net/h2_guard.h"

void h2_guard_init(struct h2_guard *g, uint64_t rate, uint64_t now_ms)
{
    *g = (struct h2_guard){.rate = rate, .left = rate * 1000, .filled_ms = now_ms};
}

bool h2_guard_charge(struct h2_guard *g, uint64_t now_ms, uint64_t charges)
{
    if (now_ms > g->filled_ms) {
        uint64_t passed = now_ms - g->filled_ms;
        uint64_t full = g->rate * 1000;
        uint64_t gain = passed >= 1000 ? full : passed * g->rate;
        g->left = gain >= full - g->left ? full : g->left + gain;
        g->filled_ms = now_ms;
    }
    if (g->left < charges * 1000) {
        return false;
    }
    g->left -= charges * 1000;
    return true;
}
