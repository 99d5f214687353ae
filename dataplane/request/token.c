/* token: see token.h. */
#include "dataplane/request/token.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/limits.h"
#include "common/base/map.h"
#include "common/jose/jwk.h"
#include "common/jose/jwt.h"
#include "common/net/timer.h"
#include "dataplane/request/issuer_keys.h"
#include "dataplane/request/metrics.h"
#include "dataplane/request/policy.h"

enum {
    WAYS = 2,            /* places of a hash. */
    PEERS = 1024,        /* cells of those who failed; some connections share one. */
    LOOK_MAX_MS = 30000, /* the wall clock is looked at so often: it may jump. */
    OVER_BATCH = 64,     /* requests that one turn ends. */
    BURST_NS = 100000000,
};

#define NS_PER_S UINT64_C(1000000000)

/* What is known of a token that was verified; texts are behind the token. */
struct facts {
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
    struct facts facts;
    struct dp_caller caller;
    struct net_timer timer;     /* looks for the end while somebody holds it. */
    struct dp_token_hold *held; /* by requests that go on; */
    struct dp_token_hold *told; /* by those that were told of the end. */
    struct dp_trait traits[];   /* of the caller, and behind them all text. */
};

struct dp_tokens {
    struct dp_tokens_config config;
    struct dp_token **places; /* mask + 1 of them; NULL: free. */
    size_t mask;
    struct dp_token *all;
    uint64_t epoch;
    struct dp_issuer_keys *keys; /* a reference; NULL: none were read yet. */
    uint64_t busy_until_ns;      /* all checks so far, as if each took its share of time. */
    uint64_t failed_until_ns[PEERS];
    struct jwt_room room;
    struct dp_claims_room claims_room;
    uint32_t counters[DP_TOKEN_OUTCOME_COUNT]; /* metrics_id of each. */
};

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
    size_t count = WAYS;
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

static void token_free(struct dp_token *token)
{
    struct dp_tokens *t = token->owner;
    CHECK(token->held == NULL && token->told == NULL);
    if (t->config.loop != NULL) {
        net_timer_cancel(t->config.loop, &token->timer);
    }
    if (token->prev == NULL) {
        t->all = token->next;
    } else {
        token->prev->next = token->next;
    }
    if (token->next != NULL) {
        token->next->prev = token->prev;
    }
    struct slice text = token->facts.token; /* whoever reads it may be its bearer. */
    sodium_memzero((uint8_t *)token + (text.ptr - (const uint8_t *)token), text.size);
    free(token);
}

static void token_unref(struct dp_token *token)
{
    if (--token->refs == 0) {
        token_free(token);
    }
}

void dp_tokens_free(struct dp_tokens *t)
{
    if (t == NULL) {
        return;
    }
    for (size_t i = 0; i <= t->mask; i++) {
        if (t->places[i] != NULL) {
            token_unref(t->places[i]);
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

/* ---- the table ---- */

static struct dp_token **place_of(struct dp_tokens *t, uint64_t hash, size_t way)
{
    return &t->places[((size_t)hash & t->mask) ^ way];
}

static bool is_of(const struct dp_token *token, uint64_t hash, struct slice text)
{
    return token->hash == hash && token->facts.token.size == text.size &&
           sodium_memcmp(token->facts.token.ptr, text.ptr, text.size) == 0;
}

static void take_out(struct dp_tokens *t, const struct dp_token *token)
{
    for (size_t way = 0; way < WAYS; way++) {
        struct dp_token **place = place_of(t, token->hash, way);
        if (*place == token) {
            token_unref(*place);
            *place = NULL;
            return;
        }
    }
}

/* In the place of the same one, else in a free place of its hash, else in that of the one that ends
 * first. */
static void put_in(struct dp_tokens *t, struct dp_token *token)
{
    struct dp_token **to = NULL;
    for (size_t way = 0; way < WAYS; way++) {
        struct dp_token **place = place_of(t, token->hash, way);
        if (*place != NULL && is_of(*place, token->hash, token->facts.token)) {
            to = place;
            break;
        }
        bool sooner = to == NULL ||
                      (*to != NULL &&
                       (*place == NULL || (*place)->facts.expires_ms < (*to)->facts.expires_ms));
        to = sooner ? place : to;
    }
    if (*to != NULL) {
        token_unref(*to);
    }
    *to = token;
}

static struct dp_token *look_up(struct dp_tokens *t, uint64_t hash, struct slice text)
{
    for (size_t way = 0; way < WAYS; way++) {
        struct dp_token *token = *place_of(t, hash, way);
        if (token != NULL && is_of(token, hash, text)) {
            return token;
        }
    }
    return NULL;
}

/* ---- ends ---- */

static void unlink_hold(struct dp_token_hold *hold)
{
    *hold->link = hold->next;
    if (hold->next != NULL) {
        hold->next->link = hold->link;
    }
}

static void link_hold(struct dp_token_hold *hold, struct dp_token_hold **list)
{
    hold->next = *list;
    hold->link = list;
    if (hold->next != NULL) {
        hold->next->link = &hold->next;
    }
    *list = hold;
}

/* Looks again when the token ends, or soon enough to see that the clock was moved. */
static void arm(struct dp_token *token)
{
    int64_t left_ms = token->ended != DP_TOKEN_GOOD ? 0 : token->facts.expires_ms - clock_wall_ms();
    left_ms = left_ms < 1 ? 1 : left_ms > LOOK_MAX_MS ? LOOK_MAX_MS : left_ms;
    if (token->owner->config.loop != NULL) {
        net_timer_arm(token->owner->config.loop, &token->timer, (uint64_t)left_ms);
    }
}

/* Tells those who hold it, a bounded number a turn. */
static void tell(struct dp_token *token)
{
    for (size_t i = 0; i < OVER_BATCH && token->held != NULL; i++) {
        struct dp_token_hold *hold = token->held;
        unlink_hold(hold);
        link_hold(hold, &token->told);
        token->owner->config.over(hold, token->ended);
    }
}

static void look(struct net_timer *timer, void *ctx)
{
    (void)timer;
    struct dp_token *token = ctx;
    token->refs++; /* the last request may let go of it. */
    if (token->ended == DP_TOKEN_GOOD && clock_wall_ms() >= token->facts.expires_ms) {
        token->ended = DP_TOKEN_EXPIRED;
    }
    if (token->ended != DP_TOKEN_GOOD) {
        tell(token);
    }
    if (token->held != NULL) {
        arm(token);
    }
    token_unref(token);
}

static void end(struct dp_token *token, enum dp_token_outcome why)
{
    token->ended = why;
    if (token->held != NULL) {
        arm(token);
    }
    take_out(token->owner, token);
}

void dp_tokens_keys(struct dp_tokens *t, struct dp_issuer_keys *keys)
{
    dp_issuer_keys_unref(t->keys);
    t->keys = keys;
    for (struct dp_token *token = t->all; token != NULL;) {
        struct dp_token *next = token->next; /* its end may be that of its memory. */
        const struct dp_issuer_keys_row *row = dp_issuer_keys_find(keys, token->facts.source);
        bool withdrawn = token->facts.fetched && row != NULL && row->keys != NULL &&
                         !jose_keys_has(row->keys, token->facts.key);
        if (withdrawn && token->ended == DP_TOKEN_GOOD) {
            end(token, DP_TOKEN_WITHDRAWN);
        }
        token = next;
    }
}

const struct dp_caller *dp_token_caller(const struct dp_token *token)
{
    return &token->caller;
}

void dp_token_hold(struct dp_token_hold *hold, struct dp_token *token)
{
    struct dp_token *before = hold->token;
    if (token != NULL) {
        token->refs++;
    }
    if (before != NULL) {
        unlink_hold(hold);
        token_unref(before);
    }
    *hold = (struct dp_token_hold){.token = token};
    if (token != NULL) {
        link_hold(hold, &token->held);
        if (!net_timer_armed(&token->timer)) {
            arm(token);
        }
    }
}

/* ---- from facts to a caller ---- */

/* Puts text behind what was put there before. */
struct writer {
    uint8_t *at;
};

static struct slice write_text(struct writer *w, struct slice text)
{
    if (text.size > 0) {
        memcpy(w->at, text.ptr, text.size);
    }
    struct slice written = slice_of(w->at, text.size);
    w->at += text.size;
    return written;
}

static struct slice write_joined(struct writer *w, const struct slice *pieces, size_t count)
{
    struct slice whole = slice_of(w->at, 0);
    for (size_t i = 0; i < count; i++) {
        whole.size += write_text(w, pieces[i]).size;
    }
    return whole;
}

enum { ID_PIECES = 5, NAME_PIECES = 3 };

/* What a token of these facts needs behind its struct. */
static size_t size_of(const struct facts *facts, const struct dp_issuer *issuer,
                      const struct dp_caller *service)
{
    size_t traits = facts->claims.trait_count + (service == NULL ? 0 : service->trait_count);
    /* The traits of the token are there twice: as facts, and among the caller's. */
    size_t size = (traits + facts->claims.trait_count) * sizeof(struct dp_trait);
    for (size_t i = 0; i < facts->claims.trait_count; i++) {
        size += facts->claims.traits[i].name.size + facts->claims.traits[i].value.size;
    }
    size += facts->token.size + facts->issuer.size + facts->claims.subject.size +
            facts->claims.tenant.size + facts->claims.service.size;
    size += facts->claims.tenant.size + issuer->name.size + facts->claims.subject.size + 2;
    return size + facts->issuer.size + facts->claims.subject.size + 1;
}

static void copy_facts(struct dp_token *token, const struct facts *facts, struct dp_trait *traits,
                       struct writer *w)
{
    struct facts *to = &token->facts;
    *to = *facts;
    for (size_t i = 0; i < facts->claims.trait_count; i++) {
        traits[i].name = write_text(w, facts->claims.traits[i].name);
        traits[i].value = write_text(w, facts->claims.traits[i].value);
    }
    to->claims.traits = traits;
    to->token = write_text(w, facts->token);
    to->issuer = write_text(w, facts->issuer);
    to->claims.subject = write_text(w, facts->claims.subject);
    to->claims.tenant = write_text(w, facts->claims.tenant);
    to->claims.service = write_text(w, facts->claims.service);
}

/* The Service's own traits stand before those that a token claims for it. */
static void merge_traits(struct dp_token *token, const struct dp_caller *service)
{
    struct dp_caller *caller = &token->caller;
    struct dp_caller own = {.traits = token->traits};
    for (size_t i = 0; service != NULL && i < service->trait_count; i++) {
        token->traits[own.trait_count++] = service->traits[i];
    }
    size_t count = own.trait_count;
    for (size_t i = 0; i < token->facts.claims.trait_count; i++) {
        struct slice ignored = {0};
        if (!dp_caller_trait(&own, token->facts.claims.traits[i].name, &ignored)) {
            token->traits[count++] = token->facts.claims.traits[i];
        }
    }
    caller->traits = token->traits;
    caller->trait_count = count;
}

static void name_caller(struct dp_token *token, const struct dp_issuer *issuer,
                        const struct dp_caller *service, struct writer *w)
{
    const struct facts *f = &token->facts;
    struct dp_caller *caller = &token->caller;
    if (service != NULL) {
        *caller = *service;
        caller->counted_as = service;
    } else {
        const struct slice id[ID_PIECES] = {f->claims.tenant, SLICE_LIT("/"), issuer->name,
                                            SLICE_LIT("#"), f->claims.subject};
        const struct slice name[NAME_PIECES] = {f->issuer, SLICE_LIT("#"), f->claims.subject};
        *caller = (struct dp_caller){.tenant = f->claims.tenant, .counted_as = &issuer->counted};
        caller->id = write_joined(w, id, ID_PIECES);
        caller->spiffe = write_joined(w, name, NAME_PIECES);
    }
    caller->domain = issuer->trust_domain;
    merge_traits(token, service);
}

/* Makes the token and puts it into the table. */
static struct dp_token *make(struct dp_tokens *t, uint64_t hash, const struct facts *facts,
                             const struct dp_issuer *issuer, const struct dp_caller *service)
{
    struct dp_token *token = calloc(1, sizeof(*token) + size_of(facts, issuer, service));
    if (token == NULL) {
        return NULL;
    }
    size_t traits = facts->claims.trait_count + (service == NULL ? 0 : service->trait_count);
    struct dp_trait *own = &token->traits[traits];
    struct writer w = {.at = (uint8_t *)(own + facts->claims.trait_count)};
    token->owner = t;
    token->refs = 1;
    token->hash = hash;
    token->epoch = t->epoch;
    copy_facts(token, facts, own, &w);
    name_caller(token, issuer, service, &w);
    net_timer_init(&token->timer, look, token);
    token->next = t->all;
    if (token->next != NULL) {
        token->next->prev = token;
    }
    t->all = token;
    put_in(t, token);
    return token;
}

static bool is_revoked(const struct dp_model *model, const struct facts *facts,
                       const struct dp_caller *service)
{
    uint8_t room[DP_CLAIM_ISSUER_MAX + 1 + DP_CLAIM_SUBJECT_MAX];
    struct writer w = {.at = room};
    const struct slice pieces[NAME_PIECES] = {facts->issuer, SLICE_LIT("#"), facts->claims.subject};
    if (dp_model_token_revoked(model, facts->digest) ||
        (service != NULL && dp_model_spiffe_revoked(model, service->spiffe))) {
        return true;
    }
    CHECK(facts->issuer.size + 1 + facts->claims.subject.size <= sizeof(room));
    return dp_model_subject_revoked(model, write_joined(&w, pieces, NAME_PIECES));
}

/* Whom a verified token speaks of in a model. */
static enum dp_token_outcome settle(struct dp_tokens *t, const struct dp_model *model,
                                    uint64_t hash, const struct facts *facts,
                                    const struct dp_issuer *issuer, struct dp_token **out)
{
    uint8_t room[64 + 64];
    struct writer w = {.at = room};
    const struct dp_claims *claims = &facts->claims;
    const struct dp_caller *service = NULL;
    if (!dp_model_has_tenant(model, claims->tenant)) {
        return DP_TOKEN_TENANT;
    }
    if (claims->service.size > 0) {
        const struct slice pieces[] = {claims->tenant, SLICE_LIT("/"), claims->service};
        if (claims->tenant.size + 1 + claims->service.size <= sizeof(room)) {
            service = dp_model_service(model, write_joined(&w, pieces, 3));
        }
        if (service == NULL) {
            return DP_TOKEN_SERVICE;
        }
    }
    if (is_revoked(model, facts, service)) {
        return DP_TOKEN_REVOKED;
    }
    struct dp_token *token = make(t, hash, facts, issuer, service);
    if (token == NULL) {
        return DP_TOKEN_MEMORY;
    }
    *out = token;
    return DP_TOKEN_GOOD;
}

/* ---- bounds ---- */

static uint64_t *peer_cell(struct dp_tokens *t, struct slice peer)
{
    return &t->failed_until_ns[map_hash(peer) % PEERS];
}

/* Whether a token that is not known may be looked at now; else when. */
static bool may_check(struct dp_tokens *t, struct slice peer, uint64_t now_ns,
                      uint64_t *out_retry_ns)
{
    uint64_t failed_ns = *peer_cell(t, peer);
    uint64_t free_ns = failed_ns > NS_PER_S ? failed_ns - NS_PER_S : 0; /* a second's at once. */
    if (t->busy_until_ns > BURST_NS && t->busy_until_ns - BURST_NS > free_ns) {
        free_ns = t->busy_until_ns - BURST_NS;
    }
    *out_retry_ns = free_ns > now_ns ? free_ns - now_ns : 0;
    return free_ns <= now_ns;
}

/* Those failures that a bearer of an honest token meets are no sign of an attack. */
static bool is_suspicious(enum dp_token_outcome outcome)
{
    return outcome != DP_TOKEN_GOOD && outcome != DP_TOKEN_EXPIRED && outcome != DP_TOKEN_EARLY &&
           outcome != DP_TOKEN_KEYS && outcome != DP_TOKEN_MEMORY;
}

/* 'spent_ns' is the worker's own time: it does not pay for who took the core from it. */
static void charge(struct dp_tokens *t, struct slice peer, uint64_t began_ns, uint64_t spent_ns,
                   enum dp_token_outcome outcome)
{
    uint64_t from_ns = t->busy_until_ns > began_ns ? t->busy_until_ns : began_ns;
    t->busy_until_ns = from_ns + spent_ns * 100 / limits.token_check_percent;
    if (is_suspicious(outcome)) {
        uint64_t *cell = peer_cell(t, peer);
        *cell = (*cell > began_ns ? *cell : began_ns) + NS_PER_S / limits.token_failures_per_second;
    }
}

/* ---- verifying ---- */

static bool is_fresh(const struct dp_issuer *issuer, const struct dp_issuer_keys_row *row,
                     int64_t now_ms)
{
    return issuer->max_stale_ms == 0 || now_ms - row->read_ms <= (int64_t)issuer->max_stale_ms;
}

/* The key of a token. One that is missed is asked for: until the answer is there, which may be that
 * there is none, the caller is told to come again. */
static enum dp_token_outcome find_key(struct dp_tokens *t, const struct dp_issuer *issuer,
                                      const struct jwt *jwt, int64_t now_ms,
                                      const struct jose_key **out)
{
    struct dp_issuer_keys_row *row =
        issuer->keys != NULL ? NULL : dp_issuer_keys_find(t->keys, issuer->source);
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
    atomic_store_explicit(&row->missed, true, memory_order_relaxed);
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
static enum dp_token_outcome verify(struct dp_tokens *t, const struct jwt *jwt,
                                    const struct dp_issuer *issuer, struct facts *facts)
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
    if (!err_ok(e)) {
        return e.code == E_NO_MEMORY ? DP_TOKEN_MEMORY : DP_TOKEN_SIGNATURE;
    }
    memcpy(facts->key, key->print, DIGEST_SIZE);
    return dp_claims_read(jwt->claims, issuer, &t->claims_room, &facts->claims);
}

static enum dp_token_outcome check(struct dp_tokens *t, const struct dp_token_query *query,
                                   const uint8_t digest[DIGEST_SIZE], struct dp_token **out)
{
    struct jwt jwt;
    struct facts facts = {.token = query->token};
    enum dp_token_outcome outcome = read_token(t, query->token, &jwt);
    if (outcome != DP_TOKEN_GOOD) {
        return outcome;
    }
    const struct dp_issuer *issuer = json_doc_text(jwt.claims, SLICE_LIT("iss"), &facts.issuer)
                                         ? dp_model_issuer(query->model, facts.issuer)
                                         : NULL;
    if (issuer == NULL) {
        return DP_TOKEN_ISSUER;
    }
    memcpy(facts.digest, digest, DIGEST_SIZE);
    memcpy(facts.source, issuer->source, DIGEST_SIZE);
    memcpy(facts.rules, issuer->digest, DIGEST_SIZE);
    facts.fetched = issuer->keys == NULL;
    outcome = verify(t, &jwt, issuer, &facts);
    return outcome != DP_TOKEN_GOOD
               ? outcome
               : settle(t, query->model, map_hash(query->token), &facts, issuer, out);
}

/* ---- finding ---- */

/* What is remembered: under the model in force, or under one before, whose Issuer said the same.
 * False: it has to be checked. */
static bool remembered(struct dp_tokens *t, const struct dp_token_query *query,
                       struct dp_token *token, enum dp_token_outcome *outcome,
                       struct dp_token **out)
{
    if (token->ended == DP_TOKEN_GOOD && clock_wall_ms() >= token->facts.expires_ms) {
        end(token, DP_TOKEN_EXPIRED);
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
    *outcome = settle(t, query->model, token->hash, &token->facts, issuer, out);
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
    struct dp_token *token = look_up(t, hash, query->token);
    if (token == NULL && query->before != NULL && is_of(query->before, hash, query->token)) {
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

enum dp_token_outcome dp_tokens_check(struct dp_tokens *t, const struct dp_token_query *query,
                                      const uint8_t digest[DIGEST_SIZE], struct dp_token **out,
                                      uint64_t *out_retry_ns)
{
    enum dp_token_outcome outcome = DP_TOKEN_LIMITED;
    uint64_t began_ns = clock_mono_ns();
    if (query->before != NULL || may_check(t, query->peer, began_ns, out_retry_ns)) {
        uint64_t before_ns = clock_thread_ns();
        outcome = check(t, query, digest, out);
        charge(t, query->peer, began_ns, clock_thread_ns() - before_ns, outcome);
    }
    count(t, outcome);
    return outcome;
}
