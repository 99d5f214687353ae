/* flood: see flood.h. */
#include "common/net/flood.h"

#include "common/base/check.h"
#include "common/base/log.h"
#include "common/net/addr.h"
#include "common/net/loop_impl.h"

enum { NS_PER_S = 1000000000 };

static const char *const names[NET_FLOOD_COUNT] = {
#define X(name, label) [NET_FLOOD_##name] = label,
    NET_FLOOD_LIST(X)
#undef X
};

const char *net_flood_name(enum net_flood kind)
{
    CHECK(kind < NET_FLOOD_COUNT);
    return names[kind];
}

/* Whether this second's lines are not used up. */
static bool may_say(struct net_floods *floods, uint64_t second)
{
    if (second != floods->second) {
        floods->second = second;
        floods->lines = 0;
    }
    return floods->lines++ < NET_FLOOD_LINES;
}

void net_flood(struct net_loop *loop, enum net_flood kind, const struct net_addr *peer)
{
    CHECK(kind < NET_FLOOD_COUNT);
    struct net_floods *floods = &loop->floods;
    floods->counts[kind]++;
    if (!may_say(floods, net_loop_now_ns(loop) / NS_PER_S)) {
        floods->unsaid++;
        return;
    }
    char text[NET_ADDR_TEXT_MAX];
    LOG(LOG_WARN, "net", "flood", LOG_STR("peer", net_addr_text(peer, text)),
        LOG_STR("kind", names[kind]), LOG_U64("unsaid", floods->unsaid));
    floods->unsaid = 0;
}

uint64_t net_flood_count(const struct net_loop *loop, enum net_flood kind)
{
    CHECK(kind < NET_FLOOD_COUNT);
    return loop->floods.counts[kind];
}
