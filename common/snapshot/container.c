/* Sizes first, then signatures; the body is handed on only as the bytes that were verified. */
#include "common/snapshot/container.h"

#include <string.h>

#include "common/base/check.h"
#include "common/snapshot/wire.h"

/* docs/formats.md: the tag keeps a signature from meaning anything elsewhere. */
#define SIGNED_TAG "trilane.dev/container/1"

static const uint8_t magic[4] = {'T', 'R', 'L', 'N'};

/* Offsets within the header. */
enum {
    AT_FORMAT = 4,
    AT_KIND = 6,
    AT_COUNT = 7,
    AT_ENVIRONMENT = 8,
    AT_BODY_SIZE = 24,
    AT_RESERVED = 28,
};

static const struct {
    size_t body_max;
    bool one_signature;
    struct container_codes codes;
} kinds[CONTAINER_KIND_COUNT] = {
    [CONTAINER_ROOT] = {ROOT_BODY_MAX,
                        false,
                        {E_ROOT_MALFORMED, E_ROOT_MALFORMED, E_ROOT_UNSIGNED, E_ROOT_UNSIGNED}},
    [CONTAINER_MANIFEST] = {MANIFEST_BODY_MAX,
                            false,
                            {E_MANIFEST_MALFORMED, E_MANIFEST_MIXED, E_MANIFEST_UNSIGNED,
                             E_MANIFEST_WRONG_KEY}},
    [CONTAINER_HEAD] = {HEAD_BODY_MAX,
                        true,
                        {E_HEAD_MALFORMED, E_HEAD_WRONG_ENVIRONMENT, E_HEAD_UNSIGNED,
                         E_HEAD_WRONG_KEY}},
    [CONTAINER_STATUS] = {STATUS_BODY_MAX,
                          true,
                          {E_MALFORMED, E_MALFORMED, E_UNAUTHENTICATED, E_UNAUTHENTICATED}},
    [CONTAINER_SHARES] = {SHARES_BODY_MAX,
                          true,
                          {E_MALFORMED, E_MALFORMED, E_UNAUTHENTICATED, E_UNAUTHENTICATED}},
    [CONTAINER_DEMAND] = {DEMAND_BODY_MAX,
                          true,
                          {E_MALFORMED, E_MALFORMED, E_UNAUTHENTICATED, E_UNAUTHENTICATED}},
};

const struct container_codes *container_codes(enum container_kind kind)
{
    CHECK(kind >= CONTAINER_ROOT && kind < CONTAINER_KIND_COUNT);
    return &kinds[kind].codes;
}

size_t container_body_max(enum container_kind kind)
{
    CHECK(kind >= CONTAINER_ROOT && kind < CONTAINER_KIND_COUNT);
    return kinds[kind].body_max;
}

struct err container_signed_bytes(enum container_kind kind,
                                  const uint8_t environment[ENVIRONMENT_SIZE], struct slice body,
                                  struct buf *out)
{
    uint8_t size[4];
    uint8_t *room = NULL;
    wire_put32(size, (uint32_t)body.size);
    TRY(buf_reserve(out, sizeof(SIGNED_TAG) + 1 + ENVIRONMENT_SIZE + sizeof(size) + body.size,
                    &room));                                     /* a block that grows once. */
    TRY(buf_add(out, slice_of(SIGNED_TAG, sizeof(SIGNED_TAG)))); /* with its NUL */
    TRY(buf_add_byte(out, (uint8_t)kind));
    TRY(buf_add(out, slice_of(environment, ENVIRONMENT_SIZE)));
    TRY(buf_add(out, slice_of(size, sizeof(size))));
    return buf_add(out, body);
}

struct err container_sign(enum container_kind kind, const uint8_t environment[ENVIRONMENT_SIZE],
                          struct slice body, const struct key_pair *pair,
                          struct container_signature *out)
{
    if (body.size > container_body_max(kind)) {
        return FAIL(E_TOO_LARGE);
    }
    auto_buf struct buf bytes = BUF_MAX(MANIFEST_BODY_MAX + CONTAINER_HEADER_SIZE * 2);
    TRY(container_signed_bytes(kind, environment, body, &bytes));
    key_id(pair->public.bytes, out->key_id);
    key_sign(pair, buf_slice(&bytes), out->signature);
    return OK;
}

/* Whether a list of records that begin with a key id names one twice. */
static bool doubled_key_id(const uint8_t *records, size_t record_size, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        for (size_t k = 0; k < i; k++) {
            if (memcmp(records + i * record_size, records + k * record_size, KEY_ID_SIZE) == 0) {
                return true;
            }
        }
    }
    return false;
}

struct err container_seal(enum container_kind kind, const uint8_t environment[ENVIRONMENT_SIZE],
                          struct slice body, const struct container_signature *signatures,
                          size_t count, struct buf *out)
{
    _Static_assert(sizeof(*signatures) == CONTAINER_SIGNATURE_SIZE, "written as it is");
    if (body.size > container_body_max(kind) || count > CONTAINER_SIGNATURES_MAX) {
        return FAIL(E_TOO_LARGE);
    }
    if ((kinds[kind].one_signature && count != 1) ||
        doubled_key_id((const uint8_t *)signatures, sizeof(*signatures), count)) {
        return FAIL(E_USAGE);
    }
    uint8_t header[CONTAINER_HEADER_SIZE] = {0};
    memcpy(header, magic, sizeof(magic));
    wire_put16(header + AT_FORMAT, CONTAINER_FORMAT);
    header[AT_KIND] = (uint8_t)kind;
    header[AT_COUNT] = (uint8_t)count;
    memcpy(header + AT_ENVIRONMENT, environment, ENVIRONMENT_SIZE);
    wire_put32(header + AT_BODY_SIZE, (uint32_t)body.size);
    TRY(buf_add(out, slice_of(header, sizeof(header))));
    TRY(buf_add(out, slice_of(signatures, count * sizeof(*signatures))));
    return buf_add(out, body);
}

/* The header by itself: every byte of it is judged. */
static bool header_holds(struct slice bytes, enum container_kind kind)
{
    const uint8_t *p = bytes.ptr;
    if (bytes.size < CONTAINER_HEADER_SIZE || memcmp(p, magic, sizeof(magic)) != 0 ||
        wire_get16(p + AT_FORMAT) != CONTAINER_FORMAT || p[AT_KIND] != (uint8_t)kind) {
        return false;
    }
    size_t count = p[AT_COUNT];
    size_t body_size = wire_get32(p + AT_BODY_SIZE);
    if (count > CONTAINER_SIGNATURES_MAX || (kinds[kind].one_signature && count != 1) ||
        body_size > container_body_max(kind) || wire_get32(p + AT_RESERVED) != 0) {
        return false;
    }
    return bytes.size == CONTAINER_HEADER_SIZE + count * CONTAINER_SIGNATURE_SIZE + body_size;
}

struct err container_read(struct slice bytes, enum container_kind kind, const uint8_t *environment,
                          struct container *out)
{
    const struct container_codes *codes = container_codes(kind);
    if (!header_holds(bytes, kind)) {
        return FAIL(codes->malformed);
    }
    if (environment != NULL &&
        memcmp(bytes.ptr + AT_ENVIRONMENT, environment, ENVIRONMENT_SIZE) != 0) {
        return FAIL(codes->wrong_environment);
    }
    size_t count = bytes.ptr[AT_COUNT];
    struct slice rest = slice_from(bytes, CONTAINER_HEADER_SIZE);
    if (doubled_key_id(rest.ptr, CONTAINER_SIGNATURE_SIZE, count)) {
        return FAIL(codes->malformed);
    }
    *out = (struct container){
        .kind = kind,
        .signature_count = (uint8_t)count,
        .signatures = slice_head(rest, count * CONTAINER_SIGNATURE_SIZE),
        .body = slice_from(rest, count * CONTAINER_SIGNATURE_SIZE),
    };
    memcpy(out->environment, bytes.ptr + AT_ENVIRONMENT, ENVIRONMENT_SIZE);
    return OK;
}

struct err container_seal_one(enum container_kind kind, const uint8_t environment[ENVIRONMENT_SIZE],
                              struct slice body, const struct key_pair *pair, struct buf *out)
{
    struct container_signature signature;
    CHECK(kinds[kind].one_signature);
    TRY(container_sign(kind, environment, body, pair, &signature));
    return container_seal(kind, environment, body, &signature, 1, out);
}

struct err container_open_one(struct slice bytes, enum container_kind kind,
                              const uint8_t environment[ENVIRONMENT_SIZE],
                              const struct key_public *key, struct container *out)
{
    struct container c = {0};
    uint8_t id[KEY_ID_SIZE];
    CHECK(kinds[kind].one_signature);
    TRY(container_read(bytes, kind, environment, &c));
    key_id(key->bytes, id);
    auto_buf struct buf signed_bytes =
        BUF_MAX(container_body_max(kind) + (size_t)CONTAINER_HEADER_SIZE * 2);
    TRY(container_signed_bytes(c.kind, c.environment, c.body, &signed_bytes));
    if (memcmp(c.signatures.ptr, id, KEY_ID_SIZE) != 0 ||
        !key_verify(key->bytes, buf_slice(&signed_bytes), c.signatures.ptr + KEY_ID_SIZE)) {
        return FAIL(container_codes(kind)->unsigned_);
    }
    *out = c;
    return OK;
}

static const struct ring_key *ring_find(const struct keyring *ring, const uint8_t *id)
{
    for (uint32_t i = 0; i < ring->count; i++) {
        if (memcmp(ring->keys[i].id, id, KEY_ID_SIZE) == 0) {
            return &ring->keys[i];
        }
    }
    return NULL;
}

struct err container_verify(const struct container *c, const struct keyring *ring,
                            enum key_role role, struct container_signers *out)
{
    CHECK(role < ROOT_ROLE_COUNT && ring->thresholds[role] > 0);
    *out = (struct container_signers){0};
    auto_buf struct buf bytes = BUF_MAX(MANIFEST_BODY_MAX + CONTAINER_HEADER_SIZE * 2);
    TRY(container_signed_bytes(c->kind, c->environment, c->body, &bytes));
    bool other_role = false;
    uint32_t good = 0;
    for (size_t i = 0; i < c->signature_count; i++) {
        const uint8_t *record = c->signatures.ptr + i * CONTAINER_SIGNATURE_SIZE;
        const struct ring_key *key = ring_find(ring, record);
        if (key == NULL) {
            out->unknown = true;
            continue;
        }
        if (!key_verify(key->public, buf_slice(&bytes), record + KEY_ID_SIZE)) {
            continue;
        }
        other_role = other_role || key->role != role;
        good += key->role == role ? 1 : 0;
        if (good == ring->thresholds[role]) {
            out->last = key;
            return OK;
        }
    }
    const struct container_codes *codes = container_codes(c->kind);
    return FAIL(other_role ? codes->wrong_key : codes->unsigned_);
}

void container_body_digest(const struct container *c, uint8_t out[DIGEST_SIZE])
{
    ids_digest(c->body, out);
}
