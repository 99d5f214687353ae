/*
 * source: YAML files to a checked model of the platform.
 *
 * Shape      a source set is a list of (file name, bytes): YAML files (*.yaml, *.yml) and what
 *            they refer to (descriptor sets). cp_source_load() parses, types, defaults and checks
 *            all of them and either gives a model without a fault or says all that is wrong.
 * Units      bytes.
 * Ownership  a set owns its names and bytes. A model owns what it says but for the bytes of
 *            descriptor sets, and borrows the set for places: the set outlives the model.
 * Threads    one owner at a time.
 * Errors     E_SOURCE_INVALID with the reasons in the diagnostics; E_NO_MEMORY; E_IO.
 * Source     docs/resources.md; the table behind it is controlplane/source/kinds.c.
 */
#pragma once

#include <stddef.h>

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/map.h"
#include "common/base/slice.h"
#include "controlplane/source/diag.h"

struct cp_model; /* controlplane/source/model.h */

struct cp_source_file {
    struct slice name;  /* relative path with '/', as diagnostics show it; NUL behind it. */
    struct slice bytes; /* NUL behind it. */
};

struct cp_source_set {
    struct arena arena;
    struct cp_source_file *files; /* in the order of cp_source_set_add(). */
    size_t count;
    size_t capacity;
    size_t bytes;       /* of all files. */
    struct map by_name; /* name to a size_t: its index. */
};

void cp_source_set_init(struct cp_source_set *set);
void cp_source_set_free(struct cp_source_set *set);

/*
 * Copies a file into the set. E_TOO_LARGE past limits.source_file_bytes, source_total_bytes or
 * 100,000 files; E_EXISTS for a name that is there; E_MALFORMED for a name that is empty, absolute,
 * longer than 1024 bytes, not UTF-8, or has an empty, "." or ".." segment or a control character.
 */
MUST_CHECK struct err cp_source_set_add(struct cp_source_set *set, struct slice name,
                                        struct slice bytes);

/* The file of that name, or NULL. */
const struct cp_source_file *cp_source_set_find(const struct cp_source_set *set, struct slice name);

/*
 * Adds what lies in and below a directory, in order of names: *.yaml, *.yml, *.binpb, *.desc,
 * *.pb. Hidden files and what symbolic links name outside of the directory are left out; a
 * directory may nest 16 deep. A single YAML file may be given instead; then the descriptor sets
 * beside it come with it. E_NOT_FOUND, E_IO, E_TOO_LARGE with 'message' naming the path.
 */
MUST_CHECK struct err cp_source_set_load(struct cp_source_set *set, const char *path,
                                         struct buf *message);

/*
 * Makes the model. On E_SOURCE_INVALID 'diags' holds at least one diagnostic, sorted; *out is set
 * on success only. The diagnostics must have been initialised with the same set.
 */
MUST_CHECK struct err cp_source_load(const struct cp_source_set *set, struct cp_diags *diags,
                                     struct cp_model **out);
void cp_model_free(struct cp_model *model);

/*
 * What is made from the table of kinds: the JSON Schema of one kind (a file of policies/schema/),
 * and docs/resources.md.
 */
MUST_CHECK struct err cp_source_schema(const char *kind, struct buf *out);
MUST_CHECK struct err cp_source_reference(struct buf *out);
/* Names of all kinds in order ("Environment", …); NULL past the end. */
const char *cp_source_kind(size_t index);
