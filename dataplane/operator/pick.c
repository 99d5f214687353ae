/*
 * pick: which endpoint a call goes to.
 *
 * A policy gives candidates, one after the other; the first that is well is taken. When a number of
 * them are not, a stretch of the slots is looked through, and the best that was met is taken: it is
 * better to try than to refuse. So a pick costs the same for ten endpoints as for thousands, but
 * for rendezvous, which looks at each.
 */
#include <math.h>

#include "common/base/check.h"
#include "common/base/hash.h"
#include "common/net/loop.h"
#include "dataplane/apply/balance.h"
#include "dataplane/operator/upstream_impl.h"
#include "dataplane/request/metrics.h"
#include "dataplane/request/request.h"

enum {
    CANDIDATES = 16,                        /* of a policy; */
    CANDIDATES_RENDEZVOUS = 4,              /* where each looks at all endpoints. */
    STRETCH = 256,                          /* slots that are looked through behind them. */
    SLOW_START_SHARE = OP_WHOLE_SHARE / 10, /* Envoy's min_weight_percent. */
};

/* Seconds in which a peak of latency falls to a third, as in Finagle and Linkerd. */
#define MEAN_DECAY_NS 10e9

/* What a call under way costs at an endpoint whose latency nobody knows: more than any other. */
#define UNKNOWN_NS 1e12

/* How good an endpoint is for this call; the first is best. */
enum rank {
    WELL,
    HELD_BACK, /* it has less than its share just now, and this call is none of it. */
    FAILED,    /* it refused connections of late. */
    OUT,       /* it is ejected, or probes say that it is not well. */
    TRIED,
    RANK_COUNT,
};

struct picking {
    struct op_set *set;
    const struct dp_cluster *cluster;
    struct op_tries *tries;
    uint64_t now_ns;
    uint64_t random;   /* the next draws follow from it. */
    uint64_t hash;     /* what is hashed by; of a call that lacks it, random. */
    double last_score; /* rendezvous: of the last candidate. */
    bool panic;
};

struct shot {
    size_t at;
    struct op_endpoint *endpoint; /* NULL: none. */
    enum rank rank;
};

static uint64_t draw(struct picking *p)
{
    p->random = hash_mix(p->random);
    return p->random;
}

/* ---- latency ---- */

double op_mean_now(const struct op_mean *mean, uint64_t now_ns)
{
    uint64_t age_ns = now_ns > mean->at_ns ? now_ns - mean->at_ns : 0;
    return mean->ns == 0 ? 0 : mean->ns * exp(-(double)age_ns / MEAN_DECAY_NS);
}

/* A peak counts at once; what is less than the mean counts by how long ago that is of. */
void op_mean_add(struct op_mean *mean, uint64_t now_ns, double ns)
{
    uint64_t age_ns = now_ns > mean->at_ns ? now_ns - mean->at_ns : 0;
    double kept = mean->ns == 0 ? 0 : exp(-(double)age_ns / MEAN_DECAY_NS);
    mean->ns = ns > mean->ns ? ns : mean->ns * kept + ns * (1 - kept);
    mean->at_ns = now_ns;
}

/* ---- how good an endpoint is ---- */

static bool was_tried(const struct op_tries *tries, const struct op_endpoint *e)
{
    for (uint32_t i = 0; i < tries->count; i++) {
        if (tries->tried[i] == e->id) {
            return true;
        }
    }
    return false;
}

/* Of OP_WHOLE_SHARE: grows with time from a tenth to all. */
static uint64_t slow_share(const struct picking *p, struct op_endpoint *e)
{
    uint64_t slow_ns = p->cluster->balance.slow_start_ms * UINT64_C(1000000);
    if (e->joined_ns == 0 || slow_ns == 0 || p->now_ns >= e->joined_ns + slow_ns) {
        e->joined_ns = 0;
        return OP_WHOLE_SHARE;
    }
    uint64_t share = OP_WHOLE_SHARE * (p->now_ns - e->joined_ns) / slow_ns;
    return share < SLOW_START_SHARE ? SLOW_START_SHARE : share;
}

static uint64_t share_of(const struct picking *p, struct op_endpoint *e)
{
    uint64_t share = slow_share(p, e);
    return e->pace.share == 0 ? share : share * e->pace.share / OP_WHOLE_SHARE;
}

static bool hashes(const struct picking *p)
{
    enum dp_balance_policy policy = p->cluster->balance.policy;
    return policy == DP_BALANCE_RING_HASH || policy == DP_BALANCE_RENDEZVOUS;
}

/* The same calls stay away from an endpoint that has half of its share, where calls are hashed. */
static bool holds_back(struct picking *p, struct op_endpoint *e)
{
    uint64_t share = share_of(p, e);
    if (share == OP_WHOLE_SHARE) {
        return false;
    }
    uint64_t at = hashes(p) ? hash_mix(p->hash ^ e->hash) : draw(p);
    return at % OP_WHOLE_SHARE >= share;
}

static enum rank rank_of(struct picking *p, struct op_endpoint *e)
{
    if (was_tried(p->tries, e)) {
        return TRIED;
    }
    if ((op_outlier_is_out(e, p->now_ns) || e->unwell) && !p->panic) {
        return OUT;
    }
    if (e->failed_until_ns > p->now_ns) {
        return FAILED;
    }
    return holds_back(p, e) ? HELD_BACK : WELL;
}

static MUST_CHECK struct err look_at(struct picking *p, size_t at, struct shot *out)
{
    struct op_endpoint *e = NULL;
    TRY(op_set_at(p->set, p->cluster, at, &e));
    *out = (struct shot){.at = at, .endpoint = e, .rank = rank_of(p, e)};
    return OK;
}

/* ---- candidates ---- */

/* In turn, spread over the round. */
static size_t in_turn(const struct picking *p)
{
    const struct dp_balance *b = &p->cluster->balance;
    uint64_t at = p->tries->turn % b->weight_sum * b->stride % b->weight_sum;
    return dp_balance_by_weight(b, at);
}

static size_t at_random(struct picking *p)
{
    const struct dp_balance *b = &p->cluster->balance;
    return dp_balance_by_weight(b, draw(p) % b->weight_sum);
}

static double load_of(const struct picking *p, const struct op_endpoint *e)
{
    double active = e->active;
    if (p->cluster->balance.policy == DP_BALANCE_PEAK_EWMA) {
        double latency = op_mean_now(&e->latency, p->now_ns);
        active = latency > 0 ? latency * (active + 1) : active * UNKNOWN_NS;
    }
    return active / e->weight;
}

/* The power of two choices: the better of two that were drawn by weight. */
static MUST_CHECK struct err better_of_two(struct picking *p, struct shot *out)
{
    struct shot other = {0};
    size_t first = at_random(p);
    size_t second = at_random(p);
    second = second == first ? (first + 1) % p->set->count : second;
    TRY(look_at(p, first, out));
    if (second == first) {
        return OK;
    }
    TRY(look_at(p, second, &other));
    bool better = other.rank != out->rank ? other.rank < out->rank
                                          : load_of(p, other.endpoint) < load_of(p, out->endpoint);
    *out = better ? other : *out;
    return OK;
}

/* A draw whose logarithm over the weight is least wins: the more weight, the oftener. */
static double score_of(const struct picking *p, size_t at)
{
    const struct dp_balance *b = &p->cluster->balance;
    uint64_t hash = hash_mix(b->hashes[at] ^ p->hash);
    double unit = ((double)(hash >> 11) + 0.5) * 0x1p-53;
    if (b->weight_ends == NULL) {
        return 1 - unit; /* in the same order, and cheaper. */
    }
    return -log2(unit) / (double)p->cluster->endpoints[at].weight;
}

/* The best score that is behind the last candidate's. False: there is none. */
static bool by_rendezvous(struct picking *p, size_t *out)
{
    double best = INFINITY;
    for (size_t i = 0; i < p->set->count; i++) {
        double score = score_of(p, i);
        if (score > p->last_score && score < best) {
            best = score;
            *out = i;
        }
    }
    p->last_score = best;
    return best < INFINITY;
}

/* The policy's next candidate; no endpoint in it: there is none. */
static MUST_CHECK struct err candidate(struct picking *p, unsigned nth, struct shot *out)
{
    const struct dp_balance *b = &p->cluster->balance;
    size_t at = 0;
    *out = (struct shot){.rank = TRIED};
    switch (b->policy) {
    case DP_BALANCE_ROUND_ROBIN:
        /* Not the next in turn behind it, who would have all calls of one that is not well. */
        at = nth == 0 && p->tries->count == 0 ? in_turn(p) : at_random(p);
        break;
    case DP_BALANCE_LEAST_REQUEST:
    case DP_BALANCE_PEAK_EWMA:
        return better_of_two(p, out);
    case DP_BALANCE_PICK_FIRST:
        if (nth >= b->count) {
            return OK;
        }
        at = b->order[nth];
        break;
    case DP_BALANCE_RING_HASH:
        at = b->ring[(dp_balance_on_ring(b, p->hash) + nth) % b->ring_size].index;
        break;
    case DP_BALANCE_RENDEZVOUS:
        if (nth >= CANDIDATES_RENDEZVOUS || !by_rendezvous(p, &at)) {
            return OK;
        }
        break;
    }
    return look_at(p, at, out);
}

/* ---- the pick ---- */

/* Behind the candidates: slots from 'from' on, or the order of pick first. */
static MUST_CHECK struct err look_through(struct picking *p, size_t from, struct shot *best)
{
    const uint32_t *order = p->cluster->balance.order;
    for (size_t i = 0; i < p->set->count && i < STRETCH && best->rank > HELD_BACK; i++) {
        struct shot shot = {0};
        TRY(look_at(p, order != NULL ? order[i] : (from + i) % p->set->count, &shot));
        *best = shot.rank < best->rank ? shot : *best;
    }
    return OK;
}

static MUST_CHECK struct err choose(struct picking *p, struct shot *best)
{
    struct shot shot = {.rank = TRIED};
    *best = shot;
    for (unsigned nth = 0; nth < CANDIDATES && best->rank != WELL; nth++) {
        TRY(candidate(p, nth, &shot));
        if (shot.endpoint == NULL) {
            break;
        }
        *best = shot.rank < best->rank ? shot : *best;
    }
    return look_through(p, (shot.at + 1) % p->set->count, best);
}

/* What the policy hashes by; of a call that lacks it, what the call drew. */
static uint64_t hash_of(const struct dp_request *rq, const struct dp_balance *b, uint64_t otherwise)
{
    struct slice value = {0};
    if (b->hash_header.size > 0) {
        bool found =
            rq->in.header != NULL && rq->in.header(rq->in.header_ctx, b->hash_header, &value);
        return found ? hash_bytes(value, /* seed= */ 0) : otherwise;
    }
    return rq->caller == NULL ? otherwise : hash_bytes(rq->caller->tenant, /* seed= */ 0);
}

static bool panics(struct op_set *set, const struct dp_balance *b)
{
    bool panic = op_set_panics(set, b->panic_percent);
    if (panic) {
        metrics_add(dp_request_metrics_shard(set->ups->host->metrics), set->metrics.panics, 1);
    }
    return panic;
}

struct err op_pick(struct op_set *set, const struct dp_request *rq,
                   const struct dp_cluster *cluster, struct op_tries *tries,
                   struct op_endpoint **out)
{
    if (set->count == 0 || tries->count == OP_TRIES_MAX) {
        return FAIL(E_NO_HEALTHY_ENDPOINT);
    }
    if (tries->turn == 0) {
        tries->turn = ++set->calls;
    }
    struct picking p = {
        .set = set,
        .cluster = cluster,
        .tries = tries,
        .now_ns = net_loop_now_ns(set->ups->host->loop),
        .random = hash_mix(rq->draw) ^ (tries->count * UINT64_C(0x9e3779b97f4a7c15)),
        .last_score = -1,
        .panic = panics(set, &cluster->balance),
    };
    p.hash = hash_of(rq, &cluster->balance, hash_mix(rq->draw));
    struct shot best;
    TRY(choose(&p, &best));
    if (best.endpoint == NULL || best.rank == TRIED) {
        return FAIL(E_NO_HEALTHY_ENDPOINT);
    }
    tries->tried[tries->count++] = best.endpoint->id;
    *out = best.endpoint;
    return OK;
}
