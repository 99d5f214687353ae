/*
 * compile: a checked model to the parts of a snapshot, and what differs between two of them.
 *
 * Shape      a pure function: the same resources, in any order of files and keys and with any
 *            comments, give the same bytes of every part but positions, in both formats that a
 *            release writes, whatever was compiled before. A model with errors is compiled as far
 *            as it goes, for the errors that only compiling finds.
 * Ownership  a cp_compiled owns its parts and shares inventories, which never change; it keeps
 *            nothing of the model.
 * Threads    one owner at a time; a finished cp_compiled is read-only.
 * Errors     E_SOURCE_INVALID with the reasons in the diagnostics; E_NO_MEMORY.
 * Source     proto/trilane/parts/v1/parts.proto says what each part means.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"
#include "common/snapshot/format.h"
#include "controlplane/source/diag.h"
#include "controlplane/source/source.h"

struct cp_model;
struct cp_compiled;
struct cp_reuse; /* controlplane/compile/reuse.h */

/* Kinds of streams: see parts.proto. */
enum cp_part_kind {
    CP_PART_ROUTING = 1,
    CP_PART_TRUST = 2,
    CP_PART_REVOCATIONS = 3,
    CP_PART_AUTHORISATION = 4,
    CP_PART_LIMITS = 5,
    CP_PART_TRANSPORT = 6,
    CP_PART_EGRESS = 7,
    CP_PART_SCHEMAS = 8,
    CP_PART_BUS = 9,
    CP_PART_POSITIONS = 32,
};

struct cp_part {
    uint32_t kind;       /* of the stream. */
    struct slice key;    /* unique in its stream. */
    struct slice bytes;  /* the packed message in SNAPSHOT_FORMAT; may be empty. */
    struct slice former; /* the same in SNAPSHOT_FORMAT_LEAST. */
};

/* What stands in a snapshot of 'format'. */
static inline struct slice cp_part_bytes(const struct cp_part *part, uint32_t format)
{
    return format == SNAPSHOT_FORMAT_LEAST ? part->former : part->bytes;
}

struct cp_compile_options {
    struct cp_reuse *reuse; /* takes from it what it can, and leaves what it made; NULL: none. */
    bool inventory;         /* make what cp_diff_make() compares, too. */
};

/*
 * Compiles. On E_SOURCE_INVALID 'diags' (the model's) has what was wrong with the model and what
 * compiling found, sorted; *out is untouched.
 */
MUST_CHECK struct err cp_compile(const struct cp_model *model, struct cp_diags *diags,
                                 const struct cp_compile_options *options,
                                 struct cp_compiled **out);
void cp_compiled_free(struct cp_compiled *compiled);

/* All parts, by kind and within a kind by key bytes ascending: the order of the streams. */
const struct cp_part *cp_compiled_parts(const struct cp_compiled *compiled, size_t *out_count);

/* Name of the Environment that the parts are for. */
struct slice cp_compiled_environment(const struct cp_compiled *compiled);

/* Whether it is strict about clear text and those without a credential. */
bool cp_compiled_is_strict(const struct cp_compiled *compiled);

/* What a node must be able to do: bits of CAPABILITY_LIST, each set only where the content uses it.
 */
uint64_t cp_compiled_capabilities(const struct cp_compiled *compiled);

/* Whether it was compiled with its inventory. */
bool cp_compiled_has_inventory(const struct cp_compiled *compiled);

/* The lowest snapshot format that can say it all. */
uint32_t cp_compiled_format_least(const struct cp_compiled *compiled);

/* Bytes of memory, but for inventories that others may share. */
size_t cp_compiled_bytes(const struct cp_compiled *compiled);

/*
 * Puts the revocations of a version that was published into the place of those of the sources: a
 * rollback keeps the newest. On failure 'compiled' is of no use but to be freed.
 */
MUST_CHECK struct err cp_compiled_revoke(struct cp_compiled *compiled, const struct cp_part *parts,
                                         size_t count);

/* Parses and compiles a set in one go: what the server and offline commands do. */
MUST_CHECK struct err cp_compile_set(const struct cp_source_set *set, struct cp_diags *diags,
                                     const struct cp_compile_options *options,
                                     struct cp_compiled **out);

/* ---- differences, for plan ---- */

enum cp_change_op { CP_CHANGE_ADDED, CP_CHANGE_CHANGED, CP_CHANGE_REMOVED };

struct cp_change {
    enum cp_change_op op;
    struct slice kind;     /* "Service", "Route", "rule", … */
    struct slice id;       /* "acme/web"; a rule's "acme/orders/web". */
    struct slice target;   /* id of the target that it reaches; may be empty. */
    struct slice fields;   /* of a changed one: "endpoints, traits"; may be empty. */
    struct slice sentence; /* "rule acme/orders/web added: allows call on service/acme/orders". */
    bool loosens;          /* what was refused for good is taken again. */
};

struct cp_diff {
    struct cp_change *changes; /* by kind, then id; owned. */
    size_t count;
    size_t counts[3];      /* of all changes, by op: those that are not written, too. */
    size_t loosened;       /* of all that loosen. */
    struct slice *targets; /* sorted ids of the targets whose parts differ; owned. */
    size_t target_count;
    size_t parts_added, parts_changed, parts_removed; /* positions apart. */
    struct arena arena;                               /* owns what they say. */
};

/* What 'after' changes in 'before'; 'before' NULL: everything is added. Both have inventories. */
MUST_CHECK struct err cp_diff_make(const struct cp_compiled *before,
                                   const struct cp_compiled *after, struct cp_diff *out);
void cp_diff_free(struct cp_diff *diff);

/* The changes as lines "+ …", "~ …", "- …" ("! …" for one that loosens) and a summary; as a JSON
 * object. */
MUST_CHECK struct err cp_diff_text(const struct cp_diff *diff, struct buf *out);
MUST_CHECK struct err cp_diff_json(const struct cp_diff *diff, struct buf *out);
