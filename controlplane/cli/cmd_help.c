/* cmd_help: what a code means and what to do about it, and commands' pages, without a server. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "common/base/text.h"
#include "controlplane/cli/commands.h"
#include "controlplane/source/diag.h"

enum { NAME_SIZE = 64 };

static const struct setting_row rows[] = {
    {"errors", NULL, NULL, "all codes", SETTING_FLAG},
    CLI_OUTPUT_ROW,
};

static void code_table(const json_t *value)
{
    (void)printf("%s: %s\n", cli_text(value, "code"), cli_text(value, "message"));
    if (cli_text(value, "fix")[0] != '\0') {
        (void)printf("  fix: %s\n", cli_text(value, "fix"));
    }
    json_int_t grpc = json_integer_value(json_object_get(value, "grpc_status"));
    json_int_t http = json_integer_value(json_object_get(value, "http_status"));
    if (http != 0) {
        (void)printf("  gRPC status %" JSON_INTEGER_FORMAT ", HTTP status %" JSON_INTEGER_FORMAT
                     "\n",
                     grpc, http);
    }
}

/* "policy_denied" and "E_POLICY_DENIED" are POLICY_DENIED. */
static bool find_error(const char *text, enum err_code *out)
{
    char name[NAME_SIZE];
    if (strncmp(text, "E_", 2) == 0) {
        text += 2;
    }
    size_t size = strlen(text);
    if (size >= sizeof(name)) {
        return false;
    }
    for (size_t i = 0; i <= size; i++) {
        name[i] = text[i] == '-' ? '_' : (char)toupper((unsigned char)text[i]);
    }
    return err_find(name, out);
}

static int not_found(const char *text)
{
    const char *nearest = NULL;
    size_t best = strlen(text) / 3 + 2;
    for (int code = 0; code < E_COUNT; code++) {
        const char *name = err_name((enum err_code)code);
        size_t distance = text_distance(slice_str(text), slice_str(name));
        if (distance < best) {
            best = distance;
            nearest = name;
        }
    }
    cli_say("error: NOT_FOUND: no code or command is called \"%s\"%s%s%s", text,
            nearest == NULL ? "" : "; did you mean \"", nearest == NULL ? "" : nearest,
            nearest == NULL ? "" : "\"?");
    cli_next("trilane-cp help --errors");
    return CLI_REFUSED;
}

static int explain(const struct cli *cli, const char *text)
{
    enum err_code code = E_OK;
    struct cp_diag_row row;
    if (find_error(text, &code)) {
        return cli_result(cli,
                          json_pack("{s:s, s:s, s:s, s:i, s:i}", "code", err_name(code), "message",
                                    err_text(code), "fix", err_fix(code), "grpc_status",
                                    err_grpc_status(code), "http_status", err_http_status(code)),
                          code_table);
    }
    if (cp_diag_find(slice_str(text), &row)) {
        char name[NAME_SIZE];
        (void)snprintf(name, sizeof(name), "TL%d", (int)row.code);
        return cli_result(cli,
                          json_pack("{s:s, s:s, s:s, s:s}", "code", name, "name", row.name,
                                    "message", row.text, "fix", row.fix),
                          code_table);
    }
    return not_found(text);
}

/* Every code with its meaning: what docs/errors.md holds, for who has only the program. */
static int print_errors(void)
{
    for (int i = 0; i < E_COUNT; i++) {
        enum err_code code = (enum err_code)i;
        (void)printf("%-24s %s\n", err_name(code), err_text(code));
    }
    struct cp_diag_row row;
    for (size_t i = 0; cp_diag_at(i, &row); i++) {
        (void)printf("TL%-22d %s\n", (int)row.code, row.text);
    }
    return CLI_DONE;
}

/* All commands, or those of a group ("key"); false: there is none. */
static bool list_commands(const char *group)
{
    size_t size = group == NULL ? 0 : strlen(group);
    bool any = false;
    const struct cli_command *command = NULL;
    for (size_t i = 0; (command = cli_command_at(i)) != NULL; i++) {
        if (size == 0 || (strncmp(command->name, group, size) == 0 && command->name[size] == ' ')) {
            (void)printf("%-16s %s\n", command->name, command->summary);
            any = true;
        }
    }
    return any;
}

/* "help publish" is "publish --help"; -1: the words name no command. */
static int command_page(int argc, char **argv)
{
    static char flag[] = "--help";
    int words = 0;
    const struct cli_command *command = cli_command_find(argc, argv, &words);
    if (command == NULL || words != argc) {
        return -1;
    }
    return command->run(command, 1, (char *[]){flag, NULL});
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    int page = command_page(argc, argv);
    if (page >= 0) {
        return page;
    }
    struct cli cli;
    int code = CLI_DONE;
    if (cli_begin(&cli, self, argc, argv, &code)) {
        const char *text = settings_arg(cli.settings, 0);
        if (settings_flag(cli.settings, "errors")) {
            code = print_errors();
        } else if (!list_commands(text)) {
            code = explain(&cli, text);
        }
    }
    cli_end(&cli);
    return code;
}

const struct cli_command cli_command_help = {
    .name = "help",
    .arg_max = 1,
    .args = "[CODE | COMMAND]",
    .summary = "says what a code means and what to do about it; or shows a command's settings",
    .rows = rows,
    .row_count = sizeof(rows) / sizeof(rows[0]),
    .run = run,
};
