/*
 * cel_fuzz: any bytes as the condition of a rule.
 *
 * Property: no crash, no leak, memory within the arena; either a normal form within its bounds,
 * whose texts end in a NUL, or a fault that has a sentence and a place in the text.
 */
#include "controlplane/source/cel.h"

#include "common/base/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_texts(const struct slice *texts, size_t count)
{
    CHECK(count <= CP_CEL_LIST_MAX);
    for (size_t i = 0; i < count; i++) {
        CHECK(texts[i].size <= CP_CEL_TEXT_MAX + 8);
        CHECK(texts[i].ptr[texts[i].size] == '\0');
    }
}

/* A range is one, of a value that has numbers; a schedule says something. */
static void check_order(const struct cp_cel_test *test)
{
    if (test->attribute == CP_CEL_TIME) {
        CHECK(test->schedule->count > 0 || test->schedule->not_after_ms > 0);
        CHECK(test->schedule->count <= CP_SPANS_MAX);
    }
    if (test->measure != CP_CEL_ITSELF) {
        CHECK(test->attribute <= CP_CEL_HEADER);
        CHECK(test->least <= test->most);
        CHECK(test->exact_count + test->glob_count == 0);
    }
}

static void check_normal(const struct cp_cel *cel)
{
    CHECK(cel->count <= CP_CEL_ANY_MAX);
    for (size_t i = 0; i < cel->count; i++) {
        CHECK(cel->any[i].count <= CP_CEL_ALL_MAX);
        for (size_t k = 0; k < cel->any[i].count; k++) {
            const struct cp_cel_test *test = cel->any[i].tests[k];
            check_texts(test->exact, test->exact_count);
            check_texts(test->globs, test->glob_count);
            check_texts(&test->name, test->name.size > 0 ? 1 : 0);
            check_order(test);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena;
    struct cp_cel cel = {0};
    struct cp_cel_fault fault = {0};
    arena_init(&arena, 4096, 64 << 20);
    CHECK(err_ok(cp_cel_parse(slice_of(data, size), &arena, &cel, &fault)));
    if (fault.message == NULL) {
        check_normal(&cel);
    } else {
        CHECK(fault.at <= size || fault.too_large);
        CHECK(cel.any == NULL);
    }
    arena_free(&arena);
    return 0;
}
