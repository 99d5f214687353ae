/* decode_scalar: text, numbers and units. See decode_scalar.h. */
#include "controlplane/source/decode_scalar.h"

#include <stdio.h>

#include "common/base/check.h"

struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit durations[] = {
    {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {NULL, 0}};
static const struct unit sizes[] = {
    {"B", 1}, {"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {NULL, 0}};
/* Of a rate: nanoseconds of the time. */
static const struct unit rates[] = {
    {"/s", 1000000000}, {"/m", 60000000000}, {"/h", 3600000000000}, {NULL, 0}};

/* Of a quota: the window. */
static const struct unit quotas[] = {
    {"/hour", CP_QUOTA_HOUR}, {"/day", CP_QUOTA_DAY}, {"/month", CP_QUOTA_MONTH}, {NULL, 0}};

static const struct unit *units_of(enum cp_type type)
{
    CHECK(type == CP_TYPE_DURATION || type == CP_TYPE_SIZE || type == CP_TYPE_RATE ||
          type == CP_TYPE_QUOTA);
    return type == CP_TYPE_DURATION ? durations
           : type == CP_TYPE_SIZE   ? sizes
           : type == CP_TYPE_RATE   ? rates
                                    : quotas;
}

const char *cp_unit_pattern(enum cp_type type)
{
    return type == CP_TYPE_DURATION ? "^[0-9]{1,12}(ms|s|m|h)$"
           : type == CP_TYPE_SIZE   ? "^[0-9]{1,12}(B|KiB|MiB|GiB)$"
           : type == CP_TYPE_QUOTA  ? "^[1-9][0-9]{0,11}/(hour|day|month)$"
                                    : "^[1-9][0-9]{0,8}/(s|m|h)$";
}

const char *cp_unit_text(enum cp_type type)
{
    return type == CP_TYPE_DURATION ? "a duration: 250ms, 2s, 5m, 1h"
           : type == CP_TYPE_SIZE   ? "a size: 512B, 64KiB, 4MiB, 1GiB"
           : type == CP_TYPE_QUOTA  ? "a quota: 1000/hour, 1000000/day, 5000000/month"
                                    : "a rate: 100/s, 30/m, 5/h";
}

/* A rate is kept as the time between two requests. */
static MUST_CHECK struct err rate_text(struct buf *out, uint64_t period_ns)
{
    const struct unit *unit = rates;
    while (period_ns > unit->factor && unit[1].name != NULL) {
        unit++;
    }
    uint64_t count = period_ns == 0 ? 0 : (unit->factor + period_ns / 2) / period_ns;
    return buf_addf(out, "%llu%s", (unsigned long long)count, unit->name);
}

static MUST_CHECK struct err quota_text(struct buf *out, uint64_t quota)
{
    const struct unit *unit = quotas;
    while (unit->factor != quota >> CP_QUOTA_BITS && unit[1].name != NULL) {
        unit++;
    }
    return buf_addf(out, "%llu%s",
                    (unsigned long long)(quota & ((UINT64_C(1) << CP_QUOTA_BITS) - 1)), unit->name);
}

struct err cp_number_text(struct buf *out, enum cp_type type, uint64_t value)
{
    if (type == CP_TYPE_RATE) {
        return rate_text(out, value);
    }
    if (type == CP_TYPE_QUOTA) {
        return quota_text(out, value);
    }
    if (type != CP_TYPE_DURATION && type != CP_TYPE_SIZE) {
        return buf_addf(out, "%llu", (unsigned long long)value);
    }
    const struct unit *best = units_of(type);
    for (const struct unit *unit = best; value > 0 && unit->name != NULL; unit++) {
        best = value % unit->factor == 0 ? unit : best;
    }
    return buf_addf(out, "%llu%s", (unsigned long long)(value / best->factor), best->name);
}

void cp_refuse_type(struct cp_decode *d, const struct cp_yaml *node, const char *expected)
{
    char text[256];
    struct slice found = cp_yaml_describe(node, text, sizeof(text));
    struct cp_diag *diag =
        cp_diags_add(d->diags, CP_DIAG_WRONG_TYPE, node->at, "found %.*s", SLICE_ARG(found));
    bool quote = node->kind == CP_YAML_SCALAR && cp_yaml_resolve(node) != CP_YAML_TEXT &&
                 cp_yaml_resolve(node) != CP_YAML_NULL;
    bool number = slice_starts(slice_str(expected), SLICE_LIT("a number"));
    bool quoted = node->kind == CP_YAML_SCALAR && !node->plain;
    bool truth = slice_starts(slice_str(expected), SLICE_LIT("true"));
    bool nested = slice_starts(slice_str(expected), SLICE_LIT("a mapping")) ||
                  slice_starts(slice_str(expected), SLICE_LIT("a list"));
    cp_diag_expect(d->diags, diag, "%s%s", expected,
                   quote && !number && !truth && !nested ? "; put it in quotes"
                   : quoted && (number || truth)         ? "; without quotes"
                                                         : "");
}

void cp_refuse_secret(struct cp_decode *d, struct cp_pos at, const char *what)
{
    struct cp_diag *diag =
        cp_diags_add(d->diags, CP_DIAG_SECRET_IN_CLEAR, at, "this looks like %s in clear", what);
    cp_diag_expect(d->diags, diag, "a digest or a reference, never the secret itself");
    cp_diag_mask(d->diags, diag);
}

static bool is_text(struct cp_decode *d, const struct cp_yaml *node, const char *expected)
{
    if (node->kind != CP_YAML_SCALAR || cp_yaml_resolve(node) != CP_YAML_TEXT) {
        cp_refuse_type(d, node, expected);
        return false;
    }
    return true;
}

/* Forms in which any text is at home, and so a secret could be. */
static bool may_hide_secret(enum cp_form form)
{
    return form == CP_FORM_VALUE || form == CP_FORM_HEADER_VALUE || form == CP_FORM_GLOB ||
           form == CP_FORM_PATH || form == CP_FORM_KEY;
}

static bool is_digest_like(struct slice text)
{
    return slice_starts(text, SLICE_LIT("blake2b:"));
}

/* Puts letters into one case, in place. */
static void fold(char *text, size_t size, bool upper)
{
    for (size_t i = 0; i < size; i++) {
        bool other = upper ? text[i] >= 'a' && text[i] <= 'z' : text[i] >= 'A' && text[i] <= 'Z';
        text[i] = (char)(other ? text[i] ^ 0x20 : text[i]);
    }
}

/* The text in the other case, and with hyphens for what looks like one, when that fits. */
static void offer_form(struct cp_decode *d, const struct cp_field *field, struct slice text,
                       struct cp_diag *diag)
{
    char folded[256];
    size_t size = text.size;
    if (size == 0 || size >= sizeof(folded)) {
        return;
    }
    for (size_t i = 0; i < size; i++) {
        char c = (char)text.ptr[i];
        bool hyphen = field->form == CP_FORM_NAME && (c == '_' || c == '.' || c == ' ');
        folded[i] = (char)(hyphen ? '-' : c);
    }
    folded[size] = '\0';
    fold(folded, size, field->form == CP_FORM_HTTP_METHOD);
    struct slice offered = slice_of((const uint8_t *)folded, size);
    if (!slice_eq(offered, text) && cp_form_fits(d->forms, field->form, offered)) {
        cp_diag_nearest(d->diags, diag, offered);
    }
}

static void refuse_form(struct cp_decode *d, const struct cp_field *field,
                        const struct cp_yaml *node)
{
    if (field->form == CP_FORM_DIGEST && !is_digest_like(node->text)) {
        cp_refuse_secret(d, node->at, "a token");
        return;
    }
    bool name = field->form == CP_FORM_NAME;
    struct cp_diag *diag =
        cp_diags_add(d->diags, name ? CP_DIAG_NAME_INVALID : CP_DIAG_FORMAT_INVALID, node->at,
                     "found \"%.*s\"%s", SLICE_ARG(slice_head(node->text, 64)),
                     node->text.size > 64 ? " and more" : "");
    cp_diag_expect(d->diags, diag, "%s", cp_form_at(field->form)->text);
    offer_form(d, field, node->text, diag);
}

struct err cp_decode_text(struct cp_decode *d, const struct cp_field *field,
                          const struct cp_yaml *node, struct cp_text *out)
{
    if (!is_text(d, node, cp_form_at(field->form)->text)) {
        return OK;
    }
    const char *secret = may_hide_secret(field->form) ? cp_secret_text(node->text) : NULL;
    if (secret != NULL) {
        cp_refuse_secret(d, node->at, secret);
        return OK;
    }
    if (!cp_form_fits(d->forms, field->form, node->text)) {
        refuse_form(d, field, node);
        return OK;
    }
    out->at = node->at;
    return arena_dup(d->arena, node->text, &out->text);
}

static void refuse_bound(struct cp_decode *d, const struct cp_yaml *node, const char *least,
                         const char *most)
{
    struct cp_diag *diag = cp_diags_add(d->diags, CP_DIAG_OUT_OF_BOUND, node->at, "found %.*s",
                                        SLICE_ARG(slice_head(node->text, 64)));
    cp_diag_expect(d->diags, diag, "%s to %s", least, most);
}

/* Writes a value in the largest unit that divides it. */
static void show_value(enum cp_type type, uint64_t value, char out[32])
{
    const char *unit = "";
    uint64_t factor = 1;
    if (type == CP_TYPE_DURATION || type == CP_TYPE_SIZE) {
        for (const struct unit *u = units_of(type); u->name != NULL; u++) {
            if (value % u->factor == 0) {
                unit = u->name;
                factor = u->factor;
            }
        }
    }
    (void)snprintf(out, 32, "%llu%s", (unsigned long long)(value / factor), unit);
}

static size_t digits_of(struct slice text)
{
    size_t digits = 0;
    while (digits < text.size && text.ptr[digits] >= '0' && text.ptr[digits] <= '9') {
        digits++;
    }
    return digits;
}

/* A plain decimal; a diagnostic when it is something else. What is past 64 bits is past any bound.
 */
static bool read_count(struct cp_decode *d, uint64_t least, uint64_t most,
                       const struct cp_yaml *node, uint64_t *out)
{
    bool octal = node->text.size > 1 && node->text.ptr[0] == '0'; /* YAML 1.1 reads it as such */
    if (node->kind != CP_YAML_SCALAR || !node->plain || octal || node->text.size == 0 ||
        digits_of(node->text) < node->text.size) {
        char text[96];
        (void)snprintf(text, sizeof(text),
                       "a number from %llu to %llu, without sign and leading zeros",
                       (unsigned long long)least, (unsigned long long)most);
        cp_refuse_type(d, node, text);
        return false;
    }
    if (!slice_to_u64(node->text, out)) {
        *out = UINT64_MAX;
    }
    return true;
}

static bool read_bool(struct cp_decode *d, const struct cp_yaml *node, uint64_t *out)
{
    bool yes = slice_eq(node->text, SLICE_LIT("true"));
    if (node->kind != CP_YAML_SCALAR || !node->plain ||
        (!yes && !slice_eq(node->text, SLICE_LIT("false")))) {
        cp_refuse_type(d, node, "true or false");
        return false;
    }
    *out = yes;
    return true;
}

/* The unit that a wrong one stands for ("KB", "sec", "/min"), or NULL: without one any may be
 * meant. */
static const struct unit *unit_meant(enum cp_type type, struct slice name)
{
    const struct unit *units = units_of(type);
    name = slice_from(name, slice_starts(name, SLICE_LIT("/")) ? 1 : 0);
    char text[3] = {0};
    for (size_t i = 0; i < 2 && i < name.size; i++) {
        text[i] = (char)name.ptr[i];
    }
    fold(text, 2, /* upper= */ false);
    if (type == CP_TYPE_DURATION && text[0] == 'm' && text[1] == 's') {
        return units;
    }
    for (const struct unit *unit = units; unit->name != NULL; unit++) {
        char first = unit->name[unit->name[0] == '/' ? 1 : 0];
        fold(&first, 1, /* upper= */ false);
        bool milli = type == CP_TYPE_DURATION && unit == units;
        if (text[0] != '\0' && first == text[0] && !milli) {
            return unit;
        }
    }
    return NULL;
}

static void refuse_unit(struct cp_decode *d, enum cp_type type, const struct cp_yaml *node)
{
    char text[256];
    struct slice found = cp_yaml_describe(node, text, sizeof(text));
    struct cp_diag *diag =
        cp_diags_add(d->diags, CP_DIAG_WRONG_UNIT, node->at, "found %.*s", SLICE_ARG(found));
    cp_diag_expect(d->diags, diag, "%s", cp_unit_text(type));
    size_t digits = digits_of(node->text);
    struct slice name = slice_from(node->text, digits);
    const struct unit *meant = unit_meant(type, name);
    if (digits > 0 && digits <= 12 && meant != NULL && !slice_eq(name, slice_str(meant->name))) {
        int size = snprintf(text, sizeof(text), "%.*s%s", SLICE_ARG(slice_head(node->text, digits)),
                            meant->name);
        CHECK(size > 0);
        cp_diag_nearest(d->diags, diag, slice_str(text));
    }
}

/* Splits "64KiB" into number and factor; a diagnostic when it is something else. */
static bool read_unit(struct cp_decode *d, enum cp_type type, const struct cp_yaml *node,
                      uint64_t *number, uint64_t *factor)
{
    if (node->kind != CP_YAML_SCALAR || cp_yaml_resolve(node) == CP_YAML_NULL ||
        cp_yaml_resolve(node) == CP_YAML_BOOL) {
        cp_refuse_type(d, node, cp_unit_text(type));
        return false;
    }
    size_t digits = digits_of(node->text);
    struct slice name = slice_from(node->text, digits);
    const struct unit *unit = units_of(type);
    while (unit->name != NULL && !slice_eq(name, slice_str(unit->name))) {
        unit++;
    }
    if (unit->name == NULL || digits == 0) {
        refuse_unit(d, type, node);
        return false;
    }
    if (digits > 12 || !slice_to_u64(slice_head(node->text, digits), number)) {
        *number = UINT64_MAX; /* past any bound */
    }
    *factor = unit->factor;
    return true;
}

/* A rate is kept as the time of one; what is faster than one a nanosecond has none. */
static void decode_rate(struct cp_decode *d, const struct cp_yaml *node, uint64_t *out)
{
    uint64_t number = 0;
    uint64_t factor = 0;
    if (!read_unit(d, CP_TYPE_RATE, node, &number, &factor)) {
        return;
    }
    if (number == 0 || number > 999999999) {
        refuse_bound(d, node, "1", "999999999 in the time");
        return;
    }
    *out = factor / number;
}

/* A quota is kept as its window and its count. */
static void decode_quota(struct cp_decode *d, const struct cp_yaml *node, uint64_t *out)
{
    uint64_t number = 0;
    uint64_t window = 0;
    if (!read_unit(d, CP_TYPE_QUOTA, node, &number, &window)) {
        return;
    }
    if (number == 0 || number > CP_QUOTA_MAX) {
        refuse_bound(d, node, "1", "1000000000000 in the time");
        return;
    }
    *out = window << CP_QUOTA_BITS | number;
}

void cp_decode_number(struct cp_decode *d, const struct cp_field *field, const struct cp_yaml *node,
                      uint64_t *out)
{
    uint64_t number = 0;
    uint64_t factor = 1;
    if (field->type == CP_TYPE_RATE) {
        decode_rate(d, node, out);
        return;
    }
    if (field->type == CP_TYPE_QUOTA) {
        decode_quota(d, node, out);
        return;
    }
    bool read = field->type == CP_TYPE_COUNT  ? read_count(d, field->min, field->max, node, &number)
                : field->type == CP_TYPE_BOOL ? read_bool(d, node, &number)
                                              : read_unit(d, field->type, node, &number, &factor);
    if (!read) {
        return;
    }
    if (field->type == CP_TYPE_BOOL && number < field->min) {
        struct cp_diag *diag =
            cp_diags_add(d->diags, CP_DIAG_OUT_OF_BOUND, node->at, "found false");
        cp_diag_expect(d->diags, diag, "true, or no such key");
        return;
    }
    if (field->type != CP_TYPE_BOOL &&
        (number > UINT64_MAX / factor || number * factor < field->min ||
         number * factor > field->max)) {
        char least[32];
        char most[32];
        show_value(field->type, field->min, least);
        show_value(field->type, field->max, most);
        refuse_bound(d, node, least, most);
        return;
    }
    *out = number * factor;
}

struct err cp_decode_port(struct cp_decode *d, const struct cp_yaml *node, struct cp_text *out)
{
    enum { PORT_MAX = 65535 };
    uint64_t number = 0;
    if (!read_count(d, /* least= */ 1, PORT_MAX, node, &number)) {
        return OK;
    }
    if (number < 1 || number > PORT_MAX) {
        refuse_bound(d, node, "1", "65535");
        return OK;
    }
    out->at = node->at;
    return arena_dup(d->arena, node->text, &out->text);
}

bool cp_decode_choice(struct cp_decode *d, const struct cp_field *field, const struct cp_yaml *node,
                      uint64_t *out)
{
    if (!is_text(d, node, field->choices)) {
        return false;
    }
    struct cp_near near = cp_near_to(node->text);
    struct slice rest = slice_str(field->choices);
    struct slice choice = {0};
    for (uint64_t index = 0; cp_choice_next(&rest, &choice); index++) {
        if (slice_eq(choice, node->text)) {
            *out = index;
            return true;
        }
        cp_near_offer(&near, choice);
    }
    struct cp_diag *diag = cp_diags_add(d->diags, CP_DIAG_NOT_ENUM, node->at, "found \"%.*s\"",
                                        SLICE_ARG(slice_head(node->text, 64)));
    cp_diag_expect(d->diags, diag, "one of %s", field->choices);
    cp_diag_nearest(d->diags, diag, near.best);
    return false;
}
