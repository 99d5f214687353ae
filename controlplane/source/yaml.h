/*
 * yaml: the bytes of one file to a tree of nodes with places.
 *
 * Shape      built from libyaml's events. An alias shares the node of its anchor; it is counted
 *            as many nodes as that holds, so that what a walk costs is bounded before it starts.
 *            A document that does not parse is lost; the next line "---" begins anew behind it.
 * Ownership  nodes live in the arena that the caller gives.
 * Threads    one owner at a time.
 * Errors     E_NO_MEMORY only; what is wrong with the YAML is a diagnostic.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/arena.h"
#include "common/base/err.h"
#include "common/base/slice.h"
#include "controlplane/source/diag.h"

enum cp_yaml_kind { CP_YAML_SCALAR, CP_YAML_LIST, CP_YAML_MAP };

struct cp_yaml {
    enum cp_yaml_kind kind;
    bool plain;        /* a scalar without quotes. */
    bool doubtful;     /* a map: a key is there twice or is no text, so it may mean otherwise. */
    struct cp_pos at;  /* its first character. */
    struct slice text; /* of a scalar. */
    struct cp_yaml **kids; /* of a list: items; of a map: key, value, key, value … */
    size_t kid_count;
    uint64_t weight; /* nodes in it, itself and what aliases stand for counted. */
    uint32_t height; /* levels in it; a scalar has one. */
};

struct cp_yaml_document {
    struct cp_yaml *root; /* NULL: it does not parse. */
    struct slice text;    /* its lines. */
};

struct cp_yaml_documents {
    struct cp_yaml_document *items; /* those that are not empty. */
    size_t count;
};

/*
 * Parses file 'file' of the diagnostics' set. 'budget' is the number of nodes that may still come;
 * it is lowered by what came. 0: an error said so already, and the file is lost without a word.
 */
MUST_CHECK struct err cp_yaml_parse(struct cp_diags *diags, uint32_t file, struct arena *arena,
                                    uint64_t *budget, struct cp_yaml_documents *out);

/* The value of a key of a map, or NULL. */
const struct cp_yaml *cp_yaml_get(const struct cp_yaml *map, const char *key);

/* What a node is, for messages: "a list", "a number", "the text \"abc\"". Bounded. */
struct slice cp_yaml_describe(const struct cp_yaml *node, char *out, size_t size);

/* What YAML's core schema makes of a scalar without quotes. */
enum cp_yaml_plain { CP_YAML_TEXT, CP_YAML_NULL, CP_YAML_BOOL, CP_YAML_NUMBER };
enum cp_yaml_plain cp_yaml_resolve(const struct cp_yaml *node);
