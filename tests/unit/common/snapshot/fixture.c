/* Keys, roots, versions and heads for tests. */
#include "fixture.h"

#include <dirent.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/snapshot/parts.h"

#include "tests/support/cmocka.h"

void fx_expect(struct err e, enum err_code code, const char *where)
{
    if (e.code != code) {
        fail_msg("%s: expected %s, got %s of %s", where, err_name(code), err_name(e.code),
                 e.where == NULL ? "-" : e.where);
    }
}

struct key_pair fx_pair(enum key_role role, const char *name, uint8_t seed)
{
    struct key_pair pair = {.public = {.role = role}};
    uint8_t secret[crypto_sign_SECRETKEYBYTES];
    (void)snprintf(pair.public.name, sizeof(pair.public.name), "%s", name);
    memset(pair.seed, seed, sizeof(pair.seed));
    assert_int_equal(crypto_sign_seed_keypair(pair.public.bytes, secret, pair.seed), 0);
    return pair;
}

struct root fx_root(const struct fx *f, uint64_t version, const struct key_pair *root_key)
{
    struct root r = {.version = version, .not_after_ms = FX_NOW_MS + 1000000};
    (void)snprintf(r.environment, sizeof(r.environment), "test");
    EXPECT_OK(root_add_key(&r, &root_key->public, 0));
    for (size_t i = 0; i < FX_KEYS; i++) {
        EXPECT_OK(root_add_key(&r, &f->manifests[i].public, 0));
    }
    for (size_t i = 0; i < 2; i++) {
        EXPECT_OK(root_add_key(&r, &f->heads[i].public, FX_NOW_MS + 500000));
    }
    r.ring.thresholds[KEY_ROLE_ROOT] = 1;
    r.ring.thresholds[KEY_ROLE_MANIFEST] = 2;
    r.ring.thresholds[KEY_ROLE_HEAD] = 1;
    return r;
}

void fx_init(struct fx *f)
{
    static const char *const names[FX_KEYS] = {"one", "two", "three"};
    ids_init();
    *f = (struct fx){.root_bytes = BUF_MAX(1 << 20)};
    for (size_t i = 0; i < FX_KEYS; i++) {
        f->roots[i] = fx_pair(KEY_ROLE_ROOT, names[i], (uint8_t)(0x10 + i));
        f->manifests[i] = fx_pair(KEY_ROLE_MANIFEST, names[i], (uint8_t)(0x20 + i));
        f->heads[i] = fx_pair(KEY_ROLE_HEAD, names[i], (uint8_t)(0x30 + i));
    }
    f->node = fx_pair(KEY_ROLE_NODE, "node-1", 0x40);
    snap_environment(slice_str("test"), f->environment);
    const struct root first = fx_root(f, 1, &f->roots[0]);
    const struct key_pair *signer = &f->roots[0];
    fx_seal_root(&first, &signer, 1, &f->root_bytes);
    EXPECT_OK(root_open(buf_slice(&f->root_bytes), &f->root));
}

void fx_free(struct fx *f)
{
    buf_free(&f->root_bytes);
}

void fx_seal(enum container_kind kind, const char *environment, struct slice body,
             const struct key_pair *const *pairs, size_t count, struct buf *out)
{
    struct container_signature signatures[CONTAINER_SIGNATURES_MAX];
    uint8_t id[ENVIRONMENT_SIZE];
    snap_environment(slice_str(environment), id);
    for (size_t i = 0; i < count; i++) {
        EXPECT_OK(container_sign(kind, id, body, pairs[i], &signatures[i]));
    }
    EXPECT_OK(container_seal(kind, id, body, signatures, count, out));
}

void fx_seal_root(const struct root *r, const struct key_pair *const *pairs, size_t count,
                  struct buf *out)
{
    auto_buf struct buf body = BUF_MAX(ROOT_BODY_MAX);
    EXPECT_OK(root_encode(r, &body));
    fx_seal(CONTAINER_ROOT, r->environment, buf_slice(&body), pairs, count, out);
}

/* Parts of 60 to 1100 bytes; what is in them depends on kind, number and change alone. */
static void stream_make(uint32_t kind, unsigned parts, unsigned change, struct buf *out)
{
    struct part_writer w = {.out = out};
    char(*keys)[32] = calloc(parts + 1, sizeof(*keys));
    assert_non_null(keys);
    for (unsigned i = 0; i < parts; i++) {
        uint8_t bytes[1100];
        uint32_t state = kind * 7919 + i * 104729 + (i == change ? 1 : 0);
        size_t size = 60 + (kind * 31 + i * 37) % 1000;
        for (size_t k = 0; k < size; k++) {
            state = state * 1664525 + 1013904223;
            bytes[k] = (uint8_t)('a' + (state >> 24) % 16);
        }
        (void)snprintf(keys[i], sizeof(keys[i]), "part/%06u", i);
        EXPECT_OK(part_add(&w, slice_str(keys[i]), slice_of(bytes, size)));
    }
    free(keys);
}

void fx_version_make(const struct fx *f, uint64_t version, unsigned parts, unsigned change,
                     struct fx_version *out)
{
    static const uint32_t kinds[FX_STREAMS] = {STREAM_ROUTING, STREAM_TRUST, STREAM_AUTHORISATION,
                                               STREAM_TRANSPORT, STREAM_POSITIONS};
    *out = (struct fx_version){.body = BUF_MAX(MANIFEST_BODY_MAX), .container = BUF_MAX(1 << 20)};
    for (size_t i = 0; i < FX_STREAMS; i++) {
        out->raw[i] = BUF_MAX(64 << 20);
        stream_make(kinds[i], parts, change, &out->raw[i]);
        EXPECT_OK(
            cut_stream(kinds[i], buf_slice(&out->raw[i]), /* options= */ NULL, &out->streams[i]));
    }
    const struct manifest_plan plan = {.version = version,
                                       .made_at_ms = FX_NOW_MS,
                                       .capabilities = CAPABILITY_TRAIT_CONDITIONS,
                                       .streams = out->streams,
                                       .stream_count = FX_STREAMS};
    EXPECT_OK(manifest_encode(&plan, &out->body));
    const struct key_pair *signers[] = {&f->manifests[0], &f->manifests[1]};
    fx_seal(CONTAINER_MANIFEST, "test", buf_slice(&out->body), signers, 2, &out->container);
    EXPECT_OK(manifest_decode(buf_slice(&out->body), &out->manifest));
}

void fx_version_free(struct fx_version *v)
{
    for (size_t i = 0; i < FX_STREAMS; i++) {
        cut_stream_free(&v->streams[i]);
        buf_free(&v->raw[i]);
    }
    buf_free(&v->body);
    buf_free(&v->container);
    manifest_free(&v->manifest);
}

struct slice fx_stored(const struct fx_version *v, const uint8_t digest[DIGEST_SHORT_SIZE])
{
    for (size_t i = 0; i < FX_STREAMS; i++) {
        for (size_t k = 0; k < v->streams[i].chunk_count; k++) {
            const struct cut_chunk *c = &v->streams[i].chunks[k];
            if (memcmp(c->digest, digest, DIGEST_SHORT_SIZE) == 0) {
                return c->stored;
            }
        }
    }
    fail_msg("no such chunk");
    return slice_str("");
}

struct snap_set *fx_set(const struct fx_version *v, struct snap_set *previous)
{
    struct snap_set *set = NULL;
    struct snap_missing missing;
    size_t at = 0;
    EXPECT_OK(snap_set_new(&v->manifest, previous, &set));
    while (snap_set_missing(set, &at, &missing)) {
        EXPECT_OK(snap_set_add(set, &missing.name, fx_stored(v, missing.name.digest)));
    }
    EXPECT_OK(snap_set_close(set));
    return set;
}

struct head fx_head(uint64_t epoch, uint64_t sequence, const struct fx_version *v)
{
    struct head h = {.root_version = 1,
                     .epoch = epoch,
                     .sequence = sequence,
                     .signed_at_ms = FX_NOW_MS,
                     .expires_at_ms = FX_NOW_MS + 15000,
                     .target_count = 1};
    h.targets[0] = (struct head_target){.all = true, .version = v->manifest.version};
    memcpy(h.targets[0].manifest_digest, v->manifest.digest, DIGEST_SIZE);
    return h;
}

void fx_seal_head(const struct fx *f, const struct head *h, struct buf *out)
{
    auto_buf struct buf body = BUF_MAX(HEAD_BODY_MAX);
    const struct key_pair *signer = &f->heads[0];
    EXPECT_OK(head_encode(h, &body));
    fx_seal(CONTAINER_HEAD, "test", buf_slice(&body), &signer, 1, out);
}

void fx_directory(char out[256])
{
    const char *base = getenv("TMPDIR");
    (void)snprintf(out, 256, "%s/trilane-snapshot-XXXXXX", base == NULL ? "/tmp" : base);
    assert_non_null(mkdtemp(out));
}

void fx_remove_directory(const char *path)
{
    DIR *directory = opendir(path);
    assert_non_null(directory);
    const struct dirent *entry = NULL;
    while ((entry = readdir(directory)) != NULL) {
        if (entry->d_name[0] != '.') {
            assert_int_equal(unlinkat(dirfd(directory), entry->d_name, 0), 0);
        }
    }
    assert_int_equal(closedir(directory), 0);
    assert_int_equal(rmdir(path), 0);
}
