/* point: the head in KV: what lies there is judged, the next one is signed, put and sent as the
 * hint. See leader.h. */
#include <string.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "common/base/scope.h"
#include "controlplane/publish/leader_impl.h"

enum {
    RETRIES = 3, /* of one beat, when another write came in between. */
    HEAD_CONTAINER_MAX = CONTAINER_HEADER_SIZE + CONTAINER_SIGNATURE_SIZE + HEAD_BODY_MAX,
};
_Static_assert((int)HEAD_CONTAINER_MAX < (int)CP_HEAD_FOUND_MAX, "a head fits where it is read");

/* ---- what lies there ---- */

void cp_leader_want_restore(struct cp_leader *l)
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
        CP_COUNT_HEAD(l, missing);
        l->on_thread.content_checked = false; /* a purge or a new bucket took more than the head. */
        return OK;
    case CP_HEAD_MALFORMED:
        CP_COUNT_HEAD(l, malformed);
        return written_over("malformed");
    case CP_HEAD_UNSIGNED:
        CP_COUNT_HEAD(l, unsigned);
        return written_over("unsigned");
    case CP_HEAD_LOWER:
        CP_COUNT_HEAD(l, lower);
        /* Below our first one lies the head of whoever led before. */
        if (l->on_thread.own.sequence == 0) {
            return OK;
        }
        l->on_thread.content_checked = false; /* an older bucket lacks what came behind. */
        return written_over("lower");
    case CP_HEAD_JUMP:
        CP_COUNT_HEAD(l, jump);
        return written_over("jump");
    case CP_HEAD_FOREIGN:
        CP_COUNT_HEAD(l, foreign);
        LOG(LOG_WARN, "leader", "foreign_head", LOG_U64("epoch", judged->epoch));
        return cp_leader_renew(l, judged->epoch);
    case CP_HEAD_BEHIND:
        if (!cp_leader_is_young(l->on_thread.renewed_ns)) {
            return FAIL(E_NOT_LEADER); /* it is what we read of the database that is old. */
        }
        if (l->on_thread.said != E_STORE_BEHIND) {
            LOG(LOG_ERROR, "leader", "store_behind",
                LOG_U64("bucket_version", judged->version_max));
        }
        return FAIL(E_STORE_BEHIND);
    case CP_HEAD_VERDICT_COUNT:
        break;
    }
    CHECK(false);
    return FAIL(E_IO);
}

struct cp_fleet_order cp_leader_heard(struct cp_leader *l, uint64_t epoch, uint64_t version)
{
    struct cp_fleet_order order = {0};
    const struct cp_fleet_order most = {.epoch = epoch, .version = version};
    if (l->options.heard != NULL) {
        l->options.heard(l->options.ctx, &most, &order);
    }
    return order;
}

/* Whether our signer, or a node that serves it, knows a version that the database does not. */
static bool is_known_elsewhere(struct cp_leader *l, const struct cp_head_judged *judged)
{
    uint64_t served = cp_leader_heard(l, l->on_thread.own.epoch, judged->version_max).version;
    return cp_signer_hello(l->options.signer).version >= judged->version_max ||
           served > l->on_thread.own.version_max;
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
                             cp_leader_kv_timeout_ms(), &is_sealed));
    if (!is_sealed) {
        LOG(LOG_WARN, "leader", "head_of_nothing", LOG_U64("version", judged->version_max),
            LOG_STR("text", "a head key of ours signed a head that names what nobody published"));
        judged->verdict = judged->order;
    }
    return OK;
}

struct err cp_leader_judge_head(struct cp_leader *l, struct cp_leader_beat *b)
{
    l->on_thread.revision = 0;
    struct cp_head_judged judged = {.verdict = CP_HEAD_MISSING};
    buf_clear(&b->bytes);
    struct err e = kv_get(&l->on_thread.bucket.kv, SLICE_LIT(SNAP_KEY_HEAD), KV_READ_LEADER,
                          cp_leader_kv_timeout_ms(), &b->bytes, &b->found);
    if (e.code == E_UNAVAILABLE) {
        cp_leader_want_restore(l); /* there may be NATS without the bucket. */
    }
    TRY(e);
    cp_leader_note_answer(l);
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

/* ---- the next one ---- */

static uint64_t head_interval_ns(void)
{
    return limits.head_interval_ms * 1000000;
}

/* Signs the next head in the order; the body's digest is remembered as ours. */
static struct err sign(struct cp_leader *l, struct cp_leader_beat *b)
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
    if (!cp_leader_is_young(l->on_thread.renewed_ns)) {
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
    CP_COUNT_HEAD(l, signed);
    buf_clear(&b->bytes);
    return container_seal(CONTAINER_HEAD, l->on_thread.root.environment_id, buf_slice(&body),
                          &signature, 1, &b->bytes);
}

/* Compare-and-set on the revision that was judged, or that our own last write had. An unanswered
 * write is read back next beat. */
static struct err put(struct cp_leader *l, struct cp_leader_beat *b)
{
    const struct kv *kv = &l->on_thread.bucket.kv;
    struct slice value = buf_slice(&b->bytes);
    struct slice key = SLICE_LIT(SNAP_KEY_HEAD);
    uint64_t revision = 0;
    struct err e =
        b->found.revision == 0
            ? kv_create(kv, key, value, cp_leader_kv_timeout_ms(), &revision)
            : kv_update(kv, key, value, b->found.revision, cp_leader_kv_timeout_ms(), &revision);
    l->on_thread.revision = err_ok(e) ? revision : 0;
    l->on_thread.heard_ns = err_ok(e) ? clock_mono_ns() : l->on_thread.heard_ns;
    if (e.code == E_CONFLICT) {
        CP_COUNT_HEAD(l, conflict);
    } else if (e.code == E_RESULT_UNKNOWN) {
        CP_COUNT_HEAD(l, unknown);
    } else if (err_ok(e)) {
        lock_take(&l->shared.lock);
        l->shared.status.counters.head_put++;
        l->shared.status.head_version = b->record.version;
        l->shared.status.named_version = b->record.version;
        l->shared.status.sequence = l->on_thread.own.sequence;
        l->shared.status.head_at_ms = clock_wall_ms();
        lock_drop(&l->shared.lock);
    }
    return e;
}

/* What goes beside the hint of a version, once; empty: nothing. */
static struct buf take_beside(struct cp_leader *l, uint64_t version)
{
    struct buf content = {0};
    lock_take(&l->shared.lock);
    if (l->shared.beside_version == version) {
        content = l->shared.beside;
        l->shared.beside = (struct buf){0};
        l->shared.beside_version = 0;
    }
    lock_drop(&l->shared.lock);
    return content;
}

static void send(struct cp_leader *l, const struct subject *subject, struct slice payload)
{
    struct bus_outgoing message = {.subject = subject_slice(subject), .payload = payload};
    struct err e = bus_publish(l->options.bus, &message);
    if (!err_ok(e)) {
        LOG(LOG_DEBUG, "leader", "not_sent", LOG_SLICE("subject", message.subject), LOG_ERR(e));
    }
}

/* The head itself, so that a node needs no read. A lost hint is what the poll is for. What the
 * version adds goes first: both reach a node with one packet, and the hint finds the other there.
 */
static void hint(struct cp_leader *l, const struct cp_leader_beat *b)
{
    auto_buf struct buf content = take_beside(l, b->record.version);
    if (content.size > 0) {
        send(l, &l->content, buf_slice(&content));
    }
    send(l, &l->hint, buf_slice(&b->bytes));
}

static bool head_is_due(const struct cp_leader *l, const struct cp_leader_beat *b)
{
    return clock_mono_ns() >= l->on_thread.head_ns || b->record.version != l->on_thread.pointed_at;
}

/*
 * JetStream does not answer, NATS does: the head goes out as the hint alone, so that nodes stay
 * fresh. Nothing rests on what lies in KV; but what lay there was judged once in this epoch.
 */
struct err cp_leader_hint_alone(struct cp_leader *l, struct cp_leader_beat *b)
{
    if (!err_ok(bus_ping(l->options.bus, cp_leader_kv_timeout_ms()))) {
        return FAIL(E_BUS_UNAVAILABLE);
    }
    l->on_thread.heard_ns = clock_mono_ns();
    if (kv_answers(&l->on_thread.bucket.kv, cp_leader_kv_timeout_ms())) {
        l->on_thread.kv_ns = clock_mono_ns(); /* that there is no bucket, it may be. */
    }
    if (l->on_thread.own.sequence == 0 || !head_is_due(l, b)) {
        return OK;
    }
    TRY(sign(l, b));
    l->on_thread.head_ns = l->on_thread.signed_ns + head_interval_ns();
    l->on_thread.pointed_at = b->record.version;
    CP_COUNT_HEAD(l, hinted);
    hint(l, b);
    return OK;
}

/*
 * A publication's head is written on the revision of our own last one, without a look: whatever
 * came in between is a conflict, and is judged then. A look is never older than a renewal. Nothing
 * lower than what we pointed at is published: it is a database that went back, and is held against
 * the bucket.
 */
static struct err find_head(struct cp_leader *l, struct cp_leader_beat *b)
{
    bool published = b->record.version > l->on_thread.pointed_at;
    if (!published || l->on_thread.revision == 0 || !cp_leader_is_recent(l->on_thread.looked_ns)) {
        return cp_leader_judge_head(l, b);
    }
    b->found = (struct kv_entry){.state = KV_VALUE, .revision = l->on_thread.revision};
    return OK;
}

struct err cp_leader_point_head(struct cp_leader *l, struct cp_leader_beat *b)
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
