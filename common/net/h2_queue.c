/* h2_queue: see h2_queue.h. */
#include "common/net/h2_queue.h"

#include <string.h>

#include "common/base/check.h"
#include "common/net/h2_impl.h"

/* Room of a chunk, small for messages and large for what comes in bulk: a class of h2_mem less what
 * stands before the bytes. */
enum { CHUNK_BEFORE = 80 };
enum {
    CHUNK_SMALL = 512 - CHUNK_BEFORE,
    CHUNK_MEDIUM = 4096 - CHUNK_BEFORE,
    CHUNK_LARGE = 16384 - CHUNK_BEFORE
};

/* Freed by its last reference. One reference is that of its queue, one that of each chunk whose
 * owner it is, one that of each piece that the connection's output was lent. */
struct h2_chunk {
    struct h2_chunk *next;
    struct h2_mem *mem;
    struct h2_chunk *owner; /* whose bytes these are; NULL: its own. */
    uint8_t *bytes;         /* behind the room for a frame's head, or the owner's. */
    uint32_t references;
    uint32_t capacity; /* zero of one with an owner. */
    uint32_t from;     /* first byte not yet framed. */
    uint32_t to;       /* end of the content. */
    uint8_t own[];     /* room for the head of the first frame, then the bytes. */
};
_Static_assert(sizeof(struct h2_chunk) + H2_FRAME_HEAD_BYTES + H2_MEM_HEAD_BYTES <= CHUNK_BEFORE,
               "a chunk fills its class of h2_mem");

void h2_queue_init(struct h2_queue *q, struct h2_env *env)
{
    *q = (struct h2_queue){.mem = &env->mem};
}

/* ---- chunks ---- */

static void chunk_unref(struct h2_chunk *chunk)
{
    CHECK(chunk->references > 0);
    if (--chunk->references > 0) {
        return;
    }
    struct h2_chunk *owner = chunk->owner;
    h2_mem_free(chunk->mem, chunk);
    if (owner != NULL) { /* which has none itself. */
        chunk_unref(owner);
    }
}

static void chunk_released(void *chunk)
{
    chunk_unref(chunk);
}

static void chunks_free(struct h2_chunk *chunk)
{
    while (chunk != NULL) {
        struct h2_chunk *next = chunk->next;
        chunk_unref(chunk);
        chunk = next;
    }
}

/* What comes in bulk goes on: what it leaves of a large chunk is filled next. */
static size_t chunk_capacity(size_t wanted, bool bulk)
{
    if (bulk || wanted > CHUNK_MEDIUM) {
        return CHUNK_LARGE;
    }
    return wanted <= CHUNK_SMALL ? CHUNK_SMALL : CHUNK_MEDIUM;
}

static struct h2_chunk *chunk_new(struct h2_mem *mem, size_t capacity)
{
    struct h2_chunk *chunk = h2_mem_alloc(mem, sizeof(*chunk) + H2_FRAME_HEAD_BYTES + capacity);
    if (chunk != NULL) {
        *chunk = (struct h2_chunk){.mem = mem,
                                   .bytes = chunk->own + H2_FRAME_HEAD_BYTES,
                                   .references = 1,
                                   .capacity = (uint32_t)capacity};
    }
    return chunk;
}

/* A piece of another's. */
static struct h2_chunk *chunk_of(struct h2_chunk *other, uint32_t from)
{
    struct h2_chunk *owner = other->owner != NULL ? other->owner : other;
    struct h2_chunk *chunk = h2_mem_alloc(other->mem, sizeof(*chunk));
    if (chunk != NULL) {
        owner->references++;
        *chunk = (struct h2_chunk){.mem = other->mem,
                                   .owner = owner,
                                   .bytes = owner->bytes,
                                   .references = 1,
                                   .from = from,
                                   .to = other->to};
    }
    return chunk;
}

static size_t chunk_size(const struct h2_chunk *chunk)
{
    return chunk->to - chunk->from;
}

/* Chunks in a row, before they are a queue's. */
struct chain {
    struct h2_chunk *first;
    struct h2_chunk *last;
};

/* False, and the chain is freed, when there is no chunk. */
static bool chain_add(struct chain *chain, struct h2_chunk *chunk)
{
    if (chunk == NULL) {
        chunks_free(chain->first);
        return false;
    }
    if (chain->last == NULL) {
        chain->first = chunk;
    } else {
        chain->last->next = chunk;
    }
    chain->last = chunk;
    return true;
}

static void queue_append(struct h2_queue *q, const struct chain *chain)
{
    if (chain->first == NULL) {
        return;
    }
    if (q->tail == NULL) {
        q->head = chain->first;
    } else {
        q->tail->next = chain->first;
    }
    q->tail = chain->last;
}

void h2_queue_clear(struct h2_queue *q)
{
    chunks_free(q->head);
    *q = (struct h2_queue){.mem = q->mem};
}

/* ---- adding ---- */

static size_t chunk_fill(struct h2_chunk *chunk, struct slice bytes)
{
    size_t room = chunk->capacity - chunk->to;
    size_t size = bytes.size < room ? bytes.size : room;
    memcpy(chunk->bytes + chunk->to, bytes.ptr, size);
    chunk->to += (uint32_t)size;
    return size;
}

static size_t tail_room(const struct h2_queue *q)
{
    /* One with an owner has none, and ends behind its capacity. */
    return q->tail == NULL || q->tail->owner != NULL ? 0 : q->tail->capacity - q->tail->to;
}

bool h2_queue_add(struct h2_queue *q, struct slice bytes)
{
    struct chain chain = {0};
    size_t room = tail_room(q);
    bool bulk = bytes.size > CHUNK_MEDIUM;
    for (size_t left = bytes.size > room ? bytes.size - room : 0; left > 0;) {
        size_t capacity = chunk_capacity(left, bulk);
        if (!chain_add(&chain, chunk_new(q->mem, capacity))) {
            return false;
        }
        left -= left < capacity ? left : capacity;
    }
    q->size += bytes.size;
    if (room > 0 && bytes.size > 0) {
        bytes = slice_from(bytes, chunk_fill(q->tail, bytes));
    }
    queue_append(q, &chain);
    for (struct h2_chunk *chunk = chain.first; chunk != NULL; chunk = chunk->next) {
        bytes = slice_from(bytes, chunk_fill(chunk, bytes));
    }
    return true;
}

bool h2_queue_share(struct h2_queue *q, const struct h2_queue *from, size_t skip)
{
    struct chain chain = {0};
    CHECK(skip <= from->size);
    size_t size = from->size - skip;
    for (struct h2_chunk *chunk = from->head; chunk != NULL; chunk = chunk->next) {
        size_t has = chunk_size(chunk);
        if (skip >= has) {
            skip -= has;
            continue;
        }
        if (!chain_add(&chain, chunk_of(chunk, chunk->from + (uint32_t)skip))) {
            return false;
        }
        skip = 0;
    }
    queue_append(q, &chain);
    q->size += size;
    return true;
}

/* ---- leaving ---- */

size_t h2_queue_frame(const struct h2_queue *q, size_t max)
{
    size_t size = 0;
    for (const struct h2_chunk *c = q->head; c != NULL && size < max; c = c->next) {
        if (chunk_size(c) >= H2_QUEUE_LEND_BYTES) {
            size = size == 0 ? chunk_size(c) : size;
            break;
        }
        size += chunk_size(c);
    }
    return size < max ? size : max;
}

/* Drops framed bytes from the front chunk. */
static void queue_advance(struct h2_queue *q, size_t size)
{
    struct h2_chunk *chunk = q->head;
    chunk->from += (uint32_t)size;
    q->size -= size;
    if (chunk->from < chunk->to) {
        return;
    }
    q->head = chunk->next;
    if (q->head == NULL) {
        q->tail = NULL;
    }
    chunk_unref(chunk);
}

static struct err lend(struct h2_chunk *chunk, struct net_conn *to, struct slice piece)
{
    struct h2_chunk *owner = chunk->owner != NULL ? chunk->owner : chunk;
    owner->references++;
    struct err e = net_conn_write_ref(to, piece, chunk_released, owner);
    if (!err_ok(e)) {
        owner->references--;
    }
    return e;
}

/* Moves the first piece, at most 'max' bytes. */
static struct err move_piece(struct h2_queue *q, struct net_conn *to, size_t max, size_t *out_size)
{
    struct h2_chunk *chunk = q->head;
    struct slice piece = slice_head(slice_of(chunk->bytes + chunk->from, chunk_size(chunk)), max);
    if (piece.size >= H2_QUEUE_LEND_BYTES) {
        TRY(lend(chunk, to, piece));
    } else {
        TRY(net_conn_write(to, piece));
    }
    queue_advance(q, piece.size);
    *out_size = piece.size;
    return OK;
}

/* Whether a frame is the first large piece of a chunk that is nobody else's: its head has room
 * right before the bytes, and both leave as one piece. */
static bool takes_head(const struct h2_chunk *chunk, size_t size)
{
    return chunk->from == 0 && chunk->owner == NULL && size >= H2_QUEUE_LEND_BYTES &&
           size <= chunk_size(chunk);
}

struct err h2_queue_move(struct h2_queue *q, struct net_conn *to, const uint8_t *head, size_t size)
{
    CHECK(size <= q->size);
    if (size > 0 && takes_head(q->head, size)) {
        memcpy(q->head->own, head, H2_FRAME_HEAD_BYTES);
        TRY(lend(q->head, to, slice_of(q->head->own, H2_FRAME_HEAD_BYTES + size)));
        queue_advance(q, size);
        return OK;
    }
    TRY(net_conn_write(to, slice_of(head, H2_FRAME_HEAD_BYTES)));
    while (size > 0) { /* each turn moves some of it. */
        size_t moved = 0;
        TRY(move_piece(q, to, size, &moved));
        size -= moved;
    }
    return OK;
}
