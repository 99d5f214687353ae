/*
 * settings: what a program was told, by flag, environment and file.
 *
 * Shape      a table of rows made by the program, and every row of LIMITS_LIST. A flag
 *            (--nats-urls X or --nats-urls=X) wins over the environment (TRILANE_NATS_URLS), which
 *            wins over a line "nats-urls: X" of --config FILE, which wins over the default.
 * Ownership  settings own their text; settings_get() borrows until settings_free().
 * Threads    loaded once by main(); read-only afterwards.
 * Errors     E_USAGE with one sentence that names the setting, where it came from, what was found,
 *            what was expected, and the nearest right name.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/base/buf.h"
#include "common/base/err.h"

enum setting_kind {
    SETTING_TEXT, /* of several flags the last one holds. */
    SETTING_FLAG,
    SETTING_LIST, /* with commas; several flags are one list. */
};

struct setting_row {
    const char *name;  /* "nats-urls". */
    const char *value; /* what --help calls it ("URL,…"); NULL for a flag without a value. */
    const char *dflt;  /* NULL: unset. */
    const char *help;  /* one sentence. */
    enum setting_kind kind;
};

struct settings;

/*
 * Reads argv (without the program and the subcommand), the environment and --config.
 * Arguments that are no flags are left to settings_arg(). Writes the limits into 'limits'.
 * On failure 'message' holds the sentence.
 */
MUST_CHECK struct err settings_load(const struct setting_row *rows, size_t row_count, int argc,
                                    char **argv, struct settings **out, struct buf *message);
void settings_free(struct settings *s);

/* The value of a row of the table, or NULL when it is unset. 'name' must be a row. */
const char *settings_get(const struct settings *s, const char *name);

/* Whether that value stands on the command line, where everybody on the machine can read it. */
bool settings_by_flag(const struct settings *s, const char *name);

/* Whether a SETTING_FLAG was given (in environment and file: "true"). */
bool settings_flag(const struct settings *s, const char *name);

/* The arguments that are no flags, in order; NULL past the end. */
const char *settings_arg(const struct settings *s, size_t index);

/* Writes rows as --help shows them. */
MUST_CHECK struct err settings_help(const struct setting_row *rows, size_t row_count,
                                    struct buf *out);
/*
 * Writes the limits, which every command takes, as far as their names begin with a word of 'which',
 * "source-|policy-nodes"; NULL: all, a page of them, so for those that need them.
 */
MUST_CHECK struct err settings_help_limits(const char *which, struct buf *out);
