/*
 * cut: the rule by a second writing of it and by golden bytes; one changed part changes few
 * chunks; a chunk opens only as what it was named, and never to more than it declares.
 */
#include "common/snapshot/cut.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>
#include <zstd.h>

#include "common/base/text.h"
#include "common/snapshot/parts.h"

#include "fixture.h"
#include "tests/support/cmocka.h"

/* A stream whose parts have these sizes; the keys are "k/00000" and so on. */
static void stream_of(const size_t *sizes, size_t count, struct buf *out)
{
    char(*keys)[32] = calloc(count + 1, sizeof(*keys));
    struct part_writer w = {.out = out};
    assert_non_null(keys);
    for (size_t i = 0; i < count; i++) {
        uint8_t *bytes = malloc(sizes[i] + 1);
        uint32_t state = (uint32_t)i + 1;
        assert_non_null(bytes);
        for (size_t k = 0; k < sizes[i]; k++) {
            state = state * 1664525 + 1013904223;
            bytes[k] = (uint8_t)(state >> 24);
        }
        (void)snprintf(keys[i], sizeof(keys[i]), "k/%05zu", i);
        EXPECT_OK(part_add(&w, slice_str(keys[i]), slice_of(bytes, sizes[i])));
        free(bytes);
    }
    free(keys);
}

/* The rule once more, written from the words of docs/formats.md over whole lists. */
static size_t expected_cut(uint32_t kind, struct slice raw, size_t *ends, size_t max)
{
    size_t n = 0;
    size_t at = 0;
    size_t start = 0;
    while (at < raw.size) {
        uint8_t hashed[64];
        size_t key_size = (size_t)raw.ptr[at] | (size_t)raw.ptr[at + 1] << 8;
        size_t size = 0;
        for (size_t i = 0; i < 4; i++) {
            size |= (size_t)raw.ptr[at + 2 + i] << (8 * i);
        }
        size_t whole = 6 + key_size + size;
        assert_true(n + 70 < max && key_size + 4 <= sizeof(hashed));
        if (at > start && at - start + whole > 262144) {
            ends[n++] = at;
            start = at;
        }
        if (whole > 262144) {
            for (size_t piece = 262144; piece < whole; piece += 262144) {
                ends[n++] = at + piece;
            }
            at += whole;
            ends[n++] = at;
            start = at;
            continue;
        }
        for (size_t i = 0; i < 4; i++) {
            hashed[i] = (uint8_t)(kind >> (8 * i));
        }
        memcpy(hashed + 4, raw.ptr + at + 6, key_size);
        at += whole;
        if (at - start >= 8192 && XXH3_64bits(hashed, key_size + 4) % 24576 < whole) {
            ends[n++] = at;
            start = at;
        }
    }
    if (start < at) {
        ends[n++] = at;
    }
    return n;
}

static void expect_cut(const size_t *sizes, size_t count)
{
    static size_t ends[4096];
    auto_buf struct buf raw = BUF_MAX(64 << 20);
    struct cut_stream s;
    stream_of(sizes, count, &raw);
    EXPECT_OK(cut_stream(STREAM_LIMITS, buf_slice(&raw), /* options= */ NULL, &s));
    size_t n = expected_cut(STREAM_LIMITS, buf_slice(&raw), ends, 4096);
    assert_int_equal(s.chunk_count, n);
    size_t start = 0;
    for (size_t i = 0; i < n; i++) {
        assert_ptr_equal(s.chunks[i].raw.ptr, raw.ptr + start);
        assert_int_equal(s.chunks[i].raw.size, ends[i] - start);
        assert_true(s.chunks[i].raw.size <= CHUNK_RAW_MAX);
        start = ends[i];
    }
    cut_stream_free(&s);
}

static void follows_the_rule(void **state)
{
    (void)state;
    const size_t head = PART_HEADER_SIZE + 7; /* of a part with our keys. */
    const size_t max = CHUNK_RAW_MAX - head;
    expect_cut(NULL, 0);
    expect_cut((size_t[]){0}, 1);
    expect_cut((size_t[]){max}, 1);     /* a chunk to its last byte. */
    expect_cut((size_t[]){max + 1}, 1); /* one more: two pieces. */
    expect_cut((size_t[]){max, 0, max, 1}, 4);
    expect_cut((size_t[]){10, max + 1, 10, 2 * CHUNK_RAW_MAX - head, 10}, 5);
    expect_cut((size_t[]){3 * CHUNK_RAW_MAX, 3 * CHUNK_RAW_MAX + 5}, 2);
    expect_cut((size_t[]){CHUNK_CUT_MIN - head - 1, 0, 0}, 3);
    static size_t many[3000];
    for (unsigned seed = 1; seed < 6; seed++) {
        for (size_t i = 0; i < 3000; i++) {
            many[i] = (i * 2654435761U * seed >> 7) % (i % 50 == 0 ? 20000 : 700);
        }
        expect_cut(many, 3000);
    }
}

/* The same bytes on every replica and for good: changed by nothing but a new format number. */
static void golden(void **state)
{
    (void)state;
    static const char raw_digest[] =
        "1fd1614cb0d379163730fc6237a5256ae0ef277e5f0db142a2150a32b196be39";
    size_t sizes[200];
    char hex[2 * DIGEST_SIZE + 1];
    auto_buf struct buf raw = BUF_MAX(1 << 20);
    struct cut_stream s;
    for (size_t i = 0; i < 200; i++) {
        sizes[i] = 100 + i * 7 % 900;
    }
    stream_of(sizes, 200, &raw);
    EXPECT_OK(cut_stream(STREAM_LIMITS, buf_slice(&raw), /* options= */ NULL, &s));
    text_hex(slice_of(s.raw_digest, DIGEST_SIZE), hex);
    assert_string_equal(hex, raw_digest);
    cut_stream_free(&s);
}

static void a_change_changes_few_chunks(void **state)
{
    (void)state;
    struct fx fx;
    struct fx_version a;
    struct fx_version b;
    fx_init(&fx);
    fx_version_make(&fx, 1, 2000, 2000, &a);
    fx_version_make(&fx, 2, 2000, 1000, &b); /* part 1000 differs in each stream. */
    size_t changed = 0;
    for (size_t i = 0; i < a.streams[0].chunk_count; i++) {
        bool found = false;
        for (size_t k = 0; k < b.streams[0].chunk_count && !found; k++) {
            found = memcmp(a.streams[0].chunks[i].digest, b.streams[0].chunks[k].digest,
                           DIGEST_SHORT_SIZE) == 0;
        }
        changed += found ? 0 : 1;
    }
    assert_true(a.streams[0].chunk_count > 20);
    assert_int_equal(changed, 1);
    fx_version_free(&a);
    fx_version_free(&b);
    fx_free(&fx);
}

static bool known_all(void *context, const uint8_t raw_digest[DIGEST_SIZE], struct slice *stored)
{
    const struct cut_stream *s = context;
    for (size_t i = 0; i < s->chunk_count; i++) {
        if (memcmp(s->chunks[i].raw_digest, raw_digest, DIGEST_SIZE) == 0) {
            *stored = s->chunks[i].stored;
            return true;
        }
    }
    return false;
}

static void known_chunks_keep_their_stored_bytes(void **state)
{
    (void)state;
    size_t sizes[300];
    auto_buf struct buf raw = BUF_MAX(1 << 20);
    struct cut_stream first;
    struct cut_stream again;
    for (size_t i = 0; i < 300; i++) {
        sizes[i] = 300;
    }
    stream_of(sizes, 300, &raw);
    EXPECT_OK(cut_stream(STREAM_BUS, buf_slice(&raw), /* options= */ NULL, &first));
    const struct cut_options options = {.known = known_all, .context = &first};
    EXPECT_OK(cut_stream(STREAM_BUS, buf_slice(&raw), &options, &again));
    for (size_t i = 0; i < first.chunk_count; i++) {
        assert_ptr_equal(again.chunks[i].stored.ptr, first.chunks[i].stored.ptr);
        assert_memory_equal(again.chunks[i].digest, first.chunks[i].digest, DIGEST_SHORT_SIZE);
    }
    cut_stream_free(&again);
    cut_stream_free(&first);
}

struct look {
    const struct cut_stream *first;
    size_t looks;
    struct err answer;
};

static struct err look_at_all(void *context, struct slice raw_digests)
{
    struct look *look = context;
    look->looks++;
    assert_int_equal(raw_digests.size, look->first->chunk_count * DIGEST_SIZE);
    for (size_t i = 0; i < look->first->chunk_count; i++) {
        assert_memory_equal(raw_digests.ptr + i * DIGEST_SIZE, look->first->chunks[i].raw_digest,
                            DIGEST_SIZE);
    }
    return look->answer;
}

static bool asked_after_the_look(void *context, const uint8_t raw_digest[DIGEST_SIZE],
                                 struct slice *stored)
{
    const struct look *look = context;
    (void)raw_digest;
    (void)stored;
    assert_int_equal(look->looks, 1);
    return false;
}

static void all_chunks_are_looked_for_at_once(void **state)
{
    (void)state;
    size_t sizes[300];
    auto_buf struct buf raw = BUF_MAX(1 << 20);
    struct cut_stream first;
    struct cut_stream again = {0};
    for (size_t i = 0; i < 300; i++) {
        sizes[i] = 300;
    }
    stream_of(sizes, 300, &raw);
    EXPECT_OK(cut_stream(STREAM_BUS, buf_slice(&raw), /* options= */ NULL, &first));
    struct look look = {.first = &first};
    const struct cut_options options = {
        .known = asked_after_the_look, .look = look_at_all, .context = &look, .before = &first};
    EXPECT_OK(cut_stream(STREAM_BUS, buf_slice(&raw), &options, &again));
    assert_int_equal(look.looks, 1);
    cut_stream_free(&again);
    look = (struct look){.first = &first, .answer = FAIL(E_UNAVAILABLE)};
    assert_int_equal(cut_stream(STREAM_BUS, buf_slice(&raw), &options, &again).code, E_UNAVAILABLE);
    cut_stream_free(&first);
}

static void expect_same_stream(const struct cut_stream *a, const struct cut_stream *b)
{
    assert_int_equal(a->chunk_count, b->chunk_count);
    assert_memory_equal(a->raw_digest, b->raw_digest, DIGEST_SIZE);
    for (size_t i = 0; i < a->chunk_count; i++) {
        assert_true(slice_eq(a->chunks[i].raw, b->chunks[i].raw));
        assert_true(slice_eq(a->chunks[i].stored, b->chunks[i].stored));
        assert_memory_equal(a->chunks[i].raw_digest, b->chunks[i].raw_digest, DIGEST_SIZE);
        assert_memory_equal(a->chunks[i].digest, b->chunks[i].digest, DIGEST_SHORT_SIZE);
    }
}

/* With another version beside it the cut is the same; what is stored, is stored as that one does.
 * The other version may go. */
static void what_another_version_holds_is_taken_over(void **state)
{
    (void)state;
    enum { PARTS = 600, EDITED = 300, LARGE = 400 };
    size_t sizes[PARTS];
    auto_buf struct buf raw = BUF_MAX(4 << 20);
    auto_buf struct buf edited = BUF_MAX(4 << 20);
    struct cut_stream before;
    struct cut_stream fresh;
    struct cut_stream taken;
    for (size_t i = 0; i < PARTS; i++) {
        sizes[i] = i == LARGE ? 600000 : 300 + i % 50; /* one spans chunks. */
    }
    stream_of(sizes, PARTS, &raw);
    sizes[EDITED] += 7;
    stream_of(sizes, PARTS, &edited);
    EXPECT_OK(cut_stream(STREAM_BUS, buf_slice(&raw), /* options= */ NULL, &before));
    EXPECT_OK(cut_stream(STREAM_BUS, buf_slice(&edited), /* options= */ NULL, &fresh));
    struct cut_chunk *marked = &before.chunks[0];
    marked->digest[0] ^= 0xff; /* shows that the digest was not made anew. */
    const struct cut_options options = {.before = &before};
    EXPECT_OK(cut_stream(STREAM_BUS, buf_slice(&edited), &options, &taken));
    assert_memory_equal(taken.chunks[0].digest, marked->digest, DIGEST_SHORT_SIZE);
    taken.chunks[0].digest[0] ^= 0xff;
    cut_stream_free(&before);
    buf_free(&raw);
    expect_same_stream(&fresh, &taken);
    cut_stream_free(&taken);
    cut_stream_free(&fresh);
}

static void bad_streams_are_not_cut(void **state)
{
    (void)state;
    static const uint8_t doubled[] = {1, 0, 0, 0, 0, 0, 'a', 1, 0, 0, 0, 0, 0, 'a'};
    static const uint8_t backwards[] = {1, 0, 0, 0, 0, 0, 'b', 1, 0, 0, 0, 0, 0, 'a'};
    static const uint8_t no_key[] = {0, 0, 0, 0, 0, 0};
    struct cut_stream s;
    EXPECT(cut_stream(1, slice_of(doubled, 14), /* options= */ NULL, &s), E_PART_MALFORMED);
    EXPECT(cut_stream(1, slice_of(backwards, 14), /* options= */ NULL, &s), E_PART_MALFORMED);
    EXPECT(cut_stream(1, slice_of(no_key, 6), /* options= */ NULL, &s), E_PART_MALFORMED);
    for (size_t size = 1; size < 14; size++) {
        EXPECT(cut_stream(1, slice_of(doubled, size), /* options= */ NULL, &s),
               size == 7 ? E_OK : E_PART_MALFORMED);
        if (size == 7) {
            cut_stream_free(&s);
        }
    }
    static const uint8_t huge[] = {1, 0, 1, 0, 0, 1, 'a'}; /* a part of 16 MiB and one byte. */
    EXPECT(cut_stream(1, slice_of(huge, 7), /* options= */ NULL, &s), E_PART_MALFORMED);
}

/* ---- opening ---- */

static struct chunk_name name_of(struct slice stored, size_t raw_size)
{
    struct chunk_name name = {.stored_size = (uint32_t)stored.size, .raw_size = (uint32_t)raw_size};
    ids_digest_short(stored, name.digest);
    return name;
}

static struct err open_chunk(struct slice stored, const struct chunk_name *name)
{
    uint8_t digest[DIGEST_SIZE];
    uint8_t *out = malloc(name->raw_size); /* of exactly its size: ASan sees one byte more. */
    assert_non_null(out);
    struct err e = chunk_open(stored, name, out, digest);
    free(out);
    return e;
}

static void a_chunk_is_what_it_is_named(void **state)
{
    (void)state;
    size_t sizes[20];
    auto_buf struct buf raw = BUF_MAX(1 << 20);
    struct cut_stream s;
    for (size_t i = 0; i < 20; i++) {
        sizes[i] = 40;
    }
    stream_of(sizes, 20, &raw);
    EXPECT_OK(cut_stream(STREAM_BUS, buf_slice(&raw), /* options= */ NULL, &s));
    const struct cut_chunk *c = &s.chunks[0];
    struct chunk_name name = name_of(c->stored, c->raw.size);
    EXPECT_OK(open_chunk(c->stored, &name));
    uint8_t *copy = malloc(c->stored.size);
    assert_non_null(copy);
    memcpy(copy, c->stored.ptr, c->stored.size);
    for (size_t bit = 0; bit < c->stored.size * 8; bit++) {
        copy[bit / 8] ^= (uint8_t)(1U << bit % 8);
        EXPECT(open_chunk(slice_of(copy, c->stored.size), &name), E_CHUNK_TAMPERED);
        copy[bit / 8] ^= (uint8_t)(1U << bit % 8);
    }
    for (size_t size = 0; size < c->stored.size; size++) {
        EXPECT(open_chunk(slice_of(copy, size), &name), E_CHUNK_TAMPERED);
    }
    free(copy);
    cut_stream_free(&s);
}

static void a_bomb_does_not_go_off(void **state)
{
    (void)state;
    size_t size = 100 << 20;
    uint8_t *zeros = calloc(1, size);
    uint8_t packed[65536];
    assert_non_null(zeros);
    size_t stored = ZSTD_compress(packed, sizeof(packed), zeros, size, 3);
    assert_false(ZSTD_isError(stored));
    struct chunk_name name = name_of(slice_of(packed, stored), CHUNK_RAW_MAX);
    EXPECT(open_chunk(slice_of(packed, stored), &name), E_CHUNK_BOMB);
    name.raw_size = (uint32_t)stored + 1;
    EXPECT(open_chunk(slice_of(packed, stored), &name), E_CHUNK_BOMB);
    /* Less than declared, and no zstd at all, are tampering. */
    stored = ZSTD_compress(packed, sizeof(packed), zeros, 1000, 3);
    name = name_of(slice_of(packed, stored), 1001);
    EXPECT(open_chunk(slice_of(packed, stored), &name), E_CHUNK_TAMPERED);
    name = name_of(slice_of(packed, stored), 999);
    EXPECT(open_chunk(slice_of(packed, stored), &name), E_CHUNK_BOMB);
    name = name_of(SLICE_LIT("not zstd"), 9);
    EXPECT(open_chunk(SLICE_LIT("not zstd"), &name), E_CHUNK_TAMPERED);
    free(zeros);
}

int main(void)
{
    ids_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_the_rule),
        cmocka_unit_test(golden),
        cmocka_unit_test(a_change_changes_few_chunks),
        cmocka_unit_test(known_chunks_keep_their_stored_bytes),
        cmocka_unit_test(all_chunks_are_looked_for_at_once),
        cmocka_unit_test(what_another_version_holds_is_taken_over),
        cmocka_unit_test(bad_streams_are_not_cut),
        cmocka_unit_test(a_chunk_is_what_it_is_named),
        cmocka_unit_test(a_bomb_does_not_go_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
