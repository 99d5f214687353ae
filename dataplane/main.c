/*
 * trilane-dp: a node of the data plane. Wiring only: which subcommand, which lanes, which exit
 * code; what they do is in the rooms.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/buf.h"
#include "common/base/ids.h"
#include "common/base/log.h"
#include "common/base/settings.h"
#include "common/base/version.h"
#include "common/net/ask.h"
#include "common/snapshot/format.h"
#include "dataplane/admin/ask.h"
#include "dataplane/admin/dump.h"
#include "dataplane/admin/show.h"
#include "dataplane/apply/check.h"
#include "dataplane/canonical/canonical.h"
#include "dataplane/join/join.h"
#include "dataplane/operator/operator.h"
#include "dataplane/proxy/proxy.h"
#include "dataplane/runtime/node.h"

enum exit_code { EXIT_DONE = 0, EXIT_REFUSED = 1, EXIT_USAGE = 2, EXIT_UNREACHABLE = 3 };

enum { MESSAGE_MAX = 4096, ANSWER_MAX = 16 << 20, TOKEN_MAX = 1024 };

/* The lanes of this program. */
static const struct dp_lane *const lanes[DP_LANE_COUNT] = {
    [DP_LANE_OPERATOR] = &dp_operator_lane,
    [DP_LANE_CANONICAL] = &dp_canonical_lane,
    [DP_LANE_PROXY] = &dp_proxy_lane,
};

struct command {
    const char *name;
    const char *arguments;
    const char *help;
    const struct setting_row *rows;
    const size_t *row_count;
    int (*run)(const struct settings *s);
    bool needs_limits; /* what the command does is bounded by them. */
};

/* ---- settings of the small commands ---- */

static const struct setting_row check_rows[] = {
    {"environment", "NAME", NULL, "the environment that the snapshot is for", SETTING_TEXT},
};
static const size_t check_row_count = sizeof(check_rows) / sizeof(check_rows[0]);

static const struct setting_row dump_rows[] = {
    {"server", "ADDR", "127.0.0.1:8082", "the node's admin address", SETTING_TEXT},
    {"admin-token-file", "FILE", NULL, "the token that it asks for", SETTING_TEXT},
};
static const size_t dump_row_count = sizeof(dump_rows) / sizeof(dump_rows[0]);

static const struct setting_row trace_rows[] = {
    {"server", "ADDR,…", "127.0.0.1:8082", "admin addresses of nodes, asked in turn", SETTING_TEXT},
    {"admin-token-file", "FILE", NULL, "the token that they ask for", SETTING_TEXT},
    {"output", "FORMAT", "table", "table, json or yaml", SETTING_TEXT},
};
static const size_t trace_row_count = sizeof(trace_rows) / sizeof(trace_rows[0]);

static const struct setting_row join_rows[] = {
    {"server", "URL,…", NULL, "the control plane's API; several are tried in turn", SETTING_TEXT},
    {"token-file", "FILE", NULL, "the token of trilane-cp identity token; -: standard input",
     SETTING_TEXT},
    {"data-dir", "DIR", NULL, "the node's; identity and roots are written there", SETTING_TEXT},
    {"node-id", "NAME", NULL, "refuse a token of another node", SETTING_TEXT},
    {"tls-ca", "FILE", NULL, "trust the server by this CA, not by the token's pin", SETTING_TEXT},
};
static const size_t join_row_count = sizeof(join_rows) / sizeof(join_rows[0]);

/* ---- telling ---- */

static int tell(struct err e, const char *what, struct slice said)
{
    (void)fprintf(stderr, "trilane-dp: %s: %s: %s%s%.*s\n", what, err_name(e.code),
                  err_text(e.code), said.size == 0 ? "" : ": ", SLICE_ARG(said));
    if (err_fix(e.code)[0] != '\0') {
        (void)fprintf(stderr, "  what to do: %s\n", err_fix(e.code));
    }
    switch ((int)e.code) {
    case E_USAGE:
        return EXIT_USAGE;
    case E_UNAVAILABLE:
    case E_TIMEOUT:
        return EXIT_UNREACHABLE;
    default:
        return EXIT_REFUSED;
    }
}

/* ---- commands ---- */

static int run_serve(const struct settings *s)
{
    auto_buf struct buf message = BUF_MAX(MESSAGE_MAX);
    enum log_level level = LOG_INFO;
    if (!log_level_find(slice_str(settings_get(s, "log-level")), &level)) {
        return tell(FAIL(E_USAGE), "log-level", SLICE_LIT("error, warn, info or debug"));
    }
    log_level_set(level);
    struct err e = dp_node_run(s, lanes, &message);
    return err_ok(e) ? EXIT_DONE : tell(e, "serve", buf_slice(&message));
}

static int run_check(const struct settings *s)
{
    auto_buf struct buf message = BUF_MAX(MESSAGE_MAX);
    const char *path = settings_arg(s, 0);
    const char *environment = settings_get(s, "environment");
    if (path == NULL || environment == NULL) {
        return tell(FAIL(E_USAGE), "check --environment NAME FILE", (struct slice){0});
    }
    struct dp_check_result result;
    struct err e = dp_check(slice_str(environment), path, &result, &message);
    if (!err_ok(e)) {
        return tell(e, path, buf_slice(&message));
    }
    (void)printf("version %llu loads: %zu parts in %llu us\n", (unsigned long long)result.version,
                 result.parts, (unsigned long long)result.us);
    return EXIT_DONE;
}

static int print_json(json_t *value)
{
    char *text = value == NULL ? NULL : json_dumps(value, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    json_decref(value);
    if (text == NULL) {
        return EXIT_REFUSED;
    }
    int written = puts(text);
    free(text);
    return written < 0 ? EXIT_REFUSED : EXIT_DONE;
}

static struct err read_token(const char *path, char *out, int size)
{
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return FAIL(E_NOT_FOUND);
    }
    const char *line = fgets(out, size, file);
    (void)fclose(file);
    if (line == NULL) {
        return FAIL(E_IO);
    }
    out[strcspn(out, "\r\n")] = '\0';
    return OK;
}

static int tell_joined(const struct dp_join_result *r, const char *data_dir)
{
    char until[32] = "";
    time_t ends = (time_t)r->cert.times.ends_s;
    struct tm parts;
    if (gmtime_r(&ends, &parts) != NULL) {
        (void)strftime(until, sizeof(until), "%Y-%m-%dT%H:%M:%SZ", &parts);
    }
    (void)printf("%s environment %s as node %s\n", r->was_joined ? "joined before:" : "joined",
                 r->self.environment, r->self.node);
    (void)printf("labels: %s\n", r->cert.labels[0] == '\0' ? "none" : r->cert.labels);
    (void)printf("certificate until %s, renewed by itself\n", until);
    (void)printf("floor: version %llu of epoch %llu, root %llu\n",
                 (unsigned long long)r->self.seed.version, (unsigned long long)r->self.seed.epoch,
                 (unsigned long long)r->self.seed.root_version);
    (void)fprintf(stderr, "next: trilane-dp serve --data-dir %s --nats-urls URL\n", data_dir);
    return EXIT_DONE;
}

static int run_join(const struct settings *s)
{
    static const char *const needed[] = {"server", "token-file", "data-dir"};
    auto_buf struct buf message = BUF_MAX(MESSAGE_MAX);
    char token[TOKEN_MAX] = "";
    for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++) {
        if (settings_get(s, needed[i]) == NULL) {
            return tell(FAIL(E_USAGE), "join --server URL --token-file FILE --data-dir DIR",
                        (struct slice){0});
        }
    }
    const char *token_file = settings_get(s, "token-file");
    bool from_stdin = strcmp(token_file, "-") == 0;
    struct err e = read_token(from_stdin ? "/dev/stdin" : token_file, token, sizeof(token));
    if (!err_ok(e)) {
        return tell(e, token_file, (struct slice){0});
    }
    struct dp_join_options options = {.server = settings_get(s, "server"),
                                      .data_dir = settings_get(s, "data-dir"),
                                      .node = settings_get(s, "node-id"),
                                      .ca_file = settings_get(s, "tls-ca"),
                                      .token = slice_str(token)};
    struct dp_join_result result;
    e = net_ask_init();
    if (err_ok(e)) {
        e = dp_join(&options, &result, &message);
    }
    return err_ok(e) ? tell_joined(&result, options.data_dir)
                     : tell(e, "join", buf_slice(&message));
}

static int run_dump(const struct settings *s)
{
    const char *what = settings_arg(s, 0);
    if (what != NULL && strcmp(what, "limits") == 0) {
        return print_json(dp_dump_limits());
    }
    if (what != NULL) {
        return tell(FAIL(E_USAGE), "dump [limits]", (struct slice){0});
    }
    char token[MESSAGE_MAX] = "";
    const char *token_file = settings_get(s, "admin-token-file");
    struct err e = token_file == NULL ? OK : read_token(token_file, token, sizeof(token));
    auto_buf struct buf answer = BUF_MAX(ANSWER_MAX);
    const char *server = settings_get(s, "server");
    if (err_ok(e)) {
        e = dp_ask(slice_str(server), SLICE_LIT("/dump"), slice_str(token), &answer);
    }
    if (!err_ok(e)) {
        return tell(e, server, (struct slice){0});
    }
    return fwrite(answer.ptr, 1, answer.size, stdout) == answer.size && putchar('\n') != EOF
               ? EXIT_DONE
               : EXIT_REFUSED;
}

static int run_trace(const struct settings *s)
{
    auto_buf struct buf message = BUF_MAX(MESSAGE_MAX);
    auto_buf struct buf answer = BUF_MAX(ANSWER_MAX);
    char token[MESSAGE_MAX] = "";
    const char *token_file = settings_get(s, "admin-token-file");
    const char *id = settings_arg(s, 0);
    struct dp_show_trace asked = {.servers = slice_str(settings_get(s, "server")),
                                  .id = slice_str(id)};
    if (!dp_show_format_find(slice_str(settings_get(s, "output")), &asked.format)) {
        return tell(FAIL(E_USAGE), "output", SLICE_LIT("table, json or yaml"));
    }
    struct err e = token_file == NULL ? OK : read_token(token_file, token, sizeof(token));
    if (!err_ok(e)) {
        return tell(e, token_file, (struct slice){0});
    }
    asked.token = slice_str(token);
    e = dp_show_trace(&asked, &answer, &message);
    if (!err_ok(e)) {
        return tell(e, "trace", buf_slice(&message));
    }
    return fwrite(answer.ptr, 1, answer.size, stdout) == answer.size ? EXIT_DONE : EXIT_REFUSED;
}

/* ---- which command ---- */

static const struct command commands[] = {
    {"serve", "", "runs the node until SIGTERM", dp_node_settings, &dp_node_setting_count,
     run_serve, true},
    {"join", "", "makes this a node of an environment, by a token", join_rows, &join_row_count,
     run_join, false},
    {"check", "FILE", "loads a snapshot as a node would", check_rows, &check_row_count, run_check,
     true},
    {"dump", "[limits]", "what a running node does now; or the limits of this program", dump_rows,
     &dump_row_count, run_dump, false},
    {"trace", "[ID]", "why a request was refused, by its x-trilane-explain; or the latest refusals",
     trace_rows, &trace_row_count, run_trace, false},
};

enum { COMMAND_COUNT = sizeof(commands) / sizeof(commands[0]) };

static int print_version(void)
{
    (void)printf("trilane-dp %s commit %s formats %d %d\n", TRILANE_VERSION, TRILANE_COMMIT,
                 SNAPSHOT_FORMAT, SNAPSHOT_FORMAT_LEAST);
    return EXIT_DONE;
}

static int print_usage(FILE *to)
{
    (void)fputs("usage: trilane-dp COMMAND [--setting=value …]\n\n", to);
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        (void)fprintf(to, "  %-6s %-9s %s\n", commands[i].name, commands[i].arguments,
                      commands[i].help);
    }
    (void)fputs("  help   [COMMAND] this, or the settings of a command\n"
                "  --version        version, commit and formats\n",
                to);
    return to == stdout ? EXIT_DONE : EXIT_USAGE;
}

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; name != NULL && i < COMMAND_COUNT; i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return &commands[i];
        }
    }
    return NULL;
}

static int print_help(const struct command *c)
{
    auto_buf struct buf text = BUF_MAX(1 << 20);
    (void)printf("usage: trilane-dp %s [--setting=value …] %s\n\n%s\n\n", c->name, c->arguments,
                 c->help);
    struct err e = settings_help(c->rows, *c->row_count, &text);
    if (err_ok(e) && c->needs_limits) {
        e = settings_help_limits(/* which= */ NULL, &text);
    }
    if (!err_ok(e) || fwrite(text.ptr, 1, text.size, stdout) != text.size) {
        return EXIT_REFUSED;
    }
    return EXIT_DONE;
}

static int run_command(const struct command *c, int argc, char **argv)
{
    auto_buf struct buf message = BUF_MAX(MESSAGE_MAX);
    struct settings *settings = NULL;
    struct err e = settings_load(c->rows, *c->row_count, argc, argv, &settings, &message);
    if (!err_ok(e)) {
        return tell(e, c->name, buf_slice(&message));
    }
    int code = c->run(settings);
    settings_free(settings);
    return code;
}

int main(int argc, char **argv)
{
    ids_init();
    const char *name = argc > 1 ? argv[1] : NULL;
    if (name == NULL) {
        return print_usage(stderr);
    }
    if (strcmp(name, "--version") == 0) {
        return print_version();
    }
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0) {
        const struct command *c = find_command(argc > 2 ? argv[2] : NULL);
        return c == NULL ? print_usage(stdout) : print_help(c);
    }
    const struct command *c = find_command(name);
    if (c == NULL) {
        return print_usage(stderr);
    }
    if (argc > 2 && strcmp(argv[2], "--help") == 0) {
        return print_help(c);
    }
    return run_command(c, argc - 2, argv + 2);
}
