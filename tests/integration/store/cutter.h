/*
 * cutter: stands between a store and its PostgreSQL, and cuts at a commit.
 *
 * Shape      a thread on a loopback port of its own that passes bytes on; what it does to the next
 *            "COMMIT" that comes by is set beforehand, once.
 * Ownership  cutter_start() is undone by cutter_stop().
 * Threads    one owner; its thread is its own.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum cut {
    CUT_NOTHING,
    CUT_BEFORE,    /* closes instead of passing it on: the server never sees it. */
    CUT_AFTER,     /* closes when the server has answered: it is committed, and nobody hears so. */
    CUT_AFTER_ALL, /* the same, and from then on every new connection is closed. */
    CUT_SILENT,    /* the server's answer is swallowed, the connection stays. */
};

struct cutter {
    pthread_t thread;
    int listener;
    uint16_t port;
    uint16_t server;
    _Atomic int next; /* enum cut; CUT_NOTHING again when it was done. */
    _Atomic bool closed;
    _Atomic bool stopping;
};

void cutter_start(struct cutter *c, uint16_t server_port);
void cutter_stop(struct cutter *c);
