/*
 * fields: which header fields cross the node, and which are said anew.
 *
 * Shape      a request is written for the wire; an answer's fields are picked out.
 * Ownership  fields borrow from the head that was given and from the request.
 * Threads    the request's worker.
 * Errors     E_NO_MEMORY, E_HEADERS_TOO_LARGE.
 * Source     RFC 9110, 7.6; NAMES: "Context, on every hop"; docs/proxy.md, "What goes outside".
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/net/http1.h"

struct px_exchange;

/* Our name in "via", the same for all workers of this process: "trilane-0123456789abcdef". */
struct slice px_via_name(void);

/* Whether the request was here before. */
bool px_via_has_us(const struct http1_head *head);

/* Appends the head for the upstream. */
MUST_CHECK struct err px_fields_write_request(const struct px_exchange *x, struct buf *out);

/* Picks the fields of an answer that go to the caller, and adds ours. 'out' has room for
 * count + 1; returns how many there are. */
size_t px_fields_answer(const struct http1_head *head, struct http1_field *out);

/* The same of trailers; 'out' has room for 'count'. */
size_t px_fields_trailers(const struct http1_field *fields, size_t count, struct http1_field *out);
