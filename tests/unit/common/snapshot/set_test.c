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
    struct snap_diff diff = {0};
    struct snap_change change;
    size_t changes = 0;
    while (snap_set_diff(first, second, STREAM_ROUTING, &diff, &change)) {
        assert_true(change.had && change.has);
        assert_true(slice_eq(change.key, SLICE_LIT("part/000500")));
        assert_false(slice_eq(change.before, change.now));
        changes++;
    }
    assert_int_equal(changes, 1);
    assert_memory_equal(snap_set_base(second), snap_set_manifest_digest(first), DIGEST_SIZE);
    assert_null(snap_set_base(first));
    snap_set_unref(first); /* what was taken over lives on. */
    struct snap_cursor at = {0};
    struct snap_part p;
    size_t parts = 0;
    while (snap_set_next(second, STREAM_ROUTING, &at, &p)) {
        char key[32];
        (void)snprintf(key, sizeof(key), "part/%06zu", parts);
        assert_true(slice_eq(p.key, slice_str(key)));
        parts++;
    }
    assert_int_equal(parts, 1000);
    snap_set_unref(second);
    fx_version_free(&a);
    fx_version_free(&b);
}

/* ---- many versions, one after the other ---- */

enum { STEPS = 24, IDS = 1500, LIVELY_SIZE = 900 };

/* A stream of parts whose size and bytes follow from their number and how often each was changed;
 * an edition of 0 leaves a part out. */
struct lively {
    uint8_t editions[IDS];
    struct buf raw;
    struct buf body;
    struct cut_stream cut;
    struct manifest manifest;
    struct snap_set *set;
};

static void lively_part(uint8_t bytes[LIVELY_SIZE], size_t id, uint8_t edition)
{
    for (size_t i = 0; i < LIVELY_SIZE; i++) {
        bytes[i] = (uint8_t)((i * 31 + id * 2654435761U + edition * 40503U) >> 7);
    }
}

static void lively_cut(struct lively *v, uint64_t number)
{
    v->raw = BUF_MAX(64 << 20);
    v->body = BUF_MAX(MANIFEST_BODY_MAX);
    struct part_writer w = {.out = &v->raw};
    static char keys[IDS][16];
    uint8_t bytes[LIVELY_SIZE];
    for (size_t i = 0; i < IDS; i++) {
        (void)snprintf(keys[i], sizeof(keys[i]), "k%05zu", i);
        if (v->editions[i] > 0) {
            lively_part(bytes, i, v->editions[i]);
            EXPECT_OK(part_add(&w, slice_str(keys[i]), slice_of(bytes, 1 + i * 97 % LIVELY_SIZE)));
        }
    }
    EXPECT_OK(cut_stream(STREAM_LIMITS, buf_slice(&v->raw), /* options= */ NULL, &v->cut));
    const struct manifest_plan plan = {.version = number, .streams = &v->cut, .stream_count = 1};
    EXPECT_OK(manifest_encode(&plan, &v->body));
    EXPECT_OK(manifest_decode(buf_slice(&v->body), &v->manifest));
}

static struct snap_set *lively_set(const struct lively *v, struct snap_set *previous)
{
    struct snap_set *set = NULL;
    struct snap_missing missing;
    size_t at = 0;
    EXPECT_OK(snap_set_new(&v->manifest, previous, &set));
    while (snap_set_missing(set, &at, &missing)) {
        size_t i = 0;
        while (memcmp(v->cut.chunks[i].digest, missing.name.digest, DIGEST_SHORT_SIZE) != 0) {
            i++;
        }
        EXPECT_OK(snap_set_add(set, &missing.name, v->cut.chunks[i].stored));
    }
    EXPECT_OK(snap_set_close(set));
    return set;
}

static void lively_free(struct lively *v)
{
    snap_set_unref(v->set);
    manifest_free(&v->manifest);
    cut_stream_free(&v->cut);
    buf_free(&v->raw);
    buf_free(&v->body);
}

static void check_walk(const struct lively *v)
{
    struct snap_cursor cursor = {0};
    struct snap_part p;
    uint8_t bytes[LIVELY_SIZE];
    for (size_t i = 0; i < IDS; i++) {
        if (v->editions[i] > 0) {
            lively_part(bytes, i, v->editions[i]);
            assert_true(snap_set_next(v->set, STREAM_LIMITS, &cursor, &p));
            assert_true(slice_eq(p.bytes, slice_of(bytes, 1 + i * 97 % LIVELY_SIZE)));
        }
    }
    assert_false(snap_set_next(v->set, STREAM_LIMITS, &cursor, &p));
    struct chunk_name name;
    size_t stream = 0;
    cursor = (struct snap_cursor){0};
    for (size_t i = 0; i < v->cut.chunk_count; i++) {
        assert_true(snap_set_name(v->set, &stream, &cursor, &name));
        assert_memory_equal(name.digest, v->cut.chunks[i].digest, DIGEST_SHORT_SIZE);
    }
    assert_false(snap_set_name(v->set, &stream, &cursor, &name));
}

/* The parts of one byte have the same in each edition. */
static bool differs(const struct lively *a, const struct lively *b, size_t i)
{
    uint8_t one[LIVELY_SIZE];
    uint8_t two[LIVELY_SIZE];
    lively_part(one, i, a->editions[i]);
    lively_part(two, i, b->editions[i]);
    bool gone = (a->editions[i] == 0) != (b->editions[i] == 0);
    return gone || (a->editions[i] != 0 && memcmp(one, two, 1 + i * 97 % LIVELY_SIZE) != 0);
}

static void check_diff(const struct lively *a, const struct lively *b)
{
    struct snap_diff diff = {0};
    struct snap_change change;
    for (size_t i = 0; i < IDS; i++) {
        if (differs(a, b, i)) {
            char key[16];
            (void)snprintf(key, sizeof(key), "k%05zu", i);
            assert_true(snap_set_diff(a->set, b->set, STREAM_LIMITS, &diff, &change));
            assert_true(slice_eq(change.key, slice_str(key)));
            assert_int_equal(change.had, a->editions[i] != 0);
            assert_int_equal(change.has, b->editions[i] != 0);
        }
    }
    assert_false(snap_set_diff(a->set, b->set, STREAM_LIMITS, &diff, &change));
}

static void edit(struct lively *v, uint64_t *seed)
{
    *seed = *seed * 6364136223846793005U + 1442695040888963407U;
    size_t at = (*seed >> 33) % IDS;
    size_t count = (*seed >> 20) % 10 == 0 ? 200 : 1 + (*seed >> 50) % 3;
    for (size_t i = at; i < at + count && i < IDS; i++) {
        v->editions[i] = (uint8_t)((*seed >> 40) % 4 == 0 ? 0 : v->editions[i] + 1);
    }
}

/* Whatever each version takes over, it is what a set made from nothing would be. */
static void versions_follow_each_other(void **state)
{
    (void)state;
    static struct lively versions[STEPS];
    uint64_t seed = 42;
    memset(versions[0].editions, 1, IDS);
    for (size_t n = 0; n < STEPS; n++) {
        struct lively *v = &versions[n];
        if (n > 0) {
            memcpy(v->editions, versions[n - 1].editions, IDS);
            for (size_t k = 0; k < n % 4; k++) {
                edit(v, &seed);
            }
        }
        lively_cut(v, n + 1);
        v->set = lively_set(v, n == 0 ? NULL : versions[n - 1].set);
        check_walk(v);
        if (n > 0) {
            check_diff(&versions[n - 1], v);
        }
        if (n >= 7) {
            check_diff(&versions[n - 7], v);
            lively_free(&versions[n - 7]);
        }
    }
    for (size_t n = STEPS - 7; n < STEPS; n++) {
        lively_free(&versions[n]);
    }
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
        for (size_t i = 0; n == 0 && i < cut.chunk_count; i++) {
            struct chunk_name name = manifest_chunk(&m.streams[0], i);
            EXPECT_OK(snap_set_add(sets[n], &name, cut.chunks[i].stored));
        }
        EXPECT_OK(snap_set_close(sets[n]));
    }
    struct snap_part p;
    struct snap_diff diff = {0};
    struct snap_change change;
    assert_false(snap_set_diff(sets[0], sets[1], STREAM_SCHEMAS, &diff, &change));
    assert_true(snap_set_find(sets[1], STREAM_SCHEMAS, slice_str("b"), &p));
    assert_true(slice_eq(p.bytes, slice_of(bytes, LARGE)));
    assert_true(snap_set_find(sets[1], STREAM_SCHEMAS, slice_str("c"), &p));
    assert_true(slice_eq(p.bytes, SLICE_LIT("small")));
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

/* ---- pieces and runs ---- */

/* A stream of pieces as they are given, on top of another one. */
static struct err close_on_top(const struct hand *hand, struct snap_set *previous,
                               size_t *out_wanted, struct snap_set **out)
{
    struct manifest m = {.version = 1, .stream_count = 1};
    uint8_t digests[8 * DIGEST_SHORT_SIZE];
    uint8_t raw_digests[8 * DIGEST_SIZE];
    uint32_t sizes[8];
    struct manifest_stream *s = &m.streams[0];
    for (size_t i = 0; i < hand->count; i++) {
        ids_digest_short(hand->pieces[i], digests + i * DIGEST_SHORT_SIZE);
        ids_digest(hand->pieces[i], raw_digests + i * DIGEST_SIZE);
        sizes[i] = (uint32_t)hand->pieces[i].size;
        s->raw_size += sizes[i];
    }
    s->kind = STREAM_LIMITS;
    s->format = 1;
    s->chunk_count = hand->count;
    s->chunk_digests = digests;
    s->stored_sizes = sizes;
    s->raw_sizes = sizes;
    cut_raw_digest(raw_digests, hand->count, s->raw_digest);
    struct snap_missing missing;
    size_t at = 0;
    EXPECT_OK(snap_set_new(&m, previous, out));
    for (*out_wanted = 0; snap_set_missing(*out, &at, &missing); (*out_wanted)++) {
        size_t i = 0;
        while (memcmp(digests + i * DIGEST_SHORT_SIZE, missing.name.digest, DIGEST_SHORT_SIZE) !=
               0) {
            i++;
        }
        EXPECT_OK(snap_set_add(*out, &missing.name, hand->pieces[i]));
    }
    return snap_set_close(*out);
}

/* "b" of two pieces, of which the second one is a stream of its own, too. */
static void a_piece_is_taken_over_by_itself(void **state)
{
    (void)state;
    enum { LARGE = CHUNK_RAW_MAX + 7 };
    uint8_t *bytes = calloc(2, LARGE);
    assert_non_null(bytes);
    struct slice c = SLICE_LIT("\1\0\0\0\0\0c");
    const uint8_t header[] = {1, 0,  (LARGE - 7) & 255, (LARGE - 7) >> 8 & 255, (LARGE - 7) >> 16,
                              0, 'b'};
    memcpy(bytes, header, sizeof(header));
    memcpy(bytes + LARGE - 7, c.ptr, 7);
    struct slice first = slice_of(bytes, CHUNK_RAW_MAX);
    struct slice second = slice_of(bytes + CHUNK_RAW_MAX, 7);
    struct snap_set *sets[4];
    struct snap_part p;
    size_t wanted = 0;
    /* A run of "c" alone is there; then it ends a large part. */
    EXPECT_OK(close_on_top(&(struct hand){{second}, 1}, NULL, &wanted, &sets[0]));
    EXPECT_OK(close_on_top(&(struct hand){{first, second}, 2}, sets[0], &wanted, &sets[1]));
    assert_int_equal(wanted, 1);
    assert_true(snap_set_find(sets[1], STREAM_LIMITS, SLICE_LIT("b"), &p));
    assert_true(slice_eq(p.bytes, slice_of(bytes + 7, LARGE - 7)));
    /* And back: the piece is a chunk of whole parts again. */
    EXPECT_OK(close_on_top(&(struct hand){{second}, 1}, sets[1], &wanted, &sets[2]));
    assert_int_equal(wanted, 0);
    assert_true(snap_set_find(sets[2], STREAM_LIMITS, SLICE_LIT("c"), &p));
    /* A part that goes on behind the end of its stream. */
    EXPECT(close_on_top(&(struct hand){{first}, 1}, sets[1], &wanted, &sets[3]), E_PART_MALFORMED);
    for (size_t i = 0; i < 4; i++) {
        snap_set_unref(sets[i]);
    }
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
        cmocka_unit_test(versions_follow_each_other),
        cmocka_unit_test(finds_each_part),
        cmocka_unit_test(a_missing_chunk_is_missed),
        cmocka_unit_test(wrong_streams_are_refused),
        cmocka_unit_test(a_large_part_comes_in_one_piece),
        cmocka_unit_test(a_piece_is_taken_over_by_itself),
        cmocka_unit_test(positions_come_apart),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
