/*
 * What frames cost, by their heads.
 *
 * Work earns what it makes a decent peer send beside it; everything else costs. What is begun has
 * to end: a frame that is no body, and a header section, have limits.header_timeout_ms. What is
 * left of a whole answer has to be read: limits.write_timeout_ms without a byte of it end the
 * stream.
 */
#include "common/base/limits.h"
#include "common/net/h2_impl.h"

/* Bytes of a header section that is looked at in vain, for one charge more. */
enum { SECTION_CHARGE_BYTES = 4096 };

/* Streams that are looked at for the price of one frame. */
enum { STREAMS_A_CHARGE = 16 };

/* A header section takes less on the wire than what it is counted as, by which it is bounded; this
 * many times the bound is no mistake any more. */
enum { SECTION_BOUNDS = 2 };

/* CONTINUATION frames of a section, beside those that the largest one needs. */
enum { SECTION_PIECES = 8 };

/* ---- what a frame costs ---- */

/* Padding may be all that there is in a frame, and its head does not tell. */
static bool is_much_data(const uint8_t head[H2_FRAME_HEAD_BYTES])
{
    return (head[4] & H2_FLAG_PADDED) == 0 && h2_frame_size(head) >= H2_LITTLE_DATA_BYTES;
}

/* A section of HPACK has to be read even when nobody wants it, for the sake of those behind it. */
bool h2_watch_charge_section(struct h2_conn *c, size_t size, uint64_t charges)
{
    charges += size / SECTION_CHARGE_BYTES;
    if (h2_guard_charge(&c->resets, h2_now_ms(c), charges)) {
        return true;
    }
    h2_conn_flooded(c, NET_FLOOD_HEADERS);
    return false;
}

bool h2_watch_charge_reset(struct h2_conn *c)
{
    if (!c->server || h2_guard_charge(&c->resets, h2_now_ms(c), /* charges= */ 1)) {
        return true;
    }
    h2_conn_flooded(c, NET_FLOOD_RESET);
    return false;
}

static bool charge_control(struct h2_conn *c, uint64_t charges)
{
    if (h2_guard_charge(&c->control, h2_now_ms(c), charges)) {
        return true;
    }
    h2_conn_flooded(c, NET_FLOOD_CONTROL);
    return false;
}

bool h2_watch_charge_streams(struct h2_conn *c)
{
    return charge_control(c, c->stream_count / STREAMS_A_CHARGE);
}

/* The pieces of a section together: they are bounded as they come, and a client's bytes, too. */
static bool add_to_section(struct h2_conn *c, size_t size)
{
    c->section_size += size;
    bool large = c->server && c->section_size > SECTION_BOUNDS * limits.request_header_bytes;
    uint64_t pieces = SECTION_PIECES + limits.request_header_bytes / H2_FRAME_BYTES;
    if (!large && c->section_pieces <= pieces) {
        return true;
    }
    h2_conn_flooded(c, large ? NET_FLOOD_HEADERS : NET_FLOOD_CONTINUATION);
    return false;
}

bool h2_watch_frame(struct h2_conn *c)
{
    const uint8_t *head = c->head;
    size_t size = h2_frame_size(head);
    switch (head[3]) {
    case H2_HEADERS:
        c->section_size = 0;
        c->section_pieces = 0;
        if (!add_to_section(c, size)) {
            return false;
        }
        if (c->server &&
            h2_frame_stream(head) <= c->newest_id) { /* gRPC's requests have no trailers. */
            return h2_watch_charge_section(c, size, /* charges= */ 1);
        }
        h2_guard_earn(&c->control, H2_WORK_EARNS);
        return true;
    case H2_CONTINUATION:
        c->section_pieces++;
        return add_to_section(c, size);
    case H2_DATA:
        return is_much_data(head) || charge_control(c, /* charges= */ 1);
    default:
        /* PING, SETTINGS, WINDOW_UPDATE, RST, PRIORITY, unknown. */
        return charge_control(c, /* charges= */ 1);
    }
}

void h2_watch_body(struct h2_conn *c)
{
    if (is_much_data(c->head)) {
        h2_guard_earn(&c->control, H2_WORK_EARNS);
    }
}

/* ---- what is begun has to end ---- */

/* Whether the input ended in the middle of what a client sends at once. A body takes its time. */
static bool is_cut(const struct h2_conn *c)
{
    if (c->head_have > 0 || c->preface_left > 0 || c->in_section) {
        return true;
    }
    return c->head[3] != H2_DATA && c->left > 0;
}

void h2_watch_cut_timer(struct net_timer *timer, void *ctx)
{
    struct h2_conn *c = ctx;
    if (c->cut_ms == 0) {
        return;
    }
    uint64_t passed_ms = h2_now_ms(c) - c->cut_ms;
    if (passed_ms < limits.header_timeout_ms) {
        net_timer_arm(c->env->loop, timer, limits.header_timeout_ms - passed_ms);
        return;
    }
    h2_conn_flooded(c, NET_FLOOD_SLOW_HEAD);
}

/* One timer, armed anew when it runs and not with each read. */
void h2_watch_cut(struct h2_conn *c, bool began)
{
    if (!c->server) {
        return; /* calls to an upstream have deadlines. */
    }
    if (!is_cut(c)) {
        c->cut_ms = 0;
        return;
    }
    if (began || c->cut_ms == 0) {
        c->cut_ms = c->heard_ms;
    }
    if (!net_timer_armed(&c->cut)) {
        net_timer_arm(c->env->loop, &c->cut, limits.header_timeout_ms);
    }
}

/* ---- what is sent has to be read ---- */

/* Whether nothing is missing but a peer that opens its window: its owner may be gone by then. */
static bool waits_for_reader(const struct h2_stream *s)
{
    return s->sent_end && s->queue.size > 0;
}

void h2_watch_reader(struct h2_stream *s)
{
    struct h2_conn *c = s->conn;
    if (c->server && waits_for_reader(s) && !net_timer_armed(&c->unread)) {
        net_timer_arm(c->env->loop, &c->unread, limits.write_timeout_ms);
    }
}

static void give_up(struct h2_stream *s, uint64_t now_ns)
{
    s->moved_ns = now_ns; /* once, though the frame may have to wait. */
    s->conn->env->counters.streams_unread++;
    h2_stream_break(s, H2_CANCEL);
}

/* Armed with the first such answer, and anew while there are any: no timer a stream. */
void h2_watch_unread_timer(struct net_timer *timer, void *ctx)
{
    struct h2_conn *c = ctx;
    uint64_t now_ns = net_loop_now_ns(c->env->loop);
    uint64_t next_ms = UINT64_MAX;
    for (struct h2_stream *s = c->streams; s != NULL; s = s->next) {
        if (!waits_for_reader(s)) {
            continue;
        }
        uint64_t stuck_ms = (now_ns - s->moved_ns) / 1000000;
        bool late = stuck_ms >= limits.write_timeout_ms;
        uint64_t left_ms = limits.write_timeout_ms - (late ? 0 : stuck_ms);
        next_ms = left_ms < next_ms ? left_ms : next_ms;
        if (late) {
            give_up(s, now_ns);
        }
    }
    if (next_ms != UINT64_MAX) {
        net_timer_arm(c->env->loop, timer, next_ms);
    }
}
