/* Who leads, and which numbers are handed out. */
#include <pthread.h>

#include "conformance/store/rig.h"

static void first_leader_has_epoch_one(void **state)
{
    struct rig *f = *state;
    assert_int_equal(f->fence.epoch, 1);
    struct cp_lease lease = {0};
    must(f->ops->lease_read(f->store, "dev", &lease));
    assert_string_equal(lease.name, "replica");
    assert_true(lease.expires_ms > lease.now_ms);
    must_fail(f->ops->lease_read(f->store, "prod", &lease), E_NOT_FOUND);
}

static void renewing_keeps_the_epoch(void **state)
{
    struct rig *f = *state;
    struct cp_lease_wish wish = rig_wish(1, 60000);
    struct cp_lease lease = {0};
    wish.warrant[31] = 9;
    must(f->ops->lease_take(f->store, &wish, &lease));
    assert_true(lease.held);
    assert_int_equal(lease.epoch, 1);
    assert_int_equal(lease.warrant[31], 9);
}

static void a_second_holder_waits_until_the_row_runs_out(void **state)
{
    struct rig *f = *state;
    struct cp_store *second = rig_open(f->url);
    struct cp_lease_wish wish = rig_wish(2, 60000);
    struct cp_lease lease = {0};
    must(second->ops->lease_take(second, &wish, &lease));
    assert_false(lease.held);
    assert_int_equal(lease.epoch, 1);
    must(f->ops->lease_drop(f->store, &f->fence));
    must(second->ops->lease_take(second, &wish, &lease));
    assert_true(lease.held);
    assert_int_equal(lease.epoch, 2);
    cp_store_close(second);
}

static void a_lease_that_ran_out_can_be_taken(void **state)
{
    struct rig *f = *state;
    struct cp_lease_wish mine = rig_wish(1, 1);
    struct cp_lease lease = {0};
    must(f->ops->lease_take(f->store, &mine, &lease));
    struct cp_lease_wish other = rig_wish(2, 60000);
    uint64_t end = clock_mono_ns() + 30000000000ULL;
    do {
        must(f->ops->lease_take(f->store, &other, &lease));
    } while (!lease.held && clock_mono_ns() < end);
    assert_true(lease.held);
    assert_int_equal(lease.epoch, 2);
}

static void a_lost_fence_writes_nothing(void **state)
{
    struct rig *f = *state;
    must(f->ops->lease_drop(f->store, &f->fence));
    struct cp_lease_wish wish = rig_wish(2, 60000);
    struct cp_lease lease = {0};
    must(f->ops->lease_take(f->store, &wish, &lease));
    assert_true(lease.held);
    uint64_t version = 77;
    const struct cp_store_ops *ops = f->store->ops;
    must_fail(ops->version_hand(f->store, &f->fence, &version), E_NOT_LEADER);
    assert_int_equal(version, 77);
    struct cp_publication p = rig_publication(1, NULL, 0);
    must_fail(ops->publish(f->store, &f->fence, &p), E_NOT_LEADER);
    must_fail(
        ops->proposal_put(f->store, &f->fence, &(struct cp_proposal){.version = 1}, SLICE_LIT("x")),
        E_NOT_LEADER);
    must_fail(ops->sources_put(f->store, &f->fence, 1, NULL, 0), E_NOT_LEADER);
    struct cp_record record;
    must_fail(ops->latest(f->store, "dev", &record), E_NOT_FOUND);
}

static void the_epoch_can_be_raised_above_a_foreign_one(void **state)
{
    struct rig *f = *state;
    struct cp_lease_wish wish = rig_wish(1, 60000);
    wish.epoch_above = 41;
    struct cp_lease lease = {0};
    must(f->ops->lease_take(f->store, &wish, &lease));
    assert_int_equal(lease.epoch, 42);
    must(f->ops->lease_take(f->store, &wish, &lease));
    assert_int_equal(lease.epoch, 42);
    uint64_t version = 0;
    must_fail(f->ops->version_hand(f->store, &f->fence, &version),
              E_NOT_LEADER); /* the old epoch is fenced out, too. */
}

static void the_holders_address_is_told(void **state)
{
    struct rig *f = *state;
    struct cp_lease lease = {0};
    must(f->ops->lease_read(f->store, "dev", &lease));
    assert_string_equal(lease.address, "https://replica:9443");
    struct cp_lease_wish wish = rig_wish(2, 60000);
    must(f->ops->lease_take(f->store, &wish, &lease)); /* who does not get it is told, too. */
    assert_false(lease.held);
    assert_string_equal(lease.address, "https://replica:9443");
    wish = rig_wish(1, 60000);
    wish.address = NULL;
    must(f->ops->lease_take(f->store, &wish, &lease));
    assert_string_equal(lease.address, "");
}

struct racer {
    pthread_t thread;
    struct cp_store *store;
    struct cp_lease_wish wish;
    struct cp_lease lease;
    struct err result;
};

static void *race(void *ctx)
{
    struct racer *r = ctx;
    r->result = r->store->ops->lease_take(r->store, &r->wish, &r->lease);
    return NULL;
}

/* The row is there and run out, or is not there at all. */
static void check_race(struct rig *f, const char *environment, uint64_t epoch)
{
    enum { RACERS = 4 };
    struct racer racers[RACERS] = {0};
    for (int i = 0; i < RACERS; i++) {
        racers[i].store = rig_open(f->url);
        racers[i].wish = rig_wish((uint8_t)(10 + i), 60000);
        racers[i].wish.environment = environment;
    }
    for (int i = 0; i < RACERS; i++) {
        assert_int_equal(pthread_create(&racers[i].thread, NULL, race, &racers[i]), 0);
    }
    int winners = 0;
    for (int i = 0; i < RACERS; i++) {
        assert_int_equal(pthread_join(racers[i].thread, NULL), 0);
        must(racers[i].result);
        assert_int_equal(racers[i].lease.epoch, epoch);
        winners += racers[i].lease.held;
        cp_store_close(racers[i].store);
    }
    assert_int_equal(winners, 1);
}

static void of_many_that_race_one_leads(void **state)
{
    struct rig *f = *state;
    must(f->ops->lease_drop(f->store, &f->fence));
    check_race(f, "dev", 2);
    check_race(f, "prod", 1);
}

static void an_epoch_that_cannot_grow_is_refused(void **state)
{
    struct rig *f = *state;
    struct cp_lease_wish wish = rig_wish(1, 60000);
    wish.epoch_above = (uint64_t)INT64_MAX + 1;
    struct cp_lease lease = {0};
    must_fail(f->ops->lease_take(f->store, &wish, &lease), E_TOO_LARGE);
    uint64_t version = 0;
    must(f->ops->version_hand(f->store, &f->fence, &version)); /* nothing changed. */
}

/* ---- numbers ---- */

static void numbers_grow_and_never_come_twice(void **state)
{
    struct rig *f = *state;
    assert_int_equal(rig_hand(f), 1);
    assert_int_equal(rig_hand(f), 2);
    struct cp_store *second = rig_open(f->url);
    uint64_t version = 0;
    must(second->ops->version_hand(second, &f->fence, &version));
    assert_int_equal(version, 3);
    cp_store_close(second);
}

struct asker {
    pthread_t thread;
    struct cp_store *store;
    const struct cp_fence *fence;
    uint64_t versions[8];
    struct err result;
};

static void *hand_many(void *ctx)
{
    struct asker *h = ctx;
    for (int i = 0; i < 8 && err_ok(h->result); i++) {
        h->result = h->store->ops->version_hand(h->store, h->fence, &h->versions[i]);
    }
    return NULL;
}

static void numbers_are_apart_when_two_ask_at_once(void **state)
{
    struct rig *f = *state;
    struct asker askers[2] = {{.fence = &f->fence}, {.fence = &f->fence}};
    bool seen[17] = {false};
    for (int i = 0; i < 2; i++) {
        askers[i].store = rig_open(f->url);
        assert_int_equal(pthread_create(&askers[i].thread, NULL, hand_many, &askers[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(askers[i].thread, NULL), 0);
        must(askers[i].result);
        cp_store_close(askers[i].store);
        for (int k = 0; k < 8; k++) {
            assert_in_range(askers[i].versions[k], 1, 16);
            assert_false(seen[askers[i].versions[k]]);
            seen[askers[i].versions[k]] = true;
        }
    }
}

static void numbers_can_be_raised(void **state)
{
    struct rig *f = *state;
    assert_int_equal(rig_hand(f), 1);
    must(f->ops->version_raise(f->store, &f->fence, 41));
    assert_int_equal(rig_hand(f), 42);
    must(f->ops->version_raise(f->store, &f->fence, 40));
    must(f->ops->version_raise(f->store, &f->fence, 42));
    must(f->ops->version_raise(f->store, &f->fence, 0));
    assert_int_equal(rig_hand(f), 43);
    must_fail(f->ops->version_raise(f->store, &f->fence, INT64_MAX), E_TOO_LARGE);
    must_fail(f->ops->version_raise(f->store, &f->fence, INT64_MAX / 2 + 1), E_TOO_LARGE);
    (void)rig_take_over(f, 2);
    must_fail(f->ops->version_raise(f->store, &f->fence, 100), E_NOT_LEADER);
}

const struct CMUnitTest lease_cases[] = {
    RIG_CASE(first_leader_has_epoch_one),
    RIG_CASE(renewing_keeps_the_epoch),
    RIG_CASE(a_second_holder_waits_until_the_row_runs_out),
    RIG_CASE(a_lease_that_ran_out_can_be_taken),
    RIG_CASE(a_lost_fence_writes_nothing),
    RIG_CASE(the_epoch_can_be_raised_above_a_foreign_one),
    RIG_CASE(the_holders_address_is_told),
    RIG_CASE(of_many_that_race_one_leads),
    RIG_CASE(an_epoch_that_cannot_grow_is_refused),
    RIG_CASE(numbers_grow_and_never_come_twice),
    RIG_CASE(numbers_are_apart_when_two_ask_at_once),
    RIG_CASE(numbers_can_be_raised),
};
const size_t lease_case_count = sizeof(lease_cases) / sizeof(lease_cases[0]);
