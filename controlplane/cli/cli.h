/*
 * cli: what the operator's commands share: arguments, output, exit codes.
 *
 * Shape      a command reads its settings (cli_begin), does its work, and ends in one of
 *            cli_result(), cli_fail() or a code of its own. Standard output carries the result and
 *            nothing else; narration, refusals and the next command go to standard error.
 * Threads    commands are one thread; serve starts its own.
 * Source     NAMES: --output table|json|yaml everywhere, the exit codes below.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "common/base/buf.h"
#include "common/base/err.h"
#include "common/base/settings.h"

enum cli_exit {
    CLI_DONE = 0,
    CLI_REFUSED = 1,
    CLI_USAGE = 2,
    CLI_UNREACHABLE = 3,
    CLI_NOT_LIVE = 4,
    CLI_DIFFERENT = 5,
    CLI_FORCED = 6,
    CLI_UNHEALTHY = 10,
};

enum cli_format { CLI_TABLE, CLI_JSON, CLI_YAML };

struct cli_command {
    const char *name;    /* "publish", "key generate". */
    const char *args;    /* "-m MESSAGE DIRECTORY". */
    const char *summary; /* one sentence. */
    const struct setting_row *rows;
    size_t row_count;
    size_t arg_max;     /* arguments that are no flags; one more is refused. */
    bool needs_limits;  /* what it does is bounded by them: --help shows them. */
    const char *limits; /* which of them; NULL: all. */
    int (*run)(const struct cli_command *self, int argc, char **argv);
};

struct cli {
    const struct cli_command *command;
    struct settings *settings;
    enum cli_format format;
};

/* Every command's rows end with these. */
#define CLI_OUTPUT_ROW                                                                             \
    {                                                                                              \
        "output", "FORMAT", "table", "how the result is written: table, json or yaml",             \
            SETTING_TEXT                                                                           \
    }

#define CLI_SERVER_ROWS                                                                            \
    {"server", "URL,…", CLI_SERVER, "the control plane: one replica, or several", SETTING_TEXT},   \
        {"token-file", "FILE", NULL, "file of the API's token; default: data-dir/token",           \
         SETTING_TEXT},                                                                            \
        {"data-dir", "DIRECTORY", CP_DATA_DIR, "where the server keeps its files", SETTING_TEXT},  \
        {"tls-ca", "FILE", NULL, "CA of an https server; default: the system's", SETTING_TEXT},    \
        CLI_OUTPUT_ROW

#define CLI_SERVER "http://127.0.0.1:9080"
#define CP_DATA_DIR "/var/lib/trilane-cp"

/*
 * Reads the settings; --help prints the command's page. True when the command goes on; false when
 * it is over, with its exit code in *out_code. cli_end() in any case.
 */
bool cli_begin(struct cli *cli, const struct cli_command *command, int argc, char **argv,
               int *out_code);
void cli_end(struct cli *cli);

/* Defines NAME_run() around "static int NAME(const struct cli *)". */
#define CLI_RUN(name)                                                                              \
    static int name##_run(const struct cli_command *self, int argc, char **argv)                   \
    {                                                                                              \
        struct cli cli;                                                                            \
        int code = CLI_DONE;                                                                       \
        if (cli_begin(&cli, self, argc, argv, &code)) {                                            \
            code = name(&cli);                                                                     \
        }                                                                                          \
        cli_end(&cli);                                                                             \
        return code;                                                                               \
    }

#define CLI_ROWS(table) .rows = (table), .row_count = sizeof(table) / sizeof((table)[0])

/* A setting that must be there; says so and returns NULL when it is not. */
const char *cli_need(const struct cli *cli, const char *name);
/* Whether "store" may be used: a password in it must not stand on the command line. Says so. */
bool cli_store_fine(const struct cli *cli);
/* A whole number of a setting, from min to max; says so and returns false when it is none. */
bool cli_number(const struct cli *cli, const char *name, uint64_t min, uint64_t max, uint64_t *out);
/* A duration of a setting, "90s", "15m", "1h" or "7d", in milliseconds; likewise. */
bool cli_duration(const struct cli *cli, const char *name, uint64_t *out_ms);

/* Writes the result: as the table writer shows it, or the JSON as JSON or YAML. Takes 'value'. */
typedef void cli_table_fn(const json_t *value);
int cli_result(const struct cli *cli, json_t *value, cli_table_fn *table);

/* "error: CODE: sentence" and what to do about it; the exit code of the refusal. */
int cli_fail(struct err e, const char *message);
int cli_exit_of(enum err_code code);
/* The same with what a message holds. */
int cli_fail_with(struct err e, struct buf *message);
/* The same with another advice than the code's own; "" or NULL: the code's own. */
int cli_fail_fix(struct err e, const char *message, const char *fix);
/* A line of narration; the last line, which suggests the next command. */
void cli_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void cli_next(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* JSON as YAML, appended. */
MUST_CHECK struct err cli_yaml(const json_t *value, struct buf *out);

/* Text of a member, or "" when it is not there; its number, or 0. */
const char *cli_text(const json_t *object, const char *name);
json_int_t cli_int(const json_t *object, const char *name);

/* Who asks, when nobody says: the account's name, or its number. */
void cli_account(char *out, size_t size);

/* An age for people: "3s", "12m", "5h", "4d". */
enum { CLI_AGE_SIZE = 24 };
const char *cli_age(json_int_t age_ms, char out[CLI_AGE_SIZE]);

/* The command that the first words of argv name, and how many they are; NULL and 0: none. */
const struct cli_command *cli_command_find(int argc, char **argv, int *out_words);
/* All commands in the order of --help; NULL past the end. */
const struct cli_command *cli_command_at(size_t index);

/* The program: argv as main() gets it. */
int cli_run(int argc, char **argv);
