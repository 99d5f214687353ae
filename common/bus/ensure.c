/*
 * ensure: streams, buckets and consumers that are made if missing, checked if not, and never
 * destroyed: what is in them is worth more than our idea of their configuration. Of a stream that
 * is there only the number of replicas is ever changed, when it is asked for, and upwards.
 */
#include "common/bus/ensure.h"

#include <stdio.h>

#include "common/base/check.h"
#include "common/bus/jetstream.h"
#include "common/bus/kv.h"
#include "common/bus/puback.h"

static const int64_t ns_per_ms = 1000000;

/* ---- one call of the API ---- */

struct err api_begin(struct api *api, struct bus *bus, const char *prefix, uint64_t timeout_ms)
{
    *api = (struct api){.bus = bus, .forbidden = bus_forbidden(bus), .prefix = prefix};
    TRY(bus_hold(bus, &api->connection));
    jsOptions options;
    (void)jsOptions_Init(&options);
    options.Wait = (int64_t)timeout_ms;
    options.Prefix = prefix;
    if (natsConnection_JetStream(&api->js, api->connection, &options) != NATS_OK) {
        bus_release(bus);
        return FAIL(E_NO_MEMORY);
    }
    return OK;
}

static struct err outcome(natsStatus status, jsErrCode code)
{
    if (status == NATS_OK) {
        return OK;
    }
    switch ((int)code) {
    case API_STREAM_NOT_FOUND:
    case API_CONSUMER_NOT_FOUND:
    case API_NO_MESSAGE:
        return FAIL(E_NOT_FOUND);
    case API_STREAM_NAME_IN_USE:
    case API_SUBJECTS_OVERLAP:
    case API_CONSUMER_EXISTS:
        return FAIL(E_CONFLICT);
    case API_REPLICAS_NOT_CLUSTERED:
    case API_NO_PEERS:
        return FAIL(E_REPLICAS_MISSING);
    case API_NOT_FOR_ACCOUNT:
    case API_CONSUMERS_LIMIT:
    case API_STREAMS_LIMIT:
    case API_MAX_BYTES_REQUIRED:
    case API_ACK_PENDING_LIMIT:
    case API_STREAM_BYTES_LIMIT:
        return FAIL(E_BUS_LIMIT);
    default:
        break;
    }
    if (puback_is_limit(code)) {
        return FAIL(E_BUS_LIMIT);
    }
    if (status == NATS_NOT_FOUND) {
        return FAIL(E_NOT_FOUND);
    }
    bool refused = code != 0 || status == NATS_NO_RESPONDERS || status == NATS_INVALID_ARG;
    return refused ? FAIL(E_UNAVAILABLE) : FAIL(E_RESULT_UNKNOWN);
}

static void note_words(const struct api *api, natsStatus status)
{
    char text[BUS_ERROR_TEXT_MAX];
    const char *words = status == NATS_NO_RESPONDERS
                            ? "nobody answers: JetStream is off, or nobody leads it"
                            : bus_words(status);
    (void)snprintf(text, sizeof(text), "%s: %s", api->prefix, words);
    bus_note_error(api->bus, text);
}

struct err api_end(struct api *api, natsStatus status, jsErrCode code)
{
    struct err err = outcome(status, code);
    if (err.code == E_RESULT_UNKNOWN) {
        err = bus_blame(api->bus, api->forbidden, api->prefix, err);
    }
    if (err.code == E_BUS_LIMIT || err.code == E_UNAVAILABLE) {
        note_words(api, status);
    }
    jsCtx_Destroy(api->js);
    bus_release(api->bus);
    return err;
}

/* Says why, if anyone listens; a full buffer changes nothing about the refusal. */
static void say_why(struct buf *why, const char *name, const char *sentence)
{
    if (why != NULL) {
        struct err ignored = buf_addf(why, "\"%s\" %s", name, sentence);
        (void)ignored;
    }
}

/* What the server refused, in its own words. */
static void say_words(struct buf *why, struct bus *bus, const char *name, struct err err)
{
    char text[BUS_ERROR_TEXT_MAX + 64] = "cannot be had: ";
    size_t size = strlen(text);
    bool refused =
        err.code == E_BUS_LIMIT || err.code == E_BUS_FORBIDDEN || err.code == E_UNAVAILABLE;
    bus_last_error(bus, text + size);
    if (refused && text[size] != '\0') {
        say_why(why, name, text);
    }
}

static struct err refuse(struct buf *why, const char *name, const char *sentence)
{
    say_why(why, name, sentence);
    return FAIL(E_CONFLICT);
}

/* ---- streams ---- */

static bool has_subject(const jsStreamConfig *config, const char *subject)
{
    for (int i = 0; i < config->SubjectsLen; i++) {
        if (strcmp(config->Subjects[i], subject) == 0) {
            return true;
        }
    }
    return false;
}

static struct err judge_stream(const jsStreamConfig *is, const jsStreamConfig *want,
                               struct buf *why)
{
    for (int i = 0; i < want->SubjectsLen; i++) {
        if (!has_subject(is, want->Subjects[i])) {
            return refuse(why, want->Name, "exists and lacks a subject of ours");
        }
    }
    if (is->Storage != js_FileStorage) {
        return refuse(why, want->Name, "exists and is kept in memory, not on file");
    }
    if (is->NoAck || is->Sealed) {
        return refuse(why, want->Name, "exists and takes no acknowledged messages");
    }
    if (!want->AllowRollup) {
        return OK;
    }
    bool bucket = is->AllowRollup && is->AllowDirect && !is->DenyPurge &&
                  is->MaxMsgsPerSubject == want->MaxMsgsPerSubject;
    if (!bucket) {
        return refuse(why, want->Name, "exists and is no bucket of that history");
    }
    bool small = is->MaxBytes > 0 && is->MaxBytes < want->MaxBytes;
    return small ? refuse(why, want->Name, "exists and is smaller than asked for") : OK;
}

static void take_info(const jsStreamInfo *is, struct stream_info *out)
{
    *out = (struct stream_info){.messages = is->State.Msgs,
                                .bytes = is->State.Bytes,
                                .max_bytes =
                                    is->Config->MaxBytes > 0 ? (uint64_t)is->Config->MaxBytes : 0,
                                .replicas = 1,
                                .replicas_current = 1};
    /* Those that there are: a server that stands alone takes any number for its configuration. */
    for (int i = 0; is->Cluster != NULL && i < is->Cluster->ReplicasLen; i++) {
        const jsPeerInfo *peer = is->Cluster->Replicas[i];
        out->replicas++;
        out->replicas_current += peer->Current && !peer->Offline;
    }
}

static struct err look(struct bus *bus, const char *prefix, const char *name, uint64_t timeout_ms,
                       jsStreamInfo **out)
{
    struct api api;
    jsErrCode code = 0;
    TRY(api_begin(&api, bus, prefix, timeout_ms));
    natsStatus status = js_GetStreamInfo(out, api.js, name, /* opts= */ NULL, &code);
    struct err err = api_end(&api, status, code);
    return err.code == E_RESULT_UNKNOWN ? FAIL(E_UNAVAILABLE) : err; /* only looked. */
}

struct err look_at_stream(struct bus *bus, const char *api, const char *name, uint64_t timeout_ms,
                          struct stream_info *out)
{
    jsStreamInfo *info = NULL;
    TRY(look(bus, api, name, timeout_ms, &info));
    take_info(info, out);
    jsStreamInfo_Destroy(info);
    return OK;
}

static struct err hold_against(struct bus *bus, const jsStreamConfig *want, uint64_t timeout_ms,
                               struct buf *why, struct stream_info *out)
{
    jsStreamInfo *info = NULL;
    TRY(look(bus, KV_API, want->Name, timeout_ms, &info));
    struct err err = judge_stream(info->Config, want, why);
    if (out != NULL) {
        take_info(info, out);
    }
    jsStreamInfo_Destroy(info);
    return err;
}

struct err ensure_stream(struct bus *bus, jsStreamConfig *want, uint64_t timeout_ms,
                         struct buf *why, struct stream_info *out)
{
    struct err err = hold_against(bus, want, timeout_ms, why, out);
    if (err.code != E_NOT_FOUND) {
        say_words(why, bus, want->Name, err);
        return err;
    }
    struct api api;
    jsErrCode code = 0;
    jsStreamInfo *info = NULL;
    TRY(api_begin(&api, bus, KV_API, timeout_ms));
    natsStatus status = js_AddStream(&info, api.js, want, /* opts= */ NULL, &code);
    err = api_end(&api, status, code);
    if ((int)code == API_STREAM_NAME_IN_USE) { /* another replica was faster. */
        return hold_against(bus, want, timeout_ms, why, out);
    }
    if (err.code == E_REPLICAS_MISSING) {
        say_why(why, want->Name, "cannot have as many replicas as asked for: too few servers");
    }
    say_words(why, bus, want->Name, err);
    if (err_ok(err) && out != NULL) {
        take_info(info, out);
    }
    jsStreamInfo_Destroy(info);
    return err.code == E_CONFLICT ? refuse(why, want->Name, "overlaps another stream") : err;
}

/* More replicas lose nothing, while fewer might: it only ever goes up. */
struct err raise_stream(struct bus *bus, const char *name, uint32_t replicas, uint64_t timeout_ms,
                        struct stream_info *out)
{
    struct api api;
    jsErrCode code = 0;
    jsStreamInfo *is = NULL;
    jsStreamInfo *raised = NULL;
    TRY(look(bus, KV_API, name, timeout_ms, &is));
    take_info(is, out);
    jsStreamConfig config = *is->Config; /* its texts stay those of 'is'. */
    struct err err = OK;
    if (out->replicas < replicas && is->Cluster == NULL) {
        err = FAIL(E_REPLICAS_MISSING);
    } else if (out->replicas < replicas) {
        config.Replicas = replicas;
        err = api_begin(&api, bus, KV_API, timeout_ms);
        if (err_ok(err)) {
            natsStatus status = js_UpdateStream(&raised, api.js, &config, /* opts= */ NULL, &code);
            err = api_end(&api, status, code);
        }
        if (err_ok(err)) {
            take_info(raised, out);
        }
    }
    jsStreamInfo_Destroy(raised);
    jsStreamInfo_Destroy(is);
    return err;
}

struct err jetstream_stream_ensure(struct bus *bus, const struct jetstream_stream *want,
                                   uint64_t timeout_ms, struct buf *why, struct stream_info *out)
{
    CHECK(want->subject_count > 0 && want->subject_count <= JETSTREAM_SUBJECTS_MAX);
    const char *subjects[JETSTREAM_SUBJECTS_MAX];
    for (size_t i = 0; i < want->subject_count; i++) {
        subjects[i] = want->subjects[i];
    }
    jsStreamConfig config;
    (void)jsStreamConfig_Init(&config);
    config.Name = want->name;
    config.Subjects = subjects;
    config.SubjectsLen = (int)want->subject_count;
    config.Storage = js_FileStorage;
    config.Discard = js_DiscardOld;
    config.MaxBytes = (int64_t)(want->max_bytes == 0 ? limits.stream_max_bytes : want->max_bytes);
    config.MaxAge = (int64_t)want->max_age_ms * ns_per_ms;
    config.Duplicates =
        (int64_t)(want->duplicate_ms == 0 ? 120000 : want->duplicate_ms) * ns_per_ms;
    config.Replicas = want->replicas == 0 ? 1 : want->replicas;
    return ensure_stream(bus, &config, timeout_ms, why, out);
}

/* ---- consumers ---- */

struct numbers {
    int64_t ack_wait_ns;
    int64_t max_deliver;
    int64_t max_ack_pending;
};

static struct numbers numbers_of(const struct jetstream_consumer *c)
{
    uint64_t wait_ms = c->ack_wait_ms == 0 ? limits.ack_wait_ms : c->ack_wait_ms;
    uint64_t deliver = c->max_deliver == 0 ? limits.max_deliver : c->max_deliver;
    uint64_t pending = c->max_ack_pending == 0 ? limits.subscription_credit : c->max_ack_pending;
    return (struct numbers){.ack_wait_ns = (int64_t)wait_ms * ns_per_ms,
                            .max_deliver = (int64_t)deliver,
                            .max_ack_pending = (int64_t)pending};
}

static void fill_consumer(const struct jetstream_consumer *want, jsConsumerConfig *config)
{
    struct numbers numbers = numbers_of(want);
    (void)jsConsumerConfig_Init(config);
    config->Durable = want->durable;
    config->DeliverSubject = want->deliver;
    config->DeliverGroup = want->deliver == NULL ? NULL : want->durable;
    config->FilterSubject = want->filter;
    config->DeliverPolicy = want->from_start ? js_DeliverAll : js_DeliverNew;
    config->AckPolicy = js_AckExplicit;
    config->ReplayPolicy = js_ReplayInstant;
    config->AckWait = numbers.ack_wait_ns;
    config->MaxDeliver = numbers.max_deliver;
    config->MaxAckPending = numbers.max_ack_pending;
}

static bool same_text(const char *is, const char *want)
{
    return strcmp(is == NULL ? "" : is, want == NULL ? "" : want) == 0;
}

static struct err judge_consumer(const jsConsumerConfig *is, const jsConsumerConfig *want,
                                 struct buf *why, bool *out_same)
{
    if (is->AckPolicy != js_AckExplicit) {
        return refuse(why, want->Durable, "exists and needs no acks");
    }
    if (!same_text(is->DeliverGroup, want->DeliverGroup) ||
        !same_text(is->DeliverSubject, want->DeliverSubject)) {
        return refuse(why, want->Durable, "exists and delivers elsewhere");
    }
    if (!same_text(is->FilterSubject, want->FilterSubject)) {
        return refuse(why, want->Durable, "exists with another filter");
    }
    *out_same = is->AckWait == want->AckWait && is->MaxDeliver == want->MaxDeliver &&
                is->MaxAckPending == want->MaxAckPending;
    return OK;
}

/* E_NOT_FOUND when it is not there. What may not be changed is set in 'want' as it is. */
static struct err look_at_consumer(struct bus *bus, const char *stream, jsConsumerConfig *want,
                                   uint64_t timeout_ms, struct buf *why, bool *out_same)
{
    struct api api;
    jsConsumerInfo *info = NULL;
    jsErrCode code = 0;
    TRY(api_begin(&api, bus, KV_API, timeout_ms));
    natsStatus status =
        js_GetConsumerInfo(&info, api.js, stream, want->Durable, /* opts= */ NULL, &code);
    TRY(api_end(&api, status, code));
    struct err err = judge_consumer(info->Config, want, why, out_same);
    want->DeliverPolicy = info->Config->DeliverPolicy;
    want->OptStartSeq = info->Config->OptStartSeq;
    want->OptStartTime = info->Config->OptStartTime;
    jsConsumerInfo_Destroy(info);
    return err;
}

struct err jetstream_consumer_ensure(struct bus *bus, const struct jetstream_consumer *want,
                                     uint64_t timeout_ms, struct buf *why)
{
    jsConsumerConfig config;
    fill_consumer(want, &config);
    bool same = false;
    struct err err = look_at_consumer(bus, want->stream, &config, timeout_ms, why, &same);
    if (err.code == E_RESULT_UNKNOWN) {
        return FAIL(E_UNAVAILABLE); /* only looked. */
    }
    if ((!err_ok(err) && err.code != E_NOT_FOUND) || same) {
        return err;
    }
    struct api api;
    jsErrCode code = 0;
    TRY(api_begin(&api, bus, KV_API, timeout_ms)); /* makes it, or brings it to our numbers. */
    natsStatus status = js_AddConsumer(/* ci= */ NULL, api.js, want->stream, &config,
                                       /* opts= */ NULL, &code);
    err = api_end(&api, status, code);
    say_words(why, bus, want->durable, err);
    return err;
}
