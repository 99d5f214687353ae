/*
 * flood: what peers do that no decent one does, counted by its kind, and said in the log.
 *
 * Shape      a loop counts what its connections were ended for. The log has a line for each, with
 *            the peer, up to NET_FLOOD_LINES of them a second; the next line says how many it
 *            stands for: who floods must not flood the log, too.
 * Units      connections.
 * Ownership  the loop has the counts.
 * Threads    the loop's thread.
 * Errors     none.
 * Source     docs/floods.md: each kind, its bound, and the test that shows it.
 */
#pragma once

#include <stdint.h>

struct net_addr;
struct net_loop;

/* name, label of the metric */
#define NET_FLOOD_LIST(X)                                                                          \
    X(CONTROL, "control")           /* frames that do nothing, or nearly so. */                    \
    X(RESET, "reset")               /* streams reset, or such that have to be. */                  \
    X(CONTINUATION, "continuation") /* a header section in endless pieces. */                      \
    X(HEADERS, "headers")           /* header sections far over the bounds, or of no stream. */    \
    X(SLOW_HEAD, "slow_head")       /* a head or a frame that was begun and does not end. */       \
    X(SLOW_BODY, "slow_body")       /* a body of HTTP/1 that does not go on. */                    \
    X(SILENT, "silent")             /* neither a handshake nor first bytes. */                     \
    X(UNREAD, "unread")             /* what was sent to it is not read. */

enum net_flood {
#define X(name, label) NET_FLOOD_##name,
    NET_FLOOD_LIST(X)
#undef X
        NET_FLOOD_COUNT
};

/* Lines that a loop writes a second. */
enum { NET_FLOOD_LINES = 20 };

/* What a loop keeps. Zeroed is a loop that saw none. */
struct net_floods {
    uint64_t counts[NET_FLOOD_COUNT];
    uint64_t second; /* of the last line. */
    uint64_t lines;  /* in that second. */
    uint64_t unsaid; /* since the last line. */
};

/* Counts a connection that ends for this, and says so. Once a connection. */
void net_flood(struct net_loop *loop, enum net_flood kind, const struct net_addr *peer);

/* How many there were since the loop began. */
uint64_t net_flood_count(const struct net_loop *loop, enum net_flood kind);

/* The kind's label. */
const char *net_flood_name(enum net_flood kind);
