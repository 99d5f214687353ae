/* trust: the environment, and every service as a caller. */
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/text.h"
#include "controlplane/compile/compiler.h"

#include "trilane/parts/v1/parts.pb-c.h"

enum { DIGEST_FRONT = sizeof("blake2b:") - 1 };

static int bundle_cmp(const void *x, const void *y)
{
    const Trilane__Parts__V1__TrustBundle *a = *(Trilane__Parts__V1__TrustBundle *const *)x;
    const Trilane__Parts__V1__TrustBundle *b = *(Trilane__Parts__V1__TrustBundle *const *)y;
    return slice_cmp(slice_str(a->trust_domain), slice_str(b->trust_domain));
}

static MUST_CHECK struct err make_bundles(struct cp_compiler *c,
                                          const struct cp_trust_bundles *bundles,
                                          Trilane__Parts__V1__EnvironmentPart *part)
{
    TRY(arena_calloc(c->arena, bundles->count + 1, sizeof(Trilane__Parts__V1__TrustBundle *),
                     (void **)&part->trust_bundles));
    for (size_t i = 0; i < bundles->count; i++) {
        Trilane__Parts__V1__TrustBundle *bundle = NULL;
        TRY(arena_calloc(c->arena, 1, sizeof(*bundle), (void **)&bundle));
        trilane__parts__v1__trust_bundle__init(bundle);
        bundle->trust_domain = cp_str(bundles->items[i].trust_domain.text);
        bundle->ca = proto_binary(bundles->items[i].ca.text.ptr, bundles->items[i].ca.text.size);
        part->trust_bundles[i] = bundle;
    }
    part->n_trust_bundles = bundles->count;
    if (bundles->count > 1) {
        qsort(part->trust_bundles, bundles->count, sizeof(part->trust_bundles[0]), bundle_cmp);
    }
    cp_needs(c, CAPABILITY_TRUST_BUNDLES, bundles->count > 0);
    return OK;
}

/* What callers' connections must be. */
static void demand(struct cp_compiler *c, const struct cp_environment *environment,
                   Trilane__Parts__V1__EnvironmentPart *part)
{
    const struct cp_transport_profile *profile =
        (const struct cp_transport_profile *)environment->transport.to;
    if (profile == NULL) {
        return;
    }
    part->listener_tls = (uint32_t)profile->listener_tls;
    part->listener_tls_min = cp_tls_least(profile->listener_tls_min);
    part->listener_tls_max = cp_tls_most(profile->listener_tls_max);
    cp_needs(c, CAPABILITY_TLS_TERMS,
             part->listener_tls + part->listener_tls_min + part->listener_tls_max != 0);
}

/* An environment with more than one trust domain has no former form: cp_compiled_format_least(). */
static MUST_CHECK struct err compile_environment(struct cp_compiler *c,
                                                 const struct cp_environment *environment)
{
    Trilane__Parts__V1__EnvironmentPart part;
    trilane__parts__v1__environment_part__init(&part);
    part.name = cp_str(environment->meta.name.text);
    part.trust_domain = cp_str(environment->trust_domain.text);
    part.security = (uint32_t)environment->security;
    part.partitions = (uint32_t)environment->partitions;
    part.freshness_max_ms = environment->freshness_max_ms;
    part.queue_delay_ms = (uint32_t)environment->queue_delay_ms;
    TRY(cp_strings(c, &environment->trust_domains, &part.n_trust_domains, &part.trust_domains));
    TRY(make_bundles(c, &environment->trust_bundles, &part));
    bool guarded = environment->guard_miss_percent != 0 || environment->guard_decision_us != 0;
    part.guard_miss_percent = (uint32_t)environment->guard_miss_percent;
    part.guard_decision_us = (uint32_t)environment->guard_decision_us;
    part.guard_hold_ms = guarded ? environment->guard_hold_ms : 0;
    demand(c, environment, &part);
    cp_needs(c, CAPABILITY_POLICY_GUARDRAILS, guarded);
    cp_needs(c, CAPABILITY_FRESHNESS_MAX, part.freshness_max_ms > 0);
    cp_needs(c, CAPABILITY_TRUST_DOMAINS, part.n_trust_domains > 0);
    cp_needs(c, CAPABILITY_SHEDDING, part.queue_delay_ms > 0);
    return cp_emit(c, CP_PART_TRUST, SLICE_LIT("environment"), &part.base, environment->meta.at);
}

static MUST_CHECK struct err make_traits(struct cp_compiler *c, const struct cp_pairs *traits,
                                         Trilane__Parts__V1__Caller *part)
{
    TRY(arena_calloc(c->arena, traits->count + 1, sizeof(Trilane__Parts__V1__Trait *),
                     (void **)&part->traits));
    for (size_t i = 0; i < traits->count; i++) {
        Trilane__Parts__V1__Trait *trait = NULL;
        TRY(arena_calloc(c->arena, 1, sizeof(*trait), (void **)&trait));
        trilane__parts__v1__trait__init(trait);
        trait->name = cp_str(traits->items[i].name.text);
        trait->value = cp_str(traits->items[i].value.text);
        part->traits[i] = trait;
    }
    part->n_traits = traits->count;
    return OK;
}

/* Digests from their hex, whose order is that of the bytes. */
static MUST_CHECK struct err make_digests(struct cp_compiler *c, const struct cp_texts *tokens,
                                          Trilane__Parts__V1__Caller *part)
{
    TRY(arena_calloc(c->arena, tokens->count + 1, sizeof(ProtobufCBinaryData),
                     (void **)&part->token_digests));
    for (size_t i = 0; i < tokens->count; i++) {
        uint8_t *digest = NULL;
        TRY(arena_alloc(c->arena, DIGEST_SIZE, (void **)&digest));
        TRY(text_unhex(slice_from(tokens->items[i].text, DIGEST_FRONT), digest, DIGEST_SIZE));
        part->token_digests[i] = (ProtobufCBinaryData){DIGEST_SIZE, digest};
    }
    part->n_token_digests = tokens->count;
    return OK;
}

static MUST_CHECK struct err compile_caller(struct cp_compiler *c, struct slice trust_domain,
                                            const struct cp_service *service)
{
    Trilane__Parts__V1__Caller part;
    trilane__parts__v1__caller__init(&part);
    struct slice id = {0};
    struct slice spiffe = {0};
    TRY(cp_target_id(c->arena, &service->meta, &id));
    TRY(make_traits(c, &service->traits, &part));
    TRY(make_digests(c, &service->tokens, &part));
    TRY(arena_printf(c->arena, &spiffe, "spiffe://%.*s/tenant/%.*s/service/%.*s",
                     SLICE_ARG(trust_domain), SLICE_ARG(service->meta.tenant.text),
                     SLICE_ARG(service->meta.name.text)));
    Trilane__Parts__V1__Caller former = part;
    former.id = cp_str(id);
    former.spiffe = cp_str(spiffe);
    former.tenant = cp_str(service->meta.tenant.text);
    former.service = cp_str(service->meta.name.text);
    return cp_emit_both(c, CP_PART_TRUST, id, &part.base, &former.base, service->meta.at);
}

struct err cp_compile_trust(struct cp_compiler *c)
{
    const struct cp_resources *environments = &c->model->of[CP_KIND_ENVIRONMENT];
    if (environments->count != 1 || !cp_is_whole(environments->items[0])) {
        return OK; /* it was refused, and every caller's name needs it */
    }
    const struct cp_environment *environment =
        (const struct cp_environment *)environments->items[0];
    TRY(compile_environment(c, environment));
    TRY(cp_compile_issuers(c));
    const struct cp_resources *services = &c->model->of[CP_KIND_SERVICE];
    for (size_t i = 0; i < services->count; i++) {
        if (!cp_is_whole(services->items[i])) {
            continue;
        }
        TRY(compile_caller(c, environment->trust_domain.text,
                           (const struct cp_service *)services->items[i]));
    }
    return OK;
}
