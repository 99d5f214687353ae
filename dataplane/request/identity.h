/*
 * identity: who asks? From a verified certificate, from a static token's digest, or from a JSON Web
 * Token of an Issuer.
 *
 * Shape      a memo of static tokens that were digested already, so that a token costs one
 *            comparison a request and one BLAKE2b-256 a worker and snapshot; and the table of
 *            token.h.
 * Ownership  the memo owns copies of tokens; callers are borrowed from the model, or of a token,
 *            which whoever keeps its caller holds.
 * Threads    a worker's own.
 * Errors     UNAUTHENTICATED: none of them, or one that the snapshot does not know.
 *            IDENTITY_REVOKED: one that it lists as revoked. And of JSON Web Tokens the codes of
 *            DP_TOKEN_OUTCOMES.
 * Source     SPIFFE X.509-SVID: the certificate's one URI SAN; NAMES: "Identity"; docs/tokens.md.
 */
#pragma once

#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"
#include "dataplane/apply/model.h"
#include "dataplane/request/token.h"

struct dp_identity_memo;

MUST_CHECK struct err dp_identity_memo_new(const struct dp_tokens_config *tokens,
                                           struct dp_identity_memo **out);
void dp_identity_memo_free(struct dp_identity_memo *memo);

/* Forgets all but what was verified: after every swap, for the callers in it belong to the model
 * before. */
void dp_identity_memo_clear(struct dp_identity_memo *memo);

/* For dp_tokens_keys(). */
struct dp_tokens *dp_identity_memo_tokens(struct dp_identity_memo *memo);

/* What a request's sender presented; each may be empty. */
struct dp_credentials {
    struct slice spiffe; /* of a verified certificate. */
    struct slice serial; /* of a verified certificate. */
    struct slice token;
    struct slice peer;       /* the connection, as text: wrong tokens are counted by it. */
    struct dp_token *before; /* that the request holds; NULL: none. */
};

/* The answer; of a refusal what more there is to say. */
struct dp_identified {
    const struct dp_caller *caller;
    struct dp_token *token; /* to be held for as long as the caller is; NULL: it is the model's. */
    const char *sentence;   /* static; NULL: the code's own text says it. */
    uint64_t retry_ns;      /* RATE_LIMITED: when to ask again. */
};

/*
 * The caller of a request. A certificate decides alone: a token beside it is the application's
 * own business.
 */
MUST_CHECK struct err dp_identity_find(struct dp_identity_memo *memo, const struct dp_model *model,
                                       const struct dp_credentials *by, struct dp_identified *out);
