/*
 * policy_impl: the inside of a dp_policy_target, for policy.c and its cache alone.
 *
 * Shape      flat arrays. What the walk touches is small and lies together; texts are only where
 *            the value of an attribute is looked up.
 * Ownership  the target owns every pointer.
 */
#pragma once

#include <string.h>

#include "dataplane/request/policy.h"

#include "trilane/parts/v1/parts.pb-c.h"

enum {
    DP_POLICY_NAMES_MAX = 256, /* of traits, headers, comparisons and schedules, each. */
    DP_POLICY_ROOTS_MAX = 1024,
    /* From this many edges on a node is looked up by hash; fewer lie in one line of the cache. */
    DP_POLICY_MANY = 9,
    /* A decision looks up the value of each of the first so many columns once. */
    DP_POLICY_KEPT = 32,
};

/* Minutes of the week in UTC, from Monday 00:00. */
struct policy_span {
    uint32_t from;
    uint32_t to; /* the first one that is not in it. */
};

struct policy_schedule {
    const struct policy_span *spans; /* sorted; none: always. */
    size_t span_count;
    uint64_t not_before_ms; /* 0: none. */
    uint64_t not_after_ms;  /* 0: none. */
};

/* A number of an attribute's value, and a range that it may be in. */
struct policy_comparison {
    struct slice name; /* of a trait or header. */
    int64_t least;
    int64_t most;
    uint8_t attribute; /* trilane.parts.v1.Attribute. */
    uint8_t measure;   /* trilane.parts.v1.Measure. */
};

enum policy_compared { POLICY_NO_NUMBER, POLICY_OUT, POLICY_IN };

/* Graphs whose verdicts are judged together. */
struct policy_roots {
    const uint32_t *items; /* references. */
    size_t count;
};

/* Where a text of a table lies. */
struct policy_place {
    uint32_t mark;   /* the upper half of the text's hash. */
    uint32_t record; /* index into 'texts'; 0: free. */
};

/* Texts by their hash; a zeroed table has none. */
struct policy_table {
    uint32_t first; /* place. */
    uint32_t mask;
};

/*
 * An attribute that nodes ask. Its texts are compared once a decision: from then on a value is a
 * number, from 1, by the order of the texts; 0 is one that no node names. So is a front, the text
 * before the star of a glob.
 */
struct policy_column {
    struct slice name; /* of a trait or header. */
    struct policy_table values;
    /* Heads of fronts, of those lengths at which a binary search over all lengths passes, with the
     * number of the longest front that the head begins with; 0: none. */
    struct policy_table fronts;
    uint32_t first_length; /* the lengths of the fronts, ascending. */
    uint32_t length_count;
    uint32_t first_front; /* of 'parents'. */
    uint32_t index;       /* of a comparison or schedule. */
    uint8_t attribute;    /* trilane.parts.v1.Attribute. */
    bool compared;        /* a node asks for more of a value than whether it is there. */
};

/* The columns that have no name; behind them traits, headers, comparisons and schedules, in that
 * order. */
enum policy_fixed_column {
    POLICY_COLUMN_VERB,
    POLICY_COLUMN_LANE,
    POLICY_COLUMN_TENANT,
    POLICY_COLUMN_CALLER,
    POLICY_COLUMN_DOMAIN,
    POLICY_COLUMN_METHOD,
    POLICY_COLUMN_NAMELESS,
};

struct policy_edge {
    uint32_t number; /* of a value or front; 0: a free place. */
    uint32_t to;     /* a reference: a node's index, or node_count + a verdict's. */
};

/* Words of a record's head. */
enum policy_record {
    POLICY_RECORD_NUMBER, /* of a value, or of the longest front that a head begins with. */
    POLICY_RECORD_FRONT,  /* of a value: number of the longest front that it begins with. */
    POLICY_RECORD_SIZE,   /* of the text, in bytes. */
    POLICY_RECORD_HEAD,
};

enum policy_kind {
    POLICY_ANY,   /* any value that is there. */
    POLICY_ONE,   /* one value. */
    POLICY_FEW,   /* edges, tried one by one. */
    POLICY_MANY,  /* edges by the hash of their numbers. */
    POLICY_DENSE, /* numbers next to each other: an array of where they lead. */
    POLICY_FRONT, /* one front. */
    POLICY_GLOB,
};

/* Four lie in a line of the cache. */
struct policy_node {
    /* ONE, FRONT, GLOB: the text's record; FEW, MANY: the first edge; DENSE: the least number
     * stands there in 'dense', and what it and those after it lead to behind. */
    uint32_t first;
    /* ANY, ONE, FRONT, GLOB: where it leads that fits; FEW: how many edges; MANY: 32 minus the
     * logarithm of the places; DENSE: how many numbers. */
    uint32_t second;
    uint32_t otherwise;
    uint16_t column;
    uint8_t kind;
    bool fronts; /* numbers are of fronts: the longest that the text begins with is taken. */
};
_Static_assert(sizeof(struct policy_node) == 16, "a node is small");

struct dp_policy_target {
    struct slice id;
    struct policy_column *columns;
    struct policy_node *nodes;
    struct policy_edge *edges;
    uint32_t *dense;             /* references; 0: no edge has the number. */
    struct policy_place *places; /* the first is free: of all tables without a text. */
    /* Records, each with a head of POLICY_RECORD_HEAD words, then the text. Those of tables, then
     * those of globs. */
    uint32_t *texts;
    uint32_t *lengths;
    uint32_t *parents;    /* of a front: the longest other one that it begins with; 0: none. */
    uint32_t *rules;      /* of a verdict: where its rule begins in 'text', and the next one's. */
    uint8_t *allows;      /* of a verdict. */
    uint32_t *references; /* of all roots. */
    struct policy_span *spans;
    struct policy_schedule *schedules;
    struct policy_comparison *comparisons;
    struct slice *traits; /* names that the graphs read. */
    struct slice *headers;
    uint8_t *text; /* of names and rules. */
    size_t text_size;
    size_t text_used;
    size_t text_words; /* that 'texts' has room for. */
    size_t text_words_used;
    size_t trait_count;
    size_t header_count;
    size_t comparison_count;
    size_t schedule_count;
    bool several; /* a decision walks more than one graph. */
    struct policy_roots decides;
    struct policy_roots shadow;
    struct policy_roots fast;
    uint32_t attributes; /* bit (1 << attribute) of each that the graphs read. */
    uint32_t node_count;
};

/* Whether a schedule holds at that time. */
bool policy_schedule_holds(const struct policy_schedule *schedule, int64_t wall_ms);

/* ---- policy_check.c ---- */

/* PART_MALFORMED for what could not be walked safely. */
MUST_CHECK struct err policy_check_part(const Trilane__Parts__V1__PolicyTarget *part);

/* ---- policy_compare.c ---- */

/* The value of an attribute that is none of COMPARISON and SCHEDULE; false when there is none. */
bool policy_value(const struct dp_policy_query *query, uint8_t attribute, struct slice name,
                  struct slice *out);
enum policy_compared policy_compare(const struct policy_comparison *comparison,
                                    const struct dp_policy_query *query);

/* The place of a many-edged node where the search for a number begins. */
static inline uint32_t policy_edge_place(const struct policy_node *node, uint32_t number)
{
    return (number * 0x9e3779b1U) >> node->second;
}

/*
 * The hash of a table's text, cheap for short ones. It need not withstand an adversary: texts of
 * tables are the operator's, and whoever makes a request chooses but where a search in them begins.
 */
static inline uint64_t policy_hash(struct slice text)
{
    const uint64_t factor = UINT64_C(0x9e3779b97f4a7c15);
    uint64_t hash = text.size * factor;
    uint64_t word = 0;
    uint32_t front = 0;
    for (size_t at = 0; text.size - at > sizeof(word); at += sizeof(word)) {
        (void)memcpy(&word, text.ptr + at, sizeof(word));
        hash = (hash ^ word) * factor;
        hash ^= hash >> 32;
    }
    /* The last eight bytes; of fewer their ends, which may overlap. */
    if (text.size >= sizeof(word)) {
        (void)memcpy(&word, text.ptr + text.size - sizeof(word), sizeof(word));
    } else if (text.size >= sizeof(front)) {
        (void)memcpy(&front, text.ptr, sizeof(front));
        (void)memcpy(&word, text.ptr + text.size - sizeof(front), sizeof(front));
        word = word << 32 | front;
    } else if (text.size > 0) {
        word = (uint64_t)text.ptr[0] << 16 | (uint64_t)text.ptr[text.size / 2] << 8 |
               text.ptr[text.size - 1];
    }
    hash = (hash ^ word) * factor;
    hash = (hash ^ hash >> 32) * factor;
    return hash ^ hash >> 29;
}

/* Places of a table of that many texts or edges: at most half of them are taken. */
static inline size_t policy_places(size_t count)
{
    size_t places = 2;
    while (places < count * 2) {
        places *= 2;
    }
    return places;
}

/* ---- policy_values.c ---- */

/* What one edge of a part's node says, and what it becomes. */
struct policy_naming {
    struct slice text; /* borrowed. */
    uint32_t edge;     /* index among all edges. */
    uint16_t column;
    bool front;
};

struct policy_number {
    uint32_t number;
    uint32_t record; /* of a value. */
};

/* Words of a record. */
static inline size_t policy_record_words(size_t size)
{
    return POLICY_RECORD_HEAD + (size + sizeof(uint32_t) - 1) / sizeof(uint32_t);
}

static inline struct slice policy_record_text(const uint32_t *record)
{
    return slice_of(record + POLICY_RECORD_HEAD, record[POLICY_RECORD_SIZE]);
}

/* The record of a text, of which 'hash' is; 0: the table does not have it. */
static inline uint32_t policy_find_text(const struct dp_policy_target *t, struct policy_table table,
                                        struct slice text, uint64_t hash)
{
    for (uint64_t at = hash;; at++) { /* ends: half of the places are free. */
        struct policy_place place = t->places[table.first + (at & table.mask)];
        if (place.record == 0 || (place.mark == hash >> 32 &&
                                  slice_eq(policy_record_text(t->texts + place.record), text))) {
            return place.record;
        }
    }
}

/* The number of the longest front that a text begins with; 0: of none. */
uint32_t policy_find_front(const struct dp_policy_target *t, const struct policy_column *column,
                           struct slice text);

/* Adds a record for which there is room; its index. */
uint32_t policy_add_record(struct dp_policy_target *t, uint32_t number, struct slice text);

/*
 * Fills the tables of the target's columns from what the edges say, which is sorted for it, and
 * out_numbers[edge] for each. Leaves room for 'spare' words of further records. E_NO_MEMORY.
 */
MUST_CHECK struct err policy_number_values(struct dp_policy_target *t,
                                           struct policy_naming *namings, size_t count,
                                           size_t spare, struct policy_number *out_numbers);
