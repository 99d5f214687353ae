/*
 * grpc: what gRPC puts on top of HTTP/2: message framing, statuses, refusals.
 *
 * Shape      struct grpc_scan watches messages pass through without touching or holding them;
 *            struct grpc_reader hands out whole messages, for services that the node has itself.
 * Units      bytes.
 * Ownership  slices are borrowed for the call, unless a function says otherwise.
 * Threads    one owner at a time.
 * Errors     E_MALFORMED (a flag that is neither 0 nor 1, an end inside a message),
 *            E_MESSAGE_TOO_LARGE as soon as the prefix declares more than the bound.
 * Source     "gRPC over HTTP2" (grpc/grpc, doc/PROTOCOL-HTTP2.md), doc/http-grpc-status-mapping.md.
 *
 * A node answers refusals with these headers beside grpc-status and grpc-message: x-trilane-code
 * (the name of the code), x-trilane-rule (the rule that decided), x-trilane-version (the snapshot
 * that it stood in), x-trilane-explain (the refusal's id). They are stripped from every request,
 * and set on answers alone.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/net/h2.h"

/* Bytes before each message: one of flags, four of length (big endian). */
enum { GRPC_PREFIX_BYTES = 5 };

/* Longest grpc-message that is made here, after encoding. */
enum { GRPC_MESSAGE_MAX = 1024 };

enum grpc_status {
    GRPC_OK = 0,
    GRPC_CANCELLED = 1,
    GRPC_UNKNOWN = 2,
    GRPC_INVALID_ARGUMENT = 3,
    GRPC_DEADLINE_EXCEEDED = 4,
    GRPC_NOT_FOUND = 5,
    GRPC_ALREADY_EXISTS = 6,
    GRPC_PERMISSION_DENIED = 7,
    GRPC_RESOURCE_EXHAUSTED = 8,
    GRPC_FAILED_PRECONDITION = 9,
    GRPC_ABORTED = 10,
    GRPC_OUT_OF_RANGE = 11,
    GRPC_UNIMPLEMENTED = 12,
    GRPC_INTERNAL = 13,
    GRPC_UNAVAILABLE = 14,
    GRPC_DATA_LOSS = 15,
    GRPC_UNAUTHENTICATED = 16,
};

/* ---- framing ---- */

/* Watches one direction of a call. Zeroed but for 'message_max' is a start. */
struct grpc_scan {
    uint64_t message_max; /* bound of one message, prefix apart. */
    uint64_t messages;    /* prefixes seen whole. */
    uint64_t bytes;       /* payload seen, prefixes apart. */
    uint32_t left;        /* bytes of the current message still to come. */
    uint8_t have;         /* bytes of the next prefix in 'prefix'. */
    uint8_t prefix[GRPC_PREFIX_BYTES];
    bool compressed; /* some message had its flag set. */
};

/* Looks at the next bytes of the stream, cut anywhere. After an error it stays where it is. */
MUST_CHECK struct err grpc_scan(struct grpc_scan *scan, struct slice bytes);

/* The stream ended: E_MALFORMED when it ended inside a message. */
MUST_CHECK struct err grpc_scan_end(const struct grpc_scan *scan);

/* Assembles messages. grpc_reader_init() first, grpc_reader_free() at the end. */
struct grpc_reader {
    struct grpc_scan scan;
    struct buf held;   /* a message that came in pieces. */
    bool message_open; /* its prefix is whole. */
    bool compressed;   /* the flag of the message that was lent last. */
};

void grpc_reader_init(struct grpc_reader *r, uint64_t message_max);
void grpc_reader_free(struct grpc_reader *r);

/*
 * Takes bytes from the front of *in until a message is whole: then *out_found is true and
 * *out_message borrows it from *in, or from the reader, until the next call. Call again until
 * *out_found is false: then *in is empty. E_NO_MEMORY besides the module's errors.
 */
MUST_CHECK struct err grpc_reader_next(struct grpc_reader *r, struct slice *in,
                                       struct slice *out_message, bool *out_found);

/* Writes the prefix of an uncompressed message. */
void grpc_prefix_write(uint32_t message_bytes, uint8_t out[GRPC_PREFIX_BYTES]);

/* ---- fields ---- */

/* True for "application/grpc" and its kin with '+' or ';' behind (not grpc-web). */
bool grpc_is_content_type(struct slice value);

/* Percent-encodes a grpc-message into 'out', cut between characters at 'capacity'; returns the
 * size. */
size_t grpc_message_encode(struct slice text, char *out, size_t capacity);

/* Decodes a grpc-message into 'out'; broken escapes stay as they are. Cut at 'capacity'. */
size_t grpc_message_decode(struct slice value, char *out, size_t capacity);

/* Reads grpc-status: 0 to 16; anything else, empty too, is GRPC_UNKNOWN. */
enum grpc_status grpc_status_parse(struct slice value);

/* "0" to "16", static. */
struct slice grpc_status_text(enum grpc_status status);

/* What an answer without grpc-status means, by its HTTP status. */
enum grpc_status grpc_status_of_http(int http_status);

/* ---- refusals ---- */

/* A refusal as a caller sees it. */
struct grpc_refusal {
    enum err_code code;
    struct slice sentence; /* empty: err_text() of the code. */
    struct slice rule;     /* the rule that decided; empty: none did. */
    struct slice explain;  /* the refusal's id, by which a node says more; empty: it has none. */
    uint64_t version;      /* of the snapshot; 0: not known. */
    uint64_t retry_ms;     /* when to try again, said as grpc-retry-pushback-ms; 0: not said. */
};

enum { GRPC_REFUSAL_FIELDS = 9 };

/* Room for the values that grpc_refusal_fields() makes. */
struct grpc_refusal_room {
    char message[GRPC_MESSAGE_MAX];
    char version[20];
    char retry[20];
};

/*
 * Fills fields of a trailers-only answer, ":status" and "content-type" first; returns how many.
 * From index 2 on they are the trailers of an answer that has begun. They borrow from 'r' and
 * 'room'.
 */
size_t grpc_refusal_fields(const struct grpc_refusal *r, struct grpc_refusal_room *room,
                           struct h2_field fields[GRPC_REFUSAL_FIELDS]);

/*
 * Refuses a call on a server's stream: trailers-only when nothing was answered yet, trailers when
 * the answer has begun, nothing when it has ended. What the client still sends is not wanted:
 * the stream is reset with NO_ERROR behind the answer.
 */
void grpc_refuse(struct h2_stream *s, const struct grpc_refusal *r);
