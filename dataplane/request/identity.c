/* identity: see identity.h. */
#include "dataplane/request/identity.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/ids.h"
#include "common/base/map.h"
#include "common/jose/jwt.h"

enum { PLACES = 1024, TOKEN_MAX = 120 };

struct place {
    const struct dp_caller *caller; /* NULL: free. */
    uint32_t epoch;
    uint32_t size;
    uint8_t token[TOKEN_MAX];
};

struct dp_identity_memo {
    struct dp_tokens *tokens;
    uint32_t epoch; /* places of another one are free. */
    struct place places[PLACES];
};

struct err dp_identity_memo_new(const struct dp_tokens_config *tokens,
                                struct dp_identity_memo **out)
{
    struct dp_identity_memo *memo = calloc(1, sizeof(*memo));
    if (memo == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    struct err e = dp_tokens_new(tokens, &memo->tokens);
    if (!err_ok(e)) {
        free(memo);
        return e;
    }
    *out = memo;
    return OK;
}

void dp_identity_memo_free(struct dp_identity_memo *memo)
{
    if (memo != NULL) {
        dp_tokens_free(memo->tokens);
        sodium_memzero(memo, sizeof(*memo));
        free(memo);
    }
}

void dp_identity_memo_clear(struct dp_identity_memo *memo)
{
    memo->epoch++;
    dp_tokens_clear(memo->tokens);
}

struct dp_tokens *dp_identity_memo_tokens(struct dp_identity_memo *memo)
{
    return memo->tokens;
}

/* ---- static tokens ---- */

static struct place *place_of(struct dp_identity_memo *memo, struct slice token)
{
    return &memo->places[map_hash(token) % PLACES];
}

static const struct dp_caller *remembered(struct dp_identity_memo *memo, struct slice token)
{
    if (token.size > TOKEN_MAX) {
        return NULL;
    }
    const struct place *place = place_of(memo, token);
    bool found = place->caller != NULL && place->epoch == memo->epoch &&
                 place->size == token.size &&
                 sodium_memcmp(place->token, token.ptr, token.size) == 0;
    return found ? place->caller : NULL;
}

static void remember(struct dp_identity_memo *memo, struct slice token,
                     const struct dp_caller *caller)
{
    if (token.size > TOKEN_MAX) {
        return;
    }
    struct place *place = place_of(memo, token);
    *place = (struct place){.caller = caller, .epoch = memo->epoch, .size = (uint32_t)token.size};
    (void)memcpy(place->token, token.ptr, token.size);
}

/* ---- JSON Web Tokens ---- */

static MUST_CHECK struct err settle(enum dp_token_outcome outcome, struct dp_token *token,
                                    struct dp_identified *out)
{
    if (outcome == DP_TOKEN_GOOD) {
        out->token = token;
        out->caller = dp_token_caller(token);
        return OK;
    }
    const char *sentence = dp_token_outcome_sentence(outcome);
    out->sentence = sentence[0] == '\0' ? NULL : sentence;
    return FAIL(dp_token_outcome_code(outcome));
}

/* A static token may be written like one of an Issuer, so its digest is asked for before any
 * signature is. */
static MUST_CHECK struct err find_by_token(struct dp_identity_memo *memo,
                                           const struct dp_model *model,
                                           const struct dp_credentials *by,
                                           struct dp_identified *out)
{
    enum dp_token_outcome outcome = DP_TOKEN_GOOD;
    struct dp_token *token = NULL;
    const struct dp_token_query query = {
        .model = model, .token = by->token, .peer = by->peer, .before = by->before};
    bool shaped = dp_model_has_issuers(model) && jwt_is_shaped(by->token);
    out->caller = remembered(memo, by->token);
    if (out->caller != NULL) {
        return OK;
    }
    if (shaped && dp_tokens_known(memo->tokens, &query, &outcome, &token)) {
        return settle(outcome, token, out);
    }
    uint8_t digest[DIGEST_SIZE];
    ids_digest(by->token, digest);
    out->caller = dp_model_caller_by_token(model, digest);
    if (out->caller != NULL) {
        remember(memo, by->token, out->caller);
        return OK;
    }
    if (dp_model_token_revoked(model, digest)) {
        return FAIL(E_IDENTITY_REVOKED);
    }
    if (!shaped) {
        return FAIL(E_UNAUTHENTICATED);
    }
    outcome = dp_tokens_check(memo->tokens, &query, digest, &token, &out->retry_ns);
    return settle(outcome, token, out);
}

/* ---- certificates ---- */

/* Who was revoked is among no model's callers: asked is only when there is none. */
static MUST_CHECK struct err find_by_spiffe(const struct dp_model *model, struct slice spiffe,
                                            const struct dp_caller **out)
{
    const struct dp_caller *caller = dp_model_caller_by_spiffe(model, spiffe);
    if (caller == NULL) {
        return FAIL(dp_model_spiffe_revoked(model, spiffe) ? E_IDENTITY_REVOKED
                                                           : E_UNAUTHENTICATED);
    }
    *out = caller;
    return OK;
}

struct err dp_identity_find(struct dp_identity_memo *memo, const struct dp_model *model,
                            const struct dp_credentials *by, struct dp_identified *out)
{
    CHECK(model != NULL);
    *out = (struct dp_identified){0};
    if (dp_model_serial_revoked(model, by->serial)) {
        return FAIL(E_IDENTITY_REVOKED);
    }
    if (by->spiffe.size > 0) {
        return find_by_spiffe(model, by->spiffe, &out->caller);
    }
    if (by->token.size > 0) {
        return find_by_token(memo, model, by, out);
    }
    return FAIL(E_UNAUTHENTICATED);
}
