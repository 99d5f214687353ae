/* cosign: see cosign.h. */
#include "controlplane/publish/cosign.h"

#include <inttypes.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/queue.h"
#include "common/bus/subject.h"

enum { LOOK_MIN_MS = 2, LOOK_MAX_MS = 50, HINTS_MAX = 64 };

/* ---- the leader's side ---- */

struct gathering {
    struct cp_publish_room *room;
    const struct cp_cosign *cosign;
    struct root root; /* in force. */
    struct buf signed_bytes;
    struct container_signature signatures[CONTAINER_SIGNATURES_MAX];
    const struct ring_key *keys[CONTAINER_SIGNATURES_MAX];
    uint32_t count;
    struct buf *sentence;
};

const struct ring_key *cp_cosign_key(const struct root *root, const uint8_t id[KEY_ID_SIZE])
{
    for (uint32_t i = 0; i < root->ring.count; i++) {
        const struct ring_key *key = &root->ring.keys[i];
        if (key->role == KEY_ROLE_MANIFEST && memcmp(key->id, id, KEY_ID_SIZE) == 0) {
            return key;
        }
    }
    return NULL;
}

/* Takes a signature that counts: by a manifest key of the root in force, each key once. */
static void take(struct gathering *g, const struct container_signature *signature)
{
    const struct ring_key *key = cp_cosign_key(&g->root, signature->key_id);
    for (uint32_t i = 0; i < g->count; i++) {
        key = key == g->keys[i] ? NULL : key;
    }
    if (key != NULL && g->count < CONTAINER_SIGNATURES_MAX &&
        key_verify(key->public, buf_slice(&g->signed_bytes), signature->signature)) {
        g->keys[g->count] = key;
        g->signatures[g->count++] = *signature;
    }
}

/* Another content from the same sources is no matter of time: two replicas are not alike, or one
 * of them is not honest. */
static struct err take_refusal(struct gathering *g, const struct cp_cosignature *refusal)
{
    const struct ring_key *key = cp_cosign_key(&g->root, refusal->key_id);
    if (key == NULL || refusal->code != E_COSIGN_REFUSED) {
        return OK;
    }
    TRY(buf_addf(g->sentence, "%s did not sign: %s", key->name, refusal->sentence));
    return FAIL(E_COSIGN_REFUSED);
}

static struct err look(struct gathering *g)
{
    struct cp_cosignature found[CP_COSIGNATURES_MAX];
    size_t count = 0;
    struct cp_store *store = g->room->store;
    TRY(store->ops->cosign_list(store, g->room->environment, g->cosign->version, found, &count));
    for (size_t i = 0; i < count; i++) {
        if (found[i].code != E_OK) {
            TRY(take_refusal(g, &found[i]));
            continue;
        }
        struct container_signature signature;
        (void)memcpy(signature.key_id, found[i].key_id, sizeof(signature.key_id));
        (void)memcpy(signature.signature, found[i].signature, sizeof(signature.signature));
        take(g, &signature);
    }
    return OK;
}

static struct err say_missing(struct gathering *g)
{
    TRY(buf_addf(g->sentence, "%" PRIu32 " of %" PRIu32 " signatures came within %" PRIu64 " ms",
                 g->count, g->root.ring.thresholds[KEY_ROLE_MANIFEST], g->cosign->wait_ms));
    for (uint32_t i = 0; i < g->count; i++) {
        TRY(buf_addf(g->sentence, "%s%s", i == 0 ? ": by " : ", ", g->keys[i]->name));
    }
    return FAIL(E_COSIGNERS_MISSING);
}

/* A key that the root in force does not know signs for nothing: the root may have changed. */
static struct err wait_for_enough(struct gathering *g)
{
    uint64_t end_ns = clock_mono_ns() + g->cosign->wait_ms * 1000000;
    struct cp_fence fence;
    take(g, &g->cosign->own);
    for (int step_ms = LOOK_MIN_MS;;
         step_ms = step_ms * 2 < LOOK_MAX_MS ? step_ms * 2 : LOOK_MAX_MS) {
        if (g->count >= g->root.ring.thresholds[KEY_ROLE_MANIFEST]) {
            return OK;
        }
        if (clock_mono_ns() >= end_ns) {
            return say_missing(g);
        }
        if (g->room->stopping != NULL && g->room->stopping(g->room->stopping_ctx)) {
            return FAIL(E_DRAINING);
        }
        TRY(cp_leader_fence(g->room->leader, &fence)); /* whoever leads now proposes anew. */
        (void)poll(NULL, 0, step_ms);
        TRY(look(g));
    }
}

static struct err seal(struct gathering *g, struct buf *out, struct buf *signers)
{
    uint32_t count = g->root.ring.thresholds[KEY_ROLE_MANIFEST];
    CHECK(count <= g->count);
    for (uint32_t i = 0; i < count; i++) {
        TRY(buf_addf(signers, "%s%s", i == 0 ? "" : ",", g->keys[i]->name));
    }
    return container_seal(CONTAINER_MANIFEST, g->root.environment_id, g->cosign->body,
                          g->signatures, count, out);
}

struct err cp_cosign_gather(struct cp_publish_room *room, const struct cp_cosign *cosign,
                            struct buf *out, struct buf *signers, struct buf *sentence)
{
    struct gathering g = {.room = room,
                          .cosign = cosign,
                          .signed_bytes = BUF_MAX(MANIFEST_BODY_MAX + 256),
                          .sentence = sentence};
    cp_roots_now(room->roots, &g.root);
    struct err e = container_signed_bytes(CONTAINER_MANIFEST, g.root.environment_id, cosign->body,
                                          &g.signed_bytes);
    if (err_ok(e)) {
        e = wait_for_enough(&g);
    }
    if (err_ok(e)) {
        e = seal(&g, out, signers);
    }
    buf_free(&g.signed_bytes);
    return e;
}

/* ---- what a replica agrees with ---- */

static struct err differs(struct buf *sentence, const char *what, uint64_t theirs, uint64_t mine)
{
    TRY(buf_addf(sentence, "%s: the leader has %" PRIu64 ", this replica %" PRIu64, what, theirs,
                 mine));
    return FAIL(E_COSIGN_REFUSED);
}

static struct err same_stream(const struct manifest_stream *theirs, const struct cut_stream *mine,
                              struct buf *sentence)
{
    const char *name = stream_kind_name(mine->kind);
    bool same = theirs->kind == mine->kind && theirs->format == mine->format &&
                theirs->raw_size == mine->raw_size && theirs->chunk_count == mine->chunk_count &&
                memcmp(theirs->raw_digest, mine->raw_digest, DIGEST_SIZE) == 0;
    if (same) {
        return OK;
    }
    TRY(buf_addf(sentence, "stream %s: the leader made something else of the same sources",
                 name == NULL ? "?" : name));
    return FAIL(E_COSIGN_REFUSED);
}

struct err cp_cosign_agree(struct slice body, const struct manifest_plan *mine,
                           struct buf *sentence)
{
    auto_manifest struct manifest theirs = {0};
    TRY(manifest_decode(body, &theirs));
    if (theirs.version != mine->version) {
        return differs(sentence, "version", theirs.version, mine->version);
    }
    if (theirs.capabilities != mine->capabilities) {
        return differs(sentence, "capabilities", theirs.capabilities, mine->capabilities);
    }
    if (theirs.stream_count != mine->stream_count) {
        return differs(sentence, "streams", theirs.stream_count, mine->stream_count);
    }
    for (size_t i = 0; i < mine->stream_count; i++) {
        TRY(same_stream(&theirs.streams[i], &mine->streams[i], sentence));
    }
    return OK;
}

/* ---- the cosigner ---- */

struct cp_cosigner {
    struct cp_task task; /* first: a task is cast to its cosigner. */
    struct bus *bus;
    struct cp_worker *worker;
    struct queue hints;
    struct bus_subscription *subscription;
    atomic_bool queued; /* the task waits, or has just begun. */
};

static void run(struct cp_task *task, struct cp_publish_room *room)
{
    struct cp_cosigner *c = (struct cp_cosigner *)task;
    void *hint = NULL;
    atomic_store(&c->queued, false);
    while (queue_pop(&c->hints, &hint, 1) == 1) {
        bus_message_free(hint);
    }
    struct cp_fence fence;
    if (err_ok(cp_leader_fence(room->leader, &fence))) {
        return; /* the proposal is its own, or is proposed anew by it. */
    }
    struct cp_work work;
    cp_work_init(&work, CP_WORK_COSIGN);
    cp_publish_run(room, &work);
    cp_work_free(&work);
}

void cp_cosigner_wake(struct cp_cosigner *cosigner)
{
    if (!atomic_exchange(&cosigner->queued, true) &&
        !err_ok(cp_worker_push(cosigner->worker, &cosigner->task))) {
        atomic_store(&cosigner->queued, false); /* it is asked again. */
    }
}

static void on_hint(void *ctx)
{
    cp_cosigner_wake(ctx);
}

static struct err listen(struct cp_cosigner *c, const char *environment)
{
    struct subject subject;
    TRY(subject_proposal(slice_str(environment), &subject));
    return bus_subscribe(c->bus, subject_slice(&subject), /* group= */ (struct slice){0}, &c->hints,
                         c, &c->subscription);
}

struct err cp_cosigner_new(struct bus *bus, const char *environment, struct cp_worker *worker,
                           struct cp_cosigner **out)
{
    struct cp_cosigner *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    c->task.run = run;
    c->bus = bus;
    c->worker = worker;
    struct err e = queue_init(&c->hints, HINTS_MAX, on_hint, c);
    if (!err_ok(e)) {
        free(c);
        return e;
    }
    e = listen(c, environment);
    if (!err_ok(e)) {
        cp_cosigner_free(c);
        return e;
    }
    *out = c;
    return OK;
}

void cp_cosigner_free(struct cp_cosigner *cosigner)
{
    if (cosigner == NULL) {
        return;
    }
    bus_unsubscribe(cosigner->bus, cosigner->subscription);
    queue_free(&cosigner->hints, bus_message_drop);
    free(cosigner);
}

void cp_cosign_hint(struct bus *bus, const char *environment)
{
    struct subject subject;
    struct err e = subject_proposal(slice_str(environment), &subject);
    if (err_ok(e)) {
        struct bus_outgoing message = {.subject = subject_slice(&subject)};
        e = bus_publish(bus, &message);
    }
    if (!err_ok(e)) {
        LOG(LOG_DEBUG, "cosign", "hint_failed", LOG_ERR(e));
    }
}
