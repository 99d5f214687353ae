/*
 * policy_impl: the inside of a dp_policy_target, for policy.c and its cache alone.
 *
 * Shape      flat arrays; all text lies in one block.
 * Ownership  the target owns every pointer.
 */
#pragma once

#include "dataplane/request/policy.h"

enum { DP_POLICY_TRAITS_MAX = 64 };

struct policy_edge {
    struct slice value;
    uint32_t to; /* a reference: a node's index, or node_count + a verdict's. */
};

struct policy_node {
    struct slice name; /* of trait or header. */
    struct slice glob; /* empty: the edges decide. */
    uint32_t first_edge;
    uint32_t edge_count;
    uint32_t matched;
    uint32_t otherwise;
    uint8_t attribute; /* trilane.parts.v1.Attribute. */
};

struct dp_policy_target {
    struct slice id;
    struct policy_node *nodes;
    struct policy_edge *edges;
    struct dp_verdict *verdicts;
    struct slice *traits; /* names that the DAG reads. */
    uint8_t *text;
    size_t text_size;
    size_t text_used;
    size_t trait_count;
    uint32_t attributes; /* bit (1 << attribute) of each that the DAG reads. */
    uint32_t node_count;
    uint32_t root;
};
