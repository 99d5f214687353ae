/*
 * limit: see limit.h. A request looks at all limits that match it before it takes from the first,
 * so that what is refused writes nothing that workers share; what changed in between is given back.
 *
 * RATE: a bucket is full when its TAT is not after now. A request moves the TAT one period on; it
 * passes when the TAT is then at most 'burst' periods after now. So the one word is the bucket: no
 * refill, no timer, and a full bucket needs no memory.
 *
 * QUOTA: a cell is of the window that it was counted in last. One of an earlier window counts as
 * empty, one of the next window holds, one of a window behind that counts in the one that runs: a
 * wall clock that goes back gives nothing back.
 */
#include "dataplane/request/limit.h"

#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/map.h"
#include "common/base/text.h"
#include "dataplane/apply/model.h"
#include "dataplane/request/limit_impl.h"

#define NS_PER_MS UINT64_C(1000000)

/* So far apart the clocks of two workers' turns are not. */
#define LAG_NS (5000 * NS_PER_MS)

enum {
    MS_PER_HOUR = 3600000,
    CONCURRENCY_RETRY_MS = 100, /* nobody knows when one of those in flight ends. */
    DISK_RETRY_MS = 50,
    TRIES = 8, /* of a cell that others take each time. */
};

struct err dp_limit_table_new(size_t cells, struct dp_limit_table **out)
{
    struct dp_limit_table *table = calloc(1, sizeof(*table));
    if (table == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    struct err err = dp_cells_new(cells, &table->cells[DP_LIMIT_OF_RATE]);
    if (err_ok(err)) {
        err = dp_cells_new(cells / 4, &table->cells[DP_LIMIT_OF_CONCURRENCY]);
    }
    if (!err_ok(err)) {
        dp_limit_table_free(table);
        return err;
    }
    ids_random(&table->seed, sizeof(table->seed));
    *out = table;
    return OK;
}

void dp_limit_table_free(struct dp_limit_table *table)
{
    if (table != NULL) {
        dp_cells_free(table->cells[DP_LIMIT_OF_RATE]);
        dp_cells_free(table->cells[DP_LIMIT_OF_CONCURRENCY]);
        free(table);
    }
}

void dp_limit_table_keep(struct dp_limit_table *table, struct dp_quota *quota)
{
    table->quota = quota;
    table->cells[DP_LIMIT_OF_QUOTA] = dp_quota_cells(quota);
    table->seed = dp_quota_seed(quota);
}

uint64_t dp_limit_table_crowded(const struct dp_limit_table *table)
{
    uint64_t crowded = 0;
    for (size_t i = 0; i < DP_LIMIT_KIND_COUNT; i++) {
        crowded += table->cells[i] == NULL ? 0 : dp_cells_crowded(table->cells[i]);
    }
    return crowded + dp_budget_crowded();
}

/* ---- which limits, and by which keys ---- */

/* One limit that a request must pass. */
struct taking {
    const struct dp_limit *limit;
    struct dp_cell_key key;
    struct dp_cell_place place;
    uint64_t cost;   /* of one request, as of the limit, or of what each key has of a shared one; */
    uint64_t budget; /* and of how many at once. */
    uint64_t window_ms;         /* QUOTA: until its window ends. */
    struct dp_budget *own;      /* where a shared one counts; NULL: in a cell, */
    struct dp_budget_view view; /* what the node has of it, */
    uint32_t share;             /* and what it goes by. */
    bool is_fast; /* of a shared one in a cell: half of what it has at once is used. */
};

/* When a request asks. */
struct now {
    uint64_t mono_ns;
    int64_t wall_ms; /* zero where no limit is a quota. */
};

static bool matches(const struct dp_limit *limit, struct slice method)
{
    for (size_t i = 0; i < limit->method_count; i++) {
        if (text_glob(slice_str(limit->methods[i]), method)) {
            return true;
        }
    }
    return limit->method_count == 0;
}

/* Whether a request that the limit cannot tell from others is refused, counted or let pass. */
static uint32_t unknown_of(const struct dp_limit *limit, const struct dp_limit_query *query)
{
    uint32_t closed = TRILANE__PARTS__V1__LIMIT_UNKNOWN__LIMIT_UNKNOWN_CLOSED;
    uint32_t local = TRILANE__PARTS__V1__LIMIT_UNKNOWN__LIMIT_UNKNOWN_LOCAL;
    return limit->on_unknown != 0 ? limit->on_unknown : query->safe ? local : closed;
}

/* What an empty cell says now. */
static void begin(const struct dp_limit_table *table, struct taking *t, const struct now *now)
{
    struct dp_cell_key *key = &t->key;
    t->window_ms = 0;
    switch (t->limit->kind) {
    case DP_LIMIT_OF_RATE:
        key->floor = key->start = now->mono_ns;
        break;
    case DP_LIMIT_OF_QUOTA: {
        struct dp_quota_window window = dp_quota_window_of(t->limit->window, now->wall_ms);
        uint64_t hour = (uint64_t)now->wall_ms / MS_PER_HOUR;
        key->floor = ((hour + 1) << DP_QUOTA_COUNT_BITS) - 1; /* of windows that end by now. */
        key->start = window.end_hour << DP_QUOTA_COUNT_BITS |
                     dp_quota_unknown(table->quota, &window, t->limit->reserve);
        t->window_ms = window.end_hour * MS_PER_HOUR - (uint64_t)now->wall_ms;
        break;
    }
    case DP_LIMIT_OF_CONCURRENCY:
    case DP_LIMIT_KIND_COUNT:
        key->floor = key->start = 0;
        break;
    }
}

/* ---- counting ---- */

/* The value at which the budget of a cell that has 'value' is used up. */
static uint64_t most_of(const struct taking *t, uint64_t now_ns, uint64_t value)
{
    uint64_t window = value >> DP_QUOTA_COUNT_BITS << DP_QUOTA_COUNT_BITS;
    return t->budget + (t->limit->kind == DP_LIMIT_OF_RATE    ? now_ns
                        : t->limit->kind == DP_LIMIT_OF_QUOTA ? window
                                                              : 0);
}

/* The value of a cell after one request more; false: there is no budget for it, as *out says. */
static bool next(const struct taking *t, uint64_t now_ns, uint64_t value, uint64_t *out_next,
                 struct dp_limit_refusal *out)
{
    uint64_t base = value > t->key.start ? value : t->key.start;
    uint64_t most = most_of(t, now_ns, base);
    *out_next = base + t->cost;
    if (*out_next <= most) {
        return true;
    }
    out->why = t->limit->kind == DP_LIMIT_OF_RATE    ? DP_LIMIT_RATE
               : t->limit->kind == DP_LIMIT_OF_QUOTA ? DP_LIMIT_QUOTA
                                                     : DP_LIMIT_CONCURRENCY;
    out->retry_ns = t->limit->kind == DP_LIMIT_OF_RATE    ? *out_next - most
                    : t->limit->kind == DP_LIMIT_OF_QUOTA ? t->window_ms * NS_PER_MS
                                                          : CONCURRENCY_RETRY_MS * NS_PER_MS;
    return false;
}

static uint64_t left_of(const struct taking *t, uint64_t now_ns, uint64_t value)
{
    uint64_t most = most_of(t, now_ns, value);
    return value < most ? most - value : 0;
}

static bool waits_for_disk(struct dp_limit_refusal *out)
{
    out->why = DP_LIMIT_DISK;
    out->retry_ns = DISK_RETRY_MS * NS_PER_MS;
    return false;
}

/* Whether the disk knows enough of a quota for it to count on to 'value'. */
static bool is_kept(struct dp_limit_table *table, const struct taking *t, uint64_t value,
                    struct dp_limit_refusal *out)
{
    return t->limit->kind != DP_LIMIT_OF_QUOTA ||
           dp_quota_covers(table->quota, &t->place, value, t->limit->reserve) ||
           waits_for_disk(out);
}

/* Finds where a limit counts. False: a quota that has no cell of its own is not counted with
 * others', which may be of another window. */
static bool find_place(struct dp_limit_table *table, struct taking *t, struct dp_limit_refusal *out)
{
    struct dp_cells *cells = table->cells[t->limit->kind];
    if (cells == NULL) {
        return waits_for_disk(out);
    }
    t->place = dp_cells_at(cells, &t->key);
    return t->limit->kind != DP_LIMIT_OF_QUOTA || t->place.key != 0 || waits_for_disk(out);
}

/* How much a bucket of one key holds at most; of what each key has of a shared limit also without
 * what is beyond the burst while no share is in force, or that would fill it. */
static uint64_t holds_most(const struct taking *t)
{
    uint64_t with_extra = t->limit->budget + DP_BUDGET_EXTRA_NS;
    return t->limit->shared != NULL && with_extra > t->budget ? with_extra : t->budget;
}

/*
 * The value of a cell. Of a bucket that took more than it holds now the rate was lower in a
 * snapshot before, or the node's share was, by which one request may be worth days: it is empty,
 * and no emptier, or a rate that was raised would hold hours later. A cell that others count in,
 * too, stays as it is.
 */
static uint64_t forgive(const struct taking *t, uint64_t now_ns, uint64_t value)
{
    bool own = t->limit->kind == DP_LIMIT_OF_RATE && t->place.key != 0;
    uint64_t most = now_ns + holds_most(t);
    if (!own || value <= most || value - most <= LAG_NS) {
        return value;
    }
    (void)dp_cell_change(&t->place, &value, most); /* else some other worker was here. */
    return most;
}

/*
 * The value of a quota's cell. One of a window behind the next one was counted by a clock that was
 * far ahead, and would hold for as long: what it counted counts in the window that runs.
 */
static uint64_t come_back(const struct taking *t, uint64_t value)
{
    uint64_t end_hour = t->key.start >> DP_QUOTA_COUNT_BITS;
    uint64_t has_hour = value >> DP_QUOTA_COUNT_BITS;
    uint64_t counted = value - (has_hour << DP_QUOTA_COUNT_BITS);
    if (has_hour <= end_hour ||
        has_hour <=
            dp_quota_window_of(t->limit->window, (int64_t)end_hour * MS_PER_HOUR).end_hour) {
        return value;
    }
    uint64_t here = (end_hour << DP_QUOTA_COUNT_BITS) + counted;
    (void)dp_cell_change(&t->place, &value, here); /* else some other worker was here. */
    return here;
}

static bool has_room(struct dp_limit_table *table, struct taking *t, uint64_t now_ns,
                     struct dp_limit_refusal *out)
{
    for (unsigned i = 0; i < TRIES; i++) {
        uint64_t value = 0;
        uint64_t then = 0;
        if (!find_place(table, t, out)) {
            return false;
        }
        if (dp_cell_read(&t->place, &value)) {
            value = t->limit->kind == DP_LIMIT_OF_QUOTA ? come_back(t, value)
                                                        : forgive(t, now_ns, value);
            return next(t, now_ns, value, &then, out) && is_kept(table, t, then, out);
        }
    }
    return true; /* whoever takes it finds out. */
}

static void note_count(struct dp_limit_table *table, struct taking *t, uint64_t now_ns,
                       uint64_t value)
{
    if (t->limit->shared != NULL) {
        t->is_fast = value > now_ns + (t->budget / 2 > t->cost ? t->budget / 2 : t->cost);
    } else {
        dp_limit_note_left(table, t->limit, left_of(t, now_ns, value), now_ns);
    }
}

/* Counts one in the cell, wherever that is by now. */
static bool count(struct dp_limit_table *table, struct taking *t, uint64_t now_ns,
                  struct dp_limit_refusal *out)
{
    for (unsigned i = 0; i < TRIES; i++) {
        uint64_t value = 0;
        uint64_t then = 0;
        enum dp_cell_outcome outcome =
            dp_cell_read(&t->place, &value) ? DP_CELL_AGAIN : DP_CELL_LOST;
        while (outcome == DP_CELL_AGAIN) { /* ends: each turn some worker's exchange succeeds. */
            if (!next(t, now_ns, value, &then, out) || !is_kept(table, t, then, out)) {
                return false;
            }
            outcome = dp_cell_change(&t->place, &value, then);
        }
        if (outcome == DP_CELL_DONE) {
            note_count(table, t, now_ns, then);
            return true;
        }
        if (!find_place(table, t, out)) {
            return false;
        }
    }
    out->why = DP_LIMIT_RATE;
    out->retry_ns = NS_PER_MS; /* others took the cell each time. */
    return false;
}

/* Takes one back; nothing when the cell says nothing any more. */
static void uncount(struct dp_cells *cells, const struct dp_cell_key *key,
                    struct dp_cell_place place, uint64_t cost)
{
    for (unsigned i = 0; i < TRIES; i++) {
        uint64_t value = 0;
        enum dp_cell_outcome outcome = dp_cell_read(&place, &value) ? DP_CELL_AGAIN : DP_CELL_LOST;
        while (outcome == DP_CELL_AGAIN) { /* ends: each turn some worker's exchange succeeds. */
            outcome = value < cost ? DP_CELL_DONE : dp_cell_change(&place, &value, value - cost);
        }
        if (outcome == DP_CELL_DONE || !dp_cells_seek(cells, key, &place)) {
            return;
        }
    }
}

static struct err refuse(struct dp_limit_table *table, const struct taking *t, uint64_t now_ns,
                         struct dp_limit_refusal *out)
{
    dp_limit_note_left(table, t->limit, /* left= */ 0, now_ns);
    out->limit = t->limit->id;
    return FAIL(E_RATE_LIMITED);
}

/* Whether the limit counts a request of this key; an error when it is refused for want of one. */
static MUST_CHECK struct err judge_key(struct dp_limit_table *table, struct taking *t,
                                       const struct dp_limit_query *query, bool *out_counts,
                                       struct dp_limit_refusal *out)
{
    struct dp_limit_words words;
    struct slice missing = {0};
    bool whole = dp_limit_find_words(t->limit, query, &words, &missing);
    /* Of another window a quota is another count: by its end alone a month's would be an hour's
     * that a clock which went back had left. */
    dp_limit_key_of(&words, table->seed + (uint64_t)t->limit->window, &t->key);
    *out_counts = true;
    if (whole) {
        return OK;
    }
    uint32_t unknown = unknown_of(t->limit, query);
    if (unknown == TRILANE__PARTS__V1__LIMIT_UNKNOWN__LIMIT_UNKNOWN_CLOSED) {
        out->limit = t->limit->id;
        out->header = missing;
        out->why = DP_LIMIT_KEY;
        return FAIL(E_LIMIT_KEY_MISSING);
    }
    *out_counts = unknown != TRILANE__PARTS__V1__LIMIT_UNKNOWN__LIMIT_UNKNOWN_OPEN;
    return OK;
}

/* ---- budgets of the fleet ---- */

enum { SHARE_RETRY_MS = 1000 };

/* The time of one request by a part of the rate. */
static uint64_t cost_of(const struct dp_limit *limit, uint32_t share)
{
    uint64_t whole = 0;
    if (!__builtin_mul_overflow(limit->cost, SHARE_WHOLE, &whole)) {
        return whole / share;
    }
    bool fits = !__builtin_mul_overflow(limit->cost / share, SHARE_WHOLE, &whole);
    return fits && whole < LIMIT_BUDGET_MAX_NS ? whole : LIMIT_BUDGET_MAX_NS;
}

/* A key without a share of its own counts in a cell, by what each key has. A share holds one
 * request at least. */
static void count_by_base(struct taking *t)
{
    uint64_t budget = t->limit->budget + (t->view.share > 0 ? DP_BUDGET_EXTRA_NS : 0);
    t->cost = cost_of(t->limit, t->share);
    t->budget = budget > t->cost ? budget : t->cost;
}

/* What the node may take of the fleet's budget: its share, or what the limit says in its place. */
static MUST_CHECK struct err judge_share(struct dp_limit_table *table, struct taking *t,
                                         const struct dp_limit_query *query, bool *out_counts,
                                         struct dp_limit_refusal *out)
{
    const struct dp_limit *limit = t->limit;
    t->own = limit->keyed ? dp_budget_of_key(t->key.own) : limit->shared;
    dp_budget_use(t->own != NULL ? t->own : limit->shared, limit->cost, limit->budget);
    if (t->own != NULL) {
        dp_budget_ask(t->own);
    }
    dp_budget_look(t->own != NULL ? t->own : limit->shared, query->now_ns, &t->view);
    t->share = t->own != NULL ? t->view.share : dp_budget_base(t->view.share);
    uint32_t unknown = unknown_of(limit, query);
    if (t->share == 0 && unknown == TRILANE__PARTS__V1__LIMIT_UNKNOWN__LIMIT_UNKNOWN_OPEN) {
        *out_counts = false;
        return OK;
    }
    if (t->share == 0 && unknown == TRILANE__PARTS__V1__LIMIT_UNKNOWN__LIMIT_UNKNOWN_LOCAL) {
        t->share = t->view.equal;
    }
    if (t->share == 0) {
        out->why = DP_LIMIT_SHARE;
        out->retry_ns = SHARE_RETRY_MS * NS_PER_MS;
        return refuse(table, t, query->now_ns, out);
    }
    if (t->own == NULL) {
        count_by_base(t);
    }
    return OK;
}

/* What its cell has counted goes to a key's own budget; a cell that others count in, too, stays as
 * it is. */
static void move_count(struct dp_limit_table *table, const struct taking *t, uint64_t now_ns,
                       struct dp_budget *own)
{
    struct dp_cell_place place = {0};
    uint64_t value = 0;
    bool found = dp_cells_seek(table->cells[DP_LIMIT_OF_RATE], &t->key, &place) &&
                 place.key == t->key.own && dp_cell_read(&place, &value);
    enum dp_cell_outcome outcome = found ? DP_CELL_AGAIN : DP_CELL_LOST;
    while (outcome == DP_CELL_AGAIN && value > now_ns) { /* ends: each turn some worker succeeds. */
        outcome = dp_cell_change(&place, &value, now_ns);
    }
    uint64_t ahead_ns = outcome == DP_CELL_LOST ? t->cost : value > now_ns ? value - now_ns : 0;
    dp_budget_charge(own, dp_budget_part(ahead_ns, t->share));
}

/* A key that is asked for more than each key has is worth a share of its own. */
static void want_share(struct dp_limit_table *table, const struct taking *t,
                       const struct dp_limit_query *query)
{
    bool made_up = t->key.own != t->key.shared;
    struct dp_limit_words words;
    struct slice missing = {0};
    if (t->limit->shared == NULL || t->own != NULL || t->view.share == 0 ||
        !dp_budget_has_place(made_up)) {
        return;
    }
    (void)dp_limit_find_words(t->limit, query, &words, &missing);
    const struct dp_budget_key key = {
        .own = t->key.own, .id = dp_limit_fleet_id(&words), .made_up = made_up};
    if (dp_budget_add_key(t->limit->shared, &key, query->now_ns)) {
        struct dp_budget *own = dp_budget_of_key(key.own);
        if (own != NULL) {
            move_count(table, t, query->now_ns, own);
        }
    }
}

/* ---- all limits ---- */

static bool has_room_of(struct dp_limit_table *table, struct taking *t, uint64_t now_ns,
                        struct dp_limit_refusal *out)
{
    out->why = DP_LIMIT_RATE;
    if (t->own != NULL) {
        return dp_budget_has_room(t->own, &t->view, t->share, &out->retry_ns);
    }
    bool room = has_room(table, t, now_ns, out);
    if (!room && t->limit->shared != NULL) { /* it may have a share by then. */
        uint64_t soon_ns = SHARE_RETRY_MS * NS_PER_MS;
        soon_ns = soon_ns > t->limit->cost ? soon_ns : t->limit->cost;
        out->retry_ns = out->retry_ns < soon_ns ? out->retry_ns : soon_ns;
    }
    return room;
}

static bool count_of(struct dp_limit_table *table, struct taking *t, uint64_t now_ns,
                     struct dp_limit_refusal *out)
{
    out->why = DP_LIMIT_RATE;
    if (t->own == NULL) {
        return count(table, t, now_ns, out);
    }
    if (!dp_budget_take(t->own, &t->view, t->share, &out->retry_ns)) {
        return false;
    }
    dp_limit_note_left(table, t->limit, dp_budget_left(t->own, &t->view, t->share), now_ns);
    return true;
}

/* The limits that a request must pass; an error when it is refused by looking at them. */
static MUST_CHECK struct err look(struct dp_limit_table *table,
                                  const struct dp_limit_target *target,
                                  const struct dp_limit_query *query, struct taking *takings,
                                  size_t *out_count, struct dp_limit_refusal *out)
{
    size_t n = 0;
    const struct now now = {.mono_ns = query->now_ns,
                            .wall_ms = target->calendar ? clock_wall_ms() : 0};
    for (size_t i = 0; i < target->limit_count; i++) {
        struct taking *t = &takings[n];
        bool counts = false;
        *t = (struct taking){.limit = &target->limits[i],
                             .cost = target->limits[i].cost,
                             .budget = target->limits[i].budget};
        if (!matches(t->limit, query->method)) {
            continue;
        }
        TRY(judge_key(table, t, query, &counts, out));
        if (counts && t->limit->shared != NULL) {
            TRY(judge_share(table, t, query, &counts, out));
        }
        if (!counts) {
            continue;
        }
        begin(table, t, &now);
        if (!has_room_of(table, t, now.mono_ns, out)) {
            want_share(table, t, query);
            return refuse(table, t, now.mono_ns, out);
        }
        n++;
    }
    *out_count = n;
    return OK;
}

static void hold(struct dp_limit_held *held, const struct taking *t)
{
    CHECK(held->count < DP_LIMIT_HELD_MAX);
    held->items[held->count].key = t->key;
    held->items[held->count].place = t->place;
    held->count++;
}

static void give_back(struct dp_limit_table *table, const struct taking *takings, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct taking *t = &takings[i];
        if (t->own != NULL) {
            dp_budget_return(t->own);
        } else {
            uncount(table->cells[t->limit->kind], &t->key, t->place, t->cost);
        }
    }
}

struct err dp_limit_take(struct dp_limit_table *table, const struct dp_limit_target *target,
                         const struct dp_limit_query *query, struct dp_limit_held *held,
                         struct dp_limit_refusal *out)
{
    if (target == NULL) {
        return OK;
    }
    CHECK(held->count == 0);
    struct taking takings[DP_LIMITS_MAX];
    size_t n = 0;
    TRY(look(table, target, query, takings, &n, out));
    for (size_t i = 0; i < n; i++) {
        struct taking *t = &takings[i];
        if (!count_of(table, t, query->now_ns, out)) {
            give_back(table, takings, i);
            held->count = 0;
            return refuse(table, t, query->now_ns, out);
        }
        if (t->limit->kind == DP_LIMIT_OF_CONCURRENCY) {
            hold(held, t);
        }
    }
    for (size_t i = 0; i < n; i++) {
        if (takings[i].is_fast) {
            want_share(table, &takings[i], query);
        }
    }
    return OK;
}

void dp_limit_release(struct dp_limit_table *table, struct dp_limit_held *held)
{
    for (size_t i = 0; i < held->count; i++) {
        uncount(table->cells[DP_LIMIT_OF_CONCURRENCY], &held->items[i].key, held->items[i].place,
                /* cost= */ 1);
    }
    held->count = 0;
}
