/* cmd_key: key generate, key root, key token. Offline: files in, files out. */
#include <stdio.h>
#include <string.h>

#include "common/base/scope.h"
#include "common/base/text.h"
#include "controlplane/cli/commands.h"
#include "controlplane/identity/ceremony.h"

enum { MESSAGE_MAX = 4096, DAYS_MAX = 36500, HEAD_DAYS_MAX = 366 };

/* ---- key generate ---- */

static const struct setting_row generate_rows[] = {
    {"role", "ROLE", NULL, "root, manifest, head or node", SETTING_TEXT},
    {"out", "DIRECTORY", ".", "where NAME.key and NAME.pub are written", SETTING_TEXT},
    CLI_OUTPUT_ROW,
};

static void generate_table(const json_t *value)
{
    (void)printf("%s key %s: %s\n", cli_text(value, "role"), cli_text(value, "id"),
                 cli_text(value, "private"));
}

static int generate(const struct cli *cli)
{
    const char *role_name = cli_need(cli, "role");
    const char *name = settings_arg(cli->settings, 0);
    if (role_name == NULL) {
        return CLI_USAGE;
    }
    enum key_role role = KEY_ROLE_COUNT;
    if (!key_role_find(slice_str(role_name), &role)) {
        cli_say("error: USAGE: --role is \"%s\"; expected root, manifest, head or node", role_name);
        return CLI_USAGE;
    }
    if (name == NULL) {
        cli_say("error: USAGE: key generate needs the NAME of the key");
        return CLI_USAGE;
    }
    const char *directory = settings_get(cli->settings, "out");
    auto_buf struct buf message = BUF_MAX(MESSAGE_MAX);
    struct key_public key;
    struct err e = cp_key_generate(role, name, directory, &key, &message);
    if (!err_ok(e)) {
        return cli_fail_with(e, &message);
    }
    uint8_t id[KEY_ID_SIZE];
    char hex[2 * KEY_ID_SIZE + 1];
    key_id(key.bytes, id);
    text_hex(slice_of(id, sizeof(id)), hex);
    char private[4096];
    char public[4096];
    (void)snprintf(private, sizeof(private), "%.4000s/%s.key", directory, name);
    (void)snprintf(public, sizeof(public), "%.4000s/%s.pub", directory, name);
    return cli_result(cli,
                      json_pack("{s:s, s:s, s:s, s:s, s:s}", "role", role_name, "name", name, "id",
                                hex, "private", private, "public", public),
                      generate_table);
}

static int generate_run(const struct cli_command *self, int argc, char **argv)
{
    struct cli cli;
    int code = CLI_DONE;
    if (cli_begin(&cli, self, argc, argv, &code)) {
        code = generate(&cli);
    }
    cli_end(&cli);
    return code;
}

const struct cli_command cli_command_key_generate = {
    .name = "key generate",
    .arg_max = 1,
    .args = "--role ROLE NAME",
    .summary = "makes a pair of keys: NAME.key, which is secret, and NAME.pub",
    .rows = generate_rows,
    .row_count = sizeof(generate_rows) / sizeof(generate_rows[0]),
    .run = generate_run,
};

/* ---- key root ---- */

static const struct setting_row root_rows[] = {
    {"environment", "NAME", NULL, "name of the environment", SETTING_TEXT},
    {"roots", "FILE,…", NULL, "private root keys: they are in the root and sign it", SETTING_LIST},
    {"signers", "FILE,…", NULL, "private root keys of the root before, which sign it, too",
     SETTING_LIST},
    {"manifests", "FILE,…", NULL, "public keys that may sign manifests", SETTING_LIST},
    {"heads", "FILE,…", NULL, "public keys that may sign heads", SETTING_LIST},
    {"version", "NUMBER", "1", "of the root: one above the one in force", SETTING_TEXT},
    {"threshold-roots", "NUMBER", "0", "root keys that must sign; 0: all of them", SETTING_TEXT},
    {"threshold-manifests", "NUMBER", "1", "manifest keys that must sign", SETTING_TEXT},
    {"days", "DAYS", "365", "until the root ends", SETTING_TEXT},
    {"head-days", "DAYS", "7", "until its head keys end", SETTING_TEXT},
    {"out", "DIRECTORY", ".", "where root.<version> is written", SETTING_TEXT},
    CLI_OUTPUT_ROW,
};

static void path_table(const json_t *value)
{
    (void)printf("%s\n", cli_text(value, "path"));
}

static bool root_numbers(const struct cli *cli, struct cp_root_plan *plan)
{
    uint64_t threshold_roots = 0;
    uint64_t threshold_manifests = 0;
    uint64_t days = 0;
    uint64_t head_days = 0;
    bool fine = cli_number(cli, "version", 1, UINT32_MAX, &plan->version) &&
                cli_number(cli, "threshold-roots", 0, ROLE_KEYS_MAX, &threshold_roots) &&
                cli_number(cli, "threshold-manifests", 1, ROLE_KEYS_MAX, &threshold_manifests) &&
                cli_number(cli, "days", 1, DAYS_MAX, &days) &&
                cli_number(cli, "head-days", 1, HEAD_DAYS_MAX, &head_days);
    plan->threshold_roots = (uint32_t)threshold_roots;
    plan->threshold_manifests = (uint32_t)threshold_manifests;
    plan->days = (uint32_t)days;
    plan->head_days = (uint32_t)head_days;
    return fine;
}

static int root(const struct cli *cli)
{
    struct cp_root_plan plan = {
        .environment = cli_need(cli, "environment"),
        .roots = cli_need(cli, "roots"),
        .manifests = cli_need(cli, "manifests"),
        .heads = cli_need(cli, "heads"),
        .signers = settings_get(cli->settings, "signers"),
        .out = settings_get(cli->settings, "out"),
    };
    bool whole = plan.environment != NULL && plan.roots != NULL && plan.manifests != NULL &&
                 plan.heads != NULL;
    if (!whole || !root_numbers(cli, &plan)) {
        return CLI_USAGE;
    }
    auto_buf struct buf message = BUF_MAX(MESSAGE_MAX);
    auto_buf struct buf path = BUF_MAX(MESSAGE_MAX);
    struct err e = cp_root_make(&plan, &path, &message);
    if (!err_ok(e)) {
        return cli_fail_with(e, &message);
    }
    const char *text = NULL;
    if (!err_ok(buf_cstr(&path, &text))) {
        return cli_fail(FAIL(E_NO_MEMORY), NULL);
    }
    json_t *made = json_pack("{s:s, s:I}", "path", text, "version", (json_int_t)plan.version);
    int code = cli_result(cli, made, path_table);
    cli_next("trilane-cp serve --trust-root %s, and the same file as --trust-root of each node",
             text);
    return code;
}

static int root_run(const struct cli_command *self, int argc, char **argv)
{
    struct cli cli;
    int code = CLI_DONE;
    if (cli_begin(&cli, self, argc, argv, &code)) {
        code = root(&cli);
    }
    cli_end(&cli);
    return code;
}

const struct cli_command cli_command_key_root = {
    .name = "key root",
    .args = "--environment NAME --roots FILE,… --manifests FILE,… --heads FILE,…",
    .summary = "makes and signs a root: which keys may sign manifests, heads and the next root",
    .rows = root_rows,
    .row_count = sizeof(root_rows) / sizeof(root_rows[0]),
    .run = root_run,
};

/* ---- key token ---- */

static const struct setting_row token_rows[] = {CLI_OUTPUT_ROW};

static void token_table(const json_t *value)
{
    (void)printf("token:  %s\ndigest: %s\n", cli_text(value, "token"), cli_text(value, "digest"));
}

static int token_run(const struct cli_command *self, int argc, char **argv)
{
    struct cli cli;
    int code = CLI_DONE;
    if (cli_begin(&cli, self, argc, argv, &code)) {
        auto_buf struct buf token = BUF_MAX(MESSAGE_MAX);
        auto_buf struct buf digest = BUF_MAX(MESSAGE_MAX);
        const char *token_text = NULL;
        const char *digest_text = NULL;
        struct err e = cp_token_make(&token, &digest);
        if (err_ok(e)) {
            e = buf_cstr(&token, &token_text);
        }
        if (err_ok(e)) {
            e = buf_cstr(&digest, &digest_text);
        }
        if (err_ok(e)) {
            cli_say("give the token to the client; only the digest belongs into the sources");
            json_t *pair = json_pack("{s:s, s:s}", "token", token_text, "digest", digest_text);
            code = cli_result(&cli, pair, token_table);
        } else {
            code = cli_fail(e, NULL);
        }
    }
    cli_end(&cli);
    return code;
}

const struct cli_command cli_command_key_token = {
    .name = "key token",
    .args = "",
    .summary = "makes a random static token, and the digest that the sources keep of it",
    .rows = token_rows,
    .row_count = sizeof(token_rows) / sizeof(token_rows[0]),
    .run = token_run,
};
