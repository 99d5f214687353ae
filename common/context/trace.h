/*
 * trace: W3C Trace Context, and the trace id that stands alone on the bus.
 *
 * Shape      a trace is a value of 25 bytes; text is made when it is sent.
 * Threads    pure functions; any thread. No call allocates.
 * Errors     none: what does not parse starts a new trace and never fails a request.
 * Source     https://www.w3.org/TR/trace-context-1/ sections 3.2 and 3.3.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/slice.h"

enum {
    TRACE_ID_BYTES = 16,
    TRACE_SPAN_BYTES = 8,
    TRACE_PARENT_SIZE = 55, /* 00-<32 hex>-<16 hex>-<2 hex> */
    TRACE_ID_SIZE = 32,
    TRACE_STATE_MAX = 512, /* bytes of tracestate that are passed on. */
    TRACE_STATE_MEMBERS = 32
};

enum { TRACE_SAMPLED = 1 };

struct trace {
    uint8_t id[TRACE_ID_BYTES];
    uint8_t span[TRACE_SPAN_BYTES]; /* of whoever sends: the parent of the receiver's span. */
    uint8_t flags;                  /* TRACE_SAMPLED or 0: all that level 1 knows. */
};

/* A new trace with a new span; sampled or not. */
struct trace trace_new(bool sampled);

/* The same trace with a new span: what goes to the next hop. */
struct trace trace_child(const struct trace *parent);

/*
 * Reads a traceparent. False for anything that the standard calls invalid: upper case, zero ids,
 * version ff, version 00 of another length. Later versions are read by their first 55 bytes.
 */
bool trace_parse(struct slice text, struct trace *out);

/* Reads 32 lower-case hex digits, not all zero, as a trace with a new span that is not sampled. */
bool trace_from_id(struct slice text, struct trace *out);

/*
 * The trace of what came in: by 'traceparent', else by 'trace_id', else a new one, sampled as
 * said. *out_known says whether it was one of the first two. Either slice may be empty.
 */
struct trace trace_accept(struct slice traceparent, struct slice trace_id, bool sampled,
                          bool *out_known);

/* Writes text and a NUL. */
void trace_format(const struct trace *trace, char out[TRACE_PARENT_SIZE + 1]);
void trace_format_id(const struct trace *trace, char out[TRACE_ID_SIZE + 1]);

/*
 * Whether a tracestate may be passed on: only beside a valid traceparent, at most TRACE_STATE_MAX
 * bytes and TRACE_STATE_MEMBERS members of the standard's shape; else it is left out.
 */
bool trace_state_valid(struct slice text);
