/* diag: the list, its excerpts and its two renderings. See diag.h. */
#include "controlplane/source/diag.h"

#include <ctype.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/array.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/scope.h"
#include "common/base/text.h"
#include "controlplane/source/source.h"

enum {
    DIAG_ARENA_BYTES = 256 << 20, /* past this diagnostics are counted, not kept. */
    TEXT_BYTES = 400,             /* a message, an expectation. */
    EXCERPT_CHARS = 120,          /* of a source line. */
    EXCERPT_BEFORE = 80,          /* of them at most before the caret. */
};

static const struct cp_diag_row diag_rows[] = {
#define X(number, name, text, fix) {CP_DIAG_##name, #name, text, fix},
    DIAG_LIST(X)
#undef X
};

enum { DIAG_ROWS = sizeof(diag_rows) / sizeof(diag_rows[0]) };

/* Where diagnostics go that are not kept. */
static struct cp_diag *scratch(struct cp_diags *d)
{
    static _Thread_local struct cp_diag dropped;
    d->dropped++;
    dropped = (struct cp_diag){0};
    return &dropped;
}

void cp_diags_init(struct cp_diags *d, const struct cp_source_set *set)
{
    *d = (struct cp_diags){.set = set};
    arena_init(&d->arena, 16 << 10, DIAG_ARENA_BYTES);
}

bool cp_diags_pass_over(struct cp_diags *d)
{
    d->passed_over += d->published ? 1 : 0;
    return d->published;
}

void cp_diags_free(struct cp_diags *d)
{
    free(d->items);
    arena_free(&d->arena);
    *d = (struct cp_diags){0};
}

/* Size of the UTF-8 character at the front of 's' when it is fit to be shown, else 0. */
static size_t shown_size(struct slice s)
{
    uint8_t c = s.ptr[0];
    if (c < 0x80) {
        return c >= 0x20 && c != 0x7f ? 1 : 0;
    }
    size_t size = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;
    if (s.size < size || !text_is_utf8(slice_head(s, size))) {
        return 0;
    }
    bool c1 = c == 0xc2 && s.ptr[1] < 0xa0;
    /* Marks of direction (U+200E, U+200F, U+202A to U+202E, U+2066 to U+2069) can make a line
     * read as another one. */
    bool direction = c == 0xe2 && ((s.ptr[1] == 0x80 && (s.ptr[2] == 0x8e || s.ptr[2] == 0x8f ||
                                                         (s.ptr[2] >= 0xa8 && s.ptr[2] <= 0xae))) ||
                                   (s.ptr[1] == 0x81 && s.ptr[2] >= 0xa6 && s.ptr[2] <= 0xa9));
    return c1 || direction ? 0 : size;
}

/* Copies up to 'chars' characters; what is not fit to be shown becomes one '?' or blank. */
static struct slice show(struct cp_diags *d, struct slice s, size_t chars)
{
    uint8_t *out = NULL;
    size_t size = 0;
    if (!err_ok(arena_alloc(&d->arena, 4 * chars + 4, (void **)&out))) {
        return (struct slice){0};
    }
    for (; s.size > 0 && chars > 0; chars--) {
        size_t one = shown_size(s);
        if (one == 0) {
            out[size++] = s.ptr[0] == '\t' ? ' ' : '?';
            one = 1;
        } else {
            for (size_t i = 0; i < one; i++) {
                out[size++] = s.ptr[i];
            }
        }
        s = slice_from(s, one);
    }
    return slice_of(out, size);
}

__attribute__((format(printf, 2, 0))) static struct slice
show_format(struct cp_diags *d, const char *format, va_list args)
{
    char text[4 * TEXT_BYTES];
    int size = vsnprintf(text, sizeof(text), format, args);
    CHECK(size >= 0);
    return show(d, slice_str(text), TEXT_BYTES);
}

size_t cp_diag_line_break(struct slice s)
{
    if (s.ptr[0] == '\r') {
        return s.size > 1 && s.ptr[1] == '\n' ? 2 : 1;
    }
    if (s.ptr[0] == '\n') {
        return 1;
    }
    if (s.ptr[0] == 0xc2 && s.size > 1 && s.ptr[1] == 0x85) {
        return 2;
    }
    bool separator = s.ptr[0] == 0xe2 && s.size > 2 && s.ptr[1] == 0x80 &&
                     (s.ptr[2] == 0xa8 || s.ptr[2] == 0xa9);
    return separator ? 3 : 0;
}

/* Line 'line' (from 1) of 'bytes'; empty past the end. A byte-order mark is no part of it. */
static struct slice line_at(struct slice bytes, uint32_t line)
{
    if (slice_starts(bytes, SLICE_LIT("\xef\xbb\xbf"))) {
        bytes = slice_from(bytes, 3);
    }
    for (uint32_t at = 1; at < line && bytes.size > 0;) {
        size_t size = cp_diag_line_break(bytes);
        at += size > 0;
        bytes = slice_from(bytes, size > 0 ? size : 1);
    }
    size_t end = 0;
    while (end < bytes.size && cp_diag_line_break(slice_from(bytes, end)) == 0) {
        end++;
    }
    return slice_head(bytes, end);
}

static void place(struct cp_diags *d, struct cp_diag *diag)
{
    if (diag->at.line == 0 || d->set == NULL || diag->at.file >= d->set->count) {
        return;
    }
    const struct cp_source_file *file = &d->set->files[diag->at.file];
    diag->file = file->name;
    struct slice line = line_at(file->bytes, diag->at.line);
    uint32_t skipped = 0;
    while (diag->at.column - skipped > EXCERPT_BEFORE && line.size > 0) {
        size_t one = shown_size(line);
        line = slice_from(line, one == 0 ? 1 : one);
        skipped++;
    }
    diag->excerpt = show(d, line, EXCERPT_CHARS);
    diag->caret = diag->at.column > skipped ? diag->at.column - skipped : 1;
}

static MUST_CHECK struct err keep(struct cp_diags *d, struct cp_diag *diag)
{
    TRY(array_room(&d->items, d->count, &d->capacity, sizeof(struct cp_diag *)));
    d->items[d->count++] = diag;
    return OK;
}

static struct cp_diag *make(struct cp_diags *d, enum cp_diag_code code)
{
    void *made = NULL;
    if (d->count >= limits.source_diagnostics ||
        !err_ok(arena_calloc(&d->arena, 1, sizeof(struct cp_diag), &made)) ||
        !err_ok(keep(d, made))) {
        return scratch(d);
    }
    struct cp_diag *diag = made;
    diag->code = code;
    return diag;
}

struct cp_diag *cp_diags_add(struct cp_diags *d, enum cp_diag_code code, struct cp_pos at,
                             const char *format, ...)
{
    struct cp_diag *diag = make(d, code);
    if (diag->code == 0) {
        return diag; /* it is not kept */
    }
    diag->at = at;
    va_list args;
    va_start(args, format);
    diag->message = show_format(d, format, args);
    va_end(args);
    place(d, diag);
    return diag;
}

struct cp_diag *cp_diags_add_file(struct cp_diags *d, enum cp_diag_code code, struct slice name,
                                  const char *format, ...)
{
    struct cp_diag *diag = make(d, code);
    if (diag->code == 0) {
        return diag; /* it is not kept */
    }
    va_list args;
    va_start(args, format);
    diag->message = show_format(d, format, args);
    va_end(args);
    diag->file = show(d, name, TEXT_BYTES);
    return diag;
}

void cp_diag_expect(struct cp_diags *d, struct cp_diag *diag, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    diag->expected = show_format(d, format, args);
    va_end(args);
}

void cp_diag_nearest(struct cp_diags *d, struct cp_diag *diag, struct slice name)
{
    diag->nearest = show(d, name, TEXT_BYTES);
}

void cp_diag_other(struct cp_diags *d, struct cp_diag *diag, struct cp_pos at)
{
    if (at.line > 0 && d->set != NULL && at.file < d->set->count) {
        diag->other = at;
        diag->other_file = d->set->files[at.file].name;
    }
}

/* Hides an excerpt from column 'from' of its line on. */
static void hide(struct cp_diags *d, struct cp_diag *diag, uint32_t from)
{
    uint32_t skipped = diag->at.column - diag->caret; /* characters before the excerpt */
    uint32_t keep_chars = from > skipped + 1 ? from - skipped - 1 : 0;
    size_t size = 0;
    for (uint32_t i = 0; i < keep_chars && size < diag->excerpt.size; i++) {
        size_t one = shown_size(slice_from(diag->excerpt, size));
        size += one == 0 ? 1 : one;
    }
    struct slice before = slice_head(diag->excerpt, size);
    struct slice masked = {0};
    bool made = err_ok(arena_printf(&d->arena, &masked, "%.*s(hidden)", SLICE_ARG(before)));
    diag->excerpt = made ? masked : before;
    diag->caret = diag->caret > keep_chars + 1 ? keep_chars + 1 : diag->caret;
}

void cp_diag_mask(struct cp_diags *d, struct cp_diag *diag)
{
    diag->secret = true;
    if (diag->caret > 0) {
        hide(d, diag, diag->at.column);
    }
}

/* Hides the secrets of one line in all diagnostics about it: items [first, end). */
static void hide_line(struct cp_diags *d, size_t first, size_t end)
{
    uint32_t from = UINT32_MAX;
    for (size_t i = first; i < end; i++) {
        if (d->items[i]->secret && d->items[i]->at.column < from) {
            from = d->items[i]->at.column;
        }
    }
    for (size_t i = first; i < end && from != UINT32_MAX; i++) {
        struct cp_diag *diag = d->items[i];
        if (diag->caret > 0 && !(diag->secret && diag->at.column == from)) {
            hide(d, diag, from);
        }
    }
}

static bool one_line(const struct cp_diag *a, const struct cp_diag *b)
{
    return a->at.line == b->at.line && slice_eq(a->file, b->file);
}

static int number_cmp(uint32_t a, uint32_t b)
{
    return (a > b) - (a < b);
}

static int diag_cmp(const void *x, const void *y)
{
    const struct cp_diag *a = *(const struct cp_diag *const *)x;
    const struct cp_diag *b = *(const struct cp_diag *const *)y;
    int order = slice_cmp(a->file, b->file);
    order = order != 0 ? order : number_cmp(a->at.line, b->at.line);
    order = order != 0 ? order : number_cmp(a->at.column, b->at.column);
    order = order != 0 ? order : number_cmp(a->code, b->code);
    return order != 0 ? order : slice_cmp(a->message, b->message);
}

void cp_diags_sort(struct cp_diags *d)
{
    if (d->count > 1) {
        qsort(d->items, d->count, sizeof(struct cp_diag *), diag_cmp);
    }
    for (size_t first = 0, end = 0; first < d->count; first = end) {
        while (end < d->count && one_line(d->items[first], d->items[end])) {
            end++;
        }
        hide_line(d, first, end);
    }
}

/* The source line with its caret. */
static MUST_CHECK struct err excerpt_text(const struct cp_diag *diag, struct buf *out)
{
    TRY(buf_addf(out, "%6u | %.*s\n       | ", diag->at.line, SLICE_ARG(diag->excerpt)));
    for (uint32_t i = 1; i < diag->caret; i++) {
        TRY(buf_add_byte(out, ' '));
    }
    return buf_add_str(out, "^\n");
}

static MUST_CHECK struct err diag_text(const struct cp_diag *diag, struct buf *out)
{
    if (diag->at.line > 0) {
        TRY(buf_addf(out, "%.*s:%u:%u: ", SLICE_ARG(diag->file), diag->at.line, diag->at.column));
    } else if (diag->file.size > 0) {
        TRY(buf_addf(out, "%.*s: ", SLICE_ARG(diag->file)));
    }
    TRY(buf_addf(out, "TL%d: %.*s\n", (int)diag->code, SLICE_ARG(diag->message)));
    if (diag->caret > 0) {
        TRY(excerpt_text(diag, out));
    }
    if (diag->expected.size > 0) {
        TRY(buf_addf(out, "       = expected: %.*s\n", SLICE_ARG(diag->expected)));
    }
    if (diag->other.line > 0) {
        const char *label = diag->code == CP_DIAG_YAML_SYNTAX ? "it began at" : "the other";
        TRY(buf_addf(out, "       = %s: %.*s:%u:%u\n", label, SLICE_ARG(diag->other_file),
                     diag->other.line, diag->other.column));
    }
    if (diag->nearest.size > 0) {
        TRY(buf_addf(out, "       = did you mean \"%.*s\"?\n", SLICE_ARG(diag->nearest)));
    }
    return OK;
}

struct err cp_diags_text(const struct cp_diags *d, struct buf *out)
{
    for (size_t i = 0; i < d->count; i++) {
        TRY(diag_text(d->items[i], out));
    }
    if (d->dropped > 0) {
        TRY(buf_addf(out, "and %zu more\n", d->dropped));
    }
    return OK;
}

/* Sets a member to text; empty text leaves it out. */
static void set_text(json_t *object, const char *name, struct slice text)
{
    if (text.size > 0) {
        (void)json_object_set_new(object, name, json_stringn((const char *)text.ptr, text.size));
    }
}

static void set_place(json_t *object, struct slice file, struct cp_pos at)
{
    set_text(object, "file", file);
    if (at.line > 0) {
        (void)json_object_set_new(object, "line", json_integer(at.line));
        (void)json_object_set_new(object, "column", json_integer(at.column));
    }
}

static json_t *diag_json(const struct cp_diag *diag)
{
    char code[16];
    (void)snprintf(code, sizeof(code), "TL%d", (int)diag->code);
    struct cp_diag_row row = {0};
    CHECK(cp_diag_find(slice_str(code), &row));
    json_t *object = json_object();
    set_text(object, "code", slice_str(code));
    set_text(object, "name", slice_str(row.name));
    set_place(object, diag->file, diag->at);
    set_text(object, "message", diag->message);
    set_text(object, "expected", diag->expected);
    set_text(object, "nearest", diag->nearest);
    set_text(object, "excerpt", diag->excerpt);
    if (diag->other.line > 0) {
        json_t *other = json_object();
        set_place(other, diag->other_file, diag->other);
        (void)json_object_set_new(object, "other", other);
    }
    set_text(object, "help", slice_str(row.fix));
    return object;
}

struct err cp_diags_json(const struct cp_diags *d, struct buf *out)
{
    json_t *array = json_array();
    for (size_t i = 0; i < d->count; i++) {
        (void)json_array_append_new(array, diag_json(d->items[i]));
    }
    auto_free char *text = json_dumps(array, JSON_COMPACT);
    size_t count = json_array_size(array);
    json_decref(array);
    if (text == NULL || count != d->count) {
        return FAIL(E_NO_MEMORY);
    }
    return buf_add_str(out, text);
}

bool cp_diag_find(struct slice code, struct cp_diag_row *out)
{
    if (code.size > 2 && toupper(code.ptr[0]) == 'T' && toupper(code.ptr[1]) == 'L') {
        code = slice_from(code, 2);
    }
    uint64_t number = 0;
    if (!slice_to_u64(code, &number)) {
        return false;
    }
    for (size_t i = 0; i < DIAG_ROWS; i++) {
        if ((uint64_t)diag_rows[i].code == number) {
            *out = diag_rows[i];
            return true;
        }
    }
    return false;
}

bool cp_diag_at(size_t index, struct cp_diag_row *out)
{
    if (index >= DIAG_ROWS) {
        return false;
    }
    *out = diag_rows[index];
    return true;
}
