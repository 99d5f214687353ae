/*
 * describe: policies/schema/ and docs/resources.md are what the table of kinds gives. When this
 * fails: build/dev/trilane-describe . and review the diff.
 */
#include <stdio.h>
#include <stdlib.h>

#include "common/base/scope.h"
#include "controlplane/source/source.h"

#include "tests/support/cmocka.h"

enum { FILE_BYTES = 4 << 20 };

static void expect_file(const char *path, struct slice wanted)
{
    char name[1024];
    auto_buf struct buf found = BUF_MAX(FILE_BYTES);
    uint8_t *at = NULL;
    (void)snprintf(name, sizeof(name), "%s/%s", getenv("TRILANE_SOURCE_DIR"), path);
    FILE *file = fopen(name, "re");
    if (file == NULL) {
        fail_msg("%s is missing", path);
    }
    assert_true(err_ok(buf_reserve(&found, FILE_BYTES, &at)));
    buf_commit(&found, fread(at, 1, FILE_BYTES, file));
    assert_int_equal(fclose(file), 0);
    if (!slice_eq(buf_slice(&found), wanted)) {
        fail_msg("%s is not what the table gives: run build/dev/trilane-describe .", path);
    }
}

static void schemas_are_those_of_the_table(void **state)
{
    (void)state;
    size_t count = 0;
    for (const char *kind = NULL; (kind = cp_source_kind(count)) != NULL; count++) {
        auto_buf struct buf schema = BUF_MAX(FILE_BYTES);
        char path[128];
        assert_true(err_ok(cp_source_schema(kind, &schema)));
        (void)snprintf(path, sizeof(path), "policies/schema/%s.json", kind);
        expect_file(path, buf_slice(&schema));
    }
    assert_int_equal(count, 10);
}

static void reference_is_that_of_the_table(void **state)
{
    (void)state;
    auto_buf struct buf page = BUF_MAX(FILE_BYTES);
    assert_true(err_ok(cp_source_reference(&page)));
    expect_file("docs/resources.md", buf_slice(&page));
}

static void an_unknown_kind_has_no_schema(void **state)
{
    (void)state;
    auto_buf struct buf schema = BUF_MAX(FILE_BYTES);
    assert_int_equal(cp_source_schema("Servcie", &schema).code, E_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schemas_are_those_of_the_table),
        cmocka_unit_test(reference_is_that_of_the_table),
        cmocka_unit_test(an_unknown_kind_has_no_schema),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
