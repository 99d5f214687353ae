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

/* Each kind with its format in snapshot formats N-1 and N. */
static const struct {
    const char *name;
    uint32_t former;
    uint32_t present;
} kinds[STREAM_POSITIONS + 1] = {
    [STREAM_ROUTING] = {"routing", 1, 1},
    [STREAM_TRUST] = {"trust", 1, TRUST_FORMAT_BY_KEY},
    [STREAM_REVOCATIONS] = {"revocations", 1, 1},
    [STREAM_AUTHORISATION] = {"authorisation", 1, 1},
    [STREAM_LIMITS] = {"limits", 1, 1},
    [STREAM_TRANSPORT] = {"transport", 1, 1},
    [STREAM_EGRESS] = {"egress", 1, 1},
    [STREAM_SCHEMAS] = {"schemas", 1, 1},
    [STREAM_BUS] = {"bus", 1, 1},
    [STREAM_FILTERS] = {"filters", 1, 1},
    [STREAM_PROVIDERS] = {"providers", 1, 1},
    [STREAM_FLAGS] = {"flags", 1, 1},
    [STREAM_TELEMETRY] = {"telemetry", 1, 1},
    [STREAM_POSITIONS] = {"positions", 1, 1},
};

const char *stream_kind_name(uint32_t kind)
{
    return kind <= STREAM_POSITIONS ? kinds[kind].name : NULL;
}

uint32_t stream_format(uint32_t kind, uint32_t format)
{
    if (kind > STREAM_POSITIONS) {
        return 0;
    }
    return format == SNAPSHOT_FORMAT         ? kinds[kind].present
           : format == SNAPSHOT_FORMAT_LEAST ? kinds[kind].former
                                             : 0;
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
