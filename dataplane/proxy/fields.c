/* fields: see fields.h. */
#include "dataplane/proxy/fields.h"

#include <pthread.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "common/base/check.h"
#include "common/context/context.h"
#include "common/net/http1_server.h"
#include "dataplane/proxy/exchange.h"
#include "dataplane/request/request.h"

/* ---- via ---- */

static char via_name[PX_VIA_MAX];
static char via_value[PX_VIA_MAX + 4];
static pthread_once_t via_once = PTHREAD_ONCE_INIT;

/* A random name tells the outside nothing, and tells us ourselves. */
static void make_via(void)
{
    unsigned char random[8];
    char hex[2 * sizeof(random) + 1];
    randombytes_buf(random, sizeof(random));
    (void)sodium_bin2hex(hex, sizeof(hex), random, sizeof(random));
    (void)snprintf(via_name, sizeof(via_name), "trilane-%s", hex);
    (void)snprintf(via_value, sizeof(via_value), "1.1 %s", via_name);
}

struct slice px_via_name(void)
{
    CHECK(pthread_once(&via_once, make_via) == 0);
    return slice_str(via_name);
}

static struct slice via(void)
{
    (void)px_via_name();
    return slice_str(via_value);
}

bool px_via_has_us(const struct http1_head *head)
{
    struct slice us = px_via_name();
    for (size_t i = 0; i < head->field_count; i++) {
        const struct http1_field *field = &head->fields[i];
        if (slice_eq(field->name, SLICE_LIT("via")) && field->value.size > 0 &&
            memmem(field->value.ptr, field->value.size, us.ptr, us.size) != NULL) {
            return true;
        }
    }
    return false;
}

/* ---- which go on ---- */

/* Of one hop only, or framing, which each hop says for itself. */
static bool is_of_this_hop(const struct http1_head *head, struct slice name)
{
    return http1_is_hop_by_hop(name) || slice_starts(name, SLICE_LIT("proxy-")) ||
           slice_eq(name, SLICE_LIT("content-length")) ||
           (head != NULL && http1_has_token(head, SLICE_LIT("connection"), name));
}

/* What we say anew, and what the outside is not told: tenant, caller, our deadline. */
static bool is_context(struct slice name)
{
    switch (context_find_http(name)) {
    case CONTEXT_TENANT:
    case CONTEXT_CORRELATION:
    case CONTEXT_TRACEPARENT:
    case CONTEXT_TRACESTATE:
    case CONTEXT_REQUEST:
    case CONTEXT_CALLER:
    case CONTEXT_REQUEST_TIMEOUT:
        return true;
    case CONTEXT_TRACE_ID:
    case CONTEXT_IDEMPOTENCY:
    case CONTEXT_GRPC_TIMEOUT:
    case CONTEXT_CONTENT_TYPE:
    case CONTEXT_MESSAGE_ID:
    case CONTEXT_COUNT:
        break;
    }
    return context_judge_client(name) != CONTEXT_PASS;
}

/* A token that proved the identity was for us: by "authorization" only when there is neither a
 * certificate nor a "proxy-authorization". */
static bool authorization_is_ours(const struct dp_request *rq, const struct http1_head *head)
{
    return rq->in.spiffe.size == 0 && http1_find(head, SLICE_LIT("proxy-authorization")) == NULL;
}

static bool goes_outside(const struct dp_request *rq, const struct http1_head *head,
                         struct slice name)
{
    if (is_of_this_hop(head, name) || is_context(name) || slice_eq(name, SLICE_LIT("host")) ||
        slice_eq(name, SLICE_LIT("expect"))) {
        return false;
    }
    return !slice_eq(name, SLICE_LIT("authorization")) || !authorization_is_ours(rq, head);
}

/* ---- the request's head ---- */

static struct err write_context(const struct dp_request *rq, struct buf *out)
{
    char traceparent[TRACE_PARENT_SIZE + 1];
    trace_format(&rq->trace, traceparent);
    TRY(http1_write_field(out, context_http(CONTEXT_TRACEPARENT), slice_str(traceparent)));
    if (rq->in.tracestate.size > 0 && rq->trace_known && trace_state_valid(rq->in.tracestate)) {
        TRY(http1_write_field(out, context_http(CONTEXT_TRACESTATE), rq->in.tracestate));
    }
    TRY(http1_write_field(out, context_http(CONTEXT_CORRELATION), rq->correlation));
    TRY(http1_write_field(out, context_http(CONTEXT_REQUEST), rq->request_id));
    return http1_write_field(out, SLICE_LIT("via"), via());
}

static struct err write_framing(const struct http1_head *head, struct buf *out)
{
    switch (head->framing) {
    case HTTP1_LENGTH:
        return buf_addf(out, "content-length: %llu\r\n", (unsigned long long)head->length);
    case HTTP1_CHUNKED:
        return buf_add_str(out, "transfer-encoding: chunked\r\n");
    case HTTP1_NO_BODY:
    case HTTP1_UNTIL_CLOSE:
        break;
    }
    return http1_find(head, SLICE_LIT("content-length")) == NULL
               ? OK
               : buf_add_str(out, "content-length: 0\r\n");
}

static struct err write_request(const struct px_exchange *x, struct buf *out)
{
    const struct dp_request *rq = x->rq;
    const struct http1_head *head = http1_exchange_head(rq->exchange);
    TRY(http1_write_request_line(out, head->method, x->to.target));
    TRY(http1_write_field(out, SLICE_LIT("host"), x->to.authority));
    for (size_t i = 0; i < head->field_count; i++) {
        if (goes_outside(rq, head, head->fields[i].name)) {
            TRY(http1_write_field(out, head->fields[i].name, head->fields[i].value));
        }
    }
    TRY(write_context(rq, out));
    TRY(write_framing(head, out));
    TRY(http1_write_field(out, SLICE_LIT("connection"), SLICE_LIT("close")));
    return http1_write_head_end(out);
}

struct err px_fields_write_request(const struct px_exchange *x, struct buf *out)
{
    struct err err = write_request(x, out);
    return err.code == E_TOO_LARGE ? FAIL(E_HEADERS_TOO_LARGE) : err;
}

/* ---- the answer's ---- */

static bool comes_back(const struct http1_head *head, struct slice name)
{
    return !is_of_this_hop(head, name) && context_judge_client(name) == CONTEXT_PASS;
}

size_t px_fields_answer(const struct http1_head *head, struct http1_field *out)
{
    size_t count = 0;
    for (size_t i = 0; i < head->field_count; i++) {
        if (comes_back(head, head->fields[i].name)) {
            out[count++] = head->fields[i];
        }
    }
    out[count++] = (struct http1_field){SLICE_LIT("via"), via()};
    return count;
}

size_t px_fields_trailers(const struct http1_field *fields, size_t count, struct http1_field *out)
{
    size_t picked = 0;
    for (size_t i = 0; i < count; i++) {
        if (comes_back(/* head= */ NULL, fields[i].name)) {
            out[picked++] = fields[i];
        }
    }
    return picked;
}
