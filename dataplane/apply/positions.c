/*
 * positions: where rules and resources stand in the sources of what is served, for explaining.
 *
 * Nothing that decides reads them, so they are fetched when somebody first asks, and then once a
 * version: the manifest again, and the chunks of that one stream, one a turn of the thread, between
 * which a head goes first. What was fetched stands until another version is served.
 */
#include <stdio.h>
#include <string.h>

#include "common/base/scope.h"
#include "common/proto/strict.h"
#include "dataplane/apply/apply_impl.h"

#include "trilane/parts/v1/parts.pb-c.h"

/* ---- the apply thread ---- */

static struct err open_manifest(struct dp_apply *a, const struct snap_set *served,
                                struct manifest *out)
{
    char key[SNAP_KEY_SIZE];
    const struct manifest_wanted wanted = {
        .version = snap_set_version(served),
        .digest = snap_set_manifest_digest(served),
    };
    auto_buf struct buf bytes = BUF_MAX(CONTAINER_HEADER_SIZE + MANIFEST_BODY_MAX +
                                        CONTAINER_SIGNATURES_MAX * CONTAINER_SIGNATURE_SIZE);
    snap_key_manifest(wanted.version, wanted.digest, key);
    TRY(dp_feed_get(&a->feed, key, &bytes));
    return manifest_open(buf_slice(&bytes), &a->judge.root, &wanted, out);
}

static struct err begin(struct dp_apply *a)
{
    struct manifest manifest = {0};
    TRY(open_manifest(a, dp_model_set(a->model), &manifest));
    struct err e = snap_set_new_positions(&manifest, /* previous= */ NULL, &a->positions);
    manifest_free(&manifest);
    a->positions_at = 0;
    return e;
}

static struct err add_chunk(struct dp_apply *a, const struct snap_missing *missing)
{
    char key[SNAP_KEY_SIZE];
    auto_buf struct buf stored = BUF_MAX(CHUNK_RAW_MAX);
    snap_key_chunk(missing->name.digest, key);
    TRY(dp_feed_get(&a->feed, key, &stored));
    return snap_set_add(a->positions, &missing->name, buf_slice(&stored));
}

/* One piece of the work; *out_done is true behind the last. */
static struct err go_on(struct dp_apply *a, bool *out_done)
{
    struct snap_missing missing;
    if (a->model == NULL || !dp_feed_connected(&a->feed)) {
        return FAIL(E_UNAVAILABLE);
    }
    if (a->positions == NULL) {
        return begin(a);
    }
    if (snap_set_missing(a->positions, &a->positions_at, &missing)) {
        return add_chunk(a, &missing);
    }
    *out_done = true;
    return snap_set_close(a->positions);
}

/* What was fetched, or why nothing was, is there to be asked for. */
static void publish(struct dp_apply *a, struct err why)
{
    struct snap_set *fetched = TAKE_PTR(a->positions);
    lock_take(&a->shared.lock);
    struct snap_set *before = a->shared.positions;
    a->shared.positions = err_ok(why) ? fetched : NULL;
    a->shared.positions_why = why;
    a->shared.positions_wanted = false;
    lock_drop(&a->shared.lock);
    snap_set_unref(before);
    if (!err_ok(why)) {
        snap_set_unref(fetched);
    }
}

/* Of another version than the one served, they are of no use. */
static void drop_past(struct dp_apply *a)
{
    uint64_t version = a->model == NULL ? 0 : dp_model_version(a->model);
    struct snap_set *past = NULL;
    if (a->positions != NULL && snap_set_version(a->positions) != version) {
        snap_set_unref(TAKE_PTR(a->positions));
    }
    lock_take(&a->shared.lock);
    if (a->shared.positions != NULL && snap_set_version(a->shared.positions) != version) {
        past = TAKE_PTR(a->shared.positions);
    }
    lock_drop(&a->shared.lock);
    snap_set_unref(past);
}

bool dp_positions_go_on(struct dp_apply *a)
{
    drop_past(a);
    lock_take(&a->shared.lock);
    bool wanted = a->shared.positions_wanted;
    lock_drop(&a->shared.lock);
    if (!wanted) {
        return false;
    }
    bool done = false;
    struct err e = go_on(a, &done);
    if (done || !err_ok(e)) {
        publish(a, e);
        return false;
    }
    return true;
}

void dp_positions_free(struct dp_apply *a)
{
    snap_set_unref(TAKE_PTR(a->positions));
    lock_take(&a->shared.lock);
    struct snap_set *fetched = TAKE_PTR(a->shared.positions);
    lock_drop(&a->shared.lock);
    snap_set_unref(fetched);
}

/* ---- any thread ---- */

static bool decode(struct slice bytes, struct dp_position *out)
{
    auto_proto ProtobufCMessage *message = NULL;
    if (!err_ok(part_decode(&trilane__parts__v1__position__descriptor, bytes, &message))) {
        return false;
    }
    const Trilane__Parts__V1__Position *position = (const void *)message;
    (void)snprintf(out->file, sizeof(out->file), "%s", position->file);
    out->line = position->line;
    out->column = position->column;
    return true;
}

static void look_up(const struct snap_set *set, struct slice key, struct dp_position *out)
{
    struct snap_part part;
    bool found = snap_set_find(set, STREAM_POSITIONS, key, &part) && decode(part.bytes, out);
    out->state = found ? DP_POSITION_FOUND : DP_POSITION_UNKNOWN;
}

void dp_apply_position(struct dp_apply *apply, uint64_t version, struct slice key,
                       struct dp_position *out)
{
    struct snap_set *set = NULL;
    *out = (struct dp_position){.state = DP_POSITION_PAST};
    lock_take(&apply->shared.lock);
    bool served = apply->shared.model != NULL && dp_model_version(apply->shared.model) == version;
    bool has =
        apply->shared.positions != NULL && snap_set_version(apply->shared.positions) == version;
    if (served && has) {
        set = snap_set_ref(apply->shared.positions);
    } else if (served && !err_ok(apply->shared.positions_why)) {
        *out = (struct dp_position){.state = DP_POSITION_FAILED,
                                    .code = apply->shared.positions_why.code};
        apply->shared.positions_why = OK; /* whoever asks again has it tried again. */
    } else if (served) {
        out->state = DP_POSITION_ASKED;
        apply->shared.positions_wanted = true;
    }
    lock_drop(&apply->shared.lock);
    if (set != NULL) {
        look_up(set, key, out);
        snap_set_unref(set);
    } else if (out->state == DP_POSITION_ASKED) {
        dp_apply_wake(apply);
    }
}
