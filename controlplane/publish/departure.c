/* departure: see departure.h. */
#include "controlplane/publish/departure.h"

#include <stdio.h>
#include <string.h>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "controlplane/publish/carry.h"

/* Whether the newest publication has it all; nothing that could have it counts as such. */
static struct err find_said(struct cp_publish_room *room, struct cp_record *newest, bool *out)
{
    auto_removals struct cp_removals said = {.items = NULL};
    auto_removals struct cp_removals removed = {.items = NULL};
    const int64_t now_ms = clock_wall_ms();
    struct err e = room->store->ops->latest(room->store, room->environment, newest);
    if (e.code == E_NOT_FOUND) {
        *newest = (struct cp_record){.version = 0};
        e = OK;
    }
    TRY(e);
    TRY(cp_carry_published(room, newest, now_ms, &said));
    TRY(cp_carry_removed(room, now_ms, &removed));
    *out = newest->version == 0 || cp_removals_has_all(&said, &removed);
    return OK;
}

static void keep_audit(struct cp_publish_room *room, const char *node, const struct cp_work *work)
{
    struct cp_audit entry = {.action = "publish-removal"};
    (void)snprintf(entry.actor, sizeof(entry.actor), "%s", work->author);
    (void)snprintf(entry.object, sizeof(entry.object), "%.63s version %llu", node,
                   (unsigned long long)work->record.version);
    (void)snprintf(entry.outcome, sizeof(entry.outcome), "%s", err_name(work->result.code));
    struct err e = room->store->ops->audit_add(room->store, room->environment, &entry);
    if (!err_ok(e)) {
        LOG(LOG_ERROR, "publish", "audit_lost", LOG_ERR(e), LOG_STR("action", entry.action));
    }
}

void cp_departure_run(struct cp_publish_room *room, const char *node, struct cp_work *work)
{
    struct cp_record newest;
    bool said = false;
    work->step = "removal";
    work->result = find_said(room, &newest, &said);
    if (!err_ok(work->result)) {
        return;
    }
    if (said) {
        work->record = newest;
        work->is_unchanged = true;
        return;
    }
    work->target = newest.version;
    work->has_base = true; /* whoever published meanwhile carries it. */
    work->base = newest.version;
    (void)snprintf(work->message, sizeof(work->message),
                   "identity remove %.63s: the content of %llu", node,
                   (unsigned long long)newest.version);
    cp_publish_run(room, work);
    keep_audit(room, node, work);
}
