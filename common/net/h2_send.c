/* From calls to frames. What the windows and the output take is framed in the call; the rest waits
 * in the stream's queue for the pass at the end of a turn. */
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/net/h2_impl.h"

#define STREAM_OF(link, member)                                                                    \
    ((struct h2_stream *)((char *)(link)-offsetof(struct h2_stream, member)))

/* ---- trailers that wait ---- */

static size_t kept_bytes(const struct h2_field *f)
{
    size_t name = (f->flags & H2_FIELD_NAME_STATIC) != 0 ? 0 : f->name.size;
    size_t value = (f->flags & H2_FIELD_VALUE_STATIC) != 0 ? 0 : f->value.size;
    return name + value;
}

static struct slice keep(struct slice bytes, bool lasts, uint8_t **at)
{
    if (lasts || bytes.size == 0) {
        return bytes;
    }
    memcpy(*at, bytes.ptr, bytes.size);
    struct slice kept = slice_of(*at, bytes.size);
    *at += bytes.size;
    return kept;
}

/* NULL: out of memory. */
static struct h2_block *block_new(struct h2_env *env, const struct h2_field *fields, size_t count)
{
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        bytes += kept_bytes(&fields[i]);
    }
    struct h2_block *b = h2_mem_alloc(&env->mem, sizeof(*b) + count * sizeof(*fields) + bytes);
    if (b == NULL) {
        return NULL;
    }
    b->count = count;
    uint8_t *at = (uint8_t *)(b->fields + count);
    for (size_t i = 0; i < count; i++) {
        b->fields[i] = fields[i];
        b->fields[i].name =
            keep(fields[i].name, (fields[i].flags & H2_FIELD_NAME_STATIC) != 0, &at);
        b->fields[i].value =
            keep(fields[i].value, (fields[i].flags & H2_FIELD_VALUE_STATIC) != 0, &at);
    }
    return b;
}

/*
 * Whether the peer takes so many bytes of fields. It says so as advice, and its own answer to more
 * is an error of the stream; but servers of gRPC's C core (1.51) then refuse the next stream, too,
 * which is another caller's.
 */
static bool peer_takes(const struct h2_conn *c, const struct h2_field *fields, size_t count)
{
    size_t bytes = count * H2_FIELD_OVERHEAD;
    for (size_t i = 0; i < count; i++) {
        bytes += fields[i].name.size + fields[i].value.size;
    }
    return bytes <= c->peer_headers;
}

/* ---- what framing brings about ---- */

static void due(struct h2_stream *s)
{
    h2_link_add(&s->conn->due, &s->due);
    h2_conn_dirty(s->conn);
}

static void end_was_framed(struct h2_stream *s)
{
    s->sent_end = true;
    s->end_framed = true;
    h2_guard_earn(&s->conn->resets, H2_ANSWER_EARNS);
    if (s->received_end) {
        h2_stream_over(s, H2_NO_ERROR);
    } else if (s->conn->server) {
        due(s); /* unless the request ends in this turn. */
    }
}

/* The answer is whole; a client that still sends is told to stop (RFC 9113, section 8.1). */
static void stop_request(struct h2_stream *s)
{
    if (s->conn->server && s->end_framed && !s->over) {
        s->reset_by_owner = true;
        h2_out_reset(s->conn, (uint32_t)s->id, H2_NO_ERROR);
        h2_stream_over(s, H2_NO_ERROR);
    }
}

/* So many bytes went into a frame. One that the peer's window made small is no work: it may ask
 * for one byte at a time. */
static void body_was_framed(struct h2_stream *s, size_t size, bool all)
{
    struct h2_conn *c = s->conn;
    if ((all && size >= H2_LITTLE_DATA_BYTES) || size >= H2_WORK_BYTES) {
        h2_guard_earn(&c->control, H2_WORK_EARNS);
    }
    s->send_window -= (int32_t)size;
    c->send_window -= (int32_t)size;
    s->sent_untold += size;
    if (s->events->sent != NULL || s->blocked) {
        due(s);
    }
}

static bool send_section(struct h2_stream *s, const struct h2_field *fields, size_t count, bool end)
{
    if (!h2_out_section(s->conn, (uint32_t)s->id, fields, count, end)) {
        return false;
    }
    if (end) {
        end_was_framed(s);
    }
    return true;
}

/* ---- the pass at the end of a turn ---- */

/* Nothing of the body waits any more. */
static void queue_is_empty(struct h2_stream *s)
{
    h2_link_remove(&s->ready);
    if (s->trailers != NULL) {
        /* They were measured when they came. */
        CHECK(send_section(s, s->trailers->fields, s->trailers->count, /* end= */ true));
    } else if (s->sent_end) {
        end_was_framed(s);
    }
}

/* One frame of the queue; false when the connection's window is closed. */
static bool frame_queue(struct h2_stream *s)
{
    struct h2_conn *c = s->conn;
    int32_t window = s->send_window < c->send_window ? s->send_window : c->send_window;
    if (window <= 0) {
        return false;
    }
    size_t max = window < H2_FRAME_BYTES ? (size_t)window : H2_FRAME_BYTES;
    size_t size = h2_queue_frame(&s->queue, max);
    bool all = size == s->queue.size;
    h2_out_data_queued(s, size, all && s->sent_end && s->trailers == NULL);
    s->moved_ns = net_loop_now_ns(c->env->loop);
    body_was_framed(s, size, all);
    return true;
}

/* The streams by turns, a frame each, as far as windows and output go. */
static void frame_ready(struct h2_conn *c)
{
    while (!h2_link_alone(&c->ready) && !c->broken) { /* ends: windows and output are bounded. */
        struct h2_stream *s = STREAM_OF(c->ready.next, ready);
        if (!h2_out_has_room(c)) {
            net_conn_want_drained(c->net);
            return;
        }
        if (s->queue.size == 0) {
            h2_link_remove(&s->ready);
            h2_out_data(c, (uint32_t)s->id, (struct slice){NULL, 0}, /* end= */ true);
            end_was_framed(s);
            continue;
        }
        if (s->send_window <= 0) {
            h2_link_remove(&s->ready); /* until the peer opens it. */
            continue;
        }
        if (!frame_queue(s)) {
            return; /* the connection's window; they stay as they stand. */
        }
        h2_link_remove(&s->ready);
        h2_link_add(&c->ready, &s->ready);
        if (s->queue.size == 0) {
            queue_is_empty(s);
        }
    }
}

static void tell(struct h2_stream *s)
{
    size_t sent = s->sent_untold;
    s->sent_untold = 0;
    if (sent > 0 && s->events->sent != NULL) {
        s->events->sent(s, sent);
    }
    if (s->blocked && s->queue.size <= limits.stream_buffer_bytes / 2) {
        s->blocked = false;
        if (s->events->writable != NULL) {
            s->events->writable(s);
        }
    }
}

/* Owners hear what became of their bytes; streams that are over end. */
static void tell_due(struct h2_conn *c)
{
    while (!h2_link_alone(&c->due)) { /* ends: to be due again, bytes have to be framed. */
        struct h2_stream *s = STREAM_OF(c->due.next, due);
        h2_link_remove(&s->due);
        if (!s->reset_by_owner) {
            tell(s);
        }
        stop_request(s);
        if (s->over) {
            h2_stream_finish(s, s->over_code);
        }
    }
}

static void give_back_window(struct h2_conn *c)
{
    uint32_t back =
        h2_window_consume(&c->window, c->to_consume, limits.connection_window_max_bytes);
    c->to_consume = 0;
    if (back > 0) {
        h2_out_window(c, /* id= */ 0, back);
    }
}

bool h2_send(struct h2_conn *c)
{
    give_back_window(c);
    if (h2_out_flush(c)) {
        frame_ready(c);
    } else {
        net_conn_want_drained(c->net);
    }
    tell_due(c);
    return !c->broken;
}

void h2_send_ready(struct h2_stream *s)
{
    bool body = s->queue.size > 0 && s->send_window > 0;
    bool end = s->queue.size == 0 && s->sent_end && !s->end_framed;
    if ((body || end) && !s->over) {
        h2_link_add(&s->conn->ready, &s->ready);
        h2_conn_dirty(s->conn);
    }
}

void h2_send_drop(struct h2_stream *s)
{
    h2_link_remove(&s->ready);
    h2_link_remove(&s->due);
    h2_queue_clear(&s->queue);
    h2_mem_free(&s->conn->env->mem, s->trailers);
    s->trailers = NULL;
}

/* ---- calls ---- */

struct err h2_stream_respond(struct h2_stream *s, const struct h2_field *fields, size_t count,
                             bool end)
{
    CHECK(s->conn->server);
    CHECK(!s->responded);
    if (s->finished || s->over || s->sent_end) {
        return FAIL(E_CLOSED);
    }
    if (!send_section(s, fields, count, end)) {
        return FAIL(E_TOO_LARGE);
    }
    s->responded = true;
    return OK;
}

struct err h2_conn_request(struct h2_conn *c, const struct h2_field *fields, size_t count, bool end,
                           struct h2_stream **out)
{
    CHECK(!c->server);
    CHECK(count > 0);
    CHECK(fields[0].token == H2_TOKEN_METHOD);
    if (c->ending || c->ended || c->goaway_received) {
        return FAIL(E_CLOSED);
    }
    if (h2_conn_room(c) == 0) {
        return FAIL(E_OVERLOADED);
    }
    if (!peer_takes(c, fields, count)) {
        return FAIL(E_HEADERS_TOO_LARGE);
    }
    struct h2_stream *s = h2_stream_new(c, (uint32_t)c->next_id);
    if (s == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    if (!send_section(s, fields, count, end)) {
        h2_stream_discard(s);
        return FAIL(E_HEADERS_TOO_LARGE);
    }
    c->next_id += 2;
    if (c->next_id == INT32_MAX) {
        h2_conn_drain(c); /* it has no number more: whoever has it opens another. */
    }
    s->head_request = slice_eq(fields[0].value, SLICE_LIT("HEAD"));
    s->responded = true;
    *out = s;
    return OK;
}

/* Frames bytes that nothing stands before; false when they have to wait. */
static bool frame_at_once(struct h2_stream *s, struct slice bytes, bool end)
{
    struct h2_conn *c = s->conn;
    int32_t window = s->send_window < c->send_window ? s->send_window : c->send_window;
    if (s->queue.size > 0 || c->pending.size > 0 ||
        (bytes.size > 0 && (window <= 0 || bytes.size > (size_t)window)) ||
        net_conn_room(c->net) < bytes.size + H2_OUTPUT_RESERVE) {
        return false;
    }
    do {
        struct slice piece = slice_head(bytes, H2_FRAME_BYTES);
        bytes = slice_from(bytes, piece.size);
        h2_out_data(c, (uint32_t)s->id, piece, end && bytes.size == 0);
        body_was_framed(s, piece.size, /* all= */ bytes.size == 0);
    } while (bytes.size > 0);
    if (end) {
        end_was_framed(s);
    }
    return true;
}

/* Whether so many bytes more may be queued. */
static struct err send_admit(struct h2_stream *s, size_t size)
{
    CHECK(s->responded);
    if (s->finished || s->over || s->sent_end) {
        return FAIL(E_CLOSED);
    }
    if (size > limits.stream_buffer_bytes - s->queue.size) {
        s->blocked = true;
        return FAIL(E_QUEUE_FULL);
    }
    /* As much as there is room for: its owner may have more. */
    s->blocked |= size == limits.stream_buffer_bytes - s->queue.size;
    if (s->queue.size == 0) {
        s->moved_ns = net_loop_now_ns(s->conn->env->loop);
    }
    return OK;
}

/* Something was queued, or nothing comes behind what is there. */
static void send_queued(struct h2_stream *s, bool end)
{
    s->sent_end = end;
    h2_send_ready(s);
    h2_watch_reader(s);
}

struct err h2_stream_send(struct h2_stream *s, struct slice bytes, bool end)
{
    TRY(send_admit(s, bytes.size));
    if ((bytes.size == 0 && !end) || frame_at_once(s, bytes, end)) {
        return OK;
    }
    if (bytes.size > 0 && !h2_queue_add(&s->queue, bytes)) {
        return FAIL(E_NO_MEMORY);
    }
    send_queued(s, end);
    return OK;
}

struct err h2_stream_send_shared(struct h2_stream *s, const struct h2_queue *bytes, size_t skip,
                                 bool end)
{
    if (bytes->size == skip) {
        return h2_stream_send(s, (struct slice){NULL, 0}, end);
    }
    TRY(send_admit(s, bytes->size - skip));
    if (!h2_queue_share(&s->queue, bytes, skip)) {
        return FAIL(E_NO_MEMORY);
    }
    send_queued(s, end);
    return OK;
}

size_t h2_stream_queued(const struct h2_stream *s)
{
    return s->queue.size;
}

struct err h2_stream_trailers(struct h2_stream *s, const struct h2_field *fields, size_t count)
{
    CHECK(s->responded);
    struct h2_conn *c = s->conn;
    if (s->finished || s->over || s->sent_end) {
        return FAIL(E_CLOSED);
    }
    if (s->queue.size == 0) {
        return send_section(s, fields, count, /* end= */ true) ? OK : FAIL(E_TOO_LARGE);
    }
    if (hpack_encoded_bound(fields, count) > H2_SECTION_GROWTH * limits.request_header_bytes) {
        return FAIL(E_TOO_LARGE);
    }
    s->trailers = block_new(c->env, fields, count);
    if (s->trailers == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    s->sent_end = true;
    h2_watch_reader(s);
    return OK;
}

void h2_stream_reset(struct h2_stream *s, enum h2_code code)
{
    if (s->finished || s->over || s->reset_by_owner) {
        return;
    }
    s->reset_by_owner = true;
    s->sent_end = true;
    h2_out_reset(s->conn, (uint32_t)s->id, code);
    h2_stream_over(s, code);
}

void h2_stream_break(struct h2_stream *s, enum h2_code code)
{
    struct h2_conn *c = s->conn;
    if (s->finished || s->over) {
        return;
    }
    s->reset_by_us = true;
    s->sent_end = true;
    h2_out_reset(c, (uint32_t)s->id, code);
    h2_stream_over(s, code);
    if (code != H2_NO_ERROR && code != H2_REFUSED_STREAM) {
        (void)h2_watch_charge_reset(c); /* the peer forced it: MadeYouReset, CVE-2025-8671. */
    }
}
