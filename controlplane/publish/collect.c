/*
 * collect: see collect.h. A run, top to bottom: may it be now? which keys are kept? which others
 * lie there? are they old enough? then they go, one by one.
 *
 * What is kept is worked out before the bucket is listed, and nothing is published in between,
 * since both are this thread's. Another leader may publish at any moment; it puts anew whatever is
 * older than limits.chunk_fresh_ms, so that a revision judged here is not the one that lies there
 * then.
 */
#include "controlplane/publish/collect.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/arena.h"
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/lock.h"
#include "common/base/log.h"
#include "common/base/map.h"
#include "common/snapshot/manifest.h"
#include "controlplane/publish/publish.h"

enum {
    LOOK_MS = 10000,   /* between two looks at the bucket. */
    RAISE_MS = 300000, /* between two attempts to have more replicas. */
    REST = 10,         /* an unfinished run goes on after a tenth of the interval. */
    HISTORY_PAGE = 16,
    CANDIDATES_MAX = 4096, /* of one run: the others' turn comes with the next. */
    CONTAINER_MAX = 1 << 20,
    KEEP_MAX = 256 << 20,
    KEEP_BLOCK = 64 << 10,
};

struct cp_collector {
    bool leads;         /* as of the last turn. */
    uint64_t due_ns;    /* of the next run; while it leads. */
    uint64_t looked_ns; /* 0: never. */
    uint64_t raised_ns; /* 0: never. */
    bool told_replicas; /* that there are too few. */
    struct {
        struct lock lock;
        struct cp_collector_status status GUARDED;
    } shared;
};

struct candidate {
    char key[SNAP_KEY_SIZE];
    uint64_t revision;
    int64_t time_ms;
};

struct run {
    struct cp_publish_room *room;
    cp_collector_wanted_fn *wanted;
    void *wanted_ctx;
    struct arena arena;  /* of the keys that are kept. */
    struct map kept;     /* keys that stay. */
    struct map versions; /* versions whose keys are in 'kept', or that the journal does not have. */
    struct candidate *candidates;
    size_t count;
    bool unfinished;   /* a task came, or there are more candidates than there is room for. */
    int64_t newest_ms; /* of all that lies in the bucket. */
    uint64_t removed;
    uint64_t spared;
};

/* ---- what is kept ---- */

static struct err keep_key(struct run *r, const char *text)
{
    struct slice key;
    if (map_get(&r->kept, slice_str(text)) != NULL) {
        return OK;
    }
    TRY(arena_dup(&r->arena, slice_str(text), &key));
    return map_put(&r->kept, key, r, /* out_old= */ NULL);
}

static struct err keep_chunks(struct run *r, const struct manifest *manifest)
{
    char key[SNAP_KEY_SIZE];
    for (size_t i = 0; i < manifest->stream_count; i++) {
        const struct manifest_stream *stream = &manifest->streams[i];
        for (size_t k = 0; k < stream->chunk_count; k++) {
            snap_key_chunk(stream->chunk_digests + k * DIGEST_SHORT_SIZE, key);
            TRY(keep_key(r, key));
        }
    }
    return OK;
}

static struct err keep_content(struct run *r, struct slice container,
                               const struct cp_record *record)
{
    struct container c;
    auto_manifest struct manifest manifest = {0};
    char key[SNAP_KEY_SIZE];
    TRY(container_read(container, CONTAINER_MANIFEST, /* environment= */ NULL, &c));
    TRY(manifest_decode(c.body, &manifest));
    snap_key_manifest(record->version, record->manifest_digest, key);
    TRY(keep_key(r, key));
    return keep_chunks(r, &manifest);
}

/* Manifest and chunks of a version. One that the journal does not have cannot be told apart from
 * what nobody needs: who says that he runs it has it on his disk. */
static struct err keep_version(struct run *r, uint64_t version)
{
    struct slice number;
    if (map_get(&r->versions, slice_of(&version, sizeof(version))) != NULL) {
        return OK;
    }
    TRY(arena_dup(&r->arena, slice_of(&version, sizeof(version)), &number));
    TRY(map_put(&r->versions, number, r, /* out_old= */ NULL));
    struct cp_record record;
    auto_buf struct buf container = BUF_MAX(CONTAINER_MAX);
    struct cp_store *store = r->room->store;
    struct err e = store->ops->load(store, r->room->environment, version, &record, &container);
    if (e.code == E_NOT_FOUND) {
        return OK;
    }
    TRY(e);
    return keep_content(r, buf_slice(&container), &record);
}

/* The newest ones: the present target is among them. */
static struct err keep_newest(struct run *r)
{
    struct cp_record *page = calloc(HISTORY_PAGE, sizeof(*page));
    struct cp_store *store = r->room->store;
    uint64_t left = limits.collect_versions;
    uint64_t before = 0;
    size_t count = HISTORY_PAGE;
    struct err e = page == NULL ? FAIL(E_NO_MEMORY) : OK;
    while (err_ok(e) && left > 0 && count == HISTORY_PAGE) {
        e = store->ops->history(store, r->room->environment, before, page, HISTORY_PAGE, &count);
        for (size_t i = 0; err_ok(e) && i < count && left > 0; i++, left--) {
            e = keep_version(r, page[i].version);
            before = page[i].version;
        }
    }
    free(page);
    return e;
}

static struct err keep_reported(struct run *r)
{
    struct cp_fleet_node *nodes = NULL;
    size_t count = 0;
    TRY(cp_fleet_list(r->room->fleet, &nodes, &count));
    struct err e = OK;
    for (size_t i = 0; err_ok(e) && i < count; i++) {
        const struct cp_fleet_node *node = &nodes[i];
        if ((node->verified || node->claimed) && node->age_ms <= limits.collect_reported_ms) {
            e = keep_version(r, node->status.version);
        }
    }
    free(nodes);
    return e;
}

/* ---- what else lies there ---- */

/* Roots and the head are never collected, nor what a later release may have put. */
static bool is_content(struct slice key)
{
    return slice_starts(key, SLICE_LIT("chunk.")) || slice_starts(key, SLICE_LIT("manifest."));
}

static struct err take_key(void *ctx, struct slice key, const struct kv_entry *entry)
{
    struct run *r = ctx;
    r->newest_ms = entry->time_ms > r->newest_ms ? entry->time_ms : r->newest_ms;
    if (!is_content(key) || key.size >= SNAP_KEY_SIZE || map_get(&r->kept, key) != NULL) {
        return OK;
    }
    if (r->count == CANDIDATES_MAX) {
        r->unfinished = true;
        return OK;
    }
    struct candidate *candidate = &r->candidates[r->count++];
    (void)memcpy(candidate->key, key.ptr, key.size);
    candidate->key[key.size] = '\0';
    candidate->revision = entry->revision;
    candidate->time_ms = entry->time_ms;
    return OK;
}

/*
 * Times are those of the server that led when it was put. Now is the newest of them, which a head
 * every few seconds keeps near, or what our own clock says if that is earlier: either may be wrong,
 * and the earlier one removes less.
 */
static bool is_old(const struct run *r, const struct candidate *candidate)
{
    int64_t own_ms = clock_wall_ms();
    int64_t now_ms = own_ms < r->newest_ms ? own_ms : r->newest_ms;
    return now_ms - candidate->time_ms >= (int64_t)limits.collect_age_ms;
}

/* ---- removing ---- */

static struct err remove_old(struct run *r)
{
    struct cp_fence fence;
    for (size_t i = 0; i < r->count; i++) {
        const struct candidate *candidate = &r->candidates[i];
        if (r->wanted != NULL && r->wanted(r->wanted_ctx)) {
            r->unfinished = true;
            return OK;
        }
        TRY(cp_leader_fence(r->room->leader, &fence));
        if (!is_old(r, candidate)) {
            continue;
        }
        struct err e = kv_erase(&r->room->bucket.kv, slice_str(candidate->key), candidate->revision,
                                limits.fetch_timeout_ms);
        if (e.code == E_CONFLICT) {
            r->spared++;
            continue;
        }
        TRY(e); /* of an unknown result, too: the next list tells. */
        r->removed++;
    }
    return OK;
}

/* ---- a run ---- */

/* A leader whose heads do not go out may have lost more than the way to NATS: its journal may be
 * the older one. And until the nodes' statuses were read, nobody knows what they run. */
static struct err may_begin(struct run *r)
{
    struct cp_fence fence;
    struct cp_leader_status status;
    TRY(cp_leader_fence(r->room->leader, &fence));
    cp_leader_status(r->room->leader, &status);
    TRY(status.code == E_OK ? OK : FAIL(status.code));
    return cp_fleet_wait_read(r->room->fleet, /* timeout_ms= */ 0) ? OK : FAIL(E_UNAVAILABLE);
}

static struct err run_in(struct run *r)
{
    TRY(may_begin(r));
    TRY(keep_newest(r));
    if (r->kept.count == 0) {
        return OK; /* a journal that knows nothing judges nothing. */
    }
    TRY(keep_reported(r));
    r->candidates = calloc(CANDIDATES_MAX, sizeof(*r->candidates));
    if (r->candidates == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    TRY(kv_list(&r->room->bucket.kv, limits.fetch_timeout_ms, take_key, r));
    return remove_old(r);
}

/* What the bucket holds; false when it cannot be seen. */
static bool look(struct cp_collector *c, struct cp_publish_room *room, struct stream_info *out)
{
    c->looked_ns = clock_mono_ns();
    if (!err_ok(kv_look(&room->bucket.kv, limits.fetch_timeout_ms, out))) {
        return false;
    }
    lock_take(&c->shared.lock);
    c->shared.status.looked = true;
    c->shared.status.bucket = *out;
    c->shared.status.replicas = room->bucket.replicas;
    lock_drop(&c->shared.lock);
    return true;
}

static void note_run(struct cp_collector *c, const struct run *r, struct err e, uint64_t bytes)
{
    lock_take(&c->shared.lock);
    struct cp_collector_status *status = &c->shared.status;
    bool changed = status->code != e.code;
    status->code = e.code;
    status->runs += err_ok(e);
    status->objects += r->removed;
    status->spared += r->spared;
    status->bytes += bytes;
    lock_drop(&c->shared.lock);
    if (r->removed > 0 || r->spared > 0 || (changed && !err_ok(e))) {
        LOG(err_ok(e) ? LOG_INFO : LOG_WARN, "collect", "collected", LOG_U64("objects", r->removed),
            LOG_U64("bytes", bytes), LOG_U64("spared", r->spared), LOG_ERR(e));
    }
}

static struct err run_once(struct cp_collector *c, struct run *r)
{
    struct stream_info before = {0};
    struct stream_info after = {0};
    arena_init(&r->arena, KEEP_BLOCK, KEEP_MAX);
    bool seen = look(c, r->room, &before);
    struct err e = run_in(r);
    seen = look(c, r->room, &after) && seen;
    note_run(c, r, e, seen && before.bytes > after.bytes ? before.bytes - after.bytes : 0);
    free(r->candidates);
    map_free(&r->kept);
    map_free(&r->versions);
    arena_free(&r->arena);
    uint64_t rest_ms = limits.collect_interval_ms / (r->unfinished ? REST : 1);
    c->due_ns = clock_mono_ns() + rest_ms * 1000000;
    return e;
}

struct err cp_collector_run(struct cp_collector *c, struct cp_publish_room *room,
                            uint64_t *out_removed)
{
    struct run r = {.room = room};
    struct err e = run_once(c, &r);
    *out_removed = r.removed;
    return e;
}

/* ---- a turn ---- */

static uint64_t ms_since(uint64_t then_ns)
{
    return (clock_mono_ns() - then_ns) / 1000000;
}

/* Too few replicas are told, and mended where that can be done. */
static void watch_replicas(struct cp_collector *c, struct cp_publish_room *room,
                           struct stream_info *info)
{
    bool few = info->replicas < room->bucket.replicas;
    struct err e = OK;
    if (few && c->leads && (c->raised_ns == 0 || ms_since(c->raised_ns) >= RAISE_MS)) {
        c->raised_ns = clock_mono_ns();
        e = kv_raise(&room->bucket.kv, room->bucket.replicas, limits.fetch_timeout_ms, info);
        few = info->replicas < room->bucket.replicas;
    }
    if (few != c->told_replicas) {
        c->told_replicas = few;
        LOG(few ? LOG_WARN : LOG_INFO, "collect", "bucket_replicas", LOG_U64("has", info->replicas),
            LOG_U64("wanted", room->bucket.replicas), LOG_ERR(e));
    }
}

/* Who begins to lead waits: what nodes say, and what the one before put, is to be known first. */
static void follow_lead(struct cp_collector *c, struct cp_publish_room *room)
{
    struct cp_fence fence;
    bool leads = err_ok(cp_leader_fence(room->leader, &fence));
    if (leads && !c->leads) {
        c->due_ns = clock_mono_ns() + limits.collect_interval_ms * 1000000;
    }
    c->leads = leads;
}

uint64_t cp_collector_turn(struct cp_collector *c, struct cp_publish_room *room,
                           cp_collector_wanted_fn *wanted, void *ctx)
{
    uint64_t step_ms = limits.collect_interval_ms < LOOK_MS ? limits.collect_interval_ms : LOOK_MS;
    if (bus_state(room->bus) != BUS_CONNECTED) {
        return step_ms < 1000 ? step_ms : 1000;
    }
    follow_lead(c, room);
    if (c->leads && clock_mono_ns() >= c->due_ns) {
        struct run r = {.room = room, .wanted = wanted, .wanted_ctx = ctx};
        (void)run_once(c, &r);
    } else if (c->looked_ns == 0 || ms_since(c->looked_ns) >= step_ms) {
        struct stream_info info;
        if (look(c, room, &info)) {
            watch_replicas(c, room, &info);
        }
    }
    return step_ms;
}

/* ---- making, and other threads ---- */

struct err cp_collector_new(struct cp_collector **out)
{
    struct cp_collector *c = calloc(1, sizeof(*c));
    if (c == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    lock_init(&c->shared.lock);
    *out = c;
    return OK;
}

void cp_collector_free(struct cp_collector *c)
{
    if (c == NULL) {
        return;
    }
    lock_free(&c->shared.lock);
    free(c);
}

void cp_collector_status(struct cp_collector *c, struct cp_collector_status *out)
{
    lock_take(&c->shared.lock);
    *out = c->shared.status;
    lock_drop(&c->shared.lock);
}
