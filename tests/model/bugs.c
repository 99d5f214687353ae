/* bugs: see bugs.h. */
#include "tests/model/bugs.h"

#include <string.h>

#include "common/snapshot/disk.h"
#include "common/snapshot/judge.h"
#include "common/snapshot/manifest.h"
#include "common/snapshot/set.h"
#include "controlplane/fleet/fleet.h"
#include "controlplane/publish/head.h"
#include "controlplane/publish/worker.h"
#include "dataplane/apply/feed.h"

static enum bug made;

void bugs_make(enum bug bug)
{
    made = bug;
}

bool bugs_is(enum bug bug)
{
    return made == bug;
}

const char *bugs_name(enum bug bug)
{
#define X(name, text, faults) #name,
    static const char *const names[BUG_COUNT] = {BUGS(X)};
#undef X
    return names[bug];
}

const char *bugs_faults(enum bug bug)
{
#define X(name, text, faults) faults,
    static const char *const names[BUG_COUNT] = {BUGS(X)};
#undef X
    return names[bug];
}

enum bug bugs_find(const char *name)
{
    for (int bug = 0; bug < BUG_COUNT; bug++) {
        if (strcmp(bugs_name((enum bug)bug), name) == 0) {
            return (enum bug)bug;
        }
    }
    return BUG_none;
}

const char *bugs_text(enum bug bug)
{
#define X(name, text, faults) text,
    static const char *const texts[BUG_COUNT] = {BUGS(X)};
#undef X
    return texts[bug];
}

/* ---- of nodes ---- */

void __real_judge_head(const struct judge *j, struct slice bytes, const struct judge_now *now,
                       struct judged *out);
void __wrap_judge_head(const struct judge *j, struct slice bytes, const struct judge_now *now,
                       struct judged *out);
void __wrap_judge_head(const struct judge *j, struct slice bytes, const struct judge_now *now,
                       struct judged *out)
{
    struct judge forgetful = *j;
    forgetful.has_order = false;
    __real_judge_head(bugs_is(BUG_head_order) ? &forgetful : j, bytes, now, out);
}

struct err __real_disk_commit(struct disk *d, const struct disk_apply *apply);
struct err __wrap_disk_commit(struct disk *d, const struct disk_apply *apply);
struct err __wrap_disk_commit(struct disk *d, const struct disk_apply *apply)
{
    return bugs_is(BUG_floor_unwritten) ? OK : __real_disk_commit(d, apply);
}

struct err __real_disk_walk(struct disk *d, const struct root_walk *walk,
                            const struct slice *containers);
struct err __wrap_disk_walk(struct disk *d, const struct root_walk *walk,
                            const struct slice *containers);
struct err __wrap_disk_walk(struct disk *d, const struct root_walk *walk,
                            const struct slice *containers)
{
    return bugs_is(BUG_root_unwritten) ? OK : __real_disk_walk(d, walk, containers);
}

struct err __real_manifest_open(struct slice bytes, const struct root *root,
                                const struct manifest_wanted *wanted, struct manifest *out);
struct err __wrap_manifest_open(struct slice bytes, const struct root *root,
                                const struct manifest_wanted *wanted, struct manifest *out);
struct err __wrap_manifest_open(struct slice bytes, const struct root *root,
                                const struct manifest_wanted *wanted, struct manifest *out)
{
    struct container c;
    struct err e = __real_manifest_open(bytes, root, wanted, out);
    if (bugs_is(BUG_manifest_unsigned) && e.code == E_MANIFEST_UNSIGNED) {
        TRY(container_read(bytes, CONTAINER_MANIFEST, root->environment_id, &c));
        return manifest_decode(c.body, out);
    }
    return e;
}

struct err __real_dp_feed_get_head(struct dp_feed *feed, struct buf *out);
struct err __wrap_dp_feed_get_head(struct dp_feed *feed, struct buf *out);
struct err __wrap_dp_feed_get_head(struct dp_feed *feed, struct buf *out)
{
    return bugs_is(BUG_no_poll) ? FAIL(E_UNAVAILABLE) : __real_dp_feed_get_head(feed, out);
}

bool __real_snap_set_diff(const struct snap_set *before, const struct snap_set *now, uint32_t kind,
                          struct snap_diff *at, struct snap_change *out);
bool __wrap_snap_set_diff(const struct snap_set *before, const struct snap_set *now, uint32_t kind,
                          struct snap_diff *at, struct snap_change *out);
bool __wrap_snap_set_diff(const struct snap_set *before, const struct snap_set *now, uint32_t kind,
                          struct snap_diff *at, struct snap_change *out)
{
    bool mixes = bugs_is(BUG_parts_mixed) && before != NULL && kind == STREAM_TRANSPORT;
    return !mixes && __real_snap_set_diff(before, now, kind, at, out);
}

/* ---- of replicas ---- */

void __real_cp_worker_restore(struct cp_worker *worker);
void __wrap_cp_worker_restore(struct cp_worker *worker);
void __wrap_cp_worker_restore(struct cp_worker *worker)
{
    if (!bugs_is(BUG_no_restore)) {
        __real_cp_worker_restore(worker);
    }
}

void __real_cp_fleet_order(struct cp_fleet *fleet, const struct cp_fleet_order *most,
                           struct cp_fleet_order *out);
void __wrap_cp_fleet_order(struct cp_fleet *fleet, const struct cp_fleet_order *most,
                           struct cp_fleet_order *out);
void __wrap_cp_fleet_order(struct cp_fleet *fleet, const struct cp_fleet_order *most,
                           struct cp_fleet_order *out)
{
    __real_cp_fleet_order(fleet, most, out);
    if (bugs_is(BUG_no_heed)) {
        *out = (struct cp_fleet_order){0};
    }
}

void __real_cp_head_judge(const struct root *root, struct slice bytes,
                          const struct cp_head_own *own, struct cp_head_judged *out);
void __wrap_cp_head_judge(const struct root *root, struct slice bytes,
                          const struct cp_head_own *own, struct cp_head_judged *out);
void __wrap_cp_head_judge(const struct root *root, struct slice bytes,
                          const struct cp_head_own *own, struct cp_head_judged *out)
{
    struct cp_head_own blind = *own;
    blind.version_max = UINT64_MAX;
    __real_cp_head_judge(root, bytes, bugs_is(BUG_behind_unseen) ? &blind : own, out);
}
