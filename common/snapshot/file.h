/*
 * file: whole reads and writes of plain files.
 *
 * Threads    any.
 * Errors     E_IO, with errno as the system left it.
 */
#pragma once

#include <stdint.h>

#include "common/base/err.h"
#include "common/base/slice.h"

/* Writes all of 'bytes' at an offset; short writes go on, a signal does not end one. */
MUST_CHECK struct err file_write_at(int fd, struct slice bytes, uint64_t offset);

/* The same for two pieces, one behind the other. */
MUST_CHECK struct err file_write_two_at(int fd, struct slice first, struct slice second,
                                        uint64_t offset);

/* What was written reaches the disk, and the size of the file with it. In two calls: a kernel that
 * takes the core from nobody inside of one gives it to others between them. */
MUST_CHECK struct err file_sync(int fd);

/* Reads up to 'size' bytes at an offset; *out_size is less only at the end of the file. */
MUST_CHECK struct err file_read_at(int fd, void *out, size_t size, uint64_t offset,
                                   size_t *out_size);
