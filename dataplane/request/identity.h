/*
 * identity: who asks? From a verified certificate, or from a static token's digest.
 *
 * Shape      a memo of tokens that were digested already, so that a token costs one comparison
 *            a request and one BLAKE2b-256 a worker and snapshot.
 * Ownership  the memo owns copies of tokens; callers are borrowed from the model.
 * Threads    a worker's own.
 * Errors     UNAUTHENTICATED: neither, or one that the snapshot does not know.
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

/*
 * The caller of a request. A certificate decides alone: a token beside it is the application's
 * own business. 'spiffe' and 'token' may be empty.
 */
MUST_CHECK struct err dp_identity_find(struct dp_identity_memo *memo, const struct dp_model *model,
                                       struct slice spiffe, struct slice token,
                                       const struct dp_caller **out);
