/*
 * world: what a schedule plays with: three replicas, three nodes, roots and who signs them.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/snapshot/keys.h"
#include "common/snapshot/root.h"
#include "controlplane/publish/roots.h"

#include "tests/model/node.h"
#include "tests/model/replica.h"

#define WORLD_ENVIRONMENT "model"
#define WORLD_SNAPSHOTS "trilane_model_snapshots"
#define WORLD_NODES "trilane_model_nodes"
#define WORLD_HINTS "trilane.model.head"

enum { REPLICAS = 3, NODES = 3, ROOTS_MAX = 16, MANIFEST_THRESHOLD = 2 };

struct world {
    const char *directory;
    struct replica replicas[REPLICAS];
    struct node nodes[NODES];
    struct key_pair root_key;
    struct root root; /* the newest. */
    struct buf roots[ROOTS_MAX];
    size_t root_count;
    unsigned rekeys;
};

extern struct world world;

/* Makes everything in a directory, and starts it. */
void world_begin(const char *directory);

/* Signs the next root, with the keys that replicas have now; a floor may be NULL. */
void world_next_root(const struct root_floor *floor);

/* Gives a replica new keys: its old ones are in no root from the next one on. */
void world_rekey(struct replica *replica);

/* Has the database know every root: an operator publishes those that it lacks. */
void world_publish_roots(void);

/* Starts all that is dead, and mends clocks and ways. */
void world_heal(void);

/* What must hold after each turn. */
void world_check(void);

/* The replica that leads, as it sees it itself; NULL: none does. */
struct replica *world_leader(void);

/* Whether every node serves the newest version, and is fresh; 'out' says of one that does not, why.
 * One that a version killed three times refuses it: that it does may count, or not. */
bool world_converged(bool crashes_count, char *out, size_t size);

/* Whether the leader says that the bucket knows more than the database: somebody has to decide. */
bool world_store_is_behind(void);

/* ---- for replicas and nodes ---- */

const char *world_first_root_path(void);
struct slice world_first_root(void);
const char *world_node_keys(void);

/* Whether a manifest of that digest is signed by as many as one of the roots asks for. */
bool world_verifies(struct slice manifest, const uint8_t digest[DIGEST_SIZE]);

/* The floor that a step from one root to another one sets; false: none. */
bool world_floor(uint64_t from_version, uint64_t to_version, struct root_floor *out);
