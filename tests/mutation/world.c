/* world: see world.h. */
#include "tests/mutation/world.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/text.h"
#include "common/snapshot/wire.h"

enum {
    FILLERS = 300, /* policies, so that a stream has several chunks. */
    DAY_MS = 86400000,
    VALIDITY_MS = 15000,
    HEAD_KEYS = 2,
    VERSION_STEP = 10, /* numbers of a generation. */
};

static const struct {
    const char *environment;
    uint32_t threshold;
} plans[WORLDS] = {
    {"test", 2},
    {"staging", 3},
    {"test", 2}, /* another platform, whose environment has the same name. */
    {"prod", 1},
};

void must_(struct err e, const char *file, int line)
{
    if (!err_ok(e)) {
        (void)fprintf(stderr, "%s:%d: %s at %s\n", file, line, err_name(e.code), e.where);
        abort();
    }
}

/* ---- keys ---- */

struct key_pair world_pair(unsigned world, enum key_role role, uint64_t serial)
{
    struct key_pair pair = {.public = {.role = role}};
    uint8_t secret[crypto_sign_SECRETKEYBYTES];
    char text[64];
    int size =
        snprintf(text, sizeof(text), "%u %d %llu", world, (int)role, (unsigned long long)serial);
    ids_digest(slice_of(text, (size_t)size), pair.seed);
    (void)snprintf(pair.public.name, sizeof(pair.public.name), "key-%llu",
                   (unsigned long long)serial);
    CHECK(crypto_sign_seed_keypair(pair.public.bytes, secret, pair.seed) == 0);
    return pair;
}

static void make_keys(struct world *w)
{
    enum { LATE = 1000000, STRANGER, NODE };
    for (int role = 0; role < ROOT_ROLE_COUNT; role++) {
        for (size_t i = 0; i < WORLD_KEYS; i++) {
            w->keys[role][i] = world_pair(w->index, (enum key_role)role, w->generation + i);
        }
    }
    w->late = world_pair(w->index, KEY_ROLE_HEAD, LATE);
    w->stranger = world_pair(w->index, KEY_ROLE_HEAD, STRANGER);
    w->node = world_pair(w->index, KEY_ROLE_NODE, NODE);
}

size_t world_key_count(const struct world *w, enum key_role role)
{
    return role == KEY_ROLE_HEAD ? HEAD_KEYS : w->threshold + 1;
}

const struct key_pair *world_key(const struct world *w, enum key_role role, size_t index)
{
    CHECK(index < world_key_count(w, role));
    return &w->keys[role][ROOT_NOW + index];
}

/* ---- sealing ---- */

void seal_with(enum container_kind kind, const uint8_t environment[ENVIRONMENT_SIZE],
               struct slice body, const struct container_signature *signatures, size_t count,
               struct buf *out)
{
    uint8_t header[CONTAINER_HEADER_SIZE] = {'T', 'R', 'L', 'N'};
    wire_put16(header + 4, CONTAINER_FORMAT);
    header[6] = (uint8_t)kind;
    header[7] = (uint8_t)count;
    memcpy(header + 8, environment, ENVIRONMENT_SIZE);
    wire_put32(header + 24, (uint32_t)body.size);
    MUST(buf_add(out, slice_of(header, sizeof(header))));
    MUST(buf_add(out, slice_of(signatures, count * sizeof(*signatures))));
    MUST(buf_add(out, body));
}

void seal_by(const struct world *w, enum container_kind kind, struct slice body,
             const struct key_pair *const *pairs, size_t count, struct buf *out)
{
    struct container_signature signatures[CONTAINER_SIGNATURES_MAX];
    CHECK(count <= CONTAINER_SIGNATURES_MAX);
    for (size_t i = 0; i < count; i++) {
        MUST(container_sign(kind, w->environment_id, body, pairs[i], &signatures[i]));
    }
    seal_with(kind, w->environment_id, body, signatures, count, out);
}

void seal_manifest(const struct world *w, struct slice body, struct buf *out)
{
    const struct key_pair *pairs[THRESHOLD_MAX];
    for (size_t i = 0; i < w->threshold; i++) {
        pairs[i] = world_key(w, KEY_ROLE_MANIFEST, i);
    }
    seal_by(w, CONTAINER_MANIFEST, body, pairs, w->threshold, out);
}

/* Root keys that a root and the one before it have. */
static void seal_root(const struct world *w, size_t root, struct slice body, struct buf *out)
{
    const struct key_pair *pairs[THRESHOLD_MAX];
    for (size_t i = 0; i < w->threshold; i++) {
        pairs[i] = &w->keys[KEY_ROLE_ROOT][root + i];
    }
    seal_by(w, CONTAINER_ROOT, body, pairs, w->threshold, out);
}

void seal_next_root(const struct world *w, struct slice body, struct buf *out)
{
    seal_root(w, ROOT_NEXT, body, out);
}

/* ---- roots ---- */

static void make_root(struct world *w, size_t root)
{
    int64_t now_ms = clock_wall_ms();
    struct root *r = &w->roots[root];
    *r = (struct root){.version = w->generation + 1 + root, .not_after_ms = now_ms + DAY_MS};
    (void)snprintf(r->environment, sizeof(r->environment), "%s", w->environment);
    for (int role = 0; role < ROOT_ROLE_COUNT; role++) {
        int64_t not_after_ms = role == KEY_ROLE_HEAD ? now_ms + DAY_MS : 0;
        for (size_t i = 0; i < world_key_count(w, (enum key_role)role); i++) {
            MUST(root_add_key(r, &w->keys[role][root + i].public, not_after_ms));
        }
        r->ring.thresholds[role] = role == KEY_ROLE_HEAD ? 1 : w->threshold;
    }
    MUST(root_add_key(r, &w->late.public, now_ms - DAY_MS));
    auto_buf struct buf body = BUF_MAX(ROOT_BODY_MAX);
    MUST(root_encode(r, &body));
    w->root_bytes[root] = BUF_MAX((size_t)2 * ROOT_BODY_MAX);
    seal_root(w, root, buf_slice(&body), &w->root_bytes[root]);
    MUST(root_open(buf_slice(&w->root_bytes[root]), r));
}

/* ---- contents ---- */

struct content *world_content(uint64_t number)
{
    char key[96];
    struct content *c = content_sample((uint16_t)(1000 + number % 60000));
    content_fill_policies(c, FILLERS);
    (void)snprintf(key, sizeof(key), "service/filler/%08llu", (unsigned long long)number % FILLERS);
    content_remove(c, STREAM_AUTHORISATION, key);
    (void)snprintf(key, sizeof(key), "token/%064llx", (unsigned long long)number);
    content_revoke(c, key);
    return c;
}

void world_sign(const struct world *w, struct version *v, uint64_t capabilities)
{
    struct manifest_plan plan = {
        .version = v->number,
        .made_at_ms = clock_wall_ms(),
        .capabilities = capabilities,
        .streams = v->streams,
        .stream_count = v->stream_count,
    };
    v->body = BUF_MAX(MANIFEST_BODY_MAX);
    v->manifest = BUF_MAX((size_t)2 * MANIFEST_BODY_MAX);
    MUST(manifest_encode(&plan, &v->body));
    ids_digest(buf_slice(&v->body), v->digest);
    seal_manifest(w, buf_slice(&v->body), &v->manifest);
}

static void make_version(struct world *w, size_t which)
{
    static const uint64_t numbers[WORLD_VERSIONS] = {1, 2, 2, 3, 4};
    uint64_t content = (w->generation * WORLD_VERSIONS + which) * WORLDS + w->index;
    struct content *c = world_content(content);
    w->versions[which] = version_cut(c, (w->generation + 1) * VERSION_STEP + numbers[which]);
    world_sign(w, w->versions[which], c->capabilities);
    content_free(c);
}

static const struct cut_chunk *find_chunk(const struct version *v, const uint8_t *digest)
{
    for (size_t i = 0; i < v->stream_count; i++) {
        for (size_t k = 0; k < v->streams[i].chunk_count; k++) {
            if (memcmp(v->streams[i].chunks[k].digest, digest, DIGEST_SHORT_SIZE) == 0) {
                return &v->streams[i].chunks[k];
            }
        }
    }
    return NULL;
}

bool world_is_new_chunk(const struct world *w, const struct cut_chunk *chunk)
{
    bool found = false;
    for (size_t i = 0; i < WORLD_VERSIONS; i++) {
        found = found || (i != VERSION_NEXT && find_chunk(w->versions[i], chunk->digest) != NULL);
    }
    return !found;
}

const struct cut_chunk *world_new_chunk(const struct world *w, struct dice *d)
{
    const struct version *v = w->versions[VERSION_NEXT];
    for (;;) { /* ends: routing and revocations are each version's own. */
        const struct cut_stream *s = &v->streams[dice_below(d, v->stream_count)];
        const struct cut_chunk *chunk = &s->chunks[dice_below(d, s->chunk_count)];
        if (world_is_new_chunk(w, chunk)) {
            return chunk;
        }
    }
}

/* ---- a generation ---- */

void world_begin(struct world *w, unsigned index, uint64_t generation)
{
    world_end(w);
    *w = (struct world){.index = index,
                        .generation = generation,
                        .environment = plans[index].environment,
                        .threshold = plans[index].threshold,
                        .epoch = generation + 1};
    snap_environment(slice_str(w->environment), w->environment_id);
    make_keys(w);
    for (size_t i = 0; i < WORLD_ROOTS; i++) {
        make_root(w, i);
    }
    for (size_t i = 0; i < WORLD_VERSIONS; i++) {
        make_version(w, i);
    }
    for (size_t i = 0; i < WORLD_PAST; i++) {
        w->past[i] = BUF_MAX((size_t)2 * HEAD_BODY_MAX);
    }
}

void world_end(struct world *w)
{
    for (size_t i = 0; i < WORLD_ROOTS; i++) {
        buf_free(&w->root_bytes[i]);
    }
    for (size_t i = 0; i < WORLD_VERSIONS; i++) {
        version_free(w->versions[i]);
    }
    for (size_t i = 0; i < WORLD_PAST; i++) {
        buf_free(&w->past[i]);
    }
    *w = (struct world){.index = 0};
}

static bool get_chunk(const struct world *w, struct slice hex, struct slice *out)
{
    uint8_t digest[DIGEST_SHORT_SIZE];
    MUST(text_unhex(hex, digest, sizeof(digest)));
    for (size_t i = 0; i < WORLD_VERSIONS; i++) {
        const struct cut_chunk *chunk = find_chunk(w->versions[i], digest);
        if (chunk != NULL) {
            *out = chunk->stored;
            return true;
        }
    }
    return false;
}

bool world_get(const struct world *w, const char *key, struct slice *out)
{
    struct slice chunk = SLICE_LIT("chunk.");
    char name[SNAP_KEY_SIZE];
    if (slice_starts(slice_str(key), chunk)) {
        return get_chunk(w, slice_from(slice_str(key), chunk.size), out);
    }
    for (size_t i = 0; i < WORLD_VERSIONS; i++) {
        const struct version *v = w->versions[i];
        snap_key_manifest(v->number, v->digest, name);
        if (strcmp(name, key) == 0) {
            *out = buf_slice(&v->manifest);
            return true;
        }
    }
    return false;
}

/* ---- heads ---- */

void world_head_body(const struct world *w, const struct world_head *plan, struct buf *out)
{
    const struct version *next = w->versions[VERSION_NEXT];
    int64_t signed_at_ms = plan->signed_at_ms == 0 ? clock_wall_ms() : plan->signed_at_ms;
    struct head head = {
        .root_version = plan->root_version == 0 ? w->roots[ROOT_NOW].version : plan->root_version,
        .epoch = plan->epoch == 0 ? w->epoch : plan->epoch,
        .sequence = plan->sequence == 0 ? w->sequence + 1 : plan->sequence,
        .signed_at_ms = signed_at_ms,
        .expires_at_ms = signed_at_ms + VALIDITY_MS,
        .target_count = 1,
        .targets = {{.all = true, .version = plan->version == 0 ? next->number : plan->version}},
    };
    memcpy(head.targets[0].manifest_digest, plan->digest == NULL ? next->digest : plan->digest,
           DIGEST_SIZE);
    if (plan->no_target) {
        head.targets[0].all = false;
        head.targets[0].label_count = 1;
        head.targets[0].labels[0] = (struct head_label){SLICE_LIT("zone"), SLICE_LIT("nowhere")};
        head.targets[0].per_mille = 1000;
    }
    MUST(head_encode(&head, out));
}

void world_head(const struct world *w, const struct world_head *plan, struct buf *out)
{
    auto_buf struct buf body = BUF_MAX(HEAD_BODY_MAX);
    const struct key_pair *key = plan->key == NULL ? world_key(w, KEY_ROLE_HEAD, 0) : plan->key;
    world_head_body(w, plan, &body);
    seal_by(w, CONTAINER_HEAD, buf_slice(&body), &key, 1, out);
}

void world_accepted(struct world *w, struct slice head)
{
    struct buf *kept = &w->past[w->past_count++ % WORLD_PAST];
    buf_clear(kept);
    MUST(buf_add(kept, head));
    w->sequence++;
}

struct slice world_past(const struct world *w, struct dice *d)
{
    size_t kept = w->past_count < WORLD_PAST ? w->past_count : WORLD_PAST;
    CHECK(kept > 1);
    size_t age = (size_t)dice_between(d, 1, kept - 1); /* 0 is the last one. */
    return buf_slice(&w->past[(w->past_count - 1 - age) % WORLD_PAST]);
}
