/* Names of numbers, and of keys in the bucket. */
#include "common/snapshot/format.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/base/text.h"

const char *snap_state_name(uint32_t state)
{
    static const char *const names[SNAP_STATE_COUNT] = {
#define X(number, name) [number] = #name,
        SNAP_STATE_LIST(X)
#undef X
    };
    return state < SNAP_STATE_COUNT ? names[state] : "UNKNOWN";
}

const char *stream_kind_name(uint32_t kind)
{
    static const char *const names[STREAM_POSITIONS + 1] = {
        [STREAM_ROUTING] = "routing",
        [STREAM_TRUST] = "trust",
        [STREAM_REVOCATIONS] = "revocations",
        [STREAM_AUTHORISATION] = "authorisation",
        [STREAM_LIMITS] = "limits",
        [STREAM_TRANSPORT] = "transport",
        [STREAM_EGRESS] = "egress",
        [STREAM_SCHEMAS] = "schemas",
        [STREAM_BUS] = "bus",
        [STREAM_FILTERS] = "filters",
        [STREAM_PROVIDERS] = "providers",
        [STREAM_FLAGS] = "flags",
        [STREAM_TELEMETRY] = "telemetry",
        [STREAM_POSITIONS] = "positions",
    };
    return kind <= STREAM_POSITIONS ? names[kind] : NULL;
}

const char *capability_name(unsigned bit)
{
    static const char *const names[64] = {
#define X(number, name, text) [number] = #name,
        CAPABILITY_LIST(X)
#undef X
    };
    return bit < 64 ? names[bit] : NULL;
}

static const char *const role_names[KEY_ROLE_COUNT] = {
    [KEY_ROLE_ROOT] = "root",
    [KEY_ROLE_MANIFEST] = "manifest",
    [KEY_ROLE_HEAD] = "head",
    [KEY_ROLE_NODE] = "node",
};

const char *key_role_name(enum key_role role)
{
    return (unsigned)role < KEY_ROLE_COUNT ? role_names[role] : "unknown";
}

bool key_role_find(struct slice name, enum key_role *out)
{
    for (unsigned i = 0; i < KEY_ROLE_COUNT; i++) {
        if (slice_eq(name, slice_str(role_names[i]))) {
            *out = (enum key_role)i;
            return true;
        }
    }
    return false;
}

void snap_environment(struct slice name, uint8_t out[ENVIRONMENT_SIZE])
{
    uint8_t digest[DIGEST_SIZE];
    ids_digest(name, digest);
    memcpy(out, digest, ENVIRONMENT_SIZE);
}

void snap_key_chunk(const uint8_t digest[DIGEST_SHORT_SIZE], char out[SNAP_KEY_SIZE])
{
    char hex[2 * DIGEST_SHORT_SIZE + 1];
    text_hex(slice_of(digest, DIGEST_SHORT_SIZE), hex);
    (void)snprintf(out, SNAP_KEY_SIZE, "chunk.%s", hex);
}

void snap_key_manifest(uint64_t version, const uint8_t digest[DIGEST_SIZE], char out[SNAP_KEY_SIZE])
{
    char hex[2 * DIGEST_SIZE + 1];
    text_hex(slice_of(digest, DIGEST_SIZE), hex);
    (void)snprintf(out, SNAP_KEY_SIZE, "manifest.%" PRIu64 ".%s", version, hex);
}

void snap_key_root(uint64_t version, char out[SNAP_KEY_SIZE])
{
    (void)snprintf(out, SNAP_KEY_SIZE, "root.%" PRIu64, version);
}
