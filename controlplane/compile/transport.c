/* transport: profiles of deadlines, bounds and upstream security. */
#include "controlplane/compile/compiler.h"

#include "trilane/parts/v1/parts.pb-c.h"

struct err cp_compile_transport(struct cp_compiler *c)
{
    const struct cp_resources *all = &c->model->of[CP_KIND_TRANSPORT_PROFILE];
    for (size_t i = 0; i < all->count; i++) {
        const struct cp_transport_profile *p = (const struct cp_transport_profile *)all->items[i];
        if (!cp_is_whole(&p->meta)) {
            continue;
        }
        Trilane__Parts__V1__Transport part;
        trilane__parts__v1__transport__init(&part);
        part.id = cp_str(p->meta.id);
        part.timeout_ms = (uint32_t)p->timeout_ms;
        part.timeout_max_ms = (uint32_t)p->timeout_max_ms;
        part.connect_timeout_ms = (uint32_t)p->connect_timeout_ms;
        part.idle_timeout_ms = (uint32_t)p->idle_timeout_ms;
        part.request_message_bytes = (uint32_t)p->request_message_bytes;
        part.response_message_bytes = (uint32_t)p->response_message_bytes;
        part.upstream_tls = (uint32_t)p->upstream_tls;
        cp_needs(c, CAPABILITY_UPSTREAM_TLS, part.upstream_tls != 0);
        part.upstream_tls_min = cp_tls_least(p->upstream_tls_min);
        part.upstream_tls_max = cp_tls_most(p->upstream_tls_max);
        cp_needs(c, CAPABILITY_TLS_TERMS, part.upstream_tls_min + part.upstream_tls_max != 0);
        part.upstream_sni = cp_str(p->upstream_server_name.text);
        part.upstream_spiffe = cp_str(p->upstream_spiffe.text);
        part.upstream_max_age_ms = (uint32_t)p->upstream_max_age_ms;
        TRY(cp_emit(c, CP_PART_TRANSPORT, p->meta.id, &part.base, p->meta.at));
    }
    return OK;
}
