/*
 * From calls to frames: header sections without copies, bodies through a bounded queue, and one
 * pass over nghttp2 at the end of a turn that moves all of it into the connection's output.
 */
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/net/h2_impl.h"

/* Chunks of the body's queue: small for messages, large for what comes in bulk. */
enum { CHUNK_SMALL = 512 - 64, CHUNK_MEDIUM = 4096 - 64, CHUNK_LARGE = 16384 - 64 };

/* From this size on a piece is lent to the connection's output instead of copied. */
enum { LEND_MIN_BYTES = 4096 };

/* One entry of SETTINGS: an identifier and a value (RFC 9113, section 6.5.1). */
enum { SETTING_BYTES = 6 };

/* What stays out of the peer's table. */
enum { NO_INDEX = H2_FIELD_NEVER_INDEX | H2_FIELD_VARIES };

/* ---- header sections ---- */

static bool copies_name(const struct h2_field *f)
{
    return f->name_ref == NULL && (f->flags & H2_FIELD_NAME_STATIC) == 0;
}

static bool copies_value(const struct h2_field *f)
{
    return f->value_ref == NULL && (f->flags & H2_FIELD_VALUE_STATIC) == 0;
}

struct block_size {
    size_t refs;
    size_t bytes;
};

static struct block_size block_measure(const struct h2_field *fields, size_t count)
{
    struct block_size size = {0};
    for (size_t i = 0; i < count; i++) {
        const struct h2_field *f = &fields[i];
        size.refs += (size_t)(f->name_ref != NULL) + (size_t)(f->value_ref != NULL);
        size.bytes += copies_name(f) ? f->name.size : 0;
        size.bytes += copies_value(f) ? f->value.size : 0;
    }
    return size;
}

/* nghttp2 takes names and values as mutable and leaves them alone under NO_COPY. */
static uint8_t *as_mutable(const uint8_t *ptr)
{
    union {
        const uint8_t *in;
        uint8_t *out;
    } cast = {.in = ptr};
    return cast.out;
}

/* Where the bytes will be while the block lives: where they are, or copied to *at. */
static uint8_t *block_bytes(struct slice bytes, bool copies, uint8_t **at)
{
    if (!copies) {
        return as_mutable(bytes.ptr);
    }
    uint8_t *to = *at;
    if (bytes.size > 0) {
        memcpy(to, bytes.ptr, bytes.size);
    }
    *at += bytes.size;
    return to;
}

static void block_keep(struct h2_block *b, nghttp2_rcbuf *ref)
{
    if (ref != NULL) {
        nghttp2_rcbuf_incref(ref);
        b->refs[b->ref_count++] = ref;
    }
}

/* One allocation: the block, nghttp2's pairs, the references, the copied bytes. Fields with a flag
 * of 'no_index' are kept out of the peer's table. */
static struct h2_block *block_new(struct h2_env *env, const struct h2_field *fields, size_t count,
                                  uint8_t no_index)
{
    struct block_size size = block_measure(fields, count);
    size_t nv_size = count * sizeof(nghttp2_nv);
    size_t refs_size = size.refs * sizeof(nghttp2_rcbuf *);
    struct h2_block *b = h2_mem_alloc(&env->mem, sizeof(*b) + nv_size + refs_size + size.bytes);
    if (b == NULL) {
        return NULL;
    }
    b->count = count;
    b->ref_count = 0;
    b->nv = (nghttp2_nv *)(b + 1);
    b->refs = (nghttp2_rcbuf **)(b->nv + count);
    uint8_t *at = (uint8_t *)(b->refs + size.refs);
    for (size_t i = 0; i < count; i++) {
        const struct h2_field *f = &fields[i];
        uint8_t flags = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE;
        flags |= (f->flags & no_index) != 0 ? NGHTTP2_NV_FLAG_NO_INDEX : 0;
        b->nv[i] = (nghttp2_nv){.name = block_bytes(f->name, copies_name(f), &at),
                                .value = block_bytes(f->value, copies_value(f), &at),
                                .namelen = f->name.size,
                                .valuelen = f->value.size,
                                .flags = flags};
        block_keep(b, f->name_ref);
        block_keep(b, f->value_ref);
    }
    return b;
}

static void block_free(struct h2_env *env, struct h2_block **b)
{
    if (*b == NULL) {
        return;
    }
    for (size_t i = 0; i < (*b)->ref_count; i++) {
        nghttp2_rcbuf_decref((*b)->refs[i]);
    }
    h2_mem_free(&env->mem, *b);
    *b = NULL;
}

/* ---- the body's queue ---- */

static size_t chunk_capacity(size_t wanted)
{
    if (wanted <= CHUNK_SMALL) {
        return CHUNK_SMALL;
    }
    return wanted <= CHUNK_MEDIUM ? CHUNK_MEDIUM : CHUNK_LARGE;
}

static void chunk_unref(struct h2_chunk *chunk)
{
    CHECK(chunk->references > 0);
    if (--chunk->references == 0) {
        h2_mem_free(chunk->mem, chunk);
    }
}

static void chunk_released(void *chunk)
{
    chunk_unref(chunk);
}

static struct h2_chunk *chunk_new(struct h2_mem *mem, size_t wanted)
{
    size_t capacity = chunk_capacity(wanted);
    struct h2_chunk *chunk = h2_mem_alloc(mem, sizeof(*chunk) + capacity);
    if (chunk != NULL) {
        *chunk = (struct h2_chunk){.mem = mem, .references = 1, .capacity = (uint32_t)capacity};
    }
    return chunk;
}

static void queue_free(struct h2_chunk *chunk)
{
    while (chunk != NULL) {
        struct h2_chunk *next = chunk->next;
        chunk_unref(chunk);
        chunk = next;
    }
}

/* Chains new, empty chunks with room for 'size' bytes; none for zero. */
static bool queue_extend(struct h2_mem *mem, size_t size, struct h2_chunk **out_first,
                         struct h2_chunk **out_last)
{
    *out_first = NULL;
    *out_last = NULL;
    while (size > 0) {
        struct h2_chunk *chunk = chunk_new(mem, size);
        if (chunk == NULL) {
            queue_free(*out_first);
            return false;
        }
        if (*out_last == NULL) {
            *out_first = chunk;
        } else {
            (*out_last)->next = chunk;
        }
        *out_last = chunk;
        size -= size < chunk->capacity ? size : chunk->capacity;
    }
    return true;
}

static size_t chunk_fill(struct h2_chunk *chunk, struct slice bytes)
{
    size_t room = chunk->capacity - chunk->to;
    size_t size = bytes.size < room ? bytes.size : room;
    memcpy(chunk->bytes + chunk->to, bytes.ptr, size);
    chunk->to += (uint32_t)size;
    return size;
}

/* Copies 'bytes' behind the queue: whole, or not at all when memory is out. */
static bool queue_add(struct h2_stream *s, struct slice bytes)
{
    size_t room = s->tail == NULL ? 0 : s->tail->capacity - s->tail->to;
    struct h2_chunk *first = NULL;
    struct h2_chunk *last = NULL;
    size_t beyond = bytes.size > room ? bytes.size - room : 0;
    if (!queue_extend(&s->conn->env->mem, beyond, &first, &last)) {
        return false;
    }
    if (s->queued == 0) {
        s->moved_ns = net_loop_now_ns(s->conn->env->loop);
    }
    s->queued += bytes.size;
    if (s->tail != NULL) {
        bytes = slice_from(bytes, chunk_fill(s->tail, bytes));
        s->tail->next = first;
    } else {
        s->head = first;
    }
    s->tail = last != NULL ? last : s->tail;
    for (struct h2_chunk *chunk = first; chunk != NULL; chunk = chunk->next) {
        bytes = slice_from(bytes, chunk_fill(chunk, bytes));
    }
    return true;
}

/* ---- what nghttp2 asks for ---- */

/* All of the body was framed: the trailers' turn. */
static bool submit_trailers(struct h2_stream *s)
{
    s->trailers_submitted = true;
    return nghttp2_submit_trailer(s->conn->session, s->id, s->trailer_block->nv,
                                  s->trailer_block->count) == 0;
}

/* nghttp2_data_source_read_callback: how much of the body may go into one DATA frame. */
static ssize_t read_body(/* NOLINT(readability-function-size): nghttp2's shape. */
                         nghttp2_session *session, int32_t id,
                         uint8_t *buf, /* NOLINT(readability-non-const-parameter): so is this. */
                         size_t length, uint32_t *flags, nghttp2_data_source *source, void *user)
{
    (void)session;
    (void)id;
    (void)buf;
    (void)user;
    struct h2_stream *s = source->ptr;
    if (s->queued == 0 && !s->sent_end) {
        return NGHTTP2_ERR_DEFERRED;
    }
    size_t size = s->queued < length ? s->queued : length;
    if (size > 0) {
        *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    }
    if (size < s->queued || !s->sent_end) {
        return (ssize_t)size;
    }
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (s->trailer_block != NULL) {
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        if (!submit_trailers(s)) {
            return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        }
    }
    return (ssize_t)size;
}

/* Drops framed bytes from the front chunk. */
static void queue_advance(struct h2_stream *s, size_t size)
{
    struct h2_chunk *chunk = s->head;
    chunk->from += (uint32_t)size;
    if (chunk->from < chunk->to) {
        return;
    }
    s->head = chunk->next;
    if (s->head == NULL) {
        s->tail = NULL;
    }
    chunk_unref(chunk);
}

/* Moves the first piece of the queue, at most 'max' bytes, behind the output. */
static struct err queue_move(struct h2_stream *s, size_t max, size_t *out_size)
{
    struct h2_chunk *chunk = s->head;
    struct slice piece =
        slice_head(slice_of(chunk->bytes + chunk->from, chunk->to - chunk->from), max);
    if (piece.size >= LEND_MIN_BYTES) {
        chunk->references++;
        struct err e = net_conn_write_ref(s->conn->net, piece, chunk_released, chunk);
        if (!err_ok(e)) {
            chunk->references--;
            return e;
        }
    } else {
        TRY(net_conn_write(s->conn->net, piece));
    }
    queue_advance(s, piece.size);
    *out_size = piece.size;
    return OK;
}

static void tell_sent(struct h2_stream *s, size_t size)
{
    if (size > 0 && s->events->sent != NULL) {
        s->events->sent(s, size);
    }
    if (s->blocked && s->queued <= limits.stream_buffer_bytes / 2) {
        s->blocked = false;
        if (s->events->writable != NULL) {
            s->events->writable(s);
        }
    }
}

/*
 * nghttp2_send_data_callback: one whole DATA frame, or none when the output is full. nghttp2 makes
 * one DATA frame after the other without coming back to h2_send(), so each asks for room itself.
 */
static int send_body(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *head,
                     size_t length, nghttp2_data_source *source, void *user)
{
    (void)session;
    (void)frame;
    struct h2_conn *c = user;
    struct h2_stream *s = source->ptr;
    CHECK(length <= s->queued);
    if (net_conn_room(c->net) < H2_OUTPUT_RESERVE) {
        net_conn_want_drained(c->net);
        return NGHTTP2_ERR_WOULDBLOCK;
    }
    if (!err_ok(net_conn_write(c->net, slice_of(head, H2_FRAME_HEAD_BYTES)))) {
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    for (size_t left = length; left > 0;) {
        size_t moved = 0;
        if (!err_ok(queue_move(s, left, &moved))) {
            return NGHTTP2_ERR_CALLBACK_FAILURE;
        }
        left -= moved;
    }
    /* A frame that the peer's window made small is no work: it may ask for one byte at a time. */
    if (length == s->queued || length >= H2_WORK_BYTES) {
        h2_guard_earn(&c->control, H2_WORK_EARNS);
    }
    s->queued -= length;
    s->moved_ns = net_loop_now_ns(c->env->loop);
    tell_sent(s, length);
    return 0;
}

static struct h2_stream *stream_of_frame(struct h2_conn *c, const nghttp2_frame *frame)
{
    return nghttp2_session_get_stream_user_data(c->session, frame->hd.stream_id);
}

/* The answer is whole; a client that still sends is told to stop (RFC 9113, section 8.1). */
static void end_was_framed(struct h2_stream *s)
{
    s->end_framed = true;
    h2_guard_earn(&s->conn->resets, H2_ANSWER_EARNS);
    if (s->conn->server && !s->received_end) {
        s->reset_by_owner = true;
        (void)nghttp2_submit_rst_stream(s->conn->session, NGHTTP2_FLAG_NONE, s->id,
                                        NGHTTP2_NO_ERROR);
    }
}

static void on_headers_sent(struct h2_conn *c, struct h2_stream *s)
{
    if (s->trailers_submitted) {
        block_free(c->env, &s->trailer_block);
    } else {
        s->head_sent = true;
        block_free(c->env, &s->head_block);
    }
}

static void on_reset_sent(struct h2_conn *c, struct h2_stream *s, uint32_t code)
{
    c->env->counters.resets_sent++;
    c->cut_short = true;
    if (s != NULL && s->reset_by_owner) {
        return;
    }
    if (s != NULL) {
        s->reset_by_us = true;
    }
    if (code != NGHTTP2_NO_ERROR && code != NGHTTP2_REFUSED_STREAM) {
        (void)h2_recv_reset_charge(c); /* the peer forced it: MadeYouReset, CVE-2025-8671. */
    }
}

static int on_frame_sent(nghttp2_session *session, const nghttp2_frame *frame, void *user)
{
    (void)session;
    struct h2_conn *c = user;
    bool ends = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    switch (frame->hd.type) {
    case NGHTTP2_DATA:
        if (!ends) {
            return 0;
        }
        break;
    case NGHTTP2_HEADERS:
    case NGHTTP2_RST_STREAM:
        break;
    case NGHTTP2_GOAWAY:
        if (frame->goaway.error_code != NGHTTP2_NO_ERROR) {
            c->env->counters.protocol_errors += c->flooded ? 0 : 1;
        }
        return 0;
    default:
        return 0;
    }
    struct h2_stream *s = stream_of_frame(c, frame);
    if (frame->hd.type == NGHTTP2_RST_STREAM) {
        on_reset_sent(c, s, frame->rst_stream.error_code);
        return 0;
    }
    if (s == NULL) {
        return 0;
    }
    if (frame->hd.type == NGHTTP2_HEADERS) {
        on_headers_sent(c, s);
    }
    if (ends) {
        end_was_framed(s);
    }
    return 0;
}

void h2_send_callbacks(nghttp2_session_callbacks *callbacks)
{
    nghttp2_session_callbacks_set_send_data_callback(callbacks, send_body);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_sent);
}

/* ---- the pass at the end of a turn ---- */

/*
 * Writes the number of streams that we really take into the first SETTINGS. nghttp2 was given the
 * largest one, for it ends the connection of a client that opens more than it knows of; we refuse
 * such a stream alone (RFC 9113, section 5.1.2 allows both).
 */
static void advertise(struct h2_conn *c, uint8_t *frame, size_t size)
{
    c->advertised = true;
    CHECK(frame[3] == NGHTTP2_SETTINGS);
    for (size_t at = H2_FRAME_HEAD_BYTES; at + SETTING_BYTES <= size; at += SETTING_BYTES) {
        if (frame[at] == 0 && frame[at + 1] == NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS) {
            uint32_t streams = (uint32_t)limits.streams_per_connection;
            frame[at + 2] = (uint8_t)(streams >> 24);
            frame[at + 3] = (uint8_t)(streams >> 16);
            frame[at + 4] = (uint8_t)(streams >> 8);
            frame[at + 5] = (uint8_t)streams;
        }
    }
}

static struct err write_frame(struct h2_conn *c, const uint8_t *bytes, size_t size)
{
    if (c->advertised || !c->server) {
        return net_conn_write(c->net, slice_of(bytes, size));
    }
    uint8_t *frame = NULL;
    TRY(net_conn_reserve(c->net, size, &frame));
    memcpy(frame, bytes, size);
    advertise(c, frame, size);
    net_conn_commit(c->net, size);
    return OK;
}

static void give_back_window(struct h2_conn *c)
{
    size_t bytes = c->to_consume;
    c->to_consume = 0;
    if (bytes > 0) {
        (void)nghttp2_session_consume_connection(c->session, bytes);
    }
}

bool h2_send(struct h2_conn *c)
{
    give_back_window(c);
    for (;;) { /* until nothing is left to frame, or the output is full. */
        if (net_conn_room(c->net) < H2_OUTPUT_RESERVE) {
            net_conn_want_drained(c->net);
            return true;
        }
        const uint8_t *bytes = NULL;
        ssize_t size = nghttp2_session_mem_send(c->session, &bytes);
        if (size < 0) {
            return false;
        }
        if (size == 0) {
            return true;
        }
        if (!err_ok(write_frame(c, bytes, (size_t)size))) {
            return false;
        }
    }
}

void h2_send_drop(struct h2_stream *s)
{
    queue_free(s->head);
    s->head = NULL;
    s->tail = NULL;
    s->queued = 0;
    block_free(s->conn->env, &s->head_block);
    block_free(s->conn->env, &s->trailer_block);
}

/* ---- calls ---- */

static nghttp2_data_provider provider_of(struct h2_stream *s)
{
    return (nghttp2_data_provider){.source = {.ptr = s}, .read_callback = read_body};
}

struct err h2_stream_respond(struct h2_stream *s, const struct h2_field *fields, size_t count,
                             bool end)
{
    struct h2_conn *c = s->conn;
    CHECK(c->server);
    CHECK(!s->responded);
    if (s->finished || s->reset_by_owner || s->sent_end) {
        return FAIL(E_CLOSED);
    }
    s->head_block = block_new(c->env, fields, count, NO_INDEX);
    if (s->head_block == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    nghttp2_data_provider body = provider_of(s);
    if (nghttp2_submit_response(c->session, s->id, s->head_block->nv, count, end ? NULL : &body) !=
        0) {
        block_free(c->env, &s->head_block);
        return FAIL(E_CLOSED);
    }
    s->responded = true;
    s->sent_end = end;
    h2_conn_dirty(c);
    return OK;
}

struct err h2_conn_request(struct h2_conn *c, const struct h2_field *fields, size_t count, bool end,
                           struct h2_stream **out)
{
    CHECK(!c->server);
    if (c->ending || c->ended || c->goaway_received) {
        return FAIL(E_CLOSED);
    }
    if (h2_conn_room(c) == 0) {
        return FAIL(E_OVERLOADED);
    }
    struct h2_stream *s = h2_stream_new(c, /* id= */ 0);
    if (s == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    s->head_block =
        block_new(c->env, fields, count, c->names_indexed ? NO_INDEX : H2_FIELD_NEVER_INDEX);
    c->names_indexed = true;
    nghttp2_data_provider body = provider_of(s);
    int32_t id = s->head_block == NULL
                     ? NGHTTP2_ERR_NOMEM
                     : nghttp2_submit_request(c->session, /* pri_spec= */ NULL, s->head_block->nv,
                                              count, end ? NULL : &body, s);
    if (id < 0) {
        h2_stream_discard(s);
        return FAIL(id == NGHTTP2_ERR_NOMEM ? E_NO_MEMORY : E_CLOSED);
    }
    s->id = id;
    s->responded = true;
    s->sent_end = end;
    h2_conn_dirty(c);
    *out = s;
    return OK;
}

/* The body grew or ended: has nghttp2 ask for it again, if it had been told to wait. */
static void body_changed(struct h2_stream *s)
{
    (void)nghttp2_session_resume_data(s->conn->session, s->id);
    h2_conn_dirty(s->conn);
    h2_watch_reader(s);
}

struct err h2_stream_send(struct h2_stream *s, struct slice bytes, bool end)
{
    CHECK(s->responded);
    if (s->finished || s->sent_end) {
        return FAIL(E_CLOSED);
    }
    if (bytes.size > limits.stream_buffer_bytes - s->queued) {
        s->blocked = true;
        return FAIL(E_QUEUE_FULL);
    }
    if (bytes.size > 0 && !queue_add(s, bytes)) {
        return FAIL(E_NO_MEMORY);
    }
    s->sent_end = end;
    if (s->queued == limits.stream_buffer_bytes) {
        s->blocked = true;
    }
    if (bytes.size > 0 || end) {
        body_changed(s);
    }
    return OK;
}

size_t h2_stream_queued(const struct h2_stream *s)
{
    return s->queued;
}

struct err h2_stream_trailers(struct h2_stream *s, const struct h2_field *fields, size_t count)
{
    CHECK(s->responded);
    if (s->finished || s->sent_end) {
        return FAIL(E_CLOSED);
    }
    s->trailer_block = block_new(s->conn->env, fields, count, NO_INDEX);
    if (s->trailer_block == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    s->sent_end = true;
    body_changed(s);
    return OK;
}

void h2_stream_reset(struct h2_stream *s, enum h2_code code)
{
    if (s->finished || s->reset_by_owner) {
        return;
    }
    s->reset_by_owner = true;
    s->sent_end = true;
    /* Out of memory is the one way this fails; the connection then goes with it. */
    if (nghttp2_submit_rst_stream(s->conn->session, NGHTTP2_FLAG_NONE, s->id, code) != 0) {
        h2_conn_close(s->conn, H2_INTERNAL_ERROR, FAIL(E_NO_MEMORY));
    }
    h2_conn_dirty(s->conn);
}
