/* fleet: the thread, the bus and the store. What statuses are held against is in roll.c. */
#include "controlplane/fleet/fleet.h"

#include <dirent.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/buf.h"
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "common/base/limits.h"
#include "common/base/lock.h"
#include "common/base/log.h"
#include "common/base/queue.h"
#include "common/base/scope.h"
#include "common/base/text.h"
#include "common/bus/kv.h"
#include "common/bus/subject.h"
#include "controlplane/fleet/roll.h"
#include "controlplane/store/store.h"

#define NS_PER_MS UINT64_C(1000000)

enum {
    INBOX_MAX = 4096,
    BATCH = 64,
    TURN_MS = 250,
    MEMBERS_MS = 5000,     /* so often the store is asked who joined and who was removed. */
    BUCKET_MS = 2000,      /* so often NATS is asked whether the bucket is there, */
    BUCKET_WAIT_MS = 1000, /* and so long its answer is waited for: statuses wait meanwhile. */
    BUCKET_BYTES = 64 << 20,
    WHY_MAX = 512,
};

struct proof {
    uint8_t digest[DIGEST_SIZE]; /* of the certificate that was judged. */
};

/* By id, which is how the store lists them. */
struct members {
    struct cp_roll_member *items; /* owned; 'proofs' as many. */
    struct proof *proofs;
    size_t count;
    size_t capacity;
    uint64_t generation; /* of the authorities that they were judged by. */
};

struct cp_fleet {
    struct cp_fleet_options options;
    struct cp_store *store; /* the thread's. */
    struct cp_roll *roll;
    struct members members; /* as they were read last. */
    struct kv kv;
    struct queue inbox;
    sem_t wakes;
    pthread_t thread;
    bool started;
    bool connected;            /* the thread's: as of its last turn. */
    uint64_t members_ns;       /* when the store is asked next. */
    uint64_t bucket_ns;        /* when the bucket is looked for next. */
    enum err_code bucket_code; /* how making it went last, */
    enum err_code read_code;   /* and reading it: the log has a line a change. */
    bool members_known;        /* it was asked once. */
    bool members_failed;       /* said so in the log. */
    struct bus_subscription *subscription;
    struct {
        struct lock lock;
        pthread_cond_t changed; /* read, or stopping. */
        bool read GUARDED;      /* what lay in the bucket. */
        bool refresh GUARDED;
        bool stopping GUARDED;
    } shared;
};

static void wake(void *ctx)
{
    struct cp_fleet *f = ctx;
    CHECK(sem_post(&f->wakes) == 0);
}

static struct cp_roll_now now(void)
{
    return (struct cp_roll_now){.mono_ns = clock_mono_ns(), .wall_ms = clock_wall_ms()};
}

/* ---- the store's nodes ---- */

static void free_members(struct members *m)
{
    free(m->items);
    free(m->proofs);
    *m = (struct members){.items = NULL};
}

static struct err grow(struct members *m)
{
    if (m->count < m->capacity) {
        return OK;
    }
    size_t capacity = m->capacity == 0 ? 64 : m->capacity * 2;
    struct cp_roll_member *items = realloc(m->items, capacity * sizeof(*items));
    m->items = items == NULL ? m->items : items;
    struct proof *proofs = realloc(m->proofs, capacity * sizeof(*proofs));
    m->proofs = proofs == NULL ? m->proofs : proofs;
    if (items == NULL || proofs == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    m->capacity = capacity;
    return OK;
}

struct reading {
    struct cp_fleet *fleet;
    struct members found;
    size_t at; /* in those of the last time: nothing before it is looked at again. */
};

/* What was judged of this certificate of this node the last time; NULL: another one. */
static const struct cp_roll_member *judged_before(struct reading *r, const char *id,
                                                  const struct proof *proof)
{
    const struct members *last = &r->fleet->members;
    if (last->generation != r->found.generation) {
        return NULL;
    }
    while (r->at < last->count && strcmp(last->items[r->at].id, id) < 0) {
        r->at++;
    }
    bool same = r->at < last->count && strcmp(last->items[r->at].id, id) == 0 &&
                memcmp(last->proofs[r->at].digest, proof->digest, sizeof(proof->digest)) == 0;
    return same ? &last->items[r->at] : NULL;
}

/* A signature is verified once for each certificate, not each time that the rows are read. */
static struct err judge_member(struct reading *r, const struct cp_node *node, struct proof *proof,
                               struct cp_roll_member *out)
{
    struct slice der = slice_of(node->certificate, node->certificate_size);
    struct cp_passport who;
    ids_digest(der, proof->digest);
    if (der.size == 0) { /* of a release before: it is as good as the row. */
        (void)memcpy(out->status_key, node->status_key, sizeof(out->status_key));
        return OK;
    }
    const struct cp_roll_member *before = judged_before(r, node->id, proof);
    if (before != NULL) {
        out->proved = before->proved;
        (void)memcpy(out->status_key, before->status_key, sizeof(out->status_key));
        return OK;
    }
    struct err e = cp_passport_open(r->fleet->options.passports, node->id, der, &who);
    if (e.code == E_CERTIFICATE_MISSING) {
        LOG(LOG_WARN, "fleet", "node_unproved", LOG_STR("node", node->id));
        return OK;
    }
    TRY(e);
    out->proved = who.has_status_key;
    (void)memcpy(out->status_key, who.status_key, sizeof(out->status_key));
    return OK;
}

static struct err add_member(void *ctx, const struct cp_node *node)
{
    struct reading *r = ctx;
    struct members *m = &r->found;
    if (m->count >= limits.nodes) {
        return OK; /* the roll has no more places either. */
    }
    TRY(grow(m));
    struct cp_roll_member *member = &m->items[m->count];
    *member = (struct cp_roll_member){.removed = node->state == CP_NODE_REMOVED};
    (void)snprintf(member->id, sizeof(member->id), "%s", node->id);
    TRY(judge_member(r, node, &m->proofs[m->count], member));
    m->count++;
    return OK;
}

static void read_members(struct cp_fleet *f)
{
    struct cp_passports *passports = f->options.passports;
    struct reading r = {.fleet = f};
    r.found.generation = passports == NULL ? 0 : cp_passports_generation(passports);
    struct err e = f->store->ops->node_list(f->store, f->options.environment, add_member, &r);
    if (err_ok(e)) {
        struct cp_roll_now moment = now();
        cp_roll_enrol(f->roll, r.found.items, r.found.count, &moment);
        f->members_known = true;
        free_members(&f->members);
        f->members = r.found;
        r.found = (struct members){.items = NULL};
    } else if (!f->members_failed) { /* once: the ones that are known stay. */
        LOG(LOG_WARN, "fleet", "nodes_unread", LOG_ERR(e));
    }
    f->members_failed = !err_ok(e);
    free_members(&r.found);
}

static bool takes_refresh(struct cp_fleet *f)
{
    lock_take(&f->shared.lock);
    bool refresh = f->shared.refresh;
    f->shared.refresh = false;
    lock_drop(&f->shared.lock);
    return refresh;
}

static void look_at_members(struct cp_fleet *f)
{
    uint64_t now_ns = clock_mono_ns();
    bool asked = takes_refresh(f);
    asked = cp_roll_wants_members(f->roll) || asked;
    if (asked || now_ns >= f->members_ns) {
        f->members_ns = now_ns + MEMBERS_MS * NS_PER_MS;
        read_members(f);
    }
}

/* ---- statuses ---- */

/* "$KV.<bucket>.<id>": the id is what stands behind the last dot. */
static struct slice id_of(struct slice subject)
{
    size_t at = subject.size;
    while (at > 0 && subject.ptr[at - 1] != '.') {
        at--;
    }
    return slice_from(subject, at);
}

static void take_messages(struct cp_fleet *f)
{
    void *items[BATCH];
    size_t count = 0;
    do {
        count = queue_pop(&f->inbox, items, BATCH);
        struct cp_roll_now moment = now();
        for (size_t i = 0; i < count; i++) {
            struct bus_message *message = items[i];
            if (message->payload.size > 0) { /* a marker says nothing. */
                cp_roll_offer(f->roll, id_of(message->subject), message->payload, &moment);
            }
            bus_message_free(message);
        }
    } while (count > 0);
}

static struct err read_one(struct cp_fleet *f, struct slice id)
{
    auto_buf struct buf value = BUF_MAX(64 << 10);
    struct kv_entry found;
    TRY(kv_get(&f->kv, id, KV_READ_ANY, limits.fetch_timeout_ms, &value, &found));
    if (found.state == KV_VALUE) {
        struct cp_roll_now moment = now();
        cp_roll_recall(f->roll, id, buf_slice(&value), &moment);
    }
    return OK;
}

/* A bucket of fewer replicas is as good as it was; whether there are more servers is looked at with
 * each connection. */
static void raise_replicas(struct cp_fleet *f, const struct stream_info *info)
{
    struct stream_info raised = *info;
    if (info->replicas >= f->options.replicas) {
        return;
    }
    struct err e = kv_raise(&f->kv, f->options.replicas, limits.fetch_timeout_ms, &raised);
    LOG(err_ok(e) ? LOG_INFO : LOG_WARN, "fleet", "bucket_replicas",
        LOG_U64("has", raised.replicas), LOG_U64("wanted", f->options.replicas), LOG_ERR(e));
}

static struct err read_directory(struct cp_fleet *f)
{
    DIR *directory = opendir(f->options.node_keys);
    if (directory == NULL) {
        return OK; /* nobody is enrolled by hand. */
    }
    struct err e = OK;
    const struct dirent *item = NULL;
    /* NOLINTNEXTLINE(concurrency-mt-unsafe): this stream is this thread's alone. */
    while (err_ok(e) && (item = readdir(directory)) != NULL) {
        struct slice name = slice_str(item->d_name);
        if (slice_ends(name, SLICE_LIT(".pub"))) {
            struct slice id = slice_head(name, name.size - 4);
            e = text_is_name(id) ? read_one(f, id) : OK;
        }
    }
    (void)closedir(directory);
    return e;
}

static struct err ensure_bucket(struct cp_fleet *f, uint64_t timeout_ms, struct stream_info *info)
{
    struct kv_config config = {
        .history = 1, .max_bytes = BUCKET_BYTES, .replicas = f->options.replicas};
    auto_buf struct buf why = BUF_MAX(WHY_MAX);
    struct err e = kv_ensure(&f->kv, &config, timeout_ms, &why, info);
    if (!err_ok(e) && f->bucket_code != e.code) {
        LOG(LOG_WARN, "fleet", "bucket_missing", LOG_ERR(e), LOG_SLICE("why", buf_slice(&why)));
    }
    f->bucket_code = e.code;
    return e;
}

/* What enrolled nodes said before we listened. */
static struct err read_bucket(struct cp_fleet *f, struct stream_info *info)
{
    TRY(ensure_bucket(f, limits.fetch_timeout_ms, info));
    char id[KEY_NAME_MAX + 1];
    size_t at = 0;
    while (cp_roll_next_member(f->roll, &at, id)) {
        TRY(read_one(f, slice_str(id)));
    }
    return read_directory(f);
}

static void note_read(struct cp_fleet *f)
{
    lock_take(&f->shared.lock);
    f->shared.read = true;
    CHECK(pthread_cond_broadcast(&f->shared.changed) == 0);
    lock_drop(&f->shared.lock);
}

/* Whoever destroys the bucket need not break our connection for it. Statuses come as messages all
 * the same; but the next replica that starts reads them there. */
static void look_at_bucket(struct cp_fleet *f)
{
    uint64_t now_ns = clock_mono_ns();
    if (now_ns < f->bucket_ns) {
        return;
    }
    f->bucket_ns = now_ns + BUCKET_MS * NS_PER_MS;
    struct stream_info info;
    struct err ignored = ensure_bucket(f, BUCKET_WAIT_MS, &info); /* it told how that went. */
    (void)ignored;
}

/* What lay in the bucket before we came. False: again with the next turn. */
static bool catch_up(struct cp_fleet *f)
{
    struct stream_info info;
    struct err e = f->members_known ? read_bucket(f, &info) : FAIL(E_UNAVAILABLE);
    if (!err_ok(e) && e.code != f->read_code) {
        LOG(LOG_WARN, "fleet", "bucket_unread", LOG_ERR(e));
    }
    f->read_code = e.code;
    if (err_ok(e) || e.code == E_BUS_FORBIDDEN) {
        note_read(f); /* what is forbidden is not worth waiting for. */
    }
    if (err_ok(e)) {
        raise_replicas(f, &info);
    }
    return err_ok(e);
}

static void look_at_connection(struct cp_fleet *f)
{
    bool connected = bus_state(f->options.bus) == BUS_CONNECTED;
    if (connected && f->connected) {
        look_at_bucket(f);
    }
    f->connected = connected && (f->connected || catch_up(f));
}

/* ---- the thread ---- */

static bool is_stopping(struct cp_fleet *f)
{
    lock_take(&f->shared.lock);
    bool stopping = f->shared.stopping;
    lock_drop(&f->shared.lock);
    return stopping;
}

static struct timespec in_ms(uint64_t ms)
{
    struct timespec until;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &until) == 0);
    until.tv_sec += (time_t)(ms / 1000);
    until.tv_nsec += (long)(ms % 1000 * NS_PER_MS);
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    return until;
}

static void *run(void *ctx)
{
    struct cp_fleet *f = ctx;
    while (!is_stopping(f)) {
        look_at_members(f);
        look_at_connection(f);
        take_messages(f);
        struct cp_roll_now moment = now();
        uint64_t next_ms = cp_roll_turn(f->roll, &moment);
        if (cp_roll_wants_restore(f->roll)) {
            f->options.restore(f->options.restore_ctx);
        }
        struct timespec until = in_ms(next_ms < TURN_MS ? next_ms : TURN_MS);
        (void)sem_clockwait(&f->wakes, CLOCK_MONOTONIC, &until);
    }
    return NULL;
}

static struct err prepare(struct cp_fleet *f, struct buf *message)
{
    struct subject bucket;
    char subject[SUBJECT_SIZE_MAX + 1];
    TRY(cp_roll_new(f->options.environment, f->options.node_keys, &f->roll));
    TRY(cp_store_await(f->options.store, &f->store, message));
    TRY(subject_bucket_nodes(slice_str(f->options.environment), &bucket));
    TRY(kv_bind(&f->kv, f->options.bus, subject_slice(&bucket)));
    (void)snprintf(subject, sizeof(subject), "$KV.%.400s.>", bucket.text);
    return bus_subscribe_payloads(f->options.bus, slice_str(subject), CP_ROLL_STATUS_MAX, &f->inbox,
                                  f, &f->subscription);
}

struct err cp_fleet_new(const struct cp_fleet_options *options, struct cp_fleet **out,
                        struct buf *message)
{
    struct cp_fleet *f = calloc(1, sizeof(*f));
    if (f == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    f->options = *options;
    struct err e = queue_init(&f->inbox, INBOX_MAX, wake, f);
    if (!err_ok(e)) {
        free(f);
        return e;
    }
    lock_init(&f->shared.lock);
    CHECK(pthread_cond_init(&f->shared.changed, NULL) == 0);
    CHECK(sem_init(&f->wakes, 0, 0) == 0);
    e = prepare(f, message);
    if (!err_ok(e)) {
        cp_fleet_free(f);
        return e;
    }
    *out = f;
    return OK;
}

struct err cp_fleet_run(struct cp_fleet *fleet)
{
    fleet->started = pthread_create(&fleet->thread, NULL, run, fleet) == 0;
    return fleet->started ? OK : FAIL(E_IO);
}

void cp_fleet_stop(struct cp_fleet *fleet)
{
    lock_take(&fleet->shared.lock);
    fleet->shared.stopping = true;
    CHECK(pthread_cond_broadcast(&fleet->shared.changed) == 0);
    lock_drop(&fleet->shared.lock);
    wake(fleet);
}

void cp_fleet_free(struct cp_fleet *fleet)
{
    if (fleet == NULL) {
        return;
    }
    if (fleet->started) {
        cp_fleet_stop(fleet);
        CHECK(pthread_join(fleet->thread, NULL) == 0);
    }
    bus_unsubscribe(fleet->options.bus, fleet->subscription);
    cp_roll_free(fleet->roll);
    free_members(&fleet->members);
    cp_store_close(fleet->store);
    queue_free(&fleet->inbox, bus_message_drop);
    (void)sem_destroy(&fleet->wakes);
    CHECK(pthread_cond_destroy(&fleet->shared.changed) == 0);
    lock_free(&fleet->shared.lock);
    free(fleet);
}

/* ---- from other threads ---- */

bool cp_fleet_wait_read(struct cp_fleet *fleet, uint64_t timeout_ms)
{
    struct timespec until = in_ms(timeout_ms);
    int waited = 0;
    wake(fleet); /* it may not have looked since it is connected. */
    lock_take(&fleet->shared.lock);
    while (!fleet->shared.read && !fleet->shared.stopping && waited == 0) {
        waited = pthread_cond_clockwait(&fleet->shared.changed, &fleet->shared.lock.m,
                                        CLOCK_MONOTONIC, &until);
    }
    bool read = fleet->shared.read;
    lock_drop(&fleet->shared.lock);
    return read;
}

void cp_fleet_refresh(struct cp_fleet *fleet)
{
    lock_take(&fleet->shared.lock);
    fleet->shared.refresh = true;
    lock_drop(&fleet->shared.lock);
    wake(fleet);
}

struct err cp_fleet_list(struct cp_fleet *fleet, struct cp_fleet_node **out, size_t *out_count)
{
    struct cp_roll_now moment = now();
    return cp_roll_list(fleet->roll, &moment, out, out_count);
}

void cp_fleet_tally(struct cp_fleet *fleet, struct cp_fleet_tally *out)
{
    struct cp_roll_now moment = now();
    cp_roll_tally(fleet->roll, &moment, out);
}

void cp_fleet_order(struct cp_fleet *fleet, const struct cp_fleet_order *most,
                    struct cp_fleet_order *out)
{
    struct cp_roll_now moment = now();
    cp_roll_order(fleet->roll, &moment, most, out);
}

bool cp_fleet_key(struct cp_fleet *fleet, struct slice id, struct key_public *out)
{
    return cp_roll_key(fleet->roll, id, out);
}

void cp_fleet_counters(struct cp_fleet *fleet, struct cp_status_counters *out)
{
    cp_roll_counters(fleet->roll, out);
}
