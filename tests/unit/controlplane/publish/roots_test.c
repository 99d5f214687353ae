/* Proves that roots are taken one behind the other, by both sides' keys, also while others read. */
#include "controlplane/publish/roots.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/clock.h"

#include "tests/support/cmocka.h"

#define EXPECT(call, wanted) assert_int_equal((call).code, (wanted))
#define EXPECT_OK(call) EXPECT(call, E_OK)

enum { ROOTS = 6, KEYS = 4, TAKERS = 3 };

static struct fixture {
    struct key_pair keys[KEYS]; /* root keys: root n is by keys n and n + 1, round and round. */
    struct key_pair manifest;
    struct key_pair head;
    struct buf roots[ROOTS + 1]; /* by version. */
    char directory[64];
    struct cp_roots *live;
    struct buf message;
} f;

static struct root plan(uint64_t version, const struct key_pair *own)
{
    struct root r = {.version = version, .not_after_ms = clock_wall_ms() + 1000000};
    (void)snprintf(r.environment, sizeof(r.environment), "test");
    EXPECT_OK(root_add_key(&r, &own->public, 0));
    EXPECT_OK(root_add_key(&r, &f.manifest.public, 0));
    EXPECT_OK(root_add_key(&r, &f.head.public, 0));
    for (int i = 0; i < ROOT_ROLE_COUNT; i++) {
        r.ring.thresholds[i] = 1;
    }
    return r;
}

static void seal(const struct root *r, const struct key_pair *signers[], size_t count,
                 struct buf *out)
{
    auto_buf struct buf body = BUF_MAX(ROOT_BODY_MAX);
    struct container_signature signatures[CONTAINER_SIGNATURES_MAX];
    uint8_t environment[ENVIRONMENT_SIZE];
    snap_environment(slice_str(r->environment), environment);
    *out = BUF_MAX(CP_ROOT_CONTAINER_MAX);
    EXPECT_OK(root_encode(r, &body));
    for (size_t i = 0; i < count; i++) {
        EXPECT_OK(container_sign(CONTAINER_ROOT, environment, buf_slice(&body), signers[i],
                                 &signatures[i]));
    }
    EXPECT_OK(
        container_seal(CONTAINER_ROOT, environment, buf_slice(&body), signatures, count, out));
}

/* Root 'version' by the key before and its own. */
static void seal_step(uint64_t version, struct buf *out)
{
    const struct key_pair *own = &f.keys[version % KEYS];
    const struct key_pair *signers[] = {own, &f.keys[(version - 1) % KEYS]};
    struct root r = plan(version, own);
    seal(&r, signers, 2, out);
}

static char *file_of(uint64_t version)
{
    char *path = NULL;
    assert_true(asprintf(&path, "%s/root.%d", f.directory, (int)version) > 0);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(f.roots[version].ptr, f.roots[version].size, 1, file), 1);
    assert_int_equal(fclose(file), 0);
    return path;
}

/* The roots of a replica that was started with the files of two versions; 0: only the first. */
static void start(uint64_t version, uint64_t next)
{
    char *first = file_of(version);
    char *second = next == 0 ? NULL : file_of(next);
    char paths[256];
    (void)snprintf(paths, sizeof(paths), "%s%s%s", first, next == 0 ? "" : ",",
                   next == 0 ? "" : second);
    struct err e = cp_roots_new(paths, "test", &f.live, &f.message);
    (void)unlink(first);
    if (second != NULL) {
        (void)unlink(second);
    }
    free(first);
    free(second);
    EXPECT_OK(e);
}

static int setup(void **state)
{
    (void)state;
    f = (struct fixture){.message = BUF_MAX(4096), .directory = "/tmp/trilane-roots-XXXXXX"};
    assert_non_null(mkdtemp(f.directory));
    for (int i = 0; i < KEYS; i++) {
        EXPECT_OK(key_pair_new(KEY_ROLE_ROOT, SLICE_LIT("root"), &f.keys[i]));
    }
    EXPECT_OK(key_pair_new(KEY_ROLE_MANIFEST, SLICE_LIT("manifest"), &f.manifest));
    EXPECT_OK(key_pair_new(KEY_ROLE_HEAD, SLICE_LIT("head"), &f.head));
    for (uint64_t i = 1; i <= ROOTS; i++) {
        seal_step(i, &f.roots[i]);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    cp_roots_free(f.live);
    buf_free(&f.message);
    for (uint64_t i = 1; i <= ROOTS; i++) {
        buf_free(&f.roots[i]);
    }
    (void)rmdir(f.directory);
    return 0;
}

static struct slice bytes_of(uint64_t version)
{
    return buf_slice(&f.roots[version]);
}

struct seen {
    uint64_t versions[ROOTS + 1];
    size_t count;
};

static struct err see(void *ctx, uint64_t version, struct slice container)
{
    struct seen *seen = ctx;
    if (seen->count > ROOTS || !slice_eq(container, bytes_of(version))) {
        return FAIL(E_MALFORMED); /* no assertion: threads come here, too. */
    }
    seen->versions[seen->count++] = version;
    return OK;
}

static void expect_known(uint64_t first, uint64_t last)
{
    struct seen seen = {0};
    EXPECT_OK(cp_roots_each(f.live, 0, see, &seen));
    assert_int_equal(seen.count, last - first + 1);
    assert_int_equal(seen.versions[0], first);
    assert_int_equal(cp_roots_version(f.live), last);
}

static void takes_files_in_order(void **state)
{
    (void)state;
    start(1, 2);
    expect_known(1, 2);
    uint8_t environment[ENVIRONMENT_SIZE];
    snap_environment(SLICE_LIT("test"), environment);
    assert_memory_equal(cp_roots_environment(f.live), environment, ENVIRONMENT_SIZE);
}

static void refuses_files_with_a_gap_or_of_another_environment(void **state)
{
    (void)state;
    char *first = file_of(1);
    char *third = file_of(3);
    char paths[256];
    (void)snprintf(paths, sizeof(paths), "%s,%s", first, third);
    EXPECT(cp_roots_new(paths, "test", &f.live, &f.message), E_ROOT_MISSING);
    EXPECT(cp_roots_new(first, "other", &f.live, &f.message), E_USAGE);
    EXPECT(cp_roots_new("", "test", &f.live, &f.message), E_USAGE);
    EXPECT(cp_roots_new("/nowhere/root.1", "test", &f.live, &f.message), E_NOT_FOUND);
    assert_null(f.live);
    (void)unlink(first);
    (void)unlink(third);
    free(first);
    free(third);
}

static void takes_the_next_one_and_knows_it_again(void **state)
{
    (void)state;
    start(1, 0);
    bool is_new = false;
    EXPECT_OK(cp_roots_take(f.live, bytes_of(2), &is_new));
    assert_true(is_new);
    EXPECT_OK(cp_roots_take(f.live, bytes_of(2), &is_new));
    EXPECT_OK(cp_roots_take(f.live, bytes_of(1), &is_new));
    assert_false(is_new);
    EXPECT(cp_roots_take(f.live, bytes_of(4), &is_new), E_ROOT_MISSING);
    struct root now;
    cp_roots_now(f.live, &now);
    assert_int_equal(now.version, 2);
    assert_memory_equal(now.ring.keys[0].public, f.keys[2].public.bytes, KEY_PUBLIC_SIZE);
    struct seen seen = {0};
    EXPECT_OK(cp_roots_each(f.live, 2, see, &seen));
    assert_int_equal(seen.count, 1);
}

static void takes_older_ones_backwards(void **state)
{
    (void)state;
    start(4, 5);
    EXPECT(cp_roots_take(f.live, bytes_of(2), NULL), E_ROOT_MISSING);
    for (uint64_t version = 3; version >= 1; version--) {
        bool is_new = true;
        EXPECT_OK(cp_roots_take(f.live, bytes_of(version), &is_new));
        assert_false(is_new);
    }
    expect_known(1, 5);
}

static void asks_both_sides(void **state)
{
    (void)state;
    start(3, 0);
    auto_buf struct buf bytes = {0};
    struct key_pair stranger;
    EXPECT_OK(key_pair_new(KEY_ROLE_ROOT, SLICE_LIT("stranger"), &stranger));
    struct root next = plan(4, &stranger);
    const struct key_pair *own[] = {&stranger};
    seal(&next, own, 1, &bytes);
    EXPECT(cp_roots_take(f.live, buf_slice(&bytes), NULL), E_ROOT_UNSIGNED);
    buf_free(&bytes);
    const struct key_pair *before[] = {&f.keys[3]};
    seal(&next, before, 1, &bytes);
    EXPECT(cp_roots_take(f.live, buf_slice(&bytes), NULL), E_ROOT_UNSIGNED);
    buf_free(&bytes);
    struct root older = plan(2, &stranger); /* root 3 does not carry its signature. */
    seal(&older, own, 1, &bytes);
    EXPECT(cp_roots_take(f.live, buf_slice(&bytes), NULL), E_ROOT_UNSIGNED);
    buf_free(&bytes);
    struct root other = plan(3, &f.keys[3]);
    other.ring.keys[2].not_after_ms = 1234567; /* another root 3, as well signed as ours. */
    const struct key_pair *both[] = {&f.keys[3], &f.keys[2]};
    seal(&other, both, 2, &bytes);
    EXPECT(cp_roots_take(f.live, buf_slice(&bytes), NULL), E_CONFLICT);
    expect_known(3, 3);
}

static void refuses_what_is_none(void **state)
{
    (void)state;
    start(1, 0);
    EXPECT(cp_roots_take(f.live, SLICE_LIT("no root"), NULL), E_ROOT_MALFORMED);
    auto_buf struct buf large = BUF_MAX(1 << 20);
    uint8_t *room = NULL;
    EXPECT_OK(buf_reserve(&large, CP_ROOT_CONTAINER_MAX + 1, &room));
    memset(room, 0, CP_ROOT_CONTAINER_MAX + 1);
    buf_commit(&large, CP_ROOT_CONTAINER_MAX + 1);
    EXPECT(cp_roots_take(f.live, buf_slice(&large), NULL), E_ROOT_MALFORMED);
    expect_known(1, 1);
}

/* ---- before one is published ---- */

static enum err_code judged(struct slice bytes, uint64_t epoch)
{
    struct root root;
    buf_clear(&f.message);
    struct err e = cp_roots_judge(f.live, bytes, epoch, &root, &f.message);
    return e.code;
}

static enum err_code judged_plan(const struct root *next, uint64_t epoch)
{
    auto_buf struct buf bytes = {0};
    const struct key_pair *both[] = {&f.keys[2], &f.keys[1]};
    seal(next, both, 2, &bytes);
    return judged(buf_slice(&bytes), epoch);
}

static void a_root_is_judged_before_it_is_taken(void **state)
{
    (void)state;
    start(1, 0);
    assert_int_equal(judged(bytes_of(2), 1), E_OK);
    assert_int_equal(judged(bytes_of(1), 1), E_OK); /* it is known. */
    assert_int_equal(judged(bytes_of(3), 1), E_ROOT_MISSING);
    assert_true(f.message.size > 0);
    struct root next = plan(2, &f.keys[2]);
    next.not_after_ms = 1000;
    assert_int_equal(judged_plan(&next, 1), E_ROOT_EXPIRED);
    next = plan(2, &f.keys[2]);
    next.has_floor = true;
    next.floor = (struct root_floor){.epoch = 5, .version = 7};
    assert_int_equal(judged_plan(&next, 5 + HEAD_EPOCH_JUMP), E_OK);
    assert_int_equal(judged_plan(&next, 6 + HEAD_EPOCH_JUMP), E_USAGE);
    next.floor = (struct root_floor){.epoch = 1ULL << 62, .version = 7};
    assert_int_equal(judged_plan(&next, 1), E_USAGE);
    next.floor = (struct root_floor){.epoch = 7, .version = 1ULL << 62};
    assert_int_equal(judged_plan(&next, 1), E_USAGE);
    expect_known(1, 1); /* nothing was taken. */
}

static void the_newest_floor_is_known(void **state)
{
    (void)state;
    auto_buf struct buf second = {0};
    auto_buf struct buf third = {0};
    struct root_floor floor = {0};
    const struct key_pair *both[] = {&f.keys[2], &f.keys[1]};
    struct root next = plan(2, &f.keys[2]);
    next.has_floor = true;
    next.floor = (struct root_floor){.epoch = 5, .version = 7};
    seal(&next, both, 2, &second);
    const struct key_pair *one[] = {&f.keys[2]};
    next = plan(3, &f.keys[2]);
    seal(&next, one, 1, &third);
    start(1, 0);
    assert_false(cp_roots_floor(f.live, &floor));
    EXPECT_OK(cp_roots_take(f.live, buf_slice(&second), NULL));
    EXPECT_OK(cp_roots_take(f.live, buf_slice(&third), NULL));
    assert_true(cp_roots_floor(f.live, &floor)); /* of the root before the one in force. */
    assert_int_equal(floor.epoch, 5);
    assert_int_equal(floor.version, 7);
}

/* ---- manifests ---- */

/* A manifest by one key. */
static void seal_manifest(const struct key_pair *key, struct buf *out)
{
    auto_buf struct buf body = BUF_MAX(MANIFEST_BODY_MAX);
    struct container_signature signature;
    uint8_t environment[ENVIRONMENT_SIZE];
    const struct manifest_plan plan_of = {.version = 7, .made_at_ms = 1};
    snap_environment(SLICE_LIT("test"), environment);
    EXPECT_OK(manifest_encode(&plan_of, &body));
    EXPECT_OK(container_sign(CONTAINER_MANIFEST, environment, buf_slice(&body), key, &signature));
    EXPECT_OK(
        container_seal(CONTAINER_MANIFEST, environment, buf_slice(&body), &signature, 1, out));
}

static enum err_code opened(struct slice container, uint64_t version, bool *out_in_force)
{
    auto_manifest struct manifest manifest = {0};
    const struct manifest_wanted wanted = {.version = version};
    struct err e = cp_roots_open(f.live, container, &wanted, &manifest, out_in_force);
    return e.code;
}

/* Root 'version' with a manifest key of its own. */
static void seal_with_manifest_key(uint64_t version, const struct key_pair *manifest,
                                   struct buf *out)
{
    const struct key_pair kept = f.manifest;
    f.manifest = *manifest;
    seal_step(version, out);
    f.manifest = kept;
}

static void a_manifest_is_opened_by_keys_that_were_there(void **state)
{
    (void)state;
    auto_buf struct buf manifest = BUF_MAX(1 << 20);
    auto_buf struct buf strange = BUF_MAX(1 << 20);
    auto_buf struct buf second = {0};
    struct key_pair other;
    struct key_pair stranger;
    bool in_force = false;
    EXPECT_OK(key_pair_new(KEY_ROLE_MANIFEST, SLICE_LIT("other"), &other));
    EXPECT_OK(key_pair_new(KEY_ROLE_MANIFEST, SLICE_LIT("stranger"), &stranger));
    seal_manifest(&f.manifest, &manifest);
    seal_manifest(&stranger, &strange);
    seal_with_manifest_key(2, &other, &second);
    start(1, 0);
    assert_int_equal(opened(buf_slice(&manifest), 7, &in_force), E_OK);
    assert_true(in_force);
    assert_int_equal(opened(buf_slice(&manifest), 8, &in_force), E_MANIFEST_MIXED);
    assert_int_equal(opened(SLICE_LIT("no manifest"), 7, &in_force), E_MANIFEST_MALFORMED);
    EXPECT_OK(cp_roots_take(f.live, buf_slice(&second), NULL));
    assert_int_equal(opened(buf_slice(&manifest), 7, &in_force), E_OK);
    assert_false(in_force);
    assert_int_equal(opened(buf_slice(&manifest), 8, &in_force), E_MANIFEST_MIXED);
    assert_int_equal(opened(buf_slice(&strange), 7, &in_force), E_MANIFEST_UNSIGNED);
}

/* Whoever writes to the database can write a root that ours would follow, with any manifest key. */
static void a_root_from_before_the_files_vouches_for_no_manifest(void **state)
{
    (void)state;
    auto_buf struct buf manifest = BUF_MAX(1 << 20);
    auto_buf struct buf first = {0};
    struct key_pair other;
    EXPECT_OK(key_pair_new(KEY_ROLE_MANIFEST, SLICE_LIT("other"), &other));
    seal_manifest(&other, &manifest);
    seal_with_manifest_key(1, &other, &first);
    start(2, 0);
    EXPECT_OK(cp_roots_take(f.live, buf_slice(&first), NULL));
    assert_int_equal(opened(buf_slice(&manifest), 7, NULL), E_MANIFEST_UNSIGNED);
}

/* ---- the database ---- */

static struct cp_store *store;

static int setup_store(void **state)
{
    char url[128];
    (void)setup(state);
    (void)snprintf(url, sizeof(url), "sqlite:%s/store.db", f.directory);
    EXPECT_OK(cp_store_open(url, &store, &f.message));
    return 0;
}

static int teardown_store(void **state)
{
    static const char *const names[] = {"store.db", "store.db-wal", "store.db-shm"};
    cp_store_close(store);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        char path[128];
        (void)snprintf(path, sizeof(path), "%s/%s", f.directory, names[i]);
        (void)unlink(path);
    }
    return teardown(state);
}

static struct err count(void *ctx, uint64_t version, struct slice container)
{
    uint64_t *newest = ctx;
    *newest = version;
    return container.size > 0 ? OK : FAIL(E_MALFORMED);
}

static uint64_t newest_in_store(void)
{
    uint64_t newest = 0;
    EXPECT_OK(store->ops->roots_get(store, "test", 0, count, &newest));
    return newest;
}

static void a_database_gets_what_it_lacks_and_gives_the_rest(void **state)
{
    (void)state;
    start(1, 2);
    EXPECT_OK(cp_roots_exchange(f.live, store, "test", &f.message));
    assert_int_equal(newest_in_store(), 2);
    EXPECT_OK(store->ops->root_put(store, "test", 3, bytes_of(3)));
    EXPECT_OK(store->ops->root_put(store, "test", 4, bytes_of(4)));
    EXPECT_OK(cp_roots_poll(f.live, store, "test"));
    expect_known(1, 4);
    EXPECT_OK(cp_roots_poll(f.live, store, "test"));
    cp_roots_free(f.live);
    f.live = NULL;
    start(3, 0); /* another replica: it knows neither the older nor the newer ones. */
    EXPECT_OK(cp_roots_exchange(f.live, store, "test", &f.message));
    expect_known(1, 4);
    cp_roots_free(f.live);
    f.live = NULL;
    start(4, 5);
    EXPECT_OK(cp_roots_exchange(f.live, store, "test", &f.message));
    assert_int_equal(newest_in_store(), 5);
}

static void roots_with_a_gap_to_the_database_are_refused(void **state)
{
    (void)state;
    EXPECT_OK(store->ops->root_put(store, "test", 1, bytes_of(1)));
    start(3, 0);
    EXPECT(cp_roots_exchange(f.live, store, "test", &f.message), E_ROOT_MISSING);
    assert_true(f.message.size > 0);
    expect_known(3, 3);
}

static void a_database_that_is_further_ahead_is_refused(void **state)
{
    (void)state;
    EXPECT_OK(store->ops->root_put(store, "test", 3, bytes_of(3)));
    start(1, 0);
    EXPECT(cp_roots_exchange(f.live, store, "test", &f.message), E_ROOT_MISSING);
    assert_true(f.message.size > 0);
    expect_known(1, 1);
}

static void another_root_in_the_database_is_refused(void **state)
{
    (void)state;
    auto_buf struct buf bytes = {0};
    struct root other = plan(1, &f.keys[1]);
    const struct key_pair *own[] = {&f.keys[1]};
    other.ring.keys[2].not_after_ms = 7;
    seal(&other, own, 1, &bytes);
    EXPECT_OK(store->ops->root_put(store, "test", 1, buf_slice(&bytes)));
    start(1, 0);
    EXPECT(cp_roots_exchange(f.live, store, "test", &f.message), E_CONFLICT);
    assert_true(f.message.size > 0);
}

/* Who can write to the database has no root key by that. */
static void a_root_that_nobody_signed_is_left_out(void **state)
{
    (void)state;
    auto_buf struct buf bytes = {0};
    struct key_pair stranger;
    EXPECT_OK(key_pair_new(KEY_ROLE_ROOT, SLICE_LIT("stranger"), &stranger));
    struct root next = plan(2, &stranger);
    const struct key_pair *own[] = {&stranger};
    seal(&next, own, 1, &bytes);
    start(1, 0);
    EXPECT_OK(store->ops->root_put(store, "test", 1, bytes_of(1)));
    EXPECT_OK(store->ops->root_put(store, "test", 2, buf_slice(&bytes)));
    EXPECT_OK(store->ops->root_put(store, "test", 3, bytes_of(3)));
    EXPECT_OK(cp_roots_exchange(f.live, store, "test", &f.message)); /* said in the log. */
    expect_known(1, 1);
    EXPECT(cp_roots_poll(f.live, store, "test"), E_ROOT_UNSIGNED);
    expect_known(1, 1);
}

static void *take_all(void *ctx)
{
    (void)ctx;
    for (uint64_t version = 1; version <= ROOTS; version++) {
        struct err e = cp_roots_take(f.live, bytes_of(version), NULL);
        struct root now;
        cp_roots_now(f.live, &now);
        struct seen seen = {0};
        if (!err_ok(e) || now.version < version || !err_ok(cp_roots_each(f.live, 0, see, &seen))) {
            return ctx;
        }
    }
    return NULL;
}

static void many_take_at_once(void **state)
{
    (void)state;
    start(1, 0);
    pthread_t threads[TAKERS];
    for (int i = 0; i < TAKERS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, take_all, &f), 0);
    }
    for (int i = 0; i < TAKERS; i++) {
        void *failed = NULL;
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
    expect_known(1, ROOTS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(takes_files_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(refuses_files_with_a_gap_or_of_another_environment, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(takes_the_next_one_and_knows_it_again, setup, teardown),
        cmocka_unit_test_setup_teardown(takes_older_ones_backwards, setup, teardown),
        cmocka_unit_test_setup_teardown(asks_both_sides, setup, teardown),
        cmocka_unit_test_setup_teardown(refuses_what_is_none, setup, teardown),
        cmocka_unit_test_setup_teardown(many_take_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(a_root_is_judged_before_it_is_taken, setup, teardown),
        cmocka_unit_test_setup_teardown(the_newest_floor_is_known, setup, teardown),
        cmocka_unit_test_setup_teardown(a_manifest_is_opened_by_keys_that_were_there, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_root_from_before_the_files_vouches_for_no_manifest, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_database_gets_what_it_lacks_and_gives_the_rest,
                                        setup_store, teardown_store),
        cmocka_unit_test_setup_teardown(roots_with_a_gap_to_the_database_are_refused, setup_store,
                                        teardown_store),
        cmocka_unit_test_setup_teardown(a_database_that_is_further_ahead_is_refused, setup_store,
                                        teardown_store),
        cmocka_unit_test_setup_teardown(another_root_in_the_database_is_refused, setup_store,
                                        teardown_store),
        cmocka_unit_test_setup_teardown(a_root_that_nobody_signed_is_left_out, setup_store,
                                        teardown_store),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
