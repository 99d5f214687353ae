/*
 * decode_scalar: single values, for decode.c; how numbers are written, for docs and differences,
 * too. Each decoder adds a diagnostic and leaves *out.
 */
#pragma once

#include "controlplane/source/decode.h"

/* Says what was found where 'expected' should be. */
void cp_refuse_type(struct cp_decode *d, const struct cp_yaml *node, const char *expected);
/* Says that a value looks like a secret, without showing it. */
void cp_refuse_secret(struct cp_decode *d, struct cp_pos at, const char *what);

/* Texts are copied: the YAML goes when its file is read. E_NO_MEMORY. */
MUST_CHECK struct err cp_decode_text(struct cp_decode *d, const struct cp_field *field,
                                     const struct cp_yaml *node, struct cp_text *out);
MUST_CHECK struct err cp_decode_port(struct cp_decode *d, const struct cp_yaml *node,
                                     struct cp_text *out);
/* CP_TYPE_COUNT, _BOOL, _DURATION, _SIZE, _RATE and _QUOTA. */
void cp_decode_number(struct cp_decode *d, const struct cp_field *field, const struct cp_yaml *node,
                      uint64_t *out);
/* Index of the choice; false when it is none. */
bool cp_decode_choice(struct cp_decode *d, const struct cp_field *field, const struct cp_yaml *node,
                      uint64_t *out);

/* Units of a type, and what a value with a unit looks like: for docs and schemas, too. */
const char *cp_unit_pattern(enum cp_type type);
const char *cp_unit_text(enum cp_type type);

/* A number as people write it: a duration or size in the largest unit that leaves no rest. */
MUST_CHECK struct err cp_number_text(struct buf *out, enum cp_type type, uint64_t value);
