/*
 * kept: a snapshot that the release before this one made and a node of it stored, byte for byte:
 * what format N-1 was when it was written.
 *
 * Shape      tests/golden/snapshot-1: the node's `pack` and `floor`, its status and public key, the
 *            root, a head, and the sources. Nothing of it is ever made anew.
 * Ownership  bufs are the caller's.
 * Threads    one.
 * Errors     a test that cannot read it is over.
 */
#pragma once

#include "common/base/buf.h"
#include "common/snapshot/manifest.h"
#include "common/snapshot/set.h"

#define KEPT_ENVIRONMENT "kept"

/* "…/tests/golden/snapshot-1/NAME". */
void kept_path(const char *name, char out[1024]);

/* Appends a file's bytes. */
void kept_read(const char *name, struct buf *out);

/* Copies `pack` and `floor` into a directory, as a node's state. */
void kept_copy(const char *directory);

/* The manifest, decoded; and a closed set of its chunks: the caller's. */
void kept_manifest(struct manifest *out);
struct snap_set *kept_set(void);
