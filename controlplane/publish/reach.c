/* reach: see reach.h. */
#include "controlplane/publish/reach.h"

#include "common/snapshot/format.h"

enum { NAMED_MAX = 8 };

static struct err name_bits(uint64_t bits, struct buf *sentence)
{
    const char *between = "";
    for (unsigned bit = 0; bit < 64; bit++) {
        if ((bits & 1ULL << bit) != 0) {
            const char *name = capability_name(bit);
            TRY(buf_addf(sentence, "%s%s", between, name == NULL ? "unknown" : name));
            between = ", ";
        }
    }
    return OK;
}

/* A node that speaks format N reads N and N-1. */
static bool reads(const struct cp_fleet_node *node, uint32_t format)
{
    return node->status.format == format || node->status.format == format + 1;
}

uint32_t cp_reach_format(const struct cp_fleet_node *nodes, size_t count)
{
    uint32_t format = SNAPSHOT_FORMAT;
    for (size_t i = 0; i < count; i++) {
        if (nodes[i].live && nodes[i].status.format < format) {
            format = nodes[i].status.format;
        }
    }
    return format < SNAPSHOT_FORMAT_LEAST ? SNAPSHOT_FORMAT_LEAST : format;
}

static struct err name_lack(const struct cp_fleet_node *node, const struct cp_reach_need *need,
                            struct buf *sentence)
{
    uint64_t lacks = need->capabilities & ~node->status.capabilities;
    TRY(buf_addf(sentence, "node %s cannot ", node->id));
    if (lacks != 0) {
        TRY(buf_add_str(sentence, "do "));
        TRY(name_bits(lacks, sentence));
    }
    if (!reads(node, need->format)) {
        TRY(buf_addf(sentence, "%sread snapshot format %u, it speaks %u", lacks != 0 ? " nor " : "",
                     need->format, node->status.format));
    }
    return OK;
}

struct err cp_reach_judge(const struct cp_fleet_node *nodes, size_t count,
                          const struct cp_reach_need *need, uint64_t *out_live,
                          struct buf *sentence)
{
    size_t lacking = 0;
    *out_live = 0;
    for (size_t i = 0; i < count; i++) {
        bool can = (need->capabilities & ~nodes[i].status.capabilities) == 0 &&
                   reads(&nodes[i], need->format);
        *out_live += nodes[i].live;
        if (!nodes[i].live || can) {
            continue;
        }
        lacking++;
        if (lacking <= NAMED_MAX) {
            TRY(buf_add_str(sentence, lacking > 1 ? "; " : ""));
            TRY(name_lack(&nodes[i], need, sentence));
        }
    }
    if (lacking > NAMED_MAX) {
        TRY(buf_addf(sentence, "; and %zu more nodes", lacking - NAMED_MAX));
    }
    return lacking == 0 ? OK : FAIL(E_CAPABILITY_MISSING);
}
