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
    CANDIDATES = 16,           /* of a policy; */
    CANDIDATES_RENDEZVOUS = 4, /* where each looks at all endpoints. */
    OVERPROVISIONING = 1400,   /* of PER_MILLE: Envoy's. */
    PER_MILLE = 1000,
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
    const struct dp_level *level; /* whose candidates are looked at. */
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

void op_tries_add(struct op_tries *tries, const struct op_endpoint *endpoint)
{
    if (!was_tried(tries, endpoint) && tries->count < OP_TRIES_MAX) {
        tries->tried[tries->count++] = endpoint->id;
    }
}

void op_tries_forget(struct op_tries *tries, const struct op_endpoint *endpoint)
{
    for (uint32_t i = 0; i < tries->count; i++) {
        if (tries->tried[i] == endpoint->id) {
            tries->tried[i] = tries->tried[--tries->count];
            return; /* it is there once. */
        }
    }
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
    const struct dp_level *l = p->level;
    return dp_level_by_weight(l, p->tries->turn % l->weight_sum * l->stride % l->weight_sum);
}

static size_t at_random(struct picking *p)
{
    return dp_level_by_weight(p->level, draw(p) % p->level->weight_sum);
}

/* The one behind it in its level, round. */
static size_t next_to(const struct picking *p, size_t at)
{
    return at + 1 < p->level->first + p->level->count ? at + 1 : p->level->first;
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
    second = second == first ? next_to(p, first) : second;
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
    uint64_t hash = hash_mix(p->level->hashes[at - p->level->first] ^ p->hash);
    double unit = ((double)(hash >> 11) + 0.5) * 0x1p-53;
    if (p->level->weight_ends == NULL) {
        return 1 - unit; /* in the same order, and cheaper. */
    }
    return -log2(unit) / (double)p->cluster->endpoints[at].weight;
}

/* The best score that is behind the last candidate's. False: there is none. */
static bool by_rendezvous(struct picking *p, size_t *out)
{
    double best = INFINITY;
    size_t end = p->level->first + p->level->count;
    for (size_t i = p->level->first; i < end; i++) {
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
    const struct dp_level *l = p->level;
    size_t at = 0;
    *out = (struct shot){.rank = TRIED};
    switch (p->cluster->balance.policy) {
    case DP_BALANCE_ROUND_ROBIN:
        /* Not the next in turn behind it, who would have all calls of one that is not well. */
        at = nth == 0 && p->tries->count == 0 ? in_turn(p) : at_random(p);
        break;
    case DP_BALANCE_LEAST_REQUEST:
    case DP_BALANCE_PEAK_EWMA:
        return better_of_two(p, out);
    case DP_BALANCE_PICK_FIRST:
        if (nth >= l->count) {
            return OK;
        }
        at = l->order[nth];
        break;
    case DP_BALANCE_RING_HASH:
        at = l->ring[(dp_level_on_ring(l, p->hash) + nth) % l->ring_size].index;
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

/* Behind the candidates: the slots of the level from 'at' on, or the order of pick first. */
static MUST_CHECK struct err look_through(struct picking *p, size_t at, struct shot *best)
{
    const uint32_t *order = p->level->order;
    for (size_t i = 0; i < p->level->count && i < STRETCH && best->rank > HELD_BACK; i++) {
        struct shot shot = {0};
        TRY(look_at(p, order != NULL ? order[i] : at, &shot));
        *best = shot.rank < best->rank ? shot : *best;
        at = next_to(p, at);
    }
    return OK;
}

static MUST_CHECK struct err choose_in(struct picking *p, const struct dp_level *level,
                                       struct shot *best)
{
    struct shot shot = {.rank = TRIED};
    p->level = level;
    p->last_score = -1;
    for (unsigned nth = 0; nth < CANDIDATES && best->rank != WELL; nth++) {
        TRY(candidate(p, nth, &shot));
        if (shot.endpoint == NULL) {
            break;
        }
        *best = shot.rank < best->rank ? shot : *best;
    }
    return look_through(p, shot.endpoint == NULL ? level->first : next_to(p, shot.at), best);
}

/* ---- levels ---- */

/* Thousandths of the calls that a level can take: those of its endpoints that are well, and 40
 * percent more, so that it keeps all of its calls while two of seven are not. */
static uint64_t room_of(const struct picking *p, size_t i)
{
    size_t count = p->cluster->balance.levels[i].count;
    size_t well = p->panic ? count : count - p->set->out_of[i];
    uint64_t room = OVERPROVISIONING * (uint64_t)well / count;
    return room > PER_MILLE ? PER_MILLE : room;
}

/* The nearest level has as many calls as it can take, the next one as many of the others. Where all
 * together cannot take all, each has its share of what they can. */
static size_t draw_level(struct picking *p)
{
    size_t count = p->cluster->balance.level_count;
    uint64_t room[DP_LEVELS_MAX] = {0};
    uint64_t sum = 0;
    for (size_t i = 0; count > 1 && i < count; i++) {
        room[i] = room_of(p, i);
        room[i] = room[i] > PER_MILLE - sum ? PER_MILLE - sum : room[i];
        sum += room[i];
    }
    if (sum == 0) {
        return 0;
    }
    uint64_t at = (hashes(p) ? hash_mix(~p->hash) : draw(p)) % sum;
    size_t level = 0;
    while (at >= room[level]) {
        at -= room[level++];
    }
    CHECK(level < count);
    return level;
}

/* The level that was drawn; when nobody is well in it, the others, the nearest first. */
static MUST_CHECK struct err choose(struct picking *p, struct shot *best)
{
    const struct dp_balance *b = &p->cluster->balance;
    size_t drawn = draw_level(p);
    *best = (struct shot){.rank = TRIED};
    TRY(choose_in(p, &b->levels[drawn], best));
    for (size_t i = 0; i < b->level_count && best->rank > HELD_BACK; i++) {
        if (i != drawn) {
            TRY(choose_in(p, &b->levels[i], best));
        }
    }
    return OK;
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
        .panic = panics(set, &cluster->balance),
    };
    p.hash = hash_of(rq, &cluster->balance, hash_mix(rq->draw));
    struct shot best;
    TRY(choose(&p, &best));
    if (best.endpoint == NULL || best.rank == TRIED) {
        return FAIL(E_NO_HEALTHY_ENDPOINT);
    }
    op_tries_add(tries, best.endpoint);
    *out = best.endpoint;
    return OK;
}
