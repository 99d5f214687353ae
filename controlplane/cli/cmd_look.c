/* cmd_look: history, diff, status, wait: what only asks. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "controlplane/cli/client.h"
#include "controlplane/cli/commands.h"
#include "controlplane/cli/live.h"

static const struct setting_row history_rows[] = {
    {"max", "NUMBER", "20", "versions shown, newest first", SETTING_TEXT},
    CLI_SERVER_ROWS,
};
static const struct setting_row status_rows[] = {
    {"exit-code", NULL, NULL, "end with 10 when no head goes out or a node refuses", SETTING_FLAG},
    CLI_SERVER_ROWS,
};
static const struct setting_row diff_rows[] = {
    {"exit-code", NULL, NULL, "end with 5 when there are differences", SETTING_FLAG},
    CLI_SERVER_ROWS,
};
static const struct setting_row wait_rows[] = {
    {"timeout", "SECONDS", "60", "how long to wait", SETTING_TEXT},
    CLI_SERVER_ROWS,
};

/* ---- history ---- */

static void history_line(const json_t *record, json_int_t head_version)
{
    char when[32] = "";
    char age[CLI_AGE_SIZE];
    json_int_t created_ms = cli_int(record, "created_ms");
    time_t seconds = (time_t)(created_ms / 1000);
    struct tm parts;
    if (gmtime_r(&seconds, &parts) != NULL) {
        (void)strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &parts);
    }
    char origin[64] = "";
    if (cli_int(record, "origin") != 0) {
        (void)snprintf(origin, sizeof(origin), " (content of %" JSON_INTEGER_FORMAT "%s)",
                       cli_int(record, "origin"),
                       json_is_true(json_object_get(record, "with_trust")) ? ", with trust" : "");
    }
    struct slice message = slice_str(cli_text(record, "message"));
    message = slice_head(message, slice_find(message, '\n'));
    const char *signers = cli_text(record, "signers");
    const char *glass = strstr(signers, "break-glass") == NULL ? "" : " [signed by ";
    (void)printf("%c %-8" JSON_INTEGER_FORMAT " %5s  %-21s %-12.12s %-16.16s %.*s%s%s%s%s\n",
                 cli_int(record, "version") == head_version ? '*' : ' ', cli_int(record, "version"),
                 cli_age(clock_wall_ms() - created_ms, age), when,
                 cli_text(record, "content_digest"), cli_text(record, "author"), SLICE_ARG(message),
                 origin, glass, glass[0] == '\0' ? "" : signers, glass[0] == '\0' ? "" : "]");
}

static void history_table(const json_t *value)
{
    const json_t *versions = json_object_get(value, "versions");
    if (json_array_size(versions) == 0) {
        (void)printf("nothing was published yet\n");
        return;
    }
    (void)printf("  %-8s %5s  %-21s %-12s %-16s %s\n", "VERSION", "AGE", "PUBLISHED", "CONTENT",
                 "AUTHOR", "MESSAGE");
    for (size_t i = 0; i < json_array_size(versions); i++) {
        history_line(json_array_get(versions, i), cli_int(value, "head_version"));
    }
    (void)printf("* the head points at it\n");
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
    const json_t *versions = json_object_get(answer, "versions");
    json_int_t newest = cli_int(json_array_get(versions, 0), "version");
    json_int_t before = cli_int(json_array_get(versions, 1), "version");
    int code = cli_result(cli, answer, history_table);
    if (newest == 0) {
        cli_next("trilane-cp publish -m MESSAGE DIRECTORY");
    } else if (before == 0) {
        cli_next("trilane-cp status");
    } else {
        cli_next("trilane-cp diff %" JSON_INTEGER_FORMAT " %" JSON_INTEGER_FORMAT, before, newest);
    }
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

static bool refuses(const json_t *node)
{
    return json_is_true(json_object_get(node, "live")) && cli_text(node, "code")[0] != '\0';
}

/* What a node cannot do, in words: the code, what it is about, what it means. */
static void node_reason(const json_t *node)
{
    enum err_code code = E_OK;
    const char *name = cli_text(node, "code");
    if (name[0] == '\0') {
        return;
    }
    (void)printf("%s%s%s", name, cli_text(node, "object")[0] == '\0' ? "" : " ",
                 cli_text(node, "object"));
    if (err_find(name, &code)) {
        (void)printf(": %s", err_text(code));
    }
}

/* Services of a live one miss their SLA: it serves, and no command can mend it. */
static bool is_degraded(const json_t *node)
{
    return json_is_true(json_object_get(node, "live")) && cli_int(node, "degraded") > 0;
}

static void node_line(const json_t *node)
{
    char age[CLI_AGE_SIZE];
    char version[24] = "-";
    bool verified = json_is_true(json_object_get(node, "verified"));
    bool live = json_is_true(json_object_get(node, "live"));
    if (verified) {
        (void)snprintf(version, sizeof(version), "%" JSON_INTEGER_FORMAT, cli_int(node, "version"));
    }
    const char *state = !verified ? "UNVERIFIED" : live ? cli_text(node, "state") : "SILENT";
    (void)printf("%-24s %-8s %-10s %6s  ", cli_text(node, "node"), version, state,
                 cli_age(cli_int(node, "age_ms"), age));
    node_reason(node);
    if (is_degraded(node)) {
        (void)printf("%sdegraded: services that miss their SLA: %" JSON_INTEGER_FORMAT,
                     cli_text(node, "code")[0] == '\0' ? "" : "; ", cli_int(node, "degraded"));
    }
    (void)printf("\n");
}

/* A replica that follows is well: another one brings out the heads. */
static bool follows(const json_t *leader)
{
    return strcmp(cli_text(leader, "code"), err_name(E_NOT_LEADER)) == 0 &&
           cli_text(leader, "holder")[0] != '\0' &&
           !json_is_true(json_object_get(leader, "vacant"));
}

static void head_line(const json_t *leader)
{
    char age[CLI_AGE_SIZE];
    if (follows(leader)) {
        (void)printf("this replica follows; newest version %" JSON_INTEGER_FORMAT "\n",
                     cli_int(leader, "newest_version"));
    } else if (cli_int(leader, "head_version") == 0) {
        (void)printf("no head of this replica's yet\n");
    } else {
        (void)printf("head at version %" JSON_INTEGER_FORMAT ", put %s ago\n",
                     cli_int(leader, "head_version"),
                     cli_age(clock_wall_ms() - cli_int(leader, "head_at_ms"), age));
    }
    if (strstr(cli_text(leader, "newest_signers"), "break-glass") != NULL) {
        (void)printf("BREAK-GLASS: version %" JSON_INTEGER_FORMAT " was signed by %s\n",
                     cli_int(leader, "newest_version"), cli_text(leader, "newest_signers"));
    }
}

/* NATS' own words, while something of it fails: which subject, stream or limit it refused. */
static void bus_line(const json_t *value)
{
    const json_t *bus = json_object_get(value, "bus");
    const char *said = cli_text(bus, "last_error");
    bool fails = strcmp(cli_text(bus, "state"), "connected") != 0 ||
                 cli_text(value, "bucket_code")[0] != '\0' ||
                 strncmp(cli_text(json_object_get(value, "leader"), "code"), "BUS_", 4) == 0;
    if (fails && said[0] != '\0') {
        (void)printf("NATS SAID LAST: %s\n", said);
    }
}

static void leader_lines(const json_t *value)
{
    char age[CLI_AGE_SIZE];
    const json_t *leader = json_object_get(value, "leader");
    const json_t *bus = json_object_get(value, "bus");
    const char *holder = cli_text(leader, "holder");
    (void)printf("environment %s; NATS %s", cli_text(value, "environment"), cli_text(bus, "state"));
    if (cli_int(bus, "down_ms") > 0) {
        (void)printf(" for %s", cli_age(cli_int(bus, "down_ms"), age));
    }
    (void)printf("\nleader %s, epoch %" JSON_INTEGER_FORMAT "; ",
                 holder[0] == '\0' ? "none" : holder, cli_int(leader, "epoch"));
    head_line(leader);
    enum err_code code = E_OK;
    if (!follows(leader) && err_find(cli_text(leader, "code"), &code) && code != E_OK) {
        bool silent = json_is_true(json_object_get(leader, "store_silent"));
        (void)printf("NO HEAD GOES OUT: %s: %s\n", err_name(code),
                     silent ? "the database does not answer" : err_text(code));
    }
    if (err_find(cli_text(leader, "store_code"), &code) && code != E_OK) {
        (void)printf("HEADS NAME WHAT WAS READ BEFORE: %s: %s\n", err_name(code), err_text(code));
    }
    if (err_find(cli_text(value, "bucket_code"), &code) && code != E_OK) {
        (void)printf("THE BUCKET LACKS CONTENT: %s: %s\n", err_name(code), err_text(code));
    }
    bus_line(value);
    const json_t *bucket = json_object_get(value, "bucket");
    if (cli_int(bucket, "replicas") < cli_int(bucket, "replicas_wanted")) {
        (void)printf("THE BUCKET HAS %" JSON_INTEGER_FORMAT " OF %" JSON_INTEGER_FORMAT
                     " REPLICAS\n",
                     cli_int(bucket, "replicas"), cli_int(bucket, "replicas_wanted"));
    }
}

static void status_table(const json_t *value)
{
    const json_t *nodes = json_object_get(value, "nodes");
    size_t count = json_array_size(nodes);
    size_t live = 0;
    size_t refusing = 0;
    size_t degraded = 0;
    leader_lines(value);
    for (size_t i = 0; i < count; i++) {
        live += json_is_true(json_object_get(json_array_get(nodes, i), "live"));
        refusing += refuses(json_array_get(nodes, i));
        degraded += is_degraded(json_array_get(nodes, i));
    }
    (void)printf("%zu nodes, %zu live, %zu refusing, %zu degraded\n", count, live, refusing,
                 degraded);
    if (count > 0) {
        (void)printf("\n%-24s %-8s %-10s %6s  %s\n", "NODE", "VERSION", "STATE", "AGE", "REASON");
    }
    for (size_t i = 0; i < count; i++) {
        node_line(json_array_get(nodes, i));
    }
}

/* The first thing that is wrong: a code to ask about; NULL when all is well. */
static const char *worst_code(const json_t *value)
{
    const json_t *leader = json_object_get(value, "leader");
    const char *code = follows(leader) ? "" : cli_text(leader, "code");
    const json_t *nodes = json_object_get(value, "nodes");
    code = code[0] == '\0' ? cli_text(leader, "store_code") : code;
    code = code[0] == '\0' ? cli_text(value, "bucket_code") : code;
    for (size_t i = 0; code[0] == '\0' && i < json_array_size(nodes); i++) {
        const json_t *node = json_array_get(nodes, i);
        code = refuses(node) ? cli_text(node, "code") : code;
    }
    enum err_code known = E_OK;
    return err_find(code, &known) ? err_name(known) : NULL;
}

static int show_status(const struct cli *cli, json_t *value)
{
    const char *code = worst_code(value);
    bool published = cli_int(json_object_get(value, "leader"), "head_version") > 0;
    int result = cli_result(cli, value, status_table);
    if (code != NULL) {
        cli_next("trilane-cp help %s", code);
    } else {
        cli_next(published ? "trilane-cp history" : "trilane-cp publish -m MESSAGE DIRECTORY");
    }
    bool asked = settings_flag(cli->settings, "exit-code");
    return result == CLI_DONE && code != NULL && asked ? CLI_UNHEALTHY : result;
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
    return show_status(cli, answer);
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

CLI_RUN(history)
CLI_RUN(diff)
CLI_RUN(status)
CLI_RUN(wait_for)

const struct cli_command cli_command_history = {
    .name = "history",
    .args = "",
    .summary = "shows what was published, by whom and why",
    CLI_ROWS(history_rows),
    .run = history_run,
};
const struct cli_command cli_command_diff = {
    .name = "diff",
    .arg_max = 2,
    .args = "FROM TO",
    .summary = "shows what differs between two versions",
    CLI_ROWS(diff_rows),
    .run = diff_run,
};
const struct cli_command cli_command_status = {
    .name = "status",
    .args = "",
    .summary = "shows the leader and what every node runs or refused",
    CLI_ROWS(status_rows),
    .run = status_run,
};
const struct cli_command cli_command_wait = {
    .name = "wait",
    .arg_max = 1,
    .args = "VERSION",
    .summary = "waits until all live nodes run a version",
    CLI_ROWS(wait_rows),
    .run = wait_for_run,
};
