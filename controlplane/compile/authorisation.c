/*
 * authorisation: all rules about a target, from whichever policy, to one decision graph.
 *
 * Every service, topic and egress has a part, without rules too: then it says that everything is
 * denied. Order of attributes: what splits the rules most evenly comes first (verb, lane, tenant,
 * caller), what has globs late, what only some rules ask (traits, headers) last.
 */
#include <stdlib.h>
#include <string.h>

#include "common/base/array.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/map.h"
#include "controlplane/compile/compiler.h"
#include "controlplane/compile/dag.h"
#include "controlplane/source/leaf.h"

#include "trilane/parts/v1/parts.pb-c.h"

#define ATTRIBUTE(name) TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_##name

/* Slots of a graph: the fixed ones, then traits, then headers, each by name. */
enum {
    SLOT_VERB,
    SLOT_LANE,
    SLOT_TENANT,
    SLOT_CALLER,
    SLOT_DOMAIN,
    SLOT_METHOD,
    SLOT_FIXED,
};

static const char *const verb_names[CP_VERB_COUNT] = {"call", "publish", "subscribe", "fetch"};
static const char *const lane_names[CP_LANE_COUNT] = {"operator", "canonical", "proxy"};

/* One rule of the target, with whose it is. */
struct ruling {
    struct slice id; /* "<tenant>/<policy>/<rule>" */
    const struct cp_policy *policy;
    const struct cp_rule *rule;
    bool own_tenant; /* it speaks of callers of the policy's tenant alone. */
};

struct targeting {
    struct cp_compiler *c;
    struct arena *work; /* given back when the target is done. */
    const struct ruling *rulings;
    size_t count;
    struct dag_values traits; /* names that the rules ask for. */
    struct dag_values headers;
    struct dag_clause *clauses;
    size_t clause_count;
};

/* ---- rules to clauses ---- */

static int slice_order(const void *x, const void *y)
{
    return slice_cmp(*(const struct slice *)x, *(const struct slice *)y);
}

static void sort_names(struct dag_values *names)
{
    if (names->count > 1) {
        qsort(names->items, names->count, sizeof(struct slice), slice_order);
    }
    size_t count = 0;
    for (size_t i = 0; i < names->count; i++) {
        if (count == 0 || !slice_eq(names->items[i], names->items[count - 1])) {
            names->items[count++] = names->items[i];
        }
    }
    names->count = count;
}

static MUST_CHECK struct err collect_names(struct targeting *t)
{
    size_t traits = 0;
    size_t headers = 0;
    for (size_t i = 0; i < t->count; i++) {
        const struct cp_rule *rule = t->rulings[i].rule;
        headers += rule->headers.count;
        for (size_t k = 0; k < rule->callers.count; k++) {
            traits += rule->callers.items[k].traits.count;
        }
    }
    TRY(arena_calloc(t->work, traits + 1, sizeof(struct slice), (void **)&t->traits.items));
    TRY(arena_calloc(t->work, headers + 1, sizeof(struct slice), (void **)&t->headers.items));
    for (size_t i = 0; i < t->count; i++) {
        const struct cp_rule *rule = t->rulings[i].rule;
        for (size_t k = 0; k < rule->headers.count; k++) {
            t->headers.items[t->headers.count++] = rule->headers.items[k].name.text;
        }
        for (size_t k = 0; k < rule->callers.count; k++) {
            const struct cp_pairs *pairs = &rule->callers.items[k].traits;
            for (size_t p = 0; p < pairs->count; p++) {
                t->traits.items[t->traits.count++] = pairs->items[p].name.text;
            }
        }
    }
    sort_names(&t->traits);
    sort_names(&t->headers);
    return OK;
}

static uint32_t name_index(const struct dag_values *names, struct slice name)
{
    const struct slice *at =
        bsearch(&name, names->items, names->count, sizeof(struct slice), slice_order);
    CHECK(at != NULL); /* collect_names() has seen them all */
    return (uint32_t)(at - names->items);
}

static MUST_CHECK struct err add_condition(struct targeting *t, struct dag_clause *clause,
                                           uint32_t slot, size_t value_count,
                                           struct dag_condition **out)
{
    struct dag_condition *condition = &clause->conditions[clause->condition_count++];
    condition->slot = slot;
    *out = condition;
    TRY(arena_calloc(t->work, value_count, sizeof(struct slice), (void **)&condition->exact.items));
    return arena_calloc(t->work, value_count, sizeof(struct slice),
                        (void **)&condition->globs.items);
}

static MUST_CHECK struct err add_exact(struct targeting *t, struct dag_clause *clause,
                                       uint32_t slot, struct slice value)
{
    struct dag_condition *condition = NULL;
    if (value.size == 0) {
        return OK;
    }
    TRY(add_condition(t, clause, slot, 1, &condition));
    condition->exact.items[condition->exact.count++] = value;
    return OK;
}

static MUST_CHECK struct err add_bits(struct targeting *t, struct dag_clause *clause, uint32_t slot,
                                      uint64_t bits, const char *const *names, size_t name_count)
{
    struct dag_condition *condition = NULL;
    if (bits == 0) {
        return OK;
    }
    TRY(add_condition(t, clause, slot, name_count, &condition));
    for (size_t i = 0; i < name_count; i++) {
        if ((bits >> i & 1) != 0) {
            condition->exact.items[condition->exact.count++] = slice_str(names[i]);
        }
    }
    sort_names(&condition->exact);
    return OK;
}

static bool is_glob(struct slice text)
{
    return slice_find(text, '*') < text.size || slice_find(text, '?') < text.size;
}

static MUST_CHECK struct err add_methods(struct targeting *t, struct dag_clause *clause,
                                         const struct cp_texts *methods)
{
    struct dag_condition *condition = NULL;
    if (methods->count == 0) {
        return OK;
    }
    TRY(add_condition(t, clause, SLOT_METHOD, methods->count, &condition));
    for (size_t i = 0; i < methods->count; i++) {
        struct slice text = methods->items[i].text; /* sorted by the loader */
        struct dag_values *to = is_glob(text) ? &condition->globs : &condition->exact;
        to->items[to->count++] = text;
    }
    return OK;
}

static MUST_CHECK struct err add_headers(struct targeting *t, struct dag_clause *clause,
                                         const struct cp_header_matches *headers)
{
    for (size_t n = 0; n < t->headers.count; n++) {
        for (size_t i = 0; i < headers->count; i++) {
            const struct cp_header_match *header = &headers->items[i];
            if (!slice_eq(header->name.text, t->headers.items[n])) {
                continue;
            }
            struct dag_condition *condition = NULL;
            uint32_t slot = (uint32_t)(SLOT_FIXED + t->traits.count + n);
            TRY(add_condition(t, clause, slot, 1, &condition));
            /* "*" fits any value that is there; a glob never fits what is not. */
            if (header->present != 0) {
                condition->globs.items[condition->globs.count++] = SLICE_LIT("*");
            } else {
                condition->exact.items[condition->exact.count++] = header->value.text;
            }
        }
    }
    return OK;
}

/* The clause of one rule for one of its callers (NULL: any). Conditions come in order of slots. */
static MUST_CHECK struct err make_clause(struct targeting *t, uint32_t index,
                                         const struct cp_caller *caller)
{
    const struct ruling *ruling = &t->rulings[index];
    const struct cp_rule *rule = ruling->rule;
    struct dag_clause *clause = &t->clauses[t->clause_count];
    size_t most = SLOT_FIXED + rule->headers.count + (caller == NULL ? 0 : caller->traits.count);
    *clause = (struct dag_clause){.rule = index, .deny = rule->effect == 1};
    TRY(arena_calloc(t->work, most, sizeof(struct dag_condition), (void **)&clause->conditions));
    TRY(add_bits(t, clause, SLOT_VERB, rule->verbs, verb_names, CP_VERB_COUNT));
    TRY(add_bits(t, clause, SLOT_LANE, rule->lanes, lane_names, CP_LANE_COUNT));
    struct slice tenant = caller == NULL ? (struct slice){0} : caller->tenant.text;
    if (ruling->own_tenant && tenant.size > 0 &&
        !slice_eq(tenant, ruling->policy->meta.tenant.text)) {
        return OK; /* it speaks of callers of whom it may not speak: never true */
    }
    TRY(add_exact(t, clause, SLOT_TENANT,
                  ruling->own_tenant ? ruling->policy->meta.tenant.text : tenant));
    if (caller != NULL) {
        TRY(add_exact(t, clause, SLOT_CALLER,
                      caller->service.to == NULL ? (struct slice){0} : caller->service.to->id));
        TRY(add_exact(t, clause, SLOT_DOMAIN, caller->trust_domain.text));
    }
    TRY(add_methods(t, clause, &rule->methods));
    for (size_t i = 0; caller != NULL && i < caller->traits.count; i++) {
        const struct cp_pair *trait = &caller->traits.items[i];
        struct dag_condition *condition = NULL;
        TRY(add_condition(t, clause, SLOT_FIXED + name_index(&t->traits, trait->name.text), 1,
                          &condition));
        condition->exact.items[condition->exact.count++] = trait->value.text;
    }
    TRY(add_headers(t, clause, &rule->headers));
    t->clause_count++;
    return OK;
}

/* The clauses of one rule: one for each of its callers. */
static MUST_CHECK struct err make_rule_clauses(struct targeting *t, uint32_t index)
{
    const struct cp_callers *callers = &t->rulings[index].rule->callers;
    if (callers->count == 0) {
        return make_clause(t, index, /* caller= */ NULL);
    }
    for (size_t i = 0; i < callers->count; i++) {
        const struct cp_ref *service = &callers->items[i].service;
        if (service->text.size == 0 || service->to != NULL) { /* else it was refused */
            TRY(make_clause(t, index, &callers->items[i]));
        }
    }
    return OK;
}

static MUST_CHECK struct err make_clauses(struct targeting *t)
{
    size_t most = 0;
    for (size_t i = 0; i < t->count; i++) {
        most += 1 + t->rulings[i].rule->callers.count;
    }
    TRY(arena_calloc(t->work, most + 1, sizeof(struct dag_clause), (void **)&t->clauses));
    for (size_t i = 0; i < t->count; i++) {
        TRY(make_rule_clauses(t, (uint32_t)i));
    }
    return OK;
}

/* ---- the graph to a part ---- */

struct packing {
    const struct targeting *t;
    const struct dag *dag;
    uint32_t *verdicts; /* of rule + 1 (0: default deny): its place among the verdicts. */
    Trilane__Parts__V1__PolicyTarget *part;
};

/* Edges lead to lower indexes in a dag, to higher ones in a part. */
static uint32_t pack_ref(const struct packing *p, uint32_t ref)
{
    uint32_t count = (uint32_t)p->dag->count;
    return ref >= DAG_VERDICT ? count + p->verdicts[ref - DAG_VERDICT] : count - 1 - ref;
}

static Trilane__Parts__V1__Attribute slot_attribute(const struct targeting *t, uint32_t slot,
                                                    struct slice *out_name)
{
    static const Trilane__Parts__V1__Attribute fixed[SLOT_FIXED] = {
        [SLOT_VERB] = ATTRIBUTE(VERB),
        [SLOT_LANE] = ATTRIBUTE(LANE),
        [SLOT_TENANT] = ATTRIBUTE(CALLER_TENANT),
        [SLOT_CALLER] = ATTRIBUTE(CALLER),
        [SLOT_DOMAIN] = ATTRIBUTE(CALLER_TRUST_DOMAIN),
        [SLOT_METHOD] = ATTRIBUTE(METHOD),
    };
    *out_name = (struct slice){0};
    if (slot < SLOT_FIXED) {
        return fixed[slot];
    }
    slot -= SLOT_FIXED;
    bool trait = slot < t->traits.count;
    *out_name = trait ? t->traits.items[slot] : t->headers.items[slot - t->traits.count];
    return trait ? ATTRIBUTE(TRAIT) : ATTRIBUTE(HEADER);
}

static MUST_CHECK struct err pack_node(struct packing *p, const struct dag_node *node,
                                       Trilane__Parts__V1__PolicyNode **out)
{
    Trilane__Parts__V1__PolicyNode *packed = NULL;
    struct slice name = {0};
    TRY(arena_calloc(p->t->work, 1, sizeof(*packed), (void **)&packed));
    trilane__parts__v1__policy_node__init(packed);
    packed->attribute = slot_attribute(p->t, node->slot, &name);
    packed->name = cp_str(name);
    packed->glob = cp_str(node->glob);
    packed->matched = node->glob.size > 0 ? pack_ref(p, node->matched) : 0;
    packed->otherwise = pack_ref(p, node->otherwise);
    TRY(arena_calloc(p->t->work, node->edge_count + 1, sizeof(*packed->edges),
                     (void **)&packed->edges));
    for (size_t i = 0; i < node->edge_count; i++) {
        Trilane__Parts__V1__PolicyEdge *edge = NULL;
        TRY(arena_calloc(p->t->work, 1, sizeof(*edge), (void **)&edge));
        trilane__parts__v1__policy_edge__init(edge);
        edge->value = cp_str(node->edges[i].value);
        edge->to = pack_ref(p, node->edges[i].to);
        packed->edges[i] = edge;
    }
    packed->n_edges = node->edge_count;
    *out = packed;
    return OK;
}

static void mark_used(struct packing *p, uint32_t ref)
{
    if (ref >= DAG_VERDICT) {
        p->verdicts[ref - DAG_VERDICT] = 1;
    }
}

/* The default deny, and each rule that decides somewhere, in order of their ids. */
static MUST_CHECK struct err pack_verdicts(struct packing *p)
{
    const struct targeting *t = p->t;
    TRY(arena_calloc(t->work, t->count + 1, sizeof(uint32_t), (void **)&p->verdicts));
    TRY(arena_calloc(t->work, t->count + 1, sizeof(*p->part->verdicts),
                     (void **)&p->part->verdicts));
    mark_used(p, p->dag->root);
    for (size_t i = 0; i < p->dag->count; i++) {
        const struct dag_node *node = &p->dag->nodes[i];
        mark_used(p, node->otherwise);
        if (node->glob.size > 0) {
            mark_used(p, node->matched);
        }
        for (size_t k = 0; k < node->edge_count; k++) {
            mark_used(p, node->edges[k].to);
        }
    }
    p->verdicts[0] = 1;
    for (size_t i = 0; i <= t->count; i++) {
        if (p->verdicts[i] == 0) {
            continue;
        }
        Trilane__Parts__V1__Verdict *verdict = NULL;
        TRY(arena_calloc(t->work, 1, sizeof(*verdict), (void **)&verdict));
        trilane__parts__v1__verdict__init(verdict);
        verdict->allow = i > 0 && t->rulings[i - 1].rule->effect == 0;
        verdict->rule = cp_str(i > 0 ? t->rulings[i - 1].id : (struct slice){0});
        p->verdicts[i] = (uint32_t)p->part->n_verdicts;
        p->part->verdicts[p->part->n_verdicts++] = verdict;
    }
    return OK;
}

/* Which attributes, traits and headers the graph reads. */
static MUST_CHECK struct err pack_reads(struct packing *p)
{
    const struct targeting *t = p->t;
    Trilane__Parts__V1__PolicyTarget *part = p->part;
    size_t names = t->traits.count + t->headers.count;
    uint8_t *read = NULL;
    TRY(arena_calloc(t->work, names + 1, 1, (void **)&read));
    TRY(arena_calloc(t->work, names + 1, sizeof(char *), (void **)&part->trait_names));
    TRY(arena_calloc(t->work, names + 1, sizeof(char *), (void **)&part->header_names));
    for (size_t i = 0; i < p->dag->count; i++) {
        struct slice name = {0};
        uint32_t slot = p->dag->nodes[i].slot;
        part->attributes |= 1U << slot_attribute(t, slot, &name);
        if (slot >= SLOT_FIXED) {
            read[slot - SLOT_FIXED] = 1;
        }
    }
    for (size_t i = 0; i < names; i++) {
        if (read[i] != 0 && i < t->traits.count) {
            part->trait_names[part->n_trait_names++] = cp_str(t->traits.items[i]);
        } else if (read[i] != 0) {
            part->header_names[part->n_header_names++] =
                cp_str(t->headers.items[i - t->traits.count]);
        }
    }
    return OK;
}

static MUST_CHECK struct err pack_dag(struct targeting *t, const struct dag *dag,
                                      Trilane__Parts__V1__PolicyTarget *part)
{
    struct packing p = {.t = t, .dag = dag, .part = part};
    TRY(pack_verdicts(&p));
    TRY(pack_reads(&p));
    cp_needs(t->c, CAPABILITY_TRAIT_CONDITIONS, part->n_trait_names > 0);
    cp_needs(t->c, CAPABILITY_HEADER_CONDITIONS, part->n_header_names > 0);
    TRY(arena_calloc(t->work, dag->count + 1, sizeof(*part->nodes), (void **)&part->nodes));
    for (size_t i = 0; i < dag->count; i++) {
        TRY(pack_node(&p, &dag->nodes[dag->count - 1 - i], &part->nodes[i]));
    }
    part->n_nodes = dag->count;
    part->root = pack_ref(&p, dag->root);
    return OK;
}

/* ---- one target ---- */

static void refuse_size(struct targeting *t, struct slice target, struct cp_pos at)
{
    struct cp_diag *diag = cp_diags_add(t->c->diags, CP_DIAG_POLICY_TOO_LARGE, at,
                                        "the %zu rules about %.*s make a too large graph", t->count,
                                        SLICE_ARG(target));
    cp_diag_expect(t->c->diags, diag,
                   "at most %llu nodes, %d globs and %d traits and headers; fewer globs help most",
                   (unsigned long long)limits.policy_nodes, DAG_GLOBS_MAX,
                   DAG_SLOTS_MAX - SLOT_FIXED);
}

static MUST_CHECK struct err make_target(struct targeting *t, const struct cp_meta *target)
{
    struct slice id = {0};
    struct dag dag = {0};
    TRY(cp_target_id(t->c->arena, target, &id));
    TRY(collect_names(t));
    TRY(make_clauses(t));
    uint32_t slots = (uint32_t)(SLOT_FIXED + t->traits.count + t->headers.count);
    struct err e = dag_make(t->work, t->clauses, t->clause_count, slots, &dag);
    if (e.code == E_TOO_LARGE || e.code == E_NO_MEMORY) {
        refuse_size(t, id, t->count > 0 ? t->rulings[0].policy->meta.at : target->at);
        return OK;
    }
    TRY(e);
    Trilane__Parts__V1__PolicyTarget part;
    trilane__parts__v1__policy_target__init(&part);
    part.target = cp_str(id);
    TRY(pack_dag(t, &dag, &part));
    return cp_emit(t->c, CP_PART_AUTHORISATION, id, &part.base, target->at);
}

/* ---- all targets ---- */

/* The policies about one target, in order of their ids. */
struct group {
    const struct cp_meta *target;
    const struct cp_policy **policies; /* owned. */
    size_t count;
    size_t capacity;
};

static int ruling_cmp(const void *x, const void *y)
{
    return slice_cmp(((const struct ruling *)x)->id, ((const struct ruling *)y)->id);
}

static MUST_CHECK struct err add_rulings(struct targeting *t, const struct cp_meta *target,
                                         const struct cp_policy *policy, struct ruling *rulings)
{
    bool shared = slice_eq(target->tenant.text, SLICE_LIT("-"));
    bool own_tenant = shared && !slice_eq(policy->meta.tenant.text, SLICE_LIT("-"));
    for (size_t i = 0; i < policy->rules.count; i++) {
        const struct cp_rule *rule = &policy->rules.items[i];
        const struct slice pieces[] = {policy->meta.id, SLICE_LIT("/"), rule->name.text};
        if (rule->faulty) {
            continue;
        }
        struct ruling *ruling = &rulings[t->count++];
        *ruling = (struct ruling){.policy = policy, .rule = rule, .own_tenant = own_tenant};
        TRY(arena_join(t->work, pieces, 3, &ruling->id));
    }
    return OK;
}

/* All rules of a group, in order of their ids. */
static MUST_CHECK struct err make_rulings(struct targeting *t, const struct group *group)
{
    struct ruling *rulings = NULL;
    size_t most = 0;
    for (size_t i = 0; i < group->count; i++) {
        most += group->policies[i]->rules.count;
    }
    TRY(arena_calloc(t->work, most + 1, sizeof(struct ruling), (void **)&rulings));
    t->rulings = rulings;
    for (size_t i = 0; i < group->count; i++) {
        TRY(add_rulings(t, group->target, group->policies[i], rulings));
    }
    qsort(rulings, t->count, sizeof(struct ruling), ruling_cmp);
    return OK;
}

static MUST_CHECK struct err make_group(struct cp_compiler *c, const struct group *group)
{
    /* What a target of policy_nodes takes at most, with room for states. */
    enum { WORK_BYTES_A_NODE = 4096, WORK_BYTES_LEAST = 64 << 20 };
    struct arena work = {0};
    arena_init(&work, 64 << 10,
               (size_t)(WORK_BYTES_LEAST + WORK_BYTES_A_NODE * limits.policy_nodes));
    struct targeting t = {.c = c, .work = &work};
    struct err e = make_rulings(&t, group);
    if (err_ok(e)) {
        e = make_target(&t, group->target);
    }
    arena_free(&work);
    return e;
}

/*
 * The key of a target's part: its id, and which policies speak of it. A policy is named by its
 * leaf, its place in it, and the state of the leaf's references; so equal keys have the same rules
 * about the same callers. False: something in it is faulty, or is not kept.
 */
static MUST_CHECK struct err group_key(const struct group *group, struct slice id, struct buf *out,
                                       bool *out_known)
{
    TRY(buf_add(out, id));
    TRY(buf_add_byte(out, '\0'));
    *out_known = true;
    for (size_t i = 0; i < group->count; i++) {
        const struct cp_meta *policy = &group->policies[i]->meta;
        uint64_t names[] = {policy->leaf->serial, policy->leaf->links, policy->index};
        TRY(buf_add(out, slice_of(names, sizeof(names))));
        *out_known = *out_known && policy->leaf->serial > 0 && !policy->faulty;
    }
    return OK;
}

/* Leaves the part that was emitted last for the next compile; not being able to is no failure. */
static void keep_part(struct cp_compiler *c, struct slice key, uint64_t capabilities)
{
    struct slice bytes = c->out->parts[c->out->part_count - 1].bytes;
    struct cp_kept_part *kept = malloc(sizeof(*kept) + bytes.size);
    if (kept == NULL) {
        return;
    }
    *kept = (struct cp_kept_part){.capabilities = capabilities, .size = bytes.size};
    (void)memcpy(kept->bytes, bytes.ptr, bytes.size);
    if (!err_ok(cp_memo_put(&c->reuse->parts, key, kept, sizeof(*kept) + bytes.size))) {
        free(kept);
    }
}

/* The part as it was made before for the same key, or made now, and kept. */
static MUST_CHECK struct err reuse_group(struct cp_compiler *c, const struct group *group)
{
    auto_buf struct buf key = BUF_MAX(SIZE_MAX / 2);
    struct slice id = {0};
    bool known = false;
    TRY(cp_target_id(c->arena, group->target, &id));
    TRY(group_key(group, id, &key, &known));
    const struct cp_kept_part *kept = known ? cp_memo_get(&c->reuse->parts, buf_slice(&key)) : NULL;
    if (kept != NULL) {
        c->out->capabilities |= kept->capabilities;
        return cp_emit_bytes(c, CP_PART_AUTHORISATION, id, slice_of(kept->bytes, kept->size));
    }
    uint64_t before = c->out->capabilities;
    size_t parts = c->out->part_count;
    c->out->capabilities = 0;
    TRY(make_group(c, group));
    if (known && c->out->part_count == parts + 1) { /* else it was refused. */
        keep_part(c, buf_slice(&key), c->out->capabilities);
    }
    c->out->capabilities |= before;
    return OK;
}

/* A group for each service, topic and egress; 'by_target' finds it by its resource. */
static MUST_CHECK struct err make_groups(struct cp_compiler *c, struct map *by_target,
                                         struct group **out, size_t *out_count)
{
    static const enum cp_kind kinds[] = {CP_KIND_SERVICE, CP_KIND_TOPIC, CP_KIND_EGRESS};
    size_t total = 0;
    for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
        total += c->model->of[kinds[k]].count;
    }
    TRY(arena_calloc(c->arena, total + 1, sizeof(struct group), (void **)out));
    for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
        for (size_t i = 0; i < c->model->of[kinds[k]].count; i++) {
            const struct cp_meta *target = c->model->of[kinds[k]].items[i];
            if (target->apart) {
                continue;
            }
            struct group *group = &(*out)[(*out_count)++];
            group->target = target;
            struct slice id = {0};
            TRY(cp_target_id(c->arena, group->target, &id));
            TRY(map_put(by_target, id, group, /* out_old= */ NULL));
        }
    }
    return OK;
}

static MUST_CHECK struct err add_policies(struct cp_compiler *c, const struct map *by_target)
{
    const struct cp_resources *policies = &c->model->of[CP_KIND_POLICY];
    for (size_t i = 0; i < policies->count; i++) {
        const struct cp_policy *policy = (const struct cp_policy *)policies->items[i];
        const struct cp_meta *target = cp_target_of(&policy->target);
        struct slice id = {0};
        if (policy->meta.apart || target == NULL) {
            continue;
        }
        TRY(cp_target_id(c->arena, target, &id));
        struct group *group = map_get(by_target, id);
        CHECK(group != NULL);
        TRY(array_room(&group->policies, group->count, &group->capacity, sizeof(*group->policies)));
        group->policies[group->count++] = policy;
    }
    return OK;
}

static MUST_CHECK struct err compile_groups(struct cp_compiler *c, const struct group *groups,
                                            size_t count)
{
    for (size_t i = 0; i < count; i++) {
        TRY(c->reuse == NULL ? make_group(c, &groups[i]) : reuse_group(c, &groups[i]));
    }
    return OK;
}

struct err cp_compile_authorisation(struct cp_compiler *c)
{
    struct map by_target = {0};
    struct group *groups = NULL;
    size_t count = 0;
    struct err e = make_groups(c, &by_target, &groups, &count);
    if (err_ok(e)) {
        e = add_policies(c, &by_target);
    }
    if (err_ok(e)) {
        e = compile_groups(c, groups, count);
    }
    for (size_t i = 0; i < count; i++) {
        free(groups[i].policies);
    }
    map_free(&by_target);
    return e;
}
