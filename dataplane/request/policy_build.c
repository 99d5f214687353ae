/*
 * policy_build: a PolicyTarget part, laid out for walking, once it is checked (policy_check.c).
 *
 * What edges compare with becomes numbers (policy_values.c), and nodes are laid out small, since
 * those of many rules must stay in a core's cache.
 */
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/scope.h"
#include "common/proto/strict.h"
#include "common/snapshot/format.h"
#include "dataplane/request/policy_impl.h"

#include "trilane/parts/v1/parts.pb-c.h"

typedef Trilane__Parts__V1__PolicyTarget part_target;
typedef Trilane__Parts__V1__PolicyNode part_node;

/* Copies text behind *at in the target's block of text. */
static struct slice keep(struct dp_policy_target *t, const char *text)
{
    size_t size = strlen(text);
    CHECK(size <= t->text_size - t->text_used);
    uint8_t *to = t->text + t->text_used;
    (void)memcpy(to, text, size);
    t->text_used += size;
    return slice_of(to, size);
}

static size_t names_size(char *const *names, size_t count)
{
    size_t size = 0;
    for (size_t i = 0; i < count; i++) {
        size += strlen(names[i]);
    }
    return size;
}

static size_t text_size(const part_target *part)
{
    size_t size = strlen(part->target) + names_size(part->trait_names, part->n_trait_names) +
                  names_size(part->header_names, part->n_header_names);
    for (size_t i = 0; i < part->n_comparisons; i++) {
        size += strlen(part->comparisons[i]->name);
    }
    for (size_t i = 0; i < part->n_verdicts; i++) {
        size += strlen(part->verdicts[i]->rule);
    }
    return size;
}

/* ---- columns ---- */

/* The attributes of the columns that have no name. */
static const Trilane__Parts__V1__Attribute nameless[POLICY_COLUMN_NAMELESS] = {
    [POLICY_COLUMN_VERB] = TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_VERB,
    [POLICY_COLUMN_LANE] = TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_LANE,
    [POLICY_COLUMN_TENANT] = TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_CALLER_TENANT,
    [POLICY_COLUMN_CALLER] = TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_CALLER,
    [POLICY_COLUMN_DOMAIN] = TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_CALLER_TRUST_DOMAIN,
    [POLICY_COLUMN_METHOD] = TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_METHOD,
};

_Static_assert(POLICY_COLUMN_NAMELESS + 4 * DP_POLICY_NAMES_MAX <= UINT16_MAX,
               "a column's index fits");

static size_t column_count(const part_target *part)
{
    return POLICY_COLUMN_NAMELESS + part->n_trait_names + part->n_header_names +
           part->n_comparisons + part->n_schedules;
}

static size_t place_of(char *const *names, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0) {
            return i;
        }
    }
    CHECK(false); /* policy_check_part() has found it. */
    return count;
}

static uint16_t column_of(const part_target *part, const part_node *node)
{
    uint64_t index = 0;
    size_t headers = POLICY_COLUMN_NAMELESS + part->n_trait_names;
    if (node->attribute == TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_TRAIT) {
        return (uint16_t)(POLICY_COLUMN_NAMELESS +
                          place_of(part->trait_names, part->n_trait_names, node->name));
    }
    if (node->attribute == TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_HEADER) {
        return (uint16_t)(headers + place_of(part->header_names, part->n_header_names, node->name));
    }
    if (node->attribute == TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_SCHEDULE) {
        CHECK(slice_to_u64(slice_str(node->name), &index) && index < part->n_schedules);
        return (uint16_t)(headers + part->n_header_names + part->n_comparisons + index);
    }
    if (node->attribute == TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_COMPARISON) {
        CHECK(slice_to_u64(slice_str(node->name), &index) && index < part->n_comparisons);
        return (uint16_t)(headers + part->n_header_names + index);
    }
    size_t at = 0;
    while (nameless[at] != node->attribute) {
        at++;
        CHECK(at < POLICY_COLUMN_NAMELESS);
    }
    return (uint16_t)at;
}

/* The columns, without their tables. The names of traits and headers are kept before. */
static void make_columns(struct dp_policy_target *t)
{
    struct policy_column *at = t->columns;
    for (size_t i = 0; i < POLICY_COLUMN_NAMELESS; i++) {
        *at++ = (struct policy_column){.attribute = (uint8_t)nameless[i]};
    }
    for (size_t i = 0; i < t->trait_count; i++) {
        *at++ = (struct policy_column){.attribute = TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_TRAIT,
                                       .name = t->traits[i]};
    }
    for (size_t i = 0; i < t->header_count; i++) {
        *at++ = (struct policy_column){.attribute = TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_HEADER,
                                       .name = t->headers[i]};
    }
    for (uint32_t i = 0; i < t->comparison_count; i++) {
        *at++ = (struct policy_column){
            .attribute = TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_COMPARISON, .index = i};
    }
    for (uint32_t i = 0; i < t->schedule_count; i++) {
        *at++ = (struct policy_column){
            .attribute = TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_SCHEDULE, .index = i};
    }
}

/* ---- nodes ---- */

/* How a node's edges are laid out, of which 'numbers' are. */
static enum policy_kind kind_of(const part_node *node, const struct policy_number *numbers)
{
    enum { DENSE_FACTOR = 4 };
    if (node->n_edges == 0) {
        struct slice glob = slice_str(node->glob);
        bool front = slice_find(glob, '*') == glob.size - 1 && slice_find(glob, '?') == glob.size;
        return glob.size == 1 && front ? POLICY_ANY : front ? POLICY_FRONT : POLICY_GLOB;
    }
    if (node->n_edges == 1) {
        return node->prefixes != 0 ? POLICY_FRONT : POLICY_ONE;
    }
    if (node->n_edges < DP_POLICY_MANY) {
        return POLICY_FEW;
    }
    size_t range = (size_t)numbers[node->n_edges - 1].number - numbers[0].number + 1;
    return range <= DENSE_FACTOR * node->n_edges ? POLICY_DENSE : POLICY_MANY;
}

/* The text of a node that tries one front or glob; of a front without its star. */
static struct slice tried_by(const part_node *node, enum policy_kind kind)
{
    struct slice text = slice_str(node->n_edges > 0 ? node->edges[0]->value : node->glob);
    return kind == POLICY_FRONT && node->n_edges == 0 ? slice_head(text, text.size - 1) : text;
}

/* How much of the arrays is taken. */
struct laying {
    uint32_t edges;
    uint32_t dense;
};

static void lay_few(struct dp_policy_target *t, struct policy_node *node, const part_node *from,
                    const struct policy_number *numbers, struct laying *used)
{
    node->first = used->edges;
    node->second = (uint32_t)from->n_edges;
    for (size_t i = 0; i < from->n_edges; i++) {
        t->edges[used->edges++] =
            (struct policy_edge){.number = numbers[i].number, .to = from->edges[i]->to};
    }
}

static void lay_many(struct dp_policy_target *t, struct policy_node *node, const part_node *from,
                     const struct policy_number *numbers, struct laying *used)
{
    struct policy_edge *edges = &t->edges[used->edges];
    size_t places = policy_places(from->n_edges);
    node->first = used->edges;
    node->second = 32;
    for (size_t i = 1; i < places; i *= 2) {
        node->second--;
    }
    for (size_t i = 0; i < from->n_edges; i++) {
        size_t at = policy_edge_place(node, numbers[i].number);
        while (edges[at].number != 0) {
            at = at + 1 == places ? 0 : at + 1;
        }
        edges[at] = (struct policy_edge){.number = numbers[i].number, .to = from->edges[i]->to};
    }
    used->edges += (uint32_t)places;
}

static void lay_dense(struct dp_policy_target *t, struct policy_node *node, const part_node *from,
                      const struct policy_number *numbers, struct laying *used)
{
    uint32_t least = numbers[0].number;
    node->first = used->dense;
    node->second = numbers[from->n_edges - 1].number - least + 1;
    t->dense[used->dense++] = least;
    for (size_t i = 0; i < from->n_edges; i++) {
        t->dense[used->dense + numbers[i].number - least] = from->edges[i]->to;
    }
    used->dense += node->second;
}

static void lay_node(struct dp_policy_target *t, struct policy_node *node, const part_node *from,
                     const struct policy_number *numbers, struct laying *used)
{
    enum policy_kind kind = (enum policy_kind)node->kind;
    switch (kind) {
    case POLICY_ANY:
        node->second = from->matched;
        return;
    case POLICY_ONE:
        node->first = numbers[0].record;
        node->second = from->edges[0]->to;
        return;
    case POLICY_FEW:
        lay_few(t, node, from, numbers, used);
        return;
    case POLICY_MANY:
        lay_many(t, node, from, numbers, used);
        return;
    case POLICY_DENSE:
        lay_dense(t, node, from, numbers, used);
        return;
    case POLICY_FRONT:
    case POLICY_GLOB:
        node->first = policy_add_record(t, /* number= */ 0, tried_by(from, kind));
        node->second = from->n_edges > 0 ? from->edges[0]->to : from->matched;
        return;
    }
}

static MUST_CHECK struct err allocate_nodes(struct dp_policy_target *t, const part_target *part,
                                            const struct policy_number *numbers)
{
    size_t edges = 0;
    size_t dense = 0;
    for (size_t i = 0; i < part->n_nodes; i++) {
        size_t count = part->nodes[i]->n_edges;
        enum policy_kind kind = kind_of(part->nodes[i], numbers);
        edges += kind == POLICY_FEW ? count : kind == POLICY_MANY ? policy_places(count) : 0;
        dense +=
            kind == POLICY_DENSE ? (size_t)numbers[count - 1].number - numbers[0].number + 2 : 0;
        numbers += count;
    }
    if (edges > UINT32_MAX || dense > UINT32_MAX) {
        return FAIL(E_NO_MEMORY);
    }
    t->nodes = calloc(part->n_nodes + 1, sizeof(*t->nodes));
    t->edges = calloc(edges + 1, sizeof(*t->edges));
    t->dense = calloc(dense + 1, sizeof(*t->dense));
    return t->nodes != NULL && t->edges != NULL && t->dense != NULL ? OK : FAIL(E_NO_MEMORY);
}

/* 'numbers' of all edges, in the order of the nodes. */
static MUST_CHECK struct err lay_nodes(struct dp_policy_target *t, const part_target *part,
                                       const struct policy_number *numbers)
{
    struct laying used = {0};
    TRY(allocate_nodes(t, part, numbers));
    for (size_t i = 0; i < part->n_nodes; i++) {
        const part_node *from = part->nodes[i];
        t->nodes[i] = (struct policy_node){.otherwise = from->otherwise,
                                           .column = column_of(part, from),
                                           .kind = (uint8_t)kind_of(from, numbers),
                                           .fronts = from->prefixes != 0};
        t->columns[t->nodes[i].column].compared |= t->nodes[i].kind != POLICY_ANY;
        lay_node(t, &t->nodes[i], from, numbers, &used);
        numbers += from->n_edges;
    }
    return OK;
}

/* What the edges say, but of nodes that try one front; and the words of what is tried. */
static void name_texts(const part_target *part, struct policy_naming *out, size_t *out_count,
                       size_t *out_spare)
{
    uint32_t edge = 0;
    for (size_t i = 0; i < part->n_nodes; i++) {
        const part_node *node = part->nodes[i];
        uint16_t column = column_of(part, node);
        bool tries = node->n_edges == 0 || (node->n_edges == 1 && node->prefixes != 0);
        if (tries) {
            *out_spare +=
                policy_record_words(strlen(node->n_edges > 0 ? node->edges[0]->value : node->glob));
        }
        for (size_t k = 0; k < node->n_edges; k++, edge++) {
            if (!tries) {
                out[(*out_count)++] =
                    (struct policy_naming){.text = slice_str(node->edges[k]->value),
                                           .edge = edge,
                                           .column = column,
                                           .front = node->prefixes != 0};
            }
        }
    }
}

static MUST_CHECK struct err make_nodes(struct dp_policy_target *t, const part_target *part)
{
    size_t edges = 0;
    size_t count = 0;
    size_t spare = 0;
    for (size_t i = 0; i < part->n_nodes; i++) {
        edges += part->nodes[i]->n_edges;
    }
    auto_free struct policy_naming *namings = calloc(edges + 1, sizeof(*namings));
    auto_free struct policy_number *numbers = calloc(edges + 1, sizeof(*numbers));
    if (namings == NULL || numbers == NULL || edges > UINT32_MAX / 2) {
        return FAIL(E_NO_MEMORY);
    }
    name_texts(part, namings, &count, &spare);
    TRY(policy_number_values(t, namings, count, spare, numbers));
    return lay_nodes(t, part, numbers);
}

/* ---- the rest ---- */

static struct policy_roots copy_roots(uint32_t **at, const uint32_t *first, const uint32_t *roots,
                                      size_t count)
{
    struct policy_roots out = {.items = *at, .count = count};
    if (first != NULL) {
        *(*at)++ = *first;
        out.count++;
    }
    for (size_t i = 0; i < count; i++) {
        *(*at)++ = roots[i];
    }
    return out;
}

static void copy_all_roots(struct dp_policy_target *t, const part_target *part)
{
    uint32_t *at = t->references;
    t->decides = copy_roots(&at, &part->root, part->more_roots, part->n_more_roots);
    t->shadow = copy_roots(&at, /* first= */ NULL, part->shadow_roots, part->n_shadow_roots);
    t->fast = copy_roots(&at, /* first= */ NULL, part->fast_roots, part->n_fast_roots);
    t->several = t->decides.count + t->shadow.count > 1;
}

static void copy_schedules(struct dp_policy_target *t, const part_target *part)
{
    struct policy_span *at = t->spans;
    for (size_t i = 0; i < part->n_schedules; i++) {
        const Trilane__Parts__V1__Schedule *from = part->schedules[i];
        t->schedules[t->schedule_count++] =
            (struct policy_schedule){.spans = at,
                                     .span_count = from->n_from,
                                     .not_before_ms = from->not_before_ms,
                                     .not_after_ms = from->not_after_ms};
        for (size_t k = 0; k < from->n_from; k++) {
            *at++ = (struct policy_span){from->from[k], from->to[k]};
        }
    }
}

static void copy_comparisons(struct dp_policy_target *t, const part_target *part)
{
    for (size_t i = 0; i < part->n_comparisons; i++) {
        const Trilane__Parts__V1__Comparison *from = part->comparisons[i];
        t->comparisons[t->comparison_count++] =
            (struct policy_comparison){.name = keep(t, from->name),
                                       .least = from->least,
                                       .most = from->most,
                                       .attribute = (uint8_t)from->attribute,
                                       .measure = (uint8_t)from->measure};
    }
}

static MUST_CHECK struct err allocate(const part_target *part, struct dp_policy_target *t)
{
    size_t spans = 0;
    for (size_t i = 0; i < part->n_schedules; i++) {
        spans += part->schedules[i]->n_from;
    }
    size_t roots = 1 + part->n_more_roots + part->n_shadow_roots + part->n_fast_roots;
    t->text_size = text_size(part);
    t->text = malloc(t->text_size + 1);
    t->columns = calloc(column_count(part), sizeof(*t->columns));
    t->references = calloc(roots, sizeof(*t->references));
    t->spans = calloc(spans + 1, sizeof(*t->spans));
    t->schedules = calloc(part->n_schedules + 1, sizeof(*t->schedules));
    t->comparisons = calloc(part->n_comparisons + 1, sizeof(*t->comparisons));
    t->rules = calloc(part->n_verdicts + 1, sizeof(*t->rules));
    t->allows = calloc(part->n_verdicts, sizeof(*t->allows));
    t->traits = calloc(part->n_trait_names + 1, sizeof(*t->traits));
    t->headers = calloc(part->n_header_names + 1, sizeof(*t->headers));
    bool all = t->text != NULL && t->columns != NULL && t->references != NULL && t->spans != NULL &&
               t->schedules != NULL && t->comparisons != NULL && t->rules != NULL &&
               t->allows != NULL && t->traits != NULL && t->headers != NULL;
    return all && t->text_size < UINT32_MAX ? OK : FAIL(E_NO_MEMORY);
}

static MUST_CHECK struct err copy_part(const part_target *part, struct dp_policy_target *t)
{
    TRY(allocate(part, t));
    t->id = keep(t, part->target);
    t->attributes = part->attributes;
    t->node_count = (uint32_t)part->n_nodes;
    for (size_t i = 0; i < part->n_trait_names; i++) {
        t->traits[t->trait_count++] = keep(t, part->trait_names[i]);
    }
    for (size_t i = 0; i < part->n_header_names; i++) {
        t->headers[t->header_count++] = keep(t, part->header_names[i]);
    }
    for (size_t i = 0; i < part->n_verdicts; i++) {
        t->allows[i] = part->verdicts[i]->allow != 0;
        t->rules[i] = (uint32_t)t->text_used;
        (void)keep(t, part->verdicts[i]->rule);
    }
    t->rules[part->n_verdicts] = (uint32_t)t->text_used;
    copy_all_roots(t, part);
    copy_comparisons(t, part);
    copy_schedules(t, part);
    make_columns(t);
    return make_nodes(t, part);
}

struct err dp_policy_build(struct slice part, struct dp_policy_target **out)
{
    ProtobufCMessage *message = NULL;
    const struct proto_rules rules = {.memory_max = part.size * PART_MEMORY_FACTOR,
                                      .malformed = E_PART_MALFORMED,
                                      .unknown = E_CAPABILITY_MISSING};
    TRY(proto_decode(&trilane__parts__v1__policy_target__descriptor, part, &rules, &message));
    struct dp_policy_target *t = calloc(1, sizeof(*t));
    struct err err =
        t == NULL ? FAIL(E_NO_MEMORY) : policy_check_part((const part_target *)message);
    if (err_ok(err)) {
        err = copy_part((const part_target *)message, t);
    }
    proto_free(message);
    if (!err_ok(err)) {
        dp_policy_free(t);
        return err;
    }
    *out = t;
    return OK;
}

void dp_policy_free(struct dp_policy_target *target)
{
    if (target == NULL) {
        return;
    }
    free(target->text);
    free(target->columns);
    free(target->nodes);
    free(target->edges);
    free(target->dense);
    free(target->places);
    free(target->texts);
    free(target->lengths);
    free(target->parents);
    free(target->rules);
    free(target->allows);
    free(target->references);
    free(target->spans);
    free(target->schedules);
    free(target->comparisons);
    free(target->traits);
    free(target->headers);
    free(target);
}
