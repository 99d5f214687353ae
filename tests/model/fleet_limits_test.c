/*
 * fleet_limits: budgets by key over a fleet in modelled time: no key passes 5 % above its budget in
 * any ten seconds, and what moves to another node is used to nine tenths within five seconds.
 *
 * Each node is a process of its own with the real table of budgets; the leader is the real split.
 * Only time and messages are the model's.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/buf.h"
#include "common/base/check.h"
#include "common/base/ids.h"
#include "common/proto/strict.h"
#include "controlplane/fleet/split.h"
#include "dataplane/apply/model.h"
#include "dataplane/apply/share_order.h"
#include "dataplane/request/budget.h"
#include "dataplane/request/limit.h"

#include "tests/support/cmocka.h"
#include "trilane/parts/v1/parts.pb-c.h"

#define MS UINT64_C(1000000)
#define START (1000000 * MS)

enum {
    NODES = 4,
    HOT = 5,   /* keys that are asked for above their budget, */
    COLD = 40, /* and below what each key has. */
    KEYS = HOT + COLD,
    RATE = 100, /* a second. */
    BURST = 10,
    EPOCH = 3,
    STEP_MS = 50,
    STEPS_MAX = 8192,
    LATE_MS = 30, /* of a message. */
};

static const struct dp_share_heads heads = {.found = true, .epoch = EPOCH};

/* ---- a node's process ---- */

enum order_kind { ASK, SAY, TAKE, GIVE_UP };

struct order {
    enum order_kind kind;
    uint64_t now_ns;
    uint32_t counts[KEYS]; /* ASK: requests of each key. */
    struct shares shares;  /* TAKE, */
    uint64_t until_ns;     /* and until when. */
};

struct answer {
    uint32_t passed[KEYS];
    bool hurries;
    struct demand demand;
};

static void put(int fd, const void *bytes, size_t size)
{
    CHECK(write(fd, bytes, size) == (ssize_t)size);
}

static bool get(int fd, void *bytes, size_t size)
{
    return recv(fd, bytes, size, MSG_WAITALL) == (ssize_t)size;
}

static bool find_key(const void *ctx, struct slice name, struct slice *out)
{
    *out = slice_str(ctx);
    return slice_eq(name, SLICE_LIT("x-key"));
}

static struct dp_limit_target *build(void)
{
    char target_id[] = "service/acme/x";
    char limit_id[] = "acme/keys";
    char header[] = "x-key";
    char *headers[] = {header};
    Trilane__Parts__V1__Limit limit;
    Trilane__Parts__V1__Limit *list[] = {&limit};
    Trilane__Parts__V1__LimitTarget target;
    trilane__parts__v1__limit__init(&limit);
    limit.id = limit_id;
    limit.period_ns = 1000 * MS / RATE;
    limit.burst = BURST;
    limit.headers = headers;
    limit.n_headers = 1;
    limit.shared = true;
    trilane__parts__v1__limit_target__init(&target);
    target.target = target_id;
    target.n_limits = 1;
    target.limits = list;
    auto_buf struct buf bytes = BUF_MAX(1 << 16);
    struct dp_limit_target *built = NULL;
    CHECK(err_ok(proto_encode(&target.base, &bytes)));
    CHECK(err_ok(dp_limit_build(buf_slice(&bytes), &built)));
    return built;
}

static void ask(struct dp_limit_table *table, const struct dp_limit_target *target,
                const struct order *order, struct answer *out)
{
    static const struct dp_caller web = {.id = SLICE_INIT("acme/web"),
                                         .tenant = SLICE_INIT("acme")};
    for (uint32_t key = 0; key < KEYS; key++) {
        char value[16];
        (void)snprintf(value, sizeof(value), "key-%u", key);
        for (uint32_t i = 0; i < order->counts[key]; i++) {
            /* Within the step, one behind the other. */
            uint64_t within_ns = STEP_MS * MS * i / order->counts[key];
            struct dp_limit_refusal refusal = {0};
            struct dp_limit_held held = {.count = 0};
            const struct dp_limit_query query = {.method = SLICE_LIT("/x/Get"),
                                                 .caller = &web,
                                                 .now_ns = order->now_ns + within_ns,
                                                 .header = find_key,
                                                 .ctx = value};
            out->passed[key] += err_ok(dp_limit_take(table, target, &query, &held, &refusal));
        }
    }
    out->hurries = dp_budget_is_news();
}

_Noreturn static void serve(int fd)
{
    struct dp_limit_table *table = NULL;
    struct dp_limit_target *target = build();
    static struct order order;
    static struct answer answer;
    CHECK(err_ok(dp_limit_table_new(1 << 12, &table)));
    while (get(fd, &order, sizeof(order))) {
        memset(&answer, 0, sizeof(answer));
        switch (order.kind) {
        case ASK:
            ask(table, target, &order, &answer);
            break;
        case SAY:
            dp_budget_demand(order.now_ns, &answer.demand);
            break;
        case TAKE:
            answer.hurries = dp_budget_share(&order.shares, order.until_ns, order.now_ns);
            break;
        case GIVE_UP:
            dp_budget_give_up(order.now_ns);
            break;
        }
        put(fd, &answer, sizeof(answer));
    }
    dp_limit_free(target);
    dp_limit_table_free(table);
    exit(0);
}

/* ---- the fleet ---- */

struct peer {
    char id[16];
    int fd;
    pid_t pid;
    bool runs;
    uint32_t rates[KEYS]; /* a second, of what it is asked for. */
    uint32_t parts[KEYS]; /* of a request, thousandths, that are over. */
    struct dp_share_order order;
    uint64_t due_ns;
    struct shares inbox; /* not yet there. */
    uint64_t inbox_ns;
};

static struct {
    struct cp_split *split;
    uint64_t now_ns;
    uint64_t sequence;
    struct peer peers[NODES];
    bool loses;
    uint32_t step;
    uint32_t passed[STEPS_MAX][KEYS];
    uint32_t asked[STEPS_MAX][KEYS];
} w;

/* Some number below 'bound': the same ones in each run. */
static uint32_t any(uint32_t bound)
{
    static uint64_t state = 11;
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(state >> 33) % bound;
}

static const struct answer *tell(struct peer *peer, const struct order *order)
{
    static struct answer answer;
    put(peer->fd, order, sizeof(*order));
    assert_true(get(peer->fd, &answer, sizeof(answer)));
    return &answer;
}

static struct order *order_of(enum order_kind kind)
{
    static struct order order;
    memset(&order, 0, sizeof(order));
    order.kind = kind;
    order.now_ns = w.now_ns;
    return &order;
}

static void begin_peer(struct peer *peer, size_t index)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    peer->pid = fork();
    assert_true(peer->pid >= 0);
    if (peer->pid == 0) {
        close(fds[0]);
        for (size_t i = 0; i < index; i++) {
            close(w.peers[i].fd); /* its end is ours to see, and none of theirs. */
        }
        serve(fds[1]);
    }
    close(fds[1]);
    peer->fd = fds[0];
    (void)snprintf(peer->id, sizeof(peer->id), "node-%zu", index);
    peer->order = (struct dp_share_order){.node = slice_str(peer->id), .run = 7};
    peer->runs = true;
}

static void end_peer(struct peer *peer)
{
    int status = 0;
    close(peer->fd);
    assert_int_equal(waitpid(peer->pid, &status, 0), peer->pid);
    assert_int_equal(status, 0);
}

static int set_up(void **state)
{
    (void)state;
    memset(&w, 0, sizeof(w));
    w.now_ns = START;
    assert_int_equal(cp_split_new(&w.split).code, E_OK);
    cp_split_begin(w.split, w.now_ns);
    for (size_t i = 0; i < NODES; i++) {
        begin_peer(&w.peers[i], i);
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (size_t i = 0; i < NODES; i++) {
        end_peer(&w.peers[i]);
    }
    cp_split_free(w.split);
    return 0;
}

static bool send_to(void *ctx, struct shares *shares)
{
    (void)ctx;
    shares->epoch = EPOCH;
    shares->sequence = ++w.sequence;
    struct peer *peer = &w.peers[shares->node[5] - '0'];
    if (w.loses && any(5) == 0) {
        return true; /* lost on its way. */
    }
    peer->inbox = *shares;
    peer->inbox_ns = w.now_ns + (w.loses ? (uint64_t)any(1500) : LATE_MS) * MS;
    return true;
}

static void hurry(struct peer *peer)
{
    uint64_t soon_ns = peer->order.said_ms * MS + 250 * MS;
    peer->due_ns = soon_ns < peer->due_ns ? soon_ns : peer->due_ns;
}

static void arrive(struct peer *peer)
{
    if (peer->inbox_ns == 0 || w.now_ns < peer->inbox_ns) {
        return;
    }
    peer->inbox_ns = 0;
    if (dp_share_judge(&peer->order, &heads, &peer->inbox, w.now_ns / MS) == DP_SHARE_TAKEN) {
        struct order *order = order_of(TAKE);
        order->shares = peer->inbox;
        order->until_ns = peer->order.until_ms * MS;
        if (tell(peer, order)->hurries) {
            hurry(peer);
        }
    }
}

static void say(struct peer *peer)
{
    if (w.now_ns < peer->due_ns) {
        return;
    }
    struct demand d = tell(peer, order_of(SAY))->demand;
    memcpy(d.node, peer->id, sizeof(peer->id));
    d.run = peer->order.run;
    d.at_ms = w.now_ns / MS;
    if (d.at_ms < peer->order.until_ms) {
        d.epoch = peer->order.epoch;
        d.sequence = peer->order.sequence;
    }
    peer->order.said_ms = d.at_ms;
    peer->due_ns = w.now_ns + 1000 * MS;
    if (!w.loses || any(5) > 0) {
        assert_int_equal(cp_split_demand(w.split, &d, w.now_ns).code, E_OK);
    }
}

static void ask_all(struct peer *peer)
{
    struct order *order = order_of(ASK);
    for (size_t key = 0; key < KEYS; key++) {
        uint32_t parts = peer->parts[key] + peer->rates[key] * STEP_MS;
        order->counts[key] = parts / 1000;
        peer->parts[key] = parts % 1000;
        w.asked[w.step][key] += order->counts[key];
    }
    const struct answer *answer = tell(peer, order);
    for (size_t key = 0; key < KEYS; key++) {
        w.passed[w.step][key] += answer->passed[key];
    }
    if (answer->hurries) {
        hurry(peer);
    }
}

static void go_on(uint32_t ms)
{
    for (uint32_t i = 0; i < ms / STEP_MS; i++) {
        assert_true(w.step < STEPS_MAX);
        for (size_t k = 0; k < NODES; k++) {
            if (w.peers[k].runs) {
                arrive(&w.peers[k]);
                say(&w.peers[k]);
                ask_all(&w.peers[k]);
            }
        }
        if (w.step % 2 == 0) {
            assert_int_equal(cp_split_turn(w.split, w.now_ns, send_to, NULL).code, E_OK);
        }
        w.step++;
        w.now_ns += STEP_MS * MS;
    }
}

/* ---- what must hold ---- */

static uint32_t sum(uint32_t of[STEPS_MAX][KEYS], size_t key, uint32_t from, uint32_t to)
{
    uint32_t all = 0;
    for (uint32_t i = from; i < to; i++) {
        all += of[i][key];
    }
    return all;
}

/* In any ten seconds, of each key. */
static void expect_within_budgets(void)
{
    enum { WINDOW = 10000 / STEP_MS, MOST = (RATE * 10 + BURST) * 105 / 100 };
    for (size_t key = 0; key < KEYS; key++) {
        for (uint32_t from = 0; from + WINDOW <= w.step; from++) {
            assert_true(sum(w.passed, key, from, from + WINDOW) <= MOST);
        }
    }
}

/* The last two seconds of a key that is asked for more than it may. */
static void expect_used(size_t key)
{
    uint32_t from = w.step - 2000 / STEP_MS;
    assert_true(sum(w.passed, key, from, w.step) >= RATE * 2 * 9 / 10);
}

/* Little of many keys everywhere. */
static void ask_for_cold_ones(void)
{
    for (size_t i = 0; i < NODES; i++) {
        for (size_t key = HOT; key < KEYS; key++) {
            w.peers[i].rates[key] = 1;
        }
    }
}

static void each_key_goes_where_it_is_asked_for(void **state)
{
    (void)state;
    size_t at[HOT] = {0};
    ask_for_cold_ones();
    go_on(8000);
    uint32_t settled = w.step;
    for (size_t turn = 0; turn < 8; turn++) {
        for (size_t key = 0; key < HOT; key++) { /* each to another node. */
            w.peers[at[key]].rates[key] = 0;
            at[key] = (at[key] + 1 + any(NODES - 1)) % NODES;
            w.peers[at[key]].rates[key] = RATE * (2 + any(4));
        }
        go_on(7000); /* five seconds, and two that are looked at. */
        for (size_t key = 0; key < HOT; key++) {
            expect_used(key);
        }
    }
    expect_within_budgets();
    for (size_t key = HOT; key < KEYS; key++) { /* others lose nothing by it. */
        assert_int_equal(sum(w.passed, key, settled, w.step), sum(w.asked, key, settled, w.step));
    }
}

static void a_key_that_is_asked_for_everywhere(void **state)
{
    (void)state;
    for (size_t i = 0; i < NODES; i++) {
        w.peers[i].rates[0] = RATE;                               /* four times the budget, */
        w.peers[i].rates[1] = RATE * 2 / NODES / 10 * 4;          /* four fifths of it, */
        w.peers[i].rates[2] = i == 0 ? RATE * 6 / 10 : RATE / 10; /* and nine tenths, askew. */
    }
    go_on(12000);
    uint32_t from = w.step;
    go_on(20000);
    expect_used(0);
    for (size_t key = 1; key < 3; key++) { /* who stays below his budget is not refused. */
        assert_int_equal(sum(w.passed, key, from, w.step), sum(w.asked, key, from, w.step));
    }
    expect_within_budgets();
}

static void nodes_come_and_go(void **state)
{
    (void)state;
    for (size_t i = 0; i < NODES; i++) {
        w.peers[i].rates[0] = RATE;
    }
    go_on(8000);
    for (size_t i = 0; i < NODES - 1; i++) { /* only one is left. */
        w.peers[i].runs = false;
        go_on(7000);
        expect_used(0);
    }
    for (size_t i = 0; i < NODES - 1; i++) {
        w.peers[i].runs = true;
        go_on(7000);
        expect_used(0);
    }
    expect_within_budgets();
}

/* Messages are lost and late, keys move, nodes come and go, others lead. */
static void whatever_happens(void **state)
{
    (void)state;
    w.loses = true;
    for (int turn = 0; turn < 120; turn++) {
        struct peer *peer = &w.peers[any(NODES)];
        peer->rates[any(HOT)] = any(3) == 0 ? 0 : any(4 * RATE);
        if (any(6) == 0) {
            peer->runs = !peer->runs;
        }
        if (any(25) == 0) {
            cp_split_begin(w.split, w.now_ns);
        }
        go_on(1500);
    }
    expect_within_budgets();
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(each_key_goes_where_it_is_asked_for),
        TEST(a_key_that_is_asked_for_everywhere),
        TEST(nodes_come_and_go),
        TEST(whatever_happens),
    };
    ids_init();
    return cmocka_run_group_tests_name("fleet_limits", tests, NULL, NULL);
}
