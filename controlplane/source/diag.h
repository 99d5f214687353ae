/*
 * diag: what is wrong with the sources, where, and what would be right.
 *
 * Shape      a bounded list of diagnostics, each with a code of DIAG_LIST, a place in a file, the
 *            source line, a sentence, what was expected, and the nearest right name.
 * Units      lines and columns start at 1; a column counts characters (UTF-8), not bytes.
 * Ownership  a list owns all text of its diagnostics; they live until cp_diags_free().
 * Threads    one owner at a time.
 * Errors     past limits.source_diagnostics the rest is counted in 'dropped', not kept.
 * Source     docs/resources.md and `trilane-cp help CODE` are made from DIAG_LIST.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/arena.h"
#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/slice.h"

/*
 * number, name, meaning, what to do about it. Numbers are never used again, not even when a row
 * goes: leave the number in the list of retired ones below.
 * Retired: none.
 */
#define DIAG_LIST(X)                                                                                  \
    /* 10xx: the bytes and the YAML */                                                                \
    X(1001, FILE_SIZE, "a source file, or all of them together, is too large",                        \
      "split it, or raise source-file-bytes or source-total-bytes")                                   \
    X(1002, NOT_UTF8, "a source file is not UTF-8", "save it as UTF-8 without a byte-order mark")     \
    X(1003, TAB, "a tab in the indentation", "indent with spaces")                                    \
    X(1004, YAML_SYNTAX, "the YAML does not parse", "see the place that is named")                    \
    X(1005, TOO_DEEP, "the YAML nests too deeply", "nest less, or raise source-depth")                \
    X(1006, TOO_MANY_NODES,                                                                           \
      "the YAML has too many nodes, each alias counted as what it stands for",                        \
      "use fewer aliases, or raise source-nodes")                                                     \
    X(1007, ALIAS_UNKNOWN, "an alias names no anchor, or one that contains it",                       \
      "define the anchor earlier in the same document")                                               \
    X(1008, DUPLICATE_KEY, "a key is there twice in one mapping", "keep one of them")                 \
    X(1009, KEY_NOT_TEXT, "a key of a mapping is not plain text", "use a name as the key")            \
    X(1010, TAG, "YAML tags are not taken", "leave the tag out; the field's type is known")           \
    X(1011, FILE_UNREADABLE, "a file or directory among the sources cannot be read",                  \
      "links may lead to files below the same root; give the right to read; or hide it behind a dot") \
    /* 11xx: the shape of a resource */                                                               \
    X(1101, NOT_RESOURCE, "a document is not a resource",                                             \
      "give it apiVersion, kind, metadata and spec")                                                  \
    X(1102, API_VERSION, "the apiVersion is not one that is known", "use trilane.dev/v1")             \
    X(1103, KIND_UNKNOWN, "the kind is not one that is known", "see docs/resources.md")               \
    X(1104, KEY_UNKNOWN, "a key that this place does not have", "see docs/resources.md")              \
    X(1105, KEY_MISSING, "a required key is missing", "add it")                                       \
    X(1106, WRONG_TYPE, "a value of the wrong type", "see the type that is named")                    \
    X(1107, WRONG_UNIT, "a value without its unit, or with one that does not fit",                    \
      "write 250ms, 64KiB or 100/s")                                                                  \
    X(1108, OUT_OF_BOUND, "a value, text or list outside of its bound", "see the bound")              \
    X(1109, NOT_ENUM, "a value that is none of the choices", "use one of those named")                \
    X(1110, NAME_INVALID, "not a name", "use 1 to 63 of a-z, 0-9 and hyphen, no hyphen at an end")    \
    X(1111, FORMAT_INVALID, "a text that does not have its form", "see the form that is named")       \
    X(1112, SECRET_IN_CLEAR, "a secret in clear",                                                     \
      "give a digest (blake2b: and the hex of its BLAKE2b-256) or a reference instead; and "          \
      "change the secret, it has been seen")                                                          \
    X(1113, DUPLICATE_VALUE, "a list holds one value twice", "keep one of them")                      \
    X(1114, CHOICE,                                                                                   \
      "keys that do not go together: too few, too many, or one beside the wrong one",                 \
      "keep those that are expected")                                                                 \
    X(1115, CONDITION_INVALID, "a condition does not parse, or asks what cannot be asked",            \
      "see docs/policy.md for what a condition may say")                                              \
    X(1116, CONDITION_TOO_LARGE, "a condition says more than its bounds allow",                       \
      "say it with several rules")                                                                    \
    X(1117, WINDOW_EMPTY, "a rule that holds at no time", "see the times that are named")             \
    X(1118, FITS_NOTHING, "what fits no request of its target", "write what its requests have")       \
    /* 12xx: resources among each other */                                                            \
    X(1201, DUPLICATE_RESOURCE, "two resources of one kind, tenant and name",                         \
      "rename one of them")                                                                           \
    X(1202, REFERENCE_DANGLING, "a reference to what does not exist",                                 \
      "check the name, or define what it names")                                                      \
    X(1203, REFERENCE_FOREIGN, "a reference into another tenant that is not allowed there",           \
      "only platform resources (without metadata.tenant) reach across tenants")                       \
    X(1204, ROUTE_TIE, "two routes fit the same requests equally well",                               \
      "make one of them more precise: docs/resources.md, match precedence")                           \
    X(1205, DUPLICATE_IDENTITY, "one token digest, gRPC service or type belongs to two resources",    \
      "give it to one of them")                                                                       \
    X(1206, ENVIRONMENT_COUNT, "there must be exactly one Environment", "keep one of them")           \
    /* 13xx: what cannot be compiled */                                                               \
    X(1301, POLICY_TOO_LARGE, "the rules of a target make a too large decision graph",                \
      "use fewer globs in the rules of this target, or raise policy-nodes")                           \
    X(1302, DESCRIPTOR_MISSING, "a descriptor set is not among the sources",                          \
      "add the file; its path is relative to the YAML file")                                          \
    X(1303, DESCRIPTOR_MALFORMED, "a descriptor set does not parse, or contradicts itself",           \
      "make it with: protoc --include_imports --descriptor_set_out=FILE")                             \
    X(1304, MESSAGE_UNKNOWN, "the descriptor set does not define the message",                        \
      "check spec.message, and make the set with --include_imports")                                  \
    X(1305, PART_TOO_LARGE, "a compiled part is larger than a snapshot takes",                        \
      "split the resource")                                                                           \
    X(1306, KEY_SET_MISSING, "a key set is not among the sources",                                    \
      "add the file, NAME.jwks; its path is relative to the YAML file")                               \
    X(1307, KEY_SET_MALFORMED, "a key set does not parse, or has no key that can be used",            \
      "save what the issuer's jwks_uri answers")                                                      \
    X(1308, CA_MALFORMED, "what should be certificates in PEM is not that", "see the form")

enum cp_diag_code {
#define X(number, name, text, fix) CP_DIAG_##name = (number),
    DIAG_LIST(X)
#undef X
};

/* A place in the sources. 'line' 0: no place (the platform as a whole). */
struct cp_pos {
    uint32_t file;   /* index into the source set. */
    uint32_t line;   /* from 1. */
    uint32_t column; /* from 1. */
};

struct cp_diag {
    enum cp_diag_code code;
    struct cp_pos at;
    struct slice file;       /* name of the file; empty: the platform as a whole. */
    struct slice excerpt;    /* the source line, cut at a bound; secrets masked. */
    uint32_t caret;          /* column of the caret in the excerpt; 0: no excerpt. */
    bool secret;             /* the excerpt ends before the column. */
    struct slice message;    /* what was found: a sentence without a full stop. */
    struct slice expected;   /* what would be right; may be empty. */
    struct slice nearest;    /* the nearest right name; may be empty. */
    struct slice other_file; /* the second place, where there is one ("the other route"). */
    struct cp_pos other;
};

struct cp_source_set;

struct cp_diags {
    const struct cp_source_set *set; /* where files and lines come from; borrowed. */
    struct arena arena;
    struct cp_diag **items; /* in the order of files and lines after cp_diags_sort(). */
    size_t count;
    size_t capacity;
    size_t dropped; /* beyond limits.source_diagnostics. */
    /* The sources were published before, maybe by an earlier release: what that one took and this
     * one refuses for being of no use is passed over, and counted. */
    bool published;
    size_t passed_over;
};

/* An empty list about 'set', which must outlive it. */
void cp_diags_init(struct cp_diags *d, const struct cp_source_set *set);
void cp_diags_free(struct cp_diags *d);

/* Whether a check that an earlier release had not is passed over; call it where it would refuse. */
bool cp_diags_pass_over(struct cp_diags *d);

/*
 * Adds one diagnostic and returns it, so that its optional members can be set; the message is a
 * printf format. Never NULL: past the bound, and without memory, it is a scratch one that is
 * counted as dropped.
 */
struct cp_diag *cp_diags_add(struct cp_diags *d, enum cp_diag_code code, struct cp_pos at,
                             const char *format, ...) __attribute__((format(printf, 4, 5)));

/*
 * The same about a file or directory as a whole, which need not be in the set: then the list holds
 * a copy of its name.
 */
struct cp_diag *cp_diags_add_file(struct cp_diags *d, enum cp_diag_code code, struct slice name,
                                  const char *format, ...) __attribute__((format(printf, 4, 5)));

/* Sets 'expected' (printf), the nearest right name, and the second place. */
void cp_diag_expect(struct cp_diags *d, struct cp_diag *diag, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void cp_diag_nearest(struct cp_diags *d, struct cp_diag *diag, struct slice name);
void cp_diag_other(struct cp_diags *d, struct cp_diag *diag, struct cp_pos at);

/*
 * Says that a secret begins at the diagnostic's column: from there on its line is hidden, in the
 * excerpt of every diagnostic about the line.
 */
void cp_diag_mask(struct cp_diags *d, struct cp_diag *diag);

/* Bytes of the line break at the front of 's' (not empty) as YAML 1.1 knows them; 0: none. */
size_t cp_diag_line_break(struct slice s);

/* Orders by file name, line, column, code, and hides what is secret; before any rendering. */
void cp_diags_sort(struct cp_diags *d);

/*
 * All diagnostics for a terminal:
 *     acme/web.yaml:12:9: TL1104: key "wieght" is unknown here
 *        12 |         wieght: 3
 *           |         ^
 *           = expected: one of address, port, weight
 *           = did you mean "weight"?
 */
MUST_CHECK struct err cp_diags_text(const struct cp_diags *d, struct buf *out);

/*
 * The same as a JSON array of {code, name, file, line, column, message, expected, nearest, excerpt,
 * other, help}; members that are empty are left out.
 */
MUST_CHECK struct err cp_diags_json(const struct cp_diags *d, struct buf *out);

/* Rows of the table, for `help CODE`: "TL1104" (any case, "TL" may be missing) or false. */
struct cp_diag_row {
    enum cp_diag_code code;
    const char *name; /* "KEY_UNKNOWN". */
    const char *text;
    const char *fix;
};
bool cp_diag_find(struct slice code, struct cp_diag_row *out);
/* The rows in order of their numbers; false past the end. */
bool cp_diag_at(size_t index, struct cp_diag_row *out);
