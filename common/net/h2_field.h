/*
 * h2_field: the header fields of HTTP/2, with tokens instead of string compares.
 *
 * Shape      One field is two slices, what keeps their bytes alive, a token and flags. A list
 *            of fields knows for each token the first field that bears it, in one array look-up.
 * Units      bytes; a list's 'bytes' counts 32 more a field, as SETTINGS_MAX_HEADER_LIST_SIZE.
 * Ownership  A field borrows its bytes. Those of a received section lie in memory that the section
 *            owns; those of fields that are sent are read before the call returns.
 * Threads    values; a received section is its worker's.
 * Errors     E_HEADERS_TOO_LARGE past limits.request_header_fields or request_header_bytes.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"

struct h2_piece;

/* token, name on the wire, what the encoder does with it by itself.
 * VARIES: the value is new with every request; putting it into the peer's table only evicts what
 * repeats. The first request of a connection is indexed all the same, so that later ones name the
 * field by a number. SECRET: never indexed, here and by any hop after us (RFC 7541, section 7.1.3).
 */
#define H2_TOKEN_LIST(X)                                                                           \
    X(AUTHORITY, ":authority", PLAIN)                                                              \
    X(METHOD, ":method", PLAIN)                                                                    \
    X(PATH, ":path", PLAIN)                                                                        \
    X(SCHEME, ":scheme", PLAIN)                                                                    \
    X(STATUS, ":status", PLAIN)                                                                    \
    X(PROTOCOL, ":protocol", PLAIN)                                                                \
    X(TE, "te", PLAIN)                                                                             \
    X(HOST, "host", PLAIN)                                                                         \
    X(ACCEPT, "accept", PLAIN)                                                                     \
    X(COOKIE, "cookie", SECRET)                                                                    \
    X(EXPECT, "expect", PLAIN)                                                                     \
    X(ORIGIN, "origin", PLAIN)                                                                     \
    X(USER_AGENT, "user-agent", PLAIN)                                                             \
    X(CONTENT_TYPE, "content-type", PLAIN)                                                         \
    X(CONTENT_LENGTH, "content-length", VARIES)                                                    \
    X(AUTHORIZATION, "authorization", SECRET)                                                      \
    X(TRACEPARENT, "traceparent", VARIES)                                                          \
    X(TRACESTATE, "tracestate", PLAIN)                                                             \
    X(X_TENANT_ID, "x-tenant-id", PLAIN)                                                           \
    X(X_CORRELATION_ID, "x-correlation-id", VARIES)                                                \
    X(X_REQUEST_ID, "x-request-id", VARIES)                                                        \
    X(X_CALLER_ID, "x-caller-id", PLAIN)                                                           \
    X(X_REQUEST_TIMEOUT_MS, "x-request-timeout-ms", PLAIN)                                         \
    X(X_FORWARDED_FOR, "x-forwarded-for", PLAIN)                                                   \
    X(X_FORWARDED_CLIENT_CERT, "x-forwarded-client-cert", PLAIN)                                   \
    X(IDEMPOTENCY_KEY, "idempotency-key", VARIES)                                                  \
    X(RETRY_AFTER, "retry-after", PLAIN)                                                           \
    X(GRPC_STATUS, "grpc-status", PLAIN)                                                           \
    X(GRPC_MESSAGE, "grpc-message", PLAIN)                                                         \
    X(GRPC_STATUS_DETAILS_BIN, "grpc-status-details-bin", VARIES)                                  \
    X(GRPC_TIMEOUT, "grpc-timeout", VARIES)                                                        \
    X(GRPC_ENCODING, "grpc-encoding", PLAIN)                                                       \
    X(GRPC_ACCEPT_ENCODING, "grpc-accept-encoding", PLAIN)                                         \
    X(GRPC_PREVIOUS_ATTEMPTS, "grpc-previous-rpc-attempts", PLAIN)                                 \
    X(GRPC_RETRY_PUSHBACK, "grpc-retry-pushback-ms", PLAIN)                                        \
    X(X_TRILANE_CODE, "x-trilane-code", PLAIN)                                                     \
    X(X_TRILANE_RULE, "x-trilane-rule", PLAIN)                                                     \
    X(X_TRILANE_VERSION, "x-trilane-version", PLAIN)                                               \
    X(X_TRILANE_EXPLAIN, "x-trilane-explain", VARIES)

/* Constructors of a later priority may use h2_token_find(). */
enum { H2_TOKENS_READY = 200 };

enum h2_token {
    H2_TOKEN_OTHER,
#define X(token, name, use) H2_TOKEN_##token,
    H2_TOKEN_LIST(X)
#undef X
        H2_TOKEN_COUNT
};
_Static_assert(H2_TOKEN_COUNT <= 64, "h2_fields keeps sets of tokens in 64 bits");

enum h2_field_flag {
    H2_FIELD_NEVER_INDEX = 1,  /* secret, here and at every hop behind us. */
    H2_FIELD_NAME_STATIC = 2,  /* the name's bytes outlive every connection. */
    H2_FIELD_VALUE_STATIC = 4, /* the value's bytes outlive every connection. */
    H2_FIELD_VARIES = 8, /* new with every request: its name is indexed once, its value not. */
};

struct h2_field {
    struct slice name;
    struct slice value;
    uint8_t token; /* enum h2_token; H2_TOKEN_OTHER when it has none. */
    uint8_t flags; /* of enum h2_field_flag. */
};

/* A received header or trailer section. Zeroed is empty. */
struct h2_fields {
    struct h2_field *at;            /* in the order of arrival. */
    struct h2_piece *pieces;        /* received ones: memory of their bytes beyond the first. */
    uint8_t *room;                  /* what is free of the newest memory. */
    uint32_t room_size;             /* bytes of it. */
    uint16_t count;                 /* fields in 'at'. */
    uint16_t capacity;              /* room of 'at'. */
    uint32_t bytes;                 /* names and values, and 32 a field. */
    uint64_t seen;                  /* bit t: token t occurs. */
    uint64_t repeated;              /* bit t: token t occurs more than once. */
    uint16_t first[H2_TOKEN_COUNT]; /* index of the first one; valid where 'seen'. */
};

/* The token of a lower-case name, and the name of a token (empty for H2_TOKEN_OTHER). */
enum h2_token h2_token_find(struct slice name);
struct slice h2_token_name(enum h2_token token);

/* The first field with this token, or NULL. */
static inline const struct h2_field *h2_fields_get(const struct h2_fields *f, enum h2_token token)
{
    return (f->seen >> token & 1) == 0 ? NULL : &f->at[f->first[token]];
}

/* Its value, or an empty slice with ptr NULL when there is none. */
static inline struct slice h2_fields_value(const struct h2_fields *f, enum h2_token token)
{
    const struct h2_field *field = h2_fields_get(f, token);
    return field == NULL ? (struct slice){NULL, 0} : field->value;
}

/* True when the token occurs more than once: policy refuses repeated headers that it reads. */
static inline bool h2_fields_repeated(const struct h2_fields *f, enum h2_token token)
{
    return (f->repeated >> token & 1) != 0;
}

/* The first field of that name, for names without a token. Compares one by one. */
const struct h2_field *h2_fields_find(const struct h2_fields *f, struct slice name);

/* Appends a field to a list of ours that has room. */
void h2_fields_append(struct h2_fields *f, const struct h2_field *field);

/* A field of ours. */
struct h2_field h2_field_of(enum h2_token token, struct slice value);

/* A field of ours whose value is a literal, or lives as long as the process. */
struct h2_field h2_field_static(enum h2_token token, struct slice value);

/* A field of ours whose name has no token. Lower case only. */
struct h2_field h2_field_named(struct slice name, struct slice value);

/* The flags that a field of this token has by itself. */
uint8_t h2_token_flags(enum h2_token token);
