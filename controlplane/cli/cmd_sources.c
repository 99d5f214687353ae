/* cmd_sources: validate, plan, publish, rollback: what sends sources, or brings old ones back. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/scope.h"
#include "controlplane/cli/client.h"
#include "controlplane/cli/commands.h"
#include "controlplane/cli/live.h"
#include "controlplane/compile/compile.h"
#include "controlplane/store/store.h"

static const struct setting_row validate_rows[] = {CLI_SERVER_ROWS};
static const struct setting_row plan_rows[] = {
    {"exit-code", NULL, NULL, "end with 5 when there are differences", SETTING_FLAG},
    CLI_SERVER_ROWS,
};

#define PUBLISH_ROWS                                                                               \
    {"m", "MESSAGE", NULL, "why: for the history", SETTING_TEXT},                                  \
        {"message", "MESSAGE", NULL, "the same as -m", SETTING_TEXT},                              \
        {"author", "NAME", NULL, "who; default: the account's name", SETTING_TEXT},                \
        {"base", "VERSION", NULL, "refuse unless this is the newest version", SETTING_TEXT},       \
        {"sign-timeout", "SECONDS", "10", "how long to wait for other replicas' signatures",       \
         SETTING_TEXT},                                                                            \
        {"wait", "yes|no", "yes", "wait until all live nodes run it", SETTING_TEXT},               \
        {"timeout", "SECONDS", "60", "how long to wait for the nodes", SETTING_TEXT},              \
        CLI_SERVER_ROWS

static const struct setting_row publish_rows[] = {
    {"again", NULL, NULL, "a new version even when nothing changed", SETTING_FLAG},
    {"plan", "ID", NULL, "what was planned under this id, instead of a directory", SETTING_TEXT},
    PUBLISH_ROWS,
};
static const struct setting_row rollback_rows[] = {
    {"with-trust", NULL, NULL, "what was revoked since then is taken again, too", SETTING_FLAG},
    {"yes-really", "VERSION", NULL, "the version once more: --with-trust without being asked",
     SETTING_TEXT},
    PUBLISH_ROWS,
};
static const struct setting_row recover_rows[] = {
    {"give-up", NULL, NULL, "publish the database's newest content anew, above what the bucket has",
     SETTING_FLAG},
    {"above", "VERSION", "0", "hand out only numbers above this one, too", SETTING_TEXT},
    {"with-trust", NULL, NULL,
     "what was revoked since then is taken again, where it cannot be read", SETTING_FLAG},
    {"yes-really", "VERSION", "0", "the version that is given up, once more: for --with-trust",
     SETTING_TEXT},
    PUBLISH_ROWS,
};

/* ---- validate: offline ---- */

static void valid_table(const json_t *value)
{
    (void)printf("valid: %s, %" JSON_INTEGER_FORMAT " files, %" JSON_INTEGER_FORMAT " parts\n",
                 cli_text(value, "environment"), cli_int(value, "files"), cli_int(value, "parts"));
}

static int print_invalid(const struct cli *cli, struct err e, const struct cp_diags *diags)
{
    auto_buf struct buf text = BUF_MAX(16 << 20);
    if (cli->format == CLI_TABLE) {
        if (err_ok(cp_diags_text(diags, &text))) {
            (void)fwrite(text.ptr, 1, text.size, stderr);
        }
    } else if (err_ok(cp_diags_json(diags, &text))) {
        json_t *list = json_loadb((const char *)text.ptr, text.size, 0, NULL);
        (void)cli_result(cli,
                         json_pack("{s:s, s:o, s:I}", "code", err_name(e.code), "diagnostics", list,
                                   "dropped", (json_int_t)diags->dropped),
                         valid_table);
    }
    int code = cli_fail(e, NULL);
    cli_next("trilane-cp help TL%d", diags->count > 0 ? (int)diags->items[0]->code : 1001);
    return code;
}

static int validate_set(const struct cli *cli, const char *path, struct cp_source_set *set)
{
    struct cp_diags diags;
    struct cp_compiled *compiled = NULL;
    cp_diags_init(&diags, set);
    struct cp_compile_options once = {0};
    struct err e = cp_compile_set(set, &diags, &once, &compiled);
    int code = CLI_DONE;
    if (!err_ok(e)) {
        code = print_invalid(cli, e, &diags);
    } else {
        size_t parts = 0;
        (void)cp_compiled_parts(compiled, &parts);
        struct slice environment = cp_compiled_environment(compiled);
        code = cli_result(cli,
                          json_pack("{s:s%, s:I, s:I}", "environment",
                                    (const char *)environment.ptr, environment.size, "files",
                                    (json_int_t)set->count, "parts", (json_int_t)parts),
                          valid_table);
        cli_next("trilane-cp plan %s", path);
    }
    cp_compiled_free(compiled);
    cp_diags_free(&diags);
    return code;
}

/* The sources of the first argument: CLI_DONE; or says what is wrong and gives the exit code. */
static int load_set(const struct cli *cli, struct cp_source_set *set)
{
    const char *path = settings_arg(cli->settings, 0);
    if (path == NULL) {
        cli_say("error: USAGE: %s needs a DIRECTORY or FILE of sources", cli->command->name);
        return CLI_USAGE;
    }
    auto_buf struct buf message = BUF_MAX(8192);
    const char *text = NULL;
    struct err e = cp_source_set_load(set, path, &message);
    if (err_ok(e) && set->count + set->unread_count == 0) {
        e = buf_addf(&message, "%s: no sources in it", path);
        e = err_ok(e) ? FAIL(E_SOURCE_INVALID) : e;
    }
    return err_ok(e) ? CLI_DONE
                     : cli_fail_fix(e, err_ok(buf_cstr(&message, &text)) ? text : NULL,
                                    "name a directory of .yaml files, or one such file");
}

static int validate(const struct cli *cli)
{
    struct cp_source_set set;
    cp_source_set_init(&set);
    int code = load_set(cli, &set);
    code = code == CLI_DONE ? validate_set(cli, settings_arg(cli->settings, 0), &set) : code;
    cp_source_set_free(&set);
    return code;
}

/* ---- plan ---- */

static void plan_table(const json_t *value)
{
    json_int_t base = cli_int(value, "base");
    bool moved = json_is_true(json_object_get(value, "same_content")) &&
                 !json_is_true(json_object_get(value, "unchanged"));
    (void)fputs(cli_text(value, "diff_text"), stdout);
    if (moved) {
        (void)printf("only the lines moved on which things stand\n");
    }
    (void)printf("plan %s\nbase: version %" JSON_INTEGER_FORMAT "%s; content %.16s… in format "
                 "%" JSON_INTEGER_FORMAT "; %" JSON_INTEGER_FORMAT
                 " chunks; would reach %" JSON_INTEGER_FORMAT " live nodes\n",
                 cli_text(value, "plan"), base, base == 0 ? " (nothing was published yet)" : "",
                 cli_text(json_object_get(value, "record"), "content_digest"),
                 cli_int(value, "format"), cli_int(value, "chunks"), cli_int(value, "nodes_live"));
}

/* {files: …} of the first argument: CLI_DONE; or says what is wrong and gives the exit code. */
static int sources_body(const struct cli *cli, json_t **out)
{
    struct cp_source_set set;
    cp_source_set_init(&set);
    int code = load_set(cli, &set);
    if (code == CLI_DONE && set.unread_count > 0) {
        /* Nothing is sent without them; what else is wrong is said in the same go. */
        code = validate_set(cli, settings_arg(cli->settings, 0), &set);
    } else if (code == CLI_DONE) {
        *out = json_pack("{s:o}", "files", cli_files(&set));
    }
    cp_source_set_free(&set);
    return code;
}

/* Ready to paste: with the settings that this command was given. */
static void next_publish(const struct cli *cli, json_int_t base)
{
    static const char *const names[] = {"server", "token-file", "tls-ca"};
    (void)fprintf(stderr, "next: trilane-cp publish --base %" JSON_INTEGER_FORMAT, base);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const char *value = settings_get(cli->settings, names[i]);
        if (value != NULL && strcmp(value, CLI_SERVER) != 0) {
            (void)fprintf(stderr, " --%s %s", names[i], value);
        }
    }
    cli_say(" -m MESSAGE %s", settings_arg(cli->settings, 0));
}

static int plan(const struct cli *cli)
{
    json_t *body = NULL;
    int code = sources_body(cli, &body);
    if (code != CLI_DONE) {
        return code;
    }
    json_t *answer = NULL;
    struct err e = cli_call(cli, "/api/v1/plan", body, &answer);
    json_decref(body);
    if (!err_ok(e)) {
        return cli_refused(cli, e, answer);
    }
    bool same = json_is_true(json_object_get(answer, "same_content"));
    bool unchanged = json_is_true(json_object_get(answer, "unchanged"));
    json_int_t base = cli_int(answer, "base");
    code = cli_result(cli, answer, plan_table);
    if (unchanged) {
        cli_next("trilane-cp status");
    } else {
        next_publish(cli, base);
    }
    return code == CLI_DONE && !same && settings_flag(cli->settings, "exit-code") ? CLI_DIFFERENT
                                                                                  : code;
}

/* ---- publish, rollback ---- */

static bool add_words(const struct cli *cli, json_t *body)
{
    const struct settings *settings = cli->settings;
    const char *message = settings_get(settings, "m");
    message = message == NULL ? settings_get(settings, "message") : message;
    char author[CLI_AUTHOR_SIZE];
    cli_author(cli, author);
    if (message == NULL || message[0] == '\0') {
        cli_say("error: USAGE: %s needs -m MESSAGE: why, for the history", cli->command->name);
        return false;
    }
    (void)json_object_set_new(body, "message", json_string(message));
    (void)json_object_set_new(body, "author", json_string(author));
    if (settings_get(settings, "base") != NULL) {
        uint64_t base = 0;
        if (!cli_number(cli, "base", 0, INT64_MAX, &base)) {
            return false;
        }
        (void)json_object_set_new(body, "base", json_integer((json_int_t)base));
    }
    return true;
}

static void published_table(const json_t *value)
{
    const json_t *record = json_object_get(value, "record");
    json_int_t version = cli_int(record, "version");
    if (json_is_true(json_object_get(value, "unchanged"))) {
        (void)printf("nothing changed: version %" JSON_INTEGER_FORMAT
                     " has this content already; --again publishes it under a new number\n",
                     version);
        return;
    }
    (void)printf("published version %" JSON_INTEGER_FORMAT " (content %.16s…, %" JSON_INTEGER_FORMAT
                 " of %" JSON_INTEGER_FORMAT " chunks new)\n",
                 version, cli_text(record, "content_digest"), cli_int(value, "chunks_new"),
                 cli_int(value, "chunks"));
}

/* People see what was published before the wait; a program gets one value, after it. */
static int show_and_wait(const struct cli *cli, json_t *answer, uint64_t timeout_s)
{
    uint64_t version = (uint64_t)cli_int(json_object_get(answer, "record"), "version");
    int shown = CLI_DONE;
    if (cli->format == CLI_TABLE) {
        shown = cli_result(cli, json_incref(answer), published_table);
    }
    if (!json_is_true(json_object_get(answer, "in_head"))) {
        cli_say("the head does not point at it yet; it will with the leader's next beat");
    }
    int code = CLI_DONE;
    if (strcmp(settings_get(cli->settings, "wait"), "no") != 0) {
        code = cli_wait_live(cli, version, timeout_s, answer);
    }
    if (cli->format == CLI_TABLE) {
        json_decref(answer);
    } else {
        shown = cli_result(cli, answer, published_table);
    }
    cli_next(code == CLI_DONE ? "trilane-cp status" : "trilane-cp status, or trilane-cp rollback");
    return shown == CLI_DONE ? code : shown;
}

static bool knows_wait(const struct cli *cli)
{
    const char *wait = settings_get(cli->settings, "wait");
    if (strcmp(wait, "yes") == 0 || strcmp(wait, "no") == 0) {
        return true;
    }
    cli_say("error: USAGE: --wait is \"%s\"; expected yes or no; --timeout says how long", wait);
    return false;
}

/* Sends, shows what was published, and waits for the nodes. Takes 'body'. */
static int send_and_wait(const struct cli *cli, const char *path, json_t *body)
{
    uint64_t timeout_s = 0;
    uint64_t sign_s = 0;
    if (body == NULL || !add_words(cli, body) || !knows_wait(cli) ||
        !cli_number(cli, "timeout", 0, 86400, &timeout_s) ||
        !cli_number(cli, "sign-timeout", 1, 3600, &sign_s)) {
        json_decref(body);
        return CLI_USAGE;
    }
    (void)json_object_set_new(body, "sign_wait_ms", json_integer((json_int_t)sign_s * 1000));
    json_t *answer = NULL;
    struct err e = cli_call(cli, path, body, &answer);
    json_decref(body);
    return err_ok(e) ? show_and_wait(cli, answer, timeout_s) : cli_refused(cli, e, answer);
}

/* What is to be published: the sources of the first argument, or what was planned. */
static int content_body(const struct cli *cli, json_t **out)
{
    const char *plan = settings_get(cli->settings, "plan");
    if (plan == NULL) {
        return sources_body(cli, out);
    }
    if (settings_arg(cli->settings, 0) != NULL) {
        cli_say("error: USAGE: publish takes a DIRECTORY, or a --plan ID that stands for one");
        return CLI_USAGE;
    }
    *out = json_pack("{s:s}", "plan", plan);
    return CLI_DONE;
}

static int publish(const struct cli *cli)
{
    json_t *body = NULL;
    int code = content_body(cli, &body);
    if (code != CLI_DONE) {
        return code;
    }
    bool again = settings_flag(cli->settings, "again");
    (void)json_object_set_new(body, "again", json_boolean(again));
    return send_and_wait(cli, "/api/v1/publish", body);
}

/* Going back behind revocations is asked for twice: by --yes-really, or at the terminal. */
static bool is_sure(const struct cli *cli, const char *version)
{
    const char *again = settings_get(cli->settings, "yes-really");
    char line[64] = "";
    if (again == NULL && isatty(STDIN_FILENO) == 1) {
        (void)fprintf(stderr,
                      "What was revoked since version %s is taken again: identities, certificates, "
                      "tokens, types.\nType the version once more to go on: ",
                      version);
        again = fgets(line, sizeof(line), stdin);
        line[strcspn(line, "\r\n")] = '\0';
    }
    if (again != NULL && strcmp(again, version) == 0) {
        return true;
    }
    cli_say("error: USAGE: --with-trust is asked for twice: --yes-really %s", version);
    return false;
}

static int rollback(const struct cli *cli)
{
    const char *text = settings_arg(cli->settings, 0);
    bool with_trust = settings_flag(cli->settings, "with-trust");
    uint64_t version = 0;
    if (text == NULL || !slice_to_u64(slice_str(text), &version) || version > INT64_MAX) {
        cli_say("error: USAGE: rollback needs the VERSION whose content comes back");
        return CLI_USAGE;
    }
    if (with_trust && !is_sure(cli, text)) {
        return CLI_USAGE;
    }
    json_t *body = json_pack("{s:I}", "version", (json_int_t)version);
    if (with_trust) {
        (void)json_object_set_new(body, "with_trust", json_true());
        (void)json_object_set_new(body, "confirm", json_integer((json_int_t)version));
    }
    return send_and_wait(cli, "/api/v1/rollback", body);
}

static int recover(const struct cli *cli)
{
    uint64_t above = 0;
    if (!cli_number(cli, "above", 0, INT64_MAX, &above)) {
        return CLI_USAGE;
    }
    bool gives_up = settings_flag(cli->settings, "give-up");
    bool with_trust = settings_flag(cli->settings, "with-trust");
    uint64_t given_up = 0;
    if (!cli_number(cli, "yes-really", 0, INT64_MAX, &given_up)) {
        return CLI_USAGE;
    }
    if (with_trust != (given_up > 0) || (with_trust && !gives_up)) {
        cli_say("error: USAGE: --with-trust goes with --give-up, and is asked for twice: "
                "--yes-really VERSION, the one whose revocations cannot be read");
        return CLI_USAGE;
    }
    json_t *body = json_pack("{s:b, s:I}", "give_up", gives_up, "above", (json_int_t)above);
    if (with_trust) {
        (void)json_object_set_new(body, "with_trust", json_true());
        (void)json_object_set_new(body, "confirm", json_integer((json_int_t)given_up));
    }
    return send_and_wait(cli, "/api/v1/recover", body);
}

/* ---- the table's rows ---- */

CLI_RUN(validate)
CLI_RUN(plan)
CLI_RUN(publish)
CLI_RUN(rollback)
CLI_RUN(recover)

const struct cli_command cli_command_validate = {
    .name = "validate",
    .arg_max = 1,
    .args = "DIRECTORY",
    .summary = "checks sources without a server, and says all that is wrong with them",
    CLI_ROWS(validate_rows),
    .needs_limits = true,
    .limits = "source-|policy-nodes",
    .run = validate_run,
};
const struct cli_command cli_command_plan = {
    .name = "plan",
    .arg_max = 1,
    .args = "DIRECTORY",
    .summary = "shows what publishing these sources would change",
    CLI_ROWS(plan_rows),
    .run = plan_run,
};
const struct cli_command cli_command_publish = {
    .name = "publish",
    .arg_max = 1,
    .args = "-m MESSAGE DIRECTORY|--plan ID",
    .summary = "publishes sources as the next version, and waits until the nodes run it",
    CLI_ROWS(publish_rows),
    .run = publish_run,
};
const struct cli_command cli_command_rollback = {
    .name = "rollback",
    .arg_max = 1,
    .args = "-m MESSAGE VERSION",
    .summary = "publishes the content of an old version under a new one; what was revoked stays",
    CLI_ROWS(rollback_rows),
    .run = rollback_run,
};
const struct cli_command cli_command_recover = {
    .name = "recover",
    .args = "-m MESSAGE",
    .summary = "takes the bucket's newer version into a database that is behind, or gives it up",
    CLI_ROWS(recover_rows),
    .run = recover_run,
};
