/* conn_output: a connection's way out: chunks, and one system call for many of them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "common/base/check.h"
#include "common/net/conn_impl.h"

/* Pieces of one system call: a piece may be one small frame. */
enum { WRITE_PIECES = 64 };

static void chunks_add(struct net_chunks *chunks, struct net_chunk *chunk)
{
    if (chunks->last == NULL) {
        chunks->first = chunk;
    } else {
        chunks->last->next = chunk;
    }
    chunks->last = chunk;
}

struct net_chunk *net_chunks_tail(struct net_loop *loop, struct net_chunks *chunks, size_t size)
{
    struct net_chunk *tail = chunks->last;
    if (tail != NULL && tail->release == NULL && NET_CHUNK_BYTES - tail->end >= size) {
        return tail;
    }
    struct net_chunk *chunk = net_chunk_new(loop);
    if (chunk != NULL) {
        chunks_add(chunks, chunk);
    }
    return chunk;
}

void net_chunks_drop(struct net_loop *loop, struct net_chunks *chunks, size_t size)
{
    CHECK(size <= chunks->bytes);
    chunks->bytes -= size;
    /* Ends: every round takes the first chunk off, or returns. */
    while (chunks->first != NULL) {
        struct net_chunk *chunk = chunks->first;
        size_t has = chunk->end - chunk->start;
        if (size < has) {
            chunk->start += size;
            return;
        }
        size -= has;
        chunks->first = chunk->next;
        if (chunks->first == NULL) {
            chunks->last = NULL;
        }
        net_chunk_free(loop, chunk);
    }
}

void net_chunks_clear(struct net_loop *loop, struct net_chunks *chunks)
{
    net_chunks_drop(loop, chunks, chunks->bytes);
}

size_t net_conn_output(const struct net_conn *conn)
{
    return conn->output.bytes + conn->tls.sealed.bytes;
}

size_t net_conn_room(const struct net_conn *conn)
{
    size_t output = net_conn_output(conn);
    return output >= conn->output_max ? 0 : conn->output_max - output;
}

void net_conn_set_output_max(struct net_conn *conn, size_t bytes)
{
    conn->output_max = bytes;
}

void net_conn_want_drained(struct net_conn *conn)
{
    conn->want_drained = true;
    net_hook_queue(conn->loop, &conn->hook);
}

/* Whether 'size' more bytes may be queued. */
static struct err output_admit(struct net_conn *conn, size_t size)
{
    CHECK(conn->reserved == 0);
    if (conn->broken || conn->closing || conn->shutdown_asked) {
        return FAIL(E_CLOSED);
    }
    if (size > net_conn_room(conn)) {
        conn->want_drained = true;
        return FAIL(E_TOO_LARGE);
    }
    return OK;
}

/* Takes away what a failed write had added. */
static void output_truncate(struct net_conn *conn, struct net_chunk *last, size_t last_end)
{
    struct net_chunk *extra = last == NULL ? conn->output.first : last->next;
    conn->output.last = last;
    if (last == NULL) {
        conn->output.first = NULL;
    } else {
        last->next = NULL;
        last->end = last_end;
    }
    while (extra != NULL) {
        struct net_chunk *next = extra->next;
        net_chunk_free(conn->loop, extra);
        extra = next;
    }
}

struct err net_conn_write(struct net_conn *conn, struct slice bytes)
{
    TRY(output_admit(conn, bytes.size));
    struct net_chunk *last = conn->output.last;
    size_t last_end = last == NULL ? 0 : last->end;
    struct slice rest = bytes;
    while (rest.size > 0) {
        struct net_chunk *tail = net_chunks_tail(conn->loop, &conn->output, 1);
        if (tail == NULL) {
            output_truncate(conn, last, last_end);
            return FAIL(E_NO_MEMORY);
        }
        size_t size = NET_CHUNK_BYTES - tail->end;
        size = size < rest.size ? size : rest.size;
        memcpy(tail->own + tail->end, rest.ptr, size);
        tail->end += size;
        rest = slice_from(rest, size);
    }
    conn->output.bytes += bytes.size;
    net_hook_queue(conn->loop, &conn->hook);
    return OK;
}

struct err net_conn_reserve(struct net_conn *conn, size_t size, uint8_t **out)
{
    CHECK(size > 0 && size <= NET_CHUNK_BYTES);
    TRY(output_admit(conn, size));
    struct net_chunk *tail = net_chunks_tail(conn->loop, &conn->output, size);
    if (tail == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    conn->reserved = size;
    *out = tail->own + tail->end;
    return OK;
}

void net_conn_commit(struct net_conn *conn, size_t size)
{
    CHECK(size <= conn->reserved);
    conn->reserved = 0;
    conn->output.last->end += size;
    conn->output.bytes += size;
    net_hook_queue(conn->loop, &conn->hook);
}

struct err net_conn_write_ref(struct net_conn *conn, struct slice bytes, net_release_fn *release,
                              void *ctx)
{
    CHECK(release != NULL);
    TRY(output_admit(conn, bytes.size));
    struct net_chunk *chunk = malloc(sizeof(*chunk));
    if (chunk == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    *chunk = (struct net_chunk){
        .bytes = bytes.ptr,
        .end = bytes.size,
        .release = release,
        .release_ctx = ctx,
    };
    chunks_add(&conn->output, chunk);
    conn->output.bytes += bytes.size;
    net_hook_queue(conn->loop, &conn->hook);
    return OK;
}

/* An iovec has no const, although sending only reads. */
static void *bytes_unconst(const uint8_t *bytes)
{
    void *out = NULL;
    memcpy(&out, &bytes, sizeof(out));
    return out;
}

/*
 * A peer that is gone may have said why (a GOAWAY, an answer), and that may lie in the socket
 * still. So the first failure only waits for the poll, which reads before it has us write again;
 * the second ends the connection.
 */
static void write_failed(struct net_conn *conn, int number)
{
    bool gone = number == EPIPE || number == ECONNRESET;
    bool reads = conn->state == NET_CONN_OPEN && !conn->paused && !conn->eof;
    if (gone && reads && !conn->refused) {
        conn->refused = true;
        conn->blocked = true;
        return;
    }
    net_conn_break(conn, gone ? FAIL(E_CLOSED) : FAIL(E_IO));
}

/* One system call; false when the socket takes no more for now, or broke. */
static bool write_once(struct net_conn *conn, struct net_chunks *chunks)
{
    struct iovec pieces[WRITE_PIECES];
    size_t count = 0;
    size_t offered = 0;
    for (struct net_chunk *c = chunks->first; c != NULL && count < WRITE_PIECES; c = c->next) {
        pieces[count].iov_base = bytes_unconst(c->bytes + c->start);
        pieces[count].iov_len = c->end - c->start;
        offered += pieces[count].iov_len;
        count++;
    }
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = count};
    ssize_t written = sendmsg(conn->fd, &message, MSG_NOSIGNAL);
    conn->stats.writes++;
    conn->loop->stats.writes++;
    if (written < 0) {
        if (errno == EAGAIN || errno == EWOULDBLOCK) {
            conn->blocked = true;
        } else if (errno != EINTR) {
            write_failed(conn, errno);
        }
        return false;
    }
    conn->loop->stats.bytes_out += (uint64_t)written;
    net_chunks_drop(conn->loop, chunks, (size_t)written);
    conn->blocked = (size_t)written < offered;
    return !conn->blocked;
}

/* Arms the timer anew with each byte that a blocked socket took; most are never blocked. */
static void time_output(struct net_conn *conn, bool moved)
{
    if (conn->state != NET_CONN_OPEN || conn->closing || conn->broken) {
        return; /* the timer is another matter's. */
    }
    bool armed = net_timer_armed(&conn->timer);
    if (conn->blocked && (moved || !armed)) {
        net_timer_arm(conn->loop, &conn->timer, limits.write_timeout_ms);
    } else if (!conn->blocked && armed) {
        net_timer_cancel(conn->loop, &conn->timer);
    }
}

void net_conn_write_out(struct net_conn *conn)
{
    uint64_t bytes_before = conn->loop->stats.bytes_out;
    conn->blocked = false;
    CHECK(conn->reserved == 0);
    /* Ends: the socket blocks, breaks, or has taken everything. */
    for (;;) {
        struct net_chunks *chunks = &conn->output;
        if (conn->tls.ssl != NULL) {
            if (conn->state == NET_CONN_OPEN) {
                net_conn_tls_seal(conn);
            }
            chunks = &conn->tls.sealed;
        }
        bool held_back = conn->tls.ssl == NULL && conn->state != NET_CONN_OPEN;
        if (chunks->bytes == 0 || held_back || conn->broken) {
            break;
        }
        uint64_t before = chunks->bytes;
        bool more = write_once(conn, chunks);
        if (conn->tls.ssl == NULL) {
            conn->stats.bytes_out += before - chunks->bytes;
        }
        if (!more) {
            break;
        }
    }
    net_conn_watch(conn);
    time_output(conn, conn->loop->stats.bytes_out != bytes_before);
}

void net_conn_flush(struct net_conn *conn)
{
    if (!conn->broken && !conn->blocked) {
        net_conn_write_out(conn);
    }
}
