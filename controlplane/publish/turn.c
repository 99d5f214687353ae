/* turn: whether it is this publication's turn: the steps base, lead and open. */
#include <inttypes.h>
#include <sodium.h>
#include <string.h>

#include "controlplane/publish/passage.h"

enum { BUS_GRACE_MS = 1000 };

/* ---- base, lead ---- */

/* Which version was seen before is no part of it: nor is how long to wait. */
static void note_asked(struct cp_passage *p)
{
    const struct cp_work *work = p->work;
    const uint64_t numbers[] = {(uint64_t)work->kind, work->target, work->with_trust, work->again,
                                work->has_plan};
    crypto_generichash_state state;
    (void)crypto_generichash_init(&state, NULL, 0, DIGEST_SIZE);
    (void)crypto_generichash_update(&state, (const uint8_t *)numbers, sizeof(numbers));
    (void)crypto_generichash_update(&state, work->plan, sizeof(work->plan));
    (void)crypto_generichash_update(&state, (const uint8_t *)work->author,
                                    strlen(work->author) + 1);
    (void)crypto_generichash_update(&state, (const uint8_t *)work->message,
                                    strlen(work->message) + 1);
    (void)crypto_generichash_final(&state, p->asked, DIGEST_SIZE);
}

struct err cp_passage_request_digest(const struct cp_passage *p, uint8_t out[DIGEST_SIZE])
{
    uint8_t both[2 * DIGEST_SIZE] = {0};
    (void)memcpy(both, p->asked, DIGEST_SIZE);
    if (p->work->kind == CP_WORK_PUBLISH && !p->work->has_plan) {
        TRY(cp_passage_brought_digest(p, both + DIGEST_SIZE));
    }
    ids_digest(slice_of(both, sizeof(both)), out);
    return OK;
}

/* One of a release before, or of a recovery, does not say what it was: it is believed. */
static struct err judge_request(struct cp_passage *p, const struct cp_record *record)
{
    static const uint8_t unknown[DIGEST_SIZE];
    uint8_t digest[DIGEST_SIZE];
    if (p->work->recovers) {
        return OK; /* what it publishes depends on what it found. */
    }
    TRY(cp_passage_request_digest(p, digest));
    if (memcmp(record->request_digest, digest, DIGEST_SIZE) == 0 ||
        memcmp(record->request_digest, unknown, DIGEST_SIZE) == 0) {
        return OK;
    }
    TRY(buf_addf(&p->work->sentence,
                 "the id of this request is that of version %" PRIu64 ", which was another one",
                 record->version));
    return FAIL(E_CONFLICT);
}

struct err cp_passage_find_request(struct cp_passage *p, bool *out_found)
{
    struct cp_work *work = p->work;
    struct cp_record record;
    *out_found = false;
    if (work->request[0] == '\0') {
        return OK;
    }
    struct err e = p->room->store->ops->find_request(p->room->store, p->room->environment,
                                                     work->request, &record);
    if (e.code == E_NOT_FOUND) {
        return OK;
    }
    TRY(e);
    TRY(judge_request(p, &record));
    work->record = record;
    *out_found = true;
    return OK;
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
    note_asked(p);
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
        char text[BUS_ERROR_TEXT_MAX];
        bus_last_error(p->room->bus, text);
        TRY(buf_addf(&p->work->sentence, "NATS cannot be reached since %" PRIu64 " ms%s%s",
                     bus_down_ms(p->room->bus), text[0] == '\0' ? "" : ": ", text));
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
