/*
 * kv: see kv.h. A key is the subject $KV.<bucket>.<key> of the stream KV_<bucket>; conditions are
 * headers that nats-server judges. Over plain requests rather than nats.c's kvStore, whose calls
 * have no timeout of their own and do not tell a refusal from an unknown outcome.
 */
#include "common/bus/kv.h"

#include <stdio.h>
#include <time.h>

#include "common/base/check.h"
#include "common/bus/bus_internal.h"
#include "common/bus/ensure.h"
#include "common/bus/flat_json.h"
#include "common/bus/kv_internal.h"
#include "common/bus/puback.h"
#include "common/bus/subject.h"

enum { HISTORY_MAX = 64 };

static const int64_t ns_per_ms = 1000000;

struct write {
    struct slice value;
    struct slice operation; /* empty: a value. */
    bool rollup;
    uint64_t expected; /* KV_ANY_REVISION: no condition. */
};

static bool name_fits(struct slice name, const char *extra, size_t max);
static struct err send_write(const struct kv *kv, struct slice key, const struct write *write,
                             uint64_t timeout_ms, uint64_t *out_revision);
static struct err get_direct(const struct kv *kv, struct slice key, uint64_t timeout_ms,
                             struct buf *value, struct kv_entry *out);
static struct err get_from_leader(const struct kv *kv, struct slice key, uint64_t timeout_ms,
                                  struct buf *value, struct kv_entry *out);

struct err kv_bind(struct kv *kv, struct bus *bus, struct slice bucket)
{
    if (!name_fits(bucket, "-_", KV_BUCKET_MAX)) {
        return FAIL(E_USAGE);
    }
    *kv = (struct kv){.bus = bus, .api = KV_API};
    memcpy(kv->bucket, bucket.ptr, bucket.size);
    return OK;
}

struct err kv_bind_imported(struct kv *kv, struct bus *bus, struct slice bucket, const char *api)
{
    struct slice text = slice_str(api);
    if (!subject_is_valid(text) || text.size > KV_API_MAX) {
        return FAIL(E_USAGE);
    }
    TRY(kv_bind(kv, bus, bucket));
    kv->api = api;
    return OK;
}

struct err kv_ensure(const struct kv *kv, const struct kv_config *config, uint64_t timeout_ms,
                     struct buf *why, struct stream_info *out)
{
    char name[KV_BUCKET_MAX + 4];
    char subject[KV_BUCKET_MAX + 8];
    if (config->history == 0 || config->history > HISTORY_MAX ||
        config->max_value_bytes > INT32_MAX || config->max_bytes > INT64_MAX) {
        return FAIL(E_USAGE);
    }
    (void)snprintf(name, sizeof(name), "KV_%s", kv->bucket);
    (void)snprintf(subject, sizeof(subject), "$KV.%s.>", kv->bucket);
    const char *subjects[] = {subject};
    jsStreamConfig want;
    (void)jsStreamConfig_Init(&want);
    want.Name = name;
    want.Subjects = subjects;
    want.SubjectsLen = 1;
    want.MaxMsgsPerSubject = config->history;
    want.MaxBytes = (int64_t)config->max_bytes;
    want.MaxMsgSize = config->max_value_bytes == 0 ? -1 : (int32_t)config->max_value_bytes;
    want.Storage = js_FileStorage;
    want.Replicas = config->replicas == 0 ? 1 : config->replicas;
    want.Discard = js_DiscardNew;
    want.AllowRollup = true;
    want.DenyDelete = true;
    want.AllowDirect = true;
    return ensure_stream(kv->bus, &want, timeout_ms, why, out);
}

struct err kv_raise(const struct kv *kv, uint32_t replicas, uint64_t timeout_ms,
                    struct stream_info *out)
{
    char name[KV_BUCKET_MAX + 4];
    (void)snprintf(name, sizeof(name), "KV_%s", kv->bucket);
    struct err err = raise_stream(kv->bus, name, replicas, timeout_ms, out);
    return err.code == E_NOT_FOUND ? FAIL(E_UNAVAILABLE) : err;
}

bool kv_answers(const struct kv *kv, uint64_t timeout_ms)
{
    char name[KV_BUCKET_MAX + 4];
    struct stream_info info;
    (void)snprintf(name, sizeof(name), "KV_%s", kv->bucket);
    struct err err = look_at_stream(kv->bus, kv->api, name, timeout_ms, &info);
    return err_ok(err) || err.code == E_NOT_FOUND;
}

struct err kv_look(const struct kv *kv, uint64_t timeout_ms, struct stream_info *out)
{
    char name[KV_BUCKET_MAX + 4];
    (void)snprintf(name, sizeof(name), "KV_%s", kv->bucket);
    struct err err = look_at_stream(kv->bus, kv->api, name, timeout_ms, out);
    return err.code == E_NOT_FOUND ? FAIL(E_UNAVAILABLE) : err;
}

struct err kv_get(const struct kv *kv, struct slice key, enum kv_read read, uint64_t timeout_ms,
                  struct buf *value, struct kv_entry *out)
{
    struct err err = read == KV_READ_LEADER ? get_from_leader(kv, key, timeout_ms, value, out)
                                            : get_direct(kv, key, timeout_ms, value, out);
    return err.code == E_RESULT_UNKNOWN ? FAIL(E_UNAVAILABLE) : err; /* a read changes nothing. */
}

struct err kv_put(const struct kv *kv, struct slice key, struct slice value, uint64_t timeout_ms,
                  uint64_t *out_revision)
{
    return send_write(kv, key, &(struct write){.value = value, .expected = KV_ANY_REVISION},
                      timeout_ms, out_revision);
}

struct err kv_create(const struct kv *kv, struct slice key, struct slice value, uint64_t timeout_ms,
                     uint64_t *out_revision)
{
    return send_write(kv, key, &(struct write){.value = value, .expected = 0}, timeout_ms,
                      out_revision);
}

struct err kv_update(const struct kv *kv, struct slice key, struct slice value, uint64_t expected,
                     uint64_t timeout_ms, uint64_t *out_revision)
{
    return send_write(kv, key, &(struct write){.value = value, .expected = expected}, timeout_ms,
                      out_revision);
}

struct err kv_delete(const struct kv *kv, struct slice key, uint64_t expected, uint64_t timeout_ms)
{
    return send_write(kv, key, &(struct write){.operation = SLICE_LIT("DEL"), .expected = expected},
                      timeout_ms, /* out_revision= */ NULL);
}

struct err kv_purge(const struct kv *kv, struct slice key, uint64_t expected, uint64_t timeout_ms)
{
    struct write write = {.operation = SLICE_LIT("PURGE"), .rollup = true, .expected = expected};
    return send_write(kv, key, &write, timeout_ms, /* out_revision= */ NULL);
}

/* ---- writing ---- */

static struct err send_write(const struct kv *kv, struct slice key, const struct write *write,
                             uint64_t timeout_ms, uint64_t *out_revision)
{
    char subject[SUBJECT_SIZE_MAX + 1];
    char expected[24];
    struct bus_header headers[3];
    size_t count = 0;
    TRY(kv_key_subject(kv, "", key, subject));
    if (write->operation.size > 0) {
        headers[count++] = (struct bus_header){SLICE_LIT("KV-Operation"), write->operation};
    }
    if (write->rollup) {
        headers[count++] = (struct bus_header){SLICE_LIT("Nats-Rollup"), SLICE_LIT("sub")};
    }
    if (write->expected != KV_ANY_REVISION) {
        (void)snprintf(expected, sizeof(expected), "%llu", (unsigned long long)write->expected);
        headers[count++] = (struct bus_header){SLICE_LIT("Nats-Expected-Last-Subject-Sequence"),
                                               slice_str(expected)};
    }
    struct bus_outgoing request = {.subject = slice_str(subject),
                                   .headers = headers,
                                   .header_count = count,
                                   .payload = write->value};
    natsMsg *answer = NULL;
    TRY(bus_request(kv->bus, &request, timeout_ms, &answer));
    struct err err = kv_take_ack(
        kv, slice_of(natsMsg_GetData(answer), (size_t)natsMsg_GetDataLength(answer)), out_revision);
    message_spend(kv->bus, answer);
    return err;
}

static void note_refusal(const struct kv *kv, const struct puback *ack)
{
    char text[BUS_ERROR_TEXT_MAX];
    (void)snprintf(text, sizeof(text), "KV_%s: %.*s", kv->bucket, SLICE_ARG(ack->description));
    bus_note_error(kv->bus, text);
}

struct err kv_take_ack(const struct kv *kv, struct slice answer, uint64_t *out_revision)
{
    struct puback ack;
    if (!err_ok(puback_decode(answer, &ack))) {
        return FAIL(E_RESULT_UNKNOWN); /* somebody answered, but not a stream. */
    }
    if (!err_ok(ack.err)) {
        note_refusal(kv, &ack);
        if (puback_is_limit(ack.err_code)) {
            return FAIL(E_BUS_LIMIT);
        }
        return ack.err.code == E_MESSAGE_TOO_LARGE ? FAIL(E_TOO_LARGE)
               : ack.err.code == E_BUS_UNAVAILABLE ? FAIL(E_UNAVAILABLE)
                                                   : ack.err;
    }
    if (out_revision != NULL) {
        *out_revision = ack.sequence;
    }
    return OK;
}

/* ---- removing ---- */

static struct err take_erased(struct slice answer)
{
    struct flat_json json = flat_json_of(answer);
    struct flat_json_member m;
    uint64_t purged = 0;
    bool more = false;
    bool success = false;
    TRY(flat_json_next(&json, &m, &more));
    while (more) {
        if (slice_eq(m.name, SLICE_LIT("success"))) {
            success = slice_eq(m.value, SLICE_LIT("true"));
        } else if (slice_eq(m.name, SLICE_LIT("purged")) && !slice_to_u64(m.value, &purged)) {
            return FAIL(E_MALFORMED);
        }
        TRY(flat_json_next(&json, &m, &more));
    }
    if (!success) {
        return FAIL(E_UNAVAILABLE);
    }
    return purged == 0 ? FAIL(E_CONFLICT) : OK;
}

/*
 * A purge of one subject up to a sequence, rather than a marker with a condition: markers of keys
 * that never come again would lie there for ever. What was put later has a higher sequence, so the
 * condition holds wherever in the stream's log the purge comes.
 */
struct err kv_erase(const struct kv *kv, struct slice key, uint64_t revision, uint64_t timeout_ms)
{
    char subject[SUBJECT_SIZE_MAX + 1];
    char purge[KV_BUCKET_MAX + 32];
    char body[SUBJECT_SIZE_MAX + 64];
    TRY(kv_key_subject(kv, "", key, subject));
    (void)snprintf(purge, sizeof(purge), "$JS.API.STREAM.PURGE.KV_%s", kv->bucket);
    int size = snprintf(body, sizeof(body), "{\"filter\": \"%s\", \"seq\": %llu}", subject,
                        (unsigned long long)revision + 1);
    CHECK(size > 0 && (size_t)size < sizeof(body));
    struct bus_outgoing request = {.subject = slice_str(purge),
                                   .payload = slice_of(body, (size_t)size)};
    natsMsg *answer = NULL;
    TRY(bus_request(kv->bus, &request, timeout_ms, &answer));
    struct err err =
        take_erased(slice_of(natsMsg_GetData(answer), (size_t)natsMsg_GetDataLength(answer)));
    natsMsg_Destroy(answer);
    return err.code == E_MALFORMED ? FAIL(E_RESULT_UNKNOWN) : err;
}

/* ---- reading ---- */

/* What a stored message says: its state, and the value where it has one. */
static struct err take_entry(natsMsg *msg, struct buf *value, struct kv_entry *out)
{
    const char *operation = NULL;
    (void)natsMsgHeader_Get(msg, "KV-Operation", &operation);
    bool marker = kv_is_marker(slice_str(operation));
    if (!marker) {
        TRY(buf_add(value, slice_of(natsMsg_GetData(msg), (size_t)natsMsg_GetDataLength(msg))));
    }
    out->state = marker ? KV_DELETED : KV_VALUE;
    return OK;
}

bool kv_is_marker(struct slice operation)
{
    return slice_eq(operation, SLICE_LIT("DEL")) || slice_eq(operation, SLICE_LIT("PURGE"));
}

/* "2026-11-28T16:05:57.837587023Z", of which milliseconds are kept; 0 when it is not that. */
static int64_t time_of(const char *text)
{
    struct tm tm = {0};
    const char *rest = text == NULL ? NULL : strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
    if (rest == NULL) {
        return 0;
    }
    int64_t ms = (int64_t)timegm(&tm) * 1000;
    int64_t part = 100;
    for (size_t i = 1; rest[0] == '.' && part > 0 && rest[i] >= '0' && rest[i] <= '9'; i++) {
        ms += part * (rest[i] - '0');
        part /= 10;
    }
    return ms;
}

static struct err take_direct(natsMsg *msg, struct buf *value, struct kv_entry *out)
{
    const char *text = NULL;
    if (natsMsgHeader_Get(msg, "Nats-Sequence", &text) == NATS_OK && text != NULL) {
        struct kv_entry entry = {0};
        if (!slice_to_u64(slice_str(text), &entry.revision)) {
            return FAIL(E_UNAVAILABLE);
        }
        (void)natsMsgHeader_Get(msg, "Nats-Time-Stamp", &text);
        entry.time_ms = time_of(text);
        TRY(take_entry(msg, value, &entry));
        *out = entry;
        return OK;
    }
    if (natsMsgHeader_Get(msg, "Status", &text) == NATS_OK && text != NULL &&
        strcmp(text, "404") == 0) {
        *out = (struct kv_entry){.state = KV_MISSING};
        return OK;
    }
    return FAIL(E_UNAVAILABLE);
}

static struct err get_direct(const struct kv *kv, struct slice key, uint64_t timeout_ms,
                             struct buf *value, struct kv_entry *out)
{
    char subject[SUBJECT_SIZE_MAX + 1];
    char prefix[KV_API_MAX + KV_BUCKET_MAX + 32];
    (void)snprintf(prefix, sizeof(prefix), "%s.DIRECT.GET.KV_%s.", kv->api, kv->bucket);
    TRY(kv_key_subject(kv, prefix, key, subject));
    natsMsg *answer = NULL;
    TRY(bus_request(kv->bus, &(struct bus_outgoing){.subject = slice_str(subject)}, timeout_ms,
                    &answer));
    struct err err = take_direct(answer, value, out);
    message_spend(kv->bus, answer);
    return err;
}

/*
 * Whether anything lies in the bucket. nats-server 2.9 dies of a read from a stream that is just
 * being made (jsMsgGetRequest finds no store), and a platform's first start is when nodes ask for
 * what the control plane makes. Such a stream says here that it is empty.
 */
static struct err look_inside(const struct kv *kv, const char *stream, uint64_t timeout_ms,
                              bool *out_any)
{
    struct stream_info info;
    TRY(look_at_stream(kv->bus, kv->api, stream, timeout_ms, &info));
    *out_any = info.messages > 0;
    return OK;
}

static struct err get_from_leader(const struct kv *kv, struct slice key, uint64_t timeout_ms,
                                  struct buf *value, struct kv_entry *out)
{
    char subject[SUBJECT_SIZE_MAX + 1];
    char stream[KV_BUCKET_MAX + 4];
    struct api api;
    natsMsg *msg = NULL;
    jsErrCode code = 0;
    (void)snprintf(stream, sizeof(stream), "KV_%s", kv->bucket);
    TRY(kv_key_subject(kv, "", key, subject));
    bool any = false;
    struct err err = look_inside(kv, stream, timeout_ms / 2, &any);
    if (err_ok(err) && any) {
        TRY(api_begin(&api, kv->bus, kv->api, timeout_ms / 2));
        natsStatus status = js_GetLastMsg(&msg, api.js, stream, subject, /* opts= */ NULL, &code);
        err = api_end(&api, status, code);
    }
    if ((err_ok(err) && !any) || (int)code == API_NO_MESSAGE) {
        *out = (struct kv_entry){.state = KV_MISSING};
        return OK;
    }
    if (err.code == E_NOT_FOUND) {
        return FAIL(E_UNAVAILABLE); /* the bucket is not there. */
    }
    if (err_ok(err)) {
        struct kv_entry entry = {.revision = natsMsg_GetSequence(msg),
                                 .time_ms = natsMsg_GetTime(msg) / ns_per_ms};
        err = take_entry(msg, value, &entry);
        *out = err_ok(err) ? entry : *out;
        message_spend(kv->bus, msg);
    }
    return err;
}

/* ---- names ---- */

/* Letters, digits and those of 'extra'; 1 to 'max' bytes. */
static bool name_fits(struct slice name, const char *extra, size_t max)
{
    if (name.size == 0 || name.size > max) {
        return false;
    }
    for (size_t i = 0; i < name.size; i++) {
        uint8_t c = name.ptr[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!plain && (c == '\0' || strchr(extra, c) == NULL)) {
            return false;
        }
    }
    return true;
}

struct err kv_key_subject(const struct kv *kv, const char *prefix, struct slice key,
                          char out[SUBJECT_SIZE_MAX + 1])
{
    if (!name_fits(key, "-_.=/", KV_KEY_MAX) || !subject_is_valid(key)) {
        return FAIL(E_USAGE);
    }
    int size =
        snprintf(out, SUBJECT_SIZE_MAX + 1, "%s$KV.%s.%.*s", prefix, kv->bucket, SLICE_ARG(key));
    return size > 0 && size <= SUBJECT_SIZE_MAX ? OK : FAIL(E_USAGE);
}
