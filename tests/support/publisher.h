/*
 * publisher: plays the control plane for tests of a node: keys, a root, and bytes of any kind,
 * also such as no honest publisher makes.
 *
 * Shape      content is a list of parts; it is cut, signed under a version, and pointed at by
 *            heads.
 * Ownership  what publisher_*() makes is freed by the matching _free().
 * Threads    one.
 * Errors     a test that cannot make its bytes is over: everything aborts.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/slice.h"
#include "common/bus/kv.h"
#include "common/snapshot/cut.h"
#include "common/snapshot/head.h"
#include "common/snapshot/keys.h"
#include "common/snapshot/manifest.h"
#include "common/snapshot/root.h"
#include "common/snapshot/set.h"

#define PUBLISHER_ENVIRONMENT "test"

/* protobuf-c's messages hold char *, also where nobody writes through it. */
static inline char *publisher_text(const char *text)
{
    union {
        const char *given;
        char *wanted;
    } u = {.given = text};
    return u.wanted;
}

struct publisher {
    struct key_pair root_key;
    struct key_pair manifest_key;
    struct key_pair head_key;
    struct key_pair stranger; /* a head key that no root knows. */
    struct root root;
    struct buf root_bytes; /* container of root 1. */
};

void publisher_init(struct publisher *p);
void publisher_free(struct publisher *p);

/* ---- content ---- */

enum { CONTENT_PARTS_MAX = 4096 };

struct content_part {
    uint32_t stream;
    char key[96];
    struct buf bytes;
};

struct content {
    struct content_part parts[CONTENT_PARTS_MAX];
    size_t count;
    uint64_t capabilities;
    uint32_t format; /* of the snapshot: what callers are written as. */
};

/* A small platform: services acme/web and acme/orders, a route, a policy, a limit, a topic, an
 * egress. 'endpoint_port' is where orders listens: content differs by it. */
struct content *content_sample(uint16_t endpoint_port);
struct content *content_empty(void);

/* The same in SNAPSHOT_FORMAT_LEAST. */
struct content *content_sample_former(uint16_t endpoint_port);

/* Lists something as revoked: "identity/spiffe://…", "certificate/0a", "token/…", "type/User.v2".
 */
void content_revoke(struct content *c, const char *key);

/* Says where web listens, whom nobody calls: another content that serves the same. */
void content_move_web(struct content *c, uint16_t port);
void content_free(struct content *c);

/* Adds a part, or replaces the one of that stream and key. */
void content_put(struct content *c, uint32_t stream, const char *key,
                 const ProtobufCMessage *message);
void content_put_bytes(struct content *c, uint32_t stream, const char *key, struct slice bytes);
void content_remove(struct content *c, uint32_t stream, const char *key);

/* Sorts a part of 'size' unlike bytes in, so that there are more chunks. */
void content_fill_policies(struct content *c, size_t count);

/* ---- a version ---- */

struct version {
    uint64_t number;
    struct cut_stream streams[STREAMS_MAX];
    struct buf raw[STREAMS_MAX];
    size_t stream_count;
    struct buf body;
    struct buf manifest; /* the container. */
    uint8_t digest[DIGEST_SIZE];
};

/* Signs the content by 'key' (NULL: the manifest key). */
struct version *version_new(struct publisher *p, const struct content *c, uint64_t number,
                            const struct key_pair *key);

/* The same in two steps, so that a test can change what is signed in between. */
struct version *version_cut(const struct content *c, uint64_t number);
void version_sign(struct publisher *p, struct version *v, uint64_t capabilities,
                  const struct key_pair *key);

/* Adds bytes to the body of a signed manifest, and signs that. */
void version_append(struct publisher *p, struct version *v, struct slice bytes);
void version_free(struct version *v);

/* The set that a node makes of it; the caller's reference. 'previous' may be NULL. */
struct snap_set *version_set(struct publisher *p, const struct version *v,
                             struct snap_set *previous);

/* ---- a head ---- */

struct head_plan {
    uint64_t epoch;
    uint64_t sequence;
    uint64_t root_version; /* 0: 1. */
    uint64_t version;      /* of the target; all nodes. */
    const uint8_t *digest;
    int64_t signed_at_ms;       /* 0: now. */
    int64_t validity_ms;        /* 0: 15 s. */
    const struct key_pair *key; /* NULL: the head key. */
    const char *environment;    /* NULL: PUBLISHER_ENVIRONMENT. */
    bool unknown_field;         /* adds field 50 to the body, and signs that. */
    bool no_target;             /* a selector that matches nobody. */
};

/* Appends the container of a head. */
void publisher_head(struct publisher *p, const struct head_plan *plan, struct buf *out);

/* Appends the container of the next root, version + 1, signed by both sides; takes it over. */
void publisher_next_root(struct publisher *p, const struct root_floor *floor, struct buf *out);

/* ---- the bucket ---- */

/* Puts chunks and manifest, in this order. */
void publisher_put_version(const struct kv *kv, const struct version *v);
void publisher_put(const struct kv *kv, const char *key, struct slice value);
