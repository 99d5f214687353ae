/*
 * From nghttp2's callbacks to events: what a peer sends, bounded, counted, handed on.
 *
 * The library checks the protocol (order of frames, pseudo header fields, content-length, HPACK).
 * What it leaves open is done here: bounds of header sections, which it advertises but does not
 * enforce, the number of streams, and floods.
 */
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/net/grpc.h"
#include "common/net/h2_impl.h"

static struct h2_stream *stream_of(nghttp2_session *session, int32_t id)
{
    return nghttp2_session_get_stream_user_data(session, id);
}

/* ---- floods: what is known only when a frame was looked at; for the others see h2_watch.c ---- */

/* A client that resets calls makes us work for nothing; an upstream's resets are its answers. */
static int charge_reset(struct h2_conn *c)
{
    if (!c->server || h2_guard_charge(&c->resets, h2_now_ms(c), /* charges= */ 1)) {
        return 0;
    }
    h2_conn_flooded(c, NET_FLOOD_RESET);
    return NGHTTP2_ERR_CALLBACK_FAILURE;
}

/* ---- header sections ---- */

/*
 * Over the number of streams, or past a GOAWAY of ours, a request is refused and the connection
 * lives: the client may not have seen SETTINGS yet. The library would end the connection; it was
 * told a larger number than the peer (see advertise() in h2_send.c).
 */
static int refuse_stream(struct h2_conn *c, const nghttp2_frame_hd *head)
{
    c->env->counters.streams_refused++;
    c->cut_short = true;
    bool forgiven = !c->settings_acked && ++c->refused_early <= 4 * limits.streams_per_connection;
    if ((!forgiven && charge_reset(c) != 0) ||
        !h2_watch_charge_section(c, head->length, /* charges= */ 0)) {
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    if (nghttp2_submit_rst_stream(c->session, NGHTTP2_FLAG_NONE, head->stream_id,
                                  NGHTTP2_REFUSED_STREAM) != 0) {
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

/*
 * nghttp2 remembers no stream that is over, and drops what comes for it: that has to be, as long as
 * we ended one before its client did. Else the client broke the protocol (RFC 9113, sections 5.1
 * and 5.1.1): it ended the stream itself, or passed over its number. Frames of DATA that nghttp2
 * drops reach no callback.
 */
static int on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *head, void *user)
{
    struct h2_conn *c = user;
    if (head->type != NGHTTP2_HEADERS || !c->server || head->stream_id % 2 == 0) {
        return 0;
    }
    if (head->stream_id > c->begun_id) {
        c->begun_id = head->stream_id;
        return 0;
    }
    if (c->cut_short || c->drain != H2_DRAIN_NO || stream_of(session, head->stream_id) != NULL) {
        return 0;
    }
    h2_conn_close(c, H2_STREAM_CLOSED, FAIL(E_PROTOCOL_ERROR));
    return NGHTTP2_ERR_CALLBACK_FAILURE;
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    struct h2_conn *c = user;
    c->section = NULL;
    c->section_skipped = 0;
    h2_fields_clear(c->env, &c->trailers, /* inline_at= */ NULL);
    if (frame->headers.cat != NGHTTP2_HCAT_REQUEST) {
        c->section = stream_of(session, frame->hd.stream_id);
        return 0;
    }
    if (c->stream_count >= limits.streams_per_connection || c->ending) {
        return refuse_stream(c, &frame->hd);
    }
    struct h2_stream *s = h2_stream_new(c, frame->hd.stream_id);
    if (s == NULL) {
        return refuse_stream(c, &frame->hd);
    }
    c->section = s;
    return nghttp2_session_set_stream_user_data(session, s->id, s) == 0
               ? 0
               : NGHTTP2_ERR_CALLBACK_FAILURE;
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

/*
 * A field of a section that is over the bounds. nghttp2 has looked at each byte of it, though a
 * byte on the wire may stand for thousands: a bomb is put out, and not read to its end.
 */
static int skip_field(struct h2_conn *c, nghttp2_rcbuf *name, nghttp2_rcbuf *value)
{
    c->section_skipped +=
        nghttp2_rcbuf_get_buf(name).len + nghttp2_rcbuf_get_buf(value).len + H2_FIELD_OVERHEAD;
    if (!c->server || c->section_skipped <= H2_SECTION_SKIPS * limits.request_header_bytes) {
        return 0;
    }
    h2_conn_flooded(c, NET_FLOOD_HEADERS);
    return NGHTTP2_ERR_CALLBACK_FAILURE;
}

/* No other frame comes between those of a section (RFC 9113, section 6.10): the stream is known. */
static int on_header(nghttp2_session *session, const nghttp2_frame *frame, nghttp2_rcbuf *name,
                     nghttp2_rcbuf *value, uint8_t flags, void *user)
{
    (void)session;
    (void)frame;
    struct h2_conn *c = user;
    struct h2_stream *s = c->section;
    if (s == NULL || s->fields_refused) {
        return skip_field(c, name, value);
    }
    struct h2_arrived arrived = {name, value, flags};
    bool too_large = false;
    bool added =
        s->fields_done
            ? h2_fields_add(c->env, &c->trailers, /* inline_at= */ NULL, &arrived, &too_large)
            : h2_fields_add(c->env, &s->fields, s->inline_fields, &arrived, &too_large);
    if (!added) {
        section_refused(c, s, too_large);
    }
    return 0;
}

/* nghttp2 leaves out a field with bytes that have no place there, and goes on; a request with one
 * is malformed (RFC 9113, section 8.2.1). */
static int on_invalid_header(nghttp2_session *session, const nghttp2_frame *frame,
                             nghttp2_rcbuf *name, nghttp2_rcbuf *value, uint8_t flags, void *user)
{
    (void)session;
    (void)frame;
    (void)name;
    (void)value;
    (void)flags;
    const struct h2_conn *c = user;
    return c->server ? NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE : 0;
}

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
    if (s->fields_refused) {
        answer_too_large(s);
        return;
    }
    if (c->events->request != NULL) {
        c->events->request(c, s, &s->fields, end);
    }
    if (!h2_stream_attached(s) && !s->responded && !s->reset_by_owner) {
        h2_stream_reset(s, H2_REFUSED_STREAM);
    }
}

static bool is_interim(const struct h2_stream *s)
{
    struct slice status = h2_fields_value(&s->fields, H2_TOKEN_STATUS);
    return status.size == 3 && status.ptr[0] == '1';
}

/* A stream error for what the library let pass: reported as ours. */
static void break_stream(struct h2_stream *s)
{
    if (nghttp2_submit_rst_stream(s->conn->session, NGHTTP2_FLAG_NONE, s->id,
                                  NGHTTP2_PROTOCOL_ERROR) == 0) {
        s->sent_end = true;
    }
    h2_conn_dirty(s->conn);
}

static void on_answer(struct h2_conn *c, struct h2_stream *s, bool end)
{
    if (s->fields_refused) {
        break_stream(s);
        return;
    }
    if (is_interim(s)) {
        s->fields_done = false;
        h2_fields_clear(c->env, &s->fields, s->inline_fields);
        return;
    }
    if (s->events->headers != NULL) {
        s->events->headers(s, &s->fields, end);
    }
}

static void on_trailers(struct h2_conn *c, struct h2_stream *s)
{
    if (s->fields_refused) {
        s->received_end = false; /* the message is not whole. */
        if (!s->sent_end || !c->server) {
            break_stream(s);
        }
        return;
    }
    if (s->events->trailers != NULL) {
        s->events->trailers(s, &c->trailers);
    }
    h2_fields_clear(c->env, &c->trailers, /* inline_at= */ NULL);
}

static int on_section(struct h2_conn *c, const nghttp2_frame *frame)
{
    struct h2_stream *s = c->section;
    c->section = NULL;
    if (s == NULL) {
        return 0;
    }
    /* It is answered, and its connection lives; but many of them are a flood. */
    if (c->server && s->fields_refused &&
        !h2_watch_charge_section(c, frame->hd.length, /* charges= */ 1)) {
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    bool end = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    s->received_end = end;
    if (s->fields_done) {
        on_trailers(c, s);
        return 0;
    }
    s->fields_done = true;
    if (c->server) {
        on_request(c, s, end);
    } else {
        on_answer(c, s, end);
    }
    return 0;
}

/* ---- the body ---- */

/*
 * Hands out the bytes that came last. They are held back until the next callback, since only the
 * frame's end tells whether they end the message, and whether it kept its content-length.
 */
static void deliver_data(struct h2_conn *c, bool end)
{
    struct h2_stream *s = c->data_stream;
    c->data_stream = NULL;
    if (s == NULL || s->reset_by_owner) {
        return;
    }
    if (s->events->data != NULL) {
        s->events->data(s, c->data, end);
    }
}

static int on_data_chunk(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
                         size_t size, void *user)
{
    (void)flags;
    struct h2_conn *c = user;
    deliver_data(c, /* end= */ false);
    struct h2_stream *s = stream_of(session, id);
    if (s == NULL || s->reset_by_owner || s->fields_refused) {
        h2_conn_release(c, size);
        return 0;
    }
    s->held += size;
    c->held += size;
    if (c->held <= limits.connection_held_bytes) {
        h2_conn_release(c, size);
    } else {
        c->withheld += size;
    }
    c->data_stream = s;
    c->data = slice_of(data, size);
    return 0;
}

static void on_data_frame(struct h2_conn *c, const nghttp2_frame *frame)
{
    if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0) {
        return; /* delivered by the next callback, or when the input is used up. */
    }
    struct h2_stream *s = stream_of(c->session, frame->hd.stream_id);
    if (s == NULL) {
        return;
    }
    s->received_end = true;
    if (c->data_stream != s) {
        deliver_data(c, /* end= */ false);
        c->data_stream = s;
        c->data = (struct slice){NULL, 0};
    }
    deliver_data(c, /* end= */ true);
}

/* ---- the other frames ---- */

static int on_reset_frame(struct h2_conn *c, const nghttp2_frame *frame)
{
    c->env->counters.resets_received++;
    struct h2_stream *s = stream_of(c->session, frame->hd.stream_id);
    if (s == NULL) {
        return 0;
    }
    s->reset_by_peer = true;
    return charge_reset(c);
}

static void on_settings_frame(struct h2_conn *c, const nghttp2_frame *frame)
{
    if ((frame->hd.flags & NGHTTP2_FLAG_ACK) != 0) {
        c->settings_acked = true;
        return;
    }
    c->settings_received = true;
    if (!c->server && c->opened && c->events->room != NULL) {
        c->events->room(c);
    }
}

static void on_goaway_frame(struct h2_conn *c)
{
    c->env->counters.goaways_received++;
    if (!c->goaway_received && !c->server && c->events->draining != NULL) {
        c->goaway_received = true;
        c->events->draining(c);
    }
    c->goaway_received = true;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    (void)session;
    struct h2_conn *c = user;
    if (frame->hd.type != NGHTTP2_DATA) {
        deliver_data(c, /* end= */ false);
    }
    switch (frame->hd.type) {
    case NGHTTP2_HEADERS:
        return on_section(c, frame);
    case NGHTTP2_DATA:
        on_data_frame(c, frame);
        return 0;
    case NGHTTP2_RST_STREAM:
        return on_reset_frame(c, frame);
    case NGHTTP2_SETTINGS:
        on_settings_frame(c, frame);
        return 0;
    case NGHTTP2_GOAWAY:
        on_goaway_frame(c);
        return 0;
    case NGHTTP2_PING:
        if ((frame->hd.flags & NGHTTP2_FLAG_ACK) != 0) {
            h2_conn_ping_answered(c);
        }
        return 0;
    default:
        return 0;
    }
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *user)
{
    (void)user;
    struct h2_stream *s = stream_of(session, id);
    if (s == NULL) {
        return 0;
    }
    (void)nghttp2_session_set_stream_user_data(session, id, NULL);
    h2_stream_finish(s, code);
    return 0;
}

int h2_recv_reset_charge(struct h2_conn *c)
{
    return charge_reset(c);
}

void h2_recv_callbacks(nghttp2_session_callbacks *callbacks)
{
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, on_begin_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback2(callbacks, on_header);
    nghttp2_session_callbacks_set_on_invalid_header_callback2(callbacks, on_invalid_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data_chunk);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
}

/* The library gave up on its input; what it still has to say is said, then the end. */
static void recv_failed(struct h2_conn *c, ssize_t why)
{
    c->data_stream = NULL;
    if (why == NGHTTP2_ERR_FLOODED || why == NGHTTP2_ERR_TOO_MANY_CONTINUATIONS) {
        h2_conn_flooded(c, why == NGHTTP2_ERR_FLOODED ? NET_FLOOD_CONTROL : NET_FLOOD_CONTINUATION);
        return;
    }
    bool bad_preface = why == NGHTTP2_ERR_BAD_CLIENT_MAGIC;
    h2_conn_close(c, bad_preface ? H2_PROTOCOL_ERROR : H2_INTERNAL_ERROR, FAIL(E_PROTOCOL_ERROR));
}

void h2_recv(struct h2_conn *c, struct slice bytes)
{
    if (c->ending || bytes.size == 0) {
        return;
    }
    c->heard_ms = h2_now_ms(c);
    if (!h2_watch(c, bytes)) {
        return;
    }
    ssize_t size = nghttp2_session_mem_recv(c->session, bytes.ptr, bytes.size);
    if (size < 0) {
        recv_failed(c, size);
        return;
    }
    deliver_data(c, /* end= */ false);
    h2_conn_dirty(c);
}
