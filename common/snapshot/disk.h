/*
 * disk: last-good in `state/`: pack, floor, lock. A node starts from it with all else dead.
 *
 * Shape      `pack` is appended to and holds chunks, manifests and roots; `floor` is small,
 *            replaced whole, and is the commit: what it does not name does not exist.
 * Ownership  a struct disk owns the directory by flock until disk_close().
 * Threads    one owner at a time.
 * Errors     PERSIST_FAILED when a write does not reach the disk: what was there before still
 *            holds. FLOOR_CORRUPT is told by disk_notes(), not returned: the floor is rebuilt.
 *            CONFLICT when another process owns the directory.
 * Source     docs/formats.md, "On a node's disk".
 */
#pragma once

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/snapshot/format.h"
#include "common/snapshot/judge.h"
#include "common/snapshot/manifest.h"
#include "common/snapshot/root.h"
#include "common/snapshot/set.h"

struct disk;

/* Every point at which a process may die or a write may fail; in the order of an apply. */
#define DISK_STEP_LIST(X)                                                                          \
    X(PACK_APPEND, "before a record is appended")                                                  \
    X(PACK_APPENDED, "after all records were appended")                                            \
    X(PACK_SYNC, "before the pack is synced")                                                      \
    X(FLOOR_CREATE, "before the new floor is made aside")                                          \
    X(FLOOR_WRITE, "before it is written")                                                         \
    X(FLOOR_SYNC, "before it is synced")                                                           \
    X(FLOOR_RENAME, "before it takes the place of the old one")                                    \
    X(FLOOR_DIR_SYNC, "before the directory is synced")                                            \
    X(FLOOR_DONE, "after the commit")                                                              \
    X(COMPACT_CREATE, "before the new pack is made")                                               \
    X(COMPACT_WRITE, "before a record is copied")                                                  \
    X(COMPACT_SYNC, "before the new pack is synced")                                               \
    X(COMPACT_RENAME, "before it takes the place of the old one")                                  \
    X(COMPACT_DIR_SYNC, "before the directory is synced")                                          \
    X(COMPACT_DONE, "after compaction")

#define DISK_STEP_ENUM_(name, text) DISK_##name,
enum disk_step { DISK_STEP_LIST(DISK_STEP_ENUM_) DISK_STEP_COUNT };
#undef DISK_STEP_ENUM_

/* Called at each step by tests: zero goes on, an errno makes the step fail with it. */
typedef int (*disk_hook_fn)(void *context, enum disk_step step);

enum disk_mark {
    DISK_MARK_NONE,   /* no version was applied yet. */
    DISK_MARK_TRYING, /* the present version has not proved itself. */
    DISK_MARK_GOOD,   /* it has; it is the last good one. */
    DISK_MARK_COUNT,
};

struct disk_version {
    uint64_t version;            /* zero: none. */
    uint8_t digest[DIGEST_SIZE]; /* of the manifest; all zero: any (set by a root's floor). */
};

/* The content of `floor`. */
struct disk_floor {
    uint64_t root_version;
    uint64_t epoch;
    struct disk_version present;
    enum disk_mark mark;
    uint8_t starts; /* starts while 'trying'; at three the last good one is started. */
    struct disk_version good;
    uint32_t refused_count;
    uint8_t refused[REFUSED_DIGESTS_MAX][DIGEST_SIZE];
};

struct disk_options {
    const char *directory;      /* of `pack`, `floor`, `lock`; made if missing. */
    const uint8_t *environment; /* ENVIRONMENT_SIZE bytes. */
    struct slice trust_root;    /* a root container; empty: none is given. */
    int lock_fd;                /* handed over by another process; -1: none. */
    disk_hook_fn hook;          /* NULL but in tests. */
    void *hook_context;
};

/*
 * Opens the directory: takes the lock, cuts a torn tail off, reads or rebuilds the floor, and
 * finds the root in force, the highest of the directory's and --trust-root. ROOT_MISSING when
 * there is none.
 */
MUST_CHECK struct err disk_open(const struct disk_options *options, struct disk **out);
void disk_close(struct disk *d);

/* The descriptor that holds the lock; it stays the disk's. */
int disk_lock_fd(const struct disk *d);

/* What opening met: for the log. */
struct disk_notes {
    uint64_t torn_bytes;  /* cut off at the end of the pack. */
    uint64_t bad_records; /* whose checksum does not hold. */
    bool floor_rebuilt;   /* FLOOR_CORRUPT: taken from the highest manifest in the pack. */
};
struct disk_notes disk_notes(const struct disk *d);

/* The floor in force; borrowed until the next call that writes. */
const struct disk_floor *disk_floor(const struct disk *d);

/* The root in force. */
const struct root *disk_root(const struct disk *d);

/* Sets up a node's judgement from what the disk knows. */
void disk_judge(const struct disk *d, struct judge *out);

/*
 * What a start serves, loaded and verified: the present version, or the last good one when the
 * present one killed the node three times, is refused or does not load. Counts the start, synced,
 * before anything is loaded. NOT_FOUND when there is nothing to serve.
 */
struct disk_start {
    struct snap_set *set; /* the caller's reference. */
    struct disk_version version;
    bool fell_back;       /* it is the last good one, below the floor. */
    struct err why;       /* of falling back: CRASHED_NODE, or what did not load. */
    struct err count_err; /* the count of starts could not be written; serving goes on. */
};
MUST_CHECK struct err disk_start(struct disk *d, struct disk_start *out);

/* What an apply makes permanent, before the swap. */
struct disk_apply {
    struct slice manifest;      /* its container. */
    const struct snap_set *set; /* closed; new chunks still have their stored bytes. */
    uint64_t epoch;             /* of the order accepted. */
};

/* Appends what is new, syncs once, writes the floor with mark 'trying'. PERSIST_FAILED. */
MUST_CHECK struct err disk_commit(struct disk *d, const struct disk_apply *apply);

/* The present version is good. PERSIST_FAILED: try again later. */
MUST_CHECK struct err disk_mark_good(struct disk *d);

/* A clean stop: the count of starts goes back to zero. */
MUST_CHECK struct err disk_mark_stopped(struct disk *d);

/*
 * Takes the roots of a walk into force: 'containers' holds walk->steps of them in order. Root and
 * floor are one write.
 */
MUST_CHECK struct err disk_walk(struct disk *d, const struct root_walk *walk,
                                const struct slice *containers);

/* Reads the stored bytes of a chunk that the pack has. NOT_FOUND, CHUNK_TAMPERED. */
MUST_CHECK struct err disk_chunk(struct disk *d, const struct chunk_name *name, struct buf *out);

/* Sizes, for metrics and tests. */
struct disk_sizes {
    uint64_t pack_bytes;
    uint64_t live_bytes;
};
struct disk_sizes disk_sizes(const struct disk *d);
