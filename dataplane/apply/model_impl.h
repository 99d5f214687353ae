/*
 * model_impl: what a model is made of; for build.c, link.c and model.c alone.
 *
 * Ownership  'arena' holds all tables and links; parts and set are references.
 * Threads    written by the apply thread until dp_model_build() returns; then read only, but for
 *            'refs', which the bin's lock guards.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/arena.h"
#include "common/base/map.h"
#include "dataplane/apply/build.h"
#include "dataplane/apply/part.h"

/* A part of this model, under its key. Key and bytes are borrowed from the model's set. */
struct dp_model_part {
    struct dp_part *part; /* one reference. */
    struct slice key;
    struct slice bytes;
};

/* Parts of one stream, keys ascending. */
struct dp_model_stream {
    uint32_t kind;
    uint32_t format; /* 0: the set has no such stream. */
    struct dp_model_part *parts;
    size_t count;
    size_t capacity;
};

enum { DP_MODEL_STREAMS = 9 };

struct dp_linked_group {
    const struct dp_route_group *from;
    struct dp_route *routes; /* one for each entry of 'from', with its links. */
};

/* The groups of one host, by first segment. */
struct dp_linked_host {
    struct map segments;
    const struct dp_linked_group *any; /* segment "": any path; NULL: none. */
};

/* One egress under one of its hosts; several may name the same host. */
struct dp_linked_egress {
    const struct dp_egress *egress;
    const struct dp_linked_egress *next;
};

struct dp_model {
    struct dp_model_bin *bin;
    struct dp_model *bin_next; /* in the bin's list of dead ones. */
    uint32_t refs;             /* under the bin's lock. */
    struct snap_set *set;
    struct arena arena;
    struct dp_model_stream streams[DP_MODEL_STREAMS];
    const struct dp_environment *environment; /* never NULL once built. */
    struct map callers_by_spiffe;
    struct map callers_by_token;
    struct map revoked_identities;
    struct map revoked_serials;
    struct map revoked_tokens; /* by digest; those of revoked identities, too. */
    struct map blocked_types;
    struct map transports;
    struct map policies;
    struct map limits;
    struct map schemas;
    struct map clusters;
    struct map grpc_services;
    struct map tenants;
    struct map hosts;    /* struct dp_linked_host; each owns its own map. */
    bool wildcard_hosts; /* some name in 'hosts' begins with "*.": else there are none to try. */
    struct map topics;
    struct map egresses; /* "<tenant>/<host>" to struct dp_linked_egress. */
    bool needs_system_trust;
};

/*
 * Fills tables and links of a model whose streams are filled. On failure *out_key is the key of
 * the part that names what is not there, and *out_stream its stream.
 */
MUST_CHECK struct err dp_model_link(struct dp_model *model, uint32_t *out_stream,
                                    struct slice *out_key);

/* Frees the tables. */
void dp_model_unlink(struct dp_model *model);

/* The longest tenant and host that a key of 'egresses' is made of. */
enum { DP_EGRESS_KEY_MAX = 63 + 1 + 255 };
