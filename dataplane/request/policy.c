/*
 * policy: the walk of a decision DAG.
 *
 * The compiler (controlplane/compile/authorisation.c) did the work: rules that can no longer
 * apply are gone, tests are shared, every path ends in a verdict. What is left is to follow
 * references. They lead to higher indexes only, which dp_policy_build() checks, so a walk ends
 * after at most node_count steps.
 */
#include "dataplane/request/policy.h"

#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/scope.h"
#include "common/base/text.h"
#include "common/proto/strict.h"
#include "common/snapshot/format.h"
#include "dataplane/apply/model.h"
#include "dataplane/request/policy_impl.h"

#include "trilane/parts/v1/parts.pb-c.h"

typedef Trilane__Parts__V1__PolicyTarget part_target;
typedef Trilane__Parts__V1__PolicyNode part_node;

static const char *const verb_names[] = {[DP_VERB_CALL] = "call",
                                         [DP_VERB_PUBLISH] = "publish",
                                         [DP_VERB_SUBSCRIBE] = "subscribe",
                                         [DP_VERB_FETCH] = "fetch"};
_Static_assert(sizeof(verb_names) / sizeof(verb_names[0]) == DP_VERB_COUNT, "one a verb");

struct slice dp_verb_name(enum dp_verb verb)
{
    CHECK(verb < DP_VERB_COUNT);
    return slice_str(verb_names[verb]);
}

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

static size_t text_size(const part_target *part)
{
    size_t size = strlen(part->target);
    for (size_t i = 0; i < part->n_nodes; i++) {
        size += strlen(part->nodes[i]->name) + strlen(part->nodes[i]->glob);
        for (size_t k = 0; k < part->nodes[i]->n_edges; k++) {
            size += strlen(part->nodes[i]->edges[k]->value);
        }
    }
    for (size_t i = 0; i < part->n_verdicts; i++) {
        size += strlen(part->verdicts[i]->rule);
    }
    for (size_t i = 0; i < part->n_trait_names; i++) {
        size += strlen(part->trait_names[i]);
    }
    return size;
}

static bool attribute_is_known(int attribute)
{
    return attribute > TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_NONE &&
           attribute <= TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_LANE;
}

static bool is_listed(char *const *names, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0) {
            return true;
        }
    }
    return false;
}

/* An attribute that the DAG reads but does not declare would be missing from the cache's key. */
static bool is_declared(const part_target *part, const part_node *node)
{
    if ((part->attributes & (1U << (unsigned)node->attribute)) == 0) {
        return false;
    }
    if (node->attribute == TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_TRAIT) {
        return is_listed(part->trait_names, part->n_trait_names, node->name);
    }
    if (node->attribute == TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_HEADER) {
        return is_listed(part->header_names, part->n_header_names, node->name);
    }
    return true;
}

static MUST_CHECK struct err check_node(const part_target *part, size_t index)
{
    const part_node *node = part->nodes[index];
    size_t references = part->n_nodes + part->n_verdicts;
    if (!attribute_is_known((int)node->attribute) || !is_declared(part, node)) {
        return FAIL(E_PART_MALFORMED);
    }
    bool is_glob = node->glob[0] != '\0';
    if (is_glob != (node->n_edges == 0)) {
        return FAIL(E_PART_MALFORMED);
    }
    if (node->otherwise <= index || node->otherwise >= references) {
        return FAIL(E_PART_MALFORMED);
    }
    if (is_glob && (node->matched <= index || node->matched >= references)) {
        return FAIL(E_PART_MALFORMED);
    }
    for (size_t i = 0; i < node->n_edges; i++) {
        if (node->edges[i]->to <= index || node->edges[i]->to >= references) {
            return FAIL(E_PART_MALFORMED);
        }
        if (i > 0 && slice_cmp(slice_str(node->edges[i - 1]->value),
                               slice_str(node->edges[i]->value)) >= 0) {
            return FAIL(E_PART_MALFORMED);
        }
    }
    return OK;
}

static MUST_CHECK struct err check_part(const part_target *part)
{
    if (part->n_verdicts == 0 || part->target[0] == '\0' ||
        part->root >= part->n_nodes + part->n_verdicts || part->n_nodes > UINT32_MAX / 2 ||
        part->n_trait_names > DP_POLICY_TRAITS_MAX) {
        return FAIL(E_PART_MALFORMED);
    }
    for (size_t i = 0; i < part->n_nodes; i++) {
        TRY(check_node(part, i));
    }
    return OK;
}

static void copy_nodes(struct dp_policy_target *t, const part_target *part)
{
    size_t edge = 0;
    for (size_t i = 0; i < part->n_nodes; i++) {
        const part_node *from = part->nodes[i];
        t->nodes[i] = (struct policy_node){.attribute = (uint8_t)from->attribute,
                                           .name = keep(t, from->name),
                                           .glob = keep(t, from->glob),
                                           .matched = from->matched,
                                           .otherwise = from->otherwise,
                                           .first_edge = (uint32_t)edge,
                                           .edge_count = (uint32_t)from->n_edges};
        for (size_t k = 0; k < from->n_edges; k++) {
            t->edges[edge++] = (struct policy_edge){.value = keep(t, from->edges[k]->value),
                                                    .to = from->edges[k]->to};
        }
    }
}

static MUST_CHECK struct err copy_part(const part_target *part, struct dp_policy_target *t)
{
    size_t edges = 0;
    for (size_t i = 0; i < part->n_nodes; i++) {
        edges += part->nodes[i]->n_edges;
    }
    t->text_size = text_size(part);
    t->text = malloc(t->text_size + 1);
    t->nodes = calloc(part->n_nodes + 1, sizeof(*t->nodes));
    t->edges = calloc(edges + 1, sizeof(*t->edges));
    t->verdicts = calloc(part->n_verdicts, sizeof(*t->verdicts));
    t->traits = calloc(part->n_trait_names + 1, sizeof(*t->traits));
    if (t->text == NULL || t->nodes == NULL || t->edges == NULL || t->verdicts == NULL ||
        t->traits == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    t->id = keep(t, part->target);
    t->attributes = part->attributes;
    t->root = part->root;
    t->node_count = (uint32_t)part->n_nodes;
    copy_nodes(t, part);
    for (size_t i = 0; i < part->n_verdicts; i++) {
        t->verdicts[i] = (struct dp_verdict){.allow = part->verdicts[i]->allow != 0,
                                             .rule = keep(t, part->verdicts[i]->rule)};
    }
    for (size_t i = 0; i < part->n_trait_names; i++) {
        t->traits[t->trait_count++] = keep(t, part->trait_names[i]);
    }
    return OK;
}

struct err dp_policy_build(struct slice part, struct dp_policy_target **out)
{
    ProtobufCMessage *message = NULL;
    const struct proto_rules rules = {.memory_max = part.size * PART_MEMORY_FACTOR,
                                      .malformed = E_PART_MALFORMED,
                                      .unknown = E_CAPABILITY_MISSING};
    TRY(proto_decode(&trilane__parts__v1__policy_target__descriptor, part, &rules, &message));
    struct dp_policy_target *t = calloc(1, sizeof(*t));
    struct err err = t == NULL ? FAIL(E_NO_MEMORY) : check_part((const part_target *)message);
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
    free(target->nodes);
    free(target->edges);
    free(target->verdicts);
    free(target->traits);
    free(target);
}

struct slice dp_policy_target_id(const struct dp_policy_target *target)
{
    return target->id;
}

bool dp_caller_trait(const struct dp_caller *caller, struct slice name, struct slice *out)
{
    for (size_t i = 0; i < caller->trait_count; i++) {
        if (slice_eq(caller->traits[i].name, name)) {
            *out = caller->traits[i].value;
            return true;
        }
    }
    return false;
}

/* The value of an attribute; false when there is none, which matches no edge and no glob. */
static bool attribute_value(const struct policy_node *node, const struct dp_policy_query *query,
                            struct slice *out)
{
    const struct dp_caller *caller = query->caller;
    switch (node->attribute) {
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_VERB:
        *out = dp_verb_name(query->verb);
        return true;
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_METHOD:
        *out = query->method;
        return true;
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_CALLER:
        *out = caller->id;
        return true;
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_CALLER_TENANT:
        *out = caller->tenant;
        return true;
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_CALLER_TRUST_DOMAIN:
        *out = caller->domain;
        return true;
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_TRAIT:
        return dp_caller_trait(caller, node->name, out);
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_HEADER:
        return query->header != NULL && query->header(query->ctx, node->name, out);
    case TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_LANE:
        *out = query->lane;
        return true;
    default:
        CHECK(!attribute_is_known(node->attribute)); /* dp_policy_build() let no other in. */
        return false;
    }
}

static uint32_t follow_edge(const struct dp_policy_target *t, const struct policy_node *node,
                            struct slice value)
{
    const struct policy_edge *edges = &t->edges[node->first_edge];
    uint32_t low = 0;
    uint32_t high = node->edge_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        int order = slice_cmp(edges[middle].value, value);
        if (order == 0) {
            return edges[middle].to;
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return node->otherwise;
}

struct dp_verdict dp_policy_decide(const struct dp_policy_target *target,
                                   const struct dp_policy_query *query)
{
    CHECK(query->caller != NULL);
    if (target == NULL) {
        return (struct dp_verdict){.allow = false};
    }
    uint32_t at = target->root;
    while (at < target->node_count) {
        const struct policy_node *node = &target->nodes[at];
        struct slice value = {0};
        uint32_t next = node->otherwise;
        if (attribute_value(node, query, &value)) {
            next = node->edge_count > 0           ? follow_edge(target, node, value)
                   : text_glob(node->glob, value) ? node->matched
                                                  : node->otherwise;
        }
        CHECK(next > at);
        at = next;
    }
    return target->verdicts[at - target->node_count];
}
