/* egress: destinations outside. */
#include <stdlib.h>

#include "common/base/check.h"
#include "controlplane/compile/compiler.h"

#include "trilane/parts/v1/parts.pb-c.h"

static int port_cmp(const void *x, const void *y)
{
    uint32_t a = *(const uint32_t *)x;
    uint32_t b = *(const uint32_t *)y;
    return (a > b) - (a < b);
}

/* Ports were sorted as text; a node wants them as numbers. */
static MUST_CHECK struct err make_ports(struct cp_compiler *c, const struct cp_texts *ports,
                                        Trilane__Parts__V1__EgressPart *part)
{
    TRY(arena_calloc(c->arena, ports->count + 1, sizeof(uint32_t), (void **)&part->ports));
    for (size_t i = 0; i < ports->count; i++) {
        uint64_t port = 0;
        CHECK(slice_to_u64(ports->items[i].text, &port)); /* the loader read it */
        part->ports[i] = (uint32_t)port;
    }
    part->n_ports = ports->count;
    qsort(part->ports, part->n_ports, sizeof(uint32_t), port_cmp);
    return OK;
}

static MUST_CHECK struct err compile_egress(struct cp_compiler *c, const struct cp_egress *egress)
{
    Trilane__Parts__V1__EgressPart part;
    trilane__parts__v1__egress_part__init(&part);
    struct slice id = {0};
    TRY(cp_target_id(c->arena, &egress->meta, &id));
    part.id = cp_str(id);
    part.tenant = cp_str(egress->meta.tenant.text);
    TRY(cp_strings(c, &egress->hosts, &part.n_hosts, &part.hosts));
    TRY(make_ports(c, &egress->ports, &part));
    TRY(cp_strings(c, &egress->methods, &part.n_methods, &part.methods));
    TRY(cp_strings(c, &egress->paths, &part.n_paths, &part.paths));
    TRY(cp_strings(c, &egress->address_ranges, &part.n_address_ranges, &part.address_ranges));
    part.transport = cp_transport_id(&egress->transport);
    part.response_bytes = egress->response_bytes;
    return cp_emit(c, CP_PART_EGRESS, egress->meta.id, &part.base, egress->meta.at);
}

struct err cp_compile_egress(struct cp_compiler *c)
{
    const struct cp_resources *all = &c->model->of[CP_KIND_EGRESS];
    for (size_t i = 0; i < all->count; i++) {
        if (cp_is_whole(all->items[i])) {
            TRY(compile_egress(c, (const struct cp_egress *)all->items[i]));
        }
    }
    return OK;
}
