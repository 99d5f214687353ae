/*
 * token_impl: what the parts of the tokens share. See token.h.
 *
 *     token.c          what is asked, in order; makes and counts
 *     token_table.c    which tokens are alive: finding them, holds, and their ends
 *     token_verify.c   whether a token is good: its form, key, signature and claims
 *     token_settle.c   whom one that is good speaks of in a model
 *     token_bounds.c   how much of all that callers may ask for
 */
#pragma once

#include "common/jose/jwt.h"
#include "common/net/timer.h"
#include "dataplane/request/policy.h"
#include "dataplane/request/token.h"
#include "dataplane/request/token_bounds.h"

/* What is known of a token that was verified; texts are behind the token. */
struct dp_token_facts {
    struct slice token;
    struct slice issuer; /* claim iss. */
    struct dp_claims claims;
    int64_t expires_ms;
    uint8_t digest[DIGEST_SIZE]; /* of the token. */
    uint8_t key[DIGEST_SIZE];    /* of the key that verified it. */
    uint8_t source[DIGEST_SIZE]; /* of its Issuer; as struct dp_issuer has both. */
    uint8_t rules[DIGEST_SIZE];
    bool fetched; /* its keys come from a URL. */
};

struct dp_token {
    struct dp_tokens *owner;
    struct dp_token *next; /* of all that are alive. */
    struct dp_token *prev;
    size_t refs; /* holds, and one of the table. */
    uint64_t hash;
    uint64_t epoch;              /* of the model that 'caller' is of. */
    enum dp_token_outcome ended; /* DP_TOKEN_GOOD: it has not. */
    struct dp_token_facts facts;
    struct dp_caller caller;
    struct net_timer timer;     /* looks for the end while somebody holds it. */
    struct dp_token_hold *held; /* by requests that go on; */
    struct dp_token_hold *told; /* by those that were told of the end. */
    struct dp_trait traits[];   /* of the caller, and behind them all text. */
};

enum { DP_TOKEN_WAYS = 2 }; /* places of a hash. */

struct dp_tokens {
    struct dp_tokens_config config;
    struct dp_token **places; /* mask + 1 of them; NULL: free. */
    size_t mask;
    struct dp_token *all;
    uint64_t epoch;
    struct dp_issuer_keys *keys; /* a reference; NULL: none were read yet. */
    struct dp_token_bounds bounds;
    struct jwt_room room;
    struct dp_claims_room claims_room;
    uint32_t counters[DP_TOKEN_OUTCOME_COUNT]; /* metrics_id of each. */
};

/* ---- token_table.c ---- */

bool dp_token_is_of(const struct dp_token *token, uint64_t hash, struct slice text);
struct dp_token *dp_tokens_look_up(struct dp_tokens *t, uint64_t hash, struct slice text);

/* Puts one that was made, whose reference is the table's, among those that are alive. */
void dp_tokens_put(struct dp_tokens *t, struct dp_token *token);

/* It is in the table no more, and those who hold it are told. */
void dp_token_end(struct dp_token *token, enum dp_token_outcome why);
void dp_token_unref(struct dp_token *token);

/* ---- token_verify.c ---- */

/* Whether a token is good, whomever it speaks of; then *facts and *out_issuer are set. */
enum dp_token_outcome dp_token_verify(struct dp_tokens *t, const struct dp_token_query *query,
                                      const uint8_t digest[DIGEST_SIZE],
                                      struct dp_token_facts *facts,
                                      const struct dp_issuer **out_issuer);

/* ---- token_settle.c ---- */

/* Makes the token of facts, for whom they speak of in a model, and puts it into the table. */
enum dp_token_outcome dp_token_settle(struct dp_tokens *t, const struct dp_model *model,
                                      uint64_t hash, const struct dp_token_facts *facts,
                                      const struct dp_issuer *issuer, struct dp_token **out);
