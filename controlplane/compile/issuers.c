/* issuers: whose tokens prove who calls. */
#include <stdlib.h>

#include "common/base/check.h"
#include "controlplane/compile/compiler.h"

#include "trilane/parts/v1/parts.pb-c.h"

typedef Trilane__Parts__V1__Issuer part_issuer;
typedef Trilane__Parts__V1__IssuerTenant part_tenant;
typedef Trilane__Parts__V1__IssuerWhen part_when;
typedef Trilane__Parts__V1__IssuerTrait part_trait;

static int when_cmp(const void *x, const void *y)
{
    const part_when *a = *(part_when *const *)x;
    const part_when *b = *(part_when *const *)y;
    int order = slice_cmp(slice_str(a->claim), slice_str(b->claim));
    return order != 0 ? order : slice_cmp(slice_str(a->value), slice_str(b->value));
}

/* The order in which they are written means nothing: all that fit must agree. */
static int tenant_cmp(const void *x, const void *y)
{
    const part_tenant *a = *(part_tenant *const *)x;
    const part_tenant *b = *(part_tenant *const *)y;
    int order = slice_cmp(slice_str(a->tenant), slice_str(b->tenant));
    order = order != 0 ? order : slice_cmp(slice_str(a->claim), slice_str(b->claim));
    order = order != 0 ? order : (a->n_when > b->n_when) - (a->n_when < b->n_when);
    for (size_t i = 0; order == 0 && i < a->n_when; i++) {
        order = when_cmp(&a->when[i], &b->when[i]);
    }
    return order;
}

static MUST_CHECK struct err make_when(struct cp_compiler *c, const struct cp_claim_values *from,
                                       part_tenant *to)
{
    TRY(arena_calloc(c->arena, from->count + 1, sizeof(part_when *), (void **)&to->when));
    for (size_t i = 0; i < from->count; i++) {
        TRY(arena_calloc(c->arena, 1, sizeof(part_when), (void **)&to->when[i]));
        trilane__parts__v1__issuer_when__init(to->when[i]);
        to->when[i]->claim = cp_str(from->items[i].claim.text);
        to->when[i]->value = cp_str(from->items[i].value.text);
    }
    to->n_when = from->count;
    qsort(to->when, to->n_when, sizeof(part_when *), when_cmp);
    return OK;
}

/* Without any: the Issuer's own tenant. */
static MUST_CHECK struct err make_tenants(struct cp_compiler *c, const struct cp_issuer *issuer,
                                          part_issuer *part)
{
    const struct cp_issuer_tenants *from = &issuer->tenants;
    struct cp_issuer_tenant own = {.tenant = issuer->meta.tenant};
    size_t count = from->count == 0 ? 1 : from->count;
    TRY(arena_calloc(c->arena, count, sizeof(part_tenant *), (void **)&part->tenants));
    for (size_t i = 0; i < count; i++) {
        const struct cp_issuer_tenant *way = from->count == 0 ? &own : &from->items[i];
        TRY(arena_calloc(c->arena, 1, sizeof(part_tenant), (void **)&part->tenants[i]));
        trilane__parts__v1__issuer_tenant__init(part->tenants[i]);
        part->tenants[i]->tenant = cp_str(way->tenant.text);
        part->tenants[i]->claim = cp_str(way->claim.text);
        TRY(make_when(c, &way->when, part->tenants[i]));
    }
    part->n_tenants = count;
    qsort(part->tenants, count, sizeof(part_tenant *), tenant_cmp);
    return OK;
}

static MUST_CHECK struct err make_traits(struct cp_compiler *c, const struct cp_pairs *traits,
                                         part_issuer *part)
{
    TRY(arena_calloc(c->arena, traits->count + 1, sizeof(part_trait *), (void **)&part->traits));
    for (size_t i = 0; i < traits->count; i++) {
        TRY(arena_calloc(c->arena, 1, sizeof(part_trait), (void **)&part->traits[i]));
        trilane__parts__v1__issuer_trait__init(part->traits[i]);
        part->traits[i]->name = cp_str(traits->items[i].name.text);
        part->traits[i]->claim = cp_str(traits->items[i].value.text);
    }
    part->n_traits = traits->count;
    return OK;
}

static void make_keys(const struct cp_issuer *issuer, part_issuer *part)
{
    part->jwks_uri = cp_str(issuer->jwks_uri.text);
    part->discovery = issuer->jwks_discovery != 0;
    part->jwks = proto_binary(issuer->jwks.ptr, issuer->jwks.size);
    part->ca = proto_binary(issuer->jwks_ca.text.ptr, issuer->jwks_ca.text.size);
    if (issuer->jwks.size == 0) {
        part->refresh_ms = issuer->refresh_ms;
        part->max_stale_ms = issuer->max_stale_ms;
    }
}

static MUST_CHECK struct err compile_issuer(struct cp_compiler *c, const struct cp_issuer *issuer)
{
    part_issuer part;
    trilane__parts__v1__issuer__init(&part);
    const struct slice pieces[] = {SLICE_LIT("issuer/"), issuer->meta.id};
    struct slice key = {0};
    TRY(arena_join(c->arena, pieces, 2, &key));
    part.issuer = cp_str(issuer->issuer.text);
    TRY(cp_strings(c, &issuer->audiences, &part.n_audiences, &part.audiences));
    part.algorithms = (uint32_t)issuer->algorithms << 1; /* numbers of JwsAlgorithm begin with 1. */
    part.leeway_ms = issuer->leeway_ms;
    make_keys(issuer, &part);
    TRY(make_tenants(c, issuer, &part));
    part.subject_claim = cp_str(issuer->subject.text);
    part.service_claim = cp_str(issuer->service.text);
    TRY(make_traits(c, &issuer->traits, &part));
    part.trust_domain = cp_str(issuer->trust_domain.text);
    cp_needs(c, CAPABILITY_ISSUERS, true);
    cp_needs(c, CAPABILITY_ISSUER_DISCOVERY, part.discovery != 0);
    return cp_emit(c, CP_PART_TRUST, key, &part.base, issuer->meta.at);
}

struct err cp_compile_issuers(struct cp_compiler *c)
{
    const struct cp_resources *all = &c->model->of[CP_KIND_ISSUER];
    for (size_t i = 0; i < all->count; i++) {
        if (cp_is_whole(all->items[i])) {
            TRY(compile_issuer(c, (const struct cp_issuer *)all->items[i]));
        }
    }
    return OK;
}
