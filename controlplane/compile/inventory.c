/*
 * inventory: what people name in their sources, with a digest of each field, so that two compiled
 * platforms can be compared in people's words. It is no part of a snapshot.
 */
#include <stdlib.h>

#include "common/base/check.h"
#include "common/base/scope.h"
#include "controlplane/compile/compiler.h"
#include "controlplane/compile/show.h"
#include "controlplane/source/kinds.h"

/* Feeds a value into 'out' so that different values give different bytes. */
static MUST_CHECK struct err feed_field(struct buf *out, const struct cp_field *field,
                                        const void *at);

static MUST_CHECK struct err feed_text(struct buf *out, struct slice text)
{
    TRY(buf_addf(out, "%zu:", text.size));
    return buf_add(out, text);
}

static MUST_CHECK struct err feed_shape(struct buf *out, const struct cp_shape *shape,
                                        const void *at)
{
    for (size_t i = 0; i < shape->field_count; i++) {
        const struct cp_field *field = &shape->fields[i];
        TRY(feed_field(out, field, field->flat ? at : (const char *)at + field->offset));
    }
    return OK;
}

static int digest_cmp(const void *x, const void *y)
{
    return slice_cmp(slice_of(x, DIGEST_SHORT_SIZE), slice_of(y, DIGEST_SHORT_SIZE));
}

/* A list without a meaning of order: the sorted digests of its items. */
static MUST_CHECK struct err feed_objects(struct buf *out, const struct cp_field *field,
                                          const void *at)
{
    const struct cp_texts *list = at; /* all lists begin alike: items, count */
    auto_free uint8_t *digests = calloc(list->count + 1, DIGEST_SHORT_SIZE);
    if (digests == NULL) {
        return FAIL(E_NO_MEMORY);
    }
    for (size_t i = 0; i < list->count; i++) {
        auto_buf struct buf item = BUF_MAX(SIZE_MAX / 2);
        TRY(feed_shape(&item, field->shape, (const char *)list->items + i * field->shape->size));
        ids_digest_short(buf_slice(&item), digests + i * DIGEST_SHORT_SIZE);
    }
    qsort(digests, list->count, DIGEST_SHORT_SIZE, digest_cmp);
    TRY(buf_addf(out, "%zu;", list->count));
    return buf_add(out, slice_of(digests, list->count * DIGEST_SHORT_SIZE));
}

static MUST_CHECK struct err feed_texts(struct buf *out, const struct cp_texts *texts)
{
    TRY(buf_addf(out, "%zu;", texts->count));
    for (size_t i = 0; i < texts->count; i++) {
        TRY(feed_text(out, texts->items[i].text));
    }
    return OK;
}

static MUST_CHECK struct err feed_pairs(struct buf *out, const struct cp_pairs *pairs)
{
    TRY(buf_addf(out, "%zu;", pairs->count));
    for (size_t i = 0; i < pairs->count; i++) {
        TRY(feed_text(out, pairs->items[i].name.text));
        TRY(feed_text(out, pairs->items[i].value.text));
    }
    return OK;
}

static struct err feed_field(struct buf *out, const struct cp_field *field, const void *at)
{
    switch (field->type) {
    case CP_TYPE_TEXT:
        return feed_text(out, ((const struct cp_text *)at)->text);
    case CP_TYPE_REF:
        return feed_text(out, ((const struct cp_ref *)at)->to == NULL
                                  ? (struct slice){0}
                                  : ((const struct cp_ref *)at)->to->key);
    case CP_TYPE_TEXTS:
    case CP_TYPE_PORTS:
        return feed_texts(out, at);
    case CP_TYPE_COUNT:
    case CP_TYPE_BOOL:
    case CP_TYPE_DURATION:
    case CP_TYPE_SIZE:
    case CP_TYPE_RATE:
    case CP_TYPE_CHOICE:
    case CP_TYPE_FLAGS:
        return buf_addf(out, "%llu;", (unsigned long long)*(const uint64_t *)at);
    case CP_TYPE_PAIRS:
        return feed_pairs(out, at);
    case CP_TYPE_OBJECT:
        return feed_shape(out, field->shape, at);
    case CP_TYPE_OBJECTS:
        return feed_objects(out, field, at);
    }
    return OK;
}

/* Adds an item with the digests of a struct's fields, but for those named 'without'. */
static MUST_CHECK struct err add_item(struct cp_compiler *c, struct cp_item item,
                                      const struct cp_shape *shape, const void *at,
                                      const char *without)
{
    TRY(arena_calloc(c->arena, shape->field_count + 1, sizeof(struct cp_item_field),
                     (void **)&item.fields));
    for (size_t i = 0; i < shape->field_count; i++) {
        const struct cp_field *field = &shape->fields[i];
        if (without != NULL && slice_eq(slice_str(field->name), slice_str(without))) {
            continue;
        }
        auto_buf struct buf bytes = BUF_MAX(SIZE_MAX / 2);
        const void *value = field->flat ? at : (const char *)at + field->offset;
        TRY(feed_field(&bytes, field, value));
        struct cp_item_field *made = &item.fields[item.field_count++];
        TRY(cp_show_field(c->arena, field, value, &made->shown));
        made->name = slice_str(field->name);
        ids_digest_short(buf_slice(&bytes), made->digest);
    }
    void *items = c->out->items;
    TRY(cp_grow(c->arena, &items, c->out->item_count, &c->out->item_capacity,
                sizeof(struct cp_item)));
    c->out->items = items;
    c->out->items[c->out->item_count++] = item;
    return OK;
}

/* "allows call, fetch on service/acme/orders for acme/web" */
static MUST_CHECK struct err rule_note(struct cp_compiler *c, const struct cp_rule *rule,
                                       struct slice target, struct slice *out)
{
    static const char *const verbs[CP_VERB_COUNT] = {"call", "publish", "subscribe", "fetch"};
    auto_buf struct buf note = BUF_MAX(4096);
    TRY(buf_addf(&note, "%s ", rule->effect == 0 ? "allows" : "denies"));
    const char *comma = "";
    for (size_t i = 0; i < CP_VERB_COUNT; i++) {
        if ((rule->verbs >> i & 1) != 0) {
            TRY(buf_addf(&note, "%s%s", comma, verbs[i]));
            comma = ", ";
        }
    }
    TRY(buf_addf(&note, "%s on %.*s", rule->verbs == 0 ? "everything" : "", SLICE_ARG(target)));
    const struct cp_callers *callers = &rule->callers;
    if (callers->count == 1 && callers->items[0].service.to != NULL) {
        TRY(buf_addf(&note, " for %.*s", SLICE_ARG(callers->items[0].service.to->id)));
    } else {
        TRY(callers->count == 0 ? buf_add_str(&note, " for anyone")
                                : buf_addf(&note, " for %zu kind%s of callers", callers->count,
                                           callers->count == 1 ? "" : "s"));
    }
    return arena_dup(c->arena, buf_slice(&note), out);
}

static MUST_CHECK struct err add_rules(struct cp_compiler *c, const struct cp_policy *policy,
                                       struct slice target)
{
    const struct cp_field *rules = NULL;
    const struct cp_shape *spec = &cp_kind_at(CP_KIND_POLICY)->spec;
    for (size_t i = 0; i < spec->field_count; i++) {
        rules = spec->fields[i].type == CP_TYPE_OBJECTS ? &spec->fields[i] : rules;
    }
    CHECK(rules != NULL);
    for (size_t i = 0; i < policy->rules.count; i++) {
        const struct cp_rule *rule = &policy->rules.items[i];
        struct cp_item item = {.kind = SLICE_LIT("rule"), .target = target};
        TRY(arena_printf(c->arena, &item.id, "%.*s/%.*s", SLICE_ARG(policy->meta.id),
                         SLICE_ARG(rule->name.text)));
        TRY(rule_note(c, rule, target, &item.note));
        TRY(add_item(c, item, rules->shape, rule, /* without= */ "name"));
    }
    return OK;
}

/* What a change of the resource reaches: itself, or what it is about. */
static MUST_CHECK struct err target_of(struct cp_compiler *c, const struct cp_meta *meta,
                                       struct slice *out)
{
    switch (meta->kind) {
    case CP_KIND_SERVICE:
    case CP_KIND_EGRESS:
    case CP_KIND_TOPIC:
        return cp_target_id(c, meta, out);
    case CP_KIND_POLICY:
        return cp_target_id(c, cp_target_of(&((const struct cp_policy *)meta)->target), out);
    case CP_KIND_RATE_LIMIT:
        return cp_target_id(c, cp_target_of(&((const struct cp_rate_limit *)meta)->target), out);
    case CP_KIND_ENVIRONMENT:
    case CP_KIND_ROUTE:
    case CP_KIND_TRANSPORT_PROFILE:
    case CP_KIND_COUNT:
        return OK;
    }
    return OK;
}

static MUST_CHECK struct err add_resource(struct cp_compiler *c, const struct cp_meta *meta)
{
    if (!cp_is_whole(meta)) {
        return OK;
    }
    const struct cp_kind_row *row = cp_kind_at(meta->kind);
    struct cp_item item = {.kind = slice_str(row->name)};
    TRY(arena_dup(c->arena, meta->id, &item.id));
    TRY(target_of(c, meta, &item.target));
    bool policy = meta->kind == CP_KIND_POLICY;
    TRY(add_item(c, item, &row->spec, meta, policy ? "rules" : NULL));
    return policy ? add_rules(c, (const struct cp_policy *)meta, item.target) : OK;
}

static int item_cmp(const void *x, const void *y)
{
    const struct cp_item *a = x;
    const struct cp_item *b = y;
    int order = slice_cmp(a->kind, b->kind);
    return order != 0 ? order : slice_cmp(a->id, b->id);
}

struct err cp_compile_inventory(struct cp_compiler *c)
{
    for (enum cp_kind kind = 0; kind < CP_KIND_COUNT; kind++) {
        for (size_t i = 0; i < c->model->of[kind].count; i++) {
            TRY(add_resource(c, c->model->of[kind].items[i]));
        }
    }
    if (c->out->item_count > 1) {
        qsort(c->out->items, c->out->item_count, sizeof(struct cp_item), item_cmp);
    }
    return OK;
}
