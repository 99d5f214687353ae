/* Proves which endpoint a call goes to: each policy's shares, what hashing keeps when endpoints
 * come and go, slow start, that a call meets no endpoint twice whatever a swap does, and that no
 * turn makes thousands of endpoints. Real upstreams, model, pool and loop; nobody is connected to.
 */
#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/net/tls.h"
#include "dataplane/operator/upstream_impl.h"

#include "tests/unit/dataplane/operator/upstream_world.h"

/* Picks for 'count' calls, none of which ends; 'got' counts by the last byte of the address. */
static void pick_many(struct world *w, size_t count, size_t got[])
{
    for (size_t i = 0; i < count; i++) {
        struct op_endpoint *e = NULL;
        struct op_tries tries = {0};
        world_ask(w, i);
        assert_true(err_ok(op_upstreams_pick(w->ups, &w->rq, &tries, &e)));
        got[world_index(e)]++;
    }
}

static void round_robin_is_exact_and_spread(void **state)
{
    struct world *w = *state;
    world_publish(w, &(struct plan){.count = 2, .weights = {9, 1}});
    size_t got[3] = {0};
    pick_many(w, 1000, got);
    assert_int_equal(got[0], 900);
    assert_int_equal(got[1], 100);
    size_t in_a_row = 0;
    size_t longest = 0;
    for (size_t i = 0; i < 100; i++) {
        in_a_row = world_pick(w, i) == 0 ? in_a_row + 1 : 0;
        longest = in_a_row > longest ? in_a_row : longest;
    }
    assert_in_range(longest, 1, 9);
    world_publish(w, &(struct plan){.count = 3});
    size_t even[3] = {0};
    pick_many(w, 300, even);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(even[i], 100);
    }
}

/* Calls that do not end: the shares of the weights, closer than drawing lots would come to. */
static void least_request_levels_what_is_under_way(void **state)
{
    struct world *w = *state;
    world_publish(w, &(struct plan){.count = 10, .policy = LEAST_REQUEST});
    size_t got[10] = {0};
    struct op_endpoint *held[400];
    for (size_t i = 0; i < 400; i++) {
        held[i] = world_pick_endpoint(w, i);
        op_attempt_begin(held[i]);
        got[world_index(held[i])]++;
    }
    for (size_t i = 0; i < 10; i++) {
        assert_in_range(got[i], 37, 43); /* drawing lots: 28 to 52. */
    }
    for (size_t i = 0; i < 400; i++) {
        op_attempt_end(held[i], &(struct op_outcome){.end = OP_END_ANSWERED});
    }
    world_publish(w, &(struct plan){.count = 2, .weights = {3, 1}, .policy = LEAST_REQUEST});
    size_t weighed[2] = {0};
    for (size_t i = 0; i < 400; i++) {
        held[i] = world_pick_endpoint(w, i);
        op_attempt_begin(held[i]);
        weighed[world_index(held[i])]++;
    }
    assert_in_range(weighed[0], 298, 302);
    for (size_t i = 0; i < 400; i++) {
        op_attempt_end(held[i], &(struct op_outcome){.end = OP_END_ANSWERED});
    }
}

static void pick_first_stays_with_the_heaviest_that_is_well(void **state)
{
    struct world *w = *state;
    world_publish(w, &(struct plan){.count = 3, .weights = {1, 5, 2}, .policy = PICK_FIRST});
    for (size_t i = 0; i < 20; i++) {
        assert_int_equal(world_pick(w, i), 1);
    }
    op_endpoint_report(world_pick_endpoint(w, 0), /* reached: */ false);
    assert_int_equal(world_pick(w, 0), 2);
    op_endpoint_report(world_pick_endpoint(w, 0), /* reached: */ false);
    assert_int_equal(world_pick(w, 0), 0);
    world_pass(w, 1001);
    assert_int_equal(world_pick(w, 0), 1);
}

static void peak_ewma_prefers_who_answers_soon_and_asks_again(void **state)
{
    struct world *w = *state;
    world_publish(w, &(struct plan){.count = 2, .policy = PEAK_EWMA});
    for (size_t i = 0; i < 2; i++) { /* each is met, and answers. */
        struct op_endpoint *e = world_endpoint(w, i);
        op_attempt_begin(e);
        op_attempt_end(e, &(struct op_outcome){.end = OP_END_ANSWERED,
                                               .took_ns = i == 0 ? 1000000 : 50000000});
    }
    size_t got[2] = {0};
    pick_many(w, 200, got);
    assert_int_equal(got[1], 0);
    /* What was slow once is forgotten as time passes; the other one goes on answering. */
    for (size_t i = 0; i < 20 && world_pick(w, i) == 0; i++) {
        world_pass(w, 5000);
        op_attempt_begin(world_endpoint(w, 0));
        op_attempt_end(world_endpoint(w, 0),
                       &(struct op_outcome){.end = OP_END_ANSWERED, .took_ns = 1000000});
    }
    assert_int_equal(world_pick(w, 0), 1);
}

/* ---- hashing ---- */

enum { KEYS = 2000 };

static void pick_keys(struct world *w, size_t got[KEYS])
{
    for (size_t i = 0; i < KEYS; i++) {
        char key[32];
        (void)snprintf(key, sizeof(key), "session-%zu", i);
        world_ask(w, i * 7 + 1);
        w->header = key;
        got[i] = world_index(world_pick_asked(w));
        world_ask(w, i * 13 + 5); /* whatever is drawn, and by another turn. */
        w->header = key;
        assert_int_equal(world_index(world_pick_asked(w)), got[i]);
    }
}

static void shares(const size_t got[KEYS], size_t out[], size_t count)
{
    for (size_t i = 0; i < count; i++) {
        out[i] = 0;
    }
    for (size_t i = 0; i < KEYS; i++) {
        assert_in_range(got[i], 0, count - 1);
        out[got[i]]++;
    }
}

/* Takes the fourth of ten away, and brings it back: nobody else's keys move. */
static void hashing_keeps(struct world *w, uint32_t policy)
{
    static size_t before[KEYS];
    static size_t without[KEYS];
    static size_t again[KEYS];
    size_t share[10];
    const struct plan all = {.count = 10, .policy = policy, .hash_header = "x-session"};
    struct plan fewer = all;
    fewer.leave_out = 4; /* its number, from 1. */
    world_publish(w, &all);
    pick_keys(w, before);
    shares(before, share, 10);
    for (size_t i = 0; i < 10; i++) {
        assert_in_range(share[i], KEYS / 10 * 6 / 10, KEYS / 10 * 14 / 10);
    }
    world_publish(w, &fewer);
    pick_keys(w, without);
    world_publish(w, &all);
    pick_keys(w, again);
    for (size_t i = 0; i < KEYS; i++) {
        assert_int_not_equal(without[i], 3);
        assert_true(without[i] == before[i] || before[i] == 3);
        assert_int_equal(again[i], before[i]);
    }
}

static void ring_hash_moves_the_keys_of_who_leaves_alone(void **state)
{
    hashing_keeps(*state, RING_HASH);
}

static void rendezvous_moves_the_keys_of_who_leaves_alone(void **state)
{
    hashing_keeps(*state, RENDEZVOUS);
}

static void hashing_goes_by_weight(void **state)
{
    struct world *w = *state;
    static size_t got[KEYS];
    const uint32_t policies[] = {RING_HASH, RENDEZVOUS};
    for (size_t i = 0; i < 2; i++) {
        size_t share[2];
        world_publish(w, &(struct plan){.count = 2,
                                        .weights = {3, 1},
                                        .policy = policies[i],
                                        .hash_header = "x-session"});
        pick_keys(w, got);
        shares(got, share, 2);
        assert_in_range(share[0], KEYS * 65 / 100, KEYS * 85 / 100);
    }
}

/* By tenant all calls of one are alike; a call without the header is drawn. */
static void what_is_hashed_by(void **state)
{
    struct world *w = *state;
    world_publish(w, &(struct plan){.count = 10, .policy = RING_HASH, .hash_tenant = true});
    size_t first = world_pick(w, 0);
    for (size_t i = 1; i < 50; i++) {
        assert_int_equal(world_pick(w, i), first);
    }
    world_publish(w, &(struct plan){.count = 10, .policy = RENDEZVOUS, .hash_header = "x-session"});
    size_t got[10] = {0};
    pick_many(w, 1000, got);
    for (size_t i = 0; i < 10; i++) {
        assert_in_range(got[i], 50, 150);
    }
}

/* The endpoint of a key fails: its next one is the same for every call of the key. */
static void a_key_has_a_second_endpoint(void **state)
{
    struct world *w = *state;
    const uint32_t policies[] = {RING_HASH, RENDEZVOUS};
    for (size_t i = 0; i < 2; i++) {
        world_publish(
            w, &(struct plan){.count = 10, .policy = policies[i], .hash_header = "x-session"});
        world_ask(w, 1);
        w->header = "session";
        struct op_tries tries = {0};
        struct op_endpoint *own = NULL;
        struct op_endpoint *next = NULL;
        assert_true(err_ok(op_upstreams_pick(w->ups, &w->rq, &tries, &own)));
        assert_true(err_ok(op_upstreams_pick(w->ups, &w->rq, &tries, &next)));
        assert_ptr_not_equal(own, next);
        op_endpoint_report(own, /* reached: */ false);
        for (size_t k = 0; k < 20; k++) {
            world_ask(w, k);
            w->header = "session";
            assert_ptr_equal(world_pick_asked(w), next);
        }
        world_pass(w, 2000);
    }
}

/* ---- localities ---- */

static void eject(struct op_endpoint *e)
{
    for (size_t i = 0; i < 5; i++) {
        op_attempt_begin(e);
        op_attempt_end(e, &(struct op_outcome){.end = OP_END_FAILED});
    }
}

/* Two endpoints in the node's zone, two in its region, and two elsewhere. */
static void spills_over(struct world *w, uint32_t policy)
{
    Trilane__Parts__V1__OutlierDetection rules;
    trilane__parts__v1__outlier_detection__init(&rules);
    rules.consecutive_failures = 5;
    rules.statuses = 1 << 14;
    rules.interval_ms = 10000;
    rules.base_ejection_ms = 30000;
    rules.max_ejection_ms = 30000;
    rules.max_ejection_percent = 100;
    dp_model_bin_place(w->bin, &(struct dp_locality){SLICE_LIT("eu"), SLICE_LIT("a")});
    world_publish(w, &(struct plan){.count = 6,
                                    .regions = {"us", "us", "eu", "eu", "eu", "eu"},
                                    .zones = {"a", "b", "b", "c", "a", "a"},
                                    .policy = policy,
                                    .hash_header = policy == RING_HASH ? "x-session" : NULL,
                                    .outliers = &rules});
    size_t near[6] = {0};
    pick_many(w, 1000, near);
    assert_int_equal(near[4] + near[5], 1000);
    eject(world_endpoint(w, 4));
    size_t half[6] = {0};
    pick_many(w, 2000, half);
    assert_int_equal(half[4], 0);
    assert_in_range(half[5], 1300, 1500); /* 140 percent of a half. */
    assert_in_range(half[2] + half[3], 500, 700);
    eject(world_endpoint(w, 5));
    size_t none[6] = {0};
    pick_many(w, 1000, none);
    assert_int_equal(none[2] + none[3], 1000);
}

static void calls_stay_near_and_spill_over(void **state)
{
    spills_over(*state, ROUND_ROBIN);
}

static void drawn_calls_spill_over_alike(void **state)
{
    spills_over(*state, LEAST_REQUEST);
}

static void hashed_calls_spill_over_alike(void **state)
{
    spills_over(*state, RING_HASH);
}

/* Nobody of the zone can be reached: the region is called, though nobody was ejected. */
static void who_refuses_connections_is_passed_over_for_the_next_level(void **state)
{
    struct world *w = *state;
    dp_model_bin_place(w->bin, &(struct dp_locality){SLICE_LIT("eu"), SLICE_LIT("a")});
    world_publish(w, &(struct plan){.count = 2, .regions = {"eu", "eu"}, .zones = {"a", "b"}});
    assert_int_equal(world_pick(w, 1), 0);
    op_endpoint_report(world_endpoint(w, 0), /* reached: */ false);
    assert_int_equal(world_pick(w, 2), 1);
    op_endpoint_report(world_endpoint(w, 1), /* reached: */ false);
    (void)world_pick(w, 3); /* better to try than to refuse. */
    world_pass(w, 1001);
    assert_int_equal(world_pick(w, 4), 0);
}

/* ---- endpoints that come and go ---- */

/* A swap puts another endpoint before the one that was tried: places move, the call does not meet
 * it again, and meets both others. */
static void a_call_meets_no_endpoint_twice_over_a_swap(void **state)
{
    struct world *w = *state;
    const uint32_t policies[] = {ROUND_ROBIN, LEAST_REQUEST, PICK_FIRST};
    for (size_t i = 0; i < 3; i++) {
        world_publish(w, &(struct plan){.count = 3, .leave_out = 1, .policy = policies[i]});
        struct op_tries tries = {0};
        struct op_endpoint *e = NULL;
        bool met[3] = {false};
        world_ask(w, i);
        assert_true(err_ok(op_upstreams_pick(w->ups, &w->rq, &tries, &e)));
        met[world_index(e)] = true;
        world_publish(w, &(struct plan){.count = 3, .policy = policies[i]});
        world_ask(w, i);
        for (size_t k = 0; k < 2; k++) {
            assert_true(err_ok(op_upstreams_pick(w->ups, &w->rq, &tries, &e)));
            assert_false(met[world_index(e)]);
            met[world_index(e)] = true;
        }
        assert_int_equal(op_upstreams_pick(w->ups, &w->rq, &tries, &e).code, E_NO_HEALTHY_ENDPOINT);
    }
}

/* A request that still has the model before is given what is in force. */
static void a_request_of_an_older_model_gets_what_is_in_force(void **state)
{
    struct world *w = *state;
    world_publish(w, &(struct plan){.count = 1});
    world_ask(w, 0);
    struct dp_request older = w->rq;
    struct dp_model *pinned = dp_model_ref(w->model);
    world_publish(w, &(struct plan){.count = 2, .leave_out = 1});
    struct op_tries tries = {0};
    struct op_endpoint *e = NULL;
    assert_true(err_ok(op_upstreams_pick(w->ups, &older, &tries, &e)));
    assert_int_equal(world_index(e), 1);
    dp_model_unref(pinned);
}

static void a_swap_leaves_what_is_the_same_alone(void **state)
{
    struct world *w = *state;
    world_publish(w, &(struct plan){.count = 3});
    (void)world_pick(w, 0);
    uint32_t edition = w->ups->all->edition;
    struct op_endpoint *kept = world_endpoint(w, 1);
    world_publish(w, &(struct plan){.count = 3, .web_port = 99});
    (void)world_pick(w, 0);
    assert_int_equal(w->ups->all->edition, edition);
    world_publish(w, &(struct plan){.count = 3, .leave_out = 3});
    (void)world_pick(w, 0);
    assert_int_equal(w->ups->all->edition, edition + 1);
    assert_ptr_equal(world_endpoint(w, 1), kept);
    /* Who left is let go by the sweep. */
    assert_int_equal(w->ups->all->by_key.count, 3);
    world_settle(w, 61000);
    assert_int_equal(w->ups->all->by_key.count, 2);
    /* And a set that nobody uses, as a whole. */
    world_settle(w, 400000);
    assert_null(w->ups->all);
    assert_int_equal(world_pick(w, 0) < 2, true);
}

/* A worker that nobody calls by any more follows swaps all the same; and what goes, goes. */
static void a_set_that_nobody_calls_follows(void **state)
{
    struct world *w = *state;
    world_publish(w, &(struct plan){.count = 3});
    (void)world_pick(w, 0);
    struct op_set *set = w->ups->all;
    world_publish(w, &(struct plan){.count = 5});
    op_upstreams_look(w->ups, /* trust: */ false);
    assert_int_equal(set->count, 3);
    world_settle(w, 1);
    assert_int_equal(set->count, 5);
    assert_int_equal(set->present, 5);
    world_publish(w, &(struct plan){0});
    op_upstreams_look(w->ups, /* trust: */ false);
    world_settle(w, 1);
    assert_int_equal(set->count, 0);
    world_settle(w, 61000);
    assert_int_equal(set->by_key.count, 0);
}

static void who_comes_starts_slowly(void **state)
{
    struct world *w = *state;
    const uint32_t policies[] = {ROUND_ROBIN, LEAST_REQUEST, RING_HASH};
    for (size_t i = 0; i < 3; i++) {
        struct plan plan = {.count = 4,
                            .leave_out = 4,
                            .policy = policies[i],
                            .slow_start_ms = 30000,
                            .hash_header = policies[i] == RING_HASH ? "x-session" : NULL};
        world_publish(w, &plan);
        (void)world_pick(w, 0);
        world_pass(w, 31000); /* who is there has all of its share by now. */
        plan.leave_out = 0;
        world_publish(w, &plan);
        size_t at_first[4] = {0};
        size_t half_way[4] = {0};
        size_t at_last[4] = {0};
        pick_many(w, 4000, at_first);
        world_pass(w, 15000);
        pick_many(w, 4000, half_way);
        world_pass(w, 15001);
        pick_many(w, 4000, at_last);
        /* A tenth, a half, and all of a fourth part, the rest of which others have. */
        assert_in_range(at_first[3], 60, 200);
        assert_in_range(half_way[3], 380, 720);
        assert_in_range(at_last[3], 800, 1200);
        world_publish(w, &(struct plan){.count = 1});
        (void)world_pick(w, 0);
        world_settle(w, 61000); /* a sweep that is under way comes to its end, */
        world_settle(w, 61000); /* and another one lets the others go. */
    }
}

/* Ten thousand endpoints: a turn makes a few of them, and time does the rest. */
static void no_turn_makes_thousands(void **state)
{
    struct world *w = *state;
    enum { MANY = 10000 };
    const uint32_t policies[] = {ROUND_ROBIN, LEAST_REQUEST, RING_HASH};
    for (size_t i = 0; i < 3; i++) {
        world_publish(w, &(struct plan){.count = MANY,
                                        .policy = policies[i],
                                        .hash_tenant = policies[i] == RING_HASH});
        (void)world_pick_endpoint(w, 0);
        struct op_set *set = w->ups->all;
        assert_in_range(set->present, OP_SET_BATCH, OP_SET_BATCH + 4);
        for (size_t turns = 0; set->filled < set->count; turns++) {
            assert_in_range(turns, 0, 2 * (MANY / OP_SET_BATCH));
            size_t before = set->filled;
            world_pass(w, 1);
            assert_in_range(set->filled - before, 0, 4 * OP_SET_BATCH);
        }
        assert_int_equal(set->present, MANY);
    }
}

static void a_call_forgets_whom_it_tried(void **state)
{
    struct world *w = *state;
    world_publish(w, &(struct plan){.count = 2});
    struct op_endpoint *ends[] = {world_endpoint(w, 0), world_endpoint(w, 1)};
    struct op_endpoint *e = NULL;
    struct op_tries tries = {0};
    world_ask(w, 1);
    for (size_t i = 0; i < 2; i++) {
        assert_true(err_ok(op_upstreams_pick(w->ups, &w->rq, &tries, &e)));
    }
    op_tries_add(&tries, ends[0]); /* again: it is there once. */
    assert_int_equal(tries.count, 2);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(op_upstreams_pick(w->ups, &w->rq, &tries, &e).code, E_NO_HEALTHY_ENDPOINT);
        op_tries_forget(&tries, ends[i % 2]);
        op_tries_forget(&tries, ends[i % 2]);
        assert_true(err_ok(op_upstreams_pick(w->ups, &w->rq, &tries, &e)));
        assert_ptr_equal(e, ends[i % 2]);
    }
}

/* Whatever a profile may say can be told apart. */
static void a_long_spiffe_id_is_part_of_the_key(void **state)
{
    struct world *w = *state;
    world_publish(w, &(struct plan){.count = 1});
    struct op_set *set = world_endpoint(w, 0)->set;
    const struct dp_endpoint from = {.address = SLICE_LIT("10.9.9.9"), .port = 80, .weight = 1};
    struct op_endpoint *e[2] = {NULL};
    char id[NET_SPIFFE_MAX];
    (void)memset(id, 'a', sizeof(id));
    slice_free(set->security.spiffe);
    for (size_t i = 0; i < 2; i++) {
        id[sizeof(id) - 1] = (char)('a' + i);
        set->security.spiffe = slice_of(id, sizeof(id));
        assert_true(err_ok(op_endpoint_get(set, &from, &e[i])));
    }
    assert_ptr_not_equal(e[0], e[1]);
    assert_int_equal(strlen(e[1]->spiffe_id), sizeof(id));
    set->security.spiffe = (struct slice){0};
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(round_robin_is_exact_and_spread),
        WORLD_TEST(least_request_levels_what_is_under_way),
        WORLD_TEST(pick_first_stays_with_the_heaviest_that_is_well),
        WORLD_TEST(peak_ewma_prefers_who_answers_soon_and_asks_again),
        WORLD_TEST(ring_hash_moves_the_keys_of_who_leaves_alone),
        WORLD_TEST(rendezvous_moves_the_keys_of_who_leaves_alone),
        WORLD_TEST(hashing_goes_by_weight),
        WORLD_TEST(what_is_hashed_by),
        WORLD_TEST(a_key_has_a_second_endpoint),
        WORLD_TEST(calls_stay_near_and_spill_over),
        WORLD_TEST(drawn_calls_spill_over_alike),
        WORLD_TEST(hashed_calls_spill_over_alike),
        WORLD_TEST(who_refuses_connections_is_passed_over_for_the_next_level),
        WORLD_TEST(a_call_meets_no_endpoint_twice_over_a_swap),
        WORLD_TEST(a_request_of_an_older_model_gets_what_is_in_force),
        WORLD_TEST(a_swap_leaves_what_is_the_same_alone),
        WORLD_TEST(a_set_that_nobody_calls_follows),
        WORLD_TEST(who_comes_starts_slowly),
        WORLD_TEST(no_turn_makes_thousands),
        WORLD_TEST(a_call_forgets_whom_it_tried),
        WORLD_TEST(a_long_spiffe_id_is_part_of_the_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
