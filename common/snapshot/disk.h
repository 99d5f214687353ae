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
#include "common/snapshot/disk_floor.h"
#include "common/snapshot/disk_pack.h"
#include "common/snapshot/disk_step.h"
#include "common/snapshot/format.h"
#include "common/snapshot/judge.h"
#include "common/snapshot/manifest.h"
#include "common/snapshot/root.h"
#include "common/snapshot/set.h"

struct disk;

/* What a node got when it joined: the floor of a directory that has none. */
struct disk_seed {
    uint64_t root_version; /* in force then: the floor of a later root stands above the seed. */
    uint64_t epoch;        /* zero: no leader had one. */
    uint64_t version;      /* zero: nothing was published. */
};

struct disk_options {
    const char *directory;      /* of `pack`, `floor`, `lock`; made if missing. */
    const uint8_t *environment; /* ENVIRONMENT_SIZE bytes. */
    struct slice trust_root;    /* a root container; empty: none is given. */
    struct disk_seed seed;      /* all zero: the node did not join. */
    int lock_fd;                /* handed over by another process; -1: none. */
    disk_hook_fn hook;          /* called before each step; NULL: nobody is. */
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
 * before anything is loaded. NOT_FOUND when there is nothing to serve, CAPABILITY_MISSING when the
 * present version is a newer release's (its last good one is no way round what that restricts), IO,
 * NO_MEMORY or OUT_OF_MEMORY when it could not be read now (which says nothing against it), else
 * the reason why neither loads.
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

/*
 * Appends what is new, syncs once, writes the floor with mark 'trying'. PERSIST_FAILED. The root
 * in force must be the one that the manifest was verified with: disk_walk() comes first. After
 * success the caller may snap_set_drop_stored().
 */
MUST_CHECK struct err disk_commit(struct disk *d, const struct disk_apply *apply);

/*
 * Writes the pack anew when more than half of it is garbage, or a gap lies in it. Behind a commit,
 * and behind the swap: nobody waits for it, and what fails is tried again with the next. While the
 * manifest of a version that is to stay cannot be read, all stays.
 */
void disk_make_room(struct disk *d);

/* The present version is good. PERSIST_FAILED: try again later. */
MUST_CHECK struct err disk_mark_good(struct disk *d);

/* A clean stop: the count of starts goes back to zero. */
MUST_CHECK struct err disk_mark_stopped(struct disk *d);

/* Version of the root in force, as of the floor: also when disk_walk() failed at the last step of
 * all, the sync of the directory, behind which the new floor stands. */
uint64_t disk_root_version(const struct disk *d);

/*
 * Takes the roots of a walk into force: 'containers' holds walk->steps of them in order. Root and
 * floor are one write.
 */
MUST_CHECK struct err disk_walk(struct disk *d, const struct root_walk *walk,
                                const struct slice *containers);

/* Bytes that reading a chunk takes: of the largest one, and of what the pack puts before it. */
enum { DISK_CHUNK_ROOM = CHUNK_RAW_MAX + PACK_HEADER_SIZE };

/*
 * Reads the stored bytes of a chunk that the pack has; 'out' has a bound of DISK_CHUNK_ROOM or
 * more. NOT_FOUND; CHUNK_TAMPERED or IO when it does not read back: the next commit that has the
 * chunk writes it anew.
 */
MUST_CHECK struct err disk_chunk(struct disk *d, const struct chunk_name *name, struct buf *out);

/* Sizes, for metrics and tests. */
struct disk_sizes {
    uint64_t pack_bytes;
    uint64_t live_bytes;
};
struct disk_sizes disk_sizes(const struct disk *d);
