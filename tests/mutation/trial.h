/*
 * trial: one input, what it may be refused for, and what became of it.
 *
 * Shape      a kind makes an input from its dice, hands it to the real code, and says what that
 *            answered. Whatever is not a refusal by a code of its kind ends the program.
 */
#pragma once

#include "tests/mutation/dice.h"
#include "tests/mutation/world.h"

struct node;
struct plane;

enum { TRIAL_INPUTS = 4, TRIAL_WHAT = 96 };

struct trial {
    struct dice dice;
    struct world *world;
    struct world *worlds;  /* all of them, of one generation. */
    struct node *node;     /* the world's. */
    struct plane *plane;   /* the world's control plane. */
    char what[TRIAL_WHAT]; /* was done to the input. */
    /* Of the input, for who wants to see it: borrowed until the trial is judged. */
    struct {
        const char *name;
        struct buf bytes;
    } inputs[TRIAL_INPUTS];
    size_t input_count;
    enum err_code
        wanted; /* the one code that this very input must have; E_OK: any of the kind's. */
    enum err_code got;
    bool idle; /* it came out as a valid document: not counted. */
};

/* Says what was done to the input. */
void trial_says(struct trial *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Keeps a part of the input: the caller fills it. */
struct buf *trial_input(struct trial *t, const char *name);

/* Ends the program: it was accepted, or something changed. */
_Noreturn void trial_fail(const struct trial *t, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Another world than the trial's. */
struct world *trial_other(struct trial *t);

typedef void trial_fn(struct trial *t);

enum { TRIAL_CODES = 10 };

/* Codes behind it may never come. */
#define TRIAL_RARE E_COUNT

struct trial_kind {
    const char *name;
    trial_fn *run;
    unsigned weight;                  /* how often, against the others. */
    enum err_code codes[TRIAL_CODES]; /* what it may be refused for; each up to TRIAL_RARE comes. */
};

/* Ends with a kind without a name. */
extern const struct trial_kind head_kinds[];
extern const struct trial_kind root_kinds[];
extern const struct trial_kind manifest_kinds[];
extern const struct trial_kind chunk_kinds[];
extern const struct trial_kind plane_kinds[];
extern const struct trial_kind file_kinds[];
