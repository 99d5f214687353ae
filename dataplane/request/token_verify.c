/* token_verify: whether a token is good: its form, its key, its signature and its claims. See
 * token_impl.h. */
#include <string.h>

#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/jose/jwk.h"
#include "dataplane/request/issuer_keys.h"
#include "dataplane/request/token_impl.h"

static bool is_fresh(const struct dp_issuer *issuer, const struct dp_issuer_keys_row *row,
                     int64_t now_ms)
{
    return issuer->max_stale_ms == 0 || now_ms - row->read_ms <= (int64_t)issuer->max_stale_ms;
}

/* Where the keys of an Issuer that says a URL are; NULL: they are not there, or stand in the part.
 */
static struct dp_issuer_keys_row *row_of(struct dp_tokens *t, const struct dp_issuer *issuer)
{
    return issuer->keys != NULL ? NULL : dp_issuer_keys_find(t->keys, issuer->source);
}

/* Has the keys be read anew, as soon as the issuer may be asked. */
static void miss(struct dp_issuer_keys_row *row)
{
    atomic_store_explicit(&row->missed, true, memory_order_relaxed);
}

/* The key of a token. One that is missed is asked for: until the answer is there, which may be that
 * there is none, the caller is told to come again. */
static enum dp_token_outcome find_key(struct dp_tokens *t, const struct dp_issuer *issuer,
                                      const struct jwt *jwt, int64_t now_ms,
                                      const struct jose_key **out)
{
    struct dp_issuer_keys_row *row = row_of(t, issuer);
    const struct jose_keys *keys = issuer->keys != NULL ? issuer->keys
                                   : row == NULL        ? NULL
                                                        : row->keys;
    if (keys == NULL || (row != NULL && !is_fresh(issuer, row, now_ms))) {
        return DP_TOKEN_KEYS;
    }
    *out = jose_keys_find(keys, jwt->kid, jwt->alg);
    if (*out != NULL) {
        return DP_TOKEN_GOOD;
    }
    if (row == NULL) {
        return DP_TOKEN_KID;
    }
    miss(row);
    bool just_read = now_ms - row->read_ms < (int64_t)limits.issuer_rest_ms;
    return just_read ? DP_TOKEN_KID : DP_TOKEN_KEYS;
}

static enum dp_token_outcome read_token(struct dp_tokens *t, struct slice token, struct jwt *out)
{
    struct err e = jwt_read(token, &t->room, out);
    return err_ok(e)                 ? DP_TOKEN_GOOD
           : e.code == E_UNSUPPORTED ? DP_TOKEN_UNSUPPORTED
                                     : DP_TOKEN_MALFORMED;
}

/* All that can be said without a model: cheap questions first. */
static enum dp_token_outcome verify_by(struct dp_tokens *t, const struct jwt *jwt,
                                       const struct dp_issuer *issuer, struct dp_token_facts *facts)
{
    const struct jose_key *key = NULL;
    int64_t now_ms = clock_wall_ms();
    if ((issuer->algorithms >> (unsigned)jwt->alg & 1) == 0) {
        return DP_TOKEN_ALGORITHM;
    }
    enum dp_token_outcome outcome = dp_claims_hold(jwt->claims, issuer, now_ms, &facts->expires_ms);
    if (outcome == DP_TOKEN_GOOD) {
        outcome = find_key(t, issuer, jwt, now_ms, &key);
    }
    if (outcome != DP_TOKEN_GOOD) {
        return outcome;
    }
    struct err e = jwt_verify(jwt, key);
    if (e.code == E_NO_MEMORY) {
        return DP_TOKEN_MEMORY;
    }
    if (!err_ok(e)) {
        struct dp_issuer_keys_row *row = row_of(t, issuer);
        if (row != NULL) {
            miss(row); /* another key may have come, which has that name, or none either. */
        }
        return DP_TOKEN_SIGNATURE;
    }
    memcpy(facts->key, key->print, DIGEST_SIZE);
    return dp_claims_read(jwt->claims, issuer, &t->claims_room, &facts->claims);
}

enum dp_token_outcome dp_token_verify(struct dp_tokens *t, const struct dp_token_query *query,
                                      const uint8_t digest[DIGEST_SIZE],
                                      struct dp_token_facts *facts,
                                      const struct dp_issuer **out_issuer)
{
    struct jwt jwt;
    *facts = (struct dp_token_facts){.token = query->token};
    enum dp_token_outcome outcome = read_token(t, query->token, &jwt);
    if (outcome != DP_TOKEN_GOOD) {
        return outcome;
    }
    const struct dp_issuer *issuer = json_doc_text(jwt.claims, SLICE_LIT("iss"), &facts->issuer)
                                         ? dp_model_issuer(query->model, facts->issuer)
                                         : NULL;
    if (issuer == NULL) {
        return DP_TOKEN_ISSUER;
    }
    memcpy(facts->digest, digest, DIGEST_SIZE);
    memcpy(facts->source, issuer->source, DIGEST_SIZE);
    memcpy(facts->rules, issuer->digest, DIGEST_SIZE);
    facts->fetched = issuer->keys == NULL;
    *out_issuer = issuer;
    return verify_by(t, &jwt, issuer, facts);
}
