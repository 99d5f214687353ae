/* check_fit: see check_fit.h. */
#include "controlplane/source/check_fit.h"

#include "common/base/text.h"
#include "common/context/context.h"

/* What requests of a target are. */
struct sort {
    const char *name;
    uint64_t verbs;
    uint64_t lane;
    const char *verb_text;
    const char *lane_text;
    const char *method_text;
};

enum { SORT_SERVICE, SORT_TOPIC, SORT_EGRESS, SORT_COUNT };

static const struct sort sorts[SORT_COUNT] = {
    [SORT_SERVICE] = {"a service", 1U << CP_VERB_CALL, 1U << CP_LANE_OPERATOR, "call", "operator",
                      "/package.Service/Method, or a glob of it that begins with / or *"},
    [SORT_TOPIC] = {"a topic", 1U << CP_VERB_PUBLISH | 1U << CP_VERB_SUBSCRIBE,
                    1U << CP_LANE_CANONICAL, "publish or subscribe", "canonical",
                    "a type: Greeting.v1, or a glob of it"},
    [SORT_EGRESS] = {"an egress", 1U << CP_VERB_FETCH, 1U << CP_LANE_PROXY, "fetch", "proxy",
                     "an HTTP method in capitals: GET, or a glob of it"}};

/* NULL: the target names none, or several, which was refused. */
static const struct sort *sort_of(const struct cp_target *target)
{
    bool service = target->service.text.size > 0;
    bool topic = target->topic.text.size > 0;
    bool egress = target->egress.text.size > 0;
    if (service + topic + egress != 1) {
        return NULL;
    }
    return &sorts[service ? SORT_SERVICE : topic ? SORT_TOPIC : SORT_EGRESS];
}

/* ---- methods ---- */

static bool has(struct slice text, char c)
{
    return slice_find(text, (uint8_t)c) < text.size;
}

static bool has_lower(struct slice text)
{
    for (size_t i = 0; i < text.size; i++) {
        if (text.ptr[i] >= 'a' && text.ptr[i] <= 'z') {
            return true;
        }
    }
    return false;
}

/* "/package.Service/Method": a glob may stand for any of it. */
static bool may_be_path(struct slice method)
{
    uint8_t first = method.ptr[0];
    if (text_is_glob(method)) {
        return first == '/' || first == '*' || first == '?';
    }
    size_t slash = slice_find(slice_from(method, 1), '/') + 1;
    return first == '/' && slash > 1 && slash + 1 < method.size;
}

static bool may_be_method(const struct sort *sort, struct slice method)
{
    if (sort == &sorts[SORT_SERVICE]) {
        return may_be_path(method);
    }
    if (sort == &sorts[SORT_TOPIC]) {
        return !has(method, '/') && (text_is_glob(method) || has(method, '.'));
    }
    return !has(method, '/') && !has_lower(method); /* nodes let no other out. */
}

static void check_methods(struct cp_diags *diags, const struct sort *sort,
                          const struct cp_texts *methods)
{
    for (size_t i = 0; i < methods->count; i++) {
        const struct cp_text *method = &methods->items[i];
        if (method->text.size == 0 || may_be_method(sort, method->text) ||
            cp_diags_pass_over(diags)) {
            continue;
        }
        struct cp_diag *diag =
            cp_diags_add(diags, CP_DIAG_FITS_NOTHING, method->at, "\"%.*s\" is no method of %s",
                         SLICE_ARG(slice_head(method->text, 80)), sort->name);
        cp_diag_expect(diags, diag, "%s", sort->method_text);
    }
}

/* ---- headers ---- */

bool cp_header_is_taken_out(struct slice name)
{
    return context_judge_client(name) == CONTEXT_STRIP;
}

static void check_header(struct cp_diags *diags, const struct cp_text *name)
{
    if (!cp_header_is_taken_out(name->text) || cp_diags_pass_over(diags)) {
        return;
    }
    struct cp_diag *diag =
        cp_diags_add(diags, CP_DIAG_FITS_NOTHING, name->at,
                     "no request has header %.*s: nodes take it out before they look",
                     SLICE_ARG(slice_head(name->text, 80)));
    cp_diag_expect(diags, diag, "a header of the caller's own; who calls is what callers says");
}

static void check_headers(struct cp_diags *diags, const struct cp_header_matches *headers)
{
    for (size_t i = 0; i < headers->count; i++) {
        check_header(diags, &headers->items[i].name);
    }
}

/* ---- all ---- */

void cp_check_rule_fits(struct cp_diags *diags, const struct cp_target *target,
                        const struct cp_rule *rule)
{
    const struct sort *sort = sort_of(target);
    check_headers(diags, &rule->headers);
    if (sort == NULL) {
        return;
    }
    if (rule->verbs != 0 && (rule->verbs & sort->verbs) == 0 && !cp_diags_pass_over(diags)) {
        struct cp_diag *diag = cp_diags_add(diags, CP_DIAG_FITS_NOTHING, rule->verbs_at,
                                            "nobody does this to %s", sort->name);
        cp_diag_expect(diags, diag, "%s", sort->verb_text);
    }
    if (rule->lanes != 0 && (rule->lanes & sort->lane) == 0 && !cp_diags_pass_over(diags)) {
        struct cp_diag *diag = cp_diags_add(diags, CP_DIAG_FITS_NOTHING, rule->lanes_at,
                                            "no request to %s comes by this lane", sort->name);
        cp_diag_expect(diags, diag, "%s", sort->lane_text);
    }
    check_methods(diags, sort, &rule->methods);
}

void cp_check_limit_fits(struct cp_diags *diags, const struct cp_rate_limit *limit)
{
    const struct sort *sort = sort_of(&limit->target);
    for (size_t i = 0; i < limit->by_headers.count; i++) {
        check_header(diags, &limit->by_headers.items[i]);
    }
    if (sort != NULL) {
        check_methods(diags, sort, &limit->methods);
    }
}

void cp_check_method_fits(struct cp_diags *diags, const struct cp_method *method)
{
    check_methods(diags, &sorts[SORT_SERVICE], &method->names);
}

void cp_check_match_fits(struct cp_diags *diags, const struct cp_route_match *match)
{
    check_headers(diags, &match->headers);
    if (match->grpc.service.text.size > 0 && match->method.text.size > 0 &&
        !slice_eq(match->method.text, SLICE_LIT("POST")) && !cp_diags_pass_over(diags)) {
        struct cp_diag *diag =
            cp_diags_add(diags, CP_DIAG_FITS_NOTHING, match->method.at,
                         "calls of gRPC are POST, never %.*s", SLICE_ARG(match->method.text));
        cp_diag_expect(diags, diag, "no method here; one of the gRPC service's is grpc.method");
    }
}

void cp_check_balance_fits(struct cp_diags *diags, const struct cp_balance *balance)
{
    check_header(diags, &balance->hash_by.header);
}
