/*
 * part: one part of a snapshot, decoded and built as far as it goes without the others.
 *
 * Shape      the decoded message, and what was built from it; other parts are named. Immutable once
 *            made, so that models share it.
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
#include "dataplane/apply/balance.h"
#include "dataplane/apply/model.h"

#include "trilane/parts/v1/parts.pb-c.h"

/* What a part is. What names others comes behind them, in the order in which that is judged. */
enum dp_part_kind {
    DP_PART_ENVIRONMENT,
    DP_PART_REVOKED_IDENTITY,
    DP_PART_REVOKED_CERTIFICATE,
    DP_PART_REVOKED_TOKEN,
    DP_PART_REVOKED_SUBJECT,
    DP_PART_BLOCKED_TYPE,
    DP_PART_CALLER,
    DP_PART_ISSUER,
    DP_PART_TRANSPORT,
    DP_PART_POLICY,
    DP_PART_LIMITS,
    DP_PART_SCHEMA,
    DP_PART_CLUSTER,
    DP_PART_DESCRIPTORS,
    DP_PART_ROUTES,
    DP_PART_TOPIC,
    DP_PART_EGRESS,
    DP_PART_KIND_COUNT,
};

/* Keys of what is revoked begin with these. */
#define DP_REVOKED_IDENTITY_PREFIX SLICE_LIT("identity/")
#define DP_REVOKED_CERTIFICATE_PREFIX SLICE_LIT("certificate/")
#define DP_REVOKED_TOKEN_PREFIX SLICE_LIT("token/")
#define DP_REVOKED_SUBJECT_PREFIX SLICE_LIT("subject/")
#define DP_BLOCKED_TYPE_PREFIX SLICE_LIT("type/")

/* The longest key of a service that is looked for by its name. */
enum { DP_SERVICE_KEY_MAX = 8 + 63 + 1 + 63 };

/* The longest key of an egress' host: tenant and host. */
enum { DP_EGRESS_KEY_MAX = 63 + 1 + 255 };

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
    const struct dp_cors *cors;                /* NULL: none. */
    const struct dp_route_entry *next_of_path; /* in an index: the next one of this path. */
};

/* From this many entries on a group is looked up by its paths. */
enum { DP_ROUTE_INDEX_MIN = 16 };

/* One host's routes of one first segment, most precise first. */
struct dp_route_group {
    struct slice host;
    struct slice segment;
    const struct dp_route_entry *entries;
    const struct dp_route *routes; /* one for each entry. */
    size_t entry_count;
    /* Of a large group; else empty. It belongs to the part, so that models share it. */
    struct map paths;                 /* path to its first entry; the others follow it. */
    size_t prefix_max;                /* bytes of the longest prefix. */
    const struct dp_route_entry *any; /* first of those that take any path, linked likewise. */
};

/* A service, as it is known in each trust domain of the environment. */
struct dp_callers {
    struct dp_caller *named; /* the environment's own domain first; its tokens are that one's. */
    size_t named_count;
    const struct slice *tokens; /* digests. */
    size_t token_count;
};

struct dp_egress_part {
    struct dp_egress egress;
    const struct slice *keys; /* "<tenant>/<host>" of each host; sorted as the hosts are. */
    size_t key_count;
};

struct dp_part {
    enum dp_part_kind kind;
    uint32_t refs;
    uint32_t format;           /* of its stream. */
    struct slice key;          /* its own copy; a NUL is behind it. */
    struct arena arena;        /* of what was built beside the message. */
    ProtobufCMessage *message; /* owned; NULL for those that keep their own form. */
    union {
        struct dp_environment environment;
        struct dp_callers callers;
        struct dp_issuer issuer;
        struct dp_transport transport;
        struct dp_policy_target *policy; /* owned. */
        struct dp_limit_target *limits;  /* owned. */
        struct schema *schema;           /* owned. */
        struct dp_route_group routes;
        struct dp_cluster cluster;
        struct dp_descriptors descriptors;
        struct dp_topic topic;
        struct dp_egress_part egress;
        struct slice revoked; /* SPIFFE id, serial, subject, type, or a token's digest. */
    } as;
};

/* Whether a stream of this kind holds parts that are built. */
bool dp_part_stream(uint32_t stream);

/* What a part of this key is; DP_PART_KIND_COUNT: nothing that this build knows. And back. */
enum dp_part_kind dp_part_kind(uint32_t stream, struct slice key);
uint32_t dp_part_stream_of(enum dp_part_kind kind);

/* What a part is decoded under. */
struct dp_part_from {
    uint32_t stream;
    uint32_t format;
    struct part part;
    const struct dp_environment *environment; /* callers are named in its domains; else unused. */
    struct dp_locality here;                  /* of the node: clusters alone. */
};

/* ---- descriptors.c ---- */

struct err dp_part_decode_descriptors(struct dp_part *part,
                                      const struct dp_environment *environment);

/* ---- part.c ---- */

/* Decodes and builds a part; one reference. */
MUST_CHECK struct err dp_part_new(const struct dp_part_from *from, struct dp_part **out);
struct dp_part *dp_part_ref(struct dp_part *part);
void dp_part_unref(struct dp_part *part);
