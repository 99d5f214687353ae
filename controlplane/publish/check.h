/*
 * check: the whole snapshot loaded in a child, before anything is signed.
 *
 * Shape      the manifest (without signatures) and its chunks are written as the records of a
 *            node's pack into a directory of its own, and `trilane-dp check FILE` is run over it.
 *            What would crash a node crashes that child.
 * Units      milliseconds.
 * Threads    the publisher's and the reader's; each check has its own directory.
 * Errors     E_CHECK_FAILED with what the child said; E_CHECK_MISSING when it cannot be run;
 *            E_TIMEOUT; E_IO.
 * Source     docs/control-plane.md, "The check".
 */
#pragma once

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/snapshot/cut.h"
#include "common/snapshot/format.h"

enum { CP_CHECK_TIMEOUT_MS = 60000 };

struct cp_check {
    const char *program;     /* path of trilane-dp; "off": nothing is checked. */
    const char *directory;   /* where the check's own directory is made. */
    const char *environment; /* name. */
    struct slice manifest;   /* container without signatures. */
    const struct cut_stream *streams;
    size_t stream_count;
};

/*
 * Names what the check loads, and what loads it: the same name, the same answer. The manifest's
 * version and time are no part of it, nor is what is only there to explain.
 */
MUST_CHECK struct err cp_check_digest(const struct cp_check *check, uint64_t capabilities,
                                      uint8_t out[DIGEST_SIZE]);

/* Runs the check. 'message' gets the end of what the child wrote when it refuses. */
MUST_CHECK struct err cp_check_run(const struct cp_check *check, struct buf *message);

/* E_CHECK_MISSING unless the program is there and may be run ("off" is fine). */
MUST_CHECK struct err cp_check_program(const char *program);
