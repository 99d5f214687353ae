/* refusals: see refusals.h. */
#include "dataplane/request/refusals.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/ids.h"
#include "dataplane/request/request.h"

enum { WORDS = sizeof(struct dp_refusal) / sizeof(uint64_t), ID_BITS = 60 };

/* An entry as its writer and its readers share it: words, and a number that is odd while they are
 * written. Each word is released behind the odd number and acquired before the second look, so that
 * whoever saw one new word sees a new number, too. */
struct slot {
    _Atomic uint64_t number;
    _Atomic uint64_t words[WORDS];
};

struct dp_refusals {
    size_t capacity;
    _Atomic uint64_t written;
    struct slot slots[];
};

struct err dp_refusals_new(size_t entries, struct dp_refusals **out)
{
    /* Untouched pages cost nothing: a worker that refuses little has little. */
    struct dp_refusals *r = calloc(1, sizeof(*r) + entries * sizeof(r->slots[0]));
    if (r == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    r->capacity = entries;
    *out = r;
    return OK;
}

void dp_refusals_free(struct dp_refusals *r)
{
    free(r);
}

/* ---- the worker ---- */

uint64_t dp_refusals_id(const struct dp_refusals *r)
{
    uint64_t id = 0;
    if (r == NULL || r->capacity == 0) {
        return 0;
    }
    while (id == 0) { /* once in 2^60 it is asked for again. */
        ids_quick(&id, sizeof(id));
        id >>= 64 - ID_BITS;
    }
    return id;
}

static const struct {
    const char *name;
    size_t max;
} texts[DP_REFUSAL_TEXT_COUNT] = {
#define X(id, name, max) {name, max},
    DP_REFUSAL_TEXTS(X)
#undef X
};

void dp_refusal_set(struct dp_refusal *entry, enum dp_refusal_text text, struct slice value)
{
    static const char mark[] = "...";
    size_t at = text == 0 ? 0 : entry->ends[text - 1];
    size_t room = DP_REFUSAL_TEXT_BYTES - at;
    room = room < texts[text].max ? room : texts[text].max;
    size_t size = value.size <= room ? value.size : room;
    for (size_t i = 0; i < size; i++) {
        uint8_t c = value.ptr[i];
        entry->texts[at + i] = c >= ' ' && c < 0x7f ? (char)c : '?';
    }
    if (size < value.size && size >= sizeof(mark) - 1) {
        memcpy(entry->texts + at + size - (sizeof(mark) - 1), mark, sizeof(mark) - 1);
    }
    for (size_t i = text; i < DP_REFUSAL_TEXT_COUNT; i++) {
        entry->ends[i] = (uint16_t)(at + size);
    }
}

void dp_refusals_add(struct dp_refusals *r, const struct dp_refusal *entry)
{
    if (r == NULL || r->capacity == 0 || entry->id == 0) {
        return;
    }
    uint64_t words[WORDS];
    memcpy(words, entry, sizeof(words));
    uint64_t written = atomic_load_explicit(&r->written, memory_order_relaxed);
    struct slot *slot = &r->slots[written % r->capacity];
    uint64_t number = atomic_load_explicit(&slot->number, memory_order_relaxed);
    atomic_store_explicit(&slot->number, number + 1, memory_order_relaxed);
    for (size_t i = 0; i < WORDS; i++) {
        atomic_store_explicit(&slot->words[i], words[i], memory_order_release);
    }
    atomic_store_explicit(&slot->number, number + 2, memory_order_release);
    atomic_store_explicit(&r->written, written + 1, memory_order_release);
}

/* What was asked, and how it was decided; all of it may be missing. */
struct asked {
    const struct dp_target *target;
    struct slice rule;
    struct slice limit;
    struct slice method;
    struct slice upstream;
    struct slice sentence;
};

static void set_texts(struct dp_refusal *entry, const struct dp_request *rq,
                      const struct asked *asked, const char *where)
{
    struct slice none = {0};
    char trace_id[TRACE_ID_SIZE + 1];
    trace_format_id(&rq->trace, trace_id);
    dp_refusal_set(entry, DP_REFUSAL_LANE, slice_str(rq->lane->name));
    dp_refusal_set(entry, DP_REFUSAL_CALLER, rq->caller == NULL ? none : rq->caller->id);
    dp_refusal_set(entry, DP_REFUSAL_TENANT, rq->caller == NULL ? none : rq->caller->tenant);
    dp_refusal_set(entry, DP_REFUSAL_TARGET, asked->target == NULL ? none : asked->target->id);
    dp_refusal_set(entry, DP_REFUSAL_RULE, asked->rule);
    dp_refusal_set(entry, DP_REFUSAL_LIMIT, asked->limit);
    dp_refusal_set(entry, DP_REFUSAL_METHOD, asked->method);
    dp_refusal_set(entry, DP_REFUSAL_TRACE, slice_of(trace_id, TRACE_ID_SIZE));
    dp_refusal_set(entry, DP_REFUSAL_UPSTREAM, asked->upstream);
    dp_refusal_set(entry, DP_REFUSAL_PEER, rq->in.peer);
    dp_refusal_set(entry, DP_REFUSAL_SENTENCE, asked->sentence);
    dp_refusal_set(entry, DP_REFUSAL_ROUTE, rq->route == NULL ? none : rq->route->id);
    dp_refusal_set(entry, DP_REFUSAL_REQUEST, rq->request_id);
    dp_refusal_set(entry, DP_REFUSAL_CORRELATION, rq->correlation);
    dp_refusal_set(entry, DP_REFUSAL_WHERE, slice_str(where));
}

static struct dp_refusal entry_of(const struct dp_request *rq, uint64_t id, enum err_code code)
{
    uint64_t us = (clock_mono_ns() - rq->started_ns) / 1000;
    return (struct dp_refusal){
        .id = id,
        .time_ms = clock_wall_ms(),
        .boot_ms = clock_boot_ns() / 1000000,
        .version = rq->model == NULL ? 0 : dp_model_version(rq->model),
        .code = (int32_t)code,
        .grpc_status = -1,
        .us = us > UINT32_MAX ? UINT32_MAX : (uint32_t)us,
    };
}

void dp_refusals_note(struct dp_refusals *r, const struct dp_request *rq)
{
    if (r == NULL || rq->explain == 0) {
        return;
    }
    struct dp_refusal entry = entry_of(rq, rq->explain, rq->err.code);
    entry.grpc_status = (int16_t)rq->grpc_status;
    entry.http_status = (int16_t)rq->http_status;
    const struct asked asked = {.target = rq->target,
                                .rule = rq->verdict.rule,
                                .limit = rq->limit,
                                .method = rq->method.size > 0 ? rq->method : rq->in.path,
                                .upstream = rq->upstream,
                                .sentence = rq->sentence};
    set_texts(&entry, rq, &asked, rq->err.where);
    dp_refusals_add(r, &entry);
}

uint64_t dp_refusals_note_message(struct dp_refusals *r, const struct dp_request *rq,
                                  const struct dp_refused_message *message)
{
    uint64_t id = dp_refusals_id(r);
    if (id == 0) {
        return 0;
    }
    struct dp_refusal entry = entry_of(rq, id, message->why.code);
    struct asked asked = {.method = message->type, .sentence = message->sentence};
    if (message->decided) {
        bool limited = message->why.code == E_RATE_LIMITED ||
                       message->why.code == E_LIMIT_KEY_MISSING; /* else of an earlier message. */
        asked.target = rq->target;
        asked.rule = rq->verdict.rule;
        asked.limit = limited ? rq->limit : (struct slice){0};
    }
    set_texts(&entry, rq, &asked, message->why.where);
    dp_refusals_add(r, &entry);
    return id;
}

/* ---- any thread ---- */

/* The words as they were between two looks at the number; false: somebody wrote. */
static bool read_slot(const struct slot *slot, struct dp_refusal *out)
{
    uint64_t words[WORDS];
    uint64_t number = atomic_load_explicit(&slot->number, memory_order_acquire);
    if (number == 0 || number % 2 != 0) {
        return false;
    }
    for (size_t i = 0; i < WORDS; i++) {
        words[i] = atomic_load_explicit(&slot->words[i], memory_order_acquire);
    }
    if (atomic_load_explicit(&slot->number, memory_order_relaxed) != number) {
        return false;
    }
    memcpy(out, words, sizeof(*out));
    return true;
}

static bool is_young(const struct dp_refusal *entry)
{
    return clock_boot_ns() / 1000000 - entry->boot_ms < DP_REFUSAL_LIFE_MS;
}

bool dp_refusals_find(const struct dp_refusals *r, uint64_t id, struct dp_refusal *out)
{
    struct dp_refusal entry;
    for (size_t i = 0; i < r->capacity; i++) {
        const struct slot *slot = &r->slots[i];
        if (atomic_load_explicit(&slot->words[0], memory_order_relaxed) == id &&
            read_slot(slot, &entry) && entry.id == id && is_young(&entry)) {
            *out = entry;
            return true;
        }
    }
    return false;
}

bool dp_refusals_latest(const struct dp_refusals *r, size_t back, struct dp_refusal *out)
{
    uint64_t written = dp_refusals_count(r);
    if (back >= written || back >= r->capacity) {
        return false;
    }
    return read_slot(&r->slots[(written - 1 - back) % r->capacity], out) && is_young(out);
}

uint64_t dp_refusals_count(const struct dp_refusals *r)
{
    return atomic_load_explicit(&r->written, memory_order_acquire);
}

/* ---- pure functions ---- */

struct slice dp_refusal_text(const struct dp_refusal *entry, enum dp_refusal_text text)
{
    size_t at = text == 0 ? 0 : entry->ends[text - 1];
    CHECK(at <= entry->ends[text] && entry->ends[text] <= DP_REFUSAL_TEXT_BYTES);
    return slice_of(entry->texts + at, entry->ends[text] - at);
}

const char *dp_refusal_text_name(enum dp_refusal_text text)
{
    return texts[text].name;
}

static const char digits[] = "0123456789abcdefghjkmnpqrstvwxyz";

void dp_refusal_id_format(uint64_t id, char out[DP_REFUSAL_ID_SIZE + 1])
{
    for (size_t i = 0; i < DP_REFUSAL_ID_SIZE; i++) {
        out[i] = digits[id >> (ID_BITS - 5 * (i + 1)) & 31];
    }
    out[DP_REFUSAL_ID_SIZE] = '\0';
}

bool dp_refusal_id_parse(struct slice text, uint64_t *out)
{
    uint64_t id = 0;
    if (text.size != DP_REFUSAL_ID_SIZE) {
        return false;
    }
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.ptr[i] >= 'A' && text.ptr[i] <= 'Z' ? text.ptr[i] | 0x20 : text.ptr[i];
        const char *digit = c == '\0' ? NULL : strchr(digits, c);
        if (digit == NULL) {
            return false;
        }
        id = id << 5 | (uint64_t)(digit - digits);
    }
    *out = id;
    return id != 0;
}
