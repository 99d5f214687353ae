/*
 * decode: a node of YAML to a typed struct, as the table of kinds says.
 *
 * Shape      one walk over table and tree together; everything wrong is a diagnostic and the walk
 *            goes on, so that one load shows all of it. A wrong key that is near to one that is
 *            not given is read as that one; other wrong keys leave defaults unset, since one of
 *            them may be what was meant.
 * Ownership  what is made lives in the arena.
 * Threads    one owner at a time.
 * Errors     E_NO_MEMORY only.
 */
#pragma once

#include "common/base/arena.h"
#include "common/base/err.h"
#include "controlplane/source/diag.h"
#include "controlplane/source/form.h"
#include "controlplane/source/kinds.h"
#include "controlplane/source/yaml.h"

struct cp_decode {
    struct cp_diags *diags;
    struct arena *arena;
    const struct cp_forms *forms;
    size_t doubts; /* maps that were refused when they were parsed. */
};

/* Grows with everything that is wrong: what is the same before and after had no fault. */
size_t cp_decode_faults(const struct cp_decode *d);

/* Fills a struct from a mapping; 'node' NULL stands for an empty one at 'at'. */
MUST_CHECK struct err cp_decode_shape(struct cp_decode *d, const struct cp_shape *shape,
                                      const struct cp_yaml *node, struct cp_pos at, void *out);

/* The name nearest to a wrong one: offer all, then read 'best' (empty: none is near). */
struct cp_near {
    struct slice wanted;
    struct slice best;
    size_t distance;
};
struct cp_near cp_near_to(struct slice wanted);
void cp_near_offer(struct cp_near *near, struct slice name);
