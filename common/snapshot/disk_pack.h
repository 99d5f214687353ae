/*
 * disk_pack: the file `pack`: records of chunks, manifests and roots, appended one by one.
 *
 * Shape      records of a header (magic, format, kind, size, checksum) and bytes, with an index
 *            in memory. A manifest's bytes follow the version of the root that it was verified
 *            with and the epoch of the head that named it, u64 each.
 * Ownership  the pack owns its descriptor and its index.
 * Threads    one owner at a time.
 * Errors     PERSIST_FAILED from writing; CHUNK_TAMPERED when a record does not read back.
 * Source     docs/formats.md, "On a node's disk".
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/map.h"
#include "common/base/slice.h"
#include "common/snapshot/disk_step.h"
#include "common/snapshot/format.h"

enum pack_kind { PACK_CHUNK = 1, PACK_MANIFEST = 2, PACK_ROOT = 3, PACK_KIND_COUNT };

enum { PACK_HEADER_SIZE = 24 };

struct pack_record {
    enum pack_kind kind;
    uint8_t key[DIGEST_SIZE]; /* a digest, or a root's version as 8 bytes. */
    size_t key_size;
    uint64_t offset;       /* of the header. */
    uint32_t size;         /* of the bytes behind it. */
    uint64_t version;      /* of a root or a manifest. */
    uint64_t root_version; /* of a manifest: the root that it was verified with. */
    uint64_t epoch;        /* of a manifest. */
    bool has_floor;        /* of a root: it sets one. */
    bool live;             /* kept by the next compaction. */
    bool unread;           /* did not read back: what is written of its name takes its place. */
};

struct pack {
    int dir_fd; /* borrowed. */
    int fd;     /* owned. */
    uint8_t environment[ENVIRONMENT_SIZE];
    struct disk_steps steps;
    uint64_t end;                 /* where the next record goes. */
    struct pack_record **records; /* owned, in the order of the file. */
    size_t record_count;
    size_t record_capacity;
    struct map index;    /* key to record. */
    uint64_t torn_bytes; /* cut off when it was opened. */
    uint64_t bad_records;
    bool has_gap; /* something that is no record lies between two: roots behind it do not count. */
};

/* Opens or makes `pack` below dir_fd, cuts a torn tail off, and indexes what is whole. */
MUST_CHECK struct err pack_open(struct pack *p, int dir_fd,
                                const uint8_t environment[ENVIRONMENT_SIZE],
                                const struct disk_steps *steps);
void pack_close(struct pack *p);

/* NULL when there is none. */
struct pack_record *pack_chunk(const struct pack *p, const uint8_t digest[DIGEST_SHORT_SIZE]);
struct pack_record *pack_manifest(const struct pack *p, const uint8_t digest[DIGEST_SIZE]);
struct pack_record *pack_root(const struct pack *p, uint64_t version);

/* Appends the bytes of a record, whose name is made of them: a chunk's stored bytes, a root's
 * container. */
MUST_CHECK struct err pack_add(struct pack *p, enum pack_kind kind, struct slice bytes);

/* Appends a manifest's container with what it was verified by. */
MUST_CHECK struct err pack_add_manifest(struct pack *p, struct slice container,
                                        uint64_t root_version, uint64_t epoch);

/* The same for bytes that were verified under a name: they are not hashed, nor read, again. */
struct pack_manifest_name {
    const uint8_t *digest; /* DIGEST_SIZE bytes. */
    uint64_t version;
    uint64_t root_version;
    uint64_t epoch;
};
MUST_CHECK struct err pack_add_named_chunk(struct pack *p, const uint8_t digest[DIGEST_SHORT_SIZE],
                                           struct slice stored);
MUST_CHECK struct err pack_add_named_manifest(struct pack *p, struct slice container,
                                              const struct pack_manifest_name *name);

MUST_CHECK struct err pack_sync(struct pack *p);

/* Takes back what was appended since there were 'record_count' records and 'end' bytes. */
void pack_rollback(struct pack *p, size_t record_count, uint64_t end);

/* Reads the bytes of a record; for a manifest its container alone. */
MUST_CHECK struct err pack_read(const struct pack *p, const struct pack_record *r, struct buf *out);

/* Bytes of the records that are live, with their headers. */
uint64_t pack_live_bytes(const struct pack *p);

/*
 * Writes live records anew, synced before the old file goes. PERSIST_FAILED leaves the old one.
 */
MUST_CHECK struct err pack_compact(struct pack *p);
