/*
 * head: the pointer to the version that each node shall serve; heartbeat and fence in one.
 *
 * Shape      order (epoch, sequence), an end of validity, up to 16 targets.
 * Ownership  labels of a decoded head borrow from it until head_free().
 * Threads    pure functions; any thread, after ids_init().
 * Errors     HEAD_MALFORMED, E_NO_MEMORY; E_USAGE from head_encode().
 * Source     docs/formats.md, "Bodies".
 */
#pragma once

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/snapshot/format.h"

struct head_label {
    struct slice name;
    struct slice value;
};

struct head_target {
    bool all; /* every node, and nothing else is set of the selector. */
    uint32_t label_count;
    struct head_label labels[HEAD_LABELS_MAX]; /* all must be equal; names ascending. */
    uint32_t per_mille;                        /* 1 to 1000; zero with 'all'. */
    uint8_t salt[HEAD_SALT_SIZE];
    uint64_t version;
    uint8_t manifest_digest[DIGEST_SIZE];
};

struct head {
    uint64_t root_version;
    uint64_t epoch;
    uint64_t sequence; /* from 1 on. */
    int64_t signed_at_ms;
    int64_t expires_at_ms;
    uint32_t target_count;
    struct head_target targets[HEAD_TARGETS_MAX]; /* the first that matches is the node's. */
    void *owned;                                  /* the decoded message behind the labels. */
};

/* Who a selector is asked for: id and labels of the node's certificate. */
struct head_node {
    struct slice id;
    const struct head_label *labels;
    size_t label_count;
};

MUST_CHECK struct err head_encode(const struct head *h, struct buf *out);
MUST_CHECK struct err head_decode(struct slice body, struct head *out);
void head_free(struct head *h);

/* The node's target, or NULL. */
const struct head_target *head_target(const struct head *h, const struct head_node *node);

#define auto_head __attribute__((cleanup(head_free)))
