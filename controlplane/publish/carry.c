/* carry: see carry.h; and what a passage does with it. */
#include "controlplane/publish/carry.h"

#include <inttypes.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "controlplane/identity/vouch.h"
#include "controlplane/publish/passage.h"
#include "controlplane/publish/rollback.h"

_Static_assert((int)CP_VOUCH_KEY_SIZE == (int)CP_WARRANT_KEY_SIZE, "one key for both");

/* ---- what there is ---- */

/* What is at hand was published under this digest, by this process: it is not read again. */
static bool is_at_hand(struct cp_publish_room *room, const struct cp_record *sealed, int64_t now_ms,
                       struct cp_removals *out, struct err *result)
{
    struct cp_prepared *found = cp_shelf_published(room->shelf, sealed->manifest_digest);
    if (found == NULL) {
        return false;
    }
    *result = cp_removals_add_compiled(out, found->compiled, now_ms);
    cp_prepared_unref(found);
    return true;
}

struct err cp_carry_published(struct cp_publish_room *room, const struct cp_record *newest,
                              int64_t now_ms, struct cp_removals *out, uint64_t *out_version)
{
    const struct cp_sealed_place place = {room->roots, room->store, room->environment};
    auto_manifest struct manifest manifest = {0};
    struct cp_record sealed;
    *out_version = 0;
    if (newest->version == 0) {
        return OK;
    }
    struct err e = cp_sealed_until(&place, newest->version, &sealed, &manifest);
    TRY(e.code == E_NOT_FOUND ? FAIL(E_MANIFEST_UNSIGNED) : e); /* what it was nobody can tell. */
    *out_version = sealed.version;
    if (is_at_hand(room, &sealed, now_ms, out, &e) ||
        manifest_stream(&manifest, STREAM_REVOCATIONS) == NULL) {
        return e;
    }
    auto_buf struct buf raw = BUF_MAX(STREAM_RAW_MAX);
    TRY(cp_rollback_revoked(&place, sealed.version, &raw));
    return cp_removals_add_stream(out, buf_slice(&raw), now_ms);
}

struct looking {
    const struct cp_publish_room *room;
    struct cp_removals *out;
    struct cp_carry_when when;
};

static struct err add_removed(void *ctx, const struct cp_certificate *certificate)
{
    struct looking *l = ctx;
    const struct cp_publish_room *room = l->room;
    if (certificate->removed_ms > l->when.removed_until_ms) {
        return OK;
    }
    if (!cp_vouched_removed(room->warrant_key->bytes, room->environment, certificate)) {
        LOG(LOG_WARN, "publish", "removal_unvouched", LOG_STR("node", certificate->node),
            LOG_STR("serial", certificate->serial));
        return OK;
    }
    return cp_removals_add(l->out, slice_str(certificate->serial), certificate->not_after_ms,
                           l->when.now_ms);
}

struct err cp_carry_removed_until(struct cp_publish_room *room, const struct cp_carry_when *when,
                                  struct cp_removals *out)
{
    struct looking l = {.room = room, .out = out, .when = *when};
    return room->store->ops->certificates_removed(room->store, room->environment, add_removed, &l);
}

struct err cp_carry_removed(struct cp_publish_room *room, int64_t now_ms, struct cp_removals *out)
{
    const struct cp_carry_when all = {.now_ms = now_ms, .removed_until_ms = INT64_MAX};
    return cp_carry_removed_until(room, &all, out);
}

static struct err take_published(struct cp_passage *p, int64_t now_ms, struct cp_removals *out,
                                 uint64_t *out_version)
{
    const uint64_t newest = p->work->before.version;
    struct err e = cp_carry_published(p->room, &p->work->before, now_ms, out, out_version);
    if (e.code == E_MANIFEST_UNSIGNED) {
        TRY(buf_addf(&p->work->sentence,
                     "no version of the journal up to %" PRIu64 " is what a threshold of keys "
                     "signed: which nodes were removed nobody can tell",
                     newest));
    }
    return e;
}

/* ---- a publication of ours ---- */

struct err cp_passage_take_others(void *ctx, const struct cp_store_file *file)
{
    return slice_eq(file->name, CP_REMOVALS_FILE) ? OK : cp_passage_take_file(ctx, file);
}

/* What was planned has what there was to carry then. */
static struct err judge_plan(struct cp_passage *p, struct slice text)
{
    const struct cp_source_file *file = cp_source_set_find(&p->prepared->sources, CP_REMOVALS_FILE);
    if (slice_eq(file == NULL ? (struct slice){0} : file->bytes, text)) {
        return OK;
    }
    TRY(buf_add_str(&p->work->sentence, "a node was removed since it was planned"));
    return FAIL(E_PLAN_GONE);
}

/* A row can be lost, or damaged, since it was judged: a head of ours named what it was. */
static struct err judge_lost(struct cp_passage *p, uint64_t sealed)
{
    struct cp_leader_status status;
    cp_leader_status(p->room->leader, &status);
    return sealed < status.named_version && !p->work->recovers ? FAIL(E_STORE_BEHIND) : OK;
}

struct err cp_passage_carry(struct cp_passage *p)
{
    const int64_t now_ms = clock_wall_ms();
    uint64_t sealed = 0;
    auto_buf struct buf text = BUF_MAX(limits.source_file_bytes);
    TRY(take_published(p, now_ms, &p->removals, &sealed));
    TRY(judge_lost(p, sealed));
    TRY(cp_carry_removed(p->room, now_ms, &p->removals));
    TRY(cp_removals_print(&p->removals, &text));
    if (p->work->has_plan) {
        return judge_plan(p, buf_slice(&text));
    }
    if (cp_source_set_find(&p->work->sources, CP_REMOVALS_FILE) != NULL) {
        TRY(buf_addf(&p->work->sentence,
                     "%.*s: the control plane writes this file; take it out of the sources",
                     SLICE_ARG(CP_REMOVALS_FILE)));
        return FAIL(E_SOURCE_INVALID);
    }
    return p->removals.count == 0
               ? OK
               : cp_source_set_add(&p->work->sources, CP_REMOVALS_FILE, buf_slice(&text));
}

/* ---- a proposal ---- */

static struct err take_carried(void *ctx, const struct cp_store_file *file)
{
    return slice_eq(file->name, CP_REMOVALS_FILE) ? cp_passage_take_file(ctx, file) : OK;
}

/* Whoever leads adds; what is in force he does not take out, rollbacks with trust included. What is
 * about to end is left to his clock. */
static struct err judge_carried(struct cp_passage *p)
{
    auto_removals struct cp_removals wanted = {.items = NULL};
    const int64_t soon_ms = clock_wall_ms() + (int64_t)limits.clock_tolerance_ms;
    uint64_t sealed = 0;
    TRY(take_published(p, soon_ms, &wanted, &sealed));
    if (cp_removals_has_all(&p->removals, &wanted)) {
        return OK;
    }
    TRY(buf_add_str(&p->work->sentence, "it lifts what was revoked of nodes that were removed"));
    return FAIL(E_COSIGN_REFUSED);
}

struct err cp_passage_take_carried(struct cp_passage *p)
{
    struct cp_store *store = p->room->store;
    if (p->proposal.origin != 0) {
        TRY(store->ops->sources_get(store, p->room->environment, p->proposal.version, take_carried,
                                    &p->work->sources));
    }
    const struct cp_source_file *file = cp_source_set_find(&p->work->sources, CP_REMOVALS_FILE);
    struct err e = file == NULL ? OK : cp_removals_parse(file->bytes, &p->removals);
    if (e.code == E_MALFORMED) {
        TRY(buf_addf(&p->work->sentence, "%.*s is not as a replica writes it",
                     SLICE_ARG(CP_REMOVALS_FILE)));
        return FAIL(E_COSIGN_REFUSED);
    }
    TRY(e);
    return judge_carried(p);
}
