/* Frames out. They go into the connection's output in the order in which they are made, which is
 * the order that the peer's table of header fields needs. */
#include "common/base/limits.h"
#include "common/net/h2_impl.h"

static const struct slice preface = {(const uint8_t *)"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                                     H2_PREFACE_BYTES};

/* Whether a frame of that size goes straight into the output. */
static bool goes_straight(const struct h2_conn *c, size_t size)
{
    return c->pending.size == 0 && net_conn_room(c->net) >= size;
}

/* A connection that is closing takes no more, and nobody waits for it. */
static void check_written(struct h2_conn *c, struct err e)
{
    if (!err_ok(e) && e.code != E_CLOSED) {
        c->broken = true;
    }
}

static void out_bytes(struct h2_conn *c, const uint8_t *bytes, size_t size)
{
    h2_conn_dirty(c);
    if (c->broken || c->ended) {
        return;
    }
    if (goes_straight(c, size)) {
        check_written(c, net_conn_write(c->net, slice_of(bytes, size)));
    } else if (!err_ok(buf_add(&c->pending, slice_of(bytes, size)))) {
        c->broken = true;
    }
}

static void write_head(uint8_t *to, size_t size, uint8_t type, uint8_t flags, uint32_t id)
{
    to[0] = (uint8_t)(size >> 16);
    to[1] = (uint8_t)(size >> 8);
    to[2] = (uint8_t)size;
    to[3] = type;
    to[4] = flags;
    h2_write_u32(to + 5, id);
}

/* ---- frames of a few bytes ---- */

static uint8_t *put_setting(uint8_t *to, uint16_t id, uint64_t value)
{
    to[0] = (uint8_t)(id >> 8);
    to[1] = (uint8_t)id;
    h2_write_u32(to + 2, (uint32_t)value);
    return to + H2_SETTING_BYTES;
}

void h2_out_start(struct h2_conn *c)
{
    enum { SETTINGS = 4 };
    uint8_t frame[H2_FRAME_HEAD_BYTES + SETTINGS * H2_SETTING_BYTES];
    if (!c->server) {
        out_bytes(c, preface.ptr, preface.size);
    }
    uint8_t *to = frame + H2_FRAME_HEAD_BYTES;
    to = put_setting(to, H2_SETTING_INITIAL_WINDOW_SIZE, c->env->stream_window);
    to = put_setting(to, H2_SETTING_MAX_HEADER_LIST_SIZE, limits.request_header_bytes);
    to = put_setting(to, H2_SETTING_NO_RFC7540_PRIORITIES, 1);
    if (c->server) {
        to = put_setting(to, H2_SETTING_MAX_CONCURRENT_STREAMS, limits.streams_per_connection);
    } else {
        to = put_setting(to, H2_SETTING_ENABLE_PUSH, 0);
    }
    size_t size = (size_t)(to - frame);
    write_head(frame, size - H2_FRAME_HEAD_BYTES, H2_SETTINGS, /* flags= */ 0, /* id= */ 0);
    out_bytes(c, frame, size);
    if (limits.connection_window_bytes > H2_WINDOW_DEFAULT) {
        h2_out_window(c, /* id= */ 0,
                      (uint32_t)(limits.connection_window_bytes - H2_WINDOW_DEFAULT));
    }
}

void h2_out_settings_ack(struct h2_conn *c)
{
    uint8_t frame[H2_FRAME_HEAD_BYTES];
    write_head(frame, 0, H2_SETTINGS, H2_FLAG_ACK, /* id= */ 0);
    out_bytes(c, frame, sizeof(frame));
}

void h2_out_ping(struct h2_conn *c, const uint8_t data[8], bool ack)
{
    uint8_t frame[H2_FRAME_HEAD_BYTES + 8];
    write_head(frame, 8, H2_PING, ack ? H2_FLAG_ACK : 0, /* id= */ 0);
    memcpy(frame + H2_FRAME_HEAD_BYTES, data, 8);
    out_bytes(c, frame, sizeof(frame));
}

void h2_out_goaway(struct h2_conn *c, uint32_t last_id, enum h2_code code)
{
    uint8_t frame[H2_FRAME_HEAD_BYTES + 8];
    write_head(frame, 8, H2_GOAWAY, /* flags= */ 0, /* id= */ 0);
    h2_write_u32(frame + H2_FRAME_HEAD_BYTES, last_id);
    h2_write_u32(frame + H2_FRAME_HEAD_BYTES + 4, (uint32_t)code);
    out_bytes(c, frame, sizeof(frame));
}

void h2_out_window(struct h2_conn *c, uint32_t id, uint32_t bytes)
{
    uint8_t frame[H2_FRAME_HEAD_BYTES + 4];
    write_head(frame, 4, H2_WINDOW_UPDATE, /* flags= */ 0, id);
    h2_write_u32(frame + H2_FRAME_HEAD_BYTES, bytes);
    out_bytes(c, frame, sizeof(frame));
}

void h2_out_reset(struct h2_conn *c, uint32_t id, enum h2_code code)
{
    uint8_t frame[H2_FRAME_HEAD_BYTES + 4];
    write_head(frame, 4, H2_RST_STREAM, /* flags= */ 0, id);
    h2_write_u32(frame + H2_FRAME_HEAD_BYTES, (uint32_t)code);
    out_bytes(c, frame, sizeof(frame));
    c->env->counters.resets_sent++;
    c->cut_short = true;
}

/* ---- header sections ---- */

/* The usual case: one frame, encoded where it leaves from. */
static void section_in_place(struct h2_conn *c, uint32_t id, const struct h2_field *fields,
                             size_t count, size_t bound, uint8_t flags)
{
    uint8_t *to = NULL;
    struct err e = net_conn_reserve(c->net, H2_FRAME_HEAD_BYTES + bound, &to);
    if (!err_ok(e)) {
        check_written(c, e);
        return;
    }
    size_t size = hpack_encode(&c->encoder, fields, count, to + H2_FRAME_HEAD_BYTES);
    write_head(to, size, H2_HEADERS, flags | H2_FLAG_END_HEADERS, id);
    net_conn_commit(c->net, H2_FRAME_HEAD_BYTES + size);
}

/* A block cut into as many frames as it takes. */
static void section_frames(struct h2_conn *c, uint32_t id, struct slice block, uint8_t flags)
{
    uint8_t type = H2_HEADERS;
    do {
        struct slice piece = slice_head(block, H2_FRAME_BYTES);
        block = slice_from(block, piece.size);
        uint8_t head[H2_FRAME_HEAD_BYTES];
        write_head(head, piece.size, type, flags | (block.size == 0 ? H2_FLAG_END_HEADERS : 0), id);
        out_bytes(c, head, sizeof(head));
        out_bytes(c, piece.ptr, piece.size);
        type = H2_CONTINUATION;
        flags = 0;
    } while (block.size > 0);
}

bool h2_out_section(struct h2_conn *c, uint32_t id, const struct h2_field *fields, size_t count,
                    bool end)
{
    size_t bound = hpack_encoded_bound(fields, count);
    if (bound > H2_SECTION_GROWTH * limits.request_header_bytes) {
        return false;
    }
    uint8_t flags = end ? H2_FLAG_END_STREAM : 0;
    size_t whole = H2_FRAME_HEAD_BYTES + bound;
    h2_conn_dirty(c);
    if (whole <= NET_CHUNK_BYTES && goes_straight(c, whole)) {
        section_in_place(c, id, fields, count, bound, flags);
        return true;
    }
    uint8_t *block = h2_mem_alloc(&c->env->mem, bound);
    if (block == NULL) {
        c->broken = true;
        return true;
    }
    size_t size = hpack_encode(&c->encoder, fields, count, block);
    section_frames(c, id, slice_of(block, size), flags);
    h2_mem_free(&c->env->mem, block);
    return true;
}

/* ---- bodies ---- */

bool h2_out_has_room(const struct h2_conn *c)
{
    return goes_straight(c, H2_OUTPUT_RESERVE);
}

void h2_out_data(struct h2_conn *c, uint32_t id, struct slice bytes, bool end)
{
    uint8_t flags = end ? H2_FLAG_END_STREAM : 0;
    size_t whole = H2_FRAME_HEAD_BYTES + bytes.size;
    h2_conn_dirty(c);
    if (whole > NET_CHUNK_BYTES / 2) { /* large ones fill what is left of a chunk. */
        uint8_t head[H2_FRAME_HEAD_BYTES];
        write_head(head, bytes.size, H2_DATA, flags, id);
        out_bytes(c, head, sizeof(head));
        out_bytes(c, bytes.ptr, bytes.size);
        return;
    }
    uint8_t *to = NULL;
    struct err e = net_conn_reserve(c->net, whole, &to);
    if (!err_ok(e)) {
        check_written(c, e);
        return;
    }
    write_head(to, bytes.size, H2_DATA, flags, id);
    if (bytes.size > 0) {
        memcpy(to + H2_FRAME_HEAD_BYTES, bytes.ptr, bytes.size);
    }
    net_conn_commit(c->net, whole);
}

void h2_out_data_queued(struct h2_stream *s, size_t size, bool end)
{
    uint8_t head[H2_FRAME_HEAD_BYTES];
    write_head(head, size, H2_DATA, end ? H2_FLAG_END_STREAM : 0, (uint32_t)s->id);
    struct err e = h2_queue_move(&s->queue, s->conn->net, head, size);
    if (!err_ok(e)) {
        s->conn->broken = true; /* half of a frame may have left. */
    }
}

/* ---- what waits ---- */

bool h2_out_flush(struct h2_conn *c)
{
    size_t room = net_conn_room(c->net);
    if (c->pending.size == 0 || room == 0) {
        return c->pending.size == 0;
    }
    struct slice piece = slice_head(buf_slice(&c->pending), room);
    struct err e = net_conn_write(c->net, piece);
    if (!err_ok(e)) {
        check_written(c, e);
        return false;
    }
    buf_drop(&c->pending, piece.size);
    if (c->pending.size == 0) {
        buf_free(&c->pending);
    }
    return c->pending.size == 0;
}
