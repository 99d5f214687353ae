/* policy_part: the graphs of a target as its part. */
#include <stdio.h>

#include "common/base/check.h"
#include "controlplane/compile/authorisation_impl.h"

#define ATTRIBUTE(name) TRILANE__PARTS__V1__ATTRIBUTE__ATTRIBUTE_##name

struct packing {
    const struct targeting *t;
    const struct dag *dag;
    uint32_t *verdicts;    /* of rule + 1 (0: default deny): its place among the verdicts. */
    uint32_t *comparisons; /* of each that is read: its place among those of the part. */
    uint32_t *schedules;   /* likewise. */
    Trilane__Parts__V1__PolicyTarget *part;
};

/* Edges lead to lower indexes in a dag, to higher ones in a part. */
static uint32_t pack_ref(const struct packing *p, uint32_t ref)
{
    uint32_t count = (uint32_t)p->dag->count;
    return ref >= DAG_VERDICT ? count + p->verdicts[ref - DAG_VERDICT] : count - 1 - ref;
}

static MUST_CHECK struct err index_name(const struct targeting *t, size_t index, struct slice *out)
{
    return arena_printf(t->work, out, "%zu", index);
}

/* The attribute of a slot; of a trait or header also its name. */
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
    for (enum slot at = 0; at < SLOT_FIXED; at++) {
        if (targeting_slot(t, at) == slot) {
            return fixed[at];
        }
    }
    slot -= SLOT_FIXED;
    bool trait = slot < t->traits.count;
    size_t names = t->traits.count + t->headers.count;
    if (slot >= names) {
        return slot >= names + t->comparison_count ? ATTRIBUTE(SCHEDULE) : ATTRIBUTE(COMPARISON);
    }
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
    size_t first = SLOT_FIXED + p->t->traits.count + p->t->headers.count;
    if (packed->attribute == ATTRIBUTE(COMPARISON)) {
        TRY(index_name(p->t, p->comparisons[node->slot - first], &name));
    } else if (packed->attribute == ATTRIBUTE(SCHEDULE)) {
        first += p->t->comparison_count;
        TRY(index_name(p->t, p->schedules[node->slot - first], &name));
    }
    packed->name = cp_str(name);
    packed->prefixes = node->prefixes;
    packed->glob = cp_str(node->glob);
    packed->matched = node->glob.size > 0 ? pack_ref(p, node->matched) : 0;
    packed->otherwise = pack_ref(p, node->otherwise);
    TRY(arena_calloc(p->t->work, node->edge_count + 1, sizeof(*packed->edges),
                     (void **)&packed->edges));
    for (size_t i = 0; i < node->edge_count; i++) {
        Trilane__Parts__V1__PolicyEdge *edge = NULL;
        TRY(arena_calloc(p->t->work, 1, sizeof(*edge), (void **)&edge));
        trilane__parts__v1__policy_edge__init(edge);
        struct slice value = node->edges[i].value;
        if (node->prefixes) { /* the star of its glob stands behind it, not a NUL */
            TRY(arena_dup(p->t->work, value, &value));
        }
        edge->value = cp_str(value);
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
    for (enum dag_use use = 0; use < DAG_USE_COUNT; use++) {
        for (size_t i = 0; i < p->dag->roots[use].count; i++) {
            mark_used(p, p->dag->roots[use].items[i]);
        }
    }
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

static MUST_CHECK struct err pack_schedule(struct packing *p, const struct cp_schedule *schedule)
{
    Trilane__Parts__V1__Schedule *packed = NULL;
    TRY(arena_calloc(p->t->work, 1, sizeof(*packed), (void **)&packed));
    trilane__parts__v1__schedule__init(packed);
    TRY(arena_calloc(p->t->work, schedule->count + 1, sizeof(uint32_t), (void **)&packed->from));
    TRY(arena_calloc(p->t->work, schedule->count + 1, sizeof(uint32_t), (void **)&packed->to));
    for (size_t i = 0; i < schedule->count; i++) {
        packed->from[packed->n_from++] = schedule->spans[i].from;
        packed->to[packed->n_to++] = schedule->spans[i].to;
    }
    packed->not_before_ms = schedule->not_before_ms;
    packed->not_after_ms = schedule->not_after_ms;
    p->part->schedules[p->part->n_schedules++] = packed;
    return OK;
}

/* The schedules that the graphs read, of all that the rules have. */
static MUST_CHECK struct err pack_schedules(struct packing *p, const uint8_t *read)
{
    const struct targeting *t = p->t;
    TRY(arena_calloc(t->work, t->schedule_count + 1, sizeof(uint32_t), (void **)&p->schedules));
    TRY(arena_calloc(t->work, t->schedule_count + 1, sizeof(*p->part->schedules),
                     (void **)&p->part->schedules));
    for (size_t i = 0; i < t->schedule_count; i++) {
        if (read[i] != 0) {
            p->schedules[i] = (uint32_t)p->part->n_schedules;
            TRY(pack_schedule(p, &t->schedules[i]));
        }
    }
    return OK;
}

static MUST_CHECK struct err pack_comparison(struct packing *p, const struct cp_cel_test *test)
{
    static const Trilane__Parts__V1__Attribute attributes[] = {
        [CP_CEL_CALLER] = ATTRIBUTE(CALLER),
        [CP_CEL_TENANT] = ATTRIBUTE(CALLER_TENANT),
        [CP_CEL_DOMAIN] = ATTRIBUTE(CALLER_TRUST_DOMAIN),
        [CP_CEL_TRAIT] = ATTRIBUTE(TRAIT),
        [CP_CEL_METHOD] = ATTRIBUTE(METHOD),
        [CP_CEL_HEADER] = ATTRIBUTE(HEADER),
    };
    Trilane__Parts__V1__Comparison *packed = NULL;
    CHECK(test->attribute <= CP_CEL_HEADER); /* cel_order.c takes no other. */
    TRY(arena_calloc(p->t->work, 1, sizeof(*packed), (void **)&packed));
    trilane__parts__v1__comparison__init(packed);
    packed->attribute = attributes[test->attribute];
    packed->name = cp_str(test->name);
    packed->measure = test->measure == CP_CEL_INT ? TRILANE__PARTS__V1__MEASURE__MEASURE_INT
                                                  : TRILANE__PARTS__V1__MEASURE__MEASURE_SIZE;
    packed->least = test->least;
    packed->most = test->most;
    p->part->comparisons[p->part->n_comparisons++] = packed;
    return OK;
}

/* The comparisons that the graphs read, of all that the rules have. */
static MUST_CHECK struct err pack_comparisons(struct packing *p, const uint8_t *read)
{
    const struct targeting *t = p->t;
    TRY(arena_calloc(t->work, t->comparison_count + 1, sizeof(uint32_t), (void **)&p->comparisons));
    TRY(arena_calloc(t->work, t->comparison_count + 1, sizeof(*p->part->comparisons),
                     (void **)&p->part->comparisons));
    for (size_t i = 0; i < t->comparison_count; i++) {
        if (read[i] != 0) {
            p->comparisons[i] = (uint32_t)p->part->n_comparisons;
            TRY(pack_comparison(p, t->comparisons[i]));
        }
    }
    return OK;
}

/* Which attributes, traits, headers, comparisons and schedules the graphs read. */
static MUST_CHECK struct err pack_reads(struct packing *p)
{
    const struct targeting *t = p->t;
    Trilane__Parts__V1__PolicyTarget *part = p->part;
    size_t names = t->traits.count + t->headers.count;
    size_t slots = names + t->comparison_count + t->schedule_count;
    uint8_t *read = NULL;
    TRY(arena_calloc(t->work, slots + 1, 1, (void **)&read));
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
    TRY(pack_comparisons(p, read + names));
    return pack_schedules(p, read + names + t->comparison_count);
}

static bool has_prefixes(const struct dag *dag)
{
    for (size_t i = 0; i < dag->count; i++) {
        if (dag->nodes[i].prefixes) {
            return true;
        }
    }
    return false;
}

static MUST_CHECK struct err pack_roots(const struct packing *p, enum dag_use use, size_t from,
                                        size_t *out_count, uint32_t **out)
{
    const struct dag_roots *roots = &p->dag->roots[use];
    TRY(arena_calloc(p->t->work, roots->count + 1, sizeof(uint32_t), (void **)out));
    for (size_t i = from; i < roots->count; i++) {
        (*out)[(*out_count)++] = pack_ref(p, roots->items[i]);
    }
    return OK;
}

struct err cp_policy_part(struct targeting *t, const struct dag *dag,
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
    const struct dag_roots *decides = &dag->roots[DAG_DECIDES];
    part->root = pack_ref(&p, decides->count > 0 ? decides->items[0] : DAG_VERDICT);
    TRY(pack_roots(&p, DAG_DECIDES, /* from= */ 1, &part->n_more_roots, &part->more_roots));
    TRY(pack_roots(&p, DAG_SHADOW, /* from= */ 0, &part->n_shadow_roots, &part->shadow_roots));
    TRY(pack_roots(&p, DAG_FAST, /* from= */ 0, &part->n_fast_roots, &part->fast_roots));
    cp_needs(t->c, CAPABILITY_POLICY_GRAPHS, part->n_more_roots > 0 || has_prefixes(dag));
    cp_needs(t->c, CAPABILITY_POLICY_SHADOW, part->n_shadow_roots > 0);
    cp_needs(t->c, CAPABILITY_POLICY_SCHEDULES, part->n_schedules > 0);
    cp_needs(t->c, CAPABILITY_POLICY_COMPARISONS, part->n_comparisons > 0);
    return OK;
}
