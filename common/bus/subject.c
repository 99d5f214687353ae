/* subject: see subject.h. */
#include "common/bus/subject.h"

#include <stdio.h>

#define XXH_STATIC_LINKING_ONLY /* for a state on the stack. */
#include <xxhash.h>

#include "common/base/check.h"
#include "common/base/text.h"

static struct err add_text(struct subject *s, struct slice text);
static struct err add_token(struct subject *s, struct slice token);
static struct err add_number(struct subject *s, uint64_t number);
static struct err add_hex(struct subject *s, struct slice bytes);
static bool byte_is_plain(uint8_t byte);

/* "trilane.<env>." */
static struct err begin(struct subject *s, struct slice environment)
{
    *s = (struct subject){0};
    TRY(add_text(s, SLICE_LIT("trilane.")));
    TRY(add_token(s, environment));
    return add_text(s, SLICE_LIT("."));
}

static struct err done(const struct subject *s, struct subject *out)
{
    *out = *s;
    return OK;
}

static struct err add_any_token(struct subject *s, struct slice token)
{
    return token.size == 0 ? add_text(s, SLICE_LIT("*")) : add_token(s, token);
}

/* ---- events ---- */

struct err subject_event(const struct subject_event *event, struct subject *out)
{
    bool whole = event->tenant.size > 0 && event->type.size > 0 && event->major > 0 &&
                 event->partition != SUBJECT_ANY;
    if (!whole || slice_eq(event->type, SLICE_LIT("_"))) { /* "_" is what frames go under. */
        return FAIL(E_MALFORMED);
    }
    return subject_event_filter(event, out);
}

/* "trilane.<env>.event.<partition>.<tenant>." */
static struct err begin_event(struct subject *s, const struct subject_event *event)
{
    TRY(begin(s, event->environment));
    TRY(add_text(s, SLICE_LIT("event.")));
    TRY(event->partition == SUBJECT_ANY ? add_text(s, SLICE_LIT("*"))
                                        : add_number(s, event->partition));
    TRY(add_text(s, SLICE_LIT(".")));
    TRY(add_any_token(s, event->tenant));
    return add_text(s, SLICE_LIT("."));
}

struct err subject_event_filter(const struct subject_event *event, struct subject *out)
{
    struct subject s;
    TRY(begin_event(&s, event));
    TRY(add_any_token(&s, event->type));
    if (event->major == 0) {
        TRY(add_text(&s, SLICE_LIT(".*")));
    } else {
        TRY(add_text(&s, SLICE_LIT(".v")));
        TRY(add_number(&s, event->major));
    }
    return done(&s, out);
}

struct err subject_events(struct slice environment, struct subject *out)
{
    struct subject s;
    TRY(begin(&s, environment));
    TRY(add_text(&s, SLICE_LIT("event.>")));
    return done(&s, out);
}

struct err subject_frame(const struct subject_event *event, struct subject *out)
{
    if (event->tenant.size == 0 || event->partition == SUBJECT_ANY) {
        return FAIL(E_MALFORMED);
    }
    struct subject s;
    TRY(begin_event(&s, event));
    TRY(add_text(&s, SLICE_LIT("_.frame")));
    return done(&s, out);
}

/* ---- others ---- */

struct err subject_head(struct slice environment, struct subject *out)
{
    struct subject s;
    TRY(begin(&s, environment));
    TRY(add_text(&s, SLICE_LIT("head")));
    return done(&s, out);
}

struct err subject_content(struct slice environment, struct subject *out)
{
    struct subject s;
    TRY(begin(&s, environment));
    TRY(add_text(&s, SLICE_LIT("content")));
    return done(&s, out);
}

static struct err of_node(struct slice environment, struct slice what, struct slice node,
                          struct subject *out)
{
    struct subject s;
    TRY(begin(&s, environment));
    TRY(add_text(&s, what));
    TRY(add_text(&s, SLICE_LIT(".")));
    TRY(node.size == 0 ? add_text(&s, SLICE_LIT("*")) : add_token(&s, node));
    return done(&s, out);
}

struct err subject_demand(struct slice environment, struct slice node, struct subject *out)
{
    return of_node(environment, SLICE_LIT("demand"), node, out);
}

struct err subject_shares(struct slice environment, struct slice node, struct subject *out)
{
    return of_node(environment, SLICE_LIT("shares"), node, out);
}

struct err subject_proposal(struct slice environment, struct subject *out)
{
    struct subject s;
    TRY(begin(&s, environment));
    TRY(add_text(&s, SLICE_LIT("proposal")));
    return done(&s, out);
}

/* "trilane.<env>.<word>.<first>.<second>"; an empty second is left out. */
static struct err make(struct slice environment, struct slice word, struct slice first,
                       struct slice second, struct subject *out)
{
    struct subject s;
    TRY(begin(&s, environment));
    TRY(add_text(&s, word));
    TRY(add_text(&s, SLICE_LIT(".")));
    TRY(add_token(&s, first));
    if (second.size > 0) {
        TRY(add_text(&s, SLICE_LIT(".")));
        TRY(add_token(&s, second));
    }
    return done(&s, out);
}

struct err subject_quarantine(struct slice environment, struct slice stream, struct slice consumer,
                              struct subject *out)
{
    if (stream.size == 0 && consumer.size == 0) {
        struct subject s;
        TRY(begin(&s, environment));
        TRY(add_text(&s, SLICE_LIT("quarantine.>")));
        return done(&s, out);
    }
    if (consumer.size == 0) {
        return FAIL(E_MALFORMED);
    }
    return make(environment, SLICE_LIT("quarantine"), stream, consumer, out);
}

struct err subject_plugin(struct slice environment, struct slice plugin, struct slice phase,
                          struct subject *out)
{
    if (phase.size == 0) {
        return FAIL(E_MALFORMED);
    }
    return make(environment, SLICE_LIT("plugin"), plugin, phase, out);
}

struct err subject_deliver(struct slice environment, struct slice durable, struct subject *out)
{
    return make(environment, SLICE_LIT("deliver"), durable, (struct slice){0}, out);
}

struct err subject_pull(struct slice stream, struct slice durable, struct subject *out)
{
    struct subject s = {0};
    TRY(add_text(&s, SLICE_LIT("$JS.API.CONSUMER.MSG.NEXT.")));
    TRY(add_token(&s, stream));
    TRY(add_text(&s, SLICE_LIT(".")));
    TRY(add_token(&s, durable));
    return done(&s, out);
}

struct err subject_durable(struct slice environment, struct slice consumer, struct slice view,
                           struct subject *out)
{
    if (!text_is_name(environment) || !text_is_name(consumer) ||
        (view.size > 0 && !text_is_name(view))) {
        return FAIL(E_MALFORMED);
    }
    struct subject s = {0};
    TRY(add_text(&s, environment)); /* a name has no '_', so the parts cannot be mistaken. */
    TRY(add_text(&s, SLICE_LIT("_")));
    TRY(add_text(&s, consumer));
    if (view.size > 0) {
        TRY(add_text(&s, SLICE_LIT("_")));
        TRY(add_text(&s, view));
    }
    return done(&s, out);
}

/* ---- buckets and keys ---- */

static struct err bucket(struct slice environment, struct slice what, struct subject *out)
{
    if (!text_is_name(environment)) {
        return FAIL(E_MALFORMED);
    }
    struct subject s = {0};
    TRY(add_text(&s, SLICE_LIT("trilane_")));
    TRY(add_text(&s, environment));
    TRY(add_text(&s, what));
    return done(&s, out);
}

struct err subject_bucket_snapshots(struct slice environment, struct subject *out)
{
    return bucket(environment, SLICE_LIT("_snapshots"), out);
}

struct err subject_bucket_nodes(struct slice environment, struct subject *out)
{
    return bucket(environment, SLICE_LIT("_nodes"), out);
}

struct err subject_key_manifest(uint64_t version, struct slice digest, struct subject *out)
{
    struct subject s = {0};
    TRY(add_text(&s, SLICE_LIT("manifest.")));
    TRY(add_number(&s, version));
    TRY(add_text(&s, SLICE_LIT(".")));
    TRY(add_hex(&s, digest));
    return done(&s, out);
}

struct err subject_key_chunk(struct slice digest, struct subject *out)
{
    struct subject s = {0};
    TRY(add_text(&s, SLICE_LIT("chunk.")));
    TRY(add_hex(&s, digest));
    return done(&s, out);
}

struct err subject_key_root(uint64_t number, struct subject *out)
{
    struct subject s = {0};
    TRY(add_text(&s, SLICE_LIT("root.")));
    TRY(add_number(&s, number));
    return done(&s, out);
}

/* ---- types, partitions, ids ---- */

struct err subject_type_split(struct slice canonical_type, struct slice *out_type,
                              uint32_t *out_major)
{
    size_t digits = canonical_type.size;
    while (digits > 0 && canonical_type.ptr[digits - 1] >= '0' &&
           canonical_type.ptr[digits - 1] <= '9') {
        digits--;
    }
    struct slice type = slice_head(canonical_type, digits);
    struct slice number = slice_from(canonical_type, digits);
    uint64_t major = 0;
    bool fits = slice_ends(type, SLICE_LIT(".v")) && type.size > 2 && number.size > 0 &&
                number.size <= 9 && number.ptr[0] != '0' && slice_to_u64(number, &major);
    if (!fits) {
        return FAIL(E_TYPE_UNKNOWN);
    }
    *out_type = slice_head(type, type.size - 2);
    *out_major = (uint32_t)major;
    return OK;
}

uint32_t subject_partition(struct slice tenant, struct slice key, struct slice event_id,
                           uint32_t partitions)
{
    CHECK(partitions > 0);
    struct slice by = key.size > 0 ? key : event_id;
    XXH3_state_t state;
    XXH3_INITSTATE(&state);
    (void)XXH3_64bits_reset(&state);
    (void)XXH3_64bits_update(&state, tenant.ptr, tenant.size);
    (void)XXH3_64bits_update(&state, "", 1);
    (void)XXH3_64bits_update(&state, by.ptr, by.size);
    return (uint32_t)(XXH3_64bits_digest(&state) % partitions);
}

struct err subject_message_id(struct slice tenant, struct slice type, uint32_t major,
                              struct slice event_id, struct subject *out)
{
    if (event_id.size == 0 || event_id.size > EVENT_ID_MAX) {
        return FAIL(E_MALFORMED);
    }
    for (size_t i = 0; i < event_id.size; i++) {
        if (event_id.ptr[i] <= ' ' || event_id.ptr[i] >= 0x7f) {
            return FAIL(E_MALFORMED);
        }
    }
    struct subject s = {0};
    TRY(add_token(&s, tenant)); /* escaped, so that no '/' of theirs can move a border. */
    TRY(add_text(&s, SLICE_LIT("/")));
    TRY(add_token(&s, type));
    TRY(add_text(&s, SLICE_LIT(".v")));
    TRY(add_number(&s, major));
    TRY(add_text(&s, SLICE_LIT("/")));
    TRY(add_text(&s, event_id));
    return done(&s, out);
}

bool subject_is_valid(struct slice text)
{
    if (text.size == 0 || text.size > SUBJECT_SIZE_MAX) {
        return false;
    }
    uint8_t before = '.';
    for (size_t i = 0; i < text.size; i++) {
        uint8_t byte = text.ptr[i];
        if (byte <= ' ' || byte == 0x7f || (byte == '.' && before == '.')) {
            return false;
        }
        before = byte;
    }
    return before != '.';
}

/* ---- pieces ---- */

static struct err add_text(struct subject *s, struct slice text)
{
    if (text.size > SUBJECT_SIZE_MAX - s->size) {
        return FAIL(E_MALFORMED);
    }
    memcpy(s->text + s->size, text.ptr, text.size);
    s->size += text.size;
    s->text[s->size] = '\0';
    return OK;
}

static struct err add_token(struct subject *s, struct slice token)
{
    static const char hex[] = "0123456789ABCDEF";
    if (token.size == 0 || token.size > SUBJECT_TOKEN_MAX) {
        return FAIL(E_MALFORMED);
    }
    for (size_t i = 0; i < token.size; i++) {
        uint8_t byte = token.ptr[i];
        uint8_t escaped[3] = {'%', (uint8_t)hex[byte >> 4], (uint8_t)hex[byte & 15]};
        TRY(add_text(s, byte_is_plain(byte) ? slice_of(&byte, 1) : slice_of(escaped, 3)));
    }
    return OK;
}

static struct err add_number(struct subject *s, uint64_t number)
{
    char digits[24];
    int size = snprintf(digits, sizeof(digits), "%llu", (unsigned long long)number);
    CHECK(size > 0);
    return add_text(s, slice_of(digits, (size_t)size));
}

static struct err add_hex(struct subject *s, struct slice bytes)
{
    char hex[2 * SUBJECT_TOKEN_MAX + 1];
    if (bytes.size == 0 || bytes.size > SUBJECT_TOKEN_MAX) {
        return FAIL(E_MALFORMED);
    }
    text_hex(bytes, hex);
    return add_text(s, slice_of(hex, 2 * bytes.size));
}

static bool byte_is_plain(uint8_t byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
           (byte >= '0' && byte <= '9') || byte == '-' || byte == '_';
}
