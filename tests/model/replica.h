/*
 * replica: one control plane of the trio, wired as trilane-cp serve wires it: the real leader,
 * fleet, workers and cosigner. Its signer judges by the real state file and signs by real keys, but
 * lives in this process.
 */
#pragma once

#include "controlplane/publish/cosign.h"
#include "controlplane/publish/recover.h"

#include "tests/model/machine.h"

enum { REPLICA_PATH = 256 };

/* A request to the API of a replica, and its answer. */
struct api_call {
    struct cp_task task; /* first: a task is cast to its call. */
    struct cp_work work;
    unsigned generation; /* of the database, when it was made. */
    bool done;
};

struct replica {
    struct machine machine; /* first. */
    unsigned index;
    char name[8];
    char directory[REPLICA_PATH];
    struct key_pair manifest_key;
    struct key_pair head_key;
    bool stops;             /* SIGTERM was sent. */
    bool signer_dies;       /* its process is killed, once. */
    struct api_call *inbox; /* the next request; NULL: none. */
    /* Of its present life. */
    struct bus *bus;
    struct cp_roots *roots;
    struct cp_signer *signer;
    struct cp_leader *leader;
    struct cp_fleet *fleet;
    struct cp_collector *collector;
    struct cp_shelf *shelf;
    struct cp_worker *publisher;
    struct cp_worker *signatory;
    struct cp_cosigner *cosigner;
};

/* Makes its keys and its directory below 'directory'. */
void replica_init(struct replica *replica, unsigned index, const char *directory);

/* New keys of that number lie in its files: its signer takes them with the root that knows them. */
void replica_rekey(struct replica *replica, unsigned number);

void replica_start(struct replica *replica);

/* SIGTERM. */
void replica_stop(struct replica *replica);
