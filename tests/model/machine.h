/*
 * machine: a process, and the ways from it to NATS and to the database. They outlive the process.
 */
#pragma once

#include "tests/model/nats.h"
#include "tests/model/sim.h"

struct machine {
    struct sim_process process; /* first: a process is cast to its machine. */
    struct nats_link nats;
    bool database_is_cut;
};

static inline struct machine *machine_self(void)
{
    return (struct machine *)sim_self();
}
