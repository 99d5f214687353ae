/*
 * policy_build: a PolicyTarget part, checked and laid out for walking.
 *
 * What is checked here the walk need not ask: references lead to higher indexes, edges are in
 * order, what a node reads is declared. Values of a node with many edges are found by hash.
 */
#include <stdlib.h>
#include <string.h>

#include "common/base/check.h"
#include "common/base/map.h"
#include "common/proto/strict.h"
#include "common/snapshot/format.h"
#include "dataplane/request/policy_impl.h"

#include "trilane/parts/v1/parts.pb-c.h"

typedef Trilane__Parts__V1__PolicyTarget part_target;
typedef Trilane__Parts__V1__PolicyNode part_node;

enum { WEEK_MINUTES = 7 * 24 * 60 };

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
    for (size_t i = 0; i < part->n_nodes; i++) {
        size += strlen(part->nodes[i]->name) + strlen(part->nodes[i]->glob);
        for (size_t k = 0; k < part->nodes[i]->n_edges; k++) {
            size += strlen(part->nodes[i]->edges[k]->value);
        }
    }
    for (size_t i = 0; i < part->n_verdicts; i++) {
        size += strlen(part->verdicts[i]->rule);
    }
    return size;
}

/* ---- checks ---- */

static bool attribute_is_known(int attribute)
{
    return attribute > TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_NONE &&
           attribute <= TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_SCHEDULE;
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

/* An attribute that a graph reads but does not declare would be missing from the cache's key. */
static bool is_declared(const part_target *part, const part_node *node)
{
    uint64_t schedule = 0;
    if ((part->attributes & (1U << (unsigned)node->attribute)) == 0) {
        return false;
    }
    if (node->attribute == TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_TRAIT) {
        return is_listed(part->trait_names, part->n_trait_names, node->name);
    }
    if (node->attribute == TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_HEADER) {
        return is_listed(part->header_names, part->n_header_names, node->name);
    }
    if (node->attribute == TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_SCHEDULE) {
        return slice_to_u64(slice_str(node->name), &schedule) && schedule < part->n_schedules;
    }
    return true;
}

static MUST_CHECK struct err check_edges(const part_node *node, size_t index, size_t references)
{
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
    return check_edges(node, index, references);
}

static MUST_CHECK struct err check_roots(const part_target *part, const uint32_t *roots,
                                         size_t count)
{
    if (count > DP_POLICY_ROOTS_MAX) {
        return FAIL(E_PART_MALFORMED);
    }
    for (size_t i = 0; i < count; i++) {
        if (roots[i] >= part->n_nodes + part->n_verdicts) {
            return FAIL(E_PART_MALFORMED);
        }
    }
    /* Where verdicts are judged together the first one says that no rule held. */
    return count > 0 && part->verdicts[0]->allow != 0 ? FAIL(E_PART_MALFORMED) : OK;
}

static MUST_CHECK struct err check_schedule(const Trilane__Parts__V1__Schedule *schedule)
{
    if (schedule->n_from != schedule->n_to || schedule->n_from > SCHEDULE_SPANS_MAX) {
        return FAIL(E_PART_MALFORMED);
    }
    for (size_t i = 0; i < schedule->n_from; i++) {
        if (schedule->from[i] >= schedule->to[i] || schedule->to[i] > WEEK_MINUTES ||
            (i > 0 && schedule->from[i] <= schedule->to[i - 1])) {
            return FAIL(E_PART_MALFORMED);
        }
    }
    return OK;
}

static MUST_CHECK struct err check_part(const part_target *part)
{
    if (part->n_verdicts == 0 || part->target[0] == '\0' ||
        part->root >= part->n_nodes + part->n_verdicts || part->n_nodes > UINT32_MAX / 2 ||
        part->n_trait_names > DP_POLICY_NAMES_MAX || part->n_header_names > DP_POLICY_NAMES_MAX ||
        part->n_schedules > DP_POLICY_NAMES_MAX) {
        return FAIL(E_PART_MALFORMED);
    }
    TRY(check_roots(part, part->more_roots, part->n_more_roots));
    TRY(check_roots(part, part->shadow_roots, part->n_shadow_roots));
    TRY(check_roots(part, part->fast_roots, part->n_fast_roots));
    for (size_t i = 0; i < part->n_schedules; i++) {
        TRY(check_schedule(part->schedules[i]));
    }
    for (size_t i = 0; i < part->n_nodes; i++) {
        TRY(check_node(part, i));
    }
    return OK;
}

/* ---- nodes ---- */

/* What an edge's prefix begins with: the nearest one before it, or what that begins with. */
static void find_parents(struct policy_edge *edges, size_t count)
{
    for (uint32_t i = 1; i < count; i++) {
        uint32_t parent = i; /* 1 + the edge before. */
        while (parent != 0 && !slice_starts(edges[i].value, edges[parent - 1].value)) {
            parent = edges[parent - 1].parent;
        }
        edges[i].parent = parent;
    }
}

/* Places of a table of that many edges: at most half of them are taken. */
static size_t place_count(const part_node *node)
{
    size_t count = 2;
    if (node->prefixes != 0 || node->n_edges < DP_POLICY_PLACES_LEAST) {
        return 0;
    }
    while (count < 2 * node->n_edges) {
        count *= 2;
    }
    return count;
}

static void fill_places(struct dp_policy_target *t, const struct policy_node *node)
{
    for (uint32_t i = 0; i < node->edge_count; i++) {
        uint64_t hash = map_hash(t->edges[node->first_edge + i].value);
        uint64_t at = hash;
        while (t->places[node->first_place + (at & node->place_mask)] != 0) {
            at++;
        }
        t->places[node->first_place + (at & node->place_mask)] = hash >> 32 << 32 | (i + 1);
    }
}

static void copy_nodes(struct dp_policy_target *t, const part_target *part)
{
    size_t edge = 0;
    size_t place = 0;
    for (size_t i = 0; i < part->n_nodes; i++) {
        const part_node *from = part->nodes[i];
        size_t places = place_count(from);
        uint64_t schedule = 0;
        struct policy_node *node = &t->nodes[i];
        *node = (struct policy_node){.attribute = (uint8_t)from->attribute,
                                     .name = keep(t, from->name),
                                     .glob = keep(t, from->glob),
                                     .matched = from->matched,
                                     .otherwise = from->otherwise,
                                     .first_edge = (uint32_t)edge,
                                     .edge_count = (uint32_t)from->n_edges,
                                     .first_place = (uint32_t)place,
                                     .place_mask = places == 0 ? 0 : (uint32_t)places - 1,
                                     .prefixes = from->prefixes != 0};
        if (slice_to_u64(node->name, &schedule)) {
            node->schedule = (uint32_t)schedule; /* of another attribute nobody looks at it. */
        }
        for (size_t k = 0; k < from->n_edges; k++) {
            t->edges[edge++] = (struct policy_edge){.value = keep(t, from->edges[k]->value),
                                                    .to = from->edges[k]->to};
        }
        if (node->prefixes) {
            find_parents(&t->edges[node->first_edge], node->edge_count);
        } else if (places > 0) {
            fill_places(t, node);
        }
        place += places;
    }
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

static MUST_CHECK struct err allocate(const part_target *part, struct dp_policy_target *t)
{
    size_t edges = 0;
    size_t places = 0;
    size_t spans = 0;
    for (size_t i = 0; i < part->n_nodes; i++) {
        edges += part->nodes[i]->n_edges;
        places += place_count(part->nodes[i]);
    }
    for (size_t i = 0; i < part->n_schedules; i++) {
        spans += part->schedules[i]->n_from;
    }
    size_t roots = 1 + part->n_more_roots + part->n_shadow_roots + part->n_fast_roots;
    t->text_size = text_size(part);
    t->text = malloc(t->text_size + 1);
    t->nodes = calloc(part->n_nodes + 1, sizeof(*t->nodes));
    t->edges = calloc(edges + 1, sizeof(*t->edges));
    t->places = calloc(places + 1, sizeof(*t->places));
    t->references = calloc(roots, sizeof(*t->references));
    t->spans = calloc(spans + 1, sizeof(*t->spans));
    t->schedules = calloc(part->n_schedules + 1, sizeof(*t->schedules));
    t->verdicts = calloc(part->n_verdicts, sizeof(*t->verdicts));
    t->traits = calloc(part->n_trait_names + 1, sizeof(*t->traits));
    t->headers = calloc(part->n_header_names + 1, sizeof(*t->headers));
    bool all = t->text != NULL && t->nodes != NULL && t->edges != NULL && t->places != NULL &&
               t->references != NULL && t->spans != NULL && t->schedules != NULL &&
               t->verdicts != NULL && t->traits != NULL && t->headers != NULL;
    return all && edges < UINT32_MAX / 4 ? OK : FAIL(E_NO_MEMORY);
}

static MUST_CHECK struct err copy_part(const part_target *part, struct dp_policy_target *t)
{
    TRY(allocate(part, t));
    t->id = keep(t, part->target);
    t->attributes = part->attributes;
    t->node_count = (uint32_t)part->n_nodes;
    copy_nodes(t, part);
    copy_all_roots(t, part);
    copy_schedules(t, part);
    for (size_t i = 0; i < part->n_verdicts; i++) {
        t->verdicts[i] = (struct dp_verdict){.allow = part->verdicts[i]->allow != 0,
                                             .rule = keep(t, part->verdicts[i]->rule)};
    }
    for (size_t i = 0; i < part->n_trait_names; i++) {
        t->traits[t->trait_count++] = keep(t, part->trait_names[i]);
    }
    for (size_t i = 0; i < part->n_header_names; i++) {
        t->headers[t->header_count++] = keep(t, part->header_names[i]);
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
    free(target->places);
    free(target->references);
    free(target->spans);
    free(target->schedules);
    free(target->verdicts);
    free(target->traits);
    free(target->headers);
    free(target);
}
