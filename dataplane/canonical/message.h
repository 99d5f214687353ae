/*
 * message: the requests and responses of trilane.bus.v1.Bus on the wire.
 *
 * Shape      requests are walked where they lie; responses are written as whole gRPC messages,
 *            prefix and all.
 * Ownership  slices borrow from the request. Writers append to the caller's buf.
 * Threads    pure functions; any thread.
 * Errors     E_PROTOCOL_ERROR for a request that is no message of its type, E_ENVELOPE_MALFORMED
 *            for a PublishRequest without exactly one envelope, E_SUBSCRIPTION_INVALID for an Open
 *            past its bounds. Writers: E_TOO_LARGE, E_NO_MEMORY; the buf keeps its content.
 * Source     proto/trilane/bus/v1/bus.proto.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/proto/wire.h"

/* Types that one subscription may name. */
enum { CANON_TYPES_MAX = 16 };

struct canon_open {
    struct slice consumer;
    struct slice types[CANON_TYPES_MAX];
    size_t type_count;
    uint64_t credit; /* 0: the node's default. */
    bool from_start;
};

/* The envelope of a PublishRequest. */
MUST_CHECK struct err canon_publish_decode(struct slice request, struct slice *out_envelope);

enum canon_ask { CANON_ASK_OPEN, CANON_ASK_ACK, CANON_ASK_NACK, CANON_ASK_CREDIT };

/* One thing that a SubscribeRequest asks for. */
struct canon_item {
    enum canon_ask ask;
    struct slice open;     /* OPEN: bytes of it. */
    struct slice delivery; /* ACK, NACK. */
    uint64_t delay_ms;     /* NACK. */
    bool terminate;        /* NACK. */
    uint64_t credit;       /* CREDIT. */
};

/* The next thing; *out_found is false behind the last one. Begins with wire_of(request). */
MUST_CHECK struct err canon_subscribe_next(struct wire *at, struct canon_item *out,
                                           bool *out_found);
MUST_CHECK struct err canon_open_decode(struct slice bytes, struct canon_open *out);

struct canon_publish_answer {
    struct slice event_id;
    uint64_t sequence;
    struct slice stream;
    bool duplicate;
    struct slice code;     /* empty: not refused. */
    struct slice sentence; /* of a refusal. */
    struct slice explain;  /* of a refusal: its id; empty: it has none. */
};
MUST_CHECK struct err canon_publish_answer(const struct canon_publish_answer *answer,
                                           struct buf *out);

/* A delivery is named by its number, as decimal text. */
struct canon_delivery_answer {
    uint64_t delivery;
    struct slice envelope;
    uint64_t sequence;
    uint64_t attempt;
};
MUST_CHECK struct err canon_delivery_answer(const struct canon_delivery_answer *answer,
                                            struct buf *out);
MUST_CHECK struct err canon_opened_answer(struct buf *out);
