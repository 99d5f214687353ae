/* Proves that a refusal is found by its id and by nothing else, that texts are cut and cleaned,
 * that the oldest makes room and the hour ends, and that a reader beside the writer never sees half
 * of an entry. */
#include "dataplane/request/refusals.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/ids.h"
#include "dataplane/request/request.h"

#include "tests/support/cmocka.h"

enum { ENTRIES = 8, RACE_WRITES = 20000 };

static struct dp_refusals *ring(size_t entries)
{
    struct dp_refusals *r = NULL;
    assert_true(err_ok(dp_refusals_new(entries, &r)));
    return r;
}

static struct dp_refusal entry_of(uint64_t id, const char *method)
{
    struct dp_refusal entry = {
        .id = id, .boot_ms = clock_boot_ns() / 1000000, .code = E_POLICY_DENIED};
    dp_refusal_set(&entry, DP_REFUSAL_METHOD, slice_str(method));
    return entry;
}

static void expect_text(const struct dp_refusal *entry, enum dp_refusal_text text,
                        const char *wanted)
{
    struct slice found = dp_refusal_text(entry, text);
    assert_int_equal(found.size, strlen(wanted));
    assert_memory_equal(found.ptr, wanted, found.size);
}

static void ids_are_written_and_read(void **state)
{
    (void)state;
    struct dp_refusals *r = ring(1);
    char text[DP_REFUSAL_ID_SIZE + 1];
    uint64_t back = 0;
    for (int i = 0; i < 1000; i++) {
        uint64_t id = dp_refusals_id(r);
        assert_int_not_equal(id, 0);
        dp_refusal_id_format(id, text);
        assert_int_equal(strlen(text), DP_REFUSAL_ID_SIZE);
        assert_true(dp_refusal_id_parse(slice_str(text), &back));
        assert_true(back == id);
    }
    assert_true(dp_refusal_id_parse(SLICE_LIT("ABCDEFGHJKMN"), &back));
    static const char *const bad[] = {
        "", "0123456789a", "0123456789abc", "0123456789a!", "0123456789ai", "000000000000"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(dp_refusal_id_parse(slice_str(bad[i]), &back));
    }
    assert_false(dp_refusal_id_parse(slice_of("0123456789a\0", 12), &back));
    dp_refusals_free(r);
}

static void texts_are_cut_and_cleaned(void **state)
{
    (void)state;
    struct dp_refusal entry = {.id = 1};
    char *long_text = test_malloc(2000);
    memset(long_text, 'x', 2000);
    dp_refusal_set(&entry, DP_REFUSAL_LANE, SLICE_LIT("operator"));
    dp_refusal_set(&entry, DP_REFUSAL_CALLER,
                   slice_of("a\n\x80"
                            "b",
                            4));
    dp_refusal_set(&entry, DP_REFUSAL_RULE, SLICE_LIT("acme/p/r"));
    expect_text(&entry, DP_REFUSAL_LANE, "operator");
    expect_text(&entry, DP_REFUSAL_CALLER, "a??b");
    expect_text(&entry, DP_REFUSAL_TENANT, ""); /* passed over. */
    expect_text(&entry, DP_REFUSAL_RULE, "acme/p/r");
    for (size_t i = DP_REFUSAL_LIMIT; i < DP_REFUSAL_TEXT_COUNT; i++) {
        dp_refusal_set(&entry, (enum dp_refusal_text)i, slice_of(long_text, 2000));
    }
    struct slice limit = dp_refusal_text(&entry, DP_REFUSAL_LIMIT);
    assert_int_equal(limit.size, 127);
    assert_memory_equal(limit.ptr + 123, "x...", 4);
    assert_int_equal(entry.ends[DP_REFUSAL_TEXT_COUNT - 1], DP_REFUSAL_TEXT_BYTES); /* full. */
    expect_text(&entry, DP_REFUSAL_RULE, "acme/p/r");
    test_free(long_text);
}

static void the_oldest_makes_room(void **state)
{
    (void)state;
    struct dp_refusals *r = ring(ENTRIES);
    struct dp_refusal found;
    assert_false(dp_refusals_latest(r, 0, &found));
    for (uint64_t id = 1; id <= ENTRIES + 2; id++) {
        struct dp_refusal entry = entry_of(id, "/a.B/C");
        dp_refusals_add(r, &entry);
    }
    assert_int_equal(dp_refusals_count(r), ENTRIES + 2);
    assert_false(dp_refusals_find(r, 2, &found));
    for (uint64_t id = 3; id <= ENTRIES + 2; id++) {
        assert_true(dp_refusals_find(r, id, &found));
        assert_true(found.id == id);
        expect_text(&found, DP_REFUSAL_METHOD, "/a.B/C");
    }
    assert_true(dp_refusals_latest(r, 0, &found));
    assert_true(found.id == ENTRIES + 2);
    assert_true(dp_refusals_latest(r, ENTRIES - 1, &found));
    assert_true(found.id == 3);
    assert_false(dp_refusals_latest(r, ENTRIES, &found));
    dp_refusals_free(r);
}

static void an_hour_ends(void **state)
{
    (void)state;
    struct dp_refusals *r = ring(ENTRIES);
    struct dp_refusal found;
    struct dp_refusal entry = entry_of(7, "/a.B/C");
    dp_refusals_add(r, &entry);
    clock_shift_for_test((DP_REFUSAL_LIFE_MS - 5000) * INT64_C(1000000), 0);
    assert_true(dp_refusals_find(r, 7, &found));
    assert_true(dp_refusals_latest(r, 0, &found));
    clock_shift_for_test(DP_REFUSAL_LIFE_MS * INT64_C(1000000), 0);
    assert_false(dp_refusals_find(r, 7, &found));
    assert_false(dp_refusals_latest(r, 0, &found));
    clock_shift_for_test(0, 0);
    dp_refusals_free(r);
}

static void a_ring_of_none_keeps_none(void **state)
{
    (void)state;
    struct dp_refusals *r = ring(0);
    struct dp_refusal found;
    struct dp_refusal entry = entry_of(7, "/a.B/C");
    assert_int_equal(dp_refusals_id(r), 0);
    assert_int_equal(dp_refusals_id(NULL), 0);
    dp_refusals_add(r, &entry);
    dp_refusals_add(NULL, &entry);
    assert_false(dp_refusals_find(r, 7, &found));
    assert_int_equal(dp_refusals_count(r), 0);
    dp_refusals_free(r);
}

static void a_request_is_kept_with_what_it_knew(void **state)
{
    (void)state;
    static const struct dp_lane lane = {.id = DP_LANE_OPERATOR, .name = "operator"};
    static const struct dp_caller caller = {.id = SLICE_INIT("acme/web"),
                                            .tenant = SLICE_INIT("acme")};
    static const struct dp_target target = {.id = SLICE_INIT("service/acme/orders")};
    struct dp_refusals *r = ring(ENTRIES);
    struct dp_request rq = {.lane = &lane,
                            .caller = &caller,
                            .target = &target,
                            .explain = 9,
                            .err = FAIL(E_RATE_LIMITED),
                            .limit = SLICE_LIT("acme/few"),
                            .in = {.path = SLICE_LIT("/a.B/C"), .peer = SLICE_LIT("127.0.0.1:7")},
                            .request_id = SLICE_LIT("rq-1"),
                            .grpc_status = 8,
                            .http_status = 200,
                            .started_ns = clock_mono_ns()};
    struct dp_refusal found;
    dp_refusals_note(r, &rq);
    assert_true(dp_refusals_find(r, 9, &found));
    assert_int_equal(found.code, E_RATE_LIMITED);
    assert_int_equal(found.grpc_status, 8);
    assert_int_equal(found.http_status, 200);
    assert_true(found.time_ms > 0);
    expect_text(&found, DP_REFUSAL_LANE, "operator");
    expect_text(&found, DP_REFUSAL_CALLER, "acme/web");
    expect_text(&found, DP_REFUSAL_TENANT, "acme");
    expect_text(&found, DP_REFUSAL_TARGET, "service/acme/orders");
    expect_text(&found, DP_REFUSAL_LIMIT, "acme/few");
    expect_text(&found, DP_REFUSAL_METHOD, "/a.B/C");
    expect_text(&found, DP_REFUSAL_PEER, "127.0.0.1:7");
    expect_text(&found, DP_REFUSAL_REQUEST, "rq-1");
    rq.explain = 0; /* nobody was told an id. */
    dp_refusals_note(r, &rq);
    assert_int_equal(dp_refusals_count(r), 1);
    dp_refusals_free(r);
}

/* What the request says of another message is not said of this one. */
static void a_message_is_kept_alone(void **state)
{
    (void)state;
    static const struct dp_lane lane = {.id = DP_LANE_CANONICAL, .name = "canonical"};
    static const struct dp_target target = {.id = SLICE_INIT("topic/acme/order")};
    struct dp_refusals *r = ring(ENTRIES);
    struct dp_request rq = {.lane = &lane,
                            .target = &target,
                            .verdict = {.rule = SLICE_INIT("acme/order/one")},
                            .limit = SLICE_LIT("acme/few"),
                            .started_ns = clock_mono_ns()};
    struct dp_refusal found;
    struct dp_refused_message message = {.why = FAIL(E_TYPE_UNKNOWN),
                                         .type = SLICE_LIT("Nothing.v1")};
    assert_true(dp_refusals_find(r, dp_refusals_note_message(r, &rq, &message), &found));
    assert_int_equal(found.code, E_TYPE_UNKNOWN);
    assert_int_equal(found.grpc_status, -1);
    expect_text(&found, DP_REFUSAL_METHOD, "Nothing.v1");
    expect_text(&found, DP_REFUSAL_TARGET, "");
    expect_text(&found, DP_REFUSAL_RULE, "");
    message = (struct dp_refused_message){.why = FAIL(E_POLICY_DENIED), .decided = true};
    assert_true(dp_refusals_find(r, dp_refusals_note_message(r, &rq, &message), &found));
    expect_text(&found, DP_REFUSAL_TARGET, "topic/acme/order");
    expect_text(&found, DP_REFUSAL_RULE, "acme/order/one");
    expect_text(&found, DP_REFUSAL_LIMIT, "");
    message.why = FAIL(E_RATE_LIMITED);
    assert_true(dp_refusals_find(r, dp_refusals_note_message(r, &rq, &message), &found));
    expect_text(&found, DP_REFUSAL_LIMIT, "acme/few");
    assert_int_equal(rq.explain, 0);
    dp_refusals_free(r);
    assert_int_equal(dp_refusals_note_message(NULL, &rq, &message), 0);
}

/* ---- a reader beside the writer ---- */

static struct {
    struct dp_refusals *ring;
    _Atomic bool stop;
    uint64_t seen;
    uint64_t torn;
} race;

/* Each entry says its id in every text. */
static bool is_whole(const struct dp_refusal *entry)
{
    for (size_t i = 0; i < DP_REFUSAL_TEXT_BYTES; i++) {
        if ((uint8_t)entry->texts[i] != (uint8_t)entry->id) {
            return false;
        }
    }
    return entry->version == entry->id;
}

static void *read_on(void *ctx)
{
    (void)ctx;
    struct dp_refusal found;
    for (size_t back = 0; !atomic_load(&race.stop); back = (back + 1) % 4) {
        if (dp_refusals_latest(race.ring, back, &found)) {
            race.seen++;
            race.torn += is_whole(&found) ? 0 : 1;
        }
    }
    return NULL;
}

static void a_reader_sees_whole_entries(void **state)
{
    (void)state;
    pthread_t reader;
    struct dp_refusal entry = {.boot_ms = clock_boot_ns() / 1000000};
    struct dp_refusal found;
    race.ring = ring(4);
    assert_int_equal(pthread_create(&reader, NULL, read_on, NULL), 0);
    for (uint64_t id = 1; id <= RACE_WRITES; id++) {
        entry.id = id;
        entry.version = id;
        memset(entry.texts, (int)(id & 0xff), sizeof(entry.texts));
        dp_refusals_add(race.ring, &entry);
    }
    assert_true(dp_refusals_find(race.ring, RACE_WRITES, &found));
    atomic_store(&race.stop, true);
    assert_int_equal(pthread_join(reader, NULL), 0);
    assert_int_equal(race.torn, 0);
    dp_refusals_free(race.ring);
}

int main(void)
{
    ids_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_written_and_read),
        cmocka_unit_test(texts_are_cut_and_cleaned),
        cmocka_unit_test(the_oldest_makes_room),
        cmocka_unit_test(an_hour_ends),
        cmocka_unit_test(a_ring_of_none_keeps_none),
        cmocka_unit_test(a_request_is_kept_with_what_it_knew),
        cmocka_unit_test(a_message_is_kept_alone),
        cmocka_unit_test(a_reader_sees_whole_entries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
