/*
 * apply: from a head to a snapshot that is served, top to bottom in the order of DP_APPLY_STEPS.
 *
 * A step that fails ends the walk: the reason goes to dp_standing_refuse(), and what is served
 * stays. The target of an accepted head is tried again after a second, and with each new head.
 */
#include "dataplane/apply/apply.h"

#include <stdio.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "common/base/scope.h"
#include "common/net/tls.h"
#include "dataplane/apply/apply_impl.h"
#include "dataplane/apply/fault.h"
#include "dataplane/request/metrics.h"

/* Between tries of a target that failed, and of one that waits for room. */
#define NS_PER_MS UINT64_C(1000000)
#define RETRY_NS (1000 * NS_PER_MS)
#define ROOM_RETRY_NS (100 * NS_PER_MS)

/* Roots that one head may lead over: a bound on the work of one turn; the next goes on. */
enum { ROOT_ROUNDS_MAX = 8 };

typedef struct err step_fn(struct dp_apply *a, struct dp_apply_turn *t);

#define STEP_DECLARE(name, text) static step_fn step_##name;
DP_APPLY_STEPS(STEP_DECLARE)
#undef STEP_DECLARE

struct apply_step {
    const char *name;
    step_fn *run;
};

#define STEP_ROW(name, text) {#name, step_##name},
static const struct apply_step steps[] = {DP_APPLY_STEPS(STEP_ROW)};
#undef STEP_ROW

#define STEP_INDEX(name, text) STEP_##name,
enum { DP_APPLY_STEPS(STEP_INDEX) STEP_COUNT };
#undef STEP_INDEX

static void run(struct dp_apply *a, struct dp_apply_turn *t, size_t first)
{
    for (size_t i = first; i < STEP_COUNT && !t->over; i++) {
        struct err e = dp_fault(steps[i].name);
        dp_apply_yield(a);
        uint64_t start_ns = clock_mono_ns();
        if (err_ok(e)) {
            e = steps[i].run(a, t);
        }
        LOG(LOG_DEBUG, "apply", "step", LOG_STR("step", steps[i].name), LOG_ERR(e),
            LOG_U64("us", (clock_mono_ns() - start_ns) / 1000));
        if (!err_ok(e)) {
            dp_standing_refuse(a, e, t->object);
            t->failed = i >= STEP_target;
            t->over = true;
        }
    }
}

/* What the walk still holds is given back; what it handed on was taken out of 't'. */
static void turn_free(struct dp_apply_turn *t)
{
    head_free(&t->judged.head);
    manifest_free(&t->manifest);
    buf_free(&t->fetched);
    snap_set_unref(t->set);
    dp_model_unref(t->model);
}

static bool is_served(const struct dp_apply *a)
{
    return a->model != NULL && !a->fell_back && a->judge.version == dp_model_version(a->model);
}

/* Runs the steps from 'first' on, and says when the target is to be tried again. */
static void walk(struct dp_apply *a, struct dp_apply_turn *t, size_t first)
{
    t->fetched = BUF_MAX(CONTAINER_HEADER_SIZE + MANIFEST_BODY_MAX +
                         CONTAINER_SIGNATURES_MAX * CONTAINER_SIGNATURE_SIZE);
    a->walk_ns = clock_mono_ns();
    run(a, t, first);
    if (t->later || t->failed) {
        a->retry_ns = clock_mono_ns() + (t->later ? ROOM_RETRY_NS : RETRY_NS);
    }
    turn_free(t);
    dp_standing_update(a);
    if (t->swapped && !a->handed) {
        disk_make_room(a->disk); /* nobody waits for it any more. */
    }
}

void dp_apply_head(struct dp_apply *a, struct slice bytes, const char *way)
{
    struct dp_apply_turn t = {.bytes = bytes, .way = way};
    walk(a, &t, STEP_judge);
}

void dp_apply_again(struct dp_apply *a)
{
    a->retry_ns = 0;
    if (!a->has_accepted) {
        return;
    }
    struct dp_apply_turn t = {.way = "again"};
    walk(a, &t, STEP_target);
}

/* ---- the head ---- */

static void judge(struct dp_apply *a, struct dp_apply_turn *t)
{
    struct judge_now now = {
        .wall_ms = clock_wall_ms(),
        .tolerance_ms = (int64_t)limits.clock_tolerance_ms,
        .root_asked = a->root_asked_ns != 0 && clock_mono_ns() - a->root_asked_ns < RETRY_NS,
    };
    head_free(&t->judged.head);
    judge_head(&a->judge, t->bytes, &now, &t->judged);
}

/* A root that is there but cannot be walked to says more than that one is missing. */
static struct err refusal(struct dp_apply *a, struct dp_apply_turn *t)
{
    if (t->judged.err.code != E_ROOT_MISSING || err_ok(a->root_refused)) {
        return t->judged.err;
    }
    (void)snprintf(t->object, sizeof(t->object), "root");
    return a->root_refused;
}

static void count_head(struct dp_apply *a, const char *way)
{
    struct slice label = slice_str(way);
    metrics_add(a->config.shard, metrics_series(a->config.metrics, DP_METRIC_HEADS, &label), 1);
}

/* Whether what a poll found is but behind. A bucket whose leader changes, whose server came back or
 * that takes no writes for a while has an older head than the hints brought; where it has nothing
 * else until a node would be STALE by it, somebody keeps it so. */
static bool is_behind(struct dp_apply *a)
{
    uint64_t now_ns = clock_mono_ns();
    if (a->replayed_ns == 0) {
        a->replayed_ns = now_ns;
        LOG(LOG_INFO, "apply", "head-behind", LOG_U64("epoch", a->judge.epoch),
            LOG_U64("sequence", a->judge.sequence));
    }
    return a->accepted_ns != 0 && now_ns - a->replayed_ns < limits.stale_after_ms * NS_PER_MS;
}

/* A poll may overtake a hint, on the way or while it waits for its time, and be behind the hints.
 * Neither is a replay. */
static bool is_late(struct dp_apply *a, const struct dp_apply_turn *t)
{
    bool replayed = t->judged.err.code == E_HEAD_REPLAYED;
    if (strcmp(t->way, "hint") == 0) {
        return replayed && clock_mono_ns() < a->late_ns;
    }
    if (!replayed) {
        a->replayed_ns = 0;
    }
    return replayed && is_behind(a);
}

static struct err step_judge(struct dp_apply *a, struct dp_apply_turn *t)
{
    (void)snprintf(t->object, sizeof(t->object), "head");
    judge(a, t);
    if (is_late(a, t)) {
        count_head(a, "late");
        t->over = true;
        return OK;
    }
    return t->judged.verdict == JUDGE_REFUSED ? refusal(a, t) : OK;
}

static struct err step_roots(struct dp_apply *a, struct dp_apply_turn *t)
{
    struct err why = OK;
    int rounds = 0;
    while (t->judged.verdict == JUDGE_WANT_ROOT && err_ok(why) && rounds < ROOT_ROUNDS_MAX) {
        why = dp_fetch_roots(a);
        judge(a, t);
        rounds++;
    }
    if (t->judged.verdict == JUDGE_WANT_ROOT) {
        return err_ok(why) ? FAIL(E_ROOT_MISSING) : why;
    }
    if (t->judged.verdict == JUDGE_REFUSED) {
        return refusal(a, t);
    }
    t->over = t->judged.verdict == JUDGE_SAME && a->has_accepted;
    return OK;
}

static void keep_head(struct dp_apply *a, struct dp_apply_turn *t)
{
    if (a->has_accepted) {
        head_free(&a->accepted.head);
    }
    a->accepted = t->judged;
    a->has_accepted = true;
    t->judged.head = (struct head){0};
}

static struct err step_accept(struct dp_apply *a, struct dp_apply_turn *t)
{
    if (t->judged.verdict == JUDGE_SAME) { /* no news, but it stands on the new root, too. */
        keep_head(a, t);
        return OK;
    }
    judge_accept(&a->judge, &t->judged);
    keep_head(a, t);
    a->accepted_ns = clock_mono_ns();
    bool polled = strcmp(t->way, "poll") == 0;
    a->late_ns = polled ? a->accepted_ns + limits.fetch_timeout_ms * NS_PER_MS : 0;
    a->standing.contact_ns = clock_boot_ns();
    count_head(a, t->way);
    return OK;
}

/* ---- its target ---- */

static struct err step_target(struct dp_apply *a, struct dp_apply_turn *t)
{
    struct judge_step step = judge_target(&a->judge, &a->accepted.head, &a->node);
    t->target = step.target;
    if (step.target != NULL) {
        (void)snprintf(t->object, sizeof(t->object), "version %llu",
                       (unsigned long long)step.target->version);
    }
    if (step.move == JUDGE_KEEP) {
        return step.err;
    }
    if (step.move == JUDGE_SERVED && is_served(a)) {
        a->standing.content_ns = a->standing.contact_ns;
        a->config.workers.fresh(a->config.workers.ctx, a->standing.content_ns);
        dp_standing_settle(a);
        dp_fetch_drop(a); /* the head is back at what is served. */
        t->over = true;
    }
    return OK;
}

static struct err step_room(struct dp_apply *a, struct dp_apply_turn *t)
{
    (void)dp_model_bin_sweep(a->bin);
    size_t live = dp_model_bin_live(a->bin);
    t->later = live >= limits.live_snapshots;
    t->over = t->later;
    if (t->later && !a->waits_for_room) {
        LOG(LOG_WARN, "apply", "waits-for-room", LOG_STR("object", t->object),
            LOG_U64("live", live), LOG_STR("text", "open requests hold older snapshots"));
    }
    a->waits_for_room = t->later;
    return OK;
}

static struct err step_manifest(struct dp_apply *a, struct dp_apply_turn *t)
{
    return dp_fetch_manifest(a, t);
}

static struct err step_chunks(struct dp_apply *a, struct dp_apply_turn *t)
{
    return dp_fetch_chunks(a, t);
}

/* A strict environment is taken over a connection that others can neither read nor open. What the
 * disk has is served all the same: it was taken so once, and traffic goes on. */
static struct err judge_bus(struct dp_apply *a, struct dp_apply_turn *t)
{
    const char *exposure = bus_exposure(a->config.bus);
    if (!dp_model_environment(t->model)->strict || exposure == NULL) {
        return OK;
    }
    LOG(LOG_WARN, "apply", "bus_exposed", LOG_STR("text", exposure));
    (void)snprintf(t->object, sizeof(t->object), "nats-urls");
    return FAIL(E_BUS_EXPOSED);
}

static struct err step_build(struct dp_apply *a, struct dp_apply_turn *t)
{
    struct err e = dp_model_build(a->bin, t->set, a->model, &t->model, &t->report);
    if (!err_ok(e)) {
        (void)snprintf(t->object, sizeof(t->object), "%.*s", STATUS_OBJECT_MAX, t->report.object);
        return e;
    }
    return judge_bus(a, t);
}

static struct err step_persist(struct dp_apply *a, struct dp_apply_turn *t)
{
    struct disk_apply apply = {
        .manifest = t->manifest_bytes,
        .set = t->set,
        .epoch = a->judge.epoch,
    };
    TRY(a->handed ? OK : disk_commit(a->disk, &apply));
    snap_set_drop_stored(t->set);
    judge_raise(&a->judge, t->target->version, t->target->manifest_digest);
    return OK;
}

/* Here, so that no worker's loop has to stand still for it. */
static void read_system_trust(const struct dp_model *model)
{
    if (dp_model_needs_system_trust(model)) {
        net_tls_trust_system_load();
    }
}

/* From here on 'model' is what the workers are to serve; takes the reference. */
static void serve(struct dp_apply *a, struct dp_model *model)
{
    CHECK(a->open == NULL); /* it would share with a model that is let go. */
    a->config.workers.fresh(a->config.workers.ctx, a->standing.content_ns);
    a->config.workers.swap(a->config.workers.ctx, model);
    dp_model_unref(a->model);
    a->model = model;
    a->standing.has_model = true;
    a->standing.adopted = false;
    a->standing.good = false;
    const struct dp_environment *environment = dp_model_environment(model);
    a->standing.freshness_max_ms = environment->freshness_max_ms;
    a->standing.strict = environment->strict;
    memcpy(a->standing.content_digest, dp_model_content_digest(model), DIGEST_SIZE);
    a->good_ns = 0;
    lock_take(&a->shared.lock);
    struct dp_model *before = a->shared.model;
    a->shared.model = dp_model_ref(model);
    lock_drop(&a->shared.lock);
    dp_model_unref(before);
}

static struct err step_swap(struct dp_apply *a, struct dp_apply_turn *t)
{
    a->standing.parts = t->report.parts;
    a->standing.parts_built = t->report.parts_built;
    a->standing.applies++;
    a->standing.content_ns = a->standing.contact_ns;
    a->fell_back = false;
    read_system_trust(t->model);
    serve(a, TAKE_PTR(t->model));
    dp_fetch_forget(a, t);
    dp_standing_spread(a);
    dp_standing_settle(a);
    metrics_add(a->config.shard, metrics_plain(a->config.metrics, DP_METRIC_SNAPSHOT_APPLIES), 1);
    t->swapped = true;
    return OK;
}

/* ---- beside the heads ---- */

static struct err load(struct dp_apply *a)
{
    TRY(dp_fault("start"));
    struct disk_start start = {0};
    struct err e = disk_start(a->disk, &start);
    disk_judge(a->disk, &a->judge); /* also when nothing starts: what kills is not tried again. */
    if (e.code == E_NOT_FOUND) {
        return OK;
    }
    TRY(e);
    struct dp_build_report report;
    struct dp_model *model = NULL;
    e = dp_fault("load");
    if (err_ok(e)) {
        e = dp_model_build(a->bin, start.set, /* previous= */ NULL, &model, &report);
    }
    snap_set_unref(start.set);
    TRY(e);
    a->fell_back = start.fell_back;
    a->standing.parts = report.parts;
    a->standing.parts_built = report.parts_built;
    serve(a, model);
    read_system_trust(a->model); /* behind it: a node that starts is waited for. */
    if (!err_ok(start.count_err)) {
        LOG(LOG_WARN, "apply", "start-not-counted", LOG_ERR(start.count_err));
    }
    return start.fell_back ? start.why : OK;
}

void dp_apply_disk(struct dp_apply *a)
{
    struct err e = load(a);
    a->standing.starting = false;
    if (!err_ok(e)) {
        dp_standing_refuse(a, e, "state");
    }
    dp_standing_update(a);
}

void dp_apply_roots(struct dp_apply *a)
{
    struct err e = dp_fetch_roots(a);
    if (!err_ok(e) && e.code != E_UNAVAILABLE) {
        dp_standing_refuse(a, e, "root");
    }
    dp_standing_update(a);
}

void dp_apply_prove(struct dp_apply *a, uint64_t now_ns)
{
    if (a->good_ns == 0 || now_ns < a->good_ns) {
        return;
    }
    struct err e = a->fell_back || a->handed ? OK : disk_mark_good(a->disk);
    if (!err_ok(e)) {
        if (!a->mark_failed) { /* once: it is tried again each second. */
            LOG(LOG_WARN, "apply", "mark-not-written", LOG_ERR(e));
        }
        a->mark_failed = true;
        a->good_ns = now_ns + RETRY_NS;
        return;
    }
    a->mark_failed = false;
    a->good_ns = 0;
    a->standing.good = true;
    dp_standing_update(a);
}
