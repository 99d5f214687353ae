/* leader: see leader.h. The thread's life is run(); one turn of it is beat(). */
#include "controlplane/publish/leader.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/lock.h"
#include "common/base/log.h"
#include "common/base/scope.h"
#include "common/bus/subject.h"
#include "controlplane/publish/head.h"
#include "controlplane/publish/trust.h"

enum {
    CLOCK_TOLERANCE_MS = 5000, /* against the database's clock: past it a replica does not lead. */
    RETRIES = 3,               /* of one beat, when another write came in between. */
    RENEWALS = 4,              /* in the life of the row. */
    FOLLOW_MS = 250,           /* between two looks of a follower, at most. */
    TAKE_MS = 20,              /* behind the end of another's row, at least. */
    DEAF_LEASES = 2, /* so long is the row left to those who reach NATS, by one who does not. */
    DEAF_HELD_LEASES = 5, /* so long is it held by one who does not, when nobody took it. */
    MUTE_LEASES = 5,      /* so long may JetStream be silent while NATS answers: it elects. */
    HEARD_AHEAD_MAX = 16, /* epochs that nodes may have seen, and we believe. */
    HEAD_CONTAINER_MAX = CONTAINER_HEADER_SIZE + CONTAINER_SIGNATURE_SIZE + HEAD_BODY_MAX,
    FOUND_MAX = 8 << 20, /* whatever lies under "head", as large as NATS lets a message be. */
    WAIT_STEP_MS = 1,
    SENTENCE_MAX = 4096,
};

struct cp_leader {
    struct cp_leader_options options;
    struct subject hint; /* trilane.<env>.head */
    uint8_t holder[CP_HOLDER_SIZE];
    pthread_t thread;
    bool started;
    int wake_fd; /* eventfd: a publication, or the end. */
    struct {
        struct cp_store *store;
        struct cp_bucket bucket;
        struct cp_head_own own;
        struct root root;    /* in force at this beat. */
        uint64_t renewed_ns; /* monotonic, of the last renewal; 0: the row is not ours. */
        uint64_t lease_epoch;
        uint64_t expires_ns;  /* monotonic: when the row that was last seen runs out. */
        uint64_t head_ns;     /* monotonic: when the next head is due. */
        uint64_t signed_ns;   /* monotonic: when the last one was signed. */
        uint64_t pointed_at;  /* version that KV's head of ours names. */
        uint64_t revision;    /* of that head, as of our last write; 0: not known. */
        uint64_t looked_ns;   /* monotonic: when it was last read and judged. */
        uint64_t heard_ns;    /* monotonic: of NATS' last answer, */
        uint64_t kv_ns;       /* and of JetStream's. */
        uint64_t taken_ns;    /* monotonic: since when the row is ours. */
        uint64_t left_ns;     /* monotonic: when it was left to others. */
        bool bus_asked;       /* in this beat. */
        bool deaf;            /* NATS has been silent for long. */
        bool content_checked; /* the bucket was held against the journal. */
        bool said_address;    /* that the row's is nobody's word. */
        enum err_code said;   /* last state that was logged: each change once. */
        struct cp_trust trust;
    } on_thread;
    struct {
        struct lock lock;
        bool stopping GUARDED;
        uint64_t renewed_ns GUARDED;
        struct cp_leader_status status GUARDED;
        bool reload GUARDED; /* the key files shall be read anew. */
    } shared;
};

/* ---- time and state ---- */

static bool is_young(uint64_t renewed_ns)
{
    uint64_t age_ms = (clock_mono_ns() - renewed_ns) / 1000000;
    return renewed_ns != 0 && age_ms < limits.lease_ms - limits.lease_ms / 4;
}

/* Within a part of the row's life that leaves room for three more tries. */
static bool is_recent(uint64_t at_ns)
{
    return at_ns != 0 && clock_mono_ns() - at_ns < limits.lease_ms * 1000000 / RENEWALS / 2;
}

static bool is_stopping(struct cp_leader *l)
{
    lock_take(&l->shared.lock);
    bool stopping = l->shared.stopping;
    lock_drop(&l->shared.lock);
    return stopping;
}

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

static void note_state(struct cp_leader *l, struct err e)
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

#define COUNT_HEAD(l, name)                                                                        \
    do {                                                                                           \
        lock_take(&(l)->shared.lock);                                                              \
        (l)->shared.status.counters.head_##name++;                                                 \
        lock_drop(&(l)->shared.lock);                                                              \
    } while (0)

static uint64_t head_interval_ns(void)
{
    return limits.head_interval_ms * 1000000;
}

/* KV must not hold the thread past the next renewal. */
static uint64_t kv_timeout_ms(void)
{
    uint64_t quarter = limits.lease_ms / 4;
    return limits.fetch_timeout_ms < quarter ? limits.fetch_timeout_ms : quarter;
}

/* ---- the row ---- */

static struct cp_fence fence_of(const struct cp_leader *l, uint64_t epoch)
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

/* Gives the row away, or says that it is not ours any more. */
static void let_go(struct cp_leader *l)
{
    struct cp_fence fence = fence_of(l, l->on_thread.lease_epoch);
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

static void note_answer(struct cp_leader *l)
{
    l->on_thread.heard_ns = clock_mono_ns();
    l->on_thread.kv_ns = l->on_thread.heard_ns;
    l->on_thread.deaf = false;
}

/* Reads the head, to know whether NATS answers at all. */
static struct err hear(struct cp_leader *l)
{
    auto_buf struct buf bytes = BUF_MAX(FOUND_MAX);
    struct kv_entry found;
    TRY(kv_get(&l->on_thread.bucket.kv, SLICE_LIT(SNAP_KEY_HEAD), KV_READ_LEADER, kv_timeout_ms(),
               &bytes, &found));
    note_answer(l);
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
static void leave_when_deaf(struct cp_leader *l)
{
    if (l->on_thread.renewed_ns == 0 || !l->on_thread.bus_asked || !is_deaf(l)) {
        return;
    }
    if (!l->on_thread.deaf) {
        LOG(LOG_WARN, "leader", "leaves_the_row", LOG_STR("text", "NATS does not answer"));
    }
    l->on_thread.deaf = true;
    l->on_thread.left_ns = clock_mono_ns();
    let_go(l);
}

/* Who left the row looks for NATS, and at the row. OK: it may be taken. */
static struct err judge_deaf(struct cp_leader *l)
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

/* Takes or renews the row; a new epoch begins with sequence 1. */
static struct err renew(struct cp_leader *l, uint64_t epoch_above)
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
        LOG(LOG_INFO, "leader", "leads", LOG_U64("epoch", lease.epoch));
    }
    note_lease(l, &lease);
    return lease.held ? OK : FAIL(E_NOT_LEADER);
}

/*
 * Publications may follow each other within moments: their beats leave the row alone while it is
 * fresh. The signer's epoch is that of its start: at or above it the row gets another.
 */
static struct err hold(struct cp_leader *l)
{
    uint64_t epoch_above = cp_trust_epoch(&l->on_thread.trust);
    bool fresh = is_recent(l->on_thread.renewed_ns) && l->on_thread.lease_epoch > epoch_above;
    return fresh ? OK : renew(l, epoch_above);
}

/* ---- one beat ---- */

struct beat {
    struct cp_record record; /* what the head shall point at. */
    bool holds;              /* or it is to be signed anew. */
    struct err refused;      /* why the newest row of the journal is not it. */
    struct kv_entry found;
    struct buf bytes; /* what lies under "head"; then the new head's container. */
};

static void want_restore(struct cp_leader *l)
{
    l->options.restore(l->options.ctx);
}

/* Somebody else writes to the bucket, or it was put back to an older state. */
static struct err written_over(const char *found)
{
    LOG(LOG_WARN, "leader", "head_written_over", LOG_STR("found", found),
        LOG_STR("text", "the head in the bucket was not this control plane's last one"));
    return OK;
}

/* Decides about what was found: goes on (OK), or says why no head may be written over it. */
static struct err settle(struct cp_leader *l, const struct cp_head_judged *judged)
{
    switch (judged->verdict) {
    case CP_HEAD_OURS:
        return OK;
    case CP_HEAD_MISSING:
        COUNT_HEAD(l, missing);
        l->on_thread.content_checked = false; /* a purge or a new bucket took more than the head. */
        return OK;
    case CP_HEAD_MALFORMED:
        COUNT_HEAD(l, malformed);
        return written_over("malformed");
    case CP_HEAD_UNSIGNED:
        COUNT_HEAD(l, unsigned);
        return written_over("unsigned");
    case CP_HEAD_LOWER:
        COUNT_HEAD(l, lower);
        /* Below our first one lies the head of whoever led before. */
        return l->on_thread.own.sequence == 0 ? OK : written_over("lower");
    case CP_HEAD_JUMP:
        COUNT_HEAD(l, jump);
        return written_over("jump");
    case CP_HEAD_FOREIGN:
        COUNT_HEAD(l, foreign);
        LOG(LOG_WARN, "leader", "foreign_head", LOG_U64("epoch", judged->epoch));
        return renew(l, judged->epoch);
    case CP_HEAD_BEHIND:
        LOG(LOG_ERROR, "leader", "store_behind", LOG_U64("bucket_version", judged->version_max));
        return FAIL(E_STORE_BEHIND);
    case CP_HEAD_VERDICT_COUNT:
        break;
    }
    CHECK(false);
    return FAIL(E_IO);
}

/* What nodes say of heads and versions; zeroes: nothing. */
static struct cp_fleet_order heard(struct cp_leader *l)
{
    struct cp_fleet_order order = {0};
    if (l->options.heard != NULL) {
        l->options.heard(l->options.ctx, &order);
    }
    return order;
}

/* Whether our signer, or a node that serves it, knows a version that the database does not. */
static bool is_known_elsewhere(struct cp_leader *l, const struct cp_head_judged *judged)
{
    uint64_t served = heard(l).version;
    return cp_signer_hello(l->options.signer).version >= judged->version_max ||
           (served > l->on_thread.own.version_max && served <= judged->version_max);
}

/*
 * A head key alone can name any version: that somebody published it is told by its manifest, which
 * was put before its head, by our own signer, or by nodes that serve what the database has not.
 * What none of them knows is no sign of a database that is behind: such a head is answered by its
 * order.
 */
static struct err judge_behind(struct cp_leader *l, struct cp_head_judged *judged)
{
    bool is_sealed = false;
    if (judged->verdict != CP_HEAD_BEHIND || is_known_elsewhere(l, judged)) {
        return OK;
    }
    TRY(cp_bucket_has_sealed(&l->on_thread.bucket, judged->version_max, judged->digest,
                             kv_timeout_ms(), &is_sealed));
    if (!is_sealed) {
        LOG(LOG_WARN, "leader", "head_of_nothing", LOG_U64("version", judged->version_max),
            LOG_STR("text", "a head key of ours signed a head that names what nobody published"));
        judged->verdict = judged->order;
    }
    return OK;
}

static struct err read_and_judge(struct cp_leader *l, struct beat *b)
{
    l->on_thread.revision = 0;
    struct cp_head_judged judged = {.verdict = CP_HEAD_MISSING};
    buf_clear(&b->bytes);
    struct err e = kv_get(&l->on_thread.bucket.kv, SLICE_LIT(SNAP_KEY_HEAD), KV_READ_LEADER,
                          kv_timeout_ms(), &b->bytes, &b->found);
    if (e.code == E_UNAVAILABLE) {
        want_restore(l); /* there may be NATS without the bucket. */
    }
    TRY(e);
    note_answer(l);
    l->on_thread.looked_ns = l->on_thread.heard_ns;
    if (b->found.state == KV_VALUE) {
        cp_head_judge(&l->on_thread.root, buf_slice(&b->bytes), &l->on_thread.own, &judged);
    }
    TRY(judge_behind(l, &judged));
    if (judged.verdict != CP_HEAD_OURS) {
        l->on_thread.head_ns = 0;
    }
    return settle(l, &judged);
}

/* Signs the next head in the order; the body's digest is remembered as ours. */
static struct err sign(struct cp_leader *l, struct beat *b)
{
    struct cp_head_own *own = &l->on_thread.own;
    int64_t now_ms = clock_wall_ms();
    l->on_thread.signed_ns = clock_mono_ns();
    struct head head = {.root_version = l->on_thread.root.version,
                        .epoch = own->epoch,
                        .sequence = own->sequence + 1,
                        .signed_at_ms = now_ms,
                        .expires_at_ms = now_ms + (int64_t)limits.head_validity_ms,
                        .target_count = 1};
    head.targets[0].all = true;
    head.targets[0].version = b->record.version;
    (void)memcpy(head.targets[0].manifest_digest, b->record.manifest_digest, DIGEST_SIZE);
    auto_buf struct buf body = BUF_MAX(HEAD_BODY_MAX);
    TRY(head_encode(&head, &body));
    if (!is_young(l->on_thread.renewed_ns)) {
        return FAIL(E_NOT_LEADER);
    }
    struct cp_signer_request request = {.kind = CONTAINER_HEAD,
                                        .root_version = head.root_version,
                                        .epoch = head.epoch,
                                        .sequence = head.sequence,
                                        .body = buf_slice(&body)};
    struct container_signature signature;
    own->sequence = head.sequence; /* used up, whatever becomes of it. */
    TRY(cp_signer_sign(l->options.signer, &request, &signature));
    ids_digest(buf_slice(&body), own->digest);
    COUNT_HEAD(l, signed);
    buf_clear(&b->bytes);
    return container_seal(CONTAINER_HEAD, l->on_thread.root.environment_id, buf_slice(&body),
                          &signature, 1, &b->bytes);
}

/* Compare-and-set on the revision that was judged, or that our own last write had. An unanswered
 * write is read back next beat. */
static struct err put(struct cp_leader *l, struct beat *b)
{
    const struct kv *kv = &l->on_thread.bucket.kv;
    struct slice value = buf_slice(&b->bytes);
    struct slice key = SLICE_LIT(SNAP_KEY_HEAD);
    uint64_t revision = 0;
    struct err e = b->found.revision == 0
                       ? kv_create(kv, key, value, kv_timeout_ms(), &revision)
                       : kv_update(kv, key, value, b->found.revision, kv_timeout_ms(), &revision);
    l->on_thread.revision = err_ok(e) ? revision : 0;
    l->on_thread.heard_ns = err_ok(e) ? clock_mono_ns() : l->on_thread.heard_ns;
    if (e.code == E_CONFLICT) {
        COUNT_HEAD(l, conflict);
    } else if (e.code == E_RESULT_UNKNOWN) {
        COUNT_HEAD(l, unknown);
    } else if (err_ok(e)) {
        lock_take(&l->shared.lock);
        l->shared.status.counters.head_put++;
        l->shared.status.head_version = b->record.version;
        l->shared.status.sequence = l->on_thread.own.sequence;
        l->shared.status.head_at_ms = clock_wall_ms();
        lock_drop(&l->shared.lock);
    }
    return e;
}

/* The head itself, so that a node needs no read. A lost hint is what the poll is for. */
static void hint(struct cp_leader *l, const struct beat *b)
{
    struct bus_outgoing message = {.subject = subject_slice(&l->hint),
                                   .payload = buf_slice(&b->bytes)};
    struct err e = bus_publish(l->options.bus, &message);
    if (!err_ok(e)) {
        LOG(LOG_DEBUG, "leader", "hint_failed", LOG_ERR(e));
    }
}

static bool head_is_due(const struct cp_leader *l, const struct beat *b)
{
    return clock_mono_ns() >= l->on_thread.head_ns || b->record.version != l->on_thread.pointed_at;
}

/*
 * JetStream does not answer, NATS does: the head goes out as the hint alone, so that nodes stay
 * fresh. Nothing rests on what lies in KV; but what lay there was judged once in this epoch.
 */
static struct err hint_alone(struct cp_leader *l, struct beat *b)
{
    if (!err_ok(bus_ping(l->options.bus, kv_timeout_ms()))) {
        return FAIL(E_BUS_UNAVAILABLE);
    }
    l->on_thread.heard_ns = clock_mono_ns();
    if (kv_answers(&l->on_thread.bucket.kv, kv_timeout_ms())) {
        l->on_thread.kv_ns = clock_mono_ns(); /* that there is no bucket, it may be. */
    }
    if (l->on_thread.own.sequence == 0 || !head_is_due(l, b)) {
        return OK;
    }
    TRY(sign(l, b));
    l->on_thread.head_ns = l->on_thread.signed_ns + head_interval_ns();
    l->on_thread.pointed_at = b->record.version;
    COUNT_HEAD(l, hinted);
    hint(l, b);
    return OK;
}

static bool is_silence(struct err e)
{
    return e.code == E_UNAVAILABLE || e.code == E_RESULT_UNKNOWN;
}

/*
 * A publication's head is written on the revision of our own last one, without a look: whatever
 * came in between is a conflict, and is judged then. A look is never older than a renewal. Nothing
 * lower than what we pointed at is published: it is a database that went back, and is held against
 * the bucket.
 */
static struct err find_head(struct cp_leader *l, struct beat *b)
{
    bool published = b->record.version > l->on_thread.pointed_at;
    if (!published || l->on_thread.revision == 0 || !is_recent(l->on_thread.looked_ns)) {
        return read_and_judge(l, b);
    }
    b->found = (struct kv_entry){.state = KV_VALUE, .revision = l->on_thread.revision};
    return OK;
}

static struct err point_head(struct cp_leader *l, struct beat *b)
{
    struct err e = OK;
    for (int i = 0; i < RETRIES; i++) {
        TRY(find_head(l, b));
        if (!head_is_due(l, b)) {
            return OK;
        }
        TRY(sign(l, b));
        e = put(l, b);
        if (e.code != E_CONFLICT) {
            l->on_thread.head_ns = err_ok(e) ? l->on_thread.signed_ns + head_interval_ns() : 0;
            l->on_thread.pointed_at = err_ok(e) ? b->record.version : 0;
            hint(l, b);
            return e;
        }
    }
    return e;
}

/* The bucket is held against the journal at each beginning of a leadership and after each head that
 * was missing, until it holds what the head points at: it may be new, purged, or an old backup. */
static struct err check_content(struct cp_leader *l, const struct cp_record *record)
{
    if (l->on_thread.content_checked) {
        return OK;
    }
    bool there = false;
    struct err e = cp_bucket_has_manifest(&l->on_thread.bucket, record, &there);
    if (e.code == E_UNAVAILABLE || (err_ok(e) && !there)) {
        want_restore(l); /* E_UNAVAILABLE: there may be NATS without the bucket. */
    }
    TRY(e);
    l->on_thread.content_checked = there;
    return OK;
}

/* Without a signer that nodes believe nobody leads here, and another replica need not wait until
 * the row runs out. Who leads is read all the same. */
static struct err step_down(struct cp_leader *l, struct err why)
{
    struct cp_lease lease = {0};
    struct cp_store *store = l->on_thread.store;
    if (l->on_thread.renewed_ns != 0) {
        let_go(l);
    }
    if (err_ok(store->ops->lease_read(store, l->options.environment, &lease))) {
        lease.held = false;
        note_lease(l, &lease);
    }
    return why;
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
    return err_ok(e) ? OK : step_down(l, e);
}

static struct err raise_versions(struct cp_leader *l)
{
    struct cp_fence fence = fence_of(l, l->on_thread.lease_epoch);
    return cp_trust_raise(&l->on_thread.trust, l->on_thread.store, &fence);
}

/* Before a head names them. */
static struct err put_roots(struct cp_leader *l)
{
    struct err e = cp_trust_put(&l->on_thread.trust, &l->on_thread.bucket);
    if (e.code == E_UNAVAILABLE) {
        want_restore(l); /* there may be NATS without the bucket. */
    }
    return e;
}

/*
 * Heads of a thief who has a head key and sends them as hints alone lie nowhere; but nodes say
 * which head they accepted last. An order above ours is answered as a foreign head in KV: by the
 * next epoch. One epoch a beat, and only when it is near: a node's word alone must not use epochs
 * up.
 */
static struct err heed_nodes(struct cp_leader *l)
{
    const struct cp_head_own *own = &l->on_thread.own;
    struct cp_fleet_order said = heard(l);
    bool above =
        said.epoch > own->epoch || (said.epoch == own->epoch && said.sequence > own->sequence);
    if (!above || said.epoch > own->epoch + HEARD_AHEAD_MAX) {
        return OK;
    }
    COUNT_HEAD(l, foreign);
    LOG(LOG_WARN, "leader", "foreign_head_at_nodes", LOG_U64("epoch", said.epoch),
        LOG_U64("sequence", said.sequence));
    return renew(l, own->epoch);
}

static struct err read_newest(struct cp_leader *l, struct beat *b)
{
    struct err e =
        l->on_thread.store->ops->latest(l->on_thread.store, l->options.environment, &b->record);
    if (e.code == E_NOT_FOUND) {
        b->record = (struct cp_record){0};
    } else {
        TRY(e);
    }
    lock_take(&l->shared.lock);
    struct cp_leader_status *status = &l->shared.status;
    status->newest_version = b->record.version;
    (void)memcpy(status->newest_signers, b->record.signers, sizeof(status->newest_signers));
    lock_drop(&l->shared.lock);
    return OK;
}

/* A row that no threshold signed is pointed at by no head: nodes stay fresh on the one below it. */
static struct err judge_newest(struct cp_leader *l, struct beat *b)
{
    struct err e = cp_trust_newest(&l->on_thread.trust, l->on_thread.store, &b->record, &b->holds);
    b->refused = e.code == E_MANIFEST_UNSIGNED ? e : OK;
    return e.code == E_MANIFEST_UNSIGNED ? OK : e;
}

static struct err beat_in(struct cp_leader *l, struct beat *b)
{
    TRY(watch_trust(l)); /* without a signer that nodes believe, another may lead. */
    TRY(judge_deaf(l));
    struct err leads = hold(l);
    TRY(leads.code == E_NOT_LEADER ? OK : leads);
    TRY(read_newest(l, b)); /* a follower shows it, too. */
    TRY(leads);
    TRY(raise_versions(l));
    TRY(heed_nodes(l));
    l->on_thread.own.version_max = b->record.version; /* of the journal, whatever the row is. */
    TRY(judge_newest(l, b));
    l->on_thread.bus_asked = true;
    if (bus_state(l->options.bus) != BUS_CONNECTED) {
        return FAIL(E_BUS_UNAVAILABLE);
    }
    struct err e = put_roots(l);
    if (err_ok(e) && b->record.version == 0) {
        e = read_and_judge(l, b); /* nothing to point at; but the bucket may know more than us. */
    } else if (err_ok(e)) {
        e = check_content(l, &b->record);
        e = err_ok(e) ? point_head(l, b) : e;
    }
    if (is_silence(e)) {
        TRY(hint_alone(l, b));
    }
    TRY(e);
    if (!b->holds) { /* once heads go out. */
        l->options.republish(l->options.ctx);
    }
    return b->refused;
}

static void beat(struct cp_leader *l)
{
    struct beat b = {.holds = true, .bytes = BUF_MAX(FOUND_MAX)};
    _Static_assert(HEAD_CONTAINER_MAX < FOUND_MAX, "a head fits where it is read");
    l->on_thread.bus_asked = false;
    struct err e = beat_in(l, &b);
    leave_when_deaf(l);
    if (e.code == E_NOT_LEADER && l->options.follow != NULL) {
        l->options.follow(l->options.ctx);
    }
    if (e.code == E_UNAVAILABLE || e.code == E_BUS_UNAVAILABLE) {
        COUNT_HEAD(l, unreachable);
    }
    if (e.code == E_SIGNER_REFUSED) {
        COUNT_HEAD(l, refused);
    }
    note_state(l, e);
    buf_free(&b.bytes);
}

/* ---- the thread ---- */

/* Until the next renewal or head of a leader; until another's row may have run out. */
static uint64_t wait_ms(const struct cp_leader *l)
{
    uint64_t quarter = limits.lease_ms / RENEWALS;
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
    TRY(cp_bucket_bind(&l->on_thread.bucket, l->options.bus, l->options.environment,
                       l->options.roots));
    TRY(cp_store_await(l->options.store, &l->on_thread.store, message));
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
        let_go(leader);
    }
    cp_store_close(leader->on_thread.store);
    scope_close(&leader->wake_fd);
    lock_free(&leader->shared.lock);
    free(leader);
}

/* ---- from other threads ---- */

struct err cp_leader_fence(struct cp_leader *leader, struct cp_fence *out)
{
    lock_take(&leader->shared.lock);
    bool leads = leader->shared.status.leads && is_young(leader->shared.renewed_ns);
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
    bool young = is_young(leader->shared.renewed_ns);
    lock_drop(&leader->shared.lock);
    if (out->leads && !young) { /* the thread hangs, or the process was stopped. */
        out->leads = false;
        out->code = out->code == E_OK ? E_NOT_LEADER : out->code;
    }
}
