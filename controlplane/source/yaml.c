/* yaml: events to nodes. See yaml.h. */
#include "controlplane/source/yaml.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "common/base/array.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/map.h"
#include "common/base/scope.h"
#include "common/base/text.h"
#include "controlplane/source/source.h"

enum {
    KEYS_BY_MAP = 16, /* mappings with more keys are checked by a map. */
    ANEW_MAX = 100,   /* times that a file is begun anew behind what does not parse. */
};

/* A list or map that is not closed yet. */
struct frame {
    struct cp_yaml *node;
    size_t first; /* index of its first kid in 'pending'. */
};

struct parse {
    struct cp_diags *diags;
    struct arena *arena;
    uint64_t *budget;
    struct slice bytes; /* of the file, without a byte-order mark. */
    uint32_t file;
    uint32_t lines;        /* of the file before what libyaml was given. */
    uint32_t line;         /* the cursor: a line, from 0, … */
    size_t offset;         /* … and where it begins. */
    uint64_t alias_weight; /* taken off the budget by aliases of the document. */
    bool in_document;
    bool stop;   /* the file ended, … */
    bool failed; /* … or what follows cannot be judged up to the next document. */
    struct frame *frames;
    size_t depth;
    struct cp_yaml **pending; /* kids of the open frames, the innermost last. */
    size_t pending_count;
    size_t pending_capacity;
    struct map anchors; /* of the document: name to node; an open one has height 0. */
    struct cp_yaml_document *documents;
    size_t document_count;
    size_t document_capacity;
};

static struct cp_pos pos_of(const struct parse *p, const yaml_mark_t *mark)
{
    /* Files are bounded far below 2^32 bytes. */
    return (struct cp_pos){p->file, p->lines + (uint32_t)mark->line + 1,
                           (uint32_t)mark->column + 1};
}

/* Moves the cursor one line on; false at the end. */
static bool next_line(struct parse *p)
{
    struct slice rest = slice_from(p->bytes, p->offset);
    size_t at = 0;
    size_t size = 0;
    while (at < rest.size && size == 0) {
        size = cp_diag_line_break(slice_from(rest, at));
        at += size > 0 ? size : 1;
    }
    p->offset += at;
    p->line += size > 0;
    return size > 0;
}

/* Where a line begins, from 0; lines are asked for in their order. */
static size_t offset_of(struct parse *p, uint32_t line)
{
    while (p->line < line && next_line(p)) {
    }
    return p->offset;
}

/* A document begins in the line of the mark: the one before ends there. */
static MUST_CHECK struct err begin_document(struct parse *p, const yaml_mark_t *mark)
{
    TRY(array_room(&p->documents, p->document_count, &p->document_capacity,
                   sizeof(struct cp_yaml_document)));
    size_t start = offset_of(p, p->lines + (uint32_t)mark->line);
    if (p->document_count > 0) {
        struct slice *text = &p->documents[p->document_count - 1].text;
        *text = slice_head(*text, (size_t)(p->bytes.ptr + start - text->ptr));
    }
    p->documents[p->document_count++] =
        (struct cp_yaml_document){.text = slice_from(p->bytes, start)};
    p->in_document = true;
    p->alias_weight = 0;
    map_free(&p->anchors);
    return OK;
}

/* The document that was begun last; libyaml begins one before what is in it. */
static struct cp_yaml_document *last_document(const struct parse *p)
{
    CHECK(p->documents != NULL);
    CHECK(p->document_count > 0);
    return &p->documents[p->document_count - 1];
}

/* Ends one; an empty document is none. */
static void end_document(struct parse *p)
{
    p->in_document = false;
    p->document_count -= last_document(p)->root == NULL;
}

/* Gives a finished node (or an open one) to whom it belongs. */
static MUST_CHECK struct err add_kid(struct parse *p, struct cp_yaml *node)
{
    if (p->depth == 0) {
        last_document(p)->root = node;
        return OK;
    }
    TRY(array_room(&p->pending, p->pending_count, &p->pending_capacity, sizeof(struct cp_yaml *)));
    p->pending[p->pending_count++] = node;
    return OK;
}

/* Takes nodes off the budget; past its end the document is over. */
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
    p->failed = true;
    *p->budget += p->alias_weight; /* aliases cost no memory: the next document may have it */
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
    p->failed = true;
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
        struct cp_diag *diag = cp_diags_add(p->diags, CP_DIAG_TAG, at, "the tag %.64s is not taken",
                                            (const char *)tag);
        cp_diag_expect(p->diags, diag, "the value without a tag");
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
    cp_diag_expect(p->diags, diag, "one value for a key");
    cp_diag_other(p->diags, diag, first->at);
}

/* Two resources in one document, which is one mistake: their "---" is missing. */
static bool is_two_resources(struct parse *p, const struct cp_yaml *key,
                             const struct cp_yaml *first)
{
    if (p->depth > 0 || !slice_eq(key->text, SLICE_LIT("apiVersion"))) {
        return false;
    }
    struct cp_diag *diag = cp_diags_add(p->diags, CP_DIAG_DUPLICATE_KEY, key->at,
                                        "a second resource begins in the same document");
    cp_diag_expect(p->diags, diag, "a line \"---\" before it");
    cp_diag_other(p->diags, diag, first->at);
    return true;
}

static MUST_CHECK struct err check_keys_by_map(struct parse *p, struct cp_yaml *node)
{
    struct map seen = {0};
    struct err e = OK;
    for (size_t i = 0; i < node->kid_count && err_ok(e); i += 2) {
        struct cp_yaml *key = node->kids[i];
        const struct cp_yaml *first = map_get(&seen, key->text);
        if (first != NULL && key->kind == CP_YAML_SCALAR) {
            node->doubtful = true;
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

static MUST_CHECK struct err check_keys(struct parse *p, struct cp_yaml *node)
{
    for (size_t i = 0; i < node->kid_count; i += 2) {
        if (node->kids[i]->kind != CP_YAML_SCALAR) {
            node->doubtful = true;
            struct cp_diag *diag = cp_diags_add(p->diags, CP_DIAG_KEY_NOT_TEXT, node->kids[i]->at,
                                                "a list or mapping is used as a key");
            cp_diag_expect(p->diags, diag, "a name, or quotes around a text with braces");
        }
    }
    if (node->kid_count / 2 > KEYS_BY_MAP) {
        return check_keys_by_map(p, node);
    }
    for (size_t i = 0; i < node->kid_count; i += 2) {
        const struct cp_yaml *first =
            node->kids[i]->kind == CP_YAML_SCALAR ? key_before(node, i) : NULL;
        if (first == NULL) {
            continue;
        }
        node->doubtful = true;
        if (is_two_resources(p, node->kids[i], first)) {
            return OK;
        }
        refuse_twice(p, node->kids[i], first);
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
        struct cp_diag *diag = cp_diags_add(
            p->diags, CP_DIAG_ALIAS_UNKNOWN, at, "alias *%.64s names %s", name,
            node == NULL ? "no anchor of this document" : "an anchor that contains it");
        cp_diag_expect(p->diags, diag,
                       "an anchor &%.64s before it, or quotes around a text that begins with *",
                       name);
        p->failed = true;
        return OK;
    }
    if (!spend(p, node->weight, at) || !fits_depth(p, node->height, at)) {
        return OK;
    }
    p->alias_weight += node->weight;
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
        return begin_document(p, &event->start_mark);
    case YAML_DOCUMENT_END_EVENT:
        end_document(p);
        return OK;
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
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

/* A tab in the indentation of a line. */
static bool line_has_tab(struct slice line, size_t *out_at)
{
    size_t blank = 0;
    while (blank < line.size && line.ptr[blank] == ' ') {
        blank++;
    }
    *out_at = blank;
    return blank < line.size && line.ptr[blank] == '\t';
}

/*
 * Whether the document's own lines hold a tab that was refused: then libyaml only says again, in
 * other words, that there is one.
 */
static bool tab_was_refused(struct slice text)
{
    size_t end = slice_find(text, '\n');
    for (size_t line = 0; text.size > 0; line++) {
        size_t at = 0;
        if (line > 0 && slice_starts(text, SLICE_LIT("---"))) {
            return false;
        }
        if (line_has_tab(slice_head(text, end), &at)) {
            return true;
        }
        text = slice_from(text, end + 1);
        end = slice_find(text, '\n');
    }
    return false;
}

/* libyaml reads ahead: the character may be in a later document, so nothing behind is judged. */
static MUST_CHECK struct err refuse_character(struct parse *p, const yaml_parser_t *parser,
                                              struct slice rest)
{
    struct cp_pos at = pos_at(p->file, rest, parser->problem_offset);
    at.line += p->lines;
    struct cp_diag *diag = cp_diags_add(p->diags, CP_DIAG_YAML_SYNTAX, at, "%s", parser->problem);
    cp_diag_expect(p->diags, diag, "text; in double quotes \\xNN stands for any character");
    p->stop = true;
    return p->in_document ? OK : begin_document(p, &(yaml_mark_t){.line = p->line - p->lines});
}

/* What is right where libyaml says so; it speaks of tokens. NULL: nothing that is known. */
static const char *hint_of(const char *problem)
{
    static const struct {
        const char *part;
        const char *hint;
    } hints[] = {
        {"mapping values are not allowed",
         "quotes around a text with a colon in it; or keys of one mapping at one depth"},
        {"cannot start any token", "quotes around a text that begins with @, ` or %"},
        {"alphabetic or numeric character", "quotes around a text that begins with * or &"},
        {"expected key", "keys of one mapping at one depth"},
        {"expected '-' indicator", "items of one list at one depth, each behind \"- \""},
        {"expected ',' or", "a comma between items, and the bracket closed"},
        {"document indicator", "the quote closed"},
        {"unexpected end of stream", "the quote closed"},
        {"expected ':'", "key: value, with a blank behind the colon"},
        {"expected <document start>", "a line \"---\" before another document"},
    };
    for (size_t i = 0; i < sizeof(hints) / sizeof(hints[0]); i++) {
        if (strstr(problem, hints[i].part) != NULL) {
            return hints[i].hint;
        }
    }
    return NULL;
}

static MUST_CHECK struct err refuse_syntax(struct parse *p, const yaml_parser_t *parser,
                                           struct slice rest)
{
    if (parser->error == YAML_MEMORY_ERROR) {
        return FAIL(E_NO_MEMORY);
    }
    p->failed = true;
    if (parser->error == YAML_READER_ERROR) {
        return refuse_character(p, parser, rest);
    }
    struct cp_pos at = pos_of(p, &parser->problem_mark);
    if (!p->in_document) { /* what stands between two documents is lost like one */
        TRY(begin_document(p, &parser->problem_mark));
    }
    if (tab_was_refused(last_document(p)->text)) {
        return OK;
    }
    const char *problem = parser->problem == NULL ? "it does not parse" : parser->problem;
    const char *context = parser->context == NULL ? "" : parser->context;
    struct cp_diag *diag = cp_diags_add(p->diags, CP_DIAG_YAML_SYNTAX, at, "%s%s%s", problem,
                                        context[0] == '\0' ? "" : " ", context);
    const char *hint = hint_of(problem);
    if (hint != NULL) {
        cp_diag_expect(p->diags, diag, "%s", hint);
    }
    if (parser->context != NULL && (parser->context_mark.line != parser->problem_mark.line ||
                                    parser->context_mark.column != parser->problem_mark.column)) {
        cp_diag_other(p->diags, diag, pos_of(p, &parser->context_mark));
    }
    return OK;
}

static MUST_CHECK struct err run(struct parse *p, yaml_parser_t *parser, struct slice rest)
{
    while (!p->stop && !p->failed) { /* ends: with the stream, or what hides what follows. */
        yaml_event_t event;
        if (yaml_parser_parse(parser, &event) == 0) {
            return refuse_syntax(p, parser, rest);
        }
        struct err e = on_event(p, &event);
        yaml_event_delete(&event);
        TRY(e);
    }
    return OK;
}

/* Parses from the cursor up to the end, or to what cannot be parsed. */
static MUST_CHECK struct err parse_from_cursor(struct parse *p)
{
    yaml_parser_t parser;
    struct slice rest = slice_from(p->bytes, p->offset);
    p->lines = p->line;
    p->in_document = false;
    p->failed = false;
    p->depth = 0;
    p->pending_count = 0;
    if (yaml_parser_initialize(&parser) == 0) {
        return FAIL(E_NO_MEMORY);
    }
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, rest.ptr, rest.size);
    struct err e = run(p, &parser, rest);
    yaml_parser_delete(&parser);
    return e;
}

/* Whether the cursor's line is "---", alone or with something behind a blank. */
static bool at_marker(const struct parse *p)
{
    struct slice rest = slice_from(p->bytes, p->offset);
    return slice_starts(rest, SLICE_LIT("---")) &&
           (rest.size == 3 || rest.ptr[3] == ' ' || rest.ptr[3] == '\t' ||
            cp_diag_line_break(slice_from(rest, 3)) > 0);
}

/*
 * Document for document. One that does not parse is lost from its first line to the next "---",
 * which begins a document wherever it stands.
 */
static MUST_CHECK struct err parse_all(struct parse *p)
{
    for (size_t anew = 0; !p->stop; anew++) { /* ends: each turn goes on by a line. */
        TRY(parse_from_cursor(p));
        if (!p->failed) {
            return OK;
        }
        last_document(p)->root = NULL;
        bool more = !p->stop && *p->budget > 0 && anew < ANEW_MAX;
        bool line = more && next_line(p);
        while (line && !at_marker(p)) {
            line = next_line(p);
        }
        p->stop = !line;
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
    for (uint32_t line = 1; bytes.size > 0; line++) {
        size_t end = slice_find(bytes, '\n');
        size_t at = 0;
        if (line_has_tab(slice_head(bytes, end), &at)) {
            struct cp_diag *diag =
                cp_diags_add(diags, CP_DIAG_TAB, (struct cp_pos){file, line, (uint32_t)at + 1},
                             "a tab in the indentation");
            cp_diag_expect(diags, diag, "spaces");
        }
        bytes = slice_from(bytes, end + 1);
    }
}

/*
 * Judges the bytes before libyaml sees them, and takes a byte-order mark away; false: it shall not
 * see them.
 */
static bool bytes_are_fit(struct cp_diags *diags, uint32_t file, struct slice *bytes)
{
    if (slice_starts(*bytes, SLICE_LIT("\xef\xbb\xbf"))) {
        struct cp_diag *diag = cp_diags_add(diags, CP_DIAG_NOT_UTF8, (struct cp_pos){file, 1, 1},
                                            "the file begins with a byte-order mark");
        cp_diag_expect(diags, diag, "UTF-8 without one");
        *bytes = slice_from(*bytes, 3);
    }
    size_t valid = utf8_prefix(*bytes);
    if (valid < bytes->size) {
        struct cp_diag *diag = cp_diags_add(diags, CP_DIAG_NOT_UTF8, pos_at(file, *bytes, valid),
                                            "byte 0x%02x is not UTF-8 here", bytes->ptr[valid]);
        cp_diag_expect(diags, diag, "the file in UTF-8");
        return false;
    }
    refuse_tabs(diags, file, *bytes);
    return true;
}

static void parse_free(struct parse *p)
{
    free(p->frames);
    free(p->pending);
    free(p->documents);
    map_free(&p->anchors);
}

static MUST_CHECK struct err finish(const struct parse *p, struct cp_yaml_documents *out)
{
    TRY(arena_calloc(p->arena, p->document_count + 1, sizeof(struct cp_yaml_document),
                     (void **)&out->items));
    for (size_t i = 0; i < p->document_count; i++) {
        out->items[i] = p->documents[i];
    }
    out->count = p->document_count;
    return OK;
}

/* The whole file as one document that does not parse. */
static MUST_CHECK struct err lose_all(struct arena *arena, struct slice bytes,
                                      struct cp_yaml_documents *out)
{
    TRY(arena_calloc(arena, 1, sizeof(struct cp_yaml_document), (void **)&out->items));
    out->items[0].text = bytes;
    out->count = 1;
    return OK;
}

struct err cp_yaml_parse(struct cp_diags *diags, uint32_t file, struct arena *arena,
                         uint64_t *budget, struct cp_yaml_documents *out)
{
    struct slice bytes = diags->set->files[file].bytes;
    *out = (struct cp_yaml_documents){0};
    if (!bytes_are_fit(diags, file, &bytes) || *budget == 0) {
        return lose_all(arena, bytes, out);
    }
    struct parse p = {.diags = diags, .arena = arena, .file = file, .bytes = bytes};
    p.budget = budget;
    p.frames = calloc(limits.source_depth + 1, sizeof(struct frame));
    struct err e = p.frames == NULL ? FAIL(E_NO_MEMORY) : parse_all(&p);
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
