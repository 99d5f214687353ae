/* The pack: what is whole in it is indexed; what is not is cut off or left out. */
#include "common/snapshot/disk_pack.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#define XXH_STATIC_LINKING_ONLY /* a hash state on the stack */
#include <xxhash.h>

#include "common/base/check.h"
#include "common/base/scope.h"
#include "common/snapshot/container.h"
#include "common/snapshot/file.h"
#include "common/snapshot/manifest.h"
#include "common/snapshot/root.h"
#include "common/snapshot/wire.h"

#define PACK_FILE "pack"
#define PACK_ASIDE "pack.new"

static const uint8_t magic[4] = {'T', 'R', 'P', 'K'};

/* Header: magic, format u16, kind u8, zero u8, size u32, zero u32, checksum u64. */
enum {
    PACK_FORMAT = 1,
    AT_FORMAT = 4,
    AT_KIND = 6,
    AT_SIZE = 8,
    AT_CHECKSUM = 16,
    MANIFEST_PREFIX = 16, /* root version, epoch. */
    SIGNATURES_BYTES = CONTAINER_SIGNATURES_MAX * CONTAINER_SIGNATURE_SIZE,
};

static const uint32_t size_max[PACK_KIND_COUNT] = {
    [PACK_CHUNK] = CHUNK_RAW_MAX,
    [PACK_MANIFEST] =
        MANIFEST_PREFIX + CONTAINER_HEADER_SIZE + SIGNATURES_BYTES + MANIFEST_BODY_MAX,
    [PACK_ROOT] = CONTAINER_HEADER_SIZE + SIGNATURES_BYTES + ROOT_BODY_MAX,
};

enum { RECORD_MAX = 1 << 20, COPY_ROOM = PACK_HEADER_SIZE + RECORD_MAX }; /* above each size_max. */

/* What a record holds lies in two places when it is written: of a manifest its prefix, and the
 * container, which is not copied behind it. */
struct record_bytes {
    struct slice prefix;
    struct slice rest;
};

static uint64_t record_checksum(const uint8_t *header, const struct record_bytes *bytes)
{
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    XXH3_64bits_update(&state, header, AT_CHECKSUM);
    XXH3_64bits_update(&state, bytes->prefix.ptr, bytes->prefix.size);
    XXH3_64bits_update(&state, bytes->rest.ptr, bytes->rest.size);
    return XXH3_64bits_digest(&state);
}

static void header_encode(enum pack_kind kind, const struct record_bytes *bytes,
                          uint8_t out[PACK_HEADER_SIZE])
{
    memset(out, 0, PACK_HEADER_SIZE);
    memcpy(out, magic, sizeof(magic));
    wire_put16(out + AT_FORMAT, PACK_FORMAT);
    out[AT_KIND] = (uint8_t)kind;
    wire_put32(out + AT_SIZE, (uint32_t)(bytes->prefix.size + bytes->rest.size));
    wire_put64(out + AT_CHECKSUM, record_checksum(out, bytes));
}

/* Whether the bytes of a record that was read are those that its header was made for. */
static bool checksum_holds(const uint8_t *header, struct slice bytes)
{
    const struct record_bytes whole = {.rest = bytes};
    return record_checksum(header, &whole) == wire_get64(header + AT_CHECKSUM);
}

/* Whether a header can be one; its checksum is judged with the bytes. */
static bool header_holds(const uint8_t *p)
{
    return memcmp(p, magic, sizeof(magic)) == 0 && wire_get16(p + AT_FORMAT) == PACK_FORMAT &&
           p[AT_KIND] >= PACK_CHUNK && p[AT_KIND] < PACK_KIND_COUNT &&
           wire_get32(p + AT_SIZE) <= size_max[p[AT_KIND]];
}

/* ---- index ---- */

static struct slice record_key(const struct pack_record *r)
{
    return slice_of(r->key, r->key_size);
}

/* What a record is known by, from its bytes. */
static struct err record_name_manifest(struct pack_record *r, struct slice bytes,
                                       const uint8_t *environment)
{
    if (bytes.size < MANIFEST_PREFIX) {
        return FAIL(E_MANIFEST_MALFORMED);
    }
    struct container c;
    auto_manifest struct manifest m = {0};
    TRY(container_read(slice_from(bytes, MANIFEST_PREFIX), CONTAINER_MANIFEST, environment, &c));
    TRY(manifest_decode(c.body, &m));
    r->root_version = wire_get64(bytes.ptr);
    r->epoch = wire_get64(bytes.ptr + 8);
    r->version = m.version;
    r->key_size = DIGEST_SIZE;
    memcpy(r->key, m.digest, DIGEST_SIZE);
    return OK;
}

static struct err record_name_root(struct pack_record *r, struct slice bytes,
                                   const uint8_t *environment)
{
    struct root root;
    TRY(root_open(bytes, &root));
    if (memcmp(root.environment_id, environment, ENVIRONMENT_SIZE) != 0) {
        return FAIL(E_ROOT_MALFORMED);
    }
    r->version = root.version;
    r->has_floor = root.has_floor;
    r->key_size = 8;
    wire_put64(r->key, root.version);
    return OK;
}

static struct err record_name(struct pack_record *r, struct slice bytes, const uint8_t *environment)
{
    switch (r->kind) {
    case PACK_CHUNK:
        r->key_size = DIGEST_SHORT_SIZE;
        ids_digest_short(bytes, r->key);
        return OK;
    case PACK_MANIFEST:
        return record_name_manifest(r, bytes, environment);
    case PACK_ROOT:
        return record_name_root(r, bytes, environment);
    case PACK_KIND_COUNT:
        break;
    }
    return FAIL(E_MALFORMED);
}

static struct err records_grow(struct pack *p)
{
    if (p->record_count < p->record_capacity) {
        return OK;
    }
    size_t more = p->record_capacity == 0 ? 64 : p->record_capacity * 2;
    struct pack_record **grown = realloc(p->records, more * sizeof(struct pack_record *));
    if (grown == NULL) {
        return FAIL(E_OUT_OF_MEMORY);
    }
    p->records = grown;
    p->record_capacity = more;
    return OK;
}

/* A later record of the same name takes the place of an earlier one. */
static struct err record_index(struct pack *p, const struct pack_record *from)
{
    TRY(records_grow(p));
    struct pack_record *r = malloc(sizeof(*r));
    if (r == NULL) {
        return FAIL(E_OUT_OF_MEMORY);
    }
    *r = *from;
    (void)map_remove(&p->index, record_key(r)); /* its key belongs to the earlier record. */
    if (!err_ok(map_put(&p->index, record_key(r), r, /* out_old= */ NULL))) {
        free(r);
        return FAIL(E_OUT_OF_MEMORY);
    }
    p->records[p->record_count++] = r;
    return OK;
}

/* ---- opening ---- */

enum {
    WINDOW = 64 << 10, /* read at once by a search. */
    SEARCH_MAX =
        64 * (1 << 20), /* bytes that all searches read anew, whatever looks like a header. */
};

struct scan {
    struct pack *pack;
    uint64_t file_size;
    size_t search_left; /* of SEARCH_MAX. */
    uint8_t *room;      /* of a header and any record. */
};

/* What stands at an offset. */
struct found {
    bool header; /* a header, and as many bytes as it says. */
    bool whole;  /* they are those that it was made for. */
    uint32_t size;
};

static struct err read_record(struct scan *s, uint64_t at, struct found *out)
{
    size_t got = 0;
    uint8_t *bytes = s->room + PACK_HEADER_SIZE;
    *out = (struct found){0};
    TRY(file_read_at(s->pack->fd, s->room, PACK_HEADER_SIZE, at, &got));
    if (got < PACK_HEADER_SIZE || !header_holds(s->room)) {
        return OK;
    }
    out->size = wire_get32(s->room + AT_SIZE);
    TRY(file_read_at(s->pack->fd, bytes, out->size, at + PACK_HEADER_SIZE, &got));
    out->header = got == out->size;
    out->whole = out->header && checksum_holds(s->room, slice_of(bytes, got));
    return OK;
}

/* Behind a gap may lie what a chunk holds, made to look like records. A chunk is named by its
 * bytes, a manifest by its signatures; a root proves only itself. */
static bool is_taken(const struct pack *p, const struct pack_record *r)
{
    bool known = map_get(&p->index, record_key(r)) != NULL;
    return !p->has_gap || (r->kind != PACK_ROOT && !known);
}

/* Indexes the record in the room, which is whole. */
static struct err take_record(struct scan *s, uint32_t size)
{
    struct pack *p = s->pack;
    struct slice bytes = slice_of(s->room + PACK_HEADER_SIZE, size);
    struct pack_record r = {
        .kind = (enum pack_kind)s->room[AT_KIND], .offset = p->end, .size = size};
    bool taken = err_ok(record_name(&r, bytes, p->environment)) && is_taken(p, &r);
    if (taken) {
        TRY(record_index(p, &r));
    }
    p->bad_records += taken ? 0 : 1;
    p->end += PACK_HEADER_SIZE + size;
    return OK;
}

static size_t next_header(const uint8_t *p, size_t size)
{
    size_t at = 0;
    while (at + PACK_HEADER_SIZE <= size && !header_holds(p + at)) {
        at++;
    }
    return at;
}

/* The next whole record from 'at' on; the size of the file when there is none. */
static struct err search(struct scan *s, uint64_t at, uint64_t *out)
{
    auto_free uint8_t *window = malloc(WINDOW);
    if (window == NULL) {
        return FAIL(E_OUT_OF_MEMORY);
    }
    *out = s->file_size;
    size_t got = PACK_HEADER_SIZE;
    while (got >= PACK_HEADER_SIZE) { /* ends: each turn goes on by a byte at least. */
        TRY(file_read_at(s->pack->fd, window, WINDOW, at, &got));
        size_t skip = next_header(window, got);
        at += skip;
        if (skip + PACK_HEADER_SIZE > got) {
            continue;
        }
        struct found found;
        TRY(read_record(s, at, &found));
        if (found.whole) {
            *out = at;
            return OK;
        }
        size_t cost = WINDOW + found.size;
        if (s->search_left < cost) {
            return OK;
        }
        s->search_left -= cost;
        at++;
    }
    return OK;
}

/* Goes on behind what is not whole: where its size says, if a header stands there, or where the
 * next whole record is. At the end of the file there is none: it is the torn tail. */
static struct err skip_bad(struct scan *s, const struct found *bad, bool *out_torn)
{
    struct pack *p = s->pack;
    uint8_t next[PACK_HEADER_SIZE];
    size_t got = 0;
    uint64_t to = p->end + PACK_HEADER_SIZE + bad->size;
    if (bad->header) {
        TRY(file_read_at(p->fd, next, sizeof(next), to, &got));
    }
    if (got < sizeof(next) || !header_holds(next)) {
        TRY(search(s, p->end + 1, &to));
        p->has_gap = p->has_gap || to < s->file_size;
    }
    *out_torn = to == s->file_size;
    if (!*out_torn) {
        p->bad_records++; /* one bad block does not take what lies behind it. */
        p->end = to;
    }
    return OK;
}

static struct err scan_all(struct scan *s)
{
    struct pack *p = s->pack;
    bool torn = false;
    while (!torn && p->end < s->file_size) {
        struct found found;
        TRY(read_record(s, p->end, &found));
        TRY(found.whole ? take_record(s, found.size) : skip_bad(s, &found, &torn));
    }
    return OK;
}

static struct err scan(struct pack *p)
{
    struct stat st;
    if (fstat(p->fd, &st) != 0) {
        return FAIL(E_IO);
    }
    auto_free uint8_t *room = malloc(PACK_HEADER_SIZE + RECORD_MAX);
    if (room == NULL) {
        return FAIL(E_OUT_OF_MEMORY);
    }
    struct scan s = {
        .pack = p, .file_size = (uint64_t)st.st_size, .search_left = SEARCH_MAX, .room = room};
    TRY(scan_all(&s));
    p->torn_bytes = s.file_size - p->end;
    if (p->torn_bytes > 0 && ftruncate(p->fd, (off_t)p->end) != 0) {
        return FAIL(E_IO);
    }
    return OK;
}

struct err pack_open(struct pack *p, int dir_fd, const uint8_t environment[ENVIRONMENT_SIZE],
                     const struct disk_steps *steps)
{
    *p = (struct pack){.dir_fd = dir_fd, .fd = -1, .steps = *steps};
    memcpy(p->environment, environment, ENVIRONMENT_SIZE);
    (void)unlinkat(dir_fd, PACK_ASIDE, 0); /* of a compaction that was cut short. */
    p->fd = openat(dir_fd, PACK_FILE, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    struct err e = p->fd < 0 ? FAIL(E_IO) : scan(p);
    if (!err_ok(e)) {
        pack_close(p);
    }
    return e;
}

void pack_close(struct pack *p)
{
    for (size_t i = 0; i < p->record_count; i++) {
        free(p->records[i]);
    }
    free(p->records);
    map_free(&p->index);
    scope_close(&p->fd);
    *p = (struct pack){.fd = -1};
}

struct pack_record *pack_chunk(const struct pack *p, const uint8_t digest[DIGEST_SHORT_SIZE])
{
    return map_get(&p->index, slice_of(digest, DIGEST_SHORT_SIZE));
}

struct pack_record *pack_manifest(const struct pack *p, const uint8_t digest[DIGEST_SIZE])
{
    return map_get(&p->index, slice_of(digest, DIGEST_SIZE));
}

struct pack_record *pack_root(const struct pack *p, uint64_t version)
{
    uint8_t key[8];
    wire_put64(key, version);
    return map_get(&p->index, slice_of(key, sizeof(key)));
}

/* ---- writing ---- */

/* Appends a record that has its name. */
static struct err append(struct pack *p, struct pack_record *r, const struct record_bytes *bytes)
{
    size_t size = bytes->prefix.size + bytes->rest.size;
    CHECK(size <= size_max[r->kind] && bytes->prefix.size <= MANIFEST_PREFIX);
    r->offset = p->end;
    r->size = (uint32_t)size;
    uint8_t start[PACK_HEADER_SIZE + MANIFEST_PREFIX];
    header_encode(r->kind, bytes, start);
    struct slice header = slice_of(start, PACK_HEADER_SIZE + bytes->prefix.size);
    if (bytes->prefix.size > 0) {
        memcpy(start + PACK_HEADER_SIZE, bytes->prefix.ptr, bytes->prefix.size);
    }
    TRY(disk_step(&p->steps, DISK_PACK_APPEND));
    if (!err_ok(file_write_two_at(p->fd, header, bytes->rest, p->end))) {
        return FAIL(E_PERSIST_FAILED);
    }
    TRY(record_index(p, r));
    p->end += PACK_HEADER_SIZE + size;
    return OK;
}

struct err pack_add(struct pack *p, enum pack_kind kind, struct slice bytes)
{
    struct pack_record r = {.kind = kind};
    const struct record_bytes whole = {.rest = bytes};
    TRY(record_name(&r, bytes, p->environment));
    return append(p, &r, &whole);
}

struct err pack_add_named_chunk(struct pack *p, const uint8_t digest[DIGEST_SHORT_SIZE],
                                struct slice stored)
{
    struct pack_record r = {.kind = PACK_CHUNK, .key_size = DIGEST_SHORT_SIZE};
    const struct record_bytes whole = {.rest = stored};
    memcpy(r.key, digest, DIGEST_SHORT_SIZE);
    return append(p, &r, &whole);
}

struct err pack_add_manifest(struct pack *p, struct slice container, uint64_t root_version,
                             uint64_t epoch)
{
    struct container c;
    auto_manifest struct manifest m = {0};
    TRY(container_read(container, CONTAINER_MANIFEST, p->environment, &c));
    TRY(manifest_decode(c.body, &m));
    const struct pack_manifest_name name = {
        .digest = m.digest, .version = m.version, .root_version = root_version, .epoch = epoch};
    return pack_add_named_manifest(p, container, &name);
}

struct err pack_add_named_manifest(struct pack *p, struct slice container,
                                   const struct pack_manifest_name *name)
{
    uint8_t prefix[MANIFEST_PREFIX];
    wire_put64(prefix, name->root_version);
    wire_put64(prefix + 8, name->epoch);
    struct pack_record r = {.kind = PACK_MANIFEST,
                            .key_size = DIGEST_SIZE,
                            .version = name->version,
                            .root_version = name->root_version,
                            .epoch = name->epoch};
    memcpy(r.key, name->digest, DIGEST_SIZE);
    const struct record_bytes bytes = {.prefix = slice_of(prefix, sizeof(prefix)),
                                       .rest = container};
    return append(p, &r, &bytes);
}

struct err pack_sync(struct pack *p)
{
    TRY(disk_step(&p->steps, DISK_PACK_SYNC));
    return err_ok(file_sync(p->fd)) ? OK : FAIL(E_PERSIST_FAILED);
}

/*
 * Also after a failed sync: the kernel may have dropped the pages, so that nothing that was
 * written with it is trusted. The names were not there before, or they were not appended.
 */
void pack_rollback(struct pack *p, size_t record_count, uint64_t end)
{
    while (p->record_count > record_count) {
        struct pack_record *r = p->records[--p->record_count];
        (void)map_remove(&p->index, record_key(r));
        free(r);
    }
    p->end = end;
    if (ftruncate(p->fd, (off_t)end) != 0) {
        return; /* the tail is written over, or cut off at the next start. */
    }
}

struct err pack_read(const struct pack *p, const struct pack_record *r, struct buf *out)
{
    uint8_t *at = NULL;
    size_t got = 0;
    buf_clear(out);
    size_t size = PACK_HEADER_SIZE + (size_t)r->size;
    TRY(buf_reserve(out, size, &at));
    TRY(file_read_at(p->fd, at, size, r->offset, &got));
    struct slice bytes = slice_of(at + PACK_HEADER_SIZE, r->size);
    if (got != size || !header_holds(at) || wire_get32(at + AT_SIZE) != r->size ||
        !checksum_holds(at, bytes)) {
        return FAIL(E_CHUNK_TAMPERED);
    }
    buf_commit(out, size);
    buf_drop(out, PACK_HEADER_SIZE + (r->kind == PACK_MANIFEST ? MANIFEST_PREFIX : 0));
    return OK;
}

/* ---- compaction ---- */

static size_t record_size(const struct pack_record *r)
{
    return PACK_HEADER_SIZE + (size_t)r->size;
}

uint64_t pack_live_bytes(const struct pack *p)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < p->record_count; i++) {
        const struct pack_record *r = p->records[i];
        sum += r->live ? record_size(r) : 0;
    }
    return sum;
}

/* Live records that lie one behind the other from the first on, as many as the room takes: most of
 * a pack stays. Their bytes; *at goes behind them. */
static size_t live_run(const struct pack *p, size_t *at)
{
    size_t size = 0;
    uint64_t first = p->records[*at]->offset;
    for (; *at < p->record_count; ++*at) {
        const struct pack_record *r = p->records[*at];
        bool adjoins = r->live && r->offset == first + size;
        if (!adjoins || (size > 0 && size + record_size(r) > COPY_ROOM)) {
            break;
        }
        size += record_size(r);
    }
    return size;
}

/* Copies records as they are, checksums and all; a bad one would be found out when it is read. */
static struct err copy_run(const struct pack *p, uint8_t *room, size_t size, uint64_t from, int to,
                           uint64_t offset)
{
    size_t got = 0;
    TRY(disk_step(&p->steps, DISK_COMPACT_WRITE));
    TRY(file_read_at(p->fd, room, size, from, &got));
    bool written = got == size && err_ok(file_write_at(to, slice_of(room, size), offset));
    return written ? OK : FAIL(E_PERSIST_FAILED);
}

static struct err copy_live(const struct pack *p, int to, uint64_t *out_end)
{
    auto_free uint8_t *room = malloc(COPY_ROOM);
    if (room == NULL) {
        return FAIL(E_OUT_OF_MEMORY);
    }
    uint64_t end = 0;
    size_t at = 0;
    while (at < p->record_count) { /* ends: each turn goes on by a record at least. */
        const struct pack_record *first = p->records[at];
        if (!first->live) {
            at++;
            continue;
        }
        size_t size = live_run(p, &at);
        TRY(copy_run(p, room, size, first->offset, to, end));
        end += size;
    }
    TRY(disk_step(&p->steps, DISK_COMPACT_SYNC));
    *out_end = end;
    return fsync(to) == 0 ? OK : FAIL(E_PERSIST_FAILED);
}

/* The index follows the file: dead records go, the others move up. */
static void index_compacted(struct pack *p)
{
    size_t count = 0;
    uint64_t end = 0;
    for (size_t i = 0; i < p->record_count; i++) {
        struct pack_record *r = p->records[i];
        if (r->live) {
            r->offset = end;
            end += record_size(r);
            p->records[count++] = r;
            continue;
        }
        if (map_get(&p->index, record_key(r)) == r) {
            (void)map_remove(&p->index, record_key(r));
        }
        free(r);
    }
    p->record_count = count;
}

static struct err compact_aside(struct pack *p, int *out_fd, uint64_t *out_end)
{
    TRY(disk_step(&p->steps, DISK_COMPACT_CREATE));
    int flags = O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW;
    auto_close int fd = openat(p->dir_fd, PACK_ASIDE, flags, 0600);
    if (fd < 0) {
        return FAIL(E_PERSIST_FAILED);
    }
    TRY(copy_live(p, fd, out_end));
    TRY(disk_step(&p->steps, DISK_COMPACT_RENAME));
    if (renameat(p->dir_fd, PACK_ASIDE, p->dir_fd, PACK_FILE) != 0) {
        return FAIL(E_PERSIST_FAILED);
    }
    *out_fd = TAKE_FD(fd);
    return OK;
}

struct err pack_compact(struct pack *p)
{
    int fd = -1;
    uint64_t end = 0;
    struct err e = compact_aside(p, &fd, &end);
    if (!err_ok(e)) {
        (void)unlinkat(p->dir_fd, PACK_ASIDE, 0);
        return e;
    }
    scope_close(&p->fd);
    p->fd = fd;
    p->end = end;
    index_compacted(p);
    p->has_gap = false;
    TRY(disk_step(&p->steps, DISK_COMPACT_DIR_SYNC));
    if (fsync(p->dir_fd) != 0) {
        return FAIL(E_PERSIST_FAILED);
    }
    return disk_step(&p->steps, DISK_COMPACT_DONE);
}
