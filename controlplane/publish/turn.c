/* turn: whether it is this publication's turn: the steps base, lead and open. */
#include <inttypes.h>
#include <string.h>

#include "controlplane/publish/passage.h"

enum { BUS_GRACE_MS = 1000 };

/* ---- base, lead ---- */

struct err cp_passage_find_request(struct cp_passage *p, bool *out_found)
{
    struct cp_work *work = p->work;
    *out_found = false;
    if (work->request[0] == '\0') {
        return OK;
    }
    struct err e = p->room->store->ops->find_request(p->room->store, p->room->environment,
                                                     work->request, &work->record);
    *out_found = err_ok(e);
    return e.code == E_NOT_FOUND ? OK : e;
}

struct err cp_passage_find_newest(struct cp_passage *p)
{
    struct cp_work *work = p->work;
    struct err e = p->room->store->ops->latest(p->room->store, p->room->environment, &work->before);
    if (e.code == E_NOT_FOUND) {
        work->before = (struct cp_record){0};
        return OK;
    }
    return e;
}

/* What was planned under an id stands on the version that it was compared with. */
static struct err take_plan(struct cp_passage *p)
{
    struct cp_work *work = p->work;
    uint64_t base = 0;
    p->prepared = cp_shelf_planned(p->room->shelf, work->plan, &base);
    if (p->prepared == NULL) {
        return FAIL(E_PLAN_GONE);
    }
    p->found = true;
    work->base = work->has_base ? work->base : base;
    work->has_base = true;
    return OK;
}

struct err cp_step_base(struct cp_passage *p)
{
    struct cp_work *work = p->work;
    TRY(cp_passage_find_request(p, &p->over));
    if (p->over) {
        return cp_step_head(p);
    }
    TRY(work->has_plan ? take_plan(p) : OK);
    TRY(cp_passage_find_newest(p));
    if (work->has_base && work->base != work->before.version) {
        TRY(buf_addf(&work->sentence,
                     "the newest version is %" PRIu64 ", the plan was made against %" PRIu64,
                     work->before.version, work->base));
        return FAIL(E_BASE_CHANGED);
    }
    return OK;
}

struct err cp_step_lead(struct cp_passage *p)
{
    struct cp_leader_status status;
    struct err leads = cp_leader_fence(p->room->leader, &p->fence);
    cp_leader_status(p->room->leader, &status);
    if (err_ok(leads) && status.code == E_STORE_BEHIND && !p->work->recovers) {
        return FAIL(E_STORE_BEHIND);
    }
    /* One that has just started, or lost a server of several, is connected in a moment. */
    if (!err_ok(bus_wait_connected(p->room->bus, BUS_GRACE_MS))) {
        TRY(buf_addf(&p->work->sentence, "NATS cannot be reached since %" PRIu64 " ms",
                     bus_down_ms(p->room->bus)));
        return FAIL(E_BUS_UNAVAILABLE);
    }
    return leads;
}

/* ---- open ---- */

static bool has_judged(const struct cp_cosignature *cosignatures, size_t count,
                       const uint8_t key[KEY_ID_SIZE])
{
    for (size_t i = 0; i < count; i++) {
        if (memcmp(cosignatures[i].key_id, key, KEY_ID_SIZE) == 0) {
            return true;
        }
    }
    return false;
}

void cp_passage_own_key(const struct cp_passage *p, uint8_t out[KEY_ID_SIZE])
{
    struct cp_signer_hello hello = cp_signer_hello(p->room->signer);
    key_id(hello.manifest_public, out);
}

struct err cp_step_open(struct cp_passage *p)
{
    struct cp_store *store = p->room->store;
    struct err e = store->ops->proposal_open(store, p->room->environment, &p->proposal, &p->body);
    if (e.code == E_NOT_FOUND) {
        p->over = true;
        return OK;
    }
    TRY(e);
    struct cp_cosignature found[CP_COSIGNATURES_MAX];
    size_t count = 0;
    uint8_t key[KEY_ID_SIZE];
    cp_passage_own_key(p, key);
    TRY(store->ops->cosign_list(store, p->room->environment, p->proposal.version, found, &count));
    p->over = has_judged(found, count, key);
    p->proposed = !p->over;
    p->work->record.version = p->proposal.version;
    p->work->target = p->proposal.origin;
    p->work->with_trust = p->proposal.with_trust;
    if (p->over) {
        return OK;
    }
    if (!cp_warrant_holds(p->room->warrant_key, p->room->environment, &p->proposal,
                          buf_slice(&p->body))) {
        TRY(buf_add_str(&p->work->sentence,
                        "the proposal is not of a replica that has this one's token"));
        return FAIL(E_COSIGN_REFUSED);
    }
    return cp_passage_find_newest(p);
}
