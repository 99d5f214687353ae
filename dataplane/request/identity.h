/*
 * identity: who asks? From a verified certificate, or from a static token's digest.
 *
 * Shape      a memo of tokens that were digested already, so that a token costs one comparison
 *            a request and one BLAKE2b-256 a worker and snapshot.
 * Ownership  the memo owns copies of tokens; callers are borrowed from the model.
 * Threads    a worker's own.
 * Errors     UNAUTHENTICATED: neither, or one that the snapshot does not know. IDENTITY_REVOKED:
 *            one that it lists as revoked.
 * Source     SPIFFE X.509-SVID: the certificate's one URI SAN; NAMES: "Identity".
 */
#pragma once

#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"
#include "dataplane/apply/model.h"

struct dp_identity_memo;

MUST_CHECK struct err dp_identity_memo_new(struct dp_identity_memo **out);
void dp_identity_memo_free(struct dp_identity_memo *memo);

/* Forgets all: after every swap, for the callers in it belong to the model before. */
void dp_identity_memo_clear(struct dp_identity_memo *memo);

/* What a request's sender presented; each may be empty. */
struct dp_credentials {
    struct slice spiffe; /* of a verified certificate. */
    struct slice serial; /* of a verified certificate. */
    struct slice token;
};

/*
 * The caller of a request. A certificate decides alone: a token beside it is the application's
 * own business.
 */
MUST_CHECK struct err dp_identity_find(struct dp_identity_memo *memo, const struct dp_model *model,
                                       const struct dp_credentials *by,
                                       const struct dp_caller **out);
