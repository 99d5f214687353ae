/* cel: see cel.h. The normal form is made in cel_normal.c. */
#include "controlplane/source/cel.h"

#include <string.h>

#include "common/base/check.h"
#include "common/base/text.h"
#include "controlplane/source/cel_impl.h"
#include "controlplane/source/form.h"

/* ---- tokens ---- */

enum token {
    TOKEN_END,
    TOKEN_WORD,
    TOKEN_TEXT,
    TOKEN_AND,
    TOKEN_OR,
    TOKEN_NOT,
    TOKEN_EQUAL,
    TOKEN_UNEQUAL,
    TOKEN_IN,
    TOKEN_DOT,
    TOKEN_COMMA,
    TOKEN_OPEN,
    TOKEN_CLOSE,
    TOKEN_LIST_OPEN,
    TOKEN_LIST_CLOSE,
    TOKEN_OTHER, /* no token of the subset. */
};

struct parsing {
    struct slice text;
    struct arena *arena;
    size_t at;    /* behind the token. */
    size_t begin; /* of the token. */
    enum token token;
    struct slice value; /* of a word, or of a text without its quotes and escapes. */
    size_t depth;
    size_t node_count;
    struct cp_cel_fault fault;
    struct err memory; /* what there was none for: the condition may be right. */
};

/* Says what is wrong, once; always false. */
static bool fault_at(struct parsing *p, size_t at, const char *message, const char *expected)
{
    if (p->fault.message == NULL) {
        p->fault = (struct cp_cel_fault){.at = at, .message = message, .expected = expected};
    }
    return false;
}

static bool fault(struct parsing *p, const char *message, const char *expected)
{
    return fault_at(p, p->begin, message, expected);
}

static bool too_large(struct parsing *p, const char *message, const char *expected)
{
    (void)fault(p, message, expected);
    p->fault.too_large = true;
    return false;
}

/* Whether an allocation was made; the parse ends with one that was not. */
static bool has_room(struct parsing *p, struct err allocated)
{
    p->memory = err_ok(p->memory) ? allocated : p->memory;
    return err_ok(allocated);
}

static bool is_space(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool is_word(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/* The character behind a backslash. */
static bool read_escape(struct parsing *p, uint8_t *out)
{
    uint8_t c = p->at < p->text.size ? p->text.ptr[p->at] : 0;
    if (c != '\\' && c != '\'' && c != '"') {
        return fault_at(p, p->at - 1, "an escape that is not taken", "\\\\, \\' or \\\"");
    }
    p->at++;
    *out = c;
    return true;
}

/* The text between two quotes, without its escapes. False: it does not end, or escapes wrongly. */
static bool read_text(struct parsing *p, uint8_t quote)
{
    uint8_t *bytes = NULL;
    size_t size = 0;
    if (!has_room(p, arena_alloc(p->arena, p->text.size - p->at + 1, (void **)&bytes))) {
        return false;
    }
    while (p->at < p->text.size && p->text.ptr[p->at] != quote) {
        uint8_t c = p->text.ptr[p->at++];
        if (c == '\\' && !read_escape(p, &c)) {
            return false;
        }
        if (c < 0x20 || c == 0x7f) {
            return fault_at(p, p->at - 1, "a control character in a text", /* expected= */ NULL);
        }
        bytes[size++] = c;
    }
    if (p->at == p->text.size) {
        return fault(p, "a text without its closing quote", /* expected= */ NULL);
    }
    p->at++;
    bytes[size] = '\0';
    p->token = TOKEN_TEXT;
    p->value = slice_of(bytes, size);
    return size <= CP_CEL_TEXT_MAX || too_large(p, "a text is too long", "at most 256 bytes");
}

static bool read_word(struct parsing *p)
{
    while (p->at < p->text.size && is_word(p->text.ptr[p->at])) {
        p->at++;
    }
    p->value = slice_of(p->text.ptr + p->begin, p->at - p->begin);
    p->token = slice_eq(p->value, SLICE_LIT("in")) ? TOKEN_IN : TOKEN_WORD;
    return true;
}

static bool read_sign(struct parsing *p)
{
    static const struct {
        const char *sign;
        enum token token;
    } signs[] = {
        /* the longer first. */
        {"&&", TOKEN_AND},  {"||", TOKEN_OR},       {"==", TOKEN_EQUAL},     {"!=", TOKEN_UNEQUAL},
        {"!", TOKEN_NOT},   {".", TOKEN_DOT},       {",", TOKEN_COMMA},      {"(", TOKEN_OPEN},
        {")", TOKEN_CLOSE}, {"[", TOKEN_LIST_OPEN}, {"]", TOKEN_LIST_CLOSE},
    };
    struct slice rest = slice_from(p->text, p->begin);
    for (size_t i = 0; i < sizeof(signs) / sizeof(signs[0]); i++) {
        if (slice_starts(rest, slice_str(signs[i].sign))) {
            p->token = signs[i].token;
            p->at = p->begin + strlen(signs[i].sign);
            return true;
        }
    }
    p->token = TOKEN_OTHER;
    p->at = p->begin + 1;
    uint8_t c = rest.ptr[0];
    if (c == '<' || c == '>') {
        return fault(p, "texts have no order here", "== or !=, or in and a list");
    }
    if (c == '=' || c == '&' || c == '|') {
        return fault(p, "an operator that is not taken", "==, && or ||");
    }
    return fault(p, "a character that begins nothing", "an attribute, a text, !, && or ||");
}

/* Moves on to the next token. False: a fault was said. */
static bool next(struct parsing *p)
{
    while (p->at < p->text.size && is_space(p->text.ptr[p->at])) {
        p->at++;
    }
    p->begin = p->at;
    if (p->at == p->text.size) {
        p->token = TOKEN_END;
        return true;
    }
    uint8_t c = p->text.ptr[p->at];
    if (c == '"' || c == '\'') {
        p->at++;
        return read_text(p, c);
    }
    return is_word(c) ? read_word(p) : read_sign(p);
}

static bool take(struct parsing *p, enum token token, const char *message, const char *expected)
{
    return p->token == token ? next(p) : fault(p, message, expected);
}

/* ---- nodes ---- */

static bool node_new(struct parsing *p, enum cel_op op, struct cel_node **out)
{
    if (++p->node_count > CP_CEL_NODES_MAX) {
        return too_large(p, "the condition says too much", "at most 256 tests and operators");
    }
    if (!has_room(p, arena_calloc(p->arena, 1, sizeof(struct cel_node), (void **)out))) {
        return false;
    }
    (*out)->op = op;
    return true;
}

static bool pair_new(struct parsing *p, enum cel_op op, struct cel_node *left,
                     struct cel_node *right, struct cel_node **out)
{
    if (!node_new(p, op, out)) {
        return false;
    }
    (*out)->left = left;
    (*out)->right = right;
    return true;
}

/* ---- attributes ---- */

/* An attribute as it is written; FORM_MAP: all of it, for "in". */
enum form {
    FORM_PLAIN,
    FORM_CALLER_SERVICE,  /* of CP_CEL_CALLER, behind the slash. */
    FORM_REQUEST_SERVICE, /* of CP_CEL_METHOD in the operator lane, between the slashes. */
    FORM_TYPE,            /* CP_CEL_METHOD in the canonical lane. */
    FORM_MAP,
};

struct attribute {
    enum cp_cel_attribute is;
    enum form form;
    struct slice name; /* of a trait or header. */
    size_t begin;
};

static const struct {
    const char *object; /* NULL: none. */
    const char *name;
    enum cp_cel_attribute is;
    enum form form;
} attributes[] = {
    {"caller", "id", CP_CEL_CALLER, FORM_PLAIN},
    {"caller", "tenant", CP_CEL_TENANT, FORM_PLAIN},
    {"caller", "service", CP_CEL_CALLER, FORM_CALLER_SERVICE},
    {"caller", "trustDomain", CP_CEL_DOMAIN, FORM_PLAIN},
    {"caller", "traits", CP_CEL_TRAIT, FORM_MAP},
    {"request", "method", CP_CEL_METHOD, FORM_PLAIN},
    {"request", "service", CP_CEL_METHOD, FORM_REQUEST_SERVICE},
    {"request", "headers", CP_CEL_HEADER, FORM_MAP},
    {NULL, "lane", CP_CEL_LANE, FORM_PLAIN},
    {NULL, "verb", CP_CEL_VERB, FORM_PLAIN},
    {NULL, "type", CP_CEL_METHOD, FORM_TYPE},
};

static bool find_attribute(struct parsing *p, struct slice object, struct slice name,
                           struct attribute *out)
{
    for (size_t i = 0; i < sizeof(attributes) / sizeof(attributes[0]); i++) {
        struct slice of =
            attributes[i].object == NULL ? (struct slice){0} : slice_str(attributes[i].object);
        if (slice_eq(of, object) && slice_eq(slice_str(attributes[i].name), name)) {
            out->is = attributes[i].is;
            out->form = attributes[i].form;
            return true;
        }
    }
    return fault_at(p, out->begin, "an attribute that is not known",
                    "caller.id, caller.tenant, caller.service, caller.trustDomain, caller.traits, "
                    "request.method, request.service, request.headers, lane, verb or type");
}

static bool fits_header(struct slice name)
{
    for (size_t i = 0; i < name.size; i++) {
        uint8_t c = name.ptr[i];
        bool fits = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                    memchr("!#$%&'*+.^_`|~-", c, 15) != NULL;
        if (!fits) {
            return false;
        }
    }
    return name.size > 0 && name.size <= 128;
}

/* The name of a trait or header, as a text or behind a dot. */
static bool check_name(struct parsing *p, size_t at, const struct attribute *a, struct slice name)
{
    if (a->is == CP_CEL_HEADER && !fits_header(name)) {
        return fault_at(p, at, "not the name of a header", "a header's name in lower case");
    }
    return name.size > 0 || fault_at(p, at, "an empty name", /* expected= */ NULL);
}

/* "['x']" or ".x" behind a map, if there. */
static bool parse_member(struct parsing *p, struct attribute *a)
{
    bool in_brackets = p->token == TOKEN_LIST_OPEN;
    if (!in_brackets && p->token != TOKEN_DOT) {
        return true;
    }
    if (!next(p)) {
        return false;
    }
    if (p->token != (in_brackets ? TOKEN_TEXT : TOKEN_WORD)) {
        return fault(p, "no name of a trait or header", in_brackets ? "['x-name']" : ".name");
    }
    if (!has_room(p, arena_dup(p->arena, p->value, &a->name))) {
        return false;
    }
    a->form = FORM_PLAIN;
    if (!check_name(p, p->begin, a, a->name) || !next(p)) {
        return false;
    }
    return !in_brackets || take(p, TOKEN_LIST_CLOSE, "a bracket is not closed", "]");
}

/* At a word that is none of true and false. */
static bool parse_attribute(struct parsing *p, struct attribute *out)
{
    struct slice object = {0};
    struct slice name = p->value;
    *out = (struct attribute){.begin = p->begin};
    if (!next(p)) {
        return false;
    }
    bool is_object = slice_eq(name, SLICE_LIT("caller")) || slice_eq(name, SLICE_LIT("request"));
    if (is_object) {
        if (!take(p, TOKEN_DOT, "an object is no value", "a member: caller.id, request.method")) {
            return false;
        }
        if (p->token != TOKEN_WORD) {
            return fault(p, "no name behind the dot", "a member: caller.id, request.method");
        }
        object = name;
        name = p->value;
        if (!next(p)) {
            return false;
        }
    }
    if (!find_attribute(p, object, name, out)) {
        return false;
    }
    return out->form != FORM_MAP || parse_member(p, out);
}

/* ---- tests ---- */

enum how { HOW_EXACT, HOW_STARTS, HOW_ENDS, HOW_CONTAINS };

/* What a test of an attribute's form is as a glob of the whole attribute: by form, by how. */
static const char *const globs_of[][4] = {
    [FORM_PLAIN] = {NULL, "%*", "*%", "*%*"},
    [FORM_CALLER_SERVICE] = {"*/%", "*/%*", "*/*%", "*/*%*"},
    [FORM_REQUEST_SERVICE] = {"/%/*", "/%*", "/*%/*", "/*%*/*"},
    [FORM_TYPE] = {NULL, "%*", "*%", "*%*"},
};

static bool check_text(struct parsing *p, size_t at, const struct attribute *a, enum how how,
                       struct slice text)
{
    static const struct {
        enum cp_cel_attribute of;
        const char *names;
        const char *expected;
    } choices[] = {
        {CP_CEL_LANE, "|operator|canonical|proxy|", "operator, canonical or proxy"},
        {CP_CEL_VERB, "|call|publish|subscribe|fetch|", "call, publish, subscribe or fetch"},
    };
    bool glob = globs_of[a->form][how] != NULL;
    if (text.size == 0) {
        return fault_at(p, at, "an empty text", "a text that says something");
    }
    if (glob && text_is_glob(text)) {
        return fault_at(p, at, "a text with * or ? in it", "a text without * and ?");
    }
    if (glob && a->form != FORM_PLAIN && slice_find(text, '/') < text.size) {
        return fault_at(p, at, "a name with a slash", "the name alone");
    }
    for (size_t i = 0; i < 2 && how == HOW_EXACT; i++) {
        char wanted[CP_CEL_TEXT_MAX + 3] = "|";
        (void)memcpy(wanted + 1, text.ptr, text.size);
        wanted[text.size + 1] = '|';
        if (a->is == choices[i].of && strstr(choices[i].names, wanted) == NULL) {
            return fault_at(p, at, "a value that there is not", choices[i].expected);
        }
    }
    return true;
}

static bool make_glob(struct parsing *p, const char *pattern, struct slice text, struct slice *out)
{
    size_t front = strcspn(pattern, "%");
    const struct slice pieces[] = {slice_of(pattern, front), text, slice_str(pattern + front + 1)};
    return has_room(p, arena_join(p->arena, pieces, 3, out));
}

/* The texts that an attribute is compared with. */
struct texts {
    struct slice *items;
    size_t count;
    size_t at; /* of the first. */
};

/* The lane in which an attribute of this form has a value; empty otherwise. */
static const char *lane_of(enum form form)
{
    return form == FORM_REQUEST_SERVICE ? "operator" : form == FORM_TYPE ? "canonical" : NULL;
}

static bool test_new(struct parsing *p, const struct attribute *a, struct cel_node **out)
{
    if (!node_new(p, CEL_TEST, out)) {
        return false;
    }
    (*out)->test.attribute = a->is;
    (*out)->test.name = a->name;
    return true;
}

/* "lane == L && 'test'": outside of its lane such an attribute is empty. */
static bool in_lane(struct parsing *p, const char *lane, struct cel_node *test,
                    struct cel_node **out)
{
    const struct attribute of = {.is = CP_CEL_LANE};
    struct cel_node *node = NULL;
    if (!test_new(p, &of, &node)) {
        return false;
    }
    if (!has_room(p, arena_calloc(p->arena, 1, sizeof(struct slice), (void **)&node->test.exact))) {
        return false;
    }
    node->test.exact[node->test.exact_count++] = slice_str(lane);
    return pair_new(p, CEL_AND, node, test, out);
}

static bool make_test(struct parsing *p, const struct attribute *a, enum how how,
                      const struct texts *texts, struct cel_node **out)
{
    struct cel_node *node = NULL;
    const char *pattern = globs_of[a->form][how];
    if (a->is == CP_CEL_HEADER && cp_secret_header(a->name)) {
        (void)fault_at(p, texts->at, "a secret in clear",
                       "'authorization' in request.headers: whether it is there");
        p->fault.secret = true;
        return false;
    }
    if (!test_new(p, a, &node)) {
        return false;
    }
    struct slice *values = NULL;
    if (!has_room(
            p, arena_calloc(p->arena, texts->count + 1, sizeof(struct slice), (void **)&values))) {
        return false;
    }
    for (size_t i = 0; i < texts->count; i++) {
        values[i] = texts->items[i];
        if (!check_text(p, texts->at, a, how, values[i]) ||
            (pattern != NULL && !make_glob(p, pattern, texts->items[i], &values[i]))) {
            return false;
        }
    }
    *(pattern == NULL ? &node->test.exact : &node->test.globs) = values;
    *(pattern == NULL ? &node->test.exact_count : &node->test.glob_count) = texts->count;
    *out = node;
    return lane_of(a->form) == NULL || in_lane(p, lane_of(a->form), node, out);
}

/* ---- relations ---- */

/* At the text behind "==" and the like, or in a list. */
static bool take_text(struct parsing *p, struct texts *texts)
{
    if (p->token != TOKEN_TEXT) {
        return fault(p, "no text where one belongs", "a text in quotes");
    }
    if (texts->count >= CP_CEL_LIST_MAX) {
        return too_large(p, "a list is too long", "at most 256 texts");
    }
    if (texts->count == 0) {
        texts->at = p->begin;
        if (!has_room(p, arena_calloc(p->arena, CP_CEL_LIST_MAX, sizeof(struct slice),
                                      (void **)&texts->items))) {
            return false;
        }
    }
    texts->items[texts->count++] = p->value;
    return next(p);
}

static bool take_list(struct parsing *p, struct texts *texts)
{
    if (!take(p, TOKEN_LIST_OPEN, "no list behind in", "['a', 'b']")) {
        return false;
    }
    texts->at = p->begin;
    while (p->token != TOKEN_LIST_CLOSE) {
        if (!take_text(p, texts)) {
            return false;
        }
        if (p->token != TOKEN_LIST_CLOSE &&
            !take(p, TOKEN_COMMA, "a list is not closed", ", or ]")) {
            return false;
        }
    }
    return next(p);
}

/* ".startsWith('x')", at the dot. */
static bool parse_call(struct parsing *p, const struct attribute *a, struct cel_node **out)
{
    static const struct {
        const char *name;
        enum how how;
    } calls[] = {{"startsWith", HOW_STARTS}, {"endsWith", HOW_ENDS}, {"contains", HOW_CONTAINS}};
    struct texts texts = {0};
    if (!next(p)) {
        return false;
    }
    size_t call = 0;
    while (call < 3 && !slice_eq(p->value, slice_str(calls[call].name))) {
        call++;
    }
    if (p->token != TOKEN_WORD || call == 3) {
        return fault(p, "a method that there is not", "startsWith, endsWith or contains");
    }
    return next(p) && take(p, TOKEN_OPEN, "a method without its argument", "('…')") &&
           take_text(p, &texts) && take(p, TOKEN_CLOSE, "a parenthesis is not closed", ")") &&
           make_test(p, a, calls[call].how, &texts, out);
}

static bool negate(struct parsing *p, struct cel_node *node, struct cel_node **out)
{
    return pair_new(p, CEL_NOT, node, /* right= */ NULL, out);
}

static bool parse_relation_of(struct parsing *p, const struct attribute *a, struct cel_node **out)
{
    struct texts texts = {0};
    enum token how = p->token;
    if (a->form == FORM_MAP) {
        return fault_at(p, a->begin, "a map is no value",
                        "request.headers['x-name'], or 'x-name' in request.headers");
    }
    if (how == TOKEN_DOT) {
        return parse_call(p, a, out);
    }
    if (how == TOKEN_IN) {
        return next(p) && take_list(p, &texts) && make_test(p, a, HOW_EXACT, &texts, out);
    }
    if (how != TOKEN_EQUAL && how != TOKEN_UNEQUAL) {
        return fault(p, "an attribute that is not compared", "==, !=, in or a method");
    }
    struct cel_node *node = NULL;
    if (!next(p) || !take_text(p, &texts) || !make_test(p, a, HOW_EXACT, &texts, &node)) {
        return false;
    }
    *out = node;
    return how == TOKEN_EQUAL || negate(p, node, out);
}

/* "'x' in request.headers". */
static bool parse_presence(struct parsing *p, const struct texts *name, struct cel_node **out)
{
    struct attribute a = {0};
    if (!next(p)) {
        return false;
    }
    if (p->token != TOKEN_WORD) {
        return fault(p, "no map behind in", "request.headers or caller.traits");
    }
    if (!parse_attribute(p, &a)) {
        return false;
    }
    if (a.form != FORM_MAP) {
        return fault_at(p, a.begin, "in asks a map here", "request.headers or caller.traits");
    }
    a.name = name->items[0];
    if (!check_name(p, name->at, &a, a.name) || !test_new(p, &a, out)) {
        return false;
    }
    struct cp_cel_test *test = &(*out)->test;
    if (!has_room(p, arena_calloc(p->arena, 1, sizeof(struct slice), (void **)&test->globs))) {
        return false;
    }
    test->globs[test->glob_count++] = SLICE_LIT("*");
    test->presence = true;
    return true;
}

/* "'x' == caller.id" and "'x' in …", at the text. */
static bool parse_text_first(struct parsing *p, struct cel_node **out)
{
    struct texts texts = {0};
    struct attribute a = {0};
    struct cel_node *node = NULL;
    if (!take_text(p, &texts)) {
        return false;
    }
    enum token how = p->token;
    if (how == TOKEN_IN) {
        return parse_presence(p, &texts, out);
    }
    if (how != TOKEN_EQUAL && how != TOKEN_UNEQUAL) {
        return fault(p, "a text that is not compared", "==, != or in");
    }
    if (!next(p)) {
        return false;
    }
    if (p->token != TOKEN_WORD) {
        return fault(p, "no attribute to compare the text with", "caller.id, lane, …");
    }
    if (!parse_attribute(p, &a)) {
        return false;
    }
    if (a.form == FORM_MAP) {
        return fault_at(p, a.begin, "a map is no value", "request.headers['x-name']");
    }
    if (!make_test(p, &a, HOW_EXACT, &texts, &node)) {
        return false;
    }
    *out = node;
    return how == TOKEN_EQUAL || negate(p, node, out);
}

static bool parse_or(struct parsing *p, struct cel_node **out);

static bool parse_relation(struct parsing *p, struct cel_node **out)
{
    struct attribute a = {0};
    if (p->token == TOKEN_TEXT) {
        return parse_text_first(p, out);
    }
    if (p->token == TOKEN_OPEN) {
        return next(p) && parse_or(p, out) &&
               take(p, TOKEN_CLOSE, "a parenthesis is not closed", "), && or ||");
    }
    bool yes = p->token == TOKEN_WORD && slice_eq(p->value, SLICE_LIT("true"));
    bool no = p->token == TOKEN_WORD && slice_eq(p->value, SLICE_LIT("false"));
    if (yes || no) {
        return node_new(p, yes ? CEL_TRUE : CEL_FALSE, out) && next(p);
    }
    if (p->token != TOKEN_WORD) {
        return fault(p, p->token == TOKEN_END ? "the condition ends too early" : "no value here",
                     "an attribute, a text, ! or (");
    }
    return parse_attribute(p, &a) && parse_relation_of(p, &a, out);
}

static bool parse_not(struct parsing *p, struct cel_node **out)
{
    bool negated = false;
    while (p->token == TOKEN_NOT) {
        negated = !negated;
        if (!next(p)) {
            return false;
        }
    }
    struct cel_node *node = NULL;
    if (!parse_relation(p, &node)) {
        return false;
    }
    *out = node;
    return !negated || negate(p, node, out);
}

static bool parse_and(struct parsing *p, struct cel_node **out)
{
    if (!parse_not(p, out)) {
        return false;
    }
    while (p->token == TOKEN_AND) {
        struct cel_node *right = NULL;
        if (!next(p) || !parse_not(p, &right) || !pair_new(p, CEL_AND, *out, right, out)) {
            return false;
        }
    }
    return true;
}

/* Recursion ends at CP_CEL_DEPTH_MAX parentheses. */
static bool parse_or(struct parsing *p, struct cel_node **out)
{
    if (++p->depth > CP_CEL_DEPTH_MAX) {
        return too_large(p, "parentheses nest too deeply", "at most 32");
    }
    if (!parse_and(p, out)) {
        return false;
    }
    while (p->token == TOKEN_OR) {
        struct cel_node *right = NULL;
        if (!next(p) || !parse_and(p, &right) || !pair_new(p, CEL_OR, *out, right, out)) {
            return false;
        }
    }
    p->depth--;
    return true;
}

struct err cp_cel_parse(struct slice text, struct arena *arena, struct cp_cel *out,
                        struct cp_cel_fault *out_fault)
{
    struct parsing p = {.text = text, .arena = arena};
    struct cel_node *root = NULL;
    *out_fault = (struct cp_cel_fault){0};
    if (text.size > CP_CEL_BYTES_MAX) {
        (void)too_large(&p, "the condition is too long", "at most 4096 bytes");
    } else if (next(&p) && parse_or(&p, &root) && p.token != TOKEN_END) {
        (void)fault(&p, "something behind the end of the condition", "&& or ||");
    }
    TRY(p.memory);
    if (p.fault.message != NULL) {
        *out_fault = p.fault;
        return OK;
    }
    bool fits = false;
    struct cp_cel normal = {0};
    TRY(cel_normal(root, arena, &normal, &fits));
    if (!fits) {
        *out_fault = (struct cp_cel_fault){
            .too_large = true,
            .message = "the condition is too large once && stands inside of ||",
            .expected = "at most 64 alternatives of 24 tests; several rules can say the same"};
        return OK;
    }
    *out = normal;
    return OK;
}
