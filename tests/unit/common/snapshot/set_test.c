/*
 * set: only verified chunks get in; parts come out in order; what did not change is taken over and
 * said to be kept; what is out of order, cut wrongly or swapped is refused.
 */
#include "common/snapshot/set.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fixture.h"
#include "tests/support/cmocka.h"

static struct fx fx;

static int setup(void **state)
{
    (void)state;
    fx_init(&fx);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fx_free(&fx);
    return 0;
}

static void unchanged_chunks_are_taken_over(void **state)
{
    (void)state;
    struct fx_version a;
    struct fx_version b;
    fx_version_make(&fx, 1, 1000, 1000, &a);
    fx_version_make(&fx, 2, 1000, 500, &b);
    struct snap_set *first = fx_set(&a, NULL);
    assert_int_equal(snap_set_counts(first).chunks_kept, 0);
    struct snap_set *second = fx_set(&b, first);
    struct snap_set_counts counts = snap_set_counts(second);
    assert_true(counts.chunks > 40);
    assert_int_equal(counts.chunks - counts.chunks_kept, FX_STREAMS - 1); /* one a stream. */
    snap_set_unref(first); /* what was taken over lives on. */
    struct snap_cursor at = {0};
    struct snap_part p;
    size_t parts = 0;
    size_t built = 0;
    while (snap_set_next(second, STREAM_ROUTING, &at, &p)) {
        char key[32];
        (void)snprintf(key, sizeof(key), "part/%06zu", parts);
        assert_true(slice_eq(p.key, slice_str(key)));
        assert_true(p.kept || (parts > 300 && parts < 700));
        built += p.kept ? 0 : 1;
        parts++;
    }
    assert_int_equal(parts, 1000);
    assert_in_range(built, 1, 300);
    snap_set_unref(second);
    fx_version_free(&a);
    fx_version_free(&b);
}

static void finds_each_part(void **state)
{
    (void)state;
    struct fx_version v;
    fx_version_make(&fx, 1, 700, 0, &v);
    struct snap_set *set = fx_set(&v, NULL);
    struct snap_part p;
    for (unsigned i = 0; i < 700; i++) {
        char key[32];
        (void)snprintf(key, sizeof(key), "part/%06u", i);
        assert_true(snap_set_find(set, STREAM_TRUST, slice_str(key), &p));
        assert_true(slice_eq(p.key, slice_str(key)));
        (void)snprintf(key, sizeof(key), "part/%06ux", i);
        assert_false(snap_set_find(set, STREAM_TRUST, slice_str(key), &p));
    }
    assert_false(snap_set_find(set, STREAM_TRUST, slice_str("a"), &p));
    assert_false(snap_set_find(set, STREAM_TRUST, slice_str("z"), &p));
    assert_false(snap_set_find(set, STREAM_BUS, slice_str("part/000001"), &p));
    snap_set_unref(set);
    fx_version_free(&v);
}

static void a_missing_chunk_is_missed(void **state)
{
    (void)state;
    struct fx_version v;
    struct snap_set *set = NULL;
    struct snap_missing missing;
    size_t at = 0;
    fx_version_make(&fx, 1, 300, 0, &v);
    EXPECT_OK(snap_set_new(&v.manifest, NULL, &set));
    assert_true(snap_set_missing(set, &at, &missing));
    struct chunk_name first = missing.name;
    while (snap_set_missing(set, &at, &missing)) {
        EXPECT_OK(snap_set_add(set, &missing.name, fx_stored(&v, missing.name.digest)));
        /* Another chunk's bytes under this name. */
        EXPECT(snap_set_add(set, &first, fx_stored(&v, missing.name.digest)), E_CHUNK_TAMPERED);
    }
    const struct chunk_name stranger = {.digest = {9}, .stored_size = 1, .raw_size = 1};
    EXPECT(snap_set_add(set, &stranger, SLICE_LIT("x")), E_CHUNK_TAMPERED);
    EXPECT(snap_set_close(set), E_CHUNK_MISSING);
    snap_set_unref(set);
    fx_version_free(&v);
}

/* ---- streams that a publisher should not have made ---- */

/* Chunks as given, not as cut. */
struct hand {
    struct slice pieces[8];
    size_t count;
};

static struct err close_hand_made(const struct hand *hand, bool swap_digests)
{
    struct manifest m = {.version = 1, .stream_count = 1};
    uint8_t digests[8 * DIGEST_SHORT_SIZE];
    uint8_t raw_digests[8 * DIGEST_SIZE];
    uint32_t sizes[8];
    struct manifest_stream *s = &m.streams[0];
    for (size_t i = 0; i < hand->count; i++) {
        ids_digest_short(hand->pieces[i], digests + i * DIGEST_SHORT_SIZE);
        size_t to = swap_digests ? hand->count - 1 - i : i;
        ids_digest(hand->pieces[i], raw_digests + to * DIGEST_SIZE);
        sizes[i] = (uint32_t)hand->pieces[i].size;
        s->raw_size += sizes[i];
    }
    s->kind = STREAM_LIMITS;
    s->chunk_count = hand->count;
    s->chunk_digests = digests;
    s->stored_sizes = sizes;
    s->raw_sizes = sizes;
    cut_raw_digest(raw_digests, hand->count, s->raw_digest);
    struct snap_set *set = NULL;
    EXPECT_OK(snap_set_new(&m, NULL, &set));
    for (size_t i = 0; i < hand->count; i++) {
        struct chunk_name name = manifest_chunk(s, i);
        EXPECT_OK(snap_set_add(set, &name, hand->pieces[i]));
    }
    struct err e = snap_set_close(set);
    snap_set_unref(set);
    return e;
}

#define A SLICE_LIT("\1\0\0\0\0\0a")
#define B SLICE_LIT("\1\0\1\0\0\0bB")
#define C SLICE_LIT("\1\0\0\0\0\0c")

static void wrong_streams_are_refused(void **state)
{
    (void)state;
    EXPECT_OK(close_hand_made(&(struct hand){{A, B, C}, 3}, false));
    EXPECT(close_hand_made(&(struct hand){{A, B, C}, 3}, true), E_CHUNK_TAMPERED);
    EXPECT(close_hand_made(&(struct hand){{B, A}, 2}, false), E_PART_MALFORMED);
    EXPECT(close_hand_made(&(struct hand){{A, A}, 2}, false), E_PART_MALFORMED);
    EXPECT(close_hand_made(&(struct hand){{slice_head(B, 7), slice_from(B, 7)}, 2}, false),
           E_PART_MALFORMED); /* a part that spans chunks without need. */
    EXPECT(close_hand_made(&(struct hand){{SLICE_LIT("\1\0\1\0\0\0b")}, 1}, false),
           E_PART_MALFORMED);
    EXPECT(close_hand_made(&(struct hand){{SLICE_LIT("\1\0")}, 1}, false), E_PART_MALFORMED);
}

/* A part of two and a half chunks, its neighbours on both sides. */
static void a_large_part_comes_in_one_piece(void **state)
{
    (void)state;
    enum { LARGE = 2 * CHUNK_RAW_MAX + 12345 };
    uint8_t *bytes = malloc(LARGE);
    assert_non_null(bytes);
    for (size_t i = 0; i < LARGE; i++) {
        bytes[i] = (uint8_t)(i * 2654435761U >> 13);
    }
    auto_buf struct buf raw = BUF_MAX(4 << 20);
    struct part_writer w = {.out = &raw};
    EXPECT_OK(part_add(&w, slice_str("a"), slice_str("small")));
    EXPECT_OK(part_add(&w, slice_str("b"), slice_of(bytes, LARGE)));
    EXPECT_OK(part_add(&w, slice_str("c"), slice_str("small")));
    struct cut_stream cut;
    EXPECT_OK(cut_stream(STREAM_SCHEMAS, buf_slice(&raw), /* options= */ NULL, &cut));
    assert_int_equal(cut.chunk_count, 5);
    const struct manifest_plan plan = {.version = 1, .streams = &cut, .stream_count = 1};
    auto_buf struct buf body = BUF_MAX(MANIFEST_BODY_MAX);
    auto_manifest struct manifest m = {0};
    EXPECT_OK(manifest_encode(&plan, &body));
    EXPECT_OK(manifest_decode(buf_slice(&body), &m));
    struct snap_set *sets[2] = {NULL, NULL};
    for (size_t n = 0; n < 2; n++) {
        EXPECT_OK(snap_set_new(&m, n == 0 ? NULL : sets[0], &sets[n]));
        for (size_t i = 0; i < cut.chunk_count; i++) {
            struct chunk_name name = manifest_chunk(&m.streams[0], i);
            EXPECT_OK(snap_set_add(sets[n], &name, cut.chunks[i].stored));
        }
        EXPECT_OK(snap_set_close(sets[n]));
    }
    struct snap_part p;
    assert_true(snap_set_find(sets[1], STREAM_SCHEMAS, slice_str("b"), &p));
    assert_true(slice_eq(p.bytes, slice_of(bytes, LARGE)));
    assert_false(p.kept); /* pieces alone do not say that the whole is the same. */
    assert_true(snap_set_find(sets[1], STREAM_SCHEMAS, slice_str("c"), &p));
    assert_true(p.kept && p.chunk == 4);
    /* Without its end. */
    struct hand hand = {.count = 3};
    for (size_t i = 0; i < 3; i++) {
        hand.pieces[i] = cut.chunks[i].raw;
    }
    EXPECT(close_hand_made(&hand, false), E_PART_MALFORMED);
    snap_set_unref(sets[0]);
    snap_set_unref(sets[1]);
    cut_stream_free(&cut);
    free(bytes);
}

static void positions_come_apart(void **state)
{
    (void)state;
    struct fx_version v;
    struct snap_set *set = NULL;
    struct snap_missing missing;
    struct snap_cursor cursor = {0};
    struct snap_part p;
    size_t at = 0;
    fx_version_make(&fx, 1, 20, 0, &v);
    EXPECT_OK(snap_set_new_positions(&v.manifest, NULL, &set));
    while (snap_set_missing(set, &at, &missing)) {
        assert_int_equal(missing.kind, STREAM_POSITIONS);
        EXPECT_OK(snap_set_add(set, &missing.name, fx_stored(&v, missing.name.digest)));
    }
    EXPECT_OK(snap_set_close(set));
    assert_true(snap_set_next(set, STREAM_POSITIONS, &cursor, &p));
    snap_set_unref(set);
    set = fx_set(&v, NULL);
    cursor = (struct snap_cursor){0};
    assert_false(snap_set_next(set, STREAM_POSITIONS, &cursor, &p));
    snap_set_unref(set);
    fx_version_free(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unchanged_chunks_are_taken_over),
        cmocka_unit_test(finds_each_part),
        cmocka_unit_test(a_missing_chunk_is_missed),
        cmocka_unit_test(wrong_streams_are_refused),
        cmocka_unit_test(a_large_part_comes_in_one_piece),
        cmocka_unit_test(positions_come_apart),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
