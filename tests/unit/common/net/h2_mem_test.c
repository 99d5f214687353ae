/* Proves: blocks are used again; what a burst left goes back bit by bit once it lies idle, and not
 * what is in use again and again; and all is gone at the end. */
#include "common/net/h2_mem.h"

#include <string.h>

#include "tests/support/cmocka.h"

enum {
    CHUNK = PAGES_BLOCK_BYTES - H2_MEM_HEAD_BYTES,
    BURST = 4096, /* blocks: 64 MiB. */
    PULSE = 2048,
};
enum { KEPT_BLOCKS = H2_MEM_KEPT_BYTES / PAGES_BLOCK_BYTES };

static void *blocks[BURST];

/* Also where a sanitizer looks on. */
static struct h2_mem mem_that_keeps(void)
{
    struct h2_mem mem;
    h2_mem_init(&mem);
    mem.keeps = true;
    return mem;
}

static void burst(struct h2_mem *mem, size_t count, size_t size)
{
    for (size_t i = 0; i < count; i++) {
        blocks[i] = h2_mem_alloc(mem, size);
        assert_non_null(blocks[i]);
        memset(blocks[i], (int)i, size);
    }
    for (size_t i = 0; i < count; i++) {
        h2_mem_free(mem, blocks[i]);
    }
}

static void a_block_is_used_again(void **state)
{
    (void)state;
    struct h2_mem mem = mem_that_keeps();
    for (size_t size = 1; size <= 64 << 10; size *= 2) {
        void *block = h2_mem_alloc(&mem, size);
        assert_non_null(block);
        assert_true(h2_mem_size(block) >= size);
        memset(block, 7, size);
        h2_mem_free(&mem, block);
        bool kept = mem.kept > 0;
        assert_int_equal(kept, size + H2_MEM_HEAD_BYTES <= 32 << 10);
        if (kept) {
            assert_ptr_equal(h2_mem_alloc(&mem, size), block);
            h2_mem_free(&mem, block);
        }
        h2_mem_clear(&mem);
        assert_int_equal(mem.kept, 0);
    }
}

/* Of two sizes: the one is of pages, the other of the heap. */
static void a_burst_goes_back_bit_by_bit(void **state)
{
    (void)state;
    const size_t sizes[] = {CHUNK, 4096 - H2_MEM_HEAD_BYTES};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct h2_mem mem = mem_that_keeps();
        burst(&mem, BURST, sizes[i]);
        burst(&mem, KEPT_BLOCKS, CHUNK); /* so that there is more than is kept in any case. */
        h2_mem_give_back(&mem);          /* nothing lay idle since the last call. */
        size_t before = mem.kept;
        assert_true(before > H2_MEM_KEPT_BYTES);
        size_t rounds = 0;
        while (mem.kept > H2_MEM_KEPT_BYTES) {
            h2_mem_give_back(&mem);
            assert_true(before - mem.kept <= H2_MEM_GIVE_BYTES + PAGES_BLOCK_BYTES);
            assert_true(mem.kept < before);
            before = mem.kept;
            rounds++;
        }
        assert_true(rounds > 1);
        assert_true(mem.kept > H2_MEM_KEPT_BYTES - PAGES_BLOCK_BYTES);
        h2_mem_give_back(&mem);
        assert_int_equal(mem.kept, before);
        h2_mem_clear(&mem);
    }
}

static void what_is_in_use_again_and_again_stays(void **state)
{
    (void)state;
    struct h2_mem mem = mem_that_keeps();
    burst(&mem, PULSE, CHUNK);
    h2_mem_give_back(&mem);
    size_t kept = mem.kept;
    for (int turn = 0; turn < 10; turn++) {
        burst(&mem, PULSE, CHUNK);
        h2_mem_give_back(&mem);
        assert_int_equal(mem.kept, kept);
    }
    h2_mem_clear(&mem);
}

static void zeroed_it_keeps_nothing(void **state)
{
    (void)state;
    struct h2_mem mem = {0};
    burst(&mem, 10, CHUNK);
    assert_int_equal(mem.kept, 0);
    assert_int_equal(mem.chunks.slab_count, 0);
    h2_mem_give_back(&mem);
    h2_mem_clear(&mem);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_block_is_used_again),
        cmocka_unit_test(a_burst_goes_back_bit_by_bit),
        cmocka_unit_test(what_is_in_use_again_and_again_stays),
        cmocka_unit_test(zeroed_it_keeps_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
