/* check_rule: see check_rule.h. */
#include "controlplane/source/check_rule.h"

#include <string.h>

#include "controlplane/source/cel.h"
#include "controlplane/source/check_fit.h"
#include "controlplane/source/schedule.h"
#include "controlplane/source/source.h"

/* ---- where in the file ---- */

/* A walk over a file's bytes, with the place of the byte at hand. */
struct walk {
    struct slice text;
    size_t at;
    struct cp_pos pos;
};

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static void step(struct walk *w)
{
    struct slice rest = slice_from(w->text, w->at);
    size_t line_break = cp_diag_line_break(rest);
    if (line_break > 0) {
        w->at += line_break;
        w->pos.line++;
        w->pos.column = 1;
        return;
    }
    w->at++;
    while (w->at < w->text.size && (w->text.ptr[w->at] & 0xc0) == 0x80) {
        w->at++;
    }
    w->pos.column++;
}

static void skip_blanks(struct walk *w)
{
    while (w->at < w->text.size && is_blank(w->text.ptr[w->at])) {
        step(w);
    }
}

/* Past what YAML has before the text itself: a quote, or the line of a block; the quote, or 0. */
static uint8_t skip_front(struct walk *w)
{
    uint8_t c = w->at < w->text.size ? w->text.ptr[w->at] : 0;
    if (c == '|' || c == '>') {
        uint32_t line = w->pos.line;
        while (w->at < w->text.size && w->pos.line == line) {
            step(w);
        }
        return 0;
    }
    if (c == '\'' || c == '"') {
        step(w);
        return c;
    }
    return 0;
}

/*
 * Where byte 'at' of a scalar's text stands in the file: behind as many characters that are no
 * blanks, whatever indentation, folding and quotes YAML has around them. Where it cannot be told,
 * which escapes in double quotes can bring about, the place of the scalar.
 */
static struct cp_pos place_of(const struct cp_model *model, const struct cp_text *text, size_t at)
{
    struct walk w = {.text = model->set->files[text->at.file].bytes,
                     .pos = {.file = text->at.file, .line = 1, .column = 1}};
    while (w.at < w.text.size && (w.pos.line < text->at.line || (w.pos.line == text->at.line &&
                                                                 w.pos.column < text->at.column))) {
        step(&w);
    }
    uint8_t quote = skip_front(&w);
    for (size_t i = 0; i < at; i++) {
        uint8_t c = text->text.ptr[i];
        if (is_blank(c) || (c & 0xc0) == 0x80) {
            continue;
        }
        skip_blanks(&w);
        bool doubled = quote == '\'' && c == '\'';
        bool escaped = quote == '"' && w.at < w.text.size && w.text.ptr[w.at] == '\\';
        if (doubled || escaped) {
            step(&w);
        }
        if (w.at >= w.text.size || w.text.ptr[w.at] != c) {
            return text->at;
        }
        step(&w);
    }
    if (at < text->text.size) {
        skip_blanks(&w);
    }
    return w.pos;
}

/* ---- conditions ---- */

/* As in headers of the rule: what nodes take out of a request nobody can ask for. */
static void check_headers(const struct cp_model *model, struct cp_diags *diags,
                          const struct cp_text *condition, const struct cp_cel_all *all)
{
    for (size_t i = 0; i < all->count; i++) {
        const struct cp_cel_test *test = all->tests[i];
        if (test->attribute != CP_CEL_HEADER || !cp_header_is_taken_out(test->name) ||
            cp_diags_pass_over(diags)) {
            continue;
        }
        const uint8_t *at =
            memmem(condition->text.ptr, condition->text.size, test->name.ptr, test->name.size);
        size_t offset = at == NULL ? 0 : (size_t)(at - condition->text.ptr);
        struct cp_diag *diag =
            cp_diags_add(diags, CP_DIAG_FITS_NOTHING, place_of(model, condition, offset),
                         "no request has header %.*s: nodes take it out before they look",
                         SLICE_ARG(test->name));
        cp_diag_expect(diags, diag, "a header of the caller's own; who calls is what caller says");
        return; /* once is enough: alternatives may repeat a test. */
    }
}

static MUST_CHECK struct err check_condition(const struct cp_model *model, struct cp_diags *diags,
                                             const struct cp_rule *rule)
{
    auto_arena struct arena arena;
    struct cp_cel cel = {0};
    struct cp_cel_fault fault = {0};
    arena_init(&arena, 16 << 10, 16 << 20);
    TRY(cp_cel_parse(rule->condition.text, &arena, &cel, &fault));
    if (fault.message == NULL) {
        size_t before = diags->count;
        for (size_t i = 0; i < cel.count && diags->count == before; i++) {
            check_headers(model, diags, &rule->condition, &cel.any[i]);
        }
        return OK;
    }
    enum cp_diag_code code = fault.secret      ? CP_DIAG_SECRET_IN_CLEAR
                             : fault.too_large ? CP_DIAG_CONDITION_TOO_LARGE
                                               : CP_DIAG_CONDITION_INVALID;
    struct cp_diag *diag =
        cp_diags_add(diags, code, place_of(model, &rule->condition, fault.at), "%s", fault.message);
    if (fault.expected != NULL) {
        cp_diag_expect(diags, diag, "%s", fault.expected);
    }
    if (fault.secret) {
        cp_diag_mask(diags, diag);
    }
    return OK;
}

/* ---- times ---- */

static bool check_instant(struct cp_diags *diags, const struct cp_text *text, uint64_t *out)
{
    if (text->text.size == 0 || cp_instant_ms(text->text, out)) {
        return true;
    }
    struct cp_diag *diag = cp_diags_add(diags, CP_DIAG_FORMAT_INVALID, text->at,
                                        "there is no such time: %.*s", SLICE_ARG(text->text));
    cp_diag_expect(diags, diag, "a time in UTC: 2026-01-31T12:00:00Z");
    return false;
}

static void check_times(struct cp_diags *diags, const struct cp_rule *rule)
{
    uint64_t from_ms = 0;
    uint64_t to_ms = UINT64_MAX;
    bool right = check_instant(diags, &rule->not_before, &from_ms);
    right = check_instant(diags, &rule->not_after, &to_ms) && right;
    if (right && from_ms >= to_ms) {
        struct cp_diag *diag = cp_diags_add(diags, CP_DIAG_WINDOW_EMPTY, rule->not_after.at,
                                            "notAfter is not later than notBefore");
        cp_diag_expect(diags, diag, "a time after %.*s", SLICE_ARG(rule->not_before.text));
    }
    for (size_t i = 0; i < rule->windows.count; i++) {
        const struct cp_window *window = &rule->windows.items[i];
        if (!window->faulty && cp_window_minutes(window) == 0) {
            struct cp_diag *diag = cp_diags_add(diags, CP_DIAG_WINDOW_EMPTY, window->to.at,
                                                "the window ends when it begins");
            cp_diag_expect(diags, diag, "another time; a whole day is 00:00 to 24:00");
        }
    }
}

struct err cp_check_rule(const struct cp_model *model, struct cp_diags *diags,
                         const struct cp_rule *rule)
{
    if (rule->faulty) {
        return OK; /* what it says was refused already, and may be meant otherwise */
    }
    if (rule->condition.text.size > 0) {
        TRY(check_condition(model, diags, rule));
    }
    check_times(diags, rule);
    return OK;
}
