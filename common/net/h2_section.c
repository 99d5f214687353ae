/* Header sections in: whose they are, their fields, bounded and checked, and what they begin. */
#include <stdlib.h>

#include "common/base/limits.h"
#include "common/net/grpc.h"
#include "common/net/h2_impl.h"

enum { SCRATCH_MIN = 4096 };

/* ---- whose section ---- */

void h2_section_begin(struct h2_conn *c)
{
    uint32_t id = h2_frame_stream(c->head);
    c->section_id = id;
    c->section_ends = (c->head[4] & H2_FLAG_END_STREAM) != 0;
    c->section_opens = c->server && id > c->newest_id;
    if (id % 2 == 0 || (!c->server && h2_is_idle(c, id))) {
        h2_conn_wrong(c, H2_PROTOCOL_ERROR);
        return;
    }
    if (c->section_opens) {
        c->newest_id = id;
        return;
    }
    /* What comes for a stream that is over has to be dropped, if it was on its way when we ended
     * it. Else the peer ended it itself, or passed over its number (RFC 9113, section 5.1). */
    if (c->server && !c->cut_short && c->drain == H2_DRAIN_NO &&
        h2_streams_find(&c->by_id, id) == NULL) {
        h2_conn_wrong(c, H2_STREAM_CLOSED);
    }
}

/*
 * Over the number of streams a request is refused and the connection lives: the client may not have
 * seen SETTINGS yet (section 5.1.2 allows both).
 */
static void refuse_stream(struct h2_conn *c, uint32_t id, size_t size, struct err why)
{
    c->env->counters.streams_refused++;
    c->cut_short = true;
    bool forgiven = !c->settings_acked && ++c->refused_early <= 4 * limits.streams_per_connection;
    if ((forgiven || h2_watch_charge_reset(c)) &&
        h2_watch_charge_section(c, size, /* charges= */ 0)) {
        h2_out_reset(c, id, H2_REFUSED_STREAM);
        if (c->events->refused != NULL) {
            c->events->refused(c, why);
        }
    }
}

/* ---- fields ---- */

/* Where the fields of a section go. */
struct sink {
    struct h2_stream *stream; /* NULL: nowhere, they are read for the table's sake. */
    struct h2_fields *fields;
    struct h2_field *inline_at;
    struct h2_check check;
    bool malformed;
    size_t skipped; /* bytes of fields, decoded, that go nowhere. */
};

static struct sink sink_of(struct h2_conn *c, struct h2_stream *s)
{
    struct sink sink = {.stream = s};
    enum h2_section_kind kind = H2_SECTION_TRAILERS;
    if (s != NULL && !s->fields_done) {
        kind = c->server ? H2_SECTION_REQUEST : H2_SECTION_ANSWER;
        sink.fields = &s->fields;
        sink.inline_at = s->inline_fields;
    } else {
        sink.fields = &c->trailers;
    }
    h2_check_begin(&sink.check, kind);
    return sink;
}

/* Past the bound nothing more is kept, and what was kept of trailers goes; of a request the first
 * fields stay, for they tell in which protocol to answer. */
static void section_refused(struct h2_conn *c, struct h2_stream *s, bool too_large)
{
    if (!s->fields_refused && too_large) {
        c->env->counters.headers_too_large++;
    }
    s->fields_refused = true;
    h2_fields_clear(c->env, &c->trailers, /* inline_at= */ NULL);
}

/* A byte on the wire may stand for thousands: a bomb is put out, and not read to its end. */
static bool skip_field(struct h2_conn *c, struct sink *sink, const struct hpack_field *f)
{
    sink->skipped += f->name.size + f->value.size + H2_FIELD_OVERHEAD;
    if (!c->server || sink->skipped <= H2_SECTION_SKIPS * limits.request_header_bytes) {
        return true;
    }
    h2_conn_flooded(c, NET_FLOOD_HEADERS);
    return false;
}

/* False when the connection has to end. */
static bool take_field(struct h2_conn *c, struct sink *sink, const struct hpack_field *f)
{
    struct h2_stream *s = sink->stream;
    if (s == NULL || s->fields_refused || sink->malformed) {
        return skip_field(c, sink, f);
    }
    if (!f->valid) {
        /* Of an answer it is left out; a request with one is malformed (section 8.2.1). */
        sink->malformed = c->server;
        return true;
    }
    if (!h2_check_field(&sink->check, f->token, f->name, f->value)) {
        sink->malformed = true;
        return true;
    }
    bool too_large = false;
    if (!h2_fields_add(c->env, sink->fields, sink->inline_at, f, &too_large)) {
        section_refused(c, s, too_large);
    }
    return true;
}

/* Room for coded strings; one for all connections of the worker. */
static bool make_scratch(struct h2_env *env, size_t size)
{
    if (size <= env->scratch_size) {
        return true;
    }
    size = size < SCRATCH_MIN ? SCRATCH_MIN : size;
    uint8_t *scratch = realloc(env->scratch, size);
    if (scratch == NULL) {
        return false;
    }
    env->scratch = scratch;
    env->scratch_size = size;
    return true;
}

/* Reads the whole block; false when the connection ends. */
static bool read_fields(struct h2_conn *c, struct sink *sink, struct slice bytes)
{
    if (!make_scratch(c->env, hpack_scratch_bound(bytes.size))) {
        h2_conn_close(c, H2_INTERNAL_ERROR, FAIL(E_NO_MEMORY));
        return false;
    }
    struct hpack_block block = {.at = bytes.ptr, .scratch = c->env->scratch};
    block.end = bytes.size == 0 ? bytes.ptr : bytes.ptr + bytes.size;
    for (;;) { /* ends with the block: each round takes bytes of it. */
        struct hpack_field field;
        switch ((int)hpack_next(&c->decoder, &block, &field)) {
        case HPACK_FIELD:
            if (!take_field(c, sink, &field)) {
                return false;
            }
            break;
        case HPACK_END:
            return true;
        case HPACK_BROKEN:
            h2_conn_wrong(c, H2_COMPRESSION_ERROR);
            return false;
        default:
            h2_conn_close(c, H2_INTERNAL_ERROR, FAIL(E_NO_MEMORY));
            return false;
        }
    }
}

/* ---- what the section begins or ends ---- */

/* The answer to a request whose header section is over the bounds; it has no owner yet. */
static void answer_too_large(struct h2_stream *s)
{
    if (grpc_is_content_type(h2_fields_value(&s->fields, H2_TOKEN_CONTENT_TYPE))) {
        grpc_refuse(s, &(struct grpc_refusal){.code = E_HEADERS_TOO_LARGE});
        return;
    }
    struct h2_field fields[] = {
        h2_field_static(H2_TOKEN_STATUS, SLICE_LIT("431")),
        h2_field_static(H2_TOKEN_CONTENT_LENGTH, SLICE_LIT("0")),
        h2_field_static(H2_TOKEN_X_TRILANE_CODE, SLICE_LIT("HEADERS_TOO_LARGE")),
    };
    struct err e =
        h2_stream_respond(s, fields, sizeof(fields) / sizeof(fields[0]), /* end= */ true);
    if (!err_ok(e)) {
        h2_stream_reset(s, H2_ENHANCE_YOUR_CALM);
    }
}

static void on_request(struct h2_conn *c, struct h2_stream *s, bool end)
{
    if (s->fields_refused && c->events->too_large != NULL) {
        c->events->too_large(c, s, &s->fields);
    } else if (s->fields_refused) {
        answer_too_large(s);
    } else if (c->events->request != NULL) {
        c->events->request(c, s, &s->fields, end);
    }
    if (!h2_stream_attached(s) && !s->responded && !s->over) {
        h2_stream_reset(s, H2_REFUSED_STREAM);
    }
}

static bool is_status(const struct h2_stream *s, const char *status)
{
    return slice_eq(h2_fields_value(&s->fields, H2_TOKEN_STATUS), slice_str(status));
}

static bool is_interim(const struct h2_stream *s)
{
    struct slice status = h2_fields_value(&s->fields, H2_TOKEN_STATUS);
    return status.size == 3 && status.ptr[0] == '1';
}

/* Interim answers are left out (RFC 9110, section 15.2); there is none that changes the protocol
 * (RFC 9113, section 8.6). */
static void on_interim(struct h2_stream *s, bool end)
{
    if (end || is_status(s, "101")) {
        h2_stream_break(s, H2_PROTOCOL_ERROR);
        return;
    }
    h2_stream_clear_fields(s);
    s->fields_done = false;
    s->length_left = H2_LENGTH_NONE;
}

static void on_answer(struct h2_stream *s, bool end)
{
    if (s->fields_refused) {
        s->received_end = false; /* the message is not whole. */
        h2_stream_break(s, H2_PROTOCOL_ERROR);
        return;
    }
    if (s->events->headers != NULL) {
        s->events->headers(s, &s->fields, end);
    }
}

static void on_trailers(struct h2_conn *c, struct h2_stream *s)
{
    if (s->fields_refused) {
        s->received_end = false;
        if (!s->sent_end || !c->server) {
            h2_stream_break(s, H2_PROTOCOL_ERROR);
        }
        return;
    }
    if (s->events->trailers != NULL) {
        s->events->trailers(s, &c->trailers);
    }
}

/* Whether there is no body, whatever content-length says (RFC 9110, section 6.4.1): who passes one
 * on over HTTP/1 would say it as the next answer. */
static bool has_no_body(const struct h2_stream *s)
{
    return s->head_request || is_status(s, "304") || is_status(s, "204");
}

static void on_first(struct h2_conn *c, struct h2_stream *s, const struct sink *sink, bool end)
{
    s->fields_done = true;
    s->length_left = sink->check.content_length;
    if (!c->server && is_interim(s)) {
        on_interim(s, end);
        return;
    }
    if (!c->server && has_no_body(s)) {
        s->length_left = 0;
    }
    if (end && s->length_left != H2_LENGTH_NONE && s->length_left > 0) {
        h2_stream_break(s, H2_PROTOCOL_ERROR);
        return;
    }
    s->received_end = end;
    if (c->server) {
        on_request(c, s, end);
    } else {
        on_answer(s, end);
    }
}

/* A second section ends the message, and nothing comes behind the end (sections 5.1 and 8.1). */
static enum h2_code check_trailers(const struct h2_stream *s, bool end)
{
    if (s->received_end) {
        return H2_STREAM_CLOSED;
    }
    bool whole = s->length_left == H2_LENGTH_NONE || s->length_left == 0;
    return end && whole ? H2_NO_ERROR : H2_PROTOCOL_ERROR;
}

static void on_section(struct h2_conn *c, const struct sink *sink, size_t size)
{
    struct h2_stream *s = sink->stream;
    bool end = c->section_ends;
    /* It is answered, and its connection lives; but many of them are a flood. */
    if (c->server && s->fields_refused && !h2_watch_charge_section(c, size, /* charges= */ 1)) {
        return;
    }
    bool checked = s->fields_refused || (!sink->malformed && h2_check_end(&sink->check));
    if (!checked) {
        h2_stream_break(s, H2_PROTOCOL_ERROR);
        return;
    }
    if (!s->fields_done) {
        on_first(c, s, sink, end);
    } else {
        enum h2_code code = check_trailers(s, end);
        if (code != H2_NO_ERROR) {
            h2_stream_break(s, code);
            return;
        }
        s->received_end = true;
        on_trailers(c, s);
    }
    h2_recv_ended(s);
}

/* Heads of answers that a client does not read, though it goes on asking. */
enum { UNREAD_MAX_BYTES = 1 << 20 };

/* A new stream for the request; NULL: it is refused, or comes behind our last word. */
static struct h2_stream *open_stream(struct h2_conn *c, struct err *out_refused)
{
    if (c->goaway_sent) {
        return NULL;
    }
    if (c->stream_count >= limits.streams_per_connection || c->pending.size > UNREAD_MAX_BYTES) {
        *out_refused = FAIL(E_OVERLOADED);
        return NULL;
    }
    struct h2_stream *s = h2_stream_new(c, c->section_id);
    *out_refused = s == NULL ? FAIL(E_NO_MEMORY) : OK;
    return s;
}

static void read_section(struct h2_conn *c, struct slice bytes)
{
    struct err refused = OK;
    struct h2_stream *s =
        c->section_opens ? open_stream(c, &refused) : h2_streams_find(&c->by_id, c->section_id);
    struct sink sink = sink_of(c, s);
    if (!read_fields(c, &sink, bytes)) {
        return;
    }
    if (!err_ok(refused)) {
        refuse_stream(c, c->section_id, c->section_size, refused);
    } else if (s != NULL) {
        on_section(c, &sink, c->section_size);
    }
    h2_fields_clear(c->env, &c->trailers, /* inline_at= */ NULL);
}

void h2_section_add(struct h2_conn *c, struct slice piece, bool last)
{
    c->in_section = !last;
    if (last && c->section_bytes.size == 0) {
        read_section(c, piece);
        return;
    }
    if (!err_ok(buf_add(&c->section_bytes, piece))) {
        h2_conn_close(c, H2_INTERNAL_ERROR, FAIL(E_NO_MEMORY));
        return;
    }
    if (last) {
        read_section(c, buf_slice(&c->section_bytes));
        buf_free(&c->section_bytes);
    }
}
