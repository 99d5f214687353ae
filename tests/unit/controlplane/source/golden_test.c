/*
 * golden: tests/golden/source/N.yaml is refused with exactly the diagnostics of N.ok, and each
 * code of the table but those that need files of their own is shown by one of them.
 *
 * Each N.yaml is loaded beside _platform.yaml; those that begin with "env-" are loaded alone. A
 * directory N is a platform of its own. Each is compiled from nothing, and again with what all
 * compiles before it left, with its files under other numbers: the diagnostics are the same.
 * TRILANE_BLESS=1 rewrites N.ok; then the diff is for review.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ids.h"
#include "common/base/limits.h"
#include "common/base/scope.h"
#include "controlplane/compile/compile.h"
#include "controlplane/compile/reuse.h"
#include "controlplane/source/source.h"

#include "tests/support/cmocka.h"

enum { FILE_BYTES = 1 << 20 };

static const char *golden_dir(void)
{
    static char path[1024];
    (void)snprintf(path, sizeof(path), "%s/tests/golden/source", getenv("TRILANE_SOURCE_DIR"));
    return path;
}

static void read_file(const char *name, struct buf *out)
{
    char path[2048];
    (void)snprintf(path, sizeof(path), "%s/%s", golden_dir(), name);
    FILE *file = fopen(path, "rbe");
    if (file == NULL) {
        fail_msg("cannot open %s", path);
    }
    uint8_t *at = NULL;
    assert_true(err_ok(buf_reserve(out, FILE_BYTES, &at)));
    buf_commit(out, fread(at, 1, FILE_BYTES, file));
    assert_int_equal(fclose(file), 0);
}

static void write_file(const char *name, struct slice bytes)
{
    char path[2048];
    (void)snprintf(path, sizeof(path), "%s/%s", golden_dir(), name);
    FILE *file = fopen(path, "wbe");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes.ptr, 1, bytes.size, file), bytes.size);
    assert_int_equal(fclose(file), 0);
}

static void add_file(struct cp_source_set *set, const char *name)
{
    auto_buf struct buf bytes = BUF_MAX(FILE_BYTES);
    read_file(name, &bytes);
    assert_true(err_ok(cp_source_set_add(set, slice_str(name), buf_slice(&bytes))));
}

static void add_directory(struct cp_source_set *set, const char *name)
{
    char path[2048];
    auto_buf struct buf message = BUF_MAX(4096);
    (void)snprintf(path, sizeof(path), "%s/%s", golden_dir(), name);
    assert_true(err_ok(cp_source_set_load(set, path, &message)));
}

/* Marks the codes that a text shows. */
static void note_codes(struct slice text, bool *shown)
{
    for (size_t i = 0; i + 6 < text.size; i++) {
        uint64_t code = 0;
        if (text.ptr[i] == 'T' && text.ptr[i + 1] == 'L' &&
            slice_to_u64(slice_of(text.ptr + i + 2, 4), &code) && code < 10000) {
            shown[code] = true;
        }
    }
}

/* The sources of a case; 'shift' puts a file before them. */
static void add_case(struct cp_source_set *set, const char *name, bool shift)
{
    if (shift) {
        assert_true(err_ok(cp_source_set_add(set, SLICE_LIT("0.yaml"), SLICE_LIT("# nothing\n"))));
    }
    if (strchr(name, '.') == NULL) {
        add_directory(set, name);
        return;
    }
    if (strncmp(name, "env-", 4) != 0) {
        add_file(set, "_platform.yaml");
    }
    add_file(set, name);
}

/* Appends the diagnostics of a case. */
static void diagnose(const char *name, struct cp_reuse *reuse, bool shift, struct buf *out)
{
    struct cp_source_set set;
    struct cp_diags diags;
    struct cp_compiled *compiled = NULL;
    const struct cp_compile_options options = {.reuse = reuse, .inventory = true};
    cp_source_set_init(&set);
    add_case(&set, name, shift);
    cp_diags_init(&diags, &set);
    struct err e = cp_compile_set(&set, &diags, &options, &compiled);
    if (e.code != E_SOURCE_INVALID) {
        fail_msg("%s: %s at %s", name, err_name(e.code), e.where == NULL ? "" : e.where);
    }
    assert_true(err_ok(cp_diags_text(&diags, out)));
    cp_diags_free(&diags);
    cp_source_set_free(&set);
}

static void expect(const char *name, struct slice text, struct slice wanted)
{
    if (text.ptr == NULL || wanted.ptr == NULL || !slice_eq(text, wanted)) {
        fail_msg("%s gives\n%.*s\nnot\n%.*s", name, SLICE_ARG(text), SLICE_ARG(wanted));
    }
}

static void check_one(const char *name, struct cp_reuse *reuse, bool *shown)
{
    auto_buf struct buf text = BUF_MAX(FILE_BYTES);
    auto_buf struct buf wanted = BUF_MAX(FILE_BYTES);
    char ok_name[512];
    size_t end = strchr(name, '.') == NULL ? 0 : sizeof(".yaml") - 1;
    (void)snprintf(ok_name, sizeof(ok_name), "%.*s.ok", (int)(strlen(name) - end), name);
    diagnose(name, /* reuse= */ NULL, /* shift= */ false, &text);
    note_codes(buf_slice(&text), shown);
    if (getenv("TRILANE_BLESS") != NULL) {
        write_file(ok_name, buf_slice(&text));
    }
    read_file(ok_name, &wanted);
    expect(name, buf_slice(&text), buf_slice(&wanted));
    for (int shift = 0; shift < 2; shift++) {
        buf_clear(&text);
        diagnose(name, reuse, shift == 1, &text);
        expect(name, buf_slice(&text), buf_slice(&wanted));
    }
}

static int is_case(const struct dirent *entry)
{
    size_t size = strlen(entry->d_name);
    bool yaml = size > 5 && strcmp(entry->d_name + size - 5, ".yaml") == 0;
    return (yaml || strchr(entry->d_name, '.') == NULL) && entry->d_name[0] != '_';
}

static void every_case_is_refused_as_written(void **state)
{
    (void)state;
    static bool shown[10000];
    struct dirent **entries = NULL;
    int count = scandir(golden_dir(), &entries, is_case, alphasort);
    struct cp_reuse *reuse = NULL;
    assert_true(count > 30);
    assert_true(err_ok(cp_reuse_new(&reuse)));
    for (int i = 0; i < count; i++) {
        check_one(entries[i]->d_name, reuse, shown);
        free(entries[i]);
    }
    free(entries);
    assert_true(cp_source_cache_counts(reuse->sources).hits > (size_t)count / 2);
    cp_reuse_free(reuse);
    struct cp_diag_row row;
    for (size_t i = 0; cp_diag_at(i, &row); i++) {
        /* Sizes, nodes and a huge policy are made by load_test and authorisation_test. */
        bool elsewhere = row.code == CP_DIAG_FILE_SIZE || row.code == CP_DIAG_FILE_UNREADABLE ||
                         row.code == CP_DIAG_POLICY_TOO_LARGE || row.code == CP_DIAG_PART_TOO_LARGE;
        if (!elsewhere && !shown[row.code]) {
            fail_msg("no golden file shows TL%d (%s)", (int)row.code, row.name);
        }
    }
}

int main(void)
{
    ids_init();
    limits.source_depth = 12;
    limits.source_nodes = 2000;
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_case_is_refused_as_written)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
