/*
 * kv: see kv.h. A key is the subject $KV.<bucket>.<key> of the stream KV_<bucket>; conditions are
 * headers that nats-server judges. Over plain requests rather than nats.c's kvStore, whose calls
 * have no timeout of their own and do not tell a refusal from an unknown outcome.
 */
#include "common/bus/kv.h"

#include <stdio.h>

#include "common/base/check.h"
#include "common/bus/bus_internal.h"
#include "common/bus/ensure.h"
#include "common/bus/puback.h"
#include "common/bus/subject.h"

enum { HISTORY_MAX = 64 };

struct write {
    struct slice value;
    struct slice operation; /* empty: a value. */
    bool rollup;
    uint64_t expected; /* KV_ANY_REVISION: no condition. */
};

static bool name_fits(struct slice name, const char *extra, size_t max);
static struct err key_subject(const struct kv *kv, const char *prefix, struct slice key,
                              char out[SUBJECT_SIZE_MAX + 1]);
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
    *kv = (struct kv){.bus = bus};
    memcpy(kv->bucket, bucket.ptr, bucket.size);
    return OK;
}

struct err kv_ensure(const struct kv *kv, const struct kv_config *config, uint64_t timeout_ms,
                     struct buf *why)
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
    return ensure_stream(kv->bus, &want, timeout_ms, why);
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
    TRY(key_subject(kv, "", key, subject));
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
    struct puback ack;
    TRY(bus_request(kv->bus, &request, timeout_ms, &answer));
    struct err err = puback_decode(
        slice_of(natsMsg_GetData(answer), (size_t)natsMsg_GetDataLength(answer)), &ack);
    natsMsg_Destroy(answer);
    if (!err_ok(err)) {
        return FAIL(E_RESULT_UNKNOWN); /* somebody answered, but not a stream. */
    }
    if (!err_ok(ack.err)) {
        return ack.err.code == E_MESSAGE_TOO_LARGE ? FAIL(E_TOO_LARGE)
               : ack.err.code == E_BUS_UNAVAILABLE ? FAIL(E_UNAVAILABLE)
                                                   : ack.err;
    }
    if (out_revision != NULL) {
        *out_revision = ack.sequence;
    }
    return OK;
}

/* ---- reading ---- */

/* What a stored message says: its state, and the value where it has one. */
static struct err take_entry(natsMsg *msg, uint64_t revision, struct buf *value,
                             struct kv_entry *out)
{
    const char *operation = NULL;
    (void)natsMsgHeader_Get(msg, "KV-Operation", &operation);
    bool marker =
        operation != NULL && (strcmp(operation, "DEL") == 0 || strcmp(operation, "PURGE") == 0);
    if (!marker) {
        TRY(buf_add(value, slice_of(natsMsg_GetData(msg), (size_t)natsMsg_GetDataLength(msg))));
    }
    *out = (struct kv_entry){.state = marker ? KV_DELETED : KV_VALUE, .revision = revision};
    return OK;
}

static struct err take_direct(natsMsg *msg, struct buf *value, struct kv_entry *out)
{
    const char *text = NULL;
    if (natsMsgHeader_Get(msg, "Nats-Sequence", &text) == NATS_OK && text != NULL) {
        uint64_t revision = 0;
        return slice_to_u64(slice_str(text), &revision) ? take_entry(msg, revision, value, out)
                                                        : FAIL(E_UNAVAILABLE);
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
    char prefix[KV_BUCKET_MAX + 32];
    (void)snprintf(prefix, sizeof(prefix), "$JS.API.DIRECT.GET.KV_%s.", kv->bucket);
    TRY(key_subject(kv, prefix, key, subject));
    natsMsg *answer = NULL;
    TRY(bus_request(kv->bus, &(struct bus_outgoing){.subject = slice_str(subject)}, timeout_ms,
                    &answer));
    struct err err = take_direct(answer, value, out);
    natsMsg_Destroy(answer);
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
    struct api api;
    jsStreamInfo *info = NULL;
    jsErrCode code = 0;
    TRY(api_begin(&api, kv->bus, timeout_ms));
    natsStatus status = js_GetStreamInfo(&info, api.js, stream, /* opts= */ NULL, &code);
    TRY(api_end(&api, status, code));
    *out_any = info->State.Msgs > 0;
    jsStreamInfo_Destroy(info);
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
    TRY(key_subject(kv, "", key, subject));
    bool any = false;
    struct err err = look_inside(kv, stream, timeout_ms / 2, &any);
    if (err_ok(err) && any) {
        TRY(api_begin(&api, kv->bus, timeout_ms / 2));
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
        err = take_entry(msg, natsMsg_GetSequence(msg), value, out);
        natsMsg_Destroy(msg);
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

/* Writes <prefix>$KV.<bucket>.<key>. E_USAGE when the key is none. */
static struct err key_subject(const struct kv *kv, const char *prefix, struct slice key,
                              char out[SUBJECT_SIZE_MAX + 1])
{
    if (!name_fits(key, "-_.=/", KV_KEY_MAX) || !subject_is_valid(key)) {
        return FAIL(E_USAGE);
    }
    int size =
        snprintf(out, SUBJECT_SIZE_MAX + 1, "%s$KV.%s.%.*s", prefix, kv->bucket, SLICE_ARG(key));
    return size > 0 && size <= SUBJECT_SIZE_MAX ? OK : FAIL(E_USAGE);
}
