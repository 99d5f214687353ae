/* Input: from bytes to frames, whatever pieces they come in. Bodies are handed on as they come; of
 * other frames the payload is whole before it is looked at. */
#include "common/base/limits.h"
#include "common/net/h2_impl.h"

static const uint8_t preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

void h2_recv_ended(struct h2_stream *s)
{
    if (s->received_end && s->end_framed && !s->over) {
        h2_stream_finish(s, H2_NO_ERROR);
    }
}

/* ---- bodies ---- */

/* Bytes that nobody waits for: the connection's window is open to them again. */
static void drop_body(struct h2_conn *c, size_t size)
{
    h2_conn_release(c, size);
}

/* Who takes the body that this frame's head announces; NULL: nobody. */
static struct h2_stream *find_body_stream(struct h2_conn *c, uint32_t id)
{
    struct h2_stream *s = h2_streams_find(&c->by_id, id);
    if (s == NULL) {
        if (h2_is_idle(c, id)) {
            h2_conn_wrong(c, H2_PROTOCOL_ERROR);
        } else if (!c->cut_short && c->drain == H2_DRAIN_NO) {
            h2_conn_wrong(c, H2_STREAM_CLOSED);
        }
        return NULL;
    }
    if (s->received_end) {
        h2_stream_break(s, H2_STREAM_CLOSED);
        return NULL;
    }
    if (!s->fields_done) {
        h2_stream_break(s, H2_PROTOCOL_ERROR);
        return NULL;
    }
    return s;
}

/* The head of a frame of DATA. All of it counts against the windows (RFC 9113, section 6.9.1). */
static void begin_body(struct h2_conn *c)
{
    uint32_t id = h2_frame_stream(c->head);
    c->padding = 0;
    c->wants_padding = (c->head[4] & H2_FLAG_PADDED) != 0;
    c->body_of = NULL;
    if (id == 0 || (c->wants_padding && c->left == 0)) {
        h2_conn_wrong(c, id == 0 ? H2_PROTOCOL_ERROR : H2_FRAME_SIZE_ERROR);
        return;
    }
    if (!h2_window_take(&c->window, c->left)) {
        h2_conn_wrong(c, H2_FLOW_CONTROL_ERROR);
        return;
    }
    struct h2_stream *s = find_body_stream(c, id);
    if (s != NULL && !h2_window_take(&s->window, c->left)) {
        h2_stream_break(s, H2_FLOW_CONTROL_ERROR);
        s = NULL;
    }
    c->body_of = s;
    if (s != NULL) {
        h2_watch_body(c);
    }
}

/* Padding is read by nobody. */
static void skip_padding(struct h2_conn *c, size_t size)
{
    struct h2_stream *s = c->body_of;
    drop_body(c, size);
    if (s != NULL && !s->over) {
        s->held += size;
        c->held += size;
        h2_stream_consume(s, size);
    }
}

static bool is_read(const struct h2_stream *s)
{
    return !s->over && !s->fields_refused;
}

/* Bytes that a stream holds until its owner gives them back. */
static void hold_body(struct h2_stream *s, size_t size)
{
    struct h2_conn *c = s->conn;
    s->held += size;
    c->held += size;
    if (c->held <= limits.connection_held_bytes) {
        h2_conn_release(c, size);
    } else {
        c->withheld += size;
    }
}

/* Whether the body keeps to its content-length (section 8.1.1). */
static bool count_body(struct h2_stream *s, size_t size, bool end)
{
    if (s->length_left == H2_LENGTH_NONE) {
        return true;
    }
    if (size > s->length_left) {
        return false;
    }
    s->length_left -= size;
    return !end || s->length_left == 0;
}

static void deliver(struct h2_conn *c, struct slice bytes, bool end)
{
    struct h2_stream *s = c->body_of;
    if (s == NULL || !is_read(s)) {
        drop_body(c, bytes.size);
        return;
    }
    if (!count_body(s, bytes.size, end)) {
        drop_body(c, bytes.size);
        h2_stream_break(s, H2_PROTOCOL_ERROR);
        return;
    }
    hold_body(s, bytes.size);
    s->received_end = end;
    if (s->events->data != NULL) {
        s->events->data(s, bytes, end);
    }
    if (end) {
        c->body_of = NULL;
        h2_recv_ended(s);
    }
}

/* A piece of a frame of DATA, and its end when nothing of it is left. */
static void pass_body(struct h2_conn *c, struct slice body)
{
    bool end = c->left == 0 && (c->head[4] & H2_FLAG_END_STREAM) != 0;
    if (body.size > 0 || end) {
        deliver(c, body, end);
    }
}

/* Takes bytes of a frame of DATA, of which some are left. */
static void take_body(struct h2_conn *c, struct slice *bytes)
{
    if (c->wants_padding) {
        c->wants_padding = false;
        c->padding = bytes->ptr[0];
        c->left--;
        *bytes = slice_from(*bytes, 1);
        if (c->padding > c->left) {
            h2_conn_wrong(c, H2_PROTOCOL_ERROR);
            return;
        }
        skip_padding(c, c->padding + 1);
    }
    struct slice body = slice_head(*bytes, c->left - c->padding);
    *bytes = slice_from(*bytes, body.size);
    c->left -= body.size;
    size_t padding = bytes->size < c->left ? bytes->size : c->left;
    if (c->left == c->padding) {
        *bytes = slice_from(*bytes, padding);
        c->left -= padding;
        c->padding -= padding;
    }
    pass_body(c, body);
}

/* ---- header sections: what stands around the block in a frame ---- */

/* Takes padding and priority off a frame of HEADERS; false when it is broken. */
static bool strip_headers(struct h2_conn *c, struct slice *payload)
{
    uint8_t flags = c->head[4];
    if ((flags & H2_FLAG_PADDED) != 0) {
        if (payload->size == 0 || payload->ptr[0] >= payload->size) {
            return false;
        }
        *payload = slice_of(payload->ptr + 1, payload->size - 1 - payload->ptr[0]);
    }
    if ((flags & H2_FLAG_PRIORITY) != 0) {
        if (payload->size < 5 ||
            (h2_read_u32(payload->ptr) & INT32_MAX) == h2_frame_stream(c->head)) {
            return false;
        }
        *payload = slice_from(*payload, 5);
    }
    return true;
}

static void take_frame(struct h2_conn *c, struct slice payload)
{
    bool last = (c->head[4] & H2_FLAG_END_HEADERS) != 0;
    switch (c->head[3]) {
    case H2_HEADERS:
        if (!strip_headers(c, &payload)) {
            h2_conn_wrong(c, H2_PROTOCOL_ERROR);
            return;
        }
        h2_section_add(c, payload, last);
        return;
    case H2_CONTINUATION:
        h2_section_add(c, payload, last);
        return;
    default:
        h2_frame_received(c, payload);
        return;
    }
}

/* ---- frames ---- */

/* Takes of the payload what came; what is not whole is kept. */
static void take_payload(struct h2_conn *c, struct slice *bytes)
{
    struct slice piece = slice_head(*bytes, c->left);
    *bytes = slice_from(*bytes, piece.size);
    c->left -= piece.size;
    if (c->left == 0 && c->part.size == 0) {
        take_frame(c, piece);
        return;
    }
    if (!err_ok(buf_add(&c->part, piece))) {
        h2_conn_close(c, H2_INTERNAL_ERROR, FAIL(E_NO_MEMORY));
        return;
    }
    if (c->left == 0) {
        take_frame(c, buf_slice(&c->part));
        buf_free(&c->part);
    }
}

/* Whether a frame may come here at all (sections 3.4, 4.2 and 6.10). */
static enum h2_code check_head(const struct h2_conn *c)
{
    uint8_t type = c->head[3];
    if (c->left > H2_FRAME_BYTES) {
        return H2_FRAME_SIZE_ERROR;
    }
    if (!c->settings_received && (type != H2_SETTINGS || (c->head[4] & H2_FLAG_ACK) != 0)) {
        return H2_PROTOCOL_ERROR;
    }
    bool goes_on = type == H2_CONTINUATION && h2_frame_stream(c->head) == c->section_id;
    bool fits = c->in_section ? goes_on : type != H2_CONTINUATION;
    return fits ? H2_NO_ERROR : H2_PROTOCOL_ERROR;
}

/* A head is whole. */
static void begin_frame(struct h2_conn *c)
{
    c->left = h2_frame_size(c->head);
    enum h2_code code = check_head(c);
    if (code != H2_NO_ERROR) {
        h2_conn_wrong(c, code);
        return;
    }
    if (!h2_watch_frame(c)) {
        return;
    }
    if (c->head[3] == H2_DATA) {
        begin_body(c);
        if (c->left == 0 && !c->ending) {
            pass_body(c, (struct slice){NULL, 0});
        }
        return;
    }
    if (c->head[3] == H2_HEADERS) {
        h2_section_begin(c);
    }
    if (c->left == 0 && !c->ending) {
        take_frame(c, (struct slice){NULL, 0});
    }
}

/* Takes bytes of a head; a frame begins when it is whole. */
static void take_head(struct h2_conn *c, struct slice *bytes, bool *out_began)
{
    *out_began |= c->head_have == 0 && !c->in_section;
    struct slice piece = slice_head(*bytes, H2_FRAME_HEAD_BYTES - (size_t)c->head_have);
    memcpy(c->head + c->head_have, piece.ptr, piece.size);
    c->head_have = (uint8_t)(c->head_have + piece.size);
    *bytes = slice_from(*bytes, piece.size);
    if (c->head_have == H2_FRAME_HEAD_BYTES) {
        c->head_have = 0;
        begin_frame(c);
    }
}

static void take_preface(struct h2_conn *c, struct slice *bytes)
{
    struct slice piece = slice_head(*bytes, c->preface_left);
    struct slice wanted = slice_of(preface + (H2_PREFACE_BYTES - c->preface_left), piece.size);
    *bytes = slice_from(*bytes, piece.size);
    c->preface_left = (uint8_t)(c->preface_left - piece.size);
    if (!slice_eq(piece, wanted)) {
        h2_conn_wrong(c, H2_PROTOCOL_ERROR);
    }
}

void h2_recv(struct h2_conn *c, struct slice bytes)
{
    if (c->ending || bytes.size == 0) {
        return;
    }
    c->heard_ms = h2_now_ms(c);
    bool began = false;
    while (bytes.size > 0 && !c->ending) { /* ends: each round takes bytes. */
        if (c->preface_left > 0) {
            take_preface(c, &bytes);
        } else if (c->left == 0) {
            take_head(c, &bytes, &began);
        } else if (c->head[3] == H2_DATA) {
            take_body(c, &bytes);
        } else {
            take_payload(c, &bytes);
        }
    }
    if (!c->ending) {
        h2_watch_cut(c, began);
    }
    h2_conn_dirty(c);
}
