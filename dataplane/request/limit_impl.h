/* limit_impl: what the files of limit share. See limit.h. */
#pragma once

#include <stdatomic.h>

#include "common/base/slice.h"
#include "dataplane/request/budget.h"
#include "dataplane/request/cells.h"
#include "dataplane/request/limit.h"
#include "dataplane/request/quota.h"

#include "trilane/parts/v1/parts.pb-c.h"

enum dp_limit_kind {
    DP_LIMIT_OF_RATE,
    DP_LIMIT_OF_CONCURRENCY,
    DP_LIMIT_OF_QUOTA,
    DP_LIMIT_KIND_COUNT,
};

enum { DP_LIMITS_MAX = 64, DP_LIMIT_HEADERS_MAX = 4 };

#define DP_LIMIT_BY(name) (1U << TRILANE__PARTS__V1__LIMIT_KEY__LIMIT_KEY_##name)

struct dp_limit {
    struct slice id;
    uint64_t hash;  /* of the id. */
    char **methods; /* of the decoded part. */
    size_t method_count;
    char **headers; /* of the decoded part: names whose values are counted by. */
    size_t header_count;
    uint32_t by;
    uint32_t on_unknown; /* LimitUnknown of the part. */
    enum dp_limit_kind kind;
    uint64_t cost;             /* of one request: RATE: its period; else one. */
    uint64_t budget;           /* RATE: burst * period; else: requests. */
    struct dp_budget *shared;  /* RATE of the whole fleet; NULL: of this node. */
    bool keyed;                /* it counts by more than its own name. */
    enum dp_quota_unit window; /* QUOTA. */
    uint32_t reserve;          /* QUOTA: what may be counted before the disk has it. */
};

struct dp_limit_target {
    ProtobufCMessage *part; /* owned; the texts below lie in it. */
    struct slice id;
    bool calendar; /* some limit is a quota. */
    size_t limit_count;
    struct dp_limit limits[];
};

/* What was left of the budgets of one limit. */
enum { DP_LIMIT_LEFT_SLOTS = 512, DP_LIMIT_ID_MAX = 128 };

struct dp_limit_left_slot {
    _Atomic uint64_t hash;   /* of the limit's id; zero: free. */
    _Atomic bool named;      /* 'id' is written. */
    _Atomic uint64_t now;    /* time << 16 | least thousandths since. */
    _Atomic uint64_t before; /* the same of the time before. */
    char id[DP_LIMIT_ID_MAX];
    uint32_t id_size;
};

struct dp_limit_table {
    struct dp_cells *cells[DP_LIMIT_KIND_COUNT]; /* owned, but for the quota's. */
    struct dp_quota *quota;                      /* borrowed; NULL: quotas cannot be counted. */
    uint64_t seed;                               /* of keys. */
    struct dp_limit_left_slot left[DP_LIMIT_LEFT_SLOTS];
};

/* Notes what is left of a budget: of 'whole', 'left'. */
void dp_limit_note_left(struct dp_limit_table *table, const struct dp_limit *limit, uint64_t left,
                        uint64_t now_ns);

/* ---- what a limit counts by ---- */

enum { DP_LIMIT_WORDS_MAX = 5 + DP_LIMIT_HEADERS_MAX };

struct dp_limit_word {
    struct slice value; /* borrowed of limit and query. */
    bool found;         /* the request has it. */
};

/* What a key is made of; what callers do not make up comes first: by it alone they are counted when
 * there is no room. */
struct dp_limit_words {
    struct dp_limit_word of[DP_LIMIT_WORDS_MAX];
    size_t count;
    size_t true_count; /* that callers do not make up. */
};

/* False: the request has no header *out_missing that the limit counts by. */
bool dp_limit_find_words(const struct dp_limit *limit, const struct dp_limit_query *query,
                         struct dp_limit_words *out, struct slice *out_missing);

/* The key of words among this node's. */
void dp_limit_key_of(const struct dp_limit_words *words, uint64_t seed, struct dp_cell_key *out);

/* What stands for them in the fleet. */
uint64_t dp_limit_fleet_id(const struct dp_limit_words *words);
