/* trace: see trace.h. */
#include "dataplane/admin/trace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/check.h"
#include "common/base/err.h"
#include "dataplane/admin/admin.h"
#include "dataplane/apply/apply.h"
#include "dataplane/request/refusals.h"

enum { KEY_MAX = 256 };

static json_t *text(struct slice s)
{
    return json_stringn((const char *)(s.ptr == NULL ? (const uint8_t *)"" : s.ptr), s.size);
}

/* As in dump.c: a failure of jansson shows at the end. */
static void set(json_t *object, const char *name, json_t *value)
{
    (void)json_object_set_new(object, name, value);
}

/* ---- one entry ---- */

static json_t *when(int64_t wall_ms)
{
    char text[32] = "";
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm utc;
    if (gmtime_r(&seconds, &utc) == NULL ||
        strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &utc) == 0) {
        return json_null();
    }
    return json_sprintf("%s.%03dZ", text, (int)(wall_ms % 1000));
}

static json_t *entry_json(const struct dp_admin_config *c, const struct dp_refusal *e)
{
    char id[DP_REFUSAL_ID_SIZE + 1];
    json_t *o = json_object();
    dp_refusal_id_format(e->id, id);
    set(o, "id", json_string(id));
    set(o, "node", text(c->node));
    set(o, "time", when(e->time_ms));
    set(o, "code", json_string(err_name((enum err_code)e->code)));
    set(o, "text", json_string(err_text((enum err_code)e->code)));
    set(o, "fix", json_string(err_fix((enum err_code)e->code)));
    if (e->grpc_status >= 0) {
        set(o, "grpc", json_integer(e->grpc_status));
    }
    if (e->http_status > 0) {
        set(o, "http", json_integer(e->http_status));
    }
    for (size_t i = 0; i < DP_REFUSAL_TEXT_COUNT; i++) {
        struct slice value = dp_refusal_text(e, (enum dp_refusal_text)i);
        if (value.size > 0) {
            set(o, dp_refusal_text_name((enum dp_refusal_text)i), text(value));
        }
    }
    set(o, "version", json_integer((json_int_t)e->version));
    set(o, "us", json_integer(e->us));
    return o;
}

/* ---- what decided, and where it stands ---- */

/* The kind of resource that a target is: its id is "service/acme/orders". */
static const char *target_kind(struct slice target)
{
    static const char *const kinds[][2] = {
        {"service/", "Service/"}, {"topic/", "Topic/"}, {"egress/", "Egress/"}};
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (slice_starts(target, slice_str(kinds[i][0]))) {
            return kinds[i][1];
        }
    }
    return NULL;
}

/* Writes the key of the position of what decided: the rule, the limit, else what was asked for.
 * False: the snapshot decided nothing. */
static bool deciding_key(const struct dp_refusal *e, char out[KEY_MAX])
{
    struct slice rule = dp_refusal_text(e, DP_REFUSAL_RULE);
    struct slice limit = dp_refusal_text(e, DP_REFUSAL_LIMIT);
    struct slice target = dp_refusal_text(e, DP_REFUSAL_TARGET);
    const char *kind = target_kind(target);
    if (e->code == E_POLICY_DENIED && rule.size > 0) {
        (void)snprintf(out, KEY_MAX, "%.*s", SLICE_ARG(rule));
    } else if (e->code == E_RATE_LIMITED && limit.size > 0) {
        (void)snprintf(out, KEY_MAX, "RateLimit/%.*s", SLICE_ARG(limit));
    } else if (kind != NULL) {
        (void)snprintf(out, KEY_MAX, "%s%.*s", kind,
                       SLICE_ARG(slice_from(target, slice_find(target, '/') + 1)));
    } else {
        return false;
    }
    return true;
}

static json_t *position_json(const char *key, const struct dp_position *p)
{
    static const char *const states[] = {
        [DP_POSITION_FOUND] = "found",     [DP_POSITION_ASKED] = "asked",
        [DP_POSITION_UNKNOWN] = "unknown", [DP_POSITION_PAST] = "past",
        [DP_POSITION_FAILED] = "failed",
    };
    json_t *o = json_object();
    set(o, "of", json_string(key));
    set(o, "state", json_string(states[p->state]));
    if (p->state == DP_POSITION_FOUND) {
        set(o, "file", json_string(p->file));
        set(o, "line", json_integer(p->line));
        set(o, "column", json_integer(p->column));
    } else if (p->state == DP_POSITION_FAILED) {
        set(o, "code", json_string(err_name(p->code)));
    }
    return o;
}

/* ---- answers ---- */

json_t *dp_trace_one(const struct dp_admin_config *c, struct slice id, bool *out_found)
{
    uint64_t wanted = 0;
    struct dp_refusal entry;
    *out_found = false;
    bool named = dp_refusal_id_parse(id, &wanted);
    for (size_t i = 0; named && i < c->worker_count && !*out_found; i++) {
        *out_found = dp_refusals_find(c->worker_refusals(c->ctx, i), wanted, &entry);
    }
    if (!*out_found) {
        return NULL;
    }
    json_t *o = entry_json(c, &entry);
    char key[KEY_MAX];
    struct dp_position position;
    if (deciding_key(&entry, key)) {
        dp_apply_position(c->apply, entry.version, slice_str(key), &position);
        set(o, "position", position_json(key, &position));
    }
    return o;
}

static int by_time(const void *a, const void *b)
{
    const struct dp_refusal *x = a;
    const struct dp_refusal *y = b;
    return (x->boot_ms < y->boot_ms) - (x->boot_ms > y->boot_ms);
}

/* At most 'max' of each worker; returns how many. */
static size_t gather(const struct dp_admin_config *c, size_t max, struct dp_refusal *out)
{
    size_t count = 0;
    for (size_t i = 0; i < c->worker_count; i++) {
        const struct dp_refusals *ring = c->worker_refusals(c->ctx, i);
        for (size_t back = 0; back < max; back++) {
            count += dp_refusals_latest(ring, back, &out[count]) ? 1 : 0;
        }
    }
    return count;
}

json_t *dp_trace_latest(const struct dp_admin_config *c, size_t max)
{
    struct dp_refusal *entries = calloc(c->worker_count * max + 1, sizeof(*entries));
    if (entries == NULL) {
        return NULL;
    }
    size_t count = gather(c, max, entries);
    qsort(entries, count, sizeof(*entries), by_time);
    uint64_t total = 0;
    for (size_t i = 0; i < c->worker_count; i++) {
        total += dp_refusals_count(c->worker_refusals(c->ctx, i));
    }
    json_t *list = json_array();
    for (size_t i = 0; i < count && i < max; i++) {
        (void)json_array_append_new(list, entry_json(c, &entries[i]));
    }
    free(entries);
    json_t *o = json_object();
    set(o, "total", json_integer((json_int_t)total));
    set(o, "refusals", list);
    return o;
}
