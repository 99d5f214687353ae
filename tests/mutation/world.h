/*
 * world: a platform whose documents are mutated: keys of every role, a chain of roots, versions,
 * heads; all of it really signed.
 *
 * Shape      a world goes on by generations. In each, every role drops its oldest key for a new
 *            one, the root is the next, the epoch is higher, and there are five new versions. Keys
 *            and contents come from world and generation alone; times are the clock's.
 * Ownership  world_begin() makes a generation in place of the one before; world_end() frees it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/snapshot/container.h"
#include "common/snapshot/head.h"
#include "common/snapshot/root.h"

#include "tests/mutation/dice.h"
#include "tests/support/publisher.h"

enum {
    WORLDS = 4,
    THRESHOLD_MAX = 3,
    WORLD_KEYS = THRESHOLD_MAX + 4,
    WORLD_PAST = 16, /* accepted heads that can be replayed. */
};

/* The roots around the one in force. */
enum world_root { ROOT_BEFORE, ROOT_NOW, ROOT_NEXT, ROOT_AFTER, WORLD_ROOTS };

/* In the order of their numbers; RIVAL has FLOOR's. */
enum world_version {
    VERSION_OLD,
    VERSION_FLOOR, /* served. */
    VERSION_RIVAL,
    VERSION_NEXT, /* what inputs are made of. */
    VERSION_LATER,
    WORLD_VERSIONS,
};

struct world {
    unsigned index;
    uint64_t generation;
    const char *environment;
    uint8_t environment_id[ENVIRONMENT_SIZE];
    uint32_t threshold; /* of root and manifest keys; one key more is there. */
    /* By role: [0] was dropped by the root in force, [1] on are in it, then those to come. */
    struct key_pair keys[ROOT_ROLE_COUNT][WORLD_KEYS];
    struct key_pair late;     /* a head key whose days are over. */
    struct key_pair stranger; /* in no root. */
    struct key_pair node;     /* a node's. */
    struct root roots[WORLD_ROOTS];
    struct buf root_bytes[WORLD_ROOTS];
    struct version *versions[WORLD_VERSIONS];
    uint64_t epoch;
    uint64_t sequence; /* of the last head that was accepted. */
    struct buf past[WORLD_PAST];
    size_t past_count; /* of this generation's; the ring is filled in turn. */
};

void world_begin(struct world *w, unsigned index, uint64_t generation);
void world_end(struct world *w);

/* The pair of a world, a role and a number: the same one in every run. */
struct key_pair world_pair(unsigned world, enum key_role role, uint64_t serial);

/* How many keys of a role a root has. */
size_t world_key_count(const struct world *w, enum key_role role);

/* A key that the root in force has. */
const struct key_pair *world_key(const struct world *w, enum key_role role, size_t index);

/* ---- sealing ---- */

/* Puts a container together of whatever is given, also what container_seal() would not. */
void seal_with(enum container_kind kind, const uint8_t environment[ENVIRONMENT_SIZE],
               struct slice body, const struct container_signature *signatures, size_t count,
               struct buf *out);

/* Signs, and seals. */
void seal_by(const struct world *w, enum container_kind kind, struct slice body,
             const struct key_pair *const *pairs, size_t count, struct buf *out);

/* By as many manifest keys of the root in force as it asks for. */
void seal_manifest(const struct world *w, struct slice body, struct buf *out);

/* By as many root keys as both the root in force and the next one ask for. */
void seal_next_root(const struct world *w, struct slice body, struct buf *out);

/* ---- heads ---- */

struct world_head {
    uint64_t epoch;    /* 0: the present one. */
    uint64_t sequence; /* 0: above the last. */
    uint64_t root_version;
    uint64_t version; /* 0: NEXT's, with its digest. */
    const uint8_t *digest;
    int64_t signed_at_ms; /* 0: now. */
    const struct key_pair *key;
    bool no_target; /* labels that no node has. */
};

/* The body alone; a whole head. */
void world_head_body(const struct world *w, const struct world_head *plan, struct buf *out);
void world_head(const struct world *w, const struct world_head *plan, struct buf *out);

/* A head was accepted. */
void world_accepted(struct world *w, struct slice head);

/* An accepted one, of any age but the last. */
struct slice world_past(const struct world *w, struct dice *d);

/* ---- contents ---- */

/* A content of this number; the streams of routing, revocations and authorisation differ by it. */
struct content *world_content(uint64_t number);

/* Encodes, signs and names what a version was cut into. */
void world_sign(const struct world *w, struct version *v, uint64_t capabilities);

/* Whether a chunk is in no other version than this one. */
bool world_is_new_chunk(const struct world *w, const struct cut_chunk *chunk);

/* One of NEXT's chunks that no other version has. */
const struct cut_chunk *world_new_chunk(const struct world *w, struct dice *d);

/* The value of a key of the bucket as it should be; false when there is none. */
bool world_get(const struct world *w, const char *key, struct slice *out);

#define MUST(call) must_((call), __FILE__, __LINE__)
void must_(struct err e, const char *file, int line);
