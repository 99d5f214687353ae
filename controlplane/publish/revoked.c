/* revoked: see revoked.h. */
#include "controlplane/publish/revoked.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/array.h"
#include "common/base/limits.h"
#include "common/base/scope.h"
#include "common/snapshot/cut.h"
#include "common/snapshot/parts.h"
#include "controlplane/publish/rollback.h"

enum { ARENA_BLOCK = 64 << 10 };

void cp_revoked_init(struct cp_revoked *set)
{
    *set = (struct cp_revoked){.keys = NULL};
    arena_init(&set->arena, ARENA_BLOCK, (size_t)STREAM_RAW_MAX * 2);
}

void cp_revoked_free(struct cp_revoked *set)
{
    free(set->keys);
    arena_free(&set->arena);
    *set = (struct cp_revoked){.keys = NULL};
}

/* ---- adding ---- */

static int key_cmp(const void *x, const void *y)
{
    return slice_cmp(*(const struct slice *)x, *(const struct slice *)y);
}

static void sort(struct cp_revoked *set)
{
    size_t kept = 0;
    if (set->count > 1) {
        qsort(set->keys, set->count, sizeof(*set->keys), key_cmp);
    }
    for (size_t i = 0; i < set->count; i++) {
        if (kept == 0 || !slice_eq(set->keys[kept - 1], set->keys[i])) {
            set->keys[kept++] = set->keys[i];
        }
    }
    set->count = kept;
}

static struct err add_key(struct cp_revoked *set, struct slice key)
{
    TRY(array_room(&set->keys, set->count, &set->capacity, sizeof(*set->keys)));
    TRY(arena_dup(&set->arena, key, &set->keys[set->count]));
    set->count++;
    return OK;
}

static struct err add_stream(struct cp_revoked *set, struct slice raw)
{
    struct part_iter it = {.rest = raw};
    struct part part;
    bool more = true;
    TRY(part_next(&it, &part, &more));
    while (more) {
        TRY(add_key(set, part.key));
        TRY(part_next(&it, &part, &more));
    }
    sort(set);
    return OK;
}

struct err cp_revoked_add_version(struct cp_revoked *set, const struct cp_sealed_place *place,
                                  uint64_t version)
{
    auto_buf struct buf raw = BUF_MAX(STREAM_RAW_MAX);
    TRY(cp_rollback_revoked(place, version, &raw));
    return add_stream(set, buf_slice(&raw));
}

static struct err read_chunk(const struct kv *kv, const struct chunk_name *name, struct buf *raw)
{
    auto_buf struct buf stored = BUF_MAX(CHUNK_RAW_MAX);
    char key[SNAP_KEY_SIZE];
    struct kv_entry entry;
    uint8_t digest[DIGEST_SIZE];
    uint8_t *room = NULL;
    snap_key_chunk(name->digest, key);
    TRY(kv_get(kv, slice_str(key), KV_READ_LEADER, limits.fetch_timeout_ms, &stored, &entry));
    if (entry.state != KV_VALUE) {
        return FAIL(E_NOT_FOUND);
    }
    TRY(buf_reserve(raw, name->raw_size, &room));
    TRY(chunk_open(buf_slice(&stored), name, room, digest));
    buf_commit(raw, name->raw_size);
    return OK;
}

struct err cp_revoked_add_bucket(struct cp_revoked *set, const struct kv *kv,
                                 const struct manifest *manifest)
{
    auto_buf struct buf raw = BUF_MAX(STREAM_RAW_MAX);
    const struct manifest_stream *stream = manifest_stream(manifest, STREAM_REVOCATIONS);
    for (size_t i = 0; stream != NULL && i < stream->chunk_count; i++) {
        struct chunk_name name = manifest_chunk(stream, i);
        TRY(read_chunk(kv, &name, &raw));
    }
    return add_stream(set, buf_slice(&raw));
}

bool cp_revoked_has_all(const struct cp_revoked *whole, const struct cp_revoked *part)
{
    for (size_t i = 0; i < part->count; i++) {
        if (bsearch(&part->keys[i], whole->keys, whole->count, sizeof(*whole->keys), key_cmp) ==
            NULL) {
            return false;
        }
    }
    return true;
}

/* ---- as a resource ---- */

/* The field that lists what a key begins with, and what stands before each value there. */
static const struct list {
    struct slice front;
    const char *field;
    const char *before;
} lists[] = {
    {SLICE_INIT("identity/"), "identities", ""},
    {SLICE_INIT("certificate/"), "certificates", ""},
    {SLICE_INIT("token/"), "tokens", "blake2b:"},
    {SLICE_INIT("type/"), "types", ""},
};
enum { LIST_COUNT = sizeof(lists) / sizeof(lists[0]) };

static struct err print_list(const struct cp_revoked *set, const struct list *list, struct buf *out,
                             size_t *printed)
{
    size_t count = 0;
    for (size_t i = 0; i < set->count; i++) {
        if (slice_starts(set->keys[i], list->front)) {
            struct slice value = slice_from(set->keys[i], list->front.size);
            TRY(count++ == 0 ? buf_addf(out, "  %s:\n", list->field) : OK);
            TRY(buf_addf(out, "    - \"%s%.*s\"\n", list->before, SLICE_ARG(value)));
        }
    }
    *printed += count;
    return OK;
}

/* No value of a revocation has these; what would leave its quotes is no revocation of ours. */
static bool is_plain(struct slice key)
{
    for (size_t i = 0; i < key.size; i++) {
        if (key.ptr[i] < 0x20 || key.ptr[i] == '"' || key.ptr[i] == '\\') {
            return false;
        }
    }
    return true;
}

struct err cp_revoked_print(const struct cp_revoked *set, const char *name, const char *reason,
                            struct buf *out)
{
    size_t printed = 0;
    for (size_t i = 0; i < set->count; i++) {
        if (!is_plain(set->keys[i])) {
            return FAIL(E_MALFORMED);
        }
    }
    TRY(buf_addf(out,
                 "apiVersion: trilane.dev/v1\nkind: Revocation\nmetadata: {name: %s}\nspec:\n"
                 "  reason: \"%s\"\n",
                 name, reason));
    for (size_t i = 0; i < LIST_COUNT; i++) {
        TRY(print_list(set, &lists[i], out, &printed));
    }
    return printed == set->count ? OK : FAIL(E_MALFORMED);
}
