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
#include "common/snapshot/parts.h"
#include "dataplane/apply/model.h"

#include "trilane/parts/v1/parts.pb-c.h"

/* What a part is; the streams are in order of linking, see link.c. */
enum dp_part_kind {
    DP_PART_ENVIRONMENT,
    DP_PART_REVOKED_IDENTITY,
    DP_PART_REVOKED_CERTIFICATE,
    DP_PART_REVOKED_TOKEN,
    DP_PART_BLOCKED_TYPE,
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

/* Keys of what is revoked begin with these. */
#define DP_REVOKED_IDENTITY_PREFIX SLICE_LIT("identity/")
#define DP_REVOKED_CERTIFICATE_PREFIX SLICE_LIT("certificate/")
#define DP_REVOKED_TOKEN_PREFIX SLICE_LIT("token/")
#define DP_BLOCKED_TYPE_PREFIX SLICE_LIT("type/")

/* Trust domains beside the environment's own. */
enum { DP_TRUST_DOMAINS_MAX = 15 };

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
    uint32_t format;           /* of its stream. */
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
        /* cluster, topic and egress are linked straight from their messages; of what is revoked
         * the key says all. */
    } as;
};

/* Whether a stream of this kind holds parts that are built. */
bool dp_part_stream(uint32_t stream);

/* Decodes and builds a part of a stream of that format; one reference. */
MUST_CHECK struct err dp_part_new(uint32_t stream, uint32_t format, const struct part *from,
                                  struct dp_part **out);
struct dp_part *dp_part_ref(struct dp_part *part);
void dp_part_unref(struct dp_part *part);
