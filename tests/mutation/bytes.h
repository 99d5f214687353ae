/*
 * bytes: what is done to the bytes of a document, and which part of a container it hit.
 */
#pragma once

#include "common/base/buf.h"
#include "common/snapshot/format.h"

#include "tests/mutation/dice.h"

/* Parts of a container, as a set. */
enum bytes_part {
    PART_HEADER = 1, /* magic, format, kind, count, size, reserved; or one key signs twice. */
    PART_ENVIRONMENT = 2,
    PART_SIGNATURES = 4,
    PART_BODY = 8,
    PART_SIZE = 16, /* it is longer, or shorter. */
};

/* Flips bits, or sets a run of bytes: the size stays. */
void bytes_change(struct dice *d, struct buf *b);

/* Cuts the end off, or adds some. */
void bytes_resize(struct dice *d, struct buf *b);

/* The same to the body of a container alone, whose header then says its size. */
void bytes_reframe(struct dice *d, struct buf *b);

/* The parts in which two containers differ; 0: they are the same bytes. */
unsigned bytes_parts(struct slice original, struct slice b);

/* The code that a container must be refused by, once it differs in 'parts'. 'body' is that of a
 * changed body. */
struct bytes_codes {
    enum err_code malformed;
    enum err_code environment;
    enum err_code signature;
    enum err_code body;
};
enum err_code bytes_code(unsigned parts, const struct bytes_codes *codes);
