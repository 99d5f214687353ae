/*
 * hand: the disk goes over to the process that comes after this one, or comes back.
 *
 * A node that handed its disk over serves on until its callers have left, and follows the heads, so
 * that what is revoked meanwhile is refused here, too. It writes nothing, says nothing of itself
 * and takes no new root: all that is the other one's.
 */
#include <fcntl.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/scope.h"
#include "dataplane/apply/apply_impl.h"

/* ---- the apply thread ---- */

/* The other process may have raised what is on disk; here the order may have gone on. */
static void merge(struct judge *judge, const struct judge *before)
{
    bool newer = before->epoch > judge->epoch ||
                 (before->epoch == judge->epoch && before->sequence > judge->sequence);
    if (before->has_order && (newer || !judge->has_order)) {
        judge->has_order = true;
        judge->has_head = before->has_head;
        judge->epoch = before->epoch;
        judge->sequence = before->sequence;
        memcpy(judge->head_digest, before->head_digest, DIGEST_SIZE);
    }
    if (before->version > judge->version) {
        judge->version = before->version;
        judge->has_digest = before->has_digest;
        memcpy(judge->digest, before->digest, DIGEST_SIZE);
    }
}

static struct err take_back(struct dp_apply *a)
{
    struct disk *disk = NULL;
    const struct judge before = a->judge;
    auto_close int lock = fcntl(disk_lock_fd(a->disk), F_DUPFD_CLOEXEC, 0);
    if (lock < 0) {
        return FAIL(E_IO);
    }
    TRY(dp_apply_open_disk(a, lock, &disk));
    disk_close(a->disk);
    a->disk = disk;
    disk_judge(a->disk, &a->judge);
    merge(&a->judge, &before);
    if (a->has_accepted && a->judge.root.version != before.root.version) {
        head_free(&a->accepted.head); /* the next one stands on the root in force. */
        a->has_accepted = false;
        a->retry_ns = 0;
    }
    a->handed = false;
    /* The other process may have asked for shares: this one follows it as if it had just begun. */
    uint64_t now_ms = clock_wall_ms() > 0 ? (uint64_t)clock_wall_ms() : 1;
    a->share.order.run = now_ms > a->share.order.run ? now_ms : a->share.order.run + 1;
    return OK;
}

void dp_hand_look(struct dp_apply *a)
{
    lock_take(&a->shared.lock);
    enum dp_hand wanted = a->shared.hand;
    a->shared.hand = DP_HAND_NOTHING;
    lock_drop(&a->shared.lock);
    if (wanted == DP_HAND_NOTHING) {
        return;
    }
    struct err e = OK;
    if (wanted == DP_HAND_OVER) {
        a->handed = true;
    } else {
        e = take_back(a);
    }
    LOG(err_ok(e) ? LOG_INFO : LOG_ERROR, "apply",
        wanted == DP_HAND_OVER ? "disk-handed-over" : "disk-taken-back", LOG_ERR(e));
    CHECK(sem_post(&a->settled) == 0);
}

/* ---- whoever hands over ---- */

static void settle(struct dp_apply *apply, enum dp_hand wanted)
{
    lock_take(&apply->shared.lock);
    apply->shared.hand = wanted;
    lock_drop(&apply->shared.lock);
    dp_apply_wake(apply);
    while (sem_wait(&apply->settled) != 0) { /* ends: the thread comes round. */
    }
}

int dp_apply_hand(struct dp_apply *apply)
{
    settle(apply, DP_HAND_OVER);
    return disk_lock_fd(apply->disk); /* at rest: only dp_apply_take_back() changes it. */
}

void dp_apply_take_back(struct dp_apply *apply)
{
    settle(apply, DP_HAND_BACK);
}
