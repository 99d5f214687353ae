/*
 * claims: what a token's claims say of its bearer, as its Issuer reads them.
 *
 * Shape      two questions: whether the token is for us and now, which is cheap and asked before
 *            its signature is looked at; and whom it speaks of.
 * Units      Unix time in milliseconds.
 * Ownership  answers borrow from the token's room, the Issuer, and the room given.
 * Threads    pure functions; any thread.
 * Errors     an outcome of DP_TOKEN_OUTCOMES.
 * Source     docs/tokens.md; RFC 7519, 4.1; RFC 8693, 4.2 (scope).
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/jose/json_doc.h"
#include "dataplane/apply/model.h"

enum {
    DP_CLAIM_TRAITS_MAX = 64,    /* of a token. */
    DP_CLAIM_TEXT_MAX = 8 << 10, /* what its traits and names take in all. */
    DP_CLAIM_VALUE_MAX = 256,    /* of a trait. */
    DP_CLAIM_ISSUER_MAX = 512,   /* of claim iss. */
    DP_CLAIM_SUBJECT_MAX = 255,  /* as it is written in ids; OpenID Connect Core, 2. */
};

/* name, label of the metric, code of the refusal, what the caller is told */
#define DP_TOKEN_OUTCOMES(X)                                                                       \
    X(GOOD, "good", OK, "")                                                                        \
    X(MALFORMED, "malformed", UNAUTHENTICATED, "the token is malformed")                           \
    X(UNSUPPORTED, "unsupported", UNAUTHENTICATED,                                                 \
      "a token of this algorithm or type is not taken")                                            \
    X(ISSUER, "issuer", UNAUTHENTICATED, "the token's issuer is not known here")                   \
    X(ALGORITHM, "algorithm", UNAUTHENTICATED,                                                     \
      "the issuer's tokens are not taken with this algorithm")                                     \
    X(AUDIENCE, "audience", UNAUTHENTICATED, "the token is for another audience")                  \
    X(EXPIRED, "expired", UNAUTHENTICATED, "the token has expired")                                \
    X(EARLY, "early", UNAUTHENTICATED, "the token is not valid yet")                               \
    X(KEYS, "keys", ISSUER_KEYS, "the keys of the token's issuer are being read: retry")           \
    X(KID, "kid", UNAUTHENTICATED, "the token's issuer has no such key")                           \
    X(SIGNATURE, "signature", UNAUTHENTICATED, "the token's signature is wrong")                   \
    X(CLAIMS, "claims", UNAUTHENTICATED, "the token's claims are not what its Issuer asks for")    \
    X(TENANT, "tenant", UNAUTHENTICATED, "the token's claims lead to no tenant, or to several")    \
    X(SERVICE, "service", UNAUTHENTICATED, "the token names no Service of its tenant")             \
    X(REVOKED, "revoked", IDENTITY_REVOKED, "the token, its subject or its Service was revoked")   \
    X(WITHDRAWN, "withdrawn", UNAUTHENTICATED, "the issuer has withdrawn the token's key")         \
    X(LIMITED, "limited", RATE_LIMITED, "")                                                        \
    X(LIMITED_ADDRESS, "limited_address", RATE_LIMITED,                                            \
      "too many wrong tokens come from this address")                                              \
    X(MEMORY, "memory", NO_MEMORY, "")

enum dp_token_outcome {
#define X(name, label, code, sentence) DP_TOKEN_##name,
    DP_TOKEN_OUTCOMES(X)
#undef X
        DP_TOKEN_OUTCOME_COUNT,
};

const char *dp_token_outcome_label(enum dp_token_outcome outcome);
enum err_code dp_token_outcome_code(enum dp_token_outcome outcome);
const char *dp_token_outcome_sentence(enum dp_token_outcome outcome);

/* Room for what has to be put together. */
struct dp_claims_room {
    struct dp_trait traits[DP_CLAIM_TRAITS_MAX];
    uint8_t text[DP_CLAIM_TEXT_MAX];
    size_t used;
};

struct dp_claims {
    struct slice subject; /* printable ASCII: all else of it, and '%', is percent-encoded. */
    struct slice tenant;  /* whether there is one of that name is the model's to say. */
    struct slice service; /* its name; empty: the token speaks of no service. */
    const struct dp_trait *traits;
    size_t trait_count;
};

/* Whether a token is for one of the Issuer's audiences, and when it ends, leeway included. */
enum dp_token_outcome dp_claims_hold(const struct json_doc_value *claims,
                                     const struct dp_issuer *issuer, int64_t now_ms,
                                     int64_t *out_expires_ms);

/* Whom a token speaks of. */
enum dp_token_outcome dp_claims_read(const struct json_doc_value *claims,
                                     const struct dp_issuer *issuer, struct dp_claims_room *room,
                                     struct dp_claims *out);
