/* Proves that `check` takes what a node would take, and names what it would refuse. */
#include "dataplane/apply/check.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/scope.h"
#include "common/snapshot/disk_pack.h"
#include "dataplane/apply/build.h"

#include "tests/support/cmocka.h"
#include "tests/support/kept.h"
#include "tests/support/publisher.h"

struct place {
    char directory[64];
    char path[80];
    struct publisher publisher;
};

static struct place place;

static int set_up(void **state)
{
    (void)state;
    (void)snprintf(place.directory, sizeof(place.directory), "/tmp/trilane-check-XXXXXX");
    assert_non_null(mkdtemp(place.directory));
    (void)snprintf(place.path, sizeof(place.path), "%s/pack", place.directory);
    publisher_init(&place.publisher);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    (void)unlink(place.path);
    assert_int_equal(rmdir(place.directory), 0);
    publisher_free(&place.publisher);
    return 0;
}

/* Writes the bundle as the leader does; 'chunks' false leaves them out. */
static void write_bundle(const struct content *c, bool chunks)
{
    struct version *v = version_new(&place.publisher, c, 5, NULL);
    auto_close int dir_fd = open(place.directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    uint8_t environment[ENVIRONMENT_SIZE];
    struct disk_steps no_steps = {0};
    struct pack pack;
    snap_environment(SLICE_LIT(PUBLISHER_ENVIRONMENT), environment);
    assert_true(err_ok(pack_open(&pack, dir_fd, environment, &no_steps)));
    for (size_t i = 0; chunks && i < v->stream_count; i++) {
        for (size_t k = 0; k < v->streams[i].chunk_count; k++) {
            assert_true(err_ok(pack_add(&pack, PACK_CHUNK, v->streams[i].chunks[k].stored)));
        }
    }
    assert_true(err_ok(pack_add_manifest(&pack, buf_slice(&v->manifest), 0, 0)));
    pack_close(&pack);
    version_free(v);
}

static struct err check(const char *environment, struct dp_check_result *result, char said[256])
{
    auto_buf struct buf message = BUF_MAX(4096);
    struct err e = dp_check(slice_str(environment), place.path, result, &message);
    (void)snprintf(said, 256, "%.*s", SLICE_ARG(buf_slice(&message)));
    return e;
}

static void takes_a_whole_one(void **state)
{
    (void)state;
    struct content *c = content_sample(1);
    struct dp_check_result result;
    char said[256];
    write_bundle(c, /* chunks= */ true);
    assert_true(err_ok(check(PUBLISHER_ENVIRONMENT, &result, said)));
    assert_int_equal(result.version, 5);
    assert_int_equal(result.parts, c->count);
    content_free(c);
}

static void names_the_part(void **state)
{
    (void)state;
    struct content *c = content_sample(1);
    struct dp_check_result result;
    char said[256];
    content_remove(c, STREAM_SCHEMAS, "User.v2");
    write_bundle(c, /* chunks= */ true);
    assert_int_equal(check(PUBLISHER_ENVIRONMENT, &result, said).code, E_PART_MALFORMED);
    assert_string_equal(said, "bus User.v2");
    content_free(c);
}

static void misses_chunks(void **state)
{
    (void)state;
    struct content *c = content_sample(1);
    struct dp_check_result result;
    char said[256];
    write_bundle(c, /* chunks= */ false);
    assert_int_equal(check(PUBLISHER_ENVIRONMENT, &result, said).code, E_CHUNK_MISSING);
    content_free(c);
}

static void refuses_what_is_no_bundle(void **state)
{
    (void)state;
    struct dp_check_result result;
    char said[256];
    assert_int_equal(check(PUBLISHER_ENVIRONMENT, &result, said).code, E_NOT_FOUND);
    FILE *file = fopen(place.path, "we");
    assert_non_null(file);
    assert_true(fputs("this is no pack", file) >= 0);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(check(PUBLISHER_ENVIRONMENT, &result, said).code, E_MANIFEST_MISSING);
}

static void refuses_another_environment(void **state)
{
    (void)state;
    struct content *c = content_sample(1);
    struct dp_check_result result;
    char said[256];
    write_bundle(c, /* chunks= */ true);
    assert_false(err_ok(check("staging", &result, said)));
    content_free(c);
}

/* What the release before this one made is taken, and means what it meant. */
static void takes_the_format_before(void **state)
{
    (void)state;
    struct dp_check_result result;
    char said[256];
    char floor[96];
    kept_copy(place.directory);
    (void)snprintf(floor, sizeof(floor), "%s/floor", place.directory);
    assert_int_equal(unlink(floor), 0);
    assert_true(err_ok(check(KEPT_ENVIRONMENT, &result, said)));
    assert_int_equal(result.version, 1);
    assert_int_equal(result.parts, 26);

    struct dp_model_bin *bin = NULL;
    struct dp_model *model = NULL;
    struct dp_build_report report;
    struct snap_set *set = kept_set();
    assert_true(err_ok(dp_model_bin_new(&bin)));
    assert_true(err_ok(dp_model_build(bin, set, NULL, &model, &report)));
    const struct dp_caller *web = dp_model_caller_by_spiffe(
        model, SLICE_LIT("spiffe://kept.trilane.test/tenant/acme/service/web"));
    assert_non_null(web);
    assert_int_equal(web->trait_count, 2);
    assert_true(dp_model_has_tenant(model, SLICE_LIT("globex")));
    assert_non_null(dp_model_topic(model, SLICE_LIT("Greeting.v1")));
    assert_int_equal(dp_model_environment(model)->partitions, 8);
    dp_model_unref(model);
    dp_model_bin_free(bin);
    snap_set_unref(set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(takes_a_whole_one, set_up, tear_down),
        cmocka_unit_test_setup_teardown(takes_the_format_before, set_up, tear_down),
        cmocka_unit_test_setup_teardown(names_the_part, set_up, tear_down),
        cmocka_unit_test_setup_teardown(misses_chunks, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refuses_what_is_no_bundle, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refuses_another_environment, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
