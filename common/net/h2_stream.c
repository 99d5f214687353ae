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

struct h2_stream *h2_stream_new(struct h2_conn *c, int32_t id)
{
    struct h2_stream *s = h2_mem_alloc(&c->env->mem, sizeof(*s));
    if (s == NULL) {
        return NULL;
    }
    /* The arrays behind are valid only as far as 'fields' says. */
    memset(s, 0, offsetof(struct h2_stream, fields.first));
    s->conn = c;
    s->id = id;
    s->events = &no_events;
    s->fields.at = s->inline_fields;
    s->fields.capacity = H2_FIELDS_INLINE;
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

static struct slice slice_of_ref(nghttp2_rcbuf *ref)
{
    nghttp2_vec bytes = nghttp2_rcbuf_get_buf(ref);
    return slice_of(bytes.base, bytes.len);
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

/* Takes references, but for names that have a token: those are static. */
static void fields_put(struct h2_fields *f, struct slice name, struct slice value,
                       const struct h2_arrived *arrived)
{
    enum h2_token token = h2_token_find(name);
    struct h2_field *field = &f->at[f->count];
    *field = (struct h2_field){.name = name,
                               .value = value,
                               .name_ref = arrived->name,
                               .value_ref = arrived->value,
                               .token = (uint8_t)token};
    nghttp2_rcbuf_incref(arrived->value);
    if (token == H2_TOKEN_OTHER) {
        nghttp2_rcbuf_incref(arrived->name);
    } else {
        field->name = h2_token_name(token);
        field->name_ref = NULL;
        field->flags = h2_token_flags(token);
        fields_note_token(f, token);
    }
    if ((arrived->flags & NGHTTP2_NV_FLAG_NO_INDEX) != 0) {
        field->flags |= H2_FIELD_NEVER_INDEX;
    }
    f->count++;
}

bool h2_fields_add(struct h2_env *env, struct h2_fields *f, struct h2_field *inline_at,
                   const struct h2_arrived *arrived, bool *out_too_large)
{
    struct slice name = slice_of_ref(arrived->name);
    struct slice value = slice_of_ref(arrived->value);
    size_t size = name.size + value.size + H2_FIELD_OVERHEAD;
    *out_too_large =
        f->count >= limits.request_header_fields || f->bytes + size > limits.request_header_bytes;
    if (*out_too_large) {
        return false;
    }
    if (f->count == f->capacity && !fields_grow(env, f, f->at != inline_at)) {
        return false;
    }
    f->bytes += (uint32_t)size;
    fields_put(f, name, value, arrived);
    return true;
}

void h2_fields_clear(struct h2_env *env, struct h2_fields *f, struct h2_field *inline_at)
{
    for (size_t i = 0; i < f->count; i++) {
        if (f->at[i].name_ref != NULL) {
            nghttp2_rcbuf_decref(f->at[i].name_ref);
        }
        nghttp2_rcbuf_decref(f->at[i].value_ref);
    }
    if (f->at != inline_at) {
        h2_mem_free(&env->mem, f->at);
    }
    f->at = inline_at;
    f->capacity = inline_at == NULL ? 0 : H2_FIELDS_INLINE;
    f->count = 0;
    f->bytes = 0;
    f->seen = 0;
    f->repeated = 0;
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
    }
}

void h2_stream_consume(struct h2_stream *s, size_t bytes)
{
    if (bytes == 0) {
        return;
    }
    stream_release(s, bytes);
    if (s->received_end || s->finished) {
        return; /* nobody sends on this window any more. */
    }
    /* Fails only for a stream that is closing: nothing to give back then. */
    (void)nghttp2_session_consume_stream(s->conn->session, s->id, bytes);
    h2_conn_dirty(s->conn);
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
    return !s->conn->server && !s->fields_done && (!s->head_sent || !s->conn->opened);
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
    h2_fields_clear(c->env, &s->fields, s->inline_fields);
    list_remove(c, s);
    h2_mem_free(&c->env->mem, s);
}

void h2_stream_finish(struct h2_stream *s, uint32_t code)
{
    struct h2_conn *c = s->conn;
    CHECK(!s->finished);
    s->finished = true;
    s->sent_end = true;
    if (c->data_stream == s) {
        c->data_stream = NULL;
    }
    if (c->section == s) {
        c->section = NULL;
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
