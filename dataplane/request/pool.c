/*
 * The pool of a worker's requests, and the generations of models that they stand on.
 *
 * A request counts on its generation with a plain add; nothing on its way is atomic. After a swap
 * the open requests of older generations are decided anew, REDECIDE_NS long in each millisecond, so
 * that no turn of the loop is long and an old model is soon free.
 */
#include "dataplane/request/pool.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/limits.h"
#include "common/base/scope.h"
#include "dataplane/request/identity.h"
#include "dataplane/request/metrics.h"

enum { ARENA_BLOCK = 4096, FREE_MAX = 1024 };

/* Half of what a swap may take of a turn: the last one decided may end, which takes longer. */
#define REDECIDE_NS UINT64_C(50000)

struct dp_generation {
    struct dp_model *model; /* owned reference. */
    struct dp_generation *next;
    size_t pins; /* requests, and one of the pool for the generation in force. */
};

static void redecide_some(struct net_timer *timer, void *ctx);

struct err dp_request_pool_init(struct dp_request_pool *pool, struct net_loop *loop,
                                struct dp_limit_table *limit_table,
                                struct dp_access_log *access_log,
                                struct dp_request_metrics *metrics)
{
    struct dp_policy_cache *decisions = NULL;
    struct dp_identity_memo *identities = NULL;
    TRY(dp_policy_cache_new(limits.decision_cache_entries, limits.decision_ttl_ms, &decisions));
    const struct dp_tokens_config tokens = {.loop = loop,
                                            .metrics = dp_request_metrics_set(metrics),
                                            .shard = dp_request_metrics_shard(metrics),
                                            .over = dp_request_token_over};
    struct err err = dp_identity_memo_new(&tokens, &identities);
    if (!err_ok(err)) {
        dp_policy_cache_free(decisions);
        return err;
    }
    *pool = (struct dp_request_pool){.loop = loop,
                                     .decisions = decisions,
                                     .identities = identities,
                                     .limits = limit_table,
                                     .access_log = access_log,
                                     .metrics = metrics};
    net_timer_init(&pool->redecide_timer, redecide_some, pool);
    return OK;
}

static void unpin(struct dp_request_pool *pool, struct dp_generation *generation)
{
    CHECK(generation->pins > 0);
    if (--generation->pins > 0) {
        return;
    }
    struct dp_generation **at = &pool->generations;
    while (*at != generation) {
        at = &(*at)->next;
    }
    *at = generation->next;
    dp_model_unref(generation->model);
    free(pool->generation_spare);
    pool->generation_spare = generation;
}

void dp_request_pool_free(struct dp_request_pool *pool)
{
    CHECK(pool->open == NULL);
    net_timer_cancel(pool->loop, &pool->redecide_timer);
    while (pool->free != NULL) {
        struct dp_request *rq = pool->free;
        pool->free = rq->open_next;
        arena_free(&rq->arena);
        free(rq);
    }
    if (pool->generation != NULL) {
        unpin(pool, pool->generation);
    }
    CHECK(pool->generations == NULL);
    free(pool->generation_spare);
    dp_policy_cache_free(pool->decisions);
    dp_identity_memo_free(pool->identities);
}

void dp_request_pool_adopt(struct dp_request_pool *pool, struct dp_model *model)
{
    CHECK(model != NULL);
    struct dp_generation *generation = TAKE_PTR(pool->generation_spare);
    if (generation == NULL) {
        generation = malloc(sizeof(*generation));
        CHECK(generation != NULL);
    }
    *generation = (struct dp_generation){.model = model, .pins = 1, .next = pool->generations};
    pool->generations = generation;
    struct dp_generation *before = pool->generation;
    pool->generation = generation;
    dp_policy_cache_clear(pool->decisions);
    dp_guard_set(&pool->guard, &dp_model_environment(model)->guardrails);
    dp_identity_memo_clear(pool->identities);
    dp_request_metrics_clear(pool->metrics);
    pool->overload.target_ns = (uint64_t)dp_model_environment(model)->queue_delay_ms * 1000000;
    if (before != NULL) {
        unpin(pool, before);
    }
    pool->redecide_at = pool->open;
    if (pool->open != NULL) {
        net_timer_arm(pool->loop, &pool->redecide_timer, 1);
    }
}

const struct dp_model *dp_request_pool_model(const struct dp_request_pool *pool)
{
    return pool->generation == NULL ? NULL : pool->generation->model;
}

size_t dp_request_pool_generations(const struct dp_request_pool *pool)
{
    size_t count = 0;
    for (const struct dp_generation *g = pool->generations; g != NULL; g = g->next) {
        count++;
    }
    return count;
}

void dp_request_pool_keys(struct dp_request_pool *pool, struct dp_issuer_keys *keys)
{
    dp_tokens_keys(dp_identity_memo_tokens(pool->identities), keys);
}

void dp_request_pool_drain(struct dp_request_pool *pool)
{
    pool->draining = true;
}

void dp_request_pool_set_stale(struct dp_request_pool *pool, bool stale)
{
    pool->stale = stale;
}

void dp_request_pool_abort(struct dp_request_pool *pool, struct err why)
{
    CHECK(!err_ok(why));
    pool->abort_at = pool->open;
    while (pool->abort_at != NULL) {
        struct dp_request *rq = pool->abort_at;
        pool->abort_at = rq->open_next; /* first: its end may take others along. */
        CHECK(rq->forwarding);
        rq->lane->abort(rq, why);
    }
}

/* Has the next open request stand on the model in force, and decides it anew. */
static void redecide_next(struct dp_request_pool *pool)
{
    struct dp_request *rq = pool->redecide_at;
    struct dp_generation *before = rq->generation;
    pool->redecide_at = rq->open_next; /* first: its end may take others along. */
    if (before == NULL || before == pool->generation || !rq->forwarding || rq->over) {
        return;
    }
    rq->generation = pool->generation;
    rq->model = pool->generation->model;
    pool->generation->pins++;
    (void)dp_request_redecide(rq);
    unpin(pool, before);
}

/* What came after the swap stands in front of those that were open then: each is met once. */
static void redecide_some(struct net_timer *timer, void *ctx)
{
    struct dp_request_pool *pool = ctx;
    struct dp_metrics_turn turn = dp_request_metrics_turn_begin();
    uint64_t spent_ns = 0;
    while (pool->redecide_at != NULL && spent_ns < REDECIDE_NS) {
        redecide_next(pool);
        spent_ns = clock_mono_ns() - turn.mono_ns;
    }
    dp_request_metrics_turn_end(pool->metrics, &turn);
    if (pool->redecide_at != NULL) {
        net_timer_arm(pool->loop, timer, 1);
    }
}

static struct dp_request *take(struct dp_request_pool *pool)
{
    struct dp_request *rq = pool->free;
    if (rq != NULL) {
        pool->free = rq->open_next;
        pool->free_count--;
        return rq;
    }
    rq = calloc(1, sizeof(*rq));
    if (rq != NULL) {
        arena_init(&rq->arena, ARENA_BLOCK, limits.request_arena_bytes);
    }
    return rq;
}

struct err dp_request_start(struct dp_request_pool *pool, const struct dp_front *front,
                            void *front_state, const struct dp_lane *lane, struct dp_request **out)
{
    if (pool->open_count >= limits.requests) {
        return FAIL(E_OVERLOADED);
    }
    struct dp_request *rq = take(pool);
    if (rq == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    struct arena arena = rq->arena;
    *rq = (struct dp_request){.pool = pool,
                              .lane = lane,
                              .front = front,
                              .front_state = front_state,
                              .arena = arena,
                              .started_ns = net_loop_now_ns(pool->loop),
                              .grpc_status = -1,
                              .open_next = pool->open};
    ids_quick(&rq->draw, sizeof(rq->draw));
    if (pool->open != NULL) {
        pool->open->open_prev = rq;
    }
    pool->open = rq;
    pool->open_count++;
    dp_request_metrics_open(pool->metrics, 1);
    *out = rq;
    return OK;
}

bool dp_request_pin(struct dp_request *rq)
{
    struct dp_generation *generation = rq->pool->generation;
    if (generation == NULL) {
        return false;
    }
    generation->pins++;
    rq->generation = generation;
    rq->model = generation->model;
    return true;
}

void dp_request_release(struct dp_request *rq)
{
    struct dp_request_pool *pool = rq->pool;
    if (pool->redecide_at == rq) {
        pool->redecide_at = rq->open_next;
    }
    if (pool->abort_at == rq) {
        pool->abort_at = rq->open_next;
    }
    if (rq->open_prev != NULL) {
        rq->open_prev->open_next = rq->open_next;
    } else {
        pool->open = rq->open_next;
    }
    if (rq->open_next != NULL) {
        rq->open_next->open_prev = rq->open_prev;
    }
    pool->open_count--;
    dp_request_metrics_open(pool->metrics, -1);
    dp_token_hold(&rq->token, NULL); /* it borrows of the model. */
    if (rq->generation != NULL) {
        unpin(pool, rq->generation);
    }
    if (pool->free_count >= FREE_MAX) {
        arena_free(&rq->arena);
        free(rq);
        return;
    }
    arena_reset(&rq->arena);
    rq->open_next = pool->free;
    pool->free = rq;
    pool->free_count++;
}
