/* token_table: which tokens are alive, who holds them, and how they end. See token_impl.h. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/jose/jwk.h"
#include "dataplane/request/issuer_keys.h"
#include "dataplane/request/token_impl.h"

enum {
    LOOK_MAX_MS = 30000, /* the wall clock is looked at so often: it may jump. */
    OVER_BATCH = 64,     /* requests that one turn ends. */
};

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

void dp_token_unref(struct dp_token *token)
{
    if (--token->refs == 0) {
        token_free(token);
    }
}

/* ---- the table ---- */

static struct dp_token **place_of(struct dp_tokens *t, uint64_t hash, size_t way)
{
    return &t->places[((size_t)hash & t->mask) ^ way];
}

bool dp_token_is_of(const struct dp_token *token, uint64_t hash, struct slice text)
{
    return token->hash == hash && token->facts.token.size == text.size &&
           sodium_memcmp(token->facts.token.ptr, text.ptr, text.size) == 0;
}

static void take_out(struct dp_tokens *t, const struct dp_token *token)
{
    for (size_t way = 0; way < DP_TOKEN_WAYS; way++) {
        struct dp_token **place = place_of(t, token->hash, way);
        if (*place == token) {
            dp_token_unref(*place);
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
    for (size_t way = 0; way < DP_TOKEN_WAYS; way++) {
        struct dp_token **place = place_of(t, token->hash, way);
        if (*place != NULL && dp_token_is_of(*place, token->hash, token->facts.token)) {
            to = place;
            break;
        }
        bool sooner = to == NULL ||
                      (*to != NULL &&
                       (*place == NULL || (*place)->facts.expires_ms < (*to)->facts.expires_ms));
        to = sooner ? place : to;
    }
    if (*to != NULL) {
        dp_token_unref(*to);
    }
    *to = token;
}

struct dp_token *dp_tokens_look_up(struct dp_tokens *t, uint64_t hash, struct slice text)
{
    for (size_t way = 0; way < DP_TOKEN_WAYS; way++) {
        struct dp_token *token = *place_of(t, hash, way);
        if (token != NULL && dp_token_is_of(token, hash, text)) {
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
    dp_token_unref(token);
}

void dp_tokens_put(struct dp_tokens *t, struct dp_token *token)
{
    net_timer_init(&token->timer, look, token);
    token->next = t->all;
    if (token->next != NULL) {
        token->next->prev = token;
    }
    t->all = token;
    put_in(t, token);
}

void dp_token_end(struct dp_token *token, enum dp_token_outcome why)
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
            dp_token_end(token, DP_TOKEN_WITHDRAWN);
        }
        token = next;
    }
}

void dp_token_hold(struct dp_token_hold *hold, struct dp_token *token)
{
    struct dp_token *before = hold->token;
    if (token != NULL) {
        token->refs++;
    }
    if (before != NULL) {
        unlink_hold(hold);
        dp_token_unref(before);
    }
    *hold = (struct dp_token_hold){.token = token};
    if (token != NULL) {
        link_hold(hold, &token->held);
        if (!net_timer_armed(&token->timer)) {
            arm(token);
        }
    }
}
