/* identity: see identity.h. */
#include "dataplane/request/identity.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/ids.h"
#include "common/base/map.h"

enum { PLACES = 1024, TOKEN_MAX = 120 };

struct place {
    const struct dp_caller *caller; /* NULL: free. */
    uint32_t epoch;
    uint32_t size;
    uint8_t token[TOKEN_MAX];
};

struct dp_identity_memo {
    uint32_t epoch; /* places of another one are free. */
    struct place places[PLACES];
};

struct err dp_identity_memo_new(struct dp_identity_memo **out)
{
    struct dp_identity_memo *memo = calloc(1, sizeof(*memo));
    if (memo == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    *out = memo;
    return OK;
}

void dp_identity_memo_free(struct dp_identity_memo *memo)
{
    if (memo != NULL) {
        sodium_memzero(memo, sizeof(*memo));
        free(memo);
    }
}

void dp_identity_memo_clear(struct dp_identity_memo *memo)
{
    memo->epoch++;
}

static MUST_CHECK struct err find_by_token(struct dp_identity_memo *memo,
                                           const struct dp_model *model, struct slice token,
                                           const struct dp_caller **out)
{
    struct place *place = &memo->places[map_hash(token) % PLACES];
    if (place->caller != NULL && place->epoch == memo->epoch && place->size == token.size &&
        sodium_memcmp(place->token, token.ptr, token.size) == 0) {
        *out = place->caller;
        return OK;
    }
    uint8_t digest[DIGEST_SIZE];
    ids_digest(token, digest);
    const struct dp_caller *caller = dp_model_caller_by_token(model, digest);
    if (caller == NULL) {
        return FAIL(dp_model_token_revoked(model, digest) ? E_IDENTITY_REVOKED : E_UNAUTHENTICATED);
    }
    if (token.size <= TOKEN_MAX) {
        *place =
            (struct place){.caller = caller, .epoch = memo->epoch, .size = (uint32_t)token.size};
        (void)memcpy(place->token, token.ptr, token.size);
    }
    *out = caller;
    return OK;
}

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
                            const struct dp_credentials *by, const struct dp_caller **out)
{
    CHECK(model != NULL);
    if (dp_model_serial_revoked(model, by->serial)) {
        return FAIL(E_IDENTITY_REVOKED);
    }
    if (by->spiffe.size > 0) {
        return find_by_spiffe(model, by->spiffe, out);
    }
    if (by->token.size > 0) {
        return find_by_token(memo, model, by->token, out);
    }
    return FAIL(E_UNAUTHENTICATED);
}
