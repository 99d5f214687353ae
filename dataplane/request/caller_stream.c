/* caller_stream: the way of gRPC over HTTP/2, which needs no translation. See caller_stream.h. */
#include "dataplane/request/caller_stream.h"

#include "common/net/grpc.h"
#include "common/net/h2.h"
#include "dataplane/request/request.h"

/* ---- what the stream says ---- */

static void data(struct h2_stream *h2, struct slice bytes, bool end)
{
    struct dp_caller_stream *s = h2_stream_user(h2);
    s->events->data(s, bytes, end);
}

/* A gRPC request has no trailers; what comes as such only ends it. */
static void trailers_came(struct h2_stream *h2, const struct h2_fields *fields)
{
    (void)fields;
    data(h2, (struct slice){0}, /* end: */ true);
}

static void sent(struct h2_stream *h2, size_t bytes)
{
    struct dp_caller_stream *s = h2_stream_user(h2);
    s->events->sent(s, bytes);
}

static void reset(struct h2_stream *h2, struct h2_reset why)
{
    (void)why;
    struct dp_caller_stream *s = h2_stream_user(h2);
    s->events->reset(s);
}

static const struct h2_stream_events events = {
    .data = data, .trailers = trailers_came, .sent = sent, .reset = reset};

/* ---- what is done to it ---- */

static void attach(struct dp_caller_stream *s)
{
    h2_stream_attach(s->impl, &events, s);
}

static bool received_end(const struct dp_caller_stream *s)
{
    return h2_stream_received_end(s->impl);
}

static struct err respond(struct dp_caller_stream *s, const struct h2_field *fields, size_t count,
                          bool end)
{
    return h2_stream_respond(s->impl, fields, count, end);
}

static struct err send(struct dp_caller_stream *s, struct slice bytes)
{
    return h2_stream_send(s->impl, bytes, /* end: */ false);
}

static struct err trailers(struct dp_caller_stream *s, const struct h2_field *fields, size_t count)
{
    return h2_stream_trailers(s->impl, fields, count);
}

static void refuse(struct dp_caller_stream *s, const struct grpc_refusal *refusal)
{
    grpc_refuse(s->impl, refusal);
}

static void consume(struct dp_caller_stream *s, size_t bytes)
{
    h2_stream_consume(s->impl, bytes);
}

static const struct dp_caller_way way = {.attach = attach,
                                         .received_end = received_end,
                                         .respond = respond,
                                         .send = send,
                                         .trailers = trailers,
                                         .refuse = refuse,
                                         .consume = consume};

struct dp_caller_stream dp_caller_stream_h2(struct h2_stream *s)
{
    return (struct dp_caller_stream){.way = &way, .impl = s, .fields = h2_stream_fields(s)};
}

struct err dp_caller_begin_grpc(struct dp_request *rq)
{
    if (rq->answered) {
        return OK;
    }
    const struct h2_field fields[] = {
        h2_field_static(H2_TOKEN_STATUS, SLICE_LIT("200")),
        h2_field_static(H2_TOKEN_CONTENT_TYPE, SLICE_LIT("application/grpc")),
    };
    TRY(h2_stream_respond(rq->stream, fields, 2, /* end= */ false));
    rq->answered = true;
    rq->http_status = 200;
    return OK;
}
