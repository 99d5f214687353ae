/* cmd_root: root show, root sign, root publish: the next root on its way, from hand to hand and to
 * the control plane. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/scope.h"
#include "controlplane/api/json.h"
#include "controlplane/api/root.h"
#include "controlplane/cli/client.h"
#include "controlplane/cli/commands.h"
#include "controlplane/cli/keys.h"
#include "controlplane/identity/draft.h"

enum { MESSAGE_MAX = 4096 };

/* ---- what a draft says ---- */

static json_t *names_of(const struct root *root, const struct cp_draft_side *side)
{
    json_t *names = json_array();
    for (uint32_t i = 0; i < root->ring.count; i++) {
        if (side->by[i]) {
            (void)json_array_append_new(names, json_string(root->ring.keys[i].name));
        }
    }
    return names;
}

static json_t *side_of(const struct root *root, const struct cp_draft_side *side)
{
    return json_pack("{s:I, s:I, s:I, s:o}", "root", (json_int_t)root->version, "signed",
                     (json_int_t)side->count, "threshold", (json_int_t)side->threshold, "by",
                     names_of(root, side));
}

static bool has_key(const struct root *root, const struct ring_key *key)
{
    for (uint32_t i = 0; i < root->ring.count; i++) {
        const struct ring_key *other = &root->ring.keys[i];
        if (other->role == key->role && memcmp(other->public, key->public, KEY_PUBLIC_SIZE) == 0) {
            return true;
        }
    }
    return false;
}

/* Keys of one root that the other lacks, as "role name". */
static json_t *missing_from(const struct root *in, const struct root *from)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < in->ring.count; i++) {
        const struct ring_key *key = &in->ring.keys[i];
        if (!has_key(from, key)) {
            (void)json_array_append_new(list,
                                        json_sprintf("%s %s", key_role_name(key->role), key->name));
        }
    }
    return list;
}

static json_t *draft_of(const struct cp_draft *draft)
{
    json_t *signatures = json_array();
    (void)json_array_append_new(signatures, side_of(&draft->root, &draft->own));
    json_t *value = json_pack("{s:o, s:b, s:o}", "root", cp_json_root(&draft->root), "whole",
                              draft->whole, "signatures", signatures);
    if (draft->has_before) {
        (void)json_array_append_new(signatures, side_of(&draft->before, &draft->previous));
        (void)json_object_set_new(value, "added", missing_from(&draft->root, &draft->before));
        (void)json_object_set_new(value, "dropped", missing_from(&draft->before, &draft->root));
    }
    return value;
}

static void list_table(const char *title, const json_t *list)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        (void)printf("%s%s", i == 0 ? title : ", ", json_string_value(json_array_get(list, i)));
    }
    if (json_array_size(list) > 0) {
        (void)printf("\n");
    }
}

static void draft_table(const json_t *value)
{
    const json_t *signatures = json_object_get(value, "signatures");
    cli_root_table(value);
    list_table("added: ", json_object_get(value, "added"));
    list_table("dropped: ", json_object_get(value, "dropped"));
    for (size_t i = 0; i < json_array_size(signatures); i++) {
        const json_t *side = json_array_get(signatures, i);
        (void)printf("root keys of root %" JSON_INTEGER_FORMAT ": %" JSON_INTEGER_FORMAT
                     " signed, %" JSON_INTEGER_FORMAT " must\n",
                     cli_int(side, "root"), cli_int(side, "signed"), cli_int(side, "threshold"));
        list_table("  ", json_object_get(side, "by"));
    }
    (void)printf("%s\n", json_is_true(json_object_get(value, "whole"))
                             ? "it is whole: nodes take it"
                             : "it is not whole yet");
}

/* ---- root show ---- */

static const struct setting_row show_rows[] = {
    {"previous", "FILE", NULL, "the root before; default: root.<n-1> beside it", SETTING_TEXT},
    CLI_OUTPUT_ROW,
};

static int show(const struct cli *cli)
{
    const char *path = settings_arg(cli->settings, 0);
    if (path == NULL) {
        cli_say("error: USAGE: root show needs a ROOT or a DRAFT");
        return CLI_USAGE;
    }
    auto_buf struct buf message = BUF_MAX(MESSAGE_MAX);
    struct cp_draft draft;
    struct err e = cp_draft_read(path, settings_get(cli->settings, "previous"), &draft, &message);
    int code =
        err_ok(e) ? cli_result(cli, draft_of(&draft), draft_table) : cli_fail_with(e, &message);
    cp_draft_free(&draft);
    return code;
}

/* ---- root sign ---- */

static const struct setting_row sign_rows[] = {
    {"key", "FILE", NULL, "private root key, mode 0600", SETTING_TEXT},
    {"previous", "FILE", NULL, "the root before; default: root.<n-1> beside the draft",
     SETTING_TEXT},
    CLI_OUTPUT_ROW,
};

static int signed_result(const struct cli *cli, const char *path, const struct cp_draft *draft,
                         struct buf *made)
{
    const char *text = NULL;
    if (!err_ok(buf_cstr(made, &text))) {
        return cli_fail(FAIL(E_NO_MEMORY), NULL);
    }
    json_t *value = draft_of(draft);
    (void)json_object_set_new(value, "path", json_string(draft->whole ? text : path));
    int code = cli_result(cli, value, draft_table);
    if (draft->whole) {
        cli_next("trilane-cp root publish %s", text);
    } else {
        cli_next("give %s to the next holder of a root key", path);
    }
    return code;
}

static int sign(const struct cli *cli)
{
    const char *path = settings_arg(cli->settings, 0);
    const char *key = cli_need(cli, "key");
    if (key == NULL) {
        return CLI_USAGE;
    }
    if (path == NULL) {
        cli_say("error: USAGE: root sign needs the DRAFT");
        return CLI_USAGE;
    }
    auto_buf struct buf message = BUF_MAX(MESSAGE_MAX);
    auto_buf struct buf made = BUF_MAX(MESSAGE_MAX);
    struct cp_draft draft;
    struct err e =
        cp_draft_sign(path, settings_get(cli->settings, "previous"), key, &draft, &made, &message);
    int code = err_ok(e) ? signed_result(cli, path, &draft, &made) : cli_fail_with(e, &message);
    cp_draft_free(&draft);
    return code;
}

/* ---- root publish ---- */

static const struct setting_row publish_rows[] = {
    {"author", "NAME", NULL, "who; default: the account's name", SETTING_TEXT},
    CLI_SERVER_ROWS,
};

/* The replica that was asked may not be able to go on under it: then its keys are next. */
static void published_table(const json_t *value)
{
    const json_t *here = json_object_get(value, "here");
    enum err_code code = E_OK;
    (void)printf("root %" JSON_INTEGER_FORMAT " is published\n", cli_int(value, "version"));
    if (err_find(cli_text(here, "code"), &code) && code != E_OK) {
        (void)printf("  this replica cannot lead under it: %s: %s\n", err_name(code),
                     err_text(code));
    }
    if (!json_is_true(json_object_get(here, "manifest_known"))) {
        (void)printf("  this replica's manifest key is not in it\n");
    }
}

static int send(const struct cli *cli, const struct cp_draft *draft)
{
    char account[64];
    const char *author = settings_get(cli->settings, "author");
    cli_account(account, sizeof(account));
    json_t *body = json_pack("{s:o, s:s}", "root", cp_json_base64(buf_slice(&draft->bytes)),
                             "author", author == NULL ? account : author);
    json_t *answer = NULL;
    struct err e = cli_call(cli, "/api/v1/roots", body, &answer);
    json_decref(body);
    if (!err_ok(e)) {
        return cli_refused(cli, e, answer);
    }
    int code = cli_result(cli, answer, published_table);
    cli_next("trilane-cp key list");
    return code;
}

static int publish(const struct cli *cli)
{
    const char *path = settings_arg(cli->settings, 0);
    if (path == NULL) {
        cli_say("error: USAGE: root publish needs the ROOT: the file root.<version>");
        return CLI_USAGE;
    }
    auto_buf struct buf message = BUF_MAX(MESSAGE_MAX);
    struct cp_draft draft;
    struct err e = cp_draft_read(path, /* previous= */ NULL, &draft, &message);
    int code = err_ok(e) ? send(cli, &draft) : cli_fail_with(e, &message);
    cp_draft_free(&draft);
    return code;
}

CLI_RUN(show)
CLI_RUN(sign)
CLI_RUN(publish)

const struct cli_command cli_command_root_show = {
    .name = "root show",
    .arg_max = 1,
    .args = "[--previous ROOT] FILE",
    .summary = "shows a root or a draft: its keys, what is new, who signed",
    CLI_ROWS(show_rows),
    .run = show_run,
};

const struct cli_command cli_command_root_sign = {
    .name = "root sign",
    .arg_max = 1,
    .args = "--key FILE [--previous ROOT] DRAFT",
    .summary = "adds one signature to a draft; with the last one it becomes the root",
    CLI_ROWS(sign_rows),
    .run = sign_run,
};

const struct cli_command cli_command_root_publish = {
    .name = "root publish",
    .arg_max = 1,
    .args = "ROOT",
    .summary = "gives the next root to the control plane, and so to all replicas and nodes",
    CLI_ROWS(publish_rows),
    .run = publish_run,
};
