/* departure: see departure.h. */
#include "controlplane/publish/departure.h"

#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/limits.h"
#include "common/base/log.h"
#include "controlplane/publish/carry.h"

enum {
    RESTS = 32, /* the longest rest behind failures, in first ones. */
    NODE_CHARS = 63,
};

/* ---- what is missing ---- */

/* What the newest publication does not say yet. */
struct missing {
    struct cp_record newest; /* version 0: none. */
    bool any;
};

static struct err find_missing(struct cp_publish_room *room, const struct cp_carry_when *when,
                               struct missing *out)
{
    auto_removals struct cp_removals said = {.items = NULL};
    auto_removals struct cp_removals removed = {.items = NULL};
    *out = (struct missing){.any = false};
    TRY(cp_carry_removed_until(room, when, &removed));
    struct err e = room->store->ops->latest(room->store, room->environment, &out->newest);
    if (e.code == E_NOT_FOUND) {
        out->newest = (struct cp_record){.version = 0};
        e = OK;
    }
    TRY(e);
    if (out->newest.version == 0 || removed.count == 0) {
        return OK; /* nothing that could have it. */
    }
    uint64_t sealed = 0;
    TRY(cp_carry_published(room, &out->newest, when->now_ms, &said, &sealed));
    out->any = !cp_removals_has_all(&said, &removed);
    return OK;
}

/* ---- publishing it ---- */

static void keep_audit(struct cp_publish_room *room, const char *node, const struct cp_work *work)
{
    struct cp_audit entry = {.action = "publish-removal"};
    (void)snprintf(entry.actor, sizeof(entry.actor), "%s", work->author);
    (void)snprintf(entry.object, sizeof(entry.object), "%.*s version %llu", NODE_CHARS, node,
                   (unsigned long long)work->record.version);
    (void)snprintf(entry.outcome, sizeof(entry.outcome), "%s", err_name(work->result.code));
    struct err e = room->store->ops->audit_add(room->store, room->environment, &entry);
    if (!err_ok(e)) {
        LOG(LOG_ERROR, "publish", "audit_lost", LOG_ERR(e), LOG_STR("action", entry.action));
    }
}

static void publish_over(struct cp_publish_room *room, const struct cp_record *newest,
                         struct cp_work *work)
{
    work->target = newest->version;
    work->has_base = true; /* whoever published meanwhile carries it. */
    work->base = newest->version;
    cp_publish_run(room, work);
}

void cp_departure_run(struct cp_publish_room *room, const char *node, struct cp_work *work)
{
    const struct cp_carry_when all = {.now_ms = clock_wall_ms(), .removed_until_ms = INT64_MAX};
    struct missing missing;
    work->step = "removal";
    work->result = find_missing(room, &all, &missing);
    if (!err_ok(work->result)) {
        return;
    }
    if (!missing.any) {
        work->record = missing.newest;
        work->is_unchanged = true;
        return;
    }
    (void)snprintf(work->message, sizeof(work->message),
                   "identity remove %.*s: the content of %llu", NODE_CHARS, node,
                   (unsigned long long)missing.newest.version);
    publish_over(room, &missing.newest, work);
    keep_audit(room, node, work);
}

/* ---- what nobody published ---- */

/* A failure is logged, and leaves no line in the audit: there may be many. */
static struct err publish_missing(struct cp_publish_room *room, const struct cp_record *newest)
{
    struct cp_work work;
    cp_work_init(&work, CP_WORK_ROLLBACK);
    (void)snprintf(work.author, sizeof(work.author), "trilane-cp");
    (void)snprintf(work.message, sizeof(work.message),
                   "removals that were not published: the content of %llu",
                   (unsigned long long)newest->version);
    publish_over(room, newest, &work);
    cp_publish_explain(room, &work);
    struct err e = work.result;
    if (err_ok(e)) {
        keep_audit(room, "unpublished", &work);
    } else {
        LOG(LOG_WARN, "publish", "removal_unpublished", LOG_ERR(e),
            LOG_SLICE("text", buf_slice(&work.sentence)), LOG_STR("fix", err_fix(e.code)));
    }
    cp_work_free(&work);
    return e;
}

static struct err look(struct cp_publish_room *room)
{
    const int64_t now_ms = clock_wall_ms();
    const struct cp_carry_when when = {
        .now_ms = now_ms, .removed_until_ms = now_ms - (int64_t)limits.removal_retry_ms};
    struct missing missing;
    TRY(find_missing(room, &when, &missing));
    return missing.any ? publish_missing(room, &missing.newest) : OK;
}

/* Twice as long behind each failure: each takes a number, and holds up whatever waits. */
static uint64_t rest_behind(struct err e, uint64_t rest_ms)
{
    const uint64_t first_ms = limits.removal_retry_ms;
    if (err_ok(e) || rest_ms == 0) {
        return first_ms;
    }
    return rest_ms < RESTS * first_ms ? 2 * rest_ms : rest_ms;
}

uint64_t cp_departures_turn(struct cp_departures *d, struct cp_publish_room *room)
{
    uint64_t now_ns = clock_mono_ns();
    if (now_ns < d->due_ns) {
        return (d->due_ns - now_ns) / 1000000 + 1;
    }
    struct cp_fence fence;
    bool leads = err_ok(cp_leader_fence(room->leader, &fence));
    d->rest_ms = rest_behind(leads ? look(room) : OK, d->rest_ms);
    d->due_ns = clock_mono_ns() + d->rest_ms * 1000000;
    return d->rest_ms;
}
