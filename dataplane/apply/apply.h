/*
 * apply: the thread that brings the node from one snapshot to the next.
 *
 * Shape      a table of steps, DP_APPLY_STEPS, run from top to bottom for each head; apply.c is
 *            their text. Whatever fails on the way leaves what is served as it is.
 * Units      milliseconds of the boot clock for ages; -1: not known.
 * Ownership  dp_apply owns the disk, the models' bin and the thread. The bus, the metrics and the
 *            text of the configuration are borrowed.
 * Threads    one of its own, at low priority. dp_apply_status(), _wake(): any thread.
 * Errors     dp_apply_new(): those of disk_open(). What a head or snapshot is refused for is in
 *            the status, the log and trilane_snapshot_refusals_total.
 * Source     docs/formats.md, "What a node does with a head".
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/bus/bus.h"
#include "common/snapshot/disk.h"
#include "common/snapshot/head.h"
#include "common/snapshot/keys.h"
#include "common/snapshot/status.h"
#include "common/telemetry/metrics.h"
#include "dataplane/apply/model.h"

/* name, what it asks or does: in the order of docs/formats.md. A fault point has its step's name.
 */
#define DP_APPLY_STEPS(X)                                                                          \
    X(judge, "container, environment, signature, order, time: is this head news?")                 \
    X(roots, "walk to the root that it stands on, root by root, and judge again")                  \
    X(accept, "raise the order: contact is fresh, whatever comes of the target")                   \
    X(target, "which version is ours; is it above the floor and not refused?")                     \
    X(room, "wait while too many snapshots are alive")                                             \
    X(manifest, "fetch it; digest, signatures, capabilities, formats")                             \
    X(chunks, "fetch those that are not held; sizes and digests")                                  \
    X(build, "decode and link the parts beside what is served")                                    \
    X(persist, "append to the pack, sync, write the floor: the commit")                            \
    X(swap, "hand the model to every worker")

struct dp_degraded;

/* The workers, as the apply thread sees them. */
struct dp_apply_workers {
    /* Has every worker adopt the model; each takes references of its own. */
    void (*swap)(void *ctx, struct dp_model *model);
    /* Tells every worker when a head last named what is served (boot clock, ns; 0: not since the
     * start): what freshnessMax is measured from. Before the swap to newer content. */
    void (*fresh)(void *ctx, uint64_t content_ns);
    /* The least version that a worker serves; 0: some have none. */
    uint64_t (*served)(void *ctx);
    void *ctx;
};

struct dp_apply_config {
    struct slice environment;
    struct slice node;
    const struct head_label *labels; /* names ascending. */
    size_t label_count;
    const char *state_dir;
    struct slice trust_root;    /* a root container; empty: the disk has one. */
    struct disk_seed seed;      /* of a node that joined. */
    int handed_lock;            /* of the disk, from the process before; 0: none was handed over. */
    const struct key_pair *key; /* signs the status; NULL: none is sent. */
    struct bus *bus;            /* NULL: serve what is on disk, for good. */
    const char *bucket_api;     /* where the snapshot bucket is read; NULL: KV_API. */
    struct dp_apply_workers workers;
    const struct dp_degraded *degraded; /* services that miss their SLA; NULL: nobody knows. */
    struct metrics *metrics;
    struct metrics_shard *shard; /* the apply thread's own. */
};

/* What the node says of its snapshot, for /ready, /dump and tests. */
struct dp_apply_status {
    enum snap_state state;
    enum err_code code;                 /* of the refusal that holds; E_OK: none. */
    char object[STATUS_OBJECT_MAX + 1]; /* what was refused. */
    uint64_t version;                   /* the least over the workers. */
    uint8_t content_digest[DIGEST_SIZE];
    uint64_t root_version;
    uint64_t epoch;
    uint64_t sequence;
    int64_t contact_age_ms;
    int64_t content_age_ms;
    bool strict; /* the environment's security. */
    size_t live_snapshots;
    uint64_t applies;
    uint64_t refusals;
    enum err_code last_code; /* of the last refusal, also when it holds no more. */
    char last_object[STATUS_OBJECT_MAX + 1];
    uint64_t parts;
    uint64_t parts_built; /* of these, by the last apply; the others were taken over. */
    uint64_t served_ns;   /* since when every worker serves the version, by the monotonic clock; 0:
                             the workers have it, the apply thread has not looked yet. */
};

struct dp_apply;

/* Opens the disk and starts the thread, which first serves what the disk has. */
MUST_CHECK struct err dp_apply_start(const struct dp_apply_config *config, struct dp_apply **out);

/* The node drains: the status says so. Any thread. */
void dp_apply_drain(struct dp_apply *apply);

/*
 * Hands the disk over to another process: once this returns, nothing here writes to it, takes a new
 * root, or says how this node stands; heads are followed all the same. Waits for the apply thread,
 * which may be in a fetch. The lock's descriptor is borrowed. And takes it back, when that process
 * is gone. One thread, which does not call both at once.
 */
int dp_apply_hand(struct dp_apply *apply);
void dp_apply_take_back(struct dp_apply *apply);

/*
 * Ends the thread; a clean stop is marked on disk, unless that was handed over. The workers must
 * have given back their models before dp_apply_free().
 */
void dp_apply_stop(struct dp_apply *apply);
void dp_apply_free(struct dp_apply *apply);

/* A worker adopted: look at it now. Any thread. */
void dp_apply_wake(struct dp_apply *apply);

void dp_apply_status(struct dp_apply *apply, struct dp_apply_status *out);

enum { DP_POSITION_FILE_MAX = 255 };

/* Where a rule or a resource stands in the sources. */
struct dp_position {
    enum dp_position_state {
        DP_POSITION_FOUND,
        DP_POSITION_ASKED,   /* it is being fetched: ask again. */
        DP_POSITION_UNKNOWN, /* the sources have no such thing. */
        DP_POSITION_PAST,    /* the version is not the one that is served. */
        DP_POSITION_FAILED,  /* they could not be fetched: 'code'; asking again tries again. */
    } state;
    enum err_code code;
    char file[DP_POSITION_FILE_MAX + 1]; /* as it was published; cut to fit. */
    uint32_t line;
    uint32_t column;
};

/*
 * Looks up where something stood in the sources of a version: a rule by its id, a resource by
 * "<Kind>/<tenant>/<name>". Positions are fetched when they are first asked for, by the apply
 * thread; this waits for nobody. Any thread.
 */
void dp_apply_position(struct dp_apply *apply, uint64_t version, struct slice key,
                       struct dp_position *out);

/* The model that was swapped in last, with a reference for the caller; NULL: none. Any thread. */
struct dp_model *dp_apply_model(struct dp_apply *apply);
