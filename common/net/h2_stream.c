/* One exchange: its fields, its owner, its end. */
#include <stddef.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/net/h2_impl.h"

static const struct h2_stream_events no_events = {0};

static void list_add(struct h2_conn *c, struct h2_stream *s)
{
    s->next = c->streams;
    if (c->streams != NULL) {
        c->streams->prev = s;
    }
    c->streams = s;
    c->stream_count++;
}

static void list_remove(struct h2_conn *c, struct h2_stream *s)
{
    CHECK(c->stream_count > 0);
    if (s->prev != NULL) {
        s->prev->next = s->next;
    } else {
        c->streams = s->next;
    }
    if (s->next != NULL) {
        s->next->prev = s->prev;
    }
    c->stream_count--;
}

struct h2_stream *h2_stream_new(struct h2_conn *c, uint32_t id)
{
    struct h2_stream *s = h2_mem_alloc(&c->env->mem, sizeof(*s));
    if (s == NULL) {
        return NULL;
    }
    /* The arrays behind are valid only as far as 'fields' says. */
    memset(s, 0, offsetof(struct h2_stream, fields.first));
    s->conn = c;
    s->id = (int32_t)id;
    s->events = &no_events;
    s->send_window = c->peer_window;
    h2_window_init(&s->window, c->env->stream_window);
    s->length_left = H2_LENGTH_NONE;
    h2_queue_init(&s->queue, c->env);
    s->fields.at = s->inline_fields;
    s->fields.capacity = H2_FIELDS_INLINE;
    s->fields.room = s->inline_bytes;
    s->fields.room_size = H2_BYTES_INLINE;
    if (!h2_streams_add(c, s)) {
        h2_mem_free(&c->env->mem, s);
        return NULL;
    }
    h2_link_init(&s->due);
    h2_link_init(&s->ready);
    list_add(c, s);
    c->env->counters.streams_opened++;
    return s;
}

void h2_stream_attach(struct h2_stream *s, const struct h2_stream_events *events, void *user)
{
    CHECK(events == NULL || !s->finished);
    s->events = events != NULL ? events : &no_events;
    s->user = user;
}

bool h2_stream_attached(const struct h2_stream *s)
{
    return s->events != &no_events;
}

void *h2_stream_user(const struct h2_stream *s)
{
    return s->user;
}

struct h2_conn *h2_stream_conn(const struct h2_stream *s)
{
    return s->conn;
}

int32_t h2_stream_id(const struct h2_stream *s)
{
    return s->id;
}

const struct h2_fields *h2_stream_fields(const struct h2_stream *s)
{
    return &s->fields;
}

bool h2_stream_received_end(const struct h2_stream *s)
{
    return s->received_end;
}

bool h2_stream_sent_end(const struct h2_stream *s)
{
    return s->sent_end;
}

bool h2_stream_responded(const struct h2_stream *s)
{
    return s->responded;
}

/* ---- received fields ---- */

/* Doubles the array, out of the stream if it was in it. */
static bool fields_grow(struct h2_env *env, struct h2_fields *f, bool owned)
{
    size_t capacity = f->capacity == 0 ? H2_FIELDS_INLINE : (size_t)f->capacity * 2;
    struct h2_field *at = h2_mem_alloc(&env->mem, capacity * sizeof(*at));
    if (at == NULL) {
        return false;
    }
    if (f->count > 0) {
        memcpy(at, f->at, f->count * sizeof(*at));
    }
    if (owned) {
        h2_mem_free(&env->mem, f->at);
    }
    f->at = at;
    f->capacity = (uint16_t)capacity;
    return true;
}

static void fields_note_token(struct h2_fields *f, enum h2_token token)
{
    uint64_t bit = UINT64_C(1) << token;
    if ((f->seen & bit) != 0) {
        f->repeated |= bit;
    } else {
        f->seen |= bit;
        f->first[token] = f->count;
    }
}

/* Memory for bytes beyond those that are inline. */
struct h2_piece {
    struct h2_piece *next;
    uint8_t bytes[];
};

enum { PIECE_BYTES = 1024 - 16 };

/* Makes room for so many bytes in one piece. */
static bool make_room(struct h2_env *env, struct h2_fields *f, size_t size)
{
    if (size <= f->room_size) {
        return true;
    }
    size_t whole = sizeof(struct h2_piece) + size;
    struct h2_piece *piece = h2_mem_alloc(&env->mem, whole < PIECE_BYTES ? PIECE_BYTES : whole);
    if (piece == NULL) {
        return false;
    }
    piece->next = f->pieces;
    f->pieces = piece;
    f->room = piece->bytes;
    f->room_size = (uint32_t)(h2_mem_size(piece) - sizeof(*piece));
    return true;
}

static struct slice fields_copy(struct h2_fields *f, struct slice bytes)
{
    struct slice kept = slice_of(f->room, bytes.size);
    if (bytes.size > 0) {
        memcpy(f->room, bytes.ptr, bytes.size);
    }
    f->room += bytes.size;
    f->room_size -= (uint32_t)bytes.size;
    return kept;
}

static void fields_put(struct h2_fields *f, const struct hpack_field *arrived)
{
    enum h2_token token = (enum h2_token)arrived->token;
    struct h2_field *field = &f->at[f->count];
    *field = (struct h2_field){.token = (uint8_t)token};
    if (token == H2_TOKEN_OTHER) {
        field->name = fields_copy(f, arrived->name);
    } else {
        field->name = h2_token_name(token);
        field->flags = h2_token_flags(token);
        fields_note_token(f, token);
    }
    if (arrived->static_value) {
        field->value = arrived->value;
        field->flags |= H2_FIELD_VALUE_STATIC;
    } else {
        field->value = fields_copy(f, arrived->value);
    }
    field->flags |= arrived->never_index ? H2_FIELD_NEVER_INDEX : 0;
    f->count++;
}

bool h2_fields_add(struct h2_env *env, struct h2_fields *f, struct h2_field *inline_at,
                   const struct hpack_field *arrived, bool *out_too_large)
{
    size_t bytes = arrived->name.size + arrived->value.size;
    size_t size = bytes + H2_FIELD_OVERHEAD;
    *out_too_large =
        f->count >= limits.request_header_fields || f->bytes + size > limits.request_header_bytes;
    if (*out_too_large) {
        return false;
    }
    if ((f->count == f->capacity && !fields_grow(env, f, f->at != inline_at)) ||
        !make_room(env, f, bytes)) {
        return false;
    }
    f->bytes += (uint32_t)size;
    fields_put(f, arrived);
    return true;
}

void h2_fields_clear(struct h2_env *env, struct h2_fields *f, struct h2_field *inline_at)
{
    while (f->pieces != NULL) {
        struct h2_piece *next = f->pieces->next;
        h2_mem_free(&env->mem, f->pieces);
        f->pieces = next;
    }
    if (f->at != inline_at) {
        h2_mem_free(&env->mem, f->at);
    }
    f->at = inline_at;
    f->capacity = inline_at == NULL ? 0 : H2_FIELDS_INLINE;
    f->room = NULL;
    f->room_size = 0;
    f->count = 0;
    f->bytes = 0;
    f->seen = 0;
    f->repeated = 0;
}

void h2_stream_clear_fields(struct h2_stream *s)
{
    h2_fields_clear(s->conn->env, &s->fields, s->inline_fields);
    s->fields.room = s->inline_bytes;
    s->fields.room_size = H2_BYTES_INLINE;
}

/* ---- flow control towards the peer ---- */

/*
 * The connection's window is given back when bytes arrive, so that one slow stream stalls none
 * other, as long as the streams of the connection hold less than their bound together.
 */
void h2_conn_release(struct h2_conn *c, size_t bytes)
{
    c->to_consume += bytes;
    h2_conn_dirty(c);
}

static void stream_release(struct h2_stream *s, size_t bytes)
{
    struct h2_conn *c = s->conn;
    CHECK(bytes <= s->held);
    CHECK(s->held <= c->held);
    s->held -= bytes;
    c->held -= bytes;
    if (c->withheld > 0 && c->held <= limits.connection_held_bytes) {
        size_t back = c->withheld;
        c->withheld = 0;
        h2_conn_release(c, back);
        if (!c->server && c->events->room != NULL && !c->ending) {
            c->events->room(c);
        }
    }
}

void h2_stream_consume(struct h2_stream *s, size_t bytes)
{
    if (bytes == 0) {
        return;
    }
    stream_release(s, bytes);
    if (s->received_end || s->over || s->finished) {
        return; /* nobody sends on this window any more. */
    }
    uint32_t back = h2_window_consume(&s->window, bytes, s->conn->env->stream_window_max);
    if (back > 0) {
        h2_out_window(s->conn, (uint32_t)s->id, back);
    }
}

/* ---- the end ---- */

/*
 * Whether the answer is whole: a server framed all of it, a client heard all of it. What the other
 * direction still had to say is not wanted any more (RFC 9113, section 8.1).
 */
static bool answer_is_whole(const struct h2_stream *s)
{
    return s->conn->server ? s->end_framed : s->received_end;
}

/* Whether the request never left. */
static bool is_unsent(const struct h2_stream *s)
{
    return !s->conn->server && !s->fields_done && !s->conn->opened;
}

/* Whether the peer's application cannot have seen the request (gRPC A6). */
static bool is_unprocessed(const struct h2_stream *s, uint32_t code)
{
    return is_unsent(s) ||
           (!s->conn->server && !s->fields_done && code == H2_REFUSED_STREAM && !s->reset_by_us);
}

static void tell_reset(struct h2_stream *s, uint32_t code)
{
    if (s->reset_by_owner || s->events->reset == NULL || answer_is_whole(s)) {
        return;
    }
    s->events->reset(s, (struct h2_reset){.code = code,
                                          .by_peer = s->reset_by_peer,
                                          .unprocessed = is_unprocessed(s, code),
                                          .unsent = is_unsent(s),
                                          .too_large = s->fields_refused});
}

static void stream_free(struct h2_stream *s)
{
    struct h2_conn *c = s->conn;
    stream_release(s, s->held);
    h2_send_drop(s);
    h2_streams_remove(&c->by_id, (uint32_t)s->id);
    h2_fields_clear(c->env, &s->fields, s->inline_fields);
    list_remove(c, s);
    c->used_ms = h2_now_ms(c);
    h2_mem_free(&c->env->mem, s);
}

void h2_stream_over(struct h2_stream *s, uint32_t code)
{
    if (s->over || s->finished) {
        return;
    }
    s->over = true;
    s->over_code = code;
    h2_link_remove(&s->ready);
    h2_link_add(&s->conn->due, &s->due);
    h2_conn_dirty(s->conn);
}

void h2_stream_finish(struct h2_stream *s, uint32_t code)
{
    struct h2_conn *c = s->conn;
    CHECK(!s->finished);
    s->finished = true;
    s->sent_end = true;
    if (c->body_of == s) {
        c->body_of = NULL;
    }
    tell_reset(s, code);
    if (s->events->closed != NULL) {
        s->events->closed(s);
    }
    c->env->counters.streams_closed++;
    stream_free(s);
    h2_conn_dirty(c);
    if (!c->server && c->events->room != NULL && !c->ending) {
        c->events->room(c);
    }
}

void h2_stream_discard(struct h2_stream *s)
{
    s->conn->env->counters.streams_opened--;
    stream_free(s);
}
