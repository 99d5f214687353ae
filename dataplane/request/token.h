/*
 * token: callers by JSON Web Token: each is verified once, and remembered until it ends.
 *
 * Shape      a table of tokens that were verified, found by their bytes. A token that was verified
 *            is counted: by the table, and by each request that stands on it, which ends when the
 *            token does. Over a swap what was verified stays verified; whom it speaks of is found
 *            anew in the model that is in force.
 * Units      Unix time in milliseconds for what tokens say; *_ns monotonic nanoseconds.
 * Ownership  struct dp_tokens owns its tokens' memory; a token has copies of all that it needs, but
 *            for what it borrows of the model that it was found in: whoever holds it pins that.
 * Threads    a worker's own.
 * Errors     outcomes of DP_TOKEN_OUTCOMES, counted in trilane_token_checks_total.
 * Source     docs/tokens.md; RFC 7519, RFC 8725.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"
#include "dataplane/apply/model.h"
#include "dataplane/request/claims.h"

struct dp_issuer_keys;
struct dp_token;
struct dp_token_hold;
struct dp_tokens;
struct metrics;
struct metrics_shard;
struct net_loop;

/* The token of a request has ended, or its key was withdrawn. Called once for a hold, which is
 * still held then; no other hold of the token may end inside of the call. */
typedef void dp_token_over_fn(struct dp_token_hold *hold, enum dp_token_outcome why);

struct dp_tokens_config {
    struct net_loop *loop; /* borrowed, as is all else; NULL: no timers, for tests of the table. */
    struct metrics *metrics;     /* NULL: nothing is counted. */
    struct metrics_shard *shard; /* the worker's. */
    dp_token_over_fn *over;
};

MUST_CHECK struct err dp_tokens_new(const struct dp_tokens_config *config, struct dp_tokens **out);

/* No token is held any more. NULL is fine. */
void dp_tokens_free(struct dp_tokens *t);

/* Another model is in force: whom tokens speak of is found anew. O(1). */
void dp_tokens_clear(struct dp_tokens *t);

/* Other keys are in force (takes the reference): tokens of a key that is gone end. */
void dp_tokens_keys(struct dp_tokens *t, struct dp_issuer_keys *keys);

/* What is asked. */
struct dp_token_query {
    const struct dp_model *model; /* in force. */
    struct slice token;           /* shaped like one. */
    struct slice peer;            /* the connection, as text. */
    struct dp_token *before;      /* that the request holds; NULL: none. What was verified for it is
                                     not verified again, nor counted against any bound. */
};

/* What is remembered of a token: false when it has to be checked. With DP_TOKEN_GOOD *out is
 * borrowed until the next call; a request that stands on it holds it. */
bool dp_tokens_known(struct dp_tokens *t, const struct dp_token_query *query,
                     enum dp_token_outcome *out_outcome, struct dp_token **out);

/* Checks a token that is not known, and remembers one that is good. 'digest' is of its bytes.
 * DP_TOKEN_LIMITED and DP_TOKEN_LIMITED_ADDRESS: *out_retry_ns says when to ask again. */
enum dp_token_outcome dp_tokens_check(struct dp_tokens *t, const struct dp_token_query *query,
                                      const uint8_t digest[DIGEST_SIZE], struct dp_token **out,
                                      uint64_t *out_retry_ns);

const struct dp_caller *dp_token_caller(const struct dp_token *token);

/* A request's hold of a token. All zeros: of none. */
struct dp_token_hold {
    struct dp_token *token;
    struct dp_token_hold *next; /* in a list of the token. */
    struct dp_token_hold **link;
};

/* Holds a token, in the place of the one that was held; NULL: of none. */
void dp_token_hold(struct dp_token_hold *hold, struct dp_token *token);
