/*
 * kv: a JetStream key-value bucket, with compare-and-set.
 *
 * Shape      a bucket is the stream KV_<bucket>; a key's revision is the stream's sequence. Reads
 *            come from any replica of the stream or, where it matters, from its leader.
 * Units      bytes, milliseconds.
 * Ownership  struct kv is a value that borrows the bus.
 * Threads    background threads only: each call waits for the server up to its timeout; a read from
 *            the leader asks twice, for half of it each, and a list waits so long for each page.
 * Errors     E_UNAVAILABLE: NATS, JetStream or the bucket cannot be reached, and nothing happened.
 *            E_RESULT_UNKNOWN (writes): no answer came; read it back before anything else.
 *            E_BUS_FORBIDDEN: the server reported a permission violation for this call.
 *            E_TOO_LARGE: the value passes the bound of the caller's buf, or the stream's.
 *            E_BUS_LIMIT: a limit of the server or account refused it; bus_last_error() tells.
 *            E_USAGE: a key is not [A-Za-z0-9_=/.-]{1,256}, or has an empty part between dots.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/bus/bus.h"
#include "common/bus/jetstream.h"

enum { KV_BUCKET_MAX = 128, KV_KEY_MAX = 256, KV_API_MAX = 128 };

/* Where JetStream is asked, as it is made. */
#define KV_API "$JS.API"

struct kv {
    struct bus *bus; /* borrowed. */
    const char
        *api; /* borrowed: where its JetStream is asked; KV_API unless it is another account's. */
    char bucket[KV_BUCKET_MAX + 1];
};

/* What a bucket is made with, and what an existing one is held against. Storage is file. */
struct kv_config {
    uint32_t history;         /* values kept of a key, 1 to 64. */
    uint64_t max_bytes;       /* of the whole bucket; when full, writes are refused. */
    uint32_t max_value_bytes; /* 0: the server's bound. */
    uint32_t replicas;        /* 1, 3 or 5; 0 is 1. One that exists may have fewer. */
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
    int64_t time_ms;   /* when it was put, by the clock of the server that led; 0 when missing. */
};

/* A condition that always holds, for kv_delete() and kv_purge(). */
#define KV_ANY_REVISION UINT64_MAX

/* Names a bucket; asks nobody. E_USAGE when the name is not [A-Za-z0-9_-]{1,128}. */
MUST_CHECK struct err kv_bind(struct kv *kv, struct bus *bus, struct slice bucket);

/* The same for a bucket of another account of NATS, whose API is imported as 'api' (a subject of
 * at most KV_API_MAX bytes, without a last dot). For reading alone: kv_get() and kv_look(). */
MUST_CHECK struct err kv_bind_imported(struct kv *kv, struct bus *bus, struct slice bucket,
                                       const char *api);

/*
 * Makes the bucket if it is missing. One that exists is checked and never changed or destroyed:
 * E_CONFLICT when it is not a file-backed bucket of that history and size; 'why' (may be NULL)
 * gets one sentence. One that has fewer replicas is taken as it is, which 'out' (may be NULL)
 * tells. E_REPLICAS_MISSING when a new one cannot have that many.
 */
MUST_CHECK struct err kv_ensure(const struct kv *kv, const struct kv_config *config,
                                uint64_t timeout_ms, struct buf *why, struct stream_info *out);

/*
 * Brings a bucket that has fewer up to so many replicas; they fill in the background. 'out' says
 * how it is, also when that cannot be done: E_REPLICAS_MISSING (too few servers), E_BUS_FORBIDDEN.
 */
MUST_CHECK struct err kv_raise(const struct kv *kv, uint32_t replicas, uint64_t timeout_ms,
                               struct stream_info *out);

/* Whether JetStream says anything about a bucket, be it that it is not there. */
bool kv_answers(const struct kv *kv, uint64_t timeout_ms);

/* Looks at a bucket. One that is not there is E_UNAVAILABLE. */
MUST_CHECK struct err kv_look(const struct kv *kv, uint64_t timeout_ms, struct stream_info *out);

/*
 * Reads a key. OK with out->state saying what lies there; only KV_VALUE appends to 'value' (bounded
 * by its own max). A bucket that is not there is E_UNAVAILABLE, never KV_MISSING.
 */
MUST_CHECK struct err kv_get(const struct kv *kv, struct slice key, enum kv_read read,
                             uint64_t timeout_ms, struct buf *value, struct kv_entry *out);

/* Writes, whatever lies there. 'out_revision' may be NULL. */
MUST_CHECK struct err kv_put(const struct kv *kv, struct slice key, struct slice value,
                             uint64_t timeout_ms, uint64_t *out_revision);

/* What is to be written under a key. */
struct kv_item {
    struct slice key;
    struct slice value;
    bool done; /* it was, and its answer came: passed over, and set. */
};

/*
 * Writes all of them, as kv_put(), with several on their way at once; in which order is not said.
 * The first failure ends it: then 'done' says which ones were written for sure. 'timeout_ms' is for
 * each answer.
 */
MUST_CHECK struct err kv_put_all(const struct kv *kv, struct kv_item *items, size_t count,
                                 uint64_t timeout_ms);

/*
 * Conditions. A bucket of one replica judges them one write after the other. One of several does
 * so by what was stored already, as of nats-server 2.9: of two writes that are on their way at once
 * both may pass, and the later one wins. So they keep apart those who read before they write, and
 * nothing may rest on them alone; kv_erase() holds everywhere.
 */

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

/*
 * Removes what lies under a key if it is of that revision, and leaves no marker: E_CONFLICT when
 * it is not, nothing of it is touched then. No order of writes and takings-over makes it remove a
 * later revision.
 */
MUST_CHECK struct err kv_erase(const struct kv *kv, struct slice key, uint64_t revision,
                               uint64_t timeout_ms);

/* Called for each key of a list; 'key' is borrowed for the call. A failure ends the list. */
typedef struct err kv_list_fn(void *ctx, struct slice key, const struct kv_entry *entry);

/*
 * Calls 'visit' for each key, markers too, without their values and in the order of revisions. The
 * memory that it takes does not grow with the bucket. While keys are written or removed, one that
 * changes may come with either revision, and any may come twice. What it needs on the server is
 * gone when it returns, or seconds after this process ended. E_UNAVAILABLE: not all keys were seen.
 */
MUST_CHECK struct err kv_list(const struct kv *kv, uint64_t timeout_ms, kv_list_fn *visit,
                              void *ctx);
