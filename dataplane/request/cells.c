/*
 * cells: see cells.h.
 *
 * A cell changes hands by the same exchange that counts in it, so whoever counts either counts for
 * his own key or hears that the cell is lost. Two workers may bring one key into two cells at once;
 * an exchange is a full barrier, so the later one sees the other's cell behind its own exchange,
 * and moves what the second of the two cells counted into the first. Everybody looks in the same
 * order and so uses that.
 */
#include "dataplane/request/cells.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "common/base/check.h"

enum { WAYS = 8, CANDIDATES = 2 * WAYS, CELLS_MIN = 128, CROWD = 1024, CACHE_LINE = 64 };

enum region { SETTLED, MADE_UP, REGION_COUNT };

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "a pair has its key in the low half");

/* ISO C has no integer of 16 bytes; cmpxchg16b of x86-64 and casp of arm64 have. */
__extension__ typedef unsigned __int128 pair;

struct dp_cell {
    union {
        struct {
            _Atomic uint64_t key; /* zero: free, or of the crowd. */
            _Atomic uint64_t value;
        } half;
        pair both;
    };
};

struct region_cells {
    struct dp_cell *cells;
    size_t mask; /* of sets. */
};

struct dp_cells {
    struct region_cells regions[REGION_COUNT];
    struct dp_cell *crowd;
    _Atomic uint64_t crowded;
};

static struct dp_cell *cells_alloc(size_t count)
{
    size_t bytes = count * sizeof(struct dp_cell);
    struct dp_cell *cells = aligned_alloc(CACHE_LINE, bytes);
    for (size_t i = 0; cells != NULL && i < count; i++) {
        atomic_init(&cells[i].half.key, 0);
        atomic_init(&cells[i].half.value, 0);
    }
    return cells;
}

struct err dp_cells_new(size_t count, struct dp_cells **out)
{
    size_t rounded = CELLS_MIN;
    while (rounded < count) {
        rounded *= 2;
    }
    struct dp_cells *t = calloc(1, sizeof(*t));
    if (t == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    bool made = (t->crowd = cells_alloc(CROWD)) != NULL;
    for (size_t i = 0; i < REGION_COUNT; i++) {
        t->regions[i].cells = cells_alloc(rounded / REGION_COUNT);
        t->regions[i].mask = rounded / REGION_COUNT / WAYS - 1;
        made = made && t->regions[i].cells != NULL;
    }
    if (!made) {
        dp_cells_free(t);
        return FAIL(E_NO_MEMORY);
    }
    *out = t;
    return OK;
}

void dp_cells_free(struct dp_cells *cells)
{
    if (cells == NULL) {
        return;
    }
    for (size_t i = 0; i < REGION_COUNT; i++) {
        free(cells->regions[i].cells);
    }
    free(cells->crowd);
    free(cells);
}

static pair pair_of(uint64_t key, uint64_t value)
{
    return (pair)value << 64 | key;
}

/* Full barrier. */
static pair exchange(struct dp_cell *cell, pair from, pair to)
{
    return __sync_val_compare_and_swap(&cell->both, from, to);
}

/* The i-th cell in which a key may be. */
static struct dp_cell *candidate(const struct region_cells *r, uint64_t key, size_t i)
{
    uint64_t set = i < WAYS ? key : key >> 32;
    return &r->cells[((size_t)set & r->mask) * WAYS + i % WAYS];
}

/* The first cell of the key behind the first 'from' of its candidates; their number: none. */
static size_t seek(const struct region_cells *r, uint64_t key, size_t from)
{
    size_t i = from;
    while (i < CANDIDATES &&
           atomic_load_explicit(&candidate(r, key, i)->half.key, memory_order_acquire) != key) {
        i++;
    }
    return i;
}

static struct dp_cell_place found(const struct region_cells *r, uint64_t key, size_t i)
{
    return (struct dp_cell_place){.cell = candidate(r, key, i), .key = key};
}

bool dp_cell_read(const struct dp_cell_place *place, uint64_t *out)
{
    /* The key behind the value: had the cell changed hands in between, it would be another one. A
     * cell that came back to its key in between has a value of it all the same. */
    *out = atomic_load_explicit(&place->cell->half.value, memory_order_acquire);
    return atomic_load_explicit(&place->cell->half.key, memory_order_acquire) == place->key;
}

enum dp_cell_outcome dp_cell_change(const struct dp_cell_place *place, uint64_t *seen, uint64_t to)
{
    pair from = pair_of(place->key, *seen);
    pair was = exchange(place->cell, from, pair_of(place->key, to));
    if (was == from) {
        return DP_CELL_DONE;
    }
    *seen = (uint64_t)(was >> 64);
    return (uint64_t)was == place->key ? DP_CELL_AGAIN : DP_CELL_LOST;
}

/* Adds to what a cell of the key counts; what was added too much is taken back by adding less than
 * nothing. */
static void add(const struct dp_cell_place *to, const struct dp_cell_key *key, uint64_t counted)
{
    uint64_t value = 0;
    enum dp_cell_outcome outcome = dp_cell_read(to, &value) ? DP_CELL_AGAIN : DP_CELL_LOST;
    while (outcome == DP_CELL_AGAIN) { /* ends: each turn some worker's exchange succeeds. */
        uint64_t base = value > key->start ? value : key->start;
        outcome = dp_cell_change(to, &value, base + counted);
    }
}

/* Empties a cell into another one of the same key. What it counts is there before it goes from
 * here, so that whoever takes back what he counted finds it in one of the two. */
static void move(const struct dp_cell_place *from, const struct dp_cell_place *to,
                 const struct dp_cell_key *key)
{
    uint64_t value = 0;
    uint64_t moved = 0;
    bool mine = dp_cell_read(from, &value);
    while (mine) { /* ends: each turn some worker's exchange succeeds. */
        uint64_t counted = value > key->start ? value - key->start : 0;
        add(to, key, counted - moved);
        moved = counted;
        pair seen = pair_of(from->key, value);
        pair was = exchange(from->cell, seen, 0);
        if (was == seen) {
            return;
        }
        value = (uint64_t)(was >> 64);
        mine = (uint64_t)was == from->key;
    }
    add(to, key, 0 - moved); /* it was free by then, and another key took it. */
}

/* Of several cells of one key only the first one stays. */
static struct dp_cell_place settle(const struct region_cells *r, const struct dp_cell_key *key,
                                   uint64_t hash, size_t mine)
{
    size_t first = seek(r, hash, 0);
    first = first < CANDIDATES ? first : mine;
    struct dp_cell_place kept = found(r, hash, first);
    size_t other = seek(r, hash, first + 1);
    while (other < CANDIDATES) {
        struct dp_cell_place second = found(r, hash, other);
        if (second.cell != kept.cell) { /* its two sets may be one. */
            move(&second, &kept, key);
        }
        other = seek(r, hash, other + 1);
    }
    return kept;
}

/* Takes the first free candidate; false: there is none, or others were quicker each time. */
static bool claim(const struct region_cells *r, const struct dp_cell_key *key, uint64_t hash,
                  struct dp_cell_place *out)
{
    for (size_t i = 0; i < CANDIDATES; i++) {
        struct dp_cell *cell = candidate(r, hash, i);
        uint64_t value = atomic_load_explicit(&cell->half.value, memory_order_acquire);
        if (value > key->floor) {
            continue;
        }
        pair from = pair_of(atomic_load_explicit(&cell->half.key, memory_order_acquire), value);
        if (exchange(cell, from, pair_of(hash, key->start)) == from) {
            *out = settle(r, key, hash, i);
            return true;
        }
    }
    return false;
}

static bool find(const struct region_cells *r, uint64_t hash, struct dp_cell_place *out)
{
    size_t i = seek(r, hash, 0);
    if (i == CANDIDATES) {
        return false;
    }
    *out = found(r, hash, i);
    return true;
}

static struct dp_cell_place in_crowd(const struct dp_cells *cells, uint64_t hash)
{
    return (struct dp_cell_place){.cell = &cells->crowd[(size_t)hash % CROWD], .key = 0};
}

struct dp_cell_place dp_cells_at(struct dp_cells *cells, const struct dp_cell_key *key)
{
    CHECK(key->own != 0 && key->shared != 0);
    struct dp_cell_place place;
    const struct region_cells *made_up = &cells->regions[MADE_UP];
    const struct region_cells *settled = &cells->regions[SETTLED];
    if (key->own != key->shared) {
        if (find(made_up, key->own, &place) || claim(made_up, key, key->own, &place)) {
            return place;
        }
        atomic_fetch_add_explicit(&cells->crowded, 1, memory_order_relaxed);
    }
    if (find(settled, key->shared, &place) || claim(settled, key, key->shared, &place)) {
        return place;
    }
    atomic_fetch_add_explicit(&cells->crowded, 1, memory_order_relaxed);
    return in_crowd(cells, key->shared);
}

bool dp_cells_seek(struct dp_cells *cells, const struct dp_cell_key *key, struct dp_cell_place *out)
{
    return (key->own != key->shared && find(&cells->regions[MADE_UP], key->own, out)) ||
           find(&cells->regions[SETTLED], key->shared, out);
}

uint64_t dp_cells_crowded(const struct dp_cells *cells)
{
    return atomic_load_explicit(&cells->crowded, memory_order_relaxed);
}

/* ---- all cells ---- */

/* Of one region; both have as many. */
static size_t region_count(const struct dp_cells *cells)
{
    return (cells->regions[SETTLED].mask + 1) * WAYS;
}

size_t dp_cells_count(const struct dp_cells *cells)
{
    return region_count(cells) * REGION_COUNT;
}

bool dp_cells_is_made_up(const struct dp_cells *cells, size_t index)
{
    return index >= region_count(cells);
}

size_t dp_cells_index(const struct dp_cells *cells, const struct dp_cell_place *place)
{
    CHECK(place->key != 0);
    size_t count = region_count(cells);
    const struct dp_cell *settled = cells->regions[SETTLED].cells;
    const struct dp_cell *made_up = cells->regions[MADE_UP].cells;
    bool is_settled = place->cell >= settled && place->cell < settled + count;
    return is_settled ? (size_t)(place->cell - settled) : count + (size_t)(place->cell - made_up);
}

static struct dp_cell *cell_at(const struct dp_cells *cells, size_t index)
{
    size_t count = region_count(cells);
    return index < count ? &cells->regions[SETTLED].cells[index]
                         : &cells->regions[MADE_UP].cells[index - count];
}

bool dp_cells_get(const struct dp_cells *cells, size_t index, uint64_t *out_key,
                  uint64_t *out_value)
{
    struct dp_cell *cell = cell_at(cells, index);
    struct dp_cell_place place = {
        .cell = cell, .key = atomic_load_explicit(&cell->half.key, memory_order_acquire)};
    *out_key = place.key;
    return place.key != 0 && dp_cell_read(&place, out_value);
}

/* Better: the first one behind 'from', else the first one. */
static bool is_better(size_t index, size_t found, size_t from)
{
    bool behind = index >= from;
    return behind != (found >= from) ? behind : index < found;
}

/*
 * A key has two sets, and a full table none to spare. Keys that come in the order of their cells
 * find room all the same: each may lie where it lay, and lies no further, so that all behind it is
 * free.
 */
struct err dp_cells_restore(struct dp_cells *cells, bool made_up, uint64_t key, uint64_t value,
                            size_t from, size_t *out_index)
{
    const struct region_cells *r = &cells->regions[made_up ? MADE_UP : SETTLED];
    struct dp_cell_place found = {.cell = NULL, .key = key};
    for (size_t i = 0; i < CANDIDATES; i++) {
        const struct dp_cell_place place = {.cell = candidate(r, key, i), .key = key};
        size_t index = dp_cells_index(cells, &place);
        if (atomic_load_explicit(&place.cell->half.key, memory_order_relaxed) == 0 &&
            (found.cell == NULL || is_better(index, *out_index, from))) {
            found = place;
            *out_index = index;
        }
    }
    if (found.cell == NULL) {
        return FAIL(E_TOO_LARGE);
    }
    atomic_store_explicit(&found.cell->half.value, value, memory_order_relaxed);
    atomic_store_explicit(&found.cell->half.key, key, memory_order_release);
    return OK;
}
