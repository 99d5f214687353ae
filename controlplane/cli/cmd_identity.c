/* cmd_identity: a development CA, and leaves for services and nodes. */
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "common/base/scope.h"
#include "controlplane/cli/commands.h"
#include "controlplane/identity/ca.h"
#include "controlplane/identity/ceremony.h"

enum { MESSAGE_MAX = 4096, PATH_SIZE = 8192 };

static int fail_with(struct err e, struct buf *message)
{
    const char *text = NULL;
    return cli_fail(e, err_ok(buf_cstr(message, &text)) ? text : NULL);
}

static void path_table(const json_t *value)
{
    (void)printf("%s\n", cli_text(value, "cert"));
}

/* ---- identity init ---- */

static const struct setting_row init_rows[] = {
    {"trust-domain", "NAME", NULL, "of the SPIFFE ids: platform.example.org", SETTING_TEXT},
    {"out", "DIRECTORY", ".", "where ca.pem and ca.key are written", SETTING_TEXT},
    CLI_OUTPUT_ROW,
};

static int init(const struct cli *cli)
{
    const char *trust_domain = cli_need(cli, "trust-domain");
    if (trust_domain == NULL) {
        return CLI_USAGE;
    }
    const char *directory = settings_get(cli->settings, "out");
    auto_buf struct buf message = BUF_MAX(MESSAGE_MAX);
    struct err e = cp_ca_init(directory, trust_domain, &message);
    if (!err_ok(e)) {
        return fail_with(e, &message);
    }
    char cert[PATH_SIZE];
    (void)snprintf(cert, sizeof(cert), "%.8000s/ca.pem", directory);
    int code = cli_result(cli, json_pack("{s:s, s:s}", "trust_domain", trust_domain, "cert", cert),
                          path_table);
    cli_next("trilane-cp identity issue --ca %s --service TENANT/NAME", directory);
    return code;
}

static int init_run(const struct cli_command *self, int argc, char **argv)
{
    struct cli cli;
    int code = CLI_DONE;
    if (cli_begin(&cli, self, argc, argv, &code)) {
        code = init(&cli);
    }
    cli_end(&cli);
    return code;
}

const struct cli_command cli_command_identity_init = {
    .name = "identity init",
    .args = "--trust-domain NAME",
    .summary = "makes a certificate authority for development",
    .rows = init_rows,
    .row_count = sizeof(init_rows) / sizeof(init_rows[0]),
    .run = init_run,
};

/* ---- identity issue ---- */

static const struct setting_row issue_rows[] = {
    {"ca", "DIRECTORY", ".", "of ca.pem and ca.key", SETTING_TEXT},
    {"service", "TENANT/NAME", NULL, "the leaf is this service's", SETTING_TEXT},
    {"node", "ID", NULL, "the leaf is this node's", SETTING_TEXT},
    {"san", "dns:NAME,ip:ADDRESS,…", NULL, "names and addresses beside the SPIFFE id",
     SETTING_TEXT},
    {"labels", "K=V,…", NULL, "a node: what rollouts select it by", SETTING_TEXT},
    {"days", "DAYS", "90", "of validity", SETTING_TEXT},
    {"out", "DIRECTORY", ".", "where the files are written", SETTING_TEXT},
    {"node-keys", "DIRECTORY", NULL,
     "a node: its status key is made, too, and enrolled here for the control plane", SETTING_TEXT},
    CLI_OUTPUT_ROW,
};

/* The key that signs a node's status: the private half beside its certificate, the public half
 * where the control plane looks. */
static struct err enrol(const char *node, const char *base, const char *directory,
                        struct buf *message)
{
    auto_key_pair struct key_pair pair = {0};
    TRY(key_pair_new(KEY_ROLE_NODE, slice_str(node), &pair));
    if (mkdir(directory, 0755) != 0 && errno != EEXIST) {
        TRY(buf_addf(message, "%s: cannot be made", directory));
        return FAIL(E_IO);
    }
    char path[PATH_SIZE];
    (void)snprintf(path, sizeof(path), "%.8000s.status.key", base);
    struct err e = key_file_write(path, &pair);
    if (err_ok(e)) {
        (void)snprintf(path, sizeof(path), "%.8000s/%s.pub", directory, node);
        e = cp_key_write_public(path, &pair.public);
    }
    if (!err_ok(e)) {
        TRY(buf_addf(message, "%s: %s", path, err_text(e.code)));
    }
    return e;
}

static struct err issue(const struct cli *cli, const struct cp_leaf *leaf, json_t **out,
                        struct buf *message)
{
    auto_buf struct buf id = BUF_MAX(MESSAGE_MAX);
    auto_buf struct buf base = BUF_MAX(MESSAGE_MAX);
    const char *id_text = NULL;
    const char *base_text = NULL;
    TRY(cp_ca_issue(leaf, &id, &base, message));
    TRY(buf_cstr(&id, &id_text));
    TRY(buf_cstr(&base, &base_text));
    const char *directory = settings_get(cli->settings, "node-keys");
    if (leaf->node != NULL && directory != NULL) {
        TRY(enrol(leaf->node, base_text, directory, message));
    }
    char cert[PATH_SIZE];
    char key[PATH_SIZE];
    (void)snprintf(cert, sizeof(cert), "%.8000s.pem", base_text);
    (void)snprintf(key, sizeof(key), "%.8000s.key", base_text);
    *out = json_pack("{s:s, s:s, s:s}", "id", id_text, "cert", cert, "key", key);
    return OK;
}

static int issue_checked(const struct cli *cli)
{
    struct cp_leaf leaf = {
        .ca = settings_get(cli->settings, "ca"),
        .out = settings_get(cli->settings, "out"),
        .service = settings_get(cli->settings, "service"),
        .node = settings_get(cli->settings, "node"),
        .labels = settings_get(cli->settings, "labels"),
        .san = settings_get(cli->settings, "san"),
    };
    uint64_t days = 0;
    if (!cli_number(cli, "days", 1, CP_LEAF_DAYS_MAX, &days)) {
        return CLI_USAGE;
    }
    leaf.days = (uint32_t)days;
    if ((leaf.service == NULL) == (leaf.node == NULL)) {
        cli_say("error: USAGE: identity issue needs --service TENANT/NAME or --node ID");
        return CLI_USAGE;
    }
    auto_buf struct buf message = BUF_MAX(MESSAGE_MAX);
    json_t *result = NULL;
    struct err e = issue(cli, &leaf, &result, &message);
    return err_ok(e) ? cli_result(cli, result, path_table) : fail_with(e, &message);
}

static int issue_run(const struct cli_command *self, int argc, char **argv)
{
    struct cli cli;
    int code = CLI_DONE;
    if (cli_begin(&cli, self, argc, argv, &code)) {
        code = issue_checked(&cli);
    }
    cli_end(&cli);
    return code;
}

const struct cli_command cli_command_identity_issue = {
    .name = "identity issue",
    .args = "--service TENANT/NAME | --node ID",
    .summary = "issues a certificate with a SPIFFE id",
    .rows = issue_rows,
    .row_count = sizeof(issue_rows) / sizeof(issue_rows[0]),
    .run = issue_run,
};
