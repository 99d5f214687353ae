/* bucket: see bucket.h. */
#include "controlplane/publish/bucket.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/arena.h"
#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "common/base/scope.h"
#include "common/base/text.h"
#include "common/bus/subject.h"
#include "controlplane/publish/sealed.h"

enum {
    CONTAINER_MAX = 1 << 20,
    FILL_MAX = 64, /* chunks that are put at once, */
    FILL_BLOCK = 256 << 10,
    FILL_BYTES_MAX = FILL_MAX * (CHUNK_RAW_MAX + 4096), /* and what they may weigh. */
};

struct err cp_bucket_bind(struct cp_bucket *b, struct bus *bus, const char *environment,
                          struct cp_roots *roots)
{
    struct subject name;
    TRY(subject_bucket_snapshots(slice_str(environment), &name));
    b->roots = roots;
    return kv_bind(&b->kv, bus, subject_slice(&name));
}

/* What is put here is named by its content, or never changes: putting it twice does no harm. */
static struct err put(const struct cp_bucket *b, const char *key, struct slice value)
{
    struct err e =
        kv_put(&b->kv, slice_str(key), value, limits.fetch_timeout_ms, /* out_revision= */ NULL);
    if (e.code == E_RESULT_UNKNOWN) {
        e = kv_put(&b->kv, slice_str(key), value, limits.fetch_timeout_ms, NULL);
    }
    return e;
}

struct root_look {
    const struct cp_bucket *b;
    uint64_t version; /* 0: the oldest, until it was looked at. */
    bool looked;
    bool there;
};

static struct err put_root(void *ctx, uint64_t version, struct slice container)
{
    char key[SNAP_KEY_SIZE];
    snap_key_root(version, key);
    return put(ctx, key, container);
}

/* Compares the root that is looked for with what lies in its place. */
static struct err compare_root(void *ctx, uint64_t version, struct slice container)
{
    struct root_look *look = ctx;
    char key[SNAP_KEY_SIZE];
    if (look->looked || (look->version != 0 && version != look->version)) {
        return OK;
    }
    look->looked = true;
    look->version = version;
    snap_key_root(version, key);
    auto_buf struct buf value = BUF_MAX(CONTAINER_MAX);
    struct kv_entry entry;
    TRY(kv_get(&look->b->kv, slice_str(key), KV_READ_LEADER, limits.fetch_timeout_ms, &value,
               &entry));
    look->there = entry.state == KV_VALUE && slice_eq(buf_slice(&value), container);
    return OK;
}

struct err cp_bucket_has_root(const struct cp_bucket *b, uint64_t version, bool *out)
{
    struct root_look look = {.b = b, .version = version};
    TRY(cp_roots_each(b->roots, version, compare_root, &look));
    *out = look.there;
    return OK;
}

/* Roots are put in order: where the newest lies, the others do, unless they were taken away; and a
 * purge while they are put takes the oldest. */
static MUST_CHECK struct err has_roots(const struct cp_bucket *b, bool *out)
{
    struct root_look oldest = {.b = b};
    TRY(cp_roots_each(b->roots, /* version= */ 0, compare_root, &oldest));
    *out = oldest.there;
    uint64_t newest = cp_roots_version(b->roots);
    return oldest.there && newest != oldest.version ? cp_bucket_has_root(b, newest, out) : OK;
}

struct err cp_bucket_prepare(const struct cp_bucket *b, struct buf *why, struct stream_info *out)
{
    struct kv_config config = {
        .history = 1, .max_bytes = limits.bucket_bytes, .replicas = b->replicas};
    struct err e = kv_ensure(&b->kv, &config, limits.fetch_timeout_ms, why, out);
    if (e.code == E_CONFLICT) {
        return FAIL(E_BUCKET_FOREIGN);
    }
    TRY(e);
    bool there = false;
    TRY(has_roots(b, &there));
    return there ? OK : cp_bucket_put_roots(b, /* version= */ 0);
}

struct err cp_bucket_put_roots(const struct cp_bucket *b, uint64_t version)
{
    struct cp_bucket target = *b; /* visitors take a context that may be written to. */
    return cp_roots_each(b->roots, version, put_root, &target);
}

/* What has no answer may have been put: once more does no harm. */
static struct err put_items(const struct cp_bucket *b, struct kv_item *items, size_t count)
{
    struct err e = kv_put_all(&b->kv, items, count, limits.fetch_timeout_ms);
    return e.code == E_RESULT_UNKNOWN ? kv_put_all(&b->kv, items, count, limits.fetch_timeout_ms)
                                      : e;
}

struct err cp_bucket_put_chunks(const struct cp_bucket *b, const struct cp_bucket_chunk *chunks,
                                size_t count)
{
    auto_free struct kv_item *items = calloc(count + 1, sizeof(*items));
    auto_free char *keys = calloc(count + 1, SNAP_KEY_SIZE);
    if (items == NULL || keys == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    for (size_t i = 0; i < count; i++) {
        char *key = keys + i * SNAP_KEY_SIZE;
        snap_key_chunk(chunks[i].digest, key);
        items[i] = (struct kv_item){.key = slice_str(key), .value = chunks[i].stored};
    }
    uint64_t start_ns = clock_boot_ns();
    struct err e = count == 0 ? OK : put_items(b, items, count);
    uint64_t age_ms = (clock_boot_ns() - start_ns) / 1000000;
    for (size_t i = 0; b->puts != NULL && i < count; i++) {
        if (items[i].done) {
            cp_puts_note(b->puts, chunks[i].digest, age_ms);
        }
    }
    return e;
}

static struct err learn_key(void *ctx, struct slice key, const struct kv_entry *entry)
{
    static const struct slice prefix = {(const uint8_t *)"chunk.", 6};
    uint8_t digest[DIGEST_SHORT_SIZE];
    int64_t age_ms = clock_wall_ms() - entry->time_ms;
    bool chunk = entry->state == KV_VALUE && slice_starts(key, prefix);
    if (chunk && err_ok(text_unhex(slice_from(key, prefix.size), digest, sizeof(digest)))) {
        cp_puts_note(ctx, digest, age_ms < 0 ? 0 : (uint64_t)age_ms);
    }
    return OK;
}

void cp_bucket_learn(const struct cp_bucket *b)
{
    if (b->puts == NULL || b->puts->chunks.count > 0) {
        return;
    }
    struct err e = kv_list(&b->kv, limits.fetch_timeout_ms, learn_key, b->puts);
    if (!err_ok(e)) {
        LOG(LOG_INFO, "publish", "bucket_unlisted", LOG_ERR(e));
    }
}

bool cp_bucket_has_chunk(const struct cp_bucket *b, const uint8_t digest[DIGEST_SHORT_SIZE])
{
    return b->puts != NULL && cp_puts_is_fresh(b->puts, digest);
}

struct err cp_bucket_put_manifest(const struct cp_bucket *b, const struct cp_record *record,
                                  struct slice container)
{
    char key[SNAP_KEY_SIZE];
    snap_key_manifest(record->version, record->manifest_digest, key);
    return put(b, key, container);
}

struct err cp_bucket_has_manifest(const struct cp_bucket *b, const struct cp_record *record,
                                  bool *out)
{
    char key[SNAP_KEY_SIZE];
    snap_key_manifest(record->version, record->manifest_digest, key);
    auto_buf struct buf value = BUF_MAX(CONTAINER_MAX);
    struct kv_entry entry;
    TRY(kv_get(&b->kv, slice_str(key), KV_READ_LEADER, limits.fetch_timeout_ms, &value, &entry));
    struct container c;
    *out = false;
    if (entry.state == KV_VALUE && err_ok(container_read(buf_slice(&value), CONTAINER_MANIFEST,
                                                         /* environment= */ NULL, &c))) {
        uint8_t digest[DIGEST_SIZE];
        container_body_digest(&c, digest);
        *out = memcmp(digest, record->manifest_digest, sizeof(digest)) == 0;
    }
    return OK;
}

/* Chunks of the journal on their way into the bucket. */
struct filling {
    const struct cp_bucket *b;
    struct arena bytes; /* of those that wait. */
    struct cp_bucket_chunk waiting[FILL_MAX];
    size_t count;
};

static struct err flush(struct filling *f)
{
    struct err e = cp_bucket_put_chunks(f->b, f->waiting, f->count);
    f->count = 0;
    arena_free(&f->bytes);
    arena_init(&f->bytes, FILL_BLOCK, FILL_BYTES_MAX);
    return e;
}

static struct err fill(void *ctx, const struct cp_store_chunk *chunk)
{
    struct filling *f = ctx;
    struct slice digest;
    struct cp_bucket_chunk *next = &f->waiting[f->count];
    TRY(arena_dup(&f->bytes, slice_of(chunk->stored_digest, DIGEST_SHORT_SIZE), &digest));
    TRY(arena_dup(&f->bytes, chunk->stored, &next->stored));
    next->digest = digest.ptr;
    f->count++;
    return f->count == FILL_MAX ? flush(f) : OK;
}

static struct err put_journal(const struct cp_bucket *b, struct cp_store *store,
                              const char *environment, uint64_t version)
{
    struct filling filling = {.b = b};
    arena_init(&filling.bytes, FILL_BLOCK, FILL_BYTES_MAX);
    struct err e = store->ops->chunks_get(store, environment, version, fill, &filling);
    e = err_ok(e) ? flush(&filling) : e;
    arena_free(&filling.bytes);
    return e;
}

struct err cp_bucket_has_sealed(const struct cp_bucket *b, uint64_t version,
                                const uint8_t digest[DIGEST_SIZE], uint64_t timeout_ms, bool *out)
{
    char key[SNAP_KEY_SIZE];
    struct kv_entry entry;
    auto_buf struct buf value = BUF_MAX(CONTAINER_MAX);
    auto_manifest struct manifest manifest = {0};
    const struct manifest_wanted wanted = {.version = version, .digest = digest};
    snap_key_manifest(version, digest, key);
    TRY(kv_get(&b->kv, slice_str(key), KV_READ_LEADER, timeout_ms, &value, &entry));
    struct err e = entry.state != KV_VALUE
                       ? FAIL(E_MANIFEST_UNSIGNED)
                       : cp_roots_open(b->roots, buf_slice(&value), &wanted, &manifest,
                                       /* out_in_force= */ NULL);
    *out = err_ok(e);
    return cp_sealed_is_none(e) ? OK : e;
}

struct err cp_bucket_restore(const struct cp_bucket *b, struct cp_store *store,
                             const char *environment, uint64_t *out_version, struct buf *why)
{
    struct cp_record record;
    if (b->puts != NULL) {
        cp_puts_forget(b->puts); /* it may be another bucket. */
    }
    TRY(cp_bucket_prepare(b, why, /* out= */ NULL));
    TRY(cp_bucket_put_roots(b, /* version= */ 0));
    const struct cp_sealed_place place = {b->roots, store, environment};
    auto_buf struct buf manifest = BUF_MAX(CP_SEALED_CONTAINER_MAX);
    TRY(cp_sealed_newest(&place, &record, &manifest));
    TRY(put_journal(b, store, environment, record.version));
    TRY(cp_bucket_put_manifest(b, &record, buf_slice(&manifest)));
    /* Once more: whoever removed the bucket meanwhile and made one of their own has all that came
     * behind, and then nobody would find anything missing in it, and look at how it was made. */
    TRY(cp_bucket_prepare(b, why, /* out= */ NULL));
    *out_version = record.version;
    return OK;
}
