/*
 * envelope: a view of a trilane.bus.v1.Envelope over its bytes.
 *
 * Shape      slices into the bytes that were decoded; maps are walked where they lie. Envelope
 *            bytes pass through a node unchanged: what a node must add is appended behind them as
 *            further fields, since for a singular field the last one holds, and for a map the last
 *            entry of a key.
 * Units      bytes; milliseconds since the epoch.
 * Ownership  a view borrows from its bytes. Nothing is allocated but by envelope_append()'s buf.
 * Threads    pure values; any thread.
 * Errors     E_ENVELOPE_MALFORMED; E_MESSAGE_TOO_LARGE past limits.envelope_bytes, or more than
 *            limits.envelope_headers entries in a map. Unknown fields are kept and passed over.
 * Source     docs/formats.md, "On the bus"; proto/trilane/bus/v1/bus.proto.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/proto/wire.h"

/* Bytes of the short fields: event id, type, tenant, key, source, trace id. */
enum { ENVELOPE_TEXT_MAX = 512 };

enum envelope_map { ENVELOPE_TRAITS = 5, ENVELOPE_HEADERS = 6, ENVELOPE_EXTENSIONS = 12 };

struct envelope {
    struct slice bytes; /* all of it. */
    struct slice trace_id;
    struct slice event_id;
    struct slice canonical_type;
    struct slice payload;
    uint32_t envelope_version;
    int64_t expires_at_ms; /* 0: never. */
    uint32_t priority;
    struct slice key_id; /* security. */
    struct slice scheme;
    struct slice signature;
    struct slice schema_version; /* schema. */
    struct slice schema_fingerprint;
    struct slice key;
    struct slice tenant;
    int64_t time_ms; /* 0: not said. */
    struct slice source;
    uint32_t trait_count; /* entries, doubled keys counted. */
    uint32_t header_count;
    uint32_t extension_count;
};

/* Reads an envelope; *out is untouched on failure. */
MUST_CHECK struct err envelope_decode(struct slice bytes, struct envelope *out);

/* Walks the entries of a map in the order of the bytes; doubled keys come as often as they are. */
struct envelope_walk {
    struct wire at;
    enum envelope_map map;
};
struct envelope_walk envelope_walk(const struct envelope *envelope, enum envelope_map map);
bool envelope_walk_next(struct envelope_walk *walk, struct slice *out_key, struct slice *out_value);

/* The value that holds for a key: its last entry. False when there is none. */
bool envelope_find(const struct envelope *envelope, enum envelope_map map, struct slice key,
                   struct slice *out_value);

struct envelope_entry {
    struct slice key;
    struct slice value;
};

/* What a node adds; what is empty or zero is left as it is. */
struct envelope_addition {
    struct slice trace_id;
    struct slice event_id;
    struct slice tenant;
    struct slice source;
    int64_t time_ms;
    uint32_t envelope_version;
    const struct envelope_entry *headers;
    size_t header_count;
};

/* Appends the additions to 'out', which holds the envelope's bytes. All or nothing. */
MUST_CHECK struct err envelope_append(const struct envelope_addition *addition, struct buf *out);
