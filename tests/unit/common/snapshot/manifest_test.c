/*
 * manifest: the content digest by golden bytes; each bound; every bit and length refused; a
 * threshold of keys of its role, and the digest that the head names.
 */
#include "common/snapshot/manifest.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/text.h"
#include "common/proto/strict.h"

#include "fixture.h"
#include "tests/support/cmocka.h"
#include "trilane/snapshot/v1/snapshot.pb-c.h"

static struct fx fx;
static struct fx_version v;

static int setup(void **state)
{
    (void)state;
    fx_init(&fx);
    fx_version_make(&fx, 7, 40, 0, &v);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fx_version_free(&v);
    fx_free(&fx);
    return 0;
}

static void comes_back_the_same(void **state)
{
    (void)state;
    assert_int_equal(v.manifest.version, 7);
    assert_int_equal(v.manifest.stream_count, FX_STREAMS);
    assert_int_equal(v.manifest.capabilities, CAPABILITY_TRAIT_CONDITIONS);
    for (size_t i = 0; i < FX_STREAMS; i++) {
        const struct manifest_stream *s = manifest_stream(&v.manifest, v.streams[i].kind);
        assert_non_null(s);
        assert_int_equal(s->raw_size, v.raw[i].size);
        assert_int_equal(s->chunk_count, v.streams[i].chunk_count);
        for (size_t k = 0; k < s->chunk_count; k++) {
            struct chunk_name name = manifest_chunk(s, k);
            assert_memory_equal(name.digest, v.streams[i].chunks[k].digest, DIGEST_SHORT_SIZE);
        }
    }
    assert_null(manifest_stream(&v.manifest, STREAM_BUS));
    uint8_t digest[DIGEST_SIZE];
    ids_digest(buf_slice(&v.body), digest);
    assert_memory_equal(v.manifest.digest, digest, DIGEST_SIZE);
}

/* Made by hand of docs/formats.md with another BLAKE2b; positions do not count. */
static void golden_content_digest(void **state)
{
    (void)state;
    struct cut_stream streams[3] = {
        {.kind = 1, .format = 1, .raw_size = 1000},
        {.kind = 4, .format = 1, .raw_size = 0x1122334455},
        {.kind = STREAM_POSITIONS, .format = 1, .raw_size = 77},
    };
    memset(streams[0].raw_digest, 0xaa, DIGEST_SIZE);
    memset(streams[1].raw_digest, 0xbb, DIGEST_SIZE);
    const struct manifest_plan plan = {
        .version = 9, .capabilities = 0x0102, .streams = streams, .stream_count = 3};
    uint8_t digest[DIGEST_SIZE];
    char hex[2 * DIGEST_SIZE + 1];
    manifest_plan_digest(&plan, digest);
    text_hex(slice_of(digest, DIGEST_SIZE), hex);
    assert_string_equal(hex, "982867f4f55bc2032792dfaae3f88150aee0a4b72dd854c822e64179ecf7a93c");
}

static struct err open_as(struct slice bytes, uint64_t version, const uint8_t *digest)
{
    const struct manifest_wanted wanted = {.version = version, .digest = digest};
    auto_manifest struct manifest m = {0};
    return manifest_open(bytes, &fx.root, &wanted, &m);
}

static void every_bit_counts(void **state)
{
    (void)state;
    struct buf *bytes = &v.container;
    EXPECT_OK(open_as(buf_slice(bytes), 7, v.manifest.digest));
    for (size_t bit = 0; bit < bytes->size * 8; bit++) {
        bytes->ptr[bit / 8] ^= (uint8_t)(1U << bit % 8);
        struct err e = open_as(buf_slice(bytes), 7, v.manifest.digest);
        bytes->ptr[bit / 8] ^= (uint8_t)(1U << bit % 8);
        assert_true(e.code == E_MANIFEST_MALFORMED || e.code == E_MANIFEST_MIXED ||
                    e.code == E_MANIFEST_UNSIGNED);
    }
    for (size_t size = 0; size < bytes->size; size++) {
        EXPECT(open_as(slice_head(buf_slice(bytes), size), 7, v.manifest.digest),
               E_MANIFEST_MALFORMED);
    }
}

static void is_the_one_that_the_head_names(void **state)
{
    (void)state;
    uint8_t other[DIGEST_SIZE] = {1};
    EXPECT(open_as(buf_slice(&v.container), 7, other), E_MANIFEST_MIXED);
    EXPECT(open_as(buf_slice(&v.container), 8, v.manifest.digest), E_MANIFEST_MIXED);
    auto_buf struct buf bytes = BUF_MAX(1 << 20);
    const struct key_pair *one[] = {&fx.manifests[0], &fx.heads[0]};
    fx_seal(CONTAINER_MANIFEST, "test", buf_slice(&v.body), one, 1, &bytes);
    EXPECT(open_as(buf_slice(&bytes), 7, v.manifest.digest), E_MANIFEST_UNSIGNED);
    buf_clear(&bytes);
    fx_seal(CONTAINER_MANIFEST, "test", buf_slice(&v.body), one, 2, &bytes);
    EXPECT(open_as(buf_slice(&bytes), 7, v.manifest.digest), E_MANIFEST_WRONG_KEY);
    buf_clear(&bytes);
    const struct key_pair *two[] = {&fx.manifests[2], &fx.manifests[0]};
    fx_seal(CONTAINER_MANIFEST, "other", buf_slice(&v.body), two, 2, &bytes);
    EXPECT(open_as(buf_slice(&bytes), 7, v.manifest.digest), E_MANIFEST_MIXED);
    buf_clear(&bytes);
    fx_seal(CONTAINER_MANIFEST, "test", buf_slice(&v.body), two, 2, &bytes);
    EXPECT_OK(open_as(buf_slice(&bytes), 7, v.manifest.digest)); /* signed again: the same. */
}

static void capabilities_are_asked(void **state)
{
    (void)state;
    struct manifest m = v.manifest;
    EXPECT_OK(manifest_check_capabilities(&m, CAPABILITIES_HERE));
    EXPECT(manifest_check_capabilities(&m, 0), E_CAPABILITY_MISSING);
    m.capabilities = 1ULL << 63;
    EXPECT(manifest_check_capabilities(&m, CAPABILITIES_HERE), E_CAPABILITY_MISSING);
    m.capabilities = 0;
    uint32_t format = m.streams[0].format;
    m.streams[0].format = stream_format(m.streams[0].kind, SNAPSHOT_FORMAT) + 1;
    EXPECT(manifest_check_capabilities(&m, CAPABILITIES_HERE), E_CAPABILITY_MISSING);
    m.streams[0].format = format;
    m.streams[0].kind = 14;
    EXPECT(manifest_check_capabilities(&m, CAPABILITIES_HERE), E_CAPABILITY_MISSING);
}

/* A manifest of one stream of trust and one of routing. */
static struct manifest two_streams(uint32_t routing, uint32_t trust)
{
    struct manifest m = {.stream_count = 2};
    m.streams[0] = (struct manifest_stream){.kind = STREAM_ROUTING, .format = routing};
    m.streams[1] = (struct manifest_stream){.kind = STREAM_TRUST, .format = trust};
    return m;
}

static void formats_are_n_and_n_less_one(void **state)
{
    (void)state;
    struct manifest present = two_streams(1, TRUST_FORMAT_BY_KEY);
    struct manifest former = two_streams(1, 1);
    struct manifest other = two_streams(2, 1);
    struct manifest newer = two_streams(1, TRUST_FORMAT_BY_KEY + 1);
    EXPECT_OK(manifest_check_capabilities(&present, 0));
    EXPECT_OK(manifest_check_capabilities(&former, 0));
    EXPECT(manifest_check_capabilities(&other, 0), E_CAPABILITY_MISSING);
    EXPECT(manifest_check_capabilities(&newer, 0), E_CAPABILITY_MISSING);
    assert_int_equal(manifest_format(&present), SNAPSHOT_FORMAT);
    assert_int_equal(manifest_format(&former), SNAPSHOT_FORMAT_LEAST);
    assert_int_equal(manifest_format(&other), 0);
    assert_int_equal(manifest_format(&newer), 0);
    assert_int_equal(stream_format(STREAM_TRUST, SNAPSHOT_FORMAT + 1), 0);
    assert_int_equal(stream_format(STREAM_POSITIONS + 1, SNAPSHOT_FORMAT), 0);
}

/* ---- bounds of the body ---- */

typedef Trilane__Snapshot__V1__Manifest message;

/* Decodes the fixture's body, hands the message to 'change', encodes and judges it. */
static struct err judge_changed(void (*change)(message *m))
{
    const struct proto_rules rules = {
        .memory_max = 1 << 20, .malformed = E_MALFORMED, .unknown = E_MALFORMED};
    auto_proto ProtobufCMessage *m = NULL;
    auto_buf struct buf body = BUF_MAX(1 << 20);
    auto_manifest struct manifest got = {0};
    EXPECT_OK(
        proto_decode(&trilane__snapshot__v1__manifest__descriptor, buf_slice(&v.body), &rules, &m));
    change((message *)m);
    EXPECT_OK(proto_encode(m, &body));
    return manifest_decode(buf_slice(&body), &got);
}

static void nothing(message *m)
{
    (void)m;
}
static void version_zero(message *m)
{
    m->version = 0;
}
static void time_below_zero(message *m)
{
    m->made_at_ms = -1;
}
static void other_content(message *m)
{
    m->content_digest.data[0] ^= 1;
}
static void short_content(message *m)
{
    m->content_digest.len--;
}
static void other_capabilities(message *m)
{
    m->capabilities ^= 1; /* the content digest holds them, too. */
}
static void kinds_swapped(message *m)
{
    Trilane__Snapshot__V1__Stream *first = m->streams[0];
    m->streams[0] = m->streams[1];
    m->streams[1] = first;
}
static void kind_zero(message *m)
{
    m->streams[0]->kind = 0;
}
static void format_zero(message *m)
{
    m->streams[0]->format = 0;
}
static void raw_size_other(message *m)
{
    m->streams[0]->raw_size++;
}
static void raw_digest_short(message *m)
{
    m->streams[0]->raw_digest.len--;
}
static void digest_lost(message *m)
{
    m->streams[0]->chunk_digests.len -= DIGEST_SHORT_SIZE;
}
static void digest_cut(message *m)
{
    m->streams[0]->chunk_digests.len--;
}
static void stored_lost(message *m)
{
    m->streams[0]->n_stored_sizes--;
}
static void raw_lost(message *m)
{
    m->streams[0]->n_raw_sizes--;
}
static void stored_larger(message *m)
{
    m->streams[0]->stored_sizes[0] = m->streams[0]->raw_sizes[0] + 1;
}
static void stored_zero(message *m)
{
    m->streams[0]->stored_sizes[0] = 0;
}
static void raw_past_the_bound(message *m)
{
    m->streams[0]->raw_size += CHUNK_RAW_MAX + 1 - m->streams[0]->raw_sizes[0];
    m->streams[0]->raw_sizes[0] = CHUNK_RAW_MAX + 1;
}
static void raw_wraps(message *m)
{
    m->streams[0]->raw_sizes[0] = UINT32_MAX;
}

static void each_bound(void **state)
{
    (void)state;
    void (*const changes[])(message *) = {
        version_zero,  time_below_zero,    other_content, short_content,  other_capabilities,
        kinds_swapped, kind_zero,          format_zero,   raw_size_other, raw_digest_short,
        digest_lost,   digest_cut,         stored_lost,   raw_lost,       stored_larger,
        stored_zero,   raw_past_the_bound, raw_wraps,
    };
    EXPECT_OK(judge_changed(nothing));
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        EXPECT(judge_changed(changes[i]), E_MANIFEST_MALFORMED);
    }
}

static void unknown_fields_ask_for_a_capability(void **state)
{
    (void)state;
    static const uint8_t unknown[] = {0x30, 0x01}; /* field 6 */
    static const uint8_t ignorable[] = {0xa0, 0x06, 0x01};
    auto_buf struct buf body = BUF_MAX(1 << 20);
    auto_manifest struct manifest m = {0};
    EXPECT_OK(buf_add(&body, buf_slice(&v.body)));
    EXPECT_OK(buf_add(&body, slice_of(ignorable, sizeof(ignorable))));
    EXPECT_OK(manifest_decode(buf_slice(&body), &m));
    buf_clear(&body);
    EXPECT_OK(buf_add(&body, buf_slice(&v.body)));
    EXPECT_OK(buf_add(&body, slice_of(unknown, sizeof(unknown))));
    struct manifest none = {0};
    EXPECT(manifest_decode(buf_slice(&body), &none), E_CAPABILITY_MISSING);
}

/* 64 streams pass, 65 do not; raw bytes up to 256 MiB in all, not one more. */
static void sums_are_bounded(void **state)
{
    (void)state;
    static struct cut_stream streams[STREAMS_MAX + 1];
    static struct cut_chunk chunk = {.raw = {NULL, 1}, .stored = {NULL, 1}};
    for (uint32_t i = 0; i < STREAMS_MAX + 1; i++) {
        streams[i] = (struct cut_stream){
            .kind = i + 1, .format = 1, .raw_size = 1, .chunks = &chunk, .chunk_count = 1};
    }
    struct manifest_plan plan = {.version = 1, .streams = streams, .stream_count = STREAMS_MAX};
    auto_buf struct buf body = BUF_MAX(MANIFEST_BODY_MAX);
    EXPECT_OK(manifest_encode(&plan, &body));
    plan.stream_count++;
    EXPECT(manifest_encode(&plan, &body), E_USAGE);

    size_t count = STREAM_RAW_MAX / CHUNK_RAW_MAX;
    struct cut_chunk *full = calloc(count + 1, sizeof(*full));
    assert_non_null(full);
    for (size_t i = 0; i < count + 1; i++) {
        size_t size = i < count ? CHUNK_RAW_MAX : 1;
        full[i] = (struct cut_chunk){.raw = {NULL, size}, .stored = {NULL, 1}};
    }
    streams[0] = (struct cut_stream){
        .kind = 1, .format = 1, .raw_size = STREAM_RAW_MAX, .chunks = full, .chunk_count = count};
    plan.stream_count = 1;
    EXPECT_OK(manifest_encode(&plan, &body));
    streams[0].raw_size++;
    streams[0].chunk_count++;
    EXPECT(manifest_encode(&plan, &body), E_USAGE);
    free(full);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(comes_back_the_same),
        cmocka_unit_test(golden_content_digest),
        cmocka_unit_test(every_bit_counts),
        cmocka_unit_test(is_the_one_that_the_head_names),
        cmocka_unit_test(capabilities_are_asked),
        cmocka_unit_test(formats_are_n_and_n_less_one),
        cmocka_unit_test(each_bound),
        cmocka_unit_test(unknown_fields_ask_for_a_capability),
        cmocka_unit_test(sums_are_bounded),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
