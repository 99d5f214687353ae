/*
 * scrape: what is counted elsewhere, and becomes metrics when somebody reads them.
 *
 * Shape      the admin calls dp_scrape_run() before it writes the metrics.
 * Ownership  parts are borrowed.
 * Threads    dp_scrape_run(): the admin's; dp_scrape_certificate(): any.
 * Errors     none.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/base/lock.h"

struct bus;
struct dp_access_writer;
struct dp_limit_table;
struct metrics;
struct metrics_shard;

struct dp_scrape_parts {
    struct metrics *metrics;
    struct metrics_shard *shard; /* the admin's. */
    struct dp_limit_table *limits;
    struct dp_access_writer *access; /* NULL: there is no access log. */
    struct bus *bus;                 /* NULL: none. */
};

struct dp_scrape {
    struct dp_scrape_parts parts; /* set before the first run. */
    struct {
        struct lock lock;
        bool has_cert GUARDED;
        int64_t cert_ends_s GUARDED; /* seconds since the epoch. */
    } shared;
    struct { /* what was counted so far. */
        uint64_t log_dropped;
        uint64_t access_dropped;
        uint64_t crowded;
        uint64_t reconnects;
        uint64_t cpu_us;
    } seen;
};

void dp_scrape_init(struct dp_scrape *s);
void dp_scrape_free(struct dp_scrape *s);

/* When the certificate that was read last ends; 'has' false: there is none. */
void dp_scrape_certificate(struct dp_scrape *s, bool has, int64_t ends_s);

void dp_scrape_run(struct dp_scrape *s);
