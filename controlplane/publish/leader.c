/* leader: see leader.h. The thread's life is run(); one turn of it is beat(). The row is in
 * lease.c, the head in point.c. */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "common/base/scope.h"
#include "controlplane/publish/leader_impl.h"

enum {
    FOLLOW_MS = 250,      /* between two looks of a follower, at most. */
    TAKE_MS = 20,         /* behind the end of another's row, at least. */
    HEARD_AHEAD_MAX = 16, /* epochs that nodes may have seen, and we believe. */
    WAIT_STEP_MS = 1,
};

#define HEED_NS UINT64_C(2000000000) /* between two epochs that answer nodes' words. */

/* ---- state ---- */

static bool is_stopping(struct cp_leader *l)
{
    lock_take(&l->shared.lock);
    bool stopping = l->shared.stopping;
    lock_drop(&l->shared.lock);
    return stopping;
}

void cp_leader_note_state(struct cp_leader *l, struct err e)
{
    lock_take(&l->shared.lock);
    l->shared.status.code = e.code;
    lock_drop(&l->shared.lock);
    if (l->on_thread.said != e.code) {
        l->on_thread.said = e.code;
        LOG(err_ok(e) ? LOG_INFO : LOG_WARN, "leader", err_ok(e) ? "heads_go_out" : "no_head",
            LOG_ERR(e), LOG_STR("text", err_text(e.code)));
    }
}

/* ---- one beat ---- */

/* What keeps a head out of KV, and not from nodes: JetStream is silent, or refuses us. */
static bool is_silence(struct err e)
{
    return e.code == E_UNAVAILABLE || e.code == E_RESULT_UNKNOWN || e.code == E_BUS_LIMIT;
}

/* The bucket is held against the journal at each beginning of a leadership and after each head that
 * was missing or older than ours, until it holds what the head points at: it may be new, purged, or
 * an old backup. */
static struct err check_content(struct cp_leader *l, const struct cp_record *record)
{
    if (l->on_thread.content_checked) {
        return OK;
    }
    bool there = false;
    struct err e = cp_bucket_has_manifest(&l->on_thread.bucket, record, &there);
    if (e.code == E_UNAVAILABLE || (err_ok(e) && !there)) {
        cp_leader_want_restore(l); /* E_UNAVAILABLE: there may be NATS without the bucket. */
    }
    TRY(e);
    l->on_thread.content_checked = there;
    return OK;
}

/* Roots and keys: trust.h. */
static struct err watch_trust(struct cp_leader *l)
{
    lock_take(&l->shared.lock);
    bool reload = l->shared.reload;
    l->shared.reload = false;
    lock_drop(&l->shared.lock);
    struct err e = cp_trust_beat(&l->on_thread.trust, l->on_thread.store, reload);
    l->on_thread.root = l->on_thread.trust.root;
    lock_take(&l->shared.lock);
    l->shared.status.keys = l->on_thread.trust.keys;
    lock_drop(&l->shared.lock);
    return err_ok(e) ? OK : cp_leader_step_down(l, e);
}

static struct err raise_versions(struct cp_leader *l)
{
    struct cp_fence fence = cp_leader_fence_at(l, l->on_thread.lease_epoch);
    return cp_trust_raise(&l->on_thread.trust, l->on_thread.store, &fence);
}

/* Before a head names them. */
static struct err put_roots(struct cp_leader *l)
{
    struct err e = cp_trust_put(&l->on_thread.trust, &l->on_thread.bucket);
    if (e.code == E_UNAVAILABLE) {
        cp_leader_want_restore(l); /* there may be NATS without the bucket. */
    }
    return e;
}

/*
 * Heads of a thief who has a head key and sends them as hints alone lie nowhere; but nodes say
 * which head they accepted last. An order above ours is answered as a foreign head in KV: by the
 * next epoch. One epoch in a while, and only when it is near: a node's word alone must not use
 * epochs up, nor have the row renewed at each beat, nor drown what others say.
 */
static struct err heed_nodes(struct cp_leader *l)
{
    const struct cp_head_own *own = &l->on_thread.own;
    const uint64_t now_ns = clock_mono_ns();
    struct cp_fleet_order said = cp_leader_heard(l, own->epoch + HEARD_AHEAD_MAX, /* version= */ 0);
    bool above =
        said.epoch > own->epoch || (said.epoch == own->epoch && said.sequence > own->sequence);
    if (!above || (l->on_thread.heeded_ns != 0 && now_ns - l->on_thread.heeded_ns < HEED_NS)) {
        return OK;
    }
    l->on_thread.heeded_ns = now_ns;
    CP_COUNT_HEAD(l, foreign);
    LOG(LOG_WARN, "leader", "foreign_head_at_nodes", LOG_U64("epoch", said.epoch),
        LOG_U64("sequence", said.sequence));
    return cp_leader_renew(l, own->epoch);
}

/* Each change is logged once. */
static void note_store(struct cp_leader *l, struct err e)
{
    lock_take(&l->shared.lock);
    bool changed = l->shared.status.store_code != e.code;
    l->shared.status.store_code = e.code;
    lock_drop(&l->shared.lock);
    if (changed) {
        LOG(err_ok(e) ? LOG_INFO : LOG_WARN, "leader",
            err_ok(e) ? "journal_read" : "journal_not_read", LOG_ERR(e),
            LOG_U64("version", l->on_thread.newest.version),
            LOG_STR("text", err_ok(e) ? "heads name the newest version again"
                                      : "heads go on, for the version that was read before"));
    }
}

/*
 * A session that keeps the journal locked, a backup or somebody's hand, holds up whoever publishes.
 * Heads need not wait for it: as long as the row is ours, what was read under it is the newest but
 * for what our own publisher commits meanwhile, and no node goes back by an older one.
 */
static struct err read_journal(struct cp_leader *l, struct cp_record *out)
{
    struct cp_store *store = l->on_thread.store;
    const uint64_t epoch = l->on_thread.renewed_ns == 0 ? 0 : l->on_thread.lease_epoch;
    struct err e = store->ops->latest(store, l->options.environment, out);
    if (e.code == E_STORE_LOCKED && epoch != 0 && l->on_thread.newest_epoch == epoch) {
        *out = l->on_thread.newest;
        note_store(l, e);
        return OK;
    }
    if (e.code == E_NOT_FOUND) {
        *out = (struct cp_record){0};
    } else {
        TRY(e);
    }
    l->on_thread.newest = *out;
    l->on_thread.newest_epoch = epoch;
    note_store(l, OK);
    return OK;
}

static struct err read_newest(struct cp_leader *l, struct cp_leader_beat *b)
{
    TRY(read_journal(l, &b->record));
    lock_take(&l->shared.lock);
    struct cp_leader_status *status = &l->shared.status;
    status->newest_version = b->record.version;
    (void)memcpy(status->newest_signers, b->record.signers, sizeof(status->newest_signers));
    lock_drop(&l->shared.lock);
    return OK;
}

/* A row that no threshold signed is pointed at by no head: nodes stay fresh on the one below it. */
static struct err judge_newest(struct cp_leader *l, struct cp_leader_beat *b)
{
    struct err e = cp_trust_newest(&l->on_thread.trust, l->on_thread.store, &b->record, &b->holds);
    b->refused = e.code == E_MANIFEST_UNSIGNED ? e : OK;
    return e.code == E_MANIFEST_UNSIGNED ? OK : e;
}

static struct err beat_in(struct cp_leader *l, struct cp_leader_beat *b)
{
    TRY(watch_trust(l)); /* without a signer that nodes believe, another may lead. */
    TRY(cp_leader_judge_deaf(l));
    struct err leads = cp_leader_hold(l);
    TRY(leads.code == E_NOT_LEADER ? OK : leads);
    TRY(read_newest(l, b)); /* a follower shows it, too. */
    TRY(leads);
    TRY(raise_versions(l));
    TRY(heed_nodes(l));
    TRY(judge_newest(l, b));
    l->on_thread.own.version_max = b->record.version; /* an unsigned row hides no lost one. */
    l->on_thread.bus_asked = true;
    if (bus_state(l->options.bus) != BUS_CONNECTED) {
        return FAIL(E_BUS_UNAVAILABLE);
    }
    struct err e = put_roots(l);
    if (err_ok(e) && b->record.version == 0) {
        e = cp_leader_judge_head(
            l, b); /* nothing to point at; but the bucket may know more than us. */
    } else if (err_ok(e)) {
        e = check_content(l, &b->record);
        e = err_ok(e) ? cp_leader_point_head(l, b) : e;
    }
    if (is_silence(e)) {
        TRY(cp_leader_hint_alone(l, b));
    }
    TRY(e);
    if (!b->holds) { /* once heads go out. */
        l->options.republish(l->options.ctx);
    }
    return b->refused;
}

/* Before NATS is asked, all that is asked from afar is the database. */
static void note_silence(struct cp_leader *l, struct err e)
{
    lock_take(&l->shared.lock);
    l->shared.status.store_silent = e.code == E_UNAVAILABLE && !l->on_thread.bus_asked;
    lock_drop(&l->shared.lock);
}

static void beat(struct cp_leader *l)
{
    struct cp_leader_beat b = {.holds = true, .bytes = BUF_MAX(CP_HEAD_FOUND_MAX)};
    l->on_thread.bus_asked = false;
    struct err e = beat_in(l, &b);
    note_silence(l, e);
    cp_leader_leave_when_deaf(l);
    if (e.code == E_NOT_LEADER && l->options.follow != NULL) {
        l->options.follow(l->options.ctx);
    }
    if (e.code == E_UNAVAILABLE || e.code == E_BUS_UNAVAILABLE) {
        CP_COUNT_HEAD(l, unreachable);
    }
    if (e.code == E_SIGNER_REFUSED) {
        CP_COUNT_HEAD(l, refused);
    }
    cp_leader_note_state(l, e);
    buf_free(&b.bytes);
}

/* ---- the thread ---- */

/* Until the next renewal or head of a leader; until another's row may have run out. */
static uint64_t wait_ms(const struct cp_leader *l)
{
    uint64_t quarter = limits.lease_ms / CP_LEASE_RENEWALS;
    bool silent = l->on_thread.said == E_BUS_UNAVAILABLE || l->on_thread.said == E_UNAVAILABLE;
    if (l->on_thread.renewed_ns != 0 && !silent) { /* NATS may come at any moment. */
        return limits.head_interval_ms < quarter ? limits.head_interval_ms : quarter;
    }
    uint64_t look_ms = FOLLOW_MS < quarter ? FOLLOW_MS : quarter;
    uint64_t now_ns = clock_mono_ns();
    uint64_t end_ns = l->on_thread.expires_ns;
    uint64_t left_ms = end_ns > now_ns && !silent ? (end_ns - now_ns) / 1000000 + TAKE_MS : look_ms;
    return left_ms < look_ms ? left_ms : look_ms;
}

static void sleep_until_woken(struct cp_leader *l)
{
    struct pollfd fds = {.fd = l->wake_fd, .events = POLLIN};
    CHECK(wait_ms(l) <= INT_MAX);
    if (poll(&fds, 1, (int)wait_ms(l)) > 0) {
        uint64_t wakes = 0;
        (void)!read(l->wake_fd, &wakes, sizeof(wakes));
    }
}

static void *run(void *ctx)
{
    struct cp_leader *l = ctx;
    while (!is_stopping(l)) {
        beat(l);
        sleep_until_woken(l);
    }
    return NULL;
}

static struct err prepare(struct cp_leader *l, struct buf *message)
{
    TRY(subject_head(slice_str(l->options.environment), &l->hint));
    TRY(subject_content(slice_str(l->options.environment), &l->content));
    TRY(cp_bucket_bind(&l->on_thread.bucket, l->options.bus, l->options.environment,
                       l->options.roots));
    TRY(cp_store_await(l->options.store, &l->on_thread.store, message));
    /* A wait for a lock leaves time to renew the row, or to let it go. */
    l->on_thread.store->ops->set_lock_wait(l->on_thread.store, limits.lease_ms / CP_LEASE_RENEWALS);
    cp_trust_init(&l->on_thread.trust, l->options.environment, l->options.name, l->options.roots,
                  l->options.signer);
    l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return l->wake_fd < 0 ? FAIL(E_IO) : OK;
}

struct err cp_leader_new(const struct cp_leader_options *options, struct cp_leader **out,
                         struct buf *message)
{
    struct cp_leader *l = calloc(1, sizeof(*l));
    if (l == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    l->options = *options;
    l->wake_fd = -1;
    ids_random(l->holder, sizeof(l->holder));
    lock_init(&l->shared.lock);
    lock_take(&l->shared.lock);
    l->shared.status.code = E_NOT_LEADER; /* no head goes out before the first beat is over. */
    lock_drop(&l->shared.lock);
    struct err e = prepare(l, message);
    if (!err_ok(e)) {
        cp_leader_free(l);
        return e;
    }
    *out = l;
    return OK;
}

struct err cp_leader_run(struct cp_leader *leader)
{
    leader->started = pthread_create(&leader->thread, NULL, run, leader) == 0;
    return leader->started ? OK : FAIL(E_IO);
}

void cp_leader_free(struct cp_leader *leader)
{
    if (leader == NULL) {
        return;
    }
    if (leader->started) {
        lock_take(&leader->shared.lock);
        leader->shared.stopping = true;
        lock_drop(&leader->shared.lock);
        cp_leader_wake(leader);
        CHECK(pthread_join(leader->thread, NULL) == 0);
        cp_leader_let_go(leader);
    }
    cp_store_close(leader->on_thread.store);
    scope_close(&leader->wake_fd);
    lock_take(&leader->shared.lock);
    buf_free(&leader->shared.beside);
    lock_drop(&leader->shared.lock);
    lock_free(&leader->shared.lock);
    free(leader);
}

/* ---- from other threads ---- */

struct err cp_leader_fence(struct cp_leader *leader, struct cp_fence *out)
{
    lock_take(&leader->shared.lock);
    bool leads = leader->shared.status.leads && cp_leader_is_young(leader->shared.renewed_ns);
    uint64_t epoch = leader->shared.status.epoch;
    lock_drop(&leader->shared.lock);
    if (!leads) {
        return FAIL(E_NOT_LEADER);
    }
    *out = (struct cp_fence){.environment = leader->options.environment, .epoch = epoch};
    (void)memcpy(out->holder, leader->holder, sizeof(out->holder));
    return OK;
}

void cp_leader_reload(struct cp_leader *leader)
{
    lock_take(&leader->shared.lock);
    leader->shared.reload = true;
    lock_drop(&leader->shared.lock);
    cp_leader_wake(leader);
}

void cp_leader_beside(struct cp_leader *leader, uint64_t version, struct buf *content)
{
    lock_take(&leader->shared.lock);
    struct buf before = leader->shared.beside;
    leader->shared.beside = *content;
    leader->shared.beside_version = version;
    lock_drop(&leader->shared.lock);
    *content = (struct buf){0};
    buf_free(&before);
}

void cp_leader_give_up(struct cp_leader *leader)
{
    lock_take(&leader->shared.lock);
    leader->shared.status.named_version = 0;
    lock_drop(&leader->shared.lock);
}

void cp_leader_wake(struct cp_leader *leader)
{
    uint64_t one = 1;
    (void)!write(leader->wake_fd, &one, sizeof(one)); /* full: it is awake anyway. */
}

bool cp_leader_wait_head(struct cp_leader *leader, uint64_t version, uint64_t timeout_ms)
{
    uint64_t end_ns = clock_mono_ns() + timeout_ms * 1000000;
    struct cp_leader_status status;
    for (;;) { /* ends with the head, or the time. */
        cp_leader_status(leader, &status);
        if (status.head_version >= version) {
            return true;
        }
        if (clock_mono_ns() >= end_ns) {
            return false;
        }
        (void)poll(NULL, 0, WAIT_STEP_MS);
    }
}

void cp_leader_status(struct cp_leader *leader, struct cp_leader_status *out)
{
    lock_take(&leader->shared.lock);
    *out = leader->shared.status;
    bool young = cp_leader_is_young(leader->shared.renewed_ns);
    lock_drop(&leader->shared.lock);
    if (out->leads && !young) { /* the thread hangs, or the process was stopped. */
        out->leads = false;
        out->code = out->code == E_OK ? E_NOT_LEADER : out->code;
    }
}
