/*
 * part: one part of a snapshot, decoded and built as far as it goes without the others.
 *
 * Shape      the decoded message, and what was built from it. Immutable once made.
 * Ownership  counted references; slices of what was built borrow from the part.
 * Threads    references are counted by the apply thread alone; reading by any thread.
 * Errors     PART_MALFORMED, CAPABILITY_MISSING, E_NO_MEMORY.
 * Source     proto/trilane/parts/v1/parts.proto.
 */
#pragma once

#include <stdint.h>

#include "common/base/arena.h"
#include "common/base/err.h"
#include "common/base/map.h"
#include "common/base/slice.h"
#include "dataplane/apply/model.h"

#include "trilane/parts/v1/parts.pb-c.h"

/* What a part is; the streams are in order of linking, see link.c. */
enum dp_part_kind {
    DP_PART_ENVIRONMENT,
    DP_PART_CALLER,
    DP_PART_TRANSPORT,
    DP_PART_POLICY,
    DP_PART_LIMITS,
    DP_PART_SCHEMA,
    DP_PART_CLUSTER,
    DP_PART_ROUTES,
    DP_PART_TOPIC,
    DP_PART_EGRESS,
    DP_PART_KIND_COUNT,
};

/* A condition of a route, in the shape that matching wants. */
struct dp_route_header {
    struct slice name;
    struct slice value;
    bool present; /* value is not looked at. */
};

struct dp_route_entry {
    struct slice id;
    Trilane__Parts__V1__PathMatch match;
    struct slice path;
    const struct slice *tenants;
    size_t tenant_count;
    struct slice http_method; /* empty: any. */
    const struct dp_route_header *headers;
    size_t header_count;
    const struct dp_route_entry *next_of_path; /* in an index: the next one of this path. */
};

/* From this many entries on a group is looked up by its paths. */
enum { DP_ROUTE_INDEX_MIN = 16 };

/* One host's routes of one first segment, most precise first. */
struct dp_route_group {
    struct slice host;
    struct slice segment;
    const struct dp_route_entry *entries;
    size_t entry_count;
    /* Of a large group; else empty. It belongs to the part, so that models share it. */
    struct map paths;                 /* path to its first entry; the others follow it. */
    size_t prefix_max;                /* bytes of the longest prefix. */
    const struct dp_route_entry *any; /* first of those that take any path, linked likewise. */
};

struct dp_part {
    enum dp_part_kind kind;
    uint32_t refs;
    struct arena arena;        /* of what was built beside the message. */
    ProtobufCMessage *message; /* owned; NULL for those that keep their own form. */
    union {
        struct dp_environment environment;
        struct dp_caller caller;
        struct dp_transport transport;
        struct dp_policy_target *policy; /* owned. */
        struct dp_limit_target *limits;  /* owned. */
        struct schema *schema;           /* owned. */
        struct dp_route_group routes;
        /* cluster, topic and egress are linked straight from their messages. */
    } as;
};

/* Whether a stream of this kind holds parts that are built. */
bool dp_part_stream(uint32_t stream);

/* Decodes and builds; one reference. */
MUST_CHECK struct err dp_part_new(uint32_t stream, struct slice key, struct slice bytes,
                                  struct dp_part **out);
struct dp_part *dp_part_ref(struct dp_part *part);
void dp_part_unref(struct dp_part *part);
