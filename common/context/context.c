/* context: see context.h. */
#include "common/context/context.h"

#include "common/base/check.h"
#include "common/base/ids.h"
#include "common/base/text.h"

struct row {
    struct slice http;
    struct slice nats;
    struct slice nats_alias;
    struct slice envelope;
};

#define LIT(text)                                                                                  \
    {                                                                                              \
        (const uint8_t *)("" text), sizeof(text) - 1                                               \
    }

static const struct row rows[CONTEXT_COUNT] = {
#define X(name, http, nats, nats_alias, envelope)                                                  \
    [CONTEXT_##name] = {LIT(http), LIT(nats), LIT(nats_alias), LIT(envelope)},
    CONTEXT_LIST(X)
#undef X
};

static const struct row *row_of(enum context_name name)
{
    CHECK(name < CONTEXT_COUNT);
    return &rows[name];
}

struct slice context_http(enum context_name name)
{
    return row_of(name)->http;
}

struct slice context_nats(enum context_name name)
{
    return row_of(name)->nats;
}

struct slice context_nats_alias(enum context_name name)
{
    return row_of(name)->nats_alias;
}

struct slice context_envelope(enum context_name name)
{
    return row_of(name)->envelope;
}

enum context_name context_find_http(struct slice header)
{
    if (header.size == 0) {
        return CONTEXT_COUNT;
    }
    for (size_t i = 0; i < CONTEXT_COUNT; i++) {
        if (rows[i].http.size == header.size && slice_eq_nocase(rows[i].http, header)) {
            return (enum context_name)i;
        }
    }
    return CONTEXT_COUNT;
}

enum context_name context_find_nats(struct slice header)
{
    for (size_t i = 0; i < CONTEXT_COUNT && header.size > 0; i++) {
        if (slice_eq(rows[i].nats, header) || slice_eq(rows[i].nats_alias, header)) {
            return (enum context_name)i;
        }
    }
    return CONTEXT_COUNT;
}

enum context_name context_find_envelope(struct slice header)
{
    for (size_t i = 0; i < CONTEXT_COUNT && header.size > 0; i++) {
        if (slice_eq(rows[i].envelope, header)) {
            return (enum context_name)i;
        }
    }
    return CONTEXT_COUNT;
}

/* ---- the edge ---- */

static uint8_t fold(uint8_t byte)
{
    if (byte >= 'A' && byte <= 'Z') {
        return (uint8_t)(byte - 'A' + 'a');
    }
    return byte == '_' ? '-' : byte;
}

static bool starts_folded(struct slice header, struct slice prefix)
{
    if (header.size < prefix.size) {
        return false;
    }
    for (size_t i = 0; i < prefix.size; i++) {
        if (fold(header.ptr[i]) != prefix.ptr[i]) {
            return false;
        }
    }
    return true;
}

enum context_edge context_judge_client(struct slice header)
{
    static const struct slice caller = LIT("x-caller-id");
    static const struct slice certificate = LIT("x-forwarded-client-cert");
    static const struct slice tenant = LIT("x-tenant-id");
    static const struct slice ours = LIT("x-trilane-");
    if (header.size < caller.size - 1 || fold(header.ptr[0]) != 'x') {
        return CONTEXT_PASS; /* most end here: one look at the first byte. */
    }
    bool strip = (header.size == caller.size && starts_folded(header, caller)) ||
                 (header.size == certificate.size && starts_folded(header, certificate)) ||
                 starts_folded(header, ours);
    if (strip) {
        return CONTEXT_STRIP;
    }
    bool judge = header.size == tenant.size && starts_folded(header, tenant);
    return judge ? CONTEXT_JUDGE : CONTEXT_PASS;
}

bool context_id_valid(struct slice id)
{
    if (id.size == 0 || id.size > CONTEXT_ID_MAX) {
        return false;
    }
    for (size_t i = 0; i < id.size; i++) {
        if (id.ptr[i] <= ' ' || id.ptr[i] >= 0x7f) {
            return false;
        }
    }
    return true;
}

void context_id_make(char out[CONTEXT_ID_SIZE + 1])
{
    uint8_t bytes[CONTEXT_ID_SIZE / 2];
    ids_quick(bytes, sizeof(bytes));
    text_hex(slice_of(bytes, sizeof(bytes)), out);
}
