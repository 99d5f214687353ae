/*
 * The judgement of a head. judge_head() is the table of docs/formats.md, top to bottom: each line
 * of it is one check, and only this function decides what comes next.
 */
#include "common/snapshot/judge.h"

#include <string.h>

#include "common/base/check.h"
#include "common/snapshot/container.h"

/* What the checks hand on to each other. */
struct bench {
    const struct judge *j;
    const struct judge_now *now;
    struct container container;
    struct container_signers signers;
    struct judged *out;
};

static void refuse(struct judged *out, struct err e)
{
    CHECK(!err_ok(e));
    head_free(&out->head);
    out->verdict = JUDGE_REFUSED;
    out->err = e;
}

/* A key id that the root in force does not know may be one of the next root. */
static struct err check_signature(struct bench *b, bool *out_want_root)
{
    struct err e = container_verify(&b->container, &b->j->root.ring, KEY_ROLE_HEAD, &b->signers);
    *out_want_root = !err_ok(e) && b->signers.unknown && !b->now->root_asked;
    return e;
}

static struct err check_root_version(const struct bench *b, bool *out_want_root)
{
    bool behind = b->out->head.root_version > b->j->root.version;
    *out_want_root = behind && !b->now->root_asked;
    return behind ? FAIL(E_ROOT_MISSING) : OK;
}

static struct err check_order(const struct bench *b, bool *out_same)
{
    const struct judge *j = b->j;
    const struct head *h = &b->out->head;
    *out_same = false;
    bool above = h->epoch > j->epoch || (h->epoch == j->epoch && h->sequence > j->sequence);
    if (!j->has_order || above) {
        return OK;
    }
    if (!j->has_head || h->epoch != j->epoch || h->sequence != j->sequence) {
        return FAIL(E_HEAD_REPLAYED);
    }
    *out_same = memcmp(b->out->digest, j->head_digest, DIGEST_SIZE) == 0;
    return *out_same ? OK : FAIL(E_HEAD_EQUIVOCATION);
}

/* Epochs are not to be used up: a leaked head key must not lock the true leader out for good. */
static struct err check_epoch(const struct bench *b)
{
    bool jump = b->j->has_order && b->out->head.epoch - b->j->epoch > HEAD_EPOCH_JUMP;
    return jump ? FAIL(E_EPOCH_JUMP) : OK;
}

static struct err check_time(const struct bench *b)
{
    const struct head *h = &b->out->head;
    int64_t wall = b->now->wall_ms;
    int64_t tolerance = b->now->tolerance_ms;
    int64_t key_end = b->signers.last->not_after_ms;
    if (wall - tolerance >= h->expires_at_ms) {
        return FAIL(E_HEAD_EXPIRED);
    }
    if (h->signed_at_ms - tolerance > wall || (key_end != 0 && wall - tolerance > key_end)) {
        return FAIL(E_CLOCK_SKEW);
    }
    return OK;
}

void judge_head(const struct judge *j, struct slice bytes, const struct judge_now *now,
                struct judged *out)
{
    *out = (struct judged){.verdict = JUDGE_REFUSED};
    struct bench b = {.j = j, .now = now, .out = out};
    bool want_root = false;
    bool same = false;
    struct err e = container_read(bytes, CONTAINER_HEAD, j->root.environment_id, &b.container);
    if (err_ok(e)) {
        e = check_signature(&b, &want_root);
    }
    if (err_ok(e)) {
        container_body_digest(&b.container, out->digest);
        e = head_decode(b.container.body, &out->head);
    }
    if (err_ok(e)) {
        e = check_root_version(&b, &want_root);
    }
    if (err_ok(e)) {
        e = check_order(&b, &same);
    }
    if (err_ok(e) && !same) {
        e = check_epoch(&b);
    }
    if (err_ok(e) && !same) {
        e = check_time(&b);
    }
    if (!err_ok(e)) {
        refuse(out, e);
        out->verdict = want_root ? JUDGE_WANT_ROOT : JUDGE_REFUSED;
        return;
    }
    out->verdict = same ? JUDGE_SAME : JUDGE_NEWS;
}

void judge_accept(struct judge *j, const struct judged *judged)
{
    CHECK(judged->verdict == JUDGE_NEWS);
    j->has_order = true;
    j->has_head = true;
    j->epoch = judged->head.epoch;
    j->sequence = judged->head.sequence;
    memcpy(j->head_digest, judged->digest, DIGEST_SIZE);
}

void judge_walk(struct judge *j, const struct root_walk *walk)
{
    j->root = walk->at;
    if (!walk->has_floor) {
        return;
    }
    j->has_order = true;
    j->has_head = false;
    j->epoch = walk->floor.epoch;
    j->sequence = 0;
    memset(j->head_digest, 0, sizeof(j->head_digest));
    j->version = walk->floor.version;
    j->has_digest = false;
    memset(j->digest, 0, sizeof(j->digest));
    j->refused = (struct refused){0};
}

struct judge_step judge_target(const struct judge *j, const struct head *head,
                               const struct head_node *node)
{
    struct judge_step step = {.move = JUDGE_KEEP, .target = head_target(head, node)};
    if (step.target == NULL) {
        step.err = FAIL(E_NO_TARGET);
        return step;
    }
    if (step.target->version < j->version) {
        step.err = FAIL(E_SNAPSHOT_REPLAYED);
        return step;
    }
    bool is_floor = step.target->version == j->version && j->has_digest;
    bool same = memcmp(step.target->manifest_digest, j->digest, DIGEST_SIZE) == 0;
    if (is_floor && !same) {
        step.err = FAIL(E_SNAPSHOT_EQUIVOCATION);
        return step;
    }
    if (refused_has(&j->refused, step.target->manifest_digest)) {
        step.err = FAIL(E_CRASHED_NODE);
        return step;
    }
    step.move = is_floor ? JUDGE_SERVED : JUDGE_FETCH;
    return step;
}

void judge_raise(struct judge *j, uint64_t version, const uint8_t digest[DIGEST_SIZE])
{
    CHECK(version >= j->version);
    j->version = version;
    j->has_digest = true;
    memcpy(j->digest, digest, DIGEST_SIZE);
}
