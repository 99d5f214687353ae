/*
 * plane: what a control plane judges by, of one world: statuses of its nodes, heads that lie in the
 * bucket, proposals and the signatures under them, and nodes that join and renew.
 *
 * Ownership  plane_new() gives what plane_free() ends.
 */
#pragma once

#include "tests/mutation/trial.h"

/* Its database and its CA lie in 'directory'. */
struct plane *plane_new(const char *directory);
void plane_free(struct plane *p);

/* The world's next generation. */
void plane_begin(struct plane *p, struct world *w);

/* Valid documents must be taken, or the program ends; how many there were. */
uint64_t plane_controls(struct plane *p);

/* A backup of its database; restores one into an empty database, which must stay so: OK is not
 * expected here. */
struct slice plane_backup(struct plane *p);
enum err_code plane_restore(struct plane *p, int fd);
