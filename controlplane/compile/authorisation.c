/*
 * authorisation: all rules about a target, from whichever policy, to decision graphs.
 *
 * Every service, topic and egress has a part, without rules too: then it says that everything is
 * denied. Order of attributes: what splits the rules most evenly comes first (verb, lane, tenant,
 * caller), what has globs late, what only some rules ask (traits, headers, times) last.
 */
#include <stdlib.h>
#include <string.h>

#include "common/base/array.h"
#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/map.h"
#include "controlplane/compile/fast.h"
#include "controlplane/source/leaf.h"

/* ---- one target ---- */

static void refuse_size(struct targeting *t, struct slice target, struct cp_pos at)
{
    struct cp_diag *diag =
        cp_diags_add(t->c->diags, CP_DIAG_POLICY_TOO_LARGE, at,
                     "the %zu rules about %.*s make too large graphs", t->count, SLICE_ARG(target));
    cp_diag_expect(
        t->c->diags, diag,
        "at most %llu nodes, %d graphs and %d traits, headers, comparisons and schedules; "
        "fewer globs help most",
        (unsigned long long)limits.policy_nodes, DAG_ROOTS_MAX, DAG_SLOTS_MAX - SLOT_FIXED);
}

static MUST_CHECK struct err make_graphs(struct targeting *t, bool whole, struct dag *out)
{
    TRY(cp_make_clauses(t));
    TRY(cp_add_fast_clauses(t));
    const struct dag_from from = {.clauses = t->clauses,
                                  .clause_count = t->clause_count,
                                  .slot_count = targeting_slots(t),
                                  .whole = whole};
    return dag_make(t->work, &from, out);
}

/* One graph in either order of the slots; else several. */
static MUST_CHECK struct err make_any_graphs(struct targeting *t, struct dag *out)
{
    TRY(cp_read_rulings(t));
    for (int order = 0; order < 2; order++) {
        t->caller_first = order == 1;
        struct err e = make_graphs(t, /* whole= */ true, out);
        if (e.code != E_TOO_LARGE) {
            return e;
        }
    }
    return make_graphs(t, /* whole= */ false, out);
}

static MUST_CHECK struct err make_target(struct targeting *t, const struct cp_meta *target)
{
    struct slice id = {0};
    struct dag dag = {0};
    TRY(cp_target_id(t->c->arena, target, &id));
    struct err e = make_any_graphs(t, &dag);
    if (e.code == E_TOO_LARGE || (e.code == E_NO_MEMORY && t->work->full)) {
        refuse_size(t, id, t->count > 0 ? t->rulings[0].policy->meta.at : target->at);
        return OK;
    }
    TRY(e);
    Trilane__Parts__V1__PolicyTarget part;
    trilane__parts__v1__policy_target__init(&part);
    part.target = cp_str(id);
    TRY(cp_policy_part(t, &dag, &part));
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
    free(t.clauses);
    arena_free(&work);
    return e;
}

/*
 * The key of a target's part: its id, whether it has a fast path, and which policies speak of it. A
 * policy is named by its leaf, its place in it, and the state of the leaf's references; so equal
 * keys have the same rules about the same callers. False: something in it is faulty, or is not
 * kept.
 */
static MUST_CHECK struct err group_key(const struct group *group, struct slice id, bool guarded,
                                       struct buf *out, bool *out_known)
{
    TRY(buf_add(out, id));
    TRY(buf_add_byte(out, guarded ? '\1' : '\0'));
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
    TRY(group_key(group, id, cp_has_guardrails(c->model), &key, &known));
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

static MUST_CHECK struct err add_policy(struct group *group, const struct cp_policy *policy)
{
    TRY(array_room(&group->policies, group->count, &group->capacity, sizeof(*group->policies)));
    group->policies[group->count++] = policy;
    return OK;
}

/* Of a glob: to each group that it fits. */
static MUST_CHECK struct err add_to_all(struct group *groups, size_t count,
                                        const struct cp_policy *policy)
{
    for (size_t i = 0; i < count; i++) {
        if (cp_policy_is_about(policy, groups[i].target)) {
            TRY(add_policy(&groups[i], policy));
        }
    }
    return OK;
}

static MUST_CHECK struct err add_policies(struct cp_compiler *c, const struct map *by_target,
                                          struct group *groups, size_t count)
{
    const struct cp_resources *policies = &c->model->of[CP_KIND_POLICY];
    for (size_t i = 0; i < policies->count; i++) {
        const struct cp_policy *policy = (const struct cp_policy *)policies->items[i];
        const struct cp_meta *target = cp_target_of(&policy->target);
        struct slice id = {0};
        if (policy->meta.apart) {
            continue;
        }
        if (target == NULL) {
            TRY(add_to_all(groups, count, policy));
            continue;
        }
        TRY(cp_target_id(c->arena, target, &id));
        struct group *group = map_get(by_target, id);
        CHECK(group != NULL);
        TRY(add_policy(group, policy));
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
        e = add_policies(c, &by_target, groups, count);
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
