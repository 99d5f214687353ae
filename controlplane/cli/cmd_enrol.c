/* cmd_enrol: tokens for nodes that are to join, the nodes that did, and their removal. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/base/clock.h"
#include "controlplane/cli/client.h"
#include "controlplane/cli/commands.h"

#define AUTHOR_ROW                                                                                 \
    {                                                                                              \
        "author", "NAME", NULL, "who; default: the account's name", SETTING_TEXT                   \
    }

static const struct setting_row token_rows[] = {
    {"labels", "K=V,…", "", "what rollouts select the node by", SETTING_TEXT},
    {"san", "dns:NAME,ip:ADDRESS,…", "", "names and addresses by which callers reach it",
     SETTING_TEXT},
    {"ttl", "DURATION", "1h", "how long the token may be used: 90s, 15m, 1h, 7d", SETTING_TEXT},
    AUTHOR_ROW,
    CLI_SERVER_ROWS,
};
static const struct setting_row list_rows[] = {CLI_SERVER_ROWS};
static const struct setting_row remove_rows[] = {AUTHOR_ROW, CLI_SERVER_ROWS};

/* The one argument of token and remove. */
static const char *need_node(const struct cli *cli)
{
    const char *node = settings_arg(cli->settings, 0);
    if (node == NULL) {
        cli_say("error: USAGE: %s needs a node's id; see trilane-cp %s --help", cli->command->name,
                cli->command->name);
    }
    return node;
}

/* ---- identity token ---- */

/* The token alone, so that it can be sent to a file: nothing shows it again. */
static void token_table(const json_t *value)
{
    (void)printf("%s\n", cli_text(value, "token"));
}

static int token(const struct cli *cli)
{
    uint64_t ttl_ms = 0;
    char author[CLI_AUTHOR_SIZE];
    const char *node = need_node(cli);
    if (node == NULL || !cli_duration(cli, "ttl", &ttl_ms)) {
        return CLI_USAGE;
    }
    cli_author(cli, author);
    json_t *body = json_pack(
        "{s:s, s:s, s:s, s:I, s:s}", "node", node, "labels", settings_get(cli->settings, "labels"),
        "sans", settings_get(cli->settings, "san"), "ttl_ms", (json_int_t)ttl_ms, "author", author);
    json_t *answer = NULL;
    struct err e = cli_call(cli, "/api/v1/tokens", body, &answer);
    json_decref(body);
    if (!err_ok(e)) {
        return cli_refused(cli, e, answer);
    }
    int code = cli_result(cli, answer, token_table);
    cli_say("good for one join of %s within %s; it is shown this once", node,
            settings_get(cli->settings, "ttl"));
    cli_next("trilane-dp join --server URL --token-file FILE --data-dir DIRECTORY");
    return code;
}
CLI_RUN(token)

const struct cli_command cli_command_identity_token = {
    .name = "identity token",
    .args = "NODE",
    .summary = "makes a token with which one node may join, once",
    CLI_ROWS(token_rows),
    .arg_max = 1,
    .run = token_run,
};

/* ---- identity list ---- */

static void list_line(const json_t *node)
{
    char when[32] = "-";
    json_int_t ends_ms = cli_int(node, "not_after_ms");
    time_t seconds = (time_t)(ends_ms / 1000);
    struct tm parts;
    if (ends_ms != 0 && gmtime_r(&seconds, &parts) != NULL) {
        (void)strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &parts);
    }
    const char *labels = cli_text(node, "labels");
    (void)printf("%-24s %-9s %-21s %-34s %s\n", cli_text(node, "node"), cli_text(node, "state"),
                 when, cli_text(node, "serial"), labels[0] == '\0' ? "-" : labels);
}

static void list_table(const json_t *value)
{
    const json_t *nodes = json_object_get(value, "nodes");
    if (json_array_size(nodes) == 0) {
        (void)printf("no node joined yet\n");
        return;
    }
    (void)printf("%-24s %-9s %-21s %-34s %s\n", "NODE", "STATE", "CERTIFICATE UNTIL", "SERIAL",
                 "LABELS");
    for (size_t i = 0; i < json_array_size(nodes); i++) {
        list_line(json_array_get(nodes, i));
    }
}

static int list(const struct cli *cli)
{
    json_t *answer = NULL;
    struct err e = cli_call(cli, "/api/v1/identities", /* body= */ NULL, &answer);
    if (!err_ok(e)) {
        return cli_refused(cli, e, answer);
    }
    bool empty = json_array_size(json_object_get(answer, "nodes")) == 0;
    int code = cli_result(cli, answer, list_table);
    cli_next(empty ? "trilane-cp identity token NODE" : "trilane-cp status");
    return code;
}
CLI_RUN(list)

const struct cli_command cli_command_identity_list = {
    .name = "identity list",
    .args = "",
    .summary = "shows the nodes that joined, their labels and certificates",
    CLI_ROWS(list_rows),
    .run = list_run,
};

/* ---- identity remove ---- */

/* What becomes of its channels. */
static void removed_table(const json_t *value)
{
    const char *node = cli_text(value, "node");
    const json_int_t version = cli_int(value, "version");
    (void)printf("removed %s\n", node);
    if (json_is_true(json_object_get(value, "published"))) {
        (void)printf("version %" JSON_INTEGER_FORMAT " ends its channels\n", version);
    } else if (cli_text(value, "code")[0] != '\0') {
        return; /* tell_removed() says why. */
    } else if (version == 0) {
        (void)printf("nothing is published yet: the first version revokes its certificates\n");
    } else {
        (void)printf("nothing was left to publish: version %" JSON_INTEGER_FORMAT
                     " has what there is to revoke\n",
                     version);
    }
}

/* The node is out; that its channels stay open for now is a failure nevertheless. */
static int tell_removed(const struct cli *cli, json_t *answer)
{
    const bool failed = cli_text(answer, "code")[0] != '\0';
    const char *unvouched = cli_text(answer, "unvouched");
    if (failed) {
        cli_say("error: %s: its certificates are not revoked yet: %s", cli_text(answer, "code"),
                cli_text(answer, "message"));
        cli_say("the leader publishes it by itself as soon as it can; so does this command again");
    }
    if (unvouched[0] != '\0') {
        cli_say("warning: its certificate %s was given out by a release before, says the database "
                "alone: it is good until its end, or until a Revocation of it is published",
                unvouched);
    }
    int code = cli_result(cli, answer, removed_table); /* it ends 'answer'. */
    return failed && code == CLI_DONE ? CLI_REFUSED : code;
}

static int remove_node(const struct cli *cli)
{
    char author[CLI_AUTHOR_SIZE];
    const char *node = need_node(cli);
    if (node == NULL) {
        return CLI_USAGE;
    }
    cli_author(cli, author);
    json_t *body = json_pack("{s:s, s:s}", "node", node, "author", author);
    json_t *answer = NULL;
    struct err e = cli_call(cli, "/api/v1/identities/remove", body, &answer);
    json_decref(body);
    if (!err_ok(e)) {
        return cli_refused(cli, e, answer);
    }
    int code = tell_removed(cli, answer);
    cli_next(code == CLI_DONE ? "trilane-cp identity list" : "trilane-cp status");
    return code;
}
CLI_RUN(remove_node)

const struct cli_command cli_command_identity_remove = {
    .name = "identity remove",
    .args = "NODE",
    .summary = "removes a node: nothing of it is taken any more, and its channels end",
    CLI_ROWS(remove_rows),
    .arg_max = 1,
    .run = remove_node_run,
};
