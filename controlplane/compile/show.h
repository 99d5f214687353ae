/*
 * show: a field's value as people write it: "5000/s", "250ms", "caller, tenant".
 *
 * Ownership  the text lies in the arena.
 * Threads    any.
 * Errors     E_NO_MEMORY.
 */
#pragma once

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "common/base/err.h"
#include "controlplane/source/kinds.h"

/* Empty for what takes more than a short line. 'at' is the field's place in its struct. */
MUST_CHECK struct err cp_show_field(struct arena *arena, const struct cp_field *field,
                                    const void *at, struct slice *out);
