/*
 * kv: a JetStream key-value bucket, with compare-and-set.
 *
 * Shape      a bucket is the stream KV_<bucket>; a key's revision is the stream's sequence. Reads
 *            come from any replica of the stream or, where it matters, from its leader.
 * Units      bytes, milliseconds.
 * Ownership  struct kv is a value that borrows the bus.
 * Threads    background threads only: each call waits for the server up to its timeout; a read from
 *            the leader asks twice, for half of it each.
 * Errors     E_UNAVAILABLE: NATS, JetStream or the bucket cannot be reached, and nothing happened.
 *            E_RESULT_UNKNOWN (writes): no answer came; read it back before anything else.
 *            E_BUS_FORBIDDEN: the server reported a permission violation for this call.
 *            E_TOO_LARGE: the value passes the bound of the caller's buf, or the server's.
 *            E_USAGE: a key is not [A-Za-z0-9_=/.-]{1,256}, or has an empty part between dots.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/bus/bus.h"

enum { KV_BUCKET_MAX = 128, KV_KEY_MAX = 256 };

struct kv {
    struct bus *bus; /* borrowed. */
    char bucket[KV_BUCKET_MAX + 1];
};

/* What a bucket is made with, and what an existing one is held against. Storage is file. */
struct kv_config {
    uint32_t history;         /* values kept of a key, 1 to 64. */
    uint64_t max_bytes;       /* of the whole bucket; when full, writes are refused. */
    uint32_t max_value_bytes; /* 0: the server's bound. */
    uint32_t replicas;        /* 1, 3 or 5; 0 is 1. */
};

enum kv_read {
    KV_READ_ANY,   /* fast, from any replica: may be behind. */
    KV_READ_LEADER /* from the stream's leader: sees every write that was answered. */
};

enum kv_state {
    KV_MISSING, /* never written, or purged without a trace. */
    KV_DELETED, /* a marker lies there; 'revision' is the marker's. */
    KV_VALUE
};

struct kv_entry {
    enum kv_state state;
    uint64_t revision; /* 0 only when missing. */
};

/* A condition that always holds, for kv_delete() and kv_purge(). */
#define KV_ANY_REVISION UINT64_MAX

/* Names a bucket; asks nobody. E_USAGE when the name is not [A-Za-z0-9_-]{1,128}. */
MUST_CHECK struct err kv_bind(struct kv *kv, struct bus *bus, struct slice bucket);

/*
 * Makes the bucket if it is missing. One that exists is checked and never changed or destroyed:
 * E_CONFLICT when it is not a file-backed bucket of that history and size; 'why' (may be NULL)
 * gets one sentence.
 */
MUST_CHECK struct err kv_ensure(const struct kv *kv, const struct kv_config *config,
                                uint64_t timeout_ms, struct buf *why);

/*
 * Reads a key. OK with out->state saying what lies there; only KV_VALUE appends to 'value' (bounded
 * by its own max). A bucket that is not there is E_UNAVAILABLE, never KV_MISSING.
 */
MUST_CHECK struct err kv_get(const struct kv *kv, struct slice key, enum kv_read read,
                             uint64_t timeout_ms, struct buf *value, struct kv_entry *out);

/* Writes, whatever lies there. 'out_revision' may be NULL. */
MUST_CHECK struct err kv_put(const struct kv *kv, struct slice key, struct slice value,
                             uint64_t timeout_ms, uint64_t *out_revision);

/* Writes only if the key was never written: E_CONFLICT on a value as on a marker. */
MUST_CHECK struct err kv_create(const struct kv *kv, struct slice key, struct slice value,
                                uint64_t timeout_ms, uint64_t *out_revision);

/* Writes only if the key's revision (of a value or a marker) is 'expected': else E_CONFLICT. */
MUST_CHECK struct err kv_update(const struct kv *kv, struct slice key, struct slice value,
                                uint64_t expected, uint64_t timeout_ms, uint64_t *out_revision);

/* Puts a marker on top (delete) or in place of all history (purge), if 'expected' holds. */
MUST_CHECK struct err kv_delete(const struct kv *kv, struct slice key, uint64_t expected,
                                uint64_t timeout_ms);
MUST_CHECK struct err kv_purge(const struct kv *kv, struct slice key, uint64_t expected,
                               uint64_t timeout_ms);
