/* json: see json.h. */
#include "controlplane/api/json.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/limits.h"
#include "common/base/scope.h"
#include "common/base/text.h"
#include "common/snapshot/format.h"

enum {
    WRITES = 1U << CP_WORK_PUBLISH | 1U << CP_WORK_ROLLBACK | 1U << CP_WORK_RECOVER,
};

static json_t *hex_of(const uint8_t *bytes, size_t size)
{
    char text[2 * DIGEST_SIZE + 1];
    text_hex(slice_of(bytes, size), text);
    return json_string(text);
}

static json_t *number(uint64_t value)
{
    return json_integer((json_int_t)value);
}

json_t *cp_json_record(const struct cp_record *record)
{
    return json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:o, s:I, s:s, s:s, s:s, s:b}", "version",
        number(record->version), "epoch", number(record->epoch), "origin", number(record->origin),
        "manifest_digest", hex_of(record->manifest_digest, DIGEST_SIZE), "content_digest",
        hex_of(record->content_digest, DIGEST_SIZE), "raw_size", number(record->raw_size),
        "created_ms", (json_int_t)record->created_ms, "author", record->author, "message",
        record->message, "signers", record->signers, "with_trust", record->with_trust);
}

/* "well" or "degraded"; empty: it does not say. */
static const char *health_of(const struct status *status)
{
    if (status->health_count <= STATUS_HEALTH_DEGRADED) {
        return "";
    }
    return cp_fleet_degraded(status) > 0 ? "degraded" : "well";
}

json_t *cp_json_node(const struct cp_fleet_node *node)
{
    if (!node->verified) { /* nothing that it says is repeated. */
        return json_pack("{s:s, s:b, s:b, s:o, s:s}", "node", node->id, "verified", 0, "live", 0,
                         "age_ms", number(node->age_ms), "code", err_name(node->why));
    }
    const struct status *status = &node->status;
    return json_pack(
        "{s:s, s:b, s:b, s:o, s:o, s:s, s:s, s:s, s:o, s:o, s:o, s:I, s:o, s:o, s:s, s:o}", "node",
        node->id, "verified", 1, "live", node->live, "age_ms", number(node->age_ms), "version",
        number(status->version), "state", snap_state_name((uint32_t)status->state), "code",
        status->code == E_OK ? "" : err_name(status->code), "object", status->object, "epoch",
        number(status->epoch), "sequence", number(status->sequence), "content_prefix",
        hex_of(status->content_prefix, sizeof(status->content_prefix)), "at_ms",
        (json_int_t)status->at_ms, "capabilities", number(status->capabilities), "format",
        number(status->format), "health", health_of(status), "degraded",
        number(cp_fleet_degraded(status)));
}

json_t *cp_json_leader(const struct cp_leader_status *status)
{
    return json_pack("{s:b, s:s, s:s, s:b, s:o, s:o, s:o, s:I, s:s, s:s, s:b, s:o, s:s}", "leads",
                     status->leads, "holder", status->holder, "address", status->address, "vacant",
                     status->vacant, "epoch", number(status->epoch), "sequence",
                     number(status->sequence), "head_version", number(status->head_version),
                     "head_at_ms", (json_int_t)status->head_at_ms, "code",
                     status->code == E_OK ? "" : err_name(status->code), "store_code",
                     status->store_code == E_OK ? "" : err_name(status->store_code), "store_silent",
                     status->store_silent, "newest_version", number(status->newest_version),
                     "newest_signers", status->newest_signers);
}

json_t *cp_json_bucket(const struct cp_collector_status *status)
{
    const struct stream_info *bucket = &status->bucket;
    if (!status->looked) {
        return json_object(); /* nobody saw it yet. */
    }
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:s}", "objects",
                     number(bucket->messages), "bytes", number(bucket->bytes), "max_bytes",
                     number(bucket->max_bytes), "replicas", number(bucket->replicas),
                     "replicas_current", number(bucket->replicas_current), "replicas_wanted",
                     number(status->replicas), "collected_objects", number(status->objects),
                     "collected_bytes", number(status->bytes), "collect_code",
                     status->code == E_OK ? "" : err_name(status->code));
}

/* JSON that another room made, as a value. */
static json_t *parsed(const struct buf *text)
{
    return json_loadb((const char *)text->ptr, text->size, 0, NULL);
}

static json_t *text_of(const struct buf *text)
{
    return json_stringn(text->size == 0 ? "" : (const char *)text->ptr, text->size);
}

static json_t *capabilities_of(uint64_t bits)
{
    json_t *names = json_array();
    for (unsigned bit = 0; bit < 64; bit++) {
        const char *name = capability_name(bit);
        if ((bits & 1ULL << bit) != 0 && name != NULL) {
            (void)json_array_append_new(names, json_string(name));
        }
    }
    return names;
}

json_t *cp_json_work(const struct cp_work *work)
{
    json_t *value =
        json_pack("{s:o, s:o, s:o, s:o, s:o, s:b, s:b}", "base", number(work->before.version),
                  "record", cp_json_record(&work->record), "chunks", number(work->chunks),
                  "chunks_new", number(work->chunks_new), "bytes_new", number(work->bytes_new),
                  "in_head", work->in_head, "same_content", work->is_same);
    (void)json_object_set_new(value, "unchanged", json_boolean(work->is_unchanged && !work->again));
    (void)json_object_set_new(value, "nodes_live", number(work->nodes_live));
    (void)json_object_set_new(value, "capabilities", capabilities_of(work->capabilities));
    (void)json_object_set_new(value, "format", number(work->format));
    if (value != NULL && work->kind == CP_WORK_PLAN) {
        (void)json_object_set_new(value, "plan", hex_of(work->plan, sizeof(work->plan)));
    }
    if (value != NULL && work->diff.size > 0) {
        (void)json_object_set_new(value, "diff", parsed(&work->diff));
        (void)json_object_set_new(value, "diff_text", text_of(&work->diff_text));
    }
    return value;
}

json_t *cp_json_error(struct err e, const struct cp_work *work)
{
    bool has_sentence = work != NULL && work->sentence.size > 0;
    json_t *message = has_sentence ? text_of(&work->sentence) : json_string(err_text(e.code));
    json_t *value = json_pack("{s:s, s:o, s:s}", "code", err_name(e.code), "message", message,
                              "fix", err_fix(e.code));
    if (value == NULL || work == NULL) {
        return value;
    }
    if (work->deposed) {
        (void)json_object_set_new(value, "leads", json_false());
    }
    if (work->step[0] != '\0') {
        (void)json_object_set_new(value, "step", json_string(work->step));
    }
    if (work->diagnostics.size > 0) {
        (void)json_object_set_new(value, "diagnostics", parsed(&work->diagnostics));
        (void)json_object_set_new(value, "diagnostics_text", text_of(&work->diagnostics_text));
    }
    return value;
}

json_t *cp_json_base64(struct slice bytes)
{
    size_t size = sodium_base64_encoded_len(bytes.size, sodium_base64_VARIANT_ORIGINAL);
    auto_free char *text = malloc(size);
    if (text == NULL) {
        return NULL;
    }
    (void)sodium_bin2base64(text, size, bytes.ptr, bytes.size, sodium_base64_VARIANT_ORIGINAL);
    return json_string(text);
}

struct err cp_json_write(json_t *value, struct buf *out)
{
    if (value == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    auto_free char *text = json_dumps(value, JSON_COMPACT);
    json_decref(value);
    if (text == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    TRY(buf_add_str(out, text));
    return buf_add_byte(out, '\n');
}

/* ---- what is sent ---- */

bool cp_json_is_line(const json_t *value, size_t max)
{
    const char *text = json_string_value(value);
    size_t size = json_string_length(value);
    if (text == NULL || size > max || strlen(text) != size) {
        return false;
    }
    for (const char *at = text; *at != '\0'; at++) {
        if ((unsigned char)*at < 0x20 || *at == 0x7f) {
            return false;
        }
    }
    return true;
}

static struct err refuse(struct cp_work *work, const char *sentence)
{
    TRY(buf_add_str(&work->sentence, sentence));
    return FAIL(E_USAGE);
}

static struct err read_text(const json_t *body, const char *name, char *out, size_t size,
                            struct cp_work *work)
{
    const json_t *value = json_object_get(body, name);
    if (value == NULL) {
        return OK;
    }
    const char *text = json_string_value(value);
    if (text == NULL || json_string_length(value) >= size ||
        strlen(text) != json_string_length(value)) {
        TRY(buf_addf(&work->sentence, "\"%s\": expected a text of at most %zu bytes", name,
                     size - 1));
        return FAIL(E_USAGE);
    }
    for (const char *at = text; *at != '\0'; at++) {
        bool control = (unsigned char)*at < 0x20 || *at == 0x7f;
        if (control && *at != '\n' && *at != '\t') { /* it is shown on terminals. */
            TRY(buf_addf(&work->sentence, "\"%s\": expected no control characters", name));
            return FAIL(E_USAGE);
        }
    }
    (void)memcpy(out, text, json_string_length(value) + 1);
    return OK;
}

static struct err read_number(const json_t *body, const char *name, bool *out_there, uint64_t *out,
                              struct cp_work *work)
{
    const json_t *value = json_object_get(body, name);
    *out_there = value != NULL;
    if (value == NULL) {
        return OK;
    }
    if (!json_is_integer(value) || json_integer_value(value) < 0) {
        TRY(buf_addf(&work->sentence, "\"%s\": expected a whole number from 0 on", name));
        return FAIL(E_USAGE);
    }
    *out = (uint64_t)json_integer_value(value);
    return OK;
}

static const char *why_not_added(enum err_code code)
{
    switch ((int)code) {
    case E_MALFORMED:
        return "expected a relative path without \"..\", \"\\\\\" and control characters";
    case E_EXISTS:
        return "another file has this name";
    default:
        return err_text(code);
    }
}

static struct err add_file(struct cp_work *work, const json_t *file)
{
    const json_t *name = json_object_get(file, "name");
    const json_t *content = json_object_get(file, "content");
    if (!json_is_string(name) || !json_is_string(content) || json_object_size(file) != 2) {
        return refuse(work, "\"files\": expected objects of \"name\" and \"content\" (base64)");
    }
    size_t size = json_string_length(content);
    if (size / 4 * 3 > limits.source_file_bytes + 3) {
        TRY(buf_addf(&work->sentence, "file \"%.200s\": larger than source_file_bytes",
                     json_string_value(name)));
        return FAIL(E_TOO_LARGE);
    }
    auto_free uint8_t *bytes = malloc(size + 1);
    size_t used = 0;
    if (bytes == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    if (!err_ok(text_unbase64(slice_of(json_string_value(content), size), bytes, &used))) {
        return refuse(work, "\"content\": expected base64 with padding");
    }
    struct slice file_name = slice_of(json_string_value(name), json_string_length(name));
    struct err e = cp_source_set_add(&work->sources, file_name, slice_of(bytes, used));
    if (!err_ok(e)) {
        TRY(buf_addf(&work->sentence, "file \"%.*s\": %s", SLICE_ARG(slice_head(file_name, 200)),
                     why_not_added(e.code)));
    }
    return e;
}

static struct err read_files(const json_t *body, struct cp_work *work)
{
    const json_t *files = json_object_get(body, "files");
    if (!json_is_array(files) || json_array_size(files) == 0) {
        return refuse(work, "\"files\": expected at least one file");
    }
    for (size_t i = 0; i < json_array_size(files); i++) {
        TRY(add_file(work, json_array_get(files, i)));
    }
    return OK;
}

/* What was planned, by its id. */
static struct err read_plan(const json_t *plan, struct cp_work *work)
{
    struct slice text = slice_of(json_string_value(plan), json_string_length(plan));
    work->has_plan = true;
    return json_is_string(plan) && err_ok(text_unhex(text, work->plan, sizeof(work->plan)))
               ? OK
               : refuse(work, "\"plan\": expected what a plan's answer has under this name");
}

/* Sources, or what was planned; never both. */
static struct err read_content(const json_t *body, struct cp_work *work)
{
    const json_t *plan = json_object_get(body, "plan");
    if (plan == NULL) {
        return read_files(body, work);
    }
    return json_object_get(body, "files") == NULL
               ? read_plan(plan, work)
               : refuse(work, "\"files\" or \"plan\": expected one of them");
}

/* What each kind of work takes: its members, by the kinds that have them. */
static bool is_known_member(const char *name, enum cp_work_kind kind)
{
    static const struct {
        const char *name;
        unsigned kinds;
    } members[] = {
        {"files", 1U << CP_WORK_VALIDATE | 1U << CP_WORK_PLAN | 1U << CP_WORK_PUBLISH},
        {"plan", 1U << CP_WORK_PUBLISH},
        {"base", 1U << CP_WORK_PLAN | 1U << CP_WORK_PUBLISH | 1U << CP_WORK_ROLLBACK},
        {"message", WRITES},
        {"author", WRITES},
        {"again", 1U << CP_WORK_PUBLISH},
        {"sign_wait_ms", WRITES},
        {"give_up", 1U << CP_WORK_RECOVER},
        {"above", 1U << CP_WORK_RECOVER},
        {"version", 1U << CP_WORK_ROLLBACK},
        {"with_trust", 1U << CP_WORK_ROLLBACK | 1U << CP_WORK_RECOVER},
        {"confirm", 1U << CP_WORK_ROLLBACK | 1U << CP_WORK_RECOVER},
    };
    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
        if (strcmp(name, members[i].name) == 0) {
            return (members[i].kinds & 1U << kind) != 0;
        }
    }
    return false;
}

static struct err read_flag(const json_t *body, const char *name, bool *out, struct cp_work *work)
{
    const json_t *value = json_object_get(body, name);
    if (value != NULL && !json_is_boolean(value)) {
        TRY(buf_addf(&work->sentence, "\"%s\": expected true or false", name));
        return FAIL(E_USAGE);
    }
    *out = json_is_true(value);
    return OK;
}

/* What lifts revocations is asked for twice: of a recovery, by the version that is given up. */
static struct err read_trust(const json_t *body, struct cp_work *work)
{
    bool confirms = false;
    uint64_t confirmed = 0;
    TRY(read_flag(body, "with_trust", &work->with_trust, work));
    TRY(read_number(body, "confirm", &confirms, &confirmed, work));
    if (work->kind == CP_WORK_RECOVER) {
        work->target = confirmed;
    }
    if (work->with_trust && work->kind == CP_WORK_RECOVER && !work->gives_up) {
        return refuse(work, "\"with_trust\" belongs to \"give_up\"");
    }
    if (work->with_trust && (!confirms || confirmed != work->target)) {
        return refuse(work, "\"confirm\": expected the version once more: \"with_trust\" lifts "
                            "what was revoked since then");
    }
    if (confirms && !work->with_trust) {
        return refuse(work, "\"confirm\" belongs to \"with_trust\"");
    }
    return OK;
}

static struct err read_body(json_t *body, struct cp_work *work)
{
    const char *name = NULL;
    json_t *member = NULL;
    json_object_foreach(body, name, member)
    {
        if (!is_known_member(name, work->kind)) {
            TRY(buf_addf(&work->sentence, "\"%.80s\" is not a member of this request", name));
            return FAIL(E_USAGE);
        }
    }
    bool has_target = false;
    bool has_wait = false;
    bool has_above = false;
    TRY(read_text(body, "message", work->message, sizeof(work->message), work));
    TRY(read_text(body, "author", work->author, sizeof(work->author), work));
    TRY(read_number(body, "base", &work->has_base, &work->base, work));
    TRY(read_number(body, "version", &has_target, &work->target, work));
    TRY(read_number(body, "sign_wait_ms", &has_wait, &work->sign_wait_ms, work));
    if (work->sign_wait_ms > CP_SIGN_WAIT_MAX_MS) {
        return refuse(work, "\"sign_wait_ms\": expected at most an hour");
    }
    TRY(read_number(body, "above", &has_above, &work->above, work));
    TRY(read_flag(body, "again", &work->again, work));
    TRY(read_flag(body, "give_up", &work->gives_up, work));
    TRY(read_trust(body, work));
    if ((1U << work->kind & WRITES) != 0 && work->message[0] == '\0') {
        return refuse(work, "\"message\": say why, for the history");
    }
    if (work->kind == CP_WORK_RECOVER) {
        return work->above <= INT64_MAX ? OK : refuse(work, "\"above\": expected a version");
    }
    if (work->kind != CP_WORK_ROLLBACK) {
        return read_content(body, work);
    }
    return has_target ? OK : refuse(work, "\"version\": expected the version to go back to");
}

struct err cp_json_read_work(struct slice body, struct cp_work *work)
{
    json_error_t error;
    json_t *value = json_loadb((const char *)body.ptr, body.size, JSON_REJECT_DUPLICATES, &error);
    if (value == NULL || !json_is_object(value)) {
        json_decref(value);
        TRY(buf_addf(&work->sentence, "the body is not a JSON object: line %d: %s", error.line,
                     error.text));
        return FAIL(E_MALFORMED);
    }
    struct err e = read_body(value, work);
    json_decref(value);
    return e;
}
