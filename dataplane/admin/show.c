/* show: see show.h. */
#include "dataplane/admin/show.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "dataplane/admin/ask.h"
#include "dataplane/request/refusals.h"

enum { ANSWER_MAX = 4 << 20, PATH_MAX_BYTES = 64, POSITION_TRIES = 100, POSITION_REST_MS = 50 };

static void free_json(json_t **value)
{
    json_decref(*value);
}

#define auto_json __attribute__((cleanup(free_json)))

bool dp_show_format_find(struct slice name, enum dp_show_format *out)
{
    static const char *const names[] = {
        [DP_SHOW_TABLE] = "table", [DP_SHOW_JSON] = "json", [DP_SHOW_YAML] = "yaml"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (slice_eq(name, slice_str(names[i]))) {
            *out = (enum dp_show_format)i;
            return true;
        }
    }
    return false;
}

/* ---- asking ---- */

static struct err ask(struct slice server, const struct dp_show_trace *asked, json_t **out)
{
    auto_buf struct buf path = BUF_MAX(PATH_MAX_BYTES);
    auto_buf struct buf answer = BUF_MAX(ANSWER_MAX);
    TRY(buf_add_str(&path, asked->id.size == 0 ? "/trace" : "/trace/"));
    TRY(buf_add(&path, asked->id));
    TRY(dp_ask(server, buf_slice(&path), asked->token, &answer));
    json_t *value = json_loadb((const char *)answer.ptr, answer.size, 0, /* error= */ NULL);
    if (!json_is_object(value)) {
        json_decref(value);
        return FAIL(E_MALFORMED);
    }
    *out = value;
    return OK;
}

static bool is_fetching(const json_t *trace)
{
    const char *state =
        json_string_value(json_object_get(json_object_get(trace, "position"), "state"));
    return state != NULL && strcmp(state, "asked") == 0;
}

/* Until the node has fetched where the rule stands; after a while without it. */
static struct err ask_whole(struct slice server, const struct dp_show_trace *asked, json_t **out)
{
    json_t *found = NULL;
    TRY(ask(server, asked, &found));
    for (unsigned i = 0; i < POSITION_TRIES && is_fetching(found); i++) {
        const struct timespec rest = {.tv_nsec = POSITION_REST_MS * 1000000L};
        (void)nanosleep(&rest, NULL);
        json_decref(found);
        found = NULL;
        TRY(ask(server, asked, &found));
    }
    *out = found;
    return OK;
}

/* One server that does not answer keeps nobody from asking the next; it is told of at the end. */
static struct err ask_servers(const struct dp_show_trace *asked, json_t **out, struct buf *message)
{
    struct err worst = FAIL(E_NOT_FOUND);
    struct slice rest = asked->servers;
    while (rest.size > 0) {
        struct slice server = slice_head(rest, slice_find(rest, ','));
        rest = slice_from(rest, server.size + 1);
        struct err e = ask_whole(server, asked, out);
        if (err_ok(e)) {
            return OK;
        }
        if (e.code != E_NOT_FOUND) {
            worst = e;
            TRY(buf_addf(message, "%s%.*s: %s", message->size == 0 ? "" : "; ", SLICE_ARG(server),
                         err_text(e.code)));
        }
    }
    return worst;
}

/* ---- YAML ---- */

/* JSON's scalars are YAML's. */
static struct err add_scalar(const json_t *value, struct buf *out)
{
    char *text = json_dumps(value, JSON_ENCODE_ANY);
    if (text == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    struct err e = buf_add_str(out, text);
    free(text);
    return e;
}

/* A member, or with 'name' NULL an item of a list. */
static struct err add_line(const char *name, const json_t *value, unsigned depth, struct buf *out)
{
    TRY(buf_addf(out, "%*s%s%s", (int)depth * 2, "", name == NULL ? "-" : name,
                 name == NULL ? "" : ":"));
    if (!json_is_object(value) && !json_is_array(value)) {
        TRY(buf_add_str(out, " "));
        TRY(add_scalar(value, out));
    }
    return buf_add_str(out, "\n");
}

/* What a node answers is three deep: a list, its refusals, a position. */
enum { DEPTH_MAX = 4 };

static struct err add_yaml(json_t *value, unsigned depth, struct buf *out)
{
    const char *name = NULL;
    json_t *member = NULL;
    size_t i = 0;
    if (depth > DEPTH_MAX) {
        return FAIL(E_MALFORMED);
    }
    json_object_foreach(value, name, member)
    {
        TRY(add_line(name, member, depth, out));
        TRY(add_yaml(member, depth + 1, out));
    }
    json_array_foreach(value, i, member)
    {
        TRY(add_line(/* name= */ NULL, member, depth, out));
        TRY(add_yaml(member, depth + 1, out));
    }
    return OK;
}

/* ---- the table ---- */

static const char *string_of(const json_t *o, const char *name)
{
    const char *text = json_string_value(json_object_get(o, name));
    return text == NULL ? "" : text;
}

static struct err add_row(const char *name, const char *value, struct buf *out)
{
    return value[0] == '\0' ? OK : buf_addf(out, "%-12s %s\n", name, value);
}

/* "platform.yaml:12:5", or why nobody knows. */
static struct err add_position(const json_t *position, struct buf *out)
{
    const char *state = string_of(position, "state");
    if (state[0] == '\0') {
        return OK;
    }
    if (strcmp(state, "found") == 0) {
        return buf_addf(out, "%-12s %s:%lld:%lld (%s)\n", "stands in", string_of(position, "file"),
                        (long long)json_integer_value(json_object_get(position, "line")),
                        (long long)json_integer_value(json_object_get(position, "column")),
                        string_of(position, "of"));
    }
    const char *why = strcmp(state, "past") == 0      ? "of a version that is served no more"
                      : strcmp(state, "unknown") == 0 ? "the sources of its version have none"
                                                      : "could not be fetched now";
    return buf_addf(out, "%-12s %s (%s)\n", "stands in", why, string_of(position, "of"));
}

static struct err add_one(const json_t *o, struct buf *out)
{
    TRY(buf_addf(out, "%s: %s\n", string_of(o, "code"), string_of(o, "text")));
    TRY(add_row("id", string_of(o, "id"), out));
    TRY(add_row("node", string_of(o, "node"), out));
    TRY(add_row("time", string_of(o, "time"), out));
    TRY(buf_addf(out, "%-12s %lld\n", "version",
                 (long long)json_integer_value(json_object_get(o, "version"))));
    for (size_t i = 0; i < DP_REFUSAL_TEXT_COUNT; i++) {
        const char *name = dp_refusal_text_name((enum dp_refusal_text)i);
        TRY(add_row(name, string_of(o, name), out));
    }
    TRY(add_position(json_object_get(o, "position"), out));
    return add_row("what to do", string_of(o, "fix"), out);
}

static struct err add_list(json_t *list, struct buf *out)
{
    size_t i = 0;
    const json_t *o = NULL;
    TRY(buf_addf(out, "%-24s  %-12s  %-20s  %-24s  %s\n", "TIME", "ID", "CODE", "CALLER",
                 "METHOD"));
    json_array_foreach(list, i, o)
    {
        TRY(buf_addf(out, "%-24s  %-12s  %-20s  %-24s  %s\n", string_of(o, "time"),
                     string_of(o, "id"), string_of(o, "code"), string_of(o, "caller"),
                     string_of(o, "method")));
    }
    return OK;
}

/* ---- all of it ---- */

static struct err add_json(const json_t *value, struct buf *out)
{
    char *text = json_dumps(value, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    if (text == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    struct err e = buf_addf(out, "%s\n", text);
    free(text);
    return e;
}

static struct err write_as(enum dp_show_format format, json_t *value, struct buf *out)
{
    json_t *list = json_object_get(value, "refusals");
    switch (format) {
    case DP_SHOW_TABLE:
        return list != NULL ? add_list(list, out) : add_one(value, out);
    case DP_SHOW_YAML:
        return add_yaml(value, 0, out);
    case DP_SHOW_JSON:
        return add_json(value, out);
    }
    return OK;
}

struct err dp_show_trace(const struct dp_show_trace *asked, struct buf *out, struct buf *message)
{
    uint64_t id = 0;
    auto_json json_t *value = NULL;
    if (asked->id.size > 0 && !dp_refusal_id_parse(asked->id, &id)) {
        TRY(buf_addf(message,
                     "\"%.*s\" is no id: one is %d letters and digits, as "
                     "x-trilane-explain has it",
                     SLICE_ARG(asked->id), DP_REFUSAL_ID_SIZE));
        return FAIL(E_USAGE);
    }
    struct err e = ask_servers(asked, &value, message);
    if (e.code == E_NOT_FOUND) {
        TRY(buf_addf(message,
                     "none of the nodes asked keeps %.*s: it is older than an hour, later refusals "
                     "took its place, or another node gave it",
                     SLICE_ARG(asked->id)));
    }
    TRY(e);
    return write_as(asked->format, value, out);
}
