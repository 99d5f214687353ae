/* token: see token.h and token_impl.h. */
#include "dataplane/request/token.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/map.h"
#include "dataplane/request/issuer_keys.h"
#include "dataplane/request/metrics.h"
#include "dataplane/request/token_impl.h"

/* ---- making ---- */

static void make_counters(struct dp_tokens *t)
{
    for (int i = 0; t->config.metrics != NULL && i < DP_TOKEN_OUTCOME_COUNT; i++) {
        struct slice label = slice_str(dp_token_outcome_label((enum dp_token_outcome)i));
        t->counters[i] = metrics_series(t->config.metrics, DP_METRIC_TOKEN_CHECKS, &label);
    }
}

struct err dp_tokens_new(const struct dp_tokens_config *config, struct dp_tokens **out)
{
    size_t count = DP_TOKEN_WAYS;
    while (count < limits.token_entries) {
        count *= 2;
    }
    struct dp_tokens *t = calloc(1, sizeof(*t));
    struct dp_token **places = calloc(count, sizeof(struct dp_token *));
    if (t == NULL || places == NULL) {
        free(t);
        free(places);
        return FAIL(E_NO_MEMORY);
    }
    t->config = *config;
    t->places = places;
    t->mask = count - 1;
    make_counters(t);
    *out = t;
    return OK;
}

void dp_tokens_free(struct dp_tokens *t)
{
    if (t == NULL) {
        return;
    }
    for (size_t i = 0; i <= t->mask; i++) {
        if (t->places[i] != NULL) {
            dp_token_unref(t->places[i]);
        }
    }
    CHECK(t->all == NULL);
    dp_issuer_keys_unref(t->keys);
    sodium_memzero(&t->room, sizeof(t->room));
    free(t->places);
    free(t);
}

void dp_tokens_clear(struct dp_tokens *t)
{
    t->epoch++;
}

const struct dp_caller *dp_token_caller(const struct dp_token *token)
{
    return &token->caller;
}

/* ---- finding ---- */

/* What is remembered: under the model in force, or under one before, whose Issuer said the same.
 * False: it has to be checked. */
static bool remembered(struct dp_tokens *t, const struct dp_token_query *query,
                       struct dp_token *token, enum dp_token_outcome *outcome,
                       struct dp_token **out)
{
    if (token->ended == DP_TOKEN_GOOD && clock_wall_ms() >= token->facts.expires_ms) {
        dp_token_end(token, DP_TOKEN_EXPIRED);
        *outcome = DP_TOKEN_EXPIRED;
        return true;
    }
    if (token->ended != DP_TOKEN_GOOD) {
        *outcome = token->ended;
        return true;
    }
    if (token->epoch == t->epoch) {
        *out = token;
        *outcome = DP_TOKEN_GOOD;
        return true;
    }
    const struct dp_issuer *issuer = dp_model_issuer(query->model, token->facts.issuer);
    if (issuer == NULL || memcmp(issuer->digest, token->facts.rules, DIGEST_SIZE) != 0) {
        return false;
    }
    *outcome = dp_token_settle(t, query->model, token->hash, &token->facts, issuer, out);
    return true;
}

static void count(struct dp_tokens *t, enum dp_token_outcome outcome)
{
    if (t->config.metrics != NULL) {
        metrics_add(t->config.shard, t->counters[outcome], 1);
    }
}

bool dp_tokens_known(struct dp_tokens *t, const struct dp_token_query *query,
                     enum dp_token_outcome *out_outcome, struct dp_token **out)
{
    uint64_t hash = map_hash(query->token);
    struct dp_token *token = dp_tokens_look_up(t, hash, query->token);
    if (token == NULL && query->before != NULL &&
        dp_token_is_of(query->before, hash, query->token)) {
        token = query->before;
    }
    if (token == NULL || !remembered(t, query, token, out_outcome, out)) {
        return false;
    }
    if (*out_outcome != DP_TOKEN_GOOD) {
        count(t, *out_outcome);
    }
    return true;
}

static enum dp_token_outcome check(struct dp_tokens *t, const struct dp_token_query *query,
                                   const uint8_t digest[DIGEST_SIZE], struct dp_token **out)
{
    struct dp_token_facts facts;
    const struct dp_issuer *issuer = NULL;
    enum dp_token_outcome outcome = dp_token_verify(t, query, digest, &facts, &issuer);
    return outcome != DP_TOKEN_GOOD
               ? outcome
               : dp_token_settle(t, query->model, map_hash(query->token), &facts, issuer, out);
}

enum dp_token_outcome dp_tokens_check(struct dp_tokens *t, const struct dp_token_query *query,
                                      const uint8_t digest[DIGEST_SIZE], struct dp_token **out,
                                      uint64_t *out_retry_ns)
{
    enum dp_token_outcome outcome = DP_TOKEN_GOOD;
    uint64_t began_ns = clock_mono_ns();
    if (query->before == NULL) {
        outcome = dp_token_bounds_ask(&t->bounds, query->peer, began_ns, out_retry_ns);
    }
    if (outcome == DP_TOKEN_GOOD) {
        uint64_t before_ns = clock_thread_ns();
        outcome = check(t, query, digest, out);
        dp_token_bounds_charge(&t->bounds, query->peer, began_ns, clock_thread_ns() - before_ns,
                               outcome);
    }
    count(t, outcome);
    return outcome;
}
