/*
 * h2_impl: what the files of h2 share. Nobody but they and their tests includes this.
 *
 * Shape      h2_env.c: what connections share. h2_conn.c: a connection's life. Input: h2_recv.c
 *            cuts it into frames, h2_watch.c says what they cost, h2_section.c reads header
 *            sections, h2_frames.c the other frames. Output: h2_out.c frames, h2_queue.c keeps
 *            bodies that wait, h2_send.c has the calls and the pass at the end of a turn.
 *            h2_stream.c: one exchange; h2_streams.c finds it by its number.
 * Ownership  see h2.h; a stream is finished by h2_stream_finish() alone.
 * Threads    one worker.
 */
#pragma once

#include "common/base/buf.h"
#include "common/net/conn.h"
#include "common/net/flood.h"
#include "common/net/h2.h"
#include "common/net/h2_guard.h"
#include "common/net/h2_mem.h"
#include "common/net/h2_message.h"
#include "common/net/h2_queue.h"
#include "common/net/hpack.h"
#include "common/net/loop.h"
#include "common/net/timer.h"

/* Frames (RFC 9113, section 6), and those of their flags that are looked at. */
enum h2_frame_type {
    H2_DATA = 0,
    H2_HEADERS = 1,
    H2_PRIORITY = 2,
    H2_RST_STREAM = 3,
    H2_SETTINGS = 4,
    H2_PUSH_PROMISE = 5,
    H2_PING = 6,
    H2_GOAWAY = 7,
    H2_WINDOW_UPDATE = 8,
    H2_CONTINUATION = 9,
};
enum h2_frame_flag {
    H2_FLAG_END_STREAM = 1, /* DATA, HEADERS. */
    H2_FLAG_ACK = 1,        /* SETTINGS, PING. */
    H2_FLAG_END_HEADERS = 4,
    H2_FLAG_PADDED = 8,
    H2_FLAG_PRIORITY = 0x20,
};
enum h2_setting {
    H2_SETTING_HEADER_TABLE_SIZE = 1,
    H2_SETTING_ENABLE_PUSH = 2,
    H2_SETTING_MAX_CONCURRENT_STREAMS = 3,
    H2_SETTING_INITIAL_WINDOW_SIZE = 4,
    H2_SETTING_MAX_FRAME_SIZE = 5,
    H2_SETTING_MAX_HEADER_LIST_SIZE = 6,
    H2_SETTING_NO_RFC7540_PRIORITIES = 9,
};

/* Largest payload of a frame, ours and the peer's: nobody here asks for more (section 4.2). */
enum { H2_FRAME_BYTES = 16384 };

/* Windows before anybody said otherwise, and the largest (section 6.9). */
enum { H2_WINDOW_DEFAULT = 65535, H2_WINDOW_MAX = INT32_MAX };

/* One entry of SETTINGS (section 6.5.1). */
enum { H2_SETTING_BYTES = 6 };

/* Room for fields, and for their bytes, that a stream has before it takes more. */
enum { H2_FIELDS_INLINE = 20, H2_BYTES_INLINE = 512 };

/* Output that must be free before a frame is made: a full one, its head, and more. It is free in
 * the least limits.output_buffer_bytes when that has drained to its half, or nothing would ever be.
 */
enum { H2_OUTPUT_RESERVE = 2 * H2_FRAME_BYTES };

/* Thousandths of a control frame that one frame of useful work earns, and of a reset that one whole
 * answer does: who hedges cancels some of what it asks for. */
enum { H2_WORK_EARNS = 4000, H2_ANSWER_EARNS = 200 };

/* A gRPC message has five bytes before it: a frame of fewer brings nothing forward. */
enum { H2_LITTLE_DATA_BYTES = 5 };

/* A DATA frame of this size is work, though more would have gone if the peer's window let it. */
enum { H2_WORK_BYTES = 1024 };

/* What SETTINGS_MAX_HEADER_LIST_SIZE adds to each field (RFC 9113, section 6.5.2). */
enum { H2_FIELD_OVERHEAD = 32 };

/* Of a header section that is over its bound, so many bounds more are read. */
enum { H2_SECTION_SKIPS = 3 };

/* Of what may come in a header section so many times as much may be sent on: fields are added. */
enum { H2_SECTION_GROWTH = 2 };

/* A server's GOAWAY is final when its PING came back, or after this. */
enum { H2_DRAIN_NOTICE_MS = 1000 };

/* A frame's head, and the client's preface before the first one (RFC 9113, 4.1 and 3.4). */
enum { H2_FRAME_HEAD_BYTES = 9, H2_PREFACE_BYTES = 24 };

struct h2_env {
    struct net_loop *loop;
    struct h2_mem mem;
    struct h2_counters counters;
    uint64_t stream_window; /* of a new stream, and the largest. */
    uint64_t stream_window_max;
    uint8_t *scratch; /* where coded header strings are decoded to; owned. */
    size_t scratch_size;
    size_t connections; /* open now. */
    uint32_t streams_key;
};

/* Fields that wait until the body before them is framed, with all their bytes: one block. */
struct h2_block {
    size_t count;
    struct h2_field fields[];
};

/*
 * What a peer may send to us. It doubles each time that as many bytes as it is large were consumed:
 * a stream of few bytes has little of our memory, and one of many is not held up by its distance.
 */
struct h2_window {
    int32_t size;  /* when nothing is on its way or unread. */
    int32_t left;  /* what the peer may send now. */
    uint32_t owed; /* consumed, and not yet given back. */
    uint32_t used; /* consumed since it grew last. */
};

/* A place in a ring of streams, or its start. Alone: it is in none. */
struct h2_link {
    struct h2_link *next;
    struct h2_link *prev;
};

struct h2_stream {
    struct h2_conn *conn;
    struct h2_stream *next; /* in the connection's list. */
    struct h2_stream *prev;
    struct h2_link due;   /* its owner is to be told, or it is over. */
    struct h2_link ready; /* some of its body can be framed. */
    const struct h2_stream_events *events;
    void *user;
    int32_t id;
    int32_t send_window;       /* what the peer takes; below zero after a change of its SETTINGS. */
    struct h2_window window;   /* what the peer may send. */
    uint32_t over_code;        /* why it is over. */
    size_t held;               /* bytes received whose window was not given back. */
    size_t sent_untold;        /* framed, and the owner does not know. */
    uint64_t length_left;      /* of the body that content-length says; H2_LENGTH_NONE. */
    uint64_t moved_ns;         /* when the queue began to be one, or some of it left last. */
    struct h2_queue queue;     /* of the body. */
    struct h2_block *trailers; /* that go behind the body. */
    bool fields_done;          /* the peer's first header section is whole. */
    bool fields_refused;       /* it is over the bounds; nothing of it is kept. */
    bool received_end;
    bool responded; /* a header section of ours was framed. */
    bool sent_end;  /* end or trailers are framed or queued. */
    bool end_framed;
    bool head_request; /* client: the answer to HEAD has no body, whatever it says. */
    bool reset_by_owner;
    bool reset_by_us; /* an RST_STREAM of ours was framed. */
    bool reset_by_peer;
    bool blocked; /* 'writable' is owed. */
    bool over;    /* both sides are done: it is finished when the turn ends. */
    bool finished;
    struct h2_fields fields;
    struct h2_field inline_fields[H2_FIELDS_INLINE];
    uint8_t inline_bytes[H2_BYTES_INLINE];
};

enum h2_drain { H2_DRAIN_NO, H2_DRAIN_NOTICED, H2_DRAIN_FINAL };

/* Streams by their number: open addressing, at most half full. */
struct h2_streams {
    struct h2_stream **at; /* NULL while there was none. */
    uint32_t key;          /* odd; of the worker's connections. */
    uint32_t bits;         /* of the capacity. */
    uint32_t capacity;     /* a power of two. */
    uint32_t count;
};

struct h2_conn {
    struct h2_env *env;
    struct net_conn *net;
    const struct h2_conn_events *events;
    void *user;
    struct net_hook hook;     /* makes output at the end of the turn. */
    struct net_timer timer;   /* handshake first, then idle. */
    struct net_timer closing; /* drain: when the notice becomes final; probe: the answer is late. */
    struct net_timer cut;     /* server: what was begun has to end; see h2_watch.c. */
    struct net_timer unread;  /* server: what is left of whole answers has to be read. */
    struct h2_stream *streams;
    size_t stream_count;
    struct h2_streams by_id;
    struct h2_link due;
    struct h2_link ready;
    size_t held;       /* received bytes that streams still hold. */
    size_t to_consume; /* bytes to give back to the connection's window. */
    size_t withheld;   /* bytes not given back because too much is held. */
    uint64_t heard_ms;
    uint64_t used_ms; /* when the last of its streams ended. */

    /* Input. */
    struct hpack_decoder decoder;
    struct buf part;           /* payload of a frame that did not come in one piece. */
    struct buf section_bytes;  /* header block that did not come in one frame. */
    size_t left;               /* payload still to come of the frame that 'head' is of. */
    size_t padding;            /* bytes of it at the end that are none. */
    struct h2_stream *body_of; /* whose DATA that is; NULL: nobody's. */
    uint8_t preface_left;      /* bytes of the client's preface still to come. */
    uint8_t head_have;         /* bytes of the next frame's head in 'head'. */
    uint8_t head[H2_FRAME_HEAD_BYTES];
    bool wants_padding;        /* the first byte of that DATA says how much of it is padding. */
    bool in_section;           /* a CONTINUATION has to come. */
    bool section_opens;        /* server: it opens a stream. */
    bool section_ends;         /* the section's HEADERS had END_STREAM. */
    uint32_t section_id;       /* whose section it is. */
    uint32_t newest_id;        /* server: the highest stream of the peer's HEADERS. */
    uint32_t last_id;          /* server: of those that are served, once a GOAWAY said so. */
    size_t section_size;       /* bytes on the wire of the last header section. */
    unsigned section_pieces;   /* CONTINUATION frames of it. */
    uint64_t cut_ms;           /* when what the input ended in was begun; 0: it ended in nothing. */
    struct h2_fields trailers; /* fields of a section that is no first one. */
    struct h2_window window;   /* what the peer may send on all streams. */

    /* Output. */
    struct hpack_encoder encoder;
    struct buf pending;    /* frames that the connection's output has no room for. */
    int32_t send_window;   /* what the peer takes on all streams. */
    int32_t next_id;       /* client: of the next request. */
    uint32_t peer_streams; /* most of ours that the peer takes at a time. */
    uint32_t peer_headers; /* client: bytes of fields of a request that the peer takes. */
    int32_t peer_window;   /* of a new stream. */

    struct h2_guard control;
    struct h2_guard resets;
    uint64_t refused_early; /* streams refused before the peer acknowledged our SETTINGS. */
    struct err why;         /* what 'closed' will say. */
    enum h2_code end_code;  /* what the streams that are still open will hear. */
    enum h2_drain drain;
    bool server;
    bool opened;
    bool settings_received;
    bool settings_acked;
    bool goaway_received;
    bool goaway_sent; /* a final one. */
    bool probing;
    bool flooded;
    bool cut_short; /* we reset a stream: more of it may be on its way. */
    bool broken;    /* output is lost: memory is out, or too much of it waits. */
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

static inline uint32_t h2_frame_stream(const uint8_t head[H2_FRAME_HEAD_BYTES])
{
    return (uint32_t)(head[5] & 0x7f) << 24 | (uint32_t)head[6] << 16 | (uint32_t)head[7] << 8 |
           head[8];
}

static inline uint32_t h2_read_u32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static inline void h2_write_u32(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 24);
    at[1] = (uint8_t)(value >> 16);
    at[2] = (uint8_t)(value >> 8);
    at[3] = (uint8_t)value;
}

/* Whether nobody has used a stream of that number yet (RFC 9113, section 5.1). */
static inline bool h2_is_idle(const struct h2_conn *c, uint32_t id)
{
    if (c->server) {
        return id % 2 == 0 || id > c->newest_id;
    }
    return id % 2 == 0 || id >= (uint32_t)c->next_id;
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

/* Ends the connection for what the peer did wrong. */
static inline void h2_conn_wrong(struct h2_conn *c, enum h2_code code)
{
    h2_conn_close(c, code, FAIL(E_PROTOCOL_ERROR));
}

/* ---- rings of streams ---- */

static inline void h2_link_init(struct h2_link *l)
{
    l->next = l;
    l->prev = l;
}

static inline bool h2_link_alone(const struct h2_link *l)
{
    return l->next == l;
}

/* Behind all others, if it is in no ring yet. */
static inline void h2_link_add(struct h2_link *ring, struct h2_link *l)
{
    if (h2_link_alone(l)) {
        l->prev = ring->prev;
        l->next = ring;
        ring->prev->next = l;
        ring->prev = l;
    }
}

static inline void h2_link_remove(struct h2_link *l)
{
    l->prev->next = l->next;
    l->next->prev = l->prev;
    h2_link_init(l);
}

/* ---- h2_streams.c ---- */

/* NULL: there is none, or it is over. */
struct h2_stream *h2_streams_find(const struct h2_streams *t, uint32_t id);

/* False: out of memory. */
bool h2_streams_add(struct h2_conn *c, struct h2_stream *s);
void h2_streams_remove(struct h2_streams *t, uint32_t id);

/* ---- h2_watch.c ---- */

/* Charges for a frame, by its head; false when it is one too many, and the connection ends. */
bool h2_watch_frame(struct h2_conn *c);

/* Somebody takes the body that a frame's head announces: it is work, if it is much. */
void h2_watch_body(struct h2_conn *c);

/* Charges a header section of that size that nobody wants; false when it is one too many. */
bool h2_watch_charge_section(struct h2_conn *c, size_t size, uint64_t charges);

/* Charges a walk over all streams; false when it is one too many, and the connection ends. */
bool h2_watch_charge_streams(struct h2_conn *c);

/* Counts a stream that the peer reset or made us reset; false when that is a flood. */
bool h2_watch_charge_reset(struct h2_conn *c);

/* The input ended here. 'began': what it ended in was begun in this read. */
void h2_watch_cut(struct h2_conn *c, bool began);

/* What was begun did not end in time. */
void h2_watch_cut_timer(struct net_timer *timer, void *ctx);

/* The stream's queue grew, or nothing more comes behind it. */
void h2_watch_reader(struct h2_stream *s);

/* Resets the streams whose answer is whole and is not read. */
void h2_watch_unread_timer(struct net_timer *timer, void *ctx);

/* ---- h2_window.c ---- */

void h2_window_init(struct h2_window *w, uint64_t size);

/* Takes bytes that came; false when they are more than the peer may send. */
bool h2_window_take(struct h2_window *w, size_t size);

/* Notes bytes that were consumed; what is to be given back by WINDOW_UPDATE now, or 0: not yet. */
uint32_t h2_window_consume(struct h2_window *w, size_t size, uint64_t max);

/* Sets a stream's window at first, and at most: never more than what the other side's queue takes.
 */
void h2_window_bounds(struct h2_env *env);

/* ---- h2_recv.c ---- */

/* Reads what came from the connection. */
void h2_recv(struct h2_conn *c, struct slice bytes);

/* Everything of a message came, or all that there was: the stream is over when we are done, too. */
void h2_recv_ended(struct h2_stream *s);

/* ---- h2_section.c ---- */

/* The head of a frame of HEADERS came: whose section is it? */
void h2_section_begin(struct h2_conn *c);

/* A frame of HEADERS or CONTINUATION, padding and priority taken off. */
void h2_section_add(struct h2_conn *c, struct slice piece, bool last);

/* ---- h2_frames.c ---- */

/* A frame that is neither DATA nor part of a header section. */
void h2_frame_received(struct h2_conn *c, struct slice payload);

/* ---- h2_out.c ---- */

/* Frames out, at once: into the connection's output, or behind it when that is full. What cannot
 * be kept breaks the connection, which ends with the turn. */
void h2_out_start(struct h2_conn *c); /* preface and SETTINGS. */
void h2_out_settings_ack(struct h2_conn *c);
void h2_out_ping(struct h2_conn *c, const uint8_t data[8], bool ack);
void h2_out_goaway(struct h2_conn *c, uint32_t last_id, enum h2_code code);
void h2_out_window(struct h2_conn *c, uint32_t id, uint32_t bytes);
void h2_out_reset(struct h2_conn *c, uint32_t id, enum h2_code code);

/* A header section; false when it is too large for any peer, and nothing was sent. */
bool h2_out_section(struct h2_conn *c, uint32_t id, const struct h2_field *fields, size_t count,
                    bool end);

/* Whether a full frame of DATA goes straight into the output. */
bool h2_out_has_room(const struct h2_conn *c);

/* A frame of DATA, for which there is room: of bytes, or of the first ones of a queue. */
void h2_out_data(struct h2_conn *c, uint32_t id, struct slice bytes, bool end);
void h2_out_data_queued(struct h2_stream *s, size_t size, bool end);

/* Moves what waits into the connection's output; false while some of it still has to wait. */
bool h2_out_flush(struct h2_conn *c);

/* ---- h2_send.c ---- */

/* Frames what is ready, tells owners, finishes streams. False when the connection broke. */
bool h2_send(struct h2_conn *c);

/* The stream's window or the peer's grew. */
void h2_send_ready(struct h2_stream *s);

/* Ends a stream with RST_STREAM for what the peer did; the owner hears 'reset'. */
void h2_stream_break(struct h2_stream *s, enum h2_code code);

/* Frees queue and trailers of a stream. */
void h2_send_drop(struct h2_stream *s);

/* ---- h2_stream.c ---- */

/* A new stream in the connection's list; NULL when memory is out. */
struct h2_stream *h2_stream_new(struct h2_conn *c, uint32_t id);

/* Adds a received field, copied; false when it is over the bounds, or memory is out. 'inline_at'
 * is the array that is not to be freed when a larger one is taken, or NULL. */
bool h2_fields_add(struct h2_env *env, struct h2_fields *f, struct h2_field *inline_at,
                   const struct hpack_field *arrived, bool *out_too_large);

/* Frees what the fields took; what is inline stays. */
void h2_fields_clear(struct h2_env *env, struct h2_fields *f, struct h2_field *inline_at);

/* A stream's fields are empty again, with its inline room. */
void h2_stream_clear_fields(struct h2_stream *s);

/* Whether somebody hears of the stream. */
bool h2_stream_attached(const struct h2_stream *s);

/* Frees a stream that never began, without a word. */
void h2_stream_discard(struct h2_stream *s);

/* Both sides are done, or one reset it: it is finished when the turn ends. */
void h2_stream_over(struct h2_stream *s, uint32_t code);

/* Tells the owner the end of it and frees the stream. 'code' is why it ended. */
void h2_stream_finish(struct h2_stream *s, uint32_t code);

/* Gives bytes back to the connection's window, now or when less is held. */
void h2_conn_release(struct h2_conn *c, size_t bytes);
