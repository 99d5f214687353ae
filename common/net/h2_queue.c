/* Bodies that wait: chunks of bytes, from which DATA frames are cut. */
#include "common/base/check.h"
#include "common/net/h2_impl.h"

/* Chunks of the body's queue: small for messages, large for what comes in bulk. */
enum { CHUNK_SMALL = 512 - 64, CHUNK_MEDIUM = 4096 - 64, CHUNK_LARGE = 16384 - 64 };

/* From this size on a piece is lent to the connection's output instead of copied. */
enum { LEND_MIN_BYTES = 4096 };

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

static void chunks_free(struct h2_chunk *chunk)
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
            chunks_free(*out_first);
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

bool h2_queue_add(struct h2_stream *s, struct slice bytes)
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
static struct err move_piece(struct h2_stream *s, size_t max, size_t *out_size)
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

struct err h2_queue_move(struct h2_stream *s, size_t size)
{
    for (size_t left = size; left > 0;) { /* ends: each round moves some, or fails. */
        size_t moved = 0;
        TRY(move_piece(s, left, &moved));
        left -= moved;
    }
    s->queued -= size;
    return OK;
}

void h2_queue_free(struct h2_stream *s)
{
    chunks_free(s->head);
    s->head = NULL;
    s->tail = NULL;
    s->queued = 0;
}
