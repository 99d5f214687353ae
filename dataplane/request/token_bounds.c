/* token_bounds: see token_bounds.h. */
#include "dataplane/request/token_bounds.h"

#include "common/base/limits.h"
#include "common/base/map.h"

#define NS_PER_S UINT64_C(1000000000)

enum { BURST_NS = 100000000 };

static size_t cell_of(struct slice peer)
{
    return map_hash(peer) % DP_TOKEN_PEERS;
}

bool dp_token_bounds_allow(const struct dp_token_bounds *b, struct slice peer, uint64_t now_ns,
                           uint64_t *out_retry_ns)
{
    uint64_t failed_ns = b->failed_until_ns[cell_of(peer)];
    uint64_t free_ns = failed_ns > NS_PER_S ? failed_ns - NS_PER_S : 0; /* a second's at once. */
    if (b->busy_until_ns > BURST_NS && b->busy_until_ns - BURST_NS > free_ns) {
        free_ns = b->busy_until_ns - BURST_NS;
    }
    *out_retry_ns = free_ns > now_ns ? free_ns - now_ns : 0;
    return free_ns <= now_ns;
}

/* Those failures that a bearer of an honest token meets are no sign of an attack. */
static bool is_suspicious(enum dp_token_outcome outcome)
{
    return outcome != DP_TOKEN_GOOD && outcome != DP_TOKEN_EXPIRED && outcome != DP_TOKEN_EARLY &&
           outcome != DP_TOKEN_KEYS && outcome != DP_TOKEN_MEMORY;
}

void dp_token_bounds_charge(struct dp_token_bounds *b, struct slice peer, uint64_t began_ns,
                            uint64_t spent_ns, enum dp_token_outcome outcome)
{
    /* The worker's own time: nobody pays for who took the core from it. */
    uint64_t from_ns = b->busy_until_ns > began_ns ? b->busy_until_ns : began_ns;
    b->busy_until_ns = from_ns + spent_ns * 100 / limits.token_check_percent;
    if (is_suspicious(outcome)) {
        uint64_t *cell = &b->failed_until_ns[cell_of(peer)];
        *cell = (*cell > began_ns ? *cell : began_ns) + NS_PER_S / limits.token_failures_per_second;
    }
}
