/*
 * disk_rig: a few versions, and directories with a node's disk in them, for the tests of disk.
 *
 * Shape      versions 1 to 4 of the fixture, one part changed in each, made once a program.
 * Ownership  whoever opens a disk closes it.
 * Errors     none: what fails here fails the test.
 */
#pragma once

#include "common/snapshot/disk.h"

#include "fixture.h"

/* A read that fails, as a disk or a machine short of memory has it; the program that sets it wraps
 * file_read_at(). */
struct bad_read {
    unsigned countdown; /* reads that go well before it. */
    enum err_code code; /* E_OK: none fails. */
};
extern struct bad_read bad_read;

enum { PARTS = 120, VERSIONS = 4 };

extern struct fx fx;
extern struct fx_version versions[VERSIONS]; /* numbers 1 to 4. */

int disk_rig_setup(void **state);
int disk_rig_teardown(void **state);

struct disk_options options_of(const char *directory);

/* Commits a version and makes room, as behind a swap. */
struct err apply(struct disk *d, const struct fx_version *v);

/* Opens with everything else dead: only --trust-root is left out as well. */
struct disk *open_alone(const char *directory);

/* Whether the set holds the bytes of the version, part by part. */
void assert_same_content(const struct snap_set *set, const struct fx_version *v);

/* Starts and gives the version that is served, its content checked. */
uint64_t start_version(struct disk *d);

/* Version 1 is there, and is good. */
void make_first_good(const char *directory);

/* Versions 2 to 11 follow it, none of them proved: most of the pack is garbage. */
void make_garbage(const char *directory);

/* A file of the directory, whole. */
void read_file(const char *directory, const char *name, struct buf *out);
void write_file(const char *directory, const char *name, struct slice bytes);
