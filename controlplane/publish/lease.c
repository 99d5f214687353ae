/* lease: the row of leadership: taking it, renewing it, leaving it to others. See leader.h. */
#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "common/base/scope.h"
#include "controlplane/publish/leader_impl.h"

enum {
    CLOCK_TOLERANCE_MS = 5000, /* against the database's clock: past it a replica does not lead. */
    DEAF_LEASES = 2, /* so long is the row left to those who reach NATS, by one who does not. */
    DEAF_HELD_LEASES = 5, /* so long is it held by one who does not, when nobody took it. */
    MUTE_LEASES = 5,      /* so long may JetStream be silent while NATS answers: it elects. */
};

/* ---- time ---- */

bool cp_leader_is_young(uint64_t renewed_ns)
{
    uint64_t age_ms = (clock_mono_ns() - renewed_ns) / 1000000;
    return renewed_ns != 0 && age_ms < limits.lease_ms - limits.lease_ms / 4;
}

bool cp_leader_is_recent(uint64_t at_ns)
{
    return at_ns != 0 &&
           clock_mono_ns() - at_ns < limits.lease_ms * 1000000 / CP_LEASE_RENEWALS / 2;
}

uint64_t cp_leader_kv_timeout_ms(void)
{
    uint64_t quarter = limits.lease_ms / 4;
    return limits.fetch_timeout_ms < quarter ? limits.fetch_timeout_ms : quarter;
}

/* ---- who has it ---- */

/* The caller's token is sent there: not to where whoever writes to the database would have it. */
static const char *address_of(struct cp_leader *l, const struct cp_lease *lease)
{
    bool holds = lease->address[0] == '\0' ||
                 cp_warrant_names(l->options.warrant_key, l->options.environment, lease);
    if (!holds && !l->on_thread.said_address) {
        LOG(LOG_ERROR, "leader", "address_not_warranted", LOG_STR("holder", lease->name),
            LOG_STR("address", lease->address),
            LOG_STR("text", "not the word of a replica that has this one's token: nothing is sent "
                            "there"));
    }
    l->on_thread.said_address = !holds;
    return holds ? lease->address : "";
}

static void note_lease(struct cp_leader *l, const struct cp_lease *lease)
{
    const char *address = address_of(l, lease);
    lock_take(&l->shared.lock);
    l->shared.renewed_ns = l->on_thread.renewed_ns;
    l->shared.status.leads = l->on_thread.renewed_ns != 0;
    l->shared.status.epoch = lease->epoch;
    (void)snprintf(l->shared.status.holder, sizeof(l->shared.status.holder), "%s", lease->name);
    (void)snprintf(l->shared.status.address, sizeof(l->shared.status.address), "%s", address);
    l->shared.status.vacant = !lease->held && lease->expires_ms <= lease->now_ms;
    lock_drop(&l->shared.lock);
}

struct cp_fence cp_leader_fence_at(const struct cp_leader *l, uint64_t epoch)
{
    struct cp_fence fence = {.environment = l->options.environment, .epoch = epoch};
    (void)memcpy(fence.holder, l->holder, sizeof(fence.holder));
    return fence;
}

/* When the row runs out, by our own monotonic clock. */
static void note_end(struct cp_leader *l, const struct cp_lease *lease, uint64_t asked_ns)
{
    int64_t left_ms = lease->expires_ms - lease->now_ms;
    l->on_thread.expires_ns = asked_ns + (left_ms > 0 ? (uint64_t)left_ms * 1000000 : 0);
}

void cp_leader_let_go(struct cp_leader *l)
{
    struct cp_fence fence = cp_leader_fence_at(l, l->on_thread.lease_epoch);
    l->on_thread.renewed_ns = 0;
    lock_take(&l->shared.lock);
    l->shared.renewed_ns = 0;
    l->shared.status.leads = false;
    lock_drop(&l->shared.lock);
    struct err e = l->on_thread.store->ops->lease_drop(l->on_thread.store, &fence);
    if (!err_ok(e)) {
        LOG(LOG_WARN, "leader", "lease_not_dropped", LOG_ERR(e));
    }
}

/* Without a signer that nodes believe nobody leads here, and another replica need not wait until
 * the row runs out. Who leads is read all the same. */
struct err cp_leader_step_down(struct cp_leader *l, struct err why)
{
    struct cp_lease lease = {0};
    struct cp_store *store = l->on_thread.store;
    cp_leader_note_state(l, why); /* whoever sees that we do not lead sees why. */
    if (l->on_thread.renewed_ns != 0) {
        cp_leader_let_go(l);
    }
    if (err_ok(store->ops->lease_read(store, l->options.environment, &lease))) {
        lease.held = false;
        note_lease(l, &lease);
    }
    return why;
}

/* ---- whoever does not hear NATS ---- */

void cp_leader_note_answer(struct cp_leader *l)
{
    l->on_thread.heard_ns = clock_mono_ns();
    l->on_thread.kv_ns = l->on_thread.heard_ns;
    l->on_thread.deaf = false;
}

/* Reads the head, to know whether NATS answers at all. */
static struct err hear(struct cp_leader *l)
{
    auto_buf struct buf bytes = BUF_MAX(CP_HEAD_FOUND_MAX);
    struct kv_entry found;
    TRY(kv_get(&l->on_thread.bucket.kv, SLICE_LIT(SNAP_KEY_HEAD), KV_READ_LEADER,
               cp_leader_kv_timeout_ms(), &bytes, &found));
    cp_leader_note_answer(l);
    return OK;
}

static bool is_silent(const struct cp_leader *l, uint64_t heard_ns, uint64_t patience_ns)
{
    uint64_t since_ns = heard_ns > l->on_thread.taken_ns ? heard_ns : l->on_thread.taken_ns;
    return clock_mono_ns() - since_ns > patience_ns;
}

/* Whether NATS, or JetStream alone, has been silent to us for longer than we wait with the row in
 * our hands. A bucket whose leader died is silent to everybody until its servers have elected
 * another: passing the row on would not help. */
static bool is_deaf(const struct cp_leader *l)
{
    uint64_t lease_ns = limits.lease_ms * 1000000;
    if (l->on_thread.deaf) {
        return is_silent(l, l->on_thread.kv_ns, DEAF_HELD_LEASES * lease_ns);
    }
    return is_silent(l, l->on_thread.heard_ns, lease_ns / 2) ||
           is_silent(l, l->on_thread.kv_ns, MUTE_LEASES * lease_ns);
}

/*
 * A replica that does not reach NATS can bring out no head: it leaves the row to those who do, and
 * takes it back when it lay free so long that there seems to be nobody else. So a control plane of
 * one replica, or one whose NATS is gone as a whole, still has a leader that says why.
 */
void cp_leader_leave_when_deaf(struct cp_leader *l)
{
    if (l->on_thread.renewed_ns == 0 || !l->on_thread.bus_asked || !is_deaf(l)) {
        return;
    }
    if (!l->on_thread.deaf) {
        LOG(LOG_WARN, "leader", "leaves_the_row", LOG_STR("text", "NATS does not answer"));
    }
    l->on_thread.deaf = true;
    l->on_thread.left_ns = clock_mono_ns();
    cp_leader_let_go(l);
}

struct err cp_leader_judge_deaf(struct cp_leader *l)
{
    if (!l->on_thread.deaf || l->on_thread.renewed_ns != 0 || err_ok(hear(l))) {
        return OK;
    }
    struct cp_lease lease;
    uint64_t asked_ns = clock_mono_ns();
    struct err e =
        l->on_thread.store->ops->lease_read(l->on_thread.store, l->options.environment, &lease);
    if (e.code == E_NOT_FOUND) {
        return OK;
    }
    TRY(e);
    lease.held = false;
    if (lease.expires_ms > lease.now_ms) {
        note_end(l, &lease, asked_ns);
        note_lease(l, &lease);
    }
    uint64_t free_ns = l->on_thread.expires_ns > l->on_thread.left_ns ? l->on_thread.expires_ns
                                                                      : l->on_thread.left_ns;
    bool nobody_else = clock_mono_ns() > free_ns + DEAF_LEASES * limits.lease_ms * 1000000;
    return nobody_else ? OK : FAIL(E_BUS_UNAVAILABLE);
}

/* ---- taking ---- */

static bool clocks_agree(const struct cp_lease *lease)
{
    int64_t apart_ms = lease->now_ms - clock_wall_ms();
    return apart_ms <= CLOCK_TOLERANCE_MS && apart_ms >= -CLOCK_TOLERANCE_MS;
}

/* A replica whose clock is wrong looks at the row and does not take it: each taking is an epoch. */
static struct err look_before(struct cp_leader *l)
{
    struct cp_lease seen = {0};
    uint64_t asked_ns = clock_mono_ns();
    struct err e =
        l->on_thread.store->ops->lease_read(l->on_thread.store, l->options.environment, &seen);
    if (e.code == E_NOT_FOUND) {
        return OK;
    }
    TRY(e);
    if (clocks_agree(&seen)) {
        return OK;
    }
    note_end(l, &seen, asked_ns);
    note_lease(l, &seen);
    return FAIL(E_CLOCK_SKEW);
}

struct err cp_leader_renew(struct cp_leader *l, uint64_t epoch_above)
{
    if (l->on_thread.renewed_ns == 0) {
        TRY(look_before(l));
    }
    struct cp_lease_wish wish = {.environment = l->options.environment,
                                 .name = l->options.name,
                                 .address = l->options.address,
                                 .lease_ms = limits.lease_ms,
                                 .epoch_above = epoch_above};
    (void)memcpy(wish.holder, l->holder, sizeof(wish.holder));
    cp_warrant_address(l->options.warrant_key, wish.environment, wish.address, wish.warrant);
    uint64_t asked_ns = clock_mono_ns(); /* before the question: never later than the truth. */
    struct cp_lease lease = {0};
    struct err e = l->on_thread.store->ops->lease_take(l->on_thread.store, &wish, &lease);
    if (!err_ok(e)) {
        return e; /* what we have ages; it may still be young. */
    }
    note_end(l, &lease, asked_ns);
    if (lease.held && !clocks_agree(&lease)) {
        struct cp_fence fence = {.environment = l->options.environment, .epoch = lease.epoch};
        (void)memcpy(fence.holder, l->holder, sizeof(fence.holder));
        l->on_thread.renewed_ns = 0;
        /* Whoever sees that we do not lead sees why. */
        cp_leader_note_state(l, FAIL(E_CLOCK_SKEW));
        note_lease(l, &lease);
        TRY(l->on_thread.store->ops->lease_drop(l->on_thread.store, &fence));
        return FAIL(E_CLOCK_SKEW);
    }
    if (lease.held && l->on_thread.renewed_ns == 0) {
        l->on_thread.taken_ns = asked_ns;
        l->on_thread.head_ns = 0;
    }
    l->on_thread.renewed_ns = lease.held ? asked_ns : 0;
    if (lease.held && lease.epoch != l->on_thread.lease_epoch) {
        l->on_thread.lease_epoch = lease.epoch;
        l->on_thread.own =
            (struct cp_head_own){.epoch = lease.epoch, .version_max = l->on_thread.own.version_max};
        l->on_thread.revision = 0;
        l->on_thread.content_checked = false;
        cp_trust_lead(&l->on_thread.trust);
        cp_leader_give_up(l); /* what others led to since then is judged anew. */
        LOG(LOG_INFO, "leader", "leads", LOG_U64("epoch", lease.epoch));
    }
    note_lease(l, &lease);
    return lease.held ? OK : FAIL(E_NOT_LEADER);
}

/*
 * Publications may follow each other within moments: their beats leave the row alone while it is
 * fresh. The signer's epoch is that of its start: at or above it the row gets another.
 */
struct err cp_leader_hold(struct cp_leader *l)
{
    uint64_t epoch_above = cp_trust_epoch(&l->on_thread.trust);
    bool fresh =
        cp_leader_is_recent(l->on_thread.renewed_ns) && l->on_thread.lease_epoch > epoch_above;
    return fresh ? OK : cp_leader_renew(l, epoch_above);
}
