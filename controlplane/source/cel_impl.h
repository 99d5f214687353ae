/*
 * cel_impl: what the parts of the parser of a condition share: its words (cel_token.c), its grammar
 * (cel.c), comparisons by order (cel_order.c), and its normal form (cel_normal.c).
 *
 * Ownership  nodes live in the arena of the parse.
 * Errors     a parsing function that returns false has said the fault.
 */
#pragma once

#include <stdint.h>

#include "controlplane/source/cel.h"

/* ---- cel_token.c ---- */

enum cel_token {
    CEL_TOKEN_END,
    CEL_TOKEN_WORD, /* numbers, too. */
    CEL_TOKEN_TEXT,
    CEL_TOKEN_AND,
    CEL_TOKEN_OR,
    CEL_TOKEN_NOT,
    CEL_TOKEN_EQUAL,
    CEL_TOKEN_UNEQUAL,
    CEL_TOKEN_LESS,
    CEL_TOKEN_AT_MOST,
    CEL_TOKEN_GREATER,
    CEL_TOKEN_AT_LEAST,
    CEL_TOKEN_IN,
    CEL_TOKEN_DOT,
    CEL_TOKEN_COMMA,
    CEL_TOKEN_MINUS,
    CEL_TOKEN_OPEN,
    CEL_TOKEN_CLOSE,
    CEL_TOKEN_LIST_OPEN,
    CEL_TOKEN_LIST_CLOSE,
    CEL_TOKEN_OTHER, /* no token of the subset. */
};

struct cel_parsing {
    struct slice text;
    struct arena *arena;
    size_t at;    /* behind the token. */
    size_t begin; /* of the token. */
    enum cel_token token;
    struct slice value; /* of a word, or of a text without its quotes and escapes. */
    size_t depth;
    size_t node_count;
    struct cp_cel_fault fault;
    bool no_memory; /* the condition may be right: the parse ends all the same. */
};

/* Notes that an allocation failed; always false. */
static inline bool cel_no_memory(struct cel_parsing *p)
{
    p->no_memory = true;
    return false;
}

/* Says what is wrong, once, with its place in the text; always false. */
static inline bool cel_fault_at(struct cel_parsing *p, size_t at, const char *message,
                                const char *expected)
{
    if (p->fault.message == NULL) {
        p->fault = (struct cp_cel_fault){.at = at, .message = message, .expected = expected};
    }
    return false;
}

/* As cel_fault_at(), of the token. */
static inline bool cel_fault(struct cel_parsing *p, const char *message, const char *expected)
{
    return cel_fault_at(p, p->begin, message, expected);
}

/* As cel_fault(), of too much of what can be said. */
static inline bool cel_too_large(struct cel_parsing *p, const char *message, const char *expected)
{
    (void)cel_fault(p, message, expected);
    p->fault.too_large = true;
    return false;
}

/* Moves on to the next token. */
bool cel_next(struct cel_parsing *p);
/* Moves on from a token, which must be this one. */
bool cel_take(struct cel_parsing *p, enum cel_token token, const char *message,
              const char *expected);

/* ---- cel.c ---- */

enum cel_op { CEL_TEST, CEL_AND, CEL_OR, CEL_NOT, CEL_TRUE, CEL_FALSE };

struct cel_node {
    enum cel_op op;
    struct cp_cel_test test; /* of CEL_TEST. */
    struct cel_node *left;   /* of CEL_NOT, too. */
    struct cel_node *right;
};

/* An attribute as it is written; CEL_FORM_MAP: all of it, for "in". */
enum cel_form {
    CEL_FORM_PLAIN,
    CEL_FORM_CALLER_SERVICE,  /* of CP_CEL_CALLER, behind the slash. */
    CEL_FORM_REQUEST_SERVICE, /* of CP_CEL_METHOD in the operator lane, between the slashes. */
    CEL_FORM_TYPE,            /* CP_CEL_METHOD in the canonical lane. */
    CEL_FORM_MAP,
    CEL_FORM_TIME, /* the wall clock. */
};

struct cel_attribute {
    enum cp_cel_attribute is;
    enum cel_form form;
    struct slice name; /* of a trait or header. */
    size_t begin;
};

bool cel_node_new(struct cel_parsing *p, enum cel_op op, struct cel_node **out);
bool cel_test_new(struct cel_parsing *p, const struct cel_attribute *a, struct cel_node **out);
bool cel_negate(struct cel_parsing *p, struct cel_node *node, struct cel_node **out);
/* At a word that is none of true and false. */
bool cel_parse_attribute(struct cel_parsing *p, struct cel_attribute *out);
/* Whether it is a header that carries credentials: a condition may ask whether it is there, not
 * what it says. */
bool cel_is_secret(const struct cel_attribute *a);

/* ---- cel_order.c ---- */

/* Whether a comparison by order begins at the token: "int(", "size(", "timestamp(", a number. */
bool cel_begins_order(const struct cel_parsing *p);
bool cel_parse_order(struct cel_parsing *p, struct cel_node **out);
/* Behind "<attribute>.size", at its parenthesis. */
bool cel_parse_size(struct cel_parsing *p, const struct cel_attribute *a, struct cel_node **out);
/* Behind "request.time". */
bool cel_parse_time(struct cel_parsing *p, const struct cel_attribute *a, struct cel_node **out);

/* ---- cel_normal.c ---- */

/* The normal form of a tree; *out_fits is false, and *out untouched, when it is past its bounds. */
MUST_CHECK struct err cel_normal(const struct cel_node *root, struct arena *arena,
                                 struct cp_cel *out, bool *out_fits);
