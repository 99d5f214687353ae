/*
 * database: the real store over a SQLite file, with a network between it and the replicas, and a
 * clock of its own.
 *
 * Shape      cp_store_open() is taken over by the linker: it gives a store whose operations are the
 *            real ones, behind what may go wrong on the way. An operation itself does not wait, so
 *            that it is one transaction as it is in a database.
 */
#pragma once

#include <stdbool.h>

#include "controlplane/store/store.h"

#include "tests/model/sim.h"

struct database_faults {
    bool down;
    unsigned unknown_per_mille; /* writes without an answer, done or not. */
};

extern struct database_faults database_faults;
extern struct sim_clock database_clock;

/* Makes the database; it lies in a file of that directory. */
void database_begin(const char *directory);

/* For cp_leader_options and workers. */
const char *database_url(void);

/* Remembers all that it holds, and brings that back. */
void database_backup(void);
void database_restore(void);

/* How often it was restored: what came behind the backup may come again. */
unsigned database_generation(void);

/* The real store, for who looks from outside; its clock must be borrowed. */
struct cp_store *database_store(void);
