/*
 * policy_values: the texts that the edges of a target name, as numbers, and the tables by which a
 * node of the data plane finds the number of a value.
 *
 * Of fronts the longest that a value begins with is looked for: by a binary search over their
 * lengths, which hashes the value's head of the length in the middle and goes on to longer ones
 * where a table has it. For that the table has, beside each front, its heads of those lengths at
 * which the search for it passes (Waldvogel, Varghese, Turner, Plattner 1997). So a lookup takes
 * the logarithm of the number of lengths, whatever the number of fronts.
 */
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/scope.h"
#include "dataplane/request/policy_impl.h"

/* The texts of one column, each once; either its values or its fronts. */
struct run {
    struct policy_column *column;
    bool fronts;
    uint32_t first;      /* index of its first text among those of all runs. */
    struct slice *texts; /* ascending. */
    uint32_t *parents;   /* of fronts. */
    uint32_t *records;   /* of values. */
    uint32_t count;
    uint32_t length_count;
};

/* How much of each array is taken. */
struct filling {
    struct dp_policy_target *t;
    size_t places;
    size_t lengths;
    size_t parents;
};

/* Where the head of a length is in the table some front is that long or longer, and else none. */
uint32_t policy_find_front(const struct dp_policy_target *t, const struct policy_column *column,
                           struct slice text)
{
    const uint32_t *lengths = t->lengths + column->first_length;
    uint32_t low = 0;
    uint32_t high = column->length_count;
    uint32_t best = 0;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        uint32_t record = 0;
        if (lengths[middle] <= text.size) {
            struct slice head = slice_head(text, lengths[middle]);
            record = policy_find_text(t, column->fronts, head, policy_hash(head));
        }
        if (record == 0) {
            high = middle;
        } else {
            best = t->texts[record + POLICY_RECORD_NUMBER];
            low = middle + 1;
        }
    }
    return best;
}

/* ---- runs ---- */

static int naming_order(const void *x, const void *y)
{
    const struct policy_naming *a = x;
    const struct policy_naming *b = y;
    if (a->column != b->column) {
        return a->column < b->column ? -1 : 1;
    }
    if (a->front != b->front) {
        return a->front ? 1 : -1;
    }
    return slice_cmp(a->text, b->text);
}

/* The longest other front that each one begins with: the one before it, or what that begins with.
 */
static void find_parents(struct run *run)
{
    for (uint32_t i = 0; i < run->count; i++) {
        uint32_t parent = i; /* the number of the one before. */
        while (parent != 0 && !slice_starts(run->texts[i], run->texts[parent - 1])) {
            parent = run->parents[parent - 1];
        }
        run->parents[i] = parent;
    }
}

/*
 * The texts of the run that begins with the first of the namings; returns how many these are. Of a
 * number the record is the text's index among those of all runs, until it has one.
 */
static size_t take_run(struct run *run, const struct policy_naming *namings, size_t count,
                       struct policy_number *out_numbers)
{
    size_t at = 0;
    while (at < count && namings[at].column == namings[0].column &&
           namings[at].front == namings[0].front) {
        if (run->count == 0 || !slice_eq(run->texts[run->count - 1], namings[at].text)) {
            run->texts[run->count++] = namings[at].text;
        }
        out_numbers[namings[at].edge] =
            (struct policy_number){.number = run->count, .record = run->first + run->count - 1};
        at++;
    }
    return at;
}

/* ---- lengths ---- */

static int length_order(const void *x, const void *y)
{
    uint32_t a = *(const uint32_t *)x;
    uint32_t b = *(const uint32_t *)y;
    return (a > b) - (a < b);
}

static void fill_lengths(struct filling *f, struct run *run)
{
    uint32_t *lengths = f->t->lengths + f->lengths;
    for (uint32_t i = 0; i < run->count; i++) {
        lengths[i] = (uint32_t)run->texts[i].size;
    }
    qsort(lengths, run->count, sizeof(*lengths), length_order);
    for (uint32_t i = 0; i < run->count; i++) {
        if (run->length_count == 0 || lengths[run->length_count - 1] != lengths[i]) {
            lengths[run->length_count++] = lengths[i];
        }
    }
    run->column->first_length = (uint32_t)f->lengths;
    run->column->length_count = run->length_count;
    f->lengths += run->length_count;
}

/* ---- texts of a table ---- */

uint32_t policy_add_record(struct dp_policy_target *t, uint32_t number, struct slice text)
{
    size_t at = t->text_words_used;
    CHECK(policy_record_words(text.size) <= t->text_words - at);
    t->texts[at + POLICY_RECORD_NUMBER] = number;
    t->texts[at + POLICY_RECORD_SIZE] = (uint32_t)text.size;
    if (text.size > 0) {
        (void)memcpy(&t->texts[at + POLICY_RECORD_HEAD], text.ptr, text.size);
    }
    t->text_words_used += policy_record_words(text.size);
    return (uint32_t)at;
}

/* Puts a text into a table that has room; its record. */
static uint32_t put(struct dp_policy_target *t, struct policy_table table, struct slice text,
                    uint32_t number)
{
    uint64_t hash = policy_hash(text);
    uint64_t at = hash;
    while (t->places[table.first + (at & table.mask)].record != 0) {
        at++;
    }
    uint32_t record = policy_add_record(t, number, text);
    t->places[table.first + (at & table.mask)] =
        (struct policy_place){.mark = (uint32_t)(hash >> 32), .record = record};
    return record;
}

/* What a table will have. */
struct contents {
    size_t count;
    size_t words;
};

/* The longest front, of those that one begins with and itself, of at most that size. */
static uint32_t front_within(const struct run *run, uint32_t index, size_t size)
{
    uint32_t number = index + 1;
    while (number != 0 && run->texts[number - 1].size > size) {
        number = run->parents[number - 1];
    }
    return number;
}

/*
 * Each front, and its heads where the search for it passes, once: equal heads follow each other, as
 * the fronts are sorted. 'last' has, of each length, 1 + the front whose head was the last one.
 * With a table they are put into it.
 */
static struct contents each_head(struct filling *f, const struct run *run, uint32_t *last,
                                 const struct policy_table *table)
{
    const uint32_t *lengths = f->t->lengths + run->column->first_length;
    struct contents all = {0};
    (void)memset(last, 0, run->length_count * sizeof(*last));
    for (uint32_t i = 0; i < run->count; i++) {
        uint32_t low = 0;
        uint32_t high = run->length_count;
        while (low < high) { /* ends at the front's own length, which is among them. */
            uint32_t middle = low + (high - low) / 2;
            size_t size = lengths[middle];
            if (size > run->texts[i].size) {
                high = middle;
                continue;
            }
            struct slice head = slice_head(run->texts[i], size);
            if (last[middle] == 0 || !slice_starts(run->texts[last[middle] - 1], head)) {
                all.count++;
                all.words += policy_record_words(size);
                if (table != NULL) {
                    (void)put(f->t, *table, head, front_within(run, i, size));
                }
            }
            last[middle] = i + 1;
            low = size == run->texts[i].size ? high : middle + 1;
        }
    }
    return all;
}

static struct contents each_value(struct filling *f, const struct run *run,
                                  const struct policy_table *table)
{
    struct contents all = {.count = run->count};
    for (uint32_t i = 0; i < run->count; i++) {
        all.words += policy_record_words(run->texts[i].size);
        if (table != NULL) {
            run->records[i] = put(f->t, *table, run->texts[i], i + 1);
        }
    }
    return all;
}

/* ---- tables ---- */

static struct contents each_text(struct filling *f, const struct run *run, uint32_t *last,
                                 const struct policy_table *table)
{
    return run->fronts ? each_head(f, run, last, table) : each_value(f, run, table);
}

static void fill_table(struct filling *f, const struct run *run, uint32_t *last)
{
    size_t places = policy_places(each_text(f, run, last, /* table= */ NULL).count);
    const struct policy_table table = {.first = (uint32_t)f->places, .mask = (uint32_t)places - 1};
    f->places += places;
    (void)each_text(f, run, last, &table);
    if (!run->fronts) {
        run->column->values = table;
        return;
    }
    run->column->fronts = table;
    run->column->first_front = (uint32_t)f->parents;
    for (uint32_t i = 0; i < run->count; i++) {
        f->t->parents[f->parents++] = run->parents[i];
    }
}

/* Place 0 is free, and record 0 is none. */
static MUST_CHECK struct err fill_tables(struct filling *f, const struct run *runs, size_t count,
                                         size_t spare, uint32_t *last)
{
    size_t places = 1;
    size_t words = 1 + spare;
    for (size_t i = 0; i < count; i++) {
        struct contents all = each_text(f, &runs[i], last, /* table= */ NULL);
        places += policy_places(all.count);
        words += all.words;
    }
    if (places > UINT32_MAX || words > UINT32_MAX) {
        return FAIL(E_NO_MEMORY);
    }
    f->t->places = calloc(places, sizeof(*f->t->places));
    f->t->texts = calloc(words, sizeof(*f->t->texts));
    if (f->t->places == NULL || f->t->texts == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    f->places = 1;
    f->t->text_words = words;
    f->t->text_words_used = 1;
    for (size_t i = 0; i < count; i++) {
        fill_table(f, &runs[i], last);
    }
    CHECK(f->places == places);
    return OK;
}

/* The fronts of all values, once all tables are filled. */
static void find_fronts(struct dp_policy_target *t, const struct run *runs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct run *run = &runs[i];
        for (uint32_t k = 0; !run->fronts && k < run->count; k++) {
            t->texts[run->records[k] + POLICY_RECORD_FRONT] =
                policy_find_front(t, run->column, run->texts[k]);
        }
    }
}

/* What it works with: each has as many as there are namings. */
struct scratch {
    struct run *runs;
    struct slice *texts;
    uint32_t *parents;
    uint32_t *records;
    uint32_t *last;
};

static MUST_CHECK struct err number_values(struct filling *f, const struct scratch *with,
                                           struct policy_naming *namings, size_t count,
                                           size_t spare, struct policy_number *out_numbers)
{
    size_t runs = 0;
    size_t texts = 0;
    if (count > 0) {
        qsort(namings, count, sizeof(*namings), naming_order);
    }
    for (size_t at = 0; at < count;) {
        struct run *run = &with->runs[runs++];
        *run = (struct run){.column = &f->t->columns[namings[at].column],
                            .fronts = namings[at].front,
                            .first = (uint32_t)texts,
                            .texts = with->texts + texts,
                            .parents = with->parents + texts,
                            .records = with->records + texts};
        at += take_run(run, namings + at, count - at, out_numbers);
        texts += run->count;
        if (run->fronts) {
            find_parents(run);
            fill_lengths(f, run);
        }
    }
    TRY(fill_tables(f, with->runs, runs, spare, with->last));
    find_fronts(f->t, with->runs, runs);
    for (size_t i = 0; i < count; i++) {
        out_numbers[i].record = with->records[out_numbers[i].record];
    }
    return OK;
}

struct err policy_number_values(struct dp_policy_target *t, struct policy_naming *namings,
                                size_t count, size_t spare, struct policy_number *out_numbers)
{
    struct filling f = {.t = t};
    auto_free struct run *runs = calloc(count + 1, sizeof(*runs));
    auto_free struct slice *texts = calloc(count + 1, sizeof(*texts));
    auto_free uint32_t *parents = calloc(count + 1, sizeof(*parents));
    auto_free uint32_t *records = calloc(count + 1, sizeof(*records));
    auto_free uint32_t *last = calloc(count + 1, sizeof(*last));
    t->lengths = calloc(count + 1, sizeof(*t->lengths));
    t->parents = calloc(count + 1, sizeof(*t->parents));
    if (runs == NULL || texts == NULL || parents == NULL || records == NULL || last == NULL ||
        t->lengths == NULL || t->parents == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    const struct scratch with = {runs, texts, parents, records, last};
    return number_values(&f, &with, namings, count, spare, out_numbers);
}
