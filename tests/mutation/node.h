/*
 * node: the real steps of a node's apply thread over a real directory, run one head at a time; the
 * bucket is the world's, with objects of a trial in place of some.
 *
 * Ownership  node_start() gives what node_stop() ends.
 */
#pragma once

#include "dataplane/apply/apply.h"

#include "tests/mutation/trial.h"

enum { NODE_PATH = 256, NODE_LIES_MAX = 64 };

/* What stands under a key of the bucket in place of what should. */
struct node_lie {
    char key[SNAP_KEY_SIZE];
    bool is_missing;
    struct slice bytes;
};

struct node {
    struct world *world;
    char directory[NODE_PATH];
    struct metrics *metrics;
    struct dp_apply *apply;
    struct dp_model *model; /* what the worker serves: a reference. */
    struct node_lie lies[NODE_LIES_MAX];
    size_t lie_count;
};

/* In 'directory', which is made; trusts the world's present root. */
void node_start(struct node *n, struct world *w, const char *directory);
void node_stop(struct node *n);

/* Until the next head. */
void node_lie(struct node *n, const char *key, struct slice bytes);
void node_hide(struct node *n, const char *key);

/* Controls: the head must lead to this version, or to this root; else the program ends. An empty
 * head: the root is found without any, as once a minute. */
void node_takes(struct node *n, struct slice head, uint64_t version);
void node_walks(struct node *n, struct slice root, struct slice head, uint64_t root_version);

/* What it serves has stood its time: it is the last good version from now on. */
void node_proves(struct node *n);

/* The head must be no news. */
void node_knows(struct node *n, struct slice head);

/* The head must be refused, and nothing may change by it. */
void node_refuses(struct trial *t, struct slice head);

/* The head must be accepted and what it names refused: the order alone may change. */
void node_refuses_target(struct trial *t, struct slice head);
