/*
 * policy_impl: the inside of a dp_policy_target, for policy.c and its cache alone.
 *
 * Shape      flat arrays; all text lies in one block.
 * Ownership  the target owns every pointer.
 */
#pragma once

#include "dataplane/request/policy.h"

enum {
    DP_POLICY_NAMES_MAX = 256, /* of traits, headers and schedules, each. */
    DP_POLICY_ROOTS_MAX = 1024,
    /* From this many edges on a node is looked up by hash. */
    DP_POLICY_PLACES_LEAST = 9,
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

/* Graphs whose verdicts are judged together. */
struct policy_roots {
    const uint32_t *items; /* references. */
    size_t count;
};

struct policy_edge {
    struct slice value;
    uint32_t to; /* a reference: a node's index, or node_count + a verdict's. */
    uint32_t
        parent; /* of a prefix: 1 + the edge of the longest one that it begins with; 0: none. */
};

struct policy_node {
    struct slice name; /* of trait or header. */
    struct slice glob; /* empty: the edges decide. */
    uint32_t first_edge;
    uint32_t edge_count;
    uint32_t matched;
    uint32_t otherwise;
    uint32_t first_place; /* of its table of edges. */
    uint32_t place_mask;  /* 0: it has none, the edges are searched. */
    uint32_t schedule;    /* index. */
    bool prefixes;        /* the edge of the longest value that the text begins with is taken. */
    uint8_t attribute;    /* trilane.parts.v1.Attribute. */
};

struct dp_policy_target {
    struct slice id;
    struct policy_node *nodes;
    struct policy_edge *edges;
    struct dp_verdict *verdicts;
    /* By hash of an edge's value: its upper half, and 1 + the edge; 0: free. */
    uint64_t *places;
    uint32_t *references; /* of all roots. */
    struct policy_span *spans;
    struct policy_schedule *schedules;
    struct slice *traits; /* names that the graphs read. */
    struct slice *headers;
    uint8_t *text;
    size_t text_size;
    size_t text_used;
    size_t trait_count;
    size_t header_count;
    size_t schedule_count;
    struct policy_roots decides;
    struct policy_roots shadow;
    struct policy_roots fast;
    uint32_t attributes; /* bit (1 << attribute) of each that the graphs read. */
    uint32_t node_count;
};

/* Whether a schedule holds at that time. */
bool policy_schedule_holds(const struct policy_schedule *schedule, int64_t wall_ms);
