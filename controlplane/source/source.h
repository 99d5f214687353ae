/*
 * source: YAML files to a checked model of the platform.
 *
 * Shape      a source set is a list of (file name, bytes): YAML files (*.yaml, *.yml) and what
 *            they refer to (descriptor sets, key sets). cp_source_load() parses, types, defaults
 *            and checks all of them, says all that is wrong, and gives the model of what could be
 *            read.
 * Units      bytes.
 * Ownership  a set owns its names and bytes. A model owns what it says but for the bytes of
 *            descriptor sets and the leaves of a cache, and borrows the set for places: set and
 *            cache outlive the model.
 * Threads    one owner at a time.
 * Errors     E_NO_MEMORY; E_IO. What is wrong with the sources is in the diagnostics.
 * Source     docs/resources.md; the table behind it is controlplane/source/kinds.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/map.h"
#include "common/base/slice.h"
#include "controlplane/source/diag.h"

struct cp_model;        /* controlplane/source/model.h */
struct cp_source_cache; /* controlplane/source/cache.h */

struct cp_source_file {
    struct slice name;  /* relative path with '/', as diagnostics show it; NUL behind it. */
    struct slice bytes; /* NUL behind it. */
};

/* A file or directory that is there and cannot be taken. */
struct cp_unread {
    struct slice name; /* as that of a file. */
    struct slice why;  /* "a symbolic link that leads out of the sources". */
    struct slice fix;  /* what would be right. */
    enum cp_diag_code code;
};

struct cp_source_set {
    struct arena arena;
    struct cp_source_file *files; /* in the order of cp_source_set_add(). */
    size_t count;
    size_t capacity;
    size_t bytes;       /* of all files. */
    struct map by_name; /* name to a size_t: its index. */
    struct cp_unread *unread;
    size_t unread_count;
    size_t unread_capacity;
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
 * *.pb, *.jwks. Hidden files are left out; a directory may nest 16 deep. A single YAML file may be
 * given instead; then what lies beside it and is no YAML comes with it. A symbolic link to a file
 * that lies below the directory is followed. What is there and cannot be taken (another link, a
 * pipe, no permission, too large) is noted in set->unread. E_NOT_FOUND and E_IO for the path
 * itself, with 'message' naming it.
 */
MUST_CHECK struct err cp_source_set_load(struct cp_source_set *set, const char *path,
                                         struct buf *message);

/* Adds a diagnostic for each unread one. */
void cp_source_unread(const struct cp_source_set *set, struct cp_diags *diags);
/* Whether a file of that name could not be taken, or a directory that it lies in. */
bool cp_source_is_unread(const struct cp_source_set *set, struct slice name);

/* What the end of a name says. */
bool cp_source_is_yaml(struct slice name);
bool cp_source_is_data(struct slice name);

/*
 * Makes the model of what could be read, with *out set on success. What is wrong is added to
 * 'diags', unsorted; only a model without a diagnostic is fit to be published. The diagnostics
 * must have been initialised with the same set. Files that 'cache' (NULL: none) knows are not
 * parsed again: the model and what is said of it are the same.
 */
MUST_CHECK struct err cp_source_load(const struct cp_source_set *set, struct cp_diags *diags,
                                     struct cp_source_cache *cache, struct cp_model **out);
void cp_model_free(struct cp_model *model);

/*
 * What is made from the table of kinds: the JSON Schema of one kind (a file of policies/schema/),
 * and docs/resources.md.
 */
MUST_CHECK struct err cp_source_schema(const char *kind, struct buf *out);
MUST_CHECK struct err cp_source_reference(struct buf *out);
/* Names of all kinds in order ("Environment", …); NULL past the end. */
const char *cp_source_kind(size_t index);
