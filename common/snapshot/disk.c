/*
 * Last-good on disk. Whatever is written goes: append to the pack, sync, then the floor; so at
 * each moment the floor names only what is whole.
 */
#include "common/snapshot/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/scope.h"
#include "common/snapshot/container.h"

enum {
    READ_MAX = 1 << 20, /* above each record of a pack. */
    STARTS_MAX = 3,     /* so many starts of one version without a sign of life. */
};

/* A version whose chunks are all in the pack: so is what a set takes over from it. */
struct disk_whole {
    bool known;
    uint8_t digest[DIGEST_SIZE]; /* of its manifest. */
    uint64_t bytes;              /* of its chunks, each one once. */
    uint64_t named_bytes;        /* as often as they are named. */
};

struct disk {
    int dir_fd;
    int lock_fd;
    struct disk_steps steps;
    uint8_t environment[ENVIRONMENT_SIZE];
    struct pack pack;
    struct disk_floor floor;
    struct root root;      /* in force. */
    struct buf root_bytes; /* its container, if it is --trust-root and not yet in the pack. */
    bool floor_rebuilt;
    bool serves_present;     /* the present version was committed or started here. */
    struct disk_whole whole; /* the one that was committed or started last. */
};

static bool is_zero(const uint8_t digest[DIGEST_SIZE])
{
    uint8_t all = 0;
    for (size_t i = 0; i < DIGEST_SIZE; i++) {
        all |= digest[i];
    }
    return all == 0;
}

static bool names_manifest(const struct disk_version *v)
{
    return v->version != 0 && !is_zero(v->digest);
}

static bool version_eq(const struct disk_version *a, const struct disk_version *b)
{
    return a->version == b->version && memcmp(a->digest, b->digest, DIGEST_SIZE) == 0;
}

/* ---- reading a version ---- */

/* The root that a manifest was verified with; it may be older than the one in force. */
static struct err load_root(struct disk *d, uint64_t version, struct root *out)
{
    auto_buf struct buf bytes = BUF_MAX(READ_MAX + PACK_HEADER_SIZE);
    const struct pack_record *r = pack_root(&d->pack, version);
    if (r == NULL) {
        return FAIL(E_ROOT_MISSING);
    }
    TRY(pack_read(&d->pack, r, &bytes));
    return root_open(buf_slice(&bytes), out);
}

/* Digest, environment, format and signatures are asked; neither newer roots nor time. */
static struct err load_manifest(struct disk *d, const struct pack_record *r, struct manifest *out)
{
    auto_buf struct buf bytes = BUF_MAX(READ_MAX + PACK_HEADER_SIZE);
    struct root root;
    TRY(load_root(d, r->root_version, &root));
    TRY(pack_read(&d->pack, r, &bytes));
    const struct manifest_wanted wanted = {.version = r->version, .digest = r->key};
    return manifest_open(buf_slice(&bytes), &root, &wanted, out);
}

static struct err load_chunks(struct disk *d, struct snap_set *set)
{
    auto_buf struct buf bytes = BUF_MAX(READ_MAX + PACK_HEADER_SIZE);
    struct snap_missing missing;
    size_t at = 0;
    while (snap_set_missing(set, &at, &missing)) {
        struct err e = disk_chunk(d, &missing.name, &bytes);
        if (e.code == E_NOT_FOUND) {
            return FAIL(E_CHUNK_MISSING); /* its record went bad: that is not a disk without any. */
        }
        TRY(e);
        TRY(snap_set_add(set, &missing.name, buf_slice(&bytes)));
    }
    TRY(snap_set_close(set));
    snap_set_drop_stored(set);
    return OK;
}

static bool is_whole(const struct disk *d, const uint8_t *digest)
{
    return digest != NULL && d->whole.known && memcmp(d->whole.digest, digest, DIGEST_SIZE) == 0;
}

/* Looks every chunk up: none may be taken over from a version that is not on disk. */
static struct err count_chunks(struct disk *d, const struct snap_set *set, uint64_t *out_bytes)
{
    struct snap_cursor at = {0};
    struct chunk_name name;
    size_t stream = 0;
    *out_bytes = 0;
    for (size_t i = 0; i < d->pack.record_count; i++) {
        d->pack.records[i]->live = false;
    }
    while (snap_set_name(set, &stream, &at, &name)) {
        struct pack_record *r = pack_chunk(&d->pack, name.digest);
        if (r == NULL) {
            return FAIL(E_PERSIST_FAILED);
        }
        *out_bytes += r->live ? 0 : r->size;
        r->live = true;
    }
    return OK;
}

static void note_whole(struct disk *d, const struct snap_set *set)
{
    struct disk_whole whole = {.known = true, .named_bytes = snap_set_counts(set).stored_bytes};
    memcpy(whole.digest, snap_set_manifest_digest(set), DIGEST_SIZE);
    struct err e = count_chunks(d, set, &whole.bytes);
    d->whole = err_ok(e) ? whole : (struct disk_whole){0};
}

static struct err load_version(struct disk *d, const struct disk_version *v, struct snap_set **out)
{
    const struct pack_record *r = pack_manifest(&d->pack, v->digest);
    if (r == NULL) {
        return FAIL(E_MANIFEST_MISSING);
    }
    auto_manifest struct manifest m = {0};
    TRY(load_manifest(d, r, &m));
    TRY(manifest_check_capabilities(&m, CAPABILITIES_HERE));
    struct snap_set *set = NULL;
    TRY(snap_set_new(&m, /* previous= */ NULL, &set));
    struct err e = load_chunks(d, set);
    if (!err_ok(e)) {
        snap_set_unref(set);
        return e;
    }
    note_whole(d, set);
    *out = set;
    return OK;
}

struct err disk_chunk(struct disk *d, const struct chunk_name *name, struct buf *out)
{
    CHECK(out->max >= DISK_CHUNK_ROOM);
    struct pack_record *r = pack_chunk(&d->pack, name->digest);
    if (r == NULL) {
        return FAIL(E_NOT_FOUND);
    }
    struct err e = pack_read(&d->pack, r, out);
    r->unread = e.code == E_CHUNK_TAMPERED || e.code == E_IO;
    return e;
}

/* ---- the floor that cannot be read ---- */

static bool has_all_chunks(const struct disk *d, const struct manifest *m)
{
    for (size_t i = 0; i < m->stream_count; i++) {
        const struct manifest_stream *s = &m->streams[i];
        for (size_t k = 0; k < s->chunk_count && s->kind != STREAM_POSITIONS; k++) {
            if (pack_chunk(&d->pack, s->chunk_digests + k * DIGEST_SHORT_SIZE) == NULL) {
                return false;
            }
        }
    }
    return true;
}

/* The highest manifest below 'below' (zero: any), verified with the root 'root_least' or a later
 * one, whose signatures hold and whose chunks are here. */
static const struct pack_record *highest_manifest(struct disk *d, uint64_t below,
                                                  uint64_t root_least)
{
    const struct pack_record *best = NULL;
    for (size_t i = 0; i < d->pack.record_count; i++) {
        const struct pack_record *r = d->pack.records[i];
        bool candidate = r->kind == PACK_MANIFEST && (below == 0 || r->version < below) &&
                         r->root_version >= root_least &&
                         (best == NULL || r->version > best->version);
        auto_manifest struct manifest m = {0};
        if (candidate && err_ok(load_manifest(d, r, &m)) && has_all_chunks(d, &m)) {
            best = r;
        }
    }
    return best;
}

static struct disk_version record_version(const struct pack_record *r)
{
    struct disk_version v = {.version = r->version};
    memcpy(v.digest, r->key, DIGEST_SIZE);
    return v;
}

static uint64_t highest_root(const struct disk *d, uint64_t at_most)
{
    uint64_t highest = 0;
    for (size_t i = 0; i < d->pack.record_count; i++) {
        const struct pack_record *r = d->pack.records[i];
        bool higher = r->kind == PACK_ROOT && r->version <= at_most && r->version > highest;
        highest = higher ? r->version : highest;
    }
    return highest;
}

/* What the floor in a root sets, on the step to that root. */
static void step_to_floor(struct disk_floor *floor, const struct root_floor *to)
{
    floor->epoch = to->epoch;
    floor->present = (struct disk_version){.version = to->version};
    floor->mark = DISK_MARK_NONE;
    floor->starts = 0;
    floor->refused = (struct refused){0};
}

/* The highest root here that sets a floor; NULL: none does. */
static struct pack_record *healing_root(const struct disk *d)
{
    struct pack_record *best = NULL;
    for (size_t i = 0; i < d->pack.record_count; i++) {
        struct pack_record *r = d->pack.records[i];
        bool candidate = r->kind == PACK_ROOT && r->has_floor;
        best = candidate && (best == NULL || r->version > best->version) ? r : best;
    }
    return best;
}

/* Without a manifest that holds: what the root set, or nothing. */
static struct err rebuild_from_root(struct disk *d, const struct pack_record *healing)
{
    struct root root;
    if (healing == NULL) {
        return OK;
    }
    TRY(load_root(d, healing->version, &root));
    step_to_floor(&d->floor, &root.floor);
    const struct pack_record *good =
        highest_manifest(d, root.floor.version + 1, /* root_least= */ 0);
    if (good != NULL) {
        d->floor.good = record_version(good);
    }
    return OK;
}

/* From what is there, never from zero: a lost floor must not let an old version back in. Nor one
 * from before a root that set the floor: it may be the one that was healed. */
static struct err floor_rebuild(struct disk *d)
{
    const struct pack_record *healing = healing_root(d);
    d->floor = (struct disk_floor){.root_version = highest_root(d, UINT64_MAX)};
    const struct pack_record *present =
        highest_manifest(d, /* below= */ 0, healing == NULL ? 0 : healing->version);
    d->floor_rebuilt = true;
    if (present == NULL) {
        return rebuild_from_root(d, healing);
    }
    d->floor.present = record_version(present);
    d->floor.epoch = present->epoch;
    d->floor.mark = DISK_MARK_TRYING;
    const struct pack_record *good = highest_manifest(d, present->version, /* root_least= */ 0);
    if (good != NULL) {
        d->floor.good = record_version(good);
    }
    return OK;
}

/* ---- opening ---- */

static struct err open_directory(const char *path, int *out_fd)
{
    if (mkdir(path, 0700) != 0 && errno != EEXIST) {
        return FAIL(E_IO);
    }
    *out_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return *out_fd >= 0 ? OK : FAIL(E_IO);
}

/* A descriptor that was handed over holds the lock already; flock() on it says so. */
static struct err take_lock(struct disk *d, int handed_fd)
{
    auto_close int fd = openat(d->dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    struct stat ours;
    struct stat handed;
    if (fd < 0 || fstat(fd, &ours) != 0) {
        return FAIL(E_IO);
    }
    if (handed_fd >= 0) {
        bool same = fstat(handed_fd, &handed) == 0 && handed.st_dev == ours.st_dev &&
                    handed.st_ino == ours.st_ino;
        if (!same) {
            return FAIL(E_USAGE);
        }
        scope_close(&fd);
        fd = fcntl(handed_fd, F_DUPFD_CLOEXEC, 0);
    }
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) != 0) {
        return FAIL(E_CONFLICT);
    }
    d->lock_fd = TAKE_FD(fd);
    return OK;
}

static struct err read_floor(struct disk *d)
{
    struct err e = disk_floor_read(d->dir_fd, d->environment, &d->floor);
    bool fresh = e.code == E_NOT_FOUND && d->pack.record_count == 0;
    if (e.code == E_FLOOR_CORRUPT || (e.code == E_NOT_FOUND && !fresh)) {
        return floor_rebuild(d);
    }
    return fresh ? OK : e;
}

/* Only where nothing is known: a floor that a root set lower than the seed is meant. It is in
 * memory until the first apply or walk writes it. */
static void plant_seed(struct disk *d, const struct disk_seed *seed)
{
    if (d->floor.present.version != 0 || d->floor.epoch != 0) {
        return;
    }
    d->floor.root_version =
        seed->root_version > d->floor.root_version ? seed->root_version : d->floor.root_version;
    d->floor.epoch = seed->epoch;
    d->floor.present = (struct disk_version){.version = seed->version};
}

static struct err find_root(struct disk *d, struct slice trust_root)
{
    struct root given = {0};
    uint64_t stored = highest_root(d, d->floor.root_version);
    if (stored != 0) {
        TRY(load_root(d, stored, &d->root));
    }
    if (trust_root.size > 0) {
        TRY(root_open(trust_root, &given));
        if (memcmp(given.environment_id, d->environment, ENVIRONMENT_SIZE) != 0) {
            return FAIL(E_USAGE);
        }
    }
    if (given.version > stored) {
        d->root = given;
        TRY(buf_add(&d->root_bytes, trust_root));
        /* A higher root by --trust-root is a step to it: a floor in it takes effect, once. */
        if (given.has_floor && given.version > d->floor.root_version) {
            step_to_floor(&d->floor, &given.floor);
        }
    }
    return d->root.version == 0 ? FAIL(E_ROOT_MISSING) : OK;
}

static struct err open_all(struct disk *d, const struct disk_options *options)
{
    TRY(open_directory(options->directory, &d->dir_fd));
    TRY(take_lock(d, options->lock_fd));
    TRY(pack_open(&d->pack, d->dir_fd, d->environment, &d->steps));
    TRY(read_floor(d));
    plant_seed(d, &options->seed);
    return find_root(d, options->trust_root);
}

struct err disk_open(const struct disk_options *options, struct disk **out)
{
    struct disk *d = calloc(1, sizeof(*d));
    if (d == NULL) {
        return FAIL(E_OUT_OF_MEMORY);
    }
    d->dir_fd = -1;
    d->lock_fd = -1;
    d->pack.fd = -1;
    d->root_bytes = BUF_MAX(READ_MAX);
    d->steps = (struct disk_steps){options->hook, options->hook_context};
    memcpy(d->environment, options->environment, ENVIRONMENT_SIZE);
    struct err e = open_all(d, options);
    if (!err_ok(e)) {
        disk_close(d);
        return e;
    }
    *out = d;
    return OK;
}

void disk_close(struct disk *d)
{
    if (d == NULL) {
        return;
    }
    pack_close(&d->pack);
    buf_free(&d->root_bytes);
    scope_close(&d->dir_fd);
    scope_close(&d->lock_fd);
    free(d);
}

int disk_lock_fd(const struct disk *d)
{
    return d->lock_fd;
}

struct disk_notes disk_notes(const struct disk *d)
{
    return (struct disk_notes){.torn_bytes = d->pack.torn_bytes,
                               .bad_records = d->pack.bad_records,
                               .floor_rebuilt = d->floor_rebuilt};
}

const struct disk_floor *disk_floor(const struct disk *d)
{
    return &d->floor;
}

const struct root *disk_root(const struct disk *d)
{
    return &d->root;
}

void disk_judge(const struct disk *d, struct judge *out)
{
    const struct disk_floor *f = &d->floor;
    *out = (struct judge){.root = d->root,
                          .has_order = f->epoch != 0,
                          .epoch = f->epoch,
                          .version = f->present.version,
                          .has_digest = names_manifest(&f->present),
                          .refused = f->refused};
    memcpy(out->digest, f->present.digest, DIGEST_SIZE);
}

/* ---- writing ---- */

/* Makes a floor the one in force, in memory exactly when it is so on disk. */
static struct err floor_put(struct disk *d, const struct disk_floor *next)
{
    bool replaced = false;
    struct err e = disk_floor_write(d->dir_fd, d->environment, next, &d->steps, &replaced);
    if (replaced) {
        d->floor = *next;
    }
    return e;
}

static struct err add_root(struct disk *d)
{
    bool stored = pack_root(&d->pack, d->root.version) != NULL;
    return stored ? OK : pack_add(&d->pack, PACK_ROOT, buf_slice(&d->root_bytes));
}

/* Appends those that are new, or went bad on disk. What was taken over from a version that is here
 * whole is here. */
static struct err add_chunks(struct disk *d, const struct snap_set *set, struct disk_whole *out)
{
    struct snap_set_counts counts = snap_set_counts(set);
    uint64_t gone = d->whole.named_bytes - counts.stored_kept_bytes;
    struct snap_stored chunk;
    size_t at = 0;
    *out = (struct disk_whole){.known = true, .named_bytes = counts.stored_bytes};
    memcpy(out->digest, snap_set_manifest_digest(set), DIGEST_SIZE);
    uint64_t added = 0;
    while (snap_set_stored(set, &at, &chunk)) {
        added += chunk.name.stored_size;
        const struct pack_record *there = pack_chunk(&d->pack, chunk.name.digest);
        if (there != NULL && !there->unread) {
            continue;
        }
        if (chunk.stored.size == 0) {
            return FAIL(E_PERSIST_FAILED);
        }
        TRY(pack_add_named_chunk(&d->pack, chunk.name.digest, chunk.stored));
    }
    if (!is_whole(d, snap_set_base(set)) || gone > d->whole.bytes) {
        return count_chunks(d, set, &out->bytes);
    }
    out->bytes = d->whole.bytes - gone + added;
    return OK;
}

static struct err add_apply(struct disk *d, const struct disk_apply *apply, struct disk_whole *out)
{
    const struct pack_manifest_name name = {.digest = snap_set_manifest_digest(apply->set),
                                            .version = snap_set_version(apply->set),
                                            .root_version = d->root.version,
                                            .epoch = apply->epoch};
    TRY(add_root(d));
    TRY(add_chunks(d, apply->set, out));
    if (pack_manifest(&d->pack, name.digest) == NULL) {
        TRY(pack_add_named_manifest(&d->pack, apply->manifest, &name));
    }
    return disk_step(&d->steps, DISK_PACK_APPENDED);
}

/* Ends an append: synced whole, or taken back whole. */
static struct err append_end(struct disk *d, struct err e, size_t records, uint64_t end)
{
    if (err_ok(e) && d->pack.end > end) {
        e = pack_sync(&d->pack);
    }
    if (!err_ok(e)) {
        pack_rollback(&d->pack, records, end);
    }
    return e;
}

static void mark_live_root(struct disk *d, uint64_t version)
{
    struct pack_record *r = pack_root(&d->pack, version);
    if (r != NULL) {
        r->live = true;
    }
}

static struct err mark_live_version(struct disk *d, const struct disk_version *v)
{
    struct pack_record *r = names_manifest(v) ? pack_manifest(&d->pack, v->digest) : NULL;
    auto_manifest struct manifest m = {0};
    if (r == NULL) {
        return OK;
    }
    TRY(load_manifest(d, r, &m));
    r->live = true;
    mark_live_root(d, r->root_version);
    for (size_t i = 0; i < m.stream_count; i++) {
        const struct manifest_stream *s = &m.streams[i];
        for (size_t k = 0; k < s->chunk_count; k++) {
            struct pack_record *c = pack_chunk(&d->pack, s->chunk_digests + k * DIGEST_SHORT_SIZE);
            if (c != NULL) {
                c->live = true;
            }
        }
    }
    return OK;
}

/* A failure: what is not marked may be live all the same. */
static struct err mark_live(struct disk *d)
{
    for (size_t i = 0; i < d->pack.record_count; i++) {
        d->pack.records[i]->live = false;
    }
    mark_live_root(d, d->root.version);
    mark_live_root(d, d->floor.root_version);
    struct pack_record *healing = healing_root(d); /* a floor that is lost is taken from it. */
    if (healing != NULL) {
        healing->live = true;
    }
    TRY(mark_live_version(d, &d->floor.present));
    return mark_live_version(d, &d->floor.good);
}

/* What is live is read and verified anew, which costs more than all else of an apply: only when it
 * may be little. */
void disk_make_room(struct disk *d)
{
    bool is_full = is_whole(d, d->floor.present.digest) && d->pack.end <= 2 * d->whole.bytes;
    if (is_full && !d->pack.has_gap) {
        return;
    }
    struct err e = mark_live(d);
    if (err_ok(e) && (d->pack.has_gap || d->pack.end > 2 * pack_live_bytes(&d->pack))) {
        e = pack_compact(&d->pack);
    }
    (void)e; /* tried again after the next commit. */
}

static struct disk_floor floor_after(const struct disk *d, const struct disk_apply *apply)
{
    struct disk_floor next = d->floor;
    struct disk_version to = {.version = snap_set_version(apply->set)};
    memcpy(to.digest, snap_set_manifest_digest(apply->set), DIGEST_SIZE);
    next.root_version = d->root.version;
    next.epoch = apply->epoch;
    if (!version_eq(&next.present, &to)) {
        next.present = to;
        next.mark = DISK_MARK_TRYING;
        next.starts = 0;
    }
    return next;
}

struct err disk_commit(struct disk *d, const struct disk_apply *apply)
{
    if (snap_set_version(apply->set) < d->floor.present.version) {
        return FAIL(E_SNAPSHOT_REPLAYED); /* judged before; the disk does not go back either. */
    }
    size_t records = d->pack.record_count;
    uint64_t end = d->pack.end;
    struct disk_whole whole;
    TRY(append_end(d, add_apply(d, apply, &whole), records, end));
    struct disk_floor next = floor_after(d, apply);
    struct err e = floor_put(d, &next);
    if (!err_ok(e)) {
        /* It may be in place all the same, but it does not run: it cannot prove itself. */
        d->serves_present = d->serves_present && !version_eq(&d->floor.present, &next.present);
        return e;
    }
    d->serves_present = true;
    d->whole = whole;
    return OK;
}

struct err disk_mark_good(struct disk *d)
{
    if (!d->serves_present || d->floor.mark != DISK_MARK_TRYING) {
        return OK; /* what runs is the last good one already. */
    }
    struct disk_floor next = d->floor;
    next.mark = DISK_MARK_GOOD;
    next.starts = 0;
    next.good = next.present;
    refused_drop(&next.refused, next.good.digest); /* else no later start would serve it. */
    TRY(floor_put(d, &next));
    disk_make_room(d);
    return OK;
}

struct err disk_mark_stopped(struct disk *d)
{
    if (d->floor.mark != DISK_MARK_TRYING || d->floor.starts == 0) {
        return OK;
    }
    struct disk_floor next = d->floor;
    next.starts = 0;
    return floor_put(d, &next);
}

static struct err add_roots(struct disk *d, const struct root_walk *walk,
                            const struct slice *containers)
{
    TRY(add_root(d));
    for (uint32_t i = 0; i < walk->steps; i++) {
        uint64_t version = walk->at.version - walk->steps + 1 + i;
        if (pack_root(&d->pack, version) == NULL) {
            TRY(pack_add(&d->pack, PACK_ROOT, containers[i]));
        }
    }
    return disk_step(&d->steps, DISK_PACK_APPENDED);
}

uint64_t disk_root_version(const struct disk *d)
{
    return d->root.version;
}

struct err disk_walk(struct disk *d, const struct root_walk *walk, const struct slice *containers)
{
    CHECK(walk->at.version == d->root.version + walk->steps);
    if (walk->steps == 0) {
        return OK;
    }
    size_t records = d->pack.record_count;
    uint64_t end = d->pack.end;
    TRY(append_end(d, add_roots(d, walk, containers), records, end));
    struct disk_floor next = d->floor;
    next.root_version = walk->at.version;
    if (walk->has_floor) {
        step_to_floor(&next, &walk->floor);
    }
    struct err e = floor_put(d, &next);
    if (d->floor.root_version == walk->at.version) {
        d->root = walk->at; /* also when only the sync of the directory failed. */
    }
    return e;
}

/* ---- starting ---- */

/* One more start of a version that has not proved itself; the third is its last. */
static struct err count_start(struct disk *d)
{
    if (d->floor.mark != DISK_MARK_TRYING || !names_manifest(&d->floor.present) ||
        refused_has(&d->floor.refused, d->floor.present.digest)) {
        return OK;
    }
    struct disk_floor next = d->floor;
    next.starts++;
    if (next.starts >= STARTS_MAX) {
        refused_add(&next.refused, next.present.digest);
    }
    struct err e = floor_put(d, &next);
    d->floor = next; /* counts for this run even if the disk does not take it. */
    return e;
}

/* Nothing was tried: what was counted is taken back. */
static struct err uncount_start(struct disk *d)
{
    if (d->floor.mark != DISK_MARK_TRYING || d->floor.starts == 0) {
        return OK;
    }
    struct disk_floor next = d->floor;
    next.starts--;
    return floor_put(d, &next);
}

/* Whether it says nothing against the present version: a newer release's may refuse what the one
 * before lets through, and what the machine could not give now says nothing about the bytes. */
static bool is_no_verdict(enum err_code code)
{
    return code == E_CAPABILITY_MISSING || code == E_IO || code == E_NO_MEMORY ||
           code == E_OUT_OF_MEMORY;
}

static struct err start_present(struct disk *d, struct disk_start *out)
{
    const struct disk_version *v = &d->floor.present;
    if (!names_manifest(v)) {
        return FAIL(E_NOT_FOUND);
    }
    if (refused_has(&d->floor.refused, v->digest)) {
        return FAIL(E_CRASHED_NODE);
    }
    TRY(load_version(d, v, &out->set));
    out->version = *v;
    d->serves_present = true;
    return OK;
}

struct err disk_start(struct disk *d, struct disk_start *out)
{
    struct disk_start start = {.count_err = count_start(d)};
    start.why = start_present(d, &start);
    if (err_ok(start.why)) {
        *out = start;
        return OK;
    }
    if (is_no_verdict(start.why.code)) {
        struct err ignored = uncount_start(d);
        (void)ignored; /* then this start counts; the next one says the same. */
        return start.why;
    }
    const struct disk_version *good = &d->floor.good;
    if (!names_manifest(good) || version_eq(good, &d->floor.present)) {
        return start.why;
    }
    TRY(load_version(d, good, &start.set));
    start.version = *good;
    start.fell_back = true;
    *out = start;
    return OK;
}

struct disk_sizes disk_sizes(const struct disk *d)
{
    return (struct disk_sizes){.pack_bytes = d->pack.end, .live_bytes = pack_live_bytes(&d->pack)};
}
