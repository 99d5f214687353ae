/*
 * format: the constants of the snapshot's formats, and the names of its keys in KV.
 *
 * Units      sizes in bytes.
 * Threads    pure functions; any thread.
 * Source     docs/formats.md. A number that was released stays as it is.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/ids.h"
#include "common/base/slice.h"

/* ---- containers ---- */

enum {
    CONTAINER_FORMAT = 1,
    CONTAINER_HEADER_SIZE = 32,
    CONTAINER_SIGNATURE_SIZE = 72, /* key id and signature. */
    CONTAINER_SIGNATURES_MAX = 16,
    CONTAINER_MEMORY_FACTOR = 16, /* heap of a decoded body, in sizes of the body. */
    ENVIRONMENT_SIZE = 16,
    ROOT_BODY_MAX = 64 << 10,
    MANIFEST_BODY_MAX = 512 << 10,
    HEAD_BODY_MAX = 8 << 10,
    STATUS_BODY_MAX = 512,
    SHARES_BODY_MAX = 4 << 10,
    DEMAND_BODY_MAX = 4 << 10,
};

enum container_kind {
    CONTAINER_ROOT = 1,
    CONTAINER_MANIFEST = 2,
    CONTAINER_HEAD = 3,
    CONTAINER_STATUS = 4,
    CONTAINER_SHARES = 5,
    CONTAINER_DEMAND = 6,
    CONTAINER_KIND_COUNT,
};

/* ---- keys ---- */

enum {
    KEY_ID_SIZE = 8,
    KEY_PUBLIC_SIZE = 32,
    KEY_SEED_SIZE = 32,
    KEY_SIGNATURE_SIZE = 64,
    KEY_NAME_MAX = 63,
    KEY_FILE_MAX = 1024, /* bytes of a key file's text. */
    ROLE_KEYS_MAX = 16,  /* as many as a container has room for signatures. */
};

enum key_role {
    KEY_ROLE_ROOT,
    KEY_ROLE_MANIFEST,
    KEY_ROLE_HEAD,
    KEY_ROLE_NODE, /* a node's own key, for its status; never in a root. */
    KEY_ROLE_COUNT,
    ROOT_ROLE_COUNT = KEY_ROLE_NODE, /* roles that a root gives keys to. */
};

/* ---- streams ---- */

enum stream_kind {
    STREAM_ROUTING = 1,
    STREAM_TRUST = 2,
    STREAM_REVOCATIONS = 3,
    STREAM_AUTHORISATION = 4,
    STREAM_LIMITS = 5,
    STREAM_TRANSPORT = 6,
    STREAM_EGRESS = 7,
    STREAM_SCHEMAS = 8,
    STREAM_BUS = 9,
    STREAM_FILTERS = 10,
    STREAM_PROVIDERS = 11,
    STREAM_FLAGS = 12,
    STREAM_TELEMETRY = 13,
    STREAM_POSITIONS = 32, /* outside the content digest; fetched late. */
};

/*
 * A snapshot as a whole has a format, too: which format each kind of stream has in it. This release
 * reads N and N-1, and writes N-1 as long as a live node speaks no more than that. A node's status
 * says its N.
 *   1  every stream has format 1.
 *   2  trust has format 2: a caller is told by its key, and is known under each trust domain of the
 *      environment.
 */
enum { SNAPSHOT_FORMAT = 2, SNAPSHOT_FORMAT_LEAST = SNAPSHOT_FORMAT - 1 };

enum { TRUST_FORMAT_BY_KEY = 2 }; /* of trust: from this one on. */

enum {
    STREAMS_MAX = 64,
    STREAM_RAW_MAX = 256 << 20, /* all streams of a manifest together. */
    PART_HEADER_SIZE = 6,       /* key size u16, part size u32. */
    PART_KEY_MAX = 65535,
    PART_MAX = 16 << 20,
    PART_MEMORY_FACTOR = 64, /* heap of a decoded part, in sizes of the part. */
    CHUNK_RAW_MAX = 256 << 10,
    CHUNK_CUT_MIN = 8 << 10, /* a chunk with less than this is not cut after a part. */
    CHUNK_CUT_MOD = 24576,
    CHUNKS_MAX = 16384, /* chunks of one manifest; its body's bound is near it. */
};

enum { SCHEDULE_SPANS_MAX = 128 }; /* of one schedule of a policy. */

/*
 * What a node must be able to do to apply a snapshot: bit, name, meaning. A bit is set by the
 * compiler only where the content uses it.
 */
#define CAPABILITY_LIST(X)                                                                         \
    X(0, FRESHNESS_MAX, "the environment has freshness_max")                                       \
    X(1, HEADER_CONDITIONS, "a policy reads request headers")                                      \
    X(2, TRAIT_CONDITIONS, "a policy reads the caller's traits")                                   \
    X(3, LIMIT_KEYS, "a rate limit is counted by caller, tenant or method")                        \
    X(4, UPSTREAM_TLS, "an upstream is reached over TLS")                                          \
    X(5, REVOCATIONS, "identities, certificates, tokens or types are revoked")                     \
    X(6, TRUST_DOMAINS, "the environment has more than one trust domain")                          \
    X(7, BALANCING, "a service says how its endpoints are balanced or judged")                     \
    X(8, RETRIES, "a method is retried or hedged")                                                 \
    X(9, MIRRORS, "a route's requests are mirrored")                                               \
    X(10, ISSUERS, "tokens of an issuer prove who calls")                                          \
    X(11, CORS, "a route says which pages may call through a browser")                             \
    X(12, SERVICE_DESCRIPTORS, "a service has descriptors, for reflection")                        \
    X(13, LIMIT_VALUES, "a limit is counted by gRPC service or header, or names what is unknown")  \
    X(14, LIMIT_CONCURRENCY, "a limit counts what is in flight")                                   \
    X(15, SHEDDING, "nodes refuse some requests when their queues are long")                       \
    X(16, LIMIT_QUOTAS, "a limit is a quota of an hour, a day or a month")                         \
    X(17, LIMIT_SHARED, "a limit is the whole fleet's")                                            \
    X(18, TRUST_BUNDLES, "a trust domain has CAs of its own")                                      \
    X(19, POLICY_GRAPHS, "a policy has several graphs, or edges that are prefixes")                \
    X(20, POLICY_SHADOW, "a policy has shadow rules")                                              \
    X(21, POLICY_SCHEDULES, "a policy reads the clock")                                            \
    X(22, POLICY_GUARDRAILS, "the environment has guardrails of the policy")                       \
    X(23, ISSUER_DISCOVERY, "an issuer says where its keys are")                                   \
    X(24, REVOKED_SUBJECTS, "subjects of issuers are revoked")                                     \
    X(25, TLS_TERMS, "a profile terms a version of TLS, or TLS or certificates of callers")        \
    X(26, POLICY_COMPARISONS, "a policy compares numbers by order")                                \
    X(27, LIMIT_SHARED_KEYS, "a limit of the whole fleet is counted by key")

#define CAPABILITY_ENUM_(bit, name, text) CAPABILITY_##name = 1 << (bit),
enum snap_capability { CAPABILITY_NONE = 0, CAPABILITY_LIST(CAPABILITY_ENUM_) };
#undef CAPABILITY_ENUM_

#define CAPABILITY_OR_(bit, name, text) | (1ULL << (bit))
/* All that this build can do. */
#define CAPABILITIES_HERE (0ULL CAPABILITY_LIST(CAPABILITY_OR_))

/* What the stream of revocations asks for: these go where it goes. */
#define CAPABILITIES_OF_REVOCATIONS ((uint64_t)CAPABILITY_REVOCATIONS | CAPABILITY_REVOKED_SUBJECTS)

/* ---- heads ---- */

enum {
    HEAD_TARGETS_MAX = 16,
    HEAD_LABELS_MAX = 8,
    HEAD_SALT_SIZE = 16,
    HEAD_VALIDITY_MAX_MS = 60000,
    HEAD_EPOCH_JUMP = 1 << 20,
    REFUSED_DIGESTS_MAX = 8,
};

/* ---- shares of budgets ---- */

enum {
    SHARE_WHOLE = 1000000, /* parts of a budget. */
    SHARE_BUDGETS_MAX = 128,
    SHARE_VALID_MAX_MS = 10000,
};

/* ---- limits ---- */

/* Time of one request at a limit's rate, times its burst: sums of two still fit an int64_t. */
#define LIMIT_BUDGET_MAX_NS ((uint64_t)INT64_MAX / 4)

/* ---- status ---- */

enum {
    STATUS_OBJECT_MAX = 64,
    STATUS_PREFIX_SIZE = 8, /* of the content digest. */
    STATUS_HEALTH_MAX = 32,
};

/* Places of the numbers of a status's health. A node of a release before says fewer, or none; what
 * a newer one says behind them is passed over. */
enum status_health {
    STATUS_HEALTH_DEGRADED, /* services of which an endpoint misses its SLA. */
    STATUS_HEALTH_COUNT,
};

/* number, name: what a node says of itself. */
#define SNAP_STATE_LIST(X)                                                                         \
    X(0, NONE)     /* it has no snapshot. */                                                       \
    X(1, STARTING) /* it builds one from disk. */                                                  \
    X(2, APPLIED)  /* it serves the version since less than good_after_ms. */                      \
    X(3, GOOD)                                                                                     \
    X(4, REFUSED) /* it serves last-good; code and object say what it refused. */                  \
    X(5, STALE)   /* no fresh head, or no fresh content. */                                        \
    X(6, DRAINING)

#define SNAP_STATE_ENUM_(number, name) SNAP_##name = (number),
enum snap_state { SNAP_STATE_LIST(SNAP_STATE_ENUM_) SNAP_STATE_COUNT };
#undef SNAP_STATE_ENUM_

/* "GOOD"; "UNKNOWN" for a number that is not listed. */
const char *snap_state_name(uint32_t state);

/* "routing"; NULL when the kind is not listed. */
const char *stream_kind_name(uint32_t kind);

/* The format of a kind's streams in a snapshot of 'format'; 0 when this release knows no such kind
 * or does not read that format. */
uint32_t stream_format(uint32_t kind, uint32_t format);

/* "HEADER_CONDITIONS" for bit 1; NULL when the bit is not listed. */
const char *capability_name(unsigned bit);

/* "root", "manifest", "head", "node", and back; false when there is no such role. */
const char *key_role_name(enum key_role role);
bool key_role_find(struct slice name, enum key_role *out);

/* The 16 bytes that stand for an environment in a container. */
void snap_environment(struct slice name, uint8_t out[ENVIRONMENT_SIZE]);

/* ---- keys in the bucket ---- */

enum { SNAP_KEY_SIZE = 112 }; /* room for each name below with its NUL. */

/* "chunk.<32 hex digits>" */
void snap_key_chunk(const uint8_t digest[DIGEST_SHORT_SIZE], char out[SNAP_KEY_SIZE]);

/* "manifest.<version>.<64 hex digits>" */
void snap_key_manifest(uint64_t version, const uint8_t digest[DIGEST_SIZE],
                       char out[SNAP_KEY_SIZE]);

/* "root.<version>" */
void snap_key_root(uint64_t version, char out[SNAP_KEY_SIZE]);

/* The key of the head. */
#define SNAP_KEY_HEAD "head"
