/* Proves: blocks are apart, and what is given back has no memory until it is taken and touched. */
#include "common/base/pages.h"

#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/support/cmocka.h"

enum { BLOCKS = 3 * PAGES_SLAB_BLOCKS / 2 };

/* Pages of a block that have memory. */
static size_t resident(void *block)
{
    unsigned char pages[PAGES_BLOCK_BYTES];
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t count = 0;
    assert_int_equal(mincore(block, PAGES_BLOCK_BYTES, pages), 0);
    for (size_t i = 0; i < PAGES_BLOCK_BYTES / page; i++) {
        count += pages[i] & 1U;
    }
    return count;
}

static void take_all(struct pages *p, unsigned char **blocks)
{
    for (size_t i = 0; i < BLOCKS; i++) {
        blocks[i] = pages_take(p);
        assert_non_null(blocks[i]);
        memset(blocks[i], (int)i + 1, PAGES_BLOCK_BYTES);
    }
}

static void blocks_are_apart(void **state)
{
    (void)state;
    struct pages p = {0};
    unsigned char *blocks[BLOCKS];
    take_all(&p, blocks);
    for (size_t i = 0; i < BLOCKS; i++) {
        assert_int_equal(blocks[i][0], i + 1);
        assert_int_equal(blocks[i][PAGES_BLOCK_BYTES - 1], i + 1);
        pages_give(&p, blocks[i]);
    }
    pages_clear(&p);
    assert_int_equal(p.slab_count, 0);
}

static void what_is_given_back_has_no_memory(void **state)
{
    (void)state;
    struct pages p = {0};
    unsigned char *blocks[BLOCKS];
    take_all(&p, blocks);
    size_t whole = resident(blocks[7]);
    assert_true(whole > 0);
    pages_give(&p, blocks[7]);
    assert_int_equal(resident(blocks[7]), 0);
    assert_int_equal(resident(blocks[6]), whole);
    assert_int_equal(resident(blocks[8]), whole);
    unsigned char *again = pages_take(&p);
    assert_ptr_equal(again, blocks[7]);
    assert_int_equal(again[100], 0);
    for (size_t i = 0; i < BLOCKS; i++) {
        pages_give(&p, blocks[i]);
    }
    pages_clear(&p);
}

static void what_is_there_is_taken_first(void **state)
{
    (void)state;
    struct pages p = {0};
    unsigned char *blocks[BLOCKS];
    for (int round = 0; round < 3; round++) {
        take_all(&p, blocks);
        assert_int_equal(p.slab_count, 2);
        for (size_t i = 0; i < BLOCKS; i++) {
            pages_give(&p, blocks[i]);
        }
    }
    pages_clear(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_are_apart),
        cmocka_unit_test(what_is_given_back_has_no_memory),
        cmocka_unit_test(what_is_there_is_taken_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
