/* Manifests: every number in one is bounded and agrees with the others before it is used. */
#include "common/snapshot/manifest.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/scope.h"
#include "common/proto/strict.h"
#include "common/snapshot/wire.h"

#include "trilane/snapshot/v1/snapshot.pb-c.h"

#define CONTENT_TAG "trilane.dev/content/1"

typedef Trilane__Snapshot__V1__Manifest manifest_message;
typedef Trilane__Snapshot__V1__Stream stream_message;

/* ---- content digest ---- */

struct content {
    size_t size;
    uint8_t bytes[sizeof(CONTENT_TAG) + 8 + (size_t)STREAMS_MAX * (4 + 4 + 8 + DIGEST_SIZE)];
};

static void content_start(struct content *c, uint64_t capabilities)
{
    memcpy(c->bytes, CONTENT_TAG, sizeof(CONTENT_TAG)); /* with its NUL */
    wire_put64(c->bytes + sizeof(CONTENT_TAG), capabilities);
    c->size = sizeof(CONTENT_TAG) + 8;
}

static void content_add(struct content *c, const struct manifest_stream *s)
{
    if (s->kind == STREAM_POSITIONS) {
        return; /* lines move without a change of meaning. */
    }
    uint8_t *p = c->bytes + c->size;
    wire_put32(p, s->kind);
    wire_put32(p + 4, s->format);
    wire_put64(p + 8, s->raw_size);
    memcpy(p + 16, s->raw_digest, DIGEST_SIZE);
    c->size += 16 + DIGEST_SIZE;
}

void manifest_plan_digest(const struct manifest_plan *plan, uint8_t out[DIGEST_SIZE])
{
    CHECK(plan->stream_count <= STREAMS_MAX);
    struct content c;
    content_start(&c, plan->capabilities);
    for (size_t i = 0; i < plan->stream_count; i++) {
        const struct cut_stream *from = &plan->streams[i];
        struct manifest_stream s = {
            .kind = from->kind, .format = from->format, .raw_size = from->raw_size};
        memcpy(s.raw_digest, from->raw_digest, DIGEST_SIZE);
        content_add(&c, &s);
    }
    ids_digest(slice_of(c.bytes, c.size), out);
}

/* ---- decode ---- */

static bool chunk_sizes_hold(const struct manifest_stream *s, size_t i)
{
    uint32_t raw = s->raw_sizes[i];
    uint32_t stored = s->stored_sizes[i];
    return raw >= 1 && raw <= CHUNK_RAW_MAX && stored >= 1 && stored <= raw;
}

static struct err stream_decode(const stream_message *m, struct manifest_stream *out)
{
    size_t count = m->n_raw_sizes;
    if (m->kind == 0 || m->format == 0 || m->raw_digest.len != DIGEST_SIZE ||
        m->n_stored_sizes != count || m->chunk_digests.len != count * DIGEST_SHORT_SIZE) {
        return FAIL(E_MANIFEST_MALFORMED);
    }
    *out = (struct manifest_stream){.kind = m->kind,
                                    .format = m->format,
                                    .raw_size = m->raw_size,
                                    .chunk_count = count,
                                    .chunk_digests = m->chunk_digests.data,
                                    .stored_sizes = m->stored_sizes,
                                    .raw_sizes = m->raw_sizes};
    memcpy(out->raw_digest, m->raw_digest.data, DIGEST_SIZE);
    uint64_t sum = 0; /* at most CHUNKS_MAX times CHUNK_RAW_MAX more than the bound: no overflow. */
    for (size_t i = 0; i < count; i++) {
        if (!chunk_sizes_hold(out, i)) {
            return FAIL(E_MANIFEST_MALFORMED);
        }
        sum += out->raw_sizes[i];
    }
    return sum == out->raw_size ? OK : FAIL(E_MANIFEST_MALFORMED);
}

static struct err message_to_manifest(const manifest_message *m, struct manifest *out)
{
    if (m->version == 0 || m->content_digest.len != DIGEST_SIZE || m->made_at_ms < 0 ||
        m->n_streams > STREAMS_MAX) {
        return FAIL(E_MANIFEST_MALFORMED);
    }
    out->version = m->version;
    out->made_at_ms = m->made_at_ms;
    out->capabilities = m->capabilities;
    out->stream_count = m->n_streams;
    memcpy(out->content_digest, m->content_digest.data, DIGEST_SIZE);
    struct content c;
    content_start(&c, m->capabilities);
    uint64_t raw = 0;
    size_t chunks = 0;
    for (size_t i = 0; i < m->n_streams; i++) {
        struct manifest_stream *s = &out->streams[i];
        TRY(stream_decode(m->streams[i], s));
        content_add(&c, s);
        raw += s->raw_size;
        chunks += s->chunk_count;
        bool ascending = i == 0 || out->streams[i - 1].kind < s->kind;
        if (!ascending || raw > STREAM_RAW_MAX || chunks > CHUNKS_MAX) {
            return FAIL(E_MANIFEST_MALFORMED);
        }
    }
    uint8_t digest[DIGEST_SIZE];
    ids_digest(slice_of(c.bytes, c.size), digest);
    bool same = memcmp(digest, out->content_digest, DIGEST_SIZE) == 0;
    return same ? OK : FAIL(E_MANIFEST_MALFORMED);
}

/* 'digest' is the body's. */
static struct err decode(struct slice body, const uint8_t digest[DIGEST_SIZE], struct manifest *out)
{
    if (body.size > MANIFEST_BODY_MAX) {
        return FAIL(E_MANIFEST_MALFORMED);
    }
    const struct proto_rules rules = {.memory_max = CONTAINER_MEMORY_FACTOR * body.size,
                                      .malformed = E_MANIFEST_MALFORMED,
                                      .unknown = E_CAPABILITY_MISSING};
    auto_proto ProtobufCMessage *m = NULL;
    TRY(proto_decode(&trilane__snapshot__v1__manifest__descriptor, body, &rules, &m));
    struct manifest made = {0};
    TRY(message_to_manifest((const manifest_message *)m, &made));
    memcpy(made.digest, digest, DIGEST_SIZE);
    made.owned = TAKE_PTR(m);
    *out = made;
    return OK;
}

struct err manifest_decode(struct slice body, struct manifest *out)
{
    uint8_t digest[DIGEST_SIZE] = {0};
    if (body.size <= MANIFEST_BODY_MAX) { /* more is not hashed, and refused below. */
        ids_digest(body, digest);
    }
    return decode(body, digest, out);
}

void manifest_free(struct manifest *m)
{
    proto_free(m->owned);
    *m = (struct manifest){0};
}

struct err manifest_open(struct slice bytes, const struct root *root,
                         const struct manifest_wanted *wanted, struct manifest *out)
{
    struct container c;
    uint8_t digest[DIGEST_SIZE];
    struct container_signers signers;
    TRY(container_read(bytes, CONTAINER_MANIFEST, root->environment_id, &c));
    container_body_digest(&c, digest);
    if (wanted->digest != NULL && memcmp(digest, wanted->digest, DIGEST_SIZE) != 0) {
        return FAIL(E_MANIFEST_MIXED);
    }
    TRY(container_verify(&c, &root->ring, KEY_ROLE_MANIFEST, &signers));
    auto_manifest struct manifest m = {0};
    TRY(decode(c.body, digest, &m));
    if (wanted->version != 0 && m.version != wanted->version) {
        return FAIL(E_MANIFEST_MIXED);
    }
    *out = m;
    m.owned = NULL;
    return OK;
}

struct err manifest_check_capabilities(const struct manifest *m, uint64_t capabilities)
{
    if ((m->capabilities & ~capabilities) != 0) {
        return FAIL(E_CAPABILITY_MISSING);
    }
    for (size_t i = 0; i < m->stream_count; i++) {
        const struct manifest_stream *s = &m->streams[i];
        if (s->format != stream_format(s->kind, SNAPSHOT_FORMAT) &&
            s->format != stream_format(s->kind, SNAPSHOT_FORMAT_LEAST)) {
            return FAIL(E_CAPABILITY_MISSING); /* of another kind, or another release's. */
        }
    }
    return OK;
}

static bool is_of_format(const struct manifest_plan *plan, uint32_t format)
{
    size_t fits = 0;
    while (fits < plan->stream_count &&
           plan->streams[fits].format == stream_format(plan->streams[fits].kind, format)) {
        fits++;
    }
    return fits == plan->stream_count;
}

uint32_t manifest_plan_format(const struct manifest_plan *plan)
{
    uint32_t format = SNAPSHOT_FORMAT_LEAST;
    while (format <= SNAPSHOT_FORMAT && !is_of_format(plan, format)) {
        format++;
    }
    return format <= SNAPSHOT_FORMAT ? format : 0;
}

uint32_t manifest_format(const struct manifest *m)
{
    struct cut_stream streams[STREAMS_MAX];
    for (size_t i = 0; i < m->stream_count; i++) {
        streams[i] =
            (struct cut_stream){.kind = m->streams[i].kind, .format = m->streams[i].format};
    }
    const struct manifest_plan plan = {.streams = streams, .stream_count = m->stream_count};
    return manifest_plan_format(&plan);
}

const struct manifest_stream *manifest_stream(const struct manifest *m, uint32_t kind)
{
    for (size_t i = 0; i < m->stream_count; i++) {
        if (m->streams[i].kind == kind) {
            return &m->streams[i];
        }
    }
    return NULL;
}

struct chunk_name manifest_chunk(const struct manifest_stream *s, size_t index)
{
    CHECK(index < s->chunk_count);
    struct chunk_name name = {.stored_size = s->stored_sizes[index],
                              .raw_size = s->raw_sizes[index]};
    memcpy(name.digest, s->chunk_digests + index * DIGEST_SHORT_SIZE, DIGEST_SHORT_SIZE);
    return name;
}

/* ---- encode ---- */

struct stream_lists {
    uint8_t *digests;
    uint32_t *stored;
    uint32_t *raw;
};

/* One block for the lists of all streams. */
static struct err lists_new(size_t chunks, struct stream_lists *out, void **out_block)
{
    size_t each = DIGEST_SHORT_SIZE + 2 * sizeof(uint32_t);
    uint8_t *block = malloc(chunks * each + 1);
    if (block == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    *out_block = block;
    out->stored = (uint32_t *)(void *)block;
    out->raw = out->stored + chunks;
    out->digests = (uint8_t *)(out->raw + chunks);
    return OK;
}

static void stream_fill(stream_message *m, const struct cut_stream *from,
                        const struct stream_lists *lists)
{
    trilane__snapshot__v1__stream__init(m);
    m->kind = from->kind;
    m->format = from->format;
    m->raw_size = from->raw_size;
    m->raw_digest = proto_binary(from->raw_digest, DIGEST_SIZE);
    m->chunk_digests = proto_binary(lists->digests, from->chunk_count * DIGEST_SHORT_SIZE);
    m->n_stored_sizes = from->chunk_count;
    m->stored_sizes = lists->stored;
    m->n_raw_sizes = from->chunk_count;
    m->raw_sizes = lists->raw;
    for (size_t i = 0; i < from->chunk_count; i++) {
        const struct cut_chunk *c = &from->chunks[i];
        memcpy(lists->digests + i * DIGEST_SHORT_SIZE, c->digest, DIGEST_SHORT_SIZE);
        lists->stored[i] = (uint32_t)c->stored.size;
        lists->raw[i] = (uint32_t)c->raw.size;
    }
}

/* What is written is read back, so that no publisher signs what a node refuses. */
static struct err encode_judged(const manifest_message *m, struct buf *out)
{
    auto_buf struct buf body = BUF_MAX(MANIFEST_BODY_MAX);
    TRY(proto_encode(&m->base, &body));
    auto_manifest struct manifest check = {0};
    if (!err_ok(manifest_decode(buf_slice(&body), &check))) {
        return FAIL(E_USAGE);
    }
    return buf_add(out, buf_slice(&body));
}

struct err manifest_encode(const struct manifest_plan *plan, struct buf *out)
{
    if (plan->stream_count > STREAMS_MAX) {
        return FAIL(E_USAGE);
    }
    size_t chunks = 0;
    for (size_t i = 0; i < plan->stream_count; i++) {
        chunks += plan->streams[i].chunk_count;
    }
    struct stream_lists lists;
    auto_free void *block = NULL;
    TRY(lists_new(chunks, &lists, &block));
    stream_message streams[STREAMS_MAX];
    stream_message *list[STREAMS_MAX];
    for (size_t i = 0; i < plan->stream_count; i++) {
        size_t count = plan->streams[i].chunk_count;
        stream_fill(&streams[i], &plan->streams[i], &lists);
        list[i] = &streams[i];
        lists.digests += count * DIGEST_SHORT_SIZE;
        lists.stored += count;
        lists.raw += count;
    }
    uint8_t digest[DIGEST_SIZE];
    manifest_plan_digest(plan, digest);
    manifest_message m;
    trilane__snapshot__v1__manifest__init(&m);
    m.version = plan->version;
    m.content_digest = proto_binary(digest, sizeof(digest));
    m.made_at_ms = plan->made_at_ms;
    m.capabilities = plan->capabilities;
    m.n_streams = plan->stream_count;
    m.streams = list;
    return encode_judged(&m, out);
}
