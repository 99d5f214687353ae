/*
 * shelf: finds what was prepared by its files, its id and its manifest, keeps a few, and no more
 * than may be held; and which snapshots the check passed.
 */
#include "controlplane/publish/shelf.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/limits.h"
#include "controlplane/publish/check.h"

#include "tests/support/cmocka.h"

static const char environment[] =
    "apiVersion: trilane.dev/v1\nkind: Environment\nmetadata: {name: test}\n"
    "spec: {security: dev, trustDomain: test.example}\n";

static void add(struct cp_source_set *set, const char *name, const char *text)
{
    assert_true(err_ok(cp_source_set_add(set, slice_str(name), slice_str(text))));
}

/* Compiled and cut from an environment and a file of comments. */
static struct cp_prepared *prepare(const char *comment, const struct cp_prepared *before)
{
    struct cp_prepared *p = NULL;
    struct cp_diags diags;
    const struct cp_compile_options options = {.inventory = true};
    assert_true(err_ok(cp_prepared_new(&p)));
    add(&p->sources, "a.yaml", environment);
    add(&p->sources, "b.yaml", comment);
    cp_diags_init(&diags, &p->sources);
    assert_true(err_ok(cp_compile_set(&p->sources, &diags, &options, &p->compiled)));
    assert_true(err_ok(cp_prepared_digest(p, &p->sources, before)));
    const struct cp_streams_options cut = {.format = SNAPSHOT_FORMAT,
                                           .before = before == NULL ? NULL : &before->cut};
    assert_true(err_ok(cp_streams_cut(p->compiled, &cut, &p->cut)));
    cp_diags_free(&diags);
    return p;
}

static struct cp_shelf *new_shelf(void)
{
    struct cp_shelf *shelf = NULL;
    assert_true(err_ok(cp_shelf_new(&shelf)));
    return shelf;
}

static void put(struct cp_shelf *shelf, struct cp_prepared *p)
{
    cp_shelf_put(shelf, p, &(struct cp_shelf_note){0});
}

/* Whether something is found by its files. */
static bool has(struct cp_shelf *shelf, const struct cp_prepared *p)
{
    struct cp_prepared *found = cp_shelf_find(shelf, &p->sources);
    bool same = found == p;
    cp_prepared_unref(found);
    return same;
}

static void found_by_the_very_files(void **state)
{
    (void)state;
    struct cp_shelf *shelf = new_shelf();
    struct cp_prepared *p = prepare("# one\n", NULL);
    assert_false(has(shelf, p));
    put(shelf, p);
    assert_true(has(shelf, p));
    struct cp_source_set other;
    static const char *const rows[][2] = {{"b.yaml", "# two\n"},   /* other bytes, */
                                          {"c.yaml", "# one\n"},   /* another name, */
                                          {"b.yaml", "# one \n"}}; /* another size. */
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cp_source_set_init(&other);
        add(&other, "a.yaml", environment);
        assert_null(cp_shelf_find(shelf, &other)); /* a file less. */
        add(&other, rows[i][0], rows[i][1]);
        assert_null(cp_shelf_find(shelf, &other));
        cp_source_set_free(&other);
    }
    cp_prepared_unref(p);
    cp_shelf_free(shelf);
}

static void found_by_what_became_of_it(void **state)
{
    (void)state;
    static const uint8_t digest[DIGEST_SIZE] = {7};
    struct cp_shelf *shelf = new_shelf();
    struct cp_prepared *p = prepare("# one\n", NULL);
    uint64_t base = 0;
    put(shelf, p);
    assert_null(cp_shelf_planned(shelf, p->id, &base)); /* it was not planned, */
    assert_null(cp_shelf_published(shelf, digest));     /* nor published. */
    cp_shelf_put(shelf, p, &(struct cp_shelf_note){.planned = true, .base = 4});
    struct cp_prepared *planned = cp_shelf_planned(shelf, p->id, &base);
    assert_ptr_equal(planned, p);
    assert_int_equal(base, 4);
    cp_shelf_put(shelf, p, &(struct cp_shelf_note){.manifest_digest = digest});
    struct cp_prepared *published = cp_shelf_published(shelf, digest);
    assert_ptr_equal(published, p);
    static const uint8_t other[DIGEST_SIZE] = {8};
    assert_null(cp_shelf_published(shelf, other));
    assert_null(cp_shelf_planned(shelf, other, &base));
    cp_prepared_unref(planned);
    cp_prepared_unref(published);
    cp_prepared_unref(p);
    cp_shelf_free(shelf);
}

static void what_was_used_least_lately_goes(void **state)
{
    (void)state;
    struct cp_shelf *shelf = new_shelf();
    struct cp_prepared *p[CP_SHELF_SLOTS + 1];
    char comment[] = "# 0\n";
    for (size_t i = 0; i <= CP_SHELF_SLOTS; i++) {
        comment[2] = (char)('0' + i);
        p[i] = prepare(comment, NULL);
    }
    for (size_t i = 0; i < CP_SHELF_SLOTS; i++) {
        put(shelf, p[i]);
    }
    assert_true(has(shelf, p[0]));
    put(shelf, p[CP_SHELF_SLOTS]);
    assert_true(has(shelf, p[0]));
    assert_false(has(shelf, p[1]));
    assert_true(has(shelf, p[2]));
    assert_true(has(shelf, p[3]));
    for (size_t i = 0; i <= CP_SHELF_SLOTS; i++) {
        cp_prepared_unref(p[i]);
    }
    cp_shelf_free(shelf);
}

static void no_more_than_may_be_held(void **state)
{
    (void)state;
    uint64_t before = limits.source_cache_bytes;
    struct cp_shelf *shelf = new_shelf();
    struct cp_prepared *one = prepare("# one\n", NULL);
    struct cp_prepared *two = prepare("# two\n", NULL);
    limits.source_cache_bytes = cp_prepared_bytes(one) * 3 / 2;
    put(shelf, one);
    put(shelf, two);
    assert_false(has(shelf, one));
    assert_true(has(shelf, two));
    limits.source_cache_bytes = 0;
    put(shelf, one);
    assert_false(has(shelf, one));
    assert_false(has(shelf, two));
    limits.source_cache_bytes = before;
    cp_prepared_unref(one);
    cp_prepared_unref(two);
    cp_shelf_free(shelf);
}

/* ---- checks ---- */

static void name_check(const struct cp_prepared *p, uint64_t capabilities, uint8_t out[DIGEST_SIZE])
{
    const struct cp_check check = {
        .program = "/bin/sh", .streams = p->cut.streams, .stream_count = p->cut.count};
    assert_true(err_ok(cp_check_digest(&check, capabilities, out)));
}

/* Where things stand is not loaded: what differs in lines alone needs no second check. */
static void a_check_is_named_by_what_it_loads(void **state)
{
    (void)state;
    uint8_t a[DIGEST_SIZE];
    uint8_t b[DIGEST_SIZE];
    struct cp_prepared *one = prepare("# one\n", NULL);
    struct cp_prepared *moved = prepare("# one\n# two\n", one);
    struct cp_prepared *other = prepare("apiVersion: trilane.dev/v1\nkind: Service\n"
                                        "metadata: {name: web, tenant: acme}\nspec: {}\n",
                                        one);
    name_check(one, 0, a);
    name_check(moved, 0, b);
    assert_memory_equal(a, b, sizeof(a));
    name_check(other, 0, b);
    assert_memory_not_equal(a, b, sizeof(a));
    name_check(one, 1, b);
    assert_memory_not_equal(a, b, sizeof(a));
    cp_prepared_unref(one);
    cp_prepared_unref(moved);
    cp_prepared_unref(other);
}

static void the_last_checks_are_known(void **state)
{
    (void)state;
    struct cp_shelf *shelf = new_shelf();
    uint8_t digest[DIGEST_SIZE] = {0};
    assert_false(cp_shelf_has_passed(shelf, digest)); /* zeroes are no name that was noted. */
    for (int i = 0; i <= CP_SHELF_CHECKS; i++) {
        digest[0] = (uint8_t)i;
        cp_shelf_pass(shelf, digest);
        assert_true(cp_shelf_has_passed(shelf, digest));
    }
    digest[0] = 0;
    assert_false(cp_shelf_has_passed(shelf, digest));
    digest[0] = 1;
    assert_true(cp_shelf_has_passed(shelf, digest));
    cp_shelf_free(shelf);
}

/* What is the same in the version before is not hashed again: a mark in its place shows it. */
static void a_file_is_hashed_once(void **state)
{
    (void)state;
    uint8_t expected[DIGEST_SIZE];
    struct cp_prepared *first = prepare("# one\n", NULL);
    ids_digest(slice_str(environment), expected);
    assert_memory_equal(first->digests[0], expected, DIGEST_SIZE);
    first->digests[0][0] ^= 1;
    struct cp_prepared *second = prepare("# two\n", first);
    assert_memory_equal(second->digests[0], first->digests[0], DIGEST_SIZE);
    ids_digest(slice_str("# two\n"), expected);
    assert_memory_equal(second->digests[1], expected, DIGEST_SIZE);
    cp_prepared_unref(first);
    cp_prepared_unref(second);
}

int main(void)
{
    ids_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(found_by_the_very_files),
        cmocka_unit_test(found_by_what_became_of_it),
        cmocka_unit_test(what_was_used_least_lately_goes),
        cmocka_unit_test(no_more_than_may_be_held),
        cmocka_unit_test(a_check_is_named_by_what_it_loads),
        cmocka_unit_test(the_last_checks_are_known),
        cmocka_unit_test(a_file_is_hashed_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
