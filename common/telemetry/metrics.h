/*
 * metrics: counters, gauges and histograms, one shard a worker.
 *
 * Shape      families are a table of static rows; a set holds them and shards; a series is a
 *            family with label values, looked up (or made) once and then kept by its index. Adding
 *            to a series is one plain add in the worker's own shard: no lock, no atomic
 *            read-modify-write. A scrape sums the shards.
 * Units      a family's own: its name ends in it. Histograms record integers (ms, us, bytes).
 * Ownership  the set owns all; label values are copied.
 * Threads    each shard has one writing thread; metrics_series() and metrics_render() any.
 * Errors     none on the way of a request: past a family's series_max the label values become
 *            "other".
 * Source     Prometheus text format 0.0.4, OpenMetrics 1.0; HDR histogram for the buckets.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"

enum metrics_kind { METRICS_COUNTER, METRICS_GAUGE, METRICS_HISTOGRAM };

enum { METRICS_LABELS_MAX = 4, METRICS_LABEL_VALUE_MAX = 128 };

/* One row of a program's table. Names follow Prometheus: counters end in _total. */
struct metrics_family {
    const char *name;
    const char *help;
    enum metrics_kind kind;
    const char *labels[METRICS_LABELS_MAX]; /* names; NULL behind the last. */
    uint32_t series_max;                    /* without "other"; 0: 1 when there are no labels,
                                               else 64. */
    double scale;                           /* what is rendered is value * scale; 0: 1. A
                                               histogram in us of a family in ms has 0.001. */
};

struct metrics;
struct metrics_shard;

/* A series: index into each shard. 0 is no series: adding to it does nothing. */
typedef uint32_t metrics_id;

/*
 * Makes a set of families (borrowed, static) with shard_count shards. Cells for all series of all
 * families are taken now, so that nothing is allocated later. E_NO_MEMORY.
 */
MUST_CHECK struct err metrics_new(const struct metrics_family *families, size_t family_count,
                                  size_t shard_count, struct metrics **out);

/* Accepts NULL. No thread uses a shard any more. */
void metrics_free(struct metrics *m);

struct metrics_shard *metrics_shard(struct metrics *m, size_t index);

/*
 * The series of family number 'family' with these label values (one for each label): found or
 * made. Takes a lock: keep the id, in the snapshot's objects or a connection, not for each request.
 */
metrics_id metrics_series(struct metrics *m, size_t family, const struct slice *values);

/* The series of a family without labels. */
metrics_id metrics_plain(struct metrics *m, size_t family);

/* On the shard's thread. */
void metrics_add(struct metrics_shard *s, metrics_id counter_or_gauge, int64_t value);
void metrics_set(struct metrics_shard *s, metrics_id gauge, int64_t value);
void metrics_record(struct metrics_shard *s, metrics_id histogram, uint64_t value);

/* What a scrape would show: the sum over shards; for a histogram the number of records. */
int64_t metrics_value(struct metrics *m, metrics_id id);

/* The value at 'percent' (0 to 100) of a histogram's records, by its buckets (relative error
 * below 1/8); 0 when there are none. Not scaled. */
uint64_t metrics_percentile(struct metrics *m, metrics_id histogram, double percent);

/* Appends all series: Prometheus text, or OpenMetrics (with "# EOF"). E_TOO_LARGE, E_NO_MEMORY. */
MUST_CHECK struct err metrics_render(struct metrics *m, bool openmetrics, struct buf *out);

#define METRICS_TYPE_TEXT "text/plain; version=0.0.4; charset=utf-8"
#define METRICS_TYPE_OPENMETRICS "application/openmetrics-text; version=1.0.0; charset=utf-8"
