/*
 * files: what ceremonies read and write: small files, whole, never half.
 *
 * Threads    commands, and a server at its start.
 * Errors     E_NOT_FOUND, E_EXISTS, E_TOO_LARGE, E_IO.
 */
#pragma once

#include <stdbool.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"

enum { CP_PATH_SIZE = 4096 };

/* Appends what is in a file, up to the bound of 'out'. */
MUST_CHECK struct err cp_file_read(const char *path, struct buf *out);

/* Writes a file that is not there yet, synced. */
MUST_CHECK struct err cp_file_write_new(const char *path, struct slice bytes);

/* Puts a file in the place of another one: aside, synced, renamed. */
MUST_CHECK struct err cp_file_replace(const char *path, struct slice bytes);

/* Makes a directory for its owner alone, unless it is there. */
MUST_CHECK struct err cp_directory_make(const char *path);

/* Takes the next item off a comma-separated list; false at its end. */
bool cp_list_next(struct slice *rest, char out[CP_PATH_SIZE]);

/* On a failure says "PATH: what it means", of E_IO what the system said, unless something was said
 * already; passes it on. */
MUST_CHECK struct err cp_file_say(struct err e, const char *path, struct buf *message);
