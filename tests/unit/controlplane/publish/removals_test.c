/* removals: what is printed is read, and nothing else is; ends are kept, the latest of a serial; a
 * stream gets what it lacks and stays as it is otherwise; rows vouch for all that they say. */
#include "controlplane/publish/removals.h"

#include <string.h>

#include "common/base/scope.h"
#include "common/snapshot/parts.h"
#include "controlplane/identity/vouch.h"

#include "tests/support/cmocka.h"

#define HOUR 3600000LL

static void must(struct err e)
{
    assert_string_equal(err_name(e.code), "OK");
}

static struct cp_removals set_of(size_t count, const struct cp_removal *items)
{
    struct cp_removals set = {.items = NULL};
    for (size_t i = 0; i < count; i++) {
        must(cp_removals_add(&set, slice_str(items[i].serial), items[i].until_ms, 0));
    }
    return set;
}

static const struct cp_removal three[] = {{"40cc", HOUR + 1}, {"40aa", 5 * HOUR}, {"40bb", 1}};

static void ends_are_whole_hours_and_the_latest(void **state)
{
    (void)state;
    auto_removals struct cp_removals set = set_of(3, three);
    must(cp_removals_add(&set, SLICE_LIT("40aa"), 4 * HOUR, 0));
    must(cp_removals_add(&set, SLICE_LIT("40bb"), 2 * HOUR, 0));
    must(cp_removals_add(&set, SLICE_LIT("40dd"), 7 * HOUR, 7 * HOUR)); /* over. */
    static const struct cp_removal wanted[] = {
        {"40aa", 5 * HOUR}, {"40bb", 2 * HOUR}, {"40cc", 2 * HOUR}};
    assert_int_equal(set.count, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_string_equal(set.items[i].serial, wanted[i].serial);
        assert_int_equal(set.items[i].until_ms, wanted[i].until_ms);
    }
    assert_int_equal(cp_removals_add(&set, SLICE_LIT(""), HOUR, 0).code, E_MALFORMED);
    assert_int_equal(cp_removals_add(&set, SLICE_LIT("aa"), INT64_MAX, 0).code, E_MALFORMED);
}

static bool is_same(const struct cp_removals *a, const struct cp_removals *b)
{
    return cp_removals_has_all(a, b) && cp_removals_has_all(b, a);
}

static void what_is_printed_is_read(void **state)
{
    (void)state;
    auto_removals struct cp_removals set = set_of(3, three);
    auto_removals struct cp_removals again = {.items = NULL};
    auto_buf struct buf text = BUF_MAX(4096);
    must(cp_removals_print(&again, &text));
    assert_int_equal(text.size, 0);
    must(cp_removals_parse((struct slice){0}, &again));
    must(cp_removals_print(&set, &text));
    must(cp_removals_parse(buf_slice(&text), &again));
    assert_true(is_same(&again, &set));
    auto_removals struct cp_removals longer = set_of(1, &(struct cp_removal){"40bb", 2 * HOUR});
    assert_false(cp_removals_has_all(&set, &longer));
    assert_true(cp_removals_has_all(&longer, &(struct cp_removals){.items = NULL}));
    for (size_t i = 0; i < text.size; i++) { /* whichever byte is another one. */
        auto_removals struct cp_removals other = {.items = NULL};
        text.ptr[i] ^= 1;
        struct err e = cp_removals_parse(buf_slice(&text), &other);
        assert_true(e.code == E_MALFORMED || !is_same(&other, &set));
        text.ptr[i] ^= 1;
    }
}

static void a_serial_stands_once_in_a_file(void **state)
{
    (void)state;
    struct cp_removal same[] = {{"40aa", HOUR}, {"40aa", 2 * HOUR}};
    auto_removals struct cp_removals set = {.items = NULL};
    auto_buf struct buf text = BUF_MAX(4096);
    must(cp_removals_print(&(struct cp_removals){.items = same, .count = 2}, &text));
    assert_int_equal(cp_removals_parse(buf_slice(&text), &set).code, E_MALFORMED);
}

static void add_part(struct part_writer *w, const char *key, struct slice bytes)
{
    must(part_add(w, slice_str(key), bytes));
}

static void a_stream_gets_what_it_lacks(void **state)
{
    (void)state;
    auto_removals struct cp_removals set = set_of(3, three);
    auto_buf struct buf raw = BUF_MAX(4096);
    auto_buf struct buf once = BUF_MAX(4096);
    auto_buf struct buf twice = BUF_MAX(4096);
    bool changed = false;
    struct part_writer w = {.out = &raw};
    add_part(&w, "certificate/40bb", (struct slice){0}); /* of the sources, without an end. */
    add_part(&w, "identity/spiffe://x.test/a", (struct slice){0});
    add_part(&w, "type/Order.v1", (struct slice){0});
    must(cp_removals_merge(&set, buf_slice(&raw), &once, &changed));
    assert_true(changed);
    auto_removals struct cp_removals found = {.items = NULL};
    must(cp_removals_add_stream(&found, buf_slice(&once), 0));
    assert_true(cp_removals_has_all(&found, &set));
    assert_int_equal(found.count, 3);
    static const char *const keys[] = {"certificate/40aa", "certificate/40bb", "certificate/40cc",
                                       "identity/spiffe://x.test/a", "type/Order.v1"};
    struct part_iter it = {.rest = buf_slice(&once)};
    struct part part;
    bool more = true;
    for (size_t i = 0; i < 5; i++) {
        must(part_next(&it, &part, &more));
        assert_true(more && slice_eq(part.key, slice_str(keys[i])));
    }
    must(cp_removals_merge(&set, buf_slice(&once), &twice, &changed));
    assert_false(changed);
    assert_true(slice_eq(buf_slice(&once), buf_slice(&twice)));
    assert_int_equal(cp_removals_merge(&set, SLICE_LIT("no stream"), &twice, &changed).code,
                     E_PART_MALFORMED);
    auto_removals struct cp_removals late = {.items = NULL};
    must(cp_removals_add_stream(&late, buf_slice(&once), 2 * HOUR)); /* two are over. */
    assert_int_equal(late.count, 1);
}

static void a_row_vouches_for_all_that_it_says(void **state)
{
    (void)state;
    const uint8_t key[CP_VOUCH_KEY_SIZE] = {1};
    const uint8_t other[CP_VOUCH_KEY_SIZE] = {2};
    struct cp_certificate good = {
        .node = "edge-1", .serial = "40aa", .not_after_ms = HOUR, .removed_ms = 1};
    cp_vouch_given(key, "demo", &good, good.warrant);
    cp_vouch_removed(key, "demo", &good, good.removal);
    assert_true(cp_vouched_given(key, "demo", &good));
    assert_true(cp_vouched_removed(key, "demo", &good));
    assert_memory_not_equal(good.warrant, good.removal, CP_WARRANT_SIZE);
    assert_false(cp_vouched_given(other, "demo", &good));
    assert_false(cp_vouched_removed(key, "prod", &good));
    struct cp_certificate bad[4] = {good, good, good, good};
    bad[0].node[0] = 'x';
    bad[1].serial[0] = '5';
    bad[2].not_after_ms++;
    (void)memcpy(bad[3].removal, good.warrant, CP_WARRANT_SIZE);
    (void)memcpy(bad[3].warrant, good.removal, CP_WARRANT_SIZE);
    for (size_t i = 0; i < 4; i++) {
        assert_false(cp_vouched_given(key, "demo", &bad[i]));
        assert_false(cp_vouched_removed(key, "demo", &bad[i]));
    }
    good.removed_ms = 0;
    assert_false(cp_vouched_removed(key, "demo", &good));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ends_are_whole_hours_and_the_latest),
        cmocka_unit_test(what_is_printed_is_read),
        cmocka_unit_test(a_serial_stands_once_in_a_file),
        cmocka_unit_test(a_stream_gets_what_it_lacks),
        cmocka_unit_test(a_row_vouches_for_all_that_it_says),
    };
    ids_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
