/* token_bounds: see token_bounds.h. */
#include "dataplane/request/token_bounds.h"

#include "common/base/limits.h"
#include "common/base/map.h"
#include "common/net/addr.h"

#define NS_PER_S UINT64_C(1000000000)

enum {
    BURST_NS = 100000000,
    HONEST_PART =
        20, /* so many tokens that an honest bearer may have cost as much as a wrong one. */
    CELL_BITS = 10,
};

_Static_assert(DP_TOKEN_ADDRESS_CELLS == 1 << CELL_BITS && DP_TOKEN_ADDRESS_ROWS * CELL_BITS <= 64,
               "a hash has bits for a cell of each row");

static size_t connection_of(struct slice peer)
{
    return map_hash(peer) % DP_TOKEN_CONNECTIONS;
}

/* A hash of the address alone; who has none is told apart by the text. */
static uint64_t address_of(struct slice peer)
{
    struct net_addr addr = {0};
    if (!err_ok(net_addr_parse(peer, &addr))) {
        return map_hash(peer);
    }
    uint64_t source = net_addr_source(&addr);
    return map_hash(slice_of((const uint8_t *)&source, sizeof(source)));
}

static size_t cell_of(uint64_t address, size_t row)
{
    return (size_t)(address >> (row * CELL_BITS)) % DP_TOKEN_ADDRESS_CELLS;
}

/* When there is room for one more, where a second's are let pass at once. */
static uint64_t free_at(uint64_t until_ns)
{
    return until_ns > NS_PER_S ? until_ns - NS_PER_S : 0;
}

static uint64_t address_free_at(const struct dp_token_bounds *b, struct slice peer)
{
    uint64_t address = address_of(peer);
    uint64_t least_ns = UINT64_MAX;
    for (size_t row = 0; row < DP_TOKEN_ADDRESS_ROWS; row++) {
        uint64_t until_ns = b->addresses[row][cell_of(address, row)];
        least_ns = until_ns < least_ns ? until_ns : least_ns;
    }
    return free_at(least_ns);
}

enum dp_token_outcome dp_token_bounds_ask(const struct dp_token_bounds *b, struct slice peer,
                                          uint64_t now_ns, uint64_t *out_retry_ns)
{
    uint64_t address_ns = address_free_at(b, peer);
    uint64_t free_ns = free_at(b->connections[connection_of(peer)]);
    if (b->busy_until_ns > BURST_NS && b->busy_until_ns - BURST_NS > free_ns) {
        free_ns = b->busy_until_ns - BURST_NS;
    }
    uint64_t last_ns = address_ns > free_ns ? address_ns : free_ns;
    *out_retry_ns = last_ns > now_ns ? last_ns - now_ns : 0;
    return address_ns > now_ns ? DP_TOKEN_LIMITED_ADDRESS
           : free_ns > now_ns  ? DP_TOKEN_LIMITED
                               : DP_TOKEN_GOOD;
}

/* Those failures that a bearer of an honest token meets are no sign of an attack. */
static bool is_suspicious(enum dp_token_outcome outcome)
{
    return outcome != DP_TOKEN_EXPIRED && outcome != DP_TOKEN_EARLY && outcome != DP_TOKEN_KEYS;
}

static void add(uint64_t *cell, uint64_t now_ns, uint64_t cost_ns)
{
    *cell = (*cell > now_ns ? *cell : now_ns) + cost_ns;
}

void dp_token_bounds_charge(struct dp_token_bounds *b, struct slice peer, uint64_t began_ns,
                            uint64_t spent_ns, enum dp_token_outcome outcome)
{
    /* The worker's own time: nobody pays for who took the core from it. */
    add(&b->busy_until_ns, began_ns, spent_ns * 100 / limits.token_check_percent);
    if (outcome == DP_TOKEN_GOOD || outcome == DP_TOKEN_MEMORY) {
        return;
    }
    bool suspicious = is_suspicious(outcome);
    if (suspicious) {
        add(&b->connections[connection_of(peer)], began_ns,
            NS_PER_S / limits.token_failures_per_second);
    }
    uint64_t address = address_of(peer);
    uint64_t cost_ns = NS_PER_S / limits.token_address_failures_per_second;
    for (size_t row = 0; row < DP_TOKEN_ADDRESS_ROWS; row++) {
        add(&b->addresses[row][cell_of(address, row)], began_ns,
            suspicious ? cost_ns : cost_ns / HONEST_PART);
    }
}
