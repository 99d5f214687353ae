/*
 * model_impl: what a model is made of; for build.c, link.c and model.c alone.
 *
 * Ownership  'parts' holds the references to parts; the other tries point into them. A model's set
 *            is a reference.
 * Threads    written by the apply thread until dp_model_build() returns; then read only, but for
 *            'refs', and 'bin_next' once there are none. What models share is counted and freed by
 *            the apply thread.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/refs.h"
#include "common/base/trie.h"
#include "dataplane/apply/build.h"
#include "dataplane/apply/part.h"

/* The groups of one host, by first segment. A change makes a new one. */
struct dp_linked_host {
    uint32_t refs;
    struct trie segments;             /* struct dp_route_group, borrowed of its part. */
    const struct dp_route_group *any; /* segment "": any path; NULL: none. */
    struct slice name;                /* behind the struct. */
};

/* Egresses of one tenant that name one host, the highest key first. A change makes a new one. */
struct dp_linked_egresses {
    uint32_t refs;
    size_t count; /* never zero. */
    const struct dp_part *at[];
};

/* A name that several parts may give, and how many do. A change makes a new one. */
struct dp_tally {
    uint32_t refs;
    size_t users;
    struct slice name; /* behind the struct. */
};

struct dp_model {
    struct dp_model_bin *bin;
    struct dp_model *bin_next; /* in the bin's list of dead ones. */
    struct refs refs;
    struct snap_set *set;
    struct trie parts[DP_PART_KIND_COUNT];    /* struct dp_part by its key. */
    const struct dp_environment *environment; /* never NULL once built. */
    struct dp_transport usual_transport;      /* where none is named. */
    struct trie callers_by_spiffe;            /* struct dp_caller. */
    struct trie callers_by_token;             /* by digest. */
    struct trie issuers;                      /* struct dp_issuer by claim iss. */
    struct trie revoked_identities;           /* struct dp_part; as are these. */
    struct trie revoked_serials;
    struct trie revoked_tokens; /* by digest. */
    struct trie revoked_subjects;
    struct trie blocked_types;
    struct trie grpc_services; /* struct dp_tally. */
    struct trie tenants;       /* struct dp_tally. */
    struct trie hosts;         /* struct dp_linked_host. */
    size_t wildcard_hosts; /* names in 'hosts' that begin with "*.": else there are none to try. */
    struct trie topic_names; /* full name to the struct dp_topic of the highest major. */
    struct trie egresses;    /* "<tenant>/<host>" to struct dp_linked_egresses. */
    bool needs_system_trust;
};

/* Owns nothing yet: what dp_model_add() puts parts into. */
void dp_model_init_tables(struct dp_model *model);

/* Starts with what another one has. */
void dp_model_copy_tables(struct dp_model *model, const struct dp_model *from);
void dp_model_free_tables(struct dp_model *model);

/* Takes a part out of all tables; and puts one in, which takes a reference. PART_MALFORMED when
 * another one claims a name of it; both fail with E_NO_MEMORY, and leave a model to be freed. */
MUST_CHECK struct err dp_model_take(struct dp_model *model, struct dp_part *part);
MUST_CHECK struct err dp_model_add(struct dp_model *model, struct dp_part *part);

/* Whether all that a part names is there. PART_MALFORMED. */
MUST_CHECK struct err dp_model_judge(const struct dp_model *model, const struct dp_part *part);

/* Whether other parts may name one of this kind. */
bool dp_model_is_named(enum dp_part_kind kind);

/* Whether one of this kind names others. */
bool dp_model_names(enum dp_part_kind kind);

/* Looks through the egresses for one that is verified against the system's CAs. */
bool dp_model_look_for_trust(const struct dp_model *model);
