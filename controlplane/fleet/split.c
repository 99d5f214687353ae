/* split: see split.h. */
#include "controlplane/fleet/split.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/map.h"

#define NS_PER_MS UINT64_C(1000000)
#define LIFE_NS ((CP_SPLIT_VALID_MS + CP_SPLIT_MARGIN_MS) * NS_PER_MS)
#define FORGET_NS (CP_SPLIT_FORGET_MS * NS_PER_MS)

enum {
    ASKED_MOST = 4 * SHARE_WHOLE,
    PAST_MOST = 4, /* processes of a node that may follow each other while shares last. */
};

/* What a node has of one budget. */
struct part {
    uint64_t budget;
    uint32_t asked;
    uint32_t held;   /* the most that it may have in force. */
    uint32_t sent;   /* the last time. */
    uint32_t told;   /* of what the node's sequence names. */
    uint32_t since;  /* the most that was sent since the node's mark, */
    uint32_t before; /* and between that and the mark before. */
    uint32_t target; /* of the turn that runs. */
};

/* What processes before the one that speaks may still have in force. */
struct past {
    uint64_t run; /* of the last one of them. */
    uint64_t at_ms;
    uint64_t until_ns;  /* behind that it is over. */
    struct part *parts; /* owned; budgets ascending. */
    uint32_t count;
    uint32_t runs; /* of how many processes. */
};

struct node {
    char id[KEY_NAME_MAX + 1];
    uint64_t run;
    uint64_t at_ms;
    uint64_t heard_ns;
    uint64_t epoch; /* of what was sent last, and the next; zero: nothing was. */
    uint64_t sequence;
    uint64_t marked_ns; /* what was sent before the mark before is over. */
    bool waits;         /* for an answer. */
    struct part *parts; /* owned; budgets ascending. */
    uint32_t count;
    struct past past;
};

/* A part among those of one budget. */
struct place {
    uint64_t budget;
    struct node *node;
    struct part *part;
    uint32_t want;
};

struct cp_split {
    struct map by_id;    /* id to struct node; owned. */
    uint64_t unknown_ns; /* until then others' shares may be in force, */
    uint64_t past_ns;    /* and those of processes that others follow. */
    uint64_t swept_ns;   /* when those were forgotten that are as new. */
    struct place *places;
    size_t place_capacity;
    struct node **followers; /* of the turn: nodes of which another process may hold something. */
    size_t follower_capacity;
    size_t follower_count;
};

struct err cp_split_new(struct cp_split **out)
{
    *out = calloc(1, sizeof(**out));
    return *out == NULL ? FAIL(E_NO_MEMORY) : OK;
}

static void node_free(struct node *node)
{
    free(node->parts);
    free(node->past.parts);
    free(node);
}

static void forget_all(struct cp_split *split)
{
    size_t at = 0;
    const struct map_entry *found = NULL;
    while ((found = map_next(&split->by_id, &at)) != NULL) {
        node_free(found->value);
    }
    map_free(&split->by_id);
}

void cp_split_free(struct cp_split *split)
{
    if (split != NULL) {
        forget_all(split);
        free(split->places);
        free(split->followers);
        free(split);
    }
}

void cp_split_begin(struct cp_split *split, uint64_t now_ns)
{
    forget_all(split);
    split->unknown_ns = now_ns + LIFE_NS;
}

static bool is_live(const struct node *node, uint64_t now_ns)
{
    return now_ns - node->heard_ns < LIFE_NS;
}

static bool is_as_new(const struct node *node, uint64_t now_ns)
{
    return now_ns - node->heard_ns >= FORGET_NS;
}

/* Nodes come and go, each with a name of its own. */
static void sweep(struct cp_split *split, uint64_t now_ns)
{
    size_t at = 0;
    const struct map_entry *found = NULL;
    if (now_ns - split->swept_ns < FORGET_NS) {
        return;
    }
    split->swept_ns = now_ns;
    while ((found = map_next(&split->by_id, &at)) != NULL) {
        if (is_as_new(found->value, now_ns)) {
            node_free(map_remove_here(&split->by_id, &at));
        }
    }
}

size_t cp_split_nodes(const struct cp_split *split, uint64_t now_ns)
{
    size_t live = 0;
    size_t at = 0;
    const struct map_entry *found = NULL;
    while ((found = map_next(&split->by_id, &at)) != NULL) {
        live += is_live(found->value, now_ns);
    }
    return live;
}

/* ---- demand ---- */

static struct err node_of(struct cp_split *split, const char *id, struct node **out)
{
    struct node *node = map_get(&split->by_id, slice_str(id));
    if (node != NULL) {
        *out = node;
        return OK;
    }
    if (split->by_id.count >= limits.nodes) {
        return FAIL(E_TOO_LARGE);
    }
    node = calloc(1, sizeof(*node));
    if (node == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    memcpy(node->id, id, strlen(id) + 1);
    struct err e = map_put(&split->by_id, slice_str(node->id), node, /* out_old= */ NULL);
    if (!err_ok(e)) {
        free(node);
        return e;
    }
    *out = node;
    return OK;
}

static const struct part *part_of(const struct part *parts, uint32_t count, uint64_t budget)
{
    uint32_t low = 0;
    uint32_t high = count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (parts[middle].budget < budget) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < count && parts[low].budget == budget ? &parts[low] : NULL;
}

static uint32_t lesser(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t greater(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* A process that follows another one has a higher run, by the wall clock; where that was set back,
 * it is heard once nothing of the other one is in force. */
static bool is_news(const struct node *node, const struct demand *d, uint64_t now_ns)
{
    bool other = d->run != node->run && !is_live(node, now_ns);
    return node->run == 0 || other || is_as_new(node, now_ns) || d->run > node->run ||
           (d->run == node->run && d->at_ms > node->at_ms);
}

static bool has_past(const struct node *node, uint64_t now_ns)
{
    return node->past.count > 0 && now_ns < node->past.until_ns;
}

/* Another process of the node speaks for the first time: what the one before it held is kept, and
 * what those held that this one followed. */
static struct err keep_past(struct cp_split *split, struct node *node, uint64_t now_ns)
{
    struct past *past = &node->past;
    uint32_t before_count = has_past(node, now_ns) ? past->count : 0;
    uint32_t own_count = is_live(node, now_ns) ? node->count : 0;
    struct part *all = calloc((size_t)before_count + own_count + 1, sizeof(*all));
    if (all == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    uint32_t i = 0;
    uint32_t k = 0;
    uint32_t n = 0;
    while (i < before_count || k < own_count) {
        bool own =
            i == before_count || (k < own_count && node->parts[k].budget < past->parts[i].budget);
        struct part part = own ? node->parts[k++] : past->parts[i++];
        if (!own && k < own_count && node->parts[k].budget == part.budget) {
            part.held += node->parts[k++].held;
            part.held = part.held < SHARE_WHOLE ? part.held : SHARE_WHOLE;
        }
        all[n++] = part;
    }
    free(past->parts);
    uint32_t runs = before_count > 0 ? past->runs + 1 : 1;
    uint64_t until_ns = own_count > 0 ? node->heard_ns + LIFE_NS : 0;
    until_ns = before_count > 0 && past->until_ns > until_ns ? past->until_ns : until_ns;
    *past = (struct past){.run = node->run,
                          .at_ms = node->at_ms,
                          .until_ns = until_ns,
                          .parts = all,
                          .count = n,
                          .runs = runs};
    split->past_ns = until_ns > split->past_ns ? until_ns : split->past_ns;
    return OK;
}

/* The process before the one that speaks says that it holds nothing any more. */
static bool gives_past_up(struct node *node, const struct demand *d)
{
    struct past *past = &node->past;
    if (d->count > 0 || past->run == 0 || d->run != past->run || d->at_ms <= past->at_ms) {
        return false;
    }
    past->at_ms = d->at_ms;
    past->count = 0;
    return true;
}

/*
 * What of a budget may be in force: what was sent, until it is over or the node says that it has
 * something newer. What the node says can only be less: one that says that it has all would leave
 * nothing to the others. Alone while others' shares may be in force nobody here knows better.
 */
static struct part take_part(const struct cp_split *split, const struct node *node,
                             const struct demand *demand, const struct part *was, uint32_t index,
                             uint64_t now_ns)
{
    const struct demand_of *of = &demand->of[index];
    struct part part = {.budget = of->budget, .asked = lesser(of->asked, ASKED_MOST)};
    bool acked = demand->epoch == node->epoch && demand->sequence >= node->sequence;
    bool over = now_ns - node->marked_ns >= LIFE_NS;
    if (was != NULL && acked) {
        part.told = was->told;
        part.since = lesser(of->share, was->told);
    } else if (was != NULL) {
        part.told = was->told;
        part.since = over ? 0 : was->since;
        part.before = over ? was->since : was->before;
    }
    part.held = greater(part.since, part.before);
    if (now_ns < split->unknown_ns) {
        part.held = greater(part.held, of->share);
    }
    return part;
}

static MUST_CHECK struct err take_parts(const struct cp_split *split, struct node *node,
                                        const struct demand *demand, uint64_t now_ns)
{
    bool same_run = node->run == demand->run && is_live(node, now_ns);
    struct part *parts = calloc(demand->count + 1, sizeof(*parts));
    if (parts == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    for (uint32_t i = 0; i < demand->count; i++) {
        const struct part *was =
            same_run ? part_of(node->parts, node->count, demand->of[i].budget) : NULL;
        parts[i] = take_part(split, node, demand, was, i, now_ns);
    }
    if (now_ns - node->marked_ns >= LIFE_NS) {
        node->marked_ns = now_ns;
    }
    free(node->parts);
    node->parts = parts;
    node->count = demand->count;
    return OK;
}

struct err cp_split_demand(struct cp_split *split, const struct demand *demand, uint64_t now_ns)
{
    struct node *node = NULL;
    TRY(node_of(split, demand->node, &node));
    if (gives_past_up(node, demand)) {
        return OK;
    }
    bool follows = node->run != demand->run && node->run != 0;
    bool too_many = follows && has_past(node, now_ns) && node->past.runs >= PAST_MOST;
    if (!is_news(node, demand, now_ns) || too_many) {
        return FAIL(E_CONFLICT);
    }
    if (follows) {
        TRY(keep_past(split, node, now_ns));
    }
    TRY(take_parts(split, node, demand, now_ns));
    node->run = demand->run;
    node->at_ms = demand->at_ms;
    node->heard_ns = now_ns;
    node->waits = demand->count > 0;
    return OK;
}

/* ---- the turn ---- */

static int place_cmp(const void *x, const void *y)
{
    const struct place *a = x;
    const struct place *b = y;
    if (a->budget != b->budget) {
        return a->budget < b->budget ? -1 : 1;
    }
    return a->want < b->want ? -1 : a->want > b->want;
}

/* Targets of one budget, whose places are sorted by what they want. */
static void fill(struct place *places, size_t count)
{
    uint64_t left = SHARE_WHOLE;
    for (size_t i = 0; i < count; i++) {
        uint64_t fair = left / (count - i);
        uint32_t gets = places[i].want < fair ? places[i].want : (uint32_t)fair;
        places[i].part->target = gets;
        left -= gets;
    }
    for (size_t i = 0; i < count; i++) {
        places[i].part->target += (uint32_t)(left / count);
    }
}

/* Those that are to have less are told; what is free by now goes to those that are to have more,
 * by how much they lack. */
static void give(struct place *places, size_t count, bool knows_all, uint64_t past)
{
    uint64_t held = past;
    uint64_t lack = 0;
    for (size_t i = 0; i < count; i++) {
        const struct part *part = places[i].part;
        held += part->held;
        lack += places[i].node->waits && part->target > part->held ? part->target - part->held : 0;
    }
    uint64_t free_parts = knows_all && held < SHARE_WHOLE ? SHARE_WHOLE - held : 0;
    for (size_t i = 0; i < count; i++) {
        struct part *part = places[i].part;
        if (!places[i].node->waits) {
            continue;
        }
        uint64_t more = part->target > part->held ? part->target - part->held : 0;
        more = lack > free_parts ? more * free_parts / lack : more;
        part->sent = part->target < part->held ? part->target : part->held + (uint32_t)more;
        part->held = greater(part->held, part->sent);
        part->since = greater(part->since, part->sent);
    }
}

static struct err list_places(struct cp_split *split, uint64_t now_ns, size_t *out_count)
{
    size_t count = 0;
    size_t at = 0;
    const struct map_entry *found = NULL;
    while ((found = map_next(&split->by_id, &at)) != NULL) {
        const struct node *node = found->value;
        count += is_live(node, now_ns) ? node->count : 0;
    }
    if (count > split->place_capacity) {
        struct place *places = realloc(split->places, count * sizeof(*places));
        if (places == NULL) {
            return FAIL(E_NO_MEMORY);
        }
        split->places = places;
        split->place_capacity = count;
    }
    size_t n = 0;
    at = 0;
    while ((found = map_next(&split->by_id, &at)) != NULL) {
        struct node *node = found->value;
        for (uint32_t i = 0; is_live(node, now_ns) && i < node->count; i++) {
            split->places[n++] = (struct place){
                .budget = node->parts[i].budget, .node = node, .part = &node->parts[i]};
        }
    }
    *out_count = n;
    return OK;
}

static struct err list_followers(struct cp_split *split, uint64_t now_ns)
{
    split->follower_count = 0;
    if (now_ns >= split->past_ns) {
        return OK;
    }
    if (split->by_id.count > split->follower_capacity) {
        size_t count = split->by_id.count;
        struct node **followers = realloc(split->followers, count * sizeof(struct node *));
        if (followers == NULL) {
            return FAIL(E_NO_MEMORY);
        }
        split->followers = followers;
        split->follower_capacity = count;
    }
    size_t at = 0;
    const struct map_entry *found = NULL;
    while ((found = map_next(&split->by_id, &at)) != NULL) {
        if (has_past(found->value, now_ns)) {
            split->followers[split->follower_count++] = found->value;
        }
    }
    return OK;
}

/* A tenth more than what was asked, so that what grows finds room; and something always. */
static void set_wants(struct place *places, size_t count)
{
    uint32_t least = (uint32_t)(CP_SPLIT_FLOOR / count);
    for (size_t i = 0; i < count; i++) {
        uint32_t want = places[i].part->asked + places[i].part->asked / 10;
        places[i].want = want > least ? want : least;
    }
}

/* What may be in force of a budget by processes that others follow. */
static uint64_t past_of(const struct cp_split *split, uint64_t budget)
{
    uint64_t held = 0;
    for (size_t i = 0; i < split->follower_count; i++) {
        const struct past *past = &split->followers[i]->past;
        const struct part *part = part_of(past->parts, past->count, budget);
        held += part == NULL ? 0 : part->held;
    }
    return held;
}

static void split_all(const struct cp_split *split, size_t count, uint64_t now_ns)
{
    struct place *places = split->places;
    if (count == 0) {
        return;
    }
    qsort(places, count, sizeof(*places), place_cmp); /* by budget: nobody wants anything yet. */
    size_t first = 0;
    while (first < count) {
        size_t end = first;
        while (end < count && places[end].budget == places[first].budget) {
            end++;
        }
        set_wants(places + first, end - first);
        qsort(places + first, end - first, sizeof(*places), place_cmp);
        fill(places + first, end - first);
        give(places + first, end - first, now_ns >= split->unknown_ns,
             past_of(split, places[first].budget));
        first = end;
    }
}

static void answer(struct node *node, uint32_t nodes, cp_split_send_fn *send, void *ctx)
{
    struct shares shares = {.run = node->run,
                            .at_ms = node->at_ms,
                            .valid_ms = CP_SPLIT_VALID_MS,
                            .nodes = nodes,
                            .count = node->count};
    memcpy(shares.node, node->id, sizeof(shares.node));
    for (uint32_t i = 0; i < node->count; i++) {
        shares.of[i] = (struct share_of){node->parts[i].budget, node->parts[i].sent};
    }
    node->waits = false;
    if (send(ctx, &shares)) {
        node->epoch = shares.epoch;
        node->sequence = shares.sequence;
        for (uint32_t i = 0; i < node->count; i++) {
            node->parts[i].told = node->parts[i].sent;
        }
    }
}

struct err cp_split_turn(struct cp_split *split, uint64_t now_ns, cp_split_send_fn *send, void *ctx)
{
    size_t count = 0;
    sweep(split, now_ns);
    TRY(list_places(split, now_ns, &count));
    TRY(list_followers(split, now_ns));
    split_all(split, count, now_ns);
    size_t live = cp_split_nodes(split, now_ns);
    size_t at = 0;
    const struct map_entry *found = NULL;
    while ((found = map_next(&split->by_id, &at)) != NULL) {
        struct node *node = found->value;
        if (node->waits && is_live(node, now_ns)) {
            CHECK(live > 0);
            answer(node, (uint32_t)live, send, ctx);
        }
    }
    return OK;
}
