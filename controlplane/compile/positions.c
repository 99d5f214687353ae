/*
 * positions: where rules and resources stand, for explaining a decision.
 *
 * They move with every comment, so they are no part of the content digest, and nothing that
 * decides reads them. Keys are "<kind>/<id>" but for rules, which go by their id alone.
 */
#include "controlplane/compile/compiler.h"
#include "controlplane/source/kinds.h"
#include "controlplane/source/source.h"

#include "trilane/parts/v1/parts.pb-c.h"

static MUST_CHECK struct err emit_position(struct cp_compiler *c, struct slice key,
                                           struct cp_pos at)
{
    Trilane__Parts__V1__Position part;
    trilane__parts__v1__position__init(&part);
    part.file = cp_str(c->model->set->files[at.file].name);
    part.line = at.line;
    part.column = at.column;
    return cp_emit(c, CP_PART_POSITIONS, key, &part.base, at);
}

static MUST_CHECK struct err emit_rules(struct cp_compiler *c, const struct cp_policy *policy)
{
    for (size_t i = 0; i < policy->rules.count; i++) {
        const struct cp_rule *rule = &policy->rules.items[i];
        const struct slice pieces[] = {policy->meta.id, SLICE_LIT("/"), rule->name.text};
        struct slice key = {0};
        TRY(arena_join(c->arena, pieces, 3, &key));
        TRY(emit_position(c, key, rule->at));
    }
    return OK;
}

static MUST_CHECK struct err emit_resource(struct cp_compiler *c, const struct cp_meta *resource)
{
    if (!cp_is_whole(resource)) {
        return OK;
    }
    const struct slice pieces[] = {slice_str(cp_kind_at(resource->kind)->name), SLICE_LIT("/"),
                                   resource->id};
    struct slice key = {0};
    TRY(arena_join(c->arena, pieces, 3, &key));
    TRY(emit_position(c, key, resource->at));
    return resource->kind == CP_KIND_POLICY ? emit_rules(c, (const struct cp_policy *)resource)
                                            : OK;
}

struct err cp_compile_positions(struct cp_compiler *c)
{
    for (enum cp_kind kind = 0; kind < CP_KIND_COUNT; kind++) {
        for (size_t i = 0; i < c->model->of[kind].count; i++) {
            TRY(emit_resource(c, c->model->of[kind].items[i]));
        }
    }
    return OK;
}
