/* gate: see gate.h. */
#include "controlplane/api/gate.h"

#include <string.h>

#include "common/base/limits.h"
#include "common/base/map.h"

/* An IPv6 host has a whole /64 to choose from. */
static uint64_t *slot_of(struct cp_gate *gate, const struct net_addr *from)
{
    struct slice host = {0};
    if (from->sa.any.sa_family == AF_INET) {
        host = slice_of(&from->sa.v4.sin_addr, sizeof(from->sa.v4.sin_addr));
    } else if (from->sa.any.sa_family == AF_INET6) {
        host = slice_of(&from->sa.v6.sin6_addr, sizeof(from->sa.v6.sin6_addr) / 2);
    }
    return &gate->slots[map_hash(host) % CP_GATE_SLOTS];
}

struct err cp_gate_pass(struct cp_gate *gate, const struct net_addr *from, uint64_t now_ns)
{
    uint64_t second = now_ns / 1000000000;
    uint64_t most = limits.joins_per_second;
    uint64_t share = most / CP_GATE_SHARE == 0 ? 1 : most / CP_GATE_SHARE;
    if (second != gate->second) {
        gate->second = second;
        gate->all = 0;
        memset(gate->slots, 0, sizeof(gate->slots));
    }
    uint64_t *slot = slot_of(gate, from);
    if (gate->all >= most || *slot >= share) {
        gate->refused++;
        return FAIL(E_RATE_LIMITED);
    }
    gate->all++;
    (*slot)++;
    return OK;
}
