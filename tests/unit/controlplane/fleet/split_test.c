/* split: the shares that may be in force are never above the whole, whatever nodes say, lose or
 * hold back; what is asked for moves within seconds; who asks for all takes nothing from who asks
 * for less than an equal part. */
#include "controlplane/fleet/split.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/ids.h"
#include "common/base/limits.h"

#include "tests/support/cmocka.h"

enum { NODES = 5, BUDGET = 77, EPOCH = 3 };

#define MS UINT64_C(1000000)

/* A node as it would be: it has what came last, until that is over. */
struct peer {
    char id[16];
    bool runs;
    bool claims;   /* it says that it has all, whatever it was given, */
    bool hides;    /* and that it never heard of shares, */
    bool restarts; /* and is another process each time. */
    uint32_t asked;
    uint64_t started_ns; /* its own clock begins here. */
    uint32_t share;
    uint64_t until_ns;
    uint64_t epoch;
    uint64_t sequence;
    struct shares inbox; /* not yet there. */
    uint64_t inbox_ns;
    uint32_t old_share; /* of the process before, which goes on. */
    uint64_t old_until_ns;
};

static struct {
    struct cp_split *split;
    uint64_t now_ns;
    uint64_t sequence;
    struct peer peers[NODES];
    bool loses;  /* some messages are lost, some are late. */
    bool trusts; /* nobody lies of what it has. */
} w;

/* Some number below 'bound': the same ones in each run. */
static uint32_t any(uint32_t bound)
{
    static uint64_t state = 7;
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(state >> 33) % bound;
}

static uint32_t in_force(const struct peer *peer)
{
    return w.now_ns < peer->until_ns ? peer->share : 0;
}

static void set_up(void)
{
    memset(&w, 0, sizeof(w));
    w.now_ns = 1000000 * MS;
    w.trusts = true;
    assert_int_equal(cp_split_new(&w.split).code, E_OK);
    cp_split_begin(w.split, w.now_ns);
    for (size_t i = 0; i < NODES; i++) {
        (void)snprintf(w.peers[i].id, sizeof(w.peers[i].id), "node-%zu", i);
        w.peers[i].started_ns = w.now_ns - 5000 * MS;
    }
}

static bool send_to(void *ctx, struct shares *shares)
{
    (void)ctx;
    shares->epoch = EPOCH;
    shares->sequence = ++w.sequence;
    struct peer *peer = &w.peers[shares->node[5] - '0'];
    assert_int_equal(shares->count, 1);
    assert_true(shares->of[0].budget == BUDGET);
    if (w.loses && any(4) == 0) {
        return true; /* lost on its way. */
    }
    peer->inbox = *shares;
    peer->inbox_ns = w.now_ns + (w.loses ? (uint64_t)any(4000) : 20) * MS;
    return true;
}

static void arrive(struct peer *peer)
{
    const struct shares *s = &peer->inbox;
    uint64_t until_ns = peer->started_ns + (s->at_ms + s->valid_ms) * MS;
    bool newer = s->epoch > peer->epoch || s->sequence > peer->sequence;
    if (peer->inbox_ns == 0 || w.now_ns < peer->inbox_ns) {
        return;
    }
    if (newer && s->run == peer->started_ns && w.now_ns < until_ns) {
        peer->share = s->of[0].share;
        peer->until_ns = until_ns;
        peer->epoch = s->epoch;
        peer->sequence = s->sequence;
    }
    peer->inbox_ns = 0;
}

static void say(struct peer *peer)
{
    if (peer->restarts) {
        peer->started_ns += MS;
    }
    struct demand d = {.run = peer->started_ns,
                       .at_ms = (w.now_ns - peer->started_ns) / MS,
                       .epoch = in_force(peer) > 0 ? peer->epoch : 0,
                       .sequence = in_force(peer) > 0 ? peer->sequence : 0,
                       .count = 1,
                       .of = {{BUDGET, peer->asked, in_force(peer)}}};
    memcpy(d.node, peer->id, sizeof(peer->id));
    if (peer->claims) {
        d.of[0].share = SHARE_WHOLE;
    }
    if (peer->hides) {
        d.epoch = d.sequence = 0;
    }
    struct err e = cp_split_demand(w.split, &d, w.now_ns);
    assert_true(err_ok(e) || e.code == E_CONFLICT);
}

static uint64_t sum(void)
{
    uint64_t all = 0;
    for (size_t i = 0; i < NODES; i++) {
        const struct peer *peer = &w.peers[i];
        all += in_force(peer) + (w.now_ns < peer->old_until_ns ? peer->old_share : 0);
    }
    return all;
}

/* Time goes on in steps of 100 ms; nodes speak each second. */
static void go_on(uint64_t ms)
{
    for (uint64_t step = 0; step < ms / 100; step++) {
        w.now_ns += 100 * MS;
        for (size_t i = 0; i < NODES; i++) {
            struct peer *peer = &w.peers[i];
            arrive(peer);
            if (peer->runs && (w.now_ns / (100 * MS) + i) % 10 == 0 && !(w.loses && any(4) == 0)) {
                say(peer);
            }
        }
        assert_int_equal(cp_split_turn(w.split, w.now_ns, send_to, NULL).code, E_OK);
        assert_true(!w.trusts || sum() <= SHARE_WHOLE);
    }
}

/* The node hands over to another process; this one goes on as well, with what it has and with what
 * is on its way. */
static void hand_over(struct peer *peer)
{
    bool comes = peer->inbox_ns != 0 && peer->inbox.run == peer->started_ns;
    uint64_t comes_until_ns = peer->started_ns + (peer->inbox.at_ms + peer->inbox.valid_ms) * MS;
    peer->old_share = in_force(peer);
    peer->old_until_ns = peer->until_ns;
    if (comes && peer->inbox.of[0].share > peer->old_share) {
        peer->old_share = peer->inbox.of[0].share;
    }
    if (comes && comes_until_ns > peer->old_until_ns) {
        peer->old_until_ns = comes_until_ns;
    }
    peer->started_ns = w.now_ns - 10 * MS;
    peer->share = 0;
    peer->until_ns = 0;
    peer->epoch = 0;
    peer->sequence = 0;
    peer->inbox_ns = 0;
}

static void run_all(uint32_t asked)
{
    for (size_t i = 0; i < NODES; i++) {
        w.peers[i].runs = true;
        w.peers[i].asked = asked;
    }
}

static void what_nobody_asks_for_is_for_all(void **state)
{
    (void)state;
    set_up();
    run_all(0);
    go_on(10000);
    for (size_t i = 0; i < NODES; i++) {
        assert_in_range(in_force(&w.peers[i]), SHARE_WHOLE / NODES - 10, SHARE_WHOLE / NODES);
    }
    cp_split_free(w.split);
}

static void a_shift_is_followed(void **state)
{
    (void)state;
    set_up();
    run_all(0);
    w.peers[0].asked = 3 * SHARE_WHOLE;
    go_on(10000);
    assert_true(in_force(&w.peers[0]) >= SHARE_WHOLE / 100 * 94);
    w.peers[0].asked = 0;
    w.peers[3].asked = 3 * SHARE_WHOLE;
    go_on(5000);
    assert_true(in_force(&w.peers[3]) >= SHARE_WHOLE / 100 * 90);
    for (size_t i = 0; i < NODES; i++) {
        assert_true(in_force(&w.peers[i]) >= CP_SPLIT_FLOOR / NODES); /* something to begin with. */
    }
    cp_split_free(w.split);
}

static void a_node_that_went_is_inherited(void **state)
{
    (void)state;
    set_up();
    run_all(SHARE_WHOLE);
    go_on(10000);
    w.peers[2].runs = false;
    go_on(6000);
    assert_int_equal(in_force(&w.peers[2]), 0);
    assert_true(sum() >= SHARE_WHOLE / 100 * 99);
    w.peers[2].runs = true; /* it comes back as another process. */
    w.peers[2].started_ns = w.now_ns;
    go_on(6000);
    assert_true(in_force(&w.peers[2]) >= SHARE_WHOLE / NODES - 1000);
    cp_split_free(w.split);
}

/* One says that it is asked for everything: it has what the others leave. */
static void a_liar_takes_what_is_left(void **state)
{
    (void)state;
    set_up();
    run_all(SHARE_WHOLE / 10);
    w.peers[1].asked = UINT32_MAX;
    go_on(10000);
    for (size_t i = 0; i < NODES; i++) {
        assert_true(i == 1 || in_force(&w.peers[i]) >= SHARE_WHOLE / 10);
    }
    cp_split_free(w.split);
}

/* One says that it has all already: the others have what they had before it lied, and what they
 * want when they come back. */
static void expect_nothing_from(struct peer *liar)
{
    go_on(8000);
    for (size_t i = 2; i < NODES; i++) {
        w.peers[i].started_ns = w.now_ns; /* each of the others is a new process, one by one. */
        w.peers[i].share = 0;
        w.peers[i].until_ns = 0;
        go_on(9000);
        assert_true(in_force(&w.peers[i]) >= SHARE_WHOLE / 100 * 15);
    }
    cp_split_begin(w.split, w.now_ns); /* another leader knows nobody. */
    for (size_t i = 0; i < NODES; i++) {
        w.peers[i].asked = &w.peers[i] == liar || i == 4 ? 4 * SHARE_WHOLE : 0;
    }
    go_on(18000);
    assert_true(in_force(&w.peers[4]) >= SHARE_WHOLE / 100 * 45);
}

static void a_liar_has_all_by_its_own_word(void **state)
{
    (void)state;
    for (int how = 0; how < 4; how++) {
        set_up();
        run_all(4 * SHARE_WHOLE);
        w.peers[1].claims = true;
        w.peers[1].hides = how % 2 == 1;
        w.peers[1].restarts = how / 2 == 1;
        w.trusts = false;
        expect_nothing_from(&w.peers[1]);
        cp_split_free(w.split);
    }
}

static void another_leader_takes_over(void **state)
{
    (void)state;
    set_up();
    run_all(SHARE_WHOLE);
    w.peers[0].asked = 0;
    go_on(10000);
    uint32_t before = in_force(&w.peers[1]);
    struct cp_split *old = w.split;
    assert_int_equal(cp_split_new(&w.split).code, E_OK);
    cp_split_begin(w.split, w.now_ns);
    w.peers[1].asked = 0;
    w.peers[0].asked = SHARE_WHOLE;
    go_on(2500); /* nobody has more than before, and nobody is without. */
    assert_true(in_force(&w.peers[1]) > 0 && in_force(&w.peers[1]) <= before);
    go_on(6000);
    assert_true(in_force(&w.peers[0]) >= SHARE_WHOLE / 5);
    cp_split_free(old);
    cp_split_free(w.split);
}

/* Messages are lost and late, nodes come and go and change their minds, leaders change. */
static void the_whole_is_never_exceeded(void **state)
{
    (void)state;
    set_up();
    w.loses = true;
    run_all(SHARE_WHOLE);
    for (int i = 0; i < 400; i++) {
        struct peer *peer = &w.peers[any(NODES)];
        peer->asked = any(3) == 0 ? 0 : any(2 * SHARE_WHOLE);
        if (any(5) == 0) {
            peer->runs = !peer->runs;
        }
        if (any(6) == 0 && peer->runs && w.now_ns >= peer->old_until_ns) {
            hand_over(peer);
        }
        if (any(20) == 0) {
            cp_split_begin(w.split, w.now_ns);
        }
        go_on(700);
    }
    cp_split_free(w.split);
}

/* While both serve they have no more than the one had; then the other one has it. */
static void a_node_hands_over(void **state)
{
    (void)state;
    set_up();
    w.peers[0].runs = true;
    w.peers[0].asked = SHARE_WHOLE;
    w.peers[1].runs = true;
    w.peers[1].asked = SHARE_WHOLE;
    go_on(10000);
    uint32_t before = in_force(&w.peers[0]);
    assert_true(before > SHARE_WHOLE / 100 * 45);
    hand_over(&w.peers[0]); /* go_on() sees to the sum. */
    go_on(2000);
    assert_int_equal(w.peers[0].old_share, before);
    hand_over(&w.peers[0]);
    w.peers[0].old_share = before; /* of the first of them. */
    w.peers[0].old_until_ns = w.now_ns + 900 * MS;
    go_on(800);
    go_on(6000);
    assert_true(in_force(&w.peers[0]) > SHARE_WHOLE / 100 * 45);
    cp_split_free(w.split);
}

/* A process that has ended, or that lets the other one serve, says so: that one has it at once. */
static void what_is_given_up(void **state)
{
    (void)state;
    set_up();
    w.peers[0].runs = true;
    w.peers[0].asked = SHARE_WHOLE;
    w.peers[1].runs = true;
    w.peers[1].asked = SHARE_WHOLE;
    go_on(10000);
    struct demand d = {.run = w.peers[0].started_ns, .count = 0};
    memcpy(d.node, "node-0", sizeof("node-0"));
    hand_over(&w.peers[0]);
    go_on(1000); /* the new one spoke, and has nothing yet. */
    assert_true(in_force(&w.peers[0]) < SHARE_WHOLE / 10);
    w.peers[0].old_share = 0;
    d.at_ms = 1;
    assert_int_equal(cp_split_demand(w.split, &d, w.now_ns).code, E_CONFLICT); /* sent again. */
    d.at_ms = 600000;
    assert_int_equal(cp_split_demand(w.split, &d, w.now_ns).code, E_OK);
    assert_int_equal(cp_split_demand(w.split, &d, w.now_ns).code, E_CONFLICT);
    go_on(1200);
    assert_true(in_force(&w.peers[0]) > SHARE_WHOLE / 100 * 45);
    /* And the one that speaks, before it ends. */
    d.run = w.peers[0].started_ns;
    w.peers[0].runs = false;
    w.peers[0].share = 0;
    assert_int_equal(cp_split_demand(w.split, &d, w.now_ns).code, E_OK);
    go_on(1200);
    assert_true(in_force(&w.peers[1]) > SHARE_WHOLE / 100 * 95);
    cp_split_free(w.split);
}

static void an_old_word_is_none(void **state)
{
    (void)state;
    set_up();
    struct demand d = {.run = 10, .at_ms = 50, .count = 0};
    memcpy(d.node, "node-0", sizeof("node-0"));
    assert_int_equal(cp_split_demand(w.split, &d, w.now_ns).code, E_OK);
    assert_int_equal(cp_split_demand(w.split, &d, w.now_ns).code, E_CONFLICT); /* again. */
    d.run = 9; /* of the process before. */
    d.at_ms = 5000;
    assert_int_equal(cp_split_demand(w.split, &d, w.now_ns).code, E_CONFLICT);
    d.run = 11;
    d.at_ms = 1;
    assert_int_equal(cp_split_demand(w.split, &d, w.now_ns).code, E_OK);
    assert_int_equal(cp_split_nodes(w.split, w.now_ns), 1);
    assert_int_equal(cp_split_nodes(w.split, w.now_ns + 10000 * MS), 0);
    w.now_ns += 4000 * MS; /* a process that began by a clock which was set back. */
    d.run = 7;
    assert_int_equal(cp_split_demand(w.split, &d, w.now_ns).code, E_OK);
    d.run = 6;
    assert_int_equal(cp_split_demand(w.split, &d, w.now_ns).code, E_CONFLICT);
    cp_split_free(w.split);
}

/* However many came and went before, there is room for those that are there. */
static void nodes_with_other_names_follow(void **state)
{
    (void)state;
    uint64_t most = limits.nodes;
    limits.nodes = 8;
    set_up();
    for (uint64_t i = 0; i < 200; i++) {
        struct demand d = {.run = 10, .at_ms = 50, .count = 1, .of = {{BUDGET, 1, 0}}};
        (void)snprintf(d.node, sizeof(d.node), "node-0-%" PRIu64, i);
        assert_int_equal(cp_split_demand(w.split, &d, w.now_ns).code, E_OK);
        assert_int_equal(cp_split_turn(w.split, w.now_ns, send_to, NULL).code, E_OK);
        w.now_ns += 20000 * MS;
    }
    limits.nodes = most;
    cp_split_free(w.split);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_nobody_asks_for_is_for_all),
        cmocka_unit_test(a_shift_is_followed),
        cmocka_unit_test(a_node_that_went_is_inherited),
        cmocka_unit_test(a_liar_takes_what_is_left),
        cmocka_unit_test(a_liar_has_all_by_its_own_word),
        cmocka_unit_test(another_leader_takes_over),
        cmocka_unit_test(the_whole_is_never_exceeded),
        cmocka_unit_test(a_node_hands_over),
        cmocka_unit_test(what_is_given_up),
        cmocka_unit_test(an_old_word_is_none),
        cmocka_unit_test(nodes_with_other_names_follow),
    };
    ids_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
