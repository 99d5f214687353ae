/* puts: what was put lately need not be put again, and all else must. */
#include "controlplane/publish/puts.h"

#include <string.h>

#include "common/base/clock.h"
#include "common/base/limits.h"

#include "tests/support/cmocka.h"

enum { FRESH_MS = 600000, UP_MS = 3600000 }; /* no test takes a tenth of the first. */

/* So much later than at the start, which is an hour after the machine's. */
static void pass_ms(int64_t ms)
{
    clock_shift_for_test((UP_MS + ms) * 1000000, 0);
}

struct name {
    uint8_t digest[DIGEST_SHORT_SIZE];
};

static struct name name_of(uint32_t number)
{
    struct name name = {{0}};
    memcpy(name.digest, &number, sizeof(number));
    return name;
}

static int set_up(void **state)
{
    (void)state;
    limits.chunk_fresh_ms = FRESH_MS;
    pass_ms(0);
    return 0;
}

static void a_put_is_fresh_for_its_time(void **state)
{
    (void)state;
    struct cp_puts puts = {0};
    struct name a = name_of(1);
    struct name b = name_of(2);
    assert_false(cp_puts_is_fresh(&puts, a.digest));
    cp_puts_note(&puts, a.digest, /* age_ms= */ 0);
    assert_true(cp_puts_is_fresh(&puts, a.digest));
    assert_false(cp_puts_is_fresh(&puts, b.digest));
    pass_ms(FRESH_MS / 10 * 9);
    assert_true(cp_puts_is_fresh(&puts, a.digest));
    pass_ms(FRESH_MS + 1);
    assert_false(cp_puts_is_fresh(&puts, a.digest));
    cp_puts_note(&puts, a.digest, 0);
    assert_true(cp_puts_is_fresh(&puts, a.digest));
    cp_puts_forget(&puts);
    assert_false(cp_puts_is_fresh(&puts, a.digest));
    cp_puts_free(&puts);
}

static void ages_are_believed_and_never_rejuvenate(void **state)
{
    (void)state;
    struct cp_puts puts = {0};
    struct name a = name_of(1);
    cp_puts_note(&puts, a.digest, /* age_ms= */ FRESH_MS);
    assert_false(cp_puts_is_fresh(&puts, a.digest));
    cp_puts_note(&puts, a.digest, UINT64_MAX);
    assert_false(cp_puts_is_fresh(&puts, a.digest));
    assert_int_equal(puts.chunks.count, 0);
    cp_puts_note(&puts, a.digest, FRESH_MS / 10 * 6);
    cp_puts_note(&puts, a.digest,
                 FRESH_MS / 10 * 9); /* an older put says nothing about the younger one. */
    pass_ms(FRESH_MS / 10 * 3);
    assert_true(cp_puts_is_fresh(&puts, a.digest));
    pass_ms(FRESH_MS / 10 * 5);
    assert_false(cp_puts_is_fresh(&puts, a.digest));
    cp_puts_free(&puts);
}

/* Past the bound what is not fresh goes first; what cannot be remembered is put again. */
static void memory_is_bounded(void **state)
{
    (void)state;
    enum { BOUND = 65536 };
    struct cp_puts puts = {0};
    for (uint32_t i = 0; i < BOUND; i++) {
        struct name name = name_of(i);
        cp_puts_note(&puts, name.digest, 0);
    }
    struct name more = name_of(BOUND);
    cp_puts_note(&puts, more.digest, 0);
    assert_false(cp_puts_is_fresh(&puts, more.digest));
    assert_int_equal(puts.chunks.count, BOUND);
    pass_ms(5 * FRESH_MS);
    cp_puts_note(&puts, more.digest, 0);
    assert_true(cp_puts_is_fresh(&puts, more.digest));
    assert_int_equal(puts.chunks.count, 1);
    cp_puts_free(&puts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_put_is_fresh_for_its_time, set_up),
        cmocka_unit_test_setup(ages_are_believed_and_never_rejuvenate, set_up),
        cmocka_unit_test_setup(memory_is_bounded, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
