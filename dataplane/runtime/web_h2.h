/*
 * web_h2: gRPC-Web, and preflights, over HTTP/2.
 *
 * Ownership  what a call needs lives as long as its stream.
 * Threads    the worker's.
 * Errors     answered on the stream; E_NO_MEMORY: nothing was.
 */
#pragma once

#include <stdbool.h>

#include "common/base/err.h"

struct dp_caller_conn;
struct h2_fields;
struct h2_stream;

/* A request whose content type is one of gRPC-Web. 'end': its head is all of it. */
MUST_CHECK struct err dp_web_h2_request(struct dp_caller_conn *c, struct h2_stream *s,
                                        const struct h2_fields *fields, bool end);

/* Whether a request asks what a page may do; and answers it. */
bool dp_web_h2_is_preflight(const struct h2_fields *fields);
void dp_web_h2_preflight(struct dp_caller_conn *c, struct h2_stream *s,
                         const struct h2_fields *fields);
