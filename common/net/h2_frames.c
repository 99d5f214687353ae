/* Frames that are neither bodies nor header sections (RFC 9113, sections 6.3 to 6.9). */
#include "common/base/limits.h"
#include "common/net/h2_impl.h"

static const enum h2_code fine = H2_NO_ERROR;

/* Entries of one SETTINGS. */
enum { SETTINGS_MAX = 32 };

/* Answers that wait for a peer that asks and does not read. */
enum { ANSWERS_MAX_BYTES = 64 << 10 };

/* Whether the peer reads what it has us answer. */
static bool may_answer(struct h2_conn *c)
{
    if (c->pending.size <= ANSWERS_MAX_BYTES) {
        return true;
    }
    h2_conn_flooded(c, NET_FLOOD_CONTROL);
    return false;
}

/* ---- SETTINGS ---- */

/* Every stream's window changes by as much as that of a new one (section 6.9.2). */
static enum h2_code set_initial_window(struct h2_conn *c, uint32_t value)
{
    int64_t change = (int64_t)value - c->peer_window;
    if (change == 0 || !h2_watch_charge_streams(c)) {
        return fine;
    }
    c->peer_window = (int32_t)value;
    for (struct h2_stream *s = c->streams; s != NULL; s = s->next) {
        if (s->send_window + change > H2_WINDOW_MAX) {
            return H2_FLOW_CONTROL_ERROR;
        }
        s->send_window = (int32_t)(s->send_window + change);
        h2_send_ready(s);
    }
    return fine;
}

/* Unknown ones are ignored (section 6.5.2). Of several windows the last one counts: that walks over
 * the streams once. */
static enum h2_code apply_setting(struct h2_conn *c, uint16_t id, uint32_t value,
                                  uint32_t *out_window)
{
    switch (id) {
    case H2_SETTING_HEADER_TABLE_SIZE:
        hpack_encoder_limit(&c->encoder, value);
        return fine;
    case H2_SETTING_ENABLE_PUSH:
        return value > (c->server ? 1 : 0) ? H2_PROTOCOL_ERROR : fine;
    case H2_SETTING_MAX_CONCURRENT_STREAMS:
        c->peer_streams = value;
        return fine;
    case H2_SETTING_INITIAL_WINDOW_SIZE:
        *out_window = value;
        return value > H2_WINDOW_MAX ? H2_FLOW_CONTROL_ERROR : fine;
    case H2_SETTING_MAX_FRAME_SIZE: /* ours are never larger than the least of it. */
        return value < H2_FRAME_BYTES || value >= 1 << 24 ? H2_PROTOCOL_ERROR : fine;
    case H2_SETTING_MAX_HEADER_LIST_SIZE:
        c->peer_headers = value;
        return fine;
    default:
        return fine;
    }
}

static enum h2_code on_settings(struct h2_conn *c, struct slice p)
{
    bool ack = (c->head[4] & H2_FLAG_ACK) != 0;
    if (h2_frame_stream(c->head) != 0) {
        return H2_PROTOCOL_ERROR;
    }
    if (p.size % H2_SETTING_BYTES != 0 || (ack && p.size > 0)) {
        return H2_FRAME_SIZE_ERROR;
    }
    if (ack) {
        c->settings_acked = true;
        return fine;
    }
    if (p.size > (size_t)SETTINGS_MAX * H2_SETTING_BYTES) {
        h2_conn_flooded(c, NET_FLOOD_CONTROL);
        return fine;
    }
    if (!c->settings_received) {
        c->peer_streams = UINT32_MAX; /* unless it says so. */
        c->peer_headers = UINT32_MAX;
    }
    uint32_t window = (uint32_t)c->peer_window;
    for (; p.size > 0; p = slice_from(p, H2_SETTING_BYTES)) {
        enum h2_code code =
            apply_setting(c, (uint16_t)(p.ptr[0] << 8 | p.ptr[1]), h2_read_u32(p.ptr + 2), &window);
        if (code != fine) {
            return code;
        }
    }
    enum h2_code code = set_initial_window(c, window);
    if (code != fine) {
        return code;
    }
    c->settings_received = true;
    if (may_answer(c)) {
        h2_out_settings_ack(c);
    }
    if (!c->server && c->opened && c->events->room != NULL) {
        c->events->room(c);
    }
    return fine;
}

/* ---- PING, GOAWAY ---- */

static enum h2_code on_ping(struct h2_conn *c, struct slice p)
{
    if (h2_frame_stream(c->head) != 0) {
        return H2_PROTOCOL_ERROR;
    }
    if (p.size != 8) {
        return H2_FRAME_SIZE_ERROR;
    }
    if ((c->head[4] & H2_FLAG_ACK) != 0) {
        h2_conn_ping_answered(c);
    } else if (may_answer(c)) {
        h2_out_ping(c, p.ptr, /* ack= */ true);
    }
    return fine;
}

/* What the peer has not looked at and will not (section 6.8): safe to send again elsewhere. */
static void end_unprocessed(struct h2_conn *c, uint32_t last_id)
{
    for (struct h2_stream *s = c->streams; s != NULL; s = s->next) {
        if ((uint32_t)s->id > last_id) {
            h2_stream_over(s, H2_REFUSED_STREAM);
        }
    }
}

static enum h2_code on_goaway(struct h2_conn *c, struct slice p)
{
    if (h2_frame_stream(c->head) != 0) {
        return H2_PROTOCOL_ERROR;
    }
    if (p.size < 8) {
        return H2_FRAME_SIZE_ERROR;
    }
    c->env->counters.goaways_received++;
    bool first = !c->goaway_received;
    c->goaway_received = true;
    if (c->server) {
        return fine;
    }
    if (first && c->events->draining != NULL) {
        c->events->draining(c);
    }
    end_unprocessed(c, h2_read_u32(p.ptr) & INT32_MAX);
    return fine;
}

/* ---- WINDOW_UPDATE ---- */

static enum h2_code open_window(struct h2_conn *c, uint32_t bytes)
{
    if (bytes == 0) {
        return H2_PROTOCOL_ERROR;
    }
    if ((int64_t)c->send_window + bytes > H2_WINDOW_MAX) {
        return H2_FLOW_CONTROL_ERROR;
    }
    c->send_window += (int32_t)bytes;
    h2_conn_dirty(c);
    return fine;
}

static void open_stream_window(struct h2_stream *s, uint32_t bytes)
{
    if (bytes == 0) {
        h2_stream_break(s, H2_PROTOCOL_ERROR);
    } else if ((int64_t)s->send_window + bytes > H2_WINDOW_MAX) {
        h2_stream_break(s, H2_FLOW_CONTROL_ERROR);
    } else {
        s->send_window += (int32_t)bytes;
        h2_send_ready(s);
    }
}

static enum h2_code on_window_update(struct h2_conn *c, struct slice p)
{
    if (p.size != 4) {
        return H2_FRAME_SIZE_ERROR;
    }
    uint32_t id = h2_frame_stream(c->head);
    uint32_t bytes = h2_read_u32(p.ptr) & INT32_MAX;
    if (id == 0) {
        return open_window(c, bytes);
    }
    if (h2_is_idle(c, id)) {
        return H2_PROTOCOL_ERROR;
    }
    struct h2_stream *s = h2_streams_find(&c->by_id, id);
    if (s != NULL) {
        open_stream_window(s, bytes);
    }
    return fine;
}

/* ---- RST_STREAM, PRIORITY ---- */

static enum h2_code on_reset(struct h2_conn *c, struct slice p)
{
    uint32_t id = h2_frame_stream(c->head);
    if (p.size != 4) {
        return H2_FRAME_SIZE_ERROR;
    }
    if (h2_is_idle(c, id)) { /* 0 is idle, too. */
        return H2_PROTOCOL_ERROR;
    }
    c->env->counters.resets_received++;
    struct h2_stream *s = h2_streams_find(&c->by_id, id);
    if (s == NULL) {
        return fine;
    }
    s->reset_by_peer = true;
    /* A client that resets calls makes us work for nothing; an upstream's resets are answers. */
    if (!c->server || h2_watch_charge_reset(c)) {
        h2_stream_finish(s, h2_read_u32(p.ptr));
    }
    return fine;
}

/* Read and left alone (section 5.3.2), but for what is plainly wrong. */
static enum h2_code on_priority(struct h2_conn *c, struct slice p)
{
    uint32_t id = h2_frame_stream(c->head);
    if (id == 0) {
        return H2_PROTOCOL_ERROR;
    }
    bool cut = p.size != 5;
    if (!cut && (h2_read_u32(p.ptr) & INT32_MAX) != id) {
        return fine;
    }
    struct h2_stream *s = h2_streams_find(&c->by_id, id);
    if (s == NULL) {
        return cut ? H2_FRAME_SIZE_ERROR : H2_PROTOCOL_ERROR;
    }
    h2_stream_break(s, cut ? H2_FRAME_SIZE_ERROR : H2_PROTOCOL_ERROR);
    return fine;
}

static enum h2_code take(struct h2_conn *c, struct slice payload)
{
    switch (c->head[3]) {
    case H2_PRIORITY:
        return on_priority(c, payload);
    case H2_RST_STREAM:
        return on_reset(c, payload);
    case H2_SETTINGS:
        return on_settings(c, payload);
    case H2_PUSH_PROMISE: /* no client sends it, and of servers we took none. */
        return H2_PROTOCOL_ERROR;
    case H2_PING:
        return on_ping(c, payload);
    case H2_GOAWAY:
        return on_goaway(c, payload);
    case H2_WINDOW_UPDATE:
        return on_window_update(c, payload);
    default:
        return fine; /* unknown ones are ignored (section 5.5). */
    }
}

void h2_frame_received(struct h2_conn *c, struct slice payload)
{
    enum h2_code code = take(c, payload);
    if (code != fine) {
        h2_conn_wrong(c, code);
    }
}
