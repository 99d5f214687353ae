/* cmd_keys: key list, key rotate, key revoke: the keys of a root, and the draft of the next one. */
#include <inttypes.h>
#include <stdio.h>

#include "common/base/scope.h"
#include "controlplane/api/root.h"
#include "controlplane/cli/client.h"
#include "controlplane/cli/commands.h"
#include "controlplane/cli/keys.h"
#include "controlplane/identity/draft.h"

enum { MESSAGE_MAX = 4096, DAYS_MAX = 36500, HEAD_DAYS_MAX = 366, DROPS_MAX = 16 };

/* ---- key list ---- */

static const struct setting_row list_rows[] = {CLI_SERVER_ROWS};

static void live_table(const json_t *answer)
{
    cli_root_table(answer);
    const json_t *here = json_object_get(answer, "here");
    enum err_code code = E_OK;
    if (err_find(cli_text(here, "code"), &code) && code != E_OK) {
        (void)printf("this replica cannot lead: %s: %s\n", err_name(code), err_text(code));
    }
    if (!json_is_true(json_object_get(here, "manifest_known"))) {
        (void)printf("this replica's manifest key %s is not in the root: its signature counts for "
                     "nothing\n",
                     cli_text(here, "manifest_key"));
    }
}

static int list_live(const struct cli *cli)
{
    json_t *answer = NULL;
    struct err e = cli_call(cli, "/api/v1/roots", /* body= */ NULL, &answer);
    return err_ok(e) ? cli_result(cli, answer, live_table) : cli_refused(cli, e, answer);
}

static int list_file(const struct cli *cli, const char *path)
{
    auto_buf struct buf message = BUF_MAX(MESSAGE_MAX);
    struct cp_draft draft;
    struct err e = cp_draft_read(path, /* previous= */ NULL, &draft, &message);
    cp_draft_free(&draft);
    if (!err_ok(e)) {
        return cli_fail_with(e, &message);
    }
    return cli_result(cli, json_pack("{s:o}", "root", cp_json_root(&draft.root)), cli_root_table);
}

static int list(const struct cli *cli)
{
    const char *path = settings_arg(cli->settings, 0);
    return path == NULL ? list_live(cli) : list_file(cli, path);
}

CLI_RUN(list)

const struct cli_command cli_command_key_list = {
    .name = "key list",
    .arg_max = 1,
    .args = "[ROOT]",
    .summary = "shows the keys of a root file; without one, of the root that the server has",
    CLI_ROWS(list_rows),
    .run = list_run,
};

/* ---- key rotate, key revoke ---- */

#define DRAFT_ROWS                                                                                 \
    {"threshold-roots", "NUMBER", "0", "root keys that must sign; 0: as before", SETTING_TEXT},    \
        {"threshold-manifests", "NUMBER", "0", "manifest keys that must sign; 0: as before",       \
         SETTING_TEXT},                                                                            \
        {"days", "DAYS", "365", "until the root ends", SETTING_TEXT},                              \
        {"head-days", "DAYS", "7", "until the head keys that are added end", SETTING_TEXT},        \
        {"floor-epoch", "NUMBER", NULL, "sets nodes to this epoch: with floor-version",            \
         SETTING_TEXT},                                                                            \
        {"floor-version", "NUMBER", NULL, "sets nodes to this version: with floor-epoch",          \
         SETTING_TEXT},                                                                            \
        {"out", "DIRECTORY", ".", "where root.<next>.draft is written", SETTING_TEXT},             \
        CLI_OUTPUT_ROW

static const struct setting_row rotate_rows[] = {
    {"add", "FILE,…", "", "public keys to add; a head key that is there gets a new end",
     SETTING_LIST},
    {"drop", "KEY,…", "", "keys to take away: NAME, ROLE:NAME or id", SETTING_LIST},
    DRAFT_ROWS,
};
static const struct setting_row revoke_rows[] = {DRAFT_ROWS};

static bool read_numbers(const struct cli *cli, struct cp_draft_plan *plan)
{
    uint64_t roots = 0;
    uint64_t manifests = 0;
    uint64_t days = 0;
    uint64_t head_days = 0;
    bool fine = cli_number(cli, "threshold-roots", 0, ROLE_KEYS_MAX, &roots) &&
                cli_number(cli, "threshold-manifests", 0, ROLE_KEYS_MAX, &manifests) &&
                cli_number(cli, "days", 1, DAYS_MAX, &days) &&
                cli_number(cli, "head-days", 1, HEAD_DAYS_MAX, &head_days);
    plan->thresholds[KEY_ROLE_ROOT] = (uint32_t)roots;
    plan->thresholds[KEY_ROLE_MANIFEST] = (uint32_t)manifests;
    plan->days = (uint32_t)days;
    plan->head_days = (uint32_t)head_days;
    return fine;
}

static bool read_floor(const struct cli *cli, struct cp_draft_plan *plan)
{
    bool epoch = settings_get(cli->settings, "floor-epoch") != NULL;
    bool version = settings_get(cli->settings, "floor-version") != NULL;
    plan->has_floor = epoch || version;
    if (epoch != version) {
        cli_say("error: USAGE: a floor has both: --floor-epoch and --floor-version");
        return false;
    }
    return !plan->has_floor ||
           (cli_number(cli, "floor-epoch", 0, INT64_MAX, &plan->floor.epoch) &&
            cli_number(cli, "floor-version", 0, INT64_MAX, &plan->floor.version));
}

static void draft_table(const json_t *value)
{
    cli_root_table(value);
    (void)printf("draft: %s\n", cli_text(value, "path"));
}

static int make_draft(const struct cli *cli, struct cp_draft_plan *plan)
{
    plan->root = settings_arg(cli->settings, 0);
    plan->out = settings_get(cli->settings, "out");
    if (plan->root == NULL) {
        cli_say("error: USAGE: %s needs the ROOT in force: the file root.<version>",
                cli->command->name);
        return CLI_USAGE;
    }
    if (!read_numbers(cli, plan) || !read_floor(cli, plan)) {
        return CLI_USAGE;
    }
    auto_buf struct buf message = BUF_MAX(MESSAGE_MAX);
    auto_buf struct buf path = BUF_MAX(MESSAGE_MAX);
    struct root next;
    const char *text = NULL;
    struct err e = cp_draft_make(plan, &next, &path, &message);
    if (!err_ok(e)) {
        return cli_fail_with(e, &message);
    }
    if (!err_ok(buf_cstr(&path, &text))) {
        return cli_fail(FAIL(E_NO_MEMORY), NULL);
    }
    int code = cli_result(cli, json_pack("{s:o, s:s}", "root", cp_json_root(&next), "path", text),
                          draft_table);
    cli_next("trilane-cp root sign --key ROOTKEY --previous %s %s", plan->root, text);
    return code;
}

static int rotate(const struct cli *cli)
{
    struct cp_draft_plan plan = {.add = settings_get(cli->settings, "add"),
                                 .drop = settings_get(cli->settings, "drop")};
    return make_draft(cli, &plan);
}

static int take_away(const struct cli *cli)
{
    auto_buf struct buf drops = BUF_MAX(MESSAGE_MAX);
    struct cp_draft_plan plan = {.add = ""};
    struct err e = OK;
    const char *key = NULL;
    for (size_t i = 1; err_ok(e) && (key = settings_arg(cli->settings, i)) != NULL; i++) {
        e = buf_addf(&drops, "%s%s", i == 1 ? "" : ",", key);
    }
    if (err_ok(e)) {
        e = buf_cstr(&drops, &plan.drop);
    }
    if (!err_ok(e)) {
        return cli_fail(e, NULL);
    }
    if (drops.size == 0) {
        cli_say("error: USAGE: key revoke needs the ROOT in force and the KEYs to take away");
        return CLI_USAGE;
    }
    return make_draft(cli, &plan);
}

CLI_RUN(rotate)
CLI_RUN(take_away)

const struct cli_command cli_command_key_rotate = {
    .name = "key rotate",
    .arg_max = 1,
    .args = "--add FILE,… [--drop KEY,…] ROOT",
    .summary = "makes the draft of the next root: with new keys, without old ones",
    CLI_ROWS(rotate_rows),
    .run = rotate_run,
};

const struct cli_command cli_command_key_revoke = {
    .name = "key revoke",
    .arg_max = 1 + DROPS_MAX,
    .args = "ROOT KEY…",
    .summary = "makes the draft of the next root without these keys: NAME, ROLE:NAME or id",
    CLI_ROWS(revoke_rows),
    .run = take_away_run,
};
