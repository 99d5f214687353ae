/* fetch: what the steps of apply.c fetch from the bucket, and judge. */
#include <stdio.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "common/base/scope.h"
#include "dataplane/apply/apply_impl.h"
#include "dataplane/request/metrics.h"

#define NS_PER_MS UINT64_C(1000000)

/* Roots taken in one walk, the next asking goes on from there; and roots looked at for the last. */
enum { WALK_MAX = 16, AHEAD_MAX = 1024 };

/* ---- roots ---- */

struct root_bytes {
    struct buf at[WALK_MAX];
    struct slice slices[WALK_MAX];
};

static void root_bytes_free(struct root_bytes *b)
{
    for (size_t i = 0; i < WALK_MAX; i++) {
        buf_free(&b->at[i]);
    }
}

#define auto_root_bytes __attribute__((cleanup(root_bytes_free)))

/* The root behind the one reached; NOT_FOUND: that was the last one. */
static struct err next_root(struct dp_apply *a, struct root_walk *walk, struct buf *bytes)
{
    *bytes = BUF_MAX(CONTAINER_HEADER_SIZE + ROOT_BODY_MAX +
                     CONTAINER_SIGNATURES_MAX * CONTAINER_SIGNATURE_SIZE);
    char key[SNAP_KEY_SIZE];
    snap_key_root(walk->at.version + 1, key);
    TRY(dp_feed_get(&a->feed, key, bytes));
    return root_walk_step(walk, buf_slice(bytes));
}

static struct err gather_roots(struct dp_apply *a, struct root_walk *walk, struct root_bytes *bytes)
{
    struct err e = OK;
    while (err_ok(e) && walk->steps < WALK_MAX) {
        size_t at = walk->steps;
        e = next_root(a, walk, &bytes->at[at]);
        bytes->slices[at] = buf_slice(&bytes->at[at]);
    }
    return e.code == E_NOT_FOUND ? OK : e;
}

/* From where a full walk ends to the last root that there is; none of them is kept. */
static struct err look_ahead(struct dp_apply *a, struct root_walk *walk)
{
    struct err e = OK;
    while (err_ok(e) && walk->steps < AHEAD_MAX) {
        auto_buf struct buf bytes = {0};
        e = next_root(a, walk, &bytes);
    }
    return e.code == E_NOT_FOUND ? OK : e;
}

/* The end is asked of the last root that there is: those before it are but the way to it, whether
 * they fit into this walk or not. */
static struct err check_end(struct dp_apply *a, const struct root_walk *walk)
{
    struct root_walk last = *walk;
    struct err why = walk->steps == WALK_MAX ? look_ahead(a, &last) : OK;
    struct err over = root_walk_end(&last, clock_wall_ms(), (int64_t)limits.clock_tolerance_ms);
    return err_ok(over) || err_ok(why) ? over : why;
}

/* What it names was judged by the root before. A head that stands on this one comes with the next
 * hint or poll. */
static void forget_accepted(struct dp_apply *a)
{
    if (a->has_accepted) {
        head_free(&a->accepted.head);
    }
    a->has_accepted = false;
    a->retry_ns = 0;
    dp_fetch_drop(a);
}

static struct err walk_roots(struct dp_apply *a)
{
    auto_root_bytes struct root_bytes bytes = {0};
    struct root_walk walk;
    root_walk_start(&a->judge.root, &walk);
    struct err why = gather_roots(a, &walk, &bytes);
    if (walk.steps == 0) {
        return why;
    }
    TRY(check_end(a, &walk));
    struct err e = disk_walk(a->disk, &walk, bytes.slices);
    if (disk_root_version(a->disk) == walk.at.version) {
        judge_walk(&a->judge, &walk); /* both go on from the same root, whatever failed. */
        forget_accepted(a);
    }
    TRY(e);
    LOG(LOG_INFO, "apply", "root", LOG_U64("version", a->judge.root.version));
    return OK;
}

struct err dp_fetch_roots(struct dp_apply *a)
{
    uint64_t before = a->judge.root.version;
    struct err e = a->handed ? FAIL(E_UNAVAILABLE) : walk_roots(a);
    bool moved = err_ok(e) && a->judge.root.version > before;
    a->root_asked_ns = moved ? 0 : clock_mono_ns(); /* counted from the answer, however late. */
    a->root_refused = e.code == E_UNAVAILABLE ? OK : e;
    return e;
}

/* ---- the manifest ---- */

/* What the bucket answers is one thing, that it answers another. */
static struct err missing_as(struct err e, enum err_code code)
{
    bool answered = e.code == E_NOT_FOUND || e.code == E_TOO_LARGE;
    bool keeps = err_ok(e) || e.code == E_NO_MEMORY;
    return keeps ? e : (struct err){answered ? code : E_CONTENT_UNANSWERED, e.where};
}

/* A stream that this build makes nothing of may restrict: it is not passed over. */
static struct err check_streams(const struct manifest *m, char *object)
{
    for (size_t i = 0; i < m->stream_count; i++) {
        const char *name = stream_kind_name(m->streams[i].kind);
        if (!dp_model_knows_stream(m->streams[i].kind)) {
            (void)snprintf(object, STATUS_OBJECT_MAX + 1, "stream %s", name == NULL ? "?" : name);
            return FAIL(E_CAPABILITY_MISSING);
        }
    }
    return OK;
}

static struct err open_manifest(struct dp_apply *a, struct dp_apply_turn *t)
{
    struct manifest_wanted wanted = {
        .version = t->target->version,
        .digest = t->target->manifest_digest,
    };
    return manifest_open(t->manifest_bytes, &a->judge.root, &wanted, &t->manifest);
}

/* One that was pushed and is not the signed one is as if none had been. */
static bool is_pushed_manifest(struct dp_apply *a, struct dp_apply_turn *t, const char *key)
{
    dp_feed_hear(&a->feed);
    return dp_feed_pushed(&a->feed, key, &t->manifest_bytes) && err_ok(open_manifest(a, t));
}

struct err dp_fetch_manifest(struct dp_apply *a, struct dp_apply_turn *t)
{
    char key[SNAP_KEY_SIZE];
    snap_key_manifest(t->target->version, t->target->manifest_digest, key);
    (void)snprintf(t->object, sizeof(t->object), "%.*s", STATUS_OBJECT_MAX, key);
    if (!is_pushed_manifest(a, t, key)) {
        TRY(missing_as(dp_feed_get(&a->feed, key, &t->fetched), E_MANIFEST_MISSING));
        t->manifest_bytes = buf_slice(&t->fetched);
        TRY(open_manifest(a, t));
    }
    TRY(manifest_check_capabilities(&t->manifest, CAPABILITIES_HERE));
    return check_streams(&t->manifest, t->object);
}

/* ---- chunks ---- */

static bool is_on_disk(struct dp_apply *a, struct dp_apply_turn *t,
                       const struct snap_missing *missing)
{
    auto_buf struct buf stored = BUF_MAX(DISK_CHUNK_ROOM);
    return err_ok(disk_chunk(a->disk, &missing->name, &stored)) &&
           err_ok(snap_set_add(t->set, &missing->name, buf_slice(&stored)));
}

static struct err fetch_chunk(struct dp_apply *a, struct dp_apply_turn *t,
                              const struct snap_missing *missing)
{
    if (is_on_disk(a, t, missing)) {
        return OK;
    }
    char key[SNAP_KEY_SIZE];
    struct slice pushed;
    snap_key_chunk(missing->name.digest, key);
    if (dp_feed_pushed(&a->feed, key, &pushed) &&
        err_ok(snap_set_add(t->set, &missing->name, pushed))) {
        return OK;
    }
    auto_buf struct buf stored = BUF_MAX(CHUNK_RAW_MAX);
    (void)snprintf(t->object, sizeof(t->object), "%.*s", STATUS_OBJECT_MAX, key);
    struct err e = dp_feed_get(&a->feed, key, &stored);
    if (e.code == E_TOO_LARGE) {
        return FAIL(E_CHUNK_TAMPERED);
    }
    TRY(missing_as(e, E_CHUNK_MISSING));
    return snap_set_add(t->set, &missing->name, buf_slice(&stored));
}

/* What an earlier walk has of this manifest, or nothing yet. */
static struct err open_set(struct dp_apply *a, struct dp_apply_turn *t)
{
    const uint8_t *digest = t->target->manifest_digest;
    if (a->open == NULL || memcmp(snap_set_manifest_digest(a->open), digest, DIGEST_SIZE) != 0) {
        struct snap_set *held = a->model == NULL ? NULL : dp_model_set(a->model);
        dp_fetch_drop(a);
        return snap_set_new(&t->manifest, held, &t->set);
    }
    t->set = TAKE_PTR(a->open);
    return OK;
}

struct pace {
    uint64_t start_ns;  /* of the chunks of this walk, monotonic. */
    uint64_t looked_ns; /* when the node last looked at how it stands. */
};

/* Chunks may be many and come slowly. Meanwhile the node says how it stands, and after a while it
 * hears what came; the next walk goes on. */
static struct err keep_pace(struct dp_apply *a, struct pace *p)
{
    uint64_t now_ns = clock_mono_ns();
    if (now_ns - p->looked_ns > DP_TICK_NS) {
        dp_standing_update(a);
        dp_standing_report(a, now_ns);
        p->looked_ns = now_ns;
    }
    bool late = now_ns - p->start_ns > limits.stale_after_ms * NS_PER_MS;
    return late ? FAIL(E_CONTENT_UNANSWERED) : OK;
}

static struct err fetch_missing(struct dp_apply *a, struct dp_apply_turn *t)
{
    uint64_t now_ns = clock_mono_ns();
    struct pace pace = {.start_ns = now_ns, .looked_ns = now_ns};
    struct snap_missing missing;
    size_t at = 0;
    while (snap_set_missing(t->set, &at, &missing)) {
        TRY(keep_pace(a, &pace));
        TRY(fetch_chunk(a, t, &missing));
    }
    return OK;
}

/* What was fetched is then let go rather than kept for the next walk. */
static bool is_short_of_memory(struct err e)
{
    return e.code == E_NO_MEMORY || e.code == E_OUT_OF_MEMORY;
}

/* Of all that came since it was said before: roots, too, and pushes that were of no use. */
static void count_fetched(struct dp_apply *a)
{
    metrics_add(a->config.shard, metrics_plain(a->config.metrics, DP_METRIC_SNAPSHOT_FETCHED),
                (int64_t)(a->feed.bytes - a->counted_bytes));
    a->counted_bytes = a->feed.bytes;
}

struct err dp_fetch_chunks(struct dp_apply *a, struct dp_apply_turn *t)
{
    TRY(open_set(a, t));
    struct err e = fetch_missing(a, t);
    count_fetched(a);
    if (err_ok(e)) {
        return snap_set_close(t->set);
    }
    if (!is_short_of_memory(e)) {
        a->open = TAKE_PTR(t->set);
    }
    return e;
}

void dp_fetch_drop(struct dp_apply *a)
{
    snap_set_unref(TAKE_PTR(a->open));
}

void dp_fetch_forget(struct dp_apply *a, const struct dp_apply_turn *t)
{
    char key[SNAP_KEY_SIZE];
    snap_key_manifest(t->target->version, t->target->manifest_digest, key);
    dp_feed_forget(&a->feed, key);
}
