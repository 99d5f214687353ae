/*
 * cel_impl: the tree between the parser of a condition (cel.c) and its normal form (cel_normal.c).
 *
 * Ownership  nodes live in the arena of the parse.
 */
#pragma once

#include "controlplane/source/cel.h"

enum cel_op { CEL_TEST, CEL_AND, CEL_OR, CEL_NOT, CEL_TRUE, CEL_FALSE };

struct cel_node {
    enum cel_op op;
    struct cp_cel_test test; /* of CEL_TEST. */
    struct cel_node *left;   /* of CEL_NOT, too. */
    struct cel_node *right;
};

/* The normal form of a tree; *out_fits is false, and *out untouched, when it is past its bounds. */
MUST_CHECK struct err cel_normal(const struct cel_node *root, struct arena *arena,
                                 struct cp_cel *out, bool *out_fits);
