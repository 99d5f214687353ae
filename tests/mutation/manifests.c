/* Manifests that a node must not take: each lies in the place of the next version's, and a valid
 * head names it. */
#include <string.h>

#include "common/base/ids.h"
#include "common/proto/strict.h"

#include "tests/mutation/bytes.h"
#include "tests/mutation/node.h"
#include "trilane/snapshot/v1/snapshot.pb-c.h"

#define BYTES_MAX ((size_t)2 * MANIFEST_BODY_MAX)

static struct buf *input(struct trial *t)
{
    struct buf *b = trial_input(t, "manifest");
    *b = BUF_MAX(BYTES_MAX);
    return b;
}

static const struct version *next_of(const struct trial *t)
{
    return t->world->versions[VERSION_NEXT];
}

/* A head to a version and digest, under which this manifest lies; NULL: none does. */
static void offer_as(struct trial *t, uint64_t version, const uint8_t digest[DIGEST_SIZE],
                     const struct buf *manifest)
{
    char key[SNAP_KEY_SIZE];
    snap_key_manifest(version, digest, key);
    if (manifest == NULL) {
        node_hide(t->node, key);
    } else {
        node_lie(t->node, key, buf_slice(manifest));
    }
    struct buf *head = trial_input(t, "head");
    *head = BUF_MAX((size_t)2 * HEAD_BODY_MAX);
    world_head(t->world, &(struct world_head){.version = version, .digest = digest}, head);
    node_refuses_target(t, buf_slice(head));
}

/* The head names the next version as it is. */
static void offer(struct trial *t, const struct buf *manifest)
{
    offer_as(t, next_of(t)->number, next_of(t)->digest, manifest);
}

/* The head names this very body. */
static void offer_body(struct trial *t, struct slice body, const struct buf *manifest)
{
    uint8_t digest[DIGEST_SIZE];
    ids_digest(body, digest);
    offer_as(t, next_of(t)->number, digest, manifest);
}

static struct buf *valid(struct trial *t)
{
    struct buf *b = input(t);
    MUST(buf_add(b, buf_slice(&next_of(t)->manifest)));
    return b;
}

/* ---- bytes ---- */

static void changed(struct trial *t)
{
    static const struct bytes_codes codes = {E_MANIFEST_MALFORMED, E_MANIFEST_MIXED,
                                             E_MANIFEST_UNSIGNED, E_MANIFEST_MIXED};
    struct buf *b = valid(t);
    bytes_change(&t->dice, b);
    unsigned parts = bytes_parts(buf_slice(&next_of(t)->manifest), buf_slice(b));
    trial_says(t, "bytes changed, parts %x", parts);
    t->idle = parts == 0;
    if (!t->idle) {
        t->wanted = bytes_code(parts, &codes);
        offer(t, b);
    }
}

static void resized(struct trial *t)
{
    struct buf *b = valid(t);
    bytes_resize(&t->dice, b);
    offer(t, b);
}

static void reframed(struct trial *t)
{
    struct buf *b = valid(t);
    bytes_reframe(&t->dice, b);
    offer(t, b);
}

/* Changed, and the head names what came of it: signatures alone stand against it. */
static void changed_and_named(struct trial *t)
{
    const struct version *next = next_of(t);
    auto_buf struct buf body = BUF_MAX(MANIFEST_BODY_MAX);
    MUST(buf_add(&body, buf_slice(&next->body)));
    bytes_change(&t->dice, &body);
    t->idle = memcmp(body.ptr, next->body.ptr, body.size) == 0;
    if (t->idle) {
        return;
    }
    struct container c;
    MUST(container_read(buf_slice(&next->manifest), CONTAINER_MANIFEST, NULL, &c));
    struct container_signature signatures[CONTAINER_SIGNATURES_MAX];
    memcpy(signatures, c.signatures.ptr, c.signatures.size);
    struct buf *b = input(t);
    seal_with(CONTAINER_MANIFEST, t->world->environment_id, buf_slice(&body), signatures,
              c.signature_count, b);
    offer_body(t, buf_slice(&body), b);
}

/* ---- replays and splices ---- */

static void withheld(struct trial *t)
{
    offer(t, NULL);
}

/* Another version's, in its place. */
static void of_another_version(struct trial *t)
{
    struct world *w = t->world;
    size_t which = (size_t)dice_below(&t->dice, WORLD_VERSIONS - 1);
    which += which >= VERSION_NEXT ? 1 : 0;
    trial_says(t, "version %zu", which);
    offer(t, &w->versions[which]->manifest);
}

/* Another version's, and the head names it by its digest, under the next number. */
static void named_by_another_number(struct trial *t)
{
    const struct world *w = t->world;
    const struct version *other = w->versions[dice_even(&t->dice) ? VERSION_OLD : VERSION_LATER];
    offer_as(t, next_of(t)->number, other->digest, &other->manifest);
}

/* Another environment's; or another platform's, whose environment has the same name. */
static void of_another_world(struct trial *t)
{
    struct world *other = trial_other(t);
    const struct version *v = other->versions[VERSION_NEXT];
    bool same_name = strcmp(other->environment, t->world->environment) == 0;
    t->wanted = same_name ? E_MANIFEST_UNSIGNED : E_MANIFEST_MIXED;
    offer_as(t, v->number, v->digest, &v->manifest);
}

static void other_document(struct trial *t)
{
    const struct buf *roots = t->world->root_bytes;
    offer(t, &roots[dice_below(&t->dice, WORLD_ROOTS)]);
}

/* ---- signatures ---- */

static void sign(const struct world *w, struct slice body, const struct key_pair *key,
                 struct container_signature *out)
{
    MUST(container_sign(CONTAINER_MANIFEST, w->environment_id, body, key, out));
}

/* One less than are asked for, and 'last' in its place, in any order. */
static void seal_short(struct trial *t, const struct container_signature *last, struct buf *out)
{
    const struct world *w = t->world;
    struct slice body = buf_slice(&next_of(t)->body);
    struct container_signature signatures[CONTAINER_SIGNATURES_MAX];
    size_t count = w->threshold - 1;
    for (size_t i = 0; i < count; i++) {
        sign(w, body, world_key(w, KEY_ROLE_MANIFEST, i), &signatures[i]);
    }
    if (last != NULL) {
        size_t at = (size_t)dice_below(&t->dice, count + 1);
        signatures[count] = signatures[at];
        signatures[at] = *last;
        count++;
    }
    seal_with(CONTAINER_MANIFEST, w->environment_id, body, signatures, count, out);
}

static void too_few(struct trial *t)
{
    struct buf *b = input(t);
    seal_short(t, NULL, b);
    offer(t, b);
}

static void short_by(struct trial *t, const struct key_pair *key)
{
    struct container_signature last;
    sign(t->world, buf_slice(&next_of(t)->body), key, &last);
    struct buf *b = input(t);
    seal_short(t, &last, b);
    offer(t, b);
}

static void by_another_role(struct trial *t)
{
    short_by(t, world_key(t->world, dice_even(&t->dice) ? KEY_ROLE_HEAD : KEY_ROLE_ROOT,
                          (size_t)dice_below(&t->dice, 2)));
}

/* Dropped, to come, of no root, of a node, or of another world. */
static void by_an_unknown_key(struct trial *t)
{
    const struct world *w = t->world;
    const struct key_pair *keys[] = {&w->keys[KEY_ROLE_MANIFEST][ROOT_BEFORE],
                                     &w->keys[KEY_ROLE_MANIFEST][w->threshold + ROOT_NEXT],
                                     &w->stranger, &w->node,
                                     world_key(trial_other(t), KEY_ROLE_MANIFEST, 0)};
    size_t which = (size_t)dice_below(&t->dice, 5);
    trial_says(t, "by unknown key %zu", which);
    short_by(t, keys[which]);
}

/* A right key's signature of another version, of another environment, or of another kind. */
static void mixed_signatures(struct trial *t)
{
    const struct world *w = t->world;
    const struct key_pair *key = world_key(w, KEY_ROLE_MANIFEST, w->threshold - 1);
    struct slice body = buf_slice(&next_of(t)->body);
    struct container_signature last;
    uint8_t environment[ENVIRONMENT_SIZE];
    memcpy(environment, w->environment_id, sizeof(environment));
    switch (dice_below(&t->dice, 3)) {
    case 0:
        sign(w, buf_slice(&w->versions[VERSION_LATER]->body), key, &last);
        break;
    case 1:
        snap_environment(SLICE_LIT("elsewhere"), environment);
        MUST(container_sign(CONTAINER_MANIFEST, environment, body, key, &last));
        break;
    default:
        MUST(container_sign(CONTAINER_ROOT, environment, body, key, &last));
    }
    struct buf *b = input(t);
    seal_short(t, &last, b);
    offer(t, b);
}

/* One key as often as signatures are asked for; the copies may go by the ids of other keys. */
static void doubled(struct trial *t)
{
    const struct world *w = t->world;
    struct container_signature signatures[CONTAINER_SIGNATURES_MAX];
    size_t count = w->threshold == 1 ? 2 : w->threshold;
    bool disguised = w->threshold > 1 && dice_even(&t->dice);
    for (size_t i = 0; i < count; i++) {
        sign(w, buf_slice(&next_of(t)->body), world_key(w, KEY_ROLE_MANIFEST, 0), &signatures[i]);
        if (disguised) {
            key_id(world_key(w, KEY_ROLE_MANIFEST, i)->public.bytes, signatures[i].key_id);
        }
    }
    t->wanted = disguised ? E_MANIFEST_UNSIGNED : E_MANIFEST_MALFORMED;
    struct buf *b = input(t);
    seal_with(CONTAINER_MANIFEST, w->environment_id, buf_slice(&next_of(t)->body), signatures,
              count, b);
    offer(t, b);
}

/* ---- signed by who may, and wrong ---- */

typedef Trilane__Snapshot__V1__Manifest manifest_message;
typedef Trilane__Snapshot__V1__Stream stream_message;

static void break_stream(struct trial *t, stream_message *s)
{
    size_t at = (size_t)dice_below(&t->dice, s->n_raw_sizes);
    switch (dice_below(&t->dice, 7)) {
    case 0:
        s->raw_size += 1 + dice_below(&t->dice, UINT64_C(1) << 40);
        break;
    case 1:
        s->raw_sizes[at] += 1;
        break;
    case 2:
        s->stored_sizes[at] = s->raw_sizes[at] + 1;
        break;
    case 3:
        s->n_stored_sizes--;
        break;
    case 4:
        s->chunk_digests.len -= 1 + (size_t)dice_below(&t->dice, DIGEST_SHORT_SIZE);
        break;
    case 5:
        s->raw_digest.len--;
        break;
    default: /* too large a chunk; the sum holds. */
        s->raw_size += UINT32_MAX - s->raw_sizes[at];
        s->raw_sizes[at] = UINT32_MAX;
    }
}

static void break_manifest(struct trial *t, manifest_message *m)
{
    size_t at = (size_t)dice_below(&t->dice, m->n_streams);
    stream_message *first = m->streams[0];
    switch (dice_below(&t->dice, 8)) {
    case 0:
        m->version = 0;
        break;
    case 1:
        m->content_digest.data[dice_below(&t->dice, DIGEST_SIZE)] ^= 0x40;
        break;
    case 2: /* the content digest does not say it. */
        m->streams[at]->raw_digest.data[dice_below(&t->dice, DIGEST_SIZE)] ^= 0x01;
        break;
    case 3:
        m->made_at_ms = -1;
        break;
    case 4:
        m->streams[0] = m->streams[1];
        m->streams[1] = first;
        break;
    case 5:
        m->capabilities ^= CAPABILITY_REVOCATIONS; /* the content digest says it. */
        break;
    default:
        break_stream(t, m->streams[at]);
    }
}

static void offer_signed(struct trial *t, struct slice body)
{
    struct buf *b = input(t);
    seal_manifest(t->world, body, b);
    offer_body(t, body, b);
}

static void signed_nonsense(struct trial *t)
{
    const struct version *next = next_of(t);
    auto_buf struct buf body = BUF_MAX(MANIFEST_BODY_MAX);
    manifest_message *m =
        trilane__snapshot__v1__manifest__unpack(NULL, next->body.size, next->body.ptr);
    CHECK(m != NULL);
    break_manifest(t, m);
    MUST(proto_encode(&m->base, &body));
    trilane__snapshot__v1__manifest__free_unpacked(m, NULL);
    offer_signed(t, buf_slice(&body));
}

/* Bits of capabilities that this release knows: they are given out one after the other. */
#define COUNT_(bit, name, text) +1
enum { CAPABILITIES_KNOWN = 0 CAPABILITY_LIST(COUNT_) };
#undef COUNT_

/* A newer release may say more: what is not known here may restrict. */
static void signed_unknown(struct trial *t)
{
    const struct version *next = next_of(t);
    struct cut_stream streams[STREAMS_MAX];
    auto_buf struct buf body = BUF_MAX(MANIFEST_BODY_MAX);
    memcpy(streams, next->streams, next->stream_count * sizeof(streams[0]));
    struct manifest_plan plan = {.version = next->number,
                                 .capabilities = CAPABILITY_REVOCATIONS,
                                 .streams = streams,
                                 .stream_count = next->stream_count};
    size_t at = (size_t)dice_below(&t->dice, next->stream_count);
    uint64_t what = dice_below(&t->dice, 4);
    if (what == 0) {
        plan.capabilities |= UINT64_C(1) << dice_between(&t->dice, CAPABILITIES_KNOWN, 63);
    } else if (what == 1) {
        streams[at].format += (uint32_t)dice_between(&t->dice, 2, 9);
    } else if (what == 2) {
        streams[next->stream_count - 1].kind = (uint32_t)dice_between(&t->dice, 14, 31);
    }
    MUST(manifest_encode(&plan, &body));
    if (what == 3) {
        MUST(buf_add(&body, SLICE_LIT("\x90\x03\x01"))); /* field 50. */
    }
    offer_signed(t, buf_slice(&body));
}

/* A raw digest, or the names of chunks, that are not what the chunks hold. */
static void signed_lies(struct trial *t)
{
    const struct version *next = next_of(t);
    struct cut_stream streams[STREAMS_MAX];
    auto_buf struct buf body = BUF_MAX(MANIFEST_BODY_MAX);
    memcpy(streams, next->streams, next->stream_count * sizeof(streams[0]));
    struct cut_stream *s = &streams[dice_below(&t->dice, next->stream_count)];
    struct cut_chunk chunks[64];
    CHECK(s->chunk_count <= sizeof(chunks) / sizeof(chunks[0]));
    memcpy(chunks, s->chunks, s->chunk_count * sizeof(chunks[0]));
    s->chunks = chunks;
    if (s->chunk_count > 1 && dice_even(&t->dice)) {
        struct cut_chunk first = chunks[0]; /* in another order. */
        chunks[0] = chunks[s->chunk_count - 1];
        chunks[s->chunk_count - 1] = first;
    } else {
        s->raw_digest[dice_below(&t->dice, DIGEST_SIZE)] ^= 0x80;
    }
    struct manifest_plan plan = {.version = next->number,
                                 .capabilities = CAPABILITY_REVOCATIONS,
                                 .streams = streams,
                                 .stream_count = next->stream_count};
    MUST(manifest_encode(&plan, &body));
    offer_signed(t, buf_slice(&body));
}

const struct trial_kind manifest_kinds[] = {
    {"manifest.changed",
     changed,
     60,
     {E_MANIFEST_MALFORMED, E_MANIFEST_MIXED, E_MANIFEST_UNSIGNED}},
    {"manifest.resized", resized, 20, {E_MANIFEST_MALFORMED}},
    {"manifest.reframed", reframed, 20, {E_MANIFEST_MIXED}},
    {"manifest.changed_and_named", changed_and_named, 30, {E_MANIFEST_UNSIGNED}},
    {"manifest.withheld", withheld, 5, {E_MANIFEST_MISSING}},
    {"manifest.of_another_version", of_another_version, 20, {E_MANIFEST_MIXED}},
    {"manifest.named_by_another_number", named_by_another_number, 10, {E_MANIFEST_MIXED}},
    {"manifest.of_another_world", of_another_world, 15, {E_MANIFEST_MIXED, E_MANIFEST_UNSIGNED}},
    {"manifest.other_document", other_document, 5, {E_MANIFEST_MALFORMED}},
    {"manifest.too_few", too_few, 20, {E_MANIFEST_UNSIGNED}},
    {"manifest.by_another_role", by_another_role, 20, {E_MANIFEST_WRONG_KEY}},
    {"manifest.by_an_unknown_key", by_an_unknown_key, 20, {E_MANIFEST_UNSIGNED}},
    {"manifest.mixed_signatures", mixed_signatures, 20, {E_MANIFEST_UNSIGNED}},
    {"manifest.doubled", doubled, 20, {E_MANIFEST_MALFORMED, E_MANIFEST_UNSIGNED}},
    {"manifest.signed_nonsense", signed_nonsense, 20, {E_MANIFEST_MALFORMED}},
    {"manifest.signed_unknown", signed_unknown, 20, {E_CAPABILITY_MISSING}},
    {"manifest.signed_lies", signed_lies, 10, {E_CHUNK_TAMPERED}},
    {.name = NULL},
};
