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
        struct slice key = {0};
        TRY(arena_printf(c->arena, &key, "%.*s/%.*s", SLICE_ARG(policy->meta.id),
                         SLICE_ARG(rule->name.text)));
        TRY(emit_position(c, key, rule->at));
    }
    return OK;
}

struct err cp_compile_positions(struct cp_compiler *c)
{
    for (enum cp_kind kind = 0; kind < CP_KIND_COUNT; kind++) {
        const struct cp_resources *all = &c->model->of[kind];
        for (size_t i = 0; i < all->count; i++) {
            struct slice key = {0};
            TRY(arena_printf(c->arena, &key, "%s/%.*s", cp_kind_at(kind)->name,
                             SLICE_ARG(all->items[i]->id)));
            TRY(emit_position(c, key, all->items[i]->at));
            if (kind == CP_KIND_POLICY) {
                TRY(emit_rules(c, (const struct cp_policy *)all->items[i]));
            }
        }
    }
    return OK;
}
