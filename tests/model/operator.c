/* operator: see operator.h. */
#include "tests/model/operator.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"

#include "tests/model/content.h"
#include "tests/model/database.h"
#include "tests/model/ledger.h"
#include "tests/model/world.h"

/* How long a request is waited for, and how long one is tried again. */
#define CALL_NS (15 * SIM_SECOND)
#define PATIENCE_NS (40 * SIM_SECOND)

enum { OPERATORS = 2 };

struct operator
{
    struct machine machine; /* only to run on. */
    char name[8];
    uint64_t number; /* of its last content. */
    unsigned recoveries;
    bool is_at_rest;
};

static struct {
    struct operator operators[OPERATORS];
    bool rest_wanted;
    bool last_wanted;
    bool done;
    char answer[128];
} op;

/* Who runs. */
static struct operator* self(void)
{
    return (struct operator*)sim_self();
}

/* No two of them publish the same content. */
static uint64_t next_number(void)
{
    struct operator* o = self();
    o->number += OPERATORS;
    return o->number;
}

static struct replica *pick_replica(void)
{
    struct replica *leader = world_leader();
    return leader != NULL && sim_chance(800) ? leader : &world.replicas[sim_random(REPLICAS)];
}

struct wait {
    struct replica *replica;
    uint64_t life;
    const struct api_call *call;
};

/* Whether the database is the one that it was at the beginning of a call. */
static bool is_same_database(const struct api_call *call)
{
    return call->generation == database_generation();
}

static bool is_over(void *ctx)
{
    const struct wait *w = ctx;
    const struct sim_process *p = &w->replica->machine.process;
    return w->call->done || !p->alive || p->life != w->life;
}

/* Asks one replica. False: no answer came, and nobody knows. */
static bool ask(struct replica *r, struct api_call *call)
{
    struct wait w = {.replica = r, .life = r->machine.process.life, .call = call};
    if (!r->machine.process.alive || r->inbox != NULL) {
        return false;
    }
    sim_sleep(sim_random(SIM_MS));
    r->inbox = call;
    (void)sim_wait(is_over, &w, sim_now_ns() + CALL_NS);
    if (r->inbox == call) {
        r->inbox = NULL; /* it never came to it. */
    }
    return call->done;
}

static struct api_call *new_call(enum cp_work_kind kind, const char *request)
{
    struct api_call *call = calloc(1, sizeof(*call));
    CHECK(call != NULL);
    call->generation = database_generation();
    cp_work_init(&call->work, kind);
    (void)snprintf(call->work.request, sizeof(call->work.request), "%s", request);
    (void)snprintf(call->work.author, sizeof(call->work.author), "operator");
    return call;
}

static void note_answer(const struct replica *r, const struct api_call *call)
{
    (void)snprintf(op.answer, sizeof(op.answer), "%s: %s at %s", r->name,
                   err_name(call->work.result.code), call->work.step);
    sim_note("answer to %s: %s %.*s", call->work.request, op.answer,
             SLICE_ARG(buf_slice(&call->work.sentence)));
}

/* One try; a version whose revocations are lost is named by the answer. */
static bool recover_once(bool gives_up, uint64_t *lost)
{
    static const struct slice names_it = SLICE_INIT("what version ");
    char request[32];
    (void)snprintf(request, sizeof(request), "recover-%s-%u", self()->name, ++self()->recoveries);
    struct replica *r = pick_replica();
    struct api_call *call = new_call(CP_WORK_RECOVER, request);
    call->work.gives_up = gives_up;
    call->work.with_trust = *lost > 0;
    call->work.target = *lost;
    *lost = 0;
    if (!ask(r, call)) {
        return true;
    }
    note_answer(r, call);
    struct slice said = buf_slice(&call->work.sentence);
    if (slice_starts(said, names_it)) {
        *lost = strtoull((const char *)said.ptr + names_it.size, NULL, 10);
    }
    return err_ok(call->work.result);
}

/* Takes what is missing; else gives it up; else with what it revoked. */
static void recover(void)
{
    uint64_t lost = 0;
    if (!recover_once(/* gives_up= */ false, &lost) && !recover_once(/* gives_up= */ true, &lost) &&
        lost > 0) {
        (void)recover_once(/* gives_up= */ true, &lost);
    }
}

/* One way to a publication: sources, or the content of an earlier version. */
struct wish {
    uint64_t number;
    uint64_t target; /* of a rollback; 0: sources. */
    char request[32];
};

static struct api_call *call_of(const struct wish *wish)
{
    struct api_call *call =
        new_call(wish->target == 0 ? CP_WORK_PUBLISH : CP_WORK_ROLLBACK, wish->request);
    if (wish->target == 0) {
        content_add(&call->work.sources, wish->number);
    }
    call->work.target = wish->target;
    return call;
}

/* What was answered as published is published; or lies there, in a version that was adopted when
 * the database had lost it. */
static void check_answer(const struct wish *wish, const struct api_call *call)
{
    const uint64_t answered = call->work.record.version;
    uint64_t version = 0;
    if (!is_same_database(call)) {
        return;
    }
    bool is_there = ledger_request(wish->request, &version) && version == answered;
    bool lies_there =
        call->work.is_unchanged && wish->target == 0 && ledger_holds(answered, wish->number);
    if (!is_there && !lies_there) {
        sim_fail("%s was answered as version %llu, and is not published", wish->request,
                 (unsigned long long)answered);
    }
}

/* The same request until it is done, or given up. */
static bool publish(const struct wish *wish, uint64_t until_ns)
{
    while (sim_now_ns() < until_ns) {
        struct replica *r = pick_replica();
        struct api_call *call = call_of(wish);
        if (ask(r, call)) {
            note_answer(r, call);
            if (err_ok(call->work.result)) {
                check_answer(wish, call);
                return true;
            }
            if (call->work.result.code == E_NEVER_PUBLISHED) {
                return false;
            }
            if (call->work.result.code == E_STORE_BEHIND) {
                sim_sleep(2 * SIM_SECOND);
                recover();
            }
        }
        sim_sleep(sim_between(50, 1000) * SIM_MS);
    }
    return false;
}

static struct wish next_wish(void)
{
    struct wish wish = {.number = next_number()};
    uint64_t newest = ledger_newest();
    if (newest > 1 && sim_chance(150)) {
        wish.target = newest > 1 ? sim_between(1, newest) : 0;
    }
    (void)snprintf(wish.request, sizeof(wish.request), "r%llu", (unsigned long long)wish.number);
    return wish;
}

static bool is_rest_wanted(void *ctx)
{
    (void)ctx;
    return op.rest_wanted;
}

static bool is_last_wanted(void *ctx)
{
    (void)ctx;
    return op.last_wanted;
}

static void publish_last(void)
{
    struct wish wish = {.number = next_number()};
    (void)sim_wait(is_last_wanted, NULL, SIM_NEVER);
    (void)snprintf(wish.request, sizeof(wish.request), "r%llu", (unsigned long long)wish.number);
    op.done = publish(&wish, SIM_NEVER);
}

static void body(void *ctx)
{
    struct operator* o = ctx;
    while (!op.rest_wanted) {
        (void)sim_wait(is_rest_wanted, NULL, sim_now_ns() + sim_between(200, 15000) * SIM_MS);
        struct wish wish = next_wish();
        (void)publish(&wish, sim_now_ns() + PATIENCE_NS);
    }
    o->is_at_rest = true;
    if (o == &op.operators[0]) {
        publish_last();
    }
    (void)sim_wait(NULL, NULL, SIM_NEVER);
}

void operator_begin(void)
{
    memset(&op, 0, sizeof(op));
    for (size_t i = 0; i < OPERATORS; i++) {
        struct operator* o = & op.operators[i];
        (void)snprintf(o->name, sizeof(o->name), "op-%zu", i);
        o->machine.process.name = o->name;
        o->number = i;
        sim_start(&o->machine.process, body, o);
    }
}

void operator_rest(void)
{
    op.rest_wanted = true;
}

bool operator_rests(void)
{
    bool all = true;
    for (size_t i = 0; i < OPERATORS; i++) {
        all = all && op.operators[i].is_at_rest;
    }
    return all;
}

void operator_publish_last(void)
{
    op.last_wanted = true;
}

bool operator_is_done(void)
{
    return op.done;
}

const char *operator_last_answer(void)
{
    return op.answer;
}
