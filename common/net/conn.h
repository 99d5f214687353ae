/*
 * conn: one TCP connection of a loop, in clear or under TLS.
 *
 * Shape      our own non-blocking socket, polled by the loop. Reads go into one buffer of the
 *            loop and are lent to readable(); writes are gathered in pooled chunks of 16 KiB and
 *            leave in one writev at the end of the turn. Under TLS the same calls carry clear
 *            text, and records are filled up to 16 KiB when there is more.
 * Units      bytes, milliseconds.
 * Ownership  the loop owns a connection. The pointer is good until closed() has returned; closed()
 *            comes exactly once, unless the handler was taken off before.
 * Threads    the loop's thread only.
 * Errors     net_conn_write() and its kin: E_TOO_LARGE past the bound of output (nothing taken),
 *            E_CLOSED once it is closing, E_NO_MEMORY. What ends a connection goes to closed().
 *
 * Any call is allowed inside any callback. close, abort and failing writes never call back from
 * inside themselves: closed() comes at the end of the turn. Writing is allowed before opened():
 * the bytes leave with the end of the handshake.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"
#include "common/base/limits.h"
#include "common/base/slice.h"
#include "common/net/addr.h"
#include "common/net/loop.h"
#include "common/net/tls.h"

struct net_conn;

/* Size of an output chunk, and so the most that net_conn_reserve() lends: one TLS record. */
enum { NET_CHUNK_BYTES = 16384 };

/* Most that one readable() call brings. */
enum { NET_READ_BYTES = 131072 };

/* Each may be NULL: then nothing is done, but for eof, where the connection is closed. */
struct net_conn_handler {
    /* Connected, and under TLS shaken hands: ALPN and the peer's identity are known. */
    void (*opened)(struct net_conn *conn, void *ctx);
    /* Bytes came; borrowed for the call. Not called while reading is paused. */
    void (*readable)(struct net_conn *conn, void *ctx, struct slice bytes);
    /* The peer sends no more; writing still works until net_conn_close(). */
    void (*eof)(struct net_conn *conn, void *ctx);
    /* Output fell to half of its bound or less after a write had met the bound, or
     * after net_conn_want_drained(). */
    void (*drained)(struct net_conn *conn, void *ctx);
    /* The last call. E_OK: closed by us and all output handed to the kernel. E_CLOSED: aborted by
     * us, or ended by the peer. E_TIMEOUT: dialling, handshake or the last flush took too long,
     * or the peer read nothing of the output for limits.write_timeout_ms.
     * E_UNAUTHENTICATED, E_CRYPTO: TLS. E_UNAVAILABLE: the dialled peer refused. E_IO: others. */
    void (*closed)(struct net_conn *conn, void *ctx, struct err why);
};

/* Changes who is called; handler NULL: nobody (the connection can still be closed). */
void net_conn_set_handler(struct net_conn *conn, const struct net_conn_handler *handler, void *ctx);
void *net_conn_ctx(const struct net_conn *conn);
struct net_loop *net_conn_loop(const struct net_conn *conn);

struct net_conn_accept_options {
    struct net_tls *tls;                    /* NULL: clear. */
    struct net_tls_terms terms;             /* of TLS alone. */
    const struct net_conn_handler *handler; /* kept; static as a rule. */
    void *ctx;
};

/*
 * Takes a connected socket (*fd becomes -1, also on failure). opened() comes at the end of the
 * turn, or after the handshake. E_NO_MEMORY, E_IO.
 */
MUST_CHECK struct err net_conn_accept(struct net_loop *loop, int *fd,
                                      const struct net_conn_accept_options *o,
                                      struct net_conn **out);

struct net_dial_options {
    const struct net_addr *addr;
    uint64_t timeout_ms;        /* connecting and shaking hands; 0: limits.connect_timeout_ms. */
    struct net_tls *tls;        /* NULL: clear. */
    struct slice server_name;   /* SNI, and the name that the certificate must carry (a DNS name or
                                   an IP literal) unless 'spiffe_id' is set. Copied. */
    struct slice spiffe_id;     /* the peer must be exactly this X.509-SVID. Copied. */
    bool http1_only;            /* ALPN offers http/1.1 alone, whatever the context says. */
    struct net_tls_terms terms; /* the versions. */
    const struct net_conn_handler *handler;
    void *ctx;
};

/* Starts to connect; how it went comes as opened() or closed(). E_NO_MEMORY, E_IO at once. */
MUST_CHECK struct err net_dial(struct net_loop *loop, const struct net_dial_options *o,
                               struct net_conn **out);

/* Copies bytes behind the output. All or nothing. */
MUST_CHECK struct err net_conn_write(struct net_conn *conn, struct slice bytes);

/*
 * Lends 'size' <= NET_CHUNK_BYTES writable bytes behind the output, so that a framer writes in
 * place; net_conn_commit() makes the first of them output (0: none). One at a time.
 */
MUST_CHECK struct err net_conn_reserve(struct net_conn *conn, size_t size, uint8_t **out);
void net_conn_commit(struct net_conn *conn, size_t size);

typedef void net_release_fn(void *ctx);

/*
 * Queues bytes without copying; 'release' runs once they are no longer needed, also when the
 * connection dies, and not when this call fails. Pays from some KiB on.
 */
MUST_CHECK struct err net_conn_write_ref(struct net_conn *conn, struct slice bytes,
                                         net_release_fn *release, void *ctx);

/* Writes what is there now, without waiting for the end of the turn. */
void net_conn_flush(struct net_conn *conn);

/* Bytes that wait; and how many more are taken before the bound is met. */
size_t net_conn_output(const struct net_conn *conn);
size_t net_conn_room(const struct net_conn *conn);

/* The bound of output; limits.output_buffer_bytes at first. */
void net_conn_set_output_max(struct net_conn *conn, size_t bytes);

/* Asks for one drained() as soon as output is at or below half of its bound. */
void net_conn_want_drained(struct net_conn *conn);

/* Back-pressure on the peer. Counted not at all: one resume ends any number of pauses. */
void net_conn_pause(struct net_conn *conn);
void net_conn_resume(struct net_conn *conn);
bool net_conn_paused(const struct net_conn *conn);

/* Sends FIN (close_notify) behind the output and goes on reading: half-close, for tunnels. */
void net_conn_shutdown(struct net_conn *conn);

/* Flushes, sends FIN, waits a bounded time for the peer's, closes. Reads no more. */
void net_conn_close(struct net_conn *conn);

/* Drops output and resets. 'why' is what closed() gets. */
void net_conn_abort(struct net_conn *conn, struct err why);

/* Whether close or abort was called, or the connection broke. */
bool net_conn_closing(const struct net_conn *conn);

/* Whether opened() was due: connected and, under TLS, shaken hands. */
bool net_conn_is_open(const struct net_conn *conn);

const struct net_addr *net_conn_peer(const struct net_conn *conn);
const struct net_addr *net_conn_local(const struct net_conn *conn);

/* Under TLS: what ALPN chose ("h2", "http/1.1"); empty in clear or when nothing was chosen. */
struct slice net_conn_alpn(const struct net_conn *conn);
bool net_conn_is_tls(const struct net_conn *conn);

/* What it was accepted or dialled with; NULL in clear. */
const struct net_tls *net_conn_tls(const struct net_conn *conn);

/* The verified peer; NULL in clear, or when it gave no certificate. Lives with the connection. */
const struct net_identity *net_conn_identity(const struct net_conn *conn);

/* Whether the certificate that the peer proved itself by would be taken by another context, too:
 * whether its CAs still vouch for it. How old it is by now is not asked; nobody has no certificate
 * to ask about. Costs about as much as a handshake's share of it. */
bool net_conn_peer_trusted(const struct net_conn *conn, const struct net_tls *tls);

/* Whether an open connection under TLS is what is demanded; one in clear is not asked. */
bool net_conn_meets(const struct net_conn *conn, const struct net_tls_terms *terms);

struct net_conn_stats {
    uint64_t bytes_in; /* as the handler sees them: clear text. */
    uint64_t bytes_out;
    uint64_t reads; /* system calls. */
    uint64_t writes;
    uint64_t opened_ns; /* loop time of the start. */
    uint64_t last_read_ns;
};

const struct net_conn_stats *net_conn_stats(const struct net_conn *conn);
