/*
 * issuer: the part that says whose tokens prove who calls.
 *
 * Ownership  what is decoded borrows from the part, and goes with it.
 * Threads    the apply thread.
 * Errors     PART_MALFORMED, E_NO_MEMORY.
 * Source     proto/trilane/parts/v1/parts.proto, Issuer; docs/tokens.md.
 */
#pragma once

#include "dataplane/apply/part.h"

/* Fills part->as.issuer from its message. */
MUST_CHECK struct err dp_issuer_decode(struct dp_part *part,
                                       const struct dp_environment *environment);
