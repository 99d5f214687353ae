/* settings: see settings.h. */
#include "common/base/settings.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/scope.h"
#include "common/base/slice.h"
#include "common/base/text.h"

enum { NAME_MAX_BYTES = 64, CONFIG_MAX_BYTES = 1 << 20 };

/* Where a value came from; a higher one wins. */
enum origin { ORIGIN_NONE, ORIGIN_DEFAULT, ORIGIN_FILE, ORIGIN_ENVIRONMENT, ORIGIN_FLAG };

struct value {
    char *text;
    enum origin origin;
};

struct limit_row {
    const char *name; /* with underscores. */
    uint64_t *at;
    uint64_t dflt;
    uint64_t min;
    uint64_t max;
    const char *unit;
    const char *why;
};

static const struct limit_row limit_rows[] = {
#define X(name, dflt, min, max, unit, why) {#name, &limits.name, dflt, min, max, unit, why},
    LIMITS_LIST(X)
#undef X
};
enum { LIMIT_COUNT = sizeof(limit_rows) / sizeof(limit_rows[0]) };

struct settings {
    const struct setting_row *rows;
    size_t row_count;
    struct value *values; /* row_count of the table, then LIMIT_COUNT. */
    char *config_path;
    const char **args;
    size_t arg_count;
};

/* What a limit's value may end with; without, it is of the row's own unit. */
static const struct unit {
    const char *of; /* the row's unit. */
    const char *name;
    uint64_t factor;
} units[] = {
    {"ms", "ms", 1},
    {"ms", "s", 1000},
    {"ms", "m", 60000},
    {"ms", "h", 3600000},
    {"bytes", "B", 1},
    {"bytes", "KiB", UINT64_C(1) << 10},
    {"bytes", "MiB", UINT64_C(1) << 20},
    {"bytes", "GiB", UINT64_C(1) << 30},
};
enum { UNIT_COUNT = sizeof(units) / sizeof(units[0]) };

/* "nats-urls" and "nats_urls" are one name; the first is the written one. */
static void canonical_name(const char *name, char out[NAME_MAX_BYTES])
{
    size_t i = 0;
    for (; i < NAME_MAX_BYTES - 1 && name[i] != '\0'; i++) {
        out[i] = name[i] == '_' ? '-' : name[i];
    }
    out[i] = '\0';
}

static const char *name_at(const struct settings *s, size_t index, char out[NAME_MAX_BYTES])
{
    canonical_name(
        index < s->row_count ? s->rows[index].name : limit_rows[index - s->row_count].name, out);
    return out;
}

/* A limit's name without its unit: "ack-wait" of "ack-wait-ms". False for all other rows. */
static bool short_name(const struct settings *s, size_t index, char out[NAME_MAX_BYTES])
{
    if (index < s->row_count) {
        return false;
    }
    size_t unit = strlen(limit_rows[index - s->row_count].unit);
    size_t size = strlen(name_at(s, index, out));
    bool ends = size > unit + 1 && out[size - unit - 1] == '-' &&
                strcmp(out + size - unit, limit_rows[index - s->row_count].unit) == 0;
    out[ends ? size - unit - 1 : 0] = '\0';
    return ends;
}

static bool find(const struct settings *s, const char *name, size_t *out)
{
    char want[NAME_MAX_BYTES];
    char have[NAME_MAX_BYTES];
    canonical_name(name, want);
    for (size_t i = 0; i < s->row_count + LIMIT_COUNT; i++) {
        if (strcmp(name_at(s, i, have), want) == 0 ||
            (short_name(s, i, have) && strcmp(have, want) == 0)) {
            *out = i;
            return true;
        }
    }
    return false;
}

static struct err say_unknown(const struct settings *s, const char *name, const char *place,
                              struct buf *message)
{
    char best[NAME_MAX_BYTES] = "";
    size_t best_distance = strlen(name) / 3 + 2; /* a typo or two, no other word. */
    best_distance = best_distance < 4 ? best_distance : 4;
    for (size_t i = 0; i < s->row_count + LIMIT_COUNT; i++) {
        char have[NAME_MAX_BYTES];
        size_t distance = text_distance(slice_str(name), slice_str(name_at(s, i, have)));
        if (distance < best_distance) {
            best_distance = distance;
            (void)memcpy(best, have, sizeof(best));
        }
    }
    TRY(buf_addf(message, "%s: no setting is called \"%s\"", place, name));
    if (best[0] != '\0') {
        TRY(buf_addf(message, "; did you mean \"%s\"?", best));
    }
    return FAIL(E_USAGE);
}

/* "30000", "30s" and "30000ms" of a limit in ms. */
static bool limit_number(const struct limit_row *row, struct slice text, uint64_t *out)
{
    size_t digits = 0;
    while (digits < text.size && text.ptr[digits] >= '0' && text.ptr[digits] <= '9') {
        digits++;
    }
    struct slice name = slice_from(text, digits);
    uint64_t factor = name.size == 0 ? 1 : 0;
    for (size_t i = 0; i < UNIT_COUNT; i++) {
        if (strcmp(units[i].of, row->unit) == 0 && slice_eq(name, slice_str(units[i].name))) {
            factor = units[i].factor;
        }
    }
    return factor > 0 && slice_to_u64(slice_head(text, digits), out) &&
           !__builtin_mul_overflow(*out, factor, out);
}

static MUST_CHECK struct err set_limit(const struct limit_row *row, const char *text,
                                       const char *place, struct buf *message)
{
    uint64_t number = 0;
    if (!limit_number(row, slice_str(text), &number) || number < row->min || number > row->max) {
        TRY(buf_addf(message,
                     "%s: %s is \"%s\"; expected a whole number of %s from %" PRIu64 " to %" PRIu64,
                     place, row->name, text, row->unit, row->min, row->max));
        return FAIL(E_USAGE);
    }
    *row->at = number;
    return OK;
}

static MUST_CHECK struct err check_switch(const struct setting_row *row, const char *text,
                                          const char *place, struct buf *message)
{
    if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0) {
        TRY(buf_addf(message, "%s: %s is \"%s\"; expected true or false", place, row->name, text));
        return FAIL(E_USAGE);
    }
    return OK;
}

/* What a flag says, behind what the same flag said before. */
static char *listed(const char *before, const char *text)
{
    size_t size = strlen(before) + strlen(text) + 2;
    char *both = malloc(size);
    CHECK(both != NULL);
    (void)snprintf(both, size, "%s,%s", before, text);
    return both;
}

static bool is_list(const struct settings *s, size_t index)
{
    return index < s->row_count && s->rows[index].kind == SETTING_LIST;
}

static MUST_CHECK struct err set(struct settings *s, size_t index, const char *text,
                                 enum origin origin, const char *place, struct buf *message)
{
    struct value *value = &s->values[index];
    if (value->origin > origin) {
        return OK;
    }
    if (index >= s->row_count) {
        TRY(set_limit(&limit_rows[index - s->row_count], text, place, message));
    } else if (s->rows[index].kind == SETTING_FLAG) {
        TRY(check_switch(&s->rows[index], text, place, message));
    }
    bool more = is_list(s, index) && origin == ORIGIN_FLAG && value->origin == ORIGIN_FLAG;
    char *next = more ? listed(value->text, text) : slice_dup(slice_str(text));
    free(value->text);
    value->text = next;
    value->origin = origin;
    return OK;
}

static bool is_flag(const struct settings *s, size_t index)
{
    return index < s->row_count && s->rows[index].kind == SETTING_FLAG;
}

/* What follows the flag's name, in this argument or in the next one, which is then used up. */
static const char *flag_text(const char *equals, bool is_switch, int argc, char **argv, int *at)
{
    if (equals != NULL) {
        return equals + 1;
    }
    if (is_switch) {
        return "true";
    }
    return *at + 1 < argc ? argv[++*at] : NULL;
}

/* Reads the flag at argv[*at], and its value. */
static MUST_CHECK struct err read_flag(struct settings *s, int argc, char **argv, int *at,
                                       struct buf *message)
{
    const char *arg = argv[*at];
    const char *name_at_arg = arg + (strncmp(arg, "--", 2) == 0 ? 2 : 1);
    const char *equals = strchr(name_at_arg, '=');
    size_t name_size = equals == NULL ? strlen(name_at_arg) : (size_t)(equals - name_at_arg);
    auto_free char *name = slice_dup(slice_of(name_at_arg, name_size));
    size_t index = 0;
    bool is_config = strcmp(name, "config") == 0;
    if (!is_config && !find(s, name, &index)) {
        return say_unknown(s, name, "command line", message);
    }
    const char *text = flag_text(equals, !is_config && is_flag(s, index), argc, argv, at);
    if (text == NULL) {
        TRY(buf_addf(message, "command line: %s%s needs a value", name_size == 1 ? "-" : "--",
                     name));
        return FAIL(E_USAGE);
    }
    if (is_config) {
        free(s->config_path);
        s->config_path = slice_dup(slice_str(text));
        return OK;
    }
    return set(s, index, text, ORIGIN_FLAG, "command line", message);
}

static MUST_CHECK struct err read_flags(struct settings *s, int argc, char **argv,
                                        struct buf *message)
{
    bool flags_over = false;
    for (int i = 0; i < argc; i++) {
        const char *arg = argv[i];
        if (flags_over || arg[0] != '-' || strcmp(arg, "-") == 0) {
            s->args[s->arg_count++] = arg;
        } else if (strcmp(arg, "--") == 0) {
            flags_over = true;
        } else {
            TRY(read_flag(s, argc, argv, &i, message));
        }
    }
    return OK;
}

/* The value of "nats-urls" is that of TRILANE_NATS_URLS; 'variable' keeps the name. */
static const char *environment_text(const char *name, char variable[NAME_MAX_BYTES + 8])
{
    static const char front[] = "TRILANE_";
    size_t at = sizeof(front) - 1;
    (void)memcpy(variable, front, sizeof(front));
    for (size_t k = 0; name[k] != '\0'; k++) {
        variable[at++] = name[k] == '-' ? '_' : (char)toupper((unsigned char)name[k]);
    }
    variable[at] = '\0';
    const char *text = getenv(variable); /* NOLINT(concurrency-mt-unsafe): before any thread. */
    return text != NULL && text[0] != '\0' ? text : NULL;
}

static MUST_CHECK struct err read_environment(struct settings *s, struct buf *message)
{
    for (size_t i = 0; i < s->row_count + LIMIT_COUNT; i++) {
        char name[NAME_MAX_BYTES];
        char variable[NAME_MAX_BYTES + 8];
        const char *text = environment_text(name_at(s, i, name), variable);
        if (text == NULL && short_name(s, i, name)) {
            text = environment_text(name, variable);
        }
        if (text != NULL) {
            TRY(set(s, i, text, ORIGIN_ENVIRONMENT, variable, message));
        }
    }
    return OK;
}

static char *trim(char *text)
{
    while (*text == ' ' || *text == '\t') {
        text++;
    }
    size_t size = strlen(text);
    while (size > 0 && strchr(" \t\r\n", text[size - 1]) != NULL) {
        text[--size] = '\0';
    }
    if (size >= 2 && (text[0] == '"' || text[0] == '\'') && text[size - 1] == text[0]) {
        text[size - 1] = '\0';
        text++;
    }
    return text;
}

static MUST_CHECK struct err read_line(struct settings *s, char *line, const char *place,
                                       struct buf *message)
{
    char *at = trim(line);
    if (*at == '\0' || *at == '#') {
        return OK;
    }
    char *colon = strchr(at, ':');
    if (colon == NULL) {
        TRY(buf_addf(message, "%s: found \"%s\"; expected \"key: value\"", place, at));
        return FAIL(E_USAGE);
    }
    *colon = '\0';
    char *name = trim(at);
    size_t index = 0;
    if (!find(s, name, &index)) {
        return say_unknown(s, name, place, message);
    }
    return set(s, index, trim(colon + 1), ORIGIN_FILE, place, message);
}

static void close_file(FILE **file)
{
    if (*file != NULL) {
        (void)fclose(*file);
    }
}

static MUST_CHECK struct err read_file(struct settings *s, const char *path, struct buf *message)
{
    __attribute__((cleanup(close_file))) FILE *file = fopen(path, "re");
    if (file == NULL) {
        TRY(buf_addf(message, "--config %s: the file cannot be read", path));
        return FAIL(E_USAGE);
    }
    auto_free char *line = NULL;
    size_t capacity = 0;
    size_t total = 0;
    for (int number = 1;; number++) { /* ends at the end of the file, or past the bound. */
        ssize_t size = getline(&line, &capacity, file);
        if (size < 0) {
            return OK;
        }
        total += (size_t)size;
        if (total > CONFIG_MAX_BYTES) {
            TRY(buf_addf(message, "--config %s: larger than 1 MiB", path));
            return FAIL(E_USAGE);
        }
        char place[512];
        (void)snprintf(place, sizeof(place), "%s:%d", path, number);
        TRY(read_line(s, line, place, message));
    }
}

static MUST_CHECK struct err read_all(struct settings *s, int argc, char **argv,
                                      struct buf *message)
{
    TRY(read_flags(s, argc, argv, message));
    TRY(read_environment(s, message));
    const char *path = s->config_path;
    if (path == NULL) {
        path = getenv("TRILANE_CONFIG"); /* NOLINT(concurrency-mt-unsafe): before any thread. */
    }
    if (path != NULL && path[0] != '\0') {
        TRY(read_file(s, path, message));
    }
    for (size_t i = 0; i < s->row_count; i++) {
        if (s->values[i].origin == ORIGIN_NONE && s->rows[i].dflt != NULL) {
            TRY(set(s, i, s->rows[i].dflt, ORIGIN_DEFAULT, "default", message));
        }
    }
    return OK;
}

struct err settings_load(const struct setting_row *rows, size_t row_count, int argc, char **argv,
                         struct settings **out, struct buf *message)
{
    struct settings *s = calloc(1, sizeof(*s));
    CHECK(s != NULL);
    s->rows = rows;
    s->row_count = row_count;
    s->values = calloc(row_count + LIMIT_COUNT, sizeof(*s->values));
    s->args = calloc((size_t)argc + 1, sizeof(*s->args));
    CHECK(s->values != NULL && s->args != NULL);
    struct err err = read_all(s, argc, argv, message);
    if (!err_ok(err)) {
        settings_free(s);
        return err;
    }
    *out = s;
    return OK;
}

void settings_free(struct settings *s)
{
    if (s == NULL) {
        return;
    }
    for (size_t i = 0; i < s->row_count + LIMIT_COUNT; i++) {
        free(s->values[i].text);
    }
    free(s->values);
    free(s->config_path);
    free(s->args);
    free(s);
}

const char *settings_get(const struct settings *s, const char *name)
{
    size_t index = 0;
    CHECK(find(s, name, &index));
    return s->values[index].text;
}

bool settings_by_flag(const struct settings *s, const char *name)
{
    size_t index = 0;
    CHECK(find(s, name, &index));
    return s->values[index].origin == ORIGIN_FLAG;
}

bool settings_flag(const struct settings *s, const char *name)
{
    const char *text = settings_get(s, name);
    return text != NULL && strcmp(text, "true") == 0;
}

const char *settings_arg(const struct settings *s, size_t index)
{
    return index < s->arg_count ? s->args[index] : NULL;
}

/* Bytes of UTF-8 that take no column of their own: those that go on with a character. */
static size_t continuation_bytes(const char *text)
{
    size_t count = 0;
    for (; *text != '\0'; text++) {
        count += ((unsigned char)*text & 0xc0) == 0x80;
    }
    return count;
}

struct err settings_help(const struct setting_row *rows, size_t row_count, struct buf *out)
{
    enum { FLAG_COLUMNS = 30 };
    for (size_t i = 0; i < row_count; i++) {
        const struct setting_row *row = &rows[i];
        char flag[NAME_MAX_BYTES * 2];
        (void)snprintf(flag, sizeof(flag), "%s%s%s%s", row->name[1] == '\0' ? "-" : "--", row->name,
                       row->value == NULL ? "" : " ", row->value == NULL ? "" : row->value);
        int width = FLAG_COLUMNS + (int)continuation_bytes(flag);
        TRY(buf_addf(out, "  %-*s %s", width, flag, row->help));
        if (row->dflt != NULL && row->dflt[0] != '\0') {
            TRY(buf_addf(out, " (default %s)", row->dflt));
        }
        TRY(buf_add_str(out, "\n"));
    }
    return buf_add_str(
        out, "  --config FILE                  lines \"key: value\", each key a setting\n");
}

static bool begins_with_one_of(const char *name, struct slice words)
{
    while (words.size > 0) {
        struct slice word = slice_head(words, slice_find(words, '|'));
        if (slice_starts(slice_str(name), word)) {
            return true;
        }
        words = slice_from(words, word.size + 1);
    }
    return false;
}

struct err settings_help_limits(const char *which, struct buf *out)
{
    TRY(buf_add_str(out, "\nLimits, settings as well:\n"));
    for (size_t i = 0; i < LIMIT_COUNT; i++) {
        char name[NAME_MAX_BYTES];
        canonical_name(limit_rows[i].name, name);
        if (which != NULL && !begins_with_one_of(name, slice_str(which))) {
            continue;
        }
        TRY(buf_addf(out, "  --%-28s %s (default %" PRIu64 ", %" PRIu64 " to %" PRIu64 " %s)\n",
                     name, limit_rows[i].why, limit_rows[i].dflt, limit_rows[i].min,
                     limit_rows[i].max, limit_rows[i].unit));
    }
    return OK;
}
