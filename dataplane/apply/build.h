/*
 * build: makes a model of a closed set of parts, beside the one that is served.
 *
 * Shape      a bin holds every model of the node that is alive, and those that wait to be freed.
 *            A built part is shared by all models whose sets hold the same bytes under its key;
 *            tables and links between parts are each model's own.
 * Ownership  a model has a reference to its set. dp_model_build() gives the first reference to
 *            the model; when the last one goes, the model waits in the bin for
 *            dp_model_bin_sweep().
 * Threads    one thread builds and sweeps: the apply thread. References may be dropped on any.
 * Errors     PART_MALFORMED and CAPABILITY_MISSING name the part in the report; OUT_OF_MEMORY.
 * Source     ARCHITECTURE, "Apply is atomic": parts in unchanged chunks are taken over, built.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/snapshot/set.h"
#include "dataplane/apply/balance.h"
#include "dataplane/apply/model.h"

struct dp_model_bin;

MUST_CHECK struct err dp_model_bin_new(struct dp_model_bin **out);

/* Says where the node is, before anything is built; the strings are copied, cut at 63 bytes. Of a
 * node that says nothing all endpoints are as near. */
void dp_model_bin_place(struct dp_model_bin *bin, const struct dp_locality *here);

/* Only when no model of the bin has a reference any more. Accepts NULL. */
void dp_model_bin_free(struct dp_model_bin *bin);

/* Frees the models that nobody refers to; returns how many. */
size_t dp_model_bin_sweep(struct dp_model_bin *bin);

/* Models in memory, those that wait to be swept counted. */
size_t dp_model_bin_live(struct dp_model_bin *bin);

enum { DP_BUILD_OBJECT_MAX = 128 };

/* What a build did, or what it failed at. */
struct dp_build_report {
    char object[DP_BUILD_OBJECT_MAX]; /* of a failure: "routing host/a.example/v1". */
    size_t parts;                     /* in all. */
    size_t parts_built;               /* the others were taken over from 'previous'. */
};

/*
 * Builds from a closed set (takes a reference of its own). 'previous' may be NULL; its parts are
 * taken over where key and bytes are the same. On failure *out is untouched.
 */
MUST_CHECK struct err dp_model_build(struct dp_model_bin *bin, struct snap_set *set,
                                     const struct dp_model *previous, struct dp_model **out,
                                     struct dp_build_report *report);

/* Whether this node builds streams of this kind; positions are known, but not built. */
bool dp_model_knows_stream(uint32_t kind);

/* The set that a model was built from; borrowed. */
struct snap_set *dp_model_set(const struct dp_model *model);
