/*
 * check: what resources say about each other.
 *
 * Shape      one pass over the model: doubles, references, tenants, and rules that span fields.
 *            References are resolved on the way.
 * Threads    one owner at a time.
 * Errors     E_NO_MEMORY only; the rest are diagnostics.
 */
#pragma once

#include <stdbool.h>

#include "common/base/err.h"
#include "controlplane/source/diag.h"
#include "controlplane/source/model.h"

/*
 * 'complete' is false when some resource could not be read at all: then a name that is not found
 * proves nothing, and is passed over.
 */
MUST_CHECK struct err cp_check_model(struct cp_model *model, struct cp_diags *diags, bool complete);

/* The file that 'path' names from the directory of file 'from', in the set; NULL: none. */
struct cp_source_file;
MUST_CHECK struct err cp_check_path(struct cp_model *model, uint32_t from, struct slice path,
                                    const struct cp_source_file **out);
