/* fields: see fields.h. */
#include "dataplane/operator/fields.h"

#include <inttypes.h>
#include <stdio.h>

#include "common/base/check.h"
#include "common/context/context.h"
#include "dataplane/request/request.h"

/* Whether a caller's field goes on as it came. */
static bool goes_on(const struct dp_request *rq, const struct h2_field *field)
{
    switch ((enum h2_token)field->token) {
    case H2_TOKEN_AUTHORITY:
    case H2_TOKEN_METHOD:
    case H2_TOKEN_PATH:
    case H2_TOKEN_SCHEME:
    case H2_TOKEN_STATUS:
    case H2_TOKEN_PROTOCOL:
    case H2_TOKEN_TE:
    case H2_TOKEN_HOST:
    case H2_TOKEN_TRACEPARENT:
    case H2_TOKEN_TRACESTATE:
    case H2_TOKEN_X_TENANT_ID:
    case H2_TOKEN_X_CORRELATION_ID:
    case H2_TOKEN_X_REQUEST_ID:
    case H2_TOKEN_X_CALLER_ID:
    case H2_TOKEN_X_REQUEST_TIMEOUT_MS:
    case H2_TOKEN_X_FORWARDED_CLIENT_CERT:
    case H2_TOKEN_GRPC_TIMEOUT:
    case H2_TOKEN_X_TRILANE_CODE:
    case H2_TOKEN_X_TRILANE_RULE:
    case H2_TOKEN_X_TRILANE_VERSION:
    case H2_TOKEN_X_TRILANE_EXPLAIN:
        return false; /* said anew by us, or never believed. */
    case H2_TOKEN_AUTHORIZATION:
        return rq->in.spiffe.size > 0; /* a token that was for us stays here. */
    case H2_TOKEN_OTHER:
        return field->name.ptr[0] != 'x' || context_judge_client(field->name) == CONTEXT_PASS;
    case H2_TOKEN_ACCEPT:
    case H2_TOKEN_COOKIE:
    case H2_TOKEN_EXPECT:
    case H2_TOKEN_ORIGIN:
    case H2_TOKEN_USER_AGENT:
    case H2_TOKEN_CONTENT_TYPE:
    case H2_TOKEN_CONTENT_LENGTH:
    case H2_TOKEN_X_FORWARDED_FOR:
    case H2_TOKEN_IDEMPOTENCY_KEY:
    case H2_TOKEN_RETRY_AFTER:
    case H2_TOKEN_GRPC_STATUS:
    case H2_TOKEN_GRPC_MESSAGE:
    case H2_TOKEN_GRPC_STATUS_DETAILS_BIN:
    case H2_TOKEN_GRPC_ENCODING:
    case H2_TOKEN_GRPC_ACCEPT_ENCODING:
    case H2_TOKEN_GRPC_PREVIOUS_ATTEMPTS:
    case H2_TOKEN_GRPC_RETRY_PUSHBACK:
    case H2_TOKEN_COUNT:
        return true;
    }
    return true;
}

static size_t add_pseudo(const struct dp_request *rq, const struct h2_fields *received,
                         struct h2_field *out)
{
    size_t count = 0;
    out[count++] = h2_field_static(H2_TOKEN_METHOD, SLICE_LIT("POST"));
    out[count++] = rq->transport->upstream_tls != 0
                       ? h2_field_static(H2_TOKEN_SCHEME, SLICE_LIT("https"))
                       : h2_field_static(H2_TOKEN_SCHEME, SLICE_LIT("http"));
    const struct h2_field *path = h2_fields_get(received, H2_TOKEN_PATH);
    CHECK(path != NULL);
    out[count++] = *path;
    const struct h2_field *authority = h2_fields_get(received, H2_TOKEN_AUTHORITY);
    out[count++] = authority != NULL ? *authority : h2_field_of(H2_TOKEN_AUTHORITY, rq->in.host);
    return count;
}

/* The context that every hop is told. */
static size_t add_context(const struct dp_request *rq, const struct op_fields_try *how,
                          struct op_fields_room *room, struct h2_field *out)
{
    size_t count = 0;
    trace_format(&rq->trace, room->traceparent);
    uint64_t now_ns = net_loop_now_ns(rq->pool->loop);
    uint64_t left_ns = how->until_ns > now_ns ? how->until_ns - now_ns : 1;
    size_t timeout_size = timeout_format_grpc(left_ns, room->timeout);
    out[count++] = h2_field_static(H2_TOKEN_TE, SLICE_LIT("trailers"));
    out[count++] = h2_field_of(H2_TOKEN_GRPC_TIMEOUT, slice_of(room->timeout, timeout_size));
    out[count++] =
        h2_field_of(H2_TOKEN_TRACEPARENT, slice_of(room->traceparent, TRACE_PARENT_SIZE));
    if (rq->in.tracestate.size > 0 && rq->trace_known && trace_state_valid(rq->in.tracestate)) {
        out[count++] = h2_field_of(H2_TOKEN_TRACESTATE, rq->in.tracestate);
    }
    out[count++] = h2_field_of(H2_TOKEN_X_CORRELATION_ID, rq->correlation);
    out[count++] = h2_field_of(H2_TOKEN_X_REQUEST_ID, rq->request_id);
    out[count++] = h2_field_of(H2_TOKEN_X_TENANT_ID, rq->caller->tenant);
    out[count++] = h2_field_of(H2_TOKEN_X_CALLER_ID, rq->caller->spiffe);
    return count;
}

/* The caller's own attempts before this call are added to ours. */
static struct slice count_attempts(const struct h2_fields *received, uint32_t ours,
                                   char out[OP_ATTEMPTS_TEXT_MAX])
{
    uint64_t before = 0;
    struct slice said = h2_fields_value(received, H2_TOKEN_GRPC_PREVIOUS_ATTEMPTS);
    if (!slice_to_u64(said, &before) || before > INT32_MAX) {
        before = 0;
    }
    int size = snprintf(out, OP_ATTEMPTS_TEXT_MAX, "%" PRIu64, before + ours);
    return slice_of(out, (size_t)size);
}

size_t op_request_fields(const struct dp_request *rq, const struct h2_fields *received,
                         const struct op_fields_try *how, struct op_fields_room *room,
                         struct h2_field *out)
{
    size_t count = add_pseudo(rq, received, out);
    for (size_t i = 0; i < received->count; i++) {
        bool counted_anew =
            how->previous > 0 && received->at[i].token == H2_TOKEN_GRPC_PREVIOUS_ATTEMPTS;
        if (!counted_anew && goes_on(rq, &received->at[i])) {
            out[count++] = received->at[i];
        }
    }
    if (how->previous > 0) {
        out[count++] = h2_field_of(H2_TOKEN_GRPC_PREVIOUS_ATTEMPTS,
                                   count_attempts(received, how->previous, room->previous));
    }
    count += add_context(rq, how, room, out + count);
    CHECK(count <= (size_t)received->count + OP_FIELDS_OURS);
    return count;
}

/* What an upstream says of this node is not believed; and a content-length would be wrong when the
 * answer ends early, with trailers of ours. */
static bool answer_goes_on(const struct h2_field *field)
{
    return field->token != H2_TOKEN_CONTENT_LENGTH &&
           !slice_starts(field->name, SLICE_LIT("x-trilane-"));
}

size_t op_response_fields(const struct h2_fields *received, struct h2_field *out)
{
    size_t count = 0;
    for (size_t i = 0; i < received->count; i++) {
        if (answer_goes_on(&received->at[i])) {
            out[count++] = received->at[i];
        }
    }
    return count;
}
