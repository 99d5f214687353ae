/* cel: see cel.h. The normal form is made in cel_normal.c. */
#include "controlplane/source/cel.h"

#include <string.h>

#include "common/base/check.h"
#include "common/base/text.h"
#include "controlplane/source/cel_impl.h"
#include "controlplane/source/form.h"

/* ---- nodes ---- */

bool cel_node_new(struct cel_parsing *p, enum cel_op op, struct cel_node **out)
{
    if (++p->node_count > CP_CEL_NODES_MAX) {
        return cel_too_large(p, "the condition says too much", "at most 256 tests and operators");
    }
    if (!err_ok(arena_calloc(p->arena, 1, sizeof(struct cel_node), (void **)out))) {
        return cel_no_memory(p);
    }
    (*out)->op = op;
    return true;
}

static bool pair_new(struct cel_parsing *p, enum cel_op op, struct cel_node *left,
                     struct cel_node *right, struct cel_node **out)
{
    if (!cel_node_new(p, op, out)) {
        return false;
    }
    (*out)->left = left;
    (*out)->right = right;
    return true;
}

/* ---- attributes ---- */

static const struct {
    const char *object; /* NULL: none. */
    const char *name;
    enum cp_cel_attribute is;
    enum cel_form form;
} attributes[] = {
    {"caller", "id", CP_CEL_CALLER, CEL_FORM_PLAIN},
    {"caller", "tenant", CP_CEL_TENANT, CEL_FORM_PLAIN},
    {"caller", "service", CP_CEL_CALLER, CEL_FORM_CALLER_SERVICE},
    {"caller", "trustDomain", CP_CEL_DOMAIN, CEL_FORM_PLAIN},
    {"caller", "traits", CP_CEL_TRAIT, CEL_FORM_MAP},
    {"request", "method", CP_CEL_METHOD, CEL_FORM_PLAIN},
    {"request", "service", CP_CEL_METHOD, CEL_FORM_REQUEST_SERVICE},
    {"request", "headers", CP_CEL_HEADER, CEL_FORM_MAP},
    {"request", "time", CP_CEL_TIME, CEL_FORM_TIME},
    {NULL, "lane", CP_CEL_LANE, CEL_FORM_PLAIN},
    {NULL, "verb", CP_CEL_VERB, CEL_FORM_PLAIN},
    {NULL, "type", CP_CEL_METHOD, CEL_FORM_TYPE},
};

static bool find_attribute(struct cel_parsing *p, struct slice object, struct slice name,
                           struct cel_attribute *out)
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
    return cel_fault_at(
        p, out->begin, "an attribute that is not known",
        "caller.id, caller.tenant, caller.service, caller.trustDomain, caller.traits, "
        "request.method, request.service, request.headers, request.time, lane, verb or type");
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
static bool check_name(struct cel_parsing *p, size_t at, const struct cel_attribute *a,
                       struct slice name)
{
    if (a->is == CP_CEL_HEADER && !fits_header(name)) {
        return cel_fault_at(p, at, "not the name of a header", "a header's name in lower case");
    }
    return name.size > 0 || cel_fault_at(p, at, "an empty name", /* expected= */ NULL);
}

/* "['x']" or ".x" behind a map, if there. */
static bool parse_member(struct cel_parsing *p, struct cel_attribute *a)
{
    bool in_brackets = p->token == CEL_TOKEN_LIST_OPEN;
    if (!in_brackets && p->token != CEL_TOKEN_DOT) {
        return true;
    }
    if (!cel_next(p)) {
        return false;
    }
    if (p->token != (in_brackets ? CEL_TOKEN_TEXT : CEL_TOKEN_WORD)) {
        return cel_fault(p, "no name of a trait or header", in_brackets ? "['x-name']" : ".name");
    }
    if (!err_ok(arena_dup(p->arena, p->value, &a->name))) {
        return cel_no_memory(p);
    }
    a->form = CEL_FORM_PLAIN;
    if (!check_name(p, p->begin, a, a->name) || !cel_next(p)) {
        return false;
    }
    return !in_brackets || cel_take(p, CEL_TOKEN_LIST_CLOSE, "a bracket is not closed", "]");
}

/* At a word that is none of true and false. */
bool cel_parse_attribute(struct cel_parsing *p, struct cel_attribute *out)
{
    struct slice object = {0};
    struct slice name = p->value;
    *out = (struct cel_attribute){.begin = p->begin};
    if (!cel_next(p)) {
        return false;
    }
    bool is_object = slice_eq(name, SLICE_LIT("caller")) || slice_eq(name, SLICE_LIT("request"));
    if (is_object) {
        if (!cel_take(p, CEL_TOKEN_DOT, "an object is no value",
                      "a member: caller.id, request.method")) {
            return false;
        }
        if (p->token != CEL_TOKEN_WORD) {
            return cel_fault(p, "no name behind the dot", "a member: caller.id, request.method");
        }
        object = name;
        name = p->value;
        if (!cel_next(p)) {
            return false;
        }
    }
    if (!find_attribute(p, object, name, out)) {
        return false;
    }
    return out->form != CEL_FORM_MAP || parse_member(p, out);
}

/* ---- tests ---- */

enum how { HOW_EXACT, HOW_STARTS, HOW_ENDS, HOW_CONTAINS };

/* What a test of an attribute's form is as a glob of the whole attribute: by form, by how. */
static const char *const globs_of[][4] = {
    [CEL_FORM_PLAIN] = {NULL, "%*", "*%", "*%*"},
    [CEL_FORM_CALLER_SERVICE] = {"*/%", "*/%*", "*/*%", "*/*%*"},
    [CEL_FORM_REQUEST_SERVICE] = {"/%/*", "/%*", "/*%/*", "/*%*/*"},
    [CEL_FORM_TYPE] = {NULL, "%*", "*%", "*%*"},
};

static bool check_text(struct cel_parsing *p, size_t at, const struct cel_attribute *a,
                       enum how how, struct slice text)
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
        return cel_fault_at(p, at, "an empty text", "a text that says something");
    }
    if (glob && text_is_glob(text)) {
        return cel_fault_at(p, at, "a text with * or ? in it", "a text without * and ?");
    }
    if (glob && a->form != CEL_FORM_PLAIN && slice_find(text, '/') < text.size) {
        return cel_fault_at(p, at, "a name with a slash", "the name alone");
    }
    for (size_t i = 0; i < 2 && how == HOW_EXACT; i++) {
        char wanted[CP_CEL_TEXT_MAX + 3] = "|";
        (void)memcpy(wanted + 1, text.ptr, text.size);
        wanted[text.size + 1] = '|';
        if (a->is == choices[i].of && strstr(choices[i].names, wanted) == NULL) {
            return cel_fault_at(p, at, "a value that there is not", choices[i].expected);
        }
    }
    return true;
}

static bool make_glob(struct cel_parsing *p, const char *pattern, struct slice text,
                      struct slice *out)
{
    size_t front = strcspn(pattern, "%");
    const struct slice pieces[] = {slice_of(pattern, front), text, slice_str(pattern + front + 1)};
    return err_ok(arena_join(p->arena, pieces, 3, out)) || cel_no_memory(p);
}

/* Headers that carry credentials: a condition may ask whether they are there, not what they say. */
bool cel_is_secret(const struct cel_attribute *a)
{
    return a->is == CP_CEL_HEADER && cp_secret_header(a->name);
}

/* The texts that an attribute is compared with. */
struct texts {
    struct slice *items;
    size_t count;
    size_t at; /* of the first. */
};

/* The lane in which an attribute of this form has a value; empty otherwise. */
static const char *lane_of(enum cel_form form)
{
    return form == CEL_FORM_REQUEST_SERVICE ? "operator"
           : form == CEL_FORM_TYPE          ? "canonical"
                                            : NULL;
}

bool cel_test_new(struct cel_parsing *p, const struct cel_attribute *a, struct cel_node **out)
{
    if (!cel_node_new(p, CEL_TEST, out)) {
        return false;
    }
    (*out)->test.attribute = a->is;
    (*out)->test.name = a->name;
    return true;
}

/* "lane == L && 'test'": outside of its lane such an attribute is empty. */
static bool in_lane(struct cel_parsing *p, const char *lane, struct cel_node *test,
                    struct cel_node **out)
{
    const struct cel_attribute of = {.is = CP_CEL_LANE};
    struct cel_node *node = NULL;
    if (!cel_test_new(p, &of, &node)) {
        return false;
    }
    if (!err_ok(arena_calloc(p->arena, 1, sizeof(struct slice), (void **)&node->test.exact))) {
        return cel_no_memory(p);
    }
    node->test.exact[node->test.exact_count++] = slice_str(lane);
    return pair_new(p, CEL_AND, node, test, out);
}

/*
 * "!caller.id.contains('#') && 'test'": whom a token proves without a Service has an id that ends
 * with a subject, "<tenant>/<Issuer>#<subject>", which may end like any Service's name. Its service
 * is empty.
 */
static bool of_service(struct cel_parsing *p, struct cel_node *test, struct cel_node **out)
{
    const struct cel_attribute of = {.is = CP_CEL_CALLER};
    struct cel_node *node = NULL;
    if (!cel_test_new(p, &of, &node)) {
        return false;
    }
    if (!err_ok(arena_calloc(p->arena, 1, sizeof(struct slice), (void **)&node->test.globs))) {
        return cel_no_memory(p);
    }
    node->test.globs[node->test.glob_count++] = SLICE_LIT("*#*");
    node->test.negate = true;
    return pair_new(p, CEL_AND, node, test, out);
}

static bool make_test(struct cel_parsing *p, const struct cel_attribute *a, enum how how,
                      const struct texts *texts, struct cel_node **out)
{
    struct cel_node *node = NULL;
    const char *pattern = globs_of[a->form][how];
    if (cel_is_secret(a)) {
        (void)cel_fault_at(p, texts->at, "a secret in clear",
                           "'authorization' in request.headers: whether it is there");
        p->fault.secret = true;
        return false;
    }
    if (!cel_test_new(p, a, &node)) {
        return false;
    }
    struct slice *values = NULL;
    if (!err_ok(arena_calloc(p->arena, texts->count + 1, sizeof(struct slice), (void **)&values))) {
        return cel_no_memory(p);
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
    if (a->form == CEL_FORM_CALLER_SERVICE) {
        return of_service(p, node, out);
    }
    return lane_of(a->form) == NULL || in_lane(p, lane_of(a->form), node, out);
}

/* ---- relations ---- */

/* At the text behind "==" and the like, or in a list. */
static bool take_text(struct cel_parsing *p, struct texts *texts)
{
    if (p->token != CEL_TOKEN_TEXT) {
        return cel_fault(p, "no text where one belongs", "a text in quotes");
    }
    if (texts->count >= CP_CEL_LIST_MAX) {
        return cel_too_large(p, "a list is too long", "at most 256 texts");
    }
    if (texts->count == 0) {
        texts->at = p->begin;
        if (!err_ok(arena_calloc(p->arena, CP_CEL_LIST_MAX, sizeof(struct slice),
                                 (void **)&texts->items))) {
            return cel_no_memory(p);
        }
    }
    texts->items[texts->count++] = p->value;
    return cel_next(p);
}

static bool take_list(struct cel_parsing *p, struct texts *texts)
{
    if (!cel_take(p, CEL_TOKEN_LIST_OPEN, "no list behind in", "['a', 'b']")) {
        return false;
    }
    texts->at = p->begin;
    while (p->token != CEL_TOKEN_LIST_CLOSE) {
        if (!take_text(p, texts)) {
            return false;
        }
        if (p->token != CEL_TOKEN_LIST_CLOSE &&
            !cel_take(p, CEL_TOKEN_COMMA, "a list is not closed", ", or ]")) {
            return false;
        }
    }
    return cel_next(p);
}

/* ".startsWith('x')", at the dot. */
static bool parse_call(struct cel_parsing *p, const struct cel_attribute *a, struct cel_node **out)
{
    static const struct {
        const char *name;
        enum how how;
    } calls[] = {{"startsWith", HOW_STARTS}, {"endsWith", HOW_ENDS}, {"contains", HOW_CONTAINS}};
    struct texts texts = {0};
    if (!cel_next(p)) {
        return false;
    }
    size_t call = 0;
    while (call < 3 && !slice_eq(p->value, slice_str(calls[call].name))) {
        call++;
    }
    if (p->token == CEL_TOKEN_WORD && slice_eq(p->value, SLICE_LIT("size"))) {
        return cel_next(p) && cel_parse_size(p, a, out);
    }
    if (p->token != CEL_TOKEN_WORD || call == 3) {
        return cel_fault(p, "a method that there is not", "startsWith, endsWith, contains or size");
    }
    return cel_next(p) && cel_take(p, CEL_TOKEN_OPEN, "a method without its argument", "('…')") &&
           take_text(p, &texts) &&
           cel_take(p, CEL_TOKEN_CLOSE, "a parenthesis is not closed", ")") &&
           make_test(p, a, calls[call].how, &texts, out);
}

bool cel_negate(struct cel_parsing *p, struct cel_node *node, struct cel_node **out)
{
    return pair_new(p, CEL_NOT, node, /* right= */ NULL, out);
}

static bool parse_relation_of(struct cel_parsing *p, const struct cel_attribute *a,
                              struct cel_node **out)
{
    struct texts texts = {0};
    enum cel_token how = p->token;
    if (a->form == CEL_FORM_MAP) {
        return cel_fault_at(p, a->begin, "a map is no value",
                            "request.headers['x-name'], or 'x-name' in request.headers");
    }
    if (a->form == CEL_FORM_TIME) {
        return cel_parse_time(p, a, out);
    }
    if (how == CEL_TOKEN_DOT) {
        return parse_call(p, a, out);
    }
    if (how == CEL_TOKEN_IN) {
        return cel_next(p) && take_list(p, &texts) && make_test(p, a, HOW_EXACT, &texts, out);
    }
    if (how >= CEL_TOKEN_LESS && how <= CEL_TOKEN_AT_LEAST) {
        return cel_fault(p, "texts have no order here", "== or !=; int(…) and size(…) have one");
    }
    if (how != CEL_TOKEN_EQUAL && how != CEL_TOKEN_UNEQUAL) {
        return cel_fault(p, "an attribute that is not compared", "==, !=, in or a method");
    }
    struct cel_node *node = NULL;
    if (!cel_next(p) || !take_text(p, &texts) || !make_test(p, a, HOW_EXACT, &texts, &node)) {
        return false;
    }
    *out = node;
    return how == CEL_TOKEN_EQUAL || cel_negate(p, node, out);
}

/* "'x' in request.headers". */
static bool parse_presence(struct cel_parsing *p, const struct texts *name, struct cel_node **out)
{
    struct cel_attribute a = {0};
    if (!cel_next(p)) {
        return false;
    }
    if (p->token != CEL_TOKEN_WORD) {
        return cel_fault(p, "no map behind in", "request.headers or caller.traits");
    }
    if (!cel_parse_attribute(p, &a)) {
        return false;
    }
    if (a.form != CEL_FORM_MAP) {
        return cel_fault_at(p, a.begin, "in asks a map here", "request.headers or caller.traits");
    }
    a.name = name->items[0];
    if (!check_name(p, name->at, &a, a.name) || !cel_test_new(p, &a, out)) {
        return false;
    }
    struct cp_cel_test *test = &(*out)->test;
    if (!err_ok(arena_calloc(p->arena, 1, sizeof(struct slice), (void **)&test->globs))) {
        return cel_no_memory(p);
    }
    test->globs[test->glob_count++] = SLICE_LIT("*");
    test->presence = true;
    return true;
}

/* "'x' == caller.id" and "'x' in …", at the text. */
static bool parse_text_first(struct cel_parsing *p, struct cel_node **out)
{
    struct texts texts = {0};
    struct cel_attribute a = {0};
    struct cel_node *node = NULL;
    if (!take_text(p, &texts)) {
        return false;
    }
    enum cel_token how = p->token;
    if (how == CEL_TOKEN_IN) {
        return parse_presence(p, &texts, out);
    }
    if (how != CEL_TOKEN_EQUAL && how != CEL_TOKEN_UNEQUAL) {
        return cel_fault(p, "a text that is not compared", "==, != or in");
    }
    if (!cel_next(p)) {
        return false;
    }
    if (p->token != CEL_TOKEN_WORD) {
        return cel_fault(p, "no attribute to compare the text with", "caller.id, lane, …");
    }
    if (!cel_parse_attribute(p, &a)) {
        return false;
    }
    if (a.form == CEL_FORM_MAP || a.form == CEL_FORM_TIME) {
        return cel_fault_at(p, a.begin, "no text to compare with", "request.headers['x-name']");
    }
    if (!make_test(p, &a, HOW_EXACT, &texts, &node)) {
        return false;
    }
    *out = node;
    return how == CEL_TOKEN_EQUAL || cel_negate(p, node, out);
}

static bool parse_or(struct cel_parsing *p, struct cel_node **out);

static bool parse_relation(struct cel_parsing *p, struct cel_node **out)
{
    struct cel_attribute a = {0};
    if (p->token == CEL_TOKEN_TEXT) {
        return parse_text_first(p, out);
    }
    if (cel_begins_order(p)) {
        return cel_parse_order(p, out);
    }
    if (p->token == CEL_TOKEN_OPEN) {
        return cel_next(p) && parse_or(p, out) &&
               cel_take(p, CEL_TOKEN_CLOSE, "a parenthesis is not closed", "), && or ||");
    }
    bool yes = p->token == CEL_TOKEN_WORD && slice_eq(p->value, SLICE_LIT("true"));
    bool no = p->token == CEL_TOKEN_WORD && slice_eq(p->value, SLICE_LIT("false"));
    if (yes || no) {
        return cel_node_new(p, yes ? CEL_TRUE : CEL_FALSE, out) && cel_next(p);
    }
    if (p->token != CEL_TOKEN_WORD) {
        return cel_fault(
            p, p->token == CEL_TOKEN_END ? "the condition ends too early" : "no value here",
            "an attribute, a text, ! or (");
    }
    return cel_parse_attribute(p, &a) && parse_relation_of(p, &a, out);
}

static bool parse_not(struct cel_parsing *p, struct cel_node **out)
{
    bool negated = false;
    while (p->token == CEL_TOKEN_NOT) {
        negated = !negated;
        if (!cel_next(p)) {
            return false;
        }
    }
    struct cel_node *node = NULL;
    if (!parse_relation(p, &node)) {
        return false;
    }
    *out = node;
    return !negated || cel_negate(p, node, out);
}

static bool parse_and(struct cel_parsing *p, struct cel_node **out)
{
    if (!parse_not(p, out)) {
        return false;
    }
    while (p->token == CEL_TOKEN_AND) {
        struct cel_node *right = NULL;
        if (!cel_next(p) || !parse_not(p, &right) || !pair_new(p, CEL_AND, *out, right, out)) {
            return false;
        }
    }
    return true;
}

/* Recursion ends at CP_CEL_DEPTH_MAX parentheses; the first one has none. */
static bool parse_or(struct cel_parsing *p, struct cel_node **out)
{
    if (p->depth++ > CP_CEL_DEPTH_MAX) {
        return cel_too_large(p, "parentheses nest too deeply", "at most 32");
    }
    if (!parse_and(p, out)) {
        return false;
    }
    while (p->token == CEL_TOKEN_OR) {
        struct cel_node *right = NULL;
        if (!cel_next(p) || !parse_and(p, &right) || !pair_new(p, CEL_OR, *out, right, out)) {
            return false;
        }
    }
    p->depth--;
    return true;
}

struct err cp_cel_parse(struct slice text, struct arena *arena, struct cp_cel *out,
                        struct cp_cel_fault *out_fault)
{
    struct cel_parsing p = {.text = text, .arena = arena};
    struct cel_node *root = NULL;
    *out_fault = (struct cp_cel_fault){0};
    if (text.size > CP_CEL_BYTES_MAX) {
        (void)cel_too_large(&p, "the condition is too long", "at most 4096 bytes");
    } else if (cel_next(&p) && parse_or(&p, &root) && p.token != CEL_TOKEN_END) {
        (void)cel_fault(&p, "something behind the end of the condition", "&& or ||");
    }
    if (p.no_memory) {
        return FAIL(E_NO_MEMORY);
    }
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
