/* cli: see cli.h. */
#include "controlplane/cli/cli.h"

#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/scope.h"
#include "common/base/slice.h"
#include "controlplane/store/store.h"

enum { HELP_MAX = 256 << 10, MESSAGE_MAX = 4096, YAML_MAX = 64 << 20, YAML_DEPTH = 32 };

/* ---- arguments ---- */

static bool wants_help(int argc, char **argv)
{
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            return true;
        }
    }
    return false;
}

static int print_help(const struct cli_command *command)
{
    auto_buf struct buf page = BUF_MAX(HELP_MAX);
    struct err e = settings_help(command->rows, command->row_count, &page);
    if (err_ok(e) && command->needs_limits) {
        e = settings_help_limits(command->limits, &page);
    }
    if (!err_ok(e)) {
        return cli_fail(e, NULL);
    }
    (void)printf("trilane-cp %s %s\n\n%s.\n\n%.*s", command->name, command->args, command->summary,
                 SLICE_ARG(buf_slice(&page)));
    return CLI_DONE;
}

static bool find_format(const char *name, enum cli_format *out)
{
    static const char *const names[] = {"table", "json", "yaml"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = (enum cli_format)i;
            return true;
        }
    }
    return false;
}

bool cli_begin(struct cli *cli, const struct cli_command *command, int argc, char **argv,
               int *out_code)
{
    *cli = (struct cli){.command = command};
    if (wants_help(argc, argv)) {
        *out_code = print_help(command);
        return false;
    }
    auto_buf struct buf message = BUF_MAX(MESSAGE_MAX);
    struct err e =
        settings_load(command->rows, command->row_count, argc, argv, &cli->settings, &message);
    const char *text = NULL;
    if (!err_ok(e)) {
        *out_code = cli_fail(e, err_ok(buf_cstr(&message, &text)) ? text : NULL);
        return false;
    }
    const char *format = settings_get(cli->settings, "output");
    if (!find_format(format, &cli->format)) {
        cli_say("error: USAGE: --output is \"%s\"; expected table, json or yaml", format);
        *out_code = CLI_USAGE;
        return false;
    }
    const char *extra = settings_arg(cli->settings, command->arg_max);
    if (extra != NULL) {
        cli_say("error: USAGE: %s does not take \"%s\"; see trilane-cp %s --help", command->name,
                extra, command->name);
        *out_code = CLI_USAGE;
        return false;
    }
    return true;
}

void cli_end(struct cli *cli)
{
    settings_free(cli->settings);
    cli->settings = NULL;
}

const char *cli_need(const struct cli *cli, const char *name)
{
    const char *value = settings_get(cli->settings, name);
    if (value == NULL || value[0] == '\0') {
        cli_say("error: USAGE: %s needs --%s; see trilane-cp %s --help", cli->command->name, name,
                cli->command->name);
        return NULL;
    }
    return value;
}

bool cli_store_fine(const struct cli *cli)
{
    const char *url = settings_get(cli->settings, "store");
    if (url == NULL || !settings_by_flag(cli->settings, "store") || !cp_store_url_has_secret(url)) {
        return true;
    }
    cli_say("error: USAGE: --store: a password on the command line can be read by everybody on "
            "this machine; give the URL by the environment (TRILANE_STORE) or by a line \"store: "
            "…\" of --config FILE, or leave the password out and put it into ~/.pgpass "
            "(PGPASSFILE)");
    return false;
}

bool cli_number(const struct cli *cli, const char *name, uint64_t min, uint64_t max, uint64_t *out)
{
    const char *text = settings_get(cli->settings, name);
    uint64_t number = 0;
    if (!slice_to_u64(slice_str(text), &number) || number < min || number > max) {
        cli_say("error: USAGE: --%s is \"%s\"; expected a whole number from %llu to %llu", name,
                text == NULL ? "" : text, (unsigned long long)min, (unsigned long long)max);
        return false;
    }
    *out = number;
    return true;
}

bool cli_duration(const struct cli *cli, const char *name, uint64_t *out_ms)
{
    static const struct {
        char unit;
        uint64_t ms;
    } units[] = {{'s', 1000}, {'m', 60000}, {'h', 3600000}, {'d', 86400000}};
    struct slice text = slice_str(settings_get(cli->settings, name));
    char unit = text.size == 0 ? '\0' : (char)text.ptr[text.size - 1];
    uint64_t number = 0;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (units[i].unit == unit && slice_to_u64(slice_head(text, text.size - 1), &number) &&
            !__builtin_mul_overflow(number, units[i].ms, out_ms) && *out_ms <= INT64_MAX) {
            return true;
        }
    }
    cli_say("error: USAGE: --%s is \"%.*s\"; expected 90s, 15m, 1h or 7d", name, SLICE_ARG(text));
    return false;
}

/* ---- output ---- */

void cli_say(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vfprintf(stderr, format, args);
    va_end(args);
    (void)fputc('\n', stderr);
}

void cli_next(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)fputs("next: ", stderr);
    (void)vfprintf(stderr, format, args);
    va_end(args);
    (void)fputc('\n', stderr);
}

int cli_exit_of(enum err_code code)
{
    if (code == E_OK) {
        return CLI_DONE;
    }
    if (code == E_USAGE) {
        return CLI_USAGE;
    }
    if (code == E_NOT_LIVE) {
        return CLI_NOT_LIVE;
    }
    bool reach = code == E_UNAVAILABLE || code == E_BUS_UNAVAILABLE || code == E_TIMEOUT ||
                 code == E_NOT_LEADER || code == E_CLOSED || code == E_SIGNER_GONE ||
                 code == E_COSIGNERS_MISSING || code == E_STORE_LOCKED || code == E_STORE_DEPOSED;
    return reach ? CLI_UNREACHABLE : CLI_REFUSED;
}

int cli_fail_with(struct err e, struct buf *message)
{
    const char *text = NULL;
    return cli_fail(e, err_ok(buf_cstr(message, &text)) ? text : NULL);
}

int cli_fail_fix(struct err e, const char *message, const char *fix)
{
    bool has_message = message != NULL && message[0] != '\0';
    bool has_fix = fix != NULL && fix[0] != '\0';
    fix = has_fix ? fix : err_fix(e.code);
    cli_say("error: %s: %s", err_name(e.code), has_message ? message : err_text(e.code));
    if (fix[0] != '\0') {
        cli_say("  fix: %s", fix);
    }
    return cli_exit_of(e.code);
}

int cli_fail(struct err e, const char *message)
{
    return cli_fail_fix(e, message, /* fix= */ NULL);
}

const char *cli_text(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text == NULL ? "" : text;
}

json_int_t cli_int(const json_t *object, const char *name)
{
    return json_integer_value(json_object_get(object, name));
}

const char *cli_age(json_int_t age_ms, char out[CLI_AGE_SIZE])
{
    static const struct {
        json_int_t seconds;
        char unit;
    } units[] = {{86400, 'd'}, {3600, 'h'}, {60, 'm'}};
    json_int_t seconds = age_ms < 0 ? 0 : age_ms / 1000;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (seconds >= 2 * units[i].seconds) {
            (void)snprintf(out, CLI_AGE_SIZE, "%" JSON_INTEGER_FORMAT "%c",
                           seconds / units[i].seconds, units[i].unit);
            return out;
        }
    }
    (void)snprintf(out, CLI_AGE_SIZE, "%" JSON_INTEGER_FORMAT "s", seconds);
    return out;
}

/* Every text is quoted: nothing in it can then be read as another type. */
static struct err yaml_scalar(const json_t *value, struct buf *out)
{
    char *text = json_dumps(value, JSON_ENCODE_ANY);
    if (text == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    struct err e = buf_add_str(out, text);
    free(text);
    return e;
}

static bool yaml_is_block(const json_t *value)
{
    return (json_is_object(value) && json_object_size(value) > 0) ||
           (json_is_array(value) && json_array_size(value) > 0);
}

static struct err yaml_value(const json_t *value, unsigned depth, struct buf *out);

static struct err yaml_indent(unsigned depth, struct buf *out)
{
    for (unsigned i = 0; i < depth; i++) {
        TRY(buf_add_str(out, "  "));
    }
    return OK;
}

static struct err yaml_item(const json_t *value, unsigned depth, struct buf *out)
{
    if (yaml_is_block(value)) {
        TRY(buf_add_byte(out, '\n'));
        return yaml_value(value, depth + 1, out);
    }
    TRY(buf_add_byte(out, ' '));
    TRY(yaml_scalar(value, out));
    return buf_add_byte(out, '\n');
}

static struct err yaml_object(const json_t *value, unsigned depth, struct buf *out)
{
    const char *name = NULL;
    const json_t *member = NULL;
    /* jansson's macro wants a json_t * that is not const, and changes nothing. */
    union {
        const json_t *in;
        json_t *out;
    } object = {value};
    json_t *at = NULL;
    json_object_foreach(object.out, name, at)
    {
        member = at;
        TRY(yaml_indent(depth, out));
        TRY(buf_addf(out, "%s:", name));
        TRY(yaml_item(member, depth, out));
    }
    return OK;
}

static struct err yaml_value(const json_t *value, unsigned depth, struct buf *out)
{
    if (depth > YAML_DEPTH) {
        return FAIL(E_TOO_LARGE);
    }
    if (json_is_object(value)) {
        return yaml_object(value, depth, out);
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        TRY(yaml_indent(depth, out));
        TRY(buf_add_byte(out, '-'));
        TRY(yaml_item(json_array_get(value, i), depth, out));
    }
    return OK;
}

struct err cli_yaml(const json_t *value, struct buf *out)
{
    if (yaml_is_block(value)) {
        return yaml_value(value, 0, out);
    }
    TRY(yaml_scalar(value, out));
    return buf_add_byte(out, '\n');
}

static int print_json(const json_t *value)
{
    if (json_dumpf(value, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY) != 0) {
        return cli_fail(FAIL(E_IO), NULL);
    }
    (void)fputc('\n', stdout);
    return CLI_DONE;
}

static int print_yaml(const json_t *value)
{
    auto_buf struct buf text = BUF_MAX(YAML_MAX);
    struct err e = cli_yaml(value, &text);
    if (!err_ok(e)) {
        return cli_fail(e, NULL);
    }
    (void)fwrite(text.ptr, 1, text.size, stdout);
    return CLI_DONE;
}

int cli_result(const struct cli *cli, json_t *value, cli_table_fn *table)
{
    int code = CLI_DONE;
    switch (cli->format) {
    case CLI_TABLE:
        table(value);
        break;
    case CLI_JSON:
        code = print_json(value);
        break;
    case CLI_YAML:
        code = print_yaml(value);
        break;
    }
    json_decref(value);
    return fflush(stdout) == 0 ? code : cli_fail(FAIL(E_IO), "standard output cannot be written");
}

void cli_account(char *out, size_t size)
{
    struct passwd entry;
    struct passwd *found = NULL;
    char room[4096];
    (void)snprintf(out, size, "uid-%u", (unsigned)geteuid());
    if (getpwuid_r(geteuid(), &entry, room, sizeof(room), &found) == 0 && found != NULL) {
        (void)snprintf(out, size, "%s", entry.pw_name);
    }
}
