/* token_settle: from what is known of a token to a caller. See token_impl.h. */
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "dataplane/request/token_impl.h"

/* Puts text behind what was put there before. */
struct writer {
    uint8_t *at;
};

static struct slice write_text(struct writer *w, struct slice text)
{
    if (text.size > 0) {
        memcpy(w->at, text.ptr, text.size);
    }
    struct slice written = slice_of(w->at, text.size);
    w->at += text.size;
    return written;
}

static struct slice write_joined(struct writer *w, const struct slice *pieces, size_t count)
{
    struct slice whole = slice_of(w->at, 0);
    for (size_t i = 0; i < count; i++) {
        whole.size += write_text(w, pieces[i]).size;
    }
    return whole;
}

enum { ID_PIECES = 5, NAME_PIECES = 3 };

/* What a token of these facts needs behind its struct. */
static size_t size_of(const struct dp_token_facts *facts, const struct dp_issuer *issuer,
                      const struct dp_caller *service)
{
    size_t traits = facts->claims.trait_count + (service == NULL ? 0 : service->trait_count);
    /* The traits of the token are there twice: as facts, and among the caller's. */
    size_t size = (traits + facts->claims.trait_count) * sizeof(struct dp_trait);
    for (size_t i = 0; i < facts->claims.trait_count; i++) {
        size += facts->claims.traits[i].name.size + facts->claims.traits[i].value.size;
    }
    size += facts->token.size + facts->issuer.size + facts->claims.subject.size +
            facts->claims.tenant.size + facts->claims.service.size;
    size += facts->claims.tenant.size + issuer->name.size + facts->claims.subject.size + 2;
    return size + facts->issuer.size + facts->claims.subject.size + 1;
}

static void copy_facts(struct dp_token *token, const struct dp_token_facts *facts,
                       struct dp_trait *traits, struct writer *w)
{
    struct dp_token_facts *to = &token->facts;
    *to = *facts;
    for (size_t i = 0; i < facts->claims.trait_count; i++) {
        traits[i].name = write_text(w, facts->claims.traits[i].name);
        traits[i].value = write_text(w, facts->claims.traits[i].value);
    }
    to->claims.traits = traits;
    to->token = write_text(w, facts->token);
    to->issuer = write_text(w, facts->issuer);
    to->claims.subject = write_text(w, facts->claims.subject);
    to->claims.tenant = write_text(w, facts->claims.tenant);
    to->claims.service = write_text(w, facts->claims.service);
}

/* The Service's own traits stand before those that a token claims for it. */
static void merge_traits(struct dp_token *token, const struct dp_caller *service)
{
    struct dp_caller *caller = &token->caller;
    struct dp_caller own = {.traits = token->traits};
    for (size_t i = 0; service != NULL && i < service->trait_count; i++) {
        token->traits[own.trait_count++] = service->traits[i];
    }
    size_t count = own.trait_count;
    for (size_t i = 0; i < token->facts.claims.trait_count; i++) {
        struct slice ignored = {0};
        if (!dp_caller_trait(&own, token->facts.claims.traits[i].name, &ignored)) {
            token->traits[count++] = token->facts.claims.traits[i];
        }
    }
    caller->traits = token->traits;
    caller->trait_count = count;
}

static void name_caller(struct dp_token *token, const struct dp_issuer *issuer,
                        const struct dp_caller *service, struct writer *w)
{
    const struct dp_token_facts *f = &token->facts;
    struct dp_caller *caller = &token->caller;
    if (service != NULL) {
        *caller = *service;
        caller->counted_as = service;
    } else {
        const struct slice id[ID_PIECES] = {f->claims.tenant, SLICE_LIT("/"), issuer->name,
                                            SLICE_LIT("#"), f->claims.subject};
        const struct slice name[NAME_PIECES] = {f->issuer, SLICE_LIT("#"), f->claims.subject};
        *caller = (struct dp_caller){.tenant = f->claims.tenant, .counted_as = &issuer->counted};
        caller->id = write_joined(w, id, ID_PIECES);
        caller->spiffe = write_joined(w, name, NAME_PIECES);
    }
    caller->domain = issuer->trust_domain;
    merge_traits(token, service);
}

/* Makes the token and puts it into the table. */
static struct dp_token *make(struct dp_tokens *t, uint64_t hash, const struct dp_token_facts *facts,
                             const struct dp_issuer *issuer, const struct dp_caller *service)
{
    struct dp_token *token = calloc(1, sizeof(*token) + size_of(facts, issuer, service));
    if (token == NULL) {
        return NULL;
    }
    size_t traits = facts->claims.trait_count + (service == NULL ? 0 : service->trait_count);
    struct dp_trait *own = &token->traits[traits];
    struct writer w = {.at = (uint8_t *)(own + facts->claims.trait_count)};
    token->owner = t;
    token->refs = 1;
    token->hash = hash;
    token->epoch = t->epoch;
    copy_facts(token, facts, own, &w);
    name_caller(token, issuer, service, &w);
    dp_tokens_put(t, token);
    return token;
}

static bool is_revoked(const struct dp_model *model, const struct dp_token_facts *facts,
                       const struct dp_caller *service)
{
    uint8_t room[DP_CLAIM_ISSUER_MAX + 1 + DP_CLAIM_SUBJECT_MAX];
    struct writer w = {.at = room};
    const struct slice pieces[NAME_PIECES] = {facts->issuer, SLICE_LIT("#"), facts->claims.subject};
    if (dp_model_token_revoked(model, facts->digest) ||
        (service != NULL && dp_model_spiffe_revoked(model, service->spiffe))) {
        return true;
    }
    CHECK(facts->issuer.size + 1 + facts->claims.subject.size <= sizeof(room));
    return dp_model_subject_revoked(model, write_joined(&w, pieces, NAME_PIECES));
}

enum dp_token_outcome dp_token_settle(struct dp_tokens *t, const struct dp_model *model,
                                      uint64_t hash, const struct dp_token_facts *facts,
                                      const struct dp_issuer *issuer, struct dp_token **out)
{
    uint8_t room[64 + 64];
    struct writer w = {.at = room};
    const struct dp_claims *claims = &facts->claims;
    const struct dp_caller *service = NULL;
    if (!dp_model_has_tenant(model, claims->tenant)) {
        return DP_TOKEN_TENANT;
    }
    if (claims->service.size > 0) {
        const struct slice pieces[] = {claims->tenant, SLICE_LIT("/"), claims->service};
        if (claims->tenant.size + 1 + claims->service.size <= sizeof(room)) {
            service = dp_model_service(model, write_joined(&w, pieces, 3));
        }
        if (service == NULL) {
            return DP_TOKEN_SERVICE;
        }
    }
    if (is_revoked(model, facts, service)) {
        return DP_TOKEN_REVOKED;
    }
    struct dp_token *token = make(t, hash, facts, issuer, service);
    if (token == NULL) {
        return DP_TOKEN_MEMORY;
    }
    *out = token;
    return DP_TOKEN_GOOD;
}
