/*
 * yaml_fuzz: any bytes as a source file, loaded, compiled and all that is wrong rendered.
 *
 * Property: no crash, no leak, memory bounded by small limits; what is refused has a diagnostic;
 * what is taken compiles to the same bytes from nothing and with what all inputs before left.
 */
#include "common/base/check.h"
#include "common/base/ids.h"
#include "common/base/limits.h"
#include "controlplane/compile/compile.h"
#include "controlplane/compile/reuse.h"
#include "controlplane/source/source.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { TEXT_BYTES = 16 << 20 };

static const char platform[] =
    "apiVersion: trilane.dev/v1\nkind: Environment\nmetadata: {name: test}\n"
    "spec: {trustDomain: test.example}\n---\n"
    "apiVersion: trilane.dev/v1\nkind: Service\nmetadata: {name: web, tenant: acme}\nspec: {}\n";

static struct cp_reuse *reuse; /* lives as long as the process. */

static void lower_limits(void)
{
    static bool done;
    if (done) {
        return;
    }
    done = true;
    ids_init();
    limits.source_file_bytes = 1 << 20;
    limits.source_total_bytes = 2 << 20;
    limits.source_nodes = 20000;
    limits.source_diagnostics = 50;
    limits.policy_nodes = 2000;
    limits.source_cache_bytes = 1 << 20;
    CHECK(err_ok(cp_reuse_new(&reuse)));
}

static void render(const struct cp_diags *diags)
{
    auto_buf struct buf text = BUF_MAX(TEXT_BYTES);
    CHECK(err_ok(cp_diags_text(diags, &text)));
    CHECK(text.size > 0);
    buf_clear(&text);
    CHECK(err_ok(cp_diags_json(diags, &text)));
}

static void same_parts(const struct cp_compiled *a, const struct cp_compiled *b)
{
    struct cp_diff diff;
    CHECK(err_ok(cp_diff_make(a, b, &diff)));
    CHECK(diff.count == 0);
    CHECK(diff.parts_added + diff.parts_changed + diff.parts_removed == 0);
    cp_diff_free(&diff);
}

/* Compiles once; NULL when it is refused. */
static struct cp_compiled *compile(const struct cp_source_set *set, struct cp_reuse *with)
{
    struct cp_diags diags;
    struct cp_compiled *compiled = NULL;
    const struct cp_compile_options options = {.reuse = with, .inventory = true};
    cp_diags_init(&diags, set);
    struct err e = cp_compile_set(set, &diags, &options, &compiled);
    CHECK(e.code == E_OK || e.code == E_SOURCE_INVALID);
    if (e.code == E_SOURCE_INVALID) {
        CHECK(compiled == NULL && diags.count > 0);
        render(&diags);
    }
    cp_diags_free(&diags);
    return compiled;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    lower_limits();
    struct cp_source_set set;
    cp_source_set_init(&set);
    CHECK(err_ok(cp_source_set_add(&set, SLICE_LIT("platform.yaml"), slice_str(platform))));
    if (err_ok(cp_source_set_add(&set, SLICE_LIT("input.yaml"), slice_of(data, size)))) {
        struct cp_compiled *first = compile(&set, /* with= */ NULL);
        struct cp_compiled *second = compile(&set, reuse);
        CHECK((first == NULL) == (second == NULL));
        if (first != NULL) {
            same_parts(first, second);
        }
        cp_compiled_free(first);
        cp_compiled_free(second);
    }
    cp_source_set_free(&set);
    return 0;
}
