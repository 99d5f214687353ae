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

struct err cp_reach_judge(const struct cp_fleet_node *nodes, size_t count, uint64_t capabilities,
                          uint64_t *out_live, struct buf *sentence)
{
    size_t lacking = 0;
    *out_live = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t lacks = capabilities & ~nodes[i].status.capabilities;
        *out_live += nodes[i].live;
        if (!nodes[i].live || lacks == 0) {
            continue;
        }
        lacking++;
        if (lacking <= NAMED_MAX) {
            TRY(buf_addf(sentence, "%snode %s cannot do ", lacking > 1 ? "; " : "", nodes[i].id));
            TRY(name_bits(lacks, sentence));
        }
    }
    if (lacking > NAMED_MAX) {
        TRY(buf_addf(sentence, "; and %zu more nodes", lacking - NAMED_MAX));
    }
    return lacking == 0 ? OK : FAIL(E_CAPABILITY_MISSING);
}
