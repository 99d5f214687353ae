/*
 * nats: a NATS with JetStream as far as the control plane and the nodes use it, with all that may
 * go wrong between it and them. Behind it stand the functions of common/bus/bus.h and kv.h.
 *
 * Shape      Buckets are logs of writes with sequences; a read from any replica may be served from
 *            an older state of the log. Core messages are delivered late, twice, out of order, or
 *            never, as the faults say.
 * Units      nanoseconds of virtual time; faults per mille.
 * Ownership  bytes are copied; nothing is given back within a schedule.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/base/slice.h"
#include "common/bus/bus.h"
#include "common/bus/kv.h"

#include "tests/model/sim.h"

enum { NATS_SERVERS = 3 };

/* The way between a process and NATS; it outlives the process. */
enum nats_way {
    NATS_UP,
    NATS_LOST, /* nothing arrives anywhere. */
    NATS_DEAF, /* requests arrive, no answer and no message comes back. */
};

struct nats_link {
    enum nats_way way;
    uint64_t since_ns; /* of a way that is not up. */
};

/* A connection of a process. */
struct bus {
    struct sim_process *process;
    struct nats_link *link;
};

/* What is wrong at the moment. */
struct nats_faults {
    bool down;                  /* no server runs; what was stored stays. */
    bool full;                  /* the bucket takes nothing more. */
    bool races;                 /* conditions are judged by what was stored when a write set out. */
    unsigned unknown_per_mille; /* writes without an answer: done, done later, or not done. */
    unsigned lost_per_mille;    /* core messages that do not arrive. */
    unsigned doubled_per_mille;
    uint64_t delay_ns;  /* of a core message, at most: they pass each other. */
    uint64_t behind_ns; /* a read from any replica is so old, at most. */
};

extern struct nats_faults nats_faults;

void nats_begin(void);

/* What somebody with access to NATS can do; 'bucket' is its name. None of it fails. */
void nats_put(const char *bucket, struct slice key, struct slice value);
/* A marker: what kv_purge() and kv_delete() leave. */
void nats_mark(const char *bucket, struct slice key);
/* As a purge of the stream: no trace of the key stays. An empty key: none of any key. */
void nats_forget(const char *bucket, struct slice key);
/* Removes the bucket: whoever makes it again begins with sequence 1. */
void nats_destroy(const char *bucket);
/* Remembers a bucket's state, and brings the one that was remembered back. */
void nats_backup(const char *bucket);
void nats_restore(const char *bucket);
void nats_send(struct slice subject, struct slice payload);

/* The value of a key; false when there is none. */
bool nats_get(const char *bucket, struct slice key, struct slice *out_value);
/* What lay under a key last; false when nothing ever did. */
bool nats_ever(const char *bucket, struct slice key, struct slice *out_value);
/* A value that lay under a key at some time, of all that ever did; false when none did. */
bool nats_any_of(const char *bucket, const char *key_prefix, struct slice *out_key,
                 struct slice *out_value);

/* Every subscription of the process is silently dead from now on, until it subscribes again. */
void nats_deafen(const struct sim_process *process);
