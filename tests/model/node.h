/*
 * node: one data-plane node without lanes: the real apply thread on a real directory, and two
 * workers that adopt what they are handed when they come to it.
 *
 * Shape      node_check() holds what the node knows and serves against what it knew and served.
 */
#pragma once

#include <sys/types.h>

#include "dataplane/apply/apply_impl.h"

#include "tests/model/machine.h"

enum { NODE_WORKERS = 2, NODE_PATH = 256 };

struct node_worker {
    struct dp_model *model; /* adopted: a reference. */
    struct dp_model *next;  /* handed over: a reference; NULL: nothing is. */
};

/* What a node must not go back behind. */
struct node_high {
    uint64_t root_version;
    uint64_t epoch;
    uint64_t sequence;
    uint64_t version; /* the floor. */
    uint64_t disk_epoch;
    uint64_t served;
    bool committed; /* something lies on its disk. */
};

/* What a power cut takes: what was not synced yet. */
struct node_synced {
    off_t pack_size;
    struct buf pack;  /* while a compacted one may not be in its place for good. */
    struct buf floor; /* while a new one may not be. */
};

struct node {
    struct machine machine; /* first. */
    unsigned index;
    char name[8];
    char directory[NODE_PATH];
    struct key_pair key;
    struct metrics *metrics;
    bool stops;        /* SIGTERM was sent. */
    bool disk_is_full; /* each write fails. */
    struct node_synced synced;
    struct node_high high;
    uint64_t high_life; /* in which 'high' was seen; order holds within a life. */
    /* Of its present life. */
    struct bus *bus;
    struct dp_apply *apply; /* NULL: not up yet. */
    struct node_worker workers[NODE_WORKERS];
    const struct dp_model *seen; /* the model that was looked at last. */
    bool crashed;                /* it began without one, since that had killed it. */
};

/* Makes its key and its directory below 'directory'; its public key goes to 'keys'. */
void node_init(struct node *node, unsigned index, const char *directory, const char *keys);

void node_start(struct node *node);
void node_stop(struct node *node);

/* The power went: what was not synced is lost, or torn. It must have died. */
void node_cut_power(struct node *node);

/* Its disk is replaced by an empty one. It must have died. */
void node_wipe(struct node *node);

/* The version that all its workers serve; 0: none. */
uint64_t node_serves(const struct node *node);

/* Looks at it; ends the schedule when something does not hold. */
void node_check(struct node *node);
