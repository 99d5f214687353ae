/* cmd_look: history, diff, status, wait: what only asks. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "controlplane/cli/client.h"
#include "controlplane/cli/commands.h"
#include "controlplane/cli/live.h"

static const struct setting_row history_rows[] = {
    {"max", "NUMBER", "20", "versions shown, newest first", SETTING_TEXT},
    CLI_SERVER_ROWS,
};
static const struct setting_row server_rows[] = {CLI_SERVER_ROWS};
static const struct setting_row diff_rows[] = {
    {"exit-code", NULL, NULL, "end with 5 when there are differences", SETTING_FLAG},
    CLI_SERVER_ROWS,
};
static const struct setting_row wait_rows[] = {
    {"timeout", "SECONDS", "60", "how long to wait", SETTING_TEXT},
    CLI_SERVER_ROWS,
};

static json_int_t number_of(const json_t *object, const char *name)
{
    return json_integer_value(json_object_get(object, name));
}

/* ---- history ---- */

static void history_line(const json_t *record)
{
    char when[32] = "";
    time_t seconds = (time_t)(number_of(record, "created_ms") / 1000);
    struct tm parts;
    if (gmtime_r(&seconds, &parts) != NULL) {
        (void)strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &parts);
    }
    char origin[48] = "";
    if (number_of(record, "origin") != 0) {
        (void)snprintf(origin, sizeof(origin), " (content of %" JSON_INTEGER_FORMAT ")",
                       number_of(record, "origin"));
    }
    (void)printf("%-8" JSON_INTEGER_FORMAT " %-21s %-12.12s %-16.16s %s%s\n",
                 number_of(record, "version"), when, cli_text(record, "content_digest"),
                 cli_text(record, "author"), cli_text(record, "message"), origin);
}

static void history_table(const json_t *value)
{
    const json_t *versions = json_object_get(value, "versions");
    (void)printf("%-8s %-21s %-12s %-16s %s\n", "VERSION", "PUBLISHED", "CONTENT", "AUTHOR",
                 "MESSAGE");
    for (size_t i = 0; i < json_array_size(versions); i++) {
        history_line(json_array_get(versions, i));
    }
}

static int history(const struct cli *cli)
{
    uint64_t max = 0;
    char path[128];
    if (!cli_number(cli, "max", 1, 200, &max)) {
        return CLI_USAGE;
    }
    (void)snprintf(path, sizeof(path), "/api/v1/history?max=%" PRIu64, max);
    json_t *answer = NULL;
    struct err e = cli_call(cli, path, /* body= */ NULL, &answer);
    if (!err_ok(e)) {
        return cli_refused(cli, e, answer);
    }
    int code = cli_result(cli, answer, history_table);
    cli_next("trilane-cp diff FROM TO, or trilane-cp rollback -m MESSAGE VERSION");
    return code;
}

/* ---- diff ---- */

static void diff_table(const json_t *value)
{
    (void)fputs(cli_text(value, "diff_text"), stdout);
}

static bool version_arg(const struct cli *cli, size_t index, uint64_t *out)
{
    const char *text = settings_arg(cli->settings, index);
    return text != NULL && slice_to_u64(slice_str(text), out) && *out > 0 && *out <= INT64_MAX;
}

static int diff(const struct cli *cli)
{
    uint64_t from = 0;
    uint64_t to = 0;
    char path[128];
    if (!version_arg(cli, 0, &from) || !version_arg(cli, 1, &to)) {
        cli_say("error: USAGE: diff needs two versions: FROM TO");
        return CLI_USAGE;
    }
    (void)snprintf(path, sizeof(path), "/api/v1/diff?from=%" PRIu64 "&to=%" PRIu64, from, to);
    json_t *answer = NULL;
    struct err e = cli_call(cli, path, /* body= */ NULL, &answer);
    if (!err_ok(e)) {
        return cli_refused(cli, e, answer);
    }
    bool differs = json_array_size(json_object_get(json_object_get(answer, "diff"), "changes")) > 0;
    int code = cli_result(cli, answer, diff_table);
    return code == CLI_DONE && differs && settings_flag(cli->settings, "exit-code") ? CLI_DIFFERENT
                                                                                    : code;
}

/* ---- status ---- */

static void node_line(const json_t *node)
{
    if (!json_is_true(json_object_get(node, "verified"))) {
        (void)printf("%-24s %-8s %-10s %6" JSON_INTEGER_FORMAT "s  %s\n", cli_text(node, "node"),
                     "-", "UNVERIFIED", number_of(node, "age_ms") / 1000, cli_text(node, "code"));
        return;
    }
    bool live = json_is_true(json_object_get(node, "live"));
    (void)printf("%-24s %-8" JSON_INTEGER_FORMAT " %-10s %6" JSON_INTEGER_FORMAT "s  %s%s%s\n",
                 cli_text(node, "node"), number_of(node, "version"),
                 live ? cli_text(node, "state") : "SILENT", number_of(node, "age_ms") / 1000,
                 cli_text(node, "code"), cli_text(node, "object")[0] == '\0' ? "" : " ",
                 cli_text(node, "object"));
}

static void status_table(const json_t *value)
{
    const json_t *leader = json_object_get(value, "leader");
    const json_t *nodes = json_object_get(value, "nodes");
    (void)printf("environment %s; leader %s, epoch %" JSON_INTEGER_FORMAT
                 "; head at version %" JSON_INTEGER_FORMAT "; NATS %s\n",
                 cli_text(value, "environment"), cli_text(leader, "holder"),
                 number_of(leader, "epoch"), number_of(leader, "head_version"),
                 cli_text(json_object_get(value, "bus"), "state"));
    if (cli_text(leader, "code")[0] != '\0') {
        (void)printf("no head goes out: %s\n", cli_text(leader, "code"));
    }
    (void)printf("%-24s %-8s %-10s %7s  %s\n", "NODE", "VERSION", "STATE", "AGE", "REASON");
    for (size_t i = 0; i < json_array_size(nodes); i++) {
        node_line(json_array_get(nodes, i));
    }
}

static int status(const struct cli *cli)
{
    json_t *answer = NULL;
    json_t *nodes = NULL;
    struct err e = cli_call(cli, "/api/v1/status", /* body= */ NULL, &answer);
    if (!err_ok(e)) {
        return cli_refused(cli, e, answer);
    }
    e = cli_call(cli, "/api/v1/nodes", /* body= */ NULL, &nodes);
    if (!err_ok(e)) {
        json_decref(answer);
        return cli_refused(cli, e, nodes);
    }
    (void)json_object_set(answer, "nodes", json_object_get(nodes, "nodes"));
    json_decref(nodes);
    const char *code = cli_text(json_object_get(answer, "leader"), "code");
    char next[128] = "trilane-cp history";
    if (code[0] != '\0') {
        (void)snprintf(next, sizeof(next), "trilane-cp help %.100s", code);
    }
    int result = cli_result(cli, answer, status_table);
    cli_next("%s", next);
    return result;
}

/* ---- wait ---- */

static void live_table(const json_t *value)
{
    (void)printf("%s\n", json_is_true(json_object_get(value, "live")) ? "live" : "not live");
}

static int wait_for(const struct cli *cli)
{
    uint64_t version = 0;
    uint64_t timeout_s = 0;
    if (!cli_number(cli, "timeout", 0, 86400, &timeout_s)) {
        return CLI_USAGE;
    }
    if (!version_arg(cli, 0, &version)) {
        cli_say("error: USAGE: wait needs a VERSION");
        return CLI_USAGE;
    }
    json_t *result = json_object();
    int code = cli_wait_live(cli, version, timeout_s, result);
    int shown = cli_result(cli, result, live_table);
    return shown == CLI_DONE ? code : shown;
}

/* ---- the table's rows ---- */

#define RUN(name)                                                                                  \
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
RUN(history)
RUN(diff)
RUN(status)
RUN(wait_for)

#define ROWS(table) .rows = (table), .row_count = sizeof(table) / sizeof((table)[0])

const struct cli_command cli_command_history = {
    .name = "history",
    .args = "",
    .summary = "shows what was published, by whom and why",
    ROWS(history_rows),
    .run = history_run,
};
const struct cli_command cli_command_diff = {
    .name = "diff",
    .args = "FROM TO",
    .summary = "shows what differs between two versions",
    ROWS(diff_rows),
    .run = diff_run,
};
const struct cli_command cli_command_status = {
    .name = "status",
    .args = "",
    .summary = "shows the leader and what every node runs or refused",
    ROWS(server_rows),
    .run = status_run,
};
const struct cli_command cli_command_wait = {
    .name = "wait",
    .args = "VERSION",
    .summary = "waits until all live nodes run a version",
    ROWS(wait_rows),
    .run = wait_for_run,
};
