/* metrics: see metrics.h. Cells of all series lie in one array a shard, laid out at the start: a
 * series is the index of its first cell. The one writer stores with relaxed atomics, which cost
 * nothing more than plain stores; so a scrape on another thread reads whole values. */
#include "common/telemetry/metrics.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/lock.h"
#include "common/base/map.h"

enum {
    /* Buckets of a histogram: exact up to 15, then 8 to each doubling, up to 2^40. */
    SUB_BITS = 3,
    EXACT = 2 << SUB_BITS,
    TOP_BIT = 40,
    BUCKETS = EXACT + (TOP_BIT - SUB_BITS - 1) * (1 << SUB_BITS),
    /* Cells: one for a counter or gauge; for a histogram its sum, and behind it its buckets. */
    HISTOGRAM_CELLS = 1 + BUCKETS,
    SERIES_DEFAULT = 64,
    KEY_MAX = METRICS_LABELS_MAX * (METRICS_LABEL_VALUE_MAX + 1),
    /* A scrape shows one bucket a doubling: enough for graphs, a tenth of the bytes. */
    SHOWN_PER_DOUBLING = 1,
    CACHE_LINE = 64,
};

typedef _Atomic(int64_t) cell;

struct metrics_shard {
    cell *cells;
    uint32_t cell_count;
};

struct series {
    char *key; /* label values, each ended by a NUL; owned. */
    size_t key_size;
    metrics_id first; /* cell. */
};

struct family {
    const struct metrics_family *row;
    uint32_t label_count;
    uint32_t series_max; /* without "other". */
    uint32_t cells_each;
    metrics_id first; /* cell of its first series. */
    struct map by_key;
    struct series *series; /* series_max + 1; the last is "other". */
    uint32_t series_count; /* made, without "other". */
    bool other_made;
};

struct metrics {
    struct family *families;
    size_t family_count;
    struct metrics_shard *shards;
    size_t shard_count;
    uint32_t cell_count;
    struct lock lock; /* series and their maps. */
};

static void families_free(struct metrics *m)
{
    for (size_t i = 0; m->families != NULL && i < m->family_count; i++) {
        struct family *f = &m->families[i];
        for (size_t s = 0; f->series != NULL && s <= f->series_max; s++) {
            free(f->series[s].key);
        }
        free(f->series);
        map_free(&f->by_key);
    }
    free(m->families);
}

void metrics_free(struct metrics *m)
{
    if (m == NULL) {
        return;
    }
    for (size_t i = 0; m->shards != NULL && i < m->shard_count; i++) {
        free(m->shards[i].cells);
    }
    free(m->shards);
    families_free(m);
    lock_free(&m->lock);
    free(m);
}

static uint32_t count_labels(const struct metrics_family *row)
{
    uint32_t count = 0;
    while (count < METRICS_LABELS_MAX && row->labels[count] != NULL) {
        count++;
    }
    return count;
}

/* Lays a family's cells behind those that are there; cell 0 belongs to nobody. */
static struct err family_init(struct metrics *m, struct family *f, const struct metrics_family *row)
{
    f->row = row;
    f->label_count = count_labels(row);
    f->series_max = f->label_count == 0 ? 1 : row->series_max;
    f->series_max = f->series_max == 0 ? SERIES_DEFAULT : f->series_max;
    f->cells_each = row->kind == METRICS_HISTOGRAM ? HISTOGRAM_CELLS : 1;
    f->first = m->cell_count;
    m->cell_count += (f->series_max + 1) * f->cells_each;
    f->series = calloc((size_t)f->series_max + 1, sizeof(*f->series));
    return f->series == NULL ? FAIL(E_NO_MEMORY) : OK;
}

static struct err metrics_build(struct metrics *m, const struct metrics_family *rows)
{
    m->families = calloc(m->family_count, sizeof(*m->families));
    m->shards = calloc(m->shard_count, sizeof(*m->shards));
    if (m->families == NULL || m->shards == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    m->cell_count = 1;
    for (size_t i = 0; i < m->family_count; i++) {
        TRY(family_init(m, &m->families[i], &rows[i]));
    }
    size_t bytes = (m->cell_count * sizeof(cell) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    for (size_t i = 0; i < m->shard_count; i++) {
        m->shards[i].cells = aligned_alloc(CACHE_LINE, bytes); /* no line has two writers. */
        m->shards[i].cell_count = m->cell_count;
        if (m->shards[i].cells == NULL) {
            return FAIL(E_NO_MEMORY);
        }
        memset(m->shards[i].cells, 0, bytes);
    }
    return OK;
}

struct err metrics_new(const struct metrics_family *families, size_t family_count,
                       size_t shard_count, struct metrics **out)
{
    CHECK(family_count > 0 && shard_count > 0);
    struct metrics *m = calloc(1, sizeof(*m));
    if (m == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    lock_init(&m->lock);
    m->family_count = family_count;
    m->shard_count = shard_count;
    struct err failed = metrics_build(m, families);
    if (!err_ok(failed)) {
        metrics_free(m);
        return failed;
    }
    *out = m;
    return OK;
}

struct metrics_shard *metrics_shard(struct metrics *m, size_t index)
{
    CHECK(index < m->shard_count);
    return &m->shards[index];
}

/* Label values in a row, cut at their bound. */
static size_t write_key(const struct family *f, const struct slice *values, char out[KEY_MAX])
{
    size_t size = 0;
    for (uint32_t i = 0; i < f->label_count; i++) {
        struct slice value = slice_head(values[i], METRICS_LABEL_VALUE_MAX);
        value = slice_head(value, slice_find(value, 0));
        if (value.size > 0) {
            memcpy(out + size, value.ptr, value.size);
        }
        size += value.size;
        out[size++] = '\0';
    }
    return size;
}

static struct series *series_set(struct family *f, uint32_t index, const char *key, size_t size)
{
    struct series *s = &f->series[index];
    s->key = malloc(size == 0 ? 1 : size);
    if (s->key == NULL) {
        return NULL;
    }
    memcpy(s->key, key, size);
    s->key_size = size;
    s->first = f->first + index * f->cells_each;
    return s;
}

static struct series *series_other(struct family *f)
{
    struct slice values[METRICS_LABELS_MAX];
    char key[KEY_MAX];
    for (size_t i = 0; i < METRICS_LABELS_MAX; i++) {
        values[i] = SLICE_LIT("other");
    }
    if (!f->other_made) {
        size_t size = write_key(f, values, key);
        f->other_made = series_set(f, f->series_max, key, size) != NULL;
    }
    return f->other_made ? &f->series[f->series_max] : NULL;
}

static struct series *series_find(struct family *f, const char *key, size_t size)
{
    struct series *found = map_get(&f->by_key, slice_of(key, size));
    if (found != NULL) {
        return found;
    }
    if (f->series_count == f->series_max) {
        return series_other(f);
    }
    struct series *made = series_set(f, f->series_count, key, size);
    if (made == NULL) {
        return NULL;
    }
    if (!err_ok(map_put(&f->by_key, slice_of(made->key, made->key_size), made,
                        /* out_old= */ NULL))) {
        free(made->key);
        *made = (struct series){0};
        return NULL;
    }
    f->series_count++;
    return made;
}

metrics_id metrics_series(struct metrics *m, size_t family, const struct slice *values)
{
    CHECK(family < m->family_count);
    struct family *f = &m->families[family];
    char key[KEY_MAX];
    size_t size = write_key(f, values, key);
    lock_take(&m->lock);
    struct series *s = series_find(f, key, size);
    lock_drop(&m->lock);
    return s == NULL ? 0 : s->first;
}

metrics_id metrics_plain(struct metrics *m, size_t family)
{
    CHECK(family < m->family_count && m->families[family].label_count == 0);
    return metrics_series(m, family, NULL);
}

static void cell_add(cell *c, int64_t value)
{
    int64_t now = atomic_load_explicit(c, memory_order_relaxed);
    atomic_store_explicit(c, (int64_t)((uint64_t)now + (uint64_t)value), memory_order_relaxed);
}

void metrics_add(struct metrics_shard *s, metrics_id counter_or_gauge, int64_t value)
{
    CHECK(counter_or_gauge < s->cell_count);
    cell_add(&s->cells[counter_or_gauge], value);
}

void metrics_set(struct metrics_shard *s, metrics_id gauge, int64_t value)
{
    CHECK(gauge < s->cell_count);
    atomic_store_explicit(&s->cells[gauge], value, memory_order_relaxed);
}

static uint32_t bucket_of(uint64_t value)
{
    if (value < EXACT) {
        return (uint32_t)value;
    }
    unsigned top = 63U - (unsigned)__builtin_clzll(value);
    if (top >= TOP_BIT) {
        return BUCKETS - 1;
    }
    unsigned shift = top - SUB_BITS;
    uint32_t sub = (uint32_t)(value >> shift) & ((1U << SUB_BITS) - 1);
    return EXACT + (top - SUB_BITS - 1) * (1U << SUB_BITS) + sub;
}

/* The largest value that falls into a bucket. */
static uint64_t bucket_top(uint32_t bucket)
{
    if (bucket < EXACT) {
        return bucket;
    }
    uint32_t above = bucket - EXACT;
    unsigned shift = above / (1U << SUB_BITS) + 1;
    uint64_t sub = (1U << SUB_BITS) + above % (1U << SUB_BITS);
    return ((sub + 1) << shift) - 1;
}

void metrics_record(struct metrics_shard *s, metrics_id histogram, uint64_t value)
{
    if (histogram == 0) {
        return;
    }
    CHECK(histogram + HISTOGRAM_CELLS <= s->cell_count);
    cell_add(&s->cells[histogram], value > INT64_MAX ? INT64_MAX : (int64_t)value);
    cell_add(&s->cells[histogram + 1 + bucket_of(value)], 1);
}

static int64_t cell_sum(const struct metrics *m, metrics_id index)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < m->shard_count && index != 0; i++) {
        sum += (uint64_t)atomic_load_explicit(&m->shards[i].cells[index], memory_order_relaxed);
    }
    return (int64_t)sum;
}

static const struct family *family_of(const struct metrics *m, metrics_id id)
{
    size_t i = m->family_count;
    while (i > 0 && m->families[i - 1].first > id) {
        i--;
    }
    return i == 0 ? NULL : &m->families[i - 1];
}

static int64_t histogram_count(const struct metrics *m, metrics_id id)
{
    int64_t count = 0;
    for (uint32_t b = 0; b < BUCKETS; b++) {
        count += cell_sum(m, id + 1 + b);
    }
    return count;
}

int64_t metrics_value(struct metrics *m, metrics_id id)
{
    CHECK(id < m->cell_count);
    const struct family *f = family_of(m, id);
    bool histogram = f != NULL && f->row->kind == METRICS_HISTOGRAM;
    return histogram ? histogram_count(m, id) : cell_sum(m, id);
}

uint64_t metrics_percentile(struct metrics *m, metrics_id histogram, double percent)
{
    if (histogram == 0) {
        return 0;
    }
    CHECK(histogram + HISTOGRAM_CELLS <= m->cell_count);
    int64_t count = histogram_count(m, histogram);
    double wanted = (double)count * percent / 100.0;
    int64_t seen = 0;
    for (uint32_t b = 0; b < BUCKETS && count > 0; b++) {
        seen += cell_sum(m, histogram + 1 + b);
        if (seen > 0 && (double)seen >= wanted) {
            return bucket_top(b);
        }
    }
    return 0;
}

/* A label's value, with the three escapes of the format. */
static struct err write_label_value(struct buf *out, const char *value)
{
    for (const char *c = value; *c != '\0'; c++) {
        if (*c == '\\' || *c == '"') {
            TRY(buf_add_byte(out, '\\'));
            TRY(buf_add_byte(out, (uint8_t)*c));
        } else if (*c == '\n') {
            TRY(buf_add_str(out, "\\n"));
        } else {
            TRY(buf_add_byte(out, (uint8_t)*c));
        }
    }
    return OK;
}

/* {a="b",c="d"}, with 'le' added when it is not NULL; nothing when there are no labels. */
static struct err write_labels(struct buf *out, const struct family *f, const struct series *s,
                               const char *le)
{
    if (f->label_count == 0 && le == NULL) {
        return OK;
    }
    const char *value = s->key;
    TRY(buf_add_byte(out, '{'));
    for (uint32_t i = 0; i < f->label_count; i++) {
        TRY(buf_addf(out, "%s%s=\"", i == 0 ? "" : ",", f->row->labels[i]));
        TRY(write_label_value(out, value));
        TRY(buf_add_byte(out, '"'));
        value += strlen(value) + 1;
    }
    if (le != NULL) {
        TRY(buf_addf(out, "%sle=\"%s\"", f->label_count == 0 ? "" : ",", le));
    }
    return buf_add_byte(out, '}');
}

static struct err write_number(struct buf *out, const struct family *f, int64_t value)
{
    double scale = f->row->scale;
    if (scale == 0 || scale == 1) {
        return buf_addf(out, " %lld\n", (long long)value);
    }
    return buf_addf(out, " %.12g\n", (double)value * scale);
}

static struct err write_bound(struct buf *out, const struct family *f, uint64_t top)
{
    double scale = f->row->scale == 0 ? 1 : f->row->scale;
    return buf_addf(out, "%.12g", (double)top * scale);
}

static struct err write_bucket(struct buf *out, const struct family *f, const struct series *s,
                               const char *le, int64_t count)
{
    TRY(buf_addf(out, "%s_bucket", f->row->name));
    TRY(write_labels(out, f, s, le));
    return buf_addf(out, " %lld\n", (long long)count);
}

static struct err render_histogram(struct metrics *m, struct buf *out, const struct family *f,
                                   const struct series *s)
{
    enum { STRIDE = (1 << SUB_BITS) / SHOWN_PER_DOUBLING, BOUND_MAX = 64 };
    int64_t seen = 0;
    for (uint32_t b = 0; b < BUCKETS; b++) {
        seen += cell_sum(m, s->first + 1 + b);
        if (b % STRIDE != STRIDE - 1 || b == BUCKETS - 1) {
            continue;
        }
        auto_buf struct buf bound = BUF_MAX(BOUND_MAX);
        const char *le = NULL;
        TRY(write_bound(&bound, f, bucket_top(b)));
        TRY(buf_cstr(&bound, &le));
        TRY(write_bucket(out, f, s, le, seen));
    }
    TRY(write_bucket(out, f, s, "+Inf", seen));
    TRY(buf_addf(out, "%s_sum", f->row->name));
    TRY(write_labels(out, f, s, NULL));
    TRY(write_number(out, f, cell_sum(m, s->first)));
    TRY(buf_addf(out, "%s_count", f->row->name));
    TRY(write_labels(out, f, s, NULL));
    return buf_addf(out, " %lld\n", (long long)seen);
}

static struct err render_series(struct metrics *m, struct buf *out, const struct family *f,
                                const struct series *s)
{
    if (f->row->kind == METRICS_HISTOGRAM) {
        return render_histogram(m, out, f, s);
    }
    TRY(buf_add_str(out, f->row->name));
    TRY(write_labels(out, f, s, NULL));
    return write_number(out, f, cell_sum(m, s->first));
}

/* OpenMetrics names a counter's family without "_total". */
static struct err render_head(struct buf *out, const struct family *f, bool openmetrics)
{
    static const char *const kinds[] = {"counter", "gauge", "histogram"};
    struct slice name = slice_str(f->row->name);
    struct slice total = SLICE_LIT("_total");
    if (openmetrics && f->row->kind == METRICS_COUNTER && slice_ends(name, total)) {
        name = slice_head(name, name.size - total.size);
    }
    TRY(buf_addf(out, "# HELP %.*s %s\n", SLICE_ARG(name), f->row->help));
    return buf_addf(out, "# TYPE %.*s %s\n", SLICE_ARG(name), kinds[f->row->kind]);
}

static struct err render_family(struct metrics *m, struct buf *out, const struct family *f,
                                bool openmetrics)
{
    if (f->series_count == 0 && !f->other_made) {
        return OK;
    }
    TRY(render_head(out, f, openmetrics));
    for (uint32_t i = 0; i < f->series_count; i++) {
        TRY(render_series(m, out, f, &f->series[i]));
    }
    return f->other_made ? render_series(m, out, f, &f->series[f->series_max]) : OK;
}

struct err metrics_render(struct metrics *m, bool openmetrics, struct buf *out)
{
    struct err failed = OK;
    lock_take(&m->lock);
    for (size_t i = 0; i < m->family_count && err_ok(failed); i++) {
        failed = render_family(m, out, &m->families[i], openmetrics);
    }
    lock_drop(&m->lock);
    TRY(failed);
    return openmetrics ? buf_add_str(out, "# EOF\n") : OK;
}
