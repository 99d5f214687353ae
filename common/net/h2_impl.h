/*
 * h2_impl: what the files of h2 share. Nobody else includes this.
 *
 * Shape      h2_env.c: what connections share. h2_conn.c: a connection's life. h2_recv.c: from
 *            nghttp2's callbacks to events. h2_watch.c: what frames cost. h2_send.c: from calls
 *            to frames. h2_stream.c: one exchange.
 * Ownership  see h2.h; a stream is finished by h2_stream_finish() alone.
 * Threads    one worker.
 */
#pragma once

#include <nghttp2/nghttp2.h>

#include "common/net/conn.h"
#include "common/net/flood.h"
#include "common/net/h2.h"
#include "common/net/h2_guard.h"
#include "common/net/h2_mem.h"
#include "common/net/loop.h"
#include "common/net/timer.h"

/* Room for fields that a stream has before it takes a larger array. */
enum { H2_FIELDS_INLINE = 20 };

/* Output that must be free before a frame is made: a full frame and its head, twice. */
enum { H2_OUTPUT_RESERVE = 2 * (16384 + 9) };

/* Thousandths of a control frame that one frame of useful work earns, and of a reset that one whole
 * answer does: who hedges cancels some of what it asks for. */
enum { H2_WORK_EARNS = 4000, H2_ANSWER_EARNS = 200 };

/* A DATA frame of this size is work, though more would have gone if the peer's window let it. */
enum { H2_WORK_BYTES = 1024 };

/* What SETTINGS_MAX_HEADER_LIST_SIZE adds to each field (RFC 9113, section 6.5.2). */
enum { H2_FIELD_OVERHEAD = 32 };

/* Of a header section that is over its bound, so many bounds more are read. */
enum { H2_SECTION_SKIPS = 3 };

/* A server's GOAWAY is final when its PING came back, or after this. */
enum { H2_DRAIN_NOTICE_MS = 1000 };

/* A frame's head, and the client's preface before the first one (RFC 9113, 4.1 and 3.4). */
enum { H2_FRAME_HEAD_BYTES = 9, H2_PREFACE_BYTES = 24 };

struct h2_env {
    struct net_loop *loop;
    struct h2_mem mem;
    nghttp2_mem library_mem; /* 'mem' as nghttp2 sees it. */
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *server_option;
    nghttp2_option *client_option;
    struct h2_counters counters;
    size_t connections; /* open now. */
};

/* Bytes of the body that wait to be framed; freed by the last reference. */
struct h2_chunk {
    struct h2_chunk *next;
    struct h2_mem *mem;
    uint32_t references; /* the queue's, and one for each piece lent to the connection's output. */
    uint32_t capacity;
    uint32_t from; /* first byte not yet framed. */
    uint32_t to;   /* end of the content. */
    uint8_t bytes[];
};

/* A header section on its way out, with all that its bytes live in. */
struct h2_block {
    size_t count;
    size_t ref_count;
    nghttp2_nv *nv;
    nghttp2_rcbuf **refs;
};

struct h2_stream {
    struct h2_conn *conn;
    struct h2_stream *next; /* in the connection's list. */
    struct h2_stream *prev;
    const struct h2_stream_events *events;
    void *user;
    int32_t id;
    uint32_t reset_code;   /* why the owner reset it. */
    size_t held;           /* bytes received whose window was not given back. */
    size_t queued;         /* bytes in the chunks. */
    uint64_t moved_ns;     /* when the queue began to be one, or some of it left last. */
    struct h2_chunk *head; /* the queue of the body. */
    struct h2_chunk *tail;
    struct h2_block *head_block;    /* submitted header section, until it is sent. */
    struct h2_block *trailer_block; /* trailers, until they are sent. */
    bool fields_done;               /* the peer's first header section is whole. */
    bool fields_refused;            /* it is over the bounds; nothing of it is kept. */
    bool received_end;
    bool responded; /* a header section of ours was submitted. */
    bool head_sent; /* ... and was framed. */
    bool sent_end;  /* end or trailers are submitted or queued. */
    bool end_framed;
    bool trailers_submitted;
    bool reset_by_owner;
    bool reset_by_us; /* an RST_STREAM of ours was framed. */
    bool reset_by_peer;
    bool blocked; /* 'writable' is owed. */
    bool finished;
    struct h2_fields fields;
    struct h2_field inline_fields[H2_FIELDS_INLINE];
};

enum h2_drain { H2_DRAIN_NO, H2_DRAIN_NOTICED, H2_DRAIN_FINAL };

struct h2_conn {
    struct h2_env *env;
    struct net_conn *net;
    nghttp2_session *session;
    const struct h2_conn_events *events;
    void *user;
    struct net_hook hook;     /* makes output at the end of the turn. */
    struct net_timer timer;   /* handshake first, then idle. */
    struct net_timer closing; /* drain: when the notice becomes final; probe: the answer is late. */
    struct net_timer cut;     /* server: what was begun has to end; see h2_watch.c. */
    struct net_timer unread;  /* server: what is left of whole answers has to be read. */
    struct h2_stream *streams;
    size_t stream_count;
    size_t held;       /* received bytes that streams still hold. */
    size_t to_consume; /* bytes to give back to the connection's window. */
    size_t withheld;   /* bytes not given back because too much is held. */
    uint64_t heard_ms;
    size_t skip;       /* input up to the next frame's head. */
    uint8_t head_have; /* bytes of it in 'head'. */
    uint8_t head[H2_FRAME_HEAD_BYTES];
    uint32_t newest_id;      /* the highest stream of a peer's HEADERS. */
    int32_t begun_id;        /* server: the same, of those that nghttp2 has looked at. */
    size_t section_size;     /* bytes on the wire of the last header section. */
    size_t section_skipped;  /* bytes of it, decoded, that were over the bounds. */
    unsigned section_pieces; /* CONTINUATION frames of it. */
    uint64_t cut_ms;         /* when what the input ended in was begun; 0: it ended in nothing. */
    struct h2_guard control;
    struct h2_guard resets;
    uint64_t refused_early;        /* streams refused before the peer acknowledged our SETTINGS. */
    struct h2_stream *data_stream; /* whose bytes 'data' are, until it is known if they end it. */
    struct slice data;
    struct h2_stream *section; /* whose header section is under way; NULL: nobody's. */
    struct h2_fields trailers; /* the section's fields, when they are no first ones. */
    struct err why;            /* what 'closed' will say. */
    enum h2_code end_code;     /* what the streams that are still open will hear. */
    enum h2_drain drain;
    bool server;
    bool opened;
    bool settings_received;
    bool settings_acked;
    bool names_indexed; /* client: the first request was sent, and with it the names. */
    bool advertised;    /* the first SETTINGS were framed. */
    bool goaway_received;
    bool probing;
    bool flooded;
    bool cut_short; /* we reset a stream: more of it may be on its way. */
    bool ending;    /* close was asked for: no more input, output until it is empty. */
    bool ended;     /* the net_conn was closed or aborted. */
};

static inline uint64_t h2_now_ms(const struct h2_conn *c)
{
    return net_loop_now_ns(c->env->loop) / 1000000;
}

/* Size of a frame's payload, from its head. */
static inline size_t h2_frame_size(const uint8_t head[H2_FRAME_HEAD_BYTES])
{
    return (size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];
}

/* ---- h2_conn.c ---- */

/* Has output made at the end of the turn. */
static inline void h2_conn_dirty(struct h2_conn *c)
{
    net_hook_queue(c->env->loop, &c->hook);
}

/* Ends the connection for a flood; the caller stops reading. */
void h2_conn_flooded(struct h2_conn *c, enum net_flood kind);

/* The answer to a PING of ours came. */
void h2_conn_ping_answered(struct h2_conn *c);

/* ---- h2_watch.c ---- */

/* Looks at the frames in what came; false when the connection has to end. */
bool h2_watch(struct h2_conn *c, struct slice bytes);

/* Charges a header section of that size that nobody wants; false when it is one too many. */
bool h2_watch_charge_section(struct h2_conn *c, size_t size, uint64_t charges);

/* What was begun did not end in time. */
void h2_watch_cut_timer(struct net_timer *timer, void *ctx);

/* The stream's queue grew, or nothing more comes behind it. */
void h2_watch_reader(struct h2_stream *s);

/* Resets the streams whose answer is whole and is not read. */
void h2_watch_unread_timer(struct net_timer *timer, void *ctx);

/* ---- h2_recv.c ---- */
void h2_recv_callbacks(nghttp2_session_callbacks *callbacks);

/* Counts a stream that the peer made us reset; nghttp2's error code when that is a flood. */
int h2_recv_reset_charge(struct h2_conn *c);

/* Feeds bytes from the connection to nghttp2. */
void h2_recv(struct h2_conn *c, struct slice bytes);

/* ---- h2_send.c ---- */
void h2_send_callbacks(nghttp2_session_callbacks *callbacks);

/* Frames what is ready into the connection's output. False when the session broke. */
bool h2_send(struct h2_conn *c);

/* Frees queue and blocks of a stream. */
void h2_send_drop(struct h2_stream *s);

/* ---- h2_stream.c ---- */

/* A new stream in the connection's list; NULL when memory is out. */
struct h2_stream *h2_stream_new(struct h2_conn *c, int32_t id);

/* A field as nghttp2 hands it out. */
struct h2_arrived {
    nghttp2_rcbuf *name;
    nghttp2_rcbuf *value;
    uint8_t flags; /* of nghttp2_nv_flag. */
};

/* Adds a received field, with references; false when it is over the bounds, or memory is out.
 * 'inline_at' is the array that is not to be freed when a larger one is taken, or NULL. */
bool h2_fields_add(struct h2_env *env, struct h2_fields *f, struct h2_field *inline_at,
                   const struct h2_arrived *arrived, bool *out_too_large);

/* Drops the fields' references; 'inline_at' is the array that is not to be freed, or NULL. */
void h2_fields_clear(struct h2_env *env, struct h2_fields *f, struct h2_field *inline_at);

/* Whether somebody hears of the stream. */
bool h2_stream_attached(const struct h2_stream *s);

/* Frees a stream that never began, without a word. */
void h2_stream_discard(struct h2_stream *s);

/* Tells the owner the end of it and frees the stream. 'code' is why nghttp2 closed it. */
void h2_stream_finish(struct h2_stream *s, uint32_t code);

/* Gives bytes back to the connection's window, now or when less is held. */
void h2_conn_release(struct h2_conn *c, size_t bytes);
