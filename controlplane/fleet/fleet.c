/* fleet: see fleet.h. */
#include "controlplane/fleet/fleet.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/lock.h"
#include "common/base/log.h"
#include "common/base/map.h"
#include "common/base/queue.h"
#include "common/base/text.h"
#include "common/bus/kv.h"
#include "common/bus/subject.h"
#include "controlplane/identity/ceremony.h"

enum {
    INBOX_MAX = 4096,
    BATCH = 64,
    TURN_MS = 500,
    WAIT_STEP_MS = 5,
    HEARTBEATS = 3, /* a node that missed these is not live. */
    PATH_SIZE = 4096,
    BUCKET_BYTES = 64 << 20,
};

struct entry {
    struct cp_fleet_node node;
    uint64_t seen_ns;
};

struct cp_fleet {
    struct cp_fleet_options options;
    uint8_t environment[ENVIRONMENT_SIZE];
    struct kv kv;
    struct queue inbox;
    sem_t wakes;
    pthread_t thread;
    bool started;
    bool connected; /* the thread's: as of its last turn. */
    struct bus_subscription *subscription;
    struct {
        struct lock lock;
        struct map nodes GUARDED; /* id to struct entry. */
        uint64_t unverified GUARDED;
        bool read GUARDED; /* what lay in the bucket. */
        bool stopping GUARDED;
    } shared;
};

static void wake(void *ctx)
{
    struct cp_fleet *f = ctx;
    CHECK(sem_post(&f->wakes) == 0);
}

/* ---- the table ---- */

/* The entry of a node; NULL when the table is full or there is no memory. */
static struct entry *entry_of(struct cp_fleet *f, struct slice id) REQUIRES(f->shared.lock)
{
    struct entry *entry = map_get(&f->shared.nodes, id);
    if (entry != NULL || f->shared.nodes.count >= limits.nodes) {
        return entry;
    }
    entry = calloc(1, sizeof(*entry));
    if (entry == NULL) {
        return NULL;
    }
    (void)snprintf(entry->node.id, sizeof(entry->node.id), "%.*s", SLICE_ARG(id));
    if (!err_ok(map_put(&f->shared.nodes, slice_str(entry->node.id), entry, NULL))) {
        free(entry);
        return NULL;
    }
    return entry;
}

static void take_unverified(struct cp_fleet *f, struct slice id, enum err_code why)
{
    lock_take(&f->shared.lock);
    f->shared.unverified++;
    struct entry *entry = entry_of(f, id);
    /* What a verified node said stays: somebody else wrote under its key. */
    if (entry != NULL && !entry->node.verified) {
        entry->node.why = why;
        entry->seen_ns = clock_mono_ns();
    }
    lock_drop(&f->shared.lock);
}

static bool is_newer(const struct cp_fleet_node *node, const struct status *status)
{
    return !node->verified || status->count > node->status.count ||
           status->at_ms > node->status.at_ms;
}

/* A status that was read, not sent just now, is as old as its own clock says. */
static uint64_t seen_at(const struct status *status, bool from_bucket)
{
    uint64_t now_ns = clock_mono_ns();
    int64_t age_ms = clock_wall_ms() - status->at_ms;
    if (!from_bucket || age_ms <= 0) {
        return now_ns;
    }
    uint64_t age_ns = (uint64_t)age_ms * 1000000;
    return age_ns < now_ns ? now_ns - age_ns : 1;
}

/* Whether a node found something else in the bucket than what was put there, or nothing. Which key
 * a stranger's object was signed with makes no difference: ours has to be put again. */
static bool says_bucket_is_wrong(const struct status *status)
{
    static const enum err_code codes[] = {
        E_ROOT_MISSING,       E_ROOT_MALFORMED,    E_ROOT_UNSIGNED,  E_MANIFEST_MISSING,
        E_MANIFEST_MALFORMED, E_MANIFEST_UNSIGNED, E_MANIFEST_MIXED, E_MANIFEST_WRONG_KEY,
        E_CHUNK_MISSING,      E_CHUNK_TAMPERED,
    };
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        if (status->code == (uint32_t)codes[i]) {
            return true;
        }
    }
    return false;
}

static void take_verified(struct cp_fleet *f, const struct status *status, bool from_bucket)
{
    lock_take(&f->shared.lock);
    struct entry *entry = entry_of(f, slice_str(status->node));
    if (entry != NULL && is_newer(&entry->node, status)) {
        entry->node.verified = true;
        entry->node.why = E_OK;
        entry->node.status = *status;
        entry->seen_ns = seen_at(status, from_bucket);
    }
    lock_drop(&f->shared.lock);
    if (says_bucket_is_wrong(status) && !from_bucket) {
        f->options.restore(f->options.restore_ctx);
    }
}

static void take(struct cp_fleet *f, struct slice id, struct slice bytes, bool from_bucket)
{
    if (!text_is_name(id)) {
        return; /* no node has such an id. */
    }
    char path[PATH_SIZE];
    (void)snprintf(path, sizeof(path), "%.3900s/%.*s.pub", f->options.node_keys, SLICE_ARG(id));
    auto_buf struct buf message = BUF_MAX(PATH_SIZE + 256);
    struct key_public key;
    struct status status;
    struct err e = cp_key_read_public(path, &key, &message);
    if (err_ok(e) && (key.role != KEY_ROLE_NODE || !slice_eq(slice_str(key.name), id))) {
        e = FAIL(E_UNAUTHENTICATED);
    }
    if (err_ok(e)) {
        e = status_open(bytes, f->environment, &key, &status);
    }
    if (err_ok(e) && !slice_eq(slice_str(status.node), id)) {
        e = FAIL(E_UNAUTHENTICATED);
    }
    if (err_ok(e)) {
        take_verified(f, &status, from_bucket);
    } else {
        take_unverified(f, id, e.code);
    }
}

/* ---- the thread ---- */

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
        for (size_t i = 0; i < count; i++) {
            struct bus_message *message = items[i];
            if (message->payload.size > 0) { /* a marker says nothing. */
                take(f, id_of(message->subject), message->payload, /* from_bucket= */ false);
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
        take(f, id, buf_slice(&value), /* from_bucket= */ true);
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

/* What enrolled nodes said before we listened. */
static struct err read_bucket(struct cp_fleet *f, struct stream_info *info)
{
    struct kv_config config = {
        .history = 1, .max_bytes = BUCKET_BYTES, .replicas = f->options.replicas};
    TRY(kv_ensure(&f->kv, &config, limits.fetch_timeout_ms, /* why= */ NULL, info));
    DIR *directory = opendir(f->options.node_keys);
    if (directory == NULL) {
        return OK; /* nobody is enrolled. */
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

static void note_read(struct cp_fleet *f)
{
    lock_take(&f->shared.lock);
    f->shared.read = true;
    lock_drop(&f->shared.lock);
}

static void look_at_connection(struct cp_fleet *f)
{
    bool connected = bus_state(f->options.bus) == BUS_CONNECTED;
    if (connected && !f->connected) {
        struct stream_info info;
        struct err e = read_bucket(f, &info);
        if (!err_ok(e)) {
            LOG(LOG_WARN, "fleet", "bucket_unread", LOG_ERR(e));
            if (e.code == E_BUS_FORBIDDEN) {
                note_read(f); /* nothing that is worth waiting for will come. */
            }
            return; /* with the next turn. */
        }
        note_read(f);
        raise_replicas(f, &info);
    }
    f->connected = connected;
}

static bool is_stopping(struct cp_fleet *f)
{
    lock_take(&f->shared.lock);
    bool stopping = f->shared.stopping;
    lock_drop(&f->shared.lock);
    return stopping;
}

static void wait_turn(struct cp_fleet *f)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until); /* what sem_timedwait() takes. */
    until.tv_nsec += (long)TURN_MS * 1000000;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    (void)sem_timedwait(&f->wakes, &until);
}

static void *run(void *ctx)
{
    struct cp_fleet *f = ctx;
    while (!is_stopping(f)) {
        look_at_connection(f);
        take_messages(f);
        wait_turn(f);
    }
    return NULL;
}

static struct err prepare(struct cp_fleet *f)
{
    struct subject bucket;
    char subject[SUBJECT_SIZE_MAX + 1];
    TRY(subject_bucket_nodes(slice_str(f->options.environment), &bucket));
    TRY(kv_bind(&f->kv, f->options.bus, subject_slice(&bucket)));
    (void)snprintf(subject, sizeof(subject), "$KV.%.400s.>", bucket.text);
    return bus_subscribe(f->options.bus, slice_str(subject), /* group= */ (struct slice){0},
                         &f->inbox, f, &f->subscription);
}

struct err cp_fleet_new(const struct cp_fleet_options *options, struct cp_fleet **out)
{
    struct cp_fleet *f = calloc(1, sizeof(*f));
    if (f == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    f->options = *options;
    snap_environment(slice_str(options->environment), f->environment);
    struct err e = queue_init(&f->inbox, INBOX_MAX, wake, f);
    if (!err_ok(e)) {
        free(f);
        return e;
    }
    lock_init(&f->shared.lock);
    CHECK(sem_init(&f->wakes, 0, 0) == 0);
    e = prepare(f);
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

static void free_nodes(struct cp_fleet *f)
{
    size_t at = 0;
    const struct map_entry *entry = NULL;
    lock_take(&f->shared.lock);
    while ((entry = map_next(&f->shared.nodes, &at)) != NULL) {
        free(entry->value);
    }
    map_free(&f->shared.nodes);
    lock_drop(&f->shared.lock);
}

void cp_fleet_free(struct cp_fleet *fleet)
{
    if (fleet == NULL) {
        return;
    }
    if (fleet->started) {
        lock_take(&fleet->shared.lock);
        fleet->shared.stopping = true;
        lock_drop(&fleet->shared.lock);
        wake(fleet);
        CHECK(pthread_join(fleet->thread, NULL) == 0);
    }
    bus_unsubscribe(fleet->options.bus, fleet->subscription);
    free_nodes(fleet);
    queue_free(&fleet->inbox, bus_message_drop);
    (void)sem_destroy(&fleet->wakes);
    lock_free(&fleet->shared.lock);
    free(fleet);
}

/* ---- from other threads ---- */

static uint64_t live_ms(void)
{
    return HEARTBEATS * (limits.status_interval_ms + limits.status_interval_ms / 5);
}

static int by_id(const void *a, const void *b)
{
    const struct cp_fleet_node *left = a;
    const struct cp_fleet_node *right = b;
    return strcmp(left->id, right->id);
}

static void copy_nodes(struct cp_fleet *f, struct cp_fleet_node *out) REQUIRES(f->shared.lock)
{
    uint64_t now_ns = clock_mono_ns();
    size_t at = 0;
    const struct map_entry *found = NULL;
    while ((found = map_next(&f->shared.nodes, &at)) != NULL) {
        const struct entry *entry = found->value;
        *out = entry->node;
        out->age_ms = (now_ns - entry->seen_ns) / 1000000;
        out->live = entry->node.verified && out->age_ms <= live_ms();
        out++;
    }
}

bool cp_fleet_wait_read(struct cp_fleet *fleet, uint64_t timeout_ms)
{
    uint64_t end_ns = clock_mono_ns() + timeout_ms * 1000000;
    /* It may not have looked since it is connected. */
    wake(fleet);
    for (;;) { /* ends when they were read, or in time. */
        lock_take(&fleet->shared.lock);
        bool read = fleet->shared.read;
        lock_drop(&fleet->shared.lock);
        if (read || clock_mono_ns() >= end_ns) {
            return read;
        }
        (void)poll(NULL, 0, WAIT_STEP_MS);
    }
}

struct err cp_fleet_list(struct cp_fleet *fleet, struct cp_fleet_node **out, size_t *out_count)
{
    lock_take(&fleet->shared.lock);
    size_t count = fleet->shared.nodes.count;
    struct cp_fleet_node *nodes = calloc(count + 1, sizeof(*nodes));
    if (nodes != NULL) {
        copy_nodes(fleet, nodes);
    }
    lock_drop(&fleet->shared.lock);
    if (nodes == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    qsort(nodes, count, sizeof(*nodes), by_id);
    *out = nodes;
    *out_count = count;
    return OK;
}

static void raise_order(const struct status *status, struct cp_fleet_order *out)
{
    bool higher = status->epoch > out->epoch ||
                  (status->epoch == out->epoch && status->sequence > out->sequence);
    if (higher) {
        out->epoch = status->epoch;
        out->sequence = status->sequence;
    }
    out->version = status->version > out->version ? status->version : out->version;
}

void cp_fleet_order(struct cp_fleet *fleet, struct cp_fleet_order *out)
{
    uint64_t oldest_ns = clock_mono_ns() - live_ms() * 1000000;
    size_t at = 0;
    const struct map_entry *found = NULL;
    *out = (struct cp_fleet_order){0};
    lock_take(&fleet->shared.lock);
    while ((found = map_next(&fleet->shared.nodes, &at)) != NULL) {
        const struct entry *entry = found->value;
        if (entry->node.verified && entry->seen_ns > oldest_ns) {
            raise_order(&entry->node.status, out);
        }
    }
    lock_drop(&fleet->shared.lock);
}

uint64_t cp_fleet_unverified(struct cp_fleet *fleet)
{
    lock_take(&fleet->shared.lock);
    uint64_t count = fleet->shared.unverified;
    lock_drop(&fleet->shared.lock);
    return count;
}
