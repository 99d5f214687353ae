/* thread: when the apply thread does what. It sleeps until a hint, a timer, or a wake-up. */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "common/base/scope.h"
#include "dataplane/apply/apply_impl.h"
#include "dataplane/apply/fault.h"

#define NS_PER_MS UINT64_C(1000000)

/* Roots are asked for so often, so that withheld heads withhold no revocation. */
#define ROOTS_INTERVAL_NS (UINT64_C(60) * 1000 * NS_PER_MS)

/* Polls in a row that brought what no hint did: then the hints are listened to anew. */
enum { DEAF_POLLS = 3 };

/* Background work gives way to the workers. */
enum { APPLY_NICE = 10 };

/* For so long a walk lets others go first between its pieces: an edit is applied by then. What
 * takes longer has its share of a core, however busy that is. */
#define PATIENCE_NS (UINT64_C(20) * NS_PER_MS)

/* What is done in a row at least: a change of threads costs some microseconds itself. */
#define STINT_NS (UINT64_C(25) * 1000)

/* ---- sleeping ---- */

static void wake(void *ctx)
{
    struct dp_apply *a = ctx;
    if (atomic_exchange(&a->woken, true)) {
        return;
    }
    uint64_t one = 1;
    while (write(a->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR) {
    }
}

void dp_apply_wake(struct dp_apply *apply)
{
    wake(apply);
}

static void sooner(uint64_t *until_ns, uint64_t at_ns)
{
    if (at_ns != 0 && at_ns < *until_ns) {
        *until_ns = at_ns;
    }
}

static void sleep_until_due(struct dp_apply *a, bool busy)
{
    uint64_t now_ns = clock_mono_ns();
    uint64_t until_ns = busy ? now_ns : now_ns + DP_TICK_NS;
    sooner(&until_ns, a->retry_ns);
    sooner(&until_ns, a->good_ns);
    sooner(&until_ns, a->hint != NULL ? a->hint_ns : 0);
    sooner(&until_ns, dp_standing_due_ns(a));
    sooner(&until_ns, a->share.due_ns > now_ns ? a->share.due_ns : 0);
    if (dp_feed_connected(&a->feed)) {
        sooner(&until_ns, a->poll_ns);
    }
    int timeout_ms = until_ns <= now_ns ? 0 : (int)((until_ns - now_ns) / NS_PER_MS) + 1;
    struct pollfd fd = {.fd = a->wake_fd, .events = POLLIN};
    if (poll(&fd, 1, timeout_ms) == 1) {
        uint64_t count = 0;
        (void)!read(a->wake_fd, &count, sizeof(count));
        atomic_store(&a->woken, false); /* behind the read, before a look at what is due. */
    }
}

/* ---- what is due ---- */

/* The latest hint, at most limits.hints_per_second of them. */
static void do_hint(struct dp_apply *a)
{
    struct bus_message *latest = dp_feed_hint(&a->feed);
    if (latest != NULL) {
        bus_message_free(a->hint);
        a->hint = latest;
        dp_feed_hear(
            &a->feed); /* also of versions that are none of ours: the next ones find room. */
    }
    uint64_t now_ns = clock_mono_ns();
    if (a->hint == NULL || now_ns < a->hint_ns) {
        return;
    }
    a->deaf_polls = 0;
    a->hint_ns = now_ns + 1000 * NS_PER_MS / limits.hints_per_second;
    struct bus_message *hint = TAKE_PTR(a->hint);
    dp_apply_head(a, hint->payload, "hint");
    bus_message_free(hint);
}

/*
 * What a poll finds a hint should have brought. A server that let the subscription go does not say
 * so, and the connection looks well: after some such polls in a row there is a new subscription.
 */
static void poll_head(struct dp_apply *a, struct slice head)
{
    uint64_t epoch = a->judge.epoch;
    uint64_t sequence = a->judge.sequence;
    dp_apply_head(a, head, "poll");
    if (a->judge.epoch == epoch && a->judge.sequence == sequence) {
        return;
    }
    if (++a->deaf_polls == DEAF_POLLS) {
        LOG(LOG_WARN, "apply", "hints_missing", LOG_U64("polls", a->deaf_polls));
        dp_feed_listen_again(&a->feed);
        a->deaf_polls = 0;
    }
}

static void do_poll(struct dp_apply *a, uint64_t now_ns)
{
    if (now_ns < a->poll_ns || !dp_feed_connected(&a->feed)) {
        return;
    }
    auto_buf struct buf head = BUF_MAX(CONTAINER_HEADER_SIZE + HEAD_BODY_MAX +
                                       CONTAINER_SIGNATURES_MAX * CONTAINER_SIGNATURE_SIZE);
    struct err e = dp_feed_get_head(&a->feed, &head);
    a->poll_ns = clock_mono_ns() + dp_jitter_ns(limits.poll_interval_ms);
    if (err_ok(e)) {
        poll_head(a, buf_slice(&head));
    } else if (e.code == E_TOO_LARGE) {
        dp_standing_refuse(a, FAIL(E_HEAD_MALFORMED), "head");
    }
}

static void do_roots(struct dp_apply *a, uint64_t now_ns)
{
    if (now_ns >= a->roots_ns && dp_feed_connected(&a->feed)) {
        a->roots_ns = now_ns + ROOTS_INTERVAL_NS;
        dp_apply_roots(a);
    }
}

static bool stop_or_drain(struct dp_apply *a)
{
    lock_take(&a->shared.lock);
    bool stop = a->shared.stop;
    a->standing.draining = a->shared.drain;
    lock_drop(&a->shared.lock);
    return stop;
}

/* Both are the calling thread's own on Linux, and wishes. Woken as a batch it takes the core from
 * nobody: not from a worker that wakes it in the middle of a swap, nor from one that answers. */
static void give_way(void)
{
    const struct sched_param none = {.sched_priority = 0};
    (void)sched_setscheduler(0, SCHED_BATCH, &none);
    (void)setpriority(PRIO_PROCESS, 0, APPLY_NICE);
}

/*
 * A thread that has used less than its share is owed the rest, and then a worker that wakes up
 * waits for it, however low its priority. Who yields gives up what it is owed.
 */
void dp_apply_yield(struct dp_apply *a)
{
    uint64_t now_ns = clock_mono_ns();
    if (now_ns - a->walk_ns < PATIENCE_NS && now_ns - a->yielded_ns >= STINT_NS) {
        (void)sched_yield();
        a->yielded_ns = clock_mono_ns();
    }
}

static int at_disk_step(void *ctx, enum disk_step step)
{
    dp_apply_yield(ctx);
    return dp_fault_disk(step);
}

static void *thread_main(void *ctx)
{
    struct dp_apply *a = ctx;
    (void)pthread_setname_np(pthread_self(), "apply");
    give_way();
    dp_apply_disk(a);
    while (!stop_or_drain(a)) {
        uint64_t now_ns = clock_mono_ns();
        dp_hand_look(a);
        do_roots(a, now_ns);
        do_hint(a);
        do_poll(a, now_ns);
        dp_share_turn(a);
        if (a->retry_ns != 0 && now_ns >= a->retry_ns) {
            dp_apply_again(a);
        }
        dp_apply_prove(a, now_ns);
        (void)dp_model_bin_sweep(a->bin);
        dp_standing_update(a);
        dp_standing_report(a, now_ns);
        sleep_until_due(a, dp_positions_go_on(a));
    }
    dp_share_give_up(a);
    a->report_due = true;
    a->report_rest_ns = 0; /* the last word does not wait. */
    dp_standing_update(a);
    dp_standing_report(a, clock_mono_ns());
    return NULL;
}

/* ---- start and stop ---- */

struct err dp_apply_open_disk(struct dp_apply *a, int lock_fd, struct disk **out)
{
    uint8_t environment[ENVIRONMENT_SIZE];
    snap_environment(a->config.environment, environment);
    struct disk_options options = {
        .directory = a->config.state_dir,
        .environment = environment,
        .trust_root = a->config.trust_root,
        .seed = a->config.seed,
        .lock_fd = lock_fd,
        .hook = at_disk_step,
        .hook_context = a,
    };
    return disk_open(&options, out);
}

static struct err open_disk(struct dp_apply *a)
{
    int handed = a->config.handed_lock;
    TRY(dp_apply_open_disk(a, handed > 0 ? handed : -1, &a->disk));
    disk_judge(a->disk, &a->judge);
    struct disk_notes notes = disk_notes(a->disk);
    if (notes.floor_rebuilt || notes.torn_bytes > 0 || notes.bad_records > 0) {
        LOG(LOG_WARN, "apply", notes.floor_rebuilt ? "FLOOR_CORRUPT" : "pack-repaired",
            LOG_U64("torn_bytes", notes.torn_bytes), LOG_U64("bad_records", notes.bad_records));
    }
    return OK;
}

/* Of the node's certificate; empty: it has no such label. */
static struct slice label_of(const struct dp_apply *a, struct slice name)
{
    for (size_t i = 0; i < a->config.label_count; i++) {
        if (slice_eq(a->config.labels[i].name, name)) {
            return a->config.labels[i].value;
        }
    }
    return (struct slice){0};
}

static struct err set_up(struct dp_apply *a)
{
    a->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (a->wake_fd < 0) {
        return FAIL(E_IO);
    }
    TRY(dp_model_bin_new(&a->bin));
    const struct dp_locality here = {.region = label_of(a, SLICE_LIT("region")),
                                     .zone = label_of(a, SLICE_LIT("zone"))};
    dp_model_bin_place(a->bin, &here);
    TRY(open_disk(a));
    struct dp_feed_from from = {.bus = a->config.bus,
                                .environment = a->config.environment,
                                .node = a->config.node,
                                .bucket_api = a->config.bucket_api};
    return dp_feed_init(&a->feed, &from, wake, a);
}

struct err dp_apply_start(const struct dp_apply_config *config, struct dp_apply **out)
{
    struct dp_apply *a = calloc(1, sizeof(*a));
    if (a == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    a->config = *config;
    a->wake_fd = -1;
    a->logged_state = SNAP_STATE_COUNT;
    a->share.order = (struct dp_share_order){
        .node = config->node, .run = (uint64_t)(clock_wall_ms() > 0 ? clock_wall_ms() : 1)};
    a->node = (struct head_node){
        .id = config->node, .labels = config->labels, .label_count = config->label_count};
    lock_init(&a->shared.lock);
    CHECK(sem_init(&a->settled, /* shared= */ 0, 0) == 0);
    struct err e = set_up(a);
    if (err_ok(e)) {
        a->standing.starting = true; /* from the first look on, until the disk is loaded. */
        dp_standing_update(a);
        if (pthread_create(&a->thread, NULL, thread_main, a) == 0) {
            *out = a;
            return OK;
        }
        dp_feed_free(&a->feed);
        e = FAIL(E_IO);
    }
    dp_apply_free(a);
    return e;
}

void dp_apply_drain(struct dp_apply *apply)
{
    lock_take(&apply->shared.lock);
    apply->shared.drain = true;
    lock_drop(&apply->shared.lock);
    wake(apply);
}

void dp_apply_stop(struct dp_apply *apply)
{
    lock_take(&apply->shared.lock);
    apply->shared.stop = true;
    lock_drop(&apply->shared.lock);
    wake(apply);
    CHECK(pthread_join(apply->thread, NULL) == 0);
    dp_feed_free(&apply->feed);
    dp_positions_free(apply);
    struct err e = apply->handed ? OK : disk_mark_stopped(apply->disk);
    if (!err_ok(e)) {
        LOG(LOG_WARN, "apply", "stop-not-marked", LOG_ERR(e));
    }
    lock_take(&apply->shared.lock);
    struct dp_model *model = TAKE_PTR(apply->shared.model);
    lock_drop(&apply->shared.lock);
    dp_model_unref(model);
    dp_model_unref(TAKE_PTR(apply->model));
}

void dp_apply_free(struct dp_apply *apply)
{
    if (apply == NULL) {
        return;
    }
    bus_message_free(apply->hint);
    if (apply->has_accepted) {
        head_free(&apply->accepted.head);
    }
    dp_fetch_drop(apply);
    dp_model_bin_free(apply->bin);
    disk_close(apply->disk);
    if (apply->wake_fd >= 0) {
        (void)close(apply->wake_fd);
    }
    lock_free(&apply->shared.lock);
    CHECK(sem_destroy(&apply->settled) == 0);
    free(apply);
}

struct dp_model *dp_apply_model(struct dp_apply *apply)
{
    lock_take(&apply->shared.lock);
    struct dp_model *model = apply->shared.model == NULL ? NULL : dp_model_ref(apply->shared.model);
    lock_drop(&apply->shared.lock);
    return model;
}
