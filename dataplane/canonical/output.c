/* output: see output.h. */
#include "dataplane/canonical/output.h"

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/net/grpc.h"
#include "dataplane/request/request.h"

/* What a response has beside its envelope. */
enum { BESIDES = 8192 };

struct canon_output canon_output_of(struct dp_request *rq)
{
    return (struct canon_output){.rq = rq, .waiting = BUF_MAX(limits.envelope_bytes + BESIDES)};
}

void canon_output_free(struct canon_output *out)
{
    buf_free(&out->waiting);
}

/* Sends the first part of 'bytes', as much as the stream takes; a filled one says 'writable'. */
static MUST_CHECK struct err send_some(struct dp_request *rq, struct slice bytes, size_t *out_sent)
{
    size_t queued = h2_stream_queued(rq->stream);
    CHECK(queued <= limits.stream_buffer_bytes);
    struct slice part = slice_head(bytes, (size_t)limits.stream_buffer_bytes - queued);
    if (part.size > 0) {
        TRY(h2_stream_send(rq->stream, part, /* end= */ false));
    }
    *out_sent = part.size;
    return OK;
}

struct err canon_output_send(struct canon_output *out, struct slice message)
{
    CHECK(!canon_output_waits(out));
    size_t sent = 0;
    TRY(dp_caller_begin_grpc(out->rq));
    TRY(send_some(out->rq, message, &sent));
    out->rq->response_bytes += message.size;
    return sent == message.size ? OK : buf_add(&out->waiting, slice_from(message, sent));
}

struct err canon_output_flush(struct canon_output *out)
{
    if (!canon_output_waits(out)) {
        return OK;
    }
    size_t sent = 0;
    TRY(send_some(out->rq, buf_slice(&out->waiting), &sent));
    buf_drop(&out->waiting, sent);
    if (!canon_output_waits(out)) {
        buf_free(&out->waiting);
    }
    return OK;
}

struct err canon_output_finish(struct canon_output *out)
{
    CHECK(!canon_output_waits(out));
    const struct h2_field status = h2_field_static(H2_TOKEN_GRPC_STATUS, SLICE_LIT("0"));
    TRY(dp_caller_begin_grpc(out->rq));
    TRY(h2_stream_trailers(out->rq->stream, &status, 1));
    out->rq->grpc_status = 0;
    return OK;
}

void canon_output_fail(struct canon_output *out, struct err why, struct slice sentence)
{
    struct dp_request *rq = out->rq;
    CHECK(!err_ok(why));
    if (!rq->answered) {
        rq->sentence = sentence;
        dp_request_fail(rq, why);
        return;
    }
    if (!rq->caller_gone) {
        const struct grpc_refusal refusal = {
            .code = why.code,
            .sentence = sentence,
            .rule = why.code == E_POLICY_DENIED ? rq->verdict.rule : (struct slice){0},
            .explain = dp_request_explain(rq),
            .version = dp_model_version(rq->model)};
        grpc_refuse(rq->stream, &refusal);
        rq->grpc_status = err_grpc_status(why.code);
    }
    dp_request_done(rq, why);
}
