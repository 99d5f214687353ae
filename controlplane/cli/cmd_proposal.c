/* cmd_proposal: proposal show, proposal sign: a publication that waits for signatures, and the
 * break-glass key. */
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/scope.h"
#include "common/base/text.h"
#include "common/snapshot/manifest.h"
#include "controlplane/cli/client.h"
#include "controlplane/cli/commands.h"
#include "controlplane/publish/cosign.h"
#include "controlplane/publish/removals.h"
#include "controlplane/publish/streams.h"

static const struct setting_row show_rows[] = {CLI_SERVER_ROWS};
static const struct setting_row sign_rows[] = {
    {"key", "FILE", NULL, "private manifest key, mode 0600: the break-glass key", SETTING_TEXT},
    {"unseen", NULL, NULL, "sign without compiling the sources here: trust the server's word",
     SETTING_FLAG},
    {"author", "NAME", NULL, "who; default: the account's name", SETTING_TEXT},
    CLI_SERVER_ROWS,
};

/* ---- show ---- */

static void show_table(const json_t *value)
{
    const json_t *signatures = json_object_get(value, "signatures");
    (void)printf("version %" JSON_INTEGER_FORMAT ", epoch %" JSON_INTEGER_FORMAT
                 ", manifest %.16s…; %" JSON_INTEGER_FORMAT " signatures are needed\n",
                 cli_int(value, "version"), cli_int(value, "epoch"),
                 cli_text(value, "manifest_digest"), cli_int(value, "threshold"));
    if (cli_int(value, "origin") != 0) {
        (void)printf("  content of version %" JSON_INTEGER_FORMAT "%s\n", cli_int(value, "origin"),
                     json_is_true(json_object_get(value, "with_trust"))
                         ? "; what was revoked since then is taken again"
                         : "");
    }
    for (size_t i = 0; i < json_array_size(signatures); i++) {
        const json_t *s = json_array_get(signatures, i);
        const char *code = cli_text(s, "code");
        (void)printf("  %s %s%s%s%s\n", cli_text(s, "key"),
                     code[0] == '\0' ? "signed" : "refused: ", code, code[0] == '\0' ? "" : ": ",
                     cli_text(s, "message"));
    }
}

static int show(const struct cli *cli)
{
    json_t *answer = NULL;
    struct err e = cli_call(cli, "/api/v1/proposal", /* body= */ NULL, &answer);
    if (e.code == E_NOT_FOUND) {
        json_decref(answer);
        return cli_fail_fix(e, "no publication waits for signatures", NULL);
    }
    return err_ok(e) ? cli_result(cli, answer, show_table) : cli_refused(cli, e, answer);
}

/* ---- sign ---- */

struct signing {
    const struct cli *cli;
    json_t *proposal;
    struct buf body; /* of the manifest: what is signed. */
    struct buf sentence;
    struct key_pair *pair;
};

static struct err take_body(struct signing *s)
{
    const char *text = cli_text(s->proposal, "body");
    size_t size = strlen(text);
    uint8_t *room = NULL;
    size_t used = 0;
    TRY(buf_reserve(&s->body, size + 1, &room));
    if (sodium_base642bin(room, size + 1, text, size, NULL, &used, NULL,
                          sodium_base64_VARIANT_ORIGINAL) != 0) {
        return FAIL(E_MALFORMED);
    }
    buf_commit(&s->body, used);
    return OK;
}

static struct err agree_compiled(struct signing *s, const struct cp_compiled *compiled,
                                 uint32_t format)
{
    struct cp_streams *streams = calloc(1, sizeof(*streams));
    if (streams == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    const struct cp_streams_options options = {.format = format};
    struct err e = cp_streams_cut(compiled, &options, streams);
    if (err_ok(e)) {
        struct manifest_plan mine = {.version = (uint64_t)cli_int(s->proposal, "version"),
                                     .capabilities = cp_compiled_capabilities(compiled),
                                     .streams = streams->streams,
                                     .stream_count = streams->count};
        e = cp_cosign_agree(buf_slice(&s->body), &mine, &s->sentence);
    }
    cp_streams_free(streams);
    free(streams);
    return e;
}

/* What the control plane adds to the sources only tightens; it is said how much it is. */
static struct err add_carried(struct signing *s, struct cp_source_set *set)
{
    auto_removals struct cp_removals carried = {.items = NULL};
    struct slice text = slice_str(cli_text(s->proposal, "carried"));
    if (text.size == 0) {
        return OK;
    }
    TRY(cp_removals_parse(text, &carried));
    cli_say("with the revocation of %zu certificates of nodes that were removed", carried.count);
    return cp_source_set_add(set, CP_REMOVALS_FILE, text);
}

/* Makes the same content of the sources at hand, in the format that is proposed: nobody signs what
 * they have not seen. */
static struct err agree(struct signing *s, uint32_t format)
{
    const char *path = settings_arg(s->cli->settings, 0);
    struct cp_source_set set;
    struct cp_diags diags;
    struct cp_compiled *compiled = NULL;
    cp_source_set_init(&set);
    cp_diags_init(&diags, &set);
    diags.published = true; /* the leader judged them. */
    struct err e = cp_source_set_load(&set, path, &s->sentence);
    if (err_ok(e)) {
        e = add_carried(s, &set);
    }
    if (err_ok(e)) {
        e = cp_compile_set(&set, &diags, &(struct cp_compile_options){0}, &compiled);
    }
    if (err_ok(e)) {
        e = agree_compiled(s, compiled, format);
    }
    cp_compiled_free(compiled);
    cp_diags_free(&diags);
    cp_source_set_free(&set);
    return e;
}

/* The bytes are judged as a manifest of that very version before anything is signed. */
static struct err make(struct signing *s, struct container_signature *out)
{
    auto_manifest struct manifest manifest = {0};
    uint8_t environment[ENVIRONMENT_SIZE];
    TRY(take_body(s));
    TRY(manifest_decode(buf_slice(&s->body), &manifest));
    if (manifest.version != (uint64_t)cli_int(s->proposal, "version")) {
        return FAIL(E_MANIFEST_MIXED);
    }
    if (!settings_flag(s->cli->settings, "unseen")) {
        TRY(agree(s, manifest_format(&manifest)));
    }
    snap_environment(slice_str(cli_text(s->proposal, "environment")), environment);
    return container_sign(CONTAINER_MANIFEST, environment, buf_slice(&s->body), s->pair, out);
}

static void signed_table(const json_t *value)
{
    (void)printf("version %" JSON_INTEGER_FORMAT " signed with %s\n", cli_int(value, "version"),
                 cli_text(value, "key"));
}

static int send(struct signing *s, const struct container_signature *signature)
{
    char key_text[2 * KEY_ID_SIZE + 1];
    char signature_text[2 * KEY_SIGNATURE_SIZE + 1];
    char account[CP_AUTHOR_MAX + 1];
    const char *author = settings_get(s->cli->settings, "author");
    text_hex(slice_of(signature->key_id, sizeof(signature->key_id)), key_text);
    text_hex(slice_of(signature->signature, sizeof(signature->signature)), signature_text);
    cli_account(account, sizeof(account));
    json_t *body = json_pack("{s:I, s:s, s:s, s:s}", "version", cli_int(s->proposal, "version"),
                             "key_id", key_text, "signature", signature_text, "author",
                             author == NULL ? account : author);
    json_t *answer = NULL;
    struct err e = cli_call(s->cli, "/api/v1/proposal/sign", body, &answer);
    json_decref(body);
    return err_ok(e) ? cli_result(s->cli, answer, signed_table) : cli_refused(s->cli, e, answer);
}

static int sign_with(struct signing *s)
{
    struct container_signature signature;
    const char *text = NULL;
    struct err e = key_file_read(settings_get(s->cli->settings, "key"), s->pair);
    if (err_ok(e) && s->pair->public.role != KEY_ROLE_MANIFEST) {
        e = FAIL(E_USAGE);
    }
    if (!err_ok(e)) {
        return cli_fail_fix(e, "--key: expected a private manifest key that only you may read", "");
    }
    e = cli_call(s->cli, "/api/v1/proposal", /* body= */ NULL, &s->proposal);
    if (!err_ok(e)) {
        return cli_refused(s->cli, e, json_incref(s->proposal));
    }
    e = make(s, &signature);
    return err_ok(e) ? send(s, &signature)
                     : cli_fail(e, err_ok(buf_cstr(&s->sentence, &text)) ? text : NULL);
}

static int sign(const struct cli *cli)
{
    bool unseen = settings_flag(cli->settings, "unseen");
    if (cli_need(cli, "key") == NULL) {
        return CLI_USAGE;
    }
    if (!unseen && settings_arg(cli->settings, 0) == NULL) {
        cli_say("error: USAGE: proposal sign needs the DIRECTORY of the sources, to make the same "
                "of them; or --unseen");
        return CLI_USAGE;
    }
    auto_key_pair struct key_pair pair = {0};
    struct signing s = {.cli = cli,
                        .body = BUF_MAX(MANIFEST_BODY_MAX + 1),
                        .sentence = BUF_MAX(8192),
                        .pair = &pair};
    int code = sign_with(&s);
    json_decref(s.proposal);
    buf_free(&s.body);
    buf_free(&s.sentence);
    return code;
}

CLI_RUN(show)
CLI_RUN(sign)

const struct cli_command cli_command_proposal_show = {
    .name = "proposal show",
    .args = "",
    .summary = "shows the publication that waits for signatures, and who signed",
    CLI_ROWS(show_rows),
    .run = show_run,
};
const struct cli_command cli_command_proposal_sign = {
    .name = "proposal sign",
    .arg_max = 1,
    .args = "--key FILE DIRECTORY",
    .summary = "signs it with a key of yours, after making the same content of the sources",
    CLI_ROWS(sign_rows),
    .run = sign_run,
};
