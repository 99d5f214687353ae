/*
 * cel: the condition of a rule: a subset of CEL, parsed, typed, and brought into one normal form.
 *
 *     or       = and { "||" and }
 *     and      = not { "&&" not }
 *     not      = { "!" } relation
 *     relation = value [ ("==" | "!=") value | "in" (list | map) | "." method "(" text ")" ]
 *              | number order integer | integer order number
 *              | "request.time" before instant | instant before "request.time"
 *     order    = before | "==" | "!="
 *     before   = "<" | "<=" | ">" | ">="
 *     number   = ("int" | "size") "(" attribute ")" | attribute "." "size" "(" ")"
 *              | "request.time" "." ("getHours" | "getDayOfWeek") "(" [ offset ] ")"
 *     integer  = [ "-" ] digits, of 64 bits
 *     instant  = "timestamp" "(" text ")", in UTC, of whole seconds
 *     offset   = text: "+01:00"
 *     value    = text | "true" | "false" | attribute | "(" or ")"
 *     list     = "[" [ text { "," text } ] "]"
 *     map      = "request.headers" | "caller.traits"
 *     attribute= "caller.id" | "caller.tenant" | "caller.service" | "caller.trustDomain"
 *              | "request.method" | "request.service" | "lane" | "verb" | "type"
 *              | map "[" text "]" | map "." identifier
 *     method   = "startsWith" | "endsWith" | "contains"
 *     text     = "'" … "'" | '"' … '"', with \\ \' \" and no other escape
 *
 * Shape      the normal form is an "or" of "and"s of tests, each of one attribute: the decision
 *            graph knows no other. A negation stands at the tests.
 * Ownership  everything lives in the arena, and borrows from nothing.
 * Threads    one owner at a time.
 * Errors     a text that does not parse, or says what the subset does not have, is a fault with its
 *            place; so is a normal form past its bound. E_NO_MEMORY. As a policy is evaluated: the
 *            value of a header or trait that is not there is an error, which && and || take over
 *            as CEL says (false && error is false). A rule whose condition ends in an error does
 *            not allow, and does deny.
 * Source     the CEL specification, cel-spec/doc/langdef.md; without arithmetic, an order of texts,
 *            regular expressions and macros: what is left costs no more than its tests.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/arena.h"
#include "common/base/err.h"
#include "common/base/slice.h"
#include "controlplane/source/schedule.h"

enum {
    CP_CEL_BYTES_MAX = 4096,
    CP_CEL_DEPTH_MAX = 32,
    CP_CEL_NODES_MAX = 256,
    CP_CEL_TEXT_MAX = 256,
    CP_CEL_LIST_MAX = 256,
    CP_CEL_ANY_MAX = 64, /* "and"s of the normal form. */
    CP_CEL_ALL_MAX = 24, /* tests of one of them. */
};

enum cp_cel_attribute {
    CP_CEL_CALLER, /* "<tenant>/<service>". */
    CP_CEL_TENANT,
    CP_CEL_DOMAIN,
    CP_CEL_TRAIT,
    CP_CEL_METHOD,
    CP_CEL_HEADER,
    CP_CEL_LANE,
    CP_CEL_VERB,
    CP_CEL_TIME, /* of no request: whether 'schedule' holds. */
};

/* What of a value is compared. */
enum cp_cel_measure {
    CP_CEL_ITSELF,
    CP_CEL_SIZE, /* its number of characters. */
    CP_CEL_INT,  /* the integer that it says; an error when it says none. */
};

/*
 * Holds when the value is one of 'exact' or fits one of 'globs'; of a measure, when it is one of
 * those from 'least' to 'most'; of CP_CEL_TIME, while 'schedule' holds; with 'negate' when not.
 * Each text has a NUL behind it.
 */
struct cp_cel_test {
    enum cp_cel_attribute attribute;
    bool negate;
    bool presence;     /* it asks whether there is a value: never an error. */
    struct slice name; /* of the trait or header. */
    struct slice *exact;
    size_t exact_count;
    struct slice *globs;
    size_t glob_count;
    enum cp_cel_measure measure;
    int64_t least;
    int64_t most;
    const struct cp_schedule *schedule;
};

struct cp_cel_all {
    const struct cp_cel_test **tests; /* none: true. */
    size_t count;
};

/* Holds when one of 'any' does; none: false. */
struct cp_cel {
    struct cp_cel_all *any;
    size_t count;
};

/* What is wrong. 'message' is a sentence without a full stop, NULL: nothing. */
struct cp_cel_fault {
    size_t at;      /* byte of the text. */
    bool too_large; /* it says what can be said, but too much of it. */
    bool secret;    /* a secret in clear stands there. */
    const char *message;
    const char *expected; /* may be NULL. */
};

/* Parses and types a condition. A fault is told by 'out_fault', and *out is untouched. */
MUST_CHECK struct err cp_cel_parse(struct slice text, struct arena *arena, struct cp_cel *out,
                                   struct cp_cel_fault *out_fault);
