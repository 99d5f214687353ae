/* yaml: events to nodes. See yaml.h. */
#include "controlplane/source/yaml.h"

#include <stdio.h>
#include <stdlib.h>
#include <yaml.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/map.h"
#include "common/base/scope.h"
#include "common/base/text.h"
#include "controlplane/source/source.h"

enum { KEYS_BY_MAP = 16 }; /* mappings with more keys are checked by a map. */

/* A list or map that is not closed yet. */
struct frame {
    struct cp_yaml *node;
    size_t first; /* index of its first kid in 'pending'. */
};

struct parse {
    struct cp_diags *diags;
    struct arena *arena;
    uint64_t *budget;
    uint32_t file;
    bool stop; /* the rest of the file cannot be judged. */
    struct frame *frames;
    size_t depth;
    struct cp_yaml **pending; /* kids of the open frames, the innermost last. */
    size_t pending_count;
    size_t pending_capacity;
    struct map anchors; /* of the document: name to node; an open one has height 0. */
    struct cp_yaml **roots;
    size_t root_count;
    size_t root_capacity;
};

static struct cp_pos pos_of(const struct parse *p, const yaml_mark_t *mark)
{
    /* Files are bounded far below 2^32 bytes. */
    return (struct cp_pos){p->file, (uint32_t)mark->line + 1, (uint32_t)mark->column + 1};
}

/* Makes room for one more pointer. */
static MUST_CHECK struct err room(struct cp_yaml ***items, size_t count, size_t *capacity)
{
    if (count < *capacity) {
        return OK;
    }
    size_t wanted = *capacity == 0 ? 64 : 2 * *capacity;
    void *bigger = realloc(*items, wanted * sizeof(struct cp_yaml *));
    if (bigger == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    *items = bigger;
    *capacity = wanted;
    return OK;
}

/* Gives a finished node (or an open one) to whom it belongs. */
static MUST_CHECK struct err add_kid(struct parse *p, struct cp_yaml *node)
{
    if (p->depth == 0) {
        TRY(room(&p->roots, p->root_count, &p->root_capacity));
        p->roots[p->root_count++] = node;
        return OK;
    }
    TRY(room(&p->pending, p->pending_count, &p->pending_capacity));
    p->pending[p->pending_count++] = node;
    return OK;
}

/* Takes nodes off the budget; past its end the file is over. */
static bool spend(struct parse *p, uint64_t nodes, struct cp_pos at)
{
    if (nodes <= *p->budget) {
        *p->budget -= nodes;
        return true;
    }
    struct cp_diag *diag =
        cp_diags_add(p->diags, CP_DIAG_TOO_MANY_NODES, at, "here the YAML has too many nodes");
    cp_diag_expect(p->diags, diag, "at most %llu, each alias counted as what it stands for",
                   (unsigned long long)limits.source_nodes);
    p->stop = true;
    return false;
}

static bool fits_depth(struct parse *p, uint32_t height, struct cp_pos at)
{
    if (p->depth + height <= limits.source_depth) {
        return true;
    }
    struct cp_diag *diag =
        cp_diags_add(p->diags, CP_DIAG_TOO_DEEP, at, "here the YAML nests too deeply");
    cp_diag_expect(p->diags, diag, "at most %llu levels", (unsigned long long)limits.source_depth);
    p->stop = true;
    return false;
}

static MUST_CHECK struct err new_node(struct parse *p, const yaml_event_t *event,
                                      enum cp_yaml_kind kind, struct cp_yaml **out)
{
    TRY(arena_calloc(p->arena, 1, sizeof(struct cp_yaml), (void **)out));
    (*out)->kind = kind;
    (*out)->at = pos_of(p, &event->start_mark);
    (*out)->weight = 1;
    return OK;
}

static MUST_CHECK struct err set_anchor(struct parse *p, const yaml_char_t *name,
                                        struct cp_yaml *node)
{
    if (name == NULL) {
        return OK;
    }
    struct slice key = {0};
    TRY(arena_dup(p->arena, slice_str((const char *)name), &key));
    return map_put(&p->anchors, key, node, /* out_old= */ NULL);
}

static void refuse_tag(struct parse *p, const yaml_char_t *tag, struct cp_pos at)
{
    if (tag != NULL) {
        (void)cp_diags_add(p->diags, CP_DIAG_TAG, at, "the tag %.64s is not taken",
                           (const char *)tag);
    }
}

static MUST_CHECK struct err on_scalar(struct parse *p, const yaml_event_t *event)
{
    struct cp_yaml *node = NULL;
    TRY(new_node(p, event, CP_YAML_SCALAR, &node));
    if (!spend(p, 1, node->at) || !fits_depth(p, 1, node->at)) {
        return OK;
    }
    refuse_tag(p, event->data.scalar.tag, node->at);
    node->height = 1;
    node->plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    TRY(arena_dup(p->arena, slice_of(event->data.scalar.value, event->data.scalar.length),
                  &node->text));
    TRY(set_anchor(p, event->data.scalar.anchor, node));
    bool empty = p->depth == 0 && node->plain && node->text.size == 0;
    return empty ? OK : add_kid(p, node);
}

static MUST_CHECK struct err on_open(struct parse *p, const yaml_event_t *event,
                                     enum cp_yaml_kind kind)
{
    bool list = kind == CP_YAML_LIST;
    struct cp_yaml *node = NULL;
    TRY(new_node(p, event, kind, &node));
    if (!spend(p, 1, node->at) || !fits_depth(p, 1, node->at)) {
        return OK;
    }
    refuse_tag(p, list ? event->data.sequence_start.tag : event->data.mapping_start.tag, node->at);
    TRY(set_anchor(p, list ? event->data.sequence_start.anchor : event->data.mapping_start.anchor,
                   node));
    TRY(add_kid(p, node));
    p->frames[p->depth++] = (struct frame){node, p->pending_count};
    return OK;
}

/* Reports a key that is there twice. */
static void refuse_twice(struct parse *p, const struct cp_yaml *key, const struct cp_yaml *first)
{
    struct cp_diag *diag =
        cp_diags_add(p->diags, CP_DIAG_DUPLICATE_KEY, key->at, "key \"%.*s\" is here twice",
                     SLICE_ARG(slice_head(key->text, 64)));
    cp_diag_other(p->diags, diag, first->at);
}

static MUST_CHECK struct err check_keys_by_map(struct parse *p, const struct cp_yaml *node)
{
    struct map seen = {0};
    struct err e = OK;
    for (size_t i = 0; i < node->kid_count && err_ok(e); i += 2) {
        struct cp_yaml *key = node->kids[i];
        const struct cp_yaml *first = map_get(&seen, key->text);
        if (first != NULL && key->kind == CP_YAML_SCALAR) {
            refuse_twice(p, key, first);
        } else if (key->kind == CP_YAML_SCALAR) {
            e = map_put(&seen, key->text, key, /* out_old= */ NULL);
        }
    }
    map_free(&seen);
    return e;
}

/* The first key before index 'end' with the same text. */
static const struct cp_yaml *key_before(const struct cp_yaml *node, size_t end)
{
    for (size_t i = 0; i < end; i += 2) {
        if (node->kids[i]->kind == CP_YAML_SCALAR &&
            slice_eq(node->kids[i]->text, node->kids[end]->text)) {
            return node->kids[i];
        }
    }
    return NULL;
}

static MUST_CHECK struct err check_keys(struct parse *p, const struct cp_yaml *node)
{
    for (size_t i = 0; i < node->kid_count; i += 2) {
        if (node->kids[i]->kind != CP_YAML_SCALAR) {
            (void)cp_diags_add(p->diags, CP_DIAG_KEY_NOT_TEXT, node->kids[i]->at,
                               "a list or mapping is used as a key");
        }
    }
    if (node->kid_count / 2 > KEYS_BY_MAP) {
        return check_keys_by_map(p, node);
    }
    for (size_t i = 0; i < node->kid_count; i += 2) {
        const struct cp_yaml *first =
            node->kids[i]->kind == CP_YAML_SCALAR ? key_before(node, i) : NULL;
        if (first != NULL) {
            refuse_twice(p, node->kids[i], first);
        }
    }
    return OK;
}

static MUST_CHECK struct err on_close(struct parse *p)
{
    CHECK(p->depth > 0);
    struct frame frame = p->frames[--p->depth];
    struct cp_yaml *node = frame.node;
    CHECK(frame.first <= p->pending_count);
    node->kid_count = p->pending_count - frame.first;
    TRY(arena_calloc(p->arena, node->kid_count + 1, sizeof(struct cp_yaml *),
                     (void **)&node->kids));
    node->height = 1;
    for (size_t i = 0; i < node->kid_count; i++) {
        struct cp_yaml *kid = p->pending[frame.first + i];
        node->kids[i] = kid;
        node->weight += kid->weight;
        node->height = kid->height >= node->height ? kid->height + 1 : node->height;
    }
    p->pending_count = frame.first;
    return node->kind == CP_YAML_MAP ? check_keys(p, node) : OK;
}

static MUST_CHECK struct err on_alias(struct parse *p, const yaml_event_t *event)
{
    struct cp_pos at = pos_of(p, &event->start_mark);
    const char *name = (const char *)event->data.alias.anchor;
    struct cp_yaml *node = map_get(&p->anchors, slice_str(name));
    if (node == NULL || node->height == 0) {
        (void)cp_diags_add(p->diags, CP_DIAG_ALIAS_UNKNOWN, at, "alias *%.64s names %s", name,
                           node == NULL ? "no anchor of this document"
                                        : "an anchor that contains it");
        p->stop = true;
        return OK;
    }
    if (!spend(p, node->weight, at) || !fits_depth(p, node->height, at)) {
        return OK;
    }
    return add_kid(p, node);
}

static MUST_CHECK struct err on_event(struct parse *p, const yaml_event_t *event)
{
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        return on_scalar(p, event);
    case YAML_SEQUENCE_START_EVENT:
        return on_open(p, event, CP_YAML_LIST);
    case YAML_MAPPING_START_EVENT:
        return on_open(p, event, CP_YAML_MAP);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        return on_close(p);
    case YAML_ALIAS_EVENT:
        return on_alias(p, event);
    case YAML_DOCUMENT_START_EVENT:
        map_free(&p->anchors);
        return OK;
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_DOCUMENT_END_EVENT:
        return OK;
    case YAML_STREAM_END_EVENT:
        p->stop = true;
        return OK;
    }
    return OK;
}

/* Where byte 'offset' of the file stands; only '\n' and '\r' break lines before it. */
static struct cp_pos pos_at(uint32_t file, struct slice bytes, size_t offset)
{
    struct cp_pos at = {file, 1, 1};
    for (size_t i = 0; i < offset && i < bytes.size; i++) {
        bool crlf = bytes.ptr[i] == '\r' && i + 1 < bytes.size && bytes.ptr[i + 1] == '\n';
        if ((bytes.ptr[i] == '\n' || bytes.ptr[i] == '\r') && !crlf) {
            at.line++;
            at.column = 1;
        } else if ((bytes.ptr[i] & 0xc0) != 0x80) {
            at.column++;
        }
    }
    return at;
}

static MUST_CHECK struct err refuse_syntax(struct parse *p, const yaml_parser_t *parser,
                                           struct slice bytes)
{
    if (parser->error == YAML_MEMORY_ERROR) {
        return FAIL(E_NO_MEMORY);
    }
    struct cp_pos at = parser->error == YAML_READER_ERROR
                           ? pos_at(p->file, bytes, parser->problem_offset)
                           : pos_of(p, &parser->problem_mark);
    const char *problem = parser->problem == NULL ? "it does not parse" : parser->problem;
    const char *context = parser->context == NULL ? "" : parser->context;
    struct cp_diag *diag = cp_diags_add(p->diags, CP_DIAG_YAML_SYNTAX, at, "%s%s%s", problem,
                                        context[0] == '\0' ? "" : " ", context);
    if (parser->context != NULL && parser->error != YAML_READER_ERROR) {
        cp_diag_other(p->diags, diag, pos_of(p, &parser->context_mark));
    }
    p->stop = true;
    return OK;
}

static MUST_CHECK struct err run(struct parse *p, yaml_parser_t *parser, struct slice bytes)
{
    while (!p->stop) { /* ends: with the stream, or the first error that hides what follows. */
        yaml_event_t event;
        if (yaml_parser_parse(parser, &event) == 0) {
            return refuse_syntax(p, parser, bytes);
        }
        struct err e = on_event(p, &event);
        yaml_event_delete(&event);
        TRY(e);
    }
    return OK;
}

/* Size of the valid UTF-8 at the front. */
static size_t utf8_prefix(struct slice bytes)
{
    size_t low = 0; /* whole lines are tried first: they are many and short. */
    while (low < bytes.size) {
        size_t line = slice_find(slice_from(bytes, low), '\n') + 1;
        if (!text_is_utf8(slice_head(slice_from(bytes, low), line))) {
            break;
        }
        low += line;
    }
    for (size_t size = 1; low < bytes.size; size = 1) {
        while (size <= 4 && !text_is_utf8(slice_head(slice_from(bytes, low), size))) {
            size++;
        }
        if (size > 4) {
            return low;
        }
        low += size;
    }
    return bytes.size;
}

/* Tabs in the indentation: libyaml would speak of a token, which helps nobody. */
static void refuse_tabs(struct cp_diags *diags, uint32_t file, struct slice bytes)
{
    uint32_t line = 1;
    while (bytes.size > 0) {
        size_t end = slice_find(bytes, '\n');
        size_t blank = 0;
        while (blank < end && bytes.ptr[blank] == ' ') {
            blank++;
        }
        if (blank < end && bytes.ptr[blank] == '\t') {
            (void)cp_diags_add(diags, CP_DIAG_TAB, (struct cp_pos){file, line, (uint32_t)blank + 1},
                               "a tab in the indentation");
        }
        bytes = slice_from(bytes, end + 1);
        line++;
    }
}

/* Judges the bytes before libyaml sees them; false: it shall not. */
static bool bytes_are_fit(struct cp_diags *diags, uint32_t file, struct slice bytes)
{
    if (slice_starts(bytes, SLICE_LIT("\xef\xbb\xbf"))) {
        (void)cp_diags_add(diags, CP_DIAG_NOT_UTF8, (struct cp_pos){file, 1, 1},
                           "the file begins with a byte-order mark");
        return false;
    }
    size_t valid = utf8_prefix(bytes);
    if (valid < bytes.size) {
        (void)cp_diags_add(diags, CP_DIAG_NOT_UTF8, pos_at(file, bytes, valid),
                           "byte 0x%02x is not UTF-8 here", bytes.ptr[valid]);
        return false;
    }
    size_t before = diags->count + diags->dropped;
    refuse_tabs(diags, file, bytes);
    return diags->count + diags->dropped == before;
}

static void parse_free(struct parse *p)
{
    free(p->frames);
    free(p->pending);
    free(p->roots);
    map_free(&p->anchors);
}

/* Copies the documents; the last one is left out when it was not closed. */
static MUST_CHECK struct err finish(struct parse *p, struct cp_yaml_documents *out)
{
    size_t count = p->root_count - (p->depth > 0 ? 1 : 0);
    TRY(arena_calloc(p->arena, count + 1, sizeof(struct cp_yaml *), (void **)&out->roots));
    for (size_t i = 0; i < count; i++) {
        out->roots[i] = p->roots[i];
    }
    out->count = count;
    return OK;
}

struct err cp_yaml_parse(struct cp_diags *diags, uint32_t file, struct arena *arena,
                         uint64_t *budget, struct cp_yaml_documents *out)
{
    struct slice bytes = diags->set->files[file].bytes;
    *out = (struct cp_yaml_documents){0};
    if (!bytes_are_fit(diags, file, bytes)) {
        return OK;
    }
    struct parse p = {.diags = diags, .arena = arena, .file = file};
    p.budget = budget;
    p.frames = calloc(limits.source_depth + 1, sizeof(struct frame));
    yaml_parser_t parser;
    if (p.frames == NULL || yaml_parser_initialize(&parser) == 0) {
        free(p.frames);
        return FAIL(E_NO_MEMORY);
    }
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, bytes.ptr, bytes.size);
    struct err e = run(&p, &parser, bytes);
    yaml_parser_delete(&parser);
    if (err_ok(e)) {
        e = finish(&p, out);
    }
    parse_free(&p);
    return e;
}

const struct cp_yaml *cp_yaml_get(const struct cp_yaml *map, const char *key)
{
    CHECK(map->kind == CP_YAML_MAP);
    for (size_t i = 0; i < map->kid_count; i += 2) {
        if (map->kids[i]->kind == CP_YAML_SCALAR && slice_eq(map->kids[i]->text, slice_str(key))) {
            return map->kids[i + 1];
        }
    }
    return NULL;
}

static bool is_one_of(struct slice text, const char *const *words)
{
    for (; *words != NULL; words++) {
        if (slice_eq(text, slice_str(*words))) {
            return true;
        }
    }
    return false;
}

static size_t skip_digits(struct slice s, size_t at)
{
    while (at < s.size && s.ptr[at] >= '0' && s.ptr[at] <= '9') {
        at++;
    }
    return at;
}

/* [-+]? digits [. digits] [e [-+]? digits], with a digit before or behind the dot. */
static bool is_decimal(struct slice s)
{
    size_t at = s.size > 0 && (s.ptr[0] == '-' || s.ptr[0] == '+') ? 1 : 0;
    size_t whole = skip_digits(s, at);
    size_t digits = whole - at;
    at = whole;
    if (at < s.size && s.ptr[at] == '.') {
        size_t fraction = skip_digits(s, at + 1);
        digits += fraction - at - 1;
        at = fraction;
    }
    if (digits == 0) {
        return false;
    }
    if (at < s.size && (s.ptr[at] == 'e' || s.ptr[at] == 'E')) {
        size_t sign = at + 1 < s.size && (s.ptr[at + 1] == '-' || s.ptr[at + 1] == '+') ? 2 : 1;
        size_t end = skip_digits(s, at + sign);
        return end > at + sign && end == s.size;
    }
    return at == s.size;
}

static bool is_based(struct slice s)
{
    if (s.size < 3 || s.ptr[0] != '0' || (s.ptr[1] != 'x' && s.ptr[1] != 'o')) {
        return false;
    }
    const char *digits = s.ptr[1] == 'x' ? "0123456789abcdefABCDEF" : "01234567";
    for (size_t i = 2; i < s.size; i++) {
        if (s.ptr[i] == 0 || strchr(digits, s.ptr[i]) == NULL) {
            return false;
        }
    }
    return true;
}

enum cp_yaml_plain cp_yaml_resolve(const struct cp_yaml *node)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};
    static const char *const bools[] = {"true", "True", "TRUE", "false", "False", "FALSE", NULL};
    static const char *const floats[] = {".inf",  ".Inf",  ".INF",  "+.inf", "-.inf",
                                         "-.Inf", "-.INF", "+.Inf", "+.INF", ".nan",
                                         ".NaN",  ".NAN",  NULL};
    if (node->kind != CP_YAML_SCALAR || !node->plain) {
        return CP_YAML_TEXT;
    }
    if (is_one_of(node->text, nulls)) {
        return CP_YAML_NULL;
    }
    if (is_one_of(node->text, bools)) {
        return CP_YAML_BOOL;
    }
    bool number = is_decimal(node->text) || is_based(node->text) || is_one_of(node->text, floats);
    return number ? CP_YAML_NUMBER : CP_YAML_TEXT;
}

struct slice cp_yaml_describe(const struct cp_yaml *node, char *out, size_t size)
{
    static const char *const plain[] = {[CP_YAML_TEXT] = "the text",
                                        [CP_YAML_NULL] = "nothing",
                                        [CP_YAML_BOOL] = "the truth value",
                                        [CP_YAML_NUMBER] = "the number"};
    if (node->kind != CP_YAML_SCALAR) {
        return slice_str(node->kind == CP_YAML_LIST ? "a list" : "a mapping");
    }
    enum cp_yaml_plain kind = cp_yaml_resolve(node);
    if (kind == CP_YAML_NULL) {
        return slice_str(plain[kind]);
    }
    struct slice text = slice_head(node->text, 60);
    const char *quote = kind == CP_YAML_TEXT ? "\"" : "";
    int used = snprintf(out, size, "%s %s%.*s%s", plain[kind], quote, SLICE_ARG(text), quote);
    CHECK(used >= 0);
    return slice_str(out);
}
