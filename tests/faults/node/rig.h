/*
 * rig: a real nats-server, a real trilane-dp, and a publisher in this process that can make any
 * bytes; for tests of a node's snapshot pipeline.
 *
 * Shape      everything lies in one directory below /tmp, on free ports of the loopback.
 * Errors     a rig that cannot be set up ends the test program with a message.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/bus/bus.h"
#include "common/bus/kv.h"
#include "common/snapshot/status.h"

#include "tests/support/publisher.h"

/* How heads go out. */
enum rig_way { RIG_BOTH, RIG_PUT, RIG_HINT };

struct rig {
    enum rig_way way;
    char directory[128];
    struct publisher publisher;
    struct key_pair node_key;
    uint16_t nats_port;
    uint16_t admin_port;
    uint16_t listen_port;
    uint16_t echo_port; /* where acme/orders listens. */
    pid_t nats;
    pid_t node;
    pid_t echo; /* serves acme/orders while there is traffic. */
    pid_t load; /* calls it through the node. */
    struct bus *bus;
    struct kv snapshots;
    struct kv nodes;
    uint64_t epoch;
    uint64_t sequence;         /* of the last honest head. */
    uint64_t version;          /* of the last honest version. */
    uint64_t file_bytes_max;   /* RLIMIT_FSIZE of the node; 0: none. */
    unsigned fetch_timeout_ms; /* of the node. */
    const char *log_level;     /* of the node. */
};

void rig_start(struct rig *r);
void rig_end(struct rig *r);

void rig_nats_start(struct rig *r);
void rig_nats_kill(struct rig *r);

/* Forgets all that the server stored, while it is down. */
void rig_nats_wipe(struct rig *r);
void rig_buckets(struct rig *r);

/* 'fault': TRILANE_FAULT, or NULL. */
void rig_node_start(struct rig *r, const char *fault);
void rig_node_kill(struct rig *r);

/* SIGTERM; the exit code. */
int rig_node_stop(struct rig *r);

/* Whether the node's process has ended by itself; reaps it. */
bool rig_node_died(struct rig *r);

/* Publishes the next honest version, whose content differs by web's port, and a head to it. */
void rig_publish(struct rig *r);

/* Another honest head to the last version: the heartbeat. */
void rig_heartbeat(struct rig *r);

/* Puts bytes as the head and sends them as a hint, or one of both, as rig.way says. */
void rig_head_bytes(struct rig *r, struct slice bytes);

/* Signs a head; epoch 0 is the rig's, and a sequence of 0 the next one. */
void rig_head(struct rig *r, struct head_plan *plan);

/* ---- steady calls ---- */

/* Calls acme/orders through the node, RIG_CALLS_PER_S, until rig_traffic_end(), which ends the
 * test program unless every call had its answer, the right one. The node must serve. */
enum { RIG_CALLS_PER_S = 200 };
void rig_traffic_start(struct rig *r);
void rig_traffic_end(struct rig *r);

/* ---- what the node says ---- */

struct rig_dump {
    uint64_t version;
    char state[32];
    char code[64];
    char last_refusal[64];
    uint64_t refusals;
    uint64_t live;
    uint64_t root_version;
};

/* False when nobody answers. */
bool rig_dump(struct rig *r, struct rig_dump *out);
bool rig_ready(struct rig *r);

/* The value of a metric's line that begins with this text; -1: there is none. */
double rig_metric(struct rig *r, const char *line);
bool rig_log_has(struct rig *r, const char *text);

/* The status in KV, verified; false when there is none. */
bool rig_status(struct rig *r, struct status *out);

/* Waits up to a minute; prints what there is and ends the program when it does not come. */
void rig_wait_version(struct rig *r, uint64_t version);
void rig_wait_state(struct rig *r, const char *state);
void rig_wait_refusal(struct rig *r, const char *code, uint64_t refusals_before);
void rig_wait_status(struct rig *r, uint64_t version, enum snap_state state);
void rig_wait_status_code(struct rig *r, enum err_code code);
